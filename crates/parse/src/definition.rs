//! What a parser is, as libraries and configs define it.
//!
//! The shapes that a pipeline file holds under `parsers`, by name; a loader of Fluent Bit's libraries makes the same ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A parser: how a line that is no JSON becomes a record.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The name that others call it by: in a config, its key.
    #[serde(skip)]
    pub name: String,
    /// How the line is written.
    pub format: Format,
    /// Where the line's time stands and how it is written.
    #[serde(default)]
    pub time: TimeRule,
    /// Fields whose values are no strings, as in `{ bytes: integer }`.
    #[serde(default, with = "pairs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, Type>")]
    pub types: Vec<(String, Type)>,
    /// Empty values are left out (regex, ltsv and csv; logfmt has its own way to write them).
    #[serde(default = "yes")]
    pub skip_empty: bool,
    /// Fields whose values are decoded again, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decode: Vec<Decode>,
}

impl Definition {
    /// A parser of this format with every option at its default.
    pub fn new(name: &str, format: Format) -> Definition {
        Definition { name: name.to_string(), format, time: TimeRule::default(), types: Vec::new(), skip_empty: true, decode: Vec::new() }
    }
}

/// How a line is written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "LineFormat")]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Format {
    /// A pattern in Ruby's dialect, with or without `/.../flags`: its named groups are the fields.
    Regex(String),
    /// Exactly one JSON object, which passes as it is.
    Json,
    /// `key=value key="quoted \" value" bare`: `bare` and `k=` are true, `k=""` is empty.
    Logfmt {
        /// A word without `=` is a field that is true; else a line that has one does not match.
        #[serde(default = "yes")]
        bare_keys: bool,
    },
    /// `label:value` by tabs.
    Ltsv,
    /// RFC 4180 in one line.
    Csv {
        /// Names of the fields, from the left; those beyond the last name are `column_N`, counted from 1.
        #[serde(default)]
        columns: Vec<String>,
        /// The byte between two fields.
        #[serde(default = "comma", with = "byte")]
        #[schemars(with = "char")]
        delimiter: u8,
    },
    /// RFC 5424 or RFC 3164, whichever the line is. Fields: `pri`, `facility`, `severity`, `host`, `ident`, `pid`, `msgid`,
    /// `structured_data` (an object with keys `ID.PARAM`), `message`.
    Syslog,
    /// RFC 5424 only.
    Syslog5424,
    /// RFC 3164 only, with or without `<PRI>` and host.
    Syslog3164,
    /// Combined log format, with or without referer and agent. Fields: `remote`, `host`, `user`, `method`, `path`, `protocol`,
    /// `code`, `size`, `referer`, `agent`.
    Nginx,
    /// Common or combined log format. Fields: `host`, `user`, `method`, `path`, `protocol`, `code`, `size`, `referer`, `agent`.
    Apache,
    /// `I0102 15:04:05.678901 1234 file.go:56] message`. Fields: `severity`, `thread`, `file`, `line`, `message`.
    Klog,
    /// `TIME STREAM TAGS MESSAGE`, as container runtimes write it. Fields: `stream`, `logtag`, `message`.
    Cri,
    /// `{"log":...,"stream":...,"time":...}`, as Docker's json-file driver writes it.
    Docker,
}

/// Where a line's time stands and how it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TimeRule {
    /// The field; without it, `time`.
    pub key: Option<String>,
    /// As strptime has it, with `%L` for 1 to 9 digits of a fraction. Without it the format's own way (syslog, nginx, apache,
    /// klog, cri, docker), or the line has no time of its own.
    pub format: Option<String>,
    /// The time stays a field too.
    pub keep: bool,
    /// The whole format must match; else what matched before the first difference is enough, if it says a day.
    pub strict: bool,
    /// Seconds east of UTC where the line has no zone.
    pub offset_seconds: i32,
    /// IANA name of the zone where the line has none, as in `Europe/Berlin`.
    pub zone: Option<String>,
    /// The zone of this machine where the line has none; the caller puts its name into `zone`.
    pub system_zone: bool,
    /// Years that lines do not have are the current one, as in Fluent Bit; else the nearest, at most a day ahead.
    pub current_year: bool,
    /// Where a format has `.%L`, a time without dot and fraction is taken too: container runtimes leave out zeros.
    pub whole_seconds: bool,
}

impl Default for TimeRule {
    fn default() -> TimeRule {
        TimeRule {
            key: None,
            format: None,
            keep: false,
            strict: true,
            offset_seconds: 0,
            zone: None,
            system_zone: false,
            current_year: false,
            whole_seconds: true,
        }
    }
}

/// What a field's text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// The leading digits: `12ab` is 12, `x` is 0.
    Integer,
    /// The leading decimal number: `1.5s` is 1.5.
    Float,
    /// What begins with `true` or `false` in any case; anything else stays text.
    Bool,
    /// The leading hexadecimal digits, with or without `0x`: `0x1f` is 31.
    Hex,
    /// The text as it is.
    String,
}

/// A field whose value is decoded again: `Decode_Field` and `Decode_Field_As`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decode {
    /// The field.
    pub field: String,
    /// How its value is encoded.
    pub decoder: Decoder,
    /// `Decode_Field`: the decoded object's members go into the record and the field stays; else, as `Decode_Field_As`, the
    /// field gets the decoded value.
    #[serde(default)]
    pub spread: bool,
    /// What the next decoder of the same field does.
    #[serde(default)]
    pub then: Then,
}

/// How a value is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decoder {
    /// A JSON object or array.
    Json,
    /// Text with `\n`, `\t`, `\"` and their kin.
    Escaped,
    /// The same, with `\u00e4` and `\xc3` too.
    EscapedUtf8,
    /// Text in quotes as MySQL writes it; text without quotes is refused.
    MysqlQuoted,
}

/// What the next decoder of the same field sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// No further one is tried.
    #[default]
    Stop,
    /// The next one is tried if this one failed.
    TryNext,
    /// The next one gets what this one made, or what this one got if it failed.
    DoNext,
}

fn yes() -> bool {
    true
}

fn comma() -> u8 {
    b','
}

/// A list of names with a value each, written as a map that keeps its order.
mod pairs {
    use super::Type;
    use serde::de::{Deserializer, MapAccess, Visitor};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(pairs: &[(String, Type)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(pairs.iter().map(|(name, kind)| (name, kind)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, Type)>, D::Error> {
        from.deserialize_map(Pairs)
    }

    struct Pairs;

    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, Type)>;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("fields with a type each, as in { bytes: integer }")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
}

/// One byte, written as a character.
mod byte {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(byte: &u8, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_char(char::from(*byte))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
        let rule = "a delimiter is one ASCII character other than a quote or an end of line, as in \";\"";
        let text = char::deserialize(from)?;
        match u8::try_from(text) {
            Ok(byte) if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Ok(byte),
            _ => Err(D::Error::custom(rule)),
        }
    }
}
