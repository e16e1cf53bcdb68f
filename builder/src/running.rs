//! Tells whether a disk is in use: QEMU locks the files and devices that its machines write to, the kernel the devices that it has mounted.
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// The byte that QEMU holds a lock on while it may write: `RAW_LOCK_PERM_BASE` (100) and the bit of `BLK_PERM_WRITE` (1), block/file-posix.c.
const WRITER: i64 = 101;

/// Whether the file or block device is in use by somebody who may write to it. Where that cannot be told, it is not.
pub fn is_in_use(path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else { return false };
    if metadata.file_type().is_block_device() {
        // Without O_CREAT, O_EXCL asks whether the device is free: open(2).
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(path);
        if opened.is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy) {
            return true;
        }
    }
    // QEMU does not ask to have a device for itself alone: it locks it, as it does a file.
    File::open(path).is_ok_and(|file| is_locked(&file))
}

/// Whether a machine of QEMU's, or one of its tools, may write to what somebody else has opened here.
pub fn is_locked(file: &File) -> bool {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: WRITER,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
}
