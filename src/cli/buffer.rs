//! `weir buffer`: what waits in the journals of a data folder.
//!
//! In: a data folder, whether a process runs on it or not. Out: segments and who still needs them (`ls`), every damaged place
//! with the rule and the way out (`fsck`), rows or headers of frames that are still there (`cat`, `replay`). Reads files only;
//! positions never move. `fsck --repair` does what the next start would do, and needs the folder for itself.

use crate::cli::{Mistake, say, table};
use crate::desk::{self, Question};
use crate::runtime::delay::DELAY;
use crate::runtime::open::{self, Manifest};
use anyhow::{Context, bail};
use clap::Subcommand;
use flow::event::{Outcome, StreamId};
use hub::inspect::{self, Report};
use hub::{Disk, Frame};
use serde_json::{Map, Value, json};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[derive(Subcommand)]
pub enum Verb {
    /// Segments, frames, bytes and times of each journal, and how far each sink lags behind.
    Ls {
        #[arg(long, default_value = "weir-data")]
        data: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Read everything: checksums, order, and every account against the frames before it. Exit 1 if something is damaged.
    Fsck {
        #[arg(long, default_value = "weir-data")]
        data: PathBuf,
        /// Put aside what is damaged and go on with what is good, as the next start would. No process may run.
        #[arg(long)]
        repair: bool,
        #[arg(long)]
        json: bool,
    },
    /// Print the rows of frames that are still there, as the bytes that were received.
    Cat {
        #[command(flatten)]
        range: Range,
        /// At most this many rows, or with `--headers` frames; the oldest first.
        #[arg(long)]
        limit: Option<u64>,
        /// Print what was decided about each frame instead of its rows: parts, positions, counts, facts.
        #[arg(long)]
        headers: bool,
        /// One JSON object a line: the row with its stream, position and frame.
        #[arg(long)]
        json: bool,
    },
    /// Write the rows that are still there once more, in order, to a file or standard output. No position moves: nothing
    /// knows of it, and what the sink has already is among them.
    Replay {
        #[command(flatten)]
        range: Range,
        /// The rows that this sink takes, of the pipeline that has it.
        #[arg(long)]
        sink: String,
        /// A file that does not exist yet, or `-` for standard output.
        #[arg(long)]
        to: PathBuf,
        /// One JSON object a line: the row with its stream, position and frame.
        #[arg(long)]
        json: bool,
    },
}

/// Which frames and rows.
#[derive(clap::Args)]
pub struct Range {
    #[arg(long, default_value = "weir-data")]
    data: PathBuf,
    /// Only this pipeline; NAME.delay: what waits for the verdict of tail sampling, or was decided and stays for a restart.
    #[arg(long)]
    pipeline: Option<String>,
    /// Only rows of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// From this frame on.
    #[arg(long, default_value_t = 0)]
    from_seq: u64,
    /// Up to this frame, itself included.
    #[arg(long, default_value_t = u64::MAX)]
    to_seq: u64,
}

pub fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Ls { data, json } => ls(data, *json),
        Verb::Fsck { data, repair, json } => fsck(data, *repair, *json),
        Verb::Cat { range, limit, headers, json } => {
            let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
            match headers {
                true => print_headers(range, *limit, &mut out)?,
                false => print_rows(range, &delivered(range)?, None, *limit, *json, &mut out)?,
            }
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Replay { range, sink, to, json } => replay(range, sink, to, *json),
    }
}

/// Pipelines whose frames are asked for: without a name, those that sinks read, and not what waits for a verdict.
fn delivered(range: &Range) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = pipelines(&range.data, range.pipeline.as_deref())?;
    found.retain(|(name, _)| range.pipeline.is_some() || !name.ends_with(DELAY));
    Ok(found)
}

