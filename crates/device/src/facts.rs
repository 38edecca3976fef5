//! Readings become usage facts: how long each device was held, who computed for how long, with how much energy and memory.
//!
//! In: readings in order. Out: [`Fact`]s, each told once, raw: sharing a device among tenants is rating and happens in the bill.
//!
//! - `gpu_held`: every device, all the time it was there: each millisecond belongs to exactly one fact (`exclusive` to
//!   its owner; `shared`, `mig`, `free` and `unseen` to nobody).
//! - `gpu_sm_time`: SM time by owner, in ms. `gpu_energy`: differences of the device's counter, in mJ.
//! - `gpu_memory_time`: MiB held by owner. `gpu_slices`: MIG slices held by owner.
//!
//! All have the dimension `mode`, so that a share can `join: [device, mode]`: an hour may have a device in two modes.
//!
//! **Time.** Gaps between readings are told by the monotonic clock. The wall clock only places them: when both went apart by more
//! than 1 s, the clock was set, and the timeline goes on at the new wall time. An interval is never told twice for the same time
//! (what would overlap is cut and counted); amounts (energy, SM time) are not cut. A gap above `gap_max` is `unseen`. When the machine
//! was booted in between, nobody knows how long it was there: no time is told, only the energy.
//! **Halves.** What a reading says holds for the half gap before it and the half gap behind it: modes, owners, memory, slices.
//! A process that is in one of two readings holds its memory for half the gap. What the driver counted in between (SM time,
//! energy) is divided over the parts of the gap by their length, to the last unit.
//! **Windows.** Facts are added up over windows aligned to UTC and written when the window is over, and at [`Accountant::close`].
//! **Restarts.** [`Accountant::state`] is to be stored with the facts that were told until then; with it the next one goes on.
//!
//! Memory: [`DEVICES_MAX`] devices, of each [`KEYS_MAX`] owners in the open window; beyond, use is nobody's, and counted.

pub mod look;
mod pairs;
#[cfg(test)]
mod tests;
pub mod window;

use crate::reading::{Gpu, Reading, Use};
use flow::units::{NANOS_PER_HOUR, NANOS_PER_SECOND, Span, UnixNanos};
use look::{Look, Mode, Seen, Tag, cut};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
pub use window::{Fact, Facts, Form, Meter};
use window::{Key, Ms, Open};

/// Most devices of a node; the largest machines have 16.
pub const DEVICES_MAX: usize = 256;
/// Most owners of one device in one window.
pub const KEYS_MAX: usize = 4_096;
/// Most samples by process and gap.
const USES_MAX: usize = 65_536;
const NANOS_PER_MS: i64 = 1_000_000;
/// Wall and monotonic clock further apart than that: the clock was set.
const STEP_NS: i64 = NANOS_PER_SECOND;
/// No device takes more: 2 kW, twice over for what a counter that is read late shows. In mJ a second.
const ENERGY_MJ_PER_SECOND_MAX: u128 = 2 * 2_000_000;
/// A counter beyond that (2 kW for 1,141 years) is a sentinel, as those of fields that are not supported, near 2^63.
const ENERGY_MJ_MAX: u64 = 1 << 56;
/// A new reading after a reset may be of so much time: drivers are loaded anew in less.
const RESET_SECONDS_MAX: u128 = 600;
/// A longer gap is a mistake of its source: nothing of it is told.
const GAP_MS_MAX: i64 = 31 * 24 * 3_600_000;
/// A device that did not come back for so long is forgotten.
const FORGET_NS: u64 = 24 * NANOS_PER_HOUR as u64;
/// Samples of one period of the driver are taken within half of its shortest period, 1/6 s.
const PERIOD_US: u64 = 83_000;
/// Ranges of time that are remembered as told: one for each time the clock was set.
const TOLD_MAX: usize = 16;
/// So many readings in a row behind the last one: the machine was booted, and its clock is behind.
const LATE_RUN: u32 = 3;
/// One ms of SM time, in percent x microseconds.
const SM_PER_MS: u128 = 100 * 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Facts are added up so long; divides an hour, so that none belongs to two hours.
    pub window: Span,
    /// A longer gap between two readings is unseen.
    pub gap_max: Span,
    /// How what is held is told.
    pub form: Form,
    /// The logical service that tells the facts: with a fact's id it names it.
    pub source: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            window: Span(60 * NANOS_PER_SECOND),
            gap_max: Span(10 * NANOS_PER_SECOND),
            form: Form::Amounts,
            source: "weir.gpu".into(),
        }
    }
}

