//! A small kernel package, made by hand, goes through [`kernel`]; `depmod` of the kmod package reads the result and must agree.
use std::path::Path;
use std::process::Command;

use object::write::{Object, StandardSegment, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use super::*;
use crate::spec::ImageSpec;
use crate::tree::Kind;
use crate::unpack::{Entry, Unpacked};

const VERSION: &str = "6.12.0-test";

/// A relocatable file that exports and wants symbols and says things of itself, as a module does.
fn module(exports: &[&str], wants: &[&str], info: &[&str]) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let mut section = |name: &str, data: Vec<u8>| {
        let id = object.add_section(
            object.segment_name(StandardSegment::Data).to_vec(),
            name.into(),
            SectionKind::ReadOnlyData,
        );
        object.append_section_data(id, &data, 1);
        id
    };
    let join = |words: &[&str]| words.iter().flat_map(|word| word.bytes().chain([0])).collect::<Vec<u8>>();
    section(".modinfo", join(info));
    let strings = section("__ksymtab_strings", join(exports));
    let mut symbol = |name: String, section: SymbolSection| {
        object.add_symbol(Symbol {
            name: name.into_bytes(),
            value: 0,
            size: 0,
            kind: SymbolKind::Data,
            scope: SymbolScope::Dynamic,
            weak: false,
            section,
            flags: SymbolFlags::None,
        });
    };
    for name in exports {
        symbol(format!("__ksymtab_{name}"), SymbolSection::Section(strings));
    }
    for name in wants {
        symbol((*name).to_owned(), SymbolSection::Undefined);
    }
    object.write().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut packed).unwrap();
    packed
}

fn package_of(store: &Store) -> Unpacked {
    let stack = module(&["stack_fn"], &["base_fn"], &["name=net_stack", "depends=base", "alias=net-pf-99"]);
    let driver = module(
        &[],
        &["stack_fn", "base_fn"],
        &[
            "name=card",
            "depends=net-stack,base",
            "softdep=pre: crypto-sum post: later",
            "alias=pci:v00001AF4d*",
            "alias=pci:v00001AF5d*",
            "firmware=card/one.fw",
            "firmware=card/two.fw",
        ],
    );
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("kernel/drivers/net/card.ko.xz", xz(&driver)),
        ("kernel/drivers/net/other.ko.xz", xz(&module(&[], &[], &["name=other", "alias=pci:v0000FFFFd*"]))),
        ("kernel/net/net-stack.ko.xz", xz(&stack)),
        ("kernel/lib/base.ko", module(&["base_fn"], &[], &["name=base", "depends="])),
        ("kernel/crypto/sum.ko.xz", xz(&module(&[], &[], &["name=sum", "alias=crypto-sum"]))),
        ("kernel/lib/later.ko.xz", xz(&module(&[], &[], &["name=later"]))),
        ("kernel/net/broken.ko.xz", b"no xz".to_vec()),
        ("modules.order", b"kernel/net/net-stack.ko\nkernel/lib/base.ko\nkernel/drivers/net/card.ko\n".to_vec()),
        ("modules.builtin", b"kernel/fs/ext4/ext4.ko\n".to_vec()),
    ];
    let entries = files.into_iter().map(|(path, bytes)| {
        let range = store.whole(&store.add_bytes(&bytes).unwrap()).unwrap();
        let entry = Entry { kind: EntryKind::File(range), mode: 0o644, uid: 0, gid: 0, xattrs: BTreeMap::new() };
        (format!("/usr/lib/modules/{VERSION}/{path}"), entry)
    });
    Unpacked { artifact: Digest([7; 32]), entries: entries.collect() }
}

fn run(modules: &[&str], initramfs: &[&str], load: &[&str]) -> Result<(tempfile::TempDir, KernelModules)> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path())?;
    let unpacked = package_of(&store);
    let packages = [Package { name: "linux-image", version: "6.12", unpacked: &unpacked }];
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let spec = Kernel {
        modules: list(modules),
        initramfs: list(initramfs),
        load: list(load),
        ..ImageSpec::defaults()?.kernel
    };
    let first = kernel(&spec, &packages, &store)?;
    assert_eq!(first, kernel(&spec, &packages, &store)?, "the remembered result is the same");
    Ok((folder, first))
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.nodes.keys().filter(|path| path.ends_with(".ko")).filter_map(|path| path.rsplit('/').next()).collect()
}

