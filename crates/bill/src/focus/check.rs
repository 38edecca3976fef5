//! A strict check of FOCUS files, row by row: what the official validator misses, and what it finds.
//!
//! In: a header and rows of text cells, null where a file has nothing (CSV is read here, Parquet elsewhere). Out: each
//! violation with row, column, rule and value. No float: amounts are units of 10^-12, products have 256 bits.
//! Bound: `SHOWN_PER_RULE` violations of a rule are kept and all are counted; what is remembered between rows (names,
//! invoices, origins) stops growing at `REMEMBERED_MAX` entries a kind, and the file is then said to be checked in part.

use super::csv::{CsvError, Reader};
use super::json::Json;
use super::{Kind, Level, Profile, columns, lists};
use crate::money::{Money, multiply_wide};
use flow::units::{civil_from_days, days_from_civil};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufRead};

/// Violations of one rule that are kept, the first ones; the rest is counted.
pub const SHOWN_PER_RULE: usize = 20;
/// Entries of one kind that are remembered: SKU prices, services, invoices, origins.
const REMEMBERED_MAX: usize = 1_000_000;
/// Bytes of a value that a violation shows.
const VALUE_BYTES_MAX: usize = 80;
/// One, in units of 10^-12.
const ONE: i128 = 1_000_000_000_000;

/// A rule: its name, and the sentence that says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    pub id: &'static str,
    pub says: &'static str,
}

// A macro, so that no rule can be missing from `RULES`.
macro_rules! rules {
    ($($name:ident = $id:literal, $says:literal;)*) => {
        $(const $name: Rule = Rule { id: $id, says: $says };)*
        /// Every rule of the checker.
        pub const RULES: &[Rule] = &[$($name),*];
    };
}

rules! {
    FILE_FORM = "file-form", "a file is CSV as RFC 4180 has it, in UTF-8, with a header";
    ROW_WIDTH = "row-width", "a row has as many values as the header has names";
    CHECKED_IN_PART = "checked-in-part", "a file has at most 1000000 SKU prices, services, invoices and origins; beyond that, whole-file rules are not checked";
    COLUMN_MISSING = "column-missing", "a mandatory column of the version must be present";
    COLUMN_TWICE = "column-twice", "a column name occurs once";
    COLUMN_UNKNOWN = "column-unknown", "a column that the version does not define begins with x_";
    COLUMN_TOGETHER = "column-together", "a column must be present where its companion is";
    CUSTOM_NAME = "custom-name", "a custom name is x_ and Pascal case, at most 50 characters";
    CUSTOM_ORDER = "custom-order", "custom columns stand behind all FOCUS columns";
    NOT_NULL = "not-null", "the column must not be null";
    EMPTY_TEXT = "empty-text", "null is no value; an empty or blank text must not stand for it";
    CONTROL_TEXT = "control-text", "a text has no control characters";
    DECIMAL_FORM = "decimal-form", "a number is digits with at most one point, a minus sign if negative, or mEn; no plus sign, separator, unit or space";
    DECIMAL_SIZE = "decimal-size", "a number fits DECIMAL(38,12)";
    DECIMAL_POINT = "decimal-point", "a Decimal column has a fraction part somewhere, or readers of CSV take it for integers";
    INTEGER_FORM = "integer-form", "a whole number is digits, with a minus sign if negative";
    TIME_FORM = "time-form", "a time is YYYY-MM-DDTHH:MM:SSZ, in UTC";
    CURRENCY = "currency", "a currency is a code of ISO 4217 in capital letters";
    ALLOWED_VALUE = "allowed-value", "the value must be one that FOCUS allows";
    SUBCATEGORY_PARENT = "subcategory-parent", "a ServiceSubcategory belongs to its ServiceCategory";
    SERVICE_CATEGORY = "service-category", "a ServiceName has one ServiceCategory and one ServiceSubcategory";
    JSON_FORM = "json-form", "the value is a JSON object with unique keys";
    JSON_FLAT = "json-flat", "values of the object are strings, numbers, booleans or null, never objects or lists";
    TAG_PREFIX = "tag-prefix", "every tag of the provider has the one prefix of the file, a word and a slash";
    DETAILS_KEY = "details-key", "a key of SkuPriceDetails is one of FOCUS with its type, or begins with x_";
    PERIOD_ORDER = "period-order", "a period ends after it starts";
    PERIOD_INSIDE = "period-inside", "a charge lies inside its billing period, unless it is a Correction";
    CORRECTION_CLOSED = "correction-closed", "a Correction is of a billing period that was invoiced before: its charge lies before the row's billing period";
    UNIT_PAIR = "unit-pair", "a unit is null exactly when its quantity is";
    UNIT_FORM = "unit-form", "a unit is as in GB, Hours, 1000 Tokens, GiB-Hours or Requests/Second; data sizes B, KB, GB, KiB, GiB; times Seconds, Hours";
    NAME_PAIR = "name-pair", "a name or type is null exactly when its id is";
    PRICING_PRESENT = "pricing-present", "quantity, price, SKU and category of the price are not null for Usage and Purchase, unless Correction";
    TAX_NULL = "tax-null", "Tax has no price, quantity or SKU";
    SKU_NULL = "sku-null", "without a SKU price there is no SKU, meter, details, price category or unit price; with one there is a SKU";
    PRICE_NEGATIVE = "price-negative", "a unit price is not negative";
    LIST_PRODUCT = "list-product", "ListUnitPrice x PricingQuantity is ListCost, unless Correction";
    CONTRACTED_PRODUCT = "contracted-product", "ContractedUnitPrice x PricingQuantity is ContractedCost, unless Correction";
    CONSUMED_USAGE = "consumed-usage", "ConsumedQuantity is of Usage only, not of the unused rest of a commitment, and not null there unless Correction";
    PURCHASE_FREQUENCY = "purchase-frequency", "ChargeFrequency is not Usage-Based for a Purchase";
    PURCHASE_EFFECTIVE = "purchase-effective", "EffectiveCost is 0 for a Purchase that covers future use";
    BILLED_ELSEWHERE = "billed-elsewhere", "BilledCost is 0 where a third party issues the invoice";
    COMMITMENT = "commitment", "columns of a commitment are null without CommitmentDiscountId, and with one its category, type, and on Usage its status are not";
    PRICING_CURRENCY = "pricing-currency", "prices in PricingCurrency are those in BillingCurrency where both are the same";
    SKU_PARENT = "sku-parent", "a SkuPriceId has exactly one SkuId";
    INVOICE_PARENT = "invoice-parent", "an InvoiceId has one billing account and one currency";
    INVOICE_DETAIL = "invoice-detail", "InvoiceDetailId is null exactly when InvoiceId is";
    INVOICE_SUM = "invoice-sum", "BilledCost of an InvoiceId adds up to the invoice";
    INVOICE_UNITS = "invoice-units", "where rows have a x_RoundingResidue, the invoice is their exact sum in whole minor units, rounded half to even";
    SPLIT_NULL = "split-null", "columns of an allocation are null without AllocatedMethodId, and its name is without AllocatedResourceId";
    SPLIT_DETAILS = "split-details", "AllocatedMethodDetails is an object with Elements, each with AllocatedRatio, UsageUnit and UsageQuantity";
    SPLIT_RATIO = "split-ratio", "ratios of all parts of an origin add up to exactly 1";
    SPLIT_SUM = "split-sum", "costs and quantities of all parts of an origin add up to the origin's";
    SPLIT_REPEAT = "split-repeat", "prices, SKU, service and periods of the parts repeat the origin's";
    SPLIT_TAGS = "split-tags", "AllocatedTags has no key that Tags has";
    CONTRACT_APPLIED = "contract-applied", "ContractApplied is an object with Elements, each with ContractCommitmentId and a cost or a quantity with its unit";
    CARD_DIGEST = "card-digest", "x_RateCardDigest is a SHA-256: 64 hex digits in lower case";
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// From 1, the header not counted; 0: it is about the file.
    pub row: u64,
    /// Empty if it is about no single column.
    pub column: String,
    pub rule: Rule,
    /// What stands there and what should, as far as the rule's sentence does not say it; cut.
    pub value: String,
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Findings {
    pub profile: Profile,
    pub rows: u64,
    /// At most `SHOWN_PER_RULE` of a rule, in the order they were found.
    pub violations: Vec<Violation>,
    /// By rule, all of them.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Findings {
    pub fn is_good(&self) -> bool {
        self.counts.is_empty()
    }
}

/// What a check is told besides the file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `None`: told by the columns; 1.4 has ServiceProviderName and no ProviderName.
    pub profile: Option<Profile>,
    /// Prefix of the provider's tags, as in `acme/`. `None`: that of the file's first tag.
    pub tag_prefix: Option<String>,
    /// Payable amounts by InvoiceId.
    pub invoices: BTreeMap<String, Money>,
    /// The file is no CSV: its columns have types, so that whole numbers are not mistaken.
    pub is_typed: bool,
}

