//! Lines of samples become requests.
//!
//! In: lines as [`crate::sample`] says. Out: packed requests, one TimeSeries for each series, its samples in the order of time,
//! however many lines they came in. What a request has no place for is left out: members of a record that are neither labels nor
//! the name (`tenant`, what steps added) are dropped, `resource` and `scope` become labels and `target_info` by the rules of
//! [`crate::otel_names`], and 1.0 has no starts. A record that Prometheus cannot hold is refused with its reason, for the caller to count.
//!
//! Bound: a request ends soon after `samples_max` or `bytes_max` ([`Writer::is_full`]); what is remembered of series is forgotten
//! between requests once it takes more than `dictionary_bytes_max`.

use super::convert::{self, Exemplar};
use super::{Reason, Version};
use crate::histogram::{self, Buckets, Count, Histogram, Side};
use crate::otel_names;
use crate::sample::{self, STALE, Sample, Series, Type};
use crate::wire::{put_bytes, put_double, put_message, put_raw_varint, put_varint, put_zigzag, zigzag};
use flow::fields::Kind;
use flow::time::TimeParser;
use hashbrown::{DefaultHashBuilder, HashTable};
use serde_json::value::Value as Json;
use std::collections::BTreeMap;
use std::hash::BuildHasher;

/// What a request of many series may remember beyond the dictionary's bound.
const DICTIONARY_SLACK: usize = 64 << 20;

/// How lines become requests.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    pub version: Version,
    pub samples_max: usize,
    /// Before packing, about.
    pub bytes_max: usize,
    pub external: External,
    pub translate: Translate,
    /// Names of OTLP get the suffixes of their unit and type.
    pub suffixes: bool,
    /// Records of OTLP get `otel_scope_name` and `otel_scope_version`.
    pub scope_labels: bool,
    /// A resource becomes a sample of `target_info` in each request.
    pub target_info: bool,
    /// Of a classic histogram: each becomes a series.
    pub buckets_max: usize,
    pub dictionary_bytes_max: usize,
}

impl WriterOptions {
    pub fn new(version: Version) -> WriterOptions {
        WriterOptions {
            version,
            samples_max: 2_000, // Prometheus' own default
            bytes_max: 4 << 20,
            external: External::default(),
            translate: Translate::Auto,
            suffixes: true,
            scope_labels: true,
            target_info: true,
            buckets_max: 1_000,
            dictionary_bytes_max: 128 << 20, // 100,000 series of ten labels
        }
    }
}

/// Labels for every series.
#[derive(Clone, Debug, Default)]
pub struct External {
    pub labels: Vec<(String, String)>,
    /// They win over a label of the same name.
    pub overrides: bool,
}

/// Which names are translated from those of OpenTelemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translate {
    /// Of records with a `temporality`, `monotonic`, `resource` or `scope`.
    Auto,
    Always,
    Never,
}

/// A packed request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Packed; empty if there is nothing to send.
    pub body: Vec<u8>,
    /// In it; to be compared with the headers of the answer.
    pub samples: u64,
    pub histograms: u64,
    pub exemplars: u64,
    /// Samples left out because another one of their series had the same millisecond; the last one stays.
    pub duplicates: u64,
}

/// Gathers lines into requests.
#[derive(Debug)]
pub struct Writer {
    options: WriterOptions,
    times: TimeParser,
    buffer: Vec<u8>,
    known: Known,
    pending: Pending,
}

impl Writer {
    pub fn new(options: WriterOptions) -> Writer {
        Writer { options, times: TimeParser::new(), buffer: Vec::new(), known: Known::default(), pending: Pending::new() }
    }

    /// Whether the request shall be finished before more is pushed.
    pub fn is_full(&self) -> bool {
        let is_full = self.pending.items() >= self.options.samples_max || self.pending.bytes >= self.options.bytes_max;
        is_full || self.known.bytes() > self.options.dictionary_bytes_max.saturating_add(DICTIONARY_SLACK)
    }

    pub fn is_empty(&self) -> bool {
        self.pending.items() == 0
    }

