//! Turns a finished raw image and role metadata into the same image with that metadata on its ESP.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use kscratch_formats::bytes::Window;
use kscratch_formats::fat32::{Patch, Volume};
use kscratch_formats::gpt;

use crate::console::Hint;
use crate::filesystem::METADATA_FOLDER;
use crate::inspect::{Form, Opened, esp_text};
use crate::plan::TYPE_ESP;

/// Texts that go onto the ESP.
#[derive(Debug, Clone, Copy)]
pub struct Texts<'a> {
    /// `role.toml`.
    pub role: &'a str,
    /// `secrets.toml`; without it the one that is on the ESP stays.
    pub secrets: Option<&'a str>,
    /// What the user calls the two files, for errors.
    pub names: (&'a str, &'a str),
}

/// Checks the metadata as init will, then puts it on the ESP of the raw image at `path`. `time` is in seconds since 1970. A power cut on the
/// way leaves every file old or new, and the volume readable.
pub fn stamp(path: &Path, texts: &Texts<'_>, time: i64) -> Result<()> {
    let disk = Opened::open(path)?;
    let action = || format!("stamping {}", path.display());
    let start = match disk.form() {
        Form::Raw => esp_start(&disk).with_context(action)?,
        other => return Err(refusal(path, other)),
    };
    let known = {
        let volume = open(&disk, start).with_context(action)?;
        esp_text(&volume, &format!("{METADATA_FOLDER}/secrets.toml")).with_context(action)?
    };
    check(texts, known.as_deref()).with_context(action)?;
    let file =
        File::options().write(true).open(path).with_context(|| format!("opening {} to write", path.display()))?;
    // Secrets first: metadata without them is refused by init, secrets without metadata are not looked at.
    let files = texts.secrets.map(|text| ("secrets.toml", text)).into_iter().chain([("role.toml", texts.role)]);
    for (name, text) in files {
        let target = format!("{METADATA_FOLDER}/{name}");
        let patches = open(&disk, start)
            .and_then(|volume| Ok(volume.replace(&target, text.as_bytes(), time)?))
            .with_context(action)?;
        apply(&file, start, &patches).with_context(|| format!("writing {target} to the ESP")).with_context(action)?;
    }
    Ok(())
}

fn refusal(path: &Path, form: Form) -> anyhow::Error {
    let hint = match form {
        Form::RawZst => format!(
            "unpack it with `zstd -d {0}`, stamp the raw image, and pack that again; or give the metadata to `kscratch-image build --metadata`",
            path.display()
        ),
        _ => format!(
            "make it raw with `qemu-img convert -O raw {0} disk.img` and stamp that; or give the metadata to `kscratch-image build --metadata`",
            path.display()
        ),
    };
    anyhow!("metadata can be stamped on raw images alone; {} is {form}", path.display()).context(Hint(hint))
}

fn esp_start(disk: &Opened) -> Result<(u64, u64)> {
    let table = gpt::read(disk, disk.disk_len())?;
    let esp = table.partitions.iter().find(|(_, partition)| partition.kind == TYPE_ESP);
    let (_, esp) = esp.context("there is no EFI system partition on it")?;
    Ok((esp.start, esp.len))
}

fn open(disk: &Opened, (start, len): (u64, u64)) -> Result<Volume<Window<&Opened>>> {
    Ok(Volume::open(Window { inner: disk, start, len })?)
}

/// Refuses what init would refuse.
fn check(texts: &Texts<'_>, known: Option<&str>) -> Result<()> {
    let parsed = match texts.secrets.or(known) {
        Some(secrets) => kscratch_metadata::parse_with_secrets(texts.role, secrets),
        None => kscratch_metadata::parse(texts.role),
    };
    let (role, secrets) = texts.names;
    let kept = texts.secrets.is_none() && known.is_some();
    let secrets = if kept { "secrets.toml on the ESP" } else { secrets };
    match parsed {
        Ok(_) => Ok(()),
        Err(errors) => {
            let error = anyhow!(errors.named(role, secrets));
            Err(if kept {
                error.context(Hint("the secrets that are on the ESP stay; --secrets FILE replaces them".into()))
            } else {
                error
            })
        }
    }
}

/// Applies the patches in order, each on the disk before the next begins.
fn apply(file: &File, (start, _): (u64, u64), patches: &[Patch]) -> Result<()> {
    for Patch(writes) in patches {
        for (offset, bytes) in writes {
            file.write_all_at(bytes, start + offset).with_context(|| format!("writing at byte {}", start + offset))?;
        }
        file.sync_data().context("waiting until it is on the disk")?;
    }
    Ok(())
}
