//! What only makes sense together in what speaks over the network: addresses, tokens, urls, limits.
//!
//! In: the config of a source or a sink; out: mistakes at their line and column. Closed by default (DESIGN D14): whoever is not on
//! this machine needs a token, or an address that is allowed.

use super::super::locate::Path;
use super::super::model::HubConfig;
use super::{KIB, MIB, Rules};
use crate::sinks::config::{HttpBody, HttpConfig as HttpSink};
use crate::sinks::http::{fields_of, pieces};
use crate::sources::config::{Ack, HttpConfig, SyslogConfig};
use crate::sources::syslog::Range;
use flow::tenancy::TENANT_BYTES_MAX;
use flow::units::NANOS_PER_SECOND;
use std::net::SocketAddr;

const CONNECTIONS_MAX: u32 = 100_000;

impl Rules<'_> {
    pub(super) fn http_source(&mut self, at: &Path, http: &HttpConfig, hub: &HubConfig) {
        let way_out = "give senders `tokens`, or listen on 127.0.0.1";
        self.listen(&at.key("listen"), &http.listen, "8080", !http.tokens.is_empty(), way_out);
        for (i, path) in http.paths.iter().enumerate() {
            if !path.starts_with('/') || path.len() > 256 || path.contains(['?', '#', ' ']) {
                self.at(
                    &at.key("paths").index(i),
                    format!("{path:?} is no path; a path begins with a slash and holds no query; write /logs"),
                );
            }
        }
        for (i, token) in http.tokens.iter().enumerate() {
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
        self.size(&at.key("body_bytes_max"), http.body_bytes_max, 4 * KIB, 256 * MIB);
        self.size(&at.key("buffer_bytes_max"), http.buffer_bytes_max, http.body_bytes_max.0.saturating_mul(2), u64::MAX);
        self.size(&at.key("line_bytes_max"), http.line_bytes_max, KIB, 64 * MIB);
        self.span(&at.key("timeout"), http.timeout, NANOS_PER_SECOND, 600 * NANOS_PER_SECOND);
        self.connections(&at.key("connections_max"), http.connections_max);
        if let Some(field) = &http.index_field {
            self.field(&at.key("index_field"), field);
        }
        if matches!(hub, HubConfig::Memory(_)) && http.usage {
            let rule = "a memory hub loses what it holds in a crash, and an event of usage that was answered is not sent again";
            self.at(&at.key("usage"), format!("does not go with hub.memory; {rule}; use hub.journal"));
        }
        if matches!(hub, HubConfig::Memory(_)) && http.ack != Ack::OnReceipt && !self.damaged(at) {
            let rule = "a memory hub loses what it holds in a crash, and an answer says that records are kept";
            let help = "write `ack: on_receipt` to accept that, or use hub.journal";
            self.at_key(at, format!("this source does not go with hub.memory; {rule}; {help}"));
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
        if http.body == HttpBody::Bulk {
            self.pattern_of(&at.key("index"), &http.index);
        }
        for (name, text) in &http.labels {
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
            let own = ["authorization", "content-type", "content-encoding", "content-length", "idempotency-key", "host"];
            if own.contains(&name.to_ascii_lowercase().as_str()) {
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
    match http.body {
        HttpBody::Ndjson => Vec::new(),
        HttpBody::Bulk => fields_of(&http.index),
        HttpBody::Loki => http.labels.values().flat_map(|text| fields_of(text)).collect(),
    }
}
