//! Metadata made at random are the same again after a trip through text, and no text makes the reader panic.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kscratch_metadata::{
    Bond, BondMode, Bridge, Cluster, Disk, Endpoint, HashPolicy, Interface, LacpRate, Link, LogProtocol, LogServer,
    Logs, Mac, Manifest, Mode, Network, ProxyMode, Purpose, RoleMetadata, Route, Secret, Shutdown, Static, Vlan, parse,
    parse_with_secrets, to_toml,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

use super::{CA, KEY};

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
