//! The only way to durable storage: the same calls on the real and on the simulated disk.
//!
//! In: paths and bytes. Out: bytes that survive a crash once the file *and* the folder that names it were synced.
//! The simulated disk keeps the promises of POSIX and no more: written bytes may be lost, torn or replaced by zeros
//! until `File::sync`; created, renamed, linked and removed names may be lost, each by itself, until `sync_dir`.
//! It numbers its operations, so that a test can crash at each of them, and it is deterministic by its seed.
//! Bound: the simulated disk holds its files twice in memory; it is for tests. The real one holds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Why bytes are made durable here. A test breaks each site in turn and must notice.
pub type Site = &'static str;

#[derive(Clone)]
pub enum Disk {
    Real,
    Sim(Arc<Sim>),
}

/// A file that is open for reading.
pub enum Reading {
    Real(fs::File),
    Sim(Vec<u8>),
}

impl Reading {
    /// Fills `out` from `offset` on; at the end of the file as far as it goes. Returns how much that is.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Reading::Real(file) => {
                let mut done = 0;
                while done < out.len() {
                    match file.read_at(&mut out[done..], offset + done as u64) {
                        Ok(0) => break,
                        Ok(n) => done += n,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(done)
            }
            Reading::Sim(data) => {
                let rest = data.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
                let n = rest.len().min(out.len());
                out[..n].copy_from_slice(&rest[..n]);
                Ok(n)
            }
        }
    }
}

/// An open file; writes append at the end.
pub enum File {
    Real(fs::File),
    Sim(SimFile),
}

