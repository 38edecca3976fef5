//! Policies that contradict themselves or each other: what they say can never happen, or leaves nothing to the next one.
//!
//! In: the steps of a pipeline. Out: mistakes, with the way out. Only what is plain from the text alone is told; a condition
//! that merely never holds for the records at hand is nobody's mistake.

use super::Rules;
use crate::config::locate::Path;
use flow::condition::Condition;
use flow::step::{FilterConfig, Policy, QuotaConfig, SampleConfig, StepConfig};

impl Rules<'_> {
    pub(super) fn contradictions(&mut self, steps: &[StepConfig], at: &Path) {
        for (n, step) in steps.iter().enumerate() {
            let at = at.index(n);
            match step {
                StepConfig::Drop(filter) => self.constant_filter(&at.key("drop").key("when"), filter, true),
                StepConfig::Keep(filter) => self.constant_filter(&at.key("keep").key("when"), filter, false),
                StepConfig::Sample(sample) => self.constant_sampler(&at.key("sample"), sample),
                StepConfig::Quota(quota) => self.limits_without_effect(&at.key("quota"), quota),
                StepConfig::Meter(meter) if meter.when.as_deref().and_then(always) == Some(false) => {
                    self.at(&at.key("meter").key("when"), "never holds; this meter would count nothing; take the contradiction out");
                }
                _ => {}
            }
        }
    }

    fn constant_filter(&mut self, at: &Path, filter: &FilterConfig, drops: bool) {
        let Some(holds) = always(&filter.when) else { return };
        let says = if holds { "always holds" } else { "never holds" };
        if holds == drops {
            let rule = "every record would be dropped, and nothing behind this step would see one";
            self.at(at, format!("{says}; {rule}; name the records that are to go"));
        } else {
            self.at(at, format!("{says}; no record would be dropped by this step; name the records that are to go, or take the step out"));
        }
    }

    fn constant_sampler(&mut self, at: &Path, sample: &SampleConfig) {
        let levels = sample.levels.entries().into_iter().filter_map(|(level, policy)| Some((at.key("levels").key(level), policy?)));
        for (at, policy) in levels.chain([(at.key("other"), &sample.other)]) {
            match policy {
                Policy::First { first: 0, thereafter: 0, .. } => {
                    self.at(&at.key("first"), "is 0, and so is `thereafter`; no record would be kept; to keep nothing, write none");
                }
                Policy::When { when, .. } => match always(when) {
                    Some(false) => self.at(&at.key("when"), "never holds; no record would be kept; to keep nothing, write none"),
                    Some(true) => self.at(&at.key("when"), "always holds; every record would be kept; to keep everything, write all"),
                    None => {}
                },
                _ => {}
            }
        }
    }

    /// A limit that another one of a longer period never lets anybody reach.
    fn limits_without_effect(&mut self, at: &Path, quota: &QuotaConfig) {
        let limits = quota.limits();
        for (n, (name, unit, _, amount)) in limits.iter().enumerate() {
            // From the shortest period to the longest.
            let longer = limits[n + 1..].iter().find(|other| other.1 == *unit && other.3 < *amount);
            if let Some((other, ..)) = longer.filter(|other| other.3 > 0) {
                let rule = "nobody ever comes to this limit, as the longer period's is used up before";
                self.at(&at.key(name), format!("allows more than {other}; {rule}; make it smaller than that, or take it out"));
            }
        }
    }
}

/// What a condition says of every record, if that is plain.
fn always(text: &str) -> Option<bool> {
    let mut fields: Vec<String> = Vec::new();
    let mut number = |field: &str| match fields.iter().position(|f| f == field) {
        Some(number) => number,
        None => {
            fields.push(field.to_string());
            fields.len() - 1
        }
    };
    Condition::parse(text, &mut number).ok()?.always() // what is no condition is told elsewhere
}
