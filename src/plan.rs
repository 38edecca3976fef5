//! A plan: a checked config, compiled to what lanes and sinks run.
//!
//! In: a pipeline file without mistakes. Out: the set of fields that anybody asks for, steps, meters and
//! tenancy over that set, and per sink what it routes by. Every field has one number for the whole plan.

mod prices;

use crate::config::Config;
use crate::runtime::caretaker::{GRACE, RUN_BYTES_MAX};
use crate::sinks::archive::{self, Calendar, Compress, Room, Settings, Template};
use crate::sinks::{self, ArchiveConfig, HttpBody, HttpConfig, LakeConfig, PrometheusSink, SinkConfig, http};
use crate::sources::{self, Malformed, ParseConfig, SourceConfig};
use anyhow::Context;
use flow::condition::{Condition, Expression};
use flow::conventions::{LevelField, TimeField, nanos_beside, scale};
use flow::counter::{Counters, Window};
use flow::decode::{Encoding, Format, Limits, Multiline};
use flow::event::EventKind;
use flow::fields::{FIELDS_MAX, FieldSet};
use flow::labels::{self, Labels};
use flow::meter::{Events, Group, METERS_PER_GROUP_MAX, Meter, Meters, Times};
use flow::parse::Parsing;
use flow::pipeline::{Reading, Rules, Sampling as Shared};
use flow::select::Selection;
use flow::stamp::{RATE, SAMPLER};
use flow::step::quota::{Limit, Over, Unit};
use flow::step::rates::{Method, Rates};
use flow::step::redact::{Action, HashKey, Redact};
use flow::step::sample::{Counting, Key, LEVELS, Policy as Sampling, key_hash};
use flow::step::seen::Seen;
use flow::step::shape::{Shape, Value};
use flow::step::tail;
use flow::step::threshold::Threshold;
use flow::step::{
    Clock, Conflict, Dedup, DedupConfig, Dynamic, Filter, FilterConfig, HashConfig, MeterConfig, MeterKind, Metered, Mirror, Named,
    OverQuota, Policy, Quota, QuotaConfig, ReadAs, RedactAction, RedactConfig, Repeats, Request, Rest, Sample, SampleConfig, SetValue,
    ShapeConfig, Step, StepConfig, Tail, TailConfig, WindowKind,
};
use flow::tenancy::Tenants;
use flow::units::ByteSize;
use hub::frame::{OTHERS, SINKS_MAX};
use std::path::Path;
use std::sync::Arc;

/// Name of the meter behind lineage: sightings of services, not items of a bill.
pub const LINEAGE_METER: &str = "lineage";

/// In `quota.by`: who pays, whatever names it.
pub const BY_TENANT: &str = "tenant";

pub struct Plan {
    pub name: String,
    pub rules: Arc<Rules>,
    /// Fields that sinks route by, by number: the columns of every frame.
    pub columns: Vec<usize>,
    pub sources: Vec<SourcePlan>,
    pub sinks: Vec<SinkPlan>,
}

pub struct SourcePlan {
    pub name: String,
    pub config: SourceConfig,
    pub format: Format,
    pub limits: Limits,
    pub multiline: Option<Multiline>,
    pub encoding: Encoding,
    pub reading: Reading,
    pub parsing: Option<Arc<Parsing>>,
}

pub struct SinkPlan {
    pub name: String,
    pub kind: SinkKind,
}

pub enum SinkKind {
    Stdout,
    Blackhole,
    Archive { settings: Box<Settings>, columns: Vec<usize>, commit: sinks::CommitConfig, drops_newest: bool },
    Lake { root: std::path::PathBuf, options: Box<lake::Options>, seal: sinks::SealConfig, care: Box<lake::maintain::Options> },
    Http { settings: Box<http::Settings> },
    Prometheus { config: Box<PrometheusSink> },
}

/// Numbers the fields that a plan names, in order of first mention.
#[derive(Default)]
struct Fields(Vec<String>);

impl Fields {
    fn number(&mut self, path: &str) -> usize {
        match self.0.iter().position(|p| p == path) {
            Some(number) => number,
            None => {
                self.0.push(path.to_string());
                self.0.len() - 1
            }
        }
    }

    fn numbers(&mut self, paths: &[String]) -> Vec<usize> {
        paths.iter().map(|p| self.number(p)).collect()
    }

    fn time(&mut self, path: &str) -> TimeField {
        TimeField { field: self.number(path), nanos: nanos_beside(path).map(|nanos| self.number(&nanos)) }
    }

