//! What SQL over a lake promises: `answers` (equal to a naive count that shares no code with it), `tenants` (nothing of another tenant
//! shows), `hostile` (bad queries end soon, with a word), and the faces below.

mod answers;
mod hostile;
mod tenants;

use crate::*;
use datafusion::arrow::array::RecordBatch;
use flow::event::StreamId;
use flow::units::{NANOS_PER_DAY, NANOS_PER_HOUR, UnixNanos};
use hub::disk::{Disk, Sim};
use hub::frame::{Fact, Frame, Meter, Part, Rows};
use lake::{Lake, Options, Snapshot};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// 2026-11-23T00:00:00Z.
pub(crate) const START: i64 = 20_780 * NANOS_PER_DAY;

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub tenant: Vec<u8>,
    pub time: i64,
    pub severity: u8,
    pub weight: u32,
    pub raw: Vec<u8>,
}

pub(crate) fn line(tenant: &str, time: i64, raw: &str) -> Line {
    Line { tenant: tenant.into(), time, severity: 9, weight: 1, raw: raw.into() }
}

/// A frame of one part of stream 1, and the position after it. Each line has a fact: its number in the frame, from 1, of the meter `tokens`.
pub(crate) fn frame(seq: u64, from: u64, lines: &[Line]) -> (Arc<Frame>, u64) {
    let mut frame = Frame { seq, received: UnixNanos(START), ..Frame::default() };
    let (mut rows, mut facts, mut at) = (Rows::default(), Vec::new(), from);
    let meter =
        |name: &str, lineage| Meter { name: name.into(), unit: "Tokens".into(), dims: vec!["service".into(), "model".into()], lineage };
    frame.meters = vec![meter("tokens", false), meter("lineage", true)];
    frame.values = vec![b"chat".as_slice().into(), b"m-1".as_slice().into()];
    for (i, line) in lines.iter().enumerate() {
        let known = frame.tenants.iter().position(|tenant| **tenant == *line.tenant);
        let tenant = known.unwrap_or_else(|| {
            frame.tenants.push(line.tenant.clone().into());
            frame.tenants.len() - 1
        }) as u32;
        at += line.raw.len() as u64 + 1;
        rows.bytes.extend_from_slice(&line.raw);
        rows.ends.push(rows.bytes.len() as u32);
        rows.tenant.push(tenant);
        rows.time.push(line.time);
        rows.severity.push(line.severity);
        rows.weight.push(line.weight);
        rows.position.push(at);
        rows.origin_bytes.push(line.raw.len() as u32);
        rows.notes.push(0);
        let minute = UnixNanos(line.time).minute();
        facts.push(Fact { tenant, meter: 0, minute, dims: vec![0, 1], quantity: i as i128 + 1, events: 1, event: None });
        facts.push(Fact { tenant, meter: 1, minute, dims: vec![0, 1], quantity: 1, events: 1, event: None });
    }
    frame.parts.push(Part { stream: StreamId(1), from, to: at, resume: at, rows: 0..lines.len() as u32, facts, ..Part::default() });
    frame.rows = rows;
    (Arc::new(frame), at)
}

/// Frames of these lines, one after the other.
pub(crate) fn frames(lines: &[Line], each: usize) -> Vec<Arc<Frame>> {
    let (mut frames, mut from) = (Vec::new(), 0);
    for (n, chunk) in lines.chunks(each).enumerate() {
        let (made, to) = frame(n as u64 + 1, from, chunk);
        frames.push(made);
        from = to;
    }
    frames
}

pub(crate) fn options(index: &[&str]) -> Options {
    Options {
        index: index.iter().map(|name| name.to_string()).collect(),
        text: vec!["msg".into()],
        ids: vec!["trace_id".into()],
        numbers: vec!["latency_ms".into()],
        index_bytes_min: u64::MAX,
        hour_bytes_min: u64::MAX,
        lineage: Some(block()),
    }
}

pub(crate) fn block() -> lake::lineage::Block {
    serde_json::from_str(r#"{"models":{"m-1":{"version":"7"}}}"#).expect("it is a block")
}

/// A lake in memory of `sealed` frames, a commit for each of them, with all of them as its tail.
pub(crate) fn source(frames: &[Arc<Frame>], sealed: usize, index: &[&str]) -> Source {
    let (disk, root) = (Disk::Sim(Arc::new(Sim::new(1))), Path::new("/lake"));
    let mut lake = Lake::open(disk.clone(), root, options(index)).unwrap();
    for frame in &frames[..sealed] {
        lake.seal(std::slice::from_ref(frame)).unwrap();
    }
    Source { writer: Some(Arc::new(options(index))), ..source_of(&disk, root, frames) }
}

pub(crate) fn source_of(disk: &Disk, root: &Path, tail: &[Arc<Frame>]) -> Source {
    let snapshot = Arc::new(Snapshot::read(disk, root).unwrap());
    Source { snapshot, tail: tail.to_vec(), writer: None }
}

pub(crate) const NEVER: &(dyn Fn() -> bool + Sync) = &|| false;

pub(crate) fn bounds(tenant: Option<&[u8]>) -> SqlOptions<'static> {
    let tenant = tenant.map(<[u8]>::to_vec);
    SqlOptions {
        tenant,
        memory_bytes_max: 256 << 20,
        read_bytes_max: None,
        rows_max: 1_000_000,
        now: UnixNanos(START + NANOS_PER_DAY),
        is_over: NEVER,
    }
}

