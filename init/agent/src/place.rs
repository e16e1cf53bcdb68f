//! Puts a whole file in its place, so that nobody ever reads half of it and a power cut leaves the old one or the new one.
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::Path;

use anyhow::{Context as _, Result};

/// Writes a file under another name, syncs it, and renames it. Its folder must exist. Group and owner are `owner`.
///
/// # Errors
/// What the kernel says.
pub fn file(path: &Path, contents: &[u8], mode: u32, owner: u32) -> Result<()> {
    put(path, contents, mode, owner).with_context(|| format!("writing {}", path.display()))
}

fn put(path: &Path, contents: &[u8], mode: u32, owner: u32) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let fresh = folder.join(format!(".{}.new", name.to_string_lossy()));
    let written = write_new(&fresh, contents, mode, owner).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // The error of the write is the one to tell.
        let _ = fs::remove_file(&fresh);
        return written;
    }
    // The name is in the folder only when the folder is on the disk.
    File::open(folder)?.sync_all()
}

/// Owner and mode are set before there is anything to read: secrets never stand open for a moment.
fn write_new(path: &Path, contents: &[u8], mode: u32, owner: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    let mut file = std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600).open(path)?;
    // In this order: the mode of a file that is given away already may be changed only with one capability more.
    file.set_permissions(Permissions::from_mode(mode))?;
    fchown(&file, Some(owner), Some(owner))?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::file;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.key");
        let me = fs::metadata(folder.path()).unwrap().uid();
        file(&path, b"one", 0o644, me).unwrap();
        file(&path, b"two", 0o600, me).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = file(&folder.path().join("none/client.key"), b"", 0o600, me).unwrap_err();
        assert!(format!("{error:#}").contains("none/client.key: No such file"), "{error:#}");
    }
}
