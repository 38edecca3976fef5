//! What `exporters` promises: tables of cases, and replays.

use super::*;
use proptest::prelude::*;

/// Files are parted by `## name`; findings are shown as `severity rule place | what | help`.
fn run(text: &str) -> Report {
    let mut files: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("## ") {
            Some(name) => files.push((name.to_string(), String::new())),
            None => files.last_mut().unwrap().1.extend([line, "\n"]),
        }
    }
    check(&files)
}

#[track_caller]
fn finds(text: &str, want: &[(&str, &str, &str)]) {
    let report = run(text);
    let shown: Vec<String> = report.findings.iter().map(Finding::show).collect();
    assert_eq!(report.findings.len(), want.len(), "{}", shown.join("\n"));
    for (finding, (rule, place, holds)) in report.findings.iter().zip(want) {
        let at = format!("{}:{}:{}", finding.file, finding.line, finding.column);
        assert!(
            finding.rule == *rule && at == *place && finding.show().contains(holds),
            "want {rule} at {place} with {holds}, got\n{}",
            finding.show()
        );
    }
}

const DEPLOYMENT: &str = r#"## deploy.yaml
apiVersion: apps/v1
kind: Deployment
metadata: { name: infer, namespace: prod }
spec:
  selector: { matchLabels: { app: infer } }
  template:
    metadata:
      labels: { app: infer, tier: model }
    spec:
      containers:
        - name: server
          args:
            - --metrics-path=/v2/metrics
            - "--metrics-port=9100"
          ports:
            - { name: http, containerPort: 8080 }
            - { name: metrics, containerPort: 9100 }
"#;

const SERVICE: &str = r#"## service.yaml
apiVersion: v1
kind: Service
metadata:
  name: infer
  namespace: prod
  labels: { app: infer }
spec:
  selector: { app: infer }
  ports:
    - { name: http, port: 80, targetPort: http }
    - { name: metrics, port: 9100, targetPort: metrics }
"#;

fn with_monitor(endpoint: &str) -> String {
    format!(
        "{DEPLOYMENT}{SERVICE}## monitor.yaml\nkind: ServiceMonitor\nmetadata: {{ name: infer, namespace: prod }}\nspec:\n  selector: {{ matchLabels: {{ app: infer }} }}\n  endpoints:\n    - {endpoint}\n"
    )
}

#[test]
fn eb_5_8_a_path_that_the_service_does_not_serve_fails_with_file_and_line() {
    let text = with_monitor("{ port: metrics, path: /metrics }");
    finds(
        &text,
        &[("path_mismatch", "monitor.yaml:6:30", "Deployment `infer` serves /v2/metrics (deploy.yaml:13:15, argument `--metrics-path`)")],
    );
    let report = run(&text);
    assert_eq!((report.exit_code(), report.targets.len(), report.workloads), (1, 1, 1));
    let want = "error: monitor.yaml:6:30: ServiceMonitor `infer` scrapes the path /metrics, Deployment `infer` serves /v2/metrics (deploy.yaml:13:15, argument `--metrics-path`) [path_mismatch]\n  help: scrape the path /v2/metrics, or let the service serve /metrics";
    assert_eq!(report.findings[0].show(), want);
    // The default is as wrong as the same path written down.
    finds(&with_monitor("{ port: metrics }"), &[("path_mismatch", "monitor.yaml:6:7", "/metrics")]);
    let clean = with_monitor("{ port: metrics, path: /v2/metrics }");
    finds(&clean, &[]);
    assert_eq!(run(&clean).exit_code(), 0);
}

#[test]
fn each_setting_of_a_monitor_is_held_against_what_is_declared() {
    for (endpoint, want) in [
        ("{ port: metrics, path: v2/metrics, scheme: HTTP }", vec![]),
        ("{ port: metrcs, path: /v2/metrics }", vec![("port_name", "monitor.yaml:6:15", "did you mean `metrics`?")]),
        ("{ port: \"9100\", path: /v2/metrics }", vec![("port_name", "monitor.yaml:6:15", "written as targetPort")]),
        ("{ targetPort: 9100, path: /v2/metrics }", vec![]),
        ("{ targetPort: metrics, path: /v2/metrics }", vec![]),
        ("{ targetPort: 9999, path: /v2/metrics }", vec![("port_mismatch", "monitor.yaml:6:21", "only http (8080), metrics (9100)")]),
        ("{ path: /v2/metrics }", vec![("no_port", "monitor.yaml:6:7", "port: metrics")]),
        (
            "{ port: http, path: /v2/metrics }",
            vec![(
                "port_mismatch",
                "monitor.yaml:6:7",
                "scrapes port 8080, Deployment `infer` serves its metrics at 9100 (deploy.yaml:14:15, argument `--metrics-port`)",
            )],
        ),
        ("{ port: metrics, path: /v2/metrics, scheme: ftp }", vec![("scheme", "monitor.yaml:6:51", "http or https")]),
    ] {
        finds(&with_monitor(endpoint), &want);
    }
    let tls = with_monitor("{ port: metrics, path: /v2/metrics }")
        .replace("labels: { app: infer, tier: model }", "labels: { app: infer }\n      annotations: { weir.dev/metrics-scheme: https }");
    finds(&tls, &[("scheme_mismatch", "monitor.yaml:6:7", "serves https (deploy.yaml:9:47, annotation `weir.dev/metrics-scheme`)")]);
}

