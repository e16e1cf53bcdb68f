//! A [`Machine`] is the description of a virtual machine, as data: nothing is started by making one.
use std::path::{Path, PathBuf};

use crate::hardware::{CardModel, DiskModel};
use crate::overlay::Overlay;

/// A virtual machine to be.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Named in errors and in QEMU's process title.
    pub name: String,
    /// Memory in MiB.
    pub memory: u32,
    /// Number of virtual processors.
    pub cpus: u32,
    /// Who executes the guest's instructions.
    pub accelerator: Accelerator,
    /// Whether time in an emulated guest goes by the instructions that it has executed, and by the host's clock only while it has nothing to do. Guests
    /// that share too few processors are slow then, but none of them sees that, and nothing in them times out. All virtual processors of a guest share
    /// one of the host's. Nothing under KVM.
    pub own_time: bool,
    /// How far its emulation stands back behind other processes of this host, as nice(1) counts. Nothing under KVM.
    pub nice: u8,
    /// What runs first.
    pub firmware: Firmware,
    /// Disks in the order in which the firmware tries them.
    pub disks: Vec<Disk>,
    /// Whether the guest has a card on QEMU's user-mode network; it is the first one.
    pub user_network: bool,
    /// A TAP device of the host, in the network namespace of who starts the machine, which that card is on instead of the user-mode network. There are no
    /// forwards then.
    pub tap: Option<String>,
    /// Whether the firmware boots from that card, behind the disks. It has its own means for that: no ROM of QEMU's is needed.
    pub boots_from_network: bool,
    /// Further cards, each on a user-mode network of its own, behind all others. They have the hardware addresses that follow [`Machine::mac`].
    pub more_user_cards: u8,
    /// TCP ports of the guest that are reachable on 127.0.0.1, by the user-mode network.
    pub forwards: Vec<Forward>,
    /// Cards on virtual links ([`crate::Link`]), behind the user-mode network's where there is one.
    pub cards: Vec<Card>,
    /// Whether there is room for a card that is plugged into the running machine ([`crate::Vm::plug_card`]).
    pub card_slot: bool,
    /// What all its cards are.
    pub card_model: CardModel,
    /// Hardware address of the user-mode network's card.
    pub mac: [u8; 6],
    /// Whether the guest is kept from reaching anything but this host's forwards.
    pub isolated: bool,
    /// fw_cfg entries.
    pub fw_cfg: Vec<FwCfg>,
    /// Serial number of the system (SMBIOS type 1).
    pub serial_number: Option<String>,
    /// UUID of the system (SMBIOS type 1), as RFC 9562 orders its bytes.
    pub uuid: Option<[u8; 16]>,
    /// SMBIOS OEM strings (type 11).
    pub oem_strings: Vec<String>,
    /// What the machine's clock says at start (`2026-11-22T08:00:00`, UTC); the host's time where `None`.
    pub clock: Option<String>,
    /// Where the serial line goes.
    pub serial: Serial,
    /// A file to which everything that the guest says on the serial line is appended, besides.
    pub console_file: Option<PathBuf>,
    /// Folder for QMP socket and firmware variables, which stay there; one that goes with the machine where `None`. A socket's path may
    /// have no more than 107 bytes (unix(7)).
    pub folder: Option<PathBuf>,
    /// Whether a reset of the guest starts it again; QEMU ends otherwise.
    pub reboots: bool,
    /// Whether the guest has a watchdog (an i6300ESB), which resets it where it is not fed.
    pub watchdog: bool,
    /// Socket of a TPM of its own ([`crate::Tpm`]).
    pub tpm: Option<PathBuf>,
    /// Whether it has a screen ([`crate::Vm::screenshot`]); its firmware has to be UEFI. It has a keyboard in any case.
    pub screen: bool,
    /// Whether the guest's kernel tells how much memory it uses ([`crate::Vm::memory`]): it gets a balloon device, which takes none away.
    pub tells_memory: bool,
}

/// A network card on a virtual link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// The link's socket for it, from [`crate::Link::plug`].
    pub plug: PathBuf,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// Who executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accelerator {
    /// KVM if a probe booted a kernel under it, else emulation.
    Auto,
    /// KVM, without a probe.
    Kvm,
    /// QEMU's own emulation.
    Emulation,
}

/// What runs first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firmware {
    /// OVMF with fresh variables: it starts `EFI/BOOT/BOOTX64.EFI` of the first disk that has it.
    Uefi,
    /// No firmware to speak of: QEMU puts kernel and initramfs into memory.
    Direct {
        /// The kernel (`bzImage`).
        kernel: PathBuf,
        /// The initramfs.
        initramfs: Option<PathBuf>,
        /// The kernel's command line.
        cmdline: String,
    },
}

/// How the bytes of a disk are kept in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// Byte for byte.
    Raw,
    /// QEMU's own.
    Qcow2,
    /// VMware's, in one sparse file.
    Vmdk,
    /// Microsoft's, fixed.
    Vhd,
}

