//! Reads the scrapes of one target, one after another, into records of samples.
//!
//! In: a body, its format and the time of the scrape. Out: lines of JSON ([`crate::sample`]), stale markers for series that have
//! ended, and counts. A scrape is whole or not at all: after an error nothing of it is written but a stale marker for each series that
//! was live, and `up` is 0. The hot path is [`Scraper::text`]: a series that was seen before costs a comparison of its text, its
//! number's parsing and a copy; only a new one is parsed, merged with the target's labels, relabelled and checked.
//!
//! Semantics are those of Prometheus 3 (scrape/scrape.go); differences: a failed scrape ends *all* live series at once, created times
//! are written as `start`. Bounds: [`Limits`]; the caller bounds the body before it is unpacked.

use super::cache::{Cache, DROPPED, Entry, Full, NONE, START_ONLY};
use super::lines::{self, Comment, Dialect, Exemplar, Expected, Parsed};
use super::{Format, number, protobuf, strict};
use crate::histogram::Histogram;
use crate::relabel::{self, Labels, Rule};
use crate::sample::{self, STALE, Stamp, Type};
use flow::units::UnixNanos;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// A sample further ahead of the scrape is dropped and counted: 10 minutes, as in Prometheus.
pub const MAX_AHEAD_NANOS: i64 = 600_000_000_000;
/// Of names and values of an exemplar's labels together, in characters.
pub const EXEMPLAR_CHARS_MAX: usize = 128;
const MORE_THAN_UTF8: Expected = "label values and help are UTF-8";

/// What a scrape may bring. 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Samples after relabelling.
    pub samples: usize,
    /// Labels of a series, the metric's name included.
    pub labels: usize,
    pub label_name_bytes: usize,
    pub label_value_bytes: usize,
    pub body_bytes: usize,
    /// Of the records that a body becomes: labels stand in each.
    pub out_bytes: usize,
    /// Buckets of a native histogram: merged into a coarser schema until they are so few.
    pub buckets: usize,
}

/// What becomes of `_created` in OpenMetrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Created {
    /// They are series, as Prometheus has them, and the `start` of what they tell of.
    #[default]
    Both,
    /// They are series and nothing else.
    Series,
    /// They are no series.
    Start,
}

#[derive(Clone, Debug)]
pub struct Target {
    /// Sorted by name: see [`relabel::public`].
    pub labels: Vec<(String, String)>,
    /// On a conflict the body's label stays; otherwise it is renamed to `exported_…`.
    pub honor_labels: bool,
    pub honor_timestamps: bool,
    /// Series with times of their own get stale markers too.
    pub track_timestamps_staleness: bool,
    pub metric_relabel: Vec<Rule>,
    pub limits: Limits,
    /// Reads native histograms; otherwise all histograms are classic.
    pub native_histograms: bool,
    /// Reads the classic buckets of a native histogram as well.
    pub classic_too: bool,
    pub created: Created,
    /// Holds OpenMetrics to its text, where Prometheus is lenient: see [`strict`].
    pub strict: bool,
    /// Reports `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes` too.
    pub extra_metrics: bool,
    pub timeout_seconds: f64,
}

impl Default for Target {
    fn default() -> Target {
        Target {
            labels: Vec::new(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            metric_relabel: Vec::new(),
            limits: Limits::default(),
            native_histograms: true,
            classic_too: false,
            created: Created::Both,
            strict: false,
            extra_metrics: false,
            timeout_seconds: 10.0,
        }
    }
}

/// What a scrape brought; after an error, what it had brought until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scraped {
    pub samples: usize,
    pub post_relabel: usize,
    /// Texts of series that were not known.
    pub series_added: usize,
    pub body_bytes: usize,
    /// Same series, same time: the first is kept.
    pub duplicates: usize,
    /// Too far ahead of the scrape, or at a time that cannot be counted.
    pub out_of_bounds: usize,
    pub exemplars: usize,
    /// Too long, or without a time on a native histogram.
    pub exemplars_dropped: usize,
    pub stale: usize,
}

/// Why a scrape failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Malformed,
    /// A page instead of metrics.
    Html,
    /// OpenMetrics without its last line: the body was cut.
    NoEof,
    InvalidUtf8,
    DuplicateLabel,
    NoName,
    InvalidHistogram,
    /// Against the text of OpenMetrics, with `strict`.
    NotStrict,
    SampleLimit,
    LabelLimit,
    LabelNameLimit,
    LabelValueLimit,
    BodyLimit,
    BucketLimit,
    /// The series' texts are more than 4 GiB.
    TooManySeries,
}

