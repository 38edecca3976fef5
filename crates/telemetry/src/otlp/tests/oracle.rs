//! Random requests, and the set of items in one: a writer and a decoder of protobuf that share nothing with what they judge.

use super::super::Signal;
use proptest::prelude::*;

/// Field number and value: a varint, eight bytes, bytes, four bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Varint(u64),
    Eight([u8; 8]),
    Bytes(Vec<u8>),
    Four([u8; 4]),
}

type Fields = Vec<(u32, Value)>;

fn varint(bytes: &mut std::slice::Iter<'_, u8>) -> u64 {
    let mut value = 0u128;
    let mut shift = 0;
    loop {
        let byte = *bytes.next().expect("a varint");
        value += u128::from(byte % 128) << shift;
        shift += 7;
        if byte < 128 {
            return value as u64;
        }
    }
}

fn decode(bytes: &[u8]) -> Fields {
    let mut bytes = bytes.iter();
    let mut fields = Vec::new();
    while bytes.len() > 0 {
        let key = varint(&mut bytes);
        let mut take = |count: usize| -> Vec<u8> { bytes.by_ref().take(count).copied().collect() };
        let value = match key % 8 {
            0 => Value::Varint(varint(&mut bytes)),
            1 => Value::Eight(take(8).try_into().expect("eight bytes")),
            2 => {
                let len = varint(&mut bytes) as usize;
                let taken: Vec<u8> = bytes.by_ref().take(len).copied().collect();
                assert_eq!(taken.len(), len);
                Value::Bytes(taken)
            }
            5 => Value::Four(take(4).try_into().expect("four bytes")),
            kind => panic!("kind {kind}"),
        };
        fields.push(((key / 8) as u32, value));
    }
    fields
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 127 {
        out.push((number % 128) as u8 + 128);
        number /= 128;
    }
    out.push(number as u8);
}

fn encode(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, value) in fields {
        let (kind, bytes) = match value {
            Value::Varint(_) => (0, &[][..]),
            Value::Eight(bytes) => (1, &bytes[..]),
            Value::Bytes(bytes) => (2, &bytes[..]),
            Value::Four(bytes) => (5, &bytes[..]),
        };
        put_number(&mut out, u64::from(*number) * 8 + kind);
        match value {
            Value::Varint(value) => put_number(&mut out, *value),
            Value::Bytes(bytes) => put_number(&mut out, bytes.len() as u64),
            _ => {}
        }
        out.extend_from_slice(bytes);
    }
    out
}

/// Which fields of a message are messages of which kind.
fn shape(kind: &str) -> &'static [(u32, &'static str)] {
    match kind {
        "any" => &[(5, "array"), (6, "list")],
        "array" => &[(1, "any")],
        "list" => &[(1, "pair")],
        "pair" => &[(2, "any")],
        "resource" => &[(1, "pair")],
        "scope" => &[(3, "pair")],
        "log" => &[(5, "any"), (6, "pair")],
        "span" => &[(9, "pair"), (11, "event"), (13, "link"), (15, "flat")],
        "event" => &[(3, "pair")],
        "link" => &[(4, "pair")],
        "number" => &[(5, "exemplar"), (7, "pair")],
        "histogram" => &[(8, "exemplar"), (9, "pair")],
        "exponential" => &[(1, "pair"), (8, "flat"), (9, "flat"), (11, "exemplar")],
        "summary" => &[(6, "flat"), (7, "pair")],
        "exemplar" => &[(7, "pair")],
        "metric" => &[(12, "pair")],
        _ => &[],
    }
}

/// The same message with its fields in order of their numbers, at all levels.
fn canonical(kind: &str, bytes: &[u8]) -> Vec<u8> {
    let mut fields = decode(bytes);
    for (number, value) in &mut fields {
        let inner = shape(kind).iter().find(|(other, _)| other == number);
        if let (Some((_, inner)), Value::Bytes(bytes)) = (inner, value) {
            *bytes = canonical(inner, bytes);
        }
    }
    fields.sort_by_key(|(number, _)| *number);
    encode(&fields)
}

fn messages(fields: &Fields, number: u32) -> Vec<Vec<u8>> {
    let of = |(found, value): &(u32, Value)| match value {
        Value::Bytes(bytes) if *found == number => Some(bytes.clone()),
        _ => None,
    };
    fields.iter().filter_map(of).collect()
}

