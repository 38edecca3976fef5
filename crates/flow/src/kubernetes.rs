//! Whose log this is: what the path of a container's log says, and what is known of its pod.
//!
//! In: paths of a node (`/var/log/pods`, links in `/var/log/containers`), and what somebody wrote down about
//! pods and namespaces. Out: a [`Place`], and the labels, annotations and tenant that belong to it. A path of
//! another shape is not a pod's: that is no error. Memory: [`Catalog`] holds at most twice the pods it is
//! told to (those that are there, and those that went less than `ttl` ago); of each at most [`LABELS_MAX`]
//! labels and as many annotations of [`LABEL_BYTES_MAX`]. What is beyond is left out and counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Most labels, and most annotations, of one pod or namespace.
pub const LABELS_MAX: usize = 64;
/// Longest label or annotation, name and value together. Kubernetes allows 380 bytes for a label.
pub const LABEL_BYTES_MAX: usize = 1024;
/// Longest name of anything (a pod's is at most 253 bytes).
pub const NAME_BYTES_MAX: usize = 253;
/// Most containers of one pod that are kept.
pub const CONTAINERS_MAX: usize = 64;
/// Mirrors of static pods say here which uid their logs have.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotations with which a pod asks for something.
const CONTROL: [&str; 2] = ["weir.io/", "fluentbit.io/"];

/// One container of one pod, as its log's path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub namespace: String,
    pub pod: String,
    /// Empty where only a link's name is known.
    pub uid: String,
    pub container: String,
    pub restart: Option<u32>,
}

impl Place {
    /// Reads `.../<namespace>_<pod>_<uid>/<container>/<restart>.log`, whatever stands in front, and the same
    /// with what a rotation adds to the name. Parsed from the right, as names hold `-` and `.` but never `_`.
    pub fn of_path(path: &str) -> Option<Place> {
        let mut parts = path.rsplit('/');
        let (file, container, folder) = (parts.next()?, parts.next()?, parts.next()?);
        let (restart, rest) = file.split_once(".log")?;
        if !(rest.is_empty() || rest.starts_with('.')) || !restart.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mut names = folder.rsplit('_');
        let (uid, pod, namespace) = (names.next()?, names.next()?, names.next()?);
        if names.next().is_some() || ![uid, pod, namespace, container].into_iter().all(is_name) {
            return None;
        }
        Some(Place {
            namespace: namespace.into(),
            pod: pod.into(),
            uid: uid.into(),
            container: container.into(),
            restart: Some(restart.parse().ok()?),
        })
    }

    /// Reads the name of a link, `<pod>_<namespace>_<container>-<id>.log`. The kubelet cuts long names at 255
    /// bytes; without the whole id nobody can tell what else is missing, so such a name says nothing.
    pub fn of_link(path: &str) -> Option<Place> {
        let file = path.rsplit('/').next()?;
        let (names, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
        if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut names = names.rsplit('_');
        let (container, namespace, pod) = (names.next()?, names.next()?, names.next()?);
        if names.next().is_some() || ![container, namespace, pod].into_iter().all(is_name) {
            return None;
        }
        Some(Place { namespace: namespace.into(), pod: pod.into(), uid: String::new(), container: container.into(), restart: None })
    }

    /// The first that says something: each path in turn (a link, what it points to, what that points to),
    /// and only then the name of the link itself.
    pub fn of_hops<'a>(hops: impl Iterator<Item = &'a str> + Clone) -> Option<Place> {
        hops.clone().find_map(Place::of_path).or_else(|| hops.into_iter().find_map(Place::of_link))
    }
}

/// Names come into records, tenants and folders: what Kubernetes itself would refuse is no name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// The pod that weir runs in; what is empty is not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    pub pod: String,
    pub namespace: String,
    pub uid: String,
}

impl Own {
    /// Is this our own log? Reading it would make a line of every line.
    pub fn is(&self, place: &Place) -> bool {
        let pairs = [(&self.pod, &place.pod), (&self.namespace, &place.namespace), (&self.uid, &place.uid)];
        pairs.iter().any(|(own, _)| !own.is_empty()) && pairs.iter().all(|(own, is)| own.is_empty() || own == is)
    }
}

/// Names and values, by name.
pub type Pairs = BTreeMap<Box<str>, Box<str>>;

