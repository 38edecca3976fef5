//! Logs of Kubernetes' containers: whose they are, who pays for them, and which are left alone.

use crate::harness::{Place, lines, wait_until, weir};
use serde_json::{Value, json};

const PIPELINE: &str = r#"
sources:
  pods:
    file:
      include: ["$DIR/pods/*/*/*.log", "$DIR/containers/*.log"]
      format: cri
      scan: 20ms
      kubernetes: { metadata: { path: "$DIR/meta", refresh: 10ms, wait: $WAIT }, own: { pod: weir-x1 }, $MORE }
tenancy: { from: [tenant, kubernetes.labels.tenant] }
sinks: { files: { archive: { path: "all.log", commit: { interval: 20ms } } } }
"#;

fn pipeline(place: &Place, wait: &str, more: &str) {
    place.pipeline(&PIPELINE.replace("$WAIT", wait).replace("$MORE", more));
}

fn log(namespace: &str, pod: &str) -> String {
    format!("pods/{namespace}_{pod}_uid-{pod}/web/0.log")
}

fn line(output: &str, text: &str) -> String {
    format!("2026-11-23T03:00:00.000000001Z {output} F {text}\n")
}

fn pod(namespace: &str, name: &str, labels: Value) -> Value {
    json!({"namespace": namespace, "name": name, "uid": format!("uid-{name}"), "labels": labels})
}

/// Replaces the metadata as a sidecar does it.
fn say(place: &Place, metadata: &Value) {
    place.write("meta.tmp", metadata.to_string());
    std::fs::rename(place.path("meta.tmp"), place.path("meta")).expect("renamed");
}

/// What was delivered so far, in order of `n`, or of the message where there is none.
fn rows(place: &Place) -> Vec<Value> {
    let bytes = std::fs::read(place.data().join("archive/pipeline.files/files/all.log")).unwrap_or_default();
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let parse = |line: Vec<u8>| serde_json::from_slice(&line).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&line)));
    let mut rows: Vec<Value> = lines(&bytes[..whole]).into_iter().map(parse).collect();
    rows.sort_by_key(|row| (row["n"].as_u64(), row["message"].to_string()));
    rows
}

/// Waits until a running program has delivered this many rows.
#[track_caller]
fn wait_rows(place: &Place, count: usize) -> Vec<Value> {
    wait_until(&format!("{count} rows"), || rows(place).len() >= count);
    rows(place)
}

#[test]
fn the_tenant_is_the_pods_then_the_namespaces_then_the_maps_then_nobodys_and_never_the_records() {
    let place = Place::new();
    pipeline(&place, "5s", "tenant: { map: { infra: ops } }");
    let labels = |tenant: &str| json!({"tenant": tenant, "app.kubernetes.io/name": "a\"b\n"});
    say(
        &place,
        &json!({
            "namespaces": {"prod": {"labels": {"tenant": "acme"}}, "infra": {}},
            "pods": [pod("prod", "api-7d9f", labels("beta")), pod("prod", "db.0", json!({})), pod("infra", "dns", json!({})), pod("dev", "x", json!({}))],
        }),
    );
    for (n, (namespace, name)) in [("prod", "api-7d9f"), ("prod", "db.0"), ("infra", "dns"), ("dev", "x")].iter().enumerate() {
        place.write(&log(namespace, name), line("stdout", &format!("{{\"n\":{n},\"tenant\":\"evil\"}}")));
    }
    place.once();
    let ledger = place.ledger();
    ledger.assert_settled();
    let paid: Vec<(String, u64)> = ledger.kept_by_tenant().into_iter().collect();
    let want = [("acme", 1), ("beta", 1), ("ops", 1), ("unassigned", 1)].map(|(name, n)| (name.to_string(), n));
    assert_eq!(paid, want);
    let rows = rows(&place);
    let of_pod = json!({"namespace": "prod", "pod": "api-7d9f", "uid": "uid-api-7d9f", "container": "web", "restart": 0, "stream": "stdout",
        "labels": {"tenant": "beta", "app.kubernetes.io/name": "a\"b\n"}});
    assert_eq!(rows[0], json!({"n": 0, "tenant": "evil", "kubernetes": of_pod}));
}

