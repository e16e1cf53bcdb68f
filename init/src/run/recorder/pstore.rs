//! What the kernel left of its last words in memory that outlives it (pstore), as lines; what was taken is removed there, for its room is small.
use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel shows it (Documentation/ABI/testing/pstore).
pub const PLACE: &str = "/sys/fs/pstore";

/// Records of one moment, and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The text, in order.
    pub lines: Vec<String>,
    /// Where it stands.
    pub files: Vec<PathBuf>,
}

/// Reads what there is. A panic's log is in parts, of which the first one has the last words: `Panic#1 Part3`, then the text.
pub fn read(folder: &Path) -> Left {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut parts: Vec<(u32, PathBuf, String)> = Vec::new();
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        let Ok(bytes) = fs::read(&path) else { continue };
        files.push(path.clone());
        // Other kinds (console, user messages) are nobody's last words.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dmesg-")) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            parts.push((number(&text), path, text));
        }
    }
    parts.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
    files.sort();
    let lines = parts.iter().flat_map(|(_, _, text)| text.lines().skip(usize::from(number(text) > 0)));
    Left { lines: lines.map(|line| plain(line).to_owned()).filter(|line| !line.is_empty()).collect(), files }
}

/// The number of a part, from its first line; 0 where that is none.
fn number(text: &str) -> u32 {
    let first = text.lines().next().unwrap_or_default();
    let part = first.rsplit_once(" Part").map(|(_, part)| part.parse());
    part.and_then(Result::ok).unwrap_or_default()
}

/// Without the priority that the kernel's lines begin with here: `<6>[    1.234567] text`.
fn plain(line: &str) -> &str {
    match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((priority, rest)) if priority.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::read;

    #[test]
    fn parts_are_put_in_order_and_everything_is_to_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
        write(
            "dmesg-efi_pstore-176000001001",
            b"Panic#1 Part1\n<0>[   12.5] Kernel panic - not syncing: x\n<4>[   12.6] last\n",
        );
        write("dmesg-efi_pstore-176000002001", b"Panic#1 Part2\n<6>[   12.1] first\n<6>[   12.2] \xff second\n");
        write("console-ramoops-0", b"console\n");
        let left = read(folder.path());
        assert_eq!(
            left.lines,
            [
                "[   12.1] first",
                "[   12.2] \u{fffd} second",
                "[   12.5] Kernel panic - not syncing: x",
                "[   12.6] last"
            ]
        );
        assert_eq!(left.files.len(), 3);
    }

    #[test]
    fn what_is_no_part_is_a_text_and_no_folder_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dmesg-x-1"), "one\n\n<x>two\n").unwrap();
        assert_eq!(read(folder.path()).lines, ["one", "<x>two"]);
        assert!(read(&folder.path().join("none")).files.is_empty());
    }
}
