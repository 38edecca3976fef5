//! Lines that are no JSON become records, before anything else looks at them.
//!
//! In: a decoded batch of one source, and the parsers that its config names, in order. Out: the same records as JSON objects
//! in an arena that takes the place of the chunk, and the times that parsers found; positions and origin bytes stay those of the line.
//! The first parser that matches makes the record. A line that none matches is kept whole, as
//! `{"message":"...","parse_error":"no_match"}` (`limit`: a pattern ran out of steps), or dropped as malformed.
//! With a `field` the records are JSON objects already, and the text of that member is parsed: what comes of it stands in front of
//! the other members and replaces those of the same names; a record without that member, or whose text no parser matches, stays
//! as it is. Memory: what comes of one chunk; short lines are read in smaller chunks ([`Parsing::chunk_bytes_max`]).

use crate::batch::Batch;
use crate::escape::{escape_into, unescape_into};
use crate::event::{Note, Outcome, Reason};
use crate::fields::{FieldSet, Kind, Scanner, Span};
use crate::pipeline::Reading;
use crate::step::members::members;
use hashbrown::HashSet;
use parse::definition::{Definition, Format};
use parse::parser::{Outcome as Parsed, Scratch};
use parse::set::Set;
use std::ops::Range;
use std::sync::Arc;

/// In [`Batch::parsed_time`]: no parser found one.
pub const NO_TIME: i64 = i64::MIN;
/// What one chunk may become.
const PARSED_BYTES_MAX: usize = 16 << 20;
/// `{"message":"","parse_error":"no_match"}` and what escapes make of a few bytes.
const AROUND_BYTES: usize = 128;

/// Names of two records are compared each with each up to so many pairs: 20 beside 50.
const COMPARED_MAX: usize = 1_000;

/// What a source's config says of parsing: stages, in order.
pub struct Parsing {
    stages: Vec<Stage>,
}

struct Stage {
    set: Set,
    /// The member to parse; `None`: the whole line.
    field: Option<Arc<FieldSet>>,
    /// The member stays, and its name with quotes.
    keep_field: bool,
    /// Other members stay.
    keep_others: bool,
    /// `"name":` of the member that holds the line as it was; `None`: it is not kept.
    original: Option<Vec<u8>>,
    drop_unmatched: bool,
    /// What a record may have beyond the bytes of its line.
    overhead_bytes: usize,
}

/// One stage, in the words of a config.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Tried in this order.
    pub parsers: Vec<Definition>,
    pub field: Option<String>,
    pub keep_field: bool,
    pub keep_others: bool,
    pub original: Option<String>,
    pub drop_unmatched: bool,
}

impl Parsing {
    /// An error names the parser and what is wrong.
    pub fn new(stages: &[Options]) -> Result<Parsing, String> {
        Ok(Parsing { stages: stages.iter().map(Stage::new).collect::<Result<_, _>>()? })
    }

    /// How much is read of a log at once: however short its lines are, what comes of them is bounded.
    pub fn chunk_bytes_max(&self) -> usize {
        let overhead: usize = self.stages.iter().map(|stage| stage.overhead_bytes).sum();
        (PARSED_BYTES_MAX / overhead.max(1) * 2).max(4 << 10)
    }
}

impl Stage {
    fn new(options: &Options) -> Result<Stage, String> {
        let original = options.original.as_ref().map(|name| prepared(name.as_bytes()));
        let names = options.parsers.iter().map(names_bytes).max().unwrap_or(0);
        Ok(Stage {
            set: Set::new(&options.parsers).map_err(|refusals| refusals.iter().map(|r| r.to_string()).collect::<Vec<_>>().join("; "))?,
            field: options.field.as_ref().map(|path| Arc::new(FieldSet::new(&[path]))),
            keep_field: options.keep_field,
            keep_others: options.keep_others,
            overhead_bytes: AROUND_BYTES + names + original.as_ref().map_or(0, Vec::len),
            original,
            drop_unmatched: options.drop_unmatched,
        })
    }
}

/// What the names of a parser's fields take at most in a record.
fn names_bytes(definition: &Definition) -> usize {
    let quotes = |name: &String| name.len() + 8;
    match &definition.format {
        Format::Regex(pattern) => 2 * pattern.len(),
        Format::Csv { columns, .. } => columns.iter().map(quotes).sum(),
        _ => 512,
    }
}

/// `"name":`
fn prepared(name: &[u8]) -> Vec<u8> {
    let mut key = vec![b'"'];
    escape_into(name, &mut key);
    key.extend_from_slice(b"\":");
    key
}

/// Parses batches. Holds scratch space; one per thread.
#[derive(Default)]
pub struct LineParser {
    scratch: Scratch,
    /// Of the last set that had a field.
    scanner: Option<Scanner>,
    /// The buffer that is not the batch's now.
    arena: Vec<u8>,
    /// One record, as a parser made it.
    made: Vec<u8>,
    text: Vec<u8>,
    ours: Members,
    theirs: Members,
}

impl LineParser {
    /// Parses every record of a batch that was decoded and not processed yet. Returns how to read it now.
    pub fn parse(&mut self, batch: &mut Batch, parsing: &Parsing, reading: Reading) -> Reading {
        batch.parsed_time.clear();
        batch.parsed_time.resize(batch.len(), NO_TIME);
        for stage in &parsing.stages {
            match &stage.field {
                None => self.parse_lines(batch, stage),
                Some(field) => self.parse_fields(batch, stage, field),
            }
        }
        Reading { json: true, ..reading }
    }

