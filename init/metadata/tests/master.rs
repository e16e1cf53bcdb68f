//! What a master's metadata may say, where its secrets may stand, and what is refused.
use std::fmt::Write as _;

use expect_test::{Expect, expect};
use kscratch_metadata::{parse, parse_with_secrets, to_toml};

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
            role.toml:17:11: control_plane.etcd.members: names 2 members; name 1, 3 or 5 masters
            role.toml:17:11: control_plane.etcd.members: does not name this machine; give this machine's node.name an address among them"#]],
    );
    check(
        &role(&whole()),
        &format!("{}[control_plane]\nschedule_pods = true\n", whole()),
        expect![[r#"
            secrets.toml:1:1: control_plane.secrets: stands in the role file too, on line 16; remove one of the two
            secrets.toml:52:17: control_plane.schedule_pods: is no secret; move it to the role file: this one holds only `join.token` and `control_plane.secrets`"#]],
    );
}
