//! What is added up of one device in one window, and how it is told.
//!
//! In: parts of gaps. Out: [`Fact`]s, once, when the window is over. Nothing is lost to rounding: SM time below 1 ms and memory
//! below 1 MiB-ms are carried over to the owner's next window ([`Carry`]). A [`Fact`]'s id is made from what happened: device,
//! meter, owner, dimensions and the time that is covered, never from when it is told; so the same readings give the same ids.
//! Bound: [`KEYS_MAX`] owners a meter; beyond, use is nobody's.

use super::look::{Mode, Tag};
use super::{Counts, KEYS_MAX, NANOS_PER_MS, SM_PER_MS, pairs};
use flow::units::UnixNanos;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Type of all events, as CloudEvents have one.
const TYPE: &str = "weir.usage.v1";
const MIB: u128 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Meter {
    Held,
    SmTime,
    Energy,
    MemoryTime,
    Slices,
}

impl Meter {
    pub const ALL: [Meter; 5] = [Meter::Held, Meter::SmTime, Meter::Energy, Meter::MemoryTime, Meter::Slices];

    pub fn name(self) -> &'static str {
        match self {
            Meter::Held => "gpu_held",
            Meter::SmTime => "gpu_sm_time",
            Meter::Energy => "gpu_energy",
            Meter::MemoryTime => "gpu_memory_time",
            Meter::Slices => "gpu_slices",
        }
    }

    pub fn unit(self, form: Form) -> &'static str {
        match (self, form) {
            (Meter::SmTime, _) => "ms",
            (Meter::Energy, _) => "mJ",
            (Meter::Held, Form::Amounts) => "GPU-ms",
            (Meter::Held, Form::Intervals) => "GPU",
            (Meter::MemoryTime, Form::Amounts) => "MiB-ms",
            (Meter::MemoryTime, Form::Intervals) => "MiB",
            (Meter::Slices, Form::Amounts) => "Slices-ms",
            (Meter::Slices, Form::Intervals) => "Slices",
        }
    }

    /// Is it held for a time? Else it is an amount.
    pub fn is_held(self) -> bool {
        matches!(self, Meter::Held | Meter::MemoryTime | Meter::Slices)
    }
}

/// How what was held for a time is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As so many `GPU-ms` at the window's start. A bill adds them up over the hour and rounds once, so the window does not show.
    #[default]
    Amounts,
    /// As `GPU`s from a start to an end. A bill prices and rounds each interval (rule R5): 60 of a minute cost 2 x 10^-11 more than
    /// one of an hour at 2.50. With a window of 1 h they cost the same.
    Intervals,
}

/// Raw usage, as a meter with `usage: events` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub meter: Meter,
    /// Empty: nobody's.
    pub tenant: String,
    /// With the source its name.
    pub id: String,
    /// When it counts, in milliseconds since 1970: the start of the window, of an interval its own.
    pub time_ms: i64,
    /// The time it was gathered in.
    pub from_ms: i64,
    pub to_ms: i64,
    pub quantity: u64,
    /// Only what is held has intervals.
    pub form: Form,
    /// Those that say something, by name.
    pub dims: Vec<(&'static str, String)>,
}

impl Fact {
    pub fn is_interval(&self) -> bool {
        self.form == Form::Intervals
    }

    pub fn unit(&self) -> &'static str {
        self.meter.unit(self.form)
    }

    /// What it comes to: ms, mJ, and of what is held so many things x ms, whatever the form.
    pub fn amount(&self) -> u128 {
        let length = if self.is_interval() { (self.to_ms - self.from_ms) as u128 } else { 1 };
        u128::from(self.quantity) * length
    }

    pub fn dim(&self, name: &str) -> &str {
        self.dims.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// Appends it as a line of JSON, in the shape of a usage event's record.
    pub fn put(&self, source: &str, out: &mut Vec<u8>) {
        let time = |ms: i64| UnixNanos(ms.saturating_mul(NANOS_PER_MS)).rfc3339();
        let text = |name: &str, value: &str, out: &mut Vec<u8>| {
            out.extend_from_slice(b"\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            serde_json::to_writer(&mut *out, value).expect("a Vec takes every write");
            out.push(b',');
        };
        out.push(b'{');
        text("time", &time(self.time_ms), out);
        text("source", source, out);
        text("id", &self.id, out);
        text("type", TYPE, out);
        if !self.tenant.is_empty() {
            text("tenant", &self.tenant, out);
        }
        text("meter", self.meter.name(), out);
        out.extend_from_slice(format!("\"quantity\":{},", self.quantity).as_bytes());
        text("unit", self.unit(), out);
        if self.is_interval() {
            text("start", &time(self.from_ms), out);
            text("end", &time(self.to_ms), out);
        }
        for (name, value) in &self.dims {
            text(name, value, out);
        }
        out.pop();
        out.extend_from_slice(b"}\n");
    }
}

/// Facts that were told, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub list: Vec<Fact>,
}

