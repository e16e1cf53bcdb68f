//! Turns kmod's text files of a kernel's modules into the order in which to load the files of a module or a hardware alias.
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use self::pattern::matches;

pub mod pattern;

/// What `modules.dep`, `modules.alias`, `modules.softdep` and `modules.builtin` say (formats: kmod's modules.dep(5), modprobe.d(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modules {
    /// By normalised name.
    modules: BTreeMap<String, Module>,
    /// By the part of the pattern before its first wildcard or `:`: hardware buses have thousands of patterns, each its own.
    aliases: BTreeMap<String, Vec<Alias>>,
    builtin: BTreeSet<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Module {
    /// Relative to the modules' folder.
    file: String,
    needs: Vec<String>,
    before: Vec<String>,
    after: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Alias {
    pattern: String,
    module: String,
}

/// What a name or alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Files to load, in this order.
    Files(Vec<Step>),
    /// It is part of the kernel.
    Builtin,
    /// No module of this kernel.
    Unknown,
}

/// A file to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Relative to the modules' folder.
    pub file: String,
    /// The others are loaded without it, too: it serves a soft dependency alone, such as the checksum of a processor's own.
    pub soft: bool,
}

impl Modules {
    /// Reads the texts of the four files.
    #[must_use]
    pub fn parse(dep: &str, alias: &str, softdep: &str, builtin: &str) -> Self {
        let mut all = Self::default();
        for line in lines(dep) {
            let Some((file, needs)) = line.split_once(':') else {
                continue;
            };
            let needs = needs.split_whitespace().map(name_of).collect();
            all.modules.insert(name_of(file), Module { file: file.trim().to_owned(), needs, ..Module::default() });
        }
        for line in lines(alias) {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) {
                let alias = Alias { pattern: normal(pattern), module: normal(module) };
                all.aliases.entry(bus(&alias.pattern)).or_default().push(alias);
            }
        }
        for line in lines(softdep) {
            all.softdep(line);
        }
        all.builtin = lines(builtin).map(name_of).collect();
        all
    }

    /// Reads the files of a kernel's modules' folder; one that is missing counts as empty but `modules.dep`.
    ///
    /// # Errors
    /// `modules.dep` cannot be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        Self::read_aliases(folder, |_| true)
    }

    /// [`Modules::read`] for one [`Modules::find`] of these names: a single `modprobe` does not take in the thousands of aliases of
    /// buses that it is not asked about.
    ///
    /// # Errors
    /// `modules.dep` cannot be read.
    pub fn read_for(folder: &Path, wanted: &[&str]) -> io::Result<Self> {
        let buses: Vec<String> = wanted.iter().map(|name| bus(&normal(name))).collect();
        Self::read_aliases(folder, |line| {
            let pattern = line.strip_prefix("alias ").unwrap_or(line);
            let end = pattern.find(['*', '?', '[', ':', ' ']).unwrap_or(pattern.len());
            // A pattern whose bus is not plain text may match anything.
            !pattern[end..].starts_with(':')
                || buses.iter().any(|bus| bus.len() == end && *bus == normal(&pattern[..end]))
        })
    }

    fn read_aliases(folder: &Path, keep: impl Fn(&str) -> bool) -> io::Result<Self> {
        let optional = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let dep = std::fs::read_to_string(folder.join("modules.dep"))?;
        let alias = optional("modules.alias");
        let alias: Vec<&str> = alias.lines().filter(|line| keep(line)).collect();
        Ok(Self::parse(&dep, &alias.join("\n"), &optional("modules.softdep"), &optional("modules.builtin")))
    }

    /// The folder of the running kernel's modules below `root`.
    #[must_use]
    pub fn folder(root: &Path) -> PathBuf {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        root.join("usr/lib/modules").join(release)
    }

    /// What to load for a module's name or an alias (`virtio:d00000002v00001AF4`, `fs-vfat`). An alias may name several modules.
    #[must_use]
    pub fn find(&self, wanted: &str) -> Found {
        let wanted = normal(wanted);
        if self.modules.contains_key(&wanted) {
            return self.files(&[wanted]);
        }
        if self.builtin.contains(&wanted) {
            return Found::Builtin;
        }
        let names = self.named(&wanted);
        if !names.is_empty() && names.iter().all(|name| self.builtin.contains(name)) {
            return Found::Builtin;
        }
        self.files(&names)
    }

    /// The modules that an alias stands for.
    fn named(&self, wanted: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        // A pattern without `:` and one that begins with a wildcard stand under the empty bus.
        for key in [bus(wanted), String::new()] {
            for alias in self.aliases.get(&key).into_iter().flatten() {
                if !names.contains(&alias.module) && matches(alias.pattern.as_bytes(), wanted.as_bytes()) {
                    names.push(alias.module.clone());
                }
            }
            if key.is_empty() {
                break;
            }
        }
        names
    }

    fn files(&self, names: &[String]) -> Found {
        let (mut steps, mut seen) = (Vec::new(), BTreeSet::new());
        for name in names {
            self.visit(name, false, &mut seen, &mut steps);
        }
        if steps.is_empty() { Found::Unknown } else { Found::Files(steps) }
    }

    /// Depth first; `seen` ends what a cycle of soft dependencies would not.
    fn visit(&self, name: &str, soft: bool, seen: &mut BTreeSet<String>, steps: &mut Vec<Step>) {
        let Some(module) = self.modules.get(name) else {
            return;
        };
        if !seen.insert(name.to_owned()) {
            return;
        }
        self.visit_soft(&module.before, seen, steps);
        for needed in &module.needs {
            self.visit(needed, soft, seen, steps);
        }
        steps.push(Step { file: module.file.clone(), soft });
        self.visit_soft(&module.after, seen, steps);
    }

    /// Soft dependencies are names or aliases: ext4 has `crypto-crc32c`, which several modules offer.
    fn visit_soft(&self, wanted: &[String], seen: &mut BTreeSet<String>, steps: &mut Vec<Step>) {
        for wanted in wanted {
            if self.modules.contains_key(wanted) {
                self.visit(wanted, true, seen, steps);
            } else {
                self.named(wanted).iter().for_each(|name| self.visit(name, true, seen, steps));
            }
        }
    }

    /// `softdep NAME pre: a b post: c`
    fn softdep(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(name)) = (words.next(), words.next()) else {
            return;
        };
        let Some(module) = self.modules.get_mut(&normal(name)) else {
            return;
        };
        let mut list = &mut Vec::new();
        for word in words {
            match word {
                "pre:" => list = &mut module.before,
                "post:" => list = &mut module.after,
                other => list.push(normal(other)),
            }
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `kernel/net/bridge/br-netfilter.ko` is the module `br_netfilter`.
fn name_of(file: &str) -> String {
    let name = file.trim().rsplit('/').next().unwrap_or_default();
    normal(name.split_once(".ko").map_or(name, |(name, _)| name))
}

/// kmod takes `-` and `_` for one, but inside brackets (`alias_normalize`).
fn normal(name: &str) -> String {
    let mut bracket = false;
    let change = |character: char| {
        match character {
            '[' => bracket = true,
            ']' => bracket = false,
            '-' if !bracket => return '_',
            _ => {}
        }
        character
    };
    name.chars().map(change).collect()
}

/// The bus of an alias, `pci` of `pci:v00001AF4…`; empty where there is none before a wildcard.
fn bus(alias: &str) -> String {
    let end = alias.find(['*', '?', '[', ':']);
    match end {
        Some(end) if alias[end..].starts_with(':') => alias[..end].to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::{Found, Modules, Step};

    const DEP: &str = "\
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_modern_dev.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci_modern_dev.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/net/bridge/br_netfilter.ko: kernel/net/bridge/bridge.ko
kernel/net/bridge/bridge.ko:
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/crypto/crc32c_generic.ko:
kernel/a.ko:
kernel/b.ko:
kernel/fs/f2fs.ko: kernel/b.ko
kernel/arch/x86/crypto/crc32c-intel.ko:
";
    const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias virtio:d00000002v* virtio_blk
alias fs-ext4 ext4
alias netdev-[a-c]* a
alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* b
alias acpi*:QEMU0002:* a
alias cpu:type:x86* a
alias cpu:type:x86* b
alias crypto-crc32c builtin_thing
alias crypto-crc32 crc32c_intel
alias crypto-crc32 crc32c_generic
";
    const SOFTDEP: &str = "softdep ext4 pre: crc32c-generic post: a\nsoftdep a pre: ext4\nsoftdep f2fs pre: crypto-crc32 crypto-crc32c nothing\n";
    const BUILTIN: &str = "kernel/drivers/nvme/host/nvme.ko\nkernel/lib/builtin_thing.ko\n";

    fn modules() -> Modules {
        Modules::parse(DEP, ALIAS, SOFTDEP, BUILTIN)
    }

    #[track_caller]
    fn check(wanted: &str, want: &[&str]) {
        // One that is soft has a question mark.
        let names = |step: &Step| {
            let name = step.file.rsplit('/').next().unwrap_or_default();
            format!("{name}{}", if step.soft { "?" } else { "" })
        };
        match modules().find(wanted) {
            Found::Files(steps) => assert_eq!(steps.iter().map(names).collect::<Vec<_>>(), want, "{wanted}"),
            other => panic!("{wanted}: {other:?}"),
        }
    }

    #[test]
    fn dependencies_come_first_and_once() {
        check("virtio_pci", &["virtio_pci_modern_dev.ko", "virtio.ko", "virtio_ring.ko", "virtio_pci.ko"]);
        check("br-netfilter", &["bridge.ko", "br_netfilter.ko"]);
    }

    #[test]
    fn hardware_aliases_are_patterns() {
        check(
            "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00",
            &["virtio_pci_modern_dev.ko", "virtio.ko", "virtio_ring.ko", "virtio_pci.ko"],
        );
        check("usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00", &["b.ko"]);
        check("netdev-bx", &["crc32c_generic.ko?", "jbd2.ko?", "ext4.ko?", "a.ko"]);
    }

    #[test]
    fn an_alias_of_several_modules_loads_them_all_and_a_wildcard_may_stand_before_the_bus_ends() {
        check("cpu:type:x86,ven0000", &["crc32c_generic.ko?", "jbd2.ko?", "ext4.ko?", "a.ko", "b.ko"]);
        check("acpi:QEMU0002:", &["crc32c_generic.ko?", "jbd2.ko?", "ext4.ko?", "a.ko"]);
    }

    #[test]
    fn soft_dependencies_stand_around_and_a_cycle_ends() {
        check("fs-ext4", &["crc32c_generic.ko?", "jbd2.ko", "ext4.ko", "a.ko?"]);
    }

    #[test]
    fn a_soft_dependency_may_be_an_alias_of_several_modules_of_one_that_is_built_in_or_of_none() {
        check("f2fs", &["crc32c-intel.ko?", "crc32c_generic.ko?", "b.ko", "f2fs.ko"]);
    }

    #[test]
    fn what_is_built_in_needs_no_file_and_what_is_unknown_is_told() {
        assert_eq!(modules().find("nvme"), Found::Builtin);
        assert_eq!(modules().find("crypto-crc32c"), Found::Builtin);
        assert_eq!(modules().find("virtio:d00000002v00001AF4"), Found::Unknown);
        assert_eq!(modules().find("nothing"), Found::Unknown);
    }

    #[test]
    fn reading_for_one_name_finds_what_reading_all_finds() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("dep", DEP), ("alias", ALIAS), ("softdep", SOFTDEP), ("builtin", BUILTIN)] {
            std::fs::write(folder.path().join(format!("modules.{name}")), text).unwrap();
        }
        let all = Modules::read(folder.path()).unwrap();
        assert_eq!(all, modules());
        for wanted in [
            "pci:v00001AF4d1",
            "virtio:d00000002v1",
            "fs-ext4",
            "netdev-b",
            "acpi:QEMU0002:",
            "cpu:type:x86,v",
            "nvme",
            "no:thing",
        ] {
            let one = Modules::read_for(folder.path(), &[wanted]).unwrap();
            assert_eq!(one.find(wanted), all.find(wanted), "{wanted}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parsers(dep in "(?s).{0,200}", alias in "(alias [a-z*?:\\[\\]!-]{0,9} [a-z-]{1,3}\n){0,9}", wanted in "[a-z:]{0,9}") {
            let _ = Modules::parse(&dep, &alias, &dep, &dep).find(&wanted);
        }
    }
}
