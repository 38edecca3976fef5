//! Replaces a small file as a whole: after a crash at any moment it has its old content or the new one.
//!
//! In: a disk, a path, bytes. Out: the file, durable under its name. Method: write beside it, fsync, rename,
//! fsync the folder. One writer at a time; the caller holds the data folder's lock.

use anyhow::Context;
use hub::Disk;
use std::path::Path;

pub fn replace(disk: &Disk, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let tmp = path.with_extension("tmp");
    let folder = path.parent().expect("files of the data folder have a folder");
    let write = || {
        let mut file = disk.create_or_truncate(&tmp)?;
        file.append(bytes)?;
        // The rename may be durable before the bytes are, unless they are synced first.
        file.sync("replace.data")?;
        disk.rename(&tmp, path, "replace.rename")?;
        disk.sync_dir(folder, "replace.folder")
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Creates a file of the user's; one that is there stays.
pub fn create_new(path: &Path) -> anyhow::Result<std::fs::File> {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    made.with_context(|| format!("cannot create {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::disk::{Loss, Sim};
    use std::sync::Arc;

    /// Replaces a file twice with a crash at operation `at`; the file must then hold what was promised.
    fn survives(at: u64, loss: Loss, broken: Option<&'static str>) -> bool {
        let sim = Arc::new(Sim::new(7));
        let disk = Disk::Sim(Arc::clone(&sim));
        let path = Path::new("/data/file.json");
        disk.create_dir_all(Path::new("/data"), "folder").expect("an empty disk takes a folder");
        let before = sim.ops();
        if let Some(site) = broken {
            sim.break_site(site);
        }
        sim.crash_at(before + at);
        let first = replace(&disk, path, b"old").is_ok();
        let second = replace(&disk, path, b"new").is_ok();
        let after = Disk::Sim(Arc::new(sim.reboot(loss)));
        match after.read(path).ok().as_deref() {
            Some(b"new") => true,
            Some(b"old") => !second,
            Some(_) => false,
            None => !first,
        }
    }

    fn holds(broken: Option<&'static str>) -> bool {
        let losses = (0..40).map(Loss::Seeded).chain([Loss::LoseUnsynced, Loss::KeepAll]);
        losses.into_iter().all(|loss| (0..14).all(|at| survives(at, loss, broken)))
    }

    #[test]
    fn a_crash_leaves_the_old_content_or_the_new_one() {
        assert!(holds(None));
    }

    #[test]
    fn every_sync_and_rename_is_needed() {
        for site in ["replace.data", "replace.rename", "replace.folder"] {
            assert!(!holds(Some(site)), "{site} could be left out");
        }
    }
}
