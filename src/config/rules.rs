//! What only makes sense together: conditions, order of steps, names, limits, paths.
//!
//! In: a config as far as it could be read, and its tree; out: mistakes, each at its line and column. What was taken out of
//! the tree because of an earlier mistake is not complained about again.

use super::locate::{Found, NodeId, Path, Tree};
use super::model::{Config, HubConfig, QueryConfig};
use super::read::without_secrets;
use super::report::{Mistake, Spot, nearest};
use crate::plan::BY_TENANT;
use crate::sinks::archive;
use crate::sinks::config::{ArchiveConfig, LakeConfig, NameZone, RoomConfig, RoomFull, RotateConfig, SinkConfig};
use crate::sources::config::{Ack, FileConfig, JoinConfig, SourceConfig};
use crate::sources::kubernetes::KubernetesConfig;
use flow::condition::{Condition, ConditionError, Expression};
use flow::conventions::nanos_beside;
use flow::decode::Multiline;
use flow::fields::FIELDS_MAX;
use flow::stamp::{RATE, SAMPLER};
use flow::step::{
    Clock, DedupConfig, FilterConfig, MeterConfig, MeterKind, Metered, Named, OverQuota, Policy, QuotaConfig, RedactAction, RedactConfig,
    Rest, SampleConfig, SetValue, ShapeConfig, StepConfig, TailConfig, TenancyConfig, UsageFields,
};
use flow::tenancy::TENANT_BYTES_MAX;
use flow::units::{ByteSize, NANOS_PER_SECOND, Span};
use hub::frame::SINKS_MAX;
use std::collections::BTreeMap;
use std::net::SocketAddr;

mod contradictions;
mod devices;
mod http;
mod labels;
mod parsers;
mod strangers;

pub use http::http_fields;
pub use labels::name_layers;
pub use strangers::{unseen, warnings};

const NAME_BYTES_MAX: usize = 64;
pub const LANES_MAX: u32 = 256;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Adds what is wrong with one pipeline to `mistakes`.
pub fn check(config: &Config, tree: &Tree, mistakes: &mut Vec<Mistake>) {
    let root = Path::default();
    let mut rules = Rules { tree, mistakes, fields: Vec::new() };
    rules.process(config, &root);
    for (name, source) in &config.sources {
        let at = root.key("sources").key(name);
        rules.name(&at, name, "source");
        rules.source(&at, source, &config.hub);
    }
    rules.parsers(config, &root);
    rules.tests(config, &root);
    rules.labels(config, &root);
    rules.fields(config, &root);
    rules.steps(config, &root.key("steps"));
    rules.contradictions(&config.steps, &root.key("steps"));
    rules.hub(&config.hub, &root.key("hub"));
    for (name, sink) in &config.sinks {
        let at = root.key("sinks").key(name);
        rules.name(&at, name, "sink");
        rules.sink(&at, sink, &config.hub);
    }
    rules.diversions(config, &root);
    rules.lineage(config, &root.key("lineage"));
    rules.apart(&config.sinks, &root.key("sinks"));
    rules.field_count();
}

/// What is written in another currency than the rate card's.
pub fn check_currency(config: &Config, card: &bill::Card, tree: &Tree, mistakes: &mut Vec<Mistake>) {
    let mut rules = Rules { tree, mistakes, fields: Vec::new() };
    for (i, step) in config.steps.iter().enumerate() {
        let StepConfig::Quota(quota) = step else { continue };
        for (name, _, amount) in quota.money() {
            if let Some(currency) = amount.currency().filter(|currency| *currency != card.currency) {
                let at = Path::default().key("steps").index(i).key("quota").key(name);
                let message = format!(
                    "is in {currency}, and the rate card is in {0}; weir converts no money; write the amount in {0}",
                    card.currency
                );
                rules.at(&at, message);
            }
        }
    }
}

struct Rules<'a> {
    tree: &'a Tree,
    mistakes: &'a mut Vec<Mistake>,
    /// Every field that anybody asks for, in the order of asking.
    fields: Vec<String>,
}

