//! How long questions take over a lake: each one cold (nothing of the lake held in memory but the system's own cache of
//! files) and warm (footers and indexes held), with what it cost.
//!
//! `cargo bench -p lake --bench answers -- [--records 10M] [--seed 7] [--dir DIR] [--threads 2] [--runs 9] [--compare]`.
//! Without `--dir` the lake is made in memory (/dev/shm) and removed; with it, it is kept and used again. `--compare`
//! also writes the lines to a file, plain and with zstd, and asks rg, zstdgrep and jq the same, where they are
//! installed. The targets of the issue, for 10 M records and 2 cores: trace id 20 ms, rare word 50, newest hundred 50,
//! histogram 300, p99 by model 500, first row of a scan 1,000.

mod data;

use anyhow::{Context, bail};
use flow::units::UnixNanos;
use hub::disk::Disk;
use lake::{Batch, Bounds, Buckets, Cache, HistogramBy, Pipeline, Query, SearchOptions, Snapshot, Stats, View};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// As `query.memory` is by default.
const MEMORY_BYTES: usize = 256 << 20;

struct Args {
    records: u64,
    seed: u64,
    dir: Option<PathBuf>,
    threads: usize,
    runs: usize,
    compare: bool,
    only: Option<String>,
}

fn args() -> anyhow::Result<Args> {
    let mut args = Args { records: 1_000_000, seed: 7, dir: None, threads: 2, runs: 9, compare: false, only: None };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().with_context(|| format!("{name} needs a value"));
        match name.as_str() {
            "--records" => args.records = count(&value()?)?,
            "--seed" => args.seed = value()?.parse()?,
            "--dir" => args.dir = Some(value()?.into()),
            "--threads" => args.threads = value()?.parse()?,
            "--runs" => args.runs = value()?.parse()?,
            "--only" => args.only = Some(value()?),
            "--compare" => args.compare = true,
            "--bench" => {} // cargo says so
            _ => bail!("{name} is not known; see the head of benches/answers/main.rs"),
        }
    }
    Ok(args)
}

fn count(text: &str) -> anyhow::Result<u64> {
    let (digits, unit) = match text.strip_suffix('M') {
        Some(digits) => (digits, 1_000_000),
        None => (text, 1),
    };
    Ok(digits.parse::<u64>()? * unit)
}

/// A question: how often it was asked says which needle to look for. Returns what was found, and the cost.
type Question<'a> = Box<dyn Fn(&View<'_>, usize) -> anyhow::Result<(u64, Stats)> + 'a>;

fn search<'a>(text: impl Fn(usize) -> String + 'a, options: SearchOptions) -> Question<'a> {
    Box::new(move |view, run| {
        let query = Query::parse(&text(run)).map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut found = 0;
        let stats = view.search(&query, &options, &mut |_| {
            found += 1;
            ControlFlow::Continue(())
        })?;
        Ok((found, stats))
    })
}

/// Latencies by model, to the tenth of a percent, as a histogram with 1,000 steps per factor of e.
fn table(view: &View<'_>, query: &str) -> anyhow::Result<(u64, Stats)> {
    let query = Query::parse(query).map_err(|error| anyhow::anyhow!("{error}"))?;
    let make = || Pipeline::new(&query, &view.snapshot.fields(), MEMORY_BYTES / view.bounds.threads);
    let each = |state: &mut anyhow::Result<Pipeline>, batch: &Batch<'_>| {
        if let Ok(pipeline) = state
            && let Err(error) = pipeline.push_batch(batch)
        {
            *state = Err(error);
        }
    };
    let mut whole = Pipeline::new(&query, &view.snapshot.fields(), MEMORY_BYTES)?;
    let (parts, stats) = view.scan_columns(&query, &SearchOptions::default(), &whole.asked(), &make, &each)?;
    for part in parts {
        whole.merge(part?)?;
    }
    Ok((whole.finish()?.rows.len() as u64, stats))
}

