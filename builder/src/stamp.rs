//! Turns a finished image, raw or qcow2, and role metadata into the same image with that metadata on its ESP.
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::patch::Patch;
use kscratch_formats::qcow2;
use kscratch_install::esp::{self, path_of};
use nix::libc;

use crate::console::Hint;
use crate::inspect::{Form, Opened};
use crate::running::{is_in_use, is_locked};

/// Texts that go onto the ESP.
#[derive(Debug, Clone, Copy)]
pub struct Texts<'a> {
    /// `role.toml`, a machine's or a rack's.
    pub role: &'a str,
    /// `secrets.toml`; without it the one that is on the ESP stays.
    pub secrets: Option<&'a str>,
    /// What the user calls the two files, for errors.
    pub names: (&'a str, &'a str),
}

/// Checks the metadata as init will, then puts it on the ESP of the image at `path`. `time` is in seconds since 1970. A power cut on the
/// way leaves every file old or new, and the volume readable; a qcow2 file may have grown by clusters that nothing refers to. Of a file others than its owner
/// can read nothing any more, as it holds secrets; says whether they could.
pub fn stamp(path: &Path, texts: &Texts<'_>, time: i64) -> Result<bool> {
    let action = || format!("stamping {}", path.display());
    let disk = Opened::alone(path).with_context(action)?;
    if disk.form() == Form::Vmdk {
        return Err(packed(path));
    }
    if disk.form() == Form::RawZst {
        return Err(compressed(path));
    }
    check_for(&disk, texts).with_context(action)?;
    // QEMU keeps a file's tables in memory, and the kernel a mounted ESP's: neither would notice.
    if is_in_use(path) {
        let way = "switch the machine off that runs from it (`cluster power off`, or its own virtual machine), or unmount it, and run the same again";
        return Err(anyhow!("it is in use: nothing was written").context(action()).context(Hint(way.to_owned())));
    }
    let file = File::options().read(true).write(true).custom_flags(alone(path)).open(path);
    let file = file.with_context(|| format!("opening {} to write", path.display()))?;
    ensure!(!is_locked(&file), "{} is in use by now: nothing was written", path.display());
    let closed = close(&file).with_context(action)?;
    onto(&file, &disk, texts, time).with_context(action)?;
    Ok(closed)
}

/// Takes from a file what its group and others may do with it. A device has readers of its own.
fn close(file: &File) -> Result<bool> {
    let found = file.metadata()?;
    let mode = found.permissions().mode();
    if !found.is_file() || mode & 0o077 == 0 {
        return Ok(false);
    }
    let closed = Permissions::from_mode(mode & 0o700);
    file.set_permissions(closed).context("taking it from the eyes of others, as it is to hold secrets")?;
    Ok(true)
}

/// A device is asked for alone (open(2): O_EXCL without O_CREAT), a file cannot be.
fn alone(path: &Path) -> i32 {
    let is_device = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
    if is_device { libc::O_EXCL } else { 0 }
}

/// Refuses what init would refuse of a machine that boots from this disk.
pub(crate) fn check_for(disk: &Opened, texts: &Texts<'_>) -> Result<()> {
    let volume = esp::open(disk, esp::place(disk, disk.disk_len())?)?;
    let known = esp::text(&volume, &path_of("secrets.toml"))?;
    check(texts, known.as_deref())
}

/// Puts the metadata on the ESP of `file`, which is where `disk`, whose copy it is, has it.
pub(crate) fn onto(file: &File, disk: &Opened, texts: &Texts<'_>, time: i64) -> Result<()> {
    let esp = esp::place(disk, disk.disk_len())?;
    for (name, text) in texts.files() {
        let target = path_of(name);
        put(file, esp, &target, text, time).with_context(|| format!("writing {target} to the ESP"))?;
    }
    Ok(())
}

/// Fails where the metadata is not on the ESP of `copy`, a copy of `disk`.
pub(crate) fn is_on(copy: &impl ReadAt, disk: &Opened, texts: &Texts<'_>) -> Result<()> {
    let volume = esp::open(copy, esp::place(disk, disk.disk_len())?)?;
    for (name, text) in texts.files() {
        let target = path_of(name);
        let found = esp::text(&volume, &target).with_context(|| format!("reading {target} back"))?;
        ensure!(found.as_deref() == Some(text), "{target} is not what was written to the ESP");
    }
    Ok(())
}

impl<'a> Texts<'a> {
    /// Secrets first: metadata without them is refused by init, secrets without metadata are not looked at.
    fn files(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        self.secrets.map(|text| ("secrets.toml", text)).into_iter().chain([("role.toml", self.role)])
    }
}

/// A VMDK file's tables are made once.
fn packed(path: &Path) -> anyhow::Error {
    anyhow!("metadata can be stamped on raw, qcow2 and vhd images; {} is vmdk", path.display())
        .context(Hint("stamp another form and convert that (qemu-img convert -O vmdk); or give the metadata to `kscratch-image build --metadata`".into()))
}

/// Every byte behind a change would have to be packed anew.
fn compressed(path: &Path) -> anyhow::Error {
    anyhow!("metadata can be stamped on raw, qcow2 and vhd images; {} is raw.zst", path.display()).context(Hint(format!(
        "unpack it with `zstd -d {0}`, stamp the raw image, and pack that again; or give the metadata to `kscratch-image build --metadata`",
        path.display()
    )))
}

/// Refuses what init would refuse.
fn check(texts: &Texts<'_>, known: Option<&str>) -> Result<()> {
    let parsed = kscratch_metadata::read(texts.role, texts.secrets.or(known));
    let (role, secrets) = texts.names;
    let kept = texts.secrets.is_none() && known.is_some();
    let secrets = if kept { "secrets.toml on the ESP" } else { secrets };
    match parsed {
        Ok(_) => Ok(()),
        Err(errors) => {
            let error = anyhow!(errors.named(role, secrets));
            Err(if kept {
                error.context(Hint("the secrets that are on the ESP stay; --secrets FILE replaces them".into()))
            } else {
                error
            })
        }
    }
}

/// Replaces a file of the ESP by steps, each on the disk before the next begins.
fn put(file: &File, place: (u64, u64), target: &str, text: &str, time: i64) -> Result<()> {
    let disk = Opened::of(file.try_clone()?)?;
    esp::put(&disk, place, target, text, time, &mut |writes| write(file, writes))
}

/// Writes to the disk that a file is of: bytes and where they go. All is on the disk when it returns.
pub(crate) fn write(file: &File, writes: Vec<(u64, Vec<u8>)>) -> Result<()> {
    for Patch(writes) in in_file(file, writes)? {
        for (at, bytes) in writes {
            file.write_all_at(&bytes, at).with_context(|| format!("writing at byte {at}"))?;
        }
        file.sync_data().context("waiting until it is on the disk")?;
    }
    Ok(())
}

/// Writes to the disk as steps of writes to the file. A qcow2 file is opened anew each time: the last step may have changed its tables.
fn in_file(file: &File, writes: Vec<(u64, Vec<u8>)>) -> Result<Vec<Patch>> {
    match Opened::of(file.try_clone()?)? {
        Opened::Qcow2(disk) => Ok(disk.patches(&writes, file.metadata()?.len())?),
        Opened::Overlay(_) => Err(qcow2::Error::Unsupported("has a backing file").into()),
        Opened::Raw(_) | Opened::RawZst(_) | Opened::Vhd(_) | Opened::Vmdk(_) => Ok(vec![Patch(writes)]),
    }
}