impl Facts {
    /// All of them as lines of JSON.
    pub fn put(&self, source: &str, out: &mut Vec<u8>) {
        self.list.iter().for_each(|fact| fact.put(source, out));
    }
}

/// A range of milliseconds since 1970, [from, to).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ms {
    pub from: i64,
    pub to: i64,
}

/// What facts are told apart by, beside device and time.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Key {
    pub mode: Mode,
    pub tag: Tag,
    /// Uuid and profile.
    pub mig: Option<(String, String)>,
    pub is_estimated: bool,
}

/// What is added up of one owner, and over which time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Sum {
    amount: u128,
    ms: Ms,
}

/// An interval with its quantity.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Held {
    quantity: u64,
    ms: Ms,
}

type Sums = BTreeMap<Key, Sum>;
type Helds = BTreeMap<Key, Vec<Held>>;

/// What is below the unit of a fact, by owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carry {
    /// Percent x microseconds.
    #[serde(with = "pairs")]
    pub sm: BTreeMap<Key, u128>,
    /// Bytes x milliseconds.
    #[serde(with = "pairs")]
    pub memory: BTreeMap<Key, u128>,
}

/// A window of one device that is not over yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// Milliseconds since 1970.
    pub start: i64,
    pub end: i64,
    pub epoch: u64,
    #[serde(with = "pairs")]
    held: Helds,
    #[serde(with = "pairs")]
    slices: Helds,
    #[serde(with = "pairs")]
    energy: Sums,
    #[serde(with = "pairs")]
    sm: Sums,
    #[serde(with = "pairs")]
    memory: Sums,
}

impl Open {
    pub fn new(start: i64, end: i64, epoch: u64) -> Open {
        Open { start, end, epoch, held: Helds::new(), slices: Helds::new(), energy: Sums::new(), sm: Sums::new(), memory: Sums::new() }
    }

    pub fn add_held(&mut self, key: &Key, ms: Ms) {
        extend(&mut self.held, key.clone(), 1, ms);
    }

    pub fn add_energy(&mut self, key: &Key, millijoules: u128, ms: Ms) {
        add(&mut self.energy, key.clone(), millijoules, ms);
    }

    /// `amount`: percent x microseconds.
    pub fn add_sm(&mut self, key: &Key, amount: u128, ms: Ms, counts: &mut Counts) {
        let key = bounded(&self.sm, key, counts);
        add(&mut self.sm, key, amount, ms);
    }

    pub fn add_memory(&mut self, key: &Key, bytes: u64, ms: Ms, counts: &mut Counts) {
        let key = bounded(&self.memory, key, counts);
        add(&mut self.memory, key, u128::from(bytes) * (ms.to - ms.from) as u128, ms);
    }

    pub fn add_slices(&mut self, key: &Key, slices: u32, ms: Ms, counts: &mut Counts) {
        let key = bounded(&self.slices, key, counts);
        extend(&mut self.slices, key, u64::from(slices), ms);
    }

    /// Tells all of it.
    pub fn tell(self, uuid: &str, model: &str, form: Form, carry: &mut Carry, out: &mut Facts) {
        let device = Named { uuid, model, form, start: self.start, epoch: self.epoch };
        for (meter, helds) in [(Meter::Held, self.held), (Meter::Slices, self.slices)] {
            for (key, helds) in helds {
                helds.iter().for_each(|held| device.tell_held(meter, &key, *held, "", out));
            }
        }
        for (key, sum) in self.energy {
            device.tell(Meter::Energy, &key, sum.ms, small(sum.amount), out);
        }
        let mut carried = std::mem::take(&mut carry.sm);
        for (key, sum) in self.sm {
            let amount = sum.amount + carried.remove(&key).unwrap_or(0);
            device.tell(Meter::SmTime, &key, sum.ms, small(amount / SM_PER_MS), out);
            add_rest(&mut carry.sm, key, amount % SM_PER_MS);
        }
        // Who is gone leaves less than 1 ms behind: it is nobody's, and not lost.
        for (key, rest) in carried {
            add_rest(&mut carry.sm, Key { tag: Tag::default(), ..key }, rest);
        }
        let mut carried = std::mem::take(&mut carry.memory);
        for (key, sum) in self.memory {
            let amount = sum.amount + carried.remove(&key).unwrap_or(0);
            device.tell_memory(&key, sum.ms, amount / MIB, out);
            add_rest(&mut carry.memory, key, amount % MIB);
        }
    }
}

/// Quantities of an event are of 63 bits; the bounds on each part keep them far below.
fn small(amount: u128) -> u64 {
    amount.min(i64::MAX as u128) as u64
}

