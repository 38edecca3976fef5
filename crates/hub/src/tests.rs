//! The hub as its users see it, on a simulated disk that crashes at every operation.
//!
//! The model is a list of frames: what was accepted, how much of it was published, and what two sinks have. After each
//! crash the hub must hold every published frame exactly, in order, and nothing that was never accepted. To see that
//! each fsync is needed, the same model is run with one of them broken, and must fail.

use crate::account::Account;
use crate::cursor::{Cursor, Next};
use crate::disk::{Disk, Loss, Sim, Site};
use crate::frame::{Frame, StateChange};
use crate::hub::{AcceptError, Hub, Limits, OpenError, Recovered};
use crate::ledger::{RowCount, Tally};
use crate::sample::{self, Random};
use flow::event::{Note, Outcome, StreamId};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SINKS: [&str; 2] = ["archive", "lake"];
const TENANTS_MAX: usize = 100;

fn dir() -> &'static Path {
    Path::new("/data/journal")
}

/// Three frames fill a segment, two the window.
fn small() -> Limits {
    Limits { bytes_max: 1 << 20, window_bytes_max: 1500, segment_bytes: 1300, sync_interval: Duration::from_millis(1), sync_bytes: 1 << 20 }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Form {
    Journal,
    Memory,
}

struct Model {
    form: Form,
    random: Random,
    sim: Arc<Sim>,
    /// Frame i has number i + 1.
    frames: Vec<Frame>,
    /// Was being accepted when the disk failed: may be there or not.
    maybe: Option<Frame>,
    /// Journal: must survive. Memory: the last checkpoint that was written.
    floor: u64,
    /// What each sink has for good.
    has: [u64; 2],
    next_offset: u64,
}

struct Live {
    hub: Arc<Hub>,
    cursors: Vec<Cursor>,
    given: [u64; 2],
}

impl Model {
    fn new(form: Form, seed: u64, broken: Option<Site>) -> Model {
        let sim = Sim::new(seed);
        broken.iter().for_each(|site| sim.break_site(site));
        Model { form, random: Random(seed + 1), sim: Arc::new(sim), frames: Vec::new(), maybe: None, floor: 0, has: [0; 2], next_offset: 0 }
    }

    fn frame(&mut self) -> Frame {
        let stream = 1 + self.random.below(3);
        let from = self.next_offset;
        self.next_offset += 1 + self.random.below(9);
        let mut frame = sample::plain(
            &[(stream, from, self.next_offset)],
            format!("t{}", self.random.below(3)).as_bytes(),
            self.random.below(4) as u32,
        );
        let mut entry = vec![0; 32];
        entry[0] = self.random.below(4) as u8;
        entry[8..16].copy_from_slice(&self.next_offset.to_le_bytes());
        frame.state.push(StateChange { step: self.random.below(2) as u32, bytes: entry });
        frame
    }

    /// What the first frames add up to.
    fn account(&self, seq: u64) -> Account {
        let mut account = Account::new(TENANTS_MAX);
        for frame in &self.frames[..seq as usize] {
            account.fold(frame, &RowCount::of(frame));
        }
        account
    }

    fn open(&self) -> Result<(Hub, Recovered), OpenError> {
        let disk = Disk::Sim(Arc::clone(&self.sim));
        match self.form {
            Form::Journal => Hub::open_journal(disk, dir(), small(), TENANTS_MAX),
            Form::Memory => Hub::open_memory(disk, dir(), small(), TENANTS_MAX),
        }
    }

    /// One life of the hub: recover, check, work; ends at a failure or after `actions`. The text is a broken promise.
    fn live(&mut self, actions: u64) -> Result<(), String> {
        let (hub, recovered) = match self.open() {
            Ok(opened) => opened,
            Err(_) if self.failed() => return Ok(()),
            Err(e) => return Err(format!("cannot open: {e}")),
        };
        self.check_recovered(&recovered)?;
        let hub = Arc::new(hub);
        let position = |seq: u64, account: &Account| -> HashMap<StreamId, u64> {
            if seq == 0 { HashMap::new() } else { account.positions.iter().map(|(s, p)| (*s, p.done)).collect() }
        };
        let cursors = (0..2).map(|i| hub.cursor(SINKS[i], position(self.has[i], &self.account(self.has[i])))).collect();
        let mut live = Live { hub, cursors, given: self.has };
        if self.form == Form::Memory {
            live.given = [recovered.last_seq; 2];
        }
        for _ in 0..actions {
            match self.act(&mut live) {
                Ok(()) => {}
                Err(Broken::Promise(text)) => return Err(text),
                Err(Broken::Disk) if !self.failed() => return Err("an error without a failure of the disk".into()),
                Err(Broken::Disk) if self.sim.is_down() || live.hub.lock().failed.is_some() => return Ok(()),
                Err(Broken::Disk) => {} // lives on
            }
        }
        match self.drain(&mut live) {
            Err(Broken::Promise(text)) => Err(text),
            Err(Broken::Disk) | Ok(()) => Ok(()),
        }
    }

    fn failed(&self) -> bool {
        self.sim.troubled()
    }

    fn check_recovered(&mut self, recovered: &Recovered) -> Result<(), String> {
        let last = recovered.last_seq;
        if last < self.floor {
            return Err(format!("frame {} was promised, the last one is {last}", self.floor));
        }
        self.frames.extend(self.maybe.take().map(|mut frame| {
            frame.seq = self.frames.len() as u64 + 1;
            frame
        }));
        if last > self.frames.len() as u64 {
            return Err(format!("frame {last} was never accepted"));
        }
        self.frames.truncate(last as usize);
        let want = self.account(last);
        if recovered.positions != want.positions {
            return Err(format!("positions at {last}: {:?} and not {:?}", recovered.positions, want.positions));
        }
        if self.form == Form::Journal {
            self.floor = last; // sinks may see it now, so it must stay
            if recovered.state != want.state() {
                return Err(format!("state of steps at {last}"));
            }
        } else {
            if self.has.iter().any(|has| *has < last) {
                return Err(format!("positions are at {last}, but a sink has only {:?}", self.has));
            }
            self.has = [last; 2]; // the sinks' own positions skip what is sent again; here they forget it
        }
        Ok(())
    }

    fn act(&mut self, live: &mut Live) -> Result<(), Broken> {
        let sink = self.random.below(2) as usize;
        match self.random.below(10) {
            0..=3 => self.accept(live),
            4 if self.form == Form::Journal => {
                live.hub.commit().map_err(|_| Broken::Disk)?;
                self.floor = self.frames.len() as u64;
                Ok(())
            }
            4 => {
                let settled = self.has[0].min(self.has[1]);
                live.hub.checkpoint().map_err(|_| Broken::Disk)?;
                self.floor = settled;
                Ok(())
            }
            5 | 6 => self.commit_sink(live, sink),
            _ => {
                for _ in 0..1 + self.random.below(6) {
                    self.next(live, sink)?;
                }
                Ok(())
            }
        }
    }

    fn accept(&mut self, live: &Live) -> Result<(), Broken> {
        let mut frame = self.frame();
        self.maybe = Some(frame.clone());
        match live.hub.accept(frame.clone()) {
            Ok(seq) if seq != self.frames.len() as u64 + 1 => {
                return Err(Broken::Promise(format!("number {seq} after {}", self.frames.len())));
            }
            Ok(seq) => frame.seq = seq,
            Err(AcceptError::Disk(_)) => return Err(Broken::Disk),
            Err(e) => return Err(Broken::Promise(e.to_string())),
        }
        self.maybe = None;
        self.frames.push(frame);
        Ok(())
    }

    fn next(&mut self, live: &mut Live, sink: usize) -> Result<bool, Broken> {
        let next = live.cursors[sink].next(Duration::ZERO).map_err(|e| self.disk_or(e))?;
        let Next::Frame(frame) = next else { return Ok(false) };
        if frame.seq != live.given[sink] + 1 {
            return Err(Broken::Promise(format!("{} was given frame {} after {}", SINKS[sink], frame.seq, live.given[sink])));
        }
        if self.frames.get(frame.seq as usize - 1) != Some(&*frame) {
            return Err(Broken::Promise(format!("frame {} is not what was accepted", frame.seq)));
        }
        live.given[sink] = frame.seq;
        if self.form == Form::Journal {
            self.floor = self.floor.max(frame.seq); // a new segment publishes, too
        }
        Ok(true)
    }

    fn disk_or(&self, e: io::Error) -> Broken {
        if self.failed() { Broken::Disk } else { Broken::Promise(e.to_string()) }
    }

    fn commit_sink(&mut self, live: &mut Live, sink: usize) -> Result<(), Broken> {
        let span = live.given[sink] - self.has[sink];
        let seq = live.given[sink] - if span > 1 { self.random.below(span / 2 + 1) } else { 0 };
        self.has[sink] = seq; // the store is durable before it says so
        live.cursors[sink].committed(seq).map_err(|_| Broken::Disk)
    }

    /// Everything that was accepted arrives, and the law holds with nothing left over.
    fn drain(&mut self, live: &mut Live) -> Result<(), Broken> {
        live.hub.commit().map_err(|e| self.disk_or(e))?;
        self.floor = if self.form == Form::Journal { self.frames.len() as u64 } else { self.floor };
        for (sink, name) in SINKS.into_iter().enumerate() {
            while self.next(live, sink)? {}
            if live.given[sink] != self.frames.len() as u64 {
                return Err(Broken::Promise(format!("{} frames of {} arrived", live.given[sink], self.frames.len())));
            }
            let tail = live.hub.tail(name).map_err(|e| self.disk_or(e))?;
            if tail.iter().map(|f| f.seq).ne(self.has[sink] + 1..=live.given[sink]) {
                return Err(Broken::Promise("the tail is not what the sink has not committed".into()));
            }
            self.has[sink] = live.given[sink];
            live.cursors[sink].committed(self.has[sink]).map_err(|e| self.disk_or(e))?;
        }
        let (ledger, want) = (live.hub.ledger(), self.account(self.frames.len() as u64).books.totals());
        if ledger.totals != want || ledger.residual() != 0 || ledger.sinks.values().any(|s| !s.buffered.is_empty()) {
            return Err(Broken::Promise(format!("the ledger is off by {}: {ledger:?}", ledger.residual())));
        }
        Ok(())
    }

    fn reboot(&mut self, loss: Loss) {
        self.sim = Arc::new(self.sim.reboot(loss));
    }
}

#[derive(Debug)]
enum Broken {
    Promise(String),
    Disk,
}

const ACTIONS: u64 = 60;

/// Lives through a crash at operation `at`, another one somewhere after it, and a clean life.
fn crash_twice(form: Form, seed: u64, at: u64, losses: [Loss; 2], broken: Option<Site>) -> Result<(), String> {
    let mut model = Model::new(form, seed, broken);
    model.sim.crash_at(at);
    model.live(ACTIONS)?;
    model.reboot(losses[0]);
    let again = 1 + model.random.below(40);
    model.sim.crash_at(again);
    model.live(ACTIONS)?;
    model.reboot(losses[1]);
    model.live(ACTIONS)?;
    model.reboot(Loss::LoseUnsynced);
    model.live(0)
}

fn ops_of(form: Form, seed: u64) -> u64 {
    let mut model = Model::new(form, seed, None);
    model.live(ACTIONS).unwrap();
    model.sim.ops()
}

fn losses(seed: u64) -> [[Loss; 2]; 5] {
    let luck = |n| Loss::Seeded(seed * 10 + n);
    [[Loss::LoseUnsynced; 2], [Loss::KeepAll; 2], [Loss::KeepAll, Loss::LoseUnsynced], [luck(1), luck(2)], [luck(3), Loss::KeepAll]]
}

/// Every crash point of some runs; the first promise that breaks, with how to see it again.
fn search(form: Form, seeds: std::ops::Range<u64>, broken: Option<Site>) -> Result<u64, String> {
    let mut crashes = 0;
    for seed in seeds {
        for at in 1..=ops_of(form, seed) {
            for losses in losses(seed * 1000 + at) {
                crash_twice(form, seed, at, losses, broken).map_err(|e| format!("seed {seed}, crash at {at}, {losses:?}: {e}"))?;
                crashes += 1;
            }
        }
    }
    Ok(crashes)
}

fn seeds(quick: u64) -> std::ops::Range<u64> {
    match std::env::var("SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..quick + if std::env::var("SLOW").is_ok() { 200 } else { 1 },
    }
}

#[test]
fn a_published_frame_survives_every_crash_and_no_frame_is_invented() {
    let crashes = search(Form::Journal, seeds(20), None).unwrap_or_else(|e| panic!("{e}"));
    assert!(crashes > 100, "{crashes} crashes");
}

#[test]
fn the_memory_hub_never_forgets_a_checkpoint_and_never_runs_ahead_of_a_sink() {
    let crashes = search(Form::Memory, seeds(20), None).unwrap_or_else(|e| panic!("{e}"));
    assert!(crashes > 100, "{crashes} crashes");
}

#[test]
fn no_fsync_of_the_journal_can_be_left_out() {
    let sites = [
        "hub.folder",
        "journal.begin",
        "journal.commit",
        "journal.end",
        "journal.names",
        "journal.recover",
        "journal.retain",
        "journal.tail",
    ];
    check_sites(Form::Journal, &sites);
}

#[test]
fn no_fsync_or_rename_of_the_memory_hub_can_be_left_out() {
    check_sites(Form::Memory, &["hub.folder", "memory.data", "memory.keep", "memory.names", "memory.publish"]);
}

/// These sites are all there are, and without any of them a promise breaks.
#[track_caller]
fn check_sites(form: Form, want: &[Site]) {
    let mut seen = BTreeSet::new();
    for seed in 1..10 {
        let mut model = Model::new(form, seed, None);
        for _ in 0..3 {
            model.live(ACTIONS).unwrap();
            model.reboot(Loss::KeepAll);
        }
        seen.extend(model.sim.sites());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), want);
    for site in want {
        let broken = (form == Form::Memory && two_generations(Some(site)).is_err()) || search(form, 1..60, Some(site)).is_err();
        assert!(broken, "nobody misses {site}");
    }
}

