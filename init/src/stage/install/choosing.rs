//! Decides which disk is meant, and puts what disks say of themselves into lines for a person who has to name one.
use std::path::PathBuf;

use kscratch_install::blockdevice::Contents;
use kscratch_install::refuse::{self, Needs, Refusal, Victim};
use kscratch_install::words::human_bytes;
use kscratch_metadata::{DiskWords, Install};

use crate::stage::block::words;

/// What somebody does who sees the list.
pub const HOW: [&str; 3] = [
    "to install onto one of them, name it in the metadata: [install] with its serial, wwn or path, and put them onto the medium: kscratch-image stamp FILE.iso --metadata role.toml",
    "a disk with something on it is written to only where the table says what is given up: replaces = \"...\", as it stands there",
    "the machine waits for the power button, ctrl-alt-del, or a key (`?` lists them)",
];

/// A disk that might be meant.
#[derive(Debug)]
pub struct Candidate {
    /// Its device file.
    pub device: PathBuf,
    /// What the kernel tells of it, and what is on it.
    pub victim: Victim,
    /// By which words metadata may name it.
    pub words: DiskWords,
    /// Whether it is what is installed from.
    pub medium: bool,
}

/// Which disk is meant.
#[derive(Debug)]
pub enum Choice {
    /// None of these.
    None(Vec<Candidate>),
    /// This one.
    One(Box<Candidate>),
    /// It may be any of those of these names.
    Several(Vec<String>),
}

impl Candidate {
    /// Every reason not to write to it.
    pub fn refusals(&self, needs: &Needs, replaces: Option<&str>) -> Vec<Refusal> {
        refuse::unattended(&self.victim, needs, self.medium, replaces)
    }

    /// What it is, in one line.
    pub fn words(&self) -> String {
        let device = self.victim.device.as_ref();
        let mut words = Vec::new();
        if let Some(device) = device {
            words.extend(device.model.clone());
            words.push(human_bytes(device.bytes));
            words.extend(device.transport.map(str::to_owned));
        }
        words.push(words::told(&self.words));
        words.join(", ")
    }
}

/// The disk that the table names.
pub fn choose(install: &Install, all: Vec<Candidate>) -> Choice {
    let (mut named, others): (Vec<Candidate>, Vec<Candidate>) =
        all.into_iter().partition(|candidate| install.is(&candidate.words));
    match (named.pop(), named.is_empty()) {
        (None, _) => Choice::None(others),
        (Some(one), true) => Choice::One(Box::new(one)),
        (Some(one), false) => {
            let names = named.iter().chain([&one]).map(|candidate| candidate.device.display().to_string());
            Choice::Several(names.collect())
        }
    }
}

/// Whether the disk holds the image of this medium (its GUID `image`) and was given it by this attempt or a later one (`theirs`, of its own metadata):
/// then it is done, however often the medium is booted. One whose metadata do not say has had its first.
pub fn is_done(contents: Option<&Contents>, image: &str, theirs: Option<u32>, install: &Install) -> bool {
    let holds = matches!(contents, Some(Contents::Gpt { guid, .. }) if guid == image);
    holds && install.attempt <= theirs.unwrap_or(1)
}

/// What disks there are, and what may be done with each.
pub fn listed(all: &[Candidate], needs: &Needs) -> Vec<String> {
    let mut lines = Vec::new();
    for candidate in all {
        lines.push(format!("disk {}: {}", candidate.device.display(), candidate.words()));
        if let Some(contents) = &candidate.victim.contents {
            lines.push(format!("  holds {contents}"));
        }
        let refusals = candidate.refusals(needs, None);
        let (holds, others): (Vec<&Refusal>, Vec<&Refusal>) =
            refusals.iter().partition(|refusal| matches!(refusal, Refusal::Holds { .. }));
        let reasons = joined(others.iter().map(ToString::to_string));
        lines.push(match (holds.first(), others.is_empty()) {
            (_, false) => format!("  cannot be installed onto: {reasons}"),
            (None, true) => "  can be installed onto".to_owned(),
            (Some(Refusal::Holds { name: Some(name), .. }), true) => {
                format!("  can be installed onto with replaces = \"{name}\"")
            }
            (Some(_), true) => "  cannot be installed onto: it is not known what is on it".to_owned(),
        });
    }
    if lines.is_empty() {
        lines.push("there is no disk at all".to_owned());
    }
    lines
}

/// The reasons in one line, and what helps against them.
pub fn refused(refusals: &[Refusal]) -> (String, Vec<String>) {
    let way = |refusal: &Refusal| match refusal {
        Refusal::Holds { name: Some(name), .. } => {
            Some(format!("to give up what is on it, write replaces = \"{name}\" into [install]"))
        }
        Refusal::Blocks { bytes: bytes @ (512 | 4096), .. } => {
            Some(format!("kscratch-image build --format iso --sector-size {bytes} makes one for this disk"))
        }
        _ => None,
    };
    (joined(refusals.iter().map(ToString::to_string)), refusals.iter().filter_map(way).collect())
}

