//! Answers against a naive count over the lines: fields by serde_json, sums in maps. It shares no code with the crate but the frames.

use super::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

fn generate(random: &mut Random, n: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for i in 0..n {
        let mut fields = Vec::new();
        for (name, values) in [
            ("service", &["auth", "chat", "chat-é", "", "a,b\"c"][..]),
            ("level", &["info", "error", "WARN"]),
            ("model", &["m-1", "m-2"]),
            ("msg", &["connection reset", "ok", "東京", "%_"]),
        ] {
            if random.below(10) < 8 {
                fields.push(format!("{}:{}", Value::from(name), Value::from(random.pick(values))));
            }
        }
        fields.push(format!("\"latency_ms\":{}", random.pick(&["12", "1.50", "9007199254740993", "\"7\"", "null"])));
        fields.push(format!("\"trace_id\":\"{i:x}\""));
        let raw = if random.below(20) == 0 { "no json, level=error".to_owned() } else { format!("{{{}}}", fields.join(",")) };
        lines.push(Line {
            tenant: random.pick(&["acme", "zeta", "ümlaut"]).into(),
            time: START + (random.below(72) as i64) * NANOS_PER_HOUR + random.below(1_000_000_000) as i64,
            severity: [9, 17, 0][random.below(3)],
            weight: 1 + random.below(5) as u32,
            raw: raw.into_bytes(),
        });
    }
    lines
}

/// A field as a reader of JSON sees it.
fn field(line: &Line, name: &str) -> Option<String> {
    let value: Value = serde_json::from_slice(&line.raw).ok()?;
    value.get(name)?.as_str().map(str::to_owned)
}

/// A cell as CSV writes it.
fn csv(text: Option<&str>) -> String {
    match text {
        None => String::new(),
        Some(text) if text.is_empty() || text.contains([',', '"', '\n']) => format!("\"{}\"", text.replace('"', "\"\"")),
        Some(text) => text.to_owned(),
    }
}

fn sorted(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().collect();
    lines.sort();
    lines
}

#[test]
fn answers_equal_a_naive_count_sealed_unsealed_and_half() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x9e37_79b9_7f4a_7c15);
    println!("SEED={seed}");
    let lines = generate(&mut Random(seed), 900);
    let all = frames(&lines, 100);
    for sealed in [0, 4, 9] {
        check_all(&[source(&all, sealed, &["service", "level", "model"])], &lines);
    }
    // Two lakes side by side, one of them with other columns in its older files.
    let (disk, root) = (Disk::Sim(Arc::new(Sim::new(2))), Path::new("/lake"));
    Lake::open(disk.clone(), root, options(&["service"])).unwrap().seal(&all[..3]).unwrap();
    Lake::open(disk.clone(), root, options(&["level", "service"])).unwrap().seal(&all[3..6]).unwrap();
    let one = source_of(&disk, root, &all[..7]);
    let (last, _) = frame(1, 0, &lines[700..800]);
    let two = source(&[last], 1, &["model"]);
    let known = &lines[..800];
    let count = |of: &dyn Fn(usize, &Line) -> bool| vec![known.iter().enumerate().filter(|(i, line)| of(*i, line)).count().to_string()];
    let ask = |sql: &str| answer(&[one.clone(), two.clone()], sql, None);
    assert_eq!(ask("SELECT count(*) FROM logs"), count(&|_, _| true));
    // What a file has no column for is missing in its rows.
    let has = |i: usize, line: &Line| (300..700).contains(&i) && field(line, "level").as_deref() == Some("error");
    assert_eq!(ask("SELECT count(*) FROM logs WHERE level = 'error'"), count(&has));
    assert_eq!(ask("SELECT count(level) FROM logs"), count(&|i, line| (300..700).contains(&i) && field(line, "level").is_some()));
    assert_eq!(
        ask("SELECT count(*) FROM logs WHERE model = 'm-2'"),
        count(&|i, line| i >= 700 && field(line, "model").as_deref() == Some("m-2"))
    );
}

