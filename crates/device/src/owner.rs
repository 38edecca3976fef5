//! Whose a process is: what `/proc` says of it, and what is known of its pod.
//!
//! In: pids, and a root folder with `<pid>/stat`, `<pid>/cgroup` and `<pid>/status` as Linux has them. Out: the process's start (with
//! the pid its name: pids are used again), its command, the pod and container of its control group (v1 and v2; systemd and
//! cgroupfs; containerd, CRI-O, Docker, Podman; nested as kind and k3d nest them), and so its [`Owner`]. A process outside of every
//! container belongs to whom the rules say. What cannot be read is counted and makes that process nobody's, and no other.
//! Memory: [`KNOWN_MAX`] processes, forgotten when they are gone; of a file at most [`FILE_BYTES_MAX`] are read.

use crate::place::{Place, of_path};
use crate::reading::{Owner, Reading};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most processes that are remembered; `pid_max` of most machines is higher, and nobody opens devices so often.
pub const KNOWN_MAX: usize = 16_384;
/// A `stat` is below 1 KiB, and a `cgroup` has a line for each of a dozen hierarchies, each a path of at most 4 KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Longest command: the kernel keeps 15 bytes of it, of kernel threads a little more.
const NAME_BYTES_MAX: usize = 64;

/// Whom processes outside of containers belong to. Every condition that is there must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The command as `/proc/PID/comm` has it, of at most 15 bytes.
    pub command: Option<String>,
    /// The user's number (effective).
    pub user: Option<u32>,
    /// The control group, or one above it, as in `/system.slice/slurmstepd.scope/job_7`.
    pub cgroup: Option<String>,
    pub owner: Owner,
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub name: String,
    /// Clock ticks since boot.
    pub started: u64,
}

#[derive(Clone, Debug)]
struct Known {
    place: Option<Place>,
    /// By the rules; only of a process outside of containers.
    owner: Option<Owner>,
    round: u64,
}

/// Finds owners of processes; see the head of the file.
pub struct Owners {
    root: PathBuf,
    rules: Vec<Rule>,
    known: HashMap<(u32, u64), Known>,
    round: u64,
    /// What could not be read, by reason: `stat`, `cgroup`, `status`, `reused`, `full`.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Owners {
    /// `root`: `/proc`, or the host's where it is mounted elsewhere.
    pub fn new(root: &Path, rules: Vec<Rule>) -> Owners {
        Owners { root: root.to_path_buf(), rules, known: HashMap::new(), round: 0, faults: BTreeMap::new() }
    }

    /// Fills in `started`, `name` and `owner` of every process of a reading.
    ///
    /// `lookup`: what is known of a pod and its container (by pod uid, which may be empty, and container id). Where it knows nothing,
    /// the owner has these two ids and no tenant.
    pub fn fill(&mut self, reading: &mut Reading, lookup: &dyn Fn(&str, &str) -> Option<Owner>) {
        self.round += 1;
        for process in reading.gpus.iter_mut().flat_map(|gpu| &mut gpu.processes) {
            let Some(stat) = self.stat(process.pid) else {
                self.fault("stat");
                continue;
            };
            if process.started.is_some_and(|started| started != stat.started) {
                self.fault("reused");
                continue;
            }
            process.started = Some(stat.started);
            if process.name.is_empty() {
                process.name.clone_from(&stat.name);
            }
            process.owner = self.owner(process.pid, &stat, lookup);
        }
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
    }

    /// The owner of one process, of which `stat` was just read.
    fn owner(&mut self, pid: u32, stat: &Stat, lookup: &dyn Fn(&str, &str) -> Option<Owner>) -> Option<Owner> {
        let name = (pid, stat.started);
        if !self.known.contains_key(&name) {
            let found = self.find(pid, stat)?;
            if self.known.len() >= KNOWN_MAX {
                self.fault("full");
                return of_known(&found, lookup);
            }
            self.known.insert(name, found);
        }
        let round = self.round;
        let known = self.known.get_mut(&name)?;
        known.round = round;
        of_known(known, lookup)
    }

    fn find(&mut self, pid: u32, stat: &Stat) -> Option<Known> {
        let Some(text) = self.read(pid, "cgroup") else {
            self.fault("cgroup");
            return None;
        };
        let place = place_of_cgroup(&text);
        let owner = if place.is_none() { self.by_rule(pid, stat, &text) } else { None };
        // The pid may have become another process between the two files.
        if self.stat(pid).is_none_or(|again| again.started != stat.started) {
            self.fault("reused");
            return None;
        }
        Some(Known { place, owner, round: self.round })
    }

