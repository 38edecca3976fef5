//! Classes in brackets: ranges, classes within classes, `&&`, `[:alpha:]`.
//!
//! A hyphen that makes no range is a hyphen, and `]` at the start is a bracket if another one follows.

use super::{Class, Reach, Reader, Reading};

impl Reader<'_> {
    /// After `[`.
    pub(super) fn class(&mut self, start: usize) -> Reading<Class> {
        self.nested(|r| r.class_body(start))
    }

    fn class_body(&mut self, start: usize) -> Reading<Class> {
        let negated = self.eat("^");
        let mut class = Class::empty();
        let mut left: Option<Class> = None;
        let mut is_first = true;
        loop {
            let at = self.at;
            let Some(c) = self.next() else { return self.refuse_at(start, "this `[` has no `]`") };
            match c {
                ']' if is_first && !self.rest().contains(']') => return self.refuse_at(start, "this class is empty"),
                ']' if !is_first => break,
                '[' => {
                    let inner = self.bracket(at)?;
                    class.add(&inner);
                }
                '&' if self.eat("&") => {
                    self.meet(&mut left, &mut class);
                }
                _ => self.class_item(c, at, &mut class)?,
            }
            is_first = false;
        }
        self.meet(&mut left, &mut class);
        let mut class = left.unwrap_or_default();
        if self.flags.fold {
            class.fold();
        }
        Ok(class.negated_if(negated))
    }

    fn meet(&self, left: &mut Option<Class>, class: &mut Class) {
        let right = std::mem::take(class);
        match left {
            Some(left) => left.keep(&right),
            None => *left = Some(right),
        }
    }

    /// After `[` within a class: `[:alpha:]`, or a class.
    fn bracket(&mut self, start: usize) -> Reading<Class> {
        if let Some((name, _)) = self.rest().strip_prefix(':').and_then(|rest| rest.split_once(":]")) {
            let (plain, negated) = match name.strip_prefix('^') {
                Some(plain) => (plain, true),
                None => (name, false),
            };
            if let Some(class) = Class::posix(plain, self.flags.reach) {
                self.at += name.len() + ":".len() + ":]".len();
                if self.flags.reach != Reach::Ascii {
                    self.note("[[:alpha:]] and its kin hold all scripts");
                }
                return Ok(class.negated_if(negated));
            }
        }
        self.class(start)
    }

    /// A character, a range, or an escape that is a class.
    fn class_item(&mut self, c: char, at: usize, class: &mut Class) -> Reading<()> {
        let low = match c {
            '\\' => match self.class_escape(at)? {
                Ok(c) => c,
                Err(shorthand) => {
                    class.add(&shorthand);
                    return Ok(());
                }
            },
            c => c,
        };
        let high = self.range_end(at)?.unwrap_or(low);
        if high < low {
            return self.refuse_at(at, "this range ends before it begins");
        }
        class.add(&Class::of(&[(low, high)]));
        Ok(())
    }

    /// After a backslash in a class: a character, or as error a class.
    fn class_escape(&mut self, start: usize) -> Reading<Result<char, Class>> {
        let Some(c) = self.next() else { return self.refuse_at(start, "the pattern ends in a backslash") };
        if let Some(shorthand) = self.shorthand(c) {
            return Ok(Err(shorthand));
        }
        match c {
            'b' => Ok(Ok('\x08')),
            'p' | 'P' => Ok(Err(self.property(c == 'P', start)?)),
            _ => Ok(Ok(self.escaped_char(c, start)?)),
        }
    }

    /// What `-` leads to, if it makes a range.
    fn range_end(&mut self, at: usize) -> Reading<Option<char>> {
        let before = self.at;
        if !self.eat("-") {
            return Ok(None);
        }
        let end = match self.peek() {
            None | Some(']' | '[') => None,
            Some('&') if self.rest().starts_with("&&") => None,
            Some('\\') => {
                self.next();
                self.class_escape(at)?.ok()
            }
            Some(c) => {
                self.next();
                Some(c)
            }
        };
        if end.is_none() {
            self.at = before; // the hyphen is one
        }
        Ok(end)
    }
}
