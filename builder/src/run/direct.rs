//! Takes kernel, initramfs and command line out of an image's UKI, for QEMU to start without firmware.
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use kscratch_formats::bytes::{ReadAt, Window};
use kscratch_formats::{fat32, gpt, uki};
use kscratch_qemu::machine::DiskFormat;
use kscratch_qemu::{Firmware, Overlay, Toolset};

/// Where firmware looks on a disk that it knows nothing about (UEFI 2.10, 3.5.1.1).
const UKI: &str = "/EFI/BOOT/BOOTX64.EFI";
/// A UKI larger than this is none of ours.
const UKI_LIMIT: u64 = 512 << 20;

/// A file as the bytes that it has.
pub(super) struct RawDisk(pub(super) File);

impl ReadAt for RawDisk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// Writes the UKI's kernel and initramfs into `folder` and says how to boot them.
pub(super) fn unpack(tools: &Toolset, image: &Path, folder: &Path) -> Result<Firmware> {
    let raw = raw(tools, image, folder)?;
    let file = File::open(&raw).with_context(|| format!("opening {}", raw.display()))?;
    let length = file.metadata().with_context(|| format!("asking for the size of {}", raw.display()))?.len();
    let disk = RawDisk(file);
    let table = gpt::read(&disk, length).context("reading the partition table")?;
    let esp = table
        .partitions
        .iter()
        .map(|(_, partition)| partition)
        .find(|partition| partition.name == "esp")
        .ok_or_else(|| anyhow!("there is no partition named `esp`"))?;
    let volume = fat32::Volume::open(Window { inner: &disk, start: esp.start, len: esp.len })
        .context("reading the EFI system partition")?;
    let found = volume.find(UKI).context("reading the EFI system partition")?;
    let found = found.ok_or_else(|| anyhow!("there is no {UKI} on the EFI system partition"))?;
    let bytes = volume.read(&found, UKI_LIMIT).with_context(|| format!("reading {UKI}"))?;
    let sections = uki::sections(&bytes).with_context(|| format!("reading {UKI}"))?;
    let section = |name: &str| sections.get(name).copied().ok_or_else(|| anyhow!("{UKI} has no section {name}"));
    let cmdline = String::from_utf8(section(".cmdline")?.to_vec()).context("reading the kernel's command line")?;
    Ok(Firmware::Direct {
        kernel: write(folder, "kernel", section(".linux")?)?,
        initramfs: Some(write(folder, "initramfs", section(".initrd")?)?),
        cmdline: cmdline.trim_end_matches(['\0', '\n']).to_owned(),
    })
}

/// The image as a raw disk: itself, or converted into `folder`.
fn raw(tools: &Toolset, image: &Path, folder: &Path) -> Result<PathBuf> {
    match DiskFormat::of(image).with_context(|| format!("opening {}", image.display()))? {
        DiskFormat::Raw => Ok(image.to_owned()),
        DiskFormat::Qcow2 | DiskFormat::Vmdk | DiskFormat::Vhd => {
            let raw = folder.join("disk");
            Overlay::create(tools, image, None)?.to_raw(tools, &raw)?;
            Ok(raw)
        }
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
