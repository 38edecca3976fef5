//! The books of a data folder: facts to rate, what was published of them, and what an operator does with it.
//!
//! In: the lakes of a data folder and the frames that are not sealed in them yet. Out: facts for rating, each once; rows that were
//! published; and new events in the lake's log of charges: windows published, periods closed, rows taken back (rule R8). Only facts
//! that the lake has are published; reports also count those of the tail. Facts are shown one by one and never held all at once.
//! Of several lakes the first one, by name of its folder, holds the charges.

use crate::config::{self, Config, LoadedCard};
use crate::runtime::open::Manifest;
use anyhow::{Context, bail};
use bill::{Card, FactRef, Facts, Month, Rating, Row, Scope};
use flow::event::UsageFact;
use flow::units::{NANOS_PER_HOUR, UnixNanos};
use hub::Disk;
use lake::{ChargeEvent, Charges, EventView, FactView, Snapshot, append_charges};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Times a publication is started anew because another program was faster.
const ATTEMPTS_MAX: u32 = 20;

/// A lake, and what its hub has that it has not.
pub struct LakeBooks {
    pub root: PathBuf,
    pub snapshot: Snapshot,
    /// Facts of frames that are not sealed; those that the snapshot has are passed over.
    pub tail: Vec<UsageFact>,
}

pub struct Books {
    pub disk: Disk,
    pub lakes: Vec<LakeBooks>,
    /// Names that stand for nobody: what is metered under them is unattributed (rule R11).
    pub nobody: Vec<Vec<u8>>,
}

/// The rate card that the pipelines ran with last; `None`: they ran without one.
pub fn card(data: &Path) -> anyhow::Result<Option<Result<LoadedCard, config::Report>>> {
    let text = Manifest::read(data)?.pipelines.into_iter().find_map(|pipeline| pipeline.rates);
    Ok(text.map(|text| config::card(Path::new("rates"), Some(text))))
}

/// The names under which pipelines count records without a tenant.
pub fn nobody<'a>(configs: impl Iterator<Item = &'a Config>) -> Vec<Vec<u8>> {
    configs.map(|config| config.tenancy.unknown.clone().into_bytes()).collect()
}

/// A fact of nobody has no tenant.
pub fn attributed<'a>(fact: &FactView<'a>, nobody: &[Vec<u8>]) -> FactView<'a> {
    let is_nobodys = nobody.iter().any(|name| name == fact.tenant);
    FactView { tenant: if is_nobodys { &[] } else { fact.tenant }, ..*fact }
}

impl LakeBooks {
    /// Facts of the tail that the snapshot does not have.
    fn unsealed(&self) -> impl Iterator<Item = &UsageFact> {
        let sealed = self.snapshot.positions();
        self.tail.iter().filter(|fact| fact.to > sealed.get(&fact.stream).copied().unwrap_or(0))
    }
}

