//! Keeps readings line by line, and gives them back as a sampler does.
//!
//! A recording is JSON lines: first a head, `{"weir":"gpu-recording","version":1,…}`, then one [`Reading`] a line. In and out are
//! streams that the caller opened. A line that is none is told with its place and its rule, and the next one is read; so is a last
//! line that was torn when the recorder stopped. Bounds: [`LINE_BYTES_MAX`] a line, as many devices and processes as the sampler
//! takes; numbers that cannot be become faults, as in the sampler. [`Samples`] is what a source asks, whichever of them it has.

use crate::nvml::{self, DEVICES_MAX, MIGS_MAX, Note, PROCESSES_MAX, Sampler};
use crate::reading::Reading;
use flow::units::UnixNanos;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Write};

/// Longest line that is read; 64 devices with 500 processes and their use make about 8 MB.
pub const LINE_BYTES_MAX: usize = 32 << 20;
const KIND: &str = "gpu-recording";
const VERSION: u32 = 1;

/// Where and of what a recording was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// `gpu-recording`.
    weir: String,
    version: u32,
    #[serde(default)]
    pub host: String,
    /// Version of the driver.
    #[serde(default)]
    pub driver: String,
    #[serde(default)]
    pub note: String,
}

impl Head {
    pub fn new(host: &str, driver: &str, note: &str) -> Head {
        Head { weir: KIND.to_string(), version: VERSION, host: host.to_string(), driver: driver.to_string(), note: note.to_string() }
    }
}

/// Writes a recording. Each line is one write, so that a stop tears at most the last one.
pub struct Writer<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    pub fn begin(out: W, head: &Head) -> io::Result<Writer<W>> {
        let mut writer = Writer { out, line: Vec::new() };
        writer.put(head)?;
        Ok(writer)
    }

    /// Goes on with a recording that has its head. `is_torn`: its last byte is no newline; what was torn stays a line of its own.
    pub fn go_on(mut out: W, is_torn: bool) -> io::Result<Writer<W>> {
        if is_torn {
            out.write_all(b"\n")?;
        }
        Ok(Writer { out, line: Vec::new() })
    }

    pub fn append(&mut self, reading: &Reading) -> io::Result<()> {
        self.put(reading)
    }

    pub fn into_inner(self) -> W {
        self.out
    }

    fn put(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, value)?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)?;
        self.out.flush()
    }
}

/// A line that gives no reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    pub file: String,
    /// From 1.
    pub line: u64,
    pub rule: Rule,
}

