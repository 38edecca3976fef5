//! Calls NVML. The one file with `unsafe`: what leaves it is checked values or a named failure.
//!
//! In: handles that the library gave. Out: numbers, texts and lists, never longer than the bound that stands beside the call, whatever
//! the driver claims. A symbol that the library lacks is [`Fail::Missing`] of the calls that need it and of no other.
//! The library is loaded, begun and ended by `nvml-wrapper`; calls go to the functions that it found, because its own lists are as long
//! as the driver says and its samples of GPM panic without their symbol.
#![expect(unsafe_code, reason = "calls of a C library that is loaded at run time")]

use super::PROCESSES_MAX;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings as sys;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, c_char, c_uint};
use std::mem::ManuallyDrop;
use std::path::Path;

/// Names under which the library is installed, best first.
const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];
const SAMPLES_MAX: usize = 4096;
/// Events that are taken at one look; the others wait for the next.
const EVENTS_MAX: usize = 256;
const TEXT_BYTES: usize = 128; // longest text of NVML is a device name of 96 bytes

/// Why a call gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// The library has no such function.
    Missing(&'static str),
    NotSupported,
    Lost,
    NotFound,
    NoPermission,
    Uninitialized,
    /// Nothing more is there.
    Timeout,
    Insufficient,
    /// More than the bound.
    TooMany,
    /// A number that cannot be: a sentinel, or beyond what is possible.
    Impossible,
    Unknown,
    Other(u32),
}

impl Fail {
    fn of(code: sys::nvmlReturn_t) -> Fail {
        match code {
            sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED => Fail::Uninitialized,
            sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED => Fail::NotSupported,
            sys::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION => Fail::NoPermission,
            sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND => Fail::NotFound,
            sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE => Fail::Insufficient,
            sys::nvmlReturn_enum_NVML_ERROR_TIMEOUT => Fail::Timeout,
            sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST => Fail::Lost,
            sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN => Fail::Unknown,
            code => Fail::Other(code),
        }
    }

    /// As it stands among the faults of a reading.
    pub fn word(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Fail::Missing(_) => "missing_symbol",
            Fail::NotSupported => "not_supported",
            Fail::Lost => "gpu_lost",
            Fail::NotFound => "not_found",
            Fail::NoPermission => "no_permission",
            Fail::Uninitialized => "uninitialized",
            Fail::Timeout => "timeout",
            Fail::Insufficient => "insufficient_size",
            Fail::TooMany => "too_many",
            Fail::Impossible => "impossible_value",
            Fail::Unknown => "unknown",
            Fail::Other(sys::nvmlReturn_enum_NVML_ERROR_NO_DATA) => "no_data",
            Fail::Other(sys::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED) => "reset_required",
            Fail::Other(sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED) => "driver_not_loaded",
            Fail::Other(code) => return Cow::Owned(format!("error_{code}")),
        })
    }
}

/// A device or a MIG device, as the library names it. It is good until the library is closed; a stale one gets an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handle(usize);

impl Handle {
    fn raw(self) -> sys::nvmlDevice_t {
        self.0 as sys::nvmlDevice_t
    }

    fn of(raw: sys::nvmlDevice_t) -> Result<Handle, Fail> {
        if raw.is_null() { Err(Fail::Impossible) } else { Ok(Handle(raw as usize)) }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub total: u64,
    pub used: u64,
    pub free: u64,
    pub reserved: u64,
}

/// Which list of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Compute,
    Graphics,
    Mps,
}

#[derive(Clone, Copy, Debug)]
pub struct Running {
    pub pid: u32,
    /// None: the driver does not tell.
    pub memory: Option<u64>,
    pub gpu_instance: Option<u32>,
    pub compute_instance: Option<u32>,
}

/// Numbers that have no function of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    MemoryTemperature,
    /// KiB, all links together.
    NvlinkTx,
    NvlinkRx,
    /// Bytes; may wrap.
    PcieTx,
    PcieRx,
}

impl Field {
    fn id(self) -> u32 {
        use sys::field_id::*;
        match self {
            Field::MemoryTemperature => NVML_FI_DEV_MEMORY_TEMP,
            Field::NvlinkTx => NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
            Field::NvlinkRx => NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
            Field::PcieTx => NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
            Field::PcieRx => NVML_FI_DEV_PCIE_COUNT_RX_BYTES,
        }
    }

