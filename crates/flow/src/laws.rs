//! Laws that hold for every pipeline, tested over the whole heart: decode, scan, tenancy, steps, meters.

use crate::batch::{Batch, NO_SINK};
use crate::condition::Condition;
use crate::counter::{Counters, Window};
use crate::decode::{Decoder, End, Format, Limits};
use crate::event::{Note, Outcome, Reason};
use crate::fields::FieldSet;
use crate::meter::{Group, Meter, Meters, Sums};
use crate::pipeline::{Reading, Rules, Sampling, Worker};
use crate::prices::{MeterPrices, Price, PriceList, Prices};
use crate::step::quota::{Limit, Over, Period, Unit};
use crate::step::rates::{Method, Rates};
use crate::step::sample::{Counting, Key, Policy};
use crate::step::threshold::Threshold;
use crate::step::{Filter, Quota, Sample, Step};
use crate::tenancy::Tenants;
use crate::units::UnixNanos;
use std::collections::BTreeMap;
use std::sync::Arc;

const FIELDS: [&str; 10] = ["ts", "level", "tenant", "service", "tokens_in", "tokens_cached", "msg", "request_id", "path", "tokens_out"];

fn field(name: &str) -> usize {
    FIELDS.iter().position(|f| *f == name).expect("tests name known fields")
}

fn condition(text: &str) -> Condition {
    Condition::parse(text, &mut field).expect("tests hold good conditions")
}

fn filter(text: &str, drops: bool, metered_anyway: bool) -> Step {
    Step::Filter(Filter { when: condition(text), drops, metered_anyway })
}

fn drop_if(text: &str) -> Step {
    filter(text, true, false)
}

/// A sampler with one policy for info; errors are all kept.
fn sample_info(policy: Policy) -> Step {
    let all = || Policy::All;
    let policies = [all(), all(), all(), policy, all(), all(), all()];
    Step::Sample(Box::new(Sample {
        name: "test".into(),
        policies,
        message: vec![field("msg")],
        by_arrival: false,
        counters: Arc::new(Counters::new()),
    }))
}

fn counter(first: u64, thereafter: u64) -> Policy {
    Policy::Counter(Counting::new(Window { first, thereafter, tick_ns: 1_000_000_000 }, Key::default(), 0, 3))
}

fn meter(name: &str, parts: &[&str], wholes: &[&str]) -> Meter {
    let numbers = |names: &[&str]| names.iter().map(|n| field(n)).collect();
    let (quantity, parts, wholes) = (Some(field(name)), numbers(parts), numbers(wholes));
    Meter { name: name.into(), unit: "Tokens".into(), quantity, parts, wholes, lineage: false }
}

fn meters() -> Meters {
    let meters =
        vec![meter("tokens_in", &["tokens_cached"], &[]), meter("tokens_cached", &[], &["tokens_in"]), meter("tokens_out", &[], &[])];
    let group = Group { dims: vec![("service".into(), field("service"))], when: None, when_text: None, events: None, meters };
    let metered = ["tokens_in", "tokens_cached", "tokens_out", "service"].iter().fold(0, |mask, f| mask | 1 << field(f));
    Meters { groups: vec![group], fields: metered }
}

/// What came of a run.
#[derive(Debug, PartialEq)]
struct Outcomes {
    kept: Vec<String>,
    dropped: BTreeMap<&'static str, usize>,
    notes: BTreeMap<&'static str, usize>,
    weight: u64,
    /// (tenant, service, meter) to quantity.
    bill: BTreeMap<(String, String, String), i128>,
}

