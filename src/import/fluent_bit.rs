//! A main configuration of Fluent Bit becomes pipeline files.
//!
//! In: its sections, in order, and the library of parsers they name. Out: one pipeline for each group of inputs that the same filters
//! and outputs match (usually one), and what became of every key: taken over, meant differently here, or without an equivalent, by
//! file and line. Nothing is left out in silence.

use super::filters;
use super::outputs;
use parse::fluent::{Library, MultilineDefinition, MultilineKind, MultilineRule, Section};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What was found out about one key or section.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub file: String,
    pub line: u32,
    pub weight: Weight,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Here it is done otherwise, and nothing has to be said.
    Note,
    /// It has no equivalent, and something is missing.
    Missing,
}

/// A pipeline file to write.
pub struct Pipeline {
    /// Its name, and that of its file without ending.
    pub name: String,
    pub config: Value,
}

/// What an import gathers.
pub struct Import<'a> {
    pub library: &'a Library,
    pub findings: Vec<Finding>,
}

/// The member that holds a line that no parser has read.
pub const RAW: &str = "log";
/// The parser that makes `{"log":"..."}` of any line.
const LINE: &str = "line";

impl Import<'_> {
    pub fn note(&mut self, section: &Section, line: u32, text: impl Into<String>) {
        self.find(section, line, Weight::Note, text);
    }

    pub fn missing(&mut self, section: &Section, line: u32, text: impl Into<String>) {
        self.find(section, line, Weight::Missing, text);
    }

    fn find(&mut self, section: &Section, line: u32, weight: Weight, text: impl Into<String>) {
        self.findings.push(Finding { file: section.file.clone(), line, weight, text: text.into() });
    }
}

/// The keys of a section, each asked for at most once; what nobody asked for has no equivalent.
pub struct Keys<'a> {
    pub section: &'a Section,
    used: Vec<bool>,
}

impl<'a> Keys<'a> {
    pub fn new(section: &'a Section) -> Keys<'a> {
        let mut keys = Keys { section, used: vec![false; section.entries.len()] };
        ["name", "match", "match_regex", "tag", "alias"].iter().for_each(|key| drop(keys.all(key)));
        keys
    }

    /// The last value of a key.
    pub fn take(&mut self, key: &str) -> Option<(&'a str, u32)> {
        self.all(key).pop()
    }

    /// All values of a key, in order.
    pub fn all(&mut self, key: &str) -> Vec<(&'a str, u32)> {
        let mut found = Vec::new();
        for (used, entry) in self.used.iter_mut().zip(&self.section.entries) {
            if entry.key.eq_ignore_ascii_case(key) {
                *used = true;
                found.push((entry.value.as_str(), entry.line));
            }
        }
        found
    }

    pub fn is_on(&mut self, key: &str) -> Option<bool> {
        self.take(key).map(|(value, _)| is_on(value))
    }

    /// Keys that change nothing here: `why` says so.
    pub fn pass(&mut self, import: &mut Import, keys: &[&str], why: &str) {
        for key in keys {
            for (_, line) in self.all(key) {
                import.note(self.section, line, format!("{key}: {why}"));
            }
        }
    }

    /// Names what nobody asked for.
    pub fn finish(self, import: &mut Import) {
        let plugin = name_of(self.section).unwrap_or_default().to_string();
        for (_, entry) in self.used.iter().zip(&self.section.entries).filter(|(used, _)| !**used) {
            let name = if plugin.is_empty() { &self.section.kind } else { &plugin };
            import.missing(self.section, entry.line, format!("{name}: {} {}: no equivalent", entry.key, entry.value));
        }
    }
}

pub fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1")
}

pub fn name_of(section: &Section) -> Option<&str> {
    value_of(section, "name")
}

fn value_of<'a>(section: &'a Section, key: &str) -> Option<&'a str> {
    section.entries.iter().rev().find(|entry| entry.key.eq_ignore_ascii_case(key)).map(|entry| entry.value.as_str())
}

