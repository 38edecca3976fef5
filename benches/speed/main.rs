//! The bench: how many MB of input a CPU second of weir takes, from tail to store.
//!
//!   cargo bench --bench speed [-- --bytes 500M --only NAME --runs 5 --dir FOLDER]
//!
//! Makes its input (`workload`), runs whole processes of `weir run --once` over it, each row one pipeline, and divides
//! bytes of input by CPU time of the process (`measure`), start and end included. `wc -l` and `cp` on the same file in
//! the same run are the floor: compare multiples, as machines differ. A row is the median by CPU of `--runs` runs after
//! one warm-up. What the warm-up stored is held against what the workload knows it must be, and each run's ledger
//! against the counts: a wrong answer is an error and exit 1, a missed target is not. The rows `steady`, `ready`, `idle`,
//! `overload` and `fair` measure a process that goes on (`live`), and so does `policies`: what each policy adds.
//! Everything lies in a temporary folder: in memory if there is room for it (about six times the input), so that the
//! disk of the machine is not in the numbers. Also not in them: what a real disk's fsync costs.

mod live;
mod measure;
mod policies;
mod workload;

use anyhow::{Context, bail, ensure};
use measure::Cost;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use workload::{Input, Rows, Workload};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
/// Combined log format as people write it for Ruby's dialect.
const COMBINED: &str = r#"^(?<remote>[^ ]*) (?<host>[^ ]*) (?<user>[^ ]*) \[(?<time>[^\]]*)\] "(?<method>\S+)(?: +(?<path>[^"]*?)(?: +\S*)?)?" (?<code>[^ ]*) (?<size>[^ ]*)(?: "(?<referer>[^"]*)" "(?<agent>[^"]*)")?$$"#;
/// Most resident memory of a row without lake.
const RESIDENT_MIB_MAX: f64 = 64.0;

struct Options {
    bytes: u64,
    only: Option<String>,
    runs: usize,
    dir: Option<PathBuf>,
}

/// One row of the table: a pipeline, its input and what is expected of it.
struct Row<'a> {
    name: &'static str,
    what: &'static str,
    input: &'a Input,
    pipeline: String,
    stored: Stored,
    /// MB of input per CPU second, at least; and what the design aims at in the long run.
    target: f64,
    aim: f64,
}

/// Where the warm-up's rows are found and which they must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    /// Nowhere; every record is kept.
    Nothing,
    /// In archive files.
    Archive(Rows),
    /// In a lake, with the tokens of all records.
    Lake(Rows),
}

impl Stored {
    fn kept(self, input: &Input) -> u64 {
        match self {
            Stored::Nothing => input.records,
            Stored::Archive(rows) | Stored::Lake(rows) => rows.count,
        }
    }
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(|options| bench(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let mut options = Options { bytes: 500_000_000, only: None, runs: 5, dir: None };
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--bytes" => options.bytes = size(&value()?)?,
            "--only" => options.only = Some(value()?),
            "--runs" => options.runs = value()?.parse().context("--runs takes a number")?,
            "--dir" => options.dir = Some(value()?.into()),
            "--bench" => {} // cargo says so
            _ => bail!("{arg} is no option; there are --bytes 500M, --only NAME, --runs 5 and --dir FOLDER (kept afterwards)"),
        }
    }
    ensure!(options.runs > 0, "--runs is 0; a median needs one run, better five");
    Ok(options)
}

/// `500M`: powers of 1000, as MB per second.
fn size(text: &str) -> anyhow::Result<u64> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().with_context(|| format!("{text} is no size; write 500M"))?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).with_context(|| format!("{text} is no size to measure with"))
}

