//! Input and what must come of it: lines like an inference platform's, and their sums computed with serde_json.
//!
//! In: a seed and a number of lines. Out: the same bytes for the same arguments. The oracle reads the lines themselves and
//! shares no code with the program.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

const TENANTS: [&str; 8] =
    ["acme-search", "borealis-legal", "cobalt-games", "delta-health", "ember-retail", "fjord-bank", "granite-auto", "helix-bio"];
const MODELS: [(&str, &str); 4] =
    [("chat-8b", "orca-8b-it"), ("chat-70b", "orca-70b-it"), ("code-34b", "forge-34b-code"), ("embed-large", "vesper-embed-v3")];
const MESSAGES: [&str; 4] = [
    "request completed: finish_reason=stop",
    "tool call \\\"search_documents\\\" returned {} results",
    "CUDA error: out of memory\\n  at allocator.cc:{}",
    "preempting sequence {} (priority \u{ab}batch\u{bb})",
];

/// A small generator (SplitMix64, Steele 2014): the seed decides everything.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % sides
    }
}

/// JSON lines with newlines: one unique `trace_id` each, time from 2026-11-09T03:00:00Z on (of the past, or no meter counts them), about 400 bytes a line.
pub fn platform(seed: u64, count: usize) -> Vec<String> {
    let mut dice = Dice(seed);
    (0..count).map(|n| line(&mut dice, seed, n)).collect()
}

fn line(dice: &mut Dice, seed: u64, n: usize) -> String {
    let level = match dice.roll(100) {
        0..20 => "debug",
        20..80 => "info",
        80..92 => "warn",
        _ => "error",
    };
    let tenant = TENANTS[(dice.roll(8) * dice.roll(9) / 8) as usize];
    let (service, model) = MODELS[dice.roll(4) as usize];
    let stage = ["gateway", "decode"][dice.roll(2) as usize];
    let minute = 180 + (n as u64 * 7 + dice.roll(7)) % (5 * 1440); // from 03:00 on, within the month
    let (day, hour, minute) = (9 + minute / 1440, minute / 60 % 24, minute % 60);
    let tokens_in = dice.roll(4000);
    let message = MESSAGES[dice.roll(4) as usize].replace("{}", &dice.roll(1000).to_string());
    format!(
        "{{\"ts\":\"2026-11-{day:02}T{hour:02}:{minute:02}:{:02}.{:09}Z\",\"level\":\"{level}\",\"tenant\":\"{tenant}\",\"service\":\"{service}-{stage}\",\"model\":\"{model}\",\"request_id\":\"req_{:012x}\",\"trace_id\":\"{seed:016x}{n:016x}\",\"status\":{},\"latency_ms\":{}.{:03},\"tokens_in\":{tokens_in},\"tokens_cached\":{},\"tokens_out\":{},\"msg\":\"{message}\"}}\n",
        dice.roll(60),
        dice.roll(1_000_000_000),
        dice.roll(1 << 48),
        [200, 200, 429, 500][dice.roll(4) as usize],
        dice.roll(9000),
        dice.roll(1000),
        tokens_in * dice.roll(100) / 100,
        dice.roll(600),
    )
}

/// Sums by `meter|tenant|service|model|hour`: quantity and number of records.
pub type Usage = BTreeMap<String, (i128, u64)>;

pub const METERS: [&str; 3] = ["tokens_in", "tokens_cached", "tokens_out"];

/// What the three meters must say about these lines.
pub fn usage<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Usage {
    let mut usage = Usage::new();
    for line in lines {
        let record: Value = serde_json::from_slice(line).expect("the generator writes JSON");
        let text = |name: &str| record[name].as_str().expect("the generator writes it").to_string();
        for meter in METERS {
            let key = format!("{meter}|{}|{}|{}|{}", text("tenant"), text("service"), text("model"), &text("ts")[..13]);
            let sum = usage.entry(key).or_default();
            sum.0 += i128::from(record[meter].as_i64().expect("a number"));
            sum.1 += 1;
        }
    }
    usage
}

