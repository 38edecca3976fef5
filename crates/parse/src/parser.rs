//! A parser: one definition, ready for lines.
//!
//! In: a line without its end, and when it came. Out: one JSON object behind what the caller's buffer holds, and the line's
//! time where it has one; or nothing. Never panics, and what it writes is bounded by the line (see `record`).

use crate::definition::{Definition, Format};
use crate::formats::{access, cri, csv, json, klog, logfmt, ltsv, syslog};
use crate::pattern::{Found, Pattern};
use crate::record::{Plan, Record};
use crate::time::TimeFormat;
use std::fmt;

pub use crate::record::Scratch;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A record was written. `time_ns`: since 1970, `None` where the line has no time or one that cannot be read.
    Parsed { time_ns: Option<i64> },
    /// The line is none of this format.
    NoMatch,
    /// The pattern needs more steps than it is given.
    Limit,
}

/// Why a definition is no parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The definition's name.
    pub name: String,
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "parser `{}`: {}", self.name, self.reason)
    }
}

impl std::error::Error for Refusal {}

pub struct Parser {
    name: String,
    reader: Reader,
    plan: Plan,
    skip_empty: bool,
}

enum Reader {
    Regex(Box<Pattern>),
    Json,
    Logfmt { bare_keys: bool },
    Ltsv,
    Csv { fields: usize, delimiter: u8 },
    Syslog(syslog::Version),
    Access(access::Server),
    Klog,
    Cri,
}

