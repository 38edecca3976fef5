//! Where files lie that tests read but the repository does not hold.

use std::path::PathBuf;

/// A file or folder below `fluent-bit`; `None`, with a word about it, where it is not there. `WEIR_SHARED` names the folder around.
pub fn fluent_bit(name: &str) -> Option<PathBuf> {
    let around = std::env::var_os("WEIR_SHARED").map(PathBuf::from);
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let path = around.unwrap_or(beside).join("data/fluent-bit").join(name);
    if !path.exists() {
        println!("skipped: {} is not here; WEIR_SHARED names the folder that holds data/fluent-bit", path.display());
        return None;
    }
    Some(path)
}
