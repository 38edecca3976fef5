//! Sinks: where kept rows go. Each has a thread, a cursor into its hub, and a store with its own positions.

pub mod archive;
pub mod config;
pub mod exposition;
pub mod http;
pub mod stdout;

pub use config::*;

use crate::plan::{SinkKind, SinkPlan};
use anyhow::Context;
use flow::event::StreamId;
use flow::fields::{FieldSet, Kind, Scanner, Span};
use flow::units::UnixNanos;
use hub::frame::MISSING;
use hub::{Disk, Frame, Tally};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A sink's store, opened and recovered.
pub enum Store {
    Stdout(stdout::Stdout),
    Archive {
        archive: Box<archive::Archive>,
        router: Router,
        drops_newest: bool,
    },
    /// `taken`: how far the frames held reach, by stream.
    Lake {
        lake: Box<lake::Lake>,
        held: Vec<Arc<Frame>>,
        taken: HashMap<StreamId, u64>,
    },
    Http {
        http: Box<http::Http>,
        router: Router,
    },
    Exposition(Box<exposition::Exposition>),
}

/// When a sink makes its writes durable: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub interval: Duration,
    pub bytes: u64,
}

impl Store {
    /// Opens a store; `name` is `PIPELINE.SINK`, `routes` names the fields that frames carry for routing.
    pub fn open(disk: &Disk, data: &Path, name: &str, plan: &SinkPlan, routes: Vec<String>) -> anyhow::Result<(Store, Pace)> {
        let context = || format!("sink {name}");
        Ok(match &plan.kind {
            SinkKind::Stdout | SinkKind::Blackhole => {
                let path = data.join("cursors").join(format!("{name}.json"));
                let pace = Pace { interval: Duration::from_millis(200), bytes: 1 << 20 };
                (
                    Store::Stdout(
                        stdout::Stdout::open(disk.clone(), &path, matches!(plan.kind, SinkKind::Blackhole)).with_context(context)?,
                    ),
                    pace,
                )
            }
            SinkKind::Prometheus { config } => {
                let path = data.join("cursors").join(format!("{name}.json"));
                let cursor = stdout::Stdout::open(disk.clone(), &path, true).with_context(context)?;
                let pace = Pace { interval: Duration::from_millis(200), bytes: 1 << 20 };
                (Store::Exposition(Box::new(exposition::Exposition::open(cursor, (**config).clone()))), pace)
            }
            SinkKind::Archive { settings, columns, commit, drops_newest } => {
                let archive = archive::Archive::open(disk.clone(), (**settings).clone(), columns.clone()).with_context(context)?;
                let store = Store::Archive { archive: Box::new(archive), router: Router::new(routes), drops_newest: *drops_newest };
                (store, Pace { interval: commit.interval.duration(), bytes: commit.bytes.0 })
            }
            SinkKind::Lake { root, options, seal, .. } => {
                let lake = lake::Lake::open(disk.clone(), root, (**options).clone()).with_context(context)?;
                let pace = Pace { interval: seal.age.duration(), bytes: seal.bytes.0 };
                (Store::Lake { lake: Box::new(lake), held: Vec::new(), taken: HashMap::new() }, pace)
            }
            SinkKind::Http { settings } => {
                let batch = &settings.config.batch;
                let pace = Pace { interval: batch.age.duration(), bytes: batch.bytes.0.saturating_mul(http::COMMIT_BATCHES) };
                let http = http::Http::open(disk.clone(), (**settings).clone()).with_context(context)?;
                (Store::Http { http: Box::new(http), router: Router::new(routes) }, pace)
            }
        })
    }

    /// Stream by stream, how far the store has it.
    pub fn positions(&self) -> HashMap<StreamId, u64> {
        match self {
            Store::Stdout(stdout) => stdout.positions(),
            Store::Archive { archive, .. } => archive.positions(),
            Store::Lake { lake, .. } => lake.positions(),
            Store::Http { http, .. } => http.positions(),
            Store::Exposition(exposition) => exposition.positions(),
        }
    }

