//! `weir check FILE...`: every mistake at once, else the plan.
//!
//! In: pipeline files and the environment. Out: the report on standard error (exit 2), or the plan on standard output: what
//! each step does, which records each meter counts, memory and disk, what a memory hub weakens. Opens no port and no data folder.

use super::seen;
use crate::config::memory::{self, Need};
use crate::config::{self, Config, HubConfig, Loaded, Report, WhenFull};
use crate::sinks::config::{
    Boundary, HttpBody, HttpCompress, HttpConfig as SinkHttp, NameZone, OtlpProtocol, RemoteWriteVersion, SinkConfig,
};
use crate::sources::config::{Ack, FileConfig, Format, HttpConfig, Malformed, OtlpConfig, ScrapeConfig, SourceConfig, Start, SyslogConfig};
use crate::sources::gpu::GpuConfig;
use crate::sources::host::HostConfig;
use crate::sources::kubernetes::{KubernetesConfig, Trust};
use flow::event::{Reason, ReasonClass};
use flow::step::quota::Unit;
use flow::step::usage::NAMED;
use flow::step::{
    Conflict, DedupConfig, Dynamic, MeterConfig, MeterKind, Metered, Named, OverQuota, Policy, QuotaConfig, ReadAs, RedactAction,
    RedactConfig, Repeats, Rest, SampleConfig, ShapeConfig, StepConfig, TailConfig, WindowKind,
};
use flow::units::ByteSize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Checks the files and prints what came of it.
/// `sample`: lines as the sources would read them; fields that none of them has are a warning.
pub fn run(files: &[PathBuf], sample: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let mut loaded = match config::load(files, &|name| std::env::var(name).ok()) {
        Ok(loaded) => loaded,
        Err(report) => return Ok(refuse(&report, json)),
    };
    for loaded in loaded.iter_mut().filter(|_| sample.is_some()) {
        let unseen = sample.map_or(Ok(Vec::new()), |sample| seen::warnings(loaded, sample))?;
        loaded.warnings.extend(unseen);
    }
    let plan = plan(&loaded);
    for warning in loaded.iter().flat_map(|loaded| &loaded.warnings).filter(|_| !json) {
        // Nobody is left to tell if standard error is gone.
        let _ = writeln!(std::io::stderr().lock(), "{}", config::Warning(warning));
    }
    let text =
        if json { format!("{}\n", serde_json::to_string_pretty(&plan).expect("a plan is strings and numbers")) } else { plan.to_string() };
    super::say(&text).map(|()| ExitCode::SUCCESS)
}

/// Tells the mistakes; every verb that reads a config ends with this. Exit 2: the user's input is wrong.
pub fn refuse(report: &Report, json: bool) -> ExitCode {
    // Nobody is left to tell if standard error is gone; the exit code still says it.
    let _ = if json {
        writeln!(std::io::stdout().lock(), "{}", report.json())
    } else {
        let count = report.mistakes.len();
        let mistakes = if count == 1 { "mistake" } else { "mistakes" };
        writeln!(std::io::stderr().lock(), "{report}\n{count} {mistakes}; nothing was read or written")
    };
    ExitCode::from(2)
}

/// What a run would do, in words.
#[derive(Debug, Serialize)]
pub struct Plan {
    pub data: String,
    pub lanes: u32,
    pub admin: Option<String>,
    pub pipelines: Vec<PipelinePlan>,
    pub memory: MemoryPlan,
}

#[derive(Debug, Serialize)]
pub struct MemoryPlan {
    pub budget_bytes: u64,
    pub floor_bytes: u64,
    pub ceiling_bytes: u64,
    pub components: Vec<Need>,
}

#[derive(Debug, Serialize)]
pub struct PipelinePlan {
    pub name: String,
    pub file: String,
    pub sources: Vec<Line>,
    pub tenancy: String,
    /// By layer.
    pub labels: Vec<Line>,
    pub steps: Vec<Line>,
    pub meters: Vec<MeterPlan>,
    pub hub: String,
    /// How tenants share lanes, room and sinks.
    pub fair: String,
    pub sinks: Vec<Line>,
    pub rates: Option<String>,
    pub disk: Vec<String>,
    /// What is weaker than it could be, or looks like a slip.
    pub notes: Vec<String>,
    /// Fields that look misspelt; as text they come before the plan, on standard error.
    pub warnings: Vec<config::Mistake>,
}

#[derive(Debug, Serialize)]
pub struct Line {
    pub name: String,
    pub does: String,
}

#[derive(Debug, Serialize)]
pub struct MeterPlan {
    pub name: String,
    pub counts: Vec<String>,
    pub never: Vec<String>,
}

