//! A cri-dockerd of this machine, as a program, in a folder or in the archive that its project publishes, becomes a program in the store.
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::tarball::{Contents, hash, known};
use crate::console::Hint;
use crate::derived;
use crate::lock::{Artifact, Origin};
use crate::reach::elf::{self, Format};
use crate::store::{Digest, Store};

/// Name of the artifact, and of its program.
pub const NAME: &str = "cri-dockerd";

/// The program in the published archive, and in the folder it was unpacked in.
const MEMBER: &str = "cri-dockerd/cri-dockerd";

/// First bytes of a gzip file (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The artifact of a program, folder or archive of this machine, whose path is taken from `folder` where it is relative. Its version is
/// what the user says it is.
///
/// # Errors
/// It cannot be read, or holds no program that an image can run.
pub fn local_artifact(folder: &Path, path: &Path, version: &str, store: &Store) -> Result<Artifact> {
    let place = folder.join(path);
    let (digest, size) = measured(&place)?;
    local(&place, &digest, store)?;
    Ok(Artifact {
        name: NAME.into(),
        version: version.to_owned(),
        size: Some(size),
        sha256: Some(digest),
        origin: Origin::LocalFile { path: path.display().to_string() },
    })
}

/// What a program, folder or archive of this machine holds, which must be as the lock has it.
///
/// # Errors
/// It has changed, or holds no program that an image can run.
pub fn local(path: &Path, digest: &Digest, store: &Store) -> Result<Contents> {
    let key = derived::key("cri-dockerd local 1", [digest.0.as_slice()]);
    if let Some(contents) = known(&key, store) {
        return Ok(contents);
    }
    let (actual, _) = measured(path)?;
    if actual != *digest {
        let error = anyhow!("{} has changed: its digest is {actual}, the lock says {digest}", path.display());
        return Err(error.context(Hint(format!("take it as it is now: kscratch-image lock --update {NAME}"))));
    }
    let program = program(path, store).with_context(|| format!("taking {NAME} from {}", path.display()))?;
    let contents = Contents { programs: [(NAME.to_owned(), program)].into(), ..Contents::default() };
    derived::put(store, &key, &contents)?;
    Ok(contents)
}

/// Digest and length of the program or archive; in a folder, of the program there.
fn measured(path: &Path) -> Result<(Digest, u64)> {
    let file = file(path)?;
    let context = || format!("reading {}", file.display());
    hash(&mut File::open(&file).with_context(context)?).with_context(context)
}

/// The file that is meant: in a folder, the program.
fn file(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let found = [NAME, MEMBER].iter().map(|below| path.join(below)).find(|program| program.is_file());
    found.with_context(|| format!("the folder {} holds neither {NAME} nor {MEMBER}", path.display()))
}

fn program(path: &Path, store: &Store) -> Result<Digest> {
    let mut file = File::open(file(path)?)?;
    let mut start = Vec::new();
    (&mut file).take(GZIP.len() as u64).read_to_end(&mut start)?;
    io::Seek::rewind(&mut file)?;
    let digest = if start == GZIP { member(file, store)? } else { store.add(&mut file)?.0 };
    check(store.get(&digest)?)?;
    Ok(digest)
}

fn member(archive: File, store: &Store) -> Result<Digest> {
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(archive));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if path.trim_start_matches("./") == MEMBER && entry.header().entry_type().is_file() {
            return Ok(store.add(&mut entry)?.0);
        }
    }
    Err(anyhow!("the archive holds no {MEMBER}"))
}

