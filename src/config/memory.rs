//! Memory and disk that a config may take: a floor and a ceiling for each component.
//!
//! In: configs and the number of lanes; out: one row for each component. The floor is what it cannot work without, the
//! ceiling what it never exceeds. A plan whose floors add up to more than `memory` is refused.

use super::model::{Config, HubConfig, WhenFull};
use crate::sinks::config::{ArchiveConfig, RoomFull, SinkConfig};
use crate::sinks::http::COMMIT_BATCHES;
use crate::sources::config::{JoinConfig, SeriesConfig, SourceConfig};
use crate::sources::http::UNPACKERS;
use crate::sources::kubernetes::KubernetesConfig;
use crate::sources::pods::PodsConfig;
use flow::step::{MeterConfig, OverQuota, Policy, StepConfig};
use flow::units::ByteSize;
use serde::Serialize;

const MIB: u64 = 1 << 20;

/// One component's bounds, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    pub component: String,
    pub floor_bytes: u64,
    pub ceiling_bytes: u64,
}

impl Need {
    fn new(component: impl Into<String>, floor_bytes: u64, ceiling_bytes: u64) -> Need {
        Need { component: component.into(), floor_bytes, ceiling_bytes: ceiling_bytes.max(floor_bytes) }
    }
}

/// Allocator, threads' stacks in use, metrics, file list.
pub const PROCESS_BYTES: (u64, u64) = (6 * MIB, 16 * MIB);
/// A lane's batch (1 MiB of bytes, spans and columns about as much again) and the frame it fills; the ceiling adds the
/// sums of a frame's meters: 64 Ki of 150 bytes.
pub const LANE_BYTES: (u64, u64) = (4 * MIB, 16 * MIB);
/// Frames the hub holds in memory so that sinks need not read them back.
pub const JOURNAL_WINDOW_BYTES: (u64, u64) = (4 * MIB, 16 * MIB);
/// A key in the table: 32 bytes, and its index.
const DEDUP_KEY_BYTES: u64 = 45;
/// What the journal's log of the state of steps takes on disk for each key: twice an entry of 32 bytes, half of that again
/// while it is compacted, and the new log.
const STATE_KEY_DISK_BYTES: u64 = 128;
/// In memory, while it is compacted: rows of 16 bytes for entries, which are three times as many as keys, up to a bound; and bits.
const STATE_KEY_BYTES: u64 = 55;
const STATE_ROWS_BYTES_MAX: u64 = 64 * MIB;
/// A key with its first and last match, in a hash table: 50, and half as much again while the table grows.
const TAIL_KEY_BYTES: u64 = 80;
/// The window of the delay line, which is a journal, and the frames at hand: the one that is decided, what comes of it, and one ahead.
const TAIL_BYTES: (u64, u64) = (JOURNAL_WINDOW_BYTES.0 + 4 * MIB, JOURNAL_WINDOW_BYTES.1 + 16 * MIB);
/// Per open archive file: its buffer and name.
const ARCHIVE_FILE_BYTES: u64 = 16 << 10;
/// zstd at its default level, or zlib, while a rotated file is compressed.
const COMPRESS_BYTES: u64 = 8 * MIB;
/// One tantivy writer of one thread: the least it takes.
const INDEX_BYTES: u64 = 15 * MIB;

/// zap's counters: 7 levels x 4,096 slots x 16 bytes.
const SLOTS_BYTES: u64 = 448 << 10;
/// Debts of a tenant in a lane: 7 levels x 72 bytes.
const DEBT_BYTES: u64 = 504;
/// Per key of a quota, with its place in a hash table, and per limit; the rest of a log.
const QUOTA_KEY_BYTES: u64 = 112;
const QUOTA_LIMIT_BYTES: u64 = 32;
const REST_BYTES: u64 = 48;
/// Per key, with its place in a hash table: a counter, and count, average and rate under a name.
const COUNTER_KEY_BYTES: u64 = 64;
const RATE_KEY_BYTES: u64 = 400;
/// 10,000 windows of 48 bytes.
const WINDOWS_BYTES: u64 = MIB;

