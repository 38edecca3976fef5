//! Whom the kubelet gave which device: the messages of its pod-resources API (v1), and what they say of a reading.
//!
//! In: answers to `List` and `GetAllocatableResources` as protobuf. Out: devices and claims by container ([`PodDevices`]), and
//! with [`assign`] the `given` of each device and MIG device. Sockets and gRPC framing are the caller's.
//!
//! Devices are found by UUID: plain, as replicas of a shared one (`UUID::N`), as GKE names them (`nvidia0`, `nvidia0/gi1`,
//! `…/vgpu2`), as old drivers name MIG devices (`MIG-GPU-…/1/0`), and in claims of dynamic resource allocation by CDI name
//! (`nvidia.com/gpu=UUID`, `=0`, `=0:1`, `=all`, `k8s.gpu.nvidia.com/claim=<uid>-gpu-0-mig-1g10gb-19-0`). What names no device of
//! the reading is counted, by reason. Bound: [`CONTAINERS_MAX`], [`DEVICES_MAX`] ids and claims, texts of [`TEXT_BYTES_MAX`]; what
//! is beyond is left out and counted.
//! Source: `k8s.io/kubelet/pkg/apis/podresources/v1/api.proto`.

use crate::reading::{Given, Gpu, Owner, Reading};
use std::collections::{BTreeMap, HashMap, HashSet};
use telemetry::wire::{Field, Malformed, Message, read_varint};

/// Names of the calls, as paths of gRPC.
pub const LIST_PATH: &str = "/v1.PodResourcesLister/List";
pub const ALLOCATABLE_PATH: &str = "/v1.PodResourcesLister/GetAllocatableResources";
/// Where the kubelet listens.
pub const SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// A node has at most 110 pods by default, and 1,000 where somebody tries hard.
pub const CONTAINERS_MAX: usize = 16_384;
/// Device ids, CDI names and CPUs of one answer, each.
pub const DEVICES_MAX: usize = 65_536;
/// Longest name; a CDI name has a claim's uid and a device in it.
pub const TEXT_BYTES_MAX: usize = 512;

/// One container, and what it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDevices {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    pub devices: Vec<Device>,
    pub claims: Vec<Claim>,
    /// CPUs that are its own.
    pub cpus: Vec<i64>,
}

/// A device as a device plugin names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// As in `nvidia.com/gpu`, `nvidia.com/gpu.shared`, `nvidia.com/mig-1g.10gb`.
    pub resource: String,
    pub id: String,
    pub numa: Vec<i64>,
}

/// A device that came by a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    pub namespace: String,
    pub name: String,
    /// As in `gpu.nvidia.com`; empty where the kubelet is older than 1.34.
    pub driver: String,
    pub pool: String,
    /// As in `gpu-0`.
    pub device: String,
    /// CDI names.
    pub cdi: Vec<String>,
}

/// An answer that was read, and how much of it was beyond the bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub containers: Vec<PodDevices>,
    pub left_out: u64,
}

/// The devices a node has to give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    pub devices: Vec<Device>,
    pub cpus: Vec<i64>,
    pub left_out: u64,
}

/// What became of devices and claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    pub given: u64,
    /// `unknown_device`, `ambiguous_mig`, `unknown_owner` (given, but nobody knows the pod).
    pub faults: BTreeMap<&'static str, u64>,
}

/// `ListPodResourcesRequest` has no fields.
pub fn list_request() -> Vec<u8> {
    Vec::new()
}

/// `AllocatableResourcesRequest` has no fields.
pub fn allocatable_request() -> Vec<u8> {
    Vec::new()
}

/// Room that an answer may take yet.
struct Room {
    containers: usize,
    devices: usize,
    cpus: usize,
    left_out: u64,
}

impl Room {
    fn new() -> Room {
        Room { containers: CONTAINERS_MAX, devices: DEVICES_MAX, cpus: DEVICES_MAX, left_out: 0 }
    }

    fn take(&mut self, of: fn(&mut Room) -> &mut usize) -> bool {
        let left = of(self);
        let is_room = *left > 0;
        *left -= usize::from(is_room);
        self.left_out += u64::from(!is_room);
        is_room
    }
}

