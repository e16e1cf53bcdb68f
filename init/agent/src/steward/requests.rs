//! Looks at the certificate requests of the cluster and answers those that are the steward's to answer.
use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use kscratch_pki::{OffsetDateTime, Request};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use super::approve::{Asked, CLIENT, Decision, Place, SERVING, decide};
use crate::contract::Approvable;
use crate::node::Node;
use crate::say;

/// Answers every request that waits for it.
///
/// # Errors
/// The API server does not answer.
pub(super) async fn answer_all(client: &Client, approve: &[Approvable]) -> Result<()> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let all = requests.list(&ListParams::default()).await.context("listing certificate requests")?;
    let open: Vec<CertificateSigningRequest> = all.items.into_iter().filter(is_open).collect();
    if open.is_empty() {
        return Ok(());
    }
    let nodes = places(client).await?;
    for request in open {
        let name = request.name_any();
        let decision = match asked(&request) {
            Ok(asked) => decide(&asked, &nodes, approve),
            Err(error) => Decision::Deny(format!("{error:#}")),
        };
        let (condition, line) = match decision {
            Decision::Wait => continue,
            Decision::Approve(whose) => (condition("Approved", "OfItsOwnNode", &whose), format!("approved {whose}")),
            Decision::Deny(why) => {
                let line = format!("denied {name} of {}: {why}", request.spec.username.as_deref().unwrap_or_default());
                (condition("Denied", "NotOfItsOwnNode", &why), line)
            }
        };
        if answer(&requests, &request, condition).await.with_context(|| format!("answering {name}"))? {
            say::line(line);
        }
    }
    Ok(())
}

/// Whether a request is of a signer that the steward approves for, and has no answer.
fn is_open(request: &CertificateSigningRequest) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    [SERVING, CLIENT].contains(&request.spec.signer_name.as_str()) && conditions.count() == 0
}

/// What all Node objects say about where their nodes are.
async fn places(client: &Client) -> Result<BTreeMap<String, Place>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await.context("listing nodes")?;
    let place = |node: &Node| Place {
        names: ["Hostname", "InternalDNS", "ExternalDNS"]
            .into_iter()
            .flat_map(|kind| node.names(kind).map(str::to_owned).collect::<Vec<_>>())
            .collect(),
        addresses: ["InternalIP", "ExternalIP"]
            .into_iter()
            .flat_map(|kind| node.addresses(kind).collect::<Vec<_>>())
            .collect(),
    };
    Ok(nodes.items.iter().map(|node| (node.name().to_owned(), place(node))).collect())
}

fn asked(request: &CertificateSigningRequest) -> Result<Asked> {
    let spec = &request.spec;
    let pem = std::str::from_utf8(&spec.request.0).context("reading the request's PEM text")?;
    let made = request.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let age = OffsetDateTime::now_utc().unix_timestamp().saturating_sub(made);
    Ok(Asked {
        signer: spec.signer_name.clone(),
        user: spec.username.clone().unwrap_or_default(),
        groups: spec.groups.iter().flatten().cloned().collect(),
        usages: spec.usages.iter().flatten().cloned().collect(),
        names: Request::parse(pem)?.names,
        age: u64::try_from(age).unwrap_or(0),
    })
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..CertificateSigningRequestCondition::default()
    }
}

/// Writes the answer. False where somebody else was faster.
async fn answer(
    requests: &Api<CertificateSigningRequest>,
    request: &CertificateSigningRequest,
    condition: CertificateSigningRequestCondition,
) -> Result<bool> {
    // The version makes it an answer to what was read.
    let answer = json!({
        "metadata": { "resourceVersion": request.metadata.resource_version },
        "status": { "conditions": [condition] },
    });
    match requests.patch_approval(&request.name_any(), &PatchParams::default(), &Patch::Merge(answer)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
