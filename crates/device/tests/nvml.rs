//! The sampler against a library that a script drives: what it reads, what goes wrong, and how little of a reading that costs.
#![deny(unsafe_code)]

mod stub;

use device::nvml::{DEVICES_MAX, LOOK_AGAIN, MIGS_MAX, Sampler};
use device::reading::{Gpu, Reading};
use device::recording::{Head, Reader, Writer};
use flow::units::UnixNanos;
use std::path::Path;
use std::time::Instant;

/// The driver's clock at 0 s of a script: 2025-11-28T01:02:03Z.
const EPOCH_US: u64 = 1_764_291_723_000_000;

/// A whole device, busy with one process from 2 s on.
const H100: &str = "
gpu 0
uuid GPU-1
name NVIDIA H100 80GB HBM3
pci 00000000:1A:00.0
energy 1000000 +350000
power 350000
busy 87
busy_memory 40
encoder 1
decoder 2
busy_samples 87 every=0.5
memory_total 85899345920
memory_used 1073741824
memory_reserved 500000000
sm_mhz 1980
memory_mhz 2619
throttle 4
temperature 61
memory_temperature 70
ecc_corrected 1
ecc_uncorrected 2
ecc_corrected_life 3
ecc_uncorrected_life 4
retired_single 5
retired_double 6
remapped_corrected 7
remapped_uncorrected 8
compute_mode 0
nvlink_tx 1024
nvlink_rx 2048
pcie_tx_bytes 1000 +5000
pcie_rx_bytes 1000 +7000
mig 0
process 4242 compute 1073741824 @2..
use 4242 50 20 3 4 every=1 @2..
gpm sm 45
gpm tensor 12.5
gpm pcie_tx 2
";

struct Node {
    folder: tempfile::TempDir,
    text: String,
    sampler: Sampler,
}

impl Node {
    fn new(text: &str, without: &[&str]) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let path = stub::build(folder.path(), without);
        stub::script(folder.path(), &format!("time 0\n{text}"));
        let sampler = Sampler::open(Some(&path)).unwrap();
        Node { folder, text: text.to_string(), sampler }
    }

    fn at(&mut self, seconds: f64) -> Reading {
        stub::script(self.folder.path(), &format!("time {seconds}\n{}", self.text));
        let mono_ns = (seconds * 1e9) as u64 + 1_000_000_000_000;
        let at = UnixNanos(EPOCH_US as i64 * 1000 + (seconds * 1e9) as i64);
        self.sampler.sample(at, mono_ns)
    }

    fn gpu(&mut self, seconds: f64) -> Gpu {
        self.at(seconds).gpus.into_iter().next().expect("a device")
    }

    fn notes(&self) -> Vec<String> {
        self.sampler.notes().iter().map(|note| format!("{}: {}", note.what, note.why)).collect()
    }
}