/// Pipelines with a journal, and its folder; a delay line is one more, `NAME.delay`.
fn pipelines(data: &Path, only: Option<&str>) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for name in Disk::Real.list(&data.join("hub")).with_context(|| format!("cannot read {}", data.display()))? {
        let folder = data.join("hub").join(&name);
        let name = name.to_string_lossy().into_owned();
        if folder.is_dir() && only.is_none_or(|only| only == name) {
            found.push((name, folder));
        }
    }
    if found.is_empty() {
        let what = only.map_or_else(|| "no pipeline ran on it".to_string(), |name| format!("no pipeline is called {name}"));
        return Err(Mistake(format!("{}: {what}; name a data folder with --data", data.display())).into());
    }
    Ok(found)
}

fn segment_view(report: &Report) -> Vec<Value> {
    let time = |t: Option<flow::units::UnixNanos>| t.map(|t| t.0);
    let view = |s: &inspect::Segment| {
        json!({
            "file": s.path.file_name().map(|n| n.to_string_lossy()), "bytes": s.bytes, "frames": s.frames, "frames_lost": s.frames_lost,
            "rows": s.rows, "rows_bytes": s.rows_bytes, "first_seq": s.first_seq, "last_seq": s.last_seq,
            "oldest_ns": time(s.oldest), "newest_ns": time(s.newest),
        })
    };
    report.segments.iter().map(view).collect()
}

fn ls(data: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut all = Map::new();
    let mut rows = vec![["pipeline", "segment", "frames", "first", "last", "rows", "bytes"].map(String::from).to_vec()];
    for (name, folder) in pipelines(data, None)? {
        let report = inspect::look(&Disk::Real, &folder, false).with_context(|| format!("cannot read {}", folder.display()))?;
        for s in &report.segments {
            let number = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
            let file = s.path.file_name().map_or(String::new(), |n| n.to_string_lossy().into_owned());
            let counts = [s.frames.to_string(), number(s.first_seq), number(s.last_seq), s.rows.to_string(), s.bytes.to_string()];
            rows.push([name.clone(), file].into_iter().chain(counts).collect());
        }
        let sum = |of: fn(&inspect::Segment) -> u64| report.segments.iter().map(of).sum::<u64>();
        let view =
            json!({ "segments": segment_view(&report), "frames": sum(|s| s.frames), "rows": sum(|s| s.rows), "bytes": sum(|s| s.bytes) });
        all.insert(name, view);
    }
    // How far sinks are is known to whoever has the stores open.
    let mut answer = desk::ask(data, &Question::Ledger { recount: false })?;
    let ledger: Value = serde_json::from_str(&answer.line()?.context("the answer is empty")?)?;
    let mut lags = Vec::new();
    for (name, view) in all.iter().filter(|(name, _)| name.ends_with(DELAY)) {
        lags.push(format!("delay line {name}: {} rows wait for tail sampling, or stay for a restart\n", view["rows"]));
    }
    for (name, pipeline) in ledger["pipelines"].as_object().into_iter().flatten() {
        let mut sinks = Map::new();
        for (sink, totals) in pipeline["sinks"].as_object().into_iter().flatten() {
            let buffered = &totals["buffered"];
            lags.push(format!("sink {name}.{sink} lags by {} records, {} bytes\n", buffered["records"], buffered["bytes"]));
            sinks.insert(sink.clone(), json!({ "buffered": buffered, "rejected": totals["rejected"] }));
        }
        if let Some(view) = all.get_mut(name) {
            view["sinks"] = sinks.into();
        }
    }
    match json {
        true => say(&format!("{:#}\n", json!({ "pipelines": all })))?,
        false => say(&(table(&rows, 2) + &lags.concat()))?,
    }
    Ok(ExitCode::SUCCESS)
}

const RULE: &str = "what is written is summed, and each sum must match";
const WAY_OUT: &str =
    "the next start puts it aside and goes on, and so does `weir buffer fsck --repair`; or restore the file from a copy first";

