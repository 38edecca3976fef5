//! What a pipeline file says about sources.
//!
//! The doc comments are the manual: they become the JSON Schema and the reference page. Limits that need line
//! and column to be told (a line limit out of range, no pattern at all) are checked by `config`.

use super::gpu::GpuConfig;
use super::host::HostConfig;
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
    /// Takes logs, metrics and traces by OTLP, over gRPC and HTTP.
    Otlp(OtlpConfig),
    /// Takes samples by Prometheus' remote write, 1.0 and 2.0.
    RemoteWrite(RemoteWriteConfig),
    /// Asks targets for their metrics, as Prometheus does.
    Scrape(Box<ScrapeConfig>),
    /// Reads along with the samples of this pipeline and says, as records, which series are missing.
    Watch(WatchConfig),
    /// Asks NVIDIA's devices what they do, and tells who used them.
    Gpu(Box<GpuConfig>),
    /// Looks at this machine's processors, memory, disks and network, and tells who used them.
    Host(Box<HostConfig>),
}

impl SourceConfig {
    pub fn kind(&self) -> &'static str {
        match self {
            SourceConfig::File(_) => "file",
            SourceConfig::Stdin(_) => "stdin",
            SourceConfig::Http(_) => "http",
            SourceConfig::Syslog(_) => "syslog",
            SourceConfig::Otlp(_) => "otlp",
            SourceConfig::RemoteWrite(_) => "remote_write",
            SourceConfig::Scrape(_) => "scrape",
            SourceConfig::Watch(_) => "watch",
            SourceConfig::Gpu(_) => "gpu",
            SourceConfig::Host(_) => "host",
        }
    }

    pub fn parse(&self) -> &[ParseConfig] {
        match self {
            SourceConfig::File(file) => &file.parse,
            SourceConfig::Stdin(stdin) => &stdin.parse,
            SourceConfig::Http(http) => &http.parse,
            SourceConfig::Syslog(syslog) => &syslog.parse,
            SourceConfig::Otlp(_)
            | SourceConfig::RemoteWrite(_)
            | SourceConfig::Scrape(_)
            | SourceConfig::Watch(_)
            | SourceConfig::Gpu(_)
            | SourceConfig::Host(_) => &[],
        }
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        match self {
            SourceConfig::File(file) => &file.labels,
            SourceConfig::Stdin(stdin) => &stdin.labels,
            SourceConfig::Http(http) => &http.labels,
            SourceConfig::Syslog(syslog) => &syslog.labels,
            SourceConfig::Otlp(otlp) => &otlp.labels,
            SourceConfig::RemoteWrite(remote) => &remote.labels,
            SourceConfig::Scrape(scrape) => &scrape.labels,
            SourceConfig::Watch(watch) => &watch.labels,
            SourceConfig::Gpu(gpu) => &gpu.labels,
            SourceConfig::Host(host) => &host.labels,
        }
    }

    /// It has no end: others send to it, or it asks again and again.
    pub fn is_endless(&self) -> bool {
        match self {
            // Of devices and hosts `--once` takes two readings, and a recording to its end.
            SourceConfig::File(_) | SourceConfig::Stdin(_) | SourceConfig::Gpu(_) | SourceConfig::Host(_) => false,
            SourceConfig::Http(_)
            | SourceConfig::Syslog(_)
            | SourceConfig::Otlp(_)
            | SourceConfig::RemoteWrite(_)
            | SourceConfig::Scrape(_)
            | SourceConfig::Watch(_) => true,
        }
    }

    /// How much is listened to, of sources whose senders wait for an answer.
    pub fn answering(&self) -> Option<Answering<'_>> {
        Some(match self {
            SourceConfig::Http(c) => Answering {
                tokens: &c.tokens,
                tenant_header: c.tenant_header.as_ref(),
                body_bytes_max: c.body_bytes_max,
                buffer_bytes_max: c.buffer_bytes_max,
                connections_max: c.connections_max,
                timeout: c.timeout,
                ack: c.ack,
            },
            SourceConfig::Otlp(c) => Answering {
                tokens: &c.tokens,
                tenant_header: c.tenant_header.as_ref(),
                body_bytes_max: c.body_bytes_max,
                buffer_bytes_max: c.buffer_bytes_max,
                connections_max: c.connections_max,
                timeout: c.timeout,
                ack: c.ack,
            },
            SourceConfig::RemoteWrite(c) => Answering {
                tokens: &c.tokens,
                tenant_header: c.tenant_header.as_ref(),
                body_bytes_max: c.body_bytes_max,
                buffer_bytes_max: c.buffer_bytes_max,
                connections_max: c.connections_max,
                timeout: c.timeout,
                ack: c.ack,
            },
            SourceConfig::File(_)
            | SourceConfig::Stdin(_)
            | SourceConfig::Syslog(_)
            | SourceConfig::Scrape(_)
            | SourceConfig::Watch(_)
            | SourceConfig::Gpu(_)
            | SourceConfig::Host(_) => return None,
        })
    }
}