/// Describes loaded pipelines.
pub fn plan(loaded: &[Loaded]) -> Plan {
    let process = config::process(loaded);
    let lanes = config::lanes(&process);
    let configs: Vec<(&str, &Config)> = loaded.iter().map(|l| (l.name.as_str(), &l.config)).collect();
    let components = memory::needs(&configs, u64::from(lanes));
    Plan {
        data: process.data.display().to_string(),
        lanes,
        admin: process.admin.map(|admin| admin.listen),
        pipelines: loaded.iter().map(pipeline).collect(),
        memory: MemoryPlan {
            budget_bytes: process.memory.0,
            floor_bytes: components.iter().map(|need| need.floor_bytes).sum(),
            ceiling_bytes: components.iter().fold(0, |sum, need| sum.saturating_add(need.ceiling_bytes)),
            components,
        },
    }
}

fn pipeline(loaded: &Loaded) -> PipelinePlan {
    let config = &loaded.config;
    let line = |name: &str, does: String| Line { name: name.to_string(), does };
    let tenancy = &config.tenancy;
    let header =
        if tenancy.read_as == ReadAs::Header { format!(", read as a header, others are {}", tenancy.overflow) } else { String::new() };
    PipelinePlan {
        name: loaded.name.clone(),
        file: loaded.path.display().to_string(),
        sources: config.sources.iter().map(|(name, source)| line(name, describe_source(source))).collect(),
        tenancy: match &tenancy.allow {
            None => format!("{}{header}; else {}; at most {} tenants", list(&tenancy.from), tenancy.unknown, tenancy.tenants_max),
            Some(allow) => {
                format!(
                    "{}{header}; else {}; {} allowed, others are {}",
                    list(&tenancy.from),
                    tenancy.unknown,
                    allow.len(),
                    tenancy.overflow
                )
            }
        },
        labels: labels(config),
        steps: config.steps.iter().map(describe_step).collect(),
        meters: meters(config),
        hub: describe_hub(&config.hub),
        fair: describe_fairness(&config.hub),
        sinks: config
            .sinks
            .iter()
            .map(|(name, sink)| line(name, format!("{}; takes {}", describe_sink(sink), taken(config, name, sink))))
            .collect(),
        rates: loaded
            .rates
            .as_ref()
            .map(|rates| format!("{}: in {}, price lists: {}", rates.path.display(), rates.card.currency, rates.card.versions.len())),
        disk: memory::disk(config),
        notes: notes(loaded),
        warnings: loaded.warnings.clone(),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// Labels, layer by layer, and the limits on what is counted by them.
fn labels(config: &Config) -> Vec<Line> {
    let line = |name: String, does: String| Line { name, does };
    let names = |labels: &BTreeMap<String, String>| labels.keys().cloned().collect::<Vec<_>>().join(", ");
    let mut lines = Vec::new();
    lines.extend((!config.labels.is_empty()).then(|| line("global".into(), names(&config.labels))));
    let sources = config.sources.iter().filter(|(_, source)| !source.labels().is_empty());
    lines.extend(sources.map(|(name, source)| line(format!("source {name}"), names(source.labels()))));
    for (name, label) in &config.request_labels {
        let allowed = if label.allow.is_empty() { String::new() } else { format!(" of {} allowed", label.allow.len()) };
        let does = format!(
            "from {}; at most {} values{allowed} of {} bytes, others are {}",
            list(&label.from),
            label.values_max,
            label.bytes_max,
            label.overflow
        );
        lines.push(line(format!("request {name}"), does));
    }
    if lines.len() > usize::from(!config.labels.is_empty()) {
        let limits = &config.label_limits;
        let does = format!(
            "{} series a metric, {} a tenant, {} in all; idle for {} they end",
            limits.per_metric, limits.per_tenant, limits.total, limits.idle
        );
        lines.push(line("limits".into(), does));
    }
    lines
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Json => "json",
        Format::Cri => "cri",
        Format::Docker => "docker",
        Format::Container => "container",
        Format::Text => "text",
    }
}

fn describe_source(source: &SourceConfig) -> String {
    let (mut text, malformed) = match source {
        SourceConfig::File(file) => {
            let start = match file.start {
                Start::Beginning => "from the beginning",
                Start::End => "from the end",
            };
            let without = if file.exclude.is_empty() { String::new() } else { format!(" without {}", list(&file.exclude)) };
            (
                format!("file {}{without}, {} {start}, lines up to {}", list(&file.include), format_name(file.format), file.line_bytes_max),
                file.malformed,
            )
        }
        SourceConfig::Stdin(stdin) => {
            (format!("stdin, {}, lines up to {}", format_name(stdin.format), stdin.line_bytes_max), stdin.malformed)
        }
        SourceConfig::Http(http) => (describe_http_source(http, source), http.malformed),
        SourceConfig::Syslog(syslog) => (describe_syslog(syslog), Malformed::Keep),
        SourceConfig::Otlp(otlp) => (describe_otlp(otlp, source), Malformed::Keep),
        SourceConfig::RemoteWrite(remote) => {
            (format!("remote_write on {}, at {}, {}", remote.listen, remote.path, describe_answering(source)), Malformed::Keep)
        }
        SourceConfig::Scrape(scrape) => (describe_scrape(scrape), Malformed::Keep),
        SourceConfig::Gpu(gpu) => (describe_gpu(gpu), Malformed::Keep),
        SourceConfig::Host(host) => (describe_host(host), Malformed::Keep),
        SourceConfig::Watch(watch) => {
            let names: Vec<String> = watch.rules.keys().cloned().collect();
            (format!("watch: alerts of {} about samples of this pipeline", list(&names)), Malformed::Keep)
        }
    };
    for stage in source.parse() {
        let what = stage.field.as_ref().map_or("lines".to_string(), |field| format!("member {field}"));
        text.push_str(&format!("; {what} parsed by {}", list(&stage.with)));
    }
    if malformed == Malformed::Drop {
        text.push_str(", malformed lines dropped");
    }
    if let SourceConfig::File(FileConfig { kubernetes: Some(kubernetes), .. }) = source {
        text.push_str("; ");
        text.push_str(&describe_kubernetes(kubernetes));
    }
    text
}

fn describe_http_source(http: &HttpConfig, source: &SourceConfig) -> String {
    let usage = if http.usage { ", usage events at /api/v1/usage" } else { "" };
    let at = list(&http.paths);
    format!("http on {}, records at {at}, /_bulk and /loki/api/v1/push{usage}, {}", http.listen, describe_answering(source))
}

fn describe_otlp(otlp: &OtlpConfig, source: &SourceConfig) -> String {
    let listens = [("grpc", &otlp.grpc), ("http", &otlp.http)];
    let listens: Vec<String> = listens.into_iter().filter(|(_, at)| !at.is_empty()).map(|(over, at)| format!("{over} {at}")).collect();
    format!("otlp on {}, {}", listens.join(" and "), describe_answering(source))
}

fn describe_answering(source: &SourceConfig) -> String {
    let Some(answering) = source.answering() else { return String::new() };
    let mut tenants: Vec<String> = answering.tokens.iter().map(|token| token.tenant.clone()).collect();
    tenants.dedup();
    let who = match tenants[..] {
        [] => "without tokens, records say who pays".to_string(),
        _ => format!("with tokens of {}, who pay whatever records say", list(&tenants)),
    };
    let answered = match answering.ack {
        Ack::Durable => "answered when records are kept",
        Ack::OnReceipt => "answered on receipt",
    };
    format!("{who}; bodies up to {}, {} at hand, then 503; {answered}, at least once", answering.body_bytes_max, answering.buffer_bytes_max)
}

fn describe_gpu(gpu: &GpuConfig) -> String {
    let from = match (&gpu.recording, &gpu.library) {
        (Some(recording), _) => format!("the recording {}", recording.display()),
        (None, Some(library)) => format!("NVIDIA's devices by {}", library.display()),
        (None, None) => "NVIDIA's devices".to_string(),
    };
    let given = gpu.pod_resources.as_ref().map_or(String::new(), |socket| format!(", given out as {} says", socket.display()));
    let metrics = if gpu.metrics { "metrics and usage facts" } else { "usage facts" };
    format!("{metrics} of {from}{given}, every {}, facts of {}", gpu.interval, gpu.window)
}

fn describe_host(host: &HostConfig) -> String {
    let metrics = if host.metrics { "metrics and usage facts" } else { "usage facts" };
    format!("{metrics} of the machine below {}, every {}, facts of {}", host.root.display(), host.interval, host.window)
}

fn describe_scrape(scrape: &ScrapeConfig) -> String {
    let files = if scrape.files.is_empty() { String::new() } else { format!(" and those of {}", list(&scrape.files)) };
    let targets = match scrape.targets.len() {
        0..=4 => list(&scrape.targets),
        more => format!("{more} targets"),
    };
    format!(
        "scrape {targets}{files} every {}, within {}, bodies up to {}, {} at hand, then scrapes are left out",
        scrape.interval, scrape.timeout, scrape.body_bytes_max, scrape.buffer_bytes_max
    )
}

fn describe_syslog(syslog: &SyslogConfig) -> String {
    let listens = [("udp", &syslog.udp), ("tcp", &syslog.tcp)];
    let listens: Vec<String> = listens.into_iter().filter_map(|(over, at)| Some(format!("{over} {}", at.as_ref()?))).collect();
    let from = if syslog.allow.is_empty() { String::new() } else { format!(" from {}", list(&syslog.allow)) };
    format!("syslog on {}{from}, messages up to {}, {} at hand", listens.join(" and "), syslog.message_bytes_max, syslog.buffer_bytes_max)
}

fn describe_http_sink(http: &SinkHttp) -> String {
    let body = match http.body {
        HttpBody::Ndjson => "JSON lines".to_string(),
        HttpBody::Bulk => format!("_bulk for index {}", http.index),
        HttpBody::Loki => {
            let labels: Vec<String> = http.labels.iter().map(|(name, text)| format!("{name}={text}")).collect();
            format!("Loki's push with labels {}", list(&labels))
        }
        HttpBody::RemoteWrite(RemoteWriteVersion::V1) => "remote write 1.0".to_string(),
        HttpBody::RemoteWrite(RemoteWriteVersion::V2) => "remote write 2.0".to_string(),
        HttpBody::Otlp(OtlpProtocol::Http) => "OTLP".to_string(),
        HttpBody::Otlp(OtlpProtocol::Grpc) => "OTLP over gRPC".to_string(),
    };
    let packed = match http.compress {
        HttpCompress::None => "",
        HttpCompress::Gzip => " in gzip",
        HttpCompress::Zstd => " in zstd",
    };
    let statuses: Vec<String> = http.retry.statuses.iter().map(u16::to_string).collect();
    format!(
        "{body}{packed} to {}, at least once, about {} or {}; tried again after {} to {}: {}, 5xx, no answer; other 4xx become dead letters",
        crate::sinks::http::target(http),
        http.batch.bytes,
        http.batch.age,
        http.retry.pause_min,
        http.retry.pause_max,
        statuses.join(" ")
    )
}

fn describe_kubernetes(config: &KubernetesConfig) -> String {
    let from = match &config.metadata {
        Some(m) => format!(
            "labels from {} every {}, at most {} and {} pods, kept {} after a pod went; a log waits {} for its pod",
            m.path.display(),
            m.refresh,
            m.bytes_max,
            m.pods_max,
            m.ttl,
            m.wait
        ),
        None => "no labels (`metadata`), only what paths say".into(),
    };
    let labels = config.labels.as_ref().map_or("all labels".into(), |labels| format!("labels {}", list(labels)));
    let tenant = &config.tenant;
    let map = if tenant.map.is_empty() { String::new() } else { format!(", then of a map of {} namespaces", tenant.map.len()) };
    let over = match tenant.trust {
        Trust::Metadata => "what records say of tenants is not read",
        Trust::Record => "behind what records say",
    };
    let wishes = if config.annotations.allow { "annotations may exclude and choose text" } else { "annotations may ask for nothing" };
    let own = if config.own.read { "own logs are read too" } else { "own logs are not read" };
    format!(
        "kubernetes: {from}; {labels} go into records; tenant by label {} of the pod, then of the namespace{map} ({over}); {wishes}; {own}",
        tenant.label
    )
}

fn describe_step(step: &StepConfig) -> Line {
    let (name, does) = match step {
        StepConfig::Drop(filter) => ("drop", filter_text(&filter.when, filter.metered)),
        StepConfig::Keep(filter) => ("keep", filter_text(&filter.when, filter.metered)),
        StepConfig::Meter(meter) => {
            let all: Vec<String> = meter.expand().iter().map(describe_meter).collect();
            ("meter", all.join("; "))
        }
        StepConfig::Sample(sample) => ("sample", describe_sample(sample)),
        StepConfig::Quota(quota) => ("quota", describe_quota(quota)),
        StepConfig::Redact(redact) => ("redact", describe_redact(redact)),
        StepConfig::Shape(shape) => ("shape", describe_shape(shape)),
        StepConfig::Dedup(dedup) => ("dedup", describe_dedup(dedup)),
        StepConfig::Tail(tail) => ("tail", describe_tail(tail)),
    };
    Line { name: name.into(), does }
}

fn describe_meter(meter: &MeterConfig) -> String {
    let (unit, quantity) = (meter.unit(), meter.quantity.as_deref());
    let what = match (meter.kind(), quantity) {
        (MeterKind::Count | MeterKind::Sum, Some(quantity)) => format!("adds up {quantity} in {unit}"),
        (MeterKind::Count | MeterKind::Sum, None) => "counts records".to_string(),
        (MeterKind::Interval, quantity) => {
            let held = quantity.map_or_else(|| "1".to_string(), String::from);
            format!("{held} in {unit} held {}", interval_text(meter))
        }
        (MeterKind::Integral, quantity) => format!("level {} in {unit} over time", quantity.unwrap_or("1")),
    };
    let by = if meter.by.is_empty() { String::new() } else { format!(" by {}", list(&meter.by)) };
    let part = meter.part_of.as_ref().map_or(String::new(), |whole| format!(", part of {whole}"));
    let when = meter.when.as_ref().map_or(String::new(), |when| format!(", when {when}"));
    let key = match meter.key.as_slice() {
        _ if !meter.is_of_events() => String::new(),
        [] => ", one fact per record".to_string(),
        key => format!(", one fact per record, the same event where {} is the same", list(key)),
    };
    format!("{}: {what}{by}{part}{when}{key}", meter.name)
}

fn interval_text(meter: &MeterConfig) -> String {
    let unit = meter.duration_unit().and_then(|unit| serde_json::to_value(unit).ok()).and_then(|unit| unit.as_str().map(String::from));
    let length = meter.duration.as_ref().map(|field| format!("for {field} ({})", unit.unwrap_or_default()));
    let end = meter.end.as_deref().unwrap_or("its time");
    match (&meter.start, length) {
        (Some(start), Some(length)) => format!("from {start} {length}"),
        (Some(start), None) => format!("from {start} to {end}"),
        (None, length) => format!("{} up to {end}", length.unwrap_or_default()),
    }
}

fn filter_text(when: &str, metered: Metered) -> String {
    match metered {
        Metered::No => when.to_string(),
        Metered::Anyway => format!("{when} (metered: anyway)"),
    }
}

fn describe_redact(redact: &RedactConfig) -> String {
    let mut what: Vec<String> = redact.detect.iter().map(|d| format!("{d:?}").to_lowercase()).collect();
    what.extend((!redact.patterns.is_empty()).then(|| format!("patterns: {}", redact.patterns.len())));
    let what = if what.is_empty() { "all".to_string() } else { what.join(", ") };
    let fields = if redact.fields.is_empty() { "all values".to_string() } else { redact.fields.join(", ") };
    let action = match &redact.action {
        RedactAction::Mask(mask) => format!("masked by {:?}", mask.with),
        RedactAction::Hash(_) => "hashed with a key".into(),
        RedactAction::Drop(_) => "dropped".into(),
    };
    format!("{what} of {fields}, {action}")
}

fn describe_shape(shape: &ShapeConfig) -> String {
    let mut does = Vec::new();
    does.extend((!shape.keep.is_empty()).then(|| format!("keeps {}", list(&shape.keep))));
    does.extend((!shape.remove.is_empty()).then(|| format!("removes {}", list(&shape.remove))));
    does.extend(shape.rename.iter().map(|(from, to)| format!("renames {from} to {to}")));
    does.extend(shape.set.keys().map(|name| format!("sets {name}")));
    does.extend(shape.truncate.as_ref().map(|t| format!("cuts texts at {}", t.bytes_max)));
    does.join("; ")
}

fn describe_dedup(dedup: &DedupConfig) -> String {
    let key = if dedup.key.is_empty() { String::new() } else { format!("{}; else ", dedup.key.join(" and ")) };
    let repeats = match dedup.repeats {
        Repeats::Drop => "",
        Repeats::Keep => " (if one of both is mirrored)",
    };
    let conflict = match dedup.conflict {
        Conflict::Keep => "kept and not metered",
        Conflict::Drop => "dropped",
    };
    let metered = if dedup.metered == Metered::Anyway { " (metered: anyway)" } else { "" };
    format!(
        "by {key}request{repeats}, else whole record; within {}; at most {} keys, the first made is forgotten first; conflicts are {conflict}{metered}",
        dedup.window, dedup.keys_max
    )
}

fn describe_sample(sample: &SampleConfig) -> String {
    let levels = sample.levels.entries().into_iter().filter_map(|(level, policy)| Some(format!("{level} {}", describe_policy(policy?))));
    let unlisted = [&sample.levels.error, &sample.levels.fatal].into_iter().any(Option::is_none) && sample.other != Policy::All;
    let errors = if unlisted { ", errors all" } else { "" };
    levels.chain([format!("other {}{errors}", describe_policy(&sample.other))]).collect::<Vec<_>>().join(", ")
}

fn describe_policy(policy: &Policy) -> String {
    match policy {
        Policy::All => "all".into(),
        Policy::None => "none".into(),
        Policy::Ratio { ratio, key: Some(key) } => format!("{} of them by {key}", ratio.get()),
        Policy::Ratio { ratio, key: None } => format!("{} of them", ratio.get()),
        Policy::First { first, thereafter, tick, by, exact_keys, keys_max, per_tenant } => {
            let what = if by.is_empty() { "message".to_string() } else { list(by) };
            let then = if *thereafter == 0 { String::new() } else { format!(", then every {thereafter}th") };
            let exact = if *exact_keys { format!(", up to {keys_max} keys apart") } else { String::new() };
            format!("the first {first} of a {what}{} in {tick}{then}{exact}", of_tenant(*per_tenant))
        }
        Policy::Dynamic { method, goal, by, interval, per_tenant, .. } => {
            let goal = match method {
                Dynamic::Average => format!("1 in {goal} on average"),
                Dynamic::Ema => format!("1 in {goal} on moving average"),
                Dynamic::Throughput => format!("{goal} a second"),
            };
            format!("{goal} by {}{}, rates made anew every {interval}", list(by), of_tenant(*per_tenant))
        }
        Policy::Window { kind, size, tick, per_tenant } => {
            let chosen = if *kind == WindowKind::Priority { "by weight" } else { "by chance" };
            format!("about {size}{} in {tick}, chosen {chosen}", of_tenant(*per_tenant))
        }
        Policy::When { when, weight } => format!("if {when} (each stands for {weight})"),
    }
}

fn of_tenant(per_tenant: bool) -> &'static str {
    if per_tenant { " of a tenant" } else { "" }
}

