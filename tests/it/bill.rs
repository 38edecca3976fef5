//! The input of a bill in the whole program: facts that are one event each, and what must not be counted.
//!
//! In: lines whose quantities, keys and times are known here. Out: the facts that the journal holds, and the files of the lake's table
//! `usage`. Nothing is shared with the program.

use crate::harness::{Place, files_below, lines};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const EVENTS: &str = r#"
lanes: 1
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: tokens, quantity: tokens, unit: Tokens, by: [model], key: [id, part] }
  - meter: { name: plain, quantity: tokens, unit: Tokens, by: [model] }
  - meter: { name: cached, quantity: cached, unit: Tokens, part_of: tokens }
  - meter: { name: held, kind: interval, start: from, end: to, unit: GPU, key: [id] }
  - sample: { levels: { info: { ratio: 0.1, key: id } } }
sinks: { store: { lake: {} } }
"#;

/// Every fact that the journal holds, as `buffer cat` shows it.
fn facts(place: &Place) -> Vec<Value> {
    let headers = place.run(&["buffer", "cat", "--headers", "--json"]).good();
    let headers = lines(&headers.stdout).into_iter().map(|line| serde_json::from_slice::<Value>(&line).expect("JSON"));
    headers
        .flat_map(|header| header["parts"].as_array().expect("parts").clone())
        .flat_map(|part| part["facts"].as_array().expect("facts").clone())
        .collect()
}

fn of<'a>(facts: &'a [Value], meter: &'a str) -> impl Iterator<Item = &'a Value> {
    facts.iter().filter(move |fact| fact["meter"] == meter)
}

fn number(fact: &Value) -> i128 {
    fact["quantity"].as_str().expect("text").parse().expect("an integer")
}

fn line(n: u64) -> String {
    let held = if n.is_multiple_of(7) { ",\"from\":\"2026-10-02T09:59:30Z\",\"to\":1790935230" } else { "" };
    format!(
        "{{\"ts\":\"2026-10-02T10:{:02}:{:02}.5Z\",\"level\":\"info\",\"tenant\":\"t{}\",\"model\":\"m{}\",\"id\":\"r{n}\",\"part\":{},\"tokens\":{}{held}}}\n",
        n / 60 % 60,
        n % 60,
        n % 3,
        n % 2,
        n % 4,
        n * 3,
    )
}

#[test]
fn a_line_that_comes_twice_gives_two_facts_with_one_key_whatever_is_sampled() {
    let place = Place::new();
    place.pipeline(EVENTS);
    let count = 500;
    let twice: String = (0..count).map(|n| line(n) + &line(n)).collect();
    place.write("in/a.log", twice);
    place.once();
    assert!(place.ledger().dropped()["sampled"] > count, "most are left out");
    let facts = facts(&place);
    let mut seen: BTreeMap<String, Vec<(String, i128, String, u64)>> = BTreeMap::new();
    for fact in of(&facts, "tokens") {
        let event = &fact["event"];
        assert_eq!((event["kind"].as_str(), fact["events"].as_u64(), event["at"] == event["end"]), (Some("point"), Some(1), true));
        let text = |value: &Value| value.as_str().expect("text").to_string();
        let one = (text(&fact["tenant"]), number(fact), text(&event["at"]), event["position"].as_u64().expect("a position"));
        seen.entry(text(&event["key"])).or_default().push(one);
    }
    assert_eq!(seen.len() as u64, count);
    for n in 0..count {
        let [one, other] = &seen[&format!("r{n}\u{1f}{}", n % 4)][..] else { panic!("line {n}: {seen:?}") };
        let at = format!("2026-10-02T10:{:02}:{:02}.500Z", n / 60 % 60, n % 60);
        assert_eq!((&one.0, one.1, &one.2), (&format!("t{}", n % 3), i128::from(n) * 3, &at));
        assert_eq!((&one.0, one.1, &one.2), (&other.0, other.1, &other.2), "a copy says the same");
        assert_ne!(one.3, other.3, "and is another record");
    }
    // Sums know nothing of copies; what is held is told once per record.
    assert_eq!(of(&facts, "plain").map(number).sum::<i128>(), (0..count as i128).map(|n| n * 6).sum::<i128>());
    assert!(of(&facts, "plain").all(|fact| fact.get("event").is_none()));
    let held: Vec<&Value> = of(&facts, "held").collect();
    assert_eq!(held.len() as u64, 2 * count.div_ceil(7));
    let span = json!(["interval", "2026-10-02T09:59:30Z", "2026-10-02T10:00:30Z"]);
    assert!(held.iter().all(|f| json!([f["event"]["kind"], f["event"]["at"], f["event"]["end"]]) == span), "{:?}", held[0]);
}

