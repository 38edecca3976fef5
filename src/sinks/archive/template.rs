//! Where a record is filed: a path with `{tenant}` and `{field}` in it, and values made safe for it.
//!
//! In: the text of `path` in a config; per file, the tenant and the raw field values. Out: a path relative
//! to the archive's folder, in ASCII but for the template's own text. Each value becomes one component or a
//! part of one: no value leaves the folder, and two tenants never share a file. Bound: a value takes at most
//! [`VALUE_BYTES_MAX`] bytes of a name; a longer one is cut and carries a hash of all of it.

use super::rotate;
use sha2::{Digest, Sha256};

/// Longest form of one value in a path.
const VALUE_BYTES_MAX: usize = 100;
/// A component is at most 255 bytes on every common file system; a backup adds up to 40 of them.
const COMPONENT_BYTES_MAX: usize = 255 - 40;
const COMPONENTS_MAX: usize = 16;

/// A parsed `path`, such as `logs/{tenant}/{service}.log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    components: Vec<Vec<Piece>>,
    fields: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Tenant,
    /// Index into `Template::fields`.
    Field(usize),
}

/// What a placeholder stands for in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Bytes(&'a [u8]),
    /// The record has no such field.
    Missing,
    /// There are too many files already: all further values share one.
    Overflow,
}

impl Template {
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut template = Template { components: Vec::new(), fields: Vec::new() };
        if text.is_empty() {
            return Err("the path is empty; write one such as logs/{tenant}/{service}.log".to_string());
        }
        if text.starts_with('/') {
            return Err(format!("{text:?} begins with /; the path is relative to the sink's folder"));
        }
        for component in text.split('/') {
            let pieces = template.component(component)?;
            template.components.push(pieces);
        }
        if template.components.len() > COMPONENTS_MAX {
            return Err(format!("the path has {} components; {COMPONENTS_MAX} are allowed", template.components.len()));
        }
        let samples = vec![Value::Bytes(b"x"); template.fields.len()];
        let sample = template.render(b"x", &samples);
        if rotate::is_reserved(last_component(&sample)) {
            return Err(format!(
                "{text:?} names files like backups (a time, .gz, .zst or .tmp in the name); leave that to rotation, as in {{tenant}}/{{service}}.log"
            ));
        }
        Ok(template)
    }

    fn component(&mut self, text: &str) -> Result<Vec<Piece>, String> {
        if matches!(text, "" | "." | "..") {
            return Err(format!("a path component is {text:?}; each must be a name"));
        }
        if text.contains('\0') {
            return Err("a path component holds a NUL byte".to_string());
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let close = rest[open..].find('}').map(|at| open + at);
            let name = match close {
                Some(close) if close > open + 1 => rest[open + 1..close].trim(),
                _ => return Err(format!("{text:?} has an unpaired or empty brace; a field is written {{service}}")),
            };
            if name.is_empty() || name.contains('{') {
                return Err(format!("{text:?} has an unpaired or empty brace; a field is written {{service}}"));
            }
            if open > 0 {
                pieces.push(Piece::Text(rest[..open].to_string()));
            }
            pieces.push(if name == "tenant" { Piece::Tenant } else { Piece::Field(self.field(name)) });
            rest = &rest[close.expect("a name was found before it") + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_string()));
        }
        let values = pieces.iter().filter(|p| !matches!(p, Piece::Text(_))).count();
        if pieces.contains(&Piece::Tenant) && values > 1 {
            // `a-b` + `c` and `a` + `b-c` would be one file of two tenants.
            return Err(format!(
                "{text:?} joins {{tenant}} with another value; give the tenant a component of its own, as in {{tenant}}/{{service}}.log"
            ));
        }
        let literal: usize = pieces.iter().map(|p| if let Piece::Text(t) = p { t.len() } else { VALUE_BYTES_MAX }).sum();
        if literal > COMPONENT_BYTES_MAX {
            return Err(format!(
                "{text:?} can grow to {literal} bytes; a name may take {COMPONENT_BYTES_MAX} (a value counts {VALUE_BYTES_MAX})"
            ));
        }
        Ok(pieces)
    }

    fn field(&mut self, name: &str) -> usize {
        match self.fields.iter().position(|f| f == name) {
            Some(at) => at,
            None => {
                self.fields.push(name.to_string());
                self.fields.len() - 1
            }
        }
    }

    /// Record fields other than the tenant, in order of first use; each once.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Names between slashes.
    pub fn depth(&self) -> usize {
        self.components.len()
    }

    /// The path of the file for these values (one per field, raw as in the record), relative to the folder.
    /// A name that rotation keeps for itself is told by hashes instead, so that no value can pose as a backup.
    pub fn path(&self, tenant: &[u8], values: &[Value], is_taken: impl Fn(&str) -> bool) -> String {
        let plain = self.render(tenant, values);
        if !rotate::is_reserved(last_component(&plain)) && !is_taken(&plain) {
            return plain;
        }
        let is_last_fixed = self.components.last().is_some_and(|c| c.iter().all(|p| matches!(p, Piece::Text(_))));
        self.join(tenant, values, if is_last_fixed { 0 } else { self.components.len() - 1 })
    }

    fn render(&self, tenant: &[u8], values: &[Value]) -> String {
        self.join(tenant, values, usize::MAX)
    }

    /// Values from component `hashed_from` on are told by their hashes.
    fn join(&self, tenant: &[u8], values: &[Value], hashed_from: usize) -> String {
        let mut path = String::new();
        for (i, pieces) in self.components.iter().enumerate() {
            if i > 0 {
                path.push('/');
            }
            for piece in pieces {
                let value = match piece {
                    Piece::Text(text) => {
                        path.push_str(text);
                        continue;
                    }
                    Piece::Tenant => Value::Bytes(tenant),
                    Piece::Field(at) => values.get(*at).copied().unwrap_or(Value::Missing),
                };
                match value {
                    Value::Bytes(raw) if i >= hashed_from => path.push_str(&hash_of(raw)),
                    value => path.push_str(&component_of(value)),
                }
            }
        }
        path
    }

    /// Could a name at this depth come from this template? Only its fixed text is compared.
    pub fn admits(&self, depth: usize, name: &str) -> bool {
        let Some(pieces) = self.components.get(depth) else { return false };
        let head = if let Some(Piece::Text(text)) = pieces.first() { text.as_str() } else { "" };
        let tail = if let Some(Piece::Text(text)) = pieces.last() { text.as_str() } else { "" };
        if pieces.len() == 1 && !head.is_empty() {
            return name == head;
        }
        name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
    }
}

