//! Fields that are probably misspelt, or gone by the time they are read. Nobody knows all fields of logs, so these are warnings.
//!
//! A field of a step is a stranger if no other place of the file names it, it is no common name of logs, and one slip of the
//! finger leads to a name that is. Short words that differ are different words (`mode`, `model`), as are numbered ones.

use super::{fields_of, http_fields, reads, template_fields};
use crate::config::locate::{Found, Path, Tree};
use crate::config::model::Config;
use crate::config::report::{Mistake, distance, nearest};
use crate::plan::BY_TENANT;
use crate::sinks::config::SinkConfig;
use flow::condition::Expression;
use flow::step::{Policy, SetValue, ShapeConfig, StepConfig};
use std::collections::BTreeSet;

/// Common names, so that none of them is taken for another one misspelt.
const COMMON: &str = "\
    action actor addr address agent annotations api app application args attempt attempts attributes auth backend batch body body_hash \
    branch bucket build bytes bytes_in bytes_out cached caller category channel class client client_ip cluster code codes command commit \
    component config connection container container_id content content_length content_type context cost count customer data database \
    date day db debug delay deployment description dest destination detail details device direction domain dst dur duration \
    duration_ms elapsed email endpoint env environment err error errors event event_id exception exit facility feature field fields file \
    files finish_reason flags format func function game gpu group groups handler hash header headers host hostname hosts hour http \
    http.method http.route http.status_code id idempotency_key image index input instance ip job key kind label labels lane language \
    latency latency_ms length level line lines list location log log.level logger logs machine mail message metadata method metric mode \
    model models module month msg name namespace network node nodes number object offset op operation order org organization origin \
    output owner page param params parent parent_id part parts partition password path paths payload peer pid pod pod_name port post \
    postcode price priority process product profile program project protocol provider proxy query queue rate reason record records \
    referer referrer region release remote remote_addr replica repo request request_id request_ip requests resource response \
    response_time result retries retry role root route routes rule sample sample_rate sampler scheme scope score search seconds section \
    sequence server service service.name services session session_id severity shard shop signal site size source span span.id span_id \
    src stack stack_trace stacktrace stage start state status status_code step store stream string subject system tag tags target task \
    team template tenant test text thread thread_name throttle tier time timeout timestamp title token tokens tokens_cached tokens_in \
    tokens_out topic total trace trace.id trace_id traceparent transaction ts type unit uri url user user.email user.id user.name \
    user_agent user_id username users value values verb version version_id view volume wait warning week weight window worker zone \
    @timestamp @version";

/// One place that names a field.
struct Mention {
    field: String,
    at: Path,
    /// It stands within a text, and here.
    byte: Option<usize>,
    /// A step reads it: it may be a stranger.
    is_read: bool,
}

/// What looks like a slip in a config without mistakes.
pub fn warnings(config: &Config, tree: &Tree) -> Vec<Mistake> {
    let mentions = mentions(config);
    let mut found = Vec::new();
    for mention in mentions.iter().filter(|mention| mention.is_read) {
        let others = || mentions.iter().filter(|other| other.at != mention.at).map(|other| other.field.as_str());
        let within = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let field = mention.field.as_str();
        let is_known =
            others().any(|other| within(other, field) || within(field, other)) || is_common(field) || field.starts_with("kubernetes.");
        let meant = others().chain(COMMON.split_whitespace()).find(|known| !is_known && is_slip(field, known));
        if let Some(meant) = meant {
            let rule = "nothing else in this file names it, and no record may have it";
            let message = format!("`{field}` looks misspelt; {rule}; did you mean `{meant}`?");
            found.extend(warning(tree, mention, &message));
        }
    }
    gone(config, &mentions, tree, &mut found);
    found.sort_by_key(|warning| (warning.line, warning.column));
    found.dedup();
    found
}

/// Fields that steps read and no record of a sample has. `names`: the paths of all members that they have.
pub fn unseen(config: &Config, tree: &Tree, names: &BTreeSet<String>) -> Vec<Mistake> {
    let mut found = Vec::new();
    for mention in mentions(config).iter().filter(|mention| mention.is_read && !names.contains(&mention.field)) {
        let message = match nearest(&mention.field, names.iter().map(String::as_str)) {
            Some(near) => format!("no record of the sample has `{}`; did you mean `{near}`?", mention.field),
            None => format!("no record of the sample has `{}`", mention.field),
        };
        found.extend(warning(tree, mention, &message));
    }
    found.sort_by_key(|warning| (warning.line, warning.column));
    found.dedup();
    found
}

