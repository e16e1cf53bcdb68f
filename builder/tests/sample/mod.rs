//! A small whole disk, as the builder makes it.
#![allow(dead_code)] // Every test takes what it needs of this.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use kscratch_image::plan::{self, DiskPlan};
use kscratch_image::spec::{ByteSize, State};
use kscratch_image::store::{Digest, Stored};
use kscratch_image::tree::{Content, Kind, Node, Origin, Tree};
use kscratch_image::write::{self, Format};
use kscratch_image::{filesystem, uki};
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;
pub const TIME: i64 = 1_760_000_000;
pub const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

pub fn node(kind: Kind, mode: u16) -> Node {
    let origin = Origin { declaration: "test".into(), artifact: "test".into() };
    Node { kind, mode, uid: 0, gid: 0, xattrs: BTreeMap::new(), origin }
}

/// A tree whose large file lies in the store at `store`, at an odd offset.
pub fn tree(store: &Path) -> Tree {
    let mut data = vec![0u8; 777];
    data.extend((0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8));
    fs::write(store.join("data"), &data).unwrap();
    let stored = Stored { file: "data".into(), offset: 777, len: 5_000_000, sha256: Digest::of(&data[777..]) };
    let release = br#"{"kubernetes":"v1.36.2","role":"node"}"#;
    let directory = || node(Kind::Directory, 0o755);
    let nodes = [
        ("/", directory()),
        ("/usr", directory()),
        ("/usr/bin", directory()),
        ("/usr/bin/kubelet", node(Kind::File(Content::Stored(stored)), 0o755)),
        ("/usr/bin/link", node(Kind::Symlink("kubelet".into()), 0o777)),
        ("/usr/share", directory()),
        ("/usr/share/kscratch", directory()),
        ("/usr/share/kscratch/release.json", node(Kind::File(Content::Literal(release[..].into())), 0o644)),
        ("/usr/share/zeros", node(Kind::File(Content::Literal(vec![0; 3 << 20].into())), 0o644)),
    ];
    Tree { nodes: nodes.into_iter().map(|(path, node)| (path.to_owned(), node)).collect() }
}

pub fn disk(store: &Path) -> DiskPlan {
    disk_of(store, 64 * MIB, 512)
}

/// With an ESP of so many bytes, for sectors of so many.
pub fn disk_of(store: &Path, esp: u64, sector: u64) -> DiskPlan {
    disk_with(store, esp, sector, State::Here(ByteSize(128 * MIB)))
}

/// With that besides.
pub fn disk_with(store: &Path, esp: u64, sector: u64, state: State) -> DiskPlan {
    let stub = fs::read(STUB).expect("systemd's EFI stub is missing: apt-get install systemd-boot-efi");
    let root = filesystem::root(&tree(store), 64 * MIB, TIME).unwrap();
    let place = uki::Place::Partition(plan::root_guid(&root.digest));
    let cmdline = uki::command_line(place, &["ttyS0".to_owned()], &state.word()).unwrap();
    let boot = uki::Boot {
        stub: &stub,
        kernel: &[0x4B; 70_000],
        version: "6.12.0-test",
        initramfs: b"070701",
        cmdline: &cmdline,
        os_release: "ID=kscratch\n",
    };
    let esp = filesystem::esp(uki::build(&boot).unwrap(), &BTreeMap::new(), esp, sector, TIME).unwrap();
    let state = state.bytes().map(|bytes| filesystem::state(bytes, TIME, &root.digest).unwrap());
    plan::disk(esp, root, state, sector).unwrap()
}

pub fn written(format: Format, name: &str) -> (TempDir, std::path::PathBuf, write::Written) {
    let folder = tempfile::tempdir().unwrap();
    let plan = disk(folder.path());
    let out = folder.path().join(name);
    let done = AtomicU64::new(0);
    let progress = |bytes| {
        done.fetch_add(bytes, Ordering::Relaxed);
    };
    let told = write::image(&plan.image, folder.path(), format, &out, &progress).unwrap();
    assert_eq!(done.into_inner(), write::work(&plan.image), "progress reaches the announced work");
    (folder, out, told)
}
