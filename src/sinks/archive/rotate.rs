//! Backups: their names, which of them are kept, their compression, and reading them back.
//!
//! A backup of `api.log` is `api-2016-11-04T18-30-00.000.log` (the newest event time in it, in UTC or a zone of choice), with
//! `-1`, `-2` before the extension where that name was given before, and `.gz` or `.zst` behind it once it is
//! compressed. Only names that read back by these rules are ever touched. Bound: files pass through in pieces
//! of [`PIECE_BYTES`], whatever their size.

use flow::units::{NANOS_PER_DAY, UnixNanos, days_from_civil};
use hub::disk::{Disk, File};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Disambiguation, TimeZone};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// How a backup is compressed at rotation. The active file is always plain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compress {
    #[default]
    None,
    Gzip,
    Zstd,
}

impl Compress {
    pub fn extension(self) -> &'static str {
        match self {
            Compress::None => "",
            Compress::Gzip => ".gz",
            Compress::Zstd => ".zst",
        }
    }
}

pub const SITE_PACK_FILE: &str = "archive packed file";
pub const SITE_PACK_RENAME: &str = "archive packed rename";
pub const SITE_PACK_FOLDER: &str = "archive packed folder";
pub const SITE_UNPACKED_FOLDER: &str = "archive unpacked unlink folder";

const PIECE_BYTES: usize = 1 << 20;
const GZIP_LEVEL: u32 = 4; // a tenth larger than level 6 at twice its speed, on log lines
const ZSTD_LEVEL: i32 = 3;
const STAMP_BYTES: usize = "2016-11-04T18-30-00.000".len();
const PACKED: [&str; 2] = [".gz", ".zst"];

/// What the name of a backup says, ordered by age: older ones are smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    pub time_ms: i64,
    /// 0 for the first backup of this millisecond, then 1, 2 ...
    pub clash: u32,
}

/// The stamp for a backup whose newest event is at `time_ms`, as its name will be read back: never one of `taken`, and the last one
/// of its instant. In the hour that daylight saving repeats a name cannot say which of both it is: it is read as the second, and
/// never sorts before one that was given earlier in that hour.
pub fn choose_stamp(time_ms: i64, taken: &[Stamp], zone: &TimeZone) -> Stamp {
    let mut time_ms = parse_stamp(&stamp_text(time_ms, zone), zone).unwrap_or(time_ms);
    if is_repeated(time_ms, zone) {
        time_ms = taken.iter().map(|s| s.time_ms).filter(|ms| *ms > time_ms && is_repeated(*ms, zone)).fold(time_ms, i64::max);
    }
    let clash = taken.iter().filter(|s| s.time_ms == time_ms).map(|s| s.clash + 1).max().unwrap_or(0);
    Stamp { time_ms, clash }
}

/// `server.log` at an instant -> `server-2016-11-04T18-30-00.000.log`.
pub fn backup_name(base: &str, stamp: Stamp, zone: &TimeZone) -> String {
    let (stem, ext) = split_extension(base);
    let time = stamp_text(stamp.time_ms, zone);
    match stamp.clash {
        0 => format!("{stem}-{time}{ext}"),
        n => format!("{stem}-{time}-{n}{ext}"),
    }
}

/// Reads back what [`backup_name`] wrote, with or without `.gz` or `.zst`; `None` for every other name.
pub fn parse_backup(base: &str, name: &str, zone: &TimeZone) -> Option<Stamp> {
    let (stem, ext) = split_extension(base);
    let plain = unpacked_name(name);
    let middle = plain.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(ext)?;
    let (time, rest) = (middle.get(..STAMP_BYTES)?, middle.get(STAMP_BYTES..)?);
    let clash = match rest.strip_prefix('-') {
        None if rest.is_empty() => 0,
        None => return None,
        Some(digits) if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) => return None,
        Some(digits) => digits.parse().ok()?,
    };
    Some(Stamp { time_ms: parse_stamp(time, zone)?, clash })
}

/// The active file that a backup belongs to: `api-2016-11-04T18-30-00.000.log.gz` -> `api.log`.
pub fn base_of(name: &str) -> Option<String> {
    let plain = unpacked_name(name);
    let at = (0..plain.len()).rev().find(|&at| has_stamp_at(plain.as_bytes(), at))?;
    let rest = plain.get(at + 1 + STAMP_BYTES..)?;
    let ext = match rest.find('.') {
        Some(dot) => &rest[dot..],
        None => "",
    };
    let base = format!("{}{ext}", &plain[..at]);
    parse_backup(&base, name, &TimeZone::UTC).map(|_| base)
}

