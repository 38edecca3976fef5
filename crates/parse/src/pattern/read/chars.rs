//! Escapes that stand for one character: by letter, by number, as control, as bytes of UTF-8.

use super::{Reader, Reading};

impl Reader<'_> {
    /// The one character that an escape stands for, in classes too.
    pub(super) fn escaped_char(&mut self, c: char, start: usize) -> Reading<char> {
        match c {
            't' => Ok('\t'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            'f' => Ok('\x0c'),
            'v' => Ok('\x0b'),
            'a' => Ok('\x07'),
            'e' => Ok('\x1b'),
            'x' if self.rest().starts_with('{') => self.code_in_braces(start),
            'u' if self.rest().starts_with('{') => self.code_in_braces(start),
            'u' => {
                let code = self.digits(16, 4);
                if self.at != start + 6 {
                    return self.refuse_at(start, "\\u needs four hex digits");
                }
                self.char_of(code, start)
            }
            'x' | '0'..='7' | 'c' | 'C' | 'M' => {
                let byte = self.byte(c, start)?;
                self.char_from(byte, start)
            }
            _ => Ok(c),
        }
    }

    fn digits(&mut self, radix: u32, most: usize) -> u32 {
        let mut value = 0u32;
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else { break };
            value = value.saturating_mul(radix).saturating_add(digit);
            self.at += 1;
        }
        value
    }

    fn char_of(&self, code: u32, start: usize) -> Reading<char> {
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => self.refuse_at(start, "there is no such character"),
        }
    }

    fn code_in_braces(&mut self, start: usize) -> Reading<char> {
        self.next();
        let before = self.at;
        let code = self.digits(16, 8);
        if self.at == before || !self.eat("}") {
            return self.refuse_at(start, "a code in braces has one to eight hex digits");
        }
        self.char_of(code, start)
    }

    /// A byte by its number, or a control character. After the letter that says which.
    fn byte(&mut self, letter: char, start: usize) -> Reading<u8> {
        let value = match letter {
            'x' => self.digits(16, 2),
            'c' => self.control(start)? as u32,
            'C' if self.eat("-") => self.control(start)? as u32,
            'M' if self.eat("-") => 0x80 | self.plain_byte(start)? as u32,
            '0'..='7' => {
                self.at -= 1;
                self.digits(8, 3)
            }
            _ => return self.refuse_at(start, "this escape is not complete"),
        };
        u8::try_from(value).or_else(|_| self.refuse_at(start, "a byte is at most 255"))
    }

    fn control(&mut self, start: usize) -> Reading<u8> {
        Ok(match self.plain_byte(start)? {
            b'?' => 0x7f,
            byte => byte & 0x9f,
        })
    }

    fn plain_byte(&mut self, start: usize) -> Reading<u8> {
        let byte = match self.next() {
            Some('\\') => match self.next() {
                Some(c @ ('c' | 'C' | 'M' | 'x' | '0'..='7')) => self.nested(|r| r.byte(c, start))? as u32,
                Some(c) => self.escaped_char(c, start)? as u32,
                None => u32::MAX,
            },
            Some(c) => c as u32,
            None => u32::MAX,
        };
        u8::try_from(byte).or_else(|_| self.refuse_at(start, "this escape is not complete"))
    }

    /// The character that begins with `byte`; further bytes follow as escapes.
    fn char_from(&mut self, byte: u8, start: usize) -> Reading<char> {
        let length = match byte {
            0..0x80 => 1,
            0xc2..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0..0xf5 => 4,
            _ => 0,
        };
        let mut bytes = vec![byte];
        while bytes.len() < length && self.rest().starts_with("\\x") {
            self.at += 2;
            bytes.push(self.digits(16, 2) as u8);
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.chars().next().unwrap_or_default()),
            Err(_) => self.refuse_at(start, "these bytes are no character of UTF-8"),
        }
    }
}
