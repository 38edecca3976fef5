//! Redaction: what nobody may read is masked, hashed with a key, or dropped with its field. And the keeper of changed records.
//!
//! In: kept records of a batch. Out: changed records stand behind the others in the arena, with spans of their own; all others
//! stay their own bytes, and so do position and origin bytes. Values of strings are read as they are meant, escapes decoded,
//! and numbers as they are written; keys are never touched. A record that is no JSON is one text. Meters read records as they
//! were received: redaction does not change an invoice (`Editor::originals`).
//!
//! Speed: one pattern made of all of them, without anchors, looks at the whole record first. Memory: what changed of a batch.

use super::detect::{Detect, Detector};
use super::members::{self, Fate, Visit};
use crate::batch::Batch;
use crate::escape::{escape_into, unescape_into};
use crate::event::{Note, Outcome};
use crate::fields::{FieldSet, Kind, Scanner, Span};
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::Arc;

/// Largest compiled pattern, in bytes: a pattern that explodes is refused.
pub const PATTERN_BYTES_MAX: usize = 1 << 20;
/// A mask beside its neighbours can make a new match; after so many rounds the whole value is masked.
const ROUNDS_MAX: usize = 4;

pub enum Action {
    /// What is found is replaced by this text.
    Mask(Vec<u8>),
    /// What is found is replaced by 32 hexadecimal digits of its HMAC-SHA-256.
    Hash(HashKey),
    /// The field goes in which something is found.
    Drop,
}

/// A secret: never shown.
pub struct HashKey(Vec<u8>);

pub struct Redact {
    /// Where to look: number and path; empty: everywhere.
    fields: Vec<(usize, Vec<u8>)>,
    patterns: Vec<Regex>,
    detectors: Vec<Detector>,
    /// Matches wherever one of the above does; `None`: whole values are redacted.
    hint: Option<Regex>,
    action: Action,
}

/// One pattern, checked. An error says what is wrong and at which byte.
pub fn pattern(source: &str) -> Result<Regex, (usize, String)> {
    if let Err(error) = parse(source) {
        let (at, what) = match &*error {
            regex_syntax::Error::Parse(e) => (e.span().start.offset, e.kind().to_string()),
            regex_syntax::Error::Translate(e) => (e.span().start.offset, e.kind().to_string()),
            other => (0, other.to_string().lines().last().unwrap_or_default().to_string()),
        };
        return Err((at, what));
    }
    let built = RegexBuilder::new(source).size_limit(PATTERN_BYTES_MAX).build();
    let regex = built.map_err(|_| (0, format!("it grows beyond {} KiB when it is compiled", PATTERN_BYTES_MAX >> 10)))?;
    if regex.is_match(b"") {
        return Err((0, "it matches where nothing stands".into()));
    }
    Ok(regex)
}

fn parse(source: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    Ok(regex_syntax::ParserBuilder::new().utf8(false).build().parse(source)?)
}

/// The same pattern without anchors and word borders: it matches wherever the other does, in whatever surroundings.
fn relaxed(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Look(_) => Hir::empty(),
        HirKind::Repetition(repetition) => {
            let mut repetition = repetition.clone();
            repetition.sub = Box::new(relaxed(&repetition.sub));
            Hir::repetition(repetition)
        }
        HirKind::Capture(capture) => relaxed(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(relaxed).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(relaxed).collect()),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) => hir.clone(),
    }
}

impl Redact {
    /// `fields`: number and path of each; with neither patterns nor detectors their whole values are redacted.
    pub fn new(fields: Vec<(usize, Vec<u8>)>, patterns: &[String], detect: &[Detect], action: Action) -> Result<Redact, String> {
        let compiled = patterns.iter().map(|source| pattern(source).map_err(|e| format!("pattern {source:?}: {}", e.1)));
        let compiled = compiled.collect::<Result<Vec<_>, _>>()?;
        let mut hints: Vec<String> = detect.iter().map(|what| format!("(?:{})", Detector::hint(*what))).collect();
        for source in patterns {
            hints.push(format!("(?:{})", relaxed(&parse(source).map_err(|e| e.to_string())?)));
        }
        let limit = PATTERN_BYTES_MAX * (hints.len() + 1);
        let build = || RegexBuilder::new(&hints.join("|")).size_limit(limit).dfa_size_limit(8 << 20).build();
        let hint = if hints.is_empty() { None } else { Some(build().map_err(|e| e.to_string())?) };
        let detectors = detect.iter().map(|what| Detector::new(*what)).collect();
        Ok(Redact { fields, patterns: compiled, detectors, hint, action })
    }

