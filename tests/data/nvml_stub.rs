//! A management library without a device: a script says what it answers. Tests build it with `rustc --crate-type cdylib`.
//!
//! The script is the file that `WEIR_NVML_SCRIPT` names, or `nvml.script` beside the library. It is read again whenever it was
//! replaced (write beside it and rename). A line is a word and its values; `#` begins a comment. Times are seconds: of a line
//! `time T`, or else since this process began; samples are stamped by the wall clock, or by `epoch US` plus that time.
//!
//! ```text
//! time 12.5                            stands still until the script is replaced
//! driver 580.82.07
//! init 9                               nvmlInit fails with this code
//! count 70                             devices that are claimed
//! gpu 0                                what follows is of this device, up to the next `gpu`
//! uuid GPU-1   name NVIDIA H100 80GB HBM3   pci 00000000:1A:00.0      (one word a line)
//! energy 1000 +700000 @5..             1000 at 5 s, then 700,000 more each second; the last line that holds now is asked
//! power 350000      busy 87      memory_total 85899345920      (see `value` calls below for the names)
//! process 4242 compute 1073741824 gi=1 ci=0 @2..30
//! use 4242 50 20 0 0 every=1 @2..30    sm, memory, encoder, decoder percent; or at=US for one sample
//! busy_samples 87 every=0.5
//! mig 1 @10..
//! instance 0 MIG-1 1g.10gb gi=7 ci=0 total=10737418240 used=0 @10..
//! gpm sm 45 gi=7                       percent or MiB a second; gi: of that instance
//! xid 79 @20                           happens once
//! lost @20..25      gone @20..25       off the bus; not counted any more
//! error nvmlDeviceGetPowerUsage 999 @5..8
//! hang nvmlDeviceGetPowerUsage 50      milliseconds
//! claim nvmlDeviceGetComputeRunningProcesses_v3 4000000000     never enough room
//! overrun nvmlDeviceGetComputeRunningProcesses_v3 5000         says that it wrote more than there was room for
//! ```
//! A number is decimal, `0x…`, `max` (2^64-1), `blank` (2^63-16) or `none` (2^32-1). A word that no line says is "not supported".
//! Who builds it can take functions away (see `build` in the tests of `crates/device`).
#![warn(unsafe_code)]
#![allow(non_snake_case, non_camel_case_types)]

#[expect(unsafe_code, reason = "a C library is written by pointers")]
mod library {
    use std::collections::{BTreeSet, HashMap};
    use std::ffi::{c_char, c_int, c_uint, c_void};
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;
    use std::sync::{Mutex, MutexGuard, OnceLock};
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    const NOT_SUPPORTED: c_uint = 3;
    const NOT_FOUND: c_uint = 6;
    const INVALID: c_uint = 2;
    const INSUFFICIENT: c_uint = 7;
    const TIMEOUT: c_uint = 10;
    const LOST: c_uint = 15;

    type Device = *mut c_void;

    /// One line of the script.
    struct Line {
        word: String,
        values: Vec<String>,
        /// All of it after the word, for texts.
        rest: String,
        from: f64,
        to: f64,
        rate: f64,
    }

    impl Line {
        fn parse(text: &str) -> Option<Line> {
            let text = text.split('#').next()?.trim();
            let (text, window) = text.split_once('@').map_or((text, ".."), |(text, window)| (text.trim(), window.trim()));
            let (from, to) = window.split_once("..").unwrap_or((window, ""));
            let mut words = text.split_whitespace();
            let word = words.next()?.to_string();
            let mut rate = 0.0;
            let mut values = Vec::new();
            for value in words {
                match value.strip_prefix('+').and_then(|text| text.parse().ok()) {
                    Some(found) => rate = found,
                    None => values.push(value.to_string()),
                }
            }
            let rest = text[word.len()..].trim().to_string();
            Some(Line { word, values, rest, from: from.parse().unwrap_or(0.0), to: to.parse().unwrap_or(f64::INFINITY), rate })
        }

        fn holds(&self, now: f64) -> bool {
            self.from <= now && now < self.to
        }

        fn number(&self, n: usize, now: f64) -> u64 {
            let base = self.values.get(n).map_or(0, |text| number(text));
            base.wrapping_add((self.rate * (now - self.from)) as u64)
        }