    fn expression(&mut self, text: &str) -> anyhow::Result<Expression> {
        Expression::parse(text, &mut |path| self.number(path))
            .map_err(|e| anyhow::anyhow!("expression {text:?}: {} ({})", e.message, e.help))
    }

    fn condition(&mut self, text: &str) -> anyhow::Result<Condition> {
        Condition::parse(text, &mut |path| self.number(path)).map_err(|e| anyhow::anyhow!("condition {text:?}: {} ({})", e.message, e.help))
    }
}

/// Compiles one pipeline. `data`: the data folder; `rates`: its rate card.
pub fn compile(name: &str, config: &Config, data: &Path, rates: Option<&bill::Card>) -> anyhow::Result<Plan> {
    compile_with(name, config, data, rates, tenants(config))
}

/// Compiles a pipeline whose steps have changed while it runs: tenants keep their numbers, and steps whose config is the same
/// go on with what they remember. Fields have other numbers.
pub fn recompile(before: &Plan, config: &Config, data: &Path, rates: Option<&bill::Card>) -> anyhow::Result<Plan> {
    let mut plan = compile_with(&before.name, config, data, rates, Arc::clone(&before.rules.tenants))?;
    let rules = Arc::get_mut(&mut plan.rules).expect("nobody else has it yet");
    rules.share(&before.rules);
    Ok(plan)
}

fn tenants(config: &Config) -> Arc<Tenants> {
    let tenancy = &config.tenancy;
    let tenants = Tenants::new(&tenancy.unknown, tenancy.tenants_max as usize);
    let tenants = match tenancy.read_as {
        ReadAs::Bytes => tenants,
        ReadAs::Header => tenants.read_headers(&tenancy.overflow),
    };
    Arc::new(match &tenancy.allow {
        Some(allow) => tenants.allow(allow, &tenancy.overflow),
        None => tenants,
    })
}

fn compile_with(name: &str, config: &Config, data: &Path, rates: Option<&bill::Card>, tenants: Arc<Tenants>) -> anyhow::Result<Plan> {
    let mut fields = Fields::default();
    let tenant = fields.numbers(&config.tenancy.from);
    let time = config.fields.time.iter().map(|path| fields.time(path)).collect();
    let level = config.fields.level.iter().map(|path| LevelField { field: fields.number(path), scale: scale(path) }).collect();
    let selection = compile_selection(config, &mut fields)?;
    let labels = compile_labels(config, &mut fields);
    let (mut steps, step_ids) = compile_steps(config, rates, &tenants, &selection, &mut fields)?;
    let meters = compile_meters(config, &mut fields)?;
    for step in &mut steps {
        if let Step::Quota(quota) = step
            && quota.limits.iter().any(|limit| limit.unit == Unit::Money)
        {
            quota.prices = rates.map(|card| prices::compile(card, &meters));
        }
    }
    let mut sampling = Shared::default();
    if steps.iter().any(|step| step.terms().is_some()) {
        (sampling.rate, sampling.sampler) = (Some(fields.number(RATE)), Some(fields.number(SAMPLER)));
    }
    let (columns, sinks) = compile_sinks(name, config, data, &mut fields)?;
    anyhow::ensure!(
        fields.0.len() <= FIELDS_MAX,
        "pipeline {name} names {} fields; a plan can ask for {FIELDS_MAX}; name fewer fields, or split the pipeline in two",
        fields.0.len()
    );
    let rules = Rules {
        fields: Arc::new(FieldSet::new(&fields.0)),
        time,
        level,
        tenant,
        tenants,
        steps,
        step_ids,
        meters,
        sampling,
        selection,
        labels,
    };
    let sources = config.sources.iter().map(|(name, source)| compile_source(name, source, config)).collect::<anyhow::Result<_>>()?;
    Ok(Plan { name: name.to_string(), rules: Arc::new(rules), columns, sources, sinks })
}

