//! An EFI stub and the parts of a boot become a unified kernel image: one PE file that firmware starts.
//!
//! Formats: UAPI.5 "Unified Kernel Image" for the sections' names; Microsoft's "PE Format" for headers (COFF file header, PE32+ optional
//! header, section table).
use std::collections::BTreeMap;

use thiserror::Error;

/// What cannot be read as, or made into, a UKI.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The bytes are no PE32+ file.
    #[error("this is not a PE32+ file: {0}")]
    NotPe(&'static str),
    /// The stub's headers leave no room for further section headers.
    #[error("the EFI stub has room for {room} more sections, {wanted} are needed")]
    NoRoom {
        /// Section headers that fit.
        room: usize,
        /// Section headers that are to be added.
        wanted: usize,
    },
    /// A section is larger than PE allows.
    #[error("the section {0} is too large for a PE file (4 GiB at most)")]
    TooLarge(String),
}

const SECTION_HEADER: usize = 40;
/// IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
const DATA_READ: u32 = 0x4000_0040;

/// Where the fields that change stand.
struct Headers {
    /// Offset of NumberOfSections.
    count_at: usize,
    /// Offset of SizeOfInitializedData in the optional header.
    initialized_at: usize,
    /// Offset of SizeOfImage.
    image_size_at: usize,
    section_alignment: u32,
    file_alignment: u32,
    headers_size: usize,
    table: usize,
    count: usize,
}

/// Puts `sections` (name such as `.linux`, bytes) behind those of the stub, in the order given.
pub fn assemble(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>, Error> {
    let headers = read_headers(stub)?;
    let table_end = headers.table + headers.count * SECTION_HEADER;
    let room = headers.headers_size.saturating_sub(table_end) / SECTION_HEADER;
    if room < sections.len() {
        return Err(Error::NoRoom { room, wanted: sections.len() });
    }
    let (mut address, end) = ends(stub, &headers)?;
    // Stubs come with bytes behind their last section (a symbol table, padding): sections must follow the last one's data.
    let mut out = stub.get(..end).ok_or(Error::NotPe("a section ends behind the file"))?.to_vec();
    let mut initialized = u32_at(stub, headers.initialized_at)?;
    for (index, (name, bytes)) in sections.iter().enumerate() {
        let too_large = || Error::TooLarge((*name).to_owned());
        out.resize(out.len().next_multiple_of(headers.file_alignment as usize), 0);
        address = address.checked_next_multiple_of(headers.section_alignment).ok_or_else(too_large)?;
        let virtual_size = u32::try_from(bytes.len()).map_err(|_| too_large())?;
        let raw_size = virtual_size.checked_next_multiple_of(headers.file_alignment).ok_or_else(too_large)?;
        let raw_at = u32::try_from(out.len()).map_err(|_| too_large())?;
        out.extend_from_slice(bytes);
        out.resize(raw_at as usize + raw_size as usize, 0);
        let mut header = [0u8; SECTION_HEADER];
        let label = name.as_bytes();
        header[..label.len().min(8)].copy_from_slice(&label[..label.len().min(8)]);
        for (at, value) in [(8, virtual_size), (12, address), (16, raw_size), (20, raw_at), (36, DATA_READ)] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let at = table_end + index * SECTION_HEADER;
        out[at..at + SECTION_HEADER].copy_from_slice(&header);
        address = address.checked_add(virtual_size).ok_or_else(too_large)?;
        initialized = initialized.wrapping_add(raw_size);
    }
    let image_size =
        address.checked_next_multiple_of(headers.section_alignment).ok_or(Error::NotPe("the image is too large"))?;
    let count = (headers.count + sections.len()) as u16;
    out[headers.count_at..headers.count_at + 2].copy_from_slice(&count.to_le_bytes());
    out[headers.initialized_at..headers.initialized_at + 4].copy_from_slice(&initialized.to_le_bytes());
    out[headers.image_size_at..headers.image_size_at + 4].copy_from_slice(&image_size.to_le_bytes());
    Ok(out)
}

/// The sections of a PE file by name, without their padding; of two with one name the first is told.
pub fn sections(file: &[u8]) -> Result<BTreeMap<String, &[u8]>, Error> {
    let headers = read_headers(file)?;
    let mut found = BTreeMap::new();
    for index in 0..headers.count {
        let at = headers.table + index * SECTION_HEADER;
        let name = file.get(at..at + 8).ok_or(Error::NotPe("the section table is cut off"))?;
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        let (virtual_size, raw_size, raw_at) = (u32_at(file, at + 8)?, u32_at(file, at + 16)?, u32_at(file, at + 20)?);
        let start = raw_at as usize;
        let bytes = file
            .get(start..start + virtual_size.min(raw_size) as usize)
            .ok_or(Error::NotPe("a section ends behind the file"))?;
        found.entry(name).or_insert(bytes);
    }
    Ok(found)
}

/// Largest virtual end and largest file end of the sections there are.
fn ends(file: &[u8], headers: &Headers) -> Result<(u32, usize), Error> {
    let (mut address, mut end) = (0u32, headers.headers_size);
    for index in 0..headers.count {
        let at = headers.table + index * SECTION_HEADER;
        let (virtual_size, virtual_at) = (u32_at(file, at + 8)?, u32_at(file, at + 12)?);
        let (raw_size, raw_at) = (u32_at(file, at + 16)?, u32_at(file, at + 20)?);
        address = address.max(virtual_at.saturating_add(virtual_size));
        end = end.max(raw_at as usize + raw_size as usize);
    }
    Ok((address, end))
}

fn read_headers(file: &[u8]) -> Result<Headers, Error> {
    if file.get(..2) != Some(b"MZ") {
        return Err(Error::NotPe("the DOS header is missing"));
    }
    let pe = u32_at(file, 0x3c)? as usize;
    if file.get(pe..pe.saturating_add(4)) != Some(b"PE\0\0") {
        return Err(Error::NotPe("the PE signature is missing"));
    }
    let coff = pe + 4;
    let count = u16_at(file, coff + 2)? as usize;
    let optional = coff + 20;
    if u16_at(file, optional)? != 0x20b {
        return Err(Error::NotPe("the optional header is not PE32+"));
    }
    let (section_alignment, file_alignment) = (u32_at(file, optional + 32)?, u32_at(file, optional + 36)?);
    if !section_alignment.is_power_of_two() || !file_alignment.is_power_of_two() {
        return Err(Error::NotPe("an alignment is not a power of two"));
    }
    Ok(Headers {
        count_at: coff + 2,
        initialized_at: optional + 8,
        image_size_at: optional + 56,
        section_alignment,
        file_alignment,
        headers_size: u32_at(file, optional + 60)? as usize,
        table: optional + u16_at(file, coff + 16)? as usize,
        count,
    })
}

fn u16_at(file: &[u8], at: usize) -> Result<u16, Error> {
    let bytes = file.get(at..at.saturating_add(2)).and_then(|slice| slice.try_into().ok());
    bytes.map(u16::from_le_bytes).ok_or(Error::NotPe("a header is cut off"))
}

fn u32_at(file: &[u8], at: usize) -> Result<u32, Error> {
    let bytes = file.get(at..at.saturating_add(4)).and_then(|slice| slice.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or(Error::NotPe("a header is cut off"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::{assemble, sections};

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut file = b"MZ".to_vec();
            file.extend(bytes);
            drop(sections(&file));
            prop_assert!(assemble(&file, &[(".linux", b"x")]).is_err() || file.len() > 64);
        }
    }
}