impl Options {
    /// What is wrong with them, as a sentence for the one who wrote them.
    pub fn check(&self) -> Result<(), String> {
        if self.window.0 < NANOS_PER_SECOND || NANOS_PER_HOUR % self.window.0 != 0 || self.window.0 % NANOS_PER_MS != 0 {
            return Err("a window is at least 1s and divides an hour, as 1m, 10m and 1h do".into());
        }
        if !(NANOS_PER_MS..=NANOS_PER_HOUR).contains(&self.gap_max.0) {
            return Err("gap_max is from 1ms to 1h".into());
        }
        if self.source.is_empty() || self.source.len() > 512 || self.source.chars().any(char::is_control) {
            return Err("source is of 1 to 512 bytes without control characters".into());
        }
        Ok(())
    }
}

/// What happened, by reason. All only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub readings: u64,
    /// Readings that should have been and were not made.
    pub missed: u64,
    /// Readings that came behind one of a later time; nothing of them is used.
    pub late: u64,
    /// The wall clock was set.
    pub clock_steps: u64,
    /// The monotonic clock began anew.
    pub reboots: u64,
    /// An energy counter began anew.
    pub resets: u64,
    /// A device was there, and then was not.
    pub lost: u64,
    /// Device time within gaps that were too long.
    pub unseen_ms: u64,
    /// Device time that was not told, as the same wall time was told before.
    pub overlap_ms: u64,
    /// Differences of energy that nobody knows, as one of the two readings was refused.
    pub energy_unknown: u64,
    /// Use that is nobody's, as a window had too many owners.
    pub owners_left_out: u64,
    /// What was refused, by name.
    pub refused: BTreeMap<String, u64>,
}

impl Counts {
    /// All of them by name, those that are 0 left out.
    pub fn named(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let plain = [
            ("missed", self.missed),
            ("late", self.late),
            ("clock_steps", self.clock_steps),
            ("reboots", self.reboots),
            ("energy_resets", self.resets),
            ("devices_lost", self.lost),
            ("unseen_ms", self.unseen_ms),
            ("overlap_ms", self.overlap_ms),
            ("energy_unknown", self.energy_unknown),
            ("owners_left_out", self.owners_left_out),
        ];
        let refused = self.refused.iter().map(|(name, count)| (format!("refused_{name}"), *count));
        plain.into_iter().map(|(name, count)| (name.to_string(), count)).chain(refused).filter(|(_, count)| *count > 0)
    }

    pub fn refuse(&mut self, what: &str) {
        self.refuse_many(what, 1);
    }

    pub(crate) fn refuse_many(&mut self, what: &str, count: usize) {
        if count > 0 {
            *self.refused.entry(what.to_string()).or_default() += count as u64;
        }
    }
}

/// Everything that is kept between two readings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    clock: Option<Clock>,
    /// The last late reading's monotonic time, and how many came in a row.
    late: (u64, u32),
    devices: BTreeMap<String, Device>,
    pub counts: Counts,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Clock {
    boot: String,
    mono_ns: u64,
    wall_ns: i64,
    /// Time of the timeline minus monotonic time.
    offset_ns: i64,
    /// How often the timeline was placed anew: facts of different times have different ids.
    epoch: u64,
}