impl Rules<'_> {
    /// Notes a mistake at a value; where the value is not written down, at what it belongs to.
    fn at(&mut self, path: &Path, message: impl Into<String>) {
        self.note(path, message.into(), |tree, id| tree.spot(id));
    }

    /// Notes a mistake at the key of a value.
    fn at_key(&mut self, path: &Path, message: impl Into<String>) {
        self.note(path, message.into(), |tree, id| tree.spot(tree.key_of(id)));
    }

    fn note(&mut self, path: &Path, message: String, spot: impl Fn(&Tree, NodeId) -> Spot) {
        match self.tree.find(path) {
            Found::Lost => {}
            Found::Node(id) => {
                let message = without_secrets(self.tree, id, message);
                self.mistakes.push(self.tree.mistake(spot(self.tree, id), self.tree.path_of(id).to_string(), &message));
            }
            Found::Above(id) => {
                let id = self.tree.key_of(id);
                self.mistakes.push(self.tree.mistake(self.tree.spot(id), path.to_string(), &message));
            }
        }
    }

    /// Whether something below was taken out; then what lacks is no mistake of its own.
    fn damaged(&self, path: &Path) -> bool {
        match self.tree.find(path) {
            Found::Node(id) => self.tree.damaged(id),
            Found::Above(_) => false,
            Found::Lost => true,
        }
    }

    fn process(&mut self, config: &Config, root: &Path) {
        if let Some(name) = &config.name {
            self.name(&root.key("name"), name, "pipeline");
        }
        for (key, empty, help) in
            [("sources", config.sources.is_empty(), "in: { stdin: {} }"), ("sinks", config.sinks.is_empty(), "out: { stdout: {} }")]
        {
            let at = root.key(key);
            if empty && !self.damaged(&at) {
                self.at_key(&at, format!("is empty; a pipeline has at least one of them; add one, as in {help}"));
            }
        }
        if config.data.as_os_str().is_empty() {
            self.at(&root.key("data"), "is empty; weir keeps its state in a folder; name one, as in weir-data");
        }
        if let Some(lanes) = config.lanes.filter(|lanes| !(1..=LANES_MAX).contains(lanes)) {
            self.at(
                &root.key("lanes"),
                format!("is {lanes}; there are 1 to {LANES_MAX} lanes; leave it out for one on each available core"),
            );
        }
        self.query(&config.query, &root.key("query"));
        if let Some(telemetry) = &config.telemetry {
            self.telemetry(&root.key("telemetry"), telemetry);
        }
        if let Some(admin) = &config.admin {
            let at = root.key("admin").key("listen");
            match admin.listen.parse::<SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => {}
                Ok(address) => {
                    let rule = "the port has neither TLS nor a token yet, so it is for this machine only";
                    self.at(&at, format!("{} can be reached from elsewhere; {rule}; listen on 127.0.0.1:{}", address.ip(), address.port()));
                }
                Err(_) => {
                    self.at(&at, format!("{:?} is no address; an address is an IP and a port; write 127.0.0.1:9140", admin.listen));
                }
            }
        }
    }

    fn query(&mut self, query: &QueryConfig, at: &Path) {
        if query.memory.0 < 8 * MIB {
            self.at(&at.key("memory"), format!("is {}; a table is made in at least 8MiB; write 8MiB or more", query.memory));
        }
        if query.deadline.0 < NANOS_PER_SECOND {
            self.at(&at.key("deadline"), "is shorter than a second, in which hardly anything is found; write 1s or more");
        }
        for (key, count, most) in
            [("at_a_time", query.at_a_time, 64), ("at_a_time_per_tenant", query.at_a_time_per_tenant, query.at_a_time)]
        {
            if !(1..=most.max(1)).contains(&count) {
                self.at(&at.key(key), format!("is {count}; it is a number from 1 to {most}"));
            }
        }
    }

    /// Names become folder names, labels of metrics and parts of positions.
    fn name(&mut self, at: &Path, name: &str, what: &str) {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fine) {
            let rule = format!("a name is 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`, as it becomes a file name");
            let help = sane_name(name);
            let help = if help.is_empty() { "choose another".to_string() } else { format!("write {help}") };
            self.at_key(at, format!("{name:?} is no name of a {what}; {rule}; {help}"));
        }
    }

    fn source(&mut self, at: &Path, source: &SourceConfig, hub: &HubConfig) {
        match source {
            SourceConfig::File(file) => self.file(&at.key("file"), file),
            SourceConfig::Stdin(stdin) => {
                let at = at.key("stdin");
                self.size(&at.key("line_bytes_max"), stdin.line_bytes_max, KIB, 64 * MIB);
                self.join(&at.key("join"), &stdin.join);
                if matches!(hub, HubConfig::Memory(_)) && stdin.ack != Ack::OnReceipt && !self.damaged(&at) {
                    let rule = "a memory hub loses what it holds in a crash, and standard input cannot be read again";
                    self.at_key(
                        &at,
                        format!(
                            "this source does not go with hub.memory; {rule}; write `ack: on_receipt` to accept that, or use hub.journal"
                        ),
                    );
                }
            }
            SourceConfig::Http(http) => self.http_source(&at.key("http"), http, source, hub),
            SourceConfig::Syslog(syslog) => self.syslog(&at.key("syslog"), syslog),
            SourceConfig::Otlp(otlp) => self.otlp_source(&at.key("otlp"), otlp, source, hub),
            SourceConfig::RemoteWrite(remote) => self.remote_write_source(&at.key("remote_write"), remote, source, hub),
            SourceConfig::Scrape(scrape) => self.scrape(&at.key("scrape"), scrape),
            SourceConfig::Watch(watch) => self.watch(&at.key("watch"), watch),
            SourceConfig::Gpu(gpu) => self.gpu(&at.key("gpu"), gpu),
            SourceConfig::Host(host) => self.host(&at.key("host"), host),
        }
    }

    fn file(&mut self, at: &Path, file: &FileConfig) {
        let include = at.key("include");
        if file.include.is_empty() && !self.damaged(&include) {
            self.at(&include, "is empty; a file source reads the files that match a pattern; write [\"/var/log/app/*.log\"]");
        }
        for (key, patterns) in [("include", &file.include), ("exclude", &file.exclude)] {
            for (i, pattern) in patterns.iter().enumerate() {
                self.pattern(&at.key(key).index(i), pattern);
            }
        }
        self.size(&at.key("line_bytes_max"), file.line_bytes_max, KIB, 64 * MIB);
        self.span(&at.key("scan"), file.scan, 10_000_000, 3_600 * NANOS_PER_SECOND);
        for (key, value, max) in [("files_max", file.files_max, 10_000_000), ("open_files_max", file.open_files_max, 1_000_000)] {
            if !(1..=max).contains(&value) {
                self.at(&at.key(key), format!("is {value}; it must be from 1 to {max}; write {}", value.clamp(1, max)));
            }
        }
        if let Some(Err(error)) = file.multiline.as_ref().map(Multiline::new) {
            self.at_key(&at.key("multiline"), error.to_string());
        }
        let rotated = at.key("rotated");
        if let Some(age) = file.rotated.age_max {
            self.span(&rotated.key("age_max"), age, NANOS_PER_SECOND, i64::MAX);
        }
        if let Some(bytes) = file.rotated.bytes_max {
            self.size(&rotated.key("bytes_max"), bytes, MIB, u64::MAX);
        }
        self.join(&at.key("join"), &file.join);
        if let Some(kubernetes) = &file.kubernetes {
            self.kubernetes(&at.key("kubernetes"), kubernetes);
        }
    }

    fn kubernetes(&mut self, at: &Path, config: &KubernetesConfig) {
        if let Some(metadata) = &config.metadata {
            let at = at.key("metadata");
            if metadata.path.as_os_str().is_empty() {
                self.at(&at.key("path"), "is empty; labels of pods are read from a file or a folder; write /var/lib/weir/pods.json");
            }
            self.span(&at.key("refresh"), metadata.refresh, 10_000_000, 3_600 * NANOS_PER_SECOND);
            self.span(&at.key("wait"), metadata.wait, 0, 3_600 * NANOS_PER_SECOND);
            self.span(&at.key("ttl"), metadata.ttl, 0, 7 * 86_400 * NANOS_PER_SECOND);
            self.size(&at.key("bytes_max"), metadata.bytes_max, 4 * KIB, 1024 * MIB);
            if !(1..=1_000_000).contains(&metadata.pods_max) {
                self.at(&at.key("pods_max"), format!("is {}; it must be from 1 to 1000000; write 100000", metadata.pods_max));
            }
        }
        for (list, at) in [(config.labels.as_ref(), at.key("labels")), (Some(&config.annotations.keep), at.key("annotations").key("keep"))]
        {
            for (i, name) in list.into_iter().flatten().enumerate() {
                self.label(&at.index(i), name);
            }
        }
        let at = at.key("tenant");
        self.label(&at.key("label"), &config.tenant.label);
        for (namespace, tenant) in &config.tenant.map {
            if tenant.trim().is_empty() || tenant.len() > TENANT_BYTES_MAX {
                let rule = format!("the namespace {namespace} belongs to somebody, in 1 to {TENANT_BYTES_MAX} bytes");
                self.at(&at.key("map").key(namespace), format!("is no tenant; {rule}; write its name, or leave the namespace out"));
            }
        }
    }

    fn label(&mut self, at: &Path, name: &str) {
        if name.is_empty() || name.len() > 317 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let rule = "a label's name is at most 317 bytes without blanks";
            self.at(at, format!("{name:?} is no label; {rule}; write app.kubernetes.io/name"));
        }
    }

    fn pattern(&mut self, at: &Path, pattern: &str) {
        if pattern.is_empty() || pattern.contains('\0') || pattern.ends_with('/') {
            self.at(at, format!("{pattern:?} matches no file; a pattern ends with the name of files; write logs/*.log"));
        } else if pattern.split('/').any(|part| part.contains("**") && part != "**") {
            self.at(
                at,
                "`**` stands beside other characters; it matches any folders and stands alone between slashes; write logs/**/*.log",
            );
        }
    }

    fn join(&mut self, at: &Path, join: &JoinConfig) {
        self.size(&at.key("bytes_max"), join.bytes_max, KIB, 64 * MIB);
        self.span(&at.key("age"), join.age, NANOS_PER_SECOND / 10, 3_600 * NANOS_PER_SECOND);
    }

    fn size(&mut self, at: &Path, size: ByteSize, min: u64, max: u64) {
        let (min, max) = (ByteSize(min), ByteSize(max));
        if size < min || size > max {
            let rule = if max.0 == u64::MAX { format!("at least {min}") } else { format!("from {min} to {max}") };
            self.at(at, format!("is {size}; it must be {rule}; write {}", size.clamp(min, max)));
        }
    }

    fn span(&mut self, at: &Path, span: Span, min: i64, max: i64) {
        let (min, max) = (Span(min), Span(max));
        if span < min || span > max {
            let rule = if max.0 == i64::MAX { format!("at least {min}") } else { format!("from {min} to {max}") };
            self.at(at, format!("is {span}; it must be {rule}; write {}", span.clamp(min, max)));
        }
    }

    fn fields(&mut self, config: &Config, root: &Path) {
        let tenancy = root.key("tenancy");
        self.field_list(&tenancy.key("from"), &config.tenancy.from);
        self.ask_all(&config.tenancy.from);
        if config.tenancy.unknown.is_empty() || config.tenancy.unknown.len() > 256 {
            let message = "is no tenant; somebody must pay for records that name nobody, in 1 to 256 bytes; write unassigned";
            self.at(&tenancy.key("unknown"), message);
        }
        let tenants_max = config.tenancy.tenants_max;
        if !(1..=1_000_000).contains(&tenants_max) {
            self.at(&tenancy.key("tenants_max"), format!("is {tenants_max}; it must be from 1 to 1000000; write 10000"));
        }
        self.allowed_tenants(&config.tenancy, &tenancy);
        let fields = root.key("fields");
        for (key, list) in [("time", &config.fields.time), ("level", &config.fields.level), ("message", &config.fields.message)] {
            self.field_list(&fields.key(key), list);
        }
        self.ask_all(&config.fields.time);
        config.fields.time.iter().filter_map(|path| nanos_beside(path)).for_each(|nanos| self.ask(&nanos));
        self.ask_all(&config.fields.level);
        if config.steps.iter().any(|step| matches!(step, StepConfig::Sample(_))) {
            self.ask_all(&config.fields.message);
        }
        if config.steps.iter().any(|step| matches!(step, StepConfig::Sample(_) | StepConfig::Quota(_) | StepConfig::Tail(_))) {
            [RATE, SAMPLER].into_iter().for_each(|field| self.ask(field));
        }
    }

    fn allowed_tenants(&mut self, tenancy: &TenancyConfig, at: &Path) {
        let is_name = |name: &str| (1..=256).contains(&name.trim().len());
        if !is_name(&tenancy.overflow) {
            self.at(
                &at.key("overflow"),
                "is no tenant; records of others belong to it, so it has a name of 1 to 256 bytes; write __other__",
            );
        }
        let Some(allow) = &tenancy.allow else { return };
        let at = at.key("allow");
        if allow.is_empty() {
            self.at(&at, "is empty; every tenant would be another one; name the tenants, or leave the key out to allow any");
        }
        if allow.len() >= tenancy.tenants_max as usize {
            let (names, max) = (allow.len(), tenancy.tenants_max);
            let message =
                format!("names {names} tenants; `tenants_max` is {max}, and one of them is for all others; raise it to {}", names + 1);
            self.at(&at, message);
        }
        for (i, name) in allow.iter().enumerate() {
            if !is_name(name) {
                self.at(&at.index(i), "is no tenant; a tenant is a name of 1 to 256 bytes that is not only white space; leave it out");
            }
            if allow[..i].contains(name) {
                self.at(&at.index(i), format!("`{name}` stands in this list already; each tenant is named once; leave one out"));
            }
        }
    }

    fn field_list(&mut self, at: &Path, list: &[String]) {
        for (i, field) in list.iter().enumerate() {
            self.field(&at.index(i), field);
            if list[..i].contains(field) {
                self.at(&at.index(i), format!("`{field}` stands in this list already; each field is named once; leave one out"));
            }
        }
    }

    /// A field's path: keys joined by dots.
    fn field(&mut self, at: &Path, field: &str) {
        if field.is_empty() || field.len() > 256 || field.split('.').any(str::is_empty) || field.chars().any(char::is_control) {
            self.at(
                at,
                format!(
                    "{field:?} is no field; a field is a key, or keys joined by dots, of at most 256 bytes; write kubernetes.labels.tenant"
                ),
            );
        }
    }

    fn ask_all(&mut self, fields: &[String]) {
        fields.iter().for_each(|field| self.ask(field));
    }

    fn ask(&mut self, field: &str) {
        if !self.fields.iter().any(|known| known == field) {
            self.fields.push(field.to_string());
        }
    }

    fn field_count(&mut self) {
        let count = self.fields.len();
        if count > FIELDS_MAX {
            let message =
                format!("this pipeline reads {count} fields; it can read {FIELDS_MAX}; shorten `fields`, or split it into two pipelines");
            self.at(&Path::default(), message);
        }
    }

    fn condition(&mut self, at: &Path, text: &str) {
        self.parsed(at, "a condition is either true or false for a record", |resolve| Condition::parse(text, resolve).err());
    }

    fn expression(&mut self, at: &Path, text: &str) {
        self.parsed(at, "an expression makes one value of a record, with CEL's types", |resolve| Expression::parse(text, resolve).err());
    }

    /// Asks for the fields that a condition or an expression names, and tells what is wrong with it.
    fn parsed(&mut self, at: &Path, rule: &str, parse: impl FnOnce(&mut dyn FnMut(&str) -> usize) -> Option<ConditionError>) {
        let mut asked = Vec::new();
        let error = parse(&mut |field: &str| {
            asked.push(field.to_string());
            0
        });
        for field in asked {
            self.ask(&field);
        }
        if let Some(error) = error {
            let message = format!("{}; {rule}; {}", error.message.replace("; ", ", "), error.help);
            self.note(at, message, |tree, id| tree.spot_inside(id, error.at));
        }
    }

    fn steps(&mut self, config: &Config, at: &Path) {
        let (steps, hub) = (&config.steps, &config.hub);
        let mut tail = None;
        let mut meters: BTreeMap<String, usize> = BTreeMap::new();
        let mut first: Option<(usize, String)> = None;
        for (i, step) in steps.iter().enumerate() {
            let at = at.index(i);
            if let Some(tail) = tail {
                self.stands_behind_tail(&at, step, tail);
            }
            let metered = first.as_ref().map(|(at, name)| (*at, name.as_str()));
            match step {
                StepConfig::Drop(filter) => self.filter(&at.key("drop"), filter, metered),
                StepConfig::Keep(filter) => self.filter(&at.key("keep"), filter, metered),
                StepConfig::Meter(meter) => {
                    let at = at.key("meter");
                    self.meter(&at, meter);
                    for MeterConfig { name, .. } in meter.expand() {
                        first = first.or_else(|| Some((i, name.clone())));
                        if let Some(before) = meters.get(&name) {
                            let rule = "a bill tells meters apart by name";
                            let key = if meter.name.is_empty() { "usage" } else { "name" };
                            self.at(&at.key(key), format!("`{name}` is the name of steps[{before}] too; {rule}; give each its own"));
                            break;
                        }
                        meters.insert(name, i);
                    }
                }
                StepConfig::Sample(sample) => self.sample(&at.key("sample"), sample),
                StepConfig::Quota(quota) => self.quota(&at.key("quota"), quota, config),
                StepConfig::Redact(redact) => self.redact(&at.key("redact"), redact, &steps[i + 1..], i),
                StepConfig::Shape(shape) => self.shape(&at.key("shape"), shape, config),
                StepConfig::Dedup(dedup) => self.dedup(&at.key("dedup"), dedup, metered),
                StepConfig::Tail(config) => {
                    self.tail(&at.key("tail"), config, hub);
                    tail = tail.or(Some(i));
                }
            }
        }
    }

    /// The verdict of tail sampling comes last: what decides about records stands before it.
    fn stands_behind_tail(&mut self, at: &Path, step: &StepConfig, tail: usize) {
        let (key, what) = match step {
            StepConfig::Meter(_) | StepConfig::Redact(_) | StepConfig::Shape(_) => return,
            StepConfig::Tail(_) => {
                let rule = "a pipeline holds its records back once";
                let message = format!("steps[{tail}] is a tail sampler already; {rule}; join both conditions with ||");
                return self.at_key(&at.key("tail"), message);
            }
            StepConfig::Drop(_) => ("drop", "what it drops"),
            StepConfig::Keep(_) => ("keep", "what it drops"),
            StepConfig::Dedup(_) => ("dedup", "a copy"),
            StepConfig::Sample(_) => ("sample", "what it leaves out"),
            StepConfig::Quota(_) => ("quota", "what is over"),
        };
        let rule = format!("the verdict of `tail` comes when all others are known, so that {what} is no match and no weight is lost");
        self.at_key(
            &at.key(key),
            format!("this step decides about records behind steps[{tail}].tail; {rule}; move it before steps[{tail}]"),
        );
    }

    fn tail(&mut self, at: &Path, tail: &TailConfig, hub: &HubConfig) {
        if matches!(hub, HubConfig::Memory(_)) && self.tree_has(at) {
            let rule = "records wait for their verdict on disk, where a restart finds them again";
            self.at_key(at, format!("this step does not go with hub.memory; {rule}; use hub.journal, or `sample` with a `key`"));
        }
        let key = at.key("key");
        self.field_list(&key, &tail.key);
        self.ask_all(&tail.key);
        if tail.key.is_empty() && !self.damaged(&key) {
            self.at(&key, "is empty; a request is known by a field that its records have in common; write [trace_id, request_id]");
        }
        self.condition(&at.key("keep"), &tail.keep);
        if let Rest::Share(ratio) = tail.rest
            && ratio.get() >= 1.0
        {
            self.at(
                &at.key("rest"),
                "is 1; every record would be kept, and wait for nothing; write a smaller share, or leave the step out",
            );
        }
        self.span(&at.key("decision_wait"), tail.decision_wait, 100_000_000, 86_400 * NANOS_PER_SECOND);
        self.keys_max(at, tail.keys_max, 100_000_000);
        self.size(&at.key("bytes_max"), tail.bytes_max, 64 * MIB, u64::MAX);
    }

    /// A filter after a meter changes what is billed by where it stands: only on purpose (DESIGN D4).
    fn filter(&mut self, at: &Path, filter: &FilterConfig, metered: Option<(usize, &str)>) {
        self.condition(&at.key("when"), &filter.when);
        self.stands_before_meters(at, "filter", filter.metered, metered);
    }

    /// Nobody may read behind it what it takes away (DESIGN D4); meters read what was received.
    fn redact(&mut self, at: &Path, redact: &RedactConfig, later: &[StepConfig], number: usize) {
        self.field_list(&at.key("fields"), &redact.fields);
        self.ask_all(&redact.fields);
        let finds = !redact.patterns.is_empty() || !redact.detect.is_empty();
        if !finds && redact.fields.is_empty() && !self.damaged(at) && self.tree_has(at) {
            self.at_key(at, "this step redacts nothing; it names `fields`, `patterns` or what to `detect`; write detect: [email, token]");
        }
        for (i, source) in redact.patterns.iter().enumerate() {
            let at = at.key("patterns").index(i);
            match flow::step::redact::pattern(source) {
                Err((byte, what)) => {
                    let rule = "a pattern is a regular expression that matches at least a byte and stays small";
                    self.note(&at, format!("{}; {rule}; write \\bkey-[0-9a-f]{{32}}\\b", what.replace("; ", ", ")), |tree, id| {
                        tree.spot_inside(id, byte)
                    });
                }
                Ok(regex) => {
                    if let RedactAction::Mask(mask) = &redact.action
                        && regex.is_match(mask.with.as_bytes())
                    {
                        let rule = "what is masked must not be found again";
                        self.at(&at, format!("it matches the mask {:?}; {rule}; choose another mask", mask.with));
                    }
                }
            }
        }
        if let RedactAction::Hash(hash) = &redact.action
            && hash.key_file.is_some() == hash.key_env.is_some()
            && !self.damaged(&at.key("action").key("hash"))
        {
            let rule = "the key comes from one place";
            self.at_key(&at.key("action").key("hash"), format!("it names no key, or two; {rule}; write key_env: WEIR_REDACT_KEY"));
        }
        for (n, step) in later.iter().enumerate() {
            if let Some(field) = redacted_field(redact, &reads(step)) {
                let rule = "a step that reads a field stands before the one that redacts it";
                let message = format!("steps[{}] reads `{field}` behind this step; {rule}; move this step behind it", number + 1 + n);
                self.at_key(at, message);
                break;
            }
        }
    }

    fn shape(&mut self, at: &Path, shape: &ShapeConfig, config: &Config) {
        let of_sources = config.sources.values().flat_map(|source| source.labels().keys());
        let mut labels: Vec<&String> = config.labels.keys().chain(of_sources).chain(config.request_labels.keys()).collect();
        labels.sort_unstable();
        labels.dedup();
        self.field_list(&at.key("keep"), &shape.keep);
        self.field_list(&at.key("remove"), &shape.remove);
        self.ask_all(&shape.remove);
        for (from, to) in &shape.rename {
            let at = at.key("rename").key(from);
            self.field(&at, from);
            self.ask(from);
            if to.is_empty() || to.len() > 256 || to.contains('.') || to.chars().any(char::is_control) {
                self.at(&at, format!("{to:?} is no key; a field keeps its place and gets one new key, without dots; write message"));
            }
        }
        for (name, value) in &shape.set {
            let at = at.key("set").key(name);
            if name.is_empty() || name.len() > 256 || name.contains('.') || name.chars().any(char::is_control) {
                self.at_key(&at, format!("{name:?} is no key; a new field stands at the top, without dots in its key; write region"));
            }
            match value {
                SetValue::Text(_) => {}
                SetValue::Field(Named(path)) => {
                    self.field(&at.key("field"), path);
                    self.ask(path);
                }
                SetValue::Expr(Named(text)) => self.expression(&at.key("expr"), text),
                SetValue::Label(Named(label)) if labels.contains(&label) => {}
                SetValue::Label(Named(label)) => {
                    let known = labels.iter().map(|label| label.as_str()).collect::<Vec<_>>().join(", ");
                    let known = if known.is_empty() { "there are none".into() } else { format!("there are {known}") };
                    self.at(&at.key("label"), format!("`{label}` is no label of this pipeline; {known}; add it to `labels`"));
                }
            }
        }
        if let Some(truncate) = &shape.truncate {
            let at = at.key("truncate");
            self.size(&at.key("bytes_max"), truncate.bytes_max, 1, 64 * MIB);
            self.field_list(&at.key("fields"), &truncate.fields);
        }
        if *shape == ShapeConfig::default() && !self.damaged(at) && self.tree_has(at) {
            self.at_key(at, "this step changes nothing; it keeps, removes, renames, sets or cuts fields; write remove: [debug]");
        }
    }

    fn dedup(&mut self, at: &Path, dedup: &DedupConfig, metered: Option<(usize, &str)>) {
        let request = &dedup.request;
        let of_request = at.key("request");
        let content = dedup.content.as_deref().unwrap_or_default();
        for (at, fields) in [
            (at.key("key"), dedup.key.as_slice()),
            (at.key("content"), content),
            (of_request.key("host"), &request.host),
            (of_request.key("method"), &request.method),
            (of_request.key("path"), &request.path),
            (of_request.key("body"), &request.body),
            (of_request.key("idempotency"), &request.idempotency),
        ] {
            self.field_list(&at, fields);
            self.ask_all(fields);
        }
        if let Some(marker) = &dedup.mirror.marker {
            self.field(&at.key("mirror").key("marker"), marker);
            self.ask(marker);
        }
        self.span(&at.key("window"), dedup.window, 1_000_000, 366 * 86_400 * NANOS_PER_SECOND);
        if !(1..=100_000_000).contains(&dedup.keys_max) {
            self.at(&at.key("keys_max"), format!("is {}; it must be from 1 to 100000000; write 250000", dedup.keys_max));
        }
        self.stands_before_meters(at, "dedup", dedup.metered, metered);
    }

    fn stands_before_meters(&mut self, at: &Path, what: &str, own: Metered, metered: Option<(usize, &str)>) {
        if let (Some((i, name)), Metered::No) = (metered, own)
            && self.tree_has(at)
            && !self.lost_key(at, "metered")
        {
            let rule = format!("what it drops would be on the bill of `{name}` (steps[{i}]) although it is not ours");
            self.at_key(at, format!("this {what} stands after a meter; {rule}; move it before steps[{i}], or write `metered: anyway`"));
        }
    }

    fn tree_has(&self, at: &Path) -> bool {
        matches!(self.tree.find(at), Found::Node(_))
    }

    fn lost_key(&self, at: &Path, key: &str) -> bool {
        matches!(self.tree.find(at), Found::Node(id) if self.tree.lost(id, key))
    }

    fn meter(&mut self, at: &Path, meter: &MeterConfig) {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let is_told = self.tree_has(&at.key("name"));
        let is_needed = meter.usage.is_none() && !self.lost_key(at, "name") && !self.lost_key(at, "usage");
        match meter.name.as_str() {
            "" if !is_told && is_needed => self.at(at, "`name` is missing; it cannot do without; add `name: ...`"),
            "" if !is_told => {}
            name if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fine) => {
                let rule = format!("a name is 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`");
                self.at(&at.key("name"), format!("{name:?} is no name of a meter; {rule}; write tokens_in"));
            }
            _ => {}
        }
        match meter.usage {
            Some(_) => self.usage_meter(at, meter),
            None => self.plain_meter(at, meter),
        }
        self.field_list(&at.key("by"), &meter.by);
        self.field_list(&at.key("key"), &meter.key);
        if let Some(when) = &meter.when {
            self.condition(&at.key("when"), when);
        }
        for meter in meter.expand() {
            meter.own_fields().for_each(|field| self.ask(field));
        }
    }

    /// The meters of a convention: what they count is known.
    fn usage_meter(&mut self, at: &Path, meter: &MeterConfig) {
        if meter.usage == Some(UsageFields::Events) {
            for (key, is_there) in [("key", !meter.key.is_empty()), ("name", !meter.name.is_empty()), ("within", meter.within.is_some())] {
                if is_there {
                    self.at_key(&at.key(key), format!("`{key}` does not go with `usage: events`; an event says it itself; leave it out"));
                }
            }
        }
        for (key, is_there) in [
            ("quantity", meter.quantity.is_some()),
            ("unit", meter.unit.is_some()),
            ("part_of", meter.part_of.is_some()),
            ("start", meter.start.is_some()),
            ("end", meter.end.is_some()),
            ("duration", meter.duration.is_some()),
            ("duration_unit", meter.duration_unit.is_some()),
        ] {
            if is_there {
                let rule = "`usage` says which fields hold tokens";
                self.at_key(&at.key(key), format!("`{key}` does not go with `usage`; {rule}; leave one of the two out"));
            }
        }
        if meter.kind.is_some_and(|kind| kind != MeterKind::Sum) {
            self.at(&at.key("kind"), "does not go with `usage`; tokens are added up; leave it out");
        }
        if let Some(within) = &meter.within {
            self.field(&at.key("within"), within);
        }
    }

    fn plain_meter(&mut self, at: &Path, meter: &MeterConfig) {
        let kind = meter.kind();
        if meter.within.is_some() {
            self.at_key(&at.key("within"), "`within` goes with `usage` only; fields are named by their whole path; leave it out");
        }
        match (&meter.quantity, &meter.unit) {
            (Some(quantity), unit) => {
                self.field(&at.key("quantity"), quantity);
                if unit.is_none() && !self.lost_key(at, "unit") {
                    self.at_key(at, format!("`unit` is missing; nobody can price `{quantity}` without knowing what it counts; add `unit: Tokens`, or what it is"));
                }
            }
            (None, _) if self.lost_key(at, "quantity") => {}
            (None, None) if kind == MeterKind::Interval && !self.lost_key(at, "unit") => {
                self.at_key(
                    at,
                    "`unit` is missing; nobody can price what is held without knowing what it is; add `unit: GPU`, or what it is",
                );
            }
            (None, Some(unit)) if unit != "Records" && kind != MeterKind::Interval => {
                self.at(
                    &at.key("unit"),
                    format!("is {unit} without a quantity; a meter without `quantity` counts records; add `quantity`, or leave `unit` out"),
                );
            }
            (None, _) => {}
        }
        if meter.unit.as_ref().is_some_and(|unit| unit.is_empty() || unit.len() > NAME_BYTES_MAX) {
            self.at(&at.key("unit"), format!("is no unit; a unit has 1 to {NAME_BYTES_MAX} bytes; write Tokens"));
        }
        if let Some(whole) = &meter.part_of {
            self.field(&at.key("part_of"), whole);
            if meter.quantity.is_none() && !self.lost_key(at, "quantity") {
                self.at(
                    &at.key("part_of"),
                    "only a quantity can be part of another one; a meter without `quantity` counts records; add `quantity`",
                );
            }
            if meter.quantity.as_ref() == Some(whole) {
                self.at(
                    &at.key("part_of"),
                    format!("`{whole}` is the quantity itself; `part_of` names the field that includes it; leave it out"),
                );
            }
        }
        self.meter_kind(at, meter, kind);
    }

    /// What a kind needs, and what says nothing to it.
    fn meter_kind(&mut self, at: &Path, meter: &MeterConfig, kind: MeterKind) {
        match kind {
            MeterKind::Count if meter.quantity.is_some() => self
                .at(&at.key("kind"), "counts records, whatever their `quantity`; to add quantities up, write sum; or leave `quantity` out"),
            MeterKind::Sum | MeterKind::Integral if meter.quantity.is_none() && !self.lost_key(at, "quantity") => {
                self.at(&at.key("kind"), "needs a quantity; only a number in the record can be added up; add `quantity`")
            }
            _ => {}
        }
        let times = [("start", &meter.start), ("end", &meter.end), ("duration", &meter.duration)];
        for (key, field) in times {
            let Some(field) = field else { continue };
            self.field(&at.key(key), field);
            if kind != MeterKind::Interval && !self.lost_key(at, "kind") {
                let rule = "only what is held from one time to another has one";
                self.at_key(&at.key(key), format!("`{key}` goes with `kind: interval`; {rule}; add `kind: interval`, or leave it out"));
            }
        }
        if meter.duration_unit.is_some() && meter.duration.is_none() && !self.lost_key(at, "duration") {
            self.at_key(&at.key("duration_unit"), "`duration_unit` is of no duration; it says what the field counts; add `duration`");
        }
        if kind != MeterKind::Interval {
            return;
        }
        if times.iter().all(|(_, field)| field.is_some()) {
            let rule = "two of them say the third";
            self.at_key(&at.key("duration"), format!("`start`, `end` and `duration` are too many; {rule}; leave one out"));
        }
        let is_lost = ["start", "duration"].iter().any(|key| self.lost_key(at, key));
        if meter.start.is_none() && meter.duration.is_none() && !is_lost {
            let rule = "an interval has two ends, and the record's own time is one at most";
            self.at_key(at, format!("this meter does not say from when; {rule}; add `start`, or `duration`"));
        }
        if let Some(field) = &meter.duration
            && meter.duration_unit().is_none()
            && !self.lost_key(at, "duration_unit")
        {
            let rule = "a name may end in its unit, as in `held_ms` or `heldSeconds`";
            self.at(&at.key("duration"), format!("nobody knows what `{field}` counts; {rule}; add `duration_unit: s`, or what it is"));
        }
    }

    fn sample(&mut self, at: &Path, sample: &SampleConfig) {
        let levels = at.key("levels");
        for (level, policy) in sample.levels.entries() {
            if let Some(policy) = policy {
                self.policy(&levels.key(level), policy);
            }
        }
        self.policy(&at.key("other"), &sample.other);
        let nothing = sample.levels.entries().iter().all(|(_, policy)| policy.is_none()) && sample.other == Policy::All;
        if nothing && !self.damaged(at) && self.tree_has(at) {
            self.at_key(at, "this step keeps everything; a sampler names at least one level; write levels: { debug: none }");
        }
    }

    fn policy(&mut self, at: &Path, policy: &Policy) {
        match policy {
            Policy::All | Policy::None => {}
            Policy::Ratio { key, .. } => {
                if let Some(key) = key {
                    self.field(&at.key("key"), key);
                    self.ask(key);
                }
            }
            Policy::First { tick, by, exact_keys, keys_max, .. } => {
                self.span(&at.key("tick"), *tick, 1_000_000, 86_400 * NANOS_PER_SECOND);
                self.by(at, by);
                if *exact_keys {
                    self.keys_max(at, *keys_max, 1_000_000);
                }
            }
            Policy::Dynamic { method, goal, by, interval, keys_max, .. } => {
                self.span(&at.key("interval"), *interval, 1_000_000, 86_400 * NANOS_PER_SECOND);
                self.by(at, by);
                self.keys_max(at, *keys_max, 100_000);
                if *goal == 0 {
                    self.at(&at.key(method.name()), "is 0; a rate and a throughput are at least 1; to keep nothing, write none");
                }
            }
            Policy::Window { kind, size, tick, .. } => {
                self.span(&at.key("tick"), *tick, 1_000_000, 86_400 * NANOS_PER_SECOND);
                if *size == 0 {
                    self.at(&at.key(kind.name()), "is 0; at least one record of a tick is kept; to keep nothing, write none");
                }
            }
            Policy::When { when, weight } => {
                self.condition(&at.key("when"), when);
                if *weight == 0 {
                    self.at(&at.key("weight"), "is 0; a kept record stands for at least itself; write 1");
                }
            }
        }
    }

    fn by(&mut self, at: &Path, by: &[String]) {
        self.field_list(&at.key("by"), by);
        self.ask_all(by);
    }

    fn keys_max(&mut self, at: &Path, keys_max: u32, most: u32) {
        if !(1..=most).contains(&keys_max) {
            self.at(&at.key("keys_max"), format!("is {keys_max}; it must be from 1 to {most}; write {}", keys_max.clamp(1, most)));
        }
    }

    fn quota(&mut self, at: &Path, quota: &QuotaConfig, config: &Config) {
        let limits = quota.limits();
        if limits.is_empty() && !self.damaged(at) && self.tree_has(at) {
            let rule = "a quota says how many records or bytes, or how much money, in which period";
            self.at_key(at, format!("this step limits nothing; {rule}; write bytes_per_day: 10GiB"));
        }
        if let Some((name, ..)) = quota.money().next() {
            let root = Path::default();
            if config.rates.is_none() && !self.lost_key(&root, "rates") {
                let rule = "money is what meters count times the prices of a rate card";
                self.at_key(&at.key(name), format!("this pipeline has no rate card; {rule}; write rates: rates.yaml at the top level"));
            }
            let has_meters = config.steps.iter().any(|step| matches!(step, StepConfig::Meter(_)));
            if !has_meters && !self.damaged(&root.key("steps")) {
                let rule = "money is what meters count times the prices of a rate card, so every record would cost nothing";
                self.at_key(&at.key(name), format!("this pipeline has no meter; {rule}; add a `meter` step"));
            }
            let is_priced = |meter: &MeterConfig| matches!(meter.kind(), MeterKind::Count | MeterKind::Sum);
            if has_meters && !super::meters(config).iter().any(is_priced) && !self.damaged(&root.key("steps")) {
                let rule =
                    "a record says what was held or how much there is, and not what that costs until later, so each would cost nothing";
                self.at_key(&at.key(name), format!("no meter of this pipeline counts or adds up; {rule}; add such a `meter` step"));
            }
        }
        if quota.over == OverQuota::Delay && quota.clock == Clock::Event && self.tree_has(&at.key("clock")) {
            let rule = "a log that waits is read on when the clock says so, whatever its records say";
            self.at(&at.key("clock"), format!("does not go with `over: delay`; {rule}; write arrival, or leave it out"));
        }
        for (name, _, _, amount) in limits {
            if amount == 0 {
                self.at(&at.key(name), "is 0; nobody could send anything; to drop all records of a kind, use a `drop` step");
            }
        }
        if quota.by != BY_TENANT {
            self.field(&at.key("by"), &quota.by);
            self.ask(&quota.by);
        }
        if quota.burst > 1_000 {
            self.at(&at.key("burst"), format!("is {}; at most 1000 periods gather; write 1000", quota.burst));
        }
        self.keys_max(at, quota.keys_max, 1_000_000);
    }

    fn hub(&mut self, hub: &HubConfig, at: &Path) {
        match hub {
            HubConfig::Journal(journal) => {
                let at = at.key("journal");
                self.size(&at.key("bytes_max"), journal.bytes_max, 64 * MIB, u64::MAX);
                self.span(&at.key("sync_interval"), journal.sync_interval, 1_000_000, 10 * NANOS_PER_SECOND);
            }
            HubConfig::Memory(memory) => self.size(&at.key("memory").key("bytes_max"), memory.bytes_max, 4 * MIB, u64::MAX),
        }
    }

    fn sink(&mut self, at: &Path, sink: &SinkConfig, hub: &HubConfig) {
        let at = at.key(sink.kind());
        if let Some(when) = sink.when() {
            self.condition(&at.key("when"), when);
        }
        match sink {
            SinkConfig::Stdout(_) | SinkConfig::Blackhole(_) => {}
            SinkConfig::Archive(archive) => self.archive(&at, archive, hub),
            SinkConfig::Lake(lake) => self.lake(&at, lake),
            SinkConfig::Http(http) => self.http_sink(&at, http),
            SinkConfig::RemoteWrite(_) | SinkConfig::Otlp(_) => {
                if let Some(http) = sink.http() {
                    self.http_sink(&at, &http);
                }
            }
            SinkConfig::Prometheus(prometheus) => self.prometheus_sink(&at, prometheus),
        }
    }

    /// A sink that something is diverted to takes nothing else, so others must be left; and a frame can tell so many apart.
    fn diversions(&mut self, config: &Config, root: &Path) {
        let sinks = root.key("sinks");
        let named = config.sinks.iter().filter(|(name, sink)| sink.when().is_some() || config.is_diverted_to(name)).count();
        let others = usize::from(config.diversions().next().is_some());
        if named + others > SINKS_MAX {
            let most = SINKS_MAX - others;
            let message = format!(
                "has {named} sinks that do not take everything; frames tell {most} of them apart; leave out a `when`, or split the pipeline"
            );
            self.at_key(&sinks, message);
        }
        for (number, target) in config.diversions() {
            let at = root.key("steps").index(number).key("quota").key("over").key("divert");
            match config.sinks.get(target) {
                None if self.lost_key(&sinks, target) => {}
                None => {
                    let known: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
                    let help = match nearest(target, known.iter().copied()) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => "name one of them, or add it to `sinks`".into(),
                    };
                    self.at(&at, format!("no sink is called `{target}`; sinks are: {}; {help}", known.join(", ")));
                }
                Some(sink) if sink.when().is_some() => {
                    let rule = format!("`{target}` takes what steps[{number}] diverts to it and nothing else");
                    let message =
                        format!("no condition is asked about what is diverted; {rule}; leave `when` out, or divert to another sink");
                    self.at_key(&sinks.key(target).key(sink.kind()).key("when"), message);
                }
                Some(_) if config.sinks.keys().all(|sink| config.is_diverted_to(sink)) && !self.damaged(&sinks) => {
                    let rule = format!("`{target}` takes what is diverted to it and nothing else");
                    self.at(&at, format!("no sink is left for what is within the quota; {rule}; add another sink"));
                }
                Some(_) => {}
            }
            if matches!(config.hub, HubConfig::Memory(_)) {
                let rule = "after a crash it decides anew, so a record could be passed over by one sink and not be for the other";
                self.at(&at, format!("divert does not go with hub.memory; {rule}; use hub.journal"));
            }
        }
    }

    fn archive(&mut self, at: &Path, archive: &ArchiveConfig, hub: &HubConfig) {
        let path = at.key("path");
        match template_fields(&archive.path) {
            Ok(fields) => fields.into_iter().filter(|field| *field != "tenant").for_each(|field| self.ask(field)),
            Err((byte, message)) => self.note(&path, message, |tree, id| tree.spot_inside(id, byte)),
        }
        if let Some(rotate) = &archive.rotate {
            self.rotate(&at.key("rotate"), rotate);
        }
        if let Some(room) = &archive.room {
            self.room(&at.key("room"), room, archive, hub);
        }
        let commit = at.key("commit");
        self.span(&commit.key("interval"), archive.commit.interval, 1_000_000, 3_600 * NANOS_PER_SECOND);
        self.size(&commit.key("bytes"), archive.commit.bytes, 4 * KIB, u64::MAX);
        if !(1..=65_536).contains(&archive.open_files_max) {
            self.at(&at.key("open_files_max"), format!("is {}; it must be from 1 to 65536; write 256", archive.open_files_max));
        }
    }

    fn rotate(&mut self, at: &Path, rotate: &RotateConfig) {
        let is_never = rotate.size.is_none() && rotate.every.is_none() && rotate.at.is_none() && !rotate.on_sighup;
        if is_never && !self.damaged(at) {
            self.at_key(at, "says nothing of when; a file is rotated by `size`, `every`, `at` or `on_sighup`; write size: 100MiB");
        }
        if let Some(size) = rotate.size {
            self.size(&at.key("size"), size, KIB, u64::MAX);
        }
        if let Some(every) = rotate.every {
            self.span(&at.key("every"), every, NANOS_PER_SECOND, i64::MAX);
        }
        if let Some(age) = rotate.age {
            self.span(&at.key("age"), age, NANOS_PER_SECOND, i64::MAX);
        }
        let Some(zone) = &rotate.zone else {
            if rotate.names == NameZone::Local && !self.lost_key(at, "zone") {
                let rule = "local time is that of a zone, which is not taken from the machine";
                self.at(&at.key("names"), format!("says nothing of where; {rule}; write zone: Europe/Berlin too"));
            }
            return;
        };
        if archive::zone(zone).is_err() {
            self.at(&at.key("zone"), format!("{zone:?} is no time zone; it is a name of the tz database; write Europe/Berlin"));
        } else if rotate.at.is_none() && rotate.names == NameZone::Utc && !self.damaged(&at.key("at")) && !self.lost_key(at, "names") {
            let rule = "a zone says when the hour or day of `at` ends, and which clock `names: local` is of";
            self.at_key(&at.key("zone"), format!("changes nothing; {rule}; write at: day, or leave it out"));
        }
    }

    fn room(&mut self, at: &Path, room: &RoomConfig, archive: &ArchiveConfig, hub: &HubConfig) {
        if room.min_free_bytes.is_none() && room.max_total_bytes.is_none() && !self.damaged(at) {
            self.at_key(at, "limits nothing; room is what must stay free or what may be taken; write max_total_bytes: 10GiB");
        }
        if let Some(bytes) = room.max_total_bytes {
            self.size(&at.key("max_total_bytes"), bytes, MIB, u64::MAX);
            let size = archive.rotate.as_ref().and_then(|rotate| rotate.size).unwrap_or(ByteSize(0));
            if bytes.0 >= MIB && size.0.saturating_mul(2) > bytes.0 {
                let message = format!(
                    "is {bytes}, and one file grows to {size}; only rotated files can be deleted, so two of them must fit; write {}",
                    ByteSize(size.0.saturating_mul(2))
                );
                self.at(&at.key("max_total_bytes"), message);
            }
        }
        if room.when_full == RoomFull::DropNewest && matches!(hub, HubConfig::Memory(_)) {
            let message = "does not go with hub.memory; what was dropped is remembered by the journal alone; write wait";
            self.at(&at.key("when_full"), message);
        }
    }

    fn lake(&mut self, at: &Path, lake: &LakeConfig) {
        let url = at.key("url");
        match lake.url.split_once(':') {
            Some(("file", folder)) if !folder.is_empty() && !folder.starts_with("//") => {}
            Some(("file", _)) => {
                self.at(&url, format!("{:?} names no folder; a lake's url is file: and a folder; write file:lake", lake.url))
            }
            Some((scheme @ ("s3" | "gs" | "az" | "abfs" | "http" | "https"), _)) => {
                self.at(&url, format!("lakes at {scheme}: are not built yet; a lake lies in a folder for now; write file:lake"));
            }
            _ => self.at(&url, format!("{:?} is no url of a lake; a lake's url is file: and a folder; write file:lake", lake.url)),
        }
        for (key, list) in [("index", &lake.index), ("text", &lake.text), ("ids", &lake.ids)] {
            self.field_list(&at.key(key), list);
        }
        let seal = at.key("seal");
        self.size(&seal.key("bytes"), lake.seal.bytes, 64 * KIB, 1 << 40);
        self.span(&seal.key("age"), lake.seal.age, 100_000_000, 86_400 * NANOS_PER_SECOND);
        let merge = at.key("merge");
        self.span(&merge.key("after"), lake.merge.after, 60 * NANOS_PER_SECOND, 400 * 86_400 * NANOS_PER_SECOND);
        self.size(&merge.key("bytes"), lake.merge.bytes, MIB, 1 << 40);
        let keep = at.key("keep");
        let own = lake.keep.tenants.iter().map(|(name, own)| (keep.key("tenants").key(name), own.age, own.bytes));
        for (at, age, bytes) in [(keep.clone(), lake.keep.age, lake.keep.bytes)].into_iter().chain(own) {
            if let Some(age) = age {
                self.span(&at.key("age"), age, 3600 * NANOS_PER_SECOND, 36_500 * 86_400 * NANOS_PER_SECOND);
            }
            if let Some(bytes) = bytes {
                self.size(&at.key("bytes"), bytes, 64 * KIB, 1 << 60);
            }
        }
        if let Some(bytes) = lake.keep.node_bytes {
            self.size(&keep.key("node_bytes"), bytes, 64 * KIB, 1 << 60);
        }
    }

    fn lineage(&mut self, config: &Config, at: &Path) {
        let Some(block) = &config.lineage else { return };
        self.ask(&block.service);
        self.ask(&block.model);
        for error in block.check() {
            if let Found::Node(id) | Found::Above(id) = self.tree.find_text(at, &error.path) {
                let mistake = self.tree.mistake(self.tree.spot(id), self.tree.path_of(id).to_string(), "");
                self.mistakes.push(Mistake { message: self.tree.without_secrets(&error.message), help: Some(error.help), ..mistake });
            }
        }
    }

    /// Two stores in one folder would write into each other.
    fn apart(&mut self, sinks: &BTreeMap<String, SinkConfig>, at: &Path) {
        let mut folders: BTreeMap<String, &str> = BTreeMap::new();
        for (name, sink) in sinks {
            let (folder, key) = match sink {
                SinkConfig::Stdout(_) | SinkConfig::Blackhole(_) => ("-".to_string(), None),
                SinkConfig::Archive(archive) => match &archive.dir {
                    Some(dir) => (dir.to_string_lossy().trim_end_matches('/').to_string(), Some("dir")),
                    None => continue,
                },
                SinkConfig::Lake(lake) => (lake.url.trim_end_matches('/').to_string(), Some("url")),
                SinkConfig::Http(_) | SinkConfig::RemoteWrite(_) | SinkConfig::Otlp(_) | SinkConfig::Prometheus(_) => continue,
            };
            match (folders.get(&folder), key) {
                (Some(first), Some(key)) => {
                    let at = at.key(name).key(sink.kind()).key(key);
                    self.at(&at, format!("sink `{first}` writes to the same place; two sinks do not share a folder; choose another"));
                }
                (Some(first), None) => {
                    let message = format!("sink `{first}` writes to standard output already; two would mix their lines; leave one out");
                    self.at_key(&at.key(name).key(sink.kind()), message);
                }
                (None, _) => drop(folders.insert(folder, name)),
            }
        }
    }
}