    /// All links, where a field is of links.
    fn scope(self) -> u32 {
        if matches!(self, Field::NvlinkTx | Field::NvlinkRx) { u32::MAX } else { 0 }
    }
}

/// What GPM tells: its number, our name, and whether it is percent (or else MiB a second).
/// <https://docs.nvidia.com/deploy/nvml-api/group__nvmlGpmEnums.html>
const METRICS: [(u32, &str, bool); 10] = [
    (sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_GRAPHICS_UTIL, "graphics", true),
    (sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL, "sm", true),
    (sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_OCCUPANCY, "sm_occupancy", true),
    (sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL, "tensor", true),
    (sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL, "dram", true),
    (sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_TX_PER_SEC, "pcie_tx", false),
    (sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_RX_PER_SEC, "pcie_rx", false),
    (sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC, "nvlink_tx", false),
    (sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, "nvlink_rx", false),
    (sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP16_UTIL, "fp16", true),
];
const MIB: f64 = 1_048_576.0;

pub struct Library {
    nvml: ManuallyDrop<Nvml>,
    processes: Vec<sys::nvmlProcessInfo_t>,
    uses: Vec<sys::nvmlProcessUtilizationSample_t>,
    samples: Vec<sys::nvmlSample_t>,
    /// Two of GPM's samples for each device and GPU instance: the last one, and the one to be filled next.
    gpm: BTreeMap<(Handle, Option<u32>), Pair>,
    events: Option<usize>,
}

#[derive(Default)]
struct Pair {
    samples: [usize; 2],
    /// Which of them is filled.
    last: Option<usize>,
}

/// Calls a function of the library, if it has it.
macro_rules! call {
    ($library:expr, $symbol:ident($($argument:expr),* $(,)?)) => {
        match $library.nvml.lib().$symbol.as_ref() {
            Err(_) => Err(Fail::Missing(stringify!($symbol))),
            // Sound: the signature is the binding's, pointers are to locals or to buffers as long as the count beside them says.
            Ok(symbol) => match unsafe { symbol($($argument),*) } {
                sys::nvmlReturn_enum_NVML_SUCCESS => Ok(()),
                code => Err(Fail::of(code)),
            },
        }
    };
}

