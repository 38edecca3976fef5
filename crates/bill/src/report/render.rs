//! A report as table cells, as CSV (RFC 4180) and as JSON.
//!
//! Money and quantities are text in all of them: a reader's float would round them. Values are bytes that tenants chose;
//! what is no UTF-8 is shown as `\xff`, and JSON gives its bytes besides.

use super::{Change, ChangeKind, Dim, Quantity, Report, ReportRow, Status};
use crate::money::Money;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Cells for a terminal; control characters are escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub header: Vec<String>,
    /// The total is the last row.
    pub rows: Vec<Vec<String>>,
    /// So many columns are text and stand to the left; the others are numbers, after the usage.
    pub left: usize,
}

/// Bytes as text: UTF-8 as it is, other bytes as `\xff`. Control characters stay.
pub fn show(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}"); // a String takes all
        }
    }
    out
}

/// The same for a terminal, which control characters could command.
fn show_plain(bytes: &[u8]) -> String {
    show(bytes).chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

impl Report {
    fn has_status(&self) -> bool {
        self.rows.iter().any(|row| row.status.is_some())
    }

    fn has_change(&self) -> bool {
        self.total.change.is_some()
    }

    /// Columns: the dimensions, status (where told apart), usage, cost, share, change (where compared).
    pub fn table(&self) -> Table {
        let mut header: Vec<String> = self.by.iter().map(|dim| dim.name().to_string()).collect();
        if self.has_status() {
            header.push("status".into());
        }
        let left = header.len().max(1);
        header.resize(left, String::new());
        header.extend(["usage".into(), format!("cost {}", self.currency), "share %".into()]);
        if self.has_change() {
            header.extend(["change".into(), "change %".into()]);
        }
        let rows = self.rows.iter().chain([&self.total]).map(|row| self.cells(row, left)).collect();
        Table { header, rows, left }
    }

    fn cells(&self, row: &ReportRow, left: usize) -> Vec<String> {
        let is_total = std::ptr::eq(row, &self.total);
        let mut cells: Vec<String> = row.key.iter().map(|value| show_plain(value)).collect();
        if is_total {
            cells = vec!["total".into()];
        } else {
            cells.extend(row.status.map(|status| status.name().to_string()));
        }
        cells.resize(left, String::new());
        cells.push(self.usage_text(row));
        cells.push(cost_text(row));
        cells.push(row.share.map_or(String::new(), |share| share.to_string()));
        if self.has_change() {
            cells.extend(row.change.as_ref().map_or([String::new(), String::new()], change_cells));
        }
        cells
    }

    /// `5 Tokens`, or `tokens_in 5, tokens_out 7` of several meters.
    fn usage_text(&self, row: &ReportRow) -> String {
        let is_single = self.by.contains(&Dim::Meter) && row.quantities.len() == 1;
        let text = |((meter, unit), q): (&(String, String), &Quantity)| {
            let amount = if row.status == Some(Status::Quarantined) { q.refused } else { metered(q) };
            if is_single { format!("{amount} {unit}") } else { format!("{meter} {amount}") }
        };
        row.quantities.iter().map(text).collect::<Vec<_>>().join(", ")
    }

    /// One line a row and none for the total, so that a column's sum is right. Each meter has columns of its own.
    pub fn csv(&self) -> String {
        let meters: BTreeSet<&(String, String)> = self.rows.iter().flat_map(|row| row.quantities.keys()).collect();
        let mut header: Vec<String> = self.by.iter().map(|dim| dim.name().to_string()).collect();
        if self.has_status() {
            header.push("status".into());
        }
        for column in ["currency", "cost", "list_cost", "contracted_cost", "effective_cost", "share_percent"] {
            header.push(column.into());
        }
        if self.has_change() {
            header.extend(["change", "cost_before", "cost_change", "change_percent"].map(String::from));
        }
        for (meter, unit) in &meters {
            header.extend(["quantity", "billable", "unpriced", "refused", "events"].map(|part| format!("{meter} {part} ({unit})")));
        }
        let mut out = String::new();
        csv_line(&mut out, &header);
        for row in &self.rows {
            let mut cells: Vec<String> = row.key.iter().map(|value| show(value)).collect();
            cells.extend(row.status.map(|status| status.name().to_string()));
            cells.push(self.currency.clone());
            cells.extend([row.cost, row.list, row.contracted, row.effective].map(|money| money.to_string()));
            cells.push(row.share.map_or(String::new(), |share| share.to_string()));
            if let Some(change) = &row.change {
                let percent = change.percent.map_or(String::new(), |percent| percent.to_string());
                cells.extend([change.kind.name().to_string(), change.before.to_string(), change.amount.to_string(), percent]);
            }
            for meter in &meters {
                match row.quantities.get(*meter) {
                    Some(q) => cells.extend([
                        q.quantity.to_string(),
                        q.billable.to_string(),
                        q.unpriced.to_string(),
                        q.refused.to_string(),
                        q.events.to_string(),
                    ]),
                    None => cells.extend([const { String::new() }; 5]),
                }
            }
            csv_line(&mut out, &cells);
        }
        out
    }

    /// Rows with their values by name, and once more in order (`key`), as a dimension may be named `cost`.
    pub fn json(&self) -> Value {
        json!({
            "currency": self.currency,
            "by": self.by.iter().map(Dim::name).collect::<Vec<_>>(),
            "rows": self.rows.iter().map(|row| row_json(&self.by, row)).collect::<Vec<_>>(),
            "total": row_json(&[], &self.total),
            "movers": self.movers.iter().map(|place| row_json(&self.by, &self.rows[*place])).collect::<Vec<_>>(),
        })
    }
}

/// What was used: what parts of a shared cost have only billable quantities.
fn metered(q: &Quantity) -> i128 {
    if q.quantity == 0 { q.billable } else { q.quantity }
}

fn cost_text(row: &ReportRow) -> String {
    match row.status {
        Some(Status::Unpriced) => "no price".into(),
        Some(Status::Quarantined) => "refused".into(),
        None if row.cost == Money::ZERO && row.quantities.values().any(|q| q.unpriced > 0) => "no price".into(),
        _ => row.cost.to_string(),
    }
}

fn change_cells(change: &Change) -> [String; 2] {
    let sign = if change.amount.0 > 0 { "+" } else { "" };
    let percent = match (change.kind, change.percent) {
        (ChangeKind::New | ChangeKind::Gone, _) => change.kind.name().to_string(),
        (_, Some(percent)) => format!("{}{percent}", if percent.0 > 0 { "+" } else { "" }),
        (_, None) => String::new(),
    };
    [format!("{sign}{}", change.amount), percent]
}

fn csv_line(out: &mut String, cells: &[String]) {
    for (index, cell) in cells.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        // A line of one empty cell would be no line at all.
        if cell.contains([',', '"', '\r', '\n']) || (cells.len() == 1 && cell.is_empty()) {
            out.push('"');
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(cell);
        }
    }
    out.push_str("\r\n");
}

