//! The bytes of a file become its [`Linkage`]: what the dynamic linker would look for, and where.
use std::io;

use object::elf;
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::read::{ReadCache, ReadRef};

use crate::tree::{ReadSeek, link_target, parent};

/// What an ELF file asks of the dynamic linker (ELF specification, "Dynamic Section"; ld.so(8)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Linkage {
    /// `PT_INTERP`: the dynamic linker; none for static programs and libraries.
    pub interpreter: Option<String>,
    /// `DT_NEEDED`: names of libraries.
    pub needed: Vec<String>,
    /// `DT_RPATH`, split at colons; empty where there is a `DT_RUNPATH`.
    pub rpath: Vec<String>,
    /// `DT_RUNPATH`, split at colons.
    pub runpath: Vec<String>,
}

impl Linkage {
    /// Whether nothing else is needed to run or load it.
    pub fn is_static(&self) -> bool {
        self.interpreter.is_none() && self.needed.is_empty()
    }
}

/// What the first bytes of a file say it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// ELF for x86-64.
    Elf(Linkage),
    /// A script, with the interpreter of its `#!` line.
    Script(String),
    /// Anything else.
    Data,
}

/// Where Debian's dynamic linker looks without a cache file: the paths built into its `ld.so` (`ld.so --list-diagnostics`).
pub const DEFAULT_PATHS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib"];

/// The most a `#!` line may be (Linux `BINPRM_BUF_SIZE`).
const SHEBANG: u64 = 256;

/// Reads what the file is; of an ELF file only its headers and dynamic section are read.
///
/// # Errors
/// What reading says, and `InvalidData` for an ELF file that is broken or for another machine.
pub fn format(mut reader: Box<dyn ReadSeek + '_>) -> io::Result<Format> {
    let mut start = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&mut reader, SHEBANG), &mut start)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        return Ok(Format::Script(line.split_whitespace().next().unwrap_or_default().to_owned()));
    }
    if !start.starts_with(&elf::ELFMAG) {
        return Ok(Format::Data);
    }
    linkage(&ReadCache::new(reader)).map(Format::Elf)
}

fn broken(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the ELF file is broken: {what}"))
}

fn linkage<'a>(data: impl ReadRef<'a>) -> io::Result<Linkage> {
    let header = elf::FileHeader64::<object::Endianness>::parse(data).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    if header.e_machine(endian) != elf::EM_X86_64 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the ELF file is for machine {}, not x86-64", header.e_machine(endian)),
        ));
    }
    let segments = header.program_headers(endian, data).map_err(broken)?;
    let mut linkage = Linkage::default();
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, data).map_err(broken)? {
            linkage.interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    let Some(dynamic) =
        segments.iter().find_map(|segment| segment.dynamic(endian, data).transpose()).transpose().map_err(broken)?
    else {
        return Ok(linkage);
    };
    let entry =
        |tag: elf::DynamicTag| dynamic.iter().find(|entry| entry.tag(endian) == tag).map(|entry| entry.d_val(endian));
    let Some(strings) = entry(elf::DT_STRTAB) else { return Ok(linkage) };
    let strings = file_offset(endian, segments, strings).ok_or_else(|| broken("its string table is in no segment"))?;
    let end = data.len().map_err(|()| broken("its length is unknown"))?;
    let string = |entry: u64| {
        let at = strings.checked_add(entry).filter(|at| *at < end).ok_or_else(|| broken("a name is beyond its end"))?;
        let bytes = data.read_bytes_at_until(at..end, 0).map_err(|()| broken("a name has no end"))?;
        Ok::<_, io::Error>(String::from_utf8_lossy(bytes).into_owned())
    };
    for item in dynamic.iter().filter(|item| item.tag(endian) == elf::DT_NEEDED) {
        linkage.needed.push(string(item.d_val(endian))?);
    }
    let paths = |tag: elf::DynamicTag| -> io::Result<Vec<String>> {
        let Some(value) = entry(tag) else { return Ok(Vec::new()) };
        Ok(string(value)?.split(':').filter(|path| !path.is_empty()).map(str::to_owned).collect())
    };
    linkage.runpath = paths(elf::DT_RUNPATH)?;
    if linkage.runpath.is_empty() {
        linkage.rpath = paths(elf::DT_RPATH)?;
    }
    Ok(linkage)
}

