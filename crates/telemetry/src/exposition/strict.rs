//! Holds a body to the text of OpenMetrics 1.0, where Prometheus is lenient.
//!
//! In: a body that is going to be read. Out: the first rule that it breaks, and where. Checked: `# EOF`; metadata once, before its
//! samples; names that end as the type says (`_total`, `_bucket`, `_info`), and no two families that would share one; families and their
//! metrics in one piece; values, labels and exemplars of each type; histograms that add up; times that do not go back. Not fast: for
//! `check exporters` and for targets that ask for it. Memory: names and labels of the body, once.
//! Source: <https://prometheus.io/docs/specs/om/open_metrics_spec>, prometheus/client_python's parser, whose cases are the tests here.

use super::lines::{self, Comment, Dialect, Expected, Parsed, Tail};
use super::number;
use super::scraper::EXEMPLAR_CHARS_MAX;
use crate::sample::Type;
use flow::units::UnixNanos;
use std::collections::HashSet;

const ONE_PIECE: Expected = "a metric is told in one piece, and no two metrics have samples of one name";

type Labels = Vec<(Vec<u8>, Vec<u8>)>;

/// Errors: what is wrong, and at which byte the line begins.
pub fn check(body: &[u8]) -> Result<(), (String, usize)> {
    let mut checker = Checker::default();
    let (mut at, mut parsed) = (0, Parsed::default());
    loop {
        let rest = &body[at..];
        let Some(len) = memchr::memchr(b'\n', rest).or((!rest.is_empty()).then_some(rest.len())) else {
            return Err(("the body does not end with # EOF".into(), at));
        };
        let line = &rest[..len];
        if line == b"# EOF" {
            checker.close().map_err(|what| (what.to_string(), at))?;
            return if at + len + 1 >= body.len() { Ok(()) } else { Err(("nothing comes after # EOF".into(), at + len + 1)) };
        }
        let checked = match line.first() {
            None => Err("there are no empty lines"),
            Some(b'#') => lines::parse_comment(line, Dialect::OpenMetrics).and_then(|comment| checker.comment(comment)),
            Some(_) if len == rest.len() => Err("the body does not end with # EOF"),
            Some(_) => checker.line(&rest[..len + 1], &mut parsed),
        };
        checked.map_err(|what| (format!("{what}, in {:?}", String::from_utf8_lossy(&line[..line.len().min(120)])), at))?;
        at += len + 1;
        at = at.min(body.len());
    }
}

#[derive(Default)]
struct Checker {
    /// Of families and all their samples, as far as they are closed.
    names: HashSet<Vec<u8>>,
    family: Family,
}

/// The family that is open.
#[derive(Default)]
struct Family {
    name: Vec<u8>,
    is_open: bool,
    kind: Option<Type>,
    has_help: bool,
    unit: Option<Vec<u8>>,
    has_samples: bool,
    /// The metric that is being told: its labels, and all that were before.
    group: Option<(Labels, Option<UnixNanos>)>,
    groups: HashSet<Labels>,
    buckets: Buckets,
}

/// What a histogram's metric has said so far.
#[derive(Default)]
struct Buckets {
    bound: Option<f64>,
    value: f64,
    count: Option<f64>,
    sum: Option<f64>,
    gauge_sum: Option<f64>,
    has_negative: bool,
}

fn suffixes(kind: Type) -> &'static [&'static str] {
    match kind {
        Type::Counter => &["_total", "_created"],
        Type::Summary => &["", "_count", "_sum", "_created"],
        Type::Histogram => &["_count", "_sum", "_bucket", "_created"],
        Type::GaugeHistogram => &["_gcount", "_gsum", "_bucket"],
        Type::Info => &["_info"],
        _ => &[""],
    }
}