pub fn last_component(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// One value as (part of) a path component. Injective: two values never give one text.
fn component_of(value: Value) -> String {
    let raw = match value {
        Value::Bytes([]) => return "_empty".to_string(),
        Value::Bytes(raw) => raw,
        Value::Missing => return "_missing".to_string(),
        Value::Overflow => return "_overflow".to_string(),
    };
    let mut text = String::with_capacity(raw.len().min(VALUE_BYTES_MAX) + 3);
    for (i, &byte) in raw.iter().enumerate() {
        match byte {
            // A leading dot would hide the file or climb out; a leading _ is kept for our own words.
            b'.' | b'_' if i == 0 => push_encoded(&mut text, byte),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text.push(byte as char),
            _ => push_encoded(&mut text, byte),
        }
        if text.len() > VALUE_BYTES_MAX {
            text.truncate(VALUE_BYTES_MAX - 33);
            text.push_str(&hash_of(raw));
            return text;
        }
    }
    text
}

/// `~` and 32 hex digits. No encoded value holds a `~`, so a hash is never taken for a value. SHA-256,
/// because the values come from whoever writes the log: nobody may find one that lands in another's file.
fn hash_of(raw: &[u8]) -> String {
    let digest = Sha256::digest(raw);
    let mut text = String::with_capacity(33);
    text.push('~');
    for byte in digest.iter().take(16) {
        push_hex(&mut text, *byte, b"0123456789abcdef");
    }
    text
}

fn push_encoded(text: &mut String, byte: u8) {
    text.push('%');
    push_hex(text, byte, b"0123456789ABCDEF");
}

fn push_hex(text: &mut String, byte: u8, digits: &[u8; 16]) {
    text.push(digits[usize::from(byte >> 4)] as char);
    text.push(digits[usize::from(byte & 15)] as char);
}