/// The fields whose values decide what a step does.
fn reads(step: &StepConfig) -> Vec<String> {
    let mut fields = Vec::new();
    match step {
        StepConfig::Drop(filter) | StepConfig::Keep(filter) => fields = fields_of(&filter.when),
        StepConfig::Sample(sample) => {
            for policy in sample.levels.entries().into_iter().filter_map(|e| e.1).chain([&sample.other]) {
                match policy {
                    Policy::When { when, .. } => fields.extend(fields_of(when)),
                    Policy::Ratio { key: Some(key), .. } => fields.push(key.clone()),
                    Policy::First { by, .. } | Policy::Dynamic { by, .. } => fields.extend(by.iter().cloned()),
                    _ => {}
                }
            }
        }
        StepConfig::Dedup(dedup) => {
            let request = &dedup.request;
            let lists = [&dedup.key, &request.host, &request.method, &request.path, &request.body, &request.idempotency];
            fields.extend(lists.into_iter().flatten().chain(dedup.content.iter().flatten()).chain(&dedup.mirror.marker).cloned());
        }
        StepConfig::Quota(quota) => fields.extend((quota.by != BY_TENANT).then(|| quota.by.clone())),
        StepConfig::Tail(tail) => fields.extend(tail.key.iter().cloned().chain(fields_of(&tail.keep))),
        StepConfig::Meter(_) | StepConfig::Redact(_) | StepConfig::Shape(_) => {}
    }
    fields
}