fn questions(needles: &data::Needles) -> Vec<(&'static str, Question<'_>)> {
    let pick = |list: &'_ [String], run: usize| list[run % list.len()].clone();
    let everything = SearchOptions::default;
    let newest = || SearchOptions { limit: Some(100), newest_first: true, ..SearchOptions::default() };
    let first = || SearchOptions { limit: Some(1), ..SearchOptions::default() };
    let buckets = Buckets { start: UnixNanos(data::START_NS), width: data::DAY_NS / 96, count: 97 };
    let histogram = move |text: &'static str, by: HistogramBy| -> Question<'_> {
        Box::new(move |view, _| {
            let query = Query::parse(text).map_err(|error| anyhow::anyhow!("{error}"))?;
            let (histogram, stats) = view.histogram(&query, &SearchOptions::default(), &by, buckets)?;
            Ok((histogram.groups.values().flatten().map(|tally| tally.records).sum(), stats))
        })
    };
    let names = ["service", "level", "model", "region", "method", "status"].map(String::from);
    vec![
        ("trace_id:ID", search(move |run| format!("trace_id:{}", pick(&needles.traces, run)), everything())),
        ("ID as a bare word", search(move |run| pick(&needles.traces, run), everything())),
        ("rare word", search(move |run| pick(&needles.words, run), everything())),
        ("newest 100 of a common word", search(|_| "completed".into(), newest())),
        ("newest 100 errors of a service", search(|_| "level:error service:chat-8b-decode".into(), newest())),
        ("newest 100 of everything", search(|_| "".into(), newest())),
        ("histogram by level, everything", histogram("", HistogramBy::Level)),
        ("histogram by level, one word", histogram("completed", HistogramBy::Level)),
        ("histogram by model, everything", histogram("", HistogramBy::Field("model".into()))),
        ("histogram of a phrase", histogram("\"connection reset by peer\"", HistogramBy::Nothing)),
        ("p99(latency_ms) by model", Box::new(|view, _| table(view, "* | stats p99(latency_ms) by (model)"))),
        ("counts and sums of errors", Box::new(|view, _| table(view, "level:error | stats count(), sum(tokens_in) by (tenant, service)"))),
        ("numbers over a bound", Box::new(|view, _| table(view, "latency_ms:>5000 | stats count() by (model)"))),
        (
            "6 facets, everything",
            Box::new(move |view, _| {
                let (facets, stats) = view.facets(&Query::all(), &SearchOptions::default(), &names, 10)?;
                Ok((facets.iter().map(|f| f.distinct).sum(), stats))
            }),
        ),
        ("first row of a scan, common", search(|_| "msg:*cached_tokens=1*".into(), first())),
        ("first row of a scan, 1 in 100,000", search(|_| "msg:*_tokens=*7?queue_ms=40*".replace('?', "*"), first())),
        (
            "context, 10 before and after",
            Box::new(move |view, run| {
                let query = Query::parse(&pick(&needles.traces, run)).map_err(|error| anyhow::anyhow!("{error}"))?;
                let mut hit = None;
                view.search(&query, &SearchOptions::default(), &mut |found| {
                    hit = Some(found);
                    ControlFlow::Break(())
                })?;
                let hit = hit.context("the needle is not there")?;
                let (hits, stats) = view.context(&SearchOptions::default(), (hit.stream, hit.position), 10, 10)?;
                Ok((hits.len() as u64, stats))
            }),
        ),
    ]
}