/// Checks a CSV file.
pub fn check_csv(input: impl BufRead, options: Options) -> io::Result<Findings> {
    let mut reader = Reader::new(input);
    let header: Vec<String> = match reader.next_record() {
        Ok(Some(header)) => header.iter().map(|name| name.clone().unwrap_or_default()).collect(),
        Ok(None) => Vec::new(),
        Err(CsvError::Io(error)) => return Err(error),
        Err(CsvError::Form { why, .. }) => {
            let mut checker = Checker::new(&[], options);
            checker.found.add(0, "", FILE_FORM, why);
            return Ok(checker.finish());
        }
    };
    let mut checker = Checker::new(&header, options);
    loop {
        match reader.next_record() {
            Ok(Some(record)) => {
                let cells: Vec<Option<&str>> = record.iter().map(|cell| cell.as_deref()).collect();
                checker.row(&cells);
            }
            Ok(None) => return Ok(checker.finish()),
            Err(CsvError::Io(error)) => return Err(error),
            Err(CsvError::Form { record, why }) => {
                checker.found.add(record, "", FILE_FORM, why);
                return Ok(checker.finish());
            }
        }
    }
}

/// Checks rows as they come.
pub struct Checker {
    options: Options,
    profile: Profile,
    header: Vec<String>,
    at: HashMap<String, usize>,
    known: Vec<Option<&'static columns::Column>>,
    found: Found,
    has_point: Vec<Point>,
    skus: HashMap<String, String>,
    services: HashMap<String, (String, String)>,
    invoices: HashMap<String, Invoice>,
    origins: HashMap<String, Origin>,
}

#[derive(Clone, Copy, PartialEq)]
enum Point {
    Unseen,
    Missing,
    Seen,
}

struct Found {
    rows: u64,
    violations: Vec<Violation>,
    counts: BTreeMap<&'static str, u64>,
}

impl Found {
    fn add(&mut self, row: u64, column: &str, rule: Rule, value: &str) {
        let count = self.counts.entry(rule.id).or_default();
        *count += 1;
        if *count <= SHOWN_PER_RULE as u64 {
            self.violations.push(Violation { row, column: shown(column), rule, value: shown(value) });
        }
    }
}

struct Invoice {
    row: u64,
    account: String,
    currency: String,
    billed: Sum,
    exact: Sum,
    has_residue: bool,
}

struct Origin {
    row: u64,
    ratio: Sum,
    list: Sum,
    effective: Sum,
    quantity: Sum,
    /// What the origin's totals are, as the first part says; `None` where the file does not say.
    totals: [Option<i128>; 3],
    repeats: Vec<String>,
}

/// A sum that does not wrap: `None` once it is too large.
#[derive(Clone, Copy)]
struct Sum(Option<i128>);

impl Sum {
    const ZERO: Sum = Sum(Some(0));

    fn add(&mut self, units: Option<i128>) {
        self.0 = self.0.and_then(|sum| sum.checked_add(units.unwrap_or(0)));
    }
}

/// Values of one row, by column.
struct Row<'a> {
    number: u64,
    at: &'a HashMap<String, usize>,
    cells: &'a [Option<&'a str>],
}

impl<'a> Row<'a> {
    fn has(&self, column: &str) -> bool {
        self.at.contains_key(column)
    }

