//! Turns the boot's parts into the one EFI program on the ESP.
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kscratch_formats::guid::Guid;
use kscratch_formats::uki;

use crate::store::Digest;

/// The longest command line that the kernel takes on x86 (`COMMAND_LINE_SIZE`), its end mark not counted.
const COMMAND_LINE: usize = 2047;

/// What goes into the boot file.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// systemd's `linuxx64.efi.stub`.
    pub stub: &'a [u8],
    /// The kernel, a bzImage.
    pub kernel: &'a [u8],
    /// The kernel's version, as `uname -r` says it.
    pub version: &'a str,
    /// The initramfs, compressed or not.
    pub initramfs: &'a [u8],
    /// The kernel's command line, see [`command_line`].
    pub cmdline: &'a str,
    /// The contents of os-release.
    pub os_release: &'a str,
}

/// Where the root is.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// A partition.
    Partition(Guid),
    /// On no disk yet: what is booted installs the packed disk with this identity.
    Packed(Guid),
    /// A file on a server.
    Fetched {
        /// Its URL.
        url: &'a str,
        /// Its digest.
        sha256: &'a Digest,
        /// Bytes of memory that the root takes.
        bytes: u64,
    },
}

/// The command line: where the root is first, then consoles (the last one becomes /dev/console), then further words.
pub fn command_line<'a>(
    root: Place<'_>,
    consoles: impl IntoIterator<Item = &'a String>,
    words: impl IntoIterator<Item = &'a String>,
) -> Result<String> {
    let mut line = match root {
        Place::Partition(guid) => vec![format!("kscratch.root=PARTUUID={guid}")],
        Place::Packed(guid) => vec![format!("kscratch.install=PARTUUID={guid}")],
        Place::Fetched { url, sha256, bytes } => vec![
            format!("kscratch.root={url}"),
            format!("kscratch.root.sha256={sha256}"),
            format!("kscratch.root.bytes={bytes}"),
        ],
    };
    line.extend(consoles.into_iter().map(|console| format!("console={console}")));
    line.extend(words.into_iter().cloned());
    let line = line.join(" ");
    ensure!(!line.contains(['\n', '\0']), "the kernel command line holds a line break: `{}`", line.escape_debug());
    ensure!(
        line.len() <= COMMAND_LINE,
        "the kernel command line is {} bytes long, {COMMAND_LINE} are the most",
        line.len()
    );
    Ok(line)
}

/// The EFI program.
pub fn build(boot: &Boot<'_>) -> Result<Arc<[u8]>> {
    let sections: [(&str, &[u8]); 5] = [
        (".osrel", boot.os_release.as_bytes()),
        (".uname", boot.version.as_bytes()),
        (".cmdline", boot.cmdline.as_bytes()),
        (".initrd", boot.initramfs),
        (".linux", boot.kernel),
    ];
    let file = uki::assemble(boot.stub, &sections).context("putting the kernel into systemd's EFI stub")?;
    Ok(file.into())
}
