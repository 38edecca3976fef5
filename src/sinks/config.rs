//! What a pipeline file says about sinks.
//!
//! The doc comments are the manual: they become the JSON Schema and the reference page. What a path template or a
//! url may be is checked by `config`, which knows line and column.

use flow::units::{ByteSize, NANOS_PER_SECOND, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One sink of kept records.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkConfig {
    /// Writes records to standard output, one a line, at least once.
    Stdout(StdoutConfig),
    /// Takes records and forgets them: for measuring, and for pipelines of which only the bill is wanted.
    Blackhole(BlackholeConfig),
    /// Appends records to files by template, exactly once, with rotation.
    Archive(ArchiveConfig),
    /// Stores records, usage and lineage as Parquet with a search index, exactly once.
    Lake(LakeConfig),
    /// Sends records by HTTP, at least once: as JSON lines, to Elasticsearch or to Loki.
    Http(Box<HttpConfig>),
    /// Sends samples by Prometheus' remote write, at least once.
    RemoteWrite(Box<RemoteWriteSink>),
    /// Sends logs, samples and spans by OTLP over HTTP, at least once.
    Otlp(Box<OtlpSink>),
    /// Shows the newest sample of each series to whoever scrapes.
    Prometheus(PrometheusSink),
}

impl SinkConfig {
    pub fn kind(&self) -> &'static str {
        match self {
            SinkConfig::Stdout(_) => "stdout",
            SinkConfig::Blackhole(_) => "blackhole",
            SinkConfig::Archive(_) => "archive",
            SinkConfig::Lake(_) => "lake",
            SinkConfig::Http(_) => "http",
            SinkConfig::RemoteWrite(_) => "remote_write",
            SinkConfig::Otlp(_) => "otlp",
            SinkConfig::Prometheus(_) => "prometheus",
        }
    }

    /// The condition under which it takes a record.
    pub fn when(&self) -> Option<&str> {
        match self {
            SinkConfig::Stdout(config) => config.when.as_deref(),
            SinkConfig::Blackhole(config) => config.when.as_deref(),
            SinkConfig::Archive(config) => config.when.as_deref(),
            SinkConfig::Lake(config) => config.when.as_deref(),
            SinkConfig::Http(config) => config.when.as_deref(),
            SinkConfig::RemoteWrite(config) => config.when.as_deref(),
            SinkConfig::Otlp(config) => config.when.as_deref(),
            SinkConfig::Prometheus(config) => config.when.as_deref(),
        }
    }

    /// How it sends by HTTP, if it does.
    pub fn http(&self) -> Option<HttpConfig> {
        match self {
            SinkConfig::Http(config) => Some((**config).clone()),
            SinkConfig::RemoteWrite(config) => Some(config.http()),
            SinkConfig::Otlp(config) => Some(config.http()),
            SinkConfig::Stdout(_) | SinkConfig::Blackhole(_) | SinkConfig::Archive(_) | SinkConfig::Lake(_) | SinkConfig::Prometheus(_) => {
                None
            }
        }
    }
}

/// The `stdout` sink.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {
    /// Condition for the kept records it takes, as in `level == "error"`. Absent: all.
    pub when: Option<String>,
}

/// The `blackhole` sink.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlackholeConfig {
    /// Condition for the kept records it takes, as in `level == "error"`. Absent: all.
    pub when: Option<String>,
}

/// The `archive` sink.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// Condition for the kept records it takes, as in `level == "error"`. Absent: all.
    pub when: Option<String>,
    /// Path of the file a record goes to, as in `logs/{tenant}/{service}.log`: `{tenant}` is who pays, any other name in
    /// braces a field. Relative to `dir`; what a value may not have in a file name is replaced.
    pub path: String,
    /// Folder the files lie in, relative to the working directory. Absent: `archive/<pipeline>.<sink>/files` in the data folder.
    pub dir: Option<PathBuf>,
    /// When a file is closed and a new one begun. Absent: never.
    pub rotate: Option<RotateConfig>,
    /// How much room the files may take. Absent: all there is.
    pub room: Option<RoomConfig>,
    /// How a rotated file is compressed; the file being written is always plain.
    #[serde(default)]
    pub compress: Compress,
    /// When what was written becomes durable and counts as delivered.
    #[serde(default)]
    pub commit: CommitConfig,
    /// Most files held open, 1 to 65536; when reached, the one written longest ago is closed.
    #[serde(default = "open_files_max")]
    pub open_files_max: u32,
}

