//! The firmware files that drivers name become a [`Tree`] of those files, out of the packages that have them.
//!
//! The kernel looks below `/lib/firmware` for the name, and for `.zst` and `.xz` behind it (Linux `Documentation/driver-api/firmware`).
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use globset::GlobBuilder;

use crate::reach::Package;
use crate::tree::{Content, Node, Origin, Tree, link_target, usr_merged};
use crate::unpack::{Entry, EntryKind};

const FOLDER: &str = "/usr/lib/firmware/";
const SUFFIXES: [&str; 3] = ["", ".zst", ".xz"];

/// Takes what `wanted` names (a file or a glob, and the driver that asks for it) out of the packages `from`, the first of which wins. A
/// name that none of them has is passed over: drivers name files of every revision of their chips, and most do without.
///
/// # Errors
/// A package that was not fetched, a link that leads out of its package.
pub fn tree(wanted: &BTreeMap<String, String>, from: &[String], packages: &[Package<'_>]) -> Result<Tree> {
    let mut holders: Vec<(&Package<'_>, BTreeMap<String, &Entry>)> = Vec::new();
    for name in from {
        let package = packages.iter().find(|package| package.name == name);
        let package = package.with_context(|| format!("the firmware package {name} was not fetched"))?;
        let files = package.unpacked.entries.iter().map(|(path, entry)| (usr_merged(path), entry));
        holders.push((package, files.filter(|(path, _)| path.starts_with(FOLDER)).collect()));
    }
    let mut tree = Tree::default();
    for (name, module) in wanted {
        let held = holders.iter().find_map(|(package, files)| {
            let paths = matching(name, files);
            (!paths.is_empty()).then_some((package, files, paths))
        });
        let Some((package, files, paths)) = held else { continue };
        let origin = Origin { declaration: format!("firmware of module {module}"), artifact: package.artifact() };
        for path in paths {
            take(&path, files, &origin, &mut tree)
                .with_context(|| format!("taking firmware {path} of {}", package.name))?;
        }
    }
    Ok(tree)
}

/// The paths that a driver's name stands for.
fn matching(name: &str, files: &BTreeMap<String, &Entry>) -> Vec<String> {
    let one = |name: &str| {
        let found = SUFFIXES.iter().map(|suffix| format!("{FOLDER}{name}{suffix}"));
        found.into_iter().find(|path| files.contains_key(path))
    };
    if !name.contains(['*', '?', '[']) {
        return one(name).into_iter().collect();
    }
    // A driver's odd glob is no reason to build nothing.
    let Ok(glob) = GlobBuilder::new(&format!("{FOLDER}{name}")).literal_separator(true).build() else {
        return Vec::new();
    };
    let glob = glob.compile_matcher();
    let plain = |path: &str| SUFFIXES.iter().rev().find_map(|suffix| path.strip_suffix(suffix)).map(str::to_owned);
    files.keys().filter(|path| plain(path).is_some_and(|plain| glob.is_match(plain))).cloned().collect()
}

/// Takes a file, and every link on the way to it.
fn take(path: &str, files: &BTreeMap<String, &Entry>, origin: &Origin, tree: &mut Tree) -> Result<()> {
    let mut at = path.to_owned();
    // As many as the kernel follows (path_resolution(7), ELOOP).
    for _ in 0..40 {
        ensure!(at.starts_with(FOLDER), "it leads to {at}, which is no firmware");
        match files.get(&at).map(|entry| &entry.kind) {
            Some(EntryKind::File(range)) => {
                tree.insert(&at, Node::file(Content::Stored(range.clone()), 0o644, origin.clone()))?;
                return Ok(());
            }
            Some(EntryKind::Symlink(target)) => {
                tree.insert(&at, Node::symlink(target.clone(), origin.clone()))?;
                at = link_target(&at, target);
            }
            _ => bail!("it leads to {at}, which the package does not hold"),
        }
    }
    bail!("its links go in a circle")
}

#[cfg(test)]
mod tests {
    use super::tree;
    use crate::reach::Package;
    use crate::store::{Digest, Store};
    use crate::unpack::{Entry, EntryKind, Unpacked};

    fn unpacked(store: &Store, files: &[(&str, Option<&str>)]) -> Unpacked {
        let entry = |(path, link): &(&str, Option<&str>)| {
            let kind = match link {
                Some(target) => EntryKind::Symlink((*target).to_owned()),
                None => EntryKind::File(store.whole(&store.add_bytes(path.as_bytes()).unwrap()).unwrap()),
            };
            ((*path).to_owned(), Entry { kind, mode: 0o600, uid: 7, gid: 7, xattrs: Default::default() })
        };
        Unpacked { artifact: Digest([1; 32]), entries: files.iter().map(entry).collect() }
    }

    #[track_caller]
    fn check(wanted: &[&str], want: Result<&[&str], &str>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let first = unpacked(
            &store,
            &[
                ("/lib/firmware/rtl_nic/a.fw", None),
                ("/usr/lib/firmware/rtl_nic/b.fw.zst", None),
                ("/usr/lib/firmware/ddp/ice.pkg", Some("ice-1.3.pkg")),
                ("/usr/lib/firmware/ddp/ice-1.3.pkg", None),
                ("/usr/lib/firmware/out", Some("/etc/passwd")),
                ("/usr/lib/firmware/loop", Some("loop")),
                ("/usr/lib/firmware/gone", Some("nothing")),
                ("/usr/share/doc/rtl_nic/a.fw", None),
            ],
        );
        let second =
            unpacked(&store, &[("/usr/lib/firmware/tigon/tg3.bin", None), ("/usr/lib/firmware/rtl_nic/a.fw", None)]);
        let package = |name, unpacked| Package { name, version: "1", unpacked };
        let packages = [package("one", &first), package("two", &second)];
        let wanted = wanted.iter().map(|name| ((*name).to_owned(), "card".to_owned())).collect();
        let got = tree(&wanted, &["one".into(), "two".into()], &packages).map_err(|error| format!("{error:#}"));
        match want {
            Ok(paths) => {
                let tree = got.unwrap();
                assert_eq!(
                    tree.nodes.keys().map(|path| path.strip_prefix("/usr/lib/firmware/").unwrap()).collect::<Vec<_>>(),
                    paths
                );
                assert!(
                    tree.nodes
                        .values()
                        .all(|node| node.uid == 0 && node.origin.declaration == "firmware of module card")
                );
                let shared = tree.nodes.get("/usr/lib/firmware/rtl_nic/a.fw");
                assert!(shared.is_none_or(|node| node.origin.artifact == "one 1 (debian)"), "the first package wins");
            }
            Err(part) => assert!(got.as_ref().is_err_and(|error| error.contains(part)), "{got:?}"),
        }
    }

    #[test]
    fn what_drivers_name_is_taken_and_nothing_else() {
        check(&["rtl_nic/a.fw", "rtl_nic/b.fw", "rtl_nic/none.fw"], Ok(&["rtl_nic/a.fw", "rtl_nic/b.fw.zst"]));
        check(&["tigon/tg3.bin", "ddp/ice.pkg"], Ok(&["ddp/ice-1.3.pkg", "ddp/ice.pkg", "tigon/tg3.bin"]));
        check(&["ddp/ice-*.pkg", "[odd"], Ok(&["ddp/ice-1.3.pkg"]));
    }

    #[test]
    fn links_stay_within_their_package() {
        check(
            &["out"],
            Err("taking firmware /usr/lib/firmware/out of one: it leads to /etc/passwd, which is no firmware"),
        );
        check(&["loop"], Err("its links go in a circle"));
        check(&["gone"], Err("it leads to /usr/lib/firmware/nothing, which the package does not hold"));
    }
}
