//! Lineage as events: which dataset and model stand behind a service, and which report reads it.
//!
//! In: the `lineage:` block of a pipeline and sightings (this service wrote logs with this model in this minute).
//! Out: OpenLineage 2-0-2 events, the same for the same input in any order. `graph` answers questions from them.
//! Pure: no clock, disk or network; times come from the records.
//! Bound: one event per service, hour and model, plus two per model and one per dataset and per pair of report and
//! service; a sighting without service, model or records, or outside of the years 1679 to 2260, is left out.

mod graph;
#[cfg(test)]
mod tests;

pub use graph::{Direction, Edge, Graph, Kind, Node, Reach, Reached, Unanswered, Validity, check_event, parse_time};

use flow::units::{NANOS_PER_HOUR, UnixNanos};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Who made the events; a URI, as OpenLineage asks for.
pub const PRODUCER: &str = "urn:weir:lineage:1";
const CORE: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs";
const FACETS: &str = "https://openlineage.io/spec/facets";
const MINUTES_PER_HOUR: i64 = 60;
/// Minutes whose whole hour fits `UnixNanos`; a sighting outside of them is left out.
const MINUTES: std::ops::Range<i64> = -153_000_000..153_000_000;

/// What is known of the datasets, models and reports around the services whose logs flow through.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Namespace of the services as OpenLineage jobs. Models, request logs and reports get it with `.models`, `.logs` and `.reports` added.
    #[serde(default = "namespace")]
    pub namespace: String,
    /// Log field that names the service.
    #[serde(default = "service")]
    pub service: String,
    /// Log field that names the model.
    #[serde(default = "model")]
    pub model: String,
    /// Datasets that models were trained on.
    #[serde(default)]
    pub datasets: Vec<DatasetConfig>,
    /// Models by the name that the logs give them.
    #[serde(default)]
    pub models: BTreeMap<String, ModelConfig>,
    /// Reports that are made from request logs, by name.
    #[serde(default)]
    pub reports: BTreeMap<String, ReportConfig>,
}

/// A dataset.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    /// Where it lies, as in `s3://corpora/web-2026`: store and bucket become its namespace, the path its name.
    pub name: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Who answers for it, as in `team:data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// A model and what it was made from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Its version; change it with a model update, and lineage tells the two apart by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where its model card lies, as in `registry/orca-8b-it`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<String>,
    /// Datasets it was trained on: names out of `datasets`.
    #[serde(default)]
    pub trained_on: Vec<String>,
    /// Models it was made from.
    #[serde(default)]
    pub base: Vec<String>,
}

/// A report and what it reads.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportConfig {
    /// Services whose request logs it reads; `"*"` is every service that was seen.
    pub reads: Vec<String>,
    /// Where it is written, as in `s3://reports/weekly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

fn namespace() -> String {
    "weir".to_string()
}

fn service() -> String {
    "service".to_string()
}

fn model() -> String {
    "model".to_string()
}

/// A mistake in a lineage block: where, what, the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockError {
    /// Below the block, as in `models.orca-8b-it.trained_on[0]`.
    pub path: String,
    pub message: String,
    pub help: String,
}

impl Block {
    /// Every mistake that the shape alone does not show.
    pub fn check(&self) -> Vec<BlockError> {
        let mut errors = Vec::new();
        let mut add = |path: String, message: String, help: &str| errors.push(BlockError { path, message, help: help.to_string() });
        let printable = "a name is at least one printable character";
        let bad = |name: &str| name.is_empty() || name.chars().any(char::is_control);
        for (path, name) in [("namespace", &self.namespace), ("service", &self.service), ("model", &self.model)] {
            if bad(name) {
                add(path.to_string(), format!("is {name:?}"), printable);
            }
        }
        let mut known = BTreeSet::new();
        for (index, dataset) in self.datasets.iter().enumerate() {
            if bad(&dataset.name) {
                add(format!("datasets[{index}].name"), format!("is {:?}", dataset.name), printable);
            }
            if !known.insert(&dataset.name) {
                add(format!("datasets[{index}].name"), format!("is {:?}, which is listed before", dataset.name), "list each dataset once");
            }
        }
        for (name, model) in &self.models {
            if bad(name) {
                add(format!("models.{name}"), format!("is {name:?}"), printable);
            }
            for (index, dataset) in model.trained_on.iter().enumerate().filter(|(_, dataset)| !known.contains(dataset)) {
                add(
                    format!("models.{name}.trained_on[{index}]"),
                    format!("is {dataset:?}, which datasets does not list"),
                    "list it under datasets, by the same name",
                );
            }
            for (index, base) in model.base.iter().enumerate().filter(|(_, base)| *base == name || bad(base)) {
                add(format!("models.{name}.base[{index}]"), format!("is {base:?}"), "a base is another model that this one was made from");
            }
        }
        for (name, report) in &self.reports {
            if bad(name) {
                add(format!("reports.{name}"), format!("is {name:?}"), printable);
            }
            if report.reads.is_empty() {
                add(format!("reports.{name}.reads"), "is empty".to_string(), "name services, or \"*\" for all of them");
            }
            for (index, read) in report.reads.iter().enumerate().filter(|(_, read)| bad(read)) {
                add(format!("reports.{name}.reads[{index}]"), format!("is {read:?}"), printable);
            }
        }
        errors
    }
}