fn warning(tree: &Tree, mention: &Mention, message: &str) -> Option<Mistake> {
    let Found::Node(id) = tree.find(&mention.at) else { return None };
    let spot = mention.byte.map_or_else(|| tree.spot(id), |byte| tree.spot_inside(id, byte));
    Some(tree.mistake(spot, mention.at.to_string(), message))
}

/// Steps that read what a `shape` step before them took away.
fn gone(config: &Config, mentions: &[Mention], tree: &Tree, found: &mut Vec<Mistake>) {
    for (i, step) in config.steps.iter().enumerate() {
        let StepConfig::Shape(shape) = step else { continue };
        for (n, later) in config.steps.iter().enumerate().skip(i + 1) {
            let at = Path::default().key("steps").index(n).to_string();
            let of_step = |mention: &&Mention| mention.at.to_string().strip_prefix(&at).is_some_and(|rest| rest.starts_with('.'));
            for field in reads(later) {
                let Some(why) = takes_away(shape, &field).filter(|_| !makes(&config.steps[i + 1..n], &field)) else { continue };
                let Some(mention) = mentions.iter().filter(of_step).find(|mention| mention.field == field) else { continue };
                let rule = "a step reads records as the steps before it left them";
                found.extend(warning(tree, mention, &format!("steps[{i}] {why}; {rule}; move this step before steps[{i}]")));
            }
        }
    }
}

fn takes_away(shape: &ShapeConfig, field: &str) -> Option<String> {
    let within = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let is_made = shape.set.contains_key(field) || shape.rename.values().any(|to| to == field);
    match shape.rename.get(field) {
        _ if is_made => None,
        Some(to) => Some(format!("renames `{field}` to `{to}`")),
        None if shape.remove.iter().any(|gone| within(field, gone)) => Some(format!("removes `{field}`")),
        None if !shape.keep.is_empty() && !shape.keep.iter().any(|kept| within(field, kept) || within(kept, field)) => {
            Some(format!("does not keep `{field}`"))
        }
        None => None,
    }
}

fn makes(steps: &[StepConfig], field: &str) -> bool {
    steps.iter().any(|step| {
        let StepConfig::Shape(shape) = step else { return false };
        shape.set.contains_key(field) || shape.rename.values().any(|to| to == field)
    })
}

fn mentions(config: &Config) -> Vec<Mention> {
    let mut all = Vec::new();
    let root = Path::default();
    let mut name = |fields: &[String], at: &Path| {
        all.extend(fields.iter().enumerate().map(|(i, field)| Mention {
            field: field.clone(),
            at: at.index(i),
            byte: None,
            is_read: false,
        }));
    };
    name(&config.tenancy.from, &root.key("tenancy").key("from"));
    let fields = root.key("fields");
    for (key, list) in [("time", &config.fields.time), ("level", &config.fields.level), ("message", &config.fields.message)] {
        name(list, &fields.key(key));
    }
    for (label, from) in config.request_labels.iter().map(|(label, config)| (label, &config.from)) {
        name(from, &root.key("request_labels").key(label).key("from"));
    }
    for (sink, sink_config) in &config.sinks {
        let at = root.key("sinks").key(sink).key(sink_config.kind());
        match sink_config {
            SinkConfig::Archive(archive) => {
                let fields = template_fields(&archive.path).unwrap_or_default();
                name(&fields.into_iter().map(str::to_string).collect::<Vec<_>>(), &at.key("path"));
            }
            SinkConfig::Lake(lake) => {
                for (key, list) in [("index", &lake.index), ("text", &lake.text), ("ids", &lake.ids)] {
                    name(list, &at.key(key));
                }
            }
            SinkConfig::Stdout(_) | SinkConfig::Blackhole(_) => {}
            SinkConfig::Http(http) => name(&http_fields(http), &at),
            SinkConfig::RemoteWrite(_) | SinkConfig::Otlp(_) | SinkConfig::Prometheus(_) => {}
        }
    }
    if let Some(block) = &config.lineage {
        name(&[block.service.clone(), block.model.clone()], &root.key("lineage"));
    }
    for (i, step) in config.steps.iter().enumerate() {
        of_step(step, &root.key("steps").index(i), &mut all);
    }
    for (sink, sink_config) in &config.sinks {
        let at = root.key("sinks").key(sink).key(sink_config.kind()).key("when");
        all.extend(sink_config.when().into_iter().flat_map(|when| within_text(fields_of(when), when, &at)));
    }
    all
}

