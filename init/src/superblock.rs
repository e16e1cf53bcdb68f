//! Turns the first bytes of a volume into its filesystem's kind, label and size ([`Volume`]).
use std::io::{self, Read, Seek, SeekFrom};

/// What a volume holds, as far as PID 1 must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Which filesystem.
    pub kind: Kind,
    /// Its label, without padding.
    pub label: String,
    /// What the kernel found wrong with it since it was checked all through.
    pub errors: Option<Errors>,
}

/// Errors that the kernel wrote down in the superblock of an ext4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    /// How many: `s_error_count`.
    pub count: u32,
    /// When it found the last one, by the clock of then, in seconds since 1970: `s_last_error_time`.
    pub last: i64,
    /// In which of its functions: `s_last_error_func`.
    pub function: String,
}

/// Kinds of contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext2, ext3 or ext4: the kernel mounts all as `ext4`.
    Ext4 {
        /// `s_blocks_count`
        blocks: u64,
        /// Bytes of a block.
        block_size: u64,
        /// Whether it was unmounted in order and no error was found on it since: `s_state`, `s_feature_incompat`, `s_error_count`.
        clean: bool,
        /// When it was last written to by the clock of then, in seconds since 1970: `s_wtime`.
        written: i64,
    },
    /// FAT12, FAT16 or FAT32.
    Vfat,
    /// ISO 9660.
    Iso9660,
    /// The first MiB is all zeros.
    Blank,
    /// Anything else.
    Other,
}

impl Kind {
    /// The kernel's name for it, where PID 1 mounts such.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Ext4 { .. } => Some("ext4"),
            Self::Vfat => Some("vfat"),
            Self::Iso9660 => Some("iso9660"),
            Self::Blank | Self::Other => None,
        }
    }
}

/// Enough for every superblock looked for: ISO 9660's primary descriptor ends at 34 KiB.
const SUPERBLOCKS: u64 = 64 << 10;
/// Enough for telling a blank volume.
const LOOK: u64 = 1 << 20;

/// Looks at a volume's first bytes, at most a MiB.
///
/// # Errors
/// It cannot be read.
pub fn look(volume: &mut (impl Read + Seek)) -> io::Result<Volume> {
    let mut start = Vec::new();
    volume.seek(SeekFrom::Start(0))?;
    volume.take(SUPERBLOCKS).read_to_end(&mut start)?;
    let found = recognise(&start);
    if found.kind != Kind::Blank {
        return Ok(found);
    }
    volume.take(LOOK - SUPERBLOCKS).read_to_end(&mut start)?;
    Ok(recognise(&start))
}

/// Recognises a volume by its first bytes.
#[must_use]
pub fn recognise(start: &[u8]) -> Volume {
    let found = ext4(start).or_else(|| iso9660(start)).or_else(|| vfat(start));
    found.unwrap_or_else(|| {
        let blank = start.iter().all(|byte| *byte == 0);
        Volume { kind: if blank { Kind::Blank } else { Kind::Other }, label: String::new(), errors: None }
    })
}

/// Linux, Documentation/filesystems/ext4/super.rst: the superblock stands at 1024.
fn ext4(start: &[u8]) -> Option<Volume> {
    let superblock = start.get(1024..2048)?;
    if superblock[0x38..0x3A] != [0x53, 0xEF] {
        return None;
    }
    let word =
        |at: usize| u32::from_le_bytes([superblock[at], superblock[at + 1], superblock[at + 2], superblock[at + 3]]);
    // `s_blocks_count_hi` counts with INCOMPAT_64BIT alone.
    let high = if word(0x60) & 0x80 == 0 { 0 } else { u64::from(word(0x150)) };
    let shift = word(0x18);
    if shift > 6 {
        return None;
    }
    // s_state: EXT4_VALID_FS alone, no EXT4_ERROR_FS and no orphans; INCOMPAT_RECOVER: the journal has yet to be replayed.
    let state = u16::from_le_bytes([superblock[0x3A], superblock[0x3B]]);
    let clean = state == 1 && word(0x60) & 0x4 == 0 && word(0x194) == 0;
    // s_wtime and s_wtime_hi.
    let written = i64::from(superblock[0x274]) << 32 | i64::from(word(0x30));
    let blocks = high << 32 | u64::from(word(0x04));
    let kind = Kind::Ext4 { blocks, block_size: 1024 << shift, clean, written };
    // s_error_count; s_last_error_time with its _hi, and s_last_error_func.
    let errors = (word(0x194) > 0).then(|| Errors {
        count: word(0x194),
        last: i64::from(superblock[0x279]) << 32 | i64::from(word(0x1CC)),
        function: text(&superblock[0x1E0..0x200]).chars().filter(char::is_ascii_graphic).collect(),
    });
    Some(Volume { kind, label: text(&superblock[0x78..0x88]), errors })
}

/// ECMA-119, 8.4: the primary volume descriptor is sector 16 of 2048 bytes.
fn iso9660(start: &[u8]) -> Option<Volume> {
    let descriptor = start.get(16 * 2048..17 * 2048)?;
    (descriptor[..6] == *b"\x01CD001").then(|| Volume {
        kind: Kind::Iso9660,
        label: text(&descriptor[40..72]),
        errors: None,
    })
}

