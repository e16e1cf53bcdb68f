//! Turns what sysfs tells of a disk into the words by which metadata may name it ([`DiskWords`]).
use std::fs;
use std::path::{Path, PathBuf};

use kscratch_metadata::DiskWords;

use super::bypath::{self, Numbers};
use super::{Devices, names, number};

/// What a disk says of itself.
#[must_use]
pub fn of(devices: &Devices, disk: &str) -> DiskWords {
    let link = devices.sysfs.join(disk);
    let folder = fs::canonicalize(&link).unwrap_or(link);
    let device = folder.join("device");
    let own = [folder.join("serial"), device.join("serial")];
    let serials = own.iter().filter_map(|file| text(file)).chain(scsi_serial(&device)).chain(usb_serial(&folder));
    let mut serials: Vec<String> = serials.collect();
    serials.dedup();
    DiskWords {
        serials,
        wwn: [folder.join("wwid"), device.join("wwid")].iter().find_map(|file| text(file)),
        paths: folder.to_str().map(|place| bypath::names(place, numbers(&folder))).unwrap_or_default(),
    }
}

/// In one line, for a person who looks for the right word.
#[must_use]
pub fn told(words: &DiskWords) -> String {
    let serial = words.serials.iter().map(|serial| format!("serial {serial}"));
    let wwn = words.wwn.iter().map(|wwn| format!("wwn {wwn}"));
    let path = words.paths.iter().take(1).map(|path| format!("path {path}"));
    let all: Vec<String> = serial.chain(wwn).chain(path).collect();
    if all.is_empty() { "nothing tells it".to_owned() } else { all.join(", ") }
}

fn text(file: &Path) -> Option<String> {
    words(&String::from_utf8_lossy(&fs::read(file).ok()?))
}

/// Makers fill fields with blanks; nothing that a terminal would obey is passed on.
fn words(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|char| !char.is_control()).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

/// The Unit Serial Number page (SPC-4, 7.8.18): behind four bytes, of which the last two are its length.
fn scsi_serial(device: &Path) -> Option<String> {
    let page = fs::read(device.join("vpd_pg80")).ok()?;
    words(&String::from_utf8_lossy(page.get(4..)?))
}

/// That of the USB device that the disk is in: many sticks have no other.
fn usb_serial(folder: &Path) -> Option<String> {
    let usb = folder.ancestors().find(|folder| folder.join("idVendor").exists())?;
    text(&usb.join("serial"))
}

fn numbers(folder: &Path) -> Numbers {
    let small = |file: PathBuf| number(&file).and_then(|number| u32::try_from(number).ok());
    let above = |word: &str| {
        let is = |folder: &&Path| {
            let name = folder.file_name().and_then(|name| name.to_str());
            let digits = name.and_then(|name| name.strip_prefix(word));
            digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        };
        folder.ancestors().find(is)
    };
    let ata = above("ata").and_then(|ata| small(ata.join("ata_port").join(ata.file_name()?).join("port_no")));
    let hosts = above("host").and_then(Path::parent).map(names).unwrap_or_default();
    let hosts = hosts.iter().filter_map(|name| name.strip_prefix("host")?.parse().ok());
    Numbers { ata_port: ata, namespace: small(folder.join("nsid")), first_host: hosts.min() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Devices, of, told};

    fn write(folder: &Path, file: &str, bytes: &[u8]) {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn sysfs_tells_serials_wwn_and_path() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        let devices = Devices { sysfs: sys.join("block"), dev: sys.join("dev"), first: None };
        let usb = "devices/pci0000:00/0000:00:07.0/usb2/2-1";
        let disk = format!("{usb}/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdd");
        write(sys, &format!("{usb}/idVendor"), b"46f4\n");
        write(sys, &format!("{usb}/serial"), b"  EX TRA\n");
        write(sys, &format!("{disk}/size"), b"2048\n");
        let device = format!("{usb}/2-1:1.0/host6/target6:0:0/6:0:0:0");
        write(sys, &format!("{device}/vpd_pg80"), b"\0\x80\0\x04S\x1b1 ");
        write(sys, &format!("{device}/wwid"), b"t10.ATA     QEMU   \n");
        std::os::unix::fs::symlink("../..", sys.join(&disk).join("device")).unwrap();
        fs::create_dir_all(&devices.sysfs).unwrap();
        std::os::unix::fs::symlink(sys.join(&disk), devices.sysfs.join("sdd")).unwrap();
        let words = of(&devices, "sdd");
        assert_eq!(words.serials, ["S1", "EX TRA"]);
        assert_eq!(words.wwn.as_deref(), Some("t10.ATA QEMU"));
        assert_eq!(words.paths, ["pci-0000:00:07.0-usb-0:1:1.0-scsi-0:0:0:0"]);
        let want = "serial S1, serial EX TRA, wwn t10.ATA QEMU, path pci-0000:00:07.0-usb-0:1:1.0-scsi-0:0:0:0";
        assert_eq!(told(&words), want);
        assert_eq!(told(&of(&devices, "none")), "nothing tells it");
    }

    #[test]
    fn ports_and_namespaces_are_numbered_by_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        let devices = Devices { sysfs: sys.join("block"), dev: sys.join("dev"), first: None };
        fs::create_dir_all(&devices.sysfs).unwrap();
        let ata = "devices/pci0000:00/0000:00:1f.2/ata3";
        let nvme = "devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n2";
        write(sys, &format!("{ata}/ata_port/ata3/port_no"), b"1\n");
        for (name, place) in
            [("sda", format!("{ata}/host2/target2:0:0/2:0:0:0/block/sda")), ("nvme0n2", nvme.to_owned())]
        {
            write(sys, &format!("{place}/serial"), b"0123\n");
            write(sys, &format!("{place}/nsid"), b"2\n");
            std::os::unix::fs::symlink(sys.join(place), devices.sysfs.join(name)).unwrap();
        }
        assert_eq!(of(&devices, "sda").paths[0], "pci-0000:00:1f.2-ata-1");
        assert_eq!(of(&devices, "nvme0n2").paths, ["pci-0000:01:00.0-nvme-2"]);
    }
}
