//! From a `[PARSER]` section to a definition.

use super::{Entry, Section, Warning, plain, switch};
use crate::definition::{Decode, Decoder, Definition, Format, Then, TimeRule, Type};

/// `None`: it cannot be used, a warning says why.
pub(super) fn parser(section: &Section, warnings: &mut Vec<Warning>) -> Option<Definition> {
    let name = match section.entry("name") {
        Some(entry) if !entry.value.is_empty() => entry.value.clone(),
        _ => {
            warnings.push(section.left_out(section.line, "this parser has no name".to_string()));
            return None;
        }
    };
    let mut reader = Reader { section, warnings, name: &name };
    let format = reader.format()?;
    reader.unknown_keys();
    let time = reader.time();
    let types = reader.types();
    let skip_empty = reader.switch("skip_empty_values", true);
    let decode = reader.decode();
    Some(Definition { name, format, time, types, skip_empty, decode })
}

const KEYS: [&str; 16] = [
    "name",
    "format",
    "regex",
    "time_key",
    "time_format",
    "time_keep",
    "time_strict",
    "time_offset",
    "time_zone",
    "time_system_timezone",
    "types",
    "skip_empty_values",
    "logfmt_no_bare_keys",
    "decode_field",
    "decode_field_as",
    "description",
];

struct Reader<'a> {
    section: &'a Section,
    warnings: &'a mut Vec<Warning>,
    name: &'a str,
}

impl<'a> Reader<'a> {
    fn warn(&mut self, line: u32, text: String) {
        self.warnings.push(self.section.warning(line, text));
    }

    fn refuse<T>(&mut self, line: u32, text: String) -> Option<T> {
        self.warnings.push(self.section.left_out(line, text));
        None
    }

    fn text(&self, key: &str) -> Option<&'a Entry> {
        self.section.entry(key).filter(|entry| !entry.value.is_empty())
    }

    fn switch(&mut self, key: &str, otherwise: bool) -> bool {
        let Some(entry) = self.section.entry(key) else { return otherwise };
        switch(&entry.value).unwrap_or_else(|| {
            self.warn(entry.line, format!("`{}` is on or off, not `{}`", entry.key, entry.value));
            otherwise
        })
    }

    fn format(&mut self) -> Option<Format> {
        let name = self.name;
        let Some(entry) = self.text("format") else { return self.refuse(self.section.line, format!("parser `{name}` has no format")) };
        match entry.value.to_ascii_lowercase().as_str() {
            "regex" => match self.text("regex") {
                Some(regex) => Some(Format::Regex(regex.value.clone())),
                None => self.refuse(self.section.line, format!("parser `{name}` has no regex")),
            },
            "json" => Some(Format::Json),
            "ltsv" => Some(Format::Ltsv),
            "logfmt" => Some(Format::Logfmt { bare_keys: !self.switch("logfmt_no_bare_keys", false) }),
            _ => {
                self.refuse(entry.line, format!("parser `{name}` has the format `{}`; there are regex, json, ltsv and logfmt", entry.value))
            }
        }
    }

    fn unknown_keys(&mut self) {
        for (index, entry) in self.section.entries.iter().enumerate() {
            let key = plain(&entry.key);
            if !KEYS.iter().any(|known| plain(known) == key) {
                self.warn(entry.line, format!("parser `{}`: key `{}` is not known", self.name, entry.key));
            }
            let is_repeated = self.section.entries[..index].iter().any(|before| plain(&before.key) == key);
            if is_repeated && !key.starts_with("decodefield") {
                self.warn(entry.line, format!("parser `{}`: key `{}` is given already; the first one is used", self.name, entry.key));
            }
        }
    }

    fn time(&mut self) -> TimeRule {
        let value = |key: &str| self.text(key).map(|entry| entry.value.clone());
        let (key, format, zone) = (value("time_key"), value("time_format"), value("time_zone"));
        let keep = self.switch("time_keep", false);
        let strict = self.switch("time_strict", true);
        let mut system_zone = self.switch("time_system_timezone", false);
        let mut offset_seconds = self.offset();
        if zone.is_some() && (system_zone || self.text("time_offset").is_some()) {
            let line = self.text("time_zone").map_or(self.section.line, |entry| entry.line);
            self.warn(
                line,
                format!(
                    "parser `{}`: Time_Zone wins over Time_Offset and Time_System_Timezone; Fluent Bit refuses them together",
                    self.name
                ),
            );
            system_zone = false;
            offset_seconds = 0;
        }
        TimeRule { key, format, keep, strict, offset_seconds, zone, system_zone, ..TimeRule::default() }
    }

    fn offset(&mut self) -> i32 {
        let Some(entry) = self.text("time_offset") else { return 0 };
        offset_seconds(&entry.value).unwrap_or_else(|| {
            self.warn(entry.line, format!("`{}` is written +hhmm, not `{}`; UTC is used", entry.key, entry.value));
            0
        })
    }

    /// `name:type`, by blanks. Commas do not separate: what stands behind one belongs to the type, which is then none.
    fn types(&mut self) -> Vec<(String, Type)> {
        let Some(entry) = self.text("types") else { return Vec::new() };
        let mut types = Vec::new();
        for item in entry.value.split_ascii_whitespace() {
            let Some((field, written)) = item.split_once(':') else {
                self.warn(entry.line, format!("parser `{}`: `{item}` in Types is not name:type", self.name));
                continue;
            };
            let kind = match written.to_ascii_lowercase().as_str() {
                "integer" => Type::Integer,
                "float" => Type::Float,
                "bool" => Type::Bool,
                "hex" => Type::Hex,
                "string" => Type::String,
                _ => {
                    let hint = if written.contains(',') { "; blanks separate types, commas do not" } else { "" };
                    self.warn(entry.line, format!("parser `{}`: `{field}` stays a string, `{written}` is no type{hint}", self.name));
                    Type::String
                }
            };
            types.push((field.to_string(), kind));
        }
        types
    }

    fn decode(&mut self) -> Vec<Decode> {
        let mut all = Vec::new();
        for entry in &self.section.entries {
            let spread = match plain(&entry.key).as_str() {
                "decodefield" => true,
                "decodefieldas" => false,
                _ => continue,
            };
            match decode(&entry.value, spread) {
                Some(decode) => all.push(decode),
                None => {
                    let reason = "is not `json|escaped|escaped_utf8|mysql_quoted field [try_next|do_next]`";
                    let text = format!("parser `{}`: `{} {}` {reason}", self.name, entry.key, entry.value);
                    self.warnings.push(self.section.left_out(entry.line, text));
                }
            }
        }
        all
    }
}

fn decode(value: &str, spread: bool) -> Option<Decode> {
    let mut words = value.split_ascii_whitespace();
    let decoder = match words.next()?.to_ascii_lowercase().as_str() {
        "json" => Decoder::Json,
        "escaped" => Decoder::Escaped,
        "escaped_utf8" => Decoder::EscapedUtf8,
        "mysql_quoted" => Decoder::MysqlQuoted,
        _ => return None,
    };
    let field = words.next()?.to_string();
    let then = match words.next().map(str::to_ascii_lowercase).as_deref() {
        None => Then::Stop,
        Some("try_next") => Then::TryNext,
        Some("do_next") => Then::DoNext,
        Some(_) => return None,
    };
    Some(Decode { field, decoder, spread, then })
}

/// `+hhmm` or `+hh:mm`.
fn offset_seconds(text: &str) -> Option<i32> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits = digits.replace(':', "");
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: i32 = digits.parse().ok()?;
    Some(sign * (number / 100 * 3600 + number % 100 * 60))
}
