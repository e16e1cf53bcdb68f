//! What `build` says of a lock, a configuration and metadata that it cannot take, and while another one works in its cache.
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use kscratch_qemu::child::Child;
use kscratch_tests::program::{SHORT, kscratch_image};

use crate::{check_refusal, said};

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
    // One that is here need not be named, as the lock is not; the defaults are no substitute for it.
    check_refusal(
        &config("version = 1\n[disks]\n"),
        &offline,
        1,
        &expect![[r#"
        taking the settings of image.toml
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
