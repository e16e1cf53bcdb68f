//! Turns what is known of a disk and its machine into the reasons not to wipe its state.
use std::fmt;
use std::str::FromStr;

use kscratch_install::blockdevice::{Contents, Use};
use kscratch_install::refuse::Refusal;

use super::{Machine, State};

/// A reason that the user says does not count, in its exact words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Override {
    /// `etcd:m1`: the share of etcd of this master.
    Etcd(String),
    /// `holds:luks`: what is on the partition.
    Holds(String),
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Override, String> {
        match text.split_once(':') {
            Some(("etcd", name)) if !name.is_empty() => Ok(Override::Etcd(name.to_owned())),
            Some(("holds", what)) if !what.is_empty() => Ok(Override::Holds(what.to_owned())),
            _ => Err("it is one of etcd:NAME, holds:WHAT, as the refusal says it".to_owned()),
        }
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Override::Etcd(name) => write!(f, "etcd:{name}"),
            Override::Holds(what) => write!(f, "holds:{what}"),
        }
    }
}

/// A reason not to wipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// What `flash` would not write to either.
    Device(Refusal),
    /// The partition is meant for state, and something else is on it.
    Holds {
        /// What, for people.
        what: String,
        /// The word for just this; none where nobody knows what it is.
        name: Option<String>,
    },
    /// It is a master's, or may be.
    Etcd {
        /// The machine's name, or the disk's GUID where the disk tells none.
        name: String,
        /// Whether it can be read that it is.
        certain: bool,
        /// Whether the cluster's own identity is on it.
        authority: bool,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Device(Refusal::Partition(name)) => write!(f, "{name} is a partition, and not a machine's disk"),
            Reason::Device(refusal) => write!(f, "{refusal}"),
            Reason::Holds { what, .. } => write!(f, "there is no state on its state partition: {what}"),
            Reason::Etcd { name, certain, authority } => {
                let whose = if *certain { "it is the disk of the master" } else { "it may be the disk of a master," };
                write!(
                    f,
                    "{whose} {name}: its share of etcd is lost with its state, and where it is the only master, the cluster"
                )?;
                if *authority { f.write_str(", whose identity is on no other disk") } else { Ok(()) }
            }
        }
    }
}

impl Reason {
    /// Those that are of the device or the file, whatever is on it. None is overridden: a filesystem that is mounted writes back what was wiped.
    pub fn of_device(refusals: Vec<Refusal>) -> Vec<Reason> {
        // That a file is there is the point of it.
        refusals.into_iter().filter(|refusal| !matches!(refusal, Refusal::Exists(_))).map(Reason::Device).collect()
    }

    /// Those that are of the machine whose disk it is, but for `overrides`. `disk` is the disk's GUID.
    pub fn of_machine(machine: &Machine, disk: &str, overrides: &[Override]) -> Vec<Reason> {
        let mut all = Vec::new();
        if let State::Other(contents) = &machine.state {
            all.push(Reason::holds(contents));
        }
        // What cannot be read is not a master's only where the machine cannot be one.
        let share = match &machine.state {
            State::Blank | State::Ours { etcd: false, authority: false } => None,
            State::Ours { authority, .. } => Some((true, *authority)),
            State::Damaged(_) | State::Other(_) => (!machine.cannot_be_master).then_some((false, false)),
        };
        let name = machine.name.clone().unwrap_or_else(|| disk.to_owned());
        all.extend(share.map(|(certain, authority)| Reason::Etcd { name, certain, authority }));
        all.retain(|reason| reason.overridden_by().is_none_or(|by| !overrides.contains(&by)));
        all
    }

    fn holds(contents: &Contents) -> Reason {
        Reason::Holds { what: contents.to_string(), name: contents.name() }
    }

    /// What would make it not count, if anything does.
    pub fn overridden_by(&self) -> Option<Override> {
        match self {
            Reason::Device(_) => None,
            Reason::Holds { name, .. } => name.clone().map(Override::Holds),
            Reason::Etcd { name, .. } => Some(Override::Etcd(name.clone())),
        }
    }

