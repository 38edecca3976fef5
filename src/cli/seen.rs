//! `weir check --sample LINES`: fields that a pipeline reads and that no line of a sample has.
//!
//! In: a pipeline without mistakes, and lines as its first source would read them. Out: a warning for each such field, with the
//! nearest name that is there. Bound: [`LINES_MAX`] lines, [`BYTES_MAX`] bytes and [`NAMES_MAX`] names
//! are looked at.

use super::lines::each_line;
use crate::config::{Loaded, Mistake, unseen};
use crate::plan;
use flow::batch::Batch;
use flow::decode::{Decoder, End};
use flow::parse::LineParser;
use flow::units::UnixNanos;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

const LINES_MAX: usize = 10_000;
const NAMES_MAX: usize = 10_000;
const BYTES_MAX: usize = 64 << 20;

/// Warnings about one pipeline.
pub fn warnings(loaded: &Loaded, sample: &Path) -> anyhow::Result<Vec<Mistake>> {
    let card = loaded.rates.as_ref().map(|rates| &rates.card);
    let plan = plan::compile(&loaded.name, &loaded.config, &loaded.config.data, card)?;
    let Some(source) = plan.sources.first() else { return Ok(Vec::new()) };
    let mut text = Vec::new();
    let mut count = 0;
    each_line(sample, &mut |line| {
        text.extend_from_slice(line);
        text.push(b'\n');
        count += 1;
        Ok(if count < LINES_MAX && text.len() < BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    let mut batch = Batch { arena: text, ..Batch::default() };
    let mut decoder = Decoder::new(source.format, source.limits).with(source.multiline.clone(), source.encoding);
    decoder.decode(&mut batch, 0, End::Log, UnixNanos(0));
    if let Some(parsing) = &source.parsing {
        LineParser::default().parse(&mut batch, parsing, source.reading);
    }
    let mut names = BTreeSet::new();
    for i in 0..batch.len() {
        if let Ok(value) = serde_json::from_slice::<Value>(batch.record(i)) {
            gather("", &value, &mut names);
        }
    }
    Ok(if names.is_empty() { Vec::new() } else { unseen(loaded, &names) })
}

/// The paths of all members, at every depth.
fn gather(path: &str, value: &Value, names: &mut BTreeSet<String>) {
    let Value::Object(members) = value else { return };
    for (name, value) in members {
        if names.len() >= NAMES_MAX {
            return;
        }
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        gather(&path, value, names);
        names.insert(path);
    }
}
