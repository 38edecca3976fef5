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
use std::path::PathBuf;

/// One source of records.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceConfig {
    /// Reads the files that match patterns, follows them as they grow and across rotation by renaming.
    File(FileConfig),
    /// Reads standard input to its end.
    Stdin(StdinConfig),
    /// Takes what others send by HTTP: JSON lines, JSON, Elasticsearch's `_bulk`, Loki's push.
    Http(HttpConfig),
    /// Takes messages of syslog by UDP and TCP.
    Syslog(SyslogConfig),
}

impl SourceConfig {
    pub fn kind(&self) -> &'static str {
        match self {
            SourceConfig::File(_) => "file",
            SourceConfig::Stdin(_) => "stdin",
            SourceConfig::Http(_) => "http",
            SourceConfig::Syslog(_) => "syslog",
        }
    }

    pub fn parse(&self) -> &[ParseConfig] {
        match self {
            SourceConfig::File(file) => &file.parse,
            SourceConfig::Stdin(stdin) => &stdin.parse,
            SourceConfig::Http(http) => &http.parse,
            SourceConfig::Syslog(syslog) => &syslog.parse,
        }
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        match self {
            SourceConfig::File(file) => &file.labels,
            SourceConfig::Stdin(stdin) => &stdin.labels,
            SourceConfig::Http(http) => &http.labels,
            SourceConfig::Syslog(syslog) => &syslog.labels,
        }
    }

    /// Others send to it: it has no end.
    pub fn is_pushed(&self) -> bool {
        matches!(self, SourceConfig::Http(_) | SourceConfig::Syslog(_))
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
    /// How lines that are no JSON become records with fields: stages, in order. Empty: they are read as `format` says, and no further.
    #[serde(default)]
    pub parse: Vec<ParseConfig>,
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

/// A stage of parsing: of lines, or of one member of records. It goes before everything else: who pays, steps and meters see what it made.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParseConfig {
    /// Parsers by name, 1 to 256, tried in this order: the first that matches makes the record. They are those of `parsers` and
    /// `parser_files`, and `json`, `logfmt`, `ltsv`, `syslog`, `syslog5424`, `syslog3164`, `nginx`, `apache`, `klog`, `cri`, `docker`.
    /// A line that none matches is kept whole, as `{"message":"...","parse_error":"no_match"}`, unless `malformed` says `drop`.
    pub with: Vec<String>,
    /// The member whose text is parsed, of records that are JSON already; what comes of it goes into the record. Absent: the line.
    pub field: Option<String>,
    /// The member that was parsed stays.
    #[serde(default)]
    pub keep_field: bool,
    /// The other members of the record stay.
    #[serde(default = "yes")]
    pub keep_others: bool,
    /// A member that holds the line as it was. Absent: only its fields remain.
    pub original: Option<String>,
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
    /// How lines that are no JSON become records with fields: stages, in order. Empty: they are read as `format` says, and no further.
    #[serde(default)]
    pub parse: Vec<ParseConfig>,
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When bytes count as taken. Standard input cannot be read again, so a memory hub needs `on_receipt`.
    #[serde(default)]
    pub ack: Ack,
}

fn yes() -> bool {
    true
}

