//! The vectors of EB 10.6, by number, and what a copy is otherwise.

use super::*;
use crate::event::StreamId;
use crate::fields::FieldSet;
use crate::meter::{Group, Meter, Meters, Sums};
use crate::pipeline::{Reading, Rules, Sampling, Worker};
use crate::step::Step;

const FIELDS: [&str; 12] =
    ["ts", "tenant", "trace_id", "method", "path", "host", "body_hash", "idempotency_key", "mirrored", "amount", "level", "qty"];
const WINDOW: i64 = 600_000_000_000;

fn field(name: &str) -> usize {
    FIELDS.iter().position(|f| *f == name).expect("tests name known fields")
}

fn dedup(tenants: &Arc<Tenants>) -> Dedup {
    let one = |name: &str| vec![field(name)];
    Dedup {
        id: 5,
        key: one("trace_id"),
        request: Request {
            host: one("host"),
            method: one("method"),
            path: one("path"),
            body: one("body_hash"),
            idempotency: one("idempotency_key"),
        },
        content: None,
        window_ns: WINDOW,
        by_arrival: false,
        mirror: Mirror { suffix: b"-shadow".to_vec(), marker: Some(field("mirrored")), aside: vec!["host".into(), "mirrored".into()] },
        honest_repeats: false,
        drop_conflicts: false,
        metered_anyway: false,
        tenants: Arc::clone(tenants),
        seen: Arc::new(Seen::new(1_000)),
    }
}

/// No steps.
fn rules(tenants: Arc<Tenants>, groups: Vec<Group>) -> Rules {
    Rules {
        fields: Arc::new(FieldSet::new(&FIELDS)),
        time: vec![field("ts").into()],
        level: vec![field("level").into()],
        tenant: vec![field("tenant")],
        tenants,
        steps: vec![],
        step_ids: vec![],
        meters: Meters { groups, fields: 0 },
        sampling: Sampling::default(),
        selection: crate::select::Selection::default(),
        labels: crate::labels::Labels::default(),
    }
}

struct Run {
    rules: Arc<Rules>,
    worker: Worker,
    /// What frames would carry.
    journal: Vec<u8>,
    position: u64,
    billed: i128,
}

impl Run {
    fn new(change: impl Fn(&mut Dedup)) -> Run {
        let tenants = Arc::new(Tenants::new("unassigned", 100));
        let mut step = dedup(&tenants);
        change(&mut step);
        let meter =
            Meter { name: "requests".into(), unit: "Records".into(), quantity: None, parts: vec![], wholes: vec![], lineage: false };
        let group = Group { dims: vec![], when: None, when_text: None, events: None, meters: vec![meter] };
        let mut rules = rules(tenants, vec![group]);
        (rules.steps, rules.step_ids) = (vec![Step::Dedup(Box::new(step))], vec![5]);
        let rules = Arc::new(rules);
        Run { worker: Worker::new(Arc::clone(&rules)), rules, journal: vec![], position: 0, billed: 0 }
    }

    /// One line in a batch of its own: `kept`, `conflict`, or the reason, with the place of the first one.
    fn see(&mut self, line: &str) -> String {
        self.position += line.len() as u64 + 1;
        self.see_at(line, self.position)
    }

    fn see_at(&mut self, line: &str, position: u64) -> String {
        let mut batch = Batch { arena: line.as_bytes().to_vec(), stream: StreamId(77), ..Batch::default() };
        batch.push(0, line.len(), position, line.len(), 0);
        let mut sums = Sums::default();
        self.worker.process(&mut batch, Reading { json: true, drop_malformed: false }, UnixNanos(0), &mut sums);
        self.billed += sums.iter().map(|sum| sum.quantities[0].total).sum::<i128>();
        self.journal.extend(batch.changes.iter().flat_map(|(_, entry)| entry));
        assert!(batch.changes.iter().all(|(step, _)| *step == 5));
        let first = batch.copies.first().map(|copy| {
            assert_eq!((copy.0, copy.1), (0, StreamId(77)));
            format!(" of {}", copy.2)
        });
        let what = match batch.outcome[0] {
            Outcome::Kept if batch.notes[0] & Note::Conflict.bit() != 0 => "conflict",
            Outcome::Kept => "kept",
            Outcome::Dropped(reason) => reason.name(),
            Outcome::Created => "created",
        };
        what.to_string() + &first.unwrap_or_default()
    }

    /// A crash: a new process with the state that the journal gives.
    fn restart(&mut self, change: impl Fn(&mut Dedup)) {
        let next = Run::new(change);
        next.rules.steps[0].restore(&self.journal);
        (self.rules, self.worker) = (next.rules, next.worker);
    }
}

fn run() -> Run {
    Run::new(|_| {})
}

