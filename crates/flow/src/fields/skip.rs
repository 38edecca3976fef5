//! Steps over the values of a record that was found well formed, for whoever writes it anew.
//!
//! In: a line and where a value starts. Out: where it ends. Of what is not well formed it steps over something, within the line. No
//! memory.

/// The offset of the next byte that is no white space, from `at` on.
pub fn skip_blanks(line: &[u8], at: usize) -> usize {
    at + line.get(at..).map_or(0, |rest| rest.iter().take_while(|b| b.is_ascii_whitespace()).count())
}

/// The offset behind the value that starts at `at`.
pub fn skip_value(line: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while at < line.len() {
        match line[at] {
            b'"' => {
                at += 1;
                while let Some(next) = line.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
                    at += next;
                    if line[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ if depth == 0 => {
                let ends = |b: &u8| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace();
                return at + line[at..].iter().position(ends).unwrap_or(line.len() - at);
            }
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at.min(line.len())
}
