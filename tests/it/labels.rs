//! Labels in three layers and computed fields, by the whole program: refused at the start, counted on `/metrics`, stored in records.
//!
//! In: a few lines by hand. Out: exit codes and what is said, the page, the archive's lines, the ledger.

use crate::harness::{Place, admin_address, finish, http_get, metric, wait_until, weir};
use crate::stores::archive_lines;

const PIPELINE: &str = r#"
labels: { region: us-east-1, zone: "a" }
labels_override: [zone]
labels_required: [region, service_name]
sources:
  web: { file: { include: ["$DIR/web/*.log"], scan: 20ms, labels: { service_name: "${SERVICE_NAME}" } } }
  db: { file: { include: ["$DIR/db/*.log"], scan: 20ms, labels: { service_name: db, zone: b } } }
request_labels:
  route: { from: [headers.route], values_max: 3, bytes_max: 20 }
  plan: { from: [plan], allow: [free, pro] }
label_limits: { per_tenant: 8 }
tenancy: { from: [tenant], read_as: header }
steps:
  - drop: { when: 'level == "debug"' }
  - shape:
      set:
        zone: { label: zone }
        service: { label: service_name }
        route: { label: route }
        class: { expr: 'string(status / 100) + "xx"' }
hub: { journal: { bytes_max: 64MiB } }
sinks: { files: { archive: { path: "{tenant}/lines.log", commit: { interval: 20ms } } } }
admin: { listen: "127.0.0.1:0" }
"#;

fn page(address: &str) -> String {
    let (status, page) = http_get(address, "/metrics");
    assert_eq!(status, 200);
    page
}

#[test]
fn eb_5_2_nothing_starts_without_a_required_label() {
    let place = Place::new();
    let file = place.pipeline(PIPELINE);
    for (verb, value) in [("check", None), ("run", None), ("check", Some(" \t ")), ("run", Some(""))] {
        let mut command = weir();
        command.arg(verb).arg(&file).env_remove("SERVICE_NAME");
        command.envs(value.map(|value| ("SERVICE_NAME", value)));
        if verb == "run" {
            command.arg("--data").arg(place.data());
        }
        let done = finish(command).exits(2);
        assert!(done.stderr.contains("the label `service_name` of the service layer (source `web`) is empty"), "{verb}: {}", done.stderr);
        assert!(!place.data().exists(), "{verb} {value:?} touched the data folder");
    }
    let mut command = weir();
    command.arg("check").arg(&file).env("SERVICE_NAME", "web");
    let done = finish(command).good();
    for line in
        ["labels   global: region, zone", "labels   source db: service_name, zone", "labels   request plan: from plan", "  labels  "]
    {
        assert!(done.text().contains(line), "{line}: {}", done.text());
    }
}

