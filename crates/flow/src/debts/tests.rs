//! The law of sampling: whatever policies and input, lanes and crashes, weights and summaries are what came in.
//!
//! The oracle adds up what the lines say, read by serde_json, and what the batches and summaries say; a crash throws away what
//! no frame took along, and everybody begins again from the state that frames left.

use super::*;
use crate::batch::BEFORE_STEPS;
use crate::condition::Condition;
use crate::counter::{Counters, Window};
use crate::decode::{Decoder, End, Format, Limits};
use crate::event::{Outcome, ReasonClass};
use crate::fields::FieldSet;
use crate::meter::{Meters, Sums};
use crate::pipeline::{Reading, Sampling, Worker};
use crate::step::quota::{Limit, Over, Period, Unit};
use crate::step::rates::{Method, Rates};
use crate::step::sample::{Counting, Key, Policy};
use crate::step::tail::{Rest, Table};
use crate::step::threshold::Threshold;
use crate::step::{Clock, Filter, Quota, Sample, Tail};
use crate::units::{NANOS_PER_MINUTE, NANOS_PER_SECOND};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::HashMap;

const FIELDS: [&str; 7] = ["ts", "level", "tenant", "msg", "request_id", "sample_rate", "sampler"];
const LANES: usize = 2;
/// 2026-11-20T00:00:00Z.
const T0_S: i64 = 1_795_132_800;

fn field(name: &str) -> usize {
    FIELDS.iter().position(|f| *f == name).expect("tests name known fields")
}

fn rules(steps: Vec<Step>) -> Arc<Rules> {
    Arc::new(Rules {
        fields: Arc::new(FieldSet::new(&FIELDS)),
        time: vec![field("ts").into()],
        level: vec![field("level").into()],
        tenant: vec![field("tenant")],
        tenants: Arc::new(Tenants::new("unassigned", 1_000)),
        step_ids: (0..steps.len() as u32).map(|n| n + 100).collect(),
        steps,
        meters: Meters::default(),
        sampling: Sampling { rate: Some(field("sample_rate")), sampler: Some(field("sampler")), ..Sampling::default() },
        selection: crate::select::Selection::default(),
        labels: crate::labels::Labels::default(),
    })
}

fn sample(policies: [Policy; 7]) -> Step {
    let (name, message) = ("test".into(), vec![field("msg")]);
    Step::Sample(Box::new(Sample { name, policies, message, by_arrival: false, counters: Arc::new(Counters::new()) }))
}

/// A policy for info, `other` for the levels that are not named.
fn info(policy: Policy) -> Step {
    let all = || Policy::All;
    sample([all(), all(), all(), policy, all(), all(), all()])
}

fn window(first: u64, thereafter: u64, tick_s: i64) -> Window {
    Window { first, thereafter, tick_ns: tick_s * NANOS_PER_SECOND }
}

fn counter(first: u64, thereafter: u64, tick_s: i64) -> Policy {
    Policy::Counter(Counting::new(window(first, thereafter, tick_s), Key::default(), 0, 3))
}

fn quota(limits: &[(Unit, Period, u64)], over: Over) -> Step {
    let limits = limits.iter().map(|(unit, period, amount)| {
        let amount = i128::from(*amount);
        Limit { unit: *unit, period: *period, amount, full: amount }
    });
    Step::Quota(Box::new(Quota::new("quota".into(), limits.collect(), None, over, false, 1_000)))
}

fn batch(lines: &[String]) -> Batch {
    let mut batch =
        Batch { arena: lines.concat().into_bytes(), arrival: UnixNanos((T0_S + 86_400) * NANOS_PER_SECOND), ..Batch::default() };
    let limits = Limits { line_bytes_max: 1 << 20, join_bytes_max: 1 << 20, join_age_ns: 0 };
    Decoder::new(Format::Json, limits).decode(&mut batch, 0, End::Log, UnixNanos(0));
    batch
}

/// By tenant and level.
type Totals = BTreeMap<(String, usize), u64>;

fn add(totals: &mut Totals, rules: &Rules, tenant: u32, level: usize, records: u64) {
    let name = String::from_utf8(rules.tenants.name(tenant).to_vec()).expect("tests name tenants in text");
    *totals.entry((name, level)).or_default() += records;
}

/// What lines say of themselves.
fn told(lines: &[String], level: Option<&str>) -> Totals {
    let mut totals = Totals::new();
    for line in lines {
        let record: Value = serde_json::from_str(line).expect("tests write JSON");
        let number = LEVELS.iter().position(|l| record["level"] == *l).unwrap_or(0);
        if level.is_none_or(|level| record["level"] == level) {
            let rate = record["sample_rate"].as_u64().filter(|r| (1..=u64::from(u32::MAX)).contains(r)).unwrap_or(1);
            *totals.entry((record["tenant"].as_str().unwrap_or("unassigned").into(), number)).or_default() += rate;
        }
    }
    totals
}

/// One process: lanes over shared rules, and what came out of its frames.
struct Process {
    rules: Arc<Rules>,
    workers: Vec<Worker>,
    /// Of each lane, what was decided and is in no frame yet: lines, weights of kept ones, of dropped ones that are not ours.
    open: Vec<(Vec<String>, Totals, Totals)>,
}

