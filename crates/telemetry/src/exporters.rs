//! Finds, before it is rolled out, a scrape that will not find its metrics (EB 5.8): `weir check exporters DIR`.
//!
//! In: manifests as text with their paths: Kubernetes' workloads and services with annotations `prometheus.io/{scrape,port,path,scheme}`,
//! ServiceMonitor and PodMonitor, and files with `scrape_configs`. Out: findings with file, line and column, both places named. Each
//! setting of a scrape is held against what the service declares of itself: its ports, annotations `weir.dev/metrics-{path,port,scheme,required}`,
//! arguments (`--metrics-path=/v2/metrics`, `--web.telemetry-path`, `--metrics-port`, `--web.listen-address`, …), variables
//! (`METRICS_PATH`, `METRICS_PORT`, …, also as `APP_METRICS_PATH`) and a probe whose path ends in `metrics`. Where nothing is declared,
//! nothing is compared. [`judge`] says the same of what a probe was answered.
//!
//! Exit codes are the caller's: 0 clean (warnings at most), 1 a mismatch ([`Severity::Error`]), 2 input could not be read
//! ([`Report::is_unreadable`]). A namespace that is not written is any: tools put it in later.
//! Bound: [`yaml::TEXT_BYTES_MAX`] of a file, [`OBJECTS_MAX`] objects, [`FINDINGS_MAX`] findings; the last one says that there are more.

mod manifest;
mod probe;
mod yaml;

pub use probe::{Answer, judge};

use crate::selector::nearest;
use manifest::{Annotated, Declared, Job, Monitor, Namespaces, Of, Place, Port, Said, Service, Workload, World, labels, place, selects};
use std::collections::{HashMap, HashSet};
use yaml::{Node, Spot};

pub const OBJECTS_MAX: usize = 10_000;
pub const FINDINGS_MAX: usize = 1_000;
/// Comparisons of a selector with labels, and of a scrape with a workload: below a second.
const STEPS_MAX: usize = 10_000_000;
/// Scrapes that reach workloads: about 300 bytes each make 30 MB.
const SCRAPES_MAX: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub file: String,
    /// From 1; 0 where there is no line.
    pub line: u32,
    pub column: u32,
    pub what: String,
    /// A name that does not change, as in `path_mismatch`.
    pub rule: &'static str,
    pub help: String,
}

impl Finding {
    /// ```text
    /// error: monitor.yaml:12:13: ServiceMonitor `infer` scrapes the path /metrics, Deployment `infer` serves /v2/metrics (deploy.yaml:20:15, argument `--metrics-path`) [path_mismatch]
    ///   help: write path: /v2/metrics
    /// ```
    pub fn show(&self) -> String {
        let severity = if self.severity == Severity::Error { "error" } else { "warning" };
        let place = if self.line > 0 { format!("{}:{}:{}", self.file, self.line, self.column) } else { self.file.clone() };
        format!("{severity}: {place}: {} [{}]\n  help: {}", self.what, self.rule, self.help)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By file and line.
    pub findings: Vec<Finding>,
    /// A file is no YAML, or too large: exit code 2.
    pub is_unreadable: bool,
    pub workloads: usize,
    /// Each scrape that reaches a workload: what was compared, and what may be probed.
    pub targets: Vec<Target>,
}

/// What a scrape asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `ServiceMonitor `infer``
    pub by: String,
    /// `Deployment `infer``
    pub of: String,
    /// Name and namespace of the service it goes through.
    pub service: Option<(String, Option<String>)>,
    pub scheme: String,
    pub port: Option<u16>,
    pub path: String,
    /// Of `weir.dev/metrics-required`: what [`judge`] must find.
    pub required: Vec<String>,
}

impl Report {
    /// 0 clean, 1 a mismatch, 2 input that could not be read.
    pub fn exit_code(&self) -> u8 {
        match () {
            () if self.is_unreadable => 2,
            () if self.findings.iter().any(|finding| finding.severity == Severity::Error) => 1,
            () => 0,
        }
    }
}

