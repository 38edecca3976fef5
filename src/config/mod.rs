//! Configuration: from pipeline files to configs that can be run, or every mistake at once.
//!
//! In: files and the environment; out: [`Loaded`] pipelines, or a [`Report`] with line, column, caret and way out for each
//! mistake. Nothing but these files and the rate cards they name is read, nothing is written, no port is opened.
//! Read on in this order: `model` (what a file says), `locate` (YAML with places), `read` (tree to struct), `rules` (what
//! only makes sense together), `memory` (floors and ceilings), `change` (what a reload may change), `report` (how mistakes are
//! told), `schemas` (the manual).
//! Bound: [`FILES_MAX`] files of [`locate::TEXT_BYTES_MAX`] each; more is a mistake like others.

pub mod model;

mod locate;
mod read;
mod rules;

mod change;
pub mod library;

pub mod memory;
mod report;
pub mod schemas;

pub use change::{Changes, restart_needed};
pub use model::{AdminConfig, Config, HubConfig, QueryConfig, TelemetryConfig, WhenFull};
pub use report::{Mistake, Report, Warning};
#[cfg(test)]
use rules::template_fields;
pub use rules::{fields_of, redacted_field, sane_name};

use crate::sinks::config::{ArchiveConfig, LakeConfig, SinkConfig};
use flow::step::{MeterConfig, StepConfig};
use flow::units::ByteSize;
use locate::{Env, Found, Path, TEXT_BYTES_MAX, Tree};
use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

pub const FILES_MAX: usize = 64;

/// A pipeline file without mistakes.
#[derive(Clone)]
pub struct Loaded {
    pub path: PathBuf,
    pub name: String,
    pub config: Config,
    /// The file as it was read; its digest tells one config from another.
    pub text: String,
    pub rates: Option<LoadedCard>,
    /// What looks like a slip and stops nothing.
    pub warnings: Vec<Mistake>,
    /// Top-level keys that are written down, not taken by default.
    written: Vec<&'static str>,
}

/// A rate card without mistakes.
#[derive(Clone)]
pub struct LoadedCard {
    pub path: PathBuf,
    pub text: String,
    pub card: bill::Card,
}

/// What the pipelines of one process share.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub data: PathBuf,
    pub memory: ByteSize,
    pub lanes: Option<u32>,
    pub admin: Option<AdminConfig>,
    pub telemetry: Option<TelemetryConfig>,
    pub query: QueryConfig,
}

/// Reads and checks pipeline files.
///
/// `env` looks up variables for `${NAME}`. Returns one entry for each file in the order given, or all mistakes.
pub fn load(files: &[PathBuf], env: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Loaded>, Report> {
    let mut mistakes = Vec::new();
    if files.is_empty() || files.len() > FILES_MAX {
        let message = format!("{} pipeline files; 1 to {FILES_MAX} are run together", files.len());
        mistakes.push(Mistake::of_file("-", message, "name a file, as in pipelines/quickstart.yaml"));
    }
    let mut read: Vec<(Loaded, Tree)> = Vec::new();
    for path in files.iter().take(FILES_MAX) {
        let mut own = Vec::new();
        read.extend(load_file(path, env, &mut own));
        own.sort_by_key(|mistake| (mistake.file != path.display().to_string(), mistake.line, mistake.column));
        own.dedup();
        mistakes.extend(own);
    }
    let mut between = Vec::new();
    check_together(&read, &mut between);
    between.sort_by_key(|mistake| (files.iter().position(|path| path.display().to_string() == mistake.file), mistake.line, mistake.column));
    mistakes.extend(between);
    let loaded: Vec<Loaded> = read.into_iter().map(|(loaded, _)| loaded).collect();
    if mistakes.is_empty() {
        mistakes.extend(check_memory(&loaded));
    }
    if mistakes.is_empty() { Ok(loaded) } else { Err(Report { mistakes }) }
}

/// What a sample of records says about a pipeline: fields that its steps read and that no record has.
pub fn unseen(loaded: &Loaded, names: &std::collections::BTreeSet<String>) -> Vec<Mistake> {
    let mut ignored = Vec::new();
    let tree = Tree::parse(&loaded.path.display().to_string(), &loaded.text, &|name| std::env::var(name).ok(), &mut ignored);
    tree.map(|tree| rules::unseen(&loaded.config, &tree, names)).unwrap_or_default()
}

/// What the pipelines share: written down in one of them, or the default.
pub fn process(loaded: &[Loaded]) -> Process {
    let from = |key| loaded.iter().find(|l| l.written.contains(&key)).or(loaded.first()).map(|l| &l.config);
    let first = |key| from(key).expect("load gives at least one pipeline");
    Process {
        data: first("data").data.clone(),
        memory: first("memory").memory,
        lanes: first("lanes").lanes,
        admin: first("admin").admin.clone(),
        telemetry: first("telemetry").telemetry.clone(),
        query: first("query").query.clone(),
    }
}

/// Lanes to run: as configured, else one for each available core.
pub fn lanes(process: &Process) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    process.lanes.unwrap_or(cores).clamp(1, rules::LANES_MAX)
}