    pub fn apply(&self, batch: &mut Batch, editor: &mut Editor) {
        for i in 0..batch.len() {
            if batch.outcome[i] != Outcome::Kept {
                continue;
            }
            let is_json = is_object(batch, i);
            if !self.may_touch(batch, i, is_json, &mut editor.plain) {
                continue;
            }
            let record = editor.take(batch, i);
            let from = batch.arena.len();
            let mut visit = Masker { redact: self, changed: false, text: Vec::new(), found: Vec::new() };
            if is_json {
                members::rewrite(&record, &mut visit, &mut batch.arena);
            } else {
                visit.text.extend_from_slice(&record);
                visit.changed = self.redact_text(&mut visit.text, &mut visit.found);
                batch.arena.extend_from_slice(&visit.text);
            }
            let changed = visit.changed;
            editor.settle(batch, i, from, changed, record);
        }
    }

    /// Whether anything in the record can match: fast, and wrong on one side only.
    fn may_touch(&self, batch: &Batch, i: usize, is_json: bool, plain: &mut Vec<u8>) -> bool {
        let record = batch.record(i);
        if !self.fields.is_empty() && is_json {
            let spans = batch.record_spans(i);
            let twice = Note::DuplicateKey.bit() | Note::DuplicateMetered.bit() | Note::DuplicateTenant.bit();
            if batch.notes[i] & twice == 0 && self.fields.iter().all(|(field, _)| spans[*field].kind == Kind::Missing) {
                return false;
            }
        }
        let Some(hint) = &self.hint else { return is_json };
        if !is_json || memchr::memchr(b'\\', record).is_none() {
            return hint.is_match(record);
        }
        // Decoded as a whole: every value stands in it as it is meant.
        plain.clear();
        unescape_into(record, plain);
        hint.is_match(plain)
    }

    fn chosen(&self, path: &[u8]) -> bool {
        let below = |field: &[u8]| path.strip_prefix(field).is_some_and(|rest| rest.first().is_none_or(|b| *b == b'.'));
        self.fields.is_empty() || self.fields.iter().any(|(_, field)| below(field))
    }

    fn find(&self, text: &[u8], found: &mut Vec<Range<usize>>) {
        found.clear();
        for pattern in &self.patterns {
            found.extend(pattern.find_iter(text).map(|m| m.range()).filter(|range| !range.is_empty()));
        }
        for detector in &self.detectors {
            detector.find(text, found);
        }
        found.sort_unstable_by_key(|range| (range.start, range.end));
        found.dedup_by(|next, last| {
            let meet = next.start < last.end;
            if meet {
                last.end = last.end.max(next.end);
            }
            meet
        });
    }

    /// Replaces what is found in `text`; whether anything was.
    fn redact_text(&self, text: &mut Vec<u8>, found: &mut Vec<Range<usize>>) -> bool {
        self.find(text, found);
        if found.is_empty() {
            return false;
        }
        let rounds = if matches!(self.action, Action::Hash(_)) { 1 } else { ROUNDS_MAX };
        for _ in 0..rounds {
            let mut out = Vec::with_capacity(text.len());
            let mut at = 0;
            for range in found.iter() {
                out.extend_from_slice(&text[at..range.start]);
                self.stand_in(&text[range.clone()], &mut out);
                at = range.end;
            }
            out.extend_from_slice(&text[at..]);
            *text = out;
            self.find(text, found);
            if found.is_empty() {
                return true;
            }
        }
        if rounds > 1 {
            text.clear();
            self.stand_in(&[], text);
        }
        true
    }

    fn stand_in(&self, secret: &[u8], out: &mut Vec<u8>) {
        match &self.action {
            Action::Mask(mask) => out.extend_from_slice(mask),
            Action::Hash(key) => key.hash(secret, out),
            Action::Drop => out.extend_from_slice(b"***"), // a text has no fields
        }
    }
}

impl HashKey {
    pub fn new(secret: Vec<u8>) -> HashKey {
        HashKey(if secret.len() > 64 { Sha256::digest(&secret).to_vec() } else { secret })
    }

    /// Appends the first 16 bytes of HMAC-SHA-256 (RFC 2104), as hexadecimal digits.
    fn hash(&self, text: &[u8], out: &mut Vec<u8>) {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(&self.0).for_each(|(to, from)| *to ^= from);
            block
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
        let digest = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
        for byte in &digest[..16] {
            out.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
    }
}

struct Masker<'a> {
    redact: &'a Redact,
    changed: bool,
    text: Vec<u8>,
    found: Vec<Range<usize>>,
}

impl Masker<'_> {
    fn write_text(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        escape_into(&self.text, out);
        out.push(b'"');
    }
}