fn compile_source(name: &str, source: &SourceConfig, config: &Config) -> anyhow::Result<SourcePlan> {
    // What others send comes as whole lines of JSON, whatever it was sent as; nothing of it is joined.
    let whole = sources::JoinConfig::default();
    let (format, malformed, line, join, multiline, encoding) = match source {
        SourceConfig::File(c) => (c.format, c.malformed, c.line_bytes_max, &c.join, c.multiline.as_ref(), c.encoding),
        SourceConfig::Stdin(c) => (c.format, c.malformed, c.line_bytes_max, &c.join, None, Encoding::Auto),
        SourceConfig::Http(c) => (sources::Format::Json, c.malformed, c.line_bytes_max, &whole, None, Encoding::Utf8),
        // A message grows by its names and escapes.
        SourceConfig::Syslog(c) => {
            let line = ByteSize(c.message_bytes_max.0.saturating_mul(8));
            (sources::Format::Json, Malformed::Keep, line, &whole, None, Encoding::Utf8)
        }
        // What weir itself writes, out of bodies that are bounded.
        SourceConfig::Otlp(_)
        | SourceConfig::RemoteWrite(_)
        | SourceConfig::Scrape(_)
        | SourceConfig::Watch(_)
        | SourceConfig::Gpu(_)
        | SourceConfig::Host(_) => (sources::Format::Json, Malformed::Keep, ByteSize(64 << 20), &whole, None, Encoding::Utf8),
    };
    let multiline =
        multiline.map(Multiline::new).transpose().map_err(anyhow::Error::msg).with_context(|| format!("sources.{name}.multiline"))?;
    let format = match format {
        sources::Format::Json => Format::Json,
        sources::Format::Cri => Format::Cri,
        sources::Format::Docker => Format::Docker,
        sources::Format::Container => Format::Container,
        sources::Format::Text => Format::Text,
    };
    Ok(SourcePlan {
        name: name.to_string(),
        config: source.clone(),
        format,
        limits: Limits { line_bytes_max: line.0 as usize, join_bytes_max: join.bytes_max.0 as usize, join_age_ns: join.age.0 },
        multiline,
        encoding,
        reading: Reading { json: format != Format::Text, drop_malformed: malformed == Malformed::Drop },
        parsing: compile_parse(source.parse(), malformed, config)?.map(Arc::new),
    })
}

fn compile_parse(stages: &[ParseConfig], malformed: Malformed, config: &Config) -> anyhow::Result<Option<Parsing>> {
    if stages.is_empty() {
        return Ok(None);
    }
    let definition = |name: &String| config.parser(name).with_context(|| format!("there is no parser {name}"));
    let stage = |parse: &ParseConfig| {
        Ok(flow::parse::Options {
            parsers: parse.with.iter().map(definition).collect::<anyhow::Result<Vec<_>>>()?,
            field: parse.field.clone(),
            keep_field: parse.keep_field,
            keep_others: parse.keep_others,
            original: parse.original.clone(),
            drop_unmatched: malformed == Malformed::Drop,
        })
    };
    let stages = stages.iter().map(stage).collect::<anyhow::Result<Vec<_>>>()?;
    Parsing::new(&stages).map(Some).map_err(anyhow::Error::msg)
}

/// Who takes what, where any sink does not take everything.
fn compile_selection(config: &Config, fields: &mut Fields) -> anyhow::Result<Selection> {
    let mut selection = Selection::default();
    for (name, sink) in &config.sinks {
        let bit = 1u32.checked_shl(selection.names.len() as u32).with_context(|| format!("more than {SINKS_MAX} sinks have conditions"))?;
        match sink.when() {
            _ if config.is_diverted_to(name) => {}
            Some(when) => selection.conditions.push((bit, fields.condition(when)?)),
            None => continue,
        }
        selection.names.push(name.as_bytes().into());
    }
    if config.diversions().next().is_some() {
        selection.unconditional =
            1u32.checked_shl(selection.names.len() as u32).with_context(|| format!("more than {SINKS_MAX} sinks have conditions"))?;
        selection.names.push(OTHERS.into());
    }
    Ok(selection)
}

/// Labels of sources and requests. Those of requests are found only where somebody reads them: the port, or a step.
fn compile_labels(config: &Config, fields: &mut Fields) -> Labels {
    let has_labels = !config.request_labels.is_empty() || config.sources.values().any(|source| !source.labels().is_empty());
    let shaped = label_names(config).any(|label| config.request_labels.contains_key(label));
    let counted = has_labels && config.admin.is_some();
    let mut request = Vec::new();
    for (name, label) in &config.request_labels {
        let from = if shaped || counted { fields.numbers(&label.from) } else { Vec::new() };
        let (bytes_max, values_max) = (label.bytes_max as usize, label.values_max as usize);
        let mut compiled = labels::Request::new(name, from, &label.overflow, bytes_max, values_max);
        compiled.allow = label.allow.iter().cloned().collect();
        request.push(compiled);
    }
    let limits = &config.label_limits;
    let limits = labels::Limits {
        per_metric: limits.per_metric as usize,
        per_tenant: limits.per_tenant as usize,
        total: limits.total as usize,
        idle_ns: limits.idle.0,
    };
    let sources = config.sources.iter().map(|(name, source)| (name.clone(), source.labels().clone())).collect();
    let mut labels = Labels::new(request, sources, limits);
    (labels.shaped, labels.counted) = (shaped, counted);
    labels
}