    /// Looks after what other runs left, before the first frame is taken: questions open stores too, and change nothing.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        match self {
            Store::Archive { archive, .. } => archive.tend(),
            Store::Http { http, .. } => http.tend(),
            Store::Exposition(exposition) => exposition.tend(),
            Store::Stdout(_) | Store::Lake { .. } => Ok(()),
        }
    }

    /// How far the store has taken a stream, for good or not yet.
    pub fn position(&self, stream: StreamId) -> Option<u64> {
        match self {
            Store::Stdout(stdout) => stdout.position(stream),
            Store::Archive { archive, .. } => archive.position(stream),
            Store::Lake { lake, taken, .. } => taken.get(&stream).copied().max(lake.position(stream)),
            Store::Http { http, .. } => http.position(stream),
            Store::Exposition(exposition) => exposition.position(stream),
        }
    }

    /// Takes a frame. What the store has already is passed over.
    pub fn write(&mut self, frame: &Arc<Frame>) -> anyhow::Result<()> {
        match self {
            Store::Stdout(stdout) => stdout.write(frame),
            Store::Exposition(exposition) => exposition.write(frame),
            Store::Archive { archive, router, .. } => match router.reroute(frame) {
                Some(frame) => archive.write(&frame),
                None => archive.write(frame),
            },
            Store::Http { http, router } => {
                match router.reroute(frame) {
                    Some(frame) => http.write(&Arc::new(frame)),
                    None => http.write(frame),
                }
                Ok(())
            }
            Store::Lake { held, taken, .. } => {
                held.push(Arc::clone(frame));
                for part in &frame.parts {
                    let done = taken.entry(part.stream).or_default();
                    *done = part.to.max(*done);
                }
                Ok(())
            }
        }
    }

    /// Whether the store takes the rows of this frame; where not, they are lost to it, by its config.
    pub fn fits(&mut self, frame: &Frame) -> anyhow::Result<bool> {
        match self {
            Store::Archive { archive, drops_newest: true, .. } => archive.make_room(frame),
            Store::Archive { .. } | Store::Stdout(_) | Store::Lake { .. } | Store::Http { .. } | Store::Exposition(_) => Ok(true),
        }
    }

    /// Whether the store takes parts ahead of their turn. Where the newest rows go for want of room, that is decided in turn.
    pub fn takes_ahead(&self) -> bool {
        !matches!(self, Store::Archive { drops_newest: true, .. })
    }

    pub fn archive_stats(&self) -> Option<archive::Stats> {
        match self {
            Store::Archive { archive, .. } => Some(archive.stats()),
            Store::Stdout(_) | Store::Lake { .. } | Store::Http { .. } | Store::Exposition(_) => None,
        }
    }

    pub fn http_stats(&self) -> Option<http::Stats> {
        if let Store::Http { http, .. } = self { Some(http.stats()) } else { None }
    }

    /// Samples of series that a `prometheus` sink has no room for.
    pub fn unshown(&self) -> u64 {
        if let Store::Exposition(exposition) = self { exposition.refused() } else { 0 }
    }

    /// What the far side had refused for good up to the last commit, by tenant.
    pub fn refused(&self) -> BTreeMap<Vec<u8>, Tally> {
        if let Store::Http { http, .. } = self { http.refused().clone() } else { BTreeMap::new() }
    }

    /// What the last commit added to that.
    pub fn take_refused(&mut self) -> BTreeMap<Vec<u8>, Tally> {
        if let Store::Http { http, .. } = self { http.take_refused() } else { BTreeMap::new() }
    }

    /// Makes everything taken durable, together with the positions.
    pub fn commit(&mut self) -> anyhow::Result<()> {
        match self {
            Store::Stdout(stdout) => stdout.commit(),
            Store::Exposition(exposition) => exposition.commit(),
            Store::Http { http, .. } => http.commit(),
            Store::Archive { archive, .. } => archive.commit(),
            Store::Lake { lake, held, taken } => {
                if let Some(sealed) = lake.seal(held)? {
                    tracing::info!(
                        commit = sealed.number,
                        files = sealed.files,
                        rows = sealed.rows,
                        raw_bytes = sealed.raw_bytes,
                        parquet_bytes = sealed.parquet_bytes,
                        index_bytes = sealed.index_bytes,
                        "sealed"
                    );
                }
                held.clear();
                taken.clear();
                Ok(())
            }
        }
    }

    /// About twice a second: looks after files that others renamed or removed, and those due by the clock, if it counts.
    pub fn tick(&mut self, now: Option<UnixNanos>) -> anyhow::Result<()> {
        match self {
            Store::Archive { archive, .. } => archive.tick(now),
            Store::Stdout(_) | Store::Lake { .. } | Store::Http { .. } | Store::Exposition(_) => Ok(()),
        }
    }

    /// SIGHUP: files are closed and opened again by name.
    pub fn reopen(&mut self) -> anyhow::Result<()> {
        match self {
            Store::Archive { archive, .. } => archive.reopen(),
            Store::Stdout(_) | Store::Lake { .. } | Store::Http { .. } | Store::Exposition(_) => Ok(()),
        }
    }

    /// A failed fsync leaves it open what is on disk: the store must be opened anew, and recover.
    pub fn is_failed(&self) -> bool {
        match self {
            Store::Archive { archive, .. } => archive.is_failed(),
            Store::Stdout(_) | Store::Lake { .. } | Store::Http { .. } | Store::Exposition(_) => false,
        }
    }

    /// The run ends: what may be left for later is done now.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        match self {
            Store::Archive { archive, .. } => {
                archive.finish()?;
                tracing::info!(stats = ?archive.stats(), "archive closed");
                Ok(())
            }
            Store::Stdout(_) | Store::Lake { .. } | Store::Http { .. } | Store::Exposition(_) => self.commit(),
        }
    }
}

/// Finds the fields that an archive routes by in frames that an older plan decided: they carry other ones.
pub struct Router {
    routes: u64,
    scanner: Scanner,
    fields: usize,
}

impl Router {
    fn new(names: Vec<String>) -> Router {
        let refs: Vec<&str> = names.iter().map(String::as_str).collect();
        Router { routes: crate::plan::routes(&refs), scanner: Scanner::new(Arc::new(FieldSet::new(&names))), fields: names.len() }
    }

    /// The frame with the columns of this plan; `None` where it has them.
    fn reroute(&mut self, frame: &Frame) -> Option<Frame> {
        if frame.routes == self.routes {
            return None;
        }
        let mut frame = frame.clone();
        let mut columns = vec![Vec::new(); self.fields];
        let mut spans = vec![Span::default(); self.fields];
        for row in 0..frame.rows.len() {
            self.scanner.scan(frame.rows.row(row), &mut spans);
            for (column, span) in columns.iter_mut().zip(&spans) {
                let missing = matches!(span.kind, Kind::Missing | Kind::Null);
                column.push(if missing { (MISSING, MISSING) } else { (span.start, span.end - span.start) });
            }
        }
        frame.rows.columns = columns;
        frame.routes = self.routes;
        Some(frame)
    }
}