#[test]
fn a_changed_label_applies_to_later_records() {
    let place = Place::new();
    pipeline(&place, "5s", "");
    say(&place, &json!({"pods": [pod("prod", "api", json!({"tenant": "acme"}))]}));
    place.append(&log("prod", "api"), line("stdout", "{\"n\":1}"));
    let mut running = place.start();
    wait_rows(&place, 1);
    say(&place, &json!({"pods": [pod("prod", "api", json!({"tenant": "beta"}))]}));
    // Nobody tells when it was noticed: lines are written until one has it.
    let mut n = 1;
    wait_until("a row with the new label", || {
        n += 1;
        place.append(&log("prod", "api"), line("stdout", &format!("{{\"n\":{n}}}")));
        wait_rows(&place, n).last().is_some_and(|row| row["kubernetes"]["labels"]["tenant"] == "beta")
    });
    // A broken file leaves in force what was said before.
    std::fs::write(place.path("meta"), "{\"pods\":[").expect("written");
    wait_until("a word about the broken file", || running.stderr().contains("cannot use what it says about pods"));
    place.append(&log("prod", "api"), line("stdout", &format!("{{\"n\":{}}}", n + 1)));
    let rows = wait_rows(&place, n + 1);
    assert!(running.is_running());
    running.stop();
    let tenants: Vec<&Value> = rows.iter().map(|row| &row["kubernetes"]["labels"]["tenant"]).collect();
    assert_eq!((tenants[0], tenants[n]), (&json!("acme"), &json!("beta")));
    assert!(tenants.is_sorted_by_key(|tenant| tenant.as_str()), "{tenants:?}");
}

#[test]
fn a_log_waits_for_its_pod_and_has_its_labels_from_the_first_line_on() {
    let place = Place::new();
    pipeline(&place, "1h", "");
    place.write(&log("prod", "late"), line("stdout", "{\"n\":1}"));
    place.write(&log("prod", "known"), line("stdout", "{\"n\":2}"));
    say(&place, &json!({"pods": [pod("prod", "known", json!({}))]}));
    let running = place.start();
    assert_eq!(wait_rows(&place, 1)[0]["n"], 2, "the other log does not wait with it");
    say(&place, &json!({"pods": [pod("prod", "known", json!({})), pod("prod", "late", json!({"tenant": "acme"}))]}));
    assert_eq!(wait_rows(&place, 2)[0]["kubernetes"]["labels"]["tenant"], "acme");
    running.stop();
    place.ledger().assert_settled();
}

#[test]
fn a_pod_that_nobody_names_is_missing_after_the_wait_and_its_records_are_kept() {
    for once in [true, false] {
        let place = Place::new();
        pipeline(&place, "50ms", "");
        place.write(&log("prod", "ghost"), line("stdout", "{\"n\":1,\"kubernetes\":{\"labels\":{\"tenant\":\"evil\"}}}"));
        if once {
            place.once();
        } else {
            let running = place.start();
            wait_rows(&place, 1);
            running.stop();
        }
        assert_eq!(rows(&place)[0]["kubernetes"]["metadata"], "missing");
        assert_eq!(rows(&place)[0]["kubernetes"]["labels"], Value::Null);
        let ledger = place.ledger();
        ledger.assert_settled();
        assert_eq!(ledger.notes().get("metadata_missing"), Some(&1));
        assert_eq!(ledger.kept_by_tenant().get("unassigned"), Some(&1));
    }
}

