//! What is asked of the desk, and how answers look in JSON.
//!
//! In: parameters and the tenant that the answer is confined to. Out: JSON text, or a stream. Times are RFC 3339 or a duration
//! before now, as on the command line; a query line's own `since:` and `until:` narrow them further.

use super::body::Writer;
use super::{Api, Asked, Refusal, Stream};
use crate::cli::search::read_time;
use crate::inquiry::{Inquiry, Limits, cell_json};
use flow::event::StreamId;
use flow::units::Span;
use lake::{Group, HistogramBy, Hit, Partial, PartialWhy, Query, QueryError, Stats, Table};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::warn;

/// Most hits in one answer; `export` gives all.
const LIMIT_MAX: usize = 10_000;
const LIMIT: usize = 100;
const AROUND: usize = 5;
const TOP: usize = 10;
const TOP_MAX: usize = 1_000;
const BUCKETS_MAX: usize = 1_000;
/// How often a stream without news says that it is alive.
const BEAT: Duration = Duration::from_millis(500);

/// The question, as the desk takes it.
fn inquiry(api: &Api, asked: &Asked, tenant: Option<String>, limit: Option<usize>, newest_first: bool) -> Result<Inquiry, Refusal> {
    let query = Query::parse(&asked.query).map_err(|error| wrong_query(&asked.query, &error))?;
    let time = |name: &str, text: &Option<String>| {
        let read = text.as_deref().map(read_time).transpose();
        read.map_err(|error| Refusal::wrong(format!("{name}: {error}"), "write RFC 3339, or a duration before now, as in 15m"))
    };
    let newest_first = match asked.order.as_deref() {
        None => newest_first,
        Some("newest") => true,
        Some("oldest") => false,
        Some(other) => return Err(Refusal::wrong(format!("order is {other:?}"), "it is newest or oldest")),
    };
    let (since, until) = (time("since", &asked.since)?, time("until", &asked.until)?);
    Ok(Inquiry { query, tenant, since, until, limit, newest_first, limits: limits(api) })
}

fn limits(api: &Api) -> Limits {
    Limits {
        deadline: Some(Instant::now() + Duration::from_nanos(api.config.deadline.0.unsigned_abs())),
        read_bytes_max: api.config.read_bytes_max.map(|bytes| bytes.0),
        memory_bytes: usize::try_from(api.config.memory.0).unwrap_or(usize::MAX),
    }
}

/// The error with its caret, and what the best reading of the query would have been asked for.
fn wrong_query(text: &str, error: &QueryError) -> Refusal {
    let (_, errors) = Query::parse_lenient(text);
    let all: Vec<Value> = errors.iter().map(|one| json!({ "message": one.message, "help": one.help, "at": one.at })).collect();
    let mut refusal = Refusal::wrong(error.to_string(), error.help.clone());
    refusal.errors = all;
    refusal
}

pub fn bounded(name: &str, given: Option<usize>, usual: usize, most: usize) -> Result<usize, Refusal> {
    let count = given.unwrap_or(usual);
    if count > most {
        return Err(Refusal::wrong(format!("{name} is {count}"), format!("it is {most} at most")));
    }
    Ok(count)
}

pub fn search(api: &Api, asked: &Asked, tenant: Option<String>) -> Result<String, Refusal> {
    let limit = bounded("limit", asked.limit, LIMIT, LIMIT_MAX)?;
    let inquiry = inquiry(api, asked, tenant, Some(limit), true)?;
    if inquiry.query.makes_table() {
        let (table, stats) = api.desk.table(&inquiry).map_err(|error| Refusal::of(&error))?;
        return Ok(format!("{{\"table\":{},{}}}", table_json(&table), tail_json(&stats, &[])));
    }
    let mut hits = String::new();
    let mut full = None;
    let stats = api.desk.hits(&inquiry, &mut |found| {
        let hit = hit_json(&found.hit, found.is_context);
        if !hits.is_empty() && hits.len() + hit.len() > inquiry.limits.memory_bytes {
            full = Some(Partial { why: PartialWhy::Memory, complete_to: Some(found.hit.time) });
            return ControlFlow::Break(());
        }
        if !hits.is_empty() {
            hits.push(',');
        }
        hits.push_str(&hit);
        ControlFlow::Continue(())
    });
    let mut stats = stats.map_err(|error| Refusal::of(&error))?;
    stats.partial = stats.partial.or(full);
    // A field that nobody has explains an empty answer.
    let unknown = if hits.is_empty() { api.desk.unknown_fields(&inquiry).map_err(|error| Refusal::of(&error))? } else { Vec::new() };
    Ok(format!("{{\"hits\":[{hits}],{}}}", tail_json(&stats, &unknown)))
}

