//! Turns an identity into a certificate request of the API, and the request's state into the answer to it.
use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kscratch_pki::Pending;

use crate::contract::Identity;

/// Who signs certificates for clients of the API server; nobody approves those by himself but the steward.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing yet.
    None,
    /// The certificate, PEM.
    Signed(String),
    /// Why there will be none.
    Refused(String),
}

/// A request, and the key that it is for.
///
/// # Errors
/// A name that cannot stand in a certificate, or no randomness.
pub(super) fn request(identity: &Identity) -> Result<(CertificateSigningRequest, String)> {
    let Pending { request_pem, key_pem } = Pending::new(&identity.common_name, &identity.organizations)?;
    let label = ("app.kubernetes.io/managed-by".to_owned(), "kscratch".to_owned());
    let request = CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some(format!("kscratch-{}-", identity.name)),
            labels: Some(BTreeMap::from([label])),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request_pem.into_bytes()),
            signer_name: SIGNER.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    Ok((request, key_pem))
}

/// Reads the answer out of a request.
pub(super) fn read(request: &CertificateSigningRequest) -> Answer {
    let Some(status) = &request.status else { return Answer::None };
    for condition in status.conditions.iter().flatten() {
        if ["Denied", "Failed"].contains(&condition.type_.as_str()) {
            let why = [&condition.reason, &condition.message].into_iter().flatten().cloned().collect::<Vec<_>>();
            let why = if why.is_empty() { "without a reason".to_owned() } else { why.join(": ") };
            return Answer::Refused(format!("{}, {why}", condition.type_.to_lowercase()));
        }
    }
    match &status.certificate {
        Some(ByteString(pem)) if !pem.is_empty() => Answer::Signed(String::from_utf8_lossy(pem).into_owned()),
        _ => Answer::None,
    }
}

#[cfg(test)]
mod tests {
    use kscratch_pki::Request;
    use serde_json::{Value, json};

    use super::{Answer, read, request};
    use crate::contract::Identity;

    #[test]
    fn a_request_says_who_it_is_for() {
        let identity = Identity {
            name: "routes".into(),
            common_name: "kscratch:routes".into(),
            organizations: vec!["kscratch:routes".into()],
            certificate: "/c".into(),
            key: "/k".into(),
            owner: 0,
        };
        let (made, key) = request(&identity).unwrap();
        let read = Request::parse(&String::from_utf8(made.spec.request.0).unwrap()).unwrap();
        assert_eq!(read.names.common_name, "kscratch:routes");
        assert_eq!(read.names.organizations, ["kscratch:routes"]);
        assert!(key.contains("BEGIN PRIVATE KEY"));
    }

    #[test]
    fn answers() {
        let with = |status: Value| {
            let request = json!({ "metadata": {}, "spec": { "request": "", "signerName": "" }, "status": status });
            read(&serde_json::from_value(request).unwrap())
        };
        let condition = |kind: &str, more: Value| {
            let mut condition = json!({ "type": kind, "status": "True" });
            condition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!([condition])
        };
        assert_eq!(with(json!({})), Answer::None);
        assert_eq!(with(json!({ "conditions": condition("Approved", json!({})) })), Answer::None);
        let signed = json!({ "conditions": condition("Approved", json!({})), "certificate": "UEVN" });
        assert_eq!(with(signed), Answer::Signed("PEM".into()));
        let denied = condition("Denied", json!({ "reason": "NotItsOwn", "message": "another node's name" }));
        let want = Answer::Refused("denied, NotItsOwn: another node's name".into());
        assert_eq!(with(json!({ "conditions": denied })), want);
        let failed = Answer::Refused("failed, without a reason".into());
        assert_eq!(with(json!({ "conditions": condition("Failed", json!({})) })), failed);
    }
}