fn joined(reasons: impl Iterator<Item = String>) -> String {
    reasons.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use kscratch_install::blockdevice::{BlockDevice, Contents, Kind};
    use kscratch_install::refuse::{Needs, Victim};
    use kscratch_metadata::{DiskWords, Install, parse};

    use super::{Candidate, Choice, choose, is_done, listed, refused};

    const NEEDS: Needs = Needs { bytes: 4 << 30, sector: Some(512) };

    fn disk(name: &str, serial: &str, contents: Contents) -> Candidate {
        let device = BlockDevice {
            name: name.into(),
            path: format!("/dev/{name}").into(),
            kind: Kind::Disk,
            bytes: 8 << 30,
            block: 512,
            model: Some("QEMU NVMe Ctrl".into()),
            serial: Some(serial.into()),
            wwn: None,
            transport: Some("nvme"),
            removable: false,
            read_only: false,
            uses: Vec::new(),
            sequence: None,
        };
        let victim = Victim { path: device.path.clone(), device: Some(device), contents: Some(contents), busy: false };
        let words = DiskWords { serials: vec![serial.into()], ..DiskWords::default() };
        Candidate { device: victim.path.clone(), victim, words, medium: false }
    }

    fn table() -> Contents {
        Contents::Gpt { guid: "g1".into(), partitions: Vec::new() }
    }

    fn install(text: &str) -> Install {
        let text = format!("version = 1\nrole = \"node\"\n[install]\n{text}\n");
        parse(&text).unwrap().install.unwrap()
    }

    fn chosen(text: &str) -> String {
        let all = vec![
            disk("nvme0n1", "A", Contents::Empty),
            disk("nvme1n1", "B", table()),
            disk("sda", "B", Contents::Empty),
        ];
        match choose(&install(text), all) {
            Choice::None(all) => format!("none of {}", all.len()),
            Choice::One(one) => one.device.display().to_string(),
            Choice::Several(names) => names.join(" or "),
        }
    }

    #[test]
    fn one_disk_is_meant_or_none_is_written_to() {
        assert_eq!(chosen("serial = \"A\""), "/dev/nvme0n1");
        assert_eq!(chosen("serial = \"B\""), "/dev/nvme1n1 or /dev/sda");
        assert_eq!(chosen("serial = \"C\""), "none of 3");
        assert_eq!(chosen("serial = \"A\"\nwwn = \"eui.0025385b01234567\""), "none of 3");
    }

    #[test]
    fn a_disk_that_is_named_is_refused_by_what_is_true_of_it() {
        let why = |candidate: &Candidate, replaces: Option<&str>| refused(&candidate.refusals(&NEEDS, replaces));
        let none: (String, Vec<String>) = (String::new(), Vec::new());
        assert_eq!(why(&disk("sda", "A", Contents::Empty), None), none);
        assert_eq!(why(&disk("sda", "A", table()), Some("gpt:g1")), none);
        let way = "to give up what is on it, write replaces = \"gpt:g1\" into [install]".to_owned();
        let holds = "something is on it: GPT without partitions".to_owned();
        assert_eq!(why(&disk("sda", "A", table()), None), (holds, vec![way]));
        let mut medium = disk("sda", "A", Contents::Empty);
        medium.medium = true;
        assert_eq!(why(&medium, None).0, "it is the medium that is installed from");
        let mut small = disk("sda", "A", Contents::Empty);
        let device = small.victim.device.as_mut().unwrap();
        (device.bytes, device.block, device.read_only) = (1 << 30, 4096, true);
        let (reasons, ways) = why(&small, None);
        assert_eq!(
            reasons,
            "it has 1073741824 bytes (1.0 GiB), and the image needs 4294967296 bytes (4.0 GiB); it is read-only; its blocks are 4096 bytes long, and the image is made for blocks of 512"
        );
        assert_eq!(ways, ["kscratch-image build --format iso --sector-size 4096 makes one for this disk"]);
        // What cannot be read is not given up by any word.
        let unreadable = disk("sda", "A", Contents::Unreadable { reason: "it is gone".into() });
        assert!(!why(&unreadable, Some("unknown")).0.is_empty());
    }

    #[test]
    fn a_disk_that_has_this_image_is_done_until_the_metadata_count_further() {
        let done = |contents: Contents, theirs: Option<u32>, text: &str| {
            is_done(Some(&contents), "g1", theirs, &install(&format!("serial = \"A\"\n{text}")))
        };
        assert!(done(table(), None, "") && done(table(), Some(1), "") && done(table(), Some(3), "attempt = 3"));
        assert!(!done(table(), None, "attempt = 2") && !done(table(), Some(2), "attempt = 3"));
        let other = Contents::Gpt { guid: "g2".into(), partitions: Vec::new() };
        assert!(!done(other, Some(9), "") && !done(Contents::Empty, None, ""));
    }

    #[test]
    fn the_list_says_what_to_write() {
        let mut medium = disk("sr0", "D", Contents::Unknown);
        medium.medium = true;
        let all = [disk("nvme0n1", "A", Contents::Empty), disk("sda", "B", table()), medium];
        assert_eq!(
            listed(&all, &NEEDS),
            [
                "disk /dev/nvme0n1: QEMU NVMe Ctrl, 8.0 GiB, nvme, serial A",
                "  holds empty",
                "  can be installed onto",
                "disk /dev/sda: QEMU NVMe Ctrl, 8.0 GiB, nvme, serial B",
                "  holds GPT without partitions",
                "  can be installed onto with replaces = \"gpt:g1\"",
                "disk /dev/sr0: QEMU NVMe Ctrl, 8.0 GiB, nvme, serial D",
                "  holds data of an unknown kind",
                "  cannot be installed onto: it is the medium that is installed from",
            ]
        );
        assert_eq!(listed(&[], &NEEDS), ["there is no disk at all"]);
    }
}
