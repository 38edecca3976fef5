//! What records cost one by one is what rating charges for all of them: on the quickstart's data, and with cards of chance.

use crate::config::{Config, card, load};
use crate::plan;
use bill::rate;
use flow::batch::Batch;
use flow::decode::{Decoder, End, Format, Limits};
use flow::event::{StreamId, UsageFact};
use flow::meter::Sums;
use flow::pipeline::{Reading, Rules, Worker};
use flow::step::StepConfig;
use flow::units::UnixNanos;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Decides about lines; returns the batch and what was used.
fn process(rules: &Arc<Rules>, lines: &[u8], format: Format) -> (Batch, Vec<UsageFact>) {
    let mut batch = Batch { arena: lines.to_vec(), ..Batch::default() };
    let limits = Limits { line_bytes_max: 1 << 20, join_bytes_max: 1 << 20, join_age_ns: 0 };
    Decoder::new(format, limits).decode(&mut batch, 0, End::Log, UnixNanos(0));
    let mut sums = Sums::default();
    let reading = Reading { json: true, drop_malformed: false };
    Worker::new(Arc::clone(rules)).process(&mut batch, reading, UnixNanos(0), &mut sums);
    let mut facts = Vec::new();
    for sum in sums.iter() {
        let group = &rules.meters.groups[sum.group];
        for (meter, quantity) in group.meters.iter().zip(sum.quantities).filter(|(meter, q)| q.events > 0 && !meter.lineage) {
            let dims = group.dims.iter().zip(&sum.dims).map(|((name, _), value)| (name.clone(), value.to_vec())).collect();
            facts.push(UsageFact {
                tenant: rules.tenants.name(sum.tenant).to_vec(),
                meter: meter.name.clone(),
                unit: meter.unit.clone(),
                dims,
                minute: sum.minute,
                quantity: quantity.total,
                events: quantity.events,
                stream: StreamId(0),
                from: 0,
                to: 0,
                received: UnixNanos(0),
                event: None,
            });
        }
    }
    (batch, facts)
}

/// By tenant: what its records cost, and what rating charges.
fn both(config: &Config, card: &bill::Card, inputs: &[(Vec<u8>, Format)]) -> BTreeMap<Vec<u8>, [i128; 2]> {
    let rules = plan::compile("test", config, Path::new("/nowhere"), Some(card)).expect("a plan").rules;
    let prices = super::compile(card, &rules.meters);
    let mut sums: BTreeMap<Vec<u8>, [i128; 2]> = BTreeMap::new();
    let mut all = Vec::new();
    for (lines, format) in inputs {
        let (batch, facts) = process(&rules, lines, *format);
        let (mut mask, mut costs) = (Vec::new(), Vec::new());
        prices.costs(&rules.meters, &batch, &mut mask, &mut costs);
        for (i, cost) in costs.iter().enumerate() {
            sums.entry(rules.tenants.name(batch.tenant[i]).to_vec()).or_default()[0] += cost;
        }
        all.extend(facts);
    }
    for charge in rate(card, &all).rows {
        sums.entry(charge.series.tenant.clone()).or_default()[1] += charge.billed.0;
    }
    sums
}

#[test]
fn records_of_the_quickstart_cost_what_their_bill_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let loaded = load(&[root.join("pipelines/quickstart.yaml")], &|_| None).expect("no mistakes").remove(0);
    let mut config = loaded.config;
    config.steps.retain(|step| matches!(step, StepConfig::Meter(_)));
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(root.join("tests/data/quickstart")).expect("it is there") {
        let path = entry.expect("it is there").path();
        let format = match path.extension().and_then(|e| e.to_str()) {
            Some("ndjson") => Format::Json,
            Some("log") => Format::Cri,
            _ => continue,
        };
        inputs.push((std::fs::read(path).expect("readable"), format));
    }
    let sums = both(&config, &loaded.rates.expect("a card").card, &inputs);
    assert!(sums.len() >= 8 && sums.values().all(|[records, _]| *records > 0), "{sums:?}");
    sums.iter().for_each(|(tenant, [records, charges])| assert_eq!(records, charges, "{}", String::from_utf8_lossy(tenant)));
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % sides
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.roll(words.len() as u64) as usize]
    }
}

