//! Turns the ranges of a disk that hold something into a block map, and a block map back into ranges.
//!
//! The format is bmap 2.0, as bmaptool 3 writes and reads it: XML, whose `BmapFileChecksum` is the SHA-256 of the map itself with 64 zeros in
//! that place. A block that no range names may hold anything on the device.
use std::fmt::Write as _;
use std::ops::Range;

use roxmltree::{Document, Node};
use sha2::{Digest as _, Sha256};

/// `BlockSize` of maps that are made here, in bytes.
pub const BLOCK: u64 = 4096;
/// A longer map is not read: a disk of 64 TiB has one of less, where every MiB has a range of its own.
pub const MAX_LEN: usize = 64 << 20;
/// What stands for the checksum while it is made.
const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A range of the disk that is to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// Bytes of the disk; the last range may end with the disk, within a block.
    pub bytes: Range<u64>,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
}

/// A block map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMap {
    /// `ImageSize`: length of the disk in bytes.
    pub image: u64,
    /// In order, and not overlapping.
    pub ranges: Vec<Mapped>,
}

/// Why a text is no block map that can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no XML.
    #[error("reading the block map: {0}")]
    Xml(String),
    /// It is damaged, or of another version than is read here.
    #[error("reading the block map: {0}")]
    Damaged(String),
}

fn damaged<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Damaged(reason.into()))
}

impl BlockMap {
    /// Bytes that are to be copied.
    pub fn mapped(&self) -> u64 {
        self.ranges.iter().map(|range| range.bytes.end - range.bytes.start).sum()
    }

    /// The map as text, with its checksum. Ranges begin at multiples of [`BLOCK`], and end at them or with the disk.
    pub fn print(&self) -> String {
        let blocks = |bytes: u64| bytes.div_ceil(BLOCK);
        let mapped: u64 = self.ranges.iter().map(|range| blocks(range.bytes.end - range.bytes.start)).sum();
        let mut text = format!(
            "<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n    <ImageSize> {} </ImageSize>\n    <BlockSize> {BLOCK} </BlockSize>\n    \
             <BlocksCount> {} </BlocksCount>\n    <MappedBlocksCount> {mapped} </MappedBlocksCount>\n    \
             <ChecksumType> sha256 </ChecksumType>\n    <BmapFileChecksum> {NO_CHECKSUM} </BmapFileChecksum>\n    <BlockMap>\n",
            self.image,
            blocks(self.image),
        );
        for Mapped { bytes, sha256 } in &self.ranges {
            let (first, last) = (bytes.start / BLOCK, blocks(bytes.end).saturating_sub(1));
            let place = if first == last { first.to_string() } else { format!("{first}-{last}") };
            // Writing into a String does not fail.
            let _ = writeln!(text, "        <Range chksum=\"{}\"> {place} </Range>", hex::encode(sha256));
        }
        text.push_str("    </BlockMap>\n</bmap>\n");
        let checksum = hex::encode(Sha256::digest(&text));
        text.replacen(NO_CHECKSUM, &checksum, 1)
    }

    /// Reads a map and checks its own checksum.
    ///
    /// # Errors
    /// No XML; a version, a kind of checksum or ranges that are not read here; a checksum that is wrong.
    pub fn parse(text: &str) -> Result<BlockMap, Error> {
        if text.len() > MAX_LEN {
            return damaged(format!("it is {} bytes long, more than {MAX_LEN}", text.len()));
        }
        let document = Document::parse(text).map_err(|error| Error::Xml(error.to_string()))?;
        let root = document.root_element();
        let version = root.attribute("version").unwrap_or_default();
        if root.tag_name().name() != "bmap" || version.split('.').next() != Some("2") {
            return damaged(format!(
                "it is a <{}> of version `{version}`, not a <bmap> of version 2",
                root.tag_name().name()
            ));
        }
        let kind = field(root, "ChecksumType")?;
        if kind != "sha256" {
            return damaged(format!("its checksums are of the kind `{kind}`, not sha256"));
        }
        own_checksum(text, field(root, "BmapFileChecksum")?)?;
        let (image, block) = (number(field(root, "ImageSize")?)?, number(field(root, "BlockSize")?)?);
        if !(512..=1 << 30).contains(&block) || !block.is_power_of_two() {
            return damaged(format!("its blocks are {block} bytes long"));
        }
        let mut ranges: Vec<Mapped> = Vec::new();
        for node in element(root, "BlockMap")?.children().filter(|node| node.has_tag_name("Range")) {
            let place = node.text().unwrap_or_default().trim();
            let (first, last) = place.split_once('-').unwrap_or((place, place));
            let (first, last) = (number(first)?, number(last)?);
            let start = first.checked_mul(block);
            let end = last.checked_add(1).and_then(|end| end.checked_mul(block)).map(|end| end.min(image));
            let (Some(start), Some(end)) = (start, end) else {
                return damaged(format!("its range {place} is past any disk"));
            };
            if start >= end || ranges.last().is_some_and(|before| before.bytes.end > start) {
                return damaged(format!("its range {place} is empty, past the disk, or not behind the one before"));
            }
            let sha256 = node.attribute("chksum").and_then(unhex);
            let Some(sha256) = sha256 else { return damaged(format!("its range {place} has no SHA-256")) };
            ranges.push(Mapped { bytes: start..end, sha256 });
        }
        Ok(BlockMap { image, ranges })
    }
}

/// Compares the map with its own checksum.
fn own_checksum(text: &str, said: &str) -> Result<(), Error> {
    if said.len() != NO_CHECKSUM.len() {
        return damaged("its own checksum is no SHA-256");
    }
    let found: [u8; 32] = Sha256::digest(text.replacen(said, NO_CHECKSUM, 1)).into();
    if unhex(said) != Some(found) {
        return damaged(format!("it says that its checksum is {said}, and it is {}", hex::encode(found)));
    }
    Ok(())
}

fn element<'a>(root: Node<'a, 'a>, name: &str) -> Result<Node<'a, 'a>, Error> {
    let found = root.children().find(|node| node.has_tag_name(name));
    found.ok_or_else(|| Error::Damaged(format!("it has no <{name}>")))
}

fn field<'a>(root: Node<'a, 'a>, name: &str) -> Result<&'a str, Error> {
    Ok(element(root, name)?.text().unwrap_or_default().trim())
}

fn number(text: &str) -> Result<u64, Error> {
    text.trim().parse().map_err(|_| Error::Damaged(format!("`{}` is no number", text.trim())))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}