/// A failure that the program survives (disk full, at every operation), then a restart.
#[test]
fn a_full_disk_costs_an_error_and_no_frame() {
    for seed in seeds(20) {
        for at in 1..=ops_of(Form::Journal, seed) {
            for loss in [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(at)] {
                let mut model = Model::new(Form::Journal, seed, None);
                model.sim.fail_at(at, io::ErrorKind::StorageFull);
                let run = model.live(ACTIONS).and_then(|()| {
                    model.reboot(loss);
                    model.live(ACTIONS)
                });
                run.unwrap_or_else(|e| panic!("seed {seed}, full at {at}, {loss:?}: {e}"));
            }
        }
    }
}

fn journal(sim: &Arc<Sim>, limits: Limits) -> (Arc<Hub>, Recovered) {
    let (hub, recovered) = Hub::open_journal(Disk::Sim(Arc::clone(sim)), dir(), limits, TENANTS_MAX).unwrap();
    (Arc::new(hub), recovered)
}

fn some(from: u64) -> Frame {
    sample::plain(&[(1, from, from + 10)], b"acme", 2)
}

#[test]
fn after_a_failed_write_the_next_frames_stand_where_it_stood() {
    let sim = Arc::new(Sim::new(3));
    let (hub, _) = journal(&sim, Limits { segment_bytes: 1 << 20, ..small() });
    hub.accept(some(0)).unwrap();
    for cut_fails in [false, true] {
        sim.fail_at(sim.ops() + 1, io::ErrorKind::StorageFull);
        if cut_fails {
            sim.fail_at(sim.ops() + 2, io::ErrorKind::StorageFull);
        }
        let error = hub.accept(some(10)).unwrap_err();
        assert!(matches!(error, AcceptError::Disk(e) if e.kind() == io::ErrorKind::StorageFull));
    }
    assert_eq!(hub.accept(some(10)).unwrap(), 2);
    hub.commit().unwrap();
    let (_, recovered) = journal(&Arc::new(sim.reboot(Loss::LoseUnsynced)), small());
    assert_eq!((recovered.last_seq, recovered.truncated_bytes), (2, 0));
}

