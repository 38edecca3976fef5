//! Seals, merges, drops, lost indexes, sweeps and restarts in any order, against the list of rows that were delivered.

use super::*;
use flow::units::ByteSize;
use hub::disk::Loss;

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

const TENANTS: [&str; 3] = ["acme", "zeta", "ümlaut/x"];

struct World {
    random: Random,
    sim: Arc<Sim>,
    lake: Lake,
    keeper: Keeper,
    hour_bytes_min: u64,
    /// Everything that was sealed.
    sealed: Vec<Arc<Frame>>,
    /// What must be there now.
    rows: Vec<Stored>,
    ends: [u64; 3],
    now: i64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let sim = Arc::new(Sim::new(seed));
        let hour_bytes_min = [300, 1 << 30][random.below(2) as usize];
        let disk = Disk::Sim(Arc::clone(&sim));
        let lake = World::lake(&disk, hour_bytes_min, random.below(3));
        let keeper = Keeper::open(&disk, root()).unwrap();
        World { random, sim, lake, keeper, hour_bytes_min, sealed: Vec::new(), rows: Vec::new(), ends: [0; 3], now: START }
    }

    fn lake(disk: &Disk, hour_bytes_min: u64, indexed: u64) -> Lake {
        let index_bytes_min = if indexed == 0 { 500 } else { u64::MAX };
        Lake::open(disk.clone(), root(), crate::Options { hour_bytes_min, ..options(index_bytes_min) }).unwrap()
    }

    fn disk(&self) -> Disk {
        Disk::Sim(Arc::clone(&self.sim))
    }

    fn seal(&mut self) {
        for _ in 0..1 + self.random.below(2) {
            let stream = self.random.below(3) as usize;
            let lines: Vec<Line> = (0..1 + self.random.below(6))
                .map(|i| {
                    let time = self.now - self.random.below(50) as i64 * NANOS_PER_HOUR;
                    let n = self.random.below(40);
                    let raw = format!(r#"{{"service":"s{}","msg":"row word{n}","trace_id":"t{n}","i":{i}}}"#, n % 4);
                    line(TENANTS[self.random.below(3) as usize], time, &raw)
                })
                .collect();
            let frame = batch(self.sealed.len() as u64 + 1, stream as u64, self.ends[stream], self.now, &lines);
            self.ends[stream] = crate::tests::end(&frame);
            self.rows.extend(delivered(std::slice::from_ref(&frame)));
            self.sealed.push(frame);
        }
        let new = self.sealed.len().saturating_sub(3);
        self.lake.seal(&self.sealed[new..]).unwrap().unwrap();
    }

    fn compact(&mut self) {
        let options = CompactOptions {
            cold_after: Span(self.random.below(3) as i64 * NANOS_PER_HOUR),
            file_bytes_min: 200 + self.random.below(2000),
            target_bytes: 400 + self.random.below(4000),
            files_min: self.random.below(4) as usize,
            index_bytes_min: [0, 500, u64::MAX][self.random.below(3) as usize],
            bytes_max: [0, u64::MAX][self.random.below(2) as usize],
            ..compact_options()
        };
        let done = self.keeper.compact(&options, UnixNanos(self.now)).unwrap();
        assert_eq!((done.lost, done.failed), (0, Vec::new()));
    }

    /// Rows go by whole days or hours of a tenant, oldest first, and only where a limit says so.
    fn retain(&mut self) {
        let age = [None, Some(Span((10 + self.random.below(60) as i64) * NANOS_PER_HOUR))][self.random.below(2) as usize];
        let bytes = [None, Some(ByteSize(3000 + self.random.below(20_000)))][self.random.below(2) as usize];
        let rules = Retention { age, bytes, ..Retention::default() };
        let before = Snapshot::read(&self.disk(), root()).unwrap();
        let dropped = self.keeper.retain(&rules, UnixNanos(self.now)).unwrap();
        let after = Snapshot::read(&self.disk(), root()).unwrap();
        let has = stored(&after).unwrap();
        // By folder: tenant, newest row as the rows say, bytes as the disk says, and whether it is still there.
        let mut folders: BTreeMap<&str, (&str, i64, u64, bool)> = BTreeMap::new();
        for file in before.logs() {
            let len = |path: &str| self.disk().len(&root().join(path)).unwrap_or(0); // an index may have been lost
            let bytes = len(&file.path) + file.index.as_deref().map_or(0, |index| len(index).max(file.index_bytes));
            let stays = after.logs().iter().any(|f| f.path == file.path);
            let folder = folders.entry(partition_of(&file.path)).or_insert((&file.tenant, i64::MIN, 0, stays));
            assert_eq!(folder.3, stays, "a partition goes as a whole");
            *folder = (folder.0, folder.1.max(file.max_time), folder.2 + bytes, stays);
        }
        for (folder, (tenant, newest, bytes_of, stays)) in &folders {
            let old = age.is_some_and(|age| *newest < self.now - age.0);
            let newer: u64 = folders.values().filter(|f| f.0 == *tenant && f.1 > *newest).map(|f| f.2).sum();
            let as_old: u64 = folders.values().filter(|f| f.0 == *tenant && f.1 == *newest).map(|f| f.2).sum();
            let limit = bytes.map_or(u64::MAX, |bytes| bytes.0);
            if old || newer + bytes_of > limit {
                assert!(!stays, "{folder} should have gone");
            } else if newer + as_old <= limit {
                assert!(stays, "{folder} should have stayed");
            }
        }
        let gone: Vec<Stored> = self.rows.iter().filter(|row| has.binary_search(row).is_err()).cloned().collect();
        self.rows.retain(|row| has.binary_search(row).is_ok());
        let mut told: BTreeMap<Vec<u8>, (u64, u64)> = BTreeMap::new();
        for drop in dropped {
            let sum = told.entry(drop.tenant).or_default();
            *sum = (sum.0 + drop.rows, sum.1 + drop.origin_bytes);
        }
        assert_eq!(told, sums(&gone));
    }

    fn lose_an_index(&mut self) {
        let snapshot = Snapshot::read(&self.disk(), root()).unwrap();
        let indexes: Vec<&String> = snapshot.logs().iter().filter_map(|f| f.index.as_ref()).collect();
        if !indexes.is_empty() {
            let path = root().join(indexes[self.random.below(indexes.len() as u64) as usize]);
            if self.disk().exists(&path).unwrap() {
                self.disk().unlink(&path).unwrap();
            }
        }
    }

    fn reindex(&mut self) {
        let index_bytes_min = [0, 800, u64::MAX][self.random.below(3) as usize];
        let options = ReindexOptions { index_bytes_min, bytes_max: [0, u64::MAX][self.random.below(2) as usize], ..reindex_options() };
        let done = self.keeper.reindex(&options, UnixNanos(self.now)).unwrap();
        assert_eq!((done.lost, done.failed), (0, Vec::new()));
        if !done.more {
            let (_, stats) = find(&self.disk(), root(), &[], "t1", &SearchOptions::default());
            assert_eq!(stats.index_failures, 0, "every index is whole again");
        }
    }

    fn restart(&mut self) {
        let loss = [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(self.now as u64)][self.random.below(3) as usize];
        self.sim = Arc::new(self.sim.reboot(loss));
        let indexed = self.random.below(3);
        self.lake = World::lake(&self.disk(), self.hour_bytes_min, indexed);
        self.keeper = Keeper::open(&self.disk(), root()).unwrap();
    }

    fn verify(&mut self) {
        self.rows.sort();
        let snapshot = Snapshot::read(&self.disk(), root()).unwrap();
        assert!(stored(&snapshot).unwrap() == self.rows, "{} rows should be stored", self.rows.len());
        assert_eq!(stored_and_expired(&snapshot).unwrap(), sums(&delivered(&self.sealed)));
        let word = format!("word{}", self.random.below(40));
        let ends = format!(" {word}\"");
        let want = |row: &&Stored| String::from_utf8_lossy(&row.8).contains(&ends);
        let want: Vec<Stored> = self.rows.iter().filter(want).cloned().collect();
        assert_eq!(found(&self.disk(), root(), &word), places(&want));
    }
}

