//! Requests are built here byte by byte, by an encoder that shares nothing with `wire`.

use super::*;
use crate::histogram::{Buckets, Count, Histogram, ResetHint, Side, Span};
use crate::sample::STALE;
use proptest::prelude::*;

/// 2026-11-28T00:00:00Z.
const T: i64 = 1_795_824_000_000;

mod oracle {
    //! A small encoder and decoder of protobuf, of the messages of remote write only.

    pub fn varint(mut n: u64) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let low = (n % 128) as u8;
            n /= 128;
            if n == 0 {
                out.push(low);
                return out;
            }
            out.push(low + 128);
        }
    }

    pub fn int(number: u64, n: u64) -> Vec<u8> {
        [varint(number * 8), varint(n)].concat()
    }

    pub fn double(number: u64, bits: u64) -> Vec<u8> {
        [varint(number * 8 + 1), bits.to_le_bytes().to_vec()].concat()
    }

    pub fn bytes(number: u64, inner: &[u8]) -> Vec<u8> {
        [varint(number * 8 + 2), varint(inner.len() as u64), inner.to_vec()].concat()
    }

    pub fn sint(n: i64) -> u64 {
        if n >= 0 { n as u64 * 2 } else { (-(n + 1)) as u64 * 2 + 1 }
    }

    pub fn label(name: &[u8], value: &[u8]) -> Vec<u8> {
        bytes(1, &[bytes(1, name), bytes(2, value)].concat())
    }

    pub fn sample(at: i64, bits: u64) -> Vec<u8> {
        bytes(2, &[double(1, bits), int(2, at as u64)].concat())
    }

    pub fn refs(refs: &[u64]) -> Vec<u8> {
        bytes(1, &refs.iter().flat_map(|at| varint(*at)).collect::<Vec<u8>>())
    }

    /// Field numbers and contents; numbers as their eight bytes.
    pub fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn number(rest: &mut &[u8]) -> u64 {
            let mut n = 0;
            for at in 0.. {
                let byte = rest[0];
                *rest = &rest[1..];
                n += u64::from(byte % 128) << (7 * at);
                if byte < 128 {
                    break;
                }
            }
            n
        }
        let mut found = Vec::new();
        while !message.is_empty() {
            let key = number(&mut message);
            let content = match key % 8 {
                0 => number(&mut message).to_le_bytes().to_vec(),
                kind => {
                    let len = if kind == 1 { 8 } else { number(&mut message) as usize };
                    let (content, rest) = message.split_at(len);
                    message = rest;
                    content.to_vec()
                }
            };
            found.push((key / 8, content));
        }
        found
    }
}
use oracle::{bytes, double, int, label, refs, sample, sint};

fn series_v1(labels: &[(&str, &str)], rest: &[Vec<u8>]) -> Vec<u8> {
    let labels: Vec<u8> = labels.iter().flat_map(|(name, value)| label(name.as_bytes(), value.as_bytes())).collect();
    bytes(1, &[labels, rest.concat()].concat())
}

fn request_v2(symbols: &[&str], series: &[Vec<u8>]) -> Vec<u8> {
    let symbols: Vec<u8> = symbols.iter().flat_map(|text| bytes(4, text.as_bytes())).collect();
    let series: Vec<u8> = series.iter().flat_map(|one| bytes(5, one)).collect();
    [symbols, series].concat()
}

fn one(value: f64) -> Vec<u8> {
    sample(T, value.to_bits())
}

#[track_caller]
fn run(version: Version, body: &[u8]) -> (Result<Received, Malformed>, String) {
    run_with(version, body, &Options::default(), &mut State::default())
}

#[track_caller]
fn run_with(version: Version, body: &[u8], options: &Options, state: &mut State) -> (Result<Received, Malformed>, String) {
    let mut out = b"before\n".to_vec();
    let result = read(version, body, options, state, &mut out);
    let lines = String::from_utf8(out).expect("lines are UTF-8");
    let lines = lines.strip_prefix("before\n").expect("what was there stays").to_owned();
    for line in lines.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    (result, lines)
}

/// `written`: samples, histograms, exemplars.
#[track_caller]
fn check(version: Version, body: &[u8], want: &[&str], written: [u64; 3], rejected: &[(Reason, u64)]) {
    let (result, lines) = run(version, body);
    let received = result.expect("a request");
    assert_eq!(lines.lines().collect::<Vec<_>>(), want);
    assert_eq!([received.samples, received.histograms, received.exemplars], written);
    assert_eq!(received.rejected, rejected, "{:?}", received.first_error);
    assert_eq!(received.first_error.is_some(), !rejected.is_empty());
    let reply = reply(&Ok(received));
    assert_eq!(reply.status, if rejected.is_empty() { 204 } else { 400 });
    assert_eq!(reply.text.is_empty(), rejected.is_empty());
    for ((name, count), want) in reply.headers.iter().zip(WRITTEN_HEADERS).zip(written).map(|(pair, count)| (pair.0, (pair.1, count))) {
        assert_eq!((*name, count.parse()), (want.0, Ok(want.1)));
    }
}

const UP: &str = r#"{"metric":"up","type":"unknown","labels":{"job":"a"},"timestamp":"2026-11-28T00:00:00Z","value":1.0}"#;