/// Flips a byte in a file of a journal of three segments and opens it.
#[track_caller]
fn damage(file: &str, change: impl Fn(&Disk, &Path), want: Result<u64, &str>) {
    let sim = Arc::new(Sim::new(3));
    let (hub, _) = journal(&sim, small());
    let mut cursor = hub.cursor("archive", HashMap::new());
    for i in 0..9 {
        hub.accept(some(i * 10)).unwrap();
    }
    hub.commit().unwrap();
    let disk = Disk::Sim(Arc::clone(&sim));
    assert!(disk.list(dir()).unwrap().len() >= 3);
    while let Next::Frame(_) = cursor.next(Duration::ZERO).unwrap() {}
    change(&disk, &dir().join(file));
    match (Hub::open_journal(disk, dir(), small(), TENANTS_MAX), want) {
        (Ok((_, recovered)), Ok(seq)) => assert_eq!(recovered.last_seq, seq),
        (Err(e), Err(text)) => assert!(e.to_string().contains(text), "{e}"),
        (Ok(_), Err(text)) => panic!("opened without: {text}"),
        (Err(e), Ok(_)) => panic!("{e}"),
    }
}

fn flip(at: impl Fn(usize) -> usize) -> impl Fn(&Disk, &Path) {
    move |disk, path| {
        let mut bytes = disk.read(path).unwrap();
        let at = at(bytes.len());
        bytes[at] ^= 1;
        disk.create_or_truncate(path).unwrap().append(&bytes).unwrap();
    }
}

