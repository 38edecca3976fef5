//! Names of OpenTelemetry as names of Prometheus: metrics, units, labels, the job and the instance.
//!
//! In: a name, a UCUM unit and what the metric is. Out: a name of the classic alphabet; `None`: nothing of the name is left.
//! Sources: <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>, and where it leaves a choice, what
//! Prometheus' own OTLP receiver does (prometheus/otlptranslator, strategy "underscore escaping with suffixes").

/// What decides upon a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A monotonic sum: ends in `_total`.
    Counter,
    /// Ends in `_ratio` if its unit is `1`.
    Gauge,
    Other,
}

const UNITS: [(&str, &str); 29] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tebibytes"),
    ("kBy", "kilobytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
    ("Bi", "bits"),
    ("kHz", "kilohertz"),
];

const PER_UNITS: [(&str, &str); 7] =
    [("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// The name of a metric; `suffixes`: with its unit and type at its end.
pub fn metric_name(name: &str, unit: &str, kind: Kind, suffixes: bool) -> Option<String> {
    let mut tokens: Vec<String> = name.split(|c: char| !is_metric_char(c)).filter(|token| !token.is_empty()).map(str::to_owned).collect();
    if suffixes {
        let (main, per) = unit_suffixes(unit);
        for suffix in [main, per] {
            if !suffix.is_empty() && !tokens.contains(&suffix) {
                tokens.push(suffix);
            }
        }
        match kind {
            Kind::Counter => put_last(&mut tokens, "total"),
            Kind::Gauge if unit == "1" => put_last(&mut tokens, "ratio"),
            _ => {}
        }
    }
    let joined = tokens.join("_");
    match joined.as_bytes().first()? {
        b'0'..=b'9' => Some(format!("_{joined}")),
        _ => Some(joined),
    }
}

fn put_last(tokens: &mut Vec<String>, last: &str) {
    tokens.retain(|token| token != last);
    tokens.push(last.to_owned());
}

fn is_metric_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// `By/s` as `bytes_per_second`; empty where it says nothing (`1`, `{requests}`).
pub fn unit_name(unit: &str) -> String {
    let (main, per) = unit_suffixes(unit);
    match (main.is_empty(), per.is_empty()) {
        (false, false) => format!("{main}_{per}"),
        _ => main + &per,
    }
}

/// `By/s` as `bytes` and `per_second`.
fn unit_suffixes(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let known = |unit: &str, table: &[(&str, &str)]| {
        let unit = unit.trim();
        if unit.contains(['{', '}']) {
            return String::new();
        }
        clean(table.iter().find(|(ucum, _)| *ucum == unit).map_or(unit, |(_, name)| name))
    };
    let per = known(per, &PER_UNITS);
    (known(main, &UNITS), if per.is_empty() { per } else { format!("per_{per}") })
}

/// Every other character becomes `_`, several `_` become one, none at the ends.
fn clean(text: &str) -> String {
    let tokens: Vec<&str> = text.split(|c: char| !is_metric_char(c)).filter(|token| !token.is_empty()).collect();
    tokens.join("_")
}

/// The name of a label: other characters become `_`, several `_` become one, a digit in front gets `key_`. `__x__` stays.
pub fn label_name(name: &str) -> Option<String> {
    if name.len() > 4 && name.starts_with("__") && name.ends_with("__") && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
        return Some(name.to_owned());
    }
    let mut label = String::with_capacity(name.len() + 4);
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        label.push_str("key_");
    }
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !label.ends_with('_') {
            label.push(c);
        }
    }
    label.contains(|c| c != '_').then_some(label)
}

/// The attributes of a resource that name a target: `job`, `instance`.
pub const TARGET_ATTRIBUTES: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];

