//! What OTLP becomes and comes back as, what is refused, and what hostile bodies cannot do.
//!
//! `tests/data/otlp/*.{pb,json}` were made by OpenTelemetry's own classes (PyPI `opentelemetry-proto`), each request with every field;
//! the oracle of the laws is a decoder of protobuf of its own.

use super::*;
use proptest::prelude::*;

mod oracle;

const T0: u64 = 1_544_712_660_300_000_000;

fn lines_of(signal: Signal, encoding: Encoding, body: &[u8]) -> (String, Accepted) {
    let mut out = Vec::new();
    let accepted = read(signal, encoding, body, &Options::default(), &mut out).expect("a request");
    (String::from_utf8(out).expect("lines are UTF-8"), accepted)
}

fn refused(signal: Signal, body: &str, options: &Options) -> (u64, Vec<(Reason, u64)>, Option<String>) {
    let mut out = Vec::new();
    let accepted = read(signal, Encoding::Json, body.as_bytes(), options, &mut out).expect(body);
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count() as u64, accepted.items);
    (accepted.items, accepted.rejected, accepted.first)
}

fn written(signal: Signal, encoding: Encoding, lines: &str) -> Vec<u8> {
    let mut writer = Writer::new(signal, WriteOptions::default());
    for line in lines.lines() {
        writer.push(line.as_bytes()).unwrap_or_else(|reason| panic!("{}: {line}", reason.rule()));
    }
    assert_eq!(writer.items(), lines.lines().count() as u64);
    let body = writer.finish(encoding);
    assert_eq!((writer.items(), writer.bytes()), (0, 0));
    body
}

const FIXTURES: [(Signal, &[u8], &str, &str); 3] = [
    (
        Signal::Logs,
        include_bytes!("../../tests/data/otlp/logs.pb"),
        include_str!("../../tests/data/otlp/logs.json"),
        include_str!("../../tests/data/otlp/logs.lines"),
    ),
    (
        Signal::Metrics,
        include_bytes!("../../tests/data/otlp/metrics.pb"),
        include_str!("../../tests/data/otlp/metrics.json"),
        include_str!("../../tests/data/otlp/metrics.lines"),
    ),
    (
        Signal::Traces,
        include_bytes!("../../tests/data/otlp/traces.pb"),
        include_str!("../../tests/data/otlp/traces.json"),
        include_str!("../../tests/data/otlp/traces.lines"),
    ),
];

#[test]
fn every_field_of_opentelemetry_has_its_place_in_a_line_and_comes_back() {
    for (signal, protobuf, json, want) in FIXTURES {
        let (lines, accepted) = lines_of(signal, Encoding::Protobuf, protobuf);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            let path = format!("{}/tests/data/otlp/{}.lines", env!("CARGO_MANIFEST_DIR"), signal.name());
            std::fs::write(path, &lines).unwrap();
        } else {
            assert_eq!(lines, want, "{signal:?}");
        }
        assert_eq!((accepted.rejected_total(), accepted.message().as_str()), (0, ""));
        for line in lines.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect(line);
        }
        assert_eq!(lines_of(signal, Encoding::Json, json.as_bytes()), (lines.clone(), accepted), "{signal:?} in JSON");
        let back = written(signal, Encoding::Protobuf, &lines);
        assert_eq!(oracle::items(signal, &back), oracle::items(signal, protobuf), "{signal:?} back");
        let back = written(signal, Encoding::Json, &lines);
        assert_eq!(
            lines_of(signal, Encoding::Json, &back).0,
            lines_of(signal, Encoding::Protobuf, &written(signal, Encoding::Protobuf, &lines)).0
        );
        serde_json::from_slice::<serde_json::Value>(&back).expect("JSON");
    }
}

#[test]
fn descriptions_are_told_aside_and_written_again() {
    let (_, protobuf, ..) = FIXTURES[1];
    let (lines, accepted) = lines_of(Signal::Metrics, Encoding::Protobuf, protobuf);
    assert_eq!(
        accepted.descriptions,
        [("my.counter", "a counter"), ("my.gauge", "a gauge")].map(|(name, text)| (name.to_string(), text.to_string()))
    );
    let mut writer = Writer::new(Signal::Metrics, WriteOptions::default());
    for (name, text) in &accepted.descriptions {
        writer.describe(name, text);
    }
    for line in lines.lines() {
        writer.push(line.as_bytes()).unwrap();
    }
    let again = lines_of(Signal::Metrics, Encoding::Protobuf, &writer.finish(Encoding::Protobuf)).1;
    assert_eq!(again.descriptions, accepted.descriptions);
}

#[test]
fn a_point_is_a_sample_whose_series_part_comes_first() {
    let (lines, _) = lines_of(Signal::Metrics, Encoding::Protobuf, FIXTURES[1].1);
    for line in lines.lines() {
        let mut buffer = Vec::new();
        let sample = crate::sample::read(line.as_bytes(), &mut flow::time::TimeParser::new(), &mut buffer).expect(line);
        assert!(line.as_bytes().starts_with(sample.series), "{line}");
        assert!(sample.series.ends_with(b"}") && line.as_bytes()[sample.series.len()..].starts_with(b",\"timestamp\":"), "{line}");
        let series = crate::sample::Series::parse(sample.series).expect(line);
        assert!(series.others.contains_key("resource") && series.metric.starts_with("my."), "{line}");
    }
}

