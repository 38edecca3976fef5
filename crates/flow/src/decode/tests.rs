//! Lines and joined lines, cut into chunks, flushed and restarted at every place.

use super::*;
use crate::batch::Law;
use crate::event::{Note, Skip};
use std::collections::VecDeque;

const LIMITS: Limits = Limits { line_bytes_max: 64, join_bytes_max: 100, join_age_ns: 30_000 };
const GROUP_AGE: i64 = 1_000;
const LATE: UnixNanos = UnixNanos(1_000_000);
const T: &str = "2016-10-06T00:17:09.669794202Z";

const CUT: u32 = 1 << Note::Truncated as u32;
const PARTIAL: u32 = 1 << Note::Partial as u32;
const RAW: u32 = 1 << Note::NotCri as u32;
const TAG: u32 = 1 << Note::UnknownTag as u32;
const NO_END: u32 = 1 << Note::Unterminated as u32;
const BAD: u32 = 1 << Note::InvalidUtf8 as u32;

/// How a stream is decoded in a test.
#[derive(Clone)]
struct Setup {
    format: Format,
    limits: Limits,
    multiline: Option<MultilineConfig>,
    encoding: Encoding,
}

fn plain(format: Format) -> Setup {
    Setup { format, limits: LIMITS, multiline: None, encoding: Encoding::Auto }
}

fn grouped(format: Format, by: impl FnOnce(&mut MultilineConfig)) -> Setup {
    let mut config = MultilineConfig {
        preset: None,
        start: None,
        continuation: None,
        end: None,
        rules: Vec::new(),
        lines_max: 1_000,
        bytes_max: crate::units::ByteSize(1 << 20),
        age: crate::units::Span(GROUP_AGE),
    };
    by(&mut config);
    Setup { limits: Limits { line_bytes_max: 200, ..LIMITS }, multiline: Some(config), ..plain(format) }
}

impl Setup {
    fn decoder(&self) -> Decoder {
        let multiline = self.multiline.as_ref().map(|config| Multiline::new(config).unwrap());
        Decoder::new(self.format, self.limits).with(multiline, self.encoding)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    text: String,
    time: String,
    notes: u32,
    origin_bytes: u32,
}

/// A lane in small: one log of several files, read in chunks.
struct Lane {
    setup: Setup,
    decoder: Decoder,
    files: Vec<Vec<u8>>,
    file: usize,
    at: u64,
    /// (resume, done) of the files before, newest first.
    older: VecDeque<(u64, u64)>,
    batch: Batch,
    records: Vec<Record>,
    law: Law,
}

impl Lane {
    fn new(setup: &Setup, files: &[&[u8]]) -> Lane {
        Lane {
            setup: setup.clone(),
            decoder: setup.decoder(),
            files: files.iter().map(|f| f.to_vec()).collect(),
            file: 0,
            at: 0,
            older: VecDeque::new(),
            batch: Batch::default(),
            records: Vec::new(),
            law: Law::default(),
        }
    }

    fn size(&self) -> usize {
        self.files[self.file].len()
    }

    /// Shows the decoder what lies up to `seen`; returns how many bytes were used.
    #[track_caller]
    fn show(&mut self, seen: usize, end: End, now: UnixNanos) -> usize {
        self.batch.arena.clear();
        self.batch.arena.extend_from_slice(&self.files[self.file][self.at as usize..seen]);
        let used = self.decoder.decode(&mut self.batch, self.at, end, now);
        self.take(self.at, used);
        self.at += used as u64;
        used
    }

    #[track_caller]
    fn take(&mut self, from: u64, used: usize) {
        let batch = &self.batch;
        let to = from + used as u64;
        for i in 0..batch.len() {
            let position = batch.position[i];
            assert!(from < position && position <= to, "a record is named {position} in the part ({from}, {to}]");
            self.records.push(Record {
                text: String::from_utf8_lossy(batch.record(i)).into_owned(),
                time: String::from_utf8_lossy(batch.outer_time(i)).into_owned(),
                notes: batch.notes[i],
                origin_bytes: batch.origin_bytes[i],
            });
        }
        assert_eq!(batch.law.total(), used as i64, "every byte has a use: {:?}", batch.law);
        self.law.add(&batch.law);
    }

    /// Names what is held by the unused newline of the file that has it.
    #[track_caller]
    fn flush(&mut self) {
        let ago = self.decoder.spare().expect("something is held") as usize;
        let done = if ago == 0 { self.at } else { self.older[ago - 1].1 };
        let used = self.decoder.flush(&mut self.batch, done + self.decoder.found.width() as u64);
        self.take(done, used);
        match ago {
            0 => self.at += used as u64,
            _ => self.older[ago - 1].1 += used as u64,
        }
    }

    /// Goes on to the next file; files held by nothing are forgotten.
    fn next_file(&mut self) {
        let resume = self.decoder.oldest_held(1).unwrap_or(self.at);
        self.older.push_front((resume, self.at));
        self.file += 1;
        self.at = 0;
        self.settle();
    }

    fn settle(&mut self) {
        for (n, older) in self.older.iter_mut().enumerate() {
            older.0 = self.decoder.oldest_held(n as u32 + 1).unwrap_or(older.1);
        }
    }

    /// Forgets everything but positions, and reads again what they say.
    fn restart(&mut self, chunk: usize) {
        self.settle();
        let resume = self.decoder.oldest_held(0).unwrap_or(self.at);
        self.decoder = self.setup.decoder();
        let first = self.older.iter().rposition(|older| older.0 < older.1);
        for n in (0..first.map_or(0, |first| first + 1)).rev() {
            let (resume, done) = self.older[n];
            self.replay(self.file - n - 1, resume, done, chunk);
            self.batch.arena.clear();
            let used = self.decoder.decode(&mut self.batch, done, End::File, UnixNanos(0));
            assert_eq!((used, self.batch.len()), (0, 0));
        }
        self.replay(self.file, resume, self.at, chunk);
    }

