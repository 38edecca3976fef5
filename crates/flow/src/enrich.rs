//! Writes into each record whose container it came from: a member `kubernetes` in front of the others.
//!
//! In: a decoded batch of one log, and a [`Splice`] made once per log whenever its pod's labels change. Out:
//! the same records as JSON objects, standing behind the chunk in the arena; positions and origin bytes stay
//! those of the line. An object gets the member spliced in; whatever it said under `kubernetes`, or under a
//! key that begins with `kubernetes.`, gives way, as a pod must not name its own labels. Anything else is
//! wrapped, `{"message":"...","kubernetes":{...}}`, or stays as it is where malformed lines are dropped.
//! Bytes that are no UTF-8 travel as they are. Memory: [`OBJECT_BYTES_MAX`] per output of a container; what
//! comes of one chunk stays below [`ENRICHED_BYTES_MAX`] if nobody reads more than [`Splice::chunk_bytes_max`]
//! at once (a longer line alone: escapes make at most six bytes of one).

use crate::batch::{Batch, Payer};
use crate::escape::{escape_byte, escape_into, plain_len, unescape};
use crate::event::Note;
use crate::fields::skip::{skip_blanks, skip_value};
use crate::fields::{FieldSet, Malformed, Scanner};
use crate::kubernetes::{Catalog, Facts, Output, Pairs, Place, TenantRule, Wishes};
use crate::pipeline::Reading;
use memchr::{memchr, memmem};
use std::ops::Range;
use std::sync::Arc;

/// Longest `kubernetes` object, in bytes; labels beyond it, in order of their names, are left out and counted.
pub const OBJECT_BYTES_MAX: usize = 8 << 10;
/// What one chunk may become.
pub const ENRICHED_BYTES_MAX: usize = 16 << 20;
/// The member's name, and how names of the same fields begin.
const NAME: &[u8] = b"kubernetes";
/// What surrounds the object and the text of the shortest record: `{"message":"","":{}}` and the runtime's time.
const AROUND_BYTES: usize = 128;

/// What a source's config says of enrichment.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Labels that go into records; `None`: all.
    pub labels: Option<Vec<String>>,
    /// Annotations that go into records.
    pub annotations: Vec<String>,
    /// Pods may ask with annotations to be left out or to be read as text.
    pub obey: bool,
    pub tenant: TenantRule,
    /// The record's own tenant goes over the pod's.
    pub trust_record: bool,
    /// Lines are text, whatever they look like.
    pub text: bool,
}

/// What the records of one log get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// `"kubernetes":{...}` for each [`Output`].
    members: [Vec<u8>; 3],
    /// The pod should be known, and is not.
    pub missing: bool,
    pub payer: Payer,
    /// By [`Output`]: lines of it are dropped.
    pub exclude: [bool; 3],
    /// Lines are text, whatever they look like.
    pub text: bool,
    /// Labels that [`OBJECT_BYTES_MAX`] left out.
    pub labels_left_out: u64,
    /// The pod asks for something that the config does not allow.
    pub wish_ignored: bool,
}

impl Splice {
    /// `catalog`: what is known of pods; `None` where nobody says anything but the path.
    pub fn new(place: &Place, catalog: Option<&Catalog>, policy: &Policy) -> Splice {
        let pod = catalog.and_then(|catalog| catalog.pod(place));
        let namespace = catalog.and_then(|catalog| catalog.namespace(&place.namespace));
        let missing = catalog.is_some() && pod.is_none();
        let mut labels_left_out = 0;
        let members = Output::ALL.map(|output| {
            let (member, left_out) = member(place, pod, missing, output, policy);
            labels_left_out = left_out;
            member
        });
        let tenant: Option<Arc<[u8]>> = policy.tenant.tenant(&place.namespace, pod, namespace).map(|name| name.as_bytes().into());
        let payer = match (policy.trust_record, tenant) {
            (false, tenant) => Payer::Named(tenant),
            (true, Some(tenant)) => Payer::RecordOr(tenant),
            (true, None) => Payer::Record,
        };
        let asked = pod.map_or(Wishes::default(), |pod| Wishes::read(&pod.annotations, &place.container));
        let wishes = if policy.obey { asked } else { Wishes::default() };
        Splice {
            members,
            missing,
            payer,
            exclude: wishes.exclude,
            text: wishes.text.unwrap_or(policy.text),
            labels_left_out,
            wish_ignored: !policy.obey && !asked.is_empty(),
        }
    }

