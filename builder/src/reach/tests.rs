//! Packages made by hand, with ELF files made by hand, go through [`reach`].
use std::io::{self, Cursor};
use std::sync::Mutex;

use super::*;
use crate::store::{Digest, Stored};
use crate::tree::ReadSeek;

/// Contents kept in memory, as a store would keep them on disk.
#[derive(Default)]
pub(crate) struct Memory(Mutex<BTreeMap<Digest, Vec<u8>>>);

impl Memory {
    pub(crate) fn stored(&self, bytes: &[u8]) -> Stored {
        let sha256 = Content::from(bytes.to_vec()).sha256();
        self.0.lock().unwrap().insert(sha256, bytes.to_vec());
        Stored { file: "memory".into(), offset: 0, len: bytes.len() as u64, sha256 }
    }
}

impl Contents for Memory {
    fn open(&self, content: &Content) -> io::Result<Box<dyn ReadSeek + '_>> {
        let bytes = match content {
            Content::Literal(bytes) => bytes.to_vec(),
            Content::Stored(range) => {
                self.0.lock().unwrap().get(&range.sha256).cloned().ok_or(io::ErrorKind::NotFound)?
            }
        };
        Ok(Box::new(Cursor::new(bytes)))
    }
}

/// An ELF file of nothing but headers, a dynamic section and its strings.
pub(crate) fn elf_file(interpreter: Option<&str>, needed: &[&str], runpath: Option<&str>) -> Vec<u8> {
    let mut strings = vec![0u8];
    let mut string = |text: &str| {
        let at = strings.len() as u64;
        strings.extend(text.bytes().chain([0]));
        at
    };
    let mut dynamic: Vec<(u64, u64)> = needed.iter().map(|name| (1, string(name))).collect();
    dynamic.extend(runpath.map(|path| (29, string(path))));
    let interpreter = interpreter.map(|path| (string(path), path.len() as u64 + 1));
    let headers = 2 + u64::from(interpreter.is_some());
    let dynamic_at = 64 + 56 * headers;
    let strings_at = dynamic_at + 16 * (dynamic.len() as u64 + 2);
    dynamic.extend([(5, strings_at), (0, 0)]);
    let end = strings_at + strings.len() as u64;

    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    for word in [0u64, 64, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend([0; 4]);
    for half in [64u16, 56, headers as u16, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    let mut segments = vec![(1u32, 0, end), (2, dynamic_at, 16 * dynamic.len() as u64)];
    segments.extend(interpreter.map(|(at, len)| (3, strings_at + at, len)));
    for (kind, at, len) in segments {
        out.extend(kind.to_le_bytes());
        out.extend(4u32.to_le_bytes());
        for word in [at, at, at, len, len, 8] {
            out.extend(word.to_le_bytes());
        }
    }
    for (tag, value) in dynamic {
        out.extend(tag.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    out.extend(strings);
    out
}

fn entry(kind: EntryKind, mode: u16) -> Entry {
    Entry { kind, mode, uid: 0, gid: 0, xattrs: BTreeMap::new() }
}

enum Made<'a> {
    File(Vec<u8>),
    Link(&'a str),
    Doc,
}

fn unpacked(memory: &Memory, entries: Vec<(&str, Made<'_>)>) -> Unpacked {
    let entries = entries.into_iter().map(|(path, made)| {
        let entry = match made {
            Made::File(bytes) => entry(EntryKind::File(memory.stored(&bytes)), 0o4755),
            Made::Link(target) => entry(EntryKind::Symlink(target.into()), 0o777),
            Made::Doc => entry(EntryKind::Skipped { len: 1 }, 0o644),
        };
        (path.to_owned(), entry)
    });
    Unpacked { artifact: Digest([0; 32]), entries: entries.collect() }
}

const LD: &str = "/lib64/ld-linux-x86-64.so.2";
const LIBS: &str = "/usr/lib/x86_64-linux-gnu";

/// Runs [`reach`] over a small world with these declarations.
fn run(declarations: &str) -> Result<Tree> {
    let memory = Memory::default();
    let libc = unpacked(
        &memory,
        vec![
            ("/lib64/ld-linux-x86-64.so.2", Made::Link("/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")),
            ("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", Made::File(elf_file(None, &[], None))),
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", Made::File(elf_file(None, &["ld-linux-x86-64.so.2"], None))),
        ],
    );
    let tables = unpacked(
        &memory,
        vec![
            ("/usr/sbin/xtables-nft-multi", Made::File(elf_file(Some(LD), &["libxtables.so.12", "libc.so.6"], None))),
            ("/usr/sbin/iptables-nft", Made::Link("xtables-nft-multi")),
            ("/usr/sbin/iptables-old", Made::Link("/etc/alternatives/iptables")),
            ("/usr/sbin/iptables-apply", Made::File(b"#!/bin/bash\n".to_vec())),
            ("/usr/sbin/lost", Made::File(elf_file(Some(LD), &["libnftnl.so.11"], None))),
            ("/usr/lib/x86_64-linux-gnu/libxtables.so.12", Made::Link("libxtables.so.12.7.0")),
            ("/usr/lib/x86_64-linux-gnu/libxtables.so.12.7.0", Made::File(elf_file(None, &["libc.so.6"], None))),
            (
                "/usr/lib/x86_64-linux-gnu/xtables/libxt_mark.so",
                Made::File(elf_file(None, &["libonly.so.1"], Some("$ORIGIN/own"))),
            ),
            ("/usr/lib/x86_64-linux-gnu/xtables/own/libonly.so.1", Made::File(elf_file(None, &[], None))),
            ("/usr/share/doc/iptables/copyright", Made::Doc),
            ("/etc/certs/b.crt", Made::File(b"B\n".to_vec())),
            ("/etc/certs/a.crt", Made::File(b"A".to_vec())),
        ],
    );
    let packages = [
        Package { name: "libc6", version: "2.41", unpacked: &libc },
        Package { name: "iptables", version: "1.8", unpacked: &tables },
    ];
    let mut spec = ImageSpec::defaults()?;
    #[derive(serde::Deserialize)]
    struct Declared {
        #[serde(default)]
        program: Vec<Program>,
        #[serde(default)]
        file: Vec<DataFile>,
        #[serde(default)]
        bundle: Vec<Bundle>,
    }
    let declared: Declared = toml::from_str(declarations)?;
    (spec.programs, spec.files, spec.bundles) = (declared.program, declared.file, declared.bundle);
    reach(&spec, Role::Node, &packages, &memory)
}

#[track_caller]
fn check(declarations: &str, want: &[&str]) {
    let tree = run(declarations).unwrap();
    let mut want = want.to_vec();
    want.sort_unstable();
    assert_eq!(tree.nodes.keys().collect::<Vec<_>>(), want);
}

#[track_caller]
fn check_error(declarations: &str, want: &str) {
    let error = format!("{:#}", run(declarations).unwrap_err());
    assert!(error.contains(want), "{error}");
}

#[test]
fn a_program_brings_its_links_libraries_and_linker() {
    let declared = "[[program]]\npackage = 'iptables'\npath = '/sbin/iptables-nft'\nlinks = ['/usr/sbin/iptables']";
    let libs = ["ld-linux-x86-64.so.2", "libc.so.6", "libxtables.so.12", "libxtables.so.12.7.0"]
        .map(|name| format!("{LIBS}/{name}"));
    let mut want: Vec<&str> = libs.iter().map(String::as_str).collect();
    want.extend([
        "/usr/lib64/ld-linux-x86-64.so.2",
        "/usr/sbin/iptables",
        "/usr/sbin/iptables-nft",
        "/usr/sbin/xtables-nft-multi",
    ]);
    check(declared, &want);
    let tree = run(declared).unwrap();
    assert_eq!(tree.nodes["/usr/sbin/iptables"].kind, Kind::Symlink("xtables-nft-multi".into()));
    assert_eq!(tree.nodes["/usr/sbin/xtables-nft-multi"].mode, 0o755, "setuid goes");
    let origin = &tree.nodes[&format!("{LIBS}/libxtables.so.12.7.0")].origin;
    assert_eq!(origin.to_string(), "library of /usr/sbin/xtables-nft-multi from iptables 1.8 (debian)");
}

#[test]
fn a_plugin_finds_its_library_by_origin() {
    let xtables = format!("{LIBS}/xtables");
    let declared = format!("[[file]]\npackage = 'iptables'\npath = '{xtables}/*.so'");
    check(&declared, &[&format!("{xtables}/libxt_mark.so"), &format!("{xtables}/own/libonly.so.1")]);
}

#[test]
fn files_are_renamed_and_joined() {
    check("[[file]]\npackage = 'iptables'\npath = '/etc/certs/*'\nas = '/x'", &["/x/a.crt", "/x/b.crt"]);
    check("[[file]]\npackage = 'iptables'\npath = '/etc/certs/*'\nroles = ['master']", &[]);
    let tree = run("[[bundle]]\npackage = 'iptables'\npath = '/etc/certs/*.crt'\nas = '/all.crt'").unwrap();
    assert_eq!(tree.nodes["/all.crt"].kind, Kind::File(b"A\nB\n".to_vec().into()));
}

#[test]
fn what_cannot_be_taken_is_named() {
    let program = |path: &str| format!("[[program]]\npackage = 'iptables'\npath = '{path}'");
    check_error(&program("/usr/sbin/iptables-apply"), "/usr/sbin/iptables-apply is a script for /bin/bash");
    check_error(
        &program("/usr/sbin/iptables-old"),
        "leads to /etc/alternatives/iptables, which no fetched package holds; update-alternatives",
    );
    check_error(
        &program("/usr/sbin/lost"),
        "/usr/sbin/lost needs the library libnftnl.so.11, and no fetched package holds it in",
    );
    check_error(&program("/usr/sbin/lost"), "it is in libnftnl11");
    check_error(
        &program("/usr/bin/iptables-nft"),
        "package iptables holds no /usr/bin/iptables-nft (it holds /usr/sbin/iptables-nft)",
    );
    check_error(&program("/etc/certs/a.crt"), "/etc/certs/a.crt is no program");
    check_error(&program("/usr/share/doc/iptables/copyright"), "were not kept");
    check_error("[[file]]\npackage = 'iptables'\npath = '/etc/*.conf'", "holds nothing that fits /etc/*.conf");
    check_error("[[file]]\npackage = 'kmod'\npath = '/etc/x'", "package kmod was not fetched");
}

#[test]
fn libraries_are_found_by_debians_naming() {
    assert_eq!(library_package("libxtables.so.12"), "libxtables12");
    assert_eq!(library_package("libpcre2-8.so.0"), "libpcre2-8-0");
    assert_eq!(library_package("libdb_x.so"), "libdb-x");
}