#[test]
fn a_service_that_leads_to_no_port_of_the_container_is_told_at_the_service() {
    let text =
        with_monitor("{ port: metrics, path: /v2/metrics }").replace("port: 9100, targetPort: metrics", "port: 9100, targetPort: metric");
    finds(&text, &[("port_mismatch", "service.yaml:11:7", "did you mean `metrics`?")]);
    let text = with_monitor("{ port: metrics, path: /v2/metrics }").replace("port: 9100, targetPort: metrics", "port: 9101");
    finds(&text, &[("port_mismatch", "service.yaml:11:7", "leads to port `9101`")]);
}

#[test]
fn a_monitor_that_selects_nothing_says_what_may_be_meant() {
    let base = with_monitor("{ port: metrics, path: /v2/metrics }");
    for (from, to, want) in [
        (
            "selector: { matchLabels: { app: infer } }\n  endpoints",
            "selector: { matchLabels: { app: infr } }\n  endpoints",
            vec![("selects_nothing", "monitor.yaml:4:13", "did you mean `app: infer`, as Service `infer` has it?")],
        ),
        (
            "selector: { matchLabels: { app: infer } }\n  endpoints",
            "namespaceSelector: { matchNames: [dev] }\n  selector: { matchLabels: { app: infer } }\n  endpoints",
            vec![("selects_nothing", "monitor.yaml:5:13", "in namespace prod: add it to namespaceSelector")],
        ),
        ("selector: { matchLabels: { app: infer } }\n  endpoints", "namespaceSelector: { any: true }\n  selector: {}\n  endpoints", vec![]),
        (
            "selector: { matchLabels: { app: infer } }\n  endpoints",
            "selector: { matchExpressions: [{ key: app, operator: In, values: [infer, x] }, { key: y, operator: DoesNotExist }] }\n  endpoints",
            vec![],
        ),
        (
            "selector: { matchLabels: { app: infer } }\n  endpoints",
            "selector: { matchExpressions: [{ key: app, operator: NotIn, values: [infer] }] }\n  endpoints",
            vec![("selects_nothing", "monitor.yaml:4:13", "")],
        ),
        (
            "selector: { matchLabels: { app: infer } }\n  endpoints",
            "selector: { matchExpressions: [{ key: app, operator: Is }] }\n  endpoints",
            vec![("selects_nothing", "monitor.yaml:4:13", ""), ("selector", "monitor.yaml:4:34", "no operator is called `Is`")],
        ),
        (
            "  selector: { matchLabels: { app: infer } }\n  endpoints",
            "  endpoints",
            vec![("no_selector", "monitor.yaml:1:1", "matchLabels")],
        ),
        (
            "spec:\n  selector: { app: infer }",
            "spec:\n  selector: { app: other }",
            vec![("selects_nothing", "monitor.yaml:4:13", "takes none of the workloads here")],
        ),
    ] {
        assert!(base.contains(from), "{from}");
        finds(&base.replace(from, to), &want);
    }
}

