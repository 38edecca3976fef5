//! What meters make of a record: sums, facts one by one, and what is refused, each shown as a line; and that chunks do not show in it.

use super::*;
use crate::decode::{Decoder, End, Format, Limits};
use crate::fields::FieldSet;
use crate::pipeline::{Reading, Rules, Sampling, Worker};
use crate::tenancy::Tenants;
use std::sync::Arc;

const FIELDS: [&str; 12] = ["ts", "tenant", "model", "id", "seg", "tokens_in", "tokens_cached", "start", "end", "held_ms", "level", "gpus"];

fn field(name: &str) -> usize {
    FIELDS.iter().position(|f| *f == name).unwrap_or_else(|| panic!("no field {name}"))
}

fn meter(name: &str, quantity: Option<&str>, parts: &[&str], wholes: &[&str]) -> Meter {
    let numbers = |names: &[&str]| names.iter().map(|n| field(n)).collect();
    Meter {
        name: name.into(),
        unit: "Tokens".into(),
        quantity: quantity.map(field),
        parts: numbers(parts),
        wholes: numbers(wholes),
        lineage: false,
    }
}

fn tokens() -> Vec<Meter> {
    vec![
        meter("in", Some("tokens_in"), &["tokens_cached"], &[]),
        meter("cached", Some("tokens_cached"), &[], &["tokens_in"]),
        meter("requests", None, &[], &[]),
    ]
}

fn group(events: Option<Events>, meters: Vec<Meter>) -> Group {
    Group { dims: vec![("model".into(), field("model"))], when: None, when_text: None, events, meters }
}

fn keyed(kind: EventKind, key: &[&str], times: Times) -> Option<Events> {
    Some(Events { kind, key: key.iter().map(|k| field(k)).collect(), times })
}

fn interval(start: Option<&str>, end: Option<&str>, duration: Option<&str>) -> Option<Events> {
    let duration = duration.map(|name| (field(name), DurationUnit::of_field(name).unwrap()));
    keyed(EventKind::Interval, &["id"], Times { start: start.map(field), end: end.map(field), duration })
}

fn by_id() -> Option<Events> {
    keyed(EventKind::Point, &["id"], Times::default())
}

const RECEIPT: &str = "2026-10-02T12:00:00Z";

fn nanos(text: &str) -> UnixNanos {
    crate::time::TimeParser::new().parse(text.as_bytes(), Kind::Text).expect(text)
}

/// Meters the lines in pieces of `piece` bytes. Returns each fact as a line, sums first, and the names of all notes but that of arrival.
fn run(groups: Vec<Group>, lines: &str, piece: usize) -> (Vec<String>, Vec<&'static str>) {
    let fields = (1 << FIELDS.len()) - 1;
    let tenants = Arc::new(Tenants::new("unknown", 100));
    let rules = Arc::new(Rules {
        fields: Arc::new(FieldSet::new(&FIELDS)),
        time: vec![field("ts").into()],
        level: vec![field("level").into()],
        tenant: vec![field("tenant")],
        tenants: Arc::clone(&tenants),
        step_ids: vec![],
        steps: vec![],
        meters: Meters { groups, fields },
        sampling: Sampling::default(),
        selection: crate::select::Selection::default(),
        labels: crate::labels::Labels::default(),
    });
    let mut worker = Worker::new(Arc::clone(&rules));
    let mut decoder = Decoder::new(Format::Json, Limits { line_bytes_max: 1 << 20, join_bytes_max: 1 << 20, join_age_ns: 0 });
    let (mut sums, mut notes, mut from) = (Sums::default(), Vec::new(), 0);
    let mut rest = Vec::new();
    let pieces: Vec<&[u8]> = lines.as_bytes().chunks(piece).collect();
    for (n, bytes) in pieces.iter().enumerate() {
        rest.extend_from_slice(bytes);
        let receipt = Some(nanos(RECEIPT));
        let mut batch = Batch { arena: rest.clone(), receipt, arrival: nanos(RECEIPT), ..Batch::default() };
        let end = if n + 1 == pieces.len() { End::Log } else { End::Open };
        let used = decoder.decode(&mut batch, from, end, nanos(RECEIPT));
        from += used as u64;
        rest.drain(..used);
        worker.process(&mut batch, Reading { json: true, drop_malformed: false }, nanos(RECEIPT), &mut sums);
        for bits in &batch.notes {
            notes.extend(Note::ALL.into_iter().filter(|n| bits & n.bit() != 0 && *n != Note::ArrivalTime).map(Note::name));
        }
    }
    (facts(&rules, &sums), notes)
}

