//! Looks whose certificate the kubelet has, and sees to it that PID 1 knows: a kubelet with that of another name gets nowhere, and does not say so.
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use kscratch_pki::Certificate;

use crate::contract::Identities;
use crate::place;

/// The common name of a kubelet, before its node's name (`system:node:NAME`, Kubernetes' node authorizer).
const KUBELET: &str = "system:node:";

/// Holds the kubelet's certificate against the node's name.
///
/// # Errors
/// It is another node's, in words with what to do; PID 1 puts it aside at the next start. Or what is remembered cannot be written.
pub fn check(wanted: &Identities) -> Result<()> {
    let Some(other) = node_of(&wanted.kubelet).filter(|name| *name != wanted.node) else { return Ok(()) };
    remember(&wanted.remembered, &other)?;
    bail!(
        "the kubelet's certificate is for {other}, and this machine is called {} now: restart it; it keeps its old name where its role metadata gives it none, else it needs a join token there, or its old name again",
        wanted.node
    )
}

/// The node that a certificate is for. One that is damaged, or no kubelet's, is not this machine's to judge: who uses it says what is wrong.
fn node_of(certificate: &Path) -> Option<String> {
    let text = std::fs::read_to_string(certificate).ok()?;
    let certificate = Certificate::parse(&text).ok()?;
    certificate.facts().names.common_name.strip_prefix(KUBELET).map(str::to_owned)
}

fn remember(path: &Path, name: &str) -> Result<()> {
    let text = format!("{name}\n");
    if std::fs::read(path).ok().as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    place::file(path, text.as_bytes(), 0o644, rustix::process::geteuid().as_raw())
        .context("remembering the name of the kubelet's certificate")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kscratch_pki::{Authority, OffsetDateTime, Wanted};

    use super::check;
    use crate::contract::Identities;

    #[test]
    fn the_kubelets_certificate_is_this_nodes_or_that_is_said_and_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let wanted: Identities = serde_json::from_value(serde_json::json!({
            "server": "https://h:6443", "authority": at("ca.crt"), "kubelet": at("kubelet.pem"), "node": "n2",
            "remembered": at("node-name"), "identities": [], "ready": at("ready"),
        }))
        .unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let (authority, _) = Authority::new_with_pair("kubernetes", now, 10).unwrap();
        let bundle = |name: &str| {
            let pair = authority.issue(&Wanted { days: 365, ..Wanted::client(name.to_owned(), None) }, now).unwrap();
            format!("{}{}", pair.certificate_pem, pair.key_pem)
        };
        check(&wanted).unwrap();
        for (text, want) in [
            (bundle("system:node:n2"), None),
            (bundle("system:node:n1"), Some("n1")),
            (bundle("somebody"), None),
            ("damaged".to_owned(), None),
        ] {
            fs::write(at("node-name"), "n2\n").unwrap();
            fs::write(at("kubelet.pem"), text).unwrap();
            let error = check(&wanted).err().map(|error| error.to_string());
            let begin = want.map(|name| {
                format!("the kubelet's certificate is for {name}, and this machine is called n2 now: restart it; it keeps its old name where its role metadata gives it none, else it needs a join token")
            });
            assert_eq!(error.is_some(), begin.is_some(), "{error:?}");
            assert!(error.unwrap_or_default().starts_with(&begin.unwrap_or_default()));
            assert_eq!(fs::read_to_string(at("node-name")).unwrap(), format!("{}\n", want.unwrap_or("n2")));
        }
    }
}
