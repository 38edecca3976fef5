//! Sinks that do not take everything: each gets its own rows, and the ledger knows what was not for it, whatever happens to
//! disk and process.

use super::*;
use std::collections::BTreeMap;

/// By tenant.
type Rows = BTreeMap<Vec<u8>, u64>;

/// Whether a sink takes a row. Shares no code with the hub.
pub(super) fn takes(frame: &Frame, sink: &str, row: usize) -> bool {
    let named = frame.sinks.iter().position(|name| **name == *sink.as_bytes());
    let others = frame.sinks.iter().position(|name| name.is_empty());
    named.or(others).is_none_or(|bit| frame.rows.sinks[row] & (1 << bit) != 0)
}

fn rows_for(frame: &Frame, sink: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let own = (0..frame.rows.len()).filter(|row| takes(frame, sink, *row));
    own.map(|row| (frame.tenants[frame.rows.tenant[row] as usize].to_vec(), frame.rows.row(row).to_vec())).collect()
}

fn count(rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>, into: &mut Rows) {
    rows.into_iter().for_each(|(tenant, _)| *into.entry(tenant).or_default() += 1);
}

fn records<'a>(tallies: impl IntoIterator<Item = (&'a Vec<u8>, &'a Tally)>) -> Rows {
    tallies.into_iter().map(|(tenant, tally)| (tenant.clone(), tally.records)).collect()
}

/// `a` less `b`, without zeros.
fn less(a: &Rows, b: &Rows) -> Rows {
    let rest = a.iter().map(|(tenant, n)| (tenant.clone(), n - b.get(tenant).copied().unwrap_or(0)));
    rest.filter(|(_, n)| *n > 0).collect()
}

/// What a sink's store has for good.
#[derive(Default)]
struct Store {
    committed: u64,
    stored: Rows,
    pending: Rows,
}

const SINKS: [&str; 4] = ["cold", "errors", "files", "late"];
/// The last sink is there from the second life on; frames of the first one do not know it.
const DICTIONARIES: [&[&str]; 4] = [&["cold", "errors", ""], &["errors"], &["", "cold"], &[]];

