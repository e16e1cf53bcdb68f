//! Turns an image into the layout of a VMDK file that holds it, and such a file back into the disk.
//!
//! VMware's Virtual Disk Format 5.0, "Hosted Sparse Extents": one file with its descriptor inside (`monolithicSparse`). All fields are
//! little endian, and places are counted in sectors of 512 bytes.
use std::collections::BTreeSet;
use std::io;

use crate::bytes::{ReadAt, put, put_u32, put_u64, u32_at, u64_at};
use crate::image::Image;

/// Bytes of a grain, the unit in which space is given.
pub const GRAIN: u64 = 64 << 10;
/// The file's first bytes.
pub const MAGIC: &[u8; 4] = b"KDMV";
const SECTOR: u64 = 512;
/// Entries of a grain table (`numGTEsPerGT`).
const ENTRIES: u64 = 512;
/// Bytes of a grain table.
const TABLE: u64 = ENTRIES * 4;
/// Bytes for the descriptor, which ends with zeros.
const DESCRIPTOR: u64 = 20 * SECTOR;
/// Flags: the newline test is valid, and there is a second copy of the tables.
const FLAGS: u32 = 3;
/// Flag: grains are compressed.
const COMPRESSED: u32 = 1 << 16;
/// The longest disk: a grain's place has 32 bits of sectors.
const MAX: u64 = 1 << 40;

/// Why a disk cannot be written as, or read from, a VMDK file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More than places in the file can be counted for.
    #[error("a VMDK file holds disks of up to 1 TiB, and this one is {0} bytes long")]
    TooLarge(u64),
    /// A length in bytes that is no number of sectors.
    #[error("the disk is {0} bytes long, which is not a multiple of 512")]
    Uneven(u64),
    /// A name that cannot stand in the descriptor.
    #[error("the file name {0:?} cannot stand in a VMDK's descriptor")]
    Name(String),
    /// A header or table that is damaged.
    #[error("reading the VMDK file: {0}")]
    Damaged(&'static str),
    /// A kind of VMDK that is not read here.
    #[error("it is a VMDK file {0}, which is not read here")]
    Kind(&'static str),
}

/// Where everything stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Length of the file in bytes.
    pub len: u64,
    /// Header and tables: byte offset in the file, and bytes. The descriptor stands at [`Layout::DESCRIPTOR`].
    pub metadata: Vec<(u64, Vec<u8>)>,
    /// Length of the disk in bytes.
    disk: u64,
    /// Grains of the disk that hold something, in order.
    grains: Vec<u64>,
    /// First byte in the file of the first of them; the others follow.
    data: u64,
}

impl Layout {
    /// Where the descriptor stands, in bytes.
    pub const DESCRIPTOR: u64 = SECTOR;

    /// Where in the file the grain stands that begins at this byte of the disk; none for a hole.
    pub fn place(&self, offset: u64) -> Option<u64> {
        let index = self.grains.binary_search(&(offset / GRAIN)).ok()?;
        Some(self.data + index as u64 * GRAIN)
    }

    /// The descriptor of the file `name`. `content` tells disks apart: of its bits the content's id is made.
    ///
    /// # Errors
    /// A name with quotes or control characters.
    pub fn descriptor(&self, name: &str, content: [u8; 16]) -> Result<Vec<u8>, Error> {
        if name.contains(|c: char| c == '"' || c.is_control()) {
            return Err(Error::Name(name.to_owned()));
        }
        let [a, b, c, d, ..] = content;
        // All ones mean that there is none.
        let id = u32::from_be_bytes([a, b, c, d]).min(u32::MAX - 1);
        let sectors = self.disk / SECTOR;
        let cylinders = (sectors / (255 * 63)).clamp(1, 65535);
        let uuid: Vec<String> = content.iter().map(|byte| format!("{byte:02x}")).collect();
        let (first, second) = uuid.split_at(8);
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID={id:08x}\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n\
             # Extent description\nRW {sectors} SPARSE \"{name}\"\n\n\
             # The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"{cylinders}\"\n\
             ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"lsilogic\"\n\
             ddb.uuid = \"{}-{}\"\n",
            first.join(" "),
            second.join(" "),
        );
        if text.len() as u64 >= DESCRIPTOR {
            return Err(Error::Name(name.to_owned()));
        }
        Ok(text.into_bytes())
    }
}

/// Lays the file out: header, descriptor, both copies of directory and tables, then the grains in the order of the disk.
///
/// # Errors
/// A disk that is too long, or no number of sectors.
pub fn layout<C>(image: &Image<C>) -> Result<Layout, Error> {
    if image.len > MAX {
        return Err(Error::TooLarge(image.len));
    }
    if !image.len.is_multiple_of(SECTOR) || image.len == 0 {
        return Err(Error::Uneven(image.len));
    }
    let mut used = BTreeSet::new();
    for extent in image.extents.iter().filter(|extent| !extent.data.is_empty()) {
        used.extend(extent.offset / GRAIN..=(extent.offset + extent.data.len() - 1) / GRAIN);
    }
    let grains: Vec<u64> = used.into_iter().collect();
    let tables = image.len.div_ceil(GRAIN * ENTRIES);
    let directory = (tables * 4).next_multiple_of(SECTOR);
    let copy = directory + tables * TABLE;
    let (second, first) = (SECTOR + DESCRIPTOR, SECTOR + DESCRIPTOR + copy);
    let data = (first + copy).next_multiple_of(GRAIN);

    let mut entries = vec![0; (tables * TABLE) as usize];
    for (at, grain) in (data..).step_by(GRAIN as usize).zip(&grains) {
        put_u32(&mut entries, (grain * 4) as usize, (at / SECTOR) as u32);
    }
    let mut metadata = vec![(0, header(image.len, second, first, data))];
    for start in [second, first] {
        let mut bytes = vec![0; directory as usize];
        for table in 0..tables {
            put_u32(&mut bytes, (table * 4) as usize, ((start + directory + table * TABLE) / SECTOR) as u32);
        }
        bytes.extend_from_slice(&entries);
        metadata.push((start, bytes));
    }
    Ok(Layout { len: data + grains.len() as u64 * GRAIN, metadata, disk: image.len, grains, data })
}

