//! Budgets: how much of an amount is spent this month, when its alerts were crossed, and where the month will end.
//!
//! In: budgets as configured, the charges of a month, and two instants as arguments. Out: a `BudgetState` for reports,
//! events and metrics. When an alert was crossed follows from the hours of the charges alone, so any later look at the same
//! charges says the same. The month is UTC's and the cost is what is billed. Bound: `BUDGETS_MAX` budgets.

use crate::book::Month;
use crate::card::CardError;
use crate::charge::Charge;
use crate::money::{Money, Overflow, cost, multiply_divide};
use crate::report::{Percent, show};
use flow::units::{NANOS_PER_HOUR, UnixNanos};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const BUDGETS_MAX: usize = 4_096;
const ALERTS_MAX: usize = 32;
/// Ten times the amount.
const PERCENT_MAX: u32 = 1_000;

/// An amount a month that somebody wants to hear of before it is spent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// Name of the budget, in alerts and metrics. No two budgets share one.
    pub name: String,
    /// Whose cost; an empty text is cost that nobody could be told to pay. Without it: everybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Only cost with these dimensions, as in `{ service: chat }`.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub matches: BTreeMap<String, String>,
    /// Amount a UTC month in the card's currency: `"500"`.
    pub amount: String,
    /// Percentages of the amount at which to tell. Without it: 50, 80 and 100.
    #[serde(default = "alerts", skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<u32>,
    /// Tell also when the forecast for the month's end is above the amount.
    #[serde(default)]
    pub forecast: bool,
}

fn alerts() -> Vec<u32> {
    vec![50, 80, 100]
}

/// A budget without mistakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub name: String,
    pub tenant: Option<Vec<u8>>,
    /// (dimension, value) in the order of names.
    pub matches: Vec<(String, Vec<u8>)>,
    pub amount: Money,
    pub currency: String,
    /// Percents, ascending.
    pub alerts: Vec<u32>,
    pub forecast: bool,
}

impl Budget {
    /// Checks a list of budgets in `currency`; says every mistake, with its path from `budgets` on.
    pub fn compile(configs: &[BudgetConfig], currency: &str) -> Result<Vec<Budget>, Vec<CardError>> {
        let mut errors = Vec::new();
        if configs.len() > BUDGETS_MAX {
            mistake(&mut errors, "budgets".into(), format!("has {} entries", configs.len()), &format!("at most {BUDGETS_MAX} budgets"));
        }
        let mut budgets = Vec::new();
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, config) in configs.iter().enumerate().take(BUDGETS_MAX) {
            if let Some(first) = names.insert(&config.name, index) {
                let message = format!("is {:?}, as in budgets[{first}]", config.name);
                mistake(&mut errors, format!("budgets[{index}].name"), message, "alerts name their budget: give each its own name");
            }
            budgets.extend(compile_one(config, &format!("budgets[{index}]"), currency, &mut errors));
        }
        if errors.is_empty() { Ok(budgets) } else { Err(errors) }
    }

    pub fn fits(&self, charge: &Charge) -> bool {
        let series = &charge.series;
        self.tenant.as_ref().is_none_or(|tenant| *tenant == series.tenant)
            && self.matches.iter().all(|(name, value)| series.dim(name) == value.as_slice())
    }

    /// `tenant acme`, `tenant acme, service chat`; a budget of everybody has its name: `budget all-of-it`.
    pub fn subject(&self) -> String {
        let tenant =
            self.tenant.as_ref().map(|tenant| if tenant.is_empty() { "no tenant".into() } else { format!("tenant {}", show(tenant)) });
        let dims = self.matches.iter().map(|(name, value)| format!("{name} {}", show(value)));
        let parts: Vec<String> = tenant.into_iter().chain(dims).collect();
        if parts.is_empty() { format!("budget {}", self.name) } else { parts.join(", ") }
    }
}

fn mistake(errors: &mut Vec<CardError>, path: String, message: String, help: &str) {
    errors.push(CardError { path, message, help: help.to_string() });
}

