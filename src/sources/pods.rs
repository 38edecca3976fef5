//! Whose a pod is, for sources that measure: its tenant, service and model, by what the metadata files say of it.
//!
//! In: a pod's uid, or its namespace and name. Out: an [`Owner`]. Bound: that of the metadata; an index of it by uid, made anew when it
//! changes.

use super::kubernetes::{Kubernetes, KubernetesConfig, MetadataConfig, PodTenantConfig};
use device::reading::Owner;
use flow::kubernetes::{Catalog, Container, Facts, Place};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Whose pods are.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PodsConfig {
    /// Where labels of pods and namespaces are read from.
    pub metadata: MetadataConfig,
    /// Who pays for what a pod uses.
    #[serde(default)]
    pub tenant: PodTenantConfig,
    /// Labels that name a pod's service; the first that it has counts.
    #[serde(default = "service_labels")]
    pub service: Vec<String>,
    /// Labels that name the model it serves.
    #[serde(default = "model_labels")]
    pub model: Vec<String>,
}

fn service_labels() -> Vec<String> {
    ["app.kubernetes.io/name", "app", "k8s-app"].map(str::to_owned).to_vec()
}

fn model_labels() -> Vec<String> {
    ["weir.io/model", "model"].map(str::to_owned).to_vec()
}

pub struct Pods {
    config: PodsConfig,
    kubernetes: Arc<Kubernetes>,
    generation: Option<u64>,
    catalog: Arc<Catalog>,
    /// Namespace and name.
    by_uid: HashMap<Box<str>, (Box<str>, Box<str>)>,
}

impl Pods {
    /// Reads the metadata, and goes on reading it unless `once`.
    pub fn open(config: &PodsConfig, once: bool) -> anyhow::Result<Pods> {
        let metadata = Some(config.metadata.clone());
        let kubernetes = KubernetesConfig { metadata, tenant: config.tenant.clone(), ..KubernetesConfig::default() };
        let kubernetes = Kubernetes::open(&kubernetes, false, once)?;
        Ok(Pods { config: config.clone(), kubernetes, generation: None, catalog: Arc::default(), by_uid: HashMap::new() })
    }

    /// Takes what the files say now.
    pub fn refresh(&mut self) {
        let generation = self.kubernetes.generation();
        if self.generation != Some(generation) {
            self.catalog = self.kubernetes.catalog();
            let pods = self.catalog.pods().filter(|(_, _, facts)| !facts.uid.is_empty());
            self.by_uid = pods.map(|(namespace, pod, facts)| (facts.uid.clone(), (namespace.into(), pod.into()))).collect();
            self.generation = Some(generation);
        }
    }

    /// The owner of what a pod uses, by its uid; `container_id` may be empty.
    pub fn by_uid(&self, uid: &str, container_id: &str) -> Option<Owner> {
        let (namespace, pod) = self.by_uid.get(uid)?;
        let owner = self.by_name(namespace, pod, uid)?;
        let container = self.container(uid, container_id).map_or(String::new(), |container| container.name.to_string());
        Some(Owner { container_id: container_id.into(), container, ..owner })
    }

    /// A container of a pod, by its id.
    pub fn container(&self, uid: &str, container_id: &str) -> Option<&Container> {
        let (namespace, pod) = self.by_uid.get(uid)?;
        let facts = self.catalog.pod(&place(namespace, pod, uid))?;
        facts.containers.iter().find(|container| !container_id.is_empty() && *container.id == *container_id)
    }

    /// The same by its names; `uid` is empty where it is not known.
    pub fn by_name(&self, namespace: &str, pod: &str, uid: &str) -> Option<Owner> {
        let facts = self.catalog.pod(&place(namespace, pod, uid))?;
        let rule = self.kubernetes.tenant_rule();
        let tenant = rule.tenant(namespace, Some(facts), self.catalog.namespace(namespace));
        Some(Owner {
            tenant: tenant.unwrap_or_default().to_owned(),
            namespace: namespace.into(),
            pod: pod.into(),
            pod_uid: facts.uid.to_string(),
            service: label(facts, &self.config.service),
            model: label(facts, &self.config.model),
            ..Owner::default()
        })
    }
}

fn place(namespace: &str, pod: &str, uid: &str) -> Place {
    Place { namespace: namespace.into(), pod: pod.into(), uid: uid.into(), container: String::new(), restart: None }
}

fn label(facts: &Facts, names: &[String]) -> String {
    names
        .iter()
        .find_map(|name| facts.labels.get(name.as_str()).filter(|value| !value.is_empty()))
        .map_or(String::new(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_a_tenant_a_service_and_a_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.json");
        let text = r#"{"namespaces":{"prod":{"labels":{"tenant":"acme"}}},"pods":[
            {"namespace":"prod","name":"a","uid":"u-1","labels":{"app":"chat","weir.io/model":"orca"},
             "containers":[{"name":"main","id":"containerd://c0","requests":{"cpu":"250m","memory":"1.5Gi"}},{"name":"side","id":"c1"}]},
            {"namespace":"prod","name":"b","uid":"u-2","labels":{"tenant":"beta"}}]}"#;
        std::fs::write(&path, text).unwrap();
        let config: PodsConfig = serde_json::from_value(serde_json::json!({ "metadata": { "path": path } })).unwrap();
        let mut pods = Pods::open(&config, true).unwrap();
        assert_eq!(pods.by_uid("u-1", ""), None, "nothing was read yet");
        pods.refresh();
        let shown =
            |owner: Option<Owner>| owner.map(|owner| [owner.tenant, owner.namespace, owner.pod, owner.service, owner.model].join(" "));
        assert_eq!(shown(pods.by_uid("u-1", "c0")).as_deref(), Some("acme prod a chat orca"));
        assert_eq!(shown(pods.by_name("prod", "b", "")).as_deref(), Some("beta prod b  "));
        assert_eq!(pods.by_uid("u-1", "c0").map(|owner| owner.container).as_deref(), Some("main"));
        let main = pods.container("u-1", "c0").unwrap();
        assert_eq!((main.millicores, main.memory_bytes), (250, 3 << 29));
        assert_eq!(pods.container("u-1", "c1").map(|side| (side.millicores, side.memory_bytes)), Some((0, 0)));
        assert_eq!((pods.by_uid("u-3", ""), pods.by_name("prod", "a", "u-9")), (None, None));
    }
}
