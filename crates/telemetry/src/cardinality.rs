//! Bounds how many series there are: of a metric, of a tenant, in total; all others are folded into overflow series (EB 5.4).
//!
//! In: samples, each with a number for its series. Out: whether the series stands for itself, or what its overflow series is now;
//! and, of [`Cardinality::expire`], the series that are forgotten. A series that sends stays what it is; a folded one is admitted as soon as there is
//! room; one that was silent for `expire_after` is forgotten, its own series ends with a stale marker, and makes room.
//!
//! An overflow series keeps the metric, the tenant and `le` or `quantile`; all other labels give way to `weir_overflow="true"`.
//! **A counter never runs backwards because of folding.** Its overflow series is the sum of increments: of a folded sample what it is
//! above the sample before of the same series, whether that one was folded or not; after a reset, and of a series that nobody knew, all of
//! it. Nothing is ever subtracted: not when a member resets, expires or is admitted. A gauge has the value that came last.
//!
//! Memory: at most `total + folded` series of about 100 bytes, and `overflows` overflow series. When the folded ones are full, a new one
//! is refused; when the overflow series are, one that was silent for `expire_after` gives way (it begins at 0 again after its stale
//! marker), else those of a metric with the tenant `__other__` are tried, else the sample is refused. All are counted by reason.

use crate::sample::{STALE, Stamp, Type, put_series, put_value_end};
use flow::units::{NANOS_PER_HOUR, UnixNanos};
use hashbrown::{Equivalent, HashMap};
use std::hash::{Hash, Hasher};

/// The label that overflow series have.
const OVERFLOW: &str = "weir_overflow";
/// Whom overflow series are of where there are too many of them.
const OTHER: &str = "__other__";

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub per_metric: u32,
    pub per_tenant: u32,
    pub total: u32,
    /// Series whose last values are kept to fold their increments.
    pub folded: u32,
    pub overflows: u32,
    /// Nanoseconds without a sample after which a series ends.
    pub expire_after: i64,
}

impl Default for Limits {
    /// 1.1 M series of about 100 bytes make 110 MB at the most.
    fn default() -> Limits {
        Limits {
            per_metric: 10_000,
            per_tenant: 100_000,
            total: 1_000_000,
            folded: 100_000,
            overflows: 10_000,
            expire_after: NANOS_PER_HOUR,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counters, and buckets, counts and sums of histograms and summaries.
    Counter,
    Gauge,
}

#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The caller's number for the series; equal numbers are one series.
    pub series: u64,
    pub metric: &'a str,
    pub tenant: &'a str,
    /// `("le", "0.1")` or `("quantile", "0.9")` where the series has it.
    pub part: Option<(&'static str, &'a str)>,
    pub kind: Kind,
    pub value: f64,
}

/// Why a series is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    PerMetric,
    PerTenant,
    Total,
    /// More series than can be folded.
    Folded,
    /// More overflow series than can be.
    Overflows,
}

impl Limit {
    pub const ALL: [Limit; 5] = [Limit::PerMetric, Limit::PerTenant, Limit::Total, Limit::Folded, Limit::Overflows];

    pub fn reason(self) -> &'static str {
        match self {
            Limit::PerMetric => "series_per_metric",
            Limit::PerTenant => "series_per_tenant",
            Limit::Total => "series_total",
            Limit::Folded => "series_folded",
            Limit::Overflows => "overflow_series",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Write the sample as it is.
    Admitted,
    /// Do not: it is in an overflow series, which [`Cardinality::put_overflows`] writes.
    Folded(Limit),
    /// Do not: nothing has it.
    Refused(Limit),
}

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    series: u64,
    metric: u32,
    tenant: u32,
    seen: i64,
    /// The last finite value.
    last: Option<f64>,
    is_folded: bool,
    /// In the order of their last samples.
    newer: u32,
    older: u32,
}

