//! [`Guid`] is what disks and partitions are told by, as text and as it stands on a disk.
use std::fmt;
use std::str::FromStr;

/// A GUID in the order in which it is written, e.g. `C12A7328-F81F-11D2-BA4B-00A0C93EC93B`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 16]);

impl Guid {
    /// EFI system partition.
    pub const ESP: Self = Self(*b"\xC1\x2A\x73\x28\xF8\x1F\x11\xD2\xBA\x4B\x00\xA0\xC9\x3E\xC9\x3B");
    /// Variable data, `/var` (Discoverable Partitions Specification).
    pub const VAR: Self = Self(*b"\x4D\x21\xB0\x16\xB5\x34\x45\xC2\xA9\xFB\x5C\x16\xE0\x91\xFD\x2D");

    /// A further disk with docker's store (ours).
    pub const DOCKER: Self = Self(*b"\x6B\x73\x63\x72\x61\x74\x43\x68\x80\x01\x64\x6F\x63\x6B\x65\x72");
    /// A further disk with etcd's data (ours).
    pub const ETCD: Self = Self(*b"\x6B\x73\x63\x72\x61\x74\x43\x68\x80\x01\x65\x74\x63\x64\x00\x00");

    /// The flight recorder.
    pub const RECORDER: Self = Self(kscratch_recorder::PARTITION_TYPE);

    /// From the disk: the first three fields are little endian (UEFI appendix A).
    #[must_use]
    pub fn from_disk(b: [u8; 16]) -> Self {
        Self([b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]])
    }

    /// As it stands on the disk.
    #[must_use]
    pub fn to_disk(self) -> [u8; 16] {
        Self::from_disk(self.0).0
    }

    /// One made of random bytes (RFC 9562, 5.4).
    #[must_use]
    pub const fn version_4(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0F | 0x40;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        Self(bytes)
    }

    /// Whether it is all zeros: the type of an unused entry.
    #[must_use]
    pub fn is_nil(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no GUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")]
pub struct NotAGuid;

impl FromStr for Guid {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        if lengths != [8, 4, 4, 4, 12] {
            return Err(NotAGuid);
        }
        let mut guid = [0; 16];
        for (byte, pair) in guid.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(0).zip(digit(1)).map(|(high, low)| high << 4 | low).ok_or(NotAGuid)?;
        }
        Ok(Self(guid))
    }
}