/// One reading's place on the timeline.
#[derive(Clone, Copy, Debug)]
struct Now {
    at_ns: i64,
    mono_ns: u64,
    /// Since the reading before, by the wall clock; of a boot in between.
    booted_ns: Option<u64>,
    is_step: bool,
    epoch: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Device {
    model: String,
    /// It was in the last reading.
    is_here: bool,
    /// Its place on the timeline; what is below 1 ms is carried on.
    pos_ns: i64,
    mono_ns: u64,
    epoch: u64,
    look: Look,
    /// The counter's last value and its monotonic time.
    energy: Option<(u64, u64)>,
    /// The driver's last sample by process, by its clock.
    last_use_us: Option<u64>,
    tells_uses: bool,
    /// Ranges of ms that were told as intervals.
    told: Vec<(i64, i64)>,
    open: Option<Open>,
    carry: window::Carry,
}

pub struct Accountant {
    options: Options,
    state: State,
}

impl Accountant {
    /// Begins with nothing known: the first reading of a device is where its time begins. Options that [`Options::check`] refuses are.
    pub fn new(options: Options) -> Result<Accountant, String> {
        Accountant::restore(options, State::default())
    }

    /// Goes on from a state that was stored.
    pub fn restore(options: Options, state: State) -> Result<Accountant, String> {
        options.check()?;
        Ok(Accountant { options, state })
    }

    /// To be stored together with the facts that were told until now.
    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn counts(&self) -> &Counts {
        &self.state.counts
    }

    /// Takes a reading in; tells the facts of windows that are over by then.
    pub fn account(&mut self, reading: &Reading, out: &mut Facts) {
        let State { clock, late, devices, counts } = &mut self.state;
        counts.readings += 1;
        counts.missed = counts.missed.saturating_add(reading.missed);
        let Some(now) = tick(clock, late, counts, reading) else { return };
        let options = &self.options;
        let mut here: HashSet<&str> = HashSet::new();
        for gpu in reading.gpus.iter().filter(|gpu| !gpu.is_lost) {
            let refused = match () {
                () if gpu.uuid.is_empty() || gpu.uuid.len() > 128 => Some("uuid"),
                () if here.contains(gpu.uuid.as_str()) => Some("uuid_twice"),
                () if devices.len() >= DEVICES_MAX && !devices.contains_key(&gpu.uuid) => Some("devices"),
                () => None,
            };
            if let Some(why) = refused {
                counts.refuse(why);
                continue;
            }
            here.insert(&gpu.uuid);
            let device = devices.entry(gpu.uuid.clone()).or_default();
            device.account(gpu, &now, &mut Context { options, counts, out });
        }
        let at_ms = now.at_ns.div_euclid(NANOS_PER_MS);
        devices.retain(|uuid, device| {
            if !here.contains(uuid.as_str()) {
                counts.lost += u64::from(std::mem::take(&mut device.is_here));
            }
            // A device's own place is less than 1 ms from the node's.
            device.close(uuid, if device.is_here { device.pos_ns.div_euclid(NANOS_PER_MS) } else { at_ms }, options.form, out);
            let is_gone = !device.is_here && now.mono_ns.abs_diff(device.mono_ns) > FORGET_NS;
            if is_gone {
                device.close(uuid, i64::MAX, options.form, out);
            }
            !is_gone
        });
    }

