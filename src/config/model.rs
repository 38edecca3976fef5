//! What a pipeline file says: the root of the config.
//!
//! The doc comments are the manual: they become the JSON Schema and the reference page. Components' own configs lie with
//! the components. What only makes sense together is checked in `rules`.

use crate::sinks::config::SinkConfig;
use crate::sources::config::SourceConfig;
use flow::step::{FieldsConfig, Named, OverQuota, QuotaConfig, StepConfig, TenancyConfig};
use flow::units::{ByteSize, Ratio, Span};
use parse::definition::{Definition, Format};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A pipeline file: one straight line from sources through steps to sinks.
///
/// Values may hold `${NAME}`, a variable of the environment that must be set; `$$` is a dollar sign.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the pipeline: letters, digits, `-` and `_`. Absent: the file's name without its ending.
    pub name: Option<String>,
    /// Folder for everything weir keeps, relative to the working directory; `--data` overrides it. One process owns it.
    #[serde(default = "data")]
    pub data: PathBuf,
    /// Most anonymous memory the process may hold. `weir check` prints what each component needs of it.
    #[serde(default = "memory")]
    pub memory: ByteSize,
    /// Lanes, each a thread that takes records from source to hub, 1 to 256. Absent: one for each available core. `--once` uses one.
    pub lanes: Option<u32>,
    /// Labels put on every metric of the admin port, by name: letters, digits and `_`. They are the global layer; `labels` of a source
    /// are the second, and `request_labels` the third.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Labels that a request brings along, each read from fields of the record, on `weir_records_total` and for `shape.set`.
    #[serde(default)]
    pub request_labels: BTreeMap<String, RequestLabelConfig>,
    /// Labels without which nothing starts: each has a value that is not blank, for the process or for every source.
    #[serde(default)]
    pub labels_required: Vec<String>,
    /// Labels that a later layer may give another value.
    #[serde(default)]
    pub labels_override: Vec<String>,
    /// Limits on series by labels.
    #[serde(default)]
    pub label_limits: LabelLimitsConfig,
    /// Where records come from, by name: letters, digits, `-` and `_`.
    pub sources: BTreeMap<String, SourceConfig>,
    /// Parsers of lines that are no JSON, by name, for `parse` of the sources.
    #[serde(default)]
    pub parsers: BTreeMap<String, Definition>,
    /// Libraries of parsers as Fluent Bit has them, classic or YAML, relative to the folder of this file; they are read unchanged.
    #[serde(default)]
    pub parser_files: Vec<PathBuf>,
    /// Who pays for a record.
    #[serde(default)]
    pub tenancy: TenancyConfig,
    /// Which fields hold a record's time, level and message.
    #[serde(default)]
    pub fields: FieldsConfig,
    /// What happens to records, in this order.
    #[serde(default)]
    pub steps: Vec<StepConfig>,
    /// Where decided records wait for the sinks.
    #[serde(default)]
    pub hub: HubConfig,
    /// Where kept records go, by name: letters, digits, `-` and `_`. Each takes all of them, or those that its `when` holds for; one
    /// that a quota diverts to takes what is diverted to it and nothing else.
    pub sinks: BTreeMap<String, SinkConfig>,
    /// The rate card that prices meters, relative to the folder of this file. Absent: usage is counted, not priced.
    pub rates: Option<PathBuf>,
    /// What lineage cannot know from records: datasets, model cards, reports.
    pub lineage: Option<lake::lineage::Block>,
    /// The port for health, metrics and questions. Absent: none is opened.
    pub admin: Option<AdminConfig>,
    /// Where weir's own telemetry goes besides the admin port. Absent: nowhere.
    pub telemetry: Option<TelemetryConfig>,
    /// What questions about stored records may take.
    #[serde(default)]
    pub query: QueryConfig,
    /// Tests of this file, run by `weir test`: lines, and what has to come of them.
    #[serde(default)]
    pub tests: Vec<TestConfig>,
    /// What `parser_files` hold.
    #[serde(skip)]
    pub library: Vec<Definition>,
}

