//! One message of syslog to one record of JSON: RFC 5424, RFC 3164, and what is sent in their names.
//!
//! In: a message and when it came. Out: `{"time":..,"level":..,"facility":..,"pri":..,"host":..,"app":..,"pid":..,"msgid":..,
//! "structured_data":..,"message":..}`, without what it does not say. Anything is a message: what cannot be told apart stays in
//! `message`. A time of RFC 3164 has neither year nor zone: it is UTC, in the latest year in which it is at most a day ahead of
//! arrival. Bytes that are no UTF-8 become U+FFFD.

use super::super::http::put_text;
use flow::units::{NANOS_PER_SECOND, UnixNanos, days_from_civil};

/// user.notice, as RFC 3164 says of messages without a priority.
const PRI_MISSING: u8 = 13;
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
/// As `level` names them elsewhere; emergency and alert are fatal.
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"];
const MONTHS: [&[u8; 3]; 12] = [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const NANOS_PER_DAY: i64 = 86_400 * NANOS_PER_SECOND;

#[derive(Default)]
struct Message<'a> {
    pri: u8,
    time: Option<Vec<u8>>,
    host: &'a [u8],
    app: &'a [u8],
    pid: &'a [u8],
    msgid: &'a [u8],
    structured: Vec<Element<'a>>,
    text: &'a [u8],
}

struct Element<'a> {
    id: &'a [u8],
    params: Vec<(&'a [u8], Vec<u8>)>,
}

/// Appends the record, without a newline. `arrival_ns`: since 1970.
pub fn record(message: &[u8], arrival_ns: i64, out: &mut Vec<u8>) {
    let message = message.trim_ascii_end();
    let (pri, rest) = priority(message);
    let parsed = rest.strip_prefix(b"1 ").and_then(rfc5424).unwrap_or_else(|| rfc3164(rest, arrival_ns));
    write(&Message { pri, ..parsed }, out);
}

fn write(message: &Message, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(time) = &message.time {
        member("time", time, out);
    }
    member("level", LEVELS[usize::from(message.pri % 8)].as_bytes(), out);
    member("facility", FACILITIES.get(usize::from(message.pri / 8)).unwrap_or(&"unknown").as_bytes(), out);
    out.extend_from_slice(format!("\"pri\":{},\"severity_code\":{},", message.pri, message.pri % 8).as_bytes());
    for (name, value) in [("host", message.host), ("app", message.app), ("pid", message.pid), ("msgid", message.msgid)] {
        if !value.is_empty() && value != b"-" {
            member(name, value, out);
        }
    }
    if !message.structured.is_empty() {
        out.extend_from_slice(b"\"structured_data\":{");
        for element in &message.structured {
            put_text(element.id, out);
            out.extend_from_slice(b":{");
            for (name, value) in &element.params {
                put_text(name, out);
                out.push(b':');
                put_text(value, out);
                out.push(b',');
            }
            close(out);
            out.push(b',');
        }
        close(out);
        out.push(b',');
    }
    member("message", message.text, out);
    close(out);
}

fn member(name: &str, value: &[u8], out: &mut Vec<u8>) {
    put_text(name.as_bytes(), out);
    out.push(b':');
    put_text(value, out);
    out.push(b',');
}

/// Ends an object, without the comma of its last member.
fn close(out: &mut Vec<u8>) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(b'}');
}

/// `<13>` at the start: the number, and what stands behind it.
fn priority(message: &[u8]) -> (u8, &[u8]) {
    let end = message.iter().take(5).position(|b| *b == b'>');
    let number = end.filter(|_| message[0] == b'<').and_then(|end| number(&message[1..end]).map(|number| (number, end)));
    match number {
        Some((number @ 0..=191, end)) => (number as u8, &message[end + 1..]),
        _ => (PRI_MISSING, message),
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

/// Up to the next blank, and what stands behind it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', text) {
        Some(blank) => (&text[..blank], &text[blank + 1..]),
        None => (text, b""),
    }
}

/// What stands behind the version: `TIME HOST APP PID MSGID SD MESSAGE`.
fn rfc5424(rest: &[u8]) -> Option<Message<'_>> {
    let (time, rest) = word(rest);
    let (host, rest) = word(rest);
    let (app, rest) = word(rest);
    let (pid, rest) = word(rest);
    let (msgid, rest) = word(rest);
    let is_time = time == b"-" || is_rfc3339(time);
    let (structured, text) = structured_data(rest)?;
    if !is_time || msgid.is_empty() {
        return None;
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    Some(Message { pri: 0, time: (time != b"-").then(|| time.to_vec()), host, app, pid, msgid, structured, text })
}