    /// Tells the facts of open windows that end at or before `upto`; of all of them for the largest time, as at the end of a run. What
    /// comes in such a window later becomes facts of its own.
    pub fn close(&mut self, upto: UnixNanos, out: &mut Facts) {
        let upto_ms = if upto.0 == i64::MAX { i64::MAX } else { upto.0.div_euclid(NANOS_PER_MS) };
        for (uuid, device) in &mut self.state.devices {
            device.close(uuid, upto_ms, self.options.form, out);
        }
    }
}

/// Where a reading stands on the timeline. `None`: it is of no use.
fn tick(clock: &mut Option<Clock>, late: &mut (u64, u32), counts: &mut Counts, reading: &Reading) -> Option<Now> {
    const TIMES: std::ops::Range<i64> = 0..i64::MAX / 2; // 1970 to 2116
    let (wall_ns, mono_ns) = (reading.at_ns, reading.mono_ns);
    let is_possible = |ns: i64| TIMES.contains(&ns);
    if !is_possible(wall_ns) || !i64::try_from(mono_ns).is_ok_and(is_possible) {
        counts.refuse("time");
        return None;
    }
    let mut next = Clock { boot: cut(&reading.boot), mono_ns, wall_ns, offset_ns: wall_ns - mono_ns as i64, epoch: 0 };
    let mut now = Now { at_ns: wall_ns, mono_ns, booted_ns: None, is_step: false, epoch: 0 };
    if let Some(last) = clock.as_ref() {
        let is_boot = is_boot(last, &next, late);
        if !is_boot && mono_ns <= last.mono_ns {
            counts.late += 1;
            return None;
        }
        let is_step = !is_boot && next.offset_ns.abs_diff(last.offset_ns) > STEP_NS as u64;
        if is_boot {
            counts.reboots += 1;
            now.booted_ns = Some(u64::try_from(wall_ns - last.wall_ns).unwrap_or(0));
        } else if is_step {
            counts.clock_steps += 1;
            now.is_step = true;
        } else {
            next.offset_ns = last.offset_ns;
        }
        next.epoch = last.epoch + u64::from(is_boot || is_step);
    }
    (now.at_ns, now.epoch) = (mono_ns as i64 + next.offset_ns, next.epoch);
    (*late, *clock) = ((0, 0), Some(next));
    Some(now)
}

/// Did the monotonic clock begin anew? Where nobody names the boots, it does when it goes back while the wall clock goes on, or
/// goes on from there for some readings.
fn is_boot(last: &Clock, next: &Clock, late: &mut (u64, u32)) -> bool {
    if !last.boot.is_empty() && !next.boot.is_empty() {
        return last.boot != next.boot;
    }
    if next.mono_ns >= last.mono_ns {
        return false;
    }
    *late = if late.1 > 0 && next.mono_ns > late.0 { (next.mono_ns, late.1 + 1) } else { (next.mono_ns, 1) };
    next.wall_ns > last.wall_ns || late.1 >= LATE_RUN
}

/// What every step of accounting needs.
struct Context<'a> {
    options: &'a Options,
    counts: &'a mut Counts,
    out: &'a mut Facts,
}

/// A part of a gap: within one window and one half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    from_ns: i64,
    to_ns: i64,
    is_second: bool,
}

/// SM time of one owner in a gap, in percent x microseconds.
struct SmTime {
    tag: Tag,
    is_estimated: bool,
    amount: u128,
}

impl Device {
    fn account(&mut self, gpu: &Gpu, now: &Now, context: &mut Context<'_>) {
        let look = Look::of(gpu, context.counts);
        let energy = self.energy_difference(gpu, now, context.counts);
        let gap_ns = self.go_to(now, context.counts);
        if self.model != gpu.model {
            self.close(&gpu.uuid, i64::MAX, context.options.form, context.out);
            self.model = cut(&gpu.model);
        }
        let from_ns = self.pos_ns - gap_ns;
        let is_seen = gap_ns <= context.options.gap_max.0;
        let sm = self.sm_time(gpu, &look, if is_seen { gap_ns } else { 0 }, context.counts);
        if gap_ns == 0 {
            // It begins or came back: what it took meanwhile is nobody's.
            let at = self.pos_ns;
            self.add_piece(
                &gpu.uuid,
                Piece { from_ns: at, to_ns: at, is_second: true },
                &Look::default(),
                Mode::Unseen,
                energy,
                &[],
                context,
            );
        } else if is_seen {
            self.add_gap(&gpu.uuid, from_ns, &look, energy, &sm, context);
        } else {
            self.add_unseen(&gpu.uuid, from_ns, energy, context);
        }
        self.look = look;
    }

