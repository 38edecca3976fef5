//! Tests of the metadata source: what is asked for logs while files change, and which files are our own.

use super::*;

/// A place with a metadata file, and a source that reads it when told to.
struct Bench {
    folder: tempfile::TempDir,
    config: KubernetesConfig,
    reader: Reader,
    kubernetes: Arc<Kubernetes>,
    start: Instant,
}

impl Bench {
    fn new(change: impl FnOnce(&mut KubernetesConfig)) -> Bench {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let metadata = MetadataConfig {
            path: folder.path().join("meta"),
            refresh: refresh(),
            wait: wait(),
            ttl: Span(0),
            bytes_max: ByteSize(4096),
            pods_max: 10,
        };
        let mut config = KubernetesConfig { metadata: Some(metadata.clone()), ..KubernetesConfig::default() };
        config.own.pod = Some("weir-x1".into());
        change(&mut config);
        // The thread of `open` waits for a second; the test's own reader is faster.
        let kubernetes = Kubernetes::open(&config, false, false).expect("a thread can be started");
        let keep = config.annotations.keep.clone();
        let reader = Reader::new(config.metadata.clone().unwrap_or(metadata), keep, Arc::clone(&kubernetes.counts));
        Bench { folder, config, reader, kubernetes, start: Instant::now() }
    }

    fn write(&mut self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("folder made");
        std::fs::write(path, text).expect("file written");
        self.refresh();
    }

    fn refresh(&mut self) {
        let known = Arc::clone(self.kubernetes.known.as_ref().expect("tests have metadata"));
        self.reader.refresh(&known);
    }

    fn attach(&self, path: &str) -> Attached {
        self.kubernetes.attach(Path::new(path), self.start)
    }

    /// What is said after a while.
    fn said(&self, log: &mut Attached, seconds: u64) -> String {
        said(log.ready(self.start + Duration::from_secs(seconds)))
    }

    fn refused(&self) -> u64 {
        self.kubernetes.counts.files_refused.load(Ordering::Relaxed)
    }
}

fn said(readiness: Readiness) -> String {
    match readiness {
        Readiness::Ready(splice) => format!("ready {}", payer(&splice)),
        Readiness::Wait => "wait".into(),
        Readiness::Missing(splice) => format!("missing {}", payer(&splice)),
        Readiness::Plain => "plain".into(),
        Readiness::Own => "own".into(),
    }
}

fn payer(splice: &Splice) -> String {
    match &splice.payer {
        flow::batch::Payer::Named(Some(name)) => String::from_utf8_lossy(name).into_owned(),
        other => format!("{other:?}"),
    }
}

const LOG: &str = "/var/log/pods/prod_api_u-1/web/0.log";

