//! SQL over the admin port.
//!
//! In: a statement as the parameter `query`, and the tenant that the answer is confined to. Out: a table as of a search, with decimals and
//! times as texts. Bound: as of all questions, [`ROWS_MAX`] rows, and `query.memory` of text.

use super::answers::bounded;
use super::{Api, Asked, Refusal};
use crate::statement::{Statement, cost, why};
use ::sql::{Format, SqlError};
use serde_json::{Map, Value, json};

use std::ops::ControlFlow;
use std::time::Duration;

const ROWS_MAX: usize = 10_000;

pub fn sql(api: &Api, asked: &Asked, tenant: Option<String>) -> Result<String, Refusal> {
    let rows_max = bounded("limit", asked.limit, ROWS_MAX, ROWS_MAX)?;
    let statement = Statement {
        sql: asked.query.clone(),
        tenant,
        format: Format::JsonArrays,
        rows_max: rows_max as u64,
        memory_bytes: api.config.memory.0,
        read_bytes_max: api.config.read_bytes_max.map(|bytes| bytes.0),
        deadline: Duration::from_nanos(api.config.deadline.0.unsigned_abs()),
    };
    let mut lines = String::new();
    let answer = api.desk.rows(&statement, &mut |text| {
        if (lines.len() + text.len()) as u64 > api.config.memory.0 {
            return ControlFlow::Break(());
        }
        lines.push_str(text);
        ControlFlow::Continue(())
    });
    let stats = answer.map_err(|error| match error {
        SqlError::Mistake(mistake) => Refusal::wrong(mistake.to_string(), mistake.help),
        SqlError::World(error) => Refusal::of(&error),
        error => Refusal::wrong(error.to_string(), ""),
    })?;
    // The first line has the names of the columns.
    let (columns, rows) = lines.split_once('\n').unwrap_or(("[]", ""));
    let rows = rows.trim_end().replace('\n', ",");
    let cost: Map<String, Value> = cost(&stats).into_iter().map(|(name, value)| (name, value.into())).collect();
    let partial = stats.partial.map_or(Value::Null, |partial| json!({ "why": why(partial, &statement) }));
    Ok(format!(
        "{{\"table\":{{\"columns\":{columns},\"rows\":[{rows}]}},\"stats\":{},\"partial\":{partial},\"warnings\":[]}}",
        Value::from(cost)
    ))
}
