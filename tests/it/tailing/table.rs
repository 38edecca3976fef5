//! The table of the catalogue, made from the comments above its tests.
//!
//! In: the sources of these tests. Out: `schemas/reference/tailing.md`, renewed with `UPDATE_EXPECT=1`; a breach where one of the
//! numbers 1 to 60 has no test or no row.

use crate::harness::root;
use expect_test::expect_file;
use std::collections::BTreeMap;

/// Sections and files, in order of the numbers.
const SECTIONS: [(&str, &str); 8] = [
    ("Rotation and truncation", "rotation"),
    ("Identity", "identity"),
    ("Line framing", "framing"),
    ("Disk and crash of the logged host", "disk"),
    ("Checkpoint and buffer", "checkpoint"),
    ("Sinks and flow", "sinks"),
    ("Scale and discovery", "scale"),
    ("Time and control", "control"),
];
const NUMBERS: std::ops::RangeInclusive<u32> = 1..=60;

/// What the comments and names of one number say.
#[derive(Default)]
struct Row {
    happens: String,
    weir: String,
    lost: String,
    limit: String,
    /// Why a test of this number does not pass yet.
    open: Vec<String>,
    tests: Vec<String>,
}

/// Rows of one file by number, and what is wrong with it.
fn read(file: &str) -> (BTreeMap<u32, Row>, Vec<String>) {
    let path = root().join(format!("tests/it/tailing/{file}.rs"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(file, &text)
}

fn parse(file: &str, text: &str) -> (BTreeMap<u32, Row>, Vec<String>) {
    let (mut rows, mut breaches) = (BTreeMap::<u32, Row>::new(), Vec::new());
    let (mut comment, mut is_test) = (Vec::<String>::new(), false);
    let mut open = None;
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("///") {
            comment.push(said.trim().to_string());
        } else if line.trim() == "#[test]" {
            is_test = true;
        } else if let Some(why) = line.strip_prefix("#[ignore = \"open: ").and_then(|rest| rest.strip_suffix("\"]")) {
            open = Some(why.to_string());
        } else if let (true, Some(name)) = (is_test, line.strip_prefix("fn ").and_then(|rest| rest.split('(').next())) {
            match name.strip_prefix('s').and_then(|rest| rest.get(..2)).and_then(|digits| digits.parse::<u32>().ok()) {
                Some(number) => {
                    let row = rows.entry(number).or_default();
                    row.tests.push(name.to_string());
                    row.open.extend(open.take());
                    if row.tests.len() == 1 {
                        fill(row, &comment);
                    }
                }
                None => breaches.push(format!("{file}: {name} has no number")),
            }
            comment.clear();
            is_test = false;
        } else {
            comment.clear();
            is_test = false;
        }
    }
    (rows, breaches)
}

/// `Happens: ...`, `Weir: ...`, `Lost by: ...`, `Limit: ...`; a line without such a word goes on with the one before.
fn fill(row: &mut Row, comment: &[String]) {
    let mut current = 0;
    for line in comment {
        let words = ["Happens: ", "Weir: ", "Lost by: ", "Limit: "];
        let found = words.iter().enumerate().find_map(|(n, word)| line.strip_prefix(word).map(|rest| (n, rest)));
        let (n, rest) = found.unwrap_or((current, line));
        current = n;
        let field = [&mut row.happens, &mut row.weir, &mut row.lost, &mut row.limit].into_iter().nth(n).expect("one of four");
        if !field.is_empty() {
            field.push(' ');
        }
        field.push_str(rest);
    }
}

fn render() -> (String, Vec<String>) {
    let mut out = String::from(
        "# The tailing catalogue\n\nSixty ways in which log shippers lose, double or break records, and what weir does there. Made from the comments above the tests;\n\
         `UPDATE_EXPECT=1 cargo test --release --test it -- tailing::table` renews it, `cargo test --release --test it -- tailing` runs every row.\n\
         Each test checks what came out against what was written: no record lost, doubled or broken, order per log, and a ledger that balances.\n\
         *Lost by*: issues of other shippers, V vectordotdev/vector, FB fluent/fluent-bit, OC open-telemetry/opentelemetry-collector, OCC its contrib,\n\
         BT elastic/beats, AL grafana/alloy, VL VictoriaMetrics/VictoriaLogs, OA open-telemetry/otel-arrow, K kubernetes/kubernetes.\n",
    );
    let mut breaches = Vec::new();
    let mut seen = BTreeMap::new();
    for (title, file) in SECTIONS {
        let (rows, wrong) = read(file);
        breaches.extend(wrong);
        out.push_str(&format!(
            "\n## {title}\n\n| | what happens | what weir does | lost by | tests | result |\n|---|---|---|---|---|---|\n"
        ));
        for (number, row) in rows {
            if row.happens.is_empty() || row.weir.is_empty() {
                breaches.push(format!("{number} has no row above {}", row.tests[0]));
            }
            let verdict = if row.open.is_empty() { "pass".to_string() } else { format!("**open**: {}", row.open.join("; ")) };
            let result = if row.limit.is_empty() { verdict } else { format!("{verdict}; limit: {}", row.limit) };
            let prefix = format!("s{number:02}_");
            let tests: Vec<String> =
                row.tests.iter().map(|t| t.strip_prefix(&prefix).expect("it has the number").replace('_', " ")).collect();
            let cells = [&row.happens, &row.weir, &row.lost, &tests.join("; "), &result].map(|cell| cell.replace('|', "\\|"));
            out.push_str(&format!("| {number} | {} |\n", cells.join(" | ")));
            if let Some(other) = seen.insert(number, file) {
                breaches.push(format!("{number} stands in {other} and in {file}"));
            }
        }
    }
    breaches.extend(NUMBERS.filter(|number| !seen.contains_key(number)).map(|number| format!("{number} has no test")));
    breaches.extend(seen.keys().filter(|number| !NUMBERS.contains(number)).map(|number| format!("{number} is not in the catalogue")));
    (out, breaches)
}

#[test]
fn every_number_of_the_catalogue_has_a_test_and_a_row() {
    let (_, breaches) = render();
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_table_says_what_the_tests_say() {
    expect_file!["../../../schemas/reference/tailing.md"].assert_eq(&render().0);
}

#[test]
fn rows_are_read_as_they_are_written() {
    let text = "/// Happens: a thing\n/// goes on.\n/// Weir: reads.\n#[test]\nfn s07_reads() {}\n\n#[test]\nfn s07_again() {}\n\n#[test]\nfn other() {}\nfn s08_no_test() {}\n";
    let (rows, breaches) = parse("x", text);
    assert_eq!(rows.len(), 1);
    let row = &rows[&7];
    assert_eq!((row.happens.as_str(), row.weir.as_str(), row.tests.len()), ("a thing goes on.", "reads.", 2));
    assert_eq!(breaches, ["x: other has no number"]);
}
