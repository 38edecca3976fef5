//! Our names, types and label names beside those of a real node_exporter on this machine. Skips, by name, where there is none.

use device::host::{HostOptions, Sampler, metrics};
use flow::units::UnixNanos;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

/// Names that newer ones than 1.5 have, and what this machine's may leave out.
const NEWER: [&str; 1] = ["node_pressure_irq_stalled_seconds_total"];

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// By name: type, and the names of labels.
type Names = BTreeMap<String, (String, BTreeSet<String>)>;

fn page(program: &str) -> Option<String> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let arg = format!("--web.listen-address={address}");
    let mut command = Command::new(program);
    command.args([&arg, "--collector.netdev.device-exclude=^$"]).stdout(Stdio::null()).stderr(Stdio::null());
    let _child = Killed(command.spawn().ok()?);
    for _ in 0..100 {
        if let Ok(mut stream) = std::net::TcpStream::connect(&address) {
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            return Some(text);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{program} does not listen");
}

fn theirs(page: &str) -> Names {
    let mut types = BTreeMap::new();
    let mut names = Names::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            types.insert(name.to_owned(), if kind == "untyped" { "unknown" } else { kind }.to_owned());
        } else if line.starts_with("node_") {
            let name = line.split(['{', ' ']).next().unwrap();
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
            // A label without a value is none.
            let labels = labels
                .split("\",")
                .filter_map(|label| label.split_once("=\""))
                .filter(|(_, value)| !value.trim_end_matches('"').is_empty());
            let entry = names.entry(name.to_owned()).or_insert((types[name].clone(), BTreeSet::new()));
            entry.1.extend(labels.map(|(name, _)| name.to_owned()));
        }
    }
    names
}

fn ours() -> Names {
    let reading = Sampler::new(HostOptions::default()).sample(UnixNanos(0), 0);
    let mut out = Vec::new();
    metrics(&reading, &mut out);
    let mut names = Names::new();
    for line in String::from_utf8(out).unwrap().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        let entry = names.entry(text("metric")).or_insert((text("type"), BTreeSet::new()));
        entry.1.extend(value["labels"].as_object().unwrap().keys().cloned());
    }
    names
}

#[test]
fn names_types_and_labels_are_those_of_node_exporter() {
    let Some(page) = ["prometheus-node-exporter", "node_exporter"].into_iter().find_map(page) else {
        let why = "needs prometheus-node-exporter, as Debian has it; tests/run gets it";
        // Past the capture of the test's output: who reads the log must see it.
        let _ = writeln!(std::io::stderr(), "SKIPPED names_types_and_labels_are_those_of_node_exporter: {why}");
        return;
    };
    let (theirs, ours) = (theirs(&page), ours());
    let mut wrong = Vec::new();
    let mut same = 0;
    for (name, mine) in ours.iter().filter(|(name, _)| name.starts_with("node_") && !NEWER.contains(&name.as_str())) {
        match theirs.get(name) {
            Some(other) if other == mine => same += 1,
            other => wrong.push(format!("{name}: {mine:?}, node_exporter {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{same} are the same; {wrong:#?}");
    // What it says of the things that we say at all.
    let families =
        ["node_cpu_", "node_memory_", "node_filesystem_", "node_load", "node_pressure_", "node_vmstat_", "node_procs_", "node_filefd_"];
    let lacking: Vec<&String> =
        theirs.keys().filter(|name| families.iter().any(|start| name.starts_with(start)) && !ours.contains_key(*name)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    eprintln!("{same} names are the same, of {} that it has", theirs.len());
}