/// A service was seen with a model in a minute of event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub service: String,
    pub model: String,
    /// Minutes since the epoch.
    pub minute: i64,
    /// Records that said so; 0 is no sighting.
    pub records: u64,
}

/// One OpenLineage event. Two events of one key say the same, so one of them is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Of a service: its run, model and version. Of a dataset, model or report: what the event says, without its time.
    pub key: String,
    pub event_time: UnixNanos,
    /// `RUNNING` and so on for a run, `DATASET` for a dataset event.
    pub event_type: String,
    /// Empty for a dataset event, as are the two names of a job.
    pub run_id: String,
    pub job_namespace: String,
    pub job_name: String,
    /// The event as it is sent: one object, keys in order, no line break.
    pub json: String,
}

/// The events of these sightings, in the order of time and key.
///
/// The order and the number of sightings do not matter, only which services, models and hours occur. Calls for parts of the
/// sightings give, key by key, the events of a call for all of them; only the time of an event about a dataset, model or report
/// is that of the earliest hour the call has seen. Without a sighting there is no time, and no event.
pub fn events(block: &Block, sightings: &[Sighting]) -> Vec<Event> {
    let useful = |s: &&Sighting| s.records > 0 && !s.service.is_empty() && !s.model.is_empty() && MINUTES.contains(&s.minute);
    let seen: BTreeSet<(i64, &str, &str)> =
        sightings.iter().filter(useful).map(|s| (s.minute.div_euclid(MINUTES_PER_HOUR), s.service.as_str(), s.model.as_str())).collect();
    let Some((first, _, _)) = seen.first() else {
        return Vec::new();
    };
    let first = UnixNanos(first * NANOS_PER_HOUR);
    let services: BTreeSet<&str> = seen.iter().map(|(_, service, _)| *service).collect();
    let models: BTreeSet<&str> = seen.iter().map(|(_, _, model)| *model).chain(block.models.keys().map(String::as_str)).collect();
    let mut events: Vec<Event> =
        seen.iter().map(|(hour, service, model)| service_event(block, UnixNanos(hour * NANOS_PER_HOUR), service, model)).collect();
    events.extend(block.datasets.iter().map(|dataset| dataset_event(block, dataset, first)));
    for model in models {
        events.push(card_event(block, model, first));
        events.extend(block.models.get(model).and_then(|config| training_event(block, model, config, first)));
    }
    for (name, report) in &block.reports {
        let all = report.reads.iter().any(|read| read == "*");
        let named = report.reads.iter().map(String::as_str).filter(|read| *read != "*");
        let reads: BTreeSet<&str> = if all { named.chain(services.iter().copied()).collect() } else { named.collect() };
        events.extend(reads.into_iter().map(|service| report_event(block, name, report, service, first)));
    }
    events.sort_by(|a, b| (a.event_time, &a.key).cmp(&(b.event_time, &b.key)));
    events
}

/// One hour of a service with one model: the model version in, the service's request log out.
///
/// A service that ran two models in an hour has two events of one run, which accumulate.
fn service_event(block: &Block, hour: UnixNanos, service: &str, model: &str) -> Event {
    let run_id = run_id(&[&block.namespace, "service", service, &hour.rfc3339()]);
    let version = block.models.get(model).and_then(|m| m.version.as_deref()).unwrap_or("");
    let end = UnixNanos(hour.0 + NANOS_PER_HOUR);
    let nominal = json!({ "nominalTime": facet("1-0-1/NominalTimeRunFacet.json#/$defs/NominalTimeRunFacet", json!({
        "nominalStartTime": hour.rfc3339(), "nominalEndTime": end.rfc3339() })) });
    let emission =
        json!({ "eventTrigger": "PERIODIC", "eventContentMode": "ACCUMULATIVE", "windowDuration": NANOS_PER_HOUR / 1_000_000_000 });
    let job_type =
        facet(JOB_TYPE, json!({ "processingType": "SERVICE", "integration": "WEIR", "jobType": "INFERENCE", "emissionPattern": emission }));
    let run = Run {
        event_type: "RUNNING",
        time: hour,
        run_id: &run_id,
        run_facets: nominal,
        job: service,
        job_type,
        inputs: vec![model_dataset(block, model)],
        outputs: vec![log_dataset(block, service)],
    };
    run.event(block, key_of(&["service", &run_id, model, version]))
}