    /// `None` where the column is null or missing.
    fn get(&self, column: &str) -> Option<&'a str> {
        self.cells.get(*self.at.get(column)?).copied().flatten()
    }

    fn decimal(&self, column: &str) -> Option<i128> {
        parse_decimal(self.get(column)?).ok()
    }

    fn time(&self, column: &str) -> Option<i64> {
        parse_time(self.get(column)?)
    }
}

impl Checker {
    /// `header`: names of columns, in the order of the cells.
    pub fn new(header: &[String], options: Options) -> Checker {
        let mut found = Found { rows: 0, violations: Vec::new(), counts: BTreeMap::new() };
        let mut at = HashMap::new();
        for (index, name) in header.iter().enumerate() {
            if at.insert(name.clone(), index).is_some() {
                found.add(0, name, COLUMN_TWICE, name);
            }
        }
        let is_new = at.contains_key("ServiceProviderName") && !at.contains_key("ProviderName");
        let profile = options.profile.unwrap_or(if is_new { Profile::V1_4 } else { Profile::V1_2 });
        check_header(header, &at, profile, &mut found);
        let known = header.iter().map(|name| columns::focus(name).or_else(|| columns::custom(name))).collect();
        Checker {
            options,
            profile,
            header: header.to_vec(),
            at,
            known,
            found,
            has_point: vec![Point::Unseen; header.len()],
            skus: HashMap::new(),
            services: HashMap::new(),
            invoices: HashMap::new(),
            origins: HashMap::new(),
        }
    }

    /// Checks one row; `cells` in the order of the header.
    pub fn row(&mut self, cells: &[Option<&str>]) {
        self.found.rows += 1;
        let number = self.found.rows;
        if cells.len() != self.header.len() {
            let value = format!("{} instead of {}", cells.len(), self.header.len());
            return self.found.add(number, "", ROW_WIDTH, &value);
        }
        for (index, cell) in cells.iter().enumerate() {
            let name = &self.header[index];
            check_cell(number, name, self.known[index], *cell, &mut self.has_point[index], &mut self.found);
        }
        let row = Row { number, at: &self.at, cells };
        let found = &mut self.found;
        check_values(&row, found);
        check_periods(&row, found);
        check_pairs(&row, self.profile, found);
        check_prices(&row, found);
        check_commitment(&row, found);
        check_json(&row, &mut self.options.tag_prefix, found);
        check_split_row(&row, self.profile, found);
        let is_whole = remember_parents(&row, &mut self.skus, &mut self.services, found)
            & remember_invoice(&row, &mut self.invoices, found)
            & remember_origin(&row, &mut self.origins, found);
        if !is_whole && !found.counts.contains_key(CHECKED_IN_PART.id) {
            found.add(number, "", CHECKED_IN_PART, "");
        }
    }

    /// Checks what only the whole file shows.
    pub fn finish(mut self) -> Findings {
        let found = &mut self.found;
        for (index, point) in self.has_point.iter().enumerate() {
            let is_focus = self.known[index].is_some_and(|column| column.kind == Kind::Decimal && column.level != Level::Custom);
            if *point == Point::Missing && is_focus && !self.options.is_typed {
                found.add(0, &self.header[index], DECIMAL_POINT, "every value is a whole number without a point");
            }
        }
        finish_invoices(self.invoices, &self.options.invoices, found);
        finish_origins(self.origins, found);
        Findings { profile: self.profile, rows: self.found.rows, violations: self.found.violations, counts: self.found.counts }
    }
}

fn check_header(header: &[String], at: &HashMap<String, usize>, profile: Profile, found: &mut Found) {
    for column in columns::of(profile).filter(|column| column.level == Level::Mandatory && !at.contains_key(column.name)) {
        found.add(0, column.name, COLUMN_MISSING, "");
    }
    let together = [
        ("ConsumedQuantity", "ConsumedUnit"),
        ("SubAccountId", "SubAccountName"),
        ("RegionId", "RegionName"),
        ("ResourceId", "ResourceName"),
        ("SkuPriceId", "SkuId"),
        ("ListUnitPrice", "SkuPriceId"),
        ("CommitmentDiscountId", "CommitmentDiscountStatus"),
        ("CommitmentDiscountQuantity", "CommitmentDiscountUnit"),
        ("AllocatedMethodId", "AllocatedResourceId"),
    ];
    for (a, b) in together {
        let missing = match (at.contains_key(a), at.contains_key(b)) {
            (true, false) => b,
            (false, true) if b != "SkuId" && b != "SkuPriceId" => a,
            _ => continue,
        };
        found.add(0, missing, COLUMN_TOGETHER, if missing == a { b } else { a });
    }
    let mut custom: Option<&str> = None;
    for name in header {
        let is_ours = name.starts_with("x_");
        if is_ours && !lists::is_custom_name(name) {
            found.add(0, name, CUSTOM_NAME, name);
        }
        if !is_ours && !columns::focus(name).is_some_and(|column| column.is_in(profile)) {
            found.add(0, name, COLUMN_UNKNOWN, &format!("{name} is no column of FOCUS {}", profile.name()));
        }
        match custom {
            Some(before) if !is_ours => found.add(0, name, CUSTOM_ORDER, &format!("{name} stands behind {before}")),
            None if is_ours => custom = Some(name),
            _ => {}
        }
    }
}

/// Form and nulls of one value.
fn check_cell(number: u64, name: &str, known: Option<&columns::Column>, cell: Option<&str>, point: &mut Point, found: &mut Found) {
    let Some(text) = cell else {
        if known.is_some_and(|column| !column.is_nullable) {
            found.add(number, name, NOT_NULL, "null");
        }
        return;
    };
    if text.trim().is_empty() {
        return found.add(number, name, EMPTY_TEXT, text);
    }
    match known.map_or(Kind::Text, |column| column.kind) {
        Kind::Decimal => {
            if *point != Point::Seen {
                *point = if text.contains(['.', 'E']) { Point::Seen } else { Point::Missing };
            }
            match parse_decimal(text) {
                Ok(_) => {}
                Err(rule) => found.add(number, name, rule, text),
            }
        }
        Kind::Integer => {
            if text.parse::<i64>().is_err() || text.starts_with('+') {
                found.add(number, name, INTEGER_FORM, text);
            }
        }
        Kind::Time => {
            if parse_time(text).is_none() {
                found.add(number, name, TIME_FORM, text);
            }
        }
        Kind::Json => match Json::parse(text) {
            Ok(Json::Object(_)) => {}
            Ok(_) => found.add(number, name, JSON_FORM, text),
            Err(why) => found.add(number, name, JSON_FORM, &format!("{why}: {text}")),
        },
        Kind::Text => {
            if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
                found.add(number, name, CONTROL_TEXT, text);
            }
        }
    }
}

