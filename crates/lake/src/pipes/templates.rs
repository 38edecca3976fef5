//! Templates of messages: what is left when the parts that vary become `<*>`.
//!
//! In: messages; out: templates with how often, from when to when, and an example. A part varies if it has a
//! digit in it, is a long hex number or stands in quotes; parts that only signs separate are one. At the end a
//! word is found to vary, too, if at least [`VARIANTS_MIN`] different ones stand in its place in lines that are the
//! same elsewhere (the idea of Drain, He and others 2017, but in no order of arrival, so neither order nor split
//! of the records shows). Memory: at most [`TEMPLATES_MAX`] templates of [`WORDS_MAX`] words; with more all are
//! cut to fewer words, which is said as `<...>`.

use super::table::Cell;
use flow::units::UnixNanos;
use hashbrown::HashMap;

pub(crate) const TEMPLATES_MAX: usize = 10_000;
const WORDS_MAX: usize = 64;
/// Words that are kept, level by level, until the templates are few enough.
const LEVELS: [usize; 7] = [WORDS_MAX, 16, 8, 4, 2, 1, 0];
const VARIANTS_MIN: usize = 6;
/// Beginning of a message that is looked at, and of an example that is kept.
const MESSAGE_BYTES_MAX: usize = 4096;
const EXAMPLE_BYTES_MAX: usize = 512;
const HOLE: &str = "<*>";
const CUT: &str = "<...>";
/// What a template costs beside its text: its example and its place.
const ENTRY_BYTES: usize = EXAMPLE_BYTES_MAX + 128;

#[derive(Clone)]
pub(crate) struct Templates {
    map: HashMap<Box<str>, Entry>,
    level: usize,
    cost: usize,
    cost_max: usize,
    buffer: String,
}

#[derive(Clone, Debug)]
struct Entry {
    count: u64,
    first: i64,
    last: i64,
    /// Of the earliest record, and of those at one time the least by bytes.
    example: Box<str>,
}

