//! Reads what the program stored without its help: archive files by hand, lake files by commit log and pyarrow.
//!
//! In: a data folder. Out: lines by tenant folder, rows by tenant. An archive is told by its `{tenant}/` folders, which all
//! pipelines of these tests use or imply by `{tenant}.log`.

use crate::harness::{files_below, lines};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the only pipeline's archive sink of this name keeps its files.
pub fn archive_folder(data: &Path, sink: &str) -> PathBuf {
    let mut found = std::fs::read_dir(data.join("archive")).expect("an archive").map(|entry| entry.expect("readable").path());
    let folder = found.find(|path| path.extension().is_some_and(|e| e == sink)).unwrap_or_else(|| panic!("no archive of {sink}"));
    folder.join("files")
}

/// The files with records in the folder of an archive sink: plain, `.gz` and `.zst`.
pub fn archive_files(data: &Path, sink: &str) -> Vec<PathBuf> {
    let folder = archive_folder(data, sink);
    let is_ours = |path: &PathBuf| !path.to_string_lossy().ends_with(".tmp");
    files_below(&folder).into_iter().filter(is_ours).map(|path| folder.join(path)).collect()
}

/// The lines of a file, decompressed by its name.
pub fn file_lines(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    lines(&unpacked(path, bytes))
}

fn unpacked(path: &Path, bytes: Vec<u8>) -> Vec<u8> {
    let mut plain = Vec::new();
    match path.extension().and_then(|e| e.to_str()) {
        Some("zst") => zstd::stream::copy_decode(&bytes[..], &mut plain).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        Some("gz") => {
            let mut decoder = flate2::read::MultiGzDecoder::new(&bytes[..]);
            std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        _ => return bytes,
    }
    plain
}

/// Every line of an archive, files in order of their names.
pub fn archive_lines(data: &Path, sink: &str) -> Vec<Vec<u8>> {
    archive_files(data, sink).iter().flat_map(|path| file_lines(path)).collect()
}

/// Records by tenant, from the names of folders or files: `T/...` or `T.log`, `T-STAMP.log.zst`.
pub fn archive_counts(data: &Path, sink: &str, tenants: &[String]) -> BTreeMap<String, u64> {
    let folder = archive_folder(data, sink);
    let mut counts = BTreeMap::new();
    for path in archive_files(data, sink) {
        let name = path.strip_prefix(&folder).expect("below it").to_string_lossy().into_owned();
        // The longest name that fits: no tenant of these tests continues another one's name with a separator.
        let tenant = tenants.iter().filter(|t| name.starts_with(t.as_str())).max_by_key(|t| t.len());
        let tenant = tenant.unwrap_or_else(|| panic!("{name} belongs to no tenant of {tenants:?}"));
        *counts.entry(tenant.clone()).or_default() += file_lines(&path).len() as u64;
    }
    counts
}

/// Commits of a lake.
pub fn commits(lake: &Path) -> usize {
    let names = files_below(&lake.join("_commits"));
    names.iter().filter(|name| name.extension().is_some_and(|e| e == "json")).count()
}

/// The files of a table that commits name, with their tenants.
pub fn lake_files(lake: &Path, table: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for name in files_below(&lake.join("_commits")).iter().filter(|name| name.extension().is_some_and(|e| e == "json")) {
        let commit: Value =
            serde_json::from_slice(&std::fs::read(lake.join("_commits").join(name)).expect("readable")).expect("a commit is JSON");
        for file in commit["commit"]["tables"][table].as_array().into_iter().flatten() {
            let text = |key: &str| file[key].as_str().expect("text").to_string();
            found.push((lake.join(text("path")), text("tenant")));
        }
    }
    found
}

/// A Python with pyarrow, which `tests/run` prepares; `None` where there is none.
pub fn pyarrow() -> Option<String> {
    let prepared = std::env::var("HOME").ok().map(|home| format!("{home}/.cache/weir/python/bin/python"));
    let candidates = [std::env::var("WEIR_PYTHON").ok(), Some("python3".to_string()), prepared];
    candidates.into_iter().flatten().find(|python| crate::harness::works(python, &["-c", "import pyarrow.parquet"]))
}

/// Rows by tenant folder of every committed file of the table, counted by another reader of Parquet from the rows themselves.
pub fn rows_by_pyarrow(python: &str, lake: &Path, table: &str) -> BTreeMap<String, u64> {
    let script =
        "import sys, pyarrow.parquet as pq\nfor path in sys.argv[1:]: print(sum(len(b) for b in pq.ParquetFile(path).iter_batches()))";
    let files = lake_files(lake, table);
    let output = Command::new(python).arg("-c").arg(script).args(files.iter().map(|(path, _)| path)).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut counts = BTreeMap::new();
    for (rows, (_, tenant)) in String::from_utf8_lossy(&output.stdout).lines().zip(&files) {
        *counts.entry(tenant.clone()).or_default() += rows.parse::<u64>().expect("a number");
    }
    counts
}

/// Tells the first file in which two folders differ.
#[track_caller]
pub fn assert_same_trees(a: &Path, b: &Path) {
    let (left, right) = (files_below(a), files_below(b));
    assert!(!left.is_empty(), "{} is empty", a.display());
    assert_eq!(left, right, "names below {} and {}", a.display(), b.display());
    for name in left {
        let same = std::fs::read(a.join(&name)).expect("readable") == std::fs::read(b.join(&name)).expect("readable");
        assert!(same, "{} differs between {} and {}", name.display(), a.display(), b.display());
    }
}