fn of_step(step: &StepConfig, at: &Path, all: &mut Vec<Mention>) {
    let read = |field: &str, at: Path| Mention { field: field.to_string(), at, byte: None, is_read: true };
    let list = |fields: &[String], at: &Path| fields.iter().enumerate().map(|(i, field)| read(field, at.index(i))).collect::<Vec<_>>();
    let condition = |text: &str, at: Path| within_text(fields_of(text), text, &at);
    match step {
        StepConfig::Drop(filter) => all.extend(condition(&filter.when, at.key("drop").key("when"))),
        StepConfig::Keep(filter) => all.extend(condition(&filter.when, at.key("keep").key("when"))),
        StepConfig::Meter(meter) => {
            let at = at.key("meter");
            all.extend(meter.quantity.iter().map(|field| read(field, at.key("quantity"))));
            all.extend(meter.part_of.iter().map(|field| read(field, at.key("part_of"))));
            for (key, field) in [("start", &meter.start), ("end", &meter.end), ("duration", &meter.duration)] {
                all.extend(field.iter().map(|field| read(field, at.key(key))));
            }
            all.extend(list(&meter.by, &at.key("by")));
            all.extend(list(&meter.key, &at.key("key")));
            all.extend(meter.when.iter().flat_map(|when| condition(when, at.key("when"))));
        }
        StepConfig::Sample(sample) => {
            let at = at.key("sample");
            let levels = sample.levels.entries().into_iter().filter_map(|(level, policy)| Some((at.key("levels").key(level), policy?)));
            for (at, policy) in levels.chain([(at.key("other"), &sample.other)]) {
                match policy {
                    Policy::When { when, .. } => all.extend(condition(when, at.key("when"))),
                    Policy::Ratio { key: Some(key), .. } => all.push(read(key, at.key("key"))),
                    Policy::First { by, .. } | Policy::Dynamic { by, .. } => all.extend(list(by, &at.key("by"))),
                    _ => {}
                }
            }
        }
        StepConfig::Quota(quota) => all.extend((quota.by != BY_TENANT).then(|| read(&quota.by, at.key("quota").key("by")))),
        StepConfig::Dedup(dedup) => {
            let at = at.key("dedup");
            let (request, of) = (&dedup.request, at.key("request"));
            for (at, fields) in [
                (at.key("key"), &dedup.key),
                (of.key("host"), &request.host),
                (of.key("method"), &request.method),
                (of.key("path"), &request.path),
                (of.key("body"), &request.body),
                (of.key("idempotency"), &request.idempotency),
            ] {
                all.extend(list(fields, &at));
            }
            all.extend(dedup.content.iter().flat_map(|content| list(content, &at.key("content"))));
            all.extend(dedup.mirror.marker.iter().map(|field| read(field, at.key("mirror").key("marker"))));
        }
        StepConfig::Tail(tail) => {
            let at = at.key("tail");
            all.extend(list(&tail.key, &at.key("key")));
            all.extend(condition(&tail.keep, at.key("keep")));
        }
        StepConfig::Redact(redact) => all.extend(list(&redact.fields, &at.key("redact").key("fields"))),
        StepConfig::Shape(shape) => of_shape(shape, &at.key("shape"), all),
    }
}