#[test]
fn damage_that_no_crash_explains_is_refused_with_a_way_out() {
    damage("00000002.seg", |disk, path| disk.unlink(path).unwrap(), Err("00000002.seg: damaged at byte 0: the segment is missing"));
    damage("00000001.seg", flip(|len| len - 1), Err("the checksum of a record does not match\n  help: restore"));
    damage("00000001.seg", flip(|_| 0), Err("the header of a record is damaged"));
    damage("00000002.seg", |disk, path| disk.truncate(path, 0, "test").unwrap(), Err("the segment is empty"));
    damage("00000003.seg", flip(|_| 30), Err("the checkpoint is damaged"));
    damage("00000003.seg", flip(|len| len - 1), Ok(8));
    damage("00000003.seg", |disk, path| disk.truncate(path, 10, "test").unwrap(), Ok(8));
}

#[test]
fn frames_that_left_memory_are_read_from_disk_and_segments_go_when_every_sink_has_them() {
    let sim = Arc::new(Sim::new(3));
    let (hub, _) = journal(&sim, small());
    let disk = Disk::Sim(Arc::clone(&sim));
    let mut fast = hub.cursor("fast", HashMap::new());
    let mut slow = hub.cursor("slow", HashMap::new());
    for i in 0..60 {
        hub.accept(some(i * 10)).unwrap();
        hub.commit().unwrap();
        let Next::Frame(frame) = fast.next(Duration::ZERO).unwrap() else { panic!("frame {i} is published") };
        fast.committed(frame.seq).unwrap();
    }
    assert!(hub.lock().window_bytes() <= small().window_bytes_max);
    assert_eq!(hub.tail("slow").unwrap().len(), 60);
    assert!(hub.tail("fast").unwrap().is_empty());
    let files = disk.list(dir()).unwrap().len();
    assert!(files > 10, "{files} segments wait for the slow sink");
    for seq in 1..=60 {
        let Next::Frame(frame) = slow.next(Duration::ZERO).unwrap() else { panic!("frame {seq} is there") };
        assert_eq!((frame.seq, frame.parts[0].to), (seq, seq * 10));
        assert_eq!(frame.rows, some((seq - 1) * 10).rows);
    }
    slow.committed(31).unwrap();
    assert_eq!(hub.tail("slow").unwrap().first().map(|f| f.seq), Some(32));
    assert_eq!(slow.committed(61).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    slow.committed(60).unwrap();
    assert_eq!(disk.list(dir()).unwrap().len(), 1);
    assert_eq!(hub.ledger().residual(), 0);
}

#[test]
fn a_full_journal_lets_lanes_wait_tells_the_sink_and_never_stops_for_good() {
    let limits = Limits { bytes_max: 6000, ..small() };
    let sim = Arc::new(Sim::new(3));
    full(journal(&sim, limits).0, 200);
    let disk = Disk::Sim(Arc::clone(&sim));
    let bytes: u64 = disk.list(dir()).unwrap().iter().map(|n| disk.len(&dir().join(n)).unwrap()).sum();
    assert!(bytes <= 6000, "{bytes}");
    // Each frame alone is above the limit.
    full(journal(&Arc::new(Sim::new(4)), Limits { bytes_max: 100, ..small() }).0, 20);
}

#[test]
fn a_full_memory_hub_lets_lanes_wait_tells_the_sink_and_never_stops_for_good() {
    for bytes_max in [4000, 100] {
        let disk = Disk::Sim(Arc::new(Sim::new(3)));
        let (hub, _) = Hub::open_memory(disk, dir(), Limits { bytes_max, ..small() }, TENANTS_MAX).unwrap();
        full(Arc::new(hub), 100);
    }
}

/// Two lanes, and a sink that commits only under pressure and at the end.
fn full(hub: Arc<Hub>, frames: u64) {
    let mut cursor = hub.cursor("lake", HashMap::new());
    std::thread::scope(|threads| {
        let syncer = threads.spawn(|| hub.run_syncer());
        let lanes: Vec<_> = (1..=2)
            .map(|lane| {
                let hub = &hub;
                threads.spawn(move || {
                    for i in 0..frames / 2 {
                        hub.accept(sample::plain(&[(lane, i * 10, i * 10 + 10)], b"acme", 3)).unwrap();
                    }
                })
            })
            .collect();
        let sink = threads.spawn(move || {
            let (mut last, mut pressed) = (0, 0);
            loop {
                match cursor.next(Duration::from_secs(60)).unwrap() {
                    Next::Frame(frame) => {
                        assert_eq!(frame.seq, last + 1);
                        last = frame.seq;
                    }
                    Next::Pressure => {
                        pressed += 1;
                        cursor.committed(last).unwrap();
                    }
                    Next::Idle => panic!("a lane waits and nobody was told"),
                    Next::Closed => break,
                }
            }
            cursor.committed(last).unwrap();
            (last, pressed)
        });
        lanes.into_iter().for_each(|lane| lane.join().unwrap());
        hub.close();
        let (last, pressed) = sink.join().unwrap();
        syncer.join().unwrap();
        assert_eq!(last, frames);
        assert!(pressed > 0 && !hub.is_full());
    });
    assert!(matches!(hub.accept(some(0)), Err(AcceptError::Closed)));
    let ledger = hub.ledger();
    assert_eq!((ledger.residual(), ledger.sinks["lake"].delivered[b"acme".as_slice()].records), (0, frames * 3));
}

#[test]
fn a_store_that_has_some_frames_starts_behind_them() {
    let sim = Arc::new(Sim::new(3));
    let (hub, _) = journal(&sim, small());
    for i in 0..5 {
        hub.accept(sample::plain(&[(1, i * 10, i * 10 + 10), (2, i, i + 1)], b"acme", 1)).unwrap();
    }
    hub.commit().unwrap();
    let (hub, recovered) = journal(&Arc::new(sim.reboot(Loss::KeepAll)), small());
    assert_eq!(recovered.positions[&StreamId(1)].done, 50);
    let first = |name: &str, has: &[(u64, u64)]| {
        let mut cursor = hub.cursor(name, has.iter().map(|(s, to)| (StreamId(*s), *to)).collect());
        match cursor.next(Duration::ZERO).unwrap() {
            Next::Frame(frame) => Some(frame.seq),
            _ => None,
        }
    };
    assert_eq!(first("nothing", &[]), Some(1));
    assert_eq!(first("one stream", &[(1, 50)]), Some(1));
    assert_eq!(first("two frames", &[(1, 25), (2, 9)]), Some(3));
    assert_eq!(first("everything", &[(1, 50), (2, 5)]), None);
    let ledger = hub.ledger();
    assert_eq!(ledger.residual(), 0);
    assert_eq!(ledger.sinks["two frames"].delivered[b"acme".as_slice()].records, 4);
    assert_eq!(ledger.sinks["two frames"].buffered[b"acme".as_slice()].records, 6);
    assert!(ledger.sinks["everything"].buffered.is_empty());
}

#[track_caller]
fn residual(change: impl Fn(&mut Frame), want: i128) {
    let (hub, _) = journal(&Arc::new(Sim::new(3)), small());
    let mut frame = some(0);
    change(&mut frame);
    hub.accept(frame).unwrap();
    hub.commit().unwrap();
    assert_eq!(hub.ledger().residual(), want);
}

#[test]
fn a_leak_of_one_record_or_byte_turns_the_law_red() {
    residual(|_| {}, 0);
    residual(|f| f.parts[0].notes.push((0, Note::NotJson, 2)), 0);
    residual(|f| f.parts[0].rows.end -= 1, 2); // counted as kept and in no part
    residual(|f| f.parts[0].counts[0].records += 1, 1);
    residual(|f| f.parts[0].counts.retain(|c| c.outcome != Outcome::Kept), 2);
    residual(|f| f.parts[0].records_bytes -= 1, 1);
    residual(|f| f.parts[0].held_bytes += 3, 3);
    residual(|f| (f.parts[0].records_bytes, f.parts[0].framing_bytes) = (8, 2), 0);
}

#[test]
fn tenants_beyond_the_limit_share_one_account() {
    let disk = Disk::Sim(Arc::new(Sim::new(3)));
    let (hub, _) = Hub::open_memory(disk, dir(), small(), 2).unwrap();
    let hub = Arc::new(hub);
    let _cursor = hub.cursor("lake", HashMap::new());
    for tenant in ["a", "b", "c", "d", "a"] {
        hub.accept(sample::plain(&[(1, 0, 10)], tenant.as_bytes(), 1)).unwrap();
    }
    let ledger = hub.ledger();
    let names: Vec<_> = ledger.totals.tenants.keys().map(|t| String::from_utf8_lossy(t).into_owned()).collect();
    assert_eq!(names, ["_over_limit", "a", "b"]);
    assert_eq!((ledger.totals.over_limit_records, ledger.residual()), (4, 0));
    assert_eq!(ledger.sinks["lake"].buffered[b"_over_limit".as_slice()], Tally { records: 2, bytes: 12 });
}

/// Writes two checkpoints, damages the newer one, and starts again.
fn two_generations(broken: Option<Site>) -> Result<(), String> {
    let sim = Sim::new(3);
    broken.iter().for_each(|site| sim.break_site(site));
    let disk = Disk::Sim(Arc::new(sim));
    let open = || Hub::open_memory(disk.clone(), dir(), small(), TENANTS_MAX);
    let (hub, _) = open().map_err(|e| e.to_string())?;
    let hub = Arc::new(hub);
    let mut cursor = hub.cursor("archive", HashMap::new());
    for i in 0..2 {
        let seq = hub.accept(some(i * 10)).map_err(|e| e.to_string())?;
        cursor.next(Duration::ZERO).map_err(|e| e.to_string())?;
        cursor.committed(seq).map_err(|e| e.to_string())?;
        hub.checkpoint().map_err(|e| e.to_string())?;
    }
    let (_, recovered) = open().map_err(|e| e.to_string())?;
    if (recovered.last_seq, recovered.notices.len()) != (2, 0) {
        return Err(format!("the newer one is used first: {recovered:?}"));
    }
    flip(|len| len / 2)(&disk, &dir().join("memory.ckpt"));
    let (hub, recovered) = open().map_err(|e| e.to_string())?;
    if recovered.last_seq != 1
        || recovered.positions[&StreamId(1)].done != 10
        || !recovered.notices[0].contains("the checkpoint before it is used")
    {
        return Err(format!("{recovered:?}"));
    }
    // A damaged one never replaces the good old one.
    let hub = Arc::new(hub);
    let mut cursor = hub.cursor("archive", HashMap::new());
    let seq = hub.accept(some(10)).map_err(|e| e.to_string())?;
    cursor.next(Duration::ZERO).map_err(|e| e.to_string())?;
    cursor.committed(seq).map_err(|e| e.to_string())?;
    hub.checkpoint().map_err(|e| e.to_string())?;
    for name in ["memory.ckpt", "memory.ckpt.old"] {
        let (_, recovered) = open().map_err(|e| e.to_string())?;
        let want = if name == "memory.ckpt" { 2 } else { 1 };
        if recovered.last_seq != want {
            return Err(format!("before {name} is damaged: {recovered:?}"));
        }
        flip(|len| len / 2)(&disk, &dir().join(name));
    }
    match open() {
        Err(e) if e.to_string().contains("delete memory.ckpt") => Ok(()),
        Err(e) => Err(e.to_string()),
        Ok((_, recovered)) => Err(format!("two damaged checkpoints gave {recovered:?}")),
    }
}

#[test]
fn a_damaged_memory_checkpoint_falls_back_to_the_one_before() {
    two_generations(None).unwrap();
}

#[test]
fn the_journal_works_on_the_real_disk() {
    let folder = std::env::temp_dir().join(format!("weir-hub-{}", std::process::id()));
    let open = || Hub::open_journal(Disk::Real, &folder.join("journal"), small(), TENANTS_MAX).unwrap();
    let (hub, _) = open();
    for i in 0..20 {
        hub.accept(some(i * 10)).unwrap();
    }
    hub.commit().unwrap();
    drop(hub);
    let (hub, recovered) = open();
    assert_eq!(recovered.last_seq, 20);
    let mut cursor = Arc::new(hub).cursor("archive", HashMap::new());
    for i in 0..20 {
        let Next::Frame(frame) = cursor.next(Duration::ZERO).unwrap() else { panic!("frame {i} is there") };
        assert_eq!(frame.rows, some(i * 10).rows);
    }
    cursor.committed(20).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}
