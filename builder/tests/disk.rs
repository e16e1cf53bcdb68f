//! Writes whole disks in every form and holds them against the reference tools, `inspect` and `stamp`.
mod holder;
mod sample;
mod tool;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use expect_test::expect;
use holder::Holder;
use kscratch_formats::bytes::Window;
use kscratch_formats::fat32::Volume;
use kscratch_image::digest::DiskDigest;
use kscratch_image::spec::State;
use kscratch_image::stamp::{Texts, stamp};
use kscratch_image::store::Digest;
use kscratch_image::tree::{Content, Kind};
use kscratch_image::write::{self, Format};
use kscratch_image::{blockmap, inspect};
use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};
use sample::{MIB, TIME, disk, disk_of, disk_with, tree, written};
use tempfile::TempDir;
use tool::run;

const VHD: Format = Format::Vhd { time: TIME };
const NAMES: (&str, &str) = ("my-role.toml", "my-secrets.toml");

/// The disk digest as ARCHITECTURE.md defines it, of a raw copy.
fn digest_of(raw: &Path) -> Digest {
    use sha2::Digest as _;
    let bytes = fs::read(raw).unwrap();
    let mut digest = DiskDigest::default();
    for (index, chunk) in bytes.chunks(1 << 20).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            digest.add(index as u64 * MIB, &sha2::Sha256::digest(chunk).into());
        }
    }
    digest.finish(bytes.len() as u64)
}

#[test]
fn a_raw_disk_is_clean_in_all_its_parts_and_has_its_digest() {
    let (folder, raw, told) = written(Format::Raw, "disk.img");
    assert_eq!(told.digest, digest_of(&raw));
    assert!(told.allocated < 20 * MIB, "{told:?}");
    let verdict = run("sgdisk", "gdisk", &["-v", raw.to_str().unwrap()]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let bytes = fs::read(&raw).unwrap();
    let parts = [
        ("esp", 1, 64, "fsck.fat", "dosfstools", "-n"),
        ("root", 65, 64, "e2fsck", "e2fsprogs", "-fn"),
        ("state", 201, 128, "e2fsck", "e2fsprogs", "-fn"),
    ];
    for (name, start, len, program, package, flag) in parts {
        let path = folder.path().join(name);
        fs::write(&path, &bytes[(start * MIB) as usize..((start + len) * MIB) as usize]).unwrap();
        run(program, package, &[flag, path.to_str().unwrap()]);
    }
    assert!(
        !folder.path().read_dir().unwrap().any(|entry| entry.unwrap().path().extension().is_some_and(|e| e == "part"))
    );
}

#[test]
fn every_form_holds_the_same_disk() {
    let (_raw_folder, raw, told) = written(Format::Raw, "disk.img");
    let (folder, packed, told_zst) = written(Format::RawZst, "disk.img.zst");
    let (_qcow2_folder, qcow2, told_qcow2) = written(Format::Qcow2, "disk.qcow2");
    assert_eq!((told.digest, told.disk), (told_zst.digest, told_zst.disk));
    assert_eq!((told.digest, told.disk), (told_qcow2.digest, told_qcow2.disk));
    let unpacked = folder.path().join("unpacked");
    run("zstd", "zstd", &["-q", "-d", packed.to_str().unwrap(), "-o", unpacked.to_str().unwrap()]);
    assert!(fs::read(&raw).unwrap() == fs::read(&unpacked).unwrap());
    run("qemu-img", "qemu-utils", &["check", "-q", qcow2.to_str().unwrap()]);
    run(
        "qemu-img",
        "qemu-utils",
        &["compare", "-q", "-f", "raw", "-F", "qcow2", raw.to_str().unwrap(), qcow2.to_str().unwrap()],
    );
    let (_vmdk_folder, vmdk, told_vmdk) = written(Format::Vmdk, "disk.vmdk");
    let (_vhd_folder, vhd, told_vhd) = written(VHD, "disk.vhd");
    run("qemu-img", "qemu-utils", &["check", "-q", "-f", "vmdk", vmdk.to_str().unwrap()]);
    for (format, path, told_too) in [("vmdk", &vmdk, told_vmdk), ("vpc", &vhd, told_vhd)] {
        assert_eq!((told.digest, told.disk), (told_too.digest, told_too.disk), "{format}");
        assert!(told_too.allocated < 20 * MIB, "{format}: {told_too:?}");
        let files = [raw.to_str().unwrap(), path.to_str().unwrap()];
        run("qemu-img", "qemu-utils", &[&["compare", "-f", "raw", "-F", format], &files[..]].concat());
        let back = folder.path().join("back");
        run("qemu-img", "qemu-utils", &["convert", "-f", format, "-O", "raw", files[1], back.to_str().unwrap()]);
        // Lengths too: a VHD tells its own in two ways.
        assert!(fs::read(&raw).unwrap() == fs::read(&back).unwrap(), "{format}");
    }
    assert_eq!(fs::metadata(&vhd).unwrap().len(), told.disk + 512);
    let paths = [&raw, &packed, &qcow2, &vmdk, &vhd];
    let reports = paths.map(|path| inspect::report(path, true).unwrap());
    assert!(reports.iter().all(|report| report.partitions == reports[0].partitions));
    assert_eq!(reports.map(|report| report.form.to_string()), ["raw", "raw.zst", "qcow2", "vmdk", "vhd"]);
}

#[test]
fn what_is_no_disk_or_another_form_says_how_to_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let made = |format: &str, option: &str| {
        let path = folder.path().join(format!("{option}.{format}"));
        let option = format!("subformat={option}");
        run("qemu-img", "qemu-utils", &["create", "-q", "-f", format, "-o", &option, path.to_str().unwrap(), "8G"]);
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(fs::metadata(&path).unwrap().len().max(4096))
            .unwrap();
        path
    };
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut tar::Header::new_ustar(), "x", std::io::empty()).unwrap();
    let mut tar = tar.into_inner().unwrap();
    tar.resize(8192, 0);
    fs::write(folder.path().join("x.tar"), tar).unwrap();
    for (path, want) in [
        (made("vmdk", "streamOptimized"), "compressed grains (streamOptimized)"),
        (made("vmdk", "monolithicFlat"), "descriptor alone"),
        (made("vhdx", "dynamic"), "VHDX"),
        (made("vpc", "dynamic"), "a dynamic VHD"),
        (folder.path().join("x.tar"), "a tar archive and no disk"),
    ] {
        let error = format!("{:#}", inspect::report(&path, false).unwrap_err());
        assert!(error.contains(want) && (error.contains("qemu-img convert") || error.contains("tar -tvf")), "{error}");
    }
}

