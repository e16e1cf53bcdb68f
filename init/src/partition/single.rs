//! Turns what one partition is to be into the table of a disk that holds nothing else, as bytes to write.
use super::{Change, Guid, Header, Write, protective_mbr};

/// Entries of a table, of this many bytes each: what everybody writes (UEFI 5.3.1 asks for 16 KiB at least).
const COUNT: u32 = 128;
const SIZE: u32 = 128;

/// The only partition of a disk.
#[derive(Debug, Clone, Copy)]
pub struct Single<'a> {
    /// `PartitionTypeGUID`
    pub kind: Guid,
    /// `PartitionName`, ASCII; what goes beyond 35 characters is left out.
    pub name: &'a str,
    /// `DiskGUID`
    pub disk: Guid,
    /// `UniquePartitionGUID`
    pub guid: Guid,
}

impl Single<'_> {
    /// Both copies of the table of a disk of `length` bytes in sectors of `sector`, whose partition has all of it, from MiB to MiB. `None` where the disk
    /// is too small to have one.
    #[must_use]
    pub fn table(&self, sector: u64, length: u64) -> Option<Change> {
        let sectors = length.checked_div(sector)?;
        let entry_sectors = u64::from(COUNT * SIZE).div_ceil(sector);
        let alignment = (1 << 20) / sector;
        let last_usable = sectors.checked_sub(entry_sectors + 2)?;
        let last = ((last_usable + 1) / alignment * alignment).checked_sub(1)?;
        if last < alignment {
            return None;
        }
        let mut entries = self.entry(alignment, last);
        entries.resize((COUNT * SIZE) as usize, 0);
        let primary = Header {
            my_lba: 1,
            alternate_lba: sectors - 1,
            first_usable: 2 + entry_sectors,
            last_usable,
            disk_guid: self.disk.to_disk(),
            entries_lba: 2,
            count: COUNT,
            size: SIZE,
            entries_crc: crc32fast::hash(&entries),
        };
        let backup =
            Header { my_lba: primary.alternate_lba, alternate_lba: 1, entries_lba: last_usable + 1, ..primary };
        entries.resize(usize::try_from(entry_sectors * sector).ok()?, 0);
        Some(Change {
            start: 1 << 20,
            length: (last + 1 - alignment) * sector,
            first: Write {
                offset: backup.entries_lba * sector,
                bytes: [entries.clone(), backup.bytes(sector)].concat(),
            },
            then: Write {
                offset: 0,
                bytes: [protective_mbr(sector, sectors), primary.bytes(sector), entries].concat(),
            },
        })
    }

    /// The entry itself (UEFI table 5.6).
    fn entry(&self, first: u64, last: u64) -> Vec<u8> {
        let mut entry = [self.kind.to_disk(), self.guid.to_disk()].concat();
        for field in [first, last, 0] {
            entry.extend_from_slice(&field.to_le_bytes());
        }
        entry.extend(self.name.encode_utf16().take(35).flat_map(u16::to_le_bytes));
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::super::{Guid, Table};
    use super::Single;

    fn single() -> Single<'static> {
        let guid = |byte| Guid::version_4([byte; 16]);
        Single { kind: guid(1), name: "docker", disk: guid(2), guid: guid(3) }
    }

    #[test]
    fn it_is_sound_to_others_and_read_here_from_either_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        for (sector, length) in [(512, 40 << 20), (512, (40 << 20) + 512), (4096, 40 << 20)] {
            let growth = single().table(sector, length).unwrap();
            let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
            file.set_len(length).unwrap();
            for write in [&growth.first, &growth.then] {
                file.write_all_at(&write.bytes, write.offset).unwrap();
            }
            for damaged in [false, true] {
                if damaged {
                    file.write_all_at(&[0; 8], sector).unwrap();
                }
                let table = Table::read(&mut file).unwrap();
                assert_eq!((table.sector, table.partitions.len()), (sector, 1));
                let one = &table.partitions[0];
                assert_eq!((one.kind, one.guid, one.name.as_str()), (single().kind, single().guid, "docker"));
                assert_eq!((one.first * sector, (one.last + 1) * sector), (1 << 20, growth.start + growth.length));
                assert_eq!(table.grow(1, length), None, "it has the whole disk");
                if sector == 512 && !damaged {
                    let output = Command::new("sgdisk").arg("-v").arg(&path).output();
                    let output = output.expect("sgdisk is needed: apt-get install gdisk");
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    assert!(said.contains("No problems found"), "{said}");
                }
            }
        }
        assert_eq!(single().table(512, 1 << 20), None);
        assert_eq!(single().table(0, 1 << 20), None);
    }

    proptest! {
        #[test]
        fn every_disk_has_a_table_or_is_too_small(sector in proptest::sample::select(vec![512_u64, 4096]), sectors in 0_u64..1 << 40) {
            let length = sectors * sector;
            match single().table(sector, length) {
                Some(growth) => {
                    prop_assert!(growth.start + growth.length <= growth.first.offset);
                    prop_assert_eq!(growth.first.offset + growth.first.bytes.len() as u64, length);
                    prop_assert!(growth.then.bytes.len() as u64 <= growth.start);
                }
                None => prop_assert!(length < 3 << 20),
            }
        }
    }
}
