//! Archives, sound and hostile, become indices or errors.
use proptest::prelude::{ProptestConfig, any, proptest};
use tar::{EntryType, Header};

use super::{EntryKind, Unpacked, one};
use crate::debian::testarchive;
use crate::store::{Digest, Store};

/// A tar, written without the checks that the library's own paths go through.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, kind: EntryType, path: &str, link: &str, contents: &[u8]) -> Tar {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(contents.len() as u64);
        header.set_mode(0o4755);
        header.set_uid(0);
        header.set_gid(42);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, contents: &[u8]) -> Tar {
        self.add(EntryType::Regular, path, "", contents)
    }

    fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 1);
    std::io::Write::write_all(&mut packed, bytes).unwrap();
    packed.finish().unwrap()
}

fn unpack(archive: &[u8]) -> anyhow::Result<(tempfile::TempDir, Store, Unpacked)> {
    let cache = tempfile::tempdir()?;
    let store = Store::open(cache.path())?;
    let digest = store.add_bytes(archive)?;
    let result = one(&store, &digest);
    assert_eq!(std::fs::read_dir(store.root().join("tmp"))?.count(), 0, "nothing is left over");
    let done = std::fs::read_dir(store.root().join("unpacked"))?.count();
    assert_eq!(done, usize::from(result.is_ok()), "there is a folder exactly if it is good");
    let unpacked = result?;
    assert_eq!(Unpacked::load(&store, &digest)?.as_ref(), Some(&unpacked));
    Ok((cache, store, unpacked))
}

#[track_caller]
fn refused(archive: &[u8], want: &str) {
    let error = format!("{:#}", unpack(archive).unwrap_err());
    assert!(error.contains(want), "wanted `{want}` in: {error}");
}

#[test]
fn every_kind_of_entry_whichever_way_it_is_packed() {
    let tar = Tar::default()
        .add(EntryType::Directory, "./", "", b"")
        .add(EntryType::Directory, "./usr/", "", b"")
        .file("./usr/mount", b"mount")
        .file("./usr/share/doc/mount/changelog.gz", b"long")
        .file("./usr/share/doc/mount/copyright", b"GPL")
        .add(EntryType::Symlink, "./bin", "usr/bin", b"")
        .add(EntryType::Link, "./usr/hard", "./usr/mount", b"")
        .add(EntryType::Char, "./dev/null", "", b"")
        .file("./empty", b"")
        .done();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &tar).unwrap();
    let packed = [
        tar.clone(),
        xz(&tar),
        gz.finish().unwrap(),
        zstd::encode_all(tar.as_slice(), 1).unwrap(),
        testarchive::package(&xz(&tar)),
    ];
    for archive in packed {
        let (_cache, store, unpacked) = unpack(&archive).unwrap();
        let paths: Vec<&str> = unpacked.entries.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "/bin",
                "/dev/null",
                "/empty",
                "/usr",
                "/usr/hard",
                "/usr/mount",
                "/usr/share/doc/mount/changelog.gz",
                "/usr/share/doc/mount/copyright"
            ]
        );
        let mount = unpacked.get("/usr/mount").unwrap();
        assert_eq!((mount.mode, mount.uid, mount.gid), (0o4755, 0, 42));
        let EntryKind::File(stored) = &mount.kind else { panic!("no file") };
        assert_eq!((store.read(stored).unwrap().as_slice(), stored.sha256), (&b"mount"[..], Digest::of(b"mount")));
        assert_eq!(unpacked.get("/usr/hard").unwrap().kind, mount.kind);
        assert_eq!(unpacked.get("/usr/share/doc/mount/changelog.gz").unwrap().kind, EntryKind::Skipped { len: 4 });
        assert_eq!(unpacked.get("/dev/null").unwrap().kind, EntryKind::CharDevice { major: 1, minor: 3 });
        assert_eq!(unpacked.get("/bin").unwrap().kind, EntryKind::Symlink("usr/bin".into()));
        let data = std::fs::read(store.root().join(format!("unpacked/{}/data", unpacked.artifact))).unwrap();
        assert_eq!(data, b"mountGPL");
    }
}

#[test]
fn extended_attributes() {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", &b"\x01\0\0\x02\0\x20"[..]), ("mtime", b"1.5")])
        .unwrap();
    let mut header = Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, "usr/bin/ping", &b"ping"[..]).unwrap();
    let (_cache, _store, unpacked) = unpack(&tar.into_inner().unwrap()).unwrap();
    let xattrs = &unpacked.get("/usr/bin/ping").unwrap().xattrs;
    assert_eq!(
        xattrs.iter().collect::<Vec<_>>(),
        [(&"security.capability".to_owned(), &b"\x01\0\0\x02\0\x20".to_vec())]
    );
}

#[test]
fn archives_that_would_lead_astray() {
    let one = |path: &str| Tar::default().file(path, b"x").done();
    refused(&one("./usr/../../etc/passwd"), "the path `./usr/../../etc/passwd` leads out of the archive");
    refused(&one("/etc/passwd"), "the path `/etc/passwd` is absolute");
    refused(&Tar::default().file("./a", b"1").file("a", b"2").done(), "the path /a is there twice");
    refused(
        &Tar::default().add(EntryType::Link, "./a", "./b", b"").done(),
        "it is a hard link to `/b`, which is no file before it",
    );
    refused(&Tar::default().add(EntryType::Fifo, "./a", "", b"").done(), "it is of a kind that no package should have");
    refused(&Tar::default().add(EntryType::Symlink, "./a", "", b"").done(), "its link has no target");
}

#[test]
fn archives_that_are_cut_or_no_archives() {
    let tar = Tar::default().file("./a", &[7; 5000]).done();
    refused(&tar[..2000], "reading the entry /a");
    let packed = xz(&tar);
    refused(&packed[..packed.len() - 4], "unpack");
    let mut changed = testarchive::package(&packed);
    let end = changed.len() - 30;
    changed[end] ^= 1;
    refused(&changed, "unpack");
    let deb = testarchive::package(&packed);
    refused(&deb[..90], "unpack");
    // Cut behind its second member, before the third.
    refused(&deb[..134], "it has no member data.tar");
    refused(b"!<arch>\nother/          0           0     0     644     1         `\nx\n", "it is not a Debian package");
    refused(&[0xff; 600], "reading");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_bytes_are_unpacked_or_refused(bytes in any::<Vec<u8>>(), at in 0..700_usize, as_deb: bool) {
        let mut archive = Tar::default().file("./a", b"x").add(EntryType::Symlink, "./b", "a", b"").done();
        let end = (at + bytes.len()).min(archive.len());
        archive.splice(at.min(end)..end, bytes.iter().copied());
        drop(unpack(&if as_deb { testarchive::package(&archive) } else { archive }));
        let mut deb = testarchive::package(b"");
        let end = (at % 200 + bytes.len()).min(deb.len());
        deb.splice((at % 200).min(end)..end, bytes);
        drop(unpack(&deb));
    }
}