/// What is on disk.
#[derive(Default)]
struct Durable {
    state: BTreeMap<(u32, [u8; 8]), [u8; 24]>,
    tenants: Vec<Arc<[u8]>>,
    lines: Vec<String>,
    kept: Totals,
    not_ours: Totals,
    summed: Totals,
    seen: Totals,
}

impl Process {
    fn start(steps: Vec<Step>, lanes: usize, durable: &Durable) -> Process {
        let rules = rules(steps);
        durable.tenants.iter().for_each(|name| assert!(rules.tenants.number(name).is_some()));
        let mut by_step: HashMap<u32, Vec<u8>> = HashMap::new();
        for ((step, key), value) in &durable.state {
            by_step.entry(*step).or_default().extend(key.iter().chain(value));
        }
        for (id, entries) in by_step {
            rules.sampling.restored.lock().expect("no lane runs yet").extend(Owed::read(id, &entries, &rules));
            if let Some(step) = rules.step_ids.iter().position(|own| *own == id) {
                rules.steps[step].restore(&entries);
            }
        }
        let workers = (0..lanes).map(|lane| Worker::of_lane(Arc::clone(&rules), lane, lanes, false)).collect();
        Process { workers, open: (0..lanes).map(|_| Default::default()).collect(), rules }
    }

    fn process(&mut self, lane: usize, lines: &[String], now: UnixNanos) -> Batch {
        let mut batch = batch(lines);
        batch.arrival = now;
        self.workers[lane].process(&mut batch, Reading { json: true, drop_malformed: false }, now, &mut Sums::default());
        let open = &mut self.open[lane];
        open.0.extend(lines.iter().cloned());
        for i in 0..batch.len() {
            let totals = match batch.outcome[i] {
                Outcome::Kept => &mut open.1,
                Outcome::Dropped(reason) if reason.class() == ReasonClass::NotOurs => &mut open.2,
                _ => continue,
            };
            add(totals, &self.rules, batch.tenant[i], level_of(batch.severity[i]), u64::from(batch.weight[i]));
        }
        batch
    }

    fn close(&mut self, lane: usize, now: UnixNanos, all: bool, durable: &mut Durable) -> Vec<Summary> {
        let closing = self.workers[lane].close(now, all);
        let mut changes = closing.changes;
        for (step, id) in self.rules.steps.iter().zip(&self.rules.step_ids) {
            let mut bytes = Vec::new();
            step.take_changes(&mut bytes);
            changes.push((*id, bytes));
        }
        for (id, bytes) in changes {
            for entry in bytes.chunks_exact(32) {
                let (key, value) = (entry[..8].try_into().expect("8"), entry[8..].try_into().expect("24"));
                if value == [0; 24] {
                    durable.state.remove(&(id, key));
                } else {
                    durable.state.insert((id, key), value);
                }
            }
        }
        let (lines, kept, not_ours) = std::mem::take(&mut self.open[lane]);
        durable.lines.extend(lines);
        for (to, from) in [(&mut durable.kept, kept), (&mut durable.not_ours, not_ours)] {
            from.into_iter().for_each(|(key, records)| *to.entry(key).or_default() += records);
        }
        for summary in &closing.summaries {
            let totals = if summary.kept.is_some() { &mut durable.seen } else { &mut durable.summed };
            add(totals, &self.rules, summary.tenant, summary.level, summary.records);
            let weights: u64 = summary.weights().map(u64::from).sum();
            assert_eq!(weights, if summary.kept.is_some() { 0 } else { summary.records });
        }
        durable.tenants = (0..self.rules.tenants.len()).map(|n| self.rules.tenants.name(n)).collect();
        closing.summaries
    }

    /// What was decided, kept, dropped as not ours, summed and is owed, in memory and on disk.
    fn assert_law(&self, durable: &Durable, skip: Option<usize>) {
        let mut want = told(&durable.lines, None);
        let mut got = Totals::new();
        let mut plus = |totals: &Totals| totals.iter().for_each(|(key, n)| *got.entry(key.clone()).or_default() += n);
        [&durable.kept, &durable.not_ours, &durable.summed].into_iter().for_each(&mut plus);
        for (lines, kept, not_ours) in &self.open {
            told(lines, None).into_iter().for_each(|(key, n)| *want.entry(key).or_default() += n);
            plus(kept);
            plus(not_ours);
        }
        for worker in &self.workers {
            for (tenant, level, records) in worker.debts().owed() {
                add(&mut got, &self.rules, tenant, level, records);
            }
        }
        let is_exact = |key: &(String, usize)| Some(key.1) != skip;
        want.retain(|key, n| is_exact(key) && *n > 0);
        got.retain(|key, n| is_exact(key) && *n > 0);
        assert_eq!(got, want);
    }
}

/// Runs lines through one lane and closes it; kept line numbers with weights, and summaries.
fn run(steps: Vec<Step>, lines: &[String]) -> (Vec<(usize, u32)>, Vec<Summary>) {
    run_with(steps, lines, true)
}

/// The same, with policies that are right on average.
fn run_average(steps: Vec<Step>, lines: &[String]) -> (Vec<(usize, u32)>, Vec<Summary>) {
    run_with(steps, lines, false)
}

