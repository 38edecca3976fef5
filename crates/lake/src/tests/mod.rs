//! What a lake promises, tested from outside: `answers` (a search equals a naive scan that shares no code with
//! it), `counts` (histograms, facets, columns and contexts equal one, too), `columns` (what other programs find), `crashes` (after a crash
//! at any step every row is there once), `events` (facts one by one), `metrics` (samples and spans), `proposals` (what an index says to ranges and regexes), and the
//! promises below.

mod answers;
mod columns;
mod counts;
mod crashes;
mod events;
mod metrics;
mod proposals;

use crate::*;
use flow::event::{StreamId, UsageFact};
use flow::units::UnixNanos;
use hub::disk::{Disk, Sim};
use hub::frame::{Count, Fact, Frame, Meter, Part, Rows};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const DAY: i64 = flow::units::NANOS_PER_DAY;
/// 2026-11-23T00:00:00Z.
pub(crate) const START: i64 = 20_780 * DAY;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub tenant: Vec<u8>,
    pub time: i64,
    pub severity: u8,
    pub raw: Vec<u8>,
}

pub(crate) fn line(tenant: &str, time: i64, raw: &str) -> Line {
    Line { tenant: tenant.into(), time, severity: 9, raw: raw.into() }
}

/// A frame of one part: `lines` follow one another in the stream from `from` on, each with a newline.
pub(crate) fn frame(seq: u64, stream: u64, from: u64, lines: &[Line]) -> Arc<Frame> {
    let mut frame = Frame { seq, received: UnixNanos(START), ..Frame::default() };
    let mut rows = Rows::default();
    let mut at = from;
    let mut counts: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let dims = vec!["service".to_owned(), "model".to_owned()];
    frame.meters.push(Meter { name: "tokens".into(), unit: "Tokens".into(), dims: dims.clone(), lineage: false });
    frame.meters.push(Meter { name: "lineage".into(), unit: "Records".into(), dims, lineage: true });
    frame.values = vec![b"chat".as_slice().into(), b"m-1".as_slice().into(), b"\xff odd".as_slice().into()];
    let mut facts = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let known = frame.tenants.iter().position(|t| **t == *line.tenant);
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
        rows.weight.push(1 + i as u32 % 3);
        rows.position.push(at);
        rows.origin_bytes.push(line.raw.len() as u32);
        rows.notes.push(0);
        let count = counts.entry(tenant).or_default();
        *count = (count.0 + 1, count.1 + line.raw.len() as u64);
        let minute = UnixNanos(line.time).minute();
        facts.push(Fact { tenant, meter: 0, minute, dims: vec![0, 1 + i as u32 % 2], quantity: i as i128 + 1, events: 1, event: None });
        facts.push(Fact { tenant, meter: 1, minute, dims: vec![0, 1], quantity: 1, events: 1, event: None });
    }
    let counts = counts
        .into_iter()
        .map(|(tenant, (records, bytes))| Count { tenant, outcome: flow::event::Outcome::Kept, records, bytes })
        .collect();
    let part = Part { stream: StreamId(stream), from, to: at, resume: at, rows: 0..lines.len() as u32, counts, facts, ..Part::default() };
    frame.parts.push(part);
    frame.rows = rows;
    Arc::new(frame)
}

pub(crate) fn end(frame: &Frame) -> u64 {
    frame.parts[0].to
}

pub(crate) fn options(index_bytes_min: u64) -> Options {
    let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect();
    Options {
        index: names(&["service", "level", "model"]),
        text: names(&["msg", "message"]),
        ids: names(&["trace_id", "request_id"]),
        numbers: names(&["latency_ms", "model"]),
        index_bytes_min,
        hour_bytes_min: 1 << 30,
        lineage: None,
    }
}

