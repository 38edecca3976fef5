//! Which parsers fit a few lines: for people who have a file and no idea.
//!
//! In: lines and parsers. Out: a score for each parser that reads at least one line, the best first: more lines, then more of
//! them with a time, then more fields. A parser that makes one field of most of its lines says nothing about them and comes
//! last. For JSON, which producer's conventions the names are.

use crate::json;
use crate::parser::{Outcome, Parser, Scratch};
use std::cmp::Reverse;

/// How well a parser fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    pub name: String,
    /// Where it stands among the candidates.
    pub candidate: usize,
    /// Lines that it reads.
    pub matched: usize,
    /// Lines in which it found a time.
    pub timed: usize,
    /// Fields that it made of all lines; the time counts where it is taken out.
    pub fields: usize,
    /// Lines of which it made a single field, or only bare names.
    pub vague: usize,
}

impl Score {
    /// The larger, the better; of equals, the first candidate.
    fn rank(&self) -> impl Ord + use<> {
        let tells = self.vague * 2 < self.matched;
        (tells, self.matched, self.timed, if tells { self.fields } else { 0 }, Reverse(self.candidate))
    }
}

/// Scores each candidate, the best first; those that read no line are left out. `arrival_ns`: now, for times without a year.
pub fn score(lines: &[&[u8]], candidates: &[&Parser], arrival_ns: i64) -> Vec<Score> {
    let mut scratch = Scratch::default();
    let scored = candidates.iter().enumerate().map(|(n, parser)| score_one(lines, n, parser, arrival_ns, &mut scratch));
    let mut scores: Vec<Score> = scored.filter(|score| score.matched > 0).collect();
    scores.sort_by_key(|s| Reverse(s.rank()));
    scores
}

fn score_one(lines: &[&[u8]], candidate: usize, parser: &Parser, arrival_ns: i64, scratch: &mut Scratch) -> Score {
    let mut score = Score { name: parser.name().to_string(), candidate, matched: 0, timed: 0, fields: 0, vague: 0 };
    let mut out = Vec::new();
    for line in lines {
        out.clear();
        let Outcome::Parsed { time_ns } = parser.parse(line, arrival_ns, scratch, &mut out) else { continue };
        let (mut fields, mut told) = (0, 0);
        json::members(&out, &mut |_, value| {
            fields += 1;
            told += usize::from(value != b"true");
        });
        score.matched += 1;
        score.timed += usize::from(time_ns.is_some());
        score.fields += fields + usize::from(time_ns.is_some());
        score.vague += usize::from(fields <= 1 || told == 0);
    }
    score
}

/// Names by which a producer of JSON is known: all of the first, and one of the second unless there are none.
struct Convention {
    name: &'static str,
    all: &'static [&'static str],
    any: &'static [&'static str],
}

/// The first that fits is the one: those with names of their own stand before those that share theirs.
const CONVENTIONS: [Convention; 12] = [
    Convention { name: "otel", all: &["timeUnixNano"], any: &["severityNumber", "severityText", "body"] },
    Convention { name: "journald", all: &["__REALTIME_TIMESTAMP"], any: &["MESSAGE", "PRIORITY"] },
    Convention { name: "ecs", all: &["@timestamp"], any: &["ecs.version", "log.level", "ecs"] },
    Convention { name: "logback", all: &["@timestamp", "level"], any: &["level_value", "logger_name", "thread_name", "@version"] },
    Convention { name: "gcp", all: &["severity"], any: &["timestampSeconds", "timestamp", "time", "logging.googleapis.com/trace"] },
    Convention { name: "bunyan", all: &["v", "name", "hostname", "pid", "level", "time", "msg"], any: &[] },
    Convention { name: "pino", all: &["level", "time", "pid", "hostname"], any: &[] },
    Convention { name: "zap", all: &["level", "ts"], any: &["msg", "caller", "logger"] },
    Convention { name: "zap development", all: &["L", "T", "M"], any: &[] },
    Convention { name: "zerolog", all: &["level", "message"], any: &["time"] },
    Convention { name: "slog", all: &["time", "level", "msg"], any: &[] },
    Convention { name: "docker", all: &["log", "stream", "time"], any: &[] },
];

/// Whose conventions most lines follow, and how many do; `None` where no line is an object of a known kind.
///
/// logrus and Go's slog have the same names; they differ in how they write levels: `info` or `INFO`.
pub fn convention(lines: &[&[u8]]) -> Option<(&'static str, usize)> {
    let known: Vec<&str> = lines.iter().filter_map(|line| convention_of(line)).collect();
    let count = |name: &str| known.iter().filter(|other| **other == name).count();
    known.iter().map(|name| (*name, count(name))).max_by_key(|(_, count)| *count)
}

