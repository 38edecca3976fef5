//! What one reading says of one device: how it is shared, whose it is, and who holds what of it.
//!
//! In: a [`Gpu`]. Out: a [`Look`], small enough to be kept until the next reading. Device memory is divided so that all owners
//! together never hold more than the device has; a number that cannot be is refused, by name. Bound: [`PROCESSES_MAX`]
//! processes and [`MIGS_MAX`] MIG devices are looked at; those beyond are refused.

use super::Counts;
use crate::reading::{Given, Gpu, Mig, Owner, Process};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Most processes of a device. An H100 has at most 48 clients of MPS; time slicing has no such limit.
pub const PROCESSES_MAX: usize = 4_096;
/// Most MIG devices of a device: 7 GPU instances, each of at most 7 compute instances.
pub const MIGS_MAX: usize = 64;
/// Most compute slices of a MIG device: no device has more.
const SLICES_MAX: u32 = 7;
/// Memory of a device or process above 1 PiB is a sentinel that came through.
const MEMORY_MAX: u64 = 1 << 50;
/// Longest text of a fact; a usage event's text is no longer.
const TEXT_BYTES_MAX: usize = 512;

/// How a device is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Given to one container alone, or (where nobody says whom it was given to) all its processes are of one owner.
    Exclusive,
    /// Shared in time or by MPS.
    Shared,
    /// Divided into MIG devices.
    Mig,
    /// Given to nobody, and no process has it open.
    #[default]
    Free,
    /// Nobody looked.
    Unseen,
}

impl Mode {
    pub const ALL: [Mode; 5] = [Mode::Exclusive, Mode::Shared, Mode::Mig, Mode::Free, Mode::Unseen];

    pub fn name(self) -> &'static str {
        match self {
            Mode::Exclusive => "exclusive",
            Mode::Shared => "shared",
            Mode::Mig => "mig",
            Mode::Free => "free",
            Mode::Unseen => "unseen",
        }
    }
}

/// Of an owner what stands in a fact; all of it empty where nobody is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Tag {
    pub tenant: String,
    pub service: String,
    pub model: String,
    pub pod: String,
}

impl Tag {
    pub fn of(owner: &Owner) -> Tag {
        Tag { tenant: cut(&owner.tenant), service: cut(&owner.service), model: cut(&owner.model), pod: cut(&owner.pod) }
    }

    pub fn is_nobody(&self) -> bool {
        *self == Tag::default()
    }
}

/// The longest beginning that a fact takes.
pub fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_string()
}

/// A MIG device and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    pub mig: String,
    pub profile: String,
    pub slices: u32,
    pub tag: Tag,
}

/// A process: its name (pid, start) and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub pid: u32,
    pub started: Option<u64>,
    pub tag: Tag,
}

/// What a reading said of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    pub mode: Mode,
    /// Whose the device is: in mode exclusive, else nobody.
    pub tag: Tag,
    /// Bytes of device memory held, by owner.
    pub memory: Vec<(Tag, u64)>,
    /// MIG devices that were given to somebody or have processes.
    pub slices: Vec<Slice>,
    pub processes: Vec<Seen>,
}

impl Look {
    pub fn of(gpu: &Gpu, counts: &mut Counts) -> Look {
        let taken = &gpu.processes[..gpu.processes.len().min(PROCESSES_MAX)];
        counts.refuse_many("processes", gpu.processes.len() - taken.len());
        let (mode, tag) = mode(gpu, taken);
        let of_process = |process: &Process| match process.owner.as_ref().map(Tag::of) {
            // A process that nobody knows, on a device that is one owner's alone, is that owner's.
            None => tag.clone(),
            Some(known) if known.is_nobody() => tag.clone(),
            Some(known) => known,
        };
        let processes: Vec<Seen> =
            taken.iter().map(|process| Seen { pid: process.pid, started: process.started, tag: of_process(process) }).collect();
        let memory = memory(gpu, taken, &processes, counts);
        let slices = if mode == Mode::Mig { slices(gpu, taken, counts) } else { Vec::new() };
        Look { mode, tag, memory, slices, processes }
    }
}

