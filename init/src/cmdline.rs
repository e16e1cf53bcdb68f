//! Turns the kernel command line's text into the words that kscratch knows ([`CommandLine`]).
use crate::partition::Guid;

pub mod network;
mod root;

pub use root::{Fetched, Root};

/// What the kernel command line says to kscratch (ARCHITECTURE.md, "Kernel command line"). Of a word given twice the last counts,
/// as with the kernel's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// `kscratch.root=`, with the words that belong to it; `Err` says what is wrong with them.
    pub root: Option<Result<Root, String>>,
    /// `kscratch.state=elsewhere`: the root's disk has no place for state.
    pub state_is_elsewhere: bool,
    /// `kscratch.install=PARTUUID=<guid>`: the packed disk that this boot installs; `Err` holds a value that is no such thing.
    pub install: Option<Result<Guid, String>>,
    /// `kscratch.metadata=URL`
    pub metadata_url: Option<String>,
    /// `kscratch.role=<base64 TOML>`, not decoded yet.
    pub role: Option<String>,
    /// `kscratch.log=debug`
    pub debug: bool,
    /// Whether it says what the kernel prints on its console: `loglevel=`, `debug`, `quiet` or `ignore_loglevel`.
    pub kernel_level: bool,
    /// What it says of the network: `ip=`, `bond=` and their kin.
    pub network: network::Words,
}

impl CommandLine {
    /// Reads the text of `/proc/cmdline`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        let (mut pairs, mut of_root) = (Vec::new(), root::Words::default());
        for word in words(text) {
            // Words after `--` belong to init's own arguments (kernel-parameters.rst).
            if word == "--" {
                break;
            }
            let Some((key, value)) = word.split_once('=') else {
                found.kernel_level |= ["debug", "quiet", "ignore_loglevel"].contains(&word.as_str());
                // Without a value, the usual one is meant (dracut.cmdline(7)).
                if ["bond", "bridge"].contains(&word.as_str()) {
                    pairs.push((word, String::new()));
                }
                continue;
            };
            match key {
                "kscratch.root" => of_root.place = Some(value.to_owned()),
                "kscratch.root.sha256" => of_root.sha256 = Some(value.to_owned()),
                "kscratch.root.bytes" => of_root.bytes = Some(value.to_owned()),
                "kscratch.state" => found.state_is_elsewhere = value == "elsewhere",
                "kscratch.install" => {
                    let guid = value.strip_prefix("PARTUUID=").and_then(|guid| guid.parse().ok());
                    found.install = Some(guid.ok_or_else(|| value.to_owned()));
                }
                "kscratch.metadata" => found.metadata_url = Some(value.to_owned()),
                "kscratch.role" => found.role = Some(value.to_owned()),
                "kscratch.log" => found.debug = value == "debug",
                "loglevel" => found.kernel_level = true,
                _ => pairs.push((key.to_owned(), value.to_owned())),
            }
        }
        found.root = of_root.read();
        found.network = network::Words::read(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        found
    }

    /// The root's partition, where it is on a disk.
    #[must_use]
    pub fn root_partition(&self) -> Option<Guid> {
        match &self.root {
            Some(Ok(Root::Partition(guid))) => Some(*guid),
            _ => None,
        }
    }
}

/// Splits at white space outside double quotes and drops the quotes (`next_arg` of the kernel's lib/cmdline.c).
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            space if space.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{CommandLine, Root};

    const GUID: &str = "0b2d1f5e-93c4-8a7b-9f10-5a6c7d8e9f01";

    #[track_caller]
    fn check(text: &str, want: &CommandLine) {
        assert_eq!(&CommandLine::parse(text), want);
    }

    #[test]
    fn words_of_others_are_passed_over() {
        check("console=ttyS0 ro root=/dev/sda1\n", &CommandLine::default());
    }

    #[test]
    fn the_root_is_a_partition_guid() {
        let root = Root::Partition(GUID.parse().unwrap());
        let want = CommandLine { root: Some(Ok(root)), ..CommandLine::default() };
        check(&format!("kscratch.root=PARTUUID={GUID}"), &want);
        check(&format!("kscratch.root=nonsense kscratch.root=PARTUUID={}", GUID.to_uppercase()), &want);
    }

    #[test]
    fn state_is_elsewhere_where_just_that_is_said() {
        for (text, state_is_elsewhere) in
            [("ro", false), ("kscratch.state=elsewhere", true), ("kscratch.state=x", false)]
        {
            check(text, &CommandLine { state_is_elsewhere, ..CommandLine::default() });
        }
    }

    #[test]
    fn what_is_installed_is_told_by_its_own_guid() {
        let install = |text: &str| CommandLine::parse(text).install;
        assert_eq!(install("quiet"), None);
        assert_eq!(install(&format!("kscratch.install=PARTUUID={GUID}")), Some(Ok(GUID.parse().unwrap())));
        assert_eq!(install("kscratch.install=/dev/sda2"), Some(Err("/dev/sda2".to_owned())));
    }

    #[test]
    fn quotes_hold_spaces_and_equal_signs_stay() {
        let want = CommandLine {
            metadata_url: Some("http://h/a?b=c d".into()),
            role: Some("dmVyc2lvbiA9IDE=".into()),
            debug: true,
            ..CommandLine::default()
        };
        check("kscratch.metadata=\"http://h/a?b=c d\" kscratch.role=dmVyc2lvbiA9IDE= kscratch.log=debug", &want);
    }

    #[test]
    fn what_stands_after_two_dashes_is_not_for_us() {
        check("ro -- quiet kscratch.log=debug", &CommandLine::default());
    }

    #[test]
    fn who_says_what_the_kernel_prints_is_heard() {
        for text in ["quiet", "debug", "ignore_loglevel", "loglevel=7"] {
            check(text, &CommandLine { kernel_level: true, ..CommandLine::default() });
        }
        check("debug=1 printk.time=1", &CommandLine::default());
    }
}
