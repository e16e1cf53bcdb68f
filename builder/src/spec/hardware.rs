//! The machines that an image is for become a kernel package, lists of modules, and packages of firmware and microcode.
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{ImageSpec, Kernel};

/// Debian's kernels for amd64, named by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Debian's cloud kernel: small; virtual machines, NVMe and AHCI
    Cloud,
    /// Debian's generic kernel with the drivers of real machines, their firmware, and microcode for their processors
    // What it was called before it had firmware.
    #[serde(alias = "generic")]
    #[value(alias = "generic")]
    Metal,
}

impl Flavour {
    /// The package that depends on the newest kernel of this flavour.
    pub fn package(self) -> &'static str {
        match self {
            Flavour::Cloud => "linux-image-cloud-amd64",
            Flavour::Metal => "linux-image-amd64",
        }
    }
}

/// `[hardware]`: drivers by class, as lists of modules in the form of [`Kernel::modules`], and what the hardware itself is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Disks and their controllers; in the initramfs too.
    pub storage: Vec<String>,
    /// USB's controllers and disks; in the initramfs too.
    pub usb: Vec<String>,
    /// Network cards, and what connects their ports.
    pub network: Vec<String>,
    /// Keyboards, screens and serial lines.
    pub console: Vec<String>,
    /// Packages whose firmware the drivers of a metal image get, where they name it.
    pub firmware: Vec<String>,
    /// Packages with microcode for the processors of a metal image.
    pub microcode: Vec<String>,
}

impl ImageSpec {
    /// The kernel's settings, its lists of modules completed by those of the hardware's classes.
    pub fn kernel_with_hardware(&self) -> Kernel {
        let Hardware { storage, usb, network, console, .. } = &self.hardware;
        let mut kernel = self.kernel.clone();
        kernel.modules.extend([storage, usb, network, console].into_iter().flatten().cloned());
        kernel.initramfs.extend([storage, usb].into_iter().flatten().cloned());
        kernel
    }

    /// These settings for an image whose machines fetch their root: the initramfs reaches the network too.
    #[must_use]
    pub fn for_netboot(&self) -> ImageSpec {
        let mut spec = self.clone();
        spec.kernel.initramfs.extend([&self.kernel.netboot, &self.hardware.network].into_iter().flatten().cloned());
        spec
    }

    /// Packages with firmware for drivers: none but for metal, as virtual hardware wants none.
    pub fn firmware_packages(&self) -> &[String] {
        self.on_metal(&self.hardware.firmware)
    }

    /// Packages with microcode: none but for metal, as a virtual machine's processors have that of their host.
    pub fn microcode_packages(&self) -> &[String] {
        self.on_metal(&self.hardware.microcode)
    }

    fn on_metal<'a>(&self, packages: &'a [String]) -> &'a [String] {
        match self.kernel.flavour {
            Flavour::Metal => packages,
            Flavour::Cloud => &[],
        }
    }
}
