//! Turns a finished image, whatever its form, into a [`Report`] of what is in it.
mod files;
mod opened;
mod text;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use kscratch_formats::bytes::{ReadAt, Window};
use kscratch_formats::gpt::{self, Partition, Table};
use kscratch_formats::guid::Guid;
use kscratch_formats::{cpio, ext4, fat32, uki};
use kscratch_metadata::{Document, RoleMetadata};
use serde::Serialize;

pub use files::FileReport;
pub(crate) use kscratch_install::esp::text as esp_text;
pub use opened::{Form, Opened};

use crate::filesystem::{METADATA_FOLDER, UKI_PATH};
use crate::plan::{TYPE_ESP, TYPE_ROOT};
use crate::spec::STATE_ELSEWHERE;

/// A UKI of more bytes is not read.
const MAX_UKI: u64 = 1 << 30;
/// Small text files of more bytes are not read.
const MAX_TEXT: u64 = 1 << 20;
/// Where the root says which versions it holds.
const RELEASE: &str = "/usr/share/kscratch/release.json";

/// What is in an image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Form of the file.
    pub form: Form,
    /// Length of the disk in bytes.
    pub disk_bytes: u64,
    /// Bytes of the sectors that the disk is made for.
    pub sector_bytes: u64,
    /// The disk's GUID.
    pub disk_guid: String,
    /// What is wrong with one of the partition tables, if anything.
    pub table_warning: Option<String>,
    /// The partitions in the order of their numbers.
    pub partitions: Vec<PartitionReport>,
    /// What firmware boots, if it was found.
    pub boot: Option<BootReport>,
    /// `release.json` of the root, if it was found.
    pub release: Option<serde_json::Value>,
    /// The role metadata on the ESP, if there is any.
    pub role: Option<RoleReport>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// Its number, from 1.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Type GUID.
    pub kind: String,
    /// Its own GUID, the PARTUUID.
    pub guid: String,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// The filesystem in it, if one was found.
    pub filesystem: Option<FilesystemReport>,
    /// Why the filesystem cannot be read, if it cannot.
    pub problem: Option<String>,
}

/// A filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilesystemReport {
    /// `vfat` or `ext4`.
    pub kind: &'static str,
    /// Label.
    pub label: String,
    /// UUID, in the form that `blkid` shows.
    pub uuid: String,
    /// Length in bytes.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Number of regular files.
    pub files: usize,
    /// Whether it was in use or not unmounted: a mount would replay its journal.
    pub needs_recovery: bool,
    /// Finished transactions of the journal that the rest does not have yet; the filesystem was read with them.
    pub replayed: u64,
    /// Every entry, if asked for.
    pub entries: Option<Vec<FileReport>>,
}

/// The unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootReport {
    /// Where it stands on the ESP.
    pub path: String,
    /// Length in bytes.
    pub len: u64,
    /// The kernel's command line.
    pub cmdline: String,
    /// Whether state is on another disk than this one, as the command line says.
    pub state_elsewhere: bool,
    /// The kernel's version.
    pub kernel: String,
    /// Length of the kernel in bytes.
    pub linux_bytes: u64,
    /// Length of the initramfs in bytes, the microcode before it included.
    pub initrd_bytes: u64,
    /// Length of the processors' microcode in bytes, with the archive around it.
    pub microcode_bytes: u64,
}

/// The role metadata, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleReport {
    /// Where it stands on the ESP.
    pub path: String,
    /// `node` or `master`; none where the metadata is not valid. What the machines of a rack do not have in common is none too.
    pub role: Option<serde_json::Value>,
    /// The cluster's name.
    pub cluster: Option<String>,
    /// The API server.
    pub endpoint: Option<String>,
    /// The machine's name.
    pub node: Option<String>,
    /// The machines of a rack.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineReport>,
    /// Whether a file of secrets stands beside it.
    pub secrets_file: bool,
    /// What is wrong with it, as init would say it.
    pub problem: Option<String>,
}

/// A machine of a rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineReport {
    /// Its name.
    pub node: Option<String>,
    /// How it is told, by key: `mac`, `serial`, `uuid`.
    pub told_by: BTreeMap<&'static str, String>,
}