fn describe_quota(quota: &QuotaConfig) -> String {
    let limit = |(name, unit, _, amount): (&str, Unit, _, i128)| {
        let amount = match unit {
            Unit::Records => amount.to_string(),
            Unit::Bytes => ByteSize(u64::try_from(amount).unwrap_or(u64::MAX)).to_string(),
            Unit::Money => quota.money().find(|money| money.0 == name).map_or(String::new(), |money| money.2.to_string()),
        };
        format!("{amount} {}", name.replace('_', " "))
    };
    let limits: Vec<String> = quota.limits().into_iter().map(limit).collect();
    let burst = if quota.burst > 0 { format!(", {} periods gather", quota.burst) } else { String::new() };
    let over = match &quota.over {
        OverQuota::Drop => "dropped".to_string(),
        OverQuota::Sample(ratio) => format!("sampled, {} of it kept", ratio.get()),
        OverQuota::Divert(Named(sink)) => format!("diverted to {sink}"),
        OverQuota::Delay => "kept, and its log, with all tenants in it, rests until the quota has filled again (not with --once)".into(),
    };
    let prices = if quota.money().next().is_some() { "; money is what meters count at the list price of its minute" } else { "" };
    format!("for each {}: {}{burst}; what is over is {over}{prices}", quota.by, limits.join(", "))
}