pub(crate) fn run(sources: &[Source], sql: &str, options: &SqlOptions<'_>, format: Format) -> Result<(String, Stats), SqlError> {
    let (mut printer, mut text) = (Printer::new(format), String::new());
    let stats = query(sources.to_vec(), sql, options, &mut |batch: &RecordBatch| {
        printer.add(batch, &mut text);
        ControlFlow::Continue(())
    })?;
    Ok((text, stats))
}

/// The answer as CSV, its lines after the names sorted.
#[track_caller]
pub(crate) fn answer(sources: &[Source], sql: &str, tenant: Option<&[u8]>) -> Vec<String> {
    let (text, _) = run(sources, sql, &bounds(tenant), Format::Csv).unwrap_or_else(|error| panic!("{sql}\n{error}"));
    let mut lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[track_caller]
pub(crate) fn refused(sources: &[Source], sql: &str, want: &str) {
    match run(sources, sql, &bounds(None), Format::Csv) {
        Err(error) if error.is_mistake() => assert!(error.to_string().contains(want), "{sql}\n{error}"),
        Err(error) => panic!("{sql} is taken for a failure of the world: {error}"),
        Ok((text, _)) => panic!("{sql} is answered: {text}"),
    }
}

fn three() -> Vec<Source> {
    let lines = [
        line("acme", START + 1, r#"{"service":"auth","level":"error","msg":"a, \"b\"","trace_id":"t1"}"#),
        line("acme", START + NANOS_PER_HOUR, r#"{"service":"chat","level":"info","msg":"c"}"#),
        Line { tenant: b"\xff".to_vec(), time: START + 2, severity: 0, weight: 3, raw: b"\xfe no json".to_vec() },
    ];
    vec![source(&frames(&lines, 3), 1, &["service", "level"])]
}

#[test]
fn an_error_points_at_the_fault_and_tells_the_way_out() {
    let check = |sql: &str, want: &str| {
        let error = run(&three(), sql, &bounds(None), Format::Csv).map(|answer| answer.0).unwrap_err();
        assert!(error.is_mistake(), "{sql}: {error}");
        assert_eq!(error.to_string(), want, "{sql}");
    };
    check(
        "SELECT servce FROM logs",
        "query:1:8: there is no column servce\n  SELECT servce FROM logs\n         ^\n  help: did you mean service?",
    );
    check("SELECT *\nFROM log", "query:2:6: there is no table log\n  FROM log\n       ^\n  help: did you mean logs?");
    check("SELECT 'a FROM logs", "query:1:8: Unterminated string literal\n  SELECT 'a FROM logs\n         ^");
    check(
        "",
        "query: the query is empty\n  help: SELECT, WITH, VALUES, EXPLAIN, SHOW TABLES and DESCRIBE are possible: a lake is written by pipelines only",
    );
    refused(&three(), "SELECT FROM WHERE", "query:1:");
    refused(&three(), "SELECT count(* FROM logs", "query:1:");
    refused(&three(), "SELECT nosuch(1)", "nosuch");
    refused(&three(), "SELECT severity FROM logs; SELECT 1", "more than one statement");
    refused(&three(), "SELECT 1 / 0", "ivide by zero");
    // The engine would leave the outer one out.
    for between in ["", " WHERE w > 0", " ORDER BY w", " LIMIT 5"] {
        let sql =
            format!("SELECT w + 1 AS w FROM (SELECT w + 1 AS w FROM (SELECT w + 1 AS w FROM (SELECT weight AS w FROM logs)){between})");
        refused(&three(), &sql, "compute the same column");
    }
    assert_eq!(
        answer(&three(), "SELECT c + 1 AS w FROM (SELECT w + 1 AS c FROM (SELECT weight + 1 AS w FROM logs))", None),
        ["4", "4", "6"]
    );
}

#[test]
fn a_table_is_aligned_and_json_and_csv_come_back_exactly() {
    let sql = "SELECT time, tenant, service, weight, raw FROM logs ORDER BY time";
    let text = |format| run(&three(), sql, &bounds(None), format).unwrap().0;
    assert_eq!(
        text(Format::Csv),
        concat!(
            "time,tenant,service,weight,raw\n",
            "2026-11-23T00:00:00.000000001Z,acme,auth,1,\"{\"\"service\"\":\"\"auth\"\",\"\"level\"\":\"\"error\"\",\"\"msg\"\":\"\"a, \\\"\"b\\\"\"\"\",\"\"trace_id\"\":\"\"t1\"\"}\"\n",
            "2026-11-23T00:00:00.000000002Z,\"{\"\"hex\"\":\"\"ff\"\"}\",,3,fe206e6f206a736f6e\n",
            "2026-11-23T01:00:00.000000000Z,acme,chat,1,\"{\"\"service\"\":\"\"chat\"\",\"\"level\"\":\"\"info\"\",\"\"msg\"\":\"\"c\"\"}\"\n",
        )
    );
    let rows: Vec<serde_json::Value> = text(Format::Json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        rows[1],
        serde_json::json!({"time":"2026-11-23T00:00:00.000000002Z","tenant":"{\"hex\":\"ff\"}","service":null,"weight":3,"raw":"fe206e6f206a736f6e"})
    );
    assert_eq!(rows[0]["raw"], r#"{"service":"auth","level":"error","msg":"a, \"b\"","trace_id":"t1"}"#);
    let sql = "SELECT service, count(*) AS n, sum(weight) AS w FROM logs GROUP BY service ORDER BY service";
    assert_eq!(
        run(&three(), sql, &bounds(None), Format::Table).unwrap().0,
        "service  n  w\n-------  -  -\nauth     1  1\nchat     1  1\n         1  3\n"
    );
    assert_eq!(
        run(&three(), "SELECT service FROM logs WHERE service = 'x'", &bounds(None), Format::Table).unwrap().0,
        "service\n-------\n"
    );
}

#[test]
fn an_answer_that_is_not_whole_says_why() {
    let lines: Vec<Line> = (0..100).map(|i| line("acme", START + i, "{}")).collect();
    let sources = [source(&frames(&lines, 10), 5, &["service"])];
    let partial = |sql: &str, options: &SqlOptions<'_>| {
        let (text, stats) = run(&sources, sql, options, Format::Csv).unwrap();
        assert_eq!(text.lines().count() as u64, stats.rows + u64::from(!text.is_empty()));
        (stats.rows, stats.partial)
    };
    let limit = |rows_max| SqlOptions { rows_max, ..bounds(None) };
    assert_eq!(partial("SELECT raw FROM logs", &limit(7)), (7, Some(Partial::Rows)));
    assert_eq!(partial("SELECT raw FROM logs", &limit(99)), (99, Some(Partial::Rows)));
    assert_eq!(partial("SELECT raw FROM logs", &limit(0)), (0, Some(Partial::Rows)));
    assert_eq!(partial("SELECT raw FROM logs", &limit(100)), (100, None));
    assert_eq!(partial("SELECT raw FROM logs LIMIT 7", &limit(7)), (7, None));
    assert_eq!(partial("SELECT raw FROM logs", &SqlOptions { is_over: &|| true, ..bounds(None) }), (0, Some(Partial::Time)));
    let mut seen = 0;
    let stats = query(sources.to_vec(), "SELECT raw FROM logs", &bounds(None), &mut |batch| {
        seen += batch.num_rows() as u64;
        ControlFlow::Break(())
    });
    let stats = stats.unwrap();
    assert_eq!((stats.rows, stats.partial), (seen, Some(Partial::Receiver)));
    // Without sorting or grouping, rows come as they lie: files in the order of their commits, then the tail.
    let (text, _) = run(&sources, "SELECT time FROM logs", &bounds(None), Format::Csv).unwrap();
    let mut sorted: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(sorted.len(), 100);
    assert!(sorted.is_sorted());
    sorted.dedup();
    assert_eq!(sorted.len(), 100);
}

#[test]
fn a_damaged_file_is_a_failure_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lake");
    let frames = frames(&[line("acme", START, r#"{"service":"x"}"#)], 1);
    Lake::open(Disk::Real, &root, options(&["service"])).unwrap().seal(&frames).unwrap();
    let source = source_of(&Disk::Real, &root, &[]);
    let view = source.snapshot.files(lake::tables::Table::Logs, None).unwrap().remove(0);
    assert_eq!(answer(std::slice::from_ref(&source), "SELECT service FROM logs", None), ["x"]);
    let path = root.join(&view.path);
    let good = std::fs::read(&path).unwrap();
    for bad in [&good[..good.len() / 2], b"", b"PAR1PAR1"] {
        std::fs::write(&path, bad).unwrap();
        let error = run(std::slice::from_ref(&source), "SELECT service FROM logs", &bounds(None), Format::Csv).map(|a| a.0).unwrap_err();
        assert!(!error.is_mistake() && error.to_string().contains(&view.path), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = run(&[source], "SELECT service FROM logs", &bounds(None), Format::Csv).map(|a| a.0).unwrap_err();
    assert!(!error.is_mistake() && error.to_string().contains("cannot open"), "{error}");
}
