//! Tests of reading: Prometheus' own cases as tables, staleness and limits scrape by scrape, and bodies that are cut or hostile.
//!
//! Cases named so come from prometheus/prometheus: model/textparse/{promparse,openmetricsparse,protobufparse}_test.go, scrape/scrape_test.go.

use super::*;
use crate::histogram::Histogram;
use crate::relabel::{Action, Rule, Spec};
use crate::sample::Series;
use crate::wire;
use flow::units::UnixNanos;
use proptest::prelude::*;
use serde_json::value::Value as Json;

const AT: UnixNanos = UnixNanos(1_800_000_000_000_000_000);

/// A sample as short text: `name{a="b"} value @time #type`, the time only where it is not the scrape's.
fn show(line: &[u8]) -> String {
    let json: Json = serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
    assert!(line.ends_with(b"}\n"));
    let end = memchr::memmem::find(line, b",\"timestamp\":\"").expect("a time");
    let series = Series::parse(&line[..end]).expect("a series part");
    let mut text = series.metric.clone();
    if !series.labels.is_empty() {
        let labels: Vec<String> = series.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        text += &format!("{{{}}}", labels.join(","));
    }
    for member in ["value", "histogram"] {
        if let Some(value) = json.get(member) {
            text += &format!(" {value}");
        }
    }
    let at = json["timestamp"].as_str().expect("a time");
    if at != AT.rfc3339() {
        text += &format!(" @{at}");
    }
    if series.kind != crate::sample::Type::Unknown {
        text += &format!(" #{}", series.kind.name());
    }
    if !series.unit.is_empty() {
        text += &format!(" in {}", series.unit);
    }
    for member in ["start", "exemplars"] {
        if let Some(value) = json.get(member) {
            text += &format!(" {member}={value}");
        }
    }
    text
}

fn shown(out: &[u8]) -> Vec<String> {
    out.split_inclusive(|byte| *byte == b'\n').map(show).collect()
}

fn scrape(target: Target, format: Format, body: &[u8]) -> Result<Vec<String>, ScrapeError> {
    let mut out = Vec::new();
    Scraper::new(target).scrape(format, body, AT, &mut out)?;
    Ok(shown(&out))
}