    /// Takes a line into the request, whole or not at all.
    pub fn push(&mut self, line: &[u8]) -> Result<(), Reason> {
        let (mut buffer, mut times) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.times));
        let result = match sample::read(line, &mut times, &mut buffer) {
            Some(Sample { series, at, value: Some(value), is_plain: true }) => self.push_plain(series, ms(at.0), value.double()),
            Some(sample) => self.push_members(line, &sample, &mut TimeParser::new()),
            None => Err(Reason::NoSample),
        };
        (self.buffer, self.times) = (buffer, times);
        result
    }

    fn push_plain(&mut self, part: &[u8], at_ms: i64, value: f64) -> Result<(), Reason> {
        let member = self.known.member(part, &Derived::Itself, &self.options)?;
        self.add_sample(member, at_ms, 0, value);
        Ok(())
    }

    /// A sample that says more than time and value, or is none of a number.
    fn push_members(&mut self, line: &[u8], sample: &Sample<'_>, times: &mut TimeParser) -> Result<(), Reason> {
        let members = sample::members(line.strip_suffix(b"\n").unwrap_or(line)).ok_or(Reason::NoSample)?;
        let find = |name: &str| members.iter().rev().find(|(known, _)| *known == name.as_bytes()).map(|(_, json)| *json);
        let json = |name: &str| find(name).and_then(|json| serde_json::from_slice::<Json>(json).ok());
        let start = find("start").and_then(|json| json.strip_prefix(b"\"")?.strip_suffix(b"\""));
        let about = About {
            part: sample.series,
            at_ms: ms(sample.at.0),
            start_ms: start.and_then(|stamp| times.parse(stamp, Kind::Text)).map_or(0, |at| ms(at.0)),
            is_stale: json("flags").and_then(|flags| flags.as_u64()).is_some_and(|flags| flags & 1 == 1),
            exemplars: find("exemplars").map_or_else(Vec::new, |json| convert::exemplars(json, ms(sample.at.0), times)),
        };
        if let Some(value) = json("exponential") {
            return self.push_histogram(&about, &convert::exponential(&value, about.is_stale)?);
        }
        if let Some(text) = find("histogram") {
            let value = json("histogram").ok_or(Reason::BadHistogram)?;
            if value.get("schema").is_none() {
                return self.push_classic(&about, &convert::classic(&value, self.options.buckets_max)?);
            }
            let histogram = Histogram::parse(text).filter(|histogram| histogram.validate().is_ok());
            return self.push_histogram(&about, &histogram.ok_or(Reason::BadHistogram)?);
        }
        if let (None, Some(count)) = (sample.value, json("count")) {
            return self.push_summary(&about, &count, json("sum").as_ref(), json("quantiles").as_ref());
        }
        match sample.value {
            Some(value) => self.push_value(&about, value.double()),
            None if about.is_stale => self.push_value(&about, f64::from_bits(STALE)),
            None => self.push_exemplars(&about),
        }
    }

    fn push_value(&mut self, about: &About<'_>, value: f64) -> Result<(), Reason> {
        let member = self.known.member(about.part, &Derived::Itself, &self.options)?;
        self.add_sample(member, about.at_ms, about.start_ms, value);
        self.add_exemplars(member, &about.exemplars);
        Ok(())
    }

    /// Exemplars alone: 2.0 has no place for them but beside a sample of their series.
    fn push_exemplars(&mut self, about: &About<'_>) -> Result<(), Reason> {
        let member = self.known.member(about.part, &Derived::Itself, &self.options)?;
        let is_beside = self.known.series[member.series as usize].request == self.pending.request;
        if about.exemplars.is_empty() || (self.options.version == Version::V2 && !is_beside) {
            return Err(Reason::NoValue);
        }
        self.add_exemplars(member, &about.exemplars);
        Ok(())
    }

    fn push_histogram(&mut self, about: &About<'_>, histogram: &Histogram) -> Result<(), Reason> {
        let member = self.known.member(about.part, &Derived::Itself, &self.options)?;
        let slot = self.slot(member, about.at_ms);
        let from = self.pending.blob.len();
        let start_ms = if self.options.version == Version::V2 { about.start_ms } else { 0 };
        put_histogram(&mut self.pending.blob, histogram, about.at_ms, start_ms);
        self.pending.histograms.push(Row { slot, at_ms: about.at_ms, from, to: self.pending.blob.len() });
        self.pending.bytes += self.pending.blob.len() - from;
        self.add_exemplars(member, &about.exemplars);
        Ok(())
    }

    /// `x_bucket` for each bound and `+Inf`, `x_sum`, `x_count`.
    fn push_classic(&mut self, about: &About<'_>, classic: &convert::Classic) -> Result<(), Reason> {
        let (known, options) = (&mut self.known, &self.options);
        let count = known.member(about.part, &Derived::Part("_count"), options)?;
        let sum = classic.sum.map(|_| known.member(about.part, &Derived::Part("_sum"), options)).transpose()?;
        let bounds = classic.bounds.iter().copied().filter(|bound| *bound != f64::INFINITY).chain([f64::INFINITY]);
        let labels = bounds.clone().map(convert::label_of);
        let buckets: Result<Vec<Member>, Reason> =
            labels.map(|le| known.member(about.part, &Derived::Labelled("_bucket", "le", le), options)).collect();
        let buckets = buckets?;
        let or_stale = |value: f64| if about.is_stale { f64::from_bits(STALE) } else { value };
        let mut total = 0u64;
        for (n, bucket) in buckets.iter().enumerate() {
            total += classic.counts.get(n).copied().unwrap_or(0);
            let counted = if n + 1 == buckets.len() { classic.count } else { total };
            self.add_sample(*bucket, about.at_ms, about.start_ms, or_stale(counted as f64));
        }
        if let (Some(sum), Some(value)) = (sum, classic.sum) {
            self.add_sample(sum, about.at_ms, about.start_ms, or_stale(value));
        }
        self.add_sample(count, about.at_ms, about.start_ms, or_stale(classic.count as f64));
        for exemplar in &about.exemplars {
            let bucket = bounds.clone().position(|bound| exemplar.value <= bound).unwrap_or(buckets.len() - 1);
            self.add_exemplars(buckets[bucket], std::slice::from_ref(exemplar));
        }
        Ok(())
    }

    /// `x{quantile="…"}`, `x_sum`, `x_count`.
    fn push_summary(&mut self, about: &About<'_>, count: &Json, sum: Option<&Json>, quantiles: Option<&Json>) -> Result<(), Reason> {
        let count = convert::unsigned(count).ok_or(Reason::NoValue)?;
        let quantiles = quantiles.map_or(Some(Vec::new()), convert::quantiles).ok_or(Reason::NoValue)?;
        if quantiles.len() > self.options.buckets_max {
            return Err(Reason::BadHistogram);
        }
        let mut points = vec![(Derived::Part("_count"), count as f64)];
        points.extend(sum.and_then(histogram::double).map(|sum| (Derived::Part("_sum"), sum)));
        let named = quantiles.into_iter().map(|(quantile, value)| (Derived::Labelled("", "quantile", convert::label_of(quantile)), value));
        points.extend(named);
        let members: Result<Vec<Member>, Reason> =
            points.iter().map(|(derived, _)| self.known.member(about.part, derived, &self.options)).collect();
        for (member, (_, value)) in members?.into_iter().zip(points) {
            let value = if about.is_stale { f64::from_bits(STALE) } else { value };
            self.add_sample(member, about.at_ms, about.start_ms, value);
        }
        Ok(())
    }

    /// The series' place in the request; a new one has its size counted.
    #[inline]
    fn slot(&mut self, member: Member, at_ms: i64) -> u32 {
        if let Some(target) = member.target {
            self.pending.see_target(&mut self.known.targets[target as usize], target, at_ms);
        }
        self.slot_of(member.series)
    }

    #[inline]
    fn slot_of(&mut self, series: u32) -> u32 {
        let known = &mut self.known.series[series as usize];
        if known.request != self.pending.request {
            known.request = self.pending.request;
            known.slot = self.pending.slots.len() as u32;
            self.pending.slots.push(series);
            self.pending.bytes += known.len as usize + 8;
        }
        known.slot
    }

    #[inline]
    fn add_sample(&mut self, member: Member, at_ms: i64, start_ms: i64, value: f64) {
        let slot = self.slot(member, at_ms);
        self.pending.samples.push(Point { slot, at_ms, start_ms, value });
        self.pending.bytes += 20;
    }

    fn add_exemplars(&mut self, member: Member, exemplars: &[Exemplar]) {
        for exemplar in exemplars {
            let slot = self.slot(member, exemplar.at_ms);
            let from = self.pending.blob.len();
            match self.options.version {
                Version::V1 => {
                    for (name, value) in &exemplar.labels {
                        put_label(&mut self.pending.blob, name, value);
                    }
                }
                Version::V2 => {
                    let texts = exemplar.labels.iter().flat_map(|(name, value)| [name, value]);
                    let refs: Vec<u32> = texts.map(|text| self.known.texts.intern(text)).collect();
                    let refs: Vec<u32> = refs.into_iter().map(|text| self.pending.local(text)).collect();
                    put_refs(&mut self.pending.blob, &refs);
                }
            }
            put_double(&mut self.pending.blob, 2, exemplar.value);
            put_varint(&mut self.pending.blob, 3, exemplar.at_ms as u64);
            self.pending.bytes += self.pending.blob.len() - from;
            self.pending.exemplars.push(Row { slot, at_ms: exemplar.at_ms, from, to: self.pending.blob.len() });
        }
    }

    /// Ends the request and packs it; of nothing it is empty.
    pub fn finish(&mut self) -> Request {
        self.add_targets();
        let request = if self.pending.items() == 0 { Request::default() } else { self.pack() };
        self.pending.next();
        if self.known.bytes() > self.options.dictionary_bytes_max {
            self.known.clear();
            self.pending.forget_places();
        }
        request
    }

    fn pack(&mut self) -> Request {
        let duplicates = self.pending.sort();
        let body = match self.options.version {
            Version::V1 => self.body_v1(),
            Version::V2 => self.body_v2(),
        };
        let packed = snap::raw::Encoder::new().compress_vec(&body).expect("a request is less than 4 GiB, as its options bound it");
        Request {
            body: packed,
            samples: self.pending.samples.len() as u64,
            histograms: self.pending.histograms.len() as u64,
            exemplars: self.pending.exemplars.len() as u64,
            duplicates,
        }
    }

    /// `target_info` of each resource of the request, at the time of its latest sample.
    fn add_targets(&mut self) {
        for target in std::mem::take(&mut self.pending.targets) {
            let Target { series, at_ms, .. } = self.known.targets[target as usize];
            let slot = self.slot_of(series);
            self.pending.samples.push(Point { slot, at_ms, start_ms: 0, value: 1.0 });
        }
    }

    fn body_v1(&mut self) -> Vec<u8> {
        let pending = &self.pending;
        let mut body = Vec::with_capacity(pending.bytes + pending.bytes / 4);
        let mut message = Vec::new();
        let (mut samples, mut histograms, mut exemplars) = pending.cursors();
        for (slot, series) in pending.slots.iter().enumerate() {
            message.clear();
            message.extend_from_slice(self.known.labels(&self.known.series[*series as usize]));
            for point in take_slot(&mut samples, slot, |point| point.slot) {
                put_sample(&mut message, point, 0);
            }
            for row in take_slot(&mut exemplars, slot, |row| row.slot) {
                put_bytes(&mut message, 3, &pending.blob[row.from..row.to]);
            }
            for row in take_slot(&mut histograms, slot, |row| row.slot) {
                put_bytes(&mut message, 4, &pending.blob[row.from..row.to]);
            }
            put_bytes(&mut body, 1, &message);
        }
        let told = pending.slots.iter().map(|series| &self.known.series[*series as usize]);
        let told = told.filter(|series| series.kind != Type::Unknown || series.unit != 0);
        let mut families: Vec<(u32, Type, u32)> = told.map(|series| (series.family, series.kind, series.unit)).collect();
        families.sort_unstable();
        families.dedup_by_key(|(family, ..)| *family);
        families.sort_unstable_by_key(|(family, ..)| self.known.texts.get(*family));
        for (family, kind, unit) in families {
            put_message(&mut body, 3, |out| {
                put_varint(out, 1, kind as u64);
                put_bytes(out, 2, self.known.texts.get(family).as_bytes());
                if unit != 0 {
                    put_bytes(out, 5, self.known.texts.get(unit).as_bytes());
                }
            });
        }
        body
    }

    fn body_v2(&mut self) -> Vec<u8> {
        let slots = std::mem::take(&mut self.pending.slots);
        let mut refs = Vec::new();
        let mut series_bytes = Vec::with_capacity(self.pending.bytes / 2);
        let mut message = Vec::new();
        // Symbols first: a reference is known once every text has its place.
        let heads: Vec<(usize, usize)> = slots
            .iter()
            .map(|series| {
                let known = &self.known.series[*series as usize];
                refs.clear();
                refs.extend(self.known.refs(known).iter().map(|text| self.pending.local(*text)));
                let unit = self.pending.local(known.unit);
                let from = message.len();
                put_head(&mut message, &refs, known.kind, unit);
                (from, message.len())
            })
            .collect();
        let pending = &self.pending;
        let (mut samples, mut histograms, mut exemplars) = pending.cursors();
        let mut one = Vec::new();
        for (slot, (from, to)) in heads.into_iter().enumerate() {
            let head = &message[from..to];
            let samples = take_slot(&mut samples, slot, |point| point.slot);
            let histograms = take_slot(&mut histograms, slot, |row| row.slot);
            let mut exemplars = take_slot(&mut exemplars, slot, |row| row.slot);
            // A TimeSeries has samples or histograms, not both.
            if !samples.is_empty() {
                one.clear();
                one.extend_from_slice(head);
                samples.iter().for_each(|point| put_sample(&mut one, point, point.start_ms));
                std::mem::take(&mut exemplars).iter().for_each(|row| put_bytes(&mut one, 4, &pending.blob[row.from..row.to]));
                put_bytes(&mut series_bytes, 5, &one);
            }
            if !histograms.is_empty() {
                one.clear();
                one.extend_from_slice(head);
                histograms.iter().for_each(|row| put_bytes(&mut one, 3, &pending.blob[row.from..row.to]));
                exemplars.iter().for_each(|row| put_bytes(&mut one, 4, &pending.blob[row.from..row.to]));
                put_bytes(&mut series_bytes, 5, &one);
            }
        }
        let mut body = Vec::with_capacity(series_bytes.len() * 2);
        for text in &pending.locals {
            put_bytes(&mut body, 4, self.known.texts.get(*text).as_bytes());
        }
        body.extend_from_slice(&series_bytes);
        body
    }
}

