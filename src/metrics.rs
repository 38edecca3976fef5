//! `/metrics`: the ledger and the state of sinks in Prometheus text format.
//!
//! In: ledgers, read when asked; nothing is counted while records flow. Out: counters and gauges. Bound: the
//! [`TENANTS_MAX`] largest tenants have labels of their own, all others together are `_other`.

use crate::env;
use crate::runtime::control::Vitals;
use crate::runtime::reload::{Outcome, Reloads};
use crate::sources::status::{self, State};
use flow::step::sample::LEVELS;
use hub::{Ledger, Tally};
use prometheus::core::Collector;
use prometheus::{Encoder, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// Tenants with labels of their own: 100 tenants make about 1,000 series.
const TENANTS_MAX: usize = 100;
const OTHER: &str = "_other";

/// Builds one page. Fresh vectors each time: the ledger is the truth, and these are a view of it.
struct Page(Registry);

impl Page {
    fn add<C: Collector + 'static>(&self, collector: C) {
        self.0.register(Box::new(collector)).expect("every metric is named once");
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str], rows: Vec<(Vec<String>, u64)>) {
        let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are constants");
        for (values, value) in rows {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            counters.with_label_values(&values).inc_by(value);
        }
        self.add(counters);
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str], rows: Vec<(Vec<String>, i64)>) {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect("names and labels are constants");
        for (values, value) in rows {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            gauges.with_label_values(&values).add(value);
        }
        self.add(gauges);
    }
}

/// The page as text.
pub fn render(vitals: &Vitals) -> String {
    let registry = Registry::new_custom(None, Some(vitals.labels.clone())).expect("a registry without a prefix");
    let page = Page(registry);
    let ledgers: Vec<(&str, Ledger)> = vitals.hubs.iter().map(|(name, hub)| (name.as_str(), hub.ledger())).collect();
    add_flow(&page, &ledgers);
    add_samplers(&page, vitals, &ledgers);
    add_sinks(&page, &ledgers);
    let residuals = ledgers.iter().map(|(p, l)| (vec![p.to_string()], i64::try_from(l.residual()).unwrap_or(i64::MAX))).collect();
    page.gauges("weir_law_residual", "Records and bytes the law cannot account for; 0 when nothing leaks.", &["pipeline"], residuals);
    let mut ages = Vec::new();
    let mut failures = Vec::new();
    let mut ahead = Vec::new();
    for (pipeline, sink, signals) in &vitals.sinks {
        let labels = vec![pipeline.clone(), sink.clone()];
        failures.push((labels.clone(), signals.failures.load(Ordering::Relaxed)));
        ahead.push((labels.clone(), signals.ahead_bytes.load(Ordering::Relaxed)));
        let hub = vitals.hubs.iter().find(|h| h.0 == *pipeline).map(|h| &h.1).expect("every sink's pipeline has a hub");
        let mut oldest = None;
        // A frame that cannot be read shows as an error of the sink; here it has no age.
        let _ = hub.tail_each(sink, |frame| {
            oldest = Some(frame.received);
            false
        });
        ages.push((labels, oldest.map_or(0, |at| (env::now().0 - at.0).max(0) / 1_000_000)));
    }
    page.gauges(
        "weir_sink_oldest_undelivered_milliseconds",
        "Age of the oldest record that a sink has not committed.",
        &["pipeline", "sink"],
        ages,
    );
    page.counters("weir_sink_failures_total", "Attempts of a sink that failed and were made again.", &["pipeline", "sink"], failures);
    let help = "Bytes of rows that a sink that lags took ahead of their turn, as their tenants were below their share.";
    page.counters("weir_sink_express_bytes_total", help, &["pipeline", "sink"], ahead);
    let read = vitals.signals.read_bytes.load(Ordering::Relaxed);
    page.counters("weir_read_bytes_total", "Bytes read from sources since the start.", &[], vec![(Vec::new(), read)]);
    add_reloads(&page, &vitals.reloads);
    add_archives(&page, vitals);
    add_sources(&page, vitals);
    if let Some(bytes) = env::resident_bytes() {
        page.gauges("process_resident_memory_bytes", "Resident memory of this process.", &[], vec![(Vec::new(), bytes as i64)]);
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&page.0.gather(), &mut text).expect("writing to memory works");
    String::from_utf8(text).expect("the text format is UTF-8")
}

