//! Turns an image file of any form into something that reads as the disk.
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::{qcow2, vhd, vmdk};
use serde::Serialize;

use crate::console::Hint;
use crate::write::{SEEKABLE_MAGIC, SKIPPABLE_MAGIC};

/// A frame that claims to be longer is not read.
const MAX_FRAME: u32 = 64 << 20;
/// The seek table's last fields: Number_Of_Frames, Seek_Table_Descriptor, Seekable_Magic_Number.
const FOOTER: u64 = 9;
/// What helps with forms that are not read here.
const CONVERT: &str = "`qemu-img convert -O raw FILE disk.img` makes a raw disk of it";
/// The most files over one another that are read.
const MAX_LAYERS: usize = 16;

/// Form of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Form {
    /// The disk's bytes.
    #[serde(rename = "raw")]
    Raw,
    /// zstd frames.
    #[serde(rename = "raw.zst")]
    RawZst,
    /// QEMU's format.
    #[serde(rename = "qcow2")]
    Qcow2,
    /// VMware's format, sparse and in one file.
    #[serde(rename = "vmdk")]
    Vmdk,
    /// Microsoft's format, fixed.
    #[serde(rename = "vhd")]
    Vhd,
}

/// An image file that reads as the disk.
#[derive(Debug)]
pub enum Opened {
    /// See [`Form::Raw`].
    Raw(Plain),
    /// See [`Form::RawZst`].
    RawZst(Frames),
    /// See [`Form::Qcow2`].
    Qcow2(qcow2::Disk<Plain>),
    /// See [`Form::Qcow2`]; it lies over another.
    Overlay(Box<qcow2::Overlay<Plain, Opened>>),
    /// See [`Form::Vmdk`].
    Vmdk(vmdk::Disk<Plain>),
    /// See [`Form::Vhd`]: all but the footer.
    Vhd(Plain),
}

/// A file and its length.
#[derive(Debug)]
pub struct Plain {
    file: File,
    len: u64,
}

/// A file of zstd frames with a seek table.
#[derive(Debug)]
pub struct Frames {
    file: Plain,
    /// Of every frame: first byte on the disk, first byte in the file, length in the file; the last one ends the list.
    index: Vec<(u64, u64, u32)>,
    /// The frame that was read last: readers go forward in small steps.
    last: Mutex<Option<(usize, Vec<u8>)>>,
}

impl Opened {
    /// Opens the file or block device for reading, finds out its form, and opens what it lies over.
    pub fn open(path: &Path) -> Result<Self> {
        Self::layer(path, None, 0)
    }

    /// As [`Opened::open`], but a file that lies over another is refused.
    pub(crate) fn alone(path: &Path) -> Result<Self> {
        let action = || format!("opening {}", path.display());
        let file = File::open(path).with_context(action)?;
        Self::of(file).with_context(action)
    }

    /// Finds out the form of an opened file. One that lies over another is refused.
    pub(crate) fn of(file: File) -> Result<Self> {
        Self::probe(Plain::of(file)?)
    }

    fn probe(plain: Plain) -> Result<Self> {
        match &plain.magic()? {
            b"QFI\xFB" => Ok(Opened::Qcow2(qcow2::Disk::open(plain)?)),
            [0x28, 0xB5, 0x2F, 0xFD] => Ok(Opened::RawZst(Frames::open(plain)?)),
            b"KDMV" => {
                vmdk::Disk::open(plain).map(Opened::Vmdk).map_err(|error| anyhow!(error).context(Hint(CONVERT.into())))
            }
            _ => Self::probe_further(plain),
        }
    }

    /// Finds forms that are told by other bytes than the first four.
    fn probe_further(plain: Plain) -> Result<Self> {
        let mut start = [0; 512];
        plain.read_at(0, &mut start).context("reading its first bytes")?;
        let other = |what: &str, hint: &str| Err(anyhow!("{what}").context(Hint(hint.into())));
        if start.starts_with(b"# Disk DescriptorFile") {
            return other("it is a VMDK's descriptor alone, and the disk is in other files", CONVERT);
        }
        if start.starts_with(b"vhdxfile") {
            return other("it is a VHDX file, which is not read here", CONVERT);
        }
        // The magic of POSIX's tar, where no boot sector has text.
        if &start[257..262] == b"ustar" {
            return other(
                "it is a tar archive and no disk",
                "`tar -tvf FILE` lists it; what an image's tar is made of stands in the .manifest.json beside it",
            );
        }
        match vhd::disk_len(&plain, plain.len) {
            Ok(Some(len)) => Ok(Opened::Vhd(Plain { len, ..plain })),
            Ok(None) => Ok(Opened::Raw(plain)),
            Err(error) => Err(anyhow!(error).context(Hint(CONVERT.into()))),
        }
    }

