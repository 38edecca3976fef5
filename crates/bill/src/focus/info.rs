//! Who bills whom, and what FOCUS calls the things that are sold.
//!
//! Every field has a default, so that a card without a `focus` section exports rows that pass. `mistakes` says what is
//! wrong with what somebody wrote.

use super::lists;
use crate::charge::{Category, Charge};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names for the export to FOCUS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FocusInfo {
    /// Who provides the services and issues the invoice: ProviderName, ServiceProviderName and InvoiceIssuerName. One name, as FOCUS wants a billed cost of 0 where somebody else is paid.
    pub provider: String,
    /// PublisherName; without it the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// On whose hardware the services run: HostProviderName of FOCUS 1.4; without it the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The account that pays.
    pub billing_account: BillingAccount,
    /// What a tenant is called: SubAccountType.
    pub sub_account_type: String,
    /// Display names of tenants, by tenant: SubAccountName. Without one the tenant itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, String>,
    /// Dimension that names the region of a charge.
    pub region_dim: String,
    /// Region of charges without that dimension.
    pub region: String,
    /// Display names of regions, by id: RegionName. Without one the id itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub regions: BTreeMap<String, String>,
    /// Dimensions that name what was used, the first that has a value counts: ResourceId, ResourceName and ResourceType.
    pub resources: Vec<ResourceDim>,
    /// What every tag's key begins with, as in `acme/`.
    pub tag_prefix: String,
    /// Dimensions that become tags; without it all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Dimensions that become properties of the SKU price, and their keys in SkuPriceDetails, as `model: x_ModelId`.
    pub sku_dims: BTreeMap<String, String>,
    /// Services by SKU, or by meter. A thing that is not listed is told by its names and units: tokens are Generative AI, GPUs are Compute ...
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, ServiceInfo>,
    /// Namespace of jobs in `x_LineageJob`, as in OpenLineage.
    pub lineage_namespace: String,
    /// Dimension that names the job.
    pub lineage_dim: String,
    /// Whom an invoice is for.
    pub invoice_per: InvoicePer,
}

/// The account that pays: BillingAccountId, BillingAccountName, BillingAccountType.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BillingAccount {
    /// Identifier, as in `acme-2026`.
    pub id: String,
    /// Display name.
    pub name: String,
    /// What kind of account it is.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A dimension that names a resource.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceDim {
    /// Name of the dimension.
    pub dim: String,
    /// ResourceType of what it names, as in `GPU`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// What FOCUS calls a thing that is sold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceInfo {
    /// ServiceName. A name has one category; things of different categories need different names.
    pub name: String,
    /// ServiceCategory of FOCUS 1.2, as in `Compute`.
    pub category: String,
    /// ServiceSubcategory of that category, as in `Other (Compute)`.
    pub subcategory: String,
    /// Properties of its price for SkuPriceDetails: keys of FOCUS as they are (`GpuCount: "1"`), others begin with `x_`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// Whom an invoice is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvoicePer {
    /// One invoice a month for the billing account.
    #[default]
    Account,
    /// One invoice a month for each tenant.
    Tenant,
}

impl Default for FocusInfo {
    fn default() -> FocusInfo {
        let resource = |dim: &str, kind: &str| ResourceDim { dim: dim.into(), kind: kind.into() };
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        FocusInfo {
            provider: "weir".into(),
            publisher: None,
            host: None,
            billing_account: BillingAccount::default(),
            sub_account_type: "Tenant".into(),
            tenants: BTreeMap::new(),
            region_dim: "region".into(),
            region: "global".into(),
            regions: BTreeMap::new(),
            resources: vec![
                resource("service", "Service"),
                resource("server", "Server"),
                resource("device", "GPU"),
                resource("gpu", "GPU"),
                resource("uuid", "GPU"),
            ],
            tag_prefix: "weir/".into(),
            tags: None,
            sku_dims: pairs(&[("model", "x_ModelId"), ("gpu_model", "x_GpuModel"), ("mig_profile", "x_MigProfile")]),
            services: BTreeMap::new(),
            lineage_namespace: "weir".into(),
            lineage_dim: "service".into(),
            invoice_per: InvoicePer::Account,
        }
    }
}