fn compile_one(config: &BudgetConfig, at: &str, currency: &str, errors: &mut Vec<CardError>) -> Option<Budget> {
    let before = errors.len();
    let names = [(format!("{at}.name"), &config.name)].into_iter().chain(config.matches.keys().map(|name| (format!("{at}.match"), name)));
    for (path, name) in names {
        if name.is_empty() || name.chars().any(char::is_control) {
            mistake(errors, path, format!("is {name:?}"), "a name is at least one printable character");
        }
    }
    let help = "an amount to spend in a month is more than 0, with at most 12 digits after the point, as in \"500\"";
    let amount = match Money::parse(&config.amount) {
        Ok(amount) if amount.0 > 0 => Some(amount),
        Ok(_) => {
            mistake(errors, format!("{at}.amount"), format!("is {:?}", config.amount), help);
            None
        }
        Err(message) => {
            mistake(errors, format!("{at}.amount"), format!("is no amount: {message}"), help);
            None
        }
    };
    let mut alerts = config.alerts.clone();
    alerts.sort_unstable();
    if alerts.len() > ALERTS_MAX {
        mistake(errors, format!("{at}.alerts"), format!("has {} entries", alerts.len()), &format!("at most {ALERTS_MAX} percentages"));
    }
    for (index, percent) in config.alerts.iter().enumerate().take(ALERTS_MAX) {
        if *percent == 0 || *percent > PERCENT_MAX {
            let help = format!("an alert is a percentage of the amount, from 1 to {PERCENT_MAX}");
            mistake(errors, format!("{at}.alerts[{index}]"), format!("is {percent}"), &help);
        } else if config.alerts[..index].contains(percent) {
            mistake(errors, format!("{at}.alerts[{index}]"), format!("is {percent} once more"), "name each percentage once");
        }
    }
    let amount = amount.filter(|_| errors.len() == before)?;
    Some(Budget {
        name: config.name.clone(),
        tenant: config.tenant.as_ref().map(|tenant| tenant.clone().into_bytes()),
        matches: config.matches.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect(),
        amount,
        currency: currency.to_string(),
        alerts,
        forecast: config.forecast,
    })
}

/// A percentage of a budget, and when it was crossed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    pub percent: u32,
    /// First hour whose charges brought the month to this percentage; UTC, as `2026-11-12T07:00:00Z`.
    pub crossed: Option<String>,
    /// Its day of the month, from 1.
    pub day: Option<u32>,
    /// As [`BudgetState::text`] says it; empty while it is not crossed.
    pub text: String,
}

/// How a budget stands. Money is text with 12 digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BudgetState {
    pub name: String,
    pub subject: String,
    pub currency: String,
    /// UTC month, as `2026-11`.
    pub month: String,
    pub amount: Money,
    pub spent: Money,
    /// Spent, in hundredths of a percent of the amount (basis points), rounded half to even; `None` beyond 128 bits.
    pub spent_bp: Option<i128>,
    /// Whole hours of the month with complete data, of `hours` in all.
    pub elapsed: i64,
    pub hours: i64,
    /// Where the month ends if the hours to come cost what the complete ones did; `None` before the first complete hour.
    pub forecast: Option<Money>,
    /// The budget asks to be told, and the forecast is above the amount.
    pub is_forecast_above: bool,
    /// In the order of percentages.
    pub alerts: Vec<Alert>,
    /// Day of the month that `text` names where no alert is crossed.
    pub day: u32,
}

impl BudgetState {
    /// One line: `tenant acme: 80 % of 500 USD by day 12, forecast 1,140`. The percentage is the highest alert that was
    /// crossed and the day that on which it was; before the first one, what is spent by now.
    pub fn text(&self) -> String {
        match self.alerts.iter().rev().find(|alert| alert.day.is_some()) {
            Some(alert) => alert.text.clone(),
            None => {
                let percent = self.spent_bp.map_or("more".to_string(), |bp| Percent(bp).to_string());
                self.line(&percent, self.day)
            }
        }
    }

    fn line(&self, percent: &str, day: u32) -> String {
        let forecast = self.forecast.map_or(String::new(), |money| format!(", forecast {}", rough(money)));
        format!("{}: {percent} % of {} {} by day {day}{forecast}", self.subject, plain(self.amount), self.currency)
    }
}