fn facts(rules: &Rules, sums: &Sums) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\x1f', "|");
    let rows: Vec<ClosedSum<'_>> = sums.iter().collect();
    let about = |row: &ClosedSum<'_>, meter: usize| {
        let name = &rules.meters.groups[row.group].meters[meter].name;
        format!("{name} of {} {}", text(&rules.tenants.name(row.tenant)), text(row.dims[0]))
    };
    let mut lines = Vec::new();
    for row in &rows {
        for (n, quantity) in row.quantities.iter().enumerate().filter(|(_, q)| q.events > 0) {
            lines.push(format!("{}: {} in {}", about(row, n), quantity.total, quantity.events));
        }
    }
    for event in sums.events() {
        let row = &rows[event.row];
        assert_eq!(row.minute, event.at.minute(), "the minute is that of the event");
        let end = if event.end == event.at { String::new() } else { format!(" to {}", event.end.rfc3339()) };
        let more = if event.events == 1 { String::new() } else { format!(" in {}", event.events) };
        let (name, kind, at, key) = (about(row, event.meter), event.kind.name(), event.at.rfc3339(), text(event.key));
        lines.push(format!("{name}: {kind} {} at {at}{end} key `{key}`{more}", event.quantity));
    }
    lines
}

#[track_caller]
fn check(groups: Vec<Group>, lines: &str, want: &[&str], notes: &[&str]) {
    let (got, got_notes) = run(groups, lines, usize::MAX);
    assert_eq!(got, want, "{lines}");
    assert_eq!(got_notes, notes, "{lines}");
}

const HEAD: &str = r#""ts":"2026-10-02T10:00:00.5Z","tenant":"acme","model":"orca""#;

#[track_caller]
fn check_one(events: Option<Events>, meters: Vec<Meter>, rest: &str, want: &[&str], notes: &[&str]) {
    check(vec![group(events, meters)], &format!("{{{HEAD},{rest}}}\n"), want, notes);
}

fn tokens_in() -> Vec<Meter> {
    vec![meter("in", Some("tokens_in"), &[], &[])]
}