/// Parsers that need no definition.
pub const PARSERS: [&str; 11] =
    ["json", "logfmt", "ltsv", "syslog", "syslog5424", "syslog3164", "nginx", "apache", "klog", "cri", "docker"];

impl Config {
    /// The parser of this name: one of `parsers`, of a library, or one that needs no definition.
    pub fn parser(&self, name: &str) -> Option<Definition> {
        let own = self.parsers.get(name).map(|definition| Definition { name: name.to_string(), ..definition.clone() });
        own.or_else(|| self.library.iter().find(|definition| definition.name == name).cloned()).or_else(|| built_in(name))
    }

    /// The steps that divert to a sink, and its name.
    pub fn diversions(&self) -> impl Iterator<Item = (usize, &str)> {
        self.steps.iter().enumerate().filter_map(|(number, step)| match step {
            StepConfig::Quota(QuotaConfig { over: OverQuota::Divert(Named(sink)), .. }) => Some((number, sink.as_str())),
            _ => None,
        })
    }

    pub fn is_diverted_to(&self, sink: &str) -> bool {
        self.diversions().any(|(_, target)| target == sink)
    }
}

pub fn built_in(name: &str) -> Option<Definition> {
    let format = match name {
        "json" => Format::Json,
        "logfmt" => Format::Logfmt { bare_keys: true },
        "ltsv" => Format::Ltsv,
        "syslog" => Format::Syslog,
        "syslog5424" => Format::Syslog5424,
        "syslog3164" => Format::Syslog3164,
        "nginx" => Format::Nginx,
        "apache" => Format::Apache,
        "klog" => Format::Klog,
        "cri" => Format::Cri,
        "docker" => Format::Docker,
        _ => return None,
    };
    Some(Definition::new(name, format))
}

/// A test: lines of a source, and what has to come of them. Steps remember nothing when it starts.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestConfig {
    /// What it promises.
    pub name: String,
    /// The source whose lines they are. Absent: the first one.
    pub source: Option<String>,
    /// When they arrive, as RFC 3339. Absent: 2026-01-01T00:00:00Z.
    pub at: Option<String>,
    /// The lines, as the source would read them.
    pub input: String,
    /// What has to come of them; what is not said may be anything.
    pub expect: ExpectConfig,
}

/// What has to come of the lines of a test.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectConfig {
    /// For each record in order `kept`, or why it is dropped: filtered, malformed, duplicate, sampled, over_quota, conflict.
    pub verdicts: Option<Vec<String>>,
    /// For each record in order the names of its notes, with a blank between them: `parse_error`, `not_json arrival_time`.
    pub notes: Option<Vec<String>>,
    /// Kept records in order as they leave, then those that weir creates: an object, or the text of a line that is none.
    pub records: Option<Vec<serde_json::Value>>,
    /// For each of `records` who pays.
    pub tenants: Option<Vec<String>>,
    /// For each of `records` its time, as in 2026-01-01T00:00:00.250Z.
    pub times: Option<Vec<String>>,
    /// For each of `records` the sinks that take it, in order of their names.
    pub sinks: Option<Vec<Vec<String>>>,
    /// What meters count, all of it, whatever the minute; and facts that are one event, where `kind`, `at`, `end` or `key` is said.
    pub facts: Option<Vec<FactConfig>>,
}