fn add_reloads(page: &Page, reloads: &Reloads) {
    let counts = Outcome::NAMES.iter().zip(&reloads.counts).map(|(name, n)| (vec![name.to_string()], n.load(Ordering::Relaxed)));
    page.counters(
        "weir_config_reload_total",
        "Times the pipeline files were read again, by what came of it.",
        &["result"],
        counts.collect(),
    );
    let gauge = |name: &str, help: &str, value: i64| page.gauges(name, help, &[], vec![(Vec::new(), value)]);
    let ok = !reloads.last_failed.load(Ordering::Relaxed);
    gauge("weir_config_last_reload_successful", "Whether the files that were read last are in force.", i64::from(ok));
    let generation = reloads.generation.load(Ordering::Relaxed) as i64;
    gauge("weir_config_generation", "1 at the start, one more with each change.", generation);
    let hash = status::lock(&reloads.hash).clone();
    page.gauges("weir_config_hash", "Tells one config in force from another.", &["hash"], vec![(vec![hash], 1)]);
}

/// What happened to the files of archives since the start.
fn add_archives(page: &Page, vitals: &Vitals) {
    let mut rows: [Vec<(Vec<String>, u64)>; 7] = Default::default();
    for (pipeline, sink, signals) in &vitals.sinks {
        let Some(stats) = *status::lock(&signals.archive) else { continue };
        let values = [
            stats.rotations,
            stats.rotate_failures,
            stats.packed,
            stats.pack_failures,
            stats.deleted,
            stats.delete_failures,
            stats.changed_outside,
        ];
        for (rows, value) in rows.iter_mut().zip(values) {
            rows.push((vec![pipeline.clone(), sink.clone()], value));
        }
    }
    let texts = [
        ("weir_archive_rotations_total", "Files that became backups."),
        ("weir_archive_rotate_failures_total", "Files that could not be renamed; they grow on, and it is tried again."),
        ("weir_archive_packed_total", "Backups that were compressed."),
        ("weir_archive_pack_failures_total", "Backups that could not be compressed; it is tried again."),
        ("weir_archive_deleted_total", "Backups that were deleted for their number, their age or for room."),
        ("weir_archive_delete_failures_total", "Backups that could not be deleted; it is tried again."),
        ("weir_archive_changed_outside_total", "Files that somebody else renamed, removed or shortened."),
    ];
    for ((name, help), rows) in texts.into_iter().zip(rows) {
        page.counters(name, help, &["pipeline", "sink"], rows);
    }
}

fn add_sources(page: &Page, vitals: &Vitals) {
    let (mut files, mut refused, mut behind) = (Vec::new(), Vec::new(), Vec::new());
    let (mut truncations, mut rotations, mut abandoned) = (Vec::new(), Vec::new(), Vec::new());
    for (pipeline, source, known) in &vitals.sources {
        let known = status::lock(known);
        let labels = || vec![pipeline.clone(), source.clone()];
        for state in State::ALL {
            let count = known.open.values().filter(|file| file.state() == state).count();
            files.push(([labels(), vec![state.name().to_string()]].concat(), count as i64));
        }
        for (reason, count) in &known.refused_counts {
            refused.push(([labels(), vec![reason.name().to_string()]].concat(), *count as i64));
        }
        behind.push((labels(), known.open.values().map(|file| file.behind_bytes()).sum::<u64>() as i64));
        truncations.push((labels(), known.counts.truncations));
        rotations.push((labels(), known.counts.rotations));
        abandoned.push((labels(), known.counts.abandoned_bytes));
    }
    let names: &[&str] = &["pipeline", "source"];
    page.gauges("weir_source_files", "Files a source holds open, by state.", &["pipeline", "source", "state"], files);
    page.gauges("weir_source_refused_files", "Paths that match and are not read, by reason.", &["pipeline", "source", "reason"], refused);
    page.gauges("weir_source_behind_bytes", "Bytes of open files that are not read yet.", names, behind);
    page.counters("weir_source_truncations_total", "Files that were truncated or written anew under the reader.", names, truncations);
    page.counters("weir_source_rotations_total", "Open files that were seen under a new name.", names, rotations);
    page.counters(
        "weir_source_abandoned_bytes_total",
        "Unread bytes of rotated files that were let go, as `rotated` says.",
        names,
        abandoned,
    );
}

