//! Bounds on how many series a source brings: of a metric, of a tenant, in all. What is more is folded.
//!
//! In: lines of samples, as a scrape or a request made them. Out: the same without those of folded series, and the overflow series
//! that they are in (`telemetry::cardinality` says how they add up); stale markers of series that were silent for too long.
//! Memory: each series' text once, as many as the limits say.

use super::config::SeriesConfig;
use super::push::Stats;
use super::status::lock;
use flow::time::TimeParser;
use flow::units::UnixNanos;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use telemetry::cardinality::{Admission, Cardinality, Kind, Limits, Sample};
use telemetry::sample::{self, STALE, Series, Stamp, Type, put_value_end};

/// What a source knows of its series.
pub struct Bounds {
    tenant_label: String,
    known: Mutex<Known>,
}

struct Known {
    cardinality: Cardinality,
    numbers: HashMap<Arc<[u8]>, u64>,
    series: HashMap<u64, (Arc<[u8]>, About)>,
    next: u64,
    times: TimeParser,
    buffer: Vec<u8>,
    stamp: Stamp,
}

/// What of a series decides where it is folded to.
struct About {
    metric: String,
    tenant: String,
    part: Option<(&'static str, String)>,
    kind: Kind,
}

impl About {
    fn of(part: &[u8], tenant_label: &str) -> Option<About> {
        let Series { metric, kind, labels, .. } = Series::parse(part)?;
        let label = |name: &str| labels.iter().find(|label| label.0 == name).map(|label| label.1.clone());
        let is_part = |name: &'static str| label(name).map(|value| (name, value));
        let is_counter = match kind {
            Type::Counter | Type::Histogram | Type::Summary => true,
            // Nobody said what it is: its name does.
            Type::Unknown => ["_total", "_bucket", "_count", "_sum"].iter().any(|end| metric.ends_with(end)),
            _ => false,
        };
        let part = is_part("le").or_else(|| is_part("quantile"));
        // A quantile is no sum of anything.
        let kind = if is_counter && part.as_ref().is_none_or(|(name, _)| *name != "quantile") { Kind::Counter } else { Kind::Gauge };
        Some(About { metric, tenant: label(tenant_label).unwrap_or_default(), part, kind })
    }
}

impl Bounds {
    pub fn new(config: &SeriesConfig) -> Bounds {
        let limits = Limits {
            per_metric: config.per_metric,
            per_tenant: config.per_tenant,
            total: config.total,
            expire_after: config.expire_after.0,
            ..Limits::default()
        };
        Bounds {
            tenant_label: config.tenant_label.clone(),
            known: Mutex::new(Known {
                cardinality: Cardinality::new(limits),
                numbers: HashMap::new(),
                series: HashMap::new(),
                next: 0,
                times: TimeParser::new(),
                buffer: Vec::new(),
                stamp: Stamp::default(),
            }),
        }
    }

    /// Keeps the lines of admitted series.
    pub fn filter(&self, lines: &[u8], now: UnixNanos, stats: &Stats) -> Vec<u8> {
        let mut known = lock(&self.known);
        let known = &mut *known;
        let mut out = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|b| *b == b'\n') {
            match known.judge(line, &self.tenant_label, now) {
                None | Some(Admission::Admitted) => out.extend_from_slice(line),
                Some(Admission::Folded(limit)) => stats.count(&format!("folded_{}", limit.reason()), 1),
                Some(Admission::Refused(limit)) => stats.count(&format!("refused_{}", limit.reason()), 1),
            }
        }
        for expired in known.cardinality.expire(now) {
            let Some(part) = known.forget(expired.series) else { continue };
            if expired.was_admitted {
                out.extend_from_slice(&part);
                known.stamp.put(&mut out, now);
                put_value_end(&mut out, f64::from_bits(STALE));
            }
        }
        known.cardinality.put_overflows(&mut out, &self.tenant_label, now);
        out
    }
}

impl Known {
    /// `None`: the line is no sample.
    fn judge(&mut self, line: &[u8], tenant_label: &str, now: UnixNanos) -> Option<Admission> {
        let sample = sample::read(line, &mut self.times, &mut self.buffer)?;
        let number = match self.numbers.get(sample.series) {
            Some(number) => *number,
            None => {
                let about = About::of(sample.series, tenant_label)?;
                let part: Arc<[u8]> = sample.series.into();
                self.next += 1;
                self.numbers.insert(Arc::clone(&part), self.next);
                self.series.insert(self.next, (part, about));
                self.next
            }
        };
        let (_, about) = &self.series[&number];
        let part = about.part.as_ref().map(|(name, value)| (*name, value.as_str()));
        let (value, kind) = match sample.value {
            Some(value) => (value.double(), about.kind),
            None => (0.0, Kind::Gauge), // a histogram of many numbers is admitted, or is gone
        };
        let sample = Sample { series: number, metric: &about.metric, tenant: &about.tenant, part, kind, value };
        let admission = self.cardinality.admit(&sample, now);
        if !self.cardinality.knows(number) {
            self.forget(number);
        }
        Some(admission)
    }

    /// Drops the text of a series that the bounds do not keep.
    fn forget(&mut self, number: u64) -> Option<Arc<[u8]>> {
        let (part, _) = self.series.remove(&number)?;
        self.numbers.remove(&part);
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::super::push::Budget;
    use super::*;
    use flow::units::Span;

    fn bounds(per_metric: u32) -> Bounds {
        Bounds::new(&SeriesConfig { per_metric, per_tenant: 100, total: 100, tenant_label: "tenant".into(), expire_after: Span(1000) })
    }

    fn line(pod: usize, value: f64, at: i64) -> Vec<u8> {
        let mut out = Vec::new();
        let pod = format!("p{pod}");
        sample::put_series(&mut out, "req_total", Type::Counter, "", [("pod", pod.as_str()), ("tenant", "a")].into_iter());
        Stamp::default().put(&mut out, UnixNanos(at));
        put_value_end(&mut out, value);
        out
    }

    #[test]
    fn series_beyond_the_bound_are_one_and_their_sum_is_whole() {
        let stats = Stats::new("test", Budget::new(1));
        let bounds = bounds(2);
        let start = 1_764_291_723_000_000_000;
        let round = |value: f64, at: i64| {
            let lines: Vec<u8> = (0..10).flat_map(|pod| line(pod, value, start + at)).collect();
            String::from_utf8(bounds.filter(&lines, UnixNanos(start + at), &stats)).unwrap()
        };
        let first = round(5.0, 0);
        assert_eq!(first.lines().count(), 3, "two as they are, eight in one: {first}");
        assert!(first.contains("\"weir_overflow\":\"true\"") && first.contains("\"value\":40.0"), "{first}");
        assert!(round(7.0, 100).contains("\"value\":56.0"));
        assert_eq!(stats.results()["folded_series_per_metric"], 16);
        let silent = String::from_utf8(bounds.filter(&line(0, 9.0, start + 5000), UnixNanos(start + 5000), &stats)).unwrap();
        assert!(silent.contains("\"pod\":\"p1\"") && silent.contains("\"stale\""), "who was silent has ended: {silent}");
    }
}
