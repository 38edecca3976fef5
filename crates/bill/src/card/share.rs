//! Cost that several tenants cause together: what is divided, by what, and what is idle (rule R12).

use super::{Errors, TERMS_MAX, Version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How the cost of one meter is divided among tenants. The window is the UTC hour: what the origin costs in an hour is divided by
/// what was counted in that hour, to the last 10^-12, and the parts stand in the bill instead of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareConfig {
    /// Its name on charges, as in `gpu-by-sm-time`.
    pub name: String,
    /// The meter whose cost is divided, as in `gpu_held`. It has a price.
    pub origin: String,
    /// Only the origin's usage with these values, as in `{ gpu: A30 }`. The share that names more dimensions counts.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub matches: BTreeMap<String, String>,
    /// The meter whose quantities are the weights: SM time by process, slices held, tokens. It needs no price.
    pub by: String,
    /// Dimensions that must be equal in both, as in `[device]` or `[server]`. Empty: all weights of the hour count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub join: Vec<String>,
    /// Dimensions of the weights that the parts keep beside those of the origin, as in `[service, model]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// What becomes of what nobody used.
    #[serde(default)]
    pub idle: Idle,
    /// What could have been used.
    #[serde(default)]
    pub capacity: Capacity,
    /// Tenant that bears what is idle, as a platform's own overhead. Without it: nobody does, and the row is unallocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_to: Option<String>,
}

/// What becomes of what nobody used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Idle {
    /// A row of its own.
    #[default]
    Separate,
    /// Divided like the rest; a row of its own only where nobody used anything.
    Proportional,
    /// The device is one tenant's alone: whose usage the origin is bears all of it, what was used and what was idle, in two rows.
    Owner,
}

/// What could have been used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capacity {
    /// Nobody knows: the weights are divided among themselves, as tokens are.
    #[default]
    None,
    /// The time the origin was held, so many times: 1 for SM time, the compute slices of a MIG device for slices held (7 on A100,
    /// H100, H200 and B200, 4 on A30). If the weights add up to more, their sum counts.
    Held(u32),
}

/// A checked share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub name: Arc<str>,
    pub origin: String,
    pub matches: Vec<(String, Vec<u8>)>,
    pub by: String,
    pub join: Vec<String>,
    pub keep: Vec<String>,
    pub idle: Idle,
    pub capacity: Capacity,
    pub idle_to: Vec<u8>,
}

/// The most specific first.
pub(super) fn compile_shares(configs: &[ShareConfig], known: Option<&[Version]>, errors: &mut Errors) -> Vec<Share> {
    errors.check_list("shares", "name", configs.iter().map(|config| config.name.as_str()));
    let mut all: Vec<Share> = Vec::new();
    for (index, config) in configs.iter().enumerate().take(TERMS_MAX) {
        let at = format!("shares[{index}]");
        let share = compile_share(config, &at, known, errors);
        if let Some(first) = all.iter().position(|other| equally_specific(other, &share)) {
            errors.add(
                format!("{at}.origin"),
                format!("is divided by shares[{first}] too, equally well"),
                "the share that names more dimensions counts: add one to match, or remove a share",
            );
        }
        if configs.iter().any(|other| other.origin == config.by) {
            errors.add(format!("{at}.by"), format!("is {:?}, which is divided itself", config.by), "weights are metered, not divided");
        }
        all.push(share);
    }
    all.sort_by_key(|share| std::cmp::Reverse(share.matches.len()));
    all
}

fn compile_share(config: &ShareConfig, at: &str, known: Option<&[Version]>, errors: &mut Errors) -> Share {
    errors.check_name(format!("{at}.by"), &config.by);
    if known.is_some_and(|versions| !versions.iter().any(|version| version.prices.contains_key(&config.origin))) {
        errors.add(
            format!("{at}.origin"),
            format!("is {:?}, which has no price", config.origin),
            "what is divided is a cost: name a priced meter",
        );
    }
    for (list, names) in [("join", &config.join), ("keep", &config.keep)] {
        for (number, name) in names.iter().enumerate() {
            errors.check_name(format!("{at}.{list}[{number}]"), name);
            if names[..number].contains(name) || (list == "keep" && config.join.contains(name)) {
                errors.add(format!("{at}.{list}[{number}]"), format!("is {name:?} once more"), "name each dimension once");
            }
        }
    }
    if matches!(config.capacity, Capacity::Held(0)) {
        errors.add(format!("{at}.capacity.held"), "is 0", "a device has at least 1 slice");
    }
    Share {
        name: Arc::from(config.name.as_str()),
        origin: config.origin.clone(),
        matches: config.matches.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect(),
        by: config.by.clone(),
        join: config.join.clone(),
        keep: config.keep.clone(),
        idle: config.idle,
        capacity: config.capacity,
        idle_to: config.idle_to.clone().unwrap_or_default().into_bytes(),
    }
}

fn equally_specific(a: &Share, b: &Share) -> bool {
    let apart = |(name, value): &(String, Vec<u8>)| b.matches.iter().any(|(other, wanted)| other == name && wanted != value);
    a.origin == b.origin && a.matches.len() == b.matches.len() && !a.matches.iter().any(apart)
}
