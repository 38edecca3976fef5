//! Asks NVML what the devices of this node do: one [`Reading`] at each call.
//!
//! In: the path of the library, and times. Out: readings, in which a device has everything that it tells; what it does not tell is a
//! fault with a name. Notes say once what the library itself cannot do. No clock: who calls says when it is and how long it took.
//!
//! What fails stays small. A missing symbol ends one reading for good, `not_supported` ends it for one device, any other error is of
//! this reading only, and a lost device is skipped while the others go on. Every [`LOOK_AGAIN`] samples the devices are looked up
//! again (one call while nothing is wrong), so one that comes back, or is new, is found; where that does not help, the library is
//! begun anew. Bounds: [`DEVICES_MAX`] devices, [`MIGS_MAX`] MIG devices each, 4,096 processes and driver samples each.

mod library;

use crate::reading::{Gpu, Mig, Process, Reading, Use};
use flow::units::UnixNanos;
use library::{Fail, Field, Handle, Kind, Library};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub const DEVICES_MAX: u32 = 64;
pub const MIGS_MAX: u32 = 16;
/// Of each list of a device.
pub const PROCESSES_MAX: usize = 4096;
/// Samples between two looks for devices that are new, gone or back.
pub const LOOK_AGAIN: u64 = 10;
/// Looks in vain after which the library is begun anew.
const LOOKS_IN_VAIN: u64 = 6;
/// What changes in weeks (errors, retired pages, modes) is asked this often and repeated in between.
const SLOW_NS: u64 = 10_000_000_000;
/// The wall clock was set if it and the monotonic clock differ by more than this over one sample.
const STEP_US: i64 = 1_000_000;

/// Beyond it a number is a sentinel of "not there" or a negative one, as those of DCGM near 2^63 are.
const IMPOSSIBLE: u64 = 1 << 62;
const PERCENT_MAX: u64 = 100;
const POWER_MW_MAX: u64 = 100_000_000; // 100 kW: a rack
const CLOCK_MHZ_MAX: u64 = 100_000;
const CELSIUS_MAX: u64 = 500;
const PAGES_MAX: u64 = 1_000_000;
const BYTES_MAX: u64 = 1 << 50;

/// There is no NVML on this machine, or none that begins: no devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// None: the names under which it is installed were tried.
    pub path: Option<PathBuf>,
    pub why: String,
}

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            Some(path) => write!(f, "cannot use NVML at {}: {}", path.display(), self.why),
            None => write!(f, "cannot use NVML: {}", self.why),
        }
    }
}

impl std::error::Error for Absent {}

/// What the library cannot do, for all devices and for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The reading that is not there, as it stands in faults: `energy`.
    pub what: &'static str,
    /// The sentence's end: `the library has no nvmlDeviceGetTotalEnergyConsumption`.
    pub why: String,
}

pub struct Sampler {
    path: Option<PathBuf>,
    /// None: it was there and could not be begun anew.
    library: Option<Library>,
    driver: String,
    devices: Vec<Device>,
    notes: Notes,
    /// Samples made.
    made: u64,
    looks_in_vain: u64,
    /// Whose PCIe traffic is asked by waiting for it, where nothing cheaper tells: one device at each sample.
    pcie_turn: usize,
    times: Option<(i64, u64)>,
    count: u32,
}

#[derive(Default)]
struct Notes {
    all: Vec<Note>,
    /// Readings that ended for good.
    ended: BTreeSet<&'static str>,
}

/// What is remembered of a device between samples.
#[derive(Default)]
struct Device {
    index: u32,
    handle: Option<Handle>,
    uuid: String,
    model: String,
    pci: String,
    /// Why it cannot be asked.
    lost: Option<Fail>,
    /// Readings that it does not support.
    off: BTreeSet<&'static str>,
    has_gpm: Option<bool>,
    is_watched: bool,
    /// The last error that happened since it is watched, 0 for none.
    xid: u64,
    /// Latest of the driver's samples that were read. None: the next ones are of the time before the first sample.
    busy_until_us: Option<u64>,
    uses_until_us: Option<u64>,
    /// Counters of PCIe and when they were read.
    pcie: [Option<(u64, u64)>; 2],
    slow: Slow,
    is_mig: bool,
    migs: Vec<(Handle, Mig)>,
}

/// What is asked seldom.
#[derive(Clone, Default)]
struct Slow {
    asked_ns: Option<u64>,
    ecc: [Option<u64>; 4],
    /// For corrected and for uncorrected errors.
    retired_pages: Option<(u64, u64)>,
    /// The same, and whether it failed.
    remapped_rows: Option<(u64, u64, bool)>,
    compute_mode: Option<String>,
    faults: BTreeMap<String, String>,
}

impl Sampler {
    /// Begins NVML: the library at `path`, or the one that is installed.
    pub fn open(path: Option<&Path>) -> Result<Sampler, Absent> {
        let absent = |why| Absent { path: path.map(Path::to_path_buf), why };
        let library = Library::open(path).map_err(absent)?;
        let driver = library.driver();
        let mut sampler = Sampler {
            path: path.map(Path::to_path_buf),
            library: Some(library),
            driver,
            devices: Vec::new(),
            notes: Notes::default(),
            made: 0,
            looks_in_vain: 0,
            pcie_turn: 0,
            times: None,
            count: 0,
        };
        sampler.look();
        Ok(sampler)
    }

