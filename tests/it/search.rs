//! Search gives exactly the original bytes of what matches, sealed or not, while the program runs and after.

use crate::harness::{Place, root, skip, works};
use crate::input::{assert_same_lines, platform, select};
use crate::stores::commits;
use crate::understand::{csv, shared};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Keeps everything; a seal at 1 MiB and not before.
const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
sinks: { store: { lake: { seal: { bytes: 1MiB, age: 1h }, index_bytes_min: 16KiB } } }
"#;

#[test]
fn search_finds_sealed_and_unsealed_lines_while_the_run_goes_on() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let lines = platform(11, 5400);
    let (first, second) = lines.split_at(3400);
    assert!(first.concat().len() > 1 << 20 && second.concat().len() > 600_000, "half of it must lie on either side of a seal");
    place.append("in/a.log", first.concat());
    let mut running = place.start();
    let lake = place.data().join("lake");
    place.wait_ledger(&mut running, "the first half sealed", |ledger| commits(&lake) > 0 && ledger.received() == 3400);
    place.append("in/a.log", second.concat());
    let ledger = place.wait_received(&mut running, 5400);
    let check = || {
        let errors = select(&lines, |r| r["level"] == "error" && r["tenant"] == "acme-search");
        assert!(errors.len() > 50);
        assert_same_lines("errors of acme-search", &place.search("level:error AND tenant:acme-search"), &errors);
        assert_same_lines("everything", &place.search(""), &select(&lines, |_| true));
        for n in [0, 1500, 3399, 3400, 5399] {
            let id = format!("{:016x}{n:016x}", 11);
            let want = [lines[n].trim_end().as_bytes().to_vec()];
            assert_same_lines("a trace", &place.search(&format!("trace_id:{id}")), &want);
            assert_same_lines("a trace by its bare id", &place.search(&id), &want);
        }
        assert_same_lines(
            "words of a message",
            &place.search("\"out of memory\" -level:info"),
            &select(&lines, |r| r["msg"].as_str().unwrap().contains("out of memory") && r["level"] != "info"),
        );
        assert_same_lines(
            "a comparison",
            &place.search("latency_ms:>8000 status:500"),
            &select(&lines, |r| r["latency_ms"].as_f64().unwrap() > 8000.0 && r["status"] == 500),
        );
        assert_eq!(place.search("trace_id:00000000000000000000000000000000").len(), 0);
    };
    check();
    let after = place.ledger();
    for (when, ledger) in [("before", &ledger), ("after", &after)] {
        let (sealed, waiting) = (ledger.sink("store", "delivered"), ledger.sink("store", "buffered"));
        assert!(sealed >= 2000 && waiting >= 2000, "{when} the search {sealed} were sealed and {waiting} not");
    }
    running.stop();
    check();
    place.ledger().assert_settled();
}

#[test]
fn search_gives_the_bytes_that_jq_finds() {
    let test = "search::search_gives_the_bytes_that_jq_finds";
    if !works("jq", &["--version"]) {
        return skip(test, "needs jq");
    }
    let place = Place::new();
    let lines = platform(12, 2000);
    let input = place.write("in/a.log", lines.concat());
    place.pipeline(PIPELINE);
    place.once();
    let program = ". as $line | fromjson | select(.level == \"error\" and .tenant == \"acme-search\") | $line";
    let jq = Command::new("jq").args(["-R", "-r", program]).arg(&input).output().expect("jq starts");
    assert!(jq.status.success(), "{}", String::from_utf8_lossy(&jq.stderr));
    let want = crate::harness::lines(&jq.stdout);
    assert!(want.len() > 20);
    assert_same_lines("jq's lines", &place.search("level:error AND tenant:acme-search"), &want);
}

#[test]
fn search_reads_loose_files_by_the_same_query() {
    let place = Place::new();
    let lines = platform(13, 300);
    place.pipeline(PIPELINE);
    let plain = place.write("loose.jsonl", lines.concat());
    let path = |name: &str| place.path(name).to_str().expect("text").to_string();
    let packed = zstd::encode_all(lines.concat().as_bytes(), 3).expect("compressed");
    place.write("loose.jsonl.zst", packed);
    let want = select(&lines, |r| r["level"] == "error" && r["tenant"] == "acme-search");
    for name in [plain.to_str().expect("text").to_string(), path("loose.jsonl.zst")] {
        let done = place.run(&["search", "level:error AND tenant:acme-search", "--json", "--limit", "1000000", &name]).good();
        assert_same_lines(&name, &crate::harness::lines(&done.stdout), &want);
    }
}

