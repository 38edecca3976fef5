//! Records that others send, and records that are sent on: http and syslog sources, the http sink, real clients.
//!
//! Senders are raw sockets, a second weir, clients of Elasticsearch and Loki from PyPI, and rsyslog; the far side of the sink is a
//! small server in here that answers as it is told. All on loopback. What is not installed is skipped by name.

use crate::harness::{PATIENCE, Place, Running, lines, skip, wait_until, works};
use crate::input::{assert_same_lines, platform};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Sends one request; an error is a connection that ended without an answer.
pub fn try_send(address: &str, head: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let text = format!("{head} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(text.as_bytes())?;
    // One that is refused early may not be read to its end.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(read.err().unwrap_or(std::io::ErrorKind::UnexpectedEof.into()));
    };
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()));
    Ok(Answer { status, headers: headers.collect(), body: body.to_string() })
}

impl Answer {
    pub fn body(&self) -> &str {
        &self.body
    }

    /// By its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[track_caller]
pub fn send(address: &str, head: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    try_send(address, head, headers, body.as_ref()).expect("answered")
}

/// The addresses that a program says it listens on for records, by what it listens over.
#[track_caller]
pub fn listens(running: &Running, over: &str) -> String {
    let mut found = None;
    wait_until("it listens", || {
        let said = running.stderr();
        let line = said
            .lines()
            .find(|line| line.contains("listening for records") && line.contains(&format!("over=\"{over}\"")))
            .map(str::to_string);
        found = line.and_then(|line| Some(line.split_once("address=")?.1.trim().to_string()));
        found.is_some() && said.contains("ready")
    });
    found.expect("just found")
}

fn gate(more: &str) -> String {
    format!(
        "sources: {{ gate: {{ http: {{ listen: \"127.0.0.1:0\"{more} }} }} }}\ntenancy: {{ from: [tenant, labels.tenant] }}\nsinks: {{ kept: {{ archive: {{ path: \"{{tenant}}.log\" }} }} }}\n"
    )
}

/// Lines of an archive's files, all tenants together.
fn archived(place: &Place, sink: &str) -> Vec<Vec<u8>> {
    let folder = place.data().join(format!("archive/pipeline.{sink}/files"));
    let files = crate::harness::files_below(&folder).into_iter();
    files.flat_map(|file| lines(&std::fs::read(folder.join(file)).expect("it is there"))).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn records(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("{{\"n\":{n},\"tenant\":\"a\"}}\n")).collect()
}

#[test]
fn one_bad_item_of_a_thousand_is_told_and_the_others_are_kept() {
    let place = Place::new();
    place.pipeline(&gate(", index_field: _index"));
    let running = place.start();
    let address = listens(&running, "tcp");
    let mut body = String::new();
    for n in 0..1000 {
        let document = if n == 500 { "{\"n\":500,".to_string() } else { format!("{{\"n\":{n},\"tenant\":\"a\"}}") };
        body.push_str(&format!("{{\"create\":{{\"_index\":\"logs\"}}}}\n{document}\n"));
    }
    let answer =
        send(&address, "POST /_bulk", &[("Content-Type", "application/x-ndjson"), ("Content-Encoding", "gzip")], gzip(body.as_bytes()));
    assert_eq!(answer.status, 200, "{answer:?}");
    let told: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(told["errors"], true);
    let statuses: Vec<u64> =
        told["items"].as_array().expect("items").iter().map(|i| i["create"]["status"].as_u64().expect("a status")).collect();
    assert_eq!(statuses.len(), 1000);
    assert_eq!(statuses.iter().enumerate().filter(|(_, status)| **status != 201).collect::<Vec<_>>(), [(500, &400)]);
    assert!(told["items"][500]["create"]["error"]["reason"].as_str().expect("a reason").contains("line 1002"), "{}", told["items"][500]);
    // Answered, so it survives the program being killed.
    drop(running);
    let running = place.start();
    listens(&running, "tcp");
    running.stop();
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!((ledger.received(), ledger.kept(), ledger.difference("kept")), (999, 999, 0));
    let rows = archived(&place, "kept");
    let numbers: BTreeSet<u64> =
        rows.iter().map(|row| serde_json::from_slice::<Value>(row).expect("JSON")["n"].as_u64().expect("a number")).collect();
    assert_eq!((rows.len(), numbers.len()), (999, 999));
    assert!(rows[0].starts_with(b"{\"_index\":\"logs\",\"n\":0,"), "{}", String::from_utf8_lossy(&rows[0]));
}

/// One field of protobuf.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len > 127 {
        out.push(len as u8 | 128);
        len >>= 7;
    }
    out.push(len as u8);
    [out, bytes.to_vec()].concat()
}

