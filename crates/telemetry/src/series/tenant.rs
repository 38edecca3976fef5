//! The tenant of a request from a header (EB 5.3).
//!
//! In: who the request was authenticated as, if it was, and the values of the header. Out: the name of the tenant, and what was wrong.
//! An authenticated identity is the tenant, whatever a header says. Blanks around a name are none of it. What is no name (too long,
//! control characters, no UTF-8, beginning with `__`, two headers that differ) or is not on the list is `__other__`: it never makes a new tenant.

use flow::tenancy::TENANT_BYTES_MAX;
use std::collections::BTreeSet;

/// Whom everything belongs to that has no name of its own.
pub const OTHER: &str = "__other__";

#[derive(Clone, Debug)]
pub struct Tenants {
    /// Of a request without a header.
    pub unknown: String,
    /// The only names there may be.
    pub allowed: Option<BTreeSet<String>>,
    /// Longest name, in bytes.
    pub bytes_max: usize,
}

impl Default for Tenants {
    fn default() -> Tenants {
        Tenants { unknown: "unassigned".into(), allowed: None, bytes_max: TENANT_BYTES_MAX }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    TooLong,
    Characters,
    /// A name that only we give.
    Reserved,
    NotAllowed,
    /// Two headers that say different things.
    Ambiguous,
    /// The header names somebody else than the authenticated identity.
    Contradiction,
}

impl Wrong {
    pub fn reason(self) -> &'static str {
        match self {
            Wrong::TooLong => "tenant_too_long",
            Wrong::Characters => "tenant_characters",
            Wrong::Reserved => "tenant_reserved",
            Wrong::NotAllowed => "tenant_not_allowed",
            Wrong::Ambiguous => "tenant_ambiguous",
            Wrong::Contradiction => "tenant_contradicts_identity",
        }
    }
}

impl Tenants {
    /// `headers`: the value of each header of that name.
    pub fn of<'a>(&'a self, identity: Option<&'a str>, headers: &[&'a [u8]]) -> (&'a str, Option<Wrong>) {
        if let Some(identity) = identity {
            let contradicts = headers.iter().any(|header| !header.trim_ascii().is_empty() && header.trim_ascii() != identity.as_bytes());
            return (identity, contradicts.then_some(Wrong::Contradiction));
        }
        let mut given = headers.iter().map(|header| header.trim_ascii()).filter(|header| !header.is_empty());
        let Some(name) = given.next() else { return (&self.unknown, None) };
        if given.any(|other| other != name) {
            return (OTHER, Some(Wrong::Ambiguous));
        }
        match self.judge(name) {
            Ok(name) => (name, None),
            Err(wrong) => (OTHER, Some(wrong)),
        }
    }

    fn judge<'a>(&self, name: &'a [u8]) -> Result<&'a str, Wrong> {
        if name.len() > self.bytes_max {
            return Err(Wrong::TooLong);
        }
        let name = std::str::from_utf8(name).map_err(|_| Wrong::Characters)?;
        match () {
            () if name.chars().any(char::is_control) => Err(Wrong::Characters),
            () if name.starts_with("__") => Err(Wrong::Reserved),
            () if self.allowed.as_ref().is_some_and(|allowed| !allowed.contains(name)) => Err(Wrong::NotAllowed),
            () => Ok(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eb_5_3_a_header_names_a_tenant_only_within_the_rules() {
        let long = "x".repeat(TENANT_BYTES_MAX + 1);
        let open = Tenants::default();
        let listed = Tenants { allowed: Some(["acme", "beta"].map(String::from).into()), ..Tenants::default() };
        for (tenants, identity, headers, want, wrong) in [
            (&open, None, vec![], "unassigned", None),
            (&open, None, vec![" \t"], "unassigned", None),
            (&open, None, vec![" acme\t"], "acme", None),
            (&open, None, vec!["Ä b"], "Ä b", None),
            (&open, None, vec![&long], OTHER, Some(Wrong::TooLong)),
            (&open, None, vec![&long[1..]], &long[1..], None),
            (&open, None, vec!["a\0b"], OTHER, Some(Wrong::Characters)),
            (&open, None, vec!["a\u{85}b"], OTHER, Some(Wrong::Characters)),
            (&open, None, vec!["__other__"], OTHER, Some(Wrong::Reserved)),
            (&open, None, vec!["acme", "beta"], OTHER, Some(Wrong::Ambiguous)),
            (&open, None, vec!["acme", " acme"], "acme", None),
            (&listed, None, vec!["acme"], "acme", None),
            (&listed, None, vec!["Acme"], OTHER, Some(Wrong::NotAllowed)),
            (&open, Some("beta"), vec!["acme"], "beta", Some(Wrong::Contradiction)),
            (&open, Some("beta"), vec![" beta "], "beta", None),
            (&open, Some("beta"), vec![], "beta", None),
        ] {
            let headers: Vec<&[u8]> = headers.iter().map(|header| header.as_bytes()).collect();
            assert_eq!(tenants.of(identity, &headers), (want, wrong), "{headers:?}");
        }
        assert_eq!(open.of(None, &[b"a\xff"]), (OTHER, Some(Wrong::Characters)));
    }
}