impl Checker {
    fn comment(&mut self, comment: Comment<'_>) -> Result<(), Expected> {
        let name = match comment {
            Comment::Help(name, _) | Comment::Type(name, _) | Comment::Unit(name, _) => name,
            Comment::Eof | Comment::Other => return Ok(()),
        };
        if self.family.is_open && self.family.name == name && self.family.has_samples {
            return Err("metadata comes before the samples");
        }
        if !self.family.is_open || self.family.name != name {
            self.open(name)?;
        }
        let family = &mut self.family;
        let twice = match comment {
            Comment::Help(..) => std::mem::replace(&mut family.has_help, true),
            Comment::Type(_, text) => {
                let kind = Type::parse(text).filter(|_| text != b"untyped").ok_or("that is no type of metrics")?;
                family.kind.replace(kind).is_some()
            }
            Comment::Unit(_, unit) => {
                if !unit.is_empty() && !name.strip_suffix(unit).is_some_and(|stem| stem.ends_with(b"_")) {
                    return Err("a unit is the end of the metric's name, after _");
                }
                family.unit.replace(unit.to_vec()).is_some()
            }
            Comment::Eof | Comment::Other => false,
        };
        if twice { Err("HELP, TYPE and UNIT come once for each metric") } else { Ok(()) }
    }

    fn open(&mut self, name: &[u8]) -> Result<(), Expected> {
        self.close()?;
        if self.names.contains(name) {
            return Err(ONE_PIECE);
        }
        self.family = Family { name: name.to_vec(), is_open: true, ..Family::default() };
        Ok(())
    }

    fn close(&mut self) -> Result<(), Expected> {
        let family = &mut self.family;
        if !std::mem::take(&mut family.is_open) {
            return Ok(());
        }
        let kind = family.kind.unwrap_or_default();
        if family.unit.as_ref().is_some_and(|unit| !unit.is_empty()) && matches!(kind, Type::Info | Type::StateSet) {
            return Err("info and stateset have no unit");
        }
        family.end_of_group()?;
        for suffix in suffixes(kind).iter().chain(&[""]).collect::<HashSet<_>>() {
            if !self.names.insert([family.name.as_slice(), suffix.as_bytes()].concat()) {
                return Err(ONE_PIECE);
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], parsed: &mut Parsed) -> Result<(), Expected> {
        let len = lines::parse_series(line, Dialect::OpenMetrics, parsed)?;
        if line[..len].ends_with(b",}") {
            return Err("no comma stands before the closing brace");
        }
        let tail = lines::tail_of_openmetrics(&line[len..])?;
        if tail.beyond {
            return Err("the time is further away than can be counted");
        }
        let mut labels = std::mem::take(&mut parsed.labels);
        labels.sort_unstable();
        if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err("a label stands there once");
        }
        if labels.iter().any(|(name, value)| std::str::from_utf8(name).is_err() || std::str::from_utf8(value).is_err()) {
            return Err("labels are UTF-8");
        }
        let name = std::mem::take(&mut parsed.name);
        let fits = |family: &Family| {
            let suffix = name.strip_prefix(family.name.as_slice()).and_then(|suffix| std::str::from_utf8(suffix).ok());
            family.is_open && suffix.is_some_and(|suffix| suffixes(family.kind.unwrap_or_default()).contains(&suffix))
        };
        if !fits(&self.family) {
            // Without metadata it is a metric of its own, of unknown type.
            self.open(&name)?;
        }
        let suffix = String::from_utf8_lossy(&name[self.family.name.len()..]).into_owned();
        self.family.has_samples = true;
        if let Some(at) = tail.exemplar {
            check_exemplar(&line[len + at..], parsed, self.family.kind.unwrap_or_default(), &suffix)?;
        }
        self.family.sample(&suffix, labels, &tail)
    }
}

fn check_exemplar(text: &[u8], parsed: &mut Parsed, kind: Type, suffix: &str) -> Result<(), Expected> {
    let (exemplar, _) = lines::parse_exemplar(text, parsed)?;
    let chars: usize = exemplar.labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
    if chars > EXEMPLAR_CHARS_MAX {
        return Err("an exemplar's labels are at most 128 characters");
    }
    match (kind, suffix) {
        (Type::Histogram | Type::GaugeHistogram, "_bucket") | (Type::Counter, "_total") => Ok(()),
        _ => Err("exemplars are of buckets and of counters' totals"),
    }
}