    fn by_rule(&mut self, pid: u32, stat: &Stat, cgroup: &str) -> Option<Owner> {
        let needs_user = self.rules.iter().any(|rule| rule.user.is_some());
        let user = if needs_user { self.read(pid, "status").and_then(|text| user_of_status(&text)) } else { None };
        if needs_user && user.is_none() {
            self.fault("status");
        }
        let holds = |rule: &&Rule| {
            rule.command.as_ref().is_none_or(|command| *command == stat.name)
                && rule.user.is_none_or(|wanted| user == Some(wanted))
                && rule.cgroup.as_ref().is_none_or(|above| cgroup.lines().filter_map(path_of_line).any(|path| is_within(path, above)))
        };
        self.rules.iter().find(holds).map(|rule| rule.owner.clone())
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        parse_stat(&self.read(pid, "stat")?)
    }

    fn read(&self, pid: u32, file: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.root.join(pid.to_string()).join(file)).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn fault(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }
}

fn of_known(known: &Known, lookup: &dyn Fn(&str, &str) -> Option<Owner>) -> Option<Owner> {
    let Some(place) = &known.place else { return known.owner.clone() };
    let mut owner = lookup(&place.pod_uid, &place.container_id).unwrap_or_default();
    if owner.pod_uid.is_empty() {
        owner.pod_uid.clone_from(&place.pod_uid);
    }
    if owner.container_id.is_empty() {
        owner.container_id.clone_from(&place.container_id);
    }
    Some(owner)
}

/// Reads `/proc/PID/stat`: `7 (a name) with) spaces) S 1 …`. The name ends at the last `)`; the start is field 22.
pub fn parse_stat(text: &str) -> Option<Stat> {
    let (before, after) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let started = after.split_ascii_whitespace().nth(19)?.parse().ok()?; // the state is field 3
    Some(Stat { name: name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_string(), started })
}

/// The effective user of `/proc/PID/status`: `Uid: real effective saved filesystem`.
fn user_of_status(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The container that `/proc/PID/cgroup` tells; the line that says most counts. `None`: the process is in none.
pub fn place_of_cgroup(text: &str) -> Option<Place> {
    let places = text.lines().filter_map(path_of_line).filter_map(|path| Some(of_path(path)?.0));
    places.max_by_key(|place| (!place.pod_uid.is_empty(), !place.container_id.is_empty()))
}

/// Of `5:cpu,cpuacct:/path` or `0::/path` the path.
fn path_of_line(line: &str) -> Option<&str> {
    let path = line.splitn(3, ':').nth(2)?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path))
}

fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Gpu, Process};
    use proptest::prelude::*;
    use std::fs;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OTHER: &str = "ffff456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "6c3ba7e4-91ad-4d1e-9f0b-2a7f6b8c1d2e";

    #[test]
    fn a_control_group_names_pod_and_container() {
        let under = UID.replace('-', "_");
        let hash = "0123456789abcdef0123456789abcdef";
        let cases = [
            (format!("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"), UID, ID),
            (format!("0::/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope"), UID, ID),
            (format!("0::/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope/container"), UID, ID),
            (format!("0::/kubepods.slice/kubepods-pod{under}.slice/crio-conmon-{OTHER}.scope"), UID, ""),
            (format!("0::/kubepods/besteffort/pod{UID}/{ID}"), UID, ID),
            (format!("0::/kubepods/pod{hash}/{ID}"), hash, ID),
            (format!("12:memory:/kubepods/burstable/pod{UID}/{ID}\n1:name=systemd:/kubepods/burstable/pod{UID}/{ID}"), UID, ID),
            (format!("11:devices:/system.slice/containerd.service/kubepods-burstable-pod{under}.slice:cri-containerd:{ID}"), UID, ID),
            (format!("5:cpu,cpuacct:/docker/{ID}\n0::/"), "", ID),
            (format!("0::/system.slice/docker-{ID}.scope"), "", ID),
            (format!("0::/machine.slice/libpod-{ID}.scope/container"), "", ID),
            (format!("0::/docker/{OTHER}/kubelet/kubepods/besteffort/pod{UID}/{ID}"), UID, ID),
            (format!("0::/docker/{OTHER}/docker/{ID}"), "", ID),
            (
                format!("0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort-pod{under}.slice/cri-containerd-{ID}.scope"),
                UID,
                ID,
            ),
            (format!("0::/../../kubepods-besteffort-pod{under}.slice/cri-containerd-{ID}.scope"), UID, ID),
            (format!("0::/../cri-containerd-{ID}.scope"), "", ID),
            (format!("0::/kubepods/pod{UID}/{ID}/init.scope (deleted)"), UID, ID),
            (format!("0::/kubepods/pod{UID}/{ID}/docker/{OTHER}"), UID, ID),
            (format!("0::/kubepods/pod{}/{}", UID.to_uppercase(), ID.to_uppercase()), UID, ID),
        ];
        for (text, pod_uid, container_id) in cases {
            let want = Place { pod_uid: pod_uid.into(), container_id: container_id.into() };
            assert_eq!(place_of_cgroup(&text), Some(want), "{text}");
        }
        for text in
            ["", "0::/", "0::/user.slice/user-1000.slice", "0::/podman/x", "0::/pods/podracer", "x", "1:a", "0::/system.slice/pod.slice"]
        {
            assert_eq!(place_of_cgroup(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_may_hold_what_the_fields_are_told_apart_by() {
        let line = |name: &str| format!("42 ({name}) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 123456 1 2 3 4");
        for name in ["python3", "a b", "a) S (b", ")", "(", "", "ü)"] {
            assert_eq!(parse_stat(&line(name)), Some(Stat { name: name.into(), started: 123_456 }), "{name}");
        }
        for text in ["", "42", "42 (a", "42 (a) S 1", "42 a) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 123456"] {
            assert_eq!(parse_stat(text), None, "{text}");
        }
    }

    /// Writes what `/proc` has of a process.
    fn put(root: &Path, pid: u32, name: &str, started: u64, cgroup: &str, user: u32) {
        let folder = root.join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        let stat = format!("{pid} ({name}) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 {started} 1 2 3 4");
        fs::write(folder.join("stat"), stat).unwrap();
        fs::write(folder.join("cgroup"), cgroup).unwrap();
        fs::write(folder.join("status"), format!("Name:\t{name}\nUid:\t0\t{user}\t0\t0\n")).unwrap();
    }

    fn reading(pids: &[u32]) -> Reading {
        let processes = pids.iter().map(|pid| Process { pid: *pid, ..Process::default() }).collect();
        Reading { gpus: vec![Gpu { processes, ..Gpu::default() }], ..Reading::default() }
    }

    fn named(tenant: &str) -> Owner {
        Owner { tenant: tenant.into(), ..Owner::default() }
    }

    #[test]
    fn processes_get_their_owners_and_a_reused_pid_gets_another() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        put(root, 1, "vllm", 100, &format!("0::/kubepods/pod{UID}/{ID}"), 0);
        put(root, 2, "train.py", 100, "0::/system.slice/slurm/job_7/step", 0);
        put(root, 3, "who", 100, "0::/user.slice", 1_000);
        put(root, 4, "nobody", 100, "0::/", 5);
        put(root, 6, "pod", 100, &format!("0::/kubepods/pod{UID}/{OTHER}"), 5);
        let rules = vec![
            Rule { cgroup: Some("/system.slice/slurm/job_".into()), owner: named("wrong"), ..Rule::default() },
            Rule { cgroup: Some("/system.slice/slurm/job_7/".into()), owner: named("slurm"), ..Rule::default() },
            Rule { user: Some(1_000), command: Some("other".into()), owner: named("wrong"), ..Rule::default() },
            Rule { user: Some(1_000), owner: named("user"), ..Rule::default() },
        ];
        let mut owners = Owners::new(root, rules);
        let lookup = |pod: &str, container: &str| (pod == UID && container == ID).then(|| named("acme"));
        let mut one = reading(&[1, 2, 3, 4, 5, 6]);
        owners.fill(&mut one, &lookup);
        let of = |reading: &Reading, n: usize| reading.gpus[0].processes[n].clone();
        assert_eq!(of(&one, 0).owner.unwrap(), Owner { pod_uid: UID.into(), container_id: ID.into(), ..named("acme") });
        assert_eq!((of(&one, 0).name.as_str(), of(&one, 0).started), ("vllm", Some(100)));
        let tenants: Vec<_> = (1..6).map(|n| of(&one, n).owner.map(|owner| owner.tenant)).collect();
        assert_eq!(tenants, [Some("slurm".into()), Some("user".into()), None, None, Some(String::new())]);
        assert_eq!((owners.faults.clone(), owners.known.len()), (BTreeMap::from([("stat", 1)]), 5), "5 is gone already");
        // Remembered while it is the same process, whatever its control group says then.
        put(root, 1, "vllm", 100, "0::/user.slice", 1_000);
        let mut two = reading(&[1]);
        owners.fill(&mut two, &|_, _| Some(named("later")));
        assert_eq!((of(&two, 0).owner.unwrap().tenant.as_str(), owners.known.len()), ("later", 1));
        put(root, 1, "other", 200, "0::/user.slice", 1_000);
        let mut three = reading(&[1]);
        owners.fill(&mut three, &lookup);
        assert_eq!((of(&three, 0).owner.unwrap().tenant.as_str(), of(&three, 0).started), ("wrong", Some(200)));
        // The sampler saw the one before.
        let mut four = reading(&[1]);
        four.gpus[0].processes[0].started = Some(100);
        owners.fill(&mut four, &lookup);
        assert_eq!((of(&four, 0).owner, owners.faults["reused"]), (None, 1));
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[0-9a-fpodé/:_.()\\- \n]{0,200}", bytes: Vec<u8>) {
            for text in [text.as_str(), &String::from_utf8_lossy(&bytes)] {
                let _ = (parse_stat(text), place_of_cgroup(text), user_of_status(text));
            }
        }
    }
}