const SHARED: [&str; 6] = ["data", "memory", "lanes", "admin", "telemetry", "query"];

fn load_file(path: &FilePath, env: Env<'_>, mistakes: &mut Vec<Mistake>) -> Option<(Loaded, Tree)> {
    let file = path.display().to_string();
    let text = match read_text(path) {
        Ok(text) => text,
        Err((message, help)) => {
            mistakes.push(Mistake::of_file(&file, message, help));
            return None;
        }
    };
    let tree = Tree::parse(&file, &text, env, mistakes);
    rules::name_layers(mistakes);
    let mut tree = tree?;
    let mut config: Config = read::read(&mut tree, mistakes)?;
    let library = load_parsers(path, &config, &tree, env, mistakes);
    if let Some(tokens) = config.admin.as_mut().and_then(|admin| admin.tokens_file.as_mut()) {
        *tokens = path.parent().unwrap_or(FilePath::new("")).join(&*tokens);
    }
    config.library = library.parsers.into_iter().map(|(definition, _)| definition).collect();
    rules::check(&config, &tree, mistakes);
    let rates = config.rates.as_ref().and_then(|rates| {
        let at = path.parent().unwrap_or(FilePath::new("")).join(rates);
        load_card(&at, &tree, env, mistakes)
    });
    if let Some(rates) = &rates {
        rules::check_currency(&config, &rates.card, &tree, mistakes);
    }
    let stem = path.file_stem().map(|stem| rules::sane_name(&stem.to_string_lossy())).filter(|stem| !stem.is_empty());
    let name = config.name.clone().or(stem).unwrap_or_else(|| "pipeline".into());
    let written = SHARED.into_iter().filter(|key| tree.has_key(key)).collect();
    let mut warnings = rules::warnings(&config, &tree);
    warnings.extend(library.warnings.into_iter().map(|warning| Mistake {
        line: warning.line as usize,
        column: 1,
        ..Mistake::of_file(&warning.file, warning.text, "")
    }));
    Some((Loaded { path: path.into(), name, config, text, rates, warnings, written }, tree))
}

/// Reads the libraries of parsers that a pipeline names. What is wrong inside is a warning; a file that is not there is a mistake.
fn load_parsers(path: &FilePath, config: &Config, tree: &Tree, env: Env<'_>, mistakes: &mut Vec<Mistake>) -> parse::fluent::Library {
    let mut all = parse::fluent::Library::default();
    for (i, file) in config.parser_files.iter().enumerate() {
        let file = path.parent().unwrap_or(FilePath::new("")).join(file);
        match library::read(&file, &env) {
            Ok(read) => library::merge(&mut all, read),
            Err(reason) => {
                let at = Path::default().key("parser_files").index(i);
                if let Found::Node(id) | Found::Above(id) = tree.find(&at) {
                    let rule = "a library lies relative to the folder of the pipeline file";
                    let message = format!("the library {} cannot be read: {reason}; {rule}; name a file that exists", file.display());
                    mistakes.push(tree.mistake(tree.spot(id), at.to_string(), &message));
                }
            }
        }
    }
    all
}

/// Text of a config file; an error is what is wrong and the way out.
fn read_text(path: &FilePath) -> Result<String, (String, String)> {
    let size = std::fs::metadata(path)
        .map_err(|error| (format!("cannot be read: {}", error_text(&error)), "name a file that exists".to_string()))?;
    if size.is_dir() {
        return Err(("is a folder".into(), "name the files in it".into()));
    }
    if size.len() > TEXT_BYTES_MAX as u64 {
        return Err((format!("has {}", ByteSize(size.len())), format!("a config file has at most {}", ByteSize(TEXT_BYTES_MAX as u64))));
    }
    let mut bytes = Vec::new();
    // `take`: a pipe has no size before it is read.
    let file = std::fs::File::open(path).map_err(|error| (format!("cannot be read: {}", error_text(&error)), String::new()))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, TEXT_BYTES_MAX as u64 + 1), &mut bytes)
        .map_err(|error| (format!("cannot be read: {}", error_text(&error)), String::new()))?;
    if bytes.len() > TEXT_BYTES_MAX {
        return Err((format!("has more than {}", ByteSize(TEXT_BYTES_MAX as u64)), "a config file is smaller".into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        (format!("is no text: line {line} holds bytes that are no UTF-8"), "save the file as UTF-8".into())
    })
}

