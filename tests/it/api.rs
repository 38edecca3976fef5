//! Questions over the admin port: answers equal to what serde_json says of the lines, tenants apart, hostile questions bounded.
//!
//! In: generated lines, half of them sealed; requests by a small client of our own. The oracle reads the lines and shares no code
//! with the program.

use crate::harness::{Place, Running, admin_address, weir};
use crate::input::{assert_same_lines, platform, select};
use crate::stores::commits;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 20ms } } }
tenancy: { from: [tenant] }
sinks: { store: { lake: { seal: { bytes: 1MiB, age: 1h }, index_bytes_min: 16KiB } } }
admin: { listen: "127.0.0.1:0"$ADMIN }
$MORE
"#;

/// Status, head and body.
fn ask(address: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    // One that is too long may not be read to its end.
    let _ = stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n{headers}\r\n").as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // a connection that is cut says so by what is missing
    let text = String::from_utf8(answer).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, head.to_string(), if chunked { unchunk(body) } else { body.to_string() })
}

/// A chunked body whole; what is cut off is left out.
fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size, 16) else { break };
        let Some(chunk) = rest.get(..size) else { break };
        whole.push_str(chunk);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// `name=value` pairs with `&` between them; values are encoded here.
fn url(path: &str, pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    format!("/api/v1/{path}?{}", pairs.join("&"))
}

#[track_caller]
fn good(address: &str, path: &str, pairs: &[(&str, &str)]) -> Value {
    let (status, _, body) = ask(address, &url(path, pairs), "");
    assert_eq!(status, 200, "{path} {pairs:?}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}"))
}

/// A running program that has sealed the first part of some lines and not the second.
fn scene(admin: &str, more: &str) -> (Place, Running, String, Vec<String>) {
    let place = Place::new();
    place.pipeline(&PIPELINE.replace("$ADMIN", admin).replace("$MORE", more));
    let lines = platform(51, 5400);
    let (first, second) = lines.split_at(3400);
    place.append("in/a.log", first.concat());
    let mut running = place.start();
    let lake = place.data().join("lake");
    place.wait_ledger(&mut running, "the first half sealed", |ledger| commits(&lake) > 0 && ledger.received() == 3400);
    place.append("in/a.log", second.concat());
    place.wait_received(&mut running, 5400);
    let address = admin_address(&running);
    (place, running, address, lines)
}

fn value(line: &str) -> Value {
    serde_json::from_str(line).expect("the generator writes JSON")
}

