//! Reads `role.toml` (and `secrets.toml`) section by section into [`RoleMetadata`], collecting every problem on the way.
use std::collections::BTreeMap;

use toml::de::DeTable;

use crate::certificate;
use crate::console;
use crate::disks;
use crate::error::{Errors, Problem, Source};
use crate::install;
use crate::kubelet;
use crate::logs;
use crate::read::{Fault, Reader, Table, fault};
use crate::readcontrolplane;
use crate::readlinks;
use crate::role::{
    Cluster, DEFAULT_OPEN_FILES, Docker, Join, Manifest, Mode, Network, Node, ProxyMode, Role, RoleMetadata, Static,
    Time,
};
use crate::rules;
use crate::secret::Secret;
use crate::selector;
use crate::shutdown;
use crate::syntax;
use crate::watchdog;

/// The version of the format that this program reads.
const VERSION: i64 = 1;

/// Reads role metadata.
///
/// # Errors
/// All that is wrong with the text, each with its place.
pub fn parse(text: &str) -> Result<RoleMetadata, Errors> {
    read(text, None)
}

/// Reads role metadata whose secrets stand (in part or all) in a second text, which holds nothing else.
///
/// # Errors
/// All that is wrong with both texts; a secret that both give is refused.
pub fn parse_with_secrets(text: &str, secrets: &str) -> Result<RoleMetadata, Errors> {
    read(text, Some(secrets))
}

fn read(text: &str, secrets: Option<&str>) -> Result<RoleMetadata, Errors> {
    let mut reader = Reader::new();
    let document = reader.document(Source::Role, text);
    machine(reader, document.as_ref(), secrets).map_err(Errors::new)
}

/// Reads one machine's document, which is `None` where it is no TOML, and its secrets; `reader` knows the document's text.
pub(crate) fn machine<'s>(
    mut reader: Reader<'s>,
    document: Option<&DeTable<'_>>,
    secrets: Option<&'s str>,
) -> Result<RoleMetadata, Vec<Problem>> {
    let mut metadata = RoleMetadata::standalone();
    if let Some(document) = document {
        metadata = role_document(&mut reader, Table::root(document));
    }
    if let Some(text) = secrets
        && let Some(document) = reader.document(Source::Secrets, text)
    {
        secrets_document(&mut reader, Table::root(&document), &mut metadata);
    }
    if document.is_some() {
        rules::check(&mut reader, &metadata);
    }
    let problems = reader.take_problems();
    if problems.is_empty() { Ok(metadata) } else { Err(problems) }
}