/// Random frames, sinks that keep up and one that is slow, a journal that drops what is oldest; a crash, and a second life.
fn lives(seed: u64, crash_at: Option<u64>, loss: Loss) -> Result<u64, String> {
    // 66 frames of about 12 KiB, of which headers are less than 1 KiB: these fit into their eighth.
    let limits =
        Limits { bytes_max: 512 << 10, window_bytes_max: 30_000, segment_bytes: 1 << 20, when_full: WhenFull::DropOldest, ..small() };
    let mut sim = Arc::new(Sim::new(seed));
    crash_at.into_iter().for_each(|at| sim.crash_at(at));
    let mut stores: [Store; 4] = Default::default();
    let mut frames: Vec<Frame> = Vec::new();
    let mut ops = 0;
    let mut lost = 0;
    for life in 0..2u64 {
        let random = &mut Random(seed * 31 + life + 1);
        let mut run = || -> io::Result<()> {
            let (hub, recovered) = match Hub::open_journal(Disk::Sim(Arc::clone(&sim)), dir(), limits, TENANTS_MAX) {
                Ok((hub, recovered)) => (Arc::new(hub), recovered),
                Err(OpenError::Io { source, .. }) => return Err(source),
            };
            frames.truncate(recovered.last_seq as usize);
            assert_eq!(frames.len() as u64, recovered.last_seq);
            let sinks = if life == 0 { 3 } else { 4 };
            let cursor = |i: usize| hub.cursor(SINKS[i], HashMap::from([(StreamId(1), stores[i].committed * 10)]));
            let mut cursors: Vec<Cursor> = (0..sinks).map(cursor).collect();
            stores.iter_mut().for_each(|store| store.pending.clear());
            let mut read = |stores: &mut [Store; 4], frames: &[Frame], i: usize, times: u64, commits: bool| -> io::Result<()> {
                for _ in 0..times {
                    let Next::Frame(frame) = cursors[i].next(Duration::ZERO)? else { break };
                    let decided = &frames[frame.seq as usize - 1];
                    assert_eq!(frame.parts[0].counts, decided.parts[0].counts, "a part stays whole");
                    let frame = frame.only_for(SINKS[i]);
                    if frame.lost.is_none() {
                        let own = rows_for(decided, SINKS[i]);
                        let given = (0..frame.rows.len())
                            .map(|row| (frame.tenants[frame.rows.tenant[row] as usize].to_vec(), frame.rows.row(row).to_vec()));
                        assert_eq!(given.collect::<Vec<_>>(), own, "frame {} of {}", frame.seq, SINKS[i]);
                        assert_eq!(frame.parts[0].rows, 0..own.len() as u32);
                        count(own, &mut stores[i].pending);
                    } else {
                        lost += 1;
                    }
                    if commits {
                        let pending = std::mem::take(&mut stores[i].pending);
                        pending.into_iter().for_each(|(tenant, n)| *stores[i].stored.entry(tenant).or_default() += n);
                        stores[i].committed = frame.seq;
                        cursors[i].committed(frame.seq)?;
                        assert_eq!(hub.ledger().residual(), 0);
                    }
                }
                Ok(())
            };
            for _ in 0..if life == 0 { 60 } else { 6 } {
                let (from, names) = (frames.len() as u64 * 10, DICTIONARIES[random.below(4) as usize]);
                let frame = sample::selecting(random, from, from + 10, 80, names);
                // If the disk fails now, it may be there or not.
                frames.push(frame.clone());
                match hub.accept(frame) {
                    Ok(seq) => assert_eq!(seq, frames.len() as u64),
                    Err(AcceptError::Disk(e)) => return Err(e),
                    Err(e) => panic!("{e}"),
                }
                hub.commit()?;
                for fast in (0..sinks).filter(|i| *i != 2) {
                    read(&mut stores, &frames, fast, 9, true)?;
                }
                if random.below(9) == 0 {
                    let times = random.below(3);
                    read(&mut stores, &frames, 2, times, false)?;
                }
            }
            (0..sinks).try_for_each(|i| read(&mut stores, &frames, i, 999, true))?;
            let ledger = hub.ledger();
            let kept = frames.iter().fold(Rows::new(), |mut rows, frame| {
                count(rows_for(&Frame { sinks: Vec::new(), ..frame.clone() }, "any"), &mut rows);
                rows
            });
            assert_eq!(records(ledger.totals.tenants.iter().map(|(tenant, t)| (tenant, &t.kept))), kept);
            for (i, sink) in SINKS[..sinks].iter().enumerate() {
                let taken = frames.iter().fold(Rows::new(), |mut rows, frame| {
                    count(rows_for(frame, sink), &mut rows);
                    rows
                });
                let totals = &ledger.sinks[*sink];
                let mut rejected = Rows::new();
                totals.rejected.iter().for_each(|(tenant, r)| {
                    rejected.insert(tenant.clone(), r.values().map(|t| t.records).sum());
                });
                assert_eq!(records(&totals.not_selected), less(&kept, &taken), "not selected by {sink}");
                // A sink that comes late finds what the journal still has; before that, it is booked as if it had it.
                if i < 3 {
                    assert_eq!(records(&totals.delivered), stores[i].stored, "delivered to {sink}");
                    assert_eq!(rejected, less(&taken, &stores[i].stored), "rejected by {sink}");
                }
                assert!(totals.buffered.is_empty(), "{sink}: {:?}", totals.buffered);
            }
            assert_eq!(ledger.residual(), 0);
            Ok(())
        };
        match run() {
            Err(e) if crate::disk::is_crash(&e) => {}
            other => other.map_err(|e| e.to_string())?,
        }
        ops = ops.max(sim.ops());
        sim = Arc::new(sim.reboot(loss));
    }
    if lost == 0 && crash_at.is_none() {
        return Err("nothing was dropped".into());
    }
    Ok(ops)
}

#[test]
fn whatever_sinks_take_the_law_holds_and_each_gets_its_own_rows_whenever_a_crash_comes() {
    for seed in seeds(1) {
        let ops = lives(seed, None, Loss::KeepAll).unwrap();
        for at in (1..ops).step_by(if std::env::var("SLOW").is_ok() { 1 } else { 37 }) {
            for loss in [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(at)] {
                lives(seed, Some(at), loss).unwrap_or_else(|e| panic!("seed {seed}, crash at {at}, {loss:?}: {e}"));
            }
        }
    }
}