impl Library {
    /// Loads and begins NVML. The error is a sentence's end: what went wrong.
    pub fn open(path: Option<&Path>) -> Result<Library, String> {
        let begin = |name: &OsStr| Nvml::builder().lib_path(name).init();
        let nvml = match path {
            Some(path) => begin(path.as_os_str()),
            None => begin(NAMES[0].as_ref()).or_else(|first| match first {
                NvmlError::LibloadingError(_) => begin(NAMES[1].as_ref()),
                other => Err(other),
            }),
        };
        let nvml = ManuallyDrop::new(nvml.map_err(|error| match error {
            NvmlError::FailedToLoadSymbol(_) => "it has no nvmlInit_v2: it is no NVML".to_string(),
            other => other.to_string(),
        })?);
        let (processes, uses, samples) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Library { nvml, processes, uses, samples, gpm: BTreeMap::new(), events: None })
    }

    /// Version of the driver; empty where it does not tell.
    pub fn driver(&self) -> String {
        text(|at, len| call!(self, nvmlSystemGetDriverVersion(at, len))).unwrap_or_default()
    }

    pub fn count(&self) -> Result<u32, Fail> {
        number(|out| call!(self, nvmlDeviceGetCount_v2(out)))
    }

    pub fn by_index(&self, index: u32) -> Result<Handle, Fail> {
        let mut raw = std::ptr::null_mut();
        call!(self, nvmlDeviceGetHandleByIndex_v2(index, &mut raw))?;
        Handle::of(raw)
    }

    pub fn uuid(&self, device: Handle) -> Result<String, Fail> {
        text(|at, len| call!(self, nvmlDeviceGetUUID(device.raw(), at, len)))
    }

    pub fn name(&self, device: Handle) -> Result<String, Fail> {
        text(|at, len| call!(self, nvmlDeviceGetName(device.raw(), at, len)))
    }

    pub fn pci(&self, device: Handle) -> Result<String, Fail> {
        // Sound: the struct is numbers and bytes.
        let mut info: sys::nvmlPciInfo_t = unsafe { std::mem::zeroed() };
        call!(self, nvmlDeviceGetPciInfo_v3(device.raw(), &mut info))?;
        Ok(until_nul(&info.busId))
    }

    pub fn energy_mj(&self, device: Handle) -> Result<u64, Fail> {
        wide(|out| call!(self, nvmlDeviceGetTotalEnergyConsumption(device.raw(), out)))
    }

    pub fn power_mw(&self, device: Handle) -> Result<u32, Fail> {
        number(|out| call!(self, nvmlDeviceGetPowerUsage(device.raw(), out)))
    }

    /// Percent of time in which a kernel ran, in which memory was used.
    pub fn busy(&self, device: Handle) -> Result<(u32, u32), Fail> {
        let mut out = sys::nvmlUtilization_t { gpu: 0, memory: 0 };
        call!(self, nvmlDeviceGetUtilizationRates(device.raw(), &mut out))?;
        Ok((out.gpu, out.memory))
    }

    pub fn busy_encoder(&self, device: Handle) -> Result<u32, Fail> {
        let mut period = 0;
        number(|out| call!(self, nvmlDeviceGetEncoderUtilization(device.raw(), out, &mut period)))
    }

    pub fn busy_decoder(&self, device: Handle) -> Result<u32, Fail> {
        let mut period = 0;
        number(|out| call!(self, nvmlDeviceGetDecoderUtilization(device.raw(), out, &mut period)))
    }

    pub fn memory(&self, device: Handle) -> Result<Memory, Fail> {
        let version = std::mem::size_of::<sys::nvmlMemory_v2_t>() as u32 | 2 << 24; // NVML_STRUCT_VERSION(Memory, 2)
        let mut out = sys::nvmlMemory_v2_t { version, total: 0, reserved: 0, free: 0, used: 0 };
        call!(self, nvmlDeviceGetMemoryInfo_v2(device.raw(), &mut out))?;
        Ok(Memory { total: out.total, used: out.used, free: out.free, reserved: out.reserved })
    }

    pub fn sm_mhz(&self, device: Handle) -> Result<u32, Fail> {
        number(|out| call!(self, nvmlDeviceGetClockInfo(device.raw(), sys::nvmlClockType_enum_NVML_CLOCK_SM, out)))
    }

    pub fn memory_mhz(&self, device: Handle) -> Result<u32, Fail> {
        number(|out| call!(self, nvmlDeviceGetClockInfo(device.raw(), sys::nvmlClockType_enum_NVML_CLOCK_MEM, out)))
    }

    pub fn throttle(&self, device: Handle) -> Result<u64, Fail> {
        wide(|out| call!(self, nvmlDeviceGetCurrentClocksThrottleReasons(device.raw(), out)))
    }

    pub fn temperature(&self, device: Handle) -> Result<u32, Fail> {
        number(|out| call!(self, nvmlDeviceGetTemperature(device.raw(), sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU, out)))
    }

    pub fn ecc(&self, device: Handle, is_corrected: bool, is_life: bool) -> Result<u64, Fail> {
        let error = if is_corrected {
            sys::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED
        } else {
            sys::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        };
        let counter =
            if is_life { sys::nvmlEccCounterType_enum_NVML_AGGREGATE_ECC } else { sys::nvmlEccCounterType_enum_NVML_VOLATILE_ECC };
        wide(|out| call!(self, nvmlDeviceGetTotalEccErrors(device.raw(), error, counter, out)))
    }

    /// Pages retired for single-bit and for double-bit errors.
    pub fn retired_pages(&self, device: Handle) -> Result<(u32, u32), Fail> {
        let one = |cause| {
            let mut count: c_uint = 0;
            match call!(self, nvmlDeviceGetRetiredPages(device.raw(), cause, &mut count, std::ptr::null_mut())) {
                Ok(()) | Err(Fail::Insufficient) => Ok(count),
                Err(fail) => Err(fail),
            }
        };
        Ok((
            one(sys::nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS)?,
            one(sys::nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR)?,
        ))
    }

    /// Rows remapped for corrected and for uncorrected errors, and whether a remapping failed.
    pub fn remapped_rows(&self, device: Handle) -> Result<(u32, u32, bool), Fail> {
        let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
        call!(self, nvmlDeviceGetRemappedRows(device.raw(), &mut corrected, &mut uncorrected, &mut pending, &mut failed))?;
        Ok((corrected, uncorrected, failed != 0))
    }

    /// KiB a second over 20 ms, which the call waits for. `is_sent`: by the device.
    pub fn pcie_throughput(&self, device: Handle, is_sent: bool) -> Result<u32, Fail> {
        let counter = if is_sent {
            sys::nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_TX_BYTES
        } else {
            sys::nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_RX_BYTES
        };
        number(|out| call!(self, nvmlDeviceGetPcieThroughput(device.raw(), counter, out)))
    }

    pub fn compute_mode(&self, device: Handle) -> Result<&'static str, Fail> {
        let mode = number(|out| call!(self, nvmlDeviceGetComputeMode(device.raw(), out)))?;
        Ok(match mode {
            sys::nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT => "default",
            sys::nvmlComputeMode_enum_NVML_COMPUTEMODE_PROHIBITED => "prohibited",
            sys::nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_THREAD | sys::nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_PROCESS => {
                "exclusive"
            }
            _ => return Err(Fail::Impossible),
        })
    }

    /// Asks for several fields at once; answers stand in their order.
    pub fn fields<const N: usize>(&self, device: Handle, fields: [Field; N], wanted: [bool; N]) -> Result<[Result<u64, Fail>; N], Fail> {
        // Sound: the struct is numbers and a union of numbers.
        let mut asked: [sys::nvmlFieldValue_t; N] = unsafe { std::mem::zeroed() };
        let mut len = 0;
        for field in (0..N).filter(|n| wanted[*n]).map(|n| fields[n]) {
            (asked[len].fieldId, asked[len].scopeId) = (field.id(), field.scope());
            asked[len].nvmlReturn = sys::nvmlReturn_enum_NVML_ERROR_NO_DATA;
            len += 1;
        }
        call!(self, nvmlDeviceGetFieldValues(device.raw(), len as i32, asked.as_mut_ptr()))?;
        let mut answers = asked.iter();
        Ok(wanted.map(|is_wanted| match is_wanted.then(|| answers.next()).flatten() {
            Some(answer) if answer.nvmlReturn == sys::nvmlReturn_enum_NVML_SUCCESS => whole(answer.valueType, answer.value),
            Some(answer) => Err(Fail::of(answer.nvmlReturn)),
            None => Err(Fail::NotSupported),
        }))
    }

    /// The driver's samples of [`Library::busy`] that are later than `since_us`.
    pub fn busy_samples(&mut self, device: Handle, since_us: u64, mut each: impl FnMut(u64, Result<u64, Fail>)) -> Result<(), Fail> {
        let mut kind = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
        let blank = sys::nvmlSample_t { timeStamp: 0, sampleValue: sys::nvmlValue_t { ullVal: 0 } };
        let utilization = sys::nvmlSamplingType_enum_NVML_GPU_UTILIZATION_SAMPLES;
        let this = Calls { nvml: &self.nvml };
        let len = list(&mut self.samples, blank, SAMPLES_MAX, |at, len| {
            call!(this, nvmlDeviceGetSamples(device.raw(), utilization, since_us, &mut kind, len, at))
        })?;
        for sample in &self.samples[..len] {
            each(sample.timeStamp, whole(kind, sample.sampleValue));
        }
        Ok(())
    }

    /// Use by process, as the driver sampled it later than `since_us`.
    pub fn uses(&mut self, device: Handle, since_us: u64, mut each: impl FnMut(crate::reading::Use)) -> Result<(), Fail> {
        let blank = sys::nvmlProcessUtilizationSample_t { pid: 0, timeStamp: 0, smUtil: 0, memUtil: 0, encUtil: 0, decUtil: 0 };
        let this = Calls { nvml: &self.nvml };
        let len = list(&mut self.uses, blank, PROCESSES_MAX, |at, len| {
            call!(this, nvmlDeviceGetProcessUtilization(device.raw(), at, len, since_us))
        })?;
        for used in &self.uses[..len] {
            let (sm, memory, encoder, decoder) = (used.smUtil, used.memUtil, used.encUtil, used.decUtil);
            each(crate::reading::Use { pid: used.pid, at_us: used.timeStamp, sm, memory, encoder, decoder });
        }
        Ok(())
    }

    pub fn processes(&mut self, device: Handle, kind: Kind, mut each: impl FnMut(Running)) -> Result<(), Fail> {
        let blank = sys::nvmlProcessInfo_t { pid: 0, usedGpuMemory: 0, gpuInstanceId: 0, computeInstanceId: 0 };
        let this = Calls { nvml: &self.nvml };
        let device = device.raw();
        let len = list(&mut self.processes, blank, PROCESSES_MAX, |at, len| match kind {
            Kind::Compute => call!(this, nvmlDeviceGetComputeRunningProcesses_v3(device, len, at)),
            Kind::Graphics => call!(this, nvmlDeviceGetGraphicsRunningProcesses_v3(device, len, at)),
            Kind::Mps => call!(this, nvmlDeviceGetMPSComputeRunningProcesses_v3(device, len, at)),
        })?;
        let is_there = |id: &u32| *id != u32::MAX;
        for info in &self.processes[..len] {
            each(Running {
                pid: info.pid,
                memory: Some(info.usedGpuMemory).filter(|bytes| *bytes < super::IMPOSSIBLE),
                gpu_instance: Some(info.gpuInstanceId).filter(is_there),
                compute_instance: Some(info.computeInstanceId).filter(is_there),
            });
        }
        Ok(())
    }

    pub fn is_mig(&self, device: Handle) -> Result<bool, Fail> {
        let (mut now, mut pending) = (0, 0);
        call!(self, nvmlDeviceGetMigMode(device.raw(), &mut now, &mut pending))?;
        match now {
            0 | 1 => Ok(now == 1),
            _ => Err(Fail::Impossible),
        }
    }

    pub fn mig_count(&self, device: Handle) -> Result<u32, Fail> {
        number(|out| call!(self, nvmlDeviceGetMaxMigDeviceCount(device.raw(), out)))
    }

    pub fn mig(&self, device: Handle, index: u32) -> Result<Handle, Fail> {
        let mut raw = std::ptr::null_mut();
        call!(self, nvmlDeviceGetMigDeviceHandleByIndex(device.raw(), index, &mut raw))?;
        Handle::of(raw)
    }

    pub fn gpu_instance(&self, mig: Handle) -> Result<u32, Fail> {
        number(|out| call!(self, nvmlDeviceGetGpuInstanceId(mig.raw(), out)))
    }

    pub fn compute_instance(&self, mig: Handle) -> Result<u32, Fail> {
        number(|out| call!(self, nvmlDeviceGetComputeInstanceId(mig.raw(), out)))
    }

    /// Slices of the GPU instance and of the compute instance, and the memory in MiB.
    pub fn slices(&self, mig: Handle) -> Result<(u32, u32, u64), Fail> {
        // Sound: the struct is numbers.
        let mut out: sys::nvmlDeviceAttributes_t = unsafe { std::mem::zeroed() };
        call!(self, nvmlDeviceGetAttributes_v2(mig.raw(), &mut out))?;
        Ok((out.gpuInstanceSliceCount, out.computeInstanceSliceCount, out.memorySizeMB))
    }

    pub fn has_gpm(&self, device: Handle) -> Result<bool, Fail> {
        let mut out = sys::nvmlGpmSupport_t { version: sys::NVML_GPM_SUPPORT_VERSION, isSupportedDevice: 0 };
        call!(self, nvmlGpmQueryDeviceSupport(device.raw(), &mut out))?;
        Ok(out.isSupportedDevice == 1)
    }

    /// Takes a sample of GPM and tells what was between it and the one before; nothing at the first.
    ///
    /// `gpu_instance`: of a MIG device, else the whole device. What is no number that can be is left out.
    pub fn gpm(&mut self, device: Handle, gpu_instance: Option<u32>) -> Result<BTreeMap<String, f64>, Fail> {
        // What takes it must be able to give it back.
        if self.nvml.lib().nvmlGpmSampleFree.is_err() {
            return Err(Fail::Missing("nvmlGpmSampleFree"));
        }
        let key = (device, gpu_instance);
        if !self.gpm.contains_key(&key) {
            let pair = Pair { samples: [self.alloc()?, 0], last: None };
            self.gpm.insert(key, pair);
        }
        let spare = if self.gpm[&key].samples[1] == 0 { self.alloc() } else { Ok(0) };
        let pair = self.gpm.get_mut(&key).expect("it was put there");
        if pair.samples[1] == 0 {
            pair.samples[1] = spare?;
        }
        let this = Calls { nvml: &self.nvml };
        let next = pair.last.map_or(0, |last| 1 - last);
        let raw = |n: usize| pair.samples[n] as sys::nvmlGpmSample_t;
        match gpu_instance {
            Some(instance) => call!(this, nvmlGpmMigSampleGet(device.raw(), instance, raw(next))),
            None => call!(this, nvmlGpmSampleGet(device.raw(), raw(next))),
        }?;
        let found = match pair.last {
            Some(last) => this.metrics(raw(last), raw(next)),
            None => Ok(BTreeMap::new()),
        };
        pair.last = Some(next);
        found
    }

    /// Gives back what GPM needs for a device, of all instances that `keep` does not name.
    pub fn drop_gpm(&mut self, device: Handle, keep: impl Fn(Option<u32>) -> bool) {
        let gone: Vec<_> = self.gpm.keys().filter(|(of, instance)| *of == device && !keep(*instance)).copied().collect();
        for key in gone {
            let pair = self.gpm.remove(&key).expect("it is one of its keys");
            self.free(&pair);
        }
    }

    fn alloc(&self) -> Result<usize, Fail> {
        let mut raw = std::ptr::null_mut();
        call!(self, nvmlGpmSampleAlloc(&mut raw))?;
        if raw.is_null() { Err(Fail::Impossible) } else { Ok(raw as usize) }
    }

    fn free(&self, pair: &Pair) {
        for sample in pair.samples.into_iter().filter(|sample| *sample != 0) {
            let _ = call!(self, nvmlGpmSampleFree(sample as sys::nvmlGpmSample_t)); // nobody could do anything about it
        }
    }

    /// Asks to be told of critical errors (XID) of a device.
    pub fn watch(&mut self, device: Handle) -> Result<(), Fail> {
        for name in ["nvmlEventSetWait_v2", "nvmlEventSetFree"] {
            let lib = self.nvml.lib();
            let is_there = if name == "nvmlEventSetFree" { lib.nvmlEventSetFree.is_ok() } else { lib.nvmlEventSetWait_v2.is_ok() };
            if !is_there {
                return Err(Fail::Missing(name));
            }
        }
        if self.events.is_none() {
            let mut raw = std::ptr::null_mut();
            call!(self, nvmlEventSetCreate(&mut raw))?;
            self.events = Some(raw as usize).filter(|set| *set != 0);
        }
        let set = self.events.ok_or(Fail::Impossible)? as sys::nvmlEventSet_t;
        call!(self, nvmlDeviceRegisterEvents(device.raw(), u64::from(sys::nvmlEventTypeXidCriticalError), set))
    }

    /// Takes the errors that happened, without waiting for any.
    pub fn errors(&self, mut each: impl FnMut(Handle, u64)) -> Result<(), Fail> {
        let Some(set) = self.events else { return Ok(()) };
        for _ in 0..EVENTS_MAX {
            // Sound: the struct is numbers and a pointer.
            let mut event: sys::nvmlEventData_t = unsafe { std::mem::zeroed() };
            match call!(self, nvmlEventSetWait_v2(set as sys::nvmlEventSet_t, &mut event, 0)) {
                Ok(()) if event.eventType == u64::from(sys::nvmlEventTypeXidCriticalError) => {
                    if let Ok(device) = Handle::of(event.device) {
                        each(device, event.eventData);
                    }
                }
                Ok(()) => {}
                Err(Fail::Timeout) => return Ok(()),
                Err(fail) => return Err(fail),
            }
        }
        Ok(())
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        for pair in std::mem::take(&mut self.gpm).into_values() {
            self.free(&pair);
        }
        if let Some(set) = self.events.take() {
            let _ = call!(self, nvmlEventSetFree(set as sys::nvmlEventSet_t)); // nobody could do anything about it
        }
        // The wrapper panics where the function is missing; such a library stays open until the process ends.
        if self.nvml.lib().nvmlShutdown.is_ok() {
            // Sound: this is the last that is done with it.
            unsafe { ManuallyDrop::drop(&mut self.nvml) };
        }
    }
}

