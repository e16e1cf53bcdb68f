//! `[[disks]]`: a disk that nothing tells, or that order tells, and one for what has none.
use expect_test::expect;

use crate::check;

#[test]
fn a_disk_is_told_by_its_own_words() {
    check(
        "[[disks]]\nfor = \"docker\"\n",
        expect![
            "role.toml:3:1: disks[0]: nothing says which disk this is; give it a serial, wwn or path: `kscratch-image devices` tells them, and so does the machine itself"
        ],
    );
    check(
        "[[disks]]\nserial = \"none\"\n",
        expect![[r#"
        role.toml:3:1: disks[0].for: is missing; write `for = "docker"` or `for = "etcd"`
        role.toml:4:10: disks[0].serial: "none" is what makers leave in, and other disks have it too; tell the disk by its wwn or path"#]],
    );
    check(
        "[[disks]]\nfor = \"docker\"\npath = \"/dev/sdb\"\nwwn = \"0x12\"\n",
        expect![[r#"
        role.toml:5:8: disks[0].path: "/dev/sdb" is given by order, and another disk's at the next boot; give what `ls -l /dev/disk/by-path` shows for it, e.g. pci-0000:00:1f.2-ata-1
        role.toml:6:7: disks[0].wwn: "0x12" is no World Wide Name; write it like naa.5000c500a1b2c3d4 or eui.0025385b01234567"#]],
    );
    check(
        "[[disks]]\nfor = \"docker\"\npath = \"pci-0000:00:1f.2-ata-1-part3\"\n",
        expect![[
            r#"role.toml:5:8: disks[0].path: "pci-0000:00:1f.2-ata-1-part3" is a partition; give the whole disk, without -partN"#
        ]],
    );
    check(
        "[[disks]]\nfor = \"docker\"\npath = \"sdb\"\nserail = \"S1\"\n",
        expect![[r#"
        role.toml:5:8: disks[0].path: "sdb" is no way to a disk; give what `ls -l /dev/disk/by-path` shows for it, e.g. pci-0000:00:1f.2-ata-1
        role.toml:6:1: disks[0].serail: there is no such field; did you mean "serial"?"#]],
    );
    check(
        "[[disks]]\nfor = \"docker\"\nserial = \"A\\u0007B\"\n",
        expect![[
            r#"role.toml:5:10: disks[0].serial: "A\u{7}B" is no serial number; write what `kscratch-image devices` shows for it"#
        ]],
    );
}

#[test]
fn each_has_one_and_docker_replaces_nothing() {
    check(
        "[[disks]]\nfor = \"photos\"\nserial = \"S1\"\n",
        expect![[r#"role.toml:4:7: disks[0].for: "photos" has no disk of its own; use "docker" or "etcd""#]],
    );
    check(
        "[[disks]]\nfor = \"etcd\"\nserial = \"S1\"\n",
        expect![[r#"role.toml:4:7: disks[0].for: is for masters only; remove it, or write role = "master""#]],
    );
    check(
        "[[disks]]\nfor = \"docker\"\nserial = \"S1\"\nreplaces = \"all\"\n[[disks]]\nfor = \"docker\"\nserial = \"S2\"\nreplaces = \"state\"\n",
        expect![[r#"
            role.toml:6:12: disks[0].replaces: "all" is neither "state" nor a GUID; write what the machine said
            role.toml:8:7: disks[1].for: disks[0] is for docker too; remove one of the two
            role.toml:10:12: disks[1].replaces: is for etcd's disk alone; remove it: docker begins anew on a blank disk without it"#]],
    );
    check(
        "[[disks]]\nfor = \"docker\"\nserial = \"S1\"\n[[disks]]\nfor = \"etcd\"\nserial = \"S1\"\n",
        expect![[r#"
            role.toml:6:1: disks[1]: is the disk of disks[0] too; give each its own disk
            role.toml:7:7: disks[1].for: is for masters only; remove it, or write role = "master""#]],
    );
}
