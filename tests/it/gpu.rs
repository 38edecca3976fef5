//! Devices and the host in the whole program: recordings, a library without a device, a kubelet, and what comes of them in the bill.
//!
//! The library is built here and says what a script says (`tests/data/nvml_stub.rs`); recordings are written by hand. What must come of
//! them is counted from the recording itself, with integers of its own.

use crate::harness::{Place, Running, admin_address, finish, http_get, lines, plain, root, wait_until, weir};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

#[path = "../../crates/device/tests/stub/mod.rs"]
mod stub;

const HOUR: i64 = 1_764_288_000; // 2025-11-28T00:00:00Z
const STEPS: &str = "steps:
  - meter: { usage: events, by: [device, gpu_model, mode, mig, mig_profile, estimated, service, model, pod, container, namespace, node, part] }
  - meter: { name: tokens_out, quantity: tokens_out, unit: Tokens, by: [service, model], key: [request_id] }
";

fn place(sources: &str) -> Place {
    let place = Place::new();
    std::fs::copy(root().join("pipelines/gpu-rates.yaml"), place.path("card.yaml")).expect("copied");
    place.pipeline(&format!(
        "admin: {{ listen: \"127.0.0.1:0\" }}\nlanes: 1\nrates: $DIR/card.yaml\nsources:\n{sources}tenancy: {{ from: [tenant] }}\n{STEPS}sinks: {{ store: {{ lake: {{ seal: {{ age: 1s }} }} }} }}\n"
    ));
    place
}

fn replay(place: &Place, readings: &[Value]) {
    let head = json!({ "weir": "gpu-recording", "version": 1, "host": "node-1", "driver": "580.82.07", "note": "by hand" });
    let text: String = std::iter::once(&head).chain(readings).map(|line| format!("{line}\n")).collect();
    place.write("gpus.jsonl", text);
    place.once();
}

const RECORDED: &str = "  cards: { gpu: { recording: $DIR/gpus.jsonl } }\n";

fn reading(second: i64, gpus: Vec<Value>) -> Value {
    json!({ "at_ns": (HOUR + second) * 1_000_000_000, "mono_ns": (second as u64 + 1_000) * 1_000_000_000, "boot": "b", "gpus": gpus })
}

fn owner(tenant: &str, service: &str) -> Value {
    json!({ "tenant": tenant, "namespace": "prod", "pod": format!("{service}-0"), "pod_uid": format!("uid-{service}"), "service": service })
}

fn process(pid: u32, tenant: &str) -> Value {
    json!({ "pid": pid, "started": 7, "name": "python", "kind": "compute", "memory": 1u64 << 30, "owner": owner(tenant, tenant) })
}

/// What a process used since `from`, second by second.
fn uses(pid: u32, sm: u32, from: i64, to: i64) -> Vec<Value> {
    (from + 1..=to).map(|second| json!({ "pid": pid, "at_us": (HOUR + second) * 1_000_000, "sm": sm, "memory": 1 })).collect()
}

fn gpu(n: u32, second: i64, more: Value) -> Value {
    let mut gpu =
        json!({ "index": n, "uuid": format!("GPU-{n}"), "model": "NVIDIA H100 80GB HBM3", "energy_mj": 1_000 + 700_000 * second });
    for (name, value) in more.as_object().expect("an object") {
        gpu[name] = value.clone();
    }
    gpu
}

/// `tenant sku billable cost`, of skus that begin so.
fn rated(place: &Place, sku: &str) -> Vec<String> {
    let done = place.run(&["cost", "rate", "--json"]).good();
    let rows = lines(&done.stdout).into_iter().map(|line| serde_json::from_slice::<Value>(&line).expect("JSON"));
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let of_sku = rows.filter(|row| text(row, "sku_price_id").split('@').next() == Some(sku));
    let mut shown: Vec<String> = of_sku
        .map(|row| {
            format!(
                "{} {} {}",
                if text(&row, "tenant").is_empty() { "-".into() } else { text(&row, "tenant") },
                text(&row, "billable"),
                text(&row, "billed")
            )
        })
        .collect();
    shown.sort();
    shown
}

