//! What a master's metadata may say, where its secrets may stand, and what is refused.
use std::fmt::Write as _;

use expect_test::{Expect, expect};
use kscratch_metadata::{BootstrapToken, Secret, parse, parse_with_secrets, to_toml};

const CA: &str = include_str!("ca.pem");
/// The shape of a key is all that is looked at.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMAMCAQA=\n-----END PUBLIC KEY-----\n";
const ENCRYPTION: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// `[control_plane.secrets]`, each field given through `change`.
fn secrets(change: impl Fn(&str, &str) -> Option<String>) -> String {
    let mut text = String::from("[control_plane.secrets]\n");
    for (name, value) in [
        ("ca_key", KEY),
        ("etcd_ca", CA),
        ("etcd_ca_key", KEY),
        ("front_proxy_ca", CA),
        ("front_proxy_ca_key", KEY),
        ("service_account_key", KEY),
        ("service_account_public_key", PUBLIC),
        ("encryption_key", ENCRYPTION),
    ] {
        if let Some(value) = change(name, value) {
            writeln!(text, "{name} = '''\n{value}'''").unwrap();
        }
    }
    text
}

fn whole() -> String {
    secrets(|_, value| Some(value.to_owned()))
}

fn role(more: &str) -> String {
    format!("version = 1\nrole = \"master\"\n[cluster]\nendpoint = \"api.lab\"\nca = '''\n{CA}'''\n{more}\n")
}

#[track_caller]
fn check(text: &str, secrets: &str, want: Expect) {
    want.assert_eq(&parse_with_secrets(text, secrets).unwrap_err().to_string());
}

