//! What valid metadata means: every field read, every default filled in, and the same again after a trip through text.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kscratch_metadata::{Bond, BondMode, Bridge, HashPolicy, LacpRate, Link, Route, Vlan};
use kscratch_metadata::{
    Cluster, Console, Disk, Docker, Effect, Endpoint, Interface, Join, Keys, LogProtocol, LogServer, Logs, Mac,
    Manifest, Mode, Network, Node, ProxyMode, Purpose, Role, RoleMetadata, Secret, Shutdown, Static, Taint, Time,
    Watchdog, json_schema, parse, parse_with_secrets, to_toml,
};
use kscratch_metadata::{Install, Then};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

const CA: &str = include_str!("ca.pem");
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";

#[test]
fn two_lines_are_a_machine_that_stands_alone() {
    let metadata = parse("version = 1\nrole = \"node\"\n").unwrap();
    assert_eq!(metadata, RoleMetadata::standalone());
    assert_eq!(metadata.docker.open_files, 1_000_000);
    assert_eq!(metadata.shutdown, Shutdown { grace_seconds: 30, critical_grace_seconds: 10 });
    assert_eq!(metadata.node_pod_range(), Some("10.244.0.0/24".parse().unwrap()));
}

#[test]
fn a_cluster_has_the_usual_ranges() {
    let text = format!("version = 1\nrole = \"node\"\n[cluster]\nendpoint = \"Api.Example.org\"\nca = '''{CA}'''\n");
    let metadata = parse(&text).unwrap();
    let cluster = metadata.cluster.as_ref().unwrap();
    assert_eq!(cluster.endpoint.as_ref().unwrap().to_string(), "api.example.org:6443");
    assert_eq!(cluster.pod_range.to_string(), "10.244.0.0/16");
    assert_eq!(cluster.service_range.to_string(), "10.96.0.0/16");
    assert_eq!(cluster.dns_address.to_string(), "10.96.0.10");
    assert_eq!(cluster.dns_domain, "cluster.local");
    // The control plane gives the node its range (automatic mode).
    assert_eq!(metadata.node_pod_range(), None);
}