/// One input, as a source.
struct Input {
    name: String,
    kind: &'static str,
    tag: String,
    source: Map<String, Value>,
    /// The lines are in the member `log`, or what the input's parsers made.
    is_raw: bool,
}

/// Makes pipelines. `parser_files`: paths of the libraries, as the pipeline file names them; `stem`: name of the first pipeline.
pub fn import(sections: &[Section], parser_files: &[String], stem: &str, import: &mut Import) -> Vec<Pipeline> {
    let of_kind = |kind: &str| sections.iter().filter(|section| section.kind.eq_ignore_ascii_case(kind)).collect::<Vec<_>>();
    for section in of_kind("service") {
        service(section, import);
    }
    let mut inputs: Vec<Input> = Vec::new();
    for section in of_kind("input") {
        let number = inputs.len();
        inputs.extend(input(section, number, import));
    }
    let (filters, outputs) = (of_kind("filter"), of_kind("output"));
    // Inputs that the same filters and outputs match share a pipeline: it is one straight line.
    let mut groups: BTreeMap<Vec<bool>, Vec<Input>> = BTreeMap::new();
    let mut order: Vec<Vec<bool>> = Vec::new();
    for input in inputs {
        let matched: Vec<bool> = filters.iter().chain(&outputs).map(|section| matches(section, &input.tag)).collect();
        if !order.contains(&matched) {
            order.push(matched.clone());
        }
        groups.entry(matched).or_default().push(input);
    }
    let mut pipelines = Vec::new();
    for (number, matched) in order.iter().enumerate() {
        let group = groups.remove(matched).expect("each group is made once");
        let own = |all: &[&'_ Section], from: usize| -> Vec<Section> {
            all.iter().enumerate().filter(|(i, _)| matched[from + i]).map(|(_, section)| (*section).clone()).collect()
        };
        let name = if number == 0 { stem.to_string() } else { format!("{stem}-{}", number + 1) };
        pipelines.push(pipeline(name, group, &own(&filters, 0), &own(&outputs, filters.len()), parser_files, import));
    }
    for (i, section) in filters.iter().chain(&outputs).enumerate() {
        if !order.iter().any(|matched| matched[i]) {
            import.missing(section, section.line, format!("{}: it matches no input", name_of(section).unwrap_or("?")));
        }
    }
    pipelines
}

fn service(section: &Section, import: &mut Import) {
    let mut keys = Keys::new(section);
    keys.all("parsers_file");
    keys.all("plugins_file")
        .into_iter()
        .for_each(|(file, line)| import.missing(section, line, format!("plugins of {file}: no equivalent")));
    let why = "weir has its own rule, see `weir check`";
    let own = ["flush", "daemon", "grace", "log_level", "log_file", "coro_stack_size", "scheduler.cap", "scheduler.base", "hot_reload"];
    keys.pass(import, &own, why);
    let hub = "what waits for sinks lies in weir's journal, see `hub`";
    let storage =
        ["storage.path", "storage.sync", "storage.checksum", "storage.metrics", "storage.backlog.mem_limit", "storage.max_chunks_up"];
    keys.pass(import, &storage, hub);
    keys.pass(import, &["http_server", "http_listen", "http_port", "health_check"], "health and metrics are on the port of `admin`");
    keys.finish(import);
}

