//! Reload: pipeline files are read again while they run, and what may change takes effect.
//!
//! In: SIGHUP or `weir reload`. Out: a plan in the place of the one before, or nothing changed and the reason. Everything new is
//! read, checked, compiled and written down before anything is swapped. Each lane goes over between two frames; the last one
//! takes what gone steps remembered out of the hub's account, so that a step that comes back starts anew. One reload at a time;
//! until the last lane has gone over, two plans are in memory, and what steps that changed remembered.

use super::lane::{Inbox, Pipeline, Signals};
use super::write_manifest;
use crate::config::{self, AdminConfig, Changes, Config, Loaded, Report};
use crate::plan::{self, Plan};
use crate::sources::status::lock;
use anyhow::Context;
use flow::step::sample::key_hash;
use hub::Disk;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long an answer waits for lanes: one that waits for room in its hub goes over when it has some.
const LANES_WAIT_MAX: Duration = Duration::from_secs(10);

/// The plan that lanes decide by.
pub struct Current {
    /// Read without the lock, once for each chunk.
    version: AtomicU64,
    place: Mutex<Place>,
}

struct Place {
    plan: Arc<Plan>,
    /// Lanes that have not gone over yet.
    awaited: usize,
    /// Ids of steps that are gone; told to the hub when nobody runs them any more.
    gone: Vec<u32>,
    is_settled: bool,
}

impl Current {
    pub fn new(plan: Plan) -> Current {
        let place = Place { plan: Arc::new(plan), awaited: 0, gone: Vec::new(), is_settled: true };
        Current { version: AtomicU64::new(1), place: Mutex::new(place) }
    }

    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn get(&self) -> (u64, Arc<Plan>) {
        let place = lock(&self.place);
        (self.version(), Arc::clone(&place.plan))
    }

    /// A lane has gone over to this version. The last one gets the steps to forget, and then calls [`Current::settle`].
    pub fn arrive(&self) -> Option<Vec<u32>> {
        let mut place = lock(&self.place);
        place.awaited -= 1;
        (place.awaited == 0).then(|| std::mem::take(&mut place.gone))
    }

    pub fn settle(&self) {
        lock(&self.place).is_settled = true;
    }

    fn is_settled(&self) -> bool {
        lock(&self.place).is_settled
    }