#[test]
fn pods_may_ask_to_be_left_out_only_where_it_is_allowed() {
    for (allow, dropped) in [(true, 2), (false, 0)] {
        let place = Place::new();
        pipeline(&place, "5s", &format!("annotations: {{ allow: {allow} }}"));
        let mut quiet = pod("prod", "quiet", json!({}));
        quiet["annotations"] = json!({"weir.io/exclude": "true"});
        let mut half = pod("prod", "half", json!({}));
        half["annotations"] = json!({"fluentbit.io/exclude_stderr-web": "true", "weir.io/format": "text"});
        say(&place, &json!([quiet, half]));
        place.write(&log("prod", "quiet"), line("stdout", "{\"n\":1}"));
        place.write(&log("prod", "half"), line("stdout", "{\"n\":2}") + &line("stderr", "{\"n\":3}"));
        place.once();
        let ledger = place.ledger();
        ledger.assert_settled();
        assert_eq!(ledger.dropped().get("filtered").copied().unwrap_or(0), dropped, "{}", ledger.0);
        let texts = rows(&place).iter().filter(|row| row["message"] == "{\"n\":2}").count();
        assert_eq!(texts, usize::from(allow));
    }
}

#[test]
fn own_logs_are_not_read() {
    let place = Place::new();
    pipeline(&place, "5s", "");
    say(&place, &json!({"pods": [pod("ops", "weir-x1", json!({})), pod("ops", "weir-x2", json!({}))]}));
    place.write(&log("ops", "weir-x1"), line("stderr", "I read a line"));
    place.write(&log("ops", "weir-x2"), line("stderr", "I am another"));
    place.once();
    let texts: Vec<Value> = rows(&place).iter().map(|row| row["message"].clone()).collect();
    assert_eq!(texts, ["I am another"]);
    place.ledger().assert_settled();
}

#[test]
fn links_lead_to_the_pod_also_where_their_names_are_cut() {
    let place = Place::new();
    pipeline(&place, "5s", "");
    let (long, container) = ("p".repeat(200), "c".repeat(40));
    let mut known = pod("prod", &long, json!({"tenant": "acme"}));
    known["uid"] = json!("u-1");
    say(&place, &json!({"pods": [known]}));
    let target = format!("runtime/prod_{long}_u-1/{container}/7.log");
    // The pods folder of this test is not matched by a pattern, so that only the link leads there.
    let id = "0123456789abcdef".repeat(4);
    let name = format!("{}.log", &format!("{long}_prod_{container}-{id}")[..251]);
    place.write(&target, line("stdout", "hello \u{1b}[1m\"there\""));
    std::fs::create_dir_all(place.path("containers")).expect("folder made");
    std::os::unix::fs::symlink(place.path(&target), place.path("containers").join(name)).expect("linked");
    place.once();
    let row = &rows(&place)[0];
    assert_eq!(row["message"], "hello \u{1b}[1m\"there\"");
    let of_pod = &row["kubernetes"];
    assert_eq!((&of_pod["pod"], &of_pod["container"], &of_pod["restart"]), (&json!(long), &json!(container), &json!(7)));
    assert_eq!(place.ledger().kept_by_tenant().get("acme"), Some(&1));
}

#[test]
fn check_says_what_is_read_from_where_and_which_limits_are_wrong() {
    let place = Place::new();
    pipeline(&place, "5s", "");
    let mut command = weir();
    command.arg("check").arg(place.path("pipeline.yaml"));
    let said = crate::harness::finish(command).good().text();
    for words in [
        "labels from",
        "every 10ms",
        "at most 64MiB and 100000 pods",
        "kept 10m",
        "waits 5s",
        "tenant by label tenant",
        "own logs are not read",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    pipeline(&place, "2h", "labels: [\"\"], tenant: { map: { prod: \"\" } }");
    let mut command = weir();
    command.arg("check").arg(place.path("pipeline.yaml"));
    let done = crate::harness::finish(command).exits(2);
    for words in ["wait", "is no label", "is no tenant"] {
        assert!(done.stderr.contains(words), "{words} in {}", done.stderr);
    }
}