fn run(steps: Vec<Step>, input: &[u8]) -> Outcomes {
    let tenants = Arc::new(Tenants::new("unassigned", 100));
    let rules = Arc::new(Rules {
        fields: Arc::new(FieldSet::new(&FIELDS)),
        time: vec![field("ts").into()],
        level: vec![field("level").into()],
        tenant: vec![field("tenant")],
        tenants: Arc::clone(&tenants),
        step_ids: (0..steps.len() as u32).collect(),
        steps,
        meters: meters(),
        sampling: Sampling::default(),
        selection: crate::select::Selection::default(),
        labels: crate::labels::Labels::default(),
    });
    let mut worker = Worker::new(Arc::clone(&rules));
    let mut batch = Batch { arena: input.to_vec(), ..Batch::default() };
    Decoder::new(Format::Json, Limits { line_bytes_max: 1 << 20, join_bytes_max: 1 << 20, join_age_ns: 0 }).decode(
        &mut batch,
        0,
        End::Log,
        UnixNanos(0),
    );
    assert_eq!(batch.law.total(), input.len() as i64, "every byte has a use");
    let mut sums = Sums::default();
    worker.process(&mut batch, Reading { json: true, drop_malformed: false }, UnixNanos(0), &mut sums);
    let mut out = Outcomes { kept: vec![], dropped: BTreeMap::new(), notes: BTreeMap::new(), weight: 0, bill: BTreeMap::new() };
    for i in 0..batch.len() {
        match batch.outcome[i] {
            Outcome::Kept => {
                out.kept.push(String::from_utf8_lossy(batch.record(i)).into_owned());
                out.weight += u64::from(batch.weight[i]);
            }
            Outcome::Created => unreachable!("no step makes records"),
            Outcome::Dropped(reason) => *out.dropped.entry(reason.name()).or_default() += 1,
        }
        for note in Note::ALL.into_iter().filter(|n| batch.notes[i] & n.bit() != 0 && *n != Note::ArrivalTime) {
            *out.notes.entry(note.name()).or_default() += 1;
        }
    }
    assert_eq!(out.kept.len() + out.dropped.values().sum::<usize>(), batch.len(), "received == kept + dropped");
    for sum in sums.iter() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for (meter, quantity) in rules.meters.groups[sum.group].meters.iter().zip(sum.quantities).filter(|q| q.1.events > 0) {
            let key = (text(&tenants.name(sum.tenant)), text(sum.dims[0]), meter.name.clone());
            *out.bill.entry(key).or_default() += quantity.total;
        }
    }
    out
}

fn total(outcomes: &Outcomes, meter: &str) -> i128 {
    outcomes.bill.iter().filter(|(key, _)| key.2 == meter).map(|(_, quantity)| quantity).sum()
}

#[test]
fn one_request_is_kept_or_dropped_as_a_whole() {
    let lines: String = (0..3_000).map(|n| format!("{{\"level\":\"info\",\"request_id\":\"r{}\",\"n\":{n}}}\n", n % 300)).collect();
    let out = run(vec![sample_info(Policy::ratio(0.25, Some(field("request_id"))))], lines.as_bytes());
    let mut by_request: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &out.kept {
        *by_request.entry(line.split('"').nth(7).unwrap()).or_default() += 1;
    }
    assert!(by_request.values().all(|n| *n == 10), "{by_request:?}");
    assert!((45..=105).contains(&by_request.len()), "about a quarter of 300 requests: {}", by_request.len());
    assert_eq!(out.weight, out.kept.len() as u64 * 4);
}

#[test]
fn moving_a_line_of_config_does_not_change_an_invoice() {
    let line = |n: usize| {
        let (level, path) = (["info", "error"][n % 2], ["/v1", "/healthz", "/v2"][n % 3]);
        format!("{{\"level\":\"{level}\",\"tenant\":\"t{}\",\"service\":\"s\",\"path\":\"{path}\",\"tokens_in\":{n}}}\n", n % 4)
    };
    let input: String = (0..600).map(line).collect();
    let filtered = || drop_if("path == \"/healthz\"");
    let first = run(vec![filtered(), sample_info(Policy::None)], input.as_bytes());
    let last = run(vec![sample_info(Policy::None), filtered()], input.as_bytes());
    let unsampled = run(vec![filtered()], input.as_bytes());
    assert_eq!(first.bill, last.bill);
    assert_eq!(first.bill, unsampled.bill, "cost stays exact while logs are sampled");
    assert_eq!(first.kept, last.kept);
    let anyway = run(vec![filter("path == \"/healthz\"", true, true)], input.as_bytes());
    assert_eq!(total(&anyway, "tokens_in"), (0..600).sum::<i128>(), "metered: anyway counts what the filter drops");
}