/// What a line must be and was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The first line is the head of a recording.
    Head(String),
    /// A line ends with a newline: the recorder was stopped while it wrote this one.
    Torn,
    TooLong,
    /// A line is a reading as JSON.
    Reading(String),
    /// A reading has no more of this than the sampler reads.
    TooMany(&'static str),
    /// The file could be read.
    Io(String),
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        match &self.rule {
            Rule::Head(why) => write!(f, "the first line of a recording is its head, {{\"weir\":\"{KIND}\",\"version\":{VERSION}}}: {why}"),
            Rule::Torn => write!(f, "the last line is torn: the recorder was stopped while it wrote it"),
            Rule::TooLong => write!(f, "a line has at most {LINE_BYTES_MAX} bytes"),
            Rule::Reading(why) => write!(f, "a line of a recording is a reading: {why}"),
            Rule::TooMany(what) => write!(f, "a reading has too many {what}"),
            Rule::Io(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

impl std::error::Error for BadLine {}

/// Reads a recording.
pub struct Reader<R> {
    /// Its name in messages.
    file: String,
    from: R,
    head: Head,
    line: Vec<u8>,
    /// Lines read so far.
    lines: u64,
    is_over: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the head. Fails where there is none: this is no recording.
    pub fn open(file: &str, from: R) -> Result<Reader<R>, BadLine> {
        let mut reader = Reader { file: file.to_string(), from, head: Head::default(), line: Vec::new(), lines: 0, is_over: false };
        if !reader.read_line()? {
            return Err(reader.bad(Rule::Head("there is none".to_string())));
        }
        reader.head = serde_json::from_slice(&reader.line).map_err(|error| reader.bad(Rule::Head(error.to_string())))?;
        if reader.head.weir != KIND || reader.head.version != VERSION {
            let why = format!("it says {:?}, version {}", reader.head.weir, reader.head.version);
            return Err(reader.bad(Rule::Head(why)));
        }
        Ok(reader)
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next reading. `None`: it is over. After an error the next call goes on behind the line.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results invites to stop at the first error")]
    pub fn next(&mut self) -> Result<Option<Reading>, BadLine> {
        while self.read_line()? {
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            let mut reading: Reading = serde_json::from_slice(&self.line).map_err(|error| self.bad(Rule::Reading(error.to_string())))?;
            return match check(&mut reading) {
                Ok(()) => Ok(Some(reading)),
                Err(what) => Err(self.bad(Rule::TooMany(what))),
            };
        }
        Ok(None)
    }

    fn bad(&self, rule: Rule) -> BadLine {
        BadLine { file: self.file.clone(), line: self.lines.max(1), rule }
    }

    /// Reads a line without its newline. False: there is none.
    fn read_line(&mut self) -> Result<bool, BadLine> {
        self.line.clear();
        if self.is_over {
            return Ok(false);
        }
        let mut is_long = false;
        loop {
            let read = match self.from.fill_buf() {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    (self.is_over, self.lines) = (true, self.lines + 1);
                    return Err(self.bad(Rule::Io(error.to_string())));
                }
            };
            if read.is_empty() {
                self.is_over = true;
                if self.line.is_empty() && !is_long {
                    return Ok(false);
                }
                self.lines += 1;
                return Err(self.bad(Rule::Torn));
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let len = end.unwrap_or(read.len());
            is_long |= self.line.len() + len > LINE_BYTES_MAX;
            if !is_long {
                self.line.extend_from_slice(&read[..len]);
            }
            self.from.consume(len + usize::from(end.is_some()));
            if end.is_some() {
                self.lines += 1;
                return if is_long { Err(self.bad(Rule::TooLong)) } else { Ok(true) };
            }
        }
    }
}

/// Holds a reading of another's to what the sampler's are.
fn check(reading: &mut Reading) -> Result<(), &'static str> {
    if reading.gpus.len() > DEVICES_MAX as usize {
        return Err("devices");
    }
    for gpu in &mut reading.gpus {
        for (what, len, max) in [
            ("MIG devices", gpu.migs.len(), MIGS_MAX as usize),
            ("processes", gpu.processes.len(), 3 * PROCESSES_MAX), // three lists make one
            ("samples of use", gpu.uses.len(), PROCESSES_MAX),
            ("samples of the driver", gpu.busy_samples.len(), PROCESSES_MAX),
        ] {
            if len > max {
                return Err(what);
            }
        }
        nvml::reject_impossible(gpu);
    }
    Ok(())
}

/// A recording as a sampler.
pub struct Replay {
    reader: Reader<Box<dyn BufRead + Send>>,
    /// What was read ahead, to know its times.
    next: Option<Result<Option<Reading>, BadLine>>,
}

impl Replay {
    pub fn open(file: &str, from: impl BufRead + Send + 'static) -> Result<Replay, BadLine> {
        Ok(Replay { reader: Reader::open(file, Box::new(from) as Box<dyn BufRead + Send>)?, next: None })
    }

    pub fn head(&self) -> &Head {
        self.reader.head()
    }

    /// When the next reading was made, by its wall clock and its monotonic clock. `None`: there is none, or its line is bad.
    pub fn next_at(&mut self) -> Option<(UnixNanos, u64)> {
        let next = self.next.get_or_insert_with(|| self.reader.next());
        next.as_ref().ok()?.as_ref().map(|reading| (reading.at(), reading.mono_ns))
    }

    fn take(&mut self) -> Result<Option<Reading>, BadLine> {
        self.next.take().unwrap_or_else(|| self.reader.next())
    }
}

/// Where readings come from.
pub enum Samples {
    Nvml(Box<Sampler>),
    Recorded(Box<Replay>),
    /// No library is there: readings without devices.
    Absent,
}

impl Samples {
    /// When the next reading was made, where that is known before it is asked for: of recordings. See [`Replay::next_at`].
    pub fn next_at(&mut self) -> Option<(UnixNanos, u64)> {
        match self {
            Samples::Recorded(replay) => replay.next_at(),
            Samples::Nvml(_) | Samples::Absent => None,
        }
    }

    /// The next reading; `None`: the recording is over. After an error, which only a recording has, the next call goes on.
    ///
    /// `at` and `mono_ns`: now. A recording keeps its own times.
    pub fn sample(&mut self, at: UnixNanos, mono_ns: u64) -> Result<Option<Reading>, BadLine> {
        match self {
            Samples::Nvml(sampler) => Ok(Some(sampler.sample(at, mono_ns))),
            Samples::Recorded(replay) => replay.take(),
            Samples::Absent => Ok(Some(Reading { at_ns: at.0, mono_ns, ..Reading::default() })),
        }
    }

    /// See [`Sampler::notes`].
    pub fn notes(&self) -> &[Note] {
        match self {
            Samples::Nvml(sampler) => sampler.notes(),
            Samples::Recorded(_) | Samples::Absent => &[],
        }
    }

    /// Version of the driver; empty where nobody tells.
    pub fn driver(&self) -> &str {
        match self {
            Samples::Nvml(sampler) => sampler.driver(),
            Samples::Recorded(replay) => &replay.head().driver,
            Samples::Absent => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Gpu;
    use proptest::prelude::*;

    fn reading(n: u64) -> Reading {
        let gpu = Gpu { uuid: "GPU-1".to_string(), energy_mj: Some(n), ..Gpu::default() };
        Reading { at_ns: n as i64, mono_ns: n, gpus: vec![gpu], ..Reading::default() }
    }

    fn recording(readings: u64) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &Head::new("node-1", "580.82.07", "two processes")).unwrap();
        (0..readings).for_each(|n| writer.append(&reading(n)).unwrap());
        writer.into_inner()
    }

    fn told(bytes: &[u8]) -> Vec<String> {
        let mut reader = match Reader::open("a.jsonl", bytes) {
            Ok(reader) => reader,
            Err(bad) => return vec![bad.to_string()],
        };
        let mut told = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(reading)) => told.push(reading.mono_ns.to_string()),
                Ok(None) => return told,
                Err(bad) => told.push(bad.to_string()),
            }
        }
    }

    #[test]
    fn what_is_written_comes_back() {
        let bytes = recording(3);
        assert!(bytes.starts_with(b"{\"weir\":\"gpu-recording\",\"version\":1,\"host\":\"node-1\",\"driver\":\"580.82.07\""));
        let mut replay = Replay::open("a.jsonl", io::Cursor::new(bytes)).unwrap();
        assert_eq!(replay.head().note, "two processes");
        assert_eq!(replay.next_at(), Some((UnixNanos(0), 0)));
        let mut samples = Samples::Recorded(Box::new(replay));
        for n in 0..3 {
            assert_eq!(samples.next_at(), Some((UnixNanos(n), n as u64)));
            assert_eq!(samples.sample(UnixNanos(99), 99).unwrap(), Some(reading(n as u64)), "the recording keeps its times");
        }
        assert_eq!((samples.next_at(), samples.sample(UnixNanos(99), 99)), (None, Ok(None)));
    }

    #[test]
    fn a_bad_line_is_told_and_the_next_one_read() {
        let mut bytes = recording(1);
        bytes.extend_from_slice(b"{\"at_ns\":1}\n\n");
        Writer::go_on(&mut bytes, false).unwrap().append(&reading(7)).unwrap();
        let told = told(&bytes);
        assert_eq!((told[0].as_str(), told[2].as_str(), told.len()), ("0", "7", 3));
        assert!(told[1].starts_with("a.jsonl:3: a line of a recording is a reading: missing field `mono_ns`"), "{}", told[1]);
    }

    #[test]
    fn a_torn_last_line_is_told_and_can_be_gone_on_after() {
        let mut bytes = recording(2);
        bytes.truncate(bytes.len() - 9);
        let torn = "a.jsonl:3: the last line is torn: the recorder was stopped while it wrote it";
        assert_eq!(told(&bytes), ["0", torn]);
        Writer::go_on(&mut bytes, true).unwrap().append(&reading(5)).unwrap();
        let told = told(&bytes);
        assert_eq!((told[0].as_str(), told[2].as_str()), ("0", "5"));
    }

    #[test]
    fn what_is_no_recording_is_refused_at_its_first_line() {
        for (bytes, want) in [
            ("", "there is none"),
            ("{\"weir\":\"gpu-recording\",\"version\":2}\n", "it says \"gpu-recording\", version 2"),
            ("{\"weir\":\"other\",\"version\":1}\n", "it says \"other\", version 1"),
            ("DCGM_FI 1\n", "expected value at line 1 column 1"),
        ] {
            let told = told(bytes.as_bytes());
            assert!(told[0].starts_with("a.jsonl:1: the first line of a recording is its head") && told[0].ends_with(want), "{told:?}");
        }
    }

    #[test]
    fn a_reading_of_anybody_is_held_to_the_bounds_of_the_sampler() {
        let mut bytes = recording(0);
        let many = Reading { gpus: vec![Gpu::default(); 65], ..Reading::default() };
        let mut sentinel = reading(1);
        sentinel.gpus[0].energy_mj = Some(u64::MAX);
        sentinel.gpus[0].busy = Some(101);
        sentinel.gpus[0].gpm.insert("sm".to_string(), 1e300);
        let mut writer = Writer::go_on(&mut bytes, false).unwrap();
        writer.append(&many).unwrap();
        writer.append(&sentinel).unwrap();
        let mut reader = Reader::open("a", bytes.as_slice()).unwrap();
        assert_eq!(reader.next().unwrap_err().rule, Rule::TooMany("devices"));
        let gpu = reader.next().unwrap().unwrap().gpus.remove(0);
        assert_eq!((gpu.energy_mj, gpu.busy, gpu.gpm.len()), (None, None, 0));
        assert_eq!(gpu.faults["energy"], "impossible_value");
    }

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let mut bytes = recording(0);
        bytes.resize(bytes.len() + LINE_BYTES_MAX + 10, b'[');
        bytes.push(b'\n');
        Writer::go_on(&mut bytes, false).unwrap().append(&reading(3)).unwrap();
        let told = told(&bytes);
        assert_eq!((told.len(), told[1].as_str()), (2, "3"));
        assert!(told[0].starts_with("a.jsonl:2: a line has at most"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes: Vec<u8>, at in 0usize..2000, with: u8) {
            told(&bytes);
            let mut bytes = recording(3);
            let at = at % bytes.len();
            bytes[at] = with;
            told(&bytes);
        }
    }
}
