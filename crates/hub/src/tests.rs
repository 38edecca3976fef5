//! The hub as its users see it, on a simulated disk that crashes at every operation.
//!
//! The model is a list of frames: what was accepted, how much of it was published, and what two sinks have. After each
//! crash the hub must hold every published frame exactly, in order, and nothing that was never accepted. To see that
//! each fsync is needed, the same model is run with one of them broken, and must fail.

use crate::account::Account;
use crate::cursor::{Cursor, Next};
use crate::disk::{Disk, Loss, Sim, Site};
use crate::express::Stretch;
use crate::frame::{Frame, OTHERS, Selected, StateChange};
use crate::hub::{AcceptError, Hub, Limits, OpenError, Recovered, WhenFull};
use crate::ledger::{RowCount, Tally};
use crate::sample::{self, Random};
use expect_test::{Expect, expect};
use flow::event::{Note, Outcome, Position, StreamId};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod select;

const SINKS: [&str; 2] = ["archive", "lake"];
const TENANTS_MAX: usize = 100;

fn dir() -> &'static Path {
    Path::new("/data/journal")
}

/// Three frames fill a segment, two the window.
fn small() -> Limits {
    Limits {
        bytes_max: 1 << 20,
        window_bytes_max: 1500,
        segment_bytes: 1300,
        sync_interval: Duration::from_millis(1),
        sync_bytes: 1 << 20,
        when_full: WhenFull::Wait,
    }
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

/// Step and key, and what is known of it.
type Entry = (u32, [u8; 8], [u8; 24]);

/// What lives, in the order in which it was last written.
fn apply(state: &mut Vec<Entry>, step: u32, entries: &[u8]) {
    for entry in entries.chunks_exact(32) {
        let (key, value) = (entry[..8].try_into().unwrap(), entry[8..].try_into().unwrap());
        state.retain(|known| (known.0, known.1) != (step, key));
        if value != [0; 24] {
            state.push((step, key, value));
        }
    }
}

fn state_of(hub: &Hub) -> io::Result<Vec<Entry>> {
    let mut state = Vec::new();
    hub.each_state(&mut |step, entries| apply(&mut state, step, entries))?;
    Ok(state)
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
        if self.random.below(4) > 0 {
            entry[8..16].copy_from_slice(&self.next_offset.to_le_bytes());
        }
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

    /// The state of steps after the first frames.
    fn state(&self, seq: u64) -> Vec<Entry> {
        let mut state = Vec::new();
        for change in self.frames[..seq as usize].iter().flat_map(|frame| &frame.state) {
            apply(&mut state, change.step, &change.bytes);
        }
        state
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
        self.check_recovered(&hub, &recovered)?;
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

    fn check_recovered(&mut self, hub: &Hub, recovered: &Recovered) -> Result<(), String> {
        let last = recovered.last_seq;
        if let Some(notice) = recovered.notices.iter().find(|n| n.contains(" lost") || n.contains(".state")) {
            return Err(format!("a crash is taken for damage: {notice}"));
        }
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
            match state_of(hub) {
                Err(_) if self.failed() => {}
                Err(e) => return Err(format!("the state of steps: {e}")),
                Ok(state) if state != self.state(last) => return Err(format!("state of steps at {last}")),
                Ok(_) => {}
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
            let want = self.frames.get(frame.seq as usize - 1);
            return Err(Broken::Promise(format!("frame {} is not what was accepted: {frame:?}, not {want:?}", frame.seq)));
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
        "journal.commit",
        "journal.copy",
        "journal.end",
        "journal.names",
        "journal.recover",
        "journal.retain",
        "journal.tail",
        "state.data",
        "state.names",
        "state.new",
        "state.publish",
        "state.tail",
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
        let generations = match form {
            Form::Memory => two_generations(Some(site)),
            Form::Journal => two_copies(Some(site)),
        };
        let broken = generations.is_err() || search(form, 1..60, Some(site)).is_err();
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

/// Lives in which the disk refuses operations at random, between crashes at random.
fn trouble(seed: u64, broken: Option<Site>) -> Result<(), String> {
    let mut model = Model::new(Form::Journal, seed, broken);
    for life in 0..5 {
        let horizon = 150;
        for _ in 0..model.random.below(8) {
            let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::Other];
            let (at, run) = (1 + model.random.below(horizon), 1 + model.random.below(3));
            let kind = kinds[model.random.below(2) as usize];
            (at..at + run).for_each(|op| model.sim.fail_at(op, kind));
        }
        if model.random.below(2) == 0 {
            let at = 1 + model.random.below(horizon);
            model.sim.crash_at(at);
        }
        model.live(ACTIONS).map_err(|e| format!("seed {seed}, life {life}: {e}"))?;
        let loss = [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(seed + life)][model.random.below(3) as usize];
        model.reboot(loss);
    }
    model.live(ACTIONS).map_err(|e| format!("seed {seed}, last life: {e}"))
}

#[test]
fn no_order_of_refusals_and_crashes_loses_or_doubles_a_frame() {
    let seeds = match std::env::var("SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..if std::env::var("SLOW").is_ok() { 20_000 } else { 300 },
    };
    for seed in seeds {
        trouble(seed, None).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// What is written to rescue and to drop is as durable as the rest.
#[test]
fn no_fsync_or_rename_of_a_rescue_or_a_drop_can_be_left_out() {
    let ops = drop_oldest(1, None, Loss::LoseUnsynced, None).unwrap();
    let broken = (1..ops).any(|at| drop_oldest(1, Some(at), Loss::LoseUnsynced, Some("journal.rewrite")).is_err());
    assert!(broken, "nobody misses journal.rewrite");
    assert!(losses_survive(None));
    for site in ["losses.data", "losses.names", "losses.publish"] {
        assert!(!losses_survive(Some(site)), "nobody misses {site}");
    }
    rescue(None).unwrap();
    assert!(rescue(Some("journal.rescue")).is_err(), "nobody misses journal.rescue");
}

/// Whether what a sink lost is known after a power loss.
fn losses_survive(broken: Option<Site>) -> bool {
    let sim = Arc::new(Sim::new(3));
    broken.iter().for_each(|site| sim.break_site(site));
    let disk = Disk::Sim(Arc::clone(&sim));
    disk.create_dir_all(dir(), "folder").unwrap();
    let mut losses = crate::losses::Losses::default();
    losses.add("lake", 3, 9, crate::LostReason::DroppedOldest, &[(StreamId(4), Stretch { from: 10, to: 20 })]);
    losses.write(&disk, dir()).unwrap();
    let found = crate::losses::Losses::read(&Disk::Sim(Arc::new(sim.reboot(Loss::LoseUnsynced))), dir()).unwrap();
    found == Ok(losses)
}

/// An fsync fails, and then the power.
fn rescue(broken: Option<Site>) -> Result<(), String> {
    let sim = Arc::new(Sim::new(3));
    broken.iter().for_each(|site| sim.break_site(site));
    let (hub, _) = journal(&sim, small());
    hub.accept(some(0)).map_err(|e| e.to_string())?;
    sim.fail_at(sim.ops() + 1, io::ErrorKind::Other);
    hub.commit().map_err(|e| e.to_string())?;
    let (_, recovered) = journal(&Arc::new(sim.reboot(Loss::LoseUnsynced)), small());
    if recovered.last_seq == 1 { Ok(()) } else { Err(format!("{recovered:?}")) }
}

#[test]
#[ignore = "a measurement: prints how long a journal takes to open"]
fn opening_time() {
    let folder = std::env::temp_dir().join(format!("weir-open-{}", std::process::id()));
    let limits = Limits { bytes_max: 4 << 30, window_bytes_max: 12 << 20, segment_bytes: 16 << 20, sync_bytes: 4 << 20, ..small() };
    let open = || Hub::open_journal(Disk::Real, &folder, limits, TENANTS_MAX).unwrap();
    let start = std::time::Instant::now();
    let hub = Arc::new(open().0);
    println!("empty: {:?}", start.elapsed());
    let _sink = hub.cursor("archive", HashMap::new());
    let mut rows = sample::plain(&[(1, 0, 10)], b"acme", 4000);
    rows.rows.bytes = vec![b'x'; 1 << 20];
    let last = rows.rows.ends.len() - 1;
    rows.rows.ends[last] = 1 << 20;
    let start = std::time::Instant::now();
    for i in 0..900 {
        rows.parts[0].from = i * 10;
        rows.parts[0].to = i * 10 + 10;
        hub.accept(rows.clone()).unwrap();
    }
    hub.commit().unwrap();
    println!("written: {:?}", start.elapsed());
    drop(_sink);
    drop(hub);
    let start = std::time::Instant::now();
    let hub = Arc::new(open().0);
    println!("1 GiB: hub {:?}", start.elapsed());
    let _cursors: Vec<Cursor> = ["a", "b"].iter().map(|s| hub.cursor(s, HashMap::from([(StreamId(1), 8990)]))).collect();
    println!("1 GiB: hub and two cursors {:?}", start.elapsed());
    std::fs::remove_dir_all(&folder).unwrap();
}

fn journal(sim: &Arc<Sim>, limits: Limits) -> (Arc<Hub>, Recovered) {
    let (hub, recovered) = Hub::open_journal(Disk::Sim(Arc::clone(sim)), dir(), limits, TENANTS_MAX).unwrap();
    (Arc::new(hub), recovered)
}

fn journal_on(disk: &Disk) -> (Arc<Hub>, Recovered) {
    let (hub, recovered) = Hub::open_journal(disk.clone(), dir(), small(), TENANTS_MAX).unwrap();
    (Arc::new(hub), recovered)
}

fn some(from: u64) -> Frame {
    sample::plain(&[(1, from, from + 10)], b"acme", 2)
}

#[test]
fn what_the_disk_refuses_is_written_later_and_stands_where_it_should_have_stood() {
    for failures in 1..5 {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            let sim = Arc::new(Sim::new(3));
            let (hub, _) = journal(&sim, Limits { segment_bytes: 1 << 20, ..small() });
            hub.accept(some(0)).unwrap();
            for i in 1..=failures {
                sim.fail_at(sim.ops() + i, kind);
            }
            assert_eq!(hub.accept(some(10)).unwrap(), 2);
            assert_eq!(hub.trouble(), None);
            hub.commit().unwrap();
            let (_, recovered) = journal(&Arc::new(sim.reboot(Loss::LoseUnsynced)), small());
            assert_eq!((recovered.last_seq, recovered.truncated_bytes), (2, 0));
        }
    }
}

#[test]
fn a_disk_that_stays_full_is_told_and_stops_nothing() {
    let sim = Arc::new(Sim::new(3));
    let (hub, _) = journal(&sim, small());
    sim.fail_until(sim.ops() + 1_000_000, io::ErrorKind::StorageFull);
    std::thread::scope(|threads| {
        let lane = threads.spawn(|| hub.accept(some(0)));
        while hub.trouble().is_none() {
            std::thread::yield_now();
        }
        let trouble = hub.trouble().unwrap();
        assert!(trouble.starts_with("writing to the journal: "), "{trouble}");
        sim.fail_until(0, io::ErrorKind::StorageFull);
        assert_eq!(lane.join().unwrap().unwrap(), 1);
    });
    assert_eq!(hub.trouble(), None);
    // Only the end of the run ends the wait.
    sim.fail_until(sim.ops() + 1_000_000, io::ErrorKind::StorageFull);
    std::thread::scope(|threads| {
        let lane = threads.spawn(|| hub.accept(some(10)));
        while hub.trouble().is_none() {
            std::thread::yield_now();
        }
        hub.close();
        assert!(matches!(lane.join().unwrap(), Err(AcceptError::Disk(e)) if e.to_string().contains("simulated failure")));
    });
}

#[test]
fn after_a_failed_fsync_what_nobody_has_seen_is_written_again() {
    for (again, limits) in [(0, small()), (1, small()), (3, small()), (0, Limits { segment_bytes: 1 << 20, ..small() })] {
        let sim = Arc::new(Sim::new(3));
        let (hub, _) = journal(&sim, limits);
        let mut cursor = hub.cursor("archive", HashMap::new());
        hub.accept(some(0)).unwrap();
        hub.commit().unwrap();
        for i in 1..3 {
            hub.accept(some(i * 10)).unwrap();
        }
        for i in 0..=again {
            sim.fail_at(sim.ops() + 1 + i, io::ErrorKind::Other);
        }
        while hub.commit().is_err() {}
        hub.accept(some(30)).unwrap();
        hub.commit().unwrap();
        for seq in 1..=4 {
            let Next::Frame(frame) = cursor.next(Duration::ZERO).unwrap() else { panic!("frame {seq} is published") };
            assert_eq!((frame.seq, &frame.rows), (seq, &some((seq - 1) * 10).rows));
        }
        let (hub, recovered) = journal(&Arc::new(sim.reboot(Loss::LoseUnsynced)), small());
        assert_eq!((recovered.last_seq, recovered.notices.len(), recovered.positions_lost), (4, 0, false));
        assert_eq!(seen(&hub, "archive", &[]), "1 2 3 4; delivered 8, rejected 0, residual 0");
    }
}

#[test]
fn a_frame_that_cannot_be_read_for_a_while_comes_later() {
    let sim = Arc::new(Sim::new(3));
    let (hub, _) = journal(&sim, small());
    let mut cursor = hub.cursor("archive", HashMap::new());
    for i in 0..30 {
        hub.accept(some(i * 10)).unwrap();
        hub.commit().unwrap();
    }
    sim.fail_reads(2, io::ErrorKind::Other);
    for _ in 0..2 {
        assert!(matches!(cursor.next(Duration::ZERO).unwrap(), Next::Idle));
        assert!(hub.trouble().unwrap().starts_with("reading an old frame: "));
    }
    assert!(matches!(cursor.next(Duration::ZERO).unwrap(), Next::Frame(frame) if frame.seq == 1));
    assert_eq!(hub.trouble(), None);
}

/// What a sink that has `has` is given, and what the ledger says when it has committed that.
fn seen(hub: &Arc<Hub>, sink: &str, has: &[(u64, u64)]) -> String {
    let mut cursor = hub.cursor(sink, has.iter().map(|(s, to)| (StreamId(*s), *to)).collect());
    let mut words = Vec::new();
    while let Next::Frame(frame) = cursor.next(Duration::ZERO).unwrap() {
        words.push(match &frame.lost {
            None => frame.seq.to_string(),
            Some(lost) if lost.first_seq == frame.seq => format!("({} {})", frame.seq, lost.reason.name()),
            Some(lost) => format!("({}-{} {})", lost.first_seq, frame.seq, lost.reason.name()),
        });
        cursor.committed(frame.seq).unwrap();
    }
    let ledger = hub.ledger();
    let sum = |tallies: &mut dyn Iterator<Item = &Tally>| tallies.map(|t| t.records).sum::<u64>();
    let totals = &ledger.sinks[sink];
    let (delivered, rejected) = (sum(&mut totals.delivered.values()), sum(&mut totals.rejected.values().flat_map(|r| r.values())));
    format!("{}; delivered {delivered}, rejected {rejected}, residual {}", words.join(" "), ledger.residual())
}

/// Nine frames in three segments and a clean end; then something happens to a file.
fn nine(change: impl Fn(&Disk, &Path), file: &str) -> Disk {
    nine_of(|i| sample::plain(&[(1, i * 10, i * 10 + 10), (2, i, i + 1)], b"acme", 2), change, file)
}

fn nine_of(frame: impl Fn(u64) -> Frame, change: impl Fn(&Disk, &Path), file: &str) -> Disk {
    let sim = Arc::new(Sim::new(3));
    // Three of them, whatever they say.
    let mut bytes = Vec::new();
    (0..3).for_each(|i| frame(i).encode(&mut bytes));
    let (hub, _) = journal(&sim, Limits { segment_bytes: bytes.len() as u64 + 3 * 64, ..small() });
    let _sink = hub.cursor("archive", HashMap::new());
    for i in 0..9 {
        hub.accept(frame(i)).unwrap();
        hub.commit().unwrap();
    }
    hub.close();
    hub.commit().unwrap();
    drop(hub);
    let disk = Disk::Sim(Arc::new(sim.reboot(Loss::LoseUnsynced)));
    let names = disk.list(dir()).unwrap();
    assert_eq!(names.iter().filter(|n| crate::segment::number(n).is_some()).count(), 3, "{names:?}");
    change(&disk, &dir().join(file));
    disk
}

#[track_caller]
fn damage(file: &str, change: impl Fn(&Disk, &Path), want: Expect) {
    let disk = nine(change, file);
    let (hub, recovered) = journal_on(&disk);
    let position = |stream| recovered.positions.get(&StreamId(stream)).map_or(0, |p| p.done);
    let mut text = format!("last {}, positions {} {}", recovered.last_seq, position(1), position(2));
    if recovered.positions_lost {
        text.push_str(", positions lost");
    }
    text.push('\n');
    for notice in &recovered.notices {
        text.push_str(&format!("{}\n", notice.replace("/data/journal/", "")));
    }
    text.push_str(&seen(&hub, "archive", &[]));
    text.push('\n');
    want.assert_eq(&text);
    // The next start finds nothing to say, and the same sums.
    let before = hub.ledger();
    drop(hub);
    let (hub, recovered) = journal_on(&disk);
    if !text.contains("positions lost") {
        assert_eq!(recovered.notices, Vec::<String>::new(), "the second start");
        let sink = [(1, 90), (2, 9)];
        let _ = seen(&hub, "archive", &sink);
        if recovered.last_seq == 9 {
            assert_eq!(hub.ledger(), before, "the second start");
        }
    }
    hub.accept(some(90)).unwrap();
    hub.commit().unwrap();
    assert_eq!(hub.ledger().residual(), 0);
}

fn flip(at: impl Fn(usize) -> usize) -> impl Fn(&Disk, &Path) {
    move |disk, path| {
        let mut bytes = disk.read(path).unwrap();
        let at = at(bytes.len());
        bytes[at] ^= 1;
        disk.create_or_truncate(path).unwrap().append(&bytes).unwrap();
    }
}

fn content(new: impl Fn(Vec<u8>) -> Vec<u8>) -> impl Fn(&Disk, &Path) {
    move |disk, path| {
        let bytes = new(disk.read(path).unwrap());
        disk.create_or_truncate(path).unwrap().append(&bytes).unwrap();
    }
}

/// Offset of record `n` (0 is the checkpoint) of a segment.
fn record(bytes: &[u8], n: usize) -> usize {
    bytes.windows(4).enumerate().filter(|(_, w)| *w == b"WJF2").nth(n - 1).expect("it is there").0
}

const FILES: [&str; 3] = ["00000001.seg", "00000002.seg", "00000003.seg"];

#[test]
fn a_damaged_frame_is_named_and_put_aside_and_costs_only_itself() {
    let flip = |n: usize, at: usize| {
        move |mut bytes: Vec<u8>| {
            let record = record(&bytes, n);
            bytes[record + at] ^= 1;
            bytes
        }
    };
    let last_row = |n: usize| {
        move |mut bytes: Vec<u8>| {
            let next = record(&bytes, n + 1);
            bytes[next - 1] ^= 1;
            bytes
        }
    };
    damage(
        FILES[0],
        content(flip(2, 9)),
        expect![[r#"
            last 9, positions 90 9
            00000001.seg: bytes 657 to 1221 are damaged (the header of a record is damaged); frame 2 is lost; the file as it was is kept as 00000001.seg.damaged
            1 (2 damaged) 3 4 5 6 7 8 9; delivered 32, rejected 4, residual 0
        "#]],
    );
    damage(
        FILES[0],
        content(flip(2, 60)),
        expect![[r#"
            last 9, positions 90 9
            00000001.seg: bytes 657 to 1221 are damaged (the checksum of a head does not match); frame 2 is lost; the file as it was is kept as 00000001.seg.damaged
            1 (2 damaged) 3 4 5 6 7 8 9; delivered 32, rejected 4, residual 0
        "#]],
    );
    damage(
        FILES[0],
        content(last_row(2)),
        expect![[r#"
        last 9, positions 90 9
        1 (2 damaged) 3 4 5 6 7 8 9; delivered 32, rejected 4, residual 0
    "#]],
    );
    damage(
        FILES[1],
        content(flip(1, 9)),
        expect![[r#"
            last 9, positions 90 9
            00000002.seg: bytes 246 to 810 are damaged (the header of a record is damaged); frame 4 is lost; the file as it was is kept as 00000002.seg.damaged
            1 2 3 (4 damaged) 5 6 7 8 9; delivered 32, rejected 4, residual 0
        "#]],
    );
    damage(
        FILES[1],
        content(flip(3, 9)),
        expect![[r#"
            last 9, positions 90 9
            00000002.seg: bytes 1374 to 1938 are damaged (the header of a record is damaged); frame 6 is lost; the file as it was is kept as 00000002.seg.damaged
            1 2 3 4 5 (6 damaged) 7 8 9; delivered 32, rejected 4, residual 0
        "#]],
    );
    damage(
        FILES[1],
        content(last_row(1)),
        expect![[r#"
        last 9, positions 90 9
        1 2 3 (4 damaged) 5 6 7 8 9; delivered 32, rejected 4, residual 0
    "#]],
    );
    damage(
        FILES[2],
        content(flip(2, 9)),
        expect![[r#"
            last 9, positions 90 9
            00000003.seg: bytes 810 to 1374 are damaged (the header of a record is damaged); frame 8 is lost, with what steps learned from it; the file as it was is kept as 00000003.seg.damaged
            1 2 3 4 5 6 7 (8 damaged) 9; delivered 32, rejected 0, residual 0
        "#]],
    );
    damage(
        FILES[2],
        content(last_row(2)),
        expect![[r#"
        last 9, positions 90 9
        00000003.seg: the rows of frame 8 are damaged; the file as it was is kept as 00000003.seg.damaged
        1 2 3 4 5 6 7 (8 damaged) 9; delivered 32, rejected 4, residual 0
    "#]],
    );
    damage(
        FILES[2],
        content(flip(3, 9)),
        expect![[r#"
        last 8, positions 80 8
        00000003.seg: cut 564 torn bytes behind frame 8
        1 2 3 4 5 6 7 8; delivered 32, rejected 0, residual 0
    "#]],
    );
}

#[test]
fn a_damaged_account_is_taken_from_its_copy() {
    for file in FILES {
        for copies in [true, false] {
            let disk = nine(flip(|_| 30), file);
            if !copies && file != FILES[0] {
                disk.unlink(&dir().join(file).with_extension("acct")).unwrap(); // then the frames before it tell
            }
            let (hub, recovered) = journal_on(&disk);
            assert_eq!((recovered.last_seq, recovered.positions_lost, recovered.notices.len()), (9, false, 1), "{file}");
            assert_eq!(seen(&hub, "archive", &[]), "1 2 3 4 5 6 7 8 9; delivered 36, rejected 0, residual 0", "{file}");
        }
    }
}

#[test]
fn a_lost_segment_is_a_gap_that_is_counted() {
    let missing = |disk: &Disk, path: &Path| disk.unlink(path).unwrap();
    damage(
        FILES[0],
        missing,
        expect![[r#"
        last 9, positions 90 9
        00000001.seg: the file is missing; frames 1 to 3 are lost
        (1-3 damaged) 4 5 6 7 8 9; delivered 24, rejected 12, residual 0
    "#]],
    );
    damage(
        FILES[1],
        missing,
        expect![[r#"
        last 9, positions 90 9
        00000002.seg: the file is missing; frames 4 to 6 are lost
        1 2 3 (4-6 damaged) 7 8 9; delivered 24, rejected 12, residual 0
    "#]],
    );
    damage(
        FILES[2],
        missing,
        expect![[r#"
            last 6, positions 60 6
            00000003.seg: the file is missing; sources are read again from where it began
            1 2 3 4 5 6; delivered 24, rejected 0, residual 0
        "#]],
    );
    damage(
        FILES[0],
        content(|_| Vec::new()),
        expect![[r#"
        last 9, positions 90 9
        00000001.seg: the file is empty; frames 1 to 3 are lost; the file as it was is kept as 00000001.seg.damaged
        (1-3 damaged) 4 5 6 7 8 9; delivered 24, rejected 12, residual 0
    "#]],
    );
    damage(
        FILES[1],
        content(|_| Vec::new()),
        expect![[r#"
        last 9, positions 90 9
        00000002.seg: the file is empty; frames 4 to 6 are lost; the file as it was is kept as 00000002.seg.damaged
        1 2 3 (4-6 damaged) 7 8 9; delivered 24, rejected 12, residual 0
    "#]],
    );
    damage(
        FILES[2],
        content(|_| Vec::new()),
        expect![[r#"
        last 6, positions 60 6
        00000003.seg: removed, the last run stopped before it was begun (the file is empty)
        1 2 3 4 5 6; delivered 24, rejected 0, residual 0
    "#]],
    );
    damage(
        FILES[0],
        content(|b| vec![0; b.len()]),
        expect![[r#"
            last 9, positions 90 9
            00000001.seg: the header of a record is damaged; bytes 0 to 1785 are damaged (the header of a record is damaged); frames 1 to 3 are lost; the file as it was is kept as 00000001.seg.damaged
            (1-3 damaged) 4 5 6 7 8 9; delivered 24, rejected 12, residual 0
        "#]],
    );
    damage(
        FILES[1],
        content(|b| b.iter().map(|c| c ^ 0x5a).collect()),
        expect![[r#"
            last 9, positions 90 9
            00000002.seg: the header of a record is damaged; bytes 0 to 1938 are damaged (the header of a record is damaged); frames 4 to 6 are lost; the file as it was is kept as 00000002.seg.damaged
            1 2 3 (4-6 damaged) 7 8 9; delivered 24, rejected 12, residual 0
        "#]],
    );
    damage(
        FILES[2],
        content(|b| vec![0; b.len()]),
        expect![[r#"
            last 6, positions 60 6
            00000003.seg: nothing in it can be read (bytes 0 to 1938 are damaged (the header of a record is damaged)); sources are read again from where it began; it is kept as 00000003.seg.damaged
            1 2 3 4 5 6; delivered 24, rejected 0, residual 0
        "#]],
    );
    damage(
        FILES[0],
        content(|b| b[..b.len() / 2].to_vec()),
        expect![[r#"
            last 9, positions 90 9
            00000001.seg: bytes 657 to 892 are damaged (a record is cut off); frames 2 to 3 are lost; the file as it was is kept as 00000001.seg.damaged
            1 (2-3 damaged) 4 5 6 7 8 9; delivered 28, rejected 8, residual 0
        "#]],
    );
    damage(
        FILES[1],
        content(|b| b[..b.len() / 2].to_vec()),
        expect![[r#"
            last 9, positions 90 9
            00000002.seg: bytes 810 to 969 are damaged (a record is cut off); frames 5 to 6 are lost; the file as it was is kept as 00000002.seg.damaged
            1 2 3 4 (5-6 damaged) 7 8 9; delivered 28, rejected 8, residual 0
        "#]],
    );
    damage(
        FILES[2],
        content(|b| b[..b.len() / 2].to_vec()),
        expect![[r#"
            last 7, positions 70 7
            00000003.seg: cut 159 torn bytes behind frame 7
            1 2 3 4 5 6 7; delivered 28, rejected 0, residual 0
        "#]],
    );
}

/// A future version: the magic number of its records ends in a higher digit.
#[test]
fn what_a_newer_version_wrote_is_kept_and_named() {
    let newer = |mut bytes: Vec<u8>| {
        for at in 0..bytes.len() - 4 {
            if matches!(&bytes[at..at + 4], b"WJC1" | b"WJF2" | b"WJM1" | b"WJS1") {
                bytes[at + 3] = b'9';
            }
        }
        bytes
    };
    let all = |disk: &Disk, _: &Path| {
        for name in disk.list(dir()).unwrap() {
            content(newer)(disk, &dir().join(name));
        }
    };
    damage(
        FILES[0],
        all,
        expect![[r#"
            last 0, positions 0 0, positions lost
            00000001.seg: nothing in it can be read (it was written by a newer version of weir); it is kept as 00000001.seg.newer; sources go on where the stores stand
            00000002.seg: nothing in it can be read (it was written by a newer version of weir); it is kept as 00000002.seg.newer; sources go on where the stores stand
            00000003.seg: nothing in it can be read (it was written by a newer version of weir); it is kept as 00000003.seg.newer; sources go on where the stores stand
            00000001.state: bytes 0 to 72 are damaged (it was written by a newer version of weir); steps may have forgotten keys, or know what was before; the file as it was is kept as 00000001.state.newer
            ; delivered 0, rejected 0, residual 0
        "#]],
    );
}

/// What is damaged together with every copy of it is gone; the hub opens, and says that positions are incomplete.
#[test]
fn without_any_account_the_hub_opens_and_says_so() {
    let wipe = |disk: &Disk, _: &Path| {
        for name in disk.list(dir()).unwrap() {
            disk.create_or_truncate(&dir().join(name)).unwrap().append(&[0; 100]).unwrap();
        }
    };
    damage(
        FILES[0],
        wipe,
        expect![[r#"
            last 0, positions 0 0, positions lost
            00000001.seg: nothing in it can be read (the header of a record is damaged); it is kept as 00000001.seg.damaged; sources go on where the stores stand
            00000002.seg: nothing in it can be read (the header of a record is damaged); it is kept as 00000002.seg.damaged; sources go on where the stores stand
            00000003.seg: nothing in it can be read (the header of a record is damaged); it is kept as 00000003.seg.damaged; sources go on where the stores stand
            00000001.state: nothing in it can be read; steps may have forgotten keys, or know what was before; the file as it was is kept as 00000001.state.damaged
            ; delivered 0, rejected 0, residual 0
        "#]],
    );
}

/// A copy stands in for a checkpoint that a power loss took.
fn two_copies(broken: Option<Site>) -> Result<(), String> {
    let sim = Arc::new(Sim::new(3));
    broken.iter().for_each(|site| sim.break_site(site));
    let open = |sim: &Arc<Sim>| Hub::open_journal(Disk::Sim(Arc::clone(sim)), dir(), small(), TENANTS_MAX).map_err(|e| e.to_string());
    let (hub, _) = open(&sim)?;
    let hub = Arc::new(hub);
    let mut cursor = hub.cursor("archive", HashMap::new());
    for i in 0..9 {
        hub.accept(some(i * 10)).map_err(|e| e.to_string())?;
        hub.commit().map_err(|e| e.to_string())?;
        let Next::Frame(frame) = cursor.next(Duration::ZERO).map_err(|e| e.to_string())? else { return Err("no frame".into()) };
        cursor.committed(frame.seq).map_err(|e| e.to_string())?;
    }
    drop(cursor);
    drop(hub);
    let sim = Arc::new(sim.reboot(Loss::LoseUnsynced));
    let disk = Disk::Sim(Arc::clone(&sim));
    for name in disk.list(dir()).map_err(|e| e.to_string())? {
        if crate::segment::number(&name).is_some() {
            disk.create_or_truncate(&dir().join(name)).map_err(|e| e.to_string())?;
        }
    }
    let (_, recovered) = open(&sim)?;
    match recovered.positions.get(&StreamId(1)) {
        Some(position) if position.done >= 50 && !recovered.positions_lost => Ok(()),
        _ => Err(format!("{recovered:?}")),
    }
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
    assert_eq!(disk.list(dir()).unwrap().len(), 3, "a segment, the copy of its account, and the state of steps");
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
    // All of two frames, and what the store has of one stream in the other three.
    assert_eq!(ledger.sinks["two frames"].delivered[b"acme".as_slice()].records, 7);
    assert_eq!(ledger.sinks["two frames"].buffered[b"acme".as_slice()].records, 3);
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

/// A sink of the test below: it remembers what it has for good, as a store does.
#[derive(Default)]
struct Store {
    committed: u64,
    rows: u64,
    pending_rows: u64,
}

/// Frames of 4 KiB against a journal of 128 KiB, one sink that keeps up and one that is slow. The text is a broken promise.
fn drop_oldest(seed: u64, crash_at: Option<u64>, loss: Loss, broken: Option<Site>) -> Result<u64, String> {
    const ROWS: u64 = 100;
    let limits =
        Limits { bytes_max: 128 << 10, window_bytes_max: 10_000, segment_bytes: 1 << 20, when_full: WhenFull::DropOldest, ..small() };
    let mut sim = Arc::new(Sim::new(seed));
    broken.iter().for_each(|site| sim.break_site(site));
    crash_at.into_iter().for_each(|at| sim.crash_at(at));
    let (mut stores, mut next, mut ops) = ([Store::default(), Store::default()], 0, 0);
    for life in 0..2 {
        let random = &mut Random(seed + life);
        let run = || -> Result<bool, String> {
            let gone = |e: io::Error| if crate::disk::is_crash(&e) { None } else { Some(e.to_string()) };
            let (hub, recovered) = match Hub::open_journal(Disk::Sim(Arc::clone(&sim)), dir(), limits, TENANTS_MAX) {
                Ok((hub, recovered)) => (Arc::new(hub), recovered),
                Err(OpenError::Io { source, .. }) => return gone(source).map_or(Ok(false), Err),
            };
            if let Some(notice) = recovered.notices.iter().find(|n| n.contains(" lost") || n.contains("losses")) {
                return Err(format!("a crash is taken for damage: {notice}"));
            }
            next = recovered.last_seq;
            let mut cursors: Vec<Cursor> =
                (0..2).map(|i| hub.cursor(SINKS[i], HashMap::from([(StreamId(1), stores[i].committed * 10)]))).collect();
            for store in &mut stores {
                store.pending_rows = 0;
            }
            let mut step = |hub: &Arc<Hub>, stores: &mut [Store; 2], sink: usize, times: u64, commit: bool| -> Result<bool, String> {
                for _ in 0..times {
                    match cursors[sink].next(Duration::ZERO) {
                        Err(e) => return gone(e).map_or(Ok(false), Err),
                        Ok(Next::Frame(frame)) => {
                            stores[sink].pending_rows += frame.rows.len() as u64;
                            if commit {
                                stores[sink].rows += std::mem::take(&mut stores[sink].pending_rows);
                                stores[sink].committed = frame.seq;
                                if let Err(e) = cursors[sink].committed(frame.seq) {
                                    return gone(e).map_or(Ok(false), Err);
                                }
                            }
                        }
                        Ok(_) => break,
                    }
                }
                let _ = hub;
                Ok(true)
            };
            let frames = if life == 0 { 50 } else { 5 };
            for _ in 0..frames {
                match hub.accept(sample::plain(&[(1, next * 10, next * 10 + 10)], b"acme", ROWS as u32)) {
                    Ok(seq) => next = seq,
                    Err(AcceptError::Disk(e)) => return gone(e).map_or(Ok(false), Err),
                    Err(e) => return Err(e.to_string()),
                }
                if let Err(e) = hub.commit() {
                    return gone(e).map_or(Ok(false), Err);
                }
                if !step(&hub, &mut stores, 0, 9, true)? || (random.below(9) == 0 && !step(&hub, &mut stores, 1, random.below(3), false)?) {
                    return Ok(false);
                }
            }
            if !step(&hub, &mut stores, 0, 999, true)? || !step(&hub, &mut stores, 1, 999, true)? {
                return Ok(false);
            }
            let ledger = hub.ledger();
            for (store, sink) in stores.iter().zip(SINKS) {
                let totals = &ledger.sinks[sink];
                let delivered: u64 = totals.delivered.values().map(|t| t.records).sum();
                let rejected: u64 = totals.rejected.values().flat_map(|r| r.values()).map(|t| t.records).sum();
                if (delivered, rejected, ledger.residual()) != (store.rows, next * ROWS - store.rows, 0) {
                    return Err(format!(
                        "{sink} has {} of {}: {delivered} delivered, {rejected} rejected, {ledger:?}",
                        store.rows,
                        next * ROWS
                    ));
                }
            }
            Ok(true)
        };
        let mut run = run;
        run().map_err(|e| format!("seed {seed}, crash at {crash_at:?}, {loss:?}, life {life}: {e}"))?;
        ops = ops.max(sim.ops());
        sim = Arc::new(sim.reboot(loss));
    }
    if stores[0].rows == stores[1].rows && crash_at.is_none() {
        return Err("nothing was dropped".into());
    }
    Ok(ops)
}

#[test]
fn a_full_journal_drops_the_oldest_rows_and_counts_them_whenever_a_crash_comes() {
    for seed in seeds(1) {
        let ops = drop_oldest(seed, None, Loss::KeepAll, None).unwrap();
        for at in (1..ops).step_by(if std::env::var("SLOW").is_ok() { 1 } else { 3 }) {
            for loss in [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(at)] {
                drop_oldest(seed, Some(at), loss, None).unwrap();
            }
        }
    }
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
        || !recovered.notices.iter().any(|n| n.contains("the checkpoint before it is used"))
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
    let (_, recovered) = open().map_err(|e| e.to_string())?;
    if recovered.positions_lost && recovered.positions.is_empty() { Ok(()) } else { Err(format!("{recovered:?}")) }
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

/// Files that version 1 wrote: frames 4 and 5 of a journal, each with the parts (1, .., 40 or 50) and (2, .., 4 or 5), and
/// a memory checkpoint at frame 3.
#[test]
fn what_version_1_wrote_is_read_and_gone_on_with() {
    let sim = Arc::new(Sim::new(3));
    let disk = Disk::Sim(Arc::clone(&sim));
    disk.create_dir_all(dir(), "folder").unwrap();
    for (name, bytes) in
        [("00000004.seg", &include_bytes!("v1/00000004.seg")[..]), ("00000005.seg", &include_bytes!("v1/00000005.seg")[..])]
    {
        let mut file = disk.create_new(&dir().join(name)).unwrap();
        file.append(bytes).unwrap();
        file.sync("fixture").unwrap();
    }
    let (hub, recovered) = journal(&sim, small());
    let position = |resume, done| Position { resume, done, before: 0 };
    let want = [(StreamId(1), position(50, 50)), (StreamId(2), position(5, 5)), (StreamId(7), position(3, 4))];
    assert_eq!(recovered.positions, HashMap::from(want));
    assert_eq!((recovered.last_seq, recovered.notices.len()), (5, 0));
    assert_eq!(state_of(&hub).unwrap(), [1, 2, 3, 4].map(|i| (5, [i; 8], [i; 24])));
    let mut cursor = hub.cursor("archive", HashMap::new());
    for seq in 4..=5 {
        let Next::Frame(frame) = cursor.next(Duration::ZERO).unwrap() else { panic!("frame {seq} is there") };
        let (part, fact) = (&frame.parts[0], &frame.parts[0].facts[0]);
        assert_eq!((frame.seq, part.to, part.before, frame.rows.row(0)), (seq, seq * 10, 0, format!("1:{}:0", seq * 10).as_bytes()));
        assert_eq!((fact.minute, fact.quantity, &*frame.values[0]), (28, 1 << 70, &b"m-1"[..]));
        assert_eq!((part.skipped.len(), part.notes.len(), part.also.len()), (1, 1, 1));
    }
    assert_eq!(hub.ledger().residual(), 0);
    let mut next = some(50);
    next.parts[0].before = 77;
    hub.accept(next).unwrap();
    hub.commit().unwrap();
    let (_, recovered) = journal(&Arc::new(sim.reboot(Loss::LoseUnsynced)), small());
    assert_eq!((recovered.last_seq, recovered.positions[&StreamId(1)]), (6, Position { resume: 60, done: 60, before: 77 }));

    let disk = Disk::Sim(Arc::new(Sim::new(3)));
    disk.create_dir_all(dir(), "folder").unwrap();
    disk.create_new(&dir().join("memory.ckpt")).unwrap().append(include_bytes!("v1/memory.ckpt")).unwrap();
    let (_, recovered) = Hub::open_memory(disk, dir(), small(), TENANTS_MAX).unwrap();
    assert_eq!((recovered.last_seq, recovered.positions[&StreamId(1)]), (3, position(30, 30)));
}

/// A sink that now and then has no room and rejects what it was given, as `runtime::deliver` does it; crashes at `crash_at`, then
/// lives once more with other moods. Every row is stored or rejected, and the ledger knows which.
fn reject_newest(seed: u64, crash_at: Option<u64>, loss: Loss) -> Result<u64, String> {
    const FRAMES: u64 = 24;
    let mut sim = Arc::new(Sim::new(seed));
    crash_at.into_iter().for_each(|at| sim.crash_at(at));
    let (mut rows, mut committed, mut ops) = (0, 0, 0);
    for life in 0..2 {
        let random = &mut Random(seed * 7 + life);
        let mut run = || -> io::Result<()> {
            let (hub, recovered) = match Hub::open_journal(Disk::Sim(Arc::clone(&sim)), dir(), small(), TENANTS_MAX) {
                Ok((hub, recovered)) => (Arc::new(hub), recovered),
                Err(OpenError::Io { source, .. }) => return Err(source),
            };
            let mut next = recovered.last_seq;
            let mut cursor = hub.cursor("files", HashMap::from([(StreamId(1), committed * 10)]));
            let mut pending = 0;
            loop {
                let is_last = next >= FRAMES;
                if !is_last {
                    match hub.accept(sample::plain(&[(1, next * 10, next * 10 + 10)], b"acme", 3)) {
                        Ok(seq) => next = seq,
                        Err(AcceptError::Disk(e)) => return Err(e),
                        Err(e) => panic!("{e}"),
                    }
                    hub.commit()?;
                }
                while let Next::Frame(mut frame) = cursor.next(Duration::ZERO)? {
                    if frame.lost.is_none() && random.below(3) == 0 {
                        rows += std::mem::take(&mut pending);
                        committed = committed.max(frame.seq - 1);
                        if frame.seq > 1 {
                            cursor.committed(frame.seq - 1)?;
                        }
                        frame = cursor.reject(&frame, crate::LostReason::NoRoom)?;
                        assert!(frame.rows.is_empty());
                    }
                    pending += frame.rows.len() as u64;
                    if random.below(2) == 0 || frame.seq == FRAMES {
                        rows += std::mem::take(&mut pending);
                        committed = frame.seq;
                        cursor.committed(frame.seq)?;
                    }
                }
                if is_last {
                    break;
                }
            }
            if life == 1 || crash_at.is_none() {
                let ledger = hub.ledger();
                let totals = &ledger.sinks["files"];
                let delivered: u64 = totals.delivered.values().map(|t| t.records).sum();
                let rejected: u64 = totals.rejected.values().filter_map(|r| r.get(&crate::LostReason::NoRoom)).map(|t| t.records).sum();
                let want = (rows, FRAMES * 3 - rows, 0);
                if (delivered, rejected, ledger.residual()) != want || rejected == 0 {
                    return Err(io::Error::other(format!("{delivered} delivered, {rejected} rejected, not {want:?}")));
                }
            }
            Ok(())
        };
        match run() {
            Err(e) if life == 0 && crash_at.is_some() && crate::disk::is_crash(&e) => {}
            other => other.map_err(|e| e.to_string())?,
        }
        ops = sim.ops();
        if crash_at.is_none() {
            return Ok(ops);
        }
        sim = Arc::new(sim.reboot(loss));
    }
    Ok(ops)
}

#[test]
fn what_a_sink_rejects_is_counted_once_whenever_a_crash_comes() {
    for seed in seeds(4) {
        let ops = reject_newest(seed, None, Loss::KeepAll).unwrap();
        assert!(ops > 100, "{ops}");
        for at in 1..=ops {
            for loss in [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(at)] {
                reject_newest(seed, Some(at), loss).unwrap_or_else(|e| panic!("seed {seed}, crash at {at}, {loss:?}: {e}"));
            }
        }
    }
}

#[test]
fn a_reader_that_has_nothing_begins_with_the_oldest_frame_and_state_is_told_from_any_frame_on() {
    let change = |key: u8, value: u8| {
        let mut bytes = vec![0; 32];
        (bytes[0], bytes[8]) = (key, value);
        StateChange { step: 7, bytes }
    };
    let sim = Arc::new(Sim::new(5));
    let numbers = {
        let (hub, _) = journal(&sim, small());
        let mut first = hub.reader("first");
        for n in 0..9 {
            // A frame without parts is one like any other: the first of a segment, too.
            let frame = Frame { state: vec![change(n % 3, n + 1)], ..if n % 2 == 0 { Frame::default() } else { some(u64::from(n)) } };
            hub.accept(frame).expect("there is room");
        }
        hub.accept(Frame { state: vec![change(1, 0)], ..Frame::default() }).expect("there is room");
        hub.commit().expect("the disk works");
        hub.close();
        let mut numbers = Vec::new();
        while let Next::Frame(frame) = first.next(Duration::ZERO).expect("readable") {
            numbers.push(frame.seq);
        }
        numbers
    };
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    let (hub, recovered) = journal(&sim, small());
    assert_eq!(recovered.last_seq, 10);
    let mut again = hub.reader("again");
    hub.close();
    let mut numbers = Vec::new();
    while let Next::Frame(frame) = again.next(Duration::ZERO).expect("readable") {
        numbers.push(frame.seq);
    }
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>(), "nobody told that they are not needed");
    let told = |behind: u64| {
        let mut told = Vec::new();
        hub.each_state_behind(behind, &mut |_, run| told.extend(run.chunks_exact(32).map(|e| (e[0], e[8])))).expect("readable");
        told
    };
    assert_eq!(told(0).len(), 10);
    assert_eq!(told(8), [(2, 9), (1, 0)]);
    assert_eq!(told(10), []);
}

/// A store that keeps its positions with its rows, and its own order in each stream.
#[derive(Clone, Default)]
struct Positioned {
    positions: HashMap<StreamId, u64>,
    rows: u64,
}

impl Positioned {
    fn write(&mut self, frame: &Frame) {
        for part in &frame.parts {
            let done = self.positions.entry(part.stream).or_default();
            if part.to > *done {
                assert_eq!(part.from, *done, "frame {}: stream {} is out of order", frame.seq, part.stream.0);
                *done = part.to;
                self.rows += part.rows.len() as u64;
            }
        }
    }
}

/// A frame with a part for each (stream, from, rows), each of a tenant of its own; a part is 10 long.
fn by_tenant(parts: &[(u64, u64, u32)]) -> Frame {
    let mut frame = Frame::default();
    for (stream, from, rows) in parts {
        let other = sample::plain(&[(*stream, *from, from + 10)], format!("t{stream}").as_bytes(), *rows);
        let (tenant, row) = (frame.tenants.len() as u32, frame.rows.len() as u32);
        let mut part = other.parts[0].clone();
        frame.rows.ends.extend(other.rows.ends.iter().map(|end| end + frame.rows.bytes.len() as u32));
        frame.rows.bytes.extend_from_slice(&other.rows.bytes);
        frame.rows.tenant.extend(other.rows.tenant.iter().map(|_| tenant));
        frame.rows.time.extend_from_slice(&other.rows.time);
        frame.rows.severity.extend_from_slice(&other.rows.severity);
        frame.rows.weight.extend_from_slice(&other.rows.weight);
        frame.rows.position.extend_from_slice(&other.rows.position);
        frame.rows.origin_bytes.extend_from_slice(&other.rows.origin_bytes);
        frame.rows.notes.extend_from_slice(&other.rows.notes);
        part.rows = row..frame.rows.len() as u32;
        part.counts.iter_mut().for_each(|count| count.tenant = tenant);
        frame.tenants.push(other.tenants[0].clone());
        frame.parts.push(part);
    }
    frame
}

/// Lets some rows be for some sinks only: `files` is among them by name, as one of the others, or takes all.
fn selected(random: &mut Random, mut frame: Frame) -> Frame {
    const DICTIONARIES: [&[&[u8]]; 4] = [&[b"files", b"cold"], &[b"cold", OTHERS], &[b"cold"], &[]];
    let sinks = DICTIONARIES[random.below(4) as usize];
    frame.sinks = sinks.iter().map(|name| (*name).into()).collect();
    if sinks.is_empty() {
        return frame;
    }
    let all = (1 << sinks.len()) - 1;
    frame.rows.sinks = (0..frame.rows.len()).map(|_| random.below(all + 1) as u32).collect();
    for part in &mut frame.parts {
        for row in part.rows.clone() {
            let (tenant, sinks) = (frame.rows.tenant[row as usize], frame.rows.sinks[row as usize]);
            let bytes = u64::from(frame.rows.origin_bytes[row as usize]);
            match part.selected.iter_mut().find(|selected| (selected.tenant, selected.sinks) == (tenant, sinks)) {
                _ if u64::from(sinks) == all => {}
                Some(selected) => (selected.records, selected.bytes) = (selected.records + 1, selected.bytes + bytes),
                None => part.selected.push(Selected { tenant, sinks, records: 1, bytes }),
            }
        }
    }
    frame
}

/// What becomes of rows that never reach the sink.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Goes {
    /// The oldest, when the journal is full.
    Oldest,
    /// What the sink has no room for.
    Newest,
}

/// What a run with a sink that lags came to.
#[derive(Default)]
struct Came {
    ops: u64,
    ahead_rows: u64,
    lost_rows: u64,
    passed_rows: u64,
}

/// One tenant sends most; a slow sink takes parts of three others ahead of their turn, and commits now and then. Crashes at
/// `crash_at`, then lives once more. Whatever went, the ledger says of each row whether the store has it. `selects`: not every row is
/// for this sink.
fn ahead(seed: u64, goes: Goes, selects: bool, crash_at: Option<u64>, loss: Loss) -> Result<Came, String> {
    let limits = Limits {
        bytes_max: if goes == Goes::Oldest { 256 << 10 } else { 2 << 20 },
        window_bytes_max: 40_000,
        segment_bytes: 64 << 10,
        when_full: if goes == Goes::Oldest { WhenFull::DropOldest } else { WhenFull::Wait },
        ..small()
    };
    let mut sim = Arc::new(Sim::new(seed));
    crash_at.into_iter().for_each(|at| sim.crash_at(at));
    let (mut kept, mut came) = (Positioned::default(), Came::default());
    // By frame, the rows for this sink.
    let mut due: Vec<u64> = Vec::new();
    for life in 0..2 {
        let random = &mut Random(seed * 31 + life + 1);
        let mut run = || -> io::Result<()> {
            let (hub, recovered) = match Hub::open_journal(Disk::Sim(Arc::clone(&sim)), dir(), limits, TENANTS_MAX) {
                Ok((hub, recovered)) => (Arc::new(hub), recovered),
                Err(OpenError::Io { source, .. }) => return Err(source),
            };
            due.truncate(recovered.last_seq as usize);
            assert_eq!(due.len() as u64, recovered.last_seq);
            let from = |stream: u64, next: &mut HashMap<u64, u64>| {
                let at = next.entry(stream).or_insert(recovered.positions.get(&StreamId(stream)).map_or(0, |p| p.done));
                *at += 10;
                *at - 10
            };
            let mut next = HashMap::new();
            let mut cursor = hub.cursor("files", kept.positions.clone());
            cursor.measured(200);
            let mut store = kept.clone();
            let mut newest = 0;
            let frames = if life == 0 { 40 } else { 10 }; // their headers stay below an eighth of the limit
            for n in 0..=frames {
                let is_last = n == frames;
                if !is_last {
                    let mut parts = vec![(1, from(1, &mut next), 200)];
                    for stream in 2..5 {
                        if random.below(3) == 0 {
                            parts.push((stream, from(stream, &mut next), random.below(3) as u32));
                        }
                    }
                    let frame = by_tenant(&parts);
                    let frame = if selects { selected(random, frame) } else { frame };
                    // If the disk fails now, it may be there or not.
                    due.push((0..frame.rows.len()).filter(|row| select::takes(&frame, "files", *row)).count() as u64);
                    match hub.accept(frame) {
                        Ok(_) => hub.commit()?,
                        Err(AcceptError::Disk(e)) => return Err(e),
                        Err(e) => panic!("{e}"),
                    }
                }
                let mut given = 0;
                while is_last || (given < 2 && random.below(4) == 0) {
                    given += 1;
                    let mut frame = match cursor.next(Duration::ZERO)? {
                        Next::Frame(frame) => frame.only_for("files"),
                        Next::Pressure => {
                            kept = store.clone();
                            cursor.committed(newest)?;
                            continue;
                        }
                        Next::Idle | Next::Closed => break,
                    };
                    if goes == Goes::Newest && frame.lost.is_none() && random.below(4) == 0 {
                        kept = store.clone();
                        cursor.committed(newest)?;
                        frame = cursor.reject(&frame, crate::LostReason::NoRoom)?;
                    }
                    store.write(&frame);
                    newest = frame.seq;
                }
                let before = store.rows;
                if random.below(2) == 0 {
                    let positions = store.positions.clone();
                    while let Some(some) = cursor.ahead(&|stream| store.positions.get(&stream).copied()) {
                        let some = some.only_for("files");
                        assert_eq!(some.validate(), Ok(()));
                        store.write(&some);
                    }
                    assert_eq!(positions.get(&StreamId(1)), store.positions.get(&StreamId(1)), "who sends most waits its turn");
                }
                came.ahead_rows += store.rows - before;
                if is_last || random.below(3) == 0 {
                    kept = store.clone();
                    cursor.committed(newest)?;
                }
                let ledger = hub.ledger();
                let totals = &ledger.sinks["files"];
                let delivered: u64 = totals.delivered.values().map(|t| t.records).sum();
                if ledger.residual() != 0 || delivered > kept.rows || (store.rows == kept.rows && newest > 0 && delivered < kept.rows) {
                    let text = format!("frame {n}: {delivered} delivered of {} stored, residual {}", kept.rows, ledger.residual());
                    return Err(io::Error::other(text));
                }
            }
            let ledger = hub.ledger();
            let totals = &ledger.sinks["files"];
            let sum = |tallies: &mut dyn Iterator<Item = &Tally>| tallies.map(|t| t.records).sum::<u64>();
            let delivered = sum(&mut totals.delivered.values());
            let rejected = sum(&mut totals.rejected.values().flat_map(|r| r.values()));
            let all = sum(&mut ledger.totals.tenants.values().map(|t| &t.kept));
            let (passed, due) = (sum(&mut totals.not_selected.values()), due.iter().sum::<u64>());
            let wanted = (kept.rows, due - kept.rows, all - due, 0);
            if (delivered, rejected, passed, ledger.residual()) != wanted || !totals.buffered.is_empty() {
                let text = format!("{delivered} delivered of {} stored, {rejected} rejected, {due} of {all} due: {ledger:?}", kept.rows);
                return Err(io::Error::other(text));
            }
            came.lost_rows += rejected;
            came.passed_rows += passed;
            Ok(())
        };
        match run() {
            Err(e) if life == 0 && crash_at.is_some() && crate::disk::is_crash(&e) => {}
            other => other.map_err(|e| format!("life {life}: {e}"))?,
        }
        came.ops = came.ops.max(sim.ops());
        sim = Arc::new(sim.reboot(loss));
    }
    Ok(came)
}

#[test]
fn what_goes_ahead_of_its_turn_is_counted_once_whenever_rows_go_and_a_crash_comes() {
    each_crash(false);
}

#[test]
fn what_goes_ahead_of_its_turn_is_what_the_sink_takes_and_is_counted_once() {
    each_crash(true);
}

fn each_crash(selects: bool) {
    for goes in [Goes::Oldest, Goes::Newest] {
        let (mut ahead_rows, mut lost_rows) = (0, 0);
        for seed in seeds(3) {
            let came = ahead(seed, goes, selects, None, Loss::KeepAll).unwrap_or_else(|e| panic!("seed {seed}, {goes:?}: {e}"));
            ahead_rows += came.ahead_rows;
            lost_rows += came.lost_rows;
            assert_eq!(came.passed_rows > 20, selects);
            for at in (1..came.ops).step_by(if std::env::var("SLOW").is_ok() { 1 } else { 19 }) {
                for loss in [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(at)] {
                    ahead(seed, goes, selects, Some(at), loss)
                        .unwrap_or_else(|e| panic!("seed {seed}, {goes:?}, crash at {at}, {loss:?}: {e}"));
                }
            }
        }
        let is_one = std::env::var("SEED").is_ok(); // one seed may have luck
        assert!(is_one || (ahead_rows > if selects { 10 } else { 50 } && lost_rows > 50), "{goes:?}: {ahead_rows} ahead, {lost_rows} lost");
    }
}
