//! The grammar of the text formats: Prometheus' 0.0.4 and OpenMetrics 1.0, piece by piece.
//!
//! In: the rest of a body. Out: lengths of what stands there, and the parts of it, with escapes undone. Both formats are read as
//! Prometheus reads them, which is more lenient than OpenMetrics' text in places ([`super::strict`] holds to that), with quoted names
//! in UTF-8. Nothing here allocates but for a series that was not seen before. Every function passes each byte once.

use super::number;
use flow::units::UnixNanos;
use memchr::{memchr, memchr2, memchr3};

/// Which rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Blanks and tabs, any number of them, between all parts; timestamps in whole milliseconds.
    Text,
    /// One blank, where it must be; timestamps in seconds; exemplars.
    OpenMetrics,
}

/// Of labels and names in one series; a hostile body has no more to give than its own length anyway.
pub const LABELS_MAX: usize = 10_000;

/// What stands where something else should.
pub type Expected = &'static str;
/// What OpenMetrics says of a body that was cut.
pub const NO_EOF: Expected = "the body does not end with # EOF";

/// A series as its text says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    pub name: Vec<u8>,
    /// In the order of the text, repeated names and all.
    pub labels: Vec<(Vec<u8>, Vec<u8>)>,
}

#[inline]
pub fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[inline]
pub fn blanks(text: &[u8]) -> usize {
    text.iter().position(|byte| !is_blank(*byte)).unwrap_or(text.len())
}

const LETTER: u8 = 1;
const DIGIT: u8 = 2;
const COLON: u8 = 4;

/// What a byte may be in a name.
const IN_NAMES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => DIGIT,
            b':' => COLON,
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// Bytes of a name of letters, digits, `_` and, of a metric, `:`.
#[inline]
pub fn name_len(text: &[u8], metric: bool) -> usize {
    let first = if metric { LETTER | COLON } else { LETTER };
    match text.first() {
        Some(byte) if IN_NAMES[usize::from(*byte)] & first != 0 => {
            text.iter().position(|byte| IN_NAMES[usize::from(*byte)] & (first | DIGIT) == 0).unwrap_or(text.len())
        }
        _ => 0,
    }
}

/// Bytes of the quoted text at the front, quotes included.
pub fn quoted_len(text: &[u8], allow_line_ends: bool) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        at += match allow_line_ends {
            true => memchr2(b'"', b'\\', text.get(at..)?)?,
            false => memchr3(b'"', b'\\', b'\n', text.get(at..)?)?,
        };
        match text[at] {
            b'"' => return Some(at + 1),
            // A line's end is no part of an escape.
            b'\\' if !matches!(text.get(at + 1), None | Some(b'\n')) => at += 2,
            _ => return None,
        }
    }
}

/// Undoes `\"`, `\\` and `\n`; every other escape stands for itself.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (byte, len) = match rest.get(at + 1) {
            Some(b'n') => (b'\n', 2),
            Some(&byte @ (b'"' | b'\\')) => (byte, 2),
            _ => (b'\\', 1),
        };
        out.push(byte);
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
    out
}

/// Where the series text ends, if it is well formed. It is not checked: what is found this way was parsed before, or will be.
#[inline]
pub fn series_len(text: &[u8]) -> Option<usize> {
    let name = text.iter().position(|byte| matches!(byte, b'{' | b' ' | b'\t' | b'\n')).unwrap_or(text.len());
    let brace = name + blanks(&text[name..]);
    if text.get(brace) != Some(&b'{') {
        return Some(name);
    }
    let mut at = brace + 1;
    loop {
        at += memchr2(b'"', b'}', text.get(at..)?)?;
        if text[at] == b'}' {
            return Some(at + 1);
        }
        at += quoted_len(&text[at..], true)?;
    }
}

/// Reads a series: a name, labels in braces, or both in braces. Returns how long it is.
pub fn parse_series(text: &[u8], dialect: Dialect, parsed: &mut Parsed) -> Result<usize, Expected> {
    parsed.name.clear();
    parsed.labels.clear();
    let name = name_len(text, true);
    let mut has_name = name > 0;
    parsed.name.extend_from_slice(&text[..name]);
    if name == 0 && text.first() != Some(&b'{') {
        return Err("a name or a brace begins a sample");
    }
    let brace = name + if dialect == Dialect::Text { blanks(&text[name..]) } else { 0 };
    if text.get(brace) != Some(&b'{') {
        return Ok(name);
    }
    let len = parse_labels(text, brace + 1, dialect, Some(&mut has_name), parsed)?;
    if !has_name {
        return Err("the metric has no name");
    }
    Ok(len)
}

