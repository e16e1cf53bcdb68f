//! Reads the cluster's own objects from a folder and applies each by server-side apply: what is as wanted stays, what is missing comes back.
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use kscratch_pki::OffsetDateTime;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::Value;

/// Who owns the fields that are applied.
const MANAGER: &str = "kscratch";

/// Kinds that kscratch has objects of: group, version, plural, and whether they are of a namespace.
const KINDS: [(&str, &str, &str, &str, bool); 13] = [
    ("ClusterRole", "rbac.authorization.k8s.io", "v1", "clusterroles", false),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io", "v1", "clusterrolebindings", false),
    ("ConfigMap", "", "v1", "configmaps", true),
    ("DaemonSet", "apps", "v1", "daemonsets", true),
    ("Deployment", "apps", "v1", "deployments", true),
    ("Namespace", "", "v1", "namespaces", false),
    ("Node", "", "v1", "nodes", false),
    ("PriorityClass", "scheduling.k8s.io", "v1", "priorityclasses", false),
    ("Role", "rbac.authorization.k8s.io", "v1", "roles", true),
    ("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings", true),
    ("Secret", "", "v1", "secrets", true),
    ("Service", "", "v1", "services", true),
    ("ServiceAccount", "", "v1", "serviceaccounts", true),
];

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    kind: &'static (&'static str, &'static str, &'static str, &'static str, bool),
    namespace: Option<String>,
    name: String,
    value: Value,
}

/// What became of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is as wanted.
    Yes,
    /// Somebody else has to make it first: a Node's kubelet.
    Later,
    /// The API server does not take it.
    Refused(String),
}

/// All objects of a folder's `*.json`, in the order of the files' names. Bootstrap tokens that have ended are left out: they would be
/// removed as often as they are applied.
///
/// # Errors
/// A file cannot be read, or holds something that is none of the known kinds.
pub(super) fn read(folder: &Path, now: OffsetDateTime) -> Result<Vec<Object>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut objects = Vec::new();
    for path in paths {
        let doing = || format!("reading {}", path.display());
        let value: Value = serde_json::from_slice(&fs::read(&path).with_context(doing)?).with_context(doing)?;
        let values = match value["items"].as_array() {
            Some(items) if value["kind"] == "List" => items.clone(),
            _ => vec![value],
        };
        for value in values {
            if !has_ended(&value, now) {
                objects.push(Object::new(value).with_context(doing)?);
            }
        }
    }
    Ok(objects)
}

/// Whether a bootstrap token's time is over.
fn has_ended(value: &Value, now: OffsetDateTime) -> bool {
    value["type"] == "bootstrap.kubernetes.io/token"
        && value["stringData"]["expiration"].as_str().is_some_and(|end| end <= rfc3339(now).as_str())
}

/// A moment as role metadata and Kubernetes write it: text that sorts as time does.
fn rfc3339(now: OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

impl Object {
    fn new(value: Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let kind = value["kind"].as_str().unwrap_or_default();
        let Some(known) = KINDS.iter().find(|known| known.0 == kind) else {
            bail!("{kind:?} is no kind that kscratch applies");
        };
        let version = if known.1.is_empty() { known.2.to_owned() } else { format!("{}/{}", known.1, known.2) };
        if value["apiVersion"] != version.as_str() {
            bail!("a {kind} is of {version}, not of {}", value["apiVersion"]);
        }
        let name = text(&value["metadata"]["name"]).with_context(|| format!("a {kind} has no name"))?;
        let namespace = text(&value["metadata"]["namespace"]);
        if namespace.is_some() != known.4 {
            bail!("{kind} {name}: a namespace is {}", if known.4 { "missing" } else { "given, but it is of none" });
        }
        Ok(Self { kind: known, namespace, name, value })
    }

    /// Its kind and name, for people.
    pub(super) fn describe(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.kind.0, self.name),
            None => format!("{} {}", self.kind.0, self.name),
        }
    }

    /// Applies it.
    ///
    /// # Errors
    /// The API server does not answer.
    pub(super) async fn apply(&self, client: &Client) -> Result<Applied> {
        let (kind, group, version, plural, _) = *self.kind;
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        // Applying would make it, and then the kubelet would not say what it knows about its node.
        if kind == "Node" && api.get_metadata_opt(&self.name).await.with_context(|| self.doing())?.is_none() {
            return Ok(Applied::Later);
        }
        let how = PatchParams::apply(MANAGER).force();
        match api.patch(&self.name, &how, &Patch::Apply(&self.value)).await {
            Ok(_) => Ok(Applied::Yes),
            // Overload and a server that is not whole yet are an outage, not a refusal.
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                Ok(Applied::Refused(format!("{} ({})", status.message, status.code)))
            }
            Err(error) => Err(error).with_context(|| self.doing()),
        }
    }

    fn doing(&self) -> String {
        format!("applying {}", self.describe())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kscratch_pki::OffsetDateTime;
    use serde_json::{Value, json};

    use super::{Object, read};

    fn secret(expires: Option<&str>) -> Value {
        json!({ "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": { "name": format!("bootstrap-token-{}", expires.unwrap_or("never")), "namespace": "kube-system" },
            "stringData": { "expiration": expires } })
    }

    #[test]
    fn lists_are_taken_apart_in_order_and_ended_tokens_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let role =
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "a" } });
        let tokens = [Some("2027-01-15T07:59:59Z"), Some("2027-01-15T08:00:01Z"), None].map(secret);
        fs::write(folder.path().join("20.json"), json!({ "kind": "List", "items": tokens }).to_string()).unwrap();
        fs::write(folder.path().join("10.json"), role.to_string()).unwrap();
        fs::write(folder.path().join("00.txt"), "no object").unwrap();
        let names: Vec<String> = read(folder.path(), now).unwrap().iter().map(Object::describe).collect();
        let token = |end: &str| format!("Secret kube-system/bootstrap-token-{end}");
        assert_eq!(names, ["ClusterRole a".to_owned(), token("2027-01-15T08:00:01Z"), token("never")]);
    }

    #[test]
    fn what_is_no_object_is_named() {
        for (value, want) in [
            (json!({ "kind": "Pod" }), "\"Pod\" is no kind that kscratch applies"),
            (json!({ "kind": "Role", "apiVersion": "v1" }), "a Role is of rbac.authorization.k8s.io/v1, not of \"v1\""),
            (
                json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": "a" } }),
                "Secret a: a namespace is missing",
            ),
        ] {
            assert_eq!(Object::new(value).unwrap_err().to_string(), want);
        }
    }
}