fn ms(nanos: i64) -> i64 {
    nanos.div_euclid(1_000_000)
}

/// What a record says of itself beside its numbers.
struct About<'a> {
    part: &'a [u8],
    at_ms: i64,
    /// 0: unknown.
    start_ms: i64,
    /// OTLP's flag "no recorded value".
    is_stale: bool,
    exemplars: Vec<Exemplar>,
}

/// Takes the rows of a slot off the front; they are sorted by it.
fn take_slot<'a, T>(rows: &mut &'a [T], slot: usize, of: impl Fn(&T) -> u32) -> &'a [T] {
    let len = rows.iter().take_while(|row| of(row) as usize == slot).count();
    let (taken, rest) = rows.split_at(len);
    *rows = rest;
    taken
}

fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    let sized = |text: &str| 1 + varint_len(text.len()) + text.len();
    out.push(1 << 3 | 2);
    put_raw_varint(out, (sized(name) + sized(value)) as u64);
    put_bytes(out, 1, name.as_bytes());
    put_bytes(out, 2, value.as_bytes());
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[inline]
fn put_sample(out: &mut Vec<u8>, point: &Point, start_ms: i64) {
    put_message(out, 2, |out| {
        put_double(out, 1, point.value);
        put_varint(out, 2, point.at_ms as u64);
        if start_ms != 0 {
            put_varint(out, 3, start_ms as u64);
        }
    });
}