impl Reason {
    /// One word, to count by.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::Html => "html",
            Reason::NoEof => "no_eof",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::DuplicateLabel => "duplicate_label",
            Reason::NoName => "no_name",
            Reason::InvalidHistogram => "invalid_histogram",
            Reason::NotStrict => "not_strict",
            Reason::SampleLimit => "sample_limit",
            Reason::LabelLimit => "label_limit",
            Reason::LabelNameLimit => "label_name_length_limit",
            Reason::LabelValueLimit => "label_value_length_limit",
            Reason::BodyLimit => "body_size_limit",
            Reason::BucketLimit => "native_histogram_bucket_limit",
            Reason::TooManySeries => "too_many_series",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeError {
    pub reason: Reason,
    /// From 1; 0: of the body as a whole, or of protobuf.
    pub line: usize,
    pub what: String,
    pub scraped: Scraped,
}

impl fmt::Display for ScrapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

impl std::error::Error for ScrapeError {}

/// What [`Scraper::report`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good(Scraped),
    /// What was read until the error; nothing, if the target did not answer.
    Failed(Scraped),
}

/// An error inside of a scrape: the reason, and what is wrong.
#[derive(Debug)]
pub(super) struct Fault {
    pub reason: Reason,
    pub what: String,
}

impl Fault {
    pub fn new(reason: Reason, what: impl Into<String>) -> Fault {
        Fault { reason, what: what.into() }
    }
}

impl From<Expected> for Fault {
    fn from(what: Expected) -> Fault {
        Fault::new(Reason::Malformed, what)
    }
}

impl From<Full> for Fault {
    fn from(_: Full) -> Fault {
        Fault::new(Reason::TooManySeries, "the texts of a target's series are at most 4 GiB")
    }
}

/// What a sample says.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Double(f64),
    Histogram(&'a Histogram),
}

/// The family that the body speaks of.
#[derive(Clone, Debug, Default)]
struct Current {
    name: Vec<u8>,
    kind: Type,
    unit: Vec<u8>,
    /// `None`: it has changed, and no sample has asked yet.
    number: Option<u32>,
}

