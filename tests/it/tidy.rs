//! Rules of the house that no compiler holds: dependencies, module borders, clocks, floats, words in files.
//!
//! Runs nothing; reads the tracked tree. In: Cargo.toml files, Cargo.lock, sources, README. Out: every breach with its file.

use crate::harness::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names and lines of a section of a Cargo.toml.
fn section(text: &str, name: &str) -> BTreeMap<String, String> {
    let header = format!("[{name}]");
    let lines = text.lines().skip_while(|line| line.trim() != header).skip(1).take_while(|line| !line.starts_with('['));
    let entries = lines.filter(|line| line.contains('=') && !line.starts_with('#'));
    entries.map(|line| (line.split(['.', ' ', '=']).next().expect("a name").to_string(), line.to_string())).collect()
}

fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = read(manifest);
    let found: BTreeSet<String> = section(&text, "dependencies").into_keys().collect();
    assert!(!found.is_empty(), "{manifest} names no dependency: this test reads it wrongly");
    found
}

/// Files with this ending below a folder, without build output.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let below = crate::harness::files_below(&root().join(folder));
    below.into_iter().filter(|p| p.extension().is_some_and(|e| e == ending)).map(|p| Path::new(folder).join(p)).collect()
}

/// Every Rust file of the workspace.
fn sources() -> Vec<PathBuf> {
    let found: Vec<PathBuf> = ["src", "crates", "tests", "benches"].iter().flat_map(|folder| files(folder, "rs")).collect();
    assert!(found.len() > 50, "{} Rust files: this test looks in the wrong place", found.len());
    found
}

/// Files that are modules of tests: `#[cfg(test)]` and `mod NAME;` stand in their parent.
fn test_files() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in sources() {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let names = lines
            .windows(2)
            .filter(|pair| pair[0] == "#[cfg(test)]")
            .filter_map(|pair| pair[1].trim_start_matches("pub(crate) ").strip_prefix("mod ")?.strip_suffix(';'));
        let stem = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        let folder = path.parent().expect("it lies in a folder");
        let folder = if ["mod", "lib", "main"].contains(&stem.as_str()) { folder.to_path_buf() } else { folder.join(stem) };
        found.extend(names.map(|name| folder.join(format!("{name}.rs"))));
    }
    found
}

/// The lines of a file before its test module: what the rules about clocks and panics are about.
fn product_lines(path: &Path, test_files: &BTreeSet<PathBuf>) -> Vec<(usize, String)> {
    let in_folder = path.parent().is_some_and(|folder| {
        // A folder of tests, or of the modules that a test module is made of.
        folder.components().any(|c| c.as_os_str() == "tests") || test_files.contains(&folder.with_extension("rs"))
    });
    if test_files.contains(path) || in_folder {
        return Vec::new();
    }
    let text = read(path);
    let mut lines = Vec::new();
    let mut rest = text.lines().enumerate().peekable();
    while let Some((n, line)) = rest.next() {
        let opens_tests = line.trim() == "#[cfg(test)]"
            && rest
                .peek()
                .is_some_and(|(_, next)| next.trim_start().trim_start_matches("pub(crate) ").starts_with("mod ") && next.ends_with('{'));
        if opens_tests {
            break; // it is the last thing in a file
        }
        lines.push((n + 1, line.to_string()));
    }
    lines
}

/// Lines of code that hold one of the words, outside of comments.
fn uses(folder: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let test_files = test_files();
    for path in files(folder, "rs") {
        for (n, line) in product_lines(&path, &test_files) {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| has_word(code, word)) {
                found.push(format!("{}:{n}: {}", path.display(), line.trim()));
            }
        }
    }
    found
}

/// The word stands there and is not part of a longer one.
fn has_word(code: &str, word: &str) -> bool {
    let is_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| !is_name(code[..at].chars().next_back()) && !is_name(code[at + word.len()..].chars().next()))
}

#[track_caller]
fn assert_none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn crates_depend_in_one_direction() {
    let ours = ["parse", "flow", "hub", "bill", "telemetry", "device", "lake", "sql", "weir"];
    for (manifest, may) in [
        ("crates/parse/Cargo.toml", &[][..]),
        ("crates/flow/Cargo.toml", &["parse"]),
        ("crates/hub/Cargo.toml", &["flow"]),
        ("crates/bill/Cargo.toml", &["flow"]),
        ("crates/telemetry/Cargo.toml", &["flow"]),
        ("crates/device/Cargo.toml", &["flow", "telemetry"]),
        ("crates/lake/Cargo.toml", &["flow", "hub", "bill", "telemetry"]),
        ("crates/sql/Cargo.toml", &["flow", "hub", "lake"]),
    ] {
        let named = dependencies(manifest);
        let breaches: Vec<&str> = ours.into_iter().filter(|name| named.contains(*name) && !may.contains(name)).collect();
        assert_eq!(breaches, [""; 0], "{manifest} names crates above it");
    }
}

