//! What manifests say: workloads with what they declare of their metrics, services, and who scrapes what.
//!
//! In: documents of YAML. Out: a [`World`]. What a document lacks or holds beyond is passed over; another check is Kubernetes' own.

use super::yaml::{Kind as Yaml, Node, Spot};

/// Where something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the list of files.
    pub file: usize,
    pub spot: Spot,
}

/// A value, where it stands, and in what form: "argument `--metrics-path`".
#[derive(Clone, Debug)]
pub struct Said {
    pub value: String,
    pub place: Place,
    pub form: String,
}

pub type Labels<'n> = Vec<(&'n str, &'n str)>;

#[derive(Debug)]
pub struct Port<'n> {
    pub name: Option<&'n str>,
    pub number: Option<u16>,
    /// Of a service: the port of the container.
    pub target: Option<&'n str>,
    pub place: Place,
}

impl Port<'_> {
    pub fn is(&self, name_or_number: &str) -> bool {
        self.name == Some(name_or_number) || (self.number.is_some() && name_or_number.parse() == Ok(self.number.unwrap_or(0)))
    }
}

/// What a workload says of its endpoint of metrics.
#[derive(Debug, Default)]
pub struct Declared {
    pub paths: Vec<Said>,
    pub ports: Vec<Said>,
    pub schemes: Vec<Said>,
    pub required: Vec<Said>,
}

#[derive(Debug)]
pub struct Workload<'n> {
    pub kind: &'n str,
    pub name: &'n str,
    pub namespace: Option<&'n str>,
    pub labels: Labels<'n>,
    pub ports: Vec<Port<'n>>,
    pub declared: Declared,
    pub place: Place,
}

#[derive(Debug)]
pub struct Service<'n> {
    pub name: &'n str,
    pub namespace: Option<&'n str>,
    pub labels: Labels<'n>,
    pub selector: Labels<'n>,
    pub ports: Vec<Port<'n>>,
    pub declared: Declared,
    pub place: Place,
}

#[derive(Debug)]
pub enum Namespaces<'n> {
    Own,
    Any,
    Named(Vec<&'n str>),
}

#[derive(Debug)]
pub struct Monitor<'n> {
    /// `ServiceMonitor` or `PodMonitor`.
    pub kind: &'n str,
    pub name: &'n str,
    pub namespace: Option<&'n str>,
    pub namespaces: Namespaces<'n>,
    pub selector: Option<&'n Node>,
    pub endpoints: Vec<&'n Node>,
    pub file: usize,
    pub place: Place,
}

/// Annotations `prometheus.io/…` of a workload or a service.
#[derive(Debug)]
pub struct Annotated<'n> {
    pub of: Of,
    pub who: String,
    pub scrape: Option<&'n Node>,
    pub port: Option<&'n Node>,
    pub path: Option<&'n Node>,
    pub scheme: Option<&'n Node>,
    pub file: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Workload(usize),
    Service(usize),
}

/// One entry of `scrape_configs`.
#[derive(Debug)]
pub struct Job<'n> {
    pub node: &'n Node,
    pub file: usize,
}

#[derive(Debug, Default)]
pub struct World<'n> {
    pub workloads: Vec<Workload<'n>>,
    pub services: Vec<Service<'n>>,
    pub monitors: Vec<Monitor<'n>>,
    pub annotated: Vec<Annotated<'n>>,
    pub jobs: Vec<Job<'n>>,
    /// Annotations of a workload that its pods do not have: who, and where.
    pub misplaced: Vec<(String, Place)>,
}

