//! Turns the firmware's SMBIOS tables into the metadata that an OEM string holds (`kscratch.role=<base64>`).
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Text, decode};

/// Looks through `/sys/firmware/dmi/tables/DMI`, which every kernel with DMI has (`entries/` would want one more module).
pub(super) fn ask(root: &Path) -> Result<Option<Text>> {
    let tables = match fs::read(root.join("sys/firmware/dmi/tables/DMI")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        tables => tables.context("reading the SMBIOS tables")?,
    };
    let strings = oem_strings(&tables);
    let value = |key: &str| strings.iter().find_map(|string| string.strip_prefix(key));
    let Some(role) = value("kscratch.role=") else { return Ok(None) };
    let role = decode(role).context("the OEM string kscratch.role")?;
    let secrets = value("kscratch.secrets=").map(|text| decode(text).context("the OEM string kscratch.secrets"));
    Ok(Some(Text { place: "OEM string kscratch.role".to_owned(), role, secrets: secrets.transpose()? }))
}

/// The strings of all structures of type 11 (SMBIOS specification 3.7, 6.1.2 "structure header", 6.1.3 "text strings", 7.12 "OEM Strings").
#[must_use]
pub fn oem_strings(tables: &[u8]) -> Vec<String> {
    let mut strings = Vec::new();
    let mut rest = tables;
    while let [kind, length, _, _, ..] = rest {
        // The formatted area, then strings, each ended by a zero, all ended by one more; without strings two zeros.
        let Some(text) = rest.get(usize::from(*length).max(4)..) else { break };
        let Some(end) = text.windows(2).position(|pair| pair == [0, 0]) else { break };
        if *kind == 11 {
            let each = text[..end].split(|byte| *byte == 0).filter(|string| !string.is_empty());
            strings.extend(each.map(|string| String::from_utf8_lossy(string).into_owned()));
        }
        // 127 ends the table (7.45).
        if *kind == 127 {
            break;
        }
        rest = &text[end + 2..];
    }
    strings
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::proptest;

    use super::{ask, oem_strings};

    /// BIOS information with a string, OEM strings, a structure without strings, the end.
    fn tables(strings: &str) -> Vec<u8> {
        let mut all = b"\x00\x05\x00\x00\x01vendor\0\0".to_vec();
        all.extend(b"\x0b\x05\x01\x00\x02");
        all.extend(strings.as_bytes());
        all.extend(b"\0\0\x20\x04\x02\x00\0\0\x7f\x04\x03\x00\0\0\x0b\x05\x01\x00\x02after the end\0\0");
        all
    }

    #[test]
    fn oem_strings_are_found_among_other_structures() {
        assert_eq!(oem_strings(&tables("one\0two")), ["one", "two"]);
        assert!(oem_strings(&tables("")).is_empty());
        assert!(oem_strings(b"\x0b\x05\x01").is_empty());
    }

    #[test]
    fn the_role_is_base64() {
        let root = tempfile::tempdir().unwrap();
        assert!(ask(root.path()).unwrap().is_none());
        let folder = root.path().join("sys/firmware/dmi/tables");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("DMI"), tables("vendor=x\0kscratch.role=dmVyc2lvbiA9IDE=\0kscratch.secrets=YSA9IDE"))
            .unwrap();
        let text = ask(root.path()).unwrap().unwrap();
        assert_eq!((text.role.as_str(), text.secrets.as_deref()), ("version = 1", Some("a = 1")));
        fs::write(folder.join("DMI"), tables("kscratch.role=%")).unwrap();
        let error = ask(root.path()).unwrap_err();
        assert!(format!("{error:#}").starts_with("the OEM string kscratch.role: it is no base64"), "{error:#}");
    }

    proptest! {
        #[test]
        fn no_table_breaks_it(tables: Vec<u8>) {
            let _ = oem_strings(&tables);
        }
    }
}