/// `SparseExtentHeader`.
fn header(len: u64, second: u64, first: u64, data: u64) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR as usize];
    put(&mut bytes, 0, MAGIC);
    put_u32(&mut bytes, 4, 1); // version
    put_u32(&mut bytes, 8, FLAGS);
    put_u64(&mut bytes, 12, len / SECTOR); // capacity
    put_u64(&mut bytes, 20, GRAIN / SECTOR); // grainSize
    put_u64(&mut bytes, 28, Layout::DESCRIPTOR / SECTOR); // descriptorOffset
    put_u64(&mut bytes, 36, DESCRIPTOR / SECTOR); // descriptorSize
    put_u32(&mut bytes, 44, ENTRIES as u32); // numGTEsPerGT
    put_u64(&mut bytes, 48, second / SECTOR); // rgdOffset
    put_u64(&mut bytes, 56, first / SECTOR); // gdOffset
    put_u64(&mut bytes, 64, data / SECTOR); // overHead
    // uncleanShutdown, and the characters by which a transfer as text is found out.
    put(&mut bytes, 72, &[0, b'\n', b' ', b'\r', b'\n']);
    bytes
}

/// A VMDK file that reads as the disk.
#[derive(Debug)]
pub struct Disk<R> {
    file: R,
    len: u64,
    grain: u64,
    /// Of every grain: its first sector in the file; none for a hole.
    grains: Vec<u32>,
}

impl<R: ReadAt> Disk<R> {
    /// Reads header and tables of one file with its descriptor inside, whose grains are not compressed.
    ///
    /// # Errors
    /// Damage, or another kind of VMDK.
    pub fn open(file: R) -> Result<Self, Error> {
        let unreadable = |_| Error::Damaged("it ends before its tables do");
        let mut header = [0; SECTOR as usize];
        file.read_at(0, &mut header).map_err(unreadable)?;
        if &header[..4] != MAGIC {
            return Err(Error::Kind("whose descriptor is a file of its own"));
        }
        let (capacity, grain) = (u64_at(&header, 12), u64_at(&header, 20));
        if u32_at(&header, 8) & COMPRESSED != 0 || u64_at(&header, 56) == u64::MAX {
            return Err(Error::Kind("with compressed grains (streamOptimized)"));
        }
        if u32_at(&header, 44) as u64 != ENTRIES || !grain.is_power_of_two() || !(8..=2048).contains(&grain) {
            return Err(Error::Damaged("its grains or tables are of an odd size"));
        }
        if capacity == 0 || capacity > MAX / SECTOR {
            return Err(Error::Damaged("it claims a disk of nothing, or of more than 1 TiB"));
        }
        let count = capacity.div_ceil(grain);
        if count > MAX / GRAIN {
            return Err(Error::Damaged("its grains are so small that their table would be huge"));
        }
        let tables = count.div_ceil(ENTRIES);
        let mut directory = vec![0; (tables * 4) as usize];
        let at = u64_at(&header, 56).checked_mul(SECTOR).ok_or(Error::Damaged("its directory is out of reach"))?;
        file.read_at(at, &mut directory).map_err(unreadable)?;
        let mut grains = Vec::new();
        for table in 0..tables {
            let mut bytes = vec![0; TABLE as usize];
            let place = u32_at(&directory, (table * 4) as usize);
            if place != 0 {
                file.read_at(u64::from(place) * SECTOR, &mut bytes).map_err(unreadable)?;
            }
            grains.extend((0..ENTRIES as usize).map(|entry| u32_at(&bytes, 4 * entry)));
        }
        grains.truncate(count as usize);
        Ok(Disk { file, len: capacity * SECTOR, grain: grain * SECTOR, grains })
    }

    /// Length of the disk in bytes.
    pub fn disk_len(&self) -> u64 {
        self.len
    }
}

impl<R: ReadAt> ReadAt for Disk<R> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let inside = at % self.grain;
            let len = usize::try_from(self.grain - inside).unwrap_or(usize::MAX).min(buf.len() - done);
            let part = &mut buf[done..done + len];
            match self.grains.get((at / self.grain) as usize) {
                // 1 is a grain of zeros, where version 2 has them.
                Some(0 | 1) | None => part.fill(0),
                Some(place) => self.file.read_at(u64::from(*place) * SECTOR + inside, part)?,
            }
            done += len;
        }
        Ok(())
    }
}
