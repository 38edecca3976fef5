//! What a pipeline file says about sources.
//!
//! The doc comments are the manual: they become the JSON Schema and the reference page. Limits that need line
//! and column to be told (a line limit out of range, no pattern at all) are checked by `config`.

use super::kubernetes::KubernetesConfig;
use flow::decode::{Encoding, MultilineConfig};
use flow::units::{ByteSize, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One source of records.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceConfig {
    /// Reads the files that match patterns, follows them as they grow and across rotation by renaming.
    File(FileConfig),
    /// Reads standard input to its end.
    Stdin(StdinConfig),
}

impl SourceConfig {
    pub fn kind(&self) -> &'static str {
        match self {
            SourceConfig::File(_) => "file",
            SourceConfig::Stdin(_) => "stdin",
        }
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        match self {
            SourceConfig::File(file) => &file.labels,
            SourceConfig::Stdin(stdin) => &stdin.labels,
        }
    }
}

/// How bytes become records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// Lines of a container runtime (`TIME STREAM P|F TEXT`); split lines are joined, then the text is read as JSON.
    Cri,
    /// Lines of docker's json-file (`{"log": .., "stream": .., "time": ..}`); split lines are joined, then the text is read as JSON.
    Docker,
    /// Lines of a container runtime, `cri` or `docker`, told apart line by line.
    Container,
    /// Lines of text without fields: they are shipped as they are, under the unknown tenant and their arrival time.
    Text,
}

/// What happens to a line that is no record of its format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Malformed {
    /// It travels as it is, without fields, and is noted as `not_json` or `not_cri`.
    #[default]
    Keep,
    /// It is dropped for the reason `malformed`.
    Drop,
}

/// Where reading starts in a file that was never read before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At its first byte.
    #[default]
    Beginning,
    /// At its end, for files that are there when weir starts for the first time; files that appear later are read whole.
    End,
}

/// When the far side may forget bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// When the hub holds them durably.
    #[default]
    Durable,
    /// When they are read; what a crash finds in memory is lost.
    OnReceipt,
}

/// The `file` source.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Patterns of the files to read, relative to the working directory: `*` and `?` match within a folder, `**` any folders.
    pub include: Vec<String>,
    /// Patterns of files to leave out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// How bytes become records.
    #[serde(default)]
    pub format: Format,
    /// Where reading starts in a file that was never read before.
    #[serde(default)]
    pub start: Start,
    /// Longest line kept whole, 1KiB to 64MiB; the rest of a longer one is cut and counted.
    #[serde(default = "line_bytes_max")]
    pub line_bytes_max: ByteSize,
    /// What happens to a line that is no record of its format.
    #[serde(default)]
    pub malformed: Malformed,
    /// How often folders are looked through for new, renamed and deleted files. In between the kernel tells of them (inotify);
    /// on file systems where it does not (NFS, SMB, FUSE), or when it runs out of watches, this is 250ms at most. Where it does, looking
    /// takes at most a 300th of a core: a walk through very many files comes later than this, but within a minute.
    #[serde(default = "scan")]
    pub scan: Span,
    /// Most files that are known at a time, 1 to 10000000; others are named and counted as `files_max`.
    #[serde(default = "files_max")]
    pub files_max: u32,
    /// Most files that are open at a time, 1 to 1000000; beyond, those that were read to their end are closed until they grow.
    #[serde(default = "open_files_max")]
    pub open_files_max: u32,
    /// How long files that were rotated away are held until they are read.
    #[serde(default)]
    pub rotated: RotatedConfig,
    /// How split lines are joined (`format: cri`, `docker` and `container`).
    #[serde(default)]
    pub join: JoinConfig,
    /// Which lines of text belong together, as those of a stack trace do. Absent: each line is a record.
    pub multiline: Option<MultilineConfig>,
    /// How text is encoded; what is not UTF-8 is read as UTF-8.
    #[serde(default)]
    pub encoding: Encoding,
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The files are logs of Kubernetes' containers: records get a member `kubernetes` that says whose, lines of text become
    /// `{"message":"...","kubernetes":{...}}`, and who pays is what the pod says, not the record. Absent: records leave as they came.
    pub kubernetes: Option<Box<KubernetesConfig>>,
}

/// Limits on holding files that were rotated away or deleted and are not read to their end. Without them such a file is
/// held, and keeps its room on disk, until it is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotatedConfig {
    /// Longest time that a file is held after it was rotated away, at least 1s; then it is let go, and what was not read of it is
    /// counted as abandoned.
    pub age_max: Option<Span>,
    /// Most unread bytes of a file that was rotated away, at least 1MiB; above, it is let go the same way.
    pub bytes_max: Option<ByteSize>,
}

/// Joining of split lines.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinConfig {
    /// Longest joined record, 1KiB to 64MiB; at this size what was joined is a record noted as `partial`, and the rest another one.
    #[serde(default = "line_bytes_max")]
    pub bytes_max: ByteSize,
    /// A part whose next one has not come for this long is a record noted as `partial`, 100ms to 1h.
    #[serde(default = "join_age")]
    pub age: Span,
}

impl Default for JoinConfig {
    fn default() -> Self {
        JoinConfig { bytes_max: line_bytes_max(), age: join_age() }
    }
}

/// The `stdin` source.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdinConfig {
    /// How bytes become records.
    #[serde(default)]
    pub format: Format,
    /// Longest line kept whole, 1KiB to 64MiB; the rest of a longer one is cut and counted.
    #[serde(default = "line_bytes_max")]
    pub line_bytes_max: ByteSize,
    /// What happens to a line that is no record of its format.
    #[serde(default)]
    pub malformed: Malformed,
    /// How split lines are joined (`format: cri`).
    #[serde(default)]
    pub join: JoinConfig,
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When bytes count as taken. Standard input cannot be read again, so a memory hub needs `on_receipt`.
    #[serde(default)]
    pub ack: Ack,
}

fn line_bytes_max() -> ByteSize {
    ByteSize(1 << 20)
}

fn join_age() -> Span {
    Span(30_000_000_000)
}

fn scan() -> Span {
    Span(5_000_000_000)
}

fn files_max() -> u32 {
    1_000_000
}

fn open_files_max() -> u32 {
    65_536
}
