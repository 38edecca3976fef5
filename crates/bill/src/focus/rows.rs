//! One charge as the values of a FOCUS row.
//!
//! In: a charge, what the export says of it, its share of an origin and of an invoice. Out: cells. Every rule on nulls
//! and allowed values holds by construction. Bound: no text is longer than `TEXT_BYTES_MAX`, no object has more than
//! `MEMBERS_MAX` members; what is longer is cut, identifiers so that two never become one.

use super::info::{FocusInfo, Service, is_json_number};
use super::json::{Flat, quote};
use super::split::Part;
use super::{Cell, Input, lists};
use crate::charge::{Category, Charge, Commitment};
use crate::money::{Money, Overflow, cost, quotient};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Bytes of one text; a name of 1 KiB is nobody's.
const TEXT_BYTES_MAX: usize = 1_024;
/// Members of a JSON object.
const MEMBERS_MAX: usize = 64;
/// One, in units of 10^-12.
const ONE: u64 = 1_000_000_000_000;

/// Everything a row says, computed once.
pub struct Facts<'a> {
    pub input: &'a Input<'a>,
    pub charge: &'a Charge,
    pub info: &'a FocusInfo,
    pub currency: &'a str,
    pub service: Service<'a>,
    pub part: Option<&'a Part>,
    pub list: Money,
    pub contracted: Money,
    pub effective: Money,
    pub billed: Money,
    /// Exact billed cost less the invoiced one (rule R20); `None` where no invoice rounds it.
    pub residue: Option<Money>,
    pub effective_in_pricing_currency: Money,
    pub list_price: Money,
    pub contracted_price: Money,
    pub pricing_quantity: Money,
    pub consumed: Option<Money>,
    pub metered: Money,
}

