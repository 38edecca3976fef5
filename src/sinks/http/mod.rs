//! The `http` sink: rows in the bodies of requests, at least once and in order.
//!
//! In: frames. Out: requests; a cursor that moves behind what was answered with 2xx; dead letters for what is refused for good.
//! Read on in this order: `body` (rows to bytes), `signals` (rows to OTLP and remote write), `exchange` (one request, what its answer means; by HTTP or gRPC), `dead` (what is refused), here
//! (what goes when, and the commit). What a commit makes true stands in one file, replaced as a whole: positions, who lost how
//! much, how long the file of dead letters is. So a crash sends again what no commit had, and counts nothing twice.
//! Bound: frames of [`COMMIT_BATCHES`] requests. When the far side does not take more, the hub keeps what comes.

mod body;
mod dead;
mod exchange;
mod signals;

pub use body::{Pattern, Shape, fields_of, pieces};

use crate::durable;
use crate::env;
use crate::sinks::config::{HttpAuth, HttpBody, HttpConfig, RemoteWriteVersion};
use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dead::DeadLetters;
use exchange::{Exchange, Item, Refusal, Request, Sent};
use flow::event::{Signal, StreamId};
use hub::{Disk, Frame, Tally};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use telemetry::trace_context::{self, TRACEPARENT, TRACESTATE};

/// Requests between two commits, where much is to be sent: a commit waits for the disk.
pub const COMMIT_BATCHES: u64 = 8;

/// What a plan says of the sink.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config: HttpConfig,
    pub shape: Shape,
    /// The data folder, and `PIPELINE.SINK`: what the sink keeps there is named after it.
    pub data: PathBuf,
    pub name: String,
}

/// The far side is busy, or away.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Busy {
    pub after: Duration,
    why: String,
}

/// What was done since the start.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Answers by status; 0: none came.
    pub answers: BTreeMap<u16, u64>,
    pub sent_bytes: u64,
}

/// What a commit makes true.
#[derive(Default, Serialize, Deserialize)]
struct Committed {
    positions: BTreeMap<u64, u64>,
    /// Tenant, records and bytes that were refused for good.
    refused: Vec<(Vec<u8>, u64, u64)>,
    dead: dead::State,
}

pub struct Http {
    disk: Disk,
    path: PathBuf,
    settings: Settings,
    exchange: Exchange,
    positions: HashMap<StreamId, u64>,
    refused: BTreeMap<Vec<u8>, Tally>,
    dead: DeadLetters,
    /// Refused since the last commit.
    new_refused: BTreeMap<Vec<u8>, Tally>,
    frames: Vec<Arc<Frame>>,
    /// Rows to be sent: which frame, which row.
    rows: VecDeque<(u32, u32)>,
    /// Their bytes, with newlines.
    rows_bytes: u64,
    /// After a refusal: the next request has so many rows at most.
    rows_max: Option<usize>,
    /// Attempts in a row that brought nothing.
    attempts: u32,
    /// State of the dice that spread pauses.
    dice: u64,
    /// What is known of series, for remote write.
    series: signals::Series,
}

impl Http {
    /// Nothing is sent or changed: questions open stores, too.
    pub fn open(disk: Disk, settings: Settings) -> anyhow::Result<Http> {
        let (data, name) = (&settings.data, &settings.name);
        let path = data.join("cursors").join(format!("{name}.http.json"));
        let committed: Committed = match disk.exists(&path)? {
            true => serde_json::from_slice(&disk.read(&path).with_context(|| format!("cannot read {}", path.display()))?)
                .with_context(|| format!("{} is damaged; remove it to send everything the hub still holds again", path.display()))?,
            false => Committed::default(),
        };
        let config = &settings.config;
        let headers = config.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let exchange = Exchange::new(&target(config), config.body, headers, config.timeout.duration(), config.retry.clone())?;
        let dead = DeadLetters::new(disk.clone(), data.join("dead").join(name), config.dead_letters.bytes_max.0, committed.dead);
        let refused = committed.refused.into_iter().map(|(tenant, records, bytes)| (tenant, Tally { records, bytes })).collect();
        Ok(Http {
            disk,
            path,
            settings,
            exchange,
            positions: committed.positions.into_iter().map(|(stream, done)| (StreamId(stream), done)).collect(),
            refused,
            dead,
            new_refused: BTreeMap::new(),
            frames: Vec::new(),
            rows: VecDeque::new(),
            rows_bytes: 0,
            rows_max: None,
            attempts: 0,
            dice: env::now().0 as u64,
            series: signals::Series::default(),
        })
    }

