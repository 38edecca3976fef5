//! What a pipeline file says about tenancy, fields and steps.
//!
//! The doc comments are the manual: they become the JSON Schema and the reference page. Types are as written
//! in the file; what only makes sense together (a filter after a meter, two meters of one name) is checked by
//! the binary's `config`, which knows line and column. Nothing here is bounded but the sampling policy's keys.

use super::quota::{Period, Unit};
use crate::conventions;
use crate::meter::DurationUnit;
use crate::units::{Amount, ByteSize, Ratio, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Who pays for a record.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenancyConfig {
    /// Fields that may name the tenant, by path; the first one a record has decides. The bytes count as received:
    /// `Acme` and `acme` are two tenants.
    #[serde(default = "tenancy_from")]
    pub from: Vec<String>,
    /// What these fields hold.
    #[serde(default)]
    pub read_as: ReadAs,
    /// Tenant of records that name none.
    #[serde(default = "tenancy_unknown")]
    pub unknown: String,
    /// Most tenants told apart; when reached, records of further ones count as `unknown` and are noted as `tenant_over_limit`.
    #[serde(default = "tenants_max")]
    pub tenants_max: u32,
    /// The only tenants that records may name; a record that names another one belongs to `overflow`. Absent: any.
    pub allow: Option<Vec<String>>,
    /// Tenant of records that name one that is not in `allow`, or with `read_as: header` what is no name.
    #[serde(default = "tenancy_overflow")]
    pub overflow: String,
}

impl Default for TenancyConfig {
    fn default() -> Self {
        TenancyConfig {
            from: tenancy_from(),
            read_as: ReadAs::Bytes,
            unknown: tenancy_unknown(),
            tenants_max: tenants_max(),
            allow: None,
            overflow: tenancy_overflow(),
        }
    }
}

/// What a field that names the tenant holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadAs {
    /// The tenant's name, byte for byte: `acme` and `acme ` are two tenants.
    #[default]
    Bytes,
    /// A header that the far side wrote: blanks around it are no part of its value, and one that is longer than 256 bytes, is no
    /// UTF-8 or holds control characters is no name, but the `overflow` tenant's. What is left is the name, byte for byte.
    Header,
}

fn tenancy_from() -> Vec<String> {
    vec!["tenant".into(), "kubernetes.labels.tenant".into()]
}

fn tenancy_unknown() -> String {
    "unassigned".into()
}

fn tenancy_overflow() -> String {
    "__other__".into()
}

fn tenants_max() -> u32 {
    10_000
}

/// Which fields hold a record's time, level and message; in each list the first one a record has counts.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldsConfig {
    /// Event time: RFC 3339 text, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970; the first of these
    /// fields that can be read counts. Beside one that ends with `Seconds` or `.seconds`, one with `Nanos` or `.nanos` is added. A
    /// record without a usable time takes its arrival time and is noted as `arrival_time`.
    #[serde(default = "fields_time")]
    pub time: Vec<String>,
    /// Severity, as a word (`info`) or a number: of `severityNumber` as OpenTelemetry has them, of `PRIORITY` as syslog, of others as
    /// pino, bunyan (30) and logback (20000). The first of these fields that can be read counts.
    #[serde(default = "fields_level")]
    pub level: Vec<String>,
    /// Text for people.
    #[serde(default = "fields_message")]
    pub message: Vec<String>,
}

impl Default for FieldsConfig {
    fn default() -> Self {
        FieldsConfig { time: fields_time(), level: fields_level(), message: fields_message() }
    }
}

fn fields_time() -> Vec<String> {
    conventions::TIME.map(String::from).to_vec()
}

fn fields_level() -> Vec<String> {
    conventions::LEVEL.map(String::from).to_vec()
}

fn fields_message() -> Vec<String> {
    conventions::MESSAGE.map(String::from).to_vec()
}

/// One step. Steps run as written; each record gets one verdict and the first drop wins.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepConfig {
    /// Drops the records that match a condition, for the reason `filtered`.
    Drop(FilterConfig),
    /// Keeps the records that match a condition and drops all others, for the reason `filtered`.
    Keep(FilterConfig),
    /// Adds up what tenants used. Counts kept records and those dropped only to save volume (`sampled`, `over_quota`),
    /// wherever it stands; never filtered, malformed or duplicate ones.
    Meter(MeterConfig),
    /// Drops copies of records, for the reason `duplicate`: sent twice, or mirrored. The first one wins.
    Dedup(Box<DedupConfig>),
    /// Masks, hashes or drops what nobody may read. Meters read records as they were received.
    Redact(Box<RedactConfig>),
    /// Keeps, removes, renames, sets and cuts fields. Meters read records as they were received.
    Shape(Box<ShapeConfig>),
    /// Thins out records by level, for the reason `sampled`: their cost still counts, their bytes do not travel.
    Sample(SampleConfig),
    /// Limits what each tenant may send in a period of the calendar, for the reason `over_quota`: the cost of what goes beyond
    /// still counts, its bytes do not travel.
    Quota(QuotaConfig),
    /// Keeps requests or traces as a whole if one of their records matches, and of all others a share or none (`sampled`): decided
    /// when `decision_wait` is over, until when records wait on disk. Its verdict comes after every other step.
    Tail(TailConfig),
}

