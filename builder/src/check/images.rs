//! The closure of image references: what manifests and release.json name is held against the docker store's seed.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::Subject;
use super::rules::{Found, line, literal};
use crate::dockerstore::{self, normal, pulled_always};
use crate::overlay::{MANIFESTS, RELEASE};
use crate::tree::Kind;

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
    let mut texts = BTreeMap::new();
    for (path, node) in subject.own() {
        if (matches!(node.kind, Kind::File(_)) && is_manifest(path) || path == RELEASE)
            && let Some(text) = literal(subject, path)?
        {
            texts.insert(path.clone(), text);
        }
    }
    let faults = closure(&seed, &texts)?.faults;
    let mut found: Vec<String> = faults
        .iter()
        .filter_map(|fault| Some(line(&fault.path, subject.tree.nodes.get(&fault.path)?, &fault.what)))
        .collect();
    if found.iter().any(|line| line.contains(HELP)) {
        found.push(format!("in the image are {}", seed.into_iter().collect::<Vec<_>>().join(", ")));
    }
    Ok(found)
}

/// A file that names an image which is not there, or one that is asked for at every start.
pub(crate) struct Fault {
    /// The file.
    pub path: String,
    /// What is wrong with it, to be read behind its name.
    pub what: String,
}

/// What the files of a root name.
pub(crate) struct Closure {
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// All images that are named.
    pub named: BTreeSet<String>,
}

/// Holds what manifests and release.json (`texts`, by path) name against the references that the seed has.
pub(crate) fn closure(seed: &BTreeSet<String>, texts: &BTreeMap<String, String>) -> Result<Closure> {
    let known: BTreeSet<String> = seed.iter().map(|reference| normal(reference)).collect();
    let mut closure = Closure { faults: Vec::new(), named: BTreeSet::new() };
    let mut hold = |path: &str, named: &BTreeSet<Named<'_>>| {
        for Named { reference, policy } in named {
            closure.named.insert(normal(reference));
            let what = if !known.contains(&normal(reference)) {
                format!("names the image {reference}, which is not in the image; {HELP}")
            } else if path != RELEASE && pulled_always(reference, *policy) {
                format!("asks a registry for {reference} at every start; {STAY}")
            } else {
                continue;
            };
            closure.faults.push(Fault { path: path.to_owned(), what });
        }
    };
    for (path, text) in texts.iter().filter(|(path, _)| is_manifest(path)) {
        let documents = documents(text).with_context(|| format!("reading the manifest {path}"))?;
        let mut named = BTreeSet::new();
        documents.iter().for_each(|document| collect(document, &mut named));
        hold(path, &named);
    }
    if let Some(text) = texts.get(RELEASE) {
        let release: Release = serde_json::from_str(text).with_context(|| format!("reading {RELEASE}"))?;
        let references = release.images.values().chain([&release.pause_image]);
        hold(RELEASE, &references.map(|reference| Named { reference, policy: None }).collect());
    }
    Ok(closure)
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

/// Whether a file of this path, which is not in the seed, is read as Kubernetes objects.
pub(crate) fn is_manifest(path: &str) -> bool {
    let object = [".yaml", ".yml", ".json"].iter().any(|ending| path.ends_with(ending)) && path != RELEASE;
    path.starts_with(OURS) && (object || path.starts_with(MANIFESTS))
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