/// A quantity that a meter counts.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FactConfig {
    /// The meter, by name.
    pub meter: String,
    /// Who pays.
    pub tenant: String,
    /// Values of the meter's dimensions.
    #[serde(default)]
    pub by: BTreeMap<String, String>,
    /// How much, in the unit of the meter.
    pub quantity: i64,
    /// Records behind the quantity. Absent: any number.
    pub events: Option<u64>,
    /// One event, of a meter with a key or of what lasts: `point`, `interval` or `sample`; or one that is refused, whose quantity is 0:
    /// `bad_quantity`, `future` or `part_above_whole`. Absent, with `at`, `end` and `key`: all that is not refused, added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// When it was, as in 2026-01-01T00:00:00.250Z; of an interval its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// When an interval ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Its key: the values of the meter's `key` with a `|` between them; of a refused one, what is no quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A label of the request. What a request says is not trusted: blanks around it go, and what is too long, no UTF-8, holds control
/// characters, is not allowed or is one value too many is the overflow value, and counted.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestLabelConfig {
    /// Fields that may hold it, by path; the first one a record has counts.
    pub from: Vec<String>,
    /// The only values there may be. Absent: any.
    #[serde(default)]
    pub allow: Vec<String>,
    /// The value that stands for those that are not taken.
    #[serde(default = "label_overflow")]
    pub overflow: String,
    /// Most values told apart at a time, 1 to 100000.
    #[serde(default = "label_values_max")]
    pub values_max: u32,
    /// Longest value, in bytes, 1 to 1024.
    #[serde(default = "label_bytes_max")]
    pub bytes_max: u32,
}

/// Limits on series by labels (`weir_records_total`, `weir_record_bytes_total`). A new series beyond them is folded into one whose
/// request labels are their overflow values, and if there is no room either, whose tenant is `__other__`, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelLimitsConfig {
    /// Most series of one metric, 1 to 1000000.
    #[serde(default = "series_per_metric")]
    pub per_metric: u32,
    /// Most series of one tenant in a metric, 1 to 1000000.
    #[serde(default = "series_per_tenant")]
    pub per_tenant: u32,
    /// Most series of all metrics of this pipeline that have these labels, 2 to 2000000.
    #[serde(default = "series_total")]
    pub total: u32,
    /// A series that nothing was added to for this long, 1s to 366d, ends: it is left out from the next page on.
    #[serde(default = "series_idle")]
    pub idle: Span,
}

impl Default for LabelLimitsConfig {
    fn default() -> Self {
        LabelLimitsConfig { per_metric: series_per_metric(), per_tenant: series_per_tenant(), total: series_total(), idle: series_idle() }
    }
}

fn label_overflow() -> String {
    "__other__".into()
}

fn label_values_max() -> u32 {
    100
}

fn label_bytes_max() -> u32 {
    128
}

fn series_per_metric() -> u32 {
    10_000
}

fn series_per_tenant() -> u32 {
    1_000
}

fn series_total() -> u32 {
    20_000
}

fn series_idle() -> Span {
    Span(3_600_000_000_000)
}

/// The hub.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HubConfig {
    /// Records wait on disk: a crash loses nothing that was taken, a slow sink stalls nobody.
    Journal(JournalConfig),
    /// Records wait in memory, for sources that can be read again: positions advance after delivery, the state of steps starts empty.
    Memory(MemoryConfig),
}

impl Default for HubConfig {
    fn default() -> Self {
        HubConfig::Journal(JournalConfig::default())
    }
}

/// The journal on disk.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JournalConfig {
    /// Most bytes on disk, at least 64MiB.
    #[serde(default = "journal_bytes_max")]
    pub bytes_max: ByteSize,
    /// What happens when they are used up.
    #[serde(default)]
    pub when_full: WhenFull,
    /// Longest time until what was taken is durable and sinks may see it, 1ms to 10s.
    #[serde(default = "sync_interval")]
    pub sync_interval: Span,
}

impl Default for JournalConfig {
    fn default() -> Self {
        JournalConfig { bytes_max: journal_bytes_max(), when_full: WhenFull::default(), sync_interval: sync_interval() }
    }
}

/// What a full journal does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Sources wait until the slowest sink has caught up.
    #[default]
    Wait,
    /// The oldest rows are dropped and counted, for each sink that did not have them, as `rejected: dropped_oldest`. Never what was
    /// decided about them: facts, counts and positions stay, in an eighth of the bytes; when that is used up, sources wait.
    DropOldest,
}

