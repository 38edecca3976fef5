//! The open store: Parquet in folders by tenant, day and hour, one commit log, a search index beside the logs.
//!
//! Read in this order: `store` (frames in, one commit out), `commit` (the log), `layout` (where things lie),
//! the tables `logs` (and traces), `samples` (metrics), `facts` (usage), `charges`, `runs` (lineage) with `table` below them and `lineage` (what an event says), `index`; then
//! the way back: `snapshot`, `query` (the line), `matcher` (the one judge), `view` (what is asked, and what narrows it
//! down: `opened`, `bloom`, `columns`), `search`, `scan` and what is made of it (`histogram`, `facets`), `context`, `pipes` (rows to a
//! table), `loose`, `sieve` (what comes), `tables` (columns for SQL), `series` (metrics); last `maintain`, which merges, drops and mends files behind the writer. The only crate that
//! names tantivy and parquet.
#![deny(unsafe_code)]

mod store;

mod commit;
mod layout;

mod charges;
mod facts;
mod focus;
pub mod lineage;
mod logs;
mod runs;
mod samples;
mod stored;
mod table;

mod index;
mod words;

mod snapshot;

mod loose;
mod matcher;
mod pipes;
mod query;

mod bloom;
mod columns;
mod opened;
mod rows;
mod stats;
mod view;

mod context;
mod facets;
mod histogram;
mod scan;
mod search;
mod sieve;

pub mod tables;

mod series;

pub mod maintain;

#[cfg(test)]
mod tests;

pub use charges::{Charges, Published, UsageFile, append_charges};
pub use commit::{ChargeEvent, DropRule, Dropped};
pub use context::CONTEXT_MAX;
pub use facets::{Facet, FacetCounts, VALUES_MAX};
pub use facts::{EventView, FactView};
pub use focus::{focus_parquet, read_cells};
pub use histogram::{BUCKETS_MAX, Buckets, GROUP_BYTES_MAX, GROUPS_MAX, Group, Histogram, HistogramBy, Tally};
pub use logs::Spent;
pub use loose::{LINE_BYTES_MAX, search_file, search_lines};
pub use opened::{CACHE_BYTES, Cache};
pub use pipes::{Cell, Number, Pipeline, RowView, Table};
pub use query::{
    Call, DEPTH_MAX, Function, GROUP_COLUMNS_MAX, PIPES_MAX, Pipe, QUERY_BYTES_MAX, Query, QueryError, REGEXES_MAX, SortKey, TESTS_MAX,
    When,
};
pub use scan::{Asked, Batch, Column, Times, Wanted};
pub use search::{Hit, SearchOptions, WINDOW_BYTES, search};
pub use series::{Wanted as WantedSeries, read_series};
pub use sieve::Sieve;
pub use snapshot::{Snapshot, each_fact, lineage_events, tail_facts, usage};
pub use stats::{Partial, PartialWhy, Stats};
pub use store::{Lake, Sealed};
pub use view::{Bounds, View};

use flow::conventions::{MESSAGE, SPAN_ID, TRACE_ID};
use serde::{Deserialize, Serialize};

/// Why a question cannot be answered though nothing is broken: it asks for too much, or for what is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unanswerable(pub String);

/// Gives back an [`Unanswerable`], as `bail!` does an error.
macro_rules! unanswerable {
    ($($text:tt)*) => { return Err($crate::Unanswerable(format!($($text)*)).into()) };
}
use unanswerable;

/// How a lake is written.
#[derive(Clone)]
pub struct Options {
    /// Fields that become columns and can be looked up whole; rows are sorted by the first.
    pub index: Vec<String>,
    /// Fields whose words can be looked up.
    pub text: Vec<String>,
    /// Fields that hold ids: columns with bloom filters, found by a bare word.
    pub ids: Vec<String>,
    /// Fields that are columns of numbers.
    pub numbers: Vec<String>,
    /// Files with fewer raw bytes get no index: a scan is cheaper.
    pub index_bytes_min: u64,
    /// A tenant's day with fewer raw bytes in one seal is one file, else one per hour.
    pub hour_bytes_min: u64,
    /// What is known about data sets, models and reports; without it no lineage is written.
    pub lineage: Option<lineage::Block>,
}

impl Options {
    pub fn fields(&self) -> Fields {
        Fields { index: self.index.clone(), text: self.text.clone(), ids: self.ids.clone(), numbers: self.numbers.clone() }
    }
}

/// Fields of text for people, under every name that loggers give them.
fn text_fields() -> Vec<String> {
    MESSAGE.map(String::from).to_vec()
}

/// Fields of ids, under every name that loggers give them.
fn id_fields() -> Vec<String> {
    TRACE_ID.into_iter().chain(SPAN_ID).chain(["request_id"]).map(String::from).collect()
}

/// Which fields a lake knows by name: recorded in each commit, so that a search needs no config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fields {
    pub index: Vec<String>,
    pub text: Vec<String>,
    pub ids: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<String>,
}

impl Default for Fields {
    fn default() -> Fields {
        Fields { index: Vec::new(), text: text_fields(), ids: id_fields(), numbers: Vec::new() }
    }
}
