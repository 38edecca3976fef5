//! Adds readings of the host up to usage events: who used how much CPU and memory in each window, and what nobody owns.
//!
//! In: readings in the order of their making, owners and requests filled in ([`HostReading::own`]). Out: lines as `/api/v1/usage` makes
//! them, for a meter with `usage: events`.
//!
//! | meter | kind | unit | of a container |
//! | --- | --- | --- | --- |
//! | `cpu_time` | point at the window's start | ms | differences of its counter; what is less than a millisecond waits for the next window |
//! | `memory_held` | interval | MiB | max(requested, working set), averaged over the interval, rounded up |
//! | `cpu_held` | interval | millicores | max(requested, used), averaged over the interval, rounded up |
//!
//! A container that was there for a third of the interval held a third: quantity times duration is what it held. A level holds until
//! the next reading. An event has no tenant where nobody owns it, and a member `part` that says what it is: `unowned` (containers nobody
//! knows), `system` (used by no container), `idle`, `stolen` (by other machines of the same host), `free`.
//!
//! **Conserved.** In each window and meter the events add up to the machine: ticks of `/proc/stat` (10 ms each, busy, idle and stolen),
//! `MemTotal`, the number of processors. Counters of groups count microseconds and the kernel counts ticks at other moments, so groups
//! may be ahead for a while: what the system's and the idle part cannot give is owed ([`Counts::owed_ms`]) and taken off them in the
//! windows after. Memory and processors that are promised beyond what is there are counted ([`Counts::over_mib`]), and nobody's less
//! for it.
//!
//! **Counters.** One that drops was reset: the new reading is added. A group that is new between two readings began at 0, one that could
//! have been missed begins now. More than all processors can do is no use ([`Counts::implausible`]). A pod's counter has what its
//! containers used that were gone before anybody looked; it goes to the pod, without a container.
//!
//! **Time.** Gaps are told by the monotonic clock. One longer than `gap_max_ns`, or a new boot, is unseen: it is counted and nobody pays
//! for it. When the wall clock steps, what was used lies before the new time, for as long as the monotonic clock says.
//!
//! Memory: [`SEEN_MAX`] groups of some 300 bytes; beyond, those that are gone are forgotten first. An event's id is made of the node,
//! the meter, the container and the start: a state that is restored after a crash makes the same ids again, so nothing is paid twice.

use super::cgroup::Cgroup;
use super::reading::{Cpu, HostReading, Request};
use crate::reading::Owner;
use flow::units::{NANOS_PER_HOUR, NANOS_PER_MINUTE, NANOS_PER_SECOND, UnixNanos};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use telemetry::sample::put_text;

/// Groups whose counters are remembered.
pub const SEEN_MAX: usize = 20_000;
/// How far the wall clock may differ from the monotonic one between two readings before it has stepped.
const STEP_NS: i64 = NANOS_PER_SECOND;
/// A counter may be read late, and a group's is ahead of the kernel's ticks.
const SLACK_US: u64 = 60_000_000;
const MIB: u128 = 1 << 20;
/// Longest text of a member, as `/api/v1/usage` takes it.
const TEXT_BYTES_MAX: usize = 512;

#[derive(Clone, Debug)]
pub struct FactsOptions {
    /// Named in each event, as in `host`.
    pub source: String,
    /// This machine, for ids and the member `node`.
    pub node: String,
    /// Length of a window: whole seconds, a divisor of an hour.
    pub window_ns: i64,
    /// Longest time between two readings that is told from their difference; at most an hour.
    pub gap_max_ns: u64,
}

impl Default for FactsOptions {
    fn default() -> FactsOptions {
        FactsOptions { source: "host".into(), node: String::new(), window_ns: NANOS_PER_MINUTE, gap_max_ns: NANOS_PER_MINUTE as u64 }
    }
}