fn role_document(reader: &mut Reader<'_>, mut root: Table<'_>) -> RoleMetadata {
    if reader.take_integer(&mut root, "version", VERSION, VERSION).is_none() && !reader.given("version") {
        let fix = "write `version = 1` at the top of the file";
        reader.fault_at("version", fault("is missing", fix));
    }
    let role = reader.take_string(&mut root, "role", |text| match text {
        "node" => Ok(Role::Node),
        "master" => Ok(Role::Master),
        other => Err(fault(format!("{other:?} is no role"), "use \"node\" or \"master\"")),
    });
    if role.is_none() && !reader.given("role") {
        let fix = "write `role = \"node\"` (or \"master\") at the top of the file";
        reader.fault_at("role", fault("is missing", fix));
    }
    let cluster = reader.take_table(&mut root, "cluster");
    let control_plane = reader.take_table(&mut root, "control_plane");
    let node = reader.take_table(&mut root, "node");
    let network = reader.take_table(&mut root, "network");
    let docker = reader.take_table(&mut root, "docker");
    let join = reader.take_table(&mut root, "join");
    let time = reader.take_table(&mut root, "time");
    let console = reader.take_table(&mut root, "console");
    let shutdown = reader.take_table(&mut root, "shutdown");
    let watchdog = reader.take_table(&mut root, "watchdog");
    let logs = reader.take_table(&mut root, "logs");
    let install = reader.take_table(&mut root, "install");
    let kubelet = reader.take_table(&mut root, "kubelet");
    let metadata = RoleMetadata {
        version: 1,
        role: role.unwrap_or(Role::Node),
        cluster: cluster.map(|table| read_cluster(reader, table)),
        control_plane: control_plane.map(|table| readcontrolplane::control_plane(reader, table)),
        node: node.map(|table| read_node(reader, table)).unwrap_or_default(),
        network: network.map(|table| read_network(reader, table)).unwrap_or_default(),
        docker: docker.map(|table| read_docker(reader, table)).unwrap_or_default(),
        join: join.map(|table| read_join(reader, table)).unwrap_or_default(),
        time: time.map(|table| read_time(reader, table)).unwrap_or_default(),
        watchdog: watchdog.map(|table| watchdog::watchdog(reader, table)).unwrap_or_default(),
        console: console.map(|table| console::console(reader, table)).unwrap_or_default(),
        shutdown: shutdown.map(|table| shutdown::shutdown(reader, table)).unwrap_or_default(),
        logs: logs.map(|table| logs::logs(reader, table)).unwrap_or_default(),
        kubelet: kubelet.map(|table| kubelet::extras(reader, &table)).unwrap_or_default(),
        disks: disks::disks(reader, &mut root),
        install: install.map(|table| install::install(reader, table)),
        manifests: read_manifests(reader, &mut root),
    };
    if let Some(field) = reader.take(&mut root, "machines") {
        let fix = "give one machine's metadata, or hand the file to the machines of the rack as it is";
        reader.field_fault(&field, fault("lists the machines of a rack, and this is to be one machine", fix));
    }
    if reader.in_rack() {
        root = root.knowing(&selector::KEYS);
    }
    reader.finish(&root);
    metadata
}

/// The secrets file: `join.token`, `logs.key`, `control_plane.secrets`, and `version` for those who like to write it.
fn secrets_document(reader: &mut Reader<'_>, mut root: Table<'_>, metadata: &mut RoleMetadata) {
    const TOKEN: &str = "join.token";
    const KEY: &str = "logs.key";
    const SECRETS: &str = "control_plane.secrets";
    let [token, key, secrets] = [TOKEN, KEY, SECRETS].map(|path| reader.given(path).then(|| reader.line_of(path)));
    reader.take_version(&mut root, VERSION);
    if let Some(mut table) = reader.take_table(&mut root, "join") {
        let token = once(reader, &mut table, "token", token, syntax::token);
        metadata.join.token = token.or(metadata.join.token.take());
        reader.finish(&table);
    }
    if let Some(mut table) = reader.take_table(&mut root, "logs") {
        let key = once(reader, &mut table, "key", key, certificate::private_key);
        metadata.logs.key = key.or(metadata.logs.key.take());
        refuse_open_fields(reader, &table, &["key"], &["to", "ca", "certificate"]);
    }
    if let Some(mut table) = reader.take_table(&mut root, "control_plane") {
        if let Some(field) = reader.take(&mut table, "secrets") {
            match (secrets, reader.table(&field)) {
                (Some(line), _) => reader.field_fault(&field, twice(line)),
                (None, Some(table)) => {
                    let secrets = readcontrolplane::secrets(reader, table);
                    metadata.control_plane.get_or_insert_default().secrets = secrets;
                }
                (None, None) => {}
            }
        }
        refuse_open_fields(reader, &table, &["secrets"], &["schedule_pods", "names", "virtual_address", "etcd"]);
    }
    const OPEN: [&str; 13] = [
        "role",
        "cluster",
        "node",
        "network",
        "docker",
        "time",
        "watchdog",
        "console",
        "shutdown",
        "kubelet",
        "manifests",
        "disks",
        "install",
    ];
    refuse_open_fields(reader, &root, &["version", "join", "logs", "control_plane"], &OPEN);
}

