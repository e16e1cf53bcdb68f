//! A list of machines: a file for each of them, one for all its nodes, and lists that are refused whole.
use std::fs;

use expect_test::{Expect, expect};
use kscratch_image::cluster::machines;
use kscratch_metadata::{Identity, Mac, parse, select};

use crate::{lab, now, tree, words};

const RACK: &str = r#"
version = 1
[[machines]]
name = "m1"
role = "master"
mac = "52:54:00:00:00:10"
address = "192.168.7.10/24"
[[machines]]
name = "n1"
role = "node"
serial = "ABC123"
[[machines]]
name = "n2"
role = "node"
mac = "52-54-00-00-00-12"
"#;

#[test]
fn a_rack_gets_a_file_a_machine() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    let (list, out) = (parent.path().join("machines.toml"), parent.path().join("out"));
    let write = |text: &str| {
        fs::write(&list, text).unwrap();
        machines::write_all(&folder, &list, &out, now())
    };
    let written = write(RACK).unwrap();
    let mut text = String::new();
    tree(&out, "", &mut text);
    assert_eq!(text, "600 m1.toml\n600 n1.toml\n600 n2.toml\n600 rack.toml\n");
    assert_eq!(
        written.rack.summary("rack/rack.toml".as_ref()),
        "rack/rack.toml: one file for n1, n2; not in it: m1 (a file of its own holds the cluster's keys)"
    );
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert!(read("m1.toml").starts_with("# For master m1 of the cluster lab (mac 52:54:00:00:00:10).\n"));
    assert!(read("m1.toml").contains("interface = \"52:54:00:00:00:10\""), "a fixed address goes to the known link");
    for node in ["n1.toml", "n2.toml"] {
        assert!(!read(node).contains("PRIVATE KEY"), "{node} holds a key");
        parse(&read(node)).unwrap();
    }

    let rack = read("rack.toml");
    assert!(
        rack.starts_with("# For the nodes of the cluster lab: each picks its own entry.\n")
            && !rack.contains("PRIVATE KEY")
    );
    let (_, machines) = rack.split_once("\n[[machines]]").unwrap();
    expect![[r#"

        serial = "ABC123"

        [machines.node]
        name = "n1"

        [[machines]]
        mac = "52-54-00-00-00-12"

        [machines.node]
        name = "n2"
    "#]]
    .assert_eq(machines);
    for (name, identity) in [
        ("n1.toml", Identity::new([], "ABC123\n", "")),
        ("n2.toml", Identity::new([Mac([0x52, 0x54, 0, 0, 0, 0x12])], "", "")),
    ] {
        assert_eq!(select(&rack, &identity).unwrap().metadata, parse(&read(name)).unwrap());
    }

    fs::remove_dir_all(&out).unwrap();
    let untold = RACK.replace("serial = \"ABC123\"\n", "").replace("mac = \"52-54-00-00-00-12\"", "");
    let written = write(&untold).unwrap();
    assert_eq!(
        written.rack.summary("rack/rack.toml".as_ref()),
        "there is no rack/rack.toml; not in it: m1 (a file of its own holds the cluster's keys); \
         not in it: n1, n2 (without mac, serial or uuid, nothing tells it)"
    );
    assert!(!out.join("rack.toml").exists());

    fs::remove_dir_all(&out).unwrap();
    let row = |text: &str, want: Expect| {
        let said = words(&write(text).unwrap_err()).replace(&list.display().to_string(), "machines.toml");
        want.assert_eq(&said);
        assert!(!out.exists(), "something was written");
    };
    row(
        &RACK.replace("52-54-00-00-00-12", "52:54:00:00:00:10"),
        expect![[r#"
            error: reading machines.toml
              because: n2: mac: 52:54:00:00:00:10 is the mac of m1 too
        "#]],
    );
    row(
        &RACK.replace("serial = \"ABC123\"", "role2 = 1"),
        expect![[r#"
            error: reading machines.toml
              because: TOML parse error at line 11, column 1
               |
            11 | role2 = 1
               | ^^^^^
            unknown field `role2`, expected one of `name`, `role`, `mac`, `serial`, `uuid`, `interface`, `address`, `gateway`, `links`, `dns_servers`, `time_servers`, `mtu`, `masquerade`, `docker_mirrors`, `insecure_registries`, `disks`, `pod_range`, `labels`, `taints`, `schedule_pods`, `api_names`, `join_control_plane`

        "#]],
    );
    row(
        &RACK.replace("serial = \"ABC123\"", "address = \"192.168.7\"\npod_range = \"10.9.0.0/24\""),
        expect![[r#"
            error: reading machines.toml
              because: n1: address: "192.168.7" is no ADDRESS/PREFIX; write it like 10.244.0.0/16
            n1: pod_range: 10.9.0.0/24 lies outside cluster.pod_range, 10.244.0.0/16; give a part of 10.244.0.0/16
        "#]],
    );
    row(
        &RACK
            .replace("ABC123", "Default string\"\npod_range = \"10.244.5.0/24")
            .replace("52-54-00-00-00-12\"", "53-54-00-00-00-12\"\npod_range = \"10.244.5.0/24\""),
        expect![[r#"
            error: reading machines.toml
              because: n1: serial: "Default string" is what vendors leave in, and other machines have it too; tell the machine by its mac
            n2: mac: 53:54:00:00:00:12 is no network card's address; give that of one of the machine's cards
            n2: pod_range: 10.244.5.0/24 overlaps that of n1, 10.244.5.0/24; give each machine its own
        "#]],
    );
    let disk = "disks = [{ for = \"docker\", serial = \"S1\" }]\n";
    row(
        &format!("{}{disk}", RACK.replace("serial = \"ABC123\"\n", &format!("serial = \"ABC123\"\n{disk}"))),
        expect![[r#"
            error: reading machines.toml
              because: n2: disks: the disk with the serial S1 is one of n1 too
        "#]],
    );
    // However they are written.
    let like = |one: &str, other: &str| {
        let disk = |words: &str| format!("disks = [{{ for = \"docker\", {words} }}]\n");
        format!(
            "{}{}",
            RACK.replace("serial = \"ABC123\"\n", &format!("serial = \"ABC123\"\n{}", disk(one))),
            disk(other)
        )
    };
    row(
        &like("serial = \"S 1\"", "serial = \" S  1 \""),
        expect![[r#"
            error: reading machines.toml
              because: n2: disks: the disk with the serial S 1 is one of n1 too
        "#]],
    );
    row(
        &like("wwn = \"naa.5000c500a1b2c3d4\"", "wwn = \"wwn-0x5000C500A1B2C3D4\""),
        expect![[r#"
            error: reading machines.toml
              because: n2: disks: the disk with the wwn 5000c500a1b2c3d4 is one of n1 too
        "#]],
    );
    row(
        &format!("{RACK}disks = [{{ for = \"etcd\", path = \"/dev/sdb\" }}]\n"),
        expect![[r#"
            error: reading machines.toml
              because: n2: disks[0].for: is for masters only; remove it, or write role = "master"
            n2: disks[0].path: "/dev/sdb" is given by order, and another disk's at the next boot; give what `ls -l /dev/disk/by-path` shows for it, e.g. pci-0000:00:1f.2-ata-1
        "#]],
    );
    row(
        &RACK.replace("n2", "rack"),
        expect![[r#"
            error: reading machines.toml
              because: rack: name: rack.toml is the file for all machines; give the machine another name
        "#]],
    );
    let three = RACK.replace("role = \"node\"", "role = \"master\"");
    row(
        &three,
        expect![[r#"
            error: reading machines.toml
              because: n1: address: is missing; etcd's members have to know one another by fixed addresses
        "#]],
    );
    let addressed = three
        .replace("serial = \"ABC123\"", "address = \"192.168.7.11/24\"")
        .replace("mac = \"52-54-00-00-00-12\"", "address = \"192.168.7.12/24\"");
    // Two begin nothing, but the one that was there and the one that comes to it join each other.
    let joins = "role = \"master\"\njoin_control_plane = true";
    let two =
        RACK.replacen("role = \"node\"\nserial = \"ABC123\"", &format!("{joins}\naddress = \"192.168.7.11/24\""), 1);
    row(
        &two,
        expect![[r#"
        error: reading machines.toml
          because: m1: etcd_member: names 2 members; name 1, 3 or 5 masters, or have this one join those that live
    "#]],
    );
    write(&addressed).unwrap();
    let members = parse(&read("n2.toml")).unwrap().control_plane.unwrap().etcd.members;
    assert_eq!(members.len(), 3, "{members:?}");
    write(&two.replacen("role = \"master\"\nmac", &format!("{joins}\nmac"), 1)).unwrap();
    for name in ["m1.toml", "n1.toml"] {
        let etcd = parse(&read(name)).unwrap().control_plane.unwrap().etcd;
        assert_eq!((etcd.members.len(), etcd.join), (2, true), "{name}");
    }
}

#[test]
fn a_disk_and_what_is_kept_on_it_are_one_machines_own() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    let (list, out) = (parent.path().join("machines.toml"), parent.path().join("out"));
    let docker = "disks = [{ for = \"docker\", serial = \"S1\" }]\n";
    let etcd = "disks = [{ for = \"etcd\", wwn = \"naa.5000c500a1b2c3d4\", path = \"pci-0000:00:1f.2-ata-1\" }]\n";
    let text = RACK.replace("address = \"192.168.7.10/24\"\n", &format!("address = \"192.168.7.10/24\"\n{etcd}"));
    // The last of the list is n2.
    fs::write(&list, format!("{text}{docker}")).unwrap();
    machines::write_all(&folder, &list, &out, now()).unwrap();
    let told = |metadata: &kscratch_metadata::RoleMetadata| -> Vec<String> {
        metadata.disks.iter().map(|disk| format!("{} {}", disk.purpose.word(), disk.told_by())).collect()
    };
    let m1 = parse(&fs::read_to_string(out.join("m1.toml")).unwrap()).unwrap();
    assert_eq!(told(&m1), ["etcd wwn 5000c500a1b2c3d4 and path pci-0000:00:1f.2-ata-1"]);
    let rack = fs::read_to_string(out.join("rack.toml")).unwrap();
    let of = |mac, serial: &str| select(&rack, &Identity::new(mac, serial, "")).unwrap().metadata;
    let mac: Mac = "52:54:00:00:00:12".parse().unwrap();
    assert_eq!((told(&of(None, "ABC123")), told(&of(Some(mac), ""))), (vec![], vec!["docker serial S1".to_owned()]));
}

#[test]
fn a_link_and_a_mirror_are_one_nodes_own() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    let (list, out) = (parent.path().join("machines.toml"), parent.path().join("out"));
    let mirror = "https://mirror.example.org";
    // The last of the list is n2.
    fs::write(&list, format!("{RACK}mtu = 9000\nmasquerade = false\ndocker_mirrors = [\"{mirror}\"]\n")).unwrap();
    machines::write_all(&folder, &list, &out, now()).unwrap();
    let rack = fs::read_to_string(out.join("rack.toml")).unwrap();
    let of = |mac, serial: &str| select(&rack, &Identity::new(mac, serial, "")).unwrap().metadata;
    let mac: Mac = "52:54:00:00:00:12".parse().unwrap();
    let (n1, n2) = (of(None, "ABC123"), of(Some(mac), ""));
    assert_eq!((n1.network.mtu, n1.network.masquerade, n1.docker.mirrors.len()), (None, true, 0));
    assert_eq!(
        (n2.network.mtu, n2.network.masquerade, n2.docker.mirrors),
        (Some(9000), false, vec![mirror.to_owned()])
    );
}