    /// The one before must be settled: no lane skips a version.
    fn put(&self, plan: Plan, lanes: usize) {
        let mut place = lock(&self.place);
        assert!(place.is_settled, "one reload at a time");
        let ids = &plan.rules.step_ids;
        let gone = place.plan.rules.step_ids.iter().filter(|id| !ids.contains(id)).copied().collect();
        *place = Place { plan: Arc::new(plan), awaited: lanes, gone, is_settled: false };
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// What a reload came to.
pub enum Outcome {
    /// What changed, by pipeline; `is_settled`: every lane has gone over.
    Changed {
        changes: Vec<(String, Changes)>,
        is_settled: bool,
    },
    Unchanged,
    /// The new files are wrong, or need a restart.
    Refused(Report),
    /// The world is: a key that cannot be read, a full disk.
    Failed(anyhow::Error),
}

impl Outcome {
    pub const NAMES: [&str; 4] = ["changed", "unchanged", "refused", "failed"];

    fn number(&self) -> usize {
        match self {
            Outcome::Changed { .. } => 0,
            Outcome::Unchanged => 1,
            Outcome::Refused(_) => 2,
            Outcome::Failed(_) => 3,
        }
    }
}

/// What reloads came to, for whoever watches.
#[derive(Default)]
pub struct Reloads {
    /// By [`Outcome::NAMES`].
    pub counts: [AtomicU64; 4],
    /// 1 at the start, one more with each change.
    pub generation: AtomicU64,
    pub last_failed: AtomicBool,
    /// Tells one config in force from another.
    pub hash: Mutex<String>,
}

pub struct Reloader {
    disk: Disk,
    data: PathBuf,
    /// The command line named the data folder.
    data_is_given: bool,
    pipelines: Arc<Vec<Pipeline>>,
    inboxes: Vec<Arc<Inbox>>,
    signals: Arc<Signals>,
    reloads: Arc<Reloads>,
    /// The process's, whichever file asks for it.
    admin: Option<AdminConfig>,
    /// What is in force; empty once the run has ended.
    in_force: Mutex<Vec<Loaded>>,
}

impl Reloader {
    pub fn new(
        disk: Disk,
        data: (PathBuf, bool),
        pipelines: Arc<Vec<Pipeline>>,
        inboxes: Vec<Arc<Inbox>>,
        signals: Arc<Signals>,
        admin: Option<AdminConfig>,
        in_force: Vec<Loaded>,
    ) -> Reloader {
        let reloads = Reloads { generation: AtomicU64::new(1), hash: Mutex::new(hash(&in_force)), ..Reloads::default() };
        let (data, data_is_given) = data;
        Reloader {
            disk,
            data,
            data_is_given,
            pipelines,
            inboxes,
            signals,
            reloads: Arc::new(reloads),
            admin,
            in_force: Mutex::new(in_force),
        }
    }

    pub fn reloads(&self) -> Arc<Reloads> {
        Arc::clone(&self.reloads)
    }

    /// Reads the files again. Says in the log and in the metrics what came of it, too.
    pub fn reload(&self) -> Outcome {
        let mut in_force = lock(&self.in_force);
        let outcome = self.attempt(&mut in_force).unwrap_or_else(Outcome::Failed);
        self.reloads.counts[outcome.number()].fetch_add(1, Ordering::Relaxed);
        self.reloads.last_failed.store(matches!(outcome, Outcome::Refused(_) | Outcome::Failed(_)), Ordering::Relaxed);
        let generation = self.reloads.generation.load(Ordering::Relaxed);
        match &outcome {
            Outcome::Changed { changes, is_settled } => {
                for (pipeline, changes) in changes.iter().filter(|(_, changes)| !changes.is_empty()) {
                    let Changes { new, changed, gone, moved, keys } = changes;
                    info!(pipeline, generation, ?new, ?changed, ?gone, ?moved, ?keys, "config reloaded");
                }
                if !is_settled {
                    warn!(generation, "a lane waits for room in its hub, and goes over to the new config then");
                }
            }
            Outcome::Unchanged => info!(generation, "config read again: nothing changed"),
            Outcome::Refused(report) => {
                report.mistakes.iter().for_each(|mistake| warn!("{}", mistake.to_string().trim_end()));
                warn!(generation, mistakes = report.mistakes.len(), "config not reloaded: nothing was changed");
            }
            Outcome::Failed(error) => warn!(generation, error = format!("{error:#}"), "config not reloaded: nothing was changed"),
        }
        outcome
    }

    /// The answer to `weir reload`.
    pub fn answer(&self) -> Value {
        let outcome = self.reload();
        let generation = self.reloads.generation.load(Ordering::Relaxed);
        let mut answer = json!({ "result": Outcome::NAMES[outcome.number()], "generation": generation });
        match outcome {
            Outcome::Changed { changes, is_settled } => {
                answer["pipelines"] = changes.iter().map(|(name, changes)| (name.clone(), json!(changes))).collect();
                answer["settled"] = json!(is_settled);
            }
            Outcome::Unchanged => {}
            Outcome::Refused(report) => {
                answer["text"] = json!(report.to_string());
                answer["mistakes"] = json!(report.mistakes);
            }
            Outcome::Failed(error) => answer["text"] = json!(format!("{error:#}")),
        }
        answer
    }

    fn attempt(&self, in_force: &mut Vec<Loaded>) -> anyhow::Result<Outcome> {
        anyhow::ensure!(!in_force.is_empty(), "weir is ending");
        anyhow::ensure!(self.settles(), "the reload before has not reached every lane yet: one waits for room in its hub");
        let files: Vec<PathBuf> = in_force.iter().map(|loaded| loaded.path.clone()).collect();
        let loaded = match config::load(&files, &|name| std::env::var(name).ok()) {
            Ok(loaded) => loaded,
            Err(report) => return Ok(Outcome::Refused(report)),
        };
        let mistakes = config::restart_needed(in_force, &loaded, self.data_is_given);
        if !mistakes.is_empty() {
            return Ok(Outcome::Refused(Report { mistakes }));
        }
        let changes: Vec<_> =
            in_force.iter().zip(&loaded).map(|(before, after)| (after.name.clone(), Changes::between(before, after))).collect();
        if changes.iter().all(|(_, changes)| changes.is_empty()) {
            return Ok(Outcome::Unchanged);
        }
        let mut plans = Vec::new();
        for ((pipeline, loaded), (_, changes)) in self.pipelines.iter().zip(&loaded).zip(&changes) {
            if !changes.is_empty() {
                let (_, before) = pipeline.current.get();
                let config = Config { admin: self.admin.clone(), ..loaded.config.clone() };
                let plan = plan::recompile(&before, &config, &self.data, loaded.rates.as_ref().map(|rates| &rates.card));
                plans.push((pipeline, plan.with_context(|| format!("pipeline {}", pipeline.name))?));
            }
        }
        write_manifest(&self.disk, &self.data, &loaded)?;
        for (pipeline, plan) in plans {
            super::open::keep_state(&pipeline.state_hub, &plan.rules);
            pipeline.current.put(plan, self.inboxes.len());
        }
        *lock(&self.reloads.hash) = hash(&loaded);
        self.reloads.generation.fetch_add(1, Ordering::Relaxed);
        *in_force = loaded;
        Ok(Outcome::Changed { changes, is_settled: self.settles() })
    }

    /// Waits until every lane has gone over; not for ever, and not beyond the end of the run.
    fn settles(&self) -> bool {
        let until = Instant::now() + LANES_WAIT_MAX;
        loop {
            if self.pipelines.iter().all(|pipeline| pipeline.current.is_settled()) {
                return true;
            }
            if Instant::now() >= until || self.signals.is_ending() {
                return false;
            }
            self.inboxes.iter().for_each(|inbox| inbox.wake());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// The run ends: no reload begins any more. Returns what was in force.
    pub fn close(&self) -> Vec<Loaded> {
        std::mem::take(&mut *lock(&self.in_force))
    }
}

/// The same for the same pipelines and rate cards, whatever their files look like.
fn hash(loaded: &[Loaded]) -> String {
    let of_one = |l: &Loaded| (l.name.clone(), json!(l.config), l.rates.as_ref().map(|card| card.text.clone()));
    let all: Vec<_> = loaded.iter().map(of_one).collect();
    format!("{:016x}", key_hash(&serde_json::to_vec(&all).expect("a config is plain data")))
}
