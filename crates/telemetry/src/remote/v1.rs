//! `prometheus.WriteRequest`: labels stand in each series, metadata by family beside them.
//!
//! A series is known by the bytes of its labels as they came, if they stand together at its start, as every sender writes them.

use super::read::{Emit, Items, Labels, Lines, MS_RANGE, Numbers, Refusal, Report, State, Symbols, put_part};
use super::{Malformed, Options, Reason, Received};
use crate::sample::Type;
use crate::wire::Message;

const NUMBERS: Numbers = Numbers { samples: 2, exemplars: 3, histograms: 4 };

pub(super) fn read(body: &[u8], options: &Options, state: &mut State, out: &mut Vec<u8>) -> Result<Received, Malformed> {
    const { assert!(MS_RANGE.start > 0) };
    learn(body, state)?;
    let mut report = Report::new();
    let mut lines = Lines::new(out, options.out_bytes_max);
    let State { series: dictionary, families, times, key, part } = state;
    let mut emit = Emit { options, times, lines: &mut lines, report: &mut report, symbols: Symbols::Inline, numbers: NUMBERS };
    for field in Message::new(body) {
        let (1, field) = field? else { continue };
        let series = field.bytes()?;
        let (items, labels_bytes, rest) = survey(series, key)?;
        if let Some(found) = dictionary.find(labels_bytes, families.epoch) {
            emit.series(rest, items, dictionary.part(found), 0)?;
            continue;
        }
        part.clear();
        let written = match labels(series, options.label_names_max)? {
            Ok(labels) => put_part(&labels, options, part, |metric| families.of(metric)),
            Err(refusal) => Err(refusal),
        };
        match written {
            Ok(()) => {
                dictionary.insert(labels_bytes, part, families.epoch);
                emit.series(rest, items, part, 0)?;
            }
            Err((reason, text)) => emit.report.refuse(reason, items.total().max(1), || text),
        }
    }
    Ok(report.finish())
}

/// Takes what the request says of families; it mostly comes after the series, often in requests of its own.
fn learn(body: &[u8], state: &mut State) -> Result<(), Malformed> {
    for field in Message::new(body) {
        let (3, field) = field? else { continue };
        let (mut kind, mut family, mut unit) = (0, "", "");
        for field in field.message()? {
            match field? {
                (1, field) => kind = field.varint()?,
                (2, field) => family = field.text()?,
                (5, field) => unit = field.text()?,
                _ => {}
            }
        }
        state.families.learn(family, Type::ALL.get(kind as usize).copied().unwrap_or_default(), unit);
    }
    Ok(())
}

/// How much a series has, the bytes of its labels, and where everything else is; `key` holds labels that do not stand together.
fn survey<'a>(series: &'a [u8], key: &'a mut Vec<u8>) -> Result<(Items, &'a [u8], &'a [u8]), Malformed> {
    let mut items = Items::default();
    let (mut at, mut labels_end, mut is_scattered) = (0, 0, false);
    let mut message = Message::new(series);
    while let Some(field) = message.next() {
        let (number, _) = field?;
        let end = series.len() - message.rest().len();
        match number {
            1 if at == labels_end => labels_end = end,
            1 => is_scattered = true,
            2 => items.samples += 1,
            3 => items.exemplars += 1,
            4 => items.histograms += 1,
            _ => {}
        }
        at = end;
    }
    if !is_scattered {
        return Ok((items, &series[..labels_end], &series[labels_end..]));
    }
    key.clear();
    for field in Message::new(series) {
        if let (1, field) = field? {
            crate::wire::put_bytes(key, 1, field.bytes()?);
        }
    }
    Ok((items, key, series))
}

/// The labels of a series or an exemplar, as they come.
pub(super) fn labels(message: &[u8], names_max: usize) -> Result<Result<Labels<'_>, Refusal>, Malformed> {
    let mut labels = Labels::new();
    for field in Message::new(message) {
        let (1, field) = field? else { continue };
        let (mut name, mut value) = (&[][..], &[][..]);
        for field in field.message()? {
            match field? {
                (1, field) => name = field.bytes()?,
                (2, field) => value = field.bytes()?,
                _ => {}
            }
        }
        if labels.len() == names_max {
            return Ok(Err((Reason::TooManyLabels, format!("a series has at most {names_max} labels"))));
        }
        labels.push((name, value));
    }
    Ok(Ok(labels))
}
