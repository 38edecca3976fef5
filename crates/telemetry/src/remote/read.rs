//! A request becomes lines: one for each sample, the series part copied from a dictionary where it is known.
//!
//! In: an unpacked body. Out: lines as [`crate::sample`] says. A series that breaks a rule is refused and counted, the others are
//! written; a body that is no message is refused whole, and then nothing is written. Each series is gone through twice, once for its
//! labels and how much it has, once for its samples, so nothing is collected on the way, however much there is.

use super::dictionary::Dictionary;
use super::{Malformed, Options, Reason, Received, Version, v1, v2};
use crate::histogram::{Count, Half, Histogram, ResetHint, Span};
use crate::sample::{Type, put_double, put_series, put_text};
use crate::wire::{self, Field, Message, read_varint};
use flow::units::{NANOS_PER_SECOND, UnixNanos};
use std::collections::HashMap;

/// What is remembered between requests. One for each sender or tenant: metadata of 1.0 is of whoever sent it.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) series: Dictionary,
    pub(super) families: Families,
    pub(super) times: Times,
    /// A key, a series part.
    pub(super) key: Vec<u8>,
    pub(super) part: Vec<u8>,
}

impl State {
    /// `bytes_max`: of series; an eighth of it more for metadata of 1.0. What is beyond is read anew each time, or not known.
    pub fn new(bytes_max: usize) -> State {
        State {
            series: Dictionary::new(bytes_max),
            families: Families::new(bytes_max / 8),
            times: Times::default(),
            key: Vec::new(),
            part: Vec::new(),
        }
    }
}

impl Default for State {
    fn default() -> State {
        State::new(64 << 20) // 100,000 series of 300 bytes, twice: as key and as part
    }
}

/// Reads a request and appends its lines to `out`; after an error `out` is as it was.
pub fn read(version: Version, body: &[u8], options: &Options, state: &mut State, out: &mut Vec<u8>) -> Result<Received, Malformed> {
    let from = out.len();
    let result = match version {
        Version::V1 => v1::read(body, options, state, out),
        Version::V2 => v2::read(body, options, state, out),
    };
    if result.is_err() {
        out.truncate(from);
    }
    result
}

/// What families of 1.0 are, as far as their sender said so.
#[derive(Clone, Debug, Default)]
pub struct Families {
    bytes_max: usize,
    bytes: usize,
    known: HashMap<String, (Type, String)>,
    /// Goes up with each change, so that series parts are written anew.
    pub epoch: u32,
}

impl Families {
    fn new(bytes_max: usize) -> Families {
        Families { bytes_max, ..Families::default() }
    }