impl Entry {
    fn merge(&mut self, other: Entry) {
        self.count += other.count;
        if (other.first, &other.example) < (self.first, &self.example) {
            self.example = other.example;
        }
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

impl Templates {
    pub(crate) fn new(cost_max: usize) -> Templates {
        Templates { map: HashMap::new(), level: 0, cost: 0, cost_max, buffer: String::new() }
    }

    pub(crate) fn add(&mut self, message: &[u8], time: i64) -> anyhow::Result<()> {
        let message = String::from_utf8_lossy(&message[..message.len().min(MESSAGE_BYTES_MAX)]);
        let mut template = std::mem::take(&mut self.buffer);
        template.clear();
        mask(&message, &mut template);
        shorten(&mut template, LEVELS[self.level]);
        match self.map.get_mut(template.as_str()) {
            Some(entry) if time > entry.first => {
                entry.count += 1;
                entry.last = entry.last.max(time);
            }
            _ => self.put(&template, Entry { count: 1, first: time, last: time, example: example(&message).into() }),
        }
        self.buffer = template;
        self.bound()
    }

    fn put(&mut self, template: &str, entry: Entry) {
        match self.map.get_mut(template) {
            Some(own) => own.merge(entry),
            None => {
                self.cost += template.len() + ENTRY_BYTES;
                self.map.insert(template.into(), entry);
            }
        }
    }

    pub(crate) fn merge(&mut self, mut other: Templates) -> anyhow::Result<()> {
        while other.level < self.level {
            other.coarsen();
        }
        while self.level < other.level {
            self.coarsen();
        }
        for (template, entry) in other.map {
            self.put(&template, entry);
        }
        self.bound()
    }

    fn bound(&mut self) -> anyhow::Result<()> {
        while self.map.len() > TEMPLATES_MAX || self.cost > self.cost_max {
            if self.level + 1 == LEVELS.len() {
                crate::unanswerable!(
                    "patterns take more than the {} bytes that this query may use\n  help: give the query more memory",
                    self.cost_max
                );
            }
            self.coarsen();
        }
        Ok(())
    }

    /// Cuts every template to fewer words.
    fn coarsen(&mut self) {
        self.level += 1;
        self.cost = 0;
        for (template, entry) in std::mem::take(&mut self.map) {
            let mut template = String::from(template);
            shorten(&mut template, LEVELS[self.level]);
            self.put(&template, entry);
        }
    }

    pub(crate) fn note(&self) -> Option<String> {
        let words = LEVELS[self.level];
        (self.level > 0).then(|| format!("the messages have too many templates: each was cut to its first {words} words"))
    }

    /// The most frequent templates first.
    pub(crate) fn rows(self, n: usize) -> Vec<Vec<Cell>> {
        let mut templates: Vec<(Vec<String>, Entry)> =
            self.map.into_iter().map(|(template, entry)| (template.split(' ').map(str::to_owned).collect(), entry)).collect();
        templates.sort_by(|a, b| a.0.cmp(&b.0));
        let longest = templates.iter().map(|t| t.0.len()).max().unwrap_or(0);
        for at in 0..longest {
            templates = join_at(templates, at);
        }
        let mut rows: Vec<(u64, String, Entry)> =
            templates.into_iter().map(|(words, entry)| (entry.count, words.join(" "), entry)).collect();
        rows.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        rows.truncate(n);
        rows.into_iter()
            .map(|(count, template, entry)| {
                let time = |time| Cell::Time(UnixNanos(time));
                vec![
                    Cell::Text(template),
                    Cell::Int(i128::from(count)),
                    time(entry.first),
                    time(entry.last),
                    Cell::Text(entry.example.into()),
                ]
            })
            .collect()
    }
}

/// Joins templates that differ in the word at `at` only, where there are enough of them and words to tell them by.
fn join_at(templates: Vec<(Vec<String>, Entry)>, at: usize) -> Vec<(Vec<String>, Entry)> {
    let mut alike: HashMap<Vec<&str>, usize> = HashMap::new();
    let rest = |words: &'_ [String]| -> Option<bool> {
        let others = words.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, word)| word);
        (at < words.len()).then(|| others.into_iter().any(|word| word.replace(HOLE, "").replace(CUT, "").contains(char::is_alphabetic)))
    };
    let key = |words: &'_ [String]| -> Option<bool> { rest(words).filter(|tells| *tells) };
    for (words, _) in templates.iter().filter(|(words, _)| key(words).is_some()) {
        let hole: Vec<&str> = words.iter().enumerate().map(|(i, word)| if i == at { HOLE } else { word.as_str() }).collect();
        *alike.entry(hole).or_default() += 1;
    }
    let many: Vec<bool> = templates
        .iter()
        .map(|(words, _)| {
            let hole: Vec<&str> = words.iter().enumerate().map(|(i, word)| if i == at { HOLE } else { word.as_str() }).collect();
            key(words).is_some() && alike.get(&hole).is_some_and(|n| *n >= VARIANTS_MIN)
        })
        .collect();
    drop(alike);
    let mut joined: HashMap<Vec<String>, Entry> = HashMap::new();
    let mut out = Vec::new();
    for ((mut words, entry), many) in templates.into_iter().zip(many) {
        if !many {
            out.push((words, entry));
            continue;
        }
        words[at] = HOLE.to_owned();
        match joined.get_mut(&words) {
            Some(own) => own.merge(entry),
            None => {
                joined.insert(words, entry);
            }
        }
    }
    // One that had the hole already may be among those that were left alone.
    for (words, entry) in &mut out {
        if let Some(more) = joined.remove(words) {
            entry.merge(more);
        }
    }
    out.extend(joined);
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn example(message: &str) -> &str {
    let mut end = message.len().min(EXAMPLE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

/// Keeps so many words and says if there were more.
fn shorten(template: &mut String, words: usize) {
    let end = if words == 0 { Some(0) } else { template.match_indices(' ').nth(words - 1).map(|(at, _)| at + 1) };
    if let Some(end) = end.filter(|end| &template[*end..] != CUT && *end < template.len()) {
        template.truncate(end);
        template.push_str(CUT);
    }
}

/// Appends the template of a message: one blank between words, holes for what varies.
fn mask(message: &str, out: &mut String) {
    // One more than is kept, so that `shorten` sees that there are more.
    for (at, word) in (Pieces { rest: message }).take(WORDS_MAX + 1).enumerate() {
        if at > 0 {
            out.push(' ');
        }
        mask_word(word, out);
    }
}

/// Words between blanks; what stands in quotes is in one of them.
struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        if text.is_empty() {
            return None;
        }
        let mut end = text.len();
        let mut skip_to = 0;
        for (at, c) in text.char_indices() {
            if at < skip_to {
                continue;
            }
            if c.is_whitespace() {
                end = at;
                break;
            }
            if let Some(len) = quoted_len(&text[..at], &text[at..]) {
                skip_to = at + len;
            }
        }
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        Some(word)
    }
}

/// The length of a quoted text that begins here, quotes included: within 200 bytes, and no apostrophe.
fn quoted_len(before: &str, text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    if quote != '"' && before.chars().next_back().is_some_and(char::is_alphanumeric) {
        return None;
    }
    let close = text.bytes().skip(1).take(200).position(|b| b == quote as u8)? + 1;
    let after = text[close + 1..].chars().next();
    (quote == '"' || !after.is_some_and(char::is_alphanumeric)).then_some(close + 1)
}

