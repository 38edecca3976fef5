//! SQL over the tables of a data folder: the real program's answers against sums made here from the lines, sealed, unsealed and half.

use crate::harness::{Done, Place, lines};
use crate::input::{METERS, platform, usage};
use crate::stores::commits;
use serde_json::Value;
use std::collections::BTreeMap;

/// Keeps everything; a seal at 1 MiB and not before.
const PIPELINE: &str = r#"
rates: $DIR/card.yaml
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: tokens_in, quantity: tokens_in, unit: Tokens, by: [service, model] }
  - meter: { name: tokens_cached, quantity: tokens_cached, unit: Tokens, by: [service, model] }
  - meter: { name: tokens_out, quantity: tokens_out, unit: Tokens, by: [service, model] }
sinks: { store: { lake: { seal: { bytes: 1MiB, age: 1h }, numbers: [latency_ms, status] } } }
"#;

/// A thousandth of a dollar for each token that was written.
const CARD: &str = r#"
currency: USD
versions: [{ name: v1, from: 2026-01-01T00:00:00Z, prices: [{ sku: out, meter: tokens_out, price: "0.001", per: 1, unit: Tokens }] }]
"#;

fn place() -> Place {
    let place = Place::new();
    place.pipeline(PIPELINE);
    place.write("card.yaml", CARD);
    place
}

/// The rows of an answer as CSV, in order, without the names of the columns.
#[track_caller]
fn ask(place: &Place, sql: &str, args: &[&str]) -> Vec<String> {
    let done = place.run(&[&["sql", sql, "--csv"], args].concat()).good();
    lines(&done.stdout).into_iter().skip(1).map(|line| String::from_utf8(line).expect("text")).collect()
}

fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().expect("the generator writes it")
}

/// How often each value occurs.
fn count<'a>(records: &'a [Value], name: &str) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    records.iter().for_each(|record| *counts.entry(text(record, name)).or_default() += 1);
    counts
}

/// Every question whose answer is known from the lines alone.
fn check(place: &Place, lines: &[String]) {
    let records: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for field in ["level", "tenant", "service"] {
        let want: Vec<String> = count(&records, field).iter().map(|(value, n)| format!("{value},{n}")).collect();
        assert_eq!(ask(place, &format!("SELECT {field}, count(*) FROM logs GROUP BY {field} ORDER BY {field}"), &[]), want);
    }
    let own: Vec<Value> = records.iter().filter(|record| text(record, "tenant") == "acme-search").cloned().collect();
    for sql in ["SELECT count(*) FROM logs", "SELECT count(*) FROM logs WHERE tenant <> 'x' OR true"] {
        assert_eq!(ask(place, sql, &["--tenant", "acme-search"]), [own.len().to_string()]);
    }
    let slow = |record: &&Value| text(record, "level") == "error" && record["latency_ms"].as_f64().expect("a number") > 8000.0;
    assert_eq!(
        ask(place, "SELECT count(*) FROM logs WHERE level = 'error' AND latency_ms > 8000", &[]),
        [records.iter().filter(slow).count().to_string()]
    );
    let day = |record: &&Value| text(record, "ts").starts_with("2026-11-11");
    assert_eq!(
        ask(place, "SELECT count(*) FROM logs WHERE time >= '2026-11-11T00:00:00Z' AND time < '2026-11-12T00:00:00Z'", &[]),
        [records.iter().filter(day).count().to_string()]
    );
    check_percentiles(place, &records);
    let id = text(&records[lines.len() - 1], "trace_id");
    let line = ask(place, &format!("SELECT raw FROM logs WHERE trace_id = '{id}'"), &[]);
    assert_eq!(line, [format!("\"{}\"", lines[lines.len() - 1].trim_end().replace('"', "\"\""))]);
    let mut sums: BTreeMap<(String, String), i128> = BTreeMap::new();
    for (key, (quantity, _)) in usage(lines.iter().map(String::as_bytes)) {
        let mut parts = key.split('|').map(str::to_owned);
        let (meter, tenant) = (parts.next().expect("a meter"), parts.next().expect("a tenant"));
        *sums.entry((tenant, meter)).or_default() += quantity;
    }
    assert!(sums.len() >= METERS.len() * 3);
    let want: Vec<String> = sums.iter().map(|((tenant, meter), sum)| format!("{tenant},{meter},{sum}")).collect();
    assert_eq!(ask(place, "SELECT tenant, meter, sum(quantity) FROM usage GROUP BY tenant, meter ORDER BY tenant, meter", &[]), want);
}