    /// Version of the driver; empty where it does not tell.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// What the library cannot do. Only grows; each is said once.
    pub fn notes(&self) -> &[Note] {
        &self.notes.all
    }

    /// Asks all devices. `at` and `mono_ns`: now, by the wall clock and by the monotonic clock.
    ///
    /// May take as long as the driver takes. The reading's `took_ns` and `missed` are the caller's to fill.
    pub fn sample(&mut self, at: UnixNanos, mono_ns: u64) -> Reading {
        if self.made > 0 && self.made.is_multiple_of(LOOK_AGAIN) {
            self.look_again();
        }
        self.made += 1;
        self.follow_clock(at, mono_ns);
        self.take_errors();
        let turn = self.turn();
        let mut gpus = Vec::with_capacity(self.devices.len());
        for (n, device) in self.devices.iter_mut().enumerate() {
            let mut gpu = device.names();
            match (&mut self.library, device.handle) {
                (Some(library), Some(handle)) if device.lost.is_none() => {
                    let waits_for_pcie = turn == Some(n);
                    let mut asking = Asking { library, device, handle, gpu: &mut gpu, notes: &mut self.notes, mono_ns, lost: None };
                    asking.all(waits_for_pcie);
                    if let Some(fail) = asking.lost {
                        device.lose(fail);
                        gpu = device.names();
                    }
                }
                _ => {}
            }
            if let Some(fail) = device.lost {
                gpu.is_lost = true;
                gpu.faults.insert("device".to_string(), fail.word().into_owned());
            }
            gpus.push(gpu);
        }
        Reading { at_ns: at.0, mono_ns, gpus, ..Reading::default() }
    }

    /// The next device that tells its PCIe traffic only to who waits.
    fn turn(&mut self) -> Option<usize> {
        let len = self.devices.len();
        let turn = (0..len).map(|n| (self.pcie_turn + n) % len).find(|n| {
            let device = &self.devices[*n];
            device.lost.is_none() && device.off.contains("pcie_counters") && device.has_gpm != Some(true)
        });
        self.pcie_turn = turn.map_or(0, |turn| turn + 1);
        turn
    }

    /// The driver stamps its samples by the wall clock: when that is set back, what was read last is in the future.
    fn follow_clock(&mut self, at: UnixNanos, mono_ns: u64) {
        let at_us = at.0 / 1000;
        if let Some((before_us, before_ns)) = self.times.replace((at_us, mono_ns)) {
            let passed_us = i64::try_from(mono_ns.saturating_sub(before_ns) / 1000).unwrap_or(i64::MAX);
            if at_us < before_us.saturating_add(passed_us).saturating_sub(STEP_US) {
                let now_us = u64::try_from(at_us).unwrap_or(0);
                for device in &mut self.devices {
                    for until in [&mut device.busy_until_us, &mut device.uses_until_us] {
                        *until = until.map(|us| us.min(now_us));
                    }
                }
            }
        }
    }

    fn take_errors(&mut self) {
        let Some(library) = &self.library else { return };
        let devices = &mut self.devices;
        let taken = library.errors(|handle, xid| {
            if let Some(device) = devices.iter_mut().find(|device| device.handle == Some(handle)) {
                device.xid = xid;
            }
        });
        if let Err(Fail::Missing(symbol)) = taken {
            self.notes.end("xid", symbol);
        }
    }

    /// Whether anything is not as it should be, then what can be done about it.
    fn look_again(&mut self) {
        let count = self.library.as_ref().map(Library::count);
        let is_well = matches!(count, Some(Ok(count)) if count == self.count && count > 0);
        if is_well && self.devices.iter().all(|device| device.lost.is_none()) {
            self.looks_in_vain = 0;
            return;
        }
        self.looks_in_vain += 1;
        // A device may be away for months: the driver is not begun anew at each look.
        if self.library.is_none() || self.looks_in_vain.is_multiple_of(LOOKS_IN_VAIN) {
            self.begin_anew();
        }
        self.look();
    }

    fn begin_anew(&mut self) {
        for device in &mut self.devices {
            (device.handle, device.is_watched) = (None, false);
            device.migs.clear();
        }
        self.library = None; // ended before it is begun, or the driver would not see the end
        self.library = Library::open(self.path.as_deref()).ok();
    }

    /// Looks up every device and puts it to what is known of it.
    fn look(&mut self) {
        let count = self.library.as_ref().map(Library::count);
        let Some(Ok(count)) = count else {
            let fail = count.map_or(Fail::Uninitialized, |count| count.err().unwrap_or(Fail::Unknown));
            if let Fail::Missing(symbol) = fail {
                self.notes.end("devices", symbol);
            }
            self.devices.iter_mut().for_each(|device| device.lose(fail));
            return;
        };
        if count > DEVICES_MAX && self.count != count {
            self.notes.add("devices", format!("{count} devices are there, the first {DEVICES_MAX} are read"));
        }
        self.count = count;
        let mut seen = BTreeSet::new();
        for index in 0..count.min(DEVICES_MAX) {
            let known = self.meet(index);
            seen.insert(known);
        }
        for (n, device) in self.devices.iter_mut().enumerate() {
            if !seen.contains(&n) {
                device.lose(Fail::NotFound);
            }
        }
        let excess = self.devices.len().saturating_sub(DEVICES_MAX as usize);
        let mut left = excess;
        self.devices.retain(|device| {
            let goes = left > 0 && device.lost == Some(Fail::NotFound);
            left -= usize::from(goes);
            !goes
        });
        self.devices.sort_by_key(|device| (device.index, device.lost.is_some()));
    }

