//! When a file is due for rotation: after a time, or when an hour or day of a time zone ends.
//!
//! In: when a file got its first record. Out: the instant from which on the next record begins a new file. Instants, not
//! clock readings, are compared: the hour that daylight saving repeats and the day of 23 or 25 hours are each one file. Zones
//! come from the system's tz database, or from the copy in the binary where there is none. No memory.

use anyhow::Context;
use flow::units::{NANOS_PER_SECOND, Span};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Which boundary of the calendar begins a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    Hour,
    Day,
}

/// The rules of one archive.
#[derive(Clone, Debug, Default)]
pub struct Calendar {
    pub every: Option<Span>,
    pub at: Option<(Boundary, TimeZone)>,
}

/// A zone by its name in the tz database, such as `Europe/Berlin`.
pub fn zone(name: &str) -> anyhow::Result<TimeZone> {
    TimeZone::get(name).with_context(|| format!("no time zone is called {name:?}"))
}

impl Calendar {
    /// When a file that got its first record at `begun_ns` is due; `i64::MAX`: never.
    pub fn due(&self, begun_ns: i64) -> i64 {
        let every = self.every.map_or(i64::MAX, |every| begun_ns.saturating_add(every.0));
        let at = self.at.as_ref().and_then(|(boundary, zone)| next(*boundary, zone, begun_ns)).unwrap_or(i64::MAX);
        every.min(at)
    }
}

/// The first boundary behind an instant; `None` beyond what nanoseconds can tell.
fn next(boundary: Boundary, zone: &TimeZone, ns: i64) -> Option<i64> {
    let at = Timestamp::from_nanosecond(i128::from(ns)).ok()?;
    let local = zone.to_datetime(at);
    match boundary {
        Boundary::Hour => {
            let into = i64::from(local.minute()) * 60 * NANOS_PER_SECOND
                + i64::from(local.second()) * NANOS_PER_SECOND
                + i64::from(local.subsec_nanosecond());
            ns.checked_add(3_600 * NANOS_PER_SECOND - into)
        }
        Boundary::Day => {
            // Where midnight does not exist the day begins at the first instant that does.
            let mut day = local.date();
            loop {
                day = day.tomorrow().ok()?;
                let start = i64::try_from(day.to_zoned_datetime(zone.clone()).ok()?.timestamp().as_nanosecond()).ok()?;
                if start > ns {
                    return Some(start); // in an hour before a repeated midnight, tomorrow may have begun already
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_nanosecond() as i64
    }

    #[track_caller]
    fn check(boundary: Boundary, name: &str, begun: &str, due: &str) {
        let calendar = Calendar { every: None, at: Some((boundary, zone(name).expect("a zone"))) };
        assert_eq!(calendar.due(ns(begun)), ns(due), "{name}, begun {begun}");
    }

    #[test]
    fn eb_2_3_a_day_is_one_file_whatever_daylight_saving_does() {
        check(Boundary::Day, "UTC", "2026-11-23T23:59:59.999Z", "2026-11-24T00:00:00Z");
        check(Boundary::Day, "UTC", "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z");
        // Berlin: 23 hours on 29 March, 25 on 25 October 2026.
        check(Boundary::Day, "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(Boundary::Day, "Europe/Berlin", "2026-03-29T01:30:00Z", "2026-03-29T22:00:00Z");
        check(Boundary::Day, "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        check(Boundary::Day, "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T23:00:00Z");
        // Sao Paulo: no midnight on 4 November 2018, the day began at 01:00 = 03:00 UTC; two of them on 17 February 2018.
        check(Boundary::Day, "America/Sao_Paulo", "2018-11-04T02:59:59Z", "2018-11-04T03:00:00Z");
        check(Boundary::Day, "America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-18T03:00:00Z");
        // Apia had no 30 December 2011.
        check(Boundary::Day, "Pacific/Apia", "2011-12-30T09:00:00Z", "2011-12-30T10:00:00Z");
    }

    #[test]
    fn eb_2_3_an_hour_that_is_repeated_is_two_files() {
        check(Boundary::Hour, "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"); // 02:30 summer time
        check(Boundary::Hour, "Europe/Berlin", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"); // 02:00 once more
        check(Boundary::Hour, "Asia/Kolkata", "2026-11-24T00:10:00Z", "2026-11-24T00:30:00Z"); // half an hour off
        check(Boundary::Hour, "Asia/Kathmandu", "2026-11-24T00:20:00Z", "2026-11-24T01:15:00Z");
    }

    #[test]
    fn an_interval_and_the_ends_of_time_are_due_once() {
        let calendar = Calendar { every: Some(Span(90 * NANOS_PER_SECOND)), at: None };
        assert_eq!(calendar.due(1_000), 1_000 + 90 * NANOS_PER_SECOND);
        assert_eq!(calendar.due(i64::MAX - 1), i64::MAX);
        assert_eq!(Calendar::default().due(0), i64::MAX);
        let daily = Calendar { every: None, at: Some((Boundary::Day, zone("UTC").expect("a zone"))) };
        assert!(daily.due(0) > 0 && daily.due(-1) == 0 && daily.due(i64::MAX) == i64::MAX);
        assert!(zone("Europe/Atlantis").is_err());
    }
}