impl Disk {
    /// Creates the missing folders of `path` one by one and fsyncs the parent of each one it created, and of the
    /// deepest one that was there: a run that was killed may have created it and not got to the fsync.
    pub fn create_dir_all(&self, path: &Path, site: Site) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut folder = path;
        while !folder.as_os_str().is_empty() && !self.exists(folder)? {
            missing.push(folder);
            match folder.parent() {
                Some(parent) => folder = parent,
                None => break,
            }
        }
        match self.sync_dir(parent_of(folder), site) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {} // a folder above ours that we may not open is not our making
            other => other?,
        }
        for folder in missing.into_iter().rev() {
            match self.create_dir(folder) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
            self.sync_dir(parent_of(folder), site)?;
        }
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match self {
            Disk::Real => fs::create_dir(path),
            Disk::Sim(sim) => sim.create_dir(path),
        }
    }

    /// Opens a file that exists; writes go to its end.
    pub fn open_append(&self, path: &Path) -> io::Result<File> {
        match self {
            Disk::Real => fs::OpenOptions::new().append(true).open(path).map(File::Real),
            Disk::Sim(sim) => Ok(File::Sim(SimFile { inode: sim.alive()?.file(path)?, sim: Arc::clone(sim) })),
        }
    }

    /// Fails with `AlreadyExists` where the file exists. Not durable until file and folder are synced.
    pub fn create_new(&self, path: &Path) -> io::Result<File> {
        match self {
            Disk::Real => fs::OpenOptions::new().append(true).create_new(true).open(path).map(File::Real),
            Disk::Sim(sim) => Ok(File::Sim(SimFile { inode: sim.create(path, true)?, sim: Arc::clone(sim) })),
        }
    }

    /// An empty file of this name. Not durable until file and folder are synced.
    pub fn create_or_truncate(&self, path: &Path) -> io::Result<File> {
        match self {
            Disk::Real => {
                fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
                fs::OpenOptions::new().append(true).open(path).map(File::Real)
            }
            Disk::Sim(sim) => Ok(File::Sim(SimFile { inode: sim.create(path, false)?, sim: Arc::clone(sim) })),
        }
    }

    /// Whether an error says that this disk will never work again, so that trying again has no end. The real one may
    /// always come back: room is made, a volume is mounted again.
    pub fn is_gone(&self, error: &io::Error) -> bool {
        match self {
            Disk::Real => false,
            Disk::Sim(_) => is_crash(error),
        }
    }

    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self {
            Disk::Real => fs::read(path),
            Disk::Sim(sim) => sim.readable()?.data(path).cloned(),
        }
    }

    /// Up to `len` bytes from `offset`; fewer at the end of the file. Memory: what the file holds, at most `len`.
    pub fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        match self {
            Disk::Real => {
                let mut file = fs::File::open(path)?;
                let there = file.metadata()?.len().saturating_sub(offset).min(len as u64);
                let mut bytes = Vec::with_capacity(there as usize);
                file.seek(SeekFrom::Start(offset))?;
                file.take(there).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            Disk::Sim(sim) => {
                let state = sim.readable()?;
                let data = state.data(path)?;
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
                let end = start.saturating_add(len).min(data.len());
                Ok(data[start..end].to_vec())
            }
        }
    }

    /// Opens a file for reads at any place: what is open stays readable when its name is gone.
    pub fn open_read(&self, path: &Path) -> io::Result<Reading> {
        match self {
            Disk::Real => fs::File::open(path).map(Reading::Real),
            Disk::Sim(sim) => sim.readable()?.data(path).cloned().map(Reading::Sim),
        }
    }

    pub fn len(&self, path: &Path) -> io::Result<u64> {
        match self {
            Disk::Real => Ok(fs::metadata(path)?.len()),
            Disk::Sim(sim) => Ok(sim.alive()?.data(path)?.len() as u64),
        }
    }

    pub fn exists(&self, path: &Path) -> io::Result<bool> {
        match self {
            Disk::Real => path.try_exists(),
            Disk::Sim(sim) => Ok(sim.alive()?.find(path).is_ok()),
        }
    }

    /// Is there a regular file under this very name? A symlink is none.
    pub fn is_file(&self, path: &Path) -> io::Result<bool> {
        let is_file = |found: io::Result<fs::Metadata>| match found {
            Ok(meta) => Ok(meta.is_file()),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(e),
        };
        match self {
            Disk::Real => is_file(fs::symlink_metadata(path)),
            Disk::Sim(sim) => Ok(sim.alive()?.data(path).is_ok()),
        }
    }

    /// As [`Disk::is_file`], but a symlink counts as what it leads to.
    pub fn is_data(&self, path: &Path) -> io::Result<bool> {
        match self {
            Disk::Real => Ok(fs::metadata(path).is_ok_and(|meta| meta.is_file())),
            Disk::Sim(_) => self.is_file(path),
        }
    }

    /// Names in a folder (without the folder's path), sorted; an absent folder is empty.
    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        match self {
            Disk::Real => {
                let entries = match fs::read_dir(path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    other => other?,
                };
                let mut names = entries.map(|e| e.map(|e| PathBuf::from(e.file_name()))).collect::<io::Result<Vec<_>>>()?;
                names.sort();
                Ok(names)
            }
            Disk::Sim(sim) => sim.list(path),
        }
    }

    /// Cuts the file to `len` bytes and fsyncs it.
    pub fn truncate(&self, path: &Path, len: u64, site: Site) -> io::Result<()> {
        match self {
            Disk::Real => {
                let file = fs::OpenOptions::new().write(true).open(path)?;
                file.set_len(len)?;
                file.sync_all()
            }
            Disk::Sim(sim) => sim.truncate(path, len, site),
        }
    }

    pub fn rename(&self, from: &Path, to: &Path, site: Site) -> io::Result<()> {
        match self {
            Disk::Real => fs::rename(from, to),
            Disk::Sim(sim) => sim.rename(from, to, site),
        }
    }

    /// Fails with `AlreadyExists` where `to` exists.
    pub fn link(&self, from: &Path, to: &Path, site: Site) -> io::Result<()> {
        match self {
            Disk::Real => fs::hard_link(from, to),
            Disk::Sim(sim) => sim.link(from, to, site),
        }
    }

    pub fn unlink(&self, path: &Path) -> io::Result<()> {
        match self {
            Disk::Real => fs::remove_file(path),
            Disk::Sim(sim) => sim.unlink(path),
        }
    }

    pub fn sync_dir(&self, path: &Path, site: Site) -> io::Result<()> {
        match self {
            Disk::Real => fs::File::open(if path.as_os_str().is_empty() { Path::new(".") } else { path })?.sync_all(),
            Disk::Sim(sim) => sim.sync_dir(path, site),
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

impl File {
    /// Writes all of it, or returns an error; after an error any prefix of it may be in the file.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            File::Real(file) => file.write_all(bytes),
            File::Sim(file) => file.sim.append(file.inode, bytes),
        }
    }

    /// As `append` of `first` and then `second`, in one write where the system takes it.
    pub fn append_both(&mut self, first: &[u8], second: &[u8]) -> io::Result<()> {
        match self {
            File::Real(file) => {
                let whole = first.len() + second.len();
                let written = loop {
                    match file.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        other => break other?,
                    }
                };
                if written == whole {
                    return Ok(());
                }
                file.write_all(&first[written.min(first.len())..])?;
                file.write_all(&second[written.saturating_sub(first.len())..])
            }
            File::Sim(file) => file.sim.append(file.inode, &[first, second].concat()),
        }
    }

    /// fdatasync: content and length survive a crash; the name does not until the folder is synced.
    pub fn sync(&mut self, site: Site) -> io::Result<()> {
        match self {
            File::Real(file) => file.sync_data(),
            File::Sim(file) => file.sim.sync(file.inode, site),
        }
    }
}