#[test]
fn a_device_tells_all_that_it_has() {
    let mut node = Node::new(H100, &[]);
    assert_eq!(node.sampler.driver(), "580.82.07");
    let first = node.gpu(0.0);
    assert_eq!((first.uuid.as_str(), first.model.as_str(), first.pci.as_str()), ("GPU-1", "NVIDIA H100 80GB HBM3", "00000000:1A:00.0"));
    assert_eq!((first.energy_mj, first.power_mw, first.busy, first.busy_memory), (Some(1_000_000), Some(350_000), Some(87), Some(40)));
    assert!(first.processes.is_empty() && first.busy_samples.is_empty() && first.gpm.is_empty(), "{first:?}");
    let gpu = node.gpu(4.0);
    assert_eq!(gpu.energy_mj, Some(2_400_000));
    assert_eq!((gpu.busy_encoder, gpu.busy_decoder), (Some(1), Some(2)));
    assert_eq!((gpu.memory_total, gpu.memory_used, gpu.memory_reserved), (Some(85_899_345_920), Some(1_073_741_824), Some(500_000_000)));
    assert_eq!((gpu.sm_mhz, gpu.memory_mhz, gpu.throttle), (Some(1980), Some(2619), Some(4)));
    assert_eq!((gpu.temperature, gpu.memory_temperature), (Some(61), Some(70)));
    assert_eq!([gpu.ecc_corrected, gpu.ecc_uncorrected, gpu.ecc_corrected_life, gpu.ecc_uncorrected_life], [1, 2, 3, 4].map(Some));
    assert_eq!((gpu.retired_pages, gpu.remapped_rows, gpu.remap_failed), (Some(11), Some(15), Some(false)));
    assert_eq!((gpu.nvlink_tx, gpu.nvlink_rx), (Some(1 << 20), Some(2 << 20)));
    assert_eq!((gpu.pcie_tx, gpu.pcie_rx), (Some(5000), Some(7000)), "bytes a second between two readings");
    assert_eq!(gpu.compute_mode.as_deref(), Some("default"));
    assert_eq!((gpu.gpm["sm"], gpu.gpm["tensor"], gpu.gpm["pcie_tx"]), (0.45, 0.125, 2_097_152.0));
    assert_eq!(gpu.xid, Some(0));
    let process = &gpu.processes[0];
    assert_eq!((process.pid, process.kind.as_str(), process.memory, process.gpu_instance), (4242, "compute", Some(1 << 30), None));
    assert_eq!(gpu.faults, Default::default());
    assert!(node.notes().is_empty());
}

#[test]
fn the_samples_of_the_driver_come_once_each() {
    let mut node = Node::new(H100, &[]);
    node.gpu(0.0);
    let gpu = node.gpu(3.2);
    let ends: Vec<u64> = gpu.uses.iter().map(|used| used.at_us - EPOCH_US).collect();
    assert_eq!(ends, [3_000_000]);
    let used = &gpu.uses[0];
    assert_eq!((used.pid, used.sm, used.memory, used.encoder, used.decoder), (4242, 50, 20, 3, 4));
    assert_eq!(gpu.busy_samples.len(), 6, "every half second up to 3 s");
    assert_eq!(node.gpu(3.3).uses, []);
    let gpu = node.gpu(5.5);
    assert_eq!(gpu.uses.iter().map(|used| used.at_us - EPOCH_US).collect::<Vec<_>>(), [4_000_000, 5_000_000]);
    assert_eq!(gpu.busy_samples.first(), Some(&(EPOCH_US + 3_500_000, 87)));
}

#[test]
fn what_the_driver_sampled_before_the_first_reading_is_of_no_gap() {
    let mut node = Node::new(H100, &[]);
    let gpu = node.gpu(60.0);
    assert!(gpu.uses.is_empty() && gpu.busy_samples.is_empty());
    assert_eq!((gpu.faults["uses"].as_str(), gpu.faults["busy_samples"].as_str()), ("first_reading", "first_reading"));
    let gpu = node.gpu(61.0);
    assert_eq!((gpu.uses.len(), gpu.faults.len()), (1, 0));
}

#[test]
fn processes_come_and_go_and_one_in_two_lists_is_one() {
    let text = format!(
        "{H100}\nprocess 1 mps 10 @3..5\nprocess 1 compute 10 @3..5\nprocess 2 graphics 20\nprocess 2 compute 20 @6..\nprocess 0 compute 1\n"
    );
    let mut node = Node::new(&text, &[]);
    let mut at = |seconds| {
        let gpu = node.gpu(seconds);
        let all: Vec<String> = gpu.processes.iter().map(|process| format!("{} {}", process.pid, process.kind)).collect();
        (all.join(", "), gpu.mps)
    };
    assert_eq!(at(1.0), ("2 graphics".to_string(), false));
    assert_eq!(at(4.0), ("1 mps, 2 graphics, 4242 compute".to_string(), true));
    assert_eq!(at(6.0), ("2 compute, 4242 compute".to_string(), false));
}

