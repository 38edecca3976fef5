//! Fluent Bit's files: libraries of parsers, and whole configs as sections.
//!
//! In: the text of a file, and two callbacks that load included files and look up the environment; out: definitions, or sections
//! with their entries, and warnings with file and line. Nothing that cannot be used hides what can: the rest is always read.
//! Bound: [`FILES_MAX`] files, included ones counted; beyond, a warning says so.

mod classic;
mod define;
mod multiline;
mod yaml;

use crate::definition::Definition;
pub use multiline::{MultilineDefinition, MultilineKind, MultilineRule};
use std::collections::HashMap;

/// Names and texts of files, or why there are none.
pub type Loaded = Result<Vec<(String, String)>, String>;

/// How the world outside is reached.
pub struct Sources<'a> {
    /// The files that the first one includes by the second name, which may be a glob.
    pub load: &'a dyn Fn(&str, &str) -> Loaded,
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

/// `[INPUT]`, or one item of `pipeline: inputs:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// In lower case and singular: `input`, `parser`, `multiline_parser`, `service`.
    pub kind: String,
    pub file: String,
    pub line: u32,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it is written. What is nested in YAML has a path: `processors.logs[0].name`; a list of plain values repeats its key.
    pub key: String,
    pub value: String,
    pub line: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub line: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub file: String,
    pub line: u32,
    pub text: String,
    /// What stands there is not used.
    pub left_out: bool,
}

/// What a file of parsers holds, included files too.
#[derive(Clone, Debug, Default)]
pub struct Library {
    pub parsers: Vec<(Definition, Place)>,
    pub multiline: Vec<MultilineDefinition>,
    pub warnings: Vec<Warning>,
}

const FILES_MAX: usize = 1000;

/// Reads a file as sections, in order. YAML if the name says so.
pub fn sections(file: &str, text: &str, sources: &Sources<'_>) -> (Vec<Section>, Vec<Warning>) {
    let mut reading =
        Reading { sources, variables: HashMap::new(), open: Vec::new(), files: 0, sections: Vec::new(), warnings: Vec::new() };
    reading.file(file, text);
    (reading.sections, reading.warnings)
}

/// Reads a file's parsers. Sections of other kinds are passed over.
pub fn library(file: &str, text: &str, sources: &Sources<'_>) -> Library {
    let (sections, warnings) = sections(file, text, sources);
    let mut library = Library { warnings, ..Library::default() };
    for section in &sections {
        match section.kind.as_str() {
            "parser" => library.parser(section),
            "multiline_parser" => library.multiline(section),
            _ => {}
        }
    }
    library
}

impl Library {
    fn parser(&mut self, section: &Section) {
        let Some(definition) = define::parser(section, &mut self.warnings) else { return };
        let first = self.parsers.iter().find(|(known, _)| known.name == definition.name).map(|(_, place)| place.clone());
        match first {
            Some(place) => self.warnings.push(repeated(section, &definition.name, &place)),
            None => self.parsers.push((definition, section.place())),
        }
    }

    fn multiline(&mut self, section: &Section) {
        let Some(definition) = multiline::parser(section, &mut self.warnings) else { return };
        let first = self.multiline.iter().find(|known| known.name == definition.name).map(|known| known.place.clone());
        match first {
            Some(place) => self.warnings.push(repeated(section, &definition.name, &place)),
            None => self.multiline.push(definition),
        }
    }
}

fn repeated(section: &Section, name: &str, first: &Place) -> Warning {
    let text = format!("parser `{name}` is defined already in {}:{}; the first one is used", first.file, first.line);
    section.left_out(section.line, text)
}

impl Section {
    pub fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line }
    }

    /// The first entry of a key, however it is written: `Time_Key`, `time_key` and `timeKey` are one.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        let wanted = plain(key);
        self.entries.iter().find(|entry| plain(&entry.key) == wanted)
    }

    fn warning(&self, line: u32, text: String) -> Warning {
        Warning { file: self.file.clone(), line, text, left_out: false }
    }

    fn left_out(&self, line: u32, text: String) -> Warning {
        Warning { left_out: true, ..self.warning(line, text) }
    }
}

/// A key without what differs between spellings.
fn plain(key: &str) -> String {
    key.chars().filter(|c| *c != '_').collect::<String>().to_ascii_lowercase()
}

/// As Fluent Bit reads switches; anything else is none.
fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// One reading of a file and all it includes.
struct Reading<'a> {
    sources: &'a Sources<'a>,
    /// `@SET` and `env:`.
    variables: HashMap<String, String>,
    /// Files being read, the outermost first.
    open: Vec<String>,
    files: usize,
    sections: Vec<Section>,
    warnings: Vec<Warning>,
}

impl Reading<'_> {
    fn file(&mut self, file: &str, text: &str) {
        self.files += 1;
        self.open.push(file.to_string());
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if file.ends_with(".yaml") || file.ends_with(".yml") {
            yaml::read(self, file, text);
        } else {
            classic::read(self, file, text);
        }
        self.open.pop();
    }

    fn include(&mut self, file: &str, line: u32, name: &str) {
        let loaded = match (self.sources.load)(file, name) {
            Ok(loaded) => loaded,
            Err(reason) => return self.left_out(file, line, format!("cannot include {name}: {reason}")),
        };
        for (inner, text) in loaded {
            if self.open.contains(&inner) {
                self.left_out(file, line, format!("{inner} includes itself"));
            } else if self.files == FILES_MAX {
                self.left_out(file, line, format!("more than {FILES_MAX} files are included"));
            } else {
                self.file(&inner, &text);
            }
        }
    }

    fn warn(&mut self, file: &str, line: u32, text: String) {
        self.warnings.push(Warning { file: file.to_string(), line, text, left_out: false });
    }

    fn left_out(&mut self, file: &str, line: u32, text: String) {
        self.warnings.push(Warning { file: file.to_string(), line, text, left_out: true });
    }

    /// Puts in variables. Only `${NAME}` is one: `${2}` in a pattern counts turns.
    fn expand(&mut self, file: &str, line: u32, value: &str) -> String {
        let mut out = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            match after.split_once('}').filter(|(name, _)| is_variable(name)) {
                Some((name, tail)) => {
                    match self.variables.get(name).cloned().or_else(|| (self.sources.env)(name)) {
                        Some(value) => out.push_str(&value),
                        None => self.warn(file, line, format!("variable {name} is not set: it stands for nothing")),
                    }
                    rest = tail;
                }
                None => {
                    out.push_str("${");
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }
}

fn is_variable(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(is_letter)
}