#[test]
fn every_body_becomes_records() {
    let place = Place::new();
    place.pipeline(&gate(", paths: [/, /in]"));
    let running = place.start();
    let address = listens(&running, "tcp");
    let ok = |head: &str, headers: &[(&str, &str)], body: &[u8], status: u16| {
        let answer = send(&address, head, headers, body);
        assert_eq!(answer.status, status, "{head} {headers:?}: {answer:?}");
    };
    ok("POST /", &[("Content-Type", "application/x-ndjson")], b"{\"n\":1}\nnot json\n", 200);
    ok("POST /in", &[("Content-Type", "application/json; charset=utf-8")], b"[{\"n\":2},\n {\"n\":\n3}]", 200);
    ok("POST /in/", &[], b" [{\"n\":4}]", 200);
    ok("PUT /", &[("Content-Type", "text/plain")], b"a \"line\"\r\n\nanother", 200);
    ok("POST /", &[("Content-Encoding", "gzip")], &gzip(b"{\"n\":5}"), 200);
    ok("POST /", &[("Content-Encoding", "zstd")], &zstd::encode_all(&b"{\"n\":6}\n"[..], 1).expect("memory"), 200);
    ok("POST /", &[("Content-Encoding", "deflate")], b"\x78\x01\x01\x07\x00\xf8\xff{\"n\":7}\x08\xb8\x02\x3d", 400); // a wrong checksum
    ok("POST /some-index/_bulk", &[], b"{\"index\":{}}\n{\"n\":8}\n", 200);
    let push =
        r#"{"streams":[{"stream":{"tenant":"loki"},"values":[["1700000000000000000","{\"n\":9}"],["1700000000000000001","text"]]}]}"#;
    ok("POST /loki/api/v1/push", &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")], &gzip(push.as_bytes()), 204);
    let entry = [field(1, &[8, 1]), field(2, b"{\"n\":10}")].concat();
    let request = field(1, &[field(1, br#"{tenant="loki", job="x"}"#), field(2, &entry)].concat());
    let packed = snap::raw::Encoder::new().compress_vec(&request).expect("small");
    ok("POST /loki/api/v1/push", &[("Content-Type", "application/x-protobuf")], &packed, 204);
    ok("GET /", &[], b"", 200);
    ok("HEAD /", &[], b"", 200);
    ok("GET /_license", &[], b"", 200);
    ok("GET /ready", &[], b"", 200);
    let info = send(&address, "GET /", &[], "");
    assert_eq!(info.headers["x-elastic-product"], "Elasticsearch");
    running.stop();
    let mut rows: Vec<String> = archived(&place, "kept").into_iter().map(|row| String::from_utf8(row).expect("text")).collect();
    rows.sort();
    let mut want = vec![
        r#"{"n":1}"#,
        "not json",
        r#"{"n":2}"#,
        r#"{"n": 3}"#,
        r#"{"n":4}"#,
        r#"{"message":"a \"line\""}"#,
        r#"{"message":"another"}"#,
        r#"{"n":5}"#,
        r#"{"n":6}"#,
        r#"{"n":8}"#,
        r#"{"ts":"2023-11-14T22:13:20Z","labels":{"tenant":"loki"},"n":9}"#,
        r#"{"ts":"2023-11-14T22:13:20.000000001Z","message":"text","labels":{"tenant":"loki"}}"#,
        r#"{"ts":"1970-01-01T00:00:01Z","labels":{"tenant":"loki","job":"x"},"n":10}"#,
    ];
    want.sort_unstable();
    assert_eq!(rows, want);
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!(ledger.kept_by_tenant()["loki"], 3);
    assert_eq!(ledger.notes()["not_json"], 1);
}

#[test]
fn what_is_too_large_broken_or_from_a_stranger_is_refused() {
    let place = Place::new();
    let first = place.write("first.token", "token-of-team-a\n");
    place.write("second.token", "token-of-team-b");
    let folder = first.parent().expect("a folder").display();
    let tokens = format!("{{ tenant: a, token_file: {folder}/first.token }}, {{ tenant: b, token_file: {folder}/second.token }}");
    place.pipeline(&gate(&format!(", body_bytes_max: 64KiB, buffer_bytes_max: 1MiB, tokens: [{tokens}]")));
    let running = place.start();
    let address = listens(&running, "tcp");
    let a = ("Authorization", "Bearer token-of-team-a");
    let large = vec![b'x'; 100_000];
    let status = |headers: &[(&str, &str)], body: &[u8]| send(&address, "POST /", headers, body).status;
    assert_eq!(status(&[], b"{}"), 401);
    assert_eq!(status(&[("Authorization", "Bearer token-of-team-c")], b"{}"), 401);
    assert_eq!(status(&[], &large), 413, "limits apply before anybody is asked who he is");
    assert_eq!(status(&[a, ("Content-Encoding", "gzip")], &gzip(&vec![b' '; 1 << 20])), 413, "after decompression, too");
    assert_eq!(status(&[a, ("Content-Encoding", "br")], b"x"), 415);
    assert_eq!(send(&address, "POST /elsewhere", &[a], b"{}").status, 404);
    let broken = send(&address, "POST /", &[a, ("Content-Type", "application/json")], "[{\"n\":1},\n{\"n\":}]");
    assert_eq!(broken.status, 400);
    assert!(broken.body.contains("line 2, column 1"), "{}", broken.body);
    assert_eq!(send(&address, "GET /", &[], "").status, 401);
    assert_eq!(send(&address, "GET /ready", &[], "").status, 200);
    // The token says who pays, whatever the payload says. (The user of Basic is not looked at.)
    assert_eq!(status(&[a], b"{\"tenant\":\"b\"}\n{\"tenant\":\"zzz\"}"), 200);
    assert_eq!(status(&[("Authorization", "Basic YW55Ym9keTp0b2tlbi1vZi10ZWFtLWI=")], b"{\"tenant\":\"a\"}"), 200);
    assert_eq!(status(&[("X-Weir-Token", "token-of-team-b")], b"{}"), 200);
    let said = running.stop();
    assert!(!said.contains("token-of-team"), "a secret is shown: {said}");
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!(ledger.kept_by_tenant(), BTreeMap::from([("a".into(), 2), ("b".into(), 2)]));
}

#[test]
fn a_full_hub_is_told_at_once_and_nothing_is_held_without_bound() {
    let place = Place::new();
    let nobody = free_address();
    place.pipeline(&format!(
        "sources: {{ gate: {{ http: {{ listen: \"127.0.0.1:0\", ack: on_receipt, body_bytes_max: 1MiB, buffer_bytes_max: 2MiB }} }} }}\nhub: {{ memory: {{ bytes_max: 4MiB }} }}\nsinks: {{ away: {{ http: {{ url: \"http://{nobody}\" }} }} }}\n"
    ));
    let running = place.start();
    let address = listens(&running, "tcp");
    let body = records(0..20_000);
    let mut taken = 0;
    let refused = loop {
        let answer = send(&address, "POST /", &[], &body);
        match answer.status {
            200 => taken += 1,
            _ => break answer,
        }
        assert!(taken < 100, "nothing ends this");
    };
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "1"), "{refused:?}");
    assert!(taken > 3, "{taken} bodies fit into the hub");
    assert!(running.peak_bytes() < 200 << 20, "{} bytes", running.peak_bytes());
}

/// An address where nobody listens.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free").to_string()
}

#[test]
fn what_was_answered_is_there_after_kill_9() {
    let place = Place::new();
    let address = free_address();
    place.pipeline(&gate("").replace("127.0.0.1:0", &address));
    let done = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let (done, acknowledged, address) = (Arc::clone(&done), Arc::clone(&acknowledged), address.clone());
            std::thread::spawn(move || {
                let mut next = sender * 1_000_000;
                while !done.load(Ordering::Relaxed) {
                    // Sent again until it is answered.
                    match try_send(&address, "POST /", &[], records(next..next + 50).as_bytes()) {
                        Ok(answer) if answer.status == 200 => {
                            acknowledged.lock().expect("nobody panics").extend(next..next + 50);
                            next += 50;
                        }
                        _ => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
            })
        })
        .collect();
    for round in 0..5 {
        let running = place.start();
        let before = acknowledged.lock().expect("nobody panics").len();
        wait_until("some are answered", || acknowledged.lock().expect("nobody panics").len() >= before + 500 + round * 137);
        drop(running); // killed while it is sent to
    }
    done.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().expect("no sender panics"));
    let running = place.start();
    listens(&running, "tcp");
    running.stop();
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!(ledger.difference("kept"), 0);
    let rows = archived(&place, "kept");
    let there: BTreeSet<usize> =
        rows.iter().map(|row| serde_json::from_slice::<Value>(row).expect("JSON")["n"].as_u64().expect("a number") as usize).collect();
    let acknowledged = acknowledged.lock().expect("nobody panics");
    let lost: Vec<_> = acknowledged.difference(&there).take(5).collect();
    assert!(lost.is_empty(), "answered and lost: {lost:?}");
    assert!(acknowledged.len() > 2500, "{} answered", acknowledged.len());
}