/// Is this a name that rotation keeps for itself? No active file may have one.
pub fn is_reserved(name: &str) -> bool {
    let bytes = name.as_bytes();
    let packed = PACKED.iter().any(|ext| name.ends_with(ext)) || name.ends_with(".tmp");
    packed || (0..bytes.len()).any(|at| has_stamp_at(bytes, at))
}

pub fn unpacked_name(name: &str) -> &str {
    PACKED.iter().find_map(|ext| name.strip_suffix(ext)).unwrap_or(name)
}

/// (`server`, `.log`): the extension is what follows the last dot, unless that begins the name.
fn split_extension(base: &str) -> (&str, &str) {
    match base.rfind('.') {
        Some(dot) if dot > 0 => base.split_at(dot),
        _ => (base, ""),
    }
}

fn stamp_text(time_ms: i64, zone: &TimeZone) -> String {
    // Beyond what the tz database knows, UTC is as good as any.
    let local_ms = Timestamp::from_millisecond(time_ms).map_or(0, |at| i64::from(zone.to_offset(at).seconds()) * 1_000);
    let c = UnixNanos(time_ms.saturating_add(local_ms).saturating_mul(1_000_000)).civil();
    format!("{:04}-{:02}-{:02}T{:02}-{:02}-{:02}.{:03}", c.year, c.month, c.day, c.hour, c.minute, c.second, c.nano / 1_000_000)
}

fn parse_stamp(text: &str, zone: &TimeZone) -> Option<i64> {
    if !is_stamp(text.as_bytes()) {
        return None;
    }
    let number = |at: std::ops::Range<usize>| text[at].parse::<u32>().ok();
    let days = days_from_civil(text[0..4].parse().ok()?, number(5..7)?, number(8..10)?);
    let day_ms = i64::from(number(11..13)?) * 3_600_000
        + i64::from(number(14..16)?) * 60_000
        + i64::from(number(17..19)?) * 1_000
        + i64::from(number(20..23)?);
    let time_ms = days * (NANOS_PER_DAY / 1_000_000) + day_ms;
    // Only what we would have written: no month 13, no second 60, no year that nanoseconds cannot hold.
    time_ms.checked_mul(1_000_000)?;
    if stamp_text(time_ms, &TimeZone::UTC) != text {
        return None;
    }
    let local = civil(time_ms).and_then(|local| zone.to_ambiguous_timestamp(local).disambiguate(Disambiguation::Later).ok());
    Some(local.map_or(time_ms, Timestamp::as_millisecond))
}

/// The reading of a clock that shows UTC.
fn civil(time_ms: i64) -> Option<DateTime> {
    Timestamp::from_millisecond(time_ms).ok().map(|at| TimeZone::UTC.to_datetime(at))
}

/// Does a clock in this zone show the time of this instant twice?
fn is_repeated(time_ms: i64, zone: &TimeZone) -> bool {
    let local = Timestamp::from_millisecond(time_ms).map(|at| zone.to_datetime(at));
    local.is_ok_and(|local| matches!(zone.to_ambiguous_timestamp(local).offset(), AmbiguousOffset::Fold { .. }))
}

fn is_stamp(text: &[u8]) -> bool {
    let pattern = b"dddd-dd-ddTdd-dd-dd.ddd";
    text.len() == STAMP_BYTES && text.iter().zip(pattern).all(|(b, p)| if *p == b'd' { b.is_ascii_digit() } else { b == p })
}

fn has_stamp_at(name: &[u8], at: usize) -> bool {
    name[at] == b'-' && name.get(at + 1..at + 1 + STAMP_BYTES).is_some_and(is_stamp)
}

/// One backup in a folder; `names` holds its plain and its compressed file where both exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub stamp: Stamp,
    pub names: Vec<String>,
}

/// The backups of `base` in its folder, oldest first.
pub fn backups_of(disk: &Disk, folder: &Path, base: &str, zone: &TimeZone) -> io::Result<Vec<Backup>> {
    let mut found: Vec<Backup> = Vec::new();
    for path in disk.list(folder)? {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let Some(stamp) = parse_backup(base, name, zone) else { continue };
        if !disk.is_file(&folder.join(name))? {
            continue; // a folder or symlink of this name is nobody's backup
        }
        match found.iter_mut().find(|b| b.stamp == stamp) {
            Some(backup) => backup.names.push(name.to_string()),
            None => found.push(Backup { stamp, names: vec![name.to_string()] }),
        }
    }
    found.sort_by_key(|b| b.stamp);
    Ok(found)
}

