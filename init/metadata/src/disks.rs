//! The shape of `[[disks]]`: what is kept on a disk of its own, and by which words of its own that disk is told.
use schemars::JsonSchema;
use serde::Serialize;

use crate::identity::{Uuid, is_placeholder};
use crate::read::{Fault, Reader, Table, fault};
use crate::role::{Role, RoleMetadata};

/// A disk besides the one that the machine runs from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Disk {
    /// What is kept on it.
    #[serde(rename = "for")]
    pub purpose: Purpose,
    /// Its serial number. Of `serial`, `wwn` and `path` one at least is given, and all that are given have to be true of one disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its World Wide Name (`/sys/block/NAME/device/wwid` or `/sys/block/NAME/wwid`), with or without `naa.`, `0x` or `wwn-` before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// The way to it: a name of `/dev/disk/by-path`, such as `pci-0000:00:1f.2-ata-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where etcd's data were that are given up for this disk: `state`, or the GUID that the machine said. Only for etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// What may have a disk of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// `/var/lib/docker`: images and containers.
    Docker,
    /// `/var/lib/etcd`: the cluster's store, on masters alone.
    Etcd,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Purpose; 2] = [Purpose::Docker, Purpose::Etcd];

    /// The word that role metadata have for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Etcd => "etcd",
        }
    }
}

/// What a disk says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskWords {
    /// Serial numbers: its own, and that of the USB device that it is in.
    pub serials: Vec<String>,
    /// World Wide Name, EUI-64 or NGUID.
    pub wwn: Option<String>,
    /// Names of `/dev/disk/by-path` that it has.
    pub paths: Vec<String>,
}

/// The words by which a disk is told, as the metadata give them; all that are given have to be true of one disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) serial: Option<&'a str>,
    pub(crate) wwn: Option<&'a str>,
    pub(crate) path: Option<&'a str>,
}

impl Told<'_> {
    pub(crate) fn is(self, words: &DiskWords) -> bool {
        let serial = |serial: &str| words.serials.iter().any(|own| normal_serial(own) == serial);
        let wwn = |wwn: &str| words.wwn.as_deref().map(normal_wwn).as_deref() == Some(wwn);
        let given = self.serial.is_some() || self.wwn.is_some() || self.path.is_some();
        given
            && self.serial.is_none_or(serial)
            && self.wwn.is_none_or(wwn)
            && self.path.is_none_or(|path| words.paths.iter().any(|own| own == path))
    }

    pub(crate) fn by(self) -> String {
        let given = [("serial", self.serial), ("wwn", self.wwn), ("path", self.path)];
        let given = given.iter().filter_map(|(key, value)| Some(format!("{key} {}", (*value)?)));
        given.collect::<Vec<_>>().join(" and ")
    }
}

impl Disk {
    fn told(&self) -> Told<'_> {
        Told { serial: self.serial.as_deref(), wwn: self.wwn.as_deref(), path: self.path.as_deref() }
    }

    /// Whether a disk that says this of itself is the one that is meant.
    #[must_use]
    pub fn is(&self, words: &DiskWords) -> bool {
        self.told().is(words)
    }

    /// How it is told, e.g. `serial S1 and path pci-0000:00:05.0-nvme-1`.
    #[must_use]
    pub fn told_by(&self) -> String {
        self.told().by()
    }
}

/// Takes the serial, wwn and path by which a table tells a disk; one of them has to be there.
pub(crate) fn words(reader: &mut Reader<'_>, table: &mut Table<'_>) -> [Option<String>; 3] {
    let words = [("serial", serial as fn(&str) -> Result<String, Fault>), ("wwn", wwn), ("path", path)]
        .map(|(key, parse)| reader.take_string(table, key, parse));
    if !["serial", "wwn", "path"].iter().any(|key| reader.given(&table.path_of(key))) {
        let fix = "give it a serial, wwn or path: `kscratch-image devices` tells them, and so does the machine itself";
        reader.fault_at(table.path(), fault("nothing says which disk this is", fix));
    }
    words
}