#[test]
fn syslog_comes_by_udp_and_tcp_in_both_formats_and_framings() {
    let place = Place::new();
    place.pipeline(
        "sources: { net: { syslog: { udp: \"127.0.0.1:0\", tcp: \"127.0.0.1:0\" } } }\nsinks: { kept: { archive: { path: all.log } } }\n",
    );
    let mut running = place.start();
    let (udp, tcp) = (listens(&running, "udp"), listens(&running, "tcp"));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.send_to(b"<34>1 2026-01-02T03:04:05.678Z host app 12 ID1 [x a=\"b\"] by udp 5424", &udp).expect("sent");
    socket.send_to(b"<13>Oct 11 22:14:15 host app[7]: by udp 3164\n", &udp).expect("sent");
    let mut stream = TcpStream::connect(&tcp).expect("it listens");
    let counted = b"<34>1 2026-01-02T03:04:05Z host app - - - counted,\nover lines";
    stream.write_all(format!("{} ", counted.len()).as_bytes()).and_then(|()| stream.write_all(counted)).expect("sent");
    stream.write_all(b"<13>Oct 11 22:14:15 host app: on a line\n<14>the last one, without a newline").expect("sent");
    drop(stream);
    place.wait_received(&mut running, 5);
    running.stop();
    let rows: Vec<Value> = archived(&place, "kept").iter().map(|row| serde_json::from_slice(row).expect("JSON")).collect();
    let messages: BTreeSet<&str> = rows.iter().map(|row| row["message"].as_str().expect("a message")).collect();
    assert_eq!(
        messages,
        BTreeSet::from(["by udp 5424", "by udp 3164", "counted,\nover lines", "on a line", "the last one, without a newline"])
    );
    let of = |message: &str| rows.iter().find(|row| row["message"] == message).expect("it is there");
    assert_eq!(
        *of("by udp 5424"),
        json!({ "peer": "127.0.0.1", "time": "2026-01-02T03:04:05.678Z", "level": "crit", "facility": "auth", "pri": 34, "severity_code": 2, "host": "host", "app": "app", "pid": "12", "msgid": "ID1", "structured_data": { "x": { "a": "b" } }, "message": "by udp 5424" })
    );
    assert_eq!((of("by udp 3164")["app"].as_str(), of("by udp 3164")["pid"].as_str()), (Some("app"), Some("7")));
    let ledger = place.recount();
    ledger.assert_settled();
    assert!(!ledger.notes().contains_key("not_json"), "{:?}", ledger.notes());
}