fn error_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// Reads the rate card a pipeline names. Mistakes inside are told in the card, a card that is not there in the pipeline.
fn load_card(path: &FilePath, pipeline: &Tree, env: Env<'_>, mistakes: &mut Vec<Mistake>) -> Option<LoadedCard> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err((message, help)) => {
            if let Found::Node(id) = pipeline.find(&Path::default().key("rates")) {
                let rule = "a rate card lies relative to the folder of the pipeline file";
                let message = format!("the rate card {} {message}; {rule}; {help}", path.display());
                mistakes.push(pipeline.mistake(pipeline.spot(id), "rates".into(), &message));
            }
            return None;
        }
    };
    compile_card(path, text, env, mistakes)
}

/// A rate card by itself, as `--card` names it. `text`: its content, where it was kept; else the file is read.
pub fn card(path: &FilePath, text: Option<String>) -> Result<LoadedCard, Report> {
    let mut mistakes = Vec::new();
    let read = text.map_or_else(|| read_text(path), Ok);
    let loaded = match read {
        Ok(text) => compile_card(path, text, &|_| None, &mut mistakes),
        Err((message, help)) => {
            mistakes.push(Mistake::of_file(&path.display().to_string(), message, help));
            None
        }
    };
    loaded.ok_or(Report { mistakes })
}

/// Reads a file of YAML that is no pipeline, such as one that names targets; JSON is YAML, too.
pub fn read_yaml<T: serde::de::DeserializeOwned>(file: &str, text: &str) -> anyhow::Result<T> {
    let mut mistakes = Vec::new();
    let read = Tree::parse(file, text, &|_| None, &mut mistakes).and_then(|mut tree| read::read(&mut tree, &mut mistakes));
    match (read, mistakes.into_iter().next()) {
        (_, Some(mistake)) => Err(anyhow::anyhow!("{mistake}")),
        (Some(value), None) => Ok(value),
        (None, None) => anyhow::bail!("{file} is empty"),
    }
}

fn compile_card(path: &FilePath, text: String, env: Env<'_>, mistakes: &mut Vec<Mistake>) -> Option<LoadedCard> {
    let before = mistakes.len();
    let mut tree = Tree::parse(&path.display().to_string(), &text, env, mistakes)?;
    let card: bill::CardConfig = read::read(&mut tree, mistakes)?;
    let compiled = bill::Card::compile(&card, text.as_bytes());
    for error in compiled.as_ref().err().into_iter().flatten() {
        if let Found::Node(id) | Found::Above(id) = tree.find_text(&Path::default(), &error.path) {
            let mistake = tree.mistake(tree.spot(id), tree.path_of(id).to_string(), "");
            mistakes.push(Mistake { message: tree.without_secrets(&error.message), help: Some(error.help.clone()), ..mistake });
        }
    }
    match compiled {
        Ok(card) if mistakes.len() == before => Some(LoadedCard { path: path.into(), text, card }),
        _ => None,
    }
}

/// A pipeline's meters in the order of its steps, those of a convention one by one.
pub fn meters(config: &Config) -> Vec<MeterConfig> {
    let steps = config.steps.iter().filter_map(|step| if let StepConfig::Meter(meter) = step { Some(meter) } else { None });
    steps.flat_map(MeterConfig::expand).collect()
}

