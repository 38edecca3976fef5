//! The admin port: alive, ready, metrics that equal the ledger.

use crate::harness::{Place, Running, admin_address as address, http_get as get, metric as sum};
use crate::input::platform;
use std::collections::BTreeMap;

const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 20ms } } }
tenancy: { from: [tenant] }
steps: [{ sample: { levels: { debug: none } } }]
sinks: { files: { archive: { path: "{tenant}/lines.log", commit: { interval: 20ms } } }, store: { lake: { seal: { age: 1h } } } }
admin: { listen: "127.0.0.1:0" }
"#;

#[test]
fn the_admin_port_tells_alive_ready_and_counts_that_equal_the_ledger() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    place.append("in/a.log", platform(41, 1000).concat() + "no json\n");
    let mut running = place.start();
    let ledger = place.wait_ledger(&mut running, "all received and archived", |l| l.received() == 1001 && l.sink("files", "buffered") == 0);
    let address = address(&running);
    assert_eq!(get(&address, "/livez").0, 200);
    assert_eq!(get(&address, "/readyz").0, 200);
    assert_eq!(get(&address, "/no-such-page").0, 404);
    let (status, page) = get(&address, "/metrics");
    assert_eq!(status, 200);
    assert_eq!(sum(&page, "weir_received_records_total", ""), 1001, "{page}");
    assert_eq!(sum(&page, "weir_kept_records_total", "") as u64, ledger.kept());
    assert_eq!(sum(&page, "weir_dropped_records_total", "reason=\"sampled\"") as u64, ledger.dropped()["sampled"]);
    assert_eq!(sum(&page, "weir_dropped_total", "level=\"debug\",pipeline") as u64, ledger.dropped()["sampled"], "{page}");
    assert_eq!(sum(&page, "weir_sampled_total", ""), 0, "levels that are kept whole are no sampler's");
    assert_eq!(sum(&page, "weir_delivered_records_total", "sink=\"files\"") as u64, ledger.kept());
    assert_eq!(sum(&page, "weir_delivered_records_total", "sink=\"store\""), 0);
    assert_eq!(sum(&page, "weir_buffered_records", "sink=\"store\"") as u64, ledger.kept());
    assert_eq!(sum(&page, "weir_noted_records_total", "note=\"not_json\""), 1);
    assert_eq!(sum(&page, "weir_law_residual", ""), 0);
    assert!(page.contains("weir_law_residual"), "{page}");
    let age = page.lines().find(|l| l.starts_with("weir_sink_oldest_undelivered_seconds") && l.contains("sink=\"store\""));
    assert!(age.is_some_and(|line| !line.ends_with(" 0")), "{page}");
    assert!(page.lines().any(|l| l.starts_with("weir_received_bytes_total")), "{page}");
    let by_tenant = |tenant: &str| sum(&page, "weir_kept_records_total", &format!("tenant=\"{tenant}\"")) as u64;
    let counts: BTreeMap<String, u64> = ledger.kept_by_tenant();
    assert!(counts.len() == 9, "{counts:?}");
    for (tenant, records) in counts {
        assert_eq!(by_tenant(&tenant), records, "{tenant}");
    }
    running.stop();
}

#[test]
fn tenants_on_the_metrics_page_are_bounded_and_nothing_is_left_out_of_the_sums() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let lines: String =
        (0..3000).map(|n| format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"t{}\",\"level\":\"info\"}}\n", n % 1000)).collect();
    place.append("in/a.log", lines);
    let mut running = place.start();
    place.wait_received(&mut running, 3000);
    let (_, page) = get(&address(&running), "/metrics");
    assert_eq!(sum(&page, "weir_received_records_total", ""), 3000);
    let series = page.lines().filter(|line| line.starts_with("weir_received_records_total{")).count();
    assert!(series <= 300, "{series} series for 1000 tenants");
    running.stop();
}

#[test]
fn a_draining_program_is_not_ready() {
    let place = Place::new();
    // Standard output that nobody reads keeps the drain waiting.
    place.pipeline(&PIPELINE.replace("sinks: {", "sinks: { out: { stdout: {} },").replace("sinks:", "hub: { journal: {} }\nsinks:"));
    place.append("in/a.log", platform(42, 3000).concat());
    let mut command = crate::harness::weir();
    command.arg("run").arg(place.path("pipeline.yaml")).arg("--data").arg(place.data()).stdout(std::process::Stdio::piped());
    let mut running = Running::spawn(command);
    let address = address(&running);
    place.wait_ledger(&mut running, "records that nobody takes", |l| l.received() == 3000 && l.sink("out", "buffered") > 0);
    assert_eq!(get(&address, "/readyz").0, 200);
    running.signal_answered(rustix::process::Signal::TERM);
    assert_eq!(get(&address, "/readyz").0, 503);
}