/// One request as the far side saw it.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

type Script = Box<dyn FnMut(&Seen) -> (u16, String) + Send>;

/// A server that answers by a script, one connection at a time.
struct FarSide {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl FarSide {
    fn new(mut script: Script) -> FarSide {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                while let Some(request) = read_request(&mut reader) {
                    let (status, answer) = script(&request);
                    all.lock().expect("nobody panics").push(request);
                    let (headers, body) = answer.split_once("\n\n").unwrap_or(("", &answer));
                    let headers: String = headers.lines().map(|line| format!("{line}\r\n")).collect();
                    let text = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
                    if reader.get_mut().write_all(text.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        FarSide { address, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("nobody panics").clone()
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split(' ').nth(1)?.to_string();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => drop(headers.insert(name.to_ascii_lowercase(), value.to_string())),
            None => break,
        }
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let body = match headers.get("content-encoding").map(String::as_str) {
        Some("gzip") => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).ok()?;
            plain
        }
        Some("zstd") => zstd::decode_all(&body[..]).ok()?,
        _ => body,
    };
    Some(Seen { path, headers, body: String::from_utf8(body).ok()? })
}

/// EB 4.5.
#[test]
fn a_trace_goes_on_from_request_to_request() {
    const PARENT: &str = "00-12345678901234567890123456789012-1234567890123456-01";
    let place = Place::new();
    let far = FarSide::new(Box::new(|_| (200, "ok".into())));
    place.pipeline(&format!(
        "sources: {{ in: {{ http: {{ listen: \"127.0.0.1:0\", trace_context: true }} }} }}\nsinks: {{ far: {{ http: {{ url: \"http://{}\", trace_context: true, batch: {{ age: 300ms }} }} }} }}\n",
        far.address
    ));
    let mut running = place.start();
    let address = listens(&running, "tcp");
    let of_a_trace = [("traceparent", PARENT), ("TraceState", "a=1"), ("tracestate", "b=2")];
    assert_eq!(send(&address, "POST /", &of_a_trace, "{\"n\":1}\n{\"n\":2}\n").status, 200);
    assert_eq!(send(&address, "POST /", &[("traceparent", PARENT), ("traceparent", PARENT)], "{\"n\":3}\n").status, 200);
    assert_eq!(send(&address, "POST /", &[], "{\"n\":4,\"traceparent\":\"of-its-own\"}\n").status, 200);
    place.wait_ledger(&mut running, "all are delivered", |ledger| ledger.sink("far", "delivered") == 4);
    running.stop();
    let seen = far.seen();
    let of = |n: u64| seen.iter().find(|seen| seen.body.contains(&format!("\"n\":{n}"))).expect("it was sent");
    let context = |n: u64| of(n).headers["traceparent"].clone();
    assert_eq!((&context(1)[..36], of(1).headers["tracestate"].as_str()), (&PARENT[..36], "a=1,b=2"));
    assert!(of(1).body.contains("\"n\":2"), "records of one trace go together: {}", of(1).body);
    let row: Value = serde_json::from_str(of(1).body.lines().next().expect("a row")).expect("JSON");
    let hops = [PARENT.to_string(), row["traceparent"].as_str().expect("a context").to_string(), context(1)];
    let parents: BTreeSet<&str> = hops.iter().map(|hop| &hop[36..52]).collect();
    assert_eq!((parents.len(), hops[1][..36] == PARENT[..36], &hops[2][53..]), (3, true, "01"), "a new parent at each hop: {hops:?}");
    for n in [3, 4] {
        assert!(context(n)[..36] != PARENT[..36] && context(n).len() == 55 && !of(n).headers.contains_key("tracestate"), "a new trace");
        assert_eq!(of(n).body.lines().count(), 1);
    }
}

/// EB 5.3.
#[test]
fn a_header_names_the_tenant_of_a_request() {
    let place = Place::new();
    place.pipeline(
        "sources: { in: { http: { listen: \"127.0.0.1:0\", tenant_header: { name: X-Scope-OrgID, allow: [acme, beta] } } } }\ntenancy: { from: [tenant] }\nsinks: { store: { lake: {} } }\n",
    );
    let mut running = place.start();
    let address = listens(&running, "tcp");
    for (n, value) in [" acme ", "beta", "gamma", ""].into_iter().enumerate() {
        let body = format!("{{\"n\":{n},\"tenant\":\"zeta\"}}\n");
        assert_eq!(send(&address, "POST /", &[("x-scope-orgid", value)], body).status, 200);
    }
    assert_eq!(send(&address, "POST /", &[], "{\"tenant\":\"zeta\"}\n").status, 200);
    let ledger = place.wait_received(&mut running, 5);
    let want = [("__other__", 2), ("acme", 1), ("beta", 1), ("zeta", 1)];
    assert_eq!(ledger.kept_by_tenant(), want.map(|(tenant, n)| (tenant.to_string(), n)).into());
    running.stop();
    place.recount().assert_settled();
}

fn forward(far: &FarSide, http: &str) -> String {
    format!(
        "sources: {{ logs: {{ file: {{ include: [\"$DIR/in/*.log\"] }} }} }}\nsinks: {{ far: {{ http: {{ url: \"http://{}\", retry: {{ pause_min: 1ms, pause_max: 20ms }}, {http} }} }} }}\n",
        far.address
    )
}

#[test]
fn the_http_sink_tries_again_and_keeps_what_is_refused() {
    let place = Place::new();
    let mut first = vec![(500, "sorry"), (429, "Retry-After: 1\n\nslow down"), (401, "who?"), (302, "Location: /x\n\n")];
    let since = Arc::new(Mutex::new(None::<Instant>));
    let (stamp, waited) = (Arc::clone(&since), Arc::new(Mutex::new(Duration::ZERO)));
    let wait = Arc::clone(&waited);
    let far = FarSide::new(Box::new(move |request| {
        if let Some(since) = stamp.lock().expect("nobody panics").take() {
            *wait.lock().expect("nobody panics") = since.elapsed();
        }
        if !first.is_empty() {
            let (status, answer) = first.remove(0);
            if status == 429 {
                *stamp.lock().expect("nobody panics") = Some(Instant::now());
            }
            return (status, answer.into());
        }
        if request.body.contains("\"n\":77,") { (400, "no 77 here".into()) } else { (200, "ok".into()) }
    }));
    place.write("first.token", "secret-of-the-sink");
    place.pipeline(&forward(&far, "auth: { token_file: $DIR/first.token }, headers: { X-Team: a }, batch: { age: 1ms }"));
    place.write("in/a.log", records(0..200));
    place.once();
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!(
        (ledger.kept(), ledger.sink("far", "delivered"), ledger.sink("far", "rejected"), ledger.difference("far")),
        (200, 199, 1, 0),
        "{}",
        ledger.0
    );
    assert!(ledger.0["sinks"]["far"]["rejected"].to_string().contains("refused"), "{}", ledger.0["sinks"]["far"]);
    let seen = far.seen();
    assert!(*waited.lock().expect("nobody panics") >= Duration::from_secs(1), "Retry-After is honoured");
    let first = &seen[0].headers;
    assert_eq!((first["authorization"].as_str(), first["x-team"].as_str()), ("Bearer secret-of-the-sink", "a"));
    assert!(
        seen.windows(2).take(4).all(|pair| pair[0].headers["idempotency-key"] == pair[1].headers["idempotency-key"]),
        "the same rows have the same key"
    );
    let good = seen.iter().skip(4).filter(|request| !request.body.contains("\"n\":77,"));
    let got: Vec<Vec<u8>> = good.flat_map(|request| lines(request.body.as_bytes())).collect();
    let want: Vec<Vec<u8>> = lines(records(0..200).as_bytes()).into_iter().filter(|line| !line.starts_with(b"{\"n\":77,")).collect();
    assert_eq!(got, want, "each once, in order");
    let letters = std::fs::read(place.data().join("dead/pipeline.far/00000001.ndjson")).expect("a dead letter");
    let letter: Value = serde_json::from_slice(&letters).expect("one letter");
    assert_eq!(
        (letter["status"].as_u64(), letter["reason"].as_str(), letter["tenant"].as_str()),
        (Some(400), Some("no 77 here"), Some("a"))
    );
    assert_eq!(letter["record"], "{\"n\":77,\"tenant\":\"a\"}");
    // A second run has nothing to add, and counts the same.
    place.once();
    let again = place.recount();
    assert_eq!((again.sink("far", "delivered"), again.sink("far", "rejected"), again.difference("far")), (199, 1, 0));
    assert_eq!(far.seen().len(), seen.len());
}

#[test]
fn items_of_a_bulk_go_their_own_ways() {
    let place = Place::new();
    let mut busy = 3;
    let far = FarSide::new(Box::new(move |request| {
        let mut items = Vec::new();
        for pair in request.body.lines().collect::<Vec<_>>().chunks(2) {
            let status = match pair[1] {
                document if document.contains("\"n\":5,") && busy > 0 => {
                    busy -= 1;
                    429
                }
                document if document.contains("\"n\":9,") => 400,
                document if document.contains("\"n\":11,") => 409,
                _ => 201,
            };
            items.push(json!({ "create": { "status": status, "error": (status != 201).then(|| json!({ "type": "t", "reason": "r" })) } }));
        }
        (200, json!({ "errors": true, "items": items }).to_string())
    }));
    place.pipeline(&forward(&far, "body: bulk, index: \"logs-{tenant}\", compress: zstd"));
    place.write("in/a.log", records(0..100));
    place.once();
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!((ledger.sink("far", "delivered"), ledger.sink("far", "rejected"), ledger.difference("far")), (99, 1, 0));
    let seen = far.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0].path, "/_bulk");
    assert_eq!(seen[0].body.lines().count(), 200);
    assert!(
        seen[1..].iter().all(|request| request.body.lines().count() == 2 && request.body.contains("\"n\":5,")),
        "only the busy one goes again"
    );
    let ids: BTreeSet<&str> = seen[0].body.lines().step_by(2).collect();
    assert_eq!(ids.len(), 100, "each document has an id of its own");
    assert!(seen[1].body.lines().next().is_some_and(|action| ids.contains(action)), "and keeps it");
}