#[test]
fn questions_over_the_port_are_answered_as_the_lines_say() {
    let (place, running, address, lines) = scene("", "");
    // Hits: every record byte for byte.
    let errors = select(&lines, |r| r["level"] == "error" && r["tenant"] == "acme-search");
    let answer = good(&address, "search", &[("query", "level:error tenant:acme-search"), ("limit", "10000")]);
    let mut found: Vec<Vec<u8>> =
        answer["hits"].as_array().expect("hits").iter().map(|hit| hit["record"].to_string().into_bytes()).collect();
    let mut want: Vec<Vec<u8>> =
        errors.iter().map(|line| serde_json::from_slice::<Value>(line).expect("JSON").to_string().into_bytes()).collect();
    found.sort();
    want.sort();
    assert_eq!(found, want);
    assert_eq!(answer["partial"], Value::Null);
    let newest = good(&address, "search", &[("query", "level:error"), ("limit", "3")]);
    let times: Vec<&str> = newest["hits"].as_array().expect("hits").iter().map(|hit| hit["time"].as_str().expect("a time")).collect();
    let mut all: Vec<String> =
        lines.iter().map(|l| value(l)).filter(|r| r["level"] == "error").map(|r| r["ts"].as_str().expect("ts").to_string()).collect();
    all.sort();
    assert_eq!(times, all.iter().rev().take(3).collect::<Vec<_>>());

    // A table.
    let answer = good(&address, "search", &[("query", "* | stats count() as n, sum(tokens_in) as t by (service) | sort n desc")]);
    let mut sums: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for line in &lines {
        let record = value(line);
        let sum = sums.entry(record["service"].as_str().expect("text").to_string()).or_default();
        *sum = (sum.0 + 1, sum.1 + record["tokens_in"].as_i64().expect("a number"));
    }
    assert_eq!(answer["table"]["columns"], json!(["service", "n", "t"]));
    let rows = answer["table"]["rows"].as_array().expect("rows");
    let got: BTreeMap<String, (i64, i64)> = rows
        .iter()
        .map(|row| (row[0].as_str().expect("text").to_string(), (row[1].as_i64().expect("n"), row[2].as_i64().expect("t"))))
        .collect();
    assert_eq!(got, sums);
    assert!(rows.windows(2).all(|pair| pair[0][1].as_i64() >= pair[1][1].as_i64()), "{rows:?}");

    // Counts over the full range, and facets.
    let answer = good(&address, "histogram", &[("query", "tenant:acme-search"), ("by", "level"), ("span", "1h")]);
    let mut want: BTreeMap<(String, String), u64> = BTreeMap::new();
    for record in lines.iter().map(|l| value(l)).filter(|r| r["tenant"] == "acme-search") {
        let hour = format!("{}:00:00Z", &record["ts"].as_str().expect("ts")[..13]);
        *want.entry((hour, record["level"].as_str().expect("level").to_string())).or_default() += 1;
    }
    let mut got = BTreeMap::new();
    for bucket in answer["buckets"].as_array().expect("buckets") {
        for (level, count) in bucket["counts"].as_object().expect("counts") {
            got.insert((bucket["start"].as_str().expect("a time").to_string(), level.clone()), count.as_u64().expect("a count"));
        }
    }
    assert_eq!(got, want);
    let answer = good(&address, "facets", &[("query", "level:error"), ("fields", "service,status"), ("top", "100")]);
    for facet in answer["facets"].as_array().expect("facets") {
        let field = facet["field"].as_str().expect("a name");
        let mut want: BTreeMap<String, u64> = BTreeMap::new();
        for record in lines.iter().map(|l| value(l)).filter(|r| r["level"] == "error") {
            let text = record[field].as_str().map_or_else(|| record[field].to_string(), str::to_string);
            *want.entry(text).or_default() += 1;
        }
        let got: BTreeMap<String, u64> = facet["values"]
            .as_array()
            .expect("values")
            .iter()
            .map(|one| (one["value"].as_str().expect("text").to_string(), one["count"].as_u64().expect("a count")))
            .collect();
        assert_eq!(got, want, "{field}");
    }

    // Neighbours, sealed and not, by the order of lines in their file.
    for n in [1000, 3399, 4000] {
        let id = value(&lines[n])["trace_id"].as_str().expect("an id").to_string();
        let hit = good(&address, "search", &[("query", &id)])["hits"][0].clone();
        let (stream, position) = (hit["stream"].as_str().expect("a stream"), hit["position"].to_string());
        let answer = good(&address, "context", &[("stream", stream), ("position", &position), ("before", "3"), ("after", "2")]);
        let got: Vec<Value> = answer["hits"].as_array().expect("hits").iter().map(|hit| hit["record"].clone()).collect();
        assert_eq!(got, lines[n - 3..=n + 2].iter().map(|line| value(line)).collect::<Vec<_>>(), "around line {n}");
    }

    // Everything, as it was received.
    let (status, _, body) = ask(&address, &url("export", &[("query", "service:chat-*")]), "");
    assert_eq!(status, 200);
    let want = select(&lines, |r| r["service"].as_str().expect("text").starts_with("chat-"));
    assert_same_lines("export", &crate::harness::lines(body.as_bytes()), &want);

    let sql = "SELECT service, count(*) AS n FROM logs GROUP BY service ORDER BY service";
    let answer = good(&address, "sql", &[("query", sql)]);
    let want: Vec<Value> = sums.iter().map(|(service, (n, _))| json!([service, n])).collect();
    assert_eq!(answer["table"], json!({ "columns": ["service", "n"], "rows": want }));
    let answer = good(&address, "sql", &[("query", "SELECT raw FROM logs"), ("limit", "5")]);
    assert_eq!((answer["table"]["rows"].as_array().map(Vec::len), answer["partial"].is_object()), (Some(5), true));
    let (status, _, body) = ask(&address, &url("sql", &[("query", "SELECT servce FROM logs")]), "");
    assert!(status == 400 && body.contains("did you mean service?"), "{status} {body}");

    // A field that nobody has is told, where nothing is found.
    let answer = good(&address, "search", &[("query", "sevrice:chat-8b-gateway")]);
    assert!(answer["warnings"][0]["help"].as_str().expect("a help").contains("service"), "{answer}");
    let fields = good(&address, "fields", &[]);
    assert!(fields["seen"].as_array().expect("names").contains(&json!("latency_ms")), "{fields}");
    running.stop();
    drop(place);
}