#[test]
fn the_energy_counter_is_passed_on_when_it_begins_anew() {
    let mut node = Node::new(&format!("{H100}\nenergy 0 +350000 @10..\n"), &[]);
    assert_eq!(node.gpu(9.0).energy_mj, Some(4_150_000));
    assert_eq!(node.gpu(11.0).energy_mj, Some(350_000));
}

#[test]
fn a_missing_function_ends_one_reading_and_is_said_once() {
    let cases: [(&str, &str); 12] = [
        ("nvmlDeviceGetTotalEnergyConsumption", "energy"),
        ("nvmlDeviceGetPowerUsage", "power"),
        ("nvmlDeviceGetUtilizationRates", "busy"),
        ("nvmlDeviceGetSamples", "busy_samples"),
        ("nvmlDeviceGetProcessUtilization", "uses"),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "processes"),
        ("nvmlDeviceGetMPSComputeRunningProcesses_v3", "processes_mps"),
        ("nvmlDeviceGetMemoryInfo_v2", "memory"),
        ("nvmlDeviceGetFieldValues", "fields"),
        ("nvmlGpmSampleFree", "gpm"),
        ("nvmlEventSetWait_v2", "xid"),
        ("nvmlDeviceGetMigMode", "mig"),
    ];
    for (symbol, what) in cases {
        let mut node = Node::new(&format!("{H100}\ngpu 1\nuuid GPU-2\nenergy 1\n"), &[symbol]);
        node.at(1.0);
        let gpu = node.gpu(2.0);
        assert_eq!(node.notes(), [format!("{what}: the library has no {symbol}")], "{symbol}");
        assert_eq!(gpu.faults.get(what).map(String::as_str), Some("missing_symbol"), "{symbol}");
        assert!(!gpu.is_lost && gpu.temperature == Some(61), "{symbol}: {gpu:?}");
        let others: Vec<&String> = gpu.faults.keys().filter(|key| key.as_str() != what).collect();
        assert!(others.is_empty(), "{symbol} also ended {others:?}");
    }
}

#[test]
fn a_library_that_cannot_be_ended_is_kept_open() {
    let node = Node::new(H100, &["nvmlShutdown", "nvmlEventSetFree"]);
    drop(node);
}

#[test]
fn no_library_is_a_value_and_not_an_error_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libnvidia-ml.so");
    let absent = Sampler::open(Some(&path)).err().unwrap();
    assert!(absent.to_string().starts_with(&format!("cannot use NVML at {}: ", path.display())), "{absent}");
    std::fs::write(&path, "no library").unwrap();
    assert!(Sampler::open(Some(&path)).is_err());
    let path = stub::build(folder.path(), &["nvmlInit_v2"]);
    assert_eq!(Sampler::open(Some(&path)).err().unwrap().why, "it has no nvmlInit_v2: it is no NVML");
    let other = tempfile::tempdir().unwrap();
    let path = stub::build(other.path(), &[]);
    stub::script(other.path(), "init 9\n");
    assert_eq!(Sampler::open(Some(&path)).err().unwrap().why, "NVIDIA driver is not loaded");
    let none = Path::new("/nonexistent/libnvidia-ml.so");
    assert!(Sampler::open(Some(none)).is_err());
}

#[test]
fn what_one_device_does_not_support_is_asked_no_more_of_it() {
    let text = format!("{H100}\ngpu 1\nuuid GPU-2\nenergy 5\nerror nvmlDeviceGetPowerUsage 3 @0..1.5\npower 7\ntemperature 3\n");
    let mut node = Node::new(&text, &[]);
    node.at(1.0);
    let reading = node.at(2.0);
    assert_eq!(reading.gpus[0].power_mw, Some(350_000));
    assert_eq!((reading.gpus[1].power_mw, reading.gpus[1].faults["power"].as_str()), (None, "not_supported"));
    assert_eq!(reading.gpus[1].energy_mj, Some(5));
    assert!(node.notes().is_empty(), "{:?}", node.notes());
}