/// Checks files, given as path and text.
pub fn check(files: &[(String, String)]) -> Report {
    let read: Vec<_> = files.iter().map(|(_, text)| yaml::documents(text)).collect();
    let mut checker = Checker { files, report: Report::default(), scrapes: Vec::new(), missed: HashSet::new(), steps: 0 };
    let (mut world, mut objects) = (World::default(), 0);
    for (file, (documents, broken)) in read.iter().enumerate() {
        for document in documents {
            objects += 1 + document.get("items").map_or(0, |items| items.items().count());
            if objects > OBJECTS_MAX {
                checker.report.is_unreadable = true;
                checker.find(
                    Severity::Error,
                    place(file, document),
                    "too_many",
                    format!("more than {OBJECTS_MAX} objects"),
                    "check folders one by one".into(),
                );
                break;
            }
            world.add(file, document);
        }
        if let Some(broken) = broken {
            checker.report.is_unreadable = true;
            let help = match files[file].1.contains("{{") {
                true => "it looks like a template: render it first, as in `helm template`",
                false => "mend it; the other files are checked nevertheless",
            };
            checker.find(Severity::Error, Place { file, spot: broken.spot }, "unreadable", broken.what.clone(), help.into());
        }
    }
    checker.check(&world);
    checker.report
}

/// One setting that reaches one workload.
struct Scrape {
    who: String,
    workload: usize,
    /// Number of the port of the container, where it is known.
    port: Option<u16>,
    path: (String, Place),
    scheme: (String, Place),
    place: Place,
    service: Option<(String, Option<String>)>,
    required: Vec<String>,
}

struct Checker<'f> {
    files: &'f [(String, String)],
    report: Report,
    scrapes: Vec<Scrape>,
    /// Workloads that somebody meant to scrape, and could not.
    missed: HashSet<usize>,
    steps: usize,
}

