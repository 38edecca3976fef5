//! How many samples a second the bounds of series and a watch for missing members judge, on one core.

use flow::units::{NANOS_PER_SECOND, UnixNanos};
use std::hint::black_box;
use std::time::Instant;
use telemetry::cardinality::{Cardinality, Kind, Limits, Sample};
use telemetry::missing::{Expected, Rule, Watch};
use telemetry::selector::{LOOKBACK, Point, Query, Selector, Series, range};

fn report(what: &str, samples: usize, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what}: {:.1} M/s", samples as f64 / seconds / 1e6);
}

fn main() {
    const SERIES: u64 = 500_000;
    const ROUNDS: u64 = 10;
    let metrics: Vec<String> = (0..200).map(|n| format!("metric_{n}_total")).collect();
    for (what, total) in [("admitted", 1_000_000), ("half of them folded", 250_000)] {
        let mut cardinality =
            Cardinality::new(Limits { total, per_metric: 5_000, per_tenant: 1_000_000, folded: 500_000, ..Limits::default() });
        let begun = Instant::now();
        for round in 0..ROUNDS {
            for series in 0..SERIES {
                let metric = &metrics[(series % 200) as usize];
                let sample = Sample {
                    series: series.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    metric,
                    tenant: "acme",
                    part: None,
                    kind: Kind::Counter,
                    value: round as f64,
                };
                black_box(cardinality.admit(&sample, UnixNanos(round as i64 * NANOS_PER_SECOND)));
            }
        }
        report(&format!("series, {what}"), (SERIES * ROUNDS) as usize, begun);
    }
    let rule = Rule::missing_from(
        "latency",
        Selector::parse("latency_bucket").expect("the input of the bench is right"),
        &["model"],
        Expected::Preceding(600 * NANOS_PER_SECOND),
        15 * NANOS_PER_SECOND,
    );
    let mut watch = Watch::new(rule, UnixNanos(0), 10_000).expect("the input of the bench is right");
    let models: Vec<String> = (0..1000).map(|n| format!("model-{n}")).collect();
    let begun = Instant::now();
    for round in 0..2000i64 {
        let now = UnixNanos(round * 15 * NANOS_PER_SECOND);
        for model in &models {
            watch.observe(&[model], now, now);
        }
        black_box(watch.tick(now));
    }
    report("missing, signs of life with a tick for each 1000", 2_000_000, begun);
    let series: Vec<Series> = (0..1000)
        .map(|n| Series {
            labels: vec![("__name__".into(), "x_total".into()), ("job".into(), format!("j{}", n % 10)), ("n".into(), n.to_string())],
            points: (0..240).map(|at| Point { at: UnixNanos(at * 15 * NANOS_PER_SECOND), value: at as f64 }).collect(),
        })
        .collect();
    let query = Query::parse("sum by (job) (rate(x_total[5m]))").expect("the input of the bench is right");
    let begun = Instant::now();
    let rows = range(&query, &series, UnixNanos(0), UnixNanos(3600 * NANOS_PER_SECOND), 60 * NANOS_PER_SECOND, LOOKBACK)
        .expect("the input of the bench is right");
    println!("selector, sum by (rate[5m]) of 1000 series, 61 steps: {:.1} ms, {} rows", begun.elapsed().as_secs_f64() * 1e3, rows.len());
}
