//! Snapshots of what `kscratch-image` says: its help, and its answer to every bad input; `UPDATE_EXPECT=1` writes them anew.
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect, expect_file};
use kscratch_qemu::child::Child;
use kscratch_tests::program::{SHORT, Said, kscratch, kscratch_image};

/// Runs in a fresh folder with these files, on a machine without a cache, and gives what was said with the folder's path taken out.
fn said(files: &[(&str, &str)], args: &[&str]) -> Said {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let cache = folder.path().join("cache");
    let args = args.iter().map(|arg| arg.replace("CACHE", &cache.display().to_string()));
    let mut said = kscratch(folder.path(), args, SHORT);
    let path = folder.path().display().to_string();
    said.stdout = said.stdout.replace(&path, "DIR");
    said.stderr = said.stderr.replace(&path, "DIR");
    said
}

#[track_caller]
fn check_refusal(files: &[(&str, &str)], args: &[&str], code: i32, want: &Expect) {
    let said = said(files, args);
    want.assert_eq(&said.stderr);
    assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{}", said.stderr);
}

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
    let others =
        ["", "build", "lock", "config", "inspect", "stamp", "run", "kubeconfig", "why", "schema", "completions", "man"];
    for command in others.into_iter().chain(cluster) {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let said = said(&[], &args).succeeded();
        let name = if command.is_empty() { "kscratch-image" } else { command };
        let name = name.replace(' ', "-");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/help/{name}.txt"));
        expect_file![file].assert_eq(&said.stdout);
        assert_eq!(said.stderr, "");
    }
}

/// A lock that was made for nodes, as far as it is read before anything is got.
const LOCK_OF_NODES: &str = "version = 1\nrelease = []\nartifact = []\n[inputs]\nsuites = []\npackages = []\nkubernetes = '1.37.2'\n\
                             kubernetes_source = 'auto'\ncri_dockerd = '0.4.3'\n";

