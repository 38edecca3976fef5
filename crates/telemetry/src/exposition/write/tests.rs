//! Tests of writing: pictures of bodies, and that what was written reads back.

use super::*;
use crate::exposition::{Scraper, Target};
use proptest::prelude::*;
use serde_json::value::Value as Json;

const AT: UnixNanos = UnixNanos(1_800_000_000_000_000_000);

fn sample(name: &str, labels: &[(&str, &str)], value: f64) -> Sample {
    let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Sample { name: name.into(), labels, value: Value::Double(value), ..Sample::default() }
}

fn family(name: &str, kind: Type, samples: Vec<Sample>) -> Family {
    Family { name: name.into(), kind, help: format!("about {name}"), unit: String::new(), samples }
}

#[track_caller]
fn check(families: &[Family], format: Format, escaping: Escaping, want: &str) {
    let mut out = Vec::new();
    write(families, format, escaping, &mut out);
    assert_eq!(String::from_utf8(out).expect("text"), want);
}

fn examples() -> Vec<Family> {
    let exemplar = Exemplar { labels: vec![("id".into(), "x\"".into())], value: 0.5, at: Some(UnixNanos(1_500_000_000)) };
    let total = Sample {
        at: Some(UnixNanos(1_520_879_607_789_000_000)),
        start: Some(UnixNanos(1_000_000_001)),
        exemplars: vec![exemplar],
        ..sample("c_seconds_total", &[("path", "a\\b\"c\n")], 17.0)
    };
    let counter = Family { unit: "seconds".into(), help: "a\\b\"c\nd".into(), ..family("c_seconds", Type::Counter, vec![total]) };
    let histogram = vec![
        sample("h_bucket", &[("le", "1.0")], 2.0),
        sample("h_bucket", &[("le", "+Inf")], 3.0),
        sample("h_sum", &[], 1e6),
        sample("h_count", &[], 3.0),
    ];
    let stale = sample("g", &[("a", "b")], f64::from_bits(STALE));
    vec![
        counter,
        family("g", Type::Gauge, vec![sample("g", &[], f64::NAN), sample("g", &[("x", "")], f64::INFINITY), stale]),
        family("h", Type::Histogram, histogram),
        family("i", Type::Info, vec![sample("i_info", &[("v", "1")], 1.0)]),
        family("u.v", Type::Unknown, vec![sample("u.v", &[("l.m", "1")], -1.5)]),
    ]
}

/// The vector of EB 5.5: `a\b"c` and a line's end are exposed as `a\\b\"c\n`.
#[test]
fn text_looks_like_this() {
    let want = r#"# HELP c_seconds_total a\\b"c\nd
# TYPE c_seconds_total counter
c_seconds_total{path="a\\b\"c\n"} 17 1520879607789
# HELP g about g
# TYPE g gauge
g NaN
g{x=""} +Inf
# HELP h about h
# TYPE h histogram
h_bucket{le="1.0"} 2
h_bucket{le="+Inf"} 3
h_sum 1e+06
h_count 3
# HELP i_info about i
# TYPE i_info gauge
i_info{v="1"} 1
# HELP "u.v" about u.v
# TYPE "u.v" untyped
{"u.v","l.m"="1"} -1.5
"#;
    check(&examples(), Format::Text, Escaping::AllowUtf8, want);
}

#[test]
fn openmetrics_looks_like_this() {
    let want = r#"# HELP c_seconds a\\b\"c\nd
# TYPE c_seconds counter
# UNIT c_seconds seconds
c_seconds_total{path="a\\b\"c\n"} 17.0 1520879607.789 # {id="x\""} 0.5 1.5
c_seconds_created{path="a\\b\"c\n"} 1.000000001
# HELP g about g
# TYPE g gauge
g NaN
g{x=""} +Inf
# HELP h about h
# TYPE h histogram
h_bucket{le="1.0"} 2
h_bucket{le="+Inf"} 3
h_sum 1e+06
h_count 3
# HELP i about i
# TYPE i info
i_info{v="1"} 1.0
# HELP u_v about u.v
# TYPE u_v unknown
u_v{l_m="1"} -1.5
# EOF
"#;
    check(&examples(), Format::OpenMetrics, Escaping::Underscores, want);
}

#[test]
fn a_counter_without_total_is_unknown_to_openmetrics() {
    let want = "# HELP c about c\n# TYPE c unknown\nc 1.0\n# EOF\n";
    check(&[family("c", Type::Counter, vec![sample("c", &[], 1.0)])], Format::OpenMetrics, Escaping::Underscores, want);
}

#[test]
fn suffixes_that_text_does_not_know_are_gauges() {
    let samples = vec![sample("h_bucket", &[("le", "+Inf")], 1.0), sample("h_gcount", &[], 1.0), sample("h_gsum", &[], 2.0)];
    let want =
        "# HELP h about h\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\n# TYPE h_gsum gauge\nh_gsum 2\n# TYPE h_gcount gauge\nh_gcount 1\n";
    check(&[family("h", Type::GaugeHistogram, samples)], Format::Text, Escaping::Underscores, want);
}

/// prometheus/common model/metric_test.go, TestEscapeName.
#[test]
fn names_are_escaped_as_in_prometheus() {
    for (name, underscores, dots, values) in [
        ("", "", "", ""),
        ("no:escaping_required", "no:escaping_required", "no:escaping__required", "no:escaping_required"),
        (
            "mysystem.prod.west.cpu.load",
            "mysystem_prod_west_cpu_load",
            "mysystem_dot_prod_dot_west_dot_cpu_dot_load",
            "U__mysystem_2e_prod_2e_west_2e_cpu_2e_load",
        ),
        ("http.status:sum", "http_status:sum", "http_dot_status:sum", "U__http_2e_status:sum"),
        ("label with 😱", "label_with__", "label__with____", "U__label_20_with_20__1f631_"),
        ("_dot_", "_dot_", "__dot__", "_dot_"),
    ] {
        for (escaping, want) in
            [(Escaping::Underscores, underscores), (Escaping::Dots, dots), (Escaping::Values, values), (Escaping::AllowUtf8, name)]
        {
            assert_eq!(escape_name(name, escaping), want, "{name} {escaping:?}");
        }
    }
}