    /// Moves the device to its new place on the timeline. Returns how long it was there, which is 0 where it was not in the last reading.
    fn go_to(&mut self, now: &Now, counts: &mut Counts) -> i64 {
        let gap_ns = match (self.is_here, now.booted_ns) {
            (true, None) => (now.mono_ns - self.mono_ns) as i64, // below i64::MAX / 2, and later than the last
            _ => 0,
        };
        let gap_ns = if gap_ns > GAP_MS_MAX * NANOS_PER_MS {
            counts.refuse("gap");
            0
        } else {
            gap_ns
        };
        let is_moved = now.is_step || gap_ns == 0;
        // What is below 1 ms stays, so that the sum of all intervals is the monotonic time to the last ms.
        let placed = |at_ns: i64| at_ns - at_ns.rem_euclid(NANOS_PER_MS) + self.pos_ns.rem_euclid(NANOS_PER_MS);
        let from_ns = if is_moved { placed(now.at_ns - gap_ns) } else { self.pos_ns };
        (self.pos_ns, self.mono_ns, self.is_here, self.epoch) = (from_ns + gap_ns, now.mono_ns, true, now.epoch);
        gap_ns
    }

    /// The energy since the counter's last reading (R18: a drop is a reset, and the new reading is added), in mJ.
    fn energy_difference(&mut self, gpu: &Gpu, now: &Now, counts: &mut Counts) -> u128 {
        let Some(value) = gpu.energy_mj else { return 0 };
        if value > ENERGY_MJ_MAX {
            counts.refuse("energy_sentinel");
            counts.energy_unknown += u64::from(self.energy.take().is_some());
            return 0;
        }
        let Some((last, last_mono)) = self.energy.replace((value, now.mono_ns)) else { return 0 };
        let elapsed_ns = now.booted_ns.unwrap_or(now.mono_ns.saturating_sub(last_mono));
        let seconds_up = u128::from(elapsed_ns).div_ceil(NANOS_PER_SECOND as u128).max(1);
        let (difference, is_reset) = if value < last || now.booted_ns.is_some() { (value, true) } else { (value - last, false) };
        let seconds_max = if is_reset { seconds_up.max(RESET_SECONDS_MAX) } else { seconds_up };
        if u128::from(difference) > seconds_max * ENERGY_MJ_PER_SECOND_MAX {
            counts.refuse(if is_reset { "energy_reset" } else { "energy_jump" });
            counts.energy_unknown += 1;
            // A jump may be the mistake of either reading: the next difference begins anew. After a reset the new one counts.
            self.energy = is_reset.then_some((value, now.mono_ns));
            return 0;
        }
        counts.resets += u64::from(is_reset);
        u128::from(difference)
    }

    /// SM time by owner in a gap; where the driver tells none by process, the device's divided by memory held.
    fn sm_time(&mut self, gpu: &Gpu, look: &Look, gap_ns: i64, counts: &mut Counts) -> Vec<SmTime> {
        let gap_us = gap_ns as u64 / 1_000;
        let (uses, last_us) = use_times(&gpu.uses, self.last_use_us, gap_us, counts);
        self.last_use_us = last_us;
        self.tells_uses |= !uses.is_empty();
        let cannot_tell = gpu.faults.contains_key("uses") || !self.tells_uses;
        if uses.is_empty() && cannot_tell && !look.processes.is_empty() {
            return estimated(gpu, look, gap_us, counts);
        }
        let (before, after) = (by_pid(&self.look.processes), by_pid(&look.processes));
        let mut by_owner: BTreeMap<Tag, u128> = BTreeMap::new();
        for (pid, amount) in uses {
            let nobody = Tag::default();
            let (first, second) = match (before.get(&pid), after.get(&pid)) {
                // The pid is another process now, and nobody can tell which of both it was: each gets half.
                (Some(old), Some(new)) if matches!((old.started, new.started), (Some(a), Some(b)) if a != b) => (&old.tag, &new.tag),
                (_, Some(new)) => (&new.tag, &new.tag),
                (Some(old), None) => (&old.tag, &old.tag),
                (None, None) => (&nobody, &nobody),
            };
            *by_owner.entry(first.clone()).or_default() += amount.div_ceil(2);
            *by_owner.entry(second.clone()).or_default() += amount / 2;
        }
        by_owner.into_iter().map(|(tag, amount)| SmTime { tag, is_estimated: false, amount }).collect()
    }

