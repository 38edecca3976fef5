//! What the index gathers of one field while rows come: the terms, and which rows hold each.
//!
//! In: the terms of row 0, row 1 and so on; out: tantivy's term dictionary and postings of the field, terms in order.
//! tantivy's own writer takes documents and keeps a list for each term; here terms get numbers in the order of their first
//! sight and rows are a stream of these numbers, sorted out at the end: no document is made, no token is copied. Memory:
//! a term's bytes and 20 more, 1 to 4 bytes for a row's term, and [`SORT_ROWS`] rows of 4 bytes while it is written.

use anyhow::Context;
use flow::hash::record_hash;
use hashbrown::HashTable;
use tantivy::postings::InvertedIndexSerializer;
use tantivy::schema::Field;

/// Rows of terms that are sorted out at once, 4 bytes each; a field with more is gone through several times.
const SORT_ROWS: usize = if cfg!(test) { 5_000 } else { 1 << 20 }; // tests go through several times
/// Stands for the end of a row in the stream; terms are one more than their number.
const NEXT_ROW: u8 = 0;

#[derive(Default)]
pub(super) struct Terms {
    /// The terms one behind the other, by number.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// By number: rows that hold the term, and the last of them plus one.
    counts: Vec<u32>,
    last: Vec<u32>,
    table: HashTable<u32>,
    stream: Vec<u8>,
    row: u32,
    /// The number of the term that was added last: neighbouring rows are alike.
    previous: u32,
}

impl Terms {
    /// The row holds this term.
    pub(super) fn add(&mut self, term: &[u8]) -> anyhow::Result<()> {
        let number = self.number(term)?;
        self.previous = number;
        let last = &mut self.last[number as usize];
        if *last == self.row + 1 {
            return Ok(()); // twice in one row
        }
        *last = self.row + 1;
        self.counts[number as usize] += 1;
        push_number(number + 1, &mut self.stream);
        Ok(())
    }

    pub(super) fn end_row(&mut self) {
        self.stream.push(NEXT_ROW);
        self.row += 1;
    }

    fn term(&self, number: u32) -> &[u8] {
        term(&self.bytes, &self.ends, number)
    }

    fn number(&mut self, text: &[u8]) -> anyhow::Result<u32> {
        if !self.ends.is_empty() && self.term(self.previous) == text {
            return Ok(self.previous);
        }
        let (bytes, ends) = (&self.bytes, &self.ends);
        let hash = record_hash(text);
        if let Some(number) = self.table.find(hash, |number| term(bytes, ends, *number) == text) {
            return Ok(*number);
        }
        let number = self.ends.len() as u32;
        let end = u32::try_from(bytes.len() + text.len()).context("the words of one log file are longer than 4 GiB")?;
        self.bytes.extend_from_slice(text);
        self.ends.push(end);
        self.counts.push(0);
        self.last.push(0);
        let (bytes, ends) = (&self.bytes, &self.ends);
        self.table.insert_unique(hash, number, |number| record_hash(term(bytes, ends, *number)));
        Ok(number)
    }

    /// Writes the field. One without terms is left out, as tantivy does.
    pub(super) fn write(mut self, field: Field, out: &mut InvertedIndexSerializer) -> anyhow::Result<()> {
        self.table = HashTable::new();
        if self.ends.is_empty() {
            return Ok(());
        }
        let mut order: Vec<(u64, u32)> = (0..self.ends.len() as u32).map(|number| (first_bytes(self.term(number)), number)).collect();
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| self.term(a.1).cmp(self.term(b.1))));
        let tokens = self.counts.iter().map(|count| u64::from(*count)).sum();
        let mut field = out.new_field(field, tokens, None)?;
        let mut places = std::mem::take(&mut self.last);
        let mut rows: Vec<u32> = Vec::new();
        let mut rest = &order[..];
        while !rest.is_empty() {
            places.fill(u32::MAX);
            let (mut held, mut taken) = (0, 0);
            for (_, number) in rest {
                let count = self.counts[*number as usize] as usize;
                if held + count > SORT_ROWS && taken > 0 {
                    break;
                }
                places[*number as usize] = held as u32;
                held += count;
                taken += 1;
            }
            rows.resize(held, 0);
            self.sort_out(&mut places, &mut rows);
            let mut at = 0;
            for (_, number) in &rest[..taken] {
                let count = self.counts[*number as usize];
                field.new_term(self.term(*number), count, false)?;
                for row in &rows[at..at + count as usize] {
                    field.write_doc(*row, 0, &[]);
                }
                field.close_term()?;
                at += count as usize;
            }
            rest = &rest[taken..];
        }
        field.close()?;
        Ok(())
    }

    /// Puts each row of a term that has a place there, and moves the place on.
    fn sort_out(&self, places: &mut [u32], rows: &mut [u32]) {
        let (mut row, mut number, mut shift) = (0, 0u32, 0);
        for byte in &self.stream {
            if *byte == NEXT_ROW && shift == 0 {
                row += 1;
                continue;
            }
            number |= u32::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                let place = &mut places[number as usize - 1];
                if *place != u32::MAX {
                    rows[*place as usize] = row;
                    *place += 1;
                }
                (number, shift) = (0, 0);
            }
        }
    }
}

fn term<'a>(bytes: &'a [u8], ends: &[u32], number: u32) -> &'a [u8] {
    let at = number as usize;
    let start = if at == 0 { 0 } else { ends[at - 1] as usize };
    &bytes[start..ends[at] as usize]
}

/// In the order of the texts, as far as eight bytes go.
fn first_bytes(text: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = text.len().min(8);
    first[..len].copy_from_slice(&text[..len]);
    u64::from_be_bytes(first)
}

/// Seven bits a byte, the lowest first; the last byte of a number that is not 0 is not 0.
fn push_number(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
