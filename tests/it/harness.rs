//! Runs the program: folders of its own, arguments, signals, what it prints and how it ends.
//!
//! In: pipeline texts and arguments. Out: exit codes, output, JSON. Bound: every wait ends after [`PATIENCE`]; a program that
//! still runs when a test ends is killed.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Only a bug takes this long: the slowest wait takes a few seconds on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The program, with nothing of this process's environment that could change what it does.
pub fn weir() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.current_dir(root()).env_remove("WEIR_LOG").env_remove("RUST_LOG").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// A folder with a data folder, an input folder and pipeline files in it; removed when the test ends.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place { folder: tempfile::tempdir().expect("the temporary folder can be written to") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file; in its text `$DIR` is this place.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("folder made");
        std::fs::write(&path, text).expect("file written");
        path
    }

    /// Writes `pipeline.yaml`, with the rate card of the quickstart beside it.
    pub fn pipeline(&self, text: &str) -> PathBuf {
        std::fs::copy(root().join("pipelines/rates.yaml"), self.path("rates.yaml")).expect("copied");
        let dir = self.folder.path().to_str().expect("temporary paths are text");
        self.write("pipeline.yaml", text.replace("$DIR", dir))
    }

    pub fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("folder made");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("file opened");
        file.write_all(bytes.as_ref()).expect("file appended to");
    }

    /// `weir VERB ARGS --data DATA` run to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        let mut command = weir();
        command.args(args).arg("--data").arg(self.data());
        finish(command)
    }

    /// `weir run --once` over `pipeline.yaml`, which must go well. Returns the summary.
    #[track_caller]
    pub fn once(&self) -> Value {
        let pipeline = self.path("pipeline.yaml");
        self.run(&["run", "--once", "--json", pipeline.to_str().expect("text")]).good().json()
    }

    /// Runs a verb with `--json` and reads what it prints as one value.
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        self.run(&all).good().json()
    }

    #[track_caller]
    pub fn ledger(&self) -> Ledger {
        Ledger::of(&self.ask(&["ledger"]))
    }

    /// The ledger with the rows of its stores counted again.
    #[track_caller]
    pub fn recount(&self) -> Ledger {
        let done = self.run(&["ledger", "--recount", "--json"]);
        let ledger = Ledger::of(&done.json());
        let differs = ledger.0["recount"].as_object().expect("a recount").keys().any(|sink| ledger.difference(sink) > 0);
        assert_eq!(done.code, Some(i32::from(differs || ledger.residual() != 0)), "the exit code tells of a difference: {}", ledger.0);
        ledger
    }

    /// The original bytes of each hit.
    #[track_caller]
    pub fn search(&self, query: &str) -> Vec<Vec<u8>> {
        let done = self.run(&["search", query, "--json", "--limit", "1000000"]).good();
        lines(&done.stdout)
    }

    /// Follows its sources until told to stop.
    pub fn start(&self) -> Running {
        self.start_with(&[])
    }

    pub fn start_with(&self, args: &[&str]) -> Running {
        let mut command = weir();
        command.arg("run").arg(self.path("pipeline.yaml")).arg("--data").arg(self.data()).args(args);
        Running::spawn(command)
    }

    /// The ledger of a running program once it has received this many records in all.
    #[track_caller]
    pub fn wait_received(&self, running: &mut Running, records: u64) -> Ledger {
        self.wait_ledger(running, &format!("{records} records received"), |ledger| ledger.received() >= records)
    }

    #[track_caller]
    pub fn wait_ledger(&self, running: &mut Running, what: &str, is: impl Fn(&Ledger) -> bool) -> Ledger {
        let mut last = String::new();
        let since = Instant::now();
        loop {
            // Before the program has opened its data folder there is nothing to ask.
            let done = self.run(&["ledger", "--json"]);
            if done.code == Some(0) {
                let ledger = Ledger::of(&done.json());
                if is(&ledger) {
                    return ledger;
                }
                last = ledger.0.to_string();
            }
            assert!(running.is_running(), "weir ended while waiting for {what}:\n{}", running.stderr());
            assert!(since.elapsed() < PATIENCE, "not reached: {what}\nledger: {last}\n{}", running.stderr());
            pause();
        }
    }
}

/// Lines without their newlines.
pub fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    if lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines
}

/// Between two looks at something that another process changes.
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

#[track_caller]
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < PATIENCE, "not reached: {what}");
        pause();
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// A verb that asks no data folder, run to its end.
pub fn plain(args: &[&str]) -> Done {
    let mut command = weir();
    command.args(args);
    finish(command)
}

pub fn finish(mut command: Command) -> Done {
    let output = command.output().expect("the program starts");
    Done { code: output.status.code(), stdout: output.stdout, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
}

impl Done {
    #[track_caller]
    pub fn good(self) -> Done {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Done {
        assert_eq!(self.code, Some(code), "exit code; it said:\n{}\n{}", String::from_utf8_lossy(&self.stdout), self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {}\n{}", String::from_utf8_lossy(&self.stdout), self.stderr))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A program that runs beside the test. What it says is gathered by threads, so it never waits for us to read.
pub struct Running {
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
    gatherers: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn spawn(mut command: Command) -> Running {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let stderr = Arc::default();
        let gatherers = vec![gather(child.stderr.take().expect("piped"), Arc::clone(&stderr))];
        Running { child, stderr, gatherers }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().expect("no thread panics with it")).into_owned()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Sends a signal and waits until the program says something about it; returns what it said.
    #[track_caller]
    pub fn signal_answered(&mut self, signal: rustix::process::Signal) -> String {
        let before = self.stderr().len();
        self.signal(signal);
        wait_until("a word about the signal", || self.stderr().len() > before && self.stderr().ends_with('\n'));
        self.stderr()[before..].to_string()
    }

    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                self.gatherers.drain(..).for_each(|g| g.join().expect("gathering does not panic"));
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "weir does not end:\n{}", self.stderr());
            pause();
        }
    }

    /// SIGTERM: it must deliver what it holds and exit 0.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "after SIGTERM: {status}\n{}", self.stderr());
        self.stderr()
    }

    /// Largest resident memory so far, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("Linux tells");
        let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kib << 10
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}

fn gather(mut from: impl Read + Send + 'static, to: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            to.lock().expect("no thread panics with it").extend_from_slice(&buffer[..n]);
        }
    })
}

