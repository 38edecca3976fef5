//! Where things lie in a lake: folders by table, tenant, day and hour, and names made from content.
//!
//! A tenant is any bytes; its folder name is safe on every file system and cannot climb out of the lake:
//! all but letters, digits, `-`, `_` and inner dots is percent-encoded, and a long name is cut and marked
//! with its hash. The escaped form in the commit log is never cut, so nothing is lost there.

use flow::units::{NANOS_PER_DAY, NANOS_PER_HOUR, civil_from_days};
use sha2::{Digest, Sha256};
use std::fmt::Write;

pub(crate) const COMMITS: &str = "_commits";
pub(crate) const LOGS: &str = "logs";
pub(crate) const USAGE: &str = "usage";
pub(crate) const LINEAGE: &str = "lineage";
pub(crate) const CHARGES: &str = "charges";
pub(crate) const METRICS: &str = "metrics";
pub(crate) const TRACES: &str = "traces";
pub(crate) const TABLES: [&str; 6] = [LOGS, METRICS, TRACES, USAGE, LINEAGE, CHARGES];
/// Tables whose rows are kept records: each record is in one of them.
pub(crate) const RECORDS: [&str; 3] = [LOGS, METRICS, TRACES];
/// The tenant of rows that are about the platform itself.
pub(crate) const NOBODY: &[u8] = b"_weir";

/// Longest tenant folder name before it is cut; file systems stop at 255.
const FOLDER_BYTES_MAX: usize = 100;

/// A tenant as printable ASCII, reversibly. The empty tenant is a lone `%`.
pub(crate) fn escape_tenant(tenant: &[u8]) -> String {
    if tenant.is_empty() {
        return "%".into();
    }
    let mut out = String::with_capacity(tenant.len());
    for (i, byte) in tenant.iter().enumerate() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(*byte)),
            b'.' if i > 0 => out.push('.'),
            _ => push_hex(&mut out, *byte),
        }
    }
    out
}

fn push_hex(out: &mut String, byte: u8) {
    write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
}

/// Inverse of [`escape_tenant`]; `None` for what it never writes.
pub(crate) fn unescape_tenant(text: &str) -> Option<Vec<u8>> {
    if text == "%" {
        return Some(Vec::new());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
        out.push(u8::from_str_radix(hex, 16).ok()?);
        rest = &rest[2..];
    }
    Some(out)
}

fn tenant_folder(tenant: &[u8]) -> String {
    let whole = escape_tenant(tenant);
    if whole.len() <= FOLDER_BYTES_MAX {
        return format!("tenant={whole}");
    }
    let mut cut = FOLDER_BYTES_MAX - 20;
    while whole[..cut].ends_with('%') || whole[..cut - 1].ends_with('%') {
        cut -= 1; // not inside an escape
    }
    // `%~` is no escape, so no short name can look like a cut one.
    format!("tenant={}%~{}", &whole[..cut], content_name(tenant))
}

/// `logs/tenant=T/day=D`, or with the hour.
pub(crate) fn folder(table: &str, tenant: &[u8], day: i64, hour: Option<u8>) -> String {
    let (year, month, date) = civil_from_days(day);
    let mut path = format!("{table}/{}/day={year:04}-{month:02}-{date:02}", tenant_folder(tenant));
    if let Some(hour) = hour {
        write!(path, "/hour={hour:02}").expect("writing to a string cannot fail");
    }
    path
}

/// Days since the epoch, and the hour of that day.
pub(crate) fn day_and_hour(time_ns: i64) -> (i64, u8) {
    let hour = time_ns.rem_euclid(NANOS_PER_DAY) / NANOS_PER_HOUR;
    (time_ns.div_euclid(NANOS_PER_DAY), u8::try_from(hour).expect("a day has 24 hours"))
}

/// 16 hex digits that stand for these bytes.
pub(crate) fn content_name(bytes: &[u8]) -> String {
    hash_hex(8, &[bytes])
}

/// The first `len` bytes of the SHA-256 of the pieces put together, in hexadecimal.
pub(crate) fn hash_hex(len: usize, pieces: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update(piece);
    }
    hash.finalize().iter().take(len).fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a string cannot fail");
        out
    })
}

pub(crate) fn commit_name(number: u64) -> String {
    format!("{number:08}.json")
}

/// The number of a commit file's name.
pub(crate) fn commit_number(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok().filter(|n| commit_name(*n) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_cannot_leave_its_folder_and_comes_back_whole() {
        for tenant in [
            &b"acme-search"[..],
            b"../x",
            b"..",
            b".",
            b"",
            b"a/b",
            b"a b%",
            b"\xff\xfe",
            b"a.b.",
            "zürich".as_bytes(),
            &b"x".repeat(10_000),
            &b"/".repeat(10_000),
        ] {
            let escaped = escape_tenant(tenant);
            assert_eq!(unescape_tenant(&escaped).as_deref(), Some(tenant), "{escaped}");
            let path = folder(LOGS, tenant, 20_000, Some(7));
            let parts: Vec<&str> = path.split('/').collect();
            assert_eq!((parts.len(), parts[2], parts[3]), (4, "day=2024-10-04", "hour=07"), "{path}");
            assert!(parts[1].len() < 120 && parts[1].bytes().all(|b| b.is_ascii_graphic()), "{path}");
        }
    }

    #[test]
    fn different_tenants_have_different_folders() {
        let tenants: Vec<Vec<u8>> = vec![
            b"".to_vec(),
            b"%".to_vec(),
            b"a".to_vec(),
            b"A".to_vec(),
            b"%41".to_vec(),
            b"x".repeat(101),
            b"x".repeat(102),
            b"x".repeat(80),
        ];
        let folders: std::collections::BTreeSet<String> = tenants.iter().map(|t| tenant_folder(t)).collect();
        assert_eq!(folders.len(), tenants.len());
    }
}