/// What this process has used of the processors, over all threads, in steps of 10 ms: on a busy machine it says more
/// than the clock. 0 where there is no /proc.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |at: usize| stat.rsplit(')').next()?.split_whitespace().nth(at)?.parse::<f64>().ok();
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) * 10.0
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn main() -> anyhow::Result<()> {
    let args = args()?;
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?),
    };
    let folder = args.dir.clone().or_else(|| Some(temporary.as_ref()?.path().to_path_buf())).context("no folder")?;
    let lines = folder.join("lines.ndjson");
    if !folder.join("words").exists() {
        std::fs::create_dir_all(&folder)?;
        let start = Instant::now();
        data::build(&folder, args.records, args.seed, args.compare.then_some(&lines))?;
        println!("{} records put into {} in {:.1?}, seed {}", args.records, folder.display(), start.elapsed(), args.seed);
    }
    let needles = data::needles(&folder)?;
    let snapshot = Snapshot::read(&Disk::Real, &folder.join("lake"))?;
    println!("{} rows, {} threads\n", snapshot.rows(), args.threads);
    println!(
        "{:36} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6} {:>9} {:>9} {:>9}",
        "question", "cold ms", "warm ms", "cpu ms", "found", "files", "opened", "judged", "MiB", "index MiB"
    );
    let kept = Cache::new(1 << 30);
    for (name, ask) in questions(&needles) {
        if args.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let (mut cold, mut warm, mut cpu) = (Vec::new(), Vec::new(), 0.0);
        let mut last = None;
        for is_warm in [false, true] {
            for run in 0..args.runs {
                let fresh = Cache::default();
                let (cache, times) = if is_warm { (&kept, &mut warm) } else { (&fresh, &mut cold) };
                let bounds = Bounds { threads: args.threads, ..Bounds::default() };
                let view = View { disk: &Disk::Real, snapshot: &snapshot, tail: &[], cache, bounds };
                // The kept cache has seen this needle before: what is warm is everything.
                if is_warm {
                    ask(&view, run)?;
                }
                let (start, before) = (Instant::now(), cpu_ms());
                let answer = ask(&view, run)?;
                times.push(start.elapsed());
                cpu += if is_warm { cpu_ms() - before } else { 0.0 };
                last = Some(answer);
            }
        }
        let Some((found, stats)) = last else { continue };
        println!(
            "{name:36} {:9.1} {:9.1} {:9.1} {found:9} {:6} {:6} {:9} {:9.2} {:9.2}",
            median(cold),
            median(warm),
            cpu / args.runs as f64,
            stats.files,
            stats.files_opened,
            stats.rows_scanned + stats.rows_by_columns,
            stats.bytes_read as f64 / f64::from(1 << 20),
            stats.index_bytes_read as f64 / f64::from(1 << 20),
        );
        if name.ends_with("everything") && name.starts_with("histogram") && found != snapshot.rows() {
            bail!("{name}: {found} records were counted, the lake has {}", snapshot.rows());
        }
        if args.only.is_some() {
            for (name, value) in stats.explain() {
                println!("    {name:36} {value}");
            }
        }
    }
    println!("\n{} MiB held in the warm cache", kept.bytes() >> 20);
    if args.compare {
        compare(&lines, &needles)?;
    }
    Ok(())
}

/// The same questions to the programs that people have.
fn compare(lines: &Path, needles: &data::Needles) -> anyhow::Result<()> {
    if !lines.exists() {
        bail!("{} is not there: make the lake anew with --compare", lines.display());
    }
    let plain = lines.display().to_string();
    let packed = format!("{plain}.zst");
    if !Path::new(&packed).exists() {
        run("zstd", &["-q", "-3", &plain, "-o", &packed]);
    }
    let (trace, word) = (needles.traces[1].as_str(), needles.words[1].as_str());
    println!("\n{:58} {:>9}", "other programs on the same lines, both in the page cache", "ms");
    let count_levels = "reduce inputs as $x ({}; .[$x.level] += 1)";
    for (name, arguments) in [
        ("rg", vec!["-c", trace, &plain]),
        ("rg", vec!["-c", word, &plain]),
        ("rg", vec!["-m", "1", "cached_tokens=.*7 queue_ms=40", &plain]),
        ("grep", vec!["-c", trace, &plain]),
        ("zstdgrep", vec!["-c", trace, &packed]),
        ("zstdgrep", vec!["-c", word, &packed]),
        ("jq", vec!["-n", count_levels, &plain]),
    ] {
        let label = format!("{name} {}", arguments[..arguments.len() - 1].join(" "));
        match run(name, &arguments) {
            Some(took) => println!("{label:58.58} {:9.0}", took.as_secs_f64() * 1e3),
            None => println!("{label:58.58} {name} is not installed"),
        }
    }
    Ok(())
}

/// How long a program ran; `None`: it is not there.
fn run(name: &str, arguments: &[&str]) -> Option<Duration> {
    let start = Instant::now();
    Command::new(name).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    Some(start.elapsed())
}
