//! `weir reload`: a running weir reads its pipeline files again.
//!
//! In: its data folder. Out: what changed, step by step, or every mistake with line and caret. Exit 0 where the files are in
//! force, 2 where they are wrong or need a restart, 1 where nobody runs or the world failed; then nothing was changed.

use crate::cli::say;
use crate::desk::{self, Question};
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

pub fn run(data: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let text = desk::ask_running(data, &Question::Reload)?.line()?.context("the answer is empty")?;
    let answer: Value = serde_json::from_str(&text)?;
    if json {
        say(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?;
    }
    let told = answer["text"].as_str().unwrap_or_default();
    match answer["result"].as_str() {
        Some("changed" | "unchanged") if json => Ok(ExitCode::SUCCESS),
        Some("changed" | "unchanged") => say(&show(&answer)).map(|()| ExitCode::SUCCESS),
        Some("refused") => {
            if !json {
                let count = answer["mistakes"].as_array().map_or(0, Vec::len);
                let mistakes = if count == 1 { "mistake" } else { "mistakes" };
                eprintln!("{told}\n{count} {mistakes}; nothing was changed");
            }
            Ok(ExitCode::from(2))
        }
        _ => bail!("{told}; nothing was changed"),
    }
}

fn show(answer: &Value) -> String {
    let generation = &answer["generation"];
    if answer["result"] == "unchanged" {
        return format!("nothing changed: the files say what runs (generation {generation})\n");
    }
    let mut out = format!("reloaded: generation {generation}\n");
    for (pipeline, changes) in answer["pipelines"].as_object().into_iter().flatten() {
        let texts = |key: &str| changes[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from);
        let moved = changes["moved"].as_array().into_iter().flatten();
        let moved = moved.map(|m| format!("{} goes on as {}", m[0].as_str().unwrap_or_default(), m[1].as_str().unwrap_or_default()));
        let lines = texts("new").map(|step| format!("{step} is new"));
        let lines = lines.chain(texts("changed").map(|step| format!("{step} changed and starts anew")));
        let lines = lines.chain(texts("gone").map(|step| format!("{step} is gone"))).chain(moved);
        let lines = lines.chain(texts("keys").map(|key| format!("{key} changed")));
        lines.for_each(|line| out.push_str(&format!("  {pipeline}: {line}\n")));
    }
    if answer["settled"] != true {
        out.push_str("  a lane waits for room in its hub, and goes over to the new config then\n");
    }
    out
}