    /// When full, what is known stays and what is new stays unknown.
    pub fn learn(&mut self, family: &str, kind: Type, unit: &str) {
        if let Some(known) = self.known.get_mut(family) {
            let bytes = self.bytes - known.1.len() + unit.len();
            if (known.0, known.1.as_str()) != (kind, unit) && bytes <= self.bytes_max {
                self.bytes = bytes;
                *known = (kind, unit.to_owned());
                self.epoch = self.epoch.wrapping_add(1);
            }
            return;
        }
        let bytes = family.len() + unit.len() + 64;
        if self.bytes + bytes > self.bytes_max || family.is_empty() {
            return;
        }
        self.bytes += bytes;
        self.known.insert(family.to_owned(), (kind, unit.to_owned()));
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Of a metric: its own name, or its family's, if the family has such a part.
    pub fn of(&self, metric: &str) -> (Type, &str) {
        use Type::*;
        const PARTS: [(&str, &[Type]); 9] = [
            ("_total", &[Counter]),
            ("_bucket", &[Histogram, GaugeHistogram]),
            ("_count", &[Histogram, Summary]),
            ("_sum", &[Histogram, Summary]),
            ("_gcount", &[GaugeHistogram]),
            ("_gsum", &[GaugeHistogram]),
            ("_created", &[Counter, Histogram, Summary]),
            ("_info", &[Info]),
            ("", &Type::ALL),
        ];
        let found = PARTS.iter().rev().find_map(|(suffix, kinds)| {
            let family = self.known.get(metric.strip_suffix(suffix)?)?;
            kinds.contains(&family.0).then_some(family)
        });
        found.map_or((Type::Unknown, ""), |(kind, unit)| (*kind, unit))
    }
}

/// Writes `,"timestamp":"…"` of milliseconds; of the last sixteen seconds only the fraction is new.
#[derive(Clone, Debug)]
pub struct Times {
    heads: [(i64, [u8; 19]); 16],
}

impl Default for Times {
    fn default() -> Times {
        Times { heads: [(i64::MIN, [0; 19]); 16] }
    }
}

impl Times {
    /// `ms`: of the years that have four digits.
    #[inline]
    fn put(&mut self, out: &mut Vec<u8>, ms: i64) {
        let (second, ms) = (ms.div_euclid(1000), ms.rem_euclid(1000) as u16);
        let head = &mut self.heads[(second & 15) as usize];
        if head.0 != second {
            let text = UnixNanos(second * NANOS_PER_SECOND).rfc3339();
            head.1.copy_from_slice(&text.as_bytes()[..19]);
            head.0 = second;
        }
        out.extend_from_slice(b",\"timestamp\":\"");
        out.extend_from_slice(&head.1);
        if ms != 0 {
            out.extend_from_slice(&[b'.', b'0' + (ms / 100) as u8, b'0' + (ms / 10 % 10) as u8, b'0' + (ms % 10) as u8]);
        }
        out.extend_from_slice(b"Z\"");
    }
}

/// 1990 and 2101 in milliseconds, as [`flow::time`] has it.
pub(super) const MS_RANGE: std::ops::Range<i64> = 631_152_000_000..4_133_980_800_000;

/// What a refusal is of and why; the text says which.
pub(super) type Refusal = (Reason, String);

/// Which fields of a `TimeSeries` are what.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    pub samples: u32,
    pub histograms: u32,
    pub exemplars: u32,
}

/// How many of each a series has.
#[derive(Clone, Copy, Default)]
pub(super) struct Items {
    pub samples: u64,
    pub histograms: u64,
    pub exemplars: u64,
}

impl Items {
    pub fn total(self) -> u64 {
        self.samples + self.histograms + self.exemplars
    }
}

/// What a request has become so far.
pub(super) struct Report {
    received: Received,
    rejected: [u64; Reason::ALL.len()],
}

impl Report {
    pub fn new() -> Report {
        Report { received: Received::default(), rejected: [0; Reason::ALL.len()] }
    }

    #[cold]
    pub fn refuse(&mut self, reason: Reason, count: u64, text: impl FnOnce() -> String) {
        self.rejected[reason as usize] += count;
        self.received.first_error.get_or_insert_with(text);
    }

    pub fn finish(mut self) -> Received {
        let counted = Reason::ALL.into_iter().zip(self.rejected).filter(|(_, count)| *count > 0);
        self.received.rejected = counted.collect();
        self.received
    }
}

/// Where lines go. The last one stays open until it is known what else belongs to it.
pub(super) struct Lines<'a> {
    out: &'a mut Vec<u8>,
    len_max: usize,
    is_open: bool,
}