fn dataset_event(block: &Block, config: &DatasetConfig, time: UnixNanos) -> Event {
    let mut dataset = named_dataset(block, &config.name);
    if let Some(owner) = &config.owner {
        let owners = json!({ "owners": [{ "name": owner, "type": "MAINTAINER" }] });
        add_facet(&mut dataset, "ownership", "1-0-1/OwnershipDatasetFacet.json#/$defs/OwnershipDatasetFacet", owners);
    }
    static_event("dataset", dataset, time)
}

/// The model card: what is said of a model, and the name the registry has for it.
fn card_event(block: &Block, model: &str, time: UnixNanos) -> Event {
    let mut dataset = model_dataset(block, model);
    let card = block.models.get(model).and_then(|config| config.card.as_deref());
    let text = match card {
        Some(card) => format!("model {model}, model card {card}"),
        None => format!("model {model}, no model card"),
    };
    add_facet(
        &mut dataset,
        "documentation",
        "1-1-0/DocumentationDatasetFacet.json#/$defs/DocumentationDatasetFacet",
        json!({ "description": text }),
    );
    if let Some(card) = card {
        add_symlink(&mut dataset, block, card, "MODEL_CARD");
    }
    static_event("model", dataset, time)
}

/// What a model was made from; `None` if nobody says so.
fn training_event(block: &Block, model: &str, config: &ModelConfig, time: UnixNanos) -> Option<Event> {
    let datasets = config.trained_on.iter().map(|name| named_dataset(block, name));
    let inputs: Vec<Value> = datasets.chain(config.base.iter().map(|base| model_dataset(block, base))).collect();
    if inputs.is_empty() {
        return None;
    }
    let outputs = vec![model_dataset(block, model)];
    let said = digest(&[&Value::from(inputs.clone()).to_string(), &Value::from(outputs.clone()).to_string()]);
    let run_id = run_id(&[&block.namespace, "training", model, &said]);
    let job = format!("training/{model}");
    let job_type = facet(JOB_TYPE, json!({ "processingType": "BATCH", "integration": "WEIR", "jobType": "TRAINING" }));
    let run = Run { event_type: "COMPLETE", time, run_id: &run_id, run_facets: json!({}), job: &job, job_type, inputs, outputs };
    Some(run.event(block, key_of(&["training", &run_id])))
}

/// One reading of one service's request log. Each pair is a run of its own, so a run never goes on after it is complete.
fn report_event(block: &Block, name: &str, config: &ReportConfig, service: &str, time: UnixNanos) -> Event {
    let mut report = dataset_json(&format!("{}.reports", block.namespace), name);
    add_type(&mut report, "FILE", Some("REPORT"));
    if let Some(path) = &config.path {
        add_symlink(&mut report, block, path, "LOCATION");
    }
    let run_id = run_id(&[&block.namespace, "report", name, service, &digest(&[&report.to_string()])]);
    let job = format!("report/{name}");
    let job_type = facet(JOB_TYPE, json!({ "processingType": "BATCH", "integration": "WEIR", "jobType": "REPORT" }));
    let inputs = vec![log_dataset(block, service)];
    let run =
        Run { event_type: "COMPLETE", time, run_id: &run_id, run_facets: json!({}), job: &job, job_type, inputs, outputs: vec![report] };
    run.event(block, key_of(&["report", &run_id]))
}

const JOB_TYPE: &str = "2-0-4/JobTypeJobFacet.json#/$defs/JobTypeJobFacet";

struct Run<'a> {
    event_type: &'a str,
    time: UnixNanos,
    run_id: &'a str,
    run_facets: Value,
    job: &'a str,
    job_type: Value,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
}

impl Run<'_> {
    fn event(self, block: &Block, key: String) -> Event {
        let json = json!({
            "eventType": self.event_type,
            "eventTime": self.time.rfc3339(),
            "producer": PRODUCER,
            "schemaURL": format!("{CORE}/RunEvent"),
            "run": { "runId": self.run_id, "facets": self.run_facets },
            "job": { "namespace": block.namespace, "name": self.job, "facets": { "jobType": self.job_type } },
            "inputs": self.inputs,
            "outputs": self.outputs,
        });
        Event {
            key,
            event_time: self.time,
            event_type: self.event_type.to_string(),
            run_id: self.run_id.to_string(),
            job_namespace: block.namespace.clone(),
            job_name: self.job.to_string(),
            json: json.to_string(),
        }
    }
}

