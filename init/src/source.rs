//! Turns everything around the machine that may hold role metadata into the one text that counts.
pub mod entry;
pub mod http;
pub mod smbios;
pub mod volume;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::cmdline::CommandLine;
use crate::stage::block::Devices;
use crate::sys::Sys;

/// Where metadata can come from, the strongest first: what is closest to this one start of the machine wins over what was put on its
/// disk, and the network comes last because it takes time and others can speak on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kscratch.role=` on the kernel command line.
    CommandLine,
    /// QEMU's fw_cfg, `opt/kscratch/role`.
    FwCfg,
    /// An SMBIOS OEM string `kscratch.role=`.
    Smbios,
    /// A volume labelled `KSCRATCH` or `cidata`.
    Volume,
    /// `/kscratch/role.toml` on the EFI system partition of the root's disk.
    Esp,
    /// `kscratch.metadata=` on the kernel command line.
    Url,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "the kernel command line",
            Self::FwCfg => "QEMU's fw_cfg",
            Self::Smbios => "an SMBIOS OEM string",
            Self::Volume => "a labelled volume",
            Self::Esp => "the EFI system partition",
            Self::Url => "the URL of the kernel command line",
        })
    }
}

/// Metadata, not parsed yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// The exact place, for messages: `/kscratch/role.toml on /dev/vda1`.
    pub place: String,
    /// The text of `role.toml`.
    pub role: String,
    /// The text of `secrets.toml`.
    pub secrets: Option<String>,
}

/// Never shows what the texts hold: they have secrets.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({}, {} bytes)", self.place, self.role.len())
    }
}

/// What one source gave: metadata, nothing, or a trouble.
pub type Answer = (Kind, Result<Option<Text>>);

/// A machine's surroundings, as the sources need them.
pub struct Surroundings<'a> {
    /// Mounts volumes.
    pub sys: &'a dyn Sys,
    /// Folder that stands for `/`.
    pub root: &'a Path,
    /// The disks.
    pub devices: &'a Devices,
    /// What the kernel was told.
    pub cmdline: &'a CommandLine,
}

/// Asks all sources of the machine itself at the same time. The URL is not among them: it is worth a network only where these know
/// nothing.
#[must_use]
pub fn ask_all(around: &Surroundings<'_>) -> Vec<Answer> {
    let disks = || volume::ask(around);
    std::thread::scope(|scope| {
        // Volumes and the ESP are mounted one after the other in one thread; the rest are reads of sysfs.
        let disks = scope.spawn(disks);
        let firmware = scope.spawn(|| handed_over(around.root));
        let mut answers = vec![(Kind::CommandLine, command_line(around.cmdline))];
        for thread in [firmware, disks] {
            // A thread that panicked has said so on the console already.
            answers.extend(thread.join().unwrap_or_default());
        }
        answers.sort_by_key(|(kind, _)| *kind);
        answers
    })
}

/// Asks what needs neither a disk nor a network: the command line, and what firmware hands over.
#[must_use]
pub fn ask_firmware(root: &Path, cmdline: &CommandLine) -> Vec<Answer> {
    let mut answers = vec![(Kind::CommandLine, command_line(cmdline))];
    answers.extend(handed_over(root));
    answers
}

fn handed_over(root: &Path) -> Vec<Answer> {
    vec![(Kind::FwCfg, fw_cfg(root)), (Kind::Smbios, smbios::ask(root))]
}

/// What came out of all answers.
#[derive(Debug)]
pub struct Choice {
    /// The metadata that counts.
    pub winner: Option<(Kind, Text)>,
    /// What the console is told of it.
    pub lines: Vec<String>,
}

/// Chooses the strongest source that has metadata.
///
/// # Errors
/// A source that would have won is there but cannot be read: to go on with a weaker one, or with none, would make another machine of
/// this one than was meant.
pub fn choose(answers: Vec<Answer>) -> Result<Choice> {
    let mut winner: Option<(Kind, Text)> = None;
    let mut lines = Vec::new();
    for (kind, answer) in answers {
        match (answer, &winner) {
            (Ok(Some(text)), None) => {
                lines.push(format!("role metadata: {kind} ({})", text.place));
                winner = Some((kind, text));
            }
            (Ok(Some(text)), Some((stronger, _))) => {
                lines.push(format!("role metadata: {kind} ({}) has some too, but {stronger} comes first", text.place));
            }
            (Ok(None), _) => {}
            (Err(error), None) => return Err(error.context(format!("reading role metadata from {kind}"))),
            (Err(error), Some(_)) => {
                lines.push(format!("role metadata: {kind} cannot be read, and need not be: {error:#}"))
            }
        }
    }
    Ok(Choice { winner, lines })
}

fn command_line(cmdline: &CommandLine) -> Result<Option<Text>> {
    let Some(encoded) = &cmdline.role else { return Ok(None) };
    let role = decode(encoded).context("kscratch.role")?;
    Ok(Some(Text { place: "kscratch.role".to_owned(), role, secrets: None }))
}

/// Linux, Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg.
fn fw_cfg(root: &Path) -> Result<Option<Text>> {
    let folder = root.join("sys/firmware/qemu_fw_cfg/by_name/opt/kscratch");
    let Some(role) = optional(&folder.join("role/raw"))? else { return Ok(None) };
    let secrets = optional(&folder.join("secrets/raw"))?;
    Ok(Some(Text { place: "opt/kscratch/role".to_owned(), role, secrets }))
}

/// Metadata texts are a few KiB; a wrong file must not fill the memory.
const LARGEST: u64 = 1 << 20;

/// A file's text, `None` where there is no such file.
fn optional(path: &Path) -> Result<Option<String>> {
    use std::io::Read;
    let read = fs::File::open(path).and_then(|file| {
        let mut text = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut text)?;
        Ok(text)
    });
    let bytes = match read {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        bytes => bytes.with_context(|| format!("reading {}", path.display()))?,
    };
    text(bytes).with_context(|| format!("reading {}", path.display())).map(Some)
}

fn text(bytes: Vec<u8>) -> Result<String> {
    if bytes.len() as u64 > LARGEST {
        bail!("it is larger than {} KiB", LARGEST >> 10);
    }
    String::from_utf8(bytes).context("it is no UTF-8 text")
}

/// Base64 of both alphabets, with or without padding: people make it with what they have.
fn decode(encoded: &str) -> Result<String> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let standard: String = encoded
        .trim()
        .chars()
        .map(|one| match one {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    let bytes = GeneralPurpose::new(&alphabet::STANDARD, CONFIG).decode(standard);
    text(bytes.context("it is no base64")?)
}

#[cfg(test)]
mod tests;