/// A connection's buffers while it says little, and what a read of syslog asks for.
const CONNECTION_BYTES: u64 = 16 << 10;
const READ_BYTES: u64 = 32 << 10;
/// Series that a source of samples knows by heart; as many times as bodies are read at once.
const DICTIONARY_BYTES: u64 = 3 * (96 << 20);

/// A series and its place in two tables; a value of a request label in one table.
const SERIES_BYTES: u64 = 160;
const VALUE_BYTES: u64 = 64;
/// A series that is shown to who scrapes: its labels twice, and its newest sample.
const SERIES_SHOWN_BYTES: u64 = 600;

/// Facts of a lane's frame that are one event each: 64 Ki of 64 bytes in the meter, 200 in the frame, and their keys.
const EVENTS_BYTES: (u64, u64) = (MIB / 4, 24 * MIB);

/// Everything that the pipelines of one process need.
pub fn needs(configs: &[(&str, &Config)], lanes: u64) -> Vec<Need> {
    let mut needs = vec![
        Need::new("process", PROCESS_BYTES.0, PROCESS_BYTES.1),
        Need::new(format!("lanes ({lanes})"), lanes * LANE_BYTES.0, lanes * LANE_BYTES.1),
    ];
    for (pipeline, config) in configs {
        let name = |kind: &str, name: &str| match configs.len() {
            1 => format!("{kind} {name}"),
            _ => format!("{pipeline}: {kind} {name}"),
        };
        for (source, config) in &config.sources {
            needs.push(source_need(name("source", source), config));
        }
        if let Some((floor, ceiling)) = steps_need(config, lanes) {
            let steps = if configs.len() == 1 { "samplers and quotas".into() } else { format!("{pipeline}: samplers and quotas") };
            needs.push(Need::new(steps, floor, ceiling));
        }
        if super::meters(config).iter().any(MeterConfig::is_of_events) {
            let meters = if configs.len() == 1 { "meters of events".into() } else { format!("{pipeline}: meters of events") };
            needs.push(Need::new(meters, lanes * EVENTS_BYTES.0, lanes * EVENTS_BYTES.1));
        }
        if let Some((floor, ceiling)) = labels_need(config, lanes) {
            needs.push(Need::new(if configs.len() == 1 { "labels".into() } else { format!("{pipeline}: labels") }, floor, ceiling));
        }
        let hub = if configs.len() == 1 { "hub".into() } else { format!("{pipeline}: hub") };
        needs.push(match &config.hub {
            HubConfig::Journal(_) => {
                let keys = state_keys(config);
                let compaction = (keys * STATE_KEY_BYTES).min(STATE_ROWS_BYTES_MAX) + keys / 2;
                Need::new(hub, JOURNAL_WINDOW_BYTES.0, JOURNAL_WINDOW_BYTES.1 + compaction)
            }
            HubConfig::Memory(memory) => Need::new(hub, 4 * MIB, memory.bytes_max.0),
        });
        for (i, step) in config.steps.iter().enumerate() {
            match step {
                StepConfig::Dedup(dedup) => {
                    needs.push(Need::new(name("dedup", &format!("steps[{i}]")), MIB / 4, u64::from(dedup.keys_max) * DEDUP_KEY_BYTES));
                }
                StepConfig::Tail(tail) => {
                    let keys = u64::from(tail.keys_max) * TAIL_KEY_BYTES;
                    needs.push(Need::new(name("tail", &format!("steps[{i}]")), TAIL_BYTES.0, TAIL_BYTES.1.saturating_add(keys)));
                }
                _ => {}
            }
        }
        for (sink, config) in &config.sinks {
            needs.push(sink_need(name("sink", sink), config));
        }
    }
    needs
}

/// Keys of dedup and quotas that a restart brings back.
fn state_keys(config: &Config) -> u64 {
    let keys = |step: &StepConfig| match step {
        StepConfig::Dedup(dedup) => u64::from(dedup.keys_max),
        StepConfig::Quota(quota) => u64::from(quota.keys_max) * quota.limits().len() as u64,
        _ => 0,
    };
    config.steps.iter().map(keys).sum()
}

