//! What only makes sense together in what speaks over the network: addresses, tokens, urls, limits.
//!
//! In: the config of a source or a sink; out: mistakes at their line and column. Closed by default (DESIGN D14): whoever is not on
//! this machine needs a token, or an address that is allowed.

use super::super::locate::Path;
use super::super::model::{HubConfig, TelemetryConfig};
use super::{KIB, MIB, Rules};
use crate::sinks::config::{HttpBody, HttpConfig as HttpSink, OtlpProtocol, PrometheusSink};
use crate::sinks::http::{fields_of, pieces};
use crate::sources::config::{
    Ack, HttpConfig, OtlpConfig, RelabelConfig, RemoteWriteConfig, ScrapeConfig, SeriesConfig, SourceConfig, SyslogConfig,
    TenantHeaderConfig, WatchConfig,
};
use crate::sources::syslog::Range;
use flow::tenancy::TENANT_BYTES_MAX;
use flow::units::NANOS_PER_SECOND;
use std::net::SocketAddr;
use telemetry::trace_context::{TRACEPARENT, TRACESTATE};

const CONNECTIONS_MAX: u32 = 100_000;
const HEADER_TENANTS_MAX: usize = 1000;
const TOKENS_HELP: &str = "give senders `tokens`, or listen on 127.0.0.1";

/// A host, a name or an address, and a port.
fn is_target(target: &str) -> bool {
    let Some((host, port)) = target.rsplit_once(':') else { return false };
    !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) && !host.contains(['/', ' ', '@', '?', '#'])
}

fn is_label(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.as_bytes()[0].is_ascii_digit()
}