#[test]
fn other_errors_are_of_one_reading() {
    for (code, word) in [(999, "unknown"), (4, "no_permission"), (22, "error_22"), (21, "no_data"), (7, "insufficient_size")] {
        let mut node = Node::new(&format!("{H100}\nerror nvmlDeviceGetPowerUsage {code} @2..3\n"), &[]);
        assert_eq!(node.gpu(1.0).power_mw, Some(350_000));
        let gpu = node.gpu(2.0);
        assert_eq!((gpu.power_mw, gpu.faults["power"].as_str(), gpu.faults.len(), gpu.is_lost), (None, word, 1, false), "{code}");
        assert_eq!(node.gpu(3.0).power_mw, Some(350_000));
    }
}

#[test]
fn a_lost_device_is_skipped_and_found_again() {
    let text = format!("{H100}\nlost @2..5\ngpu 1\nuuid GPU-2\nenergy 7\ntemperature 1\n");
    let mut node = Node::new(&text, &[]);
    node.at(1.0);
    let lost = node.at(2.0);
    let gpu = &lost.gpus[0];
    assert!(gpu.is_lost && gpu.faults["device"] == "gpu_lost" && gpu.faults.len() == 1, "{gpu:?}");
    assert_eq!((gpu.uuid.as_str(), gpu.energy_mj, gpu.processes.len()), ("GPU-1", None, 0));
    assert_eq!((lost.gpus[1].energy_mj, lost.gpus[1].is_lost), (Some(7), false));
    let tries = (0..=LOOK_AGAIN).position(|n| !node.at(5.0 + n as f64).gpus[0].is_lost).expect("found again");
    assert!(tries as u64 <= LOOK_AGAIN);
    let gpu = node.gpu(30.0);
    assert_eq!((gpu.energy_mj, gpu.uses.is_empty()), (Some(11_500_000), false));
}

#[test]
fn a_device_that_is_not_counted_any_more_is_lost_and_a_new_one_is_found() {
    let text = format!(
        "{H100}\ngone @2..20\ngpu 1\nuuid GPU-2\nenergy 7\ntemperature 1\ngpu 2\nuuid GPU-3\ngone @0..2\nenergy 9\ntemperature 1\n"
    );
    let mut node = Node::new(&text, &[]);
    assert_eq!(node.at(1.0).gpus.len(), 2);
    (0..LOOK_AGAIN).for_each(|n| drop(node.at(2.0 + n as f64)));
    let reading = node.at(13.0);
    let state: Vec<(&str, bool)> = reading.gpus.iter().map(|gpu| (gpu.uuid.as_str(), gpu.is_lost)).collect();
    assert!(state.contains(&("GPU-1", true)) && state.contains(&("GPU-2", false)) && state.contains(&("GPU-3", false)), "{state:?}");
    (0..2 * LOOK_AGAIN).for_each(|n| drop(node.at(20.0 + n as f64)));
    let reading = node.at(50.0);
    assert_eq!(reading.gpus.iter().map(|gpu| (gpu.index, gpu.is_lost)).collect::<Vec<_>>(), [(0, false), (1, false), (2, false)]);
}

#[test]
fn a_device_that_answers_nothing_is_lost() {
    let calls = ["TotalEnergyConsumption", "PowerUsage", "Temperature", "MemoryInfo_v2"];
    let errors: String = calls.iter().map(|call| format!("error nvmlDeviceGet{call} 999 @2..4\n")).collect();
    let mut node = Node::new(&format!("{H100}\n{errors}"), &[]);
    assert!(!node.gpu(1.0).is_lost);
    let gpu = node.gpu(2.0);
    assert!(gpu.is_lost && gpu.faults["device"] == "unknown", "{gpu:?}");
    (0..2 * LOOK_AGAIN).for_each(|n| drop(node.at(4.0 + n as f64)));
    assert!(!node.gpu(40.0).is_lost);
}