fn sql(place: &Place, statement: &str) -> Vec<Value> {
    let done = place.run(&["sql", statement, "--json"]).good();
    done.text().lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
}

/// Sums of a meter by its device.
fn by_device(place: &Place, meter: &str) -> BTreeMap<String, i128> {
    let mut sums = BTreeMap::new();
    for row in sql(place, &format!("SELECT dims, quantity FROM usage WHERE meter = '{meter}'")) {
        let dims: Value = serde_json::from_str(row["dims"].as_str().expect("text")).expect("dims are JSON");
        let quantity: i128 = row["quantity"].as_str().expect("a decimal").parse().expect("digits");
        *sums.entry(dims["device"].as_str().expect("a device").to_owned()).or_default() += quantity;
    }
    sums
}

/// P11: one device, two tenants by SM time, and what is idle.
#[test]
fn p11_a_shared_device_is_divided_by_sm_time() {
    let place = place(RECORDED);
    let shared = |second: i64| {
        let used = if second == 0 { vec![] } else { [uses(1, 25, second - 5, second), uses(2, 50, second - 5, second)].concat() };
        gpu(0, second, json!({ "processes": [process(1, "A"), process(2, "B")], "uses": used }))
    };
    replay(&place, &(0..=720).map(|n| reading(n * 5, vec![shared(n * 5)])).collect::<Vec<_>>());
    assert_eq!(rated(&place, "gpu"), ["- 900000 0.625000000000", "A 900000 0.625000000000", "B 1800000 1.250000000000"]);
    let energy: i128 = 700_000 * 3_600;
    assert_eq!(by_device(&place, "gpu_energy"), BTreeMap::from([("GPU-0".to_string(), energy)]));
}

/// The same told from start to end: over an hour in one piece a bill rounds once.
#[test]
fn what_is_held_may_be_told_as_intervals() {
    let place = place("  cards: { gpu: { recording: $DIR/gpus.jsonl, held: intervals, window: 1h, names: otel } }\n");
    let shared = |second: i64| {
        let used = if second == 0 { vec![] } else { uses(1, 25, second - 5, second) };
        gpu(0, second, json!({ "processes": [process(1, "A"), process(2, "B")], "uses": used }))
    };
    replay(&place, &(0..=720).map(|n| reading(n * 5, vec![shared(n * 5)])).collect::<Vec<_>>());
    assert_eq!(rated(&place, "gpu"), ["- 2700000 1.875000000000", "A 900000 0.625000000000"]);
    let held = sql(&place, "SELECT unit, kind, at, \"end\" FROM usage WHERE meter = 'gpu_held'");
    let names = sql(
        &place,
        "SELECT metric, max(value) AS joules FROM metrics WHERE metric LIKE 'hw.energy%' OR metric LIKE 'DCGM%' GROUP BY metric",
    );
    assert_eq!((names.len(), names[0]["joules"].as_f64()), (1, Some(2_520_001.0)), "OpenTelemetry counts in joules: {names:?}");
    assert_eq!((held.len(), &held[0]["unit"], &held[0]["kind"]), (1, &json!("GPU"), &json!("interval")), "{held:?}");
}

/// P12: slices of one device, one of which nobody has.
#[test]
fn p12_slices_pay_their_part() {
    let place = place(RECORDED);
    let mig = |second: i64| {
        let mig = |n: u32, tenant: &str| json!({ "uuid": format!("MIG-{n}"), "profile": format!("{n}g.{n}0gb"), "gpu_instance": n, "slices": n, "given": [{ "owner": owner(tenant, tenant) }] });
        gpu(0, second, json!({ "mig_enabled": true, "migs": [mig(1, "A"), mig(2, "B"), mig(3, "C")] }))
    };
    replay(&place, &(0..=720).map(|n| reading(n * 5, vec![mig(n * 5)])).collect::<Vec<_>>());
    assert_eq!(
        rated(&place, "gpu"),
        ["- 514286 0.357142857143", "A 514286 0.357142857143", "B 1028571 0.714285714286", "C 1542857 1.071428571428"]
    );
}