impl Parser {
    pub fn new(definition: &Definition) -> Result<Parser, Refusal> {
        let refuse = |reason| Refusal { name: definition.name.clone(), reason };
        let (reader, fields) = reader(&definition.format).map_err(refuse)?;
        let times = times(definition).map_err(refuse)?;
        let keep_failed = !matches!(reader, Reader::Regex(_));
        let plan = Plan::new(definition, &fields, times, keep_failed);
        Ok(Parser { name: definition.name.clone(), reader, plan, skip_empty: definition.skip_empty })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a line. `out` is longer by the record only where the line was parsed.
    pub fn parse(&self, line: &[u8], arrival_ns: i64, scratch: &mut Scratch, out: &mut Vec<u8>) -> Outcome {
        let begin = out.len();
        out.push(b'{');
        let mut record = Record::new(&self.plan, line, arrival_ns, scratch, out);
        let found = self.read(line, &mut record);
        let time_ns = record.time_ns;
        match found {
            Found::Yes => close(out),
            Found::No | Found::Limit => out.truncate(begin),
        }
        match found {
            Found::Yes => Outcome::Parsed { time_ns },
            Found::No => Outcome::NoMatch,
            Found::Limit => Outcome::Limit,
        }
    }

    fn read(&self, line: &[u8], record: &mut Record) -> Found {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let found = match &self.reader {
            Reader::Regex(pattern) => return self.search(pattern, line, record),
            Reader::Json => json::read(text, &self.plan, record),
            Reader::Logfmt { bare_keys } => logfmt::read(text, *bare_keys, record),
            Reader::Ltsv => ltsv::read(text, self.skip_empty, record),
            Reader::Csv { fields, delimiter } => csv::read(text, *fields, *delimiter, self.skip_empty, record),
            Reader::Syslog(version) => syslog::read(text, *version, record),
            Reader::Access(server) => access::read(text, *server, record),
            Reader::Klog => klog::read(text, record),
            Reader::Cri => cri::read(text, record),
        };
        if found { Found::Yes } else { Found::No }
    }

    fn search(&self, pattern: &Pattern, line: &[u8], record: &mut Record) -> Found {
        if pattern.names().is_empty() {
            return Found::No;
        }
        let mut slots = std::mem::take(&mut record.scratch.slots);
        let found = pattern.find(line, &mut slots);
        if found == Found::Yes {
            for (n, slot) in slots.iter().enumerate() {
                let value = slot.map_or(&[][..], |(begin, end)| &line[begin as usize..end as usize]);
                if !value.is_empty() || !self.skip_empty {
                    record.text(n, value);
                }
            }
        }
        record.scratch.slots = slots;
        found
    }

    /// The pattern, where it is one that can be told to be one of many.
    pub(crate) fn sievable(&self) -> Option<&Pattern> {
        match &self.reader {
            Reader::Regex(pattern) if pattern.outline().is_some() && !pattern.names().is_empty() => Some(pattern),
            _ => None,
        }
    }

    /// False: the line is none of this format, which is seen without reading it.
    pub(crate) fn may_match(&self, line: &[u8]) -> bool {
        match &self.reader {
            Reader::Regex(pattern) => pattern.may_match(line),
            Reader::Json => line.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{'),
            _ => true,
        }
    }

    /// Whether a line that begins with this byte (`None`: an empty one) and holds no newline can be one of the format.
    pub(crate) fn may_begin_with(&self, byte: Option<u8>) -> bool {
        let Some(first) = byte else { return matches!(self.reader, Reader::Regex(_)) };
        match &self.reader {
            Reader::Regex(pattern) => !pattern.names().is_empty() && pattern.may_begin_with(byte),
            Reader::Json => matches!(first, b'{' | b' ' | b'\t' | b'\r'),
            Reader::Syslog(syslog::Version::Rfc5424) => first == b'<',
            Reader::Syslog(_) => first == b'<' || first.is_ascii_alphanumeric(),
            Reader::Klog => matches!(first, b'I' | b'W' | b'E' | b'F'),
            Reader::Cri => first.is_ascii_digit(),
            Reader::Logfmt { .. } => first != b'=' && first != b'"',
            Reader::Ltsv | Reader::Csv { .. } | Reader::Access(_) => true,
        }
    }
}

/// Turns the last comma into the closing brace.
fn close(out: &mut Vec<u8>) {
    match out.last_mut() {
        Some(last @ b',') => *last = b'}',
        _ => out.push(b'}'),
    }
}

/// What reads a format, and the fields that it has.
fn reader(format: &Format) -> Result<(Reader, Vec<String>), String> {
    let names = |fields: &[&str]| fields.iter().map(ToString::to_string).collect();
    Ok(match format {
        Format::Regex(text) => {
            let pattern = Pattern::new(text).map_err(|refusal| refusal.to_string())?;
            let fields = pattern.names().to_vec();
            (Reader::Regex(Box::new(pattern)), fields)
        }
        Format::Json | Format::Docker => (Reader::Json, Vec::new()),
        Format::Logfmt { bare_keys } => (Reader::Logfmt { bare_keys: *bare_keys }, Vec::new()),
        Format::Ltsv => (Reader::Ltsv, Vec::new()),
        Format::Csv { delimiter: b'"' | b'\r' | b'\n', .. } => return Err("a delimiter is no quote and no end of line".to_string()),
        Format::Csv { columns, delimiter } => {
            let fields = csv::fields(columns);
            (Reader::Csv { fields: fields.len(), delimiter: *delimiter }, fields)
        }
        Format::Syslog => (Reader::Syslog(syslog::Version::Either), names(&syslog::FIELDS)),
        Format::Syslog5424 => (Reader::Syslog(syslog::Version::Rfc5424), names(&syslog::FIELDS)),
        Format::Syslog3164 => (Reader::Syslog(syslog::Version::Rfc3164), names(&syslog::FIELDS)),
        Format::Nginx => (Reader::Access(access::Server::Nginx), names(&access::FIELDS)),
        Format::Apache => (Reader::Access(access::Server::Apache), names(&access::FIELDS)),
        Format::Klog => (Reader::Klog, names(&klog::FIELDS)),
        Format::Cri => (Reader::Cri, names(&cri::FIELDS)),
    })
}

/// How the lines' times are written: as the definition says, else as the format has it.
fn times(definition: &Definition) -> Result<Vec<TimeFormat>, String> {
    let is_syslog = matches!(definition.format, Format::Syslog | Format::Syslog5424 | Format::Syslog3164);
    let formats: Vec<&str> = match (&definition.time.format, &definition.format) {
        (Some(format), _) if is_syslog => vec![format; 2],
        (Some(format), _) => vec![format],
        (None, _) if is_syslog => syslog::TIMES.to_vec(),
        (None, Format::Nginx | Format::Apache) => vec![access::TIME],
        (None, Format::Klog) => vec![klog::TIME],
        (None, Format::Cri | Format::Docker) => vec![cri::TIME],
        (None, _) => Vec::new(),
    };
    formats.into_iter().map(|format| TimeFormat::new(format, &definition.time)).collect()
}

#[cfg(test)]
mod tests;