pub struct Scraper {
    target: Target,
    cache: Cache,
    stamp: Stamp,
    format: Option<Format>,
    run: Run,
    current: Current,
    parsed: Parsed,
    part: Vec<u8>,
    reports: Vec<(&'static str, Vec<u8>)>,
}

/// The scrape that is being read.
#[derive(Default)]
struct Run {
    at: UnixNanos,
    counts: Scraped,
    written: usize,
    over_samples: bool,
    /// Where this scrape's records begin.
    from: usize,
    over_bytes: bool,
    /// Samples of a series at further times: the first time is with the series.
    more_times: HashSet<(u32, i64)>,
    /// Starts by point, and points by family and labels.
    points: HashMap<Vec<u8>, u32>,
    starts: Vec<Option<UnixNanos>>,
}

impl Scraper {
    pub fn new(target: Target) -> Scraper {
        let reports = report_parts(&target);
        Scraper {
            target,
            cache: Cache::default(),
            stamp: Stamp::default(),
            format: None,
            run: Run::default(),
            current: Current::default(),
            parsed: Parsed::default(),
            part: Vec::new(),
            reports,
        }
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Texts of series that are remembered.
    pub fn series_known(&self) -> usize {
        self.cache.entries()
    }

    /// Reads a body, unpacked. Appends a line for each sample, then one for each series that has ended. After an error only the stale
    /// markers of all live series are appended.
    pub fn scrape(&mut self, format: Format, body: &[u8], at: UnixNanos, out: &mut Vec<u8>) -> Result<Scraped, ScrapeError> {
        let from = out.len();
        self.begin(format, at, body.len());
        (self.run.from, self.run.over_bytes) = (from, false);
        let read = self.read(format, body, out);
        let (fault, line) = match read {
            Ok(()) if self.run.over_bytes => {
                let limit = self.target.limits.out_bytes;
                (Fault::new(Reason::BodyLimit, format!("the body becomes more than {limit} bytes of records")), 0)
            }
            Ok(()) if self.run.over_samples => (
                Fault::new(
                    Reason::SampleLimit,
                    format!("{} samples after relabelling, at most {}", self.run.counts.post_relabel, self.target.limits.samples),
                ),
                0,
            ),
            Ok(()) => {
                let mut ended = 0;
                self.cache.end(!body.is_empty(), |part| {
                    ended += 1;
                    put_stale(part, &mut self.stamp, at, out);
                });
                self.run.counts.stale = ended;
                return Ok(self.run.counts);
            }
            Err((fault, offset)) => {
                let line = if format == Format::Protobuf { 0 } else { 1 + memchr::memchr_iter(b'\n', &body[..offset]).count() };
                (fault, line)
            }
        };
        out.truncate(from);
        self.run.counts.stale = self.failed(at, out);
        Err(ScrapeError { reason: fault.reason, line, what: fault.what, scraped: self.run.counts })
    }

    /// The target did not answer, or with something that is no exposition: every live series ends. Returns how many.
    pub fn failed(&mut self, at: UnixNanos, out: &mut Vec<u8>) -> usize {
        let mut ended = 0;
        self.cache.fail(|part| {
            ended += 1;
            put_stale(part, &mut self.stamp, at, out);
        });
        ended
    }

    /// The target is no more: every live series ends, and those of [`Scraper::report`].
    pub fn end(&mut self, at: UnixNanos, out: &mut Vec<u8>) -> usize {
        let ended = self.failed(at, out);
        for (_, part) in &self.reports {
            put_stale(part, &mut self.stamp, at, out);
        }
        ended + self.reports.len()
    }

    /// Writes `up` and the other series about the scrape itself.
    pub fn report(&mut self, at: UnixNanos, duration_seconds: f64, outcome: Outcome, out: &mut Vec<u8>) {
        let (up, scraped) = match outcome {
            Outcome::Good(scraped) => (1.0, scraped),
            Outcome::Failed(scraped) => (0.0, scraped),
        };
        let over_body = self.target.limits.body_bytes > 0 && scraped.body_bytes > self.target.limits.body_bytes;
        for (name, part) in &self.reports {
            let value = match *name {
                "up" => up,
                "scrape_duration_seconds" => duration_seconds,
                "scrape_samples_scraped" => scraped.samples as f64,
                "scrape_samples_post_metric_relabeling" => scraped.post_relabel as f64,
                "scrape_series_added" => scraped.series_added as f64,
                "scrape_timeout_seconds" => self.target.timeout_seconds,
                "scrape_sample_limit" => self.target.limits.samples as f64,
                _ if over_body => -1.0,
                _ => scraped.body_bytes as f64,
            };
            out.extend_from_slice(part);
            self.stamp.put(out, at);
            sample::put_value_end(out, value);
        }
    }

    fn begin(&mut self, format: Format, at: UnixNanos, body_bytes: usize) {
        if self.format.replace(format).is_some_and(|before| before != format) {
            self.cache.forget_entries();
            self.run.points.clear();
            self.run.starts.clear();
        }
        self.cache.begin();
        self.run.at = at;
        self.run.counts = Scraped { body_bytes, ..Scraped::default() };
        (self.run.written, self.run.over_samples) = (0, false);
        self.run.more_times.clear();
        self.run.starts.fill(None);
        self.current = Current::default();
    }

    fn read(&mut self, format: Format, body: &[u8], out: &mut Vec<u8>) -> Result<(), (Fault, usize)> {
        let limit = self.target.limits.body_bytes;
        if limit > 0 && body.len() > limit {
            return Err((Fault::new(Reason::BodyLimit, format!("the body is {} bytes, at most {limit}", body.len())), 0));
        }
        if body.is_empty() {
            return Ok(());
        }
        match format {
            Format::Protobuf => protobuf::read(self, body, out).map_err(|fault| (fault, 0)),
            Format::Text => self.text(Dialect::Text, body, out),
            Format::OpenMetrics => {
                if self.target.strict {
                    strict::check(body).map_err(|(what, offset)| (Fault::new(Reason::NotStrict, what), offset))?;
                }
                self.collect_starts(body);
                self.text(Dialect::OpenMetrics, body, out)
            }
        }
    }

    /// Reads a body of lines. This is the hot path; read it first.
    fn text(&mut self, dialect: Dialect, body: &[u8], out: &mut Vec<u8>) -> Result<(), (Fault, usize)> {
        let is_utf8 = std::str::from_utf8(body).is_ok();
        let mut at = 0;
        loop {
            if dialect == Dialect::Text && body.get(at).is_some_and(|byte| lines::is_blank(*byte)) {
                at += lines::blanks(&body[at..]);
            }
            let rest = &body[at..];
            match rest.first() {
                None if dialect == Dialect::OpenMetrics => {
                    return Err((Fault::new(Reason::NoEof, "the body does not end with # EOF: it is cut, or no OpenMetrics"), at));
                }
                None => return Ok(()),
                Some(b'\n') if dialect == Dialect::Text => at += 1,
                Some(b'#') => {
                    let len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                    match self.comment(&rest[..len], dialect, is_utf8).map_err(|fault| (fault, at))? {
                        true if at + len + 1 < body.len() => return Err((Fault::from("nothing comes after # EOF"), at + len + 1)),
                        true => return Ok(()),
                        false if len == rest.len() && dialect == Dialect::OpenMetrics => {
                            return Err((Fault::new(Reason::NoEof, lines::NO_EOF), at));
                        }
                        false => at += (len + 1).min(rest.len()),
                    }
                }
                Some(_) => {
                    let len = self.sample(rest, dialect, is_utf8, out).map_err(|fault| (html(rest, fault), at))?;
                    at += len.min(rest.len());
                }
            }
        }
    }

    /// Reads one sample and writes it. Returns the bytes of its line.
    #[inline]
    fn sample(&mut self, rest: &[u8], dialect: Dialect, is_utf8: bool, out: &mut Vec<u8>) -> Result<usize, Fault> {
        let family = self.family_number();
        let (found, len) = match self.cache.find(rest) {
            Ok((entry, len)) if self.cache.entry(entry).family == family => (Some(entry), len),
            Ok((entry, len)) => {
                self.again(entry, &rest[..len], dialect, family)?;
                (Some(entry), len)
            }
            Err(Some(len)) => (None, len),
            // The parser knows what is wrong with it.
            Err(None) => (None, 0),
        };
        let (entry, len) = match found {
            Some(entry) => (Some(entry), len),
            None => self.meet(rest, dialect, is_utf8, family)?,
        };
        let tail = match dialect {
            Dialect::Text => lines::tail_of_text(&rest[len..]),
            Dialect::OpenMetrics => lines::tail_of_openmetrics(&rest[len..]),
        };
        let tail = tail.map_err(|what| explain(what, rest))?;
        let mut line_len = len + tail.len;
        let mut exemplar = None;
        if let Some(exemplar_at) = tail.exemplar {
            let (read, len) = lines::parse_exemplar(&rest[len + exemplar_at..], &mut self.parsed).map_err(|what| explain(what, rest))?;
            line_len += len;
            exemplar = Some(read);
        }
        let Some(entry) = entry else {
            self.run.counts.samples += 1;
            self.run.counts.post_relabel += 1;
            return Ok(line_len);
        };
        let start = if self.run.points.is_empty() { None } else { self.start_of(entry, &rest[..len], dialect) };
        let time = if tail.beyond { Some(UnixNanos(i64::MAX)) } else { tail.at };
        self.put(entry, Value::Double(tail.value), time, start, exemplar.as_slice(), out);
        Ok(line_len)
    }

    /// Writes a sample of a known series, or counts why it is not written.
    #[inline]
    pub(super) fn put(
        &mut self,
        entry: u32,
        value: Value<'_>,
        time: Option<UnixNanos>,
        start: Option<UnixNanos>,
        exemplars: &[Exemplar],
        out: &mut Vec<u8>,
    ) {
        let run = &mut self.run;
        let scrape = self.cache.scrape;
        let Entry { series: number, .. } = *{
            let entry = self.cache.entry(entry);
            entry.seen = scrape;
            entry
        };
        if number == START_ONLY {
            return;
        }
        run.counts.samples += 1;
        if number == DROPPED {
            return;
        }
        run.counts.post_relabel += 1;
        if self.target.limits.out_bytes > 0 && out.len() - run.from > self.target.limits.out_bytes {
            run.over_bytes = true;
            return;
        }
        let own_time = time.filter(|_| self.target.honor_timestamps);
        let at = own_time.unwrap_or(run.at);
        let series = self.cache.series(number);
        if own_time.is_some() && at.0 > run.at.0.saturating_add(MAX_AHEAD_NANOS) {
            run.counts.out_of_bounds += 1;
            return;
        }
        if series.seen != scrape {
            (series.seen, series.last_at) = (scrape, at.0);
        } else if series.last_at == at.0 || !run.more_times.insert((number, at.0)) {
            run.counts.duplicates += 1;
            return;
        }
        run.written += 1;
        if self.target.limits.samples > 0 && run.written > self.target.limits.samples {
            run.over_samples = true;
            return;
        }
        if own_time.is_none() || self.target.track_timestamps_staleness {
            series.tracked = scrape;
        }
        out.extend_from_slice(self.cache.part(number));
        self.stamp.put(out, at);
        if let Some(start) = start {
            put_time(out, b",\"start\":\"", start);
        }
        match value {
            Value::Double(value) => {
                out.extend_from_slice(b",\"value\":");
                sample::put_double(out, value);
            }
            Value::Histogram(histogram) => {
                out.extend_from_slice(b",\"histogram\":");
                histogram.put(out);
            }
        }
        if !exemplars.is_empty() {
            put_exemplars(exemplars, &mut run.counts, out);
        }
        out.extend_from_slice(b"}\n");
    }

    /// Takes in a series that is not known. `None`: there are too many samples already, and it is not remembered.
    #[cold]
    fn meet(&mut self, rest: &[u8], dialect: Dialect, is_utf8: bool, family: u32) -> Result<(Option<u32>, usize), Fault> {
        let len = lines::parse_series(rest, dialect, &mut self.parsed).map_err(|what| explain(what, rest))?;
        if !is_utf8 && std::str::from_utf8(&rest[..len]).is_err() {
            return Err(Fault::new(Reason::InvalidUtf8, MORE_THAN_UTF8));
        }
        if let Some(entry) = self.cache.find_key(&rest[..len]) {
            return Ok((Some(entry), len));
        }
        Ok((self.enter(&rest[..len], family)?, len))
    }

    /// Remembers a key whose name and labels are in `parsed`.
    pub(super) fn enter(&mut self, key: &[u8], family: u32) -> Result<Option<u32>, Fault> {
        let kept = self.resolve()?;
        if self.run.over_samples {
            return Ok(None);
        }
        let entry = self.cache.add(key, family)?;
        self.settle(entry, kept)?;
        if self.cache.entry(entry).series < START_ONLY {
            self.run.counts.series_added += 1;
        }
        Ok(Some(entry))
    }

    /// The family is another one than when the series was met: its type may be, and so how its labels are written.
    #[cold]
    fn again(&mut self, entry: u32, key: &[u8], dialect: Dialect, family: u32) -> Result<(), Fault> {
        lines::parse_series(key, dialect, &mut self.parsed)?;
        let kept = self.resolve()?;
        self.settle(entry, kept)?;
        let entry = self.cache.entry(entry);
        (entry.family, entry.point) = (family, NONE);
        Ok(())
    }

    fn settle(&mut self, entry: u32, kept: bool) -> Result<(), Fault> {
        let skips = self.target.created == Created::Start && self.parsed.name.ends_with(b"_created") && self.has_start();
        let dropped = if skips { START_ONLY } else { DROPPED };
        let part = Some(self.part.as_slice()).filter(|_| kept && !skips);
        self.cache.assign(entry, part, dropped)?;
        Ok(())
    }

    /// Whether the series in `parsed` belongs to a family that has starts.
    fn has_start(&self) -> bool {
        matches!(self.current.kind, Type::Counter | Type::Histogram | Type::Summary)
            && belongs(&self.parsed.name, &self.current.name, self.current.kind)
    }

    /// From name and labels as they are exposed to the series part in `part`; false: relabelling drops it.
    fn resolve(&mut self) -> Result<bool, Fault> {
        let mut exposed = Labels::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Fault::new(Reason::InvalidUtf8, MORE_THAN_UTF8));
        exposed.insert("__name__".into(), text(&self.parsed.name)?);
        for (name, value) in &self.parsed.labels {
            let name = text(name)?;
            let value = text(&normal(self.current.kind, &name, value))?;
            if name.is_empty() {
                return Err(Fault::from("a label has a name"));
            }
            if exposed.contains_key(&name) {
                return Err(Fault::new(Reason::DuplicateLabel, format!("the label {name:?} stands there twice")));
            }
            exposed.insert(name, value);
        }
        let mut labels = merge(exposed, &self.target);
        if !relabel::apply(&self.target.metric_relabel, &mut labels) || labels.is_empty() {
            return Ok(false);
        }
        check_limits(&labels, &self.target.limits)?;
        let Some(metric) = labels.remove("__name__") else {
            return Err(Fault::new(Reason::NoName, "relabelling leaves no metric name"));
        };
        let is_of_family = belongs(&self.parsed.name, &self.current.name, self.current.kind);
        let (kind, unit) = if is_of_family { (self.current.kind, self.current.unit.as_slice()) } else { (Type::Unknown, &b""[..]) };
        let unit = String::from_utf8_lossy(unit);
        self.part.clear();
        let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        sample::put_series(&mut self.part, &metric, kind, &unit, pairs);
        Ok(true)
    }

