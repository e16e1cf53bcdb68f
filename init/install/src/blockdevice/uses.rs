//! Turns mounts, swap areas and devices on top of a device into the list of who uses it.
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Kernel, read};

/// Somebody who uses a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Use {
    /// A filesystem that is mounted.
    Mounted {
        /// The device that holds it: the disk, a partition, or something on top of them.
        device: String,
        /// Where.
        at: String,
    },
    /// A swap area.
    Swap {
        /// The device that holds it.
        device: String,
    },
    /// A device that is made of it and that nothing is mounted from.
    Held {
        /// The device below.
        device: String,
        /// The one on top.
        by: String,
    },
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mounted { device, at } => write!(f, "{device} is mounted at {at}"),
            Use::Swap { device } => write!(f, "this machine swaps to {device}"),
            Use::Held { device, by } => write!(f, "{device} is a part of {by}"),
        }
    }
}

/// The folders of a system without which it does not run.
const SYSTEM: [&str; 7] = ["/", "/boot", "/boot/efi", "/efi", "/usr", "/var", "/home"];

impl Use {
    /// Whether the running system is on it.
    pub fn is_system(&self) -> bool {
        match self {
            Use::Mounted { at, .. } => SYSTEM.contains(&at.as_str()),
            Use::Swap { .. } => true,
            Use::Held { .. } => false,
        }
    }
}

/// A mount: device number, source, place.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    number: String,
    source: String,
    at: String,
}

/// Who uses the device whose folder in /sys this is, its partitions, and what is made of them.
///
/// # Errors
/// The kernel does not tell of mounts.
pub(super) fn of(folder: &Path, kernel: &Kernel) -> Result<Vec<Use>> {
    let file = kernel.proc.join("self/mountinfo");
    let mounts = mounts(&fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?);
    // Without swap in the kernel there is no such file.
    let swaps = swaps(&fs::read_to_string(kernel.proc.join("swaps")).unwrap_or_default());
    let mut uses = Vec::new();
    let mut open = vec![folder.to_owned()];
    let mut seen = Vec::new();
    while let Some(folder) = open.pop() {
        let Some(name) = folder.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        if seen.contains(&name) {
            continue;
        }
        let node = kernel.dev.join(&name);
        let number = read(&folder.join("dev")).unwrap_or_default();
        // Filesystems of several devices have a number of their own: their source tells, which may be a link of the device mapper's.
        let named = |source: &str| Path::new(source) == node || fs::canonicalize(source).is_ok_and(|path| path == node);
        let here = mounts.iter().filter(|mount| mount.number == number || named(&mount.source));
        uses.extend(here.map(|mount| Use::Mounted { device: name.clone(), at: mount.at.clone() }));
        if swaps.contains(&node) {
            uses.push(Use::Swap { device: name.clone() });
        }
        for holder in names(&folder.join("holders")) {
            uses.push(Use::Held { device: name.clone(), by: holder.clone() });
            open.extend(fs::canonicalize(kernel.sys.join("class/block").join(holder)));
        }
        let parts = names(&folder).into_iter().map(|part| folder.join(part));
        open.extend(parts.filter(|part| part.join("partition").exists()));
        seen.push(name);
    }
    uses.sort_by_key(ToString::to_string);
    uses.dedup();
    Ok(uses)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The fields of /proc/self/mountinfo that tell what is mounted where (proc_pid_mountinfo(5)).
fn mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let (number, at) = (fields.nth(2)?, fields.nth(1)?);
        // Optional fields end with a dash; the source is the second one behind it.
        let source = fields.skip_while(|field| *field != "-").nth(2)?;
        Some(Mount { number: number.to_owned(), source: unescaped(source), at: unescaped(at) })
    };
    text.lines().filter_map(mount).collect()
}

fn swaps(text: &str) -> Vec<PathBuf> {
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(|path| unescaped(path).into()).collect()
}

/// Blanks, tabs, line feeds and backslashes stand there as `\040` and so on.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let byte = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::Kernel;
    use super::{Mount, Use, mounts, of, swaps, unescaped};

    #[test]
    fn mounts_are_read_with_their_optional_fields() {
        let text = "29 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw\n\
                    61 29 0:43 /sub /mnt/a\\040b rw - btrfs /dev/sdb rw\n\
                    damaged\n";
        let mount = |number: &str, source: &str, at: &str| Mount {
            number: number.to_owned(),
            source: source.to_owned(),
            at: at.to_owned(),
        };
        assert_eq!(mounts(text), [mount("8:1", "/dev/sda1", "/"), mount("0:43", "/dev/sdb", "/mnt/a b")]);
    }

    /// btrfs has a device number of its own, and names what is below LVM or LUKS by a link.
    #[test]
    fn a_filesystem_is_found_through_what_it_is_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let kernel = Kernel { sys: root.join("sys"), proc: root.join("proc"), dev: root.join("dev") };
        let (disk, mapped) = (kernel.sys.join("block/sdb"), kernel.sys.join("class/block/dm-0"));
        fs::create_dir_all(disk.join("sdb1/holders/dm-0")).unwrap();
        fs::create_dir_all(&mapped).unwrap();
        for (folder, number) in [(&disk, "8:16"), (&disk.join("sdb1"), "8:17"), (&mapped, "253:0")] {
            fs::write(folder.join("dev"), number).unwrap();
        }
        fs::write(disk.join("sdb1/partition"), "1").unwrap();
        fs::create_dir_all(kernel.dev.join("mapper")).unwrap();
        fs::write(kernel.dev.join("dm-0"), "").unwrap();
        symlink("../dm-0", kernel.dev.join("mapper/luks-1")).unwrap();
        let source = kernel.dev.join("mapper/luks-1").display().to_string();
        fs::create_dir_all(kernel.proc.join("self")).unwrap();
        fs::write(kernel.proc.join("self/mountinfo"), format!("61 29 0:43 / / rw - btrfs {source} rw\n")).unwrap();
        let held = Use::Held { device: "sdb1".into(), by: "dm-0".into() };
        let mounted = Use::Mounted { device: "dm-0".into(), at: "/".into() };
        let mut uses = of(&disk, &kernel).unwrap();
        uses.sort_by_key(|one| one == &held);
        assert_eq!(uses, [mounted, held]);
    }

    #[test]
    fn swaps_are_read() {
        let text = "Filename\t\t\tType\t\tSize\tUsed\tPriority\n/dev/sda5  partition\t1\t0\t-2\n/swap\\040file file\t1\t0\t-3\n";
        assert_eq!(swaps(text), [std::path::PathBuf::from("/dev/sda5"), "/swap file".into()]);
        assert!(swaps("").is_empty());
    }

    #[test]
    fn escapes_end_where_they_end() {
        for (text, want) in
            [("a\\040b", "a b"), ("\\134", "\\"), ("\\04", "\\04"), ("\\", "\\"), ("\\999", "\\999"), ("ä", "ä")]
        {
            assert_eq!(unescaped(text), want, "{text}");
        }
    }
}
