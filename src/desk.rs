//! The desk: answers questions about a data folder, to the process itself or over its socket.
//!
//! In: a question as one line of JSON. Out: a status line, then lines of JSON and raw bytes. `weir run` serves
//! the socket in its data folder; without a running process the query verb takes the lock, opens hub and
//! stores itself and asks the same desk. Tail before snapshot: rows that are sealed in between are in both,
//! and dropped from the tail by the lake's positions. Bound: [`ASKERS_MAX`] questions at a time, and as many
//! who read along, each question of at most [`QUESTION_BYTES_MAX`].

use crate::books::{self, Books, Entry, LakeBooks};
use crate::config::Config;
use crate::examples::Examples;
use crate::inquiry::{Found, Inquiry, Limits, cell_json};
use crate::plan::SinkKind;
use crate::runtime::open::{self, Manifest, Opened};
use crate::runtime::reload::Reloader;
use crate::sinks::archive::{Archive, Settings};
use crate::sinks::http;
use crate::statement::Statement;
use anyhow::{Context, bail};
use flow::event::{EventKind, Reason, StreamId, UsageEvent, UsageFact};
use flow::units::UnixNanos;
use hub::{Disk, Frame, Hub, Ledger, LostReason, Tally, Watch};
use lake::{Cache, Cell, Hit, Query, Sieve, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Questions that are answered at a time; those who read along have as many places of their own.
const ASKERS_MAX: usize = 8;
/// Connections, those included that have not asked yet: each is a thread.
const CONNECTIONS_MAX: usize = 4 * ASKERS_MAX;
const QUESTION_BYTES_MAX: u64 = 8 << 20; // a rate card may be in it
/// What waits of each pipeline for somebody who reads along; beyond, the oldest goes by unread.
const FOLLOW_BYTES_MAX: usize = 4 << 20;
/// How often somebody who reads along hears that there is nothing new.
const FOLLOW_STEP: Duration = Duration::from_millis(500);
/// The line that says so.
pub const IDLE: &str = ".";
/// Begins the line that says how many records went by unread.
pub const MISSED: &str = "missed ";
/// How long a query verb waits for another one to let go of the data folder.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A question, as it travels over the socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    Search {
        query: String,
        /// What is wrong with the query was told: the best is made of it.
        lenient: bool,
        tenant: Option<String>,
        since: Option<i64>,
        until: Option<i64>,
        limit: Option<usize>,
        newest_first: bool,
        memory_bytes: usize,
    },
    Sql(Statement),
    Metrics(crate::promql::Question),
    /// Records as they are decided, until the asker goes away.
    Follow {
        query: String,
        tenant: Option<String>,
    },
    /// Lakes, and the usage that is not sealed in them.
    UsageTail,
    /// Publish, close or take back charges, as of a time.
    Enter {
        entry: Entry,
        /// Text of the rate card.
        card: String,
        at: i64,
    },
    Lineage,
    Ledger {
        recount: bool,
    },
    /// Records that were dropped, for one reason and of one tenant or of all.
    Examples {
        reason: Option<String>,
        tenant: Option<String>,
    },
    /// Read the pipeline files again; only a running process can.
    Reload,
}

/// What the desk knows of a data folder.
pub struct Desk {
    disk: Disk,
    /// Footers and indexes of files that were asked about.
    cache: Cache,
    /// How each lake is written, by its root.
    pub writers: BTreeMap<PathBuf, Arc<lake::Options>>,
    /// Of each lake, what was sealed when somebody last asked.
    snapshots: Mutex<BTreeMap<PathBuf, Arc<Snapshot>>>,
    pipelines: Vec<DeskPipeline>,
}

/// A lake at one moment.
#[derive(Clone)]
pub struct OpenLake {
    pub root: PathBuf,
    /// Frames that are not sealed in it yet.
    pub tail: Vec<Arc<Frame>>,
    /// More of them wait than are here.
    pub is_cut: bool,
    pub snapshot: Arc<Snapshot>,
}

struct DeskPipeline {
    name: String,
    config: Config,
    hub: Arc<Hub>,
    examples: Arc<Examples>,
    lakes: Vec<(String, PathBuf)>,
    archives: Vec<(String, Settings)>,
    /// Sinks that send by HTTP.
    https: Vec<(String, http::Settings)>,
}

