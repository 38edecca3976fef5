//! Units of measure: whether a meter's unit and a card's unit measure the same thing, and by which exact factor.
//!
//! In: the names as meters and cards write them. Out: what is measured, and how many of its smallest units one is: all are
//! whole numbers, so every factor is an exact fraction. A name that is not in the tables (`Tokens`, `Requests`, `GPUs`) counts
//! things of that name and fits only itself. `X-Hours` is a product: one X for an hour. No bound: names are compared, not kept.

use std::borrow::Cow;

/// What a unit measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// In milliseconds.
    Time,
    /// In bytes.
    Bytes,
    /// In millijoules.
    Energy,
    /// Things of that name.
    Count(Cow<'a, str>),
    /// Bytes held, in byte-milliseconds.
    BytesTime,
    /// Energy over time, in mJ-ms.
    EnergyTime,
    /// Things of that name held, in thing-milliseconds: `GPUs-ms` and `GPU-Hours` are of one kind.
    CountTime(Cow<'a, str>),
}

/// A unit as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit<'a> {
    pub kind: Kind<'a>,
    /// How many of the kind's smallest units it is.
    pub size: u128,
}

/// A month of storage and the like: 730 h, as clouds bill it, whatever the calendar says.
const MONTH_MS: u128 = 730 * 3_600_000;

const TIME: [(&str, u128); 22] = [
    ("ms", 1),
    ("Milliseconds", 1),
    ("s", 1_000),
    ("Second", 1_000),
    ("Seconds", 1_000),
    ("seconds", 1_000),
    ("min", 60_000),
    ("Minute", 60_000),
    ("Minutes", 60_000),
    ("minutes", 60_000),
    ("h", 3_600_000),
    ("Hour", 3_600_000),
    ("Hours", 3_600_000),
    ("hours", 3_600_000),
    ("d", 86_400_000),
    ("Day", 86_400_000),
    ("Days", 86_400_000),
    ("days", 86_400_000),
    ("Month", MONTH_MS),
    ("Months", MONTH_MS),
    ("months", MONTH_MS),
    ("milliseconds", 1),
];

const BYTES: [(&str, u128); 14] = [
    ("B", 1),
    ("Byte", 1),
    ("Bytes", 1),
    ("bytes", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

const ENERGY: [(&str, u128); 9] = [
    ("mJ", 1),
    ("J", 1_000),
    ("Joules", 1_000),
    ("kJ", 1_000_000),
    ("MJ", 1_000_000_000),
    ("Wh", 3_600_000), // 1 W for 3,600 s = 3,600 J
    ("kWh", 3_600_000_000),
    ("MWh", 3_600_000_000_000),
    ("GWh", 3_600_000_000_000_000),
];

fn size_in(table: &[(&str, u128)], name: &str) -> Option<u128> {
    table.iter().find(|(known, _)| *known == name).map(|(_, size)| *size)
}

impl Unit<'_> {
    pub fn parse(name: &str) -> Unit<'_> {
        if let Some(unit) = simple(name) {
            return unit;
        }
        if let Some((held, time)) = name.rsplit_once('-')
            && let Some(ms) = size_in(&TIME, time)
            && !held.is_empty()
        {
            let of = simple(held);
            return match of.as_ref().map(|unit| &unit.kind) {
                Some(Kind::Bytes) => Unit { kind: Kind::BytesTime, size: of.map_or(1, |unit| unit.size) * ms },
                Some(Kind::Energy) => Unit { kind: Kind::EnergyTime, size: of.map_or(1, |unit| unit.size) * ms },
                // `Slices` and `Slice` are the same things; so are those of `h-Hours`, whatever they are.
                _ => Unit { kind: Kind::CountTime(Cow::Borrowed(held.strip_suffix('s').unwrap_or(held))), size: ms },
            };
        }
        Unit { kind: Kind::Count(Cow::Borrowed(name)), size: 1 }
    }

    /// Name of the smallest unit of its kind, as in `ms` or `Slices-ms`; `name` is what was parsed.
    pub fn smallest(&self, name: &str) -> String {
        match &self.kind {
            Kind::Time => "ms".into(),
            Kind::Bytes => "Bytes".into(),
            Kind::Energy => "mJ".into(),
            Kind::BytesTime => "Bytes-ms".into(),
            Kind::EnergyTime => "mJ-ms".into(),
            Kind::Count(_) => name.into(),
            Kind::CountTime(_) => format!("{}-ms", name.rsplit_once('-').map_or(name, |(held, _)| held)),
        }
    }

    /// Its size in milliseconds, if it is a time or things held for a time.
    pub fn held_ms(&self) -> Option<u128> {
        matches!(self.kind, Kind::Time | Kind::CountTime(_)).then_some(self.size)
    }
}

