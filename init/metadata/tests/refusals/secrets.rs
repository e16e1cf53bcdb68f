//! `[join]` and the file of secrets: tokens that are none, what stands in the wrong file, and that no refusal shows a secret.
use expect_test::{Expect, expect};
use kscratch_metadata::parse_with_secrets;

use crate::{CA, check, cluster};

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
        secrets.toml:1:1: docker: is no secret; move it to the role file: this one holds only `join.token`, `logs.key` and `control_plane.secrets`
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
fn key_of_logs() {
    let key = "key = '''-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n'''\n";
    let role = format!("[logs]\nto = [\"tls://h:1\"]\ncertificate = '''{CA}'''\n");
    let secrets = format!("[logs]\n{key}");
    let metadata = parse_with_secrets(&format!("version = 1\nrole = \"node\"\n{role}"), &secrets).unwrap();
    assert!(metadata.logs.key.is_some_and(|key| key.expose().starts_with("-----BEGIN PRIVATE KEY-----\n")));
    check_secrets(
        &format!("{role}{key}"),
        &secrets,
        expect!["secrets.toml:2:7: logs.key: stands in the role file too, on line 27; remove one of the two"],
    );
    check_secrets(
        "",
        &secrets,
        expect![
            "secrets.toml:2:7: logs.key: is the key of no certificate; add its `certificate` to [logs] of the role file, or remove it"
        ],
    );
    check_secrets(
        &role,
        "[logs]\nkey = \"hunter2\"\nca = \"x\"\n",
        expect![[r#"
            secrets.toml:2:7: logs.key: is no PEM; give a private key: -----BEGIN PRIVATE KEY----- …
            secrets.toml:3:6: logs.ca: is no secret; move it to the role file: this one holds only `join.token`, `logs.key` and `control_plane.secrets`"#]],
    );
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
