//! Who asks, and how much at a time.
//!
//! In: the headers of a request. Out: whose records it may see, and a place among those who ask; or why not. Tokens stand in a
//! file as SHA-256 digests, one a line: `sha256:HEX TENANT`, where the tenant `*` is the operator, who sees all. A token decides
//! alone: nothing in a query widens what it sees. Without a file the port is for whoever reaches it, which is this machine only.
//! Comparing takes the same time whatever the token is. Bounds: [`FILE_BYTES_MAX`] of tokens, `at_a_time` questions, of which one
//! tenant has `at_a_time_per_tenant`, and as many streams of what comes.

use crate::config::QueryConfig;
use anyhow::{Context, bail, ensure};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tracing::warn;

const FILE_BYTES_MAX: u64 = 1 << 20;
const OPERATOR: &str = "*";

/// Whose records somebody may see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Everybody's.
    Operator,
    Tenant(String),
}

impl Asker {
    /// The tenant that answers are confined to: its own, or for the operator the one it names.
    ///
    /// `asked`: what the request names. An error where a tenant names another one.
    pub fn tenant(&self, asked: Option<String>) -> Result<Option<String>, Denied> {
        match self {
            Asker::Operator => Ok(asked),
            Asker::Tenant(own) if asked.as_ref().is_none_or(|asked| asked == own) => Ok(Some(own.clone())),
            Asker::Tenant(_) => Err(Denied::Elsewhere),
        }
    }
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no token, or nobody's.
    Unknown,
    /// It is about somebody else's records.
    Elsewhere,
    /// It needs the operator's token.
    NotOperator,
    /// Too many questions at a time.
    Busy,
}

pub struct Access {
    /// `None`: whoever reaches the port.
    tokens: Option<Mutex<Tokens>>,
    at_a_time: usize,
    at_a_time_per_tenant: usize,
    asking: Asking,
    /// Who reads along does so for days, and takes no place of those who ask.
    following: Asking,
}

/// How many places each has.
type Asking = Arc<Mutex<HashMap<Asker, usize>>>;

struct Tokens {
    path: PathBuf,
    /// When the file was changed that was read last: seconds and nanoseconds.
    read: Option<(i64, i64)>,
    known: Vec<([u8; 32], Asker)>,
}

/// A place among those who ask, given back when it is dropped.
pub struct Place {
    asker: Asker,
    asking: Asking,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut asking = lock(&self.asking);
        if let Some(count) = asking.get_mut(&self.asker) {
            *count -= 1;
            if *count == 0 {
                asking.remove(&self.asker);
            }
        }
    }
}

impl Access {
    /// An error where the file of tokens cannot be used.
    pub fn new(tokens_file: Option<&Path>, query: &QueryConfig) -> anyhow::Result<Access> {
        let tokens = tokens_file.map(|path| {
            let read = modified(path);
            anyhow::Ok(Mutex::new(Tokens { path: path.into(), read, known: read_tokens(path)? }))
        });
        Ok(Access {
            tokens: tokens.transpose()?,
            at_a_time: query.at_a_time as usize,
            at_a_time_per_tenant: query.at_a_time_per_tenant as usize,
            asking: Arc::default(),
            following: Arc::default(),
        })
    }

    /// Who sent these headers.
    pub fn asker(&self, headers: &HeaderMap) -> Result<Asker, Denied> {
        let Some(tokens) = &self.tokens else { return Ok(Asker::Operator) };
        let token = token_of(headers).ok_or(Denied::Unknown)?;
        lock(tokens).refreshed().find(token).ok_or(Denied::Unknown)
    }

    pub fn operator(&self, headers: &HeaderMap) -> Result<(), Denied> {
        if self.asker(headers)? == Asker::Operator { Ok(()) } else { Err(Denied::NotOperator) }
    }

    /// A place for one question; for one that reads along, among those who do.
    pub fn place(&self, asker: &Asker, follows: bool) -> Result<Place, Denied> {
        let places = if follows { &self.following } else { &self.asking };
        let mut asking = lock(places);
        let own = asking.get(asker).copied().unwrap_or(0);
        let all: usize = asking.values().sum();
        let own_max = if *asker == Asker::Operator { self.at_a_time } else { self.at_a_time_per_tenant };
        if all >= self.at_a_time || own >= own_max {
            return Err(Denied::Busy);
        }
        *asking.entry(asker.clone()).or_default() += 1;
        Ok(Place { asker: asker.clone(), asking: Arc::clone(places) })
    }
}

impl Tokens {
    /// Reads the file again where it was changed; one that cannot be read leaves things as they are.
    fn refreshed(&mut self) -> &Tokens {
        let now = modified(&self.path);
        if now != self.read {
            match read_tokens(&self.path) {
                Ok(known) => self.known = known,
                Err(error) => warn!("tokens stay as they were: {error:#}"),
            }
            self.read = now;
        }
        self
    }