#[test]
fn a_driver_that_went_away_is_begun_anew() {
    let text = format!("error nvmlDeviceGetCount_v2 1 @2..40\n{H100}\nerror nvmlDeviceGetHandleByIndex_v2 1 @2..40\nlost @2..40\n");
    let mut node = Node::new(&text, &[]);
    assert!(!node.gpu(1.0).is_lost);
    for n in 0..70 {
        assert!(node.gpu(2.0 + n as f64 / 2.0).is_lost);
    }
    let found = (0..8 * LOOK_AGAIN).any(|n| !node.gpu(41.0 + n as f64).is_lost);
    assert!(found);
}

#[test]
fn sentinels_are_faults_and_no_values() {
    let words = "energy max\npower none\nbusy none\nmemory_total blank\nmemory_used blank\nsm_mhz none\nthrottle max\ntemperature none
        memory_temperature none\necc_corrected blank\nretired_single none\nremapped_corrected none\nnvlink_tx max\npcie_tx_bytes blank
        pcie_rx_bytes max\nencoder 101\nbusy_samples none every=0.5 @6..\nprocess 9 compute max\nuse 9 none 0 every=1 @6..
        use 10 1 1 1 1 at=max @6..\ngpm dram 140737488355328\ngpm graphics nan\n";
    let mut node = Node::new(&format!("{H100}\n{words}"), &[]);
    node.gpu(5.0);
    let gpu = node.gpu(7.0);
    let text = serde_json::to_string(&gpu).unwrap();
    for sentinel in ["18446744073709551615", "9223372036854775792", "4294967295", "140737488355328"] {
        assert!(!text.contains(sentinel), "{sentinel} in {text}");
    }
    for what in [
        "energy",
        "power",
        "busy",
        "memory",
        "sm_mhz",
        "throttle",
        "temperature",
        "memory_temperature",
        "ecc_corrected",
        "retired_pages",
        "remapped_rows",
        "nvlink_tx",
        "busy_encoder",
        "busy_samples",
        "uses",
    ] {
        assert_eq!(gpu.faults.get(what).map(String::as_str), Some("impossible_value"), "{what}");
    }
    assert_eq!(gpu.faults["process_memory"], "not_available");
    assert_eq!(gpu.processes.iter().find(|process| process.pid == 9).unwrap().memory, None);
    assert!(!gpu.is_lost && gpu.gpm.contains_key("sm") && !gpu.gpm.contains_key("dram") && !gpu.gpm.contains_key("graphics"));
    assert_eq!(gpu.uses.iter().map(|used| used.pid).collect::<Vec<_>>(), [4242, 4242], "the good samples of others stay");
    assert_eq!(node.gpu(8.0).uses.len(), 1, "an impossible stamp does not hide later samples");
}

#[test]
fn lists_are_never_as_long_as_the_driver_claims() {
    let many: String = (0..300).map(|pid| format!("process {} compute 1\n", pid + 10)).collect();
    let mut node = Node::new(&format!("{H100}\n{many}"), &[]);
    assert_eq!(node.gpu(1.0).processes.len(), 300);
    let lies = "claim nvmlDeviceGetComputeRunningProcesses_v3 4000000000\nclaim nvmlDeviceGetProcessUtilization 4294967295\nclaim nvmlDeviceGetSamples 4294967295\n";
    let mut node = Node::new(&format!("{H100}\n{lies}"), &[]);
    let gpu = node.gpu(3.0);
    for what in ["processes", "uses", "busy_samples"] {
        assert_eq!(gpu.faults.get(what).map(String::as_str), Some("too_many"), "{what}");
    }
    let mut node = Node::new(&format!("{H100}\noverrun nvmlDeviceGetComputeRunningProcesses_v3 4000000000\n"), &[]);
    assert!(node.gpu(3.0).processes.len() <= 4096, "the count that comes back is no count of what was written");
}

