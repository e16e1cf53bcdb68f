//! Packages with microcode become the uncompressed archive in which the kernel looks for it before it does anything else.
//!
//! Linux `Documentation/arch/x86/microcode.rst`, "Early load microcode": the archive stands before the initramfs proper, and has one file
//! for each maker of processors, with all that there is for them back to back.
use anyhow::{Context, Result, ensure};
use kscratch_formats::cpio::{self, Member, MemberKind};

use crate::reach::Package;
use crate::store::Store;
use crate::tree::usr_merged;
use crate::unpack::EntryKind;

/// Where updates are aligned to: processors take them from multiples of 16 bytes alone (Intel SDM volume 3, 10.11.6), and the kernel
/// hands them over where they stand.
const ALIGNMENT: usize = 16;

/// A maker of processors.
struct Maker {
    /// The file's name in the archive: what the processors call their maker.
    file: &'static str,
    /// Where packages have theirs.
    folder: &'static str,
    /// Whether a file of that folder is microcode, by its name.
    is_update: fn(&str) -> bool,
    /// How microcode begins.
    magic: &'static [u8],
}

const MAKERS: [Maker; 2] = [
    // In the order of their names, as in the archive.
    Maker {
        file: "AuthenticAMD.bin",
        folder: "/usr/lib/firmware/amd-ucode/",
        is_update: |name| name.starts_with("microcode_amd") && name.ends_with(".bin"),
        magic: b"DMA\0", // UCODE_MAGIC
    },
    Maker {
        file: "GenuineIntel.bin",
        folder: "/usr/lib/firmware/intel-ucode/",
        is_update: is_of_intel,
        magic: &[1, 0, 0, 0], // header version
    },
];

/// Family, model and stepping: `06-8f-07`. What Debian keeps from being loaded later than this has `.initramfs` behind it.
fn is_of_intel(name: &str) -> bool {
    let signature = name.strip_suffix(".initramfs").unwrap_or(name);
    signature.len() == 8 && signature.split('-').all(|part| part.len() == 2)
}

/// The archive of what the packages `from` hold; nothing where they are none. `time` is in seconds since 1970.
///
/// # Errors
/// A package that was not fetched or holds no microcode, a file that is none.
pub fn archive(from: &[String], packages: &[Package<'_>], store: &Store, time: i64) -> Result<Vec<u8>> {
    let mut updates: [Vec<u8>; MAKERS.len()] = Default::default();
    for name in from {
        let package = packages.iter().find(|package| package.name == name);
        let package = package.with_context(|| format!("the microcode package {name} was not fetched"))?;
        let before: usize = updates.iter().map(Vec::len).sum();
        // In the order of their names: the bytes follow from the package alone.
        for (path, entry) in &package.unpacked.entries {
            let path = usr_merged(path);
            for (maker, updates) in MAKERS.iter().zip(&mut updates) {
                let EntryKind::File(range) = &entry.kind else { continue };
                if !path.strip_prefix(maker.folder).is_some_and(maker.is_update) {
                    continue;
                }
                let bytes = store.read(range).with_context(|| format!("reading {path} of {name}"))?;
                ensure!(bytes.starts_with(maker.magic), "{path} of {name} does not begin as microcode does");
                updates.extend(bytes);
            }
        }
        let after: usize = updates.iter().map(Vec::len).sum();
        ensure!(after > before, "the package {name} holds no microcode");
    }
    if updates.iter().all(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let folders = ["kernel", "kernel/x86", "kernel/x86/microcode"];
    let paths: Vec<String> = MAKERS.iter().map(|maker| format!("kernel/x86/microcode/{}", maker.file)).collect();
    let files = paths.iter().zip(&updates).filter(|(_, bytes)| !bytes.is_empty());
    let folders = folders.map(|path| Member { path, kind: MemberKind::Directory, mode: 0o755 });
    let files = files.map(|(path, bytes)| Member { path, kind: MemberKind::File(bytes), mode: 0o644 });
    let members: Vec<Member<'_>> = folders.into_iter().chain(files).collect();
    let time = u32::try_from(time).context("stamping the microcode with its time")?;
    cpio::aligned(&members, time, ALIGNMENT).context("packing the microcode")
}

#[cfg(test)]
mod tests {
    use super::archive;
    use crate::reach::Package;
    use crate::store::{Digest, Store};
    use crate::unpack::{Entry, EntryKind, Unpacked};
    use kscratch_formats::cpio;

    const INTEL: [u8; 48] = {
        let mut update = [7; 48];
        update[0] = 1;
        update[1] = 0;
        update[2] = 0;
        update[3] = 0;
        update
    };

    fn made(files: &[(&str, &[u8])]) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let entry = |(path, bytes): &(&str, &[u8])| {
            let kind = EntryKind::File(store.whole(&store.add_bytes(bytes).unwrap()).unwrap());
            ((*path).to_owned(), Entry { kind, mode: 0o644, uid: 0, gid: 0, xattrs: Default::default() })
        };
        let unpacked = Unpacked { artifact: Digest([1; 32]), entries: files.iter().map(entry).collect() };
        let packages = [Package { name: "ucode", version: "1", unpacked: &unpacked }];
        archive(&["ucode".into()], &packages, &store, 1).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn updates_stand_back_to_back_where_processors_take_them() {
        let amd = b"DMA\0amd!".as_slice();
        let bytes = made(&[
            ("/usr/lib/firmware/intel-ucode/06-8f-08", &INTEL),
            ("/lib/firmware/intel-ucode/06-8f-07", &INTEL),
            ("/usr/lib/firmware/intel-ucode/06-4f-01.initramfs", &INTEL),
            ("/usr/lib/firmware/intel-ucode/README", b"no update"),
            ("/usr/lib/firmware/amd-ucode/microcode_amd.bin", amd),
            ("/usr/lib/firmware/amd-ucode/microcode_amd.bin.asc", b"no update"),
        ])
        .unwrap();
        let (members, len) = cpio::read(&bytes).unwrap();
        assert!(len <= bytes.len() && bytes[len..].iter().all(|byte| *byte == 0) && bytes.len().is_multiple_of(16));
        let files: Vec<_> = members.iter().filter(|member| !member.data.is_empty()).collect();
        assert_eq!(files[0].path, "kernel/x86/microcode/AuthenticAMD.bin");
        assert_eq!(bytes[files[0].data.clone()], *amd);
        assert_eq!(files[1].path, "kernel/x86/microcode/GenuineIntel.bin");
        assert_eq!(bytes[files[1].data.clone()], [INTEL, INTEL, INTEL].concat());
        assert!(files.iter().all(|file| file.data.start % 16 == 0), "{files:?}");
    }

    #[test]
    fn what_is_no_microcode_is_refused() {
        let error = made(&[("/usr/lib/firmware/intel-ucode/06-8f-08", b"<html>")]).unwrap_err();
        assert_eq!(error, "/usr/lib/firmware/intel-ucode/06-8f-08 of ucode does not begin as microcode does");
        let error = made(&[("/usr/share/doc/x", b"")]).unwrap_err();
        assert_eq!(error, "the package ucode holds no microcode");
    }
}