/// Microsoft's FAT specification 1.03, section 3: `BS_VolLab` and `BS_FilSysType` of FAT12/16 and of FAT32.
fn vfat(start: &[u8]) -> Option<Volume> {
    let sector = start.get(..512)?;
    if sector[510..512] != [0x55, 0xAA] || !matches!(sector[0], 0xEB | 0xE9) {
        return None;
    }
    let label = match (&sector[0x52..0x5A], &sector[0x36..0x3E]) {
        (b"FAT32   ", _) => &sector[0x47..0x52],
        (_, b"FAT12   " | b"FAT16   " | b"FAT     ") => &sector[0x2B..0x36],
        _ => return None,
    };
    Some(Volume { kind: Kind::Vfat, label: text(label), errors: None })
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    use proptest::prelude::{any, proptest};

    use super::{Errors, Kind, look, recognise};

    #[track_caller]
    fn made(program: &str, args: &[&str], path: &Path, megabytes: u64) -> super::Volume {
        File::create(path).unwrap().set_len(megabytes << 20).unwrap();
        let output = Command::new(program).args(args).arg(path).output();
        let output = output.unwrap_or_else(|_| panic!("{program} is needed: apt-get install e2fsprogs dosfstools"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        look(&mut File::open(path).unwrap()).unwrap()
    }

    #[test]
    fn filesystems_by_their_own_makers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        let ext = |kind: &str, size: &str, label: &str| {
            let volume = made("mke2fs", &["-q", "-t", kind, "-b", size, "-L", label], &path, 8);
            assert_eq!(volume.label, label);
            let Kind::Ext4 { blocks, block_size, clean: true, written } = volume.kind else { panic!("{volume:?}") };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            assert!(u64::try_from(written).unwrap().abs_diff(now) < 60, "{written} is not now, {now}");
            (blocks, block_size)
        };
        assert_eq!(ext("ext4", "4096", "kscratch-state"), (2048, 4096));
        assert_eq!(ext("ext2", "1024", "KSCRATCH"), (8192, 1024));
        for (size, bits) in [(2, "12"), (16, "16"), (64, "32")] {
            let vfat = made("mkfs.fat", &["-F", bits, "-n", "CIDATA"], &path, size);
            assert_eq!((vfat.kind, vfat.label.as_str()), (Kind::Vfat, "CIDATA"), "FAT{bits}");
        }
    }

    /// What debugfs(8) sets on a sound filesystem, and whether it is clean then.
    #[track_caller]
    fn clean_with(field: &str, value: &str) -> bool {
        matches!(with(&[(field, value)]).kind, Kind::Ext4 { clean: true, .. })
    }

    #[track_caller]
    fn with(values: &[(&str, &str)]) -> super::Volume {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        made("mke2fs", &["-q", "-t", "ext4", "-b", "4096"], &path, 8);
        for (field, value) in values {
            let set = format!("set_super_value {field} {value}");
            let output = Command::new("debugfs").args(["-w", "-R", &set]).arg(&path).output();
            let output = output.expect("debugfs is needed: apt-get install e2fsprogs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let volume = look(&mut File::open(&path).unwrap()).unwrap();
        assert!(matches!(volume.kind, Kind::Ext4 { .. }), "{values:?}: no ext4 any more");
        volume
    }

    #[test]
    fn what_the_kernel_found_is_read() {
        let errors =
            with(&[("error_count", "3"), ("last_error_time", "20270131000000"), ("last_error_func", "ext4_lookup")])
                .errors;
        let want = Errors { count: 3, last: 1_801_353_600, function: "ext4_lookup".to_owned() };
        assert_eq!((errors, with(&[]).errors), (Some(want), None));
    }

    #[test]
    fn an_ext4_that_needs_a_look_is_not_clean() {
        assert!(clean_with("mnt_count", "3"));
        assert!(!clean_with("state", "0"), "it was not unmounted");
        assert!(!clean_with("state", "3"), "the kernel found an error");
        assert!(!clean_with("state", "5"), "orphans are being dealt with");
        assert!(!clean_with("error_count", "1"), "the kernel counted an error");
        assert!(!clean_with("feature_incompat", "0x2c6"), "the journal has to be replayed");
    }

    #[test]
    fn the_rest() {
        assert_eq!(recognise(&[0; 1 << 20]).kind, Kind::Blank);
        assert_eq!(recognise(&[]).kind, Kind::Blank);
        let mut iso = vec![0; 40 << 10];
        iso[32768..32774].copy_from_slice(b"\x01CD001");
        iso[32808..32816].copy_from_slice(b"cidata  ");
        assert_eq!((recognise(&iso).kind, recognise(&iso).label.as_str()), (Kind::Iso9660, "cidata"));
        let mut other = vec![0; 4096];
        other[..6].copy_from_slice(b"LUKS\xba\xbe");
        assert_eq!(recognise(&other).kind, Kind::Other);
        let mut late = vec![0; 1 << 20];
        late[900 << 10] = 1;
        assert_eq!(
            look(&mut std::io::Cursor::new(late)).unwrap().kind,
            Kind::Other,
            "something far behind is something"
        );
    }

    proptest! {
        #[test]
        fn no_volume_breaks_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = recognise(&bytes);
            if bytes.len() > 2048 {
                bytes[1024 + 0x38..1024 + 0x3A].copy_from_slice(&[0x53, 0xEF]);
                let _ = recognise(&bytes);
            }
        }
    }
}
