//! Texts that are asked for: help, the default configuration, the schema, completions and manual pages.
use std::fs;
use std::path::Path;

use expect_test::expect_file;
use kscratch_tests::program::{SHORT, kscratch};

use crate::said;

#[test]
fn help_reads_well() {
    let cluster = [
        "cluster",
        "cluster new",
        "cluster metadata",
        "cluster token",
        "cluster token create",
        "cluster token list",
        "cluster kubeconfig",
        "cluster check",
        "cluster kubectl",
    ];
    let node = ["node", "node status", "node logs", "node reboot", "node shutdown", "node reset"];
    let others = [
        "",
        "build",
        "lock",
        "config",
        "inspect",
        "stamp",
        "flash",
        "reset",
        "devices",
        "autopsy",
        "run",
        "kubeconfig",
        "why",
        "schema",
        "completions",
        "man",
    ];
    for command in others.into_iter().chain(node).chain(cluster) {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let said = said(&[], &args).succeeded();
        let name = if command.is_empty() { "kscratch-image" } else { command };
        let name = name.replace(' ', "-");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/help/{name}.txt"));
        expect_file![file].assert_eq(&said.stdout);
        assert_eq!(said.stderr, "");
    }
}

#[test]
fn generated_texts_hold_together() {
    let config = said(&[], &["config"]).succeeded().stdout;
    assert!(config.starts_with('#') && config.contains("version = 1"), "{config}");
    let schema = said(&[], &["schema"]).succeeded().stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    for kind in ["RoleMetadata", "Rack", "RackMachine"] {
        let kind = &schema["$defs"][kind];
        // A schema within another one has no dialect and no definitions of its own.
        assert!(
            kind["properties"]["node"].is_object() && kind.get("$defs").is_none() && kind.get("$schema").is_none(),
            "{schema}"
        );
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&[], &["completions", shell]).succeeded().stdout;
        assert!(script.contains("inspect"), "{shell}: {script}");
    }
    let folder = tempfile::tempdir().unwrap();
    kscratch(folder.path(), ["man", "pages"], SHORT).succeeded();
    let page = fs::read_to_string(folder.path().join("pages/kscratch-image.1")).unwrap();
    assert!(page.contains(".SH NAME"), "{page}");
    assert!(folder.path().join("pages/kscratch-image-build.1").exists());
    let page = fs::read_to_string(folder.path().join("pages/kscratch-image-kubeconfig.1")).unwrap();
    assert!(page.contains("block device"), "{page}");
}
