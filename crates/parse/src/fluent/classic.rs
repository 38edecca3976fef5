//! Fluent Bit's classic format: `[SECTION]` and indented `key value`.
//!
//! The separator is a blank, never a tab; `#` begins a comment only at a line's start. What the original refuses but can be
//! understood (an indented header, an entry that is not indented like its neighbours) is read, with a warning.

use super::{Entry, Reading, Section};

pub(super) fn read(reading: &mut Reading<'_>, file: &str, text: &str) {
    let mut classic = Classic { reading, file, current: None, indent: None };
    for (index, line) in text.lines().enumerate() {
        classic.line(line.trim_end_matches('\r'), index as u32 + 1);
    }
    classic.finish();
}

struct Classic<'a, 'r> {
    reading: &'a mut Reading<'r>,
    file: &'a str,
    current: Option<Section>,
    /// How the entries of this section are indented.
    indent: Option<String>,
}

impl Classic<'_, '_> {
    fn line(&mut self, line: &str, number: u32) {
        let content = line.trim_start_matches([' ', '\t']);
        let indent = &line[..line.len() - content.len()];
        let content = content.trim_end();
        match content.chars().next() {
            None | Some('#') => {}
            Some('@') => self.command(content, number),
            Some('[') => self.header(content, indent, number),
            Some(_) => self.entry(content, indent, number),
        }
    }

    fn warn(&mut self, number: u32, text: &str) {
        self.reading.warn(self.file, number, text.to_string());
    }

    fn left_out(&mut self, number: u32, text: String) {
        self.reading.left_out(self.file, number, text);
    }

    fn finish(&mut self) {
        self.reading.sections.extend(self.current.take());
        self.indent = None;
    }

    fn command(&mut self, content: &str, number: u32) {
        let (name, value) = content.split_once(' ').unwrap_or((content, ""));
        let value = value.trim();
        match name.to_ascii_uppercase().as_str() {
            "@INCLUDE" => {
                let name = self.reading.expand(self.file, number, value);
                self.finish();
                self.reading.include(self.file, number, &name);
            }
            "@SET" => match value.split_once('=') {
                Some((key, value)) => {
                    let value = self.reading.expand(self.file, number, value.trim());
                    self.reading.variables.insert(key.trim().to_string(), value);
                }
                None => self.left_out(number, "@SET needs name=value".to_string()),
            },
            _ => self.left_out(number, format!("command {name} is not known")),
        }
    }

    fn header(&mut self, content: &str, indent: &str, number: u32) {
        self.finish();
        let Some(kind) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
            return self.left_out(number, "this section's name has no `]`".to_string());
        };
        if !indent.is_empty() {
            self.warn(number, "this section's name is indented, which Fluent Bit refuses; it is read all the same");
        }
        let kind = kind.trim().to_ascii_lowercase();
        self.current = Some(Section { kind, file: self.file.to_string(), line: number, entries: Vec::new() });
    }

    fn entry(&mut self, content: &str, indent: &str, number: u32) {
        let Some((key, value)) = content.split_once(' ') else {
            let reason = if content.contains('\t') { "; a tab is no separator, put a blank" } else { "" };
            return self.left_out(number, format!("`{}` has no value{reason}", content.escape_debug()));
        };
        let expected = self.indent.get_or_insert_with(|| indent.to_string());
        if expected != indent || indent.is_empty() {
            *expected = indent.to_string();
            self.warn(number, "this entry is not indented like the others, which Fluent Bit refuses; it is read all the same");
        }
        let value = self.reading.expand(self.file, number, value.trim());
        match &mut self.current {
            Some(section) => section.entries.push(Entry { key: key.to_string(), value, line: number }),
            None => self.left_out(number, format!("`{key}` stands in no section")),
        }
    }
}