#[test]
fn every_field_is_read() {
    let text = format!(
        r#"
version = 1
role = "node"
[cluster]
name = "lab"
endpoint = "192.168.7.2:8443"
ca = '''{CA}'''
pod_range = "10.10.0.0/16"
service_range = "10.20.0.0/20"
dns_address = "10.20.1.1"
dns_domain = "lab.internal"
[node]
name = "n1.lab"
pod_range = "10.10.3.0/24"
labels = {{ "example.com/rack" = "r1", "node.kubernetes.io/x" = "" }}
taints = ["dedicated=db:NoExecute", "example.com/slow:PreferNoSchedule"]
[network]
interface = "52-54-00-AB-CD-EF"
mtu = 9000
dns_servers = ["9.9.9.9"]
search = ["lab.internal"]
mode = "overlay"
proxy_mode = "iptables"
masquerade = false
[network.static]
address = "192.168.7.20/24"
gateway = "192.168.7.1"
[docker]
insecure_registries = ["registry.lab:5000", "192.168.0.0/16"]
mirrors = ["https://mirror.lab/"]
open_files = 65536
[time]
servers = ["time.lab", "192.168.7.3"]
[watchdog]
enabled = false
timeout = 120
[console]
keys = "look"
[shutdown]
grace_seconds = 90
critical_grace_seconds = 40
[logs]
to = ["tls://Logs.Lab:6514", "udp://192.168.7.3:5170"]
ca = '''{CA}'''
certificate = '''{CA}'''
key = '''{KEY}'''
[kubelet]
maxPods = 50
evictionHard = {{ "memory.available" = "100Mi" }}
memoryThrottlingFactor = 0.5
[[disks]]
for = "docker"
serial = " S3Z8  NB0 "
wwn = "wwn-0x5000C500A1B2C3D4"
path = "/dev/disk/by-path/pci-0000:00:1f.2-ata-1"
[install]
wwn = "EUI.0025385B01234567"
replaces = "mbr:1A2B3C4D"
then = "reboot"
attempt = 2
[[manifests]]
name = "web"
content = "kind: Pod"
"#
    );
    let read = parse_with_secrets(&text, "[join]\ntoken = \"abcdef.0123456789abcdef\"\n").unwrap();
    let want = RoleMetadata {
        version: 1,
        role: Role::Node,
        cluster: Some(Cluster {
            name: "lab".into(),
            endpoint: Some(Endpoint { host: "192.168.7.2".into(), port: 8443 }),
            ca: Some(CA.into()),
            pod_range: "10.10.0.0/16".parse().unwrap(),
            service_range: "10.20.0.0/20".parse().unwrap(),
            dns_address: Ipv4Addr::new(10, 20, 1, 1),
            dns_domain: "lab.internal".into(),
        }),
        control_plane: None,
        node: Node {
            name: Some("n1.lab".into()),
            pod_range: Some("10.10.3.0/24".parse().unwrap()),
            labels: BTreeMap::from([
                ("example.com/rack".into(), "r1".into()),
                ("node.kubernetes.io/x".into(), String::new()),
            ]),
            taints: vec![
                Taint { key: "dedicated".into(), value: "db".into(), effect: Effect::NoExecute },
                Taint { key: "example.com/slow".into(), value: String::new(), effect: Effect::PreferNoSchedule },
            ],
        },
        network: Network {
            interface: Some(Interface::Mac(Mac([0x52, 0x54, 0, 0xab, 0xcd, 0xef]))),
            fixed: Some(Static {
                address: "192.168.7.20/24".parse().unwrap(),
                gateway: Some(Ipv4Addr::new(192, 168, 7, 1)),
            }),
            mtu: Some(9000),
            dns_servers: vec![Ipv4Addr::new(9, 9, 9, 9)],
            search: vec!["lab.internal".into()],
            mode: Mode::Overlay,
            proxy_mode: ProxyMode::Iptables,
            masquerade: false,
            links: BTreeMap::new(),
        },
        docker: Docker {
            insecure_registries: vec!["registry.lab:5000".into(), "192.168.0.0/16".into()],
            mirrors: vec!["https://mirror.lab/".into()],
            open_files: 65536,
        },
        join: Join { token: Some(Secret::new("abcdef.0123456789abcdef")) },
        time: Time { servers: vec!["time.lab".into(), "192.168.7.3".into()] },
        watchdog: Watchdog { enabled: false, timeout: 120 },
        console: Console { keys: Keys::Look },
        shutdown: Shutdown { grace_seconds: 90, critical_grace_seconds: 40 },
        logs: Logs {
            to: vec![
                LogServer { protocol: LogProtocol::Tls, host: "logs.lab".into(), port: 6514 },
                LogServer { protocol: LogProtocol::Udp, host: "192.168.7.3".into(), port: 5170 },
            ],
            ca: Some(CA.into()),
            certificate: Some(CA.into()),
            key: Some(Secret::new(KEY)),
        },
        kubelet: serde_json::json!({
            "maxPods": 50,
            "evictionHard": {"memory.available": "100Mi"},
            "memoryThrottlingFactor": 0.5,
        })
        .as_object()
        .unwrap()
        .clone(),
        disks: vec![Disk {
            purpose: Purpose::Docker,
            serial: Some("S3Z8 NB0".into()),
            wwn: Some("5000c500a1b2c3d4".into()),
            path: Some("pci-0000:00:1f.2-ata-1".into()),
            replaces: None,
        }],
        install: Some(Install {
            serial: None,
            wwn: Some("eui.0025385b01234567".into()),
            path: None,
            replaces: Some("mbr:1a2b3c4d".into()),
            then: Then::Reboot,
            attempt: 2,
        }),
        manifests: vec![Manifest { name: "web".into(), content: "kind: Pod".into() }],
    };
    assert_eq!(read, want);
    assert_eq!(parse(&to_toml(&want).unwrap()).unwrap(), want);
}

