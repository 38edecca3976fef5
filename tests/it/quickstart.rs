//! The first command of the README, and the bill it prints.

use crate::harness::{Ledger, Place, files_below, finish, root, weir};
use crate::input::{assert_same_lines, assert_same_usage, joined, platform, usage, usage_of_meta, usage_of_report};
use crate::stores::{archive_files, archive_folder, archive_lines, assert_same_trees, commits};
use serde_json::Value;
use std::collections::BTreeMap;

const QUICKSTART: [&str; 3] = ["run", "--once", "pipelines/quickstart.yaml"];

/// Every record of the committed input, without its container's framing.
fn records() -> Vec<Vec<u8>> {
    let read = |name: &str| std::fs::read(root().join("tests/data/quickstart").join(name)).expect("committed");
    let mut records = crate::harness::lines(&read("platform.ndjson"));
    records.extend(joined(&read("pods.cri.log")));
    records
}

fn level(record: &[u8]) -> String {
    let record: Value = serde_json::from_slice(record).expect("the generator writes JSON");
    record["level"].as_str().expect("a level").to_string()
}

#[test]
fn the_quickstart_exits_0_and_accounts_for_every_record() {
    let place = Place::new();
    let done = place.run(&QUICKSTART).good();
    let said = done.text() + &done.stderr;
    for word in ["acme-search", "USD", "6600", "sampled", "error"] {
        assert!(said.replace([',', '_'], "").contains(word), "the summary lacks {word:?}:\n{said}");
    }
    let next = said.lines().filter(|line| line.trim_start().starts_with("weir ")).count();
    assert!(next >= 3, "the summary does not tell three commands to try next:\n{said}");
    let ledger = place.ledger();
    ledger.assert_settled();
    let mut levels: BTreeMap<String, u64> = BTreeMap::new();
    records().iter().for_each(|r| *levels.entry(level(r)).or_default() += 1);
    assert_eq!(ledger.received(), 6600);
    assert_eq!(ledger.received() + ledger.created(), ledger.kept() + ledger.dropped()["sampled"]);
    assert_eq!(ledger.created(), 8, "for each tenant, how many info lines its sampler saw");
    assert_eq!(ledger.dropped().len(), 1, "{:?}", ledger.dropped());
    // Errors and warnings stay, debug goes, and of info about a tenth of the requests.
    let info = ledger.kept() - ledger.created() - levels["error"] - levels["warn"];
    assert!((300..=620).contains(&info), "{info} info lines of {} kept", levels["info"]);
    for sink in ["files", "store"] {
        assert_eq!(ledger.sink(sink, "delivered"), ledger.kept(), "{sink}");
    }
}

/// What the README shows below these commands is what they print.
#[test]
fn the_readme_shows_what_the_quickstart_says() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("committed");
    let place = Place::new();
    let summary = place.run(&QUICKSTART).good();
    let summary = summary.text() + &summary.stderr;
    let ledger = place.run(&["ledger", "--recount"]).good().text();
    let mine = "sources:\n  app: { file: { include: [\"logs/app/*.log\"], formt: json } }\nsteps:\n  - sample: { levels: { error: all, info: { ratio: 15, key: id } } }\nsinks: { out: { stdout: {} } }\n";
    place.write("mine.yaml", mine);
    let mut check = weir();
    check.args(["check", "mine.yaml"]).current_dir(place.path(""));
    let mistakes = finish(check).exits(2);
    let mistakes = mistakes.text() + &mistakes.stderr;
    let blocks = [("```text\nquickstart: 6600", &summary), ("$ weir ledger --recount\n", &ledger), ("$ weir check mine.yaml\n", &mistakes)];
    for (from, said) in blocks {
        let at = readme.find(from).expect("the README has this block");
        let shown = &readme[at..at + 8 + readme[at + 8..].find("```").expect("a block ends")];
        for line in shown.lines().filter(|line| !line.is_empty() && !line.starts_with(['`', '$']) && line.trim() != "…") {
            // This data folder is not the one that is used where none is named.
            assert_shown(line.split(" --data ").next().unwrap_or(line), said);
        }
    }
}