fn pipeline(
    name: String,
    group: Vec<Input>,
    filters: &[Section],
    outputs: &[Section],
    parser_files: &[String],
    import: &mut Import,
) -> Pipeline {
    let mut config = Map::new();
    config.insert("name".into(), json!(name));
    if !parser_files.is_empty() {
        config.insert("parser_files".into(), json!(parser_files));
    }
    let mut sources = Map::new();
    let (mut steps, mut needs_line) = (Vec::new(), false);
    let mut group = group;
    for filter in filters {
        filters::filter(
            filter,
            &mut group.iter_mut().map(|input| (&mut input.source, &mut input.is_raw)).collect::<Vec<_>>(),
            &mut steps,
            import,
        );
    }
    for mut input in group {
        if input.kind != "http" && input.kind != "syslog" {
            needs_line |= end_with_line(&mut input);
        }
        sources.insert(input.name, json!({ input.kind: input.source }));
    }
    if needs_line {
        config.insert("parsers".into(), json!({ LINE: { "format": { "regex": "/\\A(?<log>.*)\\z/m" }, "skip_empty": false } }));
    }
    config.insert("sources".into(), Value::Object(sources));
    if !steps.is_empty() {
        config.insert("steps".into(), Value::Array(steps));
    }
    let mut sinks = Map::new();
    for output in outputs {
        outputs::output(output, &mut sinks, import);
    }
    if sinks.is_empty() {
        sinks.insert("out".into(), json!({ "stdout": {} }));
    }
    config.insert("sinks".into(), Value::Object(sinks));
    Pipeline { name, config: Value::Object(config) }
}

/// A line that no parser matched stays `{"log":"..."}`, as in Fluent Bit.
fn end_with_line(input: &mut Input) -> bool {
    let stages = input.source.entry("parse").or_insert_with(|| json!([]));
    let stages = stages.as_array_mut().expect("it was made as a list");
    let first = match stages.first_mut() {
        Some(stage) if stage.get("field").is_none() => stage,
        _ => {
            stages.insert(0, json!({ "with": [] }));
            &mut stages[0]
        }
    };
    first["with"].as_array_mut().expect("it was made as a list").push(json!(LINE));
    true
}

fn matches(section: &Section, tag: &str) -> bool {
    if let Some(pattern) = value_of(section, "match_regex") {
        return parse::pattern::Pattern::new(pattern).is_ok_and(|pattern| pattern.is_match(tag.as_bytes()));
    }
    value_of(section, "match").is_some_and(|pattern| glob(pattern.as_bytes(), tag.as_bytes()))
}

