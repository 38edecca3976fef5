//! What a metadata file says, from JSON to a [`Listing`].
//!
//! In: one object or several, one after the other: a pod or a namespace (as `kubectl get -o json` prints one,
//! or flat: `{"namespace", "name", "uid", "labels", "annotations", "node", "ip", "containers"}`), a list of them, kubectl's
//! `{"kind": "List", "items": [...]}`, or `{"namespaces": {...}, "pods": [...]}`. Out: those with a name; a
//! value of another type than expected reads as empty, and only text that is no JSON fails the file. Bound:
//! what is kept of each is limited by `flow::kubernetes`; unknown keys (most of a pod's spec) build nothing.

use anyhow::{Context, ensure};
use flow::kubernetes::{Container, Facts, Listing, NAME_BYTES_MAX, quantity_milli};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Reads one file. `keep`: annotations that somebody asked for.
pub fn parse(text: &[u8], keep: &[String]) -> anyhow::Result<Listing> {
    // An empty file is one that somebody is about to write: `{}` says that there is nothing.
    ensure!(!text.trim_ascii().is_empty(), "the file is empty; write {{}} where there is nothing to say");
    let mut listing = Listing::default();
    for value in serde_json::Deserializer::from_slice(text).into_iter::<OneOrMany>() {
        for said in value.context("this is no JSON")?.0 {
            add(&mut listing, said, None, keep, 0);
        }
    }
    Ok(listing)
}

/// A pod, a namespace, or a list of them.
#[derive(Default)]
struct Said<'a> {
    kind: Text<'a>,
    namespace: Text<'a>,
    name: Text<'a>,
    uid: Text<'a>,
    node: Text<'a>,
    ip: Text<'a>,
    labels: Entries<'a>,
    annotations: Entries<'a>,
    /// Of a flat pod and of `spec`; and those of `status`, which know ids.
    containers: Vec<Boxed<'a>>,
    statuses: Vec<Boxed<'a>>,
    pods: Vec<Said<'a>>,
    /// With their names, where they stand as keys.
    namespaces: Vec<(Text<'a>, Said<'a>)>,
    items: Vec<Said<'a>>,
}

fn add(listing: &mut Listing, said: Said<'_>, name: Option<&str>, keep: &[String], depth: usize) {
    if depth > 4 {
        return; // lists of lists of lists: nobody means that
    }
    for pod in said.pods {
        add(listing, pod, None, keep, depth + 1);
    }
    for item in said.items {
        add(listing, item, None, keep, depth + 1);
    }
    for (name, namespace) in said.namespaces {
        let own = namespace.name.0.clone();
        let name = if name.0.is_empty() { &own } else { &name.0 };
        add(listing, Said { kind: Text(Cow::Borrowed("Namespace")), ..namespace }, Some(name), keep, depth + 1);
    }
    let name = name.unwrap_or(&said.name.0);
    let short = |text: &str| -> Box<str> { if text.len() <= NAME_BYTES_MAX { text.into() } else { "".into() } };
    if short(name).is_empty() {
        return;
    }
    let mut facts = Facts { uid: short(&said.uid.0), node: short(&said.node.0), ip: short(&said.ip.0), ..Facts::default() };
    said.labels.0.iter().for_each(|(name, value)| facts.add_label(&name.0, &value.0, &mut listing.left_out));
    said.annotations.0.iter().for_each(|(name, value)| facts.add_annotation(&name.0, &value.0, keep, &mut listing.left_out));
    for boxed in &said.containers {
        let id = said.statuses.iter().find(|status| status.name.0 == boxed.name.0).map_or(&boxed.id.0, |status| &status.id.0);
        let request =
            |name: &str| boxed.requests.0.iter().find(|(known, _)| known.0 == name).and_then(|(_, value)| quantity_milli(&value.0));
        let container = Container {
            name: short(&boxed.name.0),
            // As in `containerd://<id>`.
            id: short(id.rsplit('/').next().unwrap_or_default()),
            millicores: request("cpu").unwrap_or(0),
            memory_bytes: request("memory").unwrap_or(0).div_ceil(1_000),
        };
        facts.add_container(container, &mut listing.left_out);
    }
    match &*said.kind.0 {
        "Namespace" => listing.namespaces.push((name.into(), Arc::new(facts))),
        "" | "Pod" if !short(&said.namespace.0).is_empty() => {
            listing.pods.push((said.namespace.0.as_ref().into(), name.into(), Arc::new(facts)))
        }
        _ => {}
    }
}

/// A string; numbers and truth values as written; anything else reads as empty.
#[derive(Clone, Default)]
struct Text<'a>(Cow<'a, str>);

/// Names and values of a map.
#[derive(Default)]
struct Entries<'a>(Vec<(Text<'a>, Text<'a>)>);

/// A container: its name, its id, what it requests.
#[derive(Default)]
struct Boxed<'a> {
    name: Text<'a>,
    id: Text<'a>,
    requests: Entries<'a>,
}