/// Some line of what was said has the words of the one that is shown, or begins with them where it is cut by `…`.
#[track_caller]
fn assert_shown(line: &str, said: &str) {
    let words = |text: &str| text.split(" --data ").next().unwrap_or(text).split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let (start, is_cut) = line.split_once('…').map_or((line, false), |(start, _)| (start, true));
    let start = start.trim_end();
    let is_it = |other: &str| if is_cut { other.trim_start().starts_with(start.trim_start()) } else { words(other) == words(line) };
    assert!(said.lines().any(is_it), "the README shows {line:?}, but weir said\n{said}");
}

/// Every command of "What you have now" prints what stands below it.
#[test]
fn the_readme_shows_what_its_questions_are_answered() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("committed");
    let place = Place::new();
    let mut first = weir();
    first.args(QUICKSTART).arg("--data").arg(place.path("weir-data"));
    finish(first).good();
    let from = readme.find("## What you have now").expect("the section is there");
    let section = &readme[from..from + readme[from..].find("## Your own logs").expect("so is the next")];
    let program = weir().get_program().to_str().expect("text").to_string();
    let mut asked = 0;
    for block in section.split("```").skip(1).step_by(2) {
        let mut said = String::new();
        for line in block.lines().skip(1).filter(|line| !line.trim().is_empty() && line.trim() != "…") {
            if let Some(command) = line.strip_prefix("$ weir ") {
                let mut shell = std::process::Command::new("sh");
                shell.args(["-c", &format!("{program} {command}")]).current_dir(place.path(""));
                said = finish(shell).good().text();
                asked += 1;
            } else if asked > 0 {
                assert_shown(line, &said);
            }
        }
    }
    assert!(asked >= 8, "{asked} commands: this test reads the README wrongly");
}

#[test]
fn the_quickstart_archive_holds_the_original_bytes_of_what_was_kept_and_how_many_each_stands_for() {
    let place = Place::new();
    place.run(&QUICKSTART).good();
    let kept = archive_lines(&place.data(), "files");
    let of_input: std::collections::BTreeSet<Vec<u8>> = records().into_iter().collect();
    let (mut stands_for, mut seen) = (0, 0);
    for line in &kept {
        let record: Value = serde_json::from_slice(line).expect("JSON");
        match record["seen"].as_u64() {
            Some(records) => seen += records,
            None if record["sample_rate"].is_null() => assert!(of_input.contains(line), "a line nobody wrote: {record}"),
            None => {
                stands_for += record["sample_rate"].as_u64().expect("a number");
                let text = String::from_utf8(line.clone()).expect("text");
                let original = text.replacen("\"sample_rate\":10,\"sampler\":\"steps[3].sample\",", "", 1);
                assert!(of_input.contains(original.as_bytes()), "a line nobody wrote: {record}");
            }
        }
    }
    let info = records().iter().filter(|r| level(r) == "info").count() as u64;
    assert_eq!(seen, info, "what the sampler says it saw");
    assert!(stands_for.abs_diff(info) < info / 5, "{stands_for} for {info}");
    let whole = |levels: [&str; 2]| -> Vec<Vec<u8>> { records().into_iter().filter(|r| levels.contains(&level(r).as_str())).collect() };
    let important: Vec<Vec<u8>> = kept.iter().filter(|r| level(r) != "info").cloned().collect();
    assert_same_lines("errors and warnings", &important, &whole(["error", "warn"]));
    assert_same_lines("the lake against the archive", &place.search(""), &kept);
    let names = files_below(&archive_folder(&place.data(), "files"));
    assert!(names.iter().any(|name| name.extension().is_some_and(|e| e == "zst")), "nothing was rotated and compressed: {names:?}");
    assert!(names.iter().any(|name| name.extension().is_some_and(|e| e == "log")), "nothing is open: {names:?}");
}