fn convention_of(line: &[u8]) -> Option<&'static str> {
    let (mut names, mut level) = (Vec::new(), None);
    let is_object = json::members(line, &mut |name, value| {
        names.push(name);
        if name == b"level" {
            level = json::string(value);
        }
    });
    let has = |name: &&str| names.contains(&name.as_bytes());
    let fits = |c: &&Convention| c.all.iter().all(has) && (c.any.is_empty() || c.any.iter().any(has));
    match CONVENTIONS.iter().filter(|_| is_object).find(fits)?.name {
        "slog" if level.is_some_and(|level| level.first().is_some_and(u8::is_ascii_lowercase)) => Some("logrus"),
        name => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Definition, Format};

    fn best(lines: &[&str]) -> Vec<String> {
        let formats = [
            ("all", Format::Regex("^(?<message>.*)$".to_string())),
            ("logfmt", Format::Logfmt { bare_keys: true }),
            ("ltsv", Format::Ltsv),
            ("syslog", Format::Syslog),
            ("apache", Format::Apache),
            ("nginx", Format::Nginx),
            ("klog", Format::Klog),
            ("json", Format::Json),
            ("docker", Format::Docker),
        ];
        let parsers: Vec<Parser> = formats.into_iter().map(|(name, format)| Parser::new(&Definition::new(name, format)).unwrap()).collect();
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let scores = score(&lines, &parsers.iter().collect::<Vec<_>>(), 0);
        scores.into_iter().map(|score| format!("{} {}", score.name, score.matched)).collect()
    }

    #[test]
    fn the_most_telling_parser_comes_first() {
        assert_eq!(best(&["a=1 b=2", "a=2 b=\"x y\"", "panic: something"])[0], "logfmt 3");
        assert_eq!(best(&["plain words", "and more"])[0], "all 2");
        assert_eq!(best(&["{\"log\":\"x\",\"stream\":\"stdout\",\"time\":\"2024-01-01T00:00:00Z\"}"])[0], "docker 1");
        assert_eq!(best(&["{\"a\":\"x\",\"b\":1}"])[0], "json 1");
        assert_eq!(best(&["I0102 15:04:05.678901 1234 file.go:56] message", "  a stack"])[0], "klog 1");
        let access = "192.0.2.10 - - [10/Oct/2024:13:55:36 +0000] \"GET /x HTTP/1.1\" 400 17 \"-\" \"curl\"";
        assert_eq!(best(&[access, access])[0], "nginx 2");
    }

    #[test]
    fn conventions_are_told_by_their_names() {
        let name = |line: &str| convention(&[line.as_bytes()]).map_or("none", |(name, _)| name);
        assert_eq!(name(r#"{"level":"info","ts":1700000000.123456,"caller":"a/b.go:7","msg":"x"}"#), "zap");
        assert_eq!(name(r#"{"level":"info","time":"2024-01-01T00:00:00Z","msg":"x"}"#), "logrus");
        assert_eq!(name(r#"{"time":"2024-01-01T00:00:00Z","level":"INFO","msg":"x"}"#), "slog");
        assert_eq!(name(r#"{"level":"info","time":1700000000,"message":"x"}"#), "zerolog");
        assert_eq!(name(r#"{"name":"a","hostname":"h","pid":1,"level":30,"msg":"x","time":"2024-01-01T00:00:00Z","v":0}"#), "bunyan");
        assert_eq!(name(r#"{"level":30,"time":1700000000123,"pid":1,"hostname":"h","msg":"x"}"#), "pino");
        assert_eq!(name(r#"{"@timestamp":"2024","@version":"1","message":"x","level":"INFO","level_value":20000}"#), "logback");
        assert_eq!(name(r#"{"log.level":" WARN","@timestamp":"2024-01-02T03:04:05Z","message":"x"}"#), "ecs");
        assert_eq!(name(r#"{"severity":"NOTICE","timestampSeconds":1700000000,"timestampNanos":5}"#), "gcp");
        assert_eq!(name(r#"{"timeUnixNano":"1","severityNumber":9,"body":{"stringValue":"x"}}"#), "otel");
        assert_eq!(name(r#"{"__REALTIME_TIMESTAMP":"1","PRIORITY":"6","MESSAGE":"x"}"#), "journald");
        assert_eq!(name(r#"{"a":1}"#), "none");
        assert_eq!(name("x"), "none");
    }
}
