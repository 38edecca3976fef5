//! Readers of weir's own telemetry: the page of the admin port is one, a push by OTLP another; config alone says which there are.
//!
//! In: the page of metrics, and spans of what sinks made durable. Out: requests of OTLP over HTTP. The numbers are those of the page,
//! read as a scraper reads it, so that every reader shows the same. Bound: one request of each kind at a time; [`SPANS_MAX`] spans wait,
//! of more the oldest go and are counted; what cannot be sent is told once and not sent again.

use super::control::Vitals;
use super::deliver::SinkSignals;
use crate::config::TelemetryConfig;
use crate::env;
use crate::metrics;
use crate::sources::status::lock;
use flow::units::UnixNanos;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use telemetry::exposition::{Format, Scraper, Target};
use telemetry::otlp::{Encoding, Signal, WriteOptions, Writer, http_path};
use telemetry::sample::put_text;
use tracing::{info, warn};

/// Spans of one sink that wait for the next push.
const SPANS_MAX: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a sink made durable at once.
#[derive(Clone, Debug)]
pub struct Span {
    pub begun: UnixNanos,
    pub ended: UnixNanos,
    /// The newest frame in it.
    pub frame: u64,
    pub frames: u64,
    pub bytes: u64,
}

/// Spans of one sink, of which a share is kept.
#[derive(Default)]
pub struct Spans {
    /// Absent: nobody asks.
    share: OnceLock<f64>,
    waiting: Mutex<(VecDeque<Span>, u64)>,
}

impl Spans {
    /// Somebody asks for this share from now on.
    fn ask(&self, share: f64) {
        let _ = self.share.set(share); // the first one stays
    }

    /// Notes a span, if somebody asks and its frame is of the share: which one is depends on its number alone.
    pub fn note(&self, span: Span) {
        let Some(share) = self.share.get() else { return };
        let dice = span.frame.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
        if (dice as f64) >= share * (1u64 << 53) as f64 {
            return;
        }
        let mut waiting = lock(&self.waiting);
        if waiting.0.len() >= SPANS_MAX {
            waiting.0.pop_front();
            waiting.1 += 1;
        }
        waiting.0.push_back(span);
    }

    fn take(&self) -> Vec<Span> {
        lock(&self.waiting).0.drain(..).collect()
    }
}

/// A push at work.
pub struct Push {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Push {
    pub fn start(config: &TelemetryConfig, vitals: Arc<Vitals>) -> anyhow::Result<Push> {
        if config.spans.get() > 0.0 {
            vitals.sinks.iter().for_each(|(.., signals)| signals.spans.ask(config.spans.get()));
        }
        let ends = Arc::<AtomicBool>::default();
        let (config, over) = (config.clone(), Arc::clone(&ends));
        let thread = super::spawn("telemetry", move || run(&config, &vitals, &over))?;
        Ok(Push { ends, thread })
    }

    /// Pushes once more, so that the last numbers arrive.
    pub fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let _ = self.thread.join(); // its panic was told
    }
}

fn run(config: &TelemetryConfig, vitals: &Vitals, ends: &AtomicBool) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).max_redirects(0).proxy(None);
    let agent = ureq::Agent::from(agent.user_agent(concat!("weir/", env!("CARGO_PKG_VERSION"))).build());
    let url = config.otlp.trim().trim_end_matches('/').to_string();
    info!(url, "own telemetry is pushed");
    let labels = vec![("service".to_string(), config.service.clone())];
    let mut scraper = Scraper::new(Target { labels, ..Target::default() });
    let mut failed = false;
    loop {
        let due = Instant::now() + config.interval.duration();
        while Instant::now() < due && !ends.load(Ordering::Relaxed) {
            std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        }
        let last = ends.load(Ordering::Relaxed);
        let pushed = push(&agent, &url, &mut scraper, vitals, &config.service);
        if let (Err(error), false) = (&pushed, failed) {
            warn!(url, "cannot push telemetry: {error:#}");
        }
        failed = pushed.is_err();
        if last {
            return;
        }
    }
}

fn push(agent: &ureq::Agent, url: &str, scraper: &mut Scraper, vitals: &Vitals, service: &str) -> anyhow::Result<()> {
    let now = UnixNanos(env::now().0 / 1_000_000 * 1_000_000);
    let body = metrics_request(scraper, &metrics::render(vitals), now)?;
    post(agent, &format!("{url}{}", http_path(Signal::Metrics)), &body)?;
    if let Some(body) = spans_request(vitals, service) {
        post(agent, &format!("{url}{}", http_path(Signal::Traces)), &body)?;
    }
    Ok(())
}

fn post(agent: &ureq::Agent, url: &str, body: &[u8]) -> anyhow::Result<()> {
    let answer = agent.post(url).header("content-type", Encoding::Protobuf.content_type()).send(body)?;
    anyhow::ensure!(answer.status().is_success(), "{url} answers {}", answer.status());
    Ok(())
}