/// Reads labels after the brace at `at - 1`. `name`: a quoted text alone is the metric's name, and whether there was one.
fn parse_labels(text: &[u8], mut at: usize, dialect: Dialect, mut name: Option<&mut bool>, parsed: &mut Parsed) -> Result<usize, Expected> {
    // Prometheus' reader of OpenMetrics takes no blanks between labels.
    let skip = |at: usize| at + if dialect == Dialect::Text { blanks(&text[at..]) } else { 0 };
    loop {
        at = skip(at);
        if text.get(at) == Some(&b'}') {
            return Ok(at + 1);
        }
        if parsed.labels.len() >= LABELS_MAX {
            return Err("a series has at most 10,000 labels");
        }
        let is_quoted = text.get(at) == Some(&b'"');
        let len = match is_quoted {
            true => quoted_len(&text[at..], true).ok_or("a quoted name ends with a quote")?,
            false => name_len(&text[at..], false),
        };
        if len == 0 {
            return Err("expected a label's name");
        }
        let raw = if is_quoted { &text[at + 1..at + len - 1] } else { &text[at..at + len] };
        at = skip(at + len);
        if is_quoted && matches!(text.get(at), Some(b',' | b'}')) {
            let has_name = name.as_deref_mut().ok_or("an exemplar has no name")?;
            if *has_name {
                return Err("the metric has a name already");
            }
            *has_name = true;
            parsed.name = unescape(raw);
            at += usize::from(text[at] == b',');
            continue;
        }
        if text.get(at) != Some(&b'=') {
            return Err("expected an equal sign after a label's name");
        }
        at = skip(at + 1);
        let len = quoted_len(&text[at..], dialect == Dialect::Text).ok_or("expected a quoted label value")?;
        let value = &text[at + 1..at + len - 1];
        let undo = |text: &[u8]| if memchr(b'\\', text).is_some() { unescape(text) } else { text.to_vec() };
        parsed.labels.push((undo(raw), undo(value)));
        at = skip(at + len);
        match text.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => {}
            // Prometheus reads labels without a comma between them in its own format.
            _ if dialect == Dialect::Text => {}
            _ => return Err("expected a comma or a closing brace"),
        }
    }
}

/// What follows a series: its value, when it was, and an exemplar's place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    pub value: f64,
    /// As the line says it.
    pub at: Option<UnixNanos>,
    /// The line's time is a number and further away than can be counted.
    pub beyond: bool,
    /// Where ` # {` begins, if it does.
    pub exemplar: Option<usize>,
    /// Bytes up to and with the line's end, or up to the exemplar.
    pub len: usize,
}

/// Reads a value and what follows it on its line, in Prometheus' format.
#[inline]
pub fn tail_of_text(text: &[u8]) -> Result<Tail, Expected> {
    let mut at = blanks(text);
    let (value, len) = number::take(&text[at..]).ok_or("expected a number as the value")?;
    at += len;
    at += blanks(&text[at..]);
    let mut tail = Tail { value, at: None, beyond: false, exemplar: None, len: at + 1 };
    match text.get(at) {
        None | Some(b'\n') => Ok(tail),
        Some(_) => {
            let digits = text[at..].iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len() - at);
            if digits == 0 {
                return Err("expected a timestamp in milliseconds or the line's end");
            }
            let millis = std::str::from_utf8(&text[at..at + digits]).ok().and_then(|digits| digits.parse::<i64>().ok());
            let millis = millis.ok_or("a timestamp is at most 9223372036854775807 ms")?;
            tail.at = millis.checked_mul(1_000_000).map(UnixNanos);
            tail.beyond = tail.at.is_none();
            at += digits;
            at += blanks(&text[at..]);
            tail.len = at + 1;
            if matches!(text.get(at), None | Some(b'\n')) { Ok(tail) } else { Err("expected the line's end after the timestamp") }
        }
    }
}

/// Reads a value and what follows it on its line, in OpenMetrics.
#[inline]
pub fn tail_of_openmetrics(text: &[u8]) -> Result<Tail, Expected> {
    if text.first() != Some(&b' ') {
        return Err("expected one blank and the value");
    }
    let (value, len) = number::take(&text[1..]).filter(|_| text.get(1) != Some(&b' ')).ok_or("expected a number as the value")?;
    let mut at = 1 + len;
    let mut tail = Tail { value, at: None, beyond: false, exemplar: None, len: at + 1 };
    if text.get(at) == Some(&b' ') && !text[at..].starts_with(b" # ") {
        let token = &text[at + 1..at + 1 + number::token_len(&text[at + 1..])];
        tail.at = number::parse_seconds(token);
        tail.beyond = tail.at.is_none();
        if tail.beyond && !number::parse(token).is_some_and(f64::is_finite) {
            return Err("expected a timestamp in seconds, one blank after the value");
        }
        at += 1 + token.len();
        tail.len = at + 1;
    }
    if text[at..].starts_with(b" # {") {
        (tail.exemplar, tail.len) = (Some(at), at);
        return Ok(tail);
    }
    match text.get(at) {
        Some(b'\n') => Ok(tail),
        None => Err(NO_EOF),
        Some(_) => Err("expected the line's end, a timestamp or an exemplar"),
    }
}

