//! Fluent Bit's own definitions and lines, where the shared folder has them.
//!
//! The folder is `$WEIR_SHARED`, or `shared` beside this checkout or one of its parents; without it these tests say so and pass.

use parse::definition::{Definition, Format, TimeRule};
use parse::fluent::Sources;
use parse::parser::{Outcome, Parser, Scratch};
use parse::time::TimeFormat;
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};

const ARRIVAL_NS: i64 = 1_718_452_800_000_000_000; // 2024-06-15T12:00:00Z

/// A file or folder of the shared data; `None`, and a line that says which test did not run.
fn shared(test: &str, path: &str) -> Option<PathBuf> {
    let named = std::env::var_os("WEIR_SHARED").map(PathBuf::from);
    let parents = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared"));
    let found = named.into_iter().chain(parents).map(|folder| folder.join(path)).find(|path| path.exists());
    if found.is_none() {
        println!("skipped: {test}: there is no shared/{path}; name the folder in WEIR_SHARED");
    }
    found
}

fn parse(definition: &Definition, line: &str) -> Option<(Option<i64>, Map<String, Value>)> {
    let parser = Parser::new(definition).expect("the definition is a parser");
    let mut out = Vec::new();
    match parser.parse(line.as_bytes(), ARRIVAL_NS, &mut Scratch::default(), &mut out) {
        Outcome::Parsed { time_ns } => Some((time_ns, serde_json::from_slice(&out).expect("a record is an object"))),
        Outcome::NoMatch | Outcome::Limit => None,
    }
}

#[test]
fn every_time_format_of_the_stock_library_compiles() {
    let Some(folder) = shared("every_time_format_of_the_stock_library_compiles", "data/fluent-bit/stock") else { return };
    let mut formats = 0;
    for file in fs::read_dir(folder).expect("the folder can be read") {
        let text = fs::read_to_string(file.expect("an entry").path()).expect("a file of text");
        for line in text.lines().map(str::trim) {
            if let Some(format) = line.strip_prefix("Time_Format") {
                TimeFormat::new(format.trim(), &TimeRule::default()).unwrap_or_else(|e| panic!("{line}: {e}"));
                formats += 1;
            }
        }
    }
    assert!(formats > 30, "{formats} formats");
}

/// Names of stock patterns, and the format here that reads the same lines.
fn twin(parser: &str) -> Option<Format> {
    match parser {
        "apache" | "apache2" => Some(Format::Apache),
        "nginx" => Some(Format::Nginx),
        "syslog-rfc5424" => Some(Format::Syslog5424),
        "syslog-rfc3164" | "syslog-rfc3164-local" => Some(Format::Syslog3164),
        "cri" => Some(Format::Cri),
        _ => None,
    }
}

#[test]
fn built_in_formats_find_what_the_stock_patterns_find() {
    let name = "built_in_formats_find_what_the_stock_patterns_find";
    let Some(file) = shared(name, "data/fluent-bit/parser_vectors.jsonl") else { return };
    let mut compared = 0;
    for line in fs::read_to_string(file).expect("a file of text").lines() {
        let vector: Value = serde_json::from_str(line).expect("a line of JSON");
        let Some(format) = twin(vector["parser"].as_str().expect("a name")) else { continue };
        if vector["matched"] == true {
            let time = TimeRule { keep: true, ..TimeRule::default() };
            let definition = Definition { time, ..Definition::new("twin", format) };
            let (time_ns, record) = parse(&definition, vector["line"].as_str().expect("a line")).unwrap_or_else(|| panic!("{line}"));
            assert!(time_ns.is_some(), "{line}");
            compare(vector["fields"].as_object().expect("fields"), &record, line);
            compared += 1;
        }
    }
    assert!(compared >= 8, "{compared} lines");
}

/// Every field that the pattern finds is there as it stands, but what a built-in format leaves out or takes apart.
fn compare(want: &Map<String, Value>, record: &Map<String, Value>, line: &str) {
    for (name, value) in want {
        let found = match record.get(name) {
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        };
        let left_out = value == "-" || value == "" || name == "extradata";
        assert!(found.as_str() == value || left_out && found.is_empty(), "{name} is {found:?}: {line}");
    }
}