#[test]
fn a_second_run_on_the_same_data_folder_adds_nothing() {
    let place = Place::new();
    place.run(&QUICKSTART).good();
    let state = || {
        (
            archive_lines(&place.data(), "files").len(),
            archive_files(&place.data(), "files"),
            files_below(&place.data().join("lake")),
            place.ledger().0,
        )
    };
    let (before, bill) = (state(), place.ask(&["cost", "report"]));
    let done = place.run(&["run", "--once", "--json", "pipelines/quickstart.yaml"]).good();
    assert_eq!(Ledger::of(&place.ask(&["ledger"])).residual(), 0, "{}", done.stderr);
    assert_eq!(state(), before);
    assert_eq!(place.ask(&["cost", "report"]), bill);
}

#[test]
fn two_runs_into_fresh_folders_give_byte_identical_stores() {
    let (a, b) = (Place::new(), Place::new());
    a.run(&QUICKSTART).good();
    b.run(&QUICKSTART).good();
    assert!(commits(&a.data().join("lake")) > 0);
    for store in ["archive", "lake"] {
        assert_same_trees(&a.data().join(store), &b.data().join(store));
    }
}

#[test]
fn the_bill_of_the_quickstart_equals_the_sums_of_the_generator_although_most_lines_were_dropped() {
    let place = Place::new();
    place.run(&QUICKSTART).good();
    let metas = ["platform.ndjson", "pods.cri.log"].map(|name| root().join(format!("tests/data/quickstart/{name}.meta.json")));
    let got = usage_of_report(&place.ask(&["cost", "report", "--by", "tenant,service,model,meter"]));
    assert_same_usage(&got, &usage_of_meta(&metas));
    assert_same_usage(&got, &usage(records().iter().map(Vec::as_slice)));
}

/// The steps of the quickstart over other input.
const OTHER: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: tokens_in, quantity: tokens_in, unit: Tokens, by: [service, model] }
  - meter: { name: tokens_cached, quantity: tokens_cached, unit: Tokens, by: [service, model], part_of: tokens_in }
  - meter: { name: tokens_out, quantity: tokens_out, unit: Tokens, by: [service, model] }
  - sample: { levels: { error: all, warn: all, info: { first: 1, thereafter: 0, tick: 1h }, debug: none } }
sinks: { store: { lake: { seal: { bytes: 64KiB } } } }
rates: rates.yaml
"#;

#[test]
fn the_bill_is_exact_over_many_files_and_seals() {
    let place = Place::new();
    let lines: Vec<String> = (1..=5).flat_map(|seed| platform(seed, 4000)).collect();
    for (n, part) in lines.chunks(4000).enumerate() {
        place.write(&format!("in/{n}.log"), part.concat());
    }
    place.pipeline(OTHER);
    place.once();
    assert!(commits(&place.data().join("lake")) > 1, "one seal only: the test does not test what it says");
    let got = usage_of_report(&place.ask(&["cost", "report"]));
    assert_same_usage(&got, &usage(lines.iter().map(String::as_bytes)));
    let ledger = place.ledger();
    assert!(ledger.kept() < ledger.received() / 2, "sampling dropped too little to show anything");
}

#[test]
fn a_report_that_asks_for_no_grouping_fits_whatever_the_meters_tell_apart() {
    for by in ["[]", "[service]", "[region, service]"] {
        let place = Place::new();
        place.write("in/a.log", platform(9, 50).concat());
        place.pipeline(&OTHER.replace("[service, model]", by));
        place.once();
        let report = place.ask(&["cost", "report"]);
        let quantities = report["usage"].as_array().expect("rows").iter().filter(|row| row["meter"] == "tokens_out");
        let events: u64 = quantities.map(|row| row["events"].as_u64().expect("a count")).sum();
        assert_eq!(events, 50, "by: {by}");
    }
}

