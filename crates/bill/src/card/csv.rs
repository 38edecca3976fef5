//! A price list as a table: CSV in, the config of a card out.
//!
//! In: text with a header line, by RFC 4180 (quotes, doubled quotes, line breaks in quotes; CRLF or LF). Columns in any order:
//!
//! | column | meaning |
//! |---|---|
//! | `sku`, `meter`, `price`, `per`, `unit` | as in a price of the card; `per` may be empty or missing, and is 1 then |
//! | `model`, `region`, `currency` | as in a price of the card, where there is one |
//! | `minus` | meters that are part of this one, with blanks between them |
//! | `up_to` | bound of a tier: lines with the same version, sku and meter are tiers of one price, in their order; empty for the last |
//! | `from`, `to` | when the price is valid: `2026-07-01T00:00:00Z`, or `2026-07-01` for its first minute |
//! | `version` | name of the version; without it `from` names it |
//! | `match.NAME` | the dimension NAME must have this value |
//!
//! Lines with the same `from`, `to` and `version` are one version. Out: a config that `Card::compile` then checks like any
//! other, or every mistake at once with its line. Bound: `BYTES_MAX` of text, `LINES_MAX` prices; a larger one is refused.

use super::{CardConfig, CardError, Errors, Parts, PriceConfig, TierConfig, VersionConfig};
use std::collections::BTreeMap;

pub const BYTES_MAX: usize = 64 << 20;
pub const LINES_MAX: usize = 1 << 20;
const COLUMNS: [&str; 13] =
    ["sku", "meter", "model", "region", "price", "per", "unit", "from", "to", "currency", "minus", "up_to", "version"];
const NEEDED: [&str; 5] = ["sku", "meter", "price", "unit", "from"];

/// A row of the table: the line it begins at, and its cells.
struct Row {
    line: usize,
    cells: Vec<String>,
}

/// Reads a price list. `currency`: that of the card; prices in others need rates, which are added to the config by hand.
///
/// A mistake's path is `line 7, price`.
pub fn import_csv(text: &str, currency: &str) -> Result<CardConfig, Vec<CardError>> {
    let mut errors = Errors(Vec::new());
    if text.len() > BYTES_MAX {
        errors.add("line 1", format!("begins a text of {} bytes", text.len()), format!("a price list has at most {BYTES_MAX} bytes"));
        return Err(errors.0);
    }
    let rows = rows(text.strip_prefix('\u{feff}').unwrap_or(text), &mut errors);
    let mut rows = rows.into_iter();
    let Some(header) = rows.next() else {
        errors.add("line 1", "is missing", format!("the first line names the columns: {}", COLUMNS.join(",")));
        return Err(errors.0);
    };
    let columns: Vec<String> = header.cells.iter().map(|cell| cell.trim().to_string()).collect();
    check_columns(&columns, &mut errors);
    if !errors.0.is_empty() {
        return Err(errors.0);
    }
    let mut table = Table::default();
    for row in rows {
        table.add(&columns, &row, currency, &mut errors);
    }
    if table.order.is_empty() && errors.0.is_empty() {
        errors.add("line 2", "is missing", "a price list has at least one price");
    }
    if !errors.0.is_empty() {
        return Err(errors.0);
    }
    let versions = table.order.iter().filter_map(|key| table.versions.remove(key)).collect();
    Ok(CardConfig { currency: currency.to_string(), versions, ..CardConfig::default() })
}

fn check_columns(columns: &[String], errors: &mut Errors) {
    for (index, name) in columns.iter().enumerate() {
        let is_match = name.strip_prefix("match.").is_some_and(|dim| !dim.is_empty());
        if !COLUMNS.contains(&name.as_str()) && !is_match {
            errors.add("line 1", format!("has a column {name:?}"), format!("columns are {} and match.NAME", COLUMNS.join(", ")));
        }
        if columns[..index].contains(name) {
            errors.add("line 1", format!("has the column {name:?} twice"), "name each column once");
        }
    }
    for name in NEEDED {
        if !columns.iter().any(|column| column == name) {
            errors.add("line 1", format!("has no column {name:?}"), format!("these are needed: {}", NEEDED.join(", ")));
        }
    }
}

/// Version by (from, to, name).
type VersionKey = (String, String, String);