/// What is known of a pod or a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Empty where nobody said it.
    pub uid: Box<str>,
    pub labels: Pairs,
    /// Only those that somebody asked for, and those with which pods ask for something.
    pub annotations: Pairs,
    pub node: Box<str>,
    pub ip: Box<str>,
    pub containers: Vec<Container>,
}

/// A container of a pod, and what was set apart for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub name: Box<str>,
    /// Without the runtime's name in front; empty where nobody said it.
    pub id: Box<str>,
    /// Requests, in thousandths of a processor and in bytes; 0: none.
    pub millicores: u64,
    pub memory_bytes: u64,
}

/// A quantity as Kubernetes writes it (`500m`, `1.5`, `2Gi`, `1e3`), in thousandths, rounded up. `None`: it is none, or beyond 2^63.
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
pub fn quantity_milli(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || whole.len() + fraction.len() > 20 || fraction.contains('.') {
        return None;
    }
    let scale: u128 = match suffix {
        "" => 1_000,
        "m" => 1,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        _ => 1_000 * 10u128.pow(suffix.strip_prefix(['e', 'E'])?.parse::<u32>().ok().filter(|power| *power <= 15)?),
    };
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let value = digits.checked_mul(scale)?.div_ceil(10u128.pow(fraction.len() as u32));
    u64::try_from(value).ok().filter(|value| *value <= i64::MAX as u64)
}

/// Counts what a limit left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Pods and namespaces.
    pub pods: u64,
    /// Labels and annotations.
    pub labels: u64,
}

impl LeftOut {
    pub fn add(&mut self, other: LeftOut) {
        self.pods += other.pods;
        self.labels += other.labels;
    }
}

impl Facts {
    /// Adds a label within the limits.
    pub fn add_label(&mut self, name: &str, value: &str, left_out: &mut LeftOut) {
        add(&mut self.labels, name, value, left_out);
    }

    /// Adds a container within the limit.
    pub fn add_container(&mut self, container: Container, left_out: &mut LeftOut) {
        if self.containers.len() >= CONTAINERS_MAX {
            left_out.labels += 1;
        } else {
            self.containers.push(container);
        }
    }

    /// Adds an annotation if it is one of `keep`, or one that asks for something; others are not looked at.
    pub fn add_annotation(&mut self, name: &str, value: &str, keep: &[String], left_out: &mut LeftOut) {
        if name == CONFIG_HASH || CONTROL.iter().any(|prefix| name.starts_with(prefix)) || keep.iter().any(|k| k == name) {
            add(&mut self.annotations, name, value, left_out);
        }
    }
}

fn add(pairs: &mut Pairs, name: &str, value: &str, left_out: &mut LeftOut) {
    let fits = name.len() + value.len() <= LABEL_BYTES_MAX && !name.is_empty();
    if !fits || (pairs.len() >= LABELS_MAX && !pairs.contains_key(name)) {
        left_out.labels += 1;
    } else {
        pairs.insert(name.into(), value.into());
    }
}

/// What one file of the metadata source says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub namespaces: Vec<(Box<str>, Arc<Facts>)>,
    /// Namespace, name.
    pub pods: Vec<(Box<str>, Box<str>, Arc<Facts>)>,
    pub left_out: LeftOut,
}

/// Everything known about pods and namespaces at one time.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    namespaces: BTreeMap<Box<str>, Namespace>,
    /// Pods in here, those that went included.
    pods: usize,
    pub left_out: LeftOut,
}

#[derive(Clone, Debug, Default)]
struct Namespace {
    /// `None` where only its pods are known.
    facts: Option<Known>,
    /// Pods by name; a name that is used again stands here once for each uid.
    pods: BTreeMap<Box<str>, Vec<Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    facts: Arc<Facts>,
    /// Nobody has named it for a while: forgotten at this time.
    until: Option<Duration>,
}