fn bench(options: &Options) -> anyhow::Result<()> {
    let temporary;
    let dir = match &options.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            dir.as_path()
        }
        None => {
            temporary = tempfile::Builder::new().prefix("weir-bench-").tempdir_in(roomy(options.bytes * 6))?;
            temporary.path()
        }
    };
    let workload = workload::write(dir, options.bytes)?;
    let access = workload::write_access(dir, options.bytes / 2)?;
    println!("input  {} records, {:.0} MB, in {}", workload.whole.records, mb(workload.whole.bytes), dir.display());
    let rows = rows(&workload, &access)?;
    let is_wanted = |name: &str| options.only.as_ref().is_none_or(|only| only == name);
    let rows: Vec<&Row> = rows.iter().filter(|row| is_wanted(row.name)).collect();
    let live: Vec<&str> = live::ROWS.into_iter().filter(|row| is_wanted(row)).collect();
    let policies = is_wanted(policies::ROW);
    ensure!(!rows.is_empty() || !live.is_empty() || policies, "--only names no row");

    println!("{}", header());
    let floor = floors(dir, &workload, options.runs)?;
    let mut notes = Vec::new();
    let mut wrong = Vec::new();
    let mut rates = BTreeMap::new();
    for row in &rows {
        let measured = measure_row(dir, row, options.runs, &mut notes);
        match measured {
            Ok(measured) => {
                println!("{}", measured.show(row, &floor));
                rates.insert(row.name, measured.rate[0]);
            }
            Err(error) => {
                println!("{:<15} WRONG", row.name);
                wrong.push(format!("{}: {error:#}", row.name));
            }
        }
    }
    if let (Some(memory), Some(journal)) = (rates.get("policy"), rates.get("policy-journal")) {
        notes.push(format!("policy-journal: {:.2} x the CPU of policy; aim 1.3", memory / journal));
    }
    for row in live {
        match live::measure(row, dir, &workload.whole) {
            Ok(figures) => figures.iter().for_each(|figure| println!("{}", figure.show())),
            Err(error) => {
                println!("{row:<15} WRONG");
                wrong.push(format!("{row}: {error:#}"));
            }
        }
    }
    if policies && let Err(error) = policies::measure(dir, options.bytes / 2, options.runs) {
        wrong.push(format!("policies: {error:#}"));
    }
    if !rows.is_empty()
        && let Err(error) = prove_policy(dir, &workload.part)
    {
        wrong.push(format!("policy with a lake: {error:#}"));
    }
    notes.iter().for_each(|note| println!("{note}"));
    ensure!(wrong.is_empty(), "wrong answers:\n  {}", wrong.join("\n  "));
    println!("every row stored what it should; residual 0");
    Ok(())
}

/// A folder in memory if it has that much room, else the usual one for temporary files.
fn roomy(bytes: u64) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
    if free > bytes { memory.to_path_buf() } else { std::env::temp_dir() }
}

fn rows<'a>(workload: &'a Workload, access: &'a Input) -> anyhow::Result<Vec<Row<'a>>> {
    let file = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let policy = file("bench.yaml")?;
    let memory = "hub: { memory: { bytes_max: 32MiB } }";
    ensure!(policy.contains(memory), "pipelines/bench.yaml has another hub than the bench replaces");
    // Never true, and stops at the first part: what costs is that the fields are found.
    let fields =
        r#"{ drop: { when: 'status == 0 && service == "" && model == "" && request_id == "" && tokens_in < 0 && tokens_out < 0' } }"#;
    let every_line = |format: &str| {
        format!(
            "sources: {{ input: {{ file: {{ include: [\"${{BENCH_INPUT}}\"], format: {format} }} }} }}\n\
             tenancy: {{ from: [tenant] }}\nsteps: [{fields}]\n{memory}\n\
             sinks: {{ files: {{ archive: {{ path: \"{{tenant}}.log\" }} }} }}\n"
        )
    };
    let lake = |rest: &str| {
        format!(
            "sources: {{ input: {{ file: {{ include: [\"${{BENCH_INPUT}}\"], format: json }} }} }}\n\
             tenancy: {{ from: [tenant] }}\nsteps:\n  - {}\n  - {}\n{memory}\n\
             sinks: {{ store: {{ lake: {{ index: [service, model, level]{rest} }} }} }}\n",
            meter("tokens_in"),
            meter("tokens_out")
        )
    };
    let text = |parser: &str| {
        format!(
            "parsers:\n  combined:\n    format: {{ regex: '{COMBINED}' }}\n    time: {{ key: time, format: \"%d/%b/%Y:%H:%M:%S %z\" }}\n\
             sources: {{ input: {{ file: {{ include: [\"${{BENCH_INPUT}}\"], format: text, parse: [{{ with: [{parser}] }}] }} }} }}\n\
             {memory}\nsinks: {{ files: {{ archive: {{ path: \"access.jsonl\" }} }} }}\n"
        )
    };
    let (by_regex, built_in) = (text("combined"), text("nginx"));
    let Workload { whole, cri, part } = workload;
    let row = |name, what, input, pipeline, stored, target, aim| Row { name, what, input, pipeline, stored, target, aim };
    Ok(vec![
        row("tail", "text to nothing, memory hub", whole, file("bench-tail.yaml")?, Stored::Nothing, 1500.0, 1500.0),
        row("policy", "9 fields, 2 meters, policy, archive", whole, policy.clone(), Stored::Archive(whole.kept), 750.0, 750.0),
        row(
            "policy-journal",
            "the same with the journal hub",
            whole,
            policy.replace(memory, "hub: { journal: {} }"),
            Stored::Archive(whole.kept),
            550.0,
            550.0,
        ),
        row("every-line", "9 fields, archive", whole, every_line("json"), Stored::Archive(whole.all), 500.0, 500.0),
        row("cri", "5 % split: joined, 9 fields, archive", cri, every_line("cri"), Stored::Archive(cri.all), 300.0, 300.0),
        row("regex", "combined log by regex, JSON archive", access, by_regex, Stored::Nothing, 200.0, 200.0),
        row("nginx", "the same by the built-in parser", access, built_in, Stored::Nothing, 200.0, 200.0),
        row("lake", "lake, index of 3 fields", part, lake(", text: [], ids: []"), Stored::Lake(part.all), 40.0, 40.0),
        row("lake-words", "the same, words of msg and 3 ids", part, lake(""), Stored::Lake(part.all), 40.0, 40.0),
    ])
}