/// How a budget stands at `now`, in the UTC month of that instant.
///
/// `charges`: any; those of other months or others' cost do not count, nor do those that begin after `now`. `complete`: up to
/// when all data is there (the end of the last published hour); the forecast is exact: cost of the complete hours / their
/// number x hours of the month, plus charges that are a month's (fees), as they are.
pub fn budget_state(budget: &Budget, charges: &[Charge], now: UnixNanos, complete: UnixNanos) -> Result<BudgetState, Overflow> {
    let civil = now.civil();
    let month = Month::of(now);
    let (from, to) = (month.start(), month.end());
    let complete = complete.min(now).clamp(from, to);
    let (hours, elapsed) = ((to.0 - from.0) / NANOS_PER_HOUR, (complete.0 - from.0) / NANOS_PER_HOUR);
    let mut by_hour: BTreeMap<UnixNanos, Money> = BTreeMap::new();
    let (mut fixed, mut complete_cost) = (Money::ZERO, Money::ZERO);
    for charge in charges.iter().filter(|c| from <= c.hour && c.hour < to && c.hour <= now && budget.fits(c)) {
        let sum = by_hour.entry(charge.hour).or_default();
        *sum = sum.checked_add(charge.billed)?;
        let is_hourly = charge.end.0.saturating_sub(charge.hour.0) <= NANOS_PER_HOUR;
        if !is_hourly {
            fixed = fixed.checked_add(charge.billed)?;
        } else if charge.end.0 <= from.0 + elapsed * NANOS_PER_HOUR {
            complete_cost = complete_cost.checked_add(charge.billed)?;
        }
    }
    let forecast = match u64::try_from(elapsed) {
        Ok(elapsed) if elapsed > 0 => Some(cost(i128::from(hours), complete_cost, elapsed)?.checked_add(fixed)?),
        _ => None,
    };
    let spent = Money::sum(by_hour.values().copied())?;
    let mut state = BudgetState {
        name: budget.name.clone(),
        subject: budget.subject(),
        currency: budget.currency.clone(),
        month: month.name(),
        amount: budget.amount,
        spent,
        spent_bp: Percent::of(spent, budget.amount).map(|percent| percent.0),
        elapsed,
        hours,
        forecast,
        is_forecast_above: budget.forecast && forecast.is_some_and(|forecast| forecast > budget.amount),
        alerts: vec![],
        day: civil.day,
    };
    state.alerts = budget.alerts.iter().map(|percent| alert(*percent, budget.amount, &by_hour, &state)).collect::<Result<_, _>>()?;
    Ok(state)
}

fn alert(percent: u32, amount: Money, by_hour: &BTreeMap<UnixNanos, Money>, state: &BudgetState) -> Result<Alert, Overflow> {
    // Rounded up: money is whole quanta, so this is the least that is at least so many percent.
    let (quanta, rest) = multiply_divide(amount.0.unsigned_abs(), u128::from(percent), 100).ok_or(Overflow)?;
    let bound = quanta + u128::from(rest > 0);
    let mut sum = Money::ZERO;
    for (hour, spent) in by_hour {
        sum = sum.checked_add(*spent)?;
        if sum.0 > 0 && sum.0.unsigned_abs() >= bound {
            let day = hour.civil().day;
            return Ok(Alert { percent, crossed: Some(hour.rfc3339()), day: Some(day), text: state.line(&percent.to_string(), day) });
        }
    }
    Ok(Alert { percent, crossed: None, day: None, text: String::new() })
}

/// `1,140`; below 10 with cents, as a small budget has no other digits.
fn rough(money: Money) -> String {
    let is_small = money.0.unsigned_abs() < 10_000_000_000_000;
    let rounded = money.round(if is_small { 2 } else { 0 });
    plain(rounded.unwrap_or(money))
}

