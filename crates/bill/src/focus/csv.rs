//! CSV as RFC 4180 has it: comma, CRLF, quotes where they are needed; null is nothing at all, `""` an empty text.
//!
//! The reader is strict and streams: it takes LF too, and refuses a stray quote, a lone CR, what is no UTF-8, a field
//! beyond `FIELD_BYTES_MAX` and a record beyond `FIELDS_MAX`, and says where.

use super::Cell;
use std::fmt::Write as _;
use std::io::{self, BufRead};

/// Bytes of one field; SkuPriceDetails and Tags are the longest by far, and stay below 200 KiB.
pub const FIELD_BYTES_MAX: usize = 1 << 20;
/// Fields of one record; FOCUS has 60.
pub const FIELDS_MAX: usize = 1_024;

/// Appends one record. Decimals have 12 digits after the point, times are `YYYY-MM-DDTHH:MM:SSZ`.
pub fn write_cells(cells: &[Cell], out: &mut String) {
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        match cell {
            Cell::Null => {}
            Cell::Text(text) => write_text(text, out),
            other => {
                let _ = write!(out, "{other}");
            }
        }
    }
    out.push_str("\r\n");
}

/// Appends one field.
pub fn write_text(text: &str, out: &mut String) {
    let is_plain = !text.is_empty() && !text.starts_with(' ') && !text.ends_with(' ') && !text.contains([',', '"', '\n', '\r']);
    if is_plain {
        return out.push_str(text);
    }
    out.push('"');
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

/// What is wrong with the file: the record, from 1 with the header as 0, and a sentence.
#[derive(Debug)]
pub enum CsvError {
    Io(io::Error),
    Form { record: u64, why: &'static str },
}

impl From<io::Error> for CsvError {
    fn from(error: io::Error) -> CsvError {
        CsvError::Io(error)
    }
}

/// Reads records one by one.
pub struct Reader<R> {
    input: R,
    record: u64,
    is_started: bool,
    field: Vec<u8>,
    fields: Vec<Option<String>>,
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    Start,
    Plain,
    Quoted,
    /// After a quote inside of quotes: its end, or the first of two.
    Quote,
    Cr,
}

impl<R: BufRead> Reader<R> {
    pub fn new(input: R) -> Reader<R> {
        Reader { input, record: 0, is_started: false, field: Vec::new(), fields: Vec::new() }
    }

    /// The next record: null where nothing stands. `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<&[Option<String>]>, CsvError> {
        self.skip_mark()?;
        self.fields.clear();
        self.field.clear();
        let mut at = At::Start;
        let mut was_quoted = false;
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                return match at {
                    At::Start if self.fields.is_empty() => Ok(None),
                    At::Quoted => Err(self.wrong("a quoted field has no end")),
                    At::Cr => Err(self.wrong("a CR without LF")),
                    _ => self.finish(was_quoted),
                };
            }
            let mut used = 0;
            let mut fault = None;
            let mut is_end = false;
            for byte in chunk {
                used += 1;
                let end_of_field = match (at, byte) {
                    (At::Quoted, b'"') => {
                        at = At::Quote;
                        false
                    }
                    (At::Quoted, byte) => {
                        self.field.push(*byte);
                        false
                    }
                    (At::Quote, b'"') => {
                        at = At::Quoted;
                        self.field.push(b'"');
                        false
                    }
                    (At::Cr, b'\n') => {
                        is_end = true;
                        break;
                    }
                    (At::Cr, _) => {
                        fault = Some("a CR without LF");
                        break;
                    }
                    (_, b',') => true,
                    (_, b'\n') => {
                        is_end = true;
                        break;
                    }
                    (_, b'\r') => {
                        at = At::Cr;
                        false
                    }
                    (At::Start, b'"') => {
                        (at, was_quoted) = (At::Quoted, true);
                        false
                    }
                    (At::Quote, _) => {
                        fault = Some("something follows a closing quote");
                        break;
                    }
                    (_, b'"') => {
                        fault = Some("a quote inside of a field without quotes");
                        break;
                    }
                    (_, byte) => {
                        at = At::Plain;
                        self.field.push(*byte);
                        false
                    }
                };
                if end_of_field {
                    match take(&mut self.field, was_quoted) {
                        Ok(field) => self.fields.push(field),
                        Err(why) => {
                            fault = Some(why);
                            break;
                        }
                    }
                    (at, was_quoted) = (At::Start, false);
                }
                if self.field.len() > FIELD_BYTES_MAX || self.fields.len() >= FIELDS_MAX {
                    fault = Some("a field or a record is too long");
                    break;
                }
            }
            self.input.consume(used);
            if let Some(why) = fault {
                return Err(self.wrong(why));
            }
            if is_end {
                return self.finish(was_quoted);
            }
        }
    }

    fn finish(&mut self, was_quoted: bool) -> Result<Option<&[Option<String>]>, CsvError> {
        let field = take(&mut self.field, was_quoted).map_err(|why| self.wrong(why))?;
        self.fields.push(field);
        self.record += 1;
        Ok(Some(&self.fields))
    }

    fn wrong(&self, why: &'static str) -> CsvError {
        CsvError::Form { record: self.record, why }
    }

    /// A byte order mark before the header is no part of its first name.
    fn skip_mark(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_started, true) && self.input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            self.input.consume(3);
        }
        Ok(())
    }
}

