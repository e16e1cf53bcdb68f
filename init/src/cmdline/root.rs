//! Turns the kernel command line's words of the root into where it is: a partition, or a file on a server with its digest.
use crate::partition::Guid;

/// Where the root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// `kscratch.root=PARTUUID=<guid>`: a partition of this machine's disks.
    Partition(Guid),
    /// `kscratch.root=http://...`: a file on a server.
    Fetched(Fetched),
}

/// A root on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// `kscratch.root=`, the file's URL.
    pub url: String,
    /// `kscratch.root.sha256=`, the file's digest.
    pub sha256: [u8; 32],
    /// `kscratch.root.bytes=`, what the root takes in memory once it is unpacked.
    pub bytes: Option<u64>,
}

/// The words as they stand there, of each the last one.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) place: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) bytes: Option<String>,
}

impl Words {
    /// Reads them together. `None` where nothing is said of the root; the text of an error says what to write.
    pub(super) fn read(mut self) -> Option<Result<Root, String>> {
        let place = self.place.take()?;
        if let Some(guid) = place.strip_prefix("PARTUUID=").and_then(|guid| guid.parse().ok()) {
            return Some(Ok(Root::Partition(guid)));
        }
        Some(self.fetched(place))
    }

    fn fetched(self, url: String) -> Result<Root, String> {
        if url.starts_with("https://") || url.starts_with("tftp://") {
            let why = "it comes by http alone; its digest is what proves it";
            return Err(format!("kscratch.root={url} on the kernel command line cannot be fetched: {why}"));
        }
        if !url.starts_with("http://") {
            let forms = "PARTUUID=<guid> nor of the form http://HOST[:PORT]/PATH";
            return Err(format!("kscratch.root={url} on the kernel command line is neither of the form {forms}"));
        }
        let digest = self.sha256.as_deref().and_then(digest).ok_or_else(|| match &self.sha256 {
            Some(text) => {
                format!("kscratch.root.sha256={text} on the kernel command line is not 64 hexadecimal digits")
            }
            None => {
                "the kernel command line lacks kscratch.root.sha256=<digest>: without it anybody could put a root here"
                    .to_owned()
            }
        })?;
        let bytes = self.bytes.map(|text| {
            text.parse().map_err(|_| format!("kscratch.root.bytes={text} on the kernel command line is no number"))
        });
        Ok(Root::Fetched(Fetched { url, sha256: digest, bytes: bytes.transpose()? }))
    }
}

/// 32 bytes as hexadecimal digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Fetched, Root};
    use crate::cmdline::CommandLine;

    const DIGEST: &str = "00ff000000000000000000000000000000000000000000000000000000000aA1";

    fn root(text: &str) -> Option<Result<Root, String>> {
        CommandLine::parse(text).root
    }

    #[test]
    fn a_root_on_a_server_has_a_digest() {
        let mut sha256 = [0; 32];
        (sha256[1], sha256[30], sha256[31]) = (0xFF, 0x0A, 0xA1);
        let url = "http://h/root.ext4.zst".to_owned();
        let line = format!("kscratch.root.sha256={DIGEST} kscratch.root=http://h/root.ext4.zst");
        let want = Root::Fetched(Fetched { url: url.clone(), sha256, bytes: None });
        assert_eq!(root(&line), Some(Ok(want)));
        let want = Root::Fetched(Fetched { url, sha256, bytes: Some(480) });
        assert_eq!(root(&format!("kscratch.root.bytes=480 {line}")), Some(Ok(want)));
        assert_eq!(CommandLine::parse(&line).root_partition(), None);
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(root("kscratch.root.sha256=00"), None);
        for (line, want) in [
            ("kscratch.root=/dev/vda2", "kscratch.root=/dev/vda2 on the kernel command line is neither of the form"),
            ("kscratch.root=PARTUUID=12", "kscratch.root=PARTUUID=12 on the kernel command line is neither of"),
            ("kscratch.root=https://h/x", "kscratch.root=https://h/x on the kernel command line cannot be fetched: it"),
            ("kscratch.root=tftp://h/x", "kscratch.root=tftp://h/x on the kernel command line cannot be fetched: it"),
            ("kscratch.root=http://h/x", "the kernel command line lacks kscratch.root.sha256=<digest>"),
            ("kscratch.root=http://h/x kscratch.root.sha256=1", "kscratch.root.sha256=1 on the kernel command line is"),
            (
                &format!("kscratch.root=http://h/x kscratch.root.sha256={DIGEST} kscratch.root.bytes=1k"),
                "kscratch.root.bytes=1k on the kernel command line is no number",
            ),
        ] {
            let error = root(line).unwrap().unwrap_err();
            assert!(error.starts_with(want), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn digests_are_read_as_they_are_printed(bytes in any::<[u8; 32]>(), other in ".{0,70}") {
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(super::digest(&text), Some(bytes));
            let _ = super::digest(&other);
        }
    }
}
