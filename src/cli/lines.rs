//! Lines of loose files, as `eval`, `check --sample` and `import` read them.
//!
//! In: a path, `-` for standard input; `.gz` and `.zst` are unpacked as a stream. Out: lines without their ends. A line longer
//! than [`LINE_BYTES_MAX`] is cut there, so memory is bounded whatever the file holds.

use anyhow::Context;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// Hands every line to `each`, until it breaks.
pub fn each_line(path: &Path, each: &mut dyn FnMut(&[u8]) -> anyhow::Result<ControlFlow<()>>) -> anyhow::Result<()> {
    let mut lines = BufReader::with_capacity(256 << 10, open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read {}", path.display()))? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX {
            lines.skip_until(b'\n').with_context(|| format!("cannot read {}", path.display()))?;
        }
        if each(line.trim_ascii_end())?.is_break() {
            return Ok(());
        }
    }
}

fn open(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(file),
    })
}