/// `job`: `namespace/name`, or the name alone; empty without a name.
pub fn job(namespace: &str, name: &str) -> String {
    if namespace.is_empty() || name.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of prometheus/otlptranslator, `metric_namer_test.go`.
    #[test]
    fn metrics_are_named_as_prometheus_names_them() {
        use Kind::*;
        for (name, unit, kind, want, want_unit) in [
            ("requests", "", Counter, "requests_total", ""),
            ("cpu_usage", "1", Gauge, "cpu_usage_ratio", ""),
            ("items", "1", Counter, "items_total", ""),
            ("response_time", "ms", Gauge, "response_time_milliseconds", "milliseconds"),
            ("memory_usage", "By", Gauge, "memory_usage_bytes", "bytes"),
            ("requests", "1/s", Gauge, "requests_per_second", "per_second"),
            ("throughput", "By/s", Gauge, "throughput_bytes_per_second", "bytes_per_second"),
            ("custom_metric", "custom_unit", Gauge, "custom_metric_custom_unit", "custom_unit"),
            ("custom_metric", "{custom}", Gauge, "custom_metric", ""),
            ("custom_metric", "By/{custom}", Gauge, "custom_metric_bytes", "bytes"),
            ("requests_total", "", Counter, "requests_total", ""),
            ("cpu_usage_ratio", "1", Gauge, "cpu_usage_ratio", ""),
            ("response_time_seconds", "s", Gauge, "response_time_seconds", "seconds"),
            (
                "metric__with__multiple__underscores",
                "unit__multiple__underscores",
                Gauge,
                "metric_with_multiple_underscores_unit_multiple_underscores",
                "unit_multiple_underscores",
            ),
            ("custom_metric", "unit@with#special/chars", Gauge, "custom_metric_unit_with_special_per_chars", "unit_with_special_per_chars"),
            ("request_duration", "s", Other, "request_duration_seconds", "seconds"),
            ("active_connections", "", Other, "active_connections", ""),
            ("uptime", "d", Gauge, "uptime_days", "days"),
            ("capacity", "TiBy", Gauge, "capacity_tebibytes", "tebibytes"),
            ("transfer", "KBy", Gauge, "transfer_kilobytes", "kilobytes"),
            ("cpu_usage", "%", Gauge, "cpu_usage_percent", "percent"),
            ("requests", "1/m", Gauge, "requests_per_minute", "per_minute"),
            ("custom", "1/custom_unit", Gauge, "custom_per_custom_unit", "per_custom_unit"),
            ("metric", "By/", Gauge, "metric_bytes", "bytes"),
            ("metric", " By / s ", Gauge, "metric_bytes_per_second", "bytes_per_second"),
            ("metric", "/", Gauge, "metric", ""),
            ("http.request.duration", "ms", Other, "http_request_duration_milliseconds", "milliseconds"),
            ("http.requests", "1", Counter, "http_requests_total", ""),
            ("123metric", "", Gauge, "_123metric", ""),
            ("a:b", "", Gauge, "a:b", ""),
        ] {
            assert_eq!(metric_name(name, unit, kind, true).as_deref(), Some(want), "{name} {unit}");
            assert_eq!(unit_name(unit), want_unit, "{unit}");
        }
        for (name, want) in [
            ("metric@with#special$chars", Some("metric_with_special_chars")),
            ("metric@@##$$name", Some("metric_name")),
            ("123metric", Some("_123metric")),
            ("@#$%", None),
            ("", None),
        ] {
            assert_eq!(metric_name(name, "By", Kind::Counter, false).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn labels_are_named_as_the_specification_says() {
        for (name, want) in [
            ("label:with:colons", Some("label_with_colons")),
            ("LabelWithCapitalLetters", Some("LabelWithCapitalLetters")),
            ("label!with&special$chars)", Some("label_with_special_chars_")),
            ("label_with_foreign_characters_字符", Some("label_with_foreign_characters_")),
            ("label.with.dots", Some("label_with_dots")),
            ("123label", Some("key_123label")),
            ("_label_starting_with_underscore", Some("_label_starting_with_underscore")),
            ("a..b", Some("a_b")),
            ("__reserved__", Some("__reserved__")),
            ("ようこそ", None),
            ("", None),
            ("__", None),
        ] {
            assert_eq!(label_name(name).as_deref(), want, "{name}");
        }
        assert_eq!([job("", "a"), job("n", "a"), job("n", "")], ["a", "n/a", ""]);
    }
}