impl Books {
    /// Shows every fact that lies in `range`, in part or whole; none twice.
    pub fn each(&self, range: Option<(UnixNanos, UnixNanos)>, each: &mut dyn FnMut(&FactView<'_>)) -> anyhow::Result<()> {
        for lake in &self.lakes {
            lake::each_fact(&self.disk, &lake.snapshot, &[], range, &mut |fact| each(&attributed(fact, &self.nobody)))?;
            lake.unsealed().for_each(|fact| each(&attributed(&view(fact), &self.nobody)));
        }
        Ok(())
    }

    /// All facts of the range, ready to be rated.
    pub fn facts(&self, card: &Card, range: Option<(UnixNanos, UnixNanos)>) -> anyhow::Result<Facts> {
        let mut facts = Facts::new(card.dedup_window);
        self.each(range, &mut |fact| add(&mut facts, fact))?;
        Ok(facts)
    }

    /// Shows what became known between two publications: files of usage of the first lake, by number; without an end the tail,
    /// too. Nobody knows when other lakes had their facts: all of them are shown.
    pub fn each_between(&self, from: usize, to: Option<usize>, each: &mut dyn FnMut(&FactView<'_>)) -> anyhow::Result<()> {
        let first = &self.first()?.root;
        for lake in &self.lakes {
            let (from, to) = if lake.root == *first { (from, to) } else { (0, None) };
            let files = from..to.unwrap_or(usize::MAX);
            lake.snapshot.each_fact_of_files(files, &mut |fact| each(&attributed(fact, &self.nobody)))?;
            if to.is_none() {
                lake.unsealed().for_each(|fact| each(&attributed(&view(fact), &self.nobody)));
            }
        }
        Ok(())
    }

    pub fn charges(&self) -> anyhow::Result<Charges> {
        self.first()?.snapshot.charges()
    }

    fn first(&self) -> anyhow::Result<&LakeBooks> {
        self.lakes.iter().min_by(|a, b| a.root.cmp(&b.root)).context("there is no lake")
    }
}

/// A fact as rating takes it.
pub fn add(facts: &mut Facts, fact: &FactView<'_>) {
    let dims: Vec<(&str, &[u8])> = fact.dims.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    let event = fact.event.map(|event| {
        let EventView { kind, at, end, key, position } = event;
        bill::EventRef { kind, at, end, key, position }
    });
    facts.add_ref(FactRef {
        tenant: fact.tenant,
        meter: fact.meter,
        unit: fact.unit,
        dims: &dims,
        minute: fact.minute,
        quantity: fact.quantity,
        events: fact.events,
        stream: fact.stream,
        received: fact.received,
        event,
    });
}

fn view(fact: &UsageFact) -> FactView<'_> {
    FactView {
        tenant: &fact.tenant,
        meter: &fact.meter,
        unit: &fact.unit,
        dims: &fact.dims,
        series: u32::MAX,
        minute: fact.minute,
        quantity: fact.quantity,
        events: fact.events,
        stream: fact.stream,
        from: fact.from,
        to: fact.to,
        received: fact.received,
        event: fact.event.as_deref().map(|e| EventView { kind: e.kind, at: e.at, end: e.end, key: &e.key, position: e.position }),
    }
}

/// What is to be entered into the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Publish every window that is due, and close every period that is final.
    Publish,
    /// Close one period, all of its windows published.
    Close { month: String, early: bool },
    /// Take back so many units of a published row; all of them if no number is given.
    Reverse { row: String, quantity: Option<String>, reason: String },
}

/// What was entered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// Number of the lake's commit; 0: there was nothing to enter.
    pub commit: u64,
    pub rows: u64,
    pub corrections: u64,
    /// What the rows add up to, and the currency.
    pub billed: String,
    pub currency: String,
    pub closed: Vec<String>,
    /// Of what was rated for it: copies of events and conflicting ones, and by how many quanta parts miss their origin.
    #[serde(default)]
    pub copies: u64,
    #[serde(default)]
    pub conflicts: u64,
    #[serde(default)]
    pub residual: i64,
}

/// The user asked for what cannot be entered.
#[derive(Debug)]
pub struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Enters something into the books of these lakes, as of `at`.
pub fn enter(disk: &Disk, roots: &[PathBuf], nobody: &[Vec<u8>], card: &Card, entry: &Entry, at: UnixNanos) -> anyhow::Result<Entered> {
    for _ in 0..ATTEMPTS_MAX {
        let books = open(disk, roots, nobody)?;
        let charges = books.charges()?;
        let Made { event, rows, seen } = match entry {
            Entry::Publish => publish(&books, &charges, card, at)?,
            Entry::Close { month, early } => close(&books, &charges, card, month, *early, at)?,
            Entry::Reverse { row, quantity, reason } => reverse(&charges, card, row, quantity.as_deref(), reason, at)?,
        };
        if rows.is_empty() && event.closed.is_empty() {
            return Ok(Entered { currency: card.currency.clone(), billed: bill::Money::ZERO.to_string(), ..seen });
        }
        if let Some(commit) = append_charges(disk, &books.first()?.root, charges.number(), &event, &rows)? {
            return Ok(Entered {
                commit,
                rows: rows.len() as u64,
                corrections: rows.iter().filter(|row| row.is_correction).count() as u64,
                billed: bill::Money::sum(rows.iter().map(|row| row.charge.billed))?.to_string(),
                currency: card.currency.clone(),
                closed: event.closed,
                ..seen
            });
        }
    }
    bail!("another program keeps publishing charges")
}