/// Between two values a percentile lies on the line that joins them, to a millionth of their distance: that is how exact the engine is.
fn check_percentiles(place: &Place, records: &[Value]) {
    let mut services: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for record in records {
        services.entry(text(record, "service")).or_default().push(record["latency_ms"].as_f64().expect("a number"));
    }
    let sql = "SELECT service, median(latency_ms), percentile_cont(0.99) WITHIN GROUP (ORDER BY latency_ms), max(latency_ms) \
               FROM logs GROUP BY service ORDER BY service";
    let got = ask(place, sql, &[]);
    assert_eq!(got.len(), services.len());
    for (row, (service, values)) in got.iter().zip(&mut services) {
        values.sort_by(f64::total_cmp);
        let at = |p: f64| {
            let place = p * (values.len() - 1) as f64;
            let (low, part) = (place.floor() as usize, place.fract());
            values[low] + (values[(low + 1).min(values.len() - 1)] - values[low]) * part
        };
        let cells: Vec<&str> = row.split(',').collect();
        assert_eq!(cells[0], *service);
        for (cell, want) in cells[1..].iter().zip([at(0.5), at(0.99), at(1.0)]) {
            let got: f64 = cell.parse().expect("a number");
            let distance = values.windows(2).map(|pair| pair[1] - pair[0]).fold(1.0, f64::max);
            assert!((got - want).abs() <= 1e-6 * distance, "{service}: {got}, and not {want}");
        }
    }
}

#[test]
fn sql_counts_what_was_logged_sealed_unsealed_and_half() {
    let place = place();
    let lines = platform(31, 5400);
    let (first, second) = lines.split_at(3400);
    place.append("in/a.log", first[..500].concat());
    let mut running = place.start();
    let lake = place.data().join("lake");
    place.wait_received(&mut running, 500);
    assert_eq!(commits(&lake), 0, "nothing is sealed yet");
    check(&place, &first[..500]);
    place.append("in/a.log", first[500..].concat());
    place.wait_ledger(&mut running, "the first half sealed", |ledger| commits(&lake) > 0 && ledger.received() == 3400);
    place.append("in/a.log", second.concat());
    let ledger = place.wait_received(&mut running, 5400);
    assert!(ledger.sink("store", "delivered") >= 2000 && ledger.sink("store", "buffered") >= 2000, "half lies on either side");
    check(&place, &lines);
    running.stop();
    check(&place, &lines);
}

