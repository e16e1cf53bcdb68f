//! Turns the end of a Zstandard file that can be sought in into where its frames stand ("Zstandard Seekable Format" 0.1.0).
use std::io::{self, Read, Seek, SeekFrom};

use thiserror::Error;

/// `Skippable_Magic_Number` of the frame that the table stands in.
const SKIPPABLE: u32 = 0x184D_2A5E;
/// `Seekable_Magic_Number`, the file's last four bytes.
const SEEKABLE: u32 = 0x8F92_EAB1;
/// Bytes of the table's footer, and of the head of its frame.
const FOOTER: u64 = 9;
const HEAD: u64 = 8;
/// The largest frame that is taken, packed or plain: whoever unpacks it has both in memory.
const LARGEST: u32 = 64 << 20;

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where it stands in the file.
    pub at: u64,
    /// Its bytes there.
    pub packed: u32,
    /// Where what it holds stands among what all hold.
    pub plain_at: u64,
    /// Bytes of what it holds.
    pub plain: u32,
}

/// Why a file has no table.
#[derive(Debug, Error)]
pub enum Fault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not end as such a file does.
    #[error("it does not end with a seek table")]
    NoTable,
    /// The table contradicts itself or the file.
    #[error("its seek table is damaged")]
    Damaged,
}

/// Reads the table: the frames in order, which fill the file up to it.
///
/// # Errors
/// There is none, or it does not fit the file.
pub fn read(file: &mut (impl Read + Seek)) -> Result<Vec<Frame>, Fault> {
    let end = file.seek(SeekFrom::End(0))?;
    let footer_at = end.checked_sub(FOOTER).ok_or(Fault::NoTable)?;
    file.seek(SeekFrom::Start(footer_at))?;
    let mut footer = [0; FOOTER as usize];
    file.read_exact(&mut footer)?;
    let [count @ .., descriptor, a, b, c, d] = footer;
    if u32::from_le_bytes([a, b, c, d]) != SEEKABLE {
        return Err(Fault::NoTable);
    }
    // Its highest bit says that entries have a checksum; the five behind it are reserved.
    let entry: u64 = if descriptor & 0x80 == 0 { 8 } else { 12 };
    let len = u64::from(u32::from_le_bytes(count)) * entry;
    let table_at = footer_at.checked_sub(len + HEAD).filter(|_| descriptor & 0x7C == 0).ok_or(Fault::Damaged)?;
    file.seek(SeekFrom::Start(table_at))?;
    if number(file)? != SKIPPABLE || u64::from(number(file)?) != len + FOOTER {
        return Err(Fault::Damaged);
    }
    let mut frames = Vec::new();
    let (mut at, mut plain_at) = (0_u64, 0_u64);
    for _ in 0..u32::from_le_bytes(count) {
        let (packed, plain) = (number(file)?, number(file)?);
        if entry == 12 {
            number(file)?;
        }
        if packed > LARGEST || plain > LARGEST {
            return Err(Fault::Damaged);
        }
        frames.push(Frame { at, packed, plain_at, plain });
        (at, plain_at) = (at + u64::from(packed), plain_at + u64::from(plain));
    }
    if at == table_at { Ok(frames) } else { Err(Fault::Damaged) }
}

fn number(file: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{Fault, Frame, SEEKABLE, SKIPPABLE, read};

    /// A file of frames, each with the bytes that it holds.
    pub(crate) fn file(frames: &[(Vec<u8>, u32)], checksums: bool) -> Vec<u8> {
        let mut file: Vec<u8> = frames.iter().flat_map(|(packed, _)| packed.clone()).collect();
        let mut table = Vec::new();
        for (packed, plain) in frames {
            table.extend_from_slice(&u32::try_from(packed.len()).unwrap().to_le_bytes());
            table.extend_from_slice(&plain.to_le_bytes());
            table.extend_from_slice(if checksums { &[7; 4] } else { &[] });
        }
        table.extend_from_slice(&u32::try_from(frames.len()).unwrap().to_le_bytes());
        table.push(if checksums { 0x80 } else { 0 });
        table.extend_from_slice(&SEEKABLE.to_le_bytes());
        file.extend_from_slice(&SKIPPABLE.to_le_bytes());
        file.extend_from_slice(&u32::try_from(table.len()).unwrap().to_le_bytes());
        file.extend(table);
        file
    }

    fn fault(bytes: &[u8]) -> String {
        read(&mut Cursor::new(bytes)).unwrap_err().to_string()
    }

    #[test]
    fn frames_are_found() {
        for checksums in [false, true] {
            let bytes = file(&[(vec![1; 10], 100), (vec![2; 3], 7)], checksums);
            let want = [
                Frame { at: 0, packed: 10, plain_at: 0, plain: 100 },
                Frame { at: 10, packed: 3, plain_at: 100, plain: 7 },
            ];
            assert_eq!(read(&mut Cursor::new(bytes)).unwrap(), want);
        }
        assert!(read(&mut Cursor::new(file(&[], false))).unwrap().is_empty());
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let good = file(&[(vec![1; 10], 100)], false);
        let none = "it does not end with a seek table";
        assert_eq!(fault(b""), none);
        assert_eq!(fault(&good[..good.len() - 1]), none);
        assert_eq!(fault(&good[1..]), "its seek table is damaged");
        assert_eq!(fault(&file(&[(vec![1; 10], u32::MAX)], false)), "its seek table is damaged");
        let mut many = good.clone();
        let at = many.len() - 9;
        many[at..at + 4].fill(0xFF);
        assert_eq!(fault(&many), "its seek table is damaged");
    }

    proptest! {
        #[test]
        fn no_file_breaks_it(bytes: Vec<u8>, lengths in proptest::collection::vec((0_usize..40, 0_u32..1000), 0..5), at: usize, wrong: u8) {
            let _ = read(&mut Cursor::new(&bytes));
            let frames: Vec<(Vec<u8>, u32)> = lengths.iter().map(|(packed, plain)| (vec![3; *packed], *plain)).collect();
            let mut file = file(&frames, false);
            let found = read(&mut Cursor::new(&file)).unwrap();
            prop_assert_eq!(found.len(), frames.len());
            // A wrong byte in it is either seen, or leaves frames that fill the file.
            let at = at % file.len();
            file[at] ^= wrong;
            match read(&mut Cursor::new(&file)) {
                Ok(found) => prop_assert!(found.iter().map(|frame| u64::from(frame.packed)).sum::<u64>() < file.len() as u64),
                Err(Fault::Io(error)) => prop_assert!(false, "{error}"),
                Err(_) => {}
            }
        }
    }
}