impl Checker<'_> {
    fn find(&mut self, severity: Severity, at: Place, rule: &'static str, what: String, help: String) {
        if self.report.findings.len() >= FINDINGS_MAX {
            return;
        }
        let file = self.files[at.file].0.clone();
        let (line, column) = (at.spot.line, at.spot.column);
        match self.report.findings.len() + 1 == FINDINGS_MAX {
            false => self.report.findings.push(Finding { severity, file, line, column, what, rule, help }),
            true => {
                let (what, help) = (format!("more than {FINDINGS_MAX} findings"), "mend these first, then check again".into());
                self.report.findings.push(Finding { severity: Severity::Error, file, line: 0, column: 0, what, rule: "too_many", help });
            }
        }
    }

    /// Counts work; false once there was too much of it.
    fn goes_on(&mut self, steps: usize, at: Place) -> bool {
        let (before, is_full) = (self.steps, self.scrapes.len() >= SCRAPES_MAX);
        self.steps = if is_full { STEPS_MAX + 1 } else { before.saturating_add(steps) };
        if self.steps > STEPS_MAX && before <= STEPS_MAX {
            let what = "these manifests select each other too often to be compared; the rest is not checked".to_string();
            self.error(at, "too_many", what, "check folders one by one".into());
        }
        self.steps <= STEPS_MAX
    }

    fn error(&mut self, at: Place, rule: &'static str, what: String, help: String) {
        self.find(Severity::Error, at, rule, what, help);
    }

    /// `file:line:column`
    fn show(&self, at: Place) -> String {
        format!("{}:{}:{}", self.files[at.file].0, at.spot.line, at.spot.column)
    }

    fn check(&mut self, world: &World<'_>) {
        for workload in &world.workloads {
            self.check_declared(&workload.declared, &who(workload));
        }
        for (who, at) in &world.misplaced {
            let what = format!("{who} has prometheus.io/scrape itself; its pods do not, and pods are what is scraped");
            self.find(Severity::Warning, *at, "annotation_place", what, "write the annotations under spec.template.metadata".into());
        }
        for annotated in &world.annotated {
            self.check_annotations(world, annotated);
        }
        for monitor in &world.monitors {
            self.check_monitor(world, monitor);
        }
        for job in &world.jobs {
            self.check_job(world, job);
        }
        self.check_conflicts(world);
        self.check_unscraped(world);
        self.report.workloads = world.workloads.len();
        self.report.targets = self.scrapes.iter().map(|scrape| target(world, scrape)).collect();
        self.report.findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        self.report.findings.dedup();
    }

    /// A workload does not say two things of itself.
    fn check_declared(&mut self, declared: &Declared, who: &str) {
        for (name, said) in [("path", &declared.paths), ("scheme", &declared.schemes)] {
            let Some(first) = said.first() else { continue };
            for other in said.iter().skip(1).filter(|other| normal(name, &other.value) != normal(name, &first.value)) {
                let what = format!(
                    "{who} declares two {name}s of its metrics: {} here ({}), {} at {} ({})",
                    other.value,
                    other.form,
                    first.value,
                    self.show(first.place),
                    first.form
                );
                self.error(other.place, "contradiction", what, "let both say the same".into());
            }
        }
    }

    fn check_annotations(&mut self, world: &World<'_>, annotated: &Annotated<'_>) {
        let (file, who) = (annotated.file, format!("{} by its annotations", annotated.who));
        let all = [("scrape", annotated.scrape), ("port", annotated.port), ("path", annotated.path), ("scheme", annotated.scheme)];
        for (name, node) in all.iter().filter_map(|(name, node)| Some((name, (*node)?))) {
            if !manifest::is_text(node) {
                let value = node.text().unwrap_or_default();
                let what = format!("the annotation prometheus.io/{name} is no text; Kubernetes refuses it");
                self.error(place(file, node), "annotation_type", what, format!("write it in quotes: prometheus.io/{name}: \"{value}\""));
            }
        }
        let first = all.iter().find_map(|(_, node)| *node).map(|node| place(file, node));
        let Some(here) = first else { return };
        let scrape = annotated.scrape.and_then(Node::text);
        if let Some(other) = scrape.filter(|scrape| !matches!(*scrape, "true" | "false")) {
            self.error(
                here,
                "scrape_value",
                format!("prometheus.io/scrape is `{other}`; only \"true\" is scraped"),
                "write prometheus.io/scrape: \"true\"".into(),
            );
        }
        if scrape != Some("true") {
            if scrape.is_none() {
                let what = "prometheus.io annotations without prometheus.io/scrape: nothing is scraped".to_string();
                self.find(Severity::Warning, here, "scrape_missing", what, "add prometheus.io/scrape: \"true\"".into());
            }
            return;
        }
        let workloads = match annotated.of {
            Of::Workload(number) => vec![number],
            Of::Service(number) => self.workloads_of(world, &world.services[number], here, &annotated.who),
        };
        let default = |node: Option<&Node>, value: &str| {
            node.and_then(|node| Some((node.text()?.to_string(), place(file, node)))).unwrap_or((value.into(), here))
        };
        let (path, scheme) = (default(annotated.path, "/metrics"), default(annotated.scheme, "http"));
        for number in workloads {
            let workload = &world.workloads[number];
            let mut port = None;
            if let Some((node, text)) = annotated.port.and_then(|node| Some((node, node.text()?))) {
                let at = place(file, node);
                match text.parse::<u16>() {
                    Err(_) => self.error(
                        at,
                        "port_number",
                        format!("prometheus.io/port is `{text}`; it is the number of a port"),
                        "write a number, as in \"9090\"".into(),
                    ),
                    Ok(wanted) => {
                        port = Some(wanted);
                        self.check_port_number(wanted, workload, at, &who);
                    }
                }
            } else if let [only] = workload.ports.as_slice() {
                port = only.number;
            }
            let service = if let Of::Service(service) = annotated.of { Some(&world.services[service]) } else { None };
            self.scrape(
                world,
                Scrape {
                    who: who.clone(),
                    workload: number,
                    port,
                    path: path.clone(),
                    scheme: scheme.clone(),
                    place: here,
                    service: None,
                    required: Vec::new(),
                },
                service,
            );
        }
    }

    /// A container that names its ports has the one that is scraped among them.
    fn check_port_number(&mut self, wanted: u16, workload: &Workload<'_>, at: Place, who: &str) {
        if workload.ports.is_empty() || workload.ports.iter().any(|port| port.number == Some(wanted)) {
            return;
        }
        let what = format!(
            "{who} scrapes port {wanted}; {} has no such port, only {} ({})",
            self::who(workload),
            list(&workload.ports),
            self.show(workload.place)
        );
        self.error(at, "port_mismatch", what, "scrape one of these ports, or add this one to the container".into());
    }

    /// Which workloads a service sends to.
    fn workloads_of(&mut self, world: &World<'_>, service: &Service<'_>, at: Place, who: &str) -> Vec<usize> {
        if service.selector.is_empty() || !self.goes_on(world.workloads.len(), at) {
            return Vec::new();
        }
        let takes = |workload: &Workload<'_>| {
            same_namespace(service.namespace, workload.namespace) && service.selector.iter().all(|wanted| workload.labels.contains(wanted))
        };
        let found: Vec<usize> = (0..world.workloads.len()).filter(|number| takes(&world.workloads[*number])).collect();
        if found.is_empty() {
            let what = format!(
                "{who} leads to Service `{}` ({}), whose selector takes none of the workloads here",
                service.name,
                self.show(service.place)
            );
            self.find(
                Severity::Warning,
                at,
                "selects_nothing",
                what,
                "let its selector and the labels of the pods agree, or check the folder of the workload with it".into(),
            );
        }
        found
    }

    fn check_monitor(&mut self, world: &World<'_>, monitor: &Monitor<'_>) {
        let who = format!("{} `{}`", monitor.kind, monitor.name);
        let Some(selector) = monitor.selector else {
            let what = format!("{who} has no selector");
            return self.error(monitor.place, "no_selector", what, "write selector: { matchLabels: { app: … } }".into());
        };
        let at = place(monitor.file, selector);
        if monitor.endpoints.is_empty() {
            let list = if monitor.kind == "PodMonitor" { "podMetricsEndpoints" } else { "endpoints" };
            self.error(
                monitor.place,
                "no_endpoints",
                format!("{who} has no {list}: it scrapes nothing"),
                format!("write {list}: [{{ port: metrics }}]"),
            );
        }
        // (service, workloads)
        let mut reached: Vec<(Option<&Service<'_>>, Vec<usize>)> = Vec::new();
        let judge = |namespace, labels: &[(&str, &str)]| match in_namespace(monitor, namespace) {
            true => selects(selector, labels),
            false => Ok(false),
        };
        let is_selected = |namespace, labels: &[(&str, &str)], checker: &mut Self| {
            checker.goes_on(1, at)
                && judge(namespace, labels).unwrap_or_else(|(node, why)| {
                    checker.error(place(monitor.file, node), "selector", format!("{who}: {why}"), "mend the selector".into());
                    false
                })
        };
        let mut is_empty = true;
        if monitor.kind == "PodMonitor" {
            let numbers: Vec<usize> = (0..world.workloads.len())
                .filter(|number| is_selected(world.workloads[*number].namespace, &world.workloads[*number].labels, self))
                .collect();
            is_empty = numbers.is_empty();
            reached.push((None, numbers));
        } else {
            for service in &world.services {
                if is_selected(service.namespace, &service.labels, self) {
                    is_empty = false;
                    let workloads = self.workloads_of(world, service, at, &who);
                    reached.push((Some(service), workloads));
                }
            }
        }
        if is_empty {
            let (kind, near) = self.near_labels(world, monitor, selector);
            let what = format!("{who} selects nothing: no {kind} here has the labels {}", show_labels(selector));
            self.error(at, "selects_nothing", what, near);
            return;
        }
        for (service, workloads) in reached {
            for endpoint in &monitor.endpoints {
                self.check_endpoint(world, monitor, endpoint, service, &workloads);
            }
        }
    }

    /// What the selector may have meant.
    fn near_labels(&self, world: &World<'_>, monitor: &Monitor<'_>, selector: &Node) -> (&'static str, String) {
        let wanted = labels(selector.get("matchLabels"));
        let is_pods = monitor.kind == "PodMonitor";
        let of: Vec<(String, &manifest::Labels<'_>, Option<&str>)> = match is_pods {
            true => world.workloads.iter().map(|workload| (self::who(workload), &workload.labels, workload.namespace)).collect(),
            false => {
                world.services.iter().map(|service| (format!("Service `{}`", service.name), &service.labels, service.namespace)).collect()
            }
        };
        let kind = if is_pods { "workload" } else { "service" };
        for (who, labels, namespace) in &of {
            if wanted.iter().all(|label| labels.contains(label)) && !in_namespace(monitor, *namespace) {
                return (kind, format!("{who} has them, in namespace {}: add it to namespaceSelector", namespace.unwrap_or("?")));
            }
        }
        for (who, labels, _) in &of {
            for (name, value) in &wanted {
                if let Some((_, other)) = labels.iter().find(|(other, _)| other == name)
                    && nearest(value, [*other]).is_some()
                {
                    return (kind, format!("did you mean `{name}: {other}`, as {who} has it?"));
                }
            }
        }
        (kind, format!("let the selector and the labels of the {kind} agree"))
    }

    fn check_endpoint(
        &mut self,
        world: &World<'_>,
        monitor: &Monitor<'_>,
        endpoint: &Node,
        service: Option<&Service<'_>>,
        workloads: &[usize],
    ) {
        let (file, here, who) = (monitor.file, place(monitor.file, endpoint), format!("{} `{}`", monitor.kind, monitor.name));
        let get = |key: &str| endpoint.get(key).and_then(|node| Some((node.text()?, place(file, node))));
        let default = |key: &str, value: &str| get(key).map_or((value.to_string(), here), |(text, at)| (text.to_string(), at));
        let (path, scheme) = (default("path", "/metrics"), default("scheme", "http"));
        // What reaches the containers: a name or number of theirs.
        let mut target = get("targetPort").or_else(|| get("portNumber"));
        match (get("port"), service) {
            (Some((name, at)), Some(service)) => {
                let Some(port) = service.ports.iter().find(|port| port.name == Some(name)) else {
                    self.missed.extend(workloads);
                    let help = match nearest(name, service.ports.iter().filter_map(|port| port.name)) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None if name.parse::<u16>().is_ok() => {
                            "port is the name of a port of the service; a number is written as targetPort".into()
                        }
                        None => "write the name of one of these ports, or name the port of the service so".into(),
                    };
                    let what = format!(
                        "{who} scrapes port `{name}`; Service `{}` has no port of that name, only {} ({})",
                        service.name,
                        list(&service.ports),
                        self.show(service.place)
                    );
                    return self.error(at, "port_name", what, help);
                };
                let number = port.number.map(|number| number.to_string());
                let through = port.target.map(str::to_string).or(number).unwrap_or_default();
                for number in workloads {
                    self.reach(
                        world,
                        *number,
                        &through,
                        (port.place, &format!("Service `{}`", service.name)),
                        &who,
                        (&path, &scheme, here),
                        Some(service),
                    );
                }
                return;
            }
            (Some(named), None) => target = Some(named),
            (None, _) => {}
        }
        let Some((target, at)) = target else {
            return self.error(
                here,
                "no_port",
                format!("{who} has an endpoint without a port"),
                "write port: metrics, the name of a port".into(),
            );
        };
        for number in workloads {
            self.reach(world, *number, target, (at, &who), &who, (&path, &scheme, here), service);
        }
    }

    /// A port by name or number at a workload. `by`: where it is written, and by whom.
    #[expect(clippy::too_many_arguments, reason = "what a scrape is made of, once")]
    fn reach(
        &mut self,
        world: &World<'_>,
        number: usize,
        target: &str,
        by: (Place, &str),
        who: &str,
        rest: (&(String, Place), &(String, Place), Place),
        service: Option<&Service<'_>>,
    ) {
        if !self.goes_on(1, by.0) {
            return;
        }
        let workload = &world.workloads[number];
        let port = workload.ports.iter().find(|port| port.is(target));
        let (path, scheme, here) = rest;
        let resolved = match (port, target.parse::<u16>()) {
            (Some(port), _) => port.number,
            // A container may listen where it names no port.
            (None, Ok(wanted)) if workload.ports.is_empty() => Some(wanted),
            (None, _) => {
                let help = match nearest(target, workload.ports.iter().filter_map(|port| port.name)) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "write one of these ports, or add this one to the container".into(),
                };
                let what = format!(
                    "{} leads to port `{target}`; {} has no such port, only {} ({})",
                    by.1,
                    self::who(workload),
                    list(&workload.ports),
                    self.show(workload.place)
                );
                self.missed.insert(number);
                self.error(by.0, "port_mismatch", what, help);
                return;
            }
        };
        let scrape = Scrape {
            who: who.to_string(),
            workload: number,
            port: resolved,
            path: path.clone(),
            scheme: scheme.clone(),
            place: here,
            service: None,
            required: Vec::new(),
        };
        self.scrape(world, scrape, service);
    }

    fn check_job(&mut self, world: &World<'_>, job: &Job<'_>) {
        let get = |node: &Node, key: &str| node.get(key).and_then(|found| Some((found.text()?.to_string(), place(job.file, found))));
        let here = place(job.file, job.node);
        let name = get(job.node, "job_name").map_or("?".to_string(), |(name, _)| name);
        let who = format!("job `{name}`");
        let path = get(job.node, "metrics_path").unwrap_or(("/metrics".into(), here));
        let scheme = get(job.node, "scheme").unwrap_or(("http".into(), here));
        for config in job.node.get("static_configs").into_iter().flat_map(Node::items) {
            let labels = config.get("labels");
            let path = labels.and_then(|labels| get(labels, "__metrics_path__")).unwrap_or(path.clone());
            let scheme = labels.and_then(|labels| get(labels, "__scheme__")).unwrap_or(scheme.clone());
            for target in config.get("targets").into_iter().flat_map(Node::items) {
                let at = place(job.file, target);
                let text = target.text().unwrap_or_default();
                if text.contains("://") || text.contains('/') {
                    let what = format!("{who} has the target `{text}`; a target is a host and a port");
                    self.error(at, "target", what, "write host:port, the rest as scheme and metrics_path".into());
                    continue;
                }
                let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                let port = port.map_or(Some(if scheme.0 == "https" { 443 } else { 80 }), |port| port.parse::<u16>().ok());
                let Some(port) = port else {
                    self.error(
                        at,
                        "target",
                        format!("{who} has the target `{text}`, whose port is no number"),
                        "write host:port, as in api:9090".into(),
                    );
                    continue;
                };
                for service in world.services.iter().filter(|service| is_host(service, host)) {
                    self.check_target(world, service, port, &who, (&path, &scheme, at));
                }
            }
        }
    }

    fn check_target(
        &mut self,
        world: &World<'_>,
        service: &Service<'_>,
        wanted: u16,
        who: &str,
        rest: (&(String, Place), &(String, Place), Place),
    ) {
        let at = rest.2;
        let Some(port) = service.ports.iter().find(|port| port.number == Some(wanted)) else {
            let what = format!(
                "{who} scrapes port {wanted} of Service `{}`, which has only {} ({})",
                service.name,
                list(&service.ports),
                self.show(service.place)
            );
            return self.error(at, "port_mismatch", what, "write one of these ports".into());
        };
        let through = port.target.map_or_else(|| wanted.to_string(), str::to_string);
        for number in self.workloads_of(world, service, at, who) {
            self.reach(world, number, &through, (port.place, &format!("Service `{}`", service.name)), who, rest, Some(service));
        }
    }

    /// Holds one scrape against what its workload, and the service before it, declare.
    fn scrape(&mut self, world: &World<'_>, mut scrape: Scrape, service: Option<&Service<'_>>) {
        let workload = &world.workloads[scrape.workload];
        let (whose, who) = (self::who(workload), scrape.who.clone());
        let scheme = scrape.scheme.0.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            self.error(scrape.scheme.1, "scheme", format!("{who} has the scheme `{}`", scrape.scheme.0), "write http or https".into());
        }
        let first = |list: fn(&Declared) -> &Vec<Said>| {
            list(&workload.declared).first().or_else(|| service.and_then(|service| list(&service.declared).first()))
        };
        if let Some(said) = first(|declared| &declared.paths).filter(|said| normal("path", &said.value) != normal("path", &scrape.path.0)) {
            let what = format!(
                "{who} scrapes the path {}, {whose} serves {} ({}, {})",
                scrape.path.0,
                said.value,
                self.show(said.place),
                said.form
            );
            self.error(
                scrape.path.1,
                "path_mismatch",
                what,
                format!("scrape the path {}, or let the service serve {}", said.value, scrape.path.0),
            );
        }
        if let Some(said) = first(|declared| &declared.schemes).filter(|said| !said.value.eq_ignore_ascii_case(&scheme)) {
            let what = format!("{who} scrapes by {scheme}, {whose} serves {} ({}, {})", said.value, self.show(said.place), said.form);
            self.error(scrape.scheme.1, "scheme_mismatch", what, format!("scrape by {}", said.value));
        }
        // Several may be right: a service may have more than one endpoint of metrics.
        let mut declared: Vec<&Said> = workload.declared.ports.iter().collect();
        if declared.is_empty() {
            declared.extend(service.iter().flat_map(|service| &service.declared.ports));
        }
        let number_of = |said: &Said| {
            said.value.parse().ok().or_else(|| workload.ports.iter().find(|port| port.is(&said.value)).and_then(|port| port.number))
        };
        if let (Some(port), Some(said)) = (scrape.port, declared.first())
            && !declared.iter().any(|said| number_of(said) == Some(port))
        {
            let what = format!(
                "{who} scrapes port {port}, {whose} serves its metrics at {} ({}, {})",
                said.value,
                self.show(said.place),
                said.form
            );
            self.error(scrape.place, "port_mismatch", what, format!("scrape port {}", said.value));
        }
        let required = service.map(|service| &service.declared.required).into_iter().chain([&workload.declared.required]).flatten();
        let names = required.flat_map(|said| said.value.split(',')).map(str::trim).filter(|name| !name.is_empty());
        scrape.required = names.map(str::to_string).collect();
        scrape.required.sort_unstable();
        scrape.required.dedup();
        scrape.service = service.map(|service| (service.name.to_string(), service.namespace.map(str::to_string)));
        self.scrapes.push(scrape);
    }

    /// Nobody scrapes one port twice, least of all in two ways.
    fn check_conflicts(&mut self, world: &World<'_>) {
        let scrapes = std::mem::take(&mut self.scrapes);
        let mut first: HashMap<(usize, u16), &Scrape> = HashMap::new();
        for scrape in &scrapes {
            let Some(port) = scrape.port else { continue };
            let known = *first.entry((scrape.workload, port)).or_insert(scrape);
            if std::ptr::eq(known, scrape) || known.place == scrape.place {
                continue;
            }
            let whose = who(&world.workloads[scrape.workload]);
            let is_same =
                normal("path", &known.path.0) == normal("path", &scrape.path.0) && known.scheme.0.eq_ignore_ascii_case(&scrape.scheme.0);
            let both = format!("{} and {} ({})", scrape.who, known.who, self.show(known.place));
            match is_same {
                true => self.find(
                    Severity::Warning,
                    scrape.place,
                    "scraped_twice",
                    format!("{both} scrape port {port} of {whose}: each sample is taken twice"),
                    "take one of them away".into(),
                ),
                false => {
                    let what = format!(
                        "{both} scrape port {port} of {whose} in two ways: {} {} and {} {}",
                        scrape.scheme.0, scrape.path.0, known.scheme.0, known.path.0
                    );
                    self.error(scrape.place, "conflict", what, "let them agree, or take one of them away".into());
                }
            }
        }
        self.scrapes = scrapes;
    }

    /// Who declares metrics wants to be scraped.
    fn check_unscraped(&mut self, world: &World<'_>) {
        let scraped: HashSet<usize> = self.scrapes.iter().map(|scrape| scrape.workload).chain(self.missed.iter().copied()).collect();
        for (number, workload) in world.workloads.iter().enumerate() {
            let Declared { paths, ports, schemes, required } = &workload.declared;
            let by_annotation = [paths, ports, schemes, required].into_iter().flatten().find(|said| said.form.starts_with("annotation"));
            if let Some(said) = by_annotation
                && !scraped.contains(&number)
            {
                let what = format!("{} declares metrics ({}), and nothing here scrapes it", who(workload), said.form);
                self.find(
                    Severity::Warning,
                    said.place,
                    "not_scraped",
                    what,
                    "write a ServiceMonitor, or prometheus.io/scrape: \"true\"".into(),
                );
            }
        }
    }
}

