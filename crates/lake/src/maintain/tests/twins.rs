//! Keepers and writers at the same time: whoever is second goes on or gives up, and no row is lost or doubled.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

fn verify(disk: &Disk, root: &Path, frames: &[Arc<Frame>]) {
    let snapshot = Snapshot::read(disk, root).unwrap();
    assert_eq!(stored(&snapshot).unwrap(), delivered(frames));
    assert_eq!(found(disk, root, "row"), places(&delivered(frames)));
    assert_eq!(snapshot.rows_by_tenant().unwrap(), sums(&delivered(frames)));
}

#[test]
fn a_writer_seals_between_the_steps_of_a_merge() {
    let disk = sim();
    let mut lake = open(&disk, root(), u64::MAX);
    let frames = frames_of_day(1, 0, 8);
    seal_each(&mut lake, &frames[..3]);
    let mut keeper = Keeper::open(&disk, root()).unwrap();
    lake.seal(&frames[..4]).unwrap().unwrap(); // after the keeper has read the log
    let mut next = 4;
    let mut between = || {
        next += 1;
        lake.seal(&frames[..next]).unwrap().unwrap();
        lake.seal(&frames[..next + 1]).unwrap().unwrap();
        next += 1;
    };
    let done = keeper.compact_with(&compact_options(), later(2), &mut between).unwrap();
    assert_eq!((done.merges, done.files, done.lost), (2, 8, 0), "what was sealed meanwhile is not in it");
    assert_eq!(next, 8);
    verify(&disk, root(), &frames);
    // The writer learns of the keeper's commits when it finds its number taken.
    let more = frames_of_day(2, 1, 1);
    let sealed = lake.seal(&more).unwrap().unwrap();
    assert_eq!((sealed.number, sealed.lost), (11, 0), "8 seals and 2 merges before");
    verify(&disk, root(), &[frames, more].concat());
}

#[test]
fn the_second_of_two_mergers_gives_up() {
    for (second_retains, lost) in [(false, 2), (true, 2)] {
        let disk = sim();
        let mut lake = open(&disk, root(), u64::MAX);
        let frames = frames_of_day(1, 0, 3);
        seal_each(&mut lake, &frames);
        let (mut one, mut two) = (Keeper::open(&disk, root()).unwrap(), Keeper::open(&disk, root()).unwrap());
        let mut merged = 0;
        let mut between = || {
            if second_retains {
                two.retain(&retention(DAY), later(9)).unwrap();
            } else {
                merged += two.compact(&compact_options(), later(2)).unwrap().merges;
            }
        };
        let done = one.compact_with(&compact_options(), later(2), &mut between).unwrap();
        assert_eq!((done.merges, done.lost), (0, lost));
        sweep_removed(&disk, root(), Span(0), later(9)).unwrap();
        let (lying, named) = lying_and_named(&disk, root());
        assert_eq!(lying, named, "the files of a merge that was given up are gone");
        if second_retains {
            let snapshot = Snapshot::read(&disk, root()).unwrap();
            assert_eq!((snapshot.rows(), snapshot.expired_by_tenant()), (0, &sums(&delivered(&frames))));
        } else {
            assert_eq!(merged, 2);
            verify(&disk, root(), &frames);
        }
    }
}

#[test]
fn a_merge_whose_file_was_swept_meanwhile_gives_up() {
    let disk = sim();
    let mut lake = open(&disk, root(), u64::MAX);
    let frames = frames_of_day(1, 0, 3);
    seal_each(&mut lake, &frames);
    let mut one = Keeper::open(&disk, root()).unwrap();
    let mut first = true;
    let mut between = || {
        // Between the first merge and the second another keeper does both and sweeps.
        if std::mem::take(&mut first) {
            compact(&disk, root(), &compact_options(), later(2)).unwrap();
            sweep_removed(&disk, root(), Span(0), later(2)).unwrap();
        }
    };
    let done = one.compact_with(&compact_options(), later(2), &mut between).unwrap();
    assert_eq!((done.merges, done.lost, done.failed.len()), (0, 2, 0));
    verify(&disk, root(), &frames);
    let (lying, named) = lying_and_named(&disk, root());
    assert_eq!(lying, named);
}

#[test]
fn a_writer_two_keepers_and_a_reader_in_threads() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut lake = Lake::open(Disk::Real, root, options(u64::MAX)).unwrap();
    let frames = frames_of_day(1, 0, 40);
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            seal_each(&mut lake, &frames);
            written.store(true, Ordering::SeqCst);
        });
        let keep = || {
            let mut keeper = Keeper::open(&Disk::Real, root).unwrap();
            while !written.load(Ordering::SeqCst) {
                keeper.compact(&CompactOptions { cold_after: Span(0), ..compact_options() }, later(2)).unwrap();
                keeper.reindex(&ReindexOptions { index_bytes_min: 300, ..reindex_options() }, later(2)).unwrap();
            }
        };
        scope.spawn(keep);
        scope.spawn(keep);
        scope.spawn(|| {
            let all = delivered(&frames);
            while !written.load(Ordering::SeqCst) {
                let snapshot = Snapshot::read(&Disk::Real, root).unwrap();
                let position = snapshot.positions().get(&flow::event::StreamId(1)).copied().unwrap_or(0);
                let want: Vec<Stored> = all.iter().filter(|row| row.5 <= position).cloned().collect();
                assert!(stored(&snapshot).unwrap() == want, "a reader sees a lake between two commits");
            }
        });
    });
    verify(&Disk::Real, root, &frames);
    let mut keeper = Keeper::open(&Disk::Real, root).unwrap();
    // The coldness of a merge's own file is counted from its commit.
    keeper.compact(&compact_options(), later(3)).unwrap();
    keeper.sweep(Span(0), later(3)).unwrap();
    drop(Lake::open(Disk::Real, root, options(u64::MAX)).unwrap());
    verify(&Disk::Real, root, &frames);
    let (lying, named) = lying_and_named(&Disk::Real, root);
    assert_eq!(lying, named);
    assert_eq!(Snapshot::read(&Disk::Real, root).unwrap().logs().len(), 2);
}