/// Begins as `2026-01-02T03:04:05` and goes on with a fraction, if any, and a zone.
fn is_rfc3339(text: &[u8]) -> bool {
    let shape = b"0000-00-00T00:00:00";
    let like = |(b, shape): (&u8, &u8)| if *shape == b'0' { b.is_ascii_digit() } else { b == shape };
    let rest = match text.get(..shape.len()) {
        Some(head) if head.iter().zip(shape).all(like) => &text[shape.len()..],
        _ => return false,
    };
    let rest = match rest.strip_prefix(b".") {
        Some(fraction) => &fraction[fraction.iter().take_while(|b| b.is_ascii_digit()).count()..],
        None => rest,
    };
    rest == b"Z" || (rest.len() == 6 && matches!(rest[0], b'+' | b'-') && rest[3] == b':')
}

/// `-`, or elements in brackets; and the text behind them.
fn structured_data(text: &[u8]) -> Option<(Vec<Element<'_>>, &[u8])> {
    let behind = |rest: &'_ [u8]| -> Option<usize> {
        match rest.first() {
            None => Some(0),
            Some(b' ') => Some(1),
            Some(_) => None,
        }
    };
    if let Some(rest) = text.strip_prefix(b"-") {
        return Some((Vec::new(), &rest[behind(rest)?..]));
    }
    let mut elements = Vec::new();
    let mut rest = text;
    while let Some(inside) = rest.strip_prefix(b"[") {
        let id_end = inside.iter().position(|b| matches!(b, b' ' | b']'))?;
        let (id, mut at) = (&inside[..id_end], id_end);
        let mut params = Vec::new();
        while inside.get(at) == Some(&b' ') {
            let equals = at + 1 + memchr::memchr(b'=', &inside[at + 1..])?;
            let name = &inside[at + 1..equals];
            let (value, end) = param_value(inside, equals + 1)?;
            params.push((name, value));
            at = end;
        }
        if inside.get(at) != Some(&b']') || id.is_empty() {
            return None;
        }
        elements.push(Element { id, params });
        rest = &inside[at + 1..];
    }
    if elements.is_empty() {
        return None;
    }
    Some((elements, &rest[behind(rest)?..]))
}

/// The value in quotes at `at`, unescaped, and where it ends.
fn param_value(text: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let (mut value, mut i) = (Vec::new(), at + 1);
    loop {
        match *text.get(i)? {
            b'"' => return Some((value, i + 1)),
            b'\\' if matches!(text.get(i + 1), Some(b'"' | b'\\' | b']')) => {
                value.push(text[i + 1]);
                i += 2;
            }
            b => {
                value.push(b);
                i += 1;
            }
        }
    }
}

/// `TIME HOST TAG[PID]: MESSAGE`, of which each may lack.
fn rfc3164(rest: &[u8], arrival_ns: i64) -> Message<'_> {
    let mut message = Message::default();
    let mut rest = rest;
    if let Some((time, behind)) = time_3164(rest, arrival_ns) {
        message.time = Some(time);
        rest = behind;
        // A tag ends with a colon or has brackets; else this is a host.
        let (host, behind) = word(rest);
        if !host.is_empty() && !behind.is_empty() && !host.ends_with(b":") && !host.contains(&b'[') {
            message.host = host;
            rest = behind;
        }
    }
    message.text = rest;
    if let Some((app, pid, text)) = tag(rest) {
        (message.app, message.pid, message.text) = (app, pid, text);
    }
    message
}

/// `Jan  2 03:04:05 `, with a fraction perhaps, or a time of RFC 3339 as rsyslog forwards it.
fn time_3164(text: &[u8], arrival_ns: i64) -> Option<(Vec<u8>, &[u8])> {
    let (first, behind) = word(text);
    if is_rfc3339(first) {
        return Some((first.to_vec(), behind));
    }
    let month = MONTHS.iter().position(|month| first == *month)? as u32 + 1;
    let behind = behind.strip_prefix(b" ").unwrap_or(behind);
    let (day, behind) = word(behind);
    let (clock, behind) = word(behind);
    let (clock, fraction) = match memchr::memchr(b'.', clock) {
        Some(dot) => (&clock[..dot], &clock[dot + 1..]),
        None => (clock, &b""[..]),
    };
    let clock = clock.strip_suffix(b":").unwrap_or(clock);
    if clock.len() != 8 || clock[2] != b':' || clock[5] != b':' || fraction.len() > 9 {
        return None;
    }
    let (hour, minute, second) = (number(&clock[..2])?, number(&clock[3..5])?, number(&clock[6..])?);
    let day = number(day).filter(|day| (1..=31).contains(day))? as u32;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let nanos = if fraction.is_empty() { 0 } else { number(fraction)? * 10i64.pow(9 - fraction.len() as u32) };
    let within_day = ((hour * 60 + minute) * 60 + second) * NANOS_PER_SECOND + nanos;
    let this_year = UnixNanos(arrival_ns).civil().year;
    let at = |year: i32| days_from_civil(year, month, day).checked_mul(NANOS_PER_DAY)?.checked_add(within_day);
    let is_near = |at: &i64| *at <= arrival_ns.saturating_add(NANOS_PER_DAY);
    let time = [this_year + 1, this_year, this_year - 1].into_iter().filter_map(at).find(is_near)?;
    Some((UnixNanos(time).rfc3339().into_bytes(), behind))
}