/// Reads `[[disks]]`.
pub(crate) fn disks(reader: &mut Reader<'_>, root: &mut Table<'_>) -> Vec<Disk> {
    let Some(field) = reader.take(root, "disks") else {
        return Vec::new();
    };
    let mut disks: Vec<Disk> = Vec::new();
    for item in reader.array(&field) {
        let Some(mut table) = reader.table(&item) else {
            continue;
        };
        let read = disk(reader, &mut table);
        reader.finish(&table);
        let Some(disk) = read else {
            continue;
        };
        if let Some(first) = disks.iter().position(|other| other.purpose == disk.purpose) {
            let what = format!("disks[{first}] is for {} too", disk.purpose.word());
            reader.fault_at(&table.path_of("for"), fault(what, "remove one of the two"));
        } else if let Some(first) = disks.iter().position(|other| other.told_by() == disk.told_by()) {
            let what = format!("is the disk of disks[{first}] too");
            reader.fault_at(table.path(), fault(what, "give each its own disk"));
        }
        disks.push(disk);
    }
    disks
}

fn disk(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Option<Disk> {
    let purpose = reader.take_string(table, "for", |text| {
        let known = Purpose::ALL.into_iter().find(|purpose| purpose.word() == text);
        known.ok_or_else(|| fault(format!("{text:?} has no disk of its own"), "use \"docker\" or \"etcd\""))
    });
    let [serial, wwn, path] = words(reader, table);
    let replaces = reader.take_string(table, "replaces", replaces);
    if !reader.given(&table.path_of("for")) {
        let fix = "write `for = \"docker\"` or `for = \"etcd\"`";
        reader.fault_at(&table.path_of("for"), fault("is missing", fix));
    }
    if purpose == Some(Purpose::Docker) && replaces.is_some() {
        let fix = "remove it: docker begins anew on a blank disk without it";
        reader.fault_at(&table.path_of("replaces"), fault("is for etcd's disk alone", fix));
    }
    Some(Disk { purpose: purpose?, serial, wwn, path, replaces })
}

/// A node has no etcd.
pub(crate) fn check(reader: &mut Reader<'_>, metadata: &RoleMetadata) {
    let etcd = metadata.disks.iter().position(|disk| disk.purpose == Purpose::Etcd);
    if let Some(index) = etcd.filter(|_| metadata.role == Role::Node) {
        let fix = "remove it, or write role = \"master\"";
        reader.fault_at(&format!("disks[{index}].for"), fault("is for masters only", fix));
    }
}

/// A serial number with one blank where it has several, and none at its ends: makers fill fields with blanks.
#[must_use]
pub fn normal_serial(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A World Wide Name in the one way to write it: sysfs, udev and lsblk have the same one as `naa.5000…`, `wwn-0x5000…` and `0x5000…`; of NVMe as `eui.…` and
/// `nvme-eui.…`.
#[must_use]
pub fn normal_wwn(text: &str) -> String {
    let text = normal_serial(text).to_ascii_lowercase();
    let mut name = text.as_str();
    while let Some(rest) = ["wwn-", "nvme-", "naa.", "0x"].iter().find_map(|before| name.strip_prefix(before)) {
        name = rest;
    }
    name.to_owned()
}

fn serial(text: &str) -> Result<String, Fault> {
    let text = normal_serial(text);
    if is_placeholder(&text) {
        let what = format!("{text:?} is what makers leave in, and other disks have it too");
        return Err(fault(what, "tell the disk by its wwn or path"));
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(fault(format!("{text:?} is no serial number"), "write what `kscratch-image devices` shows for it"));
    }
    Ok(text)
}

fn wwn(text: &str) -> Result<String, Fault> {
    let name = normal_wwn(text);
    // An EUI-64 has 16 digits, and so has the shortest NAA.
    let long = name.chars().filter(char::is_ascii_alphanumeric).count() >= 16;
    if long && name.chars().all(|char| char.is_ascii_graphic() || char == ' ') && name.chars().any(|char| char != '0') {
        return Ok(name);
    }
    Err(fault(format!("{text:?} is no World Wide Name"), "write it like naa.5000c500a1b2c3d4 or eui.0025385b01234567"))
}

fn path(text: &str) -> Result<String, Fault> {
    const FIX: &str = "give what `ls -l /dev/disk/by-path` shows for it, e.g. pci-0000:00:1f.2-ata-1";
    let name = text.strip_prefix("/dev/disk/by-path/").unwrap_or(text);
    if name.starts_with("/dev/") {
        return Err(fault(format!("{name:?} is given by order, and another disk's at the next boot"), FIX));
    }
    let digits = name.rsplit_once("-part").map(|(_, number)| number);
    if digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(fault(format!("{name:?} is a partition"), "give the whole disk, without -partN"));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":._+-".contains(&byte);
    if name.contains('-') && name.bytes().all(fits) {
        return Ok(name.to_owned());
    }
    Err(fault(format!("{name:?} is no way to a disk"), FIX))
}

fn replaces(text: &str) -> Result<String, Fault> {
    if text == "state" {
        return Ok(text.to_owned());
    }
    let guid = text.parse::<Uuid>().map(|guid| guid.to_string());
    guid.map_err(|()| fault(format!("{text:?} is neither \"state\" nor a GUID"), "write what the machine said"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{Disk, DiskWords, Purpose, path, serial, wwn};

    #[test]
    fn a_disk_is_told_by_all_that_is_given() {
        let words = DiskWords {
            serials: vec!["S  1 ".into(), "USB7".into()],
            wwn: Some("naa.5000C500A1B2C3D4".into()),
            paths: vec!["pci-0000:00:04.0".into(), "virtio-pci-0000:00:04.0".into()],
        };
        let read = |serial_: Option<&str>, wwn_: Option<&str>, path_: Option<&str>| Disk {
            purpose: Purpose::Docker,
            serial: serial_.map(|text| serial(text).unwrap()),
            wwn: wwn_.map(|text| wwn(text).unwrap()),
            path: path_.map(|text| path(text).unwrap()),
            replaces: None,
        };
        for (given, want) in [
            ((Some("S 1"), None, None), true),
            ((Some("USB7"), None, None), true),
            ((Some("s 1"), None, None), false),
            ((None, Some("0x5000c500a1b2c3d4"), None), true),
            ((None, Some("wwn-0x5000c500a1b2c3d4"), None), true),
            ((None, Some("naa.5000c500a1b2c3d5"), None), false),
            ((None, None, Some("/dev/disk/by-path/pci-0000:00:04.0")), true),
            ((None, None, Some("pci-0000:00:04.1")), false),
            ((Some("S 1"), Some("5000c500a1b2c3d4"), Some("virtio-pci-0000:00:04.0")), true),
            ((Some("S 1"), Some("5000c500a1b2c3d5"), None), false),
            ((None, None, None), false),
        ] {
            assert_eq!(read(given.0, given.1, given.2).is(&words), want, "{given:?}");
            assert!(!read(given.0, given.1, given.2).is(&DiskWords::default()), "{given:?}");
        }
        assert_eq!(read(Some("S 1"), None, Some("pci-1")).told_by(), "serial S 1 and path pci-1");
    }

    proptest! {
        /// What was read once is read as the same again, and is said of a disk that has it.
        #[test]
        fn words_are_read_to_what_they_are(text in "(wwn-|naa\\.|0x|/dev/disk/by-path/)?[ -~\t]{0,24}") {
            for parse in [serial, wwn, path] {
                if let Ok(read) = parse(&text) {
                    prop_assert_eq!(parse(&read).ok(), Some(read));
                }
            }
            if let Ok(read) = wwn(&text) {
                let disk = Disk { purpose: Purpose::Etcd, serial: None, wwn: Some(read), path: None, replaces: None };
                let words = DiskWords { wwn: Some(text), ..DiskWords::default() };
                prop_assert!(disk.is(&words));
            }
        }
    }
}
