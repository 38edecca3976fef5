//! What a log file says of its columns besides their names and types.
//!
//! In: the metadata of a Parquet file; out: what lets a reader do without lines. Files of older programs say less, and are read by lines.

use anyhow::Context;
use parquet::file::metadata::FileMetaData;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Key of the file's metadata: for each column of numbers that lacks some, how many, as a JSON object.
pub(super) const INCOMPLETE: &str = "weir.incomplete";

/// What a file says of its columns besides their types: a JSON object under this key of its metadata.
pub(super) const NOTES: &str = "weir.columns";

/// What a file says of its columns besides their types.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// Lines that are no JSON; `None`: an older program wrote none of these notes.
    pub malformed: Option<u64>,
    /// Columns whose names are not those of their fields, by field.
    pub renamed: BTreeMap<String, String>,
    /// Columns without a value.
    pub empty: BTreeSet<String>,
    /// Columns of numbers that lack some of their fields' values, and how many: a reader asks the lines for those.
    #[serde(skip)]
    pub incomplete: BTreeMap<String, u64>,
}

impl Notes {
    pub(crate) fn of(file: &FileMetaData) -> anyhow::Result<Notes> {
        let pairs = || file.key_value_metadata().into_iter().flatten();
        let text = |key: &str| pairs().find(|pair| pair.key == key).and_then(|pair| pair.value.as_deref());
        let damaged = "what the file says of its columns is damaged";
        let notes: Notes = text(NOTES).map_or(Ok(Notes::default()), serde_json::from_str).context(damaged)?;
        let incomplete = text(INCOMPLETE).map_or(Ok(BTreeMap::new()), serde_json::from_str).context(damaged)?;
        Ok(Notes { incomplete, ..notes })
    }

    /// Whether every line of the file is JSON.
    pub(crate) fn is_all_json(&self) -> bool {
        self.malformed == Some(0)
    }

    pub(crate) fn is_empty(&self, column: &str) -> bool {
        self.empty.contains(column)
    }

    /// The name of the column that surely is this field's, if the file has one.
    pub(crate) fn column<'a>(&'a self, field: &'a str) -> Option<&'a str> {
        match self.renamed.get(field) {
            Some(column) => Some(column),
            // In an older file a name with a prefix may stand for another field.
            None if self.malformed.is_none() && field.starts_with("f_") => None,
            None if self.renamed.values().any(|column| column == field) => None,
            None => Some(field),
        }
    }
}