/// A card with prices for some of the meters and dimensions, in two versions with a gap between them.
fn some_card(dice: &mut Dice) -> bill::Card {
    let mut text = "currency: USD\nversions:\n".to_string();
    for (name, from, to) in
        [("old", "2026-11-01T00:00:00Z", "2026-11-23T03:10:00Z"), ("new", "2026-11-23T03:12:00Z", "2027-01-01T00:00:00Z")]
    {
        text += &format!("  - {{ name: {name}, from: {from}, to: {to}, prices: [\n");
        let mut sku = 0;
        for meter in ["tokens_in", "tokens_cached", "tokens_out", "lines", "stranger"] {
            // Of prices that fit equally well a card has none.
            let kinds: [&[&str]; 4] = [
                &["", "model: a, ", "model: b, "],
                &["", "match: { service: s }, "],
                &["", "model: a, ", "match: { model: a, service: s }, "],
                &["", "match: { zone: z }, "],
            ];
            for fits in kinds[dice.roll(4) as usize] {
                if dice.roll(3) == 0 {
                    continue;
                }
                let minus = if meter == "tokens_in" { dice.of(&["", "minus: tokens_cached, ", "minus: tokens_out, "]) } else { "" };
                let unit = if meter == "lines" { "Records" } else { dice.of(&["Tokens", "Tokens", "Tokens", "Seconds"]) };
                let (per, price) = (10u64.pow(dice.roll(4) as u32), dice.roll(1_000));
                sku += 1;
                text +=
                    &format!("    {{ sku: s{sku}, meter: {meter}, {minus}{fits}price: \"0.{price:03}\", per: {per}, unit: {unit} }},\n");
            }
        }
        if sku == 0 {
            text += "    { sku: s, meter: lines, price: \"1\", per: 1, unit: Records },\n";
        }
        text += "  ] }\n";
    }
    card(Path::new("rates.yaml"), Some(text)).unwrap_or_else(|report| panic!("{report}")).card
}

#[test]
fn records_cost_what_rating_charges_by_any_card() {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_127);
    println!("seed {seed}; WEIR_SEED takes another");
    let mut dice = Dice(seed);
    let mut charged = 0;
    for round in 0..60 {
        let by = [dice.of(&["[service, model]", "[model, service]"]), dice.of(&["[service, model]", "[model]", "[]"])];
        let when = dice.of(&["", ", when: 'status == 200'"]);
        let text = format!(
            "sources: {{ in: {{ stdin: {{}} }} }}\ntenancy: {{ from: [tenant] }}\nsteps:\n  - meter: {{ name: tokens_in, quantity: tokens_in, unit: Tokens, by: {0} }}\n  - meter: {{ name: tokens_cached, quantity: tokens_cached, unit: Tokens, by: {1} }}\n  - meter: {{ name: tokens_out, quantity: tokens_out, unit: Tokens, by: {0}{when} }}\n  - meter: {{ name: lines }}\nsinks: {{ out: {{ stdout: {{}} }} }}\n",
            by[0], by[1]
        );
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p.yaml");
        std::fs::write(&path, &text).expect("written");
        let config = load(&[path], &|_| None).unwrap_or_else(|report| panic!("{report}")).remove(0).config;
        let card = some_card(&mut dice);
        // One record for each tenant and minute: what rating judges by the minute is then that record.
        let mut lines = String::new();
        for n in 0..200 {
            let (minute, status) = (n % 20, dice.of(&["200", "500"]));
            lines += &format!("{{\"ts\":\"2026-11-23T03:{minute:02}:30Z\",\"tenant\":\"t{n}\",\"status\":{status}");
            lines += dice.of(&["", ",\"model\":\"a\"", ",\"model\":\"\\u0061\"", ",\"model\":\"b\"", ",\"model\":null"]);
            lines += dice.of(&["", ",\"service\":\"s\"", ",\"service\":\"x\""]);
            for meter in ["tokens_in", "tokens_cached", "tokens_out"] {
                if dice.roll(5) > 0 {
                    lines += &format!(",\"{meter}\":{}", dice.roll(100) * 1_000);
                }
            }
            lines += "}\n";
        }
        for (tenant, [records, charges]) in both(&config, &card, &[(lines.clone().into_bytes(), Format::Json)]) {
            assert_eq!(records, charges, "round {round}, {}\n{text}\n{card:?}", String::from_utf8_lossy(&tenant));
            charged += i32::from(charges > 0);
        }
    }
    assert!(charged > 2_000, "{charged}: the cards priced next to nothing");
}
