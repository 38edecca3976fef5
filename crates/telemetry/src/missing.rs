//! Says by name which members of a set have gone silent: targets, models or tenants (EB 5.7).
//!
//! `absent(metric)` fires only when no series at all is left; 31 models hide the loss of the 32nd. A [`Watch`] therefore expects a set:
//! an inventory, or whoever was seen in the preceding window. In: which member a sample is of, when it was taken and when it came.
//! Out of [`Watch::tick`]: what began and what ended. A member is missing once it was last seen `within` intervals ago; nothing
//! is before the watch has run so long, or for a whole window where the window makes the set.
//!
//! **When was it seen?** At the time of its newest sample, as the member's clock is ahead of or behind ours: the least delay that any of
//! its samples had is taken for that of its clock. So a clock that is an hour wrong changes nothing, a sample that comes late (not newer
//! than the newest) is no sign of life, and what a queue delivers an hour late is none either.
//!
//! Memory: `members_max` members, of at most [`MEMBER_BYTES_MAX`] bytes. When full, an inventory is refused; of a window, a new member is
//! counted as untracked, and its loss is not told. Members that were removed or forgotten make room.

use crate::sample::{STALE, Stamp, Type, put_series, put_text, put_value_end};
use crate::selector::{Expr, LOOKBACK, Labels, Query, Selector, label, select};
use flow::units::{NANOS_PER_DAY, Span, UnixNanos};
use hashbrown::{DefaultHashBuilder, HashMap};
use std::hash::BuildHasher;

pub const MEMBERS_MAX: usize = 10_000;
pub const MEMBER_BYTES_MAX: usize = 1024;

/// The values of the rule's labels, in the order of `by`.
pub type Member = Vec<String>;

/// Who is expected.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// These, from the start on.
    Inventory(Vec<Member>),
    /// Whoever was seen in so many nanoseconds before its silence began.
    Preceding(i64),
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    MissingFrom {
        metric: Selector,
        by: Vec<String>,
        expected: Expected,
    },
    /// Nothing at all is selected. `labels`: see [`Selector::absent_labels`]; none where a function is around the selector.
    Absent {
        selector: Selector,
        labels: Labels,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: String,
    pub what: What,
    /// How often a sample of each member comes, in nanoseconds.
    pub interval: i64,
    /// After so many intervals of silence a member is missing.
    pub within: u32,
    /// After so long, in nanoseconds, a missing member of a preceding window is expected no more: its alert ends as forgotten.
    pub forget_after: i64,
}

impl Rule {
    pub fn missing_from(name: &str, metric: Selector, by: &[&str], expected: Expected, interval: i64) -> Rule {
        let by = by.iter().map(|label| label.to_string()).collect();
        let what = What::MissingFrom { metric, by, expected };
        Rule { name: name.to_string(), what, interval, within: 2, forget_after: NANOS_PER_DAY }
    }

    /// `query`: a selector, or `absent(…)` of one, which an aggregation may be around. `None`: it is something else.
    pub fn absent(name: &str, query: &Query, interval: i64) -> Option<Rule> {
        let of = if let Expr::Absent(of) = &query.expr { of } else { &query.expr };
        let (mut inner, mut is_wrapped) = (of, false);
        while let Expr::Aggregate { of, .. } = inner {
            (inner, is_wrapped) = (of, true);
        }
        let Expr::Select(selector @ Selector { range: None, offset: 0, at: None, .. }) = inner else { return None };
        let labels = if is_wrapped { Labels::new() } else { selector.absent_labels() };
        let what = What::Absent { selector: selector.clone(), labels };
        Some(Rule { name: name.to_string(), what, interval, within: 2, forget_after: NANOS_PER_DAY })
    }

    fn patience(&self) -> i64 {
        self.interval.saturating_mul(i64::from(self.within))
    }

    fn check(&self, members_max: usize) -> Result<(), String> {
        let refuse = |what: &str| Err(format!("rule `{}`: {what}", self.name));
        if self.name.trim().is_empty() {
            return Err("a rule has no name; its alerts carry it, so write one".into());
        }
        if self.interval <= 0 || self.within == 0 {
            return refuse("the interval is 0; it says how often a sample of each member comes, as in 15s, and `within` how many may lack");
        }
        let What::MissingFrom { by, expected, .. } = &self.what else { return Ok(()) };
        if by.is_empty() || by.iter().enumerate().any(|(n, label)| label.is_empty() || by[..n].contains(label)) {
            return refuse("`by` names the labels that tell members apart, each once, as in by: [model]");
        }
        match expected {
            Expected::Preceding(window) if *window < self.patience() => {
                refuse(&format!("the window is shorter than {} intervals; a member would leave it before it could be missed", self.within))
            }
            Expected::Inventory(members) if members.len() > members_max => {
                refuse(&format!("the inventory has {} members; at most {members_max} are watched", members.len()))
            }
            Expected::Inventory(members) => match members.iter().find(|member| member.len() != by.len() || !is_member(member)) {
                Some(member) => {
                    refuse(&format!("{member:?} is no member; one has a value for each of {by:?}, of {MEMBER_BYTES_MAX} bytes at most"))
                }
                None => Ok(()),
            },
            Expected::Preceding(_) => Ok(()),
        }
    }
}