/// Tenants that have labels of their own: the largest by records received.
fn large_tenants(ledger: &Ledger) -> BTreeSet<Vec<u8>> {
    let mut tenants: Vec<_> = ledger.totals.tenants.iter().collect();
    tenants.sort_by_key(|(name, totals)| (std::cmp::Reverse(totals.received.records), *name));
    tenants.into_iter().take(TENANTS_MAX).map(|(name, _)| name.clone()).collect()
}

fn label(tenant: &[u8], large: &BTreeSet<Vec<u8>>) -> String {
    if large.contains(tenant) { String::from_utf8_lossy(tenant).into_owned() } else { OTHER.to_string() }
}

/// Adds rows of equal labels up: several small tenants share a label.
fn fold(rows: impl Iterator<Item = (Vec<String>, u64)>) -> Vec<(Vec<String>, u64)> {
    let mut sums: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for (labels, value) in rows {
        *sums.entry(labels).or_default() += value;
    }
    sums.into_iter().collect()
}

/// What each policy decided since the start, in records: seen = sampled + dropped.
fn add_samplers(page: &Page, vitals: &Vitals, ledgers: &[(&str, Ledger)]) {
    let (mut sampled, mut dropped) = (Vec::new(), Vec::new());
    for (pipeline, current) in &vitals.plans {
        let rules = &current.get().1.rules;
        let large = ledgers.iter().find(|l| l.0 == pipeline).map(|l| large_tenants(&l.1)).unwrap_or_default();
        let named = |step: &flow::step::Step| step.terms().map(|terms| terms.name.to_string());
        let names: BTreeMap<u32, String> =
            rules.step_ids.iter().zip(&rules.steps).filter_map(|(id, step)| Some((*id, named(step)?))).collect();
        let tallies: Vec<_> = rules.sampling.tallies.lock().expect("nobody panics while counting").rows().collect();
        for ((id, tenant, level), counts) in tallies {
            // What a reload took away is told of no more.
            let Some(policy) = names.get(&id) else { continue };
            let tenant = label(&rules.tenants.name(tenant), &large);
            let labels = vec![pipeline.clone(), policy.clone(), format!("{id:08x}"), LEVELS[level].to_string(), tenant];
            sampled.push((labels.clone(), counts[0]));
            dropped.push((labels, counts[1]));
        }
    }
    // A policy that a reload moves has another place, and goes on counting in a series of its own by its id.
    let labels: &[&str] = &["pipeline", "policy", "id", "level", "tenant"];
    page.counters("weir_sampled_total", "Records that a policy kept, since the start.", labels, fold(sampled.into_iter()));
    page.counters("weir_dropped_total", "Records that a policy dropped, since the start.", labels, fold(dropped.into_iter()));
}

