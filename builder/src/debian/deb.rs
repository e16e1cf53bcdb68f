//! A `.deb` becomes the tar stream of its files.
use std::io::{BufReader, Read};

use anyhow::{Context, Result, bail};

/// Compressions of an archive, told by their first bytes.
enum Compression {
    Xz,
    Zstd,
    Gzip,
    None,
}

/// Hands the tar stream inside a package or tarball to `read`: `data.tar.*` of a `.deb` (deb(5)), otherwise the stream itself; unpacked
/// whichever way it was packed.
pub fn with_tar<T>(file: impl Read, read: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
    let mut file = BufReader::with_capacity(256 << 10, file);
    let (start, mut file) = peek(&mut file, 8)?;
    if start.as_slice() != b"!<arch>\n" {
        return decompressed(&mut file, read);
    }
    let mut archive = ar::Archive::new(file);
    let mut first = true;
    while let Some(member) = archive.next_entry() {
        let mut member = member.context("reading the members of the package")?;
        let name = String::from_utf8_lossy(member.header().identifier()).trim_end_matches('/').to_owned();
        if std::mem::take(&mut first) && name != "debian-binary" {
            bail!("its first member is `{name}`, not `debian-binary`: it is not a Debian package");
        }
        if name.starts_with("data.tar") {
            return decompressed(&mut member, read);
        }
    }
    bail!("it has no member data.tar: it is not a whole Debian package")
}

/// The first `count` bytes, and the stream with them still in it.
fn peek<R: Read>(mut stream: R, count: u64) -> Result<(Vec<u8>, impl Read)> {
    let mut start = Vec::new();
    stream.by_ref().take(count).read_to_end(&mut start).context("reading its first bytes")?;
    Ok((start.clone(), std::io::Cursor::new(start).chain(stream)))
}

fn decompressed<T>(stream: &mut dyn Read, read: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
    let (start, stream) = peek(stream, 6)?;
    let compression = match start.as_slice() {
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Compression::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        [0x1f, 0x8b, ..] => Compression::Gzip,
        _ => Compression::None,
    };
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    match compression {
        // The reference implementation: xz is most of what a cold build does.
        Compression::Xz => finish(liblzma::read::XzDecoder::new_multi_decoder(stream), read),
        Compression::Zstd => {
            finish(zstd::stream::Decoder::with_buffer(stream).context("starting to unpack zstd")?, read)
        }
        Compression::Gzip => finish(flate2::read::MultiGzDecoder::new(stream), read),
        Compression::None => read(&mut stream),
    }
}

/// Reads on to the end, behind the tar's: the checksum of the compression stands there.
fn finish<T>(mut stream: impl Read, read: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
    let value = read(&mut stream)?;
    std::io::copy(&mut stream, &mut std::io::sink()).context("unpacking to its end")?;
    Ok(value)
}
