//! The columns of FOCUS 1.2 and 1.4: name, type, nulls, presence, and where a row has the value from.
//!
//! FOCUS columns stand in the order of their names, ours (`x_`) behind all of them. Sources: the 1.2 model; for 1.4 the
//! dataset pages of the specification's repository. Not written, but known to the checker: capacity reservations and
//! commitment program eligibility, which weir has no notion of.

use super::rows::Facts;
use super::{Cell, Profile};

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `DECIMAL(38,12)`.
    Decimal,
    /// 64 bits, signed.
    Integer,
    Text,
    /// UTC, whole seconds.
    Time,
    /// A JSON object as text.
    Json,
}

/// Must the column be there?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Mandatory,
    /// Where the thing exists that it tells of.
    Conditional,
    /// Ours, named `x_`.
    Custom,
}

/// A column of a profile.
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub is_nullable: bool,
    pub level: Level,
    in_1_2: bool,
    in_1_4: bool,
    pub(super) value: Option<fn(&Facts) -> Cell>,
}

impl Column {
    pub fn is_in(&self, profile: Profile) -> bool {
        match profile {
            Profile::V1_2 => self.in_1_2,
            Profile::V1_4 => self.in_1_4,
        }
    }
}

/// Columns that are written, in their order.
pub fn written(profile: Profile) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(move |column| column.is_in(profile) && column.value.is_some())
}

/// A FOCUS column by name, of any version; none of ours.
pub fn focus(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name && column.level != Level::Custom)
}

/// One of ours by name.
pub fn custom(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name && column.level == Level::Custom)
}

/// All columns of a version that are FOCUS's.
pub fn of(profile: Profile) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(move |column| column.is_in(profile) && column.level != Level::Custom)
}

const BOTH: (bool, bool) = (true, true);
const OLD: (bool, bool) = (true, false);
const NEW: (bool, bool) = (false, true);
const NULL: bool = true;
const FULL: bool = false;

type Value = fn(&Facts) -> Cell;

const fn column(name: &'static str, kind: Kind, is_nullable: bool, level: Level, (in_1_2, in_1_4): (bool, bool), value: Value) -> Column {
    Column { name, kind, is_nullable, level, in_1_2, in_1_4, value: Some(value) }
}

/// A column that is known and not written.
const fn known(name: &'static str, kind: Kind, versions: (bool, bool)) -> Column {
    Column { name, kind, is_nullable: NULL, level: Level::Conditional, in_1_2: versions.0, in_1_4: versions.1, value: None }
}

use Kind::{Decimal, Integer, Json, Text, Time};
use Level::{Conditional, Custom, Mandatory};

