//! Frames for tests: random ones that are valid, and plain ones that say what they are about.

use crate::frame::{Count, Fact, FactEvent, Frame, Lost, LostReason, MISSING, Meter, Part, Resumed, Rows, Selected, StateChange};
use flow::event::{EventKind, Note, Outcome, Reason, Signal, Skip, StreamId};
use flow::units::UnixNanos;

/// xorshift64 (Marsaglia 2003); the seed must not be 0.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn blob(&mut self, len_max: u64) -> Vec<u8> {
        let n = self.below(len_max + 1);
        (0..n).map(|_| self.below(256) as u8).collect()
    }
}

/// A frame of one tenant: per part (stream, from, to), `rows` kept rows and as many sampled ones.
pub fn plain(parts: &[(u64, u64, u64)], tenant: &[u8], rows: u32) -> Frame {
    let mut frame = Frame { tenants: vec![tenant.into()], ..Frame::default() };
    for (stream, from, to) in parts {
        let start = frame.rows.len() as u32;
        for i in 0..rows {
            push_row(&mut frame.rows, format!("{stream}:{to}:{i}").as_bytes(), 0);
        }
        let bytes: u64 = frame.rows.origin_bytes[start as usize..].iter().map(|b| u64::from(*b)).sum();
        let count = |outcome| Count { tenant: 0, outcome, records: u64::from(rows), bytes };
        frame.parts.push(Part {
            stream: StreamId(*stream),
            from: *from,
            to: *to,
            resume: *to,
            records_bytes: to - from,
            rows: start..start + rows,
            counts: vec![count(Outcome::Kept), count(Outcome::Dropped(Reason::Sampled))],
            ..Part::default()
        });
    }
    frame
}

/// A frame of one part of stream 1, with `rows` rows of three tenants; each is taken by some of `sinks`, the dictionary.
pub fn selecting(random: &mut Random, from: u64, to: u64, rows: u32, sinks: &[&str]) -> Frame {
    let tenants = ["acme", "bolt", "cube"];
    let mut frame = Frame { tenants: tenants.map(|t| t.as_bytes().into()).to_vec(), ..Frame::default() };
    frame.sinks = sinks.iter().map(|name| name.as_bytes().into()).collect();
    let mut part = Part { stream: StreamId(1), from, to, resume: to, records_bytes: to - from, rows: 0..rows, ..Part::default() };
    let all = (1 << sinks.len()) - 1;
    for i in 0..rows {
        let (tenant, taken) = (random.below(3) as u32, random.below(1 << sinks.len()) as u32);
        let row = format!("row {i} of {from} to {to}, {}", "x".repeat(random.below(240) as usize));
        let bytes = row.len() as u64;
        push_row(&mut frame.rows, row.as_bytes(), tenant);
        frame.rows.sinks.push(taken);
        let outcome = Outcome::Kept;
        match part.counts.iter_mut().find(|count| count.tenant == tenant) {
            Some(count) => (count.records, count.bytes) = (count.records + 1, count.bytes + bytes),
            None => part.counts.push(Count { tenant, outcome, records: 1, bytes }),
        }
        match part.selected.iter_mut().find(|selected| (selected.tenant, selected.sinks) == (tenant, taken)) {
            _ if taken == all => {}
            Some(selected) => (selected.records, selected.bytes) = (selected.records + 1, selected.bytes + bytes),
            None => part.selected.push(Selected { tenant, sinks: taken, records: 1, bytes }),
        }
    }
    frame.parts.push(part);
    frame
}

fn push_row(rows: &mut Rows, bytes: &[u8], tenant: u32) {
    rows.bytes.extend_from_slice(bytes);
    rows.ends.push(rows.bytes.len() as u32);
    rows.tenant.push(tenant);
    rows.time.push(0);
    rows.severity.push(9);
    rows.weight.push(1);
    rows.position.push(0);
    rows.origin_bytes.push(bytes.len() as u32);
    rows.notes.push(0);
}