fn twice(line: usize) -> Fault {
    fault(format!("stands in the role file too, on line {line}"), "remove one of the two")
}

/// Reads a secret, unless the role file has it too: on the line `first`.
fn once(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    key: &'static str,
    first: Option<usize>,
    parse: impl Fn(&str) -> Result<Secret, Fault>,
) -> Option<Secret> {
    let field = reader.take(table, key)?;
    match first {
        Some(line) => {
            reader.field_fault(&field, twice(line));
            None
        }
        None => reader.string(&field, parse),
    }
}

/// Tells fields that belong into the role file from those that exist nowhere.
fn refuse_open_fields(reader: &mut Reader<'_>, table: &Table<'_>, secret: &[&'static str], open: &[&'static str]) {
    let mut known = table.knowing(secret);
    for (key, field) in table.all() {
        if let Some(open) = open.iter().find(|open| **open == key) {
            known = known.knowing(&[open]);
            let fix =
                "move it to the role file: this one holds only `join.token`, `logs.key` and `control_plane.secrets`";
            reader.field_fault(&field, fault("is no secret", fix));
        }
    }
    reader.finish(&known);
}

fn read_cluster(reader: &mut Reader<'_>, mut table: Table<'_>) -> Cluster {
    let t = &mut table;
    let default = Cluster::default();
    let service_range =
        reader.take_string(t, "service_range", |text| syntax::range(text, 12, 28)).unwrap_or(default.service_range);
    let cluster = Cluster {
        name: reader.take_string(t, "name", syntax::subdomain).unwrap_or(default.name),
        endpoint: reader.take_string(t, "endpoint", syntax::endpoint),
        ca: reader.take_string(t, "ca", certificate::bundle),
        // Cut into /24s by the controller-manager, which takes at most 2^16 of them (`--node-cidr-mask-size`).
        pod_range: reader.take_string(t, "pod_range", |text| syntax::range(text, 8, 24)).unwrap_or(default.pod_range),
        service_range,
        dns_address: reader
            .take_string(t, "dns_address", syntax::address)
            .unwrap_or_else(|| Cluster::default_dns_address(service_range)),
        dns_domain: reader.take_string(t, "dns_domain", syntax::subdomain).unwrap_or(default.dns_domain),
    };
    reader.finish(&table);
    cluster
}

fn read_node(reader: &mut Reader<'_>, mut table: Table<'_>) -> Node {
    let t = &mut table;
    let name = reader.take_string(t, "name", syntax::node_name);
    // A range smaller than /28 leaves docker's quarter no address to give.
    let pod_range = reader.take_string(t, "pod_range", |text| syntax::range(text, 8, 28));
    let mut labels = BTreeMap::new();
    if let Some(table) = reader.take_table(t, "labels") {
        for (key, field) in table.all() {
            match syntax::label_key(key) {
                Ok(key) => {
                    if let Some(value) = reader.string(&field, syntax::label_value) {
                        labels.insert(key, value);
                    }
                }
                Err(fault) => reader.field_fault(&field, fault),
            }
        }
    }
    let taints = reader.take_strings(t, "taints", syntax::taint);
    reader.finish(&table);
    Node { name, pod_range, labels, taints }
}