fn is_member<T: AsRef<str>>(values: &[T]) -> bool {
    values.iter().any(|value| !value.as_ref().is_empty())
        && values.iter().map(|value| value.as_ref().len()).sum::<usize>() <= MEMBER_BYTES_MAX
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    SeenAgain,
    /// Told by [`Watch::remove`], or no longer in the inventory.
    Removed,
    /// Missing for longer than anybody remembers.
    Forgotten,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::SeenAgain => "seen_again",
            Reason::Removed => "removed",
            Reason::Forgotten => "forgotten",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Firing,
    Resolved(Reason),
}

/// Something began or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub rule: String,
    /// Names and values, in the order of the rule's `by`; of `absent`, its labels.
    pub member: Labels,
    /// When it was last seen; where it never was, when the watch began to expect it.
    pub since: UnixNanos,
    /// When this was found.
    pub at: UnixNanos,
    pub state: State,
}

impl Alert {
    /// `m7`, or `model="m7",tenant="a"` of more than one label.
    pub fn member_text(&self) -> String {
        member_text(&self.member)
    }
}

fn member_text(member: &Labels) -> String {
    match member.as_slice() {
        [(_, value)] => value.clone(),
        labels => labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(","),
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples of members that found no room.
    pub untracked: u64,
    /// Samples that were not newer than one before.
    pub late: u64,
    /// Samples without the labels that tell members apart, or with longer ones.
    pub nameless: u64,
}

/// Watches the members of one rule.
#[derive(Debug)]
pub struct Watch {
    pub rule: Rule,
    pub counts: Counts,
    members_max: usize,
    started: UnixNanos,
    members: HashMap<Box<[u8]>, Entry>,
    /// Only of `absent`.
    presence: Presence,
    /// What ended since the last tick.
    ended: Vec<Alert>,
    key: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Entry {
    member: Member,
    /// Since when it is expected.
    armed: i64,
    /// The newest time that a sample of it had; never later than the sample came.
    newest: Option<i64>,
    /// The least delay of its samples.
    delay: i64,
    is_firing: bool,
    /// `newest` when its alert began: only a newer sample ends it, whatever our clock does.
    lost_at: Option<i64>,
    /// Was removed then: samples up to that time are no sign of life.
    removed: Option<i64>,
}

impl Entry {
    fn new(member: Member, armed: i64) -> Entry {
        Entry { member, armed, newest: None, delay: i64::MAX, is_firing: false, lost_at: None, removed: None }
    }

    /// By our clock.
    fn seen(&self) -> i64 {
        self.newest.map_or(self.armed, |newest| newest.saturating_add(self.delay))
    }
}

impl Watch {
    /// The text of the error says what is wrong with the rule.
    pub fn new(rule: Rule, now: UnixNanos, members_max: usize) -> Result<Watch, String> {
        rule.check(members_max)?;
        let presence = Presence {
            fresh: HashMap::new(),
            series_max: members_max,
            other: i64::MIN,
            last: i64::MIN,
            is_firing: false,
            hasher: DefaultHashBuilder::default(),
        };
        let mut watch = Watch {
            rule,
            counts: Counts::default(),
            members_max,
            started: now,
            members: HashMap::new(),
            presence,
            ended: Vec::new(),
            key: Vec::new(),
        };
        if let What::MissingFrom { expected: Expected::Inventory(members), .. } = &watch.rule.what {
            for member in members.clone() {
                watch.expect(member, now);
            }
        }
        Ok(watch)
    }

    /// Whether the rule is about a series; ask once for each series, and then [`Watch::sample`] for its samples only.
    pub fn is_about(&self, labels: &[(String, String)]) -> bool {
        let (What::MissingFrom { metric: selector, .. } | What::Absent { selector, .. }) = &self.rule.what;
        select(&selector.matchers, labels)
    }

    /// A sample has come: `labels` of its series with `__name__`, sorted, when it was taken, and its value. True: the rule is about it.
    pub fn sample(&mut self, labels: &[(String, String)], at: UnixNanos, value: f64, now: UnixNanos) -> bool {
        if !self.is_about(labels) {
            return false;
        }
        match &self.rule.what {
            What::Absent { .. } => self.presence.see(labels, UnixNanos(at.0.min(now.0)), value),
            What::MissingFrom { .. } if value.to_bits() == STALE => {}
            What::MissingFrom { by, .. } => {
                let values: Vec<&str> = by.iter().map(|name| label(labels, name)).collect();
                self.observe(&values, at, now);
            }
        }
        true
    }

    /// A sign of life of a member: a sample that was taken at `at` and came at `now`.
    pub fn observe(&mut self, member: &[&str], at: UnixNanos, now: UnixNanos) {
        if !is_member(member) {
            self.counts.nameless += 1;
            return;
        }
        put_key(&mut self.key, member);
        let is_window = matches!(&self.rule.what, What::MissingFrom { expected: Expected::Preceding(_), .. });
        if !self.members.contains_key(self.key.as_slice()) {
            if !is_window {
                return;
            }
            if self.members.len() >= self.members_max {
                self.counts.untracked += 1;
                return;
            }
            let member = member.iter().map(|value| value.to_string()).collect();
            self.members.insert(self.key.as_slice().into(), Entry::new(member, now.0));
        }
        let entry = self.members.get_mut(self.key.as_slice()).expect("it was there or is now");
        let taken = at.0.min(now.0);
        if entry.removed.is_some_and(|removed| taken <= removed) || entry.newest.is_some_and(|newest| taken <= newest) {
            self.counts.late += 1;
            return;
        }
        if entry.removed.take().is_some() {
            entry.armed = now.0;
        }
        entry.delay = entry.delay.min(now.0.saturating_sub(taken));
        entry.newest = Some(taken);
    }

    /// The inventory as it is now: who is no longer in it was removed on purpose, who is new is expected from now on.
    pub fn set_inventory(&mut self, inventory: Vec<Member>, now: UnixNanos) -> Result<(), String> {
        let mut rule = self.rule.clone();
        let What::MissingFrom { expected, .. } = &mut rule.what else { return Err(format!("rule `{}` has no inventory", rule.name)) };
        if !matches!(expected, Expected::Inventory(_)) {
            return Err(format!("rule `{}` has no inventory; its set is of the preceding window", rule.name));
        }
        *expected = Expected::Inventory(inventory.clone());
        rule.check(self.members_max)?;
        self.rule = rule;
        let mut kept = hashbrown::HashSet::new();
        for member in &inventory {
            put_key(&mut self.key, member);
            kept.insert(self.key.clone());
        }
        let gone: Vec<Member> =
            self.members.iter().filter(|(key, _)| !kept.contains(&key[..])).map(|(_, entry)| entry.member.clone()).collect();
        for member in gone {
            self.remove(&member, now);
        }
        for member in inventory {
            self.expect(member, now);
        }
        Ok(())
    }

    fn expect(&mut self, member: Member, now: UnixNanos) {
        put_key(&mut self.key, &member);
        if !self.members.contains_key(self.key.as_slice()) {
            self.members.insert(self.key.as_slice().into(), Entry::new(member, now.0));
        }
    }

    /// A member was taken away on purpose: its alert ends, and what is still under way from it does not bring it back.
    pub fn remove<T: AsRef<str>>(&mut self, member: &[T], now: UnixNanos) {
        put_key(&mut self.key, member);
        let Some(entry) = self.members.get_mut(self.key.as_slice()) else { return };
        if std::mem::take(&mut entry.is_firing) {
            let entry = entry.clone();
            let alert = self.alert(&entry, now, State::Resolved(Reason::Removed));
            self.ended.push(alert);
        }
        match &mut self.rule.what {
            What::MissingFrom { expected: Expected::Inventory(members), .. } => {
                members.retain(|other| !other.iter().map(String::as_str).eq(member.iter().map(AsRef::as_ref)));
                self.members.remove(self.key.as_slice());
            }
            _ => {
                if let Some(entry) = self.members.get_mut(self.key.as_slice()) {
                    entry.removed = Some(now.0);
                }
            }
        }
    }

    /// What began and what ended since the last tick, by member. Call it at least once in an interval, and at [`Watch::next`].
    pub fn tick(&mut self, now: UnixNanos) -> Vec<Alert> {
        let mut alerts = std::mem::take(&mut self.ended);
        if let What::Absent { labels, .. } = &self.rule.what {
            let is_absent = self.presence.is_absent(now) && now.0 >= self.started.0.saturating_add(self.rule.patience());
            if is_absent != std::mem::replace(&mut self.presence.is_firing, is_absent) {
                let state = if is_absent { State::Firing } else { State::Resolved(Reason::SeenAgain) };
                let since = UnixNanos(self.presence.last.max(self.started.0));
                alerts.push(Alert { rule: self.rule.name.clone(), member: labels.clone(), since, at: now, state });
            }
            return alerts;
        }
        let mut members = std::mem::take(&mut self.members);
        members.retain(|_, entry| {
            let (is_missing, is_forgotten) = self.judge(entry, now);
            let state = match (entry.is_firing, is_missing) {
                (true, _) if is_forgotten => State::Resolved(Reason::Forgotten),
                (false, true) if !is_forgotten => State::Firing,
                (true, false) if entry.newest != entry.lost_at => State::Resolved(Reason::SeenAgain),
                _ => return !is_forgotten,
            };
            (entry.is_firing, entry.lost_at) = (state == State::Firing, entry.newest);
            alerts.push(self.alert(entry, now, state));
            !is_forgotten
        });
        self.members = members;
        alerts.sort_by(|a, b| a.member.cmp(&b.member));
        alerts
    }

    /// Whether a member is missing, and whether nobody expects it any more.
    fn judge(&self, entry: &Entry, now: UnixNanos) -> (bool, bool) {
        let silent = now.0.saturating_sub(entry.seen());
        let What::MissingFrom { expected, .. } = &self.rule.what else { return (false, false) };
        let patience = self.rule.patience();
        match expected {
            Expected::Inventory(_) => (silent >= patience && now.0.saturating_sub(entry.armed) >= patience, false),
            Expected::Preceding(window) => {
                if let Some(removed) = entry.removed {
                    return (false, now.0.saturating_sub(removed) >= *window);
                }
                let is_warm = now.0.saturating_sub(self.started.0) >= *window;
                (is_warm && silent >= patience, silent > self.rule.forget_after.max(*window))
            }
        }
    }

    /// The first moment at which somebody becomes missing if nothing more comes.
    pub fn next(&self) -> Option<UnixNanos> {
        let patience = self.rule.patience();
        let warm = match &self.rule.what {
            What::MissingFrom { expected: Expected::Preceding(window), .. } => self.started.0.saturating_add(*window),
            _ => self.started.0.saturating_add(patience),
        };
        if let What::Absent { .. } = self.rule.what {
            let last = self.presence.fresh.values().copied().max().unwrap_or(i64::MIN).max(self.presence.other);
            return (!self.presence.is_firing).then(|| UnixNanos(last.saturating_add(LOOKBACK).max(warm)));
        }
        let waiting = self.members.values().filter(|entry| !entry.is_firing && entry.removed.is_none());
        let due = waiting
            .map(|entry| entry.seen().max(if entry.newest.is_none() { entry.armed } else { i64::MIN }).saturating_add(patience).max(warm));
        due.min().map(UnixNanos)
    }

    fn alert(&self, entry: &Entry, now: UnixNanos, state: State) -> Alert {
        let member = self.names().iter().cloned().zip(entry.member.iter().cloned()).collect();
        Alert { rule: self.rule.name.clone(), member, since: UnixNanos(entry.seen()), at: now, state }
    }

    fn names(&self) -> &[String] {
        if let What::MissingFrom { by, .. } = &self.rule.what { by } else { &[] }
    }

    /// Who is missing now, by member.
    pub fn firing(&self) -> Vec<Labels> {
        if let What::Absent { labels, .. } = &self.rule.what {
            return if self.presence.is_firing { vec![labels.clone()] } else { Vec::new() };
        }
        let firing = self.members.values().filter(|entry| entry.is_firing);
        let mut firing: Vec<Labels> =
            firing.map(|entry| self.names().iter().cloned().zip(entry.member.iter().cloned()).collect()).collect();
        firing.sort();
        firing
    }

    pub fn members(&self) -> usize {
        self.members.values().filter(|entry| entry.removed.is_none()).count()
    }
}

/// Lengths before values: no two members have one key.
fn put_key<T: AsRef<str>>(key: &mut Vec<u8>, member: &[T]) {
    key.clear();
    for value in member {
        key.extend_from_slice(&(value.as_ref().len() as u32).to_le_bytes());
        key.extend_from_slice(value.as_ref().as_bytes());
    }
}

/// Whether a selector selects anything: its series, and when each was last there.
#[derive(Debug)]
struct Presence {
    /// By hash of labels; an ended series is not in it.
    fresh: HashMap<u64, i64>,
    series_max: usize,
    /// The newest sample of all.
    last: i64,
    /// The newest sample of series that found no room: they are taken as there until the look-back ends them.
    other: i64,
    is_firing: bool,
    hasher: DefaultHashBuilder,
}

impl Presence {
    fn see(&mut self, labels: &[(String, String)], at: UnixNanos, value: f64) {
        let series = self.hasher.hash_one(labels);
        if value.to_bits() != STALE {
            self.last = self.last.max(at.0);
        }
        if value.to_bits() == STALE {
            if self.fresh.get(&series).is_some_and(|last| *last <= at.0) {
                self.fresh.remove(&series);
            }
        } else if let Some(last) = self.fresh.get_mut(&series) {
            *last = at.0.max(*last);
        } else if self.fresh.len() < self.series_max {
            self.fresh.insert(series, at.0);
        } else {
            self.other = self.other.max(at.0);
        }
    }

    /// As `absent` at `now`.
    fn is_absent(&mut self, now: UnixNanos) -> bool {
        let oldest = now.0.saturating_sub(LOOKBACK);
        self.fresh.retain(|_, last| *last > oldest);
        self.other <= oldest && self.fresh.is_empty()
    }
}

/// Writes an alert as a line of JSON.
///
/// ```json
/// {"timestamp":"…","event":"missing","rule":"latency","member":"m7","labels":{"model":"m7"},"state":"firing","since":"…","message":"…"}
/// ```
pub fn put_event(out: &mut Vec<u8>, alert: &Alert) {
    let mut put = |name: &str, value: &str| {
        out.push(if name == "timestamp" { b'{' } else { b',' });
        put_text(out, name.as_bytes());
        out.push(b':');
        put_text(out, value.as_bytes());
    };
    put("timestamp", &alert.at.rfc3339());
    put("event", "missing");
    put("rule", &alert.rule);
    put("member", &alert.member_text());
    let (state, reason, message) = match alert.state {
        State::Firing => ("firing", None, format!("not seen for {}", Span(alert.at.0.saturating_sub(alert.since.0)))),
        State::Resolved(reason) => ("resolved", Some(reason.name()), format!("no longer missing: {}", reason.name().replace('_', " "))),
    };
    put("state", state);
    if let Some(reason) = reason {
        put("reason", reason);
    }
    put("since", &alert.since.rfc3339());
    put("message", &format!("{}: {message}", alert.member_text()));
    out.extend_from_slice(b",\"labels\":{");
    for (n, (name, value)) in alert.member.iter().enumerate() {
        out.extend_from_slice(if n > 0 { b"," } else { b"" });
        put_text(out, name.as_bytes());
        out.push(b':');
        put_text(out, value.as_bytes());
    }
    out.extend_from_slice(b"}}\n");
}

/// Writes `weir_missing{member="m7",model="m7",rule="latency"} 1` and `ALERTS{alertname="latency",alertstate="firing",model="m7"} 1`
/// for each member that is missing at `now`.
pub fn put_firing(out: &mut Vec<u8>, watch: &Watch, now: UnixNanos) {
    for member in watch.firing() {
        put_samples(out, &watch.rule.name, &member, now, 1.0);
    }
}

/// Writes the samples of an alert that began, or the markers that end its series.
pub fn put_change(out: &mut Vec<u8>, alert: &Alert) {
    let value = if alert.state == State::Firing { 1.0 } else { f64::from_bits(STALE) };
    put_samples(out, &alert.rule, &alert.member, alert.at, value);
}

fn put_samples(out: &mut Vec<u8>, rule: &str, member: &Labels, at: UnixNanos, value: f64) {
    let text = member_text(member);
    let mut stamp = Stamp::default();
    for (metric, own) in
        [("weir_missing", [("member", text.as_str()), ("rule", rule)]), ("ALERTS", [("alertname", rule), ("alertstate", "firing")])]
    {
        // Labels of the rule give way to ours of the same name.
        let others = member.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let others = others.filter(|(name, value)| !value.is_empty() && own.iter().all(|(own, _)| own != name));
        let mut labels: Vec<(&str, &str)> = others.chain(own.into_iter().filter(|(_, value)| !value.is_empty())).collect();
        labels.sort_unstable();
        put_series(out, metric, Type::Gauge, "", labels.into_iter());
        stamp.put(out, at);
        put_value_end(out, value);
    }
}

#[cfg(test)]
mod tests;