/// `*` stands for anything.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let mut parts = pattern.split(|b| *b == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    if !pattern.contains(&b'*') {
        return rest.is_empty();
    }
    let parts: Vec<&[u8]> = parts.collect();
    let (last, middle) = parts.split_last().expect("there is a star");
    for part in middle {
        match memchr::memmem::find(rest, part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn input(section: &Section, number: usize, import: &mut Import) -> Option<Input> {
    let plugin = name_of(section).unwrap_or_default().to_ascii_lowercase();
    let name = value_of(section, "alias").map_or_else(|| format!("{plugin}{number}"), crate::config::sane_name);
    let tag = value_of(section, "tag").map_or_else(|| format!("{plugin}.{number}"), |tag| tag.replace(".*", ".x").replace('*', "x"));
    let mut keys = Keys::new(section);
    let (kind, source, is_raw) = match plugin.as_str() {
        "tail" => {
            let (source, is_raw) = tail(&mut keys, import);
            ("file", source, is_raw)
        }
        "stdin" => {
            let mut source = Map::new();
            source.insert("format".into(), json!("text"));
            let is_raw = parser(&mut keys, &mut source, import);
            ("stdin", source, is_raw)
        }
        "http" => ("http", listener(&mut keys, "9880", &mut Map::new()), false),
        "syslog" => ("syslog", syslog(&mut keys, import), false),
        "forward" | "kubernetes_events" | "systemd" => {
            import.missing(section, section.line, format!("input {plugin}: no equivalent; its records do not come"));
            return None;
        }
        _ => {
            import.missing(section, section.line, format!("input {plugin}: no equivalent"));
            return None;
        }
    };
    let why = "sources wait when the hub is full; nothing is bounded by input";
    keys.pass(import, &["mem_buf_limit", "storage.type", "storage.pause_on_chunks_overlimit", "threaded", "log_level"], why);
    keys.finish(import);
    Some(Input { name, kind, tag, source, is_raw })
}

fn listener(keys: &mut Keys, port: &str, source: &mut Map<String, Value>) -> Map<String, Value> {
    let host = keys.take("listen").map_or("127.0.0.1", |(host, _)| host);
    let port = keys.take("port").map_or(port, |(port, _)| port);
    source.insert("listen".into(), json!(format!("{host}:{port}")));
    std::mem::take(source)
}

fn syslog(keys: &mut Keys, import: &mut Import) -> Map<String, Value> {
    let mode = keys.take("mode").map_or("unix_udp", |(mode, _)| mode).to_ascii_lowercase();
    let line = keys.section.line;
    let mut source = Map::new();
    if mode.starts_with("unix") {
        import.missing(keys.section, line, format!("syslog: mode {mode}: no equivalent; it listens on a port"));
        keys.all("path");
        keys.all("unix_perm");
    }
    source.insert(if mode.ends_with("tcp") { "tcp" } else { "udp" }.into(), json!(null));
    let mut address = listener(keys, "5140", &mut Map::new());
    let listen = address.remove("listen").expect("it was just made");
    source.values_mut().for_each(|value| *value = listen.clone());
    if let Some((parser, line)) = keys.take("parser") {
        import.note(keys.section, line, format!("syslog: parser {parser}: messages are read by RFC 5424 and 3164, whichever they are"));
    }
    source
}

fn tail(keys: &mut Keys, import: &mut Import) -> (Map<String, Value>, bool) {
    let section = keys.section;
    let list = |text: &str| text.split(',').map(str::trim).filter(|path| !path.is_empty()).map(String::from).collect::<Vec<_>>();
    let mut source = Map::new();
    source.insert("include".into(), json!(keys.take("path").map(|(path, _)| list(path)).unwrap_or_default()));
    if let Some((path, _)) = keys.take("exclude_path") {
        source.insert("exclude".into(), json!(list(path)));
    }
    source.insert("format".into(), json!("text"));
    match keys.take("read_from_head").map(|(value, line)| (is_on(value), line)) {
        Some((true, _)) => {}
        Some((false, _)) => drop(source.insert("start".into(), json!("end"))),
        None => import.note(
            section,
            section.line,
            "tail: files that are there are read from their beginning; write `start: end` for Fluent Bit's default",
        ),
    }
    if let Some((key, line)) = keys.take("key")
        && key != RAW
    {
        import.missing(section, line, format!("tail: key {key}: a line that no parser reads stands in `{RAW}`"));
    }
    if let Some((size, _)) = keys.take("buffer_max_size") {
        source.insert("line_bytes_max".into(), json!(bytes(size)));
    }
    if let Some((zone, line)) = keys.take("refresh_interval") {
        match zone.parse::<u64>() {
            Ok(seconds) if seconds > 0 => drop(source.insert("scan".into(), json!(format!("{seconds}s")))),
            _ => import.note(section, line, "tail: refresh_interval: the kernel tells of new files"),
        }
    }
    let multiline: Vec<String> = keys.take("multiline.parser").map(|(names, _)| list(names)).unwrap_or_default();
    for name in &multiline {
        if matches!(name.as_str(), "docker" | "cri") {
            source.insert("format".into(), json!(container(&multiline)));
        } else {
            group(name, section, &mut source, import);
        }
    }
    if keys.is_on("docker_mode") == Some(true) {
        source.insert("format".into(), json!("docker"));
        keys.pass(import, &["docker_mode_flush"], "parts of a line are joined whenever the rest comes");
        keys.all("docker_mode_parser").iter().for_each(|(name, _)| group(name, section, &mut source, import));
    }
    if keys.is_on("multiline") == Some(true) {
        match keys.take("parser_firstline") {
            Some((name, line)) => first_line(name, line, section, &mut source, import),
            None => import.missing(section, section.line, "tail: multiline without parser_firstline"),
        }
        keys.pass(import, &["multiline_flush"], "a record is complete when no line has come for a second, see `multiline.age`");
    }
    let is_raw = parser(keys, &mut source, import);
    let why = "weir remembers by itself how far a file was read";
    keys.pass(import, &["db", "db.sync", "db.locking", "db.journal_mode", "db.compare_filename"], why);
    keys.pass(import, &["rotate_wait"], "a file that was rotated is read to its end");
    keys.pass(import, &["skip_long_lines", "buffer_chunk_size", "static_batch_size"], "long lines are cut at `line_bytes_max` and counted");
    keys.pass(import, &["inotify_watcher"], "it is used where the kernel has it");
    keys.pass(import, &["skip_empty_lines"], "empty lines are no records");
    (source, is_raw)
}

fn container(parsers: &[String]) -> &'static str {
    match (parsers.iter().any(|name| name == "docker"), parsers.iter().any(|name| name == "cri")) {
        (true, true) => "container",
        (true, false) => "docker",
        _ => "cri",
    }
}

/// The parser of an input. Returns whether lines stay raw.
fn parser(keys: &mut Keys, source: &mut Map<String, Value>, import: &mut Import) -> bool {
    let Some((name, line)) = keys.take("parser") else { return true };
    if import.library.parsers.iter().any(|(parser, _)| parser.name == name) {
        source.insert("parse".into(), json!([{ "with": [name] }]));
        return false;
    }
    import.missing(keys.section, line, format!("parser {name}: no library defines it"));
    true
}

/// Lines that belong together, by a multiline parser's name.
pub fn group(name: &str, section: &Section, source: &mut Map<String, Value>, import: &mut Import) {
    if matches!(name, "java" | "go" | "python" | "ruby") {
        source.insert("multiline".into(), json!({ "preset": name }));
        return;
    }
    match import.library.multiline.iter().find(|own| own.name == name).map(multiline) {
        Some(own) => drop(source.insert("multiline".into(), own)),
        None => import.missing(section, section.line, format!("multiline parser {name}: no library defines it")),
    }
}

/// A multiline parser as weir writes it.
pub fn multiline(own: &MultilineDefinition) -> Value {
    let age = format!("{}ms", own.flush_timeout_ms.max(1));
    let literal = |text: &str| text.chars().map(|c| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") }).collect::<String>();
    let end = |pattern: String, negate: bool| if negate { format!("\\A(?!(?m:.*){pattern})") } else { pattern };
    match &own.kind {
        MultilineKind::Regex(rules) => {
            let rule = |rule: &MultilineRule| json!({ "from": rule.states, "pattern": rule.pattern, "to": rule.next });
            json!({ "rules": rules.iter().map(rule).collect::<Vec<_>>(), "age": age })
        }
        MultilineKind::EndsWith { text, negate } => json!({ "end": end(format!("{}\\z", literal(text)), *negate), "age": age }),
        MultilineKind::Equal { text, negate } => {
            let whole = format!("{}\\z", literal(text));
            json!({ "end": if *negate { format!("\\A(?!{whole})") } else { format!("\\A{whole}") }, "age": age })
        }
    }
}

/// The old way: a parser that matches the first line of each record.
fn first_line(name: &str, line: u32, section: &Section, source: &mut Map<String, Value>, import: &mut Import) {
    let found = import.library.parsers.iter().find(|(parser, _)| parser.name == name);
    let Some(parse::definition::Format::Regex(pattern)) = found.map(|(parser, _)| &parser.format) else {
        return import.missing(section, line, format!("tail: parser_firstline {name}: no library defines it by a pattern"));
    };
    let bare = pattern.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).unwrap_or(pattern);
    source.insert(
        "multiline".into(),
        json!({ "rules": [
            { "from": ["start_state"], "pattern": pattern, "to": "next" },
            { "from": ["next"], "pattern": format!("\\A(?!(?:{bare}))"), "to": "next" },
        ] }),
    );
    source.insert("parse".into(), json!([{ "with": [name] }]));
}

/// `32k`, `1M` as weir writes sizes.
pub fn bytes(size: &str) -> String {
    let digits: String = size.chars().take_while(char::is_ascii_digit).collect();
    let unit = match size[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "k" | "kb" => "KiB",
        "m" | "mb" => "MiB",
        "g" | "gb" => "GiB",
        _ => "B",
    };
    format!("{digits}{unit}")
}
