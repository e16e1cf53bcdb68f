//! The `.modinfo` section of a kernel module becomes a [`Modinfo`]: what it needs and what it answers to.
use anyhow::{Context, Result};
use object::{Object, ObjectSection};
use serde::{Deserialize, Serialize};

/// What a module says of itself (Linux `include/linux/module.h`: `MODULE_INFO`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modinfo {
    /// Names of modules it cannot be loaded without.
    pub depends: Vec<String>,
    /// `softdep` lines, as written: `pre: a b post: c`.
    pub softdeps: Vec<String>,
    /// Patterns of devices, filesystems and the like that it answers to.
    pub aliases: Vec<String>,
    /// Firmware files that it may ask for: paths below `/lib/firmware`.
    pub firmware: Vec<String>,
}

impl Modinfo {
    /// Names of modules that should be loaded with it.
    pub fn soft(&self) -> impl Iterator<Item = &str> {
        let words = self.softdeps.iter().flat_map(|line| line.split_whitespace());
        words.filter(|word| !matches!(*word, "pre:" | "post:"))
    }
}

/// A module's name as the kernel has it: `-` and `_` are the same in file names (modprobe(8)).
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads the section out of an uncompressed `.ko` file.
///
/// # Errors
/// Bytes that are no ELF file, or one without `.modinfo`.
pub fn read(module: &[u8]) -> Result<Modinfo> {
    let file = object::File::parse(module).context("the module is no ELF file")?;
    let section = file.section_by_name(".modinfo").context("the module has no .modinfo section")?;
    let data = section.data().context("the module's .modinfo section is cut off")?;
    let mut info = Modinfo::default();
    for entry in data.split(|byte| *byte == 0) {
        let entry = String::from_utf8_lossy(entry);
        match entry.split_once('=') {
            Some(("depends", list)) => {
                info.depends.extend(list.split(',').filter(|name| !name.is_empty()).map(canonical))
            }
            Some(("softdep", line)) => info.softdeps.push(line.to_owned()),
            Some(("alias", pattern)) => info.aliases.push(pattern.to_owned()),
            Some(("firmware", path)) => info.firmware.push(path.to_owned()),
            _ => {}
        }
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>) {
            let _ = read(&bytes);
            bytes.splice(0..0, *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0");
            let _ = read(&bytes);
        }
    }
}
