//! Times against the vectors of the specification, and against another implementation.

use super::*;
use proptest::prelude::*;

/// 2024-06-15T12:00:00Z.
const ARRIVAL: i64 = 1_718_452_800 * NANOS;

fn read(format: &str, text: &str, rule: TimeRule, arrival_ns: i64) -> Option<i64> {
    let format = TimeFormat::new(format, &rule).unwrap();
    let mut cache = TimeCache::default();
    let first = format.parse(text.as_bytes(), arrival_ns, &mut cache);
    assert_eq!(format.parse(text.as_bytes(), arrival_ns, &mut cache), first, "the cache says the same");
    first
}

/// Checks what a time means, written as jiff writes it.
#[track_caller]
fn check(format: &str, text: &str, want: &str) {
    check_with(TimeRule::default(), format, text, want);
}

#[track_caller]
fn check_with(rule: TimeRule, format: &str, text: &str, want: &str) {
    let read = read(format, text, rule, ARRIVAL);
    let read = read.map(|ns| jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap().to_string());
    assert_eq!(read.as_deref().unwrap_or("none"), want, "{format} of {text}");
}

#[test]
fn vectors_of_section_11() {
    let ns = |seconds: i64, nanos: i64| Some(seconds * NANOS + nanos);
    let arrival = 1_490_000_000 * NANOS; // in 2017
    let default = TimeRule::default;
    assert_eq!(read("%b %d %H:%M:%S.%L %z", "Feb 16 04:06:58.1234 -0600", default(), arrival), ns(1_487_239_618, 123_400_000));
    assert_eq!(read("%m/%d/%Y %H:%M:%S %z", "07/18/2017 01:47:03 +05:30", default(), arrival), ns(1_500_322_623, 0));
    let east = TimeRule { offset_seconds: 7200, ..default() };
    assert_eq!(read("%m/%d/%Y %H:%M:%S,%L", "07/17/2017 22:17:03,1", east, arrival), ns(1_500_322_623, 100_000_000));
    assert_eq!(read("%s.%L", "1500322623.25", default(), arrival), ns(1_500_322_623, 250_000_000));
}

#[test]
fn eb_11_7_a_year_that_is_not_written_is_the_nearest() {
    let new_year = 1_735_689_600 * NANOS; // 2025-01-01
    let year = |text, current_year, arrival| {
        let rule = TimeRule { current_year, ..TimeRule::default() };
        let ns = read("%b %d %H:%M:%S", text, rule, arrival).unwrap();
        jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap().to_string()
    };
    assert_eq!(year("Dec 31 23:59:59", false, new_year + 5 * NANOS), "2024-12-31T23:59:59Z");
    assert_eq!(year("Dec 31 23:59:59", true, new_year + 5 * NANOS), "2025-12-31T23:59:59Z");
    assert_eq!(year("Jan  1 00:00:01", false, new_year - 5 * NANOS), "2025-01-01T00:00:01Z");
    assert_eq!(year("Jan  2 00:00:01", false, new_year - 5 * NANOS), "2024-01-02T00:00:01Z");
    assert_eq!(year("Feb 29 00:00:00", false, new_year), "2024-02-29T00:00:00Z");
    assert_eq!(year("Feb 29 00:00:00", false, new_year + 800 * DAY * NANOS), "2024-02-29T00:00:00Z");
}

#[test]
fn a_cached_year_holds_only_for_its_arrivals() {
    let format = TimeFormat::new("%b %d %H:%M:%S", &TimeRule::default()).unwrap();
    let mut cache = TimeCache::default();
    for days in 0..2000 {
        let arrival = ARRIVAL + days * DAY * NANOS;
        let cached = format.parse(b"Jun 16 11:00:00", arrival, &mut cache);
        assert_eq!(cached, format.parse(b"Jun 16 11:00:00", arrival, &mut TimeCache::default()), "day {days}");
    }
}