fn run_with(steps: Vec<Step>, lines: &[String], is_exact: bool) -> (Vec<(usize, u32)>, Vec<Summary>) {
    let mut durable = Durable::default();
    let mut process = Process::start(steps, 1, &durable);
    let now = UnixNanos((T0_S + 86_400) * NANOS_PER_SECOND);
    let batch = process.process(0, lines, now);
    if is_exact {
        process.assert_law(&durable, None);
    }
    let summaries = process.close(0, now, true, &mut durable);
    if is_exact {
        process.assert_law(&durable, None);
    }
    let kept = (0..batch.len()).filter(|i| batch.outcome[*i] == Outcome::Kept).map(|i| (i, batch.weight[i])).collect();
    (kept, summaries)
}

fn line(ms: i64, level: &str, tenant: &str, msg: &str, more: &str) -> String {
    let ts = UnixNanos(T0_S * NANOS_PER_SECOND + ms * 1_000_000).rfc3339();
    format!("{{\"ts\":\"{ts}\",\"level\":\"{level}\",\"tenant\":\"{tenant}\",\"msg\":\"{msg}\"{more}}}\n")
}

#[test]
fn eb_1_3_a_kept_record_covers_the_dropped_ones_before_it_and_a_summary_the_rest() {
    let lines: Vec<String> = (0..9).map(|n| line(n, "info", "a", "m", "")).collect();
    let (kept, summaries) = run(vec![info(counter(2, 3, 60))], &lines);
    assert_eq!(kept, [(0, 1), (1, 1), (4, 3), (7, 3)]);
    assert_eq!(summaries.iter().map(|s| (s.level, s.records, s.kept)).collect::<Vec<_>>(), [(3, 1, None)]);
    let lines: Vec<String> = (0..1500).map(|n| line(n / 2, "info", "a", "m", "")).collect();
    let (kept, summaries) = run(vec![info(counter(1000, 0, 1))], &lines);
    assert_eq!((kept.len(), kept.iter().map(|k| u64::from(k.1)).sum::<u64>(), summaries[0].records), (1000, 1000, 500));
}

#[test]
fn eb_1_3_a_debt_is_paid_by_the_same_tenant_and_level_within_a_window() {
    let drops = |n: i64| (0..n).map(|ms| line(ms, "info", "a", "m", ""));
    let pay = |ms: i64, level: &str, tenant: &str| line(ms, level, tenant, "other", "");
    let with = |last: String| run(vec![info(counter(1, 0, 1))], &drops(4).chain([last]).collect::<Vec<_>>());
    assert_eq!(with(pay(900, "info", "a")).0.last(), Some(&(4, 4)), "itself and three");
    for (last, why) in [
        (pay(900, "info", "b"), "another tenant"),
        (pay(900, "error", "a"), "another level"),
        (pay(1_001, "info", "a"), "too late: three are told of where they were"),
    ] {
        let (kept, summaries) = with(last);
        assert_eq!((kept.last(), summaries.len(), summaries[0].records), (Some(&(4, 1)), 1, 3), "{why}");
        assert_eq!(summaries[0].time.0, (T0_S * 1_000 + 3) * 1_000_000, "{why}");
    }
}

#[test]
fn eb_1_3_an_upstream_rate_counts_and_is_multiplied() {
    let rated = |rate: &str, n: i64| line(n, "info", "a", "m", &format!(",\"request_id\":\"r\",\"sample_rate\":{rate}"));
    let lines: Vec<String> = (0..6).map(|n| rated("5", n)).collect();
    // Numbers 1-5, 6-10, ...: of each of the first two one is among the first ten, then 20 and 30 are to be kept.
    let (kept, summaries) = run(vec![info(counter(10, 10, 60))], &lines);
    assert_eq!((kept, summaries), (vec![(0, 5), (1, 5), (3, 10), (5, 10)], vec![]));
    let (kept, _) = run_average(vec![info(Policy::ratio(0.9999999, Some(field("request_id"))))], &lines[..1]);
    assert_eq!(kept, [(0, 5)]);
    let (kept, _) = run_average(
        vec![info(Policy::When { when: Condition::parse("request_id == \"r\"", &mut field).expect("good"), weight: 3 })],
        &lines[..1],
    );
    assert_eq!(kept, [(0, 15)], "multiplied");
    for (rate, want) in [("1", 1), ("0", 1), ("-3", 1), ("2.5", 1), ("\"7\"", 1), ("4294967295", u32::MAX), ("4294967296", 1), ("1e3", 1)] {
        assert_eq!(run(vec![info(counter(10, 10, 60))], &[rated(rate, 0)]).0, [(0, want)], "{rate}");
    }
}

#[test]
fn a_weight_that_does_not_fit_is_left_to_a_summary() {
    let rated = |n: i64| line(n, "info", "a", "m", ",\"sample_rate\":4294967295");
    let lines: Vec<String> = (0..5).map(rated).chain([line(9, "info", "a", "other", "")]).collect();
    let (kept, summaries) = run(vec![info(counter(1, 0, 60))], &lines);
    assert_eq!(kept, [(0, u32::MAX), (5, u32::MAX)]);
    assert_eq!(summaries[0].weights().collect::<Vec<_>>(), [u32::MAX, u32::MAX, u32::MAX, 1]);
}

