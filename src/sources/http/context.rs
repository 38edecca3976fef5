//! The trace of a request goes with its records, as W3C Trace Context has it (EB 4.5).
//!
//! In: the headers of a request, of HTTP or gRPC; its lines. Out: the lines, each that is an object and has no `traceparent` with one:
//! the trace of the request, or a new one, and the receiving as the parent of what follows. Bound: 1 KiB more for each line, within
//! the bound of lines.

use super::lines::{Bad, Lines, put_text};
use crate::env;
use hyper::HeaderMap;
use telemetry::sample::members;
use telemetry::trace_context::{Context, TRACEPARENT, TRACESTATE, from_headers};

/// Where a request is in its trace, one hop further.
pub fn of(headers: &HeaderMap) -> Context {
    let span_id = env::random().to_be_bytes();
    let came = from_headers(headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())));
    came.map_or_else(|| Context::new(env::random_id(), span_id), |context| context.child(span_id))
}

/// Writes it into lines.
pub fn put(context: &Context, lines: Lines) -> Result<Lines, Bad> {
    let mut added = format!("\"{TRACEPARENT}\":\"{}\"", context.traceparent()).into_bytes();
    if let Some(state) = context.tracestate() {
        added.extend_from_slice(format!(",\"{TRACESTATE}\":").as_bytes());
        put_text(state.as_bytes(), &mut added);
    }
    let finder = memchr::memmem::Finder::new(TRACEPARENT);
    let mut out = lines.emptied();
    out.bytes.reserve(lines.bytes.len() + added.len() * lines.records as usize);
    for line in lines.bytes.split_inclusive(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let has_one = || {
            finder.find(line).is_some()
                && members(line).is_none_or(|members| members.iter().any(|(name, _)| *name == TRACEPARENT.as_bytes()))
        };
        match line.strip_suffix(b"}").filter(|rest| rest.first() == Some(&b'{') && !has_one()) {
            Some(rest) => {
                out.bytes.extend_from_slice(rest);
                if rest.trim_ascii().len() > 1 {
                    out.bytes.push(b',');
                }
                out.bytes.extend_from_slice(&added);
                out.bytes.push(b'}');
            }
            None => out.bytes.extend_from_slice(line),
        }
        out.end()?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-12345678901234567890123456789012-1234567890123456-01";

    #[test]
    fn records_have_the_trace_of_their_request_one_hop_further() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            headers
        };
        let context = of(&headers(&[("TraceParent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]));
        assert_eq!((&context.traceparent()[..36], context.tracestate().as_deref()), (&PARENT[..36], Some("a=1,b=2")));
        assert_ne!(context.traceparent()[36..52], PARENT[36..52]);
        for bad in [&[("traceparent", PARENT), ("traceparent", PARENT)][..], &[("traceparent", "no")], &[]] {
            assert_ne!(of(&headers(bad)).traceparent()[..36], PARENT[..36], "a new trace");
        }
        let mut lines = Lines::new(10_000);
        for line in
            ["{}", "{ }", r#"{"a":1}"#, r#"{"traceparent":"x"}"#, r#"{"a":"traceparent"}"#, r#"{"a":{"traceparent":1}}"#, "text}", "{torn"]
        {
            lines.bytes.extend_from_slice(line.as_bytes());
            lines.end().unwrap();
        }
        let context = Context { parent_id: [1; 8], ..context };
        let out = put(&context, lines).unwrap();
        let added = format!("\"traceparent\":\"{}0101010101010101-01\",\"tracestate\":\"a=1,b=2\"}}", &PARENT[..36]);
        let want = [
            format!("{{{added}"),
            format!("{{ {added}"),
            format!("{{\"a\":1,{added}"),
            r#"{"traceparent":"x"}"#.into(),
            format!("{{\"a\":\"traceparent\",{added}"),
            format!("{{\"a\":{{\"traceparent\":1}},{added}"),
            "text}".into(),
            "{torn".into(),
        ];
        assert_eq!((String::from_utf8(out.bytes).unwrap(), out.records), (want.map(|line| line + "\n").concat(), 8));
        let mut many = Lines::new(50);
        many.bytes.extend_from_slice(b"{}");
        many.end().unwrap();
        assert_eq!(put(&context, many).map(|_| ()).unwrap_err().status, 413);
    }
}