/// What a crash takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Power loss, at its worst: everything unsynced vanishes.
    LoseUnsynced,
    /// `kill -9`: the page cache survives. It is still not durable: a later power loss may take it.
    KeepAll,
    /// Power loss with luck: unsynced bytes are kept up to a random length, perhaps with zeros behind; unsynced
    /// changes of names are kept or lost one by one, also where the data behind a name is lost.
    Seeded(u64),
}

/// A simulated disk: one generation of a machine, from start to crash.
pub struct Sim {
    state: Mutex<State>,
}

pub struct SimFile {
    sim: Arc<Sim>,
    inode: u64,
}

#[derive(Clone)]
struct State {
    random: u64,
    ops: u64,
    crash_at: Option<u64>,
    crashed: bool,
    troubled: bool,
    fail_at: BTreeMap<u64, io::ErrorKind>,
    fail_reads: Vec<io::ErrorKind>,
    fail_until: (u64, io::ErrorKind),
    broken: BTreeSet<Site>,
    sites: BTreeSet<Site>,
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    /// Changes of names that are not durable yet, oldest first; the edits of one operation stay together.
    pending: Vec<Vec<Edit>>,
}

#[derive(Clone)]
enum Node {
    File {
        data: Vec<u8>,
        durable: Vec<u8>,
        /// `data` and `durable` agree up to here.
        common: usize,
    },
    Folder {
        names: BTreeMap<OsString, u64>,
        durable: BTreeMap<OsString, u64>,
    },
}

#[derive(Clone)]
struct Edit {
    folder: u64,
    name: OsString,
    node: Option<u64>,
}

const ROOT: u64 = 0;
const CRASHED: &str = "simulated crash";

/// Whether an error says that the simulated machine is down.
pub fn is_crash(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.to_string() == CRASHED)
}

impl Sim {
    pub fn new(seed: u64) -> Sim {
        let root = Node::Folder { names: BTreeMap::new(), durable: BTreeMap::new() };
        Sim {
            state: Mutex::new(State {
                random: seed,
                ops: 0,
                crash_at: None,
                crashed: false,
                troubled: false,
                fail_at: BTreeMap::new(),
                fail_reads: Vec::new(),
                fail_until: (0, io::ErrorKind::Other),
                broken: BTreeSet::new(),
                sites: BTreeSet::new(),
                nodes: BTreeMap::from([(ROOT, root)]),
                next_node: ROOT + 1,
                pending: Vec::new(),
            }),
        }
    }

    /// The `op`-th operation from now on the clock of [`Sim::ops`] (the first is 1) and all later ones fail.
    pub fn crash_at(&self, op: u64) {
        self.lock().crash_at = Some(op);
    }

    /// The `op`-th operation fails with this kind, once; the program lives on. A write may have written a part.
    pub fn fail_at(&self, op: u64, kind: io::ErrorKind) {
        self.lock().fail_at.insert(op, kind);
    }

    /// Every operation before this one fails with this kind.
    pub fn fail_until(&self, op: u64, kind: io::ErrorKind) {
        self.lock().fail_until = (op, kind);
    }

    /// The next `times` readings fail with this kind.
    pub fn fail_reads(&self, times: usize, kind: io::ErrorKind) {
        self.lock().fail_reads = vec![kind; times];
    }

    /// From now on the fsync, link or rename of this site silently does nothing. Survives reboots.
    pub fn break_site(&self, site: Site) {
        self.lock().broken.insert(site);
    }