/// Refuses pipes where they would do nothing.
fn no_pipes(query: &Query, why: &str) -> Result<(), Refusal> {
    match query.pipes.is_empty() {
        true => Ok(()),
        false => Err(Refusal::wrong(format!("{why}; it takes no pipes"), "leave out what follows the first |, or ask /api/v1/search")),
    }
}

pub fn histogram(api: &Api, asked: &Asked, tenant: Option<String>) -> Result<String, Refusal> {
    let buckets = asked.buckets.map(|count| bounded("buckets", Some(count), 1, BUCKETS_MAX)).transpose()?;
    let width =
        asked.span.as_deref().map(Span::parse).transpose().map_err(|error| Refusal::wrong(format!("span: {error}"), "write it as 5m"))?;
    let by = match asked.by.as_deref() {
        None => HistogramBy::Nothing,
        Some("level") => HistogramBy::Level,
        Some(name) => HistogramBy::Field(name.to_owned()),
    };
    let inquiry = inquiry(api, asked, tenant, None, true)?;
    no_pipes(&inquiry.query, "a histogram counts records by itself")?;
    let (histogram, stats) = api.desk.histogram(&inquiry, &by, width.map(|span| span.0), buckets).map_err(|error| Refusal::of(&error))?;
    let count = histogram.groups.values().map(Vec::len).max().unwrap_or(0);
    let bucket = |at: usize| {
        let start = flow::units::UnixNanos(histogram.start.0.saturating_add(histogram.width.saturating_mul(at as i64)));
        let (mut counts, mut weights) = (serde_json::Map::new(), serde_json::Map::new());
        let mut bucket = json!({ "start": start.rfc3339() });
        for (group, tallies) in histogram.groups.iter().filter(|(_, tallies)| tallies[at].records > 0) {
            let tally = tallies[at];
            match group {
                Group::Value(text) => {
                    counts.insert(text.clone(), tally.records.into());
                    weights.insert(text.clone(), tally.weight.into());
                }
                // Beside the values, since every name may be one.
                Group::Missing => bucket["missing"] = json!({ "count": tally.records, "weight": tally.weight }),
                Group::Others => bucket["others"] = json!({ "count": tally.records, "weight": tally.weight }),
            }
        }
        bucket["counts"] = counts.into();
        bucket["weights"] = weights.into();
        bucket
    };
    let buckets: Vec<Value> = (0..count).map(bucket).collect();
    Ok(format!("{{\"span_ns\":{},\"buckets\":{},{}}}", histogram.width, Value::from(buckets), tail_json(&stats, &[])))
}

pub fn facets(api: &Api, asked: &Asked, tenant: Option<String>) -> Result<String, Refusal> {
    let top = bounded("top", asked.top, TOP, TOP_MAX)?;
    let fields = asked.fields.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
    let fields: Vec<String> = fields.map(str::to_owned).collect();
    let inquiry = inquiry(api, asked, tenant, None, true)?;
    no_pipes(&inquiry.query, "facets count values by themselves")?;
    let (facets, stats) = api.desk.facets(&inquiry, &fields, top).map_err(|error| Refusal::of(&error))?;
    let facet = |facet: &lake::Facet| {
        let values: Vec<Value> = facet.values.iter().map(|(value, count)| json!({ "value": value, "count": count })).collect();
        json!({ "field": facet.field, "values": values, "distinct": facet.distinct, "missing": facet.missing, "is_capped": facet.is_capped })
    };
    let facets: Vec<Value> = facets.iter().map(facet).collect();
    Ok(format!("{{\"facets\":{},{}}}", Value::from(facets), tail_json(&stats, &[])))
}

pub fn context(api: &Api, asked: &Asked, tenant: Option<String>) -> Result<String, Refusal> {
    let (Some(stream), Some(position)) = (&asked.stream, asked.position) else {
        return Err(Refusal::wrong("stream and position are needed", "each hit has both"));
    };
    let stream = u64::from_str_radix(stream, 16);
    let stream = stream.map_err(|_| Refusal::wrong("stream is no stream of a hit", "it has 16 hexadecimal digits"))?;
    let before = bounded("before", asked.before, AROUND, lake::CONTEXT_MAX)?;
    let after = bounded("after", asked.after, AROUND, lake::CONTEXT_MAX)?;
    let around = api.desk.context(tenant, (StreamId(stream), position), before, after, limits(api));
    let (hits, stats) = around.map_err(|error| Refusal::of(&error))?;
    let hits: Vec<String> = hits.iter().map(|hit| hit_json(hit, hit.position != position)).collect();
    Ok(format!("{{\"hits\":[{}],{}}}", hits.join(","), tail_json(&stats, &[])))
}

