//! Turns the running machine and the booted image into the [`Facts`] that a plan is made from.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kscratch_metadata::is_node_name;
use kscratch_netlink::Netlink;

use crate::apply::dhcp::{self, Lease};
use crate::apply::dhcp6;
use crate::apply::disk;
use crate::apply::files;
use crate::apply::lease::Keeper;
use crate::apply::network;
use crate::facts::{Aside, Facts, GivenRange, Link, Names, Names6, Release};
use crate::log;
use crate::plan;

/// Where the machine's identity is kept.
const MACHINE_ID: &str = "/var/lib/kscratch/machine-id";

/// All that a plan may depend on, as it is now. `lasting` says whether `/var` is the state partition.
///
/// # Errors
/// The image lacks its release file, or the kernel does not answer.
pub fn facts(root: &Path, machine_id: &str, leases: &[Keeper], lasting: bool) -> Result<Facts> {
    let mut netlink = Netlink::open()?;
    let (links, made) = (network::hardware_links(&mut netlink)?, network::made_links(&mut netlink)?);
    Ok(Facts { lasting, made, ..with_links(root, machine_id, links, leases)? })
}

/// Of a machine with a state partition.
fn with_links(root: &Path, machine_id: &str, links: BTreeMap<String, Link>, leases: &[Keeper]) -> Result<Facts> {
    let of_v6 = |keeper: &dhcp6::Keeper| Some((keeper.link().to_owned(), names6(keeper.lease()?)));
    let leased6 = leases.iter().filter_map(Keeper::v6).filter_map(of_v6).collect();
    let of_v4 = |keeper: &dhcp::Keeper| Some((keeper.link().to_owned(), keeper.lease()?.clone()));
    let leases: Vec<(String, Lease)> = leases.iter().filter_map(Keeper::v4).filter_map(of_v4).collect();
    let named: Vec<Names> = leases.iter().map(|(_, lease)| names(lease)).collect();
    let mut facts = Facts {
        links,
        made: BTreeMap::new(),
        release: release(root)?,
        manifests: manifests(root)?,
        machine_id: machine_id.to_owned(),
        leased: leases.iter().map(|(link, lease)| (link.clone(), names(lease))).collect(),
        leased6,
        dns_servers: Vec::new(),
        dns_search: Vec::new(),
        dhcp_hostname: leases.iter().find_map(|(_, lease)| lease.host_name.clone()),
        memory: memory(root)?,
        lasting: true,
        joined: is_there(&files::below(root, plan::CLIENT)),
        etcd_ca: etcd_ca(root),
        // What is damaged there is a master's business alone, which does not go on with it.
        etcd_disk: disk::elsewhere(root).unwrap_or_else(|error| Some(format!("not known: {error:#}"))),
        cluster_ca: cluster_ca(root, plan::PKI.0),
        node_name: remembered_name(root),
        put_aside: names_aside(root, plan::PKI.0),
        aside: Aside {
            cluster_ca: cluster_ca(root, plan::PKI.1),
            joined: is_there(&files::below(root, &plan::CLIENT.replacen(plan::PKI.0, plan::PKI.1, 1))),
            put_aside: names_aside(root, plan::PKI.1),
        },
        pod_range: remembered_pod_range(root),
    };
    facts.take_names(named.iter());
    Ok(facts)
}

/// What a lease says of names.
pub fn names(lease: &Lease) -> Names {
    Names { servers: lease.dns_servers.clone(), search: lease.search.clone() }
}

/// What a DHCPv6 lease says of names.
pub fn names6(lease: &dhcp6::Lease) -> Names6 {
    Names6 { servers: lease.dns_servers.clone(), search: lease.search.clone() }
}

/// What the cluster gave at an earlier boot. A file that is damaged is as good as none: the cluster says it again.
fn remembered_pod_range(root: &Path) -> Option<GivenRange> {
    let text = fs::read_to_string(files::below(root, plan::REMEMBERED_POD_RANGE)).ok()?;
    let mut words = text.split_whitespace();
    let range = words.next()?.parse().ok()?;
    Some(GivenRange { range, node: words.next().map(str::to_owned) })
}

/// The name that the kubelet was started with last. A file that is damaged says nothing; the agent puts it right, which reads the certificate.
fn remembered_name(root: &Path) -> Option<String> {
    let text = fs::read_to_string(files::below(root, plan::REMEMBERED_NAME)).ok()?;
    Some(text.trim()).filter(|name| is_node_name(name)).map(str::to_owned)
}

/// What the boot before this one wrote for etcd, and this one will write over.
fn etcd_ca(root: &Path) -> Option<String> {
    let read = |path: &str| fs::read_to_string(files::below(root, path)).ok();
    let there = files::below(root, plan::ETCD_WAL).exists();
    there.then(|| read(plan::ETCD_DATA_CA).or_else(|| read(plan::ETCD_CA)))?
}

