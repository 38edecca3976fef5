//! Rows of a process that goes on: what it costs to follow a log, to wait for one, to start, and to be offered too much; and
//! what one tenant that sends too much costs the others.
//!
//! In: the workload's lines. Out: a figure or two a row, against its target. Each row starts `weir run` in a folder of its own,
//! looks at `/proc` from outside, stops it with SIGTERM and asks its ledger whether anything was lost. CPU time is the sum
//! over its threads as the scheduler counts it, in nanoseconds. Bound: a row takes at most half a minute; a process that is
//! not ready after [`PATIENCE`] is an error.

use super::workload::Input;
use anyhow::{Context, bail, ensure};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A process that does nothing for so long has a bug.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LINES_PER_SECOND: usize = 10_000;
const IDLE_FILES: usize = 10_000;

/// One figure: how much, of what, and what it should be at most or at least.
pub struct Figure {
    pub row: &'static str,
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    pub target: Target,
}

#[derive(Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    pub fn show(&self) -> String {
        let (sign, target, holds) = match self.target {
            Target::AtMost(target) => ("<=", target, self.value <= target),
            Target::AtLeast(target) => (">=", target, self.value >= target),
        };
        let verdict = if holds { "ok" } else { "MISSED" };
        format!("{:<15} {:<52} {:>8.2} {:<4} {sign} {target:<6} {verdict}", self.row, self.what, self.value, self.unit)
    }
}

/// The names of the rows, in their order.
pub const ROWS: [&str; 5] = ["steady", "ready", "idle", "overload", "fair"];

pub fn measure(row: &str, dir: &Path, input: &Input) -> anyhow::Result<Vec<Figure>> {
    let dir = dir.join("live");
    super::remove(&dir)?;
    std::fs::create_dir_all(dir.join("in")).with_context(|| format!("cannot create {}", dir.display()))?;
    let figures = match row {
        "steady" => steady(&dir, input),
        "ready" => ready(&dir),
        "idle" => idle(&dir, input),
        "overload" => overload(&dir, input),
        "fair" => fair(&dir),
        _ => bail!("{row} is no row of a running process"),
    };
    super::remove(&dir)?;
    figures
}

const ARCHIVE: &str = "{ files: { archive: { path: \"{tenant}.log\" } } }";
const MEMORY: &str = "{ memory: { bytes_max: 8MiB } }";

