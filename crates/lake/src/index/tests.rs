//! What the index proposes, beside a naive look at every row.

use super::*;
use hub::disk::Sim;
use std::collections::{BTreeMap, BTreeSet};

/// xorshift64 (Marsaglia 2003).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

const WORDS: [&str; 9] = ["conn", "Reset", "peer", "naïve", "ÄRGER", "東京", "x1", "a", "A"];

struct Row {
    service: Option<String>,
    user: String,
    trace: Option<String>,
    text: String,
    severity: Severity,
}

fn row(state: &mut u64, i: u64) -> Row {
    let dice = next(state);
    let mut words: Vec<String> = (0..dice % 7).map(|k| WORDS[(dice >> (4 * k + 4)) as usize % WORDS.len()].to_owned()).collect();
    words.push(format!("{:08x}", next(state) as u32));
    if dice.is_multiple_of(97) {
        words.push("w".repeat(600));
    }
    let service = match dice % 50 {
        0 => None,
        1 => Some("s".repeat(700)),
        n => Some(format!("s{}", n % 6)),
    };
    Row {
        service,
        user: format!("user-{}", dice % 700),
        trace: (!dice.is_multiple_of(9)).then(|| format!("{:032x}", u128::from(i / 3) * 0x9e37_79b9_7f4a_7c15_f39c)),
        text: words.join([" ", "-", ", "][dice as usize % 3]),
        severity: [0, 9, 17][dice as usize % 3],
    }
}

fn rows_of(bits: &Bits) -> BTreeSet<usize> {
    bits.ranges().into_iter().flatten().collect()
}

#[test]
fn every_value_and_word_finds_its_rows() {
    let mut state = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_127);
    println!("SEED={state}");
    let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let fields = Fields { index: names(&["service", "user"]), text: names(&["msg"]), ids: names(&["trace", "user"]), numbers: vec![] };
    let mut builder = Builder::new(&fields, &["service", "user", "msg", "trace"]).unwrap();
    let mut values: [BTreeMap<String, BTreeSet<usize>>; 3] = Default::default();
    let mut words: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let (mut long_service, mut long_word) = (BTreeSet::new(), BTreeSet::new());
    let count = 6_000;
    for i in 0..count {
        let row = row(&mut state, i as u64);
        let bytes = |text: &Option<String>| text.clone().map(|t| Cow::Owned(t.into_bytes()));
        let texts = [bytes(&row.service), bytes(&Some(row.user.clone())), bytes(&Some(row.text.clone())), bytes(&row.trace)];
        let whole = (i % 41 == 0).then_some("{broken line");
        builder.add(&texts, whole, row.severity).unwrap();
        match row.service {
            Some(service) if service.len() > 512 => _ = long_service.insert(i),
            Some(service) => _ = values[0].entry(service).or_default().insert(i),
            None => {}
        }
        values[1].entry(row.user).or_default().insert(i);
        if let Some(trace) = row.trace {
            values[2].entry(trace).or_default().insert(i);
        }
        for word in row.text.split(|c: char| !c.is_alphanumeric()).chain(whole.into_iter().flat_map(|_| ["broken", "line"])) {
            match word.len() {
                0 => {}
                513.. => _ = long_word.insert(i),
                _ => _ = words.entry(word.chars().flat_map(char::to_lowercase).collect()).or_default().insert(i),
            }
        }
    }
    let disk = Disk::Sim(std::sync::Arc::new(Sim::new(1)));
    let path = Path::new("/x.idx");
    let bytes = builder.finish().unwrap();
    disk.create_dir_all(Path::new("/"), "test").unwrap();
    let tmp = crate::commit::write_tmp(&disk, Path::new("/"), "x.idx", &bytes, "test").unwrap();
    disk.link(&tmp, path, "test").unwrap();
    let index = Proposer::open(&disk, path, count as u64).unwrap();

    let at = |name: &str| index.keyword(name).unwrap();
    for (service, want) in &values[0] {
        assert_eq!(rows_of(&index.equal(at("service"), service).unwrap()), want | &long_service, "{service}");
    }
    for (user, want) in &values[1] {
        assert_eq!(rows_of(&index.equal(at("user"), user).unwrap()), *want, "{user}: a field that is indexed has its dictionary");
    }
    let mut strays = 0;
    for (trace, want) in &values[2] {
        let found = rows_of(&index.equal(at("trace"), trace).unwrap());
        assert!(found.is_superset(want), "{trace}");
        strays += found.len() - want.len();
    }
    assert!(strays < values[2].len() / 100, "{strays} rows too many for {} ids", values[2].len());
    for (word, want) in &words {
        assert_eq!(rows_of(&index.all_words(std::slice::from_ref(word)).unwrap()), want | &long_word, "{word}");
    }
    assert!(words.len() > 5_000 && !long_word.is_empty() && !long_service.is_empty(), "the rows test nothing");
    let both = index.all_words(&["conn".into(), "peer".into()]).unwrap();
    assert_eq!(rows_of(&both), &(&words["conn"] & &words["peer"]) | &long_word);
    let starts = index.terms(index.fields.text, "0", usize::MAX, &|_| true).unwrap().unwrap();
    let want: BTreeSet<usize> = words.iter().filter(|(w, _)| w.starts_with('0')).flat_map(|(_, rows)| rows.clone()).collect();
    assert_eq!(rows_of(&starts), want);
    let trace = index.fields.keywords[at("trace")];
    assert_eq!(index.terms(trace, "0", usize::MAX, &|_| true).unwrap(), None, "a pattern that ids can match may be in any row");
    assert_eq!(index.terms(trace, "conn", usize::MAX, &|_| true).unwrap().unwrap().count(), 0);
}
