//! Days of a time zone, for reports: names and the UTC instants at which they begin.
//!
//! In: boundaries, found by whoever knows the zone (the command line, with its library of time zones). Out: the day of an
//! instant. Charges stay UTC hours (rule R4); only how they are added up changes, so a day may have 23 or 25 of them. An
//! hour that a boundary cuts, as in zones half an hour off, belongs to the day in which it begins. Bound: `DAYS_MAX` days.

use flow::units::UnixNanos;

/// A century and a half.
pub const DAYS_MAX: usize = 54_788;

/// Consecutive days, each with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Days {
    names: Vec<String>,
    /// One more than names: the last one ends the last day.
    bounds: Vec<UnixNanos>,
}

impl Days {
    /// `days`: name (`2026-03-29`; reports by month take its first seven bytes) and first instant of each day, in order.
    /// `end`: the instant at which the last one ends. Says what is wrong with them.
    pub fn new(days: Vec<(String, UnixNanos)>, end: UnixNanos) -> Result<Days, String> {
        if days.is_empty() || days.len() > DAYS_MAX {
            return Err(format!("{} days; a report has 1 to {DAYS_MAX}", days.len()));
        }
        let (names, mut bounds): (Vec<String>, Vec<UnixNanos>) = days.into_iter().unzip();
        bounds.push(end);
        if let Some(late) = bounds.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(format!("day {} does not end after it begins", names[late]));
        }
        if let Some(bad) = names.iter().find(|name| name.len() < 7 || !name.is_ascii()) {
            return Err(format!("{bad:?} is no name of a day, as 2026-03-29"));
        }
        Ok(Days { names, bounds })
    }

    pub fn from(&self) -> UnixNanos {
        self.bounds[0]
    }

    pub fn to(&self) -> UnixNanos {
        self.bounds[self.names.len()]
    }

    /// Number of the day in which an instant lies; `None` outside of all of them.
    pub fn index(&self, at: UnixNanos) -> Option<usize> {
        let after = self.bounds.partition_point(|bound| *bound <= at);
        after.checked_sub(1).filter(|index| *index < self.names.len())
    }

    pub fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index).map(String::as_str)
    }

    /// First instant of a day and of the next one.
    pub fn range(&self, index: usize) -> Option<(UnixNanos, UnixNanos)> {
        Some((*self.bounds.get(index)?, *self.bounds.get(index.checked_add(1)?)?))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use flow::units::{NANOS_PER_HOUR, NANOS_PER_SECOND};
    use jiff::{Timestamp, civil::Date, tz::TimeZone};

    /// What the command line does: the first instants of the local days of a zone.
    pub(crate) fn days_of(zone: &str, first: Date, count: usize) -> Days {
        let zone = TimeZone::get(zone).unwrap();
        let start = |date: Date| UnixNanos(date.to_zoned_datetime(zone.clone()).unwrap().timestamp().as_nanosecond() as i64);
        let dates: Vec<Date> = first.series(jiff::Span::new().days(1)).take(count + 1).collect();
        let days = dates[..count].iter().map(|date| (date.to_string(), start(*date))).collect();
        Days::new(days, start(dates[count])).unwrap()
    }

    fn at(text: &str) -> UnixNanos {
        UnixNanos(text.parse::<Timestamp>().unwrap().as_second() * NANOS_PER_SECOND)
    }

    #[test]
    fn p14_days_of_berlin_have_23_and_25_hours_when_clocks_change() {
        for (day, from, to, hours) in [
            ("2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23),
            ("2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25),
            ("2026-07-01", "2026-06-30T22:00:00Z", "2026-07-01T22:00:00Z", 24),
        ] {
            let days = days_of("Europe/Berlin", day.parse().unwrap(), 2);
            assert_eq!(days.range(0), Some((at(from), at(to))), "{day}");
            assert_eq!((days.to().0 - days.from().0) / NANOS_PER_HOUR, hours + 24);
            assert_eq!(days.index(at(from)), Some(0));
            assert_eq!(days.index(UnixNanos(at(from).0 - 1)), None);
            assert_eq!(days.index(at(to)), Some(1));
            assert_eq!(days.index(days.to()), None);
            assert_eq!(days.name(0), Some(day));
        }
    }

    #[test]
    fn days_that_are_none_are_refused() {
        let day = |name: &str, at: i64| (name.to_string(), UnixNanos(at));
        assert!(Days::new(vec![], UnixNanos(0)).is_err());
        assert!(Days::new(vec![day("2026-01-01", 5), day("2026-01-02", 5)], UnixNanos(9)).unwrap_err().contains("2026-01-01 does not end"));
        assert!(Days::new(vec![day("2026-01-01", 5)], UnixNanos(5)).is_err());
        assert!(Days::new(vec![day("x", 5)], UnixNanos(6)).is_err());
    }
}
