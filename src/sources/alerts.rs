//! The `watch` source: reads along with the samples of its pipeline, and says by name what has gone silent.
//!
//! In: rules, and frames as the hub publishes them. Out: an event for each alert that begins or ends, and while it lasts the samples
//! `weir_missing` and `ALERTS`, in pipes of the pipeline: so alerts are records like any other, and reach every sink. Bound:
//! [`READ_BYTES_MAX`] of frames that wait; what goes by unread is counted, and [`SERIES_MAX`] series that are known by heart. What it knows
//! does not outlast a restart: then a preceding window begins anew.

use super::config::{WatchConfig, WatchRule};
use super::push::{Pipe, Stats};
use crate::env;
use flow::event::Signal;
use flow::time::TimeParser;
use flow::units::UnixNanos;
use hub::{Frame, Hub};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use telemetry::missing::{self, Expected, Rule, Watch};
use telemetry::sample;
use telemetry::selector::{Query, Selector, Series};

const READ_BYTES_MAX: usize = 16 << 20;
/// When they are more, all are forgotten and read anew.
const SERIES_MAX: usize = 1_000_000;
/// How often alerts are looked for where nothing comes.
const TICK: Duration = Duration::from_millis(200);

/// What a source of alerts runs with.
pub struct Watcher {
    watches: Vec<Watch>,
    hub: Arc<Hub>,
    /// Of events and of samples.
    events: Arc<Pipe>,
    samples: Arc<Pipe>,
    stats: Arc<Stats>,
    /// The process ends.
    pub ends: Arc<AtomicBool>,
}

/// A rule of the config, checked; or what is wrong with it.
pub fn rule(name: &str, config: &WatchRule) -> Result<Rule, String> {
    let interval = config.interval.0;
    let rule = match (&config.missing_from, &config.absent) {
        (Some(from), None) => {
            let metric = Selector::parse(&from.metric).map_err(|mistake| mistake.show(&from.metric))?;
            let by: Vec<&str> = from.by.iter().map(String::as_str).collect();
            let expected = match (from.expected.is_empty(), from.preceding) {
                (false, None) if by.len() == 1 => Expected::Inventory(from.expected.iter().map(|member| vec![member.clone()]).collect()),
                (false, None) => return Err("`expected` names the values of one label; `by` has several: use `preceding`".into()),
                (true, Some(window)) => Expected::Preceding(window.0),
                (true, None) => return Err("nobody is expected; name them in `expected`, or write preceding: 1h".into()),
                (false, Some(_)) => return Err("`expected` and `preceding` exclude each other".into()),
            };
            Rule::missing_from(name, metric, &by, expected, interval)
        }
        (None, Some(text)) => {
            let query = Query::parse(text).map_err(|mistake| mistake.show(text))?;
            Rule::absent(name, &query, interval).ok_or("`absent` takes a selector, as in up{job=\"api\"}, or absent() of one")?
        }
        _ => return Err("a rule has either `missing_from` or `absent`".into()),
    };
    let rule = Rule { within: config.within, ..rule };
    Watch::new(rule.clone(), UnixNanos(0), missing::MEMBERS_MAX).map(|_| rule)
}

impl Watcher {
    pub fn new(config: &WatchConfig, hub: &Arc<Hub>, [events, samples]: [Arc<Pipe>; 2], stats: Arc<Stats>) -> anyhow::Result<Watcher> {
        let now = env::now();
        let watch = |(name, config): (&String, &WatchRule)| {
            let rule = rule(name, config).map_err(anyhow::Error::msg)?;
            Watch::new(rule, now, config.members_max as usize).map_err(anyhow::Error::msg)
        };
        let watches = config.rules.iter().map(watch).collect::<anyhow::Result<_>>()?;
        Ok(Watcher { watches, hub: Arc::clone(hub), events, samples, stats, ends: Arc::default() })
    }

    /// Reads along until the process ends.
    pub fn run(mut self) {
        let mut watch = self.hub.watch(READ_BYTES_MAX);
        let mut known = Known::default();
        let mut shown = env::now();
        loop {
            let seen = watch.next(TICK);
            if seen.closed || self.ends.load(Ordering::Relaxed) {
                return;
            }
            self.stats.count("missed_rows", seen.missed);
            let now = env::now();
            for frame in &seen.frames {
                known.read(frame, self.samples.stream, &mut self.watches, now);
            }
            let (mut events, mut samples) = (Vec::new(), Vec::new());
            for watch in &mut self.watches {
                let alerts = watch.tick(now);
                self.stats.count("alerts", alerts.len() as u64);
                for alert in &alerts {
                    missing::put_event(&mut events, alert);
                    missing::put_change(&mut samples, alert);
                }
                // A sample now and then, so that its series stays.
                if alerts.is_empty() && now.0 - shown.0 >= watch.rule.interval {
                    missing::put_firing(&mut samples, watch, now);
                }
            }
            if self.watches.iter().any(|watch| now.0 - shown.0 >= watch.rule.interval) {
                shown = now;
            }
            self.push(events, true);
            self.push(samples, false);
        }
    }

    fn push(&self, lines: Vec<u8>, is_event: bool) {
        if lines.is_empty() {
            return;
        }
        let pipe = if is_event { &self.events } else { &self.samples };
        let pushed = self.stats.budget.take(lines.len() as u64).is_some_and(|held| pipe.push(lines, held).is_ok());
        if !pushed {
            self.stats.count("left_out", 1);
        }
    }
}

/// Series by the beginning of their lines: which rules are about them.
#[derive(Default)]
struct Known {
    series: HashMap<Box<[u8]>, Option<Box<About>>>,
    times: TimeParser,
    buffer: Vec<u8>,
}

/// A series that some rule is about.
struct About {
    series: Series,
    rules: Vec<usize>,
}

impl Known {
    /// `own`: the stream of our own samples, which nobody watches.
    fn read(&mut self, frame: &Frame, own: flow::event::StreamId, watches: &mut [Watch], now: UnixNanos) {
        for part in frame.parts.iter().filter(|part| part.signal == Signal::Metrics && part.stream != own) {
            for row in part.rows.clone() {
                let line = frame.rows.row(row as usize);
                let Some(sample) = sample::read(line, &mut self.times, &mut self.buffer) else { continue };
                if !self.series.contains_key(sample.series) {
                    if self.series.len() >= SERIES_MAX {
                        self.series.clear();
                    }
                    self.series.insert(sample.series.into(), about(sample.series, watches).map(Box::new));
                }
                let Some(Some(about)) = self.series.get(sample.series) else { continue };
                let value = sample.value.map_or(0.0, |value| value.double());
                for rule in &about.rules {
                    watches[*rule].sample(&about.series.labels, sample.at, value, now);
                }
            }
        }
    }
}

fn about(part: &[u8], watches: &[Watch]) -> Option<About> {
    let series = Series::of(&sample::Series::parse(part)?);
    let rules: Vec<usize> = (0..watches.len()).filter(|rule| watches[*rule].is_about(&series.labels)).collect();
    (!rules.is_empty()).then_some(About { series, rules })
}