/// Several files run in one process: they agree on what they share, and the pipelines' names differ.
fn check_together(read: &[(Loaded, Tree)], mistakes: &mut Vec<Mistake>) {
    let mut pipelines: BTreeMap<&str, &FilePath> = BTreeMap::new();
    let mut folders: BTreeMap<&FilePath, &str> = BTreeMap::new();
    let mut lakes: BTreeMap<&str, (&LakeConfig, &str)> = BTreeMap::new();
    for (i, (loaded, tree)) in read.iter().enumerate() {
        let mut add = |path: Path, message: String| {
            if let Found::Node(id) | Found::Above(id) = tree.find(&path) {
                let id = tree.key_of(id);
                mistakes.push(tree.mistake(tree.spot(id), path.to_string(), &message));
            }
        };
        if let Some(first) = pipelines.insert(&loaded.name, &loaded.path) {
            let message = format!(
                "the pipeline `{}` is {} too; names of pipelines differ; write `name: ...` in one of them",
                loaded.name,
                first.display()
            );
            add(Path::default().key("name"), message);
        }
        // Two sinks that append to one folder would cut each other's files at recovery.
        for (name, sink) in &loaded.config.sinks {
            let SinkConfig::Archive(ArchiveConfig { dir: Some(dir), .. }) = sink else { continue };
            if let Some(other) = folders.insert(dir, &loaded.name)
                && other != loaded.name
            {
                let message = format!(
                    "pipeline `{other}` has an archive in `{}` too; each archive owns its folder; choose another, or leave `dir` out",
                    dir.display()
                );
                add(Path::default().key("sinks").key(name).key("archive").key("dir"), message);
            }
        }
        // A lake that sinks share is one: its files, columns and care are not of one sink.
        for (name, sink) in &loaded.config.sinks {
            let SinkConfig::Lake(lake) = sink else { continue };
            let (first, of) = *lakes.entry(&lake.url).or_insert((lake, &loaded.name));
            if let Some(key) = differing_key(lake, first) {
                let message = format!(
                    "pipeline `{of}` has a sink in the lake `{}` with another `{key}`; a lake has one; write it alike, or give one of them another `url`",
                    lake.url
                );
                add(Path::default().key("sinks").key(name).key("lake").key(key), message);
            }
        }
        // All metrics of the process carry all of them.
        for (label, value) in &loaded.config.labels {
            let other = read[..i].iter().find(|(other, _)| other.config.labels.get(label).is_some_and(|own| own != value));
            if let Some((other, _)) = other {
                let message = format!(
                    "the label `{label}` has another value in {}; labels are of the process, on every metric; write it in one file only, or as a label of a source",
                    other.path.display()
                );
                add(Path::default().key("labels").key(label), message);
            }
        }
        for key in loaded.written.iter().copied() {
            let other = read[..i].iter().map(|(other, _)| other).find(|other| other.written.contains(&key));
            let differs = |other: &&Loaded| match key {
                "data" => other.config.data != loaded.config.data,
                "memory" => other.config.memory != loaded.config.memory,
                "lanes" => other.config.lanes != loaded.config.lanes,
                "admin" => other.config.admin != loaded.config.admin,
                "telemetry" => other.config.telemetry != loaded.config.telemetry,
                _ => other.config.query != loaded.config.query,
            };
            if let Some(other) = other.filter(differs) {
                let message = format!(
                    "`{key}` is something else in {}; pipelines of one process share it; write it in one file only",
                    other.path.display()
                );
                add(Path::default().key(key), message);
            }
        }
    }
}

/// The first key by which two sinks into one lake differ, besides what each takes.
fn differing_key(a: &LakeConfig, b: &LakeConfig) -> Option<&'static str> {
    // Every key by name, so that a new one is not forgotten here.
    let LakeConfig { when: _, url: _, index, text, ids, numbers, seal, index_bytes_min, hour_bytes_min, keep, merge } = a;
    let keys = [
        ("index", *index != b.index),
        ("text", *text != b.text),
        ("ids", *ids != b.ids),
        ("numbers", *numbers != b.numbers),
        ("seal", *seal != b.seal),
        ("index_bytes_min", *index_bytes_min != b.index_bytes_min),
        ("hour_bytes_min", *hour_bytes_min != b.hour_bytes_min),
        ("keep", *keep != b.keep),
        ("merge", *merge != b.merge),
    ];
    keys.into_iter().find(|(_, differs)| *differs).map(|(key, _)| key)
}

/// A plan whose floors exceed the budget would be killed by it.
fn check_memory(loaded: &[Loaded]) -> Option<Mistake> {
    let process = process(loaded);
    let configs: Vec<(&str, &Config)> = loaded.iter().map(|l| (l.name.as_str(), &l.config)).collect();
    let needs = memory::needs(&configs, u64::from(lanes(&process)));
    let floor: u64 = needs.iter().map(|need| need.floor_bytes).sum();
    if floor <= process.memory.0 {
        return None;
    }
    let owner = loaded.iter().find(|l| l.written.contains(&"memory")).or(loaded.first())?;
    let largest = needs.iter().max_by_key(|need| need.floor_bytes)?;
    let floor = ByteSize(floor.div_ceil(1 << 20) << 20);
    let rule = format!(
        "the floors of all components add up to {floor}, the largest is {} with {}",
        largest.component,
        ByteSize(largest.floor_bytes)
    );
    let message = format!("is {}; {rule}; write `memory: {floor}` or more, or set fewer `lanes`", process.memory);
    let mut ignored = Vec::new();
    let tree = Tree::parse(&owner.path.display().to_string(), &owner.text, &|_| Some(String::new()), &mut ignored)?;
    match tree.find(&Path::default().key("memory")) {
        Found::Node(id) | Found::Above(id) => Some(tree.mistake(tree.spot(id), "memory".into(), &message)),
        Found::Lost => None,
    }
}

#[cfg(test)]
mod tests;