/// The `http` source. It takes `POST` of records at `paths`, of `/_bulk` and `/INDEX/_bulk`, and of `/loki/api/v1/push` (JSON, or
/// protobuf in snappy), packed with gzip, zstd, deflate or not at all. What is sent as `text/plain` is one record a line, as
/// `message`; an array, and what is sent as `application/json`, holds objects; anything else is one JSON object a line. A line
/// of Loki becomes `{"ts":..,"message":..,"labels":{..}}`; if it is a JSON object, it stays one and gets what of these it lacks.
/// An answer of 2xx says that the records are kept; 503 with `Retry-After` that there is no room for now; 400 where the mistake
/// is. A sender without an answer sends again, so a record may be there twice.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port, as in `127.0.0.1:8080`. Others than loopback need `tokens`. TLS is not built: put a proxy that ends it
    /// in front, or tokens can be read on the way.
    #[serde(default = "http_listen")]
    pub listen: String,
    /// Paths at which records are taken, besides those of Elasticsearch and Loki.
    #[serde(default = "http_paths")]
    pub paths: Vec<String>,
    /// Who may send, and who pays for it, whatever the records say. Empty: everybody on this machine may, and records say who pays.
    #[serde(default)]
    pub tokens: Vec<TokenConfig>,
    /// Take usage events at `/api/v1/usage`: CloudEvents 1.0, one or many, structured or binary; `schemas/usage-event.schema.json` is
    /// what their data holds. The answer is 202 when the hub holds all of them, whatever `ack` says. An event that comes again, with
    /// the same `source` and `id`, is counted once.
    #[serde(default)]
    pub usage: bool,
    /// Largest body, 4KiB to 256MiB; holds after decompression, too. Larger ones get 413.
    #[serde(default = "body_bytes_max")]
    pub body_bytes_max: ByteSize,
    /// Most bytes of bodies at hand and of records that wait for a lane, at least twice `body_bytes_max`. Beyond, senders get 503.
    #[serde(default = "http_buffer_bytes_max")]
    pub buffer_bytes_max: ByteSize,
    /// Most connections at a time, 1 to 100000; others are closed.
    #[serde(default = "connections_max")]
    pub connections_max: u32,
    /// Longest time that a body may take to come, and that an answer waits for the hub, 1s to 10m.
    #[serde(default = "http_timeout")]
    pub timeout: Span,
    /// Longest line kept whole, 1KiB to 64MiB; the rest of a longer one is cut and counted; a longer item of `_bulk` is refused.
    #[serde(default = "line_bytes_max")]
    pub line_bytes_max: ByteSize,
    /// How the text of a member becomes fields, as in `[{ field: message, with: [app] }]`: stages, in order. Empty: not at all.
    #[serde(default)]
    pub parse: Vec<ParseConfig>,
    /// What happens to a line that is no record.
    #[serde(default)]
    pub malformed: Malformed,
    /// Field that the index of a `_bulk` item is put into, as in `_index`. Absent: it is forgotten.
    pub index_field: Option<String>,
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When a request is answered. A memory hub loses what it holds in a crash, so there it must be `on_receipt`.
    #[serde(default)]
    pub ack: Ack,
}

/// A token and its tenant. The token stands in a file or in the environment, never here; a request has it in
/// `Authorization: Bearer`, as the password of Basic, or in `X-Weir-Token`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Who pays for what is sent with it.
    pub tenant: String,
    /// File with the token, at least 8 bytes; white space at its end is no part of it.
    pub token_file: Option<PathBuf>,
    /// Name of the environment variable with the token.
    pub token_env: Option<String>,
}

impl TokenConfig {
    /// The token; errors do not show it.
    pub fn secret(&self) -> anyhow::Result<Vec<u8>> {
        crate::secrets::read("a token", self.token_file.as_deref(), self.token_env.as_deref())
    }
}

/// The `syslog` source: messages of RFC 5424 and RFC 3164, by UDP, and by TCP with counted octets or a line each (RFC 6587).
/// A record has `time`, `level`, `facility`, `pri`, `host`, `app`, `pid`, `msgid`, `structured_data` and `message`, as far as the
/// message says them, and `peer`, the address it came from. Syslog has no answers: a message counts as taken when it is read, so a
/// crash loses those of the last moment; what UDP finds no room for is dropped and counted, TCP waits.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// Address and port for datagrams, as in `127.0.0.1:5514`. Others than loopback need `allow`.
    pub udp: Option<String>,
    /// Address and port for connections, as in `127.0.0.1:5514`. Others than loopback need `allow`.
    pub tcp: Option<String>,
    /// Addresses that messages are taken from, as in `10.0.0.0/8`. Empty: any that reach it.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Longest message, 1KiB to 1MiB; the rest of a longer one is cut and counted.
    #[serde(default = "message_bytes_max")]
    pub message_bytes_max: ByteSize,
    /// How the text of a member becomes fields, as in `[{ field: message, with: [app] }]`: stages, in order. Empty: not at all.
    #[serde(default)]
    pub parse: Vec<ParseConfig>,
    /// Most bytes of records that wait for a lane, at least 1MiB.
    #[serde(default = "syslog_buffer_bytes_max")]
    pub buffer_bytes_max: ByteSize,
    /// Most connections at a time, 1 to 100000; others are closed.
    #[serde(default = "connections_max")]
    pub connections_max: u32,
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn http_listen() -> String {
    "127.0.0.1:8080".into()
}

fn http_paths() -> Vec<String> {
    vec!["/".into()]
}

fn body_bytes_max() -> ByteSize {
    ByteSize(16 << 20)
}

fn http_buffer_bytes_max() -> ByteSize {
    ByteSize(64 << 20)
}

fn connections_max() -> u32 {
    1000
}

fn http_timeout() -> Span {
    Span(30_000_000_000)
}

fn message_bytes_max() -> ByteSize {
    ByteSize(64 << 10)
}

fn syslog_buffer_bytes_max() -> ByteSize {
    ByteSize(16 << 20)
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
