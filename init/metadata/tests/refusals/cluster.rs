//! `[cluster]`: ranges that overlap, addresses outside them, and endpoints and CAs that are none.
use expect_test::expect;

use crate::{CA, check, cluster};

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