/// A filter by condition.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    /// The condition, as in `path == "/healthz" && status < 400`.
    pub when: String,
    /// Needed where the filter stands after a meter that has already counted the records it drops.
    #[serde(default)]
    pub metered: Metered,
}

/// Whether a filter may drop records that a meter has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metered {
    /// The filter stands before every meter: what it drops is not billed.
    #[default]
    No,
    /// The filter may stand after a meter: what it drops has been counted and stays billed.
    Anyway,
}

/// One meter, or with `usage` the four of a convention.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeterConfig {
    /// Name of the meter, as rate cards and bills show it. One of a kind. With `usage` it may be left out; else `chat` makes
    /// `chat_tokens_in` of `tokens_in`.
    #[serde(default)]
    pub name: String,
    /// The fields in which requests to models tell their tokens, instead of `quantity`, `unit` and `part_of`: one step, and the meters
    /// `tokens_in`, `tokens_out`, `tokens_cache_read` and `tokens_cache_write`; or usage events, which name their meters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageFields>,
    /// The object in which the fields of `usage` stand, as in `attributes`. Absent: the record itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// How quantities become usage. Absent: `sum` where there is a `quantity`, else `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<MeterKind>,
    /// The field that holds the quantity, a whole number. Absent: each record counts as 1.
    pub quantity: Option<String>,
    /// What the quantity counts, as in `Tokens`. Needed with `quantity` and for `interval`; without both the unit is `Records`.
    pub unit: Option<String>,
    /// Fields the quantity is told apart by, besides the tenant.
    #[serde(default)]
    pub by: Vec<String>,
    /// Only records that match this condition are counted. Absent: all.
    pub when: Option<String>,
    /// A field whose quantity includes this one, as input tokens include cached ones. A record in which the part is above
    /// the whole is not metered and is noted as `part_above_whole`.
    pub part_of: Option<String>,
    /// Fields that name the event, as in `request_id`: each record is a fact of its own, and of those with the same key only the first
    /// is charged, however often it was sent. A key longer than 512 bytes is cut and hashed. A record without any of the fields counts
    /// and is noted as `no_key`. Absent: quantities are added up by minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// For `interval`: the field with the time from which on it was held, in any form that `fields.time` takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// For `interval`: the field with the time at which it was let go. Absent: `start` and `duration` say it, or else the record's own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// For `interval`: the field that says how long it was held, a number of 0 or more. Without `start` it ends at `end`, or else at the
    /// record's own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// What `duration` counts. Absent: what its name ends in, as in `duration_ms` or `heldSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_unit: Option<DurationUnit>,
}

/// How the quantities of a meter become usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MeterKind {
    /// Each record counts as 1.
    Count,
    /// Quantities are added up.
    Sum,
    /// Something was held from one time to another, `quantity` of it or 1: what is priced is how much for how long. An end before the
    /// start, or more than 400 days after it, is noted as `bad_quantity`. A record without one of the named fields is passed over.
    Interval,
    /// The quantity is a level at the record's time, which holds until the next one of the same tenant and dimensions: what is priced is
    /// its integral over time.
    Integral,
}

/// Where requests to models tell their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageFields {
    /// OpenTelemetry: `gen_ai.usage.input_tokens` and so on, as keys with dots or as objects. Input includes what a cache had.
    GenAi,
    /// Chat completions of OpenAI, vLLM and their kin: `usage.prompt_tokens`, `usage.completion_tokens`,
    /// `usage.prompt_tokens_details.cached_tokens`. Input includes what a cache had.
    Openai,
    /// Responses of OpenAI: `usage.input_tokens`, `usage.output_tokens`, `usage.input_tokens_details.cached_tokens`. Input includes what
    /// a cache had.
    OpenaiResponses,
    /// Messages of Anthropic: `usage.input_tokens`, `usage.output_tokens`, `usage.cache_read_input_tokens`,
    /// `usage.cache_creation_input_tokens`. Input is what no cache had.
    Anthropic,
    /// Usage events that an `http` source with `usage: true` took, or records of the same form: `meter`, `quantity` and `unit`, or
    /// `start` and `end` of what was held. Each event names its meter itself; `source` and `id` are its key. `by` without a list is
    /// `service` and `model`.
    Events,
}

impl MeterConfig {
    /// Its kind, where it says none what follows from the rest.
    pub fn kind(&self) -> MeterKind {
        let by_quantity = if self.quantity.is_some() || self.usage.is_some() { MeterKind::Sum } else { MeterKind::Count };
        self.kind.unwrap_or(by_quantity)
    }

    /// Its unit, where it says none `Records`.
    pub fn unit(&self) -> &str {
        self.unit.as_deref().unwrap_or("Records")
    }

    /// Each record is a fact of its own.
    pub fn is_of_events(&self) -> bool {
        !self.key.is_empty() || matches!(self.kind(), MeterKind::Interval | MeterKind::Integral)
    }

    /// What the duration counts, if anybody says so.
    pub fn duration_unit(&self) -> Option<DurationUnit> {
        self.duration_unit.or_else(|| DurationUnit::of_field(self.duration.as_deref()?))
    }

