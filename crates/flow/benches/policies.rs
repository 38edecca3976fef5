//! What one step costs a record: the rest of the pipeline with it and without it, batch by batch, in one process.
//!
//!   cargo bench -p flow --bench policies [-- NAME]
//!
//! Two lanes share the rules, 1,000 tenants send records of about 500 bytes. Every batch is decided by both plans, one after
//! the other, so that a busy machine slows both; the figure is the median of the differences, and beside it what the
//! step writes into frames. The same fields are found in both. Nothing is asserted here: tests do that.

use flow::batch::Batch;
use flow::condition::Condition;
use flow::counter::{Counters, Window};
use flow::decode::{Decoder, End, Format, Limits};
use flow::event::Outcome;
use flow::fields::FieldSet;
use flow::labels::Labels;
use flow::meter::{Meters, Sums};
use flow::pipeline::{Reading, Rules, Sampling, Worker};
use flow::select::Selection;
use flow::step::quota::{Limit, Over, Period, Unit};
use flow::step::rates::{Method, Rates};
use flow::step::redact::Action;
use flow::step::sample::{Counting, Key, Policy};
use flow::step::seen::Seen;
use flow::step::threshold::Threshold;
use flow::step::{Dedup, Filter, Mirror, Quota, Redact, Request, Sample, Step};
use flow::tenancy::Tenants;
use flow::units::{NANOS_PER_SECOND, UnixNanos};
use std::fmt::Write;
use std::sync::{Arc, Barrier};
use std::time::Instant;

const LANES: usize = 2;
const TENANTS: u64 = 1_000;
/// Of each lane; a frame closes after every fourth.
const BATCHES: usize = 240;
const BATCH_BYTES: usize = 256 << 10;
const FIELDS: [&str; 10] = ["ts", "level", "tenant", "msg", "service", "request_id", "status", "sample_rate", "sampler", "model"];

fn field(name: &str) -> usize {
    FIELDS.iter().position(|f| *f == name).expect("the bench names known fields")
}

struct Random(u64);