/// Rotation of archive files.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateConfig {
    /// A file is rotated before it would grow beyond this, at least 1KiB. A record that is larger gets a file to itself.
    pub size: Option<ByteSize>,
    /// A file is rotated so long after its first record, at least 1s. The arrival of records tells the time, and the clock
    /// where none come; with `--once` their own times do.
    pub every: Option<Span>,
    /// A file is rotated when an hour or a day of `zone` ends.
    pub at: Option<Boundary>,
    /// Time zone of `at` and of `names: local`, such as `Europe/Berlin`. Absent: UTC.
    pub zone: Option<String>,
    /// Which clock the times in file names are of. Names that were given in another zone before are read as if they were of this one.
    #[serde(default)]
    pub names: NameZone,
    /// SIGHUP rotates every file. `false`: it opens the files again by name, so that another program may rotate them.
    #[serde(default)]
    pub on_sighup: bool,
    /// Rotated files older than this are deleted. Absent: never.
    pub age: Option<Span>,
    /// Most rotated files kept of each file; the oldest are deleted. Absent: all.
    pub backups: Option<u32>,
}

/// Which clock the times in file names are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NameZone {
    /// UTC.
    #[default]
    Utc,
    /// A clock in `zone`, as with lumberjack's `LocalTime`. A name in the hour that daylight saving repeats is read as of the second one.
    Local,
}

/// A boundary of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// Every full hour; the one that daylight saving repeats is two.
    Hour,
    /// Every midnight; the day of 23 or 25 hours is one.
    Day,
}

/// Room for archive files. The oldest rotated files are deleted first; then `when_full` says what happens.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomConfig {
    /// Bytes that must stay free on the file system. Absent: none.
    pub min_free_bytes: Option<ByteSize>,
    /// Most bytes that the files take together, at least 1MiB. Absent: any.
    pub max_total_bytes: Option<ByteSize>,
    /// What happens when there is too little room and no rotated file is left to delete.
    #[serde(default)]
    pub when_full: RoomFull,
}

/// What an archive does without room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoomFull {
    /// It waits for room; the hub keeps what comes, and then the sources wait.
    #[default]
    Wait,
    /// What comes is dropped for this sink, and counted as `rejected: no_room`. Needs the journal.
    DropNewest,
}

/// How rotated files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compress {
    /// Not at all.
    #[default]
    None,
    /// As `.gz`, which everything reads.
    Gzip,
    /// As `.zst`, smaller and faster.
    Zstd,
}

/// When a sink makes its writes durable: whichever comes first.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitConfig {
    /// Longest time between two commits, at least 1ms.
    #[serde(default = "commit_interval")]
    pub interval: Span,
    /// Most bytes between two commits, at least 4KiB.
    #[serde(default = "commit_bytes")]
    pub bytes: ByteSize,
}

impl Default for CommitConfig {
    fn default() -> Self {
        CommitConfig { interval: commit_interval(), bytes: commit_bytes() }
    }
}

/// The `lake` sink.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LakeConfig {
    /// Condition for the kept records it takes, as in `level == "error"`; usage and lineage it takes whole. Absent: all.
    pub when: Option<String>,
    /// Where the lake lies: `file:` and a folder, relative to the data folder unless it starts with `/`.
    #[serde(default = "lake_url")]
    pub url: String,
    /// Fields searched by whole value, as in `service:checkout`.
    #[serde(default = "lake_index")]
    pub index: Vec<String>,
    /// Fields searched by word.
    #[serde(default = "lake_text")]
    pub text: Vec<String>,
    /// Fields that hold identifiers of 16 or 32 hexadecimal digits or other rare values, found through a filter in each file.
    #[serde(default = "lake_ids")]
    pub ids: Vec<String>,
    /// Fields that are columns of numbers, for sums and comparisons; a value that is no number stays in the line.
    #[serde(default)]
    pub numbers: Vec<String>,
    /// When gathered records become files.
    #[serde(default)]
    pub seal: SealConfig,
    /// Log files smaller than this get no search index: scanning them is cheaper.
    #[serde(default = "index_bytes_min")]
    pub index_bytes_min: ByteSize,
    /// The hours of a tenant with fewer bytes than this in one seal share a file by day.
    #[serde(default = "hour_bytes_min")]
    pub hour_bytes_min: ByteSize,
    /// How long and how much is kept; seen to while a process follows its sources, not by `--once`. Absent: everything.
    #[serde(default)]
    pub keep: lake::maintain::Retention,
    /// How small files are merged while a process runs.
    #[serde(default)]
    pub merge: MergeConfig,
}