fn take(field: &mut Vec<u8>, was_quoted: bool) -> Result<Option<String>, &'static str> {
    if field.is_empty() && !was_quoted {
        return Ok(None);
    }
    String::from_utf8(std::mem::take(field)).map(Some).map_err(|_| "a field is no UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], chunk: usize) -> Result<Vec<Vec<Option<String>>>, String> {
        let mut reader = Reader::new(io::BufReader::with_capacity(chunk, text));
        let mut records = Vec::new();
        loop {
            match reader.next_record() {
                Ok(Some(record)) => records.push(record.to_vec()),
                Ok(None) => return Ok(records),
                Err(CsvError::Form { record, why }) => return Err(format!("{record}: {why}")),
                Err(CsvError::Io(error)) => return Err(error.to_string()),
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back_in_chunks_of_any_size() {
        let texts = ["a", "", "a,b", "say \"hi\"", "two\r\nlines", " é ", "\"", "x\ny", "😀"];
        let cells: Vec<Cell> = texts.iter().map(|text| Cell::Text(text.to_string())).chain([Cell::Null]).collect();
        let mut out = String::new();
        write_cells(&cells, &mut out);
        write_cells(&cells, &mut out);
        let want: Vec<Option<String>> = texts.iter().map(|text| Some(text.to_string())).chain([None]).collect();
        for chunk in 1..40 {
            assert_eq!(read(out.as_bytes(), chunk), Ok(vec![want.clone(), want.clone()]), "chunks of {chunk}");
        }
        assert_eq!(
            read(b"\xef\xbb\xbfa,b\n1,\"\"", 64),
            Ok(vec![vec![Some("a".into()), Some("b".into())], vec![Some("1".into()), Some("".into())]])
        );
        assert_eq!(read(b"", 64), Ok(vec![]));
    }

    #[test]
    fn what_is_no_csv_is_refused_with_its_place() {
        for (text, want) in [
            (&b"a\n\"b"[..], "1: a quoted field has no end"),
            (b"a\nb\"c\n", "1: a quote inside of a field without quotes"),
            (b"\"a\"b\n", "0: something follows a closing quote"),
            (b"a\rb\n", "0: a CR without LF"),
            (b"a\nb\r", "1: a CR without LF"),
            (b"\xff\n", "0: a field is no UTF-8"),
        ] {
            assert_eq!(read(text, 3), Err(want.to_string()), "{text:?}");
        }
        assert_eq!(read(&vec![b'a'; FIELD_BYTES_MAX + 2], 4096), Err("0: a field or a record is too long".into()));
        assert_eq!(read(&vec![b','; FIELDS_MAX + 2], 4096), Err("0: a field or a record is too long".into()));
    }
}
