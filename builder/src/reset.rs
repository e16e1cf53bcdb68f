//! A switched-off machine's disk becomes one whose next boot makes state anew: the first MiB of its state partition is wiped.
//!
//! Nothing is put into the filesystem: of a machine that was cut the journal holds newer copies of its blocks, which the next boot would put over whatever
//! was written here; and a filesystem that is damaged, which is why machines are reset, takes nothing at all.
mod reasons;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use kscratch_formats::bytes::{ReadAt, Window};
use kscratch_formats::ext4::Reader;
use kscratch_formats::gpt::{self, Partition, Table};
use kscratch_install::Target;
use kscratch_install::blockdevice::{Contents, Kernel};
use kscratch_install::refuse::{Needs, Victim, refusals};
use kscratch_metadata::{Document, Purpose, Role, RoleMetadata};

pub use reasons::{Override, Reason};

use crate::blockmap;
use crate::cluster::ondisk::{self, FOLDER as CLUSTER};
use crate::console::{Hint, human_bytes};
use crate::filesystem::STATE_LABEL;
use crate::flash;
use crate::inspect::{Form, Opened, partition, read_release};
use crate::plan::{TYPE_ROOT, TYPE_VAR};
use crate::running::is_locked;
use crate::stamp;

/// GPT name of the state partition: init wants it besides the type.
const NAME: &str = "state";
/// Its name while init makes its filesystem: what a power cut left of that is nothing.
const UNFINISHED: &str = "state-unfinished";
/// What init looks at before it calls a partition blank.
const WIPED: u64 = 1 << 20;
/// The superblock is in these bytes, whatever the filesystem's blocks are (ext4's blocks are 4 KiB at the most here).
const SUPERBLOCK: u64 = 4096;
/// etcd's data on state, which is mounted on /var.
const ETCD: &str = "/lib/etcd/member";
/// Under which name the machine was in its cluster last, there too.
const NODE_NAME: &str = "/lib/kscratch/node-name";
/// Is the filesystem's own (e2fsck(8)): no reset takes it away.
const LOST: &str = "/lost+found";
/// A name of more bytes is none.
const MAX_NAME: u64 = 4096;

/// What is reset.
#[derive(Debug)]
pub struct Request<'a> {
    /// The machine's disk: a device, or a raw, qcow2 or vhd file.
    pub disk: &'a Path,
    /// Reasons that do not count.
    pub overrides: &'a [Override],
}

/// What a machine's disk tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name in its cluster.
    pub name: Option<String>,
    /// What it is by the metadata on its disk, or by its image; none where the disk tells neither.
    pub role: Option<Role>,
    /// Whether its image has no control plane. Metadata that say so may be others than those on the disk.
    pub cannot_be_master: bool,
    /// Purposes of the disks that its metadata name besides.
    pub disks: Vec<Purpose>,
    /// What is on its state partition.
    pub state: State,
}

/// What is on a state partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The first MiB is zeros, or a filesystem was begun on it and never finished: the next boot makes it in any case.
    Blank,
    /// State, which can be read.
    Ours {
        /// Whether etcd's data are on it.
        etcd: bool,
        /// Whether the identity of a cluster is on it that the machine began by itself.
        authority: bool,
    },
    /// State, by its label, which cannot be read.
    Damaged(String),
    /// Something else.
    Other(Contents),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Blank => f.write_str("blank"),
            State::Ours { etcd: false, .. } => f.write_str("a machine's state"),
            State::Ours { etcd: true, .. } => f.write_str("a master's state, with etcd's data"),
            State::Damaged(why) => write!(f, "state, which cannot be read: {why}"),
            State::Other(contents) => write!(f, "no state of ours: {contents}"),
        }
    }
}

/// A disk that was looked at, and may be reset.
#[derive(Debug)]
pub struct Prepared<'a> {
    request: &'a Request<'a>,
    kernel: Kernel,
    /// The disk.
    pub victim: Victim,
    /// The form of a file; a device is raw.
    pub form: Form,
    /// Number of the state partition.
    pub number: u32,
    /// The state partition.
    pub partition: Partition,
    /// Whose it is.
    pub machine: Machine,
}