/// How small files are merged while a process runs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeConfig {
    /// An hour or a day of a tenant is left alone until nothing of it has been new for so long, at least 1m.
    #[serde(default = "merge_after")]
    pub after: Span,
    /// Bytes of records in a merged file, at least 1MiB; files with half of it are left alone. So much memory is held meanwhile.
    #[serde(default = "merge_bytes")]
    pub bytes: ByteSize,
}

impl Default for MergeConfig {
    fn default() -> MergeConfig {
        MergeConfig { after: merge_after(), bytes: merge_bytes() }
    }
}

fn merge_after() -> Span {
    Span(3_600_000_000_000)
}

fn merge_bytes() -> ByteSize {
    ByteSize(32 << 20)
}

/// When gathered records become files: whichever comes first.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SealConfig {
    /// Bytes of records gathered, at least 64KiB.
    #[serde(default = "seal_bytes")]
    pub bytes: ByteSize,
    /// Age of the oldest record gathered, at least 100ms.
    #[serde(default = "seal_age")]
    pub age: Span,
}

impl Default for SealConfig {
    fn default() -> Self {
        SealConfig { bytes: seal_bytes(), age: seal_age() }
    }
}

/// The `http` sink: one request at a time, in order per stream, at least once. Rows that the far side refuses for good become dead
/// letters, in `dead/PIPELINE.SINK/` of the data folder, with the reason and their place; the ledger counts them as `rejected:
/// refused`. Each request has an `Idempotency-Key` made of positions, and each item of a bulk an `_id` made of its own, so what is
/// sent again is no second document.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HttpSinkConfig")] // a source has the same name
pub struct HttpConfig {
    /// Condition for the kept records it takes, as in `level == "error"`. Absent: all.
    pub when: Option<String>,
    /// Where requests go, as in `http://127.0.0.1:9200`. Without a path: `/_bulk` for `bulk`, `/loki/api/v1/push` for `loki`. TLS is
    /// not built: for `https` put a proxy on this machine that speaks it.
    pub url: String,
    /// What a request holds.
    #[serde(default)]
    pub body: HttpBody,
    /// Index that items of a `bulk` go to; in braces `tenant`, `level` or the name of a field, as in `logs-{tenant}`.
    #[serde(default = "http_index")]
    pub index: String,
    /// Labels of Loki's streams, by name; in braces as in `index`. A label whose field a record lacks is left out.
    #[serde(default = "http_labels")]
    pub labels: BTreeMap<String, String>,
    /// Headers of every request, by name. No secrets: see `auth`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The secret that requests bring along.
    pub auth: Option<HttpAuth>,
    /// How bodies are packed.
    #[serde(default)]
    pub compress: HttpCompress,
    /// When a request goes.
    #[serde(default)]
    pub batch: HttpBatch,
    /// Whether requests go on with the trace of their records: the members `traceparent` and `tracestate` become headers, with a new
    /// parent; a request then holds records of one trace only. Records without a context begin a trace.
    #[serde(default)]
    pub trace_context: bool,
    /// Longest time that a request may take, 100ms to 10m.
    #[serde(default = "http_timeout")]
    pub timeout: Span,
    /// What is tried again, and when.
    #[serde(default)]
    pub retry: HttpRetry,
    /// What is kept of rows that are refused for good.
    #[serde(default)]
    pub dead_letters: DeadLettersConfig,
}

/// What a request holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpBody {
    /// Records as they are, one a line.
    #[default]
    Ndjson,
    /// Elasticsearch's `_bulk`, with `create`; each item has an answer of its own.
    Bulk,
    /// Loki's push, as JSON.
    Loki,
    /// Prometheus' remote write: see the sink `remote_write`.
    #[serde(skip)]
    RemoteWrite(RemoteWriteVersion),
    /// See the sink `otlp`.
    #[serde(skip)]
    Otlp(OtlpProtocol),
}