#[test]
fn eb_1_1_exact_keys_tell_messages_apart_that_share_a_slot() {
    let slot = |n: usize| crate::hash::slots(&[format!("m{n}").as_bytes()])[0];
    let other = (1..).find(|n| slot(*n) == slot(0)).expect("slots repeat");
    let lines = [line(0, "info", "a", "m0", ""), line(1, "info", "a", &format!("m{other}"), "")];
    let count = |exact| run(vec![info(Policy::Counter(Counting::new(window(1, 0, 1), Key::default(), exact, 3)))], &lines).0.len();
    assert_eq!((count(0), count(100)), (1, 2));
}

#[test]
fn eb_1_1_keys_are_configurable_fields() {
    let lines: Vec<String> = (0..6).map(|n| line(n, "info", "a", &format!("m{n}"), &format!(",\"request_id\":\"r{}\"", n % 2))).collect();
    for exact in [0, 100] {
        let key = Key { fields: vec![field("request_id"), field("tenant")], per_tenant: false };
        let (kept, _) = run(vec![info(Policy::Counter(Counting::new(window(1, 0, 1), key, exact, 3)))], &lines);
        assert_eq!(kept.iter().map(|k| k.0).collect::<Vec<_>>(), [0, 1], "exact: {exact}");
    }
}

#[test]
fn eb_1_2_error_and_above_always_pass_and_a_level_that_is_off_is_told_of_by_nobody() {
    let (none, all) = (|| Policy::None, || Policy::All);
    let lines: Vec<String> =
        ["debug", "info", "warn", "error", "fatal", "trace"].iter().map(|level| line(0, level, "a", "m", "")).collect();
    let (kept, summaries) = run_average(vec![sample([all(), none(), none(), counter(0, 0, 1), all(), all(), all()])], &lines);
    assert_eq!(kept, [(2, 1), (3, 1), (4, 1)]);
    assert_eq!(summaries.iter().map(|s| LEVELS[s.level]).collect::<Vec<_>>(), ["info"]);
}

#[test]
fn eb_1_1_first_of_a_level_is_counted_by_level() {
    let lines: Vec<String> = ["debug", "debug", "info", "info"].iter().map(|level| line(0, level, "a", "m", "")).collect();
    let all = || Policy::All;
    let steps = vec![sample([all(), all(), Policy::None, counter(1, 100, 1), all(), all(), all()])];
    assert_eq!(run_average(steps, &lines).0, [(2, 1)], "debug is not counted, the first info is kept");
}

#[test]
fn eb_1_4_a_trace_is_kept_or_dropped_alike_on_every_node() {
    let lines: Vec<String> =
        (0..2_000).map(|n| line(n, "info", "a", &format!("m{n}"), &format!(",\"request_id\":\"r{}\"", n / 4))).collect();
    let ratio = || vec![info(Policy::ratio(0.25, Some(field("request_id"))))];
    let ids = |lines: &[String]| -> Vec<String> {
        run_average(ratio(), lines)
            .0
            .iter()
            .map(|(i, _)| serde_json::from_str::<Value>(&lines[*i]).expect("JSON")["request_id"].to_string())
            .collect()
    };
    let (whole, backwards) = (ids(&lines), ids(&lines.iter().rev().cloned().collect::<Vec<_>>()));
    assert_eq!(whole, backwards.into_iter().rev().collect::<Vec<_>>());
    assert!(whole.chunks(4).all(|four| four.iter().all(|id| *id == four[0])), "a trace is whole");
    let (kept, summaries) = run_average(ratio(), &lines);
    assert!((300..700).contains(&kept.len()), "{}", kept.len());
    assert_eq!((summaries[0].records, summaries[0].kept), (2_000, Some(kept.len() as u64)), "an exact row of what was seen");
    // A fractional rate is whole in each record and right on average.
    let (kept, _) = run_average(vec![info(Policy::ratio(0.4, Some(field("request_id"))))], &lines);
    let sum: u32 = kept.iter().map(|k| k.1).sum();
    assert!(kept.iter().all(|k| k.1 == 2 || k.1 == 3) && (sum as f64 / kept.len() as f64 - 2.5).abs() < 0.1, "{sum} {}", kept.len());
}

#[test]
fn eb_1_5_seen_is_sampled_plus_dropped_by_policy_level_and_tenant() {
    let mut durable = Durable::default();
    let all = || Policy::All;
    let ratio = Policy::ratio(0.5, Some(field("request_id")));
    let steps = vec![
        sample([all(), all(), Policy::None, counter(3, 10, 60), ratio, all(), all()]),
        quota(&[(Unit::Records, Period::Day, 20)], Over::Drop),
    ];
    let mut process = Process::start(steps, LANES, &durable);
    let levels = ["debug", "info", "warn", "error"];
    let lines: Vec<String> =
        (0..900).map(|n| line(n, levels[n as usize % 4], &format!("t{}", n % 3), "m", &format!(",\"request_id\":\"{n}\""))).collect();
    let mut kept = 0;
    for (n, lines) in lines.chunks(50).enumerate() {
        let batch = process.process(n % LANES, lines, UnixNanos(T0_S * NANOS_PER_SECOND));
        kept += batch.outcome.iter().filter(|o| **o == Outcome::Kept).count() as u64;
        process.close(n % LANES, UnixNanos(T0_S * NANOS_PER_SECOND), false, &mut durable);
    }
    let tallies = process.rules.sampling.tallies.rows();
    let sum = |step: u32, level: usize| {
        tallies.iter().filter(|(k, _)| (k.0, k.2) == (step + 100, level)).fold([0, 0], |sum, (_, n)| [sum[0] + n[0], sum[1] + n[1]])
    };
    assert_eq!(sum(0, 2), [0, 225], "a level that is off counts what it drops");
    assert_eq!(sum(0, 3).iter().sum::<u64>(), 225);
    assert_eq!(sum(0, 4).iter().sum::<u64>(), 225);
    assert_eq!(sum(0, 5), [0, 0], "a level that is kept whole is no sampler's");
    let reached: u64 = (0..7).map(|level| sum(1, level).iter().sum::<u64>()).sum();
    assert_eq!(reached, sum(0, 3)[0] + sum(0, 4)[0] + 225, "the quota sees what the sampler kept");
    assert_eq!((0..7).map(|level| sum(1, level)[0]).sum::<u64>(), kept);
    assert!((31..60).contains(&kept), "20 of each tenant, of which some stand for two: {kept}");
}