    /// Reads a comment. True: it is `# EOF`.
    fn comment(&mut self, line: &[u8], dialect: Dialect, is_utf8: bool) -> Result<bool, Fault> {
        match lines::parse_comment(line, dialect)? {
            Comment::Eof => return Ok(true),
            Comment::Other => {}
            Comment::Help(name, text) => {
                if !is_utf8 && std::str::from_utf8(text).is_err() {
                    return Err(Fault::new(Reason::InvalidUtf8, MORE_THAN_UTF8));
                }
                if dialect == Dialect::OpenMetrics {
                    self.turn_to(name);
                }
            }
            Comment::Type(name, text) => {
                let kind = kind_named(text, dialect)?;
                self.turn_to(name);
                if self.current.kind != kind {
                    (self.current.kind, self.current.number) = (kind, None);
                }
            }
            Comment::Unit(name, unit) => {
                let is_end = name.strip_suffix(unit).is_some_and(|stem| stem.ends_with(b"_"));
                if !unit.is_empty() && !is_end {
                    return Err(Fault::from("a unit is the end of the metric's name, after _"));
                }
                self.turn_to(name);
                if self.current.unit != unit {
                    (self.current.unit, self.current.number) = (unit.to_vec(), None);
                }
            }
        }
        Ok(false)
    }