/// A random valid frame that uses every field.
pub fn frame(random: &mut Random) -> Frame {
    let tenants = 1 + random.below(4);
    let values = 1 + random.below(5);
    let mut frame = Frame {
        seq: random.below(1000),
        received: UnixNanos(random.next() as i64),
        newest: UnixNanos(random.next() as i64),
        tenants: (0..tenants).map(|i| format!("tenant-{i}").into_bytes().into()).collect(),
        values: (0..values).map(|_| random.blob(9).into()).collect(),
        meters: vec![
            Meter { name: "tokens".into(), unit: "Tokens".into(), dims: vec!["model".into(), "service".into()], lineage: false },
            Meter { name: "lineage".into(), lineage: true, ..Meter::default() },
        ],
        ..Frame::default()
    };
    for _ in 0..random.below(3) {
        let bytes = (0..random.below(3) * 32).map(|_| random.below(256) as u8).collect();
        frame.state.push(StateChange { step: random.below(9) as u32, bytes });
    }
    if random.below(8) == 0 {
        let rows = (0..tenants).map(|_| random.below(9)).collect();
        frame.lost = Some(Box::new(Lost { reason: LostReason::Damaged, first_seq: frame.seq, rows, stray_rows: random.below(2) }));
        return frame;
    }
    let columns = random.below(3);
    frame.rows.columns = vec![Vec::new(); columns as usize];
    for _ in 0..random.below(4) {
        part(random, &mut frame);
    }
    let n = frame.rows.len();
    if random.below(2) == 0 {
        frame.sinks = vec![b"files"[..].into(), b"store"[..].into()];
        frame.rows.sinks = (0..n).map(|_| random.below(4) as u32).collect();
    }
    if random.below(2) == 0 {
        frame.rows.requests = (0..n).map(|_| random.next()).collect();
    }
    frame
}

fn event(random: &mut Random) -> Option<Box<FactEvent>> {
    let kind = EventKind::from_code(random.below(12) as u8)?;
    let at = random.next() as i64 >> 1;
    let (end, position) = (at + random.below(1 << 40) as i64, random.next());
    Some(Box::new(FactEvent { kind, at: UnixNanos(at), end: UnixNanos(end), key: random.blob(20).into(), position }))
}

fn part(random: &mut Random, frame: &mut Frame) {
    let start = frame.rows.len() as u32;
    let tenants = frame.tenants.len() as u64;
    for _ in 0..random.below(6) {
        let bytes = random.blob(40);
        let tenant = random.below(tenants) as u32;
        push_row(&mut frame.rows, &bytes, tenant);
        for column in &mut frame.rows.columns {
            let offset = random.below(bytes.len() as u64 + 1) as u32;
            let len = random.below(u64::from(bytes.len() as u32 - offset) + 1) as u32;
            column.push(if random.below(3) == 0 { (MISSING, 0) } else { (offset, len) });
        }
    }
    let from = random.below(1 << 40);
    let to = from + random.below(1 << 20);
    let mut part = Part {
        stream: StreamId(random.next()),
        signal: if random.below(6) == 0 { Signal::ALL[random.below(3) as usize] } else { Signal::Logs },
        from,
        to,
        resume: random.below(to + 1),
        before: random.next(),
        records_bytes: random.below(1 << 20),
        framing_bytes: random.below(99),
        held_bytes: random.below(99) as i64 - 50,
        rows: start..frame.rows.len() as u32,
        also: vec![Resumed { stream: StreamId(random.next()), resume: 1, done: 2 }],
        skipped: vec![(Skip::Blank, random.below(99))],
        notes: vec![(0, Note::ALL[random.below(14) as usize], 3)],
        ..Part::default()
    };
    let outcomes = [Outcome::Kept, Outcome::Created, Outcome::Dropped(Reason::Sampled), Outcome::Dropped(Reason::Malformed)];
    for outcome in outcomes {
        part.counts.push(Count { tenant: random.below(tenants) as u32, outcome, records: random.below(99), bytes: random.below(9999) });
    }
    if random.below(2) == 0 {
        let (records, bytes) = (random.below(99), random.below(9999));
        part.selected.push(Selected { tenant: random.below(tenants) as u32, sinks: random.below(4) as u32, records, bytes });
    }
    for _ in 0..random.below(4) {
        let values = frame.values.len() as u64;
        let (meter, dims) =
            if random.below(4) == 0 { (1, vec![]) } else { (0, vec![random.below(values) as u32, random.below(values) as u32]) };
        let quantity = i128::from(random.next()) << random.below(60);
        part.facts.push(Fact {
            tenant: random.below(tenants) as u32,
            meter,
            minute: random.next() as i64,
            dims,
            quantity,
            events: random.below(9),
            event: event(random),
        });
    }
    frame.parts.push(part);
}
