//! `/metrics`: the ledger and the state of sinks in Prometheus text format.
//!
//! In: ledgers, read when asked; nothing is counted while records flow but what samplers decide, and by labels of sources and
//! requests, where there are any. Out: counters and gauges. Bounds: [`TENANTS_MAX`] tenants of a pipeline have labels of their own:
//! the largest when the page is asked for first, then whoever comes while there is room; all others together are `__other__` and
//! stay that, so that no counter runs backwards. Series by labels have limits of their own (`flow::labels`). A series that ends is left
//! out of the page, and Prometheus marks it stale at that scrape: the text format cannot carry the marker itself, as its `NaN` is
//! another one.

use crate::env;
use crate::runtime::control::Vitals;
use crate::runtime::deliver::SinkSignals;
use crate::runtime::readers;
use crate::runtime::reload::{Current, Outcome, Reloads};
use crate::sources::status::{self, State};
use flow::event::Outcome as Became;
use flow::step::sample::LEVELS;
use hub::{Ledger, Tally};
use prometheus::core::Collector;
use prometheus::{Encoder, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Tenants with labels of their own: 100 tenants make about 1,000 series.
const TENANTS_MAX: usize = 100;
const OTHER: &str = "__other__";

/// Labels that weir puts on its metrics itself; nobody else may.
pub const OWN_LABELS: [&str; 16] = [
    "pipeline", "source", "sink", "tenant", "outcome", "reason", "note", "state", "policy", "id", "level", "label", "limit", "result",
    "hash", "rule",
];

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

    fn seconds(&self, name: &str, help: &str, labels: &[&str], rows: Vec<(Vec<String>, f64)>) {
        let gauges = GaugeVec::new(Opts::new(name, help), labels).expect("names and labels are constants");
        for (values, value) in rows {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            gauges.with_label_values(&values).add(value);
        }
        self.add(gauges);
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
    let large = large_tenants(vitals, &ledgers);
    add_flow(&page, &ledgers, &large);
    add_samplers(&page, vitals, &large);
    add_sinks(&page, &ledgers, &large);
    let labelled = add_labelled(&page, vitals);
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
        ages.push((labels, oldest.map_or(0.0, |at| (env::now().0 - at.0).max(0) as f64 / 1e9)));
    }
    page.seconds(
        "weir_sink_oldest_undelivered_seconds",
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
    add_https(&page, vitals);
    add_delays(&page, vitals);
    add_books(&page, vitals);
    add_care(&page, vitals);
    add_sources(&page, vitals);
    add_pushed(&page, vitals);
    if let Some(bytes) = env::resident_bytes() {
        page.gauges("process_resident_memory_bytes", "Resident memory of this process.", &[], vec![(Vec::new(), bytes as i64)]);
    }
    let mut text = Vec::new();
    let mut families = page.0.gather();
    families.extend(labelled.0.gather());
    TextEncoder::new().encode(&families, &mut text).expect("writing to memory works");
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

/// What waits for the verdict of tail sampling.
fn add_delays(page: &Page, vitals: &Vitals) {
    let (mut gauges, mut counters): ([Vec<_>; 3], [Vec<_>; 2]) = Default::default();
    for (pipeline, delay, status) in &vitals.delays {
        let labels = || vec![pipeline.clone()];
        let oldest = status.oldest.load(Ordering::Relaxed);
        let age = if oldest == 0 { 0 } else { (env::now().0 - oldest).max(0) / 1_000_000 };
        gauges[0].push((labels(), i64::try_from(delay.disk_bytes()).unwrap_or(i64::MAX)));
        gauges[1].push((labels(), age));
        gauges[2].push((labels(), status.keys.load(Ordering::Relaxed) as i64));
        counters[0].push((labels(), status.early.load(Ordering::Relaxed)));
        counters[1].push((labels(), status.passed_over.load(Ordering::Relaxed)));
    }
    let [bytes, ages, keys] = gauges;
    let [early, passed_over] = counters;
    let names: &[&str] = &["pipeline"];
    page.gauges("weir_delay_bytes", "Bytes on disk of records that wait for tail sampling, or stay for a restart.", names, bytes);
    page.gauges("weir_delay_oldest_waiting_milliseconds", "Age of the oldest record that waits for tail sampling.", names, ages);
    page.gauges("weir_delay_keys", "Requests with a match that tail sampling remembers.", names, keys);
    page.counters("weir_delay_early_frames_total", "Frames decided before their time, as there was no room.", names, early);
    let help = "Matches that tail sampling did not remember, as `keys_max` was reached.";
    page.counters("weir_delay_passed_over_total", help, names, passed_over);
}

/// What was published of charges, and how budgets stand.
fn add_books(page: &Page, vitals: &Vitals) {
    let Some(books) = &vitals.books else { return };
    let one = |value| vec![(Vec::new(), value)];
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    page.counters("weir_charges_published_total", "Rows of charges that were published since the start.", &[], one(count(&books.rows)));
    page.counters(
        "weir_charges_failures_total",
        "Publications of charges that failed and were tried again.",
        &[],
        one(count(&books.failures)),
    );
    let gauge = |name: &str, help: &str, value: i64| page.gauges(name, help, &[], vec![(Vec::new(), value)]);
    let help = "Quanta of money and time by which the parts of shared cost miss their origin; 0 when nothing leaks.";
    gauge("weir_cost_conservation_residual", help, books.residual.load(Ordering::Relaxed));
    gauge("weir_cost_copies", "Copies of usage events among what was rated last; none of them is counted.", count(&books.copies) as i64);
    gauge(
        "weir_cost_conflicts",
        "Usage events with a known key and other content among what was rated last.",
        count(&books.conflicts) as i64,
    );
    let (mut spent, mut crossed, mut forecast) = (Vec::new(), Vec::new(), Vec::new());
    for state in status::lock(&books.budgets).iter() {
        let labels = || vec![state.name.clone()];
        spent.push((labels(), state.spent_bp.map_or(i64::MAX, |bp| i64::try_from(bp).unwrap_or(i64::MAX))));
        crossed.push((labels(), state.alerts.iter().filter(|alert| alert.crossed.is_some()).count() as i64));
        forecast.push((labels(), i64::from(state.is_forecast_above)));
    }
    let names: &[&str] = &["budget"];
    page.gauges("weir_budget_spent_basis_points", "What is spent of a budget this month, in hundredths of a percent.", names, spent);
    page.gauges("weir_budget_alerts_crossed", "Alerts of a budget that were crossed this month.", names, crossed);
    page.gauges("weir_budget_forecast_above", "1: the month will end above the budget, if it goes on so.", names, forecast);
}

/// What was done for lakes since the start.
fn add_care(page: &Page, vitals: &Vitals) {
    let Some(care) = &vitals.care else { return };
    let count = |name: &str, help: &str, counter: &std::sync::atomic::AtomicU64| {
        page.counters(name, help, &[], vec![(Vec::new(), counter.load(Ordering::Relaxed))]);
    };
    count("weir_lake_merges_total", "Files of a lake that were made of smaller ones.", &care.merges);
    count("weir_lake_merged_files_total", "Small files that are in them.", &care.files_merged);
    count("weir_lake_indexes_rebuilt_total", "Search indexes that were lost or damaged and made anew.", &care.indexes_rebuilt);
    count("weir_lake_files_removed_total", "Files of a lake that nothing refers to any more and were deleted.", &care.files_removed);
    count("weir_lake_care_failures_total", "Files and runs that failed while lakes were looked after.", &care.failures);
    let (mut records, mut bytes) = (Vec::new(), Vec::new());
    for (rule, sums) in &*status::lock(&care.expired) {
        records.push((vec![(*rule).to_owned()], sums.0));
        bytes.push((vec![(*rule).to_owned()], sums.1));
    }
    let names: &[&str] = &["rule"];
    page.counters("weir_lake_expired_records_total", "Stored records that `keep` dropped, by the rule that did.", names, records);
    page.counters("weir_lake_expired_bytes_total", "Bytes of files that `keep` dropped.", names, bytes);
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

/// Requests of sinks that send by HTTP, since the start.
fn add_https(page: &Page, vitals: &Vitals) {
    let (mut answers, mut sent) = (Vec::new(), Vec::new());
    for (pipeline, sink, signals) in &vitals.sinks {
        let Some(stats) = status::lock(&signals.http).clone() else { continue };
        let labels = || vec![pipeline.clone(), sink.clone()];
        let name = |status: u16| if status == 0 { "none".to_string() } else { status.to_string() };
        answers.extend(stats.answers.into_iter().map(|(status, count)| ([labels(), vec![name(status)]].concat(), count)));
        sent.push((labels(), stats.sent_bytes));
    }
    let unshown = |(pipeline, sink, signals): &(String, String, Arc<SinkSignals>)| {
        (vec![pipeline.clone(), sink.clone()], signals.unshown.load(Ordering::Relaxed))
    };
    let unshown = vitals.sinks.iter().map(unshown).filter(|(_, n)| *n > 0).collect();
    let help = "Samples of series that a prometheus sink has no room for.";
    page.counters("weir_exposition_refused_samples_total", help, &["pipeline", "sink"], unshown);
    let lost =
        |(pipeline, sink, signals): &(String, String, Arc<SinkSignals>)| (vec![pipeline.clone(), sink.clone()], readers::lost(signals));
    let lost = vitals.sinks.iter().map(lost).filter(|(_, n)| *n > 0).collect();
    page.counters("weir_spans_lost_total", "Spans of our own that went by unsent.", &["pipeline", "sink"], lost);
    page.counters("weir_http_answers_total", "Requests of a sink by status of the answer.", &["pipeline", "sink", "result"], answers);
    page.counters("weir_http_sent_bytes_total", "Bytes of bodies that a sink sent, packed.", &["pipeline", "sink"], sent);
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

/// Sources that others send to.
fn add_pushed(page: &Page, vitals: &Vitals) {
    let (mut results, mut waiting, mut connections) = (Vec::new(), Vec::new(), Vec::new());
    for (pipeline, source, stats) in &vitals.pushed {
        let labels = || vec![pipeline.clone(), source.clone()];
        results.extend(stats.results().into_iter().map(|(result, count)| ([labels(), vec![result]].concat(), count)));
        waiting.push((labels(), i64::try_from(stats.budget.taken_bytes()).unwrap_or(i64::MAX)));
        connections.push((labels(), stats.connections.load(Ordering::Relaxed) as i64));
    }
    let names: &[&str] = &["pipeline", "source"];
    let help = "Of sources that others send to: requests by status of their answer, records taken, messages by what came of them.";
    page.counters("weir_intake_total", help, &["pipeline", "source", "result"], results);
    page.gauges("weir_intake_waiting_bytes", "Bytes at hand that no lane has read.", names, waiting);
    page.gauges("weir_intake_connections", "Connections that are open.", names, connections);
}

/// By pipeline, the tenants that have labels of their own.
type Large = HashMap<String, BTreeSet<Vec<u8>>>;

/// Who has labels of its own keeps them; while there is room the largest by records received come to them.
fn large_tenants(vitals: &Vitals, ledgers: &[(&str, Ledger)]) -> Large {
    let mut large = vitals.named.lock().expect("nobody panics while naming tenants");
    for (pipeline, ledger) in ledgers {
        let named = large.entry(pipeline.to_string()).or_default();
        let room = TENANTS_MAX - named.len();
        let mut others: Vec<_> = ledger.totals.tenants.iter().filter(|(name, _)| !named.contains(*name)).collect();
        // Once there was none, those without are one counter for good.
        if room == 0 || others.is_empty() {
            continue;
        }
        others.sort_by_key(|(name, totals)| (std::cmp::Reverse(totals.received.records), *name));
        named.extend(others.into_iter().take(room).map(|(name, _)| name.clone()));
    }
    large.clone()
}

fn label(tenant: &[u8], pipeline: &str, large: &Large) -> String {
    if large.get(pipeline).is_some_and(|named| named.contains(tenant)) {
        String::from_utf8_lossy(tenant).into_owned()
    } else {
        OTHER.to_string()
    }
}

/// Adds rows of equal labels up: several small tenants share a label.
fn fold(rows: impl Iterator<Item = (Vec<String>, u64)>) -> Vec<(Vec<String>, u64)> {
    let mut sums: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for (labels, value) in rows {
        *sums.entry(labels).or_default() += value;
    }
    sums.into_iter().collect()
}

/// Records and bytes by labels of sources and requests, on a page of their own: there a label of the process may have another value.
fn add_labelled(page: &Page, vitals: &Vitals) -> Page {
    let labelled = Page(Registry::new());
    let rules: Vec<_> = vitals.plans.iter().map(|(pipeline, current)| (pipeline, Arc::clone(&current.get().1.rules))).collect();
    let counted = || rules.iter().filter(|(_, rules)| rules.labels.counted);
    if counted().next().is_none() {
        return labelled;
    }
    let mut names: BTreeSet<&str> = vitals.labels.keys().map(String::as_str).collect();
    for (_, rules) in counted() {
        names.extend(rules.labels.request.iter().map(|label| label.name.as_str()));
        names.extend(rules.labels.sources.iter().flat_map(|(_, labels)| labels.keys()).map(String::as_str));
    }
    let names: Vec<&str> = ["pipeline", "source", "tenant", "outcome"].into_iter().chain(names).collect();
    let (mut records, mut bytes, mut folded, mut ended, mut refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (pipeline, rules) in counted() {
        let labels = &rules.labels;
        let shown = labels.page(env::now());
        for (key, of_records, of_bytes) in shown.rows {
            let (source, constant) = &labels.sources[usize::from(key.source)];
            let tenant = key.tenant.map_or(OTHER.into(), |tenant| String::from_utf8_lossy(&rules.tenants.name(tenant)).into_owned());
            let outcome = match key.outcome {
                Became::Kept => "kept",
                Became::Created => "created",
                Became::Dropped(reason) => reason.name(),
            };
            // The latest layer that has a value gives it.
            let value = |name: &&str| {
                let of_request = labels.request.iter().position(|label| label.name == *name).map(|at| key.values[at].as_ref());
                let of_request = of_request.filter(|value| !value.is_empty());
                let earlier = || constant.get(*name).or(vitals.labels.get(*name)).map_or("", String::as_str);
                of_request.unwrap_or_else(earlier).to_string()
            };
            let own = [pipeline.to_string(), source.clone(), tenant, outcome.to_string()];
            let row: Vec<String> = own.into_iter().chain(names[4..].iter().map(value)).collect();
            records.push((row.clone(), of_records));
            bytes.push((row, of_bytes));
        }
        folded.extend(shown.folded.into_iter().map(|(limit, count)| (vec![pipeline.to_string(), limit.name().to_string()], count)));
        ended.push((vec![pipeline.to_string()], shown.ended));
        for label in &labels.request {
            let counts =
                label.refused().map(|(why, count)| (vec![pipeline.to_string(), label.name.clone(), why.name().to_string()], count));
            refused.extend(counts);
        }
    }
    labelled.counters(
        "weir_records_total",
        "Records by what became of them and by labels, since the start.",
        &names,
        fold(records.into_iter()),
    );
    labelled.counters("weir_record_bytes_total", "Origin bytes of these records.", &names, fold(bytes.into_iter()));
    page.counters(
        "weir_label_folded_records_total",
        "Records whose series by labels was folded into another, by the limit that was reached.",
        &["pipeline", "limit"],
        folded,
    );
    page.counters("weir_label_series_ended_total", "Series by labels that ended, as nothing was added to them.", &["pipeline"], ended);
    page.counters(
        "weir_label_refused_records_total",
        "Records whose value of a request label became the overflow value, by reason.",
        &["pipeline", "label", "reason"],
        refused,
    );
    labelled
}

/// What each policy decided since the start, in records: seen = sampled + dropped.
fn add_samplers(page: &Page, vitals: &Vitals, large: &Large) {
    let (mut sampled, mut dropped) = (Vec::new(), Vec::new());
    for (pipeline, current) in &vitals.plans {
        let rules = &current.get().1.rules;
        let named = |step: &flow::step::Step| step.terms().map(|terms| terms.name.to_string());
        let names: BTreeMap<u32, String> =
            rules.step_ids.iter().zip(&rules.steps).filter_map(|(id, step)| Some((*id, named(step)?))).collect();
        for ((id, tenant, level), counts) in rules.sampling.tallies.rows() {
            // What a reload took away is told of no more.
            let Some(policy) = names.get(&id) else { continue };
            let tenant = label(&rules.tenants.name(tenant), pipeline, large);
            let labels = vec![pipeline.clone(), policy.clone(), format!("{id:08x}"), LEVELS[level].to_string(), tenant];
            sampled.push((labels.clone(), counts[0]));
            dropped.push((labels, counts[1]));
        }
    }
    // A policy that a reload moves has another place, and goes on counting in a series of its own by its id.
    let labels: &[&str] = &["pipeline", "policy", "id", "level", "tenant"];
    page.counters("weir_sampled_total", "Records that a policy kept, since the start.", labels, fold(sampled.into_iter()));
    page.counters("weir_dropped_total", "Records that a policy dropped, since the start.", labels, fold(dropped.into_iter()));
    let mismatches = |(pipeline, current): &(String, Arc<Current>)| (vec![pipeline.clone()], current.get().1.rules.mismatches());
    let help = "Records in which a condition met a value of a type that it does not take, since the start or the last reload.";
    page.counters("weir_condition_mismatches_total", help, &["pipeline"], vitals.plans.iter().map(mismatches).collect());
}

fn add_flow(page: &Page, ledgers: &[(&str, Ledger)], large: &Large) {
    let (mut received, mut created, mut kept, mut dropped, mut notes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut skipped = Vec::new();
    for (pipeline, ledger) in ledgers {
        for (tenant, totals) in &ledger.totals.tenants {
            let labels = vec![pipeline.to_string(), label(tenant, pipeline, large)];
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

fn add_sinks(page: &Page, ledgers: &[(&str, Ledger)], large: &Large) {
    let (mut delivered, mut buffered, mut rejected, mut not_selected) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (pipeline, ledger) in ledgers {
        for (sink, totals) in &ledger.sinks {
            let labels = |tenant: &Vec<u8>| vec![pipeline.to_string(), sink.clone(), label(tenant, pipeline, large)];
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
