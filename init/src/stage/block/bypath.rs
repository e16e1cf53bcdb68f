//! Turns a disk's place in sysfs into the names that it has in `/dev/disk/by-path` on a system with udev: no number in them depends on the order in which things are found.

/// What else the names take, read from sysfs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// `port_no` of its ATA port, from 1.
    pub ata_port: Option<u32>,
    /// `nsid` of its NVMe namespace.
    pub namespace: Option<u32>,
    /// The first number of the SCSI hosts that its controller has.
    pub first_host: Option<u32>,
}

/// The names, as udev's `path_id` makes them, for disks of PCI controllers: virtio, NVMe, SATA, SCSI and USB. None for what is reached by a network or an
/// expander, whose disks have a WWN.
#[must_use]
pub fn names(sysfs: &str, numbers: Numbers) -> Vec<String> {
    let parts: Vec<&str> = sysfs.split('/').collect();
    let Some(at) = parts.iter().rposition(|part| is_pci(part)) else { return Vec::new() };
    let (Some(address), Some(behind)) = (parts.get(at), parts.get(at + 1..)) else { return Vec::new() };
    let has = |word: &str| behind.iter().any(|part| numbered(part, word).is_some());
    if behind.iter().any(|part| ["end_device-", "rport-", "session"].iter().any(|word| part.starts_with(word))) {
        return Vec::new();
    }
    let pci = format!("pci-{address}");
    let scsi = behind.iter().find_map(|part| scsi(part, numbers.first_host));
    if has("nvme") {
        return numbers.namespace.map(|number| format!("{pci}-nvme-{number}")).into_iter().collect();
    }
    if has("ata") {
        let port = numbers.ata_port.map(|port| [format!("{pci}-ata-{port}"), format!("{pci}-ata-{port}.0")]);
        return port.into_iter().flatten().collect();
    }
    if has("usb") {
        // The interface, `BUS-PORT:CONFIGURATION.INTERFACE`: the bus has its number by order.
        let port = behind.iter().filter(|part| part.contains(':')).find_map(|part| part.split_once('-'));
        let name = scsi.zip(port).map(|(scsi, (_, port))| format!("{pci}-usb-0:{port}-{scsi}"));
        return name.into_iter().collect();
    }
    let tail = scsi.map(|scsi| format!("-{scsi}")).unwrap_or_default();
    match (has("virtio"), tail.is_empty()) {
        (true, _) => vec![format!("{pci}{tail}"), format!("virtio-{pci}{tail}")],
        (false, false) => vec![format!("{pci}{tail}")],
        (false, true) => Vec::new(),
    }
}

/// `0000:00:1f.2`: domain, bus, device and function.
fn is_pci(part: &str) -> bool {
    let fields: Vec<&str> = part.split([':', '.']).collect();
    let hex = |field: &&str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_hexdigit());
    fields.len() == 4
        && part.matches(':').count() == 2
        && fields.iter().all(hex)
        && fields.get(1).is_some_and(|bus| bus.len() == 2)
}

/// The number behind a word, as in `virtio2`; `nvme` alone is the class of one.
fn numbered(part: &str, word: &str) -> Option<u32> {
    part.strip_prefix(word)?.parse().ok()
}

/// `HOST:CHANNEL:ID:LUN`, the host counted from the first one of the controller.
fn scsi(part: &str, first_host: Option<u32>) -> Option<String> {
    let fields: Vec<u32> = part.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [host, channel, id, lun] = fields.as_slice() else { return None };
    Some(format!("scsi-{}:{channel}:{id}:{lun}", host.saturating_sub(first_host.unwrap_or(*host))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{Numbers, names};

    #[track_caller]
    fn check(sysfs: &str, numbers: Numbers, want: &[&str]) {
        assert_eq!(names(sysfs, numbers), want, "{sysfs}");
    }

    #[test]
    fn names_are_those_of_udev() {
        let none = Numbers::default();
        let host = |first| Numbers { first_host: Some(first), ..none };
        let root = "/sys/devices/pci0000:00";
        check(
            &format!("{root}/0000:00:04.0/virtio2/block/vdb"),
            none,
            &["pci-0000:00:04.0", "virtio-pci-0000:00:04.0"],
        );
        check(
            &format!("{root}/0000:00:1c.0/0000:01:00.0/nvme/nvme0/nvme0n1"),
            Numbers { namespace: Some(1), ..none },
            &["pci-0000:01:00.0-nvme-1"],
        );
        check(
            &format!("{root}/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/block/sda"),
            Numbers { ata_port: Some(1), ..host(2) },
            &["pci-0000:00:1f.2-ata-1", "pci-0000:00:1f.2-ata-1.0"],
        );
        check(
            &format!("{root}/0000:00:06.0/virtio5/host7/target7:0:3/7:0:3:0/block/sdc"),
            host(7),
            &["pci-0000:00:06.0-scsi-0:0:3:0", "virtio-pci-0000:00:06.0-scsi-0:0:3:0"],
        );
        check(
            &format!("{root}/0000:03:00.0/host1/target1:2:0/1:2:0:0/block/sdb"),
            host(0),
            &["pci-0000:03:00.0-scsi-1:2:0:0"],
        );
        check(
            &format!("{root}/0000:00:07.0/usb2/2-1/2-1.4/2-1.4:1.0/host6/target6:0:0/6:0:0:0/block/sdd"),
            host(6),
            &["pci-0000:00:07.0-usb-0:1.4:1.0-scsi-0:0:0:0"],
        );
        for nameless in [
            "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1".to_owned(),
            "/sys/devices/virtual/block/loop0".to_owned(),
            format!("{root}/0000:03:00.0/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0/block/sda"),
            format!("{root}/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/block/sda"),
            "/sys/devices/platform/soc/mmc_host/mmc0/mmc0:0001/block/mmcblk0".to_owned(),
            String::new(),
        ] {
            check(&nameless, none, &[]);
        }
    }

    proptest! {
        #[test]
        fn no_place_breaks_it(place in "([a-z0-9:.-]{0,12}/){0,8}", number in any::<Option<u32>>()) {
            let numbers = Numbers { ata_port: number, namespace: number, first_host: number };
            let _ = names(&format!("/sys/devices/pci0000:00/0000:00:04.0/{place}"), numbers);
            let _ = names(&place, numbers);
        }
    }
}
