//! What requests say of themselves, and what is counted by it, as tables.

use super::*;
use crate::event::Reason;
use crate::fields::{FieldSet, Scanner};

/// Limits that nothing reaches.
const WIDE: Limits = Limits { per_metric: 1_000, per_tenant: 1_000, total: 2_000, idle_ns: 60 };

fn route(values_max: usize) -> Request {
    Request::new("route", vec![0, 1], "__other__", 8, values_max)
}

fn labels(request: Vec<Request>, limits: Limits) -> Labels {
    let sources = vec![("in".to_string(), BTreeMap::new())];
    Labels { counted: true, ..Labels::new(request, sources, limits) }
}

/// One batch of records of a tenant each; the value of the first label of each record.
fn run(labels: &Labels, reader: &mut Reader, lines: &[(u32, &str)]) -> Vec<String> {
    let set = Arc::new(FieldSet::new(&["route", "http.route"]));
    let mut batch = Batch { fields: 2, is_json: true, ..Batch::default() };
    let mut scanner = Scanner::new(set);
    for (tenant, line) in lines {
        let start = batch.arena.len();
        batch.arena.extend_from_slice(line.as_bytes());
        batch.push(start, batch.arena.len(), 1, 10, 0);
        let mut spans = [Span::default(); 2];
        scanner.scan(line.as_bytes(), &mut spans);
        batch.spans.extend(spans);
        batch.tenant.push(*tenant);
        batch.outcome.push(Outcome::Kept);
    }
    reader.read(labels, &mut batch);
    let values = (0..batch.len()).map(|i| batch.labels.text(i, 0).to_string()).collect();
    reader.count(labels, &mut batch);
    assert_eq!(batch.labels.count, 0, "nothing is left for the next batch");
    values
}

/// `tenant value records`, in order; a dash for tenants without room.
fn shown(page: &Shown) -> Vec<String> {
    let tenant = |key: &SeriesKey| key.tenant.map_or("-".to_string(), |tenant| tenant.to_string());
    page.rows.iter().map(|(key, records, _)| format!("{} {} {records}", tenant(key), key.values.join(","))).collect()
}

fn refused(labels: &Labels) -> Vec<(&'static str, u64)> {
    labels.request[0].refused().filter(|(_, count)| *count > 0).map(|(why, count)| (why.name(), count)).collect()
}

