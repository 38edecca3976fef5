//! Protobuf's wire format: the fields of a message as they come, and written.
//!
//! In: bytes of any kind. Out: field numbers and values that borrow from them; nothing is copied or allocated, and a length beyond
//! the message is [`Malformed`]. Groups, which no format here has, are malformed too. Unknown fields are for the caller to pass over.
//! Source: <https://protobuf.dev/programming-guides/encoding>.

use std::fmt;

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body is no protobuf message of the expected kind")
    }
}

impl std::error::Error for Malformed {}

/// A value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// Of `uint64`, `int64`, `int32`, `bool`, enums: cast further.
    pub fn varint(self) -> Result<u64, Malformed> {
        if let Field::Varint(value) = self { Ok(value) } else { Err(Malformed) }
    }

    /// Of `sint32` and `sint64`.
    pub fn zigzag(self) -> Result<i64, Malformed> {
        self.varint().map(unzigzag)
    }

    pub fn double(self) -> Result<f64, Malformed> {
        self.fixed64().map(f64::from_bits)
    }

    /// Of `fixed64` and `sfixed64`.
    pub fn fixed64(self) -> Result<u64, Malformed> {
        if let Field::Fixed64(bits) = self { Ok(bits) } else { Err(Malformed) }
    }

    pub fn fixed32(self) -> Result<u32, Malformed> {
        if let Field::Fixed32(bits) = self { Ok(bits) } else { Err(Malformed) }
    }

    /// Of `bytes`, embedded messages and packed repeated fields.
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Field::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed) }
    }

    /// Of `string`, which must be UTF-8.
    pub fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub fn message(self) -> Result<Message<'a>, Malformed> {
        self.bytes().map(Message::new)
    }
}

/// The fields of a message, in the order of the wire. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    pub fn new(bytes: &'a [u8]) -> Message<'a> {
        Message { rest: bytes }
    }

    /// The bytes of the fields that are still to come.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Message<'a> {
    type Item = Result<(u32, Field<'a>), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = read_field(&mut self.rest);
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[inline]
fn read_field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Field<'a>), Malformed> {
    let key = read_varint(rest)?;
    let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0 && *number < 1 << 29).ok_or(Malformed)?;
    let field = match key & 7 {
        0 => Field::Varint(read_varint(rest)?),
        1 => Field::Fixed64(u64::from_le_bytes(take(rest)?)),
        2 => {
            let len = usize::try_from(read_varint(rest)?).map_err(|_| Malformed)?;
            let (bytes, tail) = rest.split_at_checked(len).ok_or(Malformed)?;
            *rest = tail;
            Field::Bytes(bytes)
        }
        5 => Field::Fixed32(u32::from_le_bytes(take(rest)?)),
        _ => return Err(Malformed),
    };
    Ok((number, field))
}

/// Takes a varint off the front; also what packed fields and length-delimited streams of messages are made of.
#[inline]
pub fn read_varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    if let [first, tail @ ..] = *rest
        && *first < 0x80
    {
        *rest = tail;
        return Ok(u64::from(*first));
    }
    let mut value = 0u64;
    for n in 0..10 {
        let byte = *rest.get(n).ok_or(Malformed)?;
        if n == 9 && byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte < 0x80 {
            *rest = &rest[n + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (bytes, tail) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    *rest = tail;
    Ok(*bytes)
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
pub fn put_raw_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_key(out: &mut Vec<u8>, number: u32, kind: u32) {
    put_raw_varint(out, u64::from(number << 3 | kind));
}

/// Writes the field, zero or not: callers leave out what proto3 leaves out.
pub fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_key(out, number, 0);
    put_raw_varint(out, value);
}

pub fn put_zigzag(out: &mut Vec<u8>, number: u32, value: i64) {
    put_varint(out, number, zigzag(value));
}

pub fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_key(out, number, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_fixed64(out, number, value.to_bits());
}

pub fn put_fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    put_key(out, number, 5);
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_key(out, number, 2);
    put_raw_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes an embedded message: `fill` appends its fields. Its length is not known before, so it is put in front afterwards.
pub fn put_message(out: &mut Vec<u8>, number: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    put_key(out, number, 2);
    let at = out.len();
    out.push(0);
    fill(out);
    let len = out.len() - at - 1;
    if len < 0x80 {
        out[at] = len as u8;
        return;
    }
    let mut head = Vec::with_capacity(10);
    put_raw_varint(&mut head, len as u64);
    out.splice(at..=at, head);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_written_is_read() {
        let mut out = Vec::new();
        put_varint(&mut out, 1, u64::MAX);
        put_zigzag(&mut out, 2, -3);
        put_double(&mut out, 3, 0.5);
        put_fixed32(&mut out, 4, 7);
        put_message(&mut out, 5, |out| put_bytes(out, 1, &[b'x'; 300]));
        let fields: Vec<_> = Message::new(&out).map(|field| field.expect("a field")).collect();
        assert_eq!(fields[0], (1, Field::Varint(u64::MAX)));
        assert_eq!(fields[1].1.zigzag(), Ok(-3));
        assert_eq!(fields[2].1.double(), Ok(0.5));
        assert_eq!(fields[3], (4, Field::Fixed32(7)));
        let inner: Vec<_> = fields[4].1.message().expect("a message").collect();
        assert_eq!(inner, [Ok((1, Field::Bytes(&[b'x'; 300])))]);
        for len in 0..out.len() {
            assert!(Message::new(&out[..len]).count() <= 5, "a torn message ends");
        }
        assert_eq!(fields[0].1.text(), Err(Malformed), "of another kind");
        assert_eq!(Message::new(&[0x0b]).next(), Some(Err(Malformed)), "a group");
        assert_eq!(Message::new(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]).next(), Some(Err(Malformed)), "longer than it is");
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, signed: i64) {
            let mut out = Vec::new();
            put_raw_varint(&mut out, value);
            let mut rest = out.as_slice();
            prop_assert_eq!((read_varint(&mut rest), rest.len()), (Ok(value), 0));
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes: Vec<u8>) {
            for field in Message::new(&bytes) {
                let _ = field.and_then(|(_, field)| field.text());
            }
        }
    }
}