/// Labels that steps put into records.
pub fn label_names(config: &Config) -> impl Iterator<Item = &str> {
    let shapes = config.steps.iter().filter_map(|step| if let StepConfig::Shape(shape) = step { Some(shape) } else { None });
    shapes
        .flat_map(|shape| shape.set.values())
        .filter_map(|value| if let SetValue::Label(label) = value { Some(label.0.as_str()) } else { None })
}

/// The steps that decide, and a name for each: a hash of its config and of how many like it came before.
/// (What is left of a quota in money is worth something else in another currency.)
fn compile_steps(
    config: &Config,
    rates: Option<&bill::Card>,
    tenants: &Arc<Tenants>,
    selection: &Selection,
    fields: &mut Fields,
) -> anyhow::Result<(Vec<Step>, Vec<u32>)> {
    let mut steps = Vec::new();
    let mut ids: Vec<u32> = Vec::new();
    for (number, step) in config.steps.iter().enumerate() {
        let mut text = serde_json::to_vec(step).context("a step cannot be written as JSON")?;
        if let (StepConfig::Quota(quota), Some(card)) = (step, rates)
            && quota.money().next().is_some()
        {
            text.extend_from_slice(card.currency.as_bytes());
        }
        let mut id = key_hash(&text) as u32;
        while ids.contains(&id) {
            id = id.wrapping_add(1);
        }
        if !matches!(step, StepConfig::Meter(_)) {
            ids.push(id);
        }
        match step {
            StepConfig::Drop(filter) => steps.push(compile_filter(filter, true, fields)?),
            StepConfig::Keep(filter) => steps.push(compile_filter(filter, false, fields)?),
            StepConfig::Quota(quota) => steps.push(compile_quota(number, quota, selection, fields)?),
            StepConfig::Sample(sample) => steps.push(compile_sample(number, sample, &config.fields.message, fields)?),
            StepConfig::Redact(redact) => steps.push(compile_redact(redact, fields)?),
            StepConfig::Shape(shape) => steps.push(compile_shape(shape, config, fields)?),
            StepConfig::Dedup(dedup) => steps.push(compile_dedup(dedup, id, tenants, fields)),
            StepConfig::Tail(tail) => steps.push(compile_tail(number, tail, fields)?),
            // Meters run when all verdicts are final, wherever they are written.
            StepConfig::Meter(_) => {}
        }
    }
    Ok((steps, ids))
}

/// Names the fields that frames carry for routing: a hash of their names, in order.
pub fn routes(names: &[&str]) -> u64 {
    key_hash(names.join("\0").as_bytes())
}

fn compile_filter(filter: &FilterConfig, drops: bool, fields: &mut Fields) -> anyhow::Result<Step> {
    let when = fields.condition(&filter.when)?;
    Ok(Step::Filter(Filter { when, drops, metered_anyway: filter.metered == Metered::Anyway }))
}

fn compile_redact(redact: &RedactConfig, fields: &mut Fields) -> anyhow::Result<Step> {
    let action = match &redact.action {
        RedactAction::Mask(mask) => Action::Mask(mask.with.clone().into_bytes()),
        RedactAction::Hash(hash) => Action::Hash(HashKey::new(secret(hash)?)),
        RedactAction::Drop(_) => Action::Drop,
    };
    let chosen = redact.fields.iter().map(|path| (fields.number(path), path.clone().into_bytes())).collect();
    let redact = Redact::new(chosen, &redact.patterns, &redact.detect, action).map_err(anyhow::Error::msg)?;
    Ok(Step::Redact(Box::new(redact)))
}

/// The key of a hash; errors do not show it.
fn secret(hash: &HashConfig) -> anyhow::Result<Vec<u8>> {
    let key = crate::secrets::read("the key of `redact`", hash.key_file.as_deref(), hash.key_env.as_deref())?;
    anyhow::ensure!(key.len() >= 16, "the key of `redact` is shorter than 16 bytes; a short one can be guessed");
    Ok(key)
}