#[test]
fn the_same_input_gives_the_same_file_in_every_form() {
    for format in [Format::Raw, Format::RawZst, Format::Qcow2, VHD] {
        let (_first, one, _) = written(format, "one");
        let (_second, two, _) = written(format, "two");
        assert!(fs::read(one).unwrap() == fs::read(two).unwrap(), "{format:?}");
    }
    // This one has its own name in it.
    let (_first, one, _) = written(Format::Vmdk, "disk.vmdk");
    let (_second, two, _) = written(Format::Vmdk, "disk.vmdk");
    assert!(fs::read(one).unwrap() == fs::read(two).unwrap());
}

#[test]
fn inspect_tells_what_is_in_it() {
    let (folder, raw, _) = written(Format::Raw, "disk.img");
    let plan = disk(folder.path());
    let report = inspect::report(&raw, true).unwrap();
    assert_eq!(report.disk_guid, plan.disk.to_string());
    let labels = report.partitions.iter().map(|p| p.filesystem.as_ref().map_or("", |fs| &fs.label));
    assert_eq!(labels.collect::<Vec<_>>(), ["KSCRATCHESP", "kscratch-root", "", "", "kscratch-state"]);
    let boot = report.boot.as_ref().unwrap();
    assert_eq!(boot.cmdline, format!("kscratch.root=PARTUUID={} console=ttyS0", plan.partitions[1].guid));
    assert_eq!((boot.kernel.as_str(), boot.linux_bytes, boot.initrd_bytes), ("6.12.0-test", 70_000, 6));
    assert_eq!(report.release.as_ref().unwrap()["kubernetes"], "v1.36.2");
    assert_eq!(report.role, None);
    let entries = report.partitions[1].filesystem.as_ref().unwrap().entries.as_ref().unwrap();
    for (path, node) in tree(folder.path()).nodes {
        if let Kind::File(content) = node.kind {
            let want = match &content {
                Content::Stored(stored) => stored.sha256,
                Content::Literal(bytes) => Digest::of(bytes),
            };
            let found = entries.iter().find(|entry| entry.path == path).unwrap();
            assert_eq!(found.sha256.as_deref(), Some(want.to_string().as_str()), "{path}");
        }
    }
    let text = report.to_string();
    for want in ["kscratch-state, UUID", "metadata   none", "release    kubernetes v1.36.2", "/usr/bin/link -> kubelet"]
    {
        assert!(text.contains(want), "{want} is missing in\n{text}");
    }
    assert!(serde_json::to_value(&report).unwrap()["partitions"][0]["filesystem"]["kind"] == "vfat");
}

