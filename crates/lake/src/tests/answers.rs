//! Searches against a naive scan: serde_json for the fields, `split` for the words, a tree of its own for the
//! query. It shares no parser, tokenizer or test with the crate.

use super::*;
use crate::search::search_within;
use serde_json::Value;

/// xorshift64 (Marsaglia 2003).
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

const SERVICES: [&str; 6] = ["auth", "search api", "chat-é", "AUTH", "", "a\"b\\c"];
const LEVELS: [&str; 6] = ["info", "error", "WARN", "Error", "warning", "odd"];
const WORDS: [&str; 12] = ["conn", "Reset", "peer", "naïve", "ÄRGER", "東京", "x1", "10", "--", "\u{1F600}", "lost\tline", "q\"uote"];
pub(super) const TENANTS: [&str; 3] = ["acme", "zeta-9", "ümlaut"];

/// A JSON string, now and then written with needless escapes.
fn quote(random: &mut Random, text: &str) -> String {
    if random.below(4) > 0 {
        return Value::from(text).to_string();
    }
    let mut units = [0; 2];
    let escape = |c: char, units: &mut [u16; 2]| c.encode_utf16(units).iter().map(|u| format!("\\u{u:04x}")).collect::<String>();
    format!("\"{}\"", text.chars().map(|c| escape(c, &mut units)).collect::<String>())
}

fn message(random: &mut Random) -> String {
    let mut words: Vec<String> = (0..random.below(6)).map(|_| random.pick(&WORDS).to_string()).collect();
    if random.below(40) == 0 {
        words.push("w".repeat(600)); // longer than the index takes
    }
    words.join(*random.pick(&[" ", "-", ", "]))
}

pub(super) fn generate(random: &mut Random, i: usize) -> Line {
    let level = *random.pick(&LEVELS);
    let mut fields: Vec<String> = Vec::new();
    let service = if random.below(50) == 0 { "s".repeat(700) } else { random.pick(&SERVICES).to_string() };
    let mut put = |random: &mut Random, name: &str, value: String, present: usize| {
        if random.below(10) < present {
            fields.push(format!("\"{name}\":{value}"));
        }
    };
    let text = quote(random, &service);
    put(random, "service", text, 9);
    let text = quote(random, level);
    put(random, "level", text, 9);
    let text = message(random);
    let text = quote(random, &text);
    put(random, "msg", text, 8);
    let text = message(random);
    let text = quote(random, &text);
    put(random, "message", text, 2);
    put(random, "trace_id", format!("\"t-{}\"", i % 97), 7);
    let number = *random.pick(&["null", "true", "\"12\"", "0.5", "7", "120", "99999999999999999999"]);
    put(random, "latency_ms", number.to_owned(), 8);
    let model = *random.pick(&["5", "\"gpt-x\"", "null", "{\"a\":[1,2]}"]);
    put(random, "model", model.to_owned(), 6);
    let user = *random.pick(&["u1", "u2"]);
    let nested = quote(random, user);
    put(random, "user", format!("{{\"id\":{nested},\"x\":{{}}}}"), 5);
    if random.below(12) == 0 {
        put(random, "service", "\"auth\"".into(), 10); // the same key again: the last one counts
    }
    let mut raw = format!("{{{}}}", fields.join(",")).into_bytes();
    match random.below(25) {
        0 => raw = format!("plain conn {} reset {{", i % 5).into_bytes(),
        1 => {
            raw.pop();
        }
        2 => raw = b"{\"msg\":\"bad \xff\xfe conn\",\"service\":\"a\xc3\"}".to_vec(),
        _ => {}
    }
    let severity = match level.to_lowercase().as_str() {
        "info" => 9,
        "warn" | "warning" => 13,
        "error" => 17,
        _ => 0,
    };
    Line {
        tenant: random.pick(&TENANTS).as_bytes().to_vec(),
        time: START + (random.below(500) as i64) * 1_000_000_000 * 600,
        severity,
        raw,
    }
}

