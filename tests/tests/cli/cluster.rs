//! `cluster`: one that is made and feeds its machines, and those that are refused.
use std::fs;
use std::process::Command;

use expect_test::expect;
use kscratch_tests::program::{SHORT, kscratch, kscratch_image, run};

use crate::check_refusal;

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
          kscratch-image cluster kubectl lab get nodes
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
    expect![[r#"
        masters know it with their next metadata; one for a cluster that runs:
          kscratch-image cluster token create lab --manifest | kscratch-image cluster kubectl lab apply -f -
    "#]]
    .assert_eq(&token.stderr);
    let list = cluster(&["token", "list", "lab"]).succeeded().stdout;
    assert!(list.contains(token.stdout.trim()) && list.lines().count() == 3, "{list}");
    cluster(&["kubeconfig", "lab"]).succeeded();
    // Nobody answers at the endpoint: nothing is known to be wrong, and not everything to be right.
    let check = cluster(&["check", "lab"]);
    assert!(check.code == 3 && check.stdout.contains("could not check  the endpoint"), "{}", check.stdout);
    let secrets = folder.path().join("lab/secrets");
    fs::copy(secrets.join("etcd-ca.key"), secrets.join("ca.key")).unwrap();
    let check = cluster(&["check", "lab"]);
    assert!(check.code == 1 && check.stdout.contains("failed           keys fit"), "{}", check.stdout);
}

#[test]
fn a_cluster_goes_into_the_users_kubeconfig_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let cluster = |args: &[&str]| {
        let mut command = Command::new(kscratch_image());
        command.arg("cluster").args(args).current_dir(folder.path()).env("KUBECONFIG", &config);
        run(command, SHORT)
    };
    cluster(&["new", "lab", "--endpoint", "127.0.0.1:1", "--kubernetes", "1.37.2"]).succeeded();
    let settings = fs::read_to_string(folder.path().join("lab/cluster.toml")).unwrap();
    assert!(settings.ends_with("kubernetes = \"1.37.2\"\n"), "{settings}");
    cluster(&["kubeconfig", "lab"]).succeeded();
    assert!(!config.exists());
    let merged = cluster(&["kubeconfig", "lab", "--merge"]).succeeded();
    assert!(merged.stderr.ends_with("/config has the context lab\n"), "{}", merged.stderr);
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("current-context: lab\n") && text.contains("server: https://127.0.0.1:1\n"), "{text}");
    // What is somebody else's is not touched.
    fs::write(&config, "users: [{name: lab, user: {token: a}}]\n").unwrap();
    let refused = cluster(&["kubeconfig", "lab", "--merge"]);
    assert_eq!(refused.code, 1);
    expect![[r#"
        error: adding lab to DIR/config
          because: it has a user lab already, and kscratch-image did not put it there
        hint: --context OTHER takes another name for context, cluster and user
    "#]]
    .assert_eq(&refused.stderr.replace(&folder.path().display().to_string(), "DIR"));
    cluster(&["kubeconfig", "lab", "--merge", "--context", "mine"]).succeeded();
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("current-context: mine\n") && text.contains("token: a\n"), "{text}");
}

#[test]
fn a_name_may_be_left_out_where_one_cluster_has_machines() {
    check_refusal(
        &[],
        &["cluster", "status"],
        1,
        &expect![[r#"
            error: no cluster in this folder has machines
            hint: kscratch-image cluster up makes one; --folder DIR names the folder that holds the cluster's
        "#]],
    );
    check_refusal(
        &[],
        &["cluster", "up", "--masters", "1", "--nodes", "2", "--image-master", "none.img"],
        1,
        &expect![[r#"
            error: opening the image none.img
              because: No such file or directory (os error 2)
        "#]],
    );
    check_refusal(
        &[],
        &["cluster", "up", "--masters", "0", "--merge-kubeconfig"],
        1,
        &expect![[r#"
            error: --merge-kubeconfig: nodes that stand alone have no API server
        "#]],
    );
    let folder = tempfile::tempdir().unwrap();
    let machines = |name: &str| {
        let machines = folder.path().join(name).join("machines");
        fs::create_dir_all(&machines).unwrap();
        let plan = format!(r#"{{"version":1,"name":"{name}","outside":false,"machines":[],"forwards":[]}}"#);
        fs::write(machines.join("machines.json"), plan).unwrap();
    };
    let said = |args: &[&str]| kscratch(folder.path(), [&["cluster"], args].concat(), SHORT).stderr;
    machines("blue");
    let down = "error: the machines of blue are not up\nhint: kscratch-image cluster up blue\n";
    assert_eq!([said(&["status"]), said(&["down"]), said(&["cable", "n1"])], [down; 3]);
    assert_eq!(said(&["logs", "n1"]), "error: the cluster blue has no machine n1; it has \n");
    machines("green");
    let several = "error: several clusters in this folder have machines: blue, green\nhint: name one: kscratch-image cluster logs blue n1\n";
    assert_eq!(said(&["logs", "n1"]), several);
    assert_eq!(said(&["status", "green"]), down.replace("blue", "green"));
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
