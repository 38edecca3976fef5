//! Messages in a stream of TCP: counted octets, or one a line (RFC 6587), told apart message by message.
//!
//! In: bytes as they come. Out: messages. A message that begins with a digit other than 0 and goes on as a count and a blank is counted; any
//! other ends with a newline or a NUL. Bound: `bytes_max` of one message; the rest of a longer one is skipped, and told.

/// Digits of a count.
const COUNT_DIGITS_MAX: usize = 9;

pub struct Framer {
    bytes_max: usize,
    buffer: Vec<u8>,
    /// Of a message that was too long: so many bytes are skipped, or all up to the end of the line.
    skip: Option<Skip>,
    /// Messages that were cut.
    pub cut: u64,
}

#[derive(Clone, Copy)]
enum Skip {
    Bytes(u64),
    Line,
}

impl Framer {
    pub fn new(bytes_max: usize) -> Framer {
        Framer { bytes_max, buffer: Vec::new(), skip: None, cut: 0 }
    }

    /// Takes bytes; calls `take` with each message that is complete, in order.
    pub fn push(&mut self, bytes: &[u8], take: &mut dyn FnMut(&[u8])) {
        let mut all = std::mem::take(&mut self.buffer);
        all.extend_from_slice(bytes);
        let mut at = 0;
        while at < all.len() {
            match self.next(&all[at..], take) {
                0 => break,
                used => at += used,
            }
        }
        all.drain(..at);
        self.buffer = all;
    }

    /// The connection ends: what is left is a message.
    pub fn finish(&mut self, take: &mut dyn FnMut(&[u8])) {
        if self.skip.is_none() && !self.buffer.trim_ascii().is_empty() {
            take(&self.buffer);
        }
        self.buffer.clear();
    }

    /// Uses bytes from the start; 0 where more have to come.
    fn next(&mut self, bytes: &[u8], take: &mut dyn FnMut(&[u8])) -> usize {
        match self.skip {
            Some(Skip::Bytes(left)) => {
                let used = left.min(bytes.len() as u64);
                self.skip = (left > used).then_some(Skip::Bytes(left - used));
                return used as usize;
            }
            Some(Skip::Line) => {
                let end = line_end(bytes);
                self.skip = end.is_none().then_some(Skip::Line);
                return end.map_or(bytes.len(), |end| end + 1);
            }
            None => {}
        }
        match count(bytes) {
            Count::Unknown => 0,
            Count::Octets { digits, octets } => {
                let whole = &bytes[digits + 1..];
                let kept = octets.min(self.bytes_max as u64) as usize;
                if whole.len() < kept {
                    return 0;
                }
                take(&whole[..kept]);
                if octets > kept as u64 {
                    self.cut += 1;
                    self.skip = Some(Skip::Bytes(octets - kept as u64));
                }
                digits + 1 + kept
            }
            Count::None => match line_end(bytes) {
                Some(end) if end <= self.bytes_max => {
                    if !bytes[..end].trim_ascii().is_empty() {
                        take(&bytes[..end]);
                    }
                    end + 1
                }
                None if bytes.len() <= self.bytes_max => 0,
                _ => {
                    take(&bytes[..self.bytes_max]);
                    self.cut += 1;
                    self.skip = Some(Skip::Line);
                    self.bytes_max
                }
            },
        }
    }
}

enum Count {
    Octets {
        digits: usize,
        octets: u64,
    },
    None,
    /// It may become one.
    Unknown,
}

fn count(bytes: &[u8]) -> Count {
    let digits = bytes.iter().take(COUNT_DIGITS_MAX + 1).take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > COUNT_DIGITS_MAX || bytes[0] == b'0' {
        return Count::None;
    }
    match bytes.get(digits) {
        None => Count::Unknown,
        Some(b' ') => Count::Octets { digits, octets: bytes[..digits].iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')) },
        Some(_) => Count::None,
    }
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr2(b'\n', 0, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages(bytes: &[u8], steps: usize) -> (Vec<String>, u64) {
        let mut framer = Framer::new(10);
        let mut found = Vec::new();
        let mut take = |message: &[u8]| found.push(String::from_utf8_lossy(message).into_owned());
        bytes.chunks(steps.max(1)).for_each(|chunk| framer.push(chunk, &mut take));
        framer.finish(&mut take);
        (found, framer.cut)
    }

    #[test]
    fn both_framings_are_told_apart_message_by_message() {
        for steps in [1, 2, 3, 100] {
            let (found, cut) = messages(b"<1>one\n5 <2>ab3 c\nd<3>x\0\n\n4 <4>e12345678901234\nlast", steps);
            assert_eq!(found, ["<1>one", "<2>ab", "c\nd", "<3>x", "<4>e", "1234567890", "last"], "in steps of {steps}");
            assert_eq!(cut, 1);
            let (found, cut) = messages(b"20 aaaaaaaaaabbbbbbbbbb2 okcccccccccccccc\n<5>y\n", steps);
            assert_eq!(found, ["aaaaaaaaaa", "ok", "cccccccccc", "<5>y"]);
            assert_eq!(cut, 2);
        }
    }

    proptest! {
        #[test]
        fn how_bytes_arrive_changes_nothing(bytes in "[0-9 a<>\n]{0,60}", steps in 1usize..9) {
            prop_assert_eq!(messages(bytes.as_bytes(), steps), messages(bytes.as_bytes(), 1000));
        }
    }
}
