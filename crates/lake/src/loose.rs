//! The same query on files outside of a lake: lines in `.jsonl` and the like, also `.gz` and `.zst`, and Parquet
//! files that a lake wrote.
//!
//! In: a query and a path; out: hits in file order. A line's tenant and level are what its fields of these
//! names say. Compressed files are read as a stream, so a small file that unpacks to a huge one costs time and
//! no memory; of a line longer than [`LINE_BYTES_MAX`] the beginning is searched and counted as cut.

use crate::Fields;
use crate::matcher::{Matcher, Row};
use crate::query::Query;
use crate::rows::HitRows;
use crate::search::Hit;
use crate::stats::Stats;
use crate::table;
use anyhow::Context;
use flow::conventions::{LEVEL, TIME};
use flow::event::StreamId;
use flow::fields::{FieldSet, Scanner, Span};
use flow::time::TimeParser;
use flow::units::UnixNanos;
use hub::disk::Disk;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Longest line that is searched whole.
pub const LINE_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 256 << 10;

/// Hands every line of the file that answers `query` to `hit`, until it breaks.
///
/// Of a loose line's [`Hit`], `position` is the offset at which it ended (after decompression); time, severity
/// and tenant are what its own fields say, as in a pipeline that says nothing of them.
pub fn search_file(query: &Query, fields: &Fields, path: &Path, hit: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> anyhow::Result<Stats> {
    let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if kind == "parquet" {
        return search_parquet(query, fields, path, hit);
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let outcome = match kind {
        "gz" => search_lines(query, fields, &mut BufReader::with_capacity(READ_BYTES, flate2::read::MultiGzDecoder::new(file)), hit),
        "zst" => search_lines(query, fields, &mut BufReader::with_capacity(READ_BYTES, zstd::Decoder::new(file)?), hit),
        _ => search_lines(query, fields, &mut BufReader::with_capacity(READ_BYTES, file), hit),
    };
    outcome.with_context(|| format!("cannot read {}", path.display()))
}

/// The same over lines from anywhere.
pub fn search_lines(
    query: &Query,
    fields: &Fields,
    lines: &mut dyn BufRead,
    hit: &mut dyn FnMut(Hit) -> ControlFlow<()>,
) -> anyhow::Result<Stats> {
    let mut matcher = Matcher::new(query, fields)?;
    let mut stats = Stats { files: 1, passes: 1, ..Stats::default() };
    let mut about = About::new();
    let mut line = Vec::new();
    let mut position = 0;
    loop {
        let read = next_line(lines, &mut line, &mut stats.lines_cut)?;
        if read == 0 {
            return Ok(stats);
        }
        position += read;
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.is_empty() {
            continue;
        }
        stats.rows_scanned += 1;
        if matcher.matches(Row { line: &line, tenant: None, severity: None }) {
            stats.hits += 1;
            if hit(about.hit(&line, position)).is_break() {
                return Ok(stats);
            }
        }
    }
}

/// Reads from a line's own fields when it was, how severe it is and who pays.
struct About {
    scanner: Scanner,
    times: TimeParser,
    spans: Vec<Span>,
}

/// Where a pipeline looks for the tenant by default, as [`TIME`] and [`LEVEL`] are for the others.
const TENANT: [&str; 2] = ["tenant", "kubernetes.labels.tenant"];

impl About {
    fn new() -> About {
        let names: Vec<&str> = TIME.into_iter().chain(LEVEL).chain(TENANT).collect();
        let spans = vec![Span::default(); names.len()];
        About { scanner: Scanner::new(Arc::new(FieldSet::new(&names))), times: TimeParser::default(), spans }
    }

    fn hit(&mut self, line: &[u8], position: u64) -> Hit {
        self.scanner.scan(line, &mut self.spans);
        let (time, rest) = self.spans.split_at(TIME.len());
        let (level, tenant) = rest.split_at(LEVEL.len());
        let first = |spans: &[Span]| spans.iter().copied().find(|s| s.text(line).is_some());
        let time = first(time).and_then(|s| self.times.parse(s.raw(line), s.kind)).unwrap_or(UnixNanos(0));
        let severity = first(level).map_or(0, |s| flow::severity::parse(s.raw(line), s.kind));
        let tenant = first(tenant).and_then(|s| s.text(line)).map(|t| t.into_owned()).unwrap_or_default();
        Hit { tenant, time, severity, weight: 1, stream: StreamId(0), position, raw: line.to_vec() }
    }
}

/// Reads a line without its newline; returns how many bytes were used up, 0 at the end.
fn next_line(lines: &mut dyn BufRead, line: &mut Vec<u8>, cut: &mut u64) -> io::Result<u64> {
    line.clear();
    let mut used = 0;
    let mut is_cut = false;
    loop {
        let buffer = match lines.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let end = memchr::memchr(b'\n', buffer);
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        let room = LINE_BYTES_MAX - line.len();
        line.extend_from_slice(&piece[..piece.len().min(room)]);
        is_cut |= piece.len() > room;
        let step = piece.len() + usize::from(end.is_some());
        used += step as u64;
        lines.consume(step);
        if end.is_some() || step == 0 {
            *cut += u64::from(is_cut);
            return Ok(used);
        }
    }
}

fn search_parquet(query: &Query, fields: &Fields, path: &Path, hit: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> anyhow::Result<Stats> {
    let mut matcher = Matcher::new(query, fields)?;
    let mut stats = Stats { files: 1, passes: 1, ..Stats::default() };
    let cannot = || format!("cannot read {}", path.display());
    for batch in table::read_all(&Disk::Real, path, None)? {
        let batch = batch.with_context(cannot)?;
        let rows = HitRows::of(&batch).with_context(cannot)?;
        for row in 0..batch.num_rows() {
            stats.rows_scanned += 1;
            let tenant = table::tenant(&batch, row)?;
            let about = Row { line: rows.lines.line(row), tenant: Some(tenant), severity: Some(rows.severities[row]) };
            if !matcher.matches(about) {
                continue;
            }
            stats.hits += 1;
            if hit(rows.hit(row, tenant)).is_break() {
                return Ok(stats);
            }
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[track_caller]
    fn check(name: &str, bytes: &[u8], query: &str, want: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut got = Vec::new();
        let query = Query::parse(query).unwrap();
        search_file(&query, &Fields::default(), &path, &mut |hit| {
            got.push(String::from_utf8(hit.raw).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(got, want);
    }

    const LINES: &str =
        "{\"level\":\"WARN\",\"tenant\":\"a\",\"msg\":\"one two\"}\r\n\n{\"level\":\"info\",\"tenant\":\"b\",\"msg\":\"two\"}\nplain two";

    #[test]
    fn lines_are_found_packed_and_unpacked() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(LINES.as_bytes()).unwrap();
        let gz = [gz.finish().unwrap(), Vec::new()].concat();
        let zst = zstd::encode_all(LINES.as_bytes(), 1).unwrap();
        for (name, bytes) in [("x.jsonl", LINES.as_bytes()), ("x.log.gz", &gz), ("x.zst", &zst)] {
            check(name, bytes, "level:warning", &["{\"level\":\"WARN\",\"tenant\":\"a\",\"msg\":\"one two\"}"]);
            check(name, bytes, "tenant:b", &["{\"level\":\"info\",\"tenant\":\"b\",\"msg\":\"two\"}"]);
            check(name, bytes, "two -level:*", &["plain two"]);
            check(name, bytes, "three", &[]);
        }
    }

    #[test]
    fn a_line_without_end_is_cut_and_counted() {
        struct Endless(usize);
        impl io::Read for Endless {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let n = out.len().min(self.0);
                self.0 -= n;
                out[..n].fill(b'x');
                Ok(n)
            }
        }
        let mut lines = BufReader::new(Endless(LINE_BYTES_MAX * 3));
        let mut longest = 0;
        let stats = search_lines(&Query::all(), &Fields::default(), &mut lines, &mut |hit| {
            longest = longest.max(hit.raw.len());
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!((stats.lines_cut, stats.hits, longest), (1, 1, LINE_BYTES_MAX));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x.gz", "x.zst", "x.parquet"] {
            let path = folder.path().join(name);
            std::fs::write(&path, b"this is none").unwrap();
            let outcome = search_file(&Query::all(), &Fields::default(), &path, &mut |_| ControlFlow::Continue(()));
            assert!(outcome.unwrap_err().to_string().contains(name));
        }
    }
}