#[test]
fn secrets_stand_in_either_file() {
    let more = "[node]\nname = \"m1\"\n[control_plane]\nschedule_pods = true\nnames = [\"api.lab\", \"192.168.7.9\"]\n\
                [control_plane.etcd]\nmembers = { m1 = \"192.168.7.10\" }\n";
    let token =
        "[[control_plane.secrets.tokens]]\ntoken = \"abcdef.0123456789abcdef\"\nexpires = \"2028-02-29T23:59:59Z\"\n";
    let secrets = format!("{}{token}", whole());
    let one = parse(&role(&format!("{more}{secrets}"))).unwrap();
    let two = parse_with_secrets(&role(more), &secrets).unwrap();
    assert_eq!(one, two);
    let control_plane = one.control_plane.as_ref().unwrap();
    assert_eq!(control_plane.schedule_pods, Some(true));
    assert_eq!(control_plane.etcd.members["m1"].to_string(), "192.168.7.10");
    let held = control_plane.secrets.as_ref().unwrap();
    assert_eq!(held.tokens[0].token.expose(), "abcdef.0123456789abcdef");
    assert_eq!(parse(&to_toml(&one).unwrap()).unwrap(), one);
    let shown = format!("{one:?}");
    for secret in ["0123456789abcdef", ENCRYPTION, "MAA="] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_master_without_an_identity_makes_its_own() {
    let metadata = parse("version = 1\nrole = \"master\"\n[cluster]\npod_range = \"10.9.0.0/16\"\n").unwrap();
    assert_eq!(metadata.control_plane, None);
    parse("version = 1\nrole = \"master\"\n").unwrap();
}

#[test]
fn half_an_identity() {
    check(
        &role(""),
        "",
        expect![
            "role.toml:5:6: cluster.ca: is given, but not the keys that belong to it; add [control_plane.secrets], or remove `ca` for a master that makes a cluster of its own"
        ],
    );
    check(
        "version = 1\nrole = \"master\"\n",
        &whole(),
        expect![
            "role.toml:1:1: cluster.ca: is missing beside control_plane.secrets; add [cluster] with endpoint and ca, as `kscratch-image cluster metadata` writes it"
        ],
    );
    check(
        &role(""),
        &secrets(|name, value| (name != "etcd_ca_key").then(|| value.to_owned())),
        expect![
            "secrets.toml:1:1: control_plane.secrets.etcd_ca_key: is missing; let `kscratch-image cluster metadata` write this table: a master needs all of it"
        ],
    );
}

#[test]
fn wrong_values() {
    let wrong = secrets(|name, value| {
        Some(match name {
            "ca_key" => CA.to_owned(),
            "etcd_ca" => KEY.to_owned(),
            "service_account_public_key" => KEY.to_owned(),
            "encryption_key" => "c2hvcnQ=".to_owned(),
            _ => value.to_owned(),
        })
    });
    let errors = parse_with_secrets(&role(""), &wrong).unwrap_err().to_string();
    for part in [
        "control_plane.secrets.ca_key: holds a PEM block of another kind, \"CERTIFICATE\"; give an unencrypted PKCS#8 key",
        "control_plane.secrets.etcd_ca: holds a private key",
        "control_plane.secrets.service_account_public_key: holds a PEM block of another kind, \"PRIVATE KEY\"",
        "control_plane.secrets.encryption_key: is not 32 bytes in base64",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
}

#[test]
fn tokens() {
    let tokens = "[[control_plane.secrets.tokens]]\ntoken = \"abcdef.0123456789abcdef\"\nexpires = \"2027-02-29T00:00:00Z\"\n\
                  [[control_plane.secrets.tokens]]\ntoken = \"abcdef.0123456789abcdee\"\n[[control_plane.secrets.tokens]]\nexpires = \"tomorrow\"\n";
    let errors = parse_with_secrets(&role(""), &format!("{}{tokens}", whole())).unwrap_err().to_string();
    for part in [
        "tokens[0].expires: \"2027-02-29T00:00:00Z\" is no moment in UTC; write it like 2027-01-31T00:00:00Z",
        "tokens[1].token: another token here begins with \"abcdef\" too; make another one",
        "tokens[2].token: is missing",
        "tokens[2].expires: \"tomorrow\" is no moment in UTC",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
}

#[test]
fn what_is_not_a_masters() {
    check(
        "version = 1\nrole = \"node\"\n[control_plane]\nschedule_pods = true\n",
        "",
        expect![
            "role.toml:3:1: control_plane: is for masters only; remove [control_plane]: a node must not hold a cluster's keys; or write role = \"master\""
        ],
    );
    check(
        &role("[control_plane.etcd]\nmembers = { m1 = \"192.168.7.10\", m2 = \"192.168.7.11\" }\n"),
        &whole(),
        expect![[r#"
            role.toml:17:11: control_plane.etcd.members: names 2 members; name 1, 3 or 5 masters, or have this one join those that live
            role.toml:17:11: control_plane.etcd.members: does not name this machine; give this machine's node.name an address among them"#]],
    );
    check(
        &role(&whole()),
        &format!("{}[control_plane]\nschedule_pods = true\n", whole()),
        expect![[r#"
            secrets.toml:1:1: control_plane.secrets: stands in the role file too, on line 16; remove one of the two
            secrets.toml:52:17: control_plane.schedule_pods: is no secret; move it to the role file: this one holds only `join.token`, `logs.key` and `control_plane.secrets`"#]],
    );
}

/// The masters' network, with a virtual address.
fn virtually(endpoint: &str, address: &str, more: &str) -> String {
    format!(
        "version = 1\nrole = \"master\"\n[node]\nname = \"m1\"\n[network]\nstatic = {{ address = \"192.168.7.10/24\", gateway = \"192.168.7.1\" }}\n\
         [control_plane]\nvirtual_address = \"{address}\"\n{more}[cluster]\nendpoint = \"{endpoint}\"\nca = '''\n{CA}'''\n"
    )
}

#[test]
fn a_virtual_address() {
    for endpoint in ["192.168.7.5", "192.168.7.5:6443", "api.lab", "api.lab:443"] {
        let metadata = parse_with_secrets(&virtually(endpoint, "192.168.7.5", ""), &whole()).unwrap();
        let address = metadata.control_plane.as_ref().unwrap().virtual_address;
        assert_eq!(address, Some("192.168.7.5".parse().unwrap()), "{endpoint}");
        assert_eq!(parse(&to_toml(&metadata).unwrap()).unwrap(), metadata);
    }
    // With DHCP the network is not known here.
    parse("version = 1\nrole = \"master\"\n[control_plane]\nvirtual_address = \"10.7.7.7\"\n").unwrap();
}

#[test]
fn wrong_virtual_addresses() {
    let members = "etcd.members = { m1 = \"192.168.7.10\", m2 = \"192.168.7.11\", m3 = \"192.168.7.12\" }\n";
    let rows = [
        (
            "api.lab",
            "192.168.7.10",
            "",
            expect![[
                r#"role.toml:8:19: control_plane.virtual_address: 192.168.7.10 is the machine's own address, network.static.address; give an address of the masters' network that no machine has"#
            ]],
        ),
        (
            "api.lab",
            "192.168.7.1",
            "",
            expect![[
                r#"role.toml:8:19: control_plane.virtual_address: 192.168.7.1 is the gateway's address, network.static.gateway; give an address of the masters' network that no machine has"#
            ]],
        ),
        (
            "api.lab",
            "192.168.8.5",
            "",
            expect![[
                r#"role.toml:8:19: control_plane.virtual_address: 192.168.8.5 lies outside 192.168.7.0/24, the network of network.static.address; give an address of the masters' network that no machine has"#
            ]],
        ),
        (
            "api.lab",
            "192.168.7.255",
            "",
            expect![[
                r#"role.toml:8:19: control_plane.virtual_address: 192.168.7.255 is the network's own or its broadcast address; give an address of the masters' network that no machine has"#
            ]],
        ),
        (
            "api.lab",
            "192.168.7.12",
            members,
            expect![[
                r#"role.toml:8:19: control_plane.virtual_address: 192.168.7.12 is the address of m3 in control_plane.etcd.members; give an address of the masters' network that no machine has"#
            ]],
        ),
        (
            "192.168.7.10",
            "192.168.7.5",
            "",
            expect![[
                r#"role.toml:8:19: control_plane.virtual_address: 192.168.7.5 is another address than cluster.endpoint's, 192.168.7.10; make the two one: whoever asks the endpoint is to reach the master that has the address"#
            ]],
        ),
        (
            "192.168.7.5:443",
            "192.168.7.5",
            "",
            expect![[
                r#"role.toml:10:12: cluster.endpoint: port 443 is not where a master that has the virtual address answers; write "192.168.7.5:6443""#
            ]],
        ),
        (
            "api.lab",
            "127.0.0.1",
            "",
            expect![[
                r#"role.toml:8:19: control_plane.virtual_address: 127.0.0.1 is of 127.0.0.0/8, the loopback range; give an address of the network that the machines are on"#
            ]],
        ),
        (
            "api.lab",
            "api.lab",
            "",
            expect![[
                r#"role.toml:8:19: control_plane.virtual_address: "api.lab" is no IPv4 address; write it like 192.168.7.10"#
            ]],
        ),
    ];
    for (endpoint, address, more, want) in rows {
        check(&virtually(endpoint, address, more), &whole(), want);
    }
    check(
        "version = 1\nrole = \"master\"\n[control_plane]\nvirtual_address = \"10.96.0.5\"\n[cluster]\nname = \"lab\"\n",
        "",
        expect![
            "role.toml:4:19: control_plane.virtual_address: 10.96.0.5 lies inside cluster.service_range, 10.96.0.0/16; give an address of the masters' network that no machine has"
        ],
    );
}

/// A master with these members.
fn member_of(members: &str, join: &str) -> String {
    role(&format!("[node]\nname = \"m1\"\n[control_plane.etcd]\nmembers = {{ {members} }}\n{join}"))
}

const TWO: &str = "m1 = \"192.168.7.10\", m2 = \"192.168.7.11\"";

#[test]
fn a_master_joins_any_number_of_others() {
    for (members, count) in [
        (TWO.to_owned(), 2),
        (format!("{TWO}, m3 = \"192.168.7.12\""), 3),
        (format!("{TWO}, m3 = \"192.168.7.12\", m4 = \"192.168.7.13\""), 4),
    ] {
        let metadata = parse_with_secrets(&member_of(&members, "join = true"), &whole()).unwrap();
        let etcd = &metadata.control_plane.as_ref().unwrap().etcd;
        assert_eq!((etcd.join, etcd.members.len()), (true, count));
        assert_eq!(parse(&to_toml(&metadata).unwrap()).unwrap(), metadata);
    }
    let begins = parse_with_secrets(&member_of("m1 = \"192.168.7.10\"", "join = false"), &whole()).unwrap();
    assert!(!begins.control_plane.as_ref().unwrap().etcd.join);
    assert!(!to_toml(&begins).unwrap().contains("join ="));
}

#[test]
fn nobody_to_join() {
    check(
        &member_of("m1 = \"192.168.7.10\"", "join = true"),
        &whole(),
        expect![
            "role.toml:20:8: control_plane.etcd.join: there is no other member to ask; name two members or more: this master, and those that live"
        ],
    );
    check(
        &role("[control_plane.etcd]\njoin = true\n"),
        &whole(),
        expect![
            "role.toml:17:8: control_plane.etcd.join: there is no other member to ask; name two members or more: this master, and those that live"
        ],
    );
    check(
        &member_of("m3 = \"192.168.7.10\", m2 = \"192.168.7.11\"", "join = true"),
        &whole(),
        expect![
            "role.toml:19:11: control_plane.etcd.members: does not name this machine; give this machine's node.name an address among them"
        ],
    );
    check(
        &member_of(TWO, "join = \"yes\""),
        &whole(),
        expect!["role.toml:20:8: control_plane.etcd.join: is a string; give true or false"],
    );
    // It would make an identity of its own, and nobody would know it.
    check(
        &format!(
            "version = 1\nrole = \"master\"\n[node]\nname = \"m1\"\n[control_plane.etcd]\njoin = true\nmembers = {{ {TWO} }}\n"
        ),
        "",
        expect![
            "role.toml:6:8: control_plane.etcd.join: this master has no cluster's identity, and would make a cluster of its own; add [cluster] and [control_plane.secrets], as `kscratch-image cluster metadata` writes them"
        ],
    );
}

#[test]
fn a_token_is_a_secret_of_the_group_that_may_join() {
    let token = |expires: Option<&str>| BootstrapToken {
        token: Secret::new("abcdef.0123456789abcdef"),
        expires: expires.map(str::to_owned),
    };
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Secret",
          "metadata": {
            "name": "bootstrap-token-abcdef",
            "namespace": "kube-system"
          },
          "stringData": {
            "auth-extra-groups": "system:bootstrappers:kscratch:nodes",
            "expiration": "2028-02-29T23:59:59Z",
            "token-id": "abcdef",
            "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true"
          },
          "type": "bootstrap.kubernetes.io/token"
        }"#]]
    .assert_eq(&format!("{:#}", token(Some("2028-02-29T23:59:59Z")).object()));
    assert_eq!(token(None).object()["stringData"].get("expiration"), None);
}