impl Default for BillingAccount {
    fn default() -> BillingAccount {
        BillingAccount { id: "default".into(), name: "Default billing account".into(), kind: "Billing Account".into() }
    }
}

/// Services of things that nobody described: name, category, subcategory.
const DEFAULTS: [(&str, &str, &str); 7] = [
    ("Model Inference", "AI and Machine Learning", "Generative AI"),
    ("GPU Time", "Compute", "Other (Compute)"),
    ("Storage", "Storage", "Other (Storage)"),
    ("Data Transfer", "Networking", "Other (Networking)"),
    ("Log Management", "Management and Governance", "Observability"),
    ("CPU and Memory", "Compute", "Other (Compute)"),
    ("Other Usage", "Other", "Other (Other)"),
];

/// A service as a row names it.
pub(super) struct Service<'a> {
    pub name: &'a str,
    pub category: &'a str,
    pub subcategory: &'a str,
    pub details: Option<&'a BTreeMap<String, String>>,
}

impl FocusInfo {
    /// What a charge is for: as its SKU is described, else as its meter is, else by names and units.
    pub(super) fn service(&self, charge: &Charge) -> Service<'_> {
        if let Some(info) = self.services.get(&charge.sku).or_else(|| self.services.get(&charge.series.meter)) {
            return Service { name: &info.name, category: &info.category, subcategory: &info.subcategory, details: Some(&info.details) };
        }
        let (name, category, subcategory) = DEFAULTS[guess(charge)];
        Service { name, category, subcategory, details: None }
    }

    /// Name of the invoice for a month, or of a tenant's where each has one; the tenant as in SubAccountId.
    pub fn invoice_id(&self, year: i32, month: u32, tenant: &[u8]) -> String {
        let account = super::rows::identifier(self.billing_account.id.as_bytes());
        match self.invoice_per {
            InvoicePer::Account => format!("{account}-{year:04}-{month:02}"),
            InvoicePer::Tenant => format!("{account}-{year:04}-{month:02}/{}", super::rows::identifier(tenant)),
        }
    }

    /// Every mistake: where (as in `services.gpu.category`), what, and the way out.
    pub fn mistakes(&self) -> Vec<(String, String, String)> {
        let mut found = Vec::new();
        let mut add = |path: String, what: String, help: &str| found.push((path, what, help.to_string()));
        let names = [
            ("provider", Some(&self.provider)),
            ("publisher", self.publisher.as_ref()),
            ("host", self.host.as_ref()),
            ("billing_account.id", Some(&self.billing_account.id)),
            ("billing_account.name", Some(&self.billing_account.name)),
            ("billing_account.type", Some(&self.billing_account.kind)),
            ("sub_account_type", Some(&self.sub_account_type)),
            ("region", Some(&self.region)),
            ("lineage_namespace", Some(&self.lineage_namespace)),
        ];
        for (path, name) in names.into_iter().filter_map(|(path, name)| Some((path, name?))) {
            if !is_plain(name) {
                add(path.into(), format!("is {name:?}"), "write 1 to 200 printable ASCII characters");
            }
        }
        for (path, names) in [("tenants", &self.tenants), ("regions", &self.regions)] {
            for (key, name) in names {
                if name.trim().is_empty() || name.chars().any(char::is_control) || name.len() > NAME_BYTES_MAX {
                    add(format!("{path}.{key}"), format!("is {name:?}"), "write 1 to 200 printable characters");
                }
            }
        }
        for (index, resource) in self.resources.iter().enumerate() {
            if !is_plain(&resource.kind) {
                let path = format!("resources[{index}].type");
                add(path, format!("is {:?}", resource.kind), "write 1 to 200 printable ASCII characters");
            }
        }
        if !is_plain(&self.tag_prefix) || !self.tag_prefix.ends_with('/') || self.tag_prefix.len() < 2 {
            add("tag_prefix".into(), format!("is {:?}", self.tag_prefix), "a prefix is a word and a slash, as in acme/");
        }
        let mut keys = std::collections::BTreeSet::new();
        for (dim, key) in &self.sku_dims {
            if lists::focus_detail(key) != Some(false) && !lists::is_custom_name(key) {
                add(format!("sku_dims.{dim}"), format!("is {key:?}"), "a key that FOCUS does not define begins with x_, as in x_ModelId");
            }
            if !keys.insert(key) {
                add(format!("sku_dims.{dim}"), format!("is {key:?}, as is another dimension's"), "give each dimension a key of its own");
            }
        }
        let mut categories: BTreeMap<&str, (&str, &str)> = DEFAULTS.iter().map(|(n, c, s)| (*n, (*c, *s))).collect();
        for (key, service) in &self.services {
            let path = format!("services.{key}");
            if !is_plain(&service.name) {
                add(format!("{path}.name"), format!("is {:?}", service.name), "write 1 to 200 printable ASCII characters");
            }
            if !lists::is_category(&service.category) {
                add(format!("{path}.category"), format!("is {:?}", service.category), "take a ServiceCategory of FOCUS 1.2, as in Compute");
            } else if !lists::is_subcategory_of(&service.subcategory, &service.category) {
                let what = format!("is {:?}, which is not of {:?}", service.subcategory, service.category);
                let help = format!("take a ServiceSubcategory of that category, as in Other ({})", service.category);
                add(format!("{path}.subcategory"), what, &help);
            }
            let own = (service.category.as_str(), service.subcategory.as_str());
            let known = categories.entry(&service.name).or_insert(own);
            if *known != own {
                let what = format!("is {:?}, which is also used for {}, {}", service.name, known.0, known.1);
                add(format!("{path}.name"), what, "a ServiceName has one category and one subcategory; take another name");
            }
            for (detail, value) in &service.details {
                let path = format!("{path}.details.{detail}");
                match lists::focus_detail(detail) {
                    None if !lists::is_custom_name(detail) => {
                        add(path, "is no key".into(), "a key that FOCUS does not define begins with x_, as in x_ModelId");
                    }
                    Some(true) if !is_json_number(value) => add(path, format!("is {value:?}"), "write a number, as in 1"),
                    _ => {}
                }
            }
        }
        found
    }
}

