//! Histograms, facets, columns, contexts and searches with a cache and threads, against a naive scan: serde_json and
//! the tree of `answers`. Sealed, half sealed, in the tail only, during a seal, with lost and damaged indexes.

use super::answers::{Ask, Random, TENANTS, generate};
use super::*;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};

/// A kept row as the naive scan knows it.
struct Known {
    line: Line,
    stream: StreamId,
    position: u64,
    weight: u32,
}

fn field(line: &Line, name: &str) -> Option<String> {
    let json = serde_json::from_str::<Value>(&String::from_utf8_lossy(&line.raw)).ok().filter(Value::is_object)?;
    let mut value = &json;
    for key in name.split('.') {
        value = value.get(key)?;
    }
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

struct World {
    disk: Disk,
    frames: Vec<Arc<Frame>>,
    rows: Vec<Known>,
}

/// Lakes of the same rows, of which so many frames are sealed.
const LAKES: [(&str, &[usize], u64); 5] =
    [("/empty", &[], 0), ("/half", &[5, 9], 0), ("/all", &[4, 12], 0), ("/plain", &[7], u64::MAX), ("/damaged", &[5, 9], 0)];

impl World {
    fn new(random: &mut Random) -> World {
        let lines: Vec<Line> = (0..1200).map(|i| generate(random, i)).collect();
        let (mut frames, mut rows, mut at) = (Vec::new(), Vec::new(), [0u64; 2]);
        for (i, chunk) in lines.chunks(100).enumerate() {
            let made = frame(i as u64 + 1, i as u64 % 2, at[i % 2], chunk);
            at[i % 2] = end(&made);
            for (row, line) in chunk.iter().enumerate() {
                let (position, weight) = (made.rows.position[row], made.rows.weight[row]);
                rows.push(Known { line: line.clone(), stream: made.parts[0].stream, position, weight });
            }
            frames.push(made);
        }
        rows.sort_by(|a, b| {
            let key = |k: &Known| (k.line.time, k.line.tenant.clone(), k.stream, k.position);
            key(a).cmp(&key(b))
        });
        let disk = Disk::Sim(Arc::new(Sim::new(1)));
        for (root, seals, index_bytes_min) in LAKES {
            let mut lake = Lake::open(disk.clone(), Path::new(root), options(index_bytes_min)).unwrap();
            for sealed in seals {
                lake.seal(&frames[..*sealed]).unwrap();
            }
        }
        let world = World { disk, frames, rows };
        world.damage(Path::new("/damaged"));
        world
    }

    /// Removes or spoils each index.
    fn damage(&self, root: &Path) {
        for (i, file) in Snapshot::read(&self.disk, root).unwrap().logs().iter().enumerate() {
            let path = root.join(file.index.as_ref().unwrap());
            let mut bytes = self.disk.read(&path).unwrap();
            let at = match i % 4 {
                0 => {
                    self.disk.unlink(&path).unwrap();
                    continue;
                }
                1 => 20,               // in the header
                2 => bytes.len() / 2,  // in some part
                _ => bytes.len() - 40, // near the end
            };
            bytes[at] ^= 0x10;
            let mut file = self.disk.create_or_truncate(&path).unwrap();
            file.append(&bytes).unwrap();
        }
    }

    fn passing(&self, ask: &Ask, options: &SearchOptions) -> Vec<&Known> {
        let in_time = |time: i64| options.since.is_none_or(|s| time >= s.0) && options.until.is_none_or(|u| time < u.0);
        let ours = |tenant: &[u8]| options.tenant.as_ref().is_none_or(|want| want.as_bytes() == tenant);
        self.rows.iter().filter(|k| in_time(k.line.time) && ours(&k.line.tenant) && ask.holds(&k.line)).collect()
    }
}

fn random_options(random: &mut Random) -> SearchOptions {
    let time = |random: &mut Random| UnixNanos(START + random.below(4) as i64 * DAY - 7);
    SearchOptions {
        tenant: (random.below(4) == 0).then(|| random.pick(&TENANTS).to_string()),
        since: (random.below(3) == 0).then(|| time(random)),
        until: (random.below(3) == 0).then(|| time(random)),
        limit: None,
        newest_first: random.below(2) == 0,
    }
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_127);
    println!("SEED={seed}");
    seed
}