impl Catalog {
    /// What the listings say, the later ones over the earlier ones; what `self` knows and they do not name
    /// any more stays for `ttl`, so that the last lines of a pod that is gone still have their labels.
    ///
    /// `now`: time since some fixed moment. `pods_max`: most pods of the listings, and most that went.
    pub fn next<'a>(&self, listings: impl Iterator<Item = &'a Listing>, now: Duration, ttl: Duration, pods_max: usize) -> Catalog {
        let mut next = Catalog::default();
        for listing in listings {
            next.left_out.add(listing.left_out);
            for (name, facts) in &listing.namespaces {
                if next.namespaces.len() >= pods_max && !next.namespaces.contains_key(name) {
                    next.left_out.pods += 1;
                    continue;
                }
                let known = Known { facts: Arc::clone(facts), until: None };
                next.namespaces.entry(name.clone()).or_default().facts = Some(known);
            }
            for (namespace, name, facts) in &listing.pods {
                if !next.put(namespace, name, Known { facts: Arc::clone(facts), until: None }, pods_max) {
                    next.left_out.pods += 1;
                }
            }
        }
        let later = |known: &Known| known.until.unwrap_or(now + ttl);
        for (name, old) in &self.namespaces {
            let room = next.namespaces.len() < pods_max.saturating_mul(2) || next.namespaces.contains_key(name);
            if let Some(facts) = old.facts.as_ref().filter(|known| room && later(known) > now) {
                let entry = next.namespaces.entry(name.clone()).or_default();
                if entry.facts.is_none() {
                    entry.facts = Some(Known { facts: Arc::clone(&facts.facts), until: Some(later(facts)) });
                }
            }
            for (pod, all) in &old.pods {
                for known in all.iter().filter(|known| later(known) > now) {
                    let gone = Known { facts: Arc::clone(&known.facts), until: Some(later(known)) };
                    next.put(name, pod, gone, pods_max.saturating_mul(2));
                }
            }
        }
        next
    }

    /// Adds a pod; one that is there is replaced, unless the new one is gone. False if there is no room.
    fn put(&mut self, namespace: &str, name: &str, known: Known, pods_max: usize) -> bool {
        let room = self.pods < pods_max;
        if let Some(entry) = self.namespaces.get_mut(namespace)
            && let Some(all) = entry.pods.get_mut(name)
            && let Some(same) = all.iter_mut().find(|k| k.facts.uid == known.facts.uid)
        {
            if known.until.is_none() {
                *same = known;
            }
            return true;
        }
        if room {
            self.namespaces.entry(namespace.into()).or_default().pods.entry(name.into()).or_default().push(known);
            self.pods += 1;
        }
        room
    }

    /// Pods in here, those that went included.
    pub fn len(&self) -> usize {
        self.pods
    }

    pub fn is_empty(&self) -> bool {
        self.pods == 0
    }

    /// When something will be forgotten next.
    pub fn expires(&self) -> Option<Duration> {
        let all = self.namespaces.values().flat_map(|n| n.pods.values().flatten().chain(&n.facts));
        all.filter_map(|known| known.until).min()
    }

    /// The pod at a place. A pod of the same name with another uid is another pod: its labels are not ours.
    pub fn pod(&self, place: &Place) -> Option<&Facts> {
        let all = self.namespaces.get(place.namespace.as_str())?.pods.get(place.pod.as_str())?;
        let facts = |is: &dyn Fn(&Known) -> bool| all.iter().find(|known| is(known)).map(|known| &*known.facts);
        if place.uid.is_empty() {
            return facts(&|known| known.until.is_none()).or_else(|| facts(&|_| true));
        }
        // A static pod's logs are named by a hash of its manifest, its mirror by a uid of its own.
        let is_static = place.uid.len() == 32 && place.uid.bytes().all(|b| b.is_ascii_hexdigit());
        facts(&|known| *known.facts.uid == *place.uid)
            .or_else(|| facts(&|known| known.facts.annotations.get(CONFIG_HASH).is_some_and(|hash| **hash == *place.uid)))
            .or_else(|| facts(&|known| known.facts.uid.is_empty()))
            .or_else(|| facts(&|known| is_static && known.until.is_none() && !known.facts.annotations.contains_key(CONFIG_HASH)))
    }

    /// All pods, those that went included: namespace, name, what is known.
    pub fn pods(&self) -> impl Iterator<Item = (&str, &str, &Facts)> {
        self.namespaces.iter().flat_map(|(namespace, all)| {
            all.pods.iter().flat_map(move |(pod, known)| known.iter().map(move |known| (&**namespace, &**pod, &*known.facts)))
        })
    }

    pub fn namespace(&self, name: &str) -> Option<&Facts> {
        self.namespaces.get(name)?.facts.as_ref().map(|known| &*known.facts)
    }
}