#[test]
fn critical_pods_have_a_part_of_the_grace() {
    for (text, grace_seconds, critical_grace_seconds) in [
        ("grace_seconds = 300", 300, 10),
        ("grace_seconds = 6", 6, 2),
        ("grace_seconds = 0", 0, 0),
        ("critical_grace_seconds = 30", 30, 30),
        ("grace_seconds = 60\ncritical_grace_seconds = 0", 60, 0),
    ] {
        let metadata = parse(&format!("version = 1\nrole = \"node\"\n[shutdown]\n{text}\n")).unwrap();
        assert_eq!(metadata.shutdown, Shutdown { grace_seconds, critical_grace_seconds }, "{text}");
    }
}

/// Every field that the parser knows is in the schema, and the schema says what the parser says of unknown ones.
#[test]
fn the_schema_knows_the_same_fields() {
    let schema = json_schema();
    let machine = &schema["$defs"]["RoleMetadata"];
    assert_eq!(machine["additionalProperties"], serde_json::Value::Bool(false));
    assert_eq!(machine["required"], serde_json::json!(["version", "role"]));
    let parts = [
        ("Cluster", "[cluster]"),
        ("Node", "[node]"),
        ("Network", "[network]"),
        ("Static", "[network.static]"),
        ("Link", "[network.links.a]"),
        ("Bond", "[network.links.a.bond]"),
        ("Vlan", "[network.links.a.vlan]"),
        ("Bridge", "[network.links.a.bridge]"),
        ("Route", "[[network.links.a.routes]]"),
        ("Docker", "[docker]"),
        ("Join", "[join]"),
        ("Time", "[time]"),
        ("Watchdog", "[watchdog]"),
        ("Shutdown", "[shutdown]"),
        ("Logs", "[logs]"),
        ("Console", "[console]"),
        ("Disk", "[[disks]]"),
        ("Install", "[install]"),
        ("Manifest", "[[manifests]]"),
    ];
    for (name, header) in parts {
        let part = &schema["$defs"][name];
        assert_eq!(part["additionalProperties"], serde_json::Value::Bool(false), "{name}");
        let fields: Vec<&String> = part["properties"].as_object().unwrap().keys().collect();
        let text = format!("version = 1\nrole = \"node\"\n{header}\nqqqqqqqqqqqq = 1\n");
        let errors = parse(&text).unwrap_err();
        let known = errors.problems().iter().find_map(|problem| problem.fix.strip_prefix("known here: ")).unwrap();
        let known: Vec<&str> = known.split(", ").collect();
        assert_eq!(fields, known, "{name}");
        let needed = part["required"].as_array().map_or(0, Vec::len);
        let wanted = match name {
            "Static" | "Disk" | "Bond" | "Bridge" => 1,
            "Manifest" | "Vlan" => 2,
            _ => 0,
        };
        assert_eq!(needed, wanted, "{name}: {}", part["required"]);
    }
}

fn word() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?"
}

/// A cluster under 10.64.0.0/10 with its node range inside, away from everything else that is generated here.
fn cluster() -> impl Strategy<Value = (Cluster, Option<ipnet::Ipv4Net>)> {
    let node_range = option::of(any::<u8>());
    (word(), word(), any::<u16>(), 0_u8..64, 12_u8..=28, node_range, "[a-z]{1,8}").prop_map(
        |(name, host, port, second, prefix, node, domain)| {
            let service_range = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), prefix);
            let pods = |third, prefix| ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 64 + second, third, 0), prefix);
            let cluster = Cluster {
                name,
                endpoint: Some(Endpoint { host: format!("{host}.example"), port: port.max(1) }),
                ca: Some(CA.to_owned()),
                pod_range: pods(0, 16),
                service_range,
                dns_address: Cluster::default_dns_address(service_range),
                dns_domain: domain,
            };
            (cluster, node.map(|third| pods(third, 24)))
        },
    )
}