/// `app[pid]: text` or `app: text`.
fn tag(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let end = text.iter().take(129).position(|b| matches!(b, b':' | b'[' | b' '))?;
    let app = &text[..end];
    let (pid, behind) = match text[end] {
        b'[' => {
            let close = end + memchr::memchr(b']', &text[end..])?;
            (&text[end + 1..close], &text[close + 1..])
        }
        b':' => (&b""[..], &text[end..]),
        _ => return None,
    };
    let behind = behind.strip_prefix(b":")?;
    if app.is_empty() {
        return None;
    }
    Some((app, pid, behind.strip_prefix(b" ").unwrap_or(behind)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    /// 2026-01-01T00:30:00Z.
    const NEW_YEAR: i64 = 1_767_227_400 * NANOS_PER_SECOND;

    fn check(message: &[u8], want: Expect) {
        let mut out = Vec::new();
        record(message, NEW_YEAR, &mut out);
        want.assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn messages_of_rfc5424() {
        check(b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"App\\]\"][x] \xef\xbb\xbfAn event", expect![[r#"{"time":"2003-10-11T22:14:15.003Z","level":"notice","facility":"local4","pri":165,"severity_code":5,"host":"mymachine.example.com","app":"evntslog","msgid":"ID47","structured_data":{"exampleSDID@32473":{"iut":"3","eventSource":"App]"},"x":{}},"message":"An event"}"#]]);
        check(b"<0>1 - - - - - -", expect![[r#"{"level":"emerg","facility":"kern","pri":0,"severity_code":0,"message":""}"#]]);
        check(
            b"<34>1 2003-10-11T22:14:15+02:00 h su 77 - - 'su root' failed\n",
            expect![[
                r#"{"time":"2003-10-11T22:14:15+02:00","level":"crit","facility":"auth","pri":34,"severity_code":2,"host":"h","app":"su","pid":"77","message":"'su root' failed"}"#
            ]],
        );
    }

    #[test]
    fn messages_of_rfc3164() {
        check(
            b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed on /dev/pts/8",
            expect![[
                r#"{"time":"2025-10-11T22:14:15Z","level":"crit","facility":"auth","pri":34,"severity_code":2,"host":"mymachine","app":"su","message":"'su root' failed on /dev/pts/8"}"#
            ]],
        );
        check(
            b"<13>Jan  1 12:00:00 h app[12]: ahead, but within a day",
            expect![[
                r#"{"time":"2026-01-01T12:00:00Z","level":"notice","facility":"user","pri":13,"severity_code":5,"host":"h","app":"app","pid":"12","message":"ahead, but within a day"}"#
            ]],
        );
        check(
            b"<13>Dec 31 23:59:59.250 app[12]: no host",
            expect![[
                r#"{"time":"2025-12-31T23:59:59.250Z","level":"notice","facility":"user","pri":13,"severity_code":5,"app":"app","pid":"12","message":"no host"}"#
            ]],
        );
        check(
            b"<13>2026-01-01T00:00:00.1+01:00 h app: as rsyslog forwards",
            expect![[
                r#"{"time":"2026-01-01T00:00:00.1+01:00","level":"notice","facility":"user","pri":13,"severity_code":5,"host":"h","app":"app","message":"as rsyslog forwards"}"#
            ]],
        );
    }

    #[test]
    fn anything_is_a_message() {
        check(
            b"just text: here",
            expect![[r#"{"level":"notice","facility":"user","pri":13,"severity_code":5,"message":"just text: here"}"#]],
        );
        check(b"", expect![[r#"{"level":"notice","facility":"user","pri":13,"severity_code":5,"message":""}"#]]);
        check(b"<999>x", expect![[r#"{"level":"notice","facility":"user","pri":13,"severity_code":5,"message":"<999>x"}"#]]);
        check(b"<14>1 nonsense", expect![[r#"{"level":"info","facility":"user","pri":14,"severity_code":6,"message":"1 nonsense"}"#]]);
        check(
            b"<14>Feb 99 00:00:00 \xff",
            expect![[r#"{"level":"info","facility":"user","pri":14,"severity_code":6,"message":"Feb 99 00:00:00 �"}"#]],
        );
    }

    proptest! {
        #[test]
        fn no_message_stops_the_program_and_each_is_json(
            text in "(<[0-9]{1,3}>)?(1 )?(Feb 29 23:59:60 |- |2026-01-02T03:04:05Z |[\\[\\]\"= :a\\\\-]){0,20}",
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            arrival in any::<i64>(),
        ) {
            for message in [text.as_bytes(), &bytes] {
                let mut out = Vec::new();
                record(message, arrival, &mut out);
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
                prop_assert!(!out.contains(&b'\n'));
            }
        }
    }
}