fn target(world: &World<'_>, scrape: &Scrape) -> Target {
    Target {
        by: scrape.who.clone(),
        of: who(&world.workloads[scrape.workload]),
        service: scrape.service.clone(),
        scheme: scrape.scheme.0.to_ascii_lowercase(),
        port: scrape.port,
        path: normal("path", &scrape.path.0),
        required: scrape.required.clone(),
    }
}

fn who(workload: &Workload<'_>) -> String {
    format!("{} `{}`", workload.kind, workload.name)
}

/// Paths begin with a slash whether they are written so or not; schemes have no case.
fn normal(what: &str, value: &str) -> String {
    match what {
        "path" if !value.starts_with('/') => format!("/{value}"),
        "path" => value.to_string(),
        _ => value.to_ascii_lowercase(),
    }
}

fn list(ports: &[Port<'_>]) -> String {
    let show = |port: &Port<'_>| match (port.name, port.number) {
        (Some(name), Some(number)) => format!("{name} ({number})"),
        (Some(name), None) => name.to_string(),
        (None, number) => number.map_or("?".into(), |number| number.to_string()),
    };
    let mut shown: Vec<String> = ports.iter().take(10).map(show).collect();
    if ports.len() > 10 {
        shown.push("…".into());
    }
    if shown.is_empty() { "none at all".into() } else { shown.join(", ") }
}