/// 8 devices, 3 ways of sharing, 5 tenants: shares and what is nobody's are the devices' time and energy, to the last unit.
#[test]
fn a_node_of_eight_devices_is_billed_to_the_last_unit() {
    let place = place(RECORDED);
    let tenants = ["a", "b", "c", "d", "e"];
    let devices = |second: i64| -> Vec<Value> {
        (0..8u32)
            .map(|n| {
                // The counter of one begins anew after 400 s.
                let energy = if n == 4 && second >= 400 { 5 + 333_333 * (second - 400) } else { 1_000 + (100_001 + 7 * i64::from(n)) * second };
                let more = match n {
                    0..3 => {
                        let tenant = tenants[n as usize];
                        let given = if n == 2 && second > 300 { json!([]) } else { json!([{ "owner": owner(tenant, tenant) }]) };
                        json!({ "given": given, "processes": [process(100 + n, tenant)], "uses": uses(100 + n, 10 * (n + 1), (second - 3).max(0), second), "energy_mj": energy })
                    }
                    3..6 => {
                        let who = [(n * 10, tenants[n as usize - 3]), (n * 10 + 1, tenants[n as usize - 2]), (n * 10 + 2, tenants[n as usize - 1])];
                        let given: Vec<Value> = who.iter().map(|(_, tenant)| json!({ "owner": owner(tenant, tenant), "replica": 1 })).collect();
                        let processes: Vec<Value> = who.iter().map(|(pid, tenant)| process(*pid, tenant)).collect();
                        let used: Vec<Value> = who.iter().flat_map(|(pid, _)| uses(*pid, 7 + pid % 13, (second - 3).max(0), second)).collect();
                        json!({ "given": given, "processes": processes, "uses": used, "energy_mj": energy })
                    }
                    _ => {
                        let mig = |slices: u32, tenant: &str| json!({ "uuid": format!("MIG-{n}-{slices}"), "profile": format!("{slices}g.10gb"), "gpu_instance": slices, "slices": slices, "given": [{ "owner": owner(tenant, tenant) }] });
                        json!({ "mig_enabled": true, "migs": [mig(1, tenants[n as usize - 6]), mig(2, tenants[n as usize - 5]), mig(3, tenants[n as usize - 4])], "energy_mj": energy })
                    }
                };
                gpu(n, second, more)
            })
            .collect()
    };
    // Over the end of an hour.
    let seconds: Vec<i64> = (0..=400).map(|n| 2_800 + n * 3).collect();
    let base = seconds[0];
    let readings: Vec<Value> = seconds
        .iter()
        .map(|second| {
            let mut reading = reading(*second, devices(second - base));
            for gpu in reading["gpus"].as_array_mut().expect("devices") {
                for used in gpu.get_mut("uses").and_then(Value::as_array_mut).into_iter().flatten() {
                    used["at_us"] = json!(used["at_us"].as_i64().expect("a time") + base * 1_000_000);
                }
            }
            reading
        })
        .collect();
    replay(&place, &readings);
    // The recount: what the recording itself says.
    let length_ms = i128::from((seconds[400] - base) * 1_000);
    let mut energy: BTreeMap<String, i128> = BTreeMap::new();
    for n in 0..8 {
        let counter = |reading: &Value| i128::from(reading["gpus"][n]["energy_mj"].as_i64().expect("a counter"));
        let sum = readings.windows(2).map(|pair| {
            let (before, after) = (counter(&pair[0]), counter(&pair[1]));
            if after < before { after } else { after - before }
        });
        energy.insert(format!("GPU-{n}"), sum.sum());
    }
    assert_eq!(by_device(&place, "gpu_energy"), energy);
    let held = by_device(&place, "gpu_held");
    assert!(held.len() == 8 && held.values().all(|ms| *ms == length_ms), "{held:?}");
    let sum =
        |rows: &[String]| rows.iter().map(|row| row.split(' ').nth(1).expect("billable").parse::<i128>().expect("digits")).sum::<i128>();
    let (time, joules) = (rated(&place, "gpu"), rated(&place, "gpu-energy"));
    assert_eq!((sum(&time), sum(&joules)), (8 * length_ms, energy.values().sum::<i128>()));
    for tenant in tenants {
        assert!(
            time.iter().any(|row| row.starts_with(tenant)) && joules.iter().any(|row| row.starts_with(tenant)),
            "{tenant} pays: {time:?}"
        );
    }
    assert!(time.iter().any(|row| row.starts_with("- ")), "some of it is nobody's");
    let report = place.ask(&["gpu", "report", "--since", "2025-11-27T00:00:00Z"]);
    let whole = |name: &str| report["total"][name].as_str().expect("digits").parse::<i128>().expect("digits");
    assert_eq!((whole("held_ms"), whole("energy_mj")), (8 * length_ms, energy.values().sum()), "{report}");
    assert!(report["meets_target"].is_boolean(), "{report}");
    // Again: nothing is told twice.
    place.once();
    assert_eq!(by_device(&place, "gpu_energy"), energy);
}