fn put_refs(out: &mut Vec<u8>, refs: &[u32]) {
    put_message(out, 1, |out| refs.iter().for_each(|at| put_raw_varint(out, u64::from(*at))));
}

fn put_head(out: &mut Vec<u8>, refs: &[u32], kind: Type, unit: u32) {
    put_refs(out, refs);
    if kind != Type::Unknown || unit != 0 {
        put_message(out, 5, |out| {
            put_varint(out, 1, kind as u64);
            put_varint(out, 4, u64::from(unit));
        });
    }
}

fn put_histogram(out: &mut Vec<u8>, histogram: &Histogram, at_ms: i64, start_ms: i64) {
    put_count(out, 1, histogram.count);
    put_double(out, 3, histogram.sum);
    put_zigzag(out, 4, i64::from(histogram.schema));
    put_double(out, 5, histogram.zero_threshold);
    put_count(out, 6, histogram.zero_count);
    put_side(out, 8, &histogram.negative);
    put_side(out, 11, &histogram.positive);
    put_varint(out, 14, histogram.reset_hint as u64);
    put_varint(out, 15, at_ms as u64);
    put_doubles(out, 16, &histogram.custom_values);
    if start_ms != 0 {
        put_varint(out, 17, start_ms as u64);
    }
}

/// `number`: of an integer; the next one is of a float.
fn put_count(out: &mut Vec<u8>, number: u32, count: Count) {
    match count {
        Count::Int(count) => put_varint(out, number, count),
        Count::Float(count) => put_double(out, number + 1, count),
    }
}

/// `number`: of spans; the next ones are of deltas and of counts.
fn put_side(out: &mut Vec<u8>, number: u32, side: &Side) {
    for span in &side.spans {
        put_message(out, number, |out| {
            put_zigzag(out, 1, i64::from(span.offset));
            put_varint(out, 2, u64::from(span.len));
        });
    }
    match &side.buckets {
        Buckets::Deltas(deltas) if deltas.is_empty() => {}
        Buckets::Deltas(deltas) => {
            put_message(out, number + 1, |out| deltas.iter().for_each(|delta| put_raw_varint(out, zigzag(*delta))));
        }
        Buckets::Counts(counts) => put_doubles(out, number + 2, counts),
    }
}

fn put_doubles(out: &mut Vec<u8>, number: u32, values: &[f64]) {
    if !values.is_empty() {
        put_message(out, number, |out| values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes())));
    }
}

/// What is gathered for a request.
#[derive(Debug)]
struct Pending {
    /// Its number; series that have a slot in it bear it.
    request: u32,
    slots: Vec<u32>,
    samples: Vec<Point>,
    histograms: Vec<Row>,
    exemplars: Vec<Row>,
    blob: Vec<u8>,
    targets: Vec<u32>,
    /// 2.0: texts in the order of the request's symbols, and where in it each one is: its request and place.
    locals: Vec<u32>,
    places: Vec<(u32, u32)>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    slot: u32,
    at_ms: i64,
    start_ms: i64,
    value: f64,
}

