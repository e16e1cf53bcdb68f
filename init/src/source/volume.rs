//! Turns the machine's volumes into the metadata files on them: those labelled `KSCRATCH` or `cidata`, and the ESP.
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Answer, Kind, Surroundings, Text, optional};
use crate::log;
use crate::partition::Guid;
use crate::stage::block::Disk;
use crate::superblock::{self, look};
use crate::sys::{Flag, Mount};

/// Labels are compared without regard to case: tools for FAT write them in capitals.
const LABELS: [&str; 2] = ["KSCRATCH", "cidata"];

pub(super) fn ask(around: &Surroundings<'_>) -> Vec<Answer> {
    vec![(Kind::Volume, labelled(around)), (Kind::Esp, esp(around))]
}

/// The first labelled volume by name that has a `role.toml`: whole disks (a CD, a stick without partitions) and partitions.
fn labelled(around: &Surroundings<'_>) -> Result<Option<Text>> {
    for device in around.devices.disks().iter().flat_map(devices) {
        // A drive without a medium and the like: no volume.
        let Ok(volume) = File::open(&device).and_then(|mut file| look(&mut file)) else { continue };
        let Some(kind) = volume.kind.name() else { continue };
        if !LABELS.iter().any(|label| volume.label.eq_ignore_ascii_case(label)) {
            continue;
        }
        let found = read(around, &device, kind, "")?;
        if found.is_some() {
            return Ok(found);
        }
        log::line(format_args!("the volume {} on {} has no role.toml", volume.label, device.display()));
    }
    Ok(None)
}

fn devices(disk: &Disk) -> Vec<PathBuf> {
    let partitions = disk.partitions.values().map(|name| disk.device.with_file_name(name));
    std::iter::once(disk.device.clone()).chain(partitions).collect()
}

/// The ESP of the disk that the root is on; another disk's ESP belongs to another system.
fn esp(around: &Surroundings<'_>) -> Result<Option<Text>> {
    let Some(root) = around.cmdline.root_partition() else { return Ok(None) };
    let Some(found) = around.devices.find(root).into_iter().next() else { return Ok(None) };
    let Some(esp) = found.table.partitions.iter().find(|one| one.kind == Guid::ESP) else { return Ok(None) };
    let Some(name) = found.disk.partitions.get(&esp.number) else { return Ok(None) };
    let device = found.disk.device.with_file_name(name);
    let volume = File::open(&device).and_then(|mut file| look(&mut file));
    let volume = volume.with_context(|| format!("reading {}", device.display()))?;
    if volume.kind != superblock::Kind::Vfat {
        return Ok(None);
    }
    read(around, &device, "vfat", "kscratch")
}

/// Mounts a volume read-only, reads `role.toml` and `secrets.toml` in a folder of it, unmounts it.
fn read(around: &Surroundings<'_>, device: &Path, kind: &str, folder: &str) -> Result<Option<Text>> {
    let name = device.file_name().unwrap_or_default();
    let target = around.root.join("run/kscratch/volume").join(name);
    fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
    let source = device.to_str().context("naming a volume")?;
    // Read-only alone would still replay an ext4's journal, which writes.
    let data = if kind == "ext4" { "noload" } else { "" };
    let mount = Mount {
        source,
        target: &target,
        kind,
        flags: &[Flag::ReadOnly, Flag::NoSuid, Flag::NoDev, Flag::NoExec],
        data,
    };
    around.sys.mount(&mount).with_context(|| format!("mounting {source} ({kind})"))?;
    let inside = target.join(folder);
    let texts =
        optional(&inside.join("role.toml")).and_then(|role| Ok((role, optional(&inside.join("secrets.toml"))?)));
    if let Err(error) = around.sys.unmount(&target, true) {
        log::line(format_args!("unmounting {source}: {error}"));
    }
    let (Some(role), secrets) = texts? else { return Ok(None) };
    let path = Path::new("/").join(folder).join("role.toml");
    Ok(Some(Text { place: format!("{} on {source}", path.display()), role, secrets }))
}
