//! What a pipeline file says about sources.
//!
//! The doc comments are the manual: they become the JSON Schema and the reference page. Limits that need line
//! and column to be told (a line limit out of range, no pattern at all) are checked by `config`.

use flow::units::{ByteSize, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One source of records.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceConfig {
    /// Reads the files that match patterns, follows them as they grow and across rotation by renaming.
    File(FileConfig),
    /// Reads standard input to its end.
    Stdin(StdinConfig),
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
    /// How often folders are looked through for new, renamed and deleted files.
    #[serde(default = "scan")]
    pub scan: Span,
    /// How split lines are joined (`format: cri`).
    #[serde(default)]
    pub join: JoinConfig,
}

/// Joining of split lines.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinConfig {
    /// Longest joined record, 1KiB to 64MiB; at this size what was joined is a record noted as `partial`, and the rest another one.
    #[serde(default = "line_bytes_max")]
    pub bytes_max: ByteSize,
}

impl Default for JoinConfig {
    fn default() -> Self {
        JoinConfig { bytes_max: line_bytes_max() }
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
    /// When bytes count as taken. Standard input cannot be read again, so a memory hub needs `on_receipt`.
    #[serde(default)]
    pub ack: Ack,
}

fn line_bytes_max() -> ByteSize {
    ByteSize(1 << 20)
}

fn scan() -> Span {
    Span(100_000_000)
}
