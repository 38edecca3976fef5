//! Files of Fluent Bit as they lie on disk: libraries of parsers and main configurations, with what they include.
//!
//! In: paths. Out: definitions or sections, and warnings with file and line. Bound: a file has at most [`TEXT_BYTES_MAX`]; how many
//! are included is bounded by the reader.

use parse::fluent::{self, Library, Section, Sources, Warning};
use std::path::Path;

const TEXT_BYTES_MAX: u64 = 4 << 20;

/// Reads a library of parsers. An error says why the file cannot be read.
pub fn read(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Library, String> {
    let text = text(path)?;
    Ok(fluent::library(&path.display().to_string(), &text, &Sources { load: &included, env }))
}

/// Reads a file as sections.
pub fn sections(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<(Vec<Section>, Vec<Warning>), String> {
    let text = text(path)?;
    Ok(fluent::sections(&path.display().to_string(), &text, &Sources { load: &included, env }))
}

/// Adds what one library has beyond another; of parsers of one name the first counts.
pub fn merge(all: &mut Library, more: Library) {
    for (definition, place) in more.parsers {
        match all.parsers.iter().find(|(known, _)| known.name == definition.name) {
            Some((_, first)) => {
                let text =
                    format!("parser `{}` is defined already in {}:{}; the first one is used", definition.name, first.file, first.line);
                all.warnings.push(Warning { file: place.file, line: place.line, text, left_out: true });
            }
            None => all.parsers.push((definition, place)),
        }
    }
    for definition in more.multiline {
        if !all.multiline.iter().any(|known| known.name == definition.name) {
            all.multiline.push(definition);
        }
    }
    all.warnings.extend(more.warnings);
}

fn text(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is no file".into());
    }
    if meta.len() > TEXT_BYTES_MAX {
        return Err(format!("it has {} bytes; {TEXT_BYTES_MAX} are read", meta.len()));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The files that `file` includes as `name`, in order of their names.
fn included(file: &str, name: &str) -> Result<Vec<(String, String)>, String> {
    let pattern = Path::new(file).parent().unwrap_or(Path::new("")).join(name).display().to_string();
    let mut found = Vec::new();
    for path in glob::glob(&pattern).map_err(|error| error.to_string())? {
        let path = path.map_err(|error| error.to_string())?;
        found.push((path.display().to_string(), text(&path)?));
    }
    if found.is_empty() { Err("there is no such file".into()) } else { Ok(found) }
}