#[test]
fn every_answer_equals_a_naive_scan() {
    let seed = seed();
    let mut random = Random(seed);
    let world = World::new(&mut random);
    // So small that things are forgotten all the time.
    let cache = Cache::new(300_000);
    let (mut found, mut by_index, mut failures, mut by_columns) = (0, 0, 0, 0);
    for case in 0..if std::env::var("SLOW").is_ok() { 20_000 } else { 1_000 } {
        let (root, sealed, _) = *random.pick(&LAKES);
        let snapshot = Snapshot::read(&world.disk, Path::new(root)).unwrap();
        // What is sealed may still be in the tail, as it is while a seal goes on; or only what is not.
        let whole = sealed.last().is_none_or(|last| *last < 12 || random.below(2) == 0);
        let tail = if whole { &world.frames[..] } else { &[] };
        let bounds = Bounds { threads: 1 + random.below(3), ..Bounds::default() };
        let view = View { disk: &world.disk, snapshot: &snapshot, tail, cache: &cache, bounds };
        let ask = Ask::generate(&mut random, 3);
        let mut options = random_options(&mut random);
        let wanted = world.passing(&ask, &options);
        found += wanted.len();
        let query = Query::parse(&ask.text()).unwrap();
        let name = format!("SEED={seed} case {case}: {root} {} {options:?}", ask.text());
        let stats = match random.below(5) {
            0 => histogram_is_right(&mut random, &view, &query, &options, &wanted, &name),
            1 => facets_are_right(&mut random, &view, &query, &options, &wanted, &name),
            2 => columns_are_right(&view, &query, &options, &wanted, &name),
            3 => {
                context_is_right(&mut random, &world, &view, &options, &name);
                continue;
            }
            _ => {
                options.limit = (random.below(2) == 0).then(|| random.below(40));
                search_is_right(&view, &query, &options, &wanted, [1_000, 20_000, 64 << 20][random.below(3)], &name)
            }
        };
        assert_eq!(stats.partial, None);
        by_index += stats.files_by_index;
        failures += stats.index_failures;
        by_columns += stats.rows_by_columns;
        assert!(cache.bytes() <= 300_000, "{name}");
    }
    assert!(by_index > 200 && failures > 50 && by_columns > 1_000 && found > 10_000, "{by_index} {failures} {by_columns} {found}");
}

fn search_is_right(view: &View<'_>, query: &Query, options: &SearchOptions, wanted: &[&Known], window: usize, name: &str) -> Stats {
    let mut got = Vec::new();
    let stats = view
        .search_within(query, options, window, &mut |hit| {
            got.push((hit.time.0, hit.tenant, hit.stream, hit.position, hit.weight, hit.severity, hit.raw));
            ControlFlow::Continue(())
        })
        .unwrap();
    let row = |k: &&Known| (k.line.time, k.line.tenant.clone(), k.stream, k.position, k.weight, k.line.severity, k.line.raw.clone());
    let mut want: Vec<_> = wanted.iter().map(row).collect();
    if options.newest_first {
        want.reverse();
    }
    want.truncate(options.limit.unwrap_or(usize::MAX));
    assert!(got == want, "{name}: {} hits, the naive scan has {}", got.len(), want.len());
    stats
}

fn histogram_is_right(
    random: &mut Random,
    view: &View<'_>,
    query: &Query,
    options: &SearchOptions,
    wanted: &[&Known],
    name: &str,
) -> Stats {
    let by = match random.below(6) {
        0 => HistogramBy::Nothing,
        1 => HistogramBy::Level,
        n => HistogramBy::Field(["service", "model", "user.id", "level"][n - 2].into()),
    };
    let buckets = Buckets {
        start: UnixNanos(START - 5 + random.below(2) as i64 * DAY),
        width: [DAY / 24, DAY * 10, 3_600_000_000_007][random.below(3)],
        count: 1 + random.below(40),
    };
    let (got, stats) = view.histogram(query, options, &by, buckets).unwrap();
    let mut want: BTreeMap<Group, Vec<Tally>> = BTreeMap::new();
    for known in wanted {
        let bucket = (known.line.time - buckets.start.0).div_euclid(buckets.width);
        if bucket < 0 || bucket >= buckets.count as i64 {
            continue;
        }
        let group = match &by {
            HistogramBy::Nothing => Group::Value(String::new()),
            HistogramBy::Level => Group::Value(match known.line.severity {
                9 => "info".into(),
                13 => "warn".into(),
                17 => "error".into(),
                _ => "unknown".into(),
            }),
            HistogramBy::Field(name) => field(&known.line, name).map_or(Group::Missing, Group::Value),
        };
        let tally = &mut want.entry(group).or_insert_with(|| vec![Tally::default(); buckets.count])[bucket as usize];
        tally.records += 1;
        tally.weight += u64::from(known.weight);
    }
    assert_eq!(got.groups, want, "{name} {by:?} {buckets:?}");
    stats
}