#[test]
fn pods_are_scraped_by_monitors_and_annotations() {
    let pod = |annotations: &str, monitor: &str| {
        format!(
            "## pod.yaml\nkind: Pod\nmetadata:\n  name: a\n  labels: {{ app: a }}\n  annotations:\n    weir.dev/metrics-path: /m\n{annotations}spec:\n  containers:\n    - ports: [{{ name: web, containerPort: 80 }}, {{ name: prom, containerPort: 9 }}]\n{monitor}"
        )
    };
    let monitor = |endpoint: &str| {
        format!(
            "---\nkind: PodMonitor\nmetadata: {{ name: p }}\nspec:\n  selector: {{ matchLabels: {{ app: a }} }}\n  podMetricsEndpoints: [{endpoint}]\n"
        )
    };
    for (annotations, endpoint, want) in [
        ("", None, vec![("not_scraped", "pod.yaml:6:28", "nothing here scrapes it")]),
        ("", Some("{ port: prom, path: /m }"), vec![]),
        ("", Some("{ port: prm, path: /m }"), vec![("port_mismatch", "pod.yaml:15:33", "did you mean `prom`?")]),
        ("", Some("{ portNumber: 9, path: /n }"), vec![("path_mismatch", "pod.yaml:15:48", "serves /m (pod.yaml:6:28")]),
        ("    prometheus.io/scrape: \"true\"\n    prometheus.io/port: \"9\"\n    prometheus.io/path: /m\n", None, vec![]),
        (
            "    prometheus.io/scrape: \"true\"\n    prometheus.io/port: \"9\"\n",
            None,
            vec![("path_mismatch", "pod.yaml:7:27", "Pod `a` by its annotations scrapes the path /metrics")],
        ),
        (
            "    prometheus.io/scrape: true\n    prometheus.io/port: 9\n    prometheus.io/path: /m\n",
            None,
            vec![("annotation_type", "pod.yaml:7:27", "\"true\""), ("annotation_type", "pod.yaml:8:25", "\"9\"")],
        ),
        (
            "    prometheus.io/scrape: \"true\"\n    prometheus.io/port: \"99\"\n    prometheus.io/path: /m\n",
            None,
            vec![("port_mismatch", "pod.yaml:8:25", "only web (80), prom (9)")],
        ),
        (
            "    prometheus.io/scrape: \"true\"\n    prometheus.io/port: prom\n    prometheus.io/path: /m\n",
            None,
            vec![("port_number", "pod.yaml:8:25", "the number of a port")],
        ),
        (
            "    prometheus.io/scrape: \"yes\"\n",
            None,
            vec![("not_scraped", "pod.yaml:6:28", ""), ("scrape_value", "pod.yaml:7:27", "\"true\"")],
        ),
        (
            "    prometheus.io/path: /m\n",
            None,
            vec![("not_scraped", "pod.yaml:6:28", ""), ("scrape_missing", "pod.yaml:7:25", "nothing is scraped")],
        ),
        (
            "    prometheus.io/scrape: \"true\"\n    prometheus.io/port: \"9\"\n    prometheus.io/path: /m\n",
            Some("{ port: prom, path: /m }"),
            vec![("scraped_twice", "pod.yaml:18:25", "take one")],
        ),
        (
            "    prometheus.io/scrape: \"true\"\n    prometheus.io/port: \"9\"\n    prometheus.io/path: /m\n",
            Some("{ port: prom, path: /m, scheme: https }"),
            vec![("conflict", "pod.yaml:18:25", "in two ways: https /m and http /m")],
        ),
    ] {
        finds(&pod(annotations, &endpoint.map_or(String::new(), monitor)), &want);
    }
}

#[test]
fn two_monitors_that_scrape_one_port_in_two_ways_are_told_with_both_places() {
    let text = with_monitor("{ port: metrics, path: /v2/metrics }")
        + "## second.yaml\nkind: ServiceMonitor\nmetadata: { name: other }\nspec:\n  selector: { matchLabels: { app: infer } }\n  endpoints: [{ targetPort: 9100, path: /v2/metrics, scheme: https }]\n";
    finds(
        &text,
        &[("conflict", "second.yaml:5:15", "ServiceMonitor `other` and ServiceMonitor `infer` (monitor.yaml:6:7) scrape port 9100")],
    );
}