    /// `format`: what the file above says of this one; `depth`: how many are above.
    fn layer(path: &Path, format: Option<&str>, depth: usize) -> Result<Self> {
        let action = || format!("opening {}", path.display());
        let plain = File::open(path).map_err(Into::into).and_then(Plain::of).with_context(action)?;
        match format {
            // What a guest writes to the first bytes of its raw disk is not believed to be a header.
            Some("raw") => return Ok(Opened::Raw(plain)),
            Some("qcow2") | None => {}
            Some(other) => return Err(anyhow!("disks of the format {other} are not read here").context(action())),
        }
        if plain.magic().with_context(action)? != *b"QFI\xFB" {
            return Self::probe(plain).with_context(action);
        }
        let Some(backing) = qcow2::backing(&plain).with_context(action)? else {
            return Self::probe(plain).with_context(action);
        };
        if depth == MAX_LAYERS {
            return Err(anyhow!("it lies over more than {MAX_LAYERS} others, or over itself").context(action()));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let below = Self::layer(&folder.join(backing.name), backing.format.as_deref(), depth + 1)
            .with_context(|| format!("opening what {} lies over", path.display()))?;
        let len = below.disk_len();
        Ok(Opened::Overlay(Box::new(qcow2::Overlay::open(plain, below, len).with_context(action)?)))
    }

    /// The file's form.
    pub fn form(&self) -> Form {
        match self {
            Opened::Raw(_) => Form::Raw,
            Opened::RawZst(_) => Form::RawZst,
            Opened::Qcow2(_) | Opened::Overlay(_) => Form::Qcow2,
            Opened::Vmdk(_) => Form::Vmdk,
            Opened::Vhd(_) => Form::Vhd,
        }
    }

    /// Length of the disk in bytes.
    pub fn disk_len(&self) -> u64 {
        match self {
            Opened::Raw(plain) | Opened::Vhd(plain) => plain.len,
            Opened::RawZst(frames) => frames.index.last().map_or(0, |(end, ..)| *end),
            Opened::Qcow2(disk) => disk.disk_len(),
            Opened::Overlay(disk) => disk.disk_len(),
            Opened::Vmdk(disk) => disk.disk_len(),
        }
    }
}

impl ReadAt for Opened {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match self {
            Opened::Raw(plain) | Opened::Vhd(plain) => plain.read_at(offset, buf),
            Opened::RawZst(frames) => frames.read_at(offset, buf),
            Opened::Qcow2(disk) => disk.read_at(offset, buf),
            Opened::Overlay(disk) => disk.read_at(offset, buf),
            Opened::Vmdk(disk) => disk.read_at(offset, buf),
        }
    }
}

impl Plain {
    fn of(file: File) -> Result<Self> {
        // The length of a block device is told in no other way.
        let len = (&file).seek(SeekFrom::End(0)).context("looking for its end")?;
        ensure!(len >= 4096, "it is {len} bytes long, too short for a disk");
        Ok(Plain { file, len })
    }

    fn magic(&self) -> Result<[u8; 4]> {
        let mut magic = [0; 4];
        self.read_at(0, &mut magic).context("reading its first bytes")?;
        Ok(magic)
    }
}

impl ReadAt for Plain {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl Frames {
    /// Reads the seek table at the file's end (Zstandard Seekable Format 0.1.0).
    fn open(file: Plain) -> Result<Self> {
        let mut footer = [0; FOOTER as usize];
        file.read_at(file.len - FOOTER, &mut footer).context("reading its last bytes")?;
        let [n0, n1, n2, n3, descriptor, magic @ ..] = footer;
        if u32::from_le_bytes(magic) != SEEKABLE_MAGIC || descriptor & 0x7F != 0 {
            return Err(anyhow::anyhow!("it is compressed in one piece, without a table to seek by")
                .context(Hint("unpack it with `zstd -d FILE` and name the unpacked file".into())));
        }
        let frames = u32::from_le_bytes([n0, n1, n2, n3]);
        let entry = if descriptor & 0x80 != 0 { 12 } else { 8 };
        let size = u64::from(frames) * entry;
        ensure!(size + FOOTER + 8 <= file.len && size < 1 << 28, "its seek table is longer than the file");
        let mut table = vec![0; (size + 8) as usize];
        let start = file.len - FOOTER - size - 8;
        file.read_at(start, &mut table).context("reading its seek table")?;
        let word = |at: usize| u32::from_le_bytes([table[at], table[at + 1], table[at + 2], table[at + 3]]);
        ensure!(word(0) == SKIPPABLE_MAGIC && u64::from(word(4)) == size + FOOTER, "its seek table is damaged");
        let mut index = Vec::new();
        let (mut plain, mut packed) = (0, 0);
        for at in (8..table.len()).step_by(entry as usize) {
            let (compressed, decompressed) = (word(at), word(at + 4));
            ensure!(decompressed <= MAX_FRAME && compressed <= MAX_FRAME, "its seek table is damaged");
            index.push((plain, packed, compressed));
            plain += u64::from(decompressed);
            packed += u64::from(compressed);
        }
        if packed > start {
            bail!("its seek table is longer than the file");
        }
        index.push((plain, packed, 0));
        Ok(Frames { file, index, last: Mutex::new(None) })
    }

    fn frame(&self, number: usize) -> io::Result<Vec<u8>> {
        let (plain, packed, compressed) = self.index[number];
        let len = (self.index[number + 1].0 - plain) as usize;
        let mut bytes = vec![0; compressed as usize];
        self.file.read_at(packed, &mut bytes)?;
        let bytes = zstd::bulk::decompress(&bytes, len)?;
        if bytes.len() == len { Ok(bytes) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

impl ReadAt for Frames {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = self.index.last().map_or(0, |(end, ..)| *end);
        if offset.checked_add(buf.len() as u64).is_none_or(|last| last > end) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let number = self.index.partition_point(|(start, ..)| *start <= at) - 1;
            if last.as_ref().is_none_or(|(known, _)| *known != number) {
                *last = Some((number, self.frame(number)?));
            }
            let bytes = last.as_ref().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
            let inside = (at - self.index[number].0) as usize;
            let len = (buf.len() - done).min(bytes.len() - inside);
            buf[done..done + len].copy_from_slice(&bytes[inside..inside + len]);
            done += len;
        }
        Ok(())
    }
}