#[test]
fn eb_10_6_a_trace_id_names_a_request_and_the_first_wins() {
    let mut run = run();
    assert_eq!(run.see(r#"{"ts":1700000000,"trace_id":"a","method":"POST","path":"/x"}"#), "kept");
    assert_eq!(run.see(r#"{"ts":1700000009,"trace_id":"a","method":"POST","path":"/x","took":5}"#), "duplicate of 61");
    assert_eq!(run.see(r#"{"ts":1700000009,"trace_id":"b","method":"POST","path":"/x"}"#), "kept");
    assert_eq!(run.see(r#"{"ts":1700000009,"trace_id":"a","method":"POST","path":"/x","tenant":"other"}"#), "kept", "another tenant's");
    assert_eq!(run.see(r#"{"ts":1700000009,"trace_id":"\u0061","method":"POST","path":"/x"}"#), "duplicate of 61");
    assert_eq!(run.billed, 3);
}

#[test]
fn eb_10_6_post_twice_with_a_shadow_host_is_one_effect() {
    for change in [|_: &mut Dedup| {}, |dedup: &mut Dedup| dedup.honest_repeats = true] {
        let mut run = Run::new(change);
        let line = |host: &str| format!(r#"{{"ts":1700000000,"method":"POST","path":"/pay","body_hash":"b","host":"{host}"}}"#);
        assert_eq!(run.see(&line("pay")), "kept");
        assert!(run.see(&line("pay-shadow")).starts_with("duplicate of "));
        assert_eq!(run.see(&line("other")), "kept");
        assert_eq!(run.see(&line("Pay.prod.svc:8080")), "kept");
        assert!(run.see(&line("pay-Shadow.prod.svc:8080")).starts_with("duplicate"));
        assert_eq!(run.see(&line("-shadow")), "kept", "nothing but the suffix is a host's own name");
        assert_eq!(run.billed, 4);
    }
}

#[test]
fn eb_10_6_a_marker_names_a_mirrored_copy() {
    let mut run = Run::new(|dedup| dedup.honest_repeats = true);
    let line = |more: &str| format!(r#"{{"ts":1700000000,"method":"POST","path":"/pay"{more}}}"#);
    assert_eq!(run.see(&line("")), "kept");
    assert_eq!(run.see(&line(r#","mirrored":false"#)), "kept", "an honest repeat");
    assert!(run.see(&line(r#","mirrored":true"#)).starts_with("duplicate"));
    assert!(run.see(&line(r#","mirrored":"1""#)).starts_with("duplicate"));
}

#[test]
fn eb_10_6_two_honest_posts_with_their_own_idempotency_keys_are_two() {
    let mut run = run();
    let line = |key: &str| format!(r#"{{"ts":1700000000,"method":"POST","path":"/pay","body_hash":"b","idempotency_key":"{key}"}}"#);
    assert_eq!(run.see(&line("k1")), "kept");
    assert_eq!(run.see(&line("k2")), "kept");
    assert!(run.see(&line("k1")).starts_with("duplicate"));
    assert_eq!(run.see(r#"{"ts":1700000000,"method":"POST","path":"/pay","body_hash":"b"}"#), "kept", "none is not one");
}

#[test]
fn eb_10_6_a_path_is_the_same_however_it_is_spelled() {
    let mut run = run();
    let line = |path: &str| format!(r#"{{"ts":1700000000,"method":"GET","path":"{path}"}}"#);
    assert_eq!(run.see(&line("/a/b?x=1&y=2")), "kept");
    for same in ["/a/b?y=2&x=1", "/a/./c/../b?x=1&y=2", "/%61/b?x=1&&y=2#there", "https://h.example/a/b?x=1&y=2"] {
        assert!(run.see(&line(same)).starts_with("duplicate"), "{same}");
    }
    for other in ["/a/b?x=2&y=1", "/a/B?x=1&y=2", "/a/b", "/a/b/?x=1&y=2", "/a%2Fb?x=1&y=2", "/a/b?x=1&y=2&x=1"] {
        assert_eq!(run.see(&line(other)), "kept", "{other}");
    }
    assert!(run.see(&line("/a%2fb?x=1&y=2")).starts_with("duplicate"), "hexadecimal digits have no case");
}

#[test]
fn eb_10_6_the_edge_of_a_bucket_does_not_part_copies() {
    let mut run = run();
    let line = |second: i64| format!(r#"{{"ts":{second},"trace_id":"a"}}"#);
    // Buckets of ten minutes end at multiples of 600.
    assert_eq!(run.see(&line(1_700_000_399)), "kept");
    assert!(run.see(&line(1_700_000_401)).starts_with("duplicate"), "the next bucket");
    assert!(run.see(&line(1_700_000_999)).starts_with("duplicate"), "the window's last second");
    assert_eq!(run.see(&line(1_700_001_000)), "kept", "the window is over");
    assert!(run.see(&line(1_700_000_400)).starts_with("duplicate"), "late records look forward too");
    for odd in [5_000_000, 4_000_000_000] {
        assert_eq!(run.see(&line(odd)), "kept", "a clock that jumped: {odd}");
    }
}

#[test]
fn eb_10_6_it_survives_a_restart_and_a_replayed_record_is_not_its_own_copy() {
    let mut run = run();
    let line = |id: &str| format!(r#"{{"ts":1700000000,"trace_id":"{id}"}}"#);
    assert_eq!(run.see_at(&line("a"), 100), "kept");
    let durable = run.journal.clone();
    assert_eq!(run.see_at(&line("b"), 200), "kept");
    assert_eq!(run.see_at(&line("a"), 300), "duplicate of 100");
    // The frame of `b` and of the copy never became durable: both are decided anew, alike.
    run.journal = durable;
    run.restart(|_| {});
    assert_eq!(run.see_at(&line("b"), 200), "kept");
    assert_eq!(run.see_at(&line("a"), 300), "duplicate of 100");
    // Even if state is ahead of the position.
    run.restart(|_| {});
    assert_eq!(run.see_at(&line("b"), 200), "kept");
    assert_eq!(run.see_at(&line("b"), 400), "duplicate of 200");
}

#[test]
fn the_same_billing_id_three_times_is_counted_once_and_the_conflict_told() {
    let with = |drop: bool| {
        move |dedup: &mut Dedup| {
            dedup.content = Some(vec![field("amount")]);
            dedup.drop_conflicts = drop;
        }
    };
    for (drop, want) in [(false, "conflict of 46"), (true, "conflict of 46")] {
        let mut run = Run::new(with(drop));
        let line = |amount: u32| format!(r#"{{"ts":1700000000,"trace_id":"e1","amount":{amount}}}"#);
        assert_eq!(run.see(&line(10)), "kept");
        assert_eq!(run.see(&line(10)), "duplicate of 46");
        assert_eq!(run.see(&line(11)), want);
        assert_eq!(run.billed, 1, "counted once");
    }
}

#[test]
fn a_record_without_names_is_all_it_says_in_any_order() {
    let mut run = run();
    assert_eq!(run.see(r#"{"ts":1700000000,"level":"info","msg":"x"}"#), "kept");
    assert!(run.see(r#"{"msg":"x", "ts":1700000000,"level":"info"}"#).starts_with("duplicate"));
    assert!(run.see(r#"{"msg":"x","ts":1700000000,"level":"info","mirrored":true}"#).starts_with("duplicate"));
    assert_eq!(run.see(r#"{"ts":1700000001,"level":"info","msg":"x"}"#), "kept", "another time");
    assert_eq!(run.see(r#"{"ts":1700000000,"level":"info","msg":"xy"}"#), "kept");
    for nameless in [r#"{"level":"info","msg":"x"}"#, "no json at all", ""] {
        assert_eq!(run.see(nameless), "kept");
        assert_eq!(run.see(nameless), "kept", "without a time of its own it is never a copy");
    }
}

#[test]
fn metered_anyway_counts_what_is_dropped() {
    let mut run = Run::new(|dedup| dedup.metered_anyway = true);
    assert_eq!(run.see(r#"{"ts":1700000000,"trace_id":"a"}"#), "kept");
    assert!(run.see(r#"{"ts":1700000000,"trace_id":"a"}"#).starts_with("duplicate"));
    assert_eq!(run.billed, 2, "metered: anyway");
}

/// `cargo test --release -p flow -- --ignored --nocapture ten_million`
#[test]
#[ignore = "measures: 10 million requests, about 0.5 GiB"]
fn ten_million_requests() {
    const BATCH: u64 = 5_000;
    let keys = 10_000_000u64;
    let tenants = Arc::new(Tenants::new("unassigned", 100));
    let mut step = dedup(&tenants);
    step.seen = Arc::new(Seen::new(keys as usize));
    let mut worker = Worker::new(Arc::new(rules(tenants, vec![])));
    let cpu_ns = || -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
        text.split(' ').next().expect("it comes first").parse().expect("a number")
    };
    for (what, from) in [("new, growing", 0), ("new, each forgets one", keys)] {
        let (mut spent, mut changes) = (0, 0);
        for first in (from..from + keys).step_by(BATCH as usize) {
            let mut batch = Batch { stream: StreamId(77), ..Batch::default() };
            for n in first..first + BATCH {
                let id = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let start = batch.arena.len();
                let line = format!(
                    "{{\"ts\":\"2026-11-23T03:00:00.000Z\",\"level\":\"info\",\"tenant\":\"t{}\",\"trace_id\":\"{id:016x}\",\"msg\":\"request completed\",\"method\":\"POST\",\"path\":\"/v1/chat\"}}",
                    n % 7
                );
                batch.arena.extend_from_slice(line.as_bytes());
                batch.push(start, line.len(), n * 160 + 1, line.len(), 0);
            }
            worker.process(&mut batch, Reading { json: true, drop_malformed: false }, UnixNanos(0), &mut Sums::default());
            let before = cpu_ns();
            step.apply(&mut batch, UnixNanos(0));
            spent += cpu_ns() - before;
            changes += batch.changes.len();
        }
        println!("{what}: {:.2} M records per CPU second, {changes} changes of state", keys as f64 / spent as f64 * 1e3);
    }
}