    /// Another family begins, unless it is the same one.
    fn turn_to(&mut self, raw: &[u8]) {
        let current = &mut self.current;
        let name: Cow<'_, [u8]> = if raw.contains(&b'\\') { lines::unescape(raw).into() } else { raw.into() };
        if *name != *current.name {
            current.name.clear();
            current.name.extend_from_slice(&name);
            (current.kind, current.number) = (Type::Unknown, None);
            current.unit.clear();
        }
    }

    /// Of protobuf, whose families say all at once.
    pub(super) fn turn_to_family(&mut self, name: &[u8], kind: Type, unit: &[u8]) {
        self.current = Current { name: name.to_vec(), kind, unit: unit.to_vec(), number: None };
    }

    #[inline]
    pub(super) fn family_number(&mut self) -> u32 {
        match self.current.number {
            Some(number) => number,
            None => {
                let number = self.cache.family(&self.current.name, self.current.kind, &self.current.unit);
                self.current.number = Some(number);
                number
            }
        }
    }

    /// For protobuf: finds the key, or enters it with the name and labels that `fill` gives.
    pub(super) fn find_or_enter(&mut self, key: &[u8], fill: impl FnOnce(&mut Parsed) -> Result<(), Fault>) -> Result<Option<u32>, Fault> {
        let family = self.family_number();
        match self.cache.find_key(key) {
            Some(entry) if self.cache.entry(entry).family == family => Ok(Some(entry)),
            Some(entry) => {
                fill(&mut self.parsed)?;
                let kept = self.resolve()?;
                self.settle(entry, kept)?;
                self.cache.entry(entry).family = family;
                Ok(Some(entry))
            }
            None => {
                fill(&mut self.parsed)?;
                self.enter(key, family)
            }
        }
    }

