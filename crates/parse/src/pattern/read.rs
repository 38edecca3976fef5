//! Reads Ruby's dialect, as Onigmo has it for UTF-8, into a tree.
//!
//! In: the text of a pattern, perhaps as `/.../flags`; out: a tree in which syntax and flags are resolved, the names of its groups,
//! and what is not what it would be in other dialects. A mistake is told with the byte at which it stands.
//! The text is read twice: only then it is known how many groups there are, and whether a named one stops the others from counting.

mod bracket;
mod chars;

use super::class::{Class, Reach};
use super::tree::{Assert, DEPTH_MAX, Greed, Node};
use std::fmt;

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Byte of the pattern's text.
    pub at: usize,
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {} of the pattern: {}", self.at, self.reason)
    }
}

impl std::error::Error for Refusal {}

pub struct Read {
    pub tree: Node,
    /// Names of the groups that count, from group 1 on.
    pub groups: Vec<Option<String>>,
    /// What had to be said otherwise than for the `regex` crate, each once.
    pub rewrites: Vec<&'static str>,
}

const TEXT_BYTES_MAX: usize = 64 << 10;
const REPEAT_MAX: u32 = 100_000; // as Onigmo
const QUANTIFIERS_MAX: usize = 8; // one upon another, as in `a+*?`

pub fn read(text: &str) -> Result<Read, Refusal> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Refusal { at: TEXT_BYTES_MAX, reason: format!("a pattern has at most {TEXT_BYTES_MAX} bytes") });
    }
    let mut first = Reader::new(text, None);
    first.whole()?;
    let has_names = first.groups.iter().any(Option::is_some);
    let groups: Vec<_> = first.groups.into_iter().filter(|name| !has_names || name.is_some()).collect();
    let mut second = Reader::new(text, Some(&groups));
    let tree = second.whole()?;
    let mut rewrites = second.rewrites;
    if (1..groups.len()).any(|i| groups[i].is_some() && groups[..i].contains(&groups[i])) {
        rewrites.push("a name that occurs twice is one field");
    }
    Ok(Read { tree, groups, rewrites })
}

/// The pattern between slashes, and its flags; the whole text if it is not written so.
fn strip_slashes(text: &str) -> (usize, usize, Flags) {
    let mut flags = Flags { fold: false, dot_all: false, extended: false, reach: Reach::Default };
    let whole = (0, text.len(), flags);
    let Some(end) = text.rfind('/').filter(|end| *end > 0 && text.starts_with('/')) else { return whole };
    for letter in text[end + 1..].chars() {
        match letter {
            'i' => flags.fold = true,
            'm' => flags.dot_all = true,
            'x' => flags.extended = true,
            _ => return whole,
        }
    }
    (1, end, flags)
}

#[derive(Clone, Copy)]
struct Flags {
    fold: bool,
    dot_all: bool,
    extended: bool,
    reach: Reach,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    end: usize,
    flags: Flags,
    depth: usize,
    /// Groups opened so far that count.
    groups: Vec<Option<String>>,
    /// All groups; `None` in the first reading.
    known: Option<&'a [Option<String>]>,
    rewrites: Vec<&'static str>,
}

type Reading<T> = Result<T, Refusal>;

