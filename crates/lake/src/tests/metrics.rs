//! Samples and spans lie in tables of their own, sealed or not, and every line comes back as it was.

use super::*;
use crate::maintain::{CompactOptions, Keeper, Retention};
use crate::tables::Table;
use arrow_array::{Array, BinaryArray, Float64Array, RecordBatch, StringArray};
use flow::event::Signal;
use flow::units::Span;
use telemetry::sample::{STALE, Stamp, Type, put_series, put_value_end};
use telemetry::selector::{Answer, LOOKBACK, Query as Selector, instant};

const SECOND: i64 = 1_000_000_000;

fn sample(series: usize, at: i64, value: f64) -> Line {
    let mut raw = Vec::new();
    let model = format!("m-{series}");
    put_series(&mut raw, "requests_total", Type::Counter, "", [("job", "api"), ("model", model.as_str())].into_iter());
    Stamp::default().put(&mut raw, UnixNanos(at));
    put_value_end(&mut raw, value);
    raw.pop();
    Line { tenant: ["acme", "zeta"][series % 2].into(), time: at, severity: 0, raw }
}

fn of_signal(signal: Signal, seq: u64, stream: u64, from: u64, lines: &[Line]) -> Arc<Frame> {
    let mut frame = (*frame(seq, stream, from, lines)).clone();
    frame.parts[0].signal = signal;
    Arc::new(frame)
}

/// Samples of 6 series, 4 of each; and lines that are none, or are built otherwise.
fn samples() -> Vec<Line> {
    let mut lines: Vec<Line> =
        (0..24).map(|n| sample(n % 6, START + (n / 6) as i64 * 15 * SECOND, (n / 6) as f64 * 10.0 + n as f64 / 8.0)).collect();
    lines.push(sample(0, START + 60 * SECOND, f64::from_bits(STALE)));
    let odd = [
        r#"{"metric":"latency","type":"histogram","labels":{},"timestamp":"2026-11-23T00:00:00Z","histogram":{"count":3,"sum":1.5}}"#,
        r#"{"metric":"requests","type":"counter","temporality":"delta","labels":{"a":"b"},"timestamp":"2026-11-23T00:00:00Z","value":9007199254740993}"#,
        r#"{ "metric":"spaced","labels":{"job":"x"}, "timestamp":"2026-11-23T00:00:00Z","value":1.0}"#,
        r#"{"metric":"tagged","type":"gauge","labels":{},"timestamp":"2026-11-23T00:00:00Z","value":1.0,"tenant":"acme"}"#,
        r#"{"metric":"shifted","type":"gauge","labels":{},"timestamp":"2026-11-23T00:00:01Z","value":1.0}"#,
        "no sample at all",
        r#"{"level":"info"}"#,
    ];
    lines.extend(odd.map(|raw| line("acme", START, raw)));
    lines
}

/// The lines of the table as a reader puts them together again, by tenant.
fn stored(root: &Path) -> Vec<Vec<u8>> {
    let snapshot = Snapshot::read(&Disk::Real, root).unwrap();
    let mut lines = Vec::new();
    for file in snapshot.files(Table::Metrics, None).unwrap() {
        for batch in crate::table::read_all(&Disk::Real, &root.join(&file.path), None).unwrap() {
            let batch = batch.unwrap();
            let mut whole = crate::samples::Lines::of(&batch).unwrap();
            for row in 0..batch.num_rows() {
                let mut line = Vec::new();
                whole.put(row, &mut line);
                lines.push(line);
            }
        }
    }
    lines.sort();
    lines
}

fn raws(lines: &[Line]) -> Vec<Vec<u8>> {
    let mut raws: Vec<Vec<u8>> = lines.iter().map(|line| line.raw.clone()).collect();
    raws.sort();
    raws
}

fn values(root: &Path, tail: &[Arc<Frame>], tenant: Option<&[u8]>, query: &str, at: i64) -> Vec<(String, f64)> {
    let snapshot = Snapshot::read(&Disk::Real, root).unwrap();
    let query = Selector::parse(query).unwrap();
    let window = query.window(UnixNanos(at), UnixNanos(at), LOOKBACK);
    let wanted = WantedSeries { query: &query, tenant, window, points_max: 1000, is_over: &|| false };
    let series = read_series([(&snapshot, tail)], &wanted).unwrap();
    let Answer::Vector(found) = instant(&query, &series, UnixNanos(at), LOOKBACK).unwrap() else { panic!("a vector") };
    found
        .into_iter()
        .map(|element| (element.labels.iter().find(|l| l.0 == "model").map_or(String::new(), |l| l.1.clone()), element.value))
        .collect()
}

