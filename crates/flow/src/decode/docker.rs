//! A line of docker's json-file: `{"log":"TEXT\n","stream":"stdout","time":"TIME"}`.
//!
//! In: one line. Out: its text without escapes and without the final newline, its stream and time, and whether the
//! text goes on in the stream's next line (it had no final newline: docker splits at 16 KiB). Keys may come in any
//! order, others (`attrs`) are passed over; the last of two equal keys counts; a line without `stream` is of
//! stdout. Half a surrogate pair becomes U+FFFD. Memory: the text is written to the caller's buffer, never longer
//! than the line. A line of another shape is the caller's to keep raw.

/// One parsed line; its text is in the buffer.
pub(super) struct Parts<'a> {
    /// 0 stdout, 1 stderr.
    pub stream: usize,
    /// As written; empty where there is none.
    pub time: &'a [u8],
    /// The record goes on with the next line of the stream.
    pub partial: bool,
    /// Every escape was a character.
    pub sound: bool,
}

/// How deep `attrs` may nest.
const DEPTH_MAX: usize = 64;

/// Finds the parts of a line and writes its text to `text`; `None` for a line of another shape.
pub(super) fn split<'a>(line: &'a [u8], text: &mut Vec<u8>) -> Option<Parts<'a>> {
    let mut cursor = Cursor { line, at: 0 };
    let (mut log, mut stream, mut time): (Option<&[u8]>, &[u8], &[u8]) = (None, b"stdout", b"");
    cursor.expect(b'{')?;
    loop {
        let key = cursor.string()?;
        cursor.expect(b':')?;
        match key {
            b"log" => log = Some(cursor.string()?),
            b"stream" => stream = cursor.string()?,
            b"time" => time = cursor.string()?,
            _ => cursor.pass_value()?,
        }
        match cursor.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    cursor.skip_blanks();
    let stream = match stream {
        b"stdout" => 0,
        b"stderr" => 1,
        _ => return None,
    };
    if cursor.at < line.len() || time.contains(&b'\\') || time.contains(&b' ') {
        return None;
    }
    text.clear();
    let sound = unescape(log?, text)?;
    let partial = text.pop_if(|b| *b == b'\n').is_none();
    if !partial {
        // A terminal ends its lines with both.
        text.pop_if(|b| *b == b'\r');
    }
    Some(Parts { stream, time, partial, sound })
}

struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn skip_blanks(&mut self) {
        while self.line.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is no blank.
    fn next(&mut self) -> Option<u8> {
        self.skip_blanks();
        let byte = *self.line.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// A string's inside, escapes as they are.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.line.get(self.at..)?)?;
            if self.line[self.at] == b'"' {
                self.at += 1;
                return Some(&self.line[start..self.at - 1]);
            }
            self.at += 2;
        }
    }

    /// Passes over any value; what is inside of it is not checked beyond its brackets.
    fn pass_value(&mut self) -> Option<()> {
        let mut depth = 0;
        loop {
            self.skip_blanks();
            match *self.line.get(self.at)? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                b'}' | b']' | b',' | b':' => return None,
                _ => {
                    let word = self.line[self.at..].iter().take_while(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)).count();
                    if word == 0 {
                        return None;
                    }
                    self.at += word;
                }
            }
            if depth == 0 {
                return Some(());
            }
            if depth > DEPTH_MAX {
                return None;
            }
        }
    }
}

/// Appends a JSON string's inside to `out` without its escapes: whether all of them were characters, `None` if
/// one is no escape at all.
fn unescape(mut text: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let mut sound = true;
    while let Some(at) = memchr::memchr(b'\\', text) {
        out.extend_from_slice(&text[..at]);
        let plain = match *text.get(at + 1)? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'u' => {
                let first = hex(text, at + 2)?;
                // A pair is two escapes in a row; anything else behind the first half leaves it alone.
                let second = match text.get(at + 6..at + 8) {
                    Some(b"\\u") if (0xD800..0xDC00).contains(&first) => hex(text, at + 8),
                    _ => None,
                };
                let pair = second.filter(|low| (0xDC00..0xE000).contains(low));
                let code = pair.map_or(first, |low| 0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00));
                let character = char::from_u32(code);
                sound &= character.is_some();
                out.extend_from_slice(character.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut [0; 4]).as_bytes());
                text = &text[at + if pair.is_some() { 12 } else { 6 }..];
                continue;
            }
            _ => return None,
        };
        out.push(plain);
        text = &text[at + 2..];
    }
    out.extend_from_slice(text);
    Some(sound)
}

fn hex(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..at + 4)?.iter().try_fold(0, |sum, b| Some(sum * 16 + char::from(*b).to_digit(16)?))
}
