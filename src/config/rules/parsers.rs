//! Rules about parsers and tests: definitions that compile, and names that are there.

use super::{Config, Path, Rules, nearest};
use crate::config::model::PARSERS;
use crate::sources::config::ParseConfig;
use flow::fields::Kind;
use flow::time::TimeParser;
use parse::parser::Parser;

/// Most parsers tried on one line.
const PARSERS_MAX: usize = 256;

impl Rules<'_> {
    pub(super) fn parsers(&mut self, config: &Config, root: &Path) {
        for (name, definition) in &config.parsers {
            let at = root.key("parsers").key(name);
            if PARSERS.contains(&name.as_str()) {
                self.at_key(&at, format!("{name} needs no definition; a parser has a name of its own; choose another"));
            }
            if let Err(refusal) = Parser::new(definition) {
                self.at(&at.key("format"), format!("{}; a parser reads lines of one format; see `weir schema reference`", refusal.reason));
            }
        }
        for (name, source) in &config.sources {
            let at = root.key("sources").key(name).key(source.kind()).key("parse");
            source.parse().iter().enumerate().for_each(|(i, stage)| self.parse(&at.index(i), stage, config));
        }
    }

    pub(super) fn tests(&mut self, config: &Config, root: &Path) {
        for (i, test) in config.tests.iter().enumerate() {
            let at = root.key("tests").index(i);
            if let Some(name) = test.source.as_ref().filter(|name| !config.sources.contains_key(*name)) {
                let known = config.sources.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                self.at(&at.key("source"), format!("there is no source {name:?}; the lines are those of a source; write one of {known}"));
            }
            if let Some(time) = test.at.as_ref().filter(|time| TimeParser::new().parse(time.as_bytes(), Kind::Text).is_none()) {
                self.at(&at.key("at"), format!("{time:?} is no time; lines arrive at a time of 1990 to 2100; write 2026-01-01T00:00:00Z"));
            }
        }
    }

    fn parse(&mut self, at: &Path, parse: &ParseConfig, config: &Config) {
        let with = at.key("with");
        if !(1..=PARSERS_MAX).contains(&parse.with.len()) && !self.damaged(&with) {
            let rule = format!("1 to {PARSERS_MAX} parsers are tried in order");
            self.at(&with, format!("names {} parsers; {rule}; write [nginx]", parse.with.len()));
        }
        for (i, name) in parse.with.iter().enumerate().filter(|(_, name)| config.parser(name).is_none()) {
            let known = config.parsers.keys().map(String::as_str).chain(config.library.iter().map(|known| known.name.as_str()));
            let help = match nearest(name, known.chain(PARSERS)) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("define it under `parsers`, or write one of {}", PARSERS.join(", ")),
            };
            self.at(
                &with.index(i),
                format!("there is no parser {name:?}; a parser is one of `parsers`, `parser_files` or built in; {help}"),
            );
        }
        if let Some(field) = &parse.field {
            self.field_list(&at.key("field"), std::slice::from_ref(field));
        }
        if parse.original.as_ref().is_some_and(String::is_empty) {
            self.at(&at.key("original"), "is no name; the line is kept in a member of this name; write log");
        }
    }
}
