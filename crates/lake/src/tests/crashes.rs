//! A lake on the simulated disk: a crash at every step, every way to lose what was not synced, every fsync and
//! link broken in turn, a full disk, and a forgotten twin.

use super::*;
use hub::disk::{Loss, is_crash};
use std::collections::HashMap;
use std::io::ErrorKind;

const ROOT: &str = "/data/lake";

fn frames() -> Vec<Arc<Frame>> {
    let raw = |i: usize| format!(r#"{{"service":"s{}","msg":"row {i}","trace_id":"t{i}"}}"#, i % 2);
    let lines: Vec<Line> = (0..18).map(|i| line(["acme", "zeta"][i / 2 % 2], START + i as i64 * DAY / 24, &raw(i))).collect();
    let mut frames = vec![frame(1, 1, 0, &lines[..4]), frame(2, 2, 0, &lines[4..8])];
    frames.push(frame(3, 1, end(&frames[0]), &lines[8..12]));
    frames.push(frame(4, 2, end(&frames[1]), &lines[12..18]));
    frames
}

fn with_lineage() -> Options {
    Options { lineage: Some(block()), ..options(240) }
}

/// Seals in two steps, as a sink would: each time everything since the start, which the lake skips. Returns
/// what was acknowledged.
fn work(disk: &Disk, frames: &[Arc<Frame>]) -> (HashMap<StreamId, u64>, anyhow::Result<()>) {
    let mut acknowledged = HashMap::new();
    let mut steps = || -> anyhow::Result<()> {
        let mut lake = Lake::open(disk.clone(), Path::new(ROOT), with_lineage())?;
        acknowledged = lake.positions();
        for n in [2, frames.len()] {
            lake.seal(&frames[..n])?;
            acknowledged = lake.positions();
        }
        Ok(())
    };
    let outcome = steps();
    (acknowledged, outcome)
}

fn ensure(ok: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(what()) }
}

fn text<T>(outcome: anyhow::Result<T>) -> Result<T, String> {
    outcome.map_err(|error| format!("{error:#}"))
}

/// The lake holds exactly the rows, facts and events of what its positions cover, and these cover `least`.
fn verify(disk: &Disk, frames: &[Arc<Frame>], least: &HashMap<StreamId, u64>) -> Result<(), String> {
    let root = Path::new(ROOT);
    let snapshot = text(Snapshot::read(disk, root))?;
    for (stream, position) in least {
        let has = snapshot.positions().get(stream).copied().unwrap_or(0);
        ensure(has >= *position, || format!("stream {stream:?} was acknowledged up to {position} and stands at {has}"))?;
    }
    let covered = |f: &&Arc<Frame>| snapshot.positions().get(&f.parts[0].stream).is_some_and(|p| *p >= end(f));
    let want: Vec<&Arc<Frame>> = frames.iter().filter(covered).collect();
    let mut rows: Vec<(u64, u64, Vec<u8>)> =
        want.iter().flat_map(|f| (0..f.rows.len()).map(|i| (f.parts[0].stream.0, f.rows.position[i], f.rows.row(i).to_vec()))).collect();
    rows.sort();
    for query in ["", "row"] {
        let mut got = Vec::new();
        let parsed = Query::parse(query).unwrap();
        text(search(disk, &snapshot, &[], &parsed, &SearchOptions::default(), &mut |hit| {
            got.push((hit.stream.0, hit.position, hit.raw));
            ControlFlow::Continue(())
        }))?;
        got.sort();
        ensure(got == rows, || format!("{} rows are found by {query:?}, {} were sealed", got.len(), rows.len()))?;
    }
    let quantity: i128 = want.iter().flat_map(|f| &f.parts[0].facts).filter(|f| f.meter == 0).map(|f| f.quantity).sum();
    let got: i128 = text(usage(disk, &snapshot, &[]))?.iter().map(|f| f.quantity).sum();
    ensure(got == quantity, || format!("usage adds up to {got}, not {quantity}"))?;
    let keys: Vec<String> = text(lineage_events(disk, &snapshot, &[], None))?.into_iter().map(|e| e.key).collect();
    let distinct: BTreeSet<&String> = keys.iter().collect();
    ensure(keys.len() == distinct.len() && keys.is_empty() == want.is_empty(), || format!("lineage events: {keys:?}"))?;
    text(snapshot.rows_by_tenant())?;
    Ok(())
}

/// No file lies around that no commit names.
fn verify_tidy(disk: &Disk) -> Result<(), String> {
    let snapshot = text(Snapshot::read(disk, Path::new(ROOT)))?;
    let named: BTreeSet<String> =
        snapshot.log.files.values().flatten().flat_map(|f| [Some(f.path.clone()), f.index.clone()]).flatten().collect();
    let mut found = BTreeSet::new();
    let mut folders = vec!["logs".to_owned(), "usage".into(), "lineage".into()];
    while let Some(folder) = folders.pop() {
        for name in disk.list(&Path::new(ROOT).join(&folder)).unwrap() {
            let path = format!("{folder}/{}", name.file_name().unwrap().to_str().unwrap());
            if path.contains(".parquet") || path.contains(".idx") {
                found.insert(path);
            } else {
                folders.push(path);
            }
        }
    }
    ensure(found == named, || format!("{found:?} lie there, {named:?} are named"))?;
    let commits = disk.list(&Path::new(ROOT).join("_commits")).unwrap();
    ensure(commits.iter().all(|c| !c.to_string_lossy().ends_with(".tmp")), || format!("{commits:?}"))
}

