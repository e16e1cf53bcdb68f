//! A kernel package and lists of declared modules become [`KernelModules`]: plain `.ko` files with their tables, for the root and the initramfs.
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context, Result, anyhow, bail, ensure};
use globset::GlobBuilder;
use rayon::prelude::{IntoParallelIterator, ParallelIterator};
use serde::{Deserialize, Serialize};

use crate::derived;
use crate::reach::Package;
use crate::spec::Kernel;
use crate::store::{Digest, Store, Stored};
use crate::tree::{Content, Node, Origin, Tree, usr_merged};
use crate::unpack::EntryKind;

mod modinfo;
mod tables;

use modinfo::{Modinfo, canonical};

/// The kernel's modules as the image has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelModules {
    /// The kernel's version: the name of its folder below `/usr/lib/modules`.
    pub version: String,
    /// Modules, tables and `modules-load` of the root.
    pub root: Tree,
    /// Modules, tables and `modules-load` of the initramfs.
    pub initramfs: Tree,
    /// Firmware that modules of the root may ask for, and one of these modules.
    pub root_firmware: BTreeMap<String, String>,
    /// Firmware that modules of the initramfs may ask for, and one of these modules.
    pub initramfs_firmware: BTreeMap<String, String>,
}

/// A module, uncompressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Module {
    /// Path below the version's folder, without the compression's suffix: `kernel/fs/overlayfs/overlay.ko`.
    path: String,
    /// Place in the kernel's `modules.order`.
    order: usize,
    offset: u64,
    len: u64,
    sha256: Digest,
    info: Modinfo,
}

/// Modules with what they need, and the file of the store that holds their bytes back to back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Plain {
    data: Digest,
    modules: BTreeMap<String, Module>,
}

impl Plain {
    /// A set of modules and all that it needs, with the reason why each is there.
    fn with_needs(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
        let mut reasons: BTreeMap<String, String> =
            names.iter().map(|name| (name.clone(), format!("module {name}"))).collect();
        let mut next: Vec<String> = names.iter().cloned().collect();
        while let Some(name) = next.pop() {
            let module = self.modules.get(&name).ok_or_else(|| anyhow!("module {name} was not read"))?;
            let soft = module.info.soft().map(|soft| canonical(soft.strip_prefix("crypto-").unwrap_or(soft)));
            for needed in
                module.info.depends.iter().cloned().chain(soft).filter(|needed| self.modules.contains_key(needed))
            {
                if !reasons.contains_key(&needed) {
                    reasons.insert(needed.clone(), format!("needed by module {name}"));
                    next.push(needed);
                }
            }
        }
        Ok(reasons)
    }

    /// The firmware that modules name.
    fn firmware(&self, modules: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let of = |name: &String| self.modules.get(name).map(|module| (name.clone(), module.info.firmware.clone()));
        let named = modules.keys().filter_map(of);
        named.flat_map(|(name, files)| files.into_iter().map(move |file| (file, name.clone()))).collect()
    }
}

/// A module as the package holds it.
struct Packed<'a> {
    path: String,
    order: usize,
    range: &'a Stored,
}

/// What the kernel package holds, by canonical name.
struct Kernels<'a> {
    version: String,
    modules: BTreeMap<String, Packed<'a>>,
    /// Paths of what is compiled in: `modules.builtin`.
    builtin: BTreeSet<String>,
    builtin_text: Vec<u8>,
}