/// How many of `backups` (oldest first) go: all but the newest `keep` (0 = all stay), and those before `since_ms`.
pub fn expired(backups: &[Backup], keep: u32, since_ms: Option<i64>) -> usize {
    let surplus = if keep == 0 { 0 } else { backups.len().saturating_sub(keep as usize) };
    let aged = since_ms.map_or(0, |since| backups.iter().filter(|b| b.stamp.time_ms < since).count());
    surplus.max(aged)
}

/// Writes the compressed copy of `plain` beside it, makes it durable, then removes `plain`. Whatever stood
/// under the compressed name is replaced: beside its original it may be half of one.
pub fn pack(disk: &Disk, plain: &Path, compress: Compress) -> io::Result<()> {
    let packed = with_suffix(plain, compress.extension());
    let tmp = with_suffix(&packed, ".tmp");
    let folder = plain.parent().unwrap_or(Path::new(""));
    if let Err(error) = pack_into(disk, plain, &tmp, compress) {
        // Best effort: the next attempt truncates it anyway, and recovery removes it.
        let _ = disk.unlink(&tmp);
        return Err(error);
    }
    disk.rename(&tmp, &packed, SITE_PACK_RENAME)?;
    disk.sync_dir(folder, SITE_PACK_FOLDER)?;
    disk.unlink(plain)?;
    // Before anybody forgets that this file was to be compressed: a removal that comes undone would leave both.
    disk.sync_dir(folder, SITE_UNPACKED_FOLDER)
}

fn pack_into(disk: &Disk, plain: &Path, tmp: &Path, compress: Compress) -> io::Result<()> {
    let mut input = Pieces::open(disk, plain);
    match disk.unlink(tmp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // Never through a symlink that somebody left under this name.
    let file = disk.create_new(tmp)?;
    if let Disk::Real = disk {
        super::commit::dress(&file, &std::fs::metadata(plain)?);
    }
    let output = Output { file, piece: Vec::new() };
    let mut output = match compress {
        Compress::None => {
            let mut output = output;
            io::copy(&mut input, &mut output)?;
            output
        }
        Compress::Gzip => {
            // mtime 0 and no name: the same lines give the same file.
            let mut encoder = flate2::GzBuilder::new().mtime(0).write(output, flate2::Compression::new(GZIP_LEVEL));
            io::copy(&mut input, &mut encoder)?;
            encoder.finish()?
        }
        Compress::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(output, ZSTD_LEVEL)?;
            encoder.include_checksum(true)?;
            io::copy(&mut input, &mut encoder)?;
            encoder.finish()?
        }
    };
    output.flush()?;
    output.file.sync(SITE_PACK_FILE)
}

/// Counts the lines of a file, compressed or not; an unfinished last line counts as one.
pub fn count_lines(disk: &Disk, path: &Path) -> io::Result<u64> {
    let pieces = Pieces::open(disk, path);
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => count_newlines(flate2::read::MultiGzDecoder::new(pieces)),
        Some("zst") => count_newlines(zstd::stream::read::Decoder::new(pieces)?),
        _ => count_newlines(pieces),
    }
}

fn count_newlines(mut input: impl Read) -> io::Result<u64> {
    let mut piece = vec![0; 1 << 16];
    let (mut lines, mut is_open) = (0, false);
    loop {
        let read = input.read(&mut piece)?;
        if read == 0 {
            return Ok(lines + u64::from(is_open));
        }
        lines += piece[..read].iter().filter(|b| **b == b'\n').count() as u64;
        is_open = piece[read - 1] != b'\n';
    }
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Reads a file of any size through the disk, one piece in memory.
struct Pieces {
    disk: Disk,
    path: PathBuf,
    offset: u64,
    piece: Vec<u8>,
    used: usize,
}

impl Pieces {
    fn open(disk: &Disk, path: &Path) -> Pieces {
        Pieces { disk: disk.clone(), path: path.to_path_buf(), offset: 0, piece: Vec::new(), used: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.used == self.piece.len() {
            self.piece = self.disk.read_at(&self.path, self.offset, PIECE_BYTES)?;
            self.offset += self.piece.len() as u64;
            self.used = 0;
        }
        let taken = out.len().min(self.piece.len() - self.used);
        out[..taken].copy_from_slice(&self.piece[self.used..self.used + taken]);
        self.used += taken;
        Ok(taken)
    }
}

/// Gathers what a compressor writes into appends of one piece.
struct Output {
    file: File,
    piece: Vec<u8>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.file.append(&self.piece)?;
            self.piece.clear();
        }
        Ok(())
    }
}