fn quantity_json((meter, unit): &(String, String), q: &Quantity) -> Value {
    json!({
        "meter": meter, "unit": unit, "quantity": q.quantity.to_string(), "billable": q.billable.to_string(),
        "unpriced": q.unpriced.to_string(), "refused": q.refused.to_string(), "events": q.events,
    })
}

fn row_json(by: &[Dim], row: &ReportRow) -> Value {
    let mut json: Map<String, Value> = by.iter().zip(&row.key).map(|(dim, value)| (dim.name().to_string(), json!(show(value)))).collect();
    let quantities: Vec<Value> = row.quantities.iter().map(|(meter, q)| quantity_json(meter, q)).collect();
    // A row of one meter says its quantity in the row itself.
    if let [only] = &quantities[..] {
        for key in ["unit", "quantity", "billable", "unpriced", "refused", "events"] {
            json.insert(key.into(), only[key].clone());
        }
    }
    json.insert("key".into(), json!(row.key.iter().map(|value| show(value)).collect::<Vec<_>>()));
    if row.key.iter().any(|value| std::str::from_utf8(value).is_err()) {
        let hex = |value: &Vec<u8>| value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        json.insert("key_hex".into(), json!(row.key.iter().map(hex).collect::<Vec<_>>()));
    }
    if let Some(status) = row.status {
        json.insert("status".into(), json!(status.name()));
    }
    json.insert("quantities".into(), json!(quantities));
    for (name, money) in
        [("cost", row.cost), ("list_cost", row.list), ("contracted_cost", row.contracted), ("effective_cost", row.effective)]
    {
        json.insert(name.into(), json!(money.to_string()));
    }
    json.insert("share_percent".into(), json!(row.share.map(|share| share.to_string())));
    if let Some(change) = &row.change {
        let percent = change.percent.map(|percent| percent.to_string());
        let change = json!({
            "kind": change.kind.name(), "before": change.before.to_string(), "amount": change.amount.to_string(), "percent": percent,
        });
        json.insert("change".into(), change);
    }
    Value::Object(json)
}
