//! Shaping: fields are kept, removed, renamed, set and cut.
//!
//! In: kept records that are JSON objects. Out: changed records stand behind the others in the arena, as with `redact`; one
//! that this step does not change stays its own bytes. In one step: `keep` and `remove`, then `rename`, then `set`; what is
//! longer than `truncate` allows is cut at the border of a character and noted as `truncated`. A field that is set from what has
//! no value in a record stays as it was; where an expression has none, the record is noted as `not_set`. Meters read records as
//! they were received. Memory: what changed of a batch.

use super::members::{self, Fate, Visit};
use super::redact::{Editor, is_object};
use crate::batch::Batch;
use crate::condition::Expression;
use crate::escape::{escape_into, unescape_into};
use crate::event::{Note, Outcome};
use crate::fields::{Kind, Span};

/// What a new field holds.
pub enum Value {
    /// JSON text.
    Constant(Vec<u8>),
    /// The value of a field, as it stands in the record that came into this step; none, and nothing is set.
    Field(usize),
    /// The value of a label: of the request if it has one, else of the source and the process, by source; none, and nothing is set.
    Label { request: Option<usize>, of_source: Vec<Option<Vec<u8>>> },
    /// What is computed from the record that came into this step; none, and nothing is set.
    Expression(Box<Expression>),
}

#[derive(Default)]
pub struct Shape {
    /// Paths that stay; empty: all.
    pub keep: Vec<Vec<u8>>,
    pub remove: Vec<(usize, Vec<u8>)>,
    /// Field, its path, and its new key.
    pub rename: Vec<(usize, Vec<u8>, Vec<u8>)>,
    pub set: Vec<(Vec<u8>, Value)>,
    /// Longest text, in bytes, and the paths it is for; empty: all.
    pub truncate: Option<(usize, Vec<Vec<u8>>)>,
}

impl Shape {
    pub fn apply(&self, batch: &mut Batch, editor: &mut Editor) {
        for i in 0..batch.len() {
            if batch.outcome[i] != Outcome::Kept || !is_object(batch, i) || !self.may_touch(batch, i) {
                continue;
            }
            let record = editor.take(batch, i);
            let from = batch.arena.len();
            let spans = batch.spans[i * batch.fields..(i + 1) * batch.fields].to_vec();
            // Values first: a field whose new value there is not stays.
            let (mut values, mut ends) = (std::mem::take(&mut editor.values), std::mem::take(&mut editor.ends));
            values.clear();
            ends.clear();
            for (_, value) in &self.set {
                let is_there = value.write(batch, i, &record, &spans, &mut values);
                if !is_there && matches!(value, Value::Expression(_)) {
                    batch.note(i, Note::NotSet);
                }
                ends.push(is_there.then_some(values.len()));
            }
            let mut visit = Shaper { shape: self, spans: &spans, set: &ends, changed: false, truncated: false, text: Vec::new() };
            members::rewrite(&record, &mut visit, &mut batch.arena);
            let (mut changed, truncated) = (visit.changed, visit.truncated);
            let mut start = 0;
            for ((name, _), end) in self.set.iter().zip(&ends) {
                let Some(end) = *end else { continue };
                changed = true;
                batch.arena.pop(); // the closing brace
                if batch.arena.last() != Some(&b'{') || batch.arena.len() > from + 1 {
                    batch.arena.push(b',');
                }
                write_string(name, &mut batch.arena);
                batch.arena.push(b':');
                batch.arena.extend_from_slice(&values[start..end]);
                batch.arena.push(b'}');
                start = end;
            }
            (editor.values, editor.ends) = (values, ends);
            if truncated {
                batch.note(i, Note::Truncated);
            }
            editor.settle(batch, i, from, changed, record);
        }
    }

    fn may_touch(&self, batch: &Batch, i: usize) -> bool {
        let spans = batch.record_spans(i);
        let twice = Note::DuplicateKey.bit() | Note::DuplicateMetered.bit() | Note::DuplicateTenant.bit();
        let named = self.remove.iter().map(|r| r.0).chain(self.rename.iter().map(|r| r.0));
        let long = self.truncate.as_ref().is_some_and(|(bytes_max, _)| batch.record(i).len() > *bytes_max);
        !self.keep.is_empty()
            || !self.set.is_empty()
            || long
            || batch.notes[i] & twice != 0
            || named.into_iter().any(|field| spans[field].kind != Kind::Missing)
    }
}

