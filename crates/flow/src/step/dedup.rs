//! Drops copies: records that say what an earlier one said, sent twice or mirrored. The first wins (EB 10.6).
//!
//! Reads tenant, time, spans and, where nothing else names a record, its members. Writes verdicts (`duplicate`, `conflict`),
//! notes, who was first (`Batch::copies`) and what goes into the frame of the record (`Batch::changes`). A *fingerprint* is a
//! SHA-256 over the tenant and the first of these that the record has: all fields of `key`; the request (host, method, path,
//! body, idempotency key); all its members in any order. A record without own time that is named by its members alone is
//! never a copy. Memory: [`super::seen`], `keys_max` entries; what is forgotten first, and what that means, stands there.
//!
//! No record is a copy of itself: an entry travels in the frame of the record that made it, so that after a crash a record
//! is decided anew only if its entry is gone too; and an entry knows the stream and position of its record.

use super::members;
use super::seen::{Match, Place, Print, Seen, Sight};
use crate::batch::Batch;
use crate::event::{Note, Outcome, Reason, ReasonClass};
use crate::fields::{Kind, Span};
use crate::tenancy::Tenants;
use crate::units::UnixNanos;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::Arc;

pub struct Dedup {
    /// The plan's name for this step, under which its state is kept.
    pub id: u32,
    /// Fields that together name a record; empty: none.
    pub key: Vec<usize>,
    pub request: Request,
    /// Fields whose values must be the same in a copy; `None`: those of the request but the host.
    pub content: Option<Vec<usize>>,
    pub window_ns: i64,
    pub by_arrival: bool,
    pub mirror: Mirror,
    /// Equal requests that name no id are copies only if exactly one of both is mirrored.
    pub honest_repeats: bool,
    pub drop_conflicts: bool,
    /// Meters count what this step drops, and conflicts.
    pub metered_anyway: bool,
    pub tenants: Arc<Tenants>,
    pub seen: Arc<Seen>,
}

/// Candidates for each part of a request; the first that a record has counts.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub host: Vec<usize>,
    pub method: Vec<usize>,
    pub path: Vec<usize>,
    pub body: Vec<usize>,
    pub idempotency: Vec<usize>,
}

/// How a mirrored copy is told.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// Ends the first label of a copy's host, as in `pay-shadow`.
    pub suffix: Vec<u8>,
    /// Present and neither false, 0 nor empty in a copy.
    pub marker: Option<usize>,
    /// Names of the fields that only the way of a copy explains: no part of what it says.
    pub aside: Vec<String>,
}

/// What names the record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Key,
    Request { idempotent: bool },
    Whole,
}

/// Space that records of a batch share.
#[derive(Default)]
struct Scratch {
    members: Vec<(Range<usize>, Range<usize>)>,
    path: Vec<u8>,
    tenant: Option<(u32, Arc<[u8]>)>,
}

impl Dedup {
    pub fn apply(&self, batch: &mut Batch, now: UnixNanos) {
        let mut changes = std::mem::take(&mut batch.changes);
        changes.extend(self.seen.take_owed().into_iter().map(|entry| (self.id, entry)));
        let mut scratch = Scratch::default();
        for i in 0..batch.len() {
            if matches!(batch.outcome[i], Outcome::Dropped(reason) if reason.class() == ReasonClass::NotOurs) {
                continue;
            }
            let Some((print, named)) = self.print(batch, i, &mut scratch) else { continue };
            let time = if self.by_arrival { now } else { batch.time[i] };
            let place = Place { stream: batch.stream.0, position: batch.position[i], millis: time.0.div_euclid(1_000_000) };
            let unsure = named == Named::Request { idempotent: false };
            let rule = Match { window_millis: self.window_ns / 1_000_000, mirrored_only: unsure && self.honest_repeats };
            match self.seen.check(print, place, rule, &mut |entry| changes.push((self.id, entry))) {
                Sight::New => {}
                Sight::Copy { first } => self.drop(batch, i, Reason::Duplicate, first),
                Sight::Conflict { first } if self.drop_conflicts => self.drop(batch, i, Reason::Conflict, first),
                Sight::Conflict { first } => {
                    batch.note(i, Note::Conflict);
                    batch.unmetered[i] |= !self.metered_anyway;
                    batch.copies.push((i as u32, crate::event::StreamId(first.0), first.1));
                }
            }
        }
        batch.changes = changes;
    }

