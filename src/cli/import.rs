//! `weir import`: pipelines from what others wrote.
//!
//! - `fluent-bit PATH`: a library of parsers, a main configuration, or a folder with both. Out: a report of every parser (which engine
//!   runs it, what was rewritten, why it is refused) and of every key (taken over, or without an equivalent), and pipeline files.
//! - `fluent-bit --compare LINES PATH`: which fields each parser finds in captured lines; writes nothing.
//! - `sample FILE`: which parsers fit sample lines, with a score for each, and a pipeline with the best of them.
//!
//! Exit 0 even where something has no equivalent, as the report says it; 2 where nothing could be read.

use super::lines::each_line;
use super::{Mistake, say, table};
use crate::config::library;
use crate::config::model::{PARSERS, built_in};
use crate::import::fluent_bit::{Finding, Import, Pipeline, Weight, import};
use crate::import::to_yaml;
use anyhow::Context;
use parse::definition::{Definition, Format};
use parse::fluent::{Library, Place, Section};
use parse::parser::{Outcome, Parser, Scratch};
use parse::pattern::{Engine, Pattern};
use parse::sample;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Lines of a sample that are looked at.
const SAMPLE_LINES_MAX: usize = 1_000;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Parsers and a main configuration of Fluent Bit, classic or YAML.
    FluentBit {
        /// A file, or a folder with them.
        path: PathBuf,
        /// Show which fields each parser finds in the lines of this file, and write nothing.
        #[arg(long)]
        compare: Option<PathBuf>,
        /// The pipeline file to write.
        #[arg(long, default_value = "fluent-bit.yaml")]
        out: PathBuf,
        /// Write over a file that is there.
        #[arg(long)]
        force: bool,
        #[arg(long)]
        json: bool,
    },
    /// Lines of a log of which nobody knows the format.
    Sample {
        /// Lines, also .gz and .zst; `-` is standard input.
        file: PathBuf,
        /// Libraries of parsers to try as well.
        #[arg(long)]
        parsers: Vec<PathBuf>,
        /// The pipeline file to write. Default: it is printed.
        #[arg(long)]
        out: Option<PathBuf>,
        #[arg(long)]
        force: bool,
        #[arg(long)]
        json: bool,
    },
}

pub fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::FluentBit { path, compare, out, force, json } => {
            let found = gather(path)?;
            match compare {
                Some(lines) => compare_parsers(&found.library, lines, *json),
                None => fluent_bit(path, &found, out, *force, *json),
            }
        }
        Verb::Sample { file, parsers, out, force, json } => from_sample(file, parsers, out.as_deref(), *force, *json),
    }
}