/// How a pod's tenant is found.
#[derive(Clone, Debug, Default)]
pub struct TenantRule {
    /// Label of the pod, or else of its namespace.
    pub label: String,
    /// Namespace to tenant, where neither has the label.
    pub map: BTreeMap<String, String>,
}

impl TenantRule {
    /// The tenant: label of the pod, label of the namespace, the map; an empty label is no label. `None`:
    /// nobody can tell, so the records belong to the unknown tenant.
    pub fn tenant<'a>(&'a self, namespace: &str, pod: Option<&'a Facts>, of_namespace: Option<&'a Facts>) -> Option<&'a str> {
        let label = |facts: &'a Facts| facts.labels.get(self.label.as_str()).map(|v| &**v).filter(|v| !v.trim().is_empty());
        let of_map = || self.map.get(namespace).map(String::as_str);
        pod.and_then(label).or_else(|| of_namespace.and_then(label)).or_else(of_map)
    }
}

/// stdout or stderr of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Unknown,
    Stdout,
    Stderr,
}

impl Output {
    pub const ALL: [Output; 3] = [Output::Unknown, Output::Stdout, Output::Stderr];

    pub fn name(self) -> &'static str {
        match self {
            Output::Unknown => "",
            Output::Stdout => "stdout",
            Output::Stderr => "stderr",
        }
    }
}

/// What a pod's annotations ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// By [`Output`]: its lines are dropped.
    pub exclude: [bool; 3],
    /// `Some(true)`: lines are text whatever they look like; `Some(false)`: a line that is a JSON object is one.
    pub text: Option<bool>,
}

impl Wishes {
    /// Reads them for one container. What names output and container goes over what names less.
    pub fn read(annotations: &Pairs, container: &str) -> Wishes {
        let mut wishes = Wishes::default();
        for output in Output::ALL {
            let wish = CONTROL.iter().find_map(|prefix| most_special(annotations, &format!("{prefix}exclude"), output, container));
            wishes.exclude[output as usize] = wish.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        }
        wishes.text = match most_special(annotations, "weir.io/format", Output::Unknown, container) {
            Some("text") => Some(true),
            Some("json") => Some(false),
            _ => None,
        };
        wishes
    }

    pub fn is_empty(&self) -> bool {
        *self == Wishes::default()
    }
}

