//! Decides what is to be done with a further disk by what it holds: never a byte is written over what somebody may miss.
use kscratch_metadata::Purpose;

use super::fsck::Ours;
use crate::partition::{Copy, Error, Guid, Partition, Table};
use crate::superblock::{Kind, Volume};
use crate::sys::Flag;

/// Behind the name of a partition that has no finished filesystem yet, and so nothing that could be lost.
const UNFINISHED: &str = "-unfinished";

/// How a purpose's disk looks when it is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Its filesystem.
    pub ours: Ours,
    /// Type of its only partition.
    pub kind: Guid,
    /// Name of its only partition.
    pub name: &'static str,
    /// Options of the mount.
    pub flags: &'static [Flag],
    /// Permission bits of the folder that it is mounted on.
    pub mode: u32,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Make table and filesystem, if the disk is blank all through.
    Make,
    /// Make the filesystem of this partition, which a power cut left unfinished.
    Finish(Partition),
    /// Mount this partition, if its filesystem is ours.
    Mount(Partition),
}

impl Layout {
    pub(super) fn of(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Docker => Self {
                ours: Ours { what: "docker's disk", label: "kscratch-docker", place: "/var/lib/docker" },
                kind: Guid::DOCKER,
                name: "docker",
                flags: &[Flag::NoAtime],
                mode: 0o710,
            },
            Purpose::Etcd => Self {
                ours: Ours { what: "etcd's disk", label: "kscratch-etcd", place: "/var/lib/etcd" },
                kind: Guid::ETCD,
                name: "etcd",
                flags: &[Flag::NoSuid, Flag::NoDev, Flag::NoExec, Flag::NoAtime],
                mode: 0o700,
            },
        }
    }

    /// The name of the partition while it is made.
    pub(super) fn unfinished(&self) -> String {
        format!("{}{UNFINISHED}", self.name)
    }

    /// What is to be done with a disk that has this table, or without one is this volume.
    ///
    /// # Errors
    /// Why it is not used, to be read behind the disk's name.
    pub(super) fn decide(&self, table: &Result<Table, Error>, whole: &Volume) -> Result<Verdict, String> {
        let table = match table {
            Ok(table) => table,
            Err(Error::Read(error)) => return Err(format!("cannot be read: {error}")),
            Err(Error::Damaged(why)) => return Err(format!("has a damaged partition table ({why})")),
            Err(Error::Missing) if whole.kind == Kind::Blank => return Ok(Verdict::Make),
            Err(Error::Missing) => return Err(format!("is somebody else's: it holds {}", held(whole))),
        };
        // Whoever made a filesystem over the whole disk may have left its end alone.
        if table.copy == Copy::Backup && !matches!(whole.kind, Kind::Blank | Kind::Other) {
            return Err(format!("is somebody else's: it holds {}", held(whole)));
        }
        match table.partitions.as_slice() {
            [one] if one.kind == self.kind && one.name == self.unfinished() => Ok(Verdict::Finish(one.clone())),
            [one] if one.kind == self.kind => Ok(Verdict::Mount(one.clone())),
            [one] => match Purpose::ALL.map(Self::of).iter().find(|other| other.kind == one.kind) {
                Some(other) => Err(format!("is {} of a machine like this one", other.ours.what)),
                None => Err(format!("is somebody else's: it has the partition {}", shown(one))),
            },
            [] => Err("is somebody else's: it has a partition table without partitions".to_owned()),
            several => {
                let names: Vec<String> = several.iter().map(shown).collect();
                Err(format!("is somebody else's: it has the partitions {}", names.join(", ")))
            }
        }
    }

    /// Whether a partition of ours holds what it should.
    ///
    /// # Errors
    /// Why it is not used, to be read behind the disk's name.
    pub(super) fn accept(&self, volume: &Volume) -> Result<(), String> {
        let label = self.ours.label;
        match volume.kind {
            Kind::Ext4 { .. } if volume.label == label => Ok(()),
            _ => Err(format!("is damaged: its partition holds {}, and not an ext4 labelled {label:?}", held(volume))),
        }
    }
}

fn held(volume: &Volume) -> String {
    match volume.kind {
        Kind::Blank => "zeros".to_owned(),
        Kind::Other => "something that is not known here".to_owned(),
        kind => format!("{} labelled {:?}", kind.name().unwrap_or_default(), volume.label),
    }
}