/// The oracle's own query.
pub(super) enum Ask {
    All,
    Is(&'static str, String),
    Phrase(&'static str, Vec<String>),
    Word(String),
    BarePhrase(Vec<String>),
    Starts(&'static str, String),
    WordStarts(String),
    Has(&'static str),
    Over(&'static str, i128),
    Level(&'static str),
    Tenant(String),
    Not(Box<Ask>),
    Both(Box<Ask>, Box<Ask>),
    Either(Box<Ask>, Box<Ask>),
}

fn naive_words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(|w| w.chars().flat_map(char::to_lowercase).collect()).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Ask {
    pub fn generate(random: &mut Random, depth: usize) -> Ask {
        let plain: [&str; 9] = ["conn", "reset", "peer", "naïve", "ärger", "東京", "x1", "10", "uote"];
        match random.below(if depth == 0 { 11 } else { 15 }) {
            0 => Ask::Is("service", random.pick(&SERVICES).to_string()),
            1 => Ask::Is("service", "s".repeat(700)),
            2 => Ask::Phrase("msg", vec![random.pick(&plain).to_string(), random.pick(&plain).to_string()]),
            3 => Ask::Word(random.pick(&plain).to_string()),
            4 => Ask::BarePhrase(vec![random.pick(&plain).to_string(), random.pick(&plain).to_string()]),
            5 => Ask::Starts("service", random.pick(&["a", "se", "AU", "zz"]).to_string()),
            6 => match random.below(3) {
                0 => Ask::Has(["service", "model", "trace_id", "user.id"][random.below(4)]),
                1 => Ask::WordStarts(random.pick(&["co", "pe", "東", "w"]).to_string()),
                _ => Ask::Is("trace_id", format!("t-{}", random.below(99))),
            },
            7 => Ask::Over("latency_ms", [-1, 0, 7, 100, 1 << 70][random.below(5)]),
            8 => Ask::Level(["error", "WARN", "info", "odd", "none"][random.below(5)]),
            9 => Ask::Tenant(random.pick(&TENANTS).to_string()),
            10 => match random.below(5) {
                0 => Ask::All,
                1 => Ask::Is("user.id", "u1".into()),
                2 => Ask::Word("w".repeat(600)),
                3 => Ask::Is("model", "5".into()),
                _ => Ask::Word(format!("t-{}", random.below(99))),
            },
            11 => Ask::Not(Box::new(Ask::generate(random, depth - 1))),
            12 | 13 => Ask::Both(Box::new(Ask::generate(random, depth - 1)), Box::new(Ask::generate(random, depth - 1))),
            _ => Ask::Either(Box::new(Ask::generate(random, depth - 1)), Box::new(Ask::generate(random, depth - 1))),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Ask::All => "*".into(),
            Ask::Is(field, value) => format!("{field}:{}", quoted(value)),
            Ask::Phrase(field, words) => format!("{field}:{}", quoted(&words.join(" "))),
            Ask::Word(word) => word.clone(),
            Ask::BarePhrase(words) => quoted(&words.join("/")),
            Ask::Starts(field, start) => format!("{field}:{start}*"),
            Ask::WordStarts(start) => format!("{start}*"),
            Ask::Has(field) => format!("{field}:*"),
            Ask::Over(field, number) => format!("{field}:>{number}"),
            Ask::Level(level) => format!("level:{level}"),
            Ask::Tenant(tenant) => format!("tenant:{tenant}"),
            Ask::Not(ask) => format!("NOT ({})", ask.text()),
            Ask::Both(a, b) => {
                format!("({}) {}", a.text(), if matches!(**b, Ask::Either(..)) { format!("({})", b.text()) } else { b.text() })
            }
            Ask::Either(a, b) => format!("{} OR {}", a.text(), b.text()),
        }
    }

    pub fn holds(&self, line: &Line) -> bool {
        let whole = String::from_utf8_lossy(&line.raw).into_owned();
        let json = serde_json::from_str::<Value>(&whole).ok().filter(Value::is_object);
        let field = |name: &str| -> Option<String> {
            let mut value = json.as_ref()?;
            for key in name.split('.') {
                value = value.get(key)?;
            }
            match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            }
        };
        let texts: Vec<String> =
            if json.is_none() { vec![whole.clone()] } else { ["msg", "message"].iter().filter_map(|f| field(f)).collect() };
        let follow = |text: &str, words: &[String]| naive_words(text).windows(words.len()).any(|w| w == words);
        let ids = || ["trace_id", "request_id"].iter().filter_map(|f| field(f)).collect::<Vec<_>>();
        match self {
            Ask::All => true,
            Ask::Is(name, value) => field(name).as_ref() == Some(value),
            Ask::Phrase(name, words) => field(name).is_some_and(|text| follow(&text, words)),
            Ask::Word(word) => texts.iter().any(|t| follow(t, &naive_words(word))) || ids().contains(word),
            Ask::BarePhrase(words) => texts.iter().any(|t| follow(t, words)) || ids().contains(&words.join("/")),
            Ask::Starts(name, start) => field(name).is_some_and(|text| text.starts_with(start.as_str())),
            Ask::WordStarts(start) => {
                texts.iter().any(|t| naive_words(t).iter().any(|w| w.starts_with(start.as_str())))
                    || ids().iter().any(|t| t.starts_with(start.as_str()))
            }
            Ask::Has(name) => field(name).is_some(),
            Ask::Over(name, number) => field(name).is_some_and(|text| match (text.parse::<i128>(), text.parse::<f64>()) {
                (Ok(have), _) => have > *number,
                (_, Ok(have)) => have > *number as f64,
                _ => false,
            }),
            Ask::Level(level) => {
                let class = match level.to_lowercase().as_str() {
                    "info" => 9,
                    "warn" => 13,
                    "error" => 17,
                    _ => u8::MAX,
                };
                field("level").is_some_and(|text| text.to_lowercase() == level.to_lowercase()) || line.severity == class
            }
            Ask::Tenant(tenant) => line.tenant == tenant.as_bytes(),
            Ask::Not(ask) => !ask.holds(line),
            Ask::Both(a, b) => a.holds(line) && b.holds(line),
            Ask::Either(a, b) => a.holds(line) || b.holds(line),
        }
    }
}

type Row = (i64, Vec<u8>, StreamId, u64, Vec<u8>);

fn run(disk: &Disk, root: &Path, tail: &[Arc<Frame>], text: &str, options: &SearchOptions, window: usize) -> (Vec<Row>, Stats) {
    let snapshot = Snapshot::read(disk, root).unwrap();
    let mut rows = Vec::new();
    let query = Query::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let stats = search_within(disk, &snapshot, tail, &query, options, window, &mut |hit| {
        rows.push((hit.time.0, hit.tenant, hit.stream, hit.position, hit.raw));
        ControlFlow::Continue(())
    });
    (rows, stats.unwrap())
}

#[test]
fn any_search_equals_a_naive_scan() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_123);
    println!("SEED={seed}");
    let mut random = Random(seed);
    let lines: Vec<Line> = (0..1200).map(|i| generate(&mut random, i)).collect();
    let mut frames: Vec<Arc<Frame>> = Vec::new();
    let mut at = [0u64; 2];
    for (i, chunk) in lines.chunks(100).enumerate() {
        frames.push(frame(i as u64 + 1, i as u64 % 2, at[i % 2], chunk));
        at[i % 2] = end(&frames[i]);
    }
    let mut all: Vec<(Row, &Line)> = Vec::new();
    for (frame, chunk) in frames.iter().zip(lines.chunks(100)) {
        all.extend(
            chunk
                .iter()
                .enumerate()
                .map(|(i, line)| ((line.time, line.tenant.clone(), frame.parts[0].stream, frame.rows.position[i], line.raw.clone()), line)),
        );
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));

    let disk = Disk::Sim(Arc::new(Sim::new(1)));
    let places = [Path::new("/indexed"), Path::new("/plain")];
    for (root, index_bytes_min) in [(places[0], 0), (places[1], u64::MAX)] {
        let mut lake = Lake::open(disk.clone(), root, options(index_bytes_min)).unwrap();
        lake.seal(&frames[..5]).unwrap();
        lake.seal(&frames[5..9]).unwrap(); // the last three stay in the tail
    }
    let (mut by_index, mut found) = (0, 0);
    for case in 0..if std::env::var("SLOW").is_ok() { 20_000 } else { 400 } {
        let ask = Ask::generate(&mut random, 3);
        let text = ask.text();
        let want: Vec<Row> = all.iter().filter(|(_, line)| ask.holds(line)).map(|(row, _)| row.clone()).collect();
        found += want.len();
        let (got, stats) = run(&disk, places[0], &frames, &text, &SearchOptions::default(), 64 << 20);
        by_index += stats.files_by_index;
        assert!(got == want, "SEED={seed} case {case}: {text}\nindex finds {} rows, the naive scan {}", got.len(), want.len());
        let (got, _) = run(&disk, places[1], &frames, &text, &SearchOptions::default(), 30_000);
        assert!(
            got == want,
            "SEED={seed} case {case}: {text}\nthe scan in a small window finds {} rows, the naive scan {}",
            got.len(),
            want.len()
        );
        let limit = random.below(20);
        let newest =
            SearchOptions { newest_first: true, limit: Some(limit), since: Some(UnixNanos(START + DAY)), ..SearchOptions::default() };
        let (got, _) = run(&disk, places[0], &frames, &text, &newest, 1_000);
        let want: Vec<Row> = want.into_iter().rev().filter(|row| row.0 >= START + DAY).take(limit).collect();
        assert!(got == want, "SEED={seed} case {case}: {text}\nnewest {limit}: {} rows, the naive scan {}", got.len(), want.len());
    }
    assert!(by_index > 200, "the index was used for {by_index} files only");
    assert!(found > 10_000, "only {found} rows were found: the queries test nothing");
}