/// The same from the generator's `.meta.json` files, which were made without us.
pub fn usage_of_meta(files: &[PathBuf]) -> Usage {
    let mut usage = Usage::new();
    for file in files {
        let meta: Value = serde_json::from_slice(&std::fs::read(file).expect("committed")).expect("JSON");
        for (key, sums) in meta["usage"].as_object().expect("sums") {
            let number = |n: usize| sums[n].as_i64().expect("a sum");
            for (n, meter) in METERS.iter().enumerate() {
                let sum = usage.entry(format!("{meter}|{key}")).or_default();
                sum.0 += i128::from(number(n + 1));
                sum.1 += number(0) as u64;
            }
        }
    }
    usage
}

/// The same from `weir cost report --json`.
pub fn usage_of_report(report: &Value) -> Usage {
    let mut usage = Usage::new();
    for row in report["usage"].as_array().unwrap_or_else(|| panic!("no usage in {report}")) {
        let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}")).to_string();
        let key = format!("{}|{}|{}|{}|{}", text("meter"), text("tenant"), text("service"), text("model"), &text("hour")[..13]);
        assert_eq!(text("unit"), "Tokens", "{row}");
        let quantity = text("quantity").parse().expect("an integer");
        let events = row["events"].as_u64().expect("a count");
        assert!(usage.insert(key, (quantity, events)).is_none(), "two rows of one key: {row}");
    }
    usage
}

/// Tells the first difference instead of thousands of equal rows.
#[track_caller]
pub fn assert_same_usage(got: &Usage, want: &Usage) {
    for (key, sum) in want {
        assert_eq!(got.get(key), Some(sum), "(quantity, records) of {key}");
    }
    assert_eq!(got.keys().find(|key| !want.contains_key(*key)), None, "a row nobody asked for");
}

/// Compares lines as multisets and tells what is missing, doubled or foreign.
#[track_caller]
pub fn assert_same_lines(what: &str, got: &[Vec<u8>], want: &[Vec<u8>]) {
    let mut counts: BTreeMap<&[u8], i64> = BTreeMap::new();
    want.iter().for_each(|line| *counts.entry(line).or_default() += 1);
    got.iter().for_each(|line| *counts.entry(line).or_default() -= 1);
    counts.retain(|_, n| *n != 0);
    if let Some((line, n)) = counts.iter().next() {
        let line = String::from_utf8_lossy(&line[..line.len().min(300)]);
        let (missing, extra) = (counts.values().filter(|n| **n > 0).count(), counts.values().filter(|n| **n < 0).count());
        panic!("{what}: {} lines for {}; {missing} missing, {extra} extra; first ({n:+}): {line}", got.len(), want.len());
    }
}

/// Lines of a container log joined again: prefix stripped, `P` parts put before their `F`, per output.
pub fn joined(cri: &[u8]) -> Vec<Vec<u8>> {
    let mut open: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut records = Vec::new();
    for line in crate::harness::lines(cri) {
        let mut words = line.splitn(4, |b| *b == b' ');
        let (_time, output, tag) = (words.next(), words.next().expect("an output"), words.next().expect("a tag"));
        open.entry(output.to_vec()).or_default().extend_from_slice(words.next().unwrap_or_default());
        if tag == b"F" {
            records.push(open.remove(output).expect("just filled"));
        }
    }
    assert!(open.is_empty(), "the input ends with a part");
    records
}

/// Without newline, those of which `is` says so.
pub fn select(lines: &[String], is: impl Fn(&Value) -> bool) -> Vec<Vec<u8>> {
    let chosen = lines.iter().filter(|line| is(&serde_json::from_str(line).expect("the generator writes JSON")));
    chosen.map(|line| line.trim_end_matches('\n').as_bytes().to_vec()).collect()
}
