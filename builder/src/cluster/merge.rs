//! The text of a user's kubeconfig and a cluster's own become the user's with one context more, or with it taken out again.
use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::console::Hint;

/// The extension that says which entries were put there from here, and for which cluster (client-go, `NamedExtension`).
const MARK: &str = "kscratch";

/// The three lists of a kubeconfig and what an entry of each holds (client-go, `clientcmd/api/v1`).
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("users", "user"), ("contexts", "context")];

/// What is put into a user's kubeconfig.
#[derive(Debug, Clone, Copy)]
pub struct Addition<'a> {
    /// Name of the context, the cluster and the user there.
    pub name: &'a str,
    /// The cluster's folder, an absolute path: entries with another one belong to another cluster.
    pub folder: &'a str,
}

/// The user's kubeconfig with the one cluster and user of `own` under the addition's name. `before` is empty where there was none; `chosen` says whether another
/// file that is read with it chooses a context.
///
/// # Errors
/// One of them is no kubeconfig, or an entry of that name is not this cluster's.
pub fn merged(before: &str, addition: Addition<'_>, own: &str, chosen: bool) -> Result<String> {
    let mut document = accepting(before, addition)?;
    let Addition { name, folder } = addition;
    let own: Value = serde_saphyr::from_str(own).context("reading the cluster's own kubeconfig")?;
    let part = |place: &str| -> Result<Value> {
        let found = own.pointer(place).filter(|part| part.is_object()).cloned();
        found.with_context(|| format!("the cluster's own kubeconfig has no {place}"))
    };
    let bodies = [part("/clusters/0/cluster")?, part("/users/0/user")?, json!({"cluster": name, "user": name})];
    for ((list, what), mut body) in LISTS.into_iter().zip(bodies) {
        body["extensions"] = json!([{"name": MARK, "extension": {"folder": folder}}]);
        let entries = entries(&mut document, list)?;
        // The user's choice (`kubectl config set-context --namespace`).
        let old = entries.iter().find(|entry| self::name(entry) == Some(name));
        if let Some(namespace) = old.and_then(|entry| entry.pointer("/context/namespace")) {
            body["namespace"] = namespace.clone();
        }
        replace(entries, name, json!({"name": name, what: body}));
    }
    // Whoever has chosen a context keeps it.
    if !chosen && !is_chosen(&document) {
        document.insert("current-context".to_owned(), name.into());
    }
    text(document)
}

/// Finds out whether [`merged`] would be refused for what the user's kubeconfig holds; says whether it chooses a context.
///
/// # Errors
/// It would be.
pub fn refuse(before: &str, addition: Addition<'_>) -> Result<bool> {
    Ok(is_chosen(&accepting(before, addition)?))
}

fn is_chosen(document: &Map<String, Value>) -> bool {
    document.get("current-context").and_then(Value::as_str).is_some_and(|context| !context.is_empty())
}

/// The user's kubeconfig, if nothing in it stands in the way.
fn accepting(before: &str, addition: Addition<'_>) -> Result<Map<String, Value>> {
    let mut document = document(before)?;
    for (list, what) in LISTS {
        refuse_foreign(entries(&mut document, list)?, what, addition)?;
    }
    Ok(document)
}

/// The user's kubeconfig without the entries that were put there for the cluster in `folder`, and their names; `None` where it has none.
///
/// # Errors
/// It is no kubeconfig.
pub fn without(before: &str, folder: &str) -> Result<Option<(String, Vec<String>)>> {
    let mut document = document(before)?;
    let mut names = BTreeSet::new();
    for (list, what) in LISTS {
        entries(&mut document, list)?.retain(|entry| {
            let own = marked(entry, what) == Some(folder);
            names.extend(name(entry).filter(|_| own).map(str::to_owned));
            !own
        });
    }
    if names.is_empty() {
        return Ok(None);
    }
    let current = document.get("current-context").and_then(Value::as_str);
    if current.is_some_and(|current| names.contains(current)) {
        document.insert("current-context".to_owned(), "".into());
    }
    Ok(Some((text(document)?, names.into_iter().collect())))
}

/// The fields of a kubeconfig; of none where there is nothing yet.
fn document(text: &str) -> Result<Map<String, Value>> {
    let value = if text.trim().is_empty() { Value::Null } else { serde_saphyr::from_str(text)? };
    let mut document = match value {
        // What has comments alone is as good as empty.
        Value::Null => Map::new(),
        Value::Object(fields) => fields,
        _ => bail!("it is no kubeconfig"),
    };
    for (field, want) in [("apiVersion", "v1"), ("kind", "Config")] {
        // kubectl takes what says neither.
        let found = document.entry(field).or_insert_with(|| want.into());
        if found.as_str() != Some(want) {
            bail!("it is no kubeconfig: its {field} is {found}, not {want}");
        }
    }
    Ok(document)
}

/// A list of the document, made where it is missing. kubectl writes `null` for an empty one.
fn entries<'a>(document: &'a mut Map<String, Value>, list: &str) -> Result<&'a mut Vec<Value>> {
    let found = document.entry(list).or_insert(Value::Null);
    if found.is_null() {
        *found = Value::Array(Vec::new());
    }
    found.as_array_mut().with_context(|| format!("it is no kubeconfig: its {list} are no list"))
}

fn name(entry: &Value) -> Option<&str> {
    entry.get("name").and_then(Value::as_str)
}

/// The folder of the cluster that an entry was put there for; none where somebody else made it.
fn marked<'a>(entry: &'a Value, what: &str) -> Option<&'a str> {
    let extensions = entry.get(what)?.get("extensions")?.as_array()?;
    let mark = extensions.iter().find(|extension| name(extension) == Some(MARK))?;
    mark.pointer("/extension/folder").and_then(Value::as_str)
}

fn refuse_foreign(entries: &[Value], what: &str, addition: Addition<'_>) -> Result<()> {
    for entry in entries.iter().filter(|entry| name(entry) == Some(addition.name)) {
        let whose = match marked(entry, what) {
            Some(folder) if folder == addition.folder => continue,
            Some(folder) => format!("it belongs to the cluster in {folder}"),
            None => "kscratch-image did not put it there".to_owned(),
        };
        return Err(anyhow!("it has a {what} {} already, and {whose}", addition.name)
            .context(Hint("--context OTHER takes another name for context, cluster and user".to_owned())));
    }
    Ok(())
}

/// In the place of the first entry of that name; of several, kubectl would take any.
fn replace(entries: &mut Vec<Value>, wanted: &str, with: Value) {
    let at = entries.iter().position(|entry| name(entry) == Some(wanted)).unwrap_or(entries.len());
    entries.retain(|entry| name(entry) != Some(wanted));
    entries.insert(at, with);
}

fn text(document: Map<String, Value>) -> Result<String> {
    // Certificates in one line, as kubectl writes them.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let document = Value::Object(document);
    let text = serde_saphyr::to_string_with_options(&document, options).context("writing it as YAML")?;
    // Other people's entries are in it: what would not come back as it went in is not written.
    let again: Value = serde_saphyr::from_str(&text).context("reading it again as it would be written")?;
    if again != document {
        bail!("it has something that would not be written as it was read");
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