#[test]
fn eb_5_3_what_a_request_says_is_trimmed_bounded_and_counted() {
    let labels = labels(vec![route(100)], WIDE);
    let lines = [
        (r#"{"route":"/v1"}"#, "/v1"),
        (r#"{"route":"  /v1 "}"#, "/v1"),
        (r#"{"route":"\t/v1\u00a0"}"#, "/v1"),
        (r#"{"route":"\u002fv1"}"#, "/v1"),
        (r#"{"http":{"route":"/v2"}}"#, "/v2"),
        (r#"{"route":null,"http.route":"/v2"}"#, "/v2"),
        (r#"{"route":7}"#, "7"),
        (r#"{"route":true}"#, "true"),
        (r#"{"route":"  "}"#, ""),
        (r#"{}"#, ""),
        ("no json", ""),
        (r#"{"route":"12345678"}"#, "12345678"),
        (r#"{"route":"123456789"}"#, "__other__"),
        (r#"{"route":" 12345678 "}"#, "12345678"),
        (r#"{"route":"a\u0000b"}"#, "__other__"),
        (r#"{"route":"a\nb"}"#, "__other__"),
        (r#"{"route":{"a":1}}"#, "__other__"),
        (r#"{"route":"A"}"#, "A"),
        (r#"{"route":"__other__"}"#, "__other__"),
    ];
    let records: Vec<_> = lines.iter().map(|(line, _)| (1, *line)).collect();
    let want: Vec<_> = lines.iter().map(|(_, value)| *value).collect();
    let mut reader = Reader::default();
    // Twice: from the record, and as remembered.
    for _ in 0..2 {
        assert_eq!(run(&labels, &mut reader, &records), want);
    }
    // `__other__` is longer than the 8 bytes of this label.
    assert_eq!(refused(&labels), [("too_long", 4), ("characters", 6)]);
}

#[test]
fn eb_5_3_only_allowed_values_and_so_many_of_them_are_told_apart() {
    let allow = ["a", "b"].map(String::from).into_iter().collect();
    let listed = labels(vec![Request { allow, ..route(10) }], WIDE);
    let lines = [(1, r#"{"route":"a"}"#), (1, r#"{"route":"A"}"#), (1, r#"{"route":"b "}"#), (1, r#"{"route":"c"}"#)];
    assert_eq!(run(&listed, &mut Reader::default(), &lines), ["a", "__other__", "b", "__other__"]);
    assert_eq!(refused(&listed), [("not_allowed", 2)]);

    let few = labels(vec![route(2)], WIDE);
    let (mut one, mut two) = (Reader::default(), Reader::default());
    let lines = [(1, r#"{"route":"a"}"#), (1, r#"{"route":"b"}"#), (1, r#"{"route":"c"}"#), (1, r#"{"route":"a"}"#)];
    assert_eq!(run(&few, &mut one, &lines), ["a", "b", "__other__", "a"]);
    // Another lane knows the same two, also those that it has not met.
    assert_eq!(run(&few, &mut two, &[lines[2], lines[1], lines[2], lines[0]]), ["__other__", "b", "__other__", "a"]);
    assert_eq!(refused(&few), [("values_max", 3)]);
}

#[test]
fn eb_5_4_beyond_the_limits_series_are_folded_and_every_record_is_counted_once() {
    for (limits, want, folded) in [
        (WIDE, vec!["1 a 1", "1 b 1", "1 c 1", "2 a 1", "2 d 1"], [0, 0, 0]),
        (Limits { per_tenant: 2, ..WIDE }, vec!["1 __other__ 1", "1 a 1", "1 b 1", "2 a 1", "2 d 1"], [0, 1, 0]),
        (Limits { per_metric: 2, ..WIDE }, vec!["- __other__ 3", "1 a 1", "1 b 1"], [3, 0, 0]),
        (Limits { total: 7, ..WIDE }, vec!["- __other__ 2", "1 a 1", "1 b 1", "1 c 1"], [0, 0, 2]),
        // A tenant's overflow takes room like any other.
        (Limits { per_tenant: 1, per_metric: 2, ..WIDE }, vec!["- __other__ 2", "1 __other__ 2", "1 a 1"], [3, 1, 0]),
    ] {
        let labels = labels(vec![route(100)], limits);
        let lines =
            [(1, r#"{"route":"a"}"#), (1, r#"{"route":"b"}"#), (1, r#"{"route":"c"}"#), (2, r#"{"route":"a"}"#), (2, r#"{"route":"d"}"#)];
        run(&labels, &mut Reader::default(), &lines);
        let page = labels.page(UnixNanos(1));
        assert_eq!(shown(&page), want, "{limits:?}");
        assert_eq!(page.folded.iter().map(|(_, count)| *count).collect::<Vec<_>>(), folded, "{limits:?}");
        assert_eq!(page.rows.iter().map(|(_, _, bytes)| bytes).sum::<u64>(), 50, "10 bytes each");
    }
}

#[test]
fn eb_5_4_an_idle_series_ends_and_makes_room_and_what_was_folded_stays() {
    let labels = labels(vec![route(2)], Limits { per_tenant: 2, ..WIDE });
    let mut reader = Reader::default();
    let mut see = |values: &[&str]| {
        let lines: Vec<_> = values.iter().map(|value| (1, format!(r#"{{"route":"{value}"}}"#))).collect();
        run(&labels, &mut reader, &lines.iter().map(|(tenant, line)| (*tenant, line.as_str())).collect::<Vec<_>>())
    };
    assert_eq!(see(&["a", "b", "c"]), ["a", "b", "__other__"]);
    assert_eq!(shown(&labels.page(UnixNanos(100))), ["1 __other__ 1", "1 a 1", "1 b 1"]);
    see(&["a", "c"]);
    assert_eq!(shown(&labels.page(UnixNanos(159))), ["1 __other__ 2", "1 a 2", "1 b 1"], "59 ns are not idle");
    let page = labels.page(UnixNanos(160));
    assert_eq!((shown(&page), page.ended), (vec!["1 __other__ 2".to_string(), "1 a 2".to_string()], 1));
    // There is room for another value and another series; what was counted for it as one of many stays there.
    assert_eq!(see(&["c", "a", "d"]), ["c", "a", "__other__"]);
    assert_eq!(shown(&labels.page(UnixNanos(170))), ["1 __other__ 3", "1 a 3", "1 c 1"]);
    // A clock that goes back ends nothing.
    assert_eq!(shown(&labels.page(UnixNanos(-1_000_000))), ["1 __other__ 3", "1 a 3", "1 c 1"]);
    let page = labels.page(UnixNanos(10_000));
    assert_eq!((shown(&page), page.ended), (vec![], 4));
    // Whoever comes back begins anew, after a page without it.
    see(&["b"]);
    assert_eq!(shown(&labels.page(UnixNanos(10_001))), ["1 b 1"]);
}

#[test]
fn eb_5_4_no_counter_runs_backwards_whatever_comes() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5EED_u64);
    let mut state = seed;
    let mut below = |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    let limits = Limits { per_metric: 20, per_tenant: 4, total: 60, idle_ns: 50 };
    let labels = labels(vec![route(8)], limits);
    let mut readers = [Reader::default(), Reader::default()];
    let (mut sent, mut counted, mut now) = (0, 0, 1);
    let mut before: BTreeMap<SeriesKey, u64> = BTreeMap::new();
    for _ in 0..2_000 {
        let lines: Vec<_> = (0..below(40)).map(|_| (below(12) as u32, format!(r#"{{"route":"r{}"}}"#, below(15)))).collect();
        sent += lines.len() as u64;
        let lines: Vec<_> = lines.iter().map(|(tenant, line)| (*tenant, line.as_str())).collect();
        run(&labels, &mut readers[below(2) as usize], &lines);
        if below(3) > 0 {
            continue;
        }
        now += below(40) as i64;
        let page = labels.page(UnixNanos(now));
        let rows: BTreeMap<SeriesKey, u64> = page.rows.into_iter().map(|(key, records, _)| (key, records)).collect();
        assert!(rows.keys().filter(|key| key.tenant.is_some()).count() <= limits.per_metric, "seed {seed}");
        for tenant in 0..12 {
            let own = |key: &&SeriesKey| key.tenant == Some(tenant) && *key.values[0] != *"__other__";
            assert!(rows.keys().filter(own).count() <= limits.per_tenant, "seed {seed}");
        }
        // What a scraper adds up: growth, and what begins after it was not there.
        for (key, records) in &rows {
            let from = before.get(key).copied().unwrap_or(0);
            assert!(*records >= from, "seed {seed}: {key:?} fell from {from} to {records}");
            counted += records - from;
        }
        before = rows;
    }
    let page = labels.page(UnixNanos(now));
    counted += page.rows.iter().map(|(key, records, _)| records - before.get(key).copied().unwrap_or(0)).sum::<u64>();
    assert_eq!(counted, sent, "seed {seed}: every record is counted once");
}

#[test]
fn verdicts_and_many_series_in_one_batch_are_told_apart() {
    let labels = labels(Vec::new(), WIDE);
    let mut batch = Batch { is_json: true, ..Batch::default() };
    for n in 0..5_000u32 {
        batch.push(0, 0, 1, 3, 0);
        batch.tenant.push(n % 400);
        batch.outcome.push(if n % 5 == 0 { Outcome::Dropped(Reason::Sampled) } else { Outcome::Kept });
    }
    let mut reader = Reader::default();
    for _ in 0..2 {
        reader.read(&labels, &mut batch);
        reader.count(&labels, &mut batch);
    }
    let page = labels.page(UnixNanos(1));
    assert_eq!(page.rows.len(), 400, "400 tenants, and 5 divides 400");
    let of = |outcome: Outcome| page.rows.iter().filter(|(key, ..)| key.outcome == outcome).map(|(_, records, _)| records).sum::<u64>();
    assert_eq!((of(Outcome::Kept), of(Outcome::Dropped(Reason::Sampled))), (8_000, 2_000));
}

#[test]
fn labels_that_nobody_reads_are_not_looked_for() {
    let labels = Labels { counted: false, ..labels(vec![route(100)], WIDE) };
    assert_eq!(run(&labels, &mut Reader::default(), &[(1, r#"{"route":"a"}"#)]), [""]);
    assert_eq!(lock(&labels.request[0].values).len(), 0);
    assert!(labels.page(UnixNanos(1)).rows.is_empty());
    let shaped = Labels { shaped: true, counted: false, ..self::labels(vec![route(100)], WIDE) };
    assert_eq!(run(&shaped, &mut Reader::default(), &[(1, r#"{"route":"a"}"#)]), ["a"]);
    assert!(shaped.page(UnixNanos(1)).rows.is_empty(), "only the record carries it");
}
