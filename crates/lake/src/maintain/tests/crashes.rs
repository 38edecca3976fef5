//! Keeping a lake on the simulated disk: a crash at every step of sealing, merging, dropping, mending and sweeping, every way to lose
//! what was not synced, and every fsync and link of a keeper broken in turn.

use super::*;
use flow::event::StreamId;
use hub::disk::{Loss, is_crash};
use std::collections::HashMap;

/// A day of two tenants and one of one; some of each comes after the first merge.
fn frames() -> Vec<Arc<Frame>> {
    let (old, new) = (frames_of_day(1, 0, 3), frames_of(["acme"; 2], 2, 3, 3));
    [&old[..2], &new[..2], &old[2..], &new[2..]].concat()
}

/// What was acknowledged.
#[derive(Clone, Default)]
struct Acknowledged {
    positions: HashMap<StreamId, u64>,
    number: u64,
    dropped: bool,
}

/// One life of a node: it seals, merges, seals more, drops the first day, mends, sweeps, and merges again. Started anew, it does
/// what is left of that.
fn work(disk: &Disk, frames: &[Arc<Frame>], known: &mut Acknowledged) -> anyhow::Result<()> {
    let mut lake = Lake::open(disk.clone(), root(), options(u64::MAX))?;
    let mut seal = |known: &mut Acknowledged, until: usize| -> anyhow::Result<()> {
        if let Some(sealed) = lake.seal(&frames[..until])? {
            known.number = sealed.number;
        }
        known.positions = lake.positions();
        Ok(())
    };
    seal(known, 1)?;
    seal(known, 2)?;
    seal(known, 4)?;
    let mut keeper = Keeper::open(disk, root())?;
    keeper.compact(&compact_options(), later(6))?;
    known.number = known.number.max(keeper.number());
    seal(known, frames.len())?;
    keeper.retain(&retention(3 * DAY), later(6))?;
    (known.number, known.dropped) = (keeper.number(), true);
    keeper.reindex(&reindex_options(), later(6))?;
    keeper.sweep(Span(0), later(6))?;
    keeper.compact(&CompactOptions { index_bytes_min: 0, ..compact_options() }, later(8))?;
    keeper.sweep(Span(0), later(8))?;
    known.number = keeper.number();
    Ok(())
}

fn ensure(ok: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(what()) }
}

fn text<T>(outcome: anyhow::Result<T>) -> Result<T, String> {
    outcome.map_err(|error| format!("{error:#}"))
}

/// The lake holds exactly what its positions cover, but for the first day once that was dropped, and at least what was acknowledged.
fn verify(disk: &Disk, frames: &[Arc<Frame>], known: &Acknowledged) -> Result<(), String> {
    let snapshot = text(Snapshot::read(disk, root()))?;
    ensure(snapshot.number() >= known.number, || format!("commit {} was acknowledged, {} is the last", known.number, snapshot.number()))?;
    for (stream, position) in &known.positions {
        let has = snapshot.positions().get(stream).copied().unwrap_or(0);
        ensure(has >= *position, || format!("stream {stream:?} was acknowledged up to {position} and stands at {has}"))?;
    }
    let covered = |f: &&Arc<Frame>| snapshot.positions().get(&f.parts[0].stream).is_some_and(|p| *p >= f.parts[0].to);
    let sealed: Vec<Arc<Frame>> = frames.iter().filter(covered).cloned().collect();
    let all = delivered(&sealed);
    let dropped = snapshot.drops().len() > 0;
    ensure(dropped || !known.dropped, || "a drop was acknowledged and is not there".into())?;
    let want: Vec<Stored> = all.iter().filter(|row| !dropped || row.1 >= START + DAY).cloned().collect();
    let got = text(stored(&snapshot))?;
    ensure(got == want, || format!("{} rows are stored, not {}", got.len(), want.len()))?;
    for query in ["", "row"] {
        let mut hits = Vec::new();
        let parsed = crate::Query::parse(query).unwrap();
        let stats = text(crate::search(disk, &snapshot, &[], &parsed, &SearchOptions::default(), &mut |hit| {
            hits.push((hit.stream.0, hit.position, hit.raw));
            std::ops::ControlFlow::Continue(())
        }))?;
        hits.sort();
        ensure(hits == places(&want), || format!("{} rows are found by {query:?}, not {}", hits.len(), want.len()))?;
        ensure(stats.index_failures == 0, || "an index cannot be read".into())?;
    }
    let counted = text(stored_and_expired(&snapshot))?;
    ensure(counted == sums(&all), || format!("stored and expired are {counted:?}, delivered {:?}", sums(&all)))
}

fn verify_tidy(disk: &Disk) -> Result<(), String> {
    let (lying, named) = lying_and_named(disk, root());
    ensure(lying == named, || format!("{lying:?} lie there, {named:?} are named"))
}

/// What is there when all is done: one file of the second day, with an index.
fn verify_done(disk: &Disk) -> Result<(), String> {
    let snapshot = text(Snapshot::read(disk, root()))?;
    let logs = snapshot.logs();
    ensure(logs.len() == 1 && logs.iter().all(|f| f.index.is_some()), || format!("not all was merged: {logs:?}"))
}