#[test]
fn what_must_not_be_counted_is_refused_and_nothing_is_silently_nothing() {
    let place = Place::new();
    place.pipeline(EVENTS);
    let line = |rest: &str| format!("{{\"ts\":\"2026-10-02T10:00:00Z\",\"tenant\":\"acme\",\"model\":\"m\",\"id\":\"x\",{rest}}}\n");
    let huge = "9223372036854775808";
    let input = [
        line("\"tokens\":-5"),
        line("\"tokens\":\"12\""),
        line("\"tokens\":\"NaN\""),
        line("\"tokens\":1.5"),
        line(&format!("\"tokens\":{huge}")),
        line("\"tokens\":8,\"cached\":9"),
        line("\"tokens\":1,\"tokens\":2"),
        line("\"from\":\"2026-10-02T10:00:00Z\",\"to\":\"2026-10-02T09:00:00Z\""),
        line("\"tokens\":5").replace("2026-10-02T10", "2099-10-02T10"),
        line("\"tokens\":6").replace("2026-10-02T10", "2999-10-02T10"),
        line("\"tokens\":7"),
    ]
    .concat();
    place.write("in/a.log", input);
    place.once();
    let facts = facts(&place);
    let refused = |meter: &str| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_string();
        let refused =
            of(&facts, meter).filter(|fact| !["point", "interval", "null"].contains(&fact["event"]["kind"].as_str().unwrap_or("null")));
        refused
            .map(|fact| {
                assert_eq!((number(fact), fact["events"].as_u64()), (0, Some(1)), "{fact}");
                (text(&fact["event"]["kind"]), text(&fact["event"]["key"]))
            })
            .collect()
    };
    let want = [
        ("bad_quantity", "-5"),
        ("bad_quantity", "\"12\""),
        ("bad_quantity", "\"NaN\""),
        ("bad_quantity", "1.5"),
        ("bad_quantity", huge),
        ("part_above_whole", "9>8"),
        ("bad_quantity", "2"),
        ("future", "5"),
        ("future", "\"2999-10-02T10:00:00Z\""),
    ];
    let own = |list: &[(&str, &str)]| list.iter().map(|(kind, key)| (kind.to_string(), key.to_string())).collect::<Vec<_>>();
    for meter in ["tokens", "plain"] {
        assert_eq!(refused(meter), own(&want), "{meter}");
    }
    assert_eq!(refused("cached"), own(&[("part_above_whole", "9>8")]));
    assert_eq!(refused("held"), own(&[("bad_quantity", "\"2026-10-02T09:00:00Z\"")]));
    assert_eq!(of(&facts, "plain").map(number).sum::<i128>(), 7);
    let notes = place.ledger().notes();
    assert_eq!((notes["bad_quantity"], notes["part_above_whole"], notes["duplicate_metered"], notes["future"]), (6, 1, 1, 2));
    // What is of the future drags nothing along: the frame was received when the file was last changed at the latest.
    let headers = place.run(&["buffer", "cat", "--headers", "--json"]).good();
    let mut headers = lines(&headers.stdout).into_iter().map(|line| serde_json::from_slice::<Value>(&line).expect("JSON"));
    let in_2090 = 3_786_912_000_000_000_000;
    assert!(headers.all(|header| header["received_ns"].as_i64().expect("a time") < in_2090));
}

#[test]
fn two_runs_over_the_same_files_write_the_same_bytes() {
    let place = Place::new();
    let pipeline = place.pipeline(EVENTS);
    let bad = "{\"ts\":\"2026-10-02T10:00:00Z\",\"tenant\":\"t1\",\"id\":\"x\",\"tokens\":-1}\n";
    let future = "{\"ts\":\"2099-10-02T10:00:00Z\",\"tenant\":\"t1\",\"id\":\"x\",\"tokens\":1}\n{\"id\":\"no time\",\"tokens\":4}\n";
    place.write("in/a.log", (0..300).map(line).collect::<String>() + &bad.repeat(1_500) + future);
    let mut runs = Vec::new();
    for name in ["one", "two"] {
        let data = place.path(name);
        let mut command = crate::harness::weir();
        command.args(["run", "--once", "--quiet"]).arg(&pipeline).arg("--data").arg(&data);
        crate::harness::finish(command).good();
        let usage: Vec<_> = files_below(&data).into_iter().filter(|path| path.to_string_lossy().contains("usage")).collect();
        assert!(usage.len() >= 3, "{usage:?}");
        runs.push(usage.into_iter().map(|path| (path.clone(), std::fs::read(data.join(path)).expect("readable"))).collect::<Vec<_>>());
    }
    assert_eq!(runs[0].iter().map(|f| &f.0).collect::<Vec<_>>(), runs[1].iter().map(|f| &f.0).collect::<Vec<_>>());
    assert!(runs[0] == runs[1], "equal names, other bytes");
}