#[test]
fn what_a_far_side_does_not_take_waits_in_the_journal() {
    let place = Place::new();
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let far = FarSide::new(Box::new(move |_| if is_away.load(Ordering::Relaxed) { (503, "later".into()) } else { (204, String::new()) }));
    place.pipeline(&forward(&far, "body: loki, labels: { job: weir, who: \"{tenant}\" }"));
    place.write("in/a.log", records(0..100));
    let mut running = place.start();
    place.wait_ledger(&mut running, "all received", |ledger| ledger.received() == 100);
    wait_until("it was tried", || !far.seen().is_empty());
    drop(running); // killed: the journal has them
    away.store(false, Ordering::Relaxed);
    let mut running = place.start();
    place.wait_ledger(&mut running, "all delivered", |ledger| ledger.sink("far", "delivered") == 100);
    running.stop();
    let ledger = place.recount();
    ledger.assert_settled();
    let last = far.seen().pop().expect("requests came");
    let push: Value = serde_json::from_str(&last.body).expect("JSON");
    assert_eq!(last.path, "/loki/api/v1/push");
    assert_eq!(push["streams"][0]["stream"], json!({ "job": "weir", "who": "a" }));
    assert_eq!(push["streams"][0]["values"].as_array().map(Vec::len), Some(100));
    assert_eq!(push["streams"][0]["values"][0][1], "{\"n\":0,\"tenant\":\"a\"}");
}