#[test]
fn logs_join_charges_and_a_tenant_sees_its_own_alone() {
    let place = place();
    let lines = platform(32, 2000);
    place.write("in/a.log", lines.concat());
    place.once();
    place.ask(&["cost", "close", "--at", "2026-11-20T00:00:00Z"]);
    let records: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut tokens: BTreeMap<&str, u64> = BTreeMap::new();
    for record in &records {
        *tokens.entry(text(record, "tenant")).or_default() += record["tokens_out"].as_u64().expect("a number");
    }
    let counts = count(&records, "tenant");
    let sql = "SELECT l.tenant, l.n, c.cost FROM (SELECT tenant, count(*) AS n FROM logs GROUP BY tenant) l \
               JOIN (SELECT tenant, sum(billed_cost) AS cost FROM charges GROUP BY tenant) c ON l.tenant = c.tenant ORDER BY l.tenant";
    let want: Vec<String> = counts
        .iter()
        .map(|(tenant, n)| {
            let (whole, rest) = (tokens[tenant] / 1000, tokens[tenant] % 1000);
            let cost = format!("{whole}.{rest:03}");
            format!("{tenant},{n},{}", cost.trim_end_matches('0').trim_end_matches('.'))
        })
        .collect();
    assert!(want.len() > 3);
    assert_eq!(ask(&place, sql, &[]), want);
    let own: Vec<String> = want.iter().filter(|row| row.starts_with("acme-search,")).cloned().collect();
    assert_eq!(ask(&place, sql, &["--tenant", "acme-search"]), own);
    for sql in ["SELECT * FROM logs", "SELECT * FROM usage", "SELECT * FROM charges", "SELECT * FROM logs WHERE tenant = 'fjord-bank'"] {
        let done = place.run(&["sql", sql, "--json", "--tenant", "acme-search"]).good();
        assert!(!String::from_utf8_lossy(&done.stdout).contains("fjord-bank"), "{sql}");
    }
    let done = place.run(&["sql", "SELECT tenant, severity, time FROM logs ORDER BY time LIMIT 1", "--json"]).good();
    let row: Value = serde_json::from_slice(&done.stdout).expect("one JSON object");
    assert_eq!((row["tenant"].is_string(), row["severity"].is_number()), (true, true));
    let done = place.run(&["sql", "SELECT 1 AS one, 'two' AS two"]).good();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "one  two\n---  ---\n  1  two\n");
}

#[test]
fn a_statement_that_is_wrong_or_wants_too_much_says_so_and_ends_nothing() {
    let place = place();
    let lines = platform(33, 3000);
    place.write("in/a.log", lines.concat());
    let mut running = place.start();
    place.wait_received(&mut running, 3000);
    let fails = |args: &[&str], code: i32| -> String {
        let done: Done = place.run(&[&["sql"], args].concat()).exits(code);
        done.stderr
    };
    let wrong = fails(&["SELECT servce FROM logs"], 2);
    let want = "error: query:1:8: there is no column servce\n  SELECT servce FROM logs\n         ^\n  help: did you mean service?\n";
    assert_eq!(wrong, want);
    assert!(fails(&["SELECT * FROM log"], 2).contains("help: did you mean logs?"));
    for sql in [
        "",
        "SELEC 1",
        "SELECT count(* FROM logs",
        "DROP TABLE logs",
        "DELETE FROM logs",
        "INSERT INTO logs SELECT * FROM logs",
        "CREATE TABLE t AS SELECT * FROM logs",
        "COPY logs TO '/tmp/weir-sql-test.csv'",
        "CREATE EXTERNAL TABLE t (x TEXT) STORED AS CSV LOCATION '/etc/passwd'",
        "SET datafusion.execution.target_partitions = 100",
        "SELECT * FROM '/etc/passwd'",
        "SELECT 1; SELECT 2",
    ] {
        let error = fails(&[sql], 2);
        assert!(error.starts_with("error: query"), "{sql}: {error}");
    }
    assert!(fails(&["DROP TABLE logs"], 2).contains("DROP is not possible here"));
    let error = fails(&["SELECT raw FROM logs ORDER BY raw", "--memory", "256KiB"], 1);
    assert!(error.contains("more memory than") && error.contains("256KiB"), "{error}");
    let error = fails(
        &[
            "SELECT count(*) FROM logs a, logs b WHERE levenshtein(a.service, b.model) + levenshtein(a.model, b.service) < 0",
            "--deadline",
            "300ms",
        ],
        1,
    );
    assert!(error.contains("the answer is not whole: the 0.3 s for one question were over"), "{error}");
    let error = fails(&["SELECT raw FROM logs", "--limit", "10"], 1);
    assert!(error.contains("more than 10 rows"), "{error}");
    assert!(running.is_running());
    assert_eq!(ask(&place, "SELECT count(*) FROM logs", &[]), ["3000"]);
    running.stop();
}
