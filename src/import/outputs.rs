//! Outputs of Fluent Bit become sinks.

use super::filters;
use super::fluent_bit::{Import, Keys, bytes, is_on, name_of};
use parse::fluent::Section;
use serde_json::{Map, Value, json};

pub fn output(section: &Section, sinks: &mut Map<String, Value>, import: &mut Import) {
    let plugin = name_of(section).unwrap_or_default().to_ascii_lowercase();
    let mut keys = Keys::new(section);
    let sink = match plugin.as_str() {
        "stdout" => {
            keys.pass(import, &["format", "json_date_key", "json_date_format"], "records are printed as lines of JSON");
            json!({ "stdout": {} })
        }
        "null" | "counter" => json!({ "blackhole": {} }),
        "file" => json!({ "archive": file(&mut keys, import) }),
        "http" => json!({ "http": http(&mut keys, import) }),
        "es" | "opensearch" => json!({ "http": elasticsearch(&mut keys, import) }),
        "loki" => json!({ "http": loki(&mut keys, import) }),
        "kafka" => {
            import.missing(section, section.line, "output kafka: no equivalent yet; its records are left out, counted, in a blackhole");
            json!({ "blackhole": {} })
        }
        _ => {
            import.missing(section, section.line, format!("output {plugin}: no equivalent"));
            return;
        }
    };
    keys.pass(import, &["retry_limit"], "what can be delivered is tried until it is; nothing is given up");
    keys.pass(import, &["storage.total_limit_size"], "see `hub.journal.bytes_max`");
    keys.pass(import, &["workers", "log_level", "net.keepalive", "net.keepalive_idle_timeout"], "weir has its own rule");
    let number = sinks.len();
    let name = section
        .entries
        .iter()
        .find(|entry| entry.key.eq_ignore_ascii_case("alias"))
        .map_or_else(|| format!("{plugin}{number}"), |entry| crate::config::sane_name(&entry.value));
    sinks.insert(name, sink);
    keys.finish(import);
}

fn file(keys: &mut Keys, import: &mut Import) -> Value {
    let name = keys.take("file").map_or("fluent-bit.log", |(file, _)| file);
    let mut archive = Map::new();
    archive.insert("path".into(), json!(name));
    if let Some((dir, _)) = keys.take("path") {
        archive.insert("dir".into(), json!(dir));
    }
    match keys.take("format") {
        Some((format, _)) if format.eq_ignore_ascii_case("plain") => {}
        Some((format, line)) => import.note(keys.section, line, format!("file: format {format}: records are lines of JSON")),
        None => import.note(keys.section, keys.section.line, "file: records are lines of JSON, without tag and time before them"),
    }
    keys.pass(import, &["mkdir"], "folders are made as needed");
    Value::Object(archive)
}

/// `http://HOST:PORT`, and whether it has TLS.
fn address(keys: &mut Keys, port: &str, import: &mut Import) -> String {
    let host = keys.take("host").map_or("127.0.0.1", |(host, _)| host);
    let port = keys.take("port").map_or(port, |(port, _)| port);
    if let Some((_, line)) = keys.take("tls").filter(|(value, _)| is_on(value)) {
        import.missing(keys.section, line, "tls: no equivalent yet; put a proxy on this machine that speaks it, and name it in `url`");
        keys.pass(import, &["tls.verify", "tls.ca_file", "tls.crt_file", "tls.key_file", "tls.vhost"], "the proxy has them");
    }
    format!("http://{host}:{port}")
}

fn credentials(keys: &mut Keys, sink: &mut Map<String, Value>, import: &mut Import) {
    let user = keys.take("http_user");
    let password = keys.take("http_passwd");
    if let (Some((_, line)), _) | (_, Some((_, line))) = (user, password) {
        import.missing(keys.section, line, "http_user, http_passwd: secrets come from a file or the environment; see `auth`");
    }
    let mut headers = Map::new();
    for (header, _) in keys.all("header") {
        if let Some((name, value)) = header.split_once(' ') {
            headers.insert(name.into(), json!(value.trim()));
        }
    }
    if !headers.is_empty() {
        sink.insert("headers".into(), Value::Object(headers));
    }
    if let Some((compress, _)) = keys.take("compress") {
        sink.insert("compress".into(), json!(if compress.eq_ignore_ascii_case("gzip") { "gzip" } else { "none" }));
    }
}