fn most_special<'a>(annotations: &'a Pairs, base: &str, output: Output, container: &str) -> Option<&'a str> {
    let names = match output {
        Output::Unknown => vec![format!("{base}-{container}"), base.to_string()],
        _ => {
            let output = output.name();
            vec![format!("{base}_{output}-{container}"), format!("{base}-{container}"), format!("{base}_{output}"), base.to_string()]
        }
    };
    names.iter().find_map(|name| annotations.get(name.as_str())).map(|value| &**value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// namespace/pod/uid/container/restart
    #[track_caller]
    fn check(place: Option<Place>, want: &str) {
        let text = |p: Place| {
            format!("{}/{}/{}/{}/{}", p.namespace, p.pod, p.uid, p.container, p.restart.map_or(String::new(), |r| r.to_string()))
        };
        assert_eq!(place.map_or("none".into(), text), want);
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, want) in [
            ("500m", Some(500)),
            ("2", Some(2_000)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(3_000 << 29)),
            ("512Mi", Some(1_000 << 29)),
            ("1k", Some(1_000_000)),
            ("1e3", Some(1_000_000)),
            ("128974848", Some(128_974_848_000)),
            (".25", Some(250)),
            ("0.0001", Some(1)),
            ("", None),
            ("Gi", None),
            ("1.2.3", None),
            ("-1", None),
            ("1Xi", None),
            ("99999999999999999999P", None),
        ] {
            assert_eq!(quantity_milli(text), want, "{text}");
        }
    }

    #[test]
    fn a_pods_path_names_its_container() {
        let path = |path, want| check(Place::of_path(path), want);
        path("/var/log/pods/prod_api-7d9f_1234-uid/web/3.log", "prod/api-7d9f/1234-uid/web/3");
        path("/tmp/t/prod_api-7d9f_1234-uid/web/0.log", "prod/api-7d9f/1234-uid/web/0");
        path("prod_api_u/web/0.log", "prod/api/u/web/0");
        path("/l/prod_api-7d9f_1234-uid/web/3.log.20240101-000000", "prod/api-7d9f/1234-uid/web/3");
        path("/l/prod_api-7d9f_1234-uid/web/3.log.20240101-000000.gz", "prod/api-7d9f/1234-uid/web/3");
        path(
            "/l/kube-system_etcd-n1.example.org_0123456789abcdef0123456789abcdef/etcd/12.log",
            "kube-system/etcd-n1.example.org/0123456789abcdef0123456789abcdef/etcd/12",
        );
        path("/l/a-b.c_d-e.f_9-9/g-h/4294967295.log", "a-b.c/d-e.f/9-9/g-h/4294967295");
        for other in [
            "",
            "/",
            "0.log",
            "web/0.log",
            "/var/log/syslog",
            "/l/prod_api_u/web/.log",
            "/l/prod_api_u/web/x.log",
            "/l/prod_api_u/web/-1.log",
            "/l/prod_api_u/web/+1.log",
            "/l/prod_api_u/web/4294967296.log",
            "/l/prod_api_u/web/3.logs",
            "/l/prod_api_u//3.log",
            "/l/prod_api/web/3.log",
            "/l/_api_u/web/3.log",
            "/l/prod__u/web/3.log",
            "/l/prod_api_/web/3.log",
            "/l/x_prod_api_u/web/3.log",
            "/l/prod_a\"pi_u/web/3.log",
            "/l/prod_a\npi_u/web/3.log",
            "/l/prod_äpi_u/web/3.log",
            "/l/prod_api_u/we b/3.log",
            "/var/lib/docker/containers/0123/0123-json.log",
        ] {
            path(other, "none");
        }
        path(&format!("/l/{}_p_u/c/0.log", "n".repeat(254)), "none");
    }

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_links_name_says_it_only_if_it_is_whole() {
        let link = |name: &str, want| check(Place::of_link(name), want);
        link(&format!("/var/log/containers/api-7d9f_prod_web-{ID}.log"), "prod/api-7d9f//web/");
        link(&format!("a.b-c_n-s_c-1-{ID}.log"), "n-s/a.b-c//c-1/");
        link(&format!("api_prod_web-{}.log", &ID[1..]), "none");
        link("api_prod_web.log", "none");
        link(&format!("x_api_prod_web-{ID}.log"), "none");
        link(&format!("prod_web-{ID}.log"), "none");
        link(&format!("api_prod_-{ID}.log"), "none");
        // 255 bytes: the id is cut away.
        let cut = format!("{}.log", &format!("{}_prod_{}-{ID}", "p".repeat(200), "c".repeat(63))[..251]);
        assert_eq!(cut.len(), 255);
        link(&cut, "none");
    }

    #[test]
    fn a_link_is_what_it_points_to_and_a_whole_name_stands_in_for_that() {
        let hops = |hops: &[&str], want| check(Place::of_hops(hops.iter().copied()), want);
        let link = format!("/var/log/containers/api_prod_web-{ID}.log");
        let docker = format!("/var/lib/docker/containers/{ID}/{ID}-json.log");
        hops(&[&link, "/var/log/pods/prod_api_u-1/web/2.log", &docker], "prod/api/u-1/web/2");
        hops(&["/var/log/containers/ppp.log", "/var/log/pods/prod_api_u-1/web/2.log", &docker], "prod/api/u-1/web/2");
        hops(&[&link, &docker], "prod/api//web/");
        hops(&[&link], "prod/api//web/");
        hops(&["/var/log/containers/ppp.log", &docker], "none");
        hops(&["/var/log/syslog"], "none");
    }

    #[test]
    fn own_logs_are_known_by_everything_that_is_said_of_them() {
        let place = Place::of_path("/l/ops_weir-x1_u-1/weir/0.log").expect("a pod's path");
        let own = |pod: &str, namespace: &str, uid: &str| Own { pod: pod.into(), namespace: namespace.into(), uid: uid.into() }.is(&place);
        assert!(own("weir-x1", "", "") && own("weir-x1", "ops", "u-1") && own("", "", "u-1"));
        assert!(!own("", "", "") && !own("weir-x2", "", "") && !own("weir-x1", "prod", "") && !own("weir-x1", "ops", "u-2"));
    }

    fn facts(uid: &str, labels: &[(&str, &str)]) -> Arc<Facts> {
        let mut facts = Facts { uid: uid.into(), ..Facts::default() };
        labels.iter().for_each(|(name, value)| facts.add_label(name, value, &mut LeftOut::default()));
        Arc::new(facts)
    }

    /// Namespace, name, uid and labels of a pod.
    type Said<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

    fn listing(pods: &[Said<'_>]) -> Listing {
        let pods = pods.iter().map(|(ns, name, uid, labels)| ((*ns).into(), (*name).into(), facts(uid, labels))).collect();
        Listing { pods, ..Listing::default() }
    }

    fn place(uid: &str) -> Place {
        Place { namespace: "prod".into(), pod: "api".into(), uid: uid.into(), container: "web".into(), restart: None }
    }

    fn label(catalog: &Catalog, uid: &str) -> String {
        catalog.pod(&place(uid)).map_or("none".into(), |f| f.labels.get("v").map_or(String::new(), |v| v.to_string()))
    }

    const TTL: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_pod_is_known_by_its_uid_and_stays_for_a_while() {
        let first = listing(&[("prod", "api", "u-1", &[("v", "1")])]);
        let second = listing(&[("prod", "api", "u-2", &[("v", "2")])]);
        let catalog = Catalog::default().next([&first].into_iter(), at(0), TTL, 10);
        assert_eq!((label(&catalog, "u-1"), label(&catalog, "u-2"), label(&catalog, "")), ("1".into(), "none".into(), "1".into()));
        let catalog = catalog.next([&second].into_iter(), at(10), TTL, 10);
        assert_eq!((label(&catalog, "u-1"), label(&catalog, "u-2"), label(&catalog, "")), ("1".into(), "2".into(), "2".into()));
        assert_eq!(catalog.expires(), Some(at(610)));
        // It went at 10 s: looking again does not make it stay longer.
        let catalog = catalog.next([&second].into_iter(), at(500), TTL, 10);
        assert_eq!(label(&catalog, "u-1"), "1");
        let catalog = catalog.next([&second].into_iter(), at(610), TTL, 10);
        assert_eq!((label(&catalog, "u-1"), label(&catalog, "u-2"), catalog.len()), ("none".into(), "2".into(), 1));
        // It comes back with new labels.
        let again = listing(&[("prod", "api", "u-2", &[("v", "3")])]);
        let catalog = catalog.next([].into_iter(), at(620), TTL, 10).next([&again].into_iter(), at(630), TTL, 10);
        assert_eq!((label(&catalog, "u-2"), catalog.expires()), ("3".into(), None));
    }

    #[test]
    fn a_static_pod_is_found_under_its_mirror_and_a_pod_without_uid_by_name() {
        let hash = "0123456789abcdef0123456789abcdef";
        let other = "f123456789abcdef0123456789abcdef";
        let catalog = |listing: &Listing| Catalog::default().next([listing].into_iter(), at(0), TTL, 10);
        let mirror = catalog(&listing(&[("prod", "api", "u-1", &[("v", "1")])]));
        assert_eq!((label(&mirror, hash), label(&mirror, "u-9")), ("1".into(), "none".into()));
        let mut said = Facts { uid: "u-1".into(), ..Facts::default() };
        said.add_annotation(CONFIG_HASH, hash, &[], &mut LeftOut::default());
        let said = catalog(&Listing { pods: vec![("prod".into(), "api".into(), Arc::new(said))], ..Listing::default() });
        assert_eq!((label(&said, hash), label(&said, other)), (String::new(), "none".into()));
        let nameless = catalog(&listing(&[("prod", "api", "", &[("v", "1")])]));
        assert_eq!(label(&nameless, "u-9"), "1");
    }

    #[test]
    fn beyond_a_limit_things_are_left_out_and_counted() {
        let mut left_out = LeftOut::default();
        let mut facts = Facts::default();
        for n in 0..LABELS_MAX + 5 {
            facts.add_label(&format!("l{n}"), "v", &mut left_out);
        }
        facts.add_label("l0", "again", &mut left_out);
        facts.add_label("large", &"x".repeat(1 << 20), &mut left_out);
        facts.add_label("", "nameless", &mut left_out);
        assert_eq!((facts.labels.len(), left_out.labels, &*facts.labels["l0"]), (LABELS_MAX, 7, "again"));
        facts.add_annotation("kubectl.kubernetes.io/last-applied-configuration", "{}", &["a".into()], &mut left_out);
        facts.add_annotation("a", "1", &["a".into()], &mut left_out);
        facts.add_annotation("weir.io/exclude", "true", &[], &mut left_out);
        assert_eq!((facts.annotations.len(), left_out.labels), (2, 7));

        let all: Vec<String> = (0..100_000).map(|n| format!("pod-{n}")).collect();
        let pods = |from: usize, to: usize| Listing {
            pods: all[from..to].iter().map(|name| ("prod".into(), name.as_str().into(), Arc::default())).collect(),
            ..Listing::default()
        };
        let catalog = Catalog::default().next([&pods(0, 100_000)].into_iter(), at(0), TTL, 60_000);
        assert_eq!((catalog.len(), catalog.left_out.pods), (60_000, 40_000));
        let catalog = catalog.next([&pods(60_000, 100_000)].into_iter(), at(1), TTL, 45_000);
        assert_eq!((catalog.len(), catalog.left_out.pods), (90_000, 0), "those that went have the same room once more");
    }

    #[track_caller]
    fn check_tenant(pod: Option<&str>, namespace: Option<&str>, map: Option<&str>, want: Option<&str>) {
        let facts = |tenant: Option<&str>| tenant.map(|t| facts("", &[("tenant", t)]));
        let (pod, namespace) = (facts(pod), facts(namespace));
        let map = map.map(|t| ("prod".to_string(), t.to_string())).into_iter().collect();
        let rule = TenantRule { label: "tenant".into(), map };
        assert_eq!(rule.tenant("prod", pod.as_deref(), namespace.as_deref()), want);
        assert_eq!(rule.tenant("dev", None, None), None, "another namespace's tenant is never taken");
    }

    #[test]
    fn the_tenant_is_the_pods_then_the_namespaces_then_the_maps_then_nobodys() {
        check_tenant(Some("beta"), Some("acme"), Some("gamma"), Some("beta"));
        check_tenant(None, Some("acme"), Some("gamma"), Some("acme"));
        check_tenant(Some(" "), Some("acme"), Some("gamma"), Some("acme"));
        check_tenant(None, Some(""), Some("gamma"), Some("gamma"));
        check_tenant(None, None, Some("gamma"), Some("gamma"));
        check_tenant(None, None, None, None);
    }

    #[track_caller]
    fn check_wishes(annotations: &[(&str, &str)], container: &str, want: ([bool; 3], Option<bool>)) {
        let pairs: Pairs = annotations.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let wishes = Wishes::read(&pairs, container);
        assert_eq!((wishes.exclude, wishes.text), want);
    }

    #[test]
    fn annotations_ask_for_a_container_and_an_output() {
        let (all, none) = ([true; 3], [false; 3]);
        check_wishes(&[], "web", (none, None));
        check_wishes(&[("weir.io/exclude", "true")], "web", (all, None));
        check_wishes(&[("fluentbit.io/exclude", "True")], "web", (all, None));
        check_wishes(&[("weir.io/exclude", "yes please")], "web", (none, None));
        check_wishes(&[("weir.io/exclude-web", "true")], "web", (all, None));
        check_wishes(&[("weir.io/exclude-web", "true")], "sidecar", (none, None));
        check_wishes(&[("weir.io/exclude", "true"), ("weir.io/exclude-web", "false")], "web", (none, None));
        check_wishes(&[("weir.io/exclude", "false"), ("fluentbit.io/exclude", "true")], "web", (none, None));
        check_wishes(&[("fluentbit.io/exclude_stderr", "true")], "web", ([false, false, true], None));
        check_wishes(&[("fluentbit.io/exclude_stdout-web", "true")], "web", ([false, true, false], None));
        check_wishes(&[("weir.io/exclude_stdout-web", "true"), ("weir.io/exclude", "false")], "web", ([false, true, false], None));
        check_wishes(&[("weir.io/format", "text")], "web", (none, Some(true)));
        check_wishes(&[("weir.io/format", "text"), ("weir.io/format-web", "json")], "web", (none, Some(false)));
        check_wishes(&[("weir.io/format", "nginx")], "web", (none, None));
    }
}