    /// Before the first frame: reads the secret.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        let folder = self.path.parent().expect("the file lies in the data folder");
        self.disk.create_dir_all(folder, "cursor folder").with_context(|| format!("cannot create {}", folder.display()))?;
        self.exchange.authorization = self.settings.config.auth.as_ref().map(authorization).transpose()?;
        Ok(())
    }

    pub fn positions(&self) -> HashMap<StreamId, u64> {
        self.positions.clone()
    }

    pub fn position(&self, stream: StreamId) -> Option<u64> {
        self.positions.get(&stream).copied()
    }

    /// What was refused for good up to the last commit, by tenant.
    pub fn refused(&self) -> &BTreeMap<Vec<u8>, Tally> {
        &self.refused
    }

    /// What the last commit added to that.
    pub fn take_refused(&mut self) -> BTreeMap<Vec<u8>, Tally> {
        std::mem::take(&mut self.new_refused)
    }

    pub fn stats(&self) -> Stats {
        Stats { answers: self.exchange.answers.clone(), sent_bytes: self.exchange.sent_bytes }
    }

    /// Dead letters that stand in the files, and that went for room.
    pub fn recount(&self) -> anyhow::Result<u64> {
        self.dead.recount()
    }

    pub fn write(&mut self, frame: &Arc<Frame>) {
        let number = self.frames.len() as u32;
        for part in &frame.parts {
            let done = self.positions.entry(part.stream).or_default();
            if part.to > *done {
                self.rows.extend(part.rows.clone().map(|row| (number, row)));
                self.rows_bytes += frame.rows.bytes_of(&part.rows) + part.rows.len() as u64;
                *done = part.to;
            }
        }
        self.frames.push(Arc::clone(frame));
    }

    /// Sends all that was taken, then makes that true. An error of kind [`Busy`] says when to try again: what was sent is not sent
    /// again then.
    pub fn commit(&mut self) -> anyhow::Result<()> {
        while !self.rows.is_empty() {
            self.send()?;
        }
        self.frames.clear();
        let dead = self.dead.write()?;
        let mut refused = self.refused.clone();
        for (tenant, tally) in &self.new_refused {
            refused.entry(tenant.clone()).or_default().add(*tally);
        }
        let committed = Committed {
            positions: self.positions.iter().map(|(stream, done)| (stream.0, *done)).collect(),
            refused: refused.iter().map(|(tenant, tally)| (tenant.clone(), tally.records, tally.bytes)).collect(),
            dead,
        };
        durable::replace(&self.disk, &self.path, &serde_json::to_vec(&committed).expect("numbers are plain data"))?;
        self.refused = refused;
        self.dead.settle();
        Ok(())
    }

    /// One request, with the rows that come first.
    fn send(&mut self) -> anyhow::Result<()> {
        let count = self.next_rows();
        let frames = &self.frames;
        let rows = self.rows.iter().take(count).map(|(frame, row)| (&*frames[*frame as usize], *row as usize));
        let (shape, labels) = (&self.settings.shape, &self.settings.config.labels);
        let body = match shape.body {
            HttpBody::Ndjson | HttpBody::Bulk | HttpBody::Loki => shape.body(rows)?,
            HttpBody::RemoteWrite(_) | HttpBody::Otlp(_) => {
                let made = match shape.version() {
                    Some(version) => self.series.remote_write(version, labels, rows),
                    None => signals::otlp(labels, rows),
                };
                if !made.unwritable.is_empty() {
                    self.refuse_some(made.unwritable);
                    return Ok(());
                }
                shape.pack(made.body).context("cannot compress a body")?
            }
        };
        let (key, signal) = (self.key(count), self.signal(0));
        let context = self.context();
        match self.exchange.send(Request { shape, signal, body, rows: count, key: &key, context }) {
            Sent::FallBack => {
                tracing::warn!(sink = self.settings.name, "the far side does not know remote write 2.0: it gets 1.0");
                self.settings.shape.body = HttpBody::RemoteWrite(RemoteWriteVersion::V1);
            }
            Sent::Delivered => {
                self.take(count);
                self.went_well();
            }
            Sent::Items(items) => return self.take_items(items),
            Sent::Retry { after, why } => return Err(self.busy(after, why)),
            Sent::Refused(refusal) if count == 1 => {
                let (frame, row) = self.take(1)[0];
                self.refuse(frame, row, &refusal);
            }
            // Which row it is nobody says: half of them is tried, until it is alone.
            Sent::Refused(_) => self.rows_max = Some(count / 2),
        }
        Ok(())
    }

    /// How many rows go next: batches of about the same size.
    fn next_rows(&self) -> usize {
        let batch = &self.settings.config.batch;
        let most = self.rows_max.unwrap_or(usize::MAX).min(batch.records as usize).max(1);
        let share = self.rows_bytes.div_ceil((self.rows_bytes / batch.bytes.0.max(1)).max(1));
        let mut bytes = 0;
        // What all rows of a request have in common.
        let (is_otlp, is_traced) = (matches!(self.settings.shape.body, HttpBody::Otlp(_)), self.settings.shape.context.is_some());
        let common = |at: usize| (is_otlp.then(|| self.signal(at)), is_traced.then(|| self.trace(at).map(|context| context.trace_id)));
        let first = common(0);
        let fits = (0..self.rows.len().min(most)).take_while(|at| {
            let before = bytes;
            bytes += self.bytes_of(&self.rows[*at]);
            before < share && (!(is_otlp || is_traced) || common(*at) == first)
        });
        fits.count().max(1)
    }

    fn signal(&self, at: usize) -> Signal {
        let (frame, row) = self.rows[at];
        signals::signal_of(&self.frames[frame as usize], row)
    }

    fn trace(&self, at: usize) -> Option<trace_context::Context> {
        let (frame, row) = self.rows[at];
        self.settings.shape.context(&self.frames[frame as usize], row as usize)
    }

    /// Headers that go on with the trace of the first rows, or begin one: the request is a span, whose parent theirs was.
    fn context(&self) -> Vec<(&'static str, String)> {
        if self.settings.shape.context.is_none() {
            return Vec::new();
        }
        let span_id = env::random().to_be_bytes();
        let context = match self.trace(0) {
            Some(context) => context.child(span_id),
            None => trace_context::Context::new(env::random_id(), span_id),
        };
        let state = context.tracestate().map(|state| (TRACESTATE, state));
        [(TRACEPARENT, context.traceparent())].into_iter().chain(state).collect()
    }

    fn bytes_of(&self, (frame, row): &(u32, u32)) -> u64 {
        self.frames[*frame as usize].rows.row(*row as usize).len() as u64 + 1
    }

    /// The rows that come first, which need not go any more.
    fn take(&mut self, count: usize) -> Vec<(u32, u32)> {
        let taken: Vec<(u32, u32)> = self.rows.drain(..count).collect();
        self.rows_bytes -= taken.iter().map(|row| self.bytes_of(row)).sum::<u64>();
        taken
    }

    /// Names what is in a request: the sink, and where its first and last row stand.
    fn key(&self, count: usize) -> String {
        let id = |at: usize| {
            let (frame, row) = self.rows[at];
            body::id_of(&self.frames[frame as usize], row as usize)
        };
        format!("{}-{}-{}-{count}", self.settings.name, id(0), id(count - 1))
    }

    /// Each item of a bulk has an answer of its own: what may come through later stays in front.
    fn take_items(&mut self, items: Vec<Item>) -> anyhow::Result<()> {
        let sent = self.take(items.len());
        let mut again = Vec::new();
        let mut why = String::new();
        for ((frame, row), item) in sent.into_iter().zip(items) {
            match item {
                Item::Delivered => {}
                Item::Refused(refusal) => self.refuse(frame, row, &refusal),
                Item::Retry(reason) => {
                    again.push((frame, row));
                    why = reason;
                }
            }
        }
        if again.is_empty() {
            self.went_well();
            return Ok(());
        }
        let count = again.len();
        self.rows_bytes += again.iter().map(|row| self.bytes_of(row)).sum::<u64>();
        again.into_iter().rev().for_each(|row| self.rows.push_front(row));
        Err(self.busy(None, format!("{count} items go again: {why}")))
    }

    /// Rows that no request can hold, by their place among those that come first.
    fn refuse_some(&mut self, unwritable: Vec<(usize, &'static str)>) {
        for (at, why) in unwritable.into_iter().rev() {
            if let Some((frame, row)) = self.rows.remove(at) {
                self.rows_bytes -= self.bytes_of(&(frame, row));
                self.refuse(frame, row, &Refusal { status: 0, why: why.to_owned() });
            }
        }
    }

    fn refuse(&mut self, frame: u32, row: u32, refusal: &Refusal) {
        let (frame, row) = (&self.frames[frame as usize], row as usize);
        self.dead.add(frame, row, refusal.status, &refusal.why);
        let tenant = &frame.tenants[frame.rows.tenant[row] as usize];
        let tally = self.new_refused.entry(tenant.to_vec()).or_default();
        tally.add(Tally { records: 1, bytes: u64::from(frame.rows.origin_bytes[row]) });
        self.attempts = 0;
    }

    fn went_well(&mut self) {
        self.attempts = 0;
        // Twice as many the next time, until nothing is held back any more.
        self.rows_max = self.rows_max.map(|max| max.saturating_mul(2)).filter(|max| *max < self.settings.config.batch.records as usize);
    }

    fn busy(&mut self, after: Option<Duration>, why: String) -> anyhow::Error {
        let retry = &self.settings.config.retry;
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pause =
            pause(self.attempts, retry.pause_min.duration(), retry.pause_max.duration(), (self.dice >> 33) as f64 / (1u64 << 31) as f64);
        self.attempts = self.attempts.saturating_add(1);
        Busy { after: pause.max(after.unwrap_or_default()), why }.into()
    }
}