/// How OTLP is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtlpProtocol {
    /// By POST to `/v1/logs`, `/v1/metrics` and `/v1/traces`; usually at port 4318.
    #[default]
    Http,
    /// By calls of gRPC; usually at port 4317.
    Grpc,
}

impl HttpBody {
    pub fn usual_path(self) -> &'static str {
        match self {
            HttpBody::Ndjson => "/",
            HttpBody::Bulk => "/_bulk",
            HttpBody::Loki => "/loki/api/v1/push",
            HttpBody::RemoteWrite(_) => "/api/v1/write",
            HttpBody::Otlp(_) => "",
        }
    }
}

/// How bodies are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpCompress {
    /// Not at all.
    None,
    /// At its fastest.
    #[default]
    Gzip,
    /// Smaller and faster; not every far side reads it.
    Zstd,
}

/// A secret from a file or the environment: a token for `Authorization: Bearer`, or with `user` the password of Basic.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpAuth {
    /// User of Basic authentication. Absent: Bearer.
    pub user: Option<String>,
    /// File with the secret; white space at its end is no part of it.
    pub token_file: Option<PathBuf>,
    /// Name of the environment variable with the secret.
    pub token_env: Option<String>,
}

/// When a request goes: whichever comes first.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpBatch {
    /// About so many bytes of records in a request, less than twice as many, 4KiB to 64MiB.
    #[serde(default = "http_batch_bytes")]
    pub bytes: ByteSize,
    /// Most records in a request, 1 to 100000.
    #[serde(default = "http_batch_records")]
    pub records: u32,
    /// Longest time that a record waits for others, 1ms to 1h.
    #[serde(default = "http_batch_age")]
    pub age: Span,
}

impl Default for HttpBatch {
    fn default() -> Self {
        HttpBatch { bytes: http_batch_bytes(), records: http_batch_records(), age: http_batch_age() }
    }
}

/// What is tried again: every answer but 2xx and 4xx, no answer, and of 4xx those named here. The pauses grow twofold, less up to
/// half by chance; `Retry-After` is honoured. Any other 4xx is for good: a request is halved until the row stands alone.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpRetry {
    /// Statuses from 400 to 499 that are tried again. 401, 403, 404 and 405 are among them, as somebody will mend them.
    #[serde(default = "http_retry_statuses")]
    pub statuses: Vec<u16>,
    /// First pause, 1ms to 1m.
    #[serde(default = "http_pause_min")]
    pub pause_min: Span,
    /// Longest pause, 10ms to 1h.
    #[serde(default = "http_pause_max")]
    pub pause_max: Span,
}

impl Default for HttpRetry {
    fn default() -> Self {
        HttpRetry { statuses: http_retry_statuses(), pause_min: http_pause_min(), pause_max: http_pause_max() }
    }
}

/// Rows that are refused for good.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLettersConfig {
    /// Most bytes kept, at least 64KiB; then the older half goes.
    #[serde(default = "dead_bytes_max")]
    pub bytes_max: ByteSize,
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        DeadLettersConfig { bytes_max: dead_bytes_max() }
    }
}

/// The `remote_write` sink. It takes samples (records of `scrape`, `remote_write` and metrics of `otlp`); any other record is
/// refused, so beside logs it needs `when: has(metric)`. Names and labels of OTLP become those of Prometheus, by OpenTelemetry's rules;
/// a delta is refused. Stale markers, other NaN and infinities arrive as they came.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteWriteSink {
    /// Condition for the kept records it takes, as in `has(metric)`. Absent: all.
    pub when: Option<String>,
    /// Where requests go, as in `http://127.0.0.1:9090`; without a path to `/api/v1/write`. TLS is not built: for `https` put a
    /// proxy on this machine that speaks it.
    pub url: String,
    /// Version of the protocol. A far side that does not know 2.0 gets 1.0.
    #[serde(default)]
    pub version: RemoteWriteVersion,
    /// Labels of every series that has none of that name.
    #[serde(default)]
    pub external_labels: BTreeMap<String, String>,
    /// Headers of every request, by name. No secrets: see `auth`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The secret that requests bring along.
    pub auth: Option<HttpAuth>,
    /// When a request goes.
    #[serde(default)]
    pub batch: HttpBatch,
    /// Longest time that a request may take, 100ms to 10m.
    #[serde(default = "http_timeout")]
    pub timeout: Span,
    /// What is tried again, and when: 429 and 5xx, as the protocol has it, and the 4xx that are named here.
    #[serde(default)]
    pub retry: SignalRetry,
    /// What is kept of rows that are refused for good.
    #[serde(default)]
    pub dead_letters: DeadLettersConfig,
}