impl<'a> Facts<'a> {
    /// `invoiced`: what the invoice says instead of the exact billed cost.
    pub fn of(
        input: &'a Input<'a>,
        info: &'a FocusInfo,
        currency: &'a str,
        part: Option<&'a Part>,
        invoiced: Option<Money>,
    ) -> Result<Facts<'a>, Overflow> {
        let charge = input.charge;
        let exact = charge.billed;
        let billed = invoiced.unwrap_or(exact);
        // A purchase covers future use: its cost becomes effective in the rows that use it.
        let effective = if charge.category == Category::Purchase { Money::ZERO } else { charge.effective };
        let is_consumption = charge.category == Category::Usage && !matches!(charge.commitment, Some(Commitment::Unused(_)));
        let whole = |per| quotient(charge.billable, charge.scale.0, charge.scale.1, per);
        let (pricing_quantity, consumed) = match part {
            Some(part) => (part.pricing_quantity, part.consumed),
            None => (whole(charge.per)?, whole(1)?),
        };
        Ok(Facts {
            input,
            charge,
            info,
            currency,
            service: info.service(charge),
            part,
            list: charge.list,
            contracted: charge.contracted,
            effective,
            billed,
            residue: match invoiced {
                Some(invoiced) => Some(exact.checked_add(Money(-invoiced.0))?),
                None => None,
            },
            effective_in_pricing_currency: match &charge.exchange {
                Some(exchange) => quotient(effective.0, 1, exchange.rate.0.unsigned_abs(), 1)?,
                None => effective,
            },
            list_price: in_billing_currency(charge, charge.price)?,
            contracted_price: in_billing_currency(charge, charge.contracted_price)?,
            pricing_quantity,
            consumed: is_consumption.then_some(consumed),
            metered: quotient(charge.quantity, 1, 1, 1)?,
        })
    }

    /// A text that is never null: printable ASCII, at most `TEXT_BYTES_MAX`; what is nothing but white space is `-`.
    pub fn plain(&self, text: &str) -> Cell {
        Cell::Text(plain(text))
    }

    pub fn category(&self) -> Cell {
        self.plain(match self.charge.category {
            Category::Usage => "Usage",
            Category::Purchase => "Purchase",
        })
    }

    pub fn class(&self) -> Cell {
        if self.input.is_correction { self.plain("Correction") } else { Cell::Null }
    }

    pub fn frequency(&self) -> Cell {
        self.plain(match self.charge.category {
            Category::Usage => "Usage-Based",
            Category::Purchase => "Recurring",
        })
    }

    /// `chat-output: 0.345678000000 x 1000000 Tokens at 1.500000000000 USD`.
    pub fn description(&self) -> Cell {
        let what = match &self.charge.commitment {
            Some(Commitment::Unused(name)) => format!(", unused of {name}"),
            Some(Commitment::Used(name)) => format!(", covered by {name}"),
            Some(Commitment::Fee(name)) => format!(", fee of {name}"),
            None => String::new(),
        };
        let price = self.charge.price;
        let currency = self.pricing_currency();
        let text = format!("{}{what}: {} x {} at {price} {currency}", self.charge.sku, self.pricing_quantity, self.pricing_unit());
        self.plain(&text)
    }

    pub fn commitment(&self, text: impl Fn(&str) -> String) -> Cell {
        match &self.charge.commitment {
            Some(Commitment::Used(name) | Commitment::Unused(name) | Commitment::Fee(name)) => Cell::Text(plain(&text(name))),
            None => Cell::Null,
        }
    }

    pub fn commitment_quantity(&self) -> Cell {
        self.charge.commitment.as_ref().map(|_| self.pricing_quantity).into()
    }

    pub fn commitment_status(&self) -> Cell {
        match &self.charge.commitment {
            Some(Commitment::Used(_)) => self.plain("Used"),
            Some(Commitment::Unused(_)) => self.plain("Unused"),
            Some(Commitment::Fee(_)) | None => Cell::Null,
        }
    }

    pub fn pricing_category(&self) -> Cell {
        self.plain(match &self.charge.commitment {
            Some(Commitment::Used(_) | Commitment::Unused(_)) => "Committed",
            Some(Commitment::Fee(_)) | None => "Standard",
        })
    }

    /// The commitment a charge was applied to, as FOCUS 1.3 and 1.4 tell it.
    pub fn contract_applied(&self) -> Cell {
        let Some(Commitment::Used(name) | Commitment::Unused(name) | Commitment::Fee(name)) = &self.charge.commitment else {
            return Cell::Null;
        };
        let mut id = String::new();
        quote(&plain(name), &mut id);
        let mut unit = String::new();
        quote(&self.pricing_unit(), &mut unit);
        let cost = if self.charge.category == Category::Purchase { self.billed } else { self.effective };
        Cell::Text(format!(
            "{{\"Elements\":[{{\"ContractId\":{id},\"ContractCommitmentId\":{id},\"ContractCommitmentAppliedCost\":{cost},\
             \"ContractCommitmentAppliedQuantity\":{},\"ContractCommitmentAppliedUnit\":{unit}}}]}}",
            self.pricing_quantity
        ))
    }

    pub fn consumed_unit(&self) -> Cell {
        self.consumed.map_or(Cell::Null, |_| Cell::Text(lists::unit_of(&cut(&self.charge.unit))))
    }

    pub fn pricing_unit(&self) -> String {
        match self.charge.per {
            1 => lists::unit_of(&cut(&self.charge.unit)),
            per => format!("{per} {}", lists::unit_of(&cut(&self.charge.unit))),
        }
    }

    pub fn pricing_currency(&self) -> &str {
        self.charge.exchange.as_ref().map_or(self.currency, |exchange| &exchange.currency)
    }

    pub fn exchange_rate(&self) -> Cell {
        self.charge.exchange.as_ref().map_or(Money(i128::from(ONE)), |exchange| exchange.rate).into()
    }

    pub fn invoice(&self) -> Cell {
        self.input.invoice_id.map_or(Cell::Null, |id| self.plain(id))
    }

    /// A line of the invoice for each kind of charge.
    pub fn invoice_detail(&self) -> Cell {
        let line = match self.charge.category {
            Category::Usage => "usage",
            Category::Purchase => "purchase",
        };
        self.input.invoice_id.map_or(Cell::Null, |id| self.plain(&format!("{id}/{line}")))
    }

    pub fn region(&self) -> String {
        match self.charge.series.dim(&self.info.region_dim) {
            [] => plain(&self.info.region),
            region => identifier(region),
        }
    }

    pub fn region_name(&self) -> Cell {
        let id = self.region();
        let name = self.info.regions.get(&id).map_or_else(|| ascii(&id), |name| ascii(name));
        Cell::Text(name)
    }

    /// The first dimension that names a resource; of a fee, the commitment that was bought.
    pub fn resource(&self, text: impl Fn(&[u8], &str) -> String) -> Cell {
        if let Some(Commitment::Fee(name)) = &self.charge.commitment {
            return Cell::Text(text(name.as_bytes(), "Commitment"));
        }
        let named = self.info.resources.iter().map(|resource| (self.charge.series.dim(&resource.dim), &resource.kind));
        match named.into_iter().find(|(value, _)| !value.is_empty()) {
            Some((value, kind)) => Cell::Text(text(value, kind)),
            None => Cell::Null,
        }
    }

    pub fn meter(&self) -> Cell {
        self.plain(if self.charge.series.meter.is_empty() { &self.charge.sku } else { &self.charge.series.meter })
    }

    /// What is common to all charges of this SKU price: what the card says of it, its model, its tier.
    pub fn details(&self) -> Cell {
        let mut flat = Flat::default();
        let configured = self.service.details.into_iter().flatten();
        let keys: Vec<&str> = configured.clone().map(|(key, _)| key.as_str()).collect();
        for (key, value) in configured.take(MEMBERS_MAX) {
            match lists::focus_detail(key) {
                Some(true) if is_json_number(value) => flat.number(key, value),
                _ => flat.text(key, &printable(value)),
            }
        }
        for (dim, key) in self.info.sku_dims.iter().take(MEMBERS_MAX) {
            let value = self.charge.series.dim(dim);
            if !value.is_empty() && !keys.contains(&key.as_str()) {
                flat.text(key, &identifier(value));
            }
        }
        if self.charge.tier > 0 && !keys.contains(&"x_Tier") && !self.info.sku_dims.values().any(|key| key == "x_Tier") {
            flat.number("x_Tier", &self.charge.tier.to_string());
        }
        flat.finish().map_or(Cell::Null, Cell::Text)
    }

    /// Nobody: null, as are the name and the type.
    pub fn tenant(&self, text: impl Fn(&str, &str) -> String) -> Cell {
        let tenant = &self.charge.series.tenant;
        if tenant.is_empty() {
            return Cell::Null;
        }
        let id = identifier(tenant);
        let name = self.info.tenants.get(&id).cloned().unwrap_or_else(|| readable(tenant));
        Cell::Text(text(&id, &name))
    }

    pub fn tags(&self) -> Cell {
        let mut flat = Flat::default();
        let mut last: Option<&str> = None;
        for (name, value) in self.charge.series.dims.iter().take(MEMBERS_MAX) {
            let is_tag = self.info.tags.as_ref().is_none_or(|tags| tags.contains(name));
            // Dimensions stand in the order of names, so the same name twice stands together.
            if is_tag && !value.is_empty() && last != Some(name) {
                flat.text(&cut(&format!("{}{name}", self.info.tag_prefix)), &readable(value));
                last = Some(name);
            }
        }
        flat.finish().map_or(Cell::Null, Cell::Text)
    }

    pub fn allocated_method(&self) -> Cell {
        self.charge.allocation.as_ref().map_or(Cell::Null, |part| self.plain(&part.method))
    }

    /// Whom the part is for; null where nobody used it, or nobody could be told to pay.
    pub fn allocated_resource(&self) -> Cell {
        match &self.charge.allocation {
            Some(part) if !part.is_idle && self.charge.series.tenant.is_empty() => self.plain("unattributed"),
            Some(part) if !part.is_idle => Cell::Text(identifier(&self.charge.series.tenant)),
            _ => Cell::Null,
        }
    }

    pub fn allocated_resource_name(&self) -> Cell {
        match self.allocated_resource() {
            Cell::Text(id) if self.charge.series.tenant.is_empty() => Cell::Text(id),
            Cell::Text(_) => self.tenant(|_, name| ascii(name)),
            other => other,
        }
    }

    pub fn allocated_unit(&self) -> Cell {
        self.charge.allocation.as_ref().map_or(Cell::Null, |part| Cell::Text(lists::unit_of(&cut(&part.unit))))
    }

    pub fn allocated_weight(&self) -> Cell {
        self.part.and_then(|part| part.weight).into()
    }

    pub fn allocated_details(&self) -> Cell {
        let (Some(part), Some(allocation)) = (self.part, &self.charge.allocation) else { return Cell::Null };
        let mut text = format!("{{\"Elements\":[{{\"AllocatedRatio\":{}", part.ratio);
        text.push_str(",\"UsageUnit\":");
        quote(&lists::unit_of(&cut(&allocation.unit)), &mut text);
        let _ = write!(text, ",\"UsageQuantity\":{}}}]}}", allocation.weight);
        Cell::Text(text)
    }

    /// `namespace/job`: with the charge period and the tenant it joins cost with lineage.
    pub fn lineage_job(&self) -> Cell {
        match self.charge.series.dim(&self.info.lineage_dim) {
            [] => Cell::Null,
            job => Cell::Text(cut(&format!("{}/{}", plain(&self.info.lineage_namespace), identifier(job)))),
        }
    }
}