impl<'n> World<'n> {
    /// Takes in one document.
    pub fn add(&mut self, file: usize, node: &'n Node) {
        if let Some(configs) = node.get("scrape_configs") {
            self.jobs.extend(configs.items().map(|node| Job { node, file }));
            return;
        }
        let Some(kind) = node.get("kind").and_then(Node::text) else { return };
        match kind {
            "Service" => self.add_service(file, node),
            "ServiceMonitor" | "PodMonitor" => self.add_monitor(file, kind, node),
            "Pod" => self.add_workload(file, kind, node, node),
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => {
                if let Some(template) = node.at(&["spec", "template"]) {
                    self.add_workload(file, kind, node, template);
                }
            }
            "CronJob" => {
                if let Some(template) = node.at(&["spec", "jobTemplate", "spec", "template"]) {
                    self.add_workload(file, kind, node, template);
                }
            }
            // One level: a list within a list is none of Kubernetes'.
            kind if kind.ends_with("List") => {
                let items = node.get("items").into_iter().flat_map(Node::items);
                for item in items.filter(|item| !item.get("kind").and_then(Node::text).is_some_and(|kind| kind.ends_with("List"))) {
                    self.add(file, item);
                }
            }
            _ => {}
        }
    }

    fn add_workload(&mut self, file: usize, kind: &'n str, node: &'n Node, pod: &'n Node) {
        let (name, namespace) = name_of(node);
        let mut declared = Declared::default();
        let mut ports = Vec::new();
        let containers = ["containers", "initContainers"].into_iter().filter_map(|list| pod.at(&["spec", list])).flat_map(Node::items);
        for container in containers {
            ports.extend(container.get("ports").into_iter().flat_map(Node::items).map(|port| container_port(file, port)));
            declare_by_container(&mut declared, file, container);
        }
        for metadata in [pod.get("metadata"), node.get("metadata")].into_iter().flatten() {
            declare_by_annotations(&mut declared, file, metadata);
            if std::ptr::eq(pod, node) {
                break;
            }
        }
        let own = node.at(&["metadata", "annotations"]).filter(|_| !std::ptr::eq(pod, node));
        if let Some(scrape) = own.and_then(|annotations| annotations.get("prometheus.io/scrape")) {
            self.misplaced.push((format!("{kind} `{name}`"), place(file, scrape)));
        }
        self.annotate(file, Of::Workload(self.workloads.len()), format!("{kind} `{name}`"), pod);
        let labels = labels(pod.at(&["metadata", "labels"]));
        self.workloads.push(Workload { kind, name, namespace, labels, ports, declared, place: place(file, node) });
    }

    fn add_service(&mut self, file: usize, node: &'n Node) {
        let (name, namespace) = name_of(node);
        let ports = node.at(&["spec", "ports"]).into_iter().flat_map(Node::items).map(|port| Port {
            name: port.get("name").and_then(Node::text),
            number: number(port.get("port")),
            target: port.get("targetPort").and_then(Node::text),
            place: place(file, port),
        });
        let mut declared = Declared::default();
        if let Some(metadata) = node.get("metadata") {
            declare_by_annotations(&mut declared, file, metadata);
        }
        self.annotate(file, Of::Service(self.services.len()), format!("Service `{name}`"), node);
        let (of, selector) = (labels(node.at(&["metadata", "labels"])), labels(node.at(&["spec", "selector"])));
        self.services.push(Service { name, namespace, labels: of, selector, ports: ports.collect(), declared, place: place(file, node) });
    }

    fn annotate(&mut self, file: usize, of: Of, who: String, node: &'n Node) {
        let Some(annotations) = node.at(&["metadata", "annotations"]) else { return };
        let get = |name: &str| annotations.get(&format!("prometheus.io/{name}"));
        let annotated = Annotated { of, who, scrape: get("scrape"), port: get("port"), path: get("path"), scheme: get("scheme"), file };
        if [annotated.scrape, annotated.port, annotated.path, annotated.scheme].iter().any(Option::is_some) {
            self.annotated.push(annotated);
        }
    }