/// Twice as long each time, of which `jitter` (0 to 1) takes away up to half: many senders must not come back together.
fn pause(attempts: u32, min: Duration, max: Duration, jitter: f64) -> Duration {
    let whole = min.saturating_mul(1u32.checked_shl(attempts.min(20)).unwrap_or(u32::MAX)).min(max);
    whole.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

/// The url with the usual path of its body, where it has none.
pub fn target(config: &HttpConfig) -> String {
    let url = config.url.trim();
    let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains('/'));
    if has_path {
        return if matches!(config.body, HttpBody::Otlp(_)) { url.trim_end_matches('/') } else { url }.to_string();
    }
    format!("{}{}", url.trim_end_matches('/'), config.body.usual_path())
}

fn authorization(auth: &HttpAuth) -> anyhow::Result<String> {
    let secret = crate::secrets::read("the token of an http sink", auth.token_file.as_deref(), auth.token_env.as_deref())?;
    let text = match &auth.user {
        Some(user) => format!("Basic {}", BASE64_STANDARD.encode([user.as_bytes(), b":", &secret].concat())),
        None => format!("Bearer {}", String::from_utf8_lossy(&secret)),
    };
    anyhow::ensure!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "the token of an http sink holds bytes that no header can hold");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_spread() {
        let at = |attempts, jitter| pause(attempts, Duration::from_millis(100), Duration::from_secs(10), jitter).as_millis();
        assert_eq!([at(0, 0.0), at(1, 0.0), at(3, 0.0), at(7, 0.0), at(99, 0.0)], [100, 200, 800, 10_000, 10_000]);
        assert_eq!([at(0, 1.0), at(1, 0.5), at(99, 1.0)], [50, 150, 5_000]);
    }
}