/// What sources have in common whose senders wait for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answering<'a> {
    pub tokens: &'a [TokenConfig],
    pub tenant_header: Option<&'a TenantHeaderConfig>,
    pub body_bytes_max: ByteSize,
    pub buffer_bytes_max: ByteSize,
    pub connections_max: u32,
    pub timeout: Span,
    pub ack: Ack,
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
    /// Who pays, as a header of requests says it. Tokens go before it. Absent: no header is looked at.
    pub tenant_header: Option<TenantHeaderConfig>,
    /// Whether the trace of a request goes with its records: `traceparent` and `tracestate` of its headers become members of each record
    /// that has none, with a new parent; a request without them begins a trace. Of samples never: a series has no trace.
    #[serde(default)]
    pub trace_context: bool,
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

/// The tenant in a header of requests, for senders behind a proxy that knows who they are. A request without the header is of whom its
/// records say.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantHeaderConfig {
    /// Its name, as in `X-Scope-OrgID`.
    pub name: String,
    /// Tenants that there are, 1 to 1000. Blanks around a value do not count; any other value, a longer one and one that stands there
    /// twice is of `overflow`, and counted as `tenant_other`.
    pub allow: Vec<String>,
    /// Who pays for the others.
    #[serde(default = "tenant_overflow")]
    pub overflow: String,
}

fn tenant_overflow() -> String {
    "__other__".into()
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

/// The `otlp` source: OTLP over gRPC and over HTTP (`/v1/logs`, `/v1/metrics`, `/v1/traces`; protobuf and JSON; gzip, zstd or not packed).
/// A log record, a data point and a span is a record each, with the attributes of its resource and scope; in a lake they lie in
/// `logs`, `metrics` and `traces`. An answer without an error says that the records are kept; what of a request is invalid is
/// refused with its count and the reason, the rest is kept; UNAVAILABLE with RetryInfo and 503 with `Retry-After` say that there
/// is no room for now. A sender without an answer sends again, so a record may be there twice.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Address and port for gRPC. Empty: none. Others than loopback need `tokens`.
    #[serde(default = "otlp_grpc")]
    pub grpc: String,
    /// Address and port for HTTP. Empty: none. Others than loopback need `tokens`.
    #[serde(default = "otlp_http")]
    pub http: String,
    /// Who may send, and who pays for it, whatever the records say. Empty: everybody on this machine may, and records say who pays.
    #[serde(default)]
    pub tokens: Vec<TokenConfig>,
    /// Who pays, as a header of requests says it. Tokens go before it. Absent: no header is looked at.
    pub tenant_header: Option<TenantHeaderConfig>,
    /// Whether the trace of a request goes with its records: `traceparent` and `tracestate` of its headers become members of each record
    /// that has none, with a new parent; a request without them begins a trace. Of samples never: a series has no trace.
    #[serde(default)]
    pub trace_context: bool,
    /// Attribute of log records that holds a `traceparent`: records without ids get theirs from it. Absent: they stay without.
    pub traceparent: Option<String>,
    /// Largest body or message, 4KiB to 256MiB; holds after decompression, too. Larger ones get 413 or RESOURCE_EXHAUSTED.
    #[serde(default = "body_bytes_max")]
    pub body_bytes_max: ByteSize,
    /// Most bytes of bodies at hand and of records that wait for a lane, at least twice `body_bytes_max`. Beyond, senders are told
    /// to come again.
    #[serde(default = "http_buffer_bytes_max")]
    pub buffer_bytes_max: ByteSize,
    /// Most connections at a time, 1 to 100000; others are closed.
    #[serde(default = "connections_max")]
    pub connections_max: u32,
    /// Longest time that a body may take to come, and that an answer waits for the hub, 1s to 10m.
    #[serde(default = "http_timeout")]
    pub timeout: Span,
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When a request is answered. A memory hub loses what it holds in a crash, so there it must be `on_receipt`.
    #[serde(default)]
    pub ack: Ack,
}