/// Crashes at operation `at`, comes up with `loss`, and goes on in two ways: a keeper comes first and sweeps, or the writer opens the
/// lake. Each loses power again and finishes its work.
fn crash(base: &Sim, frames: &[Arc<Frame>], at: u64, loss: Loss) -> Result<(), String> {
    let sim = Arc::new(base.reboot(Loss::KeepAll));
    let disk = Disk::Sim(Arc::clone(&sim));
    sim.crash_at(at);
    let mut known = Acknowledged::default();
    if let Err(error) = work(&disk, frames, &mut known) {
        let crashed =
            error.chain().any(|e| e.downcast_ref::<std::io::Error>().is_some_and(is_crash) || e.to_string().contains("simulated crash"));
        ensure(crashed, || format!("without a crash: {error:#}"))?;
    }
    let keeper_first = Arc::new(sim.reboot(loss));
    verify(&Disk::Sim(Arc::clone(&keeper_first)), frames, &known)?;
    let writer_first = Arc::new(keeper_first.reboot(Loss::KeepAll));

    let disk = Disk::Sim(Arc::clone(&keeper_first));
    text(sweep_removed(&disk, root(), Span(0), later(9)))?;
    verify(&disk, frames, &known)?;
    for loss in [Loss::LoseUnsynced, Loss::Seeded(at), Loss::Seeded(at + 1)] {
        verify(&Disk::Sim(Arc::new(keeper_first.reboot(loss))), frames, &known)?;
    }

    let disk = Disk::Sim(Arc::clone(&writer_first));
    known.positions = text(Lake::open(disk.clone(), root(), options(u64::MAX)))?.positions();
    text(sweep_removed(&disk, root(), Span(0), later(9)))?;
    verify(&disk, frames, &known)?;
    verify_tidy(&disk)?;
    let last = Arc::new(writer_first.reboot(Loss::Seeded(at)));
    let disk = Disk::Sim(Arc::clone(&last));
    verify(&disk, frames, &known)?;
    text(work(&disk, frames, &mut known))?;
    verify(&disk, frames, &known)?;
    verify_tidy(&disk)?;
    let disk = Disk::Sim(Arc::new(last.reboot(Loss::LoseUnsynced)));
    verify(&disk, frames, &known)?;
    verify_done(&disk)
}

fn operations(base: &Sim, frames: &[Arc<Frame>]) -> u64 {
    let sim = Arc::new(base.reboot(Loss::KeepAll));
    work(&Disk::Sim(Arc::clone(&sim)), frames, &mut Acknowledged::default()).unwrap();
    verify_done(&Disk::Sim(Arc::clone(&sim))).unwrap();
    sim.ops()
}

#[test]
fn a_crash_anywhere_loses_nothing_doubles_nothing_and_leaves_nothing() {
    let (base, frames) = (Sim::new(1), frames());
    let ops = operations(&base, &frames);
    assert!(ops > 120, "the work has {ops} steps");
    for at in 1..=ops + 1 {
        let luck = (at % 3 == 0 || std::env::var("SLOW").is_ok()).then_some(Loss::Seeded(at));
        for loss in [Some(Loss::LoseUnsynced), Some(Loss::KeepAll), luck].into_iter().flatten() {
            if let Err(error) = crash(&base, &frames, at, loss) {
                panic!("crash at {at} with {loss:?}: {error}");
            }
        }
    }
}

#[test]
fn every_fsync_and_link_of_a_keeper_is_needed() {
    let frames = frames();
    // Everything is sealed before, so whatever is missed is a keeper's.
    let sealed = Arc::new(Sim::new(1));
    let mut lake = open(&Disk::Sim(Arc::clone(&sealed)), root(), u64::MAX);
    for until in [1, 2, 4, frames.len()] {
        lake.seal(&frames[..until]).unwrap();
    }
    let base = sealed.reboot(Loss::LoseUnsynced);
    let ops = operations(&base, &frames);
    let ran = {
        let sim = Arc::new(base.reboot(Loss::KeepAll));
        work(&Disk::Sim(Arc::clone(&sim)), &frames, &mut Acknowledged::default()).unwrap();
        sim.sites()
    };
    // Of opening and of new folders, which a keeper never needs, `tests::crashes` makes sure.
    let others = ["lake.data.create", "lake.open.commits", "lake.open.create"];
    let sites: Vec<&str> = ran.into_iter().filter(|site| !others.contains(site)).collect();
    assert_eq!(
        sites,
        [
            "lake.commit.folder",
            "lake.commit.link",
            "lake.commit.sync",
            "lake.data.folder",
            "lake.data.link",
            "lake.data.sync",
            "lake.sweep.commits"
        ]
    );
    for site in sites {
        let noticed = (1..=ops + 1).any(|at| {
            [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(at)].into_iter().any(|loss| {
                let base = base.reboot(Loss::KeepAll);
                base.break_site(site);
                crash(&base, &frames, at, loss).is_err()
            })
        });
        assert!(noticed, "nobody notices that {site} does nothing");
    }
}