impl DiskFormat {
    /// QEMU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Vmdk => "vmdk",
            DiskFormat::Vhd => "vpc",
        }
    }

    /// Reads a file's first bytes, and its last ones: a qcow2 file starts with `QFI\xfb` (QEMU's docs/interop/qcow2, "Header"), a VMDK
    /// with `KDMV`, a fixed VHD ends with a sector that starts with `conectix`; all else is raw.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(path: &Path) -> std::io::Result<DiskFormat> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = std::fs::File::open(path)?;
        let mut magic = Vec::with_capacity(4);
        (&file).take(4).read_to_end(&mut magic)?;
        let mut cookie = Vec::with_capacity(8);
        if file.seek(SeekFrom::End(0))? > 512 {
            file.seek(SeekFrom::End(-512))?;
            file.take(8).read_to_end(&mut cookie)?;
        }
        Ok(match (magic.as_slice(), cookie.as_slice()) {
            (b"QFI\xfb", _) => DiskFormat::Qcow2,
            (b"KDMV", _) => DiskFormat::Vmdk,
            (_, b"conectix") => DiskFormat::Vhd,
            _ => DiskFormat::Raw,
        })
    }
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its file.
    pub path: PathBuf,
    /// The file's format.
    pub format: DiskFormat,
    /// Whether the guest may not write it.
    pub read_only: bool,
    /// Whether what the guest writes is forgotten at the end.
    pub throwaway: bool,
    /// How it is reached.
    pub model: DiskModel,
    /// Bytes of a sector: 512 or 4096.
    pub sector: u32,
    /// Its serial number; `disk0` for the first disk, and so on, where `None`.
    pub serial: Option<String>,
}

impl Disk {
    /// A disk that the guest writes to.
    pub fn new(path: impl Into<PathBuf>, format: DiskFormat) -> Self {
        Disk {
            path: path.into(),
            format,
            read_only: false,
            throwaway: false,
            model: DiskModel::default(),
            sector: 512,
            serial: None,
        }
    }

    /// A raw disk that the guest cannot write to, for a volume of metadata.
    pub fn read_only(path: impl Into<PathBuf>) -> Self {
        Disk { read_only: true, ..Disk::new(path, DiskFormat::Raw) }
    }

    /// The same, reached another way.
    #[must_use]
    pub fn model(self, model: DiskModel) -> Self {
        Disk { model, ..self }
    }
}

impl From<&Overlay> for Disk {
    fn from(overlay: &Overlay) -> Self {
        Disk::new(overlay.path(), DiskFormat::Qcow2)
    }
}

/// A TCP port of the guest made reachable on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Port on the host; with 0 the kernel chooses a free one, which [`crate::Vm::forwarded`] tells.
    pub host: u16,
    /// Port of the guest.
    pub guest: u16,
}

impl Forward {
    /// A forward from a port that the kernel chooses: two machines never want the same one.
    pub fn to(guest: u16) -> Self {
        Forward { host: 0, guest }
    }
}

/// A named blob that the guest reads through the fw_cfg device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FwCfg {
    /// Its name; QEMU wants users' names to begin with `opt/`.
    pub name: String,
    /// The file with its bytes.
    pub file: PathBuf,
}

/// Where the serial line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serial {
    /// To this program, line by line, for [`crate::Vm::wait_for_line`].
    Watched,
    /// To the terminal, raw, with QEMU's own monitor behind Ctrl-A.
    Terminal,
}

impl Machine {
    /// A machine with 1 GiB, two processors and a user-mode network card, watched, whose reboots end it.
    pub fn new(firmware: Firmware) -> Self {
        Machine {
            name: "kscratch".to_owned(),
            memory: 1024,
            cpus: 2,
            accelerator: Accelerator::Auto,
            own_time: false,
            nice: 0,
            firmware,
            disks: Vec::new(),
            user_network: true,
            forwards: Vec::new(),
            cards: Vec::new(),
            tap: None,
            boots_from_network: false,
            more_user_cards: 0,
            card_model: CardModel::default(),
            mac: [0x52, 0x54, 0x00, 0x6b, 0x73, 0x01],
            isolated: false,
            fw_cfg: Vec::new(),
            serial_number: None,
            uuid: None,
            oem_strings: Vec::new(),
            clock: None,
            serial: Serial::Watched,
            console_file: None,
            folder: None,
            reboots: false,
            card_slot: false,
            watchdog: false,
            tpm: None,
            screen: false,
            tells_memory: false,
        }
    }

    /// The same with a name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The same with one more disk.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// The same with one more forwarded port.
    #[must_use]
    pub fn forward(mut self, forward: Forward) -> Self {
        self.forwards.push(forward);
        self
    }

    /// The same with a card on a virtual link in the place of the user-mode network.
    #[must_use]
    pub fn on_link(mut self, plug: impl Into<PathBuf>, mac: [u8; 6]) -> Self {
        self.user_network = false;
        self.cards.push(Card { plug: plug.into(), mac });
        self
    }

    /// The same with one more fw_cfg entry.
    #[must_use]
    pub fn fw_cfg(mut self, name: &str, file: impl Into<PathBuf>) -> Self {
        self.fw_cfg.push(FwCfg { name: name.to_owned(), file: file.into() });
        self
    }
}
