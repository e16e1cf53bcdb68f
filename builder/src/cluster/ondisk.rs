//! Reads off a machine's disk who the cluster is that its first boot began: its authority, and where its API server is reached.
//!
//! Nothing is written, and nothing needs to have been unmounted: what only the journal has is read from there.
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, anyhow};
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::ext4::Reader;
use kscratch_formats::fat32::Volume;
use kscratch_formats::gpt::{self, Table};
use kscratch_metadata::{Cluster, Document, Endpoint, Role, RoleMetadata};
use kscratch_pki::{Authority, Certificate};

use crate::console::Hint;
use crate::filesystem::METADATA_FOLDER;
use crate::inspect::{Opened, esp_text, partition, read_release};
use crate::plan::{TYPE_ESP, TYPE_ROOT, TYPE_VAR};

/// Where init keeps the identity of a cluster that it began, on state, which is mounted on /var (`/var/lib/kscratch/cluster`).
pub(crate) const FOLDER: &str = "/lib/kscratch/cluster";
/// What the API server of a master proves itself with, there too.
const SERVER: &str = "/lib/kubernetes/kube-apiserver/apiserver.crt";
/// What helps who names a machine's disk that has no state.
pub(crate) const ELSEWHERE: &str =
    "a machine whose image was built with `state = \"elsewhere\"` has state on another of its disks: name that one";
/// A file of more bytes is none of these.
const MAX_TEXT: u64 = 1 << 20;

/// A cluster that a machine began by itself.
#[derive(Debug)]
pub struct OnDisk {
    /// Name of the cluster.
    pub name: String,
    /// Its authority, with the key.
    pub authority: Authority,
    /// Where the API server is reached, if the disk tells one place.
    pub endpoint: Option<Endpoint>,
    /// All names and addresses that the API server's certificate is good for; empty where there is none yet.
    pub served: Vec<String>,
    /// Transactions of the journal that are nowhere else on the disk.
    pub replayed: u64,
}

/// Reads the disk.
///
/// # Errors
/// There is no state partition, no such cluster on it, or it cannot be read.
pub fn read(disk: &Opened) -> Result<OnDisk> {
    let whole = || {
        Hint(
            "FILE is the whole disk of a machine that has run, such as what `kscratch-image run --overlay` keeps"
                .into(),
        )
    };
    let table = gpt::read(disk, disk.disk_len()).with_context(whole)?;
    let Some(window) = partition(disk, &table, TYPE_VAR) else {
        // An image without a root is none of ours.
        let hint = partition(disk, &table, TYPE_ROOT).map_or_else(whole, |_| Hint(ELSEWHERE.into()));
        return Err(anyhow!("there is no state partition on it").context(hint));
    };
    let doing = "reading the state partition";
    let state = Reader::open(window).context(doing)?;
    let ca = text(&state, &format!("{FOLDER}/ca.crt")).context(doing)?;
    let secrets = text(&state, &format!("{FOLDER}/secrets.toml")).context(doing)?;
    let server = text(&state, SERVER).context(doing)?;
    let metadata = metadata(disk, &table);
    let (Some(ca), Some(secrets)) = (ca, secrets) else {
        let release = partition(disk, &table, TYPE_ROOT).and_then(|root| read_release(&root).ok().flatten());
        let built = release.as_ref().and_then(|release| release.get("role")).and_then(serde_json::Value::as_str);
        return Err(nothing(server.is_some(), built, metadata.as_ref()));
    };
    let authority =
        authority(&ca, &secrets).with_context(|| format!("reading the cluster's identity in /var{FOLDER}"))?;
    let cluster = metadata.and_then(|metadata| metadata.cluster).unwrap_or_default();
    // One that another authority has signed is left from another time.
    let certificate = server.and_then(|text| Certificate::parse(&text).ok());
    let certificate = certificate.filter(|certificate| certificate.signed_by(authority.certificate()));
    let names = certificate.map(|certificate| certificate.facts().names.clone()).unwrap_or_default();
    let endpoint = cluster.endpoint.clone().or_else(|| endpoint(&names.addresses, &cluster));
    let served = names.addresses.iter().map(IpAddr::to_string).chain(names.dns_names).collect();
    Ok(OnDisk { name: cluster.name, authority, endpoint, served, replayed: state.replayed().transactions })
}

fn text(state: &Reader<impl ReadAt>, path: &str) -> Result<Option<String>> {
    let Some(found) = state.find(path)? else { return Ok(None) };
    let bytes = state.read(&found, MAX_TEXT)?;
    String::from_utf8(bytes).map(Some).with_context(|| format!("reading /var{path}"))
}