    /// A gap that was seen at both ends.
    fn add_gap(&mut self, uuid: &str, from_ns: i64, look: &Look, energy: u128, sm: &[SmTime], context: &mut Context<'_>) {
        let gap_ns = self.pos_ns - from_ns;
        let window_ns = context.options.window.0;
        let pieces = pieces(from_ns, self.pos_ns, window_ns, Some(from_ns + gap_ns / 2));
        let lengths: Vec<u128> = pieces.iter().map(|piece| (piece.to_ns - piece.from_ns) as u128).collect();
        let energies = apportion(energy, &lengths);
        let amounts: Vec<Vec<u128>> = sm.iter().map(|one| apportion(one.amount, &lengths)).collect();
        let before = std::mem::take(&mut self.look);
        for (n, piece) in pieces.iter().enumerate() {
            let of_piece: Vec<SmTime> = sm
                .iter()
                .zip(&amounts)
                .map(|(one, amounts)| SmTime { tag: one.tag.clone(), is_estimated: one.is_estimated, amount: amounts[n] })
                .collect();
            let look = if piece.is_second { look } else { &before };
            self.add_piece(uuid, *piece, look, look.mode, energies[n], &of_piece, context);
        }
    }

    /// A gap in which nobody looked: cut at hours, nobody's. So a month of it is 744 intervals and not 44,640.
    fn add_unseen(&mut self, uuid: &str, from_ns: i64, energy: u128, context: &mut Context<'_>) {
        let pieces = pieces(from_ns, self.pos_ns, NANOS_PER_HOUR, None);
        let lengths: Vec<u128> = pieces.iter().map(|piece| (piece.to_ns - piece.from_ns) as u128).collect();
        for (piece, energy) in pieces.iter().zip(apportion(energy, &lengths)) {
            self.close(uuid, i64::MAX, context.options.form, context.out);
            self.add_piece(uuid, *piece, &Look::default(), Mode::Unseen, energy, &[], context);
            let ms = piece.to_ns.div_euclid(NANOS_PER_MS) - piece.from_ns.div_euclid(NANOS_PER_MS);
            context.counts.unseen_ms = context.counts.unseen_ms.saturating_add(ms as u64);
        }
        self.close(uuid, i64::MAX, context.options.form, context.out);
    }

    /// One part of a gap, in one window: amounts whole, intervals where the time was not told before.
    #[expect(clippy::too_many_arguments, reason = "one place where everything of a piece comes together")]
    fn add_piece(&mut self, uuid: &str, piece: Piece, look: &Look, mode: Mode, energy: u128, sm: &[SmTime], context: &mut Context<'_>) {
        let ms = Ms { from: piece.from_ns.div_euclid(NANOS_PER_MS), to: piece.to_ns.div_euclid(NANOS_PER_MS) };
        if self.open.as_ref().is_some_and(|open| !(open.start..open.end).contains(&ms.from) || open.epoch != self.epoch) {
            self.close(uuid, i64::MAX, context.options.form, context.out);
        }
        let window_ms = context.options.window.0 / NANOS_PER_MS;
        let start = ms.from - ms.from.rem_euclid(window_ms);
        let epoch = self.epoch;
        let open = self.open.get_or_insert_with(|| Open::new(start, start + window_ms, epoch));
        let whole = Key { mode, tag: look.tag.clone(), ..Key::default() };
        open.add_energy(&whole, energy, ms);
        for one in sm {
            // Use that nobody knows, on a device that is one owner's alone, is that owner's.
            let tag = if one.tag.is_nobody() { &look.tag } else { &one.tag };
            open.add_sm(&Key { mode, tag: tag.clone(), is_estimated: one.is_estimated, ..Key::default() }, one.amount, ms, context.counts);
        }
        let mut fresh_ms = 0;
        for free in untold(&self.told, ms) {
            fresh_ms += free.to - free.from;
            open.add_held(&whole, free);
            for (tag, bytes) in &look.memory {
                open.add_memory(&Key { mode, tag: tag.clone(), ..Key::default() }, *bytes, free, context.counts);
            }
            for slice in &look.slices {
                let mig = Some((slice.mig.clone(), slice.profile.clone()));
                open.add_slices(&Key { mode, tag: slice.tag.clone(), mig, ..Key::default() }, slice.slices, free, context.counts);
            }
        }
        context.counts.overlap_ms += (ms.to - ms.from - fresh_ms) as u64;
        remember(&mut self.told, ms);
    }