fn compile_shape(shape: &ShapeConfig, config: &Config, fields: &mut Fields) -> anyhow::Result<Step> {
    let bytes = |paths: &[String]| paths.iter().map(|p| p.clone().into_bytes()).collect::<Vec<_>>();
    let mut set = Vec::new();
    for (name, value) in &shape.set {
        let text = |text: &String| serde_json::to_vec(text).context("a text is JSON");
        let value = match value {
            SetValue::Text(value) => Value::Constant(text(&value.0)?),
            SetValue::Field(path) => Value::Field(fields.number(&path.0)),
            SetValue::Expr(text) => Value::Expression(Box::new(fields.expression(&text.0)?)),
            SetValue::Label(Named(label)) => {
                let of_source = |source: &SourceConfig| source.labels().get(label).or(config.labels.get(label)).map(text).transpose();
                Value::Label {
                    request: config.request_labels.keys().position(|own| own == label),
                    of_source: config.sources.values().map(of_source).collect::<anyhow::Result<_>>()?,
                }
            }
        };
        set.push((name.clone().into_bytes(), value));
    }
    Ok(Step::Shape(Box::new(Shape {
        keep: bytes(&shape.keep),
        remove: shape.remove.iter().map(|path| (fields.number(path), path.clone().into_bytes())).collect(),
        rename: shape.rename.iter().map(|(from, to)| (fields.number(from), from.clone().into_bytes(), to.clone().into_bytes())).collect(),
        set,
        truncate: shape.truncate.as_ref().map(|t| (t.bytes_max.0 as usize, bytes(&t.fields))),
    })))
}

fn compile_dedup(dedup: &DedupConfig, id: u32, tenants: &Arc<Tenants>, fields: &mut Fields) -> Step {
    let parts = &dedup.request;
    let request = Request {
        host: fields.numbers(&parts.host),
        method: fields.numbers(&parts.method),
        path: fields.numbers(&parts.path),
        body: fields.numbers(&parts.body),
        idempotency: fields.numbers(&parts.idempotency),
    };
    let mirror = Mirror {
        suffix: dedup.mirror.suffix.to_ascii_lowercase().into_bytes(),
        marker: dedup.mirror.marker.as_deref().map(|marker| fields.number(marker)),
        aside: parts.host.iter().chain(&dedup.mirror.marker).cloned().collect(),
    };
    Step::Dedup(Box::new(Dedup {
        id,
        key: fields.numbers(&dedup.key),
        request,
        content: dedup.content.as_ref().map(|content| fields.numbers(content)),
        window_ns: dedup.window.0,
        by_arrival: dedup.clock == Clock::Arrival,
        mirror,
        honest_repeats: dedup.repeats == Repeats::Keep,
        drop_conflicts: dedup.conflict == Conflict::Drop,
        metered_anyway: dedup.metered == Metered::Anyway,
        tenants: Arc::clone(tenants),
        seen: Arc::new(Seen::new(dedup.keys_max as usize)),
    }))
}

fn compile_sample(number: usize, sample: &SampleConfig, message: &[String], fields: &mut Fields) -> anyhow::Result<Step> {
    let mut policies = Vec::new();
    for (number, level) in LEVELS.into_iter().enumerate() {
        let policy = sample.policy(level);
        policies.push(match policy {
            Policy::All => Sampling::All,
            Policy::None => Sampling::None,
            Policy::Ratio { ratio, key } => Sampling::ratio(ratio.get(), key.as_deref().map(|k| fields.number(k))),
            Policy::First { first, thereafter, tick, by, exact_keys, keys_max, per_tenant } => {
                let window = Window { first: *first, thereafter: *thereafter, tick_ns: tick.0 };
                let key = Key { fields: fields.numbers(by), per_tenant: *per_tenant };
                Sampling::Counter(Counting::new(window, key, if *exact_keys { *keys_max as usize } else { 0 }, number))
            }
            Policy::Dynamic { method, goal, by, interval, keys_max, per_tenant } => {
                let method = match method {
                    Dynamic::Average => Method::Average(*goal),
                    Dynamic::Ema => Method::Ema(*goal),
                    Dynamic::Throughput => Method::Throughput(*goal),
                };
                let key = Key { fields: fields.numbers(by), per_tenant: *per_tenant };
                Sampling::Rates(Arc::new(Rates::new(method, interval.0, *keys_max as usize)), key)
            }
            Policy::Window { kind, size, tick, per_tenant } => {
                let key = Key { fields: Vec::new(), per_tenant: *per_tenant };
                Sampling::Threshold(Arc::new(Threshold::new(*size, tick.0, *kind == WindowKind::Priority)), key)
            }
            Policy::When { when, weight } => Sampling::When { when: fields.condition(when)?, weight: *weight },
        });
    }
    let policies: [Sampling; 7] = policies.try_into().ok().expect("one policy for each of the seven levels");
    let message = fields.numbers(message);
    let by_arrival = sample.clock == Clock::Arrival;
    Ok(Step::Sample(Box::new(Sample {
        name: format!("steps[{number}].sample").into(),
        policies,
        message,
        by_arrival,
        counters: Arc::new(Counters::new()),
    })))
}