#[test]
fn no_more_devices_than_the_bound_are_read() {
    let text: String = (0..70).map(|n| format!("gpu {n}\nuuid GPU-{n}\nenergy {n}\n")).collect();
    let mut node = Node::new(&text, &[]);
    assert_eq!(node.at(1.0).gpus.len(), DEVICES_MAX as usize);
    (0..30).for_each(|n| drop(node.at(f64::from(n))));
    assert_eq!(node.notes(), ["devices: 70 devices are there, the first 64 are read"]);
    let mut node = Node::new(&format!("count 4000000000\n{H100}"), &[]);
    let reading = node.at(1.0);
    assert_eq!(reading.gpus.len(), DEVICES_MAX as usize);
    assert!(!reading.gpus[0].is_lost && reading.gpus[1].is_lost);
}

/// H100 with MIG from 10 s to 30 s; the layout changes at 20 s.
const MIG: &str = "
mig 1 @10..30
instance 0 MIG-a 1g.10gb gi=7 ci=0 total=10737418240 used=100 @10..20
instance 1 MIG-b 3g.40gb gi=1 ci=0 total=42949672960 used=200 @10..30
instance 2 MIG-c 1c.3g.40gb gi=2 ci=1 total=42949672960 used=300 @20..30
process 77 compute 200 gi=1 ci=0 @10..30
gpm sm 45 gi=1
";

#[test]
fn mig_devices_come_change_and_go() {
    let mut node = Node::new(&format!("{H100}{MIG}"), &[]);
    assert!(!node.gpu(9.0).mig_enabled);
    let layout = |gpu: &Gpu| -> Vec<String> {
        gpu.migs
            .iter()
            .map(|mig| format!("{} {} {}/{} {}", mig.uuid, mig.profile, mig.gpu_instance, mig.compute_instance, mig.slices))
            .collect()
    };
    let gpu = node.gpu(11.0);
    assert!(gpu.mig_enabled);
    assert_eq!(layout(&gpu), ["MIG-a 1g.10gb 7/0 1", "MIG-b 3g.40gb 1/0 3"]);
    assert_eq!((gpu.migs[1].memory_total, gpu.migs[1].memory_used), (Some(42_949_672_960), Some(200)));
    assert_eq!((gpu.busy, gpu.uses.len(), gpu.faults["busy"].as_str(), gpu.faults["uses"].as_str()), (None, 0, "mig", "mig"));
    let process = gpu.processes.iter().find(|process| process.pid == 77).unwrap();
    assert_eq!((process.gpu_instance, process.compute_instance), (Some(1), Some(0)));
    assert!(gpu.energy_mj.is_some(), "energy is of the whole device");
    let gpu = node.gpu(12.0);
    assert_eq!(gpu.migs[1].gpm.get("sm"), Some(&0.45), "{:?}", gpu.migs[1]);
    assert_eq!(layout(&node.gpu(21.0)), ["MIG-b 3g.40gb 1/0 3", "MIG-c 1c.3g.40gb 2/1 1"]);
    let gpu = node.gpu(31.0);
    assert!(!gpu.mig_enabled && gpu.migs.is_empty() && gpu.busy == Some(87), "{gpu:?}");
    assert_eq!(node.gpu(32.0).uses.len(), 1, "use by process is told again");
}

#[test]
fn processes_are_asked_of_the_parts_where_the_whole_may_not_be_asked() {
    let mut node = Node::new(&format!("{H100}{MIG}\n"), &[]);
    let whole = node.gpu(11.0).processes.len();
    assert_eq!(whole, 2);
    let many: String = (0..40).map(|n| format!("instance {n} MIG-{n} 1g.10gb gi={n} ci=0 total=1 used=0\n")).collect();
    let mut node = Node::new(&format!("{H100}\nmig 1\nmig_max 40\n{many}"), &[]);
    let gpu = node.gpu(1.0);
    assert_eq!((gpu.migs.len(), gpu.faults["migs"].as_str()), (MIGS_MAX as usize, "too_many"));
}

#[test]
fn a_critical_error_is_told_until_the_next_one() {
    let mut node = Node::new(&format!("{H100}\nxid 31 @5\nxid 79 @8\n"), &[]);
    assert_eq!(node.gpu(1.0).xid, Some(0));
    assert_eq!(node.gpu(6.0).xid, Some(31));
    assert_eq!(node.gpu(7.0).xid, Some(31));
    assert_eq!(node.gpu(9.0).xid, Some(79));
}

