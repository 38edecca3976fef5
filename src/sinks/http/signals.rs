//! Rows to the bodies of remote write and OTLP.
//!
//! In: rows of frames, in order; of OTLP all of one signal. Out: a body, or which rows no body can hold, and why. Between bodies
//! remote write remembers series, so that their labels are read once.

use flow::event::Signal;
use hub::Frame;
use std::collections::BTreeMap;
use telemetry::otlp::{self, Encoding, WriteOptions};
use telemetry::remote::{External, Version, Writer, WriterOptions};

/// A body that is not packed yet by the sink.
pub struct Made {
    pub body: Vec<u8>,
    /// Rows that it cannot hold, ascending, and why: then it is not to be sent.
    pub unwritable: Vec<(usize, &'static str)>,
}

/// What is known of series.
#[derive(Default)]
pub struct Series(Option<(Version, Writer)>);

impl Series {
    pub fn remote_write<'a>(
        &mut self,
        version: Version,
        labels: &BTreeMap<String, String>,
        rows: impl Iterator<Item = (&'a Frame, usize)>,
    ) -> Made {
        if self.0.as_ref().is_none_or(|(own, _)| *own != version) {
            let labels = labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            let external = External { labels, overrides: false };
            // The sink's own batches are the bound.
            let options = WriterOptions { samples_max: usize::MAX, bytes_max: usize::MAX, external, ..WriterOptions::new(version) };
            self.0 = Some((version, Writer::new(options)));
        }
        let (_, writer) = self.0.as_mut().expect("made just before");
        let unwritable: Vec<_> =
            rows.enumerate().filter_map(|(at, (frame, row))| Some((at, writer.push(frame.rows.row(row)).err()?.name()))).collect();
        Made { body: writer.finish().body, unwritable }
    }
}

/// `resource`: members that become attributes of the resource.
pub fn otlp<'a>(resource: &BTreeMap<String, String>, rows: impl Iterator<Item = (&'a Frame, usize)>) -> Made {
    let mut rows = rows.enumerate().peekable();
    let signal = rows.peek().map_or(Signal::Logs, |(_, (frame, row))| signal_of(frame, *row as u32));
    let resource = resource.iter().map(|(name, attribute)| (name.clone(), attribute.clone())).collect();
    let mut writer = otlp::Writer::new(signal, WriteOptions { resource, ..WriteOptions::default() });
    let unwritable: Vec<_> = rows.filter_map(|(at, (frame, row))| Some((at, writer.push(frame.rows.row(row)).err()?.name()))).collect();
    Made { body: writer.finish(Encoding::Protobuf), unwritable }
}

/// What a row is.
pub fn signal_of(frame: &Frame, row: u32) -> Signal {
    frame.parts.iter().find(|part| part.rows.contains(&row)).map_or(Signal::Logs, |part| part.signal)
}