    /// Every field that the meter itself reads: what it counts, tells apart, and knows copies by.
    pub fn own_fields(&self) -> impl Iterator<Item = &str> {
        let one = [&self.quantity, &self.part_of, &self.start, &self.end, &self.duration];
        one.into_iter().flatten().chain(&self.by).chain(&self.key).map(String::as_str)
    }
}

/// Quotas of tenants. A record that stands for several counts as several.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaConfig {
    /// Records in each second; periods are those of the calendar in UTC. Of several limits all hold.
    pub records_per_second: Option<u64>,
    /// Records in each minute.
    pub records_per_minute: Option<u64>,
    /// Records in each hour.
    pub records_per_hour: Option<u64>,
    /// Records in each day.
    pub records_per_day: Option<u64>,
    /// Records in each month.
    pub records_per_month: Option<u64>,
    /// Bytes in each second, as the records were received.
    pub bytes_per_second: Option<ByteSize>,
    /// Bytes in each minute.
    pub bytes_per_minute: Option<ByteSize>,
    /// Bytes in each hour.
    pub bytes_per_hour: Option<ByteSize>,
    /// Bytes in each day.
    pub bytes_per_day: Option<ByteSize>,
    /// Bytes in each month.
    pub bytes_per_month: Option<ByteSize>,
    /// Money in each second, as in `"12.50"` or `"12.50 USD"`: what the pipeline's meters count in a record, at the list prices of its
    /// rate card (`rates`) in the minute of the record's own time. Usage without a price costs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money_per_second: Option<Amount>,
    /// Money in each minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money_per_minute: Option<Amount>,
    /// Money in each hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money_per_hour: Option<Amount>,
    /// Money in each day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money_per_day: Option<Amount>,
    /// Money in each month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money_per_month: Option<Amount>,
    /// Who has a quota: `tenant`, or a field, each value of which has one within its tenant.
    #[serde(default = "quota_by")]
    pub by: String,
    /// How many periods' worth of unused quota gathers and may be used on top; 0 lets none gather.
    #[serde(default)]
    pub burst: u32,
    /// What becomes of records over quota: `drop`, `{ sample: 0.01 }` to keep that share, `{ divert: SINK }` to keep them apart, or
    /// `delay` to keep all and wait.
    #[serde(default)]
    pub over: OverQuota,
    /// The clock that periods run on; with `over: delay` it is `arrival`.
    #[serde(default)]
    pub clock: Clock,
    /// Most tenants or values with quotas of their own; when reached, those whose quota is whole are forgotten, and if there are
    /// none, further ones share one.
    #[serde(default = "quota_keys_max")]
    pub keys_max: u32,
}

/// What becomes of records over quota.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverQuota {
    /// They are dropped.
    #[default]
    Drop,
    /// This share of them is kept, chosen by a hash of the record.
    Sample(Ratio),
    /// They are kept, and this sink alone takes them; it takes nothing else. Needs the journal. Later steps see them as any others.
    Divert(Named),
    /// All of them are kept, and the log they came from is not read on until its quota has filled again: on average the limit holds
    /// exactly, and it is exceeded by at most one chunk (256KiB) of each log. Other logs go on; in one log all tenants wait together.
    /// A writer's file is rotated meanwhile as ever, and read to its end in its turn. Not with `--once`, which never waits.
    Delay,
}

fn quota_by() -> String {
    "tenant".into()
}

fn quota_keys_max() -> u32 {
    100_000
}

impl QuotaConfig {
    /// The limits that are set: name, unit, period, amount (of money in 10^-12).
    pub fn limits(&self) -> Vec<(&'static str, Unit, Period, i128)> {
        let number = |number: Option<u64>| number.map(i128::from);
        let bytes = |size: Option<ByteSize>| size.map(|size| i128::from(size.0));
        let (records, size) = (Unit::Records, Unit::Bytes);
        let limits = [
            ("records_per_second", records, Period::Second, number(self.records_per_second)),
            ("records_per_minute", records, Period::Minute, number(self.records_per_minute)),
            ("records_per_hour", records, Period::Hour, number(self.records_per_hour)),
            ("records_per_day", records, Period::Day, number(self.records_per_day)),
            ("records_per_month", records, Period::Month, number(self.records_per_month)),
            ("bytes_per_second", size, Period::Second, bytes(self.bytes_per_second)),
            ("bytes_per_minute", size, Period::Minute, bytes(self.bytes_per_minute)),
            ("bytes_per_hour", size, Period::Hour, bytes(self.bytes_per_hour)),
            ("bytes_per_day", size, Period::Day, bytes(self.bytes_per_day)),
            ("bytes_per_month", size, Period::Month, bytes(self.bytes_per_month)),
        ];
        let money = self.money().map(|(name, period, amount)| (name, Unit::Money, period, Some(amount.units)));
        limits.into_iter().chain(money).filter_map(|(name, unit, period, amount)| Some((name, unit, period, amount?))).collect()
    }

    /// The limits in money that are set.
    pub fn money(&self) -> impl Iterator<Item = (&'static str, Period, Amount)> {
        let limits = [
            ("money_per_second", Period::Second, self.money_per_second),
            ("money_per_minute", Period::Minute, self.money_per_minute),
            ("money_per_hour", Period::Hour, self.money_per_hour),
            ("money_per_day", Period::Day, self.money_per_day),
            ("money_per_month", Period::Month, self.money_per_month),
        ];
        limits.into_iter().filter_map(|(name, period, amount)| Some((name, period, amount?)))
    }
}

