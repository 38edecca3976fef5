//! Redaction and shaping by the whole program: what is stored is masked, what is billed is what was received.
//!
//! In: a few lines by hand. Out: the archive's lines, the bill, the ledger counted again from what was stored.

use crate::harness::Place;
use crate::stores::archive_lines;

const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
labels: { region: us-east-1 }
steps:
  - redact: { detect: [email, card], fields: [] }
  - redact: { fields: [user], action: { hash: { key_file: "$DIR/key" } } }
  - shape: { remove: [tokens], rename: { msg: message }, set: { region: { label: region } } }
  - meter: { name: tokens_in, quantity: tokens, unit: Tokens, by: [service, model] }
sinks:
  files: { archive: { path: "{tenant}/lines.log" } }
  store: { lake: {} }
rates: rates.yaml
"#;

#[test]
fn what_nobody_may_read_is_not_stored_and_the_bill_is_unchanged() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    place.write("key", "0123456789abcdef-a-key\n");
    place.write(
        "in/a.log",
        concat!(
            r#"{"tenant":"t","service":"s","tokens":4111111111111111,"user":"bob","msg":"mail bob\u0040example.org, 4111 1111 1111 1111"}"#,
            "\n",
            r#"{"tenant":"t","service":"s","tokens":7}"#,
            "\nbob@example.org is no JSON\n",
        ),
    );
    place.once();
    let stored = archive_lines(&place.data(), "files");
    let text = stored.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>();
    assert!(text.iter().all(|line| !line.contains("bob") && !line.contains("4111")), "{text:?}");
    let first = text.iter().find(|line| line.contains("message")).expect("the first line");
    assert!(first.contains(r#""message":"mail ***, ***""#) && first.ends_with(r#","region":"us-east-1"}"#), "{first}");
    assert!(text.iter().any(|line| line == r#"{"tenant":"t","service":"s","region":"us-east-1"}"#), "{text:?}");
    assert!(text.iter().any(|line| line == "*** is no JSON"), "{text:?}");
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!((ledger.received(), ledger.kept(), ledger.difference("files")), (3, 3, 0));
    let report = place.ask(&["cost", "report"]).to_string();
    assert!(report.contains("4111111111111118"), "what was received is counted: {report}");
}

#[test]
fn a_key_that_is_not_there_stops_the_start_and_is_never_shown() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    place.write("in/a.log", "{}\n");
    let pipeline = place.path("pipeline.yaml");
    let done = place.run(&["run", "--once", pipeline.to_str().expect("text")]).exits(1);
    assert!(done.stderr.contains("cannot read the key of `redact`"), "{}", done.stderr);
    place.write("key", "short\n");
    let done = place.run(&["run", "--once", pipeline.to_str().expect("text")]).exits(1);
    assert!(done.stderr.contains("shorter than 16 bytes") && !done.stderr.contains("short\n"), "{}", done.stderr);
}