/// With thousands separators and without zeros at the end: `12,500.5`.
fn plain(money: Money) -> String {
    let text = money.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut out = sign.to_string();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { out } else { format!("{out}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{DAY, charges};
    use flow::units::NANOS_PER_DAY;

    /// 2026-11-01T00:00Z, in hours before `DAY`.
    const MONTH: i64 = -22 * 24;

    fn config(name: &str, tenant: Option<&str>, amount: &str) -> BudgetConfig {
        BudgetConfig {
            name: name.into(),
            tenant: tenant.map(str::to_string),
            amount: amount.into(),
            alerts: alerts(),
            ..BudgetConfig::default()
        }
    }

    fn at(hours: i64) -> UnixNanos {
        UnixNanos(DAY + hours * NANOS_PER_HOUR)
    }

    fn state(config: BudgetConfig, lines: &[&str], now: i64) -> BudgetState {
        let budget = &Budget::compile(&[config], "USD").unwrap()[0];
        budget_state(budget, &charges(lines), at(now), at(now)).unwrap()
    }

    #[test]
    fn the_line_says_alert_amount_day_and_forecast() {
        // 456 are spent in the first 12 of 30 days: 456 / 288 h x 720 h = 1,140; 400 of them on day 12.
        let (eleven, twelve) = (MONTH + 10 * 24, MONTH + 11 * 24 + 5);
        let lines = [
            format!("acme in orca {eleven} 1 399.999999999999"),
            format!("acme in orca {twelve} 1 56.000000000001"),
            "beta in orca -300 1 9".into(),
        ];
        let got = state(config("a", Some("acme"), "500"), &lines.each_ref().map(String::as_str), MONTH + 12 * 24);
        assert_eq!(got.text(), "tenant acme: 80 % of 500 USD by day 12, forecast 1,140");
        assert_eq!((got.spent_bp, got.elapsed, got.hours, got.month.as_str()), (Some(9_120), 288, 720, "2026-11"));
        let crossed: Vec<_> = got.alerts.iter().map(|alert| (alert.percent, alert.crossed.as_deref())).collect();
        assert_eq!(crossed, [(50, Some("2026-11-11T00:00:00Z")), (80, Some("2026-11-12T05:00:00Z")), (100, None)]);
        assert_eq!(got.alerts[0].text, "tenant acme: 50 % of 500 USD by day 11, forecast 1,140");
        let json = serde_json::to_value(&got).unwrap();
        assert_eq!((&json["forecast"], &json["alerts"][2]["crossed"]), (&"1140.000000000000".into(), &serde_json::Value::Null));
    }

    #[test]
    fn a_forecast_counts_complete_hours_and_adds_fees_as_they_are() {
        let lines = [format!("acme in orca {MONTH} 1 1"), format!("acme in orca {} 1 5", MONTH + 1), format!("acme in orca {MONTH} 1 100")];
        let mut all = charges(&lines.each_ref().map(String::as_str));
        all[2].end = UnixNanos(all[2].hour.0 + 30 * NANOS_PER_DAY);
        let mut with_forecast = config("a", None, "1000");
        with_forecast.forecast = true;
        let budget = &Budget::compile(&[with_forecast], "USD").unwrap()[0];
        for (now, complete, spent, forecast) in [
            (MONTH, MONTH, "101", None),
            (MONTH + 2, MONTH + 1, "106", Some("820")),               // 1 x 720 / 1 + 100
            (MONTH + 2, MONTH + 2, "106", Some("2260")),              // 6 x 720 / 2 + 100
            (MONTH + 7, MONTH + 99, "106", Some("717.142857142857")), // complete is not after now: 6 x 720 / 7 + 100
            (MONTH + 719, MONTH + 720, "106", Some("106.008344923505")),
        ] {
            let got = budget_state(budget, &all, at(now), at(complete)).unwrap();
            let want = forecast.map(|text| Money::parse(text).unwrap());
            assert_eq!((got.spent, got.forecast), (Money::parse(spent).unwrap(), want), "{now}");
            assert_eq!(got.is_forecast_above, want.is_some_and(|money| money.0 > 1_000_000_000_000_000));
        }
        let next_month = budget_state(budget, &all, at(MONTH + 721), at(MONTH + 721)).unwrap();
        assert_eq!((next_month.spent, next_month.month.as_str()), (Money::ZERO, "2026-12"));
        let got = budget_state(budget, &all, at(MONTH + 2), at(MONTH + 2)).unwrap();
        assert_eq!(got.text(), "budget a: 10.60 % of 1,000 USD by day 1, forecast 2,260");
    }

    #[test]
    fn an_alert_stays_crossed_and_does_not_depend_on_the_order_of_charges() {
        let lines = ["acme in orca -5 1 60", "acme in orca -3 1 -50", "acme in orca -5 1 -9"];
        let got = state(config("a", Some("acme"), "100"), &lines, 0);
        let turned = state(config("a", Some("acme"), "100"), &[lines[2], lines[1], lines[0]], 0);
        assert_eq!(got, turned);
        assert_eq!((got.alerts[0].day, got.spent), (Some(22), Money::parse("1").unwrap()), "51 at one time is 50 %");
    }

    #[test]
    fn mistakes_are_named_with_path_rule_and_way_out() {
        let mut bad = config("", None, "0");
        bad.alerts = vec![0, 80, 80, 1_001];
        let errors = Budget::compile(&[config("a", None, "1e3"), bad, config("a", None, "5")], "USD").unwrap_err();
        let paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "budgets[0].amount",
                "budgets[1].name",
                "budgets[1].amount",
                "budgets[1].alerts[0]",
                "budgets[1].alerts[2]",
                "budgets[1].alerts[3]",
                "budgets[2].name"
            ]
        );
        assert!(errors[0].to_string().contains("budgets[0].amount is no amount: \"1e3\" is no amount"), "{}", errors[0]);
        assert_eq!(Budget::compile(&[config("a", Some(""), "5")], "USD").unwrap()[0].subject(), "no tenant");
    }
}
