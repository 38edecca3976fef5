//! OTLP in JSON to protobuf and back, by the tables of [`schema`](super::schema).
//!
//! The rules of the specification: ids are hex in any case, other bytes base64; enums are numbers; names are lowerCamelCase and
//! unknown ones are passed over; 64-bit integers are strings or numbers and are written as strings; `null` is absent. What a number
//! cannot be is text: `"NaN"`, `"Infinity"`, `"-Infinity"`. Text that is no JSON is [`Malformed`]; a value of a wrong type within an
//! item marks the item ([`MARK`]) for the reader to refuse, elsewhere it is malformed too.
//! Source: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>. Recursion: as deep as values may nest.

use super::json::Cursor;
use super::schema::{Kind, Member, Schema};
use super::{Malformed, Reason, text};
use crate::wire::{self, Field, Message};

/// A field no message has: in place of an item's fields, the index of the [`Reason`] to refuse it.
pub const MARK: u32 = (1 << 29) - 1;

/// An enum's number that stands for a value that is none; no enum has it.
const NO_ENUM: u64 = 0x7fff_ffff;

/// Messages from the request to the first value of an attribute.
const OUTER_DEPTH: usize = 12;
/// Messages from a value to a value within it.
const VALUE_DEPTH: usize = 3;
/// Values within each other whose messages get lengths of the usual width, put in front afterwards. Moving what is deeper once for
/// each level around it would cost a hostile body's depth times its size.
const NARROW_VALUES: usize = 4;

/// How much deeper messages may nest.
#[derive(Clone, Copy)]
struct Room {
    left: usize,
    narrow: usize,
}

impl Room {
    fn inner(self) -> Room {
        Room { left: self.left - 1, narrow: self.narrow.saturating_sub(1) }
    }
}

enum Fault {
    Malformed(Malformed),
    /// The value cannot be what its name says.
    Value(Reason),
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Fault {
        Fault::Malformed(malformed)
    }
}

/// Transcodes a request. Values deeper than `depth_max` mark their item.
pub fn from_json(schema: &Schema, body: &[u8], depth_max: usize) -> Result<Vec<u8>, Malformed> {
    if let Err(error) = std::str::from_utf8(body) {
        return Err(Malformed { at: Some(error.valid_up_to()), rule: Reason::Utf8.rule() });
    }
    let mut cursor = Cursor::new(body);
    let mut out = Vec::with_capacity(body.len() / 2);
    let room = |values: usize| OUTER_DEPTH + VALUE_DEPTH * values + VALUE_DEPTH;
    let room = Room { left: room(depth_max.min(super::lines::DEPTH_MAX)), narrow: room(NARROW_VALUES) };
    match object(&mut cursor, schema, room, &mut out) {
        Ok(()) => {}
        Err(Fault::Malformed(malformed)) => return Err(malformed),
        Err(Fault::Value(reason)) => return Err(cursor.error(reason.rule())),
    }
    cursor.end()?;
    Ok(out)
}

fn object(cursor: &mut Cursor<'_>, schema: &Schema, room: Room, out: &mut Vec<u8>) -> Result<(), Fault> {
    if room.left == 0 {
        return Err(Fault::Value(Reason::Depth));
    }
    if !cursor.open(b'{') {
        return Err(wrong(cursor));
    }
    let mut is_first = true;
    while let Some(name) = cursor.member(&mut is_first)? {
        let name = name.decode();
        match schema.members.iter().find(|member| member.name.as_bytes() == name.as_ref()) {
            Some(_) if cursor.word("null") => {}
            Some(member) if member.is_repeated => array(cursor, member, room, out)?,
            Some(member) => field(cursor, member, room, out)?,
            None => {
                cursor.skip()?;
            }
        }
    }
    Ok(())
}

/// A value of a wrong type stands here; or no value at all.
fn wrong(cursor: &mut Cursor<'_>) -> Fault {
    let mut probe = cursor.clone();
    match probe.skip() {
        Ok(_) => Fault::Value(Reason::Value),
        Err(malformed) => Fault::Malformed(malformed),
    }
}