fn describe_tail(tail: &TailConfig) -> String {
    let rest = match tail.rest {
        Rest::None => "none".to_string(),
        Rest::Share(ratio) => ratio.get().to_string(),
    };
    format!(
        "requests by {} of which a record matches {}, and {rest} of the others; decided after {}, at most {} requests with a match",
        list(&tail.key).replace(", ", " or "),
        tail.keep,
        tail.decision_wait,
        tail.keys_max
    )
}

/// Which records each meter counts: decided by reasons, not by where it stands (DESIGN D4).
fn meters(config: &Config) -> Vec<MeterPlan> {
    let of_class = |class| Reason::ALL.into_iter().filter(move |reason| reason.class() == class).map(|reason| reason.name().to_string());
    let anyway = config.steps.iter().enumerate().filter(|(_, step)| match step {
        StepConfig::Drop(filter) | StepConfig::Keep(filter) => filter.metered == Metered::Anyway,
        StepConfig::Dedup(dedup) => dedup.metered == Metered::Anyway,
        StepConfig::Meter(_)
        | StepConfig::Sample(_)
        | StepConfig::Quota(_)
        | StepConfig::Tail(_)
        | StepConfig::Redact(_)
        | StepConfig::Shape(_) => false,
    });
    let counts: Vec<String> = ["kept".to_string()]
        .into_iter()
        .chain(of_class(ReasonClass::Volume))
        .chain(anyway.map(|(i, step)| {
            let what = if matches!(step, StepConfig::Dedup(_)) { "duplicate" } else { "filtered" };
            format!("{what} by steps[{i}]")
        }))
        .collect();
    let never: Vec<String> = of_class(ReasonClass::NotOurs).collect();
    let plan = |meter: MeterConfig| MeterPlan { name: meter.name, counts: counts.clone(), never: never.clone() };
    config::meters(config).into_iter().map(plan).collect()
}

