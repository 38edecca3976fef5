//! What an index proposes for ranges, regexes and patterns: never a row too few, and few where it can know.

use super::*;
use serde_json::Value;

const SERVICES: [&str; 7] = ["auth", "api-2", "9", "10", "-1.5", "Zeta", "é"];

/// One in fifty is of the last service; messages have a rare word now and then, and some lines are no JSON.
fn lines() -> Vec<Line> {
    (0..3_000usize)
        .map(|i| {
            let service = match i % 50 {
                0 => SERVICES[6].to_owned(),
                1 => "s".repeat(700),
                n => SERVICES[n % 6].to_owned(),
            };
            let message = match i % 60 {
                0 => format!("Connection reset by peer {i}"),
                1 => format!("disconnection of user-{i}"),
                2 => "w".repeat(600) + "resetting",
                _ => format!("request {i} done"),
            };
            let raw = match i % 97 {
                5 => format!("plain reset by peer {i} {{"),
                6 => format!(r#"{{"message":"{message}","model":{}}}"#, i % 7),
                _ => format!(r#"{{"service":"{service}","msg":"{message}","model":{},"trace_id":"t-{:05}"}}"#, i % 7, i),
            };
            line("acme", START + i as i64, &raw)
        })
        .collect()
}

#[test]
fn an_index_never_hides_a_row_of_a_range_or_a_regex() {
    let disk = Disk::Sim(Arc::new(Sim::new(1)));
    let root = Path::new("/lake");
    let lines = lines();
    let mut lake = Lake::open(disk.clone(), root, options(0)).unwrap();
    lake.seal(&[frame(1, 1, 0, &lines)]).unwrap();
    let field = |line: &Line, name: &str| -> Option<String> {
        match serde_json::from_slice::<Value>(&line.raw).ok()?.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    };
    let text = |line: &Line| -> Vec<String> {
        let whole = String::from_utf8_lossy(&line.raw).into_owned();
        if whole.starts_with("plain") { vec![whole] } else { ["msg", "message"].iter().filter_map(|name| field(line, name)).collect() }
    };
    let any = |line: &Line, test: &dyn Fn(&str) -> bool| text(line).iter().any(|text| test(text));
    let is = |line: &Line, name: &str, test: &dyn Fn(&str) -> bool| field(line, name).is_some_and(|text| test(&text));
    let number = |text: &str| text.parse::<f64>().ok();
    type Judge<'a> = &'a dyn Fn(&Line) -> bool;
    // With each query: whether the index can know few rows. A trace id may stand under names that are no columns here.
    let cases: [(&str, bool, Judge); 22] = [
        ("service:[9 TO 10]", true, &|l| is(l, "service", &|t| number(t).is_some_and(|n| (9.0..=10.0).contains(&n)))),
        ("service:>9", true, &|l| is(l, "service", &|t| number(t).is_some_and(|n| n > 9.0))),
        ("service:<0", true, &|l| is(l, "service", &|t| number(t).is_some_and(|n| n < 0.0))),
        ("service:>t", true, &|l| is(l, "service", &|t| t > "t")),
        ("service:[r TO t}", false, &|l| is(l, "service", &|t| ("r".."t").contains(&t))),
        ("model:{2 TO 4}", true, &|l| is(l, "model", &|t| t == "3")),
        ("service:/^é$/", true, &|l| is(l, "service", &|t| t == "é")),
        ("service:/^(9|1)/", true, &|l| is(l, "service", &|t| t.starts_with('9') || t.starts_with('1'))),
        ("service:/s{650}/", true, &|l| is(l, "service", &|t| t.len() == 700)),
        ("service:/x^/", true, &|_| false),
        ("trace_id:/0012[0-9]$/", false, &|l| is(l, "trace_id", &|t| t.contains("-0012"))),
        ("trace_id:[t-00100 TO t-00110}", false, &|l| is(l, "trace_id", &|t| ("t-00100".."t-00110").contains(&t))),
        ("/reset by peer/", true, &|l| any(l, &|t| t.contains("reset by peer"))),
        ("/ reset by/", true, &|l| any(l, &|t| t.contains(" reset by"))),
        ("/reset/", true, &|l| any(l, &|t| t.contains("reset"))),
        ("/[cC]onnection/", true, &|l| any(l, &|t| t.to_lowercase().contains("connection"))),
        ("/(disconnect|Connection re)/", true, &|l| any(l, &|t| t.contains("disconnect") || t.contains("Connection re"))),
        ("msg:/user-1[0-9]*$/", true, &|l| is(l, "msg", &|t| t.contains("user-1"))),
        ("/(?i)RESET/", false, &|l| any(l, &|t| t.to_lowercase().contains("reset"))),
        ("/.* done$/", false, &|l| any(l, &|t| t.ends_with(" done"))),
        ("res?t", true, &|l| any(l, &|t| t.split(' ').any(|w| w == "reset"))),
        ("service:=auth", false, &|l| is(l, "service", &|t| t == "auth")),
    ];
    for (query, knows, judge) in cases {
        let want: Vec<Vec<u8>> = lines.iter().filter(|line| judge(line)).map(|line| line.raw.clone()).collect();
        let (hits, stats) = find(&disk, root, &[], query, &SearchOptions::default());
        let got: Vec<Vec<u8>> = hits.into_iter().map(|hit| hit.raw).collect();
        assert!(got == want, "{query}: {} rows, the naive judge finds {}", got.len(), want.len());
        assert_eq!(stats.index_failures, 0);
        assert!(!knows || stats.files_by_index == 1, "{query}: the index was not used");
    }
}