/// A bond of two cards with a VLAN and a bridge over it, each with what it may have besides.
fn links() -> impl Strategy<Value = BTreeMap<String, Link>> {
    let pick = |all: usize| 0..all;
    let bond = (pick(BondMode::ALL.len()), 1_u32..=10_000, option::of(pick(HashPolicy::ALL.len())), any::<[bool; 4]>());
    (bond, 1_u16..=4094, any::<u8>(), option::of(any::<u32>()), option::of(1280_u32..=9000)).prop_map(
        |((mode, miimon, hash, flags), id, host, metric, mtu)| {
            let mode = BondMode::ALL[mode];
            let asks = mode.asks() && flags[0];
            let bond = Bond {
                members: vec!["left".into(), "right".into()],
                mode,
                miimon: (!asks).then_some(miimon),
                arp_interval: asks.then_some(miimon),
                arp_targets: asks.then_some(Ipv4Addr::new(192, 168, 9, host.max(1))).into_iter().collect(),
                lacp_rate: (mode == BondMode::Lacp).then(|| LacpRate::ALL[usize::from(flags[0])]),
                hash_policy: hash.filter(|_| mode.hashes()).map(|hash| HashPolicy::ALL[hash]),
                primary: mode.has_primary().then(|| "left".into()),
            };
            let net = |text: String| text.parse::<ipnet::IpNet>().unwrap();
            BTreeMap::from([
                ("left".into(), Link { mac: Some(Mac([0x52, 0x54, 0, 0, 0, host])), ..Link::default() }),
                ("right".into(), Link { mtu: None, optional: flags[1], ..Link::default() }),
                (
                    "bond0".into(),
                    Link {
                        bond: Some(bond),
                        dhcp4: flags[2],
                        dhcp6: flags[0] && mtu.is_none(),
                        mtu,
                        metric,
                        primary: flags[2],
                        ..Link::default()
                    },
                ),
                (
                    "bond0.7".into(),
                    Link {
                        vlan: Some(Vlan { over: "bond0".into(), id }),
                        accept_ra: Some(flags[3]),
                        ..Link::default()
                    },
                ),
                (
                    "br0".into(),
                    Link {
                        bridge: Some(Bridge { members: vec!["bond0.7".into()], stp: flags[3] }),
                        addresses: vec![net(format!("2001:db8::{host:x}:2/64")), net("192.168.9.2/24".into())],
                        routes: vec![
                            Route { destination: None, gateway: Some("192.168.9.1".parse().unwrap()), metric },
                            Route { destination: Some(net("2001:db8:8::/48".into())), gateway: None, metric: None },
                        ],
                        ..Link::default()
                    },
                ),
            ])
        },
    )
}

fn network() -> impl Strategy<Value = Network> {
    prop_oneof![
        short_network(),
        links().prop_map(|mut links| {
            // A bridge's port has no addresses of its own.
            if let Some(vlan) = links.get_mut("bond0.7") {
                vlan.accept_ra = None;
            }
            Network { links, ..Network::default() }
        }),
    ]
}

fn short_network() -> impl Strategy<Value = Network> {
    let interface = prop_oneof![
        "eth[0-9]{1,3}".prop_map(Interface::Name),
        any::<[u8; 6]>().prop_map(|mac| Interface::Mac(Mac(mac))),
    ];
    let fixed = (2_u8..254, any::<bool>()).prop_map(|(last, gateway)| Static {
        address: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 7, last), 24),
        gateway: gateway.then_some(Ipv4Addr::new(192, 168, 7, 1)),
    });
    let mode = prop_oneof![Just(Mode::Routed), Just(Mode::Overlay)];
    let proxy_mode = prop_oneof![Just(ProxyMode::Nftables), Just(ProxyMode::Iptables)];
    let parts =
        (option::of(interface), option::of(fixed), option::of(576_u32..=65535), mode, proxy_mode, any::<bool>());
    parts.prop_map(|(interface, fixed, mtu, mode, proxy_mode, masquerade)| Network {
        interface,
        fixed,
        mtu,
        mode,
        proxy_mode,
        masquerade,
        ..Network::default()
    })
}

