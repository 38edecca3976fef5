//! Whose container a log is: reads what a sidecar wrote about pods, and says it for each log.
//!
//! In: a file or a folder of JSON files (`listing` says which shapes), looked at every `refresh` by a thread
//! of its own, so that no lane ever parses it; no API server. Out: for each log a [`Splice`], made anew when
//! what is known of its pod changes. A log whose pod is not known yet waits up to `wait`, then goes without.
//! A file that cannot be read or parsed leaves what it said before in force, is counted and told once. Memory:
//! `bytes_max` of files at a time while they are read, and what is kept of `pods_max` pods.

mod listing;

use anyhow::Context;
use flow::enrich::{Policy, Splice};
use flow::kubernetes::{Catalog, Listing, Own, Place, TenantRule};
use flow::units::{ByteSize, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Kubernetes: whose container a log is, from its path and from what is known of its pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Where labels and annotations of pods and namespaces are read from. Absent: only paths say something.
    pub metadata: Option<MetadataConfig>,
    /// Labels of the pod that go into records. Absent: all of them, at most 64 of 1KiB each and 8KiB together.
    pub labels: Option<Vec<String>>,
    /// Annotations of the pod: which go into records, and whether they may ask for something.
    #[serde(default)]
    pub annotations: AnnotationsConfig,
    /// Who pays for a pod's records.
    #[serde(default)]
    pub tenant: PodTenantConfig,
    /// Logs of weir itself, which are not read.
    #[serde(default)]
    pub own: OwnConfig,
}

/// A file or folder that says what pods and namespaces there are.
///
/// JSON, as `kubectl get pods,namespaces -A -o json` prints it, or
/// `{"namespaces": {"prod": {"labels": {}}}, "pods": [{"namespace": "prod", "name": "api-7d9f", "uid": "...", "labels": {}, "annotations": {}, "node": "...", "ip": "..."}]}`,
/// or one object of a pod in each file of a folder. What containers request is known where a pod has
/// `"containers": [{"name": "main", "id": "containerd://...", "requests": {"cpu": "500m", "memory": "1Gi"}}]`, or as kubectl prints it.
/// Replace files by renaming; a half-written one is not used.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataConfig {
    /// The file, or a folder of files that end with `.json` (not below it, at most 10000, hidden ones left out).
    pub path: PathBuf,
    /// How often it is looked at for changes, at least 10ms. Changes apply to records that are read later.
    #[serde(default = "refresh")]
    pub refresh: Span,
    /// How long a log waits for its pod to be named, at most 1h; then its records go with `"metadata":"missing"`. Not with `--once`.
    #[serde(default = "wait")]
    pub wait: Span,
    /// How long a pod is remembered that is not named any more, so that its last lines still have its labels.
    #[serde(default = "ttl")]
    pub ttl: Span,
    /// Most bytes of all files together, 4KiB to 1GiB; what is beyond is not read, counted and told.
    #[serde(default = "metadata_bytes_max")]
    pub bytes_max: ByteSize,
    /// Most pods that are remembered, and once more as many that went, 1 to 1000000; others are left out and counted.
    #[serde(default = "pods_max")]
    pub pods_max: u32,
}

/// Annotations of pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnnotationsConfig {
    /// Whether pods may ask: `weir.io/exclude: "true"` drops their records as filtered, `weir.io/format: text` or `json` says what
    /// their lines are. `_stdout` or `_stderr` and then `-<container>` behind the name say it for less; `fluentbit.io/exclude` is
    /// understood too. Where this is false, such wishes are counted and told.
    #[serde(default)]
    pub allow: bool,
    /// Annotations that go into records.
    #[serde(default)]
    pub keep: Vec<String>,
}

/// The tenant of a pod: a label of the pod, else of its namespace, else the map, else the unknown tenant.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PodTenantConfig {
    /// Label that names the tenant, on the pod or on its namespace; an empty value names nobody.
    #[serde(default = "tenant_label")]
    pub label: String,
    /// Tenants by namespace, for pods and namespaces without the label.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// Whom to believe where the record names a tenant too (`tenancy.from`).
    #[serde(default)]
    pub trust: Trust,
}

impl Default for PodTenantConfig {
    fn default() -> Self {
        PodTenantConfig { label: tenant_label(), map: BTreeMap::new(), trust: Trust::default() }
    }
}

/// Who says which tenant pays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The pod: a program cannot bill another tenant by writing a field.
    #[default]
    Metadata,
    /// The record (`tenancy.from`), and the pod where the record names nobody.
    Record,
}