#[test]
fn a_wall_clock_that_is_set_back_does_not_stop_the_samples() {
    let mut node = Node::new(H100, &[]);
    node.at(10.0);
    let mut use_at = |seconds: f64, wall: f64| {
        let epoch = EPOCH_US as f64 + (wall - seconds) * 1e6;
        stub::script(node.folder.path(), &format!("time {seconds}\nepoch {epoch}\n{H100}"));
        let at = UnixNanos(EPOCH_US as i64 * 1000 + (wall * 1e9) as i64);
        node.sampler.sample(at, (seconds * 1e9) as u64 + 1_000_000_000_000).gpus[0].uses.len()
    };
    assert_eq!(use_at(11.0, 11.0), 1);
    use_at(12.0, -3588.0);
    assert_eq!(use_at(13.0, -3587.0), 1);
}

#[test]
fn a_driver_that_hangs_shows_in_how_long_the_call_took() {
    let mut node = Node::new(&format!("{H100}\nhang nvmlDeviceGetPowerUsage 60 @2..3\n"), &[]);
    let begin = Instant::now();
    let mut reading = node.at(2.0);
    reading.took_ns = begin.elapsed().as_nanos() as u64;
    assert!(reading.took_ns >= 60_000_000 && reading.gpus[0].power_mw == Some(350_000));
}

#[test]
fn pcie_traffic_that_must_be_waited_for_is_asked_of_one_device_at_a_time() {
    let one = |n: u32| format!("gpu {n}\nuuid GPU-{n}\nenergy 1\ntemperature 1\npcie_throughput_tx 3\npcie_throughput_rx 4\n");
    let mut node = Node::new(&(one(0) + &one(1)), &[]);
    node.at(0.0);
    let told = |reading: Reading| reading.gpus.iter().map(|gpu| (gpu.pcie_tx, gpu.pcie_rx)).collect::<Vec<_>>();
    let (some, none) = ((Some(3072), Some(4096)), (None, None));
    assert_eq!(told(node.at(1.0)), [some, none]);
    assert_eq!(told(node.at(2.0)), [none, some]);
}

/// Calls whose answers are numbers of the script, and what can be said of any call.
const CALLS: [&str; 8] = [
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetSamples",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetFieldValues",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, ..Default::default() })]
    #[test]
    fn no_answer_of_a_driver_is_a_panic_and_every_reading_can_be_kept(
        numbers in proptest::collection::vec(proptest::prelude::any::<u64>(), H100.lines().count()),
        said in proptest::collection::vec((0usize..CALLS.len(), 0usize..3, proptest::prelude::any::<u32>(), 0u32..6), 0..6),
    ) {
        // Each number of the script is replaced by another one now and then.
        let other = |(line, number): (&str, &u64)| match line.split_once(' ') {
            Some((word, rest)) if number % 3 == 0 && rest.starts_with(|c: char| c.is_ascii_digit()) => format!("{word} {number}\n"),
            _ => format!("{line}\n"),
        };
        let mut text: String = H100.lines().zip(&numbers).map(other).collect();
        for (call, what, number, at) in said {
            let what = ["error", "claim", "overrun"][what];
            text += &format!("{what} {} {number} @{at}..{}\n", CALLS[call], at + 2);
        }
        let mut node = Node::new(&text, &[]);
        let mut writer = Writer::begin(Vec::new(), &Head::new("node-1", node.sampler.driver(), "")).unwrap();
        let readings: Vec<Reading> = (0..8).map(|second| node.at(f64::from(second))).collect();
        readings.iter().for_each(|reading| writer.append(reading).unwrap());
        let bytes = writer.into_inner();
        let mut reader = Reader::open("a", bytes.as_slice()).unwrap();
        for reading in readings {
            proptest::prop_assert_eq!(reader.next().unwrap(), Some(reading), "what a sampler lets through a recording does too");
        }
    }
}