#[test]
fn the_examples_of_the_specification_are_read() {
    let resource = r#""resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}}]}"#;
    let scope = r#""scope":{"name":"my.library","version":"1.0.0","attributes":[{"key":"my.scope.attribute","value":{"stringValue":"some scope attribute"}}]}"#;
    let log = format!(
        r#"{{"resourceLogs":[{{{resource},"scopeLogs":[{{{scope},"logRecords":[{{"timeUnixNano":"1544712660300000000","observedTimeUnixNano":1544712660300000000,
        "severityNumber":10,"severityText":"Information","traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","body":{{"stringValue":"Example log record"}},
        "attributes":[{{"key":"boolean.attribute","value":{{"boolValue":true}}}},{{"key":"int.attribute","value":{{"intValue":"10"}}}},
        {{"key":"double.attribute","value":{{"doubleValue":637.704}}}},{{"key":"array.attribute","value":{{"arrayValue":{{"values":[{{"stringValue":"many"}},{{"stringValue":"values"}}]}}}}}},
        {{"key":"map.attribute","value":{{"kvlistValue":{{"values":[{{"key":"some.map.key","value":{{"stringValue":"some value"}}}}]}}}}}}]}}]}}]}}]}}"#
    );
    let want = concat!(
        r#"{"timestamp":"2018-12-13T14:51:00.300Z","observed":"2018-12-13T14:51:00.300Z","severity":"Information","severityNumber":10,"body":"Example log record","#,
        r#""trace_id":"5b8efff798038103d269b633813fc60c","span_id":"eee19b7ec3c1b174","attributes":{"boolean.attribute":true,"int.attribute":10,"double.attribute":637.704,"#,
        r#""array.attribute":["many","values"],"map.attribute":{"some.map.key":"some value"}},"resource":{"service.name":"my.service"},"#,
        r#""scope":{"name":"my.library","version":"1.0.0","attributes":{"my.scope.attribute":"some scope attribute"}}}"#,
        "\n"
    );
    assert_eq!(lines_of(Signal::Logs, Encoding::Json, log.as_bytes()).0, want);
    let metrics = format!(
        r#"{{"resourceMetrics":[{{{resource},"scopeMetrics":[{{{scope},"metrics":[
        {{"name":"my.counter","unit":"1","sum":{{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{{"asDouble":5,"startTimeUnixNano":"1544712660300000000","timeUnixNano":"1544712660300000000",
        "attributes":[{{"key":"my.counter.attr","value":{{"stringValue":"some value"}}}}]}}]}}}},
        {{"name":"my.histogram","histogram":{{"aggregationTemporality":1,"dataPoints":[{{"timeUnixNano":1544712660300000000,"count":2,"sum":2,"bucketCounts":[1,"1"],"explicitBounds":[1],"min":0,"max":2}}]}}}},
        {{"name":"my.exp","exponentialHistogram":{{"aggregationTemporality":1,"dataPoints":[{{"timeUnixNano":1544712660300000000,"count":3,"sum":10,"scale":0,"zeroCount":1,
        "positive":{{"offset":1,"bucketCounts":[0,2]}},"min":0,"max":5,"zeroThreshold":0}}]}}}}]}}]}}]}}"#
    );
    let (lines, accepted) = lines_of(Signal::Metrics, Encoding::Json, metrics.as_bytes());
    assert_eq!((accepted.items, accepted.rejected.len()), (3, 0));
    assert!(lines.contains(r#""labels":{"my.counter.attr":"some value"},"timestamp":"2018-12-13T14:51:00.300Z","start":"2018-12-13T14:51:00.300Z","value":5.0}"#), "{lines}");
    assert!(lines.contains(r#""histogram":{"count":2,"sum":2.0,"min":0.0,"max":2.0,"bounds":[1.0],"counts":[1,1]}}"#), "{lines}");
    assert!(lines.contains(r#""positive":{"offset":1,"counts":[0,2]}}}"#), "{lines}");
}

fn logs(record: &str) -> String {
    format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":"a"}}}},{record},{{"body":{{"stringValue":"b"}}}}]}}]}}]}}"#
    )
}

fn metrics(metric: &str) -> String {
    let good = format!(r#"{{"name":"good","gauge":{{"dataPoints":[{{"timeUnixNano":{T0},"asInt":1}}]}}}}"#);
    format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{good},{metric},{good}]}}]}}]}}"#)
}

fn spans_of(span: &str) -> String {
    let good = format!(r#"{{"traceId":"{:032x}","spanId":"{:016x}","startTimeUnixNano":"{T0}"}}"#, 1, 1);
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{good},{span},{good}]}}]}}]}}"#)
}