    /// Looks one device up. Returns where it stands among the known ones.
    fn meet(&mut self, index: u32) -> usize {
        let library = self.library.as_mut().expect("the caller looked");
        let met = library.by_index(index).and_then(|handle| Ok((handle, library.uuid(handle)?)));
        let met = met.and_then(|met| if met.1.is_empty() { Err(Fail::Impossible) } else { Ok(met) });
        let (handle, uuid) = match met {
            Ok(met) => met,
            Err(fail) => {
                if let Fail::Missing(symbol) = fail {
                    self.notes.end("devices", symbol);
                }
                let known = self.devices.iter().position(|device| device.index == index);
                let n = known.unwrap_or_else(|| {
                    self.devices.push(Device { index, ..Device::default() });
                    self.devices.len() - 1
                });
                self.devices[n].lose(fail);
                return n;
            }
        };
        // One that could not be asked before has no name yet.
        let known = self.devices.iter().position(|device| device.uuid == uuid);
        let known = known.or_else(|| self.devices.iter().position(|device| device.uuid.is_empty() && device.index == index));
        let n = known.unwrap_or_else(|| {
            self.devices.push(Device::default());
            self.devices.len() - 1
        });
        let device = &mut self.devices[n];
        device.index = index;
        if device.lost.is_some() || device.handle != Some(handle) {
            if let Some(old) = device.handle {
                library.drop_gpm(old, |_| false);
            }
            let model = library.name(handle).unwrap_or_default();
            let pci = library.pci(handle).unwrap_or_default();
            // It may be another driver or another state: ask for everything again.
            *device = Device { index, handle: Some(handle), uuid, model, pci, ..Device::default() };
        }
        n
    }
}

impl Notes {
    fn add(&mut self, what: &'static str, why: String) {
        self.all.push(Note { what, why });
    }

    /// A reading ends for good: the library lacks what it needs.
    fn end(&mut self, what: &'static str, symbol: &'static str) {
        if self.ended.insert(what) {
            self.add(what, format!("the library has no {symbol}"));
        }
    }
}

impl Device {
    fn names(&self) -> Gpu {
        Gpu { index: self.index, uuid: self.uuid.clone(), model: self.model.clone(), pci: self.pci.clone(), ..Gpu::default() }
    }

    fn lose(&mut self, fail: Fail) {
        self.lost = Some(fail);
    }
}

/// One device while it is asked.
struct Asking<'a> {
    library: &'a mut Library,
    device: &'a mut Device,
    handle: Handle,
    gpu: &'a mut Gpu,
    notes: &'a mut Notes,
    mono_ns: u64,
    /// It was found to be lost: nothing more is asked.
    lost: Option<Fail>,
}