/// Looks at everything, and touches nothing.
///
/// # Errors
/// There is no state partition on it; every reason not to wipe it.
pub fn prepare<'a>(request: &'a Request<'a>, kernel: &Kernel) -> Result<Prepared<'a>> {
    let path = request.disk;
    let victim = flash::victim(path, kernel)?;
    // A device that must not be touched needs no look at what is on it, and may give none.
    let needs = Needs { bytes: 0, sector: None };
    refuse(path, &Reason::of_device(refusals(&victim, &needs, &[])))?;
    let action = || format!("looking for state on {}", path.display());
    let disk = Opened::alone(path).map_err(|error| over_another(path, error)).with_context(action)?;
    bears_changes(path, disk.form())?;
    let table = gpt::read(&disk, disk.disk_len()).with_context(whole).with_context(action)?;
    let (number, partition) = state_partition(&table).with_context(action)?;
    if let Opened::Qcow2(disk) = &disk {
        // What of the format bears no change is told before anybody is asked.
        let len = fs::metadata(path).with_context(action)?.len();
        disk.patches(&[(partition.start, vec![0])], len).with_context(|| format!("changing {}", path.display()))?;
    }
    let machine = machine(&disk, &table, &partition).with_context(action)?;
    refuse(path, &Reason::of_machine(&machine, &table.disk.to_string(), request.overrides))?;
    let form = disk.form();
    Ok(Prepared { request, kernel: kernel.clone(), victim, form, number, partition, machine })
}

fn refuse(path: &Path, reasons: &[Reason]) -> Result<()> {
    if reasons.is_empty() {
        return Ok(());
    }
    let told = reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let ways = reasons.iter().filter_map(Reason::way).collect::<Vec<_>>().join("; ");
    let error = anyhow!("{told}").context(format!("{} is not reset", path.display()));
    Err(if ways.is_empty() { error } else { error.context(Hint(ways)) })
}

fn whole() -> Hint {
    Hint("name the whole disk of a machine; `kscratch-image inspect` tells what is on it".into())
}

/// What is said of a file that lies over another: its clusters cannot be changed here, and what is below is not the machine's alone.
fn over_another(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let overlay = Opened::open(path).is_ok_and(|disk| matches!(disk, Opened::Overlay(_)));
    if !overlay {
        return error;
    }
    let way = "a disk over an image is reset by throwing it away: `run --overlay` makes it anew; `qemu-img convert -O qcow2` makes one file of both";
    error.context(Hint(way.into()))
}

fn bears_changes(path: &Path, form: Form) -> Result<()> {
    if !matches!(form, Form::RawZst | Form::Vmdk) {
        return Ok(());
    }
    let way = match form {
        Form::RawZst => format!("unpack it with `zstd -d {}`, and name what comes out", path.display()),
        _ => "`qemu-img convert -O qcow2 FILE disk.qcow2` makes a disk of it that can be".to_owned(),
    };
    Err(anyhow!("{} is {form}, which cannot be changed in its place", path.display()).context(Hint(way)))
}

/// The one partition that init would take for state.
fn state_partition(table: &Table) -> Result<(u32, Partition)> {
    let mut all = table
        .partitions
        .iter()
        .filter(|(_, one)| one.kind == TYPE_VAR && [NAME, UNFINISHED].contains(&one.name.as_str()));
    match (all.next(), all.next()) {
        (Some((number, partition)), None) => Ok((*number, partition.clone())),
        (None, _) => Err(anyhow!("there is no partition of the type {TYPE_VAR} with the name {NAME} on it")
            .context(Hint(ondisk::ELSEWHERE.into()))),
        _ => Err(anyhow!("several partitions of it are for state").context(Hint("`sgdisk -d` takes one away".into()))),
    }
}

/// Reads who the machine is, as far as its disk tells.
fn machine(disk: &Opened, table: &Table, place: &Partition) -> Result<Machine> {
    let window = Window { inner: disk, start: place.start, len: place.len };
    let mut start = vec![0; WIPED.min(place.len) as usize];
    window.read_at(0, &mut start).context("reading the state partition")?;
    let (state, name) = if place.name == UNFINISHED { (State::Blank, None) } else { state(&window, &start) };
    let document = ondisk::document(disk, table);
    let metadata: Vec<&RoleMetadata> = match &document {
        Some(Document::Machine(metadata)) => vec![metadata],
        Some(Document::Rack(entries)) => entries.iter().map(|entry| &entry.metadata).collect(),
        None => Vec::new(),
    };
    let told = metadata.first().map(|first| first.role).filter(|role| metadata.iter().all(|one| one.role == *role));
    let mut disks: Vec<Purpose> = metadata.iter().flat_map(|one| &one.disks).map(|disk| disk.purpose).collect();
    disks.sort();
    disks.dedup();
    let alone = metadata.first().filter(|_| metadata.len() == 1);
    let built = built(disk, table);
    Ok(Machine {
        name: name.or_else(|| alone.and_then(|one| one.node.name.clone())),
        role: told.or(built),
        cannot_be_master: built == Some(Role::Node),
        disks,
        state,
    })
}