        /// The value of `name=value`.
        fn named(&self, name: &str) -> Option<&str> {
            self.values.iter().find_map(|value| value.strip_prefix(name)?.strip_prefix('='))
        }
    }

    fn number(text: &str) -> u64 {
        match text {
            "max" => u64::MAX,
            "blank" => (1 << 63) - 16,
            "none" => u64::from(u32::MAX),
            _ => match text.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).unwrap_or(0),
                None => text.parse().unwrap_or(0),
            },
        }
    }

    #[derive(Default)]
    struct State {
        /// Of the file that was read last.
        version: (i64, i64, u64, u64),
        path: Option<PathBuf>,
        head: Vec<Line>,
        gpus: Vec<Vec<Line>>,
        /// GPM's samples: of which device and instance.
        gpm: HashMap<usize, (usize, Option<u32>)>,
        last_gpm: usize,
        watched: BTreeSet<usize>,
        told: BTreeSet<(usize, u64, u64)>,
    }

    static STATE: Mutex<Option<State>> = Mutex::new(None);

    /// Where this library lies: the file of the mapping that this function is in.
    fn own_folder() -> Option<PathBuf> {
        let address = own_folder as *const () as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let line = maps.lines().find(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let hex = |text: &str| usize::from_str_radix(text, 16).unwrap_or(0);
            range.is_some_and(|(from, to)| (hex(from)..hex(to)).contains(&address))
        })?;
        let path = line.split_whitespace().nth(5)?;
        Some(PathBuf::from(path).parent()?.to_path_buf())
    }

    /// The state, by the script as it is now.
    fn state() -> MutexGuard<'static, Option<State>> {
        let mut guard = STATE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let state = guard.get_or_insert_with(|| State {
            path: std::env::var_os("WEIR_NVML_SCRIPT").map(PathBuf::from).or_else(|| Some(own_folder()?.join("nvml.script"))),
            ..State::default()
        });
        let Some(path) = &state.path else { return guard };
        let Ok(metadata) = std::fs::metadata(path) else { return guard };
        let version = (metadata.mtime(), metadata.mtime_nsec(), metadata.ino(), metadata.len());
        if version != state.version {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            state.version = version;
            (state.head, state.gpus) = (Vec::new(), Vec::new());
            for line in text.lines().filter_map(Line::parse) {
                if line.word == "gpu" {
                    state.gpus.push(Vec::new());
                } else {
                    state.gpus.last_mut().unwrap_or(&mut state.head).push(line);
                }
            }
        }
        guard
    }

    impl State {
        /// Seconds.
        fn now(&self) -> f64 {
            let pinned = self.head.iter().find(|line| line.word == "time").and_then(|line| line.values.first()?.parse().ok());
            pinned.unwrap_or_else(since_begin)
        }

        /// What the clock of the driver says at 0 s.
        fn epoch_us(&self) -> u64 {
            match self.head.iter().find(|line| line.word == "epoch") {
                Some(line) => line.number(0, 0.0),
                None if self.head.iter().any(|line| line.word == "time") => 1_764_291_723_000_000,
                None => {
                    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    (wall.as_micros() as u64).saturating_sub((since_begin() * 1e6) as u64)
                }
            }
        }

        fn line(&self, gpu: usize, word: &str) -> Option<&Line> {
            let now = self.now();
            self.gpus.get(gpu)?.iter().rev().find(|line| line.word == word && line.holds(now))
        }

        fn value(&self, gpu: usize, word: &str) -> Option<u64> {
            self.line(gpu, word).map(|line| line.number(0, self.now()))
        }

        fn lines<'a>(&'a self, gpu: usize, word: &'a str) -> impl Iterator<Item = &'a Line> {
            let now = self.now();
            self.gpus.get(gpu).into_iter().flatten().filter(move |line| line.word == word && line.holds(now))
        }

        /// The devices that are counted.
        fn present(&self) -> Vec<usize> {
            (0..self.gpus.len()).filter(|gpu| self.line(*gpu, "gone").is_none()).collect()
        }

        /// What the script says of a call besides its answer: `error`, `hang`, `claim`, `overrun`.
        fn said_of(&self, gpu: usize, what: &str, call: &str) -> Option<u64> {
            let now = self.now();
            let lines = self.gpus.get(gpu).unwrap_or(&self.head);
            let said =
                lines.iter().rev().find(|line| line.word == what && line.holds(now) && line.values.first().is_some_and(|v| v == call));
            said.map(|line| line.values.get(1).map_or(0, |text| number(text)))
        }
    }

    fn since_begin() -> f64 {
        /// How long ago the process began when it was first asked, and when that was.
        static ASKED: OnceLock<(f64, Instant)> = OnceLock::new();
        let (ago, asked) = ASKED.get_or_init(|| {
            let begun = || {
                let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
                stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse::<f64>().ok().map(|ticks| ticks / 100.0)
            };
            let up = || std::fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse::<f64>().ok();
            (up().unwrap_or(0.0) - begun().unwrap_or(0.0), Instant::now())
        });
        ago + asked.elapsed().as_secs_f64()
    }

    fn handle(gpu: usize, mig: Option<usize>) -> Device {
        ((gpu + 1) << 8 | mig.map_or(0, |mig| mig + 1)) as Device
    }

    /// Device and MIG device of a handle.
    fn of(device: Device) -> (usize, Option<usize>) {
        let raw = device as usize;
        ((raw >> 8).wrapping_sub(1), (raw & 255).checked_sub(1))
    }

    /// Does what every call does first. `Err`: it fails with this.
    fn enter(device: Device, call: &str) -> Result<(MutexGuard<'static, Option<State>>, usize, Option<usize>), c_uint> {
        let (gpu, mig) = of(device);
        let mut guard = state();
        let hang = guard.as_ref().and_then(|state| state.said_of(gpu, "hang", call));
        if let Some(ms) = hang {
            drop(guard);
            std::thread::sleep(Duration::from_millis(ms));
            guard = state();
        }
        let state = guard.as_ref().ok_or(INVALID)?;
        if gpu >= state.gpus.len() {
            return Err(INVALID);
        }
        if state.line(gpu, "lost").is_some() || state.line(gpu, "gone").is_some() {
            return Err(LOST);
        }
        if let Some(code) = state.said_of(gpu, "error", call) {
            return Err(code as c_uint);
        }
        if let Some(mig) = mig
            && instance(state, gpu, mig).is_none()
        {
            return Err(NOT_FOUND);
        }
        Ok((guard, gpu, mig))
    }

    fn instance(state: &State, gpu: usize, index: usize) -> Option<&Line> {
        state.lines(gpu, "instance").find(|line| line.values.first().is_some_and(|text| number(text) == index as u64))
    }

    fn put_text(text: &str, at: *mut c_char, room: c_uint) -> c_uint {
        if at.is_null() || room as usize <= text.len() {
            return INSUFFICIENT;
        }
        for (n, byte) in text.bytes().chain([0]).enumerate() {
            unsafe { at.add(n).write(byte as c_char) };
        }
        0
    }

    fn code(answer: Result<(), c_uint>) -> c_uint {
        answer.err().unwrap_or(0)
    }

    /// Writes what a word of the script says.
    fn answer<T: TryFrom<u64>>(device: Device, call: &str, word: &str, out: *mut T) -> c_uint {
        code(enter(device, call).and_then(|(guard, gpu, _)| {
            let state = guard.as_ref().ok_or(INVALID)?;
            let value = state.value(gpu, word).ok_or(NOT_SUPPORTED)?;
            // Narrowed as C does.
            let value = T::try_from(value).or_else(|_| T::try_from(value & 0xffff_ffff)).map_err(|_| INVALID)?;
            unsafe { out.write(value) };
            Ok(())
        }))
    }

    /// Writes a list into the room that there is.
    fn put_list<T: Copy>(state: &State, gpu: usize, call: &str, all: &[T], len: *mut c_uint, at: *mut T) -> Result<(), c_uint> {
        let room = unsafe { len.read() } as usize;
        if let Some(claim) = state.said_of(gpu, "claim", call) {
            unsafe { len.write(claim as c_uint) };
            return Err(INSUFFICIENT);
        }
        unsafe { len.write(all.len() as c_uint) };
        if at.is_null() || room < all.len() {
            return if all.is_empty() { Ok(()) } else { Err(INSUFFICIENT) };
        }
        for (n, one) in all.iter().enumerate() {
            unsafe { at.add(n).write(*one) };
        }
        if let Some(more) = state.said_of(gpu, "overrun", call) {
            unsafe { len.write(more as c_uint) };
        }
        Ok(())
    }

    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct ProcessInfo {
        pid: c_uint,
        memory: u64,
        gpu_instance: c_uint,
        compute_instance: c_uint,
    }

    fn processes(device: Device, call: &str, kind: &str, len: *mut c_uint, at: *mut ProcessInfo) -> c_uint {
        code(enter(device, call).and_then(|(guard, gpu, mig)| {
            let state = guard.as_ref().ok_or(INVALID)?;
            let id = |line: &Line, name: &str| line.named(name).map_or(u32::MAX, |text| number(text) as u32);
            let of_mig = mig.and_then(|mig| instance(state, gpu, mig)).map(|line| id(line, "gi"));
            let all: Vec<ProcessInfo> = state
                .lines(gpu, "process")
                .filter(|line| line.values.get(1).is_some_and(|text| text == kind))
                .map(|line| ProcessInfo {
                    pid: line.number(0, 0.0) as u32,
                    memory: line.values.get(2).map_or(u64::MAX, |text| number(text)),
                    gpu_instance: id(line, "gi"),
                    compute_instance: id(line, "ci"),
                })
                .filter(|info| of_mig.is_none_or(|of| of == info.gpu_instance))
                .collect();
            put_list(state, gpu, call, &all, len, at)
        }))
    }

    /// Ends of the periods of a line with `every=`, in microseconds, later than `since` and not later than now; or its `at=`.
    fn stamps(state: &State, line: &Line, since: u64) -> Vec<u64> {
        const KEPT: u64 = 100;
        if let Some(at) = line.named("at") {
            return vec![number(at)];
        }
        let (epoch, now) = (state.epoch_us(), state.now());
        let every = line.named("every").and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0).max(0.001);
        let last = (now.min(line.to) / every).floor() as u64;
        let first = ((line.from / every).floor() as u64 + 1).max(last.saturating_sub(KEPT - 1));
        (first..=last).map(|n| epoch + (n as f64 * every * 1e6).round() as u64).filter(|at| *at > since).collect()
    }

    /// The lines of samples that are or have been.
    fn past<'a>(state: &'a State, gpu: usize, word: &'a str) -> impl Iterator<Item = &'a Line> {
        let now = state.now();
        state.gpus.get(gpu).into_iter().flatten().filter(move |line| line.word == word && line.from <= now)
    }

    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct Used {
        pid: c_uint,
        at_us: u64,
        percent: [c_uint; 4],
    }

    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct Sample {
        at_us: u64,
        value: u64,
    }

    #[repr(C)]
    pub struct Field {
        id: c_uint,
        scope: c_uint,
        at: i64,
        latency: i64,
        kind: c_uint,
        code: c_uint,
        value: u64,
    }

    #[repr(C)]
    pub struct Memory {
        version: c_uint,
        total: u64,
        reserved: u64,
        free: u64,
        used: u64,
    }

    #[repr(C)]
    pub struct Pci {
        legacy: [c_char; 16],
        numbers: [c_uint; 5],
        bus: [c_char; 32],
    }

    #[repr(C)]
    pub struct Attributes {
        counts: [c_uint; 6],
        gpu_slices: c_uint,
        compute_slices: c_uint,
        memory_mib: u64,
    }

    #[repr(C)]
    pub struct Metric {
        id: c_uint,
        code: c_uint,
        value: f64,
        names: [*mut c_char; 3],
    }

    #[repr(C)]
    pub struct Metrics {
        version: c_uint,
        len: c_uint,
        samples: [*mut c_void; 2],
        metrics: [Metric; 98],
    }

    #[repr(C)]
    pub struct Event {
        device: Device,
        kind: u64,
        data: u64,
        instances: [c_uint; 2],
    }

    /// Functions of the library, each knowing its name.
    macro_rules! functions {
        ($(fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block)*) => {
            $(
                #[unsafe(no_mangle)]
                pub unsafe extern "C" fn $name($($argument: $kind),*) -> c_uint {
                    #[allow(dead_code)]
                    const CALL: &str = stringify!($name);
                    $body
                }
            )*
        };
    }

    /// Functions that answer with one number: their word in the script.
    macro_rules! values {
        ($($name:ident $kind:ty = $word:literal)*) => {
            functions! { $(fn $name(device: Device, out: *mut $kind) { answer(device, CALL, $word, out) })* }
        };
    }

    values! {
        nvmlDeviceGetTotalEnergyConsumption u64 = "energy"
        nvmlDeviceGetPowerUsage c_uint = "power"
        nvmlDeviceGetCurrentClocksThrottleReasons u64 = "throttle"
        nvmlDeviceGetComputeMode c_uint = "compute_mode"
    }

    functions! {
        fn nvmlInit_v2() {
            let guard = state();
            let said = guard.as_ref().and_then(|state| state.head.iter().rev().find(|line| line.word == "init" && line.holds(state.now())));
            said.map_or(0, |line| line.number(0, 0.0) as c_uint)
        }

        fn nvmlShutdown() {
            let mut guard = state();
            if let Some(state) = guard.as_mut() {
                state.watched.clear();
            }
            0
        }

        fn nvmlSystemGetDriverVersion(at: *mut c_char, room: c_uint) {
            let guard = state();
            let said = guard.as_ref().and_then(|state| state.head.iter().find(|line| line.word == "driver"));
            put_text(said.map_or("580.82.07", |line| &line.rest), at, room)
        }

        fn nvmlDeviceGetCount_v2(out: *mut c_uint) {
            let guard = state();
            let Some(state) = guard.as_ref() else { return INVALID };
            if let Some(code) = state.said_of(usize::MAX, "error", CALL) {
                return code as c_uint;
            }
            let claimed = state.head.iter().find(|line| line.word == "count").map(|line| line.number(0, 0.0) as c_uint);
            unsafe { out.write(claimed.unwrap_or(state.present().len() as c_uint)) };
            0
        }

        fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut Device) {
            let guard = state();
            let Some(gpu) = guard.as_ref().and_then(|state| state.present().get(index as usize).copied()) else { return INVALID };
            drop(guard);
            code(enter(handle(gpu, None), CALL).map(|_| unsafe { out.write(handle(gpu, None)) }))
        }

        fn nvmlDeviceGetUUID(device: Device, at: *mut c_char, room: c_uint) {
            code(enter(device, CALL).and_then(|(guard, gpu, mig)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                let of_mig = mig.and_then(|mig| instance(state, gpu, mig)).and_then(|line| line.values.get(1).cloned());
                let uuid = of_mig.or_else(|| state.line(gpu, "uuid").map(|line| line.rest.clone()));
                match put_text(&uuid.unwrap_or_else(|| format!("GPU-stub-{gpu}")), at, room) {
                    0 => Ok(()),
                    code => Err(code),
                }
            }))
        }

        fn nvmlDeviceGetName(device: Device, at: *mut c_char, room: c_uint) {
            code(enter(device, CALL).and_then(|(guard, gpu, mig)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                let name = state.line(gpu, "name").map_or("NVIDIA H100 80GB HBM3", |line| &line.rest);
                let profile = mig.and_then(|mig| instance(state, gpu, mig)).and_then(|line| line.values.get(2));
                let name = profile.map_or(name.to_string(), |profile| format!("{name} MIG {profile}"));
                match put_text(&name, at, room) {
                    0 => Ok(()),
                    code => Err(code),
                }
            }))
        }

        fn nvmlDeviceGetPciInfo_v3(device: Device, out: *mut Pci) {
            code(enter(device, CALL).and_then(|(guard, gpu, _)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                let bus = state.line(gpu, "pci").map_or(format!("00000000:{:02X}:00.0", gpu + 26), |line| line.rest.clone());
                match put_text(&bus, unsafe { (&raw mut (*out).bus).cast() }, 32) {
                    0 => Ok(()),
                    code => Err(code),
                }
            }))
        }

        fn nvmlDeviceGetUtilizationRates(device: Device, out: *mut [c_uint; 2]) {
            let memory = out.cast::<c_uint>().wrapping_add(1);
            match answer(device, CALL, "busy", out.cast::<c_uint>()) {
                0 => match answer(device, CALL, "busy_memory", memory) {
                    NOT_SUPPORTED => {
                        unsafe { memory.write(0) };
                        0
                    }
                    code => code,
                },
                code => code,
            }
        }

        fn nvmlDeviceGetEncoderUtilization(device: Device, out: *mut c_uint, period: *mut c_uint) {
            unsafe { period.write(166_000) };
            answer(device, CALL, "encoder", out)
        }

        fn nvmlDeviceGetDecoderUtilization(device: Device, out: *mut c_uint, period: *mut c_uint) {
            unsafe { period.write(166_000) };
            answer(device, CALL, "decoder", out)
        }

        fn nvmlDeviceGetMemoryInfo_v2(device: Device, out: *mut Memory) {
            code(enter(device, CALL).and_then(|(guard, gpu, mig)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                if unsafe { (*out).version } >> 24 != 2 {
                    return Err(25);
                }
                let of_mig = mig.and_then(|mig| instance(state, gpu, mig));
                let word = |mig_word: &str, word: &str| match of_mig {
                    Some(line) => line.named(mig_word).map(number),
                    None => state.value(gpu, word),
                };
                let total = word("total", "memory_total").ok_or(NOT_SUPPORTED)?;
                let used = word("used", "memory_used").unwrap_or(0);
                let reserved = word("reserved", "memory_reserved").unwrap_or(0);
                let free = word("free", "memory_free").unwrap_or(total.wrapping_sub(used).wrapping_sub(reserved));
                unsafe { ((*out).total, (*out).used, (*out).free, (*out).reserved) = (total, used, free, reserved) };
                Ok(())
            }))
        }

        fn nvmlDeviceGetClockInfo(device: Device, kind: c_uint, out: *mut c_uint) {
            answer(device, CALL, if kind == 2 { "memory_mhz" } else { "sm_mhz" }, out)
        }

        fn nvmlDeviceGetTemperature(device: Device, _sensor: c_uint, out: *mut c_uint) {
            answer(device, CALL, "temperature", out)
        }

        fn nvmlDeviceGetTotalEccErrors(device: Device, error: c_uint, counter: c_uint, out: *mut u64) {
            let words = [["ecc_corrected", "ecc_corrected_life"], ["ecc_uncorrected", "ecc_uncorrected_life"]];
            answer(device, CALL, words[(error & 1) as usize][(counter & 1) as usize], out)
        }

        fn nvmlDeviceGetRetiredPages(device: Device, cause: c_uint, len: *mut c_uint, _at: *mut u64) {
            match answer(device, CALL, if cause == 0 { "retired_single" } else { "retired_double" }, len) {
                0 if unsafe { len.read() } > 0 => INSUFFICIENT,
                code => code,
            }
        }

        fn nvmlDeviceGetRemappedRows(
            device: Device,
            corrected: *mut c_uint,
            uncorrected: *mut c_uint,
            pending: *mut c_uint,
            failed: *mut c_uint,
        ) {
            code(enter(device, CALL).and_then(|(guard, gpu, _)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                let word = |word: &str| state.value(gpu, word).map(|value| value as c_uint);
                unsafe {
                    corrected.write(word("remapped_corrected").ok_or(NOT_SUPPORTED)?);
                    uncorrected.write(word("remapped_uncorrected").unwrap_or(0));
                    pending.write(0);
                    failed.write(word("remap_failed").unwrap_or(0));
                }
                Ok(())
            }))
        }

        fn nvmlDeviceGetPcieThroughput(device: Device, counter: c_uint, out: *mut c_uint) {
            answer(device, CALL, if counter == 0 { "pcie_throughput_tx" } else { "pcie_throughput_rx" }, out)
        }

        fn nvmlDeviceGetFieldValues(device: Device, len: c_int, at: *mut Field) {
            code(enter(device, CALL).and_then(|(guard, gpu, _)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                if len <= 0 || at.is_null() {
                    return Err(INVALID);
                }
                for field in unsafe { std::slice::from_raw_parts_mut(at, len as usize) } {
                    let word = match (field.id, field.scope) {
                        (82, _) => "memory_temperature",
                        (138, u32::MAX) => "nvlink_tx",
                        (139, u32::MAX) => "nvlink_rx",
                        (197, _) => "pcie_tx_bytes",
                        (198, _) => "pcie_rx_bytes",
                        _ => "no such field",
                    };
                    match state.value(gpu, word) {
                        Some(value) => (field.code, field.kind, field.value) = (0, 3, value),
                        None => field.code = NOT_SUPPORTED,
                    }
                }
                Ok(())
            }))
        }

        fn nvmlDeviceGetSamples(device: Device, kind: c_uint, since: u64, value_kind: *mut c_uint, len: *mut c_uint, at: *mut Sample) {
            code(enter(device, CALL).and_then(|(guard, gpu, _)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                if kind != 1 || state.value(gpu, "mig") == Some(1) || state.line(gpu, "busy_samples").is_none() {
                    return Err(NOT_SUPPORTED);
                }
                unsafe { value_kind.write(1) };
                let samples = past(state, gpu, "busy_samples").flat_map(|line| {
                    let value = line.number(0, 0.0);
                    stamps(state, line, since).into_iter().map(move |at_us| Sample { at_us, value })
                });
                let all: Vec<Sample> = samples.collect();
                if all.is_empty() {
                    return Err(NOT_FOUND);
                }
                put_list(state, gpu, CALL, &all, len, at)
            }))
        }

        fn nvmlDeviceGetProcessUtilization(device: Device, at: *mut Used, len: *mut c_uint, since: u64) {
            code(enter(device, CALL).and_then(|(guard, gpu, _)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                if state.value(gpu, "mig") == Some(1) {
                    return Err(NOT_SUPPORTED);
                }
                let used = past(state, gpu, "use").flat_map(|line| {
                    let percent = std::array::from_fn(|n| line.values.get(n + 1).map_or(0, |text| number(text) as c_uint));
                    let pid = line.number(0, 0.0) as c_uint;
                    stamps(state, line, since).into_iter().map(move |at_us| Used { pid, at_us, percent })
                });
                let all: Vec<Used> = used.collect();
                if all.is_empty() {
                    return Err(NOT_FOUND);
                }
                put_list(state, gpu, CALL, &all, len, at)
            }))
        }

        fn nvmlDeviceGetComputeRunningProcesses_v3(device: Device, len: *mut c_uint, at: *mut ProcessInfo) {
            processes(device, CALL, "compute", len, at)
        }

        fn nvmlDeviceGetGraphicsRunningProcesses_v3(device: Device, len: *mut c_uint, at: *mut ProcessInfo) {
            processes(device, CALL, "graphics", len, at)
        }

        fn nvmlDeviceGetMPSComputeRunningProcesses_v3(device: Device, len: *mut c_uint, at: *mut ProcessInfo) {
            processes(device, CALL, "mps", len, at)
        }

        fn nvmlDeviceGetMigMode(device: Device, now: *mut c_uint, pending: *mut c_uint) {
            match answer(device, CALL, "mig", now) {
                0 => {
                    unsafe { pending.write(now.read()) };
                    0
                }
                code => code,
            }
        }

        fn nvmlDeviceGetMaxMigDeviceCount(device: Device, out: *mut c_uint) {
            match answer(device, CALL, "mig_max", out) {
                NOT_SUPPORTED => {
                    unsafe { out.write(7) };
                    0
                }
                code => code,
            }
        }

        fn nvmlDeviceGetMigDeviceHandleByIndex(device: Device, index: c_uint, out: *mut Device) {
            code(enter(device, CALL).and_then(|(guard, gpu, _)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                instance(state, gpu, index as usize).ok_or(NOT_FOUND)?;
                unsafe { out.write(handle(gpu, Some(index as usize))) };
                Ok(())
            }))
        }

        fn nvmlDeviceGetGpuInstanceId(device: Device, out: *mut c_uint) {
            code(named(device, CALL, "gi").map(|id| unsafe { out.write(id) }))
        }

        fn nvmlDeviceGetComputeInstanceId(device: Device, out: *mut c_uint) {
            code(named(device, CALL, "ci").map(|id| unsafe { out.write(id) }))
        }

        fn nvmlDeviceGetAttributes_v2(device: Device, out: *mut Attributes) {
            code(enter(device, CALL).and_then(|(guard, gpu, mig)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                let line = mig.and_then(|mig| instance(state, gpu, mig)).ok_or(NOT_SUPPORTED)?;
                let slices = line.named("slices").map_or(0, number) as c_uint;
                let total = line.named("total").map_or(0, number);
                let out = unsafe { &mut *out };
                (out.gpu_slices, out.compute_slices, out.memory_mib) = (slices, slices, total >> 20);
                Ok(())
            }))
        }

        fn nvmlGpmQueryDeviceSupport(device: Device, out: *mut [c_uint; 2]) {
            code(enter(device, CALL).and_then(|(guard, gpu, _)| {
                let state = guard.as_ref().ok_or(INVALID)?;
                unsafe { (*out)[1] = c_uint::from(past(state, gpu, "gpm").next().is_some()) };
                Ok(())
            }))
        }

        fn nvmlGpmSampleAlloc(out: *mut *mut c_void) {
            let mut guard = state();
            let Some(state) = guard.as_mut() else { return INVALID };
            state.last_gpm += 1;
            state.gpm.insert(state.last_gpm, (usize::MAX, None));
            unsafe { out.write(state.last_gpm as *mut c_void) };
            0
        }

        fn nvmlGpmSampleFree(sample: *mut c_void) {
            let mut guard = state();
            let freed = guard.as_mut().and_then(|state| state.gpm.remove(&(sample as usize)));
            if freed.is_some() { 0 } else { INVALID }
        }

        fn nvmlGpmSampleGet(device: Device, sample: *mut c_void) {
            code(gpm_sample(device, CALL, None, sample))
        }

        fn nvmlGpmMigSampleGet(device: Device, instance: c_uint, sample: *mut c_void) {
            code(gpm_sample(device, CALL, Some(instance), sample))
        }

        fn nvmlGpmMetricsGet(out: *mut Metrics) {
            let guard = state();
            let Some(state) = guard.as_ref() else { return INVALID };
            let out = unsafe { &mut *out };
            let of = out.samples.map(|sample| state.gpm.get(&(sample as usize)).copied());
            let [Some(one), Some((gpu, instance))] = of else { return INVALID };
            if one != (gpu, instance) || out.len > 98 {
                return INVALID;
            }
            let names = [
                (1, "graphics"), (2, "sm"), (3, "sm_occupancy"), (5, "tensor"), (10, "dram"),
                (20, "pcie_tx"), (21, "pcie_rx"), (60, "nvlink_rx"), (61, "nvlink_tx"),
            ];
            for metric in &mut out.metrics[..out.len as usize] {
                let name = names.iter().find(|(id, _)| *id == metric.id).map_or("no such metric", |(_, name)| name);
                let is_it = |line: &&Line| {
                    line.values.first().is_some_and(|word| word == name)
                        && line.named("gi").map(|text| number(text) as u32) == instance
                };
                match state.lines(gpu, "gpm").find(is_it).and_then(|line| line.values.get(1)?.parse().ok()) {
                    Some(value) => (metric.code, metric.value) = (0, value),
                    None => metric.code = NOT_SUPPORTED,
                }
            }
            0
        }

        fn nvmlEventSetCreate(out: *mut *mut c_void) {
            unsafe { out.write(1 as *mut c_void) };
            0
        }

        fn nvmlEventSetFree(_set: *mut c_void) {
            0
        }

        fn nvmlDeviceRegisterEvents(device: Device, _kinds: u64, _set: *mut c_void) {
            code(enter(device, CALL).and_then(|(mut guard, gpu, _)| {
                guard.as_mut().ok_or(INVALID)?.watched.insert(gpu);
                Ok(())
            }))
        }

        fn nvmlEventSetWait_v2(_set: *mut c_void, out: *mut Event, _timeout_ms: c_uint) {
            let mut guard = state();
            let Some(state) = guard.as_mut() else { return INVALID };
            let found = state.watched.iter().find_map(|gpu| {
                let happened = past(state, *gpu, "xid").map(|line| (*gpu, line.from.to_bits(), line.number(0, 0.0)));
                happened.into_iter().find(|event| !state.told.contains(event))
            });
            let Some(event) = found else { return TIMEOUT };
            state.told.insert(event);
            unsafe { out.write(Event { device: handle(event.0, None), kind: 8, data: event.2, instances: [u32::MAX; 2] }) };
            0
        }
    }

    /// The number of `name=` in the line of a MIG device.
    fn named(device: Device, call: &str, name: &str) -> Result<c_uint, c_uint> {
        let (guard, gpu, mig) = enter(device, call)?;
        let state = guard.as_ref().ok_or(INVALID)?;
        let line = mig.and_then(|mig| instance(state, gpu, mig)).ok_or(NOT_SUPPORTED)?;
        line.named(name).map(|text| number(text) as c_uint).ok_or(NOT_FOUND)
    }

    fn gpm_sample(device: Device, call: &str, instance: Option<u32>, sample: *mut c_void) -> Result<(), c_uint> {
        let (mut guard, gpu, _) = enter(device, call)?;
        let place = guard.as_mut().ok_or(INVALID)?.gpm.get_mut(&(sample as usize)).ok_or(INVALID)?;
        *place = (gpu, instance);
        Ok(())
    }
}