#[test]
fn an_image_whose_state_is_elsewhere_has_no_place_for_it_and_says_so() {
    for (sector, esp) in [(512, 64 * MIB), (4096, 260 * MIB)] {
        let folder = tempfile::tempdir().unwrap();
        let plan = disk_with(folder.path(), esp, sector, State::Elsewhere);
        let names: Vec<&str> = plan.partitions.iter().map(|partition| partition.name.as_str()).collect();
        assert_eq!(names, ["esp", "root-a", "root-b", "recorder"]);
        assert_ne!(plan.disk, disk_of(folder.path(), esp, sector).disk, "it is another disk");
        let image = folder.path().join("disk.img");
        let written = write::image(&plan.image, folder.path(), Format::Raw, &image, &|_| ()).unwrap();
        assert_eq!(written.digest, digest_of(&image));
        let report = inspect::report(&image, true).unwrap();
        assert!(report.boot.as_ref().unwrap().state_elsewhere && report.table_warning.is_none());
        let text = report.to_string();
        for want in [" kscratch.state=elsewhere\n", "state      elsewhere: on the disk of the machine that has a"] {
            assert!(text.contains(want), "{want} is missing in\n{text}");
        }
        // Its tables count in its sectors, which a file's reader takes for 512 bytes.
        if sector == 512 {
            let verdict = run("sgdisk", "gdisk", &["-v", image.to_str().unwrap()]);
            assert!(verdict.contains("No problems found"), "{verdict}");
        }
        // It has a map, and is stamped, as any other.
        blockmap::write(&image, &written).unwrap();
        let metadata = Texts { role: "version = 1\nrole = \"node\"\n", secrets: None, names: NAMES };
        stamp(&image, &metadata, TIME).unwrap();
        assert!(inspect::report(&image, false).unwrap().role.is_some());
    }
}

#[test]
fn stamp_is_quick_and_leaves_a_clean_volume() {
    for (format, name) in [(Format::Raw, "disk.img"), (Format::Qcow2, "disk.qcow2"), (VHD, "disk.vhd")] {
        let (folder, image, _) = written(format, name);
        for (role, node) in [
            ("version = 1\nrole = \"node\"\n[node]\nname = \"first\"\n", "first"),
            ("version = 1\nrole = \"node\"\n[node]\nname = \"second\"\n", "second"),
        ] {
            let start = Instant::now();
            stamp(&image, &Texts { role, secrets: None, names: NAMES }, TIME).unwrap();
            assert!(start.elapsed() < Duration::from_secs(1), "it took {:?}", start.elapsed());
            let report = inspect::report(&image, false).unwrap().role.unwrap();
            assert_eq!((report.node.as_deref(), report.problem), (Some(node), None));
            let esp = folder.path().join("esp");
            fs::write(&esp, &fs::read(raw(&image, format)).unwrap()[MIB as usize..65 * MIB as usize]).unwrap();
            run("fsck.fat", "dosfstools", &["-n", esp.to_str().unwrap()]);
        }
    }
}

/// The image as a raw file, made by the reference tool, which first looks whether it is sound.
fn raw(image: &Path, format: Format) -> std::path::PathBuf {
    if format == Format::Raw {
        return image.to_owned();
    }
    let raw = image.with_extension("raw");
    if format == VHD {
        // QEMU tells a fixed VHD by its footer alone, and so only where it is told to look for one.
        let ends = [image.to_str().unwrap(), raw.to_str().unwrap()];
        run("qemu-img", "qemu-utils", &[&["convert", "-f", "vpc", "-O", "raw"], &ends[..]].concat());
        return raw;
    }
    let verdict = run("qemu-img", "qemu-utils", &["check", image.to_str().unwrap()]);
    assert!(verdict.contains("No errors were found"), "{verdict}");
    run("qemu-img", "qemu-utils", &["convert", "-O", "raw", image.to_str().unwrap(), raw.to_str().unwrap()]);
    raw
}

