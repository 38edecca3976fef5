//! JSON of FOCUS columns: flat objects are written, any text is read strictly (RFC 8259).
//!
//! Numbers stay text: no float. Bound: `DEPTH_MAX` levels; deeper text is refused, as is a key that occurs twice.

/// Levels of nesting that are read; FOCUS needs three.
const DEPTH_MAX: u32 = 16;

/// A JSON value; members in the order they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a whole text; says what is wrong with it.
    pub fn parse(text: &str) -> Result<Json, &'static str> {
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.blank();
        if reader.rest.is_empty() { Ok(value) } else { Err("something follows the value") }
    }

    /// The member of an object.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    pub fn is_nested(&self) -> bool {
        matches!(self, Json::List(_) | Json::Object(_))
    }
}

/// Writes a flat object, one member after the other, in the order they are given.
#[derive(Default)]
pub struct Flat(String);

impl Flat {
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        quote(value, &mut self.0);
    }

    /// `number`: as JSON writes it.
    pub fn number(&mut self, key: &str, number: &str) {
        self.key(key);
        self.0.push_str(number);
    }

    fn key(&mut self, key: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        quote(key, &mut self.0);
        self.0.push(':');
    }

    /// `None` if nothing was written: FOCUS wants null, not an empty object.
    pub fn finish(mut self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        self.0.push('}');
        Some(self.0)
    }
}

/// Appends a JSON string; control characters become escapes, all else stays as it is.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn blank(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest;
        true
    }

    fn value(&mut self, depth: u32) -> Result<Json, &'static str> {
        if depth > DEPTH_MAX {
            return Err("nested too deep");
        }
        self.blank();
        match self.rest.as_bytes().first() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.take("null") => Ok(Json::Null),
            _ if self.take("true") => Ok(Json::Bool(true)),
            _ if self.take("false") => Ok(Json::Bool(false)),
            _ => Err("no JSON value where one must stand"),
        }
    }

    fn object(&mut self, depth: u32) -> Result<Json, &'static str> {
        self.take("{");
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut keys = std::collections::HashSet::new();
        self.blank();
        if self.take("}") {
            return Ok(Json::Object(members));
        }
        loop {
            self.blank();
            let key = self.string()?;
            if !keys.insert(key.clone()) {
                return Err("a key occurs twice");
            }
            self.blank();
            if !self.take(":") {
                return Err("no colon after a key");
            }
            let value = self.value(depth + 1)?;
            members.push((key, value));
            self.blank();
            match (self.take(","), self.take("}")) {
                (true, false) => {}
                (false, true) => return Ok(Json::Object(members)),
                _ => return Err("no comma or brace after a member"),
            }
        }
    }

    fn list(&mut self, depth: u32) -> Result<Json, &'static str> {
        self.take("[");
        let mut items = Vec::new();
        self.blank();
        if self.take("]") {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.blank();
            match (self.take(","), self.take("]")) {
                (true, false) => {}
                (false, true) => return Ok(Json::List(items)),
                _ => return Err("no comma or bracket after an item"),
            }
        }
    }

    fn number(&mut self) -> Result<Json, &'static str> {
        let end = self.rest.bytes().position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        let digits = number.strip_prefix('-').unwrap_or(number);
        let (mantissa, exponent) = digits.split_once(['e', 'E']).map_or((digits, None), |(m, e)| (m, Some(e)));
        let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let exponent = exponent.map(|e| e.strip_prefix(['-', '+']).unwrap_or(e));
        let is_good = all_digits(whole)
            && (whole.len() == 1 || !whole.starts_with('0'))
            && fraction.is_none_or(all_digits)
            && exponent.is_none_or(all_digits);
        if !is_good {
            return Err("a number is written wrongly");
        }
        self.rest = rest;
        Ok(Json::Number(number.to_string()))
    }

    fn string(&mut self) -> Result<String, &'static str> {
        if !self.take("\"") {
            return Err("no string where one must stand");
        }
        let mut text = String::new();
        loop {
            let mut chars = self.rest.chars();
            let c = chars.next().ok_or("a string has no end")?;
            self.rest = chars.as_str();
            match c {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                c if u32::from(c) < 0x20 => return Err("a control character in a string"),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, &'static str> {
        let mut chars = self.rest.chars();
        let c = chars.next().ok_or("a string has no end")?;
        self.rest = chars.as_str();
        Ok(match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let high = self.hex()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high).ok_or("half of a surrogate pair");
                }
                if !self.take("\\u") {
                    return Err("half of a surrogate pair");
                }
                let low = self.hex()?.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or("half of a surrogate pair")?;
                char::from_u32(0x10000 + ((high - 0xd800) << 10) + low).ok_or("half of a surrogate pair")?
            }
            _ => return Err("an unknown escape"),
        })
    }

    fn hex(&mut self) -> Result<u32, &'static str> {
        let digits = self.rest.get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).ok_or("\\u without four hex digits")?;
        let code = u32::from_str_radix(digits, 16).map_err(|_| "\\u without four hex digits")?;
        self.rest = &self.rest[4..];
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_what_is_wrong_is_refused() {
        let mut flat = Flat::default();
        flat.text("a\"b\\c\n", "é\u{1}\"");
        flat.number("GpuCount", "1");
        let text = flat.finish().unwrap();
        let want = vec![("a\"b\\c\n".into(), Json::Text("é\u{1}\"".into())), ("GpuCount".into(), Json::Number("1".into()))];
        assert_eq!(Json::parse(&text), Ok(Json::Object(want)));
        assert_eq!(Json::parse("\"\\ud83d\\ude00\""), Ok(Json::Text("😀".into())));
        for bad in [
            "",
            "{",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{a:1}",
            "[1,]",
            "01",
            "+1",
            "1.",
            ".5",
            "1e",
            "nul",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\u12\"",
            "{} {}",
            "{\"a\":1,\"a\":2}",
            "\"\n\"",
            "NaN",
            "'a'",
        ] {
            assert!(Json::parse(bad).is_err(), "{bad:?} was taken for JSON");
        }
        assert_eq!(Json::parse(&"[".repeat(1_000_000)), Err("nested too deep"));
    }
}