impl Family {
    fn sample(&mut self, suffix: &str, mut labels: Labels, tail: &Tail) -> Result<(), Expected> {
        let kind = self.kind.unwrap_or_default();
        let value = tail.value;
        let apart = match (kind, suffix) {
            (Type::Histogram | Type::GaugeHistogram, "_bucket") => b"le".to_vec(),
            (Type::Summary, "") => b"quantile".to_vec(),
            (Type::StateSet, _) => self.name.clone(),
            _ => Vec::new(),
        };
        let own = labels.iter().position(|(name, _)| *name == apart).map(|at| labels.remove(at).1);
        if !apart.is_empty() && own.is_none() {
            return Err("a bucket has le, a quantile has quantile, a state has the metric's name as a label");
        }
        let is_infinity_so_written = |text: &[u8], number: f64| number != f64::INFINITY || text == b"+Inf";
        let step =
            own.as_ref().and_then(|text| number::parse(text).filter(|number| !number.is_nan() && is_infinity_so_written(text, *number)));
        if kind == Type::Info {
            labels.clear();
        }
        self.turn_to(labels, tail.at, kind)?;
        let is_count = matches!(suffix, "_bucket" | "_count" | "_gcount");
        if is_count && kind != Type::Unknown && value != value.trunc() {
            return Err("buckets and counts are integers");
        }
        let counts_up = matches!(suffix, "_total" | "_sum" | "_count" | "_bucket" | "_gcount");
        if value.is_nan() && (counts_up || suffix == "_gsum") || counts_up && value < 0.0 {
            return Err("what counts is neither NaN nor negative");
        }
        match (kind, suffix) {
            (Type::StateSet, _) if value != 0.0 && value != 1.0 => return Err("a state is 0 or 1"),
            (Type::Info, _) if value != 1.0 => return Err("info is 1"),
            (Type::Summary, "") if !step.is_some_and(|quantile| (0.0..=1.0).contains(&quantile)) => {
                return Err("a quantile is from 0 to 1");
            }
            (Type::Summary, "") if value < 0.0 => return Err("quantiles are not negative"),
            (Type::Histogram | Type::GaugeHistogram, "_bucket") => {
                self.buckets.bucket(step.ok_or("le is a number, and infinity is +Inf")?, value)?;
            }
            (_, "_count" | "_gcount") => self.buckets.count = Some(value),
            (_, "_sum") => self.buckets.sum = Some(value),
            (_, "_gsum") => self.buckets.gauge_sum = Some(value),
            _ => {}
        }
        Ok(())
    }

    fn turn_to(&mut self, labels: Labels, at: Option<UnixNanos>, kind: Type) -> Result<(), Expected> {
        match &self.group {
            Some((group, before)) if *group == labels => {
                if at.is_some() != before.is_some() {
                    return Err("of one metric, all samples have a time or none has");
                }
                if at < *before && kind != Type::Info {
                    return Err("times do not go back");
                }
                if at != *before {
                    self.end_of_group()?;
                }
            }
            _ => {
                self.end_of_group()?;
                if !self.groups.insert(labels.clone()) {
                    return Err("samples of one metric come together");
                }
            }
        }
        self.group = Some((labels, at));
        Ok(())
    }

    fn end_of_group(&mut self) -> Result<(), Expected> {
        let buckets = std::mem::take(&mut self.buckets);
        let is_histogram = matches!(self.kind, Some(Type::Histogram | Type::GaugeHistogram));
        if is_histogram && self.group.is_some() { buckets.check() } else { Ok(()) }
    }
}

impl Buckets {
    fn bucket(&mut self, bound: f64, value: f64) -> Result<(), Expected> {
        if self.bound.is_some_and(|before| bound <= before) || value < self.value {
            return Err("buckets and their counts grow");
        }
        (self.bound, self.value) = (Some(bound), value);
        self.has_negative |= bound < 0.0;
        Ok(())
    }

