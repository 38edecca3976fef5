//! W3C trace context: `traceparent` and `tracestate` read from headers of any transport, and written for the next hop.
//!
//! In: the values of all headers of these two names, in order; HTTP, gRPC metadata (plain text keys) and Kafka headers are alike
//! here, so a repeated `traceparent` is refused whatever carried it. Out: a [`Context`], or nothing: the caller then begins a new
//! trace, and `tracestate` goes with the old one. Ids are arguments; nothing here is random. Memory: at most 32 members of 513 bytes.
//! Source: <https://www.w3.org/TR/trace-context-2>, with the members of `tracestate` as level 2 has them.

use std::fmt::Write as _;

pub const TRACEPARENT: &str = "traceparent";
pub const TRACESTATE: &str = "tracestate";

/// The caller may have recorded the trace.
pub const SAMPLED: u8 = 1;
/// The last seven bytes of the trace id are random.
pub const RANDOM: u8 = 2;

const MEMBERS_MAX: usize = 32;
const KEY_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 256;

/// Where in which trace something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Not all zero.
    pub trace_id: [u8; 16],
    /// The span that called; not all zero.
    pub parent_id: [u8; 8],
    /// [`SAMPLED`] and [`RANDOM`]; other bits are not passed on.
    pub flags: u8,
    /// Members of `tracestate`, in order, as `key=value`; checked.
    pub state: Vec<String>,
}

impl Context {
    /// Begins a trace. An id of zeros only, which none may be, becomes one.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8]) -> Context {
        let trace_id = if trace_id == [0; 16] { 1u128.to_be_bytes() } else { trace_id };
        Context { trace_id, parent_id: not_zero(span_id), flags: 0, state: Vec::new() }
    }

    /// The same trace one hop further: `new_id` is the span that calls now.
    pub fn child(&self, new_id: [u8; 8]) -> Context {
        Context { parent_id: not_zero(new_id), ..self.clone() }
    }

    /// The value of the header, always in version 00.
    pub fn traceparent(&self) -> String {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        put_hex(&mut text, &self.trace_id);
        text.push('-');
        put_hex(&mut text, &self.parent_id);
        text.push('-');
        put_hex(&mut text, &[self.flags & (SAMPLED | RANDOM)]);
        text
    }

    /// The value of the header; `None`: it has no members and is not sent.
    pub fn tracestate(&self) -> Option<String> {
        (!self.state.is_empty()).then(|| self.state.join(","))
    }
}

fn not_zero(id: [u8; 8]) -> [u8; 8] {
    if id == [0; 8] { 1u64.to_be_bytes() } else { id }
}

fn put_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
    }
}

/// Reads the context that headers carry; their names are compared in any case.
pub fn from_headers<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Context> {
    let (mut parents, mut states) = (Vec::new(), Vec::new());
    for (name, value) in headers {
        match name {
            name if name.eq_ignore_ascii_case(TRACEPARENT.as_bytes()) => parents.push(value),
            name if name.eq_ignore_ascii_case(TRACESTATE.as_bytes()) => states.push(value),
            _ => {}
        }
    }
    extract(&parents, &states)
}

/// Reads a context from the values of all `traceparent` and all `tracestate` headers, in order. `None`: begin a new trace.
///
/// A bad member of `tracestate` drops all of it and nothing else.
pub fn extract(traceparent: &[&[u8]], tracestate: &[&[u8]]) -> Option<Context> {
    let [value] = traceparent else { return None };
    let mut context = parse_parent(trim(value))?;
    context.state = parse_state(tracestate).unwrap_or_default();
    Some(context)
}

/// Optional white space of HTTP.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; a higher version may have more behind a further `-`.
fn parse_parent(text: &[u8]) -> Option<Context> {
    let (head, more) = text.split_first_chunk::<55>()?;
    let [version] = parse_hex(&head[..2])?;
    if head[2] != b'-' || head[35] != b'-' || head[52] != b'-' || version == 0xff {
        return None;
    }
    if !(more.is_empty() || (version > 0 && more[0] == b'-')) {
        return None;
    }
    let (trace_id, parent_id) = (parse_hex::<16>(&head[3..35])?, parse_hex::<8>(&head[36..52])?);
    let [flags] = parse_hex(&head[53..])?;
    let is_valid = trace_id != [0; 16] && parent_id != [0; 8];
    is_valid.then_some(Context { trace_id, parent_id, flags: flags & (SAMPLED | RANDOM), state: Vec::new() })
}