    /// Writes all records into one buffer, which then takes the place of the chunk: no record is copied.
    fn parse_lines(&mut self, batch: &mut Batch, stage: &Stage) {
        let chunk = std::mem::take(&mut batch.arena);
        let mut arena = std::mem::take(&mut self.arena);
        arena.clear();
        let arrival = batch.arrival.0;
        for i in 0..batch.len() {
            let (start, end) = (batch.start[i] as usize, batch.end[i] as usize);
            let line = &chunk[start..end];
            arena.extend_from_slice(&chunk[start - batch.prefix[i] as usize..start]);
            let begin = arena.len();
            match stage.set.parse(line, arrival, &mut self.scratch, &mut arena).outcome {
                Parsed::Parsed { time_ns } => batch.parsed_time[i] = time_ns.unwrap_or(batch.parsed_time[i]),
                outcome => {
                    let is_limit = outcome == Parsed::Limit;
                    batch.note(i, if is_limit { Note::ParseLimit } else { Note::ParseError });
                    if stage.drop_unmatched {
                        batch.refused.resize(batch.start.len(), false);
                        batch.refused[i] = true;
                        arena.extend_from_slice(line);
                    } else {
                        wrap(line, is_limit, &mut arena);
                    }
                }
            }
            if let Some(key) = stage.original.as_ref().filter(|_| batch.refused.get(i) != Some(&true)) {
                self.made.clear();
                self.made.extend(arena.drain(begin..));
                append_original(&mut self.made, key, line, &mut self.ours);
                arena.extend_from_slice(&self.made);
            }
            (batch.start[i], batch.end[i]) = (begin as u32, arena.len() as u32);
        }
        batch.arena = arena;
        self.arena = chunk;
    }

    fn parse_fields(&mut self, batch: &mut Batch, stage: &Stage, field: &Arc<FieldSet>) {
        let scanner = match self.scanner.take() {
            Some(scanner) if Arc::ptr_eq(scanner.fields(), field) => scanner,
            _ => Scanner::new(Arc::clone(field)),
        };
        let scanner = self.scanner.insert(scanner);
        let mut arena = std::mem::take(&mut batch.arena);
        let arrival = batch.arrival.0;
        for i in 0..batch.len() {
            let record = batch.start[i] as usize..batch.end[i] as usize;
            let line = &arena[record];
            let mut span = [Span::default()];
            let is_object = scanner.scan(line, &mut span).malformed.is_none();
            let text = match span[0].kind {
                Kind::Text if is_object => span[0].raw(line),
                Kind::Escaped if is_object => {
                    self.text.clear();
                    unescape_into(span[0].raw(line), &mut self.text);
                    &self.text
                }
                _ => continue,
            };
            self.made.clear();
            match stage.set.parse(text, arrival, &mut self.scratch, &mut self.made).outcome {
                Parsed::Parsed { time_ns } => batch.parsed_time[i] = time_ns.unwrap_or(batch.parsed_time[i]),
                Parsed::Limit => {
                    batch.note(i, Note::ParseLimit);
                    continue;
                }
                Parsed::NoMatch => {
                    batch.note(i, Note::ParseError);
                    continue;
                }
            }
            self.text.clear();
            self.text.extend_from_slice(line);
            members(&self.made, &mut self.ours);
            members(&self.text, &mut self.theirs);
            self.made.pop(); // the brace
            let value = span[0].start as usize;
            let stays = |their: &Range<usize>| if their.contains(&value) { stage.keep_field } else { stage.keep_others };
            self.theirs.retain(|(_, their)| stays(their));
            drop_replaced(&self.text, &mut self.theirs, &self.made, &self.ours);
            for (name, their) in &self.theirs {
                append(&mut self.made, &self.text[name.start..their.end]);
            }
            self.made.push(b'}');
            batch.stand_anew(i, &mut arena, &self.made);
        }
        batch.arena = arena;
    }
}

/// Members of an object, from name to value.
type Members = Vec<(Range<usize>, Range<usize>)>;

/// Takes out of `theirs`, members of `text`, those whose names `ours`, members of `made`, have.
fn drop_replaced(text: &[u8], theirs: &mut Members, made: &[u8], ours: &Members) {
    if theirs.len() * ours.len() <= COMPARED_MAX {
        return theirs.retain(|(name, _)| !ours.iter().any(|(own, _)| made[own.clone()] == text[name.clone()]));
    }
    // Both are of hostile size: each name is looked up, not compared with all.
    let names: HashSet<&[u8]> = ours.iter().map(|(name, _)| &made[name.clone()]).collect();
    theirs.retain(|(name, _)| !names.contains(&text[name.clone()]));
}

/// Appends a member to an object whose closing brace is off.
fn append(object: &mut Vec<u8>, member: &[u8]) {
    if object.last() != Some(&b'{') {
        object.push(b',');
    }
    object.extend_from_slice(member);
}

/// Appends the line as it was, unless a parser made a member of that name.
fn append_original(object: &mut Vec<u8>, key: &[u8], line: &[u8], ours: &mut Members) {
    members(object, ours);
    if ours.iter().any(|(own, _)| object[own.clone()] == key[..key.len() - 1]) {
        return;
    }
    object.pop();
    append(object, key);
    object.push(b'"');
    escape_into(line, object);
    object.extend_from_slice(b"\"}");
}

/// A line that no parser matched.
fn wrap(line: &[u8], is_limit: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"message\":\"");
    escape_into(line, out);
    out.extend_from_slice(if is_limit { b"\",\"parse_error\":\"limit\"}" } else { b"\",\"parse_error\":\"no_match\"}" });
}

/// Drops what no parser matched, where the config says so.
pub(crate) fn drop_refused(batch: &mut Batch) {
    let refused = std::mem::take(&mut batch.refused);
    for (i, _) in refused.iter().enumerate().filter(|(_, refused)| **refused) {
        batch.decide(i, Outcome::Dropped(Reason::Malformed));
        batch.unmetered[i] = true;
    }
    batch.refused = refused;
}