#[test]
fn a_meter_with_a_key_gives_one_fact_per_record() {
    let line = |rest: &str| format!("{{{HEAD},{rest}}}\n");
    let lines = [line(r#""id":"a","tokens_in":5"#), line(r#""id":"a","tokens_in":5"#), line(r#""id":7,"tokens_in":0"#)].concat();
    check(
        vec![group(by_id(), tokens_in())],
        &lines,
        &[
            "in of acme orca: point 5 at 2026-10-02T10:00:00.500Z key `a`",
            "in of acme orca: point 5 at 2026-10-02T10:00:00.500Z key `a`",
            "in of acme orca: point 0 at 2026-10-02T10:00:00.500Z key `7`",
        ],
        &[],
    );
}

#[test]
fn values_of_a_key_are_joined_and_a_key_without_any_is_noted() {
    let of = |rest: &str, key: &str, notes: &[&str]| {
        let want = format!("in of acme orca: point 5 at 2026-10-02T10:00:00.500Z key `{key}`");
        let events = keyed(EventKind::Point, &["id", "seg"], Times::default());
        check_one(events, tokens_in(), &format!("{rest}\"tokens_in\":5"), &[&want], notes);
    };
    of(r#""id":"a","seg":2,"#, "a|2", &[]);
    of(r#""id":"a\"b","seg":null,"#, "a\"b|", &[]);
    of(r#""seg":"z","#, "|z", &[]);
    of(r#""id":"","seg":null,"#, "", &["no_key"]);
    of("", "", &["no_key"]);
    // A separator in a value, and a value that is too long: hashed, so that no two keys are mixed up.
    let hash = |values: &[&str]| {
        let mut hash = sha2::Sha256::default();
        for value in values {
            sha2::Digest::update(&mut hash, (value.len() as u64).to_le_bytes());
            sha2::Digest::update(&mut hash, value);
        }
        sha2::Digest::finalize(hash).iter().take(16).map(|b| format!("{b:02x}")).collect::<String>()
    };
    of(r#""id":"a\u001fb","seg":"c","#, &format!("a|b|c{}", hash(&["a\u{1f}b", "c"])), &[]);
    of(r#""id":"a","seg":"b\u001fc","#, &format!("a|b|c{}", hash(&["a", "b\u{1f}c"])), &[]);
    let long = format!("{}ä{}", "x".repeat(479), "y".repeat(60));
    of(&format!("\"id\":\"{long}\","), &format!("{}{}", "x".repeat(479), hash(&[&long, ""])), &[]);
    let fits = "x".repeat(KEY_BYTES_MAX - 1);
    of(&format!("\"id\":\"{fits}\","), &format!("{fits}|"), &[]);
}

#[test]
fn an_interval_is_read_from_whatever_says_it() {
    let gpu = || vec![meter("gpu", None, &[], &[])];
    let want = |range: &str| format!("gpu of acme orca: interval 1 at {range} key `a`");
    let of =
        |events: Option<Events>, rest: &str, range: &str| check_one(events, gpu(), &format!("{rest},\"id\":\"a\""), &[&want(range)], &[]);
    let span = "2026-10-02T09:50:00Z to 2026-10-02T10:20:30Z";
    let both = || interval(Some("start"), Some("end"), None);
    of(both(), r#""start":"2026-10-02T09:50:00Z","end":"2026-10-02T12:20:30+02:00""#, span);
    of(both(), r#""start":1790934600,"end":1790936430.0"#, span);
    of(both(), r#""start":"1790934600000","end":1790936430000000"#, span);
    of(both(), r#""start":1790934600000000000,"end":"2026-10-02 10:20:30""#, span);
    of(interval(Some("start"), None, Some("held_ms")), r#""start":1790934600,"held_ms":1830000"#, span);
    of(interval(None, Some("end"), Some("held_ms")), r#""end":1790936430,"held_ms":1830000.0"#, span);
    of(interval(None, None, Some("held_ms")), r#""held_ms":500"#, "2026-10-02T10:00:00Z to 2026-10-02T10:00:00.500Z");
    of(interval(Some("start"), None, None), r#""start":"2026-10-02T09:00:00Z""#, "2026-10-02T09:00:00Z to 2026-10-02T10:00:00.500Z");
    of(both(), r#""start":1790934600,"end":1790934600"#, "2026-10-02T09:50:00Z");
    check_one(both(), gpu(), r#""id":"a","start":1790934600"#, &[], &[]);
    check_one(both(), gpu(), r#""id":"a","start":1790934600,"end":null"#, &[], &[]);
    let held = vec![meter("gpu", Some("gpus"), &[], &[])];
    let want = "gpu of acme orca: interval 8 at 2026-10-02T09:50:00Z to 2026-10-02T10:20:30Z key ``";
    check_one(both(), held, r#""start":1790934600,"end":1790936430,"gpus":8"#, &[want], &["no_key"]);
}

#[test]
fn an_interval_that_cannot_be_is_refused_and_says_why() {
    let of = |events: Option<Events>, rest: &str, kind: &str| {
        let want = format!("gpu of acme orca: {kind}");
        let notes: &[&str] = if kind.starts_with("future") { &["future"] } else { &["bad_quantity"] };
        check_one(events, vec![meter("gpu", None, &[], &[])], &format!("{rest},\"id\":\"a\""), &[&want], notes);
    };
    let bad = |text: &str| format!("bad_quantity 0 at 2026-10-02T10:00:00.500Z key `{text}`");
    let both = || interval(Some("start"), Some("end"), None);
    of(both(), r#""start":"soon","end":1790936430"#, &bad("\"soon\""));
    of(both(), r#""start":1790936430,"end":1790934600"#, &bad("1790934600"));
    of(both(), r#""start":"2025-08-28T10:00:00Z","end":"2026-10-02T10:00:01Z""#, &bad("\"2026-10-02T10:00:01Z\""));
    of(both(), r#""start":[1],"end":1790936430"#, &bad("[1]"));
    of(interval(None, None, Some("held_ms")), r#""held_ms":-5"#, &bad("-5"));
    of(interval(None, None, Some("held_ms")), r#""held_ms":"5""#, &bad("\"5\""));
    of(interval(None, None, Some("held_ms")), r#""held_ms":1e300"#, &bad("1e300"));
    of(
        both(),
        r#""start":"2026-10-02T11:00:00Z","end":"2026-10-02T12:05:01Z""#,
        "future 0 at 2026-10-02T11:00:00Z to 2026-10-02T12:05:01Z key ``",
    );
    of(both(), r#""start":1790934600,"end":"2999-01-01T00:00:00Z""#, "future 0 at 2026-10-02T10:00:00.500Z key `\"2999-01-01T00:00:00Z\"`");
    // The record's own time does not matter where the interval has both.
    let line = "{\"ts\":\"2090-01-01T00:00:00Z\",\"start\":1790934600,\"end\":1790936430,\"id\":\"a\"}\n";
    let want = "gpu of unknown : interval 1 at 2026-10-02T09:50:00Z to 2026-10-02T10:20:30Z key `a`";
    check(vec![group(both(), vec![meter("gpu", None, &[], &[])])], line, &[want], &[]);
}

#[test]
fn a_level_is_a_sample_at_the_records_time() {
    let events = keyed(EventKind::Sample, &[], Times::default());
    let want = "gpus of acme orca: sample 3 at 2026-10-02T10:00:00.500Z key ``";
    check_one(events, vec![meter("gpus", Some("gpus"), &[], &[])], "\"gpus\":3", &[want], &[]);
}

/// Sums and keyed facts alike: nothing that is not counted goes without a trace.
#[track_caller]
fn check_refused(rest: &str, want: &[&str], notes: &[&str]) {
    for events in [None, by_id()] {
        let (facts, got_notes) = run(vec![group(events, tokens())], &format!("{{{HEAD},\"id\":\"a\",{rest}}}\n"), usize::MAX);
        let refused: Vec<&str> =
            facts.iter().filter(|f| f.contains(" 0 at ") && !f.contains(": point")).map(|f| f.strip_suffix('`').unwrap_or(f)).collect();
        let want: Vec<String> = want
            .iter()
            .map(|w| w.split_once(' ').unwrap())
            .map(|(meter, rest)| (meter, rest.split_once(' ').unwrap()))
            .map(|(meter, (kind, text))| format!("{meter} of acme orca: {kind} 0 at 2026-10-02T10:00:00.500Z key `{text}"))
            .collect();
        assert_eq!(refused, want, "{rest}");
        assert_eq!(got_notes, notes, "{rest}");
    }
}

#[test]
fn what_is_no_quantity_is_refused_with_its_text() {
    let bad: &[&str] = &["bad_quantity"];
    for (quantity, text) in [
        ("-5", "-5"),
        ("1.5", "1.5"),
        ("1e3", "1e3"),
        ("\"7\"", "\"7\""),
        ("\"NaN\"", "\"NaN\""),
        ("true", "true"),
        ("[1]", "[1]"),
        ("9223372036854775808", "9223372036854775808"),
    ] {
        check_refused(&format!("\"tokens_in\":{quantity}"), &[&format!("in bad_quantity {text}")], bad);
    }
    let long = "9".repeat(200);
    check_refused(&format!("\"tokens_in\":{long}"), &[&format!("in bad_quantity {}", &long[..TEXT_BYTES_MAX])], bad);
    check_refused("\"tokens_in\":null", &[], &[]);
    check_refused("\"tokens_in\":0", &[], &[]);
    // A part above its whole is refused with both numbers, by both meters.
    let both = ["in part_above_whole 900>800", "cached part_above_whole 900>800"];
    check_refused("\"tokens_in\":800,\"tokens_cached\":900", &both, &["part_above_whole"]);
    check_refused("\"tokens_cached\":900", &["cached part_above_whole 900>"], &["part_above_whole"]);
    check_refused("\"tokens_in\":800,\"tokens_cached\":-1", &["in bad_quantity -1", "cached bad_quantity -1"], bad);
    // Nobody can tell what a record says that says it twice: not even the request is counted.
    let twice = ["in bad_quantity 2", "requests bad_quantity "];
    check_refused("\"tokens_in\":1,\"tokens_in\":2", &twice, &["duplicate_metered"]);
}

#[test]
fn what_is_more_than_five_minutes_ahead_of_its_receipt_is_refused() {
    for (time, is_future) in
        [("2026-10-02T12:05:00Z", false), ("2026-10-02T12:05:00.000000001Z", true), ("2099-12-31T00:00:00Z", true), (RECEIPT, false)]
    {
        let line = format!("{{\"ts\":\"{time}\",\"tenant\":\"acme\",\"model\":\"orca\",\"id\":\"a\",\"tokens_in\":5}}\n");
        for events in [None, by_id()] {
            let (facts, notes) = run(vec![group(events.clone(), tokens_in())], &line, usize::MAX);
            let at = nanos(time).rfc3339();
            let want_notes = if is_future { vec!["future"] } else { vec![] };
            let want = match (is_future, events) {
                (true, _) => format!("in of acme orca: future 0 at {at} key `5`"),
                (false, None) => "in of acme orca: 5 in 1".to_string(),
                (false, Some(_)) => format!("in of acme orca: point 5 at {at} key `a`"),
            };
            assert_eq!((facts, notes), (vec![want], want_notes), "{time}");
        }
    }
}

#[test]
fn a_time_that_no_clock_shows_is_of_the_future_and_kept_as_text() {
    for time in ["\"2999-01-01T00:00:00Z\"", "32472144000", "\"32472144000000\"", "4133980800"] {
        let line = format!("{{\"ts\":{time},\"tenant\":\"acme\",\"model\":\"orca\",\"id\":\"a\",\"tokens_in\":5}}\n");
        for events in [None, by_id()] {
            let want = format!("in of acme orca: future 0 at {RECEIPT} key `{time}`");
            check(vec![group(events, tokens_in())], &line, &[&want], &["future"]);
        }
    }
}

#[test]
fn a_frame_lists_so_many_refused_records_and_counts_the_rest() {
    let bad = format!("{{{HEAD},\"tokens_in\":-1}}\n");
    let other = "{\"ts\":\"2026-10-02T10:07:00Z\",\"tenant\":\"bolt\",\"model\":\"m\",\"tokens_in\":\"x\"}\n";
    let lines = bad.repeat(REFUSED_MAX) + &(bad.clone() + other).repeat(40);
    let (facts, notes) = run(vec![group(None, tokens_in())], &lines, 4_000);
    assert_eq!(notes.len(), REFUSED_MAX + 80);
    assert_eq!(facts.len(), REFUSED_MAX + 2);
    assert_eq!(
        facts[REFUSED_MAX..],
        [
            "in of acme orca: bad_quantity 0 at 2026-10-02T10:00:00.500Z key `-1` in 40",
            "in of bolt m: bad_quantity 0 at 2026-10-02T10:07:00Z key `\"x\"` in 40",
        ]
    );
}

#[test]
fn durations_have_the_unit_that_their_name_says() {
    use DurationUnit::*;
    for (name, want) in [
        ("duration_ms", Some(Milliseconds)),
        ("elapsedMs", Some(Milliseconds)),
        ("request.seconds", Some(Seconds)),
        ("took_us", Some(Microseconds)),
        ("durationNanos", Some(Nanoseconds)),
        ("held_hours", Some(Hours)),
        ("uptime_minutes", Some(Minutes)),
        ("duration", None),
        ("response_min", None),
        ("ms.total", None),
        ("forms", None),
        ("", None),
    ] {
        assert_eq!(DurationUnit::of_field(name), want, "{name}");
    }
    assert_eq!(Minutes.nanos(b"1.5"), Some(90 * 1_000_000_000));
    assert_eq!(Hours.nanos(b"9600"), Some(INTERVAL_NS_MAX));
    assert_eq!(Hours.nanos(b"9600.1"), None);
    assert_eq!(Seconds.nanos(b"0.0000000019"), Some(1));
}

/// Whatever way the bytes come, the facts are the same.
#[test]
fn facts_do_not_depend_on_where_chunks_are_cut() {
    let seed: u64 = std::env::var("WEIR_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
    println!("WEIR_SEED={seed}");
    let mut state = seed | 1;
    let mut next = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % bound
    };
    for _ in 0..60 {
        let lines: String = (0..next(80))
            .map(|_| {
                let quantity = ["1", "77", "-3", "\"9\"", "null", "1.5", "9223372036854775807"][next(7)];
                let day = ["02T10:00", "02T11:59", "02T12:09", "30T00:00"][next(4)];
                let (id, seg, cached) = (["a", "b\\n", "", "ü"][next(4)], next(3), next(80));
                let times = format!("\"start\":{},\"end\":{}", 1_790_934_600 + next(9), 1_790_934_604 + next(9));
                format!(
                    "{{\"ts\":\"2026-10-{day}:{:02}Z\",\"tenant\":\"t{}\",\"id\":\"{id}\",\"seg\":{seg},\"tokens_in\":{quantity},\"tokens_cached\":{cached},{times}}}\n",
                    next(60),
                    next(3),
                )
            })
            .collect();
        let groups = || {
            vec![
                group(None, tokens()),
                group(keyed(EventKind::Point, &["id", "seg"], Times::default()), tokens()),
                group(interval(Some("start"), Some("end"), None), vec![meter("gpu", None, &[], &[])]),
                group(keyed(EventKind::Sample, &[], Times::default()), tokens_in()),
            ]
        };
        // Groups take turns batch by batch, so only the order differs.
        let sorted = |piece: usize| {
            let (mut facts, notes) = run(groups(), &lines, piece);
            facts.sort();
            (facts, notes)
        };
        let want = sorted(usize::MAX);
        for piece in [1 + next(40), 97, 1 + next(2_000)] {
            assert_eq!(sorted(piece), want, "pieces of {piece} bytes of\n{lines}");
        }
    }
}