/// One server, one process, two tenants: only its request log knows them.
#[test]
fn two_tenants_of_one_server_share_its_device_by_tokens() {
    let sources = format!("{RECORDED}  servers: {{ file: {{ include: [\"$DIR/in/*.jsonl\"] }} }}\n");
    let place = place(&sources);
    let request = |n: u32, tenant: &str, tokens: u32| {
        format!(
            "{{\"ts\":\"2025-11-28T00:{:02}:00Z\",\"tenant\":\"{tenant}\",\"service\":\"vllm\",\"model\":\"orca\",\"request_id\":\"r{n}\",\"tokens_out\":{tokens}}}\n",
            n
        )
    };
    place.write(
        "in/requests.jsonl",
        [request(1, "A", 300), request(2, "B", 100), request(3, "A", 300), request(3, "A", 300), request(4, "B", 100)].concat(),
    );
    let alone = |second: i64| {
        gpu(
            0,
            second,
            json!({ "given": [{ "owner": owner("platform", "vllm") }], "processes": [process(1, "platform")], "uses": uses(1, 40, (second - 5).max(0), second) }),
        )
    };
    replay(&place, &(0..=720).map(|n| reading(n * 5, vec![alone(n * 5)])).collect::<Vec<_>>());
    assert_eq!(rated(&place, "gpu"), ["A 2700000 1.875000000000", "B 900000 0.625000000000"]);
    let energy: i128 = 700_000 * 3_600;
    let joules: i128 =
        rated(&place, "gpu-energy").iter().map(|row| row.split(' ').nth(1).expect("billable").parse::<i128>().expect("digits")).sum();
    assert_eq!(joules, energy);
    let report = place.ask(&["gpu", "report", "--since", "2025-11-27T00:00:00Z"]);
    let server = &report["servers"][0];
    assert_eq!(
        (server["service"].as_str(), server["difference_ms"].as_str(), server["difference_mj"].as_str()),
        (Some("vllm"), Some("0"), Some("0")),
        "{report}"
    );
}

const SCRIPT: &str = "driver 580.82.07
gpu 0
uuid GPU-live
name NVIDIA H100 80GB HBM3
energy 1000 +700123
power 350000
busy 87
memory_total 85899345920
memory_used 1073741824
use 4242 50 20 0 0 every=0.2
process 4242 compute 1073741824
";

fn live(folder: &Path, more: &str) -> String {
    let library = stub::build(folder, &[]);
    format!("  cards: {{ gpu: {{ library: {}, interval: 100ms, window: 1s, deadline: 500ms{more} }} }}\n", library.display())
}

fn results(running: &Running) -> Value {
    let address = admin_address(running);
    let sources: Value = serde_json::from_str(&http_get(&address, "/api/sources").1).expect("JSON");
    sources["sources"].as_array().expect("a list").iter().find(|source| source["kind"] == "gpu").expect("it is there")["results"].clone()
}