fn describe_hub(hub: &HubConfig) -> String {
    match hub {
        HubConfig::Journal(journal) => format!("journal on disk, at most {}, durable within {}", journal.bytes_max, journal.sync_interval),
        HubConfig::Memory(memory) => format!("memory, at most {}", memory.bytes_max),
    }
}

/// Which kept records a sink takes.
fn taken(config: &Config, name: &str, sink: &SinkConfig) -> String {
    let diverting: Vec<String> = config.diversions().filter(|(_, to)| *to == name).map(|(step, _)| format!("steps[{step}]")).collect();
    if !diverting.is_empty() {
        return format!("only what {} diverts to it", diverting.join(" and "));
    }
    let rest = if config.diversions().next().is_some() { ", but nothing diverted" } else { "" };
    match sink.when() {
        Some(when) => format!("what is kept with {when}{rest}"),
        None => format!("all that is kept{rest}"),
    }
}

fn describe_fairness(hub: &HubConfig) -> String {
    let room = match hub {
        HubConfig::Journal(journal) if journal.when_full == WhenFull::DropOldest => "",
        HubConfig::Journal(_) | HubConfig::Memory(_) => {
            "; of the last eighth of the hub tenants half as much again above their share get nothing"
        }
    };
    format!("tenants take turns by bytes, who was idle first; a sink that lags takes those below their share first{room}")
}