fn digest(token: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_token_sees_its_tenant_and_nothing_else_whatever_it_asks() {
    let tokens = Place::new();
    let file = tokens.write("tokens", format!("sha256:{} acme-search\nsha256:{} *\n", digest("of-acme"), digest("of-ops")));
    let admin = format!(", tokens_file: \"{}\"", file.display());
    let (place, running, address, lines) = scene(&admin, "");
    let acme = "Authorization: Bearer of-acme\r\n";
    let foreign = |text: &str| {
        lines.iter().map(|l| value(l)).any(|r| r["tenant"] != "acme-search" && text.contains(r["trace_id"].as_str().expect("an id")))
    };
    let other = value(lines.iter().find(|l| l.contains("fjord-bank")).expect("one"));
    let other_id = other["trace_id"].as_str().expect("an id").to_string();
    let ops = |path: &str| ask(&address, path, "Authorization: Bearer of-ops\r\n");
    let hit: Value = serde_json::from_str(&ops(&url("search", &[("query", &other_id)])).2).expect("JSON");
    assert_eq!(hit["hits"][0]["tenant"], "fjord-bank", "the operator sees all");
    let (stream, position) = (hit["hits"][0]["stream"].as_str().expect("a stream").to_string(), hit["hits"][0]["position"].to_string());

    for query in [
        "*",
        "tenant:fjord-bank",
        "tenant:*",
        "-tenant:acme-search",
        "tenant:acme-search OR tenant:fjord-bank",
        &other_id,
        &format!("trace_id:{other_id}"),
        &format!("trace_id:{}*", &other_id[..20]),
        &format!("/{}/", &other_id[..20]),
        "NOT tenant:acme-search",
        "* | stats count() by (tenant)",
        "* | fields tenant, trace_id",
        "* | top 100 trace_id",
        "tenant:fjord-bank | context 5",
        "* | patterns",
        "* | timechart 1h count() by tenant",
    ] {
        for path in ["search", "export", "histogram", "facets"] {
            let limit = ("limit", "1000");
            let pairs = [("query", query), limit];
            let taken = if ["search", "export"].contains(&path) { 2 } else { 1 };
            let (status, _, body) = ask(&address, &url(path, &pairs[..taken]), acme);
            let (bad, known) = (status != 200, ["histogram", "facets", "export"].contains(&path));
            assert!(!bad || known || status == 400, "{path} {query}: {status} {body}");
            assert!(!foreign(&body), "{path} {query} shows another's record");
            for name in ["fjord-bank", "borealis-legal", "helix-bio"] {
                assert!(!body.contains(name) || body.contains("error"), "{path} {query} names {name}: {}", &body[..body.len().min(300)]);
            }
        }
    }
    let count: Value = serde_json::from_str(&ask(&address, &url("search", &[("query", "* | stats count() as n")]), acme).2).expect("JSON");
    assert_eq!(count["table"]["rows"][0][0], select(&lines, |r| r["tenant"] == "acme-search").len() as u64);
    for query in ["SELECT * FROM logs WHERE tenant <> 'acme-search' OR true", "SELECT tenant, count(*) FROM usage GROUP BY tenant"] {
        let (status, _, body) = ask(&address, &url("sql", &[("query", query)]), acme);
        assert!(status == 200 && !foreign(&body) && !body.contains("fjord-bank"), "{query}: {status}");
    }
    let around = ask(&address, &url("context", &[("stream", &stream), ("position", &position), ("before", "50"), ("after", "50")]), acme);
    assert!(!foreign(&around.2), "{}", around.2);
    let facet = ask(&address, &url("facets", &[("fields", "tenant")]), acme);
    assert!(!facet.2.contains("fjord-bank"), "{}", facet.2);

    for (path, headers, want) in [
        (url("search", &[("tenant", "fjord-bank")]), acme, 403),
        (url("search", &[("tenant", "acme-search")]), acme, 200),
        (url("sql", &[("query", "SELECT 1"), ("tenant", "fjord-bank")]), acme, 403),
        (url("search", &[("tenant", "")]), acme, 403),
        (url("search", &[("tenant", "acme-search"), ("tenant", "fjord-bank")]), acme, 400),
        (url("search", &[("Tenant", "fjord-bank")]), acme, 400),
        (url("search", &[]), "", 401),
        (url("search", &[]), "Authorization: Bearer of-acme-\r\n", 401),
        (url("search", &[]), "Authorization: Bearer of-acme\r\nX-Scope-OrgID: fjord-bank\r\nX-Weir-Tenant: fjord-bank\r\n", 200),
        ("/api/ledger".into(), acme, 403),
        ("/api/sources".into(), acme, 403),
        ("/api/ledger".into(), "Authorization: Bearer of-ops\r\n", 200),
        ("/livez".into(), "", 200),
    ] {
        let (status, _, body) = ask(&address, &path, headers);
        assert_eq!(status, want, "{path} {headers}: {body}");
        assert!(headers.contains("of-ops") || !foreign(&body), "{path}");
    }
    running.stop();
    drop((place, tokens));
}

#[test]
fn hostile_questions_end_soon_and_leave_the_program_well() {
    let (place, mut running, address, _) = scene("", "query: { deadline: 2s, at_a_time: 2, at_a_time_per_tenant: 2 }");
    let brackets = "(".repeat(10_000);
    let paths: String = (0..10_000).map(|n| format!("a.b{n}:x OR ")).collect::<String>() + "x";
    let hostile = [
        brackets.clone() + "a" + &brackets.replace('(', ")"),
        "-".repeat(20_000) + "a",
        "a OR ".repeat(10_000) + "a",
        format!("/({}/", "(a*)*".repeat(200)),
        "/(a|a|a)*(a|a|a)*$/".into(),
        "/a{1000}{1000}/".into(),
        paths.chars().take(60_000).collect(),
        format!("msg:{}", "x".repeat(50_000)),
        "latency_ms:[* TO *] OR latency_ms:{-1e999 TO 1e999}".into(),
        "*".repeat(30_000),
        "? ".repeat(10_000),
        "msg:*a*b*c*d*e*f*g*h*i*j*k*l*m*n*o*p*q*".into(),
        "* | ".repeat(5_000) + "limit 1",
        "* | stats ".to_string() + &"count(),".repeat(5_000) + "count()",
        "* | stats count() by (trace_id, request_id, msg, latency_ms)".into(),
        "| | |".into(),
        "\u{0}\u{1}\u{fffd}\u{202e}".into(),
        "\"".repeat(10_001),
    ];
    for query in &hostile {
        let since = Instant::now();
        let (status, _, body) = ask(&address, &url("search", &[("query", query)]), "");
        assert!(
            [200, 400, 414, 431].contains(&status),
            "{status} for {}: {}",
            &query[..query.floor_char_boundary(60)],
            &body[..body.len().min(300)]
        );
        assert!(since.elapsed() < Duration::from_secs(20), "{:?} for {}", since.elapsed(), &query[..query.floor_char_boundary(60)]);
    }
    // A line of a mebibyte is no question at all.
    let (status, _, _) = ask(&address, &format!("/api/v1/search?query={}", "a".repeat(1 << 20)), "");
    assert!([0, 400, 414, 431].contains(&status), "{status}");
    for (path, pairs) in [
        ("search", vec![("limit", "99999999999999999999")]),
        ("search", vec![("limit", "10001")]),
        ("search", vec![("since", "yesterdayish")]),
        ("search", vec![("order", "sideways")]),
        ("search", vec![("colour", "red")]),
        ("histogram", vec![("buckets", "1000000")]),
        ("histogram", vec![("span", "1ns")]),
        ("histogram", vec![("span", "-1h")]),
        ("facets", vec![("top", "1000000")]),
        ("context", vec![("stream", "zz"), ("position", "1")]),
        ("context", vec![("stream", "ff")]),
        ("context", vec![("stream", "ff"), ("position", "1"), ("before", "100000")]),
        ("export", vec![("query", "* | stats count()")]),
        ("histogram", vec![("query", "* | limit 5")]),
        ("facets", vec![("query", "level:error | stats count()")]),
        ("tail", vec![("query", "since:15m level:error")]),
        ("tail", vec![("query", "level:error | stats count()")]),
        ("facets", vec![("limit", "5")]),
        ("search", vec![("top", "5")]),
        ("fields", vec![("query", "x")]),
        ("tail", vec![("since", "15m")]),
        ("tail", vec![("query", "* | context 2")]),
    ] {
        let (status, _, body) = ask(&address, &url(path, &pairs), "");
        assert_eq!(status, 400, "{path} {pairs:?}: {body}");
        let told: Value = serde_json::from_str(&body).expect("an error is JSON");
        assert!(told["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
    }
    assert_eq!(ask(&address, &url("tail", &[("query", "* | limit 0")]), "").0, 200, "it ends at once");
    let wrong = ask(&address, &url("search", &[("query", "level:error AND (service:chat")]), "").2;
    let told: Value = serde_json::from_str(&wrong).expect("JSON");
    assert!(told["error"].as_str().expect("text").contains('^') && told["errors"][0]["at"] == 16, "{wrong}");
    assert!(running.is_running());
    assert_eq!(good(&address, "search", &[("query", "* | stats count() as n")])["table"]["rows"][0][0], 5400);
    running.stop();
    drop(place);
}

#[test]
fn what_comes_is_seen_within_a_second_over_the_port_and_on_the_command_line() {
    let (place, running, address, _) = scene("", "");
    let mut stream = TcpStream::connect(&address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    write!(stream, "GET {} HTTP/1.1\r\nHost: weir\r\n\r\n", url("tail", &[("query", "level:error \"needle here\"")])).expect("sent");
    let mut events = BufReader::new(stream).lines();
    let head: Vec<String> = events.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    assert!(head[0].contains("200") && head.iter().any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")), "{head:?}");
    let mut command = weir();
    command.args(["tail", "level:error needle", "--json", "--limit", "2", "--data"]).arg(place.data()).stdout(Stdio::piped());
    let mut following = Running::spawn(command);
    assert!(events.by_ref().map_while(Result::ok).any(|line| line == ":"), "it says that it is there");
    // The command may be a moment behind the port; lines come until it has seen two.
    let mut slowest = Duration::ZERO;
    for n in 0..200 {
        let line = |word: &str| {
            format!(
                "{{\"ts\":\"2026-11-27T10:00:00Z\",\"tenant\":\"acme-search\",\"level\":\"error\",\"msg\":\"a {word} here\",\"n\":{n}}}\n"
            )
        };
        let began = Instant::now();
        place.append("in/a.log", line("haystack") + &line("needle"));
        let event = events.by_ref().map_while(Result::ok).find(|line| line.starts_with("data: ")).expect("an event");
        slowest = slowest.max(began.elapsed());
        let hit: Value = serde_json::from_str(&event["data: ".len()..]).expect("JSON");
        assert_eq!((&hit["record"]["n"], &hit["record"]["msg"]), (&json!(n), &json!("a needle here")));
        if !following.is_running() {
            break;
        }
    }
    assert!(following.wait().success(), "{}", following.stderr());
    let mut said = Vec::new();
    following.child().stdout.take().expect("piped").read_to_end(&mut said).expect("read");
    let got: Vec<Value> = crate::harness::lines(&said).iter().map(|line| serde_json::from_slice(line).expect("JSON")).collect();
    assert!(got.len() == 2 && got.iter().all(|record| record["msg"] == "a needle here"), "{got:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?} until it was seen");
    running.stop();
}

/// Whether `value` is as a schema of the description says; the first thing that is not.
fn fits(described: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let found = name.trim_start_matches("#/").split('/').fold(described, |value, key| &value[key]);
        assert!(found.is_object(), "{name} is described nowhere");
        return fits(described, found, value, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let failed: Vec<String> = any.iter().filter_map(|one| fits(described, one, value, at).err()).collect();
        return if failed.len() < any.len() { Ok(()) } else { Err(failed.join("; ")) };
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let is = |kind: &Value| match kind.as_str().expect("a name") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    };
    if !kinds.is_empty() && !kinds.iter().any(is) {
        return Err(format!("{at} is {value}, not {}", schema["type"]));
    }
    if !schema["const"].is_null() && schema["const"] != *value {
        return Err(format!("{at} is {value}, not {}", schema["const"]));
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let known = match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => return Err(format!("{at} has {name}, which is not described")),
            (Value::Null, rest) => rest,
            (known, _) => known,
        };
        fits(described, known, inner, &format!("{at}.{name}"))?;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().expect("a name")).is_none() {
            return Err(format!("{at} lacks {name}"));
        }
    }
    for (n, one) in value.as_array().into_iter().flatten().enumerate() {
        fits(described, &schema["items"], one, &format!("{at}[{n}]"))?;
    }
    Ok(())
}

#[test]
fn answers_are_as_the_description_says_and_what_is_missing_is_not_what_is_empty() {
    let (place, mut running, address, _) = scene("", "");
    let line = |more: &str| format!("{{\"ts\":\"2026-11-27T10:00:00Z\",\"tenant\":\"acme-search\",\"msg\":\"odd one\"{more}}}\n");
    let long = format!(",\"zone\":\"{}\"", "z".repeat(5_000));
    let odd = [",\"zone\":\"\"", ",\"zone\":\"\"", "", ",\"zone\":\"__other__\"", &long, ",\"zone\":null"];
    place.append("in/a.log", odd.map(line).concat() + "odd one, and no JSON\n");
    place.wait_received(&mut running, 5407);
    let file = std::fs::read_to_string(crate::harness::root().join("schemas/openapi.json")).expect("it is committed");
    let described: Value = serde_json::from_str(&file).expect("JSON");
    for (path, pairs) in [
        ("search", vec![("limit", "50")]),
        ("search", vec![("query", "odd")]),
        ("search", vec![("query", "level:error | context 2"), ("limit", "3")]),
        ("search", vec![("query", "nosuchfield:1")]),
        ("search", vec![("query", "* | stats count(), avg(latency_ms), max(ts), uniq(trace_id) by (model)")]),
        ("search", vec![("query", "* | patterns")]),
        ("search", vec![("query", "(")]),
        ("histogram", vec![("by", "zone")]),
        ("histogram", vec![("by", "level"), ("buckets", "7")]),
        ("facets", vec![]),
        ("facets", vec![("fields", "zone,model")]),
        ("context", vec![("stream", "0"), ("position", "5")]),
        ("fields", vec![]),
        ("export", vec![("limit", "2")]),
        ("export", vec![("top", "2")]),
    ] {
        let (status, _, body) = ask(&address, &url(path, &pairs), "");
        let answer = &described["paths"][format!("/api/v1/{path}")]["get"]["responses"][status.to_string()];
        let schema = match answer["$ref"].as_str() {
            Some(name) => &described["components"]["responses"][name.rsplit('/').next().expect("a name")],
            None => answer,
        };
        let (kind, schema) = schema["content"].as_object().expect("a body").iter().next().expect("one");
        if kind == "application/json" {
            let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path} {pairs:?}: {error} in {body}"));
            fits(&described, &schema["schema"], &body, path).unwrap_or_else(|what| panic!("{path} {pairs:?}: {what}"));
        }
    }
    let counted = good(&address, "histogram", &[("query", "odd"), ("by", "zone"), ("span", "1000d")]);
    let bucket = &counted["buckets"][0];
    assert_eq!(bucket["counts"], json!({ "": 2, "__other__": 1 }), "{counted}");
    assert_eq!((&bucket["missing"]["count"], &bucket["others"]["count"]), (&json!(3), &json!(1)), "{counted}");
    let facet = good(&address, "facets", &[("query", "odd"), ("fields", "zone")])["facets"][0].clone();
    assert_eq!((&facet["distinct"], &facet["missing"]), (&json!(3), &json!(3)), "{facet}");
    running.stop();
}

#[test]
fn an_answer_that_is_cut_short_says_why() {
    let more = "query: { read_bytes_max: 64KiB, at_a_time: 1, at_a_time_per_tenant: 1 }";
    let (place, running, address, _) = scene("", more);
    let why = |path: &str, pairs: &[(&str, &str)]| good(&address, path, pairs)["partial"]["why"].as_str().unwrap_or("").to_owned();
    assert!(why("search", &[("query", "msg:/e/"), ("order", "oldest"), ("limit", "5400")]).contains("bytes were read"));
    assert!(why("search", &[("query", "msg:/e/ | stats count()")]).contains("bytes were read"));
    assert!(why("search", &[("query", "msg:/e/ | context 3"), ("order", "oldest"), ("limit", "5400")]).contains("bytes were read"));
    let (status, head, _) = ask(&address, &url("export", &[("query", "msg:/e/")]), "");
    assert!(status == 200 && head.to_ascii_lowercase().contains("chunked"));
    // One place, and somebody who reads along takes none of it.
    let mut stream = TcpStream::connect(&address).expect("it listens");
    write!(stream, "GET {} HTTP/1.1\r\nHost: weir\r\n\r\n", url("tail", &[])).expect("sent");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("a status");
    assert_eq!(&head, b"HTTP/1.1 200");
    assert_eq!(ask(&address, &url("fields", &[]), "").0, 200);
    let (status, head, _) = ask(&address, &url("tail", &[]), "");
    assert!(status == 429 && head.to_ascii_lowercase().contains("retry-after"), "{head}");
    running.stop();
    drop(place);

    let (place, mut running, address, _) = scene("", "query: { memory: 8MiB }");
    let large = format!("{{\"ts\":\"2026-11-27T10:00:00Z\",\"large\":\"yes\",\"msg\":\"{}\"}}\n", "x".repeat(700_000));
    place.append("in/a.log", large.repeat(14));
    place.wait_received(&mut running, 5414);
    let answer = good(&address, "search", &[("query", "large:yes"), ("limit", "5400"), ("order", "oldest")]);
    assert!(answer["partial"]["why"].as_str().expect("it is partial").contains("one answer holds"), "{}", answer["partial"]);
    assert_eq!(answer["hits"].as_array().expect("hits").len(), (8 << 20) / large.len());
    // Neighbours of more hits than one answer shows.
    let answer = good(&address, "search", &[("query", "level:info | context 0"), ("limit", "2")]);
    assert_eq!(answer["partial"], Value::Null);
    running.stop();
    let output = weir().args(["search", "* | context 1", "--json", "--data"]).arg(place.data()).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("neighbours"), "{told}");
    let shown = crate::harness::lines(&output.stdout).len();
    assert!((1_000..1_100).contains(&shown), "{shown}");
}

#[test]
fn several_lakes_answer_in_one_order_of_time() {
    let place = Place::new();
    place.pipeline(
        r#"
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 20ms } } }
tenancy: { from: [tenant] }
sinks:
  good: { lake: { when: 'level != "error"', seal: { bytes: 64KiB, age: 1h } } }
  bad: { lake: { when: 'level == "error"', url: "file:bad", seal: { bytes: 64KiB, age: 1h } } }