/// Tail sampling. A record is kept if a record of its tenant with the same key matches `keep` and was received not more than
/// `decision_wait` before or after it; a record without key, if it matches itself.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TailConfig {
    /// Fields that name the request or trace; the first one a record has counts.
    #[serde(default = "tail_key")]
    pub key: Vec<String>,
    /// The condition, as in `level == "error" || latency_ms > 1000`.
    pub keep: String,
    /// What becomes of the others: `none`, or the share of them that is kept, as in `0.01`, chosen by a hash of their key.
    #[serde(default)]
    pub rest: Rest,
    /// How long a record waits for others of its request, by arrival; with `--once`, how far apart in their own time they may be.
    /// All of it passes before a record reaches the sinks.
    #[serde(default = "tail_wait")]
    pub decision_wait: Span,
    /// Most requests remembered that have a matching record, at about 50 bytes each. When full, a further one is not remembered:
    /// only its matching records are sure to be kept. That is counted and told.
    #[serde(default = "tail_keys_max")]
    pub keys_max: u32,
    /// Most bytes on disk for the records that wait, at least 64MiB. When full, the oldest are decided early; that is counted and told.
    #[serde(default = "tail_bytes_max")]
    pub bytes_max: ByteSize,
}

fn tail_key() -> Vec<String> {
    ["trace_id", "request_id"].map(String::from).to_vec()
}

fn tail_wait() -> Span {
    Span(30 * crate::units::NANOS_PER_SECOND)
}

fn tail_keys_max() -> u32 {
    1_000_000
}

fn tail_bytes_max() -> ByteSize {
    ByteSize(4 << 30)
}

/// What a tail sampler keeps of requests without a match. Written as `none` or a ratio.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rest {
    /// Nothing.
    #[default]
    None,
    /// This share of them.
    Share(Ratio),
}