/// A price in the currency of the bill, at the day's rate, with 12 digits (rule R16).
fn in_billing_currency(charge: &Charge, price: Money) -> Result<Money, Overflow> {
    match &charge.exchange {
        Some(exchange) => cost(price.0, exchange.rate, ONE),
        None => Ok(price),
    }
}

/// Bytes as a text in ASCII that no other bytes give, as the official validator takes no other: themselves where they
/// are printable ASCII; `utf8:` and the text, its other characters as in `Caf%C3%A9`; `hex:` and hex digits where they are
/// no printable text; `sha256:` and a digest where that is too long.
pub fn identifier(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.trim().is_empty() && !text.chars().any(char::is_control));
    let is_marked = |text: &str| ["hex:", "sha256:", "utf8:"].iter().any(|mark| text.starts_with(mark));
    let form = match text {
        Some(text) if text.is_ascii() && !is_marked(text) => text.to_string(),
        Some(text) if !text.is_ascii() => format!("utf8:{}", escaped(&text.replace('%', "%25"))),
        _ => format!("hex:{}", hex(&bytes[..bytes.len().min(TEXT_BYTES_MAX)])),
    };
    if form.len() <= TEXT_BYTES_MAX { form } else { format!("sha256:{}", hex(&Sha256::digest(bytes))) }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An event's key: its parts stand with a bar between; null where there is none.
