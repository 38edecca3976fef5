//! Which format a body is in, and which one a client wants: Content-Type and Accept.
//!
//! Read as Prometheus 3 reads: a Content-Type that is missing, cannot be parsed or is of something else is refused, unless the target
//! has a fallback. Written as its client libraries write. Source: prometheus/prometheus model/textparse/interface.go, prometheus/common
//! expfmt.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`
    Text,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
    /// Messages `io.prometheus.client.MetricFamily`, each with its length in front.
    Protobuf,
}

/// What becomes of names that are not of letters, digits, `_` and `:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escaping {
    /// They stay, in quotes.
    AllowUtf8,
    /// Every such character becomes `_`.
    #[default]
    Underscores,
    /// `.` becomes `_dot_`, `_` and others become `__`.
    Dots,
    /// Names that need it get `U__` in front, `_` doubled, others as `_HEX_`.
    Values,
}

impl Escaping {
    pub const ALL: [(&str, Escaping); 4] = [
        ("allow-utf-8", Escaping::AllowUtf8),
        ("underscores", Escaping::Underscores),
        ("dots", Escaping::Dots),
        ("values", Escaping::Values),
    ];

    pub fn name(self) -> &'static str {
        Escaping::ALL.into_iter().find(|(_, escaping)| *escaping == self).map_or("", |(name, _)| name)
    }
}

/// Why a body is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word, to count by: `no_content_type`, `bad_content_type`, `html`, `json`, `unsupported_content_type`.
    pub reason: &'static str,
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}

const FALLBACK: &str = "set a fallback format for the target to read it all the same";

impl Format {
    /// What a scrape asks for.
    pub const ACCEPT: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    /// The same, with protobuf first, for it alone has native histograms.
    pub const ACCEPT_PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
        application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

    /// `fallback`: what the target's bodies are in when the header does not say.
    pub fn of_content_type(header: Option<&str>, fallback: Option<Format>) -> Result<Format, Refusal> {
        match media(header.unwrap_or("")) {
            Ok(format) => Ok(format),
            Err(refusal) => fallback.ok_or(refusal),
        }
    }

    /// The exact Content-Type that client libraries send.
    pub fn content_type(self, escaping: Escaping) -> String {
        let base = match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        };
        format!("{base}; escaping={}", escaping.name())
    }
}

fn media(header: &str) -> Result<Format, Refusal> {
    if header.trim().is_empty() {
        let text = format!("the answer has no Content-Type, and a target must say what it sends; {FALLBACK}");
        return Err(Refusal { reason: "no_content_type", text });
    }
    let Some((kind, _)) = parse_media(header) else {
        let text = format!("the answer's Content-Type {header:?} cannot be parsed; {FALLBACK}");
        return Err(Refusal { reason: "bad_content_type", text });
    };
    let (reason, what) = match kind.as_str() {
        "text/plain" => return Ok(Format::Text),
        "application/openmetrics-text" => return Ok(Format::OpenMetrics),
        "application/vnd.google.protobuf" => return Ok(Format::Protobuf),
        "text/html" | "application/xhtml+xml" => ("html", "is HTML, a page and no metrics: path or port may be wrong"),
        kind if kind == "application/json" || kind.ends_with("+json") => ("json", "is JSON and no metrics: the path may be wrong"),
        _ => ("unsupported_content_type", "is no format of metrics"),
    };
    Err(Refusal { reason, text: format!("the answer's Content-Type {header:?} {what}; {FALLBACK}") })
}

type Parameters = Vec<(String, String)>;

/// `type/subtype; name=value; name="value"` as Go's `mime.ParseMediaType` takes it, names in lower case.
fn parse_media(text: &str) -> Option<(String, Parameters)> {
    let (kind, mut rest) = text.split_once(';').map_or((text, ""), |(kind, rest)| (kind, rest));
    let kind = kind.trim().to_ascii_lowercase();
    let (main, sub) = kind.split_once('/').map_or((kind.as_str(), None), |(main, sub)| (main, Some(sub)));
    if !is_token(main) || sub.is_some_and(|sub| !is_token(sub)) {
        return None;
    }
    let mut parameters = Parameters::new();
    while !rest.trim().is_empty() {
        let trimmed = rest.trim_start();
        let (name, after) = trimmed.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        let (value, after) = parameter(after)?;
        if !is_token(&name) || parameters.iter().any(|(known, other)| *known == name && *other != value) || parameters.len() > 64 {
            return None;
        }
        parameters.push((name, value));
        let after = after.trim_start();
        rest = if after.is_empty() { after } else { after.strip_prefix(';')? };
    }
    Some((kind, parameters))
}

fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let len = text.find(|letter: char| !is_token_letter(letter)).unwrap_or(text.len());
        return (len > 0).then(|| (text[..len].to_string(), &text[len..]));
    };
    let (mut value, mut letters) = (String::new(), quoted.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            _ => value.push(letter),
        }
    }
    None
}

fn is_token_letter(letter: char) -> bool {
    letter.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(letter)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_letter)
}