    /// How much a lane reads of this log at once: however short its lines are, what comes of them fits
    /// [`ENRICHED_BYTES_MAX`]. The shortest line that is a record has a byte and its newline.
    pub fn chunk_bytes_max(&self) -> usize {
        let longest = self.members.iter().map(Vec::len).max().unwrap_or(0);
        ENRICHED_BYTES_MAX / (longest + AROUND_BYTES) * 2
    }
}

/// `"kubernetes":{...}`, and how many labels did not fit.
fn member(place: &Place, pod: Option<&Facts>, missing: bool, output: Output, policy: &Policy) -> (Vec<u8>, u64) {
    let mut out = Vec::new();
    push_string(&mut out, "kubernetes");
    out.extend_from_slice(b":{");
    push_text(&mut out, "namespace", &place.namespace);
    push_text(&mut out, "pod", &place.pod);
    push_text(&mut out, "uid", &place.uid);
    push_text(&mut out, "container", &place.container);
    if let Some(restart) = place.restart {
        out.extend_from_slice(format!(",\"restart\":{restart}").as_bytes());
    }
    push_text(&mut out, "stream", output.name());
    let mut left_out = 0;
    if let Some(pod) = pod {
        push_text(&mut out, "node", &pod.node);
        push_text(&mut out, "ip", &pod.ip);
        let wanted = |name: &str| policy.labels.as_ref().is_none_or(|labels| labels.iter().any(|label| label == name));
        left_out += push_pairs(&mut out, "labels", &pod.labels, &wanted);
        let wanted = |name: &str| policy.annotations.iter().any(|annotation| annotation == name);
        left_out += push_pairs(&mut out, "annotations", &pod.annotations, &wanted);
    }
    if missing {
        push_text(&mut out, "metadata", "missing");
    }
    out.push(b'}');
    (out, left_out)
}

/// `"name":"value"` with a comma in front unless it is the first; nothing for an empty value.
fn push_text(out: &mut Vec<u8>, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    push_name(out, name);
    push_string(out, value);
}

fn push_pairs(out: &mut Vec<u8>, name: &str, pairs: &Pairs, wanted: &dyn Fn(&str) -> bool) -> u64 {
    let mut left_out = 0;
    let mut object = Vec::new();
    for (key, value) in pairs.iter().filter(|(key, _)| wanted(key)) {
        let before = object.len();
        push_name(&mut object, key);
        push_string(&mut object, value);
        if out.len() + object.len() + AROUND_BYTES > OBJECT_BYTES_MAX {
            object.truncate(before);
            left_out += 1;
        }
    }
    if !object.is_empty() {
        push_name(out, name);
        out.push(b'{');
        out.extend_from_slice(&object);
        out.push(b'}');
    }
    left_out
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    if !matches!(out.last(), None | Some(b'{')) {
        out.push(b',');
    }
    push_string(out, name);
    out.push(b':');
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape_into(text.as_bytes(), out);
    out.push(b'"');
}

/// Enriches batches. Holds scratch space; one per thread.
pub struct Enricher {
    scanner: Scanner,
    name: memmem::Finder<'static>,
    /// How an ASCII letter begins that is written as an escape.
    escape: memmem::Finder<'static>,
    kept: Vec<Range<usize>>,
}

impl Default for Enricher {
    fn default() -> Enricher {
        let nothing: [&str; 0] = [];
        Enricher {
            scanner: Scanner::new(Arc::new(FieldSet::new(&nothing))),
            name: memmem::Finder::new(NAME),
            escape: memmem::Finder::new(b"\\u00"),
            kept: Vec::new(),
        }
    }
}