#[test]
fn prices_of_a_card_add_up_to_the_bill() {
    let place = Place::new();
    place.run(&QUICKSTART).good();
    let report = place.ask(&["cost", "report"]);
    assert!(report["rows"].as_array().is_some_and(|rows| rows.len() > 50), "charges are missing: {report}");
    // The card given by hand is the card of the run.
    let again = place.ask(&["cost", "report", "--card", "pipelines/rates.yaml"]);
    assert_eq!(again["rows"], report["rows"]);
    // orca-8b-it, input 0.10, cached 0.025, output 0.20 for a million: cost in 10^-12 USD is exact in integers.
    let usage = usage(records().iter().map(Vec::as_slice));
    let sum = |meter: &str| -> i128 {
        usage.iter().filter(|(key, _)| key.starts_with(&format!("{meter}|")) && key.contains("|orca-8b-it|")).map(|(_, sum)| sum.0).sum()
    };
    let want = (sum("tokens_in") - sum("tokens_cached")) * 100_000 + sum("tokens_cached") * 25_000 + sum("tokens_out") * 200_000;
    let by_model = place.ask(&["cost", "report", "--by", "model"]);
    let got: i128 = by_model["rows"].as_array().expect("rows").iter().filter(|row| row["model"] == "orca-8b-it").map(cost_e12).sum();
    assert_eq!(got, want, "{}", by_model["rows"]);
}

/// A row's cost in 10^-12 of the currency, from its decimal text.
fn cost_e12(row: &Value) -> i128 {
    let text = row["cost"].as_str().or_else(|| row["amount"].as_str()).unwrap_or_else(|| panic!("no cost in {row}"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<12}").parse().unwrap_or_else(|_| panic!("{text} is no decimal"))
}

#[test]
fn lineage_leads_from_a_dataset_to_the_reports_and_back() {
    let place = Place::new();
    place.run(&QUICKSTART).good();
    let down = place.ask(&["lineage", "down", "s3://corpora/code-2026"]).to_string();
    for name in ["forge-34b-code", "orca-70b-it", "platform-overview", "weekly-quality"] {
        assert!(down.contains(name), "down of the dataset lacks {name}: {down}");
    }
    assert!(!down.contains("echo-asr-large-v3"), "{down}");
    let up = place.ask(&["lineage", "up", "weekly-quality"]).to_string();
    for name in ["chat-8b-decode", "orca-8b-it", "web-2026"] {
        assert!(up.contains(name), "up of the report lacks {name}: {up}");
    }
    assert!(!up.contains("speech-2025"), "{up}");
    place.run(&["lineage", "up", "no-such-node"]).exits(2);
}

#[test]
fn progress_and_colour_stay_out_of_pipes_and_json_is_one_value() {
    let place = Place::new();
    let done = place.run(&["run", "--once", "--json", "pipelines/quickstart.yaml"]).good();
    let summary = done.json();
    assert_eq!(summary["residual"], 0, "{summary}");
    assert!(!done.stdout.contains(&0x1b) && !done.stderr.contains('\u{1b}'), "escape codes in a pipe:\n{}", done.stderr);
    let quiet = Place::new().run(&["run", "--once", "--quiet", "pipelines/quickstart.yaml"]).good();
    assert!(quiet.stdout.is_empty(), "{}", quiet.text());
}

#[test]
fn schemas_and_completions_print_for_every_kind() {
    let ask = |args: &[&str]| {
        let mut command = weir();
        command.args(args);
        finish(command)
    };
    for kind in ["config", "rate-card"] {
        let schema = ask(&["schema", kind]).good();
        let committed = std::fs::read(root().join(format!("schemas/{kind}.schema.json"))).expect("committed");
        let same = schema.json() == serde_json::from_slice::<Value>(&committed).expect("JSON");
        assert!(same, "schemas/{kind}.schema.json is not what `weir schema {kind}` prints");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(ask(&["completion", shell]).good().text().contains("weir"), "{shell}");
    }
    ask(&["completion", "no-shell"]).exits(2);
    ask(&["no-verb"]).exits(2);
}

#[test]
fn a_data_folder_has_one_owner_at_a_time() {
    let place = Place::new();
    place.write("in/a.log", platform(1, 10).concat());
    place.pipeline(OTHER);
    let mut first = place.start();
    place.wait_received(&mut first, 10);
    let second = place.run(&["run", "--once", place.path("pipeline.yaml").to_str().expect("text")]).exits(1);
    assert!(second.stderr.contains("data"), "{}", second.stderr);
    first.stop();
}