#[test]
fn what_a_container_declares_is_read_in_every_form() {
    let deployment = |container: &str| {
        format!(
            "## d.yaml\nkind: StatefulSet\nmetadata: {{ name: a }}\nspec:\n  template:\n    metadata:\n      labels: {{ app: a }}\n      annotations: {{ prometheus.io/scrape: \"true\", prometheus.io/port: \"9\" }}\n    spec:\n      containers:\n        - {container}\n"
        )
    };
    for (container, want) in [
        ("args: [--web.telemetry-path=/x]", Some("argument `--web.telemetry-path`")),
        ("args: [-metrics-path, /x]", Some("argument `--metrics-path`")),
        ("args: [\"--metrics-path\", \"--other\"]", None),
        ("command: [sh, -c, 'exec app --metrics-path=\"/x\" --b']", Some("argument `--metrics-path`")),
        ("env: [{ name: METRICS_PATH, value: /x }]", Some("variable `METRICS_PATH`")),
        ("env: [{ name: APP_METRICS_PATH, value: /x }]", Some("variable `APP_METRICS_PATH`")),
        ("env: [{ name: METRICS_PATH, valueFrom: { configMapKeyRef: { name: a, key: b } } }]", None),
        ("{ args: [--metrics-path=$(P)], env: [{ name: P, value: /x }] }", Some("argument `--metrics-path`")),
        ("{ args: [--metrics-path=$(P)] }", None),
        ("{ args: [\"--metrics-path=${P}\"] }", None),
        ("readinessProbe: { httpGet: { path: /x/metrics, port: 9 } }", Some("`readinessProbe`")),
        ("readinessProbe: { httpGet: { path: /healthz, port: 9 } }", None),
        ("args: [--metrics-path=/metrics]", None),
        ("env: [{ name: METRICS_PORT, value: \"10\" }]", Some("variable `METRICS_PORT`")),
        ("args: [--web.listen-address=0.0.0.0:10]", Some("argument `--web.listen-address`")),
        ("args: ['--metrics-bind-address=:9']", None),
        ("args: ['--metrics-bind-address=0']", None),
        ("env: [{ name: METRICS_SCHEME, value: https }]", Some("variable `METRICS_SCHEME`")),
        ("{ args: [--metrics-path=/metrics], env: [{ name: METRICS_PATH, value: /x }] }", Some("declares two paths")),
    ] {
        let report = run(&deployment(container));
        match want {
            None => assert!(report.findings.is_empty(), "{container}\n{}", report.findings[0].show()),
            Some(form) => {
                let shown: Vec<String> = report.findings.iter().map(Finding::show).collect();
                assert!(report.findings.len() == 1 && shown[0].contains(form), "{container}\n{}", shown.join("\n"));
            }
        }
    }
}

#[test]
fn jobs_of_prometheus_are_held_against_the_services_that_their_targets_name() {
    for (job, want) in [
        ("metrics_path: /v2/metrics, static_configs: [{ targets: ['infer.prod.svc.cluster.local:9100', 'elsewhere:1'] }]", vec![]),
        ("static_configs: [{ targets: ['infer:9100'] }]", vec![("path_mismatch", "prom.yml:3:5", "job `a` scrapes the path /metrics")]),
        (
            "static_configs: [{ targets: ['infer:9100'], labels: { __metrics_path__: /v3 } }]",
            vec![("path_mismatch", "prom.yml:3:92", "scrapes the path /v3")],
        ),
        ("metrics_path: /v2/metrics, static_configs: [{ targets: ['infer.dev:9100'] }]", vec![]),
        (
            "metrics_path: /v2/metrics, static_configs: [{ targets: ['infer:9200'] }]",
            vec![("port_mismatch", "prom.yml:3:76", "only http (80), metrics (9100)")],
        ),
        (
            "metrics_path: /v2/metrics, static_configs: [{ targets: ['http://infer:9100/'] }]",
            vec![("target", "prom.yml:3:76", "host:port")],
        ),
        ("metrics_path: /v2/metrics, static_configs: [{ targets: ['infer:http'] }]", vec![("target", "prom.yml:3:76", "host:port")]),
        (
            "metrics_path: /v2/metrics, scheme: gopher, static_configs: [{ targets: ['infer:9100'] }]",
            vec![("scheme", "prom.yml:3:55", "http or https")],
        ),
    ] {
        let text = format!("{DEPLOYMENT}{SERVICE}## prom.yml\nglobal: {{}}\nscrape_configs:\n  - {{ job_name: a, {job} }}\n");
        finds(&text, &want);
    }
}

#[test]
fn broken_yaml_is_told_at_its_place_and_the_other_files_are_checked() {
    let text = format!("## bad.yaml\na: [b\nc: d\n{}", with_monitor("{ port: metrics }"));
    let report = run(&text);
    let rules: Vec<&str> = report.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!((rules, report.exit_code()), (vec!["unreadable", "path_mismatch"], 2));
    assert_eq!((report.findings[0].file.as_str(), report.findings[0].line), ("bad.yaml", 2));
    let template = run("## t.yaml\na: {{ .Values.b }}: x: [\n");
    assert!(template.findings[0].help.contains("render it first"), "{}", template.findings[0].show());
    for nothing in [
        "## empty.yaml\n",
        "## text.yaml\nhello\n",
        "## list.yaml\n- 1\n",
        "## kind.yaml\nkind: [a]\n",
        "## null.yaml\nkind: Deployment\nspec: ~\n",
    ] {
        finds(nothing, &[]);
    }
}