fn facets_are_right(random: &mut Random, view: &View<'_>, query: &Query, options: &SearchOptions, wanted: &[&Known], name: &str) -> Stats {
    let fields = ["service", "model", "user.id", "trace_id", "nothing"].map(String::from);
    let top = random.below(10);
    let (got, stats) = view.facets(query, options, &fields, top).unwrap();
    for (facet, of) in got.iter().zip(&fields) {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut missing = 0;
        for known in wanted {
            match field(&known.line, of) {
                Some(text) => *counts.entry(text).or_default() += 1,
                None => missing += 1,
            }
        }
        let distinct = counts.len() as u64;
        let mut values: Vec<(String, u64)> = counts.into_iter().collect();
        values.sort_by_key(|v| std::cmp::Reverse(v.1)); // stable: equal counts stay in the order of their texts
        values.truncate(top);
        let want = Facet { field: of.clone(), values, distinct, missing, is_capped: false };
        assert_eq!(*facet, want, "{name}");
    }
    stats
}

fn columns_are_right(view: &View<'_>, query: &Query, options: &SearchOptions, wanted: &[&Known], name: &str) -> Stats {
    type Seen = (i64, u8, u32, Option<String>, Option<String>, Option<String>, Option<u64>);
    let asked = Asked {
        fields: vec![
            Wanted::Text("model".into()),
            Wanted::Text("msg".into()),
            Wanted::Text("user.id".into()),
            Wanted::Number("latency_ms".into()),
        ],
        times: Times::Exact,
        severities: true,
        weights: true,
    };
    let each = |seen: &mut Vec<Seen>, batch: &Batch<'_>| {
        let text = |column: usize, row: u32| batch.columns[column].text(row).map(|t| String::from_utf8(t.to_vec()).unwrap());
        for row in batch.rows {
            let at = *row as usize;
            let number = batch.columns[3].number(*row).map(f64::to_bits);
            let about = (batch.times[at], batch.severities[at], batch.weights[at]);
            seen.push((about.0, about.1, about.2, text(0, *row), text(1, *row), text(2, *row), number));
        }
    };
    let (states, stats) = view.scan_columns(query, options, &asked, &Vec::new, &each).unwrap();
    let mut got: Vec<Seen> = states.into_iter().flatten().collect();
    let number = |line: &Line| {
        let text = field(line, "latency_ms")?;
        text.parse::<f64>().ok().map(f64::to_bits)
    };
    let row = |k: &&Known| {
        let line = &k.line;
        (line.time, line.severity, k.weight, field(line, "model"), field(line, "msg"), field(line, "user.id"), number(line))
    };
    let mut want: Vec<Seen> = wanted.iter().map(row).collect();
    got.sort();
    want.sort();
    assert!(got == want, "{name}: {} rows, the naive scan has {}", got.len(), want.len());
    stats
}

fn context_is_right(random: &mut Random, world: &World, view: &View<'_>, options: &SearchOptions, name: &str) {
    let known = random.pick(&world.rows);
    // Sometimes a position at which nothing is.
    let position = known.position.saturating_sub(random.below(2) as u64);
    let (before, after) = (random.below(12), random.below(12));
    let (hits, _) = view.context(options, (known.stream, position), before, after).unwrap();
    let ours = |k: &&Known| k.stream == known.stream && options.tenant.as_ref().is_none_or(|t| t.as_bytes() == k.line.tenant);
    let mut rows: Vec<(u64, Vec<u8>)> = world.rows.iter().filter(ours).map(|k| (k.position, k.line.raw.clone())).collect();
    rows.sort();
    let from = rows.partition_point(|row| row.0 < position);
    let to = rows.partition_point(|row| row.0 <= position);
    let want = &rows[from.saturating_sub(before)..(to + after).min(rows.len())];
    let got: Vec<(u64, Vec<u8>)> = hits.into_iter().map(|hit| (hit.position, hit.raw)).collect();
    assert!(got == want, "{name}: {before} before and {after} after {position}");
}

