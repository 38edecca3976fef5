//! An independent recount of stored rows equals the ledger, and a leak of one record turns it red.

use crate::harness::{Place, finish, skip, weir};
use crate::input::platform;
use crate::stores::{archive_counts, archive_files, lake_files, pyarrow, rows_by_pyarrow};
use std::collections::BTreeMap;

const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
steps: [{ sample: { levels: { debug: none, info: { ratio: 0.5, key: request_id } } } }]
sinks:
  files: { archive: { path: "{tenant}/lines.log", rotate: { size: 16KiB }, compress: COMPRESS } }
  store: { lake: { seal: { bytes: 64KiB } } }
"#;

fn stored(compress: &str) -> Place {
    let place = Place::new();
    place.pipeline(&PIPELINE.replace("COMPRESS", compress));
    place.write("in/a.log", platform(51, 1500).concat());
    place.write("in/b.log", platform(52, 500).concat());
    place.once();
    place
}

#[test]
fn lines_in_the_archive_equal_the_ledger_by_tenant() {
    for compress in ["none", "gzip", "zstd"] {
        let place = stored(compress);
        let ledger = place.recount();
        let want = ledger.kept_by_tenant();
        let tenants: Vec<String> = want.keys().cloned().collect();
        assert!(archive_files(&place.data(), "files").len() > tenants.len(), "nothing was rotated");
        assert_eq!(archive_counts(&place.data(), "files", &tenants), want, "{compress}");
        assert_eq!((ledger.difference("files"), ledger.difference("store"), ledger.residual()), (0, 0, 0), "{compress}");
        assert_eq!(ledger.received(), 2000);
    }
}

#[test]
fn rows_in_the_lake_equal_the_ledger_by_tenant_as_another_reader_of_parquet_counts_them() {
    let Some(python) = pyarrow() else {
        return skip("recount::rows_in_the_lake_equal_the_ledger_by_tenant_as_another_reader_of_parquet_counts_them", "needs pyarrow");
    };
    let place = stored("none");
    let want: BTreeMap<String, u64> = place.ledger().kept_by_tenant();
    assert_eq!(rows_by_pyarrow(&python, &place.data().join("lake"), "logs"), want);
}

#[test]
fn one_line_that_leaks_from_the_archive_turns_the_recount_red() {
    let place = stored("none");
    let file = archive_files(&place.data(), "files").into_iter().next_back().expect("files");
    let text = std::fs::read(&file).expect("readable");
    let last = text[..text.len() - 1].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    std::fs::write(&file, &text[..last]).expect("written");
    let tenants: Vec<String> = place.ledger().kept_by_tenant().keys().cloned().collect();
    let counted: u64 = archive_counts(&place.data(), "files", &tenants).values().sum();
    assert_eq!(counted + 1, place.ledger().kept(), "the count of this test does not see the leak");
    assert!(recount_differs(&place, "files"));
}

#[test]
fn a_file_that_leaks_from_the_lake_turns_the_recount_red() {
    let place = stored("none");
    let (file, _) = lake_files(&place.data().join("lake"), "logs").into_iter().next().expect("files");
    std::fs::remove_file(&file).expect("removed");
    assert!(recount_differs(&place, "store"));
}

/// The recount tells of it by its numbers or by refusing to go on; never by "all is well".
fn recount_differs(place: &Place, sink: &str) -> bool {
    let done = place.run(&["ledger", "--recount", "--json"]);
    assert_ne!(done.code, Some(0), "a leak, and exit 0: {}", done.text());
    done.stdout.is_empty() || crate::harness::Ledger::of(&done.json()).difference(sink) > 0
}

#[test]
fn pipelines_of_one_process_share_a_lake_and_names_and_the_law_holds() {
    let place = Place::new();
    for (n, name) in ["left", "right"].into_iter().enumerate() {
        place.write(&format!("{name}.log"), platform(50 + n as u64, 400).concat());
        let text = format!(
            "name: {name}\nsources: {{ app: {{ file: {{ include: [\"{}\"] }} }} }}\nsinks:\n  files: {{ archive: {{ path: \"{{tenant}}.log\" }} }}\n  store: {{ lake: {{}} }}\n",
            place.path(&format!("{name}.log")).display()
        );
        place.write(&format!("{name}.yaml"), text);
    }
    let mut command = weir();
    command.args(["run", "--once", "--quiet"]).arg(place.path("left.yaml")).arg(place.path("right.yaml"));
    command.arg("--data").arg(place.data());
    finish(command).good();
    let mut command = weir();
    command.args(["ledger", "--recount", "--json", "--data"]).arg(place.data());
    let ledger = finish(command).good().json();
    assert_eq!(ledger["residual"], 0);
    for name in ["left", "right"] {
        let pipeline = &ledger["pipelines"][name];
        assert_eq!(pipeline["kept"]["records"], 400, "{name}");
        for sink in ["files", "store"] {
            assert_eq!(pipeline["recount"][sink]["difference"], 0, "{name}.{sink}");
        }
    }
    assert_eq!(place.search("*").len(), 800, "one lake holds both");
}
