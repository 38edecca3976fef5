//! Tests of enrichment: tables, and serde_json as the oracle of what a spliced record says.

use super::*;
use crate::decode::{Decoder, End, Format, Limits};
use crate::event::{Outcome, Reason};
use crate::kubernetes::{LeftOut, Listing};
use crate::meter::{Meters, Sums};
use crate::pipeline::{Rules, Sampling, Worker};
use crate::tenancy::Tenants;
use crate::units::UnixNanos;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::time::Duration;

const READING: Reading = Reading { json: true, drop_malformed: false };

fn place() -> Place {
    Place::of_path("/var/log/pods/prod_api-7d9f_1234-uid/web/3.log").expect("a pod's path")
}

/// What is known: labels and annotations of the pod, labels of its namespace.
fn catalog(labels: &[(&str, &str)], annotations: &[(&str, &str)], namespace: &[(&str, &str)]) -> Catalog {
    let mut pod = Facts { uid: "1234-uid".into(), node: "n1".into(), ..Facts::default() };
    let mut of_namespace = Facts::default();
    let keep: Vec<String> = annotations.iter().map(|a| a.0.to_string()).collect();
    let mut left_out = LeftOut::default();
    labels.iter().for_each(|(name, value)| pod.add_label(name, value, &mut left_out));
    annotations.iter().for_each(|(name, value)| pod.add_annotation(name, value, &keep, &mut left_out));
    namespace.iter().for_each(|(name, value)| of_namespace.add_label(name, value, &mut left_out));
    let listing = Listing {
        namespaces: vec![("prod".into(), Arc::new(of_namespace))],
        pods: vec![("prod".into(), "api-7d9f".into(), Arc::new(pod))],
        left_out,
    };
    Catalog::default().next([&listing].into_iter(), Duration::ZERO, Duration::ZERO, 10)
}

fn decode(format: Format, lines: &[u8]) -> Batch {
    let mut batch = Batch { arena: lines.to_vec(), ..Batch::default() };
    Decoder::new(format, Limits { line_bytes_max: 4 << 20, join_bytes_max: 4 << 20, join_age_ns: 0 }).decode(
        &mut batch,
        0,
        End::Log,
        crate::units::UnixNanos(0),
    );
    batch
}

fn enriched(format: Format, lines: &[u8], splice: &Splice) -> Batch {
    let mut batch = decode(format, lines);
    let before = (batch.position.clone(), batch.origin_bytes.clone(), batch.law.clone());
    Enricher::default().enrich(&mut batch, splice, READING);
    assert_eq!((batch.position.clone(), batch.origin_bytes.clone(), batch.law.clone()), before, "what the line took up stays");
    batch
}

fn text(batch: &Batch, i: usize) -> String {
    String::from_utf8_lossy(batch.record(i)).into_owned()
}

/// One line without metadata source, as it leaves.
#[track_caller]
fn check(line: &str, want: &str) {
    let splice = Splice::new(&place(), None, &Policy::default());
    let batch = enriched(Format::Json, format!("{line}\n").as_bytes(), &splice);
    assert_eq!(text(&batch, 0).replace(MEMBER, "K"), want, "{line}");
    let parsed: Value = serde_json::from_slice(batch.record(0)).expect("what leaves is JSON");
    assert_eq!(parsed["kubernetes"]["pod"], "api-7d9f");
    assert_eq!(text(&batch, 0).matches(MEMBER).count(), 1);
}

const MEMBER: &str = r#""kubernetes":{"namespace":"prod","pod":"api-7d9f","uid":"1234-uid","container":"web","restart":3}"#;

