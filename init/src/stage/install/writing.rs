//! Writes the packed disk onto a disk, with the metadata by which the machine was installed.
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use kscratch_formats::bytes::ReadAt;
use kscratch_install::packed::Packed;
use kscratch_install::{Failure, Target, Took, Watch, esp};

use crate::source::Text;

/// Writes everything, reads it back, puts the metadata onto it, and gives it its partition tables last.
///
/// # Errors
/// The disk fails; the medium fails or is damaged; what is read back is not what was written. It says what the disk is then.
pub fn onto<R: ReadAt + Sync>(
    packed: &Packed<R>,
    target: &Target,
    text: Option<&Text>,
    watch: &impl Watch,
) -> Result<Took, Failure> {
    let map = packed.map();
    kscratch_install::write(packed, &map, target, watch, |target| {
        let Some(text) = text else { return Ok(()) };
        stamp(target, esp::place(packed, map.image)?, text)
    })
}

/// Secrets first: metadata without them are refused, secrets without metadata are not looked at.
fn stamp(target: &Target, place: (u64, u64), text: &Text) -> Result<()> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let files = text.secrets.iter().map(|secrets| ("secrets.toml", secrets)).chain([("role.toml", &text.role)]);
    for (name, text) in files {
        let path = esp::path_of(name);
        let action = || format!("writing {path} to the EFI system partition");
        esp::put(target, place, &path, text, time, &mut |writes| {
            for (at, bytes) in writes {
                target.file().write_all_at(&bytes, at).with_context(|| format!("writing at byte {at}"))?;
            }
            target.sync()
        })
        .with_context(action)?;
        let found = esp::text(&esp::open(target, place)?, &path).with_context(action)?;
        ensure!(found.as_deref() == Some(text.as_str()), "{path} is not what was written to the EFI system partition");
    }
    Ok(())
}