#[test]
fn a_master_is_not_built_from_a_lock_of_nodes() {
    check_refusal(
        &[("kscratch.lock", LOCK_OF_NODES)],
        &["build", "--role", "master", "--locked", "--offline", "--cache", "CACHE"],
        1,
        &expect![[r#"
        error: building from kscratch.lock
          because: the lock has no control plane: it was made for nodes
        hint: kscratch-image lock --role master makes it anew; build without --locked adds what is missing
    "#]],
    );
}

#[test]
fn bad_arguments_are_refused() {
    check_refusal(
        &[],
        &["build", "--role", "worker"],
        2,
        &expect![[r#"
        error: invalid value 'worker' for '--role <ROLE>'
          [possible values: node, master]

        For more information, try '--help'.
    "#]],
    );
    check_refusal(
        &[],
        &["build"],
        2,
        &expect![[r#"
        error: the following required arguments were not provided:
          --role <ROLE>

        Usage: kscratch-image build --role <ROLE>

        For more information, try '--help'.
    "#]],
    );
    check_refusal(
        &[],
        &["run", "node.img", "--forward", "80"],
        1,
        &expect![[r#"
        error: the forward `80` is not HOST:GUEST, two port numbers such as `8080:80`
    "#]],
    );
    check_refusal(
        &[],
        &["build", "--role", "node", "--quiet", "-v"],
        2,
        &expect![[r#"
        error: the argument '--quiet' cannot be used with '--verbose...'

        Usage: kscratch-image build --role <ROLE> --quiet

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn bad_files_are_refused() {
    let offline = ["build", "--role", "node", "--offline", "--cache", "CACHE"];
    let with = |more: &[&'static str]| [&offline[..], more].concat();
    let config = |text| [("image.toml", text)];
    let configured = with(&["--config", "image.toml"]);
    check_refusal(
        &[],
        &with(&["--config", "none.toml"]),
        1,
        &expect![[r#"
        error: reading none.toml
          because: No such file or directory (os error 2)
    "#]],
    );
    check_refusal(
        &config("version = 1\n[disk]\nroot = \"big\"\n"),
        &configured,
        1,
        &expect![[r#"
        error: image.toml:3:8: the size `big` is not a number with a unit, such as `512MiB` or `1GiB`
    "#]],
    );
    check_refusal(
        &config("version = 1\n[disks]\n"),
        &configured,
        1,
        &expect![[r#"
        error: image.toml:2:2: unknown key `disks` at the top level; did you mean `disk`?
    "#]],
    );
    check_refusal(
        &config("version = 1\n[kernel\n"),
        &configured,
        1,
        &expect![[r#"
        error: image.toml:2:8: unclosed table, expected `]`
    "#]],
    );
    // What can be known without a network is told without one.
    let old = said(&[], &with(&["--kubernetes", "1.33.4"]));
    assert!(old.code == 1 && old.stderr.contains("1.34"), "the reason is not told: {}", old.stderr);
    check_refusal(
        &[],
        &with(&["--locked"]),
        1,
        &expect![[r#"
        error: there is no kscratch.lock
        hint: run `kscratch-image lock` first, or build without --locked
    "#]],
    );
    check_refusal(
        &[],
        &with(&[]),
        1,
        &expect![[r#"
        error: choosing artifacts asks the Debian mirror, and the network may not be used
        hint: run `kscratch-image lock` with a network once, then build with --locked --offline
    "#]],
    );
    check_refusal(
        &[("kscratch.lock", "version = 7\n")],
        &with(&["--locked"]),
        1,
        &expect![[r#"
        error: reading kscratch.lock
          because: TOML parse error at line 1, column 1
          |
        1 | version = 7
          | ^
        missing field `inputs`
    "#]],
    );
    check_refusal(
        &[],
        &with(&["--metadata", "none.toml"]),
        1,
        &expect![[r#"
        error: reading none.toml
          because: No such file or directory (os error 2)
    "#]],
    );
}

#[test]
fn a_second_one_in_a_cache_waits_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("cache/store");
    fs::create_dir_all(&store).unwrap();
    let held = fs::File::create(store.join("lock")).unwrap();
    held.lock().unwrap();
    let said = folder.path().join("said");
    let mut command = Command::new(kscratch_image());
    command.args(["build", "--role", "node", "--offline", "--cache", "cache"]).current_dir(folder.path());
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    let (child, _, _) = Child::start_with_stderr(command, fs::File::create(&said).unwrap().into()).unwrap();
    let told = || fs::read_to_string(&said).unwrap();
    let start = Instant::now();
    let waiting = "waiting for another kscratch-image that works in cache; use --cache DIR for a folder of its own\n";
    while told() != waiting {
        assert!(start.elapsed() < SHORT, "it says {:?}", told());
        assert_eq!(child.wait(Duration::from_millis(50)), None, "it did not wait: {}", told());
    }
    drop(held);
    let status = child.wait(SHORT).expect("it goes on when the lock is free");
    // What comes next is another story, and the same as with a cache of its own.
    assert_eq!(status.code(), Some(1));
    assert!(told().contains("error: choosing artifacts asks the Debian mirror"), "{}", told());
}

#[test]
fn run_without_an_image_builds_one_first() {
    let folder = tempfile::tempdir().unwrap();
    // A cache that cannot be made ends the build at once; that it began is what counts.
    let said = kscratch(folder.path(), ["run", "--cache", "/dev/null/cache"], SHORT);
    assert_eq!(said.code, 1);
    assert!(said.stderr.starts_with("there is no kscratch-node.img here yet: building it\nerror: "), "{}", said.stderr);
    // Where there is one, it is taken.
    fs::write(folder.path().join("kscratch-node.img"), [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    let said = kscratch(folder.path(), ["run", "--cache", "/dev/null/cache"], SHORT);
    assert!(said.stderr.starts_with("error: booting kscratch-node.img\n"), "{}", said.stderr);
}

#[test]
fn bad_images_are_refused() {
    let text = [("text.img", "this is no disk\n")];
    check_refusal(
        &[],
        &["inspect", "none.img"],
        1,
        &expect![[r#"
        error: opening none.img
          because: No such file or directory (os error 2)
    "#]],
    );
    check_refusal(
        &text,
        &["inspect", "text.img"],
        1,
        &expect![[r#"
        error: opening text.img
          because: it is 16 bytes long, too short for a disk
    "#]],
    );
    check_refusal(
        &text,
        &["run", "text.img", "--direct"],
        1,
        &expect![[r#"
        error: taking kernel and initramfs out of text.img
          because: reading the partition table
          because: reading the primary partition table: failed to fill whole buffer
    "#]],
    );
    // The cache that is named is the one that is used: a file is none.
    check_refusal(
        &text,
        &["run", "text.img", "--cache", "text.img"],
        1,
        &expect![[r#"
        error: making the folder text.img/store/sha256
          because: Not a directory (os error 20)
    "#]],
    );
    check_refusal(
        &[],
        &["run", "none.img"],
        1,
        &expect![[r#"
        error: opening the image none.img
          because: No such file or directory (os error 2)
    "#]],
    );
}

#[test]
fn bad_metadata_is_refused_with_line_field_and_fix() {
    let build = ["build", "--role", "node", "--offline", "--cache", "CACHE", "--metadata", "role.toml"];
    let head = "version = 1\nrole = \"node\"\n";
    let row = |body: &str, want: &Expect| {
        let role = format!("{head}{body}");
        check_refusal(&[("role.toml", &role)], &build, 1, want);
    };
    row(
        "nodes = 3\n",
        &expect![[r#"
            error: reading role metadata from role.toml
              because: role.toml:3:1: nodes: there is no such field; did you mean "node"?
        "#]],
    );
    row(
        "[cluster]\npod_range = \"10.96.0.0/16\"\nservice_range = \"10.96.0.0/12\"\n",
        &expect![[r#"
            error: reading role metadata from role.toml
              because: role.toml:3:1: cluster.endpoint: is missing; write `endpoint = "HOST:6443"`, or remove [cluster] for a node that stands alone
            role.toml:3:1: cluster.ca: is missing; paste the cluster's CA certificate: without it any machine could pose as the cluster
            role.toml:5:17: cluster.service_range: 10.96.0.0/12 overlaps cluster.pod_range, 10.96.0.0/16; move one of the two: set cluster.service_range or cluster.pod_range
        "#]],
    );
    row(
        "[join]\ntoken = \"short\"\n",
        &expect![[r#"
            error: reading role metadata from role.toml
              because: role.toml:4:9: join.token: is no bootstrap token; give 6 and 16 lower case letters or digits with a dot between ([a-z0-9]{6}.[a-z0-9]{16}), as `kubeadm token create` prints it
        "#]],
    );
    row(
        "[node]\npod_range = \"10.244.3.0/99\"\n",
        &expect![[r#"
            error: reading role metadata from role.toml
              because: role.toml:4:13: node.pod_range: "10.244.3.0/99" is no ADDRESS/PREFIX; write it like 10.244.0.0/16
        "#]],
    );
}

#[test]
fn a_cluster_is_made_once_and_feeds_its_machines() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = |args: &[&str]| kscratch(folder.path(), [&["cluster"], args].concat(), SHORT);
    // Nobody answers there: the test asks no network.
    let made = cluster(&["new", "lab", "--endpoint", "127.0.0.1:1"]).succeeded();
    expect![[r#"
        made the cluster lab in lab: endpoint 127.0.0.1:1, pods 10.244.0.0/16, services 10.96.0.0/16, cluster.local, routed, nftables
        keep lab/secrets to yourself: who reads it owns the cluster
        next:
          kscratch-image cluster metadata lab --node m1 --role master --output m1.toml
          kscratch-image cluster metadata lab --node n1 --role node --output n1.toml
          kubectl --kubeconfig lab/admin.kubeconfig get nodes
    "#]].assert_eq(&made.stderr);
    assert_eq!(made.stdout, "");
    let again = cluster(&["new", "lab", "--endpoint", "127.0.0.1:1"]);
    assert_eq!(again.code, 1);
    expect![[r#"
        error: the cluster lab is there already, in lab: endpoint 127.0.0.1:1, pods 10.244.0.0/16, services 10.96.0.0/16, cluster.local, routed, nftables
        hint: kscratch-image cluster check lab tells how it stands; for another cluster take another name
    "#]].assert_eq(&again.stderr);
    let node = cluster(&["metadata", "lab", "--node", "n1", "--role", "node"]).succeeded().stdout;
    assert!(node.contains("[join]") && !node.contains("PRIVATE KEY"), "{node}");
    cluster(&["metadata", "lab", "--node", "m1", "--role", "master", "-o", "m1.toml", "--secrets", "s.toml"])
        .succeeded();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(!read("m1.toml").contains("PRIVATE KEY") && read("s.toml").contains("PRIVATE KEY"));
    let token = cluster(&["token", "create", "lab"]).succeeded();
    assert_eq!(token.stdout.len(), 24, "{}", token.stdout);
    let list = cluster(&["token", "list", "lab"]).succeeded().stdout;
    assert!(list.contains(token.stdout.trim()) && list.lines().count() == 3, "{list}");
    cluster(&["kubeconfig", "lab"]).succeeded();
    let secrets = folder.path().join("lab/secrets");
    fs::copy(secrets.join("etcd-ca.key"), secrets.join("ca.key")).unwrap();
    let check = cluster(&["check", "lab"]);
    assert!(check.code == 1 && check.stdout.contains("failed           keys fit"), "{}", check.stdout);
}

#[test]
fn bad_clusters_are_refused() {
    check_refusal(
        &[],
        &["cluster", "check", "lab"],
        1,
        &expect![[r#"
            error: there is no cluster lab here: lab/cluster.toml is missing
            hint: kscratch-image cluster new lab --endpoint HOST makes one; --folder DIR names the folder that holds it
        "#]],
    );
    check_refusal(
        &[],
        &["cluster", "check", "../lab"],
        1,
        &expect![[r#"
        error: "../lab" is no name of a cluster
        hint: use lower case letters, digits, `-` and `.`; --folder DIR names the folder that holds the cluster's
    "#]],
    );
    check_refusal(
        &[],
        &["cluster", "new", "lab", "--endpoint", "a:0"],
        1,
        &expect![[r#"
        error: --endpoint: "0" is no port; give a port between 1 and 65535
    "#]],
    );
    check_refusal(
        &[],
        &["cluster", "new", "lab", "--endpoint", "a", "--token-expires", "1y"],
        1,
        &expect![[r#"
        error: --token-expires: `1y` is no time such as `90m`, `24h` or `30d`, nor `never`
    "#]],
    );
    check_refusal(
        &[],
        &["cluster", "metadata", "lab"],
        2,
        &expect![[r#"
        error: the following required arguments were not provided:
          <--node <NODE>|--all <FILE>>

        Usage: kscratch-image cluster metadata <--node <NODE>|--all <FILE>> <NAME>

        For more information, try '--help'.
    "#]],
    );
    check_refusal(
        &[],
        &["cluster", "metadata", "lab", "--all", "a.toml"],
        2,
        &expect![[r#"
        error: the following required arguments were not provided:
          --output <FILE>

        Usage: kscratch-image cluster metadata --output <FILE> <--node <NODE>|--all <FILE>> <NAME>

        For more information, try '--help'.
    "#]],
    );
    check_refusal(
        &[],
        &["cluster", "metadata", "lab", "--node", "n1"],
        2,
        &expect![[r#"
        error: the following required arguments were not provided:
          --role <ROLE>

        Usage: kscratch-image cluster metadata --role <ROLE> <--node <NODE>|--all <FILE>> <NAME>

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn a_kubeconfig_comes_from_a_machines_disk_alone() {
    check_refusal(
        &[],
        &["kubeconfig", "none.qcow2"],
        1,
        &expect![[r#"
            error: reading the cluster on none.qcow2
              because: opening none.qcow2
              because: No such file or directory (os error 2)
        "#]],
    );
    let text = "no disk ".repeat(1000);
    check_refusal(
        &[("text", &text)],
        &["kubeconfig", "text"],
        1,
        &expect![[r#"
            error: reading the cluster on text
              because: reading the primary partition table: there is no `EFI PART` signature
            hint: FILE is the whole disk of a machine that has run, such as what `kscratch-image run --overlay` keeps
        "#]],
    );
    // A file that is there is not touched, and that is told first.
    check_refusal(
        &[("admin.kubeconfig", "mine")],
        &["kubeconfig", "none.qcow2"],
        1,
        &expect![[r#"
            error: admin.kubeconfig is there already
            hint: --force replaces it, --output FILE names another
        "#]],
    );
    check_refusal(
        &[],
        &["kubeconfig", "none.qcow2", "--server", "https://a"],
        1,
        &expect![[r#"
            error: --server: "https://a" has a scheme
            hint: write HOST or HOST:PORT, such as 192.168.7.10:6443
        "#]],
    );
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