fn simple(name: &str) -> Option<Unit<'_>> {
    let of = |kind, table: &[(&str, u128)]| size_in(table, name).map(|size| Unit { kind, size });
    of(Kind::Time, &TIME).or_else(|| of(Kind::Bytes, &BYTES)).or_else(|| of(Kind::Energy, &ENERGY))
}

/// A quantity in the unit `metered` times the first number over the second is the quantity in the unit `priced`; reduced.
/// `None`: they do not measure the same.
///
/// A price in plain time fits things held for a time, each of them: `Hours` fits `GPUs-ms`. It does not fit bytes held.
pub fn scale(metered: &str, priced: &str) -> Option<(u128, u128)> {
    if metered == priced {
        return Some((1, 1));
    }
    let (from, to) = (Unit::parse(metered), Unit::parse(priced));
    let fits = from.kind == to.kind || matches!((&from.kind, &to.kind), (Kind::CountTime(_), Kind::Time));
    let common = crate::money::gcd(from.size, to.size);
    fits.then_some((from.size / common, to.size / common))
}

/// The unit of what a meter in `unit` holds over time, in milliseconds.
///
/// A meter in `GPUs` gives `GPUs-ms`. A meter that names no unit, or a unit of time, counts what is held: it gives plain `ms`,
/// so that a record with a start, an end and a quantity of 1 is so many ms.
pub fn over_time(unit: &str) -> Cow<'_, str> {
    if unit.is_empty() || size_in(&TIME, unit).is_some() { Cow::Borrowed("ms") } else { Cow::Owned(format!("{unit}-ms")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_one_kind_convert_exactly_and_others_do_not() {
        for (metered, priced, want) in [
            ("Tokens", "Tokens", Some((1, 1))),
            ("Tokens", "Requests", None),
            ("ms", "Hours", Some((1, 3_600_000))),
            ("Hours", "ms", Some((3_600_000, 1))),
            ("Seconds", "Minutes", Some((1, 60))),
            ("Days", "Months", Some((12, 365))),
            ("ms", "Bytes", None),
            ("Bytes", "GiB", Some((1, 1 << 30))),
            ("GB", "GiB", Some((1_953_125, 2_097_152))),
            ("mJ", "kWh", Some((1, 3_600_000_000))),
            ("J", "kWh", Some((1, 3_600_000))),
            ("Bytes-ms", "GiB-Hours", Some((1, (1 << 30) * 3_600_000))),
            ("MiB-ms", "GiB-Months", Some((1, 1_024 * 730 * 3_600_000))),
            ("Bytes-ms", "Hours", None),
            ("Bytes", "GiB-Hours", None),
            ("GPUs-ms", "GPU-Hours", Some((1, 3_600_000))),
            ("GPUs-ms", "Hours", Some((1, 3_600_000))),
            ("ms", "GPU-Hours", None),
            ("Slices-ms", "GPU-Hours", None),
            ("Slices-ms", "Slices-Hours", Some((1, 3_600_000))),
            ("vCPU-Seconds", "vCPU-Hours", Some((1, 3_600))),
            ("", "Tokens", None),
        ] {
            assert_eq!(scale(metered, priced), want, "{metered} priced in {priced}");
        }
        assert_eq!(over_time("GPUs"), "GPUs-ms");
        assert_eq!((over_time("Seconds"), over_time(""), over_time("ms")), ("ms".into(), "ms".into(), "ms".into()));
        assert_eq!(over_time("MiB"), "MiB-ms");
    }
}