fn array(cursor: &mut Cursor<'_>, member: &Member, room: Room, out: &mut Vec<u8>) -> Result<(), Fault> {
    if !cursor.open(b'[') {
        return Err(wrong(cursor));
    }
    let mut is_first = true;
    if let Kind::Message(schema) = member.kind {
        while cursor.element(&mut is_first)? {
            if schema.is_item { item(cursor, member, room, out)? } else { field(cursor, member, room, out)? }
        }
        return Ok(());
    }
    let at = open(out, member.number);
    while cursor.element(&mut is_first)? {
        let bits = scalar(cursor, &member.kind)?;
        match member.kind {
            Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => out.extend_from_slice(&bits.to_le_bytes()),
            _ => wire::put_raw_varint(out, bits),
        }
    }
    close(out, at);
    Ok(())
}

/// An item: what is wrong within it is not wrong with its neighbours.
fn item(cursor: &mut Cursor<'_>, member: &Member, room: Room, out: &mut Vec<u8>) -> Result<(), Fault> {
    cursor.peek();
    let (from, start) = (cursor.at, out.len());
    match field(cursor, member, room, out) {
        Err(Fault::Value(reason)) => {
            cursor.at = from;
            cursor.skip()?;
            out.truncate(start);
            wire::put_message(out, member.number, |out| wire::put_varint(out, MARK, reason as u64));
            Ok(())
        }
        other => other,
    }
}

fn field(cursor: &mut Cursor<'_>, member: &Member, room: Room, out: &mut Vec<u8>) -> Result<(), Fault> {
    match &member.kind {
        Kind::Message(schema) => {
            let at = open(out, member.number);
            if room.narrow > 0 {
                object(cursor, schema, room.inner(), out)?;
                close(out, at);
            } else {
                out.extend_from_slice(&[0; WIDE - 1]);
                object(cursor, schema, room.inner(), out)?;
                close_wide(out, at);
            }
        }
        Kind::Text => wire::put_bytes(out, member.number, &string(cursor)?),
        Kind::Bytes | Kind::Id => {
            let text = string(cursor)?;
            let mut bytes = Vec::with_capacity(text.len());
            let is_read = match member.kind {
                Kind::Id => text::hex_into(&text, &mut bytes),
                _ => text::base64_into(&text, &mut bytes),
            };
            if !is_read {
                return Err(Fault::Value(match member.name {
                    "traceId" => Reason::TraceId,
                    "spanId" | "parentSpanId" => Reason::SpanId,
                    _ => Reason::Value,
                }));
            }
            wire::put_bytes(out, member.number, &bytes);
        }
        Kind::Fixed32 => wire::put_fixed32(out, member.number, scalar(cursor, &member.kind)? as u32),
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => {
            let bits = scalar(cursor, &member.kind)?;
            wire::put_fixed64(out, member.number, bits);
        }
        Kind::Enum if member.name == "aggregationTemporality" => {
            // It is of a metric, whose points the reader refuses one by one.
            let number = match cursor.peek() {
                Some(b'"') => {
                    cursor.string()?;
                    NO_ENUM
                }
                _ => scalar(cursor, &member.kind)?,
            };
            wire::put_varint(out, member.number, number);
        }
        kind => {
            let bits = scalar(cursor, kind)?;
            wire::put_varint(out, member.number, bits);
        }
    }
    Ok(())
}

fn string<'a>(cursor: &mut Cursor<'a>) -> Result<std::borrow::Cow<'a, [u8]>, Fault> {
    match cursor.peek() {
        Some(b'"') => Ok(cursor.string()?.decode()),
        _ => Err(wrong(cursor)),
    }
}

/// A number or boolean as the bits that stand on the wire.
fn scalar(cursor: &mut Cursor<'_>, kind: &Kind) -> Result<u64, Fault> {
    if let Kind::Bool = kind {
        return match cursor.peek() {
            Some(b't') if cursor.word("true") => Ok(1),
            Some(b'f') if cursor.word("false") => Ok(0),
            _ => Err(wrong(cursor)),
        };
    }
    let token = match cursor.peek() {
        Some(b'"') if matches!(kind, Kind::Enum) => return Err(Fault::Value(Reason::Enum)),
        Some(b'"') => cursor.string()?.decode(),
        Some(b'-' | b'0'..=b'9') => cursor.number()?.as_bytes().into(),
        _ => return Err(wrong(cursor)),
    };
    let token = std::str::from_utf8(&token).map_err(|_| Fault::Value(Reason::Value))?;
    bits(token, kind).ok_or(Fault::Value(Reason::Value))
}