/// Versions of remote write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RemoteWriteVersion {
    /// `prometheus.WriteRequest`.
    #[default]
    #[serde(rename = "1.0")]
    V1,
    /// `io.prometheus.write.v2.Request`, smaller by its table of symbols.
    #[serde(rename = "2.0")]
    V2,
}

impl RemoteWriteSink {
    fn http(&self) -> HttpConfig {
        HttpConfig {
            when: self.when.clone(),
            url: self.url.clone(),
            body: HttpBody::RemoteWrite(self.version),
            index: String::new(),
            labels: self.external_labels.clone(),
            headers: self.headers.clone(),
            auth: self.auth.clone(),
            compress: HttpCompress::None,
            batch: self.batch.clone(),
            trace_context: false,
            timeout: self.timeout,
            retry: self.retry.http(),
            dead_letters: self.dead_letters.clone(),
        }
    }
}

/// The `otlp` sink: OTLP over HTTP or gRPC, in protobuf. What came in by OTLP leaves as it came; of other records time, level, message and
/// ids of traces go where OTLP has them, whatever loggers call them, and all other members become attributes; samples of Prometheus
/// become sums and gauges.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpSink {
    /// Condition for the kept records it takes. Absent: all.
    pub when: Option<String>,
    /// Where requests go, as in `http://127.0.0.1:4318`, or `http://127.0.0.1:4317` with `protocol: grpc`. TLS is not built: for
    /// `https` put a proxy on this machine that speaks it.
    pub url: String,
    /// What is spoken there.
    #[serde(default)]
    pub protocol: OtlpProtocol,
    /// Members, of samples labels, that become attributes of the resource: name, and name of the attribute.
    #[serde(default = "otlp_resource")]
    pub resource: BTreeMap<String, String>,
    /// Headers of every request, by name. No secrets: see `auth`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The secret that requests bring along.
    pub auth: Option<HttpAuth>,
    /// How bodies are packed.
    #[serde(default)]
    pub compress: HttpCompress,
    /// When a request goes.
    #[serde(default)]
    pub batch: HttpBatch,
    /// Whether requests go on with the trace of their records: the members `traceparent` and `tracestate` become headers, with a new
    /// parent; a request then holds records of one trace only. Records without a context begin a trace.
    #[serde(default)]
    pub trace_context: bool,
    /// Longest time that a request may take, 100ms to 10m.
    #[serde(default = "http_timeout")]
    pub timeout: Span,
    /// What is tried again, and when: 429, 502, 503 and 504, as the protocol has it, and the 4xx that are named here.
    #[serde(default)]
    pub retry: SignalRetry,
    /// What is kept of rows that are refused for good.
    #[serde(default)]
    pub dead_letters: DeadLettersConfig,
}

impl OtlpSink {
    fn http(&self) -> HttpConfig {
        HttpConfig {
            when: self.when.clone(),
            url: self.url.clone(),
            body: HttpBody::Otlp(self.protocol),
            index: String::new(),
            labels: self.resource.clone(),
            headers: self.headers.clone(),
            auth: self.auth.clone(),
            compress: self.compress,
            batch: self.batch.clone(),
            trace_context: self.trace_context,
            timeout: self.timeout,
            retry: self.retry.http(),
            dead_letters: self.dead_letters.clone(),
        }
    }
}

