//! `[node]` and `[[manifests]]`: names, labels and taints that Kubernetes would not take.
use expect_test::expect;

use crate::check;

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
