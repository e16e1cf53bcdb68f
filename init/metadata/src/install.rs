//! The `[install]` table: which disk the installer of an ISO image writes to, and what becomes of the machine then. An installed machine passes over it.
use schemars::JsonSchema;
use serde::Serialize;

use crate::disks::{DiskWords, Told, words};
use crate::identity::Uuid;
use crate::read::{Fault, Reader, Table, fault};

/// What an ISO image's installer does without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Install {
    /// Serial number of the disk. Of `serial`, `wwn` and `path` one at least is given, and all that are given have to be true of one disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its World Wide Name, with or without `naa.`, `0x` or `wwn-` before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// The way to it: a name of `/dev/disk/by-path`, such as `pci-0000:00:1f.2-ata-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is on it now and is given up for this, in the word that the installer says: `gpt:GUID` of a disk with partitions, `mbr:SIGNATURE`, or the
    /// name of a filesystem such as `xfs`. Without it only a disk with nothing on it is written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// What becomes of the machine when it is installed. Default `power-off`: whoever sees it off pulls the stick.
    #[schemars(default)]
    pub then: Then,
    /// Counted up to have the same image put onto the disk again, which a medium that stays in the machine would else do at every boot: a disk that
    /// holds the image already is written to only where its own metadata have a smaller number. Default 1.
    #[schemars(default = "first_attempt", range(min = 1, max = 1_000_000))]
    pub attempt: u32,
}

fn first_attempt() -> u32 {
    1
}

/// What becomes of a machine that was installed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// It is switched off.
    #[default]
    PowerOff,
    /// It starts anew: from its disk, where the firmware prefers that to the medium.
    Reboot,
}

impl Install {
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

/// Reads the table.
pub(crate) fn install(reader: &mut Reader<'_>, mut table: Table<'_>) -> Install {
    let [serial, wwn, path] = words(reader, &mut table);
    let replaces = reader.take_string(&mut table, "replaces", replaces);
    let then = reader.take_string(&mut table, "then", |text| match text {
        "power-off" => Ok(Then::PowerOff),
        "reboot" => Ok(Then::Reboot),
        other => Err(fault(format!("{other:?} is no end"), "use \"power-off\" or \"reboot\"")),
    });
    let attempt = reader.take_integer(&mut table, "attempt", 1, 1_000_000).and_then(|number| number.try_into().ok());
    reader.finish(&table);
    let attempt = attempt.unwrap_or_else(first_attempt);
    Install { serial, wwn, path, replaces, then: then.unwrap_or_default(), attempt }
}

fn replaces(text: &str) -> Result<String, Fault> {
    const FIX: &str =
        "write the word that the installer says, e.g. gpt:0b2d1f5e-93c4-8a7b-9f10-5a6c7d8e9f01, mbr:1a2b3c4d or xfs";
    let wrong = || fault(format!("{text:?} names nothing that a disk holds"), FIX);
    if let Some(guid) = text.strip_prefix("gpt:") {
        return guid.parse::<Uuid>().map(|guid| format!("gpt:{guid}")).map_err(|()| wrong());
    }
    if let Some(signature) = text.strip_prefix("mbr:") {
        let hex = signature.len() == 8 && signature.bytes().all(|byte| byte.is_ascii_hexdigit());
        return if hex { Ok(format!("mbr:{}", signature.to_ascii_lowercase())) } else { Err(wrong()) };
    }
    // A general word would give up whatever happens to be there.
    let word = (2..=16).contains(&text.len())
        && !["any", "all", "anything", "true", "yes"].contains(&text)
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if word { Ok(text.to_owned()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{Install, Then, replaces};
    use crate::{DiskWords, parse, parse_with_secrets};

    fn read(text: &str) -> Result<Option<Install>, String> {
        let parsed = parse(&format!("version = 1\nrole = \"node\"\n{text}\n"));
        parsed.map(|metadata| metadata.install).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_disk_is_told_and_the_machine_is_off_then() {
        assert_eq!(read(""), Ok(None));
        let guid = "0B2D1F5E-93C4-8A7B-9F10-5A6C7D8E9F01";
        let told = read(&format!("[install]\nserial = \"S  1\"\nreplaces = \"gpt:{guid}\"")).unwrap().unwrap();
        assert_eq!((told.told_by().as_str(), told.then), ("serial S 1", Then::PowerOff));
        assert_eq!(told.replaces, Some(format!("gpt:{}", guid.to_lowercase())));
        let has = |serial: &str| told.is(&DiskWords { serials: vec![serial.to_owned()], ..DiskWords::default() });
        assert!(has("S 1 ") && !has("S 2"));
        let reboots = read("[install]\npath = \"pci-0000:00:1f.2-ata-1\"\nthen = \"reboot\"").unwrap().unwrap();
        assert_eq!((reboots.then, reboots.attempt), (Then::Reboot, 1));
        assert_eq!(read("[install]\nserial = \"S\"\nattempt = 2").unwrap().unwrap().attempt, 2);
    }

    #[test]
    fn what_names_no_disk_or_too_much_is_refused() {
        for (text, want) in [
            ("[install]", "install: nothing says which disk this is; give it a serial, wwn or path"),
            ("[install]\npath = \"/dev/sda\"", "install.path: \"/dev/sda\" is given by order"),
            ("[install]\nserial = \"S\"\nreplaces = true", "install.replaces: is a boolean"),
            ("[install]\nserial = \"S\"\nreplaces = \"anything\"", "\"anything\" names nothing that a disk holds"),
            ("[install]\nserial = \"S\"\nreplaces = \"gpt:1\"", "\"gpt:1\" names nothing that a disk holds"),
            ("[install]\nserial = \"S\"\nreplaces = \"mbr:1\"", "\"mbr:1\" names nothing that a disk holds"),
            (
                "[install]\nserial = \"S\"\nthen = \"sing\"",
                "install.then: \"sing\" is no end; use \"power-off\" or \"reboot\"",
            ),
            ("[install]\nserial = \"S\"\nattempt = 0", "install.attempt: 0 is smaller than 1"),
            ("[install]\nserial = \"S\"\nforce = true", "install.force: there is no such field"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
        let secrets = parse_with_secrets("version = 1\nrole = \"node\"\n", "[install]\nserial = \"S\"\n").unwrap_err();
        assert!(secrets.to_string().contains("install: is no secret"), "{secrets}");
    }

    proptest! {
        #[test]
        fn a_word_is_read_to_what_it_is(text in "(gpt:|mbr:)?[ -~]{0,40}") {
            if let Ok(read) = replaces(&text) {
                prop_assert_eq!(replaces(&read).ok(), Some(read));
            }
        }
    }
}