fn check_all(sources: &[Source], lines: &[Line]) {
    let ask = |sql: &str| answer(sources, sql, None);
    let mut groups: BTreeMap<[Option<String>; 2], (u64, u64, i64, i64)> = BTreeMap::new();
    for line in lines {
        let group = groups.entry([field(line, "service"), field(line, "level")]).or_insert((0, 0, i64::MAX, i64::MIN));
        *group = (group.0 + 1, group.1 + u64::from(line.weight), group.2.min(line.time), group.3.max(line.time));
    }
    let want = groups.iter().map(|([service, level], (count, weight, min, max))| {
        format!("{},{},{count},{weight},{},{}", csv(service.as_deref()), csv(level.as_deref()), min - START, max - START)
    });
    let since = format!("CAST(time AS BIGINT) - {START}");
    assert_eq!(
        ask(&format!("SELECT service, level, count(*), sum(weight), min({since}), max({since}) FROM logs GROUP BY service, level")),
        sorted(want)
    );
    let raw =
        |keep: &dyn Fn(&Line) -> bool| sorted(lines.iter().filter(|line| keep(line)).map(|l| csv(Some(&String::from_utf8_lossy(&l.raw)))));
    assert_eq!(ask("SELECT raw FROM logs"), raw(&|_| true));
    let (from, to) = (START + 20 * NANOS_PER_HOUR, START + 30 * NANOS_PER_HOUR);
    let between = |line: &Line| line.time >= from && line.time < to;
    let times = "time >= '2026-11-23T20:00:00Z' AND time < '2026-11-24T06:00:00Z'";
    assert_eq!(ask(&format!("SELECT raw FROM logs WHERE {times}")), raw(&between));
    assert_eq!(
        ask(&format!("SELECT raw FROM logs WHERE {times} AND level = 'error' AND tenant <> 'zeta'")),
        raw(&|line| between(line) && field(line, "level").as_deref() == Some("error") && line.tenant != b"zeta")
    );
    assert_eq!(ask("SELECT raw FROM logs WHERE service IS NULL"), raw(&|line| field(line, "service").is_none()));
    assert_eq!(ask("SELECT raw FROM logs WHERE trace_id = '1f'"), raw(&|line| field(line, "trace_id").as_deref() == Some("1f")));
    assert_eq!(
        ask("SELECT raw FROM logs WHERE msg LIKE '%reset'"),
        raw(&|line| field(line, "msg").is_some_and(|msg| msg.ends_with("reset")))
    );
    assert_eq!(ask("SELECT raw FROM logs WHERE CAST(raw AS TEXT) LIKE '%level=error'"), raw(&|line| line.raw.ends_with(b"level=error")));
    assert_eq!(
        ask("SELECT raw FROM logs WHERE tenant = 'zeta' OR severity = 0"),
        raw(&|line| line.tenant == b"zeta" || line.severity == 0)
    );
    // Of numbers the column has those that a float holds exactly.
    let number = |line: &Line| serde_json::from_slice::<Value>(&line.raw).ok()?.get("latency_ms")?.as_f64().filter(|n| *n < 1e9);
    let numbers: Vec<f64> = lines.iter().filter_map(number).collect();
    assert_eq!(
        ask("SELECT count(latency_ms), sum(latency_ms), max(latency_ms) FROM logs"),
        [format!("{},{:?},12.0", numbers.len(), numbers.iter().sum::<f64>())]
    );
    assert_eq!(ask("SELECT raw FROM logs WHERE latency_ms < 12 AND raw <> ''"), raw(&|line| number(line).is_some_and(|n| n < 12.0)));
    let own: Vec<Line> = lines.iter().filter(|line| line.tenant == b"zeta").cloned().collect();
    assert_eq!(answer(sources, "SELECT count(*) FROM logs", Some(b"zeta")), [own.len().to_string()]);
    let services: BTreeSet<String> = lines.iter().filter_map(|line| field(line, "service")).collect();
    assert_eq!(ask("SELECT count(DISTINCT service) FROM logs"), [services.len().to_string()]);
    // Usage: each line has a fact whose quantity is its number in its frame.
    let mut usage: BTreeMap<String, u64> = BTreeMap::new();
    for (i, line) in lines.iter().enumerate() {
        *usage.entry(String::from_utf8(line.tenant.clone()).unwrap()).or_default() += i as u64 % 100 + 1;
    }
    assert_eq!(
        ask("SELECT tenant, meter, sum(quantity) FROM usage GROUP BY tenant, meter"),
        sorted(usage.iter().map(|(tenant, sum)| format!("{tenant},tokens,{sum}")))
    );
    let joined =
        "SELECT count(*) FROM (SELECT DISTINCT tenant FROM logs) l JOIN (SELECT DISTINCT tenant FROM usage) u ON l.tenant = u.tenant";
    assert_eq!(ask(joined), [usage.len().to_string()]);
    assert_eq!(ask("SELECT count(DISTINCT id) = count(*) FROM usage"), ["true"]);
    // Lineage: an event is there once, whether it is stored or told by the tail.
    assert_eq!(ask("SELECT count(*) > 0, count(DISTINCT key) = count(*) FROM lineage"), ["true,true"]);
    assert_eq!(answer(sources, "SELECT count(*) FROM lineage", Some(b"zeta")), ["0"]);
    assert_eq!(ask("SELECT count(*) FROM charges"), ["0"]);
    let newest = lines.iter().map(|line| line.time).max().unwrap() - START;
    assert_eq!(ask(&format!("SELECT {since} FROM logs ORDER BY time DESC LIMIT 1")), [newest.to_string()]);
}