/// Looks into the image; with `files`, lists every file with its digest.
pub fn report(path: &Path, files: bool) -> Result<Report> {
    let disk = Opened::open(path)?;
    look(&disk, files).with_context(|| format!("looking into {}", path.display()))
}

/// The Kubernetes version that an image's release.json names, e.g. `1.37.2`; none where it does not.
pub fn kubernetes(path: &Path) -> Result<Option<String>> {
    let disk = Opened::open(path)?;
    let table = gpt::read(&disk, disk.disk_len())?;
    let Some(root) = partition(&disk, &table, TYPE_ROOT) else { return Ok(None) };
    let release = read_release(&root)?;
    let version = release.as_ref().and_then(|release| release.get("kubernetes")).and_then(serde_json::Value::as_str);
    Ok(version.map(|version| version.trim_start_matches('v').to_owned()))
}

/// The first partition of this kind.
pub(crate) fn partition<'a>(disk: &'a Opened, table: &Table, kind: Guid) -> Option<Window<&'a Opened>> {
    let (_, partition) = table.partitions.iter().find(|(_, partition)| partition.kind == kind)?;
    Some(Window { inner: disk, start: partition.start, len: partition.len })
}

fn look(disk: &Opened, files: bool) -> Result<Report> {
    let table = gpt::read(disk, disk.disk_len())?;
    let mut partitions = Vec::new();
    let (mut boot, mut role, mut release) = (None, None, None);
    for (number, partition) in &table.partitions {
        let window = Window { inner: disk, start: partition.start, len: partition.len };
        let found = filesystem(&window, files);
        let (filesystem, problem) = match found {
            Ok(filesystem) => (filesystem, None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        match &filesystem {
            Some(filesystem) if partition.kind == TYPE_ESP && filesystem.kind == "vfat" => {
                let volume = fat32::Volume::open(&window)?;
                boot = boot_report(&volume)?;
                role = role_report(&volume)?;
            }
            Some(filesystem) if partition.kind == TYPE_ROOT && filesystem.kind == "ext4" => {
                release = release.or(read_release(&window)?);
            }
            _ => {}
        }
        partitions.push(partition_report(*number, partition, filesystem, problem));
    }
    Ok(Report {
        form: disk.form(),
        disk_bytes: disk.disk_len(),
        sector_bytes: table.sector,
        disk_guid: table.disk.to_string(),
        table_warning: table.warning.map(|warning| warning.to_string()),
        partitions,
        boot,
        release,
        role,
    })
}

fn partition_report(
    number: u32,
    partition: &Partition,
    filesystem: Option<FilesystemReport>,
    problem: Option<String>,
) -> PartitionReport {
    PartitionReport {
        number,
        name: partition.name.clone(),
        kind: partition.kind.to_string(),
        guid: partition.guid.to_string(),
        start: partition.start,
        len: partition.len,
        filesystem,
        problem,
    }
}

/// The filesystem that begins at the window's first byte; none where no signature of one is.
fn filesystem(window: &Window<&Opened>, files: bool) -> Result<Option<FilesystemReport>> {
    let mut start = [0; 2048];
    if window.read_at(0, &mut start).is_err() {
        return Ok(None);
    }
    if start[1080..1082] == [0x53, 0xEF] {
        let reader = ext4::Reader::open(window)?;
        let all = reader.walk()?;
        return Ok(Some(FilesystemReport {
            kind: "ext4",
            label: reader.label().to_owned(),
            uuid: reader.uuid().to_string(),
            size: reader.size(),
            used: reader.used(),
            files: all.values().filter(|found| found.kind == ext4::FoundKind::File).count(),
            needs_recovery: reader.needs_recovery(),
            replayed: reader.replayed().transactions,
            entries: files.then(|| files::of_ext4(&reader, &all)).transpose()?,
        }));
    }
    if &start[82..87] == b"FAT32" {
        let volume = fat32::Volume::open(window)?;
        let all = volume.walk()?;
        let serial = volume.serial();
        return Ok(Some(FilesystemReport {
            kind: "vfat",
            label: volume.label().to_owned(),
            uuid: format!("{:04X}-{:04X}", serial >> 16, serial & 0xFFFF),
            size: window.len,
            used: volume.used(),
            files: all.iter().filter(|(_, found)| !found.directory).count(),
            needs_recovery: false,
            replayed: 0,
            entries: files.then(|| files::of_fat(&volume, &all)).transpose()?,
        }));
    }
    Ok(None)
}

fn boot_report(volume: &fat32::Volume<impl ReadAt>) -> Result<Option<BootReport>> {
    let Some(found) = volume.find(UKI_PATH)? else { return Ok(None) };
    let file = volume.read(&found, MAX_UKI)?;
    let sections = uki::sections(&file).with_context(|| format!("reading {UKI_PATH} on the ESP"))?;
    let text = |name: &str| {
        let bytes = sections.get(name).copied().unwrap_or_default();
        String::from_utf8_lossy(bytes).trim_end_matches(['\0', '\n']).to_owned()
    };
    let len = |name: &str| sections.get(name).map_or(0, |bytes| bytes.len() as u64);
    let cmdline = text(".cmdline");
    Ok(Some(BootReport {
        path: UKI_PATH.to_owned(),
        len: found.len,
        state_elsewhere: cmdline.split_whitespace().any(|word| word == STATE_ELSEWHERE),
        cmdline,
        kernel: text(".uname"),
        linux_bytes: len(".linux"),
        initrd_bytes: len(".initrd"),
        microcode_bytes: microcode(sections.get(".initrd").copied().unwrap_or_default()),
    }))
}

/// Bytes of the archive with microcode, where the initramfs begins with one.
fn microcode(initrd: &[u8]) -> u64 {
    match cpio::read(initrd) {
        Ok((members, end)) if members.iter().any(|member| member.path.starts_with("kernel/x86/microcode/")) => {
            end as u64
        }
        _ => 0,
    }
}

fn role_report(volume: &fat32::Volume<impl ReadAt>) -> Result<Option<RoleReport>> {
    let path = format!("{METADATA_FOLDER}/role.toml");
    let Some(text) = esp_text(volume, &path)? else { return Ok(None) };
    let secrets = esp_text(volume, &format!("{METADATA_FOLDER}/secrets.toml"))?;
    let document = kscratch_metadata::read(&text, secrets.as_deref());
    let (all, machines) = match &document {
        Ok(Document::Machine(metadata)) => (vec![metadata.as_ref()], Vec::new()),
        Ok(Document::Rack(entries)) => {
            let machine = |entry: &kscratch_metadata::Entry| MachineReport {
                node: entry.metadata.node.name.clone(),
                told_by: entry.selector.given().into_iter().collect(),
            };
            (entries.iter().map(|entry| &entry.metadata).collect(), entries.iter().map(machine).collect())
        }
        Err(_) => (Vec::new(), Vec::new()),
    };
    let cluster = |field: fn(&kscratch_metadata::Cluster) -> Option<String>| {
        in_common(&all, |metadata| metadata.cluster.as_ref().and_then(field))
    };
    Ok(Some(RoleReport {
        path,
        role: in_common(&all, |metadata| serde_json::to_value(metadata.role).ok()),
        cluster: cluster(|cluster| Some(cluster.name.clone())),
        endpoint: cluster(|cluster| cluster.endpoint.as_ref().map(ToString::to_string)),
        node: in_common(&all, |metadata| metadata.node.name.clone()),
        machines,
        secrets_file: secrets.is_some(),
        problem: document.as_ref().err().map(ToString::to_string),
    }))
}

/// What is so of all machines.
fn in_common<T: PartialEq>(all: &[&RoleMetadata], field: impl Fn(&RoleMetadata) -> Option<T>) -> Option<T> {
    let mut found = all.iter().map(|metadata| field(metadata));
    let first = found.next()??;
    found.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

pub(crate) fn read_release(window: &Window<&Opened>) -> Result<Option<serde_json::Value>> {
    let root = ext4::Reader::open(window)?;
    let Some(found) = root.find(RELEASE)? else { return Ok(None) };
    let bytes = root.read(&found, MAX_TEXT)?;
    Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("reading {RELEASE} of the root"))?))
}