impl Enricher {
    /// Rewrites every record of a batch that was decoded and not processed yet. Returns how to read it now.
    pub fn enrich(&mut self, batch: &mut Batch, splice: &Splice, reading: Reading) -> Reading {
        batch.payer = splice.payer.clone();
        if splice.exclude.contains(&true) {
            batch.left_out.resize(batch.len(), false);
        }
        let mut arena = std::mem::take(&mut batch.arena);
        for i in 0..batch.len() {
            let (start, end) = (batch.start[i] as usize, batch.end[i] as usize);
            let prefix = start - batch.prefix[i] as usize..start;
            let output = output(&arena[prefix.clone()]);
            if splice.exclude[output as usize] {
                batch.left_out[i] = true;
                continue;
            }
            if splice.missing {
                batch.note(i, Note::MetadataMissing);
            }
            let is_object = !splice.text && {
                let malformed = self.scanner.scan(&arena[start..end], &mut []).malformed;
                match malformed {
                    None => {}
                    Some(Malformed::NotJson) => batch.note(i, Note::NotJson),
                    Some(Malformed::TooDeep) => batch.note(i, Note::TooDeep),
                }
                malformed.is_none()
            };
            if !is_object && !splice.text && reading.drop_malformed {
                continue;
            }
            arena.extend_from_within(prefix);
            let from = arena.len();
            let member = &splice.members[output as usize];
            if is_object {
                self.splice(&mut arena, start..end, member)
            } else {
                wrap(&mut arena, start..end, member)
            }
            batch.start[i] = from as u32;
            batch.end[i] = arena.len() as u32;
        }
        batch.arena = arena;
        Reading { json: true, ..reading }
    }

    /// Appends the object that stands at `record`, with the member in front.
    fn splice(&mut self, arena: &mut Vec<u8>, record: Range<usize>, member: &[u8]) {
        let line = &arena[record.clone()];
        let open = memchr(b'{', line).expect("the scanner found an object");
        if self.name.find(line).is_some() || self.escape.find(line).is_some() {
            find_others(line, open, &mut self.kept);
            arena.push(b'{');
            arena.extend_from_slice(member);
            for kept in &self.kept {
                arena.push(b',');
                arena.extend_from_within(record.start + kept.start..record.start + kept.end);
            }
            return arena.push(b'}');
        }
        let is_empty = line[open + 1..].iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'}');
        arena.push(b'{');
        arena.extend_from_slice(member);
        if !is_empty {
            arena.push(b',');
        }
        arena.extend_from_within(record.start + open + 1..record.end);
    }
}

/// Appends `{"message":"...","kubernetes":{...}}`.
fn wrap(arena: &mut Vec<u8>, record: Range<usize>, member: &[u8]) {
    arena.reserve(record.len() + member.len() + AROUND_BYTES);
    arena.extend_from_slice(b"{\"message\":\"");
    let mut at = record.start;
    loop {
        let plain = plain_len(&arena[at..record.end]);
        arena.extend_from_within(at..at + plain);
        at += plain;
        if at == record.end {
            break;
        }
        escape_byte(arena[at], arena);
        at += 1;
    }
    arena.extend_from_slice(b"\",");
    arena.extend_from_slice(member);
    arena.push(b'}');
}

/// Which output a record came from: the runtime's prefix is `TIME STREAM ...`, also that of a joined record.
#[inline]
fn output(prefix: &[u8]) -> Output {
    let Some(time) = memchr(b' ', prefix) else { return Output::Unknown };
    match prefix.get(time + 1..time + 8) {
        Some(b"stdout ") => Output::Stdout,
        Some(b"stderr ") => Output::Stderr,
        _ => Output::Unknown,
    }
}

/// The members of an object, from key to value, that say nothing of `kubernetes`. `line` is known to be one
/// well-formed object that opens at `open`.
fn find_others(line: &[u8], open: usize, kept: &mut Vec<Range<usize>>) {
    kept.clear();
    let mut at = skip_blanks(line, open + 1);
    while line.get(at) == Some(&b'"') {
        let start = at;
        let key_end = skip_value(line, at);
        at = skip_blanks(line, key_end);
        at = skip_blanks(line, at + 1); // the colon
        at = skip_value(line, at);
        let key = &line[start + 1..key_end - 1];
        if !is_ours(key) {
            kept.push(start..at);
        }
        at = skip_blanks(line, at);
        if line.get(at) != Some(&b',') {
            break;
        }
        at = skip_blanks(line, at + 1);
    }
}

/// `kubernetes`, or `kubernetes.` and more: one field under two spellings.
fn is_ours(key: &[u8]) -> bool {
    let mut key = unescape(key);
    NAME.iter().all(|byte| key.next() == Some(*byte)) && matches!(key.next(), None | Some(b'.'))
}

#[cfg(test)]
mod tests;
