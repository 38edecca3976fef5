//! Access logs of nginx and Apache: common and combined log format.
//!
//! `A B C [TIME] "REQUEST" CODE SIZE "REFERER" "AGENT"`: nginx's A, B, C are `remote`, `host`, `user`; Apache's are `host`, the
//! identity, which is left out, and `user`, as Fluent Bit names them. REQUEST is split into `method`, `path` and `protocol` where it
//! has them. `code` and `size` are numbers; a size of `-` is left out. Behind the agent nginx's lines may go on; what stands
//! there is left out. Quotes that have a backslash before them belong to their text, which stays as it is.

use super::logfmt::closing_quote;
use super::split;
use crate::record::Record;

pub const FIELDS: [&str; 11] = ["remote", "host", "user", "time", "method", "path", "protocol", "code", "size", "referer", "agent"];
pub const TIME: &str = "%d/%b/%Y:%H:%M:%S %z";

const REMOTE: usize = 0;
const HOST: usize = 1;
const USER: usize = 2;
const STAMP: usize = 3;
const METHOD: usize = 4;
const PATH: usize = 5;
const PROTOCOL: usize = 6;
const CODE: usize = 7;
const SIZE: usize = 8;
const REFERER: usize = 9;
const AGENT: usize = 10;

/// Which program's names and ends lines have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Nginx,
    Apache,
}

pub fn read(line: &[u8], server: Server, record: &mut Record) -> bool {
    read_line(line, server, record).is_some()
}

fn read_line(line: &[u8], server: Server, record: &mut Record) -> Option<()> {
    let (first, rest) = split(line, b' ')?;
    let (second, rest) = split(rest, b' ')?;
    let (user, rest) = split(rest, b' ')?;
    let (time, rest) = split(rest.strip_prefix(b"[")?, b']')?;
    let rest = rest.strip_prefix(b" \"")?;
    match server {
        Server::Nginx => {
            write(REMOTE, first, record);
            write(HOST, second, record);
        }
        Server::Apache => write(HOST, first, record),
    }
    write(USER, user, record);
    record.text(STAMP, time);
    let end = closing_quote(rest)?;
    write_request(&rest[..end], record);
    let (code, rest) = split(rest[end + 1..].strip_prefix(b" ")?, b' ')?;
    record.number(CODE, code);
    let (size, rest) = rest.split_at(rest.iter().position(|b| *b == b' ').unwrap_or(rest.len()));
    if size != b"-" && !size.is_empty() {
        record.number(SIZE, size);
    }
    match rest {
        [] => Some(()),
        rest => read_quoted(rest, server, record),
    }
}

/// Referer and agent.
fn read_quoted(text: &[u8], server: Server, record: &mut Record) -> Option<()> {
    let text = text.strip_prefix(b" \"")?;
    let end = closing_quote(text)?;
    write(REFERER, &text[..end], record);
    let text = text[end + 1..].strip_prefix(b" \"")?;
    let end = closing_quote(text)?;
    write(AGENT, &text[..end], record);
    (server == Server::Nginx || end + 1 == text.len()).then_some(())
}

#[inline]
fn write(slot: usize, value: &[u8], record: &mut Record) {
    if !value.is_empty() {
        record.text(slot, value);
    }
}

/// `METHOD PATH PROTOCOL`: the first word, the last one, and what lies between, blanks included.
fn write_request(request: &[u8], record: &mut Record) {
    let Some((method, rest)) = split(request, b' ') else { return write(METHOD, request, record) };
    write(METHOD, method, record);
    let rest = rest.trim_ascii_start();
    match rest.iter().rposition(|b| *b == b' ') {
        Some(at) => {
            write(PATH, rest[..at].trim_ascii_end(), record);
            write(PROTOCOL, &rest[at + 1..], record);
        }
        None => write(PATH, rest, record),
    }
}
