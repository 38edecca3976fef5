//! The cases of publication (P7, P8, P9, P13b) and the laws of the book.

use super::*;
use crate::card::{Card, CardConfig};
use crate::rate::rate;
use crate::stored::StoredRow;
use crate::testing::{Random, seed};
use flow::event::{StreamId, UsageFact};
use flow::units::NANOS_PER_MINUTE;

/// `"meter model|* price"` per million tokens, for ever.
fn card(prices: &[&str]) -> Card {
    let price = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let model = if words[1] == "*" { String::new() } else { format!("model: {}, ", words[1]) };
        format!("{{ sku: '{}-{}', meter: {}, {model}price: '{}', per: 1000000, unit: Tokens }}", words[0], words[1], words[0], words[2])
    };
    let prices = prices.iter().map(price).collect::<Vec<_>>().join(", ");
    let text = format!("{{ currency: USD, versions: [{{ name: v, from: '2026-01-01T00:00:00Z', prices: [{prices}] }}] }}");
    let config: CardConfig = serde_saphyr::from_str(&text).unwrap();
    Card::compile(&config, b"card").unwrap()
}

/// Nanoseconds of `2026-02-28T23:30:00Z`.
fn at(text: &str) -> UnixNanos {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let days = days_from_civil(number(0..4) as i32, number(5..7) as u32, number(8..10) as u32);
    UnixNanos(days * NANOS_PER_DAY + number(11..13) * NANOS_PER_HOUR + number(14..16) * NANOS_PER_MINUTE)
}

fn fact(tenant: &str, meter: &str, model: &str, time: &str, quantity: i128) -> UsageFact {
    UsageFact {
        tenant: tenant.into(),
        meter: meter.into(),
        unit: "Tokens".into(),
        dims: vec![("model".into(), model.into())],
        minute: at(time).minute(),
        quantity,
        events: 1,
        stream: StreamId(1),
        from: 0,
        to: 1,
        received: UnixNanos(0),
        event: None,
    }
}

/// Settles, publishes and says what came: `revision class hour in period: quantity cost`.
fn publish(book: &mut Book, rating: &Rating, time: &str) -> Vec<String> {
    let rows = book.settle(rating, at(time), Scope::Due, None).unwrap();
    book.add(&rows).unwrap();
    book.publish(UnixNanos(at(time).0 - PUBLISH_AFTER_NS));
    rows.iter().map(show).collect()
}

fn show(row: &Row) -> String {
    let class = if row.is_correction { " Correction" } else { "" };
    let hour = &row.charge.hour.rfc3339()[5..13];
    format!("{}{class} {hour} in {}: {} {}", row.revision, row.period.name(), row.charge.billable, row.charge.billed)
}

#[test]
fn p7_late_usage_of_an_open_period_is_a_delta_row() {
    let card = card(&["tokens * 1.00"]);
    let mut book = Book::default();
    let mut facts = vec![fact("acme", "tokens", "orca", "2026-11-23T09:10:00Z", 500)];
    assert_eq!(publish(&mut book, &rate(&card, &facts), "2026-11-23T11:59:00Z"), [""; 0], "a window is published 2 h after its end");
    assert_eq!(publish(&mut book, &rate(&card, &facts), "2026-11-23T12:00:00Z"), ["1 11-23T09 in 2026-11: 500 0.000500000000"]);
    facts.push(fact("acme", "tokens", "orca", "2026-11-23T09:30:00Z", 200));
    assert_eq!(publish(&mut book, &rate(&card, &facts), "2026-11-23T12:45:00Z"), ["2 11-23T09 in 2026-11: 200 0.000200000000"]);
    assert_eq!(publish(&mut book, &rate(&card, &facts), "2026-11-23T13:45:00Z"), [""; 0], "nothing new, no row");
}

/// P8, then P9: the tokens of the correction were counted twice, and one of them is taken back.
#[test]
fn p8_p9_late_usage_of_a_closed_period_is_a_correction_and_can_be_reversed() {
    let card = card(&["tokens * 0.50"]);
    let mut book = Book::default();
    let mut facts = vec![fact("acme", "tokens", "orca", "2026-02-28T23:10:00Z", 10)];
    publish(&mut book, &rate(&card, &facts), "2026-03-01T02:00:00Z");
    assert_eq!(Month::parse("2026-02").unwrap().final_at(), at("2026-03-03T00:00:00Z"));
    book.close(Month::parse("2026-02").unwrap());
    facts.push(fact("acme", "tokens", "orca", "2026-02-28T23:30:00Z", 246_913));
    let rating = rate(&card, &facts);
    let rows = book.settle(&rating, at("2026-03-05T10:00:00Z"), Scope::Due, None).unwrap();
    assert_eq!(rows.iter().map(show).collect::<Vec<_>>(), ["2 Correction 02-28T23 in 2026-03: 246913 0.123456500000"]);
    assert_eq!((rows[0].charge.hour, rows[0].charge.end), (at("2026-02-28T23:00:00Z"), at("2026-03-01T00:00:00Z")));
    book.add(&rows).unwrap();

    let reversal = book.reverse(&rows[0], 246_913, "counted twice", at("2026-03-06T10:00:00Z")).unwrap();
    assert_eq!(show(&reversal), "3 Correction 02-28T23 in 2026-03: -246913 -0.123456500000");
    assert_eq!(reversal.charge.pricing_quantity().unwrap().to_string(), "-0.246913000000");
    book.add(std::slice::from_ref(&reversal)).unwrap();
    assert_eq!(publish(&mut book, &rating, "2026-03-07T10:00:00Z"), [""; 0], "a later rating does not undo a reversal");
    assert_eq!(book.reverse(&reversal, 1, "no", at("2026-03-06T10:00:00Z")), Err(ReverseError::IsReversal));
    for quantity in [0, -1, 246_914] {
        assert_eq!(book.reverse(&rows[0], quantity, "no", UnixNanos(0)), Err(ReverseError::Quantity { whole: 246_913 }));
    }
    let third = book.reverse(&rows[0], 82_304, "a third", at("2026-03-06T10:00:00Z")).unwrap();
    assert_eq!(third.charge.billed.to_string(), "-0.041152000000");
}

