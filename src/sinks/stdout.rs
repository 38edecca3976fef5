//! The `stdout` sink: kept rows on standard output, one a line; and `blackhole`, which writes nothing.
//!
//! In: frames. Out: lines, at least once: the position is written after the lines are, so a crash in between
//! writes some lines again. Memory: one frame's worth of buffered bytes.

use anyhow::Context;
use flow::event::StreamId;
use hub::{Disk, Frame};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, Stdout as StdStdout, Write};
use std::path::{Path, PathBuf};

pub struct Stdout {
    disk: Disk,
    path: PathBuf,
    silent: bool,
    out: BufWriter<StdStdout>,
    positions: HashMap<StreamId, u64>,
}

impl Stdout {
    /// `path`: where the position is kept; `silent`: nothing is written but that.
    pub fn open(disk: Disk, path: &Path, silent: bool) -> anyhow::Result<Stdout> {
        let folder = path.parent().expect("the file lies in the data folder");
        disk.create_dir_all(folder, "cursor folder").with_context(|| format!("cannot create {}", folder.display()))?;
        let mut positions = HashMap::new();
        if disk.exists(path)? {
            let text = disk.read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let kept: BTreeMap<u64, u64> = serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged; remove it to write everything the hub still holds again", path.display()))?;
            positions.extend(kept.into_iter().map(|(stream, done)| (StreamId(stream), done)));
        }
        Ok(Stdout { disk, path: path.to_path_buf(), silent, out: BufWriter::with_capacity(64 << 10, std::io::stdout()), positions })
    }

    pub fn positions(&self) -> HashMap<StreamId, u64> {
        self.positions.clone()
    }

    pub fn position(&self, stream: StreamId) -> Option<u64> {
        self.positions.get(&stream).copied()
    }

    pub fn write(&mut self, frame: &Frame) -> anyhow::Result<()> {
        for part in &frame.parts {
            let done = self.positions.entry(part.stream).or_default();
            if part.to <= *done {
                continue;
            }
            for row in part.rows.clone().filter(|_| !self.silent) {
                self.out.write_all(frame.rows.row(row as usize)).and_then(|()| self.out.write_all(b"\n")).context("standard output")?;
            }
            *done = part.to;
        }
        Ok(())
    }

    pub fn commit(&mut self) -> anyhow::Result<()> {
        self.out.flush().context("standard output")?;
        let kept: BTreeMap<u64, u64> = self.positions.iter().map(|(stream, done)| (stream.0, *done)).collect();
        crate::durable::replace(&self.disk, &self.path, &serde_json::to_vec(&kept).expect("numbers are plain data"))
    }
}