#[test]
fn search_is_limited_by_tenant_time_and_number() {
    let place = Place::new();
    let lines = platform(14, 1000);
    place.write("in/a.log", lines.concat());
    place.pipeline(PIPELINE);
    place.once();
    let found = |args: &[&str]| crate::harness::lines(&place.run(&[&["search", "level:warn", "--json"], args].concat()).good().stdout);
    assert_same_lines(
        "tenant",
        &found(&["--tenant", "fjord-bank", "--limit", "1000"]),
        &select(&lines, |r| r["level"] == "warn" && r["tenant"] == "fjord-bank"),
    );
    let (from, to) = ("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z");
    let want = select(&lines, |r| r["level"] == "warn" && (from..to).contains(&r["ts"].as_str().unwrap()));
    assert!(want.len() > 5);
    assert_same_lines("time", &found(&["--since", from, "--until", to, "--limit", "1000"]), &want);
    assert_eq!(found(&["--limit", "3"]).len(), 3);
}

#[test]
fn a_wrong_query_shows_where_and_exits_2() {
    let place = Place::new();
    place.write("in/a.log", platform(15, 10).concat());
    place.pipeline(PIPELINE);
    place.once();
    let done = place.run(&["search", "level:(error OR"]).exits(2);
    assert!(done.stderr.contains('^'), "no caret:\n{}", done.stderr);
    let nowhere = crate::harness::finish({
        let mut command = crate::harness::weir();
        command.args(["search", "x", "--data"]).arg(root().join("no-such-folder"));
        command
    });
    assert_ne!(nowhere.code, Some(0), "a data folder that is not there was searched");
}

/// The files of a lake are anybody's: DuckDB counts the same records, whatever was merged or sealed.
#[test]
fn duckdb_reads_the_same_files_and_counts_the_same() {
    let python = std::env::var("WEIR_TABLES_PYTHON").unwrap_or_default();
    if python.is_empty() || !works(&python, &["-c", "import duckdb"]) {
        return skip("search::duckdb_reads_the_same_files_and_counts_the_same", "needs duckdb for Python");
    }
    let place = Place::new();
    let lines = platform(16, 6000);
    place.write("in/a.log", lines.concat());
    place.pipeline(PIPELINE);
    place.once();
    let script = "import duckdb, sys\n\
        for row in duckdb.sql(f\"select tenant, level, count(*), count(distinct trace_id), sum(weight) from read_parquet('{sys.argv[1]}/logs/**/*.parquet', union_by_name=true, hive_partitioning=false) group by all order by all\").fetchall():\n  print(*row)";
    let mut duckdb = Command::new(&python);
    duckdb.args(["-c", script]).arg(place.data().join("lake"));
    let counted = crate::harness::finish(duckdb).good().text();
    let mut want: std::collections::BTreeMap<(String, String), u64> = std::collections::BTreeMap::new();
    for line in &lines {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let text = |name: &str| record[name].as_str().expect("text").to_string();
        *want.entry((text("tenant"), text("level"))).or_default() += 1;
    }
    let want: Vec<String> = want.iter().map(|((tenant, level), n)| format!("{tenant} {level} {n} {n} {n}")).collect();
    assert_eq!(counted.lines().collect::<Vec<_>>(), want);
    let ours = place.run(&["search", "* | stats count(), uniq(trace_id), weight() by (tenant, level) | sort tenant, level"]).good().text();
    let ours: Vec<String> = ours.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(ours, want);
}

/// A column whose name has a dot is found by its place, and lines that were cut for it come back whole.
#[test]
fn fields_with_dots_and_numbers_are_columns_like_others() {
    let place = Place::new();
    place.pipeline(&PIPELINE.replace("seal:", "index: [service, error.code], ids: [trace.id], numbers: [latency_ms, usage.tokens], seal:"));
    let line = |n: u64| {
        format!(
            "{{\"ts\":\"2026-11-20T10:00:00Z\",\"tenant\":\"a\",\"service\":\"s{}\",\"error\":{{\"code\":\"E{}\"}},\"trace\":{{\"id\":\"{n:032x}\"}},\"latency_ms\":{}.25,\"usage\":{{\"tokens\":{n}}},\"msg\":\"line {n}\"}}\n",
            n % 3,
            n % 7,
            n * 3
        )
    };
    let lines: Vec<String> = (0..3_000).map(line).collect();
    place.write("in/a.log", lines.concat());
    place.once();
    assert_same_lines("everything", &place.search(""), &select(&lines, |_| true));
    assert_same_lines(
        "by a code",
        &place.search("error.code:E3 usage.tokens:>100"),
        &select(&lines, |r| r["error"]["code"] == "E3" && r["usage"]["tokens"].as_u64() > Some(100)),
    );
    assert_same_lines("by an id", &place.search(&format!("{:032x}", 1234)), &[lines[1234].trim_end().as_bytes().to_vec()]);
    let table = place.run(&["search", "* | stats count(), sum(usage.tokens) by (error.code) | sort error.code | limit 1"]).good().text();
    let sum: u64 = (0..3_000).filter(|n| n % 7 == 0).sum();
    assert_eq!(
        table.lines().nth(1).map(|row| row.split_whitespace().map(str::to_string).collect::<Vec<_>>()),
        Some(vec!["E0".to_string(), (0..3_000u64).filter(|n| n % 7 == 0).count().to_string(), sum.to_string()])
    );
}