    pub fn restore(&self, entries: &[u8]) {
        self.seen.restore(entries);
    }

    fn drop(&self, batch: &mut Batch, i: usize, reason: Reason, first: (u64, u64)) {
        if self.metered_anyway {
            batch.metered_anyway[i] |= batch.outcome[i] == Outcome::Kept;
        } else {
            batch.unmetered[i] = true;
        }
        batch.decide(i, Outcome::Dropped(reason));
        batch.copies.push((i as u32, crate::event::StreamId(first.0), first.1));
    }

    fn print(&self, batch: &Batch, i: usize, scratch: &mut Scratch) -> Option<(Print, Named)> {
        let record = batch.record(i);
        let spans = batch.record_spans(i);
        let first = |candidates: &[usize]| batch.first_present(i, candidates);
        let host = first(&self.request.host).map(|span| text(span, record));
        let (host, shadow) = host.as_deref().map_or((None, false), |host| {
            let (host, shadow) = without_suffix(host, &self.mirror.suffix);
            (Some(host), shadow)
        });
        let marked = self.mirror.marker.is_some_and(|field| is_set(spans[field], record));
        let mut hash = Sha256::new();
        let tenant = batch.tenant[i];
        let (_, name) = match &scratch.tenant {
            Some(last) if last.0 == tenant => last,
            _ => scratch.tenant.insert((tenant, self.tenants.name(tenant))),
        };
        part(&mut hash, Some(name));
        let request = &self.request;
        let has_key = !self.key.is_empty() && self.key.iter().all(|field| !matches!(spans[*field].kind, Kind::Missing | Kind::Null));
        let named = if has_key {
            hash.update([1]);
            for field in &self.key {
                part(&mut hash, Some(&text(spans[*field], record)));
            }
            Named::Key
        } else if let Some(path) = first(&request.path) {
            hash.update([2]);
            part(&mut hash, host.as_deref());
            canonical_path(&text(path, record), &mut scratch.path);
            part(&mut hash, Some(&scratch.path));
            for candidates in [&request.method, &request.body, &request.idempotency] {
                part(&mut hash, first(candidates).map(|span| text(span, record)).as_deref());
            }
            Named::Request { idempotent: first(&request.idempotency).is_some() }
        } else if batch.is_json && batch.notes[i] & (Note::ArrivalTime.bit() | Note::NotJson.bit() | Note::TooDeep.bit()) == 0 {
            hash.update([3]);
            part(&mut hash, host.as_deref());
            members::members(record, &mut scratch.members);
            let key = |range: &Range<usize>| &record[range.start + 1..range.end - 1];
            scratch.members.retain(|(range, _)| !self.mirror.aside.iter().any(|name| name.as_bytes() == key(range)));
            scratch.members.sort_unstable_by(|a, b| key(&a.0).cmp(key(&b.0)).then(a.0.start.cmp(&b.0.start)));
            for (range, value) in &scratch.members {
                part(&mut hash, Some(key(range)));
                part(&mut hash, Some(&record[value.clone()]));
            }
            Named::Whole
        } else {
            return None;
        };
        let digest = hash.finalize();
        let print = Print {
            // Keys with the top bit are those of debts and quotas.
            key: u64::from_le_bytes(digest[..8].try_into().expect("8 of 32 bytes")) >> 1,
            check: u16::from_le_bytes([digest[8], digest[9]]),
            content: if named == Named::Key { self.content(batch, i, scratch) } else { self.chosen_content(batch, i) },
            mirrored: marked || shadow,
        };
        Some((print, named))
    }

    /// What a record with a key says.
    fn content(&self, batch: &Batch, i: usize, scratch: &mut Scratch) -> u32 {
        if self.content.is_some() {
            return self.chosen_content(batch, i);
        }
        let record = batch.record(i);
        let mut hash = Sha256::new();
        let path = batch.first_present(i, &self.request.path);
        if let Some(path) = path {
            canonical_path(&text(path, record), &mut scratch.path);
        }
        part(&mut hash, path.map(|_| scratch.path.as_slice()));
        for candidates in [&self.request.method, &self.request.body, &self.request.idempotency] {
            part(&mut hash, batch.first_present(i, candidates).map(|span| text(span, record)).as_deref());
        }
        short(hash)
    }