fn add_flow(page: &Page, ledgers: &[(&str, Ledger)]) {
    let (mut received, mut created, mut kept, mut dropped, mut notes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut skipped = Vec::new();
    for (pipeline, ledger) in ledgers {
        let large = large_tenants(ledger);
        for (tenant, totals) in &ledger.totals.tenants {
            let labels = vec![pipeline.to_string(), label(tenant, &large)];
            received.push((labels.clone(), totals.received));
            created.push((labels.clone(), totals.created));
            kept.push((labels.clone(), totals.kept));
            for (reason, tally) in &totals.dropped {
                dropped.push(([labels.clone(), vec![reason.name().to_string()]].concat(), *tally));
            }
            for (note, count) in &totals.notes {
                notes.push(([labels.clone(), vec![note.name().to_string()]].concat(), *count));
            }
        }
        for (reason, bytes) in &ledger.totals.streams.skipped {
            skipped.push((vec![pipeline.to_string(), reason.name().to_string()], *bytes));
        }
    }
    let by_tenant: &[&str] = &["pipeline", "tenant"];
    let by_reason: &[&str] = &["pipeline", "tenant", "reason"];
    for (what, help, labels, rows) in [
        ("received", "received from sources", by_tenant, received),
        ("created", "made by weir itself: summaries of what samplers left out", by_tenant, created),
        ("kept", "kept by all steps", by_tenant, kept),
        ("dropped", "dropped, by reason", by_reason, dropped),
    ] {
        add_tallies(page, &format!("weir_{what}"), help, labels, rows);
    }
    page.counters(
        "weir_noted_records_total",
        "Records with something to note, by note.",
        &["pipeline", "tenant", "note"],
        fold(notes.into_iter()),
    );
    page.counters(
        "weir_skipped_bytes_total",
        "Bytes that belong to no record, by reason.",
        &["pipeline", "reason"],
        fold(skipped.into_iter()),
    );
}

fn add_sinks(page: &Page, ledgers: &[(&str, Ledger)]) {
    let (mut delivered, mut buffered, mut rejected, mut not_selected) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (pipeline, ledger) in ledgers {
        let large = large_tenants(ledger);
        for (sink, totals) in &ledger.sinks {
            let labels = |tenant: &Vec<u8>| vec![pipeline.to_string(), sink.clone(), label(tenant, &large)];
            delivered.extend(totals.delivered.iter().map(|(tenant, tally)| (labels(tenant), *tally)));
            for (tenant, by_reason) in &totals.rejected {
                let reasons = by_reason.iter();
                rejected.extend(reasons.map(|(reason, tally)| ([labels(tenant), vec![reason.name().to_string()]].concat(), *tally)));
            }
            not_selected.extend(totals.not_selected.iter().map(|(tenant, tally)| (labels(tenant), *tally)));
            buffered.extend(totals.buffered.iter().map(|(tenant, tally)| (labels(tenant), *tally)));
        }
    }
    let names: &[&str] = &["pipeline", "sink", "tenant"];
    add_tallies(page, "weir_delivered", "committed by a sink", names, delivered);
    let by_reason: &[&str] = &["pipeline", "sink", "tenant", "reason"];
    add_tallies(page, "weir_rejected", "kept and lost to a sink, by reason", by_reason, rejected);
    add_tallies(page, "weir_not_selected", "kept and not for this sink, by its condition or as they were diverted", names, not_selected);
    let gauge = |of: fn(&Tally) -> u64| -> Vec<(Vec<String>, i64)> {
        let rows = fold(buffered.iter().map(|(labels, tally)| (labels.clone(), of(tally))));
        rows.into_iter().map(|(labels, sum)| (labels, sum as i64)).collect()
    };
    page.gauges("weir_buffered_records", "Records kept and not yet committed by a sink.", names, gauge(|tally| tally.records));
    page.gauges("weir_buffered_bytes", "Their origin bytes: what a tenant has waiting.", names, gauge(|tally| tally.bytes));
}

fn add_tallies(page: &Page, name: &str, help: &str, labels: &[&str], rows: Vec<(Vec<String>, Tally)>) {
    let records = fold(rows.iter().map(|(labels, tally)| (labels.clone(), tally.records)));
    let bytes = fold(rows.iter().map(|(labels, tally)| (labels.clone(), tally.bytes)));
    page.counters(&format!("{name}_records_total"), &format!("Records {help}."), labels, records);
    page.counters(&format!("{name}_bytes_total"), &format!("Origin bytes of records {help}."), labels, bytes);
}
