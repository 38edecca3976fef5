//! Judges what an endpoint of metrics answered (EB 5.8): 404, empty, HTML, a wrong Content-Type, or a required metric that is not there.
//!
//! In: status, Content-Type and body, unpacked and of a size that the caller bounds. Out: findings. Formats: text 0.0.4, OpenMetrics 1.0,
//! delimited protobuf.

use super::{Finding, of_target};
use crate::wire::{Message, read_varint};
use std::collections::HashSet;

#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub status: u16,
    pub content_type: Option<&'a str>,
    pub body: &'a [u8],
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Text,
    OpenMetrics,
    Protobuf,
}

/// `target`: what the findings name, a URL. `required`: names of metrics, of which `x_total`, `x_bucket`, `x_count`, … are too.
pub fn judge(target: &str, answer: Answer<'_>, required: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |rule, what: String, help: &str| findings.push(of_target(target, rule, what, help));
    if answer.status != 200 {
        match answer.status {
            404 => {
                find("probe_not_found", "answered 404: nothing is served at this path".into(), "scrape the path that the service serves")
            }
            401 | 403 => find(
                "probe_status",
                format!("answered {}: it wants to be asked by somebody else", answer.status),
                "give the scrape its credentials",
            ),
            301..=308 => find("probe_status", format!("answered {}: it is elsewhere", answer.status), "scrape where it leads to"),
            other => find("probe_status", format!("answered {other}, not 200"), "look at the log of the service"),
        }
        return findings;
    }
    let format = format_of(answer.content_type);
    if is_html(answer.body) {
        find(
            "probe_html",
            "answered a page of HTML, no metrics".into(),
            "this is a start page or a login; scrape the path that the service serves",
        );
        return findings;
    }
    if let Err(what) = &format {
        find("probe_content_type", what.clone(), "serve text/plain; version=0.0.4, or application/openmetrics-text; version=1.0.0");
    }
    if answer.body.trim_ascii().is_empty() {
        find("probe_empty", "answered an empty body".into(), "a process without metrics has up=1 and nothing else; register its metrics");
        return findings;
    }
    let format = format.unwrap_or(Format::Text);
    let names = if format == Format::Protobuf { families(answer.body) } else { sample_names(answer.body) };
    if names.is_empty() {
        find(
            "probe_empty",
            "answered a body without a single metric".into(),
            "register metrics, or scrape the path that the service serves",
        );
        return findings;
    }
    if format == Format::OpenMetrics && !answer.body.trim_ascii_end().ends_with(b"# EOF") {
        find(
            "probe_truncated",
            "answered OpenMetrics without `# EOF` at its end: it is cut".into(),
            "look at proxies and time-outs between",
        );
    }
    for metric in required.iter().filter(|metric| !has(&names, metric)) {
        find(
            "probe_required_missing",
            format!("the required metric `{metric}` is not among the {} that it serves", names.len()),
            "serve it, or take it from weir.dev/metrics-required",
        );
    }
    findings
}

fn has(names: &HashSet<String>, metric: &str) -> bool {
    const PARTS: [&str; 7] = ["", "_total", "_bucket", "_count", "_sum", "_info", "_created"];
    PARTS.iter().any(|part| names.contains(&format!("{metric}{part}")))
}

/// As the newest Prometheus reads it: a type that is missing or unknown fails the scrape.
fn format_of(content_type: Option<&str>) -> Result<Format, String> {
    let given = content_type.map(str::trim).filter(|given| !given.is_empty());
    let Some(given) = given else { return Err("answered without a Content-Type".into()) };
    let mut parts = given.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let parameters: Vec<(String, &str)> = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
        .collect();
    let parameter = |name: &str| parameters.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
    let is_utf8 =
        parameter("charset").is_none_or(|charset| charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii"));
    match kind.as_str() {
        "text/plain" if is_utf8 && matches!(parameter("version"), None | Some("0.0.4" | "1.0.0")) => Ok(Format::Text),
        "application/openmetrics-text" if is_utf8 && matches!(parameter("version"), None | Some("0.0.1" | "1.0.0")) => {
            Ok(Format::OpenMetrics)
        }
        "application/vnd.google.protobuf"
            if parameter("proto") == Some("io.prometheus.client.MetricFamily") && parameter("encoding") == Some("delimited") =>
        {
            Ok(Format::Protobuf)
        }
        _ => Err(format!("answered the Content-Type `{}`, which is none of metrics", given.escape_debug().take(100).collect::<String>())),
    }
}

fn is_html(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let front = body[..body.len().min(200)].to_ascii_lowercase();
    ["<!doctype", "<html", "<head", "<body", "<!--", "<?xml"].iter().any(|tag| front.starts_with(tag.as_bytes()))
}

/// Names of the lines that are samples: a name, labels or none, a number.
fn sample_names(body: &[u8]) -> HashSet<String> {
    let mut names = HashSet::new();
    for line in body.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
        if let Some(name) = sample_name(line.trim()) {
            names.insert(name.to_string());
        }
    }
    names
}