fn describe_sink(sink: &SinkConfig) -> String {
    match sink {
        SinkConfig::Stdout(_) => "stdout, at least once".to_string(),
        SinkConfig::Blackhole(_) => "blackhole, nothing is written".to_string(),
        SinkConfig::Archive(archive) => {
            let mut text = format!("archive of files {}, exactly once, durable every {}", archive.path, archive.commit.interval);
            if let Some(rotate) = &archive.rotate {
                let rules = [
                    rotate.size.map(|size| format!("at {size}")),
                    rotate.every.map(|every| format!("every {every}")),
                    rotate.at.map(|at| {
                        let zone = rotate.zone.as_deref().unwrap_or("UTC");
                        format!("at the end of each {} in {zone}", if at == Boundary::Hour { "hour" } else { "day" })
                    }),
                    rotate.on_sighup.then(|| "on SIGHUP".to_string()),
                ];
                if let (NameZone::Local, Some(zone)) = (rotate.names, &rotate.zone) {
                    text.push_str(&format!(", names in the time of {zone}"));
                }
                text.push_str(&format!(", rotated {}", rules.into_iter().flatten().collect::<Vec<_>>().join(", ")));
            }
            text
        }
        SinkConfig::Http(http) => describe_http_sink(http),
        SinkConfig::RemoteWrite(_) | SinkConfig::Otlp(_) => sink.http().as_ref().map_or_else(String::new, describe_http_sink),
        SinkConfig::Prometheus(prometheus) => format!(
            "prometheus: the newest sample of each of at most {} series on {}, at {}, for {}",
            prometheus.series_max, prometheus.listen, prometheus.path, prometheus.age
        ),
        SinkConfig::Lake(lake) => format!(
            "lake at {}, exactly once, sealed at {} or {}, indexed {}, by word {}, identifiers {}",
            lake.url,
            lake.seal.bytes,
            lake.seal.age,
            list(&lake.index),
            list(&lake.text),
            list(&lake.ids)
        ),
    }
}

