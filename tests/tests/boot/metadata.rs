//! Metadata that are wrong, and metadata from a server, which has to prove itself.
use std::fs;
use std::time::Duration;

use kscratch_tests::bench::{BOOT, Bench, switch_off, wait};
use kscratch_tests::{https, node_image};
use regex::Regex;

use super::{FW_CFG_ROLE, HOST};

#[test]
fn bad_metadata_is_told_and_makes_no_half_of_a_node() {
    let bench = Bench::take();
    let folder = tempfile::tempdir().unwrap();
    let role = folder.path().join("role.toml");
    fs::write(&role, "version = 1\nrole = \"node\"\n\n[node]\npod_range = \"10.244.3.0/99\"\n").unwrap();
    let overlay = bench.overlay(node_image::node());
    let mut vm = bench.start(&bench.node(&overlay).fw_cfg(FW_CFG_ROLE, &role));
    wait(&vm, r"pod_range", BOOT);
    wait(&vm, r"hint: ", BOOT);
    // Nothing is started on the word of metadata that is not understood: not even after a while.
    let silence = vm.wait_for_line(Regex::new(r"service kubelet: (started|ready)").unwrap(), Duration::from_secs(20));
    assert!(silence.is_err(), "kubelet was started: {silence:?}");
    let text: Vec<String> = vm.lines().into_iter().map(|line| line.text).collect();
    let place = Regex::new(r":5:\d+: node\.pod_range").unwrap();
    assert!(text.iter().any(|line| place.is_match(line)), "the line is not told:\n{}", text.join("\n"));
    assert!(!text.iter().any(|line| line.contains("Kernel panic")), "PID 1 ended:\n{}", text.join("\n"));
    // It still goes down in order.
    switch_off(&mut vm);
}

#[test]
fn metadata_comes_by_https_from_a_server_that_proves_itself() {
    let bench = Bench::take();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    https::certificate(folder, "known", HOST);
    https::certificate(folder, "stranger", HOST);
    let server = https::Server::start(folder, "known", 0);
    let url = format!("https://{HOST}:{}/role.toml", server.port);
    // The image knows this authority, and no other.
    let own = folder.join("own/etc/ssl/certs");
    fs::create_dir_all(&own).unwrap();
    fs::copy(folder.join("known.crt"), own.join("ca-certificates.crt")).unwrap();
    let config = folder.join("image.toml");
    let text = format!(
        "version = 1\ndrop = [\"/etc/ssl/certs/ca-certificates.crt\"]\n[overlays]\nfolders = [\"own\"]\n\
         [kernel]\ncmdline = [\"panic=10\", \"kscratch.metadata={url}\"]\n"
    );
    fs::write(&config, text).unwrap();
    fs::copy(node_image::node().with_file_name("kscratch.lock"), folder.join("kscratch.lock")).unwrap();
    let image = folder.join("node.img");
    node_image::build(folder, &image, Some(&config), &[]).succeeded();
    let overlay = bench.overlay(&image);
    let machine = bench.node(&overlay);
    let mac = machine.mac.map(|byte| format!("{byte:02x}")).join(":");
    let role = format!("version = 1\nrole = \"node\"\n[[machines]]\nmac = \"{mac}\"\nnode.name = \"told-2\"\n");
    https::page(folder, "role.toml", &role);

    let mut vm = bench.start(&machine);
    wait(&vm, &format!(r"role metadata: the URL of the kernel command line \({}\)", regex::escape(&url)), BOOT);
    wait(&vm, r"this machine is machines\[0\] of 1, told-2, by mac", BOOT);
    wait(&vm, r"phase \d+ metadata: ok", BOOT);
    vm.cut_power();
    let port = server.port;
    drop(server);

    let _stranger = https::Server::start(folder, "stranger", port);
    let mut vm = bench.start(&machine);
    wait(&vm, r"phase \d+ metadata: failed: fetching .* invalid peer certificate", BOOT);
    wait(&vm, r"hint: ", BOOT);
    vm.cut_power();
}