/// What samplers and quotas remember: debts of each lane, tenant and level, and keys.
fn steps_need(config: &Config, lanes: u64) -> Option<(u64, u64)> {
    let (mut floor, mut ceiling) = (0, 0);
    for step in &config.steps {
        let keys = match step {
            StepConfig::Sample(sample) => {
                floor += SLOTS_BYTES;
                ceiling += SLOTS_BYTES;
                let levels = sample.levels.entries().into_iter().map(|(_, policy)| policy.unwrap_or(&sample.other));
                levels.chain([&sample.other]).map(policy_bytes).sum()
            }
            StepConfig::Quota(quota) => {
                let rests = if quota.over == OverQuota::Delay { REST_BYTES } else { 0 };
                u64::from(quota.keys_max) * (QUOTA_KEY_BYTES + QUOTA_LIMIT_BYTES * quota.limits().len() as u64 + rests)
            }
            // Its keys stand in a line of their own; debts are here.
            StepConfig::Tail(_) => 0,
            // What dedup remembers stands in a line of its own.
            StepConfig::Drop(_)
            | StepConfig::Keep(_)
            | StepConfig::Meter(_)
            | StepConfig::Dedup(_)
            | StepConfig::Redact(_)
            | StepConfig::Shape(_) => continue,
        };
        floor += MIB / 16;
        ceiling += keys + lanes * u64::from(config.tenancy.tenants_max) * DEBT_BYTES;
    }
    (floor > 0).then_some((floor, ceiling))
}

/// Series by labels, and values of request labels with every lane's number for them.
fn labels_need(config: &Config, lanes: u64) -> Option<(u64, u64)> {
    let labels = &config.request_labels;
    let limits = &config.label_limits;
    if labels.is_empty() && config.sources.values().all(|source| source.labels().is_empty()) {
        return None;
    }
    let series = u64::from(limits.per_metric.min(limits.total / 2)) * (SERIES_BYTES + labels.len() as u64 * 16);
    let values = labels.values().map(|label| u64::from(label.values_max) * (u64::from(label.bytes_max) + VALUE_BYTES * (1 + lanes)));
    Some((MIB / 16, MIB / 16 + series + values.sum::<u64>()))
}

fn policy_bytes(policy: &Policy) -> u64 {
    match policy {
        Policy::All | Policy::None | Policy::Ratio { .. } | Policy::When { .. } => 0,
        Policy::First { exact_keys: false, .. } => 0,
        Policy::First { keys_max, .. } => u64::from(*keys_max) * COUNTER_KEY_BYTES,
        Policy::Dynamic { keys_max, .. } => u64::from(*keys_max) * RATE_KEY_BYTES,
        Policy::Window { .. } => WINDOWS_BYTES,
    }
}

fn measuring_need(component: String, buffer: ByteSize, pods: Option<&PodsConfig>) -> Need {
    let known = pods.map_or(0, |pods| pods.metadata.bytes_max.0);
    Need::new(component, MIB, (16 * MIB).saturating_add(buffer.0).saturating_add(known))
}

