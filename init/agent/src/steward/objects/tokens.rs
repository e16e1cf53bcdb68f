//! Decides which join tokens the cluster is given: each of them once, so that one that was deleted stays deleted, and none that has ended.
use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kscratch_pki::{OffsetDateTime, moment};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::{MANAGER, Object};
use crate::connection::bounded;

/// Which tokens were given, by their ids, and when. In the cluster, and not on a machine: another master, or one with a new disk, may hold a token
/// that was revoked.
const GIVEN: (&str, &str) = ("kube-system", "kscratch-tokens");

/// What is to be done with an object.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is no token, or one that the cluster was not given yet.
    Apply,
    /// A token that the cluster has, or that somebody has taken away from it.
    Given,
    /// A token that is good for nothing any more.
    Ended,
}

/// The id of a token, where an object is the Secret of one.
pub fn id(object: &Value) -> Option<&str> {
    (object["type"] == "bootstrap.kubernetes.io/token").then(|| object["stringData"]["token-id"].as_str())?
}

fn fate(object: &Value, given: &BTreeSet<String>, now: OffsetDateTime) -> Fate {
    let Some(id) = id(object) else { return Fate::Apply };
    // As the API server has it: who has no end is good for ever, and whose end cannot be read has ended.
    let ended = |end: &str| OffsetDateTime::parse(end, &Rfc3339).map_or(true, |end| end <= now);
    if object["stringData"]["expiration"].as_str().is_some_and(ended) {
        return Fate::Ended;
    }
    if given.contains(id) { Fate::Given } else { Fate::Apply }
}

/// Those that are to be applied.
///
/// # Errors
/// The API server does not answer.
pub async fn due(client: &Client, mut objects: Vec<Object>, now: OffsetDateTime) -> Result<Vec<Object>> {
    let nothing = BTreeSet::new();
    let open = |object: &Object| id(&object.value).is_some() && fate(&object.value, &nothing, now) == Fate::Apply;
    let given = if objects.iter().any(open) { given(client).await? } else { nothing };
    objects.retain(|object| fate(&object.value, &given, now) == Fate::Apply);
    Ok(objects)
}

async fn given(client: &Client) -> Result<BTreeSet<String>> {
    let map = bounded(memory(client).get_opt(GIVEN.1)).await;
    let map = map.context("asking which join tokens the cluster was given")?;
    Ok(map.and_then(|map| map.data).unwrap_or_default().into_keys().collect())
}

/// Remembers in the cluster that it was given an object, where that is a token.
///
/// # Errors
/// The API server does not answer, or refuses.
pub async fn remember(client: &Client, object: &Object, now: OffsetDateTime) -> Result<()> {
    let Some(id) = id(&object.value) else { return Ok(()) };
    let (namespace, name) = GIVEN;
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": namespace },
        "data": { id: moment(now) },
    });
    // Each token's line belongs to a manager of its own: what another master remembers at the same time stays.
    let parameters = PatchParams::apply(&format!("{MANAGER}-token-{id}")).force();
    bounded(memory(client).patch(name, &parameters, &Patch::Apply(map))).await.map(drop)
}

fn memory(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), GIVEN.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kscratch_metadata::{BootstrapToken, Secret};
    use kscratch_pki::OffsetDateTime;
    use serde_json::{Value, json};

    use super::{Fate, fate};

    /// 2027-01-15T08:00:00Z.
    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_token_is_given_once_and_before_its_end() {
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        let token = |expires: Option<&str>| {
            let expires = expires.map(str::to_owned);
            BootstrapToken { token: Secret::new("abcdef.0123456789abcdef"), expires }.object()
        };
        let (nothing, other, own) = (BTreeSet::new(), ["aaaaaa".to_owned()].into(), ["abcdef".to_owned()].into());
        let check = |object: &Value, given: &BTreeSet<String>, want: Fate| {
            assert_eq!(fate(object, given, now), want, "{object} {given:?}");
        };
        for (expires, ended) in [
            (None, false),
            (Some("2027-01-15T08:00:01Z"), false),
            (Some("2027-01-15T09:00:00+01:00"), true),
            (Some("2027-01-15T08:00:00Z"), true),
            (Some("2026-12-31T00:00:00Z"), true),
            (Some("tomorrow"), true),
        ] {
            let unless_ended = |fate: Fate| if ended { Fate::Ended } else { fate };
            check(&token(expires), &nothing, unless_ended(Fate::Apply));
            check(&token(expires), &other, unless_ended(Fate::Apply));
            check(&token(expires), &own, unless_ended(Fate::Given));
        }
        // What is no token is applied again and again.
        let mut secret = token(Some("2026-12-31T00:00:00Z"));
        secret["type"] = json!("Opaque");
        check(&secret, &own, Fate::Apply);
        check(&json!({ "kind": "ConfigMap", "data": { "token-id": "abcdef" } }), &own, Fate::Apply);
    }
}