#[test]
fn an_object_gets_the_member_in_front() {
    check(r#"{"a":1}"#, r#"{K,"a":1}"#);
    check(r#" { "a" : [1, {"b":2}] , "c":"}" }"#, r#"{K, "a" : [1, {"b":2}] , "c":"}" }"#);
    check("{}", "{K}");
    check("{ \t }", "{K \t }");
    check("  {}  ", "{K}  ");
}

#[test]
fn what_an_object_says_of_kubernetes_gives_way() {
    check(r#"{"kubernetes":1}"#, "{K}");
    check(r#"{"kubernetes":{"labels":{"tenant":"evil"}},"a":1}"#, r#"{K,"a":1}"#);
    check(r#"{"a":1 , "kubernetes" : [1,{"x":"]}"}] , "b":"\"" }"#, r#"{K,"a":1,"b":"\""}"#);
    check(r#"{"kubernetes":1,"a":2,"kubernetes":"3"}"#, r#"{K,"a":2}"#);
    check(r#"{"kuber\u006eetes":{"pod":"evil"},"a":1}"#, r#"{K,"a":1}"#);
    check(r#"{"\u006b\u0075bernetes.labels.tenant":"evil","a":1}"#, r#"{K,"a":1}"#);
    check(r#"{"kubernetes.labels.tenant":"evil","a":-1.5e3}"#, r#"{K,"a":-1.5e3}"#);
    // These are other fields.
    check(r#"{"kubernetes_x":1,"a":{"kubernetes":2},"b":"kubernetes"}"#, r#"{K,"kubernetes_x":1,"a":{"kubernetes":2},"b":"kubernetes"}"#);
    check(r#"{"kubernete":null,"Kubernetes":true,"x\u0041":"\\"}"#, r#"{K,"kubernete":null,"Kubernetes":true,"x\u0041":"\\"}"#);
    check(r#"{"":{},"kubernetes":{},"z":[]}"#, r#"{K,"":{},"z":[]}"#);
}

#[test]
fn what_is_no_object_is_wrapped() {
    check("hello", r#"{"message":"hello",K}"#);
    check(r#"say "hi" \o/"#, r#"{"message":"say \"hi\" \\o/",K}"#);
    check("tab\there \u{1b}[31mred", "{\"message\":\"tab\\there \\u001b[31mred\",K}");
    check("{broken", r#"{"message":"{broken",K}"#);
    check(r#"{"a":1}}"#, r#"{"message":"{\"a\":1}}",K}"#);
    check("[1]", r#"{"message":"[1]",K}"#);
    check("17", r#"{"message":"17",K}"#);
    check("grüße", r#"{"message":"grüße",K}"#);
    let splice = Splice::new(&place(), None, &Policy::default());
    let deep = format!("{}1{}\n", "{\"a\":".repeat(200), "}".repeat(200));
    let batch = enriched(Format::Json, deep.as_bytes(), &splice);
    assert_eq!(serde_json::from_slice::<Value>(batch.record(0)).expect("JSON")["message"], deep.trim_end());
    assert_eq!(batch.notes[0], Note::TooDeep.bit());
    let batch = enriched(Format::Json, b"a\xff\xfe\"\n", &splice);
    assert!(batch.record(0).starts_with(b"{\"message\":\"a\xff\xfe\\\"\",\"kubernetes\":"), "{}", text(&batch, 0));
}

#[test]
fn the_output_is_named_also_of_joined_records() {
    let splice = Splice::new(&place(), None, &Policy::default());
    let lines = "2016-10-06T00:17:09.669794202Z stdout P a \n2016-10-06T00:17:10Z stderr F {\"e\":1}\n\
                 2016-10-06T00:17:11Z stdout F b\nno line of a runtime\n2016-10-06T00:17:12Z stdout F [1]\n";
    let batch = enriched(Format::Cri, lines.as_bytes(), &splice);
    let rows: Vec<Value> = (0..batch.len()).map(|i| serde_json::from_slice(batch.record(i)).expect("JSON")).collect();
    let said: Vec<(&Value, &Value)> = rows.iter().map(|row| (&row["message"], &row["kubernetes"]["stream"])).collect();
    let want = json!([[null, "stderr"], ["a b", "stdout"], ["no line of a runtime", null], ["[1]", "stdout"]]);
    assert_eq!(json!(said), want);
    let times: Vec<&[u8]> = (0..batch.len()).map(|i| batch.outer_time(i)).collect();
    let want: [&[u8]; 4] = [b"2016-10-06T00:17:10Z", b"2016-10-06T00:17:09.669794202Z", b"", b"2016-10-06T00:17:12Z"];
    assert_eq!(times, want);
}

#[test]
fn labels_are_written_whole_or_as_listed_and_annotations_only_if_listed() {
    let catalog = catalog(&[("app", "web"), ("a\"b\n", "c\\d\u{0}")], &[("team", "x"), ("other", "y")], &[]);
    let all = Policy::default();
    let listed = Policy { labels: Some(vec!["app".into(), "nobody".into()]), annotations: vec!["team".into()], ..Policy::default() };
    let none = Policy { labels: Some(Vec::new()), ..Policy::default() };
    for (policy, labels, annotations) in [
        (&all, json!({"app": "web", "a\"b\n": "c\\d\u{0}"}), json!(null)),
        (&listed, json!({"app": "web"}), json!({"team": "x"})),
        (&none, json!(null), json!(null)),
    ] {
        let batch = enriched(Format::Json, b"{}\n", &Splice::new(&place(), Some(&catalog), policy));
        let row: Value = serde_json::from_slice(batch.record(0)).expect("JSON");
        assert_eq!((&row["kubernetes"]["labels"], &row["kubernetes"]["annotations"]), (&labels, &annotations));
        assert_eq!((&row["kubernetes"]["node"], &row["kubernetes"]["metadata"]), (&json!("n1"), &json!(null)));
    }
}

#[test]
fn a_pod_that_nobody_knows_is_missing_and_said_to_be() {
    let mut batch = decode(Format::Json, b"{}\nx\n");
    let splice = Splice::new(&place(), Some(&Catalog::default()), &Policy::default());
    Enricher::default().enrich(&mut batch, &splice, READING);
    let row: Value = serde_json::from_slice(batch.record(0)).expect("JSON");
    assert_eq!(row["kubernetes"]["metadata"], "missing");
    assert_eq!(batch.notes, [Note::MetadataMissing.bit(), Note::MetadataMissing.bit() | Note::NotJson.bit()]);
}

#[test]
fn an_object_has_a_bound_and_so_has_what_comes_of_a_chunk() {
    let names: Vec<String> = (0..60).map(|n| format!("label-{n:02}")).collect();
    let value = "v".repeat(900);
    let labels: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let splice = Splice::new(&place(), Some(&catalog(&labels, &[], &[])), &Policy::default());
    let longest = splice.members[1].len();
    assert!(longest <= OBJECT_BYTES_MAX && longest > OBJECT_BYTES_MAX - 2000, "{longest}");
    assert_eq!(splice.labels_left_out, 52);
    let chunk = splice.chunk_bytes_max();
    let batch = enriched(Format::Json, &b"\x01\n".repeat(chunk / 2), &splice);
    let grown = batch.arena.len() - chunk;
    assert!(grown <= ENRICHED_BYTES_MAX && grown > ENRICHED_BYTES_MAX / 2, "{grown} of {chunk}");
    let small = Splice::new(&place(), None, &Policy::default());
    assert!(small.chunk_bytes_max() > 64 << 10, "{}", small.chunk_bytes_max());
}

/// Fields, tenants and verdicts of lines that were enriched and processed.
fn process(lines: &[u8], splice: &Splice, tenant: &[&str], fields: &[&str], reading: Reading) -> (Vec<Vec<String>>, Vec<String>, Batch) {
    let all: Vec<&str> = tenant.iter().chain(fields).copied().collect();
    let tenants = Arc::new(Tenants::new("unknown", 10));
    let rules = Rules {
        fields: Arc::new(FieldSet::new(&all)),
        time: Vec::new(),
        level: Vec::new(),
        tenant: (0..tenant.len()).collect(),
        tenants: Arc::clone(&tenants),
        steps: Vec::new(),
        step_ids: Vec::new(),
        meters: Meters::default(),
        sampling: Sampling::default(),
        selection: crate::select::Selection::default(),
        labels: crate::labels::Labels::default(),
    };
    let mut batch = decode(Format::Cri, lines);
    let reading = Enricher::default().enrich(&mut batch, splice, reading);
    Worker::new(Arc::new(rules)).process(&mut batch, reading, UnixNanos(0), &mut Sums::default());
    let value = |i: usize, field: usize| {
        let span = batch.record_spans(i)[tenant.len() + field];
        span.text(batch.record(i)).map_or("-".into(), |text| String::from_utf8_lossy(&text).into_owned())
    };
    let values = (0..batch.len()).map(|i| (0..fields.len()).map(|field| value(i, field)).collect()).collect();
    let named = batch.tenant.iter().map(|t| String::from_utf8_lossy(&tenants.name(*t)).into_owned()).collect();
    (values, named, batch)
}

#[test]
fn rules_find_labels_also_those_with_dots_in_their_names() {
    let catalog = catalog(&[("app.kubernetes.io/name", "api"), ("tier", "web")], &[], &[]);
    let splice = Splice::new(&place(), Some(&catalog), &Policy::default());
    let fields = [
        "kubernetes.labels.app.kubernetes.io/name",
        "kubernetes.labels.tier",
        "kubernetes.namespace",
        "kubernetes.restart",
        "message",
        "a",
    ];
    let lines = b"t\n{\"a\":\"x\",\"kubernetes.labels.tier\":\"evil\"}\n";
    let (values, _, batch) = process(lines, &splice, &[], &fields, READING);
    assert_eq!(values[0], ["api", "web", "prod", "3", "t", "-"]);
    assert_eq!(values[1], ["api", "web", "prod", "3", "-", "x"]);
    assert_eq!(batch.notes[1] & Note::DuplicateKey.bit(), 0);
}

#[track_caller]
fn check_tenants(policy: &Policy, want: [&str; 4]) {
    let catalog = catalog(&[], &[], &[("team", "acme")]);
    let splice = Splice::new(&place(), Some(&catalog), policy);
    let lines = br#"{"tenant":"mine"}
{"tenant":"mine","tenant":"yours"}
{}
text
"#;
    let (_, tenants, batch) = process(lines, &splice, &["tenant"], &[], READING);
    assert_eq!(tenants, want);
    let guessed = batch.unmetered[1];
    assert_eq!(guessed, policy.trust_record, "only where the record names the payer, a riddle is not billed");
}

#[test]
fn the_pods_tenant_goes_over_the_records_unless_the_record_is_trusted() {
    let team = TenantRule { label: "team".into(), ..TenantRule::default() };
    let nobody = TenantRule { label: "nobody".into(), ..TenantRule::default() };
    check_tenants(&Policy { tenant: team.clone(), ..Policy::default() }, ["acme"; 4]);
    check_tenants(&Policy { tenant: nobody.clone(), ..Policy::default() }, ["unknown"; 4]);
    check_tenants(&Policy { tenant: team, trust_record: true, ..Policy::default() }, ["mine", "unknown", "acme", "acme"]);
    check_tenants(&Policy { tenant: nobody, trust_record: true, ..Policy::default() }, ["mine", "unknown", "unknown", "unknown"]);
}

#[test]
fn a_tenant_that_finds_no_room_is_unknown_and_noted_and_a_long_name_is_unknown() {
    let tenants = Arc::new(Tenants::new("unknown", 0));
    let mut tenancy = crate::tenancy::Tenancy::new(Vec::new(), tenants);
    for (name, noted) in [("acme".to_string(), true), ("x".repeat(300), false)] {
        let mut batch = decode(Format::Json, b"{}\n{}\n");
        batch.payer = Payer::Named(Some(name.as_bytes().into()));
        tenancy.apply(&mut batch);
        assert_eq!(batch.tenant, [0, 0]);
        assert_eq!(batch.notes[1] == Note::TenantOverLimit.bit(), noted);
    }
}

#[test]
fn what_a_pod_asks_for_happens_only_if_it_is_allowed() {
    let lines = b"2016-10-06T00:17:09Z stdout F {\"a\":1}\n2016-10-06T00:17:10Z stderr F {\"a\":2}\n";
    let catalog = catalog(&[], &[("fluentbit.io/exclude_stderr", "true"), ("weir.io/format-web", "text")], &[]);
    let kept = Outcome::Kept;
    for (obey, want) in [(true, [kept, Outcome::Dropped(Reason::Filtered)]), (false, [kept; 2])] {
        let splice = Splice::new(&place(), Some(&catalog), &Policy { obey, ..Policy::default() });
        assert_eq!(splice.wish_ignored, !obey);
        let (values, _, batch) = process(lines, &splice, &[], &["message", "a"], READING);
        assert_eq!(batch.outcome, want);
        assert_eq!(values[0], if obey { ["{\"a\":1}", "-"] } else { ["-", "1"] });
        assert_eq!(batch.unmetered, [false, obey]);
    }
}

#[test]
fn where_malformed_lines_are_dropped_they_still_are() {
    let splice = Splice::new(&place(), None, &Policy::default());
    let reading = Reading { json: true, drop_malformed: true };
    let (_, _, batch) = process(b"text\n{\"a\":1}\n", &splice, &[], &[], reading);
    assert_eq!(batch.outcome, [Outcome::Dropped(Reason::Malformed), Outcome::Kept]);
    assert_eq!(batch.record(0), b"text");
    // Of a source of text nothing is malformed.
    let splice = Splice::new(&place(), None, &Policy { text: true, ..Policy::default() });
    let (values, _, batch) = process(b"{\"a\":1}\n", &splice, &[], &["message"], reading);
    assert_eq!((batch.outcome[0], values[0][0].as_str(), batch.notes[0] & Note::NotJson.bit()), (Outcome::Kept, "{\"a\":1}", 0));
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c\"\\\\\\n\u{e9}]{0,3}",
        1 => Just("kubernetes".to_string()),
        1 => Just("kubernetes.labels.a".to_string()),
        1 => Just("kubernetesx".to_string()),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any_key(), inner), 0..4).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    /// Also with escaped keys and blanks: what leaves is the record and the object, nothing else.
    #[test]
    fn a_spliced_object_says_what_the_record_and_the_member_say(
        members in prop::collection::vec((any_key(), any_value()), 0..6),
        escape: bool,
        label: String,
    ) {
        let record: Map<String, Value> = members.into_iter().collect();
        let mut line = Value::from(record.clone()).to_string();
        if escape {
            line = line.replace("kubernetes", "kube\\u0072netes").replace(':', " :\t");
            prop_assume!(serde_json::from_str::<Value>(&line).is_ok_and(|v| v == Value::from(record.clone())));
        }
        let catalog = catalog(&[("l", &label)], &[], &[]);
        let splice = Splice::new(&place(), Some(&catalog), &Policy::default());
        let batch = enriched(Format::Json, format!("{line}\n").as_bytes(), &splice);
        let mut want = record;
        want.retain(|key, _| key != "kubernetes" && !key.starts_with("kubernetes."));
        let pod = json!({"namespace": "prod", "pod": "api-7d9f", "uid": "1234-uid", "container": "web", "restart": 3, "node": "n1"});
        want.insert("kubernetes".into(), pod);
        if label.len() < 1024 {
            want["kubernetes"]["labels"] = json!({"l": label});
        }
        let got = text(&batch, 0);
        prop_assert_eq!(serde_json::from_str::<Value>(&got).expect("JSON"), Value::from(want));
        // No key twice: serde_json would not tell.
        let mut shape = [Default::default()];
        let twice = Scanner::new(Arc::new(FieldSet::new(&["kubernetes"]))).scan(got.as_bytes(), &mut shape);
        prop_assert_eq!(twice.duplicates, 0);
    }

    #[test]
    fn a_wrapped_text_says_what_the_line_said(line in "[^\n\r]{1,200}") {
        // A hole in front of a line is none of it.
        prop_assume!(!line.trim().is_empty() && !line.starts_with(['\0', '\u{feff}']) && serde_json::from_str::<Map<String, Value>>(&line).is_err());
        let splice = Splice::new(&place(), None, &Policy::default());
        let batch = enriched(Format::Json, format!("{line}\n").as_bytes(), &splice);
        prop_assume!(batch.len() == 1);
        prop_assert_eq!(&serde_json::from_slice::<Value>(batch.record(0)).expect("JSON")["message"], &Value::from(line));
    }
}