fn meter(field: &str) -> String {
    format!("meter: {{ name: {field}, quantity: {field}, unit: Tokens, by: [service, model] }}")
}

/// Bytes of input per CPU second of `wc -l` and `cp`.
struct Floor {
    whole: f64,
    cri: f64,
}

/// `wc -l` on both whole inputs, `cp` on one.
fn floors(dir: &Path, workload: &Workload, runs: usize) -> anyhow::Result<Floor> {
    let wc = |input: &Input| {
        let command = [OsStr::new("wc"), OsStr::new("-l"), input.path.as_os_str()];
        median(measure::repeat(runs, || Ok(()), || measure::run(dir, &[], &command))?)
    };
    let (whole, cri) = (wc(&workload.whole)?, wc(&workload.cri)?);
    let copy = dir.join("copy");
    let command = [OsStr::new("cp"), workload.whole.path.as_os_str(), copy.as_os_str()];
    let cp = median(measure::repeat(runs, || remove(&copy), || measure::run(dir, &[], &command))?)?;
    remove(&copy)?;
    let rate = |input: &Input, cost: &Cost| mb(input.bytes) / cost.cpu.as_secs_f64().max(0.001);
    let floor = Floor { whole: rate(&workload.whole, &whole), cri: rate(&workload.cri, &cri) };
    for (name, what, cost, input, of) in [
        ("wc -l", "floor", &whole, &workload.whole, floor.whole),
        ("wc -l cri", "floor of the CRI row", &cri, &workload.cri, floor.cri),
        ("cp", "", &cp, &workload.whole, floor.whole),
    ] {
        let rate = rate(input, cost);
        println!("{name:<15} {what:<36} {rate:>7.0} {:>8.1} {:>7.2}", of / rate, cost.wall.as_secs_f64());
    }
    Ok(floor)
}

fn median(costs: Vec<Cost>) -> anyhow::Result<Cost> {
    costs.get(costs.len() / 2).cloned().context("nothing was run")
}

/// A measured row.
struct Measured {
    /// MB of input per CPU second: of the median run, the dearest and the cheapest.
    rate: [f64; 3],
    wall_seconds: f64,
    resident_mib: f64,
}

fn header() -> String {
    format!(
        "{:<15} {:<36} {:>7} {:>8} {:>7} {:>7} {:>7} {:>7}  {:<8} {:>11}",
        "row", "", "MB/CPUs", "x wc -l", "wall s", "RSS MiB", "target", "aim", "", "of the runs"
    )
}