/// Where in the file a virtual address stands.
fn file_offset<E: object::Endian>(endian: E, segments: &[elf::ProgramHeader64<E>], address: u64) -> Option<u64> {
    segments
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
        .find(|segment| {
            let start = segment.p_vaddr(endian);
            start <= address && address - start < segment.p_filesz(endian)
        })
        .and_then(|segment| segment.p_offset(endian).checked_add(address - segment.p_vaddr(endian)))
}

/// Where the dynamic linker looks for the libraries of the object at `path`, in order: inherited `DT_RPATH`s, its own, `DT_RUNPATH`,
/// the defaults (ld.so(8); there is no `LD_LIBRARY_PATH` and no cache file in the image).
pub fn search_paths(path: &str, linkage: &Linkage, inherited: &[String]) -> Vec<String> {
    let origin = parent(path).unwrap_or("/");
    let expand = |entry: &String| link_target(path, &entry.replace("${ORIGIN}", origin).replace("$ORIGIN", origin));
    let inherited = if linkage.runpath.is_empty() { inherited } else { &[] };
    let own = linkage.rpath.iter().chain(&linkage.runpath).map(expand);
    own.chain(inherited.iter().cloned()).chain(DEFAULT_PATHS.map(str::to_owned)).collect()
}

/// The `DT_RPATH`s that the libraries of the object at `path` inherit; `DT_RUNPATH`s are not inherited.
pub fn inherited_paths(path: &str, linkage: &Linkage, inherited: &[String]) -> Vec<String> {
    let own = Linkage { rpath: linkage.rpath.clone(), ..Linkage::default() };
    let mut paths = search_paths(path, &own, inherited);
    paths.truncate(paths.len() - DEFAULT_PATHS.len());
    paths
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Format> {
        format(Box::new(Cursor::new(bytes.to_vec())))
    }

    #[test]
    fn a_real_dynamic_program_names_its_libraries_and_linker() {
        let bytes = std::fs::read("/bin/ls").unwrap();
        let Format::Elf(linkage) = read(&bytes).unwrap() else { panic!("not ELF") };
        assert_eq!(linkage.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert!(linkage.needed.contains(&"libc.so.6".to_owned()), "{:?}", linkage.needed);
        assert!(!linkage.is_static());
    }

    #[test]
    fn scripts_and_data_are_told_apart() {
        assert_eq!(read(b"#! /usr/bin/env bash\n").unwrap(), Format::Script("/usr/bin/env".into()));
        assert_eq!(read(b"#!").unwrap(), Format::Script(String::new()));
        assert_eq!(read(b"").unwrap(), Format::Data);
        assert_eq!(read(b"\x7fEL").unwrap(), Format::Data);
    }

    #[test]
    fn a_foreign_machine_is_refused() {
        let mut bytes = std::fs::read("/bin/ls").unwrap();
        bytes[18..20].copy_from_slice(&183_u16.to_le_bytes());
        assert_eq!(read(&bytes).unwrap_err().to_string(), "the ELF file is for machine 183, not x86-64");
    }

    #[test]
    fn search_paths_follow_the_linker() {
        let linkage = Linkage { rpath: vec!["$ORIGIN/../lib/mine".into()], ..Linkage::default() };
        let defaults = DEFAULT_PATHS.map(str::to_owned);
        let want = [&["/usr/lib/mine".to_owned(), "/opt/x".to_owned()], &defaults[..]].concat();
        assert_eq!(search_paths("/usr/bin/p", &linkage, &["/opt/x".into()]), want);
        assert_eq!(inherited_paths("/usr/bin/p", &linkage, &["/opt/x".into()]), ["/usr/lib/mine", "/opt/x"]);
        let runpath = Linkage { runpath: vec!["/opt/y".into()], ..Linkage::default() };
        assert_eq!(
            search_paths("/usr/bin/p", &runpath, &["/opt/x".into()]),
            [&["/opt/y".to_owned()], &defaults[..]].concat()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, at in 0usize..4096, flip: u8) {
            let _ = read(&bytes);
            bytes.splice(0..0, *b"\x7fELF\x02\x01\x01\0");
            let _ = read(&bytes);
            let mut real = std::fs::read("/bin/ls").unwrap();
            real.truncate(8192);
            real[at] ^= flip;
            let _ = read(&real);
        }
    }
}