/// A list of them.
#[derive(Default)]
struct Boxes<'a>(Vec<Boxed<'a>>);

/// A list, or one thing.
#[derive(Default)]
struct OneOrMany<'a>(Vec<Said<'a>>);

/// Namespaces by name, or a list of them.
#[derive(Default)]
struct Namespaces<'a>(Vec<(Text<'a>, Said<'a>)>);

/// One visitor for all of them: JSON says what stands there, and what is not wanted is passed over.
struct Any<T>(std::marker::PhantomData<T>);

/// What can be made of each kind of JSON value; the default is nothing.
trait FromAny<'a>: Default {
    fn of_text(_: Cow<'a, str>) -> Self {
        Self::default()
    }

    fn of_list<A: SeqAccess<'a>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }

    fn of_map<A: MapAccess<'a>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

impl<'de, T: FromAny<'de>> Visitor<'de> for Any<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<T, E> {
        Ok(T::of_text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        Ok(T::of_text(Cow::Owned(text.into())))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        Ok(T::of_text(Cow::Owned(value.to_string())))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        Ok(T::of_text(Cow::Owned(value.to_string())))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        Ok(T::of_text(Cow::Owned(value.to_string())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        Ok(T::of_text(Cow::Owned(value.to_string())))
    }

    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::of_list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::of_map(map)
    }
}

impl<'a> FromAny<'a> for Text<'a> {
    fn of_text(text: Cow<'a, str>) -> Self {
        Text(text)
    }
}

impl<'a> FromAny<'a> for Entries<'a> {
    fn of_map<A: MapAccess<'a>>(mut map: A) -> Result<Self, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry::<Text<'a>, Text<'a>>()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

impl<'a> FromAny<'a> for Said<'a> {
    fn of_map<A: MapAccess<'a>>(mut map: A) -> Result<Self, A::Error> {
        let mut said = Said::default();
        while let Some(key) = map.next_key::<Text<'a>>()? {
            match &*key.0 {
                "kind" => said.kind = map.next_value()?,
                "namespace" => said.namespace = map.next_value()?,
                "name" => said.name = map.next_value()?,
                "uid" => said.uid = map.next_value()?,
                "node" | "nodeName" => said.node = map.next_value()?,
                "ip" | "podIP" => said.ip = map.next_value()?,
                "labels" => said.labels = map.next_value()?,
                "annotations" => said.annotations = map.next_value()?,
                "pods" => said.pods = map.next_value::<OneOrMany<'a>>()?.0,
                "items" => said.items = map.next_value::<OneOrMany<'a>>()?.0,
                "namespaces" => said.namespaces = map.next_value::<Namespaces<'a>>()?.0,
                // kubectl's: who it is stands in `metadata`, where it runs in `spec` and `status`.
                "metadata" => {
                    let inner: Said<'a> = map.next_value()?;
                    (said.namespace, said.name, said.uid) = (inner.namespace, inner.name, inner.uid);
                    (said.labels, said.annotations) = (inner.labels, inner.annotations);
                }
                "containers" => said.containers = map.next_value::<Boxes<'a>>()?.0,
                "spec" => {
                    let spot: Spot<'a> = map.next_value()?;
                    (said.node, said.containers) = (spot.at, spot.containers);
                }
                "status" => {
                    let spot: Spot<'a> = map.next_value()?;
                    (said.ip, said.statuses) = (spot.at, spot.containers);
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(said)
    }
}

/// `spec.nodeName` or `status.podIP`, and the containers there.
#[derive(Default)]
struct Spot<'a> {
    at: Text<'a>,
    containers: Vec<Boxed<'a>>,
}

impl<'a> FromAny<'a> for Boxed<'a> {
    fn of_map<A: MapAccess<'a>>(mut map: A) -> Result<Self, A::Error> {
        let mut boxed = Boxed::default();
        while let Some(key) = map.next_key::<Text<'a>>()? {
            match &*key.0 {
                "name" => boxed.name = map.next_value()?,
                "id" | "containerID" => boxed.id = map.next_value()?,
                "requests" => boxed.requests = map.next_value()?,
                "resources" => boxed.requests = map.next_value::<Boxed<'a>>()?.requests,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(boxed)
    }
}

impl<'a> FromAny<'a> for Boxes<'a> {
    fn of_list<A: SeqAccess<'a>>(mut list: A) -> Result<Self, A::Error> {
        let mut all = Vec::new();
        while let Some(boxed) = list.next_element()? {
            all.push(boxed);
        }
        Ok(Boxes(all))
    }
}

impl<'a> FromAny<'a> for Spot<'a> {
    fn of_map<A: MapAccess<'a>>(mut map: A) -> Result<Self, A::Error> {
        let mut spot = Spot::default();
        while let Some(key) = map.next_key::<Text<'a>>()? {
            match &*key.0 {
                "nodeName" | "podIP" => spot.at = map.next_value()?,
                "containers" | "containerStatuses" => spot.containers = map.next_value::<Boxes<'a>>()?.0,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(spot)
    }
}