fn notes(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let mut notes = Vec::new();
    let in_records: Vec<&str> = crate::plan::label_names(config).collect();
    if config.admin.is_none() {
        let unread = config.request_labels.keys().filter(|label| !in_records.contains(&label.as_str()));
        notes.extend(
            unread.map(|label| format!("request label {label}: nobody reads it without `admin` or a `shape` step, so it costs nothing")),
        );
    }
    for (i, step) in config.steps.iter().enumerate() {
        let StepConfig::Redact(redact) = step else { continue };
        let by = config.steps.iter().filter_map(|s| if let StepConfig::Meter(meter) = s { Some(meter) } else { None });
        let told = by.flat_map(|meter| meter.by.iter().chain(&meter.key).map(move |field| (field, meter)));
        let within = |field: &str, above: &str| field.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        for (field, meter) in told.filter(|(field, _)| redact.fields.is_empty() || redact.fields.iter().any(|f| within(field, f))) {
            notes.push(format!(
                "steps[{i}] redacts {field}, but meter {} tells usage apart by it: the bill shows it as received",
                meter.expand()[0].name
            ));
        }
    }
    for (i, step) in config.steps.iter().enumerate() {
        if let StepConfig::Tail(tail) = step {
            notes.push(format!(
                "steps[{i}].tail: a record reaches the sinks, search and the ledger {} after it came; what is decided early or not remembered is in `/metrics` (weir_delay_...)",
                tail.decision_wait
            ));
        }
    }
    if matches!(config.hub, HubConfig::Memory(_)) {
        notes.push("memory hub: after a crash, records that no sink had committed are read again and decided anew; the state of steps starts empty".into());
        notes.push(
            "memory hub: after a crash, the ledger lacks what was delivered in the last second from files that are gone by then".into(),
        );
        if config.steps.iter().any(|step| matches!(step, StepConfig::Sample(_) | StepConfig::Quota(_))) {
            notes.push("memory hub: after a crash, weights may tell of some records twice or not at all, and quotas begin anew".into());
        }
        if config.steps.iter().any(|step| matches!(step, StepConfig::Dedup(_))) {
            notes.push(
                "memory hub: after a crash, dedup remembers nothing: a copy passes whose first record was delivered before it".into(),
            );
        }
        if config.sinks.values().any(|sink| matches!(sink, SinkConfig::Stdout(_))) {
            notes.push("memory hub: after a crash, stdout sees records again that it had seen".into());
        }
        for (name, source) in &config.sources {
            let on_receipt = match source {
                SourceConfig::Stdin(stdin) => stdin.ack == Ack::OnReceipt,
                other => other.answering().is_some_and(|answering| answering.ack == Ack::OnReceipt),
            };
            if on_receipt {
                notes.push(format!("source {name}: `ack: on_receipt`: what a crash finds in memory is lost"));
            }
        }
    }
    for (name, source) in &config.sources {
        let listens = match source {
            SourceConfig::Http(http) => vec![&http.listen],
            SourceConfig::Otlp(otlp) => vec![&otlp.grpc, &otlp.http],
            SourceConfig::RemoteWrite(remote) => vec![&remote.listen],
            _ => Vec::new(),
        };
        if listens.iter().any(|listen| listen.parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback())) {
            notes.push(format!("source {name}: TLS is not built: without a proxy in front that ends it, tokens can be read on the way"));
        }
        if let SourceConfig::Syslog(_) = source {
            notes.push(format!(
                "source {name}: syslog has no answers: a crash loses the messages of the last moment, UDP those without room"
            ));
        }
    }
    for (number, step) in config.steps.iter().enumerate() {
        let StepConfig::Redact(redact) = step else { continue };
        for (name, sink) in &config.sinks {
            let field = sink.when().and_then(|when| config::redacted_field(redact, &config::fields_of(when)));
            if let Some(field) = field {
                notes.push(format!("sink {name}: steps[{number}] redacts `{field}`; `when` is asked about what is left of it"));
            }
        }
    }
    if let Some(rates) = &loaded.rates {
        let priced = |meter: &MeterConfig| rates.card.versions.iter().any(|version| version.prices.contains_key(&meter.name));
        let mut meters = config::meters(config);
        // Usage events name their meters themselves: nobody knows them yet.
        let all = meters.len();
        meters.retain(|meter| !NAMED.contains(&meter.name.as_str()));
        let is_open = meters.len() < all;
        let unpriced = meters.iter().filter(|meter| !priced(meter));
        notes.extend(unpriced.map(|meter| format!("meter {}: the rate card has no price for it", meter.name)));
        for (i, step) in config.steps.iter().enumerate() {
            let StepConfig::Quota(quota) = step else { continue };
            let is_free = meters.iter().all(|meter| !priced(meter));
            if quota.money().next().is_none() {
                continue;
            }
            if is_free {
                notes.push(format!("steps[{i}] limits money, but no meter of this pipeline has a price: every record costs nothing"));
            }
            let lasting = meters.iter().filter(|meter| matches!(meter.kind(), MeterKind::Interval | MeterKind::Integral));
            notes.extend(lasting.map(|meter| {
                format!(
                    "steps[{i}] limits money: what meter {} counts lasts, so it costs nothing there, and what it does on the bill",
                    meter.name
                )
            }));
        }
        for meter in &meters {
            let unit = match meter.kind() {
                MeterKind::Interval | MeterKind::Integral => bill::unit::over_time(meter.unit()),
                MeterKind::Count | MeterKind::Sum => meter.unit().into(),
            };
            let prices = rates.card.versions.iter().flat_map(|version| version.prices.get(&meter.name)).flatten();
            if let Some(price) = prices.into_iter().find(|price| bill::unit::scale(&unit, &price.unit).is_none()) {
                notes.push(format!("meter {} counts {unit}, the price {} is for {}: it is not applied", meter.name, price.sku, price.unit));
            }
        }
        let mut strangers: Vec<&str> = rates.card.versions.iter().flat_map(|version| version.prices.keys()).map(String::as_str).collect();
        strangers.sort_unstable();
        strangers.dedup();
        strangers.retain(|meter| !is_open && !meters.iter().any(|known| known.name == *meter));
        notes.extend(strangers.into_iter().map(|meter| format!("rate card: it prices {meter}, which no step of this pipeline counts")));
    } else if !config::meters(config).is_empty() {
        notes.push("no rate card (`rates`): usage is counted, not priced".into());
    }
    notes
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pipeline in &self.pipelines {
            writeln!(f, "{pipeline}")?;
        }
        let memory = &self.memory;
        writeln!(f, "data     {}", self.data)?;
        writeln!(f, "lanes    {} (1 with --once)", self.lanes)?;
        writeln!(f, "admin    {}", self.admin.as_deref().unwrap_or("no port"))?;
        writeln!(
            f,
            "memory   {} of {} at least; at most {}",
            mib(memory.floor_bytes),
            ByteSize(memory.budget_bytes),
            mib(memory.ceiling_bytes.min(memory.budget_bytes))
        )?;
        writeln!(f, "  {:<24} {:>10} {:>10}", "component", "floor", "ceiling")?;
        for need in &memory.components {
            writeln!(f, "  {:<24} {:>10} {:>10}", need.component, mib(need.floor_bytes), mib(need.ceiling_bytes))?;
        }
        writeln!(f, "  {:<24} {:>10} {:>10}", "sum", mib(memory.floor_bytes), mib(memory.ceiling_bytes))?;
        if memory.ceiling_bytes > memory.budget_bytes {
            writeln!(f, "  the ceilings exceed `memory`: not every component can have its own at once")?;
        }
        Ok(())
    }
}

/// Mebibytes with one digit, rounded up: a floor must not look smaller than it is.
fn mib(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

impl fmt::Display for PipelinePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pipeline {} ({})", self.name, self.file)?;
        for source in &self.sources {
            writeln!(f, "  source   {}: {}", source.name, source.does)?;
        }
        writeln!(f, "  tenant   {}", self.tenancy)?;
        for labels in &self.labels {
            writeln!(f, "  labels   {}: {}", labels.name, labels.does)?;
        }
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(f, "  steps[{i}] {} {}", step.name, step.does)?;
        }
        for meter in &self.meters {
            writeln!(f, "  meter    {} counts {}; never {}", meter.name, meter.counts.join(", "), meter.never.join(", "))?;
        }
        writeln!(f, "  hub      {}", self.hub)?;
        writeln!(f, "  fair     {}", self.fair)?;
        for sink in &self.sinks {
            writeln!(f, "  sink     {}: {}", sink.name, sink.does)?;
        }
        if let Some(rates) = &self.rates {
            writeln!(f, "  rates    {rates}")?;
        }
        for disk in &self.disk {
            writeln!(f, "  disk     {disk}")?;
        }
        for note in &self.notes {
            writeln!(f, "  note     {note}")?;
        }
        Ok(())
    }
}