#[rustfmt::skip]
static COLUMNS: [Column; 94] = [
    column("AllocatedMethodDetails", Json, NULL, Conditional, NEW, |f| f.allocated_details()),
    column("AllocatedMethodId", Text, NULL, Conditional, NEW, |f| f.allocated_method()),
    column("AllocatedResourceId", Text, NULL, Conditional, NEW, |f| f.allocated_resource()),
    column("AllocatedResourceName", Text, NULL, Conditional, NEW, |f| f.allocated_resource_name()),
    column("AllocatedTags", Json, NULL, Conditional, NEW, |_| Cell::Null),
    column("AvailabilityZone", Text, NULL, Conditional, BOTH, |_| Cell::Null),
    column("BilledCost", Decimal, FULL, Mandatory, BOTH, |f| f.billed.into()),
    column("BillingAccountId", Text, FULL, Mandatory, BOTH, |f| f.plain(&f.info.billing_account.id)),
    column("BillingAccountName", Text, NULL, Mandatory, BOTH, |f| f.plain(&f.info.billing_account.name)),
    column("BillingAccountType", Text, FULL, Conditional, BOTH, |f| f.plain(&f.info.billing_account.kind)),
    column("BillingCurrency", Text, FULL, Mandatory, BOTH, |f| f.plain(f.currency)),
    column("BillingPeriodEnd", Time, FULL, Mandatory, BOTH, |f| Cell::Time(f.input.billing_period.1)),
    column("BillingPeriodStart", Time, FULL, Mandatory, BOTH, |f| Cell::Time(f.input.billing_period.0)),
    known("CapacityReservationId", Text, BOTH),
    known("CapacityReservationStatus", Text, BOTH),
    column("ChargeCategory", Text, FULL, Mandatory, BOTH, |f| f.category()),
    column("ChargeClass", Text, NULL, Mandatory, BOTH, |f| f.class()),
    column("ChargeDescription", Text, NULL, Mandatory, BOTH, |f| f.description()),
    column("ChargeFrequency", Text, FULL, Conditional, BOTH, |f| f.frequency()),
    column("ChargePeriodEnd", Time, FULL, Mandatory, BOTH, |f| Cell::Time(f.charge.end)),
    column("ChargePeriodStart", Time, FULL, Mandatory, BOTH, |f| Cell::Time(f.charge.hour)),
    column("CommitmentDiscountCategory", Text, NULL, Conditional, BOTH, |f| f.commitment(|_| "Usage".into())),
    column("CommitmentDiscountId", Text, NULL, Conditional, BOTH, |f| f.commitment(|name| name.to_string())),
    column("CommitmentDiscountName", Text, NULL, Conditional, BOTH, |f| f.commitment(|name| name.to_string())),
    column("CommitmentDiscountQuantity", Decimal, NULL, Conditional, BOTH, |f| f.commitment_quantity()),
    column("CommitmentDiscountStatus", Text, NULL, Conditional, BOTH, |f| f.commitment_status()),
    column("CommitmentDiscountType", Text, NULL, Conditional, BOTH, |f| f.commitment(|_| "Committed Use".into())),
    column("CommitmentDiscountUnit", Text, NULL, Conditional, BOTH, |f| f.commitment(|_| f.pricing_unit())),
    known("CommitmentProgramEligibilityDetails", Json, NEW),
    column("ConsumedQuantity", Decimal, NULL, Conditional, BOTH, |f| f.consumed.into()),
    column("ConsumedUnit", Text, NULL, Conditional, BOTH, |f| f.consumed_unit()),
    column("ContractApplied", Json, NULL, Conditional, NEW, |f| f.contract_applied()),
    column("ContractedCost", Decimal, FULL, Mandatory, BOTH, |f| f.contracted.into()),
    column("ContractedUnitPrice", Decimal, NULL, Conditional, BOTH, |f| f.contracted_price.into()),
    column("EffectiveCost", Decimal, FULL, Mandatory, BOTH, |f| f.effective.into()),
    column("HostProviderName", Text, FULL, Mandatory, NEW, |f| f.plain(f.info.host.as_ref().unwrap_or(&f.info.provider))),
    column("InvoiceDetailId", Text, NULL, Conditional, NEW, |f| f.invoice_detail()),
    column("InvoiceId", Text, NULL, Conditional, BOTH, |f| f.invoice()),
    column("InvoiceIssuerName", Text, FULL, Mandatory, BOTH, |f| f.plain(&f.info.provider)),
    column("ListCost", Decimal, FULL, Mandatory, BOTH, |f| f.list.into()),
    column("ListUnitPrice", Decimal, NULL, Conditional, BOTH, |f| f.list_price.into()),
    column("PricingCategory", Text, NULL, Conditional, BOTH, |f| f.pricing_category()),
    column("PricingCurrency", Text, FULL, Conditional, BOTH, |f| f.plain(f.pricing_currency())),
    column("PricingCurrencyContractedUnitPrice", Decimal, NULL, Conditional, BOTH, |f| f.charge.contracted_price.into()),
    column("PricingCurrencyEffectiveCost", Decimal, FULL, Conditional, BOTH, |f| f.effective_in_pricing_currency.into()),
    column("PricingCurrencyListUnitPrice", Decimal, NULL, Conditional, BOTH, |f| f.charge.price.into()),
    column("PricingQuantity", Decimal, NULL, Mandatory, BOTH, |f| f.pricing_quantity.into()),
    column("PricingUnit", Text, NULL, Mandatory, BOTH, |f| Cell::Text(f.pricing_unit())),
    column("ProviderName", Text, FULL, Mandatory, OLD, |f| f.plain(&f.info.provider)),
    column("PublisherName", Text, FULL, Mandatory, OLD, |f| f.plain(f.info.publisher.as_ref().unwrap_or(&f.info.provider))),
    column("RegionId", Text, NULL, Conditional, BOTH, |f| Cell::Text(f.region())),
    column("RegionName", Text, NULL, Conditional, BOTH, |f| f.region_name()),
    column("ResourceId", Text, NULL, Conditional, BOTH, |f| f.resource(|name, _| super::rows::identifier(name))),
    column("ResourceName", Text, NULL, Conditional, BOTH, |f| f.resource(|name, _| super::rows::ascii(&super::rows::readable(name)))),
    column("ResourceType", Text, NULL, Conditional, BOTH, |f| f.resource(|_, kind| kind.to_string())),
    column("ServiceCategory", Text, FULL, Mandatory, BOTH, |f| f.plain(f.service.category)),
    column("ServiceName", Text, FULL, Mandatory, BOTH, |f| f.plain(f.service.name)),
    column("ServiceProviderName", Text, FULL, Mandatory, NEW, |f| f.plain(&f.info.provider)),
    column("ServiceSubcategory", Text, FULL, Conditional, BOTH, |f| f.plain(f.service.subcategory)),
    column("SkuId", Text, NULL, Conditional, BOTH, |f| f.plain(&f.charge.sku)),
    column("SkuMeter", Text, NULL, Conditional, BOTH, |f| f.meter()),
    column("SkuPriceDetails", Json, NULL, Conditional, BOTH, |f| f.details()),
    column("SkuPriceId", Text, NULL, Conditional, BOTH, |f| f.plain(&f.charge.sku_price_id())),
    column("SubAccountId", Text, NULL, Conditional, BOTH, |f| f.tenant(|id, _| id.to_string())),
    column("SubAccountName", Text, NULL, Conditional, BOTH, |f| f.tenant(|_, name| super::rows::ascii(name))),
    column("SubAccountType", Text, NULL, Conditional, BOTH, |f| f.tenant(|_, _| f.info.sub_account_type.clone())),
    column("Tags", Json, NULL, Conditional, BOTH, |f| f.tags()),
    column("x_AllocatedMethodId", Text, NULL, Custom, OLD, |f| f.allocated_method()),
    column("x_AllocatedRatio", Decimal, NULL, Custom, BOTH, |f| f.part.map(|part| part.ratio).into()),
    column("x_AllocatedResourceId", Text, NULL, Custom, OLD, |f| f.allocated_resource()),
    column("x_AllocatedUsageQuantity", Decimal, NULL, Custom, OLD, |f| f.allocated_weight()),
    column("x_AllocatedUsageUnit", Text, NULL, Custom, OLD, |f| f.allocated_unit()),
    column("x_AttributionStatus", Text, FULL, Custom, BOTH, |f| f.plain(f.charge.attribution())),
    column("x_EventCount", Integer, FULL, Custom, BOTH, |f| Cell::Integer(i64::try_from(f.charge.events).unwrap_or(i64::MAX))),
    column("x_ExchangeRate", Decimal, FULL, Custom, BOTH, |f| f.exchange_rate()),
    column("x_FirstEventId", Text, NULL, Custom, BOTH, |f| super::rows::event(&f.charge.first_event)),
    column("x_IsReversal", Integer, FULL, Custom, BOTH, |f| Cell::Integer(i64::from(f.input.is_reversal))),
    column("x_LastEventId", Text, NULL, Custom, BOTH, |f| super::rows::event(&f.charge.last_event)),
    column("x_LineageJob", Text, NULL, Custom, BOTH, |f| f.lineage_job()),
    column("x_LineageRunId", Text, NULL, Custom, BOTH, |f| f.input.lineage_run.map_or(Cell::Null, |run| f.plain(run))),
    column("x_Meter", Text, FULL, Custom, BOTH, |f| f.meter()),
    column("x_MeteredQuantity", Decimal, FULL, Custom, BOTH, |f| f.metered.into()),
    column("x_MeteredUnit", Text, FULL, Custom, BOTH, |f| f.plain(if f.charge.series.unit.is_empty() { "Units" } else { &f.charge.series.unit })),
    column("x_OriginEffectiveCost", Decimal, NULL, Custom, BOTH, |f| f.part.map(|part| part.origin_effective).into()),
    column("x_OriginId", Text, NULL, Custom, BOTH, |f| f.part.map_or(Cell::Null, |part| Cell::Text(part.origin_id()))),
    column("x_OriginListCost", Decimal, NULL, Custom, BOTH, |f| f.part.map(|part| part.origin_list).into()),
    column("x_OriginPricingQuantity", Decimal, NULL, Custom, BOTH, |f| f.part.map(|part| part.origin_quantity).into()),
    column("x_PriceVersion", Text, FULL, Custom, BOTH, |f| f.plain(&f.charge.version)),
    column("x_RateCardDigest", Text, FULL, Custom, BOTH, |f| f.plain(&f.charge.card)),
    column("x_Revision", Integer, FULL, Custom, BOTH, |f| Cell::Integer(i64::from(f.input.revision))),
    column("x_RoundingResidue", Decimal, NULL, Custom, BOTH, |f| f.residue.into()),
    column("x_RowId", Text, NULL, Custom, BOTH, |f| f.input.row_id.map_or(Cell::Null, |id| f.plain(id))),
    column("x_SubAccountNameUtf8", Text, NULL, Custom, BOTH, |f| f.tenant(|_, name| name.to_string())),
    column("x_Tier", Integer, NULL, Custom, BOTH, |f| if f.charge.tier == 0 { Cell::Null } else { Cell::Integer(i64::from(f.charge.tier)) }),
];
