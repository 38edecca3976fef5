//! Queries that want too much end soon and say so.

use super::*;
use std::time::{Duration, Instant};

fn small() -> Vec<Source> {
    let lines: Vec<Line> =
        (0..2000).map(|i| line("acme", START + i, &format!(r#"{{"service":"s{i}","msg":"{}"}}"#, "m".repeat(200)))).collect();
    vec![source(&frames(&lines, 500), 2, &["service"])]
}

#[track_caller]
fn soon(sources: &[Source], sql: &str) -> Result<(String, Stats), SqlError> {
    let begun = Instant::now();
    let over = move || begun.elapsed() > Duration::from_secs(5);
    let answer = run(sources, sql, &SqlOptions { is_over: &over, ..bounds(None) }, Format::Csv);
    // 5 s are the deadline; the rest is for a machine that is busy with other tests.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}: {}", begun.elapsed(), &sql[..sql.len().min(100)]);
    answer
}

#[test]
fn deep_and_long_queries_are_refused_or_answered_and_never_overflow() {
    let sources = small();
    let nested = |open: &str, close: &str, n: usize| format!("SELECT {}1{}", open.repeat(n), close.repeat(n));
    for sql in [
        nested("(", ")", 10_000),
        nested("(SELECT ", ")", 10_000),
        nested("CASE WHEN true THEN ", " END", 10_000),
        nested("NOT ", "", 10_000),
        nested("- ", "", 10_000),
        nested("abs(", ")", 1_000),
        format!("SELECT '{}'", "x".repeat(1 << 20)),
        "SELECT 1 ".repeat(200_000),
        "(".repeat(1 << 20),
        format!("SELECT {}", "a,".repeat(100_000)),
        format!("SELECT 1{}", "+1".repeat(10_000)),
        format!("SELECT * FROM {}logs{}", "(SELECT * FROM ".repeat(1_000), ")".repeat(1_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(5_000)),
    ] {
        let error = soon(&sources, &sql).map(|answer| answer.1).unwrap_err();
        assert!(error.is_mistake(), "{error}");
        assert!(error.to_string().len() < 2_000, "an error repeats the query");
    }
    // As large as they may be: answered or refused, without an overflow of the stack.
    for sql in [
        format!("SELECT 1{}", "+1".repeat(500)),
        format!("SELECT count(*) FROM logs WHERE {}true", "service = 'a' OR ".repeat(250)),
        format!("SELECT count(*) FROM logs WHERE {}true", "NOT ".repeat(40)),
        nested("CASE WHEN true THEN ", " END", 45),
        nested("CASE WHEN true THEN ", " END", 500),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(500)),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(300)),
        format!("SELECT * FROM {}logs{}", "(SELECT * FROM ".repeat(15), ")".repeat(15)),
        format!("SELECT count(*) FROM logs WHERE service IN ({}'x')", "'abc',".repeat(2_000)),
        format!("SELECT {}1", "abs(severity),".repeat(800).replace("abs(severity)", "1")),
    ] {
        if let Err(error) = soon(&sources, &sql) {
            assert!(error.is_mistake(), "{}: {error}", &sql[..60]);
        }
    }
}

#[test]
fn memory_beyond_the_bound_is_an_error_that_names_it() {
    let sources = small();
    let options = |bytes| SqlOptions { memory_bytes_max: bytes, ..bounds(None) };
    for sql in [
        "SELECT raw, count(*) FROM logs GROUP BY raw",
        "SELECT raw FROM logs ORDER BY msg, raw",
        "SELECT a.raw FROM logs a JOIN logs b ON a.raw = b.raw",
        "SELECT array_agg(raw) FROM logs",
        "SELECT raw, sum(weight) OVER () FROM logs",
    ] {
        let error = run(&sources, sql, &options(256 << 10), Format::Csv).map(|answer| answer.1).unwrap_err();
        assert!(matches!(error, SqlError::Memory { .. }), "{sql}: {error}");
        assert!(error.to_string().contains("query.memory") && error.to_string().contains("256KiB"), "{error}");
        assert!(!error.is_mistake());
        assert!(run(&sources, sql, &options(512 << 20), Format::Csv).is_ok(), "{sql} needs no more than 512 MiB");
    }
    // Texts that grow with each level are not held by any operator.
    let doubled =
        (0..14).fold("SELECT raw::text AS a0 FROM logs".to_owned(), |inner, n| format!("SELECT a{n} || a{n} AS a{} FROM ({inner})", n + 1));
    let error = soon(&sources, &format!("SELECT max(length(a14)) FROM ({doubled})")).map(|answer| answer.0).unwrap_err();
    assert!(matches!(error, SqlError::Memory { .. }), "{error}");
    for sql in
        ["SELECT repeat('x', 2000000000)", "SELECT lpad('x', 2000000000)", "SELECT random()", "SELECT array_agg(raw) OVER () FROM logs"]
    {
        refused(&sources, sql, "");
    }
}

#[test]
fn what_never_ends_is_ended() {
    let sources = small();
    // 1.6e13 pairs of rows.
    let sql = "SELECT count(*) FROM logs a, logs b, logs c, logs d WHERE a.raw || b.raw > c.raw || d.raw";
    let begun = Instant::now();
    let over = move || begun.elapsed() > Duration::from_millis(300);
    match run(&sources, sql, &SqlOptions { is_over: &over, ..bounds(None) }, Format::Csv) {
        Ok((text, stats)) => assert_eq!((text.as_str(), stats.partial), ("", Some(Partial::Time))),
        Err(error) => assert!(matches!(error, SqlError::Memory { .. }), "{error}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    refused(&sources, "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t", "ecursive");
}

#[test]
fn a_hostile_pattern_ends() {
    let sources = small();
    for pattern in ["(a*)*b", "(x+x+)+y", &"(".repeat(5_000), &"a{1000}".repeat(100), "\\"] {
        let _ = soon(&sources, &format!("SELECT count(*) FROM logs WHERE msg ~ '{pattern}'")); // an answer or a word: in time
        let _ = soon(&sources, &format!("SELECT count(*) FROM logs WHERE regexp_like(msg, '{pattern}')"));
    }
    let _ = soon(&sources, &format!("SELECT count(*) FROM logs WHERE msg LIKE '{}'", "%m".repeat(20_000)));
}