/// Frames of every pipeline, sifted as they come.
pub struct Follower {
    sieve: Sieve,
    watches: Vec<Watch>,
}

/// What a follower heard of besides hits.
#[derive(Default)]
pub struct Heard {
    /// Records that went by unread.
    pub missed: u64,
    /// No pipeline goes on.
    pub closed: bool,
}

impl Follower {
    /// Hands out what has come; waits for it, but not longer than about `patience`.
    pub fn next(&mut self, patience: Duration, hit: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> Heard {
        let mut heard = Heard { missed: 0, closed: true };
        let each = patience / self.watches.len().max(1) as u32;
        for watch in &mut self.watches {
            let seen = watch.next(each);
            heard.missed += seen.missed;
            heard.closed &= seen.closed;
            if seen.frames.iter().any(|frame| self.sieve.each(frame, hit).is_break()) {
                break;
            }
        }
        heard
    }
}

/// A line of the answer to a search.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The bytes of the record follow.
    Hit(HitLine),
    Table(TableLine),
    /// The last one.
    Done(DoneLine),
}

/// What is said at the end of a search.
#[derive(Debug, Serialize, Deserialize)]
pub struct DoneLine {
    /// What the answer cost, by name.
    pub cost: Vec<(String, String)>,
    /// Why it is not whole.
    pub partial: Option<String>,
    /// Fields that no record has.
    pub warnings: Vec<String>,
}

/// A table on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub struct TableLine {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<CellLine>>,
    pub note: Option<String>,
}

/// A cell as text; numbers keep all their digits.
#[derive(Debug, Serialize, Deserialize)]
pub struct CellLine {
    /// As JSON.
    pub json: String,
    pub text: String,
    pub is_number: bool,
}

impl TableLine {
    pub fn new(table: &lake::Table) -> TableLine {
        let cell = |cell: &Cell| CellLine {
            json: cell_json(cell),
            text: cell.to_string(),
            is_number: matches!(cell, Cell::Int(_) | Cell::Decimal(_) | Cell::Float(_)),
        };
        let rows = table.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        TableLine { columns: table.columns.clone(), rows, note: table.note.clone() }
    }
}

/// One hit of a search: the line before its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct HitLine {
    pub tenant: String,
    pub time: i64,
    pub severity: u8,
    pub weight: u32,
    pub stream: u64,
    pub position: u64,
    /// Bytes of the record that follow, and a newline.
    pub len: usize,
    /// It stands beside a hit and is none.
    pub is_context: bool,
    /// It does not follow the one before it.
    pub is_apart: bool,
}

/// One usage fact on the wire. Tenants and values are bytes and stay bytes.
#[derive(Debug, Serialize, Deserialize)]
struct FactLine {
    tenant: Vec<u8>,
    meter: String,
    unit: String,
    dims: Vec<(String, Vec<u8>)>,
    minute: i64,
    /// Decimal text: an i128 does not fit a JSON number everywhere.
    quantity: String,
    events: u64,
    stream: u64,
    from: u64,
    to: u64,
    received: i64,
    /// Of a fact that is one event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<EventLine>,
}

/// What is known of one event.
#[derive(Debug, Serialize, Deserialize)]
struct EventLine {
    kind: String,
    at: i64,
    end: i64,
    key: Vec<u8>,
    position: u64,
}

impl FactLine {
    fn new(fact: UsageFact) -> FactLine {
        FactLine {
            tenant: fact.tenant,
            meter: fact.meter,
            unit: fact.unit,
            dims: fact.dims,
            minute: fact.minute,
            quantity: fact.quantity.to_string(),
            events: fact.events,
            stream: fact.stream.0,
            from: fact.from,
            to: fact.to,
            received: fact.received.0,
            event: fact.event.map(|event| {
                let UsageEvent { kind, at, end, key, position } = *event;
                EventLine { kind: kind.name().into(), at: at.0, end: end.0, key, position }
            }),
        }
    }

    fn fact(self) -> anyhow::Result<UsageFact> {
        let event = self.event.map(|event| {
            let EventLine { kind, at, end, key, position } = event;
            let kind = EventKind::from_name(&kind).with_context(|| format!("no kind of event is called {kind}"))?;
            anyhow::Ok(Box::new(UsageEvent { kind, at: UnixNanos(at), end: UnixNanos(end), key, position }))
        });
        Ok(UsageFact {
            tenant: self.tenant,
            meter: self.meter,
            unit: self.unit,
            dims: self.dims,
            minute: self.minute,
            quantity: self.quantity.parse().with_context(|| format!("quantity {:?}", self.quantity))?,
            events: self.events,
            stream: StreamId(self.stream),
            from: self.from,
            to: self.to,
            received: UnixNanos(self.received),
            event: event.transpose()?,
        })
    }
}