    /// Looks at every digest, whichever fits.
    fn find(&self, token: &[u8]) -> Option<Asker> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for (known, asker) in &self.known {
            let difference = known.iter().zip(&digest).fold(0, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(asker);
            }
        }
        found.cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

fn modified(path: &Path) -> Option<(i64, i64)> {
    std::fs::metadata(path).ok().map(|found| (found.mtime(), found.mtime_nsec()))
}

fn read_tokens(path: &Path) -> anyhow::Result<Vec<([u8; 32], Asker)>> {
    let cannot = || format!("cannot read the tokens in {}", path.display());
    let len = std::fs::metadata(path).with_context(cannot)?.len();
    ensure!(len <= FILE_BYTES_MAX, "{} is larger than {FILE_BYTES_MAX} bytes: it is no file of tokens", path.display());
    let text = std::fs::read_to_string(path).with_context(cannot)?;
    let mut known: Vec<([u8; 32], Asker)> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((digest, tenant)) =
            line.split_once(char::is_whitespace).and_then(|(digest, tenant)| Some((digest_of(digest)?, tenant.trim())))
        else {
            bail!(
                "{}:{}: a line is sha256:HEX and a tenant, or sha256:HEX * for the operator; `printf %s TOKEN | sha256sum` gives the HEX",
                path.display(),
                n + 1
            );
        };
        ensure!(known.iter().all(|one| one.0 != digest), "{}:{}: this token stands there twice", path.display(), n + 1);
        known.push((digest, if tenant == OPERATOR { Asker::Operator } else { Asker::Tenant(tenant.to_owned()) }));
    }
    Ok(known)
}

fn digest_of(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix("sha256:")?;
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (i, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(digest)
}

fn token_of(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn line(token: &str, tenant: &str) -> String {
        let hex: String = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex} {tenant}\n")
    }

    fn asks(access: &Access, authorization: Option<&str>) -> Result<Asker, Denied> {
        let mut headers = HeaderMap::new();
        authorization.map(|value| headers.insert(AUTHORIZATION, value.parse().unwrap()));
        access.asker(&headers)
    }

    #[test]
    fn a_token_says_who_asks_and_nothing_else_does() {
        let (_folder, path) = file(&format!("# who\n\n{}{}", line("of-acme", "acme corp"), line("of-ops", "*")));
        let access = Access::new(Some(&path), &QueryConfig::default()).unwrap();
        let acme = Asker::Tenant("acme corp".into());
        for (authorization, want) in [
            (Some("Bearer of-acme"), Ok(acme.clone())),
            (Some("bearer   of-acme "), Ok(acme.clone())),
            (Some("Bearer of-ops"), Ok(Asker::Operator)),
            (Some("Bearer of-acm"), Err(Denied::Unknown)),
            (Some("Bearer"), Err(Denied::Unknown)),
            (Some("Basic of-acme"), Err(Denied::Unknown)),
            (None, Err(Denied::Unknown)),
        ] {
            assert_eq!(asks(&access, authorization), want, "{authorization:?}");
        }
        assert_eq!(acme.tenant(None), Ok(Some("acme corp".into())));
        assert_eq!(acme.tenant(Some("acme corp".into())), Ok(Some("acme corp".into())));
        assert_eq!(acme.tenant(Some("bolt".into())), Err(Denied::Elsewhere));
        assert_eq!(Asker::Operator.tenant(Some("bolt".into())), Ok(Some("bolt".into())));
        assert_eq!(asks(&Access::new(None, &QueryConfig::default()).unwrap(), None), Ok(Asker::Operator));
    }

    #[test]
    fn a_file_that_is_wrong_stops_the_start_and_later_changes_nothing() {
        for bad in ["acme token", "sha256:00 acme", "sha256: acme", &format!("{}{}", line("x", "a"), line("x", "b"))] {
            let (_folder, path) = file(bad);
            assert!(Access::new(Some(&path), &QueryConfig::default()).is_err(), "{bad}");
        }
        let (_folder, path) = file(&line("first", "acme"));
        let access = Access::new(Some(&path), &QueryConfig::default()).unwrap();
        let later = |text: &str, seconds: u64| {
            std::fs::write(&path, text).unwrap();
            let time = std::time::SystemTime::now() + std::time::Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        later("nonsense", 10);
        assert!(asks(&access, Some("Bearer first")).is_ok());
        later(&line("second", "acme"), 20);
        assert_eq!(asks(&access, Some("Bearer first")), Err(Denied::Unknown));
        assert!(asks(&access, Some("Bearer second")).is_ok());
    }

    #[test]
    fn one_tenant_does_not_take_all_places() {
        let config = QueryConfig { at_a_time: 3, at_a_time_per_tenant: 2, ..QueryConfig::default() };
        let access = Access::new(None, &config).unwrap();
        let (acme, bolt) = (Asker::Tenant("acme".into()), Asker::Tenant("bolt".into()));
        let first = access.place(&acme, false).unwrap();
        let _second = access.place(&acme, false).unwrap();
        assert_eq!(access.place(&acme, false).err(), Some(Denied::Busy));
        let _third = access.place(&bolt, false).unwrap();
        assert_eq!(access.place(&bolt, false).err(), Some(Denied::Busy), "three are all there are");
        assert!(access.place(&bolt, true).is_ok(), "who reads along has places of its own");
        drop(first);
        assert!(access.place(&acme, false).is_ok());
    }
}
