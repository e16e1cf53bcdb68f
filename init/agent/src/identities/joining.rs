//! Tells what keeps a machine from joining: its kubelet says so only in its own log, and there is nobody to read that yet.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;
use kscratch_pki::{Certificate, OffsetDateTime, Request, moment};
use kube::api::ListParams;
use kube::{Api, Client};

use super::asked::{Answer, read};
use crate::connection::{self, bounded};
use crate::contract::Identities;
use crate::outage::Outage;
use crate::say;

/// What signs the certificate that a kubelet joins with.
const SIGNER: &str = "spec.signerName=kubernetes.io/kube-apiserver-client-kubelet";
/// How often it is looked whether the kubelet has joined.
const SOON: Duration = Duration::from_secs(1);
/// How long the kubelet may take before anybody is asked why: its first words with the API server need no witness.
const GRACE: Duration = Duration::from_secs(15);

/// What is known of a machine that joins.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The cluster has not decided yet.
    Waits(String),
    /// It cannot become a node like this.
    Stuck(String),
    /// Nothing is known that stands in the way.
    Fine,
}

/// Whether the kubelet has a certificate to be a node with.
#[derive(Debug, PartialEq, Eq)]
enum Own {
    Good,
    /// It ended at this time. The kubelet asks for another one then, with the token.
    Ended(String),
    None,
}

fn own(kubelet: &Path, now: OffsetDateTime) -> Own {
    let Ok(text) = std::fs::read_to_string(kubelet) else { return Own::None };
    // What cannot be read is for the kubelet to say.
    match Certificate::parse(&text) {
        Ok(certificate) if certificate.facts().not_after < now => Own::Ended(moment(certificate.facts().not_after)),
        _ => Own::Good,
    }
}

/// Waits until the kubelet has its certificate, and tells meanwhile why it has none.
pub async fn wait(wanted: &Identities) {
    let joined = || own(&wanted.kubelet, OffsetDateTime::now_utc());
    let before = match (joined(), &wanted.earlier[..]) {
        (Own::Good, _) => return,
        (Own::Ended(when), _) => format!(
            " (the certificate that it joined with has ended on {when}, and the clock says {})",
            moment(OffsetDateTime::now_utc())
        ),
        (Own::None, []) => String::new(),
        (Own::None, names) => format!(" (it has joined as {} before)", names.join(" and as ")),
    };
    say::line(format_args!("waiting for {} to join {}{before}", wanted.node, wanted.server));
    let start = Instant::now();
    let mut outage = Outage::new(format!("joining {} as {}", wanted.server, wanted.node), 0);
    let mut waits = None;
    let mut next = GRACE;
    while joined() != Own::Good {
        if start.elapsed() >= next {
            let pause = match state(wanted).await {
                State::Stuck(why) => {
                    let failed = outage.failed(start.elapsed(), &why);
                    failed.line.into_iter().for_each(say::line);
                    failed.pause
                }
                State::Waits(for_what) => {
                    if waits.as_ref() != Some(&for_what) {
                        say::line(&for_what);
                        waits = Some(for_what);
                    }
                    GRACE
                }
                State::Fine => GRACE,
            };
            next = start.elapsed() + pause;
        }
        tokio::time::sleep(SOON).await;
    }
    outage.well(start.elapsed()).into_iter().for_each(say::line);
    say::line(format_args!("{} has joined after {} s", wanted.node, start.elapsed().as_secs()));
}

async fn state(wanted: &Identities) -> State {
    match requests(wanted).await {
        Ok(Some(requests)) => of_requests(&requests, &wanted.node),
        Ok(None) => State::Stuck(
            "this machine has no join token: put one into its role metadata (kscratch-image cluster token create)"
                .to_owned(),
        ),
        Err(error) => State::Stuck(of_error(&error, &wanted.earlier)),
    }
}

