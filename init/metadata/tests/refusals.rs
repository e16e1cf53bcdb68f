//! Tables of metadata texts and the exact words with which each is refused.
use expect_test::{Expect, expect};
use kscratch_metadata::{parse, parse_with_secrets};

/// A text that begins with the two lines that every file needs: line 3 is the first of the row.
#[track_caller]
fn check(body: &str, want: Expect) {
    let text = format!("version = 1\nrole = \"node\"\n{body}");
    match parse(&text) {
        Ok(metadata) => want.assert_eq(&format!("accepted: {metadata:?}")),
        Err(errors) => want.assert_eq(&errors.to_string()),
    }
}

#[track_caller]
fn check_whole(text: &str, want: Expect) {
    want.assert_eq(&parse(text).unwrap_err().to_string());
}

const CA: &str = include_str!("ca.pem");

/// A cluster section that has what a node needs, and whatever else a row adds.
fn cluster(more: &str) -> String {
    format!("[cluster]\nendpoint = \"10.0.0.1\"\nca = '''{CA}'''\n{more}")
}

#[test]
fn version_and_role() {
    check_whole(
        "",
        expect![[r#"
        role.toml:1:1: version: is missing; write `version = 1` at the top of the file
        role.toml:1:1: role: is missing; write `role = "node"` (or "master") at the top of the file"#]],
    );
    check_whole(
        "version = 2\nrole = \"worker\"",
        expect![[r#"
        role.toml:1:11: version: 2 is larger than 1; give a value between 1 and 1
        role.toml:2:8: role: "worker" is no role; use "node" or "master""#]],
    );
    check_whole(
        "version = \"1\"\nrole = 1",
        expect![[r#"
        role.toml:1:11: version: is a string; give a whole number
        role.toml:2:8: role: is an integer; give a string in quotes"#]],
    );
    check_whole(
        "role = \"master\"",
        expect!["role.toml:1:1: version: is missing; write `version = 1` at the top of the file"],
    );
}

#[test]
fn no_toml() {
    check_whole(
        "version = 1\nrole = node\n",
        expect![[r#"role.toml:2:8: a value without quotes; put strings in quotes, e.g. name = "value""#]],
    );
    check_whole(
        "version = 1\nrole = \"node\n\n[network\nmtu = 1",
        expect![[r#"
            role.toml:2:13: invalid basic string, expected `"`; correct the TOML syntax
            role.toml:4:9: unclosed table, expected `]`; correct the TOML syntax"#]],
    );
    check(
        "[node]\n[node]\n",
        expect![[r#"role.toml:4:2: a value without quotes; put strings in quotes, e.g. name = "value""#]],
    );
}

#[test]
fn unknown_keys() {
    check("[netwrok]\n", expect![[r#"role.toml:3:2: netwrok: there is no such field; did you mean "network"?"#]]);
    check(
        "[network]\nMTU = 1500\ndns-servers = []\n",
        expect![[r#"
        role.toml:4:1: network.MTU: there is no such field; did you mean "mtu"?
        role.toml:5:1: network.dns-servers: there is no such field; did you mean "dns_servers"?"#]],
    );
    check(
        "[docker]\nzzzzzzzzzz = 1\n",
        expect![
            "role.toml:4:1: docker.zzzzzzzzzz: there is no such field; known here: insecure_registries, mirrors, open_files"
        ],
    );
    check(
        "[[manifests]]\nname = \"a\"\ncontents = \"b\"\n",
        expect![[r#"
            role.toml:3:1: manifests[0].content: is missing; give every [[manifests]] a name and a content
            role.toml:5:1: manifests[0].contents: there is no such field; did you mean "content"?"#]],
    );
}

#[test]
fn types() {
    check(
        "network = 1\nnode = \"a\"",
        expect![[r#"
        role.toml:3:11: network: is an integer; give a table
        role.toml:4:8: node: is a string; give a table"#]],
    );
    check(
        "[network]\nmtu = \"1500\"\nmasquerade = \"yes\"\nsearch = \"a\"\ndns_servers = [1]\n",
        expect![[r#"
            role.toml:4:7: network.mtu: is a string; give a whole number
            role.toml:5:14: network.masquerade: is a string; give true or false
            role.toml:6:10: network.search: is a string; give an array
            role.toml:7:16: network.dns_servers[0]: is an integer; give a string in quotes"#]],
    );
    check("manifests = 3", expect!["role.toml:3:13: manifests: is an integer; give an array"]);
}

#[test]
fn numbers() {
    check(
        "[network]\nmtu = 99999",
        expect!["role.toml:4:7: network.mtu: 99999 is larger than 65535; give a value between 576 and 65535"],
    );
    check(
        "[network]\nmtu = 0x10",
        expect!["role.toml:4:7: network.mtu: 16 is smaller than 576; give a value between 576 and 65535"],
    );
    check(
        "[docker]\nopen_files = 99999999999999999999999",
        expect![
            "role.toml:4:14: docker.open_files: the number has too many digits; give a value between 1024 and 1048576"
        ],
    );
}

#[test]
fn ranges() {
    check(
        &cluster("pod_range = \"10.244.0.0/16\"\nservice_range = \"10.244.128.0/20\"\n"),
        expect![
            "role.toml:16:17: cluster.service_range: 10.244.128.0/20 overlaps cluster.pod_range, 10.244.0.0/16; move one of the two: set cluster.service_range or cluster.pod_range"
        ],
    );
    check(
        &cluster("pod_range = \"10.0.0.0/8\"\n"),
        expect![
            "role.toml:15:13: cluster.pod_range: 10.0.0.0/8 overlaps cluster.service_range (the default), 10.96.0.0/16; move one of the two: set cluster.pod_range or cluster.service_range"
        ],
    );
    check(
        &cluster("pod_range = \"10.244.1.0/16\"\nservice_range = \"10.96.0.0/8\"\n"),
        expect![[r#"
            role.toml:15:13: cluster.pod_range: 10.244.1.0/16 is an address inside a range; write the range itself: 10.244.0.0/16
            role.toml:16:17: cluster.service_range: 10.96.0.0/8 is an address inside a range; write the range itself: 10.0.0.0/8"#]],
    );
    check(
        &cluster("pod_range = \"127.0.0.0/16\"\nservice_range = \"fd00::/108\"\n"),
        expect![[r#"
            role.toml:15:13: cluster.pod_range: 127.0.0.0/16 overlaps 127.0.0.0/8, the loopback range; give a range of ordinary addresses, e.g. of 10.0.0.0/8
            role.toml:16:17: cluster.service_range: "fd00::/108" is an IPv6 range; give an IPv4 range: version 1 knows only IPv4"#]],
    );
    check(
        &cluster("[node]\npod_range = \"10.1.0.0/24\"\n"),
        expect![
            "role.toml:16:13: node.pod_range: 10.1.0.0/24 lies outside cluster.pod_range, 10.244.0.0/16; give a part of 10.244.0.0/16"
        ],
    );
    check(
        &cluster("[network.static]\naddress = \"10.244.3.4/24\"\n"),
        expect![
            "role.toml:16:11: network.static.address: 10.244.3.4/24 overlaps cluster.pod_range (the default), 10.244.0.0/16; move one of the two: set network.static.address or cluster.pod_range"
        ],
    );
    check(
        "[node]\npod_range = \"10.1.0.0/24\"\n[network.static]\naddress = \"10.1.0.9/16\"\n",
        expect![
            "role.toml:6:11: network.static.address: 10.1.0.9/16 overlaps node.pod_range, 10.1.0.0/24; move one of the two: set network.static.address or node.pod_range"
        ],
    );
    check(
        "[node]\npod_range = \"10.1.0.0\"\n",
        expect![[r#"role.toml:4:13: node.pod_range: "10.1.0.0" has no prefix length; write it like 10.1.0.0/24"#]],
    );
}

#[test]
fn dns_address() {
    check(
        &cluster("dns_address = \"10.97.0.10\"\n"),
        expect![
            "role.toml:15:15: cluster.dns_address: 10.97.0.10 lies outside cluster.service_range, 10.96.0.0/16; give an address inside it, e.g. 10.96.0.10"
        ],
    );
    check(
        &cluster("dns_address = \"10.96.0.1\"\n"),
        expect![
            "role.toml:15:15: cluster.dns_address: 10.96.0.1 is the address of the service `kubernetes`; give an address inside it, e.g. 10.96.0.10"
        ],
    );
    check(
        &cluster("dns_address = \"10.96.0.0\"\n"),
        expect![
            "role.toml:15:15: cluster.dns_address: 10.96.0.0 is the first or last address of cluster.service_range, 10.96.0.0/16; give an address inside it, e.g. 10.96.0.10"
        ],
    );
    // One mistake, one message: the range is wrong, so nothing is said of the address.
    check(
        &cluster("service_range = \"10.96.0.0\"\ndns_address = \"10.97.0.10\"\n"),
        expect![[
            r#"role.toml:15:17: cluster.service_range: "10.96.0.0" has no prefix length; write it like 10.96.0.0/24"#
        ]],
    );
}

#[test]
fn endpoint() {
    check(
        "[cluster]\n",
        expect![[r#"
        role.toml:3:1: cluster.endpoint: is missing; write `endpoint = "HOST:6443"`, or remove [cluster] for a node that stands alone
        role.toml:3:1: cluster.ca: is missing; paste the cluster's CA certificate: without it any machine could pose as the cluster"#]],
    );
    for (endpoint, want) in [
        (
            "https://10.0.0.1:6443",
            expect![[
                r#"role.toml:14:12: cluster.endpoint: "https://10.0.0.1:6443" has a scheme; leave out "https://" and write "10.0.0.1:6443""#
            ]],
        ),
        (
            "10.0.0.1:0",
            expect![[r#"role.toml:14:12: cluster.endpoint: "0" is no port; give a port between 1 and 65535"#]],
        ),
        (
            "10.0.0.1:+80",
            expect![[r#"role.toml:14:12: cluster.endpoint: "+80" is no port; give a port between 1 and 65535"#]],
        ),
        (
            "[::1]:6443",
            expect![[
                r#"role.toml:14:12: cluster.endpoint: "[::1]:6443" is an IPv6 address; give an IPv4 address or a name: version 1 knows only IPv4"#
            ]],
        ),
        (
            "10.0.0.256",
            expect![[
                r#"role.toml:14:12: cluster.endpoint: "10.0.0.256" is neither an IPv4 address nor a DNS name; write it like 192.168.7.10 or server.example.org"#
            ]],
        ),
        (
            "-a",
            expect![[
                r#"role.toml:14:12: cluster.endpoint: "-a" is neither an IPv4 address nor a DNS name; write it like 192.168.7.10 or server.example.org"#
            ]],
        ),
        (
            "10.96.0.1",
            expect![
                "role.toml:14:12: cluster.endpoint: 10.96.0.1 lies inside cluster.service_range, 10.96.0.0/16; give the address under which the masters are reached from outside"
            ],
        ),
    ] {
        check(&format!("[cluster]\nca = '''{CA}'''\nendpoint = \"{endpoint}\"\n"), want);
    }
}

#[test]
fn ca() {
    let key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    for (ca, want) in [
        (
            "",
            expect![
                "role.toml:5:6: cluster.ca: holds no PEM certificate; paste the cluster's CA certificate (`/etc/kubernetes/pki/ca.crt` of a master) between ''' and '''"
            ],
        ),
        (
            "/etc/kubernetes/pki/ca.crt",
            expect![
                "role.toml:5:6: cluster.ca: holds no PEM certificate; paste the cluster's CA certificate (`/etc/kubernetes/pki/ca.crt` of a master) between ''' and '''"
            ],
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMA\n",
            expect![
                "role.toml:5:6: cluster.ca: holds no PEM certificate; paste the cluster's CA certificate (`/etc/kubernetes/pki/ca.crt` of a master) between ''' and '''"
            ],
        ),
        (
            "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n",
            expect![
                "role.toml:5:6: cluster.ca: holds a CERTIFICATE block that is no DER; paste the cluster's CA certificate (`/etc/kubernetes/pki/ca.crt` of a master) between ''' and '''"
            ],
        ),
        (
            key,
            expect![
                "role.toml:5:6: cluster.ca: holds a private key; take the key out: machines get only the certificate"
            ],
        ),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
            expect![[
                r#"role.toml:5:6: cluster.ca: holds a PEM block of another kind, "CERTIFICATE REQUEST"; paste the cluster's CA certificate (`/etc/kubernetes/pki/ca.crt` of a master) between ''' and '''"#
            ]],
        ),
    ] {
        check(&format!("[cluster]\nendpoint = \"10.0.0.1\"\nca = '''\n{ca}'''\n"), want);
    }
}

#[test]
fn names() {
    check(
        "[node]\nname = \"Node_1\"\n",
        expect![[
            r#"role.toml:4:8: node.name: "Node_1" is no RFC 1123 name; use lower case letters, digits, `-` and `.`, beginning and ending with a letter or digit"#
        ]],
    );
    check(
        &format!("[node]\nname = \"{}.{}\"\n", "a".repeat(40), "b".repeat(40)),
        expect![[
            r#"role.toml:4:8: node.name: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" is 81 characters long; give at most 63 characters: it becomes a host name and a label value"#
        ]],
    );
    check(
        "[node]\nlabels = { \"a b\" = \"c\", ok = \"-\", n = 1 }\n",
        expect![[r#"
            role.toml:4:20: node.labels."a b": is no label key; write [PREFIX/]NAME: a DNS name, then at most 63 letters, digits, `-`, `_`, `.`
            role.toml:4:30: node.labels.ok: "-" is no label value; use at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends
            role.toml:4:39: node.labels.n: is an integer; give a string in quotes"#]],
    );
    check(
        "[node.labels]\n\"node-role.kubernetes.io/worker\" = \"\"\n",
        expect![[
            r#"role.toml:4:36: node.labels."node-role.kubernetes.io/worker": is a label that a kubelet may not set on its own node; take a prefix of your own, node.kubernetes.io/… or kubelet.kubernetes.io/…, or set it later with kubectl"#
        ]],
    );
    check(
        "[node]\ntaints = [\"a\", \"a=b:Never\", \"=:NoSchedule\", \"a=b c:NoSchedule\"]\n",
        expect![[r#"
            role.toml:4:11: node.taints[0]: "a" names no effect; write key[=value]:Effect, e.g. dedicated=db:NoSchedule
            role.toml:4:16: node.taints[1]: "Never" is no effect of a taint; use NoSchedule, PreferNoSchedule or NoExecute
            role.toml:4:29: node.taints[2]: "" is no key of a taint; write [PREFIX/]NAME: a DNS name, then at most 63 letters, digits, `-`, `_`, `.`
            role.toml:4:45: node.taints[3]: "b c" is no label value; use at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends"#]],
    );
    check(
        "[node]\ntaints = [\"a:NoSchedule\", \"a:NoSchedule\"]\n",
        expect!["role.toml:4:27: node.taints[1]: is the same as node.taints[0]; remove one of the two"],
    );
    check(
        "[node]\ntaints = [\"a=1:NoSchedule\", \"a=2:NoSchedule\"]\n",
        expect![
            "role.toml:4:10: node.taints: a=2:NoSchedule and a=1:NoSchedule have the same key and effect; remove one of the two"
        ],
    );
    check(
        "[[manifests]]\nname = \"a/b\"\ncontent = \" \"\n[[manifests]]\n",
        expect![[r#"
            role.toml:4:8: manifests[0].name: "a/b" is no RFC 1123 name; use lower case letters, digits, `-` and `.`, beginning and ending with a letter or digit
            role.toml:5:11: manifests[0].content: is empty; give a Pod in YAML or JSON
            role.toml:6:1: manifests[1].name: is missing; give every [[manifests]] a name and a content
            role.toml:6:1: manifests[1].content: is missing; give every [[manifests]] a name and a content"#]],
    );
    check(
        "[[manifests]]\nname = \"a\"\ncontent = \"x\"\n[[manifests]]\nname = \"a\"\ncontent = \"y\"\n",
        expect![[r#"role.toml:7:8: manifests[1].name: "a" is the name of manifests[0] too; give each its own name"#]],
    );
}

#[test]
fn network() {
    for (interface, want) in [
        (
            "52:54:00:12:34",
            expect![[
                r#"role.toml:4:13: network.interface: "52:54:00:12:34" is no hardware address; write it like 52:54:00:12:34:56"#
            ]],
        ),
        (
            "52:54:00:12:34:5g",
            expect![[
                r#"role.toml:4:13: network.interface: "52:54:00:12:34:5g" is no hardware address; write it like 52:54:00:12:34:56"#
            ]],
        ),
        (
            "an interface",
            expect![[
                r#"role.toml:4:13: network.interface: "an interface" is no name of a link; give a name like eth0 (at most 15 characters) or a hardware address like 52:54:00:12:34:56"#
            ]],
        ),
        (
            "cbr0",
            expect![[
                r#"role.toml:4:13: network.interface: "cbr0" is no link to the outside; give the name or the hardware address of a network card"#
            ]],
        ),
    ] {
        check(&format!("[network]\ninterface = \"{interface}\"\n"), want);
    }
    check(
        "[network.static]\ngateway = \"10.0.0.1\"\n",
        expect![[
            r#"role.toml:3:1: network.static.address: is missing; write `address = "192.168.7.20/24"`, or remove the table for DHCP"#
        ]],
    );
    check(
        "[network.static]\naddress = \"192.168.7.20/24\"\ngateway = \"192.168.8.1\"\n",
        expect![
            "role.toml:5:11: network.static.gateway: 192.168.8.1 lies outside 192.168.7.0/24, the network of network.static.address; give the address of a router inside 192.168.7.0/24"
        ],
    );
    check(
        "[network.static]\naddress = \"192.168.7.0/24\"\ngateway = \"192.168.7.255\"\n",
        expect![[r#"
            role.toml:4:11: network.static.address: 192.168.7.0 is the network's own or its broadcast address; give the address of a host
            role.toml:5:11: network.static.gateway: 192.168.7.255 is the network's own or its broadcast address; give the address of a router inside 192.168.7.0/24"#]],
    );
    check(
        "[network.static]\naddress = \"192.168.7.2/24\"\ngateway = \"192.168.7.2\"\n",
        expect![
            "role.toml:5:11: network.static.gateway: 192.168.7.2 is the machine's own address; give the address of a router inside 192.168.7.0/24"
        ],
    );
    check(
        "[network]\nmode = \"vxlan\"\ndns_servers = [\"127.0.0.53\", \"::1\", \"x\"]\n",
        expect![[r#"
            role.toml:4:8: network.mode: "vxlan" is no mode; use "routed" or "overlay"
            role.toml:5:16: network.dns_servers[0]: 127.0.0.53 is a loopback address, which means another machine in every pod; give the address of a server on the network
            role.toml:5:30: network.dns_servers[1]: "::1" is an IPv6 address; give an IPv4 address: version 1 knows only IPv4
            role.toml:5:37: network.dns_servers[2]: "x" is no IPv4 address; write it like 192.168.7.10"#]],
    );
    check(
        "[network]\nproxy_mode = \"ipvs\"\n",
        expect![[
            r#"role.toml:4:14: network.proxy_mode: "ipvs" is no mode of kube-proxy; use "nftables" or "iptables""#
        ]],
    );
    check(
        "[network]\ndns_servers = [\"9.9.9.9\", \"8.8.8.8\", \"9.9.9.9\"]\n",
        expect!["role.toml:4:38: network.dns_servers[2]: is the same as network.dns_servers[0]; remove one of the two"],
    );
    check(
        "[network]\ndns_servers = [\"9.9.9.1\", \"9.9.9.2\", \"9.9.9.3\", \"9.9.9.4\"]\n",
        expect!["role.toml:4:15: network.dns_servers: 4 name servers, of which resolvers read 3; name at most 3"],
    );
}

#[test]
fn docker() {
    check(
        "[docker]\ninsecure_registries = [\"http://r:5000\", \"10.0.0.0/33\", \"r:x\"]\n",
        expect![[r#"
            role.toml:4:24: docker.insecure_registries[0]: "http://r:5000" has a scheme; leave out "http://" and write "r:5000"
            role.toml:4:41: docker.insecure_registries[1]: "10.0.0.0/33" is no ADDRESS/PREFIX; write it like 10.244.0.0/16
            role.toml:4:56: docker.insecure_registries[2]: "x" is no port; give a port between 1 and 65535"#]],
    );
    check(
        "[docker]\nmirrors = [\"mirror\", \"https://u:hunter2@m\", \"https://m/path\"]\n",
        expect![[r#"
            role.toml:4:12: docker.mirrors[0]: is no http or https URL; write it like https://mirror.example.org
            role.toml:4:22: docker.mirrors[1]: holds a user name; leave it out: dockerd does not take credentials here
            role.toml:4:45: docker.mirrors[2]: "https://m/path" has a path; give scheme, host and port only: dockerd takes nothing more"#]],
    );
}

#[test]
fn kubelet() {
    check(
        "[kubelet]\nstaticPodPath = \"/x\"\ncgroupDriver = \"systemd\"\nCLUSTERDNS = []\n",
        expect![[r#"
            role.toml:4:17: kubelet.staticPodPath: is set by kscratch; use [[manifests]]
            role.toml:5:16: kubelet.cgroupDriver: is set by kscratch; remove it: it follows from how the image is built
            role.toml:6:14: kubelet.CLUSTERDNS: is clusterDNS in another spelling, which is set by kscratch; remove it"#]],
    );
    check(
        "[kubelet]\nmaxPods = 1979-05-27\nx = { y = [nan, 99999999999999999999] }\n",
        expect![[r#"
            role.toml:4:11: kubelet.maxPods: is a datetime; give a string in quotes
            role.toml:5:12: kubelet.x.y[0]: is a number that JSON does not know; give a finite number
            role.toml:5:17: kubelet.x.y[1]: the number has too many digits; give a number of at most 64 bits"#]],
    );
}

#[test]
fn token() {
    check(
        "[join]\ntoken = \"abcdef.0123456789abcdef\"\n",
        expect![
            "role.toml:4:9: join.token: there is no cluster to join; add [cluster] with endpoint and ca, or remove the token"
        ],
    );
    check(
        &cluster("[join]\ntoken = \"ABCDEF.hunter2\"\n"),
        expect![
            "role.toml:16:9: join.token: is no bootstrap token; give 6 and 16 lower case letters or digits with a dot between ([a-z0-9]{6}.[a-z0-9]{16}), as `kubeadm token create` prints it"
        ],
    );
    check(
        &cluster("[join]\ntoken = 12345\n"),
        expect!["role.toml:16:9: join.token: is an integer; give a string in quotes"],
    );
}

#[track_caller]
fn check_secrets(role: &str, secrets: &str, want: Expect) {
    let text = format!("version = 1\nrole = \"node\"\n{}", cluster(role));
    want.assert_eq(&parse_with_secrets(&text, secrets).unwrap_err().to_string());
}

#[test]
fn secrets_file() {
    let token = "[join]\ntoken = \"abcdef.0123456789abcdef\"\n";
    check_secrets(
        token,
        token,
        expect!["secrets.toml:2:9: join.token: stands in the role file too, on line 16; remove one of the two"],
    );
    check_secrets(
        "",
        "[join]\ntoken = \"hunter2\"\ntokn = \"hunter2\"\n",
        expect![[r#"
            secrets.toml:2:9: join.token: is no bootstrap token; give 6 and 16 lower case letters or digits with a dot between ([a-z0-9]{6}.[a-z0-9]{16}), as `kubeadm token create` prints it
            secrets.toml:3:1: join.tokn: there is no such field; did you mean "token"?"#]],
    );
    check_secrets(
        "",
        "[docker]\nopen_files = 1\n[jion]\n",
        expect![[r#"
        secrets.toml:1:1: docker: is no secret; move it to the role file: this one holds only `join.token` and `control_plane.secrets`
        secrets.toml:3:2: jion: there is no such field; did you mean "join"?"#]],
    );
    check_secrets(
        "",
        "[join]\ntoken = hunter2\n",
        expect![[r#"secrets.toml:2:9: a value without quotes; put strings in quotes, e.g. name = "value""#]],
    );
    check_secrets(
        "[network]\nmtu = 1\n",
        "[join]\ntoken = \"hunter2\"\n",
        expect![[r#"
            role.toml:16:7: network.mtu: 1 is smaller than 576; give a value between 576 and 65535
            secrets.toml:2:9: join.token: is no bootstrap token; give 6 and 16 lower case letters or digits with a dot between ([a-z0-9]{6}.[a-z0-9]{16}), as `kubeadm token create` prints it"#]],
    );
}

#[test]
fn files_are_called_by_their_names() {
    let errors = parse("").unwrap_err().named("rack/7.toml", "rack/7.secret.toml");
    assert!(errors.to_string().starts_with("rack/7.toml:1:1: "), "{errors}");
}

#[test]
fn no_output_shows_a_secret() {
    let role = format!("version = 1\nrole = \"node\"\n{}", cluster(""));
    let bad = ["\"hunter2\"", "[\"hunter2\"]", "hunter2", "\"hunter2", "{ hunter2 = 1 }", "'''\nhunter2"];
    for token in bad {
        let secrets = format!("[join]\ntoken = {token}\n");
        let errors = parse_with_secrets(&role, &secrets).unwrap_err();
        assert!(!format!("{errors} {errors:?}").contains("hunter2"), "{errors}");
    }
    let good = "[join]\ntoken = \"abcdef.0123456789abcdef\"\n";
    let metadata = parse_with_secrets(&role, good).unwrap();
    assert!(!format!("{metadata:?} {metadata:#?}").contains("0123456789abcdef"));
    assert_eq!(metadata.join.token.unwrap().expose(), "abcdef.0123456789abcdef");
}
