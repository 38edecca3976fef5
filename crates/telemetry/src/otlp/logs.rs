//! A log record's line.
//!
//! Without `time_unix_nano` the observed time is the record's, and `time_source` says so. An all-zero id is none; one of a wrong
//! length refuses the record. Where configured, a record with neither id takes both, and the flags, from an attribute with a
//! `traceparent` (EB 4.6).

use super::Reason;
use super::lines::{Fault, Lines, optional_id, time};
use super::text::put_signed;
use crate::trace_context::{self, Context};
use crate::wire::Message;

#[derive(Default)]
struct Record<'a> {
    time: u64,
    observed: u64,
    severity: i32,
    severity_text: &'a [u8],
    body: Option<&'a [u8]>,
    dropped: u32,
    flags: u32,
    trace_id: &'a [u8],
    span_id: &'a [u8],
    event_name: &'a [u8],
}

pub fn put<'a>(lines: &mut Lines<'a, '_>, message: &'a [u8]) -> Result<(), Fault> {
    let record = parse(lines, message)?;
    let start = lines.out.len();
    let (at, observed) = (time(record.time)?, time(record.observed)?);
    if at.is_some() {
        lines.put_time(b",\"timestamp\":", at);
        lines.put_time(b",\"observed\":", observed);
    } else if observed.is_some() {
        lines.put_time(b",\"timestamp\":", observed);
        lines.out.extend_from_slice(b",\"time_source\":\"observed\"");
    }
    lines.put_text(b",\"severity\":", record.severity_text)?;
    if record.severity != 0 {
        lines.out.extend_from_slice(b",\"severityNumber\":");
        put_signed(lines.out, i64::from(record.severity));
    }
    if record.body.is_some() {
        lines.out.extend_from_slice(b",\"body\":");
        lines.put_any(record.body, 0)?;
    }
    put_ids(lines, &record)?;
    lines.put_text(b",\"event_name\":", record.event_name)?;
    lines.put_attributes(b",\"attributes\":", 0)?;
    lines.put_count(b",\"dropped_attributes_count\":", u64::from(record.dropped));
    lines.put_shared();
    lines.end_line(start);
    Ok(())
}

fn parse<'a>(lines: &mut Lines<'a, '_>, message: &'a [u8]) -> Result<Record<'a>, Fault> {
    let mut record = Record::default();
    for field in Message::new(message) {
        match field? {
            (1, field) => record.time = field.fixed64()?,
            (2, field) => record.severity = field.varint()? as i32,
            (3, field) => record.severity_text = field.bytes()?,
            (5, field) => record.body = Some(field.bytes()?),
            (6, field) => lines.add_pair(field)?,
            (7, field) => record.dropped = field.varint()? as u32,
            (8, field) => record.flags = field.fixed32()?,
            (9, field) => record.trace_id = field.bytes()?,
            (10, field) => record.span_id = field.bytes()?,
            (11, field) => record.observed = field.fixed64()?,
            (12, field) => record.event_name = field.bytes()?,
            (number, field) => lines.other(number, field)?,
        }
    }
    Ok(record)
}

fn put_ids(lines: &mut Lines<'_, '_>, record: &Record<'_>) -> Result<(), Fault> {
    let trace_id = optional_id::<16>(record.trace_id, Reason::TraceId)?;
    let span_id = optional_id::<8>(record.span_id, Reason::SpanId)?;
    if trace_id.is_none()
        && span_id.is_none()
        && let Some(context) = inherited(lines)
    {
        lines.put_id(b",\"trace_id\":", Some(&context.trace_id));
        lines.put_id(b",\"span_id\":", Some(&context.parent_id));
        let flags = if record.flags == 0 { u32::from(context.flags) } else { record.flags };
        lines.put_count(b",\"flags\":", u64::from(flags));
        return Ok(());
    }
    lines.put_id(b",\"trace_id\":", trace_id);
    lines.put_id(b",\"span_id\":", span_id);
    lines.put_count(b",\"flags\":", u64::from(record.flags));
    Ok(())
}

/// The context in the configured attribute; of several with its name the last counts.
fn inherited(lines: &Lines<'_, '_>) -> Option<Context> {
    let name = lines.options.inherit.as_deref()?;
    let (_, value) = lines.pairs.iter().rev().find(|(key, _)| *key == name.as_bytes())?;
    let text = Message::new((*value)?).find_map(|field| match field {
        Ok((1, field)) => field.bytes().ok(),
        _ => None,
    })?;
    trace_context::extract(&[text], &[])
}