#[test]
fn an_answer_that_stops_early_says_so_and_how_far_it_is() {
    let mut random = Random(seed());
    let world = World::new(&mut random);
    let snapshot = Snapshot::read(&world.disk, Path::new("/all")).unwrap();
    let everything = world.passing(&Ask::All, &SearchOptions::default());
    let mut stopped = 0;
    for case in 0..60 {
        let cache = Cache::default();
        let left = AtomicU64::new(case / 2);
        let is_over = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err();
        let bounds = match case % 2 {
            0 => Bounds { is_over: Some(&is_over), ..Bounds::default() },
            _ => Bounds { bytes_max: Some(case * 4_000), ..Bounds::default() },
        };
        let view = View { disk: &world.disk, snapshot: &snapshot, tail: &[], cache: &cache, bounds };
        let mut times = Vec::new();
        let stats = view
            .search(&Query::all(), &SearchOptions::default(), &mut |hit| {
                times.push(hit.time.0);
                ControlFlow::Continue(())
            })
            .unwrap();
        let want: Vec<i64> = everything.iter().map(|k| k.line.time).collect();
        assert_eq!(times, want[..times.len()], "what is given out is right as far as it goes");
        match stats.partial {
            Some(partial) => {
                stopped += 1;
                assert_eq!(partial.why, if case % 2 == 0 { PartialWhy::Deadline } else { PartialWhy::Bytes });
                let to = partial.complete_to.unwrap().0;
                assert_eq!(times.len(), want.iter().filter(|time| **time < to).count(), "complete up to {to}");
            }
            None => assert_eq!(times.len(), want.len()),
        }
        let buckets = Buckets { start: UnixNanos(START - DAY), width: DAY, count: 10 };
        let (histogram, stats) = view.histogram(&Query::all(), &SearchOptions::default(), &HistogramBy::Nothing, buckets).unwrap();
        let counted: u64 = histogram.groups.values().flatten().map(|tally| tally.records).sum();
        assert!(stats.partial.is_some() || counted == everything.len() as u64, "{counted} and no word of it");
    }
    assert!(stopped > 20, "only {stopped} answers stopped early");
}

#[test]
fn files_of_several_row_groups_are_counted_whole_and_found_by_id() {
    let disk = Disk::Sim(Arc::new(Sim::new(1)));
    let root = Path::new("/lake");
    let rows = 270_000usize;
    let text = |i: usize| format!(r#"{{"service":"s{}","level":"info","msg":"m{}","trace_id":"{i:08x}"}}"#, i % 5, i % 7);
    let lines: Vec<Line> = (0..rows).map(|i| line("acme", START + i as i64, &text(i))).collect();
    // With every spelling of the trace id, or the lines would have to tell about those that are no columns.
    let mut lake = Lake::open(disk.clone(), root, Options { ids: Fields::default().ids, ..options(0) }).unwrap();
    lake.seal(&[frame(1, 1, 0, &lines)]).unwrap();
    let snapshot = Snapshot::read(&disk, root).unwrap();
    let view = View { disk: &disk, snapshot: &snapshot, tail: &[], cache: &Cache::default(), bounds: Bounds::default() };
    for i in [0, 1, 131_071, 131_072, 269_999, 400_000] {
        let (mut found, options) = (Vec::new(), SearchOptions::default());
        for query in [format!("trace_id:{i:08x}"), format!("{i:08x}"), format!("trace_id:{i:08x} level:info")] {
            found.clear();
            let stats = view
                .search(&Query::parse(&query).unwrap(), &options, &mut |hit| {
                    found.push(hit.raw);
                    ControlFlow::Continue(())
                })
                .unwrap();
            let want: Vec<Vec<u8>> = if i < rows { vec![text(i).into_bytes()] } else { vec![] };
            assert_eq!(found, want, "{query}");
            assert!(stats.rows_scanned < 100, "{query} read {} rows", stats.rows_scanned);
        }
    }
    let buckets = Buckets { start: UnixNanos(START), width: 100_000, count: 3 };
    for by in [HistogramBy::Nothing, HistogramBy::Level, HistogramBy::Field("service".into())] {
        let (histogram, _) = view.histogram(&Query::all(), &SearchOptions::default(), &by, buckets).unwrap();
        let sums: Vec<u64> = (0..3).map(|at| histogram.groups.values().map(|tallies| tallies[at].records).sum()).collect();
        assert_eq!(sums, [100_000, 100_000, 70_000], "{by:?}");
    }
    let (histogram, _) = view.histogram(&Query::parse("m3").unwrap(), &SearchOptions::default(), &HistogramBy::Nothing, buckets).unwrap();
    let want = (0..100_000).filter(|i| i % 7 == 3).count() as u64;
    assert_eq!(histogram.groups.values().next().unwrap()[0].records, want);
    let mut times = Vec::new();
    let newest = SearchOptions { limit: Some(50), newest_first: true, ..SearchOptions::default() };
    let stats = view
        .search(&Query::parse("m3").unwrap(), &newest, &mut |hit| {
            times.push(hit.time.0);
            ControlFlow::Continue(())
        })
        .unwrap();
    let want: Vec<i64> = (0..rows).rev().filter(|i| i % 7 == 3).take(50).map(|i| START + i as i64).collect();
    assert_eq!(times, want);
    assert!(stats.rows_scanned < 1_000, "the newest 50 cost {} rows", stats.rows_scanned);
}
