//! A report as one HTML page: charts as SVG, beside them the same numbers as tables.
//!
//! In: a report of groups and one of the same groups by day. Out: text that needs no script and no network, in light and dark.
//! Values are bytes that tenants chose: all are escaped, cut to `VALUE_CHARS` and never become markup. The same reports
//! give the same bytes; coordinates are whole numbers. Bound: `GROUPS_MAX` groups and `DAYS_MAX` days or stretches of them,
//! whatever the reports hold; what is left out is added up as "others".

use crate::money::{Money, Overflow, multiply_divide};
use crate::report::{Change, ChangeKind, Report, ReportRow, Status, show};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Groups with a colour of their own.
const COLOURS: usize = 7;
/// Rows of the table and of the bar list.
const GROUPS_MAX: usize = 50;
const BARS_MAX: usize = 12;
/// Columns of the chart; more days are joined to stretches of equal length.
const DAYS_MAX: usize = 62;
const VALUE_CHARS: usize = 64;

const CHART_WIDTH: u128 = 960;
const CHART_HEIGHT: u128 = 240;
const LABEL_WIDTH: u128 = 8;

/// What a page shows.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// As in `Cost by tenant, October 2026`.
    pub title: &'a str,
    /// As in `2026-10-01 to 2026-10-31, UTC; rate card 1f0c...`.
    pub subtitle: &'a str,
    /// Groups, by whatever; with `by_status` what has no price, no tenant or no user stands in rows of its own.
    pub groups: &'a Report,
    /// The same groups by day: its last dimension is the day, those before it are the groups'. `None`: no chart of days.
    pub days: Option<&'a Report>,
}

/// Writes the page. `Overflow`: costs that are left out have more than 38 digits together.
pub fn page(page: &Page) -> Result<String, Overflow> {
    let mut out = String::new();
    let groups = Ranked::of(page.groups);
    out.push_str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    // No request can leave the page, whatever a value says.
    out.push_str("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
    put(&mut out, format_args!("<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n", escape(page.title)));
    put(&mut out, format_args!("<header>\n<h1>{}</h1>\n<p>{}</p>\n", escape(page.title), escape(page.subtitle)));
    let total = &page.groups.total;
    put(&mut out, format_args!("<p class=\"total\">{} {}", money(total.cost), escape(&page.groups.currency)));
    if let Some(change) = &total.change {
        put(&mut out, format_args!(" {} against {} before", arrow(change), money(change.before)));
    }
    out.push_str("</p>\n</header>\n<main>\n");
    if let Some(days) = page.days {
        write_days(&mut out, &groups, days)?;
    }
    write_bars(&mut out, &groups)?;
    write_rest(&mut out, page.groups)?;
    write_movers(&mut out, page.groups);
    write_table(&mut out, &groups)?;
    out.push_str("</main>\n</body>\n</html>\n");
    Ok(out)
}

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#59636e;--line:#d1d9e0;--c0:#2f6fdb;--c1:#d9822b;--c2:#2e9e6b;--c3:#b5407d;--c4:#7a5fd0;--c5:#1f9aa8;--c6:#a3882a;--c7:#8b949e}
@media (prefers-color-scheme:dark){:root{--bg:#14181d;--fg:#e6edf3;--soft:#9da7b3;--line:#3d444d;--c0:#6ea1f2;--c1:#f0a55a;--c2:#5fcf9b;--c3:#e07fb3;--c4:#a794f0;--c5:#5cc8d4;--c6:#d3bb62;--c7:#768390}}
body{background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,sans-serif;max-width:1000px;margin:24px auto;padding:0 16px}
h1{font-size:22px;margin:0}h2{font-size:17px;margin:28px 0 8px}p{margin:4px 0;color:var(--soft)}.total{font-size:26px;color:var(--fg)}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:12px system-ui,sans-serif}.axis{stroke:var(--line)}
table{border-collapse:collapse;width:100%;font-size:14px}caption{text-align:left;color:var(--soft)}.wide{overflow-x:auto}
th,td{padding:4px 8px;border-bottom:1px solid var(--line);text-align:left;overflow-wrap:anywhere}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tfoot td{font-weight:600}ul.key{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:4px 16px;margin:8px 0}ul.key svg{width:12px;height:12px;display:inline-block;margin-right:6px}
.c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}.c4{fill:var(--c4)}.c5{fill:var(--c5)}.c6{fill:var(--c6)}.c7{fill:var(--c7)}
details{margin:8px 0}summary{cursor:pointer;color:var(--soft)}
";

/// Groups by cost, the most expensive first; of equal cost by key.
struct Ranked<'a> {
    report: &'a Report,
    rows: Vec<&'a ReportRow>,
}