fn show_labels(selector: &Node) -> String {
    let all = labels(selector.get("matchLabels"));
    let mut shown: Vec<String> = all.iter().take(10).map(|(name, value)| format!("{name}={value}")).collect();
    if selector.get("matchExpressions").is_some() {
        shown.push("and what its matchExpressions ask for".into());
    }
    shown.join(", ")
}

fn same_namespace(a: Option<&str>, b: Option<&str>) -> bool {
    a.is_none() || b.is_none() || a == b
}

fn in_namespace(monitor: &Monitor<'_>, namespace: Option<&str>) -> bool {
    match &monitor.namespaces {
        Namespaces::Any => true,
        Namespaces::Own => same_namespace(monitor.namespace, namespace),
        Namespaces::Named(names) => namespace.is_none_or(|namespace| names.contains(&namespace)),
    }
}

/// `api`, `api.prod`, `api.prod.svc`, `api.prod.svc.cluster.local`
fn is_host(service: &Service<'_>, host: &str) -> bool {
    let mut parts = host.trim_end_matches('.').split('.');
    if parts.next() != Some(service.name) {
        return false;
    }
    match (parts.next(), parts.next()) {
        (None, _) => true,
        (Some(namespace), None | Some("svc")) => same_namespace(service.namespace, Some(namespace)),
        _ => false,
    }
}

/// A finding about an answer has no line.
fn of_target(target: &str, rule: &'static str, what: String, help: &str) -> Finding {
    let Spot { line, column } = Spot::default();
    Finding { severity: Severity::Error, file: target.into(), line, column, what, rule, help: help.into() }
}

#[cfg(test)]
mod tests;