/// The lakes as they are sealed; what waits in hubs is for later.
pub fn open(disk: &Disk, roots: &[PathBuf], nobody: &[Vec<u8>]) -> anyhow::Result<Books> {
    let lake = |root: &PathBuf| anyhow::Ok(LakeBooks { root: root.clone(), snapshot: Snapshot::read(disk, root)?, tail: Vec::new() });
    Ok(Books { disk: disk.clone(), lakes: roots.iter().map(lake).collect::<anyhow::Result<_>>()?, nobody: nobody.to_vec() })
}

/// What is to be committed, and what was seen of the rating behind it.
struct Made {
    event: ChargeEvent,
    rows: Vec<Row>,
    seen: Entered,
}

/// Copies, conflicts and residuals.
fn seen(rating: &Rating) -> Entered {
    let residual = |share: &bill::Conservation| {
        let (money, time) = share.residual();
        money.0.saturating_abs().saturating_add(time.saturating_abs())
    };
    let residual = rating.conservation.iter().map(residual).fold(0i128, i128::saturating_add);
    let residual = i64::try_from(residual).unwrap_or(i64::MAX);
    Entered { copies: rating.duplicates, conflicts: rating.conflicts, residual, ..Entered::default() }
}

fn publish(books: &Books, charges: &Charges, card: &Card, at: UnixNanos) -> anyhow::Result<Made> {
    let mut range = unpublished(books, charges, card, at);
    let mut rating = range.as_ref().map(|range| rate(books, card, range)).transpose()?;
    let first = rating.iter().flat_map(|rating| &rating.rows).map(|row| row.hour).min();
    let closed = final_months(charges, first, at);
    // A month is closed by all of its facts: those of one hour may contradict those of another, which hours alone do not show.
    if let (Some(begun), Some(ended)) = (closed.first(), closed.last()) {
        let whole = range.map_or(begun.start()..ended.end(), |range| range.start.min(begun.start())..range.end.max(ended.end()));
        rating = Some(rate(books, card, &whole)?);
        range = Some(whole);
    }
    let names = closed.iter().map(|month| month.name()).collect();
    let (Some(range), Some(rating)) = (range, rating) else {
        return Ok(Made { event: event(card, at, None, names), rows: Vec::new(), seen: Entered::default() });
    };
    let rows = settled(charges.book.settle(&rating, at, Scope::Due, Some(&range))?, at);
    let until = hour_before(at.0.saturating_sub(bill::book::PUBLISH_AFTER_NS));
    Ok(Made { event: event(card, at, Some(until), names), rows, seen: seen(&rating) })
}

/// Rates charge periods that begin in a range. What was held or seen shortly before it may reach into it.
fn rate(books: &Books, card: &Card, range: &Range<UnixNanos>) -> anyhow::Result<Rating> {
    let from = UnixNanos(range.start.0.saturating_sub(card.sample_gap.0));
    Ok(books.facts(card, Some((from, range.end)))?.rate_range(card, range.start, range.end))
}

/// The charge periods that may have changed since the last publication. `None`: there are none.
///
/// Those of facts that were committed since, and all that were not due then; the whole month where tiers or commitments count it.
fn unpublished(books: &Books, charges: &Charges, card: &Card, at: UnixNanos) -> Option<Range<UnixNanos>> {
    let last = charges.events.iter().filter_map(|published| published.event.published_until_ns).max();
    let (mut start, mut end) = (None, None);
    for lake in &books.lakes {
        for file in lake.snapshot.usage_files() {
            let waited = last.filter(|until| file.max_time.0 >= *until).map(UnixNanos);
            let from = if file.is_new { Some(file.min_time) } else { waited };
            start = [start, from].into_iter().flatten().min();
            end = end.max(Some(file.max_time));
        }
    }
    let (start, end) = (start?, end?);
    let counts_month = !card.commitments.is_empty() || card.has_tiers();
    let start = if counts_month { Month::of(start).start() } else { hour_before(start.0) };
    let end = UnixNanos(hour_before(end.0).0.saturating_add(NANOS_PER_HOUR)).max(hour_before(at.0));
    Some(start..end)
}