/// Reads a `ListPodResourcesResponse`: a list of pods, each a list of containers.
pub fn decode_list(bytes: &[u8]) -> Result<Listed, Malformed> {
    let mut room = Room::new();
    let mut containers = Vec::new();
    for field in Message::new(bytes) {
        if let (1, pod) = field? {
            decode_pod(pod.message()?, &mut room, &mut containers)?;
        }
    }
    Ok(Listed { containers, left_out: room.left_out })
}

/// Reads an `AllocatableResourcesResponse`.
pub fn decode_allocatable(bytes: &[u8]) -> Result<Allocatable, Malformed> {
    let mut room = Room::new();
    let mut found = Allocatable::default();
    for field in Message::new(bytes) {
        match field? {
            (1, devices) => decode_devices(devices.message()?, &mut room, &mut found.devices)?,
            (2, cpus) => decode_numbers(cpus, &mut room, &mut found.cpus)?,
            _ => {}
        }
    }
    found.left_out = room.left_out;
    Ok(found)
}

/// `PodResources`: name 1, namespace 2, containers 3. Fields may come in any order, so names are read first.
fn decode_pod(pod: Message<'_>, room: &mut Room, out: &mut Vec<PodDevices>) -> Result<(), Malformed> {
    let (mut name, mut namespace) = ("", "");
    for field in pod.clone() {
        match field? {
            (1, text) => name = text.text()?,
            (2, text) => namespace = text.text()?,
            _ => {}
        }
    }
    for field in pod {
        let (3, container) = field? else { continue };
        let mut one = PodDevices { namespace: keep(namespace), pod: keep(name), ..PodDevices::default() };
        decode_container(container.message()?, room, &mut one)?;
        if room.take(|room| &mut room.containers) {
            out.push(one);
        }
    }
    Ok(())
}

/// `ContainerResources`: name 1, devices 2, cpu_ids 3, memory 4, dynamic_resources 5.
fn decode_container(container: Message<'_>, room: &mut Room, out: &mut PodDevices) -> Result<(), Malformed> {
    for field in container {
        match field? {
            (1, text) => out.container = keep(text.text()?),
            (2, devices) => decode_devices(devices.message()?, room, &mut out.devices)?,
            (3, cpus) => decode_numbers(cpus, room, &mut out.cpus)?,
            (5, claim) => decode_claim(claim.message()?, room, &mut out.claims)?,
            _ => {}
        }
    }
    Ok(())
}

/// `ContainerDevices`: resource_name 1, device_ids 2, topology 3 (nodes 1, each with ID 1).
fn decode_devices(devices: Message<'_>, room: &mut Room, out: &mut Vec<Device>) -> Result<(), Malformed> {
    let (mut resource, mut numa) = ("", Vec::new());
    for field in devices.clone() {
        match field? {
            (1, text) => resource = text.text()?,
            (3, topology) => {
                for node in topology.message()? {
                    let (1, node) = node? else { continue };
                    let ids = node.message()?.filter_map(|field| field.map(|(n, id)| (n == 1).then_some(id)).transpose());
                    let id = ids.last().transpose()?.map_or(Ok(0), Field::varint)? as i64; // proto3 leaves a 0 out
                    if numa.len() < 64 {
                        numa.push(id);
                    }
                }
            }
            _ => {}
        }
    }
    for field in devices {
        let (2, id) = field? else { continue };
        let id = id.text()?;
        if room.take(|room| &mut room.devices) {
            out.push(Device { resource: keep(resource), id: keep(id), numa: numa.clone() });
        }
    }
    Ok(())
}

/// `repeated int64`: packed, or one by one as old writers do.
fn decode_numbers(field: Field<'_>, room: &mut Room, out: &mut Vec<i64>) -> Result<(), Malformed> {
    let mut add = |number: u64| {
        if room.take(|room| &mut room.cpus) {
            out.push(number as i64);
        }
    };
    match field {
        Field::Bytes(mut packed) => {
            while !packed.is_empty() {
                add(read_varint(&mut packed)?);
            }
        }
        other => add(other.varint()?),
    }
    Ok(())
}