/// The first of these fields that a step redacts, or a part of it.
pub fn redacted_field(redact: &RedactConfig, fields: &[String]) -> Option<String> {
    let related = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
    let is_hit = |field: &&String| redact.fields.is_empty() || redact.fields.iter().any(|f| related(field, f) || related(f, field));
    fields.iter().find(is_hit).cloned()
}

/// The fields that a condition names; a mistake in it is told elsewhere.
pub fn fields_of(when: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let _ = Condition::parse(when, &mut |field: &str| {
        fields.push(field.to_string());
        0
    });
    fields
}

/// The nearest name that is one.
pub fn sane_name(name: &str) -> String {
    let fine = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    name.chars().map(fine).take(NAME_BYTES_MAX).collect::<String>().trim_matches('-').to_string()
}

/// The fields a path template names. An error is the byte it is at, and what is wrong.
pub fn template_fields(template: &str) -> Result<Vec<&str>, (usize, String)> {
    let example = "write logs/{tenant}/{service}.log";
    if template.is_empty() || template.ends_with('/') {
        return Err((template.len().saturating_sub(1), format!("{template:?} names no file; a path ends with a file's name; {example}")));
    }
    if template.starts_with('/') {
        return Err((0, format!("the path begins at the root; a path is relative to `dir`; put the folder into `dir` and {example}")));
    }
    if template.contains(['\0', '\\']) {
        return Err((0, format!("{template:?} holds characters that no path has; folders are divided by /; {example}")));
    }
    let mut at = 0;
    for part in template.split('/') {
        if matches!(part, "" | "." | "..") {
            return Err((at, format!("`{part}` is no name of a folder; a path goes down from `dir` and nowhere else; {example}")));
        }
        at += part.len() + 1;
    }
    let mut fields = Vec::new();
    let mut rest = template;
    while let Some(brace) = rest.find(['{', '}']) {
        let at = template.len() - rest.len() + brace;
        let after = &rest[brace + 1..];
        match after.split_once('}') {
            Some((field, after))
                if rest[brace..].starts_with('{') && !field.contains(['{', '/']) && !field.split('.').any(str::is_empty) =>
            {
                fields.push(field);
                rest = after;
            }
            _ => return Err((at, format!("this brace does not enclose a field; braces hold `tenant` or the name of a field; {example}"))),
        }
    }
    Ok(fields)
}
