//! Lines and joined lines, cut into chunks at every place.

use super::*;

const LIMITS: Limits = Limits { line_bytes_max: 64, join_bytes_max: 100 };

/// Decodes `input` in chunks of `chunk` bytes and shows each record with its notes.
fn decode(format: Format, input: &[u8], chunk: usize) -> Vec<(String, u64, u16)> {
    let mut decoder = Decoder::new(format, LIMITS);
    let mut batch = Batch::default();
    let mut records = Vec::new();
    let mut at = 0;
    let mut len = chunk;
    let mut law = crate::batch::Law::default();
    loop {
        let end = (at + len).min(input.len());
        batch.arena.clear();
        batch.arena.extend_from_slice(&input[at..end]);
        let last = if end == input.len() { End::Log } else { End::Open };
        let used = decoder.decode(&mut batch, at as u64, last);
        for i in 0..batch.len() {
            records.push((String::from_utf8_lossy(batch.record(i)).into_owned(), batch.position[i], batch.notes[i]));
        }
        law.add(&batch.law);
        at += used;
        assert_eq!(law.total(), at as i64, "every byte has a use");
        if end == input.len() {
            assert_eq!(law.held_bytes, 0, "nothing is held at the end");
            assert_eq!(at, input.len());
            return records;
        }
        len = if used == 0 { len + chunk } else { chunk };
    }
}

#[track_caller]
fn check(format: Format, input: &[u8], want: &[(&str, u16)]) {
    for chunk in 1..=input.len().max(1) + 1 {
        let got = decode(format, input, chunk);
        let got: Vec<(&str, u16)> = got.iter().map(|r| (r.0.as_str(), r.2)).collect();
        assert_eq!(got, want, "in chunks of {chunk}");
    }
}

#[test]
fn lines_end_at_newlines_wherever_the_chunks_end() {
    check(Format::Text, b"a\nbb\r\n\n  \nc", &[("a", 0), ("bb", 0), ("c", Note::Unterminated.bit())]);
    check(Format::Text, b"", &[]);
    check(Format::Text, b"\n\n", &[]);
}

#[test]
fn a_line_that_is_too_long_is_cut_once() {
    let input = [b"x".repeat(200), b"\nshort\n".to_vec()].concat();
    let cut = "x".repeat(64);
    check(Format::Text, &input, &[(&cut, Note::Truncated.bit()), ("short", 0)]);
}

#[test]
fn split_lines_are_joined_per_stream() {
    let t = "2016-10-06T00:17:09.669794202Z";
    let joined = format!("{t} stdout P a \n{t} stderr F e\n{t} stdout F b\n");
    check(Format::Cri, joined.as_bytes(), &[("e", 0), ("a b", 0)]);
    let empty = format!("{t} stdout F \n{t} stdout F\n{t} stdout X y\n{t} stdout P:foo p\n{t} stdout F q\nraw\n");
    let malformed = format!("{t} stdout F");
    check(Format::Cri, empty.as_bytes(), &[("", 0), (&malformed, Note::NotCri.bit()), ("y", 0), ("pq", 0), ("raw", Note::NotCri.bit())]);
    let endless = format!("{t} stdout P a\n{t} stdout P b\n");
    check(Format::Cri, endless.as_bytes(), &[("ab", Note::Partial.bit())]);
}

#[test]
fn the_oldest_held_part_is_known_across_files() {
    let t = "2016-10-06T00:17:09Z";
    let mut decoder = Decoder::new(Format::Cri, Limits { line_bytes_max: 1_000, join_bytes_max: 1_000 });
    let mut batch = Batch { arena: format!("{t} stdout F x\n{t} stdout P a\n").into_bytes(), ..Batch::default() };
    decoder.decode(&mut batch, 0, End::Open);
    assert_eq!(decoder.oldest_held(0), Some(t.len() as u64 + 12));
    batch.arena.clear();
    decoder.decode(&mut batch, 66, End::File);
    assert_eq!((decoder.oldest_held(0), decoder.oldest_held(1)), (None, Some(t.len() as u64 + 12)));
    batch.arena = format!("{t} stdout F b\n").into_bytes();
    decoder.decode(&mut batch, 0, End::Open);
    assert_eq!(batch.record(0), b"ab");
    assert_eq!(decoder.oldest_held(1), None);
}