/// All items with what they are of, sorted: resource, scope, metric, item.
pub fn items(signal: Signal, request: &[u8]) -> Vec<[Vec<u8>; 4]> {
    let mut found = Vec::new();
    for group in messages(&decode(request), 1) {
        let group = decode(&group);
        let head = |fields: &Fields, kind: &str| {
            let mut head = messages(fields, 1).concat();
            head = canonical(kind, &head);
            head.push(0);
            head.extend(messages(fields, 3).concat());
            head
        };
        let resource = head(&group, "resource");
        for scope_group in messages(&group, 2) {
            let scope_group = decode(&scope_group);
            let scope = head(&scope_group, "scope");
            for item in messages(&scope_group, 2) {
                match signal {
                    Signal::Logs => found.push([resource.clone(), scope.clone(), vec![], canonical("log", &item)]),
                    Signal::Traces => found.push([resource.clone(), scope.clone(), vec![], canonical("span", &item)]),
                    Signal::Metrics => points(&item, &resource, &scope, &mut found),
                }
            }
        }
    }
    found.sort();
    found
}

fn points(metric: &[u8], resource: &[u8], scope: &[u8], found: &mut Vec<[Vec<u8>; 4]>) {
    let (mut head, mut data) = (Vec::new(), Vec::new());
    for field in decode(&canonical("metric", metric)) {
        match field.0 {
            2 => {} // descriptions are aside
            5 | 7 | 9 | 10 | 11 => data.push(field),
            _ => head.push(field),
        }
    }
    let [(kind, Value::Bytes(data))] = data.as_slice() else { panic!("one kind of data") };
    let data = decode(data);
    head.extend(data.iter().filter(|(number, _)| *number != 1).cloned());
    head.push((*kind, Value::Varint(0)));
    let shape = match kind {
        9 => "histogram",
        10 => "exponential",
        11 => "summary",
        _ => "number",
    };
    for point in messages(&data, 1) {
        found.push([resource.to_vec(), scope.to_vec(), encode(&head), canonical(shape, &point)]);
    }
}

// ---- Random requests: fields that are zero are left out, keys are unique, values are those that lines keep exactly.

fn bytes(number: u32, bytes: Vec<u8>) -> Fields {
    vec![(number, Value::Bytes(bytes))]
}

fn text(number: u32) -> BoxedStrategy<Fields> {
    let text = prop_oneof!["[a-z.]{1,8}", "[ -~]{0,20}", "\\PC{0,6}", "[\\x00-\\x7f]{0,6}"];
    text.prop_map(move |text| if text.is_empty() { vec![] } else { bytes(number, text.into_bytes()) }).boxed()
}

fn count(number: u32) -> BoxedStrategy<Fields> {
    prop_oneof![3 => Just(0u32), 1 => any::<u32>()]
        .prop_map(move |count| if count == 0 { vec![] } else { vec![(number, Value::Varint(count.into()))] })
        .boxed()
}

fn four(number: u32) -> BoxedStrategy<Fields> {
    prop_oneof![Just(0u32), any::<u32>()]
        .prop_map(move |count| if count == 0 { vec![] } else { vec![(number, Value::Four(count.to_le_bytes()))] })
        .boxed()
}

fn eight(number: u32) -> BoxedStrategy<Fields> {
    prop_oneof![Just(0u64), any::<u64>()]
        .prop_map(move |count| if count == 0 { vec![] } else { vec![(number, Value::Eight(count.to_le_bytes()))] })
        .boxed()
}

fn double(number: u32) -> BoxedStrategy<Fields> {
    let value = prop_oneof![any::<f64>(), (-1000i32..1000).prop_map(f64::from), Just(-0.0), Just(f64::INFINITY)];
    value.prop_map(move |value| vec![(number, Value::Eight(value.to_le_bytes()))]).boxed()
}

fn maybe(strategy: BoxedStrategy<Fields>) -> BoxedStrategy<Fields> {
    prop_oneof![Just(vec![]), strategy].boxed()
}

fn time(number: u32) -> BoxedStrategy<Fields> {
    let nanos = prop_oneof![
        631_152_000_000_000_000u64..4_133_980_800_000_000_000,
        (631_152_000u64..4_133_980_800).prop_map(|seconds| seconds * 1_000_000_000)
    ];
    nanos.prop_map(move |nanos| vec![(number, Value::Eight(nanos.to_le_bytes()))]).boxed()
}

fn id<const N: usize>(number: u32) -> BoxedStrategy<Fields> {
    any::<[u8; 16]>()
        .prop_map(move |mut id| {
            id[0] |= 1;
            bytes(number, id[..N].to_vec())
        })
        .boxed()
}