/// The loghub CSVs are the oracle: counts by level, component and event, and which lines hold a word, of sixteen real systems, half
/// of them sealed. The events that their authors found by hand judge the templates that `patterns` mines.
#[test]
fn sixteen_real_systems_are_counted_as_their_csvs_say() {
    let Some(loghub) = shared("data/loghub") else { return };
    let mut folders: Vec<_> = std::fs::read_dir(&loghub).expect("readable").map(|entry| entry.expect("an entry").path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    let mut rows: Vec<BTreeMap<String, String>> = Vec::new();
    for folder in folders {
        let system = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let Ok(text) = std::fs::read(folder.join(format!("{system}_2k.log_structured.csv"))) else { continue };
        for row in csv(&String::from_utf8_lossy(&text)) {
            let mut own: BTreeMap<String, String> = BTreeMap::from([("system".into(), system.clone())]);
            for (column, name) in [("Level", "grade"), ("Component", "component"), ("Content", "msg"), ("EventId", "event")] {
                row.get(column).into_iter().for_each(|value| drop(own.insert(name.into(), value.to_string())));
            }
            rows.push(own);
        }
    }
    assert_eq!(rows.len(), 32_000);
    let place = Place::new();
    place.pipeline(
        r#"
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
sinks: { store: { lake: { index: [system, grade, component, event], seal: { bytes: 1MiB, age: 1h }, index_bytes_min: 16KiB } } }
"#,
    );
    place.append("in/a.log", rows.iter().map(|row| serde_json::to_string(row).expect("text") + "\n").collect::<String>());
    place.once();
    let table = |query: &str| -> Vec<Value> {
        let done = place.run(&["search", query, "--json"]).good();
        crate::harness::lines(&done.stdout).iter().map(|line| serde_json::from_slice(line).expect("JSON")).collect()
    };
    for by in [&["grade"][..], &["component"], &["system", "event"], &["system", "grade", "component"]] {
        let mut want: BTreeMap<Vec<Option<&str>>, u64> = BTreeMap::new();
        for row in &rows {
            *want.entry(by.iter().map(|name| row.get(*name).map(String::as_str)).collect()).or_default() += 1;
        }
        let found = table(&format!("* | stats count() as n by ({})", by.join(", ")));
        let got: BTreeMap<Vec<Option<&str>>, u64> =
            found.iter().map(|row| (by.iter().map(|name| row[*name].as_str()).collect(), row["n"].as_u64().expect("a count"))).collect();
        assert_eq!(got, want, "{by:?}");
    }
    // Words as the manual has them: runs of letters and digits, in any case.
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
    };
    for word in ["error", "block", "authentication", "terminating", "blk", "root", "0", "connection", "nosuchwordanywhere"] {
        let want = rows.iter().filter(|row| words(&row["msg"]).contains(word)).count();
        assert_eq!(table(&format!("{word} | stats count() as n"))[0]["n"], want, "{word}");
    }
    for (pattern, holds) in [
        ("/blk_-?\\d+/", Box::new(|msg: &str| msg.contains("blk_")) as Box<dyn Fn(&str) -> bool>),
        ("/^authentication failure;/", Box::new(|msg: &str| msg.starts_with("authentication failure;"))),
    ] {
        let want = rows.iter().filter(|row| holds(&row["msg"])).count();
        assert!(want > 100);
        assert_eq!(table(&format!("msg:{pattern} | stats count() as n"))[0]["n"], want, "{pattern}");
    }

    // Templates: of each system, how many of the events with at least ten records have a template with exactly as many.
    let (mut right, mut all) = (0, 0);
    for system in rows.iter().map(|row| row["system"].clone()).collect::<BTreeSet<String>>() {
        let mut events: BTreeMap<&str, u64> = BTreeMap::new();
        rows.iter().filter(|row| row["system"] == system).for_each(|row| *events.entry(row["event"].as_str()).or_default() += 1);
        let mut counts: Vec<u64> =
            table(&format!("system:{system} | patterns 1000")).iter().map(|row| row["count"].as_u64().expect("a count")).collect();
        assert_eq!(counts.iter().sum::<u64>(), 2_000, "{system}");
        for records in events.values().copied().filter(|records| *records >= 10) {
            all += 1;
            if let Some(at) = counts.iter().position(|count| *count == records) {
                counts.swap_remove(at);
                right += 1;
            }
        }
    }
    println!("{right} of {all} frequent events have a template of their own");
    assert!(right * 100 >= all * 60, "{right} of {all}");
}