fn check_values(row: &Row, found: &mut Found) {
    let allowed: [(&str, &[&str]); 7] = [
        ("ChargeCategory", &["Usage", "Purchase", "Tax", "Credit", "Adjustment"]),
        ("ChargeClass", &["Correction"]),
        ("ChargeFrequency", &["One-Time", "Recurring", "Usage-Based"]),
        ("PricingCategory", &["Standard", "Committed", "Dynamic", "Other"]),
        ("CommitmentDiscountCategory", &["Spend", "Usage"]),
        ("CommitmentDiscountStatus", &["Used", "Unused"]),
        ("CapacityReservationStatus", &["Used", "Unused"]),
    ];
    for (column, values) in allowed {
        if let Some(value) = row.get(column).filter(|value| !values.contains(value)) {
            found.add(row.number, column, ALLOWED_VALUE, value);
        }
    }
    let category = row.get("ServiceCategory");
    if let Some(category) = category.filter(|category| !lists::is_category(category)) {
        found.add(row.number, "ServiceCategory", ALLOWED_VALUE, category);
    }
    if let Some(subcategory) = row.get("ServiceSubcategory") {
        let parent = category.filter(|category| lists::is_category(category));
        if !lists::is_subcategory(subcategory) {
            found.add(row.number, "ServiceSubcategory", ALLOWED_VALUE, subcategory);
        } else if let Some(parent) = parent.filter(|parent| !lists::is_subcategory_of(subcategory, parent)) {
            found.add(row.number, "ServiceSubcategory", SUBCATEGORY_PARENT, &format!("{subcategory} in {parent}"));
        }
    }
    if let Some(currency) = row.get("BillingCurrency").filter(|code| !lists::is_currency(code)) {
        found.add(row.number, "BillingCurrency", CURRENCY, currency);
    }
    // A virtual currency has a name of its own, which is never of three letters.
    let is_code = |name: &str| name.trim().len() == 3 && name.trim().bytes().all(|b| b.is_ascii_alphabetic());
    if let Some(currency) = row.get("PricingCurrency").filter(|code| is_code(code) && !lists::is_currency(code)) {
        found.add(row.number, "PricingCurrency", CURRENCY, currency);
    }
    for column in ["PricingUnit", "ConsumedUnit", "CommitmentDiscountUnit"] {
        if let Some(unit) = row.get(column).filter(|unit| !lists::is_unit(unit)) {
            found.add(row.number, column, UNIT_FORM, unit);
        }
    }
    if let Some(digest) = row.get("x_RateCardDigest")
        && (digest.len() != 64 || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    {
        found.add(row.number, "x_RateCardDigest", CARD_DIGEST, digest);
    }
}

fn check_periods(row: &Row, found: &mut Found) {
    let period = |start: &str, end: &str| Some((row.time(start)?, row.time(end)?));
    let charge = period("ChargePeriodStart", "ChargePeriodEnd");
    let billing = period("BillingPeriodStart", "BillingPeriodEnd");
    for (column, period) in [("ChargePeriodEnd", charge), ("BillingPeriodEnd", billing)] {
        if period.is_some_and(|(start, end)| start >= end) {
            found.add(row.number, column, PERIOD_ORDER, row.get(column).unwrap_or(""));
        }
    }
    let (Some(charge), Some(billing)) = (charge, billing) else { return };
    let value = || format!("{} with {}", row.get("ChargePeriodStart").unwrap_or(""), row.get("BillingPeriodStart").unwrap_or(""));
    if row.get("ChargeClass").is_none() && (charge.0 < billing.0 || charge.1 > billing.1) {
        found.add(row.number, "ChargePeriodStart", PERIOD_INSIDE, &value());
    }
    if row.get("ChargeClass") == Some("Correction") && charge.1 > billing.0 {
        found.add(row.number, "ChargeClass", CORRECTION_CLOSED, &value());
    }
}

/// Columns that are null together.
fn check_pairs(row: &Row, profile: Profile, found: &mut Found) {
    let exactly = [
        ("PricingQuantity", "PricingUnit", UNIT_PAIR),
        ("ConsumedQuantity", "ConsumedUnit", UNIT_PAIR),
        ("CommitmentDiscountQuantity", "CommitmentDiscountUnit", UNIT_PAIR),
        ("SubAccountId", "SubAccountName", NAME_PAIR),
        ("SubAccountId", "SubAccountType", NAME_PAIR),
        ("RegionId", "RegionName", NAME_PAIR),
        ("ResourceId", "ResourceType", NAME_PAIR),
    ];
    for (id, name, rule) in exactly {
        if row.has(id) && row.has(name) && row.get(id).is_none() != row.get(name).is_none() {
            let value = if row.get(name).is_none() { format!("null with {id}") } else { format!("without {id}") };
            found.add(row.number, name, rule, &value);
        }
    }
    if row.has("ResourceId") && row.get("ResourceId").is_none() && row.get("ResourceName").is_some() {
        found.add(row.number, "ResourceName", NAME_PAIR, "without ResourceId");
    }
    let invoice = (row.get("InvoiceId").is_none(), row.get("InvoiceDetailId").is_none());
    if profile == Profile::V1_4 && row.has("InvoiceDetailId") && invoice.0 != invoice.1 {
        found.add(row.number, "InvoiceDetailId", INVOICE_DETAIL, row.get("InvoiceDetailId").unwrap_or("null"));
    }
}

fn check_prices(row: &Row, found: &mut Found) {
    let category = row.get("ChargeCategory");
    let is_correction = row.get("ChargeClass") == Some("Correction");
    let is_priced = matches!(category, Some("Usage" | "Purchase"));
    let of_price = ["SkuPriceId", "SkuId", "PricingCategory", "ListUnitPrice", "ContractedUnitPrice", "PricingQuantity", "PricingUnit"];
    for column in of_price.into_iter().filter(|column| row.has(column)) {
        let is_null = row.get(column).is_none();
        let is_unit_of_something = column == "PricingUnit" && row.get("PricingQuantity").is_some(); // told by unit-pair
        if is_priced && !is_correction && is_null && !is_unit_of_something {
            found.add(row.number, column, PRICING_PRESENT, "null");
        }
        if category == Some("Tax") && !is_null {
            found.add(row.number, column, TAX_NULL, row.get(column).unwrap_or(""));
        }
    }
    if row.has("SkuPriceId") && row.get("SkuPriceId").is_none() {
        let without = ["SkuPriceDetails", "ListUnitPrice", "ContractedUnitPrice", "PricingCategory"];
        for column in without.into_iter().filter(|column| row.get(column).is_some()) {
            found.add(row.number, column, SKU_NULL, "without SkuPriceId");
        }
    }
    if row.has("SkuId") && row.get("SkuId").is_none() {
        for column in ["SkuPriceId", "SkuMeter"].into_iter().filter(|column| row.get(column).is_some()) {
            found.add(row.number, column, SKU_NULL, "without SkuId");
        }
    }
    let prices = ["ListUnitPrice", "ContractedUnitPrice", "PricingCurrencyListUnitPrice", "PricingCurrencyContractedUnitPrice"];
    for column in prices.into_iter().filter(|column| row.decimal(column).is_some_and(|price| price < 0)) {
        found.add(row.number, column, PRICE_NEGATIVE, row.get(column).unwrap_or(""));
    }
    if !is_correction {
        check_product(row, "ListUnitPrice", "ListCost", LIST_PRODUCT, found);
        check_product(row, "ContractedUnitPrice", "ContractedCost", CONTRACTED_PRODUCT, found);
    }
    let is_unused = row.get("CommitmentDiscountStatus") == Some("Unused");
    if row.has("ConsumedQuantity") {
        let is_null = row.get("ConsumedQuantity").is_none();
        let is_consumption = category == Some("Usage") && !is_unused;
        if is_null == is_consumption && !(is_null && is_correction) {
            found.add(row.number, "ConsumedQuantity", CONSUMED_USAGE, row.get("ConsumedQuantity").unwrap_or("null"));
        }
    }
    if category == Some("Purchase") {
        if row.get("ChargeFrequency") == Some("Usage-Based") {
            found.add(row.number, "ChargeFrequency", PURCHASE_FREQUENCY, "Usage-Based");
        }
        if row.get("CommitmentDiscountId").is_some() && row.decimal("EffectiveCost").is_some_and(|cost| cost != 0) {
            found.add(row.number, "EffectiveCost", PURCHASE_EFFECTIVE, row.get("EffectiveCost").unwrap_or(""));
        }
    }
    let provider = row.get("ProviderName").or_else(|| row.get("ServiceProviderName"));
    if let (Some(provider), Some(issuer)) = (provider, row.get("InvoiceIssuerName"))
        && provider != issuer
        && row.decimal("BilledCost").is_some_and(|cost| cost != 0)
    {
        found.add(row.number, "BilledCost", BILLED_ELSEWHERE, &format!("{} by {issuer}", row.get("BilledCost").unwrap_or("")));
    }
    if row.get("PricingCurrency").is_some() && row.get("PricingCurrency") == row.get("BillingCurrency") {
        let same = [
            ("PricingCurrencyListUnitPrice", "ListUnitPrice"),
            ("PricingCurrencyContractedUnitPrice", "ContractedUnitPrice"),
            ("PricingCurrencyEffectiveCost", "EffectiveCost"),
        ];
        for (ours, theirs) in same.into_iter().filter(|(ours, theirs)| row.has(ours) && row.has(theirs)) {
            if row.decimal(ours) != row.decimal(theirs) {
                found.add(row.number, ours, PRICING_CURRENCY, row.get(ours).unwrap_or("null"));
            }
        }
    }
}

/// Is price x quantity the cost? Exactly, to half a unit of the 12th digit, where the quantity is a whole number of things;
/// where price or quantity have no finite decimal, as far as their own rounding can reach, or to 10^-9 of the cost.
fn check_product(row: &Row, price_column: &str, cost_column: &str, rule: Rule, found: &mut Found) {
    let (Some(price), Some(quantity), Some(cost)) = (row.decimal(price_column), row.decimal("PricingQuantity"), row.decimal(cost_column))
    else {
        return;
    };
    let unit = row.get("PricingUnit").unwrap_or("");
    let is_converted = row.get("PricingCurrency").is_some_and(|currency| Some(currency) != row.get("BillingCurrency"));
    let is_part = row.get("AllocatedMethodId").or(row.get("x_AllocatedMethodId")).is_some();
    let is_price_cut = is_converted || price % 10 != 0;
    // A whole number of things (0.345678 of 1000000 Tokens) was not rounded; a part of a time or a share may have been.
    let is_counted = !is_time(unit) && !is_part && is_whole(quantity, unit_size(unit));
    let is_quantity_cut = !is_counted;
    // All in units of 10^-24: half a unit of the cost, or a whole one where a remainder was dealt out.
    let unit_of_cost = ONE.unsigned_abs();
    let mut slack = if is_counted { unit_of_cost / 2 } else { unit_of_cost };
    if is_quantity_cut {
        slack = slack.saturating_add(price.unsigned_abs());
    }
    if is_price_cut {
        slack = slack.saturating_add(quantity.unsigned_abs());
    }
    if is_price_cut || (is_quantity_cut && quantity % 10 != 0) {
        slack = slack.max(cost.unsigned_abs().saturating_mul(1_000)); // 10^-9 of the cost
    }
    let product = multiply_wide(price.unsigned_abs(), quantity.unsigned_abs());
    let want = multiply_wide(cost.unsigned_abs(), ONE.unsigned_abs());
    let is_sign_same = (price < 0) != (quantity < 0) || product == (0, 0);
    let is_cost_negative = cost < 0;
    let distance = if (is_sign_same && product != (0, 0)) == is_cost_negative || product == (0, 0) || want == (0, 0) {
        wide_distance(product, want)
    } else {
        wide_sum(product, want)
    };
    if distance > (0, slack) {
        let value = format!("{} x {} is not {}", Money(price), Money(quantity), Money(cost));
        found.add(row.number, cost_column, rule, &value);
    }
}

fn wide_distance(a: (u128, u128), b: (u128, u128)) -> (u128, u128) {
    let (large, small) = if a >= b { (a, b) } else { (b, a) };
    let (low, borrow) = large.1.overflowing_sub(small.1);
    (large.0 - small.0 - u128::from(borrow), low)
}

fn wide_sum(a: (u128, u128), b: (u128, u128)) -> (u128, u128) {
    let (low, carry) = a.1.overflowing_add(b.1);
    (a.0.saturating_add(b.0).saturating_add(u128::from(carry)), low)
}

fn check_commitment(row: &Row, found: &mut Found) {
    if !row.has("CommitmentDiscountId") {
        return;
    }
    let id = row.get("CommitmentDiscountId");
    let category = row.get("ChargeCategory");
    let is_correction = row.get("ChargeClass") == Some("Correction");
    for column in ["Category", "Name", "Quantity", "Status", "Type", "Unit"].map(|end| format!("CommitmentDiscount{end}")) {
        if !row.has(&column) {
            continue;
        }
        let value = row.get(&column);
        let is_needed = match column.as_str() {
            "CommitmentDiscountCategory" | "CommitmentDiscountType" => true,
            "CommitmentDiscountStatus" => category == Some("Usage"),
            "CommitmentDiscountQuantity" => matches!(category, Some("Usage" | "Purchase")) && !is_correction,
            _ => false,
        };
        if id.is_none() && value.is_some() {
            found.add(row.number, &column, COMMITMENT, "without CommitmentDiscountId");
        }
        if id.is_some() && value.is_none() && is_needed {
            found.add(row.number, &column, COMMITMENT, "null");
        }
    }
    let is_committed = row.get("PricingCategory") == Some("Committed");
    if row.has("PricingCategory") && category == Some("Usage") && !is_correction && is_committed != id.is_some() {
        found.add(row.number, "PricingCategory", COMMITMENT, row.get("PricingCategory").unwrap_or("null"));
    }
}

/// Tags, SKU details and what a contract was applied to.
fn check_json(row: &Row, tag_prefix: &mut Option<String>, found: &mut Found) {
    let object = |column: &str| match Json::parse(row.get(column)?) {
        Ok(Json::Object(members)) => Some(members),
        _ => None, // told by json-form
    };
    for column in ["Tags", "AllocatedTags", "SkuPriceDetails"] {
        for (key, value) in object(column).into_iter().flatten() {
            if value.is_nested() {
                found.add(row.number, column, JSON_FLAT, &key);
            }
            if column == "SkuPriceDetails" {
                let is_good = match lists::focus_detail(&key) {
                    Some(true) => matches!(value, Json::Number(_)),
                    Some(false) => matches!(value, Json::Text(_)),
                    None => lists::is_custom_name(&key),
                };
                if !is_good {
                    found.add(row.number, column, DETAILS_KEY, &key);
                }
            } else if tag_prefix.is_none() && key.find('/').is_some_and(|at| at > 0) {
                *tag_prefix = key.find('/').map(|at| key[..=at].to_string());
            } else if !tag_prefix.as_ref().is_some_and(|prefix| key.len() > prefix.len() && key.starts_with(prefix.as_str())) {
                found.add(row.number, column, TAG_PREFIX, &key);
            }
        }
    }
    if let (Some(tags), Some(allocated)) = (object("Tags"), object("AllocatedTags")) {
        for (key, _) in allocated.iter().filter(|(key, _)| tags.iter().any(|(tag, _)| tag == key)) {
            found.add(row.number, "AllocatedTags", SPLIT_TAGS, key);
        }
    }
    if row.get("ContractApplied").is_some() && object("ContractApplied").is_some() {
        let elements = Json::parse(row.get("ContractApplied").unwrap_or("")).ok();
        let is_good = elements.as_ref().and_then(|object| object.get("Elements")).is_some_and(|elements| match elements {
            Json::List(elements) => !elements.is_empty() && elements.iter().all(is_contract),
            _ => false,
        });
        if !is_good {
            found.add(row.number, "ContractApplied", CONTRACT_APPLIED, row.get("ContractApplied").unwrap_or(""));
        }
    }
}

fn is_contract(element: &Json) -> bool {
    let id = element.get("ContractCommitmentId").or_else(|| element.get("ContractCommitmentID"));
    let number = |key: &str| matches!(element.get(key), Some(Json::Number(_)));
    let has_unit = matches!(element.get("ContractCommitmentAppliedUnit"), Some(Json::Text(_)));
    let has_quantity = number("ContractCommitmentAppliedQuantity");
    matches!(id, Some(Json::Text(_))) && (number("ContractCommitmentAppliedCost") || has_quantity) && has_unit == has_quantity
}

fn check_split_row(row: &Row, profile: Profile, found: &mut Found) {
    let (method, prefix) = if profile == Profile::V1_4 { ("AllocatedMethodId", "") } else { ("x_AllocatedMethodId", "x_") };
    if !row.has(method) {
        return;
    }
    let others = ["AllocatedMethodDetails", "AllocatedResourceId", "AllocatedResourceName", "AllocatedTags", "x_AllocatedRatio"];
    for column in others {
        let column = if column.starts_with("x_") { column.to_string() } else { format!("{prefix}{column}") };
        if row.get(method).is_none() && row.get(&column).is_some() {
            found.add(row.number, &column, SPLIT_NULL, &format!("without {method}"));
        }
    }
    let (id, name) = (format!("{prefix}AllocatedResourceId"), format!("{prefix}AllocatedResourceName"));
    if row.get(&id).is_none() && row.get(&name).is_some() {
        found.add(row.number, &name, SPLIT_NULL, &format!("without {id}"));
    }
    if row.get("AllocatedMethodDetails").is_some() && ratio_of_details(row).is_none() {
        found.add(row.number, "AllocatedMethodDetails", SPLIT_DETAILS, row.get("AllocatedMethodDetails").unwrap_or(""));
    }
    if row.get(method).is_some() && ratio(row).is_none() {
        found.add(row.number, method, SPLIT_RATIO, "a part without a ratio");
    }
}

/// The sum of ratios of a part's elements; `None` if the object is not as it must be.
fn ratio_of_details(row: &Row) -> Option<i128> {
    let details = Json::parse(row.get("AllocatedMethodDetails")?).ok()?;
    let Json::List(elements) = details.get("Elements")? else { return None };
    let mut sum = 0i128;
    for element in elements {
        let Json::Object(members) = element else { return None };
        let Json::Number(ratio) = element.get("AllocatedRatio")? else { return None };
        let ratio = parse_decimal(ratio).ok().filter(|ratio| (0..=ONE).contains(ratio))?;
        sum = sum.checked_add(ratio)?;
        let has_quantity = matches!(element.get("UsageQuantity"), Some(Json::Number(_)));
        let has_unit = matches!(element.get("UsageUnit"), Some(Json::Text(_)));
        let is_known = |key: &str| ["AllocatedRatio", "UsageUnit", "UsageQuantity"].contains(&key) || lists::is_custom_name(key);
        if !has_unit || !has_quantity || !members.iter().all(|(key, _)| is_known(key)) {
            return None;
        }
    }
    (!elements.is_empty()).then_some(sum)
}

fn ratio(row: &Row) -> Option<i128> {
    if row.get("AllocatedMethodDetails").is_some() { ratio_of_details(row) } else { row.decimal("x_AllocatedRatio") }
}

/// False once the memory for names is full.
fn remember_parents(
    row: &Row,
    skus: &mut HashMap<String, String>,
    services: &mut HashMap<String, (String, String)>,
    found: &mut Found,
) -> bool {
    if let (Some(price), Some(sku)) = (row.get("SkuPriceId"), row.get("SkuId")) {
        match skus.get(price) {
            Some(known) if known != sku => found.add(row.number, "SkuPriceId", SKU_PARENT, &format!("{price} of {sku} and of {known}")),
            None if skus.len() < REMEMBERED_MAX => {
                skus.insert(price.to_string(), sku.to_string());
            }
            _ => {}
        }
    }
    if let (Some(name), Some(category)) = (row.get("ServiceName"), row.get("ServiceCategory")) {
        let subcategory = row.get("ServiceSubcategory").unwrap_or("");
        match services.get(name) {
            Some((known, sub)) if known != category || sub != subcategory => {
                let value = format!("{name} in {category}, {subcategory} and in {known}, {sub}");
                found.add(row.number, "ServiceName", SERVICE_CATEGORY, &value);
            }
            None if services.len() < REMEMBERED_MAX => {
                services.insert(name.to_string(), (category.to_string(), subcategory.to_string()));
            }
            _ => {}
        }
    }
    skus.len() < REMEMBERED_MAX && services.len() < REMEMBERED_MAX
}

fn remember_invoice(row: &Row, invoices: &mut HashMap<String, Invoice>, found: &mut Found) -> bool {
    let Some(id) = row.get("InvoiceId") else { return true };
    let account = row.get("BillingAccountId").unwrap_or("");
    let currency = row.get("BillingCurrency").unwrap_or("");
    if !invoices.contains_key(id) {
        if invoices.len() >= REMEMBERED_MAX {
            return false;
        }
        let invoice = Invoice {
            row: row.number,
            account: account.to_string(),
            currency: currency.to_string(),
            billed: Sum::ZERO,
            exact: Sum::ZERO,
            has_residue: false,
        };
        invoices.insert(id.to_string(), invoice);
    }
    let Some(invoice) = invoices.get_mut(id) else { return true };
    if invoice.account != account || invoice.currency != currency {
        let value = format!("{id} of {account}, {currency} and of {}, {}", invoice.account, invoice.currency);
        found.add(row.number, "InvoiceId", INVOICE_PARENT, &value);
    }
    let billed = row.decimal("BilledCost");
    let residue = row.decimal("x_RoundingResidue");
    let unit = 10i128.pow(12u32.saturating_sub(lists::minor_digits(currency)));
    if residue.is_some() && billed.is_some_and(|billed| billed % unit != 0) {
        found.add(row.number, "BilledCost", INVOICE_UNITS, row.get("BilledCost").unwrap_or(""));
    }
    invoice.billed.add(billed);
    invoice.exact.add(billed);
    invoice.exact.add(residue);
    invoice.has_residue |= residue.is_some();
    true
}

fn finish_invoices(invoices: HashMap<String, Invoice>, payable: &BTreeMap<String, Money>, found: &mut Found) {
    let mut invoices: Vec<(String, Invoice)> = invoices.into_iter().collect();
    invoices.sort_by_key(|(_, invoice)| invoice.row);
    let seen: HashSet<&str> = invoices.iter().map(|(id, _)| id.as_str()).collect();
    for (id, amount) in payable.iter().filter(|(id, amount)| !seen.contains(id.as_str()) && amount.0 != 0) {
        found.add(0, "InvoiceId", INVOICE_SUM, &format!("{id} has no row and is {amount}"));
    }
    for (id, invoice) in &invoices {
        let Some(billed) = invoice.billed.0 else { continue };
        if let Some(amount) = payable.get(id).filter(|amount| amount.0 != billed) {
            found.add(invoice.row, "BilledCost", INVOICE_SUM, &format!("{id} is {amount}, its rows {}", Money(billed)));
        }
        let rounded = invoice.exact.0.and_then(|exact| Money(exact).round(lists::minor_digits(&invoice.currency)).ok());
        if invoice.has_residue && rounded != Some(Money(billed)) {
            let exact = invoice.exact.0.map_or(String::from("too large"), |exact| Money(exact).to_string());
            found.add(invoice.row, "BilledCost", INVOICE_UNITS, &format!("{id}: rows {}, exactly {exact}", Money(billed)));
        }
    }
}

/// What names an origin: `x_OriginId`; without it what its parts repeat.
fn remember_origin(row: &Row, origins: &mut HashMap<String, Origin>, found: &mut Found) -> bool {
    let Some(method) = row.get("AllocatedMethodId").or_else(|| row.get("x_AllocatedMethodId")) else { return true };
    let repeated = ["SkuId", "SkuPriceId", "PricingUnit", "ListUnitPrice", "ContractedUnitPrice", "ServiceName", "BillingPeriodStart"];
    let key = match row.get("x_OriginId") {
        Some(id) => id.to_string(),
        None => ["ResourceId", "SkuPriceId", "BillingPeriodStart", "ChargePeriodStart", "ChargePeriodEnd", "ChargeClass"]
            .iter()
            .fold(method.to_string(), |key, column| key + "\u{1f}" + row.get(column).unwrap_or("")),
    };
    let repeats: Vec<String> = repeated.iter().map(|column| row.get(column).unwrap_or("").to_string()).collect();
    if !origins.contains_key(&key) {
        if origins.len() >= REMEMBERED_MAX {
            return false;
        }
        let totals = ["x_OriginListCost", "x_OriginEffectiveCost", "x_OriginPricingQuantity"].map(|column| row.decimal(column));
        let zero = Sum::ZERO;
        let origin = Origin { row: row.number, ratio: zero, list: zero, effective: zero, quantity: zero, totals, repeats: repeats.clone() };
        origins.insert(key.clone(), origin);
    }
    let Some(origin) = origins.get_mut(&key) else { return true };
    if row.get("x_OriginId").is_some() {
        for (column, (ours, first)) in repeated.iter().zip(repeats.iter().zip(&origin.repeats)) {
            if ours != first {
                found.add(row.number, column, SPLIT_REPEAT, &format!("{ours}, and {first} in row {}", origin.row));
            }
        }
    }
    origin.ratio.add(ratio(row));
    origin.list.add(row.decimal("ListCost"));
    origin.effective.add(row.decimal("EffectiveCost"));
    origin.quantity.add(row.decimal("PricingQuantity"));
    true
}

fn finish_origins(origins: HashMap<String, Origin>, found: &mut Found) {
    let mut origins: Vec<Origin> = origins.into_values().collect();
    origins.sort_by_key(|origin| origin.row);
    for origin in origins {
        if origin.ratio.0 != Some(ONE) {
            let value = origin.ratio.0.map_or(String::from("too large"), |sum| Money(sum).to_string());
            found.add(origin.row, "AllocatedMethodDetails", SPLIT_RATIO, &value);
        }
        let sums = [("ListCost", origin.list), ("EffectiveCost", origin.effective), ("PricingQuantity", origin.quantity)];
        for ((column, sum), total) in sums.into_iter().zip(origin.totals) {
            if let Some(total) = total.filter(|total| sum.0 != Some(*total)) {
                let sum = sum.0.map_or(String::from("too large"), |sum| Money(sum).to_string());
                found.add(origin.row, column, SPLIT_SUM, &format!("parts {sum}, origin {}", Money(total)));
            }
        }
    }
}

/// Units of 10^-12 of a number as FOCUS writes it; the rule that it breaks.
pub fn parse_decimal(text: &str) -> Result<i128, Rule> {
    let (mantissa, exponent) = text.split_once('E').map_or((text, None), |(mantissa, exponent)| (mantissa, Some(exponent)));
    let digits = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let exponent_digits = exponent.map(|exponent| exponent.strip_prefix('-').unwrap_or(exponent));
    if !all_digits(whole) || !fraction.is_none_or(all_digits) || !exponent_digits.is_none_or(all_digits) {
        return Err(DECIMAL_FORM);
    }
    let exponent: i64 = exponent.map_or(Ok(0), str::parse).map_err(|_| DECIMAL_SIZE)?;
    let fraction = fraction.unwrap_or("");
    // The value is all digits x 10^(12 + exponent - digits of the fraction) units.
    let mut shift = 12i64.saturating_add(exponent).saturating_sub(i64::try_from(fraction.len()).map_err(|_| DECIMAL_SIZE)?);
    let mut significant: Vec<u8> = whole.bytes().chain(fraction.bytes()).skip_while(|b| *b == b'0').collect();
    while shift < 0 && significant.last() == Some(&b'0') {
        significant.pop();
        shift += 1;
    }
    if significant.is_empty() {
        return Ok(0);
    }
    if !(0..=38).contains(&shift) || significant.len() > 38 {
        return Err(DECIMAL_SIZE);
    }
    let zeros = usize::try_from(shift).map_err(|_| DECIMAL_SIZE)?;
    let mut units = 0i128;
    for byte in significant.into_iter().chain(std::iter::repeat_n(b'0', zeros)) {
        let next = units.checked_mul(10).and_then(|units| units.checked_add(i128::from(byte - b'0')));
        units = next.filter(|units| *units <= flow::units::MONEY_UNITS_MAX).ok_or(DECIMAL_SIZE)?;
    }
    Ok(if mantissa.starts_with('-') { -units } else { units })
}

/// Seconds since 1970 of `YYYY-MM-DDTHH:MM:SSZ`, if there is such a time.
pub fn parse_time(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = |(byte, want): (&u8, &u8)| if *want == b'd' { byte.is_ascii_digit() } else { byte == want };
    if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let (hour, minute, second) = (number(11..13), number(14..16), number(17..19));
    let year = i32::try_from(year).ok()?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    (civil_from_days(days) == (year, month, day)).then_some(days * 86_400 + i64::from(hour * 3_600 + minute * 60 + second))
}

/// `1000000` of `1000000 Tokens`; 1 where there is no number.
fn unit_size(unit: &str) -> u64 {
    unit.split_once(' ').and_then(|(size, _)| size.parse().ok()).unwrap_or(1)
}

/// Is time part of what the unit measures?
fn is_time(unit: &str) -> bool {
    unit.contains('-') || lists::TIMES.iter().any(|time| unit.contains(time))
}

/// Is the quantity a whole number of the unit's base?
fn is_whole(quantity: i128, size: u64) -> bool {
    let rest = quantity.unsigned_abs() % ONE.unsigned_abs();
    // (whole + rest / 10^12) x size is whole if rest x size is a multiple of 10^12; rest is below 2^40, size below 2^64.
    (rest * u128::from(size)).is_multiple_of(ONE.unsigned_abs())
}

/// The head of a text, printable.
fn shown(text: &str) -> String {
    let mut end = text.len().min(VALUE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < text.len() { "..." } else { "" };
    format!("{}{cut}", &text[..end]).replace(|c: char| c.is_control(), " ")
}
