//! `weir lineage up|down`: where a thing came from, and what came of it.
//!
//! In: the OpenLineage events of a data folder and the name of a dataset, model, service or report. Out: a tree,
//! or JSON with nodes and edges and the hours in which each edge was seen.

use super::{Mistake, say, search::read_time};
use crate::desk::{self, Question};
use lake::lineage::Graph;
use std::path::Path;
use std::process::ExitCode;

#[derive(Clone, Copy)]
pub enum Direction {
    Up,
    Down,
}

pub fn run(data: &Path, direction: Direction, node: &str, as_of: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let as_of = as_of.map(read_time).transpose()?;
    let mut answer = desk::ask(data, &Question::Lineage)?;
    let mut graph = Graph::default();
    while let Some(line) = answer.line()? {
        graph.add_json(&line);
    }
    let reach = match direction {
        Direction::Up => graph.up(node, as_of),
        Direction::Down => graph.down(node, as_of),
    };
    let reach = reach.map_err(|e| Mistake(e.to_string()))?;
    if json {
        say(&format!("{}\n", serde_json::to_string_pretty(&reach.json())?))?;
    } else {
        say(&reach.tree())?;
    }
    Ok(ExitCode::SUCCESS)
}