#[test]
fn pure_crates_name_nothing_that_waits_and_only_lake_names_its_formats() {
    let waits = ["tokio", "axum", "hyper", "tracing", "rustix", "libc", "object_store", "rand", "chrono"];
    let formats = ["tantivy", "parquet", "arrow", "arrow-array", "arrow-schema", "arrow-buffer", "datafusion"];
    let pure = ["parse", "flow", "hub", "bill", "telemetry"].map(|name| format!("crates/{name}/Cargo.toml"));
    for manifest in pure.iter().map(String::as_str).chain(["Cargo.toml"]) {
        let named = dependencies(manifest);
        assert_eq!(formats.iter().find(|name| named.contains(**name)), None, "{manifest}: formats belong to crates/lake");
        if manifest != "Cargo.toml" {
            assert_eq!(waits.iter().find(|name| named.contains(**name)), None, "{manifest}");
        }
    }
    let lake = dependencies("crates/lake/Cargo.toml");
    assert_eq!(waits.iter().find(|name| lake.contains(**name)), None, "crates/lake");
    let hub = dependencies("crates/hub/Cargo.toml");
    assert_eq!(["serde_json", "serde"].iter().find(|name| hub.contains(**name)), None, "the hub knows no JSON");
}

#[test]
fn each_dependency_says_what_it_is_for() {
    let root_text = read("Cargo.toml");
    let mut breaches = Vec::new();
    for (manifest, sections) in [
        ("Cargo.toml", &["workspace.dependencies", "dependencies", "dev-dependencies"][..]),
        ("crates/parse/Cargo.toml", &["dependencies"]),
        ("crates/flow/Cargo.toml", &["dependencies"]),
        ("crates/hub/Cargo.toml", &["dependencies"]),
        ("crates/bill/Cargo.toml", &["dependencies"]),
        ("crates/telemetry/Cargo.toml", &["dependencies"]),
        ("crates/device/Cargo.toml", &["dependencies"]),
        ("crates/lake/Cargo.toml", &["dependencies"]),
        ("crates/sql/Cargo.toml", &["dependencies"]),
    ] {
        let text = read(manifest);
        for name in sections {
            for (dependency, line) in section(&text, name) {
                // A crate that inherits a line of the workspace may leave the reason there.
                let said_above = line.contains("workspace")
                    && section(&root_text, "workspace.dependencies").get(&dependency).is_some_and(|l| l.contains('#'));
                let is_ours = ["parse", "flow", "hub", "bill", "telemetry", "device", "lake", "sql"].contains(&dependency.as_str()); // each says so in its own header
                if !line.contains('#') && !said_above && !is_ours {
                    breaches.push(format!("{manifest} [{name}]: {line}"));
                }
            }
        }
    }
    assert_none("a dependency without a comment that says what it is for", breaches);
}

#[test]
fn heavy_libraries_are_there_once() {
    let lock = read("Cargo.lock");
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(text) = line.strip_prefix("name = ") {
            name = text.trim_matches('"');
        } else if let Some(text) = line.strip_prefix("version = ") {
            versions.entry(name).or_default().push(text.trim_matches('"'));
        }
    }
    assert!(versions.contains_key("tantivy") && versions.contains_key("parquet"), "this test reads Cargo.lock wrongly");
    let heavy = |name: &str| {
        name == "arrow" || name.starts_with("arrow-") || ["parquet", "object_store", "tokio", "prost", "hyper", "tantivy"].contains(&name)
    };
    let twice: Vec<String> =
        versions.iter().filter(|(name, all)| heavy(name) && all.len() > 1).map(|(name, all)| format!("{name} {all:?}")).collect();
    assert_none("two versions of a heavy library", twice);
}

#[test]
fn the_wall_clock_is_read_in_one_file() {
    let found = uses("src", &["SystemTime", "UNIX_EPOCH"]);
    assert!(found.iter().any(|line| line.starts_with("src/env.rs")), "this test finds nothing any more");
    assert_none("the wall clock outside of src/env.rs", found.into_iter().filter(|line| !line.starts_with("src/env.rs")).collect());
    for folder in ["crates/hub/src", "crates/lake/src", "crates/sql/src"] {
        assert_none("the wall clock in a store", uses(folder, &["SystemTime", "UNIX_EPOCH"]));
    }
}

#[test]
fn the_pure_crates_ask_nobody() {
    for folder in ["crates/parse/src", "crates/flow/src", "crates/bill/src", "crates/telemetry/src"] {
        let words = ["SystemTime", "Instant", "std::fs", "std::net", "std::thread", "std::env", "std::process", "std::io::stdin"];
        assert_none("clock, disk, network or thread in a pure crate", uses(folder, &words));
    }
}