/// The pod that weir runs in. Its logs are not read: each line of them would make another one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnConfig {
    /// Read them all the same.
    #[serde(default)]
    pub read: bool,
    /// Name of the pod. Absent, with `namespace` and `uid` absent too: the variable HOSTNAME, which Kubernetes sets to it.
    pub pod: Option<String>,
    /// Namespace of the pod. Absent: any.
    pub namespace: Option<String>,
    /// Uid of the pod. Absent: any.
    pub uid: Option<String>,
}

fn refresh() -> Span {
    Span(1_000_000_000)
}

fn wait() -> Span {
    Span(5_000_000_000)
}

fn ttl() -> Span {
    Span(600_000_000_000)
}

fn metadata_bytes_max() -> ByteSize {
    ByteSize(64 << 20)
}

fn pods_max() -> u32 {
    100_000
}

fn tenant_label() -> String {
    "tenant".into()
}

impl OwnConfig {
    fn own(&self, hostname: Option<String>) -> Option<Own> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let own = Own { pod: text(&self.pod), namespace: text(&self.namespace), uid: text(&self.uid) };
        match (self.read, own == Own::default()) {
            (true, _) => None,
            (false, false) => Some(own),
            (false, true) => hostname.filter(|name| !name.is_empty()).map(|pod| Own { pod, ..Own::default() }),
        }
    }
}

/// Most files of a folder that are looked at.
const FILES_MAX: usize = 10_000;
/// Links from `/var/log/containers` to the file of the runtime: two hops; a loop ends here.
const HOPS_MAX: usize = 8;

/// What happened since the start, for `/metrics` and `/api/sources`.
#[derive(Debug, Default)]
pub struct Counts {
    /// Pods that are known now.
    pub pods: AtomicU64,
    /// Pods, and labels and annotations, that the limits leave out now.
    pub pods_left_out: AtomicU64,
    pub labels_left_out: AtomicU64,
    /// Times that a metadata file could not be used: unreadable, no JSON, too large.
    pub files_refused: AtomicU64,
    /// Logs that went without metadata after they had waited.
    pub logs_missing: AtomicU64,
    /// Logs whose pod asks for something that `annotations.allow` does not allow.
    pub wishes_ignored: AtomicU64,
}

/// The metadata of one source, for all lanes.
pub struct Kubernetes {
    policy: Policy,
    own: Option<Own>,
    wait: Duration,
    /// `None`: only paths say something.
    known: Option<Arc<Known>>,
    pub counts: Arc<Counts>,
}

/// What the thread reads and lanes ask.
struct Known {
    catalog: Mutex<Arc<Catalog>>,
    /// Changes with the catalog, so that a lane sees that it has not changed without taking the lock.
    generation: AtomicU64,
}

impl Known {
    fn get(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.lock().expect("nobody panics while holding it"))
    }
}

/// May this log be read, and what do its records get?
#[derive(Debug)]
pub enum Readiness {
    /// Its pod is known, or nobody is asked.
    Ready(Arc<Splice>),
    /// Its pod is not known yet: read nothing, ask again.
    Wait,
    /// Its pod is not known, and it has waited long enough.
    Missing(Arc<Splice>),
    /// No container's log: its records go as they are, and name no tenant unless the record is trusted.
    Plain,
    /// Our own log: never read it.
    Own,
}

/// One log, as its lane sees it.
pub struct Attached {
    kubernetes: Arc<Kubernetes>,
    place: Option<Place>,
    is_own: bool,
    since: Instant,
    /// Made of the catalog of this generation.
    splice: Option<(u64, Arc<Splice>)>,
    told: Told,
}

/// What was counted of a log already.
#[derive(Default)]
struct Told {
    missing: bool,
    wish: bool,
    labels: bool,
}

impl Kubernetes {
    /// Reads the metadata once, and then, unless `once`, again and again in a thread that ends with the last
    /// reference to what is returned. `text`: lines of the source are text.
    pub fn open(config: &KubernetesConfig, text: bool, once: bool) -> anyhow::Result<Arc<Kubernetes>> {
        let policy = Policy {
            labels: config.labels.clone(),
            annotations: config.annotations.keep.clone(),
            obey: config.annotations.allow,
            tenant: TenantRule { label: config.tenant.label.clone(), map: config.tenant.map.clone() },
            trust_record: config.tenant.trust == Trust::Record,
            text,
        };
        let counts = Arc::new(Counts::default());
        let mut known = None;
        if let Some(metadata) = &config.metadata {
            let shared = Arc::new(Known { catalog: Mutex::default(), generation: AtomicU64::new(0) });
            let mut reader = Reader::new(metadata.clone(), config.annotations.keep.clone(), Arc::clone(&counts));
            reader.refresh(&shared);
            if !once {
                let weak = Arc::downgrade(&shared);
                let thread = std::thread::Builder::new().name("kubernetes".into());
                thread.spawn(move || reader.run(&weak)).context("cannot start the thread kubernetes")?;
            }
            known = Some(shared);
        }
        let own = config.own.own(std::env::var("HOSTNAME").ok());
        // With --once everything is read before the first line is; waiting would only let the clock show.
        let wait = config.metadata.as_ref().filter(|_| !once).map_or(Duration::ZERO, |m| m.wait.duration());
        Ok(Arc::new(Kubernetes { policy, own, wait, known, counts }))
    }