    /// Tells what is open if its window ends by `upto_ms`.
    fn close(&mut self, uuid: &str, upto_ms: i64, form: Form, out: &mut Facts) {
        if let Some(open) = self.open.take_if(|open| open.end <= upto_ms || upto_ms == i64::MAX) {
            open.tell(uuid, &self.model, form, &mut self.carry, out);
        }
    }
}

/// SM time by pid, in percent x microseconds: each sample counts for the time since the sample before, and all of them
/// together for no more than the gap. Returns the time of the last one too.
///
/// Samples of one period carry times that differ by a little, one process at a time: they are one sample.
fn use_times(uses: &[Use], last_us: Option<u64>, gap_us: u64, counts: &mut Counts) -> (Vec<(u32, u128)>, Option<u64>) {
    counts.refuse_many("uses", uses.len().saturating_sub(USES_MAX));
    let mut sorted: Vec<&Use> = uses.iter().take(USES_MAX).collect();
    sorted.sort_by_key(|one| (one.at_us, one.pid));
    let Some(newest) = sorted.last().map(|one| one.at_us) else { return (Vec::new(), last_us) };
    // The driver's clock went back as far as nobody's reading is late: what is new is new by that clock.
    let last_us = last_us.filter(|last| newest.saturating_add(10_000_000) >= *last);
    let fresh = sorted.into_iter().filter(|one| last_us.is_none_or(|last| one.at_us > last));
    let mut groups: Vec<(u64, BTreeMap<u32, u32>)> = Vec::new();
    let mut begin_us = 0;
    for one in fresh {
        if one.sm > 100 {
            counts.refuse("sm_percent");
            continue;
        }
        match groups.last_mut() {
            Some((end_us, group)) if one.at_us - begin_us <= PERIOD_US && !group.contains_key(&one.pid) => {
                *end_us = one.at_us;
                group.insert(one.pid, one.sm);
            }
            _ => {
                begin_us = one.at_us;
                groups.push((one.at_us, BTreeMap::from([(one.pid, one.sm)])));
            }
        }
    }
    let mut by_pid: BTreeMap<u32, u128> = BTreeMap::new();
    let mut left_us = gap_us;
    for n in (0..groups.len()).rev() {
        let before_us = if n > 0 { Some(groups[n - 1].0) } else { last_us };
        let of_sample = before_us.map_or(left_us, |before| groups[n].0 - before).min(left_us);
        left_us -= of_sample;
        for (pid, percent) in &groups[n].1 {
            *by_pid.entry(*pid).or_default() += u128::from(*percent) * u128::from(of_sample);
        }
    }
    (by_pid.into_iter().collect(), Some(newest.max(last_us.unwrap_or(0))))
}

/// The device's own use over the gap, divided by device memory held; equally where nobody holds any.
fn estimated(gpu: &Gpu, look: &Look, gap_us: u64, counts: &mut Counts) -> Vec<SmTime> {
    let samples: Vec<u32> = gpu
        .busy_samples
        .iter()
        .take(USES_MAX)
        .map(|(_, percent)| *percent)
        .chain(gpu.busy_samples.is_empty().then_some(gpu.busy).flatten())
        .collect();
    let usable: Vec<u128> = samples.iter().filter(|percent| **percent <= 100).map(|percent| u128::from(*percent)).collect();
    counts.refuse_many("busy_percent", samples.len() - usable.len());
    if usable.is_empty() {
        return Vec::new();
    }
    let amount = usable.iter().sum::<u128>() * u128::from(gap_us) / usable.len() as u128;
    let owners: Vec<(Tag, u128)> = if look.memory.is_empty() {
        look.processes.iter().map(|process| process.tag.clone()).collect::<BTreeSet<_>>().into_iter().map(|tag| (tag, 1)).collect()
    } else {
        look.memory.iter().map(|(tag, bytes)| (tag.clone(), u128::from(*bytes))).collect()
    };
    let weights: Vec<u128> = owners.iter().map(|(_, weight)| *weight).collect();
    owners.into_iter().zip(apportion(amount, &weights)).map(|((tag, _), amount)| SmTime { tag, is_estimated: true, amount }).collect()
}