impl<'de> Deserialize<'de> for Rest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = Rest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none`, or a ratio such as 0.01")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rest, E> {
                match text {
                    "none" => Ok(Rest::None),
                    _ => Err(E::custom(format!(
                        "`{text}` is neither `none` nor a ratio; a ratio is the share of requests to keep, from 0 to 1; write 0.01"
                    ))),
                }
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Rest, E> {
                Ratio::new(number).map(Rest::Share).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Rest, E> {
                self.visit_f64(number as f64)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Rest, E> {
                self.visit_f64(number as f64)
            }
        }
        d.deserialize_any(Form)
    }
}

impl Serialize for Rest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Rest::None => s.serialize_str("none"),
            Rest::Share(ratio) => ratio.serialize(s),
        }
    }
}

impl JsonSchema for Rest {
    fn schema_name() -> Cow<'static, str> {
        "Rest".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let ratio = generator.subschema_for::<Ratio>();
        json_schema!({ "description": "`none`, or the share that is kept.", "oneOf": [{ "const": "none" }, ratio] })
    }
}

/// Redaction.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedactConfig {
    /// Fields to look into, and everything below them. Absent: all values of a record; keys are never touched. With neither
    /// `patterns` nor `detect` the whole values of these fields are redacted.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Regular expressions: what matches is redacted. They see strings as they are meant, without escapes, and numbers.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// What to look for besides.
    #[serde(default)]
    pub detect: Vec<super::detect::Detect>,
    /// What becomes of it.
    #[serde(default)]
    pub action: RedactAction,
}

/// What becomes of what is redacted.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedactAction {
    /// It is replaced by a text. A number becomes a string.
    Mask(MaskConfig),
    /// It is replaced by 32 hexadecimal digits of its HMAC-SHA-256: equal values stay equal, and nobody without the key can try
    /// values out.
    Hash(HashConfig),
    /// The field goes in which it was found; in a list, the element.
    Drop(GoneConfig),
}

impl Default for RedactAction {
    fn default() -> Self {
        RedactAction::Mask(MaskConfig { with: mask_with() })
    }
}

/// A mask.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskConfig {
    /// The text that stands in.
    #[serde(default = "mask_with")]
    pub with: String,
}

fn mask_with() -> String {
    "***".into()
}

/// A keyed hash; the key comes from a file or from the environment and is never shown.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashConfig {
    /// File with the key; white space at its end is no part of it.
    pub key_file: Option<std::path::PathBuf>,
    /// Name of the environment variable with the key.
    pub key_env: Option<String>,
}

/// Nothing to choose.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoneConfig {}

/// Shaping: first `keep` and `remove`, then `rename`, then `set`; `truncate` cuts what was there before.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShapeConfig {
    /// Fields that stay, with everything below them; absent: all.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Fields that go.
    #[serde(default)]
    pub remove: Vec<String>,
    /// New keys of fields, which stay where they are: `{ msg: message }`. A field that had the key before goes.
    #[serde(default)]
    pub rename: std::collections::BTreeMap<String, String>,
    /// Fields at the end of the record; one of the same name goes.
    #[serde(default)]
    pub set: std::collections::BTreeMap<String, SetValue>,
    /// Longest texts.
    pub truncate: Option<TruncateConfig>,
}

/// What a field is set to.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SetValue {
    /// A text.
    Text(Named),
    /// The value of another field; where there is none, nothing is set.
    Field(Named),
    /// The value of a label: of the request if it has one (`request_labels`), else of the record's source, else of the process
    /// (`labels`). Where there is none, nothing is set.
    Label(Named),
    /// What an expression in a subset of CEL makes of the record, as in `service + "/" + string(status / 100) + "xx"`. Where it has
    /// no value (a missing field, a type it does not take, an overflow), the field stays as it was and the record is noted as `not_set`.
    Expr(Named),
}

/// A text, the path of a field, the name of a label or sink, or an expression.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Named(pub String);

/// Cutting of long texts.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TruncateConfig {
    /// Longest text kept whole; a longer one is cut at the border of a character and its record is noted as `truncated`.
    pub bytes_max: crate::units::ByteSize,
    /// Fields it is for, with everything below them; absent: all.
    #[serde(default)]
    pub fields: Vec<String>,
}

/// Dropping of copies.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupConfig {
    /// Fields that together name what a record tells of, as [request_id, method]. Records of one tenant that agree in all of
    /// them are one; a record that lacks one of them is named by `request`, or else by all its members.
    #[serde(default)]
    pub key: Vec<String>,
    /// What names the request of a record without `key`.
    #[serde(default)]
    pub request: RequestConfig,
    /// How far apart two records may be and still be copies. Both sides count: a copy may be older than the first one seen.
    #[serde(default = "dedup_window")]
    pub window: Span,
    /// Most keys remembered, over all lanes, at about 45 bytes each. When full, the key that was made first is forgotten: a copy
    /// may then pass, but no new record is taken for a copy.
    #[serde(default = "dedup_keys_max")]
    pub keys_max: u32,
    /// The clock that `window` runs on.
    #[serde(default)]
    pub clock: Clock,
    /// How copies are told that a mesh or a proxy made.
    #[serde(default)]
    pub mirror: MirrorConfig,
    /// Whether equal requests that name neither `key` nor an idempotency key are copies.
    #[serde(default)]
    pub repeats: Repeats,
    /// Fields that must be the same in a copy; where they differ it is a conflict. Absent: method, path, body and idempotency
    /// key of `request`, for records that are named by `key`.
    pub content: Option<Vec<String>>,
    /// What happens to a record that has the key of an earlier one and other content.
    #[serde(default)]
    pub conflict: Conflict,
    /// Needed where the step stands after a meter that has already counted the records it drops.
    #[serde(default)]
    pub metered: Metered,
}

fn dedup_window() -> Span {
    Span(600 * crate::units::NANOS_PER_SECOND)
}

fn dedup_keys_max() -> u32 {
    250_000
}

/// Fields that hold the parts of a request; in each list the first one a record has counts.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestConfig {
    /// Host or authority; that of a mirrored copy is the same as that of its original.
    #[serde(default = "request_host")]
    pub host: Vec<String>,
    /// Method.
    #[serde(default = "request_method")]
    pub method: Vec<String>,
    /// Path with query, or URL. Spellings that mean the same are the same, in whatever order parameters stand.
    #[serde(default = "request_path")]
    pub path: Vec<String>,
    /// Body, or a hash of it.
    #[serde(default = "request_body")]
    pub body: Vec<String>,
    /// Idempotency key: two honest requests that are equal but for it are two.
    #[serde(default = "request_idempotency")]
    pub idempotency: Vec<String>,
}

impl Default for RequestConfig {
    fn default() -> Self {
        let (host, method, path) = (request_host(), request_method(), request_path());
        RequestConfig { host, method, path, body: request_body(), idempotency: request_idempotency() }
    }
}

fn request_host() -> Vec<String> {
    ["host", "authority"].map(String::from).to_vec()
}

fn request_method() -> Vec<String> {
    vec!["method".into()]
}

fn request_path() -> Vec<String> {
    ["path", "url"].map(String::from).to_vec()
}

fn request_body() -> Vec<String> {
    vec!["body_hash".into()]
}

fn request_idempotency() -> Vec<String> {
    vec!["idempotency_key".into()]
}

/// How mirrored copies are told.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// What a mesh puts behind the first label of a copy's host.
    #[serde(default = "mirror_suffix")]
    pub suffix: String,
    /// A field that only copies have, or in which only they have something else than false, 0 or nothing.
    pub marker: Option<String>,
}

impl Default for MirrorConfig {
    fn default() -> Self {
        MirrorConfig { suffix: mirror_suffix(), marker: None }
    }
}

fn mirror_suffix() -> String {
    "-shadow".into()
}

/// Whether equal requests without any id are copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Repeats {
    /// They are copies within the window.
    #[default]
    Drop,
    /// They are copies only if one of both is mirrored and the other is not: people may ask the same twice.
    Keep,
}

/// What happens to a conflict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Conflict {
    /// It is kept and noted as `conflict`; no meter counts it, as the first one was counted.
    #[default]
    Keep,
    /// It is dropped for the reason `conflict`.
    Drop,
}

/// Sampling by level. What is left out can be restored: a kept record that stands for several says so in `sample_rate` and
/// `sampler`, and where no record came to stand for them, a summary says how many there were (`"weir.summary"`).
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleConfig {
    /// What to keep of each level.
    pub levels: SampleLevels,
    /// What to keep of levels that are not listed and of records without a level. Errors and above are kept whole unless they are
    /// listed.
    #[serde(default)]
    pub other: Policy,
    /// The clock that `tick` runs on.
    #[serde(default)]
    pub clock: Clock,
}

impl SampleConfig {
    /// The policy for a level: an error that nobody spoke of is never left out.
    pub fn policy(&self, level: &str) -> &Policy {
        let listed = self.levels.entries().into_iter().find(|entry| entry.0 == level).and_then(|entry| entry.1);
        let unlisted = if matches!(level, "error" | "fatal") { &Policy::All } else { &self.other };
        listed.unwrap_or(unlisted)
    }
}

/// A policy for each level; one that is absent follows `other`, errors and above are kept.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleLevels {
    /// Policy for severities 1 to 4.
    pub trace: Option<Policy>,
    /// Policy for severities 5 to 8.
    pub debug: Option<Policy>,
    /// Policy for severities 9 to 12.
    pub info: Option<Policy>,
    /// Policy for severities 13 to 16.
    pub warn: Option<Policy>,
    /// Policy for severities 17 to 20.
    pub error: Option<Policy>,
    /// Policy for severities 21 to 24.
    pub fatal: Option<Policy>,
}

impl SampleLevels {
    /// Level names and their policies, least severe first.
    pub fn entries(&self) -> [(&'static str, Option<&Policy>); 6] {
        [
            ("trace", self.trace.as_ref()),
            ("debug", self.debug.as_ref()),
            ("info", self.info.as_ref()),
            ("warn", self.warn.as_ref()),
            ("error", self.error.as_ref()),
            ("fatal", self.fatal.as_ref()),
        ]
    }
}

/// Which clock windows run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The time in the record: two runs over the same input keep the same records.
    #[default]
    Event,
    /// The time at which weir read the record.
    Arrival,
}

/// What a sampler keeps. Written as `all`, `none`, `{ ratio: 0.1, key: request_id }`,
/// `{ first: 1000, thereafter: 0, tick: 1s }`, `{ when: 'request_id.endsWith("0")', weight: 10 }`,
/// `{ average: 10, by: [service] }` (also `ema` and `throughput`) or `{ reservoir: 1000, tick: 1s }` (also `priority`).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Policy {
    /// Every record.
    #[default]
    All,
    /// No record: the level is off.
    None,
    /// The share `ratio`, chosen by a hash of the field `key`: records with the same key are kept or dropped as a whole.
    /// Without `key`, and for records without that field, by a hash of the whole record.
    Ratio { ratio: Ratio, key: Option<String> },
    /// Per message and `tick`: the `first` records, then every `thereafter`-th; 0 keeps none after the first.
    First { first: u64, thereafter: u64, tick: Span, by: Vec<String>, exact_keys: bool, keys_max: u32, per_tenant: bool },
    /// The records that match, each standing for `weight` of them.
    When { when: String, weight: u32 },
    /// A rate for each key, made anew after each `interval`.
    Dynamic { method: Dynamic, goal: u32, by: Vec<String>, interval: Span, keys_max: u32, per_tenant: bool },
    /// About `size` records of each tick.
    Window { kind: WindowKind, size: u32, tick: Span, per_tenant: bool },
}

/// How the rates of keys follow from their counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    Average,
    Ema,
    Throughput,
}

/// Which records of a window are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    Reservoir,
    Priority,
}

impl Dynamic {
    pub fn name(self) -> &'static str {
        match self {
            Dynamic::Average => "average",
            Dynamic::Ema => "ema",
            Dynamic::Throughput => "throughput",
        }
    }

    fn interval(self) -> Span {
        let seconds = match self {
            Dynamic::Average => 30,
            Dynamic::Ema => 15,
            Dynamic::Throughput => 1,
        };
        Span(seconds * crate::units::NANOS_PER_SECOND)
    }
}

impl WindowKind {
    pub fn name(self) -> &'static str {
        match self {
            WindowKind::Reservoir => "reservoir",
            WindowKind::Priority => "priority",
        }
    }
}

/// Default of `keys_max` where rates are told apart by key, as in dynsampler, and where counters are.
const RATE_KEYS: u32 = 500;
const COUNTER_KEYS: u32 = 10_000;

const POLICY_FORMS: &str = "a policy is `all`, `none`, { ratio, key }, { first, thereafter, tick, by, exact_keys, keys_max, per_tenant }, { when, weight }, { average, ema or throughput, by, interval, keys_max, per_tenant } or { reservoir or priority, tick, per_tenant }; as in { ratio: 0.1, key: request_id }";

fn tick_default() -> Span {
    Span(crate::units::NANOS_PER_SECOND)
}

/// Every key a policy can have; which of them may stand together is decided after reading.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyKeys {
    ratio: Option<Ratio>,
    key: Option<String>,
    first: Option<u64>,
    thereafter: Option<u64>,
    tick: Option<Span>,
    when: Option<String>,
    weight: Option<u32>,
    average: Option<u32>,
    ema: Option<u32>,
    throughput: Option<u32>,
    reservoir: Option<u32>,
    priority: Option<u32>,
    by: Option<Vec<String>>,
    interval: Option<Span>,
    exact_keys: Option<bool>,
    keys_max: Option<u32>,
    per_tenant: Option<bool>,
}

impl PolicyKeys {
    /// Which of the forms this is; an error says what is too much or lacks.
    fn policy(self) -> Result<Policy, String> {
        let given: Vec<&str> = [
            ("ratio", self.ratio.is_some()),
            ("key", self.key.is_some()),
            ("first", self.first.is_some()),
            ("thereafter", self.thereafter.is_some()),
            ("tick", self.tick.is_some()),
            ("when", self.when.is_some()),
            ("weight", self.weight.is_some()),
            ("average", self.average.is_some()),
            ("ema", self.ema.is_some()),
            ("throughput", self.throughput.is_some()),
            ("reservoir", self.reservoir.is_some()),
            ("priority", self.priority.is_some()),
            ("by", self.by.is_some()),
            ("interval", self.interval.is_some()),
            ("exact_keys", self.exact_keys.is_some()),
            ("keys_max", self.keys_max.is_some()),
            ("per_tenant", self.per_tenant.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect();
        let only = |form: &str, allowed: &[&str]| match given.iter().find(|name| !allowed.contains(name)) {
            Some(stray) => Err(format!("`{stray}` does not go with `{form}`; {POLICY_FORMS}")),
            None => Ok(()),
        };
        let tick = self.tick.unwrap_or(tick_default());
        let per_tenant = self.per_tenant.unwrap_or(false);
        let by = self.by.unwrap_or_default();
        let goals = [(Dynamic::Average, self.average), (Dynamic::Ema, self.ema), (Dynamic::Throughput, self.throughput)];
        let sizes = [(WindowKind::Reservoir, self.reservoir), (WindowKind::Priority, self.priority)];
        if let Some(ratio) = self.ratio {
            only("ratio", &["ratio", "key"])?;
            return Ok(Policy::Ratio { ratio, key: self.key });
        }
        if let Some(first) = self.first {
            only("first", &["first", "thereafter", "tick", "by", "exact_keys", "keys_max", "per_tenant"])?;
            let exact_keys = self.exact_keys.unwrap_or(per_tenant);
            for (name, given) in [("keys_max", self.keys_max.is_some()), ("per_tenant", per_tenant)] {
                if given && !exact_keys {
                    return Err(format!("`{name}` needs `exact_keys: true`: zap's slots are shared by all; {POLICY_FORMS}"));
                }
            }
            let (thereafter, keys_max) = (self.thereafter.unwrap_or(0), self.keys_max.unwrap_or(COUNTER_KEYS));
            return Ok(Policy::First { first, thereafter, tick, by, exact_keys, keys_max, per_tenant });
        }
        if let Some(when) = self.when {
            only("when", &["when", "weight"])?;
            return Ok(Policy::When { when, weight: self.weight.unwrap_or(1) });
        }
        for (method, goal) in goals {
            if let Some(goal) = goal {
                only(method.name(), &[method.name(), "by", "interval", "keys_max", "per_tenant"])?;
                let (interval, keys_max) = (self.interval.unwrap_or(method.interval()), self.keys_max.unwrap_or(RATE_KEYS));
                return Ok(Policy::Dynamic { method, goal, by, interval, keys_max, per_tenant });
            }
        }
        for (kind, size) in sizes {
            if let Some(size) = size {
                only(kind.name(), &[kind.name(), "tick", "per_tenant"])?;
                return Ok(Policy::Window { kind, size, tick, per_tenant });
            }
        }
        Err(format!("a policy lacks `ratio`, `first`, `when`, `average`, `ema`, `throughput`, `reservoir` or `priority`; {POLICY_FORMS}"))
    }
}

struct PolicyVisitor;

impl<'de> Visitor<'de> for PolicyVisitor {
    type Value = Policy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a policy such as all, none or { ratio: 0.1, key: request_id }")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Policy, E> {
        match word {
            "all" => Ok(Policy::All),
            "none" => Ok(Policy::None),
            _ => Err(E::custom(format!("`{word}` is no policy; {POLICY_FORMS}"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Policy, A::Error> {
        let keys: PolicyKeys = serde::Deserialize::deserialize(de::value::MapAccessDeserializer::new(map))?;
        keys.policy().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(PolicyVisitor)
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        match self {
            Policy::All => s.serialize_str("all"),
            Policy::None => s.serialize_str("none"),
            Policy::Ratio { ratio, key } => {
                let mut map = s.serialize_map(None)?;
                map.serialize_entry("ratio", ratio)?;
                if let Some(key) = key {
                    map.serialize_entry("key", key)?;
                }
                map.end()
            }
            Policy::First { first, thereafter, tick, by, exact_keys, keys_max, per_tenant } => {
                let mut map = s.serialize_map(None)?;
                map.serialize_entry("first", first)?;
                map.serialize_entry("thereafter", thereafter)?;
                map.serialize_entry("tick", tick)?;
                if !by.is_empty() {
                    map.serialize_entry("by", by)?;
                }
                if *exact_keys {
                    map.serialize_entry("exact_keys", exact_keys)?;
                    map.serialize_entry("keys_max", keys_max)?;
                    map.serialize_entry("per_tenant", per_tenant)?;
                }
                map.end()
            }
            Policy::Dynamic { method, goal, by, interval, keys_max, per_tenant } => {
                let mut map = s.serialize_map(Some(5))?;
                map.serialize_entry(method.name(), goal)?;
                map.serialize_entry("by", by)?;
                map.serialize_entry("interval", interval)?;
                map.serialize_entry("keys_max", keys_max)?;
                map.serialize_entry("per_tenant", per_tenant)?;
                map.end()
            }
            Policy::Window { kind, size, tick, per_tenant } => {
                let mut map = s.serialize_map(Some(3))?;
                map.serialize_entry(kind.name(), size)?;
                map.serialize_entry("tick", tick)?;
                map.serialize_entry("per_tenant", per_tenant)?;
                map.end()
            }
            Policy::When { when, weight } => {
                let mut map = s.serialize_map(Some(2))?;
                map.serialize_entry("when", when)?;
                map.serialize_entry("weight", weight)?;
                map.end()
            }
        }
    }
}

impl JsonSchema for Policy {
    fn schema_name() -> Cow<'static, str> {
        "Policy".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let ratio = generator.subschema_for::<Ratio>();
        let span = |what: &str, default: &str| json_schema!({ "description": what, "type": "string", "pattern": "^[0-9]+ *(ns|us|ms|s|m|h|d)$", "default": default });
        let per_tenant = || json_schema!({ "description": "Every tenant has its own, so that none uses up another's share.", "type": "boolean", "default": false });
        let goal = || json_schema!({ "description": "The goal.", "type": "integer", "minimum": 1 });
        let dynamic = |name: &str, what: &str, interval: &str| {
            json_schema!({
                "description": what, "type": "object", "additionalProperties": false, "required": [name],
                "properties": {
                    name: goal(),
                    "by": { "description": "Fields to tell keys apart by.", "type": "array", "items": { "type": "string" } },
                    "interval": span("How long is counted for the next rates.", interval),
                    "keys_max": { "description": "Most keys that are counted; further ones have rate 1.", "type": "integer", "minimum": 1, "default": 500 },
                    "per_tenant": per_tenant()
                }
            })
        };
        let window = |name: &str, what: &str| {
            json_schema!({
                "description": what, "type": "object", "additionalProperties": false, "required": [name],
                "properties": { name: goal(), "tick": span("How long a tick is, as in 1s.", "1s"), "per_tenant": per_tenant() }
            })
        };
        json_schema!({
            "description": "What a sampler keeps.",
            "oneOf": [
                { "description": "Every record.", "type": "string", "const": "all" },
                { "description": "No record.", "type": "string", "const": "none" },
                {
                    "description": "The share `ratio`, chosen by a hash of the field `key`: records with the same key are kept or dropped as a whole.",
                    "type": "object", "additionalProperties": false, "required": ["ratio"],
                    "properties": {
                        "ratio": ratio,
                        "key": { "description": "Field to choose by. Absent: the whole record.", "type": "string" }
                    }
                },
                {
                    "description": "Per message and `tick`: the `first` records, then every `thereafter`-th.",
                    "type": "object", "additionalProperties": false, "required": ["first"],
                    "properties": {
                        "first": { "description": "Records kept at the start of each tick.", "type": "integer", "minimum": 0 },
                        "thereafter": { "description": "After them, one record in so many is kept; 0 keeps none.", "type": "integer", "minimum": 0, "default": 0 },
                        "tick": { "description": "How long a tick is, as in 1s.", "type": "string", "pattern": "^[0-9]+ *(ns|us|ms|s|m|h|d)$", "default": "1s" },
                        "by": { "description": "Fields to count by instead of the message.", "type": "array", "items": { "type": "string" } },
                        "exact_keys": { "description": "Every key has a counter of its own. Without, keys whose hashes meet in one of 4,096 slots share one, as in zap.", "type": "boolean", "default": false },
                        "keys_max": { "description": "Most keys with counters of their own; when reached, those whose tick is over are forgotten, and if there are none, further ones share one.", "type": "integer", "minimum": 1, "default": 10000 },
                        "per_tenant": { "description": "Every tenant has counters of its own, so that none uses up another's share.", "type": "boolean", "default": false }
                    }
                },
                {
                    "description": "The records that match a condition, each standing for `weight` of them.",
                    "type": "object", "additionalProperties": false, "required": ["when"],
                    "properties": {
                        "when": { "description": "The condition.", "type": "string" },
                        "weight": { "description": "How many records each kept one stands for.", "type": "integer", "minimum": 1, "default": 1 }
                    }
                },
                dynamic("average", "A rate for each key: 1 in so many of all, rare keys whole and frequent ones thinned out, from the counts of the last interval.", "30s"),
                dynamic("ema", "The same from moving averages, which remember keys that pause.", "15s"),
                dynamic("throughput", "So many records a second, shared alike among the keys; sums of weights are exact.", "1s"),
                window("reservoir", "About so many records of each tick, all with the same chance, by a threshold from the tick before: exactly so many can be known only when the tick is over, and nothing is held back."),
                window("priority", "The same, with a chance by weight: records that stand for many are kept.")
            ]
        })
    }
}