pub fn event(key: &[u8]) -> Cell {
    match key {
        [] => Cell::Null,
        key if key.contains(&0x1f) && !key.contains(&b'|') => {
            let barred: Vec<u8> = key.iter().map(|byte| if *byte == 0x1f { b'|' } else { *byte }).collect();
            match identifier(&barred) {
                text if text.as_bytes() == barred => Cell::Text(text),
                _ => Cell::Text(identifier(key)),
            }
        }
        key => Cell::Text(identifier(key)),
    }
}

fn plain(text: &str) -> String {
    if text.trim().is_empty() { "-".to_string() } else { ascii(&printable(text)) }
}

/// For people: what is no text is shown as U+FFFD, and control characters as spaces.
pub fn readable(bytes: &[u8]) -> String {
    match printable(&String::from_utf8_lossy(bytes)) {
        text if text.trim().is_empty() => identifier(bytes),
        text => text,
    }
}

fn printable(text: &str) -> String {
    cut(text).replace(|c: char| c.is_control(), " ")
}

/// At most `TEXT_BYTES_MAX`, whole characters; a longer text ends in a digest of all of it, so that two stay two.
fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_string();
    }
    let mut end = TEXT_BYTES_MAX - 33;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{}", &text[..end], &hex(&Sha256::digest(text.as_bytes()))[..32])
}

/// A name in printable ASCII, as one validator wants it: other characters become their UTF-8 bytes, as in `Caf%C3%A9`.
pub fn ascii(name: &str) -> String {
    cut(&escaped(cut(name).as_str()))
}

/// Every character that is no printable ASCII as its UTF-8 bytes, each `%` and two hex digits.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        if c == ' ' || c.is_ascii_graphic() {
            text.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}