    /// Changes when what is known of pods does.
    pub fn generation(&self) -> u64 {
        self.known.as_ref().map_or(0, |known| known.generation.load(Ordering::Acquire))
    }

    /// What is known of pods now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.known.as_ref().map_or_else(Arc::default, |known| known.get())
    }

    pub fn tenant_rule(&self) -> &TenantRule {
        &self.policy.tenant
    }

    /// Is this our own log? It is never read: each line of it would make another one.
    pub fn is_own(&self, path: &Path) -> bool {
        let place = || Place::of_hops(hops(path).iter().filter_map(|hop| hop.to_str()));
        self.own.as_ref().is_some_and(|own| place().is_some_and(|place| own.is(&place)))
    }

    /// Begins with a log: `path` may be a link. Resolves it now, as a container's links may go before its file is read.
    pub fn attach(self: &Arc<Self>, path: &Path, now: Instant) -> Attached {
        let hops = hops(path);
        let place = Place::of_hops(hops.iter().filter_map(|hop| hop.to_str()));
        let is_own = place.as_ref().is_some_and(|place| self.own.as_ref().is_some_and(|own| own.is(place)));
        Attached { kubernetes: Arc::clone(self), place, is_own, since: now, splice: None, told: Told::default() }
    }
}

/// The path, what it points to, what that points to, and where all that ends up.
fn hops(path: &Path) -> Vec<PathBuf> {
    let mut hops = vec![path.to_path_buf()];
    while hops.len() < HOPS_MAX
        && let Some(last) = hops.last()
        && let Ok(target) = std::fs::read_link(last)
    {
        let target = last.parent().unwrap_or(Path::new("")).join(target);
        hops.push(target);
    }
    hops.extend(std::fs::canonicalize(path));
    hops
}

impl Attached {
    /// Ask before each read.
    pub fn ready(&mut self, now: Instant) -> Readiness {
        let Some(place) = self.place.as_ref().filter(|_| !self.is_own) else {
            return if self.is_own { Readiness::Own } else { Readiness::Plain };
        };
        let kubernetes = &*self.kubernetes;
        let generation = kubernetes.generation();
        if self.splice.as_ref().is_none_or(|(made, _)| *made != generation) {
            let catalog = kubernetes.known.as_ref().map(|known| known.get());
            let splice = Splice::new(place, catalog.as_deref(), &kubernetes.policy);
            self.told.tell(place, &splice, &kubernetes.counts);
            self.splice = Some((generation, Arc::new(splice)));
        }
        let splice = Arc::clone(&self.splice.as_ref().expect("made just before").1);
        match splice.missing {
            false => Readiness::Ready(splice),
            true if now.saturating_duration_since(self.since) < kubernetes.wait => Readiness::Wait,
            true => {
                if !std::mem::replace(&mut self.told.missing, true) {
                    kubernetes.counts.logs_missing.fetch_add(1, Ordering::Relaxed);
                    warn!(
                        namespace = place.namespace,
                        pod = place.pod,
                        uid = place.uid,
                        "nobody names this pod: its records go without its labels"
                    );
                }
                Readiness::Missing(splice)
            }
        }
    }

    /// Does the record itself say who pays, also where nothing is known of its container?
    pub fn trusts_record(&self) -> bool {
        self.kubernetes.policy.trust_record
    }
}

impl Told {
    fn tell(&mut self, place: &Place, splice: &Splice, counts: &Counts) {
        if splice.wish_ignored && !std::mem::replace(&mut self.wish, true) {
            counts.wishes_ignored.fetch_add(1, Ordering::Relaxed);
            info!(namespace = place.namespace, pod = place.pod, "its annotations ask for something; `annotations.allow` is false");
        }
        if splice.labels_left_out > 0 && !std::mem::replace(&mut self.labels, true) {
            counts.labels_left_out.fetch_add(splice.labels_left_out, Ordering::Relaxed);
            warn!(
                namespace = place.namespace,
                pod = place.pod,
                labels = splice.labels_left_out,
                "labels beyond 8KiB are left out of its records"
            );
        }
    }
}