fn by_pid(processes: &[Seen]) -> HashMap<u32, &Seen> {
    processes.iter().map(|process| (process.pid, process)).collect()
}

/// Cuts [from, to) at multiples of `step_ns`, and at `middle`.
fn pieces(from_ns: i64, to_ns: i64, step_ns: i64, middle: Option<i64>) -> Vec<Piece> {
    let middle = middle.unwrap_or(to_ns);
    let mut found = Vec::new();
    let mut at = from_ns;
    while at < to_ns {
        let is_second = at >= middle;
        let next = at - at.rem_euclid(step_ns) + step_ns;
        let end = next.min(if is_second { to_ns } else { middle });
        found.push(Piece { from_ns: at, to_ns: end, is_second });
        at = end;
    }
    found
}

/// What of `ms` lies outside of all of `told`, in order.
fn untold(told: &[(i64, i64)], ms: Ms) -> Vec<Ms> {
    let mut free = vec![ms];
    for (from, to) in told {
        free = free
            .into_iter()
            .flat_map(|part| [Ms { from: part.from, to: part.to.min(*from) }, Ms { from: part.from.max(*to), to: part.to }])
            .collect();
        free.retain(|part| part.from < part.to);
    }
    free.retain(|part| part.from < part.to);
    free.dedup();
    free
}

/// Adds a range to those that were told; what touches becomes one, and of too many the first one is forgotten.
fn remember(told: &mut Vec<(i64, i64)>, ms: Ms) {
    if ms.from >= ms.to {
        return;
    }
    if let [.., last] = told.as_mut_slice()
        && last.1 == ms.from
        && !told.iter().rev().skip(1).any(|other| other.0 <= ms.to && ms.from <= other.1)
    {
        told.last_mut().expect("it is there").1 = ms.to;
        return;
    }
    let touching: Vec<(i64, i64)> = told.extract_if(.., |other| other.0 <= ms.to && ms.from <= other.1).collect();
    let from = touching.iter().map(|other| other.0).min().unwrap_or(ms.from).min(ms.from);
    let to = touching.iter().map(|other| other.1).max().unwrap_or(ms.to).max(ms.to);
    told.push((from, to));
    if told.len() > TOLD_MAX {
        told.remove(0);
    }
}

/// Divides `total` by weight, to the last unit; all of it goes to the first where every weight is 0. Method: largest remainder
/// (Hamilton 1792), ties to the first.
pub(crate) fn apportion(total: u128, weights: &[u128]) -> Vec<u128> {
    // Weights that are too large to multiply lose their last bits: the parts are a little less fair then, and their sum is the same.
    let bits = |number: u128| u128::BITS - number.leading_zeros();
    let of_sum = bits(weights.iter().copied().max().unwrap_or(0)) + bits(weights.len() as u128);
    let excess = (of_sum + bits(total)).saturating_sub(127);
    let weights: Vec<u128> = weights.iter().map(|weight| weight.checked_shr(excess).unwrap_or(0)).collect();
    let sum: u128 = weights.iter().sum();
    if sum == 0 {
        return weights.iter().enumerate().map(|(n, _)| if n == 0 { total } else { 0 }).collect();
    }
    let parts: Vec<(u128, u128)> = weights.iter().map(|weight| (total * weight / sum, total * weight % sum)).collect();
    let mut left = total - parts.iter().map(|part| part.0).sum::<u128>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|n| std::cmp::Reverse(parts[*n].1));
    let mut found: Vec<u128> = parts.into_iter().map(|part| part.0).collect();
    for n in order {
        if left == 0 {
            break;
        }
        found[n] += 1;
        left -= 1;
    }
    found
}
