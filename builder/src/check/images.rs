//! The closure of image references: what manifests and release.json name is held against the docker store's seed.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::Subject;
use super::rules::{Found, line, literal};
use crate::dockerstore::{self, normal, pulled_always};
use crate::overlay::{MANIFESTS, RELEASE};
use crate::tree::{Kind, Node};

/// Kubernetes objects stand nowhere else: static pods, and what a master applies.
const OURS: &str = "/usr/share/kscratch/";

/// Lists of a pod's containers (Kubernetes API, `PodSpec`), wherever a pod is in an object.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// An image that a manifest names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named<'a> {
    reference: &'a str,
    /// `imagePullPolicy`.
    policy: Option<&'a str>,
}

pub(super) fn inside(subject: &Subject<'_>) -> Found {
    let seed = dockerstore::references(subject.tree)?;
    let known: BTreeSet<String> = seed.iter().map(|reference| normal(reference)).collect();
    let mut found = Vec::new();
    for (path, node) in subject.own().filter(|(path, node)| is_manifest(path, node)) {
        let Some(text) = literal(subject, path)? else { continue };
        let documents = documents(&text).with_context(|| format!("reading the manifest {path}"))?;
        let mut named = BTreeSet::new();
        documents.iter().for_each(|document| collect(document, &mut named));
        for Named { reference, policy } in named {
            if !known.contains(&normal(reference)) {
                found.push(line(
                    path,
                    node,
                    &format!("names the image {reference}, which is not in the image; {HELP}"),
                ));
            } else if pulled_always(reference, policy) {
                found.push(line(path, node, &format!("asks a registry for {reference} at every start; {STAY}")));
            }
        }
    }
    if let Some(node) = subject.tree.nodes.get(RELEASE)
        && let Some(text) = literal(subject, RELEASE)?
    {
        let release: Release = serde_json::from_str(&text).with_context(|| format!("reading {RELEASE}"))?;
        for reference in release.images.values().chain([&release.pause_image]) {
            if !known.contains(&normal(reference)) {
                found.push(line(
                    RELEASE,
                    node,
                    &format!("names the image {reference}, which is not in the image; {HELP}"),
                ));
            }
        }
    }
    if found.iter().any(|line| line.contains(HELP)) {
        found.push(format!("in the image are {}", seed.into_iter().collect::<Vec<_>>().join(", ")));
    }
    Ok(found)
}

const HELP: &str = "save it (docker save NAME:TAG -o FILE) and name the file in load of [images] in image.toml";

const STAY: &str = "give it a tag other than latest, or imagePullPolicy: IfNotPresent";

/// The images of release.json.
#[derive(Deserialize)]
struct Release {
    #[serde(default)]
    images: BTreeMap<String, String>,
    pause_image: String,
}

fn is_manifest(path: &str, node: &Node) -> bool {
    let object = [".yaml", ".yml", ".json"].iter().any(|ending| path.ends_with(ending)) && path != RELEASE;
    matches!(node.kind, Kind::File(_)) && path.starts_with(OURS) && (object || path.starts_with(MANIFESTS))
}

/// The documents of a YAML file, of which JSON is one; empty ones are left out.
fn documents(text: &str) -> Result<Vec<Value>> {
    Ok(serde_saphyr::from_multiple(text)?)
}

/// Every image that pods in an object name: in a Pod itself, in the template of what makes pods, in the items of a List.
fn collect<'a>(object: &'a Value, named: &mut BTreeSet<Named<'a>>) {
    match object {
        Value::Array(items) => items.iter().for_each(|item| collect(item, named)),
        Value::Object(fields) => {
            let list = |name: &str| fields.get(name).and_then(Value::as_array).into_iter().flatten();
            for container in CONTAINERS.iter().flat_map(|name| list(name)) {
                let text = |name: &str| container.get(name).and_then(Value::as_str);
                named.extend(text("image").map(|reference| Named { reference, policy: text("imagePullPolicy") }));
            }
            // An image mounted as a volume (Kubernetes API, `ImageVolumeSource`).
            for image in list("volumes").filter_map(|volume| volume.get("image")) {
                let text = |name: &str| image.get(name).and_then(Value::as_str);
                named.extend(text("reference").map(|reference| Named { reference, policy: text("pullPolicy") }));
            }
            fields.values().for_each(|value| collect(value, named));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let documents = documents(text).unwrap();
        let mut named = BTreeSet::new();
        documents.iter().for_each(|document| collect(document, &mut named));
        assert_eq!(named.iter().map(|named| named.reference).collect::<Vec<_>>(), want, "{text}");
    }

    #[test]
    fn pods_are_found_wherever_they_are_in_an_object() {
        check(
            "kind: Pod\nspec:\n  containers: [{name: a, image: 'a:1'}]\n  initContainers: [{image: 'b:1'}]",
            &["a:1", "b:1"],
        );
        check(
            "spec: {ephemeralContainers: [{image: 'e:1'}], volumes: [{image: {reference: 'v:1'}}, {emptyDir: {}}]}",
            &["e:1", "v:1"],
        );
        let template = "kind: Deployment\nspec: {template: {spec: {containers: [{image: 'd:1'}]}}}";
        let cron = "kind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{image: 'c:1'}]}}}}}";
        check(template, &["d:1"]);
        check(cron, &["c:1"]);
        check(&format!("# two documents\n---\n{template}\n---\n---\n{cron}\n"), &["c:1", "d:1"]);
        check(r#"{"kind":"List","items":[{"spec":{"containers":[{"image":"l:1"}]}},	{"kind":"Secret"}]}"#, &["l:1"]);
        // What is no pod names no image, though it has the words.
        check("kind: ConfigMap\ndata: {image: 'x:1', containers: 'y:1'}", &[]);
        check("openAPIV3Schema: {properties: {containers: {items: {properties: {image: {type: string}}}}}}", &[]);
        check("", &[]);
        check("# nothing\n", &[]);
    }
}