impl Measured {
    fn show(&self, row: &Row, floor: &Floor) -> String {
        let floor = if row.name == "cri" { floor.cri } else { floor.whole };
        let [rate, low, high] = self.rate;
        let fits = self.resident_mib <= RESIDENT_MIB_MAX || matches!(row.stored, Stored::Lake(_));
        let verdict = match (rate >= row.target, fits) {
            (true, true) => "ok",
            (false, true) => "MISSED",
            (true, false) => "RSS",
            (false, false) => "MISSED+RSS",
        };
        format!(
            "{:<15} {:<36} {rate:>7.0} {:>8.1} {:>7.2} {:>7.1} {:>7.0} {:>7.0}  {verdict:<8} {:>11}",
            row.name,
            row.what,
            floor / rate,
            self.wall_seconds,
            self.resident_mib,
            row.target,
            row.aim,
            format!("{low:.0}-{high:.0}"),
        )
    }
}

fn measure_row(dir: &Path, row: &Row, runs: usize, notes: &mut Vec<String>) -> anyhow::Result<Measured> {
    let file = dir.join(format!("{}.yaml", row.name));
    std::fs::write(&file, &row.pipeline).with_context(|| format!("cannot write {}", file.display()))?;
    let data = dir.join("data");
    let mut checked = false;
    let mut resident: f64 = 0.0;
    let costs = measure::repeat(
        runs,
        || remove(&data),
        || {
            let cost = weir(dir, &file, &data, row.input)?;
            resident = resident.max(check_summary(&cost.output, row)?);
            if !std::mem::replace(&mut checked, true) {
                check_stored(row, &data, notes)?;
            }
            Ok(cost)
        },
    )?;
    remove(&data)?;
    let rate = |cost: Option<&Cost>| cost.map_or(0.0, |cost| mb(row.input.bytes) / cost.cpu.as_secs_f64().max(0.001));
    let rates = [rate(costs.get(costs.len() / 2)), rate(costs.last()), rate(costs.first())];
    Ok(Measured { rate: rates, wall_seconds: median(costs)?.wall.as_secs_f64(), resident_mib: resident })
}

fn weir(dir: &Path, pipeline: &Path, data: &Path, input: &Input) -> anyhow::Result<Cost> {
    let words = [WEIR, "run", "--once", "--json", "--data"].map(OsStr::new);
    let command = [&words[..], &[data.as_os_str(), pipeline.as_os_str()]].concat();
    measure::run(dir, &[("BENCH_INPUT", &input.path)], &command)
}

/// Holds a run's own counts against the workload. Returns peak resident MiB.
fn check_summary(output: &[u8], row: &Row) -> anyhow::Result<f64> {
    let summary: Value = serde_json::from_slice(output).context("the summary is no JSON")?;
    let kept = row.stored.kept(row.input);
    equal("residual", summary["residual"].as_u64(), 0)?;
    equal("bytes read", summary["streams"]["read_bytes"].as_u64(), row.input.bytes)?;
    equal("records received", summary["received"]["records"].as_u64(), row.input.records)?;
    equal("records kept", summary["kept"]["records"].as_u64(), kept)?;
    for (name, sink) in summary["sinks"].as_object().context("the summary names no sinks")? {
        equal(&format!("records delivered to {name}"), sink["delivered"]["records"].as_u64(), kept)?;
    }
    let resident = summary["peak_resident_bytes"].as_u64().context("the summary has no peak_resident_bytes")?;
    Ok(resident as f64 / f64::from(1 << 20))
}

fn equal(what: &str, found: Option<u64>, want: u64) -> anyhow::Result<()> {
    ensure!(found == Some(want), "{what}: {}, and it must be {want}", found.map_or("nothing".to_string(), |n| n.to_string()));
    Ok(())
}