/// How many there are, and their cost.
type Others = (usize, Money);

impl<'a> Ranked<'a> {
    fn of(report: &'a Report) -> Ranked<'a> {
        let mut rows: Vec<&ReportRow> = report.rows.iter().collect();
        rows.sort_by(|a, b| b.cost.cmp(&a.cost).then_with(|| (&a.key, a.status).cmp(&(&b.key, b.status))));
        Ranked { report, rows }
    }

    /// The first `count` rows, and what all others cost (`None`: there are no others). One other row is shown as it is.
    fn top(&self, count: usize) -> Result<(&[&'a ReportRow], Option<Others>), Overflow> {
        if self.rows.len() <= count + 1 {
            return Ok((&self.rows, None));
        }
        let (top, others) = self.rows.split_at(count);
        Ok((top, Some((others.len(), Money::sum(others.iter().map(|row| row.cost))?))))
    }
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    let _ = out.write_fmt(text); // a String takes all
}

/// Text that is no markup, wherever it stands. Characters that turn the direction of text or command a terminal are shown as
/// numbers.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, c) in text.chars().enumerate() {
        if index == VALUE_CHARS * 4 {
            out.push('…');
            break;
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') =>
            {
                put(&mut out, format_args!("\\u{{{:x}}}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

fn value(bytes: &[u8]) -> String {
    // A character is at most 4 bytes: what is further on would be cut anyway.
    let text = show(&bytes[..bytes.len().min(VALUE_CHARS * 4)]);
    let short: String = text.chars().take(VALUE_CHARS).collect();
    let dots = if short.len() < text.len() || bytes.len() > VALUE_CHARS * 4 { "…" } else { "" };
    escape(&format!("{short}{dots}"))
}

/// Name of a group: its values, or its status where that says more.
fn name(row: &ReportRow) -> String {
    let values: Vec<String> = row.key.iter().map(|part| if part.is_empty() { "(none)".to_string() } else { value(part) }).collect();
    let status = row.status.filter(|status| *status != Status::Attributed).map(|status| format!(" ({})", status.name()));
    format!("{}{}", if values.is_empty() { "all".to_string() } else { values.join(" · ") }, status.unwrap_or_default())
}

/// Two digits; six below a cent.
fn money(amount: Money) -> String {
    let digits = if amount.0.unsigned_abs() < 10_000_000_000 { 6 } else { 2 };
    let text = amount.round(digits).unwrap_or(amount).to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut out = sign.to_string();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{out}.{}", &fraction[..digits as usize])
}

/// An arrow and a word, so that neither colour nor shape alone says it.
fn arrow(change: &Change) -> String {
    let percent = change.percent.map_or(String::new(), |percent| format!(" {percent} %"));
    match (change.kind, change.amount.0.signum()) {
        (ChangeKind::New, _) => "<span>✦ new</span>".into(),
        (ChangeKind::Gone, _) => "<span>✕ gone</span>".into(),
        (_, 1) => format!("<span aria-label=\"up\">▲</span>{percent}"),
        (_, -1) => format!("<span aria-label=\"down\">▼</span>{percent}"),
        _ => "<span aria-label=\"unchanged\">＝</span>".into(),
    }
}

/// `part` of `whole` in `pixels`, rounded down.
fn scale(part: u128, whole: u128, pixels: u128) -> u128 {
    multiply_divide(part, pixels, whole).map_or(0, |(units, _)| units.min(pixels))
}

/// Costs of one column of the chart: by colour, the last is all others.
type Column = [Money; COLOURS + 1];

fn write_days(out: &mut String, groups: &Ranked, days: &Report) -> Result<(), Overflow> {
    let top = &groups.rows[..groups.rows.len().min(COLOURS)];
    let is_last = groups.rows.len() == COLOURS + 1; // one other row needs no "others"
    let colour_of = |row: &ReportRow| {
        let key = &row.key[..row.key.len().saturating_sub(1)];
        top.iter().position(|group| group.key == key && group.status == row.status).unwrap_or(COLOURS)
    };
    let names: BTreeSet<&[u8]> = days.rows.iter().filter_map(|row| row.key.last()).map(Vec::as_slice).collect();
    let each = names.len().div_ceil(DAYS_MAX).max(1);
    let names: Vec<&[u8]> = names.into_iter().collect();
    let place: BTreeMap<&[u8], usize> = names.iter().enumerate().map(|(index, day)| (*day, index / each)).collect();
    let mut columns: Vec<Column> = vec![[Money::ZERO; COLOURS + 1]; names.len().div_ceil(each)];
    for row in &days.rows {
        let Some(index) = row.key.last().and_then(|day| place.get(day.as_slice())) else { continue };
        let cell = &mut columns[*index][colour_of(row)];
        *cell = cell.checked_add(row.cost)?;
    }
    if columns.is_empty() {
        return Ok(());
    }
    let labels: Vec<String> = names.iter().step_by(each).map(|day| value(day)).collect();
    let title = if each == 1 { "Cost by day".to_string() } else { format!("Cost by {each} days") };
    put(out, format_args!("<section>\n<h2>{title}</h2>\n"));
    let mut keys: Vec<String> = top.iter().map(|row| name(row)).collect();
    keys.extend((groups.rows.len() > COLOURS).then(|| if is_last { name(groups.rows[COLOURS]) } else { "others".to_string() }));
    write_chart(out, &title, &labels, &columns, &groups.report.currency)?;
    out.push_str("<ul class=\"key\">\n");
    for (colour, key) in keys.iter().enumerate() {
        put(
            out,
            format_args!(
                "<li><svg viewBox=\"0 0 12 12\" aria-hidden=\"true\"><rect class=\"c{colour}\" width=\"12\" height=\"12\"/></svg>{key}</li>\n"
            ),
        );
    }
    out.push_str(
        "</ul>\n<details>\n<summary>The same as a table</summary>\n<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">day</th>",
    );
    keys.iter().for_each(|key| put(out, format_args!("<th scope=\"col\" class=\"n\">{key}</th>")));
    out.push_str("</tr></thead>\n<tbody>\n");
    for (label, column) in labels.iter().zip(&columns) {
        put(out, format_args!("<tr><th scope=\"row\">{label}</th>"));
        column.iter().take(keys.len()).for_each(|cost| put(out, format_args!("<td class=\"n\">{}</td>", money(*cost))));
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n</details>\n</section>\n");
    Ok(())
}

/// Bars of positive costs stand on the zero line, credits hang below it.
fn write_chart(out: &mut String, title: &str, labels: &[String], columns: &[Column], currency: &str) -> Result<(), Overflow> {
    let sum = |column: &Column, sign: i128| Money::sum(column.iter().copied().filter(|cost| cost.0.signum() == sign));
    let (mut above, mut below) = (0u128, 0u128);
    for column in columns {
        above = above.max(sum(column, 1)?.0.unsigned_abs());
        below = below.max(sum(column, -1)?.0.unsigned_abs());
    }
    let whole = (above + below).max(1); // each has at most 38 digits: together they fit 128 bits
    let zero = scale(above, whole, CHART_HEIGHT);
    let step = CHART_WIDTH / columns.len() as u128;
    let width = (step * 4 / 5).max(1);
    let (first, last) = (labels.first().map_or("", String::as_str), labels.last().map_or("", String::as_str));
    put(out, format_args!("<svg viewBox=\"0 0 {CHART_WIDTH} {}\" role=\"img\" aria-labelledby=\"days-t days-d\">\n", CHART_HEIGHT + 40));
    put(
        out,
        format_args!(
            "<title id=\"days-t\">{title}</title>\n<desc id=\"days-d\">Stacked bars from {first} to {last}, up to {} {}.</desc>\n",
            money(Money(i128::try_from(above).unwrap_or(0))),
            escape(currency)
        ),
    );
    for (index, (column, label)) in columns.iter().zip(labels).enumerate() {
        let x = index as u128 * step + (step - width) / 2;
        let (mut up, mut down) = (0u128, 0u128);
        for (colour, cost) in column.iter().enumerate().filter(|(_, cost)| cost.0 != 0) {
            // Heights of running sums, so that rounding does not add up over a stack.
            let stack = if cost.0 > 0 { &mut up } else { &mut down };
            let from = scale(*stack, whole, CHART_HEIGHT);
            *stack += cost.0.unsigned_abs();
            let to = scale(*stack, whole, CHART_HEIGHT);
            let y = if cost.0 > 0 { zero.saturating_sub(to) } else { zero + from };
            put(out, format_args!("<rect class=\"c{colour}\" x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{}\"/>\n", y + 10, to - from));
        }
        let each = columns.len().div_ceil(LABEL_WIDTH as usize);
        if index % each == 0 {
            // The last label would leave the picture.
            let is_far = x + 96 > CHART_WIDTH && index > 0;
            let (x, end) = if is_far { (x + width, " text-anchor=\"end\"") } else { (x, "") };
            put(out, format_args!("<text x=\"{x}\" y=\"{}\"{end}>{label}</text>\n", CHART_HEIGHT + 32));
        }
    }
    put(out, format_args!("<line class=\"axis\" x1=\"0\" y1=\"{0}\" x2=\"{CHART_WIDTH}\" y2=\"{0}\"/>\n</svg>\n", zero + 10));
    Ok(())
}

fn write_bars(out: &mut String, groups: &Ranked) -> Result<(), Overflow> {
    let (top, others) = groups.top(BARS_MAX)?;
    let mut bars: Vec<(String, Money)> = top.iter().map(|row| (name(row), row.cost)).collect();
    bars.extend(others.map(|(count, cost)| (format!("{count} others"), cost)));
    let most = bars.iter().map(|(_, cost)| cost.0.unsigned_abs()).max().unwrap_or(0).max(1);
    let height = bars.len() * 26 + 8;
    put(
        out,
        format_args!(
            "<section>\n<h2>Most expensive</h2>\n<svg viewBox=\"0 0 {CHART_WIDTH} {height}\" role=\"img\" aria-labelledby=\"top-t top-d\">\n"
        ),
    );
    put(
        out,
        format_args!(
            "<title id=\"top-t\">Most expensive</title>\n<desc id=\"top-d\">{} bars; the table below has the numbers.</desc>\n",
            bars.len()
        ),
    );
    for (index, (name, cost)) in bars.iter().enumerate() {
        let (y, width) = (index * 26, scale(cost.0.unsigned_abs(), most, 520));
        let colour = index.min(COLOURS);
        let sign = if cost.0 < 0 { " (credit)" } else { "" };
        put(out, format_args!("<text x=\"0\" y=\"{}\">{}</text>\n", y + 17, cut(name, 36)));
        put(out, format_args!("<rect class=\"c{colour}\" x=\"280\" y=\"{}\" width=\"{width}\" height=\"18\"/>\n", y + 4));
        put(out, format_args!("<text x=\"{}\" y=\"{}\">{}{sign}</text>\n", 288 + width, y + 17, money(*cost)));
    }
    out.push_str("</svg>\n</section>\n");
    Ok(())
}

/// Escaped text cut to so many characters, never within an escape.
fn cut(escaped: &str, chars: usize) -> String {
    let mut out = String::new();
    let mut rest = escaped;
    for _ in 0..chars {
        let Some(first) = rest.chars().next() else { return out };
        let length = if first == '&' { rest.find(';').map_or(1, |end| end + 1) } else { first.len_utf8() };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    if rest.is_empty() { out } else { format!("{out}…") }
}

/// What is in no tenant's cost, all of it, however far down the table it stands: by status and meter.
fn write_rest(out: &mut String, report: &Report) -> Result<(), Overflow> {
    let mut rest: BTreeMap<Status, (Money, BTreeMap<String, i128>)> = BTreeMap::new();
    for row in &report.rows {
        let Some(status) = row.status.filter(|status| *status != Status::Attributed) else { continue };
        let (cost, used) = rest.entry(status).or_default();
        *cost = cost.checked_add(row.cost)?;
        for ((meter, unit), q) in &row.quantities {
            let amount = match status {
                Status::Unpriced => q.unpriced,
                Status::Quarantined => q.refused,
                _ => q.billable,
            };
            let sum = used.entry(format!("{meter} ({unit})")).or_default();
            *sum = sum.saturating_add(amount);
        }
    }
    if rest.is_empty() {
        return Ok(());
    }
    out.push_str("<section>\n<h2>Outside of tenants' cost</h2>\n<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">status</th>");
    out.push_str("<th scope=\"col\">usage</th><th scope=\"col\" class=\"n\">cost</th></tr></thead>\n<tbody>\n");
    for (status, (cost, used)) in &rest {
        let mut parts: Vec<String> = used.iter().take(BARS_MAX).map(|(meter, sum)| format!("{} {sum}", value(meter.as_bytes()))).collect();
        parts.extend((used.len() > BARS_MAX).then(|| format!("{} other meters", used.len() - BARS_MAX)));
        let cost = if matches!(status, Status::Unpriced | Status::Quarantined) { "none yet".into() } else { cost.to_string() };
        let (name, used) = (status.name(), parts.join(", "));
        put(out, format_args!("<tr><th scope=\"row\">{name}</th><td>{used}</td><td class=\"n\">{cost}</td></tr>\n"));
    }
    out.push_str("</tbody>\n</table></div>\n</section>\n");
    Ok(())
}

fn write_movers(out: &mut String, report: &Report) {
    if report.movers.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Largest changes</h2>\n<table>\n<tbody>\n");
    for place in report.movers.iter().take(GROUPS_MAX) {
        let row = &report.rows[*place];
        let Some(change) = &row.change else { continue };
        let sign = if change.amount.0 > 0 { "+" } else { "" };
        put(
            out,
            format_args!(
                "<tr><th scope=\"row\">{}</th><td class=\"n\">{sign}{}</td><td class=\"n\">{}</td></tr>\n",
                name(row),
                money(change.amount),
                arrow(change)
            ),
        );
    }
    out.push_str("</tbody>\n</table>\n</section>\n");
}

fn write_table(out: &mut String, groups: &Ranked) -> Result<(), Overflow> {
    let report = groups.report;
    let has_change = report.total.change.is_some();
    let (top, others) = groups.top(GROUPS_MAX)?;
    let by: Vec<String> = report.by.iter().map(|dim| value(dim.name().as_bytes())).collect();
    put(
        out,
        format_args!(
            "<section>\n<h2>All</h2>\n<div class=\"wide\"><table>\n<caption>All amounts in {}, with all their digits.</caption>\n<thead><tr><th scope=\"col\">{}</th><th scope=\"col\">status</th><th scope=\"col\" class=\"n\">cost</th><th scope=\"col\" class=\"n\">share</th>",
            escape(&report.currency),
            by.join(" · ")
        ),
    );
    out.push_str(if has_change { "<th scope=\"col\" class=\"n\">change</th>" } else { "" });
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in top {
        let status = row.status.map_or("", |status| status.name());
        let share = row.share.map_or(String::new(), |share| format!("{share} %"));
        put(
            out,
            format_args!(
                "<tr><th scope=\"row\">{}</th><td>{status}</td><td class=\"n\">{}</td><td class=\"n\">{share}</td>",
                name(row),
                row.cost
            ),
        );
        if has_change {
            put(out, format_args!("<td class=\"n\">{}</td>", row.change.as_ref().map_or(String::new(), arrow)));
        }
        out.push_str("</tr>\n");
    }
    let empty = if has_change { "<td></td>" } else { "" };
    if let Some((count, cost)) = others {
        put(out, format_args!("<tr><th scope=\"row\">{count} others</th><td></td><td class=\"n\">{cost}</td><td></td>{empty}</tr>\n"));
    }
    let share = report.total.share.map_or(String::new(), |share| format!("{share} %"));
    put(
        out,
        format_args!(
            "</tbody>\n<tfoot><tr><td>total</td><td></td><td class=\"n\">{}</td><td class=\"n\">{share}</td>{empty}</tr></tfoot>\n</table></div>\n</section>\n",
            report.total.cost
        ),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{by, charge, charges, ledger};
    use crate::report::{Options, summarize};

    fn written(rows: &[crate::Charge], before: &[crate::Charge]) -> String {
        let options = |names: &[&str]| Options { by_status: true, movers: 5, ..by(names) };
        let groups = summarize(&ledger(rows), Some(&ledger(before)), &options(&["tenant"])).unwrap();
        let days = summarize(&ledger(rows), None, &options(&["tenant", "day"])).unwrap();
        page(&Page { title: "Cost by tenant", subtitle: "November <2026>", groups: &groups, days: Some(&days) }).unwrap()
    }

    fn sample(tenants: usize, days: usize) -> Vec<crate::Charge> {
        let line = |tenant: usize, day: usize| {
            format!("tenant-{tenant:02} in orca {} 1 {}.{:02}", day * 24, (tenant * 7 + day * 3) % 40, day % 100)
        };
        (0..tenants).flat_map(|tenant| (0..days).map(move |day| charge(&line(tenant, day)))).collect()
    }

    #[test]
    fn hostile_values_never_become_markup_or_requests() {
        let mut rows = charges(&["x in orca 0 1 5", "y in orca 24 1 -2", "- in orca 0 1 1"]);
        std::sync::Arc::make_mut(&mut rows[0].series).tenant = b"</title><script src=//evil>'\"&\x00\xff\xe2\x80\xae".to_vec();
        let html = written(&rows, &[]);
        for bad in ["<script", "src=", "href", "url(", "http:", "https:", "\u{202e}", "\0", "NaN"] {
            assert!(!html.replace("&lt;script src=//evil&gt;", "").contains(bad), "{bad}");
        }
        assert!(html.contains("&lt;/title&gt;&lt;script src=//evil&gt;&#39;&quot;&amp;\\u{0}\\xff\\u{202e}"));
        assert!(
            html.contains("(none) (unattributed)")
                && html.contains("<td>in (Tokens) 1</td><td class=\"n\">1.000000000000</td>")
                && html.contains("November &lt;2026&gt;")
        );
        assert!(html.contains("<title id=\"days-t\">") && html.contains("<desc id=\"days-d\">") && html.contains("prefers-color-scheme"));
        // Each element that is opened is closed: a poor man's parser.
        let mut open: Vec<&str> = Vec::new();
        for tag in html.split('<').skip(1).map(|rest| rest.split_once('>').unwrap().0) {
            match tag.strip_prefix('/') {
                Some(tag) => assert_eq!(open.pop(), Some(tag)),
                None if tag.starts_with(['!', 'm']) && !tag.starts_with("main") || tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap()),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn a_page_has_the_same_bytes_and_a_bound() {
        let rows = sample(9, 30);
        assert_eq!(written(&rows, &rows[..90]), written(&rows, &rows[..90]));
        let many: Vec<_> = (0..3_000)
            .map(|tenant| {
                let mut one = charge(&format!("x in orca {} 1 1", tenant * 24 / 4));
                let long = format!("{tenant}{}", "&".repeat(5_000));
                std::sync::Arc::make_mut(&mut one.series).tenant = long.into_bytes();
                one
            })
            .collect();
        let html = written(&many, &[]);
        assert!(html.len() < 200_000, "{} bytes", html.len());
        assert!(html.contains("2950 others") && html.contains("Cost by 13 days"));
        assert!(written(&[], &[]).contains("total"));
    }

    #[test]
    fn huge_and_negative_costs_have_bars_within_the_chart() {
        let mut rows = sample(3, 4);
        rows[0].billed = Money(flow::units::MONEY_UNITS_MAX / 2);
        rows[5].billed = Money(-flow::units::MONEY_UNITS_MAX / 2);
        let html = written(&rows, &[]);
        for rect in html.split("<rect ").skip(1).filter(|rect| rect.contains(" y=\"")) {
            let number =
                |name: &str| -> u128 { rect.split_once(&format!(" {name}=\"")).unwrap().1.split('"').next().unwrap().parse().unwrap() };
            assert!(number("x") + number("width") <= CHART_WIDTH && number("height") <= CHART_HEIGHT, "{rect}");
            assert!(number("y") + number("height") <= CHART_HEIGHT + 10 + 26 * 13, "{rect}");
        }
    }

    /// Writes a page to look at: `WEIR_PAGE=FILE cargo test -p bill page`.
    #[test]
    fn a_page_can_be_looked_at() {
        let mut rows = sample(11, 30);
        rows.extend(charges(&["- in orca 48 1 30", "tenant-03 in orca 96 1 -25"]));
        let html = written(&rows, &sample(10, 20));
        if let Some(path) = std::env::var_os("WEIR_PAGE") {
            std::fs::write(path, &html).unwrap();
        }
        assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
    }
}