fn source_need(component: String, config: &SourceConfig) -> Need {
    let joined = |join: &JoinConfig| join.bytes_max.0;
    match config {
        // One line at a time is gathered, and one record joined; what is held back of other files is read again.
        SourceConfig::File(file) => {
            let lines = file.line_bytes_max.0.saturating_add(joined(&file.join));
            let (floor, ceiling) = file.kubernetes.as_deref().map_or((0, 0), kubernetes_need);
            Need::new(component, MIB / 4 + floor, (2 * MIB + ceiling).saturating_add(lines))
        }
        SourceConfig::Stdin(stdin) => Need::new(component, MIB / 4, MIB + stdin.line_bytes_max.0.saturating_add(joined(&stdin.join))),
        // What is held, and the lines that bodies become while they are read: twice as much each.
        SourceConfig::Http(http) => {
            let need = answering_need(component, config);
            Need { ceiling_bytes: need.ceiling_bytes.saturating_add(http.line_bytes_max.0), ..need }
        }
        SourceConfig::Otlp(_) => answering_need(component, config),
        // And who its series are.
        SourceConfig::RemoteWrite(remote) => {
            let need = answering_need(component, config);
            let series = series_bytes(remote.series.as_ref());
            Need { ceiling_bytes: need.ceiling_bytes.saturating_add(DICTIONARY_BYTES).saturating_add(series), ..need }
        }
        // Of each target the series of its last scrape, which no limit bounds but that of the body; the usual target has 1,000.
        SourceConfig::Scrape(scrape) => {
            let bodies = scrape.body_bytes_max.0.saturating_mul(2 * UNPACKERS as u64);
            let held = bodies.saturating_add(scrape.buffer_bytes_max.0).saturating_add(series_bytes(scrape.series.as_ref()));
            Need::new(component, 2 * MIB, (2 * MIB + DICTIONARY_BYTES).saturating_add(held))
        }
        // What waits, a reading and its lines, what is added up by owner.
        SourceConfig::Gpu(gpu) => measuring_need(component, gpu.buffer_bytes_max, gpu.pods.as_ref()),
        SourceConfig::Host(host) => measuring_need(component, host.buffer_bytes_max, host.pods.as_ref()),
        // Frames that wait, the series that rules are about, members.
        SourceConfig::Watch(watch) => {
            let members: u64 = watch.rules.values().map(|rule| u64::from(rule.members_max)).sum();
            Need::new(component, MIB, (32 * MIB + DICTIONARY_BYTES).saturating_add(members.saturating_mul(SERIES_SHOWN_BYTES)))
        }
        SourceConfig::Syslog(syslog) => {
            let each = READ_BYTES + syslog.message_bytes_max.0;
            let connections = if syslog.tcp.is_some() { u64::from(syslog.connections_max).saturating_mul(each) } else { 0 };
            Need::new(component, MIB, (MIB + connections).saturating_add(syslog.buffer_bytes_max.0))
        }
    }
}

/// Of each series its text, and what is known of it.
fn series_bytes(series: Option<&SeriesConfig>) -> u64 {
    series.map_or(0, |series| u64::from(series.total).saturating_mul(SERIES_SHOWN_BYTES))
}

/// What is held, and the lines that bodies become while they are read: twice as much each.
fn answering_need(component: String, config: &SourceConfig) -> Need {
    let Some(answering) = config.answering() else { return Need::new(component, 0, 0) };
    let lines = answering.body_bytes_max.0.saturating_mul(2 * UNPACKERS as u64);
    let connections = u64::from(answering.connections_max) * CONNECTION_BYTES;
    Need::new(component, 2 * MIB, (2 * MIB + connections).saturating_add(lines).saturating_add(answering.buffer_bytes_max.0))
}

/// What comes of a chunk, the metadata files while they are read, and what is kept of their pods: no more than the files
/// said, but for the pods that went and as much again while a new catalog is made.
fn kubernetes_need(config: &KubernetesConfig) -> (u64, u64) {
    let files = config.metadata.as_ref().map_or(0, |metadata| metadata.bytes_max.0);
    (MIB / 4, flow::enrich::ENRICHED_BYTES_MAX as u64 + files.saturating_mul(3))
}

fn sink_need(component: String, config: &SinkConfig) -> Need {
    match config {
        SinkConfig::Stdout(_) | SinkConfig::Blackhole(_) => Need::new(component, MIB / 4, MIB),
        SinkConfig::Archive(archive) => {
            Need::new(component, MIB, 2 * MIB + u64::from(archive.open_files_max) * ARCHIVE_FILE_BYTES + COMPRESS_BYTES)
        }
        // Gathered rows, the columns made of them, and the index writer; when memory is short a seal comes early.
        SinkConfig::Prometheus(prometheus) => {
            // A page in the making may be as large.
            let series = u64::from(prometheus.series_max).saturating_mul(SERIES_SHOWN_BYTES);
            Need::new(component, MIB, (2 * MIB).saturating_add(series.saturating_mul(2)))
        }
        SinkConfig::Http(_) | SinkConfig::RemoteWrite(_) | SinkConfig::Otlp(_) => {
            let Some(http) = config.http() else { return Need::new(component, 0, 0) };
            // Frames of one commit, one body and what it packs to, its answer.
            let batch = http.batch.bytes.0;
            let held = batch.saturating_mul(COMMIT_BATCHES).saturating_add(2 * MIB);
            Need::new(component, 2 * MIB, held.saturating_add(batch.saturating_mul(4)).saturating_add(16 * MIB))
        }
        SinkConfig::Lake(lake) => {
            // A merge beside it: rows of one merged file, and the file.
            let merge = lake.merge.bytes.0.saturating_mul(2).saturating_add(INDEX_BYTES);
            let seal = lake.seal.bytes.0.saturating_mul(2).saturating_add(2 * INDEX_BYTES);
            Need::new(component, INDEX_BYTES + 4 * MIB, seal.saturating_add(merge))
        }
    }
}

