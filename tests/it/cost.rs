//! The bill in the whole program: golden cases from log lines to rows, publication, FOCUS, explanations, kills in between.
//!
//! In: log lines written here, or the quickstart's generator. Out: rows with exactly the digits that the cost specification
//! states (P1 to P15), which know nothing of how the program computes; sums are added up here with integers of their own.

use crate::harness::{Place, Running, finish, lines, skip, weir, works};
use crate::input::platform;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

const PIPELINE: &str = r#"
lanes: 1
rates: $DIR/card.yaml
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
steps: [$STEPS]
sinks: { store: { lake: {} } }
"#;

const TOKENS: &str = "meter: { usage: gen_ai, by: [model], key: [id] }";
const HELD: &str = "meter: { name: gpu, kind: interval, start: start, end: end, unit: GPU, by: [device], key: [id] }";

fn place(steps: &str, card: &str) -> Place {
    let place = Place::new();
    let steps: Vec<String> = steps.split('\n').map(|step| format!("{{ {step} }}")).collect();
    place.pipeline(&PIPELINE.replace("$STEPS", &steps.join(", ")));
    set_card(&place, card);
    place
}

/// Prices as `sku meter[-minus] price per unit`, one a line; further lines of YAML after `---`.
fn set_card(place: &Place, card: &str) {
    let (prices, rest) = card.split_once("---").unwrap_or((card, ""));
    let price = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (meter, minus) = words[1].split_once('-').map_or((words[1], String::new()), |(m, minus)| (m, format!("minus: {minus}, ")));
        format!("{{ sku: {}, meter: {meter}, {minus}price: \"{}\", per: {}, unit: {} }}", words[0], words[2], words[3], words[4])
    };
    let prices: Vec<String> = prices.lines().map(str::trim).filter(|line| !line.is_empty()).map(price).collect();
    let text = format!("currency: USD\nversions: [{{ name: v1, from: 2026-01-01T00:00:00Z, prices: [{}] }}]\n{rest}", prices.join(", "));
    place.write("card.yaml", text);
}

/// Rows as they are stored, one a line.
fn rate(place: &Place, args: &[&str]) -> Vec<Value> {
    let mut all = vec!["cost", "rate", "--json"];
    all.extend(args);
    let done = place.run(&all).good();
    lines(&done.stdout).into_iter().map(|line| serde_json::from_slice(&line).expect("JSON")).collect()
}

/// `tenant sku hour billable cost`.
fn show(row: &Value) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let hour = row["from_ns"].as_i64().expect("a time") / 3_600_000_000_000 % 24;
    let who = if text("tenant").is_empty() { "-".to_owned() } else { text("tenant") };
    format!("{who} {} {hour:02} {} {}", text("sku_price_id"), text("billable"), text("billed"))
}

#[track_caller]
fn check(place: &Place, input: &str, want: &[&str]) {
    place.write("in/a.log", input);
    place.once();
    let rows: Vec<String> = rate(place, &[]).iter().map(show).collect();
    assert_eq!(rows, want);
}

fn kill(mut running: Running) {
    running.signal(rustix::process::Signal::KILL);
    running.wait();
}

fn units(money: &str) -> i128 {
    let (whole, fraction) = money.split_once('.').expect("a point");
    assert_eq!(fraction.len(), 12, "{money}");
    let sign = if money.starts_with('-') { -1 } else { 1 };
    sign * (whole.trim_start_matches('-').parse::<i128>().expect("digits") * 1_000_000_000_000 + fraction.parse::<i128>().expect("digits"))
}

fn tokens(id: &str, tenant: &str, time: &str, out: i64) -> String {
    format!("{{\"ts\":\"{time}\",\"tenant\":\"{tenant}\",\"model\":\"orca\",\"id\":\"{id}\",\"gen_ai.usage.output_tokens\":{out}}}\n")
}

#[test]
fn p1_input_cached_and_output_tokens() {
    let card = "in tokens_in-tokens_cache_read 0.50 1000000 Tokens\ncached tokens_cache_read 0.05 1000000 Tokens\nout tokens_out 1.50 1000000 Tokens";
    let line = r#"{"ts":"2026-10-02T09:30:00Z","tenant":"acme","model":"orca","id":"r1","gen_ai":{"usage":{"input_tokens":2034567,"cache_read":{"input_tokens":800000},"output_tokens":345678}}}"#;
    let want = ["acme cached@v1 09 800000 0.040000000000", "acme in@v1 09 1234567 0.617283500000", "acme out@v1 09 345678 0.518517000000"];
    check(&place(TOKENS, card), line, &want);
}

#[test]
fn p2_an_event_belongs_to_the_hour_it_is_in() {
    let input = tokens("a", "acme", "2026-10-02T09:59:59.999Z", 100) + &tokens("b", "acme", "2026-10-02T10:00:00.000Z", 100);
    let want = ["acme out@v1 09 100 0.000100000000", "acme out@v1 10 100 0.000100000000"];
    check(&place(TOKENS, "out tokens_out 1.00 1000000 Tokens"), &input, &want);
}