pub fn fields(api: &Api, _: &Asked, tenant: Option<String>) -> Result<String, Refusal> {
    let seen = api.desk.field_names(tenant, limits(api)).map_err(|error| Refusal::of(&error))?;
    let fields = api.desk.lake_fields().map_err(|error| Refusal::of(&error))?;
    let answer = json!({ "index": fields.index, "text": fields.text, "ids": fields.ids, "numbers": fields.numbers, "seen": seen });
    Ok(answer.to_string())
}

pub fn export(api: &Arc<Api>, asked: &Asked, tenant: Option<String>) -> Result<Stream, Refusal> {
    let inquiry = inquiry(api, asked, tenant, asked.limit, false)?;
    if inquiry.query.makes_table() {
        return Err(Refusal::wrong("an export has records and no table", "ask /api/v1/search for the table"));
    }
    let api = Arc::clone(api);
    Ok(Box::new(move |out: &mut Writer| {
        let mut gone = Ok(());
        let outcome = api.desk.hits(&inquiry, &mut |found| {
            gone = out.write_all(&found.hit.raw).and_then(|()| out.write_all(b"\n"));
            if gone.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let is_whole = match outcome {
            Ok(stats) => stats.partial.is_none() && gone.is_ok(),
            Err(error) => {
                warn!("an export broke off: {error:#}");
                false
            }
        };
        if !is_whole {
            out.break_off();
        }
        gone
    }))
}

pub fn tail(api: &Arc<Api>, asked: &Asked, tenant: Option<String>) -> Result<Stream, Refusal> {
    let query = Query::parse(&asked.query).map_err(|error| wrong_query(&asked.query, &error))?;
    let limit = query.tail_limit().map_err(|error| Refusal::wrong(error, ""))?;
    let mut left = limit.unwrap_or(usize::MAX);
    let mut follower = api.desk.follower(&query, tenant.as_deref()).map_err(|error| Refusal::of(&error))?;
    Ok(Box::new(move |out: &mut Writer| {
        while left > 0 {
            let mut gone = Ok(());
            let heard = follower.next(BEAT, &mut |hit| {
                gone = writeln!(out, "data: {}\n", hit_json(&hit, false));
                left -= 1;
                if gone.is_ok() && left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            gone?;
            if heard.missed > 0 {
                write!(out, "event: missed\ndata: {}\n\n", heard.missed)?;
            }
            if heard.closed {
                break;
            }
            out.write_all(b":\n\n")?;
            out.flush()?;
        }
        Ok(())
    }))
}

/// A record and what is known of it. A line that is JSON stands there as it was received.
fn hit_json(hit: &Hit, is_context: bool) -> String {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes)).to_string();
    let is_json = std::str::from_utf8(&hit.raw).is_ok() && serde_json::from_slice::<IgnoredAny>(&hit.raw).is_ok();
    let record = match is_json {
        // Between tokens a line may have a carriage return at most; a newline ends an event of a stream.
        true => format!("\"record\":{}", String::from_utf8_lossy(&hit.raw).replace(['\n', '\r'], " ")),
        false => format!("\"text\":{}", text(&hit.raw)),
    };
    let beside = if is_context { "\"is_context\":true," } else { "" };
    format!(
        "{{\"time\":\"{}\",\"level\":\"{}\",\"severity\":{},\"tenant\":{},\"weight\":{},\"stream\":\"{:016x}\",\"position\":{},{beside}{record}}}",
        hit.time.rfc3339(),
        flow::severity::class_name(hit.severity),
        hit.severity,
        text(&hit.tenant),
        hit.weight,
        hit.stream.0,
        hit.position,
    )
}

pub fn table_json(table: &Table) -> String {
    let row = |row: &Vec<lake::Cell>| format!("[{}]", row.iter().map(cell_json).collect::<Vec<_>>().join(","));
    let rows: Vec<String> = table.rows.iter().map(row).collect();
    let note = table.note.as_ref().map_or(String::new(), |note| format!(",\"note\":{}", Value::from(note.as_str())));
    format!("{{\"columns\":{},\"rows\":[{}]{note}}}", Value::from(table.columns.clone()), rows.join(","))
}

/// What every answer ends with: its cost, whether it is whole, and what may be misspelt.
fn tail_json(stats: &Stats, unknown: &[QueryError]) -> String {
    let cost: serde_json::Map<String, Value> = stats.explain().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let partial = stats.partial.map_or(Value::Null, |partial| {
        let mut told = json!({ "why": partial.why.text() });
        if let Some(time) = partial.complete_to {
            told["complete_to"] = time.rfc3339().into();
        }
        told
    });
    let warnings: Vec<Value> = unknown.iter().map(|one| json!({ "message": one.message, "help": one.help, "at": one.at })).collect();
    format!("\"stats\":{},\"partial\":{partial},\"warnings\":{}", Value::from(cost), Value::from(warnings))
}
