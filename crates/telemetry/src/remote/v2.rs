//! `io.prometheus.write.v2.Request`: every text stands once, in a table; series refer to it and bring their metadata.
//!
//! The table differs from request to request, so a series is known by its texts, each behind its length, and its type and unit.

use super::read::{Emit, Items, Labels, Lines, Numbers, Refusal, Report, State, Symbols, put_part, varints};
use super::{Malformed, Options, Reason, Received};
use crate::sample::Type;
use crate::wire::Message;

const NUMBERS: Numbers = Numbers { samples: 2, histograms: 3, exemplars: 4 };

pub(super) fn read(body: &[u8], options: &Options, state: &mut State, out: &mut Vec<u8>) -> Result<Received, Malformed> {
    let symbols = symbols(body, options.symbols_max)?;
    let mut report = Report::new();
    let mut lines = Lines::new(out, options.out_bytes_max);
    let State { series: dictionary, times, key, part, .. } = state;
    let mut emit = Emit { options, times, lines: &mut lines, report: &mut report, symbols: Symbols::Table(&symbols), numbers: NUMBERS };
    let mut refs = Vec::new();
    for field in Message::new(body) {
        let (5, field) = field? else { continue };
        let series = field.bytes()?;
        let head = survey(series, options.label_names_max, &mut refs)?;
        if let Err((reason, text)) = head.key(&refs, &symbols, options.label_names_max, key) {
            emit.report.refuse(reason, head.items.total().max(1), || text);
            continue;
        }
        if let Some(found) = dictionary.find(key, 0) {
            emit.series(series, head.items, dictionary.part(found), head.created_ms)?;
            continue;
        }
        part.clear();
        let written = resolve(&refs, &symbols, options.label_names_max)
            .and_then(|labels| head.metadata(&symbols).and_then(|metadata| put_part(&labels, options, part, |_| metadata)));
        match written {
            Ok(()) => {
                dictionary.insert(key, part, 0);
                emit.series(series, head.items, part, head.created_ms)?;
            }
            Err((reason, text)) => emit.report.refuse(reason, head.items.total().max(1), || text),
        }
    }
    Ok(report.finish())
}

/// The table of texts, wherever in the request it stands.
fn symbols(body: &[u8], symbols_max: usize) -> Result<Vec<&[u8]>, Malformed> {
    let mut symbols = Vec::new();
    let mut has_series = false;
    for field in Message::new(body) {
        match field? {
            (4, field) => symbols.push(field.bytes()?),
            (5, _) => has_series = true,
            _ => {}
        }
        if symbols.len() > symbols_max {
            return Err(Malformed::TooLarge(format!("a request has at most {symbols_max} symbols")));
        }
    }
    match symbols.first() {
        Some(first) if !first.is_empty() => Err(Malformed::Broken("the first symbol is the empty text".into())),
        None if has_series => Err(Malformed::Broken("a request with series has symbols, the first of them the empty text".into())),
        _ => Ok(symbols),
    }
}

/// What a series is before its texts are looked up.
#[derive(Default)]
struct Head {
    items: Items,
    created_ms: i64,
    kind: u64,
    unit_ref: usize,
    help_ref: usize,
}

fn survey(series: &[u8], names_max: usize, refs: &mut Vec<u32>) -> Result<Head, Malformed> {
    let mut head = Head::default();
    refs.clear();
    for field in Message::new(series) {
        match field? {
            (1, field) => take_refs(field, names_max, refs)?,
            (2, _) => head.items.samples += 1,
            (3, _) => head.items.histograms += 1,
            (4, _) => head.items.exemplars += 1,
            (5, field) => {
                for field in field.message()? {
                    match field? {
                        (1, field) => head.kind = field.varint()?,
                        (3, field) => head.help_ref = field.varint()? as u32 as usize,
                        (4, field) => head.unit_ref = field.varint()? as u32 as usize,
                        _ => {}
                    }
                }
            }
            (6, field) => head.created_ms = field.varint()? as i64,
            _ => {}
        }
    }
    Ok(head)
}

impl Head {
    fn kind(&self) -> Type {
        Type::ALL.get(self.kind as usize).copied().unwrap_or_default()
    }

    /// The bytes by which the series is known. They begin with a 0, which no key of 1.0 does.
    fn key(&self, refs: &[u32], symbols: &[&[u8]], names_max: usize, key: &mut Vec<u8>) -> Result<(), Refusal> {
        if self.items.total() == 0 {
            return Err((Reason::EmptySeries, "a series has at least one sample, histogram or exemplar".into()));
        }
        check_refs(refs, names_max)?;
        key.clear();
        key.extend_from_slice(&[0, self.kind() as u8]);
        let _ = symbol(symbols, self.help_ref)?;
        put_sized(key, symbol(symbols, self.unit_ref)?);
        for text in refs {
            put_sized(key, symbol(symbols, *text as usize)?);
        }
        Ok(())
    }

    fn metadata<'a>(&self, symbols: &[&'a [u8]]) -> Result<(Type, &'a str), Refusal> {
        let unit = std::str::from_utf8(symbol(symbols, self.unit_ref)?);
        unit.map(|unit| (self.kind(), unit)).map_err(|_| (Reason::NotUtf8, "a unit is UTF-8".into()))
    }
}

#[inline]
fn put_sized(key: &mut Vec<u8>, text: &[u8]) {
    key.extend_from_slice(&(text.len() as u32).to_le_bytes());
    key.extend_from_slice(text);
}

#[inline]
fn symbol<'a>(symbols: &[&'a [u8]], at: usize) -> Result<&'a [u8], Refusal> {
    match symbols.get(at) {
        Some(symbol) => Ok(symbol),
        None => Err((Reason::SymbolOutOfRange, format!("symbol {at} is beyond the request's {}", symbols.len()))),
    }
}

/// One more than the most is kept, which is then found to be too many.
fn take_refs(field: crate::wire::Field<'_>, names_max: usize, refs: &mut Vec<u32>) -> Result<(), Malformed> {
    let refs_max = names_max.saturating_mul(2).saturating_add(2);
    varints(field, |at| {
        if refs.len() < refs_max {
            // Beyond 32 bits it is out of range, whatever it is.
            refs.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
    })
}

/// The references in field `number` of a message.
pub(super) fn refs(message: &[u8], number: u32, names_max: usize, refs: &mut Vec<u32>) -> Result<(), Malformed> {
    for field in Message::new(message) {
        match field? {
            (this, field) if this == number => take_refs(field, names_max, refs)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_refs(refs: &[u32], names_max: usize) -> Result<(), Refusal> {
    if refs.len() > names_max.saturating_mul(2) {
        return Err((Reason::TooManyLabels, format!("a series has at most {names_max} labels")));
    }
    if !refs.len().is_multiple_of(2) {
        return Err((Reason::OddLabelRefs, format!("label references come in pairs, and these are {}", refs.len())));
    }
    Ok(())
}

pub(super) fn resolve<'a>(refs: &[u32], symbols: &[&'a [u8]], names_max: usize) -> Result<Labels<'a>, Refusal> {
    check_refs(refs, names_max)?;
    refs.as_chunks::<2>().0.iter().map(|[name, value]| Ok((symbol(symbols, *name as usize)?, symbol(symbols, *value as usize)?))).collect()
}