#[track_caller]
fn check(format: Format, body: impl AsRef<[u8]>, want: &[&str]) {
    let got = scrape(Target::default(), format, body.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(got, want);
}

#[track_caller]
fn check_fails(format: Format, body: impl AsRef<[u8]>, reason: Reason) {
    let body = body.as_ref();
    match scrape(Target::default(), format, body) {
        Err(error) => assert_eq!(error.reason, reason, "{:?}: {error}", String::from_utf8_lossy(body)),
        Ok(got) => panic!("{:?} was read as {got:?}", String::from_utf8_lossy(body)),
    }
}

#[test]
fn text_is_read_as_prometheus_reads_it() {
    let body = concat!(
        "# HELP go_gc_duration_seconds A summary of the GC invocation durations.\n",
        "# \tTYPE go_gc_duration_seconds summary\n",
        "go_gc_duration_seconds{quantile=\"0\"} 4.9351e-05\n",
        "go_gc_duration_seconds{quantile=\"0.25\",} 7.424100000000001e-05\n",
        "go_gc_duration_seconds{quantile=\"0.5\",a=\"b\"} 8.3835e-05\n",
        "go_gc_duration_seconds{quantile=\"0.8\", a=\"b\"} 8.3835e-05\n",
        "go_gc_duration_seconds{ quantile=\"0.9\", a=\"b\"} 8.3835e-05\n",
        "# Hrandom comment starting with prefix of HELP\n",
        "#\n",
        "wind_speed{A=\"2\",c=\"3\"} 12345\n",
        "# comment with escaped \\n newline\n",
        "# comment with escaped \\ escape character\n",
        "# HELP nohelp1\n",
        "# HELP nohelp2 \n",
        "go_gc_duration_seconds{ quantile=\"1.0\", a=\"b\" } 8.3835e-05\n",
        "go_gc_duration_seconds { quantile=\"1.0\", a=\"c\" } 8.3835e-05\n",
        "go_gc_duration_seconds { quantile= \"1.0\", a= \"d\", } 8.3835e-05\n",
        "go_gc_duration_seconds { quantile = \"1.0\", a = \"e\" } 8.3835e-05\n",
        "go_gc_duration_seconds { quantile = \"2.0\" a = \"b\" } 8.3835e-05\n",
        "go_gc_duration_seconds_count 99\n",
        "some:aggregate:rate5m{a_b=\"c\"}\t1\n",
        "# HELP go_goroutines Number of goroutines that currently exist.\n",
        "# TYPE go_goroutines gauge\n",
        "go_goroutines 33  \t123123\n",
        "_metric_starting_with_underscore 1\n",
        "testmetric{_label_starting_with_underscore=\"foo\"} 1\n",
        "testmetric{label=\"\\\"bar\\\"\"} 1\n",
        "# HELP metric foo\x00bar\n",
        "null_byte_metric{a=\"abc\x00\"} 1",
    );
    check(
        Format::Text,
        body,
        &[
            "go_gc_duration_seconds{quantile=\"0.0\"} 0.000049351 #summary",
            "go_gc_duration_seconds{quantile=\"0.25\"} 0.00007424100000000001 #summary",
            "go_gc_duration_seconds{a=\"b\",quantile=\"0.5\"} 0.000083835 #summary",
            "go_gc_duration_seconds{a=\"b\",quantile=\"0.8\"} 0.000083835 #summary",
            "go_gc_duration_seconds{a=\"b\",quantile=\"0.9\"} 0.000083835 #summary",
            "wind_speed{A=\"2\",c=\"3\"} 12345.0",
            "go_gc_duration_seconds{a=\"b\",quantile=\"1.0\"} 0.000083835 #summary",
            "go_gc_duration_seconds{a=\"c\",quantile=\"1.0\"} 0.000083835 #summary",
            "go_gc_duration_seconds{a=\"d\",quantile=\"1.0\"} 0.000083835 #summary",
            "go_gc_duration_seconds{a=\"e\",quantile=\"1.0\"} 0.000083835 #summary",
            "go_gc_duration_seconds{a=\"b\",quantile=\"2.0\"} 0.000083835 #summary",
            "go_gc_duration_seconds_count 99.0 #summary",
            "some:aggregate:rate5m{a_b=\"c\"} 1.0",
            "go_goroutines 33.0 @1970-01-01T00:02:03.123Z #gauge",
            "_metric_starting_with_underscore 1.0",
            "testmetric{_label_starting_with_underscore=\"foo\"} 1.0",
            "testmetric{label=\"\\\"bar\\\"\"} 1.0",
            "null_byte_metric{a=\"abc\\0\"} 1.0",
        ],
    );
}

#[test]
fn quoted_names_are_utf8() {
    let body = concat!(
        "# HELP \"go.gc_duration_seconds\" A summary of the GC invocation durations.\n",
        "# \tTYPE \"go.gc_duration_seconds\" summary\n",
        "{\"go.gc_duration_seconds\",quantile=\"0\"} 4.9351e-05\n",
        "{\"go.gc_duration_seconds\",quantile=\"0.25\",} 7.5e-05\n",
        "{ \"go.gc_duration_seconds\", quantile = \"1.0\", a = \"b\" } 8.3835e-05\n",
        "{\"go.gc_duration_seconds_count\"} 99\n",
        "{a=\"b\",\"in.the.middle\",c=\"d\"} 1\n",
        "{\"Heizölrückstoßabdämpfung 10€ metric with \\\"interesting\\\" {character\\nchoices}\",\"strange©™\\n'quoted' \\\"name\\\"\"=\"6\"} 10.0",
    );
    check(
        Format::Text,
        body,
        &[
            "go.gc_duration_seconds{quantile=\"0.0\"} 0.000049351 #summary",
            "go.gc_duration_seconds{quantile=\"0.25\"} 0.000075 #summary",
            "go.gc_duration_seconds{a=\"b\",quantile=\"1.0\"} 0.000083835 #summary",
            "go.gc_duration_seconds_count 99.0 #summary",
            "in.the.middle{a=\"b\",c=\"d\"} 1.0",
            "Heizölrückstoßabdämpfung 10€ metric with \"interesting\" {character\nchoices}{strange©™\n'quoted' \"name\"=\"6\"} 10.0",
        ],
    );
}

#[test]
fn malformed_text_fails_as_in_prometheus() {
    for body in [
        "a",
        "a\n",
        "a{b='c'} 1\n",
        "a{b=\n",
        "a{\u{ff}=\"foo\"} 1\n",
        "{\"a\", \"b = \"c\"}",
        "{\"a\",b\\nc=\"d\"} 1",
        "a true\n",
        "something_weird{problem=\"",
        "empty_label_name{=\"\"} 0",
        "foo 1_2\n",
        "foo 0x1p-3\n",
        "foo 0x1P-3\n",
        "foo 0 1_2\n",
        "foo 0 -1\n",
        "foo 0 1.5\n",
        "foo 0 99999999999999999999\n",
        "{a=\"ok\"} 1",
        "{} 1",
        "{\"a\",\"b\"} 1",
        "a{\"b\"} 1",
        "# TYPE #\n#EOF\n",
        "# HELP #\n#EOF\n",
        "# TYPE a meh\n",
        "# TYPE a\n",
        "# TYPE a gauge \n",
        "# TYPE a  gauge\n",
        "# TYPE a info\n",
        "a{b=\x00\"ssss\"} 1\n",
        "a{b=\"\x00",
        "a{b\x00=\"hiih\"}\t1",
        "a\x00{b=\"ddd\"} 1",
        "a 0 1\x00",
        "a 1\r\n",
        "9metric 1\n",
        "a{,b=\"c\"} 1",
        "a{b=\"c\",,d=\"e\"} 1",
        "a 1e999",
    ] {
        check_fails(Format::Text, body, Reason::Malformed);
    }
    check_fails(Format::Text, b"a{b=\"\xff\"} 1\n", Reason::InvalidUtf8);
    check_fails(Format::Text, b"# HELP a \xff\n", Reason::InvalidUtf8);
    check_fails(Format::Text, "<html><body>404</body></html>", Reason::Html);
    check_fails(Format::Text, "a{b=\"1\",b=\"2\"} 1", Reason::DuplicateLabel);
    check_fails(Format::Text, "{\"\",a=\"b\"} 1", Reason::NoName);
    check(Format::Text, b"# a comment \xff\n \t\n\n  a 1\n#TYPE a b\n# TYPE\n", &["a 1.0"]);
    check(Format::Text, "", &[]);
}

#[test]
fn the_line_of_an_error_is_said() {
    let error = scrape(Target::default(), Format::Text, b"a 1\n# HELP a x\nb{ 2\n").expect_err("it is malformed");
    assert_eq!((error.line, error.to_string().starts_with("line 3: expected a label's name")), (3, true), "{error}");
    assert!(error.to_string().ends_with("in \"b{ 2\""), "{error}");
}

#[test]
fn types_go_to_the_series_of_their_family_only() {
    let body = concat!(
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\nh_other 1\n",
        "# TYPE c_total counter\nc_total 1\nc 2\nctotal 3\n# TYPE u untyped\nu 1\n",
    );
    let want = [
        "h_bucket{le=\"1.0\"} 1.0 #histogram",
        "h_bucket{le=\"+Inf\"} 2.0 #histogram",
        "h_sum 3.0 #histogram",
        "h_count 2.0 #histogram",
        "h_other 1.0",
        "c_total 1.0 #counter",
        "c 2.0 #counter",
        "ctotal 3.0",
        "u 1.0",
    ];
    check(Format::Text, body, &want);
    // A type that changes is seen, though the series are known.
    let mut scraper = Scraper::new(Target::default());
    let mut out = Vec::new();
    for kind in ["gauge", "counter", "gauge"] {
        out.clear();
        let scraped = scraper.scrape(Format::Text, format!("# TYPE a {kind}\na 1\n").as_bytes(), AT, &mut out).expect("good");
        assert_eq!((shown(&out), scraped.stale), (vec![format!("a 1.0 #{kind}")], 0));
    }
}

const OPENMETRICS: &str = r##"# HELP go_gc_duration_seconds A summary of the GC invocation durations.
# TYPE go_gc_duration_seconds summary
# UNIT go_gc_duration_seconds seconds
go_gc_duration_seconds{quantile="0"} 4.9351e-05
go_gc_duration_seconds{quantile="0.5",a="b"} 8.3835e-05
# HELP nohelp1 
# HELP help2 escape \ \n \\ \" \x chars
# UNIT nounit 
go_gc_duration_seconds_count 99
some:aggregate:rate5m{a_b="c"} 1
# HELP go_goroutines Number of goroutines that currently exist.
# TYPE go_goroutines gauge
go_goroutines 33 123.123
# TYPE gh gaugehistogram
gh_bucket{le="+Inf"} 1
# TYPE hhh histogram
hhh_bucket{le="+Inf"} 1 # {id="histogram-bucket-test"} 4
hhh_count 1 # {id="histogram-count-test"} 4
# TYPE ggh gaugehistogram
ggh_bucket{le="+Inf"} 1 # {id="gaugehistogram-bucket-test",xx="yy"} 4 123.123
# TYPE ii info
ii{foo="bar"} 1
# TYPE ss stateset
ss{ss="foo"} 1
ss{A="a"} 0
# TYPE un unknown
testmetric{label="\"bar\""} 1
# TYPE foo counter
foo_total 17.0 1520879607.789 # {id="counter-test"} 5
foo_created 1520872607.123
foo_total{a="b"} 17.0 1520879607.789 # {id="counter-test"} 5
foo_created{a="b"} 1520872607.123
# TYPE bar summary
bar_count 17.0
bar{quantile="0.95"} 123.7
bar_created 1520872608.124
null_byte_metric{a="abc"} 1
# EOF
"##;

#[test]
fn openmetrics_is_read_as_prometheus_reads_it() {
    let start = "start=\"2018-03-12T16:36:47.123Z\"";
    let exemplar = "exemplars=[{\"labels\":{\"id\":\"counter-test\"},\"value\":5.0}]";
    let foo = format!("foo_total 17.0 @2018-03-12T18:33:27.789Z #counter {start} {exemplar}");
    let foo_ab = format!("foo_total{{a=\"b\"}} 17.0 @2018-03-12T18:33:27.789Z #counter {start} {exemplar}");
    check(
        Format::OpenMetrics,
        OPENMETRICS,
        &[
            "go_gc_duration_seconds{quantile=\"0.0\"} 0.000049351 #summary in seconds",
            "go_gc_duration_seconds{a=\"b\",quantile=\"0.5\"} 0.000083835 #summary in seconds",
            "go_gc_duration_seconds_count 99.0",
            "some:aggregate:rate5m{a_b=\"c\"} 1.0",
            "go_goroutines 33.0 @1970-01-01T00:02:03.123Z #gauge",
            "gh_bucket{le=\"+Inf\"} 1.0 #gaugehistogram",
            "hhh_bucket{le=\"+Inf\"} 1.0 #histogram exemplars=[{\"labels\":{\"id\":\"histogram-bucket-test\"},\"value\":4.0}]",
            "hhh_count 1.0 #histogram exemplars=[{\"labels\":{\"id\":\"histogram-count-test\"},\"value\":4.0}]",
            "ggh_bucket{le=\"+Inf\"} 1.0 #gaugehistogram exemplars=[{\"labels\":{\"id\":\"gaugehistogram-bucket-test\",\"xx\":\"yy\"},\
             \"timestamp\":\"1970-01-01T00:02:03.123Z\",\"value\":4.0}]",
            "ii{foo=\"bar\"} 1.0 #info",
            "ss{ss=\"foo\"} 1.0 #stateset",
            "ss{A=\"a\"} 0.0 #stateset",
            "testmetric{label=\"\\\"bar\\\"\"} 1.0",
            foo.as_str(),
            "foo_created 1520872607.123 #counter",
            foo_ab.as_str(),
            "foo_created{a=\"b\"} 1520872607.123 #counter",
            "bar_count 17.0 #summary start=\"2018-03-12T16:36:48.124Z\"",
            "bar{quantile=\"0.95\"} 123.7 #summary start=\"2018-03-12T16:36:48.124Z\"",
            "bar_created 1520872608.124 #summary",
            "null_byte_metric{a=\"abc\"} 1.0",
        ],
    );
    let only_start = Target { created: Created::Start, ..Target::default() };
    let got = scrape(only_start, Format::OpenMetrics, OPENMETRICS.as_bytes()).expect("good");
    assert!(got.contains(&foo) && !got.iter().any(|line| line.contains("_created")), "{got:?}");
    let only_series = Target { created: Created::Series, ..Target::default() };
    let got = scrape(only_series, Format::OpenMetrics, OPENMETRICS.as_bytes()).expect("good");
    assert!(!got.iter().any(|line| line.contains("start=")), "{got:?}");
}

#[test]
fn malformed_openmetrics_fails_as_in_prometheus() {
    for body in [
        "\n\n\n\n\n\n\n",
        "a\n",
        "\n# EOF\n",
        "# EOF\na 1",
        "# EOF\n# EOF\n",
        "# EOF1\n",
        "\n\n#EOF\n",
        "9\n",
        "# TYPE u untyped\n# EOF\n",
        "# TYPE c counter\n#EOF\n",
        "# TYPE \n#EOF\n",
        "# TYPE m\n#EOF\n",
        "# UNIT metric suffix\n# EOF\n",
        "# UNIT metricsuffix suffix\n# EOF\n",
        "# UNIT m suffix\n# EOF\n",
        "# UNIT \n#EOF\n",
        "# UNIT m\n#EOF\n",
        "# HELP \n#EOF\n",
        "# HELP m\n#EOF\n",
        "a\t1\n",
        "a 1\t2\n",
        "a 1 2 \n",
        "a 1 2 #\n",
        "a 1 1z\n",
        " # EOF\n",
        "# EOF foo\n",
        "a{b='c'} 1\n",
        "a{,b=\"c\"} 1\n# EOF\n",
        "a{b=\"c\"d=\"e\"} 1\n# EOF\n",
        "a{b=\"c\",,d=\"e\"} 1\n# EOF\n",
        "a{b=\n# EOF\n",
        "a{\u{ff}=\"foo\"} 1\n# EOF\n",
        "{\"a\",\"b = \"c\"}\n# EOF\n",
        "{\"a\",b\\nc=\"d\"} 1\n# EOF\n",
        "a true\n",
        "something_weird{problem=\"\n# EOF\n",
        "empty_label_name{=\"\"} 0\n# EOF\n",
        "foo 1_2\n\n# EOF\n",
        "foo 0x1p-3\n\n# EOF\n",
        "foo 0x1P-3\n\n# EOF\n",
        "foo 0 1_2\n\n# EOF\n",
        "custom_metric_total 1 # {aa=bb}\n# EOF\n",
        "custom_metric_total 1 # {aa=\"bb\"}\n# EOF\n",
        "custom_metric_total 1 # {aa=\"bb\"}",
        "custom_metric_total 1 # {bb}",
        "custom_metric_total 1 # {bb, a=\"dd\"}",
        "custom_metric_total 1 # {aa=\"bb\",,cc=\"dd\"} 1",
        "custom_metric_total 1 # {aa=\"bb\"} 1_2",
        "custom_metric_total 1 # {aa=\"bb\"} 0x1p-3",
        "custom_metric_total 1 # {aa=\"bb\"} true",
        "custom_metric_total 1 # {aa=\"bb\",cc=}",
        "custom_metric_total 1 # {aa=\\\"\\xff\\\"} 9.0",
        "{b=\"c\",} 1",
        "a 1 NaN",
        "a 1 -Inf",
        "a 1 Inf",
        "# TYPE hhh histogram\nhhh_bucket{le=\"+Inf\"} 1 # {aa=\"bb\"} 4 NaN",
        "# TYPE hhh histogram\nhhh_bucket{le=\"+Inf\"} 1 # {aa=\"bb\"} 4 -Inf",
        "a{b=\x00\"ssss\"} 1\n# EOF\n",
        "a{b\x00=\"hiih\"}\t1",
        "a\x00{b=\"ddd\"} 1",
        "#",
        "# H",
        "custom_metric_total 1 # {b=\x00\"ssss\"} 1\n",
    ] {
        match scrape(Target::default(), Format::OpenMetrics, body.as_bytes()) {
            Err(error) => assert!(matches!(error.reason, Reason::Malformed | Reason::NoEof), "{body:?}: {error}"),
            Ok(got) => panic!("{body:?} was read as {got:?}"),
        }
    }
    for body in ["a 1\n", "a 1", "a 1 1520879607.789", "# TYPE a gauge\n", "a 1 # {} 2"] {
        check_fails(Format::OpenMetrics, body, Reason::NoEof);
    }
    check_fails(Format::OpenMetrics, b"a{b=\"\xff\"} 1\n# EOF\n", Reason::InvalidUtf8);
    check(Format::OpenMetrics, "a{b=\"\x00ss\"} 1\n# EOF", &["a{b=\"\\0ss\"} 1.0"]);
}

#[test]
fn the_text_of_openmetrics_is_held_to_only_if_that_is_wanted() {
    for body in ["a 1\nb 1\na 2\n# EOF\n", "# TYPE c counter\nc 1\n# EOF\n", "# TYPE c counter\nc_total -1\n# EOF\n"] {
        assert!(scrape(Target::default(), Format::OpenMetrics, body.as_bytes()).is_ok());
        let strict = Target { strict: true, ..Target::default() };
        let error = scrape(strict, Format::OpenMetrics, body.as_bytes()).expect_err(body);
        assert_eq!(error.reason, Reason::NotStrict);
    }
}

#[test]
fn an_exemplar_that_is_too_long_is_left_out() {
    for (len, kept) in [(126, 1), (127, 0)] {
        let body = format!("a_total 1 # {{id=\"{}\"}} 1\n# EOF\n", "\u{e9}".repeat(len));
        let mut out = Vec::new();
        let scraped = Scraper::new(Target::default()).scrape(Format::OpenMetrics, body.as_bytes(), AT, &mut out).expect("good");
        assert_eq!((scraped.exemplars, scraped.exemplars_dropped), (kept, 1 - kept));
        serde_json::from_slice::<Json>(&out).expect("JSON");
    }
}

fn rule(action: Action, source: &str, regex: &str, target: &str, replacement: &str) -> Rule {
    let spec = Spec {
        source_labels: source.split_terminator(',').map(String::from).collect(),
        regex: Some(regex.into()),
        target_label: target.into(),
        replacement: (!replacement.is_empty()).then(|| replacement.into()),
        action,
        ..Spec::default()
    };
    Rule::new(&spec).expect("a rule")
}

/// scrape_test.go, TestScrapeLoopAppend and TestScrapeLoopAppendForConflictingPrefixedLabels.
#[test]
fn labels_of_the_target_are_merged_as_in_prometheus() {
    for (honor, body, target, want) in [
        (false, "metric{n=\"1\"} 1", "n=2", "metric{exported_n=\"1\",n=\"2\"} 1.0"),
        (true, "metric{n=\"1\"} 1", "n=2", "metric{n=\"1\"} 1.0"),
        (false, "metric{n=\"\"} 1", "", "metric 1.0"),
        (true, "metric{n=\"\"} 1", "n=2", "metric 1.0"),
        (false, "metric{n=\"\"} 1", "n=2", "metric{n=\"2\"} 1.0"),
        (false, "metric{foo=\"1\",exported_foo=\"2\"} 1", "foo=3", "metric{exported_exported_foo=\"1\",exported_foo=\"2\",foo=\"3\"} 1.0"),
        (
            false,
            "metric{foo=\"1\",exported_foo=\"2\",exported_exported_foo=\"3\"} 1",
            "exported_foo=4",
            "metric{exported_exported_exported_foo=\"2\",exported_exported_foo=\"3\",exported_foo=\"4\",foo=\"1\"} 1.0",
        ),
        (
            false,
            "metric{foo=\"1\",exported_foo=\"2\"} 1",
            "exported_foo=4|foo=3",
            "metric{exported_exported_exported_foo=\"2\",exported_exported_foo=\"1\",exported_foo=\"4\",foo=\"3\"} 1.0",
        ),
    ] {
        let labels = target.split_terminator('|').map(|pair| pair.split_once('=').expect("a=b")).map(|(a, b)| (a.into(), b.into()));
        let target = Target { labels: labels.collect(), honor_labels: honor, ..Target::default() };
        assert_eq!(scrape(target, Format::Text, body.as_bytes()).expect("good"), [want], "{body}");
    }
}

#[test]
fn metrics_are_relabelled_once_and_dropped_ones_are_not_counted_as_kept() {
    let target = Target {
        metric_relabel: vec![
            rule(Action::Drop, "__name__", "go_.*", "", ""),
            rule(Action::Replace, "__name__", "old_(.*)", "__name__", "new_$1"),
        ],
        ..Target::default()
    };
    let mut scraper = Scraper::new(target);
    for added in [1, 0] {
        let mut out = Vec::new();
        let scraped = scraper.scrape(Format::Text, b"# TYPE old_x counter\nold_x 1\ngo_y 2\ngo_z 3\n", AT, &mut out).expect("good");
        assert_eq!(shown(&out), ["new_x 1.0 #counter"]);
        assert_eq!((scraped.samples, scraped.post_relabel, scraped.series_added), (3, 1, added));
    }
    let nameless = Target { metric_relabel: vec![rule(Action::LabelDrop, "", "__name__", "", "")], ..Target::default() };
    assert_eq!(scrape(nameless, Format::Text, b"a{b=\"c\"} 1").expect_err("no name").reason, Reason::NoName);
}

fn step(scraper: &mut Scraper, seconds: i64, body: &str) -> (Result<Scraped, ScrapeError>, Vec<String>) {
    let mut out = Vec::new();
    let result = scraper.scrape(Format::Text, body.as_bytes(), UnixNanos(AT.0 + seconds * 1_000_000_000), &mut out);
    (result, shown(&out).into_iter().map(|line| line.split(" @").next().unwrap_or("").to_string()).collect())
}

#[test]
fn a_series_that_ends_gets_one_stale_marker() {
    let mut scraper = Scraper::new(Target::default());
    assert_eq!(step(&mut scraper, 0, "a 1\nb 2\n").1, ["a 1.0", "b 2.0"]);
    assert_eq!(step(&mut scraper, 15, "b 3\n").1, ["b 3.0", "a \"stale\""]);
    assert_eq!(step(&mut scraper, 30, "b 3\n").1, ["b 3.0"]);
    // Another text of the same series is the same series.
    assert_eq!(step(&mut scraper, 45, "b{} 4\n").1, ["b 4.0"]);
    // A malformed body ends all at once; nothing of it is written, and nothing ends twice.
    let (result, lines) = step(&mut scraper, 60, "b 5\nc 6\n7&-#$\n");
    assert_eq!((result.expect_err("malformed").line, lines), (3, vec![String::from("b \"stale\"")]));
    assert_eq!(step(&mut scraper, 75, "7&-#$").1, [""; 0]);
    assert_eq!(step(&mut scraper, 90, "b 7\n").1, ["b 7.0"]);
    // An empty body is a good scrape.
    assert_eq!(step(&mut scraper, 105, "").1, ["b \"stale\""]);
    let mut out = Vec::new();
    assert_eq!(scraper.failed(AT, &mut out), 0);
}

#[test]
fn series_with_times_of_their_own_end_only_if_that_is_tracked() {
    for (track, want) in [(false, vec![]), (true, vec!["a \"stale\""])] {
        let mut scraper = Scraper::new(Target { track_timestamps_staleness: track, ..Target::default() });
        assert!(step(&mut scraper, 0, "a 1 1800000000000\n").0.is_ok());
        assert_eq!(step(&mut scraper, 15, "").1, want);
    }
    let mut scraper = Scraper::new(Target { honor_timestamps: false, ..Target::default() });
    let mut out = Vec::new();
    scraper.scrape(Format::Text, b"a 1 1000\n", AT, &mut out).expect("good");
    assert_eq!(shown(&out), ["a 1.0"]);
}

#[test]
fn a_body_that_becomes_too_much_fails_as_a_whole() {
    let labels = vec![("cluster".to_string(), "x".repeat(1000))];
    let limits = Limits { out_bytes: 100_000, ..Limits::default() };
    let mut scraper = Scraper::new(Target { labels, limits, ..Target::default() });
    let body: String = (0..1000).map(|n| format!("a{n} 1\n")).collect();
    let mut out = b"before\n".to_vec();
    let error = scraper.scrape(Format::Text, body.as_bytes(), AT, &mut out).expect_err("too much");
    assert_eq!((error.reason, out.starts_with(b"before\n")), (Reason::BodyLimit, true));
    assert!(out.len() < 200_000 && !String::from_utf8_lossy(&out).contains("\"value\":1.0"), "nothing of it is written");
    assert!(scraper.scrape(Format::Text, b"a1 1\n", AT, &mut Vec::new()).is_ok(), "the next one is good");
}

#[test]
fn the_same_series_at_the_same_time_is_written_once() {
    let mut out = Vec::new();
    let body = "a 1\na 2\na{} 3\na 4 1000\na 5 2000\na 6 1000\na 7 2000\nb 1 99999999999999\nb 1 9223372036854775807\n";
    let scraped = Scraper::new(Target::default()).scrape(Format::Text, body.as_bytes(), AT, &mut out).expect("good");
    assert_eq!(shown(&out), ["a 1.0", "a 4.0 @1970-01-01T00:00:01Z", "a 5.0 @1970-01-01T00:00:02Z"]);
    assert_eq!((scraped.samples, scraped.post_relabel, scraped.duplicates, scraped.out_of_bounds), (9, 9, 4, 2));
}

#[test]
fn a_scrape_over_a_limit_fails_as_a_whole_and_says_which() {
    let body = "abc{label=\"value\"} 1\nb 2\nc 3\n";
    for (limits, want) in [
        (Limits { samples: 2, ..Limits::default() }, Some(Reason::SampleLimit)),
        (Limits { samples: 3, ..Limits::default() }, None),
        (Limits { labels: 1, ..Limits::default() }, Some(Reason::LabelLimit)),
        (Limits { labels: 2, ..Limits::default() }, None),
        (Limits { label_name_bytes: 7, ..Limits::default() }, Some(Reason::LabelNameLimit)),
        (Limits { label_name_bytes: 8, ..Limits::default() }, None),
        (Limits { label_value_bytes: 4, ..Limits::default() }, Some(Reason::LabelValueLimit)),
        (Limits { label_value_bytes: 5, ..Limits::default() }, None),
        (Limits { body_bytes: body.len() - 1, ..Limits::default() }, Some(Reason::BodyLimit)),
        (Limits { body_bytes: body.len(), ..Limits::default() }, None),
    ] {
        let mut scraper = Scraper::new(Target { limits, ..Target::default() });
        for _ in 0..2 {
            let (result, lines) = step(&mut scraper, 0, body);
            assert_eq!(result.as_ref().err().map(|error| error.reason), want, "{limits:?}");
            assert_eq!(lines.len(), if want.is_some() { 0 } else { 3 });
            if want == Some(Reason::SampleLimit) {
                // All are counted, as in Prometheus.
                assert_eq!(result.expect_err("over").scraped.post_relabel, 3);
            }
        }
    }
    // After a limit was met, what was live has ended.
    let mut scraper = Scraper::new(Target { limits: Limits { samples: 1, ..Limits::default() }, ..Target::default() });
    assert!(step(&mut scraper, 0, "a 1\n").0.is_ok());
    assert_eq!(step(&mut scraper, 15, "a 1\nb 1\n").1, ["a \"stale\""]);
}

#[test]
fn a_scrape_reports_itself() {
    let labels = vec![("instance".into(), "a:1".into()), ("job".into(), "j".into())];
    let limits = Limits { samples: 5, body_bytes: 100, ..Limits::default() };
    let mut scraper = Scraper::new(Target { labels, limits, extra_metrics: true, ..Target::default() });
    let mut out = Vec::new();
    let scraped = scraper.scrape(Format::Text, b"a 1\n", AT, &mut out).expect("good");
    out.clear();
    scraper.report(AT, 0.25, Outcome::Good(scraped), &mut out);
    let name = "{instance=\"a:1\",job=\"j\"}";
    let want = [
        format!("up{name} 1.0 #gauge"),
        format!("scrape_duration_seconds{name} 0.25 #gauge in seconds"),
        format!("scrape_samples_scraped{name} 1.0 #gauge"),
        format!("scrape_samples_post_metric_relabeling{name} 1.0 #gauge"),
        format!("scrape_series_added{name} 1.0 #gauge"),
        format!("scrape_timeout_seconds{name} 10.0 #gauge in seconds"),
        format!("scrape_sample_limit{name} 5.0 #gauge"),
        format!("scrape_body_size_bytes{name} 4.0 #gauge in bytes"),
    ];
    assert_eq!(shown(&out), want);
    out.clear();
    scraper.report(AT, 0.25, Outcome::Failed(Scraped { body_bytes: 101, ..Scraped::default() }), &mut out);
    let lines = shown(&out);
    assert!(lines[0].ends_with(" 0.0 #gauge") && lines[7].contains(" -1.0 "), "{lines:?}");
    out.clear();
    assert_eq!(scraper.end(AT, &mut out), 9);
    assert!(shown(&out).iter().all(|line| line.contains("\"stale\"")));
}

/// A family of protobuf with its length in front.
fn family(name: &str, kind: u64, fill: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let (mut message, mut out) = (Vec::new(), Vec::new());
    wire::put_bytes(&mut message, 1, name.as_bytes());
    wire::put_bytes(&mut message, 2, b"help");
    wire::put_varint(&mut message, 3, kind);
    wire::put_message(&mut message, 4, fill);
    wire::put_raw_varint(&mut out, message.len() as u64);
    out.extend_from_slice(&message);
    out
}

fn put_label(out: &mut Vec<u8>, number: u32, name: &str, value: &str) {
    wire::put_message(out, number, |out| {
        wire::put_bytes(out, 1, name.as_bytes());
        wire::put_bytes(out, 2, value.as_bytes());
    });
}

fn put_timestamp(out: &mut Vec<u8>, number: u32, seconds: u64, nanos: u64) {
    wire::put_message(out, number, |out| {
        wire::put_varint(out, 1, seconds);
        wire::put_varint(out, 2, nanos);
    });
}

fn put_exemplar(out: &mut Vec<u8>, number: u32, id: &str, value: f64, has_time: bool) {
    wire::put_message(out, number, |out| {
        put_label(out, 1, "id", id);
        wire::put_double(out, 2, value);
        if has_time {
            put_timestamp(out, 3, 1_625_851_155, 146_848_499);
        }
    });
}

fn put_span(out: &mut Vec<u8>, number: u32, offset: i64, len: u64) {
    wire::put_message(out, number, |out| {
        wire::put_zigzag(out, 1, offset);
        wire::put_varint(out, 2, len);
    });
}

fn native(gauge: bool) -> Vec<u8> {
    family("test_histogram", if gauge { 5 } else { 4 }, |out| {
        put_label(out, 1, "a", "b");
        wire::put_varint(out, 6, 1_234_568);
        wire::put_message(out, 7, |out| {
            wire::put_varint(out, 1, 175);
            wire::put_double(out, 2, 0.000_828_046_174_628_709_4);
            for (count, bound) in [(2, -0.000_487_900_541_544_618_04), (4, -0.000_389_918_104_246_038_3)] {
                wire::put_message(out, 3, |out| {
                    wire::put_varint(out, 1, count);
                    wire::put_double(out, 2, bound);
                    put_exemplar(out, 3, "x", 1.0, count == 4);
                });
            }
            wire::put_zigzag(out, 5, 3);
            wire::put_double(out, 6, 2.938_735_877_055_719e-39);
            wire::put_varint(out, 7, 2);
            put_span(out, 9, -162, 1);
            put_span(out, 9, 23, 4);
            for delta in [1, 3, -2, -1, 1] {
                wire::put_zigzag(out, 10, delta);
            }
            put_span(out, 12, -161, 1);
            put_span(out, 12, 8, 3);
            let mut packed = Vec::new();
            for delta in [1, 2, -1, -1] {
                wire::put_raw_varint(&mut packed, wire::zigzag(delta));
            }
            wire::put_bytes(out, 13, &packed);
            put_timestamp(out, 15, 1, 1_000_000);
        });
    })
}

#[test]
fn protobuf_is_read_as_prometheus_reads_it() {
    let mut body = family("go_memstats_alloc_bytes_total", 0, |out| {
        wire::put_message(out, 3, |out| {
            wire::put_double(out, 1, 1.546544e+06);
            put_exemplar(out, 2, "42", 12.0, true);
            put_timestamp(out, 3, 1, 1);
        });
    });
    body.extend(family("something_untyped", 3, |out| {
        wire::put_message(out, 5, |out| wire::put_double(out, 1, 42.0));
        wire::put_varint(out, 6, 1_234_567);
    }));
    body.extend(family("rpc_durations_seconds", 2, |out| {
        put_label(out, 1, "service", "exponential");
        wire::put_message(out, 4, |out| {
            wire::put_varint(out, 1, 262);
            wire::put_double(out, 2, 0.000_254_919_735_283_670_7);
            wire::put_message(out, 3, |out| {
                wire::put_double(out, 1, 0.5);
                wire::put_double(out, 2, 6.442_786_329_648_548e-07);
            });
        });
    }));
    body.extend(native(false));
    let exemplar = r#"exemplars=[{"labels":{"id":"42"},"timestamp":"2021-07-09T17:19:15.146848499Z","value":12.0}]"#;
    let mut out = Vec::new();
    Scraper::new(Target::default()).scrape(Format::Protobuf, &body, AT, &mut out).expect("good");
    let lines = shown(&out);
    let rpc = "rpc_durations_seconds";
    assert_eq!(
        lines[..5],
        [
            format!("go_memstats_alloc_bytes_total 1546544.0 #counter start=\"1970-01-01T00:00:01.000000001Z\" {exemplar}"),
            "something_untyped 42.0 @1970-01-01T00:20:34.567Z".into(),
            format!("{rpc}_count{{service=\"exponential\"}} 262.0 #summary"),
            format!("{rpc}_sum{{service=\"exponential\"}} 0.0002549197352836707 #summary"),
            format!("{rpc}{{quantile=\"0.5\",service=\"exponential\"}} 6.442786329648548e-7 #summary"),
        ]
    );
    assert_eq!(lines.len(), 6);
    let json: Json = serde_json::from_slice(out.split(|byte| *byte == b'\n').nth(5).expect("a line")).expect("JSON");
    let read = Histogram::parse(json["histogram"].to_string().as_bytes()).expect("a histogram");
    assert_eq!(read, crate::histogram::tests::example());
    assert_eq!((&json["start"], &json["timestamp"]), (&Json::from("1970-01-01T00:00:01.001Z"), &Json::from("1970-01-01T00:20:34.568Z")));
    // Of the two exemplars one has no time, and a native histogram needs it.
    assert_eq!(json["exemplars"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_native_histogram_is_read_classic_too_or_instead_if_that_is_wanted() {
    let classic = [
        "test_histogram_count{a=\"b\"} 175.0 @1970-01-01T00:20:34.568Z #gaugehistogram start=\"1970-01-01T00:00:01.001Z\"",
        "test_histogram_sum{a=\"b\"} 0.0008280461746287094 @1970-01-01T00:20:34.568Z #gaugehistogram start=\"1970-01-01T00:00:01.001Z\"",
    ];
    for (native_histograms, classic_too, first, total) in [(false, false, 0, 5), (true, true, 1, 6), (true, false, 1, 1)] {
        let target = Target { native_histograms, classic_too, ..Target::default() };
        let lines = scrape(target, Format::Protobuf, &native(true)).expect("good");
        assert_eq!(lines.len(), total);
        if total > 1 {
            assert_eq!(lines[first..first + 2], classic);
            assert!(lines[total - 1].starts_with("test_histogram_bucket{a=\"b\",le=\"+Inf\"} 175.0"), "{lines:?}");
        }
        assert_eq!(lines[0].contains("\"reset_hint\":\"gauge\""), native_histograms);
    }
}

#[test]
fn buckets_are_merged_until_they_are_few_enough() {
    let read = |buckets| {
        let limits = Limits { buckets, ..Limits::default() };
        scrape(Target { limits, ..Target::default() }, Format::Protobuf, &native(false))
    };
    assert!(read(9).expect("as it is")[0].contains("\"schema\":3"));
    assert!(read(8).expect("merged")[0].contains("\"schema\":2"));
    assert_eq!(read(1).expect_err("too many").reason, Reason::BucketLimit);
}

#[test]
fn a_scrape_in_another_format_goes_on_with_the_same_series() {
    let mut scraper = Scraper::new(Target::default());
    let mut out = Vec::new();
    scraper.scrape(Format::Text, b"# TYPE a gauge\na 1\n", AT, &mut out).expect("good");
    let body = family("a", 1, |out| wire::put_message(out, 2, |out| wire::put_double(out, 1, 2.0)));
    for format in [Format::Protobuf, Format::OpenMetrics, Format::Text] {
        let body = match format {
            Format::Protobuf => body.as_slice(),
            Format::OpenMetrics => b"# TYPE a gauge\na 2\n# EOF\n",
            Format::Text => b"# TYPE a gauge\na 2\n",
        };
        out.clear();
        let scraped = scraper.scrape(format, body, AT, &mut out).expect("good");
        assert_eq!((shown(&out), scraped.stale), (vec!["a 2.0 #gauge".into()], 0));
    }
}

#[test]
fn a_body_that_is_cut_anywhere_never_panics_and_never_writes_half_a_line() {
    let mut protobuf = native(false);
    protobuf.extend(family("b", 1, |out| wire::put_message(out, 2, |out| wire::put_double(out, 1, 2.0))));
    for (format, body) in
        [(Format::Text, OPENMETRICS.as_bytes()), (Format::OpenMetrics, OPENMETRICS.as_bytes()), (Format::Protobuf, &protobuf)]
    {
        let mut known = Scraper::new(Target::default());
        let _ = known.scrape(format, body, AT, &mut Vec::new());
        for len in 0..body.len() {
            for scraper in [&mut known, &mut Scraper::new(Target::default())] {
                let mut out = Vec::new();
                let result = scraper.scrape(format, &body[..len], AT, &mut out);
                assert!(out.is_empty() || out.ends_with(b"}\n"), "{len}");
                if len % 37 == 0 {
                    shown(&out);
                }
                assert!(format != Format::OpenMetrics || len == 0 || len + 1 == body.len() || result.is_err(), "{len}");
            }
        }
    }
}

proptest! {
    #[test]
    fn no_body_is_a_panic(bytes: Vec<u8>, text in "([a-z]{1,3}|[{}\"=,\\\\# \t\n0-9.e+-]|# TYPE a |# EOF\n|_created){0,60}") {
        for format in [Format::Text, Format::OpenMetrics, Format::Protobuf] {
            let mut scraper = Scraper::new(Target::default());
            for body in [bytes.as_slice(), text.as_bytes(), bytes.as_slice()] {
                let mut out = Vec::new();
                let _ = scraper.scrape(format, body, AT, &mut out);
                shown(&out);
            }
        }
    }

    /// A cache changes the speed, never what is written.
    #[test]
    fn a_warm_scraper_writes_what_a_cold_one_writes(
        bodies in prop::collection::vec((0..3usize, prop::collection::vec((0..6usize, 0..2usize), 0..12)), 1..6),
    ) {
        const NAMES: [&str; 6] = ["a", "ab", "a_total", "a{x=\"1\"}", "a{x=\"1\",}", "a {x=\"2\"}"];
        const TYPES: [&str; 3] = ["", "# TYPE a gauge\n", "# TYPE a_total counter\n"];
        let mut warm = Scraper::new(Target::default());
        for (kind, body) in bodies {
            let mut text = String::from(TYPES[kind]);
            for (name, value) in body {
                text += &format!("{} {value}\n", NAMES[name]);
            }
            let (mut out, mut want) = (Vec::new(), Vec::new());
            let got = warm.scrape(Format::Text, text.as_bytes(), AT, &mut out).expect("good");
            Scraper::new(Target::default()).scrape(Format::Text, text.as_bytes(), AT, &mut want).expect("good");
            let lines = shown(&out);
            prop_assert_eq!(&lines[..lines.len() - got.stale], &shown(&want)[..]);
        }
    }
}
