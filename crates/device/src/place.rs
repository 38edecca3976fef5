//! Which pod and container a control group is of, by its path.
//!
//! In: a path below `/sys/fs/cgroup`, or of `/proc/PID/cgroup`. Out: a [`Place`]. Knows the kubelet's drivers (cgroupfs, systemd, and
//! containerd that was not told which), containerd, CRI-O, Docker and Podman, and any prefix: `--cgroup-root`, nodes in containers.

/// Longest path that is looked at.
pub const PATH_BYTES_MAX: usize = 4_096;

/// The container of a process. What is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// As the API has it: with `-`, or (of static pods) 32 hex digits.
    pub pod_uid: String,
    /// 64 hex digits.
    pub container_id: String,
}

/// Reads the path of a control group, from the innermost pod outwards: what contains it are nodes in containers.
///
/// Shapes: `/kubepods/burstable/pod<uid>/<id>`, `/kubepods.slice/…-pod<uid>.slice/cri-containerd-<id>.scope`,
/// `…-pod<uid>.slice:cri-containerd:<id>`, `/docker/<id>`, `/system.slice/docker-<id>.scope`, `/../<id>` within a namespace.
/// Also whether the path ends there: what is deeper the container made itself. `None`: neither a pod's nor a container's.
pub fn of_path(path: &str) -> Option<(Place, bool)> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    let parts: Vec<&str> = path.split(['/', ':']).filter(|part| !part.is_empty() && *part != "..").collect();
    let container = |(n, part): (usize, &&str)| Some((n, container_id(part)?));
    let pod = parts.iter().enumerate().rev().find_map(|(n, part)| Some((n, pod_uid(part)?)));
    let (end, place) = match pod {
        // Below the pod the container comes first.
        Some((n, pod_uid)) => match parts.iter().enumerate().skip(n + 1).find_map(container) {
            Some((end, container_id)) => (end, Place { pod_uid, container_id }),
            None => (n, Place { pod_uid, container_id: String::new() }),
        },
        // Without a pod the innermost container: Docker in Docker.
        None => {
            let (end, container_id) = parts.iter().enumerate().rev().find_map(container)?;
            (end, Place { pod_uid: String::new(), container_id })
        }
    };
    Some((place, end + 1 == parts.len()))
}

/// The uid in `pod<uid>` or `kubepods-burstable-pod<uid>.slice`, whose `-` systemd makes `_`.
fn pod_uid(part: &str) -> Option<String> {
    let name = match part.strip_suffix(".slice") {
        Some(name) if name.contains("kubepods") => &name[name.rfind("-pod")? + 4..],
        Some(_) => return None,
        None => part.strip_prefix("pod")?,
    };
    let uid = name.replace('_', "-");
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_uid = match uid.len() {
        32 => is_hex(&uid), // of a static pod: the hash of its manifest
        36 => uid.split('-').map(|word| if is_hex(word) { word.len() } else { 0 }).eq([8, 4, 4, 4, 12]),
        _ => false,
    };
    is_uid.then(|| uid.to_ascii_lowercase())
}

/// The id in `<id>`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `docker-<id>.scope`, `libpod-<id>.scope`. The monitor of
/// CRI-O and Podman (`crio-conmon-<id>`) is no part of the container.
fn container_id(part: &str) -> Option<String> {
    let name = part.strip_suffix(".scope").or_else(|| part.strip_suffix(".service")).unwrap_or(part);
    let (prefix, id) = name.rsplit_once('-').unwrap_or(("", name));
    let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (is_id && !prefix.ends_with("conmon")).then(|| id.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c0000000000000000000000000000000000000000000000000000000000aa";
    const UID: &str = "0f2c1b7e-1111-4222-8333-abcdefabcdef";
    const UID_: &str = "0f2c1b7e_1111_4222_8333_abcdefabcdef";

    #[test]
    fn a_path_says_which_pod_and_container_it_is_of() {
        let none = "";
        for (path, pod, container, is_end) in [
            // kubelet with cgroupfs
            (format!("/kubepods/burstable/pod{UID}/{ID}"), UID, ID, true),
            (format!("/kubepods/pod{UID}/{ID}"), UID, ID, true),
            (format!("/kubepods/besteffort/pod{UID}"), UID, none, true),
            (format!("/kubepods/burstable/pod{UID}/{ID}/nested/deep"), UID, ID, false),
            (format!("kubepods/burstable/pod{UID}/{ID}"), UID, ID, true),
            // a static pod's uid is a digest
            (format!("/kubepods/pod{}/{ID}", &ID[..32]), &ID[..32], ID, true),
            // with systemd
            (
                format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope"),
                UID,
                ID,
                true,
            ),
            (format!("/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope"), UID, ID, true),
            (format!("/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope/container"), UID, ID, false),
            (format!("/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope"), UID, ID, true),
            (format!("/kubepods.slice/kubepods-pod{UID_}.slice"), UID, none, true),
            (format!("/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope"), UID, none, false),
            (
                format!(
                    "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope"
                ),
                UID,
                ID,
                true,
            ),
            // containerd that was not told of systemd
            (format!("/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}"), UID, ID, true),
            (format!("/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}/init.scope"), UID, ID, false),
            // a machine inside a machine: the inner pod counts
            (format!("/docker/{ID}/kubelet/kubepods/besteffort/pod{UID}/{ID}"), UID, ID, true),
            // no pod
            (format!("/docker/{ID}"), none, ID, true),
            (format!("/system.slice/docker-{ID}.scope"), none, ID, true),
            (format!("/machine.slice/libpod-{ID}.scope/container"), none, ID, false),
        ] {
            let want = Place { pod_uid: pod.into(), container_id: container.into() };
            assert_eq!(of_path(&path), Some((want, is_end)), "{path}");
        }
        for path in [
            "/",
            "",
            "/kubepods",
            "/kubepods.slice/kubepods-burstable.slice",
            "/system.slice/sshd.service",
            "/user.slice/user-1000.slice/session-2.scope",
            "/podman/x",
            "/pods/pod",
            "/docker",
            "/system.slice/system-getty.slice",
            "/init.scope",
        ] {
            assert_eq!(of_path(path), None, "{path}");
        }
    }
}