#[test]
fn weir_sends_to_weir() {
    for (body, check_all) in [("ndjson", true), ("bulk", true), ("loki", false)] {
        let (near, far) = (Place::new(), Place::new());
        far.pipeline(&gate(""));
        let mut running = far.start();
        let address = listens(&running, "tcp");
        let input = platform(7, 20_000);
        near.write("in/a.log", input.concat());
        near.pipeline(&format!(
            "sources: {{ logs: {{ file: {{ include: [\"$DIR/in/*.log\"] }} }} }}\nsinks: {{ far: {{ http: {{ url: \"http://{address}\", body: {body}, batch: {{ bytes: 256KiB }} }} }} }}\n"
        ));
        near.once();
        let sent = near.recount();
        sent.assert_settled();
        assert_eq!(sent.sink("far", "delivered"), 20_000, "{body}");
        far.wait_received(&mut running, 20_000);
        running.stop();
        let got = far.recount();
        got.assert_settled();
        assert_eq!((got.received(), got.kept_by_tenant()), (20_000, sent.kept_by_tenant()), "{body}");
        if check_all {
            let want: Vec<Vec<u8>> = input.iter().map(|line| line.trim_end().as_bytes().to_vec()).collect();
            assert_same_lines(body, &archived(&far, "kept"), &want);
        }
    }
}