/// Before the facts of a lake's tail: where it lies, and how many follow.
#[derive(Debug, Serialize, Deserialize)]
struct LakeLine {
    root: PathBuf,
    facts: usize,
}

/// The books of a data folder, asked for from whoever owns it.
pub fn books(data: &Path) -> anyhow::Result<Books> {
    let mut answer = ask(data, &Question::UsageTail)?;
    let disk = Disk::Real;
    let mut lakes = Vec::new();
    while let Some(line) = answer.line()? {
        let LakeLine { root, facts } = serde_json::from_str(&line)?;
        let mut tail = Vec::new();
        for _ in 0..facts {
            let line = answer.line()?.context("the answer was cut short")?;
            tail.push(serde_json::from_str::<FactLine>(&line)?.fact()?);
        }
        lakes.push((root, tail));
    }
    // Commits after the tail: what is sealed in between is in both, and told apart by position.
    let lake = |(root, tail): (PathBuf, Vec<UsageFact>)| anyhow::Ok(LakeBooks { snapshot: Snapshot::read(&disk, &root)?, root, tail });
    let lakes = lakes.into_iter().map(lake).collect::<anyhow::Result<_>>()?;
    let nobody = books::nobody(Manifest::read(data)?.pipelines.iter().map(|pipeline| &pipeline.config));
    Ok(Books { disk, lakes, nobody })
}

impl Desk {
    pub fn new(disk: Disk, opened: &[(Config, &Opened)]) -> Desk {
        let mut writers = BTreeMap::new();
        let pipeline = |(config, opened): &(Config, &Opened)| {
            let (mut lakes, mut archives, mut https) = (Vec::new(), Vec::new(), Vec::new());
            for sink in &opened.plan.sinks {
                match &sink.kind {
                    SinkKind::Lake { root, options, .. } => {
                        lakes.push((sink.name.clone(), root.clone()));
                        writers.insert(root.clone(), Arc::new((**options).clone()));
                    }
                    SinkKind::Archive { settings, .. } => archives.push((sink.name.clone(), (**settings).clone())),
                    SinkKind::Http { settings } => https.push((sink.name.clone(), (**settings).clone())),
                    SinkKind::Stdout | SinkKind::Blackhole | SinkKind::Prometheus { .. } => {}
                }
            }
            DeskPipeline {
                name: opened.plan.name.clone(),
                config: config.clone(),
                hub: Arc::clone(&opened.hub),
                examples: Arc::clone(&opened.examples),
                lakes,
                archives,
                https,
            }
        };
        let pipelines = opened.iter().map(pipeline).collect();
        Desk { disk, cache: Cache::new(lake::CACHE_BYTES), snapshots: Mutex::default(), writers, pipelines }
    }

    /// Writes the answer: a status line, then what the question asks for.
    pub fn answer(&self, question: &Question, out: &mut dyn Write) -> anyhow::Result<()> {
        match question {
            Question::Search { query, lenient, tenant, since, until, limit, newest_first, memory_bytes } => {
                let query = match lenient {
                    true => Query::parse_lenient(query).0,
                    false => Query::parse(query).map_err(|e| anyhow::anyhow!("{e}"))?,
                };
                let (since, until) = (since.map(UnixNanos), until.map(UnixNanos));
                let limits = Limits { memory_bytes: *memory_bytes, ..Limits::default() };
                let inquiry = Inquiry { query, tenant: tenant.clone(), since, until, limit: *limit, newest_first: *newest_first, limits };
                self.search(&inquiry, out)
            }
            Question::Sql(statement) => self.write_rows(statement, out),
            Question::Metrics(question) => self.write_metrics(question, out),
            Question::Follow { query, tenant } => {
                let query = Query::parse(query).map_err(|e| anyhow::anyhow!("{e}"))?;
                query.tail_limit().map_err(|e| anyhow::anyhow!(e))?;
                self.follow(&query, tenant.as_deref(), out)
            }
            Question::UsageTail => self.usage_tail(out),
            Question::Enter { entry, card, at } => self.enter(entry, card, UnixNanos(*at), out),
            Question::Lineage => self.lineage(out),
            Question::Ledger { recount } => {
                let text = self.ledger(*recount)?.to_string();
                writeln!(out, "ok\n{text}").context("answer")
            }
            Question::Reload => bail!("a run with --once reads its pipeline files at the start only"),
            Question::Examples { reason, tenant } => self.examples(reason.as_deref(), tenant.as_deref(), out),
        }
    }

    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Which fields the lakes know by name.
    pub fn lake_fields(&self) -> anyhow::Result<lake::Fields> {
        let first = self.lake_roots()?.first().map(|root| self.snapshot(root)).transpose()?;
        Ok(first.map(|snapshot| snapshot.fields()).unwrap_or_default())
    }