impl Asking<'_> {
    fn all(&mut self, waits_for_pcie: bool) {
        self.vital();
        if self.lost.is_some() {
            return;
        }
        self.mig_layout();
        self.engines();
        self.health();
        self.fields();
        if waits_for_pcie {
            self.wait_for_pcie();
        }
        self.processes();
        self.uses();
        self.gpm();
        self.slow();
        self.errors();
    }

    /// Asks for one thing; what goes wrong becomes a fault, and ends what cannot come back.
    fn ask<T>(&mut self, what: &'static str, call: impl FnOnce(&mut Library, Handle) -> Result<T, Fail>) -> Option<T> {
        if self.lost.is_some() {
            return None;
        }
        if self.notes.ended.contains(what) {
            self.fault(what, Fail::Missing(""));
            return None;
        }
        if self.device.off.contains(what) {
            self.fault(what, Fail::NotSupported);
            return None;
        }
        match call(self.library, self.handle) {
            Ok(value) => Some(value),
            Err(fail) => {
                match fail {
                    Fail::Missing(symbol) => self.notes.end(what, symbol),
                    Fail::NotSupported => {
                        self.device.off.insert(what);
                    }
                    Fail::Lost => self.lost = Some(fail),
                    _ => {}
                }
                self.fault(what, fail);
                None
            }
        }
    }

    /// As [`Asking::ask`], for a number that is possible up to `max`.
    fn count(&mut self, what: &'static str, max: u64, call: impl FnOnce(&mut Library, Handle) -> Result<u64, Fail>) -> Option<u64> {
        self.ask(what, |library, handle| possible(call(library, handle)?, max))
    }

    fn small(&mut self, what: &'static str, max: u64, call: impl FnOnce(&mut Library, Handle) -> Result<u32, Fail>) -> Option<u32> {
        let value = self.count(what, max, |library, handle| Ok(u64::from(call(library, handle)?)))?;
        u32::try_from(value).ok()
    }

    fn fault(&mut self, what: &'static str, fail: Fail) {
        self.gpu.faults.insert(what.to_string(), fail.word().into_owned());
    }

    /// What every device tells. If nothing of it comes, and not because it is not there to be told, the device is lost.
    fn vital(&mut self) {
        self.gpu.energy_mj = self.count("energy", IMPOSSIBLE - 1, |library, handle| library.energy_mj(handle));
        self.gpu.power_mw = self.count("power", POWER_MW_MAX, |library, handle| library.power_mw(handle).map(u64::from));
        self.gpu.temperature = self.small("temperature", CELSIUS_MAX, |library, handle| library.temperature(handle));
        self.memory();
        let gpu = &self.gpu;
        let is_silent = gpu.energy_mj.is_none() && gpu.power_mw.is_none() && gpu.temperature.is_none() && gpu.memory_total.is_none();
        let broken = ["unknown", "uninitialized", "reset_required", "not_found", "driver_not_loaded"];
        let all_broken = is_silent && gpu.faults.values().any(|word| broken.contains(&word.as_str()));
        if all_broken && self.lost.is_none() {
            self.lost = Some(Fail::Unknown);
        }
    }

    fn memory(&mut self) {
        let Some(memory) = self.ask("memory", |library, handle| library.memory(handle)) else { return };
        let mut is_whole = true;
        let mut checked = |bytes: u64| {
            let value = possible(bytes, BYTES_MAX).ok();
            is_whole &= value.is_some();
            value
        };
        self.gpu.memory_total = checked(memory.total);
        self.gpu.memory_used = checked(memory.used);
        self.gpu.memory_free = checked(memory.free);
        self.gpu.memory_reserved = checked(memory.reserved);
        if !is_whole {
            self.fault("memory", Fail::Impossible);
        }
    }

    /// The MIG devices. Who they are is asked anew only where their names have changed.
    fn mig_layout(&mut self) {
        let is_mig = self.ask("mig", |library, handle| library.is_mig(handle)).unwrap_or(false);
        self.gpu.mig_enabled = is_mig;
        if is_mig != self.device.is_mig {
            // The same questions get other answers now.
            self.device.is_mig = is_mig;
            self.device.off.clear();
            (self.device.busy_until_us, self.device.uses_until_us) = (None, None);
            self.library.drop_gpm(self.handle, |_| false);
        }
        if !is_mig {
            self.device.migs.clear();
            return;
        }
        let Some(max) = self.small("migs", u64::from(u32::MAX) - 1, |library, handle| library.mig_count(handle)) else { return };
        let mut migs = Vec::new();
        for index in 0..max.min(MIGS_MAX) {
            match self.library.mig(self.handle, index) {
                Ok(handle) => migs.extend(self.mig(handle)),
                Err(Fail::NotFound) => {} // places without a device
                Err(Fail::Missing(symbol)) => {
                    self.notes.end("migs", symbol);
                    self.fault("migs", Fail::Missing(symbol));
                    break;
                }
                Err(fail) => self.fault("migs", fail),
            }
        }
        if max > MIGS_MAX {
            self.fault("migs", Fail::TooMany);
        }
        let instances: BTreeSet<u32> = migs.iter().map(|(_, mig)| mig.gpu_instance).collect();
        self.library.drop_gpm(self.handle, |instance| instance.is_none_or(|instance| instances.contains(&instance)));
        self.device.migs = migs;
        self.gpu.migs = self.device.migs.iter().map(|(handle, mig)| self.mig_now(*handle, mig)).collect();
    }

    /// Who a MIG device is: as it is known, or asked.
    fn mig(&mut self, handle: Handle) -> Option<(Handle, Mig)> {
        let uuid = match self.library.uuid(handle) {
            Ok(uuid) => uuid,
            Err(fail) => {
                self.fault("migs", fail);
                return None;
            }
        };
        if let Some((_, known)) = self.device.migs.iter().find(|(_, known)| known.uuid == uuid) {
            return Some((handle, known.clone()));
        }
        let mut mig = Mig { uuid, ..Mig::default() };
        let fault = |mig: &mut Mig, what: &str, fail: Fail| {
            mig.faults.insert(what.to_string(), fail.word().into_owned());
        };
        let slices = self.library.slices(handle);
        mig.profile = self.library.name(handle).ok().and_then(|name| profile_in(&name)).unwrap_or_default();
        match slices {
            Ok((gpu, compute, mib)) if mig.profile.is_empty() && gpu <= 16 && compute <= gpu && mib < 1 << 30 => {
                let cut = if compute < gpu { format!("{compute}c.") } else { String::new() };
                mig.profile = format!("{cut}{gpu}g.{}gb", mib.div_ceil(1024));
            }
            Err(fail) if mig.profile.is_empty() => fault(&mut mig, "profile", fail),
            _ => {}
        }
        mig.slices = slices_of(&mig.profile).or(slices.ok().map(|(_, compute, _)| compute)).filter(|slices| *slices <= 16).unwrap_or(0);
        for (what, id, place) in [
            ("gpu_instance", self.library.gpu_instance(handle), &mut mig.gpu_instance),
            ("compute_instance", self.library.compute_instance(handle), &mut mig.compute_instance),
        ] {
            match id {
                Ok(id) => *place = id,
                Err(fail) => {
                    mig.faults.insert(what.to_string(), fail.word().into_owned());
                }
            }
        }
        Some((handle, mig))
    }

    /// A MIG device with what it does now.
    fn mig_now(&self, handle: Handle, known: &Mig) -> Mig {
        let mut mig = known.clone();
        match self.library.memory(handle) {
            Ok(memory) => {
                mig.memory_total = possible(memory.total, BYTES_MAX).ok();
                mig.memory_used = possible(memory.used, BYTES_MAX).ok();
                if mig.memory_total.is_none() || mig.memory_used.is_none() {
                    mig.faults.insert("memory".to_string(), Fail::Impossible.word().into_owned());
                }
            }
            Err(fail) => {
                mig.faults.insert("memory".to_string(), fail.word().into_owned());
            }
        }
        mig
    }

    /// How busy its engines are, which no device tells under MIG.
    fn engines(&mut self) {
        if self.device.is_mig {
            for what in ["busy", "busy_encoder", "busy_decoder", "busy_samples", "uses"] {
                self.gpu.faults.insert(what.to_string(), "mig".to_string());
            }
            return;
        }
        let busy = self.ask("busy", |library, handle| {
            let (busy, memory) = library.busy(handle)?;
            Ok((possible(u64::from(busy), PERCENT_MAX)? as u32, possible(u64::from(memory), PERCENT_MAX)? as u32))
        });
        (self.gpu.busy, self.gpu.busy_memory) = (busy.map(|busy| busy.0), busy.map(|busy| busy.1));
        self.gpu.busy_encoder = self.small("busy_encoder", PERCENT_MAX, |library, handle| library.busy_encoder(handle));
        self.gpu.busy_decoder = self.small("busy_decoder", PERCENT_MAX, |library, handle| library.busy_decoder(handle));
        self.busy_samples();
    }

    /// The driver's own samples. Those before the first reading are of no gap that is known.
    fn busy_samples(&mut self) {
        let until = self.device.busy_until_us;
        let since = until.unwrap_or(0);
        let (mut found, mut latest, mut is_whole) = (Vec::new(), since, true);
        let asked = self.ask("busy_samples", |library, handle| {
            library.busy_samples(handle, since, |at_us, value| {
                let value = value.and_then(|value| possible(value, PERCENT_MAX));
                match value {
                    Ok(value) if at_us > since && at_us < IMPOSSIBLE => {
                        latest = latest.max(at_us);
                        found.push((at_us, value as u32));
                    }
                    Ok(_) if at_us <= since => {} // drivers tell old ones again
                    _ => is_whole = false,
                }
            })
        });
        if asked.is_none() {
            return;
        }
        if !is_whole {
            self.fault("busy_samples", Fail::Impossible);
        }
        self.device.busy_until_us = Some(latest);
        if until.is_none() {
            return self.is_first("busy_samples");
        }
        found.sort_unstable();
        self.gpu.busy_samples = found;
    }

    fn health(&mut self) {
        self.gpu.sm_mhz = self.small("sm_mhz", CLOCK_MHZ_MAX, |library, handle| library.sm_mhz(handle));
        self.gpu.memory_mhz = self.small("memory_mhz", CLOCK_MHZ_MAX, |library, handle| library.memory_mhz(handle));
        self.gpu.throttle = self.count("throttle", IMPOSSIBLE - 1, |library, handle| library.throttle(handle));
    }

    /// What one call tells of several fields.
    fn fields(&mut self) {
        const FIELDS: [Field; 5] = [Field::MemoryTemperature, Field::NvlinkTx, Field::NvlinkRx, Field::PcieTx, Field::PcieRx];
        const NAMES: [&str; 5] = ["memory_temperature", "nvlink_tx", "nvlink_rx", "pcie_counters", "pcie_counters"];
        const MAX: [u64; 5] = [CELSIUS_MAX, IMPOSSIBLE >> 10, IMPOSSIBLE >> 10, IMPOSSIBLE - 1, IMPOSSIBLE - 1];
        let wanted = NAMES.map(|name| !self.device.off.contains(name));
        let answers =
            if wanted.contains(&true) { self.ask("fields", |library, handle| library.fields(handle, FIELDS, wanted)) } else { None };
        let mut values = [None; 5];
        for n in 0..FIELDS.len() {
            let answer = answers.map_or(Err(Fail::NotSupported), |answers| answers[n]);
            let is_told = answers.is_some() || !wanted[n];
            match answer.and_then(|value| possible(value, MAX[n])) {
                Ok(value) => values[n] = Some(value),
                Err(fail) => {
                    if fail == Fail::NotSupported && is_told {
                        self.device.off.insert(NAMES[n]);
                    }
                    // Traffic of PCIe is told in other ways too.
                    if is_told && NAMES[n] != "pcie_counters" {
                        self.fault(NAMES[n], fail);
                    }
                }
            }
        }
        self.gpu.memory_temperature = values[0].map(|value| value as u32);
        (self.gpu.nvlink_tx, self.gpu.nvlink_rx) = (values[1].map(|kib| kib << 10), values[2].map(|kib| kib << 10));
        self.gpu.pcie_tx = self.pcie_rate(0, values[3]);
        self.gpu.pcie_rx = self.pcie_rate(1, values[4]);
        if answers.is_none() && self.notes.ended.contains("fields") {
            self.device.off.insert("pcie_counters");
        }
    }

    /// Bytes a second since the reading before; None after the counter wrapped.
    fn pcie_rate(&mut self, way: usize, counter: Option<u64>) -> Option<u64> {
        let now = (counter?, self.mono_ns);
        let (before, before_ns) = self.device.pcie[way].replace(now)?;
        let passed_ns = now.1.checked_sub(before_ns).filter(|ns| *ns > 0)?;
        let bytes = now.0.checked_sub(before)?;
        u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(passed_ns)).ok().filter(|rate| *rate < BYTES_MAX)
    }

    fn wait_for_pcie(&mut self) {
        for (what, is_sent) in [("pcie_tx", true), ("pcie_rx", false)] {
            let kib = self.small(what, u64::from(u32::MAX) - 1, |library, handle| library.pcie_throughput(handle, is_sent));
            let rate = kib.map(|kib| u64::from(kib) << 10);
            if is_sent {
                self.gpu.pcie_tx = rate;
            } else {
                self.gpu.pcie_rx = rate;
            }
        }
    }

    /// Who has it open. A process in several lists is one: MPS says more than compute, compute more than graphics.
    fn processes(&mut self) {
        let mut found = BTreeMap::new();
        let mut tells_all_memory = true;
        for (kind, what, name) in [
            (Kind::Graphics, "processes_graphics", "graphics"),
            (Kind::Compute, "processes", "compute"),
            (Kind::Mps, "processes_mps", "mps"),
        ] {
            let mut one = |running: library::Running| {
                tells_all_memory &= running.memory.is_some();
                let key = (running.pid, running.gpu_instance, running.compute_instance);
                let process = Process {
                    pid: running.pid,
                    kind: name.to_string(),
                    memory: running.memory,
                    gpu_instance: running.gpu_instance,
                    compute_instance: running.compute_instance,
                    ..Process::default()
                };
                if running.pid != 0 {
                    found.insert(key, process);
                }
            };
            let migs: Vec<Handle> = self.device.migs.iter().map(|(handle, _)| *handle).collect();
            let asked = self.ask(what, |library, handle| match library.processes(handle, kind, &mut one) {
                // Whom the whole device is not told asks its parts.
                Err(Fail::NoPermission | Fail::NotSupported) if !migs.is_empty() => {
                    migs.into_iter().try_for_each(|mig| library.processes(mig, kind, &mut one))
                }
                other => other,
            });
            self.gpu.mps |= kind == Kind::Mps && asked.is_some() && found.values().any(|process| process.kind == "mps");
        }
        if !tells_all_memory {
            self.gpu.faults.insert("process_memory".to_string(), "not_available".to_string());
        }
        self.gpu.processes = found.into_values().collect();
    }

    /// Use by process since the reading before, oldest first.
    fn uses(&mut self) {
        if self.device.is_mig {
            return;
        }
        let until = self.device.uses_until_us;
        let since = until.unwrap_or(0);
        let (mut found, mut latest, mut is_whole) = (Vec::new(), since, true);
        let asked = self.ask("uses", |library, handle| {
            library.uses(handle, since, |used| {
                let is_possible = is_use(&used);
                if used.pid == 0 || used.at_us <= since {
                    return; // empty places, and old ones that drivers tell again
                }
                is_whole &= is_possible;
                if is_possible {
                    latest = latest.max(used.at_us);
                    found.push(used);
                }
            })
        });
        if asked.is_none() {
            return;
        }
        if !is_whole {
            self.fault("uses", Fail::Impossible);
        }
        self.device.uses_until_us = Some(latest);
        if until.is_none() {
            return self.is_first("uses");
        }
        found.sort_by_key(|used| (used.at_us, used.pid));
        self.gpu.uses = found;
    }

    /// What the driver sampled up to now is of a time that nobody watched: nothing is told, which is not the same as no use.
    fn is_first(&mut self, what: &str) {
        self.gpu.faults.entry(what.to_string()).or_insert_with(|| "first_reading".to_string());
    }

    /// What GPM tells of the device, and of each GPU instance.
    fn gpm(&mut self) {
        if self.device.has_gpm.is_none() {
            self.device.has_gpm = self.ask("gpm", |library, handle| library.has_gpm(handle));
        }
        if self.device.has_gpm != Some(true) {
            let fail = if self.notes.ended.contains("gpm") { Fail::Missing("") } else { Fail::NotSupported };
            self.gpu.faults.entry("gpm".to_string()).or_insert_with(|| fail.word().into_owned());
            return;
        }
        if let Some(found) = self.ask("gpm", |library, handle| library.gpm(handle, None)) {
            self.gpu.gpm = found;
        }
        let rate = |found: &BTreeMap<String, f64>, name: &str| found.get(name).map(|rate| *rate as u64);
        self.gpu.pcie_tx = self.gpu.pcie_tx.or(rate(&self.gpu.gpm, "pcie_tx"));
        self.gpu.pcie_rx = self.gpu.pcie_rx.or(rate(&self.gpu.gpm, "pcie_rx"));
        let mut of_instance: BTreeMap<u32, Result<BTreeMap<String, f64>, Fail>> = BTreeMap::new();
        for mig in &mut self.gpu.migs {
            let instance = mig.gpu_instance;
            // Several compute instances share what their GPU instance does.
            let found = of_instance.entry(instance).or_insert_with(|| self.library.gpm(self.handle, Some(instance)));
            match found {
                Ok(found) => mig.gpm = found.clone(),
                Err(fail) => {
                    mig.faults.insert("gpm".to_string(), fail.word().into_owned());
                }
            }
        }
    }

    fn slow(&mut self) {
        let is_fresh = self.device.slow.asked_ns.is_some_and(|asked| self.mono_ns.saturating_sub(asked) < SLOW_NS);
        if !is_fresh {
            let before = std::mem::take(&mut self.gpu.faults);
            let slow = self.ask_slow();
            let faults = std::mem::replace(&mut self.gpu.faults, before);
            self.device.slow = Slow { asked_ns: Some(self.mono_ns), faults, ..slow };
        }
        let slow = self.device.slow.clone();
        [self.gpu.ecc_corrected, self.gpu.ecc_uncorrected, self.gpu.ecc_corrected_life, self.gpu.ecc_uncorrected_life] = slow.ecc;
        if let Some((corrected, uncorrected)) = slow.retired_pages {
            (self.gpu.retired_corrected, self.gpu.retired_uncorrected) = (Some(corrected), Some(uncorrected));
            self.gpu.retired_pages = Some(corrected + uncorrected);
        }
        if let Some((corrected, uncorrected, has_failed)) = slow.remapped_rows {
            (self.gpu.remapped_corrected, self.gpu.remapped_uncorrected) = (Some(corrected), Some(uncorrected));
            (self.gpu.remapped_rows, self.gpu.remap_failed) = (Some(corrected + uncorrected), Some(has_failed));
        }
        self.gpu.compute_mode = slow.compute_mode;
        self.gpu.faults.extend(slow.faults);
    }

    fn ask_slow(&mut self) -> Slow {
        let max = IMPOSSIBLE - 1;
        let ecc = [
            self.count("ecc_corrected", max, |library, handle| library.ecc(handle, true, false)),
            self.count("ecc_uncorrected", max, |library, handle| library.ecc(handle, false, false)),
            self.count("ecc_corrected_life", max, |library, handle| library.ecc(handle, true, true)),
            self.count("ecc_uncorrected_life", max, |library, handle| library.ecc(handle, false, true)),
        ];
        let pages = |count: u32| possible(u64::from(count), PAGES_MAX);
        let retired_pages = self.ask("retired_pages", |library, handle| {
            let (corrected, uncorrected) = library.retired_pages(handle)?;
            Ok((pages(corrected)?, pages(uncorrected)?))
        });
        let remapped_rows = self.ask("remapped_rows", |library, handle| {
            let (corrected, uncorrected, has_failed) = library.remapped_rows(handle)?;
            Ok((pages(corrected)?, pages(uncorrected)?, has_failed))
        });
        let compute_mode = self.ask("compute_mode", |library, handle| library.compute_mode(handle)).map(str::to_string);
        Slow { asked_ns: None, ecc, retired_pages, remapped_rows, compute_mode, faults: BTreeMap::new() }
    }

    fn errors(&mut self) {
        if !self.device.is_watched {
            self.device.is_watched = self.ask("xid", |library, handle| library.watch(handle)).is_some();
        }
        if self.device.is_watched {
            self.gpu.xid = Some(self.device.xid);
        }
    }
}