#[derive(Default)]
struct Table {
    versions: BTreeMap<VersionKey, VersionConfig>,
    /// As they first occur.
    order: Vec<VersionKey>,
    /// Number of a price in its version, by version, SKU and meter.
    prices: BTreeMap<(VersionKey, String, String), usize>,
}

impl Table {
    fn add(&mut self, columns: &[String], row: &Row, currency: &str, errors: &mut Errors) {
        let at = |column: &str| format!("line {}, {column}", row.line);
        if row.cells.len() != columns.len() {
            let message = format!("has {} cells, the header {}", row.cells.len(), columns.len());
            return errors.add(format!("line {}", row.line), message, "give each column a cell, an empty one where there is nothing");
        }
        let cell = |name: &str| columns.iter().position(|c| c == name).map_or("", |index| row.cells[index].trim());
        let text = |name: &str| Some(cell(name)).filter(|text| !text.is_empty()).map(str::to_string);
        let before = errors.0.len();
        for name in NEEDED.iter().filter(|name| cell(name).is_empty()) {
            errors.add(at(name), "is empty", "a price needs it");
        }
        let mut number = |name: &str| {
            let digits = text(name)?;
            let value = Some(&digits).filter(|d| d.bytes().all(|b| b.is_ascii_digit())).and_then(|d| d.parse::<u64>().ok());
            if value.is_none() {
                errors.add(at(name), format!("is {digits:?}"), "write a whole number, without separators");
            }
            value
        };
        let (per, up_to) = (number("per"), number("up_to"));
        let price = cell("price").to_string();
        if !price.is_empty() {
            super::price::compile_amount(&price, at("price"), errors);
        }
        let time = |name: &str| match cell(name) {
            day if day.len() == 10 => format!("{day}T00:00:00Z"),
            other => other.to_string(),
        };
        let (from, to) = (time("from"), time("to"));
        for (name, time) in [("from", &from), ("to", &to)] {
            if !time.is_empty() {
                super::compile_minute(time, at(name), errors);
            }
        }
        if errors.0.len() > before {
            return;
        }
        let matches = columns.iter().filter_map(|column| Some((column.strip_prefix("match.")?.to_string(), text(column)?))).collect();
        let new = PriceConfig {
            sku: cell("sku").into(),
            meter: cell("meter").into(),
            minus: Parts(text("minus").iter().flat_map(|names| names.split_whitespace()).map(String::from).collect()),
            model: text("model"),
            region: text("region"),
            matches,
            price: Some(price),
            tiers: vec![],
            currency: text("currency").filter(|code| code != currency),
            per: per.unwrap_or(1),
            unit: cell("unit").into(),
        };
        self.put((from, to, cell("version").to_string()), new, up_to, at("up_to"), errors);
    }

    fn put(&mut self, key: VersionKey, mut new: PriceConfig, up_to: Option<u64>, at: String, errors: &mut Errors) {
        let version = self.versions.entry(key.clone()).or_insert_with(|| {
            self.order.push(key.clone());
            let name = if key.2.is_empty() { key.0.clone() } else { key.2.clone() };
            let to = Some(key.1.clone()).filter(|to| !to.is_empty());
            VersionConfig { name, from: key.0.clone(), to, prices: vec![] }
        });
        let place = (key, new.sku.clone(), new.meter.clone());
        let tier = TierConfig { up_to, price: new.price.clone().unwrap_or_default() };
        match self.prices.get(&place).map(|index| &mut version.prices[*index]) {
            // A second line of a price that is in tiers; anything else is a second price, which `Card::compile` refuses by its SKU.
            Some(known) if !known.tiers.is_empty() => {
                let is_alike = {
                    new.price = None;
                    let of = |p: &PriceConfig| {
                        (p.minus.clone(), p.model.clone(), p.region.clone(), p.matches.clone(), p.currency.clone(), p.per, p.unit.clone())
                    };
                    of(known) == of(&new)
                };
                if !is_alike {
                    return errors.add(
                        at,
                        "belongs to a tier that differs from the one before in more than bound and price",
                        "give each SKU a name of its own",
                    );
                }
                known.tiers.push(tier);
            }
            _ => {
                if up_to.is_some() {
                    new.price = None;
                    new.tiers.push(tier);
                }
                self.prices.insert(place, version.prices.len());
                version.prices.push(new);
            }
        }
    }
}

