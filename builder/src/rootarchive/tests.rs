//! Archives are read again by GNU tar and by the builder's own reader of packages.
use std::collections::BTreeMap;
use std::process::Command;

use super::{Archive, work, write};
use crate::store::{Digest, Store};
use crate::tree::{Content, Kind, Node, Origin, Tree};

const TIME: i64 = 1_760_000_000;

fn sample(store: &Store) -> Tree {
    let origin = || Origin { declaration: "test".into(), artifact: "test".into() };
    let node = |kind, mode| Node { kind, mode, uid: 0, gid: 0, xattrs: BTreeMap::new(), origin: origin() };
    let long = "n".repeat(90);
    let stored = store.whole(&store.add_bytes(&[7; 70_000]).unwrap()).unwrap();
    let mut capable = node(Kind::File(Content::Stored(stored)), 0o755);
    capable.xattrs.insert("security.capability".into(), vec![1, 0, 0, 2, 0, 10 | 0x80, 0, 0]);
    capable.xattrs.insert("trusted.overlay.opaque".into(), b"y".to_vec());
    let mut owned = node(Kind::File(Content::Literal(b"text\n"[..].into())), 0o640);
    (owned.uid, owned.gid) = (901, 70_000);
    let nodes = [
        ("/".to_owned(), node(Kind::Directory, 0o755)),
        ("/dev".into(), node(Kind::Directory, 0o755)),
        ("/dev/console".into(), node(Kind::CharDevice { major: 5, minor: 1 }, 0o600)),
        ("/dev/disk".into(), node(Kind::BlockDevice { major: 259, minor: 300 }, 0o660)),
        ("/tmp".into(), node(Kind::Directory, 0o1777)),
        ("/usr".into(), node(Kind::Directory, 0o755)),
        ("/usr/capable".into(), capable),
        ("/usr/empty".into(), node(Kind::File(Content::Literal(b""[..].into())), 0o644)),
        (format!("/usr/{long}"), node(Kind::Directory, 0o700)),
        (format!("/usr/{long}/{long}"), owned),
        ("/usr/over".into(), node(Kind::Symlink(format!("{long}/{long}")), 0o777)),
        ("/usr/ümläut".into(), node(Kind::Symlink("empty".into()), 0o777)),
    ];
    Tree { nodes: nodes.into_iter().collect() }
}

fn written(folder: &std::path::Path, store: &Store, name: &str) -> (std::path::PathBuf, Archive) {
    let (tree, out, mut told) = (sample(store), folder.join(name), 0);
    let archive = write(&tree, store, TIME, &out, &mut |bytes| told += bytes).unwrap();
    assert_eq!(told, work(&tree));
    (out, archive)
}

#[test]
fn the_same_tree_is_the_same_archive_and_its_digest_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (one, told) = written(folder.path(), &store, "one.tar");
    let (two, _) = written(folder.path(), &store, "two.tar");
    let bytes = std::fs::read(one).unwrap();
    assert!(bytes == std::fs::read(two).unwrap(), "two archives of one tree differ");
    assert_eq!((told.sha256, told.len), (Digest::of(&bytes), bytes.len() as u64));
    // An archive ends with two blocks of zeros (POSIX pax, "ustar Interchange Format").
    assert!(bytes.len() % 512 == 0 && bytes[bytes.len() - 1024..].iter().all(|byte| *byte == 0));
}

#[test]
fn gnu_tar_sees_what_is_in_the_tree() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (path, _) = written(folder.path(), &store, "root.tar");
    let mut tar = Command::new("tar");
    tar.args([
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--utc",
        "--full-time",
        "--quoting-style=literal",
        "-tvvf",
    ]);
    let said = tar.arg(&path).output().expect("tar is missing: apt-get install tar");
    let (told, wrong) = (String::from_utf8(said.stdout).unwrap(), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && wrong.is_empty(), "{wrong}");
    let long = "n".repeat(90);
    let words: Vec<String> =
        told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").replace(&long, "LONG")).collect();
    let at = "2025-10-09 08:53:20";
    assert_eq!(
        words,
        [
            format!("drwxr-xr-x 0/0 0 {at} ./"),
            format!("drwxr-xr-x 0/0 0 {at} ./dev/"),
            format!("crw------- 0/0 5,1 {at} ./dev/console"),
            format!("brw-rw---- 0/0 259,300 {at} ./dev/disk"),
            format!("drwxrwxrwt 0/0 0 {at} ./tmp/"),
            format!("drwxr-xr-x 0/0 0 {at} ./usr/"),
            format!("-rwxr-xr-x* 0/0 70000 {at} ./usr/capable"),
            format!("-rw-r--r-- 0/0 0 {at} ./usr/empty"),
            format!("drwx------ 0/0 0 {at} ./usr/LONG/"),
            format!("-rw-r----- 901/70000 5 {at} ./usr/LONG/LONG"),
            format!("lrwxrwxrwx 0/0 0 {at} ./usr/over -> LONG/LONG"),
            format!("lrwxrwxrwx 0/0 0 {at} ./usr/ümläut -> empty"),
        ]
    );
}

#[test]
fn it_reads_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (path, _) = written(folder.path(), &store, "root.tar");
    let tree = sample(&store);
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    let mut seen = 0;
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let path = path.trim_start_matches('.').trim_end_matches('/');
        let node = &tree.nodes[if path.is_empty() { "/" } else { path }];
        let records = entry.pax_extensions().unwrap();
        let xattrs: BTreeMap<String, Vec<u8>> = records
            .into_iter()
            .flatten()
            .map(Result::unwrap)
            .filter_map(|record| {
                Some((record.key().ok()?.strip_prefix("SCHILY.xattr.")?.to_owned(), record.value_bytes().to_vec()))
            })
            .collect();
        assert_eq!(xattrs, node.xattrs, "{path}");
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        let want = match &node.kind {
            Kind::File(content) => crate::tree::Contents::read(&store, content).unwrap(),
            _ => Vec::new(),
        };
        assert!(bytes == want, "{path}");
        seen += 1;
    }
    assert_eq!(seen, tree.nodes.len());
}