fn shown(partition: &Partition) -> String {
    let name: String = partition.name.chars().filter(|char| !char.is_control()).collect();
    if name.is_empty() { format!("{} without a name", partition.number) } else { name }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor};

    use kscratch_metadata::Purpose;

    use super::{Layout, Verdict};
    use crate::partition::single::Single;
    use crate::partition::{Copy, Error, Guid, Table};
    use crate::superblock::{Kind, Volume};

    fn volume(kind: Kind, label: &str) -> Volume {
        Volume { kind, label: label.to_owned(), errors: None }
    }

    /// A table with these partitions, all of one type.
    fn table(kind: Guid, names: &[&str]) -> Result<Table, Error> {
        let guid = Guid::version_4([1; 16]);
        let name = names.first().copied().unwrap_or_default();
        let single = Single { kind, name, disk: guid, guid };
        let growth = single.table(512, 8 << 20).unwrap();
        let mut disk = vec![0; 8 << 20];
        disk[..growth.then.bytes.len()].copy_from_slice(&growth.then.bytes);
        let mut table = Table::read(&mut Cursor::new(disk))?;
        let one = table.partitions.remove(0);
        let named = |(number, name): (u32, &&str)| crate::partition::Partition {
            name: (*name).to_owned(),
            number,
            ..one.clone()
        };
        table.partitions = (1..).zip(names).map(named).collect();
        Ok(table)
    }

    #[track_caller]
    fn refused(table: Result<Table, Error>, whole: &Volume, want: &str) {
        assert_eq!(Layout::of(Purpose::Docker).decide(&table, whole).unwrap_err(), want);
    }

    #[test]
    fn what_is_blank_is_made_and_what_is_ours_is_mounted() {
        let layout = Layout::of(Purpose::Docker);
        let blank = volume(Kind::Blank, "");
        assert_eq!(layout.decide(&Err(Error::Missing), &blank), Ok(Verdict::Make));
        let ours = table(Guid::DOCKER, &["docker"]);
        assert!(matches!(layout.decide(&ours, &blank), Ok(Verdict::Mount(one)) if one.number == 1));
        let renamed = table(Guid::DOCKER, &["containers"]);
        assert!(matches!(layout.decide(&renamed, &blank), Ok(Verdict::Mount(_))));
        let half = table(Guid::DOCKER, &["docker-unfinished"]);
        assert!(matches!(layout.decide(&half, &blank), Ok(Verdict::Finish(_))));
    }

    #[test]
    fn everything_else_is_left_alone() {
        let (blank, missing) = (volume(Kind::Blank, ""), || Err(Error::Missing));
        let ext4 = |label| volume(Kind::Ext4 { blocks: 1, block_size: 4096, clean: true, written: 0 }, label);
        refused(missing(), &ext4("photos"), "is somebody else's: it holds ext4 labelled \"photos\"");
        refused(missing(), &volume(Kind::Vfat, "STICK"), "is somebody else's: it holds vfat labelled \"STICK\"");
        refused(missing(), &volume(Kind::Other, ""), "is somebody else's: it holds something that is not known here");
        // Without a table it is not ours, whatever its label says.
        refused(missing(), &ext4("kscratch-docker"), "is somebody else's: it holds ext4 labelled \"kscratch-docker\"");
        let damaged = Err(Error::Damaged("the header's checksum is wrong"));
        refused(damaged, &blank, "has a damaged partition table (the header's checksum is wrong)");
        let bad = Err(Error::Read(io::Error::other("i/o error")));
        refused(bad, &blank, "cannot be read: i/o error");
        refused(
            table(Guid::VAR, &["esp", "root-a", ""]),
            &blank,
            "is somebody else's: it has the partitions esp, root-a, 3 without a name",
        );
        refused(table(Guid::VAR, &["state"]), &blank, "is somebody else's: it has the partition state");
        refused(table(Guid::VAR, &[]), &blank, "is somebody else's: it has a partition table without partitions");
        refused(table(Guid::ETCD, &["etcd"]), &blank, "is etcd's disk of a machine like this one");
        // At its end is what is left of a disk of ours.
        let mut left = table(Guid::DOCKER, &["docker-unfinished"]).unwrap();
        left.copy = Copy::Backup;
        refused(Ok(left), &ext4("photos"), "is somebody else's: it holds ext4 labelled \"photos\"");
    }

    #[test]
    fn a_partition_of_ours_has_a_filesystem_of_ours() {
        let layout = Layout::of(Purpose::Etcd);
        let ext4 = |label| volume(Kind::Ext4 { blocks: 1, block_size: 4096, clean: false, written: 0 }, label);
        assert_eq!(layout.accept(&ext4("kscratch-etcd")), Ok(()));
        for (volume, held) in [
            (ext4("kscratch-docker"), "ext4 labelled \"kscratch-docker\""),
            (volume(Kind::Blank, ""), "zeros"),
            (volume(Kind::Other, ""), "something that is not known here"),
        ] {
            let want = format!("is damaged: its partition holds {held}, and not an ext4 labelled \"kscratch-etcd\"");
            assert_eq!(layout.accept(&volume), Err(want));
        }
    }
}