/// What lies at a path.
struct Gathered {
    library: Library,
    /// Every definition, also those of a name that was defined before.
    all: Vec<(Definition, Place)>,
    /// Files that define parsers.
    parser_files: Vec<PathBuf>,
    sections: Vec<Section>,
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn gather(path: &Path) -> anyhow::Result<Gathered> {
    let files = files(path)?;
    let mut found = Gathered { library: Library::default(), all: Vec::new(), parser_files: Vec::new(), sections: Vec::new() };
    let mut included: BTreeSet<String> = BTreeSet::new();
    let mut mains: Vec<(PathBuf, Vec<Section>)> = Vec::new();
    let mut all = Vec::new();
    for file in files {
        let refused = |reason: String| Mistake(format!("{}: {reason}", file.display()));
        let (sections, warnings) = library::sections(&file, &env).map_err(refused)?;
        all.push((file, sections, warnings));
    }
    // Of parsers of one name the first counts: those of files that the configuration names go before the others, and those of files
    // that Fluent Bit would refuse come last.
    let named: Vec<String> = all.iter().flat_map(|(_, sections, _)| parsers_files(sections)).map(|(name, _)| name).collect();
    let place = |file: &Path| named.iter().position(|name| file.ends_with(name)).unwrap_or(named.len());
    all.sort_by_key(|(file, _, warnings)| (place(file), !warnings.is_empty()));
    for (file, sections, warnings) in all {
        let refused = |reason: String| Mistake(format!("{}: {reason}", file.display()));
        let file = &file;
        let own = file.display().to_string();
        included.extend(sections.iter().map(|section| section.file.clone()).filter(|file| *file != own));
        if sections.iter().any(|section| matches!(section.kind.as_str(), "parser" | "multiline_parser")) {
            let own = library::read(file, &env).map_err(refused)?;
            found.all.extend(own.parsers.iter().cloned());
            library::merge(&mut found.library, own);
            found.parser_files.push(file.clone());
        } else {
            found.library.warnings.extend(warnings);
        }
        if sections.iter().any(|section| matches!(section.kind.as_str(), "input" | "filter" | "output" | "service")) {
            mains.push((file.clone(), sections));
        }
    }
    // A file that another includes is read with it.
    for (file, sections) in mains {
        if !included.contains(&file.display().to_string()) {
            load_named(&file, &sections, &mut found)?;
            found.sections.extend(sections);
        }
    }
    if found.parser_files.is_empty() && found.sections.is_empty() {
        let rule = "a parser library has [PARSER] sections or `parsers:`, a main configuration [INPUT] or `pipeline:`";
        return Err(Mistake(format!("{}: no configuration of Fluent Bit was found; {rule}", path.display())).into());
    }
    Ok(found)
}

/// Names of libraries in a main configuration, and their lines.
fn parsers_files(sections: &[Section]) -> Vec<(String, u32)> {
    let service = sections.iter().filter(|section| section.kind == "service").flat_map(|section| &section.entries);
    let named = service.filter(|entry| entry.key.eq_ignore_ascii_case("parsers_file"));
    named.map(|entry| (entry.value.clone(), entry.line)).collect()
}

/// Libraries that a main configuration names (`Parsers_File`).
fn load_named(main: &Path, sections: &[Section], found: &mut Gathered) -> anyhow::Result<()> {
    for (name, line) in parsers_files(sections) {
        let path = main.parent().unwrap_or(Path::new("")).join(name);
        if found.parser_files.iter().any(|known| known.canonicalize().ok() == path.canonicalize().ok() && path.exists()) {
            continue;
        }
        match library::read(&path, &env) {
            Ok(library) => {
                found.all.extend(library.parsers.iter().cloned());
                library::merge(&mut found.library, library);
                found.parser_files.push(path);
            }
            Err(reason) => found.library.warnings.push(parse::fluent::Warning {
                file: main.display().to_string(),
                line,
                text: format!("{}: {reason}", path.display()),
                left_out: true,
            }),
        }
    }
    Ok(())
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let file = entry?.path();
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if file.is_file() && matches!(ending, "conf" | "yaml" | "yml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn fluent_bit(path: &Path, found: &Gathered, out: &Path, force: bool, json: bool) -> anyhow::Result<ExitCode> {
    let base = out.parent().unwrap_or(Path::new(""));
    let parser_files: Vec<String> = found.parser_files.iter().map(|file| relative(file, base)).collect();
    let stem = out.file_stem().map_or_else(|| "fluent-bit".into(), |stem| stem.to_string_lossy().into_owned());
    let mut import_of = Import { library: &found.library, findings: Vec::new() };
    let pipelines = if found.sections.iter().any(|section| section.kind == "input") {
        import(&found.sections, &parser_files, &crate::config::sane_name(&stem), &mut import_of)
    } else {
        vec![try_all(&found.library, &parser_files, &stem)]
    };
    let findings = import_of.findings;
    let reports: Vec<Report> = found.all.iter().map(|(definition, place)| report(definition, &place.file, place.line)).collect();
    let mut written = Vec::new();
    for pipeline in &pipelines {
        let file = out.with_file_name(format!("{}.yaml", pipeline.name));
        write(&file, &text(path, pipeline, &findings), force)?;
        written.push(file);
    }
    if json {
        say(&format!("{}\n", as_json(found, &reports, &findings, &written)))?;
    } else {
        say(&as_text(found, &reports, &findings, &written))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A library alone: a pipeline that tries all its parsers on standard input.
fn try_all(library: &Library, parser_files: &[String], stem: &str) -> Pipeline {
    let names: Vec<&str> = library.parsers.iter().filter(|(p, _)| Parser::new(p).is_ok()).map(|(p, _)| p.name.as_str()).collect();
    let config = json!({
        "name": stem,
        "parser_files": parser_files,
        "sources": { "in": { "stdin": { "format": "text", "parse": [{ "with": names }] } } },
        "sinks": { "out": { "stdout": {} } },
    });
    Pipeline { name: stem.to_string(), config }
}

/// A path as a file in `base` names it.
fn relative(file: &Path, base: &Path) -> String {
    // An empty path is the working directory.
    let absolute = |path: &Path| std::path::absolute(Path::new(".").join(path)).unwrap_or_else(|_| path.to_path_buf());
    let (file, base) = (absolute(file), absolute(base));
    match file.strip_prefix(&base) {
        Ok(inside) => inside.display().to_string(),
        Err(_) => file.display().to_string(),
    }
}

fn text(path: &Path, pipeline: &Pipeline, findings: &[Finding]) -> String {
    let mut out = format!("# Made from {} by `weir import fluent-bit`.\n", path.display());
    let missing: Vec<&Finding> = findings.iter().filter(|finding| finding.weight == Weight::Missing).collect();
    if !missing.is_empty() {
        out.push_str("#\n# Without an equivalent:\n");
        missing.iter().for_each(|finding| out.push_str(&format!("# - {}:{}: {}\n", finding.file, finding.line, finding.text)));
    }
    out + &to_yaml(&pipeline.config, 0)
}

fn write(file: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    if file.exists() && !force {
        let help = "name another with --out, or write over it with --force";
        return Err(Mistake(format!("{} is there already; {help}", file.display())).into());
    }
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// What became of a parser.
struct Report {
    name: String,
    file: String,
    line: u32,
    format: &'static str,
    engine: &'static str,
    rewrites: Vec<&'static str>,
    refused: Option<String>,
}

fn report(definition: &Definition, file: &str, line: u32) -> Report {
    let (format, pattern) = match &definition.format {
        Format::Regex(pattern) => ("regex", Pattern::new(pattern).ok()),
        Format::Json => ("json", None),
        Format::Logfmt { .. } => ("logfmt", None),
        Format::Ltsv => ("ltsv", None),
        _ => ("other", None),
    };
    let (engine, rewrites) = match &pattern {
        Some(pattern) if pattern.report().engine == Engine::Backtracking => ("backtracking", pattern.report().rewrites.clone()),
        Some(pattern) => ("linear", pattern.report().rewrites.clone()),
        None => ("own", Vec::new()),
    };
    let refused = Parser::new(definition).err().map(|refusal| refusal.reason);
    Report { name: definition.name.clone(), file: file.into(), line, format, engine, rewrites, refused }
}

fn as_text(found: &Gathered, reports: &[Report], findings: &[Finding], written: &[PathBuf]) -> String {
    let mut rows = vec![["parser", "format", "engine", "rewritten", "where"].map(String::from).to_vec()];
    for report in reports {
        let engine = if report.refused.is_some() { "REFUSED" } else { report.engine };
        let rewrites = if report.rewrites.is_empty() { "-".to_string() } else { report.rewrites.join(", ") };
        let place = format!("{}:{}", report.file, report.line);
        rows.push(vec![report.name.clone(), report.format.into(), engine.into(), rewrites, place]);
    }
    let mut out = table(&rows, 5);
    for report in reports.iter().filter(|report| report.refused.is_some()) {
        out.push_str(&format!("refused: {}: {}\n", report.name, report.refused.as_deref().unwrap_or_default()));
    }
    for multiline in &found.library.multiline {
        out.push_str(&format!("multiline parser {} ({}:{})\n", multiline.name, multiline.place.file, multiline.place.line));
    }
    let usable = reports.iter().filter(|report| report.refused.is_none()).count();
    let (patterns, usable_patterns) = patterns(found, reports);
    out.push_str(&format!("{usable} of {} parsers are usable, {usable_patterns} of {patterns} patterns\n", reports.len()));
    for warning in &found.library.warnings {
        out.push_str(&format!("warning: {}:{}: {}\n", warning.file, warning.line, warning.text));
    }
    for finding in findings {
        let word = if finding.weight == Weight::Missing { "missing" } else { "note" };
        out.push_str(&format!("{word}: {}:{}: {}\n", finding.file, finding.line, finding.text));
    }
    written.iter().for_each(|file| out.push_str(&format!("wrote {}; try `weir check {0}`\n", file.display())));
    out
}

/// Patterns of parsers and of multiline rules, and how many of them are usable.
fn patterns(found: &Gathered, reports: &[Report]) -> (usize, usize) {
    let parsers = reports.iter().filter(|report| report.format == "regex");
    let rules = found.library.multiline.iter().flat_map(|multiline| match &multiline.kind {
        parse::fluent::MultilineKind::Regex(rules) => rules.iter().map(|rule| rule.pattern.as_str()).collect(),
        _ => Vec::new(),
    });
    let rules: Vec<bool> = rules.map(|pattern| Pattern::new(pattern).is_ok()).collect();
    let usable = parsers.clone().filter(|report| report.refused.is_none()).count() + rules.iter().filter(|usable| **usable).count();
    (parsers.count() + rules.len(), usable)
}

fn as_json(found: &Gathered, reports: &[Report], findings: &[Finding], written: &[PathBuf]) -> Value {
    let parser = |report: &Report| {
        json!({
            "name": report.name, "file": report.file, "line": report.line, "format": report.format, "engine": report.engine,
            "rewrites": report.rewrites, "refused": report.refused,
        })
    };
    let finding = |finding: &Finding| {
        let kind = if finding.weight == Weight::Missing { "missing" } else { "note" };
        json!({ "kind": kind, "file": finding.file, "line": finding.line, "text": finding.text })
    };
    let warning = |warning: &parse::fluent::Warning| json!({ "file": warning.file, "line": warning.line, "text": warning.text });
    let (patterns, usable) = patterns(found, reports);
    json!({
        "parsers": reports.iter().map(parser).collect::<Vec<_>>(),
        "patterns": patterns,
        "patterns_usable": usable,
        "warnings": found.library.warnings.iter().map(warning).collect::<Vec<_>>(),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "written": written.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
    })
}

/// What each parser makes of each line that it matches.
fn compare_parsers(library: &Library, lines: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let parsers: Vec<Parser> = library.parsers.iter().filter_map(|(definition, _)| Parser::new(definition).ok()).collect();
    let mut scratch = Scratch::default();
    let mut matched: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut number, mut unmatched) = (0u64, 0u64);
    let now = crate::env::now().0;
    each_line(lines, &mut |line| {
        number += 1;
        let mut rows = Vec::new();
        for parser in &parsers {
            let mut record = Vec::new();
            let outcome = parser.parse(line, now, &mut scratch, &mut record);
            if let Outcome::Parsed { time_ns } = outcome {
                *matched.entry(parser.name()).or_default() += 1;
                rows.push((parser.name(), String::from_utf8_lossy(&record).into_owned(), time_ns));
            }
        }
        unmatched += u64::from(rows.is_empty());
        if json {
            let found: Vec<Value> = rows
                .iter()
                .map(|(name, record, time)| {
                    let record = serde_json::from_str(record).unwrap_or(Value::Null);
                    json!({ "parser": name, "fields": record, "time": time.map(|time| flow::units::UnixNanos(time).rfc3339()) })
                })
                .collect();
            say(&format!("{}\n", json!({ "line": number, "text": String::from_utf8_lossy(line), "parsers": found })))?;
        } else {
            say(&format!("{number}: {}\n", String::from_utf8_lossy(line)))?;
            for (name, record, time) in &rows {
                let time = time.map_or("no time".to_string(), |time| flow::units::UnixNanos(time).rfc3339());
                say(&format!("    {name} ({time}): {record}\n"))?;
            }
            if rows.is_empty() {
                say("    no parser matches\n")?;
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !json {
        for (name, count) in matched {
            say(&format!("{name} matches {count} of {number} lines\n"))?;
        }
        say(&format!("{unmatched} of {number} lines are matched by no parser\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Parsers of systems that are proposed as well, defined in the file itself.
const SYSTEMS: &str = include_str!("../../pipelines/parsers/systems.conf");
/// Most parsers of a proposal.
const PROPOSED_MAX: usize = 4;

/// A parser that a sample is tried with.
struct Candidate {
    definition: Definition,
    parser: Parser,
    origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It needs no definition.
    BuiltIn,
    /// The proposal says what it is.
    Systems,
    /// A library defines it.
    Library,
}

fn candidates(libraries: &[PathBuf]) -> anyhow::Result<Vec<Candidate>> {
    let none = parse::fluent::Sources { load: &|_, _| Err("nothing is included".into()), env: &|_| None };
    let systems = parse::fluent::library("systems.conf", SYSTEMS, &none);
    let mut own = Library::default();
    for path in libraries {
        let refused = |reason: String| Mistake(format!("{}: {reason}", path.display()));
        library::merge(&mut own, library::read(path, &env).map_err(refused)?);
    }
    let built_in = PARSERS.iter().filter_map(|name| built_in(name)).map(|definition| (definition, Origin::BuiltIn));
    let of_systems = systems.parsers.into_iter().map(|(definition, _)| (definition, Origin::Systems));
    let of_libraries = own.parsers.into_iter().map(|(definition, _)| (definition, Origin::Library));
    let compiled = of_libraries.chain(built_in).chain(of_systems).filter_map(|(definition, origin)| {
        let parser = Parser::new(&definition).ok()?;
        Some(Candidate { definition, parser, origin })
    });
    Ok(compiled.collect())
}

fn from_sample(file: &Path, libraries: &[PathBuf], out: Option<&Path>, force: bool, json: bool) -> anyhow::Result<ExitCode> {
    let candidates = candidates(libraries)?;
    let mut lines: Vec<Vec<u8>> = Vec::new();
    each_line(file, &mut |line| {
        if !line.is_empty() {
            lines.push(line.to_vec());
        }
        Ok(if lines.len() < SAMPLE_LINES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    if lines.is_empty() {
        return Err(Mistake(format!("{} has no lines; a parser is chosen by what it makes of them", file.display())).into());
    }
    let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    let parsers: Vec<&Parser> = candidates.iter().map(|candidate| &candidate.parser).collect();
    let now = crate::env::now().0;
    let scores = sample::score(&lines, &parsers, now);
    let chosen = choose(&lines, &parsers, now);
    let pipeline = proposal(file, libraries, out, &chosen.iter().map(|n| &candidates[*n]).collect::<Vec<_>>());
    let share = |count: usize| 100.0 * count as f64 / lines.len() as f64;
    if json {
        let score = |score: &sample::Score| {
            let fields = score.fields as f64 / score.matched as f64;
            json!({ "parser": score.name, "lines": score.matched, "share": share(score.matched), "timed": score.timed, "fields": fields })
        };
        let convention = sample::convention(&lines).map(|(name, _)| name);
        let scores: Vec<Value> = scores.iter().map(score).collect();
        say(&format!("{}\n", json!({ "lines": lines.len(), "convention": convention, "scores": scores, "pipeline": pipeline })))?;
    } else {
        let mut rows = vec![["parser", "lines %", "with time %", "fields"].map(String::from).to_vec()];
        for score in &scores {
            let fields = format!("{:.1}", score.fields as f64 / score.matched as f64);
            rows.push(vec![score.name.clone(), format!("{:.1}", share(score.matched)), format!("{:.1}", share(score.timed)), fields]);
        }
        say(&format!("{} lines\n{}", lines.len(), table(&rows, 1)))?;
        if let Some((name, count)) = sample::convention(&lines) {
            say(&format!("{:.1} % of them are JSON as {name} writes it\n", share(count)))?;
        }
    }
    let text = format!("# Proposed from {} by `weir import sample`.\n{}", file.display(), to_yaml(&pipeline, 0));
    match out {
        Some(out) => {
            write(out, &text, force)?;
            if !json {
                say(&format!("wrote {}; try `weir check {0}`\n", out.display()))?;
            }
        }
        None if !json => say(&format!("\n{text}"))?,
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The best parser, then the best for the lines that are left, as long as it reads a part of them worth the name.
fn choose(lines: &[&[u8]], parsers: &[&Parser], now: i64) -> Vec<usize> {
    let (mut left, mut chosen) = (lines.to_vec(), Vec::new());
    while chosen.len() < PROPOSED_MAX {
        let Some(best) = sample::score(&left, parsers, now).into_iter().find(|score| score.vague * 2 < score.matched) else { break };
        if best.matched * 100 < lines.len() {
            break;
        }
        let mut scratch = Scratch::default();
        let reads = |line: &[u8], scratch: &mut Scratch| parsers[best.candidate].parse(line, now, scratch, &mut Vec::new());
        left.retain(|line| !matches!(reads(line, &mut scratch), Outcome::Parsed { .. }));
        chosen.push(best.candidate);
    }
    chosen
}

/// A definition as people write it.
fn without_defaults(definition: &Definition) -> Value {
    let mut written = json!(definition);
    let default = json!(Definition::new("", definition.format.clone()));
    let members = written.as_object_mut().expect("a definition is an object");
    members.retain(|name, value| name == "format" || default.get(name) != Some(value));
    if let Some(time) = members.get_mut("time").and_then(Value::as_object_mut) {
        time.retain(|name, value| default["time"].get(name) != Some(value));
    }
    written
}

fn proposal(file: &Path, libraries: &[PathBuf], out: Option<&Path>, chosen: &[&Candidate]) -> Value {
    let base = out.and_then(Path::parent).unwrap_or(Path::new(""));
    let mut pipeline = serde_json::Map::new();
    let defined: serde_json::Map<String, Value> = chosen
        .iter()
        .filter(|candidate| candidate.origin == Origin::Systems)
        .map(|candidate| (candidate.definition.name.clone(), without_defaults(&candidate.definition)))
        .collect();
    if !defined.is_empty() {
        pipeline.insert("parsers".into(), Value::Object(defined));
    }
    if chosen.iter().any(|candidate| candidate.origin == Origin::Library) {
        pipeline.insert("parser_files".into(), json!(libraries.iter().map(|path| relative(path, base)).collect::<Vec<_>>()));
    }
    let names: Vec<&str> = chosen.iter().map(|candidate| candidate.definition.name.as_str()).collect();
    let mut source = match names.as_slice() {
        ["json"] => json!({ "format": "json" }),
        ["cri" | "docker"] => json!({ "format": names[0] }),
        [] => json!({ "format": "text" }),
        _ => json!({ "format": "text", "parse": [{ "with": names }] }),
    };
    let kind = if file.as_os_str() == "-" { "stdin" } else { "file" };
    if kind == "file" {
        // Files are read relative to the working directory, as they were named.
        source["include"] = json!([file.display().to_string()]);
    }
    pipeline.insert("sources".into(), json!({ "in": { kind: source } }));
    pipeline.insert("sinks".into(), json!({ "out": { "stdout": {} } }));
    Value::Object(pipeline)
}