/// A file of the ESP, through the reader of `inspect`.
fn on_esp(image: &Path, name: &str) -> String {
    let disk = inspect::Opened::open(image).unwrap();
    let volume = Volume::open(Window { inner: &disk, start: MIB, len: 64 * MIB }).unwrap();
    let found = volume.find(&format!("/kscratch/{name}")).unwrap().unwrap();
    String::from_utf8(volume.read(&found, MIB).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_text_that_is_stamped_is_the_text_that_is_read(
        texts in prop::collection::vec(("(?s).{0,300}", 1usize..400), 1..4), secrets in prop::option::of("[a-z0-9]{16}"), which in 0..2usize,
    ) {
        static IMAGES: OnceLock<[(TempDir, std::path::PathBuf, write::Written); 2]> = OnceLock::new();
        let images = IMAGES.get_or_init(|| [written(Format::Raw, "disk.img"), written(Format::Qcow2, "disk.qcow2")]);
        // Stamped again and again: texts grow and shrink, and the cases before leave their traces.
        let image = &images[which].1;
        let secrets = secrets.map(|secret| format!("# {secret}\n"));
        for (text, times) in texts {
            // Comments may hold anything but control characters (TOML 1.0, Comment).
            let comment: String = text.chars().filter(|c| !c.is_control()).collect();
            let role = format!("version = 1\nrole = \"node\"\n{}", format!("#{comment}\n").repeat(times));
            stamp(image, &Texts { role: &role, secrets: secrets.as_deref(), names: NAMES }, TIME).unwrap();
            prop_assert_eq!(&on_esp(image, "role.toml"), &role);
            if let Some(secrets) = &secrets {
                prop_assert_eq!(&on_esp(image, "secrets.toml"), secrets);
            }
        }
        if which == 1 {
            let verdict = run("qemu-img", "qemu-utils", &["check", image.to_str().unwrap()]);
            prop_assert!(verdict.contains("No errors were found"), "{}", verdict);
        }
    }
}

const RACK: &str = "version = 1\nrole = \"node\"\n[[machines]]\nmac = \"52:54:00:00:00:11\"\nnode.name = \"n1\"\n\
                    [[machines]]\nserial = \"ABC 1\"\nuuid = \"4C4C4544-0051-3010-8048-B4C04F4A3132\"\n";

#[test]
fn one_stamp_serves_a_rack() {
    let (_folder, image, _) = written(Format::Raw, "disk.img");
    stamp(&image, &Texts { role: RACK, secrets: Some("version = 1\n"), names: NAMES }, TIME).unwrap();
    let report = inspect::report(&image, false).unwrap().role.unwrap();
    expect![[r#"
        metadata   /kscratch/role.toml: role node, machines of a rack: 2, secrets beside it
                   n1, mac 52:54:00:00:00:11
                   without a name, serial ABC 1, uuid 4c4c4544-0051-3010-8048-b4c04f4a3132
    "#]]
    .assert_eq(&report.to_string());
    // Every entry is looked at, whoever's it is, and the file stays as it was.
    let before = fs::read(&image).unwrap();
    for (from, to, want) in [
        (
            "node.name",
            "node.nmae",
            "my-role.toml:5:6: machines[0].node.nmae: there is no such field; did you mean \"name\"?",
        ),
        ("serial = \"ABC 1\"", "network.mtu = 1", "my-role.toml:7:15: machines[1].network.mtu: 1 is smaller than 576"),
        (
            "serial = \"ABC 1\"",
            "node.name = \"n1\"",
            "my-role.toml:7:13: machines[1].node.name: n1 is the name of machines[0] (n1) too",
        ),
    ] {
        let wrong = RACK.replace(from, to);
        let error = stamp(&image, &Texts { role: &wrong, secrets: None, names: NAMES }, TIME).unwrap_err();
        assert!(format!("{error:#}").contains(want), "{error:#}");
    }
    assert!(fs::read(&image).unwrap() == before, "something was written");
}

#[test]
fn stamp_refuses_bad_metadata_and_other_forms() {
    let (_folder, raw, _) = written(Format::Raw, "disk.img");
    let before = fs::read(&raw).unwrap();
    let error =
        stamp(&raw, &Texts { role: "version = 1\nrole = \"king\"\n", secrets: None, names: NAMES }, TIME).unwrap_err();
    assert!(format!("{error:#}").contains("my-role.toml:2:"), "{error:#}");
    assert!(fs::read(&raw).unwrap() == before, "nothing was written");
    let good = Texts { role: "version = 1\nrole = \"node\"\n", secrets: None, names: NAMES };
    let (_packed_folder, packed, _) = written(Format::RawZst, "disk.img.zst");
    let error = stamp(&packed, &good, TIME).unwrap_err();
    assert!(format!("{error:#}").contains("zstd -d"), "{error:#}");
    let (_vmdk_folder, vmdk, _) = written(Format::Vmdk, "disk.vmdk");
    let error = stamp(&vmdk, &good, TIME).unwrap_err();
    assert!(format!("{error:#}").contains("is vmdk"), "{error:#}");
}

#[test]
fn stamp_leaves_a_running_machines_disk_alone() {
    let (_folder, raw, _) = written(Format::Raw, "disk.img");
    let before = fs::read(&raw).unwrap();
    let good = Texts { role: "version = 1\nrole = \"node\"\n", secrets: None, names: NAMES };
    let holder = Holder::of(&raw);
    let error = stamp(&raw, &good, TIME).unwrap_err();
    assert!(format!("{error:#}").contains("it is in use: nothing was written"), "{error:#}");
    assert!(fs::read(&raw).unwrap() == before, "something was written");
    drop(holder);
    stamp(&raw, &good, TIME).unwrap();
}

#[test]
fn stamp_refuses_a_qcow2_file_that_it_cannot_keep_right_and_leaves_it() {
    let (folder, plain, _) = written(Format::Qcow2, "disk.qcow2");
    let good = Texts { role: "version = 1\nrole = \"node\"\n", secrets: None, names: NAMES };
    let convert = |name: &str, options: &[&str]| {
        let out = folder.path().join(name);
        let ends = [plain.to_str().unwrap(), out.to_str().unwrap()];
        run("qemu-img", "qemu-utils", &[&["convert", "-O", "qcow2"], options, &ends].concat());
        out
    };
    let backed = folder.path().join("backed.qcow2");
    let ends = ["-F", "qcow2", "-b", plain.to_str().unwrap(), backed.to_str().unwrap()];
    run("qemu-img", "qemu-utils", &[&["create", "-q", "-f", "qcow2"], &ends[..]].concat());
    let kept = convert("snapshot.qcow2", &[]);
    run("qemu-img", "qemu-utils", &["snapshot", "-c", "one", kept.to_str().unwrap()]);
    let bitmap = convert("bitmap.qcow2", &[]);
    run("qemu-img", "qemu-utils", &["bitmap", "--add", bitmap.to_str().unwrap(), "one"]);
    for (image, want) in [
        (backed, "has a backing file"),
        (kept, "has internal snapshots"),
        (bitmap, "has dirty bitmaps"),
        (convert("compressed.qcow2", &["-c"]), "has compressed clusters"),
        (convert("old.qcow2", &["-o", "compat=0.10"]), "is of version 2"),
        (convert("clusters.qcow2", &["-o", "cluster_size=128k"]), "has clusters of another size"),
        (convert("refcounts.qcow2", &["-o", "refcount_bits=8"]), "has refcounts of another width"),
        (convert("extended.qcow2", &["-o", "extended_l2=on,cluster_size=64k"]), "has extended L2 entries"),
        (
            convert("outside.qcow2", &["-o", &format!("data_file={}", folder.path().join("data").display())]),
            "in another file",
        ),
    ] {
        let before = fs::read(&image).unwrap();
        let error = format!("{:#}", stamp(&image, &good, TIME).unwrap_err());
        assert!(error.contains("stamping ") && error.contains(want) && error.contains("qemu-img convert"), "{error}");
        assert!(fs::read(&image).unwrap() == before, "{want}: nothing was written");
    }
    // What qemu-img makes of them bears a stamp.
    stamp(&convert("plain.qcow2", &[]), &good, TIME).unwrap();
}

#[test]
fn a_store_that_lacks_a_file_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let plan = disk(folder.path());
    fs::OpenOptions::new().write(true).open(folder.path().join("data")).unwrap().set_len(1000).unwrap();
    for format in [Format::Raw, Format::RawZst, Format::Qcow2, Format::Vmdk, VHD] {
        let out = folder.path().join("out");
        let error = write::image(&plan.image, folder.path(), format, &out, &|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("data in the store"), "{error:#}");
        let left: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["data"]);
    }
}