impl<'a> Lines<'a> {
    pub fn new(out: &'a mut Vec<u8>, bytes_max: usize) -> Lines<'a> {
        let len_max = out.len().saturating_add(bytes_max);
        Lines { out, len_max, is_open: false }
    }

    #[inline]
    fn begin(&mut self, part: &[u8], times: &mut Times, at_ms: i64, start_ms: i64) -> Result<(), Malformed> {
        self.end();
        if self.out.len() + part.len() > self.len_max {
            return Err(Malformed::TooLarge("the request becomes more bytes of records than are taken".into()));
        }
        self.out.extend_from_slice(part);
        times.put(self.out, at_ms);
        if start_ms != 0 {
            self.out.extend_from_slice(b",\"start\":\"");
            self.out.extend_from_slice(nanos(start_ms).unwrap_or_default().rfc3339().as_bytes());
            self.out.push(b'"');
        }
        self.is_open = true;
        Ok(())
    }

    #[inline]
    fn end(&mut self) {
        if self.is_open {
            self.out.extend_from_slice(b"}\n");
            self.is_open = false;
        }
    }
}

fn nanos(ms: i64) -> Option<UnixNanos> {
    ms.checked_mul(1_000_000).map(UnixNanos)
}

/// Where labels of exemplars are: in themselves, or in the table of symbols.
#[derive(Clone, Copy)]
pub(super) enum Symbols<'a> {
    Inline,
    Table(&'a [&'a [u8]]),
}

/// A series that is known to be good, and where its lines go.
pub(super) struct Emit<'a, 'o> {
    pub options: &'a Options,
    pub times: &'a mut Times,
    pub lines: &'a mut Lines<'o>,
    pub report: &'a mut Report,
    pub symbols: Symbols<'a>,
    pub numbers: Numbers,
}

impl Emit<'_, '_> {
    /// Writes the samples of a series. `created_ms`: of the whole series; 0: unknown.
    #[inline]
    pub fn series(&mut self, series: &[u8], items: Items, part: &[u8], created_ms: i64) -> Result<(), Malformed> {
        let (mut last_sample, mut last_histogram) = (i64::MIN, i64::MIN);
        for field in Message::new(series) {
            let (number, field) = field?;
            if number == self.numbers.samples {
                self.sample(field.message()?, part, created_ms, &mut last_sample)?;
            } else if number == self.numbers.histograms {
                self.histogram(field.bytes()?, part, created_ms, &mut last_histogram)?;
            }
        }
        if items.exemplars > 0 {
            self.exemplars(series, part)?;
        }
        self.lines.end();
        Ok(())
    }

    #[inline]
    fn sample(&mut self, sample: Message<'_>, part: &[u8], created_ms: i64, last_ms: &mut i64) -> Result<(), Malformed> {
        let (mut value, mut at_ms, mut start_ms) = (0.0, 0, 0);
        for field in sample {
            match field? {
                (1, field) => value = field.double()?,
                (2, field) => at_ms = field.varint()? as i64,
                (3, field) if matches!(self.symbols, Symbols::Table(_)) => start_ms = field.varint()? as i64,
                _ => {}
            }
        }
        let start_ms = if start_ms != 0 { start_ms } else { created_ms };
        if let Some(reason) = time_fault(at_ms, start_ms, *last_ms) {
            self.refuse_at(reason, part, at_ms);
            return Ok(());
        }
        *last_ms = at_ms;
        self.lines.begin(part, self.times, at_ms, start_ms)?;
        self.lines.out.extend_from_slice(b",\"value\":");
        put_double(self.lines.out, value);
        self.report.received.samples += 1;
        Ok(())
    }

    fn histogram(&mut self, bytes: &[u8], part: &[u8], created_ms: i64, last_ms: &mut i64) -> Result<(), Malformed> {
        let read = read_histogram(bytes, self.options.buckets_max)?;
        let start_ms = if read.start_ms != 0 { read.start_ms } else { created_ms };
        if let Some(reason) = time_fault(read.at_ms, start_ms, *last_ms) {
            self.refuse_at(reason, part, read.at_ms);
            return Ok(());
        }
        let fault = match &read.histogram {
            Some(histogram) => histogram.validate().err(),
            None => Some("it has more buckets than are taken"),
        };
        let (Some(histogram), None) = (&read.histogram, fault) else {
            self.report.refuse(Reason::BadHistogram, 1, || format!("{}: {}", name_of(part), fault.unwrap_or_default()));
            return Ok(());
        };
        *last_ms = read.at_ms;
        self.lines.begin(part, self.times, read.at_ms, start_ms)?;
        self.lines.out.extend_from_slice(b",\"histogram\":");
        histogram.put(self.lines.out);
        self.report.received.histograms += 1;
        Ok(())
    }

