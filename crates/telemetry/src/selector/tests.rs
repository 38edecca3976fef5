//! Promises of the selector. Tables of semantics: prometheus/promql/promqltest/testdata, read by a small reader of that language.

use super::*;
use flow::units::{NANOS_PER_MINUTE as MIN, NANOS_PER_SECOND as SEC};
use proptest::prelude::*;

/// `name{a="b"} 0+10x3 _ stale NaN`: points at 0, `step`, …
fn load(step: i64, text: &str) -> Vec<Series> {
    text.trim().lines().map(|line| load_line(step, line.trim())).collect()
}

fn load_line(step: i64, line: &str) -> Series {
    let end = line.find('}').map_or(line.find(' ').unwrap(), |at| at + 1);
    let selector = Selector::parse(&line[..end]).unwrap_or_else(|mistake| panic!("{}", mistake.show(line)));
    let mut labels: Labels = selector.matchers.iter().map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect();
    labels.sort();
    let mut values = Vec::new();
    for word in line[end..].split_whitespace() {
        match word.split_once('x') {
            Some((run, times)) => {
                let (start, rise) = run.split_once('+').unwrap();
                let (start, rise): (f64, f64) = (start.parse().unwrap(), rise.parse().unwrap());
                values.extend((0..=times.parse::<i64>().unwrap()).map(|n| Some(start + rise * n as f64)));
            }
            None if word == "_" => values.push(None),
            None => values.push(Some(crate::sample::parse_special(word).unwrap_or_else(|| word.parse().unwrap()))),
        }
    }
    let points = values.iter().enumerate().filter_map(|(n, value)| Some(Point { at: UnixNanos(n as i64 * step), value: (*value)? }));
    Series { labels, points: points.collect() }
}

fn show(labels: &Labels, value: f64) -> String {
    let inside: Vec<String> = labels.iter().filter(|(name, _)| name != NAME).map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{}{{{}}} {value}", label(labels, NAME), inside.join(","))
}

fn ask(series: &[Series], at: i64, text: &str) -> Result<Vec<String>, Refused> {
    let query = Query::parse(text).unwrap_or_else(|mistake| panic!("{}", mistake.show(text)));
    Ok(match instant(&query, series, UnixNanos(at), LOOKBACK)? {
        Answer::Vector(elements) => elements.iter().map(|element| show(&element.labels, element.value)).collect(),
        Answer::Matrix(rows) => rows.iter().map(|row| show(&row.labels, row.points.len() as f64)).collect(),
    })
}

/// Each value at most 1 in 10^12 away, as promqltest allows 1 in 10^6.
#[track_caller]
fn check(series: &[Series], at: i64, text: &str, want: &[&str]) {
    let got = ask(series, at, text).unwrap();
    let split = |line: &str| line.rsplit_once(' ').map(|(labels, value)| (labels.to_string(), value.parse::<f64>().unwrap())).unwrap();
    let same = |(a, b): (&String, &&str)| {
        let ((labels, got), (want_labels, want)) = (split(a), split(b));
        labels == want_labels && (got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= want.abs() * 1e-9)
    };
    assert!(got.len() == want.len() && got.iter().zip(want).all(same), "{text} at {}s\n got {got:#?}\nwant {want:#?}", at / SEC);
}