/// What the ledger says of a sink: delivered, buffered, not selected, and the residual.
fn says(hub: &Hub, sink: &str) -> (u64, u64, u64, i128) {
    let ledger = hub.ledger();
    let sum = |tallies: &BTreeMap<Vec<u8>, Tally>| tallies.values().map(|t| t.records).sum();
    let totals = &ledger.sinks[sink];
    (sum(&totals.delivered), sum(&totals.buffered), sum(&totals.not_selected), ledger.residual())
}

/// Of two rows `errors` takes the second one; `cold` takes neither, so others take both.
fn two_rows(i: u64) -> Frame {
    let mut frame = sample::plain(&[(1, i * 10, i * 10 + 10), (2, i, i + 1)], b"acme", 1);
    frame.sinks = [&b"cold"[..], b"errors", OTHERS].map(Into::into).to_vec();
    frame.rows.sinks = vec![0b100, 0b110];
    for (part, sinks) in frame.parts.iter_mut().zip([0b100, 0b110]) {
        let bytes = part.counts[0].bytes;
        part.selected.push(Selected { tenant: 0, sinks, records: 1, bytes });
    }
    frame
}

#[test]
fn a_checkpoint_of_the_memory_hub_knows_what_was_not_selected() {
    let sim = Arc::new(Sim::new(3));
    let open = |sim: &Arc<Sim>| Arc::new(Hub::open_memory(Disk::Sim(Arc::clone(sim)), dir(), small(), TENANTS_MAX).unwrap().0);
    let hub = open(&sim);
    let mut cursors = ["cold", "errors", "files"].map(|sink| hub.cursor(sink, HashMap::new()));
    for i in 0..4 {
        hub.accept(two_rows(i)).unwrap();
    }
    assert_eq!([says(&hub, "cold"), says(&hub, "errors"), says(&hub, "files")], [(0, 0, 8, 0), (0, 4, 4, 0), (0, 8, 0, 0)]);
    for cursor in &mut cursors {
        while let Next::Frame(frame) = cursor.next(Duration::ZERO).unwrap() {
            cursor.committed(frame.seq).unwrap();
        }
    }
    hub.checkpoint().unwrap();
    let hub = open(&Arc::new(sim.reboot(Loss::LoseUnsynced)));
    let _cursors = ["cold", "errors", "files"].map(|sink| hub.cursor(sink, HashMap::from([(StreamId(1), 40), (StreamId(2), 4)])));
    assert_eq!([says(&hub, "cold"), says(&hub, "errors"), says(&hub, "files")], [(0, 0, 8, 0), (4, 0, 4, 0), (8, 0, 0, 0)]);
}

/// What three sinks are given after something happened to a segment, and what the ledger then says of them.
#[track_caller]
fn damage(file: &str, change: impl Fn(&Disk, &Path), want: Expect) {
    let disk = nine_of(two_rows, change, file);
    let (hub, _) = journal_on(&disk);
    let cursors = ["cold", "errors", "files"].map(|sink| hub.cursor(sink, HashMap::new()));
    for mut cursor in cursors {
        while let Next::Frame(frame) = cursor.next(Duration::ZERO).unwrap() {
            cursor.committed(frame.seq).unwrap();
        }
    }
    let before = hub.ledger();
    let text = ["cold", "errors", "files"].map(|sink| {
        let rejected = before.sinks[sink].rejected.values().flat_map(|r| r.values()).map(|t| t.records).sum::<u64>();
        format!("{sink}: {:?}, {rejected} rejected\n", says(&hub, sink))
    });
    want.assert_eq(&text.concat());
    drop(hub);
    // The second start, after what was damaged has been written anew, says the same.
    let (hub, _) = journal_on(&disk);
    let _cursors = ["cold", "errors", "files"].map(|sink| hub.cursor(sink, HashMap::from([(StreamId(1), 90), (StreamId(2), 9)])));
    assert_eq!(hub.ledger(), before);
}

