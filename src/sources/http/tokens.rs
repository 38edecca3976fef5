//! Who sends: tokens of requests to tenants, or a header that a proxy wrote.
//!
//! In: the headers of a request. Out: the number of its sender, or nobody. Where there are tokens they alone count: a header is never
//! trusted over who has shown one. A token stands in `Authorization: Bearer`, as the
//! password of Basic (the user is not looked at), or in `X-Weir-Token`. Only digests are kept and compared, so how long it takes
//! says nothing of a token, and nothing here can show one.

use crate::sources::config::{TenantHeaderConfig, TokenConfig};
use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flow::labels::clean;
use flow::tenancy::TENANT_BYTES_MAX;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// The shortest token that is no guess.
const TOKEN_BYTES_MIN: usize = 8;

#[derive(Default)]
pub struct Tokens {
    tenants: Vec<Arc<[u8]>>,
    by_digest: HashMap<[u8; 32], usize>,
    header: Option<TenantHeader>,
}

/// A header that names the tenant.
struct TenantHeader {
    name: HeaderName,
    /// Numbers of senders; 0 is who has no header, 1 the overflow.
    by_value: HashMap<String, usize>,
}

/// The number of senders whose header names nobody that is known.
pub const OTHER: usize = 1;

impl Tokens {
    /// Reads the tokens from where config says they are. `header`: where senders stand if there are none.
    pub fn read(configs: &[TokenConfig], header: Option<&TenantHeaderConfig>) -> anyhow::Result<Tokens> {
        let mut tokens = Tokens::default();
        if let Some(header) = header.filter(|_| configs.is_empty()) {
            let name = header.name.parse().with_context(|| format!("tenant_header.name: {:?} is no name of a header", header.name))?;
            tokens.tenants.push(header.overflow.as_bytes().into());
            let mut by_value = HashMap::new();
            for tenant in &header.allow {
                by_value.entry(tenant.clone()).or_insert_with(|| {
                    tokens.tenants.push(tenant.as_bytes().into());
                    tokens.tenants.len()
                });
            }
            tokens.header = Some(TenantHeader { name, by_value });
        }
        for (i, config) in configs.iter().enumerate() {
            let secret = config.secret().with_context(|| format!("tokens[{i}]"))?;
            anyhow::ensure!(
                secret.len() >= TOKEN_BYTES_MIN,
                "tokens[{i}] is shorter than {TOKEN_BYTES_MIN} bytes; a short one can be guessed"
            );
            let tenant: Arc<[u8]> = config.tenant.as_bytes().into();
            let number = tokens.tenants.iter().position(|known| *known == tenant).unwrap_or_else(|| {
                tokens.tenants.push(tenant);
                tokens.tenants.len() - 1
            });
            let before = tokens.by_digest.insert(digest(&secret), number);
            anyhow::ensure!(before.is_none_or(|before| before == number), "tokens[{i}] is the token of another tenant, too");
        }
        Ok(tokens)
    }

    /// Who may send, by number, each once: a tenant, or whom the records say.
    pub fn senders(&self) -> Vec<Option<Arc<[u8]>>> {
        let anybody = self.by_digest.is_empty().then_some(None);
        anybody.into_iter().chain(self.tenants.iter().cloned().map(Some)).collect()
    }

    /// The number of who sent a request.
    pub fn find(&self, headers: &HeaderMap) -> Option<usize> {
        if self.by_digest.is_empty() {
            return Some(self.header.as_ref().map_or(0, |header| header.find(headers)));
        }
        self.by_digest.get(&digest(&token_of(headers)?)).copied()
    }

    /// Whether a sender's header names nobody that is known.
    pub fn is_other(&self, number: usize) -> bool {
        self.header.is_some() && number == OTHER
    }
}

impl TenantHeader {
    fn find(&self, headers: &HeaderMap) -> usize {
        let mut values = headers.get_all(&self.name).iter();
        match (values.next(), values.next()) {
            (None, _) => 0,
            (Some(value), None) => {
                clean(value.as_bytes(), TENANT_BYTES_MAX).ok().and_then(|value| self.by_value.get(value)).copied().unwrap_or(OTHER)
            }
            (Some(_), Some(_)) => OTHER,
        }
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn token_of(headers: &HeaderMap) -> Option<Vec<u8>> {
    if let Some(token) = headers.get("x-weir-token") {
        return Some(token.as_bytes().trim_ascii().to_vec());
    }
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "apikey" => Some(value.trim().as_bytes().to_vec()),
        "basic" => {
            let pair = BASE64_STANDARD.decode(value.trim()).ok()?;
            let colon = memchr::memchr(b':', &pair)?;
            Some(pair[colon + 1..].to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_where_senders_put_it() {
        let mut tokens = Tokens { tenants: vec![b"a"[..].into(), b"b"[..].into()], by_digest: HashMap::new(), header: None };
        tokens.by_digest.extend([(digest(b"token-of-a"), 0), (digest(b"token:of-b"), 1)]);
        let find = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            tokens.find(&headers)
        };
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        for (name, value, want) in [
            ("authorization", "Bearer token-of-a".to_string(), Some(0)),
            ("authorization", "bearer  token-of-a ".to_string(), Some(0)),
            ("authorization", basic("user:token:of-b"), Some(1)),
            ("x-weir-token", "token-of-a".to_string(), Some(0)),
            ("authorization", "Bearer token-of-c".to_string(), None),
            ("authorization", "token-of-a".to_string(), None),
            ("authorization", "Basic %%%".to_string(), None),
            ("cookie", "token-of-a".to_string(), None),
        ] {
            assert_eq!(find(name, &value), want, "{name}: {value}");
        }
        assert_eq!(Tokens::default().find(&HeaderMap::new()), Some(0), "without tokens everybody may send");
    }

    /// EB 5.3.
    #[test]
    fn a_header_names_a_tenant_that_is_known_and_nobody_who_has_a_token() {
        let config = TenantHeaderConfig { name: "X-Scope-OrgID".into(), allow: vec!["a".into(), "b c".into()], overflow: "rest".into() };
        let tokens = Tokens::read(&[], Some(&config)).unwrap();
        let find = |tokens: &Tokens, values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-scope-orgid", hyper::header::HeaderValue::from_bytes(value).unwrap());
            }
            let sender = tokens.senders()[tokens.find(&headers)?].clone();
            Some(sender.map_or("-".to_string(), |tenant| String::from_utf8_lossy(&tenant).into_owned()))
        };
        let long = "a".repeat(TENANT_BYTES_MAX + 1);
        for (value, want) in [("a", "a"), (" \ta  ", "a"), ("b c", "b c"), ("A", "rest"), ("", "rest"), ("a,b c", "rest"), (&long, "rest")]
        {
            assert_eq!(find(&tokens, &[value.as_bytes()]).as_deref(), Some(want), "{value:?}");
        }
        assert_eq!(find(&tokens, &[b"a\xff"]).as_deref(), Some("rest"));
        assert_eq!(find(&tokens, &[b"a", b"a"]).as_deref(), Some("rest"), "twice");
        assert_eq!(find(&tokens, &[]).as_deref(), Some("-"));
        let mut with_tokens = Tokens { tenants: vec![b"z"[..].into()], ..Tokens::default() };
        with_tokens.by_digest.insert(digest(b"token-of-z"), 0);
        assert_eq!(find(&with_tokens, &[b"a"]), None, "a header is no token");
    }
}