/// What a pipeline may take on disk, as sentences.
pub fn disk(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    match &config.hub {
        HubConfig::Journal(journal) => {
            let then = match journal.when_full {
                WhenFull::Wait => "sources wait",
                WhenFull::DropOldest => "the oldest rows are dropped",
            };
            lines.push(format!("hub: at most {}, then {then}", journal.bytes_max));
            let keys = state_keys(config);
            if keys > 0 {
                let bytes = ByteSize((keys * STATE_KEY_DISK_BYTES).next_multiple_of(MIB));
                lines.push(format!("hub: what steps remember, at most {bytes} beside that"));
            }
        }
        HubConfig::Memory(_) => lines.push("hub: nothing but positions".into()),
    }
    for (i, step) in config.steps.iter().enumerate() {
        if let StepConfig::Tail(tail) = step {
            lines.push(format!(
                "steps[{i}].tail: what is kept before it in 2 x {} (at 1 MiB a second {}), at most {}, then the oldest are decided early",
                tail.decision_wait,
                // Rounded up: nobody should count on less.
                ByteSize(((tail.decision_wait.0.max(0) as u64).saturating_mul(2).div_ceil(1_000_000_000)).saturating_mul(MIB)),
                tail.bytes_max
            ));
        }
    }
    for (name, sink) in &config.sinks {
        match sink {
            SinkConfig::Stdout(_) | SinkConfig::Blackhole(_) | SinkConfig::Prometheus(_) => {}
            SinkConfig::Http(_) | SinkConfig::RemoteWrite(_) | SinkConfig::Otlp(_) => {
                lines.extend(
                    sink.http().map(|http| {
                        format!("sink {name}: dead letters, at most {}, then the older half goes", http.dead_letters.bytes_max)
                    }),
                );
            }
            SinkConfig::Archive(archive) => lines.push(archive_disk(name, archive)),
            SinkConfig::Lake(lake) => lines.push(format!("sink {name}: {}", lake_disk(&lake.keep))),
        }
    }
    lines
}

fn lake_disk(keep: &lake::maintain::Retention) -> String {
    let mut bounds = Vec::new();
    bounds.extend(keep.node_bytes.map(|bytes| format!("at most {bytes} of records")));
    bounds.extend(keep.bytes.map(|bytes| format!("at most {bytes} of records for each tenant")));
    bounds.extend(keep.age.map(|age| format!("records of {age}")));
    let differing = keep.tenants.len();
    bounds.extend((differing > 0).then(|| format!("{differing} tenants have limits of their own")));
    if bounds.is_empty() {
        return "without bound (`keep`)".into();
    }
    format!("{}, by whole days and hours; usage and charges without bound", bounds.join(", "))
}

fn archive_disk(name: &str, archive: &ArchiveConfig) -> String {
    let mut text = match &archive.rotate {
        None => format!("sink {name}: without bound (`rotate`)"),
        Some(rotate) => {
            let each =
                rotate.size.map_or("each file without bound (`rotate.size`)".to_string(), |size| format!("each file at most {size}"));
            match rotate.backups {
                Some(backups) => format!("sink {name}: {each} and {backups} rotated ones"),
                None => format!("sink {name}: {each}, rotated ones without bound (`rotate.backups`)"),
            }
        }
    };
    let Some(room) = &archive.room else { return text };
    if let Some(bytes) = room.max_total_bytes {
        text.push_str(&format!("; {bytes} in all"));
    }
    if let Some(bytes) = room.min_free_bytes {
        text.push_str(&format!("; {bytes} stay free"));
    }
    text.push_str(match room.when_full {
        RoomFull::Wait => "; then it waits",
        RoomFull::DropNewest => "; then the newest rows are dropped",
    });
    text
}
