//! Whole plans as text, the reasons for having none, and the rulesets held against `nft` itself.
mod dhcp6;
mod links;
mod naming;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Command;

use expect_test::{Expect, expect, expect_file};
use ipnet::Ipv4Net;
use kscratch_metadata::{RoleMetadata, parse};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

pub(crate) use super::controlplane::tests::{facts as master_facts, metadata as master};
use super::{Step, cni, firewall, network, node, pod_network, runtime};
use crate::facts::{Facts, Link, Release};

pub const CA: &str = include_str!("../../metadata/tests/ca.pem");
pub const OTHER: &str = include_str!("../../metadata/tests/other-ca.pem");

pub(crate) fn facts() -> Facts {
    let link = Link {
        mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        mtu: 1500,
        addresses: vec!["10.0.2.15/24".parse().unwrap()],
        default_route: true,
    };
    Facts {
        links: BTreeMap::from([("eth0".to_owned(), link)]),
        made: BTreeMap::new(),
        release: Release {
            kubernetes: "1.37.2".to_owned(),
            cri_dockerd: "0.4.3".to_owned(),
            docker: "26.1.5+dfsg1-9".to_owned(),
            kernel: "6.12.48+deb13-cloud-amd64".to_owned(),
            kscratch: "0.1.0".to_owned(),
            role: "node".to_owned(),
            pause_image: "kscratch.local/pause:1".to_owned(),
            images: BTreeMap::new(),
        },
        manifests: BTreeMap::from([("hello.yaml".to_owned(), b"kind: Pod\n".to_vec())]),
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        leased: BTreeMap::new(),
        leased6: BTreeMap::new(),
        dns_servers: vec![Ipv4Addr::new(10, 0, 2, 3)],
        dns_search: Vec::new(),
        dhcp_hostname: None,
        memory: 1 << 30,
        lasting: true,
        joined: false,
        etcd_ca: None,
        etcd_disk: None,
        cluster_ca: None,
        node_name: None,
        put_aside: BTreeSet::new(),
        aside: Default::default(),
        pod_range: None,
    }
}

fn two_links() -> Facts {
    let mut facts = facts();
    let second = Link { mac: [0x52, 0x54, 0, 0, 0, 1], mtu: 9000, addresses: Vec::new(), default_route: false };
    facts.links.insert("eth1".to_owned(), second);
    facts
}