#[test]
fn a_source_without_an_end_is_not_read_to_it() {
    let place = Place::new();
    let path = place.pipeline(&gate(""));
    let done = place.run(&["run", "--once", path.to_str().expect("text")]).exits(2);
    assert!(done.stderr.contains("source gate has no end") && done.stderr.contains("without --once"), "{}", done.stderr);
}

/// A Python with a module; tests that need it are skipped without.
fn python_with(test: &str, module: &str) -> Option<String> {
    let own = std::env::var("WEIR_SENDERS_PYTHON").ok();
    let found = own.into_iter().chain(["python3".to_string()]).find(|python| works(python, &["-c", &format!("import {module}")]));
    if found.is_none() {
        skip(test, &format!("needs {module} for Python; tests/run gets it"));
    }
    found
}

fn run_python(python: &str, script: &str, args: &[&str]) -> Value {
    let mut command = Command::new(python);
    command.arg("-c").arg(script).args(args).env_remove("HTTP_PROXY").env_remove("http_proxy").env("NO_PROXY", "127.0.0.1");
    let done = crate::harness::finish(command).good();
    done.json()
}

#[test]
fn a_client_of_elasticsearch_delivers_and_hears_of_the_rejected_item() {
    let Some(python) = python_with("a_client_of_elasticsearch_delivers_and_hears_of_the_rejected_item", "elasticsearch") else { return };
    let place = Place::new();
    place.pipeline(&gate(""));
    let running = place.start();
    let address = listens(&running, "tcp");
    let script = r#"
import json, sys
from elasticsearch import Elasticsearch, helpers
client = Elasticsearch("http://" + sys.argv[1], http_compress=True)
assert client.info()["version"]["number"]
def actions():
    for n in range(1000):
        yield b'{"n":' if n == 500 else {"_index": "logs", "_op_type": "create", "n": n, "tenant": "a"}
good, errors = helpers.bulk(client, actions(), index="logs", chunk_size=1000, raise_on_error=False)
print(json.dumps({"good": good, "errors": errors}, default=str))
"#;
    let told = run_python(&python, script, &[&address]);
    assert_eq!(told["good"], 999, "{told}");
    let errors = told["errors"].as_array().expect("a list");
    assert_eq!(errors.len(), 1, "{told}");
    assert_eq!(errors[0]["index"]["status"], 400, "{told}");
    running.stop();
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!((ledger.received(), ledger.difference("kept")), (999, 0));
}