fn fsck(data: &Path, repair: bool, json: bool) -> anyhow::Result<ExitCode> {
    let pipelines = pipelines(data, None)?;
    let mut repaired = Vec::new();
    if repair {
        let Some(_lock) = open::lock(data, Duration::from_secs(1))? else {
            bail!("a process runs on {}; stop it before --repair", data.display());
        };
        for (name, folder) in &pipelines {
            let notices = inspect::repair(&Disk::Real, folder, usize::MAX).with_context(|| format!("pipeline {name}"))?;
            repaired.extend(notices);
        }
    }
    let (mut problems, mut views, mut text) = (0, Map::new(), String::new());
    repaired.iter().for_each(|notice| text.push_str(&format!("repaired: {notice}\n")));
    for (name, folder) in pipelines {
        let report = inspect::look(&Disk::Real, &folder, true).with_context(|| format!("cannot read {}", folder.display()))?;
        problems += report.problems.len();
        for problem in &report.problems {
            let place = format!("{}: byte {}", problem.path.display(), problem.offset);
            text.push_str(&format!("{place}: {}\n  {RULE}\n  help: {WAY_OUT}\n", problem.what));
        }
        let frames: u64 = report.segments.iter().map(|s| s.frames).sum();
        let bytes: u64 = report.segments.iter().map(|s| s.bytes).sum();
        text.push_str(&format!("{name}: {} segments, {frames} frames, {bytes} bytes: ", report.segments.len()));
        text.push_str(&match report.problems.len() {
            0 => "good\n".to_string(),
            n => format!("{n} damaged\n"),
        });
        if report.tail_bytes > 0 {
            text.push_str(&format!(
                "{name}: {} bytes at the end are no whole record: being written, or torn and cut at the next start\n",
                report.tail_bytes
            ));
        }
        let told: Vec<Value> = report
            .problems
            .iter()
            .map(|p| json!({ "file": p.path.display().to_string(), "offset": p.offset, "what": p.what, "rule": RULE, "help": WAY_OUT }))
            .collect();
        let view = json!({ "segments": report.segments.len(), "frames": frames, "bytes": bytes, "tail_bytes": report.tail_bytes, "problems": told });
        views.insert(name, view);
    }
    match json {
        true => say(&format!("{:#}\n", json!({ "pipelines": views, "repaired": repaired, "good": problems == 0 })))?,
        false => say(&text)?,
    }
    Ok(ExitCode::from(u8::from(problems > 0)))
}

/// `sink`: only the rows that it takes.
fn print_rows(
    range: &Range,
    pipelines: &[(String, PathBuf)],
    sink: Option<&str>,
    limit: Option<u64>,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut left = limit.unwrap_or(u64::MAX);
    for (name, folder) in pipelines {
        inspect::frames(&Disk::Real, folder, range.from_seq, range.to_seq, &mut |frame| {
            let frame = Arc::new(frame);
            let frame = match sink {
                Some(sink) => frame.only_for(sink),
                None => frame,
            };
            for part in &frame.parts {
                for i in part.rows.start as usize..part.rows.end as usize {
                    let tenant = &frame.tenants[frame.rows.tenant[i] as usize];
                    if range.tenant.as_ref().is_some_and(|only| only.as_bytes() != &**tenant) {
                        continue;
                    }
                    if left == 0 {
                        return Ok(false);
                    }
                    left -= 1;
                    match json {
                        true => serde_json::to_writer(&mut *out, &row_view(name, &frame, part.stream, tenant, i))?,
                        false => out.write_all(frame.rows.row(i))?,
                    }
                    out.write_all(b"\n")?;
                }
            }
            Ok(true)
        })?;
    }
    Ok(())
}

fn row_view(pipeline: &str, frame: &Frame, stream: StreamId, tenant: &[u8], i: usize) -> Value {
    let raw = frame.rows.row(i);
    let mut view = json!({
        "pipeline": pipeline, "seq": frame.seq, "stream": format!("{:016x}", stream.0), "position": frame.rows.position[i],
        "time_ns": frame.rows.time[i], "tenant": String::from_utf8_lossy(tenant),
    });
    match std::str::from_utf8(raw) {
        Ok(text) => view["raw"] = text.into(),
        // Bytes that are no text, as they are: two hexadecimal digits each.
        Err(_) => view["raw_hex"] = raw.iter().map(|b| format!("{b:02x}")).collect::<String>().into(),
    }
    view
}