    fn replay(&mut self, file: usize, resume: u64, done: u64, chunk: usize) {
        let mut at = resume;
        let mut len = chunk;
        self.decoder.set_encoding(encoding_of(&self.files[file]));
        while at < done {
            let bytes = &self.files[file];
            let stop = at as usize + len;
            let stop = if stop < done as usize { stop } else { bytes.len().min(done as usize + 2) };
            self.batch.arena.clear();
            self.batch.arena.extend_from_slice(&bytes[at as usize..stop]);
            let used = self.decoder.replay(&mut self.batch, at, done, UnixNanos(0));
            assert!(self.batch.is_empty());
            at += used as u64;
            len = if used == 0 { len + chunk } else { chunk };
        }
        assert_eq!(at, done);
    }
}

/// Reads all files in chunks of `chunk` bytes. At the call `restart` the process starts anew; `flush`: at that call
/// everything held is as old as can be.
#[track_caller]
fn drive(setup: &Setup, files: &[&[u8]], chunk: usize, restart: Option<usize>, flush: Option<usize>) -> Lane {
    let mut lane = Lane::new(setup, files);
    let mut call = 0;
    loop {
        let mut seen = 0;
        loop {
            seen = (seen + chunk).min(lane.size());
            let ended = seen == lane.size();
            let last = lane.file + 1 == lane.files.len();
            if restart == Some(call) {
                lane.restart(chunk);
            }
            if flush == Some(call) {
                let due = lane.decoder.due(LATE);
                let here = lane.decoder.spare() == Some(0);
                lane.show(seen, End::Idle, LATE);
                assert!(!due || !here || !lane.decoder.due(LATE), "what is due goes");
                if lane.decoder.due(LATE) && lane.decoder.spare() > Some(0) {
                    lane.flush();
                }
                lane.settle();
            }
            call += 1;
            let follows = lane.files[lane.file][seen..].iter().any(|b| *b != 0);
            let end = match (ended, last) {
                (false, _) if follows => End::Hole,
                (false, _) => End::Open,
                (true, false) => End::File,
                (true, true) => End::Log,
            };
            // An idle turn changes nothing as long as nothing is old.
            lane.show(seen, End::Idle, UnixNanos(0));
            lane.show(seen, end, UnixNanos(0));
            if ended {
                break;
            }
        }
        if lane.file + 1 == lane.files.len() && lane.decoder.spare().is_some() {
            lane.flush();
        }
        if lane.file + 1 == lane.files.len() {
            break;
        }
        lane.next_file();
    }
    assert_eq!(lane.law.held_bytes, 0, "nothing is held at the end");
    assert_eq!(lane.at as usize, lane.size(), "everything was used");
    lane
}

/// What comes of `files`, the same in chunks of every size and after a restart at every place.
#[track_caller]
fn decode(setup: &Setup, files: &[&[u8]]) -> Lane {
    let longest = files.iter().map(|f| f.len()).max().unwrap_or(0);
    let whole = drive(setup, files, longest + 1, None, None);
    for chunk in 1..=longest + 1 {
        let lane = drive(setup, files, chunk, None, None);
        assert_eq!(lane.records, whole.records, "in chunks of {chunk}");
        let skipped = |law: &Law| Skip::ALL.map(|s| law.skipped.iter().filter(|e| e.0 == s).map(|e| e.1).sum::<u64>());
        assert_eq!(skipped(&lane.law), skipped(&whole.law), "in chunks of {chunk}");
    }
    for chunk in [1, 2, 7, 40, 100] {
        let calls: usize = files.iter().map(|f| f.len() / chunk + 2).sum();
        for call in 0..calls {
            let lane = drive(setup, files, chunk, Some(call), None);
            assert_eq!(lane.records, whole.records, "in chunks of {chunk}, with a restart before call {call}");
            // A flush may divide records, but it loses and doubles nothing.
            let flushed = drive(setup, files, chunk, None, Some(call));
            assert_eq!(flushed.law.records_bytes, whole.law.records_bytes, "in chunks of {chunk}, with a flush before call {call}");
        }
    }
    whole
}

#[track_caller]
fn check_files(setup: &Setup, files: &[&[u8]], want: &[(&str, u32)]) -> Lane {
    let lane = decode(setup, files);
    let got: Vec<(&str, u32)> = lane.records.iter().map(|r| (r.text.as_str(), r.notes)).collect();
    assert_eq!(got, want);
    lane
}

#[track_caller]
fn check(setup: Setup, input: impl AsRef<[u8]>, want: &[(&str, u32)]) -> Lane {
    check_files(&setup, &[input.as_ref()], want)
}

#[track_caller]
fn skipped(lane: &Lane, reason: Skip, bytes: u64) {
    assert_eq!(lane.law.skipped.iter().find(|s| s.0 == reason).map_or(0, |s| s.1), bytes, "{reason:?}");
}

/// Each `line` is a CRI line without its time.
fn cri(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{T} {line}\n")).collect()
}

#[test]
fn lines_end_at_newlines_wherever_the_chunks_end() {
    let lane = check(plain(Format::Text), b"a\nbb\r\n\n  \nc", &[("a", 0), ("bb", 0), ("c", NO_END)]);
    skipped(&lane, Skip::Blank, 2);
    check(plain(Format::Text), b"", &[]);
    check(plain(Format::Text), b"\n\n", &[]);
}

#[test]
fn scenario_26_a_line_that_is_too_long_is_cut_once() {
    let input = [b"x".repeat(200), b"\nshort\n".to_vec()].concat();
    let cut = "x".repeat(64);
    let lane = check(plain(Format::Text), &input, &[(&cut, CUT), ("short", 0)]);
    skipped(&lane, Skip::LineTooLong, 136);
    check(plain(Format::Text), [&b"x".repeat(200)[..], b"\r\n"].concat(), &[(&cut, CUT)]);
    for len in 62..68 {
        let line = "y".repeat(len);
        let want = if len > 64 { ("y".repeat(64), CUT) } else { (line.clone(), 0) };
        check(plain(Format::Text), format!("{line}\r\nz\n"), &[(&want.0, want.1), ("z", 0)]);
        check(plain(Format::Text), &line, &[(&want.0, want.1 | NO_END)]);
    }
}

#[test]
fn scenario_27_no_limit_cuts_a_character_in_two() {
    for (lead, character) in [(63, "\u{e9}"), (62, "\u{20ac}"), (63, "\u{20ac}"), (61, "\u{1f600}"), (63, "\u{1f600}")] {
        let head = "x".repeat(lead);
        let lane = check(plain(Format::Text), format!("{head}{character}yyy\nz\n"), &[(&head, CUT), ("z", 0)]);
        skipped(&lane, Skip::LineTooLong, character.len() as u64 + 3);
        check(plain(Format::Text), format!("{head}{character}{}\nz\n", "y".repeat(90)), &[(&head, CUT), ("z", 0)]);
    }
    let whole = format!("{}\u{e9}", "x".repeat(62));
    check(plain(Format::Text), format!("{whole}yyy\n"), &[(&whole, CUT)]);
    // No UTF-8 at all: cut at the limit.
    let lane = check(plain(Format::Text), [&b"\xBF".repeat(70)[..], b"\n"].concat(), &[(&"\u{fffd}".repeat(64), CUT)]);
    assert_eq!(lane.law.records_bytes, 64);
}

#[test]
fn scenario_29_only_a_newline_ends_a_line() {
    let lane = check(plain(Format::Text), b"10%\r20%\r\r\nx\0y\n", &[("10%\r20%\r", 0), ("x\0y", 0)]);
    assert_eq!(lane.law.framing_bytes, 3);
}

#[test]
fn scenario_32_a_hole_is_skipped_and_counted() {
    let hole = [0u8; 300];
    let input = [&hole[..], b"a\n", &hole, b"b\n\0\0\0\nc\0d\n", &hole].concat();
    let lane = check(plain(Format::Text), &input, &[("a", 0), ("b", 0), ("c\0d", 0)]);
    skipped(&lane, Skip::Nul, 903);
    let parts = [cri(&["stdout P a"]).as_bytes(), &hole[..100], cri(&["stdout F b"]).as_bytes(), &hole[..9]].concat();
    let setup = Setup { limits: Limits { line_bytes_max: 200, ..LIMITS }, ..plain(Format::Cri) };
    skipped(&check(setup, &parts, &[("ab", 0)]), Skip::Nul, 109);
    skipped(&check(plain(Format::Text), b"torn\0\0\0", &[("torn", NO_END)]), Skip::Nul, 3);
}

#[test]
fn scenario_33_zeros_at_the_end_stay_unused_until_something_follows() {
    #[track_caller]
    fn check(end: End, input: &[u8], used: usize, records: usize) {
        let mut decoder = plain(Format::Text).decoder();
        let mut batch = Batch { arena: input.to_vec(), ..Batch::default() };
        assert_eq!(decoder.decode(&mut batch, 0, end, UnixNanos(0)), used);
        assert_eq!(batch.len(), records);
        assert_eq!(batch.law.total(), used as i64);
    }
    check(End::Open, b"a\n\0\0\0", 2, 1);
    check(End::Idle, b"a\nb\0\0", 2, 1);
    check(End::Hole, b"a\n\0\0\0", 5, 1);
    check(End::Log, b"a\n\0\0\0", 5, 1);
    check(End::Open, b"a\n\0\0b", 4, 1);
    check(End::Open, &[0; 100_000], 0, 0);
    check(End::Hole, &[0; 100_000], 100_000, 0);
    // However many zeros follow, a line with text before them is not too long.
    check(End::Open, &[&b"abc"[..], &[0; 100_000]].concat(), 0, 0);
    assert_eq!(trailing_nuls(&[&b"abc"[..], &[0; 100_000]].concat()), 100_000);
    assert_eq!([trailing_nuls(b""), trailing_nuls(b"a"), trailing_nuls(b"\0a\0\0")], [0, 0, 2]);
}

#[test]
fn scenario_28_a_byte_order_mark_tells_the_encoding() {
    let utf16 = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    // The second line holds a character with the byte of a newline in it, and one of two units.
    let text = "\u{feff}a\u{e9}\r\n\u{a0a}\u{0a41}\u{1f600}\n\n\0\0end";
    let want = [("a\u{e9}", 0), ("\u{a0a}\u{0a41}\u{1f600}", 0), ("end", NO_END)];
    for bytes in [utf16(text, u16::to_le_bytes), utf16(text, u16::to_be_bytes)] {
        let lane = check(plain(Format::Text), &bytes, &want);
        skipped(&lane, Skip::ByteOrderMark, 2);
        skipped(&lane, Skip::Nul, 4);
        assert_eq!(lane.records[1].origin_bytes, 8);
        let long = Setup { limits: Limits { line_bytes_max: 6, ..LIMITS }, ..plain(Format::Text) };
        check(long, &bytes, &[want[0], ("\u{a0a}\u{0a41}", CUT), want[2]]);
    }
    let told = Setup { encoding: Encoding::Utf16Be, ..plain(Format::Text) };
    check(told.clone(), utf16("x\ny\n", u16::to_be_bytes), &[("x", 0), ("y", 0)]);
    check(told, b"\0x\xD8\x3D\0\n\0y\x41", &[("x\u{fffd}", BAD), ("y\u{fffd}", NO_END | BAD)]);
    let lane = check(plain(Format::Text), b"\xEF\xBB\xBFa\n", &[("a", 0)]);
    skipped(&lane, Skip::ByteOrderMark, 3);
    check(plain(Format::Text), b"\xEF\xBB\xBF", &[]);
    check(plain(Format::Text), b"\xEF\xBB", &[("\u{fffd}", NO_END)]);
    // Each file has a head of its own.
    let files: [&[u8]; 3] = [&utf16("\u{feff}a\n", u16::to_le_bytes), b"b\n", &utf16("\u{feff}c\n", u16::to_be_bytes)];
    check_files(&plain(Format::Text), &files, &[("a", 0), ("b", 0), ("c", 0)]);
}

#[test]
fn eb_12_1_cri_lines_of_every_kind_are_parsed() {
    let setup = Setup { limits: Limits { line_bytes_max: 200, ..LIMITS }, ..plain(Format::Cri) };
    let content = |line: &str, want: &str| {
        let lane = check(setup.clone(), format!("{line}\n"), &[(want, 0)]);
        assert_eq!(lane.records[0].time, line.split(' ').next().unwrap());
    };
    content("2016-10-06T00:17:09Z stdout F no fraction", "no fraction");
    content("2016-10-06T00:17:09.6Z stderr F x", "x");
    content("2016-10-06T00:17:09.669794202+02:00 stdout F zone", "zone");
    content("2016-10-06T00:17:09-07:00 stdout F  two  blanks ", " two  blanks ");
    content("2016-10-06T00:17:09.669794202Z stdout F:x:y tags", "tags");
    content("2016-10-06T00:17:09.669794202Z stdout F a\0b", "a\0b");
    content("2016-10-06T00:17:09.669794202Z stdout F ", "");
    check(setup.clone(), format!("{T} stdout F cr\r\n"), &[("cr", 0)]);
    let invalid = [T.as_bytes(), b" stdout F \xFF\xC3\n"].concat();
    check(setup.clone(), invalid, &[("\u{fffd}\u{fffd}", 0)]);
    let raw = |line: &str| {
        check(setup.clone(), format!("{line}\n"), &[(line, RAW)]);
    };
    raw(&format!("{T} stdout F"));
    raw(&format!("{T} stdout  two blanks"));
    raw(&format!("{T} stdlog F x"));
    raw(T);
    raw("2016-10-06 00:17:09 stdout F x");
    raw("Something else that is long enough to be one");
    check(setup.clone(), cri(&["stdout X y"]), &[("y", TAG)]);
    check(setup, cri(&["stdout P:foo p", "stdout F q"]), &[("pq", 0)]);
}

#[test]
fn eb_12_2_split_lines_are_joined_per_stream() {
    let setup = Setup { limits: Limits { line_bytes_max: 200, ..LIMITS }, ..plain(Format::Cri) };
    let lane = check(setup.clone(), cri(&["stdout P a ", "stdout F b"]), &[("a b", 0)]);
    assert_eq!((lane.records[0].time.as_str(), lane.records[0].origin_bytes), (T, 83));
    check(setup.clone(), cri(&["stdout P x", "stderr F e", "stdout F y"]), &[("e", 0), ("xy", 0)]);
    check(setup.clone(), cri(&["stdout P a", "stderr P b", "stdout P c", "stdout F d"]), &[("acd", 0), ("b", PARTIAL)]);
    check(setup.clone(), cri(&["stdout P a", "stdout P b"]), &[("ab", PARTIAL)]);
    // A limit on size: the rest is another record.
    let (big, rest) = (format!("stdout P {}", "x".repeat(60)), "stdout F y");
    check(setup.clone(), cri(&[&big, &big, rest]), &[(&"x".repeat(60), PARTIAL), (&format!("{}y", "x".repeat(60)), 0)]);
    // Interleaved, with malformed lines between.
    let mixed = cri(&["stdout P 1", "stderr P 2", "raw", "stdout P 3", "stderr F 4", "stderr P 5", "stdout F 6", "stderr F 7"]);
    check(setup, mixed, &[(&format!("{T} raw"), RAW), ("24", 0), ("136", 0), ("57", 0)]);
}

#[test]
fn scenario_23_a_split_line_goes_on_in_the_next_file() {
    let setup = Setup { limits: Limits { line_bytes_max: 200, ..LIMITS }, ..plain(Format::Cri) };
    let (a, b, c) = (cri(&["stdout F x", "stdout P a"]), cri(&["stderr F e", "stdout P b"]), cri(&["stdout F c"]));
    check_files(&setup, &[a.as_bytes(), b.as_bytes(), c.as_bytes()], &[("x", 0), ("e", 0), ("abc", 0)]);
    check_files(&setup, &[a.as_bytes(), b"", b"", c.as_bytes()], &[("x", 0), ("ac", 0)]);
    // A file that ends without a newline has no byte by which what is held could be named later.
    let torn = a.trim_end();
    check_files(&setup, &[torn.as_bytes(), c.as_bytes()], &[("x", 0), ("a", PARTIAL | NO_END), ("c", 0)]);
}

#[test]
fn scenario_24_docker_lines_are_parsed_and_joined() {
    let setup = Setup { limits: Limits { line_bytes_max: 300, ..LIMITS }, ..plain(Format::Docker) };
    let lane = check(
        setup.clone(),
        r#"{"log":"a \"b\" \u00e9\ud83d\ude00\t\\\/\n","stream":"stdout","time":"2016-10-06T00:17:09Z"}
{"attrs":{"a":[1,{"b":"}"}],"c":null},"time":"2016-10-06T00:17:09.12Z", "stream" : "stderr", "log":"keys\n"}
"#,
        &[("a \"b\" \u{e9}\u{1f600}\t\\/", 0), ("keys", 0)],
    );
    assert_eq!((lane.records[0].time.as_str(), lane.records[1].time.as_str()), ("2016-10-06T00:17:09Z", "2016-10-06T00:17:09.12Z"));
    let line = |log: &str, stream: &str| format!("{{\"log\":\"{log}\",\"stream\":\"{stream}\",\"time\":\"{T}\"}}\n");
    let joined = [line("a", "stdout"), line("e\\n", "stderr"), line("b", "stdout"), line("c\\n", "stdout")].concat();
    let lane = check(setup.clone(), joined, &[("e", 0), ("abc", 0)]);
    assert_eq!(lane.records[1].time, T);
    check(setup.clone(), line("\\n", "stdout"), &[("", 0)]);
    check(setup.clone(), line("tty\\r\\n", "stdout"), &[("tty", 0)]);
    check(setup.clone(), line("\\ud83d x \\ude00\\ud83d\\u0041\\n", "stdout"), &[("\u{fffd} x \u{fffd}\u{fffd}A", BAD)]);
    check(setup.clone(), "{\"log\":\"2020-03-24 Single \"}\n{\"log\":\"li\"}\n{\"log\":\"ne\\n\"}\n", &[("2020-03-24 Single line", 0)]);
    for raw in [
        "plain text",
        "{\"log\":1,\"stream\":\"stdout\"}",
        "{\"stream\":\"stdout\"}",
        "{\"log\":\"x\\n\"",
        "{\"log\":\"x\\n\"} y",
        "{\"log\":\"\\x\"}",
        "{\"log\":\"\\u12\"}",
        "{\"log\":\"x\\",
        "{\"log\":\"x\",\"stream\":\"stdlog\"}",
        "{}",
        "{\"log\"",
        "{\"a\":}",
    ] {
        check(setup.clone(), format!("{raw}\n"), &[(raw, RAW)]);
    }
    let both = Setup { format: Format::Container, ..setup };
    let mixed = format!("{}{}raw\n{}", line("a", "stdout"), cri(&["stdout F b", "stderr F c"]), line("d\\n", "stderr"));
    check(both, mixed, &[("ab", 0), ("c", 0), ("raw", RAW), ("d", 0)]);
}

#[test]
fn scenario_25_what_has_no_end_goes_when_it_is_old() {
    let mut decoder = Decoder::new(Format::Cri, LIMITS);
    let input = cri(&["stdout P a"]);
    let len = input.len();
    let mut batch = Batch { arena: input.clone().into_bytes(), ..Batch::default() };
    let mut turn = |decoder: &mut Decoder, from: usize, end: End, now: i64| {
        batch.arena.clear();
        batch.arena.extend_from_slice(&input.as_bytes()[from..]);
        let used = decoder.decode(&mut batch, from as u64, end, UnixNanos(now));
        let first = (!batch.is_empty()).then(|| (batch.record(0).to_vec(), batch.position[0], batch.notes[0]));
        (used, first)
    };
    assert_eq!(turn(&mut decoder, 0, End::Open, 5), (len - 1, None));
    assert_eq!(decoder.spare(), Some(0));
    assert!(!decoder.due(UnixNanos(30_004)));
    assert_eq!(turn(&mut decoder, len - 1, End::Idle, 30_004), (0, None));
    assert!(decoder.due(UnixNanos(30_005)));
    assert_eq!(turn(&mut decoder, len - 1, End::Open, 30_005), (0, None), "only an idle turn tells that nothing is under way");
    assert_eq!(turn(&mut decoder, len - 1, End::Idle, 30_005), (1, Some((b"a".to_vec(), len as u64, PARTIAL))));
    assert!(!decoder.due(UnixNanos(i64::MAX)));
    assert_eq!((decoder.spare(), decoder.oldest_held(0)), (None, None));
}

#[test]
fn a_clock_set_back_holds_nothing_forever() {
    let mut decoder = Decoder::new(Format::Cri, LIMITS);
    let mut batch = Batch { arena: cri(&["stdout P a"]).into_bytes(), ..Batch::default() };
    decoder.decode(&mut batch, 0, End::Open, UnixNanos(1_000_000_000));
    batch.arena = b"\n".to_vec();
    decoder.decode(&mut batch, 41, End::Idle, UnixNanos(5));
    assert!(decoder.due(UnixNanos(30_005)));
}

#[test]
fn an_old_part_does_not_wait_for_another_stream() {
    let mut decoder = Decoder::new(Format::Cri, LIMITS);
    let mut batch = Batch { arena: cri(&["stdout P a"]).into_bytes(), ..Batch::default() };
    decoder.decode(&mut batch, 0, End::Open, UnixNanos(0));
    batch.arena = format!("\n{}", cri(&["stderr P b"])).into_bytes();
    let len = batch.arena.len();
    assert_eq!(decoder.decode(&mut batch, 41, End::Idle, UnixNanos(30_000)), len - 1);
    assert_eq!((batch.len(), batch.record(0), batch.position[0]), (1, &b"a"[..], 41 + len as u64 - 1));
    assert!(!decoder.due(UnixNanos(30_000)));
    assert!(decoder.due(UnixNanos(60_000)));
}

#[test]
fn what_is_held_from_an_older_file_is_flushed_there() {
    let mut decoder = Decoder::new(Format::Cri, LIMITS);
    let mut batch = Batch { arena: cri(&["stdout F x", "stdout P a"]).into_bytes(), ..Batch::default() };
    let len = batch.arena.len() as u64;
    assert_eq!(decoder.decode(&mut batch, 0, End::File, UnixNanos(0)) as u64, len - 1);
    assert_eq!((decoder.oldest_held(0), decoder.oldest_held(1), decoder.spare()), (None, Some(len / 2), Some(1)));
    batch.arena = b"unfinish".to_vec();
    assert_eq!(decoder.decode(&mut batch, 0, End::Idle, LATE), 0);
    assert!(decoder.due(LATE) && decoder.spare() == Some(1));
    assert_eq!(decoder.flush(&mut batch, len), 1);
    assert_eq!((batch.len(), batch.record(0), batch.position[0]), (1, &b"a"[..], len));
    assert_eq!((decoder.oldest_held(1), decoder.due(LATE), decoder.spare()), (None, false, None));
}

#[test]
fn a_position_of_an_earlier_run_is_met_exactly() {
    let input = cri(&["stdout P a", "stderr F e", "stdout F b"]);
    let half = input.len() / 3 * 2;
    let mut decoder = Decoder::new(Format::Cri, LIMITS);
    let mut batch = Batch { arena: input.as_bytes()[..half - 1].to_vec(), ..Batch::default() };
    assert_eq!(decoder.decode(&mut batch, 0, End::Cut { held: true, next: Next::Newline }, UnixNanos(0)), half - 1);
    assert_eq!((batch.record(0), batch.position[0]), (&b"e"[..], half as u64 - 1));
    batch.arena = input.as_bytes()[half - 1..].to_vec();
    decoder.decode(&mut batch, half as u64 - 1, End::Log, UnixNanos(0));
    assert_eq!((batch.len(), batch.record(0)), (1, &b"ab"[..]));
    // Nothing was held: what is goes now.
    let mut decoder = Decoder::new(Format::Cri, LIMITS);
    batch.arena = input.as_bytes()[..half].to_vec();
    assert_eq!(decoder.decode(&mut batch, 0, End::Cut { held: false, next: Next::Other }, UnixNanos(0)), half);
    assert_eq!((batch.len(), batch.record(1), batch.position[1]), (2, &b"a"[..], half as u64));
}

/// Each paragraph is one record; all of them come out as they are, with what Fluent Bit's own tests hold.
#[track_caller]
fn groups(preset: Preset, records: &[&str]) {
    let want: Vec<(&str, u32)> = records.iter().map(|r| (*r, 0)).collect();
    let setup = grouped(Format::Text, |config| config.preset = Some(preset));
    check(setup, format!("{}\n", records.join("\n")), &want);
    let setup = grouped(Format::Cri, |config| config.preset = Some(preset));
    let lines: String = records.join("\n").lines().map(|line| format!("{T} stdout F {line}\n{T} stderr F one\n")).collect();
    let lane = drive(&setup, &[lines.as_bytes()], 100, None, None);
    let got: Vec<(&str, u32)> = lane.records.iter().map(|r| (r.text.as_str(), r.notes)).filter(|r| r.0 != "one").collect();
    assert_eq!(got, want);
}

#[test]
fn java_traces_are_one_record() {
    groups(
        Preset::Java,
        &[
            "before",
            "Exception in thread \"main\" java.lang.IllegalStateException: ..null property\n     at com.example.myproject.Author.getBookIds(xx.java:38)\n     at com.example.myproject.Bootstrap.main(Bootstrap.java:14)\nCaused by: java.lang.NullPointerException\n     at com.example.myproject.Book.getId(Book.java:22)\n     ... 1 more",
            "single line",
            "java.lang.NullPointerException\n\tat a.b(C.java:1)",
            "java.lang.RuntimeError: x\n\tat a.b(C.java:1)",
            "System.Exception: outer\n  at X()\n  --- End of inner exception stack trace ---\n--- End of stack trace from previous location where exception was thrown ---\n  at Y()",
            "{\"msg\":\"java.lang.Exception: in JSON\"}",
        ],
    );
}

#[test]
fn go_panics_are_one_record() {
    groups(
        Preset::Go,
        &[
            "panic: my panic\n\ngoroutine 4 [running]:\npanic(0x45cb40, 0x47ad70)\n\t/usr/local/go/src/runtime/panic.go:542 +0x46c\nmain.main.func1(0xc420024120)\n\tfoo.go:6 +0x39\ncreated by main.main\n\tfoo.go:5 +0x58\n\ngoroutine 1 [chan receive]:\nruntime.gopark(0x4739b8)\n\t/usr/local/go/src/runtime/proc.go:280 +0x12c",
            "one more line, no multiline",
            "panic: x\n[signal SIGSEGV: segmentation violation]\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:5",
            "http: panic serving 1.2.3.4:5: boom\ngoroutine 7 [running]:\nnet/http.f()\n\t/x.go:1",
        ],
    );
}

#[test]
fn python_and_ruby_traces_are_one_record() {
    groups(
        Preset::Python,
        &[
            "Traceback (most recent call last):\n  File \"a.py\", line 1535, in __call__\n    rv = self.handle_exception(request, response, e)\n  File \"b.py\", line 5, in get\n    raise Exception('spam', 'eggs')\nException: ('spam', 'eggs')",
            "hello world, not multiline",
            "Traceback (most recent call last):\n  File \"a.py\", line 1\n    x\nmod.Err: y",
            "mod.Err: again",
        ],
    );
    groups(
        Preset::Ruby,
        &["x.rb:5:in `f': boom (RuntimeError)\n\tfrom x.rb:9:in `g'\n\tfrom x.rb:12:in `<main>'", "next", "y.rb:1:in `h'"],
    );
}

#[test]
fn lines_are_grouped_by_a_pattern_for_the_first_or_for_the_others() {
    let start = grouped(Format::Text, |config| config.start = Some(r"^\d{4}-".into()));
    let lane = check(
        start,
        "late\n  half\n2024-01 a\n  b\n\n  c\n2024-02 d\n{\"json\":1}\nloose\n",
        &[("late\n  half", 0), ("2024-01 a\n  b\n\n  c", 0), ("2024-02 d", 0), ("{\"json\":1}", 0), ("loose", 0)],
    );
    assert_eq!(lane.records[1].origin_bytes, 15);
    let continuation = grouped(Format::Text, |config| config.continuation = Some(r"^\s+\S".into()));
    check(continuation, " a\nb\n  c\n\td\n\n  e\nf", &[(" a", 0), ("b\n  c\n\td", 0), ("  e", 0), ("f", NO_END)]);
}

#[test]
fn a_group_is_cut_at_its_limits() {
    let lines = grouped(Format::Text, |config| (config.continuation, config.lines_max) = (Some("^ ".into()), 3));
    check(lines, "a\n 1\n 2\n 3\n 4\nb\n", &[("a\n 1\n 2", PARTIAL), (" 3\n 4", 0), ("b", 0)]);
    let bytes = grouped(Format::Text, |config| (config.continuation, config.bytes_max) = (Some("^ ".into()), crate::units::ByteSize(6)));
    check(bytes, "a\n 1\n 2\n 3\nb\n", &[("a\n 1", PARTIAL), (" 2\n 3", 0), ("b", 0)]);
    let preset = grouped(Format::Text, |config| (config.preset, config.lines_max) = (Some(Preset::Java), 2));
    check(
        preset,
        "a.Exception: x\n\tat 1\n\tat 2\n\tat 3\nb\n",
        &[("a.Exception: x\n\tat 1", PARTIAL), ("\tat 2", 0), ("\tat 3", 0), ("b", 0)],
    );
}

#[test]
fn scenario_30_a_group_outlives_its_file_and_goes_by_its_age() {
    let setup = grouped(Format::Text, |config| config.preset = Some(Preset::Java));
    check_files(
        &setup,
        &[b"x\na.Exception: y\n", b"\tat b\n", b"", b"\tat c\nz\n"],
        &[("x", 0), ("a.Exception: y\n\tat b\n\tat c", 0), ("z", 0)],
    );
    let mut decoder = setup.decoder();
    let mut batch = Batch { arena: b"a.Exception: y\n\tat b\n".to_vec(), ..Batch::default() };
    assert_eq!(decoder.decode(&mut batch, 0, End::Open, UnixNanos(0)), 20);
    batch.arena = b"\n\tat unfinished".to_vec();
    assert_eq!(decoder.decode(&mut batch, 20, End::Idle, UnixNanos(GROUP_AGE - 1)), 0);
    batch.arena = b"\n\tat unfinished".to_vec();
    assert_eq!(decoder.decode(&mut batch, 20, End::Idle, UnixNanos(GROUP_AGE)), 1);
    assert_eq!((batch.record(0), batch.notes[0]), (&b"a.Exception: y\n\tat b"[..], 0));
}

#[test]
fn groups_are_told_apart_by_stream_and_made_of_joined_lines() {
    let setup = grouped(Format::Cri, |config| config.start = Some("^\\[".into()));
    let input = cri(&[
        "stdout F [DEBUG] 1 start - ",
        "stderr P [ERROR] ",
        "stdout P 1 cont ",
        "stderr F trouble",
        "stdout F A",
        "stderr F {\"json\":2}",
        "stdout F [DEBUG] 2 start",
        "stdout P 2 ",
    ]);
    check(
        setup,
        input,
        &[("[ERROR] trouble", 0), ("{\"json\":2}", 0), ("[DEBUG] 1 start - \n1 cont A", 0), ("[DEBUG] 2 start\n2 ", PARTIAL)],
    );
}

#[test]
fn a_multiline_config_has_exactly_one_rule() {
    #[track_caller]
    fn check(by: impl FnOnce(&mut MultilineConfig), want: &str) {
        let error = Multiline::new(&grouped(Format::Text, by).multiline.unwrap()).unwrap_err();
        assert!(error.contains(want), "{error}");
    }
    check(|_| {}, "exactly one");
    check(|config| (config.preset, config.start) = (Some(Preset::Go), Some("x".into())), "exactly one");
    check(|config| config.start = Some("(".into()), "unclosed group");
    check(|config| config.start = Some("\\w{1000}{1000}".into()), "1 MiB");
}

/// Bytes of records and of lines of white space: a flush may part such a line from its group.
fn text_bytes(lane: &Lane) -> u64 {
    let blank = lane.law.skipped.iter().find(|s| s.0 == Skip::Blank).map_or(0, |s| s.1);
    lane.law.records_bytes + blank
}

#[test]
fn any_bytes_in_any_format_are_conserved() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(12);
    println!("SEED={seed}");
    let mut state = seed | 1;
    let mut next = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) % bound as u64) as usize
    };
    let stdout = |tag: &str, text: &str| format!("{T} stdout {tag} {text}").into_bytes();
    let mut pool: Vec<Vec<u8>> = [
        &b"\n"[..],
        b"\n",
        b"\r\n",
        b"\0\0",
        b"\0",
        b"x",
        b"\xEF\xBB\xBF",
        b"\xFF\xFE",
        b"a.Exception: y",
        b"\tat b",
        b" ",
        b"{\"log\":\"a\"}",
        b"{\"log\":\"a\\n\"}",
    ]
    .map(|b| b.to_vec())
    .to_vec();
    pool.extend([stdout("P", "p"), stdout("F", "f"), stdout("P", "\tat b"), stdout("F", "x.Error: "), vec![b'y'; 90]]);
    pool.push(format!("{T} stderr P q\n").into_bytes());
    pool.push(format!("{T} stderr F r\n").into_bytes());
    for round in 0..400 {
        let format = [Format::Json, Format::Text, Format::Cri, Format::Docker, Format::Container][next(5)];
        let mut setup = plain(format);
        if next(2) == 0 {
            let way = next(3);
            setup = grouped(format, |config| match way {
                0 => config.preset = Some(Preset::Java),
                1 => (config.start, config.lines_max) = (Some("[yf]".into()), 4),
                _ => config.continuation = Some("^\\s|p".into()),
            });
        }
        setup.limits.line_bytes_max = 60;
        setup.encoding = [Encoding::Auto, Encoding::Auto, Encoding::Utf8, Encoding::Utf16Le, Encoding::Utf16Be][next(5)];
        let files: Vec<Vec<u8>> = (0..1 + next(3)).map(|_| (0..next(12)).flat_map(|_| pool[next(pool.len())].clone()).collect()).collect();
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let whole = drive(&setup, &files, 10_000, None, None);
        for chunk in [1, 3, 8, 50] {
            println!(
                "round {round}: chunk {chunk}, {:?}, {:?} {:?} {:?}",
                setup.format,
                setup.encoding,
                setup.multiline,
                files.iter().map(|f| String::from_utf8_lossy(f)).collect::<Vec<_>>()
            );
            let what = format!("round {round}: {setup:?}, chunk {chunk}, {files:?}", setup = (format, setup.encoding, &setup.multiline));
            let lane = drive(&setup, &files, chunk, None, None);
            assert_eq!(lane.records, whole.records, "{what}");
            let call = next(30);
            let lane = drive(&setup, &files, chunk, Some(call), None);
            assert_eq!(lane.records, whole.records, "restart {call}, {what}");
            let lane = drive(&setup, &files, chunk, None, Some(call));
            assert_eq!(text_bytes(&lane), text_bytes(&whole), "flush {call}, {what}");
        }
    }
}