/// A message in the blob.
#[derive(Clone, Copy, Debug)]
struct Row {
    slot: u32,
    at_ms: i64,
    from: usize,
    to: usize,
}

impl Pending {
    fn new() -> Pending {
        Pending {
            request: 1,
            slots: Vec::new(),
            samples: Vec::new(),
            histograms: Vec::new(),
            exemplars: Vec::new(),
            blob: Vec::new(),
            targets: Vec::new(),
            locals: vec![0],
            places: Vec::new(),
            bytes: 0,
        }
    }

    fn next(&mut self) {
        self.request = self.request.checked_add(1).unwrap_or(1);
        self.slots.clear();
        self.samples.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.blob.clear();
        self.targets.clear();
        self.locals.clear();
        self.locals.push(0);
        self.bytes = 0;
    }

    /// Texts have other numbers from now on.
    fn forget_places(&mut self) {
        self.places.clear();
    }

    fn items(&self) -> usize {
        self.samples.len() + self.histograms.len() + self.exemplars.len()
    }

    fn cursors(&self) -> (&[Point], &[Row], &[Row]) {
        (&self.samples, &self.histograms, &self.exemplars)
    }

    fn see_target(&mut self, target: &mut Target, number: u32, at_ms: i64) {
        if target.request != self.request {
            *target = Target { request: self.request, at_ms, ..*target };
            self.targets.push(number);
        }
        target.at_ms = target.at_ms.max(at_ms);
    }

    /// The place of a text in the request's symbols.
    #[inline]
    fn local(&mut self, text: u32) -> u32 {
        if text == 0 {
            return 0;
        }
        let at = text as usize;
        if self.places.len() <= at {
            self.places.resize(at + 1, (0, 0));
        }
        if self.places[at].0 != self.request {
            self.places[at] = (self.request, self.locals.len() as u32);
            self.locals.push(text);
        }
        self.places[at].1
    }

    /// By series and time; of one millisecond the last pushed stays. Says how many went.
    fn sort(&mut self) -> u64 {
        fn sort<T>(rows: &mut Vec<T>, key: impl Fn(&T) -> (u32, i64)) -> u64 {
            if !rows.is_sorted_by(|a, b| key(a) < key(b)) {
                rows.sort_by_key(&key); // stable
            }
            let before = rows.len();
            rows.reverse();
            rows.dedup_by_key(|row| key(row));
            rows.reverse();
            (before - rows.len()) as u64
        }
        let duplicates = sort(&mut self.samples, |row| (row.slot, row.at_ms)) + sort(&mut self.histograms, |row| (row.slot, row.at_ms));
        self.exemplars.sort_by_key(|row| (row.slot, row.at_ms));
        duplicates
    }
}

/// A series that a record is of, or one that a part of it becomes.
#[derive(Clone, Copy, Debug)]
struct Member {
    series: u32,
    target: Option<u32>,
}

/// What of a record a series is.
#[derive(Debug)]
enum Derived {
    Itself,
    /// By the suffix of its name.
    Part(&'static str),
    /// And with one label more.
    Labelled(&'static str, &'static str, String),
}

/// Series that were read from their parts, checked and translated.
#[derive(Debug, Default)]
struct Known {
    hasher: DefaultHashBuilder,
    /// Keys: series parts, some with what is derived from them behind a 0.
    keys: Vec<u8>,
    parts: Vec<Part>,
    part_table: HashTable<u32>,
    series: Vec<KnownSeries>,
    labels: Vec<u8>,
    refs: Vec<u32>,
    series_table: HashTable<u32>,
    targets: Vec<Target>,
    texts: Texts,
    key: Vec<u8>,
}

#[derive(Debug)]
struct Part {
    hash: u64,
    at: usize,
    len: usize,
    member: Result<Member, Reason>,
}

#[derive(Debug)]
struct KnownSeries {
    hash: u64,
    /// Its labels as 1.0 writes them, among the labels of all; equal bytes are the same series.
    at: usize,
    len: u32,
    /// 2.0: how many texts its labels are, and where.
    refs_len: u32,
    refs_at: usize,
    kind: Type,
    /// Texts; a unit of 0 is none.
    unit: u32,
    family: u32,
    /// If it is a `target_info`.
    target: Option<u32>,
    /// The request it was last in, and its place there.
    request: u32,
    slot: u32,
}

/// `target_info` of a resource.
#[derive(Clone, Copy, Debug)]
struct Target {
    series: u32,
    request: u32,
    at_ms: i64,
}

impl Known {
    /// About what it takes, tables included.
    fn bytes(&self) -> usize {
        let rows = self.parts.len() * 64 + self.series.len() * 96 + self.refs.len() * 4;
        self.keys.len() + self.labels.len() + self.texts.bytes() + rows
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.parts.clear();
        self.part_table.clear();
        self.series.clear();
        self.labels.clear();
        self.refs.clear();
        self.series_table.clear();
        self.targets.clear();
        self.texts.clear();
    }

    fn labels(&self, series: &KnownSeries) -> &[u8] {
        &self.labels[series.at..series.at + series.len as usize]
    }

    fn refs(&self, series: &KnownSeries) -> &[u32] {
        &self.refs[series.refs_at..series.refs_at + series.refs_len as usize]
    }

