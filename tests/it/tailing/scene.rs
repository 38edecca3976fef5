//! The stage of the catalogue and its oracle: a writer with sequence numbers, what log rotators do, and what must come of it.
//!
//! In: what the scene writes and does. Out: a judgement: each tenant's archive file must hold exactly its lines in the order they
//! were written, the lake the same lines, the ledger a residual of 0 and the recount no difference. Nothing is shared with the
//! program. A log has a tenant of its own, so the order per log shows in the archive. Bound: waits end after `PATIENCE`.

use crate::harness::{Ledger, PATIENCE, Place, Running, admin_address, files_below, http_get, metric, wait_until, weir};
use crate::input::assert_same_lines;
use crate::stores::{archive_folder, file_lines};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

/// What differs from one scene's pipeline to the next.
pub struct Setup {
    /// Patterns, quoted.
    pub include: &'static str,
    /// More keys of the source, each with a comma in front.
    pub source: &'static str,
    pub hub: &'static str,
    /// More keys of the archive, each with a comma in front.
    pub files: &'static str,
    /// More sinks, each with a comma in front.
    pub sinks: &'static str,
    /// More lines of the pipeline file.
    pub more: &'static str,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { include: r#""$DIR/in/*.log""#, source: "", hub: "journal: {}", files: "", sinks: "", more: "" }
    }
}

pub struct Scene {
    pub place: Place,
    /// By tenant: lines that must come out, in order.
    want: BTreeMap<String, Vec<Vec<u8>>>,
    next: BTreeMap<String, u64>,
    notes: BTreeMap<String, u64>,
    /// In front of the program's name: `strace`, `prlimit` and their like.
    pub wrap: Vec<String>,
    /// Another copy of the program.
    pub program: Option<PathBuf>,
    running: Option<Running>,
    hub: &'static str,
}