#[test]
fn a_client_of_loki_delivers() {
    let Some(python) = python_with("a_client_of_loki_delivers", "logging_loki") else { return };
    let place = Place::new();
    place.pipeline(&gate(""));
    let running = place.start();
    let address = listens(&running, "tcp");
    let script = r#"
import json, logging, sys
import logging_loki
handler = logging_loki.LokiHandler(url="http://" + sys.argv[1] + "/loki/api/v1/push", tags={"tenant": "a"}, version="1")
failed = []
handler.handleError = lambda record: failed.append(str(sys.exc_info()[1]))
log = logging.getLogger("app"); log.setLevel(logging.INFO); log.addHandler(handler)
for n in range(50):
    log.info("line %d", n)
print(json.dumps({"failed": failed}))
"#;
    assert_eq!(run_python(&python, script, &[&address]), json!({ "failed": [] }));
    running.stop();
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!(ledger.kept_by_tenant(), BTreeMap::from([("a".into(), 50)]));
    let messages: BTreeSet<String> = archived(&place, "kept")
        .iter()
        .map(|row| serde_json::from_slice::<Value>(row).expect("JSON")["message"].as_str().expect("a message").to_string())
        .collect();
    assert_eq!(messages, (0..50).map(|n| format!("line {n}")).collect());
}

#[test]
fn rsyslog_delivers() {
    let program = ["/usr/sbin/rsyslogd", "/sbin/rsyslogd"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let Some(program) = program else {
        return skip("rsyslog_delivers", "needs rsyslogd; tests/run gets it");
    };
    let place = Place::new();
    place.pipeline(
        "sources: { net: { syslog: { udp: \"127.0.0.1:0\", tcp: \"127.0.0.1:0\" } } }\nsinks: { kept: { archive: { path: all.log } } }\n",
    );
    let mut running = place.start();
    let (udp, tcp) = (listens(&running, "udp"), listens(&running, "tcp"));
    let port = |address: &str| address.rsplit(':').next().expect("a port").to_string();
    place.write("in/app.log", (0..1000).map(|n| format!("line {n}\n")).collect::<String>());
    let dir = place.path("").display().to_string();
    let config = format!(
        "global(workDirectory=\"{dir}\")\nmodule(load=\"imfile\")\ninput(type=\"imfile\" File=\"{dir}/in/app.log\" Tag=\"app:\" Facility=\"local3\" Severity=\"error\")\n\
         action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{}\" protocol=\"tcp\" TCP_Framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\")\n\
         action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{}\" protocol=\"tcp\" template=\"RSYSLOG_TraditionalForwardFormat\")\n\
         :msg, contains, \"line 7\" action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{}\" protocol=\"udp\" template=\"RSYSLOG_ForwardFormat\")\n",
        port(&tcp),
        port(&tcp),
        port(&udp)
    );
    let path = place.write("rsyslog.conf", config);
    let mut command = Command::new(program);
    command.arg("-n").arg("-f").arg(path).arg("-i").arg(place.path("rsyslog.pid")).stdin(Stdio::null()).stdout(Stdio::null());
    let rsyslog = Running::spawn(command);
    place.wait_ledger(&mut running, "all lines over TCP twice, some by UDP", |ledger| ledger.received() >= 2111);
    drop(rsyslog);
    running.stop();
    let rows: Vec<Value> = archived(&place, "kept").iter().map(|row| serde_json::from_slice(row).expect("JSON")).collect();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["app"] == "app") {
        assert_eq!((row["level"].as_str(), row["facility"].as_str()), (Some("error"), Some("local3")), "{row}");
        *counts.entry(row["message"].as_str().expect("a message").trim_start().to_string()).or_default() += 1;
    }
    let want = (0..1000).map(|n| (format!("line {n}"), 2 + u64::from(n.to_string().starts_with('7'))));
    assert_eq!(counts, want.collect());
    place.recount().assert_settled();
}