fn mode(gpu: &Gpu, processes: &[Process]) -> (Mode, Tag) {
    if gpu.mig_enabled || !gpu.migs.is_empty() {
        return (Mode::Mig, Tag::default());
    }
    if !gpu.given.is_empty() {
        let only = only(&gpu.given);
        return only.map_or((Mode::Shared, Tag::default()), |owner| (Mode::Exclusive, Tag::of(owner)));
    }
    match (processes, all_of_one(processes.iter())) {
        ([], _) => (Mode::Free, Tag::default()),
        (_, Some(owner)) => (Mode::Exclusive, Tag::of(owner)),
        // One process whose owner nobody knows has the device for itself all the same.
        ([one], None) if one.owner.is_none() => (Mode::Exclusive, Tag::default()),
        _ => (Mode::Shared, Tag::default()),
    }
}

/// The container that has all of it, if it is one.
fn only(given: &[Given]) -> Option<&Owner> {
    let first = given.first()?;
    given.iter().all(|one| one.replica.is_none() && one.owner == first.owner).then_some(&first.owner)
}

/// The owner of all of them, if it is one and known.
fn all_of_one<'a>(mut processes: impl Iterator<Item = &'a Process>) -> Option<&'a Owner> {
    let first = processes.next()?.owner.as_ref()?;
    processes.all(|process| process.owner.as_ref() == Some(first)).then_some(first)
}

/// Bytes by owner. If processes hold more than the device has, what it has is divided by what they say.
fn memory(gpu: &Gpu, processes: &[Process], seen: &[Seen], counts: &mut Counts) -> Vec<(Tag, u64)> {
    let mut by_owner: BTreeMap<&Tag, u64> = BTreeMap::new();
    for (process, seen) in processes.iter().zip(seen) {
        match process.memory {
            Some(bytes) if bytes > MEMORY_MAX => counts.refuse("memory"),
            Some(bytes) if bytes > 0 => *by_owner.entry(&seen.tag).or_default() += bytes, // 4,096 x 2^50 fits
            _ => {}
        }
    }
    let sum: u64 = by_owner.values().sum();
    let most = gpu.memory_total.or(gpu.memory_used).filter(|most| *most <= MEMORY_MAX).unwrap_or(u64::MAX);
    let mut amounts: Vec<u64> = by_owner.values().copied().collect();
    if sum > most {
        counts.refuse("memory_above_device");
        let weights: Vec<u128> = amounts.iter().map(|bytes| u128::from(*bytes)).collect();
        amounts = super::apportion(u128::from(most), &weights).into_iter().map(|part| part as u64).collect(); // each at most `most`
    }
    by_owner.into_keys().cloned().zip(amounts).collect()
}

/// MIG devices by whom they were given to, or else by the owner of their processes. One that is free is nobody's use at all.
fn slices(gpu: &Gpu, processes: &[Process], counts: &mut Counts) -> Vec<Slice> {
    counts.refuse_many("migs", gpu.migs.len().saturating_sub(MIGS_MAX));
    let mut of_mig: HashMap<(u32, u32), Vec<&Process>> = HashMap::new();
    for process in processes {
        if let (Some(gpu_instance), Some(compute_instance)) = (process.gpu_instance, process.compute_instance) {
            of_mig.entry((gpu_instance, compute_instance)).or_default().push(process);
        }
    }
    let mut found: Vec<Slice> = Vec::new();
    for mig in gpu.migs.iter().take(MIGS_MAX) {
        let inside = of_mig.get(&(mig.gpu_instance, mig.compute_instance)).map_or(&[][..], Vec::as_slice);
        if mig.uuid.is_empty() || found.iter().any(|other| other.mig == mig.uuid) {
            counts.refuse("mig_uuid");
            continue;
        }
        let slices = if mig.slices > 0 { mig.slices } else { slices_of_profile(&mig.profile) };
        if slices == 0 || slices > SLICES_MAX {
            counts.refuse("slices");
            continue;
        }
        if mig.given.is_empty() && inside.is_empty() {
            continue;
        }
        let tag = owner_of_mig(mig, inside).map(Tag::of).unwrap_or_default();
        found.push(Slice { mig: cut(&mig.uuid), profile: cut(&mig.profile), slices, tag });
    }
    found
}

fn owner_of_mig<'a>(mig: &'a Mig, inside: &[&'a Process]) -> Option<&'a Owner> {
    if mig.given.is_empty() { all_of_one(inside.iter().copied()) } else { only(&mig.given) }
}

/// As in `3g.40gb`, and of a compute instance within an instance: `1c.3g.40gb`.
fn slices_of_profile(profile: &str) -> u32 {
    let digits = profile.bytes().take_while(u8::is_ascii_digit).count();
    match profile.as_bytes().get(digits) {
        Some(b'g' | b'c') => profile[..digits].parse().unwrap_or(0),
        _ => 0,
    }
}