#[test]
fn p13_a_price_that_comes_later_makes_a_delta_row() {
    let mut book = Book::default();
    let facts = [fact("acme", "tokens", "orca", "2026-11-23T09:10:00Z", 2_000), fact("acme", "out", "lynx", "2026-11-23T09:20:00Z", 4_000)];
    let before = publish(&mut book, &rate(&card(&["tokens * 1.50"]), &facts), "2026-11-23T12:00:00Z");
    assert_eq!(before, ["1 11-23T09 in 2026-11: 2000 0.003000000000"]);
    let after = publish(&mut book, &rate(&card(&["tokens * 1.50", "out lynx 2.00"]), &facts), "2026-11-23T15:00:00Z");
    assert_eq!(after, ["2 11-23T09 in 2026-11: 4000 0.008000000000"]);
}

#[test]
fn a_window_of_a_closed_period_that_was_never_published_is_a_correction_too() {
    let mut book = Book::default();
    book.publish(at("2026-03-01T00:00:00Z"));
    book.close(Month::parse("2026-02").unwrap());
    book.close(Month::parse("2026-03").unwrap());
    let rating = rate(&card(&["tokens * 1.00"]), &[fact("b", "tokens", "orca", "2026-02-10T05:00:00Z", 7)]);
    assert_eq!(publish(&mut book, &rating, "2026-03-05T10:00:00Z"), ["2 Correction 02-10T05 in 2026-04: 7 0.000007000000"]);
}

#[test]
fn what_is_rated_no_more_is_taken_out() {
    let card = card(&["tokens * 1.00"]);
    let mut book = Book::default();
    publish(&mut book, &rate(&card, &[fact("acme", "tokens", "orca", "2026-11-23T09:10:00Z", 500)]), "2026-11-23T12:00:00Z");
    let gone = publish(&mut book, &rate(&card, &[]), "2026-11-23T13:00:00Z");
    assert_eq!(gone, ["2 11-23T09 in 2026-11: -500 -0.000500000000"]);
    assert_eq!(publish(&mut book, &rate(&card, &[]), "2026-11-23T14:00:00Z"), [""; 0]);
}

#[test]
fn months_are_read_and_end_where_the_next_begins() {
    for bad in ["2026-13", "2026-00", "2026-1", "26-01", "2026/01", "", "2026-01-01", "９９９９-01"] {
        assert_eq!(Month::parse(bad), None, "{bad}");
    }
    let december = Month::parse("2026-12").unwrap();
    assert_eq!((december.end(), december.next().name()), (at("2027-01-01T00:00:00Z"), "2027-01".to_string()));
    assert_eq!(Month::of(at("2026-12-31T23:59:00Z")), december);
}

/// However facts arrive and whenever it is published: the book adds up to the rating of all facts.
#[test]
fn the_book_always_adds_up_to_the_rating() {
    let seed = seed();
    let mut random = Random(seed);
    let card = card(&["tokens * 0.37", "out orca 1.11", "out lynx 0"]);
    for round in 0..200 {
        let (mut book, mut facts, mut published) = (Book::default(), Vec::new(), Vec::new());
        let mut now = at("2026-02-20T00:00:00Z").0;
        for _ in 0..random.below(12) {
            for _ in 0..random.below(6) {
                let minute = now - random.below(20 * 24 * 60) as i64 * NANOS_PER_MINUTE;
                let who = ["a", "b", ""][random.below(3) as usize];
                let (meter, model) = [("tokens", "orca"), ("out", "orca"), ("out", "lynx")][random.below(3) as usize];
                let mut fact = fact(who, meter, model, "2026-02-20T00:00:00Z", i128::from(random.below(1_000)));
                fact.minute = UnixNanos(minute).minute();
                facts.push(fact);
            }
            now += random.below(10 * 24) as i64 * NANOS_PER_HOUR;
            let rows = book.settle(&rate(&card, &facts), UnixNanos(now), Scope::Due, None).unwrap();
            for row in &rows {
                assert_eq!(row.is_correction, book.is_closed(Month::of(row.charge.hour)), "seed {seed} round {round}");
                assert!(!book.is_closed(row.period), "seed {seed} round {round}: a row on an invoice that is out");
            }
            book.add(&rows).unwrap();
            book.publish(UnixNanos(now - PUBLISH_AFTER_NS));
            published.extend(rows);
            let last = Month::of(UnixNanos(now - 32 * NANOS_PER_DAY));
            if last.final_at().0 <= now {
                book.close(last);
            }
        }
        let rating = rate(&card, &facts);
        published.extend(book.settle(&rating, UnixNanos(now), Scope::All, None).unwrap());
        let sum = Money::sum(published.iter().map(|row| row.charge.billed)).unwrap();
        assert_eq!(sum, rating.total().unwrap(), "seed {seed} round {round}");
        let names: BTreeSet<String> = published.iter().map(Row::id).collect();
        assert_eq!(names.len(), published.len(), "seed {seed} round {round}: two rows have one name");
        for row in &published {
            let text = serde_json::to_string(&StoredRow::of(row)).unwrap();
            let back: StoredRow = serde_json::from_str(&text).unwrap();
            assert_eq!(back.row().as_ref(), Ok(row), "{text}");
        }
    }
}