/// Name, labels, bits of the value, time: what every format must give back.
type Plain = (String, Vec<(String, String)>, u64, Option<i64>);

fn read_back(format: Format, body: &[u8]) -> Vec<(Plain, Json)> {
    let mut out = Vec::new();
    if let Err(error) = Scraper::new(Target::default()).scrape(format, body, AT, &mut out) {
        panic!("{error}: {}", String::from_utf8_lossy(body));
    }
    let read = |line: &[u8]| {
        let json: Json = serde_json::from_slice(line).expect("JSON");
        let labels = json["labels"].as_object().expect("labels");
        let labels = labels.iter().map(|(name, value)| (name.clone(), value.as_str().expect("text").to_string())).collect();
        let bits = match json.get("value") {
            Some(value) => crate::sample::Number::parse(value.to_string().as_bytes()).expect("a number").double().to_bits(),
            None => 0,
        };
        let mut times = flow::time::TimeParser::new();
        let at = times.parse(json["timestamp"].as_str().expect("a time").as_bytes(), flow::fields::Kind::Text).expect("a time");
        ((json["metric"].as_str().expect("a name").to_string(), labels, bits, (at != AT).then_some(at.0)), json)
    };
    out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(read).collect()
}

#[test]
fn a_native_histogram_reads_back_from_protobuf() {
    let mut native = crate::histogram::tests::example();
    let exemplar = Exemplar { labels: vec![("id".into(), "x".into())], value: 0.5, at: Some(UnixNanos(1_500_000_000_000_000_001)) };
    for hint in [ResetHint::Unknown, ResetHint::Gauge] {
        native.reset_hint = hint;
        let sample = Sample {
            value: Value::Native(native.clone()),
            start: Some(UnixNanos(1_500_000_000_000_000_000)),
            exemplars: vec![exemplar.clone()],
            ..sample("n", &[("a", "b")], 0.0)
        };
        let kind = if hint == ResetHint::Gauge { Type::GaugeHistogram } else { Type::Histogram };
        let mut out = Vec::new();
        write(&[family("n", kind, vec![sample])], Format::Protobuf, Escaping::AllowUtf8, &mut out);
        let read = read_back(Format::Protobuf, &out);
        assert_eq!(read.len(), 1);
        assert_eq!(Histogram::parse(read[0].1["histogram"].to_string().as_bytes()), Some(native.clone()));
        assert_eq!(read[0].1["start"], "2017-07-14T02:40:00Z");
        assert_eq!(read[0].1["exemplars"][0]["timestamp"], "2017-07-14T02:40:00.000000001Z");
    }
}

#[test]
fn a_classic_histogram_and_a_summary_read_back_from_protobuf() {
    let summary = vec![sample("s", &[("quantile", "0.5")], 1.25), sample("s_sum", &[], 2.5), sample("s_count", &[], 2.0)];
    let mut out = Vec::new();
    let families = [examples().swap_remove(2), family("s", Type::Summary, summary)];
    write(&families, Format::Protobuf, Escaping::AllowUtf8, &mut out);
    let mut read: Vec<Plain> = read_back(Format::Protobuf, &out).into_iter().map(|(plain, _)| plain).collect();
    read.sort();
    let mut want: Vec<Plain> = families.iter().flat_map(|family| &family.samples).map(plain).collect();
    want.sort();
    assert_eq!(read, want);
}

fn plain(sample: &Sample) -> Plain {
    let Value::Double(value) = sample.value else { panic!("a double") };
    let labels = sample.labels.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
    let bits = if value.is_nan() { crate::sample::NORMAL_NAN } else { value.to_bits() };
    (sample.name.clone(), labels, bits, sample.at.map(|at| at.0))
}

proptest! {
    #[test]
    fn what_was_written_reads_back_bit_for_bit(
        names in prop::collection::btree_set("[a-z_:][a-z0-9_:.\u{e9}\"\\\\]{0,6}", 1..5),
        values in prop::collection::vec((any::<u64>(), "[ -~\n\\\\\"\u{20ac}]{1,8}", prop::option::of(1_000_000_000_000i64..1_700_000_000_000)), 1..4),
        kind in 0..3usize,
    ) {
        let kind = [Type::Gauge, Type::Unknown, Type::Counter][kind];
        let families: Vec<Family> = names.into_iter().map(|name| {
            let name = if kind == Type::Counter { format!("{name}_total") } else { name };
            let samples = values.iter().enumerate().map(|(n, (bits, text, at))| Sample {
                at: at.map(|millis| UnixNanos(millis * 1_000_000)),
                ..sample(&name, &[("n", &n.to_string()), ("t.\u{e9}", text)], f64::from_bits(*bits))
            });
            family(&name, kind, samples.filter(|sample| !is_stale(&sample.value)).collect())
        }).collect();
        for format in [Format::Text, Format::OpenMetrics, Format::Protobuf] {
            let mut out = Vec::new();
            write(&families, format, Escaping::AllowUtf8, &mut out);
            let read: Vec<Plain> = read_back(format, &out).into_iter().map(|(plain, _)| plain).collect();
            let want: Vec<Plain> = families.iter().flat_map(|family| &family.samples).map(plain).collect();
            prop_assert_eq!(&read, &want, "{:?}", format);
        }
    }
}
