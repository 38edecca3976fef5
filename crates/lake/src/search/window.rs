//! The hits nearest to the start of the order, as many as fit.
//!
//! In: hits in any order; out: hits in order of time. What does not fit is dropped from the far end, and where it was
//! is remembered as the edge: another pass finds it again. Bound: `bytes_max` of lines, but always one hit.

use crate::search::Hit;
use flow::event::StreamId;
use std::collections::BTreeMap;

/// A row's place in the answer. A group of lines and the line that ended it have one position: their bytes tell them apart.
pub(crate) type Place = (i64, Vec<u8>, StreamId, u64, u32);

pub(crate) fn place(hit: &Hit) -> Place {
    (hit.time.0, hit.tenant.clone(), hit.stream, hit.position, crc32fast::hash(&hit.raw))
}

/// The hits nearest to the start of the order that fit.
pub(crate) struct Window {
    pub newest_first: bool,
    bytes_max: usize,
    count_max: usize,
    bytes: usize,
    hits: BTreeMap<Place, Hit>,
    /// Hits up to here were given out in an earlier pass.
    after: Option<Place>,
    /// Something was dropped, from here on.
    pub edge: Option<Place>,
}

impl Window {
    pub(crate) fn new(newest_first: bool, bytes_max: usize, count: Option<usize>, after: Option<Place>) -> Window {
        Window { newest_first, bytes_max, count_max: count.unwrap_or(usize::MAX), bytes: 0, hits: BTreeMap::new(), after, edge: None }
    }

    /// Whether `a` comes before `b`.
    fn before(&self, a: &Place, b: &Place) -> bool {
        if self.newest_first { a > b } else { a < b }
    }

    /// Whether a row of this time can still get in.
    pub(crate) fn admits_time(&self, time: i64) -> bool {
        let beyond = |edge: i64| if self.newest_first { time < edge } else { time > edge };
        let passed = |after: i64| if self.newest_first { time > after } else { time < after };
        !self.edge.as_ref().is_some_and(|edge| beyond(edge.0)) && !self.after.as_ref().is_some_and(|after| passed(after.0))
    }

    /// Whether any row between these times can still get in.
    pub(crate) fn admits(&self, first: i64, last: i64) -> bool {
        let (near, far) = if self.newest_first { (last, first) } else { (first, last) };
        let beyond = |edge: i64| if self.newest_first { near < edge } else { near > edge };
        let passed = |after: i64| if self.newest_first { far > after } else { far < after };
        !self.edge.as_ref().is_some_and(|edge| beyond(edge.0)) && !self.after.as_ref().is_some_and(|after| passed(after.0))
    }

    pub(crate) fn add(&mut self, hit: Hit) {
        let at = place(&hit);
        let given = self.after.as_ref().is_some_and(|after| !self.before(after, &at));
        let beyond = self.edge.as_ref().is_some_and(|edge| !self.before(&at, edge));
        if given || beyond {
            return;
        }
        self.bytes += hit.raw.len() + size_of::<Hit>();
        self.hits.insert(at, hit);
        while self.hits.len() > self.count_max || (self.bytes > self.bytes_max && self.hits.len() > 1) {
            let dropped = if self.newest_first { self.hits.pop_first() } else { self.hits.pop_last() };
            let Some((at, hit)) = dropped else { return };
            self.bytes -= hit.raw.len() + size_of::<Hit>();
            self.edge = Some(at);
        }
    }

    /// An empty one for a thread: it leaves out what this one would.
    pub(crate) fn for_thread(&self, bytes_max: usize) -> Window {
        Window {
            newest_first: self.newest_first,
            bytes_max,
            count_max: self.count_max,
            bytes: 0,
            hits: BTreeMap::new(),
            after: self.after.clone(),
            edge: self.edge.clone(),
        }
    }

    /// Takes the hits of a thread, and does not go beyond what it dropped.
    pub(crate) fn take(&mut self, other: Window) {
        let is_nearer = |edge: &Place| self.edge.as_ref().is_none_or(|own| self.before(edge, own));
        if let Some(edge) = other.edge.filter(is_nearer) {
            let beyond = |at: &Place| if self.newest_first { *at <= edge } else { *at >= edge };
            let gone: Vec<Place> = self.hits.keys().filter(|at| beyond(at)).cloned().collect();
            for at in gone {
                if let Some(hit) = self.hits.remove(&at) {
                    self.bytes -= hit.raw.len() + size_of::<Hit>();
                }
            }
            self.edge = Some(edge);
        }
        for hit in other.hits.into_values() {
            self.add(hit);
        }
    }

    /// The next hit, if no row of the given time or later in the order can come before it.
    pub(crate) fn next_before(&mut self, time: Option<i64>) -> Option<Hit> {
        let entry = if self.newest_first { self.hits.last_entry() } else { self.hits.first_entry() }?;
        let ready = match time {
            None => true,
            Some(time) if self.newest_first => entry.key().0 > time,
            Some(time) => entry.key().0 < time,
        };
        let hit = if ready { Some(entry.remove()) } else { None }?;
        self.bytes -= hit.raw.len() + size_of::<Hit>();
        self.count_max = self.count_max.saturating_sub(1);
        Some(hit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::units::UnixNanos;

    #[test]
    fn the_window_keeps_what_comes_first_and_knows_what_it_dropped() {
        let hit = |time: i64| Hit {
            tenant: vec![],
            time: UnixNanos(time),
            severity: 0,
            weight: 1,
            stream: StreamId(1),
            position: time as u64,
            raw: vec![b'x'; 100],
        };
        for newest_first in [false, true] {
            let mut window = Window::new(newest_first, 3 * (100 + size_of::<Hit>()), None, None);
            for time in [5, 1, 9, 7, 3] {
                window.add(hit(time));
            }
            let kept: Vec<i64> = std::iter::from_fn(|| window.next_before(None)).map(|h| h.time.0).collect();
            assert_eq!(kept, if newest_first { [9, 7, 5] } else { [1, 3, 5] });
            assert_eq!(window.edge.as_ref().map(|e| e.0), Some(if newest_first { 3 } else { 7 }));
        }
    }
}