#[derive(Debug, Default)]
struct Name {
    text: Box<str>,
    slots: u32,
    admitted: u32,
}

/// Names with how many series have them; a name that no series has is forgotten.
#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<Box<str>, u32>,
    list: Vec<Name>,
    free: Vec<u32>,
}

impl Names {
    fn admitted(&self, name: &str) -> u32 {
        self.numbers.get(name).map_or(0, |number| self.list[*number as usize].admitted)
    }

    fn take(&mut self, name: &str) -> u32 {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = self.free.pop().unwrap_or(self.list.len() as u32);
                if number as usize == self.list.len() {
                    self.list.push(Name::default());
                }
                self.list[number as usize] = Name { text: name.into(), slots: 0, admitted: 0 };
                self.numbers.insert(name.into(), number);
                number
            }
        };
        self.list[number as usize].slots += 1;
        number
    }

    fn give_back(&mut self, number: u32) {
        let name = &mut self.list[number as usize];
        name.slots -= 1;
        if name.slots == 0 {
            self.numbers.remove(&name.text);
            *name = Name::default();
            self.free.push(number);
        }
    }
}

/// Who an overflow series is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OverflowKey {
    pub metric: String,
    pub tenant: String,
    pub part: Option<(&'static str, String)>,
}

/// The same, borrowed.
struct KeyOf<'a>(&'a str, &'a str, Option<(&'static str, &'a str)>);

impl Hash for KeyOf<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0, self.1, self.2).hash(state);
    }
}

impl Equivalent<OverflowKey> for KeyOf<'_> {
    fn equivalent(&self, key: &OverflowKey) -> bool {
        self.0 == key.metric && self.1 == key.tenant && self.2 == key.part.as_ref().map(|(name, value)| (*name, value.as_str()))
    }
}

#[derive(Clone, Copy, Debug)]
struct Overflow {
    kind: Kind,
    value: f64,
    seen: i64,
    is_changed: bool,
}

/// A series that is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    pub series: u64,
    /// It stood for itself: write a stale marker.
    pub was_admitted: bool,
}

/// What was folded and refused, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By [`Limit::ALL`].
    pub folded_samples: [u64; 5],
    pub refused_samples: [u64; 5],
    /// Of those that stood for themselves.
    pub expired_series: u64,
}

#[derive(Debug)]
pub struct Cardinality {
    pub limits: Limits,
    pub counts: Counts,
    numbers: HashMap<u64, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    metrics: Names,
    tenants: Names,
    admitted: u32,
    overflows: HashMap<OverflowKey, Overflow>,
    /// Overflow series that gave way, and have not been ended yet.
    ended: Vec<(OverflowKey, Kind)>,
    /// No overflow series can give way before.
    next_retirement: i64,
}

impl Cardinality {
    pub fn new(limits: Limits) -> Cardinality {
        Cardinality {
            limits,
            counts: Counts::default(),
            numbers: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            metrics: Names::default(),
            tenants: Names::default(),
            admitted: 0,
            overflows: HashMap::new(),
            ended: Vec::new(),
            next_retirement: i64::MIN,
        }
    }

    /// Series that stand for themselves.
    pub fn admitted(&self) -> u32 {
        self.admitted
    }

    /// Series that are folded and known.
    pub fn folded(&self) -> u32 {
        self.numbers.len() as u32 - self.admitted
    }

    /// Whether a series is kept, admitted or folded, until [`Cardinality::expire`] tells its end. Of those that were refused only one
    /// by [`Limit::Overflows`] is, for its increments; and none is because of a stale marker.
    pub fn knows(&self, series: u64) -> bool {
        self.numbers.contains_key(&series)
    }