fn compile_quota(number: usize, quota: &QuotaConfig, selection: &Selection, fields: &mut Fields) -> anyhow::Result<Step> {
    let limit = |(_, unit, period, amount): (_, _, _, i128)| {
        let full = amount.saturating_mul(1 + i128::from(quota.burst));
        Limit { unit, period, amount, full }
    };
    let limits = quota.limits().into_iter().map(limit).collect();
    let by = (quota.by != BY_TENANT).then(|| fields.number(&quota.by));
    let over = match &quota.over {
        OverQuota::Drop => Over::Drop,
        OverQuota::Sample(ratio) => Over::Sample { below: (ratio.get() * 18_446_744_073_709_551_616.0) as u64 }, // 2^64
        OverQuota::Divert(Named(sink)) => {
            let at = selection.names.iter().position(|name| **name == *sink.as_bytes());
            Over::Divert { sink: at.with_context(|| format!("steps[{number}].quota diverts to {sink}, which is no sink"))? as u8 }
        }
        OverQuota::Delay => Over::Delay,
    };
    let name = format!("steps[{number}].quota").into();
    // Only the clock tells when to read on.
    let by_arrival = quota.clock == Clock::Arrival || over == Over::Delay;
    Ok(Step::Quota(Box::new(Quota::new(name, limits, by, over, by_arrival, quota.keys_max as usize))))
}

fn compile_tail(number: usize, config: &TailConfig, fields: &mut Fields) -> anyhow::Result<Step> {
    Ok(Step::Tail(Box::new(Tail {
        name: format!("steps[{number}].tail").into(),
        key: fields.numbers(&config.key),
        keep: fields.condition(&config.keep)?,
        rest: match config.rest {
            Rest::None => tail::Rest::None,
            Rest::Share(ratio) => tail::Rest::share(ratio.get()),
        },
        wait_ns: config.decision_wait.0,
        keys_max: config.keys_max as usize,
    })))
}

fn compile_meters(config: &Config, fields: &mut Fields) -> anyhow::Result<Meters> {
    let configs = crate::config::meters(config);
    let mut meters = Meters::default();
    for meter in &configs {
        let whole = meter.part_of.as_deref().map(|f| fields.number(f));
        let quantity = meter.quantity.as_deref().map(|f| fields.number(f));
        let parts: Vec<usize> = configs
            .iter()
            .filter(|other| other.part_of.is_some() && other.part_of == meter.quantity)
            .filter_map(|other| other.quantity.as_deref())
            .map(|f| fields.number(f))
            .collect();
        for field in parts.iter().copied().chain(meter.own_fields().map(|field| fields.number(field)).collect::<Vec<_>>()) {
            meters.fields |= 1 << field;
        }
        let unit = meter.unit().to_string();
        let compiled = Meter { name: meter.name.clone(), unit, quantity, parts, wholes: whole.into_iter().collect(), lineage: false };
        let dims: Vec<(String, usize)> = meter.by.iter().map(|f| (f.clone(), fields.number(f))).collect();
        let events = compile_events(meter, fields)?;
        add_meter(&mut meters, dims, meter.when.as_deref(), events, compiled, fields)?;
    }
    if let Some(block) = &config.lineage {
        let dims = vec![("service".to_string(), fields.number(&block.service)), ("model".to_string(), fields.number(&block.model))];
        let meter = Meter {
            name: LINEAGE_METER.into(),
            unit: "Records".into(),
            quantity: None,
            parts: Vec::new(),
            wholes: Vec::new(),
            lineage: true,
        };
        add_meter(&mut meters, dims, None, None, meter, fields)?;
    }
    Ok(meters)
}