impl<'a> FromAny<'a> for OneOrMany<'a> {
    fn of_list<A: SeqAccess<'a>>(mut list: A) -> Result<Self, A::Error> {
        let mut all = Vec::new();
        while let Some(said) = list.next_element()? {
            all.push(said);
        }
        Ok(OneOrMany(all))
    }

    fn of_map<A: MapAccess<'a>>(map: A) -> Result<Self, A::Error> {
        Ok(OneOrMany(vec![Said::of_map(map)?]))
    }
}

impl<'a> FromAny<'a> for Namespaces<'a> {
    fn of_list<A: SeqAccess<'a>>(list: A) -> Result<Self, A::Error> {
        Ok(Namespaces(OneOrMany::of_list(list)?.0.into_iter().map(|said| (Text::default(), said)).collect()))
    }

    fn of_map<A: MapAccess<'a>>(mut map: A) -> Result<Self, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = map.next_entry()? {
            all.push(entry);
        }
        Ok(Namespaces(all))
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Boxed<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Boxes<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Said<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Spot<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for OneOrMany<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Namespaces<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pod as `namespace/name/uid/node/ip labels annotations`, each namespace as `name labels`.
    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let listing = parse(text.as_bytes(), &["team".into()]).expect("it is JSON");
        let pairs = |pairs: &flow::kubernetes::Pairs| pairs.iter().map(|(k, v)| format!(" {k}={v}")).collect::<String>();
        let namespaces = listing.namespaces.iter().map(|(name, f)| format!("{name}{}", pairs(&f.labels)));
        let pods = listing
            .pods
            .iter()
            .map(|(ns, name, f)| format!("{ns}/{name}/{}/{}/{}{}{}", f.uid, f.node, f.ip, pairs(&f.labels), pairs(&f.annotations)));
        assert_eq!(namespaces.chain(pods).collect::<Vec<_>>(), want, "{text}");
    }

    #[test]
    fn our_own_shape_and_kubectls_are_understood() {
        let pod = r#"{"namespace":"prod","name":"api","uid":"u-1","labels":{"a":"1","b":2,"c":true,"d":{},"e":null},"annotations":{"team":"x","other":"y"},"node":"n1","ip":"10.0.0.1"}"#;
        let is = "prod/api/u-1/n1/10.0.0.1 a=1 b=2 c=true d= e= team=x";
        check(pod, &[is]);
        check(&format!("[{pod},{pod}]"), &[is, is]);
        check(&format!("{pod}\n{pod}\n"), &[is, is]);
        check(&format!(r#"{{"pods":[{pod}],"namespaces":{{"prod":{{"labels":{{"tenant":"acme"}}}}}}}}"#), &["prod tenant=acme", is]);
        check(r#"{"namespaces":[{"name":"prod","labels":{"tenant":"acme"}}]}"#, &["prod tenant=acme"]);
        check("{}", &[]);
        check("[]", &[]);
        let kubectl = r#"{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":""},"items":[
          {"apiVersion":"v1","kind":"Pod","metadata":{"name":"api","namespace":"prod","uid":"u-1","labels":{"a":"1"},
           "annotations":{"team":"x"},"ownerReferences":[{"kind":"ReplicaSet","name":"no"}]},
           "spec":{"nodeName":"n1","containers":[{"name":"web"}]},"status":{"podIP":"10.0.0.1","phase":"Running"}},
          {"kind":"Namespace","metadata":{"name":"prod","labels":{"tenant":"acme"}},"spec":{"finalizers":["kubernetes"]}},
          {"kind":"Service","metadata":{"name":"api","namespace":"prod"}}]}"#;
        check(kubectl, &["prod tenant=acme", "prod/api/u-1/n1/10.0.0.1 a=1 team=x"]);
    }

    #[test]
    fn what_has_another_type_reads_as_empty() {
        for text in ["1", "null", "\"x\"", "[1,[],null]", r#"{"pods":7,"items":"x","namespaces":false}"#, r#"{"name":"n"}"#] {
            check(text, &[]);
        }
        let one = r#"{"pods":[{"namespace":"prod","name":"a","labels":[1],"annotations":"x","uid":{}},{"namespace":{},"name":"b"},5,{"namespace":"prod","name":"c"}]}"#;
        check(one, &["prod/a///", "prod/c///"]);
        check(&format!(r#"{{"namespace":"prod","name":"{}"}}"#, "x".repeat(300)), &[]);
    }

    #[test]
    fn text_that_is_no_json_fails_the_file() {
        for text in ["", " \n", "{", "{\"pods\":[{]}", "pods: []", "\u{0}", "{} x", "{\"pods\":[{\"namespace\":\"prod\",\"name\":\"a\"}"] {
            assert!(parse(text.as_bytes(), &[]).is_err(), "{text:?}");
        }
        assert!(parse(&b"[".repeat(1 << 20), &[]).is_err(), "nesting has a bound");
        assert!(parse(b"{\"pods\":\xff}", &[]).is_err());
    }
}