/// What went wrong or stands out, since the state began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub readings: u64,
    /// Readings at the same time as the one before: not used.
    pub repeated: u64,
    pub gaps: u64,
    pub unseen_ns: u64,
    pub boots: u64,
    /// Steps of the wall clock.
    pub steps: u64,
    /// Counters that dropped.
    pub resets: u64,
    /// Counters that ran faster than all processors can.
    pub implausible: u64,
    /// Groups that may have been there before they were seen first: they count from then on.
    pub late: u64,
    /// Groups that were forgotten because there were too many.
    pub forgotten: u64,
    pub events: u64,
    /// What containers used beyond the kernel's ticks, and later windows have not given back yet.
    pub owed_ms: u64,
    /// Held beyond what the machine has, summed over intervals.
    pub over_mib: u64,
    pub over_millicores: u64,
}

/// All that is remembered; with it a restart goes on where the readings before it ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FactsState {
    last: Option<Last>,
    seen: BTreeMap<String, Seen>,
    stretch: Option<Stretch>,
    /// Less than a millisecond: busy, idle, stolen.
    carry_us: [u64; 3],
    pub counts: Counts,
}

/// The reading before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Last {
    at_ns: i64,
    mono_ns: u64,
    boot_id: String,
    ticks: Option<[u64; 10]>,
    memory_total: Option<u64>,
    memory_used: u64,
    millicores: u64,
    /// Each group was read: one that is not among them is not there.
    is_whole: bool,
}

/// A container, a pod (`uid/`), as it was read last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Seen {
    cpu_us: Option<u64>,
    mono_ns: u64,
    /// Levels, until the next reading. Of a pod: what its containers have not.
    memory: u64,
    request: Option<Request>,
    owner: Option<Owner>,
    carry_us: u64,
    /// Of a pod: what its containers counted and it did not yet.
    owed_us: u64,
}

/// Time without a gap, within a window: what the next events will say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Stretch {
    start_ns: i64,
    end_ns: i64,
    uses: BTreeMap<String, Used>,
    /// Microseconds: busy, idle, stolen. None: the kernel did not tell.
    node_us: Option<[u64; 3]>,
    memory_total: Integral,
    memory_used: Integral,
    millicores: Integral,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Used {
    owner: Option<Owner>,
    cpu_us: u64,
    memory: Integral,
    requested_memory: Integral,
    requested_millicores: Integral,
}

/// A level times nanoseconds; in JSON text, for numbers there end at 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Integral(u128);

impl Serialize for Integral {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Integral {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Integral).map_err(serde::de::Error::custom)
    }
}

impl Integral {
    fn add(&mut self, level: u64, nanos: i64) {
        self.0 = self.0.saturating_add(u128::from(level) * nanos.max(0) as u128);
    }
}

/// What one group did between two readings.
struct Change {
    key: String,
    owner: Option<Owner>,
    cpu_us: u64,
    /// Before, for it held until now.
    memory: u64,
    request: Option<Request>,
}

pub struct Facts {
    options: FactsOptions,
    state: FactsState,
}

impl Facts {
    /// `state`: what [`Facts::state`] gave before, or its default. Errors: what is wrong with the options.
    pub fn new(options: FactsOptions, state: FactsState) -> Result<Facts, String> {
        let window = options.window_ns;
        if window < NANOS_PER_SECOND || NANOS_PER_HOUR % window != 0 || window % NANOS_PER_SECOND != 0 {
            return Err(format!("a window is whole seconds that divide an hour, as in 1m; it is {}", flow::units::Span(window)));
        }
        if options.gap_max_ns == 0 || options.gap_max_ns > NANOS_PER_HOUR as u64 {
            return Err("gap_max is more than 0 and at most 1h".into());
        }
        Ok(Facts { options, state })
    }

    pub fn state(&self) -> &FactsState {
        &self.state
    }

    pub fn counts(&self) -> &Counts {
        &self.state.counts
    }

