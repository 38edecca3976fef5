//! Text as numbers and truth values, as C's `atoll`, `strtoull`, `strtod` and Fluent Bit have them.
//!
//! In: the text of a field and its type. Out: a JSON value. Whole numbers beyond 64 bits are the largest; numbers that JSON
//! cannot hold (`inf`, `nan`, `1e999`) stay text.

use crate::definition::Type;
use crate::emit::{write_integer, write_string, write_unsigned};

/// Writes a field's value as its type says.
pub fn write_typed(out: &mut Vec<u8>, text: &[u8], kind: Type) {
    match kind {
        Type::Integer => write_integer(out, integer(text)),
        Type::Float => write_float(out, text),
        Type::Bool => write_bool(out, text),
        Type::Hex => write_hex(out, text),
        Type::String => write_string(out, text),
    }
}

fn write_bool(out: &mut Vec<u8>, text: &[u8]) {
    let begins = |word: &[u8]| text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word));
    if begins(b"true") {
        out.extend_from_slice(b"true");
    } else if begins(b"false") {
        out.extend_from_slice(b"false");
    } else {
        write_string(out, text);
    }
}

/// The number that text begins with; 0 without one.
pub fn integer(text: &[u8]) -> i64 {
    let (negative, text) = sign(text);
    let digits = text.iter().take_while(|b| b.is_ascii_digit());
    let end = if negative { i64::MIN } else { i64::MAX };
    let step =
        |sum: i64, digit: i64| if negative { sum.checked_mul(10)?.checked_sub(digit) } else { sum.checked_mul(10)?.checked_add(digit) };
    digits.map(|b| i64::from(b - b'0')).try_fold(0, step).unwrap_or(end)
}

/// As `strtoull` with base 16: a negative number counts down from 2^64.
fn write_hex(out: &mut Vec<u8>, text: &[u8]) {
    let (negative, text) = sign(text);
    let digits = match text {
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => rest,
        _ => text,
    };
    let number = hex_prefix(digits);
    write_unsigned(out, if negative && number != u64::MAX { number.wrapping_neg() } else { number });
}

fn hex_prefix(text: &[u8]) -> u64 {
    let digits = text.iter().map_while(|b| char::from(*b).to_digit(16));
    digits.map(u64::from).try_fold(0u64, |sum, digit| Some(sum.checked_mul(16)? + digit)).unwrap_or(u64::MAX)
}

/// Skips blanks and a sign.
fn sign(text: &[u8]) -> (bool, &[u8]) {
    match blank_free(text) {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

fn blank_free(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|b| b.is_ascii_whitespace() || **b == 0x0b).count();
    &text[blanks..]
}

/// Writes the decimal number that text begins with, digit by digit as it stands; 0 without one.
fn write_float(out: &mut Vec<u8>, text: &[u8]) {
    let (negative, number) = sign(text);
    let begins = |word: &[u8]| number.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word));
    let begin = out.len();
    match number {
        _ if begins(b"inf") || begins(b"nan") => return write_string(out, text),
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => write_unsigned(out, hex_prefix(rest)),
        _ => write_decimal(out, negative, number),
    }
    if !is_finite(&out[begin..]) {
        out.truncate(begin);
        write_string(out, text);
    }
}

fn write_decimal(out: &mut Vec<u8>, negative: bool, text: &[u8]) {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => digits(rest),
        _ => (&[][..], rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return out.push(b'0');
    }
    if negative {
        out.push(b'-');
    }
    let zeros = whole.iter().take_while(|b| **b == b'0').count();
    out.extend_from_slice(if zeros == whole.len() { b"0" } else { &whole[zeros..] });
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    write_exponent(out, rest);
}

fn write_exponent(out: &mut Vec<u8>, text: &[u8]) {
    let [b'e' | b'E', rest @ ..] = text else { return };
    let signed = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
    let (exponent, _) = digits(&rest[signed..]);
    if !exponent.is_empty() {
        out.push(b'e');
        out.extend_from_slice(&rest[..signed + exponent.len()]);
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|b| b.is_ascii_digit()).count())
}

/// Whether a reader with 64-bit floats can hold the number; without an exponent, 300 digits always can.
fn is_finite(number: &[u8]) -> bool {
    if number.len() <= 300 && !number.contains(&b'e') {
        return true;
    }
    std::str::from_utf8(number).ok().and_then(|n| n.parse::<f64>().ok()).is_some_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(kind: Type, pairs: &[(&str, &str)]) {
        for (text, want) in pairs {
            let mut out = Vec::new();
            write_typed(&mut out, text.as_bytes(), kind);
            assert_eq!(String::from_utf8(out).unwrap(), *want, "{kind:?} of {text:?}");
        }
    }

    #[test]
    fn types_read_prefixes() {
        let big = ("99999999999999999999", "9223372036854775807");
        check(Type::Integer, &[("12ab", "12"), ("x", "0"), ("", "0"), (" \t-7", "-7"), ("+5", "5"), ("- 5", "0"), ("0x1f", "0"), big]);
        check(Type::Integer, &[("-9223372036854775808", "-9223372036854775808"), ("-99999999999999999999", "-9223372036854775808")]);
        check(Type::Bool, &[("TRUEish", "true"), ("false", "false"), ("FALSE!", "false"), ("yes", "\"yes\""), ("tru", "\"tru\"")]);
        check(
            Type::Hex,
            &[
                ("0x1f", "31"),
                ("1F", "31"),
                ("0x", "0"),
                ("xyz", "0"),
                ("-1", "18446744073709551615"),
                ("fffffffffffffffff", "18446744073709551615"),
            ],
        );
        check(
            Type::Float,
            &[("1.5s", "1.5"), ("12", "12"), (".5", "0.5"), ("-00.50", "-0.50"), ("7.", "7"), ("x", "0"), ("1e3x", "1e3"), ("1e", "1")],
        );
        check(
            Type::Float,
            &[("inf", "\"inf\""), ("-NaN", "\"-NaN\""), ("1e999", "\"1e999\""), ("0x1f", "31"), ("1E-5", "1e-5"), ("+2.5E+1", "2.5e+1")],
        );
        check(Type::String, &[("12", "\"12\"")]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_json(text: Vec<u8>, near in "[ +-]?[0-9]{0,25}(\\.[0-9]{0,400})?([eE][+-]?[0-9]{0,5})?", kind in 0..5usize) {
            let kind = [Type::Integer, Type::Float, Type::Bool, Type::Hex, Type::String][kind];
            for text in [text.as_slice(), near.as_bytes()] {
                let mut out = Vec::new();
                write_typed(&mut out, text, kind);
                let read: Result<serde_json::Value, _> = serde_json::from_slice(&out);
                prop_assert!(read.is_ok(), "{:?}", String::from_utf8_lossy(&out));
            }
        }

        #[test]
        fn a_float_is_the_number_that_it_was(number in proptest::num::f64::NORMAL) {
            let mut out = Vec::new();
            write_typed(&mut out, format!("{number:e} ms").as_bytes(), Type::Float);
            prop_assert_eq!(std::str::from_utf8(&out).unwrap().parse::<f64>().unwrap(), number);
        }
    }
}
