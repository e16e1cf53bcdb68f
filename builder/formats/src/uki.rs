//! Turns systemd's EFI stub, a kernel, an initramfs and a command line into one PE file that firmware boots, and such a file back into its parts.
//!
//! PE/COFF specification (field names in capitals follow it) and the UAPI group's "Unified Kernel Image" specification.
use crate::bytes::{ReadAt, put, put_u16, put_u32, u16_at, u32_at};

/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`.
const DATA_READ: u32 = 0x4000_0040;
const SECTION_HEADER: usize = 40;
/// Offsets within the optional header, the same for PE32 and PE32+.
const SECTION_ALIGNMENT: usize = 32;
const FILE_ALIGNMENT: usize = 36;
const SIZE_OF_INITIALIZED_DATA: usize = 8;
const SIZE_OF_IMAGE: usize = 56;
const SIZE_OF_HEADERS: usize = 60;
const CHECKSUM: usize = 64;
/// New sections begin on a page, whatever the stub's own alignment.
const PAGE: u64 = 4096;

/// What goes into the file.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// systemd's `linuxx64.efi.stub`.
    pub stub: &'a [u8],
    /// `.linux`: the kernel, a bzImage.
    pub linux: &'a [u8],
    /// `.initrd`: the initramfs.
    pub initrd: &'a [u8],
    /// `.cmdline`: the kernel's command line, without an end of line.
    pub cmdline: &'a str,
    /// `.osrel`: the contents of os-release.
    pub os_release: &'a str,
    /// `.uname`: the kernel's version.
    pub uname: &'a str,
}

/// A section of a PE file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Name, such as `.cmdline`.
    pub name: String,
    /// First byte in the file.
    pub offset: u64,
    /// Length in bytes, padding not counted.
    pub len: u64,
}

/// Why a file cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stub is not one that sections can be added to.
    #[error("adding sections to the EFI stub: {0}")]
    Stub(String),
    /// A file that is not a PE file.
    #[error("reading the PE file: {0}")]
    Damaged(String),
    /// The bytes could not be read.
    #[error("reading the PE file")]
    Read(#[from] std::io::Error),
}

/// Where the headers of a PE file stand.
struct Headers {
    /// The COFF file header.
    coff: usize,
    optional: usize,
    sections: usize,
    count: usize,
}

impl Headers {
    /// Finds them in the file's first bytes; the section headers are inside `bytes`.
    fn find(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < 64 || &bytes[..2] != b"MZ" {
            return Err("it does not begin with `MZ`".to_owned());
        }
        let signature = u32_at(bytes, 0x3C) as usize;
        let coff = signature.saturating_add(4);
        if coff.saturating_add(20) > bytes.len() || &bytes[signature..coff] != b"PE\0\0" {
            return Err("there is no `PE` signature".to_owned());
        }
        let (count, size) = (usize::from(u16_at(bytes, coff + 2)), usize::from(u16_at(bytes, coff + 16)));
        let optional = coff + 20;
        let sections = optional + size;
        if size < 112 || sections + count * SECTION_HEADER > bytes.len() {
            return Err("its headers are cut short".to_owned());
        }
        if u16_at(bytes, optional) != 0x20B {
            return Err("it is not a PE32+ file".to_owned());
        }
        Ok(Headers { coff, optional, sections, count })
    }

    fn section<'a>(&self, bytes: &'a [u8], index: usize) -> &'a [u8] {
        let at = self.sections + index * SECTION_HEADER;
        &bytes[at..at + SECTION_HEADER]
    }
}

/// The unified kernel image. The same parts give the same bytes; it is not signed.
pub fn build(parts: &Parts<'_>) -> Result<Vec<u8>, Error> {
    let wrong = |reason: &str| Error::Stub(reason.to_owned());
    let headers = Headers::find(parts.stub).map_err(Error::Stub)?;
    let field = |offset: usize| u64::from(u32_at(parts.stub, headers.optional + offset));
    let (file_alignment, section_alignment) = (field(FILE_ALIGNMENT), field(SECTION_ALIGNMENT).max(PAGE));
    if !file_alignment.is_power_of_two() || !section_alignment.is_power_of_two() {
        return Err(wrong("its alignments are not powers of two"));
    }
    let added: [(&[u8; 8], &[u8]); 5] = [
        (b".osrel\0\0", parts.os_release.as_bytes()),
        (b".uname\0\0", parts.uname.as_bytes()),
        (b".cmdline", parts.cmdline.as_bytes()),
        (b".initrd\0", parts.initrd),
        (b".linux\0\0", parts.linux),
    ];
    let sections = (0..headers.count).map(|index| headers.section(parts.stub, index));
    let (mut file_end, mut memory_end) = (0, 0);
    for section in sections {
        if added.iter().any(|(name, _)| section.starts_with(*name)) {
            return Err(wrong("it has a kernel or command line already"));
        }
        file_end = file_end.max(u64::from(u32_at(section, 20)) + u64::from(u32_at(section, 16)));
        memory_end = memory_end.max(u64::from(u32_at(section, 12)) + u64::from(u32_at(section, 8)));
    }
    let room = field(SIZE_OF_HEADERS) as usize;
    let mut slot = headers.sections + headers.count * SECTION_HEADER;
    if slot + added.len() * SECTION_HEADER > room || room > parts.stub.len() {
        return Err(wrong("there is no room for five more section headers"));
    }
    if file_end > parts.stub.len() as u64 {
        return Err(wrong("it is cut short"));
    }
    // Behind the last section linkers leave symbol tables; they would come to lie inside what follows.
    let mut file = parts.stub[..file_end as usize].to_vec();
    let mut initialized = field(SIZE_OF_INITIALIZED_DATA);
    for (name, data) in added {
        file.resize((file.len() as u64).next_multiple_of(file_alignment) as usize, 0);
        let (offset, address) = (file.len() as u64, memory_end.next_multiple_of(section_alignment));
        let raw = (data.len() as u64).next_multiple_of(file_alignment);
        memory_end = address + data.len() as u64;
        if memory_end > u64::from(u32::MAX) || offset + raw > u64::from(u32::MAX) {
            return Err(wrong("the file would be larger than 4 GiB"));
        }
        put(&mut file, slot, name);
        put_u32(&mut file, slot + 8, data.len() as u32); // VirtualSize
        put_u32(&mut file, slot + 12, address as u32);
        put_u32(&mut file, slot + 16, raw as u32); // SizeOfRawData
        put_u32(&mut file, slot + 20, offset as u32); // PointerToRawData
        put_u32(&mut file, slot + 36, DATA_READ);
        slot += SECTION_HEADER;
        initialized += raw;
        file.extend_from_slice(data);
        file.resize((offset + raw) as usize, 0);
    }
    put_u16(&mut file, headers.coff + 2, (headers.count + added.len()) as u16);
    put(&mut file, headers.coff + 8, &[0; 8]); // PointerToSymbolTable, NumberOfSymbols: cut off above
    put_u32(&mut file, headers.optional + SIZE_OF_INITIALIZED_DATA, initialized as u32);
    put_u32(&mut file, headers.optional + SIZE_OF_IMAGE, memory_end.next_multiple_of(section_alignment) as u32);
    put_u32(&mut file, headers.optional + CHECKSUM, 0); // not checked for EFI programs
    Ok(file)
}

/// The sections of a PE file of `len` bytes, in the order of its headers.
pub fn sections(file: &(impl ReadAt + ?Sized), len: u64) -> Result<Vec<Section>, Error> {
    let mut start = vec![0; len.min(PAGE) as usize];
    file.read_at(0, &mut start)?;
    let headers = Headers::find(&start).map_err(Error::Damaged)?;
    let mut found = Vec::new();
    for index in 0..headers.count {
        let header = headers.section(&start, index);
        let name: Vec<u8> = header[..8].iter().copied().take_while(|byte| *byte != 0).collect();
        let name = String::from_utf8_lossy(&name).into_owned();
        let (virtual_size, raw, offset) = (u32_at(header, 8), u32_at(header, 16), u64::from(u32_at(header, 20)));
        let size = u64::from(virtual_size.min(raw));
        if offset + size > len {
            return Err(Error::Damaged(format!("section {name} ends behind the file")));
        }
        found.push(Section { name, offset, len: size });
    }
    Ok(found)
}