/// The CA of the cluster whose certificates are in a folder.
fn cluster_ca(root: &Path, folder: &str) -> Option<String> {
    fs::read_to_string(files::below(root, folder).join(plan::CLUSTER_CA)).ok()
}

/// Whether a certificate of the kubelet is there. The kubelet links to it by its whole path, which leads elsewhere while the folder is put aside.
fn is_there(file: &Path) -> bool {
    let linked = fs::read_link(file).ok().and_then(|target| Some(file.with_file_name(target.file_name()?)));
    linked.unwrap_or_else(|| file.to_owned()).exists()
}

/// Names whose certificates are put aside in a folder.
fn names_aside(root: &Path, folder: &str) -> BTreeSet<String> {
    put_aside(root, folder).unwrap_or_else(|error| {
        log::line(format_args!("{error:#}: no name's earlier certificate is taken again"));
        BTreeSet::new()
    })
}

fn put_aside(root: &Path, folder: &str) -> Result<BTreeSet<String>> {
    let (before, after) = plan::PUT_ASIDE;
    let before = before.rsplit_once('/').map_or(before, |(_, name)| name);
    let entries = match fs::read_dir(files::below(root, folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.with_context(|| format!("reading {folder}"))?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {folder}"))?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let name = file.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        // A link that leads nowhere is no certificate.
        names.extend(name.filter(|name| is_node_name(name) && is_there(&entry.path())).map(str::to_owned));
    }
    Ok(names)
}

/// Reads the image's release file.
///
/// # Errors
/// It is missing or damaged.
pub fn release(root: &Path) -> Result<Release> {
    const PATH: &str = "/usr/share/kscratch/release.json";
    let text = fs::read(files::below(root, PATH)).with_context(|| format!("reading {PATH}"))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {PATH}"))
}

fn manifests(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    const PATH: &str = "/usr/share/kscratch/manifests";
    let entries = match fs::read_dir(files::below(root, PATH)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.with_context(|| format!("reading {PATH}"))?,
    };
    let mut manifests = BTreeMap::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {PATH}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // As kubelet reads them, and as the builder takes them.
        if [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending)) {
            let bytes = fs::read(entry.path()).with_context(|| format!("reading {PATH}/{name}"))?;
            manifests.insert(name, bytes);
        }
    }
    Ok(manifests)
}

fn memory(root: &Path) -> Result<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).context("reading /proc/meminfo")?;
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(total.context("finding MemTotal in /proc/meminfo")? * 1024)
}

/// The machine's identity: kept on state from the first boot on, made where there is none.
///
/// # Errors
/// It cannot be read or written.
pub fn machine_id(root: &Path) -> Result<String> {
    let path = files::below(root, MACHINE_ID);
    match fs::read_to_string(&path) {
        Ok(text) if is_machine_id(text.trim()) => return Ok(text.trim().to_owned()),
        // Half a file of a power cut in the first boot: nothing was made of it yet, for it is written first and to the disk.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("reading {MACHINE_ID}")),
    }
    let random = root.join("proc/sys/kernel/random/uuid");
    let id: String = fs::read_to_string(&random).context("reading a random number")?.trim().replace('-', "");
    if !is_machine_id(&id) {
        bail!("the kernel's random UUID {id:?} is none");
    }
    files::file(root, MACHINE_ID, format!("{id}\n").as_bytes(), 0o444)?;
    Ok(id)
}