fn logs(seed: u64) -> Logs {
    let server = |number: u64| LogServer {
        protocol: LogProtocol::ALL[(number % 3) as usize],
        host: format!("h{seed}.example"),
        port: 5170 + number as u16,
    };
    let to: Vec<LogServer> = (0..seed % 5).map(server).collect();
    // The second of them speaks TLS.
    let tls = to.len() > 1;
    Logs { to, ca: tls.then(|| CA.into()), certificate: tls.then(|| CA.into()), key: tls.then(|| Secret::new(KEY)) }
}

fn metadata() -> impl Strategy<Value = RoleMetadata> {
    let labels = btree_map("[A-Za-z0-9]{1,9}", "([A-Za-z0-9]{1,9})?", 0..3);
    let kubelet = btree_map(
        "x[a-z]{0,5}( \\PC{0,4})?",
        prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
            vec(any::<String>(), 0..3).prop_map(serde_json::Value::from),
        ],
        0..4,
    );
    let manifests = btree_map(word(), any::<String>(), 0..3);
    (option::of(cluster()), network(), labels, kubelet, manifests, 1024_u64..=1_048_576).prop_map(
        |(cluster, network, labels, kubelet, manifests, open_files)| {
            let mut metadata = RoleMetadata::standalone();
            metadata.join.token = cluster.is_some().then(|| Secret::new("abcdef.0123456789abcdef"));
            metadata.node.pod_range = cluster.as_ref().and_then(|(_, range)| *range);
            metadata.cluster = cluster.map(|(cluster, _)| cluster);
            metadata.node.labels = labels;
            metadata.network = network;
            metadata.shutdown =
                Shutdown { grace_seconds: 3600, critical_grace_seconds: metadata.network.mtu.unwrap_or(0) % 3601 };
            metadata.docker.open_files = open_files;
            metadata.logs = logs(open_files);
            let disk = Disk {
                purpose: Purpose::Docker,
                serial: Some(format!("S {open_files}")),
                wwn: Some(format!("eui.{open_files:016x}")),
                path: (open_files % 3 == 0).then(|| format!("pci-0000:00:{:02x}.0", open_files % 32)),
                replaces: None,
            };
            metadata.disks = (open_files % 2 == 0).then_some(disk).into_iter().collect();
            metadata.kubelet = kubelet.into_iter().collect();
            metadata.manifests = manifests
                .into_iter()
                .map(|(name, content)| Manifest { name, content: format!("x{content}") })
                .collect();
            metadata
        },
    )
}

