//! The models of disks and network cards that a machine can have, by the names that people give them, and QEMU's devices for them.
use std::str::FromStr;

/// How a disk is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskModel {
    /// virtio-blk.
    #[default]
    Virtio,
    /// A namespace of an NVMe controller of its own.
    Nvme,
    /// SATA, on the AHCI controller of the chipset, which has six ports. Its sectors have 512 bytes.
    Sata,
    /// SCSI, on a virtio-scsi controller.
    Scsi,
    /// SCSI, on an LSI MegaRAID SAS 1078. OVMF has no driver for it: it is for disks that nothing boots from.
    Megasas,
    /// A USB stick, on an xHCI controller; it is removable.
    Usb,
    /// A CD in a drive on the AHCI controller of the chipset; it is only read.
    Cd,
}

/// What a network card is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CardModel {
    /// virtio-net.
    #[default]
    Virtio,
    /// Intel 82574L.
    E1000e,
    /// Intel 82576; QEMU has it from 8.0 on.
    Igb,
    /// Intel 82540EM.
    E1000,
    /// Realtek 8139.
    Rtl8139,
}

impl DiskModel {
    /// All of them.
    pub const ALL: [DiskModel; 7] = [
        DiskModel::Virtio,
        DiskModel::Nvme,
        DiskModel::Sata,
        DiskModel::Scsi,
        DiskModel::Megasas,
        DiskModel::Usb,
        DiskModel::Cd,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            DiskModel::Virtio => "virtio",
            DiskModel::Nvme => "nvme",
            DiskModel::Sata => "sata",
            DiskModel::Scsi => "scsi",
            DiskModel::Megasas => "megasas",
            DiskModel::Usb => "usb",
            DiskModel::Cd => "cd",
        }
    }

    /// QEMU's device.
    pub(crate) fn device(self) -> &'static str {
        match self {
            DiskModel::Virtio => "virtio-blk-pci",
            DiskModel::Nvme => "nvme",
            DiskModel::Sata => "ide-hd",
            DiskModel::Scsi | DiskModel::Megasas => "scsi-hd",
            DiskModel::Usb => "usb-storage",
            DiskModel::Cd => "ide-cd",
        }
    }

    /// The controller that all disks of this model share, where it is none of the chipset's: QEMU's device and the name of it.
    pub(crate) fn controller(self) -> Option<(&'static str, &'static str)> {
        match self {
            DiskModel::Virtio | DiskModel::Nvme | DiskModel::Sata | DiskModel::Cd => None,
            DiskModel::Scsi => Some(("virtio-scsi-pci", "scsi")),
            DiskModel::Megasas => Some(("megasas", "megasas")),
            DiskModel::Usb => Some(("qemu-xhci", "usb")),
        }
    }
}

impl CardModel {
    /// All of them.
    pub const ALL: [CardModel; 5] =
        [CardModel::Virtio, CardModel::E1000e, CardModel::Igb, CardModel::E1000, CardModel::Rtl8139];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            CardModel::Virtio => "virtio",
            CardModel::E1000e => "e1000e",
            CardModel::Igb => "igb",
            CardModel::E1000 => "e1000",
            CardModel::Rtl8139 => "rtl8139",
        }
    }

    /// QEMU's device.
    pub(crate) fn device(self) -> &'static str {
        match self {
            CardModel::Virtio => "virtio-net-pci",
            other => other.name(),
        }
    }
}

impl FromStr for DiskModel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(text, "disk", DiskModel::ALL, DiskModel::name)
    }
}

impl FromStr for CardModel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(text, "network card", CardModel::ALL, CardModel::name)
    }
}

fn named<T: Copy, const N: usize>(
    text: &str,
    what: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let found = all.into_iter().find(|one| name(*one) == text);
    found.ok_or_else(|| format!("there is no {what} model `{text}`; there are {}", all.map(name).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::{CardModel, DiskModel};

    #[test]
    fn every_model_has_its_name() {
        for model in DiskModel::ALL {
            assert_eq!(model.name().parse(), Ok(model));
        }
        for model in CardModel::ALL {
            assert_eq!(model.name().parse(), Ok(model));
        }
        let error = "ide".parse::<DiskModel>().unwrap_err();
        assert_eq!(error, "there is no disk model `ide`; there are virtio, nvme, sata, scsi, megasas, usb, cd");
        assert!("NVMe".parse::<CardModel>().unwrap_err().starts_with("there is no network card model `NVMe`; "));
    }
}