#[test]
fn files_and_row_groups_that_cannot_match_are_not_read() {
    let lines: Vec<Line> = (0..10).map(|day| line(if day % 2 == 0 { "acme" } else { "zeta" }, START + day * NANOS_PER_DAY, "{}")).collect();
    let sources = [source(&frames(&lines, 1), 10, &["service"])];
    let stats = |sql: &str| run(&sources, sql, &bounds(None), Format::Csv).unwrap().1;
    let read = |sql: &str| {
        let stats = stats(sql);
        (stats.files, stats.files_read, stats.rows)
    };
    assert_eq!(read("SELECT time FROM logs"), (10, 10, 10));
    assert_eq!(read("SELECT time FROM logs WHERE time >= '2026-11-30T00:00:00Z'"), (10, 3, 3));
    assert_eq!(read("SELECT time FROM logs WHERE time > now() - INTERVAL '1 hour'"), (10, 9, 9));
    assert_eq!(read("SELECT time FROM logs WHERE tenant = 'zeta'"), (10, 5, 5));
    assert_eq!(read("SELECT time FROM logs WHERE tenant = 'zeta' AND time < '2026-11-25T00:00:00Z'"), (10, 1, 1));
    assert_eq!(read("SELECT minute FROM usage WHERE minute = '2026-11-30T00:00:00Z'"), (10, 1, 1));
    let bounded = SqlOptions { read_bytes_max: Some(100), ..bounds(None) };
    let error = run(&sources, "SELECT raw FROM logs", &bounded, Format::Csv).map(|answer| answer.1).unwrap_err();
    assert!(matches!(error, SqlError::Bytes { bytes_max: 100 }) && error.to_string().contains("query.read_bytes_max allows, 100B"));
    let groups = stats("SELECT time FROM logs WHERE severity > 9");
    assert_eq!((groups.groups, groups.groups_read, groups.rows_read), (10, 0, 0));
}

#[test]
fn money_is_a_decimal_with_all_its_digits() {
    let (disk, root) = (Disk::Sim(Arc::new(Sim::new(1))), Path::new("/lake"));
    let rows: Vec<bill::Row> = [("acme", 1_500_000_000_001i128), ("acme", -1), ("zeta", 7_000_000_000_000_000_000_000_000)]
        .into_iter()
        .enumerate()
        .map(|(i, (tenant, billed))| charge(tenant, i as i64, billed))
        .collect();
    drop(Lake::open(disk.clone(), root, options(&[])).unwrap());
    lake::append_charges(&disk, root, 0, &lake::ChargeEvent::default(), &rows).unwrap().unwrap();
    let sources = [source_of(&disk, root, &[])];
    assert_eq!(
        answer(&sources, "SELECT tenant, sum(billed_cost), max(quantity) FROM charges GROUP BY tenant", None),
        ["acme,1.5,5", "zeta,7000000000000,5"]
    );
    assert_eq!(answer(&sources, "SELECT billed_cost FROM charges", Some(b"acme")), ["-0.000000000001", "1.500000000001"]);
    let json = run(&sources, "SELECT billed_cost FROM charges", &bounds(Some(b"zeta")), Format::Json).unwrap().0;
    assert_eq!(json, "{\"billed_cost\":\"7000000000000\"}\n");
}

fn charge(tenant: &str, hour: i64, billed: i128) -> bill::Row {
    use bill::Money;
    let series = bill::Series { tenant: tenant.into(), dims: vec![], meter: "tokens".into(), unit: "Tokens".into() };
    let (from, to) = (UnixNanos(START + hour * NANOS_PER_HOUR), UnixNanos(START + (hour + 1) * NANOS_PER_HOUR));
    let charge = bill::Charge {
        series: Arc::new(series),
        hour: from,
        end: to,
        category: bill::Category::Usage,
        sku: "tokens".into(),
        version: "1".into(),
        card: "00".into(),
        tier: 0,
        commitment: None,
        allocation: None,
        quantity: 5,
        billable: 5,
        unit: "Tokens".into(),
        per: 1,
        scale: (1, 1),
        price: Money(1),
        contracted_price: Money(1),
        exchange: None,
        list: Money(billed),
        contracted: Money(billed),
        effective: Money(billed),
        billed: Money(billed),
        events: 1,
        first_event: vec![],
        last_event: vec![],
    };
    bill::Row { charge, revision: 1, is_correction: false, period: bill::Month::of(from), published: None, reversal: None }
}