impl<'a> Reader<'a> {
    fn new(text: &'a str, known: Option<&'a [Option<String>]>) -> Reader<'a> {
        let (at, end, flags) = strip_slashes(text);
        let rewrites = if at > 0 { vec!["slashes around the pattern"] } else { Vec::new() };
        Reader { text, at, end, flags, depth: 0, groups: Vec::new(), known, rewrites }
    }

    fn whole(&mut self) -> Reading<Node> {
        let tree = self.alternatives()?;
        match self.peek() {
            None => Ok(tree),
            Some(_) => self.refuse("this `)` closes nothing"),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..self.end]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn refuse<T>(&self, reason: &str) -> Reading<T> {
        self.refuse_at(self.at, reason)
    }

    fn refuse_at<T>(&self, at: usize, reason: &str) -> Reading<T> {
        Err(Refusal { at, reason: reason.to_string() })
    }

    fn note(&mut self, rewrite: &'static str) {
        if !self.rewrites.contains(&rewrite) {
            self.rewrites.push(rewrite);
        }
    }

    /// One level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Reading<T>) -> Reading<T> {
        if self.depth == DEPTH_MAX {
            return self.refuse("groups are nested too deeply");
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Up to the end of the group, which is not taken.
    fn alternatives(&mut self) -> Reading<Node> {
        let mut branches = vec![self.sequence()?];
        while self.eat("|") {
            branches.push(self.sequence()?);
        }
        Ok(if branches.len() == 1 { branches.remove(0) } else { Node::Alt(branches) })
    }

    fn sequence(&mut self) -> Reading<Node> {
        let mut nodes = Vec::new();
        loop {
            self.skip_ignored()?;
            match self.peek() {
                None | Some('|' | ')') => break,
                Some(_) => {
                    let atom = self.atom()?;
                    nodes.push(self.repeated(atom)?);
                }
            }
        }
        nodes.retain(|node| *node != Node::Empty);
        Ok(match nodes.len() {
            0 => Node::Empty,
            1 => nodes.remove(0),
            _ => Node::Concat(nodes),
        })
    }

    /// Comments, and blanks under `x`.
    fn skip_ignored(&mut self) -> Reading<()> {
        loop {
            if self.rest().starts_with("(?#") {
                self.comment()?;
            } else if self.flags.extended && self.peek().is_some_and(|c| c.is_ascii_whitespace() || c == '\x0b') {
                self.next();
            } else if self.flags.extended && self.peek() == Some('#') {
                self.at = self.rest().find('\n').map_or(self.end, |at| self.at + at + 1);
            } else {
                return Ok(());
            }
        }
    }

    fn comment(&mut self) -> Reading<()> {
        let start = self.at;
        self.at += "(?#".len();
        while let Some(c) = self.next() {
            match c {
                ')' => {
                    self.note("comments left out");
                    return Ok(());
                }
                '\\' => drop(self.next()),
                _ => {}
            }
        }
        self.refuse_at(start, "this comment has no end")
    }

    fn atom(&mut self) -> Reading<Node> {
        let start = self.at;
        match self.next() {
            Some('(') => self.nested(|r| r.group(start)),
            Some('[') => Ok(Node::Class(self.class(start)?)),
            Some('.') => Ok(Node::Class(Class::dot(self.flags.dot_all))),
            Some('^') => {
                self.note("^ and $ stand at lines");
                Ok(Node::Assert(Assert::LineStart))
            }
            Some('$') => {
                self.note("^ and $ stand at lines");
                Ok(Node::Assert(Assert::LineEnd))
            }
            Some('\\') => self.escape(start),
            Some('*' | '+' | '?') => self.refuse_at(start, "there is nothing to repeat"),
            Some('{') if interval(&self.text[start..self.end]).is_some() => self.refuse_at(start, "there is nothing to repeat"),
            Some('{') => {
                self.note("a brace that counts nothing is a brace");
                Ok(Node::Char('{'))
            }
            Some(c) => Ok(self.letter(c)),
            None => Ok(Node::Empty),
        }
    }

    fn letter(&self, c: char) -> Node {
        if self.flags.fold {
            let mut class = Class::of(&[(c, c)]);
            class.fold();
            if class != Class::of(&[(c, c)]) {
                return Node::Class(class);
            }
        }
        Node::Char(c)
    }

    /// `atom` with the quantifiers behind it.
    fn repeated(&mut self, atom: Node) -> Reading<Node> {
        let mut node = atom;
        for count in 0.. {
            self.skip_ignored()?;
            let start = self.at;
            let Some((min, max, is_interval, length)) = quantifier(self.rest()) else { break };
            if count == QUANTIFIERS_MAX {
                return self.refuse("too many quantifiers one upon another");
            }
            if min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX) {
                return self.refuse(&format!("a number of turns is at most {REPEAT_MAX}"));
            }
            if max.is_some_and(|max| max < min) {
                return self.refuse("the least number of turns is more than the most");
            }
            self.at += length;
            if self.text[start..].starts_with("{,") {
                self.note("{,n} is {0,n}");
            }
            let is_fixed = is_interval && !self.text[start..self.at].contains(',');
            let greed = self.greed(is_interval, is_fixed);
            node = repeat(node, min, max, greed);
        }
        Ok(node)
    }

    fn greed(&mut self, is_interval: bool, is_fixed: bool) -> Greed {
        // Ruby: `{n}?` is an optional `{n}`, `{n,m}+` is a repeated `{n,m}`.
        if !is_fixed && self.eat("?") {
            return Greed::Lazy;
        }
        if !is_interval && self.eat("+") {
            self.note("possessive quantifiers");
            return Greed::Possessive;
        }
        if is_interval && self.rest().starts_with(['+', '?']) {
            self.note("a quantifier after {n,m} repeats it");
        }
        Greed::Greedy
    }

    /// After `(`.
    fn group(&mut self, start: usize) -> Reading<Node> {
        if !self.eat("?") {
            return self.plain_group(start);
        }
        let flags = self.flags;
        let node = match self.next() {
            Some(':') => self.alternatives()?,
            Some('=') => self.look(false, false)?,
            Some('!') => self.look(false, true)?,
            Some('>') => {
                self.note("atomic groups");
                Node::Atomic(Box::new(self.alternatives()?))
            }
            Some('~') => {
                self.note("absent operator");
                Node::Absent(Box::new(self.alternatives()?))
            }
            Some('<') if self.eat("=") => self.look(true, false)?,
            Some('<') if self.eat("!") => self.look(true, true)?,
            Some('<') => self.named_group('>')?,
            Some('\'') => {
                self.note("(?'name'...) is (?<name>...)");
                self.named_group('\'')?
            }
            Some('P') if self.eat("<") => {
                self.note("(?P<name>...) is (?<name>...), which Ruby does not know");
                self.named_group('>')?
            }
            Some('(') => self.condition()?,
            _ => {
                self.at = start + 2;
                if self.options(start)? {
                    // `a(?i)b|c` is `a(?i:b|c)`.
                    let node = self.alternatives()?;
                    self.flags = flags;
                    return Ok(node);
                }
                self.alternatives()?
            }
        };
        self.close(start)?;
        self.flags = flags;
        Ok(node)
    }

    fn close(&mut self, start: usize) -> Reading<()> {
        if self.eat(")") { Ok(()) } else { self.refuse_at(start, "this `(` has no `)`") }
    }

    fn plain_group(&mut self, start: usize) -> Reading<Node> {
        let counts = self.known.is_none_or(|known| known.iter().all(Option::is_none));
        if counts {
            self.groups.push(None);
        } else {
            self.note("groups without a name keep nothing");
        }
        let index = self.groups.len() as u32;
        let flags = self.flags;
        let node = self.alternatives()?;
        self.close(start)?;
        self.flags = flags;
        Ok(if counts { Node::Group(index, Box::new(node)) } else { node })
    }

    fn named_group(&mut self, close: char) -> Reading<Node> {
        let start = self.at;
        let name = self.name(close)?;
        if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return self.refuse_at(start, "a group's name begins with a letter");
        }
        self.groups.push(Some(name));
        // In the first reading groups without a name have numbers too; only the second one's numbers are used.
        let index = self.groups.len() as u32;
        Ok(Node::Group(index, Box::new(self.alternatives()?)))
    }

    fn name(&mut self, close: char) -> Reading<String> {
        let start = self.at;
        while let Some(c) = self.next() {
            if c == close && self.at > start + 1 {
                return Ok(self.text[start..self.at - 1].to_string());
            }
            if c == close || c == ')' {
                break;
            }
        }
        self.refuse_at(start, "this is no group's name")
    }

    fn look(&mut self, behind: bool, negated: bool) -> Reading<Node> {
        self.note("look-around");
        Ok(Node::Look { behind, negated, node: Box::new(self.alternatives()?) })
    }

    /// After `(?(`.
    fn condition(&mut self) -> Reading<Node> {
        self.note("conditions on groups");
        let start = self.at;
        let name = match self.peek() {
            Some('<') | Some('\'') => {
                let close = if self.next() == Some('<') { '>' } else { '\'' };
                let name = self.name(close)?;
                self.close(start)?;
                name
            }
            _ => self.name(')')?,
        };
        let groups = self.groups_of(&name, start)?;
        let yes = self.sequence()?;
        let no = if self.eat("|") { self.sequence()? } else { Node::Empty };
        Ok(Node::If { groups, yes: Box::new(yes), no: Box::new(no) })
    }

    /// Option letters; true if they stand alone and hold to the end of the group around.
    fn options(&mut self, start: usize) -> Reading<bool> {
        let mut on = true;
        loop {
            match self.next() {
                Some('i') => self.flags.fold = on,
                Some('x') => self.flags.extended = on,
                Some('m') => {
                    self.note("option m lets the dot take newlines");
                    self.flags.dot_all = on;
                }
                Some('a') if on => self.flags.reach = Reach::Ascii,
                Some('d') if on => self.flags.reach = Reach::Default,
                Some('u') if on => self.flags.reach = Reach::Unicode,
                Some('-') if on => on = false,
                Some(':') => return Ok(false),
                Some(')') => return Ok(true),
                _ => return self.refuse_at(start, "this kind of group is not known"),
            }
        }
    }

    /// After a backslash outside a class.
    fn escape(&mut self, start: usize) -> Reading<Node> {
        let Some(c) = self.next() else { return self.refuse_at(start, "the pattern ends in a backslash") };
        if let Some(class) = self.shorthand(c) {
            return Ok(Node::Class(class));
        }
        match c {
            'b' => Ok(Node::Assert(Assert::Word)),
            'B' => Ok(Node::Assert(Assert::NotWord)),
            'A' | 'G' => Ok(Node::Assert(Assert::TextStart)), // a search begins at the line's start
            'z' => Ok(Node::Assert(Assert::TextEnd)),
            'Z' => {
                self.note("\\Z stands before a last newline too");
                Ok(Node::Assert(Assert::TextEndOrNewline))
            }
            'R' => {
                self.note("\\R is any line break");
                Ok(line_break())
            }
            'X' => {
                self.note("\\X is a character with its marks");
                Ok(grapheme())
            }
            'K' => {
                self.note("\\K changes no field");
                Ok(Node::Empty)
            }
            'p' | 'P' => Ok(Node::Class(self.property(c == 'P', start)?)),
            'k' if self.rest().starts_with(['<', '\'']) => {
                let name = self.reference()?;
                self.back(&name, start)
            }
            'g' if self.rest().starts_with(['<', '\'']) => {
                let name = self.reference()?;
                self.call(&name, start)
            }
            '1'..='9' => self.number(start),
            '<' | '>' => {
                self.note("\\< and \\> are < and >");
                Ok(self.letter(c))
            }
            _ => {
                let c = self.escaped_char(c, start)?;
                Ok(self.letter(c))
            }
        }
    }

    fn shorthand(&mut self, c: char) -> Option<Class> {
        let class = Class::shorthand(c, self.flags.reach)?;
        match c {
            'h' | 'H' => self.note("\\h is a hex digit"),
            _ if self.flags.reach != Reach::Unicode => self.note("\\d, \\w and \\s are ASCII"),
            _ => {}
        }
        Some(class)
    }

    fn property(&mut self, negated: bool, start: usize) -> Reading<Class> {
        let end = self.rest().find('}').filter(|_| self.rest().starts_with('{'));
        let Some(end) = end else { return self.refuse_at(start, "\\p needs a name in braces") };
        let name = &self.rest()[1..end];
        self.at += end + 1;
        let (name, inverse) = match name.strip_prefix('^') {
            Some(name) => (name, true),
            None => (name, false),
        };
        match Class::property(name, self.flags.reach) {
            Some(class) => Ok(class.negated_if(negated != inverse)),
            None => self.refuse_at(start, &format!("no property of characters is called `{name}`")),
        }
    }

    fn reference(&mut self) -> Reading<String> {
        let close = if self.next() == Some('<') { '>' } else { '\'' };
        self.name(close)
    }

    fn back(&mut self, name: &str, start: usize) -> Reading<Node> {
        self.note("back references");
        Ok(Node::Back { groups: self.groups_of(name, start)?, fold: self.flags.fold })
    }

    fn call(&mut self, name: &str, start: usize) -> Reading<Node> {
        self.note("calls of groups");
        if name == "0" {
            return Ok(Node::Call(0));
        }
        match self.groups_of(name, start)?.as_slice() {
            [group] => Ok(Node::Call(*group)),
            [] => Ok(Node::Empty), // the first reading
            _ => self.refuse_at(start, &format!("more than one group is called `{name}`")),
        }
    }

    /// A number after a backslash: a group, or a character in octal.
    fn number(&mut self, start: usize) -> Reading<Node> {
        self.at = start + 1;
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let number = &self.rest()[..digits];
        let value: usize = number.parse().unwrap_or(usize::MAX);
        if value <= 9 || value <= self.known.map_or(0, <[_]>::len) {
            self.at += digits;
            return self.back(number, start);
        }
        let Some(c) = self.next() else { return self.refuse_at(start, "the pattern ends in a backslash") };
        let c = self.escaped_char(c, start)?;
        Ok(self.letter(c))
    }

    /// The groups of a name or number; none in the first reading.
    fn groups_of(&self, name: &str, start: usize) -> Reading<Vec<u32>> {
        let Some(known) = self.known else { return Ok(Vec::new()) };
        if name.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') {
            return self.numbered(name, known, start);
        }
        let found: Vec<u32> = (0..known.len()).filter(|i| known[*i].as_deref() == Some(name)).map(|i| i as u32 + 1).collect();
        if found.is_empty() { self.refuse_at(start, &format!("no group is called `{name}`")) } else { Ok(found) }
    }

    fn numbered(&self, name: &str, known: &[Option<String>], start: usize) -> Reading<Vec<u32>> {
        if known.iter().any(Option::is_some) {
            return self.refuse_at(start, "groups have no numbers where some have names");
        }
        let Ok(number) = name.parse::<i64>() else { return self.refuse_at(start, "levels of groups are not supported") };
        let opened = self.groups.len() as i64;
        let index = match name.as_bytes()[0] {
            b'-' => opened.saturating_add(number).saturating_add(1),
            b'+' => opened.saturating_add(number),
            _ => number,
        };
        if index < 1 || index > known.len() as i64 {
            return self.refuse_at(start, &format!("there is no group {name}"));
        }
        Ok(vec![index as u32])
    }
}

