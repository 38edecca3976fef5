//! Go's regular expressions (RE2), as those of Rust: anchored at both ends, a dot matches every character.
//!
//! Where both write the same and mean something else: `\d \w \s \b` are ASCII in Go, a brace that repeats nothing and `&&`, `--`, `~~`,
//! `[` within a class are plain characters, and `\Q…\E` quotes. Bound: [`PATTERN_BYTES_MAX`] of text, [`COMPILED_BYTES_MAX`] compiled.

use regex::{Regex, RegexBuilder};

pub const PATTERN_BYTES_MAX: usize = 16 << 10;
/// 1 MiB each: a hundred matchers make 100 MiB at the very worst.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Compiles an anchored pattern; the text of the error is one sentence.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("the regex has {} bytes; at most {PATTERN_BYTES_MAX} are compiled", pattern.len()));
    }
    let inside = translate(pattern);
    // First alone: `a)|(b` must not leave the group that the anchors hold.
    build(&inside)?;
    build(&format!("^(?s:{inside})$"))
}

fn build(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX).nest_limit(64).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("the regex takes more than {COMPILED_BYTES_MAX} bytes when compiled"),
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("the regex cannot be read: {}", last.trim().trim_start_matches("error: "))
        }
    })
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let (mut rest, mut in_class) = (pattern, false);
    while let Some(first) = rest.chars().next() {
        let mut len = first.len_utf8();
        match first {
            '\\' => len = escape(rest, in_class, &mut out),
            '[' if !in_class => {
                in_class = true;
                // `[]a]` and `[^]a]`: a bracket at the front is one of the characters.
                len = 1 + usize::from(rest[1..].starts_with('^'));
                out.push_str(&rest[..len]);
                if rest[len..].starts_with(']') {
                    out.push_str("\\]");
                    len += 1;
                }
            }
            '[' => match rest.find(":]").filter(|_| rest.starts_with("[:")) {
                Some(end) => {
                    len = end + 2;
                    out.push_str(&rest[..len]);
                }
                None => out.push_str("\\["),
            },
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' | '-' if in_class && rest[1..].starts_with(first) => {
                out.push('\\');
                out.push(first);
            }
            '{' if !in_class && !is_repetition(rest) => out.push_str("\\{"),
            other => out.push(other),
        }
        rest = &rest[len..];
    }
    out
}

/// Writes what stands after a backslash at the front of `rest`; its length.
fn escape(rest: &str, in_class: bool, out: &mut String) -> usize {
    let Some(second) = rest[1..].chars().next() else {
        out.push('\\');
        return 1;
    };
    let ascii = match second {
        'd' => "0-9",
        'D' => r"\x00-\x2F\x3A-\x{10FFFF}",
        'w' => "0-9A-Za-z_",
        'W' => r"\x00-\x2F\x3A-\x40\x5B-\x5E\x60\x7B-\x{10FFFF}",
        's' => r"\t\n\x0C\r\x20",
        'S' => r"\x00-\x08\x0B\x0E-\x1F\x21-\x{10FFFF}",
        'b' if !in_class => {
            out.push_str(r"(?-u:\b)");
            return 2;
        }
        'Q' if !in_class => {
            let (quoted, len) = match rest[2..].find("\\E") {
                Some(end) => (&rest[2..2 + end], end + 4),
                None => (&rest[2..], rest.len()),
            };
            out.push_str(&regex::escape(quoted));
            return len;
        }
        'p' | 'P' | 'x' if rest[2..].starts_with('{') => {
            let len = rest.find('}').map_or(rest.len(), |end| end + 1);
            out.push_str(&rest[..len]);
            return len;
        }
        _ => {
            out.push('\\');
            out.push(second);
            return 1 + second.len_utf8();
        }
    };
    match in_class {
        true => out.push_str(ascii),
        false => out.extend(["[", ascii, "]"]),
    }
    2
}

/// `{2}`, `{2,}`, `{2,3}`.
fn is_repetition(rest: &str) -> bool {
    let Some((inside, _)) = rest[1..].split_once('}') else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && is_number(least) && is_number(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, text, want) in [
            ("a", "a", true),
            ("a", "xa", false),
            ("a|b", "bx", false),
            ("a.b", "a\nb", true),
            ("", "", true),
            ("/a/{id}", "/a/{id}", true),
            ("a{2}", "aa", true),
            ("a{,2}", "a{,2}", true),
            (r"\d+", "12", true),
            (r"\d+", "\u{0661}", false),
            (r"\w", "é", false),
            (r"[\w.]+", "a.b", true),
            (r"[^\d]+", "ab", true),
            (r"[^\d]+", "a1", false),
            (r"[\S]", "\u{b}", true),
            (r"\Qa.b\E+", "a.bbb", true),
            (r"\Qa.b\E+", "axb", false),
            ("[[a]", "[", true),
            ("[]a]", "]", true),
            ("[a&&b]", "&", true),
            ("[a--b]", "x", false),
            ("[[:alpha:]]+", "ab", true),
            ("(?i:PRO).*", "production", true),
            ("((?i)PRO).*", "production", true),
            (r"\bab\b", "ab", true),
            (r"\p{Greek}", "α", true),
            ("(?P<x>a)", "a", true),
        ] {
            match compile(pattern) {
                Ok(compiled) => assert_eq!(compiled.is_match(text), want, "{pattern} {text:?}"),
                Err(error) => assert!(!want, "{pattern}: {error}"),
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_told_in_one_sentence() {
        for pattern in ["(", "a)|(b", "*", "[", r"\", "(?=a)", &"(".repeat(1000), &"a".repeat(20_000), "(a{1000}){1000}"] {
            let error = compile(pattern).unwrap_err();
            assert!(!error.contains('\n') && error.starts_with("the regex "), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_is_a_panic(any: String, near in r"[\[\]\\{},0-9a^:&QEdwSbpx()|*-]{0,20}") {
            let _ = (compile(&any), compile(&near));
        }
    }
}
