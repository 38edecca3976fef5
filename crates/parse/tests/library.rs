//! Fluent Bit's own libraries load unchanged, and their parsers find what the original finds.

mod shared;

use expect_test::{Expect, expect};
use parse::definition::{Decoder, Format, Then, Type};
use parse::fluent::{self, Library, MultilineKind, Section, Sources};
use parse::pattern::{Engine, Found, Pattern};
use std::fs;
use std::path::{Path, PathBuf};

/// Reads files of `text` by name: `== name` begins each; the first one includes the others.
fn sources_of(text: &str) -> Vec<(String, String)> {
    let files = text.split("== ").filter(|file| !file.is_empty());
    files.map(|file| file.split_once('\n').unwrap_or((file, ""))).map(|(name, text)| (name.to_string(), text.to_string())).collect()
}

fn load(text: &str) -> (Library, Vec<Section>) {
    let files = sources_of(text);
    let find = |_: &str, name: &str| match files.iter().find(|(known, _)| known == name) {
        Some(file) => Ok(vec![file.clone()]),
        None => Err("no such file".to_string()),
    };
    let env = |name: &str| (name == "HOME").then(|| "/home/x".to_string());
    let sources = Sources { load: &find, env: &env };
    let (name, text) = &files[0];
    (fluent::library(name, text, &sources), fluent::sections(name, text, &sources).0)
}

#[track_caller]
fn check(text: &str, want: Expect) {
    let (library, sections) = load(text);
    let mut seen = String::new();
    for section in &sections {
        seen += &format!("{}:{} [{}]\n", section.file, section.line, section.kind);
        section.entries.iter().for_each(|entry| seen += &format!("  {}: {} = {}\n", entry.line, entry.key, entry.value));
    }
    for warning in &library.warnings {
        let left_out = if warning.left_out { "left out" } else { "warning" };
        seen += &format!("{left_out} {}:{} {}\n", warning.file, warning.line, warning.text);
    }
    library.parsers.iter().for_each(|(parser, place)| seen += &format!("parser {} {}:{}\n", parser.name, place.file, place.line));
    library.multiline.iter().for_each(|parser| seen += &format!("multiline {} {:?}\n", parser.name, parser.kind));
    want.assert_eq(&seen);
}