/// Kills in between: the sum of facts is what the counter grew, as the metrics beside them say it.
#[test]
fn energy_of_a_live_device_is_told_once_whatever_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    stub::script(folder.path(), SCRIPT);
    let sources = live(folder.path(), "");
    let place = place(&sources);
    for round in 0..4 {
        let mut running = place.start();
        let had = results(&running)["readings"].as_u64().unwrap_or(0);
        wait_until("it has read for a while", || results(&running)["readings"].as_u64().unwrap_or(0) >= had + 25);
        if round < 3 {
            running.signal(rustix::process::Signal::KILL);
            running.wait();
        } else {
            running.stop();
        }
    }
    place.recount().assert_settled();
    let counters = sql(
        &place,
        "SELECT min(time) AS a, max(time) AS b, min(value) AS low, max(value) AS high FROM metrics WHERE metric = 'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION'",
    );
    let (low, high) = (counters[0]["low"].as_f64().expect("a number") as i128, counters[0]["high"].as_f64().expect("a number") as i128);
    let told = by_device(&place, "gpu_energy")["GPU-live"];
    // The stub's counter follows the process's own clock: each start is a reset, and all of its new reading counts (R18).
    assert!(told > 0 && high > low, "{told} {low} {high}");
    let copies = sql(&place, "SELECT key, count(*) AS n FROM usage WHERE meter LIKE 'gpu%' GROUP BY key HAVING count(*) > 1");
    assert!(copies.is_empty(), "told twice: {copies:?}");
    let busy = sql(&place, "SELECT max(value) AS busy FROM metrics WHERE metric = 'DCGM_FI_DEV_GPU_UTIL'");
    assert_eq!(busy[0]["busy"].as_f64(), Some(87.0));
}

#[test]
fn a_driver_that_hangs_holds_up_nobody_and_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    stub::script(folder.path(), SCRIPT);
    let sources = live(folder.path(), "") + "  files: { file: { include: [\"$DIR/in/*.log\"] } }\n";
    let place = place(&sources);
    let mut running = place.start();
    wait_until("it reads", || results(&running)["readings"].as_u64() > Some(3));
    stub::script(folder.path(), &format!("{SCRIPT}hang nvmlDeviceGetPowerUsage 60000\n"));
    wait_until("it hangs", || results(&running)["hangs"].as_u64() == Some(1));
    place.write("in/a.log", "{\"tenant\":\"a\"}\n");
    place.wait_ledger(&mut running, "others go on", |ledger| ledger.kept_by_tenant().get("a") == Some(&1));
    let begun = Instant::now();
    let said = running.stop();
    assert!(begun.elapsed().as_secs() < 20 && said.matches("the driver does not answer").count() == 1, "{said}");
}

#[test]
fn a_machine_without_the_library_runs_and_says_so_once() {
    let place = Place::new();
    let file = root().join("pipelines/gpu-node.yaml");
    let data = place.data();
    let args = |more: &'static str| {
        let mut command = weir();
        command.arg("run").arg(&file).arg("--data").arg(&data).env("LD_LIBRARY_PATH", "/nowhere");
        if !more.is_empty() {
            command.arg(more);
        }
        command
    };
    let done = finish(args("--once")).good();
    assert!(done.text().contains("records"), "{}", done.text());
    let running = Running::spawn(args(""));
    wait_until("it is ready", || running.stderr().contains("ready"));
    wait_until("it says so", || running.stderr().contains("no devices here"));
    let said = running.stop();
    assert_eq!(said.matches("no devices here").count(), 1, "{said}");
}

/// What is recorded of a live device is replayed as it was.
#[test]
fn a_recording_is_what_was_read() {
    let folder = tempfile::tempdir().expect("a folder");
    stub::script(folder.path(), SCRIPT);
    let library = stub::build(folder.path(), &[]);
    let place = place(RECORDED);
    let path = place.path("gpus.jsonl").display().to_string();
    let library = library.display().to_string();
    let done = plain(&["gpu", "record", &path, "--for", "1500ms", "--interval", "100ms", "--library", &library]).good();
    assert!(done.text().contains("readings in"), "{}", done.text());
    assert_eq!(plain(&["gpu", "record", &path, "--for", "1s", "--library", &library]).exits(1).text(), "", "it is not written over");
    let text = std::fs::read_to_string(place.path("gpus.jsonl")).expect("readable");
    let readings: Vec<Value> = text.lines().skip(1).map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!((10..=20).contains(&readings.len()), "{}", readings.len());
    place.once();
    let counter = |reading: &Value| i128::from(reading["gpus"][0]["energy_mj"].as_i64().expect("a counter"));
    let grown = counter(readings.last().expect("some")) - counter(&readings[0]);
    assert_eq!(by_device(&place, "gpu_energy")["GPU-live"], grown);
    let listed = plain(&["gpu", "list", "--recording", &path]).good();
    assert!(listed.text().contains("NVIDIA H100 80GB HBM3") && listed.text().contains("4242"), "{}", listed.text());
}