fn hour_before(nanos: i64) -> UnixNanos {
    UnixNanos(nanos - nanos.rem_euclid(NANOS_PER_HOUR))
}

/// Months that are final at `at` and not closed, from the first that anything was used in.
fn final_months(charges: &Charges, first: Option<UnixNanos>, at: UnixNanos) -> Vec<Month> {
    let published = charges.rows.iter().map(|row| row.charge.hour);
    let Some(first) = published.chain(first).min() else { return Vec::new() };
    let all = std::iter::successors(Some(Month::of(first)), |month| Some(month.next()));
    all.take_while(|month| month.final_at() <= at).filter(|month| !charges.book.is_closed(*month)).collect()
}

fn close(books: &Books, charges: &Charges, card: &Card, month: &str, early: bool, at: UnixNanos) -> anyhow::Result<Made> {
    let month = Month::parse(month).ok_or_else(|| Refused(format!("{month:?} is no month; write it as 2026-10")))?;
    if charges.book.is_closed(month) {
        return Err(Refused(format!("{} is closed already; what comes late is published as a correction", month.name())).into());
    }
    if at < month.final_at() && !early {
        let day = month.final_at().rfc3339();
        return Err(Refused(format!("{} is final on {day}, and usage may still come; --early closes it now", month.name())).into());
    }
    let rating = books.facts(card, None)?.rate(card);
    let rows = settled(charges.book.settle(&rating, at, Scope::Before(month.end()), None)?, at);
    Ok(Made { event: event(card, at, None, vec![month.name()]), rows, seen: seen(&rating) })
}

fn reverse(charges: &Charges, card: &Card, id: &str, quantity: Option<&str>, reason: &str, at: UnixNanos) -> anyhow::Result<Made> {
    let row = find(charges, id)?;
    let (id, whole) = (row.id(), row.charge.billable);
    let is_of_it = |other: &&Row| other.reversal.as_ref().is_some_and(|reversal| reversal.of == id);
    let taken: i128 = charges.rows.iter().filter(is_of_it).map(|other| -other.charge.billable).sum();
    let quantity = match quantity {
        Some(text) => text.parse().map_err(|_| Refused(format!("{text:?} is no whole number of units")))?,
        None => whole - taken,
    };
    if quantity > whole - taken {
        return Err(Refused(format!("row {id} has {whole} units, and {taken} of them are taken back")).into());
    }
    let reversal = charges.book.reverse(row, quantity, reason, at).map_err(|error| Refused(format!("row {id}: {error}")))?;
    let event = ChargeEvent { reversed: Some(id), ..event(card, at, None, Vec::new()) };
    Ok(Made { event, rows: settled(vec![reversal], at), seen: Entered::default() })
}

/// The published row of that name, or of the only one that begins so.
fn find<'a>(charges: &'a Charges, id: &str) -> anyhow::Result<&'a Row> {
    let found: Vec<&Row> = charges.rows.iter().filter(|row| row.id().starts_with(id)).collect();
    match found[..] {
        [row] if id.len() >= 6 => Ok(row),
        [] | [_] => Err(Refused(format!("no published row is called {id:?}; the column x_RowId of `weir cost export` names them")).into()),
        _ => Err(Refused(format!("{} rows begin with {id:?}; write more of the name", found.len())).into()),
    }
}

fn settled(mut rows: Vec<Row>, at: UnixNanos) -> Vec<Row> {
    rows.iter_mut().for_each(|row| row.published = Some(at));
    rows
}

fn event(card: &Card, at: UnixNanos, until: Option<UnixNanos>, closed: Vec<String>) -> ChargeEvent {
    ChargeEvent { at_ns: at.0, card: card.digest.clone(), published_until_ns: until.map(|until| until.0), closed, reversed: None }
}

/// All rows as of now: those that were published, and those that would have to follow.
pub fn all_rows(charges: &Charges, rating: &Rating, at: UnixNanos) -> anyhow::Result<Vec<Row>> {
    let mut rows = charges.rows.clone();
    rows.extend(charges.book.settle(rating, at, Scope::All, None)?);
    Ok(rows)
}

/// The data folder's own lakes, by path.
pub fn absolute(root: &Path) -> PathBuf {
    std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf())
}