#[test]
fn conversions() {
    check("%d/%b/%Y:%H:%M:%S %z", "10/Oct/2024:13:55:36 -0700", "2024-10-10T20:55:36Z");
    check("%A, %d-%B-%y %I:%M:%S %p", "wednesday, 31-JANUARY-24 12:00:01 am", "2024-01-31T00:00:01Z");
    check("%c", "Wed Jan 31 12:00:01 2024", "2024-01-31T12:00:01Z");
    check("%F %T", "2024-01-31 12:00:01", "2024-01-31T12:00:01Z");
    check("%D %R", "01/31/69 12:00", "1969-01-31T12:00:00Z");
    check("%x %X", "01/31/68 12:00:01", "2068-01-31T12:00:01Z");
    check("%r %F", "1:00:00 PM 2024-01-31", "2024-01-31T13:00:00Z");
    check("%C%y-%m-%d", "1999-12-31", "1999-12-31T00:00:00Z");
    check("%e.%m.%Y %k:%M", " 1.2.2024  9:05", "2024-02-01T09:05:00Z");
    check("%Y %j", "2024 366", "2024-12-31T00:00:00Z");
    check("%Y %U %w", "2024 5 3", "2024-02-07T00:00:00Z");
    check("%Y %W %u", "2024 5 7", "2024-02-04T00:00:00Z");
    check("%Y-%m-%dT%H:%M:%S", "2024-02-30T23:59:60", "2024-03-02T00:00:00Z");
    check("100%% %Y", "100% 2024", "2024-01-01T00:00:00Z");
    check("%Ey%Om%Od", "240102", "2024-01-02T00:00:00Z");
    check("%Y%n%t%m", "2024 \t 3", "2024-03-01T00:00:00Z");
    check("%Y-%m-%d", "2024-01-31 and more", "2024-01-31T00:00:00Z");
    check("%Y-%m-%d", "2024-13-31", "none");
    check("%Y-%m-%d", "2024-01", "none");
    check("%H:%M", "11:59", "2024-06-15T11:59:00Z");
    check("%H:%M", "23:59", "2024-06-15T23:59:00Z");
    check("%H:%M", "00:01", "2024-06-15T00:01:00Z");
    check("%Y", "9999", "none"); // beyond what nanoseconds hold
}

#[test]
fn fractions() {
    check("%Y-%m-%dT%H:%M:%S.%L", "2024-01-02T03:04:05.123456789Z", "2024-01-02T03:04:05.123456789Z");
    check("%Y-%m-%dT%H:%M:%S.%L", "2024-01-02T03:04:05.5Z", "2024-01-02T03:04:05.5Z");
    check("%Y-%m-%d %H:%M:%S,%L", "2024-01-02 03:04:05,678", "2024-01-02T03:04:05.678Z");
    check("%Y-%m-%d %H:%M:%S:%L", "2024-01-02 03:04:05:678", "2024-01-02T03:04:05.678Z");
    check("%Y-%m-%dT%H:%M:%S.%L%z", "2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z");
    check("%Y-%m-%dT%H:%M:%S.%L", "2024-01-02T03:04:05.x", "none");
    check("%Y-%m-%dT%H:%M:%S.%L", "2024-01-02T03:04:05,678", "none");
    check("%Y-%m-%dT%H:%M:%S.%L", "2024-01-02T03:04:05: later", "2024-01-02T03:04:05Z");
    let strict = TimeRule { whole_seconds: false, ..TimeRule::default() };
    check_with(strict, "%Y-%m-%dT%H:%M:%S.%L%z", "2024-01-02T03:04:05Z", "none");
    let lax = TimeRule { strict: false, ..TimeRule::default() };
    check_with(lax.clone(), "%Y-%m-%dT%H:%M:%S.%L%z", "2024-01-02T03:04", "2024-01-02T03:04:00Z");
    check_with(lax, "%Y-%m-%dT%H:%M:%S.%L%z", "soon", "none");
}

#[test]
fn zones() {
    for (zone, want) in [("Z", "05"), ("+0100", "04"), ("+01:00", "04"), ("+01", "04"), ("-02", "07"), ("UT", "05"), ("utc", "05")] {
        check("%Y-%m-%d %H %z", &format!("2024-01-02 05 {zone}"), &format!("2024-01-02T{want}:00:00Z"));
    }
    check("%Y-%m-%d %H%z", "2024-01-02 05EST", "2024-01-02T10:00:00Z");
    check("%Y-%m-%d %H%z", "2024-01-02 05PDT", "2024-01-02T12:00:00Z");
    check("%Y-%m-%d %H%z", "2024-01-02 05XYZ", "none");
    check("%Y-%m-%d %H %Z", "2024-01-02 05 CEST", "2024-01-02T03:00:00Z");
    check("%Y-%m-%d %H %Z", "2024-01-02 05 m", "2024-01-01T17:00:00Z");
    check("%Y-%m-%d %H %Z", "2024-01-02 05 J", "none");
    let named = |name: &str| TimeRule { zone: Some(name.to_string()), ..TimeRule::default() };
    check_with(named("Europe/Berlin"), "%Y-%m-%d %H:%M", "2024-07-01 12:00", "2024-07-01T10:00:00Z");
    check_with(named("Europe/Berlin"), "%Y-%m-%d %H:%M", "2024-01-01 12:00", "2024-01-01T11:00:00Z");
    check_with(named("Europe/Berlin"), "%Y-%m-%d %H:%M %z", "2024-01-01 12:00 Z", "2024-01-01T12:00:00Z");
}