    #[cold]
    fn refuse_at(&mut self, reason: Reason, part: &[u8], at_ms: i64) {
        let rule = match reason {
            Reason::OutOfOrder => "samples of a series are in the order of their times",
            Reason::DuplicateTime => "a series has one sample at a time",
            _ => "times are of the years 1990 to 2100",
        };
        self.report.refuse(reason, 1, || format!("{} at {at_ms} ms: {rule}", name_of(part)));
    }

    /// Exemplars go with the last line of their series; if it has none, they get one of their own.
    fn exemplars(&mut self, series: &[u8], part: &[u8]) -> Result<(), Malformed> {
        let mut written = 0u64;
        let mut list = Vec::new(); // at most what the line takes, which is bounded below
        let mut last_ms = 0;
        for field in Message::new(series) {
            let (number, field) = field?;
            if number != self.numbers.exemplars {
                continue;
            }
            let mark = list.len();
            list.extend_from_slice(if written == 0 { b"" } else { b"," });
            match self.exemplar(field.bytes()?, &mut list)? {
                Ok(at_ms) => {
                    written += 1;
                    last_ms = at_ms;
                }
                Err(rule) => {
                    list.truncate(mark);
                    self.report.refuse(Reason::BadExemplar, 1, || format!("{}: {rule}", name_of(part)));
                }
            }
            if self.lines.out.len() + list.len() > self.lines.len_max {
                return Err(Malformed::TooLarge("the request becomes more bytes of records than are taken".into()));
            }
        }
        if written > 0 {
            if !self.lines.is_open {
                self.lines.begin(part, self.times, last_ms, 0)?;
            }
            self.lines.out.extend_from_slice(b",\"exemplars\":[");
            self.lines.out.extend_from_slice(&list);
            self.lines.out.push(b']');
            self.report.received.exemplars += written;
        }
        Ok(())
    }

    /// Appends an exemplar and says when it is of; or the rule that it breaks.
    fn exemplar(&self, bytes: &[u8], list: &mut Vec<u8>) -> Result<Result<i64, &'static str>, Malformed> {
        let (mut value, mut at_ms) = (0.0, 0);
        for field in Message::new(bytes) {
            match field? {
                (2, field) => value = field.double()?,
                (3, field) => at_ms = field.varint()? as i64,
                _ => {}
            }
        }
        if !MS_RANGE.contains(&at_ms) {
            return Ok(Err("an exemplar has a time of the years 1990 to 2100"));
        }
        let labels = match self.symbols {
            Symbols::Inline => v1::labels(bytes, self.options.label_names_max)?,
            Symbols::Table(symbols) => {
                let mut refs = Vec::new();
                v2::refs(bytes, 1, self.options.label_names_max, &mut refs)?;
                v2::resolve(&refs, symbols, self.options.label_names_max)
            }
        };
        let Ok(labels) = labels else { return Ok(Err("an exemplar's labels are pairs of known texts, not too many")) };
        list.extend_from_slice(b"{\"labels\":{");
        for (n, (name, value)) in labels.iter().enumerate() {
            let is_long = name.len() > self.options.label_name_bytes_max || value.len() > self.options.label_value_bytes_max;
            let is_text = std::str::from_utf8(name).is_ok() && std::str::from_utf8(value).is_ok();
            if name.is_empty() || is_long || !is_text || labels[..n].iter().any(|(other, _)| other == name) {
                return Ok(Err("an exemplar's labels are texts with names, each once, not too long"));
            }
            if n > 0 {
                list.push(b',');
            }
            put_text(list, name);
            list.push(b':');
            put_text(list, value);
        }
        list.extend_from_slice(b"},\"value\":");
        put_double(list, value);
        list.extend_from_slice(b",\"timestamp\":\"");
        list.extend_from_slice(nanos(at_ms).unwrap_or_default().rfc3339().as_bytes());
        list.extend_from_slice(b"\"}");
        Ok(Ok(at_ms))
    }
}