/// Refuses what would not run in an image: told now, not by a node that does not come up.
fn check(program: File) -> Result<()> {
    let wrong = match elf::format(Box::new(program))? {
        Format::Elf(linkage) if linkage.is_static() => return Ok(()),
        // Its libraries would have to be declared: nothing else in an image comes from outside of packages and needs any.
        Format::Elf(linkage) => {
            let wanted = linkage.interpreter.into_iter().chain(linkage.needed).collect::<Vec<_>>().join(", ");
            format!("it is linked dynamically (it needs {wanted}), and an image takes a static one")
        }
        Format::Script(interpreter) => format!("it is a script for {interpreter}, no ELF program"),
        Format::Data => "it is neither an ELF program nor a gzip archive".to_owned(),
    };
    let hint = "name the archive that its project publishes (cri-dockerd-VERSION.amd64.tgz), or source = \"compile\"";
    Err(anyhow!(wrong).context(Hint(hint.into())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The header of a static program for x86-64 (ELF specification, "ELF Header"), which is all that is looked at.
    fn elf() -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        // e_type, e_machine, e_version, e_ehsize, e_phentsize
        for (at, value) in [(16, 2u16), (18, 62), (20, 1), (52, 64), (54, 56)] {
            bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    fn archive(member: &str, bytes: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, member, bytes).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn the_program_its_folder_and_its_archive_are_the_same_program() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cache")).unwrap();
        let unpacked = folder.path().join("unpacked");
        fs::create_dir_all(unpacked.join("cri-dockerd")).unwrap();
        let (alone, packed) = (unpacked.join(MEMBER), folder.path().join("cri-dockerd-0.4.3.amd64.tgz"));
        fs::write(&alone, elf()).unwrap();
        fs::write(&packed, archive(MEMBER, &elf())).unwrap();
        for path in [&alone, &unpacked.join("cri-dockerd"), &unpacked, &packed] {
            let artifact = local_artifact(Path::new(""), path, "0.4.3", &store).unwrap();
            let bytes = fs::read(if path.is_dir() { &alone } else { path }).unwrap();
            assert_eq!((artifact.sha256, artifact.size), (Some(Digest::of(&bytes)), Some(bytes.len() as u64)));
            assert_eq!((artifact.name.as_str(), artifact.version.as_str()), ("cri-dockerd", "0.4.3"));
            assert_eq!(artifact.origin, Origin::LocalFile { path: path.display().to_string() });
            let contents = local(path, &artifact.sha256.unwrap(), &store).unwrap();
            assert_eq!(contents.programs, [("cri-dockerd".to_owned(), Digest::of(&elf()))].into());
        }
        let locked = Digest::of(&elf());
        fs::write(&alone, [elf(), vec![0]].concat()).unwrap();
        // What was taken once is in the store; another cache needs the file as the lock has it.
        local(&alone, &locked, &store).unwrap();
        let empty = Store::open(&folder.path().join("empty")).unwrap();
        let error = format!("{:#}", local(&alone, &locked, &empty).unwrap_err());
        assert!(error.contains("has changed: its digest is") && error.contains("lock --update cri-dockerd"), "{error}");
    }

    #[test]
    fn what_an_image_could_not_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cache")).unwrap();
        let path = folder.path().join("x");
        let mut foreign = elf();
        foreign[18..20].copy_from_slice(&183u16.to_le_bytes());
        for (bytes, want) in [
            (fs::read("/bin/ls").unwrap(), "it is linked dynamically (it needs /lib64/ld-linux-x86-64.so.2, "),
            (foreign, "the ELF file is for machine 183, not x86-64"),
            (b"#!/bin/sh\n".to_vec(), "it is a script for /bin/sh, no ELF program"),
            (b"text".to_vec(), "it is neither an ELF program nor a gzip archive"),
            (archive(MEMBER, b"text"), "it is neither an ELF program nor a gzip archive"),
            (archive("cri-dockerd-0.4.3/cri-dockerd", &elf()), "the archive holds no cri-dockerd/cri-dockerd"),
            (archive(MEMBER, &elf())[..40].to_vec(), "taking cri-dockerd from"),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = format!("{:#}", local_artifact(Path::new(""), &path, "0.4.3", &store).unwrap_err());
            assert!(error.contains(want), "{error}");
        }
        let error = format!("{:#}", local_artifact(Path::new(""), folder.path(), "0.4.3", &store).unwrap_err());
        assert!(error.contains("holds neither cri-dockerd nor cri-dockerd/cri-dockerd"), "{error}");
        let error = format!("{:#}", local_artifact(folder.path(), Path::new("none"), "0.4.3", &store).unwrap_err());
        assert!(error.contains("reading ") && error.contains("No such file"), "{error}");
    }
}