impl Value {
    /// Appends the value for one record, as JSON; `false`, and nothing appended, where it has none.
    fn write(&self, batch: &Batch, i: usize, record: &[u8], spans: &[Span], out: &mut Vec<u8>) -> bool {
        match self {
            Value::Constant(json) => out.extend_from_slice(json),
            Value::Field(field) if spans[*field].kind == Kind::Missing => return false,
            Value::Field(field) => write_value(spans[*field], record, out),
            Value::Label { request, of_source } => {
                let of_request = request.map_or("", |label| batch.labels.text(i, label));
                match of_source.get(usize::from(batch.source)) {
                    _ if !of_request.is_empty() => write_string(of_request.as_bytes(), out),
                    Some(Some(json)) => out.extend_from_slice(json),
                    _ => return false,
                }
            }
            Value::Expression(expression) => return expression.write(record, spans, out),
        }
        true
    }
}

fn write_value(span: Span, record: &[u8], out: &mut Vec<u8>) {
    let quoted = matches!(span.kind, Kind::Text | Kind::Escaped);
    out.extend_from_slice(if quoted { b"\"" } else { b"" });
    out.extend_from_slice(span.raw(record));
    out.extend_from_slice(if quoted { b"\"" } else { b"" });
}

fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escape_into(text, out);
    out.push(b'"');
}

/// The field itself, or within it.
fn within(path: &[u8], field: &[u8]) -> bool {
    path.strip_prefix(field).is_some_and(|rest| rest.first().is_none_or(|b| *b == b'.'))
}

struct Shaper<'a> {
    shape: &'a Shape,
    spans: &'a [Span],
    /// Where the values end that are set; `None`: there is none.
    set: &'a [Option<usize>],
    changed: bool,
    truncated: bool,
    text: Vec<u8>,
}

impl Visit for Shaper<'_> {
    fn member(&mut self, path: &[u8], _key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Fate {
        let shape = self.shape;
        let around = |keep: &Vec<u8>| within(keep, path) && value.first() == Some(&b'{');
        let stays = shape.keep.is_empty() || shape.keep.iter().any(|keep| within(path, keep) || around(keep));
        let goes = shape.remove.iter().any(|(_, field)| field == path);
        let is_set = shape.set.iter().zip(self.set).any(|((name, _), end)| name == path && end.is_some());
        // What is renamed replaces what had the name.
        let parent = path.len() - path.rsplit(|b| *b == b'.').next().map_or(0, <[u8]>::len);
        let replaced = shape.rename.iter().any(|(field, from, to)| {
            let beside = from.len() - from.rsplit(|b| *b == b'.').next().map_or(0, <[u8]>::len);
            let same_place = from[..beside] == path[..parent] && to == &path[parent..];
            same_place && from != path && self.spans[*field].kind != Kind::Missing
        });
        if !stays || goes || is_set || replaced {
            self.changed = true;
            return Fate::Drop;
        }
        if let Some((_, _, to)) = shape.rename.iter().find(|(_, from, _)| from == path) {
            self.changed = true;
            write_string(to, out);
            return Fate::Renamed;
        }
        Fate::Keep
    }

    fn scalar(&mut self, path: &[u8], token: &[u8], out: &mut Vec<u8>) -> Fate {
        let Some((bytes_max, fields)) = &self.shape.truncate else { return Fate::Keep };
        let chosen = fields.is_empty() || fields.iter().any(|field| within(path, field));
        if !chosen || token.first() != Some(&b'"') || token.len() - 2 <= *bytes_max {
            return Fate::Keep;
        }
        self.text.clear();
        unescape_into(&token[1..token.len() - 1], &mut self.text);
        if self.text.len() <= *bytes_max {
            return Fate::Keep;
        }
        let mut end = *bytes_max;
        while end > 0 && self.text[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        write_string(&self.text[..end], out);
        (self.changed, self.truncated) = (true, true);
        Fate::Written
    }
}