fn read_network(reader: &mut Reader<'_>, mut table: Table<'_>) -> Network {
    let t = &mut table;
    let interface = reader.take_string(t, "interface", syntax::interface);
    let fixed = reader.take_table(t, "static").and_then(|table| read_static(reader, table));
    let links = reader.take_table(t, "links").map(|table| readlinks::links(reader, &table)).unwrap_or_default();
    let mode = reader.take_string(t, "mode", |text| match text {
        "routed" => Ok(Mode::Routed),
        "overlay" => Ok(Mode::Overlay),
        other => Err(fault(format!("{other:?} is no mode"), "use \"routed\" or \"overlay\"")),
    });
    let proxy_mode = reader.take_string(t, "proxy_mode", |text| match text {
        "nftables" => Ok(ProxyMode::Nftables),
        "iptables" => Ok(ProxyMode::Iptables),
        other => Err(fault(format!("{other:?} is no mode of kube-proxy"), "use \"nftables\" or \"iptables\"")),
    });
    let network = Network {
        interface,
        fixed,
        // 576: what every IPv4 host must take (RFC 791).
        mtu: reader.take_integer(t, "mtu", 576, 65535).and_then(|mtu| u32::try_from(mtu).ok()),
        dns_servers: reader.take_strings(t, "dns_servers", syntax::name_server),
        search: reader.take_strings(t, "search", syntax::subdomain),
        mode: mode.unwrap_or(Mode::Routed),
        proxy_mode: proxy_mode.unwrap_or(ProxyMode::Nftables),
        masquerade: reader.take_bool(t, "masquerade").unwrap_or(true),
        links,
    };
    reader.finish(&table);
    network
}

fn read_static(reader: &mut Reader<'_>, mut table: Table<'_>) -> Option<Static> {
    let address = reader.take_string(&mut table, "address", syntax::address_in_network);
    let gateway = reader.take_string(&mut table, "gateway", syntax::address);
    if address.is_none() && !reader.given("network.static.address") {
        let fix = "write `address = \"192.168.7.20/24\"`, or remove the table for DHCP";
        reader.fault_at("network.static.address", fault("is missing", fix));
    }
    reader.finish(&table);
    Some(Static { address: address?, gateway })
}

fn read_docker(reader: &mut Reader<'_>, mut table: Table<'_>) -> Docker {
    let t = &mut table;
    let docker = Docker {
        insecure_registries: reader.take_strings(t, "insecure_registries", syntax::registry),
        mirrors: reader.take_strings(t, "mirrors", syntax::mirror),
        // Linux' `fs.nr_open` is 1048576 by default: more cannot be given to any process.
        open_files: reader
            .take_integer(t, "open_files", 1024, 1_048_576)
            .and_then(|files| u64::try_from(files).ok())
            .unwrap_or(DEFAULT_OPEN_FILES),
    };
    reader.finish(&table);
    docker
}

fn read_join(reader: &mut Reader<'_>, mut table: Table<'_>) -> Join {
    let token: Option<Secret> = reader.take_string(&mut table, "token", syntax::token);
    reader.finish(&table);
    Join { token }
}

fn read_time(reader: &mut Reader<'_>, mut table: Table<'_>) -> Time {
    let servers = reader.take_strings(&mut table, "servers", syntax::host);
    reader.finish(&table);
    Time { servers }
}

fn read_manifests(reader: &mut Reader<'_>, root: &mut Table<'_>) -> Vec<Manifest> {
    let mut manifests: Vec<Manifest> = Vec::new();
    let Some(field) = reader.take(root, "manifests") else {
        return manifests;
    };
    for item in reader.array(&field) {
        let Some(mut table) = reader.table(&item) else {
            continue;
        };
        let name = reader.take_string(&mut table, "name", syntax::subdomain);
        let content = reader.take_string(&mut table, "content", |text| {
            if text.trim().is_empty() {
                return Err(fault("is empty", "give a Pod in YAML or JSON"));
            }
            Ok(text.to_owned())
        });
        for key in ["name", "content"] {
            let path = table.path_of(key);
            if !reader.given(&path) {
                let fix = "give every [[manifests]] a name and a content";
                reader.fault_at(&path, fault("is missing", fix));
            }
        }
        reader.finish(&table);
        let (Some(name), Some(content)) = (name, content) else {
            continue;
        };
        if let Some(first) = manifests.iter().position(|other| other.name == name) {
            let what = format!("{name:?} is the name of manifests[{first}] too");
            reader.fault_at(&table.path_of("name"), fault(what, "give each its own name"));
        }
        manifests.push(Manifest { name, content });
    }
    manifests
}