"#,
    );
    let lines = platform(52, 2000);
    place.append("in/a.log", lines.concat());
    place.once();
    let search = |arguments: &[&str]| {
        let output = weir().arg("search").args(arguments).args(["--json", "--data"]).arg(place.data()).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        crate::harness::lines(&output.stdout)
    };
    let all = search(&["*"]);
    assert_same_lines("both lakes", &all, &lines.iter().map(|line| line.trim_end().as_bytes().to_vec()).collect::<Vec<_>>());
    let time = |line: &Vec<u8>| serde_json::from_slice::<Value>(line).expect("JSON")["ts"].as_str().expect("ts").to_owned();
    assert!(all.windows(2).all(|pair| time(&pair[0]) <= time(&pair[1])));
    let mut newest: Vec<String> = all.iter().map(time).collect();
    newest.reverse();
    newest.truncate(70);
    assert_eq!(search(&["*", "--limit", "70"]).iter().map(time).collect::<Vec<_>>(), newest);
    let counted: Value = serde_json::from_slice(&search(&["* | stats count() as n, uniq(level) as levels"])[0]).expect("JSON");
    assert_eq!(counted["n"], 2000);
    assert!(counted["levels"].as_u64().expect("a count") >= 3, "{counted}");
}

#[test]
fn the_description_names_every_path_and_each_is_there() {
    let (place, running, address, _) = scene("", "");
    let file = std::fs::read_to_string(crate::harness::root().join("schemas/openapi.json")).expect("it is committed");
    let described: Value = serde_json::from_str(&file).expect("JSON");
    let (_, _, served) = ask(&address, "/api/v1/openapi.json", "");
    assert_eq!(serde_json::from_str::<Value>(&served).expect("JSON"), described);
    let paths = described["paths"].as_object().expect("paths");
    assert!(paths.len() >= 8);
    for (path, item) in paths {
        if path.ends_with("/tail") {
            continue; // it never ends
        }
        let (status, _, body) = ask(&address, path, "");
        assert!([200, 400].contains(&status), "{path}: {status} {body}");
        // Each parameter is known: a wrong value or a good one, but not "unknown field".
        for parameter in item["get"]["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect("a name");
            let (_, _, body) = ask(&address, &format!("{path}?{name}=1"), "");
            assert!(!body.contains("unknown"), "{path}?{name}: {body}");
        }
    }
    running.stop();
    drop(place);
}
