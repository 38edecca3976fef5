//! Names of rotated files: which log a file was renamed away from, and in which order.
//!
//! A file that is found only after its rename would else be a log of its own, and a record split over two files
//! two records. Known: `app.log.1`, `0.log.20240101-000000`, `app.log-2024-01-01`, `app-2024-01-01T00-00-00.000.log`,
//! each also with `.gz` or `.zst`. Pure: asks only names.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

/// Endings of compressed files.
const PACKED: [&str; 4] = [".gz", ".zst", ".bz2", ".xz"];

/// The name without the ending of a compressed file.
fn unpacked(name: &str) -> &str {
    PACKED.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// The log that a file was renamed away from, going by its name alone; `None` where the name says nothing.
pub fn rotated_from(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let plain = unpacked(name);
    if let Some((stem, _)) = behind(plain).or_else(|| within(plain).map(|(stem, stamp, _)| (stem, stamp))) {
        let ending = within(plain).filter(|_| behind(plain).is_none()).map_or("", |w| w.2);
        return Some(path.with_file_name(format!("{stem}{ending}")));
    }
    (plain.len() < name.len()).then(|| path.with_file_name(plain))
}

/// `app.log.1`: (app.log, 1).
fn behind(name: &str) -> Option<(&str, &str)> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.' | '_' | ':' | 'T' | 'Z'));
    let suffix = &name[stem.len()..];
    // `worker-1` beside `worker` are two services; `app.log-1` beside `app.log` are not.
    let separated = suffix.starts_with('.') || (suffix.starts_with('-') && stem.contains('.'));
    let starts_well = separated && suffix[1..].starts_with(|c: char| c.is_ascii_digit());
    (starts_well && !stem.is_empty()).then(|| (stem, &suffix[1..]))
}

/// `app-2024-01-01T00-00-00.000.log`: (app, 2024-01-01T00-00-00.000, .log). The stamp starts with a date.
fn within(name: &str) -> Option<(&str, &str, &str)> {
    let dot = name.rfind('.').filter(|dot| *dot > 0 && !name[dot + 1..].starts_with(|c: char| c.is_ascii_digit()))?;
    let (body, ending) = name.split_at(dot);
    let stem = body.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.' | '_' | ':' | 'T' | 'Z'));
    let stamp = body[stem.len()..].strip_prefix(['-', '.', '_'])?;
    let digits: String = stamp.chars().filter(char::is_ascii_digit).take(8).collect();
    let is_date = digits.len() == 8 && matches!(&digits[..2], "19" | "20") && ("01"..="12").contains(&&digits[4..6]);
    (is_date && !stem.is_empty()).then_some((stem, stamp, ending))
}

/// Where a file stands in its log: the oldest comes first, the one that has the log's name last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Age {
    /// Numbered: the higher, the older.
    Number(u64),
    /// Stamped with a time.
    Stamp(String),
    Live,
}

impl Age {
    pub fn of(path: &Path, log: &Path) -> Age {
        if path == log {
            return Age::Live;
        }
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let plain = unpacked(name);
        let suffix = behind(plain).map(|b| b.1).or_else(|| within(plain).map(|w| w.1)).unwrap_or_default();
        match suffix.parse() {
            Ok(number) if suffix.len() < 6 => Age::Number(number),
            _ => Age::Stamp(suffix.to_string()),
        }
    }

    /// Whether names tell which of two files is older: not where a log has numbered files and stamped ones.
    pub fn compares(&self, other: &Age) -> bool {
        !matches!((self, other), (Age::Number(_), Age::Stamp(_)) | (Age::Stamp(_), Age::Number(_)))
    }

    fn rank(&self) -> u8 {
        match self {
            Age::Number(_) => 0,
            Age::Stamp(_) => 1,
            Age::Live => 2,
        }
    }
}

impl Ord for Age {
    fn cmp(&self, other: &Age) -> Ordering {
        match (self, other) {
            (Age::Number(a), Age::Number(b)) => b.cmp(a),
            (Age::Stamp(a), Age::Stamp(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Age) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_known_by_their_names() {
        for (name, log) in [
            ("/l/app.log.1", Some("/l/app.log")),
            ("/l/app.log.1.gz", Some("/l/app.log")),
            ("/l/app.log.gz", Some("/l/app.log")),
            ("/l/0.log.20240101-000000", Some("/l/0.log")),
            ("/l/0.log.20240101-000000.gz", Some("/l/0.log")),
            ("/l/app.log-2024-01-01", Some("/l/app.log")),
            ("/l/app.log-20240101.zst", Some("/l/app.log")),
            ("/l/app-2024-01-01T00-00-00.000.log", Some("/l/app.log")),
            ("/l/app-2024-01-01T00-00-00.000.log.gz", Some("/l/app.log")),
            ("/l/app-20240101.log", Some("/l/app.log")),
            ("/l/app.log", None),
            ("/l/app.log.json", None),
            ("/l/app-7d9f", None),
            ("/l/app-7.log", None),
            ("/l/shard-12345678.log", None),
            ("/l/worker-1", None),
            ("/l/12", None),
        ] {
            assert_eq!(rotated_from(Path::new(name)), log.map(PathBuf::from), "{name}");
        }
    }

    #[test]
    fn the_oldest_file_of_a_log_comes_first() {
        let log = Path::new("/l/a.log");
        let mut names = ["/l/a.log", "/l/a.log.1", "/l/a.log.10.gz", "/l/a.log.2.gz", "/l/a.log.3"];
        names.sort_by_key(|n| Age::of(Path::new(n), log));
        assert_eq!(names, ["/l/a.log.10.gz", "/l/a.log.3", "/l/a.log.2.gz", "/l/a.log.1", "/l/a.log"]);
        let mut names = ["/l/a.log", "/l/a.log.20240102-000000", "/l/a.log.20240101-000000.gz"];
        names.sort_by_key(|n| Age::of(Path::new(n), log));
        assert_eq!(names, ["/l/a.log.20240101-000000.gz", "/l/a.log.20240102-000000", "/l/a.log"]);
    }
}