#[test]
fn a_classic_file_is_read_to_its_end() {
    check(
        "== a.conf\n# note\n@SET where=there\n[SERVICE]\r\n    Flush ${NIX}1\n    Path\t${HOME}/x\n    Log_File  ${HOME}/${where} # kept  \n  Odd 1\n@INCLUDE b.conf\n@INCLUDE c.conf\n@FOO x\n  alone 1\n[BROKEN\n [INPUT]\n    Name tail\n    Regex ^a${2}\n== b.conf\n[FILTER]\n\tName grep\n@INCLUDE a.conf\n",
        expect![[r#"
            a.conf:3 [service]
              4: Flush = 1
              6: Log_File = /home/x/there # kept
              7: Odd = 1
            b.conf:1 [filter]
              2: Name = grep
            a.conf:13 [input]
              14: Name = tail
              15: Regex = ^a${2}
            warning a.conf:4 variable NIX is not set: it stands for nothing
            left out a.conf:5 `Path\t${HOME}/x` has no value; a tab is no separator, put a blank
            warning a.conf:7 this entry is not indented like the others, which Fluent Bit refuses; it is read all the same
            left out b.conf:3 a.conf includes itself
            left out a.conf:9 cannot include c.conf: no such file
            left out a.conf:10 command @FOO is not known
            left out a.conf:11 `alone` stands in no section
            left out a.conf:12 this section's name has no `]`
            warning a.conf:13 this section's name is indented, which Fluent Bit refuses; it is read all the same
        "#]],
    );
}

#[test]
fn a_yaml_file_is_read_as_sections() {
    check(
        "== a.yaml\nenv:\n  where: there\nservice:\n  flush: 1\nincludes: [b.yaml]\nparsers:\n  - name: one\n    format: regex\n    regex: '^(?<a>x)'\n    timeKey: t\n  - name: two\n    format: nix\nmultiline_parsers:\n  - name: m\n    type: regex\n    rules:\n      - state: start_state, other\n        regex: '/a\"b/'\n        next_state: other\npipeline:\n  inputs:\n    - name: tail\n      tags: [a, b]\n      path: ${where}\n      processors:\n        logs:\n          - name: grep\n            rule: {a: 1}\n  outputs: []\n== b.yaml\nparsers: [{name: one, format: json}, {format: json}, 3]\n",
        expect![[r#"
            a.yaml:4 [service]
              4: flush = 1
            b.yaml:1 [parser]
              1: name = one
              1: format = json
            b.yaml:1 [parser]
              1: format = json
            a.yaml:7 [parser]
              7: name = one
              8: format = regex
              9: regex = ^(?<a>x)
              10: timeKey = t
            a.yaml:11 [parser]
              11: name = two
              12: format = nix
            a.yaml:14 [multiline_parser]
              14: name = m
              15: type = regex
              17: rules[0].state = start_state, other
              18: rules[0].regex = /a"b/
              19: rules[0].next_state = other
            a.yaml:22 [input]
              22: name = tail
              23: tags = a
              23: tags = b
              24: path = there
              27: processors.logs[0].name = grep
              28: processors.logs[0].rule.a = 1
            left out b.yaml:1 this parser is no mapping
            left out b.yaml:1 this parser has no name
            left out a.yaml:7 parser `one` is defined already in b.yaml:1; the first one is used
            left out a.yaml:12 parser `two` has the format `nix`; there are regex, json, ltsv and logfmt
            parser one b.yaml:1
            multiline m Regex([MultilineRule { states: ["start_state", "other"], pattern: "/a\"b/", next: "other", line: 17 }])
        "#]],
    );
}

#[test]
fn what_is_no_yaml_is_left_out() {
    check(
        "== a.yaml\nparsers: [\n",
        expect![[r#"
        left out a.yaml:1 this is no YAML: unclosed bracket '['
    "#]],
    );
    check(
        "== a.yaml\n- x\n",
        expect![[r#"
        left out a.yaml:1 a file is a mapping: `parsers:`, `pipeline:`
    "#]],
    );
}

#[test]
fn every_key_of_a_parser_is_read() {
    let (library, _) = load(
        "== a.conf\n[PARSER]\n  NAME p\n  format LogFmt\n  Logfmt_No_Bare_Keys on\n  Time_Key t\n  Time_Format %s\n  Time_Keep On\n  Time_Strict off\n  Time_Offset -0530\n  Types a:integer b:BOOL c:hex d:float e:nix\n  Skip_Empty_Values off\n  Decode_Field json log\n  Decode_Field_As escaped_utf8 log do_next\n  Decode_Field_As nix log\n  Foo bar\n",
    );
    let (parser, _) = &library.parsers[0];
    assert_eq!(parser.format, Format::Logfmt { bare_keys: false });
    assert_eq!((parser.time.key.as_deref(), parser.time.format.as_deref()), (Some("t"), Some("%s")));
    assert!(parser.time.keep && !parser.time.strict && !parser.skip_empty);
    assert_eq!(parser.time.offset_seconds, -(5 * 3600 + 30 * 60));
    let types: Vec<_> = parser.types.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(types, [Type::Integer, Type::Bool, Type::Hex, Type::Float, Type::String]);
    assert_eq!(parser.decode.len(), 2);
    assert!(parser.decode[0].spread && parser.decode[0].decoder == Decoder::Json && parser.decode[0].then == Then::Stop);
    assert!(!parser.decode[1].spread && parser.decode[1].decoder == Decoder::EscapedUtf8 && parser.decode[1].then == Then::DoNext);
    let texts: Vec<_> = library.warnings.iter().map(|warning| format!("{} {}", warning.line, warning.text)).collect();
    expect![[r#"
        15 parser `p`: key `Foo` is not known
        10 parser `p`: `e` stays a string, `nix` is no type
        14 parser `p`: `Decode_Field_As nix log` is not `json|escaped|escaped_utf8|mysql_quoted field [try_next|do_next]`"#]]
    .assert_eq(&texts.join("\n"));
}

#[test]
fn multiline_rules_must_lead_somewhere() {
    check(
        "== a.conf\n[MULTILINE_PARSER]\n  name a\n  type regex\n  rule \"start_state\" \"/x/\" \"nix\"\n[MULTILINE_PARSER]\n  name b\n  type regex\n  rule \"cont\" \"/x/\" \"cont\"\n[MULTILINE_PARSER]\n  name c\n  type eq\n  match_string x\n  negate true\n[MULTILINE_PARSER]\n  name d\n  type regex\n  rule \"start_state, cont\"   \"/a\\\"b\\\\d/\" \"cont\"\n",
        expect![[r#"
            a.conf:1 [multiline_parser]
              2: name = a
              3: type = regex
              4: rule = "start_state" "/x/" "nix"
            a.conf:5 [multiline_parser]
              6: name = b
              7: type = regex
              8: rule = "cont" "/x/" "cont"
            a.conf:9 [multiline_parser]
              10: name = c
              11: type = eq
              12: match_string = x
              13: negate = true
            a.conf:14 [multiline_parser]
              15: name = d
              16: type = regex
              17: rule = "start_state, cont"   "/a\"b\\d/" "cont"
            left out a.conf:4 multiline parser `a`: no rule is for the state `nix`
            left out a.conf:8 multiline parser `b`: its first rule is not for start_state
            multiline c Equal { text: "x", negate: true }
            multiline d Regex([MultilineRule { states: ["start_state", "cont"], pattern: "/a\"b\\\\d/", next: "cont", line: 17 }])
        "#]],
    );
}

fn library(path: &Path) -> Library {
    let load = |file: &str, name: &str| {
        let path = Path::new(file).with_file_name(name);
        let text = fs::read_to_string(&path).map_err(|e| e.to_string())?;
        Ok(vec![(path.display().to_string(), text)])
    };
    let text = fs::read_to_string(path).expect("the file is there");
    fluent::library(&path.display().to_string(), &text, &Sources { load: &load, env: &|_| None })
}

/// All patterns of a folder's definitions, with names to tell them by.
fn patterns(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files.into_iter().filter(|path| path.is_file()) {
        let library = library(&file);
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_string();
        for (parser, _) in &library.parsers {
            if let Format::Regex(text) = &parser.format {
                all.push((format!("{name} {}", parser.name), text.clone()));
            }
        }
        for parser in &library.multiline {
            if let MultilineKind::Regex(rules) = &parser.kind {
                all.extend(rules.iter().map(|rule| (format!("{name} {} {:?}", parser.name, rule.states), rule.pattern.clone())));
            }
        }
    }
    all
}

#[test]
fn every_stock_pattern_is_usable() {
    let Some(folder) = shared::fluent_bit("stock") else { return };
    let all = patterns(&folder);
    assert_eq!(all.len(), 53);
    for (name, text) in &all {
        match Pattern::new(text) {
            Ok(pattern) => assert_eq!(pattern.report().engine, Engine::Linear, "{name}"),
            Err(refusal) => panic!("{name}: {refusal}"),
        }
    }
}

#[test]
fn every_test_pattern_is_usable() {
    let Some(folder) = shared::fluent_bit("tests") else { return };
    let all = patterns(&folder);
    println!("{} patterns", all.len());
    let mut backtracking = Vec::new();
    for (name, text) in &all {
        let pattern = Pattern::new(text).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        if pattern.report().engine == Engine::Backtracking {
            backtracking.push(name.as_str());
        }
    }
    assert_eq!(backtracking, ["runtime_tail_parsers_multiline.conf multiline-regex [\"cont\"]"]);
}

#[test]
fn the_indented_header_is_told() {
    let Some(path) = shared::fluent_bit("stock/parser_custom.conf") else { return };
    let library = library(&path);
    assert_eq!(library.parsers.len(), 3);
    assert!(library.warnings.iter().all(|warning| !warning.left_out && warning.text.contains("indented")));
    assert_eq!(library.warnings.len(), 3);
}

/// A line of one of the files with vectors.
fn vectors(name: &str) -> Vec<serde_json::Value> {
    let Some(path) = shared::fluent_bit(name) else { return Vec::new() };
    let text = fs::read_to_string(path).expect("the file is there");
    text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

fn check_vector(regex: &str, vector: &serde_json::Value) {
    let pattern = Pattern::new(regex).unwrap_or_else(|refusal| panic!("{vector}: {refusal}"));
    let line = vector["line"].as_str().expect("a line");
    let mut slots = Vec::new();
    let found = pattern.find(line.as_bytes(), &mut slots);
    assert_eq!(found == Found::Yes, vector["matched"] == true, "{vector}");
    let taken = pattern.names().iter().zip(&slots).filter_map(|(name, slot)| Some((name, (*slot)?)));
    let fields: serde_json::Map<String, serde_json::Value> = taken
        .map(|(name, (start, end))| (name.clone(), line[start as usize..end as usize].into()))
        .filter(|(_, text): &(_, serde_json::Value)| text != "")
        .collect();
    assert_eq!(&serde_json::Value::Object(fields), &vector["fields"], "{vector}");
}

#[test]
fn every_dialect_vector_agrees() {
    for vector in vectors("dialect_vectors.jsonl") {
        check_vector(vector["regex"].as_str().expect("a pattern"), &vector);
    }
}

#[test]
fn every_parser_vector_agrees() {
    let vectors = vectors("parser_vectors.jsonl");
    for vector in &vectors {
        let Some(path) = shared::fluent_bit(&format!("stock/{}", vector["file"].as_str().expect("a file"))) else { return };
        let library = library(&path);
        let named = library.parsers.iter().find(|(parser, _)| parser.name == vector["parser"]);
        match named.map(|(parser, _)| &parser.format) {
            Some(Format::Regex(regex)) => check_vector(regex, vector),
            other => panic!("{vector}: {other:?}"),
        }
    }
}