    /// Takes a reading, and writes the events of each window that it ends.
    pub fn add(&mut self, reading: &HostReading, out: &mut Vec<u8>) {
        self.state.counts.readings += 1;
        let segment = match &self.state.last {
            None => None,
            Some(last) if last.boot_id == reading.boot_id && last.mono_ns == reading.mono_ns => {
                self.state.counts.repeated += 1;
                return;
            }
            Some(last) if last.boot_id != reading.boot_id || last.mono_ns > reading.mono_ns => {
                self.state.counts.boots += 1;
                None
            }
            Some(last) => Some((last.at_ns, reading.mono_ns - last.mono_ns)),
        };
        match segment.filter(|(_, nanos)| *nanos <= self.options.gap_max_ns) {
            None => {
                if let Some((_, nanos)) = segment {
                    self.state.counts.gaps += 1;
                    self.state.counts.unseen_ns = self.state.counts.unseen_ns.saturating_add(nanos);
                }
                self.end_stretch(out);
                self.begin(reading);
            }
            Some((last_at, nanos)) => {
                let mut from = last_at;
                let wall = reading.at_ns.saturating_sub(last_at);
                if wall <= 0 || wall.abs_diff(nanos as i64) >= STEP_NS as u64 {
                    self.state.counts.steps += 1;
                    self.end_stretch(out);
                    from = reading.at_ns.saturating_sub(nanos as i64);
                }
                let (changes, node) = self.changes(reading, nanos);
                self.spread(from, reading.at_ns, &changes, node, out);
            }
        }
        self.remember(reading);
    }