/// The `remote_write` source: requests of Prometheus' remote write, 1.0 and 2.0, each sample a record:
/// `{"metric":"up","type":"gauge","labels":{"job":"a"},"timestamp":"2026-11-28T01:02:03.123Z","value":1.0}`. Stale markers, other NaN
/// and infinities are texts (`"stale"`, `"NaN"`, `"+Inf"`); native histograms and exemplars are members of the record. Samples that
/// break a rule are refused by name and counted, the others of the request are kept. In a lake samples lie in `metrics`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteWriteConfig {
    /// Address and port. Others than loopback need `tokens`.
    #[serde(default = "remote_write_listen")]
    pub listen: String,
    /// Path at which requests are taken.
    #[serde(default = "remote_write_path")]
    pub path: String,
    /// How many series there may be. Absent: no bound.
    pub series: Option<SeriesConfig>,
    /// Who may send, and who pays for it, whatever the labels say. Empty: everybody on this machine may, and `tenancy` says who
    /// pays, as in `from: [labels.tenant]`.
    #[serde(default)]
    pub tokens: Vec<TokenConfig>,
    /// Who pays, as a header of requests says it. Tokens go before it. Absent: no header is looked at.
    pub tenant_header: Option<TenantHeaderConfig>,
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
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When a request is answered. A memory hub loses what it holds in a crash, so there it must be `on_receipt`.
    #[serde(default)]
    pub ack: Ack,
}