/// Not a test: prints how fast decoding is. `cargo test --release -p flow speed_of_decoding -- --ignored --nocapture`
#[test]
#[ignore = "prints a speed"]
fn speed_of_decoding() {
    let json = format!("{{\"ts\":\"{T}\",\"level\":\"info\",\"msg\":\"{}\"}}", "x".repeat(140));
    let fill = |line: &dyn Fn(usize) -> String| {
        let mut bytes = String::new();
        for n in 0.. {
            bytes.push_str(&line(n));
            if bytes.len() > 100 << 20 {
                break;
            }
        }
        bytes.into_bytes()
    };
    let split = |n: usize| match n % 20 {
        0 => format!("{T} stdout P {}\n{T} stdout F {}\n", &json[..100], &json[100..]),
        _ => format!("{T} stdout F {json}\n"),
    };
    let log = json.replace('"', "\\\"");
    let cases: [(&str, Format, Vec<u8>, Option<Preset>); 5] = [
        ("text", Format::Text, fill(&|_| format!("{json}\n")), None),
        ("cri, 5 % split", Format::Cri, fill(&split), None),
        ("docker", Format::Docker, fill(&|_| format!("{{\"log\":\"{log}\\n\",\"stream\":\"stdout\",\"time\":\"{T}\"}}\n")), None),
        ("text, java", Format::Text, fill(&|_| format!("{json}\n")), Some(Preset::Java)),
        ("cri, java", Format::Cri, fill(&split), Some(Preset::Java)),
    ];
    for (name, format, bytes, preset) in cases {
        let mut best = f64::MAX;
        for _ in 0..5 {
            let mut setup = Setup { limits: Limits { line_bytes_max: 1 << 20, join_bytes_max: 1 << 20, join_age_ns: 0 }, ..plain(format) };
            setup.multiline = preset.and_then(|preset| grouped(format, |config| config.preset = Some(preset)).multiline);
            let mut decoder = setup.decoder();
            let mut batch = Batch::default();
            let started = std::time::Instant::now();
            let mut at = 0;
            while at < bytes.len() {
                batch.arena.clear();
                batch.arena.extend_from_slice(&bytes[at..(at + (256 << 10)).min(bytes.len())]);
                let end = if at + batch.arena.len() == bytes.len() { End::Log } else { End::Open };
                at += decoder.decode(&mut batch, at as u64, end, UnixNanos(0));
                std::hint::black_box(&batch);
            }
            best = best.min(started.elapsed().as_secs_f64());
        }
        println!("{name}: {:.0} MB/s", bytes.len() as f64 / best / 1e6);
    }
}