    #[inline]
    fn member(&mut self, part: &[u8], derived: &Derived, options: &WriterOptions) -> Result<Member, Reason> {
        if let Derived::Itself = derived {
            return match self.find(part) {
                Some(member) => member,
                None => self.learn(part, part, derived, options),
            };
        }
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(part);
        key.push(0);
        match derived {
            Derived::Itself => {}
            Derived::Part(suffix) => key.extend_from_slice(suffix.as_bytes()),
            Derived::Labelled(suffix, name, value) => [suffix, name, value.as_str()].iter().for_each(|text| {
                key.extend_from_slice(text.as_bytes());
                key.push(0);
            }),
        }
        let member = match self.find(&key) {
            Some(member) => member,
            None => self.learn(&key, part, derived, options),
        };
        self.key = key;
        member
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<Result<Member, Reason>> {
        let hash = self.hasher.hash_one(key);
        let is_it = |n: &u32| {
            let part = &self.parts[*n as usize];
            part.hash == hash && &self.keys[part.at..part.at + part.len] == key
        };
        self.part_table.find(hash, is_it).map(|n| self.parts[*n as usize].member)
    }

    /// Once full, only what a request needs is kept until the request's end; what is refused is read again each time.
    fn learn(&mut self, key: &[u8], part: &[u8], derived: &Derived, options: &WriterOptions) -> Result<Member, Reason> {
        let plain = if let Derived::Itself = derived { self.learn_plain(part, options) } else { None };
        let member = match plain {
            Some(series) => Ok(Member { series, target: None }),
            None => identify(part, options).map(|identity| self.register(identity, derived, options)),
        };
        if member.is_err() && self.bytes() > options.dictionary_bytes_max {
            return member;
        }
        let hash = self.hasher.hash_one(key);
        let number = self.parts.len() as u32;
        self.parts.push(Part { hash, at: self.keys.len(), len: key.len(), member });
        self.keys.extend_from_slice(key);
        self.part_table.insert_unique(hash, number, |n| self.parts[*n as usize].hash);
        member
    }

    /// The series of a part as [`sample::put_series`] writes it, which is most of them; `None`: it is not so simple.
    fn learn_plain(&mut self, part: &[u8], options: &WriterOptions) -> Option<u32> {
        let Plain { metric, kind, unit, mut labels } = Plain::read(part).filter(|_| options.translate != Translate::Always)?;
        for (name, value) in options.external.labels.iter().filter(is_external) {
            match labels.binary_search_by_key(&name.as_str(), |(name, _)| *name) {
                Ok(at) if options.external.overrides => labels[at].1 = value,
                Ok(_) => {}
                Err(at) => labels.insert(at, (name, value)),
            }
        }
        Some(self.series(metric, labels, kind, unit, family_of(metric, kind), options))
    }

    fn register(&mut self, mut identity: Identity, derived: &Derived, options: &WriterOptions) -> Member {
        let family = identity.metric.clone();
        match derived {
            Derived::Itself => {}
            Derived::Part(suffix) => identity.metric.push_str(suffix),
            Derived::Labelled(suffix, name, value) => {
                identity.metric.push_str(suffix);
                identity.labels.insert((*name).to_owned(), value.clone());
            }
        }
        let family = match derived {
            Derived::Itself => family_of(&family, identity.kind).to_owned(),
            _ => family,
        };
        let target = identity.target.take().filter(|_| options.target_info).map(|labels| self.target(labels, options));
        let series = self.series(&identity.metric, pairs(&identity.labels), identity.kind, &identity.unit, &family, options);
        Member { series, target }
    }

    fn target(&mut self, labels: BTreeMap<String, String>, options: &WriterOptions) -> u32 {
        let series = self.series("target_info", pairs(&labels), Type::Gauge, "", "target_info", options);
        let known = &mut self.series[series as usize].target;
        *known.get_or_insert_with(|| {
            self.targets.push(Target { series, request: 0, at_ms: 0 });
            self.targets.len() as u32 - 1
        })
    }

    /// `labels`: sorted by name, each once, without the metric's.
    fn series<'a>(
        &mut self,
        metric: &'a str,
        mut labels: Vec<(&'a str, &'a str)>,
        kind: Type,
        unit: &str,
        family: &str,
        options: &WriterOptions,
    ) -> u32 {
        labels.insert(labels.partition_point(|(name, _)| *name < "__name__"), ("__name__", metric));
        let at = self.labels.len();
        labels.iter().for_each(|(name, value)| put_label(&mut self.labels, name, value));
        let bytes = &self.labels[at..];
        let hash = self.hasher.hash_one(bytes);
        let is_it = |n: &u32| {
            let series = &self.series[*n as usize];
            series.hash == hash && self.labels(series) == bytes
        };
        if let Some(known) = self.series_table.find(hash, is_it).copied() {
            self.labels.truncate(at);
            return known;
        }
        let (len, refs_at) = (bytes.len() as u32, self.refs.len());
        if options.version == Version::V2 {
            let texts = labels.iter().flat_map(|(name, value)| [name, value]);
            self.refs.extend(texts.map(|text| self.texts.intern(text)));
        }
        let (unit, family) = (self.texts.intern(unit), self.texts.intern(family));
        let refs_len = (self.refs.len() - refs_at) as u32;
        let number = self.series.len() as u32;
        self.series.push(KnownSeries { hash, at, len, refs_len, refs_at, kind, unit, family, target: None, request: 0, slot: 0 });
        self.series_table.insert_unique(hash, number, |n| self.series[*n as usize].hash);
        number
    }
}

fn pairs(labels: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A series part of Prometheus without escapes, its labels sorted: read without building a tree.
struct Plain<'a> {
    metric: &'a str,
    kind: Type,
    unit: &'a str,
    labels: Vec<(&'a str, &'a str)>,
}

impl<'a> Plain<'a> {
    fn read(part: &'a [u8]) -> Option<Plain<'a>> {
        let text = std::str::from_utf8(part).ok().filter(|_| memchr::memchr(b'\\', part).is_none())?;
        let (metric, mut rest) = quoted(text.strip_prefix("{\"metric\":")?)?;
        let (mut kind, mut unit) = (Type::Unknown, "");
        if let Some(after) = rest.strip_prefix(",\"type\":") {
            let (name, after) = quoted(after)?;
            (kind, rest) = (Type::parse(name.as_bytes()).unwrap_or_default(), after);
        }
        if let Some(after) = rest.strip_prefix(",\"unit\":") {
            (unit, rest) = quoted(after)?;
        }
        let mut rest = rest.strip_prefix(",\"labels\":{")?;
        let mut labels: Vec<(&str, &str)> = Vec::with_capacity(16);
        while rest != "}" {
            let (name, after) = quoted(rest)?;
            let (value, after) = quoted(after.strip_prefix(':')?)?;
            let is_next = labels.last().is_none_or(|(before, _)| *before < name);
            if !is_next || name.is_empty() || name == "__name__" {
                return None;
            }
            labels.push((name, value));
            rest = match after.strip_prefix(',') {
                Some(more) if more != "}" => more,
                _ => after,
            };
            if rest.is_empty() || (rest.starts_with('}') && rest != "}") {
                return None;
            }
        }
        labels.retain(|(_, value)| !value.is_empty());
        (!metric.is_empty()).then_some(Plain { metric, kind, unit, labels })
    }
}

/// The text between the quotes at the front, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('"')?;
    let end = memchr::memchr(b'"', inside.as_bytes())?;
    Some((&inside[..end], &inside[end + 1..]))
}

fn is_external((name, value): &&(String, String)) -> bool {
    !name.is_empty() && name != "__name__" && !value.is_empty()
}

/// The family that metadata of 1.0 is of: without the suffix of a part.
fn family_of(metric: &str, kind: Type) -> &str {
    let suffixes: &[&str] = match kind {
        Type::Histogram => &["_bucket", "_count", "_sum"],
        Type::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
        Type::Summary => &["_count", "_sum"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| metric.strip_suffix(suffix)).filter(|family| !family.is_empty()).unwrap_or(metric)
}

/// Texts by number; 0 is the empty one.
#[derive(Debug, Default)]
struct Texts {
    hasher: DefaultHashBuilder,
    all: String,
    /// Where the texts but the empty one end.
    ends: Vec<usize>,
    table: HashTable<u32>,
}

impl Texts {
    fn bytes(&self) -> usize {
        self.all.len() + self.ends.len() * 16
    }

    fn clear(&mut self) {
        self.all.clear();
        self.ends.clear();
        self.table.clear();
    }

    fn intern(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let hash = self.hasher.hash_one(text);
        if let Some(known) = self.table.find(hash, |n| self.get(*n) == text) {
            return *known;
        }
        self.all.push_str(text);
        self.ends.push(self.all.len());
        let number = self.ends.len() as u32;
        self.table.insert_unique(hash, number, |n| self.hasher.hash_one(text_at(&self.all, &self.ends, *n)));
        number
    }

    fn get(&self, text: u32) -> &str {
        text_at(&self.all, &self.ends, text)
    }
}

fn text_at<'a>(all: &'a str, ends: &[usize], text: u32) -> &'a str {
    let Some(at) = (text as usize).checked_sub(1) else { return "" };
    let from = at.checked_sub(1).map_or(0, |before| ends[before]);
    &all[from..ends[at]]
}

