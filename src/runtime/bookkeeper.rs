//! The bookkeeper: publishes charges when they are due and closes periods when they are final, while a process runs (rule R8).
//!
//! In: the lakes, and the rate card as the manifest has it, so a reload changes it here too; the clock, once a minute. Out: entries in the books at the first minute of each
//! hour, as `weir cost close` makes them, and how budgets stand, as metrics and as an event for each alert that is crossed. What
//! cannot be published is told and tried again; sinks and lanes do not wait for it. Memory: the facts of the hours that are due.

use crate::books::{self, Entered, Entry};
use crate::env;
use bill::{BudgetState, Card, Charge, Month, budget_state};
use flow::units::{NANOS_PER_HOUR, UnixNanos};
use hub::Disk;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::{info, warn};

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How often the end of the process is looked for meanwhile.
const STOP: Duration = Duration::from_millis(100);

/// What a scraper sees of the books.
#[derive(Default)]
pub struct Status {
    pub rows: AtomicU64,
    pub failures: AtomicU64,
    /// Quanta of money and of time by which parts of shared cost miss their origin; 0 when nothing leaks.
    pub residual: AtomicI64,
    pub copies: AtomicU64,
    pub conflicts: AtomicU64,
    pub budgets: Mutex<Vec<BudgetState>>,
}

pub struct Bookkeeper {
    data: PathBuf,
    roots: Vec<PathBuf>,
    nobody: Vec<Vec<u8>>,
    status: Arc<Status>,
    /// The hour that was entered last.
    entered: i64,
    /// Alerts that were told: budget, month, percent.
    told: BTreeSet<(String, String, u32)>,
}

impl Bookkeeper {
    pub fn new(data: PathBuf, roots: Vec<PathBuf>, nobody: Vec<Vec<u8>>, status: Arc<Status>) -> Bookkeeper {
        Bookkeeper { data, roots, nobody, status, entered: i64::MIN, told: BTreeSet::new() }
    }

    /// Until the process ends.
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.look(env::now());
            let mut waited = Duration::ZERO;
            while waited < LOOK && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(STOP);
                waited += STOP;
            }
        }
    }

    fn look(&mut self, now: UnixNanos) {
        let hour = now.0.div_euclid(NANOS_PER_HOUR);
        if hour == self.entered {
            return;
        }
        match self.keep(now) {
            Ok(entered) => {
                self.entered = hour;
                if entered.commit > 0 {
                    info!(rows = entered.rows, billed = entered.billed, closed = ?entered.closed, "charges are published");
                }
            }
            Err(error) => {
                self.status.failures.fetch_add(1, Ordering::Relaxed);
                warn!(error = format!("{error:#}"), "cannot publish charges; trying again in a minute");
            }
        }
    }

    fn keep(&mut self, now: UnixNanos) -> anyhow::Result<Entered> {
        let disk = Disk::Real;
        let Some(card) = books::card(&self.data)? else { return Ok(Entered::default()) };
        let card = card.map_err(|report| anyhow::anyhow!("the rate card kept in the data folder: {report}"))?.card;
        let entered = books::enter(&disk, &self.roots, &self.nobody, &card, &Entry::Publish, now)?;
        self.status.rows.fetch_add(entered.rows, Ordering::Relaxed);
        self.status.residual.store(entered.residual, Ordering::Relaxed);
        self.status.copies.store(entered.copies, Ordering::Relaxed);
        self.status.conflicts.store(entered.conflicts, Ordering::Relaxed);
        if !card.budgets.is_empty() {
            self.look_at_budgets(&disk, &card, now)?;
        }
        Ok(entered)
    }

    fn look_at_budgets(&mut self, disk: &Disk, card: &Card, now: UnixNanos) -> anyhow::Result<()> {
        let books = books::open(disk, &self.roots, &self.nobody)?;
        let charges = books.charges()?;
        let month = Month::of(now);
        let own: Vec<Charge> =
            charges.rows.iter().map(|row| &row.charge).filter(|charge| Month::of(charge.hour) == month).cloned().collect();
        let complete = charges.book.published_until.unwrap_or(month.start());
        let states: Vec<BudgetState> =
            card.budgets.iter().map(|budget| budget_state(budget, &own, now, complete)).collect::<Result<_, _>>()?;
        for state in &states {
            for alert in state.alerts.iter().filter(|alert| alert.crossed.is_some()) {
                if self.told.insert((state.name.clone(), state.month.clone(), alert.percent)) {
                    warn!(budget = state.name, percent = alert.percent, spent = %state.spent, "{}", alert.text);
                }
            }
        }
        *crate::sources::status::lock(&self.status.budgets) = states;
        Ok(())
    }
}