#[test]
fn eb_1_5_a_tail_sampler_counts_its_verdicts_and_lanes_count_the_others() {
    let now = UnixNanos(T0_S * NANOS_PER_SECOND);
    for rest in [Rest::None, Rest::share(0.25)] {
        let keep = Condition::parse("level == \"error\"", &mut field).expect("a condition");
        let (name, key) = ("tail".into(), vec![field("request_id")]);
        let tail = Tail { name, key, keep, rest, wait_ns: NANOS_PER_SECOND, keys_max: 1_000 };
        let mut process = Process::start(vec![info(Policy::ratio(0.5, None)), Step::Tail(Box::new(tail))], 1, &Durable::default());
        let level = |n: i64| if n % 37 == 0 { "error" } else { "info" };
        let lines: Vec<String> =
            (0..900).map(|n| line(n, level(n), &format!("t{}", n % 3), "m", &format!(",\"request_id\":\"{}\"", n % 100))).collect();
        let mut batch = process.process(0, &lines, now);
        let rules = Arc::clone(&process.rules);
        let counted = |id: u32| {
            let rows = rules.sampling.tallies.rows();
            rows.iter().filter(|(key, _)| key.0 == id).fold([0, 0], |sum, (_, n)| [sum[0] + n[0], sum[1] + n[1]])
        };
        let of_lane = counted(100);
        assert_eq!((of_lane[0] + of_lane[1], counted(101)), (875, [0, 0]));
        // As the decider does it: rows of another kind are none of a step's.
        let kept = |batch: &Batch| (0..batch.len()).filter(|i| batch.outcome[*i] == Outcome::Kept).collect::<Vec<_>>();
        let weight = |batch: &Batch| kept(batch).iter().map(|i| u64::from(batch.weight[*i])).sum::<u64>();
        batch.dropped_by.iter_mut().filter(|step| **step != NO_STEP).for_each(|step| *step = BEFORE_STEPS);
        let (marks, before) = (batch.requests.clone(), (kept(&batch).len() as u64, weight(&batch)));
        let mut table = Table::new(1_000);
        table.see(&marks, |_| now, now, NANOS_PER_SECOND);
        let Step::Tail(tail) = &rules.steps[1] else { unreachable!("just made") };
        let mut debts = Debts::of_decider(&rules, Vec::new());
        debts.clock = now;
        tail.settle(1, &mut batch, Clock::Arrival, &table, &marks, |i| lines[i].as_bytes(), &mut debts);
        let after = kept(&batch).len() as u64;
        // 25 errors, each of a request of three records of its tenant, of which the sampler left about half; then a quarter of the rest.
        let about = if rest == Rest::None { 35..=75 } else { 120..=220 };
        assert!(about.contains(&after), "{after} of {}", before.0);
        assert_eq!((counted(100), counted(101)), (of_lane, [after, before.0 - after]));
        let summaries = debts.close(now, true, &rules).summaries;
        let told: u64 = summaries.iter().map(|summary| summary.records).sum();
        match rest {
            Rest::None => assert_eq!(weight(&batch) + told, before.1, "sums are exact"),
            Rest::Share { .. } => {
                assert_eq!((told, summaries.iter().filter_map(|summary| summary.kept).sum::<u64>()), (before.1, after));
            }
        }
        drop((debts, process));
        rules.sampling.tallies.forget(&[100]);
        assert_eq!((counted(100), counted(101)), ([0, 0], [after, before.0 - after]), "what nobody goes on with stays, or is forgotten");
    }
}