/// Who a record is of, as Prometheus says it.
struct Identity {
    metric: String,
    kind: Type,
    unit: String,
    labels: BTreeMap<String, String>,
    /// Labels of its `target_info`.
    target: Option<BTreeMap<String, String>>,
}

fn identify(part: &[u8], options: &WriterOptions) -> Result<Identity, Reason> {
    let series = Series::parse(part).ok_or(Reason::NoSample)?;
    let temporality = series.others.get("temporality").and_then(Json::as_str).unwrap_or_default();
    if temporality.eq_ignore_ascii_case("delta") || temporality.ends_with("_DELTA") {
        return Err(Reason::DeltaTemporality);
    }
    let is_otlp = match options.translate {
        Translate::Auto => ["temporality", "monotonic", "resource", "scope"].iter().any(|name| series.others.contains_key(*name)),
        Translate::Always => true,
        Translate::Never => false,
    };
    let mut identity = if is_otlp { translate(series, options)? } else { take_over(series)? };
    identity.labels.retain(|_, value| !value.is_empty());
    for (name, value) in options.external.labels.iter().filter(|(name, value)| !name.is_empty() && name != "__name__" && !value.is_empty())
    {
        for labels in [Some(&mut identity.labels), identity.target.as_mut()].into_iter().flatten() {
            if options.external.overrides || !labels.contains_key(name) {
                labels.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(identity)
}

/// A series of Prometheus: as it is.
fn take_over(series: Series) -> Result<Identity, Reason> {
    if series.metric.is_empty() {
        return Err(Reason::NoMetricName);
    }
    if series.labels.iter().any(|(name, _)| name == "__name__") {
        return Err(Reason::RepeatedLabel);
    }
    if series.labels.iter().any(|(name, _)| name.is_empty()) {
        return Err(Reason::EmptyLabelName);
    }
    let labels = series.labels.into_iter().collect();
    Ok(Identity { metric: series.metric, kind: series.kind, unit: series.unit, labels, target: None })
}

/// A series of OTLP: by the rules of compatibility.
fn translate(series: Series, options: &WriterOptions) -> Result<Identity, Reason> {
    let monotonic = series.others.get("monotonic").and_then(Json::as_bool);
    let kind = match (monotonic, series.kind) {
        (Some(true), _) => Type::Counter,
        (Some(false), Type::Counter | Type::Unknown) => Type::Gauge,
        (_, kind) => kind,
    };
    let suffix = match (monotonic, kind) {
        (Some(true), _) | (None, Type::Counter) => otel_names::Kind::Counter,
        (None, Type::Gauge) => otel_names::Kind::Gauge,
        _ => otel_names::Kind::Other,
    };
    let metric = otel_names::metric_name(&series.metric, &series.unit, suffix, options.suffixes).ok_or(Reason::BadName)?;
    let mut labels = BTreeMap::new();
    let pairs = series.labels.iter().map(|(name, value)| (name.as_str(), value.clone()));
    put_attributes(&mut labels, "", pairs);
    if options.scope_labels
        && let Some(scope) = series.others.get("scope")
    {
        put_scope(&mut labels, scope);
    }
    let mut target = None;
    if let Some(resource) = series.others.get("resource") {
        target = put_resource(&mut labels, resource.get("attributes").filter(|inner| inner.is_object()).unwrap_or(resource));
    }
    Ok(Identity { metric, kind, unit: otel_names::unit_name(&series.unit), labels, target })
}

/// Attributes as labels: values of names that become the same are joined by `;`, in the order of the original names.
fn put_attributes<'a>(labels: &mut BTreeMap<String, String>, prefix: &str, attributes: impl Iterator<Item = (&'a str, String)>) {
    let mut sorted: Vec<(&str, String)> = attributes.filter(|(_, value)| !value.is_empty()).collect();
    sorted.sort_unstable();
    for (name, value) in sorted {
        let Some(label) = otel_names::label_name(&format!("{prefix}{name}")).filter(|label| label != "__name__") else { continue };
        match labels.get_mut(&label) {
            Some(before) => {
                before.push(';');
                before.push_str(&value);
            }
            None => _ = labels.insert(label, value),
        }
    }
}

fn text_of(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        value => value.to_string(),
    }
}

