//! Who sends: tokens of requests to tenants.
//!
//! In: the headers of a request. Out: the number of its tenant, or nobody. A token stands in `Authorization: Bearer`, as the
//! password of Basic (the user is not looked at), or in `X-Weir-Token`. Only digests are kept and compared, so how long it takes
//! says nothing of a token, and nothing here can show one.

use crate::sources::config::TokenConfig;
use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// The shortest token that is no guess.
const TOKEN_BYTES_MIN: usize = 8;

#[derive(Default)]
pub struct Tokens {
    tenants: Vec<Arc<[u8]>>,
    by_digest: HashMap<[u8; 32], usize>,
}

impl Tokens {
    /// Reads the tokens from where config says they are.
    pub fn read(configs: &[TokenConfig]) -> anyhow::Result<Tokens> {
        let mut tokens = Tokens::default();
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

    /// Tenants that have tokens, each once.
    pub fn tenants(&self) -> &[Arc<[u8]>] {
        &self.tenants
    }

    /// The number of the tenant that a request is from; 0 where there are no tokens.
    pub fn find(&self, headers: &HeaderMap) -> Option<usize> {
        if self.by_digest.is_empty() {
            return Some(0);
        }
        self.by_digest.get(&digest(&token_of(headers)?)).copied()
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
        let mut tokens = Tokens { tenants: vec![b"a"[..].into(), b"b"[..].into()], by_digest: HashMap::new() };
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
}