#[test]
fn eb_1_6_a_noisy_tenant_takes_nothing_from_a_quiet_one() {
    let mix = |noisy: i64| -> Vec<String> {
        (0..100)
            .flat_map(|n| (0..noisy).map(move |_| line(n, "info", "noisy", "m", "")).chain([line(n, "info", "quiet", "m", "")]))
            .collect()
    };
    let kept_of_quiet = |steps: Vec<Step>, lines: &[String]| {
        run_average(steps, lines)
            .0
            .iter()
            .filter(|(i, _)| lines[*i].contains("quiet"))
            .map(|(i, _)| serde_json::from_str::<Value>(&lines[*i]).expect("JSON")["ts"].to_string())
            .collect::<Vec<_>>()
    };
    let per_tenant = || Key { fields: Vec::new(), per_tenant: true };
    let policies: [fn(Key) -> Step; 3] = [
        |key| info(Policy::Counter(Counting::new(window(10, 0, 1), key, 100, 3))),
        |key| info(Policy::Threshold(Arc::new(Threshold::new(10, NANOS_PER_SECOND, false)), key)),
        |_| quota(&[(Unit::Records, Period::Second, 10)], Over::Drop),
    ];
    for (n, policy) in policies.into_iter().enumerate() {
        let alone = kept_of_quiet(vec![policy(per_tenant())], &mix(0));
        assert!(!alone.is_empty());
        assert_eq!(kept_of_quiet(vec![policy(per_tenant())], &mix(100)), alone, "policy {n}");
    }
    assert!(kept_of_quiet(vec![policies[0](Key::default())], &mix(100)).len() < 10, "shared slots are zap's way");
}