impl Random {
    /// SplitMix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Lines of a batch; half of them come from a few large tenants.
fn lines(random: &mut Random, time_ns: &mut i64) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < BATCH_BYTES {
        *time_ns += 50_000;
        let level = ["debug", "debug", "info", "info", "info", "info", "info", "info", "info", "warn"][random.below(10) as usize];
        let tenant = if random.below(2) == 0 { random.below(TENANTS) } else { random.below(12) * random.below(12) };
        let (a, b, x) = (random.below(128), random.below(4096), random.below(1 << 32));
        let msg = match random.below(5) {
            0 => "request completed".to_string(),
            1 => format!("generated {a} tokens in {b} ms ({a} tok/s), first token after {a} ms"),
            2 => format!("request admitted to batch {x:08x} position {a} of {b}, estimated wait {a} ms"),
            3 => format!(r#"tool call \"search_documents\" returned {a} results in {b} ms"#),
            _ => format!("response cached under key {x:08x} for {b} s; policy=tenant-default, tier={a}"),
        };
        let service = random.below(32);
        let written = writeln!(
            text,
            r#"{{"ts":"{}","level":"{level}","tenant":"tenant-{tenant:04}","service":"chat-70b-{service}","model":"orca-70b-it","pod":"chat-70b-{service}-bcdfghjklm-{a}","node":"gpu-h100-{a:03}","region":"us-east-1","request_id":"req_{:012x}0","trace_id":"{:016x}{:016x}","span_id":"{:016x}","method":"POST","status":200,"latency_ms":{b}.125,"tokens_in":{b},"tokens_cached":{a},"tokens_out":{a},"gpu_ms":{b}.25,"msg":"{msg}"}}"#,
            UnixNanos(*time_ns).rfc3339(),
            random.below(1 << 48),
            random.below(u64::MAX),
            random.below(u64::MAX),
            random.below(u64::MAX),
        );
        written.expect("a string takes what is written");
    }
    text.into_bytes()
}

fn rules(steps: impl FnOnce(&Arc<Tenants>) -> Vec<Step>) -> Arc<Rules> {
    let tenants = Arc::new(Tenants::new("unassigned", 10_000));
    let steps = steps(&tenants);
    Arc::new(Rules {
        fields: Arc::new(FieldSet::new(&FIELDS)),
        time: vec![field("ts").into()],
        level: vec![field("level").into()],
        tenant: vec![field("tenant")],
        step_ids: (0..steps.len() as u32).map(|n| n + 100).collect(),
        steps,
        tenants,
        meters: Meters::default(),
        sampling: Sampling { rate: Some(field("sample_rate")), sampler: Some(field("sampler")), ..Sampling::default() },
        selection: Selection::default(),
        labels: Labels::default(),
    })
}

/// The same policy for debug, info and warn.
fn sample(policy: impl Fn(usize) -> Policy) -> Step {
    let policies = std::array::from_fn(|level| if matches!(level, 2..=4) { policy(level) } else { Policy::All });
    let (name, message) = ("bench".into(), vec![field("msg")]);
    Step::Sample(Box::new(Sample { name, policies, message, by_arrival: false, counters: Arc::new(Counters::new()) }))
}

fn counter(first: u64, thereafter: u64, by: &[&str], exact: usize, per_tenant: bool) -> Step {
    let window = Window { first, thereafter, tick_ns: NANOS_PER_SECOND };
    let key = || Key { fields: by.iter().map(|f| field(f)).collect(), per_tenant };
    sample(|level| Policy::Counter(Counting::new(window, key(), exact, level)))
}

fn rates(method: Method, by: &[&str], per_tenant: bool) -> Step {
    let key = || Key { fields: by.iter().map(|f| field(f)).collect(), per_tenant };
    sample(|_| Policy::Rates(Arc::new(Rates::new(method, NANOS_PER_SECOND, 50_000)), key()))
}

fn reservoir(size: u32, per_tenant: bool) -> Step {
    let key = || Key { fields: Vec::new(), per_tenant };
    sample(|_| Policy::Threshold(Arc::new(Threshold::new(size, NANOS_PER_SECOND, false)), key()))
}

fn quota(limits: &[(Unit, Period, i128)], by: Option<&str>) -> Step {
    let limits = limits.iter().map(|(unit, period, amount)| Limit { unit: *unit, period: *period, amount: *amount, full: *amount });
    Step::Quota(Box::new(Quota::new("quota".into(), limits.collect(), by.map(field), Over::Drop, false, 100_000)))
}

fn dedup(tenants: &Arc<Tenants>) -> Step {
    Step::Dedup(Box::new(Dedup {
        id: 100,
        key: vec![field("request_id")],
        request: Request::default(),
        content: None,
        window_ns: 600 * NANOS_PER_SECOND,
        by_arrival: false,
        mirror: Mirror::default(),
        honest_repeats: true,
        drop_conflicts: false,
        metered_anyway: false,
        tenants: Arc::clone(tenants),
        seen: Arc::new(Seen::new(1_000_000)),
    }))
}

fn filter(text: &str, drops: bool) -> Step {
    let when = Condition::parse(text, &mut field).expect("a good condition");
    Step::Filter(Filter { when, drops, metered_anyway: false })
}

const PATTERNS: [&str; 10] = [
    r"\bsecret-[0-9a-f]{16}\b",
    r"password=\S+",
    r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b",
    r"\b\d{3}-\d{2}-\d{4}\b",
    r"(?i)api[_-]?key[=:]\s*[A-Za-z0-9]{16,}",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\bxox[abprs]-[0-9A-Za-z-]{10,}\b",
    r"\+\d{2} ?\(?\d{3}\)?[ -]?\d{3}[ -]?\d{4}",
    r"mongodb(?:\+srv)?://[^:]+:[^@]+@",
];

fn redact() -> Step {
    let patterns: Vec<String> = PATTERNS.iter().map(|p| p.to_string()).collect();
    Step::Redact(Box::new(Redact::new(Vec::new(), &patterns, &[], Action::Mask(b"***".to_vec())).expect("good patterns")))
}

type Plan = (&'static str, Box<dyn Fn(&Arc<Tenants>) -> Vec<Step>>);

fn plans() -> Vec<Plan> {
    const MUCH: u64 = 1 << 40;
    const PLENTY: i128 = 1 << 40;
    let one = |name: &'static str, step: fn() -> Step| -> Plan { (name, Box::new(move |_: &Arc<Tenants>| vec![step()])) };
    use Period::{Day, Second};
    use Unit::{Bytes, Records};
    vec![
        one("counter keep", || counter(MUCH, 0, &[], 0, false)),
        one("counter 100/100", || counter(100, 100, &[], 0, false)),
        one("counter 5/100", || counter(5, 100, &[], 0, false)),
        one("exact msg+tenant keep", || counter(MUCH, 0, &[], 100_000, true)),
        one("exact service+tenant keep", || counter(MUCH, 0, &["service"], 100_000, true)),
        one("exact service+tenant 1/100", || counter(1, 100, &["service"], 100_000, true)),
        one("throughput service keep", || rates(Method::Throughput(1_000_000_000), &["service"], false)),
        one("throughput service 2000", || rates(Method::Throughput(2_000), &["service"], false)),
        one("ema service+status 1", || rates(Method::Ema(1), &["service", "status"], false)),
        one("ema service+status 10", || rates(Method::Ema(10), &["service", "status"], false)),
        one("ratio 0.999 request_id", || sample(|_| Policy::ratio(0.999_999, Some(field("request_id"))))),
        one("ratio 0.1 request_id", || sample(|_| Policy::ratio(0.1, Some(field("request_id"))))),
        one("ratio 0.3 request_id", || sample(|_| Policy::ratio(0.3, Some(field("request_id"))))),
        one("ratio 0.5 whole record", || sample(|_| Policy::ratio(0.5, None))),
        one("reservoir keep", || reservoir(u32::MAX, false)),
        one("reservoir 1000", || reservoir(1_000, false)),
        one("reservoir tenant keep", || reservoir(u32::MAX, true)),
        one("quota tenant keep", || quota(&[(Records, Second, PLENTY), (Bytes, Day, PLENTY)], None)),
        one("quota tenant 4 limits keep", || {
            quota(&[(Records, Second, PLENTY), (Bytes, Second, PLENTY), (Records, Day, PLENTY), (Bytes, Day, PLENTY)], None)
        }),
        one("quota tenant 4/s", || quota(&[(Records, Second, 4), (Bytes, Day, PLENTY)], None)),
        one("quota service keep", || quota(&[(Records, Second, PLENTY), (Bytes, Day, PLENTY)], Some("service"))),
        ("dedup request_id", Box::new(|tenants| vec![dedup(tenants)])),
        one("drop condition", || filter(r#"level == "debug" && service == "nobody""#, true)),
        one("drop condition 2", || filter(r#"msg.contains("zzz") || status >= 500"#, true)),
        one("drop debug", || filter(r#"level == "debug""#, true)),
        one("redact 10 patterns", redact),
        (
            "two: counter, quota keep",
            Box::new(|_| vec![counter(MUCH, 0, &[], 0, false), quota(&[(Records, Second, PLENTY), (Bytes, Day, PLENTY)], None)]),
        ),
    ]
}

/// Nanoseconds of each batch and of each frame's end, by plan, of one lane; records kept by the second plan.
struct Times {
    batches: [Vec<f64>; 2],
    frames: [Vec<f64>; 2],
    records: usize,
    kept: usize,
    state_bytes: usize,
}

fn lane(lane: usize, plans: [&Arc<Rules>; 2], input: &[Vec<u8>], start: &Barrier) -> Times {
    let mut workers = plans.map(|rules| Worker::of_lane(Arc::clone(rules), lane, LANES, false));
    let mut sums: [Sums; 2] = Default::default();
    let mut batch = Batch::default();
    let limits = Limits { line_bytes_max: 1 << 20, join_bytes_max: 1 << 20, join_age_ns: 0 };
    let mut rows = Vec::with_capacity(BATCH_BYTES * 2);
    let mut times = Times { batches: Default::default(), frames: Default::default(), records: 0, kept: 0, state_bytes: 0 };
    start.wait();
    for (n, text) in input.iter().enumerate() {
        for turn in 0..2 {
            let plan = (turn + n) % 2;
            batch.clear_records();
            batch.arena.clear();
            batch.arena.extend_from_slice(text);
            Decoder::new(Format::Json, limits).decode(&mut batch, (n * BATCH_BYTES * 2) as u64, End::Log, UnixNanos(0));
            let now = UnixNanos(i64::MAX / 2);
            let at = Instant::now();
            workers[plan].process(&mut batch, Reading { json: true, drop_malformed: false }, now, &mut sums[plan]);
            times.batches[plan].push(at.elapsed().as_nanos() as f64);
            // What a frame does: the caches are as they are there.
            rows.clear();
            for i in (0..batch.len()).filter(|i| batch.outcome[*i] == Outcome::Kept) {
                rows.extend_from_slice(batch.record(i));
                times.kept += plan;
            }
            times.records += batch.len() * plan;
            if n % 4 == 3 {
                let mut changes = Vec::new();
                let at = Instant::now();
                let closing = workers[plan].close(now, false);
                plans[plan].steps.iter().for_each(|step| step.take_changes(&mut changes));
                times.frames[plan].push(at.elapsed().as_nanos() as f64);
                times.state_bytes += plan * (changes.len() + closing.changes.iter().map(|c| c.1.len()).sum::<usize>());
            }
            times.state_bytes += plan * batch.changes.len() * 32;
        }
    }
    times
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let inputs: Vec<Vec<Vec<u8>>> = (0..LANES as u64)
        .map(|lane| {
            let (mut random, mut time) = (Random(lane), 1_795_132_800 * NANOS_PER_SECOND);
            (0..BATCHES).map(|_| lines(&mut random, &mut time)).collect()
        })
        .collect();
    println!("{:<30} {:>10} {:>10} {:>10} {:>8} {:>12}", "step", "base ns", "batch ns", "frame ns", "kept %", "state B/rec");
    for (name, steps) in plans() {
        if !only.is_empty() && !only.iter().any(|only| name.contains(only.as_str())) {
            continue;
        }
        let never = || {
            filter(r#"has(sample_rate) && has(sampler) && has(model) && has(msg) && has(request_id) && has(service) && has(status)"#, true)
        };
        let base = rules(|_| vec![never()]);
        let other = rules(|tenants| std::iter::once(never()).chain(steps(tenants)).collect());
        let start = Barrier::new(LANES);
        let times: Vec<Times> = std::thread::scope(|scope| {
            let lanes: Vec<_> = inputs
                .iter()
                .enumerate()
                .map(|(n, input)| (n, input, &start, [&base, &other]))
                .map(|(n, input, start, plans)| scope.spawn(move || lane(n, plans, input, start)))
                .collect();
            lanes.into_iter().map(|lane| lane.join().expect("a lane ends")).collect()
        });
        let per_batch = times[0].records as f64 / BATCHES as f64;
        let apart = |of: fn(&Times) -> &[Vec<f64>; 2]| {
            median(times.iter().flat_map(|t| of(t)[1].iter().zip(&of(t)[0]).map(|(b, a)| b - a)).skip(4).collect())
        };
        let base_ns = median(times.iter().flat_map(|t| t.batches[0].iter().copied()).collect()) / per_batch;
        let records: usize = times.iter().map(|t| t.records).sum();
        let (kept, state): (usize, usize) = times.iter().fold((0, 0), |(k, s), t| (k + t.kept, s + t.state_bytes));
        println!(
            "{name:<30} {base_ns:>10.1} {:>10.1} {:>10.1} {:>8.1} {:>12.1}",
            apart(|t| &t.batches) / per_batch,
            apart(|t| &t.frames) / per_batch / 4.0,
            kept as f64 * 100.0 / records as f64,
            state as f64 / records as f64,
        );
    }
}
