//! Gives a master whose metadata names no cluster one of its own: made at the first boot, kept on state.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kscratch_metadata::{Cluster, ControlPlaneSecrets, Role, RoleMetadata};

use crate::apply::certificates::AGENT;
use crate::apply::files;
use crate::log;
use crate::sys::Sys;

/// Where the identity is kept: `ca.crt` and `secrets.toml`.
const FOLDER: &str = "/var/lib/kscratch/cluster";

/// The metadata with the cluster's identity in it, where it is a master's and has none. Where `/var` is not `lasting` it stays without: what is kept on state
/// cannot be read, and another identity would be another cluster's.
///
/// # Errors
/// The identity cannot be made, or what is kept of it is damaged.
pub fn complete(sys: &dyn Sys, root: &Path, mut metadata: RoleMetadata, lasting: bool) -> Result<RoleMetadata> {
    let has_secrets = metadata.control_plane.as_ref().is_some_and(|control_plane| control_plane.secrets.is_some());
    if metadata.role == Role::Node || has_secrets || !lasting {
        return Ok(metadata);
    }
    let (ca, secrets) = (format!("{FOLDER}/ca.crt"), format!("{FOLDER}/secrets.toml"));
    if !files::below(root, &secrets).exists() {
        let ran = sys.run(Path::new(AGENT), &["new-cluster", FOLDER], b"").context("making a cluster's identity")?;
        if !ran.ok() {
            bail!("making a cluster's identity: {}", ran.text.trim());
        }
        log::line("this master begins a cluster of its own; its identity is kept on state");
    }
    let read = |path: &str| fs::read_to_string(files::below(root, path)).with_context(|| format!("reading {path}"));
    let (ca, secrets) = (read(&ca)?, parse(&read(&ca)?, &read(&secrets)?)?);
    metadata.cluster.get_or_insert_with(Cluster::default).ca = Some(ca);
    let control_plane = metadata.control_plane.get_or_insert_default();
    control_plane.secrets = Some(secrets);
    // There may never be another node.
    control_plane.schedule_pods.get_or_insert(true);
    Ok(metadata)
}

/// Reads what is kept by the rules of role metadata.
fn parse(ca: &str, secrets: &str) -> Result<ControlPlaneSecrets> {
    let role = format!("version = 1\nrole = \"master\"\n[cluster]\nca = '''\n{ca}'''\n");
    let parsed = kscratch_metadata::parse_with_secrets(&role, secrets)
        .map_err(|errors| errors.named(format!("{FOLDER}/ca.crt"), format!("{FOLDER}/secrets.toml")))?;
    parsed.control_plane.and_then(|control_plane| control_plane.secrets).context("the cluster's secrets are not there")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kscratch_metadata::{RoleMetadata, parse};

    use super::{FOLDER, complete};
    use crate::sys::Recording;

    const CA: &str = include_str!("../../metadata/tests/ca.pem");
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";

    #[test]
    fn what_is_kept_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER.trim_start_matches('/'));
        fs::create_dir_all(&folder).unwrap();
        let sys = Recording::new();
        let master = || parse("version = 1\nrole = \"master\"\n[cluster]\nname = \"edge\"\n").unwrap();
        let mut secrets = String::from("[control_plane.secrets]\n");
        for name in ["ca_key", "etcd_ca_key", "front_proxy_ca_key", "service_account_key"] {
            secrets.push_str(&format!("{name} = '''\n{KEY}'''\n"));
        }
        secrets.push_str(&format!("etcd_ca = '''\n{CA}'''\nfront_proxy_ca = '''\n{CA}'''\n"));
        secrets.push_str(
            "service_account_public_key = '''\n-----BEGIN PUBLIC KEY-----\nMAMCAQA=\n-----END PUBLIC KEY-----\n'''\n",
        );
        fs::write(folder.join("ca.crt"), CA).unwrap();
        fs::write(folder.join("secrets.toml"), &secrets).unwrap();
        let error = format!("{:#}", complete(&sys, root.path(), master(), true).unwrap_err());
        assert!(error.contains("/cluster/secrets.toml:") && error.contains("encryption_key: is missing"), "{error}");
        secrets.push_str("encryption_key = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n");
        fs::write(folder.join("secrets.toml"), &secrets).unwrap();
        let whole = complete(&sys, root.path(), master(), true).unwrap();
        assert_eq!(whole.cluster.as_ref().unwrap().name, "edge");
        assert_eq!(whole.control_plane.as_ref().unwrap().schedule_pods, Some(true));
        // A second time there is nothing to complete, and a node has no business with it.
        assert_eq!(complete(&sys, root.path(), whole.clone(), true).unwrap(), whole);
        let node = RoleMetadata::standalone();
        assert_eq!(complete(&sys, root.path(), node.clone(), true).unwrap(), node);
    }

    #[test]
    fn no_identity_is_made_in_memory() {
        let (root, sys) = (tempfile::tempdir().unwrap(), Recording::new());
        let master = parse("version = 1\nrole = \"master\"\n").unwrap();
        assert_eq!(complete(&sys, root.path(), master.clone(), false).unwrap(), master);
        assert_eq!(sys.calls(), Vec::<String>::new());
        // It is the agent that makes one, and nothing comes of its silence here.
        complete(&sys, root.path(), master, true).unwrap_err();
        assert!(sys.calls().iter().any(|call| call.contains("new-cluster")), "{:?}", sys.calls());
    }
}