#[test]
fn the_first_drop_names_the_reason() {
    let input = b"{\"level\":\"info\",\"path\":\"/x\"}\n{\"level\":\"error\",\"path\":\"/x\"}\n";
    let sampled_first = run(vec![sample_info(Policy::None), drop_if("path == \"/x\"")], input);
    assert_eq!(sampled_first.dropped, BTreeMap::from([(Reason::Sampled.name(), 1), (Reason::Filtered.name(), 1)]));
    let filtered_first = run(vec![drop_if("path == \"/x\""), sample_info(Policy::None)], input);
    assert_eq!(filtered_first.dropped, BTreeMap::from([(Reason::Filtered.name(), 2)]));
    let keep = run(vec![filter("level == \"error\"", false, false)], input);
    assert_eq!(keep.kept.len(), 1);
}

#[test]
fn zaps_sampler_keeps_the_first_thousand_of_a_message() {
    let input: String = (0..1_500).map(|_| "{\"ts\":\"2026-11-23T03:00:00.5Z\",\"level\":\"info\",\"msg\":\"same\"}\n").collect();
    let policy = counter(1_000, 0);
    let out = run(vec![sample_info(policy)], input.as_bytes());
    assert_eq!((out.kept.len(), out.dropped["sampled"]), (1_000, 500));
    let thinned = run(vec![sample_info(counter(100, 100))], input.as_bytes());
    assert_eq!((thinned.kept.len(), thinned.weight), (114, 1_500), "each kept one after the first hundred stands for a hundred");
}

#[test]
fn a_quantity_is_a_whole_number_or_nothing() {
    #[track_caller]
    fn check(quantity: &str, want: i128, note: Option<&str>) {
        let out = run(vec![], format!("{{\"tenant\":\"t\",\"service\":\"s\",\"tokens_in\":{quantity}}}\n").as_bytes());
        assert_eq!(total(&out, "tokens_in"), want, "{quantity}");
        assert_eq!(out.notes.keys().copied().next(), note, "{quantity}");
        assert_eq!(out.kept.len(), 1, "no record is lost for its quantity");
    }
    check("0", 0, None);
    check("9223372036854775807", i128::from(i64::MAX), None);
    check("9223372036854775808", 0, Some("bad_quantity"));
    check("99999999999999999999999", 0, Some("bad_quantity"));
    check("-5", 0, Some("bad_quantity"));
    check("1.5", 0, Some("bad_quantity"));
    check("1e3", 0, Some("bad_quantity"));
    check("\"7\"", 0, Some("bad_quantity"));
    check("true", 0, Some("bad_quantity"));
    check("null", 0, None);
    check("5,\"tokens_in\":6", 0, Some("duplicate_metered"));
    check("5,\"tokens_cached\":6", 0, Some("part_above_whole"));
    check("5,\"tokens_cached\":5", 5, None);
}