/// The hub in memory.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// Most bytes of records that wait, at least 4MiB; when reached, sources wait.
    #[serde(default = "memory_bytes_max")]
    pub bytes_max: ByteSize,
}

/// The admin port.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Address and port, as in `127.0.0.1:9140`. Loopback only: the port has no TLS.
    #[serde(default = "admin_listen")]
    pub listen: String,
    /// File with a line `sha256:HEX TENANT` for each token, relative to the folder of this file: who sends `Authorization: Bearer TOKEN`
    /// sees that tenant's records and nothing else, and everything if the tenant is `*`. Absent: whoever reaches the port sees everything.
    /// `/livez`, `/readyz` and `/metrics`, which names tenants, need no token.
    pub tokens_file: Option<PathBuf>,
}

/// Weir's own telemetry, pushed by OTLP over HTTP: the metrics of the page `/metrics`, the same number in each, and spans of what sinks
/// deliver.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Where requests go, as in `http://127.0.0.1:4318`: `/v1/metrics` and `/v1/traces` are put behind it. TLS is not built: for `https` put
    /// a proxy on this machine that speaks it.
    pub otlp: String,
    /// How often, 1s to 1h.
    #[serde(default = "telemetry_interval")]
    pub interval: Span,
    /// Share of deliveries of which a span is sent, 0 to 1; of one sink at most 256 in an interval.
    #[serde(default = "no_spans")]
    pub spans: Ratio,
    /// The attribute `service.name`.
    #[serde(default = "telemetry_service")]
    pub service: String,
}

/// What questions about stored records over the port may take; on the command line `--memory` says how much memory.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryConfig {
    /// Most memory of one question for what its pipes keep or its answer holds, besides `memory`, at least 8MiB.
    #[serde(default = "query_memory")]
    pub memory: ByteSize,
    /// How long a question over the port may take, at least 1s; then it is answered with what was found, marked as partial.
    #[serde(default = "query_deadline")]
    pub deadline: Span,
    /// Most bytes of stored files that a question over the port reads; then it is partial, too. Absent: no limit.
    pub read_bytes_max: Option<ByteSize>,
    /// Most questions at a time over the port, 1 to 64, and as many who read along; beyond it the answer is 429.
    #[serde(default = "query_at_a_time")]
    pub at_a_time: u32,
    /// Most questions at a time of one tenant, at most `at_a_time`.
    #[serde(default = "query_at_a_time_per_tenant")]
    pub at_a_time_per_tenant: u32,
}

impl Default for QueryConfig {
    fn default() -> QueryConfig {
        QueryConfig {
            memory: query_memory(),
            deadline: query_deadline(),
            read_bytes_max: None,
            at_a_time: query_at_a_time(),
            at_a_time_per_tenant: query_at_a_time_per_tenant(),
        }
    }
}

fn query_memory() -> ByteSize {
    ByteSize(128 << 20)
}

fn query_deadline() -> Span {
    Span(30_000_000_000)
}

fn query_at_a_time() -> u32 {
    4
}

fn query_at_a_time_per_tenant() -> u32 {
    2
}

fn data() -> PathBuf {
    "weir-data".into()
}

fn memory() -> ByteSize {
    ByteSize(256 << 20)
}

fn journal_bytes_max() -> ByteSize {
    ByteSize(4 << 30)
}

fn sync_interval() -> Span {
    Span(20_000_000)
}

fn memory_bytes_max() -> ByteSize {
    ByteSize(32 << 20)
}

fn no_spans() -> Ratio {
    Ratio::new(0.0).expect("0 is a ratio")
}

fn telemetry_interval() -> Span {
    Span(15_000_000_000)
}

fn telemetry_service() -> String {
    "weir".into()
}

fn admin_listen() -> String {
    "127.0.0.1:9140".into()
}