#[test]
fn an_item_is_refused_alone_and_with_a_reason() {
    use Reason::*;
    let ids = format!(r#""traceId":"{:032x}","spanId":"{:016x}""#, 1, 1);
    let point = |rest: &str| format!(r#"{{"name":"x","gauge":{{"dataPoints":[{{"timeUnixNano":{T0},{rest}}}]}}}}"#);
    let histogram =
        |rest: &str| format!(r#"{{"name":"x","histogram":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":{T0},{rest}}}]}}}}"#);
    let nested = |levels: usize| format!("{}{{\"intValue\":1}}{}", r#"{"arrayValue":{"values":["#.repeat(levels), "]}}".repeat(levels));
    let cases: Vec<(Signal, String, Option<Reason>)> = vec![
        (Signal::Logs, logs("{}"), None),
        (Signal::Logs, logs(r#"{"traceId":"","spanId":""}"#), None),
        (Signal::Logs, logs(&format!(r#"{{"traceId":"{}"}}"#, "0".repeat(32))), None),
        (Signal::Logs, logs(r#"{"traceId":"5b8e"}"#), Some(TraceId)),
        (Signal::Logs, logs(r#"{"traceId":"5B8EFFF798038103D269B633813FC60"}"#), Some(TraceId)),
        (Signal::Logs, logs(r#"{"traceId":"zz8EFFF798038103D269B633813FC60C"}"#), Some(TraceId)),
        (Signal::Logs, logs(r#"{"traceId":"W47/95gDgQPSabYzgT/GDA=="}"#), Some(TraceId)),
        (Signal::Logs, logs(r#"{"traceId":7}"#), Some(Value)),
        (Signal::Logs, logs(r#"{"spanId":"EEE19B7EC3C1B17"}"#), Some(SpanId)),
        (Signal::Logs, logs(r#"{"spanId":"EEE19B7EC3C1B17400"}"#), Some(SpanId)),
        (Signal::Logs, logs(r#"{"timeUnixNano":1}"#), Some(Time)),
        (Signal::Logs, logs(r#"{"timeUnixNano":"631151999999999999"}"#), Some(Time)),
        (Signal::Logs, logs(r#"{"timeUnixNano":"631152000000000000"}"#), None),
        (Signal::Logs, logs(r#"{"timeUnixNano":"4133980799999999999"}"#), None),
        (Signal::Logs, logs(r#"{"timeUnixNano":"4133980800000000000"}"#), Some(Time)),
        (Signal::Logs, logs(r#"{"observedTimeUnixNano":"18446744073709551615"}"#), Some(Time)),
        (Signal::Logs, logs(r#"{"timeUnixNano":"18446744073709551616"}"#), Some(Value)),
        (Signal::Logs, logs(r#"{"timeUnixNano":-1}"#), Some(Value)),
        (Signal::Logs, logs(r#"{"timeUnixNano":"abc"}"#), Some(Value)),
        (Signal::Logs, logs(r#"{"timeUnixNano":1.5}"#), Some(Value)),
        (Signal::Logs, logs(&format!(r#"{{"timeUnixNano":{T0}.0}}"#)), None),
        (Signal::Logs, logs(r#"{"severityNumber":"SEVERITY_NUMBER_INFO"}"#), Some(Enum)),
        (Signal::Logs, logs(r#"{"severityNumber":"9"}"#), Some(Enum)),
        (Signal::Logs, logs(r#"{"severityNumber":9}"#), None),
        (Signal::Logs, logs(r#"{"body":{"stringValue":5}}"#), Some(Value)),
        (Signal::Logs, logs(r#"{"body":{"intValue":9223372036854775808}}"#), Some(Value)),
        (Signal::Logs, logs(r#"{"body":{"boolValue":"true"}}"#), Some(Value)),
        (Signal::Logs, logs(r#"{"body":{"doubleValue":"x"}}"#), Some(Value)),
        (Signal::Logs, logs(r#"{"body":{"doubleValue":"1.5"}}"#), None),
        (Signal::Logs, logs(r#"{"body":{"bytesValue":"%%"}}"#), Some(Value)),
        (Signal::Logs, logs(r#"{"body":"text"}"#), Some(Value)),
        (Signal::Logs, logs(r#"{"attributes":{}}"#), Some(Value)),
        (Signal::Logs, logs("7"), Some(Value)),
        (Signal::Logs, logs(&format!(r#"{{"body":{}}}"#, nested(64))), None),
        (Signal::Logs, logs(&format!(r#"{{"body":{}}}"#, nested(65))), Some(Depth)),
        (Signal::Logs, logs(&format!(r#"{{"body":{}}}"#, nested(10_000))), Some(Depth)),
        (Signal::Logs, logs(r#"{"unknown":{"a":[1,{"b":null}]},"time_unix_nano":"x","body":null,"attributes":null}"#), None),
        (Signal::Metrics, metrics(r#"{"name":"x"}"#), Some(NoData)),
        (Signal::Metrics, metrics(&point(r#""attributes":[]"#)), Some(NoValue)),
        (Signal::Metrics, metrics(&point(r#""flags":1"#)), None),
        (Signal::Metrics, metrics(&point(r#""asDouble":"NaN""#)), None),
        (Signal::Metrics, metrics(&point(r#""asDouble":"nan""#)), Some(Value)),
        (Signal::Metrics, metrics(&point(r#""asInt":"-9223372036854775808""#)), None),
        (Signal::Metrics, metrics(&point(r#""asInt":"-9223372036854775809""#)), Some(Value)),
        (Signal::Metrics, metrics(&point(r#""asInt":1.5"#)), Some(Value)),
        (Signal::Metrics, metrics(&point(r#""asInt":1,"startTimeUnixNano":5"#)), Some(Time)),
        (Signal::Metrics, metrics(&point(r#""asInt":1,"exemplars":[{"traceId":"12"}]"#)), Some(TraceId)),
        (Signal::Metrics, metrics(r#"{"name":"x","gauge":{"dataPoints":[{"asInt":1}]}}"#), Some(Time)),
        (Signal::Metrics, metrics(&format!(r#"{{"gauge":{{"dataPoints":[{{"timeUnixNano":{T0},"asInt":1}}]}}}}"#)), Some(Name)),
        (
            Signal::Metrics,
            metrics(&format!(r#"{{"name":"x","sum":{{"dataPoints":[{{"timeUnixNano":{T0},"asInt":1}}]}}}}"#)),
            Some(Temporality),
        ),
        (
            Signal::Metrics,
            metrics(&format!(r#"{{"name":"x","sum":{{"aggregationTemporality":3,"dataPoints":[{{"timeUnixNano":{T0},"asInt":1}}]}}}}"#)),
            Some(Temporality),
        ),
        (
            Signal::Metrics,
            metrics(&format!(
                r#"{{"name":"x","sum":{{"aggregationTemporality":"AGGREGATION_TEMPORALITY_DELTA","dataPoints":[{{"timeUnixNano":{T0},"asInt":1}}]}}}}"#
            )),
            Some(Temporality),
        ),
        (Signal::Metrics, metrics(&histogram(r#""count":1"#)), None),
        (Signal::Metrics, metrics(&histogram(r#""bucketCounts":[1]"#)), None),
        (Signal::Metrics, metrics(&histogram(r#""bucketCounts":[1,1],"explicitBounds":[1,2]"#)), Some(Histogram)),
        (Signal::Metrics, metrics(&histogram(r#""bucketCounts":[1,1,1],"explicitBounds":[2,1]"#)), Some(Histogram)),
        (Signal::Metrics, metrics(&histogram(r#""bucketCounts":[1,1,1],"explicitBounds":[1,1]"#)), Some(Histogram)),
        (Signal::Metrics, metrics(&histogram(r#""bucketCounts":[1,1],"explicitBounds":["NaN"]"#)), Some(Histogram)),
        (Signal::Metrics, metrics(&histogram(r#""explicitBounds":[1]"#)), Some(Histogram)),
        (Signal::Metrics, metrics(&histogram(r#""bucketCounts":[-1]"#)), Some(Value)),
        (
            Signal::Metrics,
            metrics(&format!(
                r#"{{"name":"x","summary":{{"dataPoints":[{{"timeUnixNano":{T0},"quantileValues":[{{"quantile":1.5,"value":1}}]}}]}}}}"#
            )),
            Some(Quantile),
        ),
        (Signal::Traces, spans_of(&format!(r#"{{{ids},"startTimeUnixNano":{T0}}}"#)), None),
        (Signal::Traces, spans_of(&format!(r#"{{{ids}}}"#)), Some(Time)),
        (Signal::Traces, spans_of(&format!(r#"{{"spanId":"{:016x}","startTimeUnixNano":{T0}}}"#, 1)), Some(TraceId)),
        (Signal::Traces, spans_of(&format!(r#"{{"traceId":"{:032x}","spanId":"{:016x}","startTimeUnixNano":{T0}}}"#, 0, 1)), Some(TraceId)),
        (Signal::Traces, spans_of(&format!(r#"{{"traceId":"{:032x}","spanId":"{:016x}","startTimeUnixNano":{T0}}}"#, 1, 0)), Some(SpanId)),
        (Signal::Traces, spans_of(&format!(r#"{{{ids},"startTimeUnixNano":{T0},"parentSpanId":"ab"}}"#)), Some(SpanId)),
        (Signal::Traces, spans_of(&format!(r#"{{{ids},"startTimeUnixNano":{T0},"parentSpanId":"{:016x}"}}"#, 0)), None),
        (Signal::Traces, spans_of(&format!(r#"{{{ids},"startTimeUnixNano":{T0},"kind":"SPAN_KIND_SERVER"}}"#)), Some(Enum)),
        (Signal::Traces, spans_of(&format!(r#"{{{ids},"startTimeUnixNano":{T0},"kind":6}}"#)), Some(Enum)),
        (Signal::Traces, spans_of(&format!(r#"{{{ids},"startTimeUnixNano":{T0},"kind":-1}}"#)), Some(Enum)),
        (Signal::Traces, spans_of(&format!(r#"{{{ids},"startTimeUnixNano":{T0},"status":{{"code":3}}}}"#)), Some(Enum)),
        (Signal::Traces, spans_of(&format!(r#"{{{ids},"startTimeUnixNano":{T0},"events":[{{"timeUnixNano":7}}]}}"#)), Some(Time)),
        (Signal::Traces, spans_of(&format!(r#"{{{ids},"startTimeUnixNano":{T0},"links":[{{}}]}}"#)), Some(TraceId)),
        (Signal::Traces, spans_of(&format!(r#"{{{ids},"startTimeUnixNano":{T0},"endTimeUnixNano":{}}}"#, T0 - 1)), None),
    ];
    for (signal, body, reason) in cases {
        let got = refused(signal, &body, &Options::default());
        let short = &body[..body.len().min(300)];
        match reason {
            None => assert_eq!((got.0, got.1), (3, vec![]), "{short}"),
            Some(reason) => assert_eq!((got.0, got.1), (2, vec![(reason, 1)]), "{short}"),
        }
    }
}

#[test]
fn the_first_refusal_says_where() {
    let (_, _, first) = refused(Signal::Logs, &logs(r#"{"traceId":"5b8e"}"#), &Options::default());
    assert_eq!(
        first.as_deref(),
        Some("resourceLogs[0].scopeLogs[0].logRecords[1]: a trace id has 16 bytes (32 hex digits) and is not all zero")
    );
    let (_, _, first) = refused(Signal::Metrics, &metrics(r#"{"name":"x"}"#), &Options::default());
    assert!(first.unwrap().starts_with("resourceMetrics[0].scopeMetrics[0].metrics[1]: a metric has data"));
}

#[test]
fn what_is_no_request_is_malformed_and_leaves_nothing() {
    for body in [
        "",
        "[]",
        "7",
        "{",
        "{\"resourceLogs\":{}}",
        "{\"resourceLogs\":[7]}",
        "{\"resourceLogs\":[]}x",
        "{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{},{]}]}]}",
        "{\"resourceLogs\":[{\"resource\":{\"attributes\":7}}]}",
        "{\"resourceLogs\":[{\"schemaUrl\":7}]}",
        "\u{feff}{}",
    ] {
        let mut out = b"before".to_vec();
        assert!(read(Signal::Logs, Encoding::Json, body.as_bytes(), &Options::default(), &mut out).is_err(), "{body}");
        assert_eq!(out, b"before");
    }
    for body in [&b"\xff"[..], b"\x0a\x05", b"\x0a\x02\x12\x7f", b"\x08\x01\x0b", b"\x0d\0"] {
        let mut out = b"before".to_vec();
        assert!(read(Signal::Logs, Encoding::Protobuf, body, &Options::default(), &mut out).is_err(), "{body:?}");
        assert_eq!(out, b"before");
    }
    let good = logs("{}");
    let bad = [good.as_bytes(), b"\xff"].concat();
    assert!(read(Signal::Logs, Encoding::Json, &bad, &Options::default(), &mut Vec::new()).is_err());
}

#[test]
fn an_empty_request_succeeds() {
    for signal in Signal::ALL {
        assert_eq!(lines_of(signal, Encoding::Protobuf, b""), (String::new(), Accepted::default()));
        assert_eq!(lines_of(signal, Encoding::Json, b" {} "), (String::new(), Accepted::default()));
        assert_eq!(written(signal, Encoding::Protobuf, ""), b"");
        assert_eq!(written(signal, Encoding::Json, ""), b"{}");
    }
}

#[test]
fn of_a_key_that_is_there_twice_the_last_wins_and_is_counted() {
    let pair = |key: &str, value: u32| format!(r#"{{"key":"{key}","value":{{"intValue":{value}}}}}"#);
    let few = [pair("a", 1), pair("b", 2), pair("a", 3)].join(",");
    let (lines, accepted) = lines_of(Signal::Logs, Encoding::Json, logs(&format!(r#"{{"attributes":[{few}]}}"#)).as_bytes());
    assert!(lines.contains(r#"{"attributes":{"b":2,"a":3}}"#), "{lines}");
    assert_eq!(accepted.duplicates, 1);
    let many: Vec<String> = (0..100).map(|n| pair(&format!("k{}", n % 50), n)).collect();
    let body = logs(&format!(r#"{{"body":{{"kvlistValue":{{"values":[{}]}}}}}}"#, many.join(",")));
    let (lines, accepted) = lines_of(Signal::Logs, Encoding::Json, body.as_bytes());
    assert!(lines.contains(r#"{"k0":50,"k1":51,"#) && !lines.contains("\"k0\":0"), "{lines}");
    assert_eq!(accepted.duplicates, 50);
}

#[test]
fn records_without_ids_inherit_them_where_configured() {
    let options = Options { inherit: Some("traceparent".to_string()), ..Options::default() };
    let (trace, span) = ("12345678901234567890123456789012", "1234567890123456");
    let attribute = |value: &str| format!(r#""attributes":[{{"key":"traceparent","value":{{"stringValue":"{value}"}}}}]"#);
    let good = attribute(&format!("00-{trace}-{span}-01"));
    for (record, options, want) in [
        (format!("{{{good}}}"), &options, Some(r#","flags":1"#)),
        (format!("{{{good},\"flags\":2}}"), &options, Some(r#","flags":2"#)),
        (format!("{{{good}}}"), &Options::default(), None),
        (format!("{{{good},\"traceId\":\"{:032x}\"}}", 5), &options, None),
        (format!("{{{good},\"spanId\":\"{:016x}\"}}", 5), &options, None),
        (format!("{{{}}}", attribute(&format!("00-{trace}-{span}-1"))), &options, None),
        (r#"{"attributes":[{"key":"traceparent","value":{"intValue":1}}]}"#.to_string(), &options, None),
    ] {
        let mut out = Vec::new();
        read(Signal::Logs, Encoding::Json, logs(&record).as_bytes(), options, &mut out).unwrap();
        let lines = String::from_utf8(out).unwrap();
        let ids = format!(r#""trace_id":"{trace}","span_id":"{span}""#);
        assert_eq!(lines.contains(&ids), want.is_some(), "{lines}");
        assert!(want.is_none_or(|want| lines.contains(&format!("{ids}{want}"))), "{lines}");
    }
}

#[test]
fn a_large_resource_is_not_written_without_end() {
    let mut record = Vec::new();
    crate::wire::put_bytes(&mut record, 2, b"");
    let group = |name: usize, records: usize, resource: usize| {
        let mut body = Vec::new();
        crate::wire::put_message(&mut body, 1, |out| {
            crate::wire::put_message(out, 1, |out| {
                crate::wire::put_message(out, 1, |out| crate::wire::put_bytes(out, 1, &vec![b'x'; resource]))
            });
            crate::wire::put_message(out, 2, |out| {
                crate::wire::put_message(out, 1, |out| crate::wire::put_bytes(out, 1, &vec![b'y'; name]));
                for _ in 0..records {
                    out.extend_from_slice(&record);
                }
            });
        });
        body
    };
    let options = Options { bytes_max: 10_000, line_bytes_max: 2_000, ..Options::default() };
    let mut out = b"before".to_vec();
    let accepted = read(Signal::Logs, Encoding::Protobuf, &group(10, 1_000_000, 1_000), &options, &mut out).unwrap();
    assert_eq!(accepted.items + accepted.rejected_total(), 1_000_000);
    assert_eq!(accepted.rejected[0].0, Reason::BodyBytes);
    assert!(out.len() <= 10_006 && accepted.items == 9, "{}", out.len());
    let accepted = read(Signal::Logs, Encoding::Protobuf, &group(3_000, 10, 0), &options, &mut Vec::new()).unwrap();
    assert_eq!(accepted.rejected, [(Reason::LineBytes, 10)]);
}

#[test]
fn depth_is_refused_before_it_is_a_recursion() {
    let mut value = b"\x18\x01".to_vec(); // int_value: 1
    for _ in 0..10_000 {
        let mut outer = Vec::new();
        crate::wire::put_message(&mut outer, 6, |out| {
            crate::wire::put_message(out, 1, |out| {
                crate::wire::put_bytes(out, 1, b"k");
                crate::wire::put_bytes(out, 2, &value);
            });
        });
        value = outer;
    }
    let mut body = Vec::new();
    crate::wire::put_message(&mut body, 1, |out| {
        crate::wire::put_message(out, 2, |out| {
            crate::wire::put_message(out, 2, |out| crate::wire::put_bytes(out, 5, &value));
            crate::wire::put_message(out, 2, |out| crate::wire::put_message(out, 5, |out| crate::wire::put_bytes(out, 1, b"ok")));
        });
    });
    let options = Options { depth_max: usize::MAX, ..Options::default() };
    for options in [&Options::default(), &options] {
        let mut out = Vec::new();
        let accepted = read(Signal::Logs, Encoding::Protobuf, &body, options, &mut out).unwrap();
        assert_eq!((accepted.items, accepted.rejected), (1, vec![(Reason::Depth, 1)]));
        assert_eq!(out, b"{\"body\":\"ok\"}\n");
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(Writer::new(Signal::Logs, WriteOptions::default()).push(deep.as_bytes()), Err(Reason::Depth));
}

#[test]
fn text_that_is_no_utf8_refuses_its_item_only() {
    let record = |body: &[u8]| {
        let mut out = Vec::new();
        crate::wire::put_message(&mut out, 2, |out| crate::wire::put_message(out, 5, |out| crate::wire::put_bytes(out, 1, body)));
        out
    };
    let mut body = Vec::new();
    crate::wire::put_message(&mut body, 1, |out| {
        crate::wire::put_message(out, 2, |out| {
            [&b"a"[..], b"\xff", b"\xc3\xa9"].iter().for_each(|text| out.extend_from_slice(&record(text)))
        });
    });
    let (lines, accepted) = lines_of(Signal::Logs, Encoding::Protobuf, &body);
    assert_eq!(lines, "{\"body\":\"a\"}\n{\"body\":\"\u{e9}\"}\n");
    assert_eq!(accepted.rejected, [(Reason::Utf8, 1)]);
}

#[test]
fn a_mark_on_the_wire_is_an_unknown_field() {
    let mut body = Vec::new();
    crate::wire::put_message(&mut body, 1, |out| {
        crate::wire::put_message(out, 2, |out| crate::wire::put_message(out, 2, |out| crate::wire::put_varint(out, transcode::MARK, 0)));
    });
    assert_eq!(lines_of(Signal::Logs, Encoding::Protobuf, &body).0, "{}\n");
}

#[test]
fn torn_bodies_are_refused_or_read_and_never_more() {
    for (signal, protobuf, json, _) in FIXTURES {
        let compact = serde_json::from_str::<serde_json::Value>(json).unwrap().to_string();
        for len in 0..protobuf.len() {
            let _ = read(signal, Encoding::Protobuf, &protobuf[..len], &Options::default(), &mut Vec::new());
        }
        for len in 0..compact.len() {
            assert!(read(signal, Encoding::Json, &compact.as_bytes()[..len], &Options::default(), &mut Vec::new()).is_err());
        }
        for at in 0..protobuf.len() {
            let mut body = protobuf.to_vec();
            for byte in [0, 0x7f, 0xff, body[at] ^ 1, body[at].wrapping_add(8)] {
                body[at] = byte;
                let mut out = Vec::new();
                if read(signal, Encoding::Protobuf, &body, &Options::default(), &mut out).is_ok() {
                    let lines = String::from_utf8(out).expect("UTF-8");
                    for line in lines.lines() {
                        serde_json::from_str::<serde_json::Value>(line).expect(line);
                        let mut writer = Writer::new(signal, WriteOptions::default());
                        writer.push(line.as_bytes()).expect(line);
                        writer.finish(Encoding::Json);
                    }
                }
            }
        }
    }
}

#[test]
fn paths_and_types_name_the_signal_and_the_encoding() {
    for signal in Signal::ALL {
        assert_eq!(of_http_path(http_path(signal)), Some(signal));
        assert_eq!(of_grpc_path(grpc_path(signal)), Some(signal));
    }
    assert_eq!(of_http_path("/v1/trace"), None);
    for (value, want) in [
        ("application/json", Some(Encoding::Json)),
        ("Application/JSON; charset=utf-8", Some(Encoding::Json)),
        ("application/x-protobuf", Some(Encoding::Protobuf)),
        ("text/plain", None),
        ("", None),
    ] {
        assert_eq!(Encoding::of_content_type(value), want, "{value}");
    }
}

/// The items that lines of any origin become, as our own reader shows them.
#[track_caller]
fn check_out(signal: Signal, line: &str, want: &str) {
    let options = WriteOptions {
        resource: vec![("host".to_string(), "host.name".to_string()), ("job".to_string(), "service.name".to_string())],
        ..WriteOptions::default()
    };
    let mut writer = Writer::new(signal, options);
    writer.push(line.as_bytes()).expect(line);
    let (lines, accepted) = lines_of(signal, Encoding::Protobuf, &writer.finish(Encoding::Protobuf));
    assert_eq!(lines.trim_end(), want, "{line}");
    assert_eq!(accepted.rejected_total(), 0);
}

#[test]
fn log_records_of_others_are_read_by_convention() {
    let t = "12345678901234567890123456789012";
    for (line, want) in [
        ("plain text", r#"{"body":"plain text"}"#.to_string()),
        ("[1]", r#"{"body":"[1]"}"#.to_string()),
        (
            r#"{"level":"info","ts":1700000000.123456,"caller":"a/b.go:7","msg":"x"}"#,
            r#"{"timestamp":"2023-11-14T22:13:20.123456Z","severity":"info","severityNumber":9,"body":"x","attributes":{"caller":"a/b.go:7"}}"#.to_string(),
        ),
        (
            r#"{"level":30,"time":1700000000123,"msg":"x","host":"n1","pid":9007199254740993}"#,
            r#"{"timestamp":"2023-11-14T22:13:20.123Z","severity":"30","severityNumber":9,"body":"x","attributes":{"pid":9007199254740993},"resource":{"host.name":"n1"}}"#.to_string(),
        ),
        (
            r#"{"log.level":" WARN","@timestamp":"2024-01-02T03:04:05Z","message":"x","log":{"a":1}}"#,
            r#"{"timestamp":"2024-01-02T03:04:05Z","severity":" WARN","severityNumber":13,"body":"x","attributes":{"log":{"a":1}}}"#.to_string(),
        ),
        (
            r#"{"severity":"NOTICE","timestampSeconds":1700000000,"timestampNanos":5,"message":"m"}"#,
            r#"{"timestamp":"2023-11-14T22:13:20.000000005Z","severity":"NOTICE","severityNumber":10,"body":"m"}"#.to_string(),
        ),
        (r#"{"level":"ERROR+2","msg":"a","msg":"b"}"#, r#"{"severity":"ERROR+2","severityNumber":17,"body":"b"}"#.to_string()),
        (r#"{"ts":"NaN","level":"Level(9)"}"#, r#"{"severity":"Level(9)","attributes":{"ts":"NaN"}}"#.to_string()),
        (
            &format!(r#"{{"msg":"m","traceId":"{t}","span.id":"00000000000000ab","trace_id":"short"}}"#),
            format!(r#"{{"body":"m","trace_id":"{t}","span_id":"00000000000000ab","attributes":{{"trace_id":"short"}}}}"#),
        ),
        (
            &format!(r#"{{"message":"m","logging.googleapis.com/trace":"projects/p/traces/{t}"}}"#),
            format!(r#"{{"body":"m","trace_id":"{t}"}}"#),
        ),
        (
            r#"{"timeUnixNano":"1700000000123456789","severityNumber":9,"severityText":"INFO","body":{"stringValue":"b"}}"#,
            r#"{"timestamp":"2023-11-14T22:13:20.123456789Z","severity":"INFO","severityNumber":9,"body":"b"}"#.to_string(),
        ),
        (
            r#"{"msg":"m","big":18446744073709551615,"huge":1e999,"resource":"text","attributes":[1],"scope":{"other":1}}"#,
            r#"{"body":"m","attributes":{"big":"18446744073709551615","huge":"1e999","resource":"text","attributes":[1],"scope":{"other":1}}}"#.to_string(),
        ),
        (
            r#"{"timestamp":"2024-01-02T03:04:05Z","body":"b","severity":"info","tenant":"a","attributes":{"tenant":"b","x":1}}"#,
            r#"{"timestamp":"2024-01-02T03:04:05Z","severity":"info","severityNumber":9,"body":"b","attributes":{"x":1,"tenant":"a"}}"#.to_string(),
        ),
        (r#"{"PRIORITY":"3","MESSAGE":"m","__REALTIME_TIMESTAMP":"1700000000123456"}"#, r#"{"timestamp":"2023-11-14T22:13:20.123456Z","severity":"3","severityNumber":17,"body":"m"}"#.to_string()),
    ] {
        check_out(Signal::Logs, line, &want);
    }
}

#[test]
fn a_text_that_is_no_utf8_is_a_body_of_bytes() {
    let mut writer = Writer::new(Signal::Logs, WriteOptions::default());
    writer.push(b"\xff\xfe\n").unwrap();
    assert_eq!(writer.finish(Encoding::Json), br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"bytesValue":"//4="}}]}]}]}"#);
}

#[test]
fn samples_of_prometheus_become_points() {
    let sample = |metric: &str, kind: &str, rest: &str| {
        format!(r#"{{"metric":"{metric}","type":"{kind}","labels":{{"a":"b","job":"j"}},"timestamp":"2026-11-28T01:02:03Z",{rest}}}"#)
    };
    let point = |kind: &str, resource: &str, rest: &str| {
        format!(
            r#"{{"metric":"m",{kind},"resource":{{"service.name":"j"}}{resource},"labels":{{"a":"b"}},"timestamp":"2026-11-28T01:02:03Z",{rest}}}"#
        )
    };
    let counter = r#""type":"counter","temporality":"cumulative","monotonic":true"#;
    for (line, want) in [
        (sample("m", "counter", r#""value":5.0"#), point(counter, "", r#""value":5.0"#)),
        (sample("m", "gauge", r#""value":"NaN""#), point(r#""type":"gauge""#, "", r#""value":"NaN""#)),
        (sample("m", "unknown", r#""value":"+Inf""#), point(r#""type":"gauge""#, "", r#""value":"+Inf""#)),
        (sample("m", "counter", r#""value":"stale""#), point(counter, "", r#""value":"stale","flags":1"#)),
        (sample("m_bucket", "histogram", r#""value":5.0"#), point(counter, "", r#""value":5.0"#).replace("\"m\"", "\"m_bucket\"")),
        (sample("m", "summary", r#""value":5.0"#), point(r#""type":"gauge""#, "", r#""value":5.0"#)),
        (
            sample(
                "m",
                "counter",
                r#""value":5.0,"exemplars":[{"labels":{"trace_id":"x"},"value":1.0,"timestamp":"2026-11-28T01:02:03.5Z"}],"tenant":"t""#,
            ),
            point(
                counter,
                "",
                r#""value":5.0,"exemplars":[{"labels":{"trace_id":"x"},"value":1.0,"timestamp":"2026-11-28T01:02:03.500Z"}]"#,
            )
            .replace(r#"{"a":"b"}"#, r#"{"tenant":"t","a":"b"}"#),
        ),
        (
            sample(
                "m",
                "histogram",
                r#""histogram":{"count":9,"sum":5.5,"schema":3,"zero_threshold":1e-128,"zero_count":2,"positive":{"spans":[[0,2],[2,1]],"deltas":[1,1,-1]},"negative":{"spans":[[-3,1]],"deltas":[3]},"reset_hint":"no"}"#,
            ),
            point(
                r#""type":"histogram","temporality":"cumulative""#,
                "",
                r#""exponential":{"count":9,"sum":5.5,"scale":3,"zero_count":2,"zero_threshold":1e-128,"positive":{"offset":-1,"counts":[1,2,0,0,1]},"negative":{"offset":-4,"counts":[3]}}"#,
            ),
        ),
        (
            sample(
                "m",
                "histogram",
                r#""histogram":{"count":6.0,"sum":5.5,"schema":-53,"zero_threshold":0.0,"zero_count":0.0,"positive":{"spans":[[1,2]],"counts":[2.0,4.0]},"custom_values":[1.0,2.5]}"#,
            ),
            point(
                r#""type":"histogram","temporality":"cumulative""#,
                "",
                r#""histogram":{"count":6,"sum":5.5,"bounds":[1.0,2.5],"counts":[0,2,4]}"#,
            ),
        ),
    ] {
        check_out(Signal::Metrics, &line, &want);
    }
    let mut writer = Writer::new(Signal::Metrics, WriteOptions::default());
    for (line, reason) in [
        ("text".to_string(), Reason::Kind),
        ("{}".to_string(), Reason::Kind),
        (r#"{"metric":"m","value":1}"#.to_string(), Reason::Time),
        (sample("", "gauge", r#""value":1.0"#), Reason::Name),
        (sample("m", "gauge", r#""value":{}"#), Reason::NoValue),
        (sample("m", "gauge", r#""other":1"#), Reason::NoValue),
        (sample("m", "histogram", r#""histogram":{"count":1.5,"schema":3}"#), Reason::Histogram),
        (sample("m", "histogram", r#""histogram":{"count":1,"schema":3,"positive":{"spans":[[0,3]],"deltas":[1]}}"#), Reason::Histogram),
        (
            sample("m", "histogram", r#""histogram":{"count":1,"schema":3,"positive":{"spans":[[0,1],[2000000000,1]],"deltas":[1,1]}}"#),
            Reason::Histogram,
        ),
        (
            sample("m", "histogram", r#""histogram":{"count":1,"schema":3,"positive":{"spans":[[0,2000000000]],"deltas":[1]}}"#),
            Reason::Histogram,
        ),
        (sample("m", "histogram", r#""histogram":{"count":1,"counts":[1],"bounds":[1.0]}"#), Reason::Histogram),
        (sample("m", "summary", r#""quantiles":[[2.0,1.0]]"#), Reason::Quantile),
    ] {
        assert_eq!(writer.push(line.as_bytes()), Err(reason), "{line}");
    }
    assert_eq!(writer.items(), 0);
    assert_eq!(writer.finish(Encoding::Protobuf), b"", "what is refused leaves nothing");
}

#[test]
fn lines_that_are_no_spans_are_refused() {
    let mut writer = Writer::new(Signal::Traces, WriteOptions::default());
    let (t, s) = ("12345678901234567890123456789012", "1234567890123456");
    for (line, want) in [
        ("text".to_string(), Err(Reason::Kind)),
        ("{}".to_string(), Err(Reason::Time)),
        (r#"{"timestamp":"2026-11-28T01:02:03Z"}"#.to_string(), Err(Reason::TraceId)),
        (format!(r#"{{"timestamp":"2026-11-28T01:02:03Z","trace_id":"{t}"}}"#), Err(Reason::SpanId)),
        (format!(r#"{{"timestamp":"2026-11-28T01:02:03Z","trace_id":"{t}","span_id":"{s}","links":[{{}}]}}"#), Err(Reason::TraceId)),
        (format!(r#"{{"timestamp":"2026-11-28T01:02:03Z","trace_id":"{t}","span_id":"{s}","tenant":"a"}}"#), Ok(())),
    ] {
        assert_eq!(writer.push(line.as_bytes()), want, "{line}");
    }
    let lines = lines_of(Signal::Traces, Encoding::Protobuf, &writer.finish(Encoding::Protobuf)).0;
    assert!(lines.contains(r#""attributes":{"tenant":"a"}"#), "{lines}");
}

fn cases() -> u32 {
    if std::env::var_os("SLOW").is_some() { 5_000 } else { 24 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn what_came_in_goes_out_equal(logs in oracle::request(Signal::Logs), metrics in oracle::request(Signal::Metrics), traces in oracle::request(Signal::Traces)) {
        for (signal, body) in [(Signal::Logs, logs), (Signal::Metrics, metrics), (Signal::Traces, traces)] {
            let (lines, accepted) = lines_of(signal, Encoding::Protobuf, &body);
            prop_assert_eq!((accepted.rejected_total(), accepted.duplicates), (0, 0));
            prop_assert_eq!(oracle::items(signal, &written(signal, Encoding::Protobuf, &lines)), oracle::items(signal, &body), "{}", lines);
            let json = written(signal, Encoding::Json, &lines);
            let again = lines_of(signal, Encoding::Json, &json).0;
            prop_assert_eq!(oracle::items(signal, &written(signal, Encoding::Protobuf, &again)).len(), lines.lines().count());
            let (mut before, mut after): (Vec<_>, Vec<_>) = (lines.lines().collect(), again.lines().collect());
            before.sort_unstable();
            after.sort_unstable();
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn no_body_is_a_panic(bytes: Vec<u8>, text in "[{}\\[\\]\",:a0-9\\\\ ]{0,60}", body in oracle::request(Signal::Metrics), cut in 0usize..2000, byte: u8) {
        let mut torn = body;
        if let Some(at) = torn.len().checked_sub(1) {
            torn[cut.min(at)] = byte;
        }
        for signal in Signal::ALL {
            for body in [bytes.as_slice(), text.as_bytes(), torn.as_slice()] {
                for encoding in [Encoding::Protobuf, Encoding::Json] {
                    let mut out = Vec::new();
                    if read(signal, encoding, body, &Options::default(), &mut out).is_err() {
                        prop_assert!(out.is_empty());
                    }
                }
                let mut writer = Writer::new(signal, WriteOptions::default());
                let _ = writer.push(body);
                writer.finish(Encoding::Json);
            }
        }
    }
}