/// The `scrape` source: one job of Prometheus. It asks each target for its metrics in the text format, OpenMetrics or protobuf; a
/// sample is a record as `remote_write` makes them. A scrape that fails, whatever the reason, is `up` 0 and ends the target's
/// series with a stale marker; so does a series that is missing from a good one. `up`, `scrape_duration_seconds`,
/// `scrape_samples_scraped`, `scrape_samples_post_metric_relabeling` and `scrape_series_added` are written with each scrape.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrapeConfig {
    /// Targets, as in `["127.0.0.1:9100"]`.
    #[serde(default)]
    pub targets: Vec<String>,
    /// Labels of all of `targets`.
    #[serde(default)]
    pub target_labels: BTreeMap<String, String>,
    /// Files that name more targets, in Prometheus' format (`[{"targets": [..], "labels": {..}}]`, JSON or YAML), by pattern; looked
    /// at every 5 s.
    #[serde(default)]
    pub files: Vec<String>,
    /// The label `job`. Absent: the source's name.
    pub job: Option<String>,
    /// How often each target is asked, 1s to 1h.
    #[serde(default = "scrape_interval")]
    pub interval: Span,
    /// Longest time of one scrape, at most `interval`.
    #[serde(default = "scrape_timeout")]
    pub timeout: Span,
    /// Path of the metrics; a target's label `__metrics_path__` goes before it.
    #[serde(default = "scrape_path")]
    pub path: String,
    /// Parameters of the request's query.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Where a label of the target and one of a sample have the same name, the sample's stays; else it becomes `exported_NAME`.
    #[serde(default)]
    pub honor_labels: bool,
    /// A time that stands in the exposition is the sample's time; else it is that of the scrape.
    #[serde(default = "yes")]
    pub honor_timestamps: bool,
    /// Series with times of their own end with a stale marker, too.
    #[serde(default)]
    pub track_timestamps_staleness: bool,
    /// Ask for protobuf first: native histograms come only that way.
    #[serde(default)]
    pub protobuf: bool,
    /// How a body is read whose `Content-Type` is missing or unknown. Absent: it is refused.
    pub fallback: Option<ScrapeFormat>,
    /// Rules over a target's labels, in order, as Prometheus' `relabel_configs`.
    #[serde(default)]
    pub relabel: Vec<RelabelConfig>,
    /// Rules over a sample's labels, in order, as Prometheus' `metric_relabel_configs`.
    #[serde(default)]
    pub metric_relabel: Vec<RelabelConfig>,
    /// Most samples of a scrape after `metric_relabel`; more are a failed scrape. 0: no limit.
    #[serde(default)]
    pub sample_limit: u32,
    /// Most labels of a sample. 0: no limit.
    #[serde(default)]
    pub label_limit: u32,
    /// Longest name of a label. 0: no limit.
    #[serde(default)]
    pub label_name_length_limit: u32,
    /// Longest value of a label. 0: no limit.
    #[serde(default)]
    pub label_value_length_limit: u32,
    /// How many series there may be, of all targets. Absent: no bound but those of a scrape.
    pub series: Option<SeriesConfig>,
    /// OpenMetrics is held to its text: families that are not interleaved, counters that end in `_total`. Else it is read as
    /// Prometheus reads it.
    #[serde(default)]
    pub strict: bool,
    /// Most targets, 1 to 100000; others are counted as `target_limit` and not asked.
    #[serde(default = "target_limit")]
    pub target_limit: u32,
    /// Largest body, 4KiB to 256MiB; holds after decompression, too. A larger one is a failed scrape.
    #[serde(default = "body_bytes_max")]
    pub body_bytes_max: ByteSize,
    /// A token that is sent as `Authorization: Bearer`; its file.
    pub token_file: Option<PathBuf>,
    /// Most bytes of bodies at hand and of records that wait for a lane, at least twice `body_bytes_max`. Beyond, scrapes fail or are
    /// left out, and are counted.
    #[serde(default = "http_buffer_bytes_max")]
    pub buffer_bytes_max: ByteSize,
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The `watch` source. It reads along with the samples of its pipeline, whatever source they come from, and makes a record for each
/// alert that begins or ends, `{"timestamp":..,"event":"missing","rule":..,"member":..,"state":"firing","since":..,"message":..}`, and
/// the samples `weir_missing` and `ALERTS` while it lasts.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchConfig {
    /// What is watched, by name.
    pub rules: BTreeMap<String, WatchRule>,
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A rule of `watch`: either `missing_from` or `absent`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchRule {
    /// Names each member of a set that has gone silent.
    pub missing_from: Option<MissingFrom>,
    /// A selector, as in `up{job="api"}`: an alert while it selects nothing at all, as PromQL's `absent` has it.
    pub absent: Option<String>,
    /// How often a sample of each member comes, 1s to 1d.
    #[serde(default = "scrape_interval")]
    pub interval: Span,
    /// After so many intervals of silence a member is missing, 1 to 100.
    #[serde(default = "watch_within")]
    pub within: u32,
    /// Most members, 1 to 1000000; of more the silence is not told, and counted.
    #[serde(default = "watch_members_max")]
    pub members_max: u32,
}

