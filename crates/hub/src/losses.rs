//! Which rows never reached which sink. They were kept by all steps and are gone from the journal: dropped because it was
//! full, or damaged on the disk.
//!
//! In: ranges of frames, before a sink is told to go on behind them. Out: per sink, what it lost. The file `losses` is
//! replaced as a whole before a lost frame is given to the sink, so that what counts as lost does not depend on when a crash
//! comes; how much a range was is read from the frames' heads, and added up here only when their segment is deleted.
//! What a sink took of such frames ahead of its turn (`express`) it did not lose: that is noted by stream, as a stretch.
//! Bound: a few numbers per range; ranges that touch are one. Stretches go with the ranges they are for. A damaged file costs the distinction, not a record: what was
//! lost then counts as delivered, and the operator is told.

use crate::codec::{Corrupt, Reader, put_bytes, put_len, put_u64, put_u64s};
use crate::disk::Disk;
use crate::express::Stretch;
use crate::frame::{Frame, LostReason, Part};
use crate::ledger::Tally;
use crate::segment::{self, Kind, Read};
use flow::event::StreamId;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const NAME: &str = "losses";
/// Version 2 has [`SinkLosses::had`]; version 1 is still read.
const VERSION: u8 = 2;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    pub sinks: BTreeMap<String, SinkLosses>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SinkLosses {
    /// What was lost in frames that are no longer on disk.
    pub settled: BTreeMap<(Vec<u8>, LostReason), Tally>,
    /// Frames on disk, first and last number, ascending.
    pub ranges: Vec<(u64, u64, LostReason)>,
    /// What the sink had taken of them, none twice.
    pub had: BTreeMap<StreamId, Vec<Stretch>>,
}

impl SinkLosses {
    pub fn reason_of(&self, seq: u64) -> Option<LostReason> {
        let i = self.ranges.partition_point(|r| r.1 < seq);
        self.ranges.get(i).filter(|r| r.0 <= seq).map(|r| r.2)
    }

    /// Whether the sink took this part of a lost frame before it was lost.
    pub fn had(&self, frame: &Frame, part: &Part) -> bool {
        self.had.get(&part.stream).is_some_and(|had| had.iter().any(|stretch| stretch.covers(frame, part)))
    }

    /// Adds what the sink took; a stretch that has grown since replaces itself.
    fn add_had(&mut self, had: &[(StreamId, Stretch)]) {
        for (stream, stretch) in had {
            let known = self.had.entry(*stream).or_default();
            match known.iter_mut().find(|s| s.from == stretch.from) {
                Some(same) => same.to = same.to.max(stretch.to),
                None => known.push(*stretch),
            }
        }
    }
}

impl Losses {
    /// Notes that a sink will not get the rows of these frames, but for what it `had` of them; false where that is known.
    pub fn add(&mut self, sink: &str, first: u64, last: u64, reason: LostReason, had: &[(StreamId, Stretch)]) -> bool {
        let lost = self.sinks.entry(sink.to_owned()).or_default();
        if lost.ranges.last().is_some_and(|range| range.1 >= last) {
            return false;
        }
        lost.add_had(had);
        let first = match lost.ranges.last_mut() {
            Some(range) if range.1 + 1 >= first && range.2 == reason => {
                range.1 = last;
                return true;
            }
            Some(range) => first.max(range.1 + 1),
            None => first,
        };
        lost.ranges.push((first, last, reason));
        true
    }

    /// Whether any sink lost something of these frames.
    pub fn touch(&self, first: u64, last: u64) -> bool {
        self.sinks.values().any(|sink| sink.ranges.iter().any(|r| r.0 <= last && r.1 >= first))
    }

    /// Frames up to `last` leave the disk.
    pub fn forget(&mut self, last: u64) {
        for sink in self.sinks.values_mut() {
            sink.ranges.retain_mut(|range| {
                range.0 = range.0.max(last + 1);
                range.0 <= range.1
            });
            if sink.ranges.is_empty() {
                sink.had.clear();
            }
        }
    }

    pub fn read(disk: &Disk, dir: &Path) -> io::Result<Result<Losses, String>> {
        let record = match segment::read(disk, &dir.join(NAME), 0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Ok(Losses::default())),
            Err(e) => return Err(e),
            Ok(Read::Record(record)) if record.kind == Kind::Losses => record,
            Ok(Read::Record(_)) => return Ok(Err("a record of another kind stands there".into())),
            Ok(Read::End) => return Ok(Err("the file is empty".into())),
            Ok(Read::Torn(what)) => return Ok(Err(what.into())),
        };
        Ok(Losses::decode(&record.payload).map_err(|e| e.to_string()))
    }

    /// Replaces the file as a whole; when this returns, it is durable.
    pub fn write(&self, disk: &Disk, dir: &Path) -> io::Result<()> {
        let path = dir.join(NAME);
        let new = segment::new_path(&path);
        let mut file = disk.create_or_truncate(&new)?;
        file.append(&segment::record(Kind::Losses, 0, |out| self.encode(out)))?;
        file.sync("losses.data")?;
        disk.rename(&new, &path, "losses.publish")?;
        disk.sync_dir(dir, "losses.names")
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_len(out, self.sinks.len());
        for (name, sink) in &self.sinks {
            put_bytes(out, name.as_bytes());
            put_len(out, sink.settled.len());
            for ((tenant, reason), tally) in &sink.settled {
                put_bytes(out, tenant);
                out.push(*reason as u8);
                put_u64s(out, &[tally.records, tally.bytes]);
            }
            put_len(out, sink.ranges.len());
            for (first, last, reason) in &sink.ranges {
                put_u64(out, *first);
                put_u64(out, *last);
                out.push(*reason as u8);
            }
            put_len(out, sink.had.values().map(Vec::len).sum());
            for (stream, stretch) in sink.had.iter().flat_map(|(stream, had)| had.iter().map(move |stretch| (stream, stretch))) {
                put_u64s(out, &[stream.0, stretch.from, stretch.to]);
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Losses, Corrupt> {
        let r = &mut Reader::new(bytes);
        let version = r.u8()?;
        match version {
            1..=VERSION => {}
            0 => return Err(r.corrupt("unknown version of the losses")),
            _ => return Err(r.corrupt(segment::NEWER)),
        }
        let mut losses = Losses::default();
        for _ in 0..r.count(12)? {
            let name = r.text()?;
            let mut sink = SinkLosses::default();
            for _ in 0..r.count(21)? {
                let tenant = r.bytes()?.to_vec();
                let reason = reason(r)?;
                sink.settled.insert((tenant, reason), Tally { records: r.u64()?, bytes: r.u64()? });
            }
            for _ in 0..r.count(17)? {
                let (first, last) = (r.u64()?, r.u64()?);
                if first > last || sink.ranges.last().is_some_and(|before| before.1 >= first) {
                    return Err(r.corrupt("ranges of losses are not in order"));
                }
                sink.ranges.push((first, last, reason(r)?));
            }
            for _ in 0..if version >= 2 { r.count(24)? } else { 0 } {
                let (stream, from, to) = (StreamId(r.u64()?), r.u64()?, r.u64()?);
                sink.had.entry(stream).or_default().push(Stretch { from, to });
            }
            losses.sinks.insert(name, sink);
        }
        r.end()?;
        Ok(losses)
    }
}

fn reason(r: &mut Reader) -> Result<LostReason, Corrupt> {
    LostReason::from_code(r.u8()?).ok_or_else(|| r.corrupt("rows are lost for no known reason"))
}