/// The `prometheus` sink: the newest sample of each series, for whoever scrapes it, in the text format, OpenMetrics or protobuf, as
/// they ask. A series ends with its stale marker, or when none of its samples came for `age`. What a crash finds in memory is gone.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrometheusSink {
    /// Condition for the kept records it takes, as in `has(metric)`. Absent: all; records that are no samples are passed over.
    pub when: Option<String>,
    /// Address and port, as in `127.0.0.1:9464`. Loopback only: the port has no TLS and no tokens.
    #[serde(default = "prometheus_listen")]
    pub listen: String,
    /// Path of the metrics.
    #[serde(default = "prometheus_path")]
    pub path: String,
    /// Most series, 1 to 10000000; beyond, new ones are counted in `weir_exposition_refused_samples_total` and not shown.
    #[serde(default = "prometheus_series_max")]
    pub series_max: u32,
    /// A series without a new sample for so long is not shown any more, 1s to 1d.
    #[serde(default = "prometheus_age")]
    pub age: Span,
    /// Samples are shown with their time; else they are as of the scrape.
    #[serde(default)]
    pub timestamps: bool,
}

/// What is tried again by sinks whose protocol says it: no answer, and the statuses that it names. The pauses grow twofold, less up to
/// half by chance; `Retry-After` is honoured. Any other status is for good: a request is halved until the row stands alone.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalRetry {
    /// Statuses from 400 to 499 that are tried again, against the protocol, but for 429: 401 and 404 where somebody will mend them.
    #[serde(default = "signal_retry_statuses")]
    pub statuses: Vec<u16>,
    /// First pause, 1ms to 1m.
    #[serde(default = "http_pause_min")]
    pub pause_min: Span,
    /// Longest pause, 10ms to 1h.
    #[serde(default = "http_pause_max")]
    pub pause_max: Span,
}

impl Default for SignalRetry {
    fn default() -> Self {
        SignalRetry { statuses: signal_retry_statuses(), pause_min: http_pause_min(), pause_max: http_pause_max() }
    }
}

impl SignalRetry {
    fn http(&self) -> HttpRetry {
        HttpRetry { statuses: self.statuses.clone(), pause_min: self.pause_min, pause_max: self.pause_max }
    }
}

fn signal_retry_statuses() -> Vec<u16> {
    vec![429]
}

fn prometheus_listen() -> String {
    "127.0.0.1:9464".into()
}

fn prometheus_path() -> String {
    "/metrics".into()
}

fn prometheus_series_max() -> u32 {
    100_000
}

fn prometheus_age() -> Span {
    Span(300 * NANOS_PER_SECOND)
}

fn otlp_resource() -> BTreeMap<String, String> {
    [("service", "service.name"), ("host", "host.name")].map(|(name, attribute)| (name.into(), attribute.into())).into()
}

fn http_index() -> String {
    "logs-{tenant}".into()
}

fn http_labels() -> BTreeMap<String, String> {
    [("job", "weir"), ("level", "{level}"), ("tenant", "{tenant}")].map(|(name, value)| (name.into(), value.into())).into()
}

fn http_timeout() -> Span {
    Span(30 * NANOS_PER_SECOND)
}

fn http_batch_bytes() -> ByteSize {
    ByteSize(1 << 20)
}

fn http_batch_records() -> u32 {
    10_000
}

fn http_batch_age() -> Span {
    Span(NANOS_PER_SECOND)
}

fn http_retry_statuses() -> Vec<u16> {
    vec![401, 403, 404, 405, 408, 425, 429]
}

fn http_pause_min() -> Span {
    Span(200_000_000)
}

fn http_pause_max() -> Span {
    Span(60 * NANOS_PER_SECOND)
}

fn dead_bytes_max() -> ByteSize {
    ByteSize(64 << 20)
}

fn open_files_max() -> u32 {
    256
}

fn commit_interval() -> Span {
    Span(NANOS_PER_SECOND)
}

fn commit_bytes() -> ByteSize {
    ByteSize(16 << 20)
}

fn lake_url() -> String {
    "file:lake".into()
}

fn lake_index() -> Vec<String> {
    ["service", "model", "level"].map(String::from).to_vec()
}

fn lake_text() -> Vec<String> {
    lake::Fields::default().text
}

fn lake_ids() -> Vec<String> {
    lake::Fields::default().ids
}

fn index_bytes_min() -> ByteSize {
    ByteSize(1 << 20)
}

fn hour_bytes_min() -> ByteSize {
    ByteSize(8 << 20)
}

fn seal_bytes() -> ByteSize {
    ByteSize(32 << 20)
}

fn seal_age() -> Span {
    Span(30 * NANOS_PER_SECOND)
}