fn text(tree: &Tree, path: &str) -> String {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/usr/lib/modules/{VERSION}/{path}") };
    let Kind::File(Content::Literal(bytes)) = &tree.nodes[&path].kind else { panic!("{path} is no literal file") };
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn names_globs_needs_and_soft_needs_are_chosen() {
    let (_folder, made) = run(&["drivers/net/car*", "ext4"], &["net_stack", "ext4"], &["later", "ext4"]).unwrap();
    assert_eq!(names(&made.root), ["sum.ko", "card.ko", "base.ko", "later.ko", "net-stack.ko"]);
    assert_eq!(names(&made.initramfs), ["base.ko", "net-stack.ko"]);
    assert_eq!(text(&made.root, "/usr/share/kscratch/modules-load"), "later\n");
    assert_eq!(text(&made.initramfs, "/usr/share/kscratch/modules-load"), "net_stack\n");
    assert_eq!(text(&made.root, "modules.builtin"), "kernel/fs/ext4/ext4.ko\n");
    assert_eq!(made.root_firmware.keys().collect::<Vec<_>>(), ["card/one.fw", "card/two.fw"]);
    assert_eq!(made.root_firmware["card/two.fw"], "card");
    assert!(made.initramfs_firmware.is_empty(), "{:?}", made.initramfs_firmware);
    let origin = &made.root.nodes[&format!("/usr/lib/modules/{VERSION}/kernel/lib/base.ko")].origin;
    assert!(origin.declaration.starts_with("needed by module"), "{origin}");
}

/// Writes the modules out and lets depmod make its tables of them.
fn depmod(folder: &Path, store: &Store, tree: &Tree) -> BTreeMap<&'static str, String> {
    for (path, node) in &tree.nodes {
        let Kind::File(content) = &node.kind else { continue };
        let file = folder.join(path.trim_start_matches("/usr/"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        if path.ends_with(".ko") {
            std::fs::write(&file, crate::tree::Contents::read(store, content).unwrap()).unwrap();
        }
    }
    let version = tree.nodes.keys().find_map(|path| path.strip_prefix("/usr/lib/modules/")?.split('/').next()).unwrap();
    let ran = Command::new("depmod").arg("-b").arg(folder).arg(version).output();
    let ran = ran.expect("depmod is missing: install the package kmod (apt-get install kmod)");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let read = |name: &'static str| {
        (name, std::fs::read_to_string(folder.join("lib/modules").join(version).join(name)).unwrap())
    };
    ["modules.dep", "modules.alias", "modules.softdep"].map(read).into()
}

fn sorted_lines(text: &str) -> Vec<Vec<&str>> {
    let mut lines: Vec<Vec<&str>> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect()).collect();
    lines.sort();
    lines
}

#[track_caller]
fn assert_agrees(made: &BTreeMap<&str, String>, tree: &Tree) {
    for name in ["modules.alias", "modules.softdep"] {
        assert_eq!(sorted_lines(&text(tree, name)), sorted_lines(&made[name]), "{name}");
    }
    let (ours, theirs) = (text(tree, "modules.dep"), made["modules.dep"].clone());
    let sets = |text: &str| -> BTreeMap<String, BTreeSet<String>> {
        let split = |line: &str| {
            let (module, needs) = line.split_once(':').unwrap();
            (module.to_owned(), needs.split_whitespace().map(str::to_owned).collect())
        };
        text.lines().map(split).collect()
    };
    let needs = sets(&ours);
    assert_eq!(needs, sets(&theirs));
    // From right to left, nothing is loaded before what it needs itself.
    for line in ours.lines() {
        let mut loaded = BTreeSet::new();
        for module in line.split_once(':').unwrap().1.split_whitespace().rev() {
            assert!(needs[module].is_subset(&loaded), "{line}");
            loaded.insert(module.to_owned());
        }
    }
}

#[test]
fn depmod_makes_the_same_tables() {
    let (folder, made) = run(&["card", "other"], &["other"], &[]).unwrap();
    let store = Store::open(folder.path()).unwrap();
    let tables = depmod(&folder.path().join("root"), &store, &made.root);
    assert_agrees(&tables, &made.root);
    assert_eq!(sorted_lines(&tables["modules.dep"]).len(), 6);
}

#[track_caller]
fn check_error(modules: &[&str], want: &str) {
    let error = format!("{:#}", run(modules, &[], &[]).unwrap_err());
    assert!(error.contains(want), "{error}");
}

#[test]
fn what_cannot_be_had_is_named() {
    check_error(&["overlay"], "kernel 6.12.0-test has no module overlay, neither as a file nor built in");
    check_error(&["broken"], "reading module kernel/net/broken.ko.xz");
}