    /// Sites that ran so far, over all reboots.
    pub fn sites(&self) -> BTreeSet<Site> {
        self.lock().sites.clone()
    }

    /// Changing operations since the start or the last reboot.
    pub fn ops(&self) -> u64 {
        self.lock().ops
    }

    /// Whether the machine has crashed.
    pub fn is_down(&self) -> bool {
        self.lock().crashed
    }

    /// Whether an operation has failed since the start or the last reboot, by a crash or by a planted failure.
    pub fn troubled(&self) -> bool {
        self.lock().troubled
    }

    /// The disk as the machine finds it when it comes up again. The old one stays as it is; drop it.
    pub fn reboot(&self, loss: Loss) -> Sim {
        let mut state = self.lock().clone();
        match loss {
            Loss::KeepAll => {}
            Loss::LoseUnsynced => state.lose(None),
            Loss::Seeded(seed) => {
                state.random ^= seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let keep = state.next_random();
                state.lose(Some(keep));
            }
        }
        state.ops = 0;
        state.crash_at = None;
        state.crashed = false;
        state.troubled = false;
        state.fail_at.clear();
        state.fail_reads.clear();
        state.fail_until.0 = 0;
        Sim { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// The state for a call that reads content, which may be one that fails.
    fn readable(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.alive()?;
        match state.fail_reads.pop() {
            Some(kind) => Err(io::Error::new(kind, "simulated failure")),
            None => Ok(state),
        }
    }

    /// The state for a call that looks.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.crashed { Err(crash()) } else { Ok(state) }
    }

    /// The state for a changing call, which is counted and may be the one that fails.
    fn begin(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        match state.count() {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin()?;
        let (folder, name) = state.place(path)?;
        if state.lookup(folder, &name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = state.add(Node::Folder { names: BTreeMap::new(), durable: BTreeMap::new() });
        state.apply(vec![Edit { folder, name, node: Some(node) }]);
        Ok(())
    }

    fn create(&self, path: &Path, new: bool) -> io::Result<u64> {
        let mut state = self.begin()?;
        let (folder, name) = state.place(path)?;
        match state.lookup(folder, &name) {
            Some(_) if new => Err(io::ErrorKind::AlreadyExists.into()),
            Some(inode) => {
                let (data, _, common) = state.content(inode)?;
                data.clear();
                *common = 0;
                Ok(inode)
            }
            None => {
                let node = state.add(Node::File { data: Vec::new(), durable: Vec::new(), common: 0 });
                state.apply(vec![Edit { folder, name, node: Some(node) }]);
                Ok(node)
            }
        }
    }

    fn append(&self, inode: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let was_up = !state.crashed;
        let failure = state.count();
        let written = match &failure {
            None => bytes.len(),
            Some(_) if was_up => state.below(bytes.len() as u64 + 1) as usize,
            Some(_) => 0,
        };
        let (data, ..) = state.content(inode)?;
        data.extend_from_slice(&bytes[..written]);
        match failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn sync(&self, inode: u64, site: Site) -> io::Result<()> {
        let mut state = self.begin()?;
        state.sync(inode, site)
    }

    fn truncate(&self, path: &Path, len: u64, site: Site) -> io::Result<()> {
        let inode = {
            let mut state = self.begin()?;
            let inode = state.file(path)?;
            let (data, _, common) = state.content(inode)?;
            data.resize(usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?, 0);
            *common = (*common).min(data.len());
            inode
        };
        self.sync(inode, site)
    }

    fn rename(&self, from: &Path, to: &Path, site: Site) -> io::Result<()> {
        let mut state = self.begin()?;
        if !state.reach(site) {
            return Ok(());
        }
        let (source, source_name) = state.place(from)?;
        let node = state.lookup(source, &source_name).ok_or(io::ErrorKind::NotFound)?;
        let (folder, name) = state.place(to)?;
        if state.lookup(folder, &name) == Some(node) {
            return Ok(()); // as rename(2): two names of one file, nothing happens
        }
        state.apply(vec![Edit { folder: source, name: source_name, node: None }, Edit { folder, name, node: Some(node) }]);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path, site: Site) -> io::Result<()> {
        let mut state = self.begin()?;
        if !state.reach(site) {
            return Ok(());
        }
        let node = state.file(from)?;
        let (folder, name) = state.place(to)?;
        if state.lookup(folder, &name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.apply(vec![Edit { folder, name, node: Some(node) }]);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin()?;
        state.file(path)?;
        let (folder, name) = state.place(path)?;
        state.apply(vec![Edit { folder, name, node: None }]);
        Ok(())
    }

    fn sync_dir(&self, path: &Path, site: Site) -> io::Result<()> {
        let mut state = self.begin()?;
        let folder = state.find(path)?;
        if !state.reach(site) {
            return Ok(());
        }
        match state.nodes.get_mut(&folder) {
            Some(Node::Folder { names, durable }) => *durable = names.clone(),
            _ => return Err(io::ErrorKind::NotADirectory.into()),
        }
        for edits in &mut state.pending {
            edits.retain(|edit| edit.folder != folder);
        }
        state.pending.retain(|edits| !edits.is_empty());
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.alive()?;
        match state.find(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
            Ok(node) => match &state.nodes[&node] {
                Node::Folder { names, .. } => Ok(names.keys().map(PathBuf::from).collect()),
                Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
            },
        }
    }
}

fn crash() -> io::Error {
    io::Error::other(CRASHED)
}

impl State {
    /// Counts one operation; returns the error if it is to fail.
    fn count(&mut self) -> Option<io::Error> {
        if self.crashed {
            return Some(crash());
        }
        self.ops += 1;
        if self.crash_at.is_some_and(|at| self.ops >= at) {
            self.crashed = true;
            self.troubled = true;
            return Some(crash());
        }
        let ops = self.ops;
        let kind = self.fail_at.remove(&ops).or((ops < self.fail_until.0).then_some(self.fail_until.1))?;
        self.troubled = true;
        Some(io::Error::new(kind, "simulated failure"))
    }

    /// Notes that a site ran; false where it is broken.
    fn reach(&mut self, site: Site) -> bool {
        self.sites.insert(site);
        !self.broken.contains(site)
    }

    fn sync(&mut self, inode: u64, site: Site) -> io::Result<()> {
        if !self.reach(site) {
            return Ok(());
        }
        let (data, durable, common) = self.content(inode)?;
        durable.truncate(*common);
        durable.extend_from_slice(&data[*common..]);
        *common = data.len();
        Ok(())
    }

    /// splitmix64 (Steele, Lea, Flood 2014).
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next_random() % limit.max(1)
    }

    fn add(&mut self, node: Node) -> u64 {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        id
    }

    fn lookup(&self, folder: u64, name: &OsString) -> Option<u64> {
        match self.nodes.get(&folder) {
            Some(Node::Folder { names, .. }) => names.get(name).copied(),
            _ => None,
        }
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut node = ROOT;
        for part in path.components() {
            match part {
                Component::Normal(name) => node = self.lookup(node, &name.to_os_string()).ok_or(io::ErrorKind::NotFound)?,
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                Component::ParentDir => return Err(io::ErrorKind::Unsupported.into()),
            }
        }
        Ok(node)
    }

    /// The folder that holds (or would hold) a name.
    fn place(&self, path: &Path) -> io::Result<(u64, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.find(parent_of(path))?;
        match self.nodes.get(&folder) {
            Some(Node::Folder { .. }) => Ok((folder, name.to_os_string())),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        let node = self.find(path)?;
        match self.nodes.get(&node) {
            Some(Node::File { .. }) => Ok(node),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn data(&self, path: &Path) -> io::Result<&Vec<u8>> {
        match self.nodes.get(&self.find(path)?) {
            Some(Node::File { data, .. }) => Ok(data),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn content(&mut self, inode: u64) -> io::Result<(&mut Vec<u8>, &mut Vec<u8>, &mut usize)> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File { data, durable, common }) => Ok((data, durable, common)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn apply(&mut self, edits: Vec<Edit>) {
        for edit in &edits {
            if let Some(Node::Folder { names, .. }) = self.nodes.get_mut(&edit.folder) {
                set(names, edit);
            }
        }
        self.pending.push(edits);
    }

    /// Power loss: durable content only, or with some of what was not synced.
    fn lose(&mut self, luck: Option<u64>) {
        let pending = std::mem::take(&mut self.pending);
        let kept: Vec<Vec<Edit>> = match luck {
            None => Vec::new(),
            // A journalling file system keeps the oldest changes; POSIX promises no order at all. Try both.
            Some(luck) if luck % 2 == 0 => {
                let n = self.below(pending.len() as u64 + 1) as usize;
                pending.into_iter().take(n).collect()
            }
            Some(_) => pending.into_iter().filter(|_| self.below(2) == 0).collect(),
        };
        for edit in kept.into_iter().flatten() {
            if let Some(Node::Folder { durable, .. }) = self.nodes.get_mut(&edit.folder) {
                set(durable, &edit);
            }
        }
        let mut random = self.clone_random();
        for node in self.nodes.values_mut() {
            match node {
                Node::Folder { names, durable } => *names = durable.clone(),
                Node::File { data, durable, common } => {
                    let survives = match luck {
                        None => std::mem::take(durable),
                        Some(_) => random.survivor(data, durable, *common),
                    };
                    data.clone_from(&survives);
                    *common = survives.len();
                    *durable = survives;
                }
            }
        }
        self.random = random.random;
    }

    /// A generator that goes on from this one's state, without the nodes.
    fn clone_random(&self) -> Luck {
        Luck { random: self.random }
    }
}

fn set(names: &mut BTreeMap<OsString, u64>, edit: &Edit) {
    match edit.node {
        Some(node) => names.insert(edit.name.clone(), node),
        None => names.remove(&edit.name),
    };
}

struct Luck {
    random: u64,
}

impl Luck {
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random = if self.random == 0 { 0x9e37_79b9 } else { self.random };
        self.random % limit.max(1)
    }

    /// What a power loss leaves of a file that was not synced.
    fn survivor(&mut self, data: &[u8], durable: &[u8], common: usize) -> Vec<u8> {
        if common < durable.len() {
            // Cut and not synced: the old content, or the new one.
            return if self.below(2) == 0 { durable.to_vec() } else { data.to_vec() };
        }
        let unsynced = (data.len() - common) as u64;
        let kept = common + self.below(unsynced + 1) as usize;
        let mut bytes = data[..kept].to_vec();
        if self.below(4) == 0 {
            // The length reached the disk, the content did not.
            bytes.resize(kept + self.below((data.len() - kept) as u64 + 1) as usize, 0);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        Path::new("/d").join(name)
    }

    fn disk() -> (Arc<Sim>, Disk) {
        let sim = Arc::new(Sim::new(7));
        let disk = Disk::Sim(Arc::clone(&sim));
        disk.create_dir_all(Path::new("/d"), "folder").unwrap();
        (sim, disk)
    }

    fn write(disk: &Disk, name: &str, bytes: &[u8], sync: bool) {
        let mut file = disk.create_new(&path(name)).unwrap();
        file.append(bytes).unwrap();
        if sync {
            file.sync("file").unwrap();
        }
    }

    #[track_caller]
    fn check(sim: &Sim, loss: Loss, want: &[(&str, &[u8])]) {
        let disk = Disk::Sim(Arc::new(sim.reboot(loss)));
        let found: Vec<(String, Vec<u8>)> = disk
            .list(Path::new("/d"))
            .unwrap()
            .iter()
            .map(|n| (n.display().to_string(), disk.read(&path(&n.display().to_string())).unwrap()))
            .collect();
        let want: Vec<(String, Vec<u8>)> = want.iter().map(|(n, b)| ((*n).to_string(), b.to_vec())).collect();
        assert_eq!(found, want);
    }

    #[test]
    fn a_file_survives_only_with_content_and_name_synced() {
        let (sim, disk) = disk();
        write(&disk, "a", b"one", true);
        check(&sim, Loss::LoseUnsynced, &[]);
        disk.sync_dir(Path::new("/d"), "dir").unwrap();
        check(&sim, Loss::LoseUnsynced, &[("a", b"one")]);
        write(&disk, "b", b"two", false);
        disk.sync_dir(Path::new("/d"), "dir").unwrap();
        check(&sim, Loss::LoseUnsynced, &[("a", b"one"), ("b", b"")]);
        check(&sim, Loss::KeepAll, &[("a", b"one"), ("b", b"two")]);
    }

    #[test]
    fn a_rename_survives_with_its_folder_and_even_without_its_data() {
        let (sim, disk) = disk();
        write(&disk, "a", b"one", false);
        disk.rename(&path("a"), &path("b"), "rename").unwrap();
        check(&sim, Loss::LoseUnsynced, &[]);
        disk.sync_dir(Path::new("/d"), "dir").unwrap();
        check(&sim, Loss::LoseUnsynced, &[("b", b"")]);
        disk.link(&path("b"), &path("c"), "link").unwrap();
        assert_eq!(disk.link(&path("b"), &path("c"), "link").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.unlink(&path("b")).unwrap();
        check(&sim, Loss::KeepAll, &[("c", b"one")]);
        assert_eq!(sim.sites().into_iter().collect::<Vec<_>>(), ["dir", "folder", "link", "rename"]);
    }

    #[test]
    fn a_broken_site_syncs_nothing() {
        let (sim, disk) = disk();
        sim.break_site("file");
        write(&disk, "a", b"one", true);
        disk.sync_dir(Path::new("/d"), "dir").unwrap();
        check(&sim, Loss::LoseUnsynced, &[("a", b"")]);
    }

    #[test]
    fn after_the_crash_nothing_works_and_a_failure_is_survived() {
        let (sim, disk) = disk();
        sim.fail_at(sim.ops() + 2, io::ErrorKind::StorageFull);
        let mut file = disk.create_new(&path("a")).unwrap();
        assert_eq!(file.append(b"0123456789").unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.truncate(&path("a"), 0, "cut").unwrap();
        file.append(b"xy").unwrap();
        assert_eq!(disk.read_at(&path("a"), 1, 100).unwrap(), b"y");
        sim.crash_at(sim.ops() + 1);
        assert!(is_crash(&file.append(b"z").unwrap_err()));
        assert!(is_crash(&disk.read(&path("a")).unwrap_err()));
        assert!(is_crash(&disk.unlink(&path("a")).unwrap_err()));
    }

    #[test]
    fn luck_keeps_a_prefix_and_is_the_same_for_the_same_seed() {
        let (sim, disk) = disk();
        write(&disk, "a", b"", true);
        disk.sync_dir(Path::new("/d"), "dir").unwrap();
        disk.open_append(&path("a")).unwrap().append(b"0123456789").unwrap();
        let mut lengths = BTreeSet::new();
        for seed in 0..200 {
            let read = || Disk::Sim(Arc::new(sim.reboot(Loss::Seeded(seed)))).read(&path("a")).unwrap();
            let bytes = read();
            assert_eq!(bytes, read(), "seed {seed}");
            let kept = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            assert_eq!(bytes[..kept], b"0123456789"[..kept], "seed {seed}");
            lengths.insert(kept);
        }
        assert_eq!(lengths.len(), 11, "every length occurs");
    }

    #[test]
    fn the_real_disk_does_the_same() {
        let folder = std::env::temp_dir().join(format!("weir-disk-{}", std::process::id()));
        let deep = folder.join("x/y");
        Disk::Real.create_dir_all(&deep, "folder").unwrap();
        let mut file = Disk::Real.create_new(&deep.join("a")).unwrap();
        file.append(b"one").unwrap();
        file.sync("file").unwrap();
        assert_eq!(Disk::Real.create_new(&deep.join("a")).err().map(|e| e.kind()), Some(io::ErrorKind::AlreadyExists));
        Disk::Real.truncate(&deep.join("a"), 1, "cut").unwrap();
        file.append(b"two").unwrap();
        Disk::Real.link(&deep.join("a"), &deep.join("b"), "link").unwrap();
        Disk::Real.rename(&deep.join("b"), &deep.join("c"), "rename").unwrap();
        Disk::Real.sync_dir(&deep, "dir").unwrap();
        assert_eq!(Disk::Real.list(&deep).unwrap(), [PathBuf::from("a"), PathBuf::from("c")]);
        assert_eq!(Disk::Real.read(&deep.join("c")).unwrap(), b"otwo");
        assert_eq!(Disk::Real.read_at(&deep.join("c"), 2, 9).unwrap(), b"wo");
        assert_eq!(Disk::Real.len(&deep.join("c")).unwrap(), 4);
        let mut again = Disk::Real.create_or_truncate(&deep.join("a")).unwrap();
        again.append(b"z").unwrap();
        assert_eq!(Disk::Real.read(&deep.join("c")).unwrap(), b"z");
        Disk::Real.unlink(&deep.join("c")).unwrap();
        assert!(!Disk::Real.exists(&deep.join("c")).unwrap());
        assert!(Disk::Real.list(&folder.join("absent")).unwrap().is_empty());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