fn http(keys: &mut Keys, import: &mut Import) -> Value {
    let mut sink = Map::new();
    let uri = keys.take("uri").map_or("/", |(uri, _)| uri);
    sink.insert("url".into(), json!(format!("{}{uri}", address(keys, "80", import))));
    sink.insert("body".into(), json!("ndjson"));
    match keys.take("format") {
        Some((format, _)) if format.eq_ignore_ascii_case("json_lines") => {}
        Some((format, line)) => import.note(keys.section, line, format!("http: format {format}: the body is lines of JSON")),
        None => import.note(keys.section, keys.section.line, "http: format msgpack: the body is lines of JSON"),
    }
    keys.pass(import, &["json_date_key", "json_date_format"], "records have the members they came with");
    credentials(keys, &mut sink, import);
    Value::Object(sink)
}

fn elasticsearch(keys: &mut Keys, import: &mut Import) -> Value {
    let mut sink = Map::new();
    let path = keys.take("path").map_or("", |(path, _)| path);
    sink.insert("url".into(), json!(format!("{}{path}/_bulk", address(keys, "9200", import))));
    sink.insert("body".into(), json!("bulk"));
    let index = keys.take("index").map_or("fluent-bit", |(index, _)| index);
    sink.insert("index".into(), json!(index));
    if keys.is_on("logstash_format") == Some(true) {
        import.missing(keys.section, keys.section.line, "es: logstash_format: the name of the index has no date");
    }
    if let Some((size, _)) = keys.take("buffer_size").filter(|(size, _)| !size.eq_ignore_ascii_case("false")) {
        import.note(keys.section, keys.section.line, format!("es: buffer_size {}: answers are bounded by weir", bytes(size)));
    }
    let own = ["suppress_type_name", "type", "replace_dots", "trace_error", "trace_output", "generate_id", "write_operation"];
    keys.pass(import, &own, "items are created without a type");
    credentials(keys, &mut sink, import);
    Value::Object(sink)
}

fn loki(keys: &mut Keys, import: &mut Import) -> Value {
    let mut sink = Map::new();
    let uri = keys.take("uri").map_or("/loki/api/v1/push", |(uri, _)| uri);
    sink.insert("url".into(), json!(format!("{}{uri}", address(keys, "3100", import))));
    sink.insert("body".into(), json!("loki"));
    let mut labels = Map::new();
    for (list, _) in keys.all("labels") {
        for pair in list.split(',') {
            match pair.trim().split_once('=') {
                Some((name, value)) if value.trim().starts_with('$') => {
                    let path = filters::path(value.trim());
                    labels.insert(name.trim().into(), json!(format!("{{{path}}}")));
                }
                Some((name, value)) => drop(labels.insert(name.trim().into(), json!(value.trim()))),
                None => {
                    drop(labels.insert(pair.trim().trim_start_matches('$').into(), json!(format!("{{{}}}", filters::path(pair.trim())))))
                }
            }
        }
    }
    if !labels.is_empty() {
        sink.insert("labels".into(), Value::Object(labels));
    }
    if keys.take("line_format").is_some_and(|(format, _)| !format.eq_ignore_ascii_case("json"))
        || keys.take("drop_single_key").is_some_and(|(v, _)| is_on(v))
    {
        import.note(keys.section, keys.section.line, "loki: the line is the record as JSON");
    }
    if let Some((tenant, _)) = keys.take("tenant_id") {
        sink.insert("headers".into(), json!({ "X-Scope-OrgID": tenant }));
    }
    credentials(keys, &mut sink, import);
    Value::Object(sink)
}
