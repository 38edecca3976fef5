//! What one look at the devices of a node gave.
//!
//! A sampler makes readings (NVML), a recording keeps them line by line, and everything else is made of them: metrics, usage facts,
//! `weir gpu top`. What a device does not tell, or not this time, is `None`; [`Gpu::faults`] says why. Numbers that cannot be (the
//! sentinels near 2^63 of fields that are not supported) never stand in a reading: the sampler makes them faults.

use flow::units::UnixNanos;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// When it was begun: wall clock, nanoseconds since 1970.
    pub at_ns: i64,
    /// The same by the monotonic clock of this boot, in nanoseconds: gaps are told by it, so a step of the wall clock is no usage.
    pub mono_ns: u64,
    /// Which boot that clock is of (`/proc/sys/kernel/random/boot_id`); empty where nobody says.
    #[serde(default)]
    pub boot: String,
    /// How long it took, in nanoseconds.
    #[serde(default)]
    pub took_ns: u64,
    /// Readings that should have been between this one and the one before, and were not made.
    #[serde(default)]
    pub missed: u64,
    pub gpus: Vec<Gpu>,
}

impl Reading {
    pub fn at(&self) -> UnixNanos {
        UnixNanos(self.at_ns)
    }
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    pub index: u32,
    /// As in `GPU-5fd4…`.
    pub uuid: String,
    /// As in `NVIDIA H100 80GB HBM3`.
    pub model: String,
    /// As in `00000000:1A:00.0`.
    pub pci: String,
    /// Fell off the bus, or cannot be asked: it has faults and nothing else but its names.
    pub is_lost: bool,
    /// Joules since the driver was loaded, in mJ: differences are energy, a drop is a reset.
    pub energy_mj: Option<u64>,
    pub power_mw: Option<u64>,
    /// Percent of the last period in which a kernel ran, and in which memory was read or written. None under MIG.
    pub busy: Option<u32>,
    pub busy_memory: Option<u32>,
    pub busy_encoder: Option<u32>,
    pub busy_decoder: Option<u32>,
    /// The driver's own samples of `busy` since the reading before: microseconds by the driver's clock, percent.
    pub busy_samples: Vec<(u64, u32)>,
    pub memory_total: Option<u64>,
    pub memory_used: Option<u64>,
    pub memory_free: Option<u64>,
    pub memory_reserved: Option<u64>,
    pub sm_mhz: Option<u32>,
    pub memory_mhz: Option<u32>,
    /// Bits of nvmlClocksThrottleReasons.
    pub throttle: Option<u64>,
    pub temperature: Option<u32>,
    pub memory_temperature: Option<u32>,
    /// Corrected and uncorrected errors since the driver was loaded, and over the device's life.
    pub ecc_corrected: Option<u64>,
    pub ecc_uncorrected: Option<u64>,
    pub ecc_corrected_life: Option<u64>,
    pub ecc_uncorrected_life: Option<u64>,
    /// Pages taken out of use for any error, and of those for repeated corrected and for uncorrected ones.
    pub retired_pages: Option<u64>,
    pub retired_corrected: Option<u64>,
    pub retired_uncorrected: Option<u64>,
    /// The same of rows of memory that others took the place of; and whether that ever failed.
    pub remapped_rows: Option<u64>,
    pub remapped_corrected: Option<u64>,
    pub remapped_uncorrected: Option<u64>,
    pub remap_failed: Option<bool>,
    /// The last critical error since the sampler began, 0 for none.
    pub xid: Option<u64>,
    /// Bytes a second.
    pub pcie_tx: Option<u64>,
    pub pcie_rx: Option<u64>,
    /// Bytes since the driver was loaded, all links together.
    pub nvlink_tx: Option<u64>,
    pub nvlink_rx: Option<u64>,
    /// Shares of the time between two looks that GPM tells (Hopper and newer), from 0 to 1, by name: `sm`, `graphics`, `tensor`, `dram`,
    /// and rates in bytes a second: `pcie_tx`, `pcie_rx`, `nvlink_tx`, `nvlink_rx`.
    pub gpm: BTreeMap<String, f64>,
    pub processes: Vec<Process>,
    /// Use by process since the reading before, as the driver sampled it. None under MIG.
    pub uses: Vec<Use>,
    pub mig_enabled: bool,
    pub migs: Vec<Mig>,
    /// Whom it was given to (kubelet). Empty: nobody, or nobody knows.
    pub given: Vec<Given>,
    /// The kubelet may give it, or a part of it, away. None: nobody was asked.
    pub allocatable: Option<bool>,
    /// Compute mode or sharing as the node says it: `default`, `exclusive`, `prohibited`.
    pub compute_mode: Option<String>,
    /// An MPS server runs on it.
    pub mps: bool,
    /// What could not be read, and why: `energy` -> `not_supported`.
    pub faults: BTreeMap<String, String>,
}

/// A MIG device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mig {
    /// As in `MIG-3f…`.
    pub uuid: String,
    /// As in `1g.10gb`.
    pub profile: String,
    pub gpu_instance: u32,
    pub compute_instance: u32,
    /// Compute slices of the instance, as the profile's first number says it.
    pub slices: u32,
    pub memory_total: Option<u64>,
    pub memory_used: Option<u64>,
    pub gpm: BTreeMap<String, f64>,
    pub given: Vec<Given>,
    pub faults: BTreeMap<String, String>,
}

/// A process that has the device open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub pid: u32,
    /// When it began, in clock ticks since boot: with the pid, its name. None: it is gone already.
    pub started: Option<u64>,
    /// Its command, as `/proc` has it.
    pub name: String,
    /// `compute`, `graphics` or `mps`.
    pub kind: String,
    /// Bytes of device memory.
    pub memory: Option<u64>,
    /// Under MIG.
    pub gpu_instance: Option<u32>,
    pub compute_instance: Option<u32>,
    pub owner: Option<Owner>,
}

/// What a process used in one of the driver's periods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Use {
    pub pid: u32,
    /// End of the period, in microseconds by the driver's clock.
    pub at_us: u64,
    /// Percent.
    pub sm: u32,
    pub memory: u32,
    pub encoder: u32,
    pub decoder: u32,
}

/// Whose something is. What is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    pub tenant: String,
    pub namespace: String,
    pub pod: String,
    pub pod_uid: String,
    pub container: String,
    pub container_id: String,
    pub service: String,
    pub model: String,
}

/// A device, a MIG device or a replica of one, and the container it was given to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Given {
    pub owner: Owner,
    /// It is one of several replicas (`UUID::N`): the device is shared in time.
    pub replica: Option<u32>,
    /// The claim, where it came by dynamic resource allocation.
    pub claim: Option<String>,
}