fn pod(name: &str, uid: &str, tenant: &str) -> String {
    format!(r#"{{"namespace":"prod","name":"{name}","uid":"{uid}","labels":{{"tenant":"{tenant}"}}}}"#)
}

#[test]
fn a_log_waits_for_its_pod_then_goes_without_and_takes_labels_when_they_come() {
    let mut bench = Bench::new(|_| {});
    let mut log = bench.attach(LOG);
    assert_eq!(bench.said(&mut log, 4), "wait");
    assert_eq!(bench.said(&mut log, 5), "missing Named(None)");
    assert_eq!(bench.said(&mut log, 6), "missing Named(None)");
    assert_eq!(bench.kubernetes.counts.logs_missing.load(Ordering::Relaxed), 1);
    bench.write("meta", &pod("api", "u-1", "acme"));
    assert_eq!(bench.said(&mut log, 7), "ready acme");
    assert_eq!(bench.said(&mut bench.attach("/var/log/syslog"), 0), "plain");
    let own = "/var/log/pods/ops_weir-x1_u-9/weir/0.log";
    assert_eq!(bench.said(&mut bench.attach(own), 0), "own");
    assert!(bench.kubernetes.is_own(Path::new(own)) && !bench.kubernetes.is_own(Path::new(LOG)));
}

#[test]
fn changed_replaced_and_broken_files_are_noticed() {
    let mut bench = Bench::new(|_| {});
    let mut log = bench.attach(LOG);
    bench.write("meta", &pod("api", "u-1", "acme"));
    assert_eq!(bench.said(&mut log, 0), "ready acme");
    // The same size: only the time of the change tells.
    bench.write("meta", &pod("api", "u-1", "beta"));
    assert_eq!(bench.said(&mut log, 0), "ready beta");
    bench.write("meta.new", &pod("api", "u-1", "acme"));
    std::fs::rename(bench.folder.path().join("meta.new"), bench.folder.path().join("meta")).expect("renamed");
    bench.refresh();
    assert_eq!(bench.said(&mut log, 0), "ready acme");
    let generation = bench.kubernetes.known.as_ref().expect("metadata").generation.load(Ordering::Relaxed);
    for broken in ["{\"pods\":[", "", "no json", &format!("[{}]", " ".repeat(5000))] {
        let before = bench.refused();
        bench.write("meta", broken);
        bench.refresh();
        assert_eq!((bench.said(&mut log, 0), bench.refused() - before), ("ready acme".into(), 1), "{broken:.20}");
    }
    let after = bench.kubernetes.known.as_ref().expect("metadata").generation.load(Ordering::Relaxed);
    assert_eq!(after, generation, "nothing changed");
    bench.write("meta", &pod("api", "u-1", "gamma"));
    assert_eq!(bench.said(&mut log, 0), "ready gamma");
    std::fs::remove_file(bench.folder.path().join("meta")).expect("removed");
    bench.refresh();
    bench.refresh();
    assert_eq!(bench.said(&mut log, 9), "missing Named(None)", "with a ttl of 0 it is forgotten at once");
}

#[test]
fn a_folder_is_read_file_by_file() {
    let mut bench = Bench::new(|_| {});
    let mut log = bench.attach(LOG);
    let mut other = bench.attach("/var/log/pods/prod_db_u-2/web/0.log");
    bench.write("meta/a.json", &pod("api", "u-1", "acme"));
    bench.write("meta/b.json", &pod("db", "u-2", "beta"));
    bench.write("meta/.hidden.json", &pod("api", "u-1", "evil"));
    bench.write("meta/c.json.tmp", &pod("api", "u-1", "evil"));
    bench.write("meta/d.json/x.json", &pod("api", "u-1", "evil"));
    assert_eq!((bench.said(&mut log, 0), bench.said(&mut other, 0)), ("ready acme".into(), "ready beta".into()));
    bench.write("meta/b.json", "{");
    bench.write("meta/a.json", &pod("api", "u-1", "gamma"));
    assert_eq!((bench.said(&mut log, 0), bench.said(&mut other, 0)), ("ready gamma".into(), "ready beta".into()));
    assert_eq!(bench.refused(), 2, "the folder d.json and the broken file");
    std::fs::remove_file(bench.folder.path().join("meta/a.json")).expect("removed");
    bench.refresh();
    bench.refresh();
    assert_eq!((bench.said(&mut log, 0), bench.said(&mut other, 0)), ("wait".into(), "ready beta".into()));
}

#[test]
fn a_pod_that_went_keeps_its_labels_for_the_ttl() {
    let mut bench = Bench::new(|config| config.metadata.as_mut().expect("tests have metadata").ttl = Span(3_600_000_000_000));
    let mut log = bench.attach(LOG);
    bench.write("meta", &pod("api", "u-1", "acme"));
    bench.write("meta", &pod("api", "u-2", "beta"));
    assert_eq!(bench.said(&mut log, 0), "ready acme");
    assert_eq!(bench.said(&mut bench.attach("/var/log/pods/prod_api_u-2/web/0.log"), 0), "ready beta");
}

#[test]
fn pods_beyond_the_limit_are_left_out_and_counted() {
    let mut bench = Bench::new(|_| {});
    let pods: Vec<String> = (0..15).map(|n| pod(&format!("p-{n}"), "u", "acme")).collect();
    bench.write("meta", &pods.join("\n"));
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let counts = &bench.kubernetes.counts;
    assert_eq!((count(&counts.pods), count(&counts.pods_left_out)), (10, 5));
}

#[test]
fn what_a_pod_may_not_ask_for_is_counted_once() {
    let mut bench = Bench::new(|_| {});
    let mut log = bench.attach(LOG);
    for tenant in ["acme", "beta"] {
        let text = pod("api", "u-1", tenant).replace("\"labels\"", r#""annotations":{"weir.io/exclude":"true"},"labels""#);
        bench.write("meta", &text);
        assert_eq!(bench.said(&mut log, 0), format!("ready {tenant}"));
    }
    assert_eq!(bench.kubernetes.counts.wishes_ignored.load(Ordering::Relaxed), 1);
}

#[test]
fn without_a_source_paths_alone_say_it() {
    let mut bench = Bench::new(|config| {
        config.metadata = None;
        config.tenant.map.insert("prod".into(), "acme".into());
    });
    assert_eq!(bench.said(&mut bench.attach(LOG), 0), "ready acme");
    bench.config.own = OwnConfig::default();
    let own = |config: &OwnConfig, hostname: &str| config.own(Some(hostname.into())).map(|own| own.pod);
    assert_eq!(own(&OwnConfig::default(), "weir-1"), Some("weir-1".into()));
    assert_eq!(own(&OwnConfig::default(), ""), None);
    assert_eq!(own(&OwnConfig { read: true, ..OwnConfig::default() }, "weir-1"), None);
    assert_eq!(own(&OwnConfig { uid: Some("u".into()), ..OwnConfig::default() }, "weir-1"), Some(String::new()));
}

#[test]
fn links_are_followed_to_the_pods_path_and_loops_end() {
    let bench = Bench::new(|_| {});
    let root = bench.folder.path();
    let id = "0123456789abcdef".repeat(4);
    let docker = root.join("docker").join(&id).join(format!("{id}-json.log"));
    let pods = root.join("pods/prod_api_u-1/web/2.log");
    for path in [&docker, &pods, &root.join("containers/x")] {
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("folder made");
    }
    std::fs::write(&docker, "").expect("written");
    std::os::unix::fs::symlink(&docker, &pods).expect("linked");
    let place = |name: &str, target: &Path| {
        let link = root.join("containers").join(name);
        std::os::unix::fs::symlink(target, &link).expect("linked");
        let log = bench.kubernetes.attach(&link, bench.start);
        log.place.as_ref().map_or("none".into(), |p| format!("{}/{}/{}/{}", p.namespace, p.pod, p.uid, p.container))
    };
    assert_eq!(place(&format!("api_prod_web-{id}.log"), &pods), "prod/api/u-1/web");
    assert_eq!(place("cut.log", Path::new("../pods/prod_api_u-1/web/2.log")), "prod/api/u-1/web");
    assert_eq!(place("docker.log", &docker), "none");
    assert_eq!(place(&format!("db_prod_web-{id}.log"), &docker), "prod/db//web");
    assert_eq!(place(&format!("gone_prod_web-{id}.log"), Path::new("/nowhere/at/all.log")), "prod/gone//web");
    assert_eq!(place("loop.log", &root.join("containers/loop.log")), "none");
    std::os::unix::fs::symlink(root.join("pods/prod_api_u-1/web"), root.join("folder")).expect("linked");
    assert_eq!(bench.kubernetes.attach(&root.join("folder/2.log"), bench.start).place, None, "its end is docker's");
}

#[test]
fn own_outputs_are_known_by_folder_and_template() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    let archives = [(root.join("out"), "{tenant}/{service}.log".to_string()), (root.to_path_buf(), "all.log".to_string())];
    let outputs = Outputs::new(&[root.join("lake")], &archives);
    let check = |name: &str, want: bool| assert_eq!(outputs.hold(&root.join(name)), want, "{name}");
    for own in ["lake/a/b.json", "out/acme/web.log", "out/acme/web-2026.log.gz", "out/acme/web.log.zst", "all.log", "all-2026-01-01.log"] {
        check(own, true);
    }
    for other in ["in/a.log", "out/web.log", "out/a/b/c.log", "out/acme/web.txt", "allother.log", "lakes/a.json", "x/all.log"] {
        check(other, false);
    }
    std::fs::create_dir_all(root.join("out/acme")).expect("folder made");
    std::fs::write(root.join("out/acme/web.log"), "").expect("written");
    std::os::unix::fs::symlink(root.join("out/acme/web.log"), root.join("link.log")).expect("linked");
    check("link.log", true);
}