/// `DynamicResource`: claim_name 2, claim_namespace 3, claim_resources 4 (cdi_devices 1 with name 1, driver_name 2, pool_name 3,
/// device_name 4). Field 1 was a class's name once.
fn decode_claim(claim: Message<'_>, room: &mut Room, out: &mut Vec<Claim>) -> Result<(), Malformed> {
    let (mut name, mut namespace) = ("", "");
    for field in claim.clone() {
        match field? {
            (2, text) => name = text.text()?,
            (3, text) => namespace = text.text()?,
            _ => {}
        }
    }
    for field in claim {
        let (4, resource) = field? else { continue };
        let mut one = Claim { namespace: keep(namespace), name: keep(name), ..Claim::default() };
        for field in resource.message()? {
            match field? {
                (1, device) => {
                    for field in device.message()? {
                        let (1, text) = field? else { continue };
                        let text = text.text()?;
                        if room.take(|room| &mut room.devices) {
                            one.cdi.push(keep(text));
                        }
                    }
                }
                (2, text) => one.driver = keep(text.text()?),
                (3, text) => one.pool = keep(text.text()?),
                (4, text) => one.device = keep(text.text()?),
                _ => {}
            }
        }
        if room.take(|room| &mut room.devices) {
            out.push(one);
        }
    }
    Ok(())
}

fn keep(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_string()
}

/// A device of a reading: the number of the GPU, and of a MIG device within it.
type Place = (usize, Option<usize>);

/// Finds devices of a reading by the names they have elsewhere.
struct Places {
    by_uuid: HashMap<String, Place>,
    by_index: HashMap<u32, usize>,
}

/// Says of each device of a reading whom it was given to; what stood there before is forgotten.
///
/// `lookup`: what is known of a container. Where it knows nothing, its owner has the names of pod and container only.
pub fn assign(reading: &mut Reading, containers: &[PodDevices], lookup: &dyn Fn(&PodDevices) -> Option<Owner>) -> Assigned {
    let mut done = Assigned::default();
    for gpu in &mut reading.gpus {
        gpu.given.clear();
        gpu.migs.iter_mut().for_each(|mig| mig.given.clear());
    }
    let places = Places::of(&reading.gpus);
    for container in containers {
        let mut found: Vec<(Place, Given)> = Vec::new();
        for device in container.devices.iter().filter(|device| is_ours(&device.resource)) {
            let (name, replica) = replica_of(device);
            match places.find(&reading.gpus, name) {
                Ok(place) => found.push((place, Given { replica, ..Given::default() })),
                Err(why) => *done.faults.entry(why).or_default() += 1,
            }
        }
        for claim in &container.claims {
            let name = format!("{}/{}", claim.namespace, claim.name);
            let places = match places.find_claim(&reading.gpus, claim) {
                Ok(places) => places,
                Err(None) => continue,
                Err(Some(why)) => {
                    *done.faults.entry(why).or_default() += 1;
                    continue;
                }
            };
            found.extend(places.into_iter().map(|place| (place, Given { claim: Some(name.clone()), ..Given::default() })));
        }
        if found.is_empty() {
            continue;
        }
        let known = lookup(container);
        if known.is_none() {
            *done.faults.entry("unknown_owner").or_default() += 1;
        }
        let owner = named(known.unwrap_or_default(), container);
        for ((gpu, mig), given) in found {
            let gpu = &mut reading.gpus[gpu];
            let list = mig.map_or(&mut gpu.given, |mig| &mut gpu.migs[mig].given);
            let given = Given { owner: owner.clone(), ..given };
            // A claim has a CDI name for the device and one for what the device needs.
            if given.replica.is_some() || list.last() != Some(&given) {
                list.push(given);
                done.given += 1;
            }
        }
    }
    done
}

/// Says of each device whether the kubelet may give it away, or one of its MIG devices or replicas.
pub fn allow(reading: &mut Reading, allocatable: &Allocatable) {
    let places = Places::of(&reading.gpus);
    let ours = allocatable.devices.iter().filter(|device| is_ours(&device.resource));
    let allowed: HashSet<usize> =
        ours.filter_map(|device| places.find(&reading.gpus, replica_of(device).0).ok()).map(|(gpu, _)| gpu).collect();
    for (n, gpu) in reading.gpus.iter_mut().enumerate() {
        gpu.allocatable = Some(allowed.contains(&n));
    }
}

