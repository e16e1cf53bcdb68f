//! `Packages` indices of several suites become [`Packages`]: of every package the newest version, by name.
use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::{Context, Result, anyhow, bail};
use deb822_fast::{Deb822, Paragraph};

use super::version;
use crate::lock::Archive;
use crate::store::Digest;

/// The packages that can be had, by name.
#[derive(Debug, Clone, Default)]
pub struct Packages {
    by_name: BTreeMap<String, Package>,
}

/// One version of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Archive section without its area: `libs`, `admin`.
    pub section: String,
    /// `Pre-Depends` and `Depends`, as alternatives of names: versions are left to the archive, which is consistent.
    pub depends: Vec<Vec<String>>,
    /// Which archive has it.
    pub archive: Archive,
    /// Path below the archive's base URL.
    pub path: String,
    /// Length of the `.deb` in bytes.
    pub size: u64,
    /// Digest of the `.deb`.
    pub sha256: Digest,
}

impl Package {
    /// Whether it is a library, whose files come into an image only where a program needs them.
    pub fn is_library(&self) -> bool {
        self.section == "libs" || self.section == "oldlibs"
    }
}

impl Packages {
    /// Adds an index. Of two versions the newer one stays; of equals the first.
    pub fn add(&mut self, index: impl BufRead, archive: Archive) -> Result<()> {
        for stanza in Deb822::iter_paragraphs_from_reader(index) {
            let stanza = stanza.map_err(|error| anyhow!("{error}"))?;
            let package = package(&stanza, archive)?;
            match self.by_name.get(&package.name) {
                Some(known) if version::compare(&known.version, &package.version).is_ge() => {}
                _ => drop(self.by_name.insert(package.name.clone(), package)),
            }
        }
        Ok(())
    }

    /// A package by its name.
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.by_name.get(name)
    }

    /// How many packages there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// A name that was perhaps meant by one that does not exist.
    pub fn similar(&self, name: &str) -> Option<&str> {
        let from = self.by_name.range(name.to_owned()..).map(|(other, _)| other.as_str()).next()?;
        from.starts_with(name).then_some(from)
    }
}

fn package(stanza: &Paragraph, archive: Archive) -> Result<Package> {
    let name = stanza.get("Package").context("a stanza has no Package field")?.trim().to_owned();
    let field =
        |key: &str| stanza.get(key).map(str::trim).with_context(|| format!("the package {name} has no {key} field"));
    let path = field("Filename")?.to_owned();
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        bail!("the package {name} has the Filename `{path}`, which leads out of the archive");
    }
    let mut depends = Vec::new();
    for key in ["Pre-Depends", "Depends"] {
        depends.extend(stanza.get(key).map(relations).unwrap_or_default());
    }
    Ok(Package {
        version: field("Version")?.to_owned(),
        section: stanza
            .get("Section")
            .map(|section| section.trim().rsplit('/').next().unwrap_or_default().to_owned())
            .unwrap_or_default(),
        depends,
        archive,
        size: field("Size")?.parse().with_context(|| format!("reading the Size of the package {name}"))?,
        sha256: field("SHA256")?.parse().map_err(|error| anyhow!("the package {name}: {error}"))?,
        path,
        name,
    })
}

/// `a (>= 1) | b, c:any` as lists of alternative names (Debian Policy 7.1).
fn relations(field: &str) -> Vec<Vec<String>> {
    let name = |relation: &str| relation.split(['(', '[', '<', ':']).next().unwrap_or_default().trim().to_owned();
    field.split(',').map(|group| group.split('|').map(name).filter(|name| !name.is_empty()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Packages, relations};
    use crate::lock::Archive;
    use crate::store::Digest;
    use proptest::prelude::{any, proptest};

    fn stanza(name: &str, version: &str, depends: &str) -> String {
        format!(
            "Package: {name}\nVersion: {version}\nSection: contrib/libs\nDepends: {depends}\nFilename: pool/{name}_{version}.deb\nSize: 9\nSHA256: {}\n\n",
            Digest::of(b"x")
        )
    }

    #[test]
    fn the_newest_version_stays() {
        let mut packages = Packages::default();
        packages
            .add((stanza("b", "1.0-1", "") + &stanza("a", "2", "b (>= 1) | c, d:any,\n e")).as_bytes(), Archive::Main)
            .unwrap();
        packages.add((stanza("b", "1.0-1+deb13u1", "") + &stanza("a", "1", "")).as_bytes(), Archive::Security).unwrap();
        let b = packages.get("b").unwrap();
        assert_eq!((b.version.as_str(), b.archive, b.is_library()), ("1.0-1+deb13u1", Archive::Security, true));
        assert_eq!(packages.get("a").unwrap().depends, [vec!["b", "c"], vec!["d"], vec!["e"]]);
        assert_eq!(packages.similar("a"), Some("a"));
        assert_eq!(packages.similar("x"), None);
    }

    #[test]
    fn bad_stanzas_are_named() {
        let check = |text: &str, want: &str| {
            let error = format!("{:#}", Packages::default().add(text.as_bytes(), Archive::Main).unwrap_err());
            assert!(error.contains(want), "{error}");
        };
        let good = stanza("a", "1", "b");
        check(&good.replace("Size: 9", "Size: many"), "reading the Size of the package a");
        check(&good.replace("Version: 1\n", ""), "the package a has no Version field");
        check(&good.replace("pool/a", "pool/../../a"), "which leads out of the archive");
        check(&good.replace("SHA256: ", "SHA256: x"), "the package a: `x");
        check("Version: 1\n", "a stanza has no Package field");
        assert_eq!(relations(" , a |"), [vec![], vec!["a".to_owned()]]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), cut in 0..200_usize) {
            drop(Packages::default().add(bytes.as_slice(), Archive::Main));
            let good = stanza("a", "1", "b");
            let mut mixed = good.as_bytes()[..cut.min(good.len())].to_vec();
            mixed.extend(&bytes);
            drop(Packages::default().add(mixed.as_slice(), Archive::Main));
        }
    }
}
