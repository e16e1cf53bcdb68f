//! Pages of machines in every state, 80 columns wide.
use std::time::Duration;

use expect_test::{Expect, expect};
use kscratch_recorder::{Entry, What};
use proptest::prelude::{prop, prop_assert, proptest};

use super::{fitting, lines};
use crate::console::keys::Allowed;
use crate::console::status::{Disk, Known, Memory, Sample, Services, Status};
use crate::supervise::{Stage, Standing};

const CLOCK: i64 = 1_795_000_000;
const DAY: i64 = 86_400;
const MIB: u64 = 1 << 20;

#[track_caller]
fn check(status: &Status, want: Expect) {
    let lines = lines(status, 80);
    assert!(lines.iter().all(|line| line.len() <= 80), "{lines:#?}");
    want.assert_eq(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ready(name: &'static str, since: u64) -> Standing {
    Standing { name, stage: Stage::Ready(seconds(since)), restarts: 0, trouble: None }
}

fn waits(name: &'static str, on: &[&'static str]) -> Standing {
    Standing { name, stage: Stage::Waiting { on: on.to_vec() }, restarts: 0, trouble: None }
}

fn said(status: &mut Status, lines: &[(u64, &str)]) {
    for (second, text) in lines {
        status.told.take(&Entry { at: seconds(*second), what: What::Said((*text).to_owned()) });
    }
}

/// A node that stands alone, all well.
fn healthy() -> Status {
    let mut status = Status {
        now: seconds(754),
        known: Known { role: Some("node"), allowed: Allowed::All, ..Known::default() },
        services: Services {
            standings: vec![
                ready("containerd", 9),
                ready("dockerd", 20),
                ready("cri-dockerd", 22),
                ready("kubelet", 31),
            ],
            booted: true,
            stopping: None,
        },
        sample: Sample {
            name: Some("node-52540012".into()),
            kubernetes: Some("1.37.2".into()),
            kernel: "6.12.48+deb13-cloud-amd64".into(),
            links: vec![("eth0".into(), vec!["10.0.2.15/24".into()])],
            clock: CLOCK,
            synchronised: None,
            joined: false,
            certificates: Vec::new(),
            disk: Some(Disk {
                total: 7577 * MIB,
                free: 6300 * MIB,
                inodes: 500_000,
                inodes_free: 490_000,
                in_memory: false,
            }),
            memory: Some(Memory { total: 1983 * MIB, available: 1400 * MIB, pressure: Some(31) }),
        },
        ..Status::default()
    };
    said(&mut status, &[(3, "phase 01 mounts: start"), (3, "phase 01 mounts: ok (0.1 s)")]);
    said(&mut status, &[(12, "phase 14 services: start"), (13, "phase 14 services: ok (0.1 s)")]);
    status
}

/// A node of a cluster.
fn joined() -> Status {
    let mut status = healthy();
    status.known.cluster = Some(("lab".into(), Some("192.168.7.10:6443".into())));
    status.known.ca_until = Some(CLOCK + 3640 * DAY);
    status.sample.joined = true;
    status.sample.name = Some("n1".into());
    status.sample.certificates = vec![
        ("kube-proxy/client".into(), CLOCK + 364 * DAY),
        ("kubelet".into(), CLOCK + 350 * DAY),
        ("routes/client".into(), CLOCK + 363 * DAY),
    ];
    let more = [ready("identities", 40), ready("routes", 41), ready("kube-proxy", 45)];
    status.services.standings.extend(more);
    status
}

#[test]
fn a_node_that_is_starting() {
    let mut status = healthy();
    status.now = seconds(14);
    status.services.booted = false;
    status.services.standings = vec![
        ready("containerd", 9),
        Standing { name: "dockerd", stage: Stage::Starting(seconds(10)), restarts: 0, trouble: None },
        waits("cri-dockerd", &["dockerd"]),
    ];
    said(&mut status, &[(13, "phase 15 pod-network: start")]);
    check(
        &status,
        expect![[r#"
            node-52540012: a node that stands alone                  kscratch 0.1.0, up 14 s
            boot       phase 15 pod-network for 1 s
            addresses  eth0 10.0.2.15/24
            versions   Kubernetes 1.37.2, kernel 6.12.48+deb13-cloud-amd64
            clock      2026-11-18 11:06 UTC
            state      1.2 GiB of 7.3 GiB used (17 %), inodes 2 %
            memory     583 MiB of 1.9 GiB used (30 %), waited for 0.31 % of the time
            SERVICE         STATE                                      SINCE       RESTARTS
            containerd      ready                                      5 s                0
            dockerd         starting                                   4 s                0
            cri-dockerd     waits for dockerd                                             0
        "#]],
    );
}

#[test]
fn nothing_is_known_yet() {
    let status = Status { now: seconds(2), ..Status::default() };
    check(
        &status,
        expect![[r#"
            this machine: what it is to be is not known yet           kscratch 0.1.0, up 2 s
            boot       begins
        "#]],
    );
}

#[test]
fn a_healthy_node() {
    check(
        &healthy(),
        expect![[r#"
        node-52540012: a node that stands alone                kscratch 0.1.0, up 12 min
        boot       complete: 2 phases, all services are ready
        addresses  eth0 10.0.2.15/24
        versions   Kubernetes 1.37.2, kernel 6.12.48+deb13-cloud-amd64
        clock      2026-11-18 11:06 UTC
        state      1.2 GiB of 7.3 GiB used (17 %), inodes 2 %
        memory     583 MiB of 1.9 GiB used (30 %), waited for 0.31 % of the time
        SERVICE         STATE                                      SINCE       RESTARTS
        containerd      ready                                      12 min             0
        dockerd         ready                                      12 min             0
        cri-dockerd     ready                                      12 min             0
        kubelet         ready                                      12 min             0
    "#]],
    );
}

#[test]
fn a_node_of_a_cluster() {
    check(
        &joined(),
        expect![[r#"
        n1: a node of the cluster lab                          kscratch 0.1.0, up 12 min
        boot       complete: 2 phases, all services are ready
        cluster    https://192.168.7.10:6443, joined
        addresses  eth0 10.0.2.15/24
        versions   Kubernetes 1.37.2, kernel 6.12.48+deb13-cloud-amd64
        clock      2026-11-18 11:06 UTC
        state      1.2 GiB of 7.3 GiB used (17 %), inodes 2 %
        memory     583 MiB of 1.9 GiB used (30 %), waited for 0.31 % of the time
        certs      kubelet ends in 350 d; routes/client ends in 363 d (the first of 2
                   more); the cluster's CA ends in 3640 d
        SERVICE         STATE                                      SINCE       RESTARTS
        containerd      ready                                      12 min             0
        dockerd         ready                                      12 min             0
        cri-dockerd     ready                                      12 min             0
        kubelet         ready                                      12 min             0
        identities      ready                                      11 min             0
        routes          ready                                      11 min             0
        kube-proxy      ready                                      11 min             0
    "#]],
    );
}

#[test]
fn a_node_that_could_not_join_yet() {
    let mut status = joined();
    status.sample.joined = false;
    status.sample.certificates.clear();
    status.services.standings.truncate(4);
    status.services.standings.push(Standing {
        name: "identities",
        stage: Stage::Starting(seconds(700)),
        restarts: 3,
        trouble: Some("exited with status 1".into()),
    });
    status.services.standings.push(waits("kube-proxy", &["identities"]));
    said(&mut status, &[(699, "service identities: exited with status 1, again in 8 s")]);
    check(
        &status,
        expect![[r#"
        n1: a node of the cluster lab                          kscratch 0.1.0, up 12 min
        boot       2 phases are over; not ready: identities, kube-proxy
        cluster    https://192.168.7.10:6443, not joined yet
        addresses  eth0 10.0.2.15/24
        versions   Kubernetes 1.37.2, kernel 6.12.48+deb13-cloud-amd64
        clock      2026-11-18 11:06 UTC
        state      1.2 GiB of 7.3 GiB used (17 %), inodes 2 %
        memory     583 MiB of 1.9 GiB used (30 %), waited for 0.31 % of the time
        certs      the cluster's CA ends in 3640 d
        last error [ 699.000] service identities: exited with status 1, again in 8 s
        SERVICE         STATE                                      SINCE       RESTARTS
        containerd      ready                                      12 min             0
        dockerd         ready                                      12 min             0
        cri-dockerd     ready                                      12 min             0
        kubelet         ready                                      12 min             0
        identities      starting (exited with status 1)            54 s               3
        kube-proxy      waits for identities                                          0
    "#]],
    );
}

#[test]
fn a_master() {
    let mut status = joined();
    status.known.role = Some("master");
    status.sample.name = Some("m1".into());
    status.sample.links =
        vec![("eth0".into(), vec!["192.168.7.10/24".into(), "192.168.7.5/32".into()]), ("eth1".into(), Vec::new())];
    status.sample.synchronised = Some(true);
    status.sample.certificates = vec![
        ("etcd/peer".into(), CLOCK + 200 * DAY),
        ("etcd/server".into(), CLOCK + 200 * DAY),
        ("kube-apiserver/apiserver".into(), CLOCK + 364 * DAY),
        ("kubelet".into(), CLOCK + 350 * DAY),
    ];
    status.services.standings[4] = ready("steward", 100);
    status.services.standings.insert(6, ready("address", 120));
    check(
        &status,
        expect![[r#"
        m1: a master of the cluster lab                        kscratch 0.1.0, up 12 min
        boot       complete: 2 phases, all services are ready
        cluster    https://192.168.7.10:6443
        addresses  eth0 192.168.7.10/24 192.168.7.5/32; eth1 has none
        versions   Kubernetes 1.37.2, kernel 6.12.48+deb13-cloud-amd64
        clock      2026-11-18 11:06 UTC, held to a time server's
        state      1.2 GiB of 7.3 GiB used (17 %), inodes 2 %
        memory     583 MiB of 1.9 GiB used (30 %), waited for 0.31 % of the time
        certs      kubelet ends in 350 d; etcd/peer ends in 200 d (the first of 3 more);
                   the cluster's CA ends in 3640 d
        SERVICE         STATE                                      SINCE       RESTARTS
        containerd      ready                                      12 min             0
        dockerd         ready                                      12 min             0
        cri-dockerd     ready                                      12 min             0
        kubelet         ready                                      12 min             0
        steward         ready                                      10 min             0
        routes          ready                                      11 min             0
        address         ready                                      10 min             0
        kube-proxy      ready                                      11 min             0
    "#]],
    );
}

#[test]
fn a_machine_whose_metadata_are_unsound() {
    let mut status = healthy();
    status.known = Known { allowed: Allowed::All, ..Known::default() };
    status.services.standings.clear();
    status.sample.name = None;
    status.sample.links = vec![("eth0".into(), Vec::new())];
    said(
        &mut status,
        &[
            (7, "phase 05 metadata: start"),
            (8, "phase 05 metadata: failed: role.toml of the ESP: 1 error"),
            (8, "role.toml:5:13: node.pod_range: 99 is larger than 32; write a range like 10.244.3.0/24"),
            (
                8,
                "hint: correct the role metadata (kscratch-image stamp FILE --metadata role.toml checks it and puts it on the ESP) and boot again",
            ),
            (8, "nothing is configured and no service is started; the machine waits for the power button or a reboot"),
        ],
    );
    check(
        &status,
        expect![[r#"
            this machine: what it is to be is not known yet        kscratch 0.1.0, up 12 min
            boot       nothing is configured and no service is started; the machine waits
                       for the power button or a reboot
            failed     05 metadata: role.toml of the ESP: 1 error; role.toml:5:13:
                       node.pod_range: 99 is larger than 32; write a range like
                       10.244.3.0/24
            what to do correct the role metadata (kscratch-image stamp FILE --metadata
                       role.toml checks it and puts it on the ESP) and boot again
            addresses  eth0 has none
            versions   Kubernetes 1.37.2, kernel 6.12.48+deb13-cloud-amd64
            clock      2026-11-18 11:06 UTC
            state      1.2 GiB of 7.3 GiB used (17 %), inodes 2 %
            memory     583 MiB of 1.9 GiB used (30 %), waited for 0.31 % of the time
        "#]],
    );
}

#[test]
fn a_phase_that_failed() {
    let mut status = joined();
    status.sample.links = vec![("eth0".into(), Vec::new())];
    said(
        &mut status,
        &[
            (16, "phase 07 network: start"),
            (46, "phase 07 network: failed: eth0: no DHCP server answered within 30 s"),
            (46, "hint: look at the cable and the DHCP server, or set network.static in role.toml"),
        ],
    );
    check(
        &status,
        expect![[r#"
            n1: a node of the cluster lab                          kscratch 0.1.0, up 12 min
            boot       complete: 3 phases, 1 failed, all services are ready
            failed     07 network: eth0: no DHCP server answered within 30 s
            what to do look at the cable and the DHCP server, or set network.static in
                       role.toml
            cluster    https://192.168.7.10:6443, joined
            addresses  eth0 has none
            versions   Kubernetes 1.37.2, kernel 6.12.48+deb13-cloud-amd64
            clock      2026-11-18 11:06 UTC
            state      1.2 GiB of 7.3 GiB used (17 %), inodes 2 %
            memory     583 MiB of 1.9 GiB used (30 %), waited for 0.31 % of the time
            certs      kubelet ends in 350 d; routes/client ends in 363 d (the first of 2
                       more); the cluster's CA ends in 3640 d
            SERVICE         STATE                                      SINCE       RESTARTS
            containerd      ready                                      12 min             0
            dockerd         ready                                      12 min             0
            cri-dockerd     ready                                      12 min             0
            kubelet         ready                                      12 min             0
            identities      ready                                      11 min             0
            routes          ready                                      11 min             0
            kube-proxy      ready                                      11 min             0
        "#]],
    );
}

/// 25 rows, less those of the log.
#[test]
fn a_small_screen_gets_shorter_entries() {
    let mut status = joined();
    for phase in ["02 state", "10 system", "11 bridge"] {
        said(&mut status, &[(7, &format!("phase {phase}: failed: {}", "it could not be done, alas, ".repeat(9)))]);
        said(&mut status, &[(7, &format!("hint: {}", "look at the lines above; ".repeat(9)))]);
    }
    assert!(lines(&status, 80).len() > 30);
    let short = fitting(&status, 80, 25);
    assert!(short.len() <= 25 && short.iter().any(|line| line.starts_with("kube-proxy")), "{short:#?}");
    assert_eq!(fitting(&status, 80, 60), lines(&status, 80));
    // No smaller than it can be.
    assert!(fitting(&status, 80, 1).len() > 1);
}

#[test]
fn a_full_disk() {
    let mut status = joined();
    status.sample.disk =
        Some(Disk { total: 7577 * MIB, free: 0, inodes: 500_000, inodes_free: 2000, in_memory: false });
    status.services.standings[1] = Standing {
        name: "dockerd",
        stage: Stage::Again(seconds(760)),
        restarts: 12,
        trouble: Some("exited with status 1".into()),
    };
    said(&mut status, &[(700, "service dockerd: exited with status 1, again in 60 s")]);
    check(
        &status,
        expect![[r#"
        n1: a node of the cluster lab                          kscratch 0.1.0, up 12 min
        boot       2 phases are over; not ready: dockerd
        cluster    https://192.168.7.10:6443, joined
        addresses  eth0 10.0.2.15/24
        versions   Kubernetes 1.37.2, kernel 6.12.48+deb13-cloud-amd64
        clock      2026-11-18 11:06 UTC
        state      7.3 GiB of 7.3 GiB used (100 %), inodes 100 %; FULL: delete images,
                   pods or their data
        memory     583 MiB of 1.9 GiB used (30 %), waited for 0.31 % of the time
        certs      kubelet ends in 350 d; routes/client ends in 363 d (the first of 2
                   more); the cluster's CA ends in 3640 d
        last error [ 700.000] service dockerd: exited with status 1, again in 60 s
        SERVICE         STATE                                      SINCE       RESTARTS
        containerd      ready                                      12 min             0
        dockerd         starts again (exited with status 1)                          12
        cri-dockerd     ready                                      12 min             0
        kubelet         ready                                      12 min             0
        identities      ready                                      11 min             0
        routes          ready                                      11 min             0
        kube-proxy      ready                                      11 min             0
    "#]],
    );
}

#[test]
fn certificates_that_have_ended() {
    let mut status = joined();
    status.sample.certificates[1].1 = CLOCK - 3 * DAY;
    status.sample.certificates[0].1 = CLOCK + 5 * DAY;
    status.known.ca_until = Some(CLOCK - DAY);
    status.sample.synchronised = Some(false);
    check(
        &status,
        expect![[r#"
        n1: a node of the cluster lab                          kscratch 0.1.0, up 12 min
        boot       complete: 2 phases, all services are ready
        cluster    https://192.168.7.10:6443, joined
        addresses  eth0 10.0.2.15/24
        versions   Kubernetes 1.37.2, kernel 6.12.48+deb13-cloud-amd64
        clock      2026-11-18 11:06 UTC, the machine's own: no time server was heard
        state      1.2 GiB of 7.3 GiB used (17 %), inodes 2 %
        memory     583 MiB of 1.9 GiB used (30 %), waited for 0.31 % of the time
        certs      kubelet ENDED 3 d ago; kube-proxy/client ENDS in 5 d (the first of 2
                   more); the cluster's CA ENDED 24 h ago
        SERVICE         STATE                                      SINCE       RESTARTS
        containerd      ready                                      12 min             0
        dockerd         ready                                      12 min             0
        cri-dockerd     ready                                      12 min             0
        kubelet         ready                                      12 min             0
        identities      ready                                      11 min             0
        routes          ready                                      11 min             0
        kube-proxy      ready                                      11 min             0
    "#]],
    );
}

#[test]
fn a_machine_that_stops_with_state_in_memory() {
    let mut status = healthy();
    status.services.stopping = Some("power button".into());
    status.services.standings[3].stage = Stage::Stopped;
    status.services.standings[2].stage = Stage::Stopping(seconds(750));
    status.sample.disk =
        Some(Disk { total: 900 * MIB, free: 850 * MIB, inodes: 500_000, inodes_free: 490_000, in_memory: true });
    status.sample.memory = Some(Memory { total: 1983 * MIB, available: 1400 * MIB, pressure: None });
    check(
        &status,
        expect![[r#"
        node-52540012: a node that stands alone                kscratch 0.1.0, up 12 min
        boot       stopping: power button
        addresses  eth0 10.0.2.15/24
        versions   Kubernetes 1.37.2, kernel 6.12.48+deb13-cloud-amd64
        clock      2026-11-18 11:06 UTC
        state      50 MiB of 900 MiB used (6 %), inodes 2 %; IN MEMORY: gone at the next
                   boot
        memory     583 MiB of 1.9 GiB used (30 %)
        SERVICE         STATE                                      SINCE       RESTARTS
        containerd      ready                                      12 min             0
        dockerd         ready                                      12 min             0
        cri-dockerd     stopping                                   4 s                0
        kubelet         stopped                                                       0
    "#]],
    );
}

proptest! {
    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide(
        name in ".{0,90}", link in ".{0,300}", why in ".{0,300}", until in i64::MIN / 2..i64::MAX / 2, width in 40_usize..200,
        sizes in prop::array::uniform4(0_u64..),
    ) {
        let mut status = joined();
        status.sample.name = Some(name);
        status.sample.links.push((link.clone(), vec![link]));
        status.sample.certificates[1].1 = until;
        let [total, free, inodes, inodes_free] = sizes;
        status.sample.disk = Some(Disk { total, free, inodes, inodes_free, in_memory: true });
        status.sample.memory = Some(Memory { total, available: free, pressure: Some(u32::MAX) });
        status.services.standings[0].trouble = Some(why.clone());
        status.services.standings[0].stage = Stage::Again(Duration::ZERO);
        said(&mut status, &[(7, &format!("phase 05 x: failed: {why}"))]);
        for line in lines(&status, width) {
            prop_assert!(line.len() <= width && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        }
    }
}