fn named(mut owner: Owner, container: &PodDevices) -> Owner {
    for (known, name) in
        [(&mut owner.namespace, &container.namespace), (&mut owner.pod, &container.pod), (&mut owner.container, &container.container)]
    {
        if known.is_empty() {
            known.clone_from(name);
        }
    }
    owner
}

/// Resources of other vendors are none of ours.
fn is_ours(resource: &str) -> bool {
    resource.starts_with("nvidia.com/")
}

/// Takes the number of a replica off an id: `UUID::3`, `nvidia0/vgpu3`. A resource that is called shared is a replica without it.
fn replica_of(device: &Device) -> (&str, Option<u32>) {
    for separator in ["::", "/vgpu"] {
        if let Some((name, number)) = device.id.split_once(separator) {
            return (name, Some(number.parse().unwrap_or(0)));
        }
    }
    (&device.id, device.resource.ends_with(".shared").then_some(0))
}

impl Places {
    fn of(gpus: &[Gpu]) -> Places {
        let mut places = Places { by_uuid: HashMap::new(), by_index: HashMap::new() };
        for (n, gpu) in gpus.iter().enumerate() {
            places.by_uuid.entry(gpu.uuid.clone()).or_insert((n, None));
            places.by_index.entry(gpu.index).or_insert(n);
            for (m, mig) in gpu.migs.iter().enumerate() {
                places.by_uuid.entry(mig.uuid.clone()).or_insert((n, Some(m)));
                // Before driver 470 a MIG device had no UUID of its own.
                let old = format!("MIG-{}/{}/{}", gpu.uuid, mig.gpu_instance, mig.compute_instance);
                places.by_uuid.entry(old).or_insert((n, Some(m)));
            }
        }
        places.by_uuid.remove("");
        places
    }

    /// By UUID, or `nvidia0`, `gpu0`, `gpu-0`, `0`, `nvidia0/gi1`, `0:1`, `gpu-0-mig-1g10gb-19-0`.
    fn find(&self, gpus: &[Gpu], name: &str) -> Result<Place, &'static str> {
        if let Some(place) = self.by_uuid.get(name) {
            return Ok(*place);
        }
        let rest = ["nvidia", "gpu-", "gpu"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (index, rest) = rest.split_at(digits);
        let n = *index.parse().ok().and_then(|index: u32| self.by_index.get(&index)).ok_or("unknown_device")?;
        let migs = &gpus[n].migs;
        let only = |is: &dyn Fn(&crate::reading::Mig) -> bool| {
            let mut found = migs.iter().enumerate().filter(|(_, mig)| is(mig)).map(|(m, _)| (n, Some(m)));
            match (found.next(), found.next()) {
                (Some(place), None) => Ok(place),
                (Some(_), Some(_)) => Err("ambiguous_mig"),
                (None, _) => Err("unknown_device"),
            }
        };
        if rest.is_empty() {
            return Ok((n, None));
        }
        if let Some(instance) = rest.strip_prefix("/gi") {
            let instance: u32 = instance.parse().map_err(|_| "unknown_device")?;
            return only(&|mig| mig.gpu_instance == instance);
        }
        if let Some(m) = rest.strip_prefix(':') {
            let m: usize = m.parse().map_err(|_| "unknown_device")?;
            return if m < migs.len() { Ok((n, Some(m))) } else { Err("unknown_device") };
        }
        // The driver of claims names a MIG device by profile and placement; the place is not in a reading, so the profile must do.
        let profile = rest.strip_prefix("-mig-").and_then(|rest| rest.split('-').next()).ok_or("unknown_device")?;
        only(&|mig| mig.profile.replace('.', "") == profile.replace('.', ""))
    }