mod kubelet {
    //! A kubelet's socket: answers `List` with what it is told.

    use hyper::body::{Body, Bytes, Frame, Incoming};
    use hyper::{HeaderMap, Request, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::path::Path;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A message and its trailers.
    struct Frames(VecDeque<Frame<Bytes>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        assert!(bytes.len() < 16_384);
        let len = bytes.len();
        let mut out = vec![number << 3 | 2];
        if len >= 128 {
            out.push((len & 127 | 128) as u8);
        }
        out.push(if len >= 128 { (len >> 7) as u8 } else { len as u8 });
        out.extend_from_slice(bytes);
        out
    }

    /// A pod with one container that has these devices.
    pub fn pod(namespace: &str, name: &str, devices: &[&str]) -> Vec<u8> {
        let ids: Vec<u8> = devices.iter().flat_map(|id| field(2, id.as_bytes())).collect();
        let devices = [field(1, b"nvidia.com/gpu"), ids].concat();
        let container = [field(1, b"main"), field(2, &devices)].concat();
        field(1, &[field(1, name.as_bytes()), field(2, namespace.as_bytes()), field(3, &container)].concat())
    }

    /// Serves until the test's process ends.
    pub fn serve(path: &Path, pods: Vec<Vec<u8>>, may_give: &[&str]) {
        let frame = |message: Vec<u8>| Bytes::from([vec![0], (message.len() as u32).to_be_bytes().to_vec(), message].concat());
        let ids: Vec<u8> = may_give.iter().flat_map(|id| field(2, id.as_bytes())).collect();
        let answers = [frame(pods.concat()), frame(field(1, &[field(1, b"nvidia.com/gpu"), ids].concat()))];
        let listener = std::os::unix::net::UnixListener::bind(path).expect("a socket");
        listener.set_nonblocking(true).expect("it can");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    let answers = answers.clone();
                    tokio::spawn(async move {
                        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                            let [list, allocatable] = answers.clone();
                            async move {
                                let framed = match request.uri().path() {
                                    "/v1.PodResourcesLister/List" => list,
                                    "/v1.PodResourcesLister/GetAllocatableResources" => allocatable,
                                    other => panic!("nobody asks for {other}"),
                                };
                                let trailers =
                                    HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
                                let body = Frames([Frame::data(framed), Frame::trailers(trailers)].into());
                                Ok::<_, Infallible>(
                                    Response::builder().header("content-type", "application/grpc").body(body).expect("valid"),
                                )
                            }
                        });
                        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            });
        });
    }
}