/// A value that was seen, who it came with, and when.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exemplar {
    pub labels: Vec<(String, String)>,
    pub value: f64,
    pub at: Option<UnixNanos>,
}

/// Reads the exemplar that ` # {` begins; returns it with the length of all, line's end included.
pub fn parse_exemplar(text: &[u8], parsed: &mut Parsed) -> Result<(Exemplar, usize), Expected> {
    parsed.labels.clear();
    let mut at = parse_labels(text, 4, Dialect::OpenMetrics, None, parsed)?;
    if text.get(at) != Some(&b' ') {
        return Err("expected a value after the exemplar's labels");
    }
    let (value, len) = number::take(&text[at + 1..]).ok_or("expected a number as the exemplar's value")?;
    at += 1 + len;
    let mut exemplar = Exemplar { value, ..Exemplar::default() };
    if text.get(at) == Some(&b' ') {
        let len = number::token_len(&text[at + 1..]);
        exemplar.at = number::parse_seconds(&text[at + 1..at + 1 + len]);
        if exemplar.at.is_none() {
            return Err("expected the exemplar's timestamp in seconds");
        }
        at += 1 + len;
    }
    match text.get(at) {
        Some(b'\n') => {}
        None => return Err(NO_EOF),
        _ => return Err("expected the line's end after the exemplar"),
    }
    for (name, value) in parsed.labels.drain(..) {
        let text = |bytes| String::from_utf8(bytes).map_err(|_| "an exemplar's labels are UTF-8");
        exemplar.labels.push((text(name)?, text(value)?));
    }
    exemplar.labels.sort_unstable();
    Ok((exemplar, at + 1))
}

/// A line that begins with `#`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comment<'a> {
    Help(&'a [u8], &'a [u8]),
    Type(&'a [u8], &'a [u8]),
    Unit(&'a [u8], &'a [u8]),
    Eof,
    /// Says nothing to a reader; only Prometheus' format has it.
    Other,
}

/// Reads a line that begins with `#`, without its end. Names are as they stand, without quotes.
pub fn parse_comment(line: &[u8], dialect: Dialect) -> Result<Comment<'_>, Expected> {
    match dialect {
        Dialect::Text => comment_of_text(line),
        Dialect::OpenMetrics => comment_of_openmetrics(line),
    }
}

fn comment_of_text(line: &[u8]) -> Result<Comment<'_>, Expected> {
    let word = &line[1 + blanks(&line[1..])..];
    let (is_type, rest) = match (word.strip_prefix(b"TYPE"), word.strip_prefix(b"HELP")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Ok(Comment::Other),
    };
    if word.len() == line.len() - 1 || !rest.first().is_some_and(|byte| is_blank(*byte)) {
        return Ok(Comment::Other);
    }
    let rest = &rest[blanks(rest)..];
    let (name, after) = family_name(rest).ok_or("expected a metric's name after HELP or TYPE")?;
    let text = match after.first() {
        None => after,
        Some(byte) if is_blank(*byte) => &after[1..],
        Some(_) => return Err("expected a blank after the metric's name"),
    };
    Ok(if is_type { Comment::Type(name, text) } else { Comment::Help(name, text) })
}

fn comment_of_openmetrics(line: &[u8]) -> Result<Comment<'_>, Expected> {
    if line == b"# EOF" {
        return Ok(Comment::Eof);
    }
    let word = line.get(2..7).filter(|_| line.starts_with(b"# ")).ok_or("expected # HELP, # TYPE, # UNIT or # EOF")?;
    let (name, after) = match word {
        b"HELP " | b"TYPE " | b"UNIT " => family_name(&line[7..]).ok_or("expected a metric's name after HELP, TYPE or UNIT")?,
        _ => return Err("expected # HELP, # TYPE, # UNIT or # EOF"),
    };
    let text = after.strip_prefix(b" ").ok_or("expected one blank and a text after the metric's name")?;
    Ok(match word {
        b"HELP " => Comment::Help(name, text),
        b"TYPE " => Comment::Type(name, text),
        _ => Comment::Unit(name, text),
    })
}

fn family_name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if let Some(len) = quoted_len(text, false) {
        return Some((&text[1..len - 1], &text[len..]));
    }
    let len = name_len(text, true);
    (len > 0).then(|| text.split_at(len))
}