fn static_event(kind: &str, dataset: Value, time: UnixNanos) -> Event {
    let key = key_of(&[kind, &digest(&[&dataset.to_string()])]);
    let json =
        json!({ "eventTime": time.rfc3339(), "producer": PRODUCER, "schemaURL": format!("{CORE}/DatasetEvent"), "dataset": dataset });
    let (run_id, job_namespace, job_name) = Default::default();
    Event { key, event_time: time, event_type: "DATASET".to_string(), run_id, job_namespace, job_name, json: json.to_string() }
}

fn facet(schema: &str, mut fields: Value) -> Value {
    fields["_producer"] = PRODUCER.into();
    fields["_schemaURL"] = format!("{FACETS}/{schema}").into();
    fields
}

fn dataset_json(namespace: &str, name: &str) -> Value {
    json!({ "namespace": namespace, "name": name, "facets": {} })
}

fn add_facet(dataset: &mut Value, name: &str, schema: &str, fields: Value) {
    dataset["facets"][name] = facet(schema, fields);
}

fn add_type(dataset: &mut Value, kind: &str, sub: Option<&str>) {
    let mut fields = json!({ "datasetType": kind });
    if let Some(sub) = sub {
        fields["subType"] = sub.into();
    }
    add_facet(dataset, "datasetType", "1-0-1/DatasetTypeDatasetFacet.json#/$defs/DatasetTypeDatasetFacet", fields);
}

fn add_version(dataset: &mut Value, version: Option<&str>) {
    if let Some(version) = version {
        let fields = json!({ "datasetVersion": version });
        add_facet(dataset, "version", "1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet", fields);
    }
}

fn add_symlink(dataset: &mut Value, block: &Block, address: &str, kind: &str) {
    let (namespace, name) = place(block, address);
    let fields = json!({ "identifiers": [{ "namespace": namespace, "name": name, "type": kind }] });
    add_facet(dataset, "symlinks", "1-0-1/SymlinksDatasetFacet.json#/$defs/SymlinksDatasetFacet", fields);
}

fn named_dataset(block: &Block, address: &str) -> Value {
    let (namespace, name) = place(block, address);
    let mut dataset = dataset_json(&namespace, &name);
    let config = block.datasets.iter().find(|dataset| dataset.name == address);
    add_version(&mut dataset, config.and_then(|dataset| dataset.version.as_deref()));
    dataset
}

fn model_dataset(block: &Block, model: &str) -> Value {
    let mut dataset = dataset_json(&format!("{}.models", block.namespace), model);
    add_type(&mut dataset, "MODEL", None);
    add_version(&mut dataset, block.models.get(model).and_then(|config| config.version.as_deref()));
    dataset
}

fn log_dataset(block: &Block, service: &str) -> Value {
    let mut dataset = dataset_json(&format!("{}.logs", block.namespace), service);
    add_type(&mut dataset, "TABLE", Some(REQUEST_LOG));
    dataset
}

const REQUEST_LOG: &str = "REQUEST_LOG";

/// Namespace and name of an address: `s3://bucket/path` is `s3://bucket` and `path`; without a store it is ours.
fn place(block: &Block, address: &str) -> (String, String) {
    let store = address.find("://").map(|at| at + 3);
    match store.and_then(|start| address[start..].find('/').map(|slash| start + slash)) {
        Some(slash) if slash + 1 < address.len() => (address[..slash].to_string(), address[slash + 1..].to_string()),
        _ => (block.namespace.clone(), address.to_string()),
    }
}

/// Joins words so that no two lists of words give the same key.
fn key_of(words: &[&str]) -> String {
    let escaped: Vec<String> = words.iter().map(|word| word.replace('%', "%25").replace('|', "%7C")).collect();
    escaped.join("|")
}

/// SHA-256 over the words with their lengths, so that no two lists give the same bytes.
fn hash(words: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for word in words {
        hasher.update((word.len() as u64).to_le_bytes());
        hasher.update(word.as_bytes());
    }
    hasher.finalize().into()
}

fn digest(words: &[&str]) -> String {
    hash(words)[..16].iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// A UUID of version 8 (RFC 9562: 122 bits of one's own), here out of a hash: the same run has the same id everywhere.
fn run_id(words: &[&str]) -> String {
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hash(words)[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("a String takes every write");
    }
    text
}