/// What the cluster was asked for by machines that join, as this machine's token lets it see; `None` without a token.
pub(super) async fn requests(wanted: &Identities) -> Result<Option<Vec<Csr>>> {
    let Some(bootstrap) = &wanted.bootstrap else { return Ok(None) };
    let client: Client = connection::with_token(&wanted.server, &wanted.authority, &token(bootstrap)?)?;
    let all = Api::<Csr>::all(client);
    Ok(Some(bounded(all.list(&ListParams::default().fields(SIGNER))).await?.items))
}

/// The token of the kubelet's first kubeconfig.
fn token(bootstrap: &Path) -> Result<String> {
    let action = || format!("reading {}", bootstrap.display());
    let text = std::fs::read(bootstrap).with_context(action)?;
    let kubeconfig: serde_json::Value = serde_json::from_slice(&text).with_context(action)?;
    let token = kubeconfig["users"][0]["user"]["token"].as_str();
    Ok(token.with_context(|| format!("there is no token in {}", bootstrap.display()))?.to_owned())
}

/// The latest request for this node counts; a kubelet that was refused asks anew at once, so what was said before stays true while that waits.
fn of_requests(requests: &[Csr], node: &str) -> State {
    let wanted = format!("system:node:{node}");
    let asks = |request: &&Csr| {
        let text = std::str::from_utf8(&request.spec.request.0).ok();
        text.and_then(|text| Request::parse(text).ok()).is_some_and(|parsed| parsed.names.common_name == wanted)
    };
    let mut own: Vec<&Csr> = requests.iter().filter(asks).collect();
    own.sort_by_key(|request| request.metadata.creation_timestamp.clone());
    let Some((request, earlier)) = own.split_last() else { return State::Fine };
    let refused = earlier.iter().rev().find_map(|request| match read(request) {
        Answer::Refused(why) => Some(why),
        _ => None,
    });
    let name = request.metadata.name.as_deref().unwrap_or_default();
    match read(request) {
        Answer::Signed(_) => State::Fine,
        Answer::Waits if refused.is_some() => State::Stuck(format!(
            "the cluster has refused it: {}; it was asked again ({name}); give this machine another name",
            refused.unwrap_or_default()
        )),
        Answer::Waits => {
            State::Waits(format!("the cluster was asked to take this machine as {node} ({name}), and has not said yes"))
        }
        Answer::Refused(why) => State::Stuck(format!(
            "the cluster refuses it: {why}; give this machine another name, or delete the request {name} to let it ask again"
        )),
    }
}