/// How the records of a meter become facts one by one; `None`: they are added up.
fn compile_events(meter: &MeterConfig, fields: &mut Fields) -> anyhow::Result<Option<Events>> {
    if !meter.is_of_events() {
        return Ok(None);
    }
    let kind = match meter.kind() {
        MeterKind::Count | MeterKind::Sum => EventKind::Point,
        MeterKind::Interval => EventKind::Interval,
        MeterKind::Integral => EventKind::Sample,
    };
    let mut number = |field: &Option<String>| field.as_deref().map(|field| fields.number(field));
    let (start, end, duration) = (number(&meter.start), number(&meter.end), number(&meter.duration));
    let unit = || meter.duration_unit().with_context(|| format!("meter {} does not say what its duration counts", meter.name));
    let duration = duration.map(|field| Ok::<_, anyhow::Error>((field, unit()?))).transpose()?;
    Ok(Some(Events { kind, key: fields.numbers(&meter.key), times: Times { start, end, duration } }))
}

/// Meters with the same dimensions, condition and kind of facts share a group, so that records are grouped once.
fn add_meter(
    meters: &mut Meters,
    dims: Vec<(String, usize)>,
    when: Option<&str>,
    events: Option<Events>,
    meter: Meter,
    fields: &mut Fields,
) -> anyhow::Result<()> {
    let is_alike = |g: &Group| g.dims == dims && g.when_text.as_deref() == when && g.events == events;
    let same = |g: &&mut Group| is_alike(g) && g.meters.len() < METERS_PER_GROUP_MAX;
    if let Some(group) = meters.groups.iter_mut().find(same) {
        group.meters.push(meter);
        return Ok(());
    }
    let condition = when.map(|text| fields.condition(text)).transpose()?;
    meters.groups.push(Group { dims, when: condition, when_text: when.map(String::from), events, meters: vec![meter] });
    Ok(())
}

fn compile_sinks(pipeline: &str, config: &Config, data: &Path, fields: &mut Fields) -> anyhow::Result<(Vec<usize>, Vec<SinkPlan>)> {
    let mut columns = Vec::new();
    let mut sinks = Vec::new();
    for (name, sink) in &config.sinks {
        let kind = match sink {
            SinkConfig::Stdout(_) => SinkKind::Stdout,
            SinkConfig::Blackhole(_) => SinkKind::Blackhole,
            SinkConfig::Archive(archive) => compile_archive(pipeline, name, archive, data, fields, &mut columns)?,
            SinkConfig::Lake(lake) => compile_lake(config, lake, data)?,
            SinkConfig::Http(_) | SinkConfig::RemoteWrite(_) | SinkConfig::Otlp(_) => {
                let http = sink.http().context("a sink that sends has a url")?;
                compile_http(pipeline, name, &http, data, fields, &mut columns)?
            }
            SinkConfig::Prometheus(config) => SinkKind::Prometheus { config: Box::new(config.clone()) },
        };
        sinks.push(SinkPlan { name: name.clone(), kind });
    }
    Ok((columns, sinks))
}

