//! Secrets: read from a file or from the environment, never from a config, never shown.
//!
//! In: where it is. Out: its bytes, without white space at the end; an error names the place and not the secret.

use anyhow::Context;
use std::path::Path;

/// `what`: whose secret it is, for errors.
pub fn read(what: &str, file: Option<&Path>, variable: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let secret = match (file, variable) {
        (Some(path), _) => std::fs::read(path).with_context(|| format!("cannot read {what} from {}", path.display()))?,
        (None, Some(name)) => {
            std::env::var_os(name).with_context(|| format!("the environment has no {name}, {what}"))?.into_encoded_bytes()
        }
        (None, None) => anyhow::bail!("nothing says where {what} is"),
    };
    Ok(secret.trim_ascii_end().to_vec())
}