/// Who is expected to have samples.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MissingFrom {
    /// A selector, as in `request_duration_seconds_count{env="prod"}`.
    pub metric: String,
    /// Labels that tell members apart, as in `[model]` or `[instance]`.
    pub by: Vec<String>,
    /// Members that are expected, values of the only label of `by`: an inventory.
    #[serde(default)]
    pub expected: Vec<String>,
    /// Instead of an inventory: whoever had samples in so much time before.
    pub preceding: Option<Span>,
}

fn watch_within() -> u32 {
    2
}

fn watch_members_max() -> u32 {
    10_000
}

/// Bounds on series. Those beyond are folded into one for each metric and tenant, with the label `weir_overflow="true"` (and `le`): of
/// counters it is the sum of their increments and never falls, of gauges the newest value. A series that is there stays what it is.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeriesConfig {
    /// Most series of one metric, at least 1.
    #[serde(default = "series_per_metric")]
    pub per_metric: u32,
    /// Most series of one tenant, as `tenant_label` names it.
    #[serde(default = "series_per_tenant")]
    pub per_tenant: u32,
    /// Most series in all, 1 to 10000000.
    #[serde(default = "series_total")]
    pub total: u32,
    /// The label that says whose a series is.
    #[serde(default = "series_tenant_label")]
    pub tenant_label: String,
    /// A series without a sample for so long has ended and makes room, 1m to 7d.
    #[serde(default = "series_expire_after")]
    pub expire_after: Span,
}

fn series_per_metric() -> u32 {
    10_000
}

fn series_per_tenant() -> u32 {
    100_000
}

fn series_total() -> u32 {
    1_000_000
}

fn series_tenant_label() -> String {
    "tenant".into()
}

fn series_expire_after() -> Span {
    Span(3_600_000_000_000)
}

/// Formats of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScrapeFormat {
    /// Prometheus' text, 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    Openmetrics,
    /// Prometheus' protobuf, delimited.
    Protobuf,
}

/// A rule of relabelling, as Prometheus has it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelabelConfig {
    /// Labels whose values are put together, with `separator` between them.
    #[serde(default)]
    pub source_labels: Vec<String>,
    /// What stands between them.
    #[serde(default = "relabel_separator")]
    pub separator: String,
    /// What the value is held against, as a whole.
    #[serde(default = "relabel_regex")]
    pub regex: String,
    /// The divisor of `hashmod`.
    #[serde(default)]
    pub modulus: u64,
    /// The label that is written.
    #[serde(default)]
    pub target_label: String,
    /// What is written; `$1` stands for a group of `regex`.
    #[serde(default = "relabel_replacement")]
    pub replacement: String,
    /// What is done.
    #[serde(default)]
    pub action: RelabelAction,
}

/// What a rule of relabelling does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RelabelAction {
    /// Writes `replacement` into `target_label` where `regex` matches.
    #[default]
    Replace,
    /// Keeps only what matches.
    Keep,
    /// Drops what matches.
    Drop,
    /// Keeps only what equals `target_label`.
    KeepEqual,
    /// Drops what equals `target_label`.
    DropEqual,
    /// Writes a hash of the value, modulo `modulus`.
    HashMod,
    /// Copies labels whose names match to names that `replacement` gives.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Writes the value in lower case.
    Lowercase,
    /// Writes the value in upper case.
    Uppercase,
}

fn relabel_separator() -> String {
    ";".into()
}

fn relabel_regex() -> String {
    "(.*)".into()
}

fn relabel_replacement() -> String {
    "$1".into()
}

fn scrape_interval() -> Span {
    Span(15_000_000_000)
}

fn scrape_timeout() -> Span {
    Span(10_000_000_000)
}

fn scrape_path() -> String {
    "/metrics".into()
}

fn target_limit() -> u32 {
    10_000
}

fn otlp_grpc() -> String {
    "127.0.0.1:4317".into()
}

fn otlp_http() -> String {
    "127.0.0.1:4318".into()
}

fn remote_write_listen() -> String {
    "127.0.0.1:9201".into()
}

fn remote_write_path() -> String {
    "/api/v1/write".into()
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
