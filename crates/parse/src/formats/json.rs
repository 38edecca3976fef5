//! Exactly one JSON object; its members pass as they are, but for the time and what has a type or decoder.

use crate::decode::write_json;
use crate::json;
use crate::record::{Plan, Record};

pub fn read(line: &[u8], plan: &Plan, record: &mut Record) -> bool {
    match std::str::from_utf8(line) {
        Ok(_) => read_text(line, plan, record),
        Err(_) => read_text(String::from_utf8_lossy(line).as_bytes(), plan, record),
    }
}

fn read_text(text: &[u8], plan: &Plan, record: &mut Record) -> bool {
    let begin = record.out.len();
    let done = if plan.copies_names() { copy(text, record) } else { json::members(text, &mut |name, value| record.member(name, value)) };
    // Ends of lines stand between values only, and a record is one line.
    for byte in &mut record.out[begin..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    done
}

/// Nothing is taken out: what stands between the braces is what the record holds.
fn copy(text: &[u8], record: &mut Record) -> bool {
    let mut members = 0u32;
    if !json::members(text, &mut |_, _| members += 1) {
        return false;
    }
    let text = text.trim_ascii();
    if members > 0 {
        write_json(record.out, &text[1..text.len() - 1]);
        record.out.push(b',');
    }
    true
}