    /// Every lake with the frames that are not sealed in it yet, all of them; a lake that pipelines share comes once.
    pub fn lakes(&self) -> anyhow::Result<Vec<OpenLake>> {
        self.lakes_within(usize::MAX)
    }

    /// The same, but of each lake at most about so many bytes of frames, the oldest.
    pub fn lakes_within(&self, tail_bytes_max: usize) -> anyhow::Result<Vec<OpenLake>> {
        let mut lakes = Vec::new();
        for root in self.lake_roots()? {
            let (mut tail, mut is_cut, mut bytes) = (Vec::new(), false, 0);
            for pipeline in &self.pipelines {
                for (sink, _) in pipeline.lakes.iter().filter(|l| l.1 == root) {
                    let shown = pipeline.hub.tail_each(sink, |frame| {
                        is_cut = bytes >= tail_bytes_max;
                        if !is_cut {
                            bytes += frame.bytes();
                            tail.push(Arc::clone(frame).only_for(sink));
                        }
                        !is_cut
                    });
                    shown.with_context(|| format!("pipeline {}", pipeline.name))?;
                }
            }
            // Tail before snapshot: what is sealed in between is in both, and told apart by position.
            let snapshot = self.snapshot(&root)?;
            lakes.push(OpenLake { root, tail, is_cut, snapshot });
        }
        Ok(lakes)
    }

    fn lake_roots(&self) -> anyhow::Result<Vec<PathBuf>> {
        let roots = self.roots();
        if roots.is_empty() {
            let missing = "no pipeline of this data folder has a lake sink; add one, as in sinks: { store: { lake: {} } }";
            return Err(lake::Unanswerable(missing.into()).into());
        }
        Ok(roots)
    }