/// Splits the text into rows; empty lines are none.
fn rows(text: &str, errors: &mut Errors) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = Row { line: 1, cells: vec![] };
    let (mut cell, mut line, mut is_quoted) = (String::new(), 1, false);
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        line += usize::from(sign == '\n');
        match sign {
            '"' if is_quoted && signs.peek() == Some(&'"') => {
                signs.next();
                cell.push('"');
            }
            '"' if is_quoted => {
                is_quoted = false;
                if !matches!(signs.peek(), None | Some(',' | '\n' | '\r')) {
                    errors.add(format!("line {line}"), "goes on after a closing quote", "write \"\" for a quote within quotes");
                }
            }
            _ if is_quoted => cell.push(sign),
            '"' if cell.is_empty() => is_quoted = true,
            '"' => errors.add(format!("line {line}"), "has a quote within a cell", "put the cell into quotes and write \"\" for the quote"),
            ',' => row.cells.push(std::mem::take(&mut cell)),
            '\r' if signs.peek() == Some(&'\n') => {}
            '\n' => end_row(&mut rows, &mut row, &mut cell, line),
            _ => cell.push(sign),
        }
        if rows.len() > LINES_MAX {
            errors.add(format!("line {line}"), "is one price too many", format!("a price list has at most {LINES_MAX} prices"));
            return rows;
        }
    }
    if is_quoted {
        errors.add(format!("line {}", row.line), "has a quote that is never closed", "close it");
    }
    end_row(&mut rows, &mut row, &mut cell, line);
    rows
}

/// `line`: that of the next row.
fn end_row(rows: &mut Vec<Row>, row: &mut Row, cell: &mut String, line: usize) {
    row.cells.push(std::mem::take(cell));
    let done = std::mem::replace(row, Row { line, cells: vec![] });
    if done.cells.iter().any(|cell| !cell.is_empty()) {
        rows.push(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::Card;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let errors = import_csv(text, "USD").err().unwrap_or_default();
        assert_eq!(errors.iter().map(|error| error.path.as_str()).collect::<Vec<_>>(), want);
    }

    #[test]
    fn a_price_list_becomes_the_card_it_says() {
        let text = "sku,meter,model,region,price,per,unit,from,to,currency,up_to,match.service\r\n\
            out,tokens_out,orca,eu-1,1.50,1000000,Tokens,2026-01-01,2026-07-01,,,\r\n\
            \"in, \"\"plain\"\"\",tokens_in,orca,,0.50,1000000,Tokens,2026-01-01T00:00:00Z,2026-07-01,USD,,\"line\nbreak\"\r\n\
            gpu,gpu_held,,,2.50,,Hours,2026-07-01,,,100,\r\n\
            gpu,gpu_held,,,2.00,,Hours,2026-07-01,,,,\r\n\r\n";
        let config = import_csv(text, "USD").unwrap();
        let card = Card::compile(&config, text.as_bytes()).unwrap();
        assert_eq!(card.versions.len(), 2);
        let quoted = &card.versions[0].prices["tokens_in"][0];
        assert_eq!((quoted.sku.as_str(), quoted.price.to_string().as_str()), ("in, \"plain\"", "0.500000000000"));
        assert_eq!(quoted.matches, [("model".into(), b"orca".to_vec()), ("service".into(), b"line\nbreak".to_vec())]);
        assert_eq!(card.versions[0].prices["tokens_out"][0].matches[1], ("region".into(), b"eu-1".to_vec()));
        let tiers = &card.versions[1].prices["gpu_held"][0].tiers;
        assert_eq!((tiers.len(), tiers[0].up_to), (2, 100 * 3_600_000));
    }

    #[test]
    fn every_mistake_of_a_price_list_is_told_with_its_line() {
        let head = "sku,meter,price,unit,from,per\n";
        check("", &["line 1"]);
        check(head, &["line 2"]);
        check("sku,meter,colour,sku\n", &["line 1"; 5]);
        check(
            &format!("{head}a,m,0.0000000000001,Tokens,2026-01-01,1\n\nb,m,-1,,2026-13-01,1e6\nc,m,1\n"),
            &["line 2, price", "line 4, unit", "line 4, per", "line 4, price", "line 4, from", "line 5"],
        );
        check(&format!("{head}a,m,1,Tokens,2026-01-01,\"1"), &["line 2"]);
        check(&format!("{head}a,m\"x,1,Tokens,2026-01-01,1\n"), &["line 2"]);
        check(&format!("{head}a,\"m\"x,1,Tokens,2026-01-01,1\n"), &["line 2"]);
    }
}