impl Rules<'_> {
    pub(super) fn http_source(&mut self, at: &Path, http: &HttpConfig, source: &SourceConfig, hub: &HubConfig) {
        self.listen(&at.key("listen"), &http.listen, "8080", !http.tokens.is_empty(), TOKENS_HELP);
        for (i, path) in http.paths.iter().enumerate() {
            if !path.starts_with('/') || path.len() > 256 || path.contains(['?', '#', ' ']) {
                self.at(
                    &at.key("paths").index(i),
                    format!("{path:?} is no path; a path begins with a slash and holds no query; write /logs"),
                );
            }
        }
        self.answering(at, source, hub);
        self.size(&at.key("line_bytes_max"), http.line_bytes_max, KIB, 64 * MIB);
        if let Some(field) = &http.index_field {
            self.field(&at.key("index_field"), field);
        }
        if matches!(hub, HubConfig::Memory(_)) && http.usage {
            let rule = "a memory hub loses what it holds in a crash, and an event of usage that was answered is not sent again";
            self.at(&at.key("usage"), format!("does not go with hub.memory; {rule}; use hub.journal"));
        }
    }

    pub(super) fn otlp_source(&mut self, at: &Path, otlp: &OtlpConfig, source: &SourceConfig, hub: &HubConfig) {
        if otlp.grpc.is_empty() && otlp.http.is_empty() && !self.damaged(at) {
            self.at_key(at, "it listens nowhere; requests come by `grpc`, `http` or both; write grpc: 127.0.0.1:4317");
        }
        for (key, listen, port) in [("grpc", &otlp.grpc, "4317"), ("http", &otlp.http, "4318")] {
            if !listen.is_empty() {
                self.listen(&at.key(key), listen, port, !otlp.tokens.is_empty(), TOKENS_HELP);
            }
        }
        self.answering(at, source, hub);
    }

    pub(super) fn remote_write_source(&mut self, at: &Path, remote: &RemoteWriteConfig, source: &SourceConfig, hub: &HubConfig) {
        self.listen(&at.key("listen"), &remote.listen, "9201", !remote.tokens.is_empty(), TOKENS_HELP);
        self.url_path(&at.key("path"), &remote.path, "/api/v1/write");
        self.series(&at.key("series"), remote.series.as_ref());
        self.answering(at, source, hub);
    }

    pub(super) fn scrape(&mut self, at: &Path, scrape: &ScrapeConfig) {
        if scrape.targets.is_empty() && scrape.files.is_empty() && !self.damaged(at) {
            self.at_key(at, "it has nobody to ask; targets stand in `targets`, or in `files`; write targets: [\"127.0.0.1:9100\"]");
        }
        for (i, target) in scrape.targets.iter().enumerate() {
            if !is_target(target) {
                let rule = "a target is a host and a port, without scheme and path";
                self.at(&at.key("targets").index(i), format!("{target:?} is no target; {rule}; write 127.0.0.1:9100"));
            }
        }
        for (key, labels) in [("target_labels", &scrape.target_labels)] {
            for name in labels.keys().filter(|name| !is_label(name)) {
                let rule = "a label is letters, digits and _, no digit first";
                self.at_key(&at.key(key).key(name), format!("{name:?} is no label; {rule}; write service"));
            }
        }
        self.url_path(&at.key("path"), &scrape.path, "/metrics");
        self.span(&at.key("interval"), scrape.interval, NANOS_PER_SECOND, 3600 * NANOS_PER_SECOND);
        self.span(&at.key("timeout"), scrape.timeout, NANOS_PER_SECOND / 10, scrape.interval.0.max(NANOS_PER_SECOND / 10));
        self.connections(&at.key("target_limit"), scrape.target_limit);
        self.size(&at.key("body_bytes_max"), scrape.body_bytes_max, 4 * KIB, 256 * MIB);
        self.size(&at.key("buffer_bytes_max"), scrape.buffer_bytes_max, scrape.body_bytes_max.0.saturating_mul(2), u64::MAX);
        self.series(&at.key("series"), scrape.series.as_ref());
        for (key, rules) in [("relabel", &scrape.relabel), ("metric_relabel", &scrape.metric_relabel)] {
            for (i, rule) in rules.iter().enumerate() {
                self.relabel(&at.key(key).index(i), rule);
            }
        }
    }

    pub(super) fn watch(&mut self, at: &Path, watch: &WatchConfig) {
        if watch.rules.is_empty() && !self.damaged(at) {
            self.at_key(at, "it watches nothing; a rule has a name and `missing_from` or `absent`; write rules: { down: { absent: up } }");
        }
        for (name, rule) in &watch.rules {
            let at = at.key("rules").key(name);
            self.span(&at.key("interval"), rule.interval, NANOS_PER_SECOND, 86_400 * NANOS_PER_SECOND);
            if !(1..=100).contains(&rule.within) {
                self.at(&at.key("within"), format!("is {}; it must be from 1 to 100; write 2", rule.within));
            }
            if !(1..=1_000_000).contains(&rule.members_max) {
                self.at(&at.key("members_max"), format!("is {}; it must be from 1 to 1000000; write 10000", rule.members_max));
            }
            if let Err(what) = crate::sources::alerts::rule(name, rule)
                && !self.damaged(&at)
            {
                self.at(&at, format!("is no rule: {what}"));
            }
        }
    }

    fn series(&mut self, at: &Path, series: Option<&SeriesConfig>) {
        let Some(series) = series else { return };
        for (key, n) in [("per_metric", series.per_metric), ("per_tenant", series.per_tenant), ("total", series.total)] {
            if !(1..=10_000_000).contains(&n) {
                self.at(&at.key(key), format!("is {n}; it must be from 1 to 10000000; write 100000"));
            }
        }
        self.span(&at.key("expire_after"), series.expire_after, 60 * NANOS_PER_SECOND, 7 * 86_400 * NANOS_PER_SECOND);
    }

    fn relabel(&mut self, at: &Path, rule: &RelabelConfig) {
        if let Err(what) = crate::sources::scrape::rule(rule)
            && !self.damaged(at)
        {
            self.at(at, format!("is no rule: {what}; rules are those of Prometheus' relabel_configs"));
        }
    }

    fn url_path(&mut self, at: &Path, path: &str, example: &str) {
        if !path.starts_with('/') || path.len() > 1024 || path.contains(['#', ' ']) {
            self.at(at, format!("{path:?} is no path; a path begins with a slash; write {example}"));
        }
    }

    /// What sources have in common whose senders wait for an answer.
    fn answering(&mut self, at: &Path, source: &SourceConfig, hub: &HubConfig) {
        let Some(answering) = source.answering() else { return };
        for (i, token) in answering.tokens.iter().enumerate() {
            let at = at.key("tokens").index(i);
            if token.token_file.is_some() == token.token_env.is_some() && !self.damaged(&at) {
                let rule = "a token comes from one place, and never stands here";
                self.at(&at, format!("it names no token, or two; {rule}; write token_env: WEIR_TOKEN"));
            }
            if token.tenant.trim().is_empty() || token.tenant.len() > TENANT_BYTES_MAX {
                let rule = format!("somebody pays for what is sent with a token, in 1 to {TENANT_BYTES_MAX} bytes");
                self.at(&at.key("tenant"), format!("is no tenant; {rule}; write its name"));
            }
        }
        if let Some(header) = answering.tenant_header {
            self.tenant_header(&at.key("tenant_header"), header);
        }
        self.size(&at.key("body_bytes_max"), answering.body_bytes_max, 4 * KIB, 256 * MIB);
        self.size(&at.key("buffer_bytes_max"), answering.buffer_bytes_max, answering.body_bytes_max.0.saturating_mul(2), u64::MAX);
        self.span(&at.key("timeout"), answering.timeout, NANOS_PER_SECOND, 600 * NANOS_PER_SECOND);
        self.connections(&at.key("connections_max"), answering.connections_max);
        if matches!(hub, HubConfig::Memory(_)) && answering.ack != Ack::OnReceipt && !self.damaged(at) {
            let rule = "a memory hub loses what it holds in a crash, and an answer says that records are kept";
            let help = "write `ack: on_receipt` to accept that, or use hub.journal";
            self.at_key(at, format!("this source does not go with hub.memory; {rule}; {help}"));
        }
    }

    fn tenant_header(&mut self, at: &Path, header: &TenantHeaderConfig) {
        let is_name = !header.name.is_empty() && header.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !is_name && !self.damaged(at) {
            self.at(&at.key("name"), format!("{:?} is no header; its name is letters, digits and -; write X-Scope-OrgID", header.name));
        }
        if !(1..=HEADER_TENANTS_MAX).contains(&header.allow.len()) && !self.damaged(at) {
            let rule = format!("tenants that a header may name are listed, 1 to {HEADER_TENANTS_MAX}");
            self.at(&at.key("allow"), format!("names {} tenants; {rule}; write allow: [team-a]", header.allow.len()));
        }
        let named = header.allow.iter().enumerate().map(|(i, tenant)| (at.key("allow").index(i), tenant));
        for (at, tenant) in named.chain([(at.key("overflow"), &header.overflow)]) {
            if flow::labels::clean(tenant.as_bytes(), TENANT_BYTES_MAX) != Ok(tenant) || tenant.is_empty() {
                let rule = format!("a tenant is 1 to {TENANT_BYTES_MAX} bytes that can be printed, without blanks around them");
                self.at(&at, format!("{tenant:?} is no tenant; {rule}; write its name"));
            }
        }
    }

    pub(super) fn syslog(&mut self, at: &Path, syslog: &SyslogConfig) {
        if syslog.udp.is_none() && syslog.tcp.is_none() && !self.damaged(at) {
            self.at_key(at, "it listens nowhere; messages come by `udp`, `tcp` or both; write udp: 127.0.0.1:5514");
        }
        let way_out = "name the addresses in `allow`, or listen on 127.0.0.1";
        for (key, listen) in [("udp", &syslog.udp), ("tcp", &syslog.tcp)] {
            if let Some(listen) = listen {
                self.listen(&at.key(key), listen, "5514", !syslog.allow.is_empty(), way_out);
            }
        }
        for (i, range) in syslog.allow.iter().enumerate() {
            if Range::parse(range).is_none() {
                let rule = "addresses are one, or all that begin alike";
                self.at(&at.key("allow").index(i), format!("{range:?} is no range of addresses; {rule}; write 10.0.0.0/8"));
            }
        }
        self.size(&at.key("message_bytes_max"), syslog.message_bytes_max, KIB, MIB);
        self.size(&at.key("buffer_bytes_max"), syslog.buffer_bytes_max, MIB, u64::MAX);
        self.connections(&at.key("connections_max"), syslog.connections_max);
    }

    /// An address others may reach is `guarded`, or refused.
    fn listen(&mut self, at: &Path, listen: &str, port: &str, guarded: bool, way_out: &str) {
        match listen.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() || guarded => {}
            Ok(address) => {
                let rule = "whoever reaches it could send in anybody's name";
                self.at(at, format!("{} can be reached from elsewhere; {rule}; {way_out}:{}", address.ip(), address.port()));
            }
            Err(_) => self.at(at, format!("{listen:?} is no address; an address is an IP and a port; write 127.0.0.1:{port}")),
        }
    }

    fn connections(&mut self, at: &Path, connections: u32) {
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            self.at(at, format!("is {connections}; it must be from 1 to {CONNECTIONS_MAX}; write 1000"));
        }
    }

    pub(super) fn http_sink(&mut self, at: &Path, http: &HttpSink) {
        self.url(&at.key("url"), &http.url);
        let has_path = http.url.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains('/'));
        if http.body == HttpBody::Otlp(OtlpProtocol::Grpc) && has_path {
            let rule = "gRPC names its methods itself";
            self.at(&at.key("url"), format!("{:?} has a path; {rule}; write http://127.0.0.1:4317", http.url));
        }
        if http.body == HttpBody::Bulk {
            self.pattern_of(&at.key("index"), &http.index);
        }
        for (name, text) in http.labels.iter().filter(|_| http.body == HttpBody::Loki) {
            let at = at.key("labels").key(name);
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') || name.as_bytes()[0].is_ascii_digit() {
                self.at_key(&at, format!("{name:?} is no label of Loki; a label is letters, digits and _, no digit first; write service"));
            }
            self.pattern_of(&at, text);
        }
        if http.body == HttpBody::Loki && http.labels.is_empty() && !self.damaged(at) {
            self.at(&at.key("labels"), "is empty; Loki takes no stream without a label; write { job: weir }");
        }
        for field in http_fields(http) {
            self.ask(&field);
        }
        for (name, value) in &http.headers {
            let at = at.key("headers").key(name);
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !is_name || !value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                let message =
                    "is no header; its name is letters, digits and -, its value what can be printed in ASCII; write X-Scope-OrgID: team";
                self.at_key(&at, message);
            }
            let own = [
                "authorization",
                "content-type",
                "content-encoding",
                "content-length",
                "idempotency-key",
                "host",
                "te",
                "grpc-timeout",
                "grpc-encoding",
            ];
            let lower = name.to_ascii_lowercase();
            if own.contains(&lower.as_str()) || (http.trace_context && [TRACEPARENT, TRACESTATE].contains(&lower.as_str())) {
                let rule = "weir writes this header itself, and a secret never stands in a config";
                self.at_key(&at, format!("{name} is written twice; {rule}; for a token use `auth`, else leave it out"));
            }
        }
        if let Some(auth) = &http.auth
            && auth.token_file.is_some() == auth.token_env.is_some()
            && !self.damaged(&at.key("auth"))
        {
            let rule = "a secret comes from one place, and never stands here";
            self.at_key(&at.key("auth"), format!("it names no secret, or two; {rule}; write token_env: WEIR_SINK_TOKEN"));
        }
        let batch = at.key("batch");
        self.size(&batch.key("bytes"), http.batch.bytes, 4 * KIB, 64 * MIB);
        self.span(&batch.key("age"), http.batch.age, 1_000_000, 3_600 * NANOS_PER_SECOND);
        if !(1..=100_000).contains(&http.batch.records) {
            self.at(&batch.key("records"), format!("is {}; it must be from 1 to 100000; write 10000", http.batch.records));
        }
        self.span(&at.key("timeout"), http.timeout, 100_000_000, 600 * NANOS_PER_SECOND);
        let retry = at.key("retry");
        for (i, status) in http.retry.statuses.iter().enumerate() {
            if !(400..=499).contains(status) {
                let rule = "of statuses only 400 to 499 are for good, so only these are named";
                self.at(&retry.key("statuses").index(i), format!("is {status}; {rule}; leave it out"));
            }
        }
        self.span(&retry.key("pause_min"), http.retry.pause_min, 1_000_000, 60 * NANOS_PER_SECOND);
        self.span(&retry.key("pause_max"), http.retry.pause_max, http.retry.pause_min.0.max(10_000_000), 3_600 * NANOS_PER_SECOND);
        self.size(&at.key("dead_letters").key("bytes_max"), http.dead_letters.bytes_max, 64 * KIB, u64::MAX);
    }

    pub(super) fn telemetry(&mut self, at: &Path, telemetry: &TelemetryConfig) {
        self.url(&at.key("otlp"), &telemetry.otlp);
        self.span(&at.key("interval"), telemetry.interval, NANOS_PER_SECOND, 3600 * NANOS_PER_SECOND);
    }

    pub(super) fn prometheus_sink(&mut self, at: &Path, sink: &PrometheusSink) {
        self.listen(&at.key("listen"), &sink.listen, "9464", false, "listen on 127.0.0.1, with a proxy in front");
        self.url_path(&at.key("path"), &sink.path, "/metrics");
        if !(1..=10_000_000).contains(&sink.series_max) {
            self.at(&at.key("series_max"), format!("is {}; it must be from 1 to 10000000; write 1000000", sink.series_max));
        }
        self.span(&at.key("age"), sink.age, NANOS_PER_SECOND, 86_400 * NANOS_PER_SECOND);
    }

    fn url(&mut self, at: &Path, url: &str) {
        let help = "write http://127.0.0.1:9200";
        let Some((scheme, rest)) = url.trim().split_once("://") else {
            return self.at(at, format!("{url:?} is no url; a url is http:// and a host; {help}"));
        };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        match scheme {
            "https" => {
                let rule = "TLS is not built, and nothing is sent in the clear that should not be";
                self.at(
                    at,
                    format!(
                        "the url begins with https; {rule}; let a proxy on this machine speak TLS, and write http://127.0.0.1 and its port"
                    ),
                );
            }
            "http" if host.contains('@') => {
                self.at(
                    at,
                    "the url holds a user or a password; a secret never stands in a config; write `auth: { user: .., token_env: .. }`",
                );
            }
            "http" if !host.is_empty() && !url.contains(char::is_whitespace) => {}
            _ => self.at(at, format!("{url:?} is no url; a url is http:// and a host; {help}")),
        }
    }

    fn pattern_of(&mut self, at: &Path, text: &str) {
        match pieces(text) {
            Err(byte) => {
                let message =
                    "this brace does not enclose a field; braces hold `tenant`, `level` or the name of a field; write logs-{tenant}";
                self.note(at, message.into(), |tree, id| tree.spot_inside(id, byte));
            }
            Ok(pieces) if pieces.is_empty() => self.at(at, "is empty; it names something; write logs-{tenant}"),
            Ok(_) => {}
        }
    }
}

/// The fields that a sink reads of a record.
pub fn http_fields(http: &HttpSink) -> Vec<String> {
    let mut fields = match http.body {
        HttpBody::Ndjson | HttpBody::RemoteWrite(_) | HttpBody::Otlp(_) => Vec::new(),
        HttpBody::Bulk => fields_of(&http.index),
        HttpBody::Loki => http.labels.values().flat_map(|text| fields_of(text)).collect(),
    };
    if http.trace_context {
        fields.extend([TRACEPARENT, TRACESTATE].map(str::to_owned));
    }
    fields
}