    /// What helps.
    pub fn way(&self) -> Option<String> {
        match self {
            Reason::Device(Refusal::InUse(Use::Mounted { at, .. })) => Some(format!("`umount {at}`")),
            Reason::Device(Refusal::InUse(Use::Held { by, .. })) => Some(format!("take {by} apart first")),
            Reason::Device(Refusal::Partition(_)) => Some("name the whole disk".to_owned()),
            Reason::Device(refusal) => refusal.way(),
            Reason::Holds { .. } | Reason::Etcd { .. } => {
                self.overridden_by().map(|by| format!("`--override {by}` says that it is meant nevertheless"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kscratch_install::blockdevice::{Contents, Use};
    use kscratch_install::refuse::Refusal;

    use super::{Override, Reason};
    use crate::reset::{Machine, State};

    const DISK: &str = "0B2D1F5E-93C4-8A7B-9F10-5A6C7D8E9F01";

    fn machine(state: State, cannot_be_master: bool) -> Machine {
        Machine { name: Some("m1".into()), role: None, cannot_be_master, disks: Vec::new(), state }
    }

    #[track_caller]
    fn check(machine: &Machine, overrides: &[&str], want: &[&str]) {
        let overrides: Vec<Override> = overrides.iter().map(|text| text.parse().unwrap()).collect();
        let told: Vec<String> = Reason::of_machine(machine, DISK, &overrides).iter().map(ToString::to_string).collect();
        assert_eq!(told, want, "{machine:?}");
    }

    const LOST: &str = "its share of etcd is lost with its state, and where it is the only master, the cluster";

    #[test]
    fn a_masters_share_of_etcd_is_lost_by_its_name_alone() {
        let ours = |etcd, authority| State::Ours { etcd, authority };
        let is = format!("it is the disk of the master m1: {LOST}");
        let own = format!("{is}, whose identity is on no other disk");
        let may = format!("it may be the disk of a master, m1: {LOST}");
        let damaged = || State::Damaged("x".into());
        for (state, cannot_be_master, want) in [
            (State::Blank, false, ""),
            (ours(false, false), true, ""),
            // A master that has not begun yet, or has a disk for etcd: its share is elsewhere.
            (ours(false, false), false, ""),
            // What is there counts, whatever the image is today.
            (ours(true, false), true, &is),
            (ours(true, false), false, &is),
            (ours(true, true), false, &own),
            (ours(false, true), false, &own),
            (damaged(), true, ""),
            (damaged(), false, &may),
        ] {
            let want: Vec<&str> = [want].into_iter().filter(|want| !want.is_empty()).collect();
            let machine = machine(state, cannot_be_master);
            check(&machine, &[], &want);
            check(&machine, &["etcd:m2", "holds:m1"], &want);
            check(&machine, &["etcd:m1"], &[]);
        }
        let nameless = Machine { name: None, ..machine(ours(true, false), false) };
        let reasons = Reason::of_machine(&nameless, DISK, &[]);
        assert_eq!(reasons[0].way().unwrap(), format!("`--override etcd:{DISK}` says that it is meant nevertheless"));
        check(&nameless, &[&format!("etcd:{DISK}")], &[]);
    }

    #[test]
    fn what_is_not_state_goes_by_its_name_alone() {
        let other = |contents| machine(State::Other(contents), true);
        let holds = "there is no state on its state partition: data of an unknown kind";
        check(&other(Contents::Unknown), &[], &[holds]);
        check(&other(Contents::Unknown), &["holds:luks", "etcd:m1"], &[holds]);
        check(&other(Contents::Unknown), &["holds:unknown"], &[]);
        // What cannot be read has no name that could be meant.
        let unreadable = other(Contents::Unreadable { reason: "x".into() });
        check(&unreadable, &["holds:unknown"], &["there is no state on its state partition: cannot be read: x"]);
        // Of a damaged superblock nobody knows whose it was.
        let may = format!("it may be the disk of a master, m1: {LOST}");
        check(&machine(State::Other(Contents::Unknown), false), &[], &[holds, &may]);
    }

    #[test]
    fn what_is_in_use_is_never_overridden() {
        let mounted = Refusal::InUse(Use::Mounted { device: "sdb1".into(), at: "/media/esp".into() });
        let reasons = Reason::of_device(vec![
            Refusal::Exists("disk.img".into()),
            mounted,
            Refusal::Partition("sdb5".into()),
            Refusal::Busy,
            Refusal::ReadOnly,
        ]);
        let told: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        let want = [
            "sdb1 is mounted at /media/esp",
            "sdb5 is a partition, and not a machine's disk",
            "somebody has it open for himself alone",
            "it is read-only",
        ];
        assert_eq!(told, want);
        assert!(reasons.iter().all(|reason| reason.overridden_by().is_none()));
        let ways: Vec<Option<String>> = reasons.iter().map(Reason::way).collect();
        assert_eq!(ways[..2], [Some("`umount /media/esp`".to_owned()), Some("name the whole disk".to_owned())]);
    }

    #[test]
    fn an_override_is_one_of_two() {
        for text in ["etcd:m1", "holds:md-raid"] {
            assert_eq!(text.parse::<Override>().unwrap().to_string(), text);
        }
        for text in ["", "etcd", "etcd:", "mounted:/mnt", "all"] {
            assert!(text.parse::<Override>().is_err(), "{text}");
        }
    }
}