#[test]
fn who_pays_is_never_guessed() {
    #[track_caller]
    fn check(line: &str, tenant: &str) {
        let out = run(vec![], format!("{line}\n").as_bytes());
        let tenants: Vec<&str> = out.bill.keys().map(|k| k.0.as_str()).collect();
        assert_eq!(tenants.first().copied().unwrap_or("nobody"), tenant, "{line}");
    }
    check(r#"{"tenant":"acme","tokens_in":1}"#, "acme");
    check(r#"{"tenant":"ac\u006de","tokens_in":1}"#, "acme");
    check(r#"{"tenant":"Acme ","tokens_in":1}"#, "Acme ");
    check(r#"{"tokens_in":1}"#, "unassigned");
    check(r#"{"tenant":null,"tokens_in":1}"#, "unassigned");
    check(r#"{"tenant":"","tokens_in":1}"#, "unassigned");
    check(r#"{"tenant":"a","tenant":"b","tokens_in":1}"#, "nobody");
    check(r#"{"tenant":"a","t\u0065nant":"a","tokens_in":1}"#, "nobody");
}

#[test]
fn any_bytes_are_conserved_and_billed_alike_in_any_order_of_steps() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    println!("SEED={seed}");
    let mut state = seed | 1;
    let mut next = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    for _ in 0..300 {
        let mut input = Vec::new();
        for _ in 0..next(40) {
            match next(6) {
                0 => input.extend((0..next(60)).map(|_| next(256) as u8)),
                1 => input.extend(b"{\"tenant\":\"x\",\"tokens_in\":"),
                _ => {
                    let line = format!(
                        "{{\"level\":\"{}\",\"tenant\":\"t{}\",\"service\":\"s{}\",\"path\":\"/{}\",\"tokens_in\":{},\"request_id\":\"{}\"}}",
                        ["info", "debug", "error"][next(3) as usize],
                        next(3),
                        next(2),
                        next(3),
                        next(1_000),
                        next(50)
                    );
                    input.extend(line.into_bytes());
                }
            }
            input.push(b'\n');
        }
        let filtered = || drop_if("path == \"/1\" && has(service)");
        let sampled = || sample_info(Policy::ratio(0.3, Some(field("request_id"))));
        let one = run(vec![filtered(), sampled()], &input);
        let other = run(vec![sampled(), filtered()], &input);
        assert_eq!(one.bill, other.bill);
        assert_eq!(one.kept, other.kept);
    }
}

/// Decides about lines, so many to a batch, and shows each batch.
fn each_batch(steps: Vec<Step>, lines: &[String], per_batch: usize, now: UnixNanos, mut show: impl FnMut(&Batch)) -> Arc<Rules> {
    let rules = Arc::new(Rules {
        fields: Arc::new(FieldSet::new(&FIELDS)),
        time: vec![field("ts").into()],
        level: vec![field("level").into()],
        tenant: vec![field("tenant")],
        tenants: Arc::new(Tenants::new("unassigned", 100)),
        step_ids: (0..steps.len() as u32).collect(),
        steps,
        meters: meters(),
        sampling: Sampling::default(),
        selection: crate::select::Selection::default(),
        labels: crate::labels::Labels::default(),
    });
    let mut worker = Worker::new(Arc::clone(&rules));
    for lines in lines.chunks(per_batch) {
        let mut batch = Batch { arena: lines.concat().into_bytes(), ..Batch::default() };
        let limits = Limits { line_bytes_max: 1 << 20, join_bytes_max: 1 << 20, join_age_ns: 0 };
        Decoder::new(Format::Json, limits).decode(&mut batch, 0, End::Log, UnixNanos(0));
        worker.process(&mut batch, Reading { json: true, drop_malformed: false }, now, &mut Sums::default());
        show(&batch);
    }
    rules
}

/// What becomes of each line, for how many it stands, and which sink alone takes it, if so many lines make a batch.
fn decide(steps: Vec<Step>, lines: &[String], per_batch: usize) -> Vec<(Outcome, u32, u8)> {
    let mut decided = Vec::new();
    each_batch(steps, lines, per_batch, UnixNanos(i64::MAX), |batch| {
        let diverted = |i: usize| batch.diverted.get(i).copied().unwrap_or(NO_SINK);
        decided.extend((0..batch.len()).map(|i| (batch.outcome[i], batch.weight[i], diverted(i))));
    });
    decided
}

/// Each token for 2 x 10^-12.
fn prices() -> Prices {
    let price = Price { matches: Vec::new(), units: 2, per: 1, minus: Vec::new() };
    let meters = vec![MeterPrices { prices: vec![price], wholes: Vec::new() }; 3];
    Prices { lists: vec![PriceList { from_minute: i64::MIN, to_minute: i64::MAX, meters }] }
}

fn random_lines(seed: u64, count: usize, level: impl Fn(u64) -> &'static str) -> Vec<String> {
    let mut state = seed | 1;
    let mut next = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    let line = |n: usize| {
        // Mostly forward, now and then back.
        let time = UnixNanos(1_795_132_800_000_000_000 + (n as i64 * 3_000_000) - next(4) as i64 * 700_000_000);
        let text = ["request completed", "slot 7 of \"gpu\" is free", "caf\u{e9}\tis a word \\ of its own, longer than sixteen", ""]
            [next(4) as usize];
        let msg = serde_json::to_string(&format!("{text}{}", next(9))).expect("a string");
        let (tenant, service, request, tokens) = (next(7), next(5), next(60), next(100));
        format!(
            "{{\"ts\":\"{}\",\"level\":\"{}\",\"tenant\":\"t{tenant}\",\"service\":\"s{service}\",\"request_id\":\"r{request}\",\"tokens_in\":{tokens},\"msg\":{msg}}}\n",
            time.rfc3339(),
            level(next(3)),
        )
    };
    (0..count).map(line).collect()
}

/// Steps work through a batch key by key and level by level; nobody may see that.
#[test]
fn a_batch_is_decided_as_its_records_one_by_one() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    println!("SEED={seed}");
    let second = 1_000_000_000;
    let window = Window { first: 2, thereafter: 5, tick_ns: second };
    let key = |fields: &[&str], per_tenant| Key { fields: fields.iter().map(|f| field(f)).collect(), per_tenant };
    let count = |fields: &[&str], exact| sample_info(Policy::Counter(Counting::new(window, key(fields, exact > 0), exact, 3)));
    let limit = |unit, period, amount| Limit { unit, period, amount, full: amount };
    let quota = |by: Option<&str>, keys_max| {
        let limits = vec![limit(Unit::Records, Period::Second, 4), limit(Unit::Bytes, Period::Minute, 9_000)];
        Step::Quota(Box::new(Quota::new("quota".into(), limits, by.map(field), Over::Drop, false, keys_max)))
    };
    let money = |over| {
        let limits = vec![limit(Unit::Records, Period::Minute, 150), limit(Unit::Money, Period::Second, 900)];
        let quota = Quota::new("money".into(), limits, None, over, false, 100);
        Step::Quota(Box::new(Quota { prices: Some(prices()), ..quota }))
    };
    let rates = |method, fields: &[&str]| sample_info(Policy::Rates(Arc::new(Rates::new(method, second, 20)), key(fields, false)));
    let threshold = |by_weight| sample_info(Policy::Threshold(Arc::new(Threshold::new(5, second, by_weight)), key(&[], true)));
    let plans: [(&str, &dyn Fn() -> Vec<Step>); 12] = [
        ("slots by message", &|| vec![count(&[], 0)]),
        ("slots by fields", &|| vec![count(&["service", "msg"], 0)]),
        ("exact keys", &|| vec![count(&[], 1_000)]),
        ("exact keys beyond the bound", &|| vec![count(&["request_id"], 20)]),
        ("rates", &|| vec![rates(Method::Throughput(50), &["service", "msg"]), quota(None, 100)]),
        ("moving rates", &|| vec![rates(Method::Ema(3), &["service"])]),
        ("thresholds", &|| vec![threshold(false), threshold(true)]),
        ("quota", &|| vec![sample_info(Policy::ratio(0.6, None)), quota(None, 100), drop_if("service == \"s1\"")]),
        ("quota in money", &|| vec![money(Over::Drop)]),
        ("quota in money, sampled", &|| vec![money(Over::Sample { below: u64::MAX / 3 })]),
        ("quota in money, diverted", &|| vec![money(Over::Divert { sink: 3 })]),
        ("quota beyond the bound", &|| vec![sample_info(Policy::ratio(0.7, Some(field("request_id")))), quota(Some("request_id"), 20)]),
    ];
    for (name, steps) in plans {
        let lines = random_lines(seed, 2_000, |n| ["info", "info", "error"][n as usize]);
        let one_by_one = decide(steps(), &lines, 1);
        let kept = one_by_one.iter().filter(|(outcome, _, sink)| (*outcome, *sink) == (Outcome::Kept, NO_SINK)).count();
        assert!((100..1_900).contains(&kept), "{name} keeps {kept}: it decides nothing");
        for per_batch in [7, 500, 2_000] {
            assert_eq!(decide(steps(), &lines, per_batch), one_by_one, "{name}, {per_batch} to a batch");
        }
    }
}

/// The same for quotas over which a log waits: what is owed, and until when.
#[test]
fn a_batch_owes_as_its_records_one_by_one() {
    let lines = random_lines(7, 2_000, |_| "info");
    let start = UnixNanos(1_795_132_790_000_000_000); // before all of them
    let owed = |per_batch: usize| {
        let limit = |unit, period, amount| Limit { unit, period, amount, full: amount };
        let limits = vec![limit(Unit::Records, Period::Second, 9), limit(Unit::Money, Period::Minute, 7_000)];
        let quota = Quota::new("quota".into(), limits, Some(field("service")), Over::Delay, false, 100);
        let steps = vec![Step::Quota(Box::new(Quota { prices: Some(prices()), ..quota }))];
        let mut rests_until = None;
        let rules = each_batch(steps, &lines, per_batch, start, |batch| {
            assert!(batch.outcome.iter().all(|outcome| *outcome == Outcome::Kept), "nothing is lost");
            rests_until = rests_until.max(batch.rests_until);
        });
        let Step::Quota(quota) = &rules.steps[0] else { unreachable!("just made") };
        let mut bytes = Vec::new();
        quota.buckets.take_changes(&mut bytes);
        let mut buckets: Vec<Vec<u8>> = bytes.chunks_exact(32).map(<[u8]>::to_vec).collect();
        buckets.sort();
        (rests_until, quota.rest_of(0, start).is_some(), buckets)
    };
    let one_by_one = owed(1);
    assert!(one_by_one.0 > Some(UnixNanos(start.0 + 30_000_000_000)) && one_by_one.1, "{:?}", one_by_one.0);
    assert_eq!(one_by_one.2.len(), 7 * 5 * 2, "of each tenant, service and limit");
    for per_batch in [7, 500, 2_000] {
        assert_eq!(owed(per_batch), one_by_one, "{per_batch} to a batch");
    }
}

/// Against zap's rule, written down once more: serde_json reads the message.
#[test]
fn eb_1_1_messages_are_counted_in_zaps_slots_as_they_are_meant() {
    let lines = random_lines(11, 3_000, |_| "info");
    let mut counters: BTreeMap<u32, (i64, u64)> = BTreeMap::new();
    let want: Vec<bool> = lines
        .iter()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).expect("tests write JSON");
            let message = record["msg"].as_str().expect("a message");
            let hash = message.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
            let time = crate::time::TimeParser::default();
            let ts = record["ts"].as_str().expect("a time");
            let t = { time }.parse(ts.as_bytes(), crate::fields::Kind::Text).expect("a time").0;
            let counter = counters.entry(hash % 4096).or_default();
            *counter = if counter.0 > t { (counter.0, counter.1 + 1) } else { (t + 1_000_000_000, 1) };
            counter.1 <= 3 || (counter.1 - 3).is_multiple_of(4)
        })
        .collect();
    let got = decide(vec![sample_info(counter(3, 4))], &lines, 700);
    assert_eq!(got.iter().map(|(outcome, ..)| *outcome == Outcome::Kept).collect::<Vec<_>>(), want);
    assert!(want.contains(&true) && want.contains(&false));
}