fn sample_name(line: &str) -> Option<&str> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (name, rest) = match line.strip_prefix("{\"") {
        // A name in UTF-8 stands within the braces.
        Some(quoted) => (quoted.split('"').next()?, line),
        None => line.split_at(line.find(['{', ' ', '\t'])?),
    };
    let values = match rest.trim_start().strip_prefix('{') {
        Some(labels) => &labels[labels_len(labels)?..],
        None => rest,
    };
    let value = values.split_whitespace().next()?;
    let is_name = !name.is_empty()
        && (line.starts_with('{')
            || name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'))
                && !name.as_bytes()[0].is_ascii_digit());
    (is_name && value.parse::<f64>().is_ok()).then_some(name)
}

/// Bytes of labels up to their brace, with it; braces within quotes are none.
fn labels_len(labels: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in labels.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'}' if !is_quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Names of the families that stand before the first broken message.
fn families(mut body: &[u8]) -> HashSet<String> {
    let mut names = HashSet::new();
    while !body.is_empty() {
        let Some((message, rest)) = read_varint(&mut body).ok().and_then(|len| body.split_at_checked(usize::try_from(len).ok()?)) else {
            break;
        };
        body = rest;
        let name =
            Message::new(message).find_map(|field| field.ok().filter(|(number, _)| *number == 1).and_then(|(_, field)| field.text().ok()));
        names.extend(name.filter(|name| !name.is_empty()).map(str::to_string));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const PROTO: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

    #[test]
    fn eb_5_8_each_way_of_serving_no_metrics_has_its_name() {
        for (status, content_type, body, want) in [
            (200, Some(TEXT), "up 1\n", vec![]),
            (200, Some(TEXT), "# HELP up x\nup{a=\"b } # \"} NaN 123\n", vec![]),
            (200, Some("text/plain"), "up 1", vec![]),
            (200, Some("TEXT/PLAIN;version=\"0.0.4\""), "{\"up\",a=\"b\"} 1", vec![]),
            (200, Some(OPEN), "up_total 1.0 # {a=\"b\"} 1.0\n# EOF\n", vec![]),
            (200, Some(OPEN), "up 1\n", vec!["probe_truncated"]),
            (404, Some("text/html"), "<html>", vec!["probe_not_found"]),
            (500, Some(TEXT), "up 1", vec!["probe_status"]),
            (302, None, "", vec!["probe_status"]),
            (401, None, "", vec!["probe_status"]),
            (200, Some(TEXT), "", vec!["probe_empty"]),
            (200, Some(TEXT), " \n\n", vec!["probe_empty"]),
            (200, Some(OPEN), "# EOF\n", vec!["probe_empty"]),
            (200, Some(TEXT), "# HELP a b\n", vec!["probe_empty"]),
            (200, Some("text/html; charset=utf-8"), "\n<!DOCTYPE html><html>", vec!["probe_html"]),
            (200, Some(TEXT), "\u{feff} <HTML>", vec!["probe_html"]),
            (200, Some("text/html"), "up 1", vec!["probe_content_type"]),
            (200, Some("application/json"), "{\"up\": 1}", vec!["probe_content_type", "probe_empty"]),
            (200, None, "up 1", vec!["probe_content_type"]),
            (200, Some(""), "", vec!["probe_content_type", "probe_empty"]),
            (200, Some("text/plain; version=2.0"), "up 1", vec!["probe_content_type"]),
            (200, Some("text/plain; charset=utf-16"), "up 1", vec!["probe_content_type"]),
            (200, Some(PROTO), "\u{4}\n\u{2}up", vec![]),
            (200, Some("application/vnd.google.protobuf"), "\u{4}\n\u{2}up", vec!["probe_content_type", "probe_empty"]),
            (200, Some(TEXT), "other 1", vec!["probe_required_missing"]),
            (200, Some(TEXT), "hello world, this is fine", vec!["probe_empty"]),
            (200, Some(TEXT), "upper 1", vec!["probe_required_missing"]),
            (200, Some(TEXT), "up_bucket{le=\"+Inf\"} 1", vec![]),
        ] {
            let answer = Answer { status, content_type, body: body.as_bytes() };
            let found: Vec<&str> = judge("http://a/metrics", answer, &["up".to_string()]).iter().map(|finding| finding.rule).collect();
            assert_eq!(found, want, "{status} {content_type:?} {body:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_a_panic(status: u16, body: Vec<u8>, text in "[a{}\" #=1\n]{0,30}", content_type: Option<String>) {
            for body in [body.as_slice(), text.as_bytes()] {
                for content_type in [content_type.as_deref(), Some(TEXT), Some(OPEN), Some(PROTO)] {
                    let _ = judge("x", Answer { status, content_type, body }, &["a".to_string()]);
                    let _ = judge("x", Answer { status: 200, content_type, body }, &["a".to_string()]);
                }
            }
        }
    }
}