/// Lower case only.
fn parse_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// The members of all headers; `None`: one is bad, one key is there twice or there are too many.
fn parse_state(headers: &[&[u8]]) -> Option<Vec<String>> {
    let mut members: Vec<(&[u8], &[u8])> = Vec::new();
    for member in headers.iter().flat_map(|header| header.split(|byte| *byte == b',')) {
        let member = trim(member);
        if member.is_empty() {
            continue; // an empty member is allowed and is none
        }
        let (key, value) = member.split_at(memchr::memchr(b'=', member)?);
        let value = &value[1..];
        let is_new = members.iter().all(|(other, _)| *other != key);
        if members.len() == MEMBERS_MAX || !is_key(key) || !is_value(value) || !is_new {
            return None;
        }
        members.push((key, value));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned(); // checked: ASCII
    Some(members.into_iter().map(|(key, value)| format!("{}={}", text(key), text(value))).collect())
}

fn is_key(key: &[u8]) -> bool {
    let is_inner = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= KEY_BYTES_MAX
        && key.first().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
        && key.iter().all(is_inner)
}

fn is_value(value: &[u8]) -> bool {
    let is_inner = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'=' && *byte != b',';
    (1..=VALUE_BYTES_MAX).contains(&value.len()) && value.iter().all(is_inner) && value.last() != Some(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: &str = "12345678901234567890123456789012";
    const P: &str = "1234567890123456";

    fn parent(value: &str) -> Option<Context> {
        extract(&[value.as_bytes()], &[])
    }

    #[track_caller]
    fn check_state(headers: &[&str], want: Option<&str>) {
        let headers: Vec<&[u8]> = headers.iter().map(|header| header.as_bytes()).collect();
        let context = extract(&[format!("00-{T}-{P}-00").as_bytes()], &headers).expect("the trace stays");
        assert_eq!(context.tracestate().as_deref(), want, "{headers:?}");
    }

    #[test]
    fn a_trace_goes_on_or_a_new_one_begins() {
        for (value, goes_on) in [
            (format!("00-{T}-{P}-01"), true),
            (format!("00-{T}-{P}-01."), false),
            (format!("00-{T}-{P}-01-x"), false),
            (format!("00-{T}-{P}-01-what-the-future-will-be-like"), false),
            (format!("00-{T}-{P}-01-"), false),
            (format!("cc-{T}-{P}-01"), true),
            (format!("01-{T}-{P}-01"), true),
            (format!("cc-{T}-{P}-01-future"), true),
            (format!("cc-{T}-{P}-01-"), true),
            (format!("cc-{T}-{P}-01.future"), false),
            (format!("cc-{T}-{P}-011"), false),
            (format!("ff-{T}-{P}-01"), false),
            (format!("FF-{T}-{P}-01"), false),
            (format!("CC-{T}-{P}-01"), false),
            (format!(".0-{T}-{P}-01"), false),
            (format!("0.-{T}-{P}-01"), false),
            (format!("0-{T}-{P}-01"), false),
            (format!("000-{T}-{P}-01"), false),
            (format!("0000-{T}-{P}-01"), false),
            (format!("00-{}-{P}-01", "0".repeat(32)), false),
            (format!("00-{T}-{}-01", "0".repeat(16)), false),
            (format!("00-.{}-{P}-01", &T[1..]), false),
            (format!("00-{}.-{P}-01", &T[1..]), false),
            (format!("00-{}A-{P}-01", &T[1..]), false),
            (format!("00-{T}3-{P}-01"), false),
            (format!("00-{}-{P}-01", &T[1..]), false),
            (format!("00-{T}-.{}-01", &P[1..]), false),
            (format!("00-{T}-{}.-01", &P[1..]), false),
            (format!("00-{T}-{P}7-01"), false),
            (format!("00-{T}-{}-01", &P[1..]), false),
            (format!("00-{T}-{P}-.0"), false),
            (format!("00-{T}-{P}-0."), false),
            (format!("00-{T}-{P}-0A"), false),
            (format!("00-{T}-{P}-001"), false),
            (format!("00-{T}-{P}-1"), false),
            (format!("00_{T}_{P}_01"), false),
            (format!(" 00-{T}-{P}-01"), true),
            (format!("\t00-{T}-{P}-01"), true),
            (format!("\t 00-{T}-{P}-01 \t"), true),
            (format!("00-{T}-{P}-01\n"), false),
            (String::new(), false),
        ] {
            let context = parent(&value);
            assert_eq!(context.is_some(), goes_on, "{value:?}");
            if let Some(context) = context {
                let next = context.child([0xab; 8]).traceparent();
                assert_eq!(next, format!("00-{T}-abababababababab-01"), "{value:?}");
            }
        }
    }

    #[test]
    fn of_the_flags_two_are_passed() {
        for (flags, want) in [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03"), ("fc", "00")] {
            for version in ["00", "cc"] {
                let context = parent(&format!("{version}-{T}-{P}-{flags}")).unwrap();
                assert_eq!(context.traceparent(), format!("00-{T}-{P}-{want}"));
            }
        }
    }

    #[test]
    fn two_parents_are_none() {
        let (one, other) = (format!("00-{T}-{P}-01"), format!("00-{T}-{P}-01"));
        assert_eq!(extract(&[one.as_bytes(), other.as_bytes()], &[b"foo=1"]), None);
        assert_eq!(extract(&[], &[b"foo=1"]), None, "a state without a parent is dropped");
    }

    #[test]
    fn names_of_headers_are_read_in_any_case() {
        let value = format!("00-{T}-{P}-01");
        for (name, state, found) in [
            ("traceparent", "tracestate", (true, true)),
            ("TrAcEpArEnT", "TrAcEsTaTe", (true, true)),
            ("TRACEPARENT", "TRACESTATE", (true, true)),
            ("trace-parent", "tracestate", (false, false)),
            ("trace.parent", "tracestate", (false, false)),
            ("traceparent", "trace-state", (true, false)),
            ("traceparent", "trace.state", (true, false)),
        ] {
            let headers = [(name.as_bytes(), value.as_bytes()), (state.as_bytes(), b"foo=1"), (b"host", b"a")];
            let context = from_headers(headers.into_iter());
            let got = (context.is_some(), context.is_some_and(|context| context.tracestate().is_some()));
            assert_eq!(got, found, "{name} {state}");
        }
    }

    #[test]
    fn one_bad_member_drops_the_state() {
        check_state(&["foo=1,bar=2"], Some("foo=1,bar=2"));
        check_state(&["foo=1 \t , \t bar=2, \t baz=3"], Some("foo=1,bar=2,baz=3"));
        check_state(&["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], Some("foo=1,bar=2,baz=3"));
        check_state(&["\t foo=1 \t"], Some("foo=1"));
        check_state(&["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], Some("foo=1,bar=2,rojo=1,congo=2,baz=3"));
        check_state(&[""], None);
        check_state(&["foo=1", ""], Some("foo=1"));
        check_state(&["", "foo=1"], Some("foo=1"));
        check_state(&["foo=1,,bar=2,"], Some("foo=1,bar=2"));
        check_state(&["foo@=1,bar=2"], Some("foo@=1,bar=2"));
        check_state(&["foo@@bar=1,bar=2"], Some("foo@@bar=1,bar=2"));
        check_state(&["foo@bar@baz=1,bar=2"], Some("foo@bar@baz=1,bar=2"));
        check_state(&["1a-_*/@x=1"], Some("1a-_*/@x=1"));
        check_state(&["foo=a b  c"], Some("foo=a b  c"));
        check_state(&["foo= a"], Some("foo= a"));
        for bad in [
            "foo =1",
            "FOO=1",
            "foo.bar=1",
            "foo=bar=baz",
            "foo=,bar=3",
            "foo=",
            "@foo=1,bar=2",
            "foo",
            "=1",
            "foo=\u{e9}",
            "foo=a\tb",
            "-a=1",
            "foo=1\n",
        ] {
            check_state(&[bad], None);
            check_state(&["ok=1", bad], None);
        }
        for twice in [&["foo=1,foo=1"][..], &["foo=1,foo=2"], &["foo=1", "foo=1"], &["foo=1", "foo=2"]] {
            check_state(twice, None);
        }
    }

    #[test]
    fn keys_values_and_members_have_a_longest() {
        for (key, value, kept) in [(256, 256, true), (257, 1, false), (1, 257, false)] {
            let header = format!("{}={}", "z".repeat(key), "v".repeat(value));
            check_state(&["a=1", &header], kept.then(|| format!("a=1,{header}")).as_deref());
        }
        let vendor = format!("{}@{}=1", "t".repeat(241), "v".repeat(14));
        check_state(&[&vendor], Some(&vendor));
        let header = |from: usize, to: usize| (from..to).map(|n| format!("bar{n}={n}")).collect::<Vec<_>>().join(",");
        let four = [header(0, 8), header(8, 16), header(16, 24), header(24, 32)];
        check_state(&four.each_ref().map(String::as_str), Some(&header(0, 32)));
        check_state(&[&header(0, 32), "more=1"], None);
        check_state(&[&header(0, 33)], None);
    }

    #[test]
    fn every_allowed_character_is_kept() {
        let value: String = (0x20..=0x7eu8).map(char::from).filter(|each| !",=".contains(*each)).collect();
        check_state(&[&format!("az09_-*/@x={value}")], Some(&format!("az09_-*/@x={value}")));
    }

    #[test]
    fn a_new_trace_has_ids() {
        let context = Context::new([0; 16], [0; 8]);
        assert_eq!(context.traceparent(), format!("00-{:032x}-{:016x}-00", 1, 1));
        assert_eq!(parent(&context.traceparent()), Some(context));
    }

    proptest! {
        #[test]
        fn no_headers_are_a_panic(parent: Vec<u8>, state: Vec<Vec<u8>>, text in "[-0-9a-f. ]{50,60}") {
            let states: Vec<&[u8]> = state.iter().map(Vec::as_slice).collect();
            extract(&[&parent], &states);
            extract(&[text.as_bytes()], &states);
            parse_state(&states);
        }

        #[test]
        fn what_is_written_is_read(trace_id: [u8; 16], parent_id: [u8; 8], flags in 0u8..4) {
            let context = Context { flags, ..Context::new(trace_id, parent_id) };
            prop_assert_eq!(parent(&context.traceparent()), Some(context));
        }
    }
}
