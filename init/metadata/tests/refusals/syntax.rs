//! Texts that are refused whatever they are about: no TOML, no version, unknown keys, wrong types and numbers.
use expect_test::expect;
use kscratch_metadata::parse;

use crate::{check, check_whole};

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
fn files_are_called_by_their_names() {
    let errors = parse("").unwrap_err().named("rack/7.toml", "rack/7.secret.toml");
    assert!(errors.to_string().starts_with("rack/7.toml:1:1: "), "{errors}");
}