/// The role that the root's image was built for.
fn built(disk: &Opened, table: &Table) -> Option<Role> {
    let release = read_release(&partition(disk, table, TYPE_ROOT)?).ok().flatten()?;
    match release.get("role")?.as_str()? {
        "node" => Some(Role::Node),
        "master" => Some(Role::Master),
        _ => None,
    }
}

/// What is on the partition that begins with these bytes, and the machine's name, if that stands there.
fn state(window: &Window<&Opened>, start: &[u8]) -> (State, Option<String>) {
    if start.iter().all(|byte| *byte == 0) {
        return (State::Blank, None);
    }
    // As init tells it: by magic and label alone (Linux, Documentation/filesystems/ext4/super.rst: s_magic, s_volume_name).
    let superblock = start.get(1024..2048).unwrap_or_default();
    let label = superblock.get(0x78..0x88).unwrap_or_default();
    let label = label.split(|byte| *byte == 0).next().unwrap_or_default();
    if superblock.get(0x38..0x3A) != Some(&[0x53, 0xEF]) || label != STATE_LABEL.as_bytes() {
        return (State::Other(Contents::of(window, window.len)), None);
    }
    match read(window) {
        Ok((etcd, authority, name)) => (State::Ours { etcd, authority }, name),
        Err(error) => (State::Damaged(format!("{error:#}")), None),
    }
}

fn read(window: &Window<&Opened>) -> Result<(bool, bool, Option<String>)> {
    let state = Reader::open(window)?;
    // Of a filesystem that lacks half of its tables nobody knows that there is no etcd on it.
    ensure!(state.find(LOST)?.is_some(), "there is no {LOST} on it, which every filesystem of the kind has");
    let name = match state.find(NODE_NAME)? {
        Some(found) => String::from_utf8(state.read(&found, MAX_NAME)?).ok(),
        None => None,
    };
    let name = name.map(|name| name.trim().to_owned()).filter(|name| kscratch_metadata::is_node_name(name));
    Ok((state.find(ETCD)?.is_some(), state.find(&format!("{CLUSTER}/ca.crt"))?.is_some(), name))
}

/// Wipes. A power cut on the way leaves a state that the same command wipes again: its superblock, by which it is known, goes last.
///
/// # Errors
/// The disk fails, is in use by now, or another one than was looked at.
pub fn wipe(prepared: &Prepared<'_>) -> Result<()> {
    let Prepared { request, kernel, victim, partition, .. } = prepared;
    let path = request.disk;
    let action = || format!("wiping the beginning of the state partition of {}", path.display());
    let target = Target::open(path, 0, (victim.device.as_ref(), kernel), true).map_err(flash::with_way)?;
    // It may have come into use since it was looked at; of what the kernel does with a device, opening it told.
    ensure!(!is_locked(target.file()), "{} is in use by now: nothing was written", path.display());
    let (len, superblock) = (WIPED.min(partition.len), SUPERBLOCK.min(partition.len));
    for range in [superblock..len, 0..superblock] {
        let zeros = vec![0; (range.end - range.start) as usize];
        stamp::write(target.file(), vec![(partition.start + range.start, zeros)]).with_context(action)?;
    }
    target.sync()?;
    let mut found = vec![0; len as usize];
    if victim.device.is_some() {
        target.read_at(partition.start, &mut found)
    } else {
        Opened::of(target.file().try_clone()?)?.read_at(partition.start, &mut found)
    }
    .with_context(action)?;
    ensure!(found.iter().all(|byte| *byte == 0), "{}: what is read back is not zeros", action());
    if fs::metadata(path).is_ok_and(|file| file.is_file()) { blockmap::renew(path) } else { Ok(()) }
}

impl Prepared<'_> {
    /// The lines that say whose state is wiped.
    pub fn facts(&self) -> Vec<String> {
        let Machine { name, role, state, .. } = &self.machine;
        let name = name.as_deref().unwrap_or("without a name that its disk tells");
        let role = match role {
            Some(Role::Node) => "a node",
            Some(Role::Master) => "a master",
            None => "of a role that its disk does not tell",
        };
        let bytes = human_bytes(self.partition.len);
        vec![format!("machine    {name}, {role}"), format!("state      partition {}, {bytes}: {state}", self.number)]
    }
}
