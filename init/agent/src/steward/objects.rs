//! Applies the objects of a folder to the cluster, and tells what is wrong with those that it does not take.
mod kinds;
mod newest;
mod tokens;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use kscratch_pki::OffsetDateTime;
use kube::api::{DynamicObject, GetParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::Value;

use super::approval::CONTROL_PLANE;
use super::ask_ready;
use crate::connection::{bounded, is_internal, is_refusal, is_silence};
use crate::node::Node;
use crate::outage::Outage;
use crate::say;
use kinds::Kind;

/// How long an object is left alone that the API server had nothing to say to for a while, and may have said no then.
const SELDOM: Duration = Duration::from_secs(5 * 60);

/// That while. Nobody's request is decided meanwhile, and a webhook that does not answer is waited for by the API server itself, ten seconds as a rule.
const SLOW: Duration = Duration::from_secs(2);

/// Who the objects' fields belong to (server-side apply).
const MANAGER: &str = "kscratch";

/// The folder, and what went wrong with it.
pub struct Objects {
    folder: PathBuf,
    /// Kubernetes' version in this machine's image.
    release: String,
    /// The master of a newer release, to which this one leaves what all have in common.
    newer: Option<String>,
    reading: Outage,
    refused: BTreeMap<String, Refused>,
}

/// An object that the cluster does not take, or took at last.
#[derive(Debug)]
struct Refused {
    outage: Outage,
    /// When it is tried again.
    next: Duration,
}

/// One object.
#[derive(Debug, Clone)]
struct Object {
    kind: Kind,
    namespace: Option<String>,
    name: String,
    value: Value,
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.name, self.name),
            None => write!(f, "{} {}", self.kind.name, self.name),
        }
    }
}

impl Objects {
    /// Nothing is applied yet. `release` is Kubernetes' version in this machine's image.
    pub fn new(folder: &Path, release: &str) -> Self {
        let reading = Outage::new(format!("reading the objects in {}", folder.display()), 0);
        let (folder, release) = (folder.to_owned(), release.to_owned());
        Self { folder, release, newer: None, reading, refused: BTreeMap::new() }
    }

    /// Applies them all; says whether all are in the cluster. Nodes that are not there are left for another time: only a kubelet makes its Node. Join
    /// tokens are given once ([`tokens`]).
    ///
    /// # Errors
    /// The API server cannot be reached. What it refuses is told, and is no error.
    pub async fn apply(&mut self, client: &Client, now: Duration) -> Result<bool> {
        self.ask_for_newer(client).await?;
        let Some(mut objects) = self.read(now) else { return Ok(false) };
        objects.retain(|object| self.is_ours(object));
        let objects = tokens::due(client, objects, OffsetDateTime::now_utc()).await?;
        let mut all = true;
        for object in objects {
            let name = object.to_string();
            let refused = self.refused.entry(name.clone()).or_insert_with(|| Refused {
                outage: Outage::new(format!("applying {name}"), 0),
                next: Duration::ZERO,
            });
            if now < refused.next {
                all = false;
                continue;
            }
            let outage = &mut refused.outage;
            let began = Instant::now();
            let applied = match bounded_apply(client, &object).await {
                Ok(()) => tokens::remember(client, &object, OffsetDateTime::now_utc()).await,
                error => error,
            };
            match applied {
                Ok(()) => outage.well(now).into_iter().for_each(say::line),
                Err(error) if is_of_one(client, &error).await => {
                    all = false;
                    let failed = outage.failed(now, &say::words(error.as_ref()));
                    failed.line.into_iter().for_each(say::line);
                    // Whoever is silent makes everybody wait: such a one is asked seldom.
                    refused.next = if began.elapsed() >= SLOW { now + SELDOM } else { Duration::ZERO };
                }
                Err(error) => return Err(error.context(format!("applying {name}"))),
            }
        }
        Ok(all)
    }

    /// Whether one is not in the cluster, which is told.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn miss(&mut self, client: &Client) -> Result<bool> {
        let Ok(objects) = read(&self.folder) else { return Ok(false) };
        let mut missing = false;
        // A token that is missing has ended, or somebody revoked it.
        let kept = |object: &&Object| {
            !object.kind.only_existing && tokens::id(&object.value).is_none() && self.is_ours(object)
        };
        for object in objects.iter().filter(kept) {
            // What the API server remembers will do, and spares etcd: one that is just gone is found gone by the next look.
            let found = bounded(api(client, object).get_metadata_opt_with(&object.name, &GetParams::any())).await;
            match found {
                Ok(Some(_)) => {}
                Ok(None) => {
                    // One that is refused is not there either, and was told.
                    if !self.refused.get(&object.to_string()).is_some_and(|one| one.outage.lasts()) {
                        say::line(format_args!("{object} is missing: applying it again"));
                        missing = true;
                    }
                }
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error.context(format!("looking for {object}"))),
            }
        }
        Ok(missing)
    }

    /// Masters of two releases disagree for as long as an upgrade takes.
    async fn ask_for_newer(&mut self, client: &Client) -> Result<()> {
        let masters = ListParams::default().labels(CONTROL_PLANE);
        let masters = bounded(Api::<Node>::all(client.clone()).list(&masters)).await.context("listing the masters")?;
        let newer = newest::newer(&self.release, &masters.items);
        if let Some((newer, by)) = newer
            && self.newer.is_none()
        {
            say::line(format_args!(
                "{} is of a newer release ({by}): what all masters have in common is left to it",
                newer.name()
            ));
        }
        self.newer = newer.map(|(node, _)| node.name().to_owned());
        Ok(())
    }

    fn is_ours(&self, object: &Object) -> bool {
        self.newer.is_none() || !newest::is_shared(object.kind)
    }

    fn read(&mut self, now: Duration) -> Option<Vec<Object>> {
        match read(&self.folder) {
            Ok(objects) => {
                self.reading.well(now).into_iter().for_each(say::line);
                Some(objects)
            }
            Err(error) => {
                self.reading.failed(now, &format!("{error:#}")).line.into_iter().for_each(say::line);
                None
            }
        }
    }
}