/// The two hubs, for scenes that must go well with both, at the same time.
pub fn with_both_hubs(scene: impl Fn(&'static str) + Sync) {
    std::thread::scope(|threads| {
        let scene = &scene;
        let run = |hub| std::thread::Builder::new().name(format!("hub {hub}")).spawn_scoped(threads, move || scene(hub)).expect("a thread");
        let (one, two) = (run("journal: {}"), run("memory: {}"));
        for thread in [one, two] {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

impl Scene {
    pub fn new() -> Scene {
        Scene::of(Setup::default())
    }

    pub fn of(setup: Setup) -> Scene {
        let place = Place::new();
        std::fs::create_dir_all(place.path("in")).expect("folder made");
        let Setup { include, source, hub, files, sinks, more } = setup;
        place.pipeline(&format!(
            "sources: {{ in: {{ file: {{ include: [{include}]{source} }} }} }}\n\
             tenancy: {{ from: [tenant] }}\n\
             hub: {{ {hub} }}\n\
             sinks: {{ files: {{ archive: {{ path: \"{{tenant}}.log\", commit: {{ interval: 20ms }}{files} }} }}, store: {{ lake: {{ seal: {{ age: 200ms }} }} }}{sinks} }}\n\
             admin: {{ listen: \"127.0.0.1:0\" }}\n{more}\n"
        ));
        Scene {
            place,
            want: BTreeMap::new(),
            next: BTreeMap::new(),
            notes: BTreeMap::new(),
            wrap: Vec::new(),
            program: None,
            running: None,
            hub,
        }
    }

    // What is written, and what must come of it.

    /// The next lines of a tenant, with newlines; they must come out.
    pub fn text(&mut self, tenant: &str, count: usize) -> String {
        let mut text = String::new();
        for _ in 0..count {
            let line = self.line(tenant);
            self.expect(tenant, line.as_bytes());
            text += &line;
            text.push('\n');
        }
        text
    }

    /// The lines of a tenant that must come out.
    pub fn wanted(&self, tenant: &str) -> Vec<Vec<u8>> {
        self.want.get(tenant).cloned().unwrap_or_default()
    }

    /// Puts other lines in the place of a tenant's: what came out, where only a part could.
    pub fn want_instead(&mut self, tenant: &str, lines: Vec<Vec<u8>>) {
        self.want.insert(tenant.to_string(), lines);
    }

    /// What the archive holds of a tenant now.
    pub fn archived(&self, tenant: &str) -> Vec<Vec<u8>> {
        let path = archive_folder(&self.place.data(), "files").join(format!("{tenant}.log"));
        if path.exists() { file_lines(&path) } else { Vec::new() }
    }

    /// The next line of a tenant, which nobody expects yet.
    pub fn line(&mut self, tenant: &str) -> String {
        let n = self.next.entry(tenant.to_string()).or_default();
        *n += 1;
        let pad = "x".repeat((*n * 7 % 60) as usize);
        format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"{tenant}\",\"n\":{n},\"pad\":\"{pad}\"}}")
    }

    /// This record must come out, behind those that were expected before.
    pub fn expect(&mut self, tenant: &str, record: impl Into<Vec<u8>>) {
        self.want.entry(tenant.to_string()).or_default().push(record.into());
    }

    /// So many records must be noted so; without a word no record is.
    pub fn expect_note(&mut self, note: &str, records: u64) {
        *self.notes.entry(note.to_string()).or_default() += records;
    }

    /// Appends the next lines of a tenant to a file of the input folder.
    pub fn put(&mut self, file: &str, tenant: &str, count: usize) {
        let text = self.text(tenant, count);
        self.append(file, text);
    }

    pub fn append(&self, file: &str, bytes: impl AsRef<[u8]>) {
        self.place.append(&format!("in/{file}"), bytes);
    }

    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        self.place.write(&format!("in/{file}"), bytes);
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.place.path("in").join(file)
    }

    pub fn expected(&self) -> u64 {
        self.want.values().map(|lines| lines.len() as u64).sum()
    }

    // What rotators do.

    pub fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.path(file)).expect("removed");
    }

    /// As logrotate does it; the writer writes nothing in between.
    pub fn copy_truncate(&self, from: &str, to: &str) {
        std::fs::copy(self.path(from), self.path(to)).expect("copied");
        self.truncate(from, 0);
    }

    pub fn truncate(&self, file: &str, len: u64) {
        OpenOptions::new().write(true).open(self.path(file)).and_then(|f| f.set_len(len)).expect("truncated");
    }

    /// As `gzip FILE` does it: another file of another name with the time of the plain one, complete before that goes.
    pub fn gzip(&self, file: &str) {
        self.pack(file, "gz", gzip);
    }

    pub fn zstd(&self, file: &str) {
        self.pack(file, "zst", |bytes| zstd::encode_all(bytes, 3).expect("packed"));
    }

    fn pack(&self, file: &str, ending: &str, pack: impl Fn(&[u8]) -> Vec<u8>) {
        let modified = std::fs::metadata(self.path(file)).and_then(|m| m.modified()).expect("it is there");
        let mut out = std::fs::File::create(self.path(&format!("{file}.{ending}"))).expect("created");
        out.write_all(&pack(&std::fs::read(self.path(file)).expect("readable"))).expect("written");
        out.set_modified(modified).expect("it is ours");
        self.remove(file);
    }

    /// Until the clock of the file system has moved on: what is written next is newer than what was written before.
    pub fn tick(&self) {
        let touch = || {
            self.place.write("tick", "x");
            std::fs::metadata(self.place.path("tick")).and_then(|m| m.modified()).expect("just written")
        };
        let before = touch();
        wait_until("the clock of the file system moves", || touch() > before);
    }

    pub fn inode(&self, file: &str) -> u64 {
        std::fs::metadata(self.path(file)).expect("it is there").ino()
    }

    pub fn size(&self, file: &str) -> u64 {
        std::fs::metadata(self.path(file)).expect("it is there").len()
    }

    // The program.

    fn command(&self, args: &[&str]) -> Command {
        let ours = weir();
        let program = self.program.as_ref().map_or(ours.get_program(), |copy| copy.as_os_str());
        let mut command = match self.wrap.split_first() {
            None => weir(),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command.current_dir(crate::harness::root()).env_remove("WEIR_LOG").stdin(std::process::Stdio::null());
                command
            }
        };
        command.arg("run").arg(self.place.path("pipeline.yaml")).arg("--data").arg(self.place.data()).args(args);
        command
    }

    pub fn start(&mut self) {
        self.start_with(std::process::Stdio::null());
    }

    /// Runs with a standard output that nobody reads until [`Blocked::read`].
    pub fn start_blocked(&mut self) -> Blocked {
        self.start_with(std::process::Stdio::piped());
        let stdout = self.running().child().stdout.take().expect("piped");
        Blocked { stdout }
    }

    pub fn start_with(&mut self, stdout: std::process::Stdio) {
        assert!(self.running.is_none(), "it runs already");
        let mut command = self.command(&[]);
        command.stdout(stdout);
        let mut running = Running::spawn(command);
        // Before that a signal finds no handler, and files nobody has seen may be rotated away.
        wait_until("it is ready, or has ended", || running.stderr().contains(" ready ") || !running.is_running());
        self.running = Some(running);
    }

    #[track_caller]
    pub fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("it was started")
    }

    pub fn stderr(&mut self) -> String {
        self.running().stderr()
    }

    pub fn is_started(&self) -> bool {
        self.running.is_some()
    }

    /// Takes the program away from the scene.
    pub fn take(&mut self) -> Running {
        self.running.take().expect("it was started")
    }

    #[track_caller]
    pub fn stop(&mut self) -> String {
        let said = self.take().stop();
        self.tell("stopped", &said);
        said
    }

    /// With `WEIR_TELL=1` what each life said is printed, for whoever looks for a cause.
    pub fn tell(&self, end: &str, said: &str) {
        if std::env::var("WEIR_TELL").is_ok_and(|tell| tell == "1") {
            println!("-- {}: {end}\n{said}", self.hub);
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut running = self.take();
        running.signal(Signal::KILL);
        running.wait();
        let said = running.stderr();
        self.tell("killed", &said);
    }

    /// Stops the whole process where it stands, as a scheduler may: it sees nothing until `thaw`.
    pub fn freeze(&mut self) {
        let running = self.running();
        running.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", running.pid());
        wait_until("it stands still", || {
            std::fs::read_to_string(&stat).is_ok_and(|s| s.rsplit(") ").next().is_some_and(|s| s.starts_with('T')))
        });
    }

    pub fn thaw(&mut self) {
        self.running().signal(Signal::CONT);
    }

    /// Until everything expected was received and is in the archive.
    #[track_caller]
    pub fn wait(&mut self) -> Ledger {
        let want = self.expected();
        let running = self.running.as_mut().expect("it was started");
        let is = |l: &Ledger| l.received() >= want && l.sink("files", "buffered") == 0;
        self.place.wait_ledger(running, &format!("{want} records received and delivered"), is)
    }

    /// Until a crash can take nothing of it, even if its file is gone by then: the memory hub notes its totals once a second.
    #[track_caller]
    pub fn wait_counted(&mut self) {
        self.wait();
        if self.hub.starts_with("memory") {
            self.wait_ledger("everything in both stores", |l| ["files", "store"].iter().all(|sink| l.sink(sink, "buffered") == 0));
            let since = std::time::Instant::now();
            wait_until("the checkpoint is written", || since.elapsed() > std::time::Duration::from_millis(1_200));
        }
    }

    #[track_caller]
    pub fn wait_ledger(&mut self, what: &str, is: impl Fn(&Ledger) -> bool) -> Ledger {
        let running = self.running.as_mut().expect("it was started");
        self.place.wait_ledger(running, what, is)
    }

    #[track_caller]
    pub fn once(&self) -> Value {
        let done = crate::harness::finish(self.command(&["--once", "--json"]));
        done.good().json()
    }

    /// Waits for everything, stops and judges.
    #[track_caller]
    pub fn finish(&mut self) -> Ledger {
        self.wait();
        self.stop();
        self.check()
    }

    /// Judges the data folder of a program that does not run.
    #[track_caller]
    pub fn check(&self) -> Ledger {
        self.check_order(true)
    }

    /// `ordered`: false where the order within a tenant is nobody's to say.
    #[track_caller]
    pub fn check_order(&self, ordered: bool) -> Ledger {
        self.check_lines(ordered);
        self.check_ledger()
    }

    /// Archive and lake hold what was written, and nothing else.
    #[track_caller]
    pub fn check_lines(&self, ordered: bool) {
        let hub = self.hub;
        let folder = archive_folder(&self.place.data(), "files");
        let names: Vec<String> = files_below(&folder).iter().map(|p| p.to_string_lossy().into_owned()).collect();
        for (tenant, want) in &self.want {
            let path = folder.join(format!("{tenant}.log"));
            assert!(path.exists() || want.is_empty(), "{hub}: nothing in the archive of {tenant}: {names:?}");
            let got = if path.exists() { file_lines(&path) } else { Vec::new() };
            // A record of several lines is several lines of the file.
            let want: Vec<Vec<u8>> = want.iter().flat_map(|record| record.split(|b| *b == b'\n')).map(<[u8]>::to_vec).collect();
            assert_same_lines(&format!("{hub}: the archive of {tenant}"), &got, &want);
            if ordered && got != want {
                let at = got.iter().zip(&want).position(|(g, w)| g != w).expect("they differ");
                let show = |l: &[u8]| String::from_utf8_lossy(&l[..l.len().min(120)]).into_owned();
                panic!("{hub}: order of {tenant}: line {at} is {} and not {}", show(&got[at]), show(&want[at]));
            }
        }
        let foreign: Vec<&String> = names.iter().filter(|n| !n.strip_suffix(".log").is_some_and(|t| self.want.contains_key(t))).collect();
        assert!(foreign.is_empty(), "{hub}: the archive holds what nobody wrote: {foreign:?}");
        let all: Vec<Vec<u8>> = self.want.values().flatten().flat_map(|record| record.split(|b| *b == b'\n')).map(<[u8]>::to_vec).collect();
        assert_same_lines(&format!("{hub}: the lake"), &self.place.search(""), &all);
    }

    /// The law holds, the stored rows say the same, and so many records were received and noted as expected.
    #[track_caller]
    pub fn check_ledger(&self) -> Ledger {
        let hub = self.hub;
        let ledger = self.place.recount();
        ledger.assert_settled();
        assert_eq!((ledger.difference("files"), ledger.difference("store")), (0, 0), "{hub}: recount: {}", ledger.0);
        assert_eq!(ledger.received(), self.expected(), "{hub}: records received: {}", ledger.0);
        assert_eq!(ledger.notes(), self.notes, "{hub}: notes: {}", ledger.0);
        ledger
    }

    // The admin port.

    #[track_caller]
    pub fn get(&mut self, path: &str) -> (u16, String) {
        let address = admin_address(self.running());
        http_get(&address, path)
    }

    /// Sum of a metric over the series whose labels hold this text.
    #[track_caller]
    pub fn metric(&mut self, name: &str, label: &str) -> i64 {
        metric(&self.get("/metrics").1, name, label)
    }

    /// `/api/sources`: the only source.
    #[track_caller]
    pub fn source(&mut self) -> Value {
        let (status, body) = self.get("/api/sources");
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}"));
        answer["sources"][0].clone()
    }

    /// Waits until the source names this file as refused for this reason.
    #[track_caller]
    pub fn wait_refused(&mut self, file: &str, reason: &str) {
        let since = std::time::Instant::now();
        let path = self.path(file);
        loop {
            let source = self.source();
            let named = source["refused"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|r| r["path"] == path.to_str().expect("text") && r["reason"] == reason);
            if named {
                assert!(self.metric("weir_source_refused_files", reason) > 0, "the metric does not count what /api/sources names");
                return;
            }
            assert!(since.elapsed() < PATIENCE / 4, "{file} is not refused as {reason}: {source}");
            std::thread::sleep(std::time::Duration::from_millis(20)); // between two looks
        }
    }
}

/// The reading end of a standard output, full until somebody reads.
pub struct Blocked {
    stdout: std::process::ChildStdout,
}

impl Blocked {
    /// From now on somebody reads; the thread ends with the program and has the lines.
    pub fn read(mut self) -> std::thread::JoinHandle<Vec<Vec<u8>>> {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut self.stdout, &mut all).expect("a pipe can be read");
            crate::harness::lines(&all)
        })
    }
}

/// One member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes it")
}

/// A line of the container runtime.
pub fn cri(output: &str, tag: &str, text: &str) -> String {
    format!("2026-11-23T03:00:00.000000001Z {output} {tag} {text}\n")
}

/// The long variants of a test are asked for.
pub fn slow() -> bool {
    std::env::var("SLOW").is_ok_and(|slow| slow == "1")
}

/// Runs as many scenes as there are, at the same time: most of their time is waiting.
pub fn at_once<T: Sync>(cases: &[T], run: impl Fn(&T) + Sync) {
    std::thread::scope(|threads| {
        let all: Vec<_> = cases.iter().map(|case| threads.spawn(|| run(case))).collect();
        for thread in all {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