#[inline]
fn time_fault(at_ms: i64, start_ms: i64, last_ms: i64) -> Option<Reason> {
    if !MS_RANGE.contains(&at_ms) || nanos(start_ms).is_none() {
        return Some(Reason::TimeOutOfRange);
    }
    match at_ms.cmp(&last_ms) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal => Some(Reason::DuplicateTime),
        std::cmp::Ordering::Less => Some(Reason::OutOfOrder),
    }
}

/// The start of a series part, for messages.
fn name_of(part: &[u8]) -> String {
    let shown = part.strip_prefix(b"{\"metric\":").unwrap_or(part);
    String::from_utf8_lossy(&shown[..shown.len().min(200)]).into_owned()
}

struct ReadHistogram {
    /// `None`: too many buckets.
    histogram: Option<Histogram>,
    at_ms: i64,
    start_ms: i64,
}

/// The message is the same in both versions, but for the start.
fn read_histogram(bytes: &[u8], buckets_max: usize) -> Result<ReadHistogram, Malformed> {
    let (mut is_float, mut count, mut zero_count) = (false, 0, 0);
    let (mut count_float, mut zero_count_float) = (0.0, 0.0);
    let (mut sum, mut schema, mut zero_threshold, mut hint, mut at_ms, mut start_ms) = (0.0, 0, 0.0, 0, 0, 0);
    let (mut negative, mut positive, mut custom_values) = (Half::default(), Half::default(), Vec::new());
    let mut numbers = 0usize;
    let mut is_room = || {
        numbers += 1;
        numbers <= buckets_max
    };
    for field in Message::new(bytes) {
        match field? {
            (1, field) => (count, is_float) = (field.varint()?, false),
            (2, field) => (count_float, is_float) = (field.double()?, true),
            (3, field) => sum = field.double()?,
            (4, field) => schema = field.zigzag()? as i32,
            (5, field) => zero_threshold = field.double()?,
            (6, field) => zero_count = field.varint()?,
            (7, field) => zero_count_float = field.double()?,
            (8, field) if is_room() => negative.spans.push(span(field)?),
            (9, field) => varints(field, |delta| {
                if is_room() {
                    negative.deltas.push(wire::unzigzag(delta))
                }
            })?,
            (10, field) => doubles(field, |count| {
                if is_room() {
                    negative.counts.push(count)
                }
            })?,
            (11, field) if is_room() => positive.spans.push(span(field)?),
            (12, field) => varints(field, |delta| {
                if is_room() {
                    positive.deltas.push(wire::unzigzag(delta))
                }
            })?,
            (13, field) => doubles(field, |count| {
                if is_room() {
                    positive.counts.push(count)
                }
            })?,
            (14, field) => hint = field.varint()?,
            (15, field) => at_ms = field.varint()? as i64,
            (16, field) => doubles(field, |value| {
                if is_room() {
                    custom_values.push(value)
                }
            })?,
            (17, field) => start_ms = field.varint()? as i64,
            _ => {}
        }
    }
    if numbers > buckets_max {
        return Ok(ReadHistogram { histogram: None, at_ms, start_ms });
    }
    let histogram = Histogram {
        count: if is_float { Count::Float(count_float) } else { Count::Int(count) },
        sum,
        schema,
        zero_threshold,
        zero_count: if is_float { Count::Float(zero_count_float) } else { Count::Int(zero_count) },
        positive: positive.side(is_float),
        negative: negative.side(is_float),
        custom_values,
        reset_hint: ResetHint::ALL.get(hint as usize).copied().unwrap_or_default(),
    };
    Ok(ReadHistogram { histogram: Some(histogram), at_ms, start_ms })
}