#[test]
fn eb_1_7_any_clock_is_read_without_a_panic_and_the_law_holds() {
    let times =
        ["1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "0", "-5", "9999999999999999999", "2099-12-31T23:59:59Z", "1991-01-01T00:00:00Z"];
    let lines: Vec<String> = (0..200)
        .map(|n| match n % 9 {
            7 => "{\"level\":\"info\",\"tenant\":\"a\",\"msg\":\"m\"}\n".to_string(),
            8 => "{\"tenant\":\"a\",\"msg\":\"m\"}\n".to_string(),
            k => format!("{{\"ts\":\"{}\",\"level\":\"info\",\"tenant\":\"a\",\"msg\":\"m\"}}\n", times[k]),
        })
        .collect();
    for policy in [
        counter(2, 3, 1),
        Policy::ratio(0.3, None),
        Policy::Rates(Arc::new(Rates::new(Method::Throughput(1), NANOS_PER_SECOND, 5)), Key::default()),
    ] {
        run(vec![info(policy), quota(&[(Unit::Records, Period::Minute, 5)], Over::Drop)], &lines);
    }
}

#[test]
fn a_clock_that_ran_ahead_does_not_close_a_tenants_quota() {
    let mut process = Process::start(vec![quota(&[(Unit::Records, Period::Minute, 2)], Over::Drop)], 1, &Durable::default());
    let now = |minute: i64| UnixNanos(T0_S * NANOS_PER_SECOND + minute * NANOS_PER_MINUTE);
    process.process(0, &["{\"ts\":\"2099-12-31T23:59:59Z\",\"level\":\"info\",\"tenant\":\"a\"}\n".into()], now(0));
    let kept = (2..5).map(|minute| {
        let lines: Vec<String> = (0..3).map(|n| line(minute * 60_000 + n, "info", "a", "m", "")).collect();
        process.process(0, &lines, now(minute)).outcome.iter().filter(|o| **o == Outcome::Kept).count()
    });
    assert_eq!(kept.collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn a_window_ends_without_traffic_and_is_told_once() {
    let mut durable = Durable::default();
    let mut process = Process::start(vec![info(counter(1, 0, 10))], 1, &durable);
    let now = |second: i64| UnixNanos((T0_S + second) * NANOS_PER_SECOND);
    let lines: Vec<String> = (0..5).map(|n| line(n, "info", "a", "m", "")).collect();
    process.process(0, &lines, now(0));
    assert!(process.close(0, now(1), false, &mut durable).is_empty());
    assert!(!process.workers[0].is_due(now(9)) && process.workers[0].is_due(now(10)));
    assert_eq!(process.close(0, now(10), false, &mut durable).len(), 1);
    assert!(!process.workers[0].is_due(now(1_000_000)));
    assert!(process.close(0, now(20), true, &mut durable).is_empty());
    assert!(durable.state.keys().all(|(_, key)| key[7] != KEY_TAG), "what is paid leaves the state");
}

#[test]
fn a_debt_of_a_step_or_lane_that_is_gone_is_told_in_the_next_frame() {
    let mut durable = Durable::default();
    let mut process = Process::start(vec![info(counter(1, 0, 3600))], LANES, &durable);
    let lines: Vec<String> = (0..5).map(|n| line(n, "info", "a", "m", "")).collect();
    for lane in 0..LANES {
        process.process(lane, &lines, UnixNanos(T0_S * NANOS_PER_SECOND));
        process.close(lane, UnixNanos(T0_S * NANOS_PER_SECOND), false, &mut durable);
    }
    let mut fewer = Process::start(vec![info(counter(1, 0, 3600))], 1, &durable);
    let told = fewer.close(0, UnixNanos(T0_S * NANOS_PER_SECOND), false, &mut durable);
    assert_eq!(told.iter().map(|s| s.records).sum::<u64>(), 9, "its own and the other lane's");
    assert!(durable.state.keys().all(|(_, key)| key[7] != KEY_TAG));
    fewer.process(0, &lines, UnixNanos(T0_S * NANOS_PER_SECOND));
    fewer.close(0, UnixNanos(T0_S * NANOS_PER_SECOND), false, &mut durable);
    let mut changed = Process::start(Vec::new(), LANES, &durable);
    assert!(changed.workers[0].is_due(UnixNanos(0)));
    assert_eq!(changed.close(0, UnixNanos(0), false, &mut durable)[0].records, 5);
    changed.assert_law(&durable, None);
}

#[test]
fn a_summary_is_a_record_in_the_fields_that_the_plan_reads() {
    let rules = rules(vec![]);
    let tenant = rules.tenants.number("a\"b\n\u{e9}".as_bytes()).expect("there is room");
    let time = UnixNanos(T0_S * NANOS_PER_SECOND);
    for (kept, want) in [(None, "sample_rate"), (Some(3), "seen")] {
        let summary = Summary { sampler: "steps[0].sample".into(), tenant, level: 3, time, records: 7, kept };
        let mut out = Vec::new();
        summary.weights().for_each(|weight| summary.write(weight, &rules, &mut out));
        let record: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!((record["ts"].as_str(), record["level"].as_str()), (Some("2026-11-20T00:00:00Z"), Some("info")));
        assert_eq!((record["tenant"].as_str(), record[want].as_u64()), (Some("a\"b\n\u{e9}"), Some(7)));
        assert_eq!((summary.severity(), record["kept"].as_u64()), (9, kept));
    }
}

fn exact_policy() -> impl Strategy<Value = Recipe> {
    prop_oneof![
        Just(Recipe::All),
        (0..4u64, 0..6u64, 1..5i64).prop_map(|(first, thereafter, tick)| Recipe::Counter(first, thereafter, tick, 0, false)),
        (0..4u64, 0..6u64, 1..5i64, 1..20usize, any::<bool>()).prop_map(|(f, t, tick, keys, per)| Recipe::Counter(f, t, tick, keys, per)),
        (0.0..1.0f64).prop_map(Recipe::Ratio),
        (1..50u32).prop_map(Recipe::Throughput),
    ]
}

/// How to make a policy; a restart makes it again.
#[derive(Clone, Debug)]
enum Recipe {
    All,
    Counter(u64, u64, i64, usize, bool),
    Ratio(f64),
    Throughput(u32),
    Keyed(f64),
    Average(u32),
    Ema(u32),
    Reservoir(u32),
    Priority(u32),
}

fn average_policy() -> impl Strategy<Value = Recipe> {
    prop_oneof![
        (0.01..1.0f64).prop_map(Recipe::Keyed),
        (1..20u32).prop_map(Recipe::Average),
        (1..20u32).prop_map(Recipe::Ema),
        (1..20u32).prop_map(Recipe::Reservoir),
        (1..20u32).prop_map(Recipe::Priority),
    ]
}

impl Recipe {
    fn policy(&self, level: usize) -> Policy {
        let rates =
            |method| Policy::Rates(Arc::new(Rates::new(method, NANOS_PER_SECOND, 8)), Key { fields: vec![field("msg")], per_tenant: true });
        let threshold = |size, by_weight| Policy::Threshold(Arc::new(Threshold::new(size, NANOS_PER_SECOND, by_weight)), Key::default());
        match *self {
            Recipe::All => Policy::All,
            Recipe::Counter(first, thereafter, tick, keys, per_tenant) => {
                Policy::Counter(Counting::new(window(first, thereafter, tick), Key { fields: Vec::new(), per_tenant }, keys, level))
            }
            Recipe::Ratio(ratio) => Policy::ratio(ratio, None),
            Recipe::Throughput(goal) => rates(Method::Throughput(goal)),
            Recipe::Keyed(ratio) => Policy::ratio(ratio, Some(field("request_id"))),
            Recipe::Average(goal) => rates(Method::Average(goal)),
            Recipe::Ema(goal) => rates(Method::Ema(goal)),
            Recipe::Reservoir(size) => threshold(size, false),
            Recipe::Priority(size) => threshold(size, true),
        }
    }
}

#[derive(Clone, Debug)]
struct Plan {
    first: [Recipe; 7],
    filter: bool,
    quota: Option<(u64, Option<f64>)>,
    second: Recipe,
}

impl Plan {
    fn steps(&self) -> Vec<Step> {
        let mut n = 0;
        let policies = self.first.each_ref().map(|recipe| {
            n += 1;
            recipe.policy(n - 1)
        });
        let mut steps = vec![sample(policies)];
        if self.filter {
            let when = Condition::parse("msg == \"m1\"", &mut field).expect("good");
            steps.push(Step::Filter(Filter { when, drops: true, metered_anyway: false }));
        }
        if let Some((amount, share)) = self.quota {
            let over = share.map_or(Over::Drop, |share| Over::Sample { below: (share * u64::MAX as f64) as u64 });
            steps.push(quota(&[(Unit::Records, Period::Minute, amount), (Unit::Bytes, Period::Second, amount * 40)], over));
        }
        steps.push(info(self.second.policy(3)));
        steps
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let exact = || exact_policy();
    let levels = (exact(), exact(), average_policy(), exact(), exact(), exact(), exact());
    let quota = proptest::option::of((1..60u64, proptest::option::of(0.0..1.0f64)));
    (levels, any::<bool>(), quota, exact_policy()).prop_map(|((a, b, c, d, e, f, g), filter, quota, second)| Plan {
        first: [a, b, c, d, e, f, g],
        filter,
        quota,
        second,
    })
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    Batch { lane: usize, lines: Vec<String>, ms: i64 },
    Close { lane: usize },
    Crash,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = (0..30u32, 0..6usize, 0..7usize, 0..4000i64, 0..40u32).prop_map(|(tenant, msg, level, ms, more)| {
        let rate = if more < 4 { format!(",\"sample_rate\":{}", [2, 100, 4_294_967_295u64, 0][more as usize]) } else { String::new() };
        // Half of the records are of one tenant.
        let level = if level == 0 { "?" } else { LEVELS[level] };
        line(ms, level, &format!("t{}", tenant.saturating_sub(15)), &format!("m{msg}"), &format!(",\"request_id\":\"r{more}\"{rate}"))
    });
    let event = prop_oneof![
        6 => (0..LANES, prop::collection::vec(one, 1..40), 0..3_000i64).prop_map(|(lane, lines, ms)| Event::Batch { lane, lines, ms }),
        4 => (0..LANES).prop_map(|lane| Event::Close { lane }),
        1 => Just(Event::Crash),
    ];
    prop::collection::vec(event, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Of any tenant and level: weights kept, weights that are not ours, summaries and debts are what came in, after every
    /// batch, frame and crash; and at the end no debt is left.
    #[test]
    fn weights_and_summaries_are_what_came_in(plan in plan(), events in events()) {
        let mut durable = Durable::default();
        let mut process = Process::start(plan.steps(), LANES, &durable);
        let mut now = T0_S * NANOS_PER_SECOND;
        for event in &events {
            match event {
                Event::Batch { lane, lines, ms } => {
                    now += ms * 1_000_000;
                    process.process(*lane, lines, UnixNanos(now));
                }
                Event::Close { lane } => drop(process.close(*lane, UnixNanos(now), false, &mut durable)),
                // What is in no frame is lost, and read again.
                Event::Crash => {
                    let again: Vec<String> = process.open.iter().flat_map(|open| open.0.clone()).collect();
                    process = Process::start(plan.steps(), LANES, &durable);
                    process.assert_law(&durable, Some(2));
                    process.process(0, &again, UnixNanos(now));
                }
            }
            process.assert_law(&durable, Some(2));
        }
        for lane in 0..LANES {
            process.close(lane, UnixNanos(now), true, &mut durable);
        }
        prop_assert!(process.workers.iter().all(|worker| worker.debts().owed().is_empty()));
        process.assert_law(&durable, Some(2));
        let mut seen = durable.seen.clone();
        seen.retain(|_, n| *n > 0);
        prop_assert_eq!(seen, told(&durable.lines, Some("debug")), "what a sampler by chance saw");
        prop_assert!(durable.state.keys().all(|(_, key)| key[7] != KEY_TAG), "what is paid leaves the state");
    }
}

#[test]
fn eb_1_2_a_policy_of_the_same_config_goes_on_in_new_rules_and_another_starts_anew() {
    let exact = || Key { fields: Vec::new(), per_tenant: true };
    let policies: [&dyn Fn() -> Step; 4] = [
        &|| info(counter(5, 10, 60)),
        &|| info(Policy::Counter(Counting::new(window(5, 10, 60), exact(), 100, 3))),
        &|| info(Policy::Threshold(Arc::new(Threshold::new(8, 60 * NANOS_PER_SECOND, false)), exact())),
        &|| quota(&[(Unit::Records, Period::Day, 9)], Over::Drop),
    ];
    let lines: Vec<String> = (0..60).map(|n| line(0, "info", "a", "m", &format!(",\"request_id\":\"{n}\""))).collect();
    let now = UnixNanos(T0_S * NANOS_PER_SECOND);
    for (n, policy) in policies.into_iter().enumerate() {
        // `id`: of the policy in the new rules, where it stands second.
        let run = |reload: Option<u32>| {
            let mut durable = Durable::default();
            let mut process = Process::start(vec![policy()], 1, &durable);
            let mut kept = Vec::new();
            for half in lines.chunks(30) {
                kept.extend(process.process(0, half, now).outcome.iter().map(|o| *o == Outcome::Kept));
                if let Some(id) = reload {
                    process.close(0, now, true, &mut durable);
                    let mut next = Arc::into_inner(rules(vec![quota(&[(Unit::Records, Period::Day, 1_000)], Over::Drop), policy()]));
                    let rules = next.as_mut().expect("nobody else has it");
                    (rules.step_ids, rules.tenants) = (vec![7, id], Arc::clone(&process.rules.tenants));
                    rules.share(&process.rules);
                    process.rules = Arc::new(next.expect("just seen"));
                    process.workers = vec![Worker::of_lane(Arc::clone(&process.rules), 0, 1, false)];
                }
            }
            process.close(0, now, true, &mut durable);
            process.assert_law(&durable, (n == 2).then_some(3));
            let tallies = process.rules.sampling.tallies.rows();
            let counted: u64 = tallies.iter().filter(|(key, _)| key.0 == 100).map(|(_, n)| n.iter().sum::<u64>()).sum();
            (kept, counted)
        };
        let (whole, shared, anew) = (run(None), run(Some(100)), run(Some(101)));
        assert_eq!(whole.1, 60);
        assert_eq!(shared, whole, "policy {n}: the window and the counts go on");
        assert_eq!(anew.0[..30], whole.0[..30]);
        assert_ne!(anew.0, whole.0, "policy {n}: another policy begins a window");
        assert_eq!(anew.1, 30, "policy {n}: what the first one decided is its own");
    }
}