#[test]
fn p3_an_interval_is_priced_once_and_divided_over_its_hours() {
    let line = r#"{"ts":"2026-10-02T10:20:30Z","tenant":"acme","device":"g0","id":"j1","start":"2026-10-02T09:50:00Z","end":"2026-10-02T10:20:30Z"}"#;
    let want = ["acme gpu@v1 09 600000 0.416666666667", "acme gpu@v1 10 1230000 0.854166666666"];
    check(&place(HELD, "gpu gpu 2.50 1 GPU-Hours"), line, &want);
}

#[test]
fn p4_a_price_changes_within_the_hour() {
    let place = place(HELD, "");
    let version = |name: &str, from: &str, to: &str, price: &str| {
        format!("{{ name: {name}, from: {from}, {to}prices: [{{ sku: gpu, meter: gpu, price: \"{price}\", per: 1, unit: GPU-Hours }}] }}")
    };
    let old = version("old", "2026-01-01T00:00:00Z", "to: 2026-10-02T10:20:00Z, ", "2.50");
    place.write("card.yaml", format!("currency: USD\nversions: [{old}, {}]\n", version("new", "2026-10-02T10:20:00Z", "", "3.10")));
    let line = r#"{"ts":"2026-10-02T11:00:00Z","tenant":"acme","device":"g0","id":"j1","start":"2026-10-02T10:00:00Z","end":"2026-10-02T11:00:00Z"}"#;
    check(&place, line, &["acme gpu@new 10 2400000 2.066666666667", "acme gpu@old 10 1200000 0.833333333333"]);
}

#[test]
fn p5_copies_are_counted_once_over_a_restart() {
    let place = place(TOKENS, "out tokens_out 1.50 1000000 Tokens");
    let line = tokens("e1", "acme", "2026-10-02T09:30:00Z", 1_000);
    place.write("in/a.log", line.repeat(2));
    place.once();
    place.append("in/a.log", &line);
    place.once();
    assert_eq!(rate(&place, &[]).iter().map(show).collect::<Vec<_>>(), ["acme out@v1 09 1000 0.001500000000"]);
    assert_eq!(place.ask(&["cost", "report"])["duplicates"], 2);
}

#[test]
fn p6_the_first_of_two_that_conflict_stays_and_the_other_can_be_read() {
    let place = place(TOKENS, "out tokens_out 1.50 1000000 Tokens");
    let input = tokens("e1", "acme", "2026-10-02T09:30:00Z", 1_000) + &tokens("e1", "acme", "2026-10-02T09:30:00Z", 1_200);
    check(&place, &input, &["acme out@v1 09 1000 0.001500000000"]);
    let quarantine = place.ask(&["cost", "quarantine"]);
    assert_eq!((&quarantine["conflicts"], &quarantine["quarantine"][0]["quantity"]), (&json!(1), &json!("1200")), "{quarantine}");
}

#[test]
fn p7_p8_p9_what_comes_late_is_a_delta_a_correction_and_can_be_taken_back() {
    let place = place(TOKENS, "out tokens_out 0.50 1000000 Tokens");
    let close = |args: &[&str]| place.ask(&[&["cost", "close"], args].concat());
    place.write("in/a.log", tokens("a", "acme", "2026-02-28T23:10:00Z", 500));
    place.once();
    assert_eq!(close(&["--at", "2026-03-01T01:59:59Z"])["rows"], 0, "a window is published two hours after its end");
    assert_eq!(close(&["--at", "2026-03-01T02:00:00Z"])["billed"], "0.000250000000");
    place.append("in/a.log", tokens("b", "acme", "2026-02-28T23:20:00Z", 200));
    place.once();
    let delta = close(&["--at", "2026-03-01T04:00:00Z"]);
    assert_eq!((&delta["rows"], &delta["corrections"], &delta["billed"]), (&json!(1), &json!(0), &json!("0.000100000000")));
    let early = place.run(&["cost", "close", "--period", "2026-02", "--at", "2026-03-02T23:59:59Z"]).exits(2);
    assert!(early.stderr.contains("2026-03-03T00:00:00Z"), "{}", early.stderr);
    assert_eq!(close(&["--at", "2026-03-03T00:00:00Z"])["closed"], json!(["2026-02"]));

    place.append("in/a.log", tokens("c", "acme", "2026-02-28T23:30:00Z", 246_913));
    place.once();
    let late = close(&["--at", "2026-03-05T10:00:00Z"]);
    assert_eq!((&late["corrections"], &late["billed"]), (&json!(1), &json!("0.123456500000")));
    let out = place.path("out");
    let export = |period: &str| {
        place.ask(&["cost", "export", "--period", period, "--out", out.to_str().expect("text")]);
        csv(&std::fs::read_to_string(out.join(format!("focus-1.2-{period}.csv"))).expect("written"))
    };
    let february = export("2026-02");
    assert_eq!(february.iter().map(|row| row["BilledCost"].as_str()).collect::<Vec<_>>(), ["0.000250000000", "0.000100000000"]);
    assert_eq!(february[1]["x_Revision"], "2");
    let march = export("2026-03");
    let of = |name: &str| march[0][name].as_str();
    assert_eq!((march.len(), of("ChargeClass"), of("BilledCost")), (1, "Correction", "0.123456500000"));
    assert_eq!((of("ChargePeriodStart"), of("ChargePeriodEnd")), ("2026-02-28T23:00:00Z", "2026-03-01T00:00:00Z"));
    assert_eq!(of("BillingPeriodStart"), "2026-03-01T00:00:00Z");

    let names: Vec<String> = rows_of(&place);
    let row = names.iter().find(|row| row.contains("246913")).expect("the correction").split(' ').next().expect("a name").to_owned();
    let reversed = place.ask(&["cost", "reverse", &row, "--quantity", "246913", "--reason", "counted twice", "--at", "2026-03-06"]);
    assert_eq!(reversed["billed"], "-0.123456500000");
    place.run(&["cost", "reverse", &row, "--quantity", "1", "--reason", "again"]).exits(2);
    let march = export("2026-03");
    assert_eq!((march[1]["BilledCost"].as_str(), march[1]["PricingQuantity"].as_str()), ("-0.123456500000", "-0.246913000000"));
    assert_eq!(march[1]["ChargeClass"], "Correction");
    let total = place.ask(&["cost", "report", "--by", "tenant"]);
    assert_eq!(total["total"]["cost"], "0.000350000000", "what was taken back is not billed");
}