/// Takes the modules that `spec` declares out of the one kernel package among `packages`, with all that they need.
///
/// # Errors
/// No kernel package or several, a declared name that the kernel has neither as a module nor built in, a module that cannot be read.
pub fn kernel(spec: &Kernel, packages: &[Package<'_>], store: &Store) -> Result<KernelModules> {
    let (package, version) = package(packages)?;
    let all = Kernels::read(package, version, store)
        .with_context(|| format!("reading the modules of {}", package.artifact()))?;
    let root_names = all.choose(spec.modules.iter().chain(&spec.load))?;
    let early_names = all.choose(&spec.initramfs)?;
    let wanted: BTreeSet<String> = root_names.union(&early_names).cloned().collect();
    let plain = all.plain(package, &wanted, store)?;
    let early_load: Vec<String> = spec
        .initramfs
        .iter()
        .map(|name| canonical(name))
        // What stands for a device is loaded when the device shows up; the rest is loaded by name.
        .filter(|name| {
            plain.modules.get(name).is_some_and(|module| !module.info.aliases.iter().any(|alias| alias.contains(':')))
        })
        .collect();
    let load: Vec<String> =
        spec.load.iter().map(|name| canonical(name)).filter(|name| plain.modules.contains_key(name)).collect();
    let (root, initramfs) = (plain.with_needs(&root_names)?, plain.with_needs(&early_names)?);
    Ok(KernelModules {
        root_firmware: plain.firmware(&root),
        initramfs_firmware: plain.firmware(&initramfs),
        root: all.tree(package, &plain, root, &load)?,
        initramfs: all.tree(package, &plain, initramfs, &early_load)?,
        version: all.version,
    })
}

/// The package that holds a kernel's modules, and the kernel's version.
///
/// # Errors
/// None, or more than one.
pub fn package<'a, 'b>(packages: &'b [Package<'a>]) -> Result<(&'b Package<'a>, String)> {
    let mut found: Option<(&Package<'_>, String)> = None;
    for package in packages {
        let mut versions: BTreeSet<&str> = BTreeSet::new();
        for path in package.unpacked.entries.keys() {
            let below = path.strip_prefix("/usr/lib/modules/").or_else(|| path.strip_prefix("/lib/modules/"));
            versions.extend(below.and_then(|below| below.split_once("/kernel/")).map(|(version, _)| version));
        }
        for version in versions {
            if let Some((other, _)) = &found {
                bail!(
                    "{} and {} both hold kernel modules, and an image has one kernel",
                    other.artifact(),
                    package.artifact()
                );
            }
            found = Some((package, version.to_owned()));
        }
    }
    found.context("none of the fetched packages holds kernel modules")
}

impl<'a> Kernels<'a> {
    fn read(package: &Package<'a>, version: String, store: &Store) -> Result<Kernels<'a>> {
        let base = format!("/usr/lib/modules/{version}/");
        let mut files: BTreeMap<String, &Stored> = BTreeMap::new();
        for (path, entry) in &package.unpacked.entries {
            if let (EntryKind::File(range), Some(below)) = (&entry.kind, usr_merged(path).strip_prefix(&base)) {
                files.insert(below.to_owned(), range);
            }
        }
        let text = |name: &str| files.get(name).map_or(Ok(Vec::new()), |range| store.read(range));
        let order_text = text("modules.order")?;
        let order: BTreeMap<&str, usize> =
            std::str::from_utf8(&order_text)?.lines().enumerate().map(|(at, line)| (line, at)).collect();
        let builtin_text = text("modules.builtin")?;
        let builtin = std::str::from_utf8(&builtin_text)?.lines().map(str::to_owned).collect();
        let mut modules = BTreeMap::new();
        for (path, range) in files {
            let Some(plain) = ["", ".xz", ".zst", ".gz"]
                .iter()
                .find_map(|suffix| path.strip_suffix(suffix).filter(|plain| plain.ends_with(".ko")))
            else {
                continue;
            };
            let order = order.get(plain).copied().unwrap_or(usize::MAX);
            modules.insert(module_name(plain), Packed { order, range, path });
        }
        Ok(Kernels { version, modules, builtin, builtin_text })
    }

    /// The names of modules that a list of names and globs stands for; what is built in needs none.
    fn choose<'s>(&self, list: impl IntoIterator<Item = &'s String>) -> Result<BTreeSet<String>> {
        let builtin: BTreeSet<String> = self.builtin.iter().map(|path| module_name(path)).collect();
        let mut chosen = BTreeSet::new();
        for wanted in list {
            if wanted.contains('/') {
                let glob = GlobBuilder::new(wanted)
                    .literal_separator(true)
                    .build()
                    .with_context(|| format!("reading the glob {wanted}"))?
                    .compile_matcher();
                let fits = |packed: &Packed<'_>| {
                    let below = packed.path.strip_prefix("kernel/").unwrap_or(&packed.path);
                    glob.is_match(below.split_once(".ko").map_or(below, |(stem, _)| stem))
                };
                chosen.extend(self.modules.iter().filter(|(_, packed)| fits(packed)).map(|(name, _)| name.clone()));
                continue;
            }
            let name = canonical(wanted);
            ensure!(
                self.modules.contains_key(&name) || builtin.contains(&name),
                "kernel {} has no module {wanted}, neither as a file nor built in",
                self.version
            );
            chosen.extend(self.modules.contains_key(&name).then_some(name));
        }
        Ok(chosen)
    }

    /// Decompresses the wanted modules and all that they need, once for a package and a list.
    fn plain(&self, package: &Package<'_>, wanted: &BTreeSet<String>, store: &Store) -> Result<Plain> {
        let parts =
            [package.unpacked.artifact.0.as_slice()].into_iter().chain(wanted.iter().map(|name| name.as_bytes()));
        let key = derived::key("kernel modules 2", parts);
        if let Some(plain) = derived::get::<Plain>(store, &key).filter(|plain| store.has(&plain.data)) {
            return Ok(plain);
        }
        let mut modules: BTreeMap<String, (Vec<u8>, Module)> = BTreeMap::new();
        let mut next: Vec<String> = wanted.iter().cloned().collect();
        while !next.is_empty() {
            let read: Vec<(String, (Vec<u8>, Module))> = next
                .into_par_iter()
                .map(|name| Ok((name.clone(), self.unpack(&name, store)?)))
                .collect::<Result<_>>()?;
            let mut needed = BTreeSet::new();
            for (name, (bytes, module)) in read {
                for depends in &module.info.depends {
                    ensure!(
                        self.modules.contains_key(depends),
                        "module {name} needs {depends}, which the package does not hold"
                    );
                    needed.insert(depends.clone());
                }
                // Soft dependencies may be aliases; crypto's are its modules' names behind `crypto-` (Linux include/linux/crypto.h).
                let soft = module.info.soft().map(|soft| canonical(soft.strip_prefix("crypto-").unwrap_or(soft)));
                needed.extend(soft.filter(|soft| self.modules.contains_key(soft)));
                modules.insert(name, (bytes, module));
            }
            next = needed.into_iter().filter(|name| !modules.contains_key(name)).collect();
        }
        let mut data = Vec::new();
        let mut placed = BTreeMap::new();
        for (name, (bytes, mut module)) in modules {
            module.offset = data.len() as u64;
            data.extend(bytes);
            placed.insert(name, module);
        }
        let plain = Plain { data: store.add_bytes(&data)?, modules: placed };
        derived::put(store, &key, &plain)?;
        Ok(plain)
    }

    fn unpack(&self, name: &str, store: &Store) -> Result<(Vec<u8>, Module)> {
        let packed = self.modules.get(name).with_context(|| format!("looking up module {name}"))?;
        let unpack = || -> Result<(Vec<u8>, Modinfo)> {
            let bytes = decompress(&packed.path, store.read(packed.range)?)?;
            let info = modinfo::read(&bytes)?;
            Ok((bytes, info))
        };
        let (bytes, info) = unpack().with_context(|| format!("reading module {}", packed.path))?;
        let path = packed.path.split_once(".ko").map_or_else(|| packed.path.clone(), |(stem, _)| format!("{stem}.ko"));
        let module =
            Module { path, order: packed.order, offset: 0, len: bytes.len() as u64, sha256: Digest::of(&bytes), info };
        Ok((bytes, module))
    }

    /// The files of modules, with the reason why each is there.
    fn tree(
        &self,
        package: &Package<'_>,
        plain: &Plain,
        reasons: BTreeMap<String, String>,
        load: &[String],
    ) -> Result<Tree> {
        let modules: BTreeMap<String, Module> =
            reasons.keys().filter_map(|name| Some((name.clone(), plain.modules.get(name)?.clone()))).collect();
        let base = format!("/usr/lib/modules/{}", self.version);
        let mut tree = Tree::default();
        for (name, module) in &modules {
            let range = Stored {
                file: format!("sha256/{}", plain.data),
                offset: module.offset,
                len: module.len,
                sha256: module.sha256,
            };
            let origin = Origin { declaration: reasons[name].clone(), artifact: package.artifact() };
            tree.insert(&format!("{base}/{}", module.path), Node::file(Content::Stored(range), 0o644, origin))?;
        }
        let made = Origin { declaration: "table of the kernel modules".into(), artifact: "kscratch-image".into() };
        let mut put = |path: String, text: Vec<u8>| tree.insert(&path, Node::file(text, 0o644, made.clone()));
        put(format!("{base}/modules.dep"), tables::dep(&modules).into())?;
        put(format!("{base}/modules.alias"), tables::alias(&modules).into())?;
        put(format!("{base}/modules.softdep"), tables::softdep(&modules).into())?;
        put(format!("{base}/modules.builtin"), self.builtin_text.clone())?;
        put(
            "/usr/share/kscratch/modules-load".into(),
            load.iter().map(|name| format!("{name}\n")).collect::<String>().into(),
        )?;
        Ok(tree)
    }
}

/// `kernel/fs/overlayfs/overlay.ko` is `overlay`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split_once(".ko").map_or(file, |(stem, _)| stem))
}

fn decompress(path: &str, packed: Vec<u8>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match path.rsplit('.').next() {
        Some("xz") => liblzma::read::XzDecoder::new(packed.as_slice()).read_to_end(&mut bytes)?,
        Some("zst") => zstd::Decoder::new(packed.as_slice())?.read_to_end(&mut bytes)?,
        Some("gz") => flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes)?,
        _ => return Ok(packed),
    };
    Ok(bytes)
}

#[cfg(test)]
mod tests;