    fn add_monitor(&mut self, file: usize, kind: &'n str, node: &'n Node) {
        let (name, namespace) = name_of(node);
        let spec = node.get("spec");
        let selected = spec.and_then(|spec| spec.get("namespaceSelector"));
        let namespaces = match selected {
            Some(selected) if selected.get("any").and_then(Node::text) == Some("true") => Namespaces::Any,
            Some(selected) if selected.get("matchNames").is_some_and(|names| names.items().next().is_some()) => {
                Namespaces::Named(selected.get("matchNames").into_iter().flat_map(Node::items).filter_map(Node::text).collect())
            }
            _ => Namespaces::Own,
        };
        let list = if kind == "PodMonitor" { "podMetricsEndpoints" } else { "endpoints" };
        let endpoints = spec.and_then(|spec| spec.get(list)).into_iter().flat_map(Node::items).collect();
        let selector = spec.and_then(|spec| spec.get("selector"));
        self.monitors.push(Monitor { kind, name, namespace, namespaces, selector, endpoints, file, place: place(file, node) });
    }
}

pub fn place(file: usize, node: &Node) -> Place {
    Place { file, spot: node.spot }
}

fn name_of(node: &Node) -> (&str, Option<&str>) {
    let text = |key| node.at(&["metadata", key]).and_then(Node::text);
    (text("name").or_else(|| text("generateName")).unwrap_or("?"), text("namespace"))
}

pub fn labels(node: Option<&Node>) -> Labels<'_> {
    let entries = node.map(Node::entries).unwrap_or_default();
    entries.into_iter().filter_map(|(name, value)| Some((name.text()?, value.text().unwrap_or_default()))).collect()
}

fn number(node: Option<&Node>) -> Option<u16> {
    node?.text()?.parse().ok()
}

fn container_port(file: usize, port: &Node) -> Port<'_> {
    Port { name: port.get("name").and_then(Node::text), number: number(port.get("containerPort")), target: None, place: place(file, port) }
}

/// `weir.dev/metrics-path`, `-port`, `-scheme`, `-required`.
fn declare_by_annotations(declared: &mut Declared, file: usize, metadata: &Node) {
    let Some(annotations) = metadata.get("annotations") else { return };
    let mut said = |name: &str, list: fn(&mut Declared) -> &mut Vec<Said>| {
        let name = format!("weir.dev/metrics-{name}");
        let Some((node, value)) = annotations.get(&name).and_then(|node| Some((node, node.text()?))) else { return };
        list(declared).push(Said { value: value.trim().into(), place: place(file, node), form: format!("annotation `{name}`") });
    };
    said("path", |declared| &mut declared.paths);
    said("port", |declared| &mut declared.ports);
    said("scheme", |declared| &mut declared.schemes);
    said("required", |declared| &mut declared.required);
}

/// By its arguments, its environment, and a probe that asks for metrics.
fn declare_by_container(declared: &mut Declared, file: usize, container: &Node) {
    let env: Vec<(&str, &Node)> = container
        .get("env")
        .into_iter()
        .flat_map(Node::items)
        .filter_map(|entry| Some((entry.get("name")?.text()?, entry.get("value")?)))
        .collect();
    let values = |name: &str| env.iter().find(|(other, _)| *other == name).and_then(|(_, node)| node.text());
    let mut words: Vec<(&str, &Node)> = Vec::new();
    for list in ["command", "args"] {
        for node in container.get(list).into_iter().flat_map(Node::items) {
            words.extend(node.text().unwrap_or_default().split_whitespace().map(|word| (word, node)));
        }
    }
    for (n, (word, node)) in words.iter().enumerate() {
        let Some(flag) = word.strip_prefix('-') else { continue };
        let flag = flag.trim_start_matches('-');
        let (name, inline) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let Some(about) = about(name) else { continue };
        let next = words.get(n + 1).filter(|(word, _)| !word.starts_with('-')).map(|(word, node)| (*word, *node));
        let Some((value, node)) = inline.map(|value| (value, *node)).or(next) else { continue };
        declare(declared, about, expand(value.trim_matches(['"', '\'']), &values), place(file, node), format!("argument `--{name}`"));
    }
    for (name, node) in &env {
        let lower = name.to_ascii_lowercase().replace('_', "-");
        let own = lower.find("metrics-").filter(|at| *at == 0 || lower.as_bytes()[at - 1] == b'-').map(|at| &lower[at..]);
        if let (Some(about), Some(value)) = (own.and_then(about), node.text()) {
            declare(declared, about, expand(value, &values), place(file, node), format!("variable `{name}`"));
        }
    }
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let path = container.at(&[probe, "httpGet", "path"]).and_then(|node| Some((node, node.text()?)));
        if let Some((node, value)) = path.filter(|(_, path)| path.trim_end_matches('/').rsplit('/').next() == Some("metrics")) {
            declare(declared, About::Path, Some(value.to_string()), place(file, node), format!("`{probe}`"));
        }
    }
}