/// `name quantity` of every row in the lake's table of charges.
fn rows_of(place: &Place) -> Vec<String> {
    let out = place.path("names");
    for period in ["2026-02", "2026-03"] {
        place.run(&["cost", "export", "--period", period, "--out", out.to_str().expect("text")]).good();
    }
    let text = std::fs::read_to_string(out.join("focus-1.2-2026-03.csv")).expect("written");
    csv(&text).iter().map(|row| format!("{} {}", row["x_RowId"], row["x_MeteredQuantity"])).collect()
}

/// Rows of a CSV file by name; our own reader of the simple kind: quotes, commas, CRLF.
fn csv(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut rows: Vec<Vec<String>> = vec![vec![String::new()]];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let row = rows.last_mut().expect("one is there");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                row.last_mut().expect("a cell").push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(String::new()),
            '\r' if !quoted => {}
            '\n' if !quoted => rows.push(vec![String::new()]),
            c => row.last_mut().expect("a cell").push(c),
        }
    }
    rows.retain(|row| row.len() > 1);
    let header = rows.remove(0);
    rows.into_iter().map(|row| header.iter().cloned().zip(row).collect()).collect()
}

const SHARED: &str = "meter: { name: held, kind: interval, start: start, end: end, quantity: slices, unit: Slices, by: [device], key: [id] }\n\
                      meter: { name: used, quantity: sm_ms, unit: ms, by: [device] }";

/// Three tenants share what costs 1.00; an invoice in cents still adds up.
#[test]
fn p10_what_does_not_divide_is_given_out_to_the_last_digit() {
    let card = "server held 1.00 1 Servers-Hours\n---\nshares: [{ name: tokens, origin: held, by: used, join: [device] }]";
    let steps = "meter: { name: held, kind: interval, start: start, end: end, unit: Servers, by: [device], key: [id] }\n\
                 meter: { name: used, quantity: tokens, unit: Tokens, by: [device] }";
    let input = |price_hours: u32, used: &[(&str, u32)]| {
        let hour = |n: u32| format!("2026-10-02T{:02}:00:00Z", 10 + n);
        let held = (0..price_hours).map(|n| {
            let (start, end) = (hour(n), hour(n + 1));
            format!("{{\"ts\":\"{end}\",\"tenant\":\"ops\",\"device\":\"s1\",\"id\":\"j{n}\",\"start\":\"{start}\",\"end\":\"{end}\"}}\n")
        });
        let used = used.iter().map(|(tenant, tokens)| {
            format!("{{\"ts\":\"2026-10-02T10:30:00Z\",\"tenant\":\"{tenant}\",\"device\":\"s1\",\"tokens\":{tokens}}}\n")
        });
        held.chain(used).collect::<String>()
    };
    let billed = |place: &Place| {
        let out = place.path("out");
        place.ask(&["cost", "export", "--period", "2026-10", "--out", out.to_str().expect("text"), "--invoiced"]);
        let mut check = weir();
        check.args(["cost", "check"]).arg(out.join("focus-1.2-2026-10.csv"));
        finish(check).good();
        let rows = csv(&std::fs::read_to_string(out.join("focus-1.2-2026-10.csv")).expect("written"));
        rows.iter().map(|row| format!("{} {}", row["SubAccountId"], row["BilledCost"])).collect::<Vec<_>>()
    };
    let even = place(steps, card);
    check(
        &even,
        &input(1, &[("a", 7), ("b", 7), ("c", 7)]),
        &["a server@v1 10 1200000 0.333333333334", "b server@v1 10 1200000 0.333333333333", "c server@v1 10 1200000 0.333333333333"],
    );
    assert_eq!(billed(&even), ["a 0.340000000000", "b 0.330000000000", "c 0.330000000000"]);
    let uneven = place(steps, &card.replace("1.00", "10.03"));
    check(&uneven, &input(1, &[("a", 49), ("b", 51)]), &["a server@v1 10 1764000 4.914700000000", "b server@v1 10 1836000 5.115300000000"]);
    assert_eq!(billed(&uneven), ["a 4.910000000000", "b 5.120000000000"]);
}