    pub(super) fn count_unremembered(&mut self) {
        self.run.counts.samples += 1;
        self.run.counts.post_relabel += 1;
    }

    pub(super) fn counts(&mut self) -> &mut Scraped {
        &mut self.run.counts
    }

    /// Finds `_created` lines before anything else is read, for they come after what they tell of.
    fn collect_starts(&mut self, body: &[u8]) {
        if self.target.created == Created::Series {
            return self.run.points.clear();
        }
        let mut found = false;
        let mut from = 0;
        for at in memchr::memmem::find_iter(body, b"_created") {
            if at < from {
                continue;
            }
            let begin = memchr::memrchr(b'\n', &body[from..at]).map_or(from, |end| from + end + 1);
            let line = &body[begin..];
            from = begin + memchr::memchr(b'\n', line).map_or(line.len(), |len| len + 1);
            if line.starts_with(b"#") || lines::series_len(line).is_none() {
                continue;
            }
            let Ok(len) = lines::parse_series(line, Dialect::OpenMetrics, &mut self.parsed) else { continue };
            let Some(stem) = self.parsed.name.strip_suffix(b"_created") else { continue };
            let token = line[len..].strip_prefix(b" ").map(|rest| &rest[..number::token_len(rest)]);
            let Some(start) = token.and_then(number::parse_seconds) else { continue };
            let key = point_key(stem, &self.parsed.labels, Type::Counter);
            let next = self.run.points.len() as u32;
            let point = *self.run.points.entry(key).or_insert(next);
            self.run.starts.resize(self.run.points.len(), None);
            self.run.starts[point as usize] = Some(start);
            found = true;
        }
        // Points of a body that was another one are not kept for ever; numbers are given anew then.
        let live = self.run.starts.iter().filter(|start| start.is_some()).count();
        if !found && !self.run.points.is_empty() || self.run.points.len() > 1_000 + 2 * live {
            let kept = std::mem::take(&mut self.run.points);
            let starts = std::mem::take(&mut self.run.starts);
            self.cache.forget_points();
            for (key, before) in kept {
                if let Some(start) = starts[before as usize] {
                    self.run.points.insert(key, self.run.starts.len() as u32);
                    self.run.starts.push(Some(start));
                }
            }
        }
    }