/// The library while one of its buffers is lent out.
struct Calls<'a> {
    nvml: &'a Nvml,
}

impl Calls<'_> {
    /// What GPM tells of the time between two samples; what it does not tell is not there.
    fn metrics(&self, from: sys::nvmlGpmSample_t, to: sys::nvmlGpmSample_t) -> Result<BTreeMap<String, f64>, Fail> {
        // Sound: the struct is numbers and pointers that are written by the library and never followed.
        let mut asked: sys::nvmlGpmMetricsGet_t = unsafe { std::mem::zeroed() };
        (asked.version, asked.numMetrics) = (sys::NVML_GPM_METRICS_GET_VERSION, METRICS.len() as u32);
        (asked.sample1, asked.sample2) = (from, to);
        for (metric, (id, _, _)) in asked.metrics.iter_mut().zip(METRICS) {
            (metric.metricId, metric.nvmlReturn) = (id, sys::nvmlReturn_enum_NVML_ERROR_NO_DATA);
        }
        call!(self, nvmlGpmMetricsGet(&mut asked))?;
        let mut found = BTreeMap::new();
        for (metric, (_, name, is_percent)) in asked.metrics.iter().zip(METRICS) {
            if metric.nvmlReturn != sys::nvmlReturn_enum_NVML_SUCCESS {
                continue;
            }
            // A share may be a little over 100 by rounding; NaN and sentinels are near neither.
            let value = if is_percent { metric.value / 100.0 } else { metric.value * MIB };
            let is_possible = value >= 0.0 && if is_percent { value <= 1.05 } else { value < 1e15 };
            if is_possible {
                found.insert(name.to_string(), if is_percent { value.min(1.0) } else { value });
            }
        }
        Ok(found)
    }
}