#[test]
fn eb_5_1_to_5_4_records_are_counted_by_labels_of_three_layers() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let web = [
        r#"{"tenant":"acme","level":"info","status":503,"headers":{"route":" /v1/chat "},"plan":"pro"}"#,
        r#"{"tenant":" acme ","level":"info","status":200,"headers.route":"/v1/chat","plan":"pro"}"#,
        r#"{"tenant":"acme","level":"debug","headers":{"route":"/v1/chat"},"plan":"gold"}"#,
        r#"{"tenant":"acme","level":"info","status":"ok","class":"as it was"}"#,
        r#"{"tenant":"ac\u0000me","level":"info","status":404,"headers":{"route":"much longer than the limit"}}"#,
    ];
    place.append("web/a.log", web.join("\n") + "\n");
    place.append("db/a.log", "{\"tenant\":\"globex\",\"level\":\"info\",\"status\":9223372036854775807}\n");
    let mut command = weir();
    command.arg("run").arg(place.path("pipeline.yaml")).arg("--data").arg(place.data()).env("SERVICE_NAME", "we\"b\\\n");
    let mut running = crate::harness::Running::spawn(command);
    let ledger = place.wait_ledger(&mut running, "all archived", |l| l.received() == 6 && l.sink("files", "buffered") == 0);
    let first = page(&admin_address(&running));
    let web = r#"service_name="we\"b\\\n""#;
    let series = |labels: &str| first.lines().filter(|line| line.starts_with("weir_records_total{") && line.contains(labels)).count();
    assert_eq!(metric(&first, "weir_records_total", ""), 6, "{first}");
    assert_eq!(metric(&first, "weir_records_total", web), 5, "{first}");
    let chat = format!(
        "outcome=\"kept\",pipeline=\"pipeline\",plan=\"pro\",region=\"us-east-1\",route=\"/v1/chat\",{web},source=\"web\",tenant=\"acme\",zone=\"a\""
    );
    assert_eq!(metric(&first, "weir_records_total", &chat), 2, "{first}");
    assert_eq!(metric(&first, "weir_records_total", "outcome=\"filtered\""), 1);
    assert_eq!(metric(&first, "weir_records_total", "plan=\"__other__\""), 1, "gold is not allowed");
    assert_eq!(metric(&first, "weir_records_total", "tenant=\"__other__\""), 1, "{first}");
    assert_eq!(metric(&first, "weir_records_total", "route=\"__other__\""), 1);
    assert_eq!(
        (metric(&first, "weir_records_total", "zone=\"b\""), series("zone=\"b\"")),
        (1, 1),
        "the source's zone goes over the process'"
    );
    assert_eq!(
        metric(&first, "weir_label_refused_records_total", "label=\"plan\",pipeline=\"pipeline\",reason=\"not_allowed\""),
        1,
        "{first}"
    );
    assert_eq!(metric(&first, "weir_label_refused_records_total", "reason=\"too_long\""), 1);
    assert!(first.lines().any(|line| line.starts_with("weir_law_residual{") && line.contains("zone=\"a\"")), "{first}");
    assert_eq!(metric(&first, "weir_noted_records_total", "note=\"not_set\""), 1, "{first}");
    assert_eq!(ledger.notes()["not_set"], 1);

    // Values and series beyond the limits are folded, and none moves afterwards.
    let many: String =
        (0..200).map(|n| format!("{{\"tenant\":\"acme\",\"status\":200,\"headers\":{{\"route\":\"r{n}\"}},\"plan\":\"p\"}}\n")).collect();
    place.append("web/a.log", &many);
    place.wait_ledger(&mut running, "more archived", |l| l.received() == 206 && l.sink("files", "buffered") == 0);
    let address = admin_address(&running);
    let second = page(&address);
    assert_eq!(metric(&second, "weir_records_total", ""), 206, "{second}");
    let routes: std::collections::BTreeSet<&str> = second
        .lines()
        .filter(|line| line.starts_with("weir_records_total{"))
        .filter_map(|line| line.split("route=\"").nth(1)?.split('"').next())
        .collect();
    assert!(routes.len() <= 5 && routes.contains("__other__") && routes.contains("/v1/chat"), "3 values, none and the others: {routes:?}");
    assert_eq!(
        metric(&second, "weir_label_refused_records_total", "label=\"route\",pipeline=\"pipeline\",reason=\"values_max\""),
        198,
        "{second}"
    );
    running.stop();

    let stored: Vec<String> = archive_lines(&place.data(), "files").iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let find = |part: &str| stored.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {stored:?}"));
    assert!(find("503").ends_with(r#""class":"5xx","route":"/v1/chat","service":"we\"b\\\n","zone":"a"}"#), "{}", find("503"));
    assert!(find("as it was").contains(r#""status":"ok","class":"as it was","service":"we\"b\\\n","zone":"a"}"#), "{}", find("as it was"));
    assert!(find("globex").ends_with(r#""class":"92233720368547758xx","service":"db","zone":"b"}"#), "{}", find("globex"));
    assert!(find("404").contains(r#""route":"__other__""#), "{}", find("404"));
    for line in &stored {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn eb_5_4_what_nobody_adds_to_ends_and_makes_room() {
    let place = Place::new();
    place.pipeline(&PIPELINE.replace("per_tenant: 8", "per_tenant: 8, idle: 1s").replace("${SERVICE_NAME}", "web"));
    let line = |route: &str| format!("{{\"tenant\":\"acme\",\"headers\":{{\"route\":\"{route}\"}}}}\n");
    place.append("web/a.log", ["a", "b", "c", "d"].map(line).concat());
    let mut running = place.start();
    place.wait_received(&mut running, 4);
    let address = admin_address(&running);
    assert_eq!(metric(&page(&address), "weir_records_total", "route=\"d\""), 0, "one value too many");
    let mut last = String::new();
    wait_until("the series ended", || {
        last = page(&address);
        metric(&last, "weir_records_total", "") == 0
    });
    assert_eq!(metric(&last, "weir_label_series_ended_total", ""), 4, "{last}");
    place.append("web/a.log", line("d"));
    place.wait_received(&mut running, 5);
    let back = page(&address);
    assert_eq!(metric(&back, "weir_records_total", "route=\"d\""), 1, "there is room again: {back}");
    running.stop();
}

#[test]
fn a_tenant_once_folded_stays_folded_so_that_no_counter_falls() {
    let place = Place::new();
    place.pipeline(
        r#"
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 20ms } } }
tenancy: { from: [tenant] }
sinks: { out: { blackhole: {} } }
admin: { listen: "127.0.0.1:0" }
"#,
    );
    let lines =
        |from: u32, to: u32, each: usize| -> String { (from..to).map(|n| format!("{{\"tenant\":\"t{n:03}\"}}\n").repeat(each)).collect() };
    place.append("in/a.log", lines(0, 150, 2));
    let mut running = place.start();
    place.wait_received(&mut running, 300);
    let address = admin_address(&running);
    let name = "weir_received_records_total";
    assert_eq!(metric(&page(&address), name, "tenant=\"__other__\""), 100, "50 of 150 tenants share a label");
    // Now those become the largest.
    place.append("in/a.log", lines(100, 150, 100));
    place.wait_received(&mut running, 5_300);
    let after = page(&address);
    assert_eq!((metric(&after, name, "tenant=\"__other__\""), metric(&after, name, "")), (5_100, 5_300), "{after}");
    running.stop();
}

#[test]
fn a_field_that_looks_misspelt_is_a_warning_before_the_plan() {
    let place = Place::new();
    let file = place.pipeline(
        "sources: { in: { stdin: {} } }\nsteps: [{ drop: { when: 'path == \"/healthz\" && stauts < 400' } }]\nsinks: { out: { stdout: {} } }\n",
    );
    let mut command = weir();
    command.arg("check").arg(&file);
    let done = finish(command).good();
    assert!(done.stderr.contains("pipeline.yaml:2:") && done.stderr.contains("did you mean `status`?"), "{}", done.stderr);
    assert!(done.stderr.contains("warning:") && done.stderr.contains('^') && done.text().contains("steps[0] drop"), "{}", done.stderr);
}