    /// What is sealed in a lake now.
    fn snapshot(&self, root: &Path) -> anyhow::Result<Arc<Snapshot>> {
        let mut snapshots = self.snapshots.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(known) = snapshots.get_mut(root) {
            known.renew()?;
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(Snapshot::read(&self.disk, root)?);
        snapshots.insert(root.into(), Arc::clone(&read));
        Ok(read)
    }

    fn search(&self, inquiry: &Inquiry, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut shown = 0u64;
        let stats = if inquiry.query.makes_table() {
            let (table, stats) = self.table(inquiry)?;
            writeln!(out, "ok")?;
            write_piece(out, &Piece::Table(TableLine::new(&table)))?;
            shown = table.rows.len() as u64;
            stats
        } else {
            // A question that cannot be asked is told before "ok", so that nobody takes an empty answer for one.
            let mut broken = Ok(());
            let mut begun = false;
            let stats = self.hits(inquiry, &mut |found| {
                let begin = if std::mem::replace(&mut begun, true) { Ok(()) } else { writeln!(out, "ok") };
                broken = begin.and_then(|()| write_hit(out, &found));
                shown += 1;
                if broken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            broken?;
            if !begun {
                writeln!(out, "ok")?;
            }
            stats
        };
        let warnings = if shown == 0 { self.unknown_fields(inquiry)?.iter().map(ToString::to_string).collect() } else { Vec::new() };
        let cost = stats.explain().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let partial = stats.partial.map(|partial| partial.why.text().to_owned());
        write_piece(out, &Piece::Done(DoneLine { cost, partial, warnings }))?;
        Ok(())
    }

    /// Writes hits as they come, and a line of nothing now and then, by which an asker that went away is noticed.
    fn follow(&self, query: &Query, tenant: Option<&str>, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut follower = self.follower(query, tenant)?;
        writeln!(out, "ok")?;
        out.flush()?;
        loop {
            let mut broken = Ok(());
            let heard = follower.next(FOLLOW_STEP, &mut |hit| {
                broken = write_hit(out, &Found { hit, is_context: false, is_apart: false });
                if broken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            broken?;
            if heard.missed > 0 {
                writeln!(out, "{MISSED}{}", heard.missed)?;
            }
            if heard.closed {
                return Ok(());
            }
            writeln!(out, "{IDLE}")?;
            out.flush()?;
        }
    }

    /// Somebody who reads along in every pipeline from now on.
    pub fn follower(&self, query: &Query, tenant: Option<&str>) -> anyhow::Result<Follower> {
        let fields = if self.roots().is_empty() { lake::Fields::default() } else { self.lake_fields()? };
        let sieve = Sieve::new(query, &fields, tenant)?;
        Ok(Follower { sieve, watches: self.pipelines.iter().map(|p| p.hub.watch(FOLLOW_BYTES_MAX)).collect() })
    }

    /// All usage facts, those of the tail included, ready to be rated.
    pub fn facts(&self, card: &bill::Card) -> anyhow::Result<bill::Facts> {
        let mut facts = bill::Facts::new(card.dedup_window);
        let nobody = self.nobody();
        for OpenLake { tail, snapshot, .. } in &self.lakes()? {
            lake::each_fact(&self.disk, snapshot, tail, None, &mut |fact| books::add(&mut facts, &books::attributed(fact, &nobody)))?;
        }
        Ok(facts)
    }

    /// The facts of each lake that are not sealed in it.
    fn usage_tail(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let lakes = self.lakes()?;
        writeln!(out, "ok")?;
        for OpenLake { root, tail, snapshot, .. } in &lakes {
            let facts = lake::tail_facts(snapshot, tail)?;
            let head = LakeLine { root: books::absolute(root), facts: facts.len() };
            writeln!(out, "{}", serde_json::to_string(&head).context("a path is no text")?)?;
            for fact in facts {
                writeln!(out, "{}", serde_json::to_string(&FactLine::new(fact)).expect("plain data"))?;
            }
        }
        Ok(())
    }

    /// Lakes with charges in them, or that may get some.
    pub fn roots(&self) -> Vec<PathBuf> {
        let roots: BTreeSet<&PathBuf> = self.pipelines.iter().flat_map(|p| p.lakes.iter().map(|l| &l.1)).collect();
        roots.into_iter().cloned().collect()
    }

    /// Names that stand for no tenant.
    pub fn nobody(&self) -> Vec<Vec<u8>> {
        books::nobody(self.pipelines.iter().map(|pipeline| &pipeline.config))
    }

    fn enter(&self, entry: &Entry, card: &str, at: UnixNanos, out: &mut dyn Write) -> anyhow::Result<()> {
        self.lake_roots()?; // says what is missing where there is none
        let card = crate::config::card(Path::new("rates"), Some(card.to_owned()))
            .map_err(|report| anyhow::anyhow!("the rate card: {report}"))?
            .card;
        let entered = match books::enter(&self.disk, &self.roots(), &self.nobody(), &card, entry, at) {
            Ok(entered) => json!({ "entered": entered }),
            Err(error) => match error.downcast_ref::<books::Refused>() {
                Some(refused) => json!({ "refused": refused.0 }),
                None => return Err(error),
            },
        };
        writeln!(out, "ok\n{entered}").context("answer")
    }

    fn examples(&self, reason: Option<&str>, tenant: Option<&str>, out: &mut dyn Write) -> anyhow::Result<()> {
        let known = |name: &str| Reason::ALL.into_iter().find(|r| r.name() == name).with_context(|| format!("no reason is called {name}"));
        let reason = reason.map(known).transpose()?;
        writeln!(out, "ok")?;
        for pipeline in &self.pipelines {
            for example in pipeline.examples.find(reason, tenant.map(str::as_bytes)) {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let mut line = json!({
                    "pipeline": pipeline.name,
                    "tenant": text(&example.tenant),
                    "reason": Reason::from_code(example.reason).map_or("unknown", Reason::name),
                    "time": UnixNanos(example.time_ns).rfc3339(),
                    "stream": format!("{:016x}", example.stream),
                    "position": example.position,
                    "bytes": example.bytes,
                    "is_cut": (example.line.len() as u64) < example.bytes,
                    "line": text(&example.line),
                    "is_kept": example.is_kept,
                });
                if let Some((stream, position)) = example.first {
                    line["first"] = json!({ "stream": format!("{stream:016x}"), "position": position });
                }
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }

    fn lineage(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let lakes = self.lakes()?;
        writeln!(out, "ok")?;
        for OpenLake { root, tail, snapshot, .. } in &lakes {
            let owner = self.pipelines.iter().find(|p| p.lakes.iter().any(|l| l.1 == *root));
            let block = owner.and_then(|p| p.config.lineage.as_ref());
            for event in lake::lineage_events(&self.disk, snapshot, tail, block)? {
                writeln!(out, "{}", event.json)?;
            }
        }
        Ok(())
    }

    /// The law of every pipeline. `recount`: count stored rows again, from the files.
    pub fn ledger(&self, recount: bool) -> anyhow::Result<Value> {
        let mut pipelines = serde_json::Map::new();
        for pipeline in &self.pipelines {
            let ledger = pipeline.hub.ledger();
            let mut view = crate::cli::ledger::view(&ledger);
            if recount {
                view["recount"] = self.recount(pipeline, &ledger)?;
            }
            pipelines.insert(pipeline.name.clone(), view);
        }
        let residual: i128 = self.pipelines.iter().map(|p| p.hub.ledger().residual()).sum();
        Ok(json!({ "pipelines": pipelines, "residual": residual.to_string().parse::<i64>().unwrap_or(i64::MAX) }))
    }

    /// Rows in the stores, counted from the files and held against what the ledger says was delivered.
    fn recount(&self, pipeline: &DeskPipeline, ledger: &Ledger) -> anyhow::Result<Value> {
        let mut sinks = serde_json::Map::new();
        let delivered = |sink: &str| ledger.sinks.get(sink).map(|s| s.delivered.clone()).unwrap_or_default();
        for (sink, root) in &pipeline.lakes {
            let snapshot = Snapshot::read(&self.disk, root)?;
            let (rows, expired) = (snapshot.rows_by_tenant()?, snapshot.expired_by_tenant());
            let delivered = self.delivered_to_lake(root);
            let tenants: BTreeSet<&Vec<u8>> = rows.keys().chain(delivered.keys()).chain(expired.keys()).collect();
            let mut difference = 0;
            let mut by_tenant = serde_json::Map::new();
            for tenant in tenants {
                let (records, bytes) = rows.get(tenant).copied().unwrap_or_default();
                let want = delivered.get(tenant).copied().unwrap_or_default();
                let (gone, gone_bytes) = expired.get(tenant).copied().unwrap_or_default();
                difference += (records + gone).abs_diff(want.records) + (bytes + gone_bytes).abs_diff(want.bytes);
                let mut counted = json!({ "records": records, "bytes": bytes });
                if gone > 0 {
                    counted["expired"] = json!({ "records": gone, "bytes": gone_bytes });
                }
                by_tenant.insert(String::from_utf8_lossy(tenant).into_owned(), counted);
            }
            sinks.insert(sink.clone(), json!({ "tenants": by_tenant, "difference": difference }));
        }
        for (sink, settings) in &pipeline.archives {
            let lines = Archive::recount(&self.disk, settings)?;
            let records = lines.values().sum::<u64>().saturating_sub(Archive::inner_newlines(&self.disk, settings)?);
            let want: u64 = delivered(sink).values().map(|t| t.records).sum();
            let files: BTreeMap<String, u64> = lines.iter().map(|(path, n)| (String::from_utf8_lossy(path).into_owned(), *n)).collect();
            // Retention removes whole files: what it removed was delivered and is no longer there.
            let retention = settings.backups > 0 || settings.age.is_some() || settings.room != Default::default();
            sinks.insert(
                sink.clone(),
                json!({ "records": records, "files": files, "difference": records.abs_diff(want), "retention": retention }),
            );
        }
        for (sink, settings) in &pipeline.https {
            // What was delivered lies on the far side; what it refused lies here.
            let letters = http::Http::open(self.disk.clone(), settings.clone())?.recount()?;
            let rejected = ledger.sinks.get(sink).into_iter().flat_map(|totals| totals.rejected.values());
            let refused: u64 = rejected.filter_map(|reasons| reasons.get(&LostReason::Refused)).map(|tally| tally.records).sum();
            sinks.insert(sink.clone(), json!({ "dead_letters": letters, "difference": letters.abs_diff(refused) }));
        }
        Ok(Value::Object(sinks))
    }

    /// What all pipelines together delivered to a lake: they may share it.
    fn delivered_to_lake(&self, root: &Path) -> BTreeMap<Vec<u8>, Tally> {
        let mut sums: BTreeMap<Vec<u8>, Tally> = BTreeMap::new();
        for pipeline in &self.pipelines {
            let mut ledger = pipeline.hub.ledger();
            for (sink, _) in pipeline.lakes.iter().filter(|l| l.1 == root) {
                let delivered = ledger.sinks.remove(sink).map(|s| s.delivered).unwrap_or_default();
                delivered.into_iter().for_each(|(tenant, tally)| sums.entry(tenant).or_default().add(tally));
            }
        }
        sums
    }

    /// Serves the socket until the process ends. `reloader`: absent where a run cannot reload.
    pub fn serve(self: Arc<Self>, listener: UnixListener, reloader: Option<Arc<Reloader>>) {
        let counter = Arc::new(Counter::default());
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let Some(place) = Count::of(&counter.connections, CONNECTIONS_MAX) else {
                let _ = (&stream).write_all(b"too many connections at a time; ask again later\n");
                continue;
            };
            let (desk, counter, reloader) = (Arc::clone(&self), Arc::clone(&counter), reloader.clone());
            std::thread::spawn(move || {
                let _place = place;
                // An asker that went away needs no answer.
                let _ = desk.serve_one(stream, &counter, reloader.as_deref());
            });
        }
    }

    fn serve_one(&self, stream: UnixStream, counter: &Counter, reloader: Option<&Reloader>) -> anyhow::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let mut line = String::new();
        BufReader::new((&stream).take(QUESTION_BYTES_MAX)).read_line(&mut line)?;
        let mut out = BufWriter::with_capacity(64 << 10, &stream);
        let answered = serde_json::from_str(&line).context("not a question").and_then(|question| {
            let _place = counter.place(&question)?;
            match (question, reloader) {
                (Question::Reload, Some(reloader)) => writeln!(out, "ok\n{}", reloader.answer()).context("answer"),
                (question, _) => self.answer(&question, &mut out),
            }
        });
        if let Err(error) = answered {
            // After "ok" the line is no hit and no fact: the reader takes it as the error that it is.
            writeln!(out, "error {}", serde_json::to_string(&format!("{error:#}")).expect("text"))?;
        }
        writeln!(out, "end")?;
        Ok(out.flush()?)
    }
}

/// Who asks at the moment.
#[derive(Default)]
struct Counter {
    connections: Arc<AtomicUsize>,
    askers: Arc<AtomicUsize>,
    followers: Arc<AtomicUsize>,
}

impl Counter {
    /// Who reads along does so for days, and takes no place of those who ask.
    fn place(&self, question: &Question) -> anyhow::Result<Count> {
        let (places, what) = match question {
            Question::Follow { .. } => (&self.followers, "read along"),
            _ => (&self.askers, "ask"),
        };
        Count::of(places, ASKERS_MAX).with_context(|| format!("{ASKERS_MAX} others {what} at the moment; try again when one is done"))
    }
}

/// One of those that are counted, until it is dropped.
struct Count(Arc<AtomicUsize>);

impl Count {
    /// `None`: there are `max` already.
    fn of(counter: &Arc<AtomicUsize>, max: usize) -> Option<Count> {
        let count = Count(Arc::clone(counter));
        (counter.fetch_add(1, Ordering::SeqCst) < max).then_some(count)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn write_hit(out: &mut dyn Write, found: &Found) -> std::io::Result<()> {
    let hit = &found.hit;
    let line = HitLine {
        tenant: String::from_utf8_lossy(&hit.tenant).into_owned(),
        time: hit.time.0,
        severity: hit.severity,
        weight: hit.weight,
        stream: hit.stream.0,
        position: hit.position,
        len: hit.raw.len(),
        is_context: found.is_context,
        is_apart: found.is_apart,
    };
    write_piece(out, &Piece::Hit(line))?;
    out.write_all(&hit.raw)?;
    out.write_all(b"\n")
}

fn write_piece(out: &mut dyn Write, piece: &Piece) -> std::io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(piece).expect("plain data"))
}

/// An answer being read.
pub struct Answer {
    reader: Box<dyn BufRead>,
}

/// Asks the process that runs on `data`, and nobody else.
pub fn ask_running(data: &Path, question: &Question) -> anyhow::Result<Answer> {
    check_folder(data)?;
    ask_socket(data, question)?.with_context(|| format!("no weir runs on {}; name the data folder of one with --data", data.display()))
}

fn check_folder(data: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(data.is_dir(), "there is no data folder {}; name one with --data", data.display());
    Ok(())
}

/// Asks the process that runs on `data`, or opens the folder.
pub fn ask(data: &Path, question: &Question) -> anyhow::Result<Answer> {
    check_folder(data)?;
    if let Some(answer) = ask_socket(data, question)? {
        return Ok(answer);
    }
    let manifest = Manifest::read(data)?;
    let Some(_lock) = open::lock(data, LOCK_PATIENCE)? else {
        // A process that started meanwhile has bound its socket by now.
        return ask_socket(data, question)?.with_context(|| format!("another process owns {} and does not answer", data.display()));
    };
    let disk = Disk::Real;
    let mut opened = Vec::new();
    for pipeline in manifest.pipelines {
        let rates = pipeline.rates.map(|text| crate::config::card(Path::new("rates"), Some(text)));
        let rates = rates.transpose().map_err(|report| anyhow::anyhow!("the rate card kept in the data folder: {report}"))?;
        let one = open::open(&disk, data, &pipeline.name, &pipeline.config, rates.as_ref().map(|rates| &rates.card))?;
        opened.push((pipeline.config, one));
    }
    let refs: Vec<(Config, &Opened)> = opened.iter().map(|(config, one)| (config.clone(), one)).collect();
    let desk = Desk::new(disk, &refs);
    let mut text = Vec::new();
    desk.answer(question, &mut text)?;
    text.extend_from_slice(b"end\n");
    start(Box::new(std::io::Cursor::new(text)))
}

fn ask_socket(data: &Path, question: &Question) -> anyhow::Result<Option<Answer>> {
    let Ok(stream) = connect(data) else { return Ok(None) };
    let mut line = serde_json::to_string(question).expect("a question is plain data");
    line.push('\n');
    if (&stream).write_all(line.as_bytes()).is_err() {
        return Ok(None); // it ended meanwhile
    }
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    match reader.fill_buf() {
        Ok([]) | Err(_) => Ok(None), // it ended before it answered
        Ok(_) => start(Box::new(reader)).map(Some),
    }
}

/// Reads the status line.
fn start(mut reader: Box<dyn BufRead>) -> anyhow::Result<Answer> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.trim_end() {
        "ok" => Ok(Answer { reader }),
        other => bail!("{}", error_text(other)),
    }
}

fn error_text(line: &str) -> String {
    line.strip_prefix("error ").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_else(|| line.to_string())
}

impl Answer {
    /// The next line; `None` at the end of a complete answer.
    pub fn line(&mut self) -> anyhow::Result<Option<String>> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        match line.trim_end_matches('\n') {
            "end" => Ok(None),
            "" => bail!("the answer was cut short"),
            text if text.starts_with("error ") => bail!("{}", error_text(text)),
            text => Ok(Some(text.to_string())),
        }
    }

    /// The bytes behind a hit's line.
    pub fn bytes(&mut self, len: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; len + 1];
        self.reader.read_exact(&mut bytes)?;
        bytes.pop();
        Ok(bytes)
    }
}

/// Path of the socket as seen through an open folder, so that long folder names fit a socket address.
fn socket_path(folder: &std::fs::File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}/weir.sock", folder.as_raw_fd()))
}

fn connect(data: &Path) -> std::io::Result<UnixStream> {
    let folder = std::fs::File::open(data)?;
    UnixStream::connect(socket_path(&folder))
}

/// Binds the socket of a data folder whose lock is held, so an old one belongs to nobody.
pub fn bind(data: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::fs::File::open(data)?;
    let path = socket_path(&folder);
    let real = data.join("weir.sock");
    if real.exists() {
        std::fs::remove_file(&real)?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot bind {}", real.display()))?;
    // Whoever may read the folder's files may ask; nobody else.
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