fn number(call: impl FnOnce(*mut c_uint) -> Result<(), Fail>) -> Result<u32, Fail> {
    let mut out = 0;
    call(&mut out)?;
    Ok(out)
}

fn wide(call: impl FnOnce(*mut u64) -> Result<(), Fail>) -> Result<u64, Fail> {
    let mut out = 0;
    call(&mut out)?;
    Ok(out)
}

fn text(call: impl FnOnce(*mut c_char, c_uint) -> Result<(), Fail>) -> Result<String, Fail> {
    let mut out = [0; TEXT_BYTES];
    call(out.as_mut_ptr(), TEXT_BYTES as c_uint)?;
    Ok(until_nul(&out))
}

/// Text of another's: up to its zero or the buffer's end, what is not UTF-8 replaced.
fn until_nul(text: &[c_char]) -> String {
    let bytes: Vec<u8> = text.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Fills a buffer, growing it to what the driver says it needs and never beyond `max`. Returns how many elements are good.
fn list<T: Copy>(
    buffer: &mut Vec<T>,
    blank: T,
    max: usize,
    mut call: impl FnMut(*mut T, &mut c_uint) -> Result<(), Fail>,
) -> Result<usize, Fail> {
    const FIRST: usize = 128; // enough for most devices, so one call does it
    const TRIES: usize = 4; // processes come between the calls
    if buffer.len() < FIRST {
        buffer.resize(FIRST, blank);
    }
    for _ in 0..TRIES {
        let mut len = buffer.len() as c_uint;
        match call(buffer.as_mut_ptr(), &mut len) {
            Ok(()) => return Ok((len as usize).min(buffer.len())),
            Err(Fail::NotFound) => return Ok(0), // no sample is later
            Err(Fail::Insufficient) if buffer.len() < max => {
                let claimed = (len as usize).saturating_add(len as usize / 4);
                buffer.resize(claimed.clamp(buffer.len() * 2, max), blank);
            }
            Err(Fail::Insufficient) => return Err(Fail::TooMany),
            Err(fail) => return Err(fail),
        }
    }
    Err(Fail::TooMany)
}

/// A value of several types as the whole number that it must be.
fn whole(kind: sys::nvmlValueType_t, value: sys::nvmlValue_t) -> Result<u64, Fail> {
    // Sound: every bit pattern is a value of each of these types.
    unsafe {
        match kind {
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => Ok(u64::from(value.uiVal)),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG => Ok(value.ulVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => Ok(value.ullVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => u64::try_from(value.sllVal).map_err(|_| Fail::Impossible),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => u64::try_from(value.siVal).map_err(|_| Fail::Impossible),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT => Ok(u64::from(value.usVal)),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE if (0.0..1e15).contains(&value.dVal) => Ok(value.dVal as u64),
            _ => Err(Fail::Impossible),
        }
    }
}