    /// Ends what is being added up, and writes its events: at the end of a recording.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.end_stretch(out);
    }

    /// Counters begin anew with `reading`: nothing is known of before.
    fn begin(&mut self, reading: &HostReading) {
        let last = self.state.last.take();
        if last.is_none_or(|last| last.boot_id != reading.boot_id) {
            self.state.seen.clear();
        }
        for seen in self.state.seen.values_mut() {
            seen.cpu_us = None;
            seen.owed_us = 0;
        }
    }

    /// What changed since the reading before, `nanos` ago, group by group; and of the whole machine, in microseconds busy, idle, stolen.
    fn changes(&mut self, reading: &HostReading, nanos: u64) -> (Vec<Change>, Option<[u64; 3]>) {
        let state = &mut self.state;
        let processors = if reading.cpus.is_empty() { super::proc::CPUS_MAX } else { reading.cpus.len() } as u64;
        let most_new = processors.saturating_mul(nanos / 1000 + 1_000_000);
        let most = processors.saturating_mul(nanos / 1000 + SLACK_US);
        let last = state.last.as_ref().expect("there is a reading before");
        let node = node_change(last.ticks.as_ref(), reading.cpu.as_ref(), most, &mut state.counts);
        let is_whole = last.is_whole;
        // Groups that are gone held what they had until about now.
        let mut changes: HashMap<String, Change> = state
            .seen
            .iter()
            .filter(|(_, seen)| seen.memory > 0 || seen.request.is_some())
            .map(|(key, seen)| {
                let change = Change { key: key.clone(), owner: seen.owner.clone(), cpu_us: 0, memory: seen.memory, request: seen.request };
                (key.clone(), change)
            })
            .collect();
        // By pod: what its containers used.
        let mut inside: HashMap<&str, u64> = HashMap::new();
        let mut pods = Vec::new();
        for (key, group) in placed(reading) {
            let seen = state.seen.get_mut(&key);
            let used = match (seen.as_ref().map(|seen| seen.cpu_us), group.cpu_us) {
                (_, None) => None,
                (Some(Some(before)), Some(now)) => plausible(difference(before, now, &mut state.counts.resets), most, &mut state.counts),
                (None, Some(now)) if is_whole && now <= most_new => Some(now),
                (_, Some(_)) => {
                    state.counts.late += 1;
                    None
                }
            };
            let owner = group.owner.clone().or_else(|| seen.and_then(|seen| seen.owner.clone()));
            if group.container_id.is_empty() {
                pods.push((group, key, owner, used));
                continue;
            }
            if !group.pod_uid.is_empty() {
                let sum = inside.entry(&group.pod_uid).or_default();
                *sum = sum.saturating_add(used.unwrap_or(0));
            }
            add_change(&mut changes, key, owner, used.unwrap_or(0));
        }
        for (group, key, owner, used) in pods {
            let seen = state.seen.entry(key.clone()).or_default();
            let due = inside.remove(group.pod_uid.as_str()).unwrap_or(0).saturating_add(seen.owed_us);
            seen.owed_us = match (used, group.cpu_us) {
                (Some(used), _) => due.saturating_sub(used),
                // Its next difference will have what its containers used now.
                (None, None) => due,
                // It begins now, with all of that behind it.
                (None, Some(_)) => 0,
            };
            add_change(&mut changes, key, owner, used.unwrap_or(0).saturating_sub(due));
        }
        (changes.into_values().collect(), node)
    }

    /// Lays what changed over the windows from `from` to `to`, in proportion to time, and ends each window that is over.
    fn spread(&mut self, from: i64, to: i64, changes: &[Change], node: Option<[u64; 3]>, out: &mut Vec<u8>) {
        let window = self.options.window_ns;
        let whole = to - from;
        let mut at = from;
        while at < to {
            let end = at.saturating_sub(at.rem_euclid(window)).saturating_add(window).min(to);
            // Floors of running sums, so that the parts are the whole.
            let part = |amount: u64| portion(amount, end - from, whole) - portion(amount, at - from, whole);
            let last = self.state.last.as_ref().expect("there is a reading before");
            let stretch = self.state.stretch.get_or_insert_with(|| Stretch { start_ns: at, end_ns: at, ..Stretch::default() });
            stretch.end_ns = end;
            let nanos = end - at;
            for change in changes {
                let used = match stretch.uses.get_mut(&change.key) {
                    Some(used) => used,
                    None => stretch.uses.entry(change.key.clone()).or_default(),
                };
                if change.owner.is_some() {
                    used.owner.clone_from(&change.owner);
                }
                used.cpu_us = used.cpu_us.saturating_add(part(change.cpu_us));
                used.memory.add(change.memory, nanos);
                if let Some(request) = change.request {
                    used.requested_memory.add(request.memory_bytes, nanos);
                    used.requested_millicores.add(request.millicores, nanos);
                }
            }
            if let Some(node) = node {
                let sums = stretch.node_us.get_or_insert([0; 3]);
                for (sum, amount) in sums.iter_mut().zip(node) {
                    *sum = sum.saturating_add(part(amount));
                }
            }
            stretch.memory_total.add(last.memory_total.unwrap_or(0), nanos);
            stretch.memory_used.add(last.memory_used, nanos);
            stretch.millicores.add(last.millicores, nanos);
            if end % window == 0 {
                self.end_stretch(out);
            }
            at = end;
        }
    }

    /// Keeps what the next reading is compared with.
    fn remember(&mut self, reading: &HostReading) {
        let state = &mut self.state;
        let now = reading.mono_ns;
        for seen in state.seen.values_mut() {
            seen.memory = 0;
            seen.request = None;
        }
        let mut inside: HashMap<&str, u64> = HashMap::new();
        for (key, group) in placed(reading) {
            let seen = state.seen.entry(key).or_default();
            // A counter that could not be read is compared with the last that could.
            seen.cpu_us = group.cpu_us.or(seen.cpu_us);
            seen.mono_ns = now;
            seen.memory = group.working_set().unwrap_or(0);
            if group.owner.is_some() {
                seen.owner.clone_from(&group.owner);
            }
            if !group.container_id.is_empty() {
                seen.request = group.request;
                if !group.pod_uid.is_empty() {
                    let sum = inside.entry(&group.pod_uid).or_default();
                    *sum = sum.saturating_add(seen.memory);
                }
            }
        }
        for (uid, inside) in inside {
            if let Some(pod) = state.seen.get_mut(&key(uid, "")) {
                // Less than a MiB is the pause container's and the kernel's: it stays with the system.
                let rest = pod.memory.saturating_sub(inside);
                pod.memory = if u128::from(rest) >= MIB { rest } else { 0 };
            }
        }
        let gap_max = self.options.gap_max_ns;
        state.seen.retain(|_, seen| now.saturating_sub(seen.mono_ns) <= gap_max);
        if state.seen.len() > SEEN_MAX {
            let before = state.seen.len();
            state.seen.retain(|_, seen| seen.mono_ns == now);
            state.counts.forgotten += (before - state.seen.len()) as u64;
        }
        let total = reading.memory_bytes("MemTotal");
        state.last = Some(Last {
            at_ns: reading.at_ns,
            mono_ns: now,
            boot_id: reading.boot_id.clone(),
            ticks: kept_ticks(state.last.as_ref().and_then(|last| last.ticks), reading.cpu),
            memory_total: total,
            memory_used: total.unwrap_or(0).saturating_sub(reading.memory_bytes("MemAvailable").unwrap_or(0)),
            millicores: reading.cpus.len() as u64 * 1000,
            is_whole: !reading.cgroups_cut && !reading.faults.keys().any(|what| what.starts_with("cgroup_folder") || what == "root"),
        });
    }

    /// Writes the events of the stretch, container by container, then what is left.
    fn end_stretch(&mut self, out: &mut Vec<u8>) {
        let Some(stretch) = self.state.stretch.take() else { return };
        let nanos = (stretch.end_ns - stretch.start_ns).max(1) as u128;
        let mut sums = Sums::default();
        let mut unowned = Sums::default();
        for (key, used) in &stretch.uses {
            // What a pod has beside its containers is often next to nothing, and no reason to charge a whole MiB.
            let round = if key.ends_with('/') { floor } else { ceil };
            let mut rows = Sums { memory: round(used.memory.0, nanos * MIB), ..Sums::default() };
            let cpu_us = match self.state.seen.get_mut(key) {
                Some(seen) => {
                    let sum = used.cpu_us.saturating_add(seen.carry_us);
                    seen.carry_us = sum % 1000;
                    sum
                }
                None => used.cpu_us,
            };
            rows.cpu_ms = cpu_us / 1000;
            sums.used_memory = sums.used_memory.saturating_add(rows.memory);
            rows.memory = rows.memory.max(round(used.requested_memory.0, nanos * MIB));
            // Microseconds to thousandths of nanoseconds.
            rows.millicores = round(used.requested_millicores.0.max(u128::from(used.cpu_us) * 1_000_000), nanos);
            sums.add(&rows);
            match &used.owner {
                Some(owner) => self.put_rows(&stretch, key, Some(owner), "", &rows, out),
                None => unowned.add(&rows),
            }
        }
        self.put_rows(&stretch, "", None, "unowned", &unowned, out);
        self.put_rest(&stretch, &sums, nanos, out);
    }

    /// What no container has of the machine.
    fn put_rest(&mut self, stretch: &Stretch, sums: &Sums, nanos: u128, out: &mut Vec<u8>) {
        if let Some(node_us) = stretch.node_us {
            let mut owed = sums.cpu_ms.saturating_add(self.state.counts.owed_ms);
            for ((at, part), us) in ["system", "idle", "stolen"].into_iter().enumerate().zip(node_us) {
                let us = us.saturating_add(self.state.carry_us[at]);
                self.state.carry_us[at] = us % 1000;
                let ms = us / 1000;
                let given = ms.min(owed);
                owed -= given;
                self.put_rows(stretch, "", None, part, &Sums { cpu_ms: ms - given, ..Sums::default() }, out);
            }
            self.state.counts.owed_ms = owed;
        } else if self.state.last.as_ref().is_some_and(|last| last.ticks.is_some()) {
            // The next ticks that are read will have this too.
            self.state.counts.owed_ms = self.state.counts.owed_ms.saturating_add(sums.cpu_ms);
        }
        let total = floor(stretch.memory_total.0, nanos * MIB);
        if total > 0 {
            let left = total.saturating_sub(sums.memory);
            let system = floor(stretch.memory_used.0, nanos * MIB).saturating_sub(sums.used_memory).min(left);
            self.state.counts.over_mib = self.state.counts.over_mib.saturating_add(sums.memory.saturating_sub(total));
            self.put_rows(stretch, "", None, "system", &Sums { memory: system, ..Sums::default() }, out);
            self.put_rows(stretch, "", None, "free", &Sums { memory: left - system, ..Sums::default() }, out);
        }
        let millicores = floor(stretch.millicores.0, nanos);
        if millicores > 0 {
            let left = millicores.saturating_sub(sums.millicores);
            let over = &mut self.state.counts.over_millicores;
            *over = over.saturating_add(sums.millicores.saturating_sub(millicores));
            self.put_rows(stretch, "", None, "free", &Sums { millicores: left, ..Sums::default() }, out);
        }
    }

    fn put_rows(&mut self, stretch: &Stretch, key: &str, owner: Option<&Owner>, part: &str, rows: &Sums, out: &mut Vec<u8>) {
        for (meter, unit, quantity) in
            [("cpu_time", "ms", rows.cpu_ms), ("memory_held", "MiB", rows.memory), ("cpu_held", "millicores", rows.millicores)]
        {
            if quantity > 0 {
                self.put_event(stretch, key, owner, part, meter, unit, quantity, out);
                self.state.counts.events += 1;
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the members of one event")]
    fn put_event(
        &self,
        stretch: &Stretch,
        key: &str,
        owner: Option<&Owner>,
        part: &str,
        meter: &str,
        unit: &str,
        quantity: u64,
        out: &mut Vec<u8>,
    ) {
        let nobody = Owner::default();
        let owner = owner.unwrap_or(&nobody);
        let start = UnixNanos(stretch.start_ns);
        let window = UnixNanos(stretch.start_ns.saturating_sub(stretch.start_ns.rem_euclid(self.options.window_ns)));
        let is_point = meter == "cpu_time";
        // A clock that steps back comes by the same window again: the steps make that another event.
        let turn = self.state.counts.steps;
        let turn = if turn > 0 { format!("/{turn}") } else { String::new() };
        let who = if key.is_empty() { part } else { key };
        let id = format!("{}/{meter}/{who}/{}{turn}", cut(&self.options.node, 128), start.rfc3339());
        out.extend_from_slice(b"{\"time\":");
        put_text(out, if is_point { window } else { start }.rfc3339().as_bytes());
        put_members(out, &[("source", &self.options.source), ("id", &id), ("type", "weir.usage.v1")]);
        if !owner.tenant.is_empty() {
            out.extend_from_slice(b",\"tenant\":"); // as it is: tenants are bytes (rule R19)
            put_text(out, owner.tenant.as_bytes());
        }
        put_members(out, &[("meter", meter)]);
        out.extend_from_slice(format!(",\"quantity\":{}", quantity.min(i64::MAX as u64)).as_bytes());
        put_members(out, &[("unit", unit)]);
        if !is_point {
            put_members(out, &[("start", &start.rfc3339()), ("end", &UnixNanos(stretch.end_ns).rfc3339())]);
        }
        put_members(
            out,
            &[
                ("container", &owner.container),
                ("namespace", &owner.namespace),
                ("node", &self.options.node),
                ("part", part),
                ("pod", &owner.pod),
                ("service", &owner.service),
            ],
        );
        out.extend_from_slice(b"}\n");
    }
}

/// Writes `,"name":"value"` of each that is not empty.
fn put_members(out: &mut Vec<u8>, members: &[(&str, &str)]) {
    for (name, value) in members {
        let value = cut(value, TEXT_BYTES_MAX);
        if !value.is_empty() {
            out.push(b',');
            put_text(out, name.as_bytes());
            out.push(b':');
            put_text(out, value.as_bytes());
        }
    }
}

/// Quantities of one row of each meter, or of several.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    cpu_ms: u64,
    memory: u64,
    millicores: u64,
    /// Without requests.
    used_memory: u64,
}

impl Sums {
    fn add(&mut self, rows: &Sums) {
        self.cpu_ms = self.cpu_ms.saturating_add(rows.cpu_ms);
        self.memory = self.memory.saturating_add(rows.memory);
        self.millicores = self.millicores.saturating_add(rows.millicores);
    }
}

/// `uid/id`; of a pod `uid/`.
fn key(pod_uid: &str, container_id: &str) -> String {
    format!("{pod_uid}/{container_id}")
}

/// The groups of pods and containers. Of two that are of the same container the first is: their counters are not each other's.
fn placed(reading: &HostReading) -> impl Iterator<Item = (String, &Cgroup)> {
    let mut known = HashSet::new();
    let groups = reading.cgroups.iter().filter(|group| group.is_placed());
    groups.filter_map(move |group| {
        let is_new = known.insert((group.pod_uid.as_str(), group.container_id.as_str()));
        is_new.then(|| (key(&group.pod_uid, &group.container_id), group))
    })
}

fn add_change(changes: &mut HashMap<String, Change>, key: String, owner: Option<Owner>, used: u64) {
    let change = changes.entry(key).or_insert_with_key(|key| Change { key: key.clone(), owner: None, cpu_us: 0, memory: 0, request: None });
    change.cpu_us = change.cpu_us.saturating_add(used);
    change.owner = owner.or(change.owner.take());
}

/// Of a counter that may have been reset: then the new reading is what was counted since (rule R18).
fn difference(before: u64, now: u64, resets: &mut u64) -> u64 {
    if now < before {
        *resets += 1;
        return now;
    }
    now - before
}

fn plausible(used: u64, most: u64, counts: &mut Counts) -> Option<u64> {
    if used > most {
        counts.implausible += 1;
        return None;
    }
    Some(used)
}

/// Microseconds busy, idle and stolen since the ticks before. Guests stand in user and nice already.
fn node_change(before: Option<&[u64; 10]>, now: Option<&[u64; 10]>, most: u64, counts: &mut Counts) -> Option<[u64; 3]> {
    let (before, now) = (before?, now?);
    // Ticks of idle and waiting may fall back a little (proc_stat(5)): they stand until they are past it.
    let us = |at: usize| now[at].saturating_sub(before[at]).saturating_mul(1_000_000 / Cpu::TICKS_PER_SECOND);
    let sum = |modes: &[usize]| modes.iter().fold(0u64, |sum, at| sum.saturating_add(us(*at)));
    let found = [sum(&[0, 1, 2, 5, 6]), sum(&[3, 4]), sum(&[7])];
    if found.iter().fold(0u64, |sum, part| sum.saturating_add(*part)) > most {
        counts.implausible += 1;
        return None;
    }
    Some(found)
}

/// The ticks that the next are compared with: a mode that fell by less than 3 s is kept, as node_exporter does.
fn kept_ticks(before: Option<[u64; 10]>, now: Option<[u64; 10]>) -> Option<[u64; 10]> {
    let (Some(before), Some(mut kept)) = (before, now) else { return now.or(before) };
    for (kept, before) in kept.iter_mut().zip(before) {
        if *kept < before && before - *kept < 3 * Cpu::TICKS_PER_SECOND {
            *kept = before;
        }
    }
    Some(kept)
}

fn portion(amount: u64, part: i64, whole: i64) -> u64 {
    (u128::from(amount) * part.max(0) as u128 / whole.max(1) as u128) as u64
}

fn ceil(amount: u128, by: u128) -> u64 {
    amount.div_ceil(by).try_into().unwrap_or(u64::MAX)
}

fn floor(amount: u128, by: u128) -> u64 {
    (amount / by).try_into().unwrap_or(u64::MAX)
}

/// Text of others, without control characters and not longer than a member may be.
fn cut(text: &str, bytes_max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests;