/// Crashes at operation `at`, comes up with `loss`, comes up again after a power loss, finishes the work, and
/// comes up a last time after a power loss.
fn crash(sim: &Sim, frames: &[Arc<Frame>], at: u64, loss: Loss) -> Result<(), String> {
    let sim = Arc::new(sim.reboot(Loss::KeepAll));
    let disk = Disk::Sim(Arc::clone(&sim));
    sim.crash_at(at);
    let (acknowledged, outcome) = work(&disk, frames);
    if let Err(error) = &outcome {
        let crashed =
            error.chain().any(|e| e.downcast_ref::<std::io::Error>().is_some_and(is_crash) || e.to_string().contains("simulated crash"));
        ensure(crashed, || format!("without a crash: {error:#}"))?;
    }
    let second = Arc::new(sim.reboot(loss));
    let disk = Disk::Sim(Arc::clone(&second));
    verify(&disk, frames, &acknowledged)?;
    // A restart tells the hub its positions; from then on they are promised, too.
    let promised = text(Lake::open(disk.clone(), Path::new(ROOT), with_lineage()))?.positions();
    verify_tidy(&disk)?;
    let third = Disk::Sim(Arc::new(second.reboot(Loss::LoseUnsynced)));
    verify(&third, frames, &promised)?;
    for (disk, sim) in [(disk, Some(second)), (third, None)] {
        let (all, outcome) = work(&disk, frames);
        text(outcome)?;
        let everything = frames.iter().all(|f| all.get(&f.parts[0].stream).is_some_and(|p| *p >= end(f)));
        ensure(everything, || format!("not everything was sealed: {all:?}"))?;
        verify(&disk, frames, &all)?;
        verify_tidy(&disk)?;
        if let Some(sim) = sim {
            verify(&Disk::Sim(Arc::new(sim.reboot(Loss::LoseUnsynced))), frames, &all)?;
        }
    }
    Ok(())
}

fn operations(frames: &[Arc<Frame>]) -> u64 {
    let sim = Arc::new(Sim::new(1));
    work(&Disk::Sim(Arc::clone(&sim)), frames).1.unwrap();
    sim.ops()
}

#[test]
fn a_crash_anywhere_loses_nothing_and_doubles_nothing() {
    let frames = frames();
    let ops = operations(&frames);
    assert!(ops > 50, "the work has {ops} steps");
    for at in 1..=ops + 1 {
        for loss in [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(at), Loss::Seeded(at + 1000)] {
            if let Err(error) = crash(&Sim::new(at), &frames, at, loss) {
                panic!("crash at {at} with {loss:?}: {error}");
            }
        }
    }
}

#[test]
fn every_fsync_and_link_is_needed() {
    let frames = frames();
    let sim = Arc::new(Sim::new(1));
    let disk = Disk::Sim(Arc::clone(&sim));
    work(&disk, &frames).1.unwrap();
    work(&disk, &frames).1.unwrap();
    let sites: Vec<&str> = sim.sites().into_iter().collect();
    assert_eq!(
        sites,
        [
            "lake.commit.folder",
            "lake.commit.link",
            "lake.commit.sync",
            "lake.data.create",
            "lake.data.folder",
            "lake.data.link",
            "lake.data.sync",
            "lake.open.commits",
            "lake.open.create",
        ]
    );
    let ops = operations(&frames);
    for site in sites {
        let noticed = (1..=ops + 1).any(|at| {
            [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(at)].into_iter().any(|loss| {
                let sim = Sim::new(at);
                sim.break_site(site);
                crash(&sim, &frames, at, loss).is_err()
            })
        });
        assert!(noticed, "nobody notices that {site} does nothing");
    }
}

#[test]
fn after_a_failed_write_the_same_lake_goes_on() {
    let frames = frames();
    let ops = operations(&frames);
    for at in 1..=ops {
        let sim = Arc::new(Sim::new(at));
        let disk = Disk::Sim(Arc::clone(&sim));
        let open = || Lake::open(disk.clone(), Path::new(ROOT), with_lineage());
        let mut lake = open().unwrap();
        sim.fail_at(sim.ops() + at, ErrorKind::StorageFull);
        for n in [2, frames.len(), frames.len()] {
            if lake.seal(&frames[..n]).is_err() {
                lake.seal(&frames[..n]).unwrap();
            }
        }
        verify(&disk, &frames, &lake.positions()).unwrap_or_else(|error| panic!("failure at {at}: {error}"));
        assert_eq!(find_all(&disk, Path::new(ROOT), &[], "").len(), 18);
        drop(lake);
        open().or_else(|_| open()).unwrap(); // the failure may have waited until here
        verify_tidy(&disk).unwrap();
    }
}

#[test]
fn a_forgotten_twin_doubles_nothing_and_leaves_nothing() {
    let frames = frames();
    let disk = Disk::Sim(Arc::new(Sim::new(1)));
    let open = || Lake::open(disk.clone(), Path::new(ROOT), with_lineage()).unwrap();
    let (mut one, mut twin) = (open(), open());
    assert!(one.seal(&frames[..2]).unwrap().is_some());
    assert_eq!(twin.seal(&frames[..2]).unwrap(), None, "the twin had the same to say");
    verify_tidy(&disk).unwrap();
    assert!(twin.seal(&frames[..3]).unwrap().is_some());
    // `one` does not know of the twin's commit and has one more frame.
    let sealed = one.seal(&frames).unwrap().unwrap();
    assert_eq!((sealed.number, sealed.rows, sealed.lost), (3, 6, 1));
    verify(&disk, &frames, &one.positions()).unwrap();
    verify_tidy(&disk).unwrap();
    // Another stream: both may go on, the second under the next number.
    let far = frame(9, 77, 0, &sample_lines(2));
    let sealed = twin.seal(std::slice::from_ref(&far)).unwrap().unwrap();
    assert_eq!((sealed.number, sealed.rows, sealed.lost), (4, 2, 0));
}