/// The kubelet says who was given a device, labels of pods say who pays.
#[test]
fn a_device_is_of_the_pod_that_the_kubelet_gave_it_to() {
    let folder = tempfile::tempdir().expect("a folder");
    stub::script(folder.path(), &format!("{}gpu 1\nuuid GPU-other\nname NVIDIA H100 80GB HBM3\nenergy 5 +300000\n", SCRIPT));
    let socket = folder.path().join("kubelet.sock");
    kubelet::serve(
        &socket,
        vec![kubelet::pod("prod", "chat-0", &["GPU-live"]), kubelet::pod("prod", "unknown-0", &["GPU-nobody-has"])],
        &["GPU-live"],
    );
    let more = format!(", pod_resources: {}, pods: {{ metadata: {{ path: $DIR/pods.json }} }}", socket.display());
    let place = place(&live(folder.path(), &more));
    place.write("pods.json", r#"{"pods":[{"namespace":"prod","name":"chat-0","uid":"u-1","labels":{"tenant":"acme","app":"chat"}}]}"#);
    let running = place.start();
    wait_until("it has read for a while", || results(&running)["readings"].as_u64() > Some(25));
    assert!(results(&running)["given_unknown_device"].as_u64() > Some(0), "{}", results(&running));
    running.stop();
    let rows = sql(&place, "SELECT tenant, dims FROM usage WHERE meter = 'gpu_held'");
    let modes: BTreeMap<String, (String, String, String)> = rows
        .iter()
        .map(|row| {
            let dims: Value = serde_json::from_str(row["dims"].as_str().expect("text")).expect("JSON");
            let text = |name: &str| dims[name].as_str().unwrap_or_default().to_owned();
            (text("device"), (row["tenant"].as_str().unwrap_or_default().to_owned(), text("mode"), text("service")))
        })
        .collect();
    assert_eq!(modes["GPU-live"], ("acme".into(), "exclusive".into(), "chat".into()));
    assert_eq!(modes["GPU-other"].1, "free");
    let may = sql(&place, "SELECT labels, max(value) AS may FROM metrics WHERE metric = 'weir_gpu_allocatable' GROUP BY labels");
    let may: BTreeMap<bool, f64> =
        may.iter().map(|row| (row["labels"].to_string().contains("GPU-live"), row["may"].as_f64().expect("a number"))).collect();
    assert_eq!(may, BTreeMap::from([(true, 1.0), (false, 0.0)]));
    let file = place.path("pipeline.yaml").display().to_string();
    let listed = plain(&["gpu", "list", "--config", &file]).good();
    assert!(listed.text().contains("acme (prod/chat-0)"), "{}", listed.text());
    let labels = sql(&place, "SELECT labels FROM metrics WHERE metric = 'DCGM_FI_DEV_GPU_UTIL' LIMIT 1")[0]["labels"].to_string();
    assert!(labels.contains("chat-0") && labels.contains("prod"), "{labels}");
}

/// Ends its processes when it goes.
struct Jobs(Vec<Child>);

impl Drop for Jobs {
    fn drop(&mut self) {
        for job in &mut self.0 {
            let _ = job.kill(); // it may have ended
            let _ = job.wait();
        }
    }
}

/// The same of a live node: 8 devices by the library, given out by a kubelet, with processes of 5 tenants.
#[test]
fn a_live_node_of_eight_devices_is_billed_to_the_last_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    const TENANTS: [&str; 5] = ["a", "b", "c", "d", "e"];
    // A command has its file's name.
    let job = |tenant: &str| {
        let program = folder.path().join(format!("job-{tenant}"));
        std::os::unix::fs::symlink("/bin/sleep", &program).expect("linked");
        Command::new(program).arg("600").spawn().expect("it starts")
    };
    let jobs = Jobs(TENANTS.map(job).into());
    let pid = |n: usize| jobs.0[n].id();
    let mut script = String::new();
    for n in 0..8 {
        script += &format!("gpu {n}\nuuid GPU-{n}\nname NVIDIA H100 80GB HBM3\nenergy {} +{}\n", 1_000 + n, 300_001 + 7 * n);
        let used: Vec<usize> = match n {
            0..3 => vec![n],
            3..6 => vec![n - 3, n - 2, n - 1],
            _ => vec![],
        };
        for job in used {
            script += &format!("process {} compute 1073741824\nuse {} {} 5 0 0 every=0.1\n", pid(job), pid(job), 11 + 5 * job);
        }
        if n >= 6 {
            script += "mig 1\n";
            for (slices, instance) in [(1, 7), (2, 3), (3, 1)] {
                script +=
                    &format!("instance {instance} MIG-{n}-{slices} {slices}g.{slices}0gb gi={instance} ci=0 total=10737418240 used=0\n");
            }
        }
    }
    stub::script(folder.path(), &script);
    let socket = folder.path().join("kubelet.sock");
    let alone = |n: usize| kubelet::pod("prod", &format!("pod-{}", TENANTS[n]), &[&format!("GPU-{n}")]);
    let slices =
        |n: usize, tenant: usize, slices: usize| kubelet::pod("prod", &format!("pod-{}", TENANTS[tenant]), &[&format!("MIG-{n}-{slices}")]);
    let shared = |n: usize, replica: usize| kubelet::pod("prod", &format!("pod-{}", TENANTS[replica]), &[&format!("GPU-{n}::{replica}")]);
    let mut pods = vec![alone(0), alone(1), alone(2), slices(6, 0, 1), slices(6, 1, 2), slices(7, 3, 1), slices(7, 4, 3)];
    pods.extend((3..6).flat_map(|n| [shared(n, n - 3), shared(n, n - 2), shared(n, n - 1)]));
    kubelet::serve(&socket, pods, &[]);
    let rules = TENANTS.map(|tenant| format!("{{ command: job-{tenant}, tenant: {tenant}, service: {tenant} }}"));
    let more = format!(
        ", pod_resources: {}, pods: {{ metadata: {{ path: $DIR/pods.json }} }}, processes: [{}]",
        socket.display(),
        rules.join(", ")
    );
    let place = place(&live(folder.path(), &more));
    let named = TENANTS.map(|tenant| json!({ "namespace": "prod", "name": format!("pod-{tenant}"), "uid": format!("u-{tenant}"), "labels": { "tenant": tenant, "app": tenant } }));
    place.write("pods.json", json!({ "pods": named }).to_string());
    let running = place.start();
    wait_until("it has read for a while", || results(&running)["readings"].as_u64() > Some(40));
    running.stop();
    drop(jobs);
    place.recount().assert_settled();
    let told = by_device(&place, "gpu_energy");
    let seen = sql(
        &place,
        "SELECT labels, min(value) AS low, max(value) AS high FROM metrics WHERE metric = 'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION' GROUP BY labels",
    );
    let mut counted: BTreeMap<String, (i128, i128)> = BTreeMap::new();
    for row in &seen {
        let labels: Value = serde_json::from_str(row["labels"].as_str().expect("text")).expect("JSON");
        let number = |name: &str| row[name].as_f64().expect("a number") as i128;
        let of_device = counted.entry(labels["UUID"].as_str().expect("a uuid").into()).or_insert((i128::MAX, i128::MIN));
        *of_device = (of_device.0.min(number("low")), of_device.1.max(number("high")));
    }
    let grown: BTreeMap<String, i128> = counted.into_iter().map(|(device, (low, high))| (device, high - low)).collect();
    assert_eq!((told.len(), &told), (8, &grown), "joules are what the counters grew");
    let held = by_device(&place, "gpu_held");
    assert!(held.len() == 8 && held.values().all(|ms| *ms > 2_000), "{held:?}");
    let sum =
        |rows: &[String]| rows.iter().map(|row| row.split(' ').nth(1).expect("billable").parse::<i128>().expect("digits")).sum::<i128>();
    let (time, joules) = (rated(&place, "gpu"), rated(&place, "gpu-energy"));
    assert_eq!((sum(&time), sum(&joules)), (held.values().sum::<i128>(), told.values().sum::<i128>()));
    for tenant in TENANTS {
        assert!(time.iter().any(|row| row.starts_with(&format!("{tenant} "))), "{tenant} pays: {time:?}");
    }
    assert!(time.iter().any(|row| row.starts_with("- ")), "some of it is nobody's: {time:?}");
}

#[test]
fn the_host_is_read_under_names_that_dashboards_know() {
    let place = place("  machine: { host: { interval: 100ms, window: 1s } }\n");
    place.once();
    let names: Vec<String> =
        sql(&place, "SELECT DISTINCT metric FROM metrics").iter().map(|row| row["metric"].as_str().expect("a name").to_owned()).collect();
    for name in
        ["node_cpu_seconds_total", "node_memory_MemTotal_bytes", "node_load1", "node_boot_time_seconds", "node_network_receive_bytes_total"]
    {
        assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
    }
    let used = sql(&place, "SELECT sum(quantity) AS ms FROM usage WHERE meter = 'cpu_time'");
    assert!(used[0]["ms"].as_str().is_some_and(|ms| ms.parse::<i64>().is_ok_and(|ms| ms >= 0)), "{used:?}");
}