fn role(body: &str) -> RoleMetadata {
    let text = format!("version = 1\nrole = \"node\"\n{body}");
    parse(&text).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn cluster(more: &str) -> RoleMetadata {
    role(&format!(
        "[cluster]\nendpoint = \"10.0.2.2\"\nca = '''\n{CA}'''\n[join]\ntoken = \"abcdef.0123456789abcdef\"\n{more}"
    ))
}

#[track_caller]
fn check_network(metadata: &RoleMetadata, facts: &Facts, want: Expect) {
    want.assert_eq(&network(metadata, facts).unwrap().to_string());
}

#[test]
fn network_by_dhcp_on_every_link() {
    check_network(
        &RoleMetadata::standalone(),
        &two_links(),
        expect![[r#"
            phase network
              up lo
              up eth0
              dhcp eth0 metric 100
              up eth1
              dhcp eth1 metric 101
        "#]],
    );
}

#[test]
fn network_with_a_fixed_address() {
    let metadata = role(
        "[network]\ninterface = \"52:54:00:00:00:01\"\nmtu = 9000\n[network.static]\naddress = \"192.168.7.20/24\"\ngateway = \"192.168.7.1\"\n",
    );
    check_network(
        &metadata,
        &two_links(),
        expect![[r#"
            phase network
              up lo
              up eth1 mtu 9000
              address 192.168.7.20/24 on eth1
              route 0.0.0.0/0 via 192.168.7.1 on eth1
        "#]],
    );
}

#[test]
fn network_without_a_card() {
    let mut facts = facts();
    facts.links.clear();
    check_network(
        &RoleMetadata::standalone(),
        &facts,
        expect![[r#"
        phase network
          up lo
          note no network card found: this machine will be reachable by nobody
    "#]],
    );
}

/// All that is planned once the network is there, and containerd before it.
fn whole(metadata: &RoleMetadata) -> String {
    format!("{}{}", runtime(metadata), node(metadata, &facts()).unwrap())
}

#[test]
fn a_node_that_stands_alone() {
    expect_file!["golden/standalone.txt"].assert_eq(&whole(&RoleMetadata::standalone()));
}

#[test]
fn a_node_of_a_cluster() {
    let metadata = cluster(
        r#"
[node]
name = "n1.lab"
pod_range = "10.244.3.0/24"
labels = { "example.com/rack" = "r1", "example.com/row" = "a" }
taints = ["dedicated=db:NoSchedule"]
[network]
dns_servers = ["9.9.9.9"]
search = ["lab.internal"]
mode = "overlay"
[docker]
insecure_registries = ["registry.lab:5000"]
mirrors = ["https://mirror.lab"]
open_files = 65536
[kubelet]
maxPods = 50
[[manifests]]
name = "web"
content = "kind: Pod"
"#,
    );
    expect_file!["golden/cluster.txt"].assert_eq(&whole(&metadata));
}

/// Steps of one phase of a node's plan, as text.
fn steps(metadata: &RoleMetadata, facts: &Facts, name: &str) -> String {
    let plan = node(metadata, facts).unwrap();
    let phase = plan.phases.into_iter().find(|phase| phase.name == name);
    phase.unwrap().to_string()
}

#[test]
fn a_node_whose_range_the_control_plane_gives() {
    let metadata = cluster("");
    expect![[r#"
        phase bridge
          remove link docker0
          prune /var/lib/docker/network/files
          note no cbr0 yet: the control plane will give this node its pod range
          firewall
            | add table ip kscratch
            | delete table ip kscratch
            | table ip kscratch {
            | 	chain forward {
            | 		type filter hook forward priority filter; policy drop;
            | 		ct state established,related accept
            | 		ct status dnat accept
            | 		ip saddr 10.244.0.0/16 accept
            | 		ip daddr 10.244.0.0/16 accept
            | 	}
            | }
    "#]]
    .assert_eq(&steps(&metadata, &facts(), "bridge"));
    expect![[r#"
        phase pod-network
          bridge cbr0 10.244.7.1/24 mtu 1500
          firewall
            | add table ip kscratch
            | delete table ip kscratch
            | table ip kscratch {
            | 	chain postrouting {
            | 		type nat hook postrouting priority srcnat; policy accept;
            | 		ip saddr 10.244.7.0/24 ip daddr != 10.244.0.0/16 fib daddr type != local masquerade
            | 	}
            | 	chain forward {
            | 		type filter hook forward priority filter; policy drop;
            | 		ct state established,related accept
            | 		ct status dnat accept
            | 		ip saddr 10.244.0.0/16 accept
            | 		ip daddr 10.244.0.0/16 accept
            | 	}
            | }
        phase pods
          file /var/lib/kscratch/pod-range 0644
            | 10.244.7.0/24 kscratch-01234567
          file /run/kscratch/cni/net.d/10-kscratch.conflist 0644
            | {
            |   "cniVersion": "1.0.0",
            |   "name": "kscratch",
            |   "plugins": [
            |     {
            |       "bridge": "cbr0",
            |       "hairpinMode": true,
            |       "ipMasq": false,
            |       "ipam": {
            |         "dataDir": "/var/lib/cni/networks",
            |         "ranges": [
            |           [
            |             {
            |               "gateway": "10.244.7.1",
            |               "rangeEnd": "10.244.7.191",
            |               "rangeStart": "10.244.7.2",
            |               "subnet": "10.244.7.0/24"
            |             }
            |           ]
            |         ],
            |         "type": "host-local"
            |       },
            |       "isDefaultGateway": true,
            |       "mtu": 1500,
            |       "type": "bridge"
            |     },
            |     {
            |       "capabilities": {
            |         "portMappings": true
            |       },
            |       "type": "portmap"
            |     }
            |   ]
            | }
    "#]]
    .assert_eq(&pod_network(&metadata, &facts(), "10.244.7.0/24".parse().unwrap()).to_string());
    let config = steps(&metadata, &facts(), "config");
    assert!(config.contains(r#""bridge": "none""#), "{config}");
    assert!(!config.contains("cbr0"), "{config}");
}

#[test]
fn logs_are_sent_where_a_server_is_named() {
    assert_eq!(runtime(&RoleMetadata::standalone()).phases.len(), 1);
    let metadata = role(
        "[logs]\nto = [\"tls://logs.lab:6514\", \"udp://10.0.0.5:5170\"]\nca = '''\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----'''\n",
    );
    expect![[r#"
        phase logs
          directory /run/kscratch/logs 0700 of 908
          directory /var/lib/kscratch/logs 0700 of 908
          file /run/kscratch/logs-ca.crt 0644
            | -----BEGIN CERTIFICATE-----
            | MAA=
            | -----END CERTIFICATE-----
          file /run/kscratch/logs.json 0644
            | {
            |   "authorities": "/run/kscratch/logs-ca.crt",
            |   "except": [
            |     "logs"
            |   ],
            |   "folder": "/var/log/kscratch",
            |   "name_within_seconds": 60,
            |   "places": "/var/lib/kscratch/logs/places.json",
            |   "ready": "/run/kscratch/logs/ready",
            |   "room": 4194304,
            |   "servers": [
            |     {
            |       "host": "logs.lab",
            |       "port": 6514,
            |       "protocol": "tls"
            |     },
            |     {
            |       "host": "10.0.0.5",
            |       "port": 5170,
            |       "protocol": "udp"
            |     }
            |   ]
            | }
          service logs
            | /usr/lib/kscratch/agent
            |   logs
            |   /run/kscratch/logs.json
            env PATH=/usr/sbin:/usr/bin
            ready when /run/kscratch/logs/ready is there within 60s, stops within 10s
            oom 0, open files 1024
            rights 908:
            reads /dev/kmsg
    "#]]
    .assert_eq(&runtime(&metadata).phases[1].to_string());
}

#[test]
fn the_key_of_logs_is_for_who_sends_them_alone() {
    let pem = |what: &str| format!("'''\n-----BEGIN {what}-----\nMAA=\n-----END {what}-----'''");
    let metadata = role(&format!(
        "[logs]\nto = [\"tls://logs.lab:6514\"]\ncertificate = {}\nkey = {}\n",
        pem("CERTIFICATE"),
        pem("PRIVATE KEY")
    ));
    let text = runtime(&metadata).phases[1].to_string();
    for part in [
        "  file /run/kscratch/logs-client.crt 0644\n    | -----BEGIN CERTIFICATE-----\n",
        "  file /run/kscratch/logs-client.key 0600 of 908 (58 bytes, private)\n",
        "    |   \"authorities\": \"/etc/ssl/certs/ca-certificates.crt\",\n",
        "    |   \"identity\": {\n    |     \"certificate\": \"/run/kscratch/logs-client.crt\",\n    |     \"key\": \"/run/kscratch/logs-client.key\"\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("PRIVATE KEY"), "{text}");
}

#[test]
fn pods_that_are_routed_outside_keep_their_address() {
    let metadata = role("[network]\nmasquerade = false\n");
    assert!(!steps(&metadata, &facts(), "bridge").contains("masquerade"));
}

#[test]
fn the_bridge_fits_the_narrowest_link_in_use() {
    let mut facts = two_links();
    for (mtu, body, want) in [
        // eth1 has no address: nothing goes through it.
        (9000, "", 1500),
        (1400, "", 1500),
        (9000, "mode = \"overlay\"", 1450),
        (9000, "mtu = 1300", 1300),
        (9000, "interface = \"eth1\"", 1500),
    ] {
        facts.links.get_mut("eth1").unwrap().mtu = mtu;
        let metadata = role(&format!("[network]\n{body}\n"));
        let bridge = steps(&metadata, &facts, "bridge");
        assert!(bridge.contains(&format!("bridge cbr0 10.244.0.1/24 mtu {want}\n")), "{body}: {bridge}");
    }
}

/// A machine that has joined needs no token: it boots with the identity that it has.
#[test]
fn a_joined_node_needs_no_token() {
    let mut metadata = cluster("");
    metadata.join.token = None;
    let mut facts = facts();
    facts.joined = true;
    let services = steps(&metadata, &facts, "services");
    assert!(services.contains("--kubeconfig=/etc/kubernetes/kubelet.conf"), "{services}");
    assert!(!services.contains("bootstrap"), "{services}");
}

#[test]
fn no_output_shows_the_token() {
    let plan = node(&cluster(""), &facts()).unwrap();
    let text = format!("{plan} {plan:?} {plan:#?}");
    assert!(!text.contains("0123456789abcdef\""), "{text}");
    let secret = b"abcdef.0123456789abcdef";
    let holders: Vec<&Step> = plan
        .phases
        .iter()
        .flat_map(|phase| &phase.steps)
        .filter(|step| match step {
            Step::File { contents, .. } => contents.windows(secret.len()).any(|window| window == secret),
            _ => false,
        })
        .collect();
    assert!(
        matches!(holders.as_slice(), [Step::File { mode: 0o600, .. }]),
        "the token belongs into one private file: {holders:?}"
    );
}

/// Loads rulesets into the kernel, again and again, in a network namespace of its own: what nft takes is right, whatever this file
/// thinks.
#[test]
fn nft_takes_the_ruleset_again_and_again() {
    let node = "10.244.3.0/24".parse().unwrap();
    let pods = "10.244.0.0/16".parse().unwrap();
    let rulesets = [true, true, false].map(|masquerade| firewall::ruleset(Some(node), pods, masquerade));
    let script = "for rules; do printf %s \"$rules\" | nft -f -; done; nft list ruleset";
    for loaded in [&rulesets[..2], &rulesets[..]] {
        let output = Command::new("unshare")
            .args(["-n", "sh", "-ec", script, "sh"])
            .args(loaded)
            .output()
            .expect("unshare is needed (apt-get install util-linux nftables), and root to run it");
        assert!(
            output.status.success(),
            "{} (apt-get install nftables where nft is missing)",
            String::from_utf8_lossy(&output.stderr)
        );
        // Of what was loaded before, nothing is left: the kernel's list is the last ruleset.
        let rules = |text: &str| -> Vec<String> {
            let lines = text.lines().skip_while(|line| !line.starts_with("table"));
            lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
        };
        let want = rules(loaded.last().unwrap());
        assert_eq!(rules(&String::from_utf8_lossy(&output.stdout)), want);
    }
}

proptest! {
    /// Bridge, pods and docker share a range without sharing an address, and none has the broadcast address but docker's block.
    #[test]
    fn nobody_hands_out_an_address_twice(address in any::<u32>(), prefix in 8_u8..=28) {
        let range = Ipv4Net::new_assert(Ipv4Addr::from(address), prefix).trunc();
        let shares = cni::shares(range);
        let (first, last) = shares.pods;
        prop_assert_eq!(shares.docker, shares.docker.trunc());
        prop_assert_eq!(shares.docker.broadcast(), range.broadcast());
        prop_assert_eq!(u32::from(shares.bridge.addr()), u32::from(range.network()) + 1);
        prop_assert!(shares.bridge.addr() < first && first <= last);
        prop_assert_eq!(u32::from(last) + 1, u32::from(shares.docker.network()));
    }
}