#[test]
fn v1_a_sample_becomes_a_line() {
    let up = [("__name__", "up"), ("job", "a")];
    check(Version::V1, &series_v1(&up, &[one(1.0)]), &[UP], [1, 0, 0], &[]);
    check(Version::V1, b"", &[], [0; 3], &[]);
    check(
        Version::V1,
        &series_v1(
            &[("A", "\"\\\n"), ("__name__", "ü.x")],
            &[one(f64::NEG_INFINITY), sample(T + 5, STALE), sample(T + 1000, 0x7ff4_0000_0000_0001)],
        ),
        &[
            r#"{"metric":"ü.x","type":"unknown","labels":{"A":"\"\\\n"},"timestamp":"2026-11-28T00:00:00Z","value":"-Inf"}"#,
            r#"{"metric":"ü.x","type":"unknown","labels":{"A":"\"\\\n"},"timestamp":"2026-11-28T00:00:00.005Z","value":"stale"}"#,
            r#"{"metric":"ü.x","type":"unknown","labels":{"A":"\"\\\n"},"timestamp":"2026-11-28T00:00:01Z","value":"NaN(7ff4000000000001)"}"#,
        ],
        [3, 0, 0],
        &[],
    );
}

#[test]
fn v1_labels_that_do_not_stand_together_are_the_same_series() {
    let scattered = [label(b"__name__", b"up"), one(1.0), label(b"job", b"a")].concat();
    check(Version::V1, &bytes(1, &scattered), &[UP], [1, 0, 0], &[]);
}

#[test]
fn v1_metadata_is_known_from_then_on() {
    let mut state = State::default();
    let options = Options::default();
    let names = ["a_total", "h_bucket", "h_count", "h", "s_sum", "g", "h_total"];
    let body: Vec<u8> = names.iter().flat_map(|name| series_v1(&[("__name__", name)], &[one(1.0)])).collect();
    let kinds = |lines: &str| -> Vec<String> {
        let part = |line: &str| line.split("\"type\":\"").nth(1).expect("a type").split("\",\"labels").next().expect("labels").to_owned();
        lines.lines().map(part).collect()
    };
    let (_, lines) = run_with(Version::V1, &body, &options, &mut state);
    assert_eq!(kinds(&lines), ["unknown"; 7]);
    let family = |kind: u64, name: &str, unit: &str| {
        bytes(3, &[int(1, kind), bytes(2, name.as_bytes()), bytes(4, b"help"), bytes(5, unit.as_bytes())].concat())
    };
    let metadata = [family(1, "a", ""), family(3, "h", "seconds"), family(5, "s", ""), family(2, "g", "bytes")].concat();
    run_with(Version::V1, &metadata, &options, &mut state).0.expect("metadata alone is a request");
    let (_, lines) = run_with(Version::V1, &body, &options, &mut state);
    let seconds = "histogram\",\"unit\":\"seconds";
    assert_eq!(kinds(&lines), ["counter", seconds, seconds, seconds, "summary", "gauge\",\"unit\":\"bytes", "unknown"]);
}

