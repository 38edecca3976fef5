//! One question about metrics, asked of all lakes of a data folder: a selector of PromQL, or one of the functions around it.
//!
//! In: text, a moment or a stretch of time; out: elements or rows, as lines of JSON. What is not sealed yet is found like everything
//! else: the tail is taken before the snapshot. A file that was merged away in between makes the question start anew, at most
//! [`STARTS_MAX`] times. Bound: [`Question::points_max`] points are held.

use crate::desk::Desk;
use crate::inquiry::{STARTS_MAX, are_outdated};
use flow::units::UnixNanos;
use lake::WantedSeries;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::{Duration, Instant};
use telemetry::sample::put_double;
use telemetry::selector::{Answer, Expr, LOOKBACK, Labels, Query, Row, instant, range};

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    pub query: String,
    /// Only this tenant's series.
    pub tenant: Option<String>,
    /// The moment, or the end of the stretch.
    pub at: i64,
    /// The start of the stretch and the time between two of its points; a step of 0: the points themselves.
    pub since: Option<(i64, i64)>,
    pub points_max: usize,
    pub deadline: Duration,
}

/// A line of the answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// Sorted by name, `__name__` among them.
    pub labels: Labels,
    /// Nanoseconds, and the value as JSON has it: a number or a text such as `NaN`.
    pub points: Vec<(i64, serde_json::Value)>,
}

impl Desk {
    /// The series of the answer; an error that is the asker's mistake is [`lake::Unanswerable`].
    pub fn metrics(&self, question: &Question) -> anyhow::Result<Vec<Line>> {
        let begun = Instant::now();
        let mut query = Query::parse(&question.query).map_err(|mistake| wrong(mistake.show(&question.query)))?;
        let (from, to) = (question.since.map_or(question.at, |(since, _)| since), question.at);
        if let Some((since, 0)) = question.since {
            // The points themselves: what a range in brackets would give.
            match &mut query.expr {
                Expr::Select(selector) if selector.range.is_none() => selector.range = Some(to.saturating_sub(since).max(1)),
                _ => return Err(wrong("only a selector has points of its own; give a step to evaluate this step by step".to_owned())),
            }
        }
        let steps_from = if question.since.is_some_and(|(_, step)| step == 0) { to } else { from };
        let window = query.window(UnixNanos(steps_from), UnixNanos(to), LOOKBACK);
        let is_over = || begun.elapsed() >= question.deadline;
        let mut start = 1;
        let series = loop {
            let lakes = self.whole_lakes()?;
            let tenant = question.tenant.as_ref().map(|tenant| tenant.as_bytes());
            let wanted = WantedSeries { query: &query, tenant, window, points_max: question.points_max, is_over: &is_over };
            match lake::read_series(lakes.iter().map(|lake| (&*lake.snapshot, &*lake.tail)), &wanted) {
                Ok(series) => break series,
                Err(error) if start < STARTS_MAX && error.downcast_ref::<lake::Unanswerable>().is_none() && are_outdated(&lakes)? => {
                    start += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let refused = |refused: telemetry::selector::Refused| wrong(refused.to_string());
        let rows = match question.since {
            Some((since, step)) if step > 0 => range(&query, &series, UnixNanos(since), UnixNanos(to), step, LOOKBACK).map_err(refused)?,
            _ => match instant(&query, &series, UnixNanos(to), LOOKBACK).map_err(refused)? {
                Answer::Matrix(rows) => rows,
                Answer::Vector(elements) => elements
                    .into_iter()
                    .map(|element| {
                        let point = telemetry::selector::Point { at: UnixNanos(to), value: element.value };
                        Row { labels: element.labels, points: vec![point] }
                    })
                    .collect(),
            },
        };
        Ok(rows.into_iter().map(line).collect())
    }

    /// Writes the answer for the one who asked over the socket.
    pub fn write_metrics(&self, question: &Question, out: &mut dyn Write) -> anyhow::Result<()> {
        let lines = self.metrics(question)?;
        writeln!(out, "ok")?;
        for line in lines {
            writeln!(out, "{}", serde_json::to_string(&line).expect("plain data"))?;
        }
        Ok(())
    }
}

fn wrong(text: String) -> anyhow::Error {
    lake::Unanswerable(text).into()
}

fn line(row: Row) -> Line {
    let value = |value: f64| {
        let mut text = Vec::new();
        put_double(&mut text, value);
        serde_json::from_slice(&text).expect("a number or a text")
    };
    Line { labels: row.labels, points: row.points.iter().map(|point| (point.at.0, value(point.value))).collect() }
}