#[test]
fn of_32_models_the_one_whose_path_changed_is_found_before_it_is_rolled_out() {
    let model = |n: usize, path: &str| {
        format!(
            "## m{n}.yaml\nkind: Deployment\nmetadata: {{ name: m{n} }}\nspec:\n  template:\n    metadata:\n      labels: {{ model: m{n} }}\n      annotations: {{ weir.dev/metrics-required: 'latency, up' }}\n    spec:\n      containers:\n        - args: ['--metrics-path={path}']\n          ports: [{{ name: metrics, containerPort: 9100 }}]\n---\nkind: Service\nmetadata: {{ name: m{n}, labels: {{ kind: model }} }}\nspec:\n  selector: {{ model: m{n} }}\n  ports: [{{ name: metrics, port: 80, targetPort: metrics }}]\n"
        )
    };
    let models: String = (0..32).map(|n| model(n, if n == 7 { "/v2/metrics" } else { "/metrics" })).collect();
    let text = models
        + "## all.yaml\nkind: ServiceMonitor\nmetadata: { name: models }\nspec:\n  selector: { matchLabels: { kind: model } }\n  endpoints: [{ port: metrics }]\n";
    finds(&text, &[("path_mismatch", "all.yaml:5:15", "Deployment `m7` serves /v2/metrics (m7.yaml:10:18, argument `--metrics-path`)")]);
    let report = run(&text);
    assert_eq!(report.targets.len(), 32);
    let want = Target {
        by: "ServiceMonitor `models`".into(),
        of: "Deployment `m3`".into(),
        service: Some(("m3".into(), None)),
        scheme: "http".into(),
        port: Some(9100),
        path: "/metrics".into(),
        required: vec!["latency".into(), "up".into()],
    };
    assert_eq!(report.targets[3], want);
}

#[test]
fn annotations_that_no_pod_has_are_told() {
    let text = "## d.yaml\nkind: Deployment\nmetadata: { name: a, annotations: { prometheus.io/scrape: \"true\" } }\nspec: { template: { spec: { containers: [] } } }\n";
    finds(text, &[("annotation_place", "d.yaml:2:59", "spec.template.metadata")]);
}

#[test]
fn lists_and_merges_are_looked_into() {
    let list = "## l.yaml\nkind: List\nitems:\n  - kind: Pod\n    metadata: { name: a, annotations: { <<: &x { weir.dev/metrics-path: /m }, prometheus.io/scrape: \"true\" } }\n    spec: { containers: [{ ports: [{ containerPort: 9 }] }] }\n";
    finds(list, &[("path_mismatch", "l.yaml:4:101", "serves /m (l.yaml:4:73")]);
}

#[test]
fn findings_are_bounded() {
    let pods: String = (0..FINDINGS_MAX * 2)
        .map(|n| format!("---\nkind: Pod\nmetadata: {{ name: p{n}, annotations: {{ prometheus.io/scrape: true }} }}\n"))
        .collect();
    let report = run(&format!("## many.yaml\n{pods}"));
    assert_eq!((report.findings.len(), report.exit_code()), (FINDINGS_MAX, 1));
    assert!(report.findings.iter().any(|finding| finding.rule == "too_many"));
}

#[test]
fn manifests_that_all_select_each_other_end_in_time() {
    let one = |n: usize| {
        format!(
            "---\nkind: Pod\nmetadata: {{ name: p{n}, labels: {{ a: b }} }}\nspec: {{ containers: [{{ ports: [{{ containerPort: 9 }}] }}] }}\n---\nkind: PodMonitor\nmetadata: {{ name: m{n} }}\nspec: {{ selector: {{}}, podMetricsEndpoints: [{{ portNumber: 9 }}] }}\n"
        )
    };
    let text: String = (0..1500).map(one).collect();
    let report = run(&format!("## all.yaml\n{text}"));
    assert!(report.targets.len() <= SCRAPES_MAX && report.findings.len() <= FINDINGS_MAX && report.exit_code() == 1);
}

proptest! {
    /// Manifests with parts taken out or put in anywhere are no panic, and places are within their files.
    #[test]
    fn no_manifest_is_a_panic(cut in 0usize..2000, len in 0usize..60, put in "(kind: |- |\\{|\\[|\\}|: |\n|\"|9|~|&a |\\*a|<<: ){0,4}") {
        let whole = with_monitor("{ port: metrics, path: /x }") + "---\nkind: PodMonitor\nspec: { selector: {}, podMetricsEndpoints: [{ port: a }] }\nscrape_configs: []\n";
        let cut = cut % whole.len();
        let end = (cut + len).min(whole.len());
        let text = format!("{}{put}{}", &whole[..cut], &whole[end..]);
        if text.starts_with("## ") {
            for finding in run(&text).findings {
                prop_assert!(!finding.show().is_empty());
            }
        }
    }
}
