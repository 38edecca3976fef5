//! Builds the library without a device that tests load, and writes its script.
//!
//! In: a folder for the test. Out: `libnvidia-ml.so` there, which reads `nvml.script` beside it. Each test has a copy of its own, so
//! tests that run side by side do not share what the library remembers. The compiler runs once; a function is taken away by
//! changing its name in the copy.
#![allow(dead_code, reason = "some who include this need only a part of it")]

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const SOURCE: &str = include_str!("../../../../tests/data/nvml_stub.rs");
static BUILDING: Mutex<()> = Mutex::new(());

/// Builds the library into `folder`, without the functions that `without` names.
pub fn build(folder: &Path, without: &[&str]) -> PathBuf {
    let mut library = std::fs::read(compiled()).expect("the library can be read");
    for name in without {
        take_away(&mut library, name);
    }
    let path = folder.join("libnvidia-ml.so");
    std::fs::write(&path, library).expect("the library can be written");
    path
}

/// Replaces the script of a folder as a whole.
pub fn script(folder: &Path, text: &str) {
    let next = folder.join("nvml.script.next");
    std::fs::write(&next, text).expect("the script can be written");
    std::fs::rename(next, folder.join("nvml.script")).expect("the script can be replaced");
}

/// Names a function otherwise. The table of hashes still leads to its place, and there stands another name: it is not found.
fn take_away(library: &mut [u8], name: &str) {
    let whole: Vec<u8> = [&[0], name.as_bytes(), &[0]].concat();
    let places: Vec<usize> = (0..library.len() - whole.len()).filter(|at| library[*at..].starts_with(&whole)).collect();
    assert!(!places.is_empty(), "the library has no {name}");
    for at in places {
        library[at + 1] = b'x';
    }
}

/// The compiled library, kept beside what cargo built.
fn compiled() -> PathBuf {
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("nvml-stub-{:016x}.so", hasher.finish()));
    if path.exists() {
        return path;
    }
    std::fs::create_dir_all(&folder).expect("the folder of cargo can be made");
    let mine = folder.join(format!("nvml-stub-{}", std::process::id()));
    let source = mine.with_extension("rs");
    std::fs::write(&source, SOURCE).expect("the source can be written");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition=2024", "--crate-type=cdylib", "--crate-name=nvml_stub", "-Copt-level=2", "-Cpanic=abort", "-o"]);
    command.arg(&mine).arg(&source);
    let output = command.output().expect("rustc can be run");
    assert!(output.status.success(), "the library does not compile:\n{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&mine, &path).expect("the library can be named");
    std::fs::remove_file(source).expect("the source was there");
    path
}