const NAME_BYTES_MAX: usize = 200;

fn is_plain(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(|b| (0x20..0x7f).contains(&b))
}

pub(super) fn is_json_number(text: &str) -> bool {
    matches!(super::json::Json::parse(text), Ok(super::json::Json::Number(_))) && text.trim() == text
}

/// Which of `DEFAULTS` a charge is, by the words in its SKU, meter and unit. The same SKU price always gives the same.
fn guess(charge: &Charge) -> usize {
    let names = format!("{} {}", charge.sku, charge.series.meter).to_ascii_lowercase();
    let unit = charge.unit.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| names.contains(word));
    let is_size = ["b", "kb", "mb", "gb", "tb", "pb", "kib", "mib", "gib", "tib", "pib"].contains(&unit.as_str()) || unit.contains("byte");
    match () {
        _ if unit.contains("token") || has(&["token"]) => 0,
        _ if has(&["gpu", "mig-", "mig_", "h100", "h200", "a100", "b200"]) || unit.contains("gpu") => 1,
        _ if has(&["storage", "disk", "volume", "archive"]) || unit.ends_with("-months") => 2,
        _ if has(&["network", "egress", "ingress", "transfer", "traffic"]) => 3,
        _ if has(&["cpu", "memory", "core"]) => 5,
        _ if is_size || has(&["log", "line", "metric", "trace"]) => 4,
        _ if charge.category == Category::Purchase => 6,
        _ => 6,
    }
}