    fn check(&self) -> Result<(), Expected> {
        let has_sum = self.sum.is_some() || self.gauge_sum.is_some();
        if self.bound != Some(f64::INFINITY) {
            return Err("a histogram has a bucket +Inf");
        }
        if self.count.is_some_and(|count| count != self.value) {
            return Err("the count is that of the bucket +Inf");
        }
        if has_sum != self.count.is_some() {
            return Err("a histogram has sum and count or neither");
        }
        if self.has_negative && self.sum.is_some() {
            return Err("a histogram with negative buckets has no sum");
        }
        if !self.has_negative && self.gauge_sum.is_some_and(|sum| sum < 0.0) {
            return Err("a sum below 0 needs negative buckets");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// prometheus/client_python tests/openmetrics/test_parser.py, test_invalid_input: each ends with `# EOF`.
    const INVALID: &str = include_str!("strict/invalid.txt");

    #[test]
    fn what_the_parser_of_python_refuses_is_refused() {
        let mut cases = 0;
        for case in INVALID.split("--\n").filter(|case| !case.is_empty()) {
            assert!(check(case.as_bytes()).is_err(), "{case:?}");
            cases += 1;
        }
        assert!(cases > 150, "{cases}");
        for case in ["", "a 1\n\n# EOF\n", "a 1\n# EOF\nblah", "a 1\n# EOFblah", "a 1\n"] {
            assert!(check(case.as_bytes()).is_err(), "{case:?}");
        }
    }

    #[test]
    fn what_is_valid_is_read() {
        for case in [
            "# EOF\n",
            "# EOF",
            "a 1\n# EOF\n",
            "# TYPE a counter\n# HELP a help\na_total 1\na_created 2\n# EOF\n",
            "# TYPE a counter\na_total{x=\"1\"} 1 1 # {id=\"a\"} 0.5 123\na_total{x=\"2\"} 1 2\n# EOF\n",
            "# TYPE a_seconds gauge\n# UNIT a_seconds seconds\n# HELP a_seconds x\na_seconds 1\n# EOF\n",
            "# TYPE a histogram\na_bucket{le=\"1.0\"} 0\na_bucket{le=\"+Inf\"} 3\na_count 3\na_sum 2\n# EOF\n",
            "# TYPE a histogram\na_bucket{le=\"-1.0\"} 0\na_bucket{le=\"+Inf\"} 3\n# EOF\n",
            "# TYPE a gaugehistogram\na_bucket{le=\"-1.0\"} 0\na_bucket{le=\"+Inf\"} 3\na_gcount 3\na_gsum -5\n# EOF\n",
            "# TYPE a summary\na_count 1\na_sum 2\na{quantile=\"0.5\"} 0.7\na{quantile=\"1\"} 0.8\n# EOF\n",
            "# TYPE a info\na_info{foo=\"bar\"} 1\na_info{foo=\"baz\"} 1\n# EOF\n",
            "# TYPE a stateset\na{a=\"bar\"} 0\na{a=\"foo\"} 1.0\n# EOF\n",
            "# TYPE a gauge\na 0 1\na 0 2\n# EOF\n",
            "# TYPE a gauge\n# TYPE b gauge\nb 1\n# EOF\n",
            "{\"a.b\",\"c.d\"=\"e\"} 1\n# EOF\n",
        ] {
            assert_eq!(check(case.as_bytes()), Ok(()), "{case:?}");
        }
    }

    #[test]
    fn where_a_rule_is_broken_is_said() {
        let (what, at) = check(b"# TYPE a gauge\na 1\nb 1\na 2\n# EOF\n").expect_err("interleaved");
        assert!(what.starts_with("a metric is told in one piece"), "{what}");
        assert_eq!(at, 23);
    }

    proptest! {
        #[test]
        fn no_body_is_a_panic(text in "([a-c]{1,2}|[{}\"=, #\n0-9.-]|# TYPE a (counter|histogram)\n|a_bucket\\{le=\"|# EOF\n){0,40}") {
            let _ = check(text.as_bytes());
        }
    }
}