#[test]
fn each_signal_has_its_table_and_every_sample_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (logs, metrics) = (sample_lines(6), samples());
    let spans: Vec<Line> = (0..4).map(|n| line("acme", START + n, &format!("{{\"name\":\"call\",\"span_id\":\"{n:016x}\"}}"))).collect();
    let frames = [frame(1, 1, 0, &logs), of_signal(Signal::Metrics, 2, 2, 0, &metrics), of_signal(Signal::Traces, 3, 3, 0, &spans)];
    let mut lake = Lake::open(Disk::Real, root, options(0)).unwrap();
    let in_tail = values(root, &frames, None, "requests_total", START + 59 * SECOND);
    assert_eq!(in_tail.len(), 6);
    assert_eq!(find_all(&Disk::Real, root, &frames, "").len(), logs.len(), "a search finds logs");
    let sealed = lake.seal(&frames).unwrap().unwrap();
    assert_eq!(sealed.rows, (logs.len() + metrics.len() + spans.len()) as u64);
    assert_eq!(lake.seal(&frames).unwrap(), None, "it has everything");
    assert_eq!(find_all(&Disk::Real, root, &[], "").len(), logs.len());
    assert_eq!(stored(root), raws(&metrics));
    let snapshot = Snapshot::read(&Disk::Real, root).unwrap();
    let recount: u64 = snapshot.rows_by_tenant().unwrap().values().map(|count| count.0).sum();
    assert_eq!((recount, snapshot.rows()), (sealed.rows, sealed.rows));
    assert_eq!(snapshot.files(Table::Traces, None).unwrap().iter().map(|file| file.rows).sum::<u64>(), 4);
    for tail in [&frames[..], &[]] {
        assert_eq!(values(root, tail, None, "requests_total", START + 59 * SECOND), in_tail, "sealed and in the tail is once");
        let own = values(root, tail, Some(b"zeta"), "requests_total", START + 59 * SECOND);
        assert_eq!(own.iter().map(|v| v.0.as_str()).collect::<Vec<_>>(), ["m-1", "m-3", "m-5"]);
        let now = values(root, tail, None, "requests_total", START + 61 * SECOND);
        assert_eq!(now.len(), 5, "a stale marker ends its series");
    }
}

#[test]
fn samples_are_merged_and_dropped_like_logs() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let metrics = samples();
    let mut lake = Lake::open(Disk::Real, root, options(0)).unwrap();
    let mut at = 0;
    for (n, lines) in metrics.chunks(8).enumerate() {
        let one = of_signal(Signal::Metrics, n as u64 + 1, 2, at, lines);
        lake.seal(std::slice::from_ref(&one)).unwrap();
        at = end(&one);
    }
    let files = || Snapshot::read(&Disk::Real, root).unwrap().files(Table::Metrics, None).unwrap().len();
    let before = files();
    let mut keeper = Keeper::open(&Disk::Real, root).unwrap();
    let options = CompactOptions {
        cold_after: Span(SECOND),
        file_bytes_min: 1 << 20,
        target_bytes: 8 << 20,
        files_min: 2,
        memory_bytes_max: 64 << 20,
        bytes_max: u64::MAX,
        index_bytes_min: 0,
    };
    let done = keeper.compact(&options, UnixNanos(START + 2 * DAY)).unwrap();
    assert!(done.merges == 2 && files() == 2 && before > 4, "{done:?} of {before}");
    assert_eq!((done.failed.len(), done.rows), (0, metrics.len() as u64));
    assert_eq!(stored(root), raws(&metrics));
    let keep = Retention { age: Some(Span(DAY)), ..Retention::default() };
    let dropped = keeper.retain(&keep, UnixNanos(START + 9 * DAY)).unwrap();
    assert_eq!(dropped.iter().map(|drop| drop.rows).sum::<u64>(), metrics.len() as u64);
    assert_eq!(files(), 0);
}

#[test]
fn others_read_series_times_and_values_from_columns() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = samples();
    let mut lake = Lake::open(Disk::Real, folder.path(), options(0)).unwrap();
    let frames = [of_signal(Signal::Metrics, 1, 2, 0, &metrics)];
    let columns = ["tenant", "metric", "labels", "value", "raw"];
    let cells = |batch: &RecordBatch| -> Vec<String> {
        let text = |name: &str| batch.column_by_name(name).unwrap().as_any().downcast_ref::<StringArray>().unwrap().clone();
        let value = batch.column_by_name("value").unwrap().as_any().downcast_ref::<Float64Array>().unwrap().clone();
        let raw = batch.column_by_name("raw").unwrap().as_any().downcast_ref::<BinaryArray>().unwrap().clone();
        let (tenant, metric, labels) = (text("tenant"), text("metric"), text("labels"));
        (0..batch.num_rows())
            .map(|row| {
                let value = value.is_valid(row).then(|| value.value(row).to_bits());
                let raw = raw.is_valid(row).then(|| raw.value(row).to_vec());
                format!("{} {} {} {value:?} {raw:?}", tenant.value(row), metric.value(row), labels.value(row))
            })
            .collect()
    };
    let snapshot = Snapshot::read(&Disk::Real, folder.path()).unwrap();
    let tail = snapshot.tail(Table::Metrics, &frames, None).unwrap();
    let mut from_tail: Vec<String> = (0..tail.parts()).flat_map(|at| cells(&tail.batch(at, &columns, None).unwrap())).collect();
    lake.seal(&frames).unwrap();
    let snapshot = Snapshot::read(&Disk::Real, folder.path()).unwrap();
    let mut from_files = Vec::new();
    for file in snapshot.files(Table::Metrics, None).unwrap() {
        let open = snapshot.open(&file).unwrap();
        let groups = (0..open.group_rows().len()).collect();
        for batch in open.read(&columns, groups, None).unwrap() {
            from_files.extend(cells(&batch.unwrap()));
        }
    }
    from_tail.sort();
    from_files.sort();
    assert_eq!(from_files, from_tail);
    assert_eq!(from_files.len(), metrics.len());
    assert!(from_files.iter().any(|row| row.contains(r#"{"job":"api","model":"m-3"}"#)), "{from_files:?}");
}