fn print_headers(range: &Range, limit: Option<u64>, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut left = limit.unwrap_or(u64::MAX);
    for (name, folder) in delivered(range)? {
        inspect::frames(&Disk::Real, &folder, range.from_seq, range.to_seq, &mut |frame| {
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            serde_json::to_writer(&mut *out, &header_view(&name, &frame))?;
            out.write_all(b"\n")?;
            Ok(true)
        })?;
    }
    Ok(())
}

fn header_view(pipeline: &str, frame: &Frame) -> Value {
    let tenant = |t: u32| String::from_utf8_lossy(&frame.tenants[t as usize]).into_owned();
    let outcome = |o: Outcome| match o {
        Outcome::Kept => "kept",
        Outcome::Created => "created",
        Outcome::Dropped(reason) => reason.name(),
    };
    let part = |part: &hub::frame::Part| {
        let counts = part.counts.iter();
        let counts: Vec<Value> = counts
            .map(|c| json!({ "tenant": tenant(c.tenant), "outcome": outcome(c.outcome), "records": c.records, "bytes": c.bytes }))
            .collect();
        let facts = part.facts.iter().map(|f| {
            let meter = &frame.meters[f.meter as usize];
            let dims = meter.dims.iter().zip(&f.dims);
            let dims: Map<String, Value> =
                dims.map(|(name, v)| (name.clone(), String::from_utf8_lossy(&frame.values[*v as usize]).into_owned().into())).collect();
            let mut view = json!({ "tenant": tenant(f.tenant), "meter": meter.name, "minute": f.minute, "dims": dims, "quantity": f.quantity.to_string(), "events": f.events });
            if let Some(event) = &f.event {
                let key = String::from_utf8_lossy(&event.key);
                view["event"] = json!({ "kind": event.kind.name(), "at": event.at.rfc3339(), "end": event.end.rfc3339(), "key": key, "position": event.position });
            }
            view
        });
        let facts: Vec<Value> = facts.collect();
        json!({
            "stream": format!("{:016x}", part.stream.0), "from": part.from, "to": part.to, "resume": part.resume,
            "rows": part.rows.end - part.rows.start, "counts": counts, "facts": facts,
        })
    };
    let lost = frame
        .lost
        .as_ref()
        .map(|lost| json!({ "reason": lost.reason.name(), "first_seq": lost.first_seq, "rows": inspect::rows_of(frame) }));
    json!({
        "pipeline": pipeline, "seq": frame.seq, "received_ns": frame.received.0, "newest_ns": frame.newest.0, "rows": frame.rows.len(),
        "lost": lost, "parts": frame.parts.iter().map(part).collect::<Vec<_>>(),
    })
}

fn replay(range: &Range, sink: &str, to: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let manifest = Manifest::read(&range.data)?;
    let with_sink = manifest.pipelines.iter().filter(|p| p.config.sinks.contains_key(sink)).map(|p| p.name.clone());
    let with_sink: Vec<String> = with_sink.filter(|name| range.pipeline.as_ref().is_none_or(|only| only == name)).collect();
    if with_sink.is_empty() {
        let known: Vec<String> = manifest.pipelines.iter().flat_map(|p| p.config.sinks.keys().cloned()).collect();
        return Err(
            Mistake(format!("no pipeline of {} has a sink {sink}\n  help: sinks are: {}", range.data.display(), known.join(", "))).into()
        );
    }
    let folders: Vec<(String, PathBuf)> = pipelines(&range.data, None)?.into_iter().filter(|(name, _)| with_sink.contains(name)).collect();
    if to == Path::new("-") {
        let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
        print_rows(range, &folders, Some(sink), None, json, &mut out)?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = std::fs::File::options().write(true).create_new(true).open(to);
    let mut out = BufWriter::with_capacity(
        64 << 10,
        match file {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Mistake(format!(
                    "{} exists; nothing is written over\n  help: name another file, or - for standard output",
                    to.display()
                ))
                .into());
            }
            other => other.with_context(|| format!("cannot create {}", to.display()))?,
        },
    );
    print_rows(range, &folders, Some(sink), None, json, &mut out)?;
    out.flush()?;
    out.get_ref().sync_all().with_context(|| format!("cannot make {} durable", to.display()))?;
    Ok(ExitCode::SUCCESS)
}
