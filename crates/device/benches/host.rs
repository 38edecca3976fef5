//! What one look at the host costs, in CPU time of this process: on this machine, and on a generated tree of 500 groups.
//!
//! Printed as percent of a core at one sample a second, apart for reading, metrics and facts. The tree's files lie in a folder of an
//! ordinary filesystem; a kernel's own cost more to make and less to find.

use device::host::{Facts, FactsOptions, FactsState, HostOptions, HostReading, Request, Sampler, metrics};
use device::reading::Owner;
use flow::units::UnixNanos;
use std::path::Path;

const SAMPLES: u64 = 40;
const GROUPS: usize = 500;

fn main() {
    let tree = tempfile::tempdir().expect("a folder of temporary files takes them");
    generate(tree.path());
    println!("| host | reading | metrics | facts | all, % of a core at 1 s | groups | samples | bytes |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    measure("this machine", Path::new("/"));
    measure("500 groups", tree.path());
}

fn measure(name: &str, root: &Path) {
    let mut sampler = Sampler::new(HostOptions { root: root.into(), ..HostOptions::default() });
    let mut facts = Facts::new(FactsOptions::default(), FactsState::default()).expect("a folder of temporary files takes them");
    let mut out = Vec::new();
    let mut spent = [0.0; 3];
    let mut last = HostReading::default();
    let mut lines = 0;
    for n in 0..SAMPLES {
        let start = cpu_seconds();
        let nanos = n * 1_000_000_000;
        last = sampler.sample(UnixNanos(nanos as i64), nanos);
        let read = cpu_seconds();
        last.own(&|uid, id| Some(Owner { tenant: "acme".into(), pod: uid.into(), container: id.into(), ..Owner::default() }), &|_, _| {
            Some(Request { millicores: 100, memory_bytes: 1 << 28 })
        });
        out.clear();
        metrics(&last, &mut out);
        let told = cpu_seconds();
        lines = out.iter().filter(|byte| **byte == b'\n').count();
        let before = out.len();
        facts.add(&last, &mut out);
        out.truncate(before);
        spent[0] += read - start;
        spent[1] += told - read;
        spent[2] += cpu_seconds() - told;
    }
    let percent = spent.map(|seconds| seconds * 100.0 / SAMPLES as f64);
    println!(
        "| {name} | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {} | {lines} | {} |",
        percent[0],
        percent[1],
        percent[2],
        percent.iter().sum::<f64>(),
        last.cgroups.len(),
        out.len(),
    );
}

/// Of this process, in user and in the kernel. `/proc/self/schedstat` counts nanoseconds on the processor.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").expect("a kernel with schedstat");
    let nanos: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).expect("nanoseconds come first");
    nanos / 1e9
}

fn generate(root: &Path) {
    let put = |path: String, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder of temporary files takes them"))
            .expect("a folder of temporary files takes them");
        std::fs::write(path, text).expect("a folder of temporary files takes them");
    };
    for name in ["stat", "meminfo", "diskstats", "vmstat", "loadavg", "uptime", "net/dev", "mounts"] {
        put(format!("proc/{name}"), &std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default());
    }
    put("sys/fs/cgroup/cgroup.controllers".into(), "cpu io memory pids\n");
    // A node of 166 pods with two containers each.
    for n in 0..GROUPS / 3 {
        let pod = format!("sys/fs/cgroup/kubepods.slice/kubepods-pod{n:08x}_1111_4222_8333_abcdefabcdef.slice");
        for group in [pod.clone(), format!("{pod}/cri-containerd-{n:064x}.scope"), format!("{pod}/cri-containerd-f{n:063x}.scope")] {
            for (name, text) in [
                (
                    "cpu.stat",
                    "usage_usec 7000\nuser_usec 6000\nsystem_usec 1000\nnr_periods 10\nnr_throttled 2\nthrottled_usec 5000\nnr_bursts 0\nburst_usec 0\n",
                ),
                ("memory.current", "104857600\n"),
                ("memory.peak", "104857600\n"),
                ("memory.swap.current", "0\n"),
                ("memory.max", "max\n"),
                ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
                ("pids.current", "3\n"),
                ("pids.max", "100\n"),
                ("cpu.max", "max 100000\n"),
                ("cpu.weight", "100\n"),
                ("cpu.pressure", PRESSURE),
                ("memory.pressure", PRESSURE),
                ("io.pressure", PRESSURE),
            ] {
                put(format!("{group}/{name}"), text);
            }
            let stat: String = (0..40).map(|n| format!("some_counter_{n} 123456\n")).collect();
            put(
                format!("{group}/memory.stat"),
                &format!("anon 50000000\nfile 40000000\n{stat}inactive_file 4857600\npgfault 7\npgmajfault 1\n"),
            );
        }
    }
}

const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=11\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