impl Visit for Masker<'_> {
    fn member(&mut self, path: &[u8], key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Fate {
        let redact = self.redact;
        if redact.hint.is_some() || !redact.chosen(path) {
            return Fate::Keep;
        }
        self.changed = true;
        if matches!(redact.action, Action::Drop) {
            return Fate::Drop;
        }
        self.text.clear();
        match value.first() {
            Some(b'"') => unescape_into(&value[1..value.len() - 1], &mut self.text),
            _ => self.text.extend_from_slice(value),
        }
        let secret = std::mem::take(&mut self.text);
        redact.stand_in(&secret, &mut self.text);
        out.extend_from_slice(key);
        out.push(b':');
        self.write_text(out);
        Fate::Written
    }

    fn scalar(&mut self, path: &[u8], token: &[u8], out: &mut Vec<u8>) -> Fate {
        let redact = self.redact;
        if redact.hint.is_none() || !redact.chosen(path) || matches!(token.first(), Some(b't' | b'f' | b'n') | None) {
            return Fate::Keep;
        }
        self.text.clear();
        match token.first() {
            Some(b'"') => unescape_into(&token[1..token.len() - 1], &mut self.text),
            _ => self.text.extend_from_slice(token),
        }
        let mut text = std::mem::take(&mut self.text);
        let changed = redact.redact_text(&mut text, &mut self.found);
        self.text = text;
        if !changed {
            return Fate::Keep;
        }
        self.changed = true;
        if matches!(redact.action, Action::Drop) {
            return Fate::Drop;
        }
        self.write_text(out);
        Fate::Written
    }
}

/// Whether record `i` is one well-formed object.
pub fn is_object(batch: &Batch, i: usize) -> bool {
    batch.is_json && batch.notes[i] & (Note::NotJson.bit() | Note::TooDeep.bit()) == 0
}

/// Keeps what changed records were, so that meters read them as received; finds their fields again. One per lane.
pub struct Editor {
    scanner: Scanner,
    /// Per record: it is among `originals`.
    changed: Vec<bool>,
    /// Record, start, end; its spans are in `spans`, in the same order.
    originals: Vec<(usize, u32, u32)>,
    spans: Vec<Span>,
    record: Vec<u8>,
    plain: Vec<u8>,
    /// Values that a `shape` step sets in a record, and where each ends.
    pub(super) values: Vec<u8>,
    pub(super) ends: Vec<Option<usize>>,
}

impl Editor {
    pub fn new(fields: Arc<FieldSet>) -> Editor {
        let scanner = Scanner::new(fields);
        Editor {
            scanner,
            changed: Vec::new(),
            originals: Vec::new(),
            spans: Vec::new(),
            record: Vec::new(),
            plain: Vec::new(),
            values: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// A new batch.
    pub fn begin(&mut self) {
        self.changed.clear();
        self.originals.clear();
        self.spans.clear();
    }

    /// The bytes of record `i`, to write it anew at the end of the arena.
    pub(super) fn take(&mut self, batch: &Batch, i: usize) -> Vec<u8> {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        record.extend_from_slice(batch.record(i));
        record
    }

    /// What stands in the arena from `from` on is record `i` now, if it `changed`; else it goes.
    pub(super) fn settle(&mut self, batch: &mut Batch, i: usize, from: usize, changed: bool, record: Vec<u8>) {
        self.record = record;
        if !changed {
            return batch.arena.truncate(from);
        }
        self.changed.resize(batch.len(), false);
        if !std::mem::replace(&mut self.changed[i], true) {
            self.originals.push((i, batch.start[i], batch.end[i]));
            self.spans.extend_from_slice(batch.record_spans(i));
        }
        (batch.start[i], batch.end[i], batch.prefix[i]) = (from as u32, batch.arena.len() as u32, 0);
        let fields = batch.fields;
        let (start, end) = (from, batch.arena.len());
        if batch.is_json {
            self.scanner.scan_in(&batch.arena, start, end, &mut batch.spans[i * fields..(i + 1) * fields]);
        }
    }

    /// Puts the records as received in place of the changed ones, or back again.
    pub fn swap_originals(&mut self, batch: &mut Batch) {
        let fields = batch.fields;
        for (n, (i, start, end)) in self.originals.iter_mut().enumerate() {
            std::mem::swap(start, &mut batch.start[*i]);
            std::mem::swap(end, &mut batch.end[*i]);
            batch.spans[*i * fields..(*i + 1) * fields].swap_with_slice(&mut self.spans[n * fields..(n + 1) * fields]);
        }
    }
}

#[cfg(test)]
mod tests;
