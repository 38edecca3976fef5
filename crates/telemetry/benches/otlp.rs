//! How fast requests of OTLP become lines, and lines requests, on one core: `cargo bench -p telemetry --bench otlp`.
//!
//! The input is made here and always the same: batches as SDKs send them, 512 items of one resource with 6 attributes and 2 scopes.
//! A log record has a text of 80 bytes, 5 attributes, both ids; a point 3 attributes; a span 5 attributes and one event.

use std::time::Instant;
use telemetry::otlp::{Encoding, Options, Signal, WriteOptions, Writer, read};
use telemetry::wire::{put_bytes, put_double, put_fixed32, put_fixed64, put_message, put_varint};

const T0: u64 = 1_764_291_723_000_000_000;
const ITEMS: u64 = 512;
const SECONDS: f64 = 1.5;

fn text(out: &mut Vec<u8>, number: u32, key: &str, value: &str) {
    put_message(out, number, |out| {
        put_bytes(out, 1, key.as_bytes());
        put_message(out, 2, |out| put_bytes(out, 1, value.as_bytes()));
    });
}

fn int(out: &mut Vec<u8>, number: u32, key: &str, value: u64) {
    put_message(out, number, |out| {
        put_bytes(out, 1, key.as_bytes());
        put_message(out, 2, |out| put_varint(out, 3, value));
    });
}

fn request(item: impl Fn(&mut Vec<u8>, u64)) -> Vec<u8> {
    let mut body = Vec::new();
    put_message(&mut body, 1, |out| {
        put_message(out, 1, |out| {
            for (key, value) in [
                ("service.name", "checkout"),
                ("service.version", "1.42.0"),
                ("k8s.pod.name", "checkout-7d9f8b6c5-x2x4z"),
                ("k8s.namespace.name", "shop"),
                ("host.name", "node-17.eu-central-1"),
                ("telemetry.sdk.language", "go"),
            ] {
                text(out, 1, key, value);
            }
        });
        for scope in 0..2 {
            put_message(out, 2, |out| {
                put_message(out, 1, |out| put_bytes(out, 1, b"github.com/shop/checkout/handlers"));
                (0..ITEMS / 2).for_each(|n| item(out, scope * ITEMS / 2 + n));
            });
        }
    });
    body
}

fn log(out: &mut Vec<u8>, n: u64) {
    put_message(out, 2, |out| {
        put_fixed64(out, 1, T0 + n * 1_234_567);
        put_fixed64(out, 11, T0 + n * 1_234_567 + 5_000);
        put_varint(out, 2, 9);
        put_bytes(out, 3, b"INFO");
        put_message(out, 5, |out| {
            put_bytes(out, 1, format!("order {n:08} accepted for customer 4711, 3 positions, sum 129.90 EUR, voucher none").as_bytes())
        });
        text(out, 6, "http.request.method", "POST");
        text(out, 6, "url.path", "/api/v1/orders");
        int(out, 6, "http.response.status_code", 200 + n % 5);
        int(out, 6, "order.positions", n);
        text(out, 6, "user.id", "c0ffee42");
        put_fixed32(out, 8, 1);
        put_bytes(out, 9, &(n + 0x1234_5678_9abc_def0).to_be_bytes().repeat(2));
        put_bytes(out, 10, &(n + 0x00f0_67aa_0ba9_02b7).to_be_bytes());
    });
}

fn metric(out: &mut Vec<u8>, n: u64) {
    put_message(out, 2, |out| {
        put_bytes(out, 1, format!("http.server.requests.{}", n % 16).as_bytes());
        put_bytes(out, 3, b"{request}");
        put_message(out, 7, |out| {
            put_message(out, 1, |out| {
                put_fixed64(out, 2, T0);
                put_fixed64(out, 3, T0 + 15_000_000_000);
                put_double(out, 4, n as f64 * 0.37);
                text(out, 7, "http.request.method", "POST");
                text(out, 7, "http.route", "/api/v1/orders/{id}");
                int(out, 7, "http.response.status_code", 200);
            });
            put_varint(out, 2, 2);
            put_varint(out, 3, 1);
        });
    });
}

fn span(out: &mut Vec<u8>, n: u64) {
    put_message(out, 2, |out| {
        put_bytes(out, 1, &(n + 0x1234_5678_9abc_def0).to_be_bytes().repeat(2));
        put_bytes(out, 2, &(n + 0x00f0_67aa_0ba9_02b7).to_be_bytes());
        put_bytes(out, 4, &(n + 0x00f0_67aa_0ba9_02b6).to_be_bytes());
        put_bytes(out, 5, b"POST /api/v1/orders/{id}");
        put_varint(out, 6, 2);
        put_fixed64(out, 7, T0 + n * 1_234_567);
        put_fixed64(out, 8, T0 + n * 1_234_567 + 4_200_000);
        text(out, 9, "http.request.method", "POST");
        text(out, 9, "http.route", "/api/v1/orders/{id}");
        text(out, 9, "client.address", "10.1.2.3");
        int(out, 9, "http.response.status_code", 200);
        int(out, 9, "http.request.body.size", n);
        put_message(out, 11, |out| {
            put_fixed64(out, 1, T0 + n * 1_234_567 + 100);
            put_bytes(out, 2, b"cache miss");
        });
    });
}

/// Time on a core, so that what else runs on the machine counts little. `None`: the system does not tell.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<u64>().ok()? as f64 / 1e9)
}

/// Runs `work` for a while; it returns bytes and items.
fn measure(name: &str, mut work: impl FnMut() -> (usize, u64)) {
    work();
    let (mut bytes, mut items, begin, cpu_begin) = (0, 0, Instant::now(), cpu_seconds());
    while begin.elapsed().as_secs_f64() < SECONDS {
        let done = work();
        bytes += done.0;
        items += done.1;
    }
    let seconds = match (cpu_begin, cpu_seconds()) {
        (Some(from), Some(to)) => to - from,
        _ => begin.elapsed().as_secs_f64(),
    };
    println!("{name:<26} {:>8.0} K items/s {:>8.0} MB/s of body", items as f64 / seconds / 1e3, bytes as f64 / seconds / 1e6);
}

fn main() {
    for (signal, body) in [(Signal::Logs, request(log)), (Signal::Metrics, request(metric)), (Signal::Traces, request(span))] {
        let mut out = Vec::new();
        let mut json = Vec::new();
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            if encoding == Encoding::Json {
                let mut writer = Writer::new(signal, WriteOptions::default());
                out.split_inclusive(|byte| *byte == b'\n').for_each(|line| writer.push(line).expect("a line of ours"));
                json = writer.finish(Encoding::Json);
            }
            let body = if encoding == Encoding::Json { &json } else { &body };
            measure(&format!("{} {encoding:?} in", signal.name()), || {
                out.clear();
                let accepted = read(signal, encoding, body, &Options::default(), &mut out).expect("a request");
                assert_eq!(accepted.items, ITEMS);
                (body.len(), accepted.items)
            });
        }
        let mut writer = Writer::new(signal, WriteOptions::default());
        measure(&format!("{} Protobuf out", signal.name()), || {
            out.split_inclusive(|byte| *byte == b'\n').for_each(|line| writer.push(line).expect("a line of ours"));
            (writer.finish(Encoding::Protobuf).len(), ITEMS)
        });
    }
}
