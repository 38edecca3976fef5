//! A tenant sees its own rows and nothing of another: no row, no name, no number, however it asks.

use super::*;

const SECRET: &str = "s3cret";

/// A lake of `acme` and `other`: sealed files of both, and a tail of both. `other` alone has the column `vault`.
fn lake_of_two() -> Vec<Source> {
    let own = |i: i64| line("acme", START + i, &format!(r#"{{"service":"auth","msg":"mine {i}"}}"#));
    let foreign = |i: i64| line("other", START + i, &format!(r#"{{"service":"{SECRET}","msg":"{SECRET} {i}","trace_id":"{SECRET}"}}"#));
    let lines: Vec<Line> = (0..20).map(|i| if i % 2 == 0 { own(i) } else { foreign(i) }).collect();
    vec![source(&frames(&lines, 5), 2, &["service"])]
}

#[test]
fn nothing_of_another_tenant_shows_however_it_is_asked_for() {
    let sources = lake_of_two();
    let tries = [
        "SELECT * FROM logs",
        "SELECT * FROM logs WHERE tenant = 'other'",
        "SELECT * FROM logs WHERE tenant <> 'acme'",
        "SELECT * FROM logs WHERE tenant = 'acme' OR 1 = 1",
        "SELECT * FROM logs WHERE NOT (tenant = 'acme') IS NOT TRUE",
        "SELECT logs.* FROM logs",
        "SELECT x.* FROM logs AS x WHERE x.tenant = 'other'",
        "SELECT \"tenant\", \"raw\" FROM \"logs\"",
        "SELECT * FROM weir.public.logs",
        "SELECT * FROM public.logs",
        "SELECT * FROM logs UNION ALL SELECT * FROM logs WHERE tenant = 'other'",
        "SELECT * FROM (SELECT * FROM logs WHERE tenant = 'other') AS acme",
        "WITH acme AS (SELECT * FROM logs WHERE tenant = 'other') SELECT * FROM acme",
        "WITH logs AS (SELECT * FROM weir.public.logs) SELECT * FROM logs",
        "SELECT (SELECT max(raw) FROM logs WHERE tenant = 'other')",
        "SELECT a.raw, b.raw FROM logs a FULL JOIN logs b ON a.position = b.position",
        "SELECT count(*), min(service), max(service), string_agg(service, ',') FROM logs",
        "SELECT DISTINCT tenant FROM logs",
        "SELECT tenant, count(*) FROM usage GROUP BY tenant",
        "SELECT * FROM usage WHERE tenant = 'other'",
        "SELECT * FROM lineage",
        "SELECT * FROM charges",
        "EXPLAIN SELECT * FROM logs WHERE tenant = 'other'",
        "EXPLAIN VERBOSE SELECT * FROM logs",
        "EXPLAIN ANALYZE SELECT count(*) FROM logs",
        "EXPLAIN ANALYZE VERBOSE SELECT count(*) FROM logs WHERE tenant = 'other'",
        "SHOW TABLES",
        "DESCRIBE logs",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.views",
        "SELECT * FROM information_schema.df_settings",
        "SELECT * FROM information_schema.schemata",
        "SELECT rank() OVER (ORDER BY time), raw FROM logs",
        "SELECT * FROM logs ORDER BY CASE WHEN tenant = 'other' THEN 0 ELSE 1 END LIMIT 1",
    ];
    let mut answered = 0;
    for sql in tries {
        for format in [Format::Json, Format::Csv, Format::Table] {
            match run(&sources, sql, &bounds(Some(b"acme")), format) {
                Ok((text, stats)) => {
                    answered += 1;
                    assert!(!text.contains(SECRET), "{sql}\n{text}");
                    // A plan repeats the question, and settings are told in words.
                    let of_rows = !sql.starts_with("EXPLAIN") && !sql.contains("information_schema");
                    assert!(!(of_rows && text.contains("other")), "{sql}\n{text}");
                    // (Settings of the engine have such words in their names.)
                    assert!(sql.contains("df_settings") || !text.contains(".parquet") && !text.contains("tenant="), "{sql}\n{text}");
                    // Sealed are 10 lines: 5 of each tenant, in two commits; a scan of `logs` reads the tenant's two files.
                    assert!(stats.files % 2 == 0 && stats.files <= 4, "{sql}: {stats:?}");
                }
                Err(error) => assert!(!error.to_string().contains(SECRET), "{sql}\n{error}"),
            }
        }
    }
    assert!(answered > tries.len() * 2, "only {answered} tries were answered");
    assert_eq!(answer(&sources, "SELECT count(*) FROM logs", Some(b"acme")), ["10"]);
    assert_eq!(answer(&sources, "SELECT count(*) FROM logs", Some(b"other")), ["10"]);
    assert_eq!(answer(&sources, "SELECT count(*) FROM logs", Some(b"")), ["0"]);
    assert_eq!(answer(&sources, "SELECT count(*) FROM usage", Some(b"acme")), ["10"]);
    assert_eq!(answer(&sources, "SELECT count(*) FROM logs", None), ["20"]);
}

/// The other tenant's files are not even opened: without them the answer is the same.
#[test]
fn a_file_of_another_tenant_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<Line> = (0..10).map(|i| line(if i % 2 == 0 { "acme" } else { "other" }, START + i, "{}")).collect();
    Lake::open(Disk::Real, folder.path(), options(&["service"])).unwrap().seal(&frames(&lines, 10)).unwrap();
    for table in ["logs", "usage"] {
        std::fs::remove_dir_all(folder.path().join(table).join("tenant=other")).unwrap();
    }
    let sources = [source_of(&Disk::Real, folder.path(), &[])];
    for table in ["logs", "usage"] {
        let sql = format!("SELECT count(*), max(tenant) FROM {table} WHERE tenant <> 'x'");
        assert_eq!(answer(&sources, &sql, Some(b"acme")), ["5,acme"]);
        assert!(!run(&sources, &sql, &bounds(None), Format::Csv).map(|a| a.0).unwrap_err().is_mistake(), "the files are gone");
    }
}

#[test]
fn what_writes_or_reaches_outside_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, made) = (folder.path().join("a.csv"), folder.path().join("b.csv"));
    std::fs::write(&inside, SECRET).unwrap();
    let (inside, to) = (inside.display(), made.display());
    let sources = lake_of_two();
    let tries = [
        format!("COPY logs TO '{to}'"),
        format!("COPY (SELECT * FROM logs) TO '{to}' STORED AS CSV"),
        format!("EXPLAIN COPY logs TO '{to}'"),
        format!("EXPLAIN ANALYZE COPY logs TO '{to}'"),
        format!("CREATE EXTERNAL TABLE t (x TEXT) STORED AS CSV LOCATION '{inside}'"),
        "CREATE TABLE t AS SELECT * FROM logs".into(),
        "CREATE VIEW t AS SELECT * FROM logs".into(),
        "CREATE FUNCTION f() RETURNS INT RETURN 1".into(),
        "INSERT INTO logs SELECT * FROM logs".into(),
        "EXPLAIN INSERT INTO logs SELECT * FROM logs".into(),
        "UPDATE logs SET tenant = 'acme'".into(),
        "DELETE FROM logs".into(),
        "DROP TABLE logs".into(),
        "TRUNCATE TABLE logs".into(),
        "SET datafusion.execution.target_partitions = 1000000".into(),
        "RESET datafusion.execution.target_partitions".into(),
        "PREPARE p AS SELECT 1".into(),
        "EXECUTE p".into(),
        "BEGIN".into(),
        "SHOW ALL".into(),
        "SELECT * INTO t FROM logs".into(),
        "WITH x AS (INSERT INTO logs SELECT * FROM logs) SELECT 1".into(),
        format!("SELECT * FROM '{inside}'"),
        format!("SELECT * FROM \"{inside}\""),
        "SELECT * FROM '/etc/passwd'".into(),
        "SELECT * FROM \"file:///etc/passwd\"".into(),
        format!("SELECT * FROM read_csv('{inside}')"),
        "SELECT * FROM read_parquet('/lake/logs/tenant=other/day=2026-11-23/x.parquet')".into(),
        "SELECT * FROM parquet_metadata('x')".into(),
        "SELECT * FROM generate_series(1, 10)".into(),
        "SELECT * FROM \"logs/tenant=other\"".into(),
        "SELECT * FROM other.public.logs".into(),
        "SELECT * FROM logs FOR UPDATE".into(),
        "LOAD 'x'".into(),
    ];
    for sql in &tries {
        for tenant in [None, Some(&b"acme"[..])] {
            match run(&sources, sql, &bounds(tenant), Format::Csv) {
                Err(error) => assert!(error.is_mistake() && !error.to_string().contains(SECRET), "{sql}\n{error}"),
                Ok((text, _)) => panic!("{sql} is answered:\n{text}"),
            }
        }
    }
    assert!(!made.exists(), "a query wrote a file");
}