    /// The value of an overflow series.
    pub fn overflow(&self, metric: &str, tenant: &str, part: Option<(&'static str, &str)>) -> Option<f64> {
        self.overflows.get(&KeyOf(metric, tenant, part)).map(|overflow| overflow.value)
    }

    /// Judges one sample. Samples of a series come in the order of their times.
    pub fn admit(&mut self, sample: &Sample<'_>, now: UnixNanos) -> Admission {
        let known = self.numbers.get(&sample.series).copied();
        if let Some(slot) = known.filter(|slot| !self.slots[*slot as usize].is_folded) {
            self.touch(slot, sample, now);
            return Admission::Admitted;
        }
        let limit = self.limit(sample);
        if sample.value.to_bits() == STALE {
            // The end of a series takes no room, and nothing away.
            return known.map_or(limit, |_| limit.or(Some(Limit::Total))).map_or(Admission::Admitted, Admission::Folded);
        }
        let Some(limit) = limit else {
            let slot = known.unwrap_or_else(|| self.insert(sample));
            self.slots[slot as usize].is_folded = false;
            self.metrics.list[self.slots[slot as usize].metric as usize].admitted += 1;
            self.tenants.list[self.slots[slot as usize].tenant as usize].admitted += 1;
            self.admitted += 1;
            self.touch(slot, sample, now);
            return Admission::Admitted;
        };
        let slot = match known {
            Some(slot) => slot,
            None if self.folded() >= self.limits.folded => return self.refuse(Limit::Folded),
            None => self.insert(sample),
        };
        let grown = increment(self.slots[slot as usize].last, sample.value);
        let Some(overflow) = self.open_overflow(sample, now) else {
            self.touch(slot, sample, now);
            return self.refuse(Limit::Overflows);
        };
        overflow.seen = now.0;
        overflow.is_changed = true;
        match overflow.kind {
            Kind::Counter => overflow.value += grown,
            Kind::Gauge => overflow.value = sample.value,
        }
        self.touch(slot, sample, now);
        self.counts.folded_samples[limit as usize] += 1;
        Admission::Folded(limit)
    }

    fn refuse(&mut self, limit: Limit) -> Admission {
        self.counts.refused_samples[limit as usize] += 1;
        Admission::Refused(limit)
    }

    /// The limit that one more series would break.
    fn limit(&self, sample: &Sample<'_>) -> Option<Limit> {
        match () {
            () if self.admitted >= self.limits.total => Some(Limit::Total),
            () if self.tenants.admitted(sample.tenant) >= self.limits.per_tenant => Some(Limit::PerTenant),
            () if self.metrics.admitted(sample.metric) >= self.limits.per_metric => Some(Limit::PerMetric),
            () => None,
        }
    }

    /// Takes a slot for a series that is folded for now.
    fn insert(&mut self, sample: &Sample<'_>) -> u32 {
        let (metric, tenant) = (self.metrics.take(sample.metric), self.tenants.take(sample.tenant));
        let slot = Slot { series: sample.series, metric, tenant, seen: i64::MIN, last: None, is_folded: true, newer: NONE, older: NONE };
        let number = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(number as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.numbers.insert(sample.series, number);
        self.link(number);
        number
    }

    fn touch(&mut self, number: u32, sample: &Sample<'_>, now: UnixNanos) {
        // The marker of an end is no sign of life.
        if sample.value.to_bits() == STALE {
            return;
        }
        let slot = &mut self.slots[number as usize];
        slot.seen = now.0.max(slot.seen);
        if sample.value.is_finite() {
            slot.last = Some(sample.value);
        }
        if self.newest != number {
            self.unlink(number);
            self.link(number);
        }
    }

    fn link(&mut self, number: u32) {
        let newest = std::mem::replace(&mut self.newest, number);
        (self.slots[number as usize].newer, self.slots[number as usize].older) = (NONE, newest);
        match newest {
            NONE => self.oldest = number,
            newest => self.slots[newest as usize].newer = number,
        }
    }

    fn unlink(&mut self, number: u32) {
        let (newer, older) = (self.slots[number as usize].newer, self.slots[number as usize].older);
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
    }

    fn open_overflow(&mut self, sample: &Sample<'_>, now: UnixNanos) -> Option<&mut Overflow> {
        for tenant in [sample.tenant, OTHER] {
            let key = KeyOf(sample.metric, tenant, sample.part);
            // Looked up twice: the borrow of one that is found would hold for the whole loop.
            if self.overflows.contains_key(&key) {
                return self.overflows.get_mut(&key);
            }
            if self.overflows.len() >= self.limits.overflows as usize {
                self.retire_overflow(now);
            }
            if self.overflows.len() < self.limits.overflows as usize {
                let part = sample.part.map(|(name, value)| (name, value.to_string()));
                let key = OverflowKey { metric: sample.metric.into(), tenant: tenant.into(), part };
                let new = Overflow { kind: sample.kind, value: 0.0, seen: now.0, is_changed: true };
                return Some(self.overflows.entry(key).insert(new).into_mut());
            }
        }
        None
    }

    /// Ends the overflow series that have been silent for `expire_after`. Looks at all of them only when one may have been, so that a
    /// flood is no quadratic loop.
    fn retire_overflow(&mut self, now: UnixNanos) {
        if now.0 < self.next_retirement {
            return;
        }
        let after = self.limits.expire_after;
        let gone = self.overflows.extract_if(|_, overflow| overflow.seen <= now.0.saturating_sub(after));
        self.ended.extend(gone.map(|(key, overflow)| (key, overflow.kind)));
        self.ended.truncate(self.limits.overflows as usize);
        let oldest = self.overflows.values().map(|overflow| overflow.seen).min().unwrap_or(now.0);
        self.next_retirement = oldest.saturating_add(after);
    }

    /// Forgets series without a sample for `expire_after`, and says which: each that [`Cardinality::knows`] once.
    pub fn expire(&mut self, now: UnixNanos) -> Vec<Expired> {
        let oldest = now.0.saturating_sub(self.limits.expire_after);
        let mut expired = Vec::new();
        while self.oldest != NONE && self.slots[self.oldest as usize].seen <= oldest {
            let number = self.oldest;
            self.unlink(number);
            let slot = &self.slots[number as usize];
            self.numbers.remove(&slot.series);
            expired.push(Expired { series: slot.series, was_admitted: !slot.is_folded });
            if !slot.is_folded {
                self.counts.expired_series += 1;
                self.admitted -= 1;
                self.metrics.list[slot.metric as usize].admitted -= 1;
                self.tenants.list[slot.tenant as usize].admitted -= 1;
            }
            self.metrics.give_back(slot.metric);
            self.tenants.give_back(slot.tenant);
            self.free.push(number);
        }
        expired
    }

    /// Writes the overflow series that changed since the last call, and markers for those that gave way. `tenant_label`: where tenants stand.
    pub fn put_overflows(&mut self, out: &mut Vec<u8>, tenant_label: &str, at: UnixNanos) {
        let mut stamp = Stamp::default();
        let mut put = |key: &OverflowKey, kind: Kind, value: f64| {
            let kind = if kind == Kind::Counter { Type::Counter } else { Type::Gauge };
            let mut labels = vec![(tenant_label, key.tenant.as_str()), (OVERFLOW, "true")];
            labels.extend(key.part.as_ref().map(|(name, value)| (*name, value.as_str())));
            labels.retain(|(_, value)| !value.is_empty());
            labels.sort_unstable();
            put_series(out, &key.metric, kind, "", labels.into_iter());
            stamp.put(out, at);
            put_value_end(out, value);
        };
        let mut changed: Vec<_> = self.overflows.iter_mut().filter(|(_, overflow)| overflow.is_changed).collect();
        changed.sort_unstable_by(|(a, _), (b, _)| (&a.metric, &a.tenant, &a.part).cmp(&(&b.metric, &b.tenant, &b.part)));
        for (key, overflow) in changed {
            overflow.is_changed = false;
            put(key, overflow.kind, overflow.value);
        }
        for (key, kind) in std::mem::take(&mut self.ended) {
            // It may have begun anew since.
            if !self.overflows.contains_key(&key) {
                put(&key, kind, f64::from_bits(STALE));
            }
        }
    }
}

/// How much a counter grew since its last value: after a reset, and where there is none, all of it. Never below 0, always finite.
fn increment(last: Option<f64>, value: f64) -> f64 {
    let from = last.filter(|last| *last <= value).unwrap_or(0.0);
    let grown = value - from;
    if grown.is_finite() { grown.max(0.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const SMALL: Limits = Limits { per_metric: 2, per_tenant: 3, total: 4, folded: 3, overflows: 2, expire_after: 100 };

    fn sample(series: u64, metric: &'static str, tenant: &'static str, value: f64) -> Sample<'static> {
        Sample { series, metric, tenant, part: None, kind: Kind::Counter, value }
    }

    #[test]
    fn eb_5_4_series_beyond_a_limit_are_folded_and_counted_by_it() {
        let mut cardinality = Cardinality::new(SMALL);
        for (series, metric, tenant, want) in [
            (1, "a", "t", Admission::Admitted),
            (2, "a", "t", Admission::Admitted),
            (3, "a", "t", Admission::Folded(Limit::PerMetric)),
            (4, "b", "t", Admission::Admitted),
            (5, "c", "t", Admission::Folded(Limit::PerTenant)),
            (6, "c", "u", Admission::Admitted),
            (7, "c", "v", Admission::Refused(Limit::Overflows)),
            (8, "c", "t", Admission::Refused(Limit::Folded)),
            (1, "a", "t", Admission::Admitted),
        ] {
            assert_eq!(cardinality.admit(&sample(series, metric, tenant, 5.0), UnixNanos(0)), want, "{series}");
        }
        assert_eq!((cardinality.admitted(), cardinality.folded()), (4, 3));
        assert_eq!(cardinality.counts, Counts { folded_samples: [1, 1, 0, 0, 0], refused_samples: [0, 0, 0, 1, 1], expired_series: 0 });
        let mut out = Vec::new();
        cardinality.put_overflows(&mut out, "tenant", UnixNanos(0));
        let want = r#"{"metric":"a","type":"counter","labels":{"tenant":"t","weir_overflow":"true"},"timestamp":"1970-01-01T00:00:00Z","value":5.0}
{"metric":"c","type":"counter","labels":{"tenant":"t","weir_overflow":"true"},"timestamp":"1970-01-01T00:00:00Z","value":5.0}
"#;
        assert_eq!(String::from_utf8(out).unwrap(), want);
        let mut again = Vec::new();
        cardinality.put_overflows(&mut again, "tenant", UnixNanos(0));
        assert!(again.is_empty());
    }

    #[test]
    fn eb_5_4_a_series_that_is_silent_ends_and_makes_room() {
        let mut cardinality = Cardinality::new(Limits { total: 2, ..SMALL });
        let t = UnixNanos;
        for series in [1, 2, 3] {
            cardinality.admit(&sample(series, "a", "t", 1.0), t(0));
        }
        cardinality.admit(&sample(1, "a", "t", 1.0), t(50));
        cardinality.admit(&sample(3, "a", "t", 4.0), t(60));
        // A stale marker is no sign of life.
        cardinality.admit(&sample(2, "a", "t", f64::from_bits(STALE)), t(90));
        let expired = |series, was_admitted| Expired { series, was_admitted };
        assert_eq!(cardinality.expire(t(99)), []);
        assert_eq!(cardinality.expire(t(100)), [expired(2, true)]);
        assert_eq!(cardinality.overflow("a", "t", None), Some(4.0));
        assert_eq!(cardinality.admit(&sample(3, "a", "t", 6.0), t(101)), Admission::Admitted);
        assert_eq!(cardinality.admit(&sample(2, "a", "t", 9.0), t(101)), Admission::Folded(Limit::Total));
        assert_eq!(cardinality.overflow("a", "t", None), Some(13.0), "nothing is subtracted");
        assert_eq!(cardinality.expire(t(1000)), [expired(1, true), expired(3, true), expired(2, false)]);
        assert_eq!(cardinality.counts.expired_series, 3);
        assert_eq!((cardinality.admitted(), cardinality.folded(), cardinality.metrics.numbers.len()), (0, 0, 0));
    }

    #[test]
    fn buckets_keep_their_bounds_and_gauges_their_last_value() {
        let mut cardinality = Cardinality::new(Limits { total: 0, overflows: 10, folded: 10, ..SMALL });
        for (series, le, value) in [(1, "0.1", 1.0), (2, "+Inf", 3.0), (3, "0.1", 2.0), (4, "+Inf", 2.0), (1, "0.1", 4.0)] {
            cardinality.admit(&Sample { part: Some(("le", le)), ..sample(series, "h_bucket", "", value) }, UnixNanos(0));
        }
        cardinality.admit(&Sample { kind: Kind::Gauge, ..sample(8, "g", "", 7.0) }, UnixNanos(0));
        cardinality.admit(&Sample { kind: Kind::Gauge, ..sample(9, "g", "", -1.0) }, UnixNanos(0));
        let values = ["0.1", "+Inf"].map(|le| cardinality.overflow("h_bucket", "", Some(("le", le))));
        assert_eq!((values, cardinality.overflow("g", "", None)), ([Some(6.0), Some(5.0)], Some(-1.0)));
    }

    #[test]
    fn overflow_series_give_way_after_their_silence_with_a_marker() {
        let mut cardinality = Cardinality::new(Limits { total: 0, overflows: 1, ..SMALL });
        cardinality.admit(&sample(1, "a", "t", 1.0), UnixNanos(0));
        let mut out = Vec::new();
        cardinality.put_overflows(&mut out, "tenant", UnixNanos(0));
        assert_eq!(cardinality.admit(&sample(2, "b", "t", 1.0), UnixNanos(99)), Admission::Refused(Limit::Overflows));
        assert_eq!(cardinality.admit(&sample(2, "b", "t", 3.0), UnixNanos(100)), Admission::Folded(Limit::Total));
        out.clear();
        cardinality.put_overflows(&mut out, "tenant", UnixNanos(100));
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\"value\":2.0") && text.contains("\"metric\":\"a\"") && text.contains("\"stale\""), "{text}");
    }

    #[test]
    fn a_flood_of_new_series_costs_no_more_memory_than_the_limits() {
        let mut cardinality = Cardinality::new(SMALL);
        for n in 0..100_000u64 {
            let (metric, tenant) = (format!("m{n}"), format!("t{}", n % 977));
            let sample = Sample { series: n, metric: &metric, tenant: &tenant, part: None, kind: Kind::Counter, value: 1.0 };
            cardinality.admit(&sample, UnixNanos(n as i64));
            if n % 64 == 0 {
                cardinality.expire(UnixNanos(n as i64));
            }
        }
        assert!(cardinality.slots.len() <= 7 && cardinality.metrics.list.len() <= 7 && cardinality.overflows.len() <= 2);
    }

    proptest! {
        /// Laws over resets, ends, expiry and re-admission: limits hold; the overflow of a counter never falls; it is the sum of the
        /// increments of folded samples, found here from whole histories.
        #[test]
        fn a_counter_never_runs_backwards_because_of_folding(
            script in prop::collection::vec((0u64..8, prop_oneof![8 => 0.0..100.0f64, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(f64::from_bits(STALE))], 0i64..60), 1..200)
        ) {
            let mut cardinality = Cardinality::new(Limits { folded: 100, overflows: 100, ..SMALL });
            let mut now = 0;
            let mut histories: BTreeMap<u64, Vec<(i64, f64)>> = BTreeMap::new();
            let mut live = BTreeSet::new();
            let mut sums: BTreeMap<(&str, &str), f64> = BTreeMap::new();
            for (series, value, pause) in script {
                now += pause;
                let (metric, tenant) = (["a", "b"][series as usize % 2], ["t", "u"][series as usize / 4]);
                for Expired { series, was_admitted } in cardinality.expire(UnixNanos(now)) {
                    prop_assert_eq!(live.remove(&series), was_admitted);
                    let last = histories.remove(&series).and_then(|history| history.last().copied());
                    prop_assert!(last.is_some_and(|last| now - last.0 >= SMALL.expire_after), "{} is known, and silent", series);
                }
                prop_assert!(histories.values().all(|history| history.last().is_some_and(|last| now - last.0 < SMALL.expire_after)));
                let before = cardinality.overflow(metric, tenant, None).unwrap_or(0.0);
                let admission = cardinality.admit(&sample(series, metric, tenant, value), UnixNanos(now));
                let is_end = value.to_bits() == STALE;
                match admission {
                    Admission::Admitted if !is_end => {
                        live.insert(series);
                    }
                    Admission::Admitted => {}
                    Admission::Folded(_) if !is_end => {
                        let last = histories.get(&series).and_then(|history| history.iter().rev().map(|point| point.1).find(|value| value.is_finite()));
                        let grown = match last {
                            Some(last) if value >= last => value - last,
                            _ => value,
                        };
                        *sums.entry((metric, tenant)).or_default() += if grown.is_finite() { grown } else { 0.0 };
                    }
                    Admission::Folded(_) => {}
                    Admission::Refused(limit) => prop_assert!(false, "{limit:?}"),
                }
                if !is_end {
                    histories.entry(series).or_default().push((now, value));
                }
                let after = cardinality.overflow(metric, tenant, None).unwrap_or(0.0);
                prop_assert!(after >= before);
                prop_assert_eq!(after.to_bits(), sums.get(&(metric, tenant)).copied().unwrap_or(0.0).to_bits());
                prop_assert_eq!(cardinality.admitted() as usize, live.len());
                prop_assert_eq!((cardinality.admitted() + cardinality.folded()) as usize, histories.len());
                prop_assert!(live.len() <= 4);
                for metric in 0..2 {
                    prop_assert!(live.iter().filter(|series| *series % 2 == metric).count() <= 2);
                }
                for tenant in 0..2 {
                    prop_assert!(live.iter().filter(|series| *series / 4 == tenant).count() <= 3);
                }
            }
        }

        #[test]
        fn a_caller_drops_what_it_keeps_of_a_series_exactly_once(
            script in prop::collection::vec((0u64..12, prop_oneof![8 => Just(1.0), 1 => Just(f64::from_bits(STALE))], 0i64..40), 1..200)
        ) {
            let mut cardinality = Cardinality::new(SMALL);
            let (mut now, mut kept) = (0, BTreeSet::new());
            for (series, value, pause) in script {
                now += pause;
                for expired in cardinality.expire(UnixNanos(now)) {
                    prop_assert!(kept.remove(&expired.series) && !cardinality.knows(expired.series));
                }
                let (metric, tenant) = (["a", "b", "c"][series as usize % 3], ["t", "u"][series as usize / 6]);
                let was_known = cardinality.knows(series);
                let admission = cardinality.admit(&sample(series, metric, tenant, value), UnixNanos(now));
                let is_new = !was_known && value.to_bits() != STALE && admission != Admission::Refused(Limit::Folded);
                prop_assert_eq!(cardinality.knows(series), was_known || is_new, "{:?}", admission);
                if cardinality.knows(series) {
                    kept.insert(series);
                }
                prop_assert_eq!(kept.len(), (cardinality.admitted() + cardinality.folded()) as usize);
            }
        }
    }
}