fn span(field: Field<'_>) -> Result<Span, Malformed> {
    let mut span = Span::default();
    for field in field.message()? {
        match field? {
            (1, field) => span.offset = field.zigzag()? as i32,
            (2, field) => span.len = field.varint()? as u32,
            _ => {}
        }
    }
    Ok(span)
}

/// A repeated number, packed or not.
pub(super) fn varints(field: Field<'_>, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
    match field {
        Field::Varint(value) => each(value),
        field => {
            let mut rest = field.bytes()?;
            while !rest.is_empty() {
                each(read_varint(&mut rest)?);
            }
        }
    }
    Ok(())
}

fn doubles(field: Field<'_>, mut each: impl FnMut(f64)) -> Result<(), Malformed> {
    if let Field::Fixed64(bits) = field {
        each(f64::from_bits(bits));
        return Ok(());
    }
    let (chunks, []) = field.bytes()?.as_chunks::<8>() else { return Err(wire::Malformed.into()) };
    chunks.iter().for_each(|bits| each(f64::from_le_bytes(*bits)));
    Ok(())
}

pub(super) type Labels<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Checks a series' labels and writes its part; on a refusal the text says which series.
pub(super) fn put_part<'a>(
    labels: &Labels<'a>,
    options: &Options,
    part: &mut Vec<u8>,
    metadata: impl FnOnce(&str) -> (Type, &'a str),
) -> Result<(), Refusal> {
    let refuse = |reason: Reason, rule: &str| Err((reason, format!("{}: {rule}", show(labels))));
    let mut texts: Vec<(&str, &str)> = Vec::with_capacity(labels.len());
    let mut metric = "";
    for (n, (name, value)) in labels.iter().enumerate() {
        if name.is_empty() {
            return refuse(Reason::EmptyLabelName, "a label has a name");
        }
        match n.checked_sub(1).map(|before| labels[before].0.cmp(name)) {
            Some(std::cmp::Ordering::Equal) => return refuse(Reason::RepeatedLabel, "a label stands once"),
            Some(std::cmp::Ordering::Greater) => return refuse(Reason::LabelsNotSorted, "labels are sorted by name"),
            _ => {}
        }
        if name.len() > options.label_name_bytes_max {
            return refuse(Reason::LabelNameTooLong, &format!("a label's name has at most {} bytes", options.label_name_bytes_max));
        }
        if value.len() > options.label_value_bytes_max {
            return refuse(Reason::LabelValueTooLong, &format!("a label's value has at most {} bytes", options.label_value_bytes_max));
        }
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
            return refuse(Reason::NotUtf8, "labels are UTF-8");
        };
        if name == "__name__" {
            metric = value;
            continue;
        }
        if value.is_empty() {
            return refuse(Reason::EmptyLabelValue, "a label without a value is left out");
        }
        if options.classic_names && !is_classic(name, false) {
            return refuse(Reason::BadName, "names are of letters, digits and _, and begin with no digit");
        }
        texts.push((name, value));
    }
    if metric.is_empty() {
        return refuse(Reason::NoMetricName, "a series has a name, in its label __name__");
    }
    if options.classic_names && !is_classic(metric, true) {
        return refuse(Reason::BadName, "names are of letters, digits, : and _, and begin with no digit");
    }
    let (kind, unit) = metadata(metric);
    put_series(part, metric, kind, unit, texts.into_iter());
    Ok(())
}

fn is_classic(name: &str, is_metric: bool) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (is_metric && byte == b':');
    name.bytes().all(is_part) && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// `{a="b", c="d"}`, the first labels of it, for messages.
fn show(labels: &Labels<'_>) -> String {
    let short = |text: &[u8]| String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
    let shown: Vec<String> = labels.iter().take(5).map(|(name, value)| format!("{}={:?}", short(name), short(value))).collect();
    format!("{{{}{}}}", shown.join(", "), if labels.len() > 5 { ", …" } else { "" })
}