#[test]
fn a_series_that_breaks_a_rule_is_refused_and_the_others_are_kept() {
    let long = "x".repeat(9000);
    let many: Vec<String> = (0..65).map(|n| format!("l{n:03}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "v")).chain([("z", "v")]).collect();
    let name = ("__name__", "up");
    let table: [(&[(&str, &str)], Reason); 11] = [
        (&[name, ("b", "1"), ("a", "1")], Reason::LabelsNotSorted),
        (&[("a", "1"), name, ("B", "1")], Reason::LabelsNotSorted),
        (&[name, ("a", "1"), ("a", "1")], Reason::RepeatedLabel),
        (&[("", "1"), name], Reason::EmptyLabelName),
        (&[name, ("a", "")], Reason::EmptyLabelValue),
        (&[("a", "1")], Reason::NoMetricName),
        (&[("__name__", "")], Reason::NoMetricName),
        (&[], Reason::NoMetricName),
        (&many, Reason::TooManyLabels),
        (&[name, (&long, "1")], Reason::LabelNameTooLong),
        (&[name, ("a", &long)], Reason::LabelValueTooLong),
    ];
    for (labels, reason) in table {
        let good = series_v1(&[name, ("job", "a")], &[one(1.0)]);
        let bad = series_v1(labels, &[one(1.0), sample(T + 1, 0)]);
        check(Version::V1, &[bad.clone(), good.clone(), bad].concat(), &[UP], [1, 0, 0], &[(reason, 4)]);

        let mut symbols = vec!["", "__name__", "up", "job", "a"];
        let mut at = Vec::new();
        for text in labels.iter().flat_map(|(name, value)| [*name, *value]) {
            let known = symbols.iter().position(|symbol| *symbol == text).unwrap_or_else(|| {
                symbols.push(text);
                symbols.len() - 1
            });
            at.push(known as u64);
        }
        let bad = [refs(&at), one(1.0), sample(T + 1, 0)].concat();
        let good = [refs(&[1, 2, 3, 4]), one(1.0)].concat();
        check(Version::V2, &request_v2(&symbols, &[bad.clone(), good, bad]), &[UP], [1, 0, 0], &[(reason, 4)]);
    }
    let bad = bytes(1, &[label(b"__name__", b"up"), label(b"a", b"\xff"), one(1.0)].concat());
    check(Version::V1, &bad, &[], [0; 3], &[(Reason::NotUtf8, 1)]);
    let classic = Options { classic_names: true, ..Options::default() };
    for (labels, is_good) in [
        (&[("__name__", "a:b")][..], true),
        (&[("__name__", "a.b")], false),
        (&[("__name__", "a"), ("b:c", "d")], false),
        (&[("__name__", "1a")], false),
    ] {
        let (result, _) = run_with(Version::V1, &series_v1(labels, &[one(1.0)]), &classic, &mut State::default());
        assert_eq!(result.expect("a request").rejected.is_empty(), is_good, "{labels:?}");
    }
}

#[test]
fn samples_are_in_order_and_of_known_years() {
    let up = [("__name__", "up"), ("job", "a")];
    for (at, reason) in [
        (T, Reason::DuplicateTime),
        (T - 1, Reason::OutOfOrder),
        (0, Reason::TimeOutOfRange),
        (-1, Reason::TimeOutOfRange),
        (i64::MAX, Reason::TimeOutOfRange),
        (i64::MIN, Reason::TimeOutOfRange),
        (631_151_999_999, Reason::TimeOutOfRange),
        (4_133_980_800_000, Reason::TimeOutOfRange),
    ] {
        check(Version::V1, &series_v1(&up, &[one(1.0), sample(at, 1)]), &[UP], [1, 0, 0], &[(reason, 1)]);
    }
    for (at, stamp) in [(631_152_000_000, "1990-01-01T00:00:00Z"), (4_133_980_799_999, "2100-12-31T23:59:59.999Z")] {
        let line = UP.replace("2026-11-28T00:00:00Z", stamp);
        check(Version::V1, &series_v1(&up, &[sample(at, 1f64.to_bits())]), &[&line], [1, 0, 0], &[]);
    }
}

/// Tables of prometheus/prometheus, `TestRemoteWriteHandler_V2Message`.
#[test]
fn v2_partial_writes_are_as_prometheus_has_them() {
    let symbols = ["", "__name__", "up", "job", "a", "bytes", "help"];
    let good = [refs(&[1, 2, 3, 4]), one(1.0)].concat();
    for (bad, reason) in [
        ([refs(&[2, 2]), one(1.0)].concat(), Reason::NoMetricName),
        ([refs(&[1, 0]), one(1.0)].concat(), Reason::NoMetricName),
        ([refs(&[1, 2, 3, 4, 3, 4]), one(1.0)].concat(), Reason::RepeatedLabel),
        ([refs(&[1, 2, 3]), one(1.0)].concat(), Reason::OddLabelRefs),
        ([refs(&[1, 999]), one(1.0)].concat(), Reason::SymbolOutOfRange),
        ([refs(&[1, 7]), one(1.0)].concat(), Reason::SymbolOutOfRange),
        ([refs(&[1, u64::MAX]), one(1.0)].concat(), Reason::SymbolOutOfRange),
        ([refs(&[1, 1 << 32 | 2]), one(1.0)].concat(), Reason::SymbolOutOfRange),
        ([refs(&[1, 2]), bytes(5, &int(4, 99)), one(1.0)].concat(), Reason::SymbolOutOfRange),
        ([refs(&[1, 2]), bytes(5, &int(3, 99)), one(1.0)].concat(), Reason::SymbolOutOfRange),
        (refs(&[1, 2]), Reason::EmptySeries),
        (vec![], Reason::EmptySeries),
    ] {
        check(Version::V2, &request_v2(&symbols, &[bad, good.clone()]), &[UP], [1, 0, 0], &[(reason, 1)]);
    }
    let typed = [refs(&[1, 2, 3, 4]), one(1.0), bytes(5, &[int(1, 1), int(3, 6), int(4, 5)].concat()), int(6, 1_000)].concat();
    let starts = bytes(2, &[double(1, 1f64.to_bits()), int(2, T as u64 + 1), int(3, T as u64 - 1)].concat());
    let unpacked = [int(1, 1), int(1, 2), int(1, 3), int(1, 4), one(1.0)].concat();
    check(
        Version::V2,
        &request_v2(&symbols, &[typed, [refs(&[1, 2, 3, 4]), starts].concat(), unpacked]),
        &[
            r#"{"metric":"up","type":"counter","unit":"bytes","labels":{"job":"a"},"timestamp":"2026-11-28T00:00:00Z","start":"1970-01-01T00:00:01Z","value":1.0}"#,
            r#"{"metric":"up","type":"unknown","labels":{"job":"a"},"timestamp":"2026-11-28T00:00:00.001Z","start":"2026-11-27T23:59:59.999Z","value":1.0}"#,
            UP,
        ],
        [3, 0, 0],
        &[],
    );
    let late_symbols = [bytes(5, &good), bytes(4, b""), bytes(4, b"__name__"), bytes(4, b"up"), bytes(4, b"job"), bytes(4, b"a")].concat();
    check(Version::V2, &late_symbols, &[UP], [1, 0, 0], &[]);
    check(Version::V2, b"", &[], [0; 3], &[]);
    for symbols in [&["x", "__name__", "up"][..], &[]] {
        let (result, lines) = run(Version::V2, &request_v2(symbols, std::slice::from_ref(&good)));
        assert_eq!((result.map_err(|error| error.status()), lines.as_str()), (Err(400), ""), "{symbols:?}");
    }
}

#[test]
fn a_request_of_the_other_version_is_read_as_nothing_not_as_something_else() {
    let v1 = series_v1(&[("__name__", "up")], &[one(1.0)]);
    check(Version::V2, &v1, &[], [0; 3], &[]);
    let v2 = request_v2(&["", "__name__", "up"], &[[refs(&[1, 2]), one(1.0)].concat()]);
    check(Version::V1, &v2, &[], [0; 3], &[]);
}

fn histogram(rest: &[Vec<u8>]) -> Vec<u8> {
    let spans = |number: u64| bytes(number, &[int(1, sint(-2)), int(2, 2)].concat());
    let deltas = bytes(12, &[oracle::varint(sint(3)), oracle::varint(sint(-1))].concat());
    [
        int(1, 7),
        double(3, 18.4f64.to_bits()),
        int(4, sint(-1)),
        double(5, 1e-128f64.to_bits()),
        int(6, 2),
        spans(11),
        deltas,
        int(14, 2),
        int(15, T as u64),
        rest.concat(),
    ]
    .concat()
}

#[test]
fn histograms_and_exemplars_stand_in_the_line() {
    let exemplar = |labels: &[u8], value: f64, at: i64| [labels.to_vec(), double(2, value.to_bits()), int(3, at as u64)].concat();
    let head = r#"{"metric":"h","type":"unknown","labels":{},"timestamp":"2026-11-28T00:00:00Z""#;
    let native = r#""histogram":{"count":7,"sum":18.4,"schema":-1,"zero_threshold":1e-128,"zero_count":2,"positive":{"spans":[[-2,2]],"deltas":[3,-1]},"reset_hint":"no"}"#;
    let traced = exemplar(&label(b"trace_id", b"abc"), 0.5, T);
    let body = series_v1(&[("__name__", "h")], &[bytes(3, &traced), bytes(4, &histogram(&[])), bytes(3, &exemplar(b"", 2.0, T + 1))]);
    let exemplars = r#""exemplars":[{"labels":{"trace_id":"abc"},"value":0.5,"timestamp":"2026-11-28T00:00:00Z"},{"labels":{},"value":2.0,"timestamp":"2026-11-28T00:00:00.001Z"}]"#;
    check(Version::V1, &body, &[&format!("{head},{native},{exemplars}}}")], [0, 1, 2], &[]);

    let alone = series_v1(
        &[("__name__", "h")],
        &[bytes(3, &traced), bytes(3, &exemplar(b"", 1.0, 0)), bytes(3, &exemplar(&label(b"", b"x"), 1.0, T))],
    );
    let line = format!(r#"{head},"exemplars":[{{"labels":{{"trace_id":"abc"}},"value":0.5,"timestamp":"2026-11-28T00:00:00Z"}}]}}"#);
    check(Version::V1, &alone, &[&line], [0, 0, 1], &[(Reason::BadExemplar, 2)]);

    let symbols = ["", "__name__", "h", "trace_id", "abc"];
    let v2 = [refs(&[1, 2]), bytes(3, &histogram(&[int(17, T as u64 - 1000)])), bytes(4, &exemplar(&refs(&[3, 4]), 0.5, T))].concat();
    let line = format!(
        r#"{head},"start":"2026-11-27T23:59:59Z",{native},"exemplars":[{{"labels":{{"trace_id":"abc"}},"value":0.5,"timestamp":"2026-11-28T00:00:00Z"}}]}}"#
    );
    check(Version::V2, &request_v2(&symbols, &[v2]), &[&line], [0, 1, 1], &[]);
    for (bad, reason) in [
        (bytes(3, &histogram(&[int(1, 8)])), Reason::BadHistogram),
        (bytes(3, &histogram(&[int(4, sint(9))])), Reason::BadHistogram),
        (bytes(3, &histogram(&[int(12, 0)])), Reason::BadHistogram),
        (bytes(3, &histogram(&[int(15, 0)])), Reason::TimeOutOfRange),
        (bytes(3, &histogram(&vec![int(12, 0); 20_000])), Reason::BadHistogram),
        (bytes(4, &exemplar(&refs(&[3]), 0.5, T)), Reason::BadExemplar),
        (bytes(4, &exemplar(&refs(&[3, 99]), 0.5, T)), Reason::BadExemplar),
    ] {
        check(Version::V2, &request_v2(&symbols, &[[refs(&[1, 2]), bad].concat()]), &[], [0; 3], &[(reason, 1)]);
    }
}

#[test]
fn types_and_encodings_are_as_prometheus_has_them() {
    for (header, want) in [
        (None, Some(Version::V1)),
        (Some(""), Some(Version::V1)),
        (Some("application/x-protobuf"), Some(Version::V1)),
        (Some("Application/X-Protobuf ; charset=utf-8"), Some(Version::V1)),
        (Some("application/x-protobuf;proto=prometheus.WriteRequest"), Some(Version::V1)),
        (Some("application/x-protobuf;proto=io.prometheus.write.v2.Request"), Some(Version::V2)),
        (Some("application/x-protobuf; Proto=\"io.prometheus.write.v2.Request\""), Some(Version::V2)),
        (Some("application/x-protobuf;proto=yolo"), None),
        (Some("application/x-protobuf;proto"), None),
        (Some("application/json"), None),
        (Some("yolo"), None),
    ] {
        assert_eq!(Version::of_content_type(header).ok(), want, "{header:?}");
    }
    for (header, is_known) in [(None, true), (Some("snappy"), true), (Some("Snappy"), true), (Some("zstd"), false), (Some("gzip"), false)] {
        assert_eq!(check_encoding(header).is_ok(), is_known, "{header:?}");
    }
    assert_eq!(reply_unsupported(&check_encoding(Some("zstd")).unwrap_err()).status, 415);
    let busy = reply_busy("the queue is full", 5);
    assert_eq!((busy.status, busy.headers[0].1.as_str(), &busy.headers[3]), (503, "0", &("Retry-After", "5".to_owned())));
    for version in [Version::V1, Version::V2] {
        let sent = headers(version, "weir/1");
        assert_eq!(Version::of_content_type(Some(&sent[1].1)), Ok(version));
        assert_eq!((sent[0].1.as_str(), sent[3].1.as_str()), ("snappy", "weir/1"));
    }
    assert_eq!((headers(Version::V1, "")[2].1.as_str(), headers(Version::V2, "")[2].1.as_str()), ("0.1.0", "2.0.0"));
}

#[test]
fn answers_say_what_comes_next() {
    use After::*;
    for (status, v1, v2) in [
        (200, Done, Done),
        (204, Done, Done),
        (301, Drop, Drop),
        (400, Drop, Drop),
        (404, Drop, Drop),
        (413, Drop, Drop),
        (415, Drop, FallBack),
        (429, Retry, Retry),
        (500, Retry, Retry),
        (503, Retry, Retry),
        (599, Retry, Retry),
    ] {
        assert_eq!((after(Version::V1, status, false), after(Version::V2, status, true)), (v1, v2), "{status}");
    }
    assert_eq!(after(Version::V2, 204, false), FallBack, "a receiver of 1.0 that read nothing");
}

#[test]
fn bombs_are_refused_before_they_are_unpacked() {
    let packed = snap::raw::Encoder::new().compress_vec(&[7; 1000]).expect("packed");
    assert_eq!(unpack(&packed, 1000), Ok(vec![7; 1000]));
    assert_eq!(unpack(&packed, 999).map_err(|error| error.status()), Err(413));
    assert_eq!(unpack(&[0], 0), Ok(vec![]));
    let huge = [oracle::varint(u64::from(u32::MAX)), vec![0; 20]].concat();
    assert_eq!(unpack(&huge, 1 << 20).map_err(|error| error.status()), Err(413));
    assert_eq!(unpack(&huge, usize::MAX).map_err(|error| error.status()), Err(400), "so few bytes cannot become so many");
    let stream = b"\xff\x06\x00\x00sNaPpY\x01".as_slice();
    for body in [b"".as_slice(), b"\xff\xff\xff\xff\xff\xff", stream, &packed[..packed.len() - 1], &[5, 0, b'a']] {
        assert_eq!(unpack(body, 1 << 20).map_err(|error| error.status()), Err(400), "{body:?}");
    }
    // The best that snappy does is far below what is taken for impossible.
    let zeros = snap::raw::Encoder::new().compress_vec(&vec![0; 1 << 20]).expect("packed");
    assert!((1 << 20) / zeros.len() < SNAPPY_RATIO_MAX, "{}", (1 << 20) / zeros.len());
    assert!(unpack(&zeros, 1 << 20).is_ok());
}

#[test]
fn a_torn_request_is_refused_whole_or_read_as_a_shorter_one() {
    let v1 = [series_v1(&[("__name__", "up"), ("job", "a")], &[one(1.0), bytes(4, &histogram(&[]))]), bytes(3, &bytes(2, b"up"))].concat();
    let v2 = request_v2(&["", "__name__", "up", "job", "a"], &[[refs(&[1, 2, 3, 4]), one(1.0), bytes(3, &histogram(&[]))].concat()]);
    for (version, body) in [(Version::V1, v1), (Version::V2, v2)] {
        assert_eq!(run(version, &body).0.map(|received| (received.samples, received.histograms)), Ok((1, 1)));
        for len in 0..body.len() {
            let (result, lines) = run(version, &body[..len]);
            assert!(result.is_ok() || lines.is_empty(), "{len}");
        }
        for at in 0..body.len() {
            for flip in [1, 0x80, 0xff] {
                let mut other = body.clone();
                other[at] ^= flip;
                let _ = run(version, &other);
            }
        }
    }
}

#[test]
fn endless_requests_stay_within_bounds() {
    let empty = bytes(1, b"").repeat(1_000_000);
    let (result, lines) = run(Version::V1, &empty);
    assert_eq!((result.expect("a request").rejected, lines.len()), (vec![(Reason::NoMetricName, 1_000_000)], 0));
    let body = [bytes(4, b""), bytes(5, b"").repeat(1_000_000)].concat();
    assert_eq!(run(Version::V2, &body).0.expect("a request").rejected, [(Reason::EmptySeries, 1_000_000)]);
    assert_eq!(run(Version::V2, &bytes(4, b"").repeat(2_000_000)).0.map_err(|error| error.status()), Err(413));
    let many: Vec<u8> = (0..10_000).flat_map(|n| sample(T + n, 0)).collect();
    let fat = bytes(1, &[label(b"__name__", &[b'x'; 5000]), many].concat());
    let options = Options { out_bytes_max: 1 << 20, ..Options::default() };
    let (result, lines) = run_with(Version::V1, &fat, &options, &mut State::default());
    assert_eq!((result.map_err(|error| error.status()), lines.len()), (Err(413), 0));
    let deep = (0..1000).fold(vec![], |inner, _| bytes(1, &inner));
    let _ = run(Version::V1, &deep);
}

#[test]
fn a_small_dictionary_gives_the_same_lines() {
    let body: Vec<u8> =
        (0..200).flat_map(|n| series_v1(&[("__name__", "up"), ("n", &(n % 50).to_string())], &[one(f64::from(n))])).collect();
    let mut lines = Vec::new();
    for bytes_max in [0, 300, 1000, 1 << 20] {
        let mut state = State::new(bytes_max);
        lines.push((0..3).map(|_| run_with(Version::V1, &body, &Options::default(), &mut state).1).collect::<Vec<_>>());
    }
    assert!(lines.iter().all(|these| *these == lines[0]));
}

// Out.

#[track_caller]
fn write(options: WriterOptions, lines: &[&str]) -> (Request, Vec<u8>) {
    let mut writer = Writer::new(options);
    for line in lines {
        assert_eq!(writer.push(line.as_bytes()), Ok(()), "{line}");
    }
    let request = writer.finish();
    let body = unpack(&request.body, 1 << 24).expect("packed");
    (request, body)
}

/// A request as text: `name{labels} at=value …` for each series, read by the oracle alone.
fn show_v1(body: &[u8]) -> Vec<String> {
    let mut shown = Vec::new();
    for (number, content) in oracle::fields(body) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let int = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let fields = oracle::fields(&content);
        if number == 3 {
            let one = |number| fields.iter().find(|(n, _)| *n == number).map(|(_, content)| content.clone()).unwrap_or_default();
            shown.push(format!("# {} {} {}", text(&one(2)), int(&one(1)), text(&one(5))));
            continue;
        }
        let labels = fields.iter().filter(|(n, _)| *n == 1).map(|(_, label)| {
            let label = oracle::fields(label);
            format!("{}={}", text(&label[0].1), text(&label[1].1))
        });
        let labels = labels.collect::<Vec<_>>().join(",");
        let samples = fields.iter().filter(|(n, _)| *n != 1).map(|(n, content)| {
            let content = oracle::fields(content);
            let value = || f64::from_bits(int(&content.iter().find(|(n, _)| *n == 2).expect("a value").1) as u64);
            match n {
                2 => format!(" {}={:?}", int(&content[1].1) - T, f64::from_bits(int(&content[0].1) as u64)),
                3 => format!(" exemplar {:?}", value()),
                _ => " histogram".to_owned(),
            }
        });
        shown.push(format!("{labels}{}", samples.collect::<String>()));
    }
    shown
}

#[track_caller]
fn check_v1(options: impl FnOnce(&mut WriterOptions), lines: &[&str], want: &[&str]) {
    let mut all = WriterOptions::new(Version::V1);
    options(&mut all);
    assert_eq!(show_v1(&write(all, lines).1), want);
}

#[test]
fn lines_of_a_series_become_one_time_series_in_the_order_of_time() {
    check_v1(
        |_| {},
        &[
            r#"{"metric":"up","type":"gauge","labels":{"job":"a","A":"b"},"timestamp":"2026-11-28T00:00:00.002Z","value":2.0}"#,
            r#"{"metric":"h_bucket","type":"histogram","unit":"seconds","labels":{"le":"1"},"timestamp":"2026-11-28T00:00:00Z","value":7}"#,
            r#"{"labels":{"A":"b","job":"a","none":""},"tenant":"t","timestamp":"2026-11-28T00:00:00.001Z","value":"NaN","metric":"up","type":"gauge"}"#,
            r#"{"metric":"up","type":"gauge","labels":{"job":"a","A":"b"},"timestamp":"2026-11-28T00:00:00Z","value":"-Inf"}"#,
        ],
        &["A=b,__name__=up,job=a 0=-inf 1=NaN 2=2.0", "__name__=h_bucket,le=1 0=7.0", "# h 3 seconds", "# up 2 "],
    );
}

#[test]
fn external_labels_do_not_replace_what_is_there_unless_told() {
    let line = r#"{"metric":"up","type":"unknown","labels":{"job":"a"},"timestamp":"2026-11-28T00:00:00Z","value":1.0}"#;
    let labels = vec![("job".to_owned(), "x".to_owned()), ("zone".to_owned(), "z".to_owned()), ("__name__".to_owned(), "no".to_owned())];
    check_v1(|options| options.external.labels = labels.clone(), &[line], &["__name__=up,job=a,zone=z 0=1.0"]);
    check_v1(
        |options| options.external = External { labels: labels.clone(), overrides: true },
        &[line],
        &["__name__=up,job=x,zone=z 0=1.0"],
    );
}

#[test]
fn records_of_otlp_are_named_as_prometheus_names_them() {
    let resource = r#""resource":{"service.name":"shop","service.namespace":"eu","service.instance.id":"i1","host.name":"n1"}"#;
    let line = |head: &str, tail: &str| {
        format!(r#"{{{head},"labels":{{"http.method":"GET","http_method":"POST"}},{resource},"timestamp":"2026-11-28T00:00:00Z",{tail}}}"#)
    };
    let sum = line(
        r#""metric":"http.requests","type":"counter","unit":"1","temporality":"cumulative","monotonic":true,"scope":{"name":"lib","version":"2"}"#,
        r#""value":3"#,
    );
    let gauge = line(r#""metric":"cpu.usage","type":"gauge","unit":"1""#, r#""value":0.5"#);
    let classic = line(
        r#""metric":"http.duration","type":"histogram","unit":"s","temporality":"cumulative""#,
        r#""histogram":{"count":6,"sum":9.5,"min":0,"max":9,"bounds":[0.5,1],"counts":[1,2,3]},"exemplars":[{"labels":{},"value":0.7,"timestamp":"2026-11-28T00:00:00Z","trace_id":"ab"}]"#,
    );
    let target = "__name__=target_info,host_name=n1,instance=i1,job=eu/shop 0=1.0";
    let tail = "http_method=GET;POST,instance=i1,job=eu/shop";
    check_v1(
        |_| {},
        &[&sum, &gauge, &classic],
        &[
            &format!("__name__=http_requests_total,{tail},otel_scope_name=lib,otel_scope_version=2 0=3.0"),
            &format!("__name__=cpu_usage_ratio,{tail} 0=0.5"),
            &format!(
                "__name__=http_duration_seconds_bucket,{tail_a},le=0.5 0=1.0",
                tail_a = "http_method=GET;POST,instance=i1,job=eu/shop"
            ),
            &format!("__name__=http_duration_seconds_bucket,{tail},le=1 0=3.0 exemplar 0.7"),
            &format!("__name__=http_duration_seconds_bucket,{tail},le=+Inf 0=6.0"),
            &format!("__name__=http_duration_seconds_sum,{tail} 0=9.5"),
            &format!("__name__=http_duration_seconds_count,{tail} 0=6.0"),
            target,
            "# cpu_usage_ratio 2 ",
            "# http_duration_seconds 3 seconds",
            "# http_requests_total 1 ",
            "# target_info 2 ",
        ],
    );
    check_v1(
        |options| (options.suffixes, options.target_info, options.scope_labels) = (false, false, false),
        &[&sum],
        &[&format!("__name__=http_requests,{tail} 0=3.0"), "# http_requests 1 "],
    );
    let summary = line(r#""metric":"rpc","type":"summary""#, r#""count":4,"sum":2.5,"quantiles":[[0.5,0.1],[0.99,0.2]]"#);
    check_v1(
        |options| options.target_info = false,
        &[&summary],
        &[
            &format!("__name__=rpc_count,{tail} 0=4.0"),
            &format!("__name__=rpc_sum,{tail} 0=2.5"),
            &format!("__name__=rpc,{tail},quantile=0.5 0=0.1"),
            &format!("__name__=rpc,{tail},quantile=0.99 0=0.2"),
            "# rpc 5 ",
        ],
    );
    let exponential = line(
        r#""metric":"e","type":"histogram","temporality":"cumulative""#,
        r#""exponential":{"count":2,"sum":3.5,"scale":3,"zero_count":0,"positive":{"offset":0,"counts":[1,1]}}"#,
    );
    check_v1(|options| options.target_info = false, &[&exponential], &[&format!("__name__=e,{tail} histogram"), "# e 3 "]);
    let stale = line(r#""metric":"g","type":"gauge""#, r#""flags":1"#);
    let (_, body) = write(WriterOptions::new(Version::V1), &[&stale]);
    assert!(body.windows(8).any(|bits| bits == STALE.to_le_bytes()));
}

#[test]
fn what_prometheus_cannot_hold_is_refused_by_name() {
    let at = r#""timestamp":"2026-11-28T00:00:00Z""#;
    let line = |head: &str, tail: &str| format!("{{{head},\"labels\":{{}},{at},{tail}}}");
    for (line, reason) in [
        (line(r#""metric":"a","temporality":"delta","monotonic":true"#, "\"value\":1"), Reason::DeltaTemporality),
        (line(r#""metric":"a","temporality":"delta""#, r#""histogram":{"count":0}"#), Reason::DeltaTemporality),
        (line(r#""metric":"a""#, r#""exponential":{"count":0,"scale":-5}"#), Reason::ScaleTooSmall),
        (line(r#""metric":"a""#, r#""exponential":{"scale":1}"#), Reason::BadHistogram),
        (line(r#""metric":"a""#, r#""histogram":{"count":1,"bounds":[1],"counts":[1]}"#), Reason::BadHistogram),
        (line(r#""metric":"a""#, r#""histogram":{"count":1,"bounds":[2,1],"counts":[1,0,0]}"#), Reason::BadHistogram),
        (line(r#""metric":"a""#, r#""histogram":{"schema":1}"#), Reason::BadHistogram),
        (line(r#""metric":"a""#, r#""flags":0"#), Reason::NoValue),
        (line(r#""metric":"""#, "\"value\":1"), Reason::NoMetricName),
        (line(r#""metric":"é","monotonic":false"#, "\"value\":1"), Reason::BadName),
        (format!(r#"{{"metric":"a","labels":{{"__name__":"b"}},{at},"value":1}}"#), Reason::RepeatedLabel),
        (format!(r#"{{"metric":"a","labels":[],{at},"value":1}}"#), Reason::NoSample),
        ("{}".to_owned(), Reason::NoSample),
        ("hello".to_owned(), Reason::NoSample),
    ] {
        for version in [Version::V1, Version::V2] {
            let mut writer = Writer::new(WriterOptions::new(version));
            assert_eq!(writer.push(line.as_bytes()), Err(reason), "{line}");
            assert_eq!(writer.push(line.as_bytes()), Err(reason), "{line}, again");
            assert!(writer.is_empty() && writer.finish() == Request::default(), "{line}");
        }
    }
}

#[test]
fn a_request_is_split_and_what_is_remembered_is_bounded() {
    let mut options = WriterOptions::new(Version::V2);
    (options.samples_max, options.dictionary_bytes_max) = (10, 2_000);
    let mut writer = Writer::new(options);
    let (mut requests, mut lines) = (0, String::new());
    let mut state = State::default();
    for n in 0..100 {
        let line =
            format!(r#"{{"metric":"m{}","type":"gauge","labels":{{"n":"{n}"}},"timestamp":"2026-11-28T00:00:00Z","value":{n}.5}}"#, n % 7);
        writer.push(line.as_bytes()).expect("a sample");
        if writer.is_full() {
            requests += 1;
            let request = writer.finish();
            assert_eq!(request.samples, 10);
            let body = unpack(&request.body, 1 << 20).expect("packed");
            lines += &run_with(Version::V2, &body, &Options::default(), &mut state).1;
        }
    }
    assert_eq!((requests, lines.lines().count(), writer.is_empty()), (10, 100, true));
    let (request, _) = write(WriterOptions::new(Version::V1), &[UP, UP, UP]);
    assert_eq!((request.samples, request.duplicates), (1, 2));
}

/// A request of 2.0 is what the specification says, by the oracle alone.
#[test]
fn v2_symbols_begin_with_the_empty_text_and_stand_once() {
    let lines = [
        r#"{"metric":"up","type":"counter","unit":"s","labels":{"job":"a"},"timestamp":"2026-11-28T00:00:00Z","start":"2026-11-27T00:00:00Z","value":1.0,"exemplars":[{"labels":{"trace_id":"up"},"value":1.0,"timestamp":"2026-11-28T00:00:00Z"}]}"#,
        r#"{"metric":"down","type":"unknown","labels":{"job":"a"},"timestamp":"2026-11-28T00:00:00Z","value":1.0}"#,
    ];
    let (request, body) = write(WriterOptions::new(Version::V2), &lines);
    assert_eq!((request.samples, request.exemplars), (2, 1));
    let fields = oracle::fields(&body);
    let symbols: Vec<&str> = fields.iter().filter(|(n, _)| *n == 4).map(|(_, text)| std::str::from_utf8(text).expect("UTF-8")).collect();
    assert_eq!(symbols[0], "");
    let mut once = symbols.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), symbols.len(), "{symbols:?}");
    let series = oracle::fields(&fields.iter().find(|(n, _)| *n == 5).expect("a series").1);
    let names: Vec<&str> = series[0].1.iter().map(|at| symbols[usize::from(*at)]).collect();
    assert_eq!(names, ["__name__", "up", "job", "a"]);
    let (_, lines_back) = run(Version::V2, &body);
    assert_eq!(lines_back.lines().collect::<Vec<_>>(), lines);
}

fn any_histogram() -> impl Strategy<Value = Histogram> {
    let bits = any::<u64>().prop_map(f64::from_bits);
    (prop::collection::vec(0u32..1000, 0..6), prop::collection::vec(0u32..1000, 0..4), -4i32..=8, bits, any::<bool>(), 0usize..4, -3i32..4)
        .prop_map(|(positive, negative, schema, sum, is_float, hint, offset)| {
            let total: u64 = positive.iter().chain(&negative).map(|count| u64::from(*count)).sum();
            let side = |counts: &[u32]| {
                let spans = if counts.is_empty() { vec![] } else { vec![Span { offset, len: counts.len() as u32 }] };
                let before = [0].into_iter().chain(counts.iter().copied());
                let deltas = counts.iter().zip(before).map(|(count, before)| i64::from(*count) - i64::from(before)).collect();
                let floats = counts.iter().map(|count| f64::from(*count) / 3.0).collect();
                Side { spans, buckets: if is_float { Buckets::Counts(floats) } else { Buckets::Deltas(deltas) } }
            };
            let (count, zero_count) = match is_float {
                false => (Count::Int(total + 2), Count::Int(2)),
                true => (Count::Float(total as f64), Count::Float(0.1)),
            };
            let (positive, negative, reset_hint) = (side(&positive), side(&negative), ResetHint::ALL[hint]);
            Histogram { count, sum, schema, zero_threshold: 1e-128, zero_count, positive, negative, custom_values: vec![], reset_hint }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("SLOW").is_some() { 10_000 } else { 100 }))]

    /// Bodies of the oracle, read, written and read again, give the same lines: bit for bit, through both versions.
    #[test]
    fn what_is_written_is_read_bit_for_bit(
        rows in prop::collection::vec((0usize..6, prop::collection::vec((any::<u64>(), 1i64..100_000), 1..4)), 1..20),
        histograms in prop::collection::vec((any_histogram(), 1i64..1000), 0..4),
    ) {
        let mut lines: Vec<String> = Vec::new();
        let mut state = State::default();
        for (n, (series, samples)) in rows.iter().enumerate() {
            // Every row begins where no other one is, so that no two samples are of one millisecond.
            let mut at = T + n as i64 * 1_000_000;
            let samples: Vec<Vec<u8>> = samples.iter().map(|(bits, step)| { at += step; sample(at, *bits) }).collect();
            let body = series_v1(&[("__name__", "m\"\u{1}"), ("ünï", &series.to_string())], &samples);
            lines.extend(run_with(Version::V1, &body, &Options::default(), &mut state).1.lines().map(str::to_owned));
        }
        for (n, (histogram, step)) in histograms.iter().enumerate() {
            let mut line = br#"{"metric":"h","type":"unknown","labels":{}"#.to_vec();
            crate::sample::Stamp::default().put(&mut line, flow::units::UnixNanos((T + n as i64 * 1000 + step) * 1_000_000));
            line.extend_from_slice(b",\"histogram\":");
            histogram.put(&mut line);
            line.push(b'}');
            lines.push(String::from_utf8(line).expect("UTF-8"));
        }
        let mut sorted = lines.clone();
        sorted.sort_unstable();
        for version in [Version::V1, Version::V2] {
            let mut writer = Writer::new(WriterOptions::new(version));
            for line in lines.iter().rev() {
                prop_assert_eq!(writer.push(line.as_bytes()), Ok(()), "{}", line);
            }
            let request = writer.finish();
            let body = unpack(&request.body, 1 << 24).expect("packed");
            let (result, back) = run(version, &body);
            let received = result.expect("a request");
            prop_assert_eq!(&received.rejected, &[][..], "{:?}", received.first_error);
            prop_assert_eq!((received.samples, received.histograms), (request.samples, request.histograms));
            let mut back: Vec<&str> = back.lines().collect();
            back.sort_unstable();
            prop_assert_eq!(back, sorted.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_body_and_no_line_is_a_panic(bytes: Vec<u8>, text in "[{}\\[\\]\",:a0\\\\ ]{0,60}") {
        for version in [Version::V1, Version::V2] {
            let _ = run(version, &bytes);
            let _ = Writer::new(WriterOptions::new(version)).push(text.as_bytes());
        }
        let _ = unpack(&bytes, 1 << 20);
    }
}