/// Holds what lies in the stores against the workload.
fn check_stored(row: &Row, data: &Path, notes: &mut Vec<String>) -> anyhow::Result<()> {
    match row.stored {
        Stored::Nothing => Ok(()),
        Stored::Archive(want) => {
            let mut found = Rows::default();
            let is_rows = |path: &PathBuf| path.file_name() != Some(OsStr::new("archive.log"));
            for path in files(&data.join("archive"))?.into_iter().filter(is_rows) {
                let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                text.strip_suffix(b"\n")
                    .unwrap_or(&text)
                    .split(|b| *b == b'\n')
                    .filter(|row| !row.is_empty())
                    .for_each(|line| found.add(line));
            }
            ensure!(found == want, "the archive holds {found:?}, and it must be {want:?}");
            Ok(())
        }
        Stored::Lake(_) => {
            check_ledger(data)?;
            check_tokens(data, row.input)?;
            let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
            for path in files(&data.join("lake"))? {
                let is_parquet = path.extension().is_some_and(|e| e == "parquet");
                let is_commit = path.extension().is_some_and(|e| e == "json");
                let kind = if is_parquet {
                    "Parquet"
                } else if is_commit {
                    "commits"
                } else {
                    "index"
                };
                *bytes.entry(kind).or_default() += path.metadata()?.len();
            }
            let raw = row.input.bytes as f64;
            let share = |bytes: u64| format!("{:.1} %", bytes as f64 * 100.0 / raw);
            let parts: Vec<String> = bytes.iter().map(|(kind, n)| format!("{kind} {}", share(*n))).collect();
            notes.push(format!("{}: {} of raw ({}); aim 25 %", row.name, share(bytes.values().sum()), parts.join(", ")));
            Ok(())
        }
    }
}

/// The law of a data folder, with every stored row counted again.
fn check_ledger(data: &Path) -> anyhow::Result<()> {
    let ledger = ask(&["ledger", "--recount", "--json"], data)?;
    equal("residual of the ledger", ledger["residual"].as_u64(), 0)?;
    for (name, count) in ledger["pipelines"].as_object().into_iter().flatten().flat_map(|(_, p)| p["recount"].as_object()).flatten() {
        equal(&format!("difference in the recount of {name}"), count["difference"].as_u64(), 0)?;
    }
    Ok(())
}

/// Tokens by tenant and service, as `cost report` has them.
fn check_tokens(data: &Path, input: &Input) -> anyhow::Result<()> {
    let card = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/rates.yaml");
    let report = ask(&["cost", "report", "--json", "--by", "tenant,service,meter", "--card", card], data)?;
    let mut found: BTreeMap<(String, String), [u64; 2]> = BTreeMap::new();
    for row in report["rows"].as_array().context("the report has no rows")? {
        let text = |key: &str| row[key].as_str().map(String::from).with_context(|| format!("a row of the report has no {key}"));
        let place = match text("meter")?.as_str() {
            "tokens_in" => 0,
            "tokens_out" => 1,
            other => bail!("the report has a meter {other}"),
        };
        found.entry((text("tenant")?, text("service")?)).or_default()[place] += text("quantity")?.parse::<u64>()?;
    }
    let wrong = input.tokens.iter().find(|(key, sums)| found.get(*key) != Some(*sums));
    if let Some((key, sums)) = wrong {
        bail!("tokens of {key:?}: {:?}, and they must be {sums:?}", found.get(key));
    }
    equal("groups in the report", Some(found.len() as u64), input.tokens.len() as u64)
}

/// The policy drops most lines; a lake beside the archive shows that their tokens are counted all the same. Not timed.
fn prove_policy(dir: &Path, input: &Input) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/bench.yaml");
    let pipeline = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(pipeline.contains("\nsinks:\n"), "pipelines/bench.yaml has no place for one more sink");
    let pipeline = pipeline.replace("\nsinks:\n", "\nsinks:\n  store: { lake: {} }\n");
    let (file, data) = (dir.join("proof.yaml"), dir.join("data"));
    std::fs::write(&file, &pipeline)?;
    remove(&data)?;
    let cost = weir(dir, &file, &data, input)?;
    let row = Row { name: "proof", what: "", input, pipeline, stored: Stored::Lake(input.kept), target: 0.0, aim: 0.0 };
    check_summary(&cost.output, &row)?;
    check_ledger(&data)?;
    check_tokens(&data, input)?;
    remove(&data)
}

/// What a query verb answers about a data folder.
fn ask(words: &[&str], data: &Path) -> anyhow::Result<Value> {
    let said = std::process::Command::new(WEIR).args(words).arg("--data").arg(data).output().context("cannot start weir")?;
    ensure!(said.status.success(), "weir {} ended with {}:\n{}", words.join(" "), said.status, String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).with_context(|| format!("weir {} answers no JSON", words.join(" ")))
}

/// Every file below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    Ok(found)
}

/// Removes a file or folder, if it is there.
fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
