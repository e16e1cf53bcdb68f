//! What valid metadata means: every field read, every default filled in, and the same again after a trip through text.
mod generated;
mod links;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kscratch_metadata::{
    Cluster, Console, Disk, Docker, Effect, Endpoint, Install, Interface, Join, Keys, LogProtocol, LogServer, Logs,
    Mac, Manifest, Mode, Network, Node, ProxyMode, Purpose, Role, RoleMetadata, Secret, Shutdown, Static, Taint, Then,
    Time, Watchdog, json_schema, parse, parse_with_secrets, to_toml,
};

const CA: &str = include_str!("../ca.pem");
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
