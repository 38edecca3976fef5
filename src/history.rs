//! What the ledger said before: snapshots of its totals, so that `weir ledger --since` can take them away.
//!
//! In: the ledger of all pipelines, once a minute while something comes, as one object of JSON. Out: files
//! `history/UNIX_MILLISECONDS.json` in the data folder. Totals only grow, so a crash between two snapshots costs nothing but
//! precision. `weir run --once` writes none: the clock must not show in its folder. Bound: a snapshot of each of the last 60
//! minutes, 48 hours and 31 days, the oldest ones going first where all take more than [`BYTES_MAX`].

use anyhow::Context;
use flow::units::UnixNanos;
use hub::Disk;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const BYTES_MAX: u64 = 64 << 20;
const MINUTE_MS: i64 = 60_000;
/// How far back, and how far apart.
const STEPS: [(i64, i64); 3] =
    [(60 * MINUTE_MS, MINUTE_MS), (48 * 60 * MINUTE_MS, 60 * MINUTE_MS), (31 * 1_440 * MINUTE_MS, 1_440 * MINUTE_MS)];

pub struct History {
    disk: Disk,
    folder: PathBuf,
    last_minute: i64,
    last: Value,
}

impl History {
    pub fn new(disk: &Disk, data: &Path) -> History {
        History { disk: disk.clone(), folder: data.join("history"), last_minute: i64::MIN, last: Value::Null }
    }

    /// Whether a new minute has begun.
    pub fn is_due(&self, now: UnixNanos) -> bool {
        now.0.div_euclid(MINUTE_MS * 1_000_000) != self.last_minute
    }

    /// Writes down what the ledger says, unless it says what it said last.
    pub fn note(&mut self, now: UnixNanos, ledger: Value) -> anyhow::Result<()> {
        self.last_minute = now.0.div_euclid(MINUTE_MS * 1_000_000);
        if ledger == self.last {
            return Ok(());
        }
        self.disk.create_dir_all(&self.folder, "history.folder").with_context(|| format!("cannot create {}", self.folder.display()))?;
        let now_ms = now.0.div_euclid(1_000_000);
        crate::durable::replace(&self.disk, &self.folder.join(format!("{now_ms:013}.json")), ledger.to_string().as_bytes())?;
        self.last = ledger;
        self.thin(now_ms)
    }

    fn thin(&self, now_ms: i64) -> anyhow::Result<()> {
        let times = times(&self.disk, &self.folder)?;
        let keep = kept(&times, now_ms);
        let mut bytes = 0;
        for time in times.iter().rev() {
            let path = self.folder.join(format!("{time:013}.json"));
            bytes += if keep.contains(time) { self.disk.len(&path)? } else { 0 };
            let is_newest = Some(time) == times.last();
            if !is_newest && (!keep.contains(time) || bytes > BYTES_MAX) {
                self.disk.unlink(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Which snapshots stay: the first of each minute, hour and day as far as each step reaches, and those of the future.
fn kept(times: &[i64], now_ms: i64) -> BTreeSet<i64> {
    let mut keep: BTreeSet<i64> = times.iter().copied().filter(|time| *time > now_ms).collect();
    for (reach, apart) in STEPS {
        let mut taken = BTreeSet::new();
        keep.extend(times.iter().filter(|time| **time >= now_ms - reach && taken.insert(time.div_euclid(apart))));
    }
    keep
}

/// When snapshots were taken, ascending.
fn times(disk: &Disk, folder: &Path) -> anyhow::Result<Vec<i64>> {
    let names = disk.list(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut times: Vec<i64> = names.iter().filter_map(|name| name.to_str()?.strip_suffix(".json")?.parse().ok()).collect();
    times.sort_unstable();
    Ok(times)
}

/// What the ledger said at `since`, to the minute, and when that was: the last snapshot before it, or else the first there is.
/// `None` where there is none.
pub fn at(disk: &Disk, data: &Path, since: UnixNanos) -> anyhow::Result<Option<(UnixNanos, Value)>> {
    let folder = data.join("history");
    let times = times(disk, &folder)?;
    let since_ms = since.0.div_euclid(1_000_000);
    let Some(time) = times.iter().rev().find(|time| **time <= since_ms).or(times.first()) else { return Ok(None) };
    let path = folder.join(format!("{time:013}.json"));
    let text = disk.read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let ledger = serde_json::from_slice(&text).with_context(|| format!("{} is damaged; remove it", path.display()))?;
    Ok(Some((UnixNanos(time.saturating_mul(1_000_000)), ledger)))
}

/// What came since: totals less those of before. What is a level and no flow stays as it is now.
pub fn less(now: &Value, before: &Value) -> Value {
    match now {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| {
                let is_level = matches!(key.as_str(), "buffered" | "held_bytes" | "residual");
                (key.clone(), if is_level { value.clone() } else { less(value, &before[key]) })
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        // Less than before only where a memory hub was killed and decides again.
        Value::Number(n) => n.as_u64().map_or_else(|| now.clone(), |n| n.saturating_sub(before.as_u64().unwrap_or(0)).into()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::disk::Sim;
    use serde_json::json;
    use std::sync::Arc;

    const T0: i64 = 1_800_000_000_000;

    #[test]
    fn totals_of_before_are_found_to_the_minute_and_old_ones_thin_out() {
        let disk = Disk::Sim(Arc::new(Sim::new(3)));
        let data = Path::new("/data");
        assert_eq!(at(&disk, data, UnixNanos(0)).expect("an empty folder"), None);
        let mut history = History::new(&disk, data);
        let minutes = 40 * 24 * 60;
        for minute in 0..minutes {
            let now = UnixNanos((T0 + minute * MINUTE_MS) * 1_000_000);
            assert!(
                history.is_due(now)
                    && !{
                        history.note(now, json!({ "received": minute / 2 })).expect("written");
                        history.is_due(now)
                    }
            );
        }
        let times = times(&disk, &data.join("history")).expect("a folder");
        assert!((60..=60 + 48 + 33).contains(&times.len()), "{}", times.len());
        let now_ms = T0 + (minutes - 1) * MINUTE_MS;
        for (back, within) in [(0, 2), (15, 2), (59, 2), (300, 62), (2_000, 62), (10_000, 1_442), (40_000, 1_442)] {
            let (time, ledger) = at(&disk, data, UnixNanos((now_ms - back * MINUTE_MS) * 1_000_000)).expect("read").expect("one");
            let apart = (now_ms - back * MINUTE_MS - time.0 / 1_000_000) / MINUTE_MS;
            assert!((0..within).contains(&apart), "{back} minutes back it finds one {apart} minutes before");
            assert_eq!(ledger["received"], json!((time.0 / 1_000_000 - T0) / MINUTE_MS / 2));
        }
        let first = UnixNanos(times[0] * 1_000_000);
        assert_eq!(at(&disk, data, UnixNanos(0)).expect("read").expect("the first").0, first);
    }

    #[test]
    fn flows_are_taken_away_and_levels_stay() {
        let now = json!({ "a": { "received": 7, "new": { "records": 2 } }, "buffered": { "records": 4 }, "residual": 0, "name": "x" });
        let before = json!({ "a": { "received": 3 }, "buffered": { "records": 9 }, "residual": 0 });
        let want = json!({ "a": { "received": 4, "new": { "records": 2 } }, "buffered": { "records": 4 }, "residual": 0, "name": "x" });
        assert_eq!(less(&now, &before), want);
        assert_eq!(less(&json!({ "received": 3 }), &json!({ "received": 5 })), json!({ "received": 0 }));
    }
}
