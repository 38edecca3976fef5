//! Syslog, RFC 5424 and RFC 3164.
//!
//! `pri` is a number; `facility` and `severity` are its names (`auth`, `crit`); `pid` is text, which RFC 5424 lets it be. What is `-`
//! in RFC 5424 is left out, and so is a byte order mark. `structured_data` is an object: `[a@1 b="c"][d]` is
//! `{"a@1.b":"c","d":true}`. In RFC 3164 the priority and the host may be missing, the time may be that of RFC 5424, and a line with a
//! priority but no time is all message. A tag ends in a colon or has a pid; else the text is all message.

use super::logfmt::closing_quote;
use super::split;
use crate::emit::{write_key, write_string, write_unsigned};
use crate::record::Record;

pub const FIELDS: [&str; 10] = ["pri", "facility", "severity", "time", "host", "ident", "pid", "msgid", "structured_data", "message"];

/// How RFC 5424 and RFC 3164 write times.
pub const TIMES: [&str; 2] = ["%Y-%m-%dT%H:%M:%S.%L%z", "%b %d %H:%M:%S.%L"];

const PRI: usize = 0;
const FACILITY: usize = 1;
const SEVERITY: usize = 2;
const STAMP: usize = 3;
const HOST: usize = 4;
const IDENT: usize = 5;
const PID: usize = 6;
const MSGID: usize = 7;
const DATA: usize = 8;
const MESSAGE: usize = 9;

const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Bytes of `Oct 11 22:14:15`.
const STAMP_BYTES: usize = 15;

/// Which of the two a line may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Either,
    Rfc5424,
    Rfc3164,
}

pub fn read(line: &[u8], version: Version, record: &mut Record) -> bool {
    let (pri, rest) = match priority(line) {
        Some((pri, rest)) => (Some(pri), rest),
        None => (None, line),
    };
    let is_5424 = pri.is_some() && rest.starts_with(b"1 ");
    if let Some(pri) = pri {
        write_priority(pri, record);
    }
    match version {
        Version::Rfc5424 if !is_5424 => false,
        Version::Rfc5424 => read_5424(&rest[2..], record).is_some(),
        Version::Either if is_5424 => read_5424(&rest[2..], record).is_some(),
        Version::Either | Version::Rfc3164 => read_3164(rest, pri.is_some(), record),
    }
}

/// `<13>`: 0 to 191.
fn priority(line: &[u8]) -> Option<(u8, &[u8])> {
    let rest = line.strip_prefix(b"<")?;
    let digits = rest.iter().take(4).position(|b| *b == b'>')?;
    let mut pri = 0u8;
    for byte in &rest[..digits] {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        pri = pri.checked_mul(10)?.checked_add(digit)?;
    }
    (digits > 0 && pri <= 191).then_some((pri, &rest[digits + 1..]))
}

fn write_priority(pri: u8, record: &mut Record) {
    record.begin(PRI);
    write_unsigned(record.out, u64::from(pri));
    record.out.push(b',');
    record.text(FACILITY, FACILITIES[usize::from(pri / 8)].as_bytes());
    record.text(SEVERITY, SEVERITIES[usize::from(pri % 8)].as_bytes());
}

/// Everything behind the version.
fn read_5424(text: &[u8], record: &mut Record) -> Option<()> {
    let mut rest = text;
    for slot in [STAMP, HOST, IDENT, PID, MSGID] {
        let (value, next) = split(rest, b' ')?;
        if value != b"-" {
            (!value.is_empty()).then_some(())?;
            record.text(slot, value);
        }
        rest = next;
    }
    match read_data(rest, record)? {
        [] => Some(()),
        [b' ', message @ ..] => {
            record.text(MESSAGE, message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message));
            Some(())
        }
        _ => None,
    }
}

/// Structured data, or `-`; returns what follows.
fn read_data<'l>(text: &'l [u8], record: &mut Record) -> Option<&'l [u8]> {
    if let Some(rest) = text.strip_prefix(b"-") {
        return Some(rest);
    }
    record.begin(DATA);
    record.out.push(b'{');
    let mut rest = read_element(text.strip_prefix(b"[")?, record)?;
    while let Some(next) = rest.strip_prefix(b"[") {
        rest = read_element(next, record)?;
    }
    record.out.pop(); // each element wrote a comma
    record.out.extend_from_slice(b"},");
    Some(rest)
}