/// Reads the metadata files.
struct Reader {
    config: MetadataConfig,
    keep: Vec<String>,
    counts: Arc<Counts>,
    started: Instant,
    files: BTreeMap<PathBuf, Seen>,
    /// Paths that could not be used, and as what: each is told once.
    told: BTreeSet<(PathBuf, Option<Stamp>)>,
    left_out: flow::kubernetes::LeftOut,
}

/// One file, as last read.
struct Seen {
    /// `None`: it was changed while it was read.
    stamp: Option<Stamp>,
    listing: Listing,
}

/// Two of these differ if a file was replaced or written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Stamp {
        Stamp {
            inode: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Reader {
    fn new(config: MetadataConfig, keep: Vec<String>, counts: Arc<Counts>) -> Reader {
        let left_out = Default::default();
        Reader { config, keep, counts, started: Instant::now(), files: BTreeMap::new(), told: BTreeSet::new(), left_out }
    }

    fn run(mut self, known: &Weak<Known>) {
        loop {
            std::thread::park_timeout(self.config.refresh.duration());
            let Some(known) = known.upgrade() else { return };
            self.refresh(&known);
        }
    }

    /// Looks at the files; where one changed, or a pod is to be forgotten, makes a new catalog.
    fn refresh(&mut self, known: &Known) {
        let now = self.started.elapsed();
        let changed = self.look();
        let old = known.get();
        if !changed && old.expires().is_none_or(|at| at > now) {
            return;
        }
        let listings = self.files.values().map(|seen| &seen.listing);
        let next = old.next(listings, now, self.config.ttl.duration(), self.config.pods_max as usize);
        self.counts.pods.store(next.len() as u64, Ordering::Relaxed);
        self.counts.pods_left_out.store(next.left_out.pods, Ordering::Relaxed);
        if next.left_out != self.left_out {
            self.counts.labels_left_out.fetch_add(next.left_out.labels.saturating_sub(self.left_out.labels), Ordering::Relaxed);
            self.left_out = next.left_out;
            if next.left_out != Default::default() {
                let (pods, labels) = (next.left_out.pods, next.left_out.labels);
                warn!(path = %self.config.path.display(), pods, labels, "beyond the limits, these are left out");
            }
        }
        *known.catalog.lock().expect("nobody panics while holding it") = Arc::new(next);
        known.generation.fetch_add(1, Ordering::Release);
    }

    /// Reads the files that changed. Did any?
    fn look(&mut self) -> bool {
        let paths = match self.paths() {
            Ok(paths) => paths,
            Err(error) => {
                // Nothing can be said about the files: what they said stays in force.
                self.refuse(&self.config.path.clone(), None, &error.to_string());
                return false;
            }
        };
        let before = self.files.len();
        self.files.retain(|path, _| paths.contains(path));
        let mut changed = self.files.len() != before;
        let mut budget = self.config.bytes_max.0;
        for path in paths {
            changed |= self.look_at(path, &mut budget);
        }
        changed
    }

    fn paths(&mut self) -> std::io::Result<BTreeSet<PathBuf>> {
        let root = &self.config.path;
        let meta = match std::fs::metadata(root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other?,
        };
        if !meta.is_dir() {
            return Ok(BTreeSet::from([root.clone()]));
        }
        let mut paths = BTreeSet::new();
        for entry in std::fs::read_dir(root)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if !name.starts_with(b".") && name.ends_with(b".json") {
                paths.insert(path);
            }
        }
        if paths.len() > FILES_MAX {
            let beyond = paths.len() - FILES_MAX;
            paths = paths.into_iter().take(FILES_MAX).collect();
            let root = root.clone();
            self.refuse(&root, None, &format!("the folder holds {} files too many; the last ones by name are not read", beyond));
        }
        Ok(paths)
    }

    fn look_at(&mut self, path: PathBuf, budget: &mut u64) -> bool {
        let meta = match std::fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) => {
                self.refuse(&path, None, &error.to_string());
                return false;
            }
        };
        let stamp = Stamp::of(&meta);
        let seen = self.files.get(&path);
        let is_known = seen.is_some_and(|seen| seen.stamp == Some(stamp));
        if !meta.is_file() || stamp.size > *budget {
            if !is_known {
                let rule = if meta.is_file() { "it is too large: all files together may have `bytes_max`" } else { "it is no file" };
                self.refuse(&path, Some(stamp), rule);
            }
            return false;
        }
        *budget -= stamp.size;
        if is_known {
            return false;
        }
        match self.read(&path, stamp) {
            Ok((listing, stamp)) => {
                self.files.insert(path, Seen { stamp, listing });
                true
            }
            Err(error) => {
                self.refuse(&path, Some(stamp), &format!("{error:#}"));
                // Not looked at again until it changes; what it said before stays in force.
                self.files.entry(path).or_insert_with(|| Seen { stamp: None, listing: Listing::default() }).stamp = Some(stamp);
                false
            }
        }
    }

    fn read(&self, path: &Path, stamp: Stamp) -> anyhow::Result<(Listing, Option<Stamp>)> {
        let file = std::fs::File::open(path)?;
        let mut text = Vec::with_capacity(stamp.size as usize);
        (&file).take(stamp.size + 1).read_to_end(&mut text)?;
        let after = Stamp::of(&file.metadata()?);
        let listing = listing::parse(&text, &self.keep)?;
        Ok((listing, (after == stamp).then_some(stamp)))
    }

    fn refuse(&mut self, path: &Path, stamp: Option<Stamp>, error: &str) {
        if self.told.len() >= FILES_MAX {
            self.told.clear();
        }
        if self.told.insert((path.to_path_buf(), stamp)) {
            self.counts.files_refused.fetch_add(1, Ordering::Relaxed);
            warn!(path = %path.display(), error, "cannot use what it says about pods; what it said before stays in force");
        }
    }
}

