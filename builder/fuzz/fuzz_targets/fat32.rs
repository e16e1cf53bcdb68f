//! Turns any bytes into the files of a FAT32 volume or an error, never a panic; a change is planned if it opens.
#![no_main]
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::fat32::Volume;
use libfuzzer_sys::fuzz_target;

/// Bytes with zeros behind them: FAT32 has 34 MiB at least, of which the fuzzer need not make the rest.
struct Padded<'a>(&'a [u8]);

impl ReadAt for Padded<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        buf.fill(0);
        let known = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let len = known.len().min(buf.len());
        buf[..len].copy_from_slice(&known[..len]);
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(volume) = Volume::open(Padded(bytes)) else { return };
    for (_, found) in volume.walk().unwrap_or_default() {
        drop(volume.read(&found, 1 << 16));
    }
    assert!(volume.used_ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
    drop(volume.replace("/kscratch/role.toml", b"version = 1\n", 0));
});