fn compile_archive(
    pipeline: &str,
    name: &str,
    config: &ArchiveConfig,
    data: &Path,
    fields: &mut Fields,
    columns: &mut Vec<usize>,
) -> anyhow::Result<SinkKind> {
    let path = Template::parse(&config.path).map_err(anyhow::Error::msg).with_context(|| format!("sinks.{name}.archive.path"))?;
    let mut own = Vec::new();
    for field in path.fields() {
        let number = fields.number(field);
        let column = columns.iter().position(|c| *c == number).unwrap_or_else(|| {
            columns.push(number);
            columns.len() - 1
        });
        own.push(column);
    }
    let log_dir = data.join("archive").join(format!("{pipeline}.{name}"));
    let rotate = config.rotate.as_ref();
    let room = config.room.as_ref();
    let zone = rotate.and_then(|r| r.zone.as_deref()).unwrap_or("UTC");
    let at = rotate.and_then(|r| r.at).map(|at| match at {
        sinks::Boundary::Hour => archive::Boundary::Hour,
        sinks::Boundary::Day => archive::Boundary::Day,
    });
    let names = match rotate.map_or(sinks::NameZone::Utc, |r| r.names) {
        sinks::NameZone::Utc => archive::zone("UTC"),
        sinks::NameZone::Local => archive::zone(zone),
    };
    let names = names.with_context(|| format!("sinks.{name}.archive.rotate.zone"))?;
    let at =
        at.map(|at| anyhow::Ok((at, archive::zone(zone)?))).transpose().with_context(|| format!("sinks.{name}.archive.rotate.zone"))?;
    let settings = Settings {
        dir: config.dir.clone().unwrap_or_else(|| log_dir.join("files")),
        log_dir,
        path,
        rotate_bytes: rotate.and_then(|r| r.size).map_or(0, |size| size.0),
        calendar: Calendar { every: rotate.and_then(|r| r.every), at },
        names,
        rotate_on_hangup: rotate.is_some_and(|r| r.on_sighup),
        room: Room {
            free_bytes_min: room.and_then(|r| r.min_free_bytes).map_or(0, |bytes| bytes.0),
            total_bytes_max: room.and_then(|r| r.max_total_bytes).map_or(0, |bytes| bytes.0),
        },
        backups: rotate.and_then(|r| r.backups).unwrap_or(0),
        age: rotate.and_then(|r| r.age),
        compress: match config.compress {
            sinks::Compress::None => Compress::None,
            sinks::Compress::Gzip => Compress::Gzip,
            sinks::Compress::Zstd => Compress::Zstd,
        },
        open_files_max: config.open_files_max as usize,
        buffer_bytes_max: 8 << 20,
    };
    let drops_newest = room.is_some_and(|r| r.when_full == sinks::RoomFull::DropNewest);
    Ok(SinkKind::Archive { settings: Box::new(settings), columns: own, commit: config.commit.clone(), drops_newest })
}

fn compile_http(
    pipeline: &str,
    name: &str,
    config: &HttpConfig,
    data: &Path,
    fields: &mut Fields,
    columns: &mut Vec<usize>,
) -> anyhow::Result<SinkKind> {
    let mut pattern = |text: &str| {
        let mut column = |field: &str| {
            let number = fields.number(field);
            columns.iter().position(|c| *c == number).unwrap_or_else(|| {
                columns.push(number);
                columns.len() - 1
            })
        };
        http::Pattern::new(text, &mut column).with_context(|| format!("sinks.{name}.http: {text:?} is no text with fields in braces"))
    };
    let index = pattern(if config.body == HttpBody::Bulk { &config.index } else { "" })?;
    let labels = config.labels.iter().filter(|_| config.body == HttpBody::Loki);
    let labels = labels.map(|(name, text)| Ok((name.clone(), pattern(text)?))).collect::<anyhow::Result<_>>()?;
    let context = match config.trace_context {
        true => Some([pattern("{traceparent}")?, pattern("{tracestate}")?]),
        false => None,
    };
    let shape = http::Shape { body: config.body, index, labels, compress: config.compress, context };
    let (data, name) = (data.to_path_buf(), format!("{pipeline}.{name}"));
    Ok(SinkKind::Http { settings: Box::new(http::Settings { config: config.clone(), shape, data, name }) })
}

/// Fewer small files are not worth a merge.
const MERGED_FILES_MIN: usize = 4;

fn compile_lake(pipeline: &Config, config: &LakeConfig, data: &Path) -> anyhow::Result<SinkKind> {
    let folder = config.url.strip_prefix("file:").with_context(|| format!("lake url {:?} is not of the form file:FOLDER", config.url))?;
    let options = lake::Options {
        index: config.index.clone(),
        text: config.text.clone(),
        ids: config.ids.clone(),
        numbers: config.numbers.clone(),
        index_bytes_min: config.index_bytes_min.0,
        hour_bytes_min: config.hour_bytes_min.0,
        lineage: pipeline.lineage.clone(),
    };
    let merged = config.merge.bytes.0;
    let compact = lake::maintain::CompactOptions {
        cold_after: config.merge.after,
        file_bytes_min: merged / 2,
        target_bytes: merged,
        files_min: MERGED_FILES_MIN,
        memory_bytes_max: merged,
        bytes_max: RUN_BYTES_MAX,
        index_bytes_min: config.index_bytes_min.0,
    };
    let care = lake::maintain::Options { retention: config.keep.clone(), compact, grace: GRACE, bytes_per_run_max: RUN_BYTES_MAX };
    // An absolute folder stays what it is: `join` replaces the base by it.
    Ok(SinkKind::Lake { root: data.join(folder), options: Box::new(options), seal: config.seal.clone(), care: Box::new(care) })
}