fn repeat(node: Node, min: u32, max: Option<u32>, greed: Greed) -> Node {
    match (min, max) {
        (1, Some(1)) if greed != Greed::Possessive => node,
        _ => Node::Repeat { node: Box::new(node), min, max, greed },
    }
}

/// Least and most turns, whether written in braces, and its length in bytes.
fn quantifier(text: &str) -> Option<(u32, Option<u32>, bool, usize)> {
    match text.as_bytes().first()? {
        b'*' => Some((0, None, false, 1)),
        b'+' => Some((1, None, false, 1)),
        b'?' => Some((0, Some(1), false, 1)),
        b'{' => interval(text).map(|(min, max, length)| (min, max, true, length)),
        _ => None,
    }
}

/// `{n}`, `{n,}`, `{,m}`, `{n,m}`: least, most, length in bytes. All else is no quantifier.
fn interval(text: &str) -> Option<(u32, Option<u32>, usize)> {
    let inner = &text[1..text.find('}')?];
    let number = |digits: &str| -> Option<u32> {
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| digits.parse().unwrap_or(u32::MAX))
    };
    let (min, max) = match inner.split_once(',') {
        None => {
            let count = number(inner)?;
            (count, Some(count))
        }
        Some(("", max)) => (0, Some(number(max)?)),
        Some((min, "")) => (number(min)?, None),
        Some((min, max)) => (number(min)?, Some(number(max)?)),
    };
    Some((min, max, inner.len() + 2))
}

fn line_break() -> Node {
    let one = Class::of(&[('\n', '\r'), ('\u{85}', '\u{85}'), ('\u{2028}', '\u{2029}')]);
    let two = Node::Concat(vec![Node::Char('\r'), Node::Char('\n')]);
    Node::Atomic(Box::new(Node::Alt(vec![two, Node::Class(one)])))
}

fn grapheme() -> Node {
    let mut marks = Class::property("M", Reach::Unicode).unwrap_or_default();
    marks.add(&Class::of(&[('\u{200d}', '\u{200d}')]));
    let marks = Node::Repeat { node: Box::new(Node::Class(marks)), min: 0, max: None, greed: Greed::Greedy };
    let two = Node::Concat(vec![Node::Char('\r'), Node::Char('\n')]);
    Node::Atomic(Box::new(Node::Alt(vec![two, Node::Concat(vec![Node::Class(Class::dot(true)), marks])])))
}