/// A number that is none of the sentinels and not beyond what can be.
fn possible(value: u64, max: u64) -> Result<u64, Fail> {
    let is_sentinel = value == u64::from(u32::MAX);
    if value > max || is_sentinel { Err(Fail::Impossible) } else { Ok(value) }
}

/// Makes faults of the numbers of a reading that cannot be, for readings that another made.
pub(crate) fn reject_impossible(gpu: &mut Gpu) {
    let faults = &mut gpu.faults;
    let mut hold = |what: &str, value: &mut Option<u64>, max: u64| {
        if value.is_some_and(|value| possible(value, max).is_err()) {
            *value = None;
            faults.insert(what.to_string(), Fail::Impossible.word().into_owned());
        }
    };
    let wide = IMPOSSIBLE - 1;
    hold("energy", &mut gpu.energy_mj, wide);
    hold("power", &mut gpu.power_mw, POWER_MW_MAX);
    for value in [&mut gpu.memory_total, &mut gpu.memory_used, &mut gpu.memory_free, &mut gpu.memory_reserved] {
        hold("memory", value, BYTES_MAX);
    }
    hold("throttle", &mut gpu.throttle, wide);
    hold("ecc_corrected", &mut gpu.ecc_corrected, wide);
    hold("ecc_uncorrected", &mut gpu.ecc_uncorrected, wide);
    hold("ecc_corrected_life", &mut gpu.ecc_corrected_life, wide);
    hold("ecc_uncorrected_life", &mut gpu.ecc_uncorrected_life, wide);
    for value in [&mut gpu.retired_pages, &mut gpu.retired_corrected, &mut gpu.retired_uncorrected] {
        hold("retired_pages", value, 2 * PAGES_MAX);
    }
    for value in [&mut gpu.remapped_rows, &mut gpu.remapped_corrected, &mut gpu.remapped_uncorrected] {
        hold("remapped_rows", value, 2 * PAGES_MAX);
    }
    hold("xid", &mut gpu.xid, wide);
    hold("pcie_tx", &mut gpu.pcie_tx, BYTES_MAX);
    hold("pcie_rx", &mut gpu.pcie_rx, BYTES_MAX);
    hold("nvlink_tx", &mut gpu.nvlink_tx, wide);
    hold("nvlink_rx", &mut gpu.nvlink_rx, wide);
    for process in &mut gpu.processes {
        hold("process_memory", &mut process.memory, BYTES_MAX);
    }
    for mig in &mut gpu.migs {
        hold("migs", &mut mig.memory_total, BYTES_MAX);
        hold("migs", &mut mig.memory_used, BYTES_MAX);
        mig.gpm.retain(|_, value| is_activity(*value));
    }
    let mut hold_small = |what: &str, value: &mut Option<u32>, max: u64| {
        let mut wide = value.map(u64::from);
        hold(what, &mut wide, max);
        *value = value.filter(|_| wide.is_some());
    };
    for (what, value) in [
        ("busy", &mut gpu.busy),
        ("busy", &mut gpu.busy_memory),
        ("busy_encoder", &mut gpu.busy_encoder),
        ("busy_decoder", &mut gpu.busy_decoder),
    ] {
        hold_small(what, value, PERCENT_MAX);
    }
    hold_small("sm_mhz", &mut gpu.sm_mhz, CLOCK_MHZ_MAX);
    hold_small("memory_mhz", &mut gpu.memory_mhz, CLOCK_MHZ_MAX);
    hold_small("temperature", &mut gpu.temperature, CELSIUS_MAX);
    hold_small("memory_temperature", &mut gpu.memory_temperature, CELSIUS_MAX);
    let uses = gpu.uses.len();
    gpu.uses.retain(is_use);
    let samples = gpu.busy_samples.len();
    gpu.busy_samples.retain(|(at_us, percent)| *at_us < IMPOSSIBLE && u64::from(*percent) <= PERCENT_MAX);
    for (what, is_whole) in [("uses", uses == gpu.uses.len()), ("busy_samples", samples == gpu.busy_samples.len())] {
        if !is_whole {
            gpu.faults.insert(what.to_string(), Fail::Impossible.word().into_owned());
        }
    }
    gpu.gpm.retain(|_, value| is_activity(*value));
}