fn add_rest(carry: &mut BTreeMap<Key, u128>, key: Key, rest: u128) {
    if rest > 0 {
        *carry.entry(key).or_default() += rest;
    }
}

/// The key, or nobody's where there are too many.
fn bounded<V>(map: &BTreeMap<Key, V>, key: &Key, counts: &mut Counts) -> Key {
    if map.len() < KEYS_MAX || map.contains_key(key) {
        return key.clone();
    }
    counts.owners_left_out += 1;
    Key { tag: Tag::default(), mig: None, ..key.clone() }
}

fn add(sums: &mut Sums, key: Key, amount: u128, ms: Ms) {
    if amount == 0 {
        return;
    }
    let sum = sums.entry(key).or_insert(Sum { amount: 0, ms });
    sum.amount += amount;
    sum.ms = Ms { from: sum.ms.from.min(ms.from), to: sum.ms.to.max(ms.to) };
}

/// Adds an interval; one that goes on with the same quantity grows.
fn extend(helds: &mut Helds, key: Key, quantity: u64, ms: Ms) {
    if ms.from >= ms.to {
        return;
    }
    let list = helds.entry(key).or_default();
    match list.last_mut() {
        Some(last) if last.ms.to == ms.from && last.quantity == quantity => last.ms.to = ms.to,
        _ => list.push(Held { quantity, ms }),
    }
}

/// A device and its window, for its facts.
struct Named<'a> {
    uuid: &'a str,
    model: &'a str,
    form: Form,
    start: i64,
    epoch: u64,
}

impl Named<'_> {
    /// An amount at the window's start.
    fn tell(&self, meter: Meter, key: &Key, ms: Ms, quantity: u64, out: &mut Facts) {
        self.put(meter, key, ms, quantity, Form::Amounts, "", out);
    }

    fn tell_held(&self, meter: Meter, key: &Key, held: Held, part: &str, out: &mut Facts) {
        match self.form {
            Form::Amounts => self.tell(meter, key, held.ms, held.quantity * (held.ms.to - held.ms.from) as u64, out),
            Form::Intervals => self.put(meter, key, held.ms, held.quantity, Form::Intervals, part, out),
        }
    }

    /// As intervals, memory over a window is a mean and a rest: so many MiB all the time, and one more for as many ms as are left.
    /// That is exact, and two intervals however often it changed.
    fn tell_memory(&self, key: &Key, ms: Ms, mib_ms: u128, out: &mut Facts) {
        if self.form == Form::Amounts {
            return self.tell(Meter::MemoryTime, key, ms, small(mib_ms), out);
        }
        let length = (ms.to - ms.from).max(1) as u128;
        let (mean, rest) = (mib_ms / length, mib_ms % length);
        self.tell_held(Meter::MemoryTime, key, Held { quantity: small(mean), ms }, "", out);
        if rest > 0 {
            let ms = Ms { from: ms.from, to: ms.from + rest as i64 };
            self.tell_held(Meter::MemoryTime, key, Held { quantity: 1, ms }, "/rest", out);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "everything a fact is made of")]
    fn put(&self, meter: Meter, key: &Key, ms: Ms, quantity: u64, form: Form, part: &str, out: &mut Facts) {
        if quantity == 0 {
            return;
        }
        let dims = self.dims(key);
        let id = self.id(meter, &key.tag.tenant, &dims, ms, part);
        let time_ms = if form == Form::Intervals { ms.from } else { self.start };
        out.list.push(Fact { meter, tenant: key.tag.tenant.clone(), id, time_ms, from_ms: ms.from, to_ms: ms.to, quantity, form, dims });
    }

    fn dims(&self, key: &Key) -> Vec<(&'static str, String)> {
        let (mig, profile) = key.mig.clone().unwrap_or_default();
        let all = [
            ("device", self.uuid.to_string()),
            ("estimated", if key.is_estimated { "memory".to_string() } else { String::new() }),
            ("gpu_model", self.model.to_string()),
            ("mig", mig),
            ("mig_profile", profile),
            ("mode", key.mode.name().to_string()),
            ("model", key.tag.model.clone()),
            ("pod", key.tag.pod.clone()),
            ("service", key.tag.service.clone()),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    /// Names of others stand in it as a digest, so that nobody can make two facts with one id.
    fn id(&self, meter: Meter, tenant: &str, dims: &[(&'static str, String)], ms: Ms, part: &str) -> String {
        let mut digest = Sha256::new();
        for text in [tenant].into_iter().chain(dims.iter().flat_map(|(name, value)| [*name, value.as_str()])) {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        }
        let owner: String = digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let epoch = if self.epoch == 0 { String::new() } else { format!("/{}", self.epoch) };
        format!("{}/{}/{owner}/{}-{}{epoch}{part}", self.uuid, meter.name(), ms.from, ms.to)
    }
}