#[test]
fn p12_mig_slices_pay_their_part_of_all_slices() {
    let steps = "meter: { name: gpu, kind: interval, start: start, end: end, unit: GPU, by: [device], when: 'has(whole)', key: [id] }\n\
                 meter: { name: mig, kind: interval, start: start, end: end, quantity: slices, unit: Slices, by: [device], key: [id] }";
    let card = "gpu gpu 2.50 1 GPU-Hours\n---\nshares: [{ name: mig, origin: gpu, by: mig, join: [device], capacity: { held: 7 } }]";
    let line = |id: &str, rest: &str| {
        format!(
            "{{\"ts\":\"2026-10-02T11:00:00Z\",\"device\":\"g0\",\"id\":\"{id}\",\"start\":\"2026-10-02T10:00:00Z\",\"end\":\"2026-10-02T11:00:00Z\",{rest}}}\n"
        )
    };
    let input = [
        line("whole", r#""whole":true"#),
        line("1g", r#""tenant":"A","slices":1"#),
        line("2g", r#""tenant":"B","slices":2"#),
        line("3g", r#""tenant":"C","slices":3"#),
    ];
    let place = place(steps, card);
    let want = [
        "- gpu@v1 10 514286 0.357142857143",
        "A gpu@v1 10 514286 0.357142857143",
        "B gpu@v1 10 1028571 0.714285714286",
        "C gpu@v1 10 1542857 1.071428571428",
    ];
    check(&place, &input.concat(), &want);
    let report = place.ask(&["cost", "report"]);
    assert_eq!(report["total"]["cost"], "2.500000000000", "{report}");
    assert_eq!(report["conservation"][0]["residual"], json!({ "money": "0.000000000000", "time": "0" }), "{report}");
}

#[test]
fn p14_a_day_of_berlin_has_23_or_25_hours_and_utc_stays() {
    let place = place(HELD, "gpu gpu 2.50 1 GPU-Hours");
    let input: String = (1..=10)
        .map(|month| {
            let (start, end) = (format!("2026-{month:02}-01T00:00:00Z"), format!("2026-{:02}-01T00:00:00Z", month + 1));
            format!(
                "{{\"ts\":\"{end}\",\"tenant\":\"acme\",\"device\":\"g0\",\"id\":\"{month}\",\"start\":\"{start}\",\"end\":\"{end}\"}}\n"
            )
        })
        .collect();
    place.write("in/a.log", input);
    place.once();
    for (day, cost, windows) in [("2026-03-29", "57.500000000000", 23), ("2026-10-25", "62.500000000000", 25)] {
        let of = |zone: &[&str]| place.ask(&[&["cost", "report", "--by", "day", "--period", day], zone].concat());
        let local = of(&["--zone", "Europe/Berlin"]);
        assert_eq!((&local["rows"][0]["day"], &local["total"]["cost"]), (&json!(day), &json!(cost)), "{local}");
        assert_eq!(of(&[])["total"]["cost"], "60.000000000000", "a day of UTC has 24 hours");
        let hours = place.ask(&["cost", "report", "--by", "hour", "--period", day, "--zone", "Europe/Berlin"]);
        assert_eq!(hours["rows"].as_array().map(Vec::len), Some(windows), "{hours}");
    }
}

#[test]
fn p11_a_shared_device_is_divided_and_idle_is_told() {
    let card = |idle: &str| {
        format!(
            "h100 held 2.50 1 Slices-Hours\n--- \nshares: [{{ name: sm, origin: held, by: used, join: [device], idle: {idle}, capacity: {{ held: 1 }} }}]"
        )
    };
    let held = r#"{"ts":"2026-10-02T11:00:00Z","tenant":"infra","device":"g0","id":"j1","start":"2026-10-02T10:00:00Z","end":"2026-10-02T11:00:00Z","slices":1}"#;
    let used =
        |tenant: &str, ms: u64| format!("\n{{\"ts\":\"2026-10-02T10:30:00Z\",\"tenant\":\"{tenant}\",\"device\":\"g0\",\"sm_ms\":{ms}}}");
    let input = format!("{held}{}{}", used("a", 900_000), used("b", 1_800_000));
    let costs = |idle: &str| {
        let place = place(SHARED, &card(idle));
        place.write("in/a.log", &input);
        place.once();
        let rows = rate(&place, &[]);
        let conservation = place.ask(&["cost", "report"])["conservation"][0].clone();
        assert_eq!(conservation["residual"], json!({ "money": "0.000000000000", "time": "0" }), "{conservation}");
        rows.iter()
            .map(|row| format!("{} {}", row["tenant"].as_str().expect("text"), row["billed"].as_str().expect("text")))
            .collect::<Vec<_>>()
    };
    assert_eq!(costs("separate"), ["a 0.625000000000", "b 1.250000000000", " 0.625000000000"].map(String::from).to_vec().sorted());
    assert_eq!(costs("proportional"), ["a 0.833333333333", "b 1.666666666667"]);
}

/// Rows come in the order of tenants, and the empty one is first.
trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for Vec<String> {
    fn sorted(mut self) -> Self {
        self.sort();
        self
    }
}

#[test]
fn p13_nobody_pays_by_guess_and_a_price_may_come_later() {
    let place = place(TOKENS, "out tokens_out 1.50 1000000 Tokens");
    let input = r#"{"ts":"2026-10-02T09:30:00Z","model":"orca","id":"e1","gen_ai.usage.output_tokens":2000}
{"ts":"2026-10-02T09:30:00Z","tenant":"acme","model":"lynx","id":"e2","gen_ai.usage.input_tokens":4000}
"#;
    check(&place, input, &["- out@v1 09 2000 0.003000000000"]);
    let report = place.ask(&["cost", "report", "--by", "tenant,status"]);
    assert_eq!(report["unpriced"][0]["quantity"], "4000", "{report}");
    assert_eq!(report["charges"][0]["attribution"], "unattributed");
    set_card(&place, "out tokens_out 1.50 1000000 Tokens\nin tokens_in 2.00 1000000 Tokens");
    let card = place.path("card.yaml");
    let rows = rate(&place, &["--card", card.to_str().expect("text")]);
    assert_eq!(rows.iter().map(show).collect::<Vec<_>>(), ["- out@v1 09 2000 0.003000000000", "acme in@v1 09 4000 0.008000000000"]);
    let diff = place.ask(&["cost", "rate", "--diff", "--card", card.to_str().expect("text")]);
    assert_eq!(diff["total"]["change"], "0.008000000000");
}

#[test]
fn p15_huge_quantities_are_exact_or_refused() {
    let place = place(TOKENS, "out tokens_out 0.000012345678 1 Tokens");
    let input = tokens("e1", "acme", "2026-10-02T09:30:00Z", i64::MAX)
        + &tokens("e2", "acme", "2026-10-02T10:30:00Z", 1).replace(":1}", ":92233720368547758070}");
    check(&place, &input, &["acme out@v1 09 9223372036854775807 113868781241213.194875412146"]);
    assert_eq!(place.ask(&["cost", "quarantine"])["quarantine"][0]["why"], "bad_quantity");
}

#[test]
fn what_cannot_be_right_is_listed_and_never_a_silent_zero() {
    let place = place(TOKENS, "out tokens_out 1 1000000 Tokens");
    let bad = |id: &str, out: &str| {
        format!(
            "{{\"ts\":\"2026-10-02T09:30:00Z\",\"tenant\":\"acme\",\"model\":\"orca\",\"id\":\"{id}\",\"gen_ai.usage.output_tokens\":{out}}}\n"
        )
    };
    let input =
        bad("a", "-5") + &bad("b", "\"80\"") + &bad("c", "1.5") + &bad("d", "1e400") + &tokens("e", "acme", "2999-01-01T00:00:00Z", 7);
    place.write("in/a.log", input);
    place.once();
    assert_eq!(rate(&place, &[]), Vec::<Value>::new());
    let listed = place.ask(&["cost", "quarantine"]);
    let mut why: Vec<String> =
        listed["quarantine"].as_array().expect("a list").iter().map(|one| one["why"].as_str().expect("text").into()).collect();
    why.sort();
    assert_eq!(why, ["bad_quantity", "bad_quantity", "bad_quantity", "bad_quantity", "future"], "{listed}");
}

/// Every line twice, mirrored copies among them, killed three times: the same bytes.
#[test]
fn a_day_is_rated_to_the_same_bytes_whatever_happened_on_the_way() {
    let card =
        "in tokens_in-tokens_cached 0.50 1000000 Tokens\ncached tokens_cached 0.05 1000000 Tokens\nout tokens_out 1.50 1000000 Tokens";
    let steps = ["in", "out", "cached"]
        .map(|name| {
            format!("meter: {{ name: tokens_{name}, quantity: tokens_{name}, unit: Tokens, by: [service, model], key: [request_id] }}")
        })
        .join("\n");
    let input = platform(7, 6_000).concat().into_bytes();
    let all = lines(&input);
    let plain = place(&steps, card);
    plain.write("in/a.log", &input);
    plain.once();
    let want = plain.run(&["cost", "rate", "--json"]).good().stdout;
    assert!(lines(&want).len() > 100, "there is something to bill");

    let place = place(&steps, card);
    let mut killed = 0;
    for (n, chunk) in all.chunks(all.len() / 4 + 1).enumerate() {
        let text: Vec<u8> = chunk.iter().flat_map(|line| [line.as_slice(), b"\n", line.as_slice(), b"\n"].concat()).collect();
        place.append("in/a.log", &text);
        if n < 3 {
            let mut running = place.start();
            place.wait_received(&mut running, 1);
            kill(running);
            killed += 1;
        }
    }
    // The mirror sends everything once more, from another file.
    place.write("in/mirror.log", &input);
    place.once();
    assert_eq!(killed, 3);
    let got = place.run(&["cost", "rate", "--json"]).good().stdout;
    assert!(got == want, "rows differ: {} and {} bytes", got.len(), want.len());
    assert!(place.ask(&["cost", "report"])["duplicates"].as_u64() > Some(0));
}

#[test]
fn any_row_is_explained_by_facts_that_add_up_to_it() {
    let place = place(
        &format!("{TOKENS}\n{HELD}"),
        "in tokens_in-tokens_cache_read 0.5 1000000 Tokens\ncached tokens_cache_read 0.05 1000000 Tokens\nout tokens_out 1.5 1000000 Tokens\ngpu gpu 2.5 1 GPU-Hours",
    );
    let line = |n: u64| {
        let usage = format!(
            "\"gen_ai.usage.input_tokens\":{},\"gen_ai.usage.cache_read.input_tokens\":{},\"gen_ai.usage.output_tokens\":{}",
            n * 9,
            n * 4,
            n * 2 + 1
        );
        let held =
            if n.is_multiple_of(5) { ",\"start\":\"2026-10-02T08:50:00Z\",\"end\":\"2026-10-02T10:10:00Z\",\"device\":\"g0\"" } else { "" };
        format!(
            "{{\"ts\":\"2026-10-02T{:02}:{:02}:00Z\",\"tenant\":\"t{}\",\"model\":\"m{}\",\"id\":\"r{}\",{usage}{held}}}\n",
            9 + n % 3,
            n % 60,
            n % 3,
            n % 2,
            n / 2
        )
    };
    place.write("in/a.log", (0..60).map(line).collect::<String>());
    place.once();
    place.run(&["cost", "close", "--at", "2026-10-02T12:30:00Z"]).good();
    place.append("in/a.log", (60..80).map(line).collect::<String>());
    place.once();
    place.run(&["cost", "close", "--at", "2026-10-02T20:00:00Z"]).good();
    let rows = explain_all(&place);
    assert!(rows.iter().any(|row| row["x_Revision"] != "1"), "there are delta rows");
}

/// Rows of tiers and of shared devices are explained by the card and the facts, like every other.
#[test]
fn rows_of_tiers_and_shares_are_explained_too() {
    let place = place(
        &format!("{SHARED}\n{TOKENS}"),
        "h100 held 2.50 1 Slices-Hours\n---\nshares: [{ name: sm, origin: held, by: used, join: [device], capacity: { held: 1 } }]",
    );
    let card = std::fs::read_to_string(place.path("card.yaml")).expect("written");
    let tiers = "{ sku: out, meter: tokens_out, per: 1000000, unit: Tokens, tiers: [{ up_to: 1000, price: \"1.50\" }, { up_to: 5000, price: \"0.70\" }, { price: \"0.31\" }] }";
    place.write("card.yaml", card.replacen("prices: [", &format!("prices: [{tiers}, "), 1));
    let held = |id: &str, from: u32| {
        format!(
            "{{\"ts\":\"2026-10-02T12:00:00Z\",\"tenant\":\"infra\",\"device\":\"{id}\",\"id\":\"{id}\",\"start\":\"2026-10-02T{from:02}:20:00Z\",\"end\":\"2026-10-02T12:00:00Z\",\"slices\":1}}\n"
        )
    };
    let used = |n: u64| {
        format!(
            "{{\"ts\":\"2026-10-02T{:02}:{:02}:00Z\",\"tenant\":\"t{}\",\"device\":\"g{}\",\"sm_ms\":{}}}\n",
            10 + n % 2,
            n,
            n % 3,
            n % 2,
            9_001 + n
        )
    };
    let said = |n: u64| tokens(&format!("r{n}"), &format!("t{}", n % 2), &format!("2026-10-02T10:{:02}:00Z", n % 60), 100 + n as i64 * 7);
    let input = [held("g0", 9), held("g1", 10)].concat() + &(0..40).map(|n| used(n) + &said(n)).collect::<String>();
    place.write("in/a.log", input);
    place.once();
    place.run(&["cost", "close", "--at", "2026-10-02T20:00:00Z"]).good();
    let rows = explain_all(&place);
    let of = |sku: &str| rows.iter().filter(|row| row["SkuPriceId"].starts_with(sku)).count();
    assert!(of("out") >= 4 && of("h100") >= 8, "{} and {} rows", of("out"), of("h100"));
}

/// Asks what stands behind each row of October; gives the rows back.
fn explain_all(place: &Place) -> Vec<BTreeMap<String, String>> {
    let out = place.path("out");
    place.run(&["cost", "export", "--period", "2026-10", "--out", out.to_str().expect("text")]).good();
    let rows = csv(&std::fs::read_to_string(out.join("focus-1.2-2026-10.csv")).expect("written"));
    for row in &rows {
        let explained = place.ask(&["cost", "explain", &row["x_RowId"]]);
        assert_eq!(explained["is_exact"], true, "{explained}");
        assert_eq!(explained["billed"].as_str(), Some(row["BilledCost"].as_str()), "{explained}");
    }
    rows
}

/// Takes usage events.
fn gate() -> Place {
    let place = Place::new();
    let text = r#"
lanes: 1
rates: $DIR/card.yaml
sources: { in: { http: { listen: "127.0.0.1:0", usage: true } } }
tenancy: { from: [tenant] }
steps: [{ meter: { usage: events } }]
sinks: { store: { lake: {} } }
"#;
    place.pipeline(text);
    set_card(&place, "out tokens_out 1.50 1000000 Tokens\ngpu gpu 2.50 1 GPUs-Hours");
    place
}

#[test]
fn the_client_of_the_examples_may_send_again() {
    if !works("python3", &["-c", "import urllib.request"]) {
        return skip("the_client_of_the_examples", "needs python3");
    }
    let place = gate();
    let running = place.start();
    let address = crate::gateway::listens(&running, "tcp");
    let script = format!(
        "from usage_client import UsageClient\nat = __import__('datetime').datetime.fromisoformat('2026-10-02T09:30:00+00:00')\nwith UsageClient('http://{address}', 'chat') as usage:\n    for n in range(700):\n        usage.add(f'r{{n}}', 'tokens_out', n, 'Tokens', tenant='acme', dims={{'service': 'chat'}}, at=at)\n"
    );
    for _ in 0..2 {
        let mut python = Command::new("python3");
        python.args(["-c", &script]).env("PYTHONPATH", crate::harness::root().join("examples")).env("PYTHONDONTWRITEBYTECODE", "1");
        crate::harness::finish(python).good();
    }
    kill(running);
    assert_eq!(rate(&place, &[]).iter().map(show).collect::<Vec<_>>(), ["acme out@v1 09 244650 0.366975000000"]);
    assert_eq!(place.ask(&["cost", "quarantine"])["duplicates"], 700);
}

#[test]
fn usage_events_are_answered_when_they_are_kept_and_counted_once() {
    let place = gate();
    let running = place.start();
    let address = crate::gateway::listens(&running, "tcp");
    let event = |id: &str, data: Value| json!({ "specversion": "1.0", "id": id, "source": "chat", "type": "weir.usage.v1", "subject": "acme", "time": "2026-10-02T09:30:00Z", "data": data });
    let post = |kind: &str, more: &[(&str, &str)], body: &Value| {
        let mut headers = vec![("Content-Type", kind)];
        headers.extend(more);
        crate::gateway::send(&address, "POST /api/v1/usage", &headers, body.to_string()).status
    };
    let tokens = |n: u64| json!({ "meter": "tokens_out", "quantity": n, "unit": "Tokens", "dims": { "service": "chat", "model": "orca" } });
    assert_eq!(post("application/cloudevents+json", &[], &event("e1", tokens(1_000))), 202);
    assert_eq!(post("application/cloudevents-batch+json", &[], &json!([event("e1", tokens(1_000)), event("e2", tokens(500))])), 202);
    assert_eq!(post("application/cloudevents+json", &[], &event("e2", tokens(777))), 202, "a conflict is kept, and told later");
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "e3"),
        ("ce-source", "chat"),
        ("ce-type", "t"),
        ("ce-subject", "acme"),
        ("ce-time", "2026-10-02T09:40:00Z"),
    ];
    assert_eq!(post("application/json", &binary, &tokens(250)), 202);
    let held = json!({ "meter": "gpu", "unit": "GPUs", "start": "2026-10-02T09:00:00Z", "end": "2026-10-02T10:00:00Z" });
    assert_eq!(post("application/cloudevents+json", &[], &event("g1", held)), 202);
    let wrong = event("bad", json!({ "meter": "tokens_out", "quantity": -1, "unit": "Tokens" }));
    assert_eq!(post("application/cloudevents-batch+json", &[], &json!([event("e9", tokens(9)), wrong])), 400, "nothing of it is taken");
    // Held before the answer: what comes after a kill is the same.
    kill(running);
    let mut running = place.start();
    place.wait_ledger(&mut running, "the hub is there", |_| true);
    let rows: Vec<String> = rate(&place, &[]).iter().map(show).collect();
    assert_eq!(rows, ["acme gpu@v1 09 3600000 2.500000000000", "acme out@v1 09 1750 0.002625000000"]);
    let quarantine = place.ask(&["cost", "quarantine"]);
    assert_eq!((&quarantine["duplicates"], &quarantine["conflicts"]), (&json!(1), &json!(1)), "{quarantine}");
    kill(running);
}

#[test]
fn the_quickstarts_export_passes_the_official_validator_and_ours() {
    let place = place(
        "meter: { name: tokens_in, quantity: tokens_in, unit: Tokens, by: [service, model] }\nmeter: { name: tokens_out, quantity: tokens_out, unit: Tokens, by: [service, model] }",
        "in tokens_in 0.5 1000000 Tokens\nout tokens_out 1.5 1000000 Tokens",
    );
    place.write("in/a.log", platform(3, 20_000).concat());
    place.once();
    let out = place.path("out");
    let export = place.ask(&["cost", "export", "--period", "2026-11", "--out", out.to_str().expect("text")]);
    let rows = export["rows"].as_u64().expect("a number");
    assert!(rows > 100, "{export}");
    let files = [out.join("focus-1.2-2026-11.parquet"), out.join("focus-1.2-2026-11.csv")];
    for file in &files {
        let check = crate::harness::finish({
            let mut command = crate::harness::weir();
            command.args(["cost", "check", "--json"]).arg(file);
            command
        });
        assert_eq!(check.json()[0]["good"], true, "{}", check.text());
    }
    // One digit of one amount, and the checker says where.
    let text = std::fs::read_to_string(&files[1]).expect("written");
    let list = csv(&text)[4]["ListCost"].clone();
    let broken = place.write("broken.csv", text.replace(&list, &format!("9{list}")));
    let check = crate::harness::finish({
        let mut command = crate::harness::weir();
        command.args(["cost", "check"]).arg(broken);
        command
    });
    assert!(check.code == Some(2) && check.text().contains("list-product"), "{}", check.text());

    let mut validator = Command::new(crate::harness::root().join("tests/focus-validator"));
    let done = crate::harness::finish({
        validator.args(&files);
        validator
    });
    if done.code == Some(77) {
        return skip("the_quickstarts_export", &format!("needs focus-validator: {}", done.stderr.trim()));
    }
    let failed: Vec<String> = done.text().lines().filter_map(|line| line.split_once('\t')).map(|(_, ids)| ids.trim().to_owned()).collect();
    assert_eq!(failed, ["InvoiceId-C-004-C", "InvoiceId-C-004-C"], "{}\n{}", done.text(), done.stderr);
}

/// Totals by tenant from the same files, by readers that know nothing of us.
#[test]
fn duckdb_and_others_add_up_the_same_totals() {
    let place = place(TOKENS, "out tokens_out 1.50 1000000 Tokens");
    let input: String = (0..500).map(|n| tokens(&format!("r{n}"), &format!("t{}", n % 7), "2026-10-02T09:30:00Z", n * 31)).collect();
    place.write("in/a.log", input);
    place.once();
    place.run(&["cost", "close", "--at", "2026-10-03"]).good();
    let report = place.ask(&["cost", "report", "--by", "tenant"]);
    let want: BTreeMap<String, i128> = report["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["tenant"].as_str().expect("text").to_owned(), units(row["cost"].as_str().expect("text"))))
        .collect();
    assert_eq!(want.len(), 7);
    let python = std::env::var("WEIR_TABLES_PYTHON").unwrap_or_default();
    let files = place.data().join("lake");
    for reader in ["duckdb", "chdb", "pyspark"] {
        if python.is_empty() || !works(&python, &["-c", &format!("import {reader}")]) {
            skip("totals_by_other_readers", &format!("needs {reader} for Python"));
            continue;
        }
        let mut command = Command::new(&python);
        command.arg(crate::harness::root().join("tests/read_tables.py")).arg(reader).arg(&files);
        let done = crate::harness::finish(command).good();
        let got: BTreeMap<String, (String, String)> = done
            .text()
            .lines()
            .filter_map(|line| line.strip_prefix("total "))
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                (words[0].to_owned(), (words[1].to_owned(), words[2].to_owned()))
            })
            .collect();
        assert_eq!(got.len(), want.len(), "{reader}: {}\n{}", done.text(), done.stderr);
        for (tenant, cost) in &want {
            let number = tenant.trim_start_matches('t').parse::<i64>().expect("a number");
            let tokens: i64 = (0..500).filter(|n| n % 7 == number).map(|n| n * 31).sum();
            assert_eq!((units(&got[tenant].0), got[tenant].1.as_str()), (*cost, tokens.to_string().as_str()), "{reader}, {tenant}");
        }
    }
}