fn bits(token: &str, kind: &Kind) -> Option<u64> {
    if let Kind::Double = kind {
        return double(token).map(f64::to_bits);
    }
    let number = integer(token)?;
    match kind {
        Kind::Enum => i32::try_from(number).ok().map(|number| i64::from(number) as u64),
        Kind::Uint32 | Kind::Fixed32 => u32::try_from(number).ok().map(u64::from),
        Kind::Uint64 | Kind::Fixed64 => u64::try_from(number).ok(),
        Kind::Sint32 => i32::try_from(number).ok().map(|number| wire::zigzag(i64::from(number))),
        _ => i64::try_from(number).ok().map(|number| number as u64),
    }
}

fn double(token: &str) -> Option<f64> {
    match token {
        "NaN" => Some(f64::from_bits(crate::sample::NORMAL_NAN)),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ if is_number(token) => token.parse().ok().filter(|value: &f64| value.is_finite()),
        _ => None,
    }
}

fn is_number(token: &str) -> bool {
    let mut cursor = Cursor::new(token.as_bytes());
    cursor.number().is_ok_and(|number| number.len() == token.len())
}

/// A whole number of at most 20 digits, also with a fraction of zeros or an exponent (`1.5e3`), never by way of a float.
pub fn integer(token: &str) -> Option<i128> {
    if !is_number(token) {
        return None;
    }
    let (sign, token) = match token.strip_prefix('-') {
        Some(token) => (-1, token),
        None => (1, token),
    };
    if token.len() <= 20 && token.bytes().all(|byte| byte.is_ascii_digit()) {
        return token.parse::<i128>().ok().map(|number| sign * number);
    }
    let (mantissa, exponent) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let zeros = exponent.parse::<i64>().ok()?.checked_sub(fraction.len() as i64)?;
    let kept = match usize::try_from(zeros) {
        Ok(_) => digits,
        Err(_) => {
            let cut = usize::try_from(-zeros).ok()?;
            let (kept, rest) = digits.split_at_checked(digits.len().checked_sub(cut)?)?;
            (rest.bytes().all(|digit| digit == b'0') && !kept.is_empty()).then_some(kept)?
        }
    };
    let zeros = usize::try_from(zeros.max(0)).ok()?;
    if kept.len().checked_add(zeros)? > 20 {
        return None;
    }
    let number: i128 = kept.parse().ok()?;
    Some(sign * number * 10i128.pow(zeros as u32))
}

/// Begins an embedded message of unknown length.
pub fn open(out: &mut Vec<u8>, number: u32) -> usize {
    wire::put_bytes(out, number, &[]);
    out.len()
}

/// Ends it: its length is put in front.
pub fn close(out: &mut Vec<u8>, at: usize) {
    let len = out.len() - at;
    if len < 0x80 {
        out[at - 1] = len as u8;
        return;
    }
    let mut head = Vec::with_capacity(10);
    wire::put_raw_varint(&mut head, len as u64);
    out.splice(at - 1..at, head);
}

/// Bytes of a length that is written wider than it must be.
const WIDE: usize = 5;

/// Ends a message whose length has five bytes before its content, the first of them before `at`: nothing is moved.
fn close_wide(out: &mut [u8], at: usize) {
    let mut len = out.len() - at - (WIDE - 1);
    for byte in &mut out[at - 1..at + WIDE - 2] {
        *byte = len as u8 | 0x80;
        len >>= 7;
    }
    out[at + WIDE - 2] = len as u8; // at most 7 bits are left below 32 GiB
}

