//! A span's line.
//!
//! A span has a trace id, an id and a start; its end may be missing, and may lie before its start (clocks are set back): then
//! `duration_ns` is negative. Events and links with times or ids that are none refuse the span.

use super::Reason;
use super::lines::{Fault, Lines, optional_id, required_id, time};
use super::text::put_signed;
use crate::wire::Message;

pub const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
pub const CODES: [&str; 3] = ["unset", "ok", "error"];

#[derive(Default)]
struct Span<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent_span_id: &'a [u8],
    trace_state: &'a [u8],
    name: &'a [u8],
    kind: u64,
    start: u64,
    end: u64,
    flags: u32,
    dropped_attributes: u32,
    dropped_events: u32,
    dropped_links: u32,
    status: Option<&'a [u8]>,
    has_events: bool,
    has_links: bool,
}

pub fn put<'a>(lines: &mut Lines<'a, '_>, message: &'a [u8]) -> Result<(), Fault> {
    let span = parse(lines, message)?;
    let line = lines.out.len();
    let (start, end) = (time(span.start)?.ok_or(Reason::Time)?, time(span.end)?);
    lines.put_time(b",\"timestamp\":", Some(start));
    lines.put_time(b",\"end\":", end);
    if let Some(end) = end {
        lines.out.extend_from_slice(b",\"duration_ns\":");
        put_signed(lines.out, end.0 - start.0); // both within a century: no overflow
    }
    lines.put_id(b",\"trace_id\":", Some(required_id::<16>(span.trace_id, Reason::TraceId)?));
    lines.put_id(b",\"span_id\":", Some(required_id::<8>(span.span_id, Reason::SpanId)?));
    lines.put_id(b",\"parent_span_id\":", optional_id::<8>(span.parent_span_id, Reason::SpanId)?);
    lines.put_text(b",\"name\":", span.name)?;
    let kind = KINDS.get(span.kind as usize).ok_or(Reason::Enum)?;
    lines.put_text(b",\"kind\":", kind.as_bytes())?;
    put_status(lines, span.status)?;
    lines.put_text(b",\"trace_state\":", span.trace_state)?;
    lines.put_count(b",\"flags\":", u64::from(span.flags));
    lines.put_attributes(b",\"attributes\":", 0)?;
    lines.put_count(b",\"dropped_attributes_count\":", u64::from(span.dropped_attributes));
    if span.has_events {
        put_list(lines, message, 11, b",\"events\":[", put_event)?;
    }
    lines.put_count(b",\"dropped_events_count\":", u64::from(span.dropped_events));
    if span.has_links {
        put_list(lines, message, 13, b",\"links\":[", put_link)?;
    }
    lines.put_count(b",\"dropped_links_count\":", u64::from(span.dropped_links));
    lines.put_shared();
    lines.end_line(line);
    Ok(())
}

fn parse<'a>(lines: &mut Lines<'a, '_>, message: &'a [u8]) -> Result<Span<'a>, Fault> {
    let mut span = Span::default();
    for field in Message::new(message) {
        match field? {
            (1, field) => span.trace_id = field.bytes()?,
            (2, field) => span.span_id = field.bytes()?,
            (3, field) => span.trace_state = field.bytes()?,
            (4, field) => span.parent_span_id = field.bytes()?,
            (5, field) => span.name = field.bytes()?,
            (6, field) => span.kind = field.varint()?,
            (7, field) => span.start = field.fixed64()?,
            (8, field) => span.end = field.fixed64()?,
            (9, field) => lines.add_pair(field)?,
            (10, field) => span.dropped_attributes = field.varint()? as u32,
            (11, _) => span.has_events = true,
            (12, field) => span.dropped_events = field.varint()? as u32,
            (13, _) => span.has_links = true,
            (14, field) => span.dropped_links = field.varint()? as u32,
            (15, field) => span.status = Some(field.bytes()?),
            (16, field) => span.flags = field.fixed32()?,
            (number, field) => lines.other(number, field)?,
        }
    }
    Ok(span)
}

fn put_status<'a>(lines: &mut Lines<'a, '_>, status: Option<&'a [u8]>) -> Result<(), Fault> {
    let (mut message, mut code) = (&b""[..], 0);
    for field in Message::new(status.unwrap_or_default()) {
        match field? {
            (2, field) => message = field.bytes()?,
            (3, field) => code = field.varint()?,
            _ => {}
        }
    }
    if code == 0 && message.is_empty() {
        return Ok(());
    }
    let code = CODES.get(code as usize).ok_or(Reason::Enum)?;
    lines.put_text(b",\"status\":{\"code\":", code.as_bytes())?;
    lines.put_text(b",\"message\":", message)?;
    lines.out.push(b'}');
    Ok(())
}

type Put<'a> = fn(&mut Lines<'a, '_>, &'a [u8]) -> Result<(), Fault>;

/// The fields of this number, each an object; `put` writes its members, each with a comma in front.
pub fn put_list<'a>(lines: &mut Lines<'a, '_>, message: &'a [u8], number: u32, before: &[u8], put: Put<'a>) -> Result<(), Fault> {
    lines.out.extend_from_slice(before);
    let mut is_first = true;
    for field in Message::new(message) {
        let (found, field) = field?;
        if found != number {
            continue;
        }
        if !std::mem::replace(&mut is_first, false) {
            lines.out.push(b',');
        }
        let start = lines.out.len();
        put(lines, field.bytes()?)?;
        match lines.out.get_mut(start) {
            Some(comma) => *comma = b'{',
            None => lines.out.push(b'{'),
        }
        lines.out.push(b'}');
    }
    lines.out.push(b']');
    Ok(())
}

fn put_event<'a>(lines: &mut Lines<'a, '_>, message: &'a [u8]) -> Result<(), Fault> {
    let (mut at, mut name, mut dropped, base) = (0, &b""[..], 0, lines.pairs.len());
    for field in Message::new(message) {
        match field? {
            (1, field) => at = field.fixed64()?,
            (2, field) => name = field.bytes()?,
            (3, field) => lines.add_pair(field)?,
            (4, field) => dropped = field.varint()? as u32,
            _ => {}
        }
    }
    lines.put_time(b",\"timestamp\":", time(at)?);
    lines.put_text(b",\"name\":", name)?;
    lines.put_attributes(b",\"attributes\":", base)?;
    lines.put_count(b",\"dropped_attributes_count\":", u64::from(dropped));
    Ok(())
}

fn put_link<'a>(lines: &mut Lines<'a, '_>, message: &'a [u8]) -> Result<(), Fault> {
    let (mut trace_id, mut span_id, mut state) = (&b""[..], &b""[..], &b""[..]);
    let (mut dropped, mut flags, base) = (0, 0, lines.pairs.len());
    for field in Message::new(message) {
        match field? {
            (1, field) => trace_id = field.bytes()?,
            (2, field) => span_id = field.bytes()?,
            (3, field) => state = field.bytes()?,
            (4, field) => lines.add_pair(field)?,
            (5, field) => dropped = field.varint()? as u32,
            (6, field) => flags = field.fixed32()?,
            _ => {}
        }
    }
    lines.put_id(b",\"trace_id\":", Some(required_id::<16>(trace_id, Reason::TraceId)?));
    lines.put_id(b",\"span_id\":", Some(required_id::<8>(span_id, Reason::SpanId)?));
    lines.put_text(b",\"trace_state\":", state)?;
    lines.put_count(b",\"flags\":", u64::from(flags));
    lines.put_attributes(b",\"attributes\":", base)?;
    lines.put_count(b",\"dropped_attributes_count\":", u64::from(dropped));
    Ok(())
}
