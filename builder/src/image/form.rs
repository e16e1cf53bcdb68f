//! The word that a user gives for a form becomes what is written, and under which name.
use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::write::Format;

/// The forms in which an image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// The disk as it is, sparse
    #[value(name = "raw")]
    Raw,
    /// The disk, compressed with Zstandard
    #[value(name = "raw.zst")]
    RawZst,
    /// QEMU's copy-on-write format
    #[value(name = "qcow2")]
    Qcow2,
    /// VMware's format in one sparse file, for Workstation, VirtualBox and vmkfstools
    #[value(name = "vmdk")]
    Vmdk,
    /// The disk with Microsoft's footer, a fixed VHD: for Azure and Hyper-V
    #[value(name = "vhd")]
    Vhd,
    /// The disk's installer, which boots from a USB stick or a CD, and puts it onto the disk that the role metadata name
    #[value(name = "iso")]
    Iso,
    /// No disk but the root filesystem alone, with owners, devices and attributes: for `docker import` and to look into
    #[value(name = "tar")]
    Tar,
    /// No disk but a folder for a web server, which machines boot from over the network: by iPXE, and by UEFI HTTP boot (--root-url)
    #[value(name = "pxe")]
    Pxe,
}

impl Form {
    /// What a file's name ends with that has it, or a folder's.
    pub fn ending(self) -> &'static str {
        match self {
            Form::Raw => ".img",
            Form::RawZst => ".img.zst",
            Form::Qcow2 => ".qcow2",
            Form::Vmdk => ".vmdk",
            Form::Vhd => ".vhd",
            Form::Iso => ".iso",
            Form::Tar => ".tar",
            Form::Pxe => "-pxe",
        }
    }

    /// Refuses sectors that no machine shows of a disk in this form.
    ///
    /// # Errors
    /// Sectors of other than 512 bytes in a hypervisor's form that has none else.
    pub fn bears(self, sector: u64) -> Result<()> {
        ensure!(
            sector == 512 || !matches!(self, Form::Vmdk | Form::Vhd),
            "a disk in the form {} has sectors of 512 bytes, and the image is to be made for {sector}",
            self.ending().trim_start_matches('.')
        );
        Ok(())
    }

    /// Refuses a URL where there is nothing to be named by it.
    ///
    /// # Errors
    /// There is one, and the form is none for network boot.
    pub fn wants(self, root_url: Option<&str>) -> Result<()> {
        ensure!(
            root_url.is_none() || self == Form::Pxe,
            "--root-url is for --format pxe: other forms have their root on a disk"
        );
        Ok(())
    }

    /// How a disk is written in this form; none where there is no disk. `time`, in seconds since 1970, goes into formats that have one.
    pub fn of_disk(self, time: i64) -> Option<Format> {
        match self {
            // What an installer packs is the disk as it is.
            Form::Raw | Form::Iso => Some(Format::Raw),
            Form::RawZst => Some(Format::RawZst),
            Form::Qcow2 => Some(Format::Qcow2),
            Form::Vmdk => Some(Format::Vmdk),
            Form::Vhd => Some(Format::Vhd { time }),
            Form::Tar | Form::Pxe => None,
        }
    }
}
