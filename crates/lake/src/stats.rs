//! What a question cost, and whether its answer is whole.

use flow::units::UnixNanos;
use std::time::Instant;

/// What a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files of the snapshot; of one tenant where only its records are asked for, and so are all numbers.
    pub files: u64,
    /// Left out by tenant or time, without being opened.
    pub files_pruned: u64,
    /// Left out because their bloom filters say that the id is not there.
    pub files_pruned_by_bloom: u64,
    /// Left out because their index proposes no row.
    pub files_pruned_by_index: u64,
    /// Answered with the index: only proposed rows were read.
    pub files_by_index: u64,
    /// An index that is missing or damaged: the file was scanned.
    pub index_failures: u64,
    /// Files whose rows were read.
    pub files_opened: u64,
    /// Row groups of the files that were not left out, and those of them in which no row was read.
    pub row_groups: u64,
    pub row_groups_skipped: u64,
    /// Rows of files that were judged by their lines; a row counts again in each pass.
    pub rows_scanned: u64,
    /// Rows of files that were judged by their columns first.
    pub rows_by_columns: u64,
    /// Rows of the tail that were judged.
    pub tail_rows: u64,
    pub hits: u64,
    /// How often the files were gone through because the hits did not fit the window.
    pub passes: u64,
    /// Loose lines longer than is read: only their beginning was searched.
    pub lines_cut: u64,
    /// Bytes read of Parquet files, and of indexes (where others ask at the same time, some of theirs).
    pub bytes_read: u64,
    pub index_bytes_read: u64,
    /// Time in nanoseconds, added up over threads: choosing files, asking indexes and filters, reading, judging.
    pub plan_ns: u64,
    pub index_ns: u64,
    pub read_ns: u64,
    pub judge_ns: u64,
    /// The answer stopped early.
    pub partial: Option<Partial>,
}

/// Why an answer is not whole, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    pub why: PartialWhy,
    /// Of hits in order of time: nothing is missing before this time (newest first: after it). `None`: nothing can be said.
    pub complete_to: Option<UnixNanos>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialWhy {
    /// The caller's clock said so.
    Deadline,
    /// As many bytes were read as may be.
    Bytes,
    /// As many bytes of records are in the answer as it may hold.
    Memory,
    /// As many hits have their neighbours beside them as one answer shows.
    Neighbours,
    /// More waits for the lake than one question reads of it.
    Tail,
}

impl PartialWhy {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            PartialWhy::Deadline => "the time for one question was over",
            PartialWhy::Bytes => "as many bytes were read as one question may",
            PartialWhy::Memory => "as many bytes of records are here as one answer holds",
            PartialWhy::Neighbours => "as many hits are here with their neighbours as one answer shows",
            PartialWhy::Tail => "more waits for the lake than one question reads of it",
        }
    }
}

impl Stats {
    /// Adds the work of another thread or step.
    pub fn add(&mut self, other: &Stats) {
        for (sum, more) in self.counters().into_iter().zip(other.clone_counters()) {
            *sum += more;
        }
        self.partial = self.partial.or(other.partial);
    }

    fn clone_counters(&self) -> Vec<u64> {
        let mut copy = *self;
        copy.counters().into_iter().map(|n| *n).collect()
    }

    fn counters(&mut self) -> Vec<&mut u64> {
        vec![
            &mut self.files,
            &mut self.files_pruned,
            &mut self.files_pruned_by_bloom,
            &mut self.files_pruned_by_index,
            &mut self.files_by_index,
            &mut self.index_failures,
            &mut self.files_opened,
            &mut self.row_groups,
            &mut self.row_groups_skipped,
            &mut self.rows_scanned,
            &mut self.rows_by_columns,
            &mut self.tail_rows,
            &mut self.hits,
            &mut self.passes,
            &mut self.lines_cut,
            &mut self.bytes_read,
            &mut self.index_bytes_read,
            &mut self.plan_ns,
            &mut self.index_ns,
            &mut self.read_ns,
            &mut self.judge_ns,
        ]
    }

    /// Names and values for people, in the order in which a search does its steps.
    pub fn explain(&self) -> Vec<(&'static str, String)> {
        let ms = |ns: u64| format!("{}.{:03} ms", ns / 1_000_000, ns / 1_000 % 1_000);
        let mut rows = vec![
            ("files", self.files.to_string()),
            ("files left out by tenant or time", self.files_pruned.to_string()),
            ("files left out by bloom filter", self.files_pruned_by_bloom.to_string()),
            ("files left out by index", self.files_pruned_by_index.to_string()),
            ("files answered with the index", self.files_by_index.to_string()),
            ("files without a sound index", self.index_failures.to_string()),
            ("files opened", self.files_opened.to_string()),
            ("row groups", self.row_groups.to_string()),
            ("row groups skipped", self.row_groups_skipped.to_string()),
            ("rows judged by columns", self.rows_by_columns.to_string()),
            ("rows judged by lines", self.rows_scanned.to_string()),
            ("rows of the tail", self.tail_rows.to_string()),
            ("hits", self.hits.to_string()),
            ("passes", self.passes.to_string()),
            ("bytes read", self.bytes_read.to_string()),
            ("bytes read of indexes", self.index_bytes_read.to_string()),
            ("plan", ms(self.plan_ns)),
            ("index", ms(self.index_ns)),
            ("read", ms(self.read_ns)),
            ("judge", ms(self.judge_ns)),
        ];
        if let Some(partial) = self.partial {
            let to = partial.complete_to.map_or(String::new(), |time| format!("; complete up to {}", time.rfc3339()));
            rows.push(("partial", format!("{}{to}", partial.why.text())));
        }
        rows
    }
}

/// Nanoseconds since `start`.
pub(crate) fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