/// Chooses the format that a client likes best, and what it wants of names. Without a match it is the text format, as in all client
/// libraries. Among equals the first wins; a `q` of 0 is a refusal.
pub fn negotiate(accept: &str) -> (Format, Escaping) {
    let mut clauses: Vec<(u32, String, Parameters)> = Vec::new();
    for clause in accept.split(',').take(64) {
        let Some((kind, parameters)) = parse_media(clause) else { continue };
        let quality = parameters.iter().find(|(name, _)| name == "q").map_or(Some(1.0), |(_, value)| value.parse::<f64>().ok());
        let Some(quality) = quality.filter(|quality| (0.0..=1.0).contains(quality)) else { continue };
        clauses.push(((quality * 1000.0).round() as u32, kind, parameters));
    }
    clauses.sort_by_key(|(quality, ..)| std::cmp::Reverse(*quality));
    for (quality, kind, parameters) in &clauses {
        let get = |name: &str| parameters.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
        let format = match (kind.as_str(), get("version")) {
            ("text/plain", "" | "0.0.4" | "1.0.0") => Format::Text,
            ("application/openmetrics-text", "" | "0.0.1" | "1.0.0") => Format::OpenMetrics,
            ("application/vnd.google.protobuf", _)
                if get("proto") == "io.prometheus.client.MetricFamily" && get("encoding") == "delimited" =>
            {
                Format::Protobuf
            }
            ("*/*" | "text/*", _) => Format::Text,
            _ => continue,
        };
        let escaping = Escaping::ALL.into_iter().find(|(name, _)| *name == get("escaping")).map(|(_, escaping)| escaping);
        if *quality > 0 {
            return (format, escaping.unwrap_or_default());
        }
    }
    (Format::Text, Escaping::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// prometheus/model/textparse/interface_test.go, TestNewParser.
    #[test]
    fn a_content_type_is_read_as_prometheus_reads_it() {
        for (header, want) in [
            ("", Err("no_content_type")),
            ("invalid/", Err("bad_content_type")),
            ("invalid/invalid/invalid", Err("bad_content_type")),
            ("/", Err("bad_content_type")),
            ("application/openmetrics-text; charset=UTF-8; charset=utf-8", Err("bad_content_type")),
            ("text/plain; version=", Err("bad_content_type")),
            ("application/openmetrics-text", Ok(Format::OpenMetrics)),
            ("application/openmetrics-text; charset=utf-8", Ok(Format::OpenMetrics)),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Ok(Format::OpenMetrics)),
            ("text/plain", Ok(Format::Text)),
            ("Text/Plain; Version=0.0.4;", Ok(Format::Text)),
            ("text/plain; version=\"0.0.4\"", Ok(Format::Text)),
            ("application/vnd.google.protobuf; proto=x", Ok(Format::Protobuf)),
            ("text/html; charset=utf-8", Err("html")),
            ("application/json", Err("json")),
            ("application/octet-stream", Err("unsupported_content_type")),
        ] {
            let got = Format::of_content_type(Some(header), None);
            assert_eq!(got.map_err(|refusal| refusal.reason), want, "{header}");
            let fallback = Format::of_content_type(Some(header), Some(Format::OpenMetrics));
            assert_eq!(fallback, Ok(want.unwrap_or(Format::OpenMetrics)), "{header}");
        }
        let refusal = Format::of_content_type(Some("text/html"), None).expect_err("HTML");
        assert!(refusal.text.contains("text/html") && refusal.text.contains("HTML"), "{refusal}");
        assert_eq!(Format::of_content_type(None, None).map_err(|refusal| refusal.reason), Err("no_content_type"));
    }

    /// prometheus/common expfmt/encode_test.go, TestNegotiateIncludingOpenMetrics and TestNegotiate.
    #[test]
    fn a_client_gets_what_it_likes_best() {
        const PROTO: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily";
        let (text, open) = ("text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8");
        let delimited = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
        for (accept, want, escaping) in [
            ("", text, "underscores"),
            ("*/*", text, "underscores"),
            ("application/json", text, "underscores"),
            ("application/openmetrics-text;version=1.0.0", open, "underscores"),
            ("application/openmetrics-text", open, "underscores"),
            ("application/openmetrics-text;version=0.0.4", text, "underscores"),
            ("text/plain;version=0.0.4", text, "underscores"),
            (&format!("{PROTO};encoding=delimited"), delimited, "underscores"),
            (&format!("{PROTO};encoding=delimited;escaping=allow-utf-8"), delimited, "allow-utf-8"),
            (&format!("text/plain;q=0.5,{PROTO};encoding=delimited;q=0.7"), delimited, "underscores"),
            (&format!("text/plain;q=0.5,{PROTO};encoding=delimited;q=0"), text, "underscores"),
            (&format!("{PROTO};encoding=text"), text, "underscores"),
            ("text/plain; q=0.5, application/openmetrics-text; version=1.0.0; escaping=dots; q=0.75", open, "dots"),
            ("text/plain;version=0.0.4;escaping=values", text, "values"),
            ("text/plain;escaping=what", text, "underscores"),
            (Format::ACCEPT, open, "allow-utf-8"),
            (Format::ACCEPT_PROTOBUF, delimited, "underscores"),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", text, "underscores"),
        ] {
            let (format, chosen) = negotiate(accept);
            assert_eq!(format.content_type(chosen), format!("{want}; escaping={escaping}"), "{accept}");
        }
    }
}