/// machine-id(5): 32 lower case hex digits, not all zeros.
fn is_machine_id(text: &str) -> bool {
    text.len() == 32
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::{machine_id, with_links};
    use crate::facts::{Aside, GivenRange};

    fn write(root: &Path, path: &str, contents: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    #[test]
    fn the_identity_is_made_once() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/sys/kernel/random/uuid", "01234567-89ab-4def-8123-456789abcdef\n");
        let first = machine_id(root.path()).unwrap();
        assert_eq!(first, "0123456789ab4def8123456789abcdef");
        write(root.path(), "proc/sys/kernel/random/uuid", "ffffffff-89ab-4def-8123-456789abcdef\n");
        assert_eq!(machine_id(root.path()).unwrap(), first);
        fs::remove_file(root.path().join("var/lib/kscratch/machine-id")).unwrap();
        write(root.path(), "var/lib/kscratch/machine-id", "0123");
        assert_eq!(machine_id(root.path()).unwrap(), "ffffffff89ab4def8123456789abcdef");
    }

    #[test]
    fn facts_of_an_image() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n");
        let error = with_links(root.path(), "id", BTreeMap::new(), &[]).unwrap_err();
        assert!(
            format!("{error:#}").starts_with("reading /usr/share/kscratch/release.json: No such file"),
            "{error:#}"
        );
        write(
            root.path(),
            "usr/share/kscratch/release.json",
            r#"{"kubernetes":"1.37.2","cri_dockerd":"0.4.3","docker":"26","kernel":"6.12","kscratch":"0.1.0","role":"node","pause_image":"pause"}"#,
        );
        write(root.path(), "usr/share/kscratch/manifests/web.yaml", "kind: Pod");
        write(root.path(), "usr/share/kscratch/manifests/db.yml", "kind: Pod");
        write(root.path(), "usr/share/kscratch/manifests/cache.json", r#"{"kind": "Pod"}"#);
        write(root.path(), "usr/share/kscratch/manifests/README", "no manifest");
        write(root.path(), "var/lib/kubelet/pki/kubelet-client-current.pem", "");
        write(root.path(), "var/lib/kubelet/pki/put-aside-n1.pem", "");
        write(root.path(), "var/lib/kubelet/pki/put-aside-N1.pem", "no node's name");
        write(root.path(), "var/lib/kubelet/pki/kscratch-cluster-ca.crt", "own");
        // As the kubelet made them, when their folder was its own.
        let other = root.path().join("var/lib/kubelet/pki-of-another-cluster");
        write(&other, "kubelet-client-2025-01-01-00-00-00.pem", "");
        for name in ["kubelet-client-current.pem", "put-aside-n4.pem"] {
            let target = "/var/lib/kubelet/pki/kubelet-client-2025-01-01-00-00-00.pem";
            std::os::unix::fs::symlink(target, other.join(name)).unwrap();
        }
        write(root.path(), "var/lib/kubelet/pki-of-another-cluster/kscratch-cluster-ca.crt", "other");
        write(root.path(), "var/lib/kubernetes/etcd/ca.crt", "etcd's");
        write(root.path(), "var/lib/kubelet/pki/kubelet-client-2026-01-01-00-00-00.pem", "");
        std::os::unix::fs::symlink("nowhere", root.path().join("var/lib/kubelet/pki/put-aside-n3.pem")).unwrap();
        write(root.path(), "var/lib/kscratch/node-name", "n2\n");
        write(root.path(), "var/lib/kscratch/pod-range", "10.244.3.0/24 n1\n");
        let facts = with_links(root.path(), "id", BTreeMap::new(), &[]).unwrap();
        let given =
            |node: Option<&str>| GivenRange { range: "10.244.3.0/24".parse().unwrap(), node: node.map(str::to_owned) };
        assert_eq!(facts.pod_range, Some(given(Some("n1"))));
        assert_eq!(facts.node_name.as_deref(), Some("n2"));
        assert_eq!(facts.put_aside.iter().collect::<Vec<_>>(), ["n1"]);
        let aside = Aside { cluster_ca: Some("other".into()), joined: true, put_aside: ["n4".to_owned()].into() };
        assert_eq!((facts.cluster_ca.as_deref(), facts.aside), (Some("own"), aside));
        assert_eq!(facts.etcd_ca, None, "without data it is nobody's");
        assert_eq!((facts.memory, facts.joined, facts.release.role.as_str()), (1_024_000, true, "node"));
        assert_eq!(facts.manifests.keys().collect::<Vec<_>>(), ["cache.json", "db.yml", "web.yaml"]);
        write(root.path(), "var/lib/etcd/member/wal/0.wal", "");
        // As an earlier version left it, and as a power cut might.
        write(root.path(), "var/lib/kscratch/pod-range", "10.244.3.0/24\n");
        write(root.path(), "var/lib/kscratch/node-name", "../n2\n");
        let facts = with_links(root.path(), "id", BTreeMap::new(), &[]).unwrap();
        assert_eq!(facts.pod_range, Some(given(None)));
        assert_eq!(facts.node_name, None);
        assert_eq!(facts.etcd_ca.as_deref(), Some("etcd's"));
        // What stands beside the data is theirs.
        write(root.path(), "var/lib/etcd/kscratch-ca.crt", "the data's");
        let facts = with_links(root.path(), "id", BTreeMap::new(), &[]).unwrap();
        assert_eq!(facts.etcd_ca.as_deref(), Some("the data's"));
        // What is damaged there is no reason to configure nothing.
        write(root.path(), "var/lib/etcd/kscratch-disk", "no partition\n");
        let damaged = with_links(root.path(), "id", BTreeMap::new(), &[]).unwrap().etcd_disk.unwrap();
        assert!(damaged.starts_with("not known: reading /var/lib/etcd/kscratch-disk: "), "{damaged}");
        fs::remove_dir_all(root.path().join("var/lib/kubelet/pki")).unwrap();
        write(root.path(), "var/lib/kubelet/pki", "a file");
        assert!(with_links(root.path(), "id", BTreeMap::new(), &[]).unwrap().put_aside.is_empty());
    }
}