    #[cold]
    fn start_of(&mut self, entry: u32, key: &[u8], dialect: Dialect) -> Option<UnixNanos> {
        const NO_POINT: u32 = u32::MAX - 1;
        if self.cache.entry(entry).point == NONE {
            lines::parse_series(key, dialect, &mut self.parsed).ok()?;
            let mut point = NO_POINT;
            if self.has_start() && !self.parsed.name.ends_with(b"_created") {
                let key = point_key(&self.current.name, &self.parsed.labels, self.current.kind);
                let next = self.run.points.len() as u32;
                point = *self.run.points.entry(key).or_insert(next);
                self.run.starts.resize(self.run.points.len(), None);
            }
            self.cache.entry(entry).point = point;
        }
        *self.run.starts.get(self.cache.entry(entry).point as usize)?
    }
}

/// What of a series is its own beside `le` and `quantile`.
fn point_key(family: &[u8], labels: &[(Vec<u8>, Vec<u8>)], kind: Type) -> Vec<u8> {
    let apart: &[u8] = match kind {
        Type::Histogram => b"le",
        Type::Summary => b"quantile",
        _ => b"",
    };
    let mut sorted: Vec<&(Vec<u8>, Vec<u8>)> = labels.iter().filter(|(name, _)| name != apart).collect();
    sorted.sort_unstable();
    let mut key = family.to_vec();
    for (name, value) in sorted {
        for text in [name, value] {
            key.extend_from_slice(&(text.len() as u32).to_le_bytes());
            key.extend_from_slice(text);
        }
    }
    key
}

/// Adds the target's labels. A label whose value is empty is none, but with `honor_labels` it still keeps the target's away.
fn merge(mut exposed: Labels, target: &Target) -> Labels {
    let mut conflicts = Vec::new();
    for (name, value) in &target.labels {
        match exposed.get(name) {
            Some(_) if target.honor_labels => continue,
            Some(theirs) if !theirs.is_empty() => conflicts.push((name.clone(), theirs.clone())),
            _ => {}
        }
        exposed.insert(name.clone(), value.clone());
    }
    // Shorter names first, so that `exported_job` of the body does not take the place of `job`.
    conflicts.sort_by_key(|(name, _)| name.len());
    for (mut name, value) in conflicts {
        loop {
            name.insert_str(0, "exported_");
            if exposed.get(&name).is_none_or(String::is_empty) {
                break;
            }
        }
        exposed.insert(name, value);
    }
    exposed.retain(|_, value| !value.is_empty());
    exposed
}

fn check_limits(labels: &Labels, limits: &Limits) -> Result<(), Fault> {
    let metric = labels.get("__name__").map_or("", String::as_str);
    if limits.labels > 0 && labels.len() > limits.labels {
        let what = format!("{metric:?} has {} labels, at most {}", labels.len(), limits.labels);
        return Err(Fault::new(Reason::LabelLimit, what));
    }
    for (name, value) in labels {
        if limits.label_name_bytes > 0 && name.len() > limits.label_name_bytes {
            let what = format!("{metric:?} has a label's name of {} bytes, at most {}", name.len(), limits.label_name_bytes);
            return Err(Fault::new(Reason::LabelNameLimit, what));
        }
        if limits.label_value_bytes > 0 && value.len() > limits.label_value_bytes {
            let what = format!("{metric:?} has a value of {name:?} of {} bytes, at most {}", value.len(), limits.label_value_bytes);
            return Err(Fault::new(Reason::LabelValueLimit, what));
        }
    }
    Ok(())
}

/// `le` and `quantile` as OpenMetrics writes numbers: `1` and `1.0` are one bucket.
fn normal<'a>(kind: Type, name: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
    let is_number = matches!((kind, name), (Type::Histogram, "le") | (Type::Summary, "quantile"));
    match number::parse(value).filter(|_| is_number) {
        Some(number) => {
            let mut out = Vec::new();
            number::put_label(&mut out, number);
            out.into()
        }
        None => value.into(),
    }
}