/// `ID NAME="VALUE" ...]`.
fn read_element<'l>(text: &'l [u8], record: &mut Record) -> Option<&'l [u8]> {
    let (id, mut rest) = text.split_at(text.iter().position(|b| matches!(b, b' ' | b']'))?);
    if id.is_empty() {
        return None;
    }
    if rest.first() == Some(&b']') {
        write_key(record.out, id);
        record.out.extend_from_slice(b"true,");
    }
    while let Some(parameter) = rest.strip_prefix(b" ") {
        let (name, value) = split(parameter, b'=')?;
        let value = value.strip_prefix(b"\"")?;
        let end = closing_quote(value)?;
        write_parameter(id, name, &value[..end], record);
        rest = &value[end + 1..];
    }
    rest.strip_prefix(b"]")
}

fn write_parameter(id: &[u8], name: &[u8], value: &[u8], record: &mut Record) {
    let text = &mut record.scratch.text;
    text.clear();
    text.extend_from_slice(id);
    text.push(b'.');
    text.extend_from_slice(name);
    write_key(record.out, text);
    if memchr::memchr(b'\\', value).is_some() {
        text.clear();
        unescape(value, text);
        write_string(record.out, text);
    } else {
        write_string(record.out, value);
    }
    record.out.push(b',');
}

/// A backslash escapes a quote, a bracket and itself, and nothing else.
fn unescape(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        if !matches!(rest.first(), Some(b'"' | b'\\' | b']')) {
            out.push(b'\\');
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out.extend_from_slice(rest);
}

/// Everything behind the priority.
fn read_3164(text: &[u8], has_priority: bool, record: &mut Record) -> bool {
    let Some((time, format)) = stamp(text) else {
        record.text(MESSAGE, text);
        return has_priority;
    };
    record.time_format = format;
    record.text(STAMP, time);
    let mut rest = text[time.len()..].trim_ascii_start();
    if !begins_with_tag(rest) {
        let (host, next) = rest.split_at(rest.iter().position(|b| *b == b' ').unwrap_or(rest.len()));
        if !host.is_empty() {
            record.text(HOST, host);
        }
        rest = next.strip_prefix(b" ").unwrap_or(next);
    }
    let rest = read_tag(rest, record);
    record.text(MESSAGE, rest);
    true
}

/// `Oct 11 22:14:15` with or without a fraction, or a time as RFC 5424 has it; and which of `TIMES` it is.
fn stamp(text: &[u8]) -> Option<(&[u8], usize)> {
    let until_blank = |begin: usize| text[begin..].iter().position(|b| *b == b' ').map_or(text.len(), |at| begin + at);
    let head = text.get(..STAMP_BYTES)?;
    if head[3] == b' ' && head[6] == b' ' && head[9] == b':' && head[12] == b':' && head[0].is_ascii_alphabetic() {
        // Some systems put a colon behind the time.
        let end = until_blank(STAMP_BYTES);
        return Some((text[..end].strip_suffix(b":").unwrap_or(&text[..end]), 1));
    }
    let is_iso = head[4] == b'-' && head[10] == b'T' && head[0].is_ascii_digit();
    is_iso.then(|| (&text[..until_blank(STAMP_BYTES)], 0))
}

/// Whether the first word is `ident:`, `ident[pid]:` or `ident[pid]`, so that there is no host.
fn begins_with_tag(text: &[u8]) -> bool {
    let word = &text[..text.iter().position(|b| *b == b' ').unwrap_or(text.len())];
    tag(word).is_some_and(|tag| tag.length == word.len())
}

struct Tag<'l> {
    ident: &'l [u8],
    pid: Option<&'l [u8]>,
    length: usize,
}

fn tag(text: &[u8]) -> Option<Tag<'_>> {
    let length = text.iter().position(|b| matches!(b, b' ' | b':' | b'[')).filter(|length| *length > 0)?;
    let (ident, rest) = text.split_at(length);
    if rest[0] != b'[' {
        return (rest[0] == b':').then_some(Tag { ident, pid: None, length: length + 1 });
    }
    let (pid, rest) = split(&rest[1..], b']')?;
    let colon = usize::from(rest.first() == Some(&b':'));
    (!pid.contains(&b' ')).then_some(Tag { ident, pid: Some(pid), length: length + pid.len() + 2 + colon })
}

/// Reads `ident[pid]: ` where it stands; returns the rest.
fn read_tag<'l>(text: &'l [u8], record: &mut Record) -> &'l [u8] {
    let Some(tag) = tag(text) else { return text };
    record.text(IDENT, tag.ident);
    if let Some(pid) = tag.pid.filter(|pid| !pid.is_empty()) {
        record.text(PID, pid);
    }
    let rest = &text[tag.length..];
    rest.strip_prefix(b" ").unwrap_or(rest)
}