proptest! {
    #[test]
    fn valid_metadata_survives_its_text(metadata in metadata()) {
        let text = to_toml(&metadata).unwrap();
        let again = parse(&text).map_err(|errors| format!("{errors}\n{text}"));
        prop_assert_eq!(again, Ok(metadata));
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), secrets in any::<String>()) {
        let _ = parse_with_secrets(&text, &secrets);
    }

    /// Text that is TOML and looks like metadata reaches the rules; a damaged byte must not make them panic.
    #[test]
    fn damaged_metadata_never_panics(metadata in metadata(), at in any::<proptest::sample::Index>(), with in any::<char>()) {
        let mut chars: Vec<char> = to_toml(&metadata).unwrap().chars().collect();
        let at = at.index(chars.len());
        chars[at] = with;
        let _ = parse(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn arbitrary_values_never_panic(value in "\\PC{0,20}") {
        let quoted = toml::Value::String(value).to_string();
        let text = format!("version = 1\nrole = {quoted}\n[cluster]\nname = {quoted}\nendpoint = {quoted}\nca = {quoted}\npod_range = {quoted}\n\
            service_range = {quoted}\ndns_address = {quoted}\n[node]\nname = {quoted}\npod_range = {quoted}\nlabels = {{ {quoted} = {quoted} }}\n\
            taints = [{quoted}]\n[network]\ninterface = {quoted}\n[docker]\nmirrors = [{quoted}]\ninsecure_registries = [{quoted}]\n\
            [logs]\nto = [{quoted}]\nca = {quoted}\ncertificate = {quoted}\nkey = {quoted}\n[network.links.{quoted}]\nmac = {quoted}\naddresses = [{quoted}]\nroutes = [{{ gateway = {quoted}, destination = {quoted} }}]\n\
            bond = {{ members = [{quoted}], mode = {quoted}, primary = {quoted} }}\nvlan = {{ over = {quoted}, id = 1 }}\n\
            [join]\ntoken = {quoted}\n[kubelet]\n{quoted} = {quoted}\n");
        let _ = parse(&text);
    }
}

#[test]
fn every_field_of_a_link_is_read() {
    let text = r#"
version = 1
role = "node"
[network]
dns_servers = ["192.168.7.1"]
[network.links.left]
mac = "52:54:00:00:00:01"
[network.links.eth1]
[network.links.bond0]
bond = { members = ["left", "eth1"], mode = "802.3ad", miimon = 50, lacp_rate = "fast", hash_policy = "layer3+4" }
mtu = 9000
addresses = ["2001:db8::20/64", "192.168.7.20/24"]
routes = [
  { gateway = "192.168.7.1", metric = 5 },
  { destination = "10.8.0.0/16", gateway = "192.168.7.254" },
  { gateway = "fe80::1" },
]
accept_ra = false
primary = true
[network.links."bond0.7"]
vlan = { over = "bond0", id = 7 }
[network.links.br0]
bridge = { members = ["bond0.7"], stp = true }
dhcp4 = true
dhcp6 = true
metric = 200
optional = true
"#;
    let read = parse(text).map_err(|errors| errors.to_string()).unwrap();
    let links = &read.network.links;
    assert_eq!(links.keys().collect::<Vec<_>>(), ["bond0", "bond0.7", "br0", "eth1", "left"]);
    assert_eq!(links["eth1"], Link::default());
    let bond = links["bond0"].bond.as_ref().unwrap();
    assert_eq!((bond.mode, bond.miimon, bond.lacp_rate), (BondMode::Lacp, Some(50), Some(LacpRate::Fast)));
    assert_eq!(bond.hash_policy, Some(HashPolicy::Layer3And4));
    assert_eq!(links["bond0"].below().collect::<Vec<_>>(), ["left", "eth1"]);
    assert_eq!(links["bond0"].routes[2].leads_to().unwrap().to_string(), "::/0");
    assert_eq!(links["bond0.7"].vlan, Some(Vlan { over: "bond0".into(), id: 7 }));
    let br0 = &links["br0"];
    assert_eq!((br0.dhcp4, br0.metric, br0.optional, br0.bridge.as_ref().unwrap().stp), (true, Some(200), true, true));
    // Its routes are announced by routers, unless that is turned off.
    assert_eq!((br0.dhcp6, br0.accept_ra, br0.announced()), (true, None, Some(true)));
    assert_eq!((links["bond0"].announced(), links["bond0.7"].announced()), (Some(false), None));
    assert_eq!(parse(&to_toml(&read).unwrap()).unwrap(), read);
    assert!(!read.network.leaves_links_open());
}

#[test]
fn a_bond_looks_at_carriers_or_asks_by_arp() {
    let bond = |options: &str| {
        let links = format!(
            "[network.links.eth0]\n[network.links.bond0]\ndhcp4 = true\nbond = {{ members = [\"eth0\"]{options} }}\n"
        );
        let read =
            parse(&format!("version = 1\nrole = \"node\"\n{links}")).map_err(|errors| errors.to_string()).unwrap();
        assert_eq!(parse(&to_toml(&read).unwrap()).unwrap(), read);
        let bond = read.network.links["bond0"].bond.clone().unwrap();
        (bond.miimon, bond.arp_interval, bond.arp_targets)
    };
    assert_eq!(bond(""), (Some(100), None, Vec::new()));
    let targets = vec![Ipv4Addr::new(192, 168, 7, 254), Ipv4Addr::new(192, 168, 7, 1)];
    let asks = ", arp_interval = 200, arp_targets = [\"192.168.7.254\", \"192.168.7.1\"]";
    assert_eq!(bond(asks), (None, Some(200), targets));
}