#[test]
fn docker_logs_of_fluent_bits_tests_are_read() {
    let Some(folder) = shared("docker_logs_of_fluent_bits_tests_are_read", "data/fluent-bit/tests/tail") else { return };
    let text = fs::read_to_string(folder.join("log_dockermode.log")).expect("a file of text");
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (time_ns, record) = parse(&Definition::new("docker", Format::Docker), line).unwrap_or_else(|| panic!("{line}"));
        let whole: Map<String, Value> = serde_json::from_str(line).expect("a line of JSON");
        assert_eq!((time_ns.is_some(), record.get("log")), (whole.contains_key("time"), whole.get("log")), "{line}");
    }
}

#[test]
fn text_of_every_encoding_passes_as_a_record() {
    let Some(folder) = shared("text_of_every_encoding_passes_as_a_record", "data/fluent-bit/tests/tail") else { return };
    let csv = Definition::new("csv", Format::Csv { columns: vec!["text".to_string()], delimiter: 1 });
    let parser = Parser::new(&csv).expect("the definition is a parser");
    for file in fs::read_dir(folder).expect("the folder can be read") {
        let bytes = fs::read(file.expect("an entry").path()).expect("a file");
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'"') {
            let mut out = Vec::new();
            if let Outcome::Parsed { .. } = parser.parse(line, ARRIVAL_NS, &mut Scratch::default(), &mut out) {
                serde_json::from_slice::<Map<String, Value>>(&out).expect("a record is an object");
            }
        }
    }
}

/// The stock definitions by file, as far as they are parsers.
fn stock(folder: &Path) -> Vec<(String, Definition)> {
    let mut definitions = Vec::new();
    let nothing = |_: &str, _: &str| Err("nothing is included".to_string());
    let sources = Sources { load: &nothing, env: &|_| None };
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("the folder can be read").map(|file| file.expect("an entry").path()).collect();
    files.sort();
    for path in files {
        let file = path.file_name().expect("a file").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a file of text");
        let library = parse::fluent::library(&file, &text, &sources);
        definitions.extend(library.parsers.into_iter().map(|(definition, _)| (file.clone(), definition)));
    }
    definitions
}

#[test]
fn eb_11_3_records_of_stock_parsers_hold_the_stated_fields() {
    let name = "eb_11_3_records_of_stock_parsers_hold_the_stated_fields";
    let Some(folder) = shared(name, "data/fluent-bit/stock") else { return };
    let stock = stock(&folder);
    let vectors = fs::read_to_string(folder.join("../parser_vectors.jsonl")).expect("a file of text");
    for line in vectors.lines() {
        let vector: Value = serde_json::from_str(line).expect("a line of JSON");
        let is_it = |(file, d): &&(String, Definition)| vector["file"] == file.as_str() && vector["parser"] == d.name.as_str();
        let (_, definition) = stock.iter().find(is_it).unwrap_or_else(|| panic!("{line}"));
        let raw = Definition { types: Vec::new(), time: TimeRule::default(), ..definition.clone() };
        let found = parse(&raw, vector["line"].as_str().expect("a line"));
        assert_eq!(found.is_some(), vector["matched"] == true, "{line}");
        if let Some((_, record)) = found {
            assert_eq!(&record, vector["fields"].as_object().expect("fields"), "{line}");
        }
        let key = definition.time.key.as_deref().unwrap_or("time");
        if definition.time.format.is_some() && vector["fields"].get(key).is_some() {
            let (time_ns, _) = parse(definition, vector["line"].as_str().expect("a line")).expect("it is one without types");
            assert!(time_ns.is_some(), "the time is read: {line}");
        }
    }
}

#[test]
fn a_set_of_all_stock_parsers_chooses_as_if_each_were_tried() {
    let Some(folder) = shared("a_set_of_all_stock_parsers_chooses_as_if_each_were_tried", "data/fluent-bit/stock") else { return };
    let definitions: Vec<Definition> = stock(&folder).into_iter().map(|(_, definition)| definition).collect();
    let set = parse::set::Set::new(&definitions).expect("all are parsers");
    let vectors = fs::read_to_string(folder.join("../parser_vectors.jsonl")).expect("a file of text");
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    for line in vectors.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON")) {
        let text = line["line"].as_str().expect("a line").as_bytes();
        let chosen = set.parse(text, ARRIVAL_NS, &mut scratch, &mut out).parser;
        let first = set.parsers().iter().position(|p| p.parse(text, ARRIVAL_NS, &mut scratch, &mut out) != Outcome::NoMatch);
        assert_eq!(chosen, first, "{line}");
    }
}