fn all(parts: Vec<BoxedStrategy<Fields>>) -> BoxedStrategy<Fields> {
    parts.prop_map(|parts| parts.concat()).boxed()
}

fn message(number: u32, parts: Vec<BoxedStrategy<Fields>>) -> BoxedStrategy<Fields> {
    all(parts).prop_map(move |fields| bytes(number, encode(&fields))).boxed()
}

fn many(strategy: BoxedStrategy<Fields>, max: usize) -> BoxedStrategy<Fields> {
    prop::collection::vec(strategy, 0..=max).prop_map(|each| each.concat()).boxed()
}

/// An `AnyValue` without bytes and doubles that are no numbers, which lines have as text.
fn any_value() -> BoxedStrategy<Fields> {
    let leaf = prop_oneof![
        "\\PC{0,8}".prop_map(|text| bytes(1, text.into_bytes())),
        any::<bool>().prop_map(|flag| vec![(2, Value::Varint(flag.into()))]),
        any::<i64>().prop_map(|number| vec![(3, Value::Varint(number as u64))]),
        any::<f64>()
            .prop_filter("lines have NaN as text", |number| number.is_finite())
            .prop_map(|number| vec![(4, Value::Eight(number.to_le_bytes()))]),
        Just(vec![]),
    ];
    leaf.boxed()
        .prop_recursive(4, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(|values| {
                    let values: Fields = values.iter().flat_map(|value| bytes(1, encode(value))).collect();
                    bytes(5, encode(&values))
                }),
                prop::collection::vec(inner, 0..3).prop_map(|values| bytes(6, encode(&pairs(1, values)))),
            ]
        })
        .boxed()
}

/// Keys are unique by their index.
fn pairs(number: u32, values: Vec<Fields>) -> Fields {
    let pair = |(n, value): (usize, Fields)| {
        let mut pair = bytes(1, format!("k.{n}\"").into_bytes());
        if !value.is_empty() {
            pair.extend(bytes(2, encode(&value)));
        }
        (number, Value::Bytes(encode(&pair)))
    };
    values.into_iter().enumerate().map(pair).collect()
}

fn attributes(number: u32) -> BoxedStrategy<Fields> {
    prop::collection::vec(any_value(), 0..4).prop_map(move |values| pairs(number, values)).boxed()
}

fn exemplars(number: u32) -> BoxedStrategy<Fields> {
    let value = prop_oneof![double(3), eight(6)].boxed();
    many(message(number, vec![maybe(time(2)), value, maybe(id::<8>(4)), maybe(id::<16>(5)), attributes(7)]), 2)
}

fn packed(number: u32, counts: Vec<u64>) -> Fields {
    if counts.is_empty() { vec![] } else { bytes(number, counts.iter().flat_map(|count| count.to_le_bytes()).collect()) }
}

fn buckets(number: u32) -> BoxedStrategy<Fields> {
    (any::<i32>(), prop::collection::vec(any::<u64>(), 0..4))
        .prop_map(move |(offset, counts)| {
            let mut fields = vec![];
            if offset != 0 {
                fields.push((1, Value::Varint(((i64::from(offset) << 1) ^ (i64::from(offset) >> 63)) as u64)));
            }
            if !counts.is_empty() {
                let mut out = Vec::new();
                counts.iter().for_each(|count| put_number(&mut out, *count));
                fields.extend(bytes(2, out));
            }
            bytes(number, encode(&fields))
        })
        .boxed()
}