fn is_use(used: &Use) -> bool {
    used.at_us < IMPOSSIBLE && [used.sm, used.memory, used.encoder, used.decoder].iter().all(|n| u64::from(*n) <= PERCENT_MAX)
}

/// A share or a rate.
fn is_activity(value: f64) -> bool {
    (0.0..1e15).contains(&value)
}

/// The profile in the name of a MIG device: `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
fn profile_in(name: &str) -> Option<String> {
    let (_, profile) = name.rsplit_once("MIG ")?;
    let profile = profile.trim();
    slices_of(profile).map(|_| profile.to_string())
}

/// Compute slices of a profile: 3 of `3g.40gb`, 1 of `1c.3g.40gb`.
fn slices_of(profile: &str) -> Option<u32> {
    let digits = profile.find(|c: char| !c.is_ascii_digit())?;
    let is_unit = profile[digits..].starts_with("g.") || profile[digits..].starts_with("c.");
    profile[..digits].parse().ok().filter(|slices| is_unit && (1..=16).contains(slices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_says_its_slices() {
        for (profile, want) in [
            ("1g.10gb", Some(1)),
            ("7g.80gb", Some(7)),
            ("1c.3g.40gb", Some(1)),
            ("1g.10gb+me", Some(1)),
            ("g.10gb", None),
            ("99g.1gb", None),
        ] {
            assert_eq!(slices_of(profile), want, "{profile}");
        }
        assert_eq!(profile_in("NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb").as_deref(), Some("1c.3g.40gb"));
        assert_eq!(profile_in("NVIDIA H100 80GB HBM3"), None);
    }

    #[test]
    fn a_sampler_can_go_to_a_thread_of_its_own() {
        fn goes<T: Send>() {}
        goes::<Sampler>();
        goes::<crate::recording::Samples>();
    }

    #[test]
    fn sentinels_are_no_numbers() {
        for value in [u64::MAX, 1 << 63, (1 << 63) - 16, i64::MAX as u64, u64::from(u32::MAX)] {
            assert_eq!(possible(value, IMPOSSIBLE - 1), Err(Fail::Impossible), "{value}");
        }
        assert_eq!(possible(101, PERCENT_MAX), Err(Fail::Impossible));
        assert_eq!(possible(0, PERCENT_MAX), Ok(0));
    }
}