fn put_scope(labels: &mut BTreeMap<String, String>, scope: &Json) {
    for name in ["name", "version", "schema_url"] {
        let value = scope.get(name).map(text_of).unwrap_or_default();
        if !value.is_empty() {
            labels.insert(format!("otel_scope_{name}"), value);
        }
    }
    let attributes = scope.get("attributes").and_then(Json::as_object);
    put_attributes(labels, "otel_scope_", attributes.into_iter().flatten().map(|(name, value)| (name.as_str(), text_of(value))));
}

/// `job` and `instance`; and if they are known and there is more to say, the labels of `target_info`.
fn put_resource(labels: &mut BTreeMap<String, String>, resource: &Json) -> Option<BTreeMap<String, String>> {
    let text = |name: &str| resource.get(name).map(text_of).unwrap_or_default();
    let job = otel_names::job(&text("service.namespace"), &text("service.name"));
    let mut named = BTreeMap::new();
    for (name, value) in [("job", job), ("instance", text("service.instance.id"))] {
        if !value.is_empty() {
            named.insert(name.to_owned(), value);
        }
    }
    labels.extend(named.clone());
    let others = resource.as_object()?.iter().filter(|(name, _)| !otel_names::TARGET_ATTRIBUTES.contains(&name.as_str()));
    let mut target = BTreeMap::new();
    put_attributes(&mut target, "", others.map(|(name, value)| (name.as_str(), text_of(value))));
    if target.is_empty() || named.is_empty() {
        return None;
    }
    target.extend(named);
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_part_read_without_a_tree_is_what_the_tree_says(
            metric in "[a-zé\"]{0,3}", unit in "[a-z]{0,2}", labels in prop::collection::btree_map("[a-z_\n]{0,3}", "[a-z\\\\ü]{0,3}", 0..5),
            cut in 0usize..200,
        ) {
            let mut part = Vec::new();
            sample::put_series(&mut part, &metric, Type::Counter, &unit, labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            for bytes in [&part[..], &part[..cut.min(part.len())]] {
                let Some(plain) = Plain::read(bytes) else { continue };
                let series = Series::parse(bytes).expect("what is read without a tree is read with one");
                prop_assert_eq!((plain.metric, plain.kind, plain.unit), (series.metric.as_str(), series.kind, series.unit.as_str()));
                let named = series.labels.iter().filter(|(_, value)| !value.is_empty());
                prop_assert!(plain.labels.into_iter().eq(named.map(|(name, value)| (name.as_str(), value.as_str()))));
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_tree() {
        for (part, is_plain) in [
            (r#"{"metric":"a","type":"gauge","labels":{}"#, true),
            (r#"{"metric":"a","labels":{"b":"c","d":"e"}"#, true),
            (r#"{"metric":"a","labels":{"d":"c","b":"e"}"#, false),
            (r#"{"metric":"a","labels":{"b":"c","b":"e"}"#, false),
            (r#"{"metric":"a","labels":{"b":"c",}"#, false),
            (r#"{"metric":"a","labels":{"b":1}"#, false),
            (r#"{"metric":"a","labels":{"b":"\n"}"#, false),
            (r#"{"metric":"a","labels":{"__name__":"c"}"#, false),
            (r#"{"metric":"","labels":{}"#, false),
            (r#"{"metric":"a","monotonic":true,"labels":{}"#, false),
            (r#"{"metric":"a","labels":{},"tenant":"b""#, false),
            (r#"{"metric":"a","labels":{}}"#, false),
        ] {
            assert_eq!(Plain::read(part.as_bytes()).is_some(), is_plain, "{part}");
        }
    }

    #[test]
    fn external_labels_are_the_same_on_both_ways() {
        let labels = [("b", "x"), ("c", "y"), ("a", ""), ("", "z")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        for overrides in [false, true] {
            let mut options = WriterOptions::new(Version::V1);
            options.external = External { labels: labels.clone(), overrides };
            let mut known = Known::default();
            let plain = known.member(br#"{"metric":"m","labels":{"a":"1","b":"2","d":"3"}"#, &Derived::Itself, &options);
            let other = known.member(br#"{"metric":"m","tenant":"t","labels":{"d":"3","b":"2","a":"1"}"#, &Derived::Itself, &options);
            assert_eq!(plain.map(|member| member.series), other.map(|member| member.series));
        }
    }
}