/// A machine's own role metadata on the ESP, where there are any that init would take.
fn metadata(disk: &Opened, table: &Table) -> Option<RoleMetadata> {
    match document(disk, table)? {
        Document::Machine(metadata) => Some(*metadata),
        Document::Rack(_) => None,
    }
}

/// The role metadata on the ESP, a machine's or a rack's, where there are any that init would take.
pub(crate) fn document(disk: &Opened, table: &Table) -> Option<Document> {
    let volume = Volume::open(partition(disk, table, TYPE_ESP)?).ok()?;
    let read = |name: &str| esp_text(&volume, &format!("{METADATA_FOLDER}/{name}")).ok().flatten();
    kscratch_metadata::read(&read("role.toml")?, read("secrets.toml").as_deref()).ok()
}

/// Reads the identity by the rules of role metadata, as init does.
fn authority(ca: &str, secrets: &str) -> Result<Authority> {
    let role = format!("version = 1\nrole = \"master\"\n[cluster]\nca = '''\n{ca}'''\n");
    let metadata = kscratch_metadata::parse_with_secrets(&role, secrets)
        .map_err(|errors| anyhow!(errors.named("ca.crt", "secrets.toml")))?;
    let secrets = metadata.control_plane.and_then(|control_plane| control_plane.secrets);
    let secrets = secrets.context("the cluster's secrets are not there")?;
    Ok(Authority::parse(ca, secrets.ca_key.expose())?)
}

/// Why there is no cluster: what the machine is. `master`: it has run a control plane; `built`: the role of its image.
fn nothing(master: bool, built: Option<&str>, metadata: Option<&RoleMetadata>) -> anyhow::Error {
    let (what, hint) = if master
        || metadata.is_some_and(|it| it.control_plane.as_ref().is_some_and(|it| it.secrets.is_some()))
    {
        (
            "the machine is a master of a cluster that it was given by its metadata",
            "the identity is in the folder that `kscratch-image cluster new` made; `kscratch-image cluster kubeconfig NAME` makes its kubeconfigs anew",
        )
    } else if built == Some("master") && metadata.is_none_or(|metadata| metadata.role == Role::Master) {
        (
            "the machine has not begun a cluster yet",
            "a master without metadata does that at its first boot, once its network is up: let it boot, or see on its console what keeps it back",
        )
    } else {
        (
            "the machine is a node: it has no cluster of its own",
            "the identity is in the folder that `kscratch-image cluster new` made, or on the disk of the master that began the cluster",
        )
    };
    anyhow!(what).context(Hint(hint.into()))
}

/// The one address that others can reach the API server by: not this machine's own, and not the one that is for pods.
fn endpoint(addresses: &[IpAddr], cluster: &Cluster) -> Option<Endpoint> {
    // The service `kubernetes` has the first address of the range.
    let service = Ipv4Addr::from(u32::from(cluster.service_range.network()).saturating_add(1));
    let mut others = addresses.iter().filter(|address| !address.is_loopback() && **address != IpAddr::V4(service));
    match (others.next(), others.next()) {
        (Some(address), None) => Some(Endpoint { host: address.to_string(), port: Endpoint::DEFAULT_PORT }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kscratch_metadata::{Cluster, parse};

    use super::{endpoint, nothing};
    use crate::console::error_lines;

    #[test]
    fn the_address_is_the_one_that_is_left() {
        let of = |addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            endpoint(&addresses, &Cluster::default()).map(|endpoint| endpoint.to_string())
        };
        assert_eq!(of(&["10.96.0.1", "127.0.0.1", "192.168.7.10"]).unwrap(), "192.168.7.10:6443");
        assert_eq!(of(&["10.0.2.15", "10.96.0.1", "127.0.0.1"]).unwrap(), "10.0.2.15:6443");
        assert_eq!(of(&["10.0.0.7", "10.96.0.1", "127.0.0.1", "192.168.7.10"]), None);
        assert_eq!(of(&["10.96.0.1", "127.0.0.1"]), None);
    }

    #[test]
    fn what_the_machine_is_instead_is_told() {
        let node = parse("version = 1\nrole = \"node\"\n").unwrap();
        let master = parse("version = 1\nrole = \"master\"\n").unwrap();
        for (has_served, built, metadata, want) in [
            (true, Some("master"), None, "was given by its metadata"),
            (false, Some("master"), None, "has not begun a cluster yet"),
            (false, Some("master"), Some(&master), "has not begun a cluster yet"),
            (false, Some("master"), Some(&node), "is a node"),
            (false, Some("node"), None, "is a node"),
            (false, None, None, "is a node"),
        ] {
            let lines = error_lines(&nothing(has_served, built, metadata));
            assert!(lines[0].contains(want) && lines[1].starts_with("hint: "), "{lines:?}");
        }
    }
}