/// Whether it went wrong for one object alone: the API server says no to it, or is silent and serves all the same, as where a webhook that is asked for
/// this object does not answer.
pub(super) async fn is_of_one(client: &Client, error: &anyhow::Error) -> bool {
    is_refusal(error) || is_internal(error) || (is_silence(error) && ask_ready(client).await.is_ok())
}

async fn bounded_apply(client: &Client, object: &Object) -> Result<()> {
    let api = api(client, object);
    if object.kind.only_existing && bounded(api.get_metadata_opt(&object.name)).await?.is_none() {
        return Ok(());
    }
    let parameters = PatchParams::apply(MANAGER).force();
    bounded(api.patch_metadata(&object.name, &parameters, &Patch::Apply(&object.value))).await.map(drop)
}

fn api(client: &Client, object: &Object) -> Api<DynamicObject> {
    match &object.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &object.kind.resource()),
        None => Api::all_with(client.clone(), &object.kind.resource()),
    }
}

/// The objects of all `*.json` files of a folder, in the order of the files' names.
fn read(folder: &Path) -> Result<Vec<Object>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading the folder {}", folder.display()))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let text = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let value = serde_json::from_slice(&text).map_err(anyhow::Error::new);
        value
            .and_then(|value| collect(value, &mut objects))
            .with_context(|| format!("reading what {} says", file.display()))?;
    }
    Ok(objects)
}

/// Takes an object, or the items of a `List`.
fn collect(mut value: Value, into: &mut Vec<Object>) -> Result<()> {
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let (Some(version), Some(kind)) = (text(&value, "/apiVersion"), text(&value, "/kind")) else {
        bail!("an object has no apiVersion or no kind");
    };
    if (version.as_str(), kind.as_str()) == ("v1", "List") {
        let items = value.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take);
        return items.context("a List has no items")?.into_iter().try_for_each(|item| collect(item, into));
    }
    let kind =
        Kind::find(&version, &kind).ok_or_else(|| anyhow!("objects of kind {kind} ({version}) are not known"))?;
    let name = text(&value, "/metadata/name").with_context(|| format!("a {} has no name", kind.name))?;
    let namespace = text(&value, "/metadata/namespace");
    if kind.namespaced != namespace.is_some() {
        bail!("{} {name} {}", kind.name, if kind.namespaced { "has no namespace" } else { "is in no namespace" });
    }
    into.push(Object { kind, namespace, name, value });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::read;

    /// What a folder of these files holds.
    fn check(files: &[(&str, &str)], want: Result<&[&str], &str>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let got = read(folder.path());
        let got = got.map(|objects| objects.iter().map(ToString::to_string).collect::<Vec<_>>());
        match want {
            Ok(want) => assert_eq!(got.unwrap(), want),
            Err(want) => {
                let error = format!("{:#}", got.unwrap_err());
                assert!(error.contains(want), "{error}");
            }
        }
    }

    #[test]
    fn objects_and_lists_come_in_the_order_of_the_files() {
        check(
            &[
                (
                    "20-b.json",
                    r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"coredns","namespace":"kube-system"}}"#,
                ),
                (
                    "10-a.json",
                    r#"{"apiVersion":"v1","kind":"List","items":[
                    {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}},
                    {"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"r"}}]}"#,
                ),
                (".hidden.json.new", "{"),
                (".hidden.json", "{"),
                ("readme.txt", "{"),
            ],
            Ok(&["Namespace a", "ClusterRole r", "Deployment kube-system/coredns"]),
        );
        check(&[], Ok(&[]));
    }

    #[test]
    fn what_cannot_be_applied_is_named() {
        let rows = [
            ("{", "a.json says: EOF"),
            ("[]", "an object has no apiVersion or no kind"),
            (
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"d"}}"#,
                "objects of kind Pod (v1) are not known",
            ),
            (r#"{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"d"}}"#, "a Secret has no name"),
            (r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}}"#, "Secret s has no namespace"),
            (
                r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n","namespace":"d"}}"#,
                "Node n is in no namespace",
            ),
            (r#"{"apiVersion":"v1","kind":"List"}"#, "a List has no items"),
        ];
        for (text, want) in rows {
            check(&[("a.json", text)], Err(want));
        }
    }
}