#[test]
fn any_order_of_events_keeps_every_row_once() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_127);
    println!("SEED={seed}");
    let cases: u64 = if std::env::var("SLOW").is_ok() { 5_000 } else { 300 };
    let (mut removed, mut drops) = (0, 0);
    for case in 0..cases {
        println!("case {case}"); // shown if it fails
        let mut world = World::new((seed + case).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..10 {
            world.now += world.random.below(8) as i64 * NANOS_PER_HOUR;
            match world.random.below(16) {
                0..=5 => world.seal(),
                6..=8 => world.compact(),
                9 | 10 => world.retain(),
                11 => world.lose_an_index(),
                12 => world.reindex(),
                13 => {
                    let grace = Span(world.random.below(20) as i64 * NANOS_PER_HOUR);
                    world.keeper.sweep(grace, UnixNanos(world.now)).unwrap();
                }
                14 => world.restart(),
                _ => world.verify(),
            }
        }
        world.verify();
        let snapshot = Snapshot::read(&world.disk(), root()).unwrap();
        drops += snapshot.drops().len();
        removed += world.keeper.log.gone.len();
        world.restart();
        sweep_removed(&world.disk(), root(), Span(0), UnixNanos(world.now)).unwrap();
        world.verify();
        let (lying, named) = lying_and_named(&world.disk(), root());
        assert!(lying.is_subset(&named), "{:?} should not lie there", lying.difference(&named));
    }
    println!("{removed} files were removed, {drops} drops");
    assert!(removed > cases as usize / 2 && drops > cases as usize / 10, "too little happened");
}