#[test]
fn mistakes_are_told() {
    let error = |format: &str, rule: TimeRule| TimeFormat::new(format, &rule).err().unwrap_or_default();
    let rule = TimeRule::default;
    assert_eq!(error("%S.%L %L", rule()), "`%L` may stand in a time format once");
    assert_eq!(error("%Q", rule()), "a time format has no `%Q`");
    assert_eq!(error("%Y%", rule()), "a time format cannot end in `%`: a percent sign is `%%`");
    let zone = Some("Mars/Olympus".to_string());
    assert!(error("%Y", TimeRule { zone, ..rule() }).starts_with("there is no time zone `Mars/Olympus`"));
    let both = TimeRule { zone: Some("UTC".to_string()), offset_seconds: 60, ..rule() };
    assert!(error("%Y", both).contains("not both"));
}

const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"];
const FORMATS: [(&str, &str); 7] = [
    ("%Y-%m-%dT%H:%M:%S.%L%z", "%Y-%m-%dT%H:%M:%S.%9f%z"),
    ("%d/%b/%Y:%H:%M:%S %z .%L", "%d/%b/%Y:%H:%M:%S %:z .%9f"),
    ("%A %B %e %I:%M:%S %p %Y %z,%L", "%A %B %e %I:%M:%S %p %Y %z,%9f"),
    ("%y%m%d %T.%L %z", "%y%m%d %H:%M:%S.%9f %z"),
    ("%Y %j %T.%L %z", "%Y %j %H:%M:%S.%9f %z"),
    ("%Y week %U %a %T.%L %z", "%Y week %U %a %H:%M:%S.%9f %z"),
    ("%s.%L", "%s.%9f"),
];

proptest! {
    #[test]
    fn what_jiff_writes_is_read_back(seconds in 0..3_100_000_000i64, nanos in 0..NANOS, zone in 0..ZONES.len(), kind in 0..FORMATS.len()) {
        let ns = seconds * NANOS + nanos;
        let zoned = jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap().in_tz(ZONES[zone]).unwrap();
        let (format, theirs) = FORMATS[kind];
        let text = jiff::fmt::strtime::format(theirs, &zoned).unwrap();
        prop_assert_eq!(read(format, &text, TimeRule::default(), ARRIVAL), Some(ns), "{}", text);
    }

    #[test]
    fn local_times_are_those_of_their_zone(seconds in 0..3_100_000_000i64, zone in 0..ZONES.len()) {
        let zoned = jiff::Timestamp::from_second(seconds).unwrap().in_tz(ZONES[zone]).unwrap();
        let text = jiff::fmt::strtime::format("%Y-%m-%d %H:%M:%S", &zoned).unwrap();
        let want = zoned.time_zone().to_ambiguous_timestamp(zoned.datetime()).compatible().unwrap();
        let rule = TimeRule { zone: Some(ZONES[zone].to_string()), ..TimeRule::default() };
        prop_assert_eq!(read("%Y-%m-%d %H:%M:%S", &text, rule, ARRIVAL), Some(want.as_second() * NANOS));
    }

    #[test]
    fn a_cache_changes_nothing(texts in proptest::collection::vec("2024-01-0[12]T03:04:0[56](\\.[0-9]{1,11})?(Z|\\+01)?x?", 1..20)) {
        let format = TimeFormat::new("%Y-%m-%dT%H:%M:%S.%L%z", &TimeRule { strict: false, ..TimeRule::default() }).unwrap();
        let mut cache = TimeCache::default();
        for text in &texts {
            let fresh = format.parse(text.as_bytes(), ARRIVAL, &mut TimeCache::default());
            prop_assert_eq!(format.parse(text.as_bytes(), ARRIVAL, &mut cache), fresh, "{}", text);
        }
    }

    #[test]
    fn no_text_and_no_format_panics(text: Vec<u8>, format in "(%[a-zA-Z%]|[ -~]){0,8}", arrival: i64, strict: bool) {
        if let Ok(format) = TimeFormat::new(&format, &TimeRule { strict, ..TimeRule::default() }) {
            format.parse(&text, arrival, &mut TimeCache::default());
        }
    }

    #[test]
    fn digits_do_not_panic(text in "[0-9 ]{0,60}", format in "(%[CyYmdjUWwsHMSL]){0,6}", arrival: i64) {
        if let Ok(format) = TimeFormat::new(&format, &TimeRule::default()) {
            format.parse(text.as_bytes(), arrival, &mut TimeCache::default());
        }
    }
}