#[test]
fn of_lost_rows_a_sink_lost_only_those_it_would_have_taken() {
    let missing = |disk: &Disk, path: &Path| disk.unlink(path).unwrap();
    let half = content(|bytes| bytes[..bytes.len() / 2].to_vec());
    damage(
        FILES[0],
        missing,
        expect![[r#"
        cold: (0, 0, 18, 0), 0 rejected
        errors: (6, 0, 9, 0), 3 rejected
        files: (12, 0, 0, 0), 6 rejected
    "#]],
    );
    damage(
        FILES[1],
        missing,
        expect![[r#"
        cold: (0, 0, 18, 0), 0 rejected
        errors: (6, 0, 9, 0), 3 rejected
        files: (12, 0, 0, 0), 6 rejected
    "#]],
    );
    damage(
        FILES[1],
        half,
        expect![[r#"
        cold: (0, 0, 18, 0), 0 rejected
        errors: (7, 0, 9, 0), 2 rejected
        files: (14, 0, 0, 0), 4 rejected
    "#]],
    );
    // The account is in its copy, too.
    damage(
        FILES[1],
        flip(|_| 30),
        expect![[r#"
        cold: (0, 0, 18, 0), 0 rejected
        errors: (9, 0, 9, 0), 0 rejected
        files: (18, 0, 0, 0), 0 rejected
    "#]],
    );
}

#[test]
fn rows_for_other_sinks_than_the_header_counts_turn_the_law_red() {
    let red = |change: fn(&mut Frame), want: i128| {
        let (hub, _) = journal(&Arc::new(Sim::new(3)), small());
        let _sink = hub.cursor("errors", HashMap::new());
        let mut frame = two_rows(0);
        change(&mut frame);
        hub.accept(frame).unwrap();
        hub.commit().unwrap();
        assert_eq!(hub.ledger().residual(), want);
    };
    red(|_| {}, 0);
    red(|f| f.rows.sinks[0] = 0b110, 1); // a leak into `errors`
    red(|f| f.rows.sinks[1] = 0b100, 1); // a record that `errors` never gets
    red(|f| f.rows.sinks.clear(), 3); // two that are not for `cold`, one not for `errors`
    red(|f| f.parts[0].selected[0].records = 3, 5); // two too many for `cold` and for `errors`, and so one more than was kept
    red(|f| f.parts[1].selected.clear(), 1);
}

#[test]
fn a_sink_takes_the_rows_of_its_name_or_of_others() {
    let check = |sinks: &[&str], masks: [u32; 3], want: [&[u64]; 3]| {
        let mut frame = Frame { rows: Default::default(), ..sample::plain(&[(1, 0, 10), (2, 10, 20)], b"acme", 0) };
        let rows = sample::plain(&[(1, 0, 1)], b"acme", 3).rows;
        frame.rows = crate::frame::Rows { position: vec![1, 2, 3], columns: vec![vec![(0, 1), (1, 1), (2, 1)]], ..rows };
        (frame.parts[0].rows, frame.parts[1].rows) = (0..2, 2..3);
        frame.sinks = sinks.iter().map(|name| name.as_bytes().into()).collect();
        frame.rows.sinks = if sinks.is_empty() { Vec::new() } else { masks.to_vec() };
        assert_eq!(frame.validate(), Ok(()));
        let frame = Arc::new(frame);
        for (sink, want) in ["cold", "errors", "files"].iter().zip(want) {
            let own = Arc::clone(&frame).only_for(sink);
            assert_eq!(own.validate(), Ok(()));
            assert_eq!(own.rows.position, want, "{sink} with {sinks:?}");
            assert_eq!(own.rows.columns[0].iter().map(|span| u64::from(span.0) + 1).collect::<Vec<_>>(), want);
            let of_part = own.parts.iter().map(|part| own.rows.position[part.rows.start as usize..part.rows.end as usize].to_vec());
            let split: Vec<Vec<u64>> =
                [&[1, 2][..], &[3]].map(|part| part.iter().copied().filter(|row| want.contains(row)).collect()).to_vec();
            assert_eq!(of_part.collect::<Vec<_>>(), split);
            assert_eq!(Arc::ptr_eq(&own, &frame), want.len() == 3, "nothing is copied where nothing is left out");
        }
    };
    check(&["cold", "errors", ""], [0b100, 0b110, 0b001], [&[3], &[2], &[1, 2]]);
    check(&["cold", "errors"], [0b11, 0b01, 0b10], [&[1, 2], &[1, 3], &[1, 2, 3]]);
    check(&["", "cold"], [0b11, 0b01, 0b10], [&[1, 3], &[1, 2], &[1, 2]]);
    check(&["other"], [0, 0, 1], [&[1, 2, 3]; 3]);
    check(&[], [0; 3], [&[1, 2, 3]; 3]);
}