/// Writes a message of ours as JSON.
pub fn to_json(schema: &Schema, message: &[u8], out: &mut Vec<u8>) -> Result<(), wire::Malformed> {
    out.push(b'{');
    let mut is_first = true;
    for member in schema.members {
        let mut fields = Message::new(message).filter(|field| !matches!(field, Ok((number, _)) if *number != member.number)).peekable();
        if fields.peek().is_none() {
            continue;
        }
        if !std::mem::replace(&mut is_first, false) {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(member.name.as_bytes());
        out.extend_from_slice(if member.is_repeated { b"\":[" } else { b"\":" });
        for (n, field) in fields.enumerate() {
            if n > 0 {
                out.push(b',');
            }
            put_field(member, field?.1, out)?;
        }
        if member.is_repeated {
            out.push(b']');
        }
    }
    out.push(b'}');
    Ok(())
}

fn put_field(member: &Member, field: Field<'_>, out: &mut Vec<u8>) -> Result<(), wire::Malformed> {
    match (&member.kind, field) {
        (Kind::Message(schema), field) => to_json(schema, field.bytes()?, out)?,
        (Kind::Text, field) => text::put_string(out, field.bytes()?).map_err(|_| wire::Malformed)?,
        (Kind::Id, field) => {
            out.push(b'"');
            text::put_hex(out, field.bytes()?);
            out.push(b'"');
        }
        (Kind::Bytes, field) => {
            out.push(b'"');
            text::put_base64(out, field.bytes()?);
            out.push(b'"');
        }
        (kind, Field::Bytes(packed)) => {
            let mut rest = packed;
            while !rest.is_empty() {
                let bits = match kind {
                    Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => {
                        let (bits, tail) = rest.split_first_chunk().ok_or(wire::Malformed)?;
                        rest = tail;
                        u64::from_le_bytes(*bits)
                    }
                    _ => wire::read_varint(&mut rest)?,
                };
                put_scalar(kind, bits, out);
                if !rest.is_empty() {
                    out.push(b',');
                }
            }
        }
        (kind, Field::Varint(bits) | Field::Fixed64(bits)) => put_scalar(kind, bits, out),
        (kind, Field::Fixed32(bits)) => put_scalar(kind, u64::from(bits), out),
    }
    Ok(())
}

fn put_scalar(kind: &Kind, bits: u64, out: &mut Vec<u8>) {
    match kind {
        Kind::Bool => out.extend_from_slice(if bits == 0 { b"false" } else { b"true" }),
        Kind::Double => {
            let value = f64::from_bits(bits);
            match value {
                value if value.is_finite() => crate::sample::put_double(out, value),
                value if value.is_nan() => out.extend_from_slice(b"\"NaN\""),
                value if value > 0.0 => out.extend_from_slice(b"\"Infinity\""),
                _ => out.extend_from_slice(b"\"-Infinity\""),
            }
        }
        Kind::Enum => text::put_signed(out, bits as i64),
        Kind::Sint32 => text::put_signed(out, wire::unzigzag(bits)),
        Kind::Uint32 | Kind::Fixed32 => text::put_unsigned(out, bits),
        _ => {
            out.push(b'"');
            match kind {
                Kind::Int64 | Kind::Sfixed64 => text::put_signed(out, bits as i64),
                _ => text::put_unsigned(out, bits),
            }
            out.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_from_their_text() {
        for (token, want) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("18446744073709551615", Some(i128::from(u64::MAX))),
            ("-9223372036854775808", Some(i128::from(i64::MIN))),
            ("9007199254740993", Some(9_007_199_254_740_993)),
            ("1.0", Some(1)),
            ("1.5e3", Some(1500)),
            ("15E2", Some(1500)),
            ("1500e-2", Some(15)),
            ("1e19", Some(10_000_000_000_000_000_000)),
            ("1e20", None),
            ("1e999999999999", None),
            ("1e99999999999999999999", None),
            ("1e-999999999999", None),
            ("0e99999", Some(0)),
            ("1.5", None),
            ("15e-1", None),
            ("0.5", None),
            ("", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("0x1", None),
            ("NaN", None),
            ("100000000000000000000", None),
        ] {
            assert_eq!(integer(token), want, "{token}");
        }
    }
}