fn mask_word(word: &str, out: &mut String) {
    let start = out.len();
    let mut rest = word;
    while let Some(c) = rest.chars().next() {
        if let Some(len) = quoted_len(&word[..word.len() - rest.len()], rest) {
            out.push(c);
            out.push_str(HOLE);
            out.push(c);
            rest = &rest[len..];
            continue;
        }
        if !c.is_alphanumeric() {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        if !varies(run, out[start..].ends_with("<*>-")) {
            out.push_str(run);
            continue;
        }
        // A hole, one sign, and again a hole: one value, as an address or a time.
        let own = &out[start..];
        let mut chars = own.chars();
        let is_joined = chars.next_back().is_some_and(|c| ".:-_,/@+%#T".contains(c)) && chars.as_str().ends_with(HOLE);
        if is_joined {
            out.pop();
        } else {
            out.push_str(HOLE);
        }
    }
}

fn varies(run: &str, after_hole: bool) -> bool {
    let is_hex = |run: &str| run.bytes().all(|b| b.is_ascii_hexdigit());
    run.contains(|c: char| c.is_numeric()) || (run.len() >= 8 && is_hex(run)) || (after_hole && run.len() >= 4 && is_hex(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, want: &str) {
        let mut out = String::new();
        mask(message, &mut out);
        assert_eq!(out, want);
    }

    #[test]
    fn what_varies_becomes_a_hole() {
        check("Accepted password for root from 10.0.0.1 port 4242 ssh2", "Accepted password for root from <*> port <*> <*>");
        check("user=42 took 12.5ms, id 550e8400-e29b-41d4-abcd-446655440000", "user=<*> took <*>, id <*>");
        check("GET /api/v1/users/17/posts?x=1 deadbeefcafe", "GET /api/<*>/users/<*>/posts?x=<*> <*>");
        check("cannot open \"a file\":  can't, 'x y' or `z`", "cannot open \"<*>\": can't, '<*>' or `<*>`");
        check("a \"b", "a \"b");
        check(" ", "");
        check("é 2026-11-23T03:00:00Z ü", "é <*> ü");
    }

    fn run(messages: &[(i64, &str)], cost_max: usize) -> (Vec<String>, Option<String>) {
        let mut whole = Templates::new(cost_max);
        let mut parts = [Templates::new(cost_max), Templates::new(cost_max)];
        messages.iter().for_each(|(time, message)| whole.add(message.as_bytes(), *time).unwrap());
        for (i, (time, message)) in messages.iter().enumerate().rev() {
            parts[i % 2].add(message.as_bytes(), *time).unwrap();
        }
        let [mut left, right] = parts;
        left.merge(right).unwrap();
        assert_eq!(left.note(), whole.note());
        let note = whole.note();
        let show = |templates: Templates| {
            templates.rows(100).iter().map(|r| r.iter().map(Cell::to_string).collect::<Vec<_>>().join("|")).collect::<Vec<_>>()
        };
        let rows = show(whole);
        assert_eq!(show(left), rows);
        (rows, note)
    }

    #[test]
    fn a_word_varies_where_many_stand_in_its_place() {
        let names = ["ann", "bob", "cid", "dan", "eve", "fay"];
        let messages: Vec<(i64, String)> = names.iter().enumerate().map(|(i, name)| (i as i64, format!("user {name} logged in"))).collect();
        let mut all: Vec<(i64, &str)> = messages.iter().map(|(t, m)| (*t, m.as_str())).collect();
        all.extend([(3, "door opened"), (4, "door closed"), (9, "door opened")]);
        let zero = "1970-01-01T00:00:00";
        let want = [
            format!("user <*> logged in|6|{zero}Z|{zero}.000000005Z|user ann logged in"),
            format!("door opened|2|{zero}.000000003Z|{zero}.000000009Z|door opened"),
            format!("door closed|1|{zero}.000000004Z|{zero}.000000004Z|door closed"),
        ];
        assert_eq!(run(&all, 1 << 20), (want.to_vec(), None));
    }

    #[test]
    fn too_many_templates_are_cut_to_fewer_words() {
        let letters = |n: usize| -> String { [n / 676 % 26, n / 26 % 26, n % 26].map(|d| (b'g' + d as u8 % 20) as char).iter().collect() };
        let messages: Vec<(i64, String)> = (0..3_000).map(|i| (i as i64, format!("{} {} end", letters(i), letters(i * 7)))).collect();
        let all: Vec<(i64, &str)> = messages.iter().map(|(t, m)| (*t, m.as_str())).collect();
        let (rows, note) = run(&all, 100_000);
        assert!(note.unwrap().contains("first"), "{rows:?}");
        let total: u64 = rows.iter().map(|r| r.split('|').nth(1).unwrap().parse::<u64>().unwrap()).sum();
        assert!(rows.len() == 100 || total == 3_000);
    }
}