    fn chosen_content(&self, batch: &Batch, i: usize) -> u32 {
        let Some(fields) = &self.content else { return 0 };
        let mut hash = Sha256::new();
        for field in fields {
            let span = batch.record_spans(i)[*field];
            let there = !matches!(span.kind, Kind::Missing | Kind::Null);
            part(&mut hash, there.then(|| text(span, batch.record(i))).as_deref());
        }
        short(hash)
    }
}

fn short(hash: Sha256) -> u32 {
    let digest = hash.finalize();
    u32::from_le_bytes([digest[0], digest[1], digest[2], 0])
}

/// Lengths first, so that no two lists of parts read the same; a missing part is no empty one.
fn part(hash: &mut Sha256, bytes: Option<&[u8]>) {
    match bytes {
        None => hash.update(u32::MAX.to_le_bytes()),
        Some(bytes) => {
            hash.update((bytes.len() as u32).to_le_bytes());
            hash.update(bytes);
        }
    }
}

fn text<'a>(span: Span, record: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
    span.text(record).unwrap_or_default()
}

fn is_set(span: Span, record: &[u8]) -> bool {
    let unset: [&[u8]; 4] = [b"", b"0", b"false", b"no"];
    match span.kind {
        Kind::Missing | Kind::Null | Kind::False => false,
        _ => !unset.contains(&span.raw(record)),
    }
}

/// A host in lower case without the suffix of its first label, and whether it had one: `Pay-shadow:80` is `pay:80`.
fn without_suffix(host: &[u8], suffix: &[u8]) -> (Vec<u8>, bool) {
    let mut host = host.to_ascii_lowercase();
    let label = host.iter().position(|b| matches!(b, b'.' | b':')).unwrap_or(host.len());
    let shadow = !suffix.is_empty() && label > suffix.len() && host[..label].ends_with(suffix);
    if shadow {
        host.drain(label - suffix.len()..label);
    }
    (host, shadow)
}

/// Path and query in one spelling: no scheme and host, no fragment, dots resolved, needless percent signs gone, parameters sorted.
fn canonical_path(text: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let text = text.split(|b| *b == b'#').next().unwrap_or_default();
    let text = match memchr::memmem::find(text, b"://") {
        Some(at) if text[..at].iter().all(u8::is_ascii_alphanumeric) => {
            let rest = &text[at + 3..];
            &rest[rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len())..]
        }
        _ => text,
    };
    let (path, query) = match memchr::memchr(b'?', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, [].as_slice()),
    };
    let mut path_spelled = Vec::with_capacity(path.len());
    spell(path, &mut path_spelled);
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut folder = false;
    for segment in path_spelled.split(|b| *b == b'/').skip(usize::from(path_spelled.first() == Some(&b'/'))) {
        folder = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    for segment in &segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if folder || out.is_empty() {
        out.push(b'/');
    }
    let mut parameters: Vec<Vec<u8>> = Vec::new();
    for parameter in query.split(|b| *b == b'&').filter(|p| !p.is_empty()) {
        let mut spelled = Vec::with_capacity(parameter.len());
        spell(parameter, &mut spelled);
        parameters.push(spelled);
    }
    parameters.sort_unstable();
    for (n, parameter) in parameters.iter().enumerate() {
        out.push(if n == 0 { b'?' } else { b'&' });
        out.extend_from_slice(parameter);
    }
}

/// RFC 3986, 6.2.2: what need not be escaped is not, and hexadecimal digits are upper case.
fn spell(text: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < text.len() {
        let digit = |n: usize| text.get(at + n).and_then(|b| char::from(*b).to_digit(16));
        match (text[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                let byte = (high << 4 | low) as u8;
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(byte);
                } else {
                    out.push(b'%');
                    out.extend(text[at + 1..at + 3].iter().map(u8::to_ascii_uppercase));
                }
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
