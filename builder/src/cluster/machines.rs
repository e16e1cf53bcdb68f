//! machines.toml, the list of a rack, becomes one metadata file per machine, and one for all nodes that tell themselves by their hardware.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kscratch_metadata::{Mac, normal_serial, normal_wwn};
use kscratch_pki::OffsetDateTime;
use serde::Deserialize;

use super::folder::{Folder, write_private};
use super::metadata::{Machine, Members, Rendered, render};
use super::rack::{self, Rack};
use crate::console::Hint;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default)]
    machines: Vec<Machine>,
}

/// Reads a machines.toml; no two of its machines have the same name, or can be told by the same thing.
///
/// # Errors
/// It cannot be read, or is not sound.
pub fn read(path: &Path) -> Result<Vec<Machine>> {
    let action = || format!("reading {}", path.display());
    let text = std::fs::read_to_string(path).with_context(action)?;
    let document: Document = toml::from_str(&text).with_context(action)?;
    if document.version != 1 {
        return Err(anyhow!("it has version {}, this program knows version 1", document.version)).with_context(action);
    }
    if document.machines.is_empty() {
        return Err(anyhow!("it lists no machine: write a [[machines]] with name and role")).with_context(action);
    }
    unlike(&document.machines).with_context(action)?;
    Ok(document.machines)
}

fn unlike(machines: &[Machine]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for machine in machines {
        let name = &machine.name;
        if !kscratch_metadata::is_node_name(name) {
            bail!("{name:?} is no name of a node: use lower case letters, digits, `-` and `.`");
        }
        if rack::NAME.strip_suffix(".toml") == Some(name) {
            bail!("{name}: name: {} is the file for all machines; give the machine another name", rack::NAME);
        }
        let mac = match &machine.mac {
            Some(text) => {
                let mac: Mac = text.parse().map_err(|()| {
                    anyhow!("{name}: mac: {text:?} is no hardware address; write it like 52:54:00:12:34:56")
                })?;
                Some(mac.to_string())
            }
            None => None,
        };
        let address = machine.fixed_address().map(str::to_owned);
        for (what, value) in [
            ("name", Some(name.clone())),
            ("mac", mac),
            ("serial", machine.serial.clone()),
            ("uuid", machine.uuid.as_ref().map(|uuid| uuid.to_ascii_lowercase())),
            ("address", address),
        ] {
            let Some(value) = value else { continue };
            if let Some(other) = seen.insert((what, value.clone()), name.clone()) {
                bail!("{name}: {what}: {value} is the {what} of {other} too");
            }
        }
        // The way to a disk is the same in machines of one make.
        for (key, what, normal) in [
            ("serial", "disk with the serial", normal_serial as fn(&str) -> String),
            ("wwn", "disk with the wwn", normal_wwn),
        ] {
            for value in machine.disks.iter().filter_map(|disk| Some(normal(disk.get(key)?.as_str()?))) {
                let other = seen.insert((what, value.clone()), name.clone());
                if let Some(other) = other.filter(|other| other != name) {
                    bail!("{name}: disks: the {what} {value} is one of {other} too");
                }
            }
        }
    }
    Ok(())
}

/// The masters among the machines with their addresses; nothing for a single one.
///
/// # Errors
/// One of several masters has no fixed address.
pub fn members(machines: &[Machine]) -> Result<Members> {
    let masters: Vec<_> = machines.iter().filter(|machine| machine.role == "master").collect();
    if masters.len() < 2 {
        return Ok(Members::new());
    }
    let mut members = Members::new();
    for master in masters {
        let address = master.fixed_address();
        let address = address.ok_or_else(|| {
            anyhow!("{}: address: is missing; etcd's members have to know one another by fixed addresses", master.name)
        })?;
        members.insert(master.name.clone(), address.to_owned());
    }
    Ok(members)
}

/// What was written for a rack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Each machine's file.
    pub files: Vec<(PathBuf, Rendered)>,
    /// Where the file for all is, if there is one.
    pub rack_file: PathBuf,
    /// Who is in it, and who not.
    pub rack: Rack,
}

/// Writes `DIR/NAME.toml` for every machine, and `DIR/rack.toml` for all nodes that are told by something, each readable by its owner alone, after
/// all of them are known to be sound.
///
/// # Errors
/// A machine's metadata is not sound, or a file cannot be written.
pub fn write_all(folder: &Folder, list: &Path, output: &Path, now: OffsetDateTime) -> Result<Written> {
    let machines = read(list)?;
    let action = || format!("reading {}", list.display());
    let members = members(&machines).with_context(action)?;
    let none = Members::new();
    let mut all = Vec::new();
    let mut faults = BTreeSet::new();
    for machine in &machines {
        let members = if machine.role == "master" { &members } else { &none };
        match render(folder, machine, members, false, "", now) {
            Ok(rendered) => {
                let role = format!("{}\n{}", heading(folder, machine), rendered.role);
                all.push((output.join(format!("{}.toml", machine.name)), Rendered { role, ..rendered }));
            }
            // What is wrong with the folder is the same for all of them.
            Err(error) if machines.len() == 1 || error.downcast_ref::<Hint>().is_some() => return Err(error),
            Err(error) => {
                faults.extend(format!("{error:#}").lines().map(|line| format!("{}: {line}", machine.name)));
            }
        }
    }
    if !faults.is_empty() {
        return Err(anyhow!(faults.into_iter().collect::<Vec<_>>().join("\n"))).with_context(action);
    }
    let texts = machines.iter().zip(all.iter().map(|(_, rendered)| rendered.role.as_str()));
    let heading = format!("# For the nodes of the cluster {}: each picks its own entry.", folder.settings.name);
    let rack = rack::rack(&heading, texts).with_context(action)?;
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(output)
        .with_context(|| format!("making {}", output.display()))?;
    for (path, rendered) in &all {
        write_private(path, &rendered.role)?;
    }
    let rack_file = output.join(rack::NAME);
    if let Some(text) = &rack.text {
        write_private(&rack_file, text)?;
    }
    Ok(Written { files: all, rack_file, rack })
}

fn heading(folder: &Folder, machine: &Machine) -> String {
    let told = [("mac", &machine.mac), ("serial", &machine.serial), ("uuid", &machine.uuid)];
    let told: Vec<_> =
        told.iter().filter_map(|(what, value)| Some(format!("{what} {}", value.as_ref()?.escape_debug()))).collect();
    let told = if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) };
    format!("# For {} {} of the cluster {}{told}.", machine.role, machine.name, folder.settings.name)
}
