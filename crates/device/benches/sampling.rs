//! How much of a core sampling costs: `cargo bench -p device --bench sampling`.
//!
//! Asks the library that tests build (or the one that `WEIR_NVML_LIBRARY` names) once a second as often as it takes to be exact, not
//! waiting in between, and prints the CPU time of this process for each sample as a share of the second between two. The library
//! without a device is inside that share. Goals: 8 devices 0.5 %, 64 MIG devices and 500 processes 3 %.
#![deny(unsafe_code)]

#[path = "../tests/stub/mod.rs"]
mod stub;

use device::names::{Lines, Names};
use device::nvml::Sampler;
use device::reading::{Gpu, Reading};
use flow::units::UnixNanos;
use std::path::Path;

/// Samples that are measured.
const SAMPLES: u64 = 200;

fn main() {
    if let Some(path) = std::env::var_os("WEIR_NVML_LIBRARY") {
        return measure("devices of this machine", Path::new(&path), f64::INFINITY, |_| {});
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = stub::build(folder.path(), &[]);
    for (name, goal, devices) in [("8 devices", 0.5, eight_devices()), ("64 MIG devices, 500 processes", 3.0, many_parts())] {
        measure(name, &path, goal, |second| stub::script(folder.path(), &format!("time {second}\n{devices}")));
    }
}

/// Runs samples a second apart by the times that are handed over, and prints what they cost.
fn measure(name: &str, path: &Path, goal: f64, mut at: impl FnMut(u64)) {
    at(0);
    let mut sampler = Sampler::open(Some(path)).expect("the library begins");
    let mut reading = Reading::default();
    let scripts = cpu_of(&mut at);
    let both = cpu_of(|second| {
        at(second);
        reading = sampler.sample(UnixNanos((1_764_291_723 + second as i64) * 1_000_000_000), second * 1_000_000_000);
    });
    let sampling = (both - scripts).max(0.0); // writing the script is not sampling, reading it is
    let mut lines = Lines::new(Names::Dcgm, "node-1");
    let (mut out, mut count) = (Vec::new(), 0);
    let writing = cpu_of(|_| {
        out.clear();
        count = lines.put(&reading, &mut out);
    });
    let all = |len: fn(&Gpu) -> usize| reading.gpus.iter().map(len).sum::<usize>();
    let (migs, processes, uses) = (all(|gpu| gpu.migs.len()), all(|gpu| gpu.processes.len()), all(|gpu| gpu.uses.len()));
    println!("{name}: {} devices, {migs} MIG devices, {processes} processes, {uses} samples of use, {count} lines", reading.gpus.len());
    println!("  sampling {sampling:.3} % of a core at 1 s (goal {goal} %), writing the lines {writing:.3} %");
    if sampling > goal {
        println!("  MISSED");
    }
}

/// CPU time of each run, as percent of a second.
fn cpu_of(mut run: impl FnMut(u64)) -> f64 {
    let begun_s = cpu_seconds();
    (1..=SAMPLES).for_each(&mut run);
    100.0 * (cpu_seconds() - begun_s) / SAMPLES as f64
}

/// CPU time of this thread in seconds. The kernel brings it up to date every few milliseconds.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc is there");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("it begins with a number") / 1e9
}

fn device(n: usize) -> String {
    format!(
        "gpu {n}\nuuid GPU-{n}\nname NVIDIA H100 80GB HBM3\nenergy 1000 +350000\npower 350000\nbusy_memory 40\nencoder 0\ndecoder 0\n\
         memory_total 85899345920\nmemory_used 1073741824\nmemory_reserved 500000000\nsm_mhz 1980\nmemory_mhz 2619\nthrottle 4\n\
         temperature 61\nmemory_temperature 70\necc_corrected 0\necc_uncorrected 0\necc_corrected_life 0\necc_uncorrected_life 0\n\
         retired_single 0\nretired_double 0\nremapped_corrected 0\nremapped_uncorrected 0\ncompute_mode 0\nnvlink_tx 1000 +100000\n\
         nvlink_rx 1000 +100000\npcie_tx_bytes 1000 +5000\npcie_rx_bytes 1000 +5000\ngpm sm 45\ngpm tensor 20\ngpm dram 30\n"
    )
}

/// Four processes on each, the driver's buffers full.
fn eight_devices() -> String {
    let mut text = String::new();
    for n in 0..8 {
        text += &device(n);
        text += "mig 0\nbusy 87\nbusy_samples 87 every=0.1666\n";
        for process in 0..4 {
            let pid = 1000 + n * 10 + process;
            text += &format!("process {pid} compute 1073741824\nuse {pid} 20 10 0 0 every=0.5\n");
        }
    }
    text
}

/// Eight devices of MIG with as many parts as there are to 64, and 500 processes on them.
fn many_parts() -> String {
    let mut text = String::new();
    for n in 0..8 {
        text += &device(n);
        text += "mig 1\nmig_max 8\n";
        for part in 0..8 {
            text +=
                &format!("instance {part} MIG-{n}-{part} 1g.10gb gi={part} ci=0 total=10737418240 used=1073741824\ngpm sm 45 gi={part}\n");
        }
        for process in 0..if n < 4 { 63 } else { 62 } {
            text += &format!("process {} compute 1073741824 gi={} ci=0\n", 1000 + n * 100 + process, process % 8);
        }
    }
    text
}