/// What an error means to a machine that has joined under other names before, or under none.
fn of_error(error: &anyhow::Error, earlier: &[String]) -> String {
    let words = say::words(error.as_ref());
    if let Some(kube::Error::Api(status)) = error.downcast_ref()
        && status.code == 401
    {
        let back = match earlier {
            [] => String::new(),
            names => format!(", or give the machine its old name {} again", names.join(" or ")),
        };
        return format!(
            "the cluster does not know this machine's join token: it may still be setting itself up; if not, the token is wrong or its time is over, and kscratch-image cluster token create makes another for the role metadata, and its --manifest tells the cluster of it{back}"
        );
    }
    if words.contains("invalid peer certificate: UnknownIssuer")
        || words.contains("invalid peer certificate: BadSignature")
    {
        return "whoever answers there cannot prove to be this machine's cluster: look at cluster.ca and cluster.endpoint in the role metadata".to_owned();
    }
    words
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;
    use kscratch_pki::{Authority, Duration, OffsetDateTime, Pending, Wanted};
    use serde_json::json;

    use super::{Own, State, of_error, of_requests, own, token};

    fn request(name: &str, node: &str, created: &str, status: serde_json::Value) -> Csr {
        let pending = Pending::new(&format!("system:node:{node}"), &["system:nodes".to_owned()]).unwrap();
        let mut request: Csr = serde_json::from_value(json!({
            "metadata": { "name": name, "creationTimestamp": created },
            "spec": { "request": "", "signerName": "x" },
            "status": status,
        }))
        .unwrap();
        request.spec.request = ByteString(pending.request_pem.into_bytes());
        request
    }

    #[test]
    fn the_latest_request_for_this_node_counts() {
        let denied =
            json!({ "conditions": [{ "type": "Denied", "status": "True", "message": "kscratch: it is alive" }] });
        let old = request("old", "n1", "2026-01-01T00:00:00Z", denied.clone());
        let new = request("new", "n1", "2026-01-02T00:00:00Z", json!({}));
        let other = request("other", "n2", "2026-01-03T00:00:00Z", denied);
        assert_eq!(of_requests(&[], "n1"), State::Fine);
        assert_eq!(of_requests(std::slice::from_ref(&other), "n1"), State::Fine);
        let stuck = "the cluster refuses it: denied: kscratch: it is alive; give this machine another name, or delete the request old to let it ask again";
        assert_eq!(of_requests(&[other.clone(), old.clone()], "n1"), State::Stuck(stuck.to_owned()));
        let waits = "the cluster was asked to take this machine as n1 (new), and has not said yes";
        assert_eq!(of_requests(&[new.clone(), other.clone()], "n1"), State::Waits(waits.to_owned()));
        let again = "the cluster has refused it: denied: kscratch: it is alive; it was asked again (new); give this machine another name";
        assert_eq!(of_requests(&[new, old, other], "n1"), State::Stuck(again.to_owned()));
        let signed = request("signed", "n1", "2026-01-04T00:00:00Z", json!({ "certificate": "UEVN" }));
        assert_eq!(of_requests(&[signed], "n1"), State::Fine);
    }

    #[test]
    fn errors_say_what_to_do() {
        let status = kube::core::Status::failure("Unauthorized", "Unauthorized").with_code(401);
        let unknown = kube::Error::Api(status.boxed()).into();
        for (earlier, want) in [(vec![], "tells the cluster of it"), (vec!["n1".to_owned()], "old name n1 again")] {
            let words = of_error(&unknown, &earlier);
            assert!(words.starts_with("the cluster does not know this machine's join token"), "{words}");
            assert!(words.ends_with(want), "{words}");
        }
        let stranger =
            anyhow::anyhow!("invalid peer certificate: UnknownIssuer").context("the API server cannot be reached");
        assert!(of_error(&stranger, &[]).starts_with("whoever answers there cannot prove"), "{stranger:#}");
        let silent = anyhow::anyhow!("connection refused").context("the API server cannot be reached");
        assert_eq!(of_error(&silent, &[]), "the API server cannot be reached: connection refused");
    }

    #[test]
    fn a_certificate_that_has_ended_is_none_to_be_a_node_with() {
        let (begin, day) = (OffsetDateTime::now_utc(), Duration::DAY);
        let (authority, _) = Authority::new_with_pair("kubernetes", begin, 10).unwrap();
        let pair = authority.issue(&Wanted { days: 365, ..Wanted::client("system:node:n1", None) }, begin).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pair.certificate_pem + &pair.key_pem).unwrap();
        assert_eq!(own(file.path(), begin + day * 364), Own::Good);
        assert!(matches!(own(file.path(), begin + day * 366), Own::Ended(_)));
        // The kubelet says what it thinks of this.
        std::fs::write(file.path(), "damaged").unwrap();
        assert_eq!(own(file.path(), begin), Own::Good);
        assert_eq!(own(&file.path().with_extension("missing"), begin), Own::None);
    }

    #[test]
    fn the_token_is_the_first_users() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"users": [{"name": "a", "user": {"token": "abcdef.0123456789abcdef"}}]}"#)
            .unwrap();
        assert_eq!(token(file.path()).unwrap(), "abcdef.0123456789abcdef");
        std::fs::write(file.path(), "{}").unwrap();
        assert!(token(file.path()).unwrap_err().to_string().starts_with("there is no token in "));
    }
}