/// Keeps weir from reading what weir writes.
#[derive(Clone, Default)]
pub struct Guard {
    pub kubernetes: Option<Arc<Kubernetes>>,
    pub outputs: Arc<Outputs>,
}

impl Guard {
    /// Ask before a file is opened for the first time.
    pub fn refuses(&self, path: &Path) -> bool {
        self.outputs.hold(path) || self.kubernetes.as_ref().is_some_and(|kubernetes| kubernetes.is_own(path))
    }
}

/// Files that weir itself writes: reading them would make a line of every line, for ever.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Everything below is ours.
    folders: Vec<PathBuf>,
    /// Folder of an archive, and the names in it that are ours.
    archives: Vec<(PathBuf, Vec<glob::Pattern>)>,
}

impl Outputs {
    /// `folders`: of lakes and the hub. `archives`: folder and path template (`{tenant}/{service}.log`) of each.
    pub fn new(folders: &[PathBuf], archives: &[(PathBuf, String)]) -> Outputs {
        let archives = archives.iter().map(|(dir, template)| (resolve(dir), patterns(template))).collect();
        Outputs { folders: folders.iter().map(|folder| resolve(folder)).collect(), archives }
    }

    /// Is this one of our own files? `path` may be a link to one.
    pub fn hold(&self, path: &Path) -> bool {
        let path = resolve(path);
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        self.folders.iter().any(|folder| path.starts_with(folder))
            || self.archives.iter().any(|(folder, patterns)| {
                path.strip_prefix(folder).is_ok_and(|rest| patterns.iter().any(|p| p.matches_path_with(rest, options)))
            })
    }
}

/// The path without links, also if it (or its folder) is not there yet.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(path) = std::fs::canonicalize(path) {
        return path;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => std::env::current_dir().unwrap_or_default().join(name),
        (Some(parent), Some(name)) => resolve(parent).join(name),
        _ => path.to_path_buf(),
    }
}

/// Names that a template makes, those of rotated and compressed files too.
fn patterns(template: &str) -> Vec<glob::Pattern> {
    let mut text = String::new();
    let mut depth = 0;
    for c in template.chars() {
        match c {
            '{' => {
                depth += 1;
                text.push('*');
            }
            '}' => depth = 0,
            _ if depth > 0 => {}
            '*' | '?' | '[' | ']' => text.extend(['[', c, ']']),
            _ => text.push(c),
        }
    }
    let (folder, name) = text.rsplit_once('/').map_or(("", text.as_str()), |(_, name)| text.split_at(text.len() - name.len()));
    let rotated = match name.rsplit_once('.') {
        Some((stem, ending)) => format!("{folder}{stem}-*.{ending}"),
        None => format!("{folder}{name}-*"),
    };
    let names = [text.as_str(), rotated.as_str()].into_iter().flat_map(|name| ["", ".gz", ".zst"].map(|packed| format!("{name}{packed}")));
    names.filter_map(|name| glob::Pattern::new(&name).ok()).collect()
}

#[cfg(test)]
mod tests;