#[derive(Clone, Copy)]
enum About {
    Path,
    Port,
    /// `:9090`, `0.0.0.0:9090`, `[::]:9090`
    Address,
    Scheme,
}

/// What a flag or variable is about, by its name.
fn about(name: &str) -> Option<About> {
    let name = name.to_ascii_lowercase().replace(['_', '.'], "-");
    Some(match name.as_str() {
        "metrics-path" | "web-telemetry-path" | "telemetry-path" | "web-metrics-path" | "metrics-endpoint" | "metrics-url-path" => {
            About::Path
        }
        "metrics-port" | "telemetry-port" | "prometheus-port" | "web-metrics-port" => About::Port,
        "web-listen-address"
        | "metrics-addr"
        | "metrics-address"
        | "metrics-bind-address"
        | "metrics-listen-address"
        | "telemetry-address" => About::Address,
        "metrics-scheme" => About::Scheme,
        _ => return None,
    })
}

/// `value`: `None` if it comes from elsewhere and cannot be known here.
fn declare(declared: &mut Declared, about: About, value: Option<String>, place: Place, form: String) {
    let Some(value) = value else { return };
    let said = |value: String| Said { value, place, form };
    match about {
        About::Path => declared.paths.push(said(value)),
        About::Scheme => declared.schemes.push(said(value)),
        About::Port => declared.ports.push(said(value)),
        About::Address => {
            // `0` turns it off.
            if let Some((_, port)) = value.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                declared.ports.push(said(port.to_string()));
            }
        }
    }
}

/// `$(NAME)` as Kubernetes puts it in; `None` where a variable has no value here.
fn expand<'n>(text: &str, values: &impl Fn(&str) -> Option<&'n str>) -> Option<String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("$(") {
        let end = at + rest[at..].find(')')?;
        out.push_str(&rest[..at]);
        out.push_str(values(&rest[at + 2..end]).filter(|value| !value.contains("$("))?);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    (!out.contains("${") && !out.starts_with('$')).then_some(out)
}

/// Whether a selector of labels (`matchLabels`, `matchExpressions`) takes these; the error is at a node.
pub fn selects<'n>(selector: &'n Node, of: &[(&str, &str)]) -> Result<bool, (&'n Node, String)> {
    let find = |name: &str| of.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
    for (name, value) in labels(selector.get("matchLabels")) {
        if find(name) != Some(value) {
            return Ok(false);
        }
    }
    for expression in selector.get("matchExpressions").into_iter().flat_map(Node::items) {
        let text = |key| expression.get(key).and_then(Node::text);
        let (Some(key), Some(operator)) = (text("key"), text("operator")) else {
            return Err((expression, "a match expression has a key and an operator".into()));
        };
        let mut values = expression.get("values").into_iter().flat_map(Node::items).filter_map(Node::text);
        let found = find(key);
        let takes = match operator {
            "In" => values.any(|value| found == Some(value)),
            "NotIn" => !values.any(|value| found == Some(value)),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            other => return Err((expression, format!("no operator is called `{other}`; there are In, NotIn, Exists and DoesNotExist"))),
        };
        if !takes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Annotations are text to Kubernetes: a plain `true` or `9090` is refused there.
pub fn is_text(node: &Node) -> bool {
    match &node.kind {
        Yaml::Scalar { text, is_plain: true } => {
            !matches!(text.as_str(), "true" | "false" | "null" | "~" | "") && text.parse::<f64>().is_err()
        }
        Yaml::Scalar { .. } => true,
        _ => false,
    }
}