fn metric() -> BoxedStrategy<Fields> {
    let value = prop_oneof![
        double(4),
        any::<i64>().prop_map(|value| vec![(6, Value::Eight(value.to_le_bytes()))]),
        Just(vec![(8, Value::Varint(1))])
    ]
    .boxed();
    let number = message(1, vec![maybe(time(2)), time(3), value, exemplars(5), attributes(7)]);
    let shape = (prop::collection::btree_set(-1000i32..1000, 0..4), prop::collection::vec(any::<u64>(), 4), any::<bool>()).prop_map(
        |(bounds, counts, has_buckets)| {
            if !has_buckets {
                return vec![];
            }
            let bits = bounds.iter().map(|bound| f64::from(*bound).to_bits()).collect();
            [packed(6, counts[..=bounds.len().min(3)].to_vec()), packed(7, bits)].concat()
        },
    );
    let histogram = message(
        1,
        vec![
            maybe(time(2)),
            time(3),
            eight(4),
            maybe(double(5)),
            shape.boxed(),
            exemplars(8),
            attributes(9),
            count(10),
            maybe(double(11)),
            maybe(double(12)),
        ],
    );
    let scale = any::<i32>().prop_map(|scale| {
        if scale == 0 { vec![] } else { vec![(6, Value::Varint(((i64::from(scale) << 1) ^ (i64::from(scale) >> 63)) as u64))] }
    });
    let threshold =
        (0u32..1000).prop_map(|value| if value == 0 { vec![] } else { vec![(14, Value::Eight((f64::from(value) / 8.0).to_le_bytes()))] });
    let exponential = message(
        1,
        vec![
            attributes(1),
            maybe(time(2)),
            time(3),
            eight(4),
            maybe(double(5)),
            scale.boxed(),
            eight(7),
            maybe(buckets(8)),
            maybe(buckets(9)),
            count(10),
            exemplars(11),
            maybe(double(12)),
            maybe(double(13)),
            threshold.boxed(),
        ],
    );
    let quantile = (0u32..=8).prop_map(|eighths| vec![(1, Value::Eight((f64::from(eighths) / 8.0).to_le_bytes()))]).boxed();
    let summary = message(
        1,
        vec![maybe(time(2)), time(3), eight_always(4), double(5), many(message(6, vec![quantile, double(2)]), 3), attributes(7), count(8)],
    );
    let temporality = (1u64..=2).prop_map(|value| vec![(2, Value::Varint(value))]).boxed();
    let monotonic = any::<bool>().prop_map(|flag| if flag { vec![(3, Value::Varint(1))] } else { vec![] }).boxed();
    let data = prop_oneof![
        message(5, vec![many(number.clone(), 3)]),
        message(7, vec![many(number, 3), temporality.clone(), monotonic]),
        message(9, vec![many(histogram, 3), temporality.clone()]),
        message(10, vec![many(exponential, 3), temporality]),
        message(11, vec![many(summary, 3)]),
    ]
    .boxed();
    let name = "[a-z\" ]{1,6}".prop_map(|name| bytes(1, name.into_bytes())).boxed();
    message(2, vec![name, text(2), text(3), data, attributes(12)])
}

/// Summaries say count and sum, zero or not.
fn eight_always(number: u32) -> BoxedStrategy<Fields> {
    any::<u64>().prop_map(move |count| vec![(number, Value::Eight(count.to_le_bytes()))]).boxed()
}

fn log() -> BoxedStrategy<Fields> {
    let severity =
        prop_oneof![Just(0u64), 1u64..25].prop_map(|number| if number == 0 { vec![] } else { vec![(2, Value::Varint(number))] }).boxed();
    let body = any_value().prop_map(|value| bytes(5, encode(&value))).boxed();
    message(
        2,
        vec![
            maybe(time(1)),
            severity,
            text(3),
            maybe(body),
            attributes(6),
            count(7),
            four(8),
            maybe(id::<16>(9)),
            maybe(id::<8>(10)),
            maybe(time(11)),
            text(12),
        ],
    )
}

fn span() -> BoxedStrategy<Fields> {
    let kind = (0u64..6).prop_map(|kind| if kind == 0 { vec![] } else { vec![(6, Value::Varint(kind))] }).boxed();
    let code = (1u64..3).prop_map(|code| vec![(3, Value::Varint(code))]).boxed();
    let event = message(11, vec![maybe(time(1)), text(2), attributes(3), count(4)]);
    let link = message(13, vec![id::<16>(1), id::<8>(2), text(3), attributes(4), count(5), four(6)]);
    message(
        2,
        vec![
            id::<16>(1),
            id::<8>(2),
            text(3),
            maybe(id::<8>(4)),
            text(5),
            kind,
            time(7),
            maybe(time(8)),
            attributes(9),
            count(10),
            many(event, 2),
            count(12),
            many(link, 2),
            count(14),
            maybe(message(15, vec![text(2), code])),
            four(16),
        ],
    )
}

/// Some resources of some scopes of some items.
pub fn request(signal: Signal) -> BoxedStrategy<Vec<u8>> {
    let item = match signal {
        Signal::Logs => log(),
        Signal::Metrics => metric(),
        Signal::Traces => span(),
    };
    let scope_group = message(2, vec![maybe(message(1, vec![text(1), text(2), attributes(3), count(4)])), many(item, 3), text(3)]);
    let group = message(1, vec![maybe(message(1, vec![attributes(1), count(2)])), many(scope_group, 2), text(3)]);
    many(group, 2).prop_map(|fields| encode(&fields)).boxed()
}