fn of_shape(shape: &ShapeConfig, at: &Path, all: &mut Vec<Mention>) {
    let read = |field: &str, at: Path| Mention { field: field.to_string(), at, byte: None, is_read: true };
    let made = |field: &str, at: Path| Mention { field: field.to_string(), at, byte: None, is_read: false };
    let cut = shape.truncate.iter().map(|truncate| (&truncate.fields, at.key("truncate").key("fields")));
    for (fields, at) in [(&shape.keep, at.key("keep")), (&shape.remove, at.key("remove"))].into_iter().chain(cut) {
        all.extend(fields.iter().enumerate().map(|(i, field)| read(field, at.index(i))));
    }
    for (from, to) in &shape.rename {
        let at = at.key("rename").key(from);
        // The place is that of the new name: the old one is its key.
        all.push(read(from, at.clone()));
        all.push(made(to, at));
    }
    for (name, value) in &shape.set {
        let at = at.key("set").key(name);
        all.push(made(name, at.clone()));
        match value {
            SetValue::Text(_) | SetValue::Label(_) => {}
            SetValue::Field(field) => all.push(read(&field.0, at.key("field"))),
            SetValue::Expr(text) => {
                let mut fields = Vec::new();
                let _ = Expression::parse(&text.0, &mut |field: &str| {
                    fields.push(field.to_string());
                    0
                });
                all.extend(within_text(fields, &text.0, &at.key("expr")));
            }
        }
    }
}

/// Fields of a condition or expression, each where it stands first.
fn within_text(fields: Vec<String>, text: &str, at: &Path) -> Vec<Mention> {
    let place = |field: &str| text.find(field).or_else(|| text.find(field.rsplit('.').next()?)).unwrap_or(0);
    fields.into_iter().map(|field| Mention { byte: Some(place(&field)), field, at: at.clone(), is_read: true }).collect()
}

fn is_common(field: &str) -> bool {
    COMMON.split_whitespace().any(|common| common.eq_ignore_ascii_case(field))
}

/// Whether one slip of the finger makes `field` of `known`.
fn is_slip(field: &str, known: &str) -> bool {
    if field == known {
        return false;
    }
    let (own, others) = (words(field), words(known));
    if own.concat() == others.concat() {
        return true; // only case and separators differ
    }
    if own.len() != others.len() {
        return false;
    }
    let mut differ = own.iter().zip(&others).filter(|(a, b)| a != b);
    match (differ.next(), differ.next()) {
        (Some((a, b)), None) => !is_common(a) && is_near(a, b),
        _ => false,
    }
}

fn is_near(a: &str, b: &str) -> bool {
    let letters = |word: &str| word.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    if letters(a) == letters(b) {
        return false; // numbered
    }
    let (a_count, b_count) = (a.chars().count(), b.chars().count());
    let (short, long) = (a_count.min(b_count), a_count.max(b_count));
    let sorted = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    match distance(a, b) {
        1 if sorted(a) == sorted(b) => long >= 4, // two letters changed places
        1 if short < long => long >= 4,
        1 => long >= 5,
        2 => long >= 8,
        _ => false,
    }
}

/// The words of a name in small letters: `http.statusCode` is three.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for c in name.chars() {
        if matches!(c, '.' | '_' | '-' | '@') || (c.is_uppercase() && was_small) {
            words.push(String::new());
        }
        was_small = c.is_lowercase();
        if !matches!(c, '.' | '_' | '-' | '@') {
            words.last_mut().expect("there is always one").extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_told_from_other_names() {
        for (field, known) in [
            ("stauts", "status"),
            ("statu", "status"),
            ("sstatus", "status"),
            ("sratus", "status"),
            ("levle", "level"),
            ("levl", "level"),
            ("requestId", "request_id"),
            ("request-id", "request_id"),
            ("reqeust_id", "request_id"),
            ("tenat", "tenant"),
            ("user.emial", "user.email"),
            ("sevrice", "service"),
            ("latecny_ms", "latency_ms"),
            ("idempotncy_ky", "idempotency_ky"),
        ] {
            assert!(is_slip(field, known), "{field} {known}");
        }
        for (field, known) in [
            ("status", "status"),
            ("mode", "model"),
            ("host", "post"),
            ("tokens_in", "tokens_out"),
            ("token_in", "tokens_in"), // each a word of its own
            ("request_ip", "request_id"),
            ("user_mode", "user_model"),
            ("shard1", "shard2"),
            ("zone_a", "zone_b"),
            ("bytes_in", "bytes"),
            ("cat", "bat"),
            ("fork", "form"),
            ("banana", "status"),
        ] {
            assert!(!is_slip(field, known), "{field} {known}");
        }
    }
}