#[test]
fn sources_and_sinks_do_not_know_each_other() {
    assert_none("a source that names a sink", uses("src/sources", &["crate::sinks", "super::super::sinks"]));
    assert_none("a sink that names a source", uses("src/sinks", &["crate::sources", "super::super::sources"]));
    assert_none(
        "a source or sink that names what is above it",
        [uses("src/sources", &["crate::runtime", "crate::cli"]), uses("src/sinks", &["crate::runtime", "crate::cli"])].concat(),
    );
}

#[test]
fn money_is_integers() {
    assert_none("a float on the cost path", uses("crates/bill/src", &["f32", "f64"]));
}

#[test]
fn unsafe_code_has_a_reason_beside_it() {
    let mut breaches = Vec::new();
    for path in sources() {
        let text = read(&path);
        // Words that are quoted here are no code.
        let code = |line: &str| line.split("//").next().unwrap_or_default().split('"').next().unwrap_or_default().to_string();
        let has = text.lines().any(|line| has_word(&code(line), "unsafe"));
        if has && !text.contains("expect(unsafe_code, reason") {
            breaches.push(path.display().to_string());
        }
    }
    assert_none("unsafe without #[expect(unsafe_code, reason = ...)]", breaches);
    for root in [
        "src/main.rs",
        "crates/flow/src/lib.rs",
        "crates/hub/src/lib.rs",
        "crates/bill/src/lib.rs",
        "crates/lake/src/lib.rs",
        "crates/sql/src/lib.rs",
    ] {
        let text = read(root);
        assert!(text.contains("#![deny(unsafe_code)]") || text.contains("#![forbid(unsafe_code)]"), "{root} allows unsafe code");
    }
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let without: Vec<String> =
        sources().into_iter().filter(|path| !read(path).starts_with("//! ")).map(|path| path.display().to_string()).collect();
    assert_none("a file without a header", without);
}

#[test]
fn nothing_is_left_undone_in_words() {
    // Put together here, so that this file does not hold the words itself.
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        [".unw", "rap()"].concat(),
    ];
    let mut breaches = Vec::new();
    let test_files = test_files();
    assert!(test_files.len() > 3, "this test finds no test modules any more");
    for path in sources() {
        for (n, line) in product_lines(&path, &test_files) {
            breaches.extend(words.iter().filter(|word| line.contains(word.as_str())).map(|word| format!("{}:{n}: {word}", path.display())));
        }
    }
    assert_none("unfinished or unexplained", breaches);
}

#[test]
fn no_file_names_a_machine() {
    // Put together here, so that this file does not hold the words itself.
    let words = [
        ["/wo", "rk/"].concat(),
        ["crates", ".io"].concat(),
        ["pypi", ".org"].concat(),
        ["registry.npmjs", ".org"].concat(),
        ["proxy.golang", ".org"].concat(),
        ["/ro", "ot/"].concat(),
    ];
    let mut names: Vec<PathBuf> = sources();
    for ending in ["yaml", "md", "toml", "json", "sh"] {
        names.extend(["pipelines", "schemas", "tests", "benches", "crates"].iter().flat_map(|folder| files(folder, ending)));
    }
    names.extend(["Cargo.toml", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "tests/run", ".ci/run"].map(PathBuf::from));
    let mut breaches = Vec::new();
    for path in names.iter().filter(|path| root().join(path).exists()) {
        let text = read(path);
        breaches.extend(words.iter().filter(|word| text.contains(word.as_str())).map(|word| format!("{}: {word}", path.display())));
    }
    assert_none("the host of a registry or a path of one machine", breaches);
}

#[test]
fn what_the_readme_runs_exists() {
    let readme = read("README.md");
    assert!(
        readme.contains("cargo run --release -- run --once pipelines/quickstart.yaml") && readme.contains("tests/run"),
        "the two commands are not in README.md"
    );
    let code: Vec<&str> = readme.split("```").skip(1).step_by(2).collect();
    let mut checked = 0;
    for word in code.iter().flat_map(|block| block.split_whitespace()) {
        let is_file = ["pipelines/", "tests/", "benches/", ".ci/"].iter().any(|folder| word.starts_with(folder));
        if is_file {
            assert!(root().join(word.trim_end_matches(':')).exists(), "README.md names {word}");
            checked += 1;
        }
    }
    assert!(checked > 0);
    let verbs = crate::harness::finish({
        let mut command = crate::harness::weir();
        command.arg("--help");
        command
    });
    for line in code.iter().flat_map(|block| block.lines()).filter_map(|line| line.trim_start_matches("$ ").strip_prefix("weir ")) {
        let verb = line.split_whitespace().next().unwrap_or_default();
        assert!(verbs.text().contains(&format!("  {verb} ")), "README.md runs `weir {line}`, which has no such verb:\n{}", verbs.text());
    }
}