fn options() -> WriteOptions {
    WriteOptions { resource: vec![("service".to_string(), "service.name".to_string())], ..WriteOptions::default() }
}

/// The page as a request of OTLP.
fn metrics_request(scraper: &mut Scraper, page: &str, now: UnixNanos) -> anyhow::Result<Vec<u8>> {
    let mut lines = Vec::new();
    scraper.scrape(Format::Text, page.as_bytes(), now, &mut lines)?;
    let mut writer = Writer::new(Signal::Metrics, options());
    for line in lines.split_inclusive(|b| *b == b'\n') {
        writer.push(line).map_err(|reason| anyhow::anyhow!("a metric of our own cannot be written: {}", reason.rule()))?;
    }
    Ok(writer.finish(Encoding::Protobuf))
}

/// What sinks delivered since the last push.
fn spans_request(vitals: &Vitals, service: &str) -> Option<Vec<u8>> {
    let mut writer = Writer::new(Signal::Traces, options());
    for (pipeline, sink, signals) in &vitals.sinks {
        for span in signals.spans.take() {
            let _ = writer.push(&span_line(pipeline, sink, &span, service)); // made by us: it is a span
        }
    }
    (writer.items() > 0).then(|| writer.finish(Encoding::Protobuf))
}

fn span_line(pipeline: &str, sink: &str, span: &Span, service: &str) -> Vec<u8> {
    let id = flow::step::sample::key_hash(format!("{pipeline}\0{sink}\0{}\0{}", span.frame, span.begun.0).as_bytes()).max(1);
    let mut line = format!(
        "{{\"timestamp\":\"{}\",\"end\":\"{}\",\"trace_id\":\"{:016x}{id:016x}\",\"span_id\":\"{id:016x}\",\"name\":\"deliver\",\"kind\":\"internal\",\"service\":",
        span.begun.rfc3339(),
        span.ended.rfc3339(),
        span.frame.max(1),
    )
    .into_bytes();
    put_text(&mut line, service.as_bytes());
    line.extend_from_slice(b",\"attributes\":{\"weir.pipeline\":");
    put_text(&mut line, pipeline.as_bytes());
    line.extend_from_slice(b",\"weir.sink\":");
    put_text(&mut line, sink.as_bytes());
    let counts = format!(",\"weir.frame\":{},\"weir.frames\":{},\"weir.bytes\":{}}}}}\n", span.frame, span.frames, span.bytes);
    line.extend_from_slice(counts.as_bytes());
    line
}

/// Spans that went by unsent, of a sink.
pub fn lost(signals: &SinkSignals) -> u64 {
    lock(&signals.spans.waiting).1
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_764_291_723_000_000_000;

    /// Every number of the page is in the request: a counter as a sum, a gauge as one.
    #[test]
    fn a_push_says_what_the_page_says() {
        let page =
            "# TYPE weir_a_total counter\nweir_a_total{tenant=\"x\"} 7\nweir_a_total{tenant=\"y\"} 9\n# TYPE weir_b gauge\nweir_b 2.5\n";
        let mut scraper = Scraper::new(Target { labels: vec![("service".into(), "weir".into())], ..Target::default() });
        let now = UnixNanos(NOW);
        let body = metrics_request(&mut scraper, page, now).unwrap();
        let mut lines = Vec::new();
        let accepted =
            telemetry::otlp::read(Signal::Metrics, Encoding::Protobuf, &body, &telemetry::otlp::Options::default(), &mut lines).unwrap();
        assert_eq!((accepted.items, accepted.rejected.len()), (3, 0));
        let text = String::from_utf8(lines).unwrap();
        for part in
            ["\"weir_a_total\"", "\"value\":7.0", "\"value\":9.0", "\"value\":2.5", "\"service.name\":\"weir\"", "\"monotonic\":true"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn spans_are_a_share_of_frames_and_few_wait() {
        let spans = Spans::default();
        let span = |frame| Span { begun: UnixNanos(NOW), ended: UnixNanos(NOW + 1000), frame, frames: 1, bytes: 10 };
        (1..100).for_each(|frame| spans.note(span(frame)));
        assert!(spans.take().is_empty(), "nobody asks");
        spans.ask(0.25);
        (1..=800).for_each(|frame| spans.note(span(frame)));
        let kept = spans.take().len();
        assert!((150..=250).contains(&kept), "{kept}");
        (1..=10_000).for_each(|frame| spans.note(span(frame)));
        assert_eq!(spans.take().len(), SPANS_MAX);
        let line = String::from_utf8(span_line("p", "s", &span(7), "weir")).unwrap();
        let mut writer = Writer::new(Signal::Traces, options());
        writer.push(line.as_bytes()).unwrap();
        assert_eq!(writer.items(), 1, "{line}");
    }
}
