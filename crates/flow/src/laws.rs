//! Laws that hold for every pipeline, tested over the whole heart: decode, scan, tenancy, steps, meters.

use crate::batch::Batch;
use crate::condition::Condition;
use crate::counter::{Counters, Window};
use crate::decode::{Decoder, End, Format, Limits};
use crate::event::{Note, Outcome, Reason};
use crate::fields::FieldSet;
use crate::meter::{Group, Meter, Meters, Sums};
use crate::pipeline::{Reading, Rules, Sampling, Worker};
use crate::step::sample::{Counting, Key, Policy};
use crate::step::{Filter, Sample, Step};
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
    let group = Group { dims: vec![("service".into(), field("service"))], when: None, when_text: None, meters };
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
        time: vec![field("ts")],
        level: vec![field("level")],
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