#[test]
fn absent_has_the_labels_of_equality_matchers_that_stand_once() {
    for (text, want) in [
        ("absent(nonexistent)", "{} 1"),
        (r#"absent(x{job="a",instance=~".*"})"#, r#"{job="a"} 1"#),
        (r#"absent(x{job="a",job="b",foo="bar"})"#, r#"{foo="bar"} 1"#),
        (r#"absent(x{job="a",job="b",job="c",foo="bar"})"#, r#"{foo="bar"} 1"#),
        (r#"absent(x{job="a",job=~"b",foo="bar"})"#, r#"{foo="bar"} 1"#),
        (r#"absent(x{job=~"b",job="a",foo="bar"})"#, r#"{foo="bar"} 1"#),
        (r#"absent(x{job="a",job="a"})"#, "{} 1"),
        (r#"absent(x{job="testjob", instance="testinstance", method=~".x"})"#, r#"{instance="testinstance",job="testjob"} 1"#),
        (r#"absent(x{job!="a",b=""})"#, "{} 1"),
        (r#"absent((x{job="a"}))"#, r#"{job="a"} 1"#),
        (r#"absent({"x.y",job="a"})"#, r#"{job="a"} 1"#),
        (r#"absent({__name__="x",job="a"})"#, r#"{job="a"} 1"#),
        (r#"absent(sum(x{job="a"}))"#, "{} 1"),
        (r#"absent(max(x{job="a"}))"#, "{} 1"),
        (r#"absent(rate(x{job="a"}[5m]))"#, "{} 1"),
        (r#"absent(x{job="a"} offset 5m)"#, r#"{job="a"} 1"#),
        (r#"absent_over_time(x{job="a"}[5m])"#, r#"{job="a"} 1"#),
        (r#"absent_over_time(x{handler!="/foo"}[5m])"#, "{} 1"),
        (r#"absent_over_time(x{handler="/foo",handler="/bar",instance="127.0.0.1"}[5m])"#, r#"{instance="127.0.0.1"} 1"#),
        (r#"sum(absent(x{job="a"}))"#, "{} 1"),
    ] {
        check(&[], 50 * MIN, text, &[want]);
    }
    let there = load(5 * MIN, r#"http_requests{job="api-server", instance="0", group="production"} 0+10x10"#);
    for text in ["absent(http_requests)", "absent(sum(http_requests))", "absent(rate(http_requests[20m]))"] {
        check(&there, 50 * MIN, text, &[]);
    }
}

#[test]
fn absent_over_time_looks_at_all_of_its_range() {
    let series = load(
        MIN,
        r#"http_requests_total{path="/foo",instance="127.0.0.1",job="httpd"} 1+1x10
           http_requests_total{path="/bar",instance="127.0.0.1",job="httpd"} 1+1x10
           httpd_handshake_failures_total{instance="127.0.0.1",job="node"} 1+1x15
           httpd_log_lines_total{instance="127.0.0.1",job="node"} 1
           ssl_certificate_expiry_seconds{job="ingress"} NaN NaN NaN NaN NaN"#,
    );
    for (minute, text, want) in [
        (5, "absent_over_time(http_requests_total[5m])", None),
        (0, "absent_over_time(httpd_log_lines_total[30s])", None),
        (1, "absent_over_time(httpd_log_lines_total[30s])", Some("{} 1")),
        (16, "absent_over_time(http_requests_total[7m])", None),
        (16, "absent_over_time(http_requests_total[6m])", Some("{} 1")),
        (16, r#"absent_over_time({instance="127.0.0.1"}[5m])"#, None),
        (21, r#"absent_over_time({instance="127.0.0.1"}[5m])"#, Some(r#"{instance="127.0.0.1"} 1"#)),
        (21, r#"absent_over_time({instance="127.0.0.1"}[20m])"#, None),
        (21, r#"absent_over_time({job="grok"}[20m])"#, Some(r#"{job="grok"} 1"#)),
        (5, r#"absent_over_time({job="ingress"}[4m])"#, None),
        (10, r#"absent_over_time({job="ingress"}[4m])"#, Some(r#"{job="ingress"} 1"#)),
    ] {
        check(&series, minute * MIN, text, want.as_slice());
    }
}

#[test]
fn a_stale_marker_ends_a_series_at_once_and_five_minutes_end_it_otherwise() {
    let series = load(10 * SEC, "metric 0 1 stale 2");
    for (second, text, want) in [
        (10, "metric", Some("metric{} 1")),
        (19, "metric", Some("metric{} 1")),
        (20, "metric", None),
        (29, "metric", None),
        (30, "metric", Some("metric{} 2")),
        (329, "metric", Some("metric{} 2")),
        (330, "metric", None),
        (30, "metric[1m]", Some("metric{} 3")),
        (20, "metric[1s]", None),
        (20, "metric[10s]", None),
        (20, "metric[20s]", Some("metric{} 1")),
        (0, "metric offset -10s", Some("metric{} 1")),
        (1000, "metric @ 30", Some("metric{} 2")),
        (1000, "metric @ 40 offset 30s", Some("metric{} 1")),
        (1000, "metric offset 30s @ 40.000", Some("metric{} 1")),
        (30, "metric @ end()", Some("metric{} 2")),
    ] {
        check(&series, second * SEC, text, want.as_slice());
    }
}

#[test]
fn rates_are_extrapolated_as_in_prometheus() {
    let five = load(
        5 * MIN,
        r#"http_requests_total{path="/foo"} 0+10x10
           http_requests_total{path="/bar"} 0+18x5 0+18x4
           http_requests_total{path="/dings"} 10+10x10
           http_requests_total{path="/bumms"} 1+10x10
           testcounter_reset_middle_total 0+27x4 0+27x5
           testcounter_reset_end_total 0+10x9 0 10
           calculate_rate_window_total 0+80x10
           few 0 1 2 3 2 3 4
           delta_requests{path="/foo"} 0 50 100 150 200
           delta_requests{path="/bar"} 200 150 100 50 0"#,
    );
    let (foo, bar, dings, bumms) = (r#"{path="/foo"}"#, r#"{path="/bar"}"#, r#"{path="/dings"}"#, r#"{path="/bumms"}"#);
    let lines = |values: [i64; 4]| [bar, bumms, dings, foo].iter().zip(values).map(|(l, v)| format!("{l} {v}")).collect::<Vec<_>>();
    for (text, values) in
        [("increase(http_requests_total[50m])", [160, 100, 100, 100]), ("increase(http_requests_total[100m])", [162, 101, 105, 100])]
    {
        let want = lines(values);
        check(&five, 50 * MIN, text, &want.iter().map(String::as_str).collect::<Vec<_>>());
    }
    for (minute, text, want) in [
        (50, "rate(testcounter_reset_middle_total[50m])", vec!["{} 0.08"]),
        (50, "rate(testcounter_reset_end_total[5m])", vec![]),
        (50, "rate(testcounter_reset_end_total[6m])", vec!["{} 0"]),
        (50, "rate(calculate_rate_window_total[50m])", vec!["{} 0.26666666666666666"]),
        (50, r#"rate(http_requests_total{path="/foo"}[10m] offset 5m)"#, vec![r#"{path="/foo"} 0.03333333333333333"#]),
        (30, "increase(few[30m])", vec!["{} 7"]),
        (20, "delta(delta_requests[20m])", vec![r#"{path="/bar"} -200"#, r#"{path="/foo"} 200"#]),
        (50, r#"sum by (x) (rate(http_requests_total{path="/foo"}[10m]))"#, vec!["{} 0.03333333333333333"]),
    ] {
        // The law of these vectors: windows open at their left have one point fewer, and the extrapolation makes up for it.
        check(&five, minute * MIN, text, &want);
    }
    let four = load(
        4 * MIN,
        r#"zero{start="0m"} 0+240x10
           zero{start="1m"} 60+240x10
           zero{start="2m"} 120+240x10
           zero{start="3m"} 180+240x10
           zero{start="5m"} 300+240x10"#,
    );
    let want = |values: [&str; 5]| {
        ["0m", "1m", "2m", "3m", "5m"].iter().zip(values).map(|(s, v)| format!("{{start={s:?}}} {v}")).collect::<Vec<_>>()
    };
    for (minute, values) in [(10, ["0.5", "0.55", "0.6", "0.6", "0.6"]), (50, ["0.6"; 5])] {
        let want = want(values);
        check(&four, minute * MIN, "rate(zero[20m])", &want.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn matchers_select_as_in_prometheus() {
    let series = load(
        5 * MIN,
        r#"http_requests_total{job="api-server", instance="0", group="production"} 0+10x10
           http_requests_total{job="api-server", instance="1", group="canary"} 0+40x10
           http_requests_total{job="app-server", instance="1", group="canary"} 0+80x10
           x{y="testvalue"} 0+10x10"#,
    );
    for (text, want) in [
        (r#"x{y="testvalue"}"#, 1),
        (r#"{__name__=~".+"}"#, 4),
        (r#"{__name__=~"http.*|x"}"#, 4),
        (r#"{__name__=~"http"}"#, 0),
        (r#"{job=~".+-server", job!~"api-.+"}"#, 1),
        (r#"http_requests_total{group!="canary"}"#, 1),
        (r#"http_requests_total{foo!="bar"}"#, 3),
        (r#"http_requests_total{foo!~"bar", job="api-server"}"#, 2),
        (r#"http_requests_total{foo!~"bar", job="api-server", instance="1", x!="y", z="", group!=""}"#, 1),
        (r#"http_requests_total{group=~"(?i:PRO).*"}"#, 1),
        (r#"http_requests_total{group=~".*((?i)TION)"}"#, 1),
        (r#"http_requests_total{y=""}"#, 3),
        (r#"{y=""}"#, 0),
        (r#"{'http_requests_total',}"#, 3),
        (r#"{"http_requests_total", "job"=`api-server`}"#, 2),
        (r#"http_requests_total{job="\x61pi-server"}"#, 2),
    ] {
        if text == r#"{y=""}"# {
            assert!(Query::parse(text).is_err());
            continue;
        }
        assert_eq!(ask(&series, 50 * MIN, text).unwrap().len(), want, "{text}");
    }
}

#[test]
fn aggregations_group_by_labels_or_without_them() {
    let series =
        load(MIN, "h{job=\"a\",i=\"0\"} 1\nh{job=\"a\",i=\"1\"} NaN\nh{job=\"b\",i=\"0\"} 4\nbig{i=\"0\"} 1.7e308\nbig{i=\"1\"} 1.7e308");
    for (text, want) in [
        ("sum(h{i=\"0\"})", vec!["{} 5"]),
        ("sum by (job) (h)", vec![r#"{job="a"} NaN"#, r#"{job="b"} 4"#]),
        ("max(h) by (job)", vec![r#"{job="a"} 1"#, r#"{job="b"} 4"#]),
        ("MIN without (i) (h)", vec![r#"{job="a"} 1"#, r#"{job="b"} 4"#]),
        ("avg without (job,) (h{i=\"0\"})", vec![r#"{i="0"} 2.5"#]),
        ("count by (__name__) (h)", vec!["h{} 3"]),
        ("count by (nothing) (h)", vec!["{} 3"]),
        ("avg(big)", vec!["{} 1.7e308"]),
        ("sum(big)", vec!["{} inf"]),
        ("sum(nothing)", vec![]),
    ] {
        check(&series, 0, text, &want);
    }
    let same = load(MIN, "a{x=\"1\"} 1 2\nb{x=\"1\"} 1 2");
    assert!(matches!(ask(&same, MIN, "rate({x=\"1\"}[5m])"), Err(Refused::SameLabels(_))));
}

#[test]
fn quantiles_are_interpolated_as_in_prometheus() {
    let series = load(
        5 * MIN,
        r#"h_bucket{le="0.1", start="positive"} 0+5x10
           h_bucket{le=".2", start="positive"} 0+7x10
           h_bucket{le="1e0", start="positive"} 0+11x10
           h_bucket{le="+Inf", start="positive"} 0+12x10
           h_bucket{le="-.2", start="negative"} 0+1x10
           h_bucket{le="-0.1", start="negative"} 0+2x10
           h_bucket{le="0.3", start="negative"} 0+2x10
           h_bucket{le="+Inf", start="negative"} 0+3x10
           two_bucket{le="0"} 0+0x10
           two_bucket{le="2"} 0+1x10
           two_bucket{le="4"} 0+2x10
           two_bucket{le="6"} 0+3x10
           two_bucket{le="+Inf"} 0+3x10
           mixed_bucket{job="job1", instance="ins1", le="0.1"} 0+1x10
           mixed_bucket{job="job1", instance="ins1", le="0.2"} 0+1x10
           mixed_bucket{job="job1", instance="ins1", le="2e-1"} 0+1x10
           mixed_bucket{job="job1", instance="ins1", le="2.0e-1"} 0+1x10
           mixed_bucket{job="job1", instance="ins1", le="+Inf"} 0+4x10
           mixed_bucket{job="job1", instance="ins2", le="+inf"} 0+0x10
           mixed_bucket{job="job1", instance="ins2", le="+Inf"} 0+0x10
           open_bucket{le="0.1"} 0+1x10
           open_bucket{le="0.2"} 0+2x10
           r_bucket{job="job1", instance="ins1", le="0.1"} 0+1x10
           r_bucket{job="job1", instance="ins1", le="0.2"} 0+3x10
           r_bucket{job="job1", instance="ins1", le="+Inf"} 0+4x10
           r_bucket{job="job1", instance="ins2", le="0.1"} 0+2x10
           r_bucket{job="job1", instance="ins2", le="0.2"} 0+5x10
           r_bucket{job="job1", instance="ins2", le="+Inf"} 0+6x10
           r_bucket{job="job2", instance="ins1", le="0.1"} 0+3x10
           r_bucket{job="job2", instance="ins1", le="0.2"} 0+4x10
           r_bucket{job="job2", instance="ins1", le="+Inf"} 0+6x10
           r_bucket{job="job2", instance="ins2", le="0.1"} 0+4x10
           r_bucket{job="job2", instance="ins2", le="0.2"} 0+7x10
           r_bucket{job="job2", instance="ins2", le="+Inf"} 0+9x10"#,
    );
    for (quantile, negative, positive) in [
        ("-0.1", "-inf", "-inf"),
        ("1.01", "inf", "inf"),
        ("NaN", "NaN", "NaN"),
        ("0", "-0.2", "0"),
        ("1", "0.3", "1"),
        ("0.2", "-0.2", "0.048"),
        ("0.5", "-0.15", "0.15"),
        ("0.8", "0.3", "0.72"),
    ] {
        let want = [format!("{{start=\"negative\"}} {negative}"), format!("{{start=\"positive\"}} {positive}")];
        let want: Vec<&str> = want.iter().map(String::as_str).collect();
        check(&series, 50 * MIN, &format!("histogram_quantile({quantile}, h_bucket)"), &want);
        check(&series, 50 * MIN, &format!("histogram_quantile({quantile}, rate(h_bucket[10m]))"), &want);
    }
    for (minute, text, want) in [
        (7, "histogram_quantile(0.5, two_bucket)", vec!["{} 3"]),
        (47, "histogram_quantile(0.5, rate(two_bucket[15m]))", vec!["{} 3"]),
        (50, "histogram_quantile(0.5, open_bucket)", vec!["{} NaN"]),
        (50, "histogram_quantile(0.75, mixed_bucket)", vec![r#"{instance="ins1",job="job1"} 0.2"#, r#"{instance="ins2",job="job1"} NaN"#]),
        (50, "histogram_quantile(0.3, sum(rate(r_bucket[10m])) by (le))", vec!["{} 0.075"]),
        (50, "histogram_quantile(0.5, avg(rate(r_bucket[10m])) by (le))", vec!["{} 0.12777777777777778"]),
        (
            50,
            "histogram_quantile(0.5, sum by (le, instance) (rate(r_bucket[10m])))",
            vec![r#"{instance="ins1"} 0.13333333333333333"#, r#"{instance="ins2"} 0.125"#],
        ),
        (
            50,
            "histogram_quantile(0.3, sum by (le, job) (rate(r_bucket[10m])))",
            vec![r#"{job="job1"} 0.1"#, r#"{job="job2"} 0.0642857142857143"#],
        ),
    ] {
        check(&series, minute * MIN, text, &want);
    }
}

#[test]
fn a_range_is_answered_step_by_step() {
    let series = load(10 * SEC, "metric 0 1 stale 3");
    let rows = |text: &str| range(&Query::parse(text).unwrap(), &series, UnixNanos(0), UnixNanos(30 * SEC), 10 * SEC, LOOKBACK);
    let values =
        |text: &str| rows(text).unwrap().iter().map(|row| row.points.iter().map(|point| point.value).collect()).collect::<Vec<Vec<f64>>>();
    assert_eq!(values("metric"), [vec![0.0, 1.0, 3.0]]);
    assert_eq!(values("absent(metric)"), [vec![1.0]]);
    assert_eq!(values("metric @ start()"), [vec![0.0; 4]]);
    assert_eq!(values("metric @ end()"), [vec![3.0; 4]]);
    assert_eq!(rows("metric[1m]"), Err(Refused::RangeOverTime));
    let query = Query::parse("metric").unwrap();
    assert!(matches!(range(&query, &[], UnixNanos(i64::MIN), UnixNanos(i64::MAX), 1, LOOKBACK), Err(Refused::Steps(_))));
    assert_eq!(range(&query, &[], UnixNanos(0), UnixNanos(1), 0, LOOKBACK), Err(Refused::NoStep));
}

#[test]
fn the_window_to_read_has_range_offset_and_look_back() {
    for (text, want) in [
        ("x", (700, 1000)),
        ("x[1m]", (940, 1000)),
        ("rate(x[1m] offset 1m)", (880, 940)),
        ("x @ 10", (-290, 10)),
        ("x offset -1m", (760, 1060)),
    ] {
        let at = UnixNanos(1000 * SEC);
        let window = Query::parse(text).unwrap().window(at, at, LOOKBACK);
        assert_eq!((window.0.0 / SEC, window.1.0 / SEC), want, "{text}");
    }
}

#[test]
fn durations_are_those_of_prometheus() {
    let range_of = |text: &str| match Query::parse(&format!("x[{text}]")).ok()?.expr {
        Expr::Select(selector) => selector.range.map(|nanos| nanos / 1_000_000),
        _ => None,
    };
    for (text, want) in [
        ("5m", Some(300_000)),
        (" 5m ", Some(300_000)),
        ("5h", Some(18_000_000)),
        ("5d", Some(432_000_000)),
        ("5w", Some(3_024_000_000)),
        ("5y", Some(157_680_000_000)),
        ("1001ms", Some(1001)),
        ("5m30s", Some(330_000)),
        ("600", Some(600_000)),
        ("3.3333", Some(3333)),
        ("5mm", None),
        ("5m1", None),
        ("5m1h", None),
        ("5m1m", None),
        ("0m", None),
        ("0s", None),
        ("-1", None),
        ("", None),
        ("\"5m\"", None),
        ("5m:1m", None),
        ("400y", None),
        ("99999999999999999999m", None),
    ] {
        assert_eq!(range_of(text), want, "{text}");
    }
}

#[test]
fn a_mistake_is_shown_at_its_place_with_a_way_out() {
    for (text, place, help) in [
        ("rat(x[5m])", "1:1: no function is called `rat`", "did you mean `rate`?"),
        ("summ(x)", "1:1: no function is called `summ`", "did you mean `sum`?"),
        ("x{a==\"b\"}", "1:4: `==` compares", "did you mean `=`?"),
        ("x{a~\"b\"}", "1:4: `~` compares", "did you mean `=~`?"),
        ("x{a=b}", "1:5: found `b`, expected the value in quotes", "did you mean a=\"b\"?"),
        ("x{a.b=\"c\"}", "1:4: found `.`", "write a"),
        ("x{gibberish}", "1:12: found `}`, expected =", "write gibberish="),
        ("x{1}", "1:3: found `1`", "letters"),
        ("{}", "1:1: this selects every series", "say what"),
        ("{x=\"\"}", "1:1: this selects every", "say what"),
        ("{x=~\".*\"}", "1:1: this selects every", "say what"),
        ("{x!~\".+\"}", "1:1: this selects every", "say what"),
        ("{x!=\"a\"}", "1:1: this selects every", "say what"),
        ("foo{__name__=\"bar\"}", "1:5: the name of the metric is given twice", "not both"),
        ("foo{\"bar\"}", "1:5: the name of the metric is given twice", "not both"),
        ("{\"foo\",\"bar\"}", "1:8: the name of the metric is given twice", "not both"),
        ("x{a=~\"(\"}", "1:6: the regex cannot be read", "RE2"),
        ("x{a=\"b", "1:5: this quote is not closed", "\""),
        ("x{a=\"b\n\"}", "1:5: this quote is not closed", "\""),
        ("x{a=\"\\.\"}", "1:6: `\\.` is no escape", "backquotes"),
        ("x{a=\"\\xff\"}", "1:5: the escapes of this text make no UTF-8", ""),
        ("x[5m", "1:5: found the end, expected `]`", "[5m]"),
        ("x[5min]", "1:3: `5min` is no duration", "5m"),
        ("x offset 1h [5m]", "1:13: a range comes before", "x[5m] offset 1h"),
        ("x offset 1h offset 2h", "1:13: `offset` stands here twice", ""),
        ("x @ 1 @ 2", "1:7: `@` stands here twice", ""),
        ("x[5m][5m]", "1:6: a second range", ""),
        ("x ofset 5m", "1:3: found `ofset`", "did you mean `offset`?"),
        ("rate(x)", "1:6: rate takes a range", "rate(x[5m])"),
        ("sum(x[5m])", "1:5: an aggregation takes one value", "take the range"),
        ("rate(x[5m]) offset 5m", "1:13: ranges, `offset` and `@` are of selectors", ""),
        ("sum(x", "1:6: found the end, expected `)`", ""),
        ("x + y", "1:3: operators", ""),
        ("x and y", "1:3: operators", ""),
        ("x > 1", "1:3: operators", ""),
        ("", "1:1: the query is empty", ""),
        ("# only\n", "1:1: the query is empty", ""),
        ("# é\n  é", "2:3: found `é`, expected a selector", ""),
        ("histogram_quantile(x, y)", "1:20: found `x`, expected a number", ""),
        ("x @ 1e300", "1:5: no such time", ""),
        (&"(".repeat(1000), "1:34: more than 32 brackets", ""),
        (&"x".repeat(TEXT_BYTES_MAX + 1), "1:1: the query has", ""),
    ] {
        let shown = match Query::parse(text) {
            Err(mistake) => mistake.show(text),
            Ok(query) => panic!("{text} is {query:?}"),
        };
        assert!(shown.starts_with(&format!("error: query:{place}")), "{text}\n{shown}");
        assert!(shown.split("\n  help: ").nth(1).unwrap().contains(help), "{text}\n{shown}");
    }
    let text = "sum by (job) (rat(x{a=\"b\"}[5m]))";
    let picture = "error: query:1:15: no function is called `rat`\n  sum by (job) (rat(x{a=\"b\"}[5m]))\n                ^^^\n  help: did you mean `rate`?";
    assert_eq!(Query::parse(text).unwrap_err().show(text), picture);
    assert!(Selector::parse("x[5m]").is_err() && Selector::parse("sum(x)").is_err() && Selector::parse("x{a=\"b\"}").is_ok());
}

#[test]
fn a_record_is_selected_by_its_labels_and_by_what_steps_added() {
    let part = br#"{"metric":"up","type":"gauge","labels":{"job":"x","empty":""},"tenant":"a","job":"other","shard":3,"resource":{"a":"b"},"monotonic":true"#;
    let series = Series::of(&crate::sample::Series::parse(part).unwrap());
    let shown: Vec<String> = series.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(shown, ["__name__=up", "job=x", "shard=3", "tenant=a"]);
    assert!(select(&Selector::parse("up{tenant=\"a\",empty=\"\"}").unwrap().matchers, &series.labels));
}

#[test]
fn words_of_the_language_are_names_where_nothing_follows() {
    for text in [
        "sum",
        "rate",
        "offset{by=\"a\",on=\"b\",sum=\"c\"}",
        "a:b:c",
        "_x{_y=\"\"}",
        " x # end",
        "(((x)))",
        "sum by () (x)",
        "x{a='\"',b=`\\d`,}",
    ] {
        assert!(Query::parse(text).is_ok(), "{text}: {}", Query::parse(text).unwrap_err().show(text));
    }
}

proptest! {
    #[test]
    fn no_text_is_a_panic(any: String, near in "[a-c{}()\\[\\]=~!\"'`\\\\,.0-9mshoffset@:# \né-]{0,30}", tail in "(sum|rate|absent|histogram_quantile|x)[({]?[x\"5m\\[\\])@=,]{0,12}") {
        for text in [any, near, tail] {
            match Query::parse(&text) {
                Ok(query) => {
                    let _ = instant(&query, &load(MIN, "x 1 2 3"), UnixNanos(MIN), LOOKBACK);
                }
                Err(mistake) => prop_assert!(!mistake.show(&text).is_empty()),
            }
        }
    }

    /// Law: exactly one of `v` and `absent(v)` has elements, at any moment.
    #[test]
    fn a_vector_or_its_absence_is_there(values in prop::collection::vec(prop_oneof![Just(None), Just(Some(f64::from_bits(crate::sample::STALE))), any::<f64>().prop_map(Some)], 0..12), at in -10i64..900) {
        let points = values.iter().enumerate().filter_map(|(n, value)| Some(Point { at: UnixNanos(n as i64 * 40 * SEC), value: (*value)? })).collect();
        let series = [Series { labels: vec![(NAME.into(), "x".into())], points }];
        for (there, gone) in [("x", "absent(x)"), ("sum(x)", "absent(sum(x))"), ("x[2m]", "absent_over_time(x[2m])")] {
            let (there, gone) = (ask(&series, at * SEC, there).unwrap(), ask(&series, at * SEC, gone).unwrap());
            prop_assert_eq!(there.is_empty(), !gone.is_empty());
        }
    }
}