/// The type that a `# TYPE` line names.
fn kind_named(text: &[u8], dialect: Dialect) -> Result<Type, Fault> {
    let kind = Type::parse(text).filter(|kind| match (dialect, kind) {
        (Dialect::OpenMetrics, _) => text != b"untyped",
        (Dialect::Text, Type::Counter | Type::Gauge | Type::Histogram | Type::Summary) => true,
        (Dialect::Text, _) => text == b"untyped",
    });
    kind.ok_or_else(|| {
        let text = String::from_utf8_lossy(&text[..text.len().min(64)]).into_owned();
        Fault::new(Reason::Malformed, format!("{text:?} is no type of metrics"))
    })
}

/// Whether a series is of the family, by its name.
pub(super) fn belongs(series: &[u8], family: &[u8], kind: Type) -> bool {
    let stem = if kind == Type::Counter { family.strip_suffix(b"_total").unwrap_or(family) } else { family };
    if family.is_empty() || !series.starts_with(stem) {
        return false;
    }
    let suffixes: &[&[u8]] = match kind {
        Type::Counter => &[b"", b"_total", b"_created"],
        Type::Histogram => &[b"", b"_bucket", b"_sum", b"_count", b"_created"],
        Type::GaugeHistogram => &[b"", b"_bucket", b"_gsum", b"_gcount", b"_sum", b"_count"],
        Type::Summary => &[b"", b"_sum", b"_count", b"_created"],
        Type::Info => &[b"", b"_info"],
        _ => &[b""],
    };
    suffixes.contains(&&series[stem.len()..])
}

/// A page where metrics should be is said so.
fn html(rest: &[u8], fault: Fault) -> Fault {
    let is_page = fault.reason == Reason::Malformed && rest.first() == Some(&b'<');
    if is_page { Fault::new(Reason::Html, "this is HTML, a page and no metrics: path or port may be wrong") } else { fault }
}

/// What is wrong, with the beginning of the line.
#[cold]
fn explain(what: Expected, rest: &[u8]) -> Fault {
    let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len()).min(120)];
    let reason = if what == lines::NO_EOF { Reason::NoEof } else { Reason::Malformed };
    Fault::new(reason, format!("{what}, in {:?}", String::from_utf8_lossy(line)))
}

fn put_time(out: &mut Vec<u8>, member: &[u8], at: UnixNanos) {
    out.extend_from_slice(member);
    out.extend_from_slice(at.rfc3339().as_bytes());
    out.push(b'"');
}

fn put_exemplars(exemplars: &[Exemplar], counts: &mut Scraped, out: &mut Vec<u8>) {
    let mut separator: &[u8] = b",\"exemplars\":[";
    for exemplar in exemplars {
        let chars: usize = exemplar.labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        if chars > EXEMPLAR_CHARS_MAX {
            counts.exemplars_dropped += 1;
            continue;
        }
        counts.exemplars += 1;
        out.extend_from_slice(separator);
        separator = b",";
        out.extend_from_slice(b"{\"labels\":{");
        for (n, (name, value)) in exemplar.labels.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            sample::put_text(out, name.as_bytes());
            out.push(b':');
            sample::put_text(out, value.as_bytes());
        }
        out.extend_from_slice(b"},\"value\":");
        sample::put_double(out, exemplar.value);
        if let Some(at) = exemplar.at {
            put_time(out, b",\"timestamp\":\"", at);
        }
        out.push(b'}');
    }
    if separator == b"," {
        out.push(b']');
    }
}

fn put_stale(part: &[u8], stamp: &mut Stamp, at: UnixNanos, out: &mut Vec<u8>) {
    out.extend_from_slice(part);
    stamp.put(out, at);
    sample::put_value_end(out, f64::from_bits(STALE));
}

fn report_parts(target: &Target) -> Vec<(&'static str, Vec<u8>)> {
    const ALWAYS: [&str; 5] =
        ["up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling", "scrape_series_added"];
    const EXTRA: [&str; 3] = ["scrape_timeout_seconds", "scrape_sample_limit", "scrape_body_size_bytes"];
    let extra = if target.extra_metrics { &EXTRA[..] } else { &[] };
    let part = |name: &'static str| {
        let mut part = Vec::new();
        let unit = if name.ends_with("_seconds") {
            "seconds"
        } else if name.ends_with("_bytes") {
            "bytes"
        } else {
            ""
        };
        let labels = target.labels.iter().filter(|(_, value)| !value.is_empty());
        sample::put_series(&mut part, name, Type::Gauge, unit, labels.map(|(name, value)| (name.as_str(), value.as_str())));
        (name, part)
    };
    ALWAYS.iter().chain(extra).map(|name| part(name)).collect()
}