/// What `weir ledger --json` said about the only pipeline.
#[derive(Debug)]
pub struct Ledger(pub Value);

impl Ledger {
    #[track_caller]
    pub fn of(answer: &Value) -> Ledger {
        let pipelines = answer["pipelines"].as_object().unwrap_or_else(|| panic!("no pipelines in {answer}"));
        assert_eq!(pipelines.len(), 1, "{answer}");
        let ledger = Ledger(pipelines.values().next().expect("one").clone());
        assert_eq!(answer["residual"], ledger.0["residual"], "the residual of all is that of the only one");
        ledger
    }

    /// Of `weir ledger --recount`: by how many records and bytes a sink's stored rows differ from what it was given.
    #[track_caller]
    pub fn difference(&self, sink: &str) -> u64 {
        self.0["recount"][sink]["difference"].as_u64().unwrap_or_else(|| panic!("no recount of {sink} in {}", self.0))
    }

    fn tenants(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0["tenants"].as_object().unwrap_or_else(|| panic!("no tenants in {}", self.0)).iter()
    }

    pub fn received(&self) -> u64 {
        self.tenants().map(|(_, t)| count(&t["received"])).sum()
    }

    pub fn created(&self) -> u64 {
        self.tenants().map(|(_, t)| count(&t["created"])).sum()
    }

    pub fn kept(&self) -> u64 {
        self.tenants().map(|(_, t)| count(&t["kept"])).sum()
    }

    /// By reason.
    pub fn dropped(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (reason, tally) in self.tenants().flat_map(|(_, t)| t["dropped"].as_object().into_iter().flatten()) {
            *all.entry(reason.clone()).or_default() += count(tally);
        }
        all
    }

    pub fn notes(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (note, records) in self.tenants().flat_map(|(_, t)| t["notes"].as_object().into_iter().flatten()) {
            *all.entry(note.clone()).or_default() += records.as_u64().expect("a count");
        }
        all.retain(|_, records| *records > 0);
        all
    }

    pub fn kept_by_tenant(&self) -> BTreeMap<String, u64> {
        self.tenants().map(|(name, t)| (name.clone(), count(&t["kept"]))).filter(|(_, n)| *n > 0).collect()
    }

    /// Of a sink: `delivered`, `buffered`, `not_selected` or `rejected`, over all tenants.
    pub fn sink(&self, sink: &str, side: &str) -> u64 {
        let sink = &self.0["sinks"][sink];
        assert!(sink.is_object(), "no sink of this name in {}", self.0);
        match &sink[side] {
            Value::Null => 0,
            // By tenant and reason.
            Value::Object(tenants) if side == "rejected" => {
                tenants.values().flat_map(|reasons| reasons.as_object().into_iter().flatten()).map(|(_, tally)| count(tally)).sum()
            }
            Value::Object(tenants) if !tenants.contains_key("records") => tenants.values().map(count).sum(),
            tally => count(tally),
        }
    }

    #[track_caller]
    pub fn assert_settled(&self) {
        assert_eq!(self.residual(), 0, "residual of {}", self.0);
        for sink in self.0["sinks"].as_object().expect("sinks").keys() {
            assert_eq!(self.sink(sink, "buffered"), 0, "{sink} has records left: {}", self.0);
        }
    }

    pub fn residual(&self) -> i64 {
        match &self.0["residual"] {
            Value::String(text) => text.parse().expect("a number"),
            number => number.as_i64().unwrap_or_else(|| panic!("no residual in {}", self.0)),
        }
    }
}

/// Records of a tally.
fn count(tally: &Value) -> u64 {
    match tally {
        Value::Null => 0,
        Value::Object(tally) => tally["records"].as_u64().expect("a count"),
        number => number.as_u64().expect("a count"),
    }
}

/// The address that the program says it listens on.
#[track_caller]
pub fn admin_address(running: &Running) -> String {
    let mut found = None;
    wait_until("the admin port is open", || {
        let said = running.stderr();
        let at = said
            .find("127.0.0.1:")
            .map(|at| said[at..].chars().take_while(|c| c.is_ascii_digit() || *c == '.' || *c == ':').collect::<String>());
        found = at.filter(|_| said.ends_with('\n'));
        found.is_some()
    });
    found.expect("just found")
}

/// Status and body of an answer.
pub fn http_get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_string())
}

/// Sums over all labels but those asked for: `metric(page, "weir_kept_records_total", "tenant=\"a\"")`.
pub fn metric(page: &str, name: &str, label: &str) -> i64 {
    let ours = page.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']) && line.contains(label));
    ours.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number") as i64).sum()
}

/// Says that a test cannot run here, past the test runner's capture, so that `tests/run` sees it.
pub fn skip(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}"); // nobody to tell if standard error is gone
}

/// Whether a command can be run and exits 0.
pub fn works(program: &str, args: &[&str]) -> bool {
    let command = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    command.is_ok_and(|status| status.success())
}

/// Every file below a folder, by relative path, sorted.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            // A file may go while we look: compression and clean-up do that.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path().strip_prefix(folder).expect("below it").to_path_buf()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