/// Writes a pipeline over `dir/in/*.log`.
fn pipeline(dir: &Path, hub: &str, sinks: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join("live.yaml");
    let include = dir.join("in/*.log");
    let text = format!(
        "lanes: 1\nsources: {{ input: {{ file: {{ include: [\"{}\"], format: json }} }} }}\n\
         tenancy: {{ from: [tenant] }}\nhub: {hub}\nsinks: {sinks}\n",
        include.display()
    );
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// 10,000 lines a second for ten seconds, each kept: the share of a core, and resident memory.
fn steady(dir: &Path, input: &Input) -> anyhow::Result<Vec<Figure>> {
    let (running, _) = Running::start(dir, &pipeline(dir, MEMORY, ARCHIVE)?, Stdio::null())?;
    let mut offer = Offer::new(dir, input)?;
    offer.lines(LINES_PER_SECOND, Duration::from_secs(1))?; // files are opened, buffers grow
    let (cpu, since) = (running.cpu()?, Instant::now());
    offer.lines(LINES_PER_SECOND, Duration::from_secs(10))?;
    let share = (running.cpu()? - cpu).as_secs_f64() / since.elapsed().as_secs_f64();
    let resident = running.peak_mib()?;
    running.stop(dir, offer.written)?;
    let figure = |what: &str, value, unit, most| Figure { row: "steady", what: what.into(), value, unit, target: Target::AtMost(most) };
    Ok(vec![
        figure("10,000 lines/s to an archive: CPU of one core", share * 100.0, "%", 2.0),
        figure("the same: peak resident memory", resident, "MiB", 30.0),
    ])
}

/// From `exec` to the word that it is ready; the median of eleven.
fn ready(dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let pipeline = pipeline(dir, MEMORY, ARCHIVE)?;
    let mut times = Vec::new();
    for _ in 0..11 {
        super::remove(&dir.join("data"))?;
        let (running, took) = Running::start(dir, &pipeline, Stdio::null())?;
        times.push(took);
        drop(running);
    }
    times.sort();
    let value = times[times.len() / 2].as_secs_f64() * 1e3;
    Ok(vec![Figure { row: "ready", what: "start to ready, new data folder".into(), value, unit: "ms", target: Target::AtMost(50.0) }])
}

/// 10,000 files of one line that nobody writes to any more.
fn idle(dir: &Path, input: &Input) -> anyhow::Result<Vec<Figure>> {
    let line = first_line(input)?;
    for n in 0..IDLE_FILES {
        std::fs::write(dir.join(format!("in/{n:05}.log")), &line)?;
    }
    let (running, _) = Running::start(dir, &pipeline(dir, MEMORY, ARCHIVE)?, Stdio::null())?;
    let since = Instant::now();
    while received(dir)? < IDLE_FILES as u64 {
        ensure!(since.elapsed() < PATIENCE, "{} of {IDLE_FILES} files were read after {PATIENCE:?}", received(dir)?);
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(2)); // the first looks after the last line
    let (cpu, since) = (running.cpu()?, Instant::now());
    std::thread::sleep(Duration::from_secs(15));
    let share = (running.cpu()? - cpu).as_secs_f64() / since.elapsed().as_secs_f64();
    running.stop(dir, IDLE_FILES as u64)?;
    let what = "idle with 10,000 files: CPU of one core".into();
    Ok(vec![Figure { row: "idle", what, value: share * 100.0, unit: "%", target: Target::AtMost(1.0) }])
}

/// Bytes a second that the reader of standard output takes.
const READER_BYTES: usize = 16_000_000;

/// A sink that takes so much a second behind a journal of its smallest size; offered what it takes, then twice that until
/// long after the journal is full. What the reader gets in the end, as a share of what it gets at best.
fn overload(dir: &Path, input: &Input) -> anyhow::Result<Vec<Figure>> {
    let pipeline = pipeline(dir, "{ journal: { bytes_max: 64MiB } }", "{ out: { stdout: {} } }")?;
    let (mut running, _) = Running::start(dir, &pipeline, Stdio::piped())?;
    let mut offer = Offer::new(dir, input)?;
    let bytes_per_line = input.bytes as usize / input.records as usize;
    let lines = READER_BYTES / bytes_per_line;
    let mut reader = Reader { from: running.child.stdout.take().context("standard output is piped")?, taken: 0 };
    let mut phase = |lines: usize, seconds: u64, reader: &mut Reader| -> anyhow::Result<Vec<u64>> {
        std::thread::scope(|scope| {
            let offers = scope.spawn(|| offer.lines(lines, Duration::from_secs(seconds)));
            let rates = reader.seconds(seconds)?;
            offers.join().expect("writing a file does not panic")?;
            Ok(rates)
        })
    };
    let single = phase(lines, 6, &mut reader)?;
    // 16 MB/s too much fill 64 MiB in 4 s: the last 6 of these 12 s are past that.
    let double = phase(lines * 2, 12, &mut reader)?;
    let best = single[1..].iter().chain(&double).copied().max().unwrap_or(0);
    let last = &double[6..];
    let at_end = last.iter().sum::<u64>() / last.len() as u64;
    // What was offered too much is still in the files: nothing is lost, the rest is not waited for.
    drop(reader);
    drop(running);
    ensure!(best > 0, "nothing came out");
    let what = format!("offered {} MB/s, a sink that takes {}: share of its best", 2 * READER_BYTES / 1_000_000, READER_BYTES / 1_000_000);
    let value = at_end as f64 * 100.0 / best as f64;
    Ok(vec![Figure { row: "overload", what, value, unit: "%", target: Target::AtLeast(95.0) }])
}

/// Takes [`READER_BYTES`] a second, in pieces of a fiftieth.
struct Reader {
    from: ChildStdout,
    taken: u64,
}

impl Reader {
    /// Bytes taken in each of the next seconds.
    fn seconds(&mut self, seconds: u64) -> anyhow::Result<Vec<u64>> {
        let mut rates = Vec::new();
        let mut piece = vec![0; READER_BYTES / 50];
        let start = Instant::now();
        for second in 0..seconds {
            let before = self.taken;
            for slice in 0..50 {
                let end = start + Duration::from_secs(second) + Duration::from_millis(20 * (slice + 1));
                let mut due = piece.len();
                // A pipe holds less than is due: what comes within the slice is taken.
                while due > 0 && Instant::now() < end {
                    let there = rustix::io::ioctl_fionread(&self.from)? as usize;
                    if there == 0 {
                        std::thread::sleep(Duration::from_micros(200));
                        continue;
                    }
                    let n = self.from.read(&mut piece[..due.min(there)])?;
                    self.taken += n as u64;
                    due -= n;
                }
                pause_until(end);
            }
            rates.push(self.taken - before);
        }
        Ok(rates)
    }
}

/// Tenants that send little, each to a file of its own, one line in [`QUIET_EACH`].
const QUIET: usize = 1000;
const QUIET_EACH: Duration = Duration::from_millis(800);
const TICK: Duration = Duration::from_millis(20);
/// How long quiet tenants are alone, and how long beside one that is not.
const ALONE: Duration = Duration::from_secs(6);
const BESIDE: Duration = Duration::from_secs(12);

/// Two lanes and 1,000 tenants; then one more that sends much more than its share. How long the others' lines take from being
/// written to standard output, at the 99th percentile, as a multiple of what it was before.
fn fair(dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    // A tenant's share of the sink is 4 kB/s; the noisy one offers 2,000 times that, so that the sink falls behind.
    let (slow, sends) = (4_000_000, 8_000_000);
    let appends = |over: &AtomicBool, since: Instant| -> anyhow::Result<()> {
        let mut file = File::create(dir.join("in/noisy.log"))?;
        for tick in 1.. {
            let mut text = String::new();
            while text.len() < sends / 50 {
                text.push_str(&told("noisy", since));
            }
            file.write_all(text.as_bytes())?;
            if over.load(Ordering::Relaxed) {
                return Ok(());
            }
            pause_until(since + TICK * tick);
        }
        Ok(())
    };
    figures.push(beside(dir, "slow sink", "", slow, &appends)?);
    // Whole files, more than lanes get done: none of it reaches the sink.
    let appears = |over: &AtomicBool, since: Instant| -> anyhow::Result<()> {
        let block: String = (0..20_000).map(|_| told("noisy", since)).collect();
        for n in 0.. {
            std::fs::write(dir.join("making"), &block)?;
            std::fs::rename(dir.join("making"), dir.join(format!("in/noisy-{n}.log")))?;
            if over.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    };
    let steps = "steps: [{ redact: { detect: [email], fields: [msg] } }, { drop: { when: 'tenant == \"noisy\"' } }]\n";
    figures.push(beside(dir, "busy lanes", steps, 1_000_000_000, &appears)?);
    Ok(figures)
}

/// A line that says when it was written.
fn told(tenant: &str, since: Instant) -> String {
    let sent = since.elapsed().as_micros();
    format!(
        "{{\"sent\":{sent},\"tenant\":\"{tenant}\",\"level\":\"info\",\"msg\":\"words to fill a line, and to user@example.org a few more\"}}\n"
    )
}

/// When each quiet line was sent and how long it took, in µs.
type Delays = Vec<(u64, u64)>;

/// Quiet tenants, alone and then beside `noise`, before a reader that takes so many bytes a second.
fn beside(
    dir: &Path,
    what: &str,
    steps: &str,
    reader_bytes: u64,
    noise: &(dyn Fn(&AtomicBool, Instant) -> anyhow::Result<()> + Sync),
) -> anyhow::Result<Figure> {
    super::remove(&dir.join("in"))?;
    super::remove(&dir.join("data"))?;
    std::fs::create_dir_all(dir.join("in"))?;
    let path = dir.join("live.yaml");
    let include = dir.join("in/*.log");
    let text = format!(
        "lanes: 2\nsources: {{ input: {{ file: {{ include: [\"{}\"], format: json }} }} }}\ntenancy: {{ from: [tenant] }}\n{steps}\
         hub: {{ journal: {{ bytes_max: 64MiB }} }}\nsinks: {{ out: {{ stdout: {{}} }} }}\n",
        include.display()
    );
    std::fs::write(&path, text)?;
    let since = Instant::now();
    let mut files: Vec<File> = (0..QUIET).map(|n| File::create(dir.join(format!("in/{n}.log")))).collect::<std::io::Result<_>>()?;
    let (mut running, _) = Running::start(dir, &path, Stdio::piped())?;
    let stdout = running.child.stdout.take().context("standard output is piped")?;
    let over = AtomicBool::new(false);
    let mut written = 0;
    let (delays, turn) = std::thread::scope(|scope| -> anyhow::Result<(Delays, u64)> {
        let reader = scope.spawn(|| take(stdout, reader_bytes, since));
        let mut quiet = |time: Duration| -> anyhow::Result<()> {
            let start = Instant::now();
            for tick in 1..=(time.as_millis() / TICK.as_millis()) as u32 {
                for _ in 0..QUIET as u128 * TICK.as_millis() / QUIET_EACH.as_millis() {
                    files[written % QUIET].write_all(told(&(written % QUIET).to_string(), since).as_bytes())?;
                    written += 1;
                }
                pause_until(start + TICK * tick);
            }
            Ok(())
        };
        quiet(Duration::from_secs(1))?; // files are opened, tenants become known
        let begin = since.elapsed().as_micros() as u64;
        quiet(ALONE)?;
        let turn = since.elapsed().as_micros() as u64;
        let noisy = scope.spawn(|| noise(&over, Instant::now()));
        let result = quiet(BESIDE);
        over.store(true, Ordering::Relaxed);
        noisy.join().expect("making noise does not panic")?;
        result?;
        // The last lines are on their way; whatever has not come by then is late, and missing.
        std::thread::sleep(Duration::from_secs(3));
        drop(running);
        let mut delays = reader.join().expect("reading lines does not panic")?;
        ensure!(delays.len() * 100 >= written * 99, "{} of {written} lines of quiet tenants came", delays.len());
        delays.retain(|delay| delay.0 >= begin);
        Ok((delays, turn))
    })?;
    let p99 = |is: &dyn Fn(u64) -> bool| {
        let mut all: Vec<u64> = delays.iter().filter(|d| is(d.0)).map(|d| d.1).collect();
        all.sort_unstable();
        all.get(all.len() * 99 / 100).copied().unwrap_or(0) as f64 / 1e3
    };
    let (alone, beside) = (p99(&|sent| sent < turn), p99(&|sent| sent >= turn));
    let what = format!("{what}: p99 of 1,000 tenants, {beside:.0} ms for {alone:.0}");
    Ok(Figure { row: "fair", what, value: beside / alone, unit: "x", target: Target::AtMost(2.0) })
}

/// Takes lines at so many bytes a second; the delays of those that are not the noisy tenant's.
fn take(from: ChildStdout, bytes_per_second: u64, since: Instant) -> anyhow::Result<Delays> {
    let mut from = BufReader::with_capacity(4096, from);
    let (mut delays, mut line) = (Delays::new(), String::new());
    let mut due = Instant::now();
    loop {
        line.clear();
        if from.read_line(&mut line)? == 0 {
            return Ok(delays);
        }
        let now = since.elapsed().as_micros() as u64;
        if !line.contains("\"noisy\"") {
            let digits = line.strip_prefix("{\"sent\":").and_then(|rest| rest.split(',').next()).context("a line begins otherwise")?;
            let sent: u64 = digits.parse().context("a line was sent at no time")?;
            delays.push((sent, now.saturating_sub(sent)));
        }
        // What was not taken while nothing came is not made up for.
        due = due.max(Instant::now() - TICK) + Duration::from_secs_f64(line.len() as f64 / bytes_per_second as f64);
        if due > Instant::now() + Duration::from_millis(1) {
            pause_until(due);
        }
    }
}

fn pause_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// Appends the workload's lines to a file at a pace.
struct Offer {
    from: BufReader<File>,
    input: PathBuf,
    to: File,
    written: u64,
}

impl Offer {
    fn new(dir: &Path, input: &Input) -> anyhow::Result<Offer> {
        let to = File::create(dir.join("in/live.log"))?;
        Ok(Offer { from: BufReader::new(File::open(&input.path)?), input: input.path.clone(), to, written: 0 })
    }

    /// Writes this many lines a second, in twenty pieces.
    fn lines(&mut self, per_second: usize, time: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        let pieces = (time.as_millis() / 50) as usize;
        let mut text = Vec::new();
        for piece in 0..pieces {
            text.clear();
            for _ in 0..per_second * (piece + 1) / 20 - per_second * piece / 20 {
                if self.from.read_until(b'\n', &mut text)? == 0 {
                    self.from = BufReader::new(File::open(&self.input)?);
                    self.from.read_until(b'\n', &mut text)?;
                }
                self.written += 1;
            }
            self.to.write_all(&text)?;
            pause_until(start + Duration::from_millis(50 * (piece as u64 + 1)));
        }
        Ok(())
    }
}

fn first_line(input: &Input) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    BufReader::new(File::open(&input.path)?).read_until(b'\n', &mut text)?;
    Ok(text)
}

/// Records received, as the running process says.
fn received(dir: &Path) -> anyhow::Result<u64> {
    let ledger = super::ask(&["ledger", "--json"], &dir.join("data"))?;
    let tenants = ledger["pipelines"]["live"]["tenants"].as_object().context("the ledger has no tenants")?;
    Ok(tenants.values().filter_map(|tenant| tenant["received"]["records"].as_u64()).sum())
}

/// A `weir run` that follows its files; killed if it is not stopped.
pub struct Running {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Running {
    /// Starts it and waits until it says that it is ready. Returns how long that took.
    pub fn start(dir: &Path, pipeline: &Path, stdout: Stdio) -> anyhow::Result<(Running, Duration)> {
        let since = Instant::now();
        let mut command = Command::new(super::WEIR);
        command.arg("run").arg("--data").arg(dir.join("data")).arg(pipeline).env_remove("WEIR_LOG");
        let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().context("cannot start weir")?;
        let stderr = BufReader::new(child.stderr.take().context("standard error is piped")?);
        let mut running = Running { child, stderr };
        let mut said = String::new();
        while !said.contains(" ready ") && !said.ends_with("ready\n") {
            said.clear();
            ensure!(running.stderr.read_line(&mut said)? > 0, "weir ended before it was ready");
        }
        Ok((running, since.elapsed()))
    }

    /// CPU time of all threads so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            total += text.split(' ').next().unwrap_or_default().parse::<u64>().context("schedstat begins with no number")?;
        }
        Ok(Duration::from_nanos(total))
    }

    fn peak_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("the kernel names no VmHWM")?;
        let kib: f64 = line.split_whitespace().nth(1).unwrap_or_default().parse().context("VmHWM is no number")?;
        Ok(kib / 1024.0)
    }

    /// Ends it in order; `records` must have been received.
    pub fn stop(mut self, dir: &Path, records: u64) -> anyhow::Result<()> {
        let since = Instant::now();
        while received(dir)? < records {
            ensure!(since.elapsed() < PATIENCE, "{} of {records} records were received", received(dir)?);
            std::thread::sleep(Duration::from_millis(20));
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)?;
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "weir ended with {status}:\n{said}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}