pub(crate) fn block() -> lineage::Block {
    serde_json::from_str(r#"{"models":{"m-1":{"version":"7"}}}"#).unwrap()
}

pub(crate) fn find(disk: &Disk, root: &Path, tail: &[Arc<Frame>], query: &str, options: &SearchOptions) -> (Vec<Hit>, Stats) {
    let snapshot = Snapshot::read(disk, root).unwrap();
    let mut hits = Vec::new();
    let query = Query::parse(query).unwrap();
    let stats = search(disk, &snapshot, tail, &query, options, &mut |hit| {
        hits.push(hit);
        ControlFlow::Continue(())
    })
    .unwrap();
    (hits, stats)
}

pub(crate) fn find_all(disk: &Disk, root: &Path, tail: &[Arc<Frame>], query: &str) -> Vec<Hit> {
    find(disk, root, tail, query, &SearchOptions::default()).0
}

/// Every file below a folder of a real disk, with its bytes.
fn files_of(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().into(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn sample_lines(n: usize) -> Vec<Line> {
    let tenants = ["acme", "zeta"];
    let raw =
        |i: usize| format!(r#"{{"service":"s{}","level":"info","msg":"request {i} done é \"q\"","trace_id":"{i:032x}","n":{i}}}"#, i % 3);
    (0..n).map(|i| line(tenants[i % 2], START + i as i64 * 3_600_000_000_000, &raw(i))).collect()
}

#[test]
fn original_bytes_come_back_in_order_of_time() {
    let disk = Disk::Sim(Arc::new(Sim::new(1)));
    let root = Path::new("/lake");
    let lines = [
        line("acme", START + 5, r#"{"msg":"b"}"#),
        line("acme", START + 1, "no json \u{0} at all"),
        Line { tenant: b"t".to_vec(), time: START + 3, severity: 0, raw: b"{\"msg\":\"\xff\xfe\"}".to_vec() },
        line("acme", START + 2, ""),
        line("acme", START + 2 * DAY, r#" { "msg" : "spaces" , "msg" : "twice" } "#),
    ];
    let mut lake = Lake::open(disk.clone(), root, options(0)).unwrap();
    let first = frame(1, 7, 0, &lines[..3]);
    let second = frame(2, 7, end(&first), &lines[3..]);
    let sealed = lake.seal(&[first.clone(), second.clone()]).unwrap().unwrap();
    assert_eq!((sealed.number, sealed.rows, sealed.lost), (1, 5, 0));
    assert_eq!(lake.seal(&[first.clone(), second.clone()]).unwrap(), None, "it has everything already");
    assert_eq!(lake.positions(), [(StreamId(7), end(&second))].into());
    let raws = |options: &SearchOptions| find(&disk, root, &[], "", options).0.into_iter().map(|h| h.raw).collect::<Vec<_>>();
    let in_order = [1, 3, 2, 0, 4].map(|i: usize| lines[i].raw.clone());
    assert_eq!(raws(&SearchOptions::default()), in_order);
    let newest = SearchOptions { newest_first: true, limit: Some(2), ..SearchOptions::default() };
    assert_eq!(raws(&newest), [in_order[4].clone(), in_order[3].clone()]);
    let between = SearchOptions { since: Some(UnixNanos(START + 2)), until: Some(UnixNanos(START + 5)), ..SearchOptions::default() };
    assert_eq!(raws(&between), [in_order[1].clone(), in_order[2].clone()]);
    let of_tenant = SearchOptions { tenant: Some("t".into()), ..SearchOptions::default() };
    assert_eq!(raws(&of_tenant), [in_order[2].clone()]);
    assert_eq!(Snapshot::read(&disk, root).unwrap().rows_by_tenant().unwrap(), {
        let bytes = |t: &[u8]| lines.iter().filter(|l| l.tenant == t).map(|l| l.raw.len() as u64).sum();
        BTreeMap::from([(b"acme".to_vec(), (4, bytes(b"acme"))), (b"t".to_vec(), (1, bytes(b"t")))])
    });
}

#[test]
fn a_row_in_the_tail_and_in_the_lake_is_found_once() {
    let disk = Disk::Sim(Arc::new(Sim::new(1)));
    let root = Path::new("/lake");
    let lines = sample_lines(30);
    let mut frames = vec![frame(1, 1, 0, &lines[..10])];
    frames.push(frame(2, 2, 0, &lines[10..20]));
    frames.push(frame(3, 1, end(&frames[0]), &lines[20..]));
    let mut lake = Lake::open(disk.clone(), root, options(0)).unwrap();
    for sealed in 0..=3 {
        lake.seal(&frames[..sealed]).unwrap();
        let hits = find_all(&disk, root, &frames, "request");
        assert_eq!(hits.iter().map(|h| h.raw.clone()).collect::<BTreeSet<_>>().len(), 30);
        assert_eq!(hits.len(), 30, "after {sealed} frames were sealed");
        let snapshot = Snapshot::read(&disk, root).unwrap();
        assert_eq!(usage(&disk, &snapshot, &frames).unwrap().len(), 30);
    }
}

#[test]
fn a_part_across_the_position_is_refused() {
    let disk = Disk::Sim(Arc::new(Sim::new(1)));
    let lines = sample_lines(4);
    let mut lake = Lake::open(disk.clone(), Path::new("/lake"), options(0)).unwrap();
    lake.seal(&[frame(1, 1, 0, &lines[..2])]).unwrap();
    let error = lake.seal(&[frame(2, 1, 0, &lines)]).unwrap_err();
    assert!(error.to_string().contains("across the lake's position"), "{error}");
    assert_eq!(find_all(&disk, Path::new("/lake"), &[], "").len(), 2);
}

#[test]
fn usage_comes_back_exactly_and_lineage_once() {
    let disk = Disk::Sim(Arc::new(Sim::new(1)));
    let root = Path::new("/lake");
    let lines = sample_lines(12);
    let first = frame(1, 1, 0, &lines[..6]);
    let second = frame(2, 1, end(&first), &lines[6..]);
    let facts = |frames: &[Arc<Frame>]| -> Vec<UsageFact> {
        let all = frames.iter().flat_map(|f| crate::facts::facts_of(f, &f.parts[0]).map(Result::unwrap).collect::<Vec<_>>());
        let mut facts: Vec<UsageFact> = all.collect();
        facts.sort();
        facts
    };
    let events = |frames: &[Arc<Frame>]| -> BTreeSet<String> {
        let empty = Snapshot::read(&Disk::Sim(Arc::new(Sim::new(1))), root).unwrap();
        lineage_events(&empty.disk, &empty, frames, Some(&block())).unwrap().into_iter().map(|e| e.key).collect()
    };
    let with_lineage = Options { lineage: Some(block()), ..options(0) };
    let mut lake = Lake::open(disk.clone(), root, with_lineage.clone()).unwrap();
    lake.seal(std::slice::from_ref(&first)).unwrap();
    for reopened in [false, true] {
        let both = [first.clone(), second.clone()];
        let snapshot = Snapshot::read(&disk, root).unwrap();
        let mut got = usage(&disk, &snapshot, &both).unwrap();
        got.sort();
        assert_eq!(got, facts(&both));
        assert!(got.iter().any(|f| f.dims[1].1 == b"\xff odd"), "a value that is no UTF-8 is tested");
        let keys: Vec<String> = lineage_events(&disk, &snapshot, &both, Some(&block())).unwrap().into_iter().map(|e| e.key).collect();
        assert_eq!(keys.len(), keys.iter().collect::<BTreeSet<_>>().len(), "an event is there twice");
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), events(&both));
        if !reopened {
            lake = Lake::open(disk.clone(), root, with_lineage.clone()).unwrap();
            lake.seal(&both).unwrap();
        }
    }
}

#[test]
fn equal_input_gives_equal_bytes() {
    let lines = sample_lines(600);
    let run = || {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("lake");
        let hourly = Options { hour_bytes_min: 1, lineage: Some(block()), ..options(0) };
        let mut lake = Lake::open(Disk::Real, &root, hourly).unwrap();
        let first = frame(1, 1, 0, &lines[..200]);
        let second = frame(2, 1, end(&first), &lines[200..]);
        lake.seal(&[first]).unwrap();
        lake.seal(&[second]).unwrap();
        files_of(&root)
    };
    let (one, two) = (run(), run());
    assert!(one.keys().any(|p| p.extension().is_some_and(|e| e == "idx")));
    assert!(one.keys().any(|p| p.to_string_lossy().contains("hour=")));
    assert!(one.keys().any(|p| p.starts_with("lineage")));
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
    for (path, bytes) in &one {
        assert!(two[path] == *bytes, "{} differs", path.display());
    }
}

#[test]
fn a_hostile_tenant_stays_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lake");
    let tenants: Vec<Vec<u8>> =
        [&b"../x"[..], b"..", b".", b"", b"a/../../b", b"%2E", b"\xff\xfe", b"\0", "zürich".as_bytes(), b"-", b"tenant=a", b"x.tmp"]
            .iter()
            .map(|t| t.to_vec())
            .chain([vec![b'x'; 10_000], vec![b'/'; 10_000]])
            .collect();
    let lines: Vec<Line> = tenants
        .iter()
        .enumerate()
        .map(|(i, t)| Line { tenant: t.clone(), time: START, severity: 9, raw: format!("{{\"n\":{i}}}").into() })
        .collect();
    let mut lake = Lake::open(Disk::Real, &root, options(0)).unwrap();
    lake.seal(&[frame(1, 1, 0, &lines)]).unwrap();
    drop(Lake::open(Disk::Real, &root, options(0)).unwrap());
    assert!(
        files_of(folder.path()).keys().all(|p| p.starts_with("lake/logs") || p.starts_with("lake/usage") || p.starts_with("lake/_commits"))
    );
    let hits = find_all(&Disk::Real, &root, &[], "");
    let got: BTreeSet<(Vec<u8>, Vec<u8>)> = hits.into_iter().map(|h| (h.tenant, h.raw)).collect();
    assert_eq!(got, lines.iter().map(|l| (l.tenant.clone(), l.raw.clone())).collect());
    let counted = Snapshot::read(&Disk::Real, &root).unwrap().rows_by_tenant().unwrap();
    assert_eq!(counted.into_keys().collect::<BTreeSet<_>>(), tenants.into_iter().collect());
}

#[test]
fn a_lost_or_damaged_index_costs_time_and_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let lines: Vec<Line> = (0..300)
        .map(|i| line("acme", START + i, &format!(r#"{{"service":"s{}","msg":"word{i} all","trace_id":"t{i}"}}"#, i % 7)))
        .collect();
    let mut lake = Lake::open(Disk::Real, root, options(0)).unwrap();
    lake.seal(&[frame(1, 1, 0, &lines)]).unwrap();
    let index = root.join(files_of(root).into_keys().find(|p| p.extension().is_some_and(|e| e == "idx")).unwrap());
    let good = std::fs::read(&index).unwrap();
    let queries = ["word7", "t12", "service:s3 word10", "msg:word299", "word7*"];
    let answers: Vec<Vec<Hit>> = queries.iter().map(|q| find_all(&Disk::Real, root, &[], q)).collect();
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 1, 11]);
    let check = |what: &str| {
        for (query, want) in queries.iter().zip(&answers) {
            assert!(find_all(&Disk::Real, root, &[], query) == *want, "{query} after {what}");
        }
    };
    assert_eq!(find(&Disk::Real, root, &[], "word7", &SearchOptions::default()).1.rows_scanned, 1);
    for at in (0..good.len()).step_by(good.len() / 150 + 1) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        std::fs::write(&index, bad).unwrap();
        check("a changed byte");
        std::fs::write(&index, &good[..at]).unwrap();
        check("a cut");
    }
    std::fs::remove_file(&index).unwrap();
    check("its removal");
    assert_eq!(find(&Disk::Real, root, &[], "word7", &SearchOptions::default()).1.index_failures, 1);
}

#[test]
fn a_snapshot_that_is_renewed_is_as_one_that_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let lines = sample_lines(6);
    let mut lake = Lake::open(Disk::Real, root, options(0)).unwrap();
    let mut held = Arc::new(Snapshot::read(&Disk::Real, root).unwrap());
    let empty = Arc::clone(&held);
    let mut at = 0;
    for n in 0..3 {
        let one = frame(n as u64 + 1, 1, at, &lines[2 * n..2 * n + 2]);
        lake.seal(std::slice::from_ref(&one)).unwrap();
        at = end(&one);
        held.renew().unwrap();
        let read = Snapshot::read(&Disk::Real, root).unwrap();
        assert_eq!((held.number(), held.rows(), held.positions()), (read.number(), 2 * n as u64 + 2, read.positions()));
        let same = Arc::clone(&held);
        held.renew().unwrap();
        assert!(Arc::ptr_eq(&same, &held), "without a commit nothing is read");
    }
    assert_eq!(empty.rows(), 0, "who holds an older one keeps it");
}

#[test]
fn a_damaged_or_missing_commit_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let lines = sample_lines(6);
    let mut lake = Lake::open(Disk::Real, root, options(0)).unwrap();
    let first = frame(1, 1, 0, &lines[..3]);
    lake.seal(std::slice::from_ref(&first)).unwrap();
    lake.seal(&[frame(2, 1, end(&first), &lines[3..])]).unwrap();
    let path = root.join("_commits/00000001.json");
    let good = std::fs::read(&path).unwrap();
    let told = |want: &str| {
        for error in [Snapshot::read(&Disk::Real, root).err().unwrap(), Lake::open(Disk::Real, root, options(0)).err().unwrap()] {
            let text = format!("{error:#}");
            assert!(text.contains(want) && text.contains("00000001.json") | text.contains("commit 1"), "{text}");
        }
    };
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    told("is damaged");
    std::fs::remove_file(&path).unwrap();
    told("is missing");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(find_all(&Disk::Real, root, &[], "").len(), 6);
}