    /// The devices of a claim. `Err(None)`: it is not of NVIDIA's devices.
    fn find_claim(&self, gpus: &[Gpu], claim: &Claim) -> Result<Vec<Place>, Option<&'static str>> {
        let mut found: Vec<Place> = Vec::new();
        let mut fault = None;
        let mut add = |place: Result<Place, &'static str>| match place {
            Ok(place) if found.contains(&place) => {}
            Ok(place) => found.push(place),
            Err(why) => fault = fault.or(Some(why)),
        };
        if claim.driver == "gpu.nvidia.com" && !claim.device.is_empty() {
            add(self.find(gpus, &claim.device));
        }
        for cdi in &claim.cdi {
            let Some((kind, device)) = cdi.split_once('=') else { continue };
            let Some((vendor, class)) = kind.split_once('/') else { continue };
            if !(vendor == "nvidia.com" || vendor.ends_with(".nvidia.com")) || vendor.contains("compute-domain") {
                continue;
            }
            match (class, device) {
                // `<uid of the claim>-<device>`; a uid has 36 bytes.
                ("claim", _) => {
                    add(device.get(37..).filter(|_| device.as_bytes()[36] == b'-').map_or(Err("unknown_device"), |d| self.find(gpus, d)))
                }
                ("gpu", "all") => (0..gpus.len()).for_each(|n| add(Ok((n, None)))),
                ("gpu" | "device" | "mig", _) => add(self.find(gpus, device)),
                _ => {}
            }
        }
        if found.is_empty() { Err(fault) } else { Ok(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Mig;
    use proptest::prelude::*;
    use telemetry::wire::{put_bytes, put_message, put_varint};

    /// Writes an answer as the kubelet does: `namespace/pod/container resource id,id` and claims
    /// `namespace/pod/container claim driver device cdi,cdi`.
    fn answer(lines: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let names: Vec<&str> = words[0].split('/').collect();
            put_message(&mut out, 1, |pod| {
                put_message(pod, 3, |container| {
                    put_bytes(container, 1, names[2].as_bytes());
                    if let [_, resource, ids] = words[..] {
                        put_message(container, 2, |devices| {
                            put_bytes(devices, 1, resource.as_bytes());
                            ids.split(',').for_each(|id| put_bytes(devices, 2, id.as_bytes()));
                            put_message(devices, 3, |topology| put_message(topology, 1, |node| put_varint(node, 1, 1)));
                        });
                        put_bytes(container, 3, &[0, 1, 0x80, 1]);
                        put_varint(container, 3, 9);
                    }
                    if let [_, claim, driver, device, cdi] = words[..] {
                        put_message(container, 5, |dynamic| {
                            put_bytes(dynamic, 1, b"an old class");
                            put_bytes(dynamic, 2, claim.as_bytes());
                            put_bytes(dynamic, 3, names[0].as_bytes());
                            put_message(dynamic, 4, |resource| {
                                for name in cdi.split(',') {
                                    put_message(resource, 1, |device| put_bytes(device, 1, name.as_bytes()));
                                }
                                put_bytes(resource, 2, driver.as_bytes());
                                put_bytes(resource, 3, b"node-1");
                                put_bytes(resource, 4, device.as_bytes());
                            });
                        });
                    }
                });
                put_bytes(pod, 2, names[0].as_bytes());
                put_bytes(pod, 1, names[1].as_bytes());
            });
        }
        out
    }

    /// Two GPUs, and one with MIG devices of 1, 1 and 3 slices.
    fn node() -> Reading {
        let mig = |n: u32, profile: &str| Mig { uuid: format!("MIG-{n}"), profile: profile.into(), gpu_instance: n, ..Mig::default() };
        let gpu = |index: u32| Gpu { index, uuid: format!("GPU-{index}"), ..Gpu::default() };
        let migs = vec![mig(7, "1g.10gb"), mig(8, "1g.10gb"), mig(9, "3g.40gb")];
        Reading { gpus: vec![gpu(0), gpu(1), Gpu { mig_enabled: true, migs, ..gpu(2) }], ..Reading::default() }
    }

    /// `device: pod[::replica][ claim]`, one line for each that was given; then faults.
    fn given(lines: &[&str]) -> Vec<String> {
        let mut reading = node();
        let listed = decode_list(&answer(lines)).unwrap();
        let lookup = |one: &PodDevices| (one.pod != "stranger").then(|| Owner { tenant: one.namespace.clone(), ..Owner::default() });
        let done = assign(&mut reading, &listed.containers, &lookup);
        let mut found = Vec::new();
        let mut line = |uuid: &str, one: &Given| {
            let replica = one.replica.map_or(String::new(), |n| format!("::{n}"));
            let claim = one.claim.as_ref().map_or(String::new(), |claim| format!(" {claim}"));
            found.push(format!("{uuid}: {}/{}{replica}{claim}", one.owner.tenant, one.owner.pod));
        };
        for gpu in &reading.gpus {
            gpu.given.iter().for_each(|one| line(&gpu.uuid, one));
            gpu.migs.iter().for_each(|mig| mig.given.iter().for_each(|one| line(&mig.uuid, one)));
        }
        found.extend(done.faults.iter().map(|(why, count)| format!("{why} {count}")));
        found
    }

    #[test]
    fn a_device_may_be_given_away_if_any_part_of_it_may() {
        let gpu = |n: u32| Gpu { index: n, uuid: format!("GPU-{n}"), ..Gpu::default() };
        let mig = crate::reading::Mig { uuid: "MIG-1".into(), ..Default::default() };
        let mut reading = Reading { gpus: vec![gpu(0), Gpu { migs: vec![mig], ..gpu(1) }, gpu(2), gpu(3)], ..Reading::default() };
        let device = |resource: &str, id: &str| Device { resource: resource.into(), id: id.into(), numa: Vec::new() };
        let devices = vec![
            device("nvidia.com/gpu.shared", "GPU-0::3"),
            device("nvidia.com/mig-1g.10gb", "MIG-1"),
            device("other.com/gpu", "GPU-2"),
            device("nvidia.com/gpu", "GPU-9"),
        ];
        allow(&mut reading, &Allocatable { devices, ..Allocatable::default() });
        assert_eq!(reading.gpus.iter().map(|gpu| gpu.allocatable).collect::<Vec<_>>(), [Some(true), Some(true), Some(false), Some(false)]);
    }

    #[test]
    fn devices_are_found_by_every_name_they_have() {
        let uid = "c8593c85-440d-4156-b199-aea592ff83df";
        let claim = |device: &str| format!("a/p/c k gpu.nvidia.com {device} k8s.gpu.nvidia.com/claim={uid}-{device}");
        let old = |cdi: &str| format!("a/p/c k   {cdi}").replace("k   ", "k - - ");
        let cases: Vec<(String, &[&str])> = vec![
            ("a/p/c nvidia.com/gpu GPU-1".into(), &["GPU-1: a/p"]),
            ("a/p/c nvidia.com/gpu GPU-0,GPU-1".into(), &["GPU-0: a/p", "GPU-1: a/p"]),
            ("a/p/c nvidia.com/gpu GPU-1::3".into(), &["GPU-1: a/p::3"]),
            ("a/p/c nvidia.com/gpu.shared GPU-1::0,GPU-1::2".into(), &["GPU-1: a/p::0", "GPU-1: a/p::2"]),
            ("a/p/c nvidia.com/gpu.shared GPU-1".into(), &["GPU-1: a/p::0"]),
            ("a/p/c nvidia.com/gpu nvidia1".into(), &["GPU-1: a/p"]),
            ("a/p/c nvidia.com/gpu nvidia1/vgpu4".into(), &["GPU-1: a/p::4"]),
            ("a/p/c nvidia.com/gpu nvidia2/gi9/vgpu1".into(), &["MIG-9: a/p::1"]),
            ("a/p/c nvidia.com/mig-3g.40gb MIG-9".into(), &["MIG-9: a/p"]),
            ("a/p/c nvidia.com/mig-1g.10gb MIG-8::1".into(), &["MIG-8: a/p::1"]),
            ("a/p/c nvidia.com/mig-1g.10gb MIG-GPU-2/7/0".into(), &["MIG-7: a/p"]),
            ("a/p/c vendor.com/fpga GPU-1".into(), &[]),
            ("a/p/c nvidia.com/gpu GPU-9".into(), &["unknown_device 1"]),
            ("a/stranger/c nvidia.com/gpu GPU-1".into(), &["GPU-1: /stranger", "unknown_owner 1"]),
            (claim("gpu-1"), &["GPU-1: a/p a/k"]),
            (claim("gpu-2-mig-3g40gb-9-4"), &["MIG-9: a/p a/k"]),
            (claim("gpu-2-mig-1g10gb-19-0"), &["ambiguous_mig 1"]),
            (claim("gpu-7"), &["unknown_device 1"]),
            (old("nvidia.com/gpu=GPU-0"), &["GPU-0: a/p a/k"]),
            (old("nvidia.com/gpu=MIG-8"), &["MIG-8: a/p a/k"]),
            (old("nvidia.com/gpu=2:1"), &["MIG-8: a/p a/k"]),
            (old("nvidia.com/gpu=2:3"), &["unknown_device 1"]),
            (old("nvidia.com/gpu=gpu1"), &["GPU-1: a/p a/k"]),
            (old("nvidia.com/gpu=all"), &["GPU-0: a/p a/k", "GPU-1: a/p a/k", "GPU-2: a/p a/k"]),
            (old("k8s.gpu.nvidia.com/device=gpu-0,k8s.gpu.nvidia.com/device=all"), &["GPU-0: a/p a/k"]),
            (old("vendor.com/gpu=GPU-0,nonsense,a=b"), &[]),
            (old("k8s.gpu.nvidia.com/claim=short"), &["unknown_device 1"]),
            (old(&format!("k8s.gpu.nvidia.com/claim={}", "ü".repeat(40))), &["unknown_device 1"]),
        ];
        for (line, want) in cases {
            assert_eq!(given(&[&line]), want, "{line}");
        }
    }

    #[test]
    fn an_answer_is_read_with_all_its_fields() {
        let bytes = answer(&["ns/pod-1/main nvidia.com/gpu GPU-0", "ns/pod-2/main k gpu.nvidia.com gpu-1 a/b=c,d/e=f"]);
        let listed = decode_list(&bytes).unwrap();
        let device = Device { resource: "nvidia.com/gpu".into(), id: "GPU-0".into(), numa: vec![1] };
        let first = PodDevices {
            namespace: "ns".into(),
            pod: "pod-1".into(),
            container: "main".into(),
            devices: vec![device.clone()],
            claims: vec![],
            cpus: vec![0, 1, 128, 9],
        };
        assert_eq!((&listed.containers[0], listed.left_out), (&first, 0));
        let claim = Claim {
            namespace: "ns".into(),
            name: "k".into(),
            driver: "gpu.nvidia.com".into(),
            pool: "node-1".into(),
            device: "gpu-1".into(),
            cdi: vec!["a/b=c".into(), "d/e=f".into()],
        };
        assert_eq!(listed.containers[1].claims, [claim]);
        // The same devices as what a node has to give.
        let mut all = Vec::new();
        put_message(&mut all, 1, |devices| {
            put_bytes(devices, 1, b"nvidia.com/gpu");
            put_bytes(devices, 2, b"GPU-0");
            put_message(devices, 3, |topology| put_message(topology, 1, |node| put_varint(node, 1, 1)));
        });
        put_bytes(&mut all, 2, &[5, 6]);
        let found = decode_allocatable(&all).unwrap();
        assert_eq!(found, Allocatable { devices: vec![device], cpus: vec![5, 6], left_out: 0 });
        assert!(list_request().is_empty() && allocatable_request().is_empty());
    }

    #[test]
    fn what_is_beyond_the_bounds_is_left_out_and_counted() {
        let mut bytes = Vec::new();
        put_message(&mut bytes, 1, |pod| {
            put_message(pod, 3, |container| {
                put_message(container, 2, |devices| (0..DEVICES_MAX + 3).for_each(|_| put_bytes(devices, 2, b"x")));
            });
        });
        let listed = decode_list(&bytes).unwrap();
        assert_eq!((listed.containers[0].devices.len(), listed.left_out), (DEVICES_MAX, 3));
        let long = format!("a/p/c nvidia.com/gpu {}", "ü".repeat(1_000));
        assert_eq!(decode_list(&answer(&[&long])).unwrap().containers[0].devices[0].id.len(), TEXT_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn no_answer_is_a_panic(bytes: Vec<u8>, at in 0usize..200, byte: u8) {
            let mut whole = answer(&["ns/pod-1/main nvidia.com/gpu GPU-0,GPU-1::2", "ns/p/main k gpu.nvidia.com gpu-1 nvidia.com/gpu=0"]);
            if let Some(changed) = whole.get_mut(at) {
                *changed = byte;
            }
            for bytes in [bytes, whole] {
                let _ = decode_allocatable(&bytes);
                if let Ok(listed) = decode_list(&bytes) {
                    assign(&mut node(), &listed.containers, &|_| None);
                }
            }
        }
    }
}
