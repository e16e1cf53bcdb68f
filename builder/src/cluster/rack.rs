//! The metadata of a list's nodes becomes one file for all of them, out of which each picks its own entry.
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use kscratch_metadata::{Errors, Identity, parse, read, select};
use toml::{Table, Value};

use super::metadata::Machine;
use super::settings::told;

/// Name of the file among those of the machines.
pub const NAME: &str = "rack.toml";

/// One file for a rack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rack {
    /// The text; `None` where it would have no entry.
    pub text: Option<String>,
    /// The nodes in it.
    pub nodes: Vec<String>,
    /// Masters, which keep files of their own: their metadata holds the cluster's keys.
    pub masters: Vec<String>,
    /// Nodes that nothing tells.
    pub untold: Vec<String>,
}

impl Rack {
    /// One line on the file: who is in it, and why the others are not.
    pub fn summary(&self, file: &Path) -> String {
        let mut said = match &self.text {
            Some(_) => format!("{}: one file for {}", file.display(), self.nodes.join(", ")),
            None => format!("there is no {}", file.display()),
        };
        let absent = [
            (&self.masters, "a file of its own holds the cluster's keys"),
            (&self.untold, "without mac, serial or uuid, nothing tells it"),
        ];
        for (machines, why) in absent.iter().filter(|(machines, _)| !machines.is_empty()) {
            said += &format!("; not in it: {} ({why})", machines.join(", "));
        }
        said
    }
}

/// Puts machines and their role files together. What each machine will read in it is held against its own file.
///
/// # Errors
/// A node's selector tells no machine, or two nodes have the same pods.
pub fn rack<'a>(heading: &str, machines: impl IntoIterator<Item = (&'a Machine, &'a str)>) -> Result<Rack> {
    let mut rack = Rack::default();
    let mut members = Vec::new();
    for (machine, role) in machines {
        let told = machine.mac.is_some() || machine.serial.is_some() || machine.uuid.is_some();
        let list = match (machine.role.as_str(), told) {
            ("master", _) => &mut rack.masters,
            (_, false) => &mut rack.untold,
            (_, true) => {
                members.push((machine, role));
                &mut rack.nodes
            }
        };
        list.push(machine.name.clone());
    }
    if members.is_empty() {
        return Ok(rack);
    }
    let text = text(heading, &members)?;
    check(&text, &members)?;
    rack.text = Some(text);
    Ok(rack)
}

/// The common part is what the cluster gives to all; node, docker, time, disks and network are each one's own, but for how pods and services are reached.
fn text(heading: &str, members: &[(&Machine, &str)]) -> Result<String> {
    let mut common = Table::new();
    let mut entries = Vec::new();
    for (machine, role) in members {
        let mut shared: Table = role.parse().context("reading a machine's metadata again")?;
        let mut entry = Table::new();
        for (key, value) in [("mac", &machine.mac), ("serial", &machine.serial), ("uuid", &machine.uuid)] {
            entry.extend(value.iter().map(|value| (key.to_owned(), Value::String(value.clone()))));
        }
        for own in ["node", "docker", "time", "disks"] {
            entry.extend(shared.remove(own).map(|table| (own.to_owned(), table)));
        }
        if let Some(Value::Table(mut network)) = shared.remove("network") {
            let modes = ["mode", "proxy_mode"].into_iter();
            let modes = modes.filter_map(|key| Some((key.to_owned(), network.remove(key)?))).collect();
            shared.insert("network".to_owned(), Value::Table(modes));
            if !network.is_empty() {
                entry.insert("network".to_owned(), Value::Table(network));
            }
        }
        if !entries.is_empty() && shared != common {
            bail!("{}: differs from the other nodes in what all of a cluster are told alike", machine.name);
        }
        common = shared;
        entries.push(Value::Table(entry));
    }
    let machines = Table::from_iter([("machines".to_owned(), Value::Array(entries))]);
    let mut text = String::from(heading);
    let _ = write!(text, "\n{}\n{}", toml::to_string_pretty(&common)?, toml::to_string_pretty(&machines)?);
    Ok(text)
}

/// What the rack's file is to every machine has to be what the machine's own file is.
fn check(text: &str, members: &[(&Machine, &str)]) -> Result<()> {
    read(text, None).map_err(|errors| in_the_lists_words(&errors, members))?;
    for (machine, role) in members {
        let mac = machine.mac.as_ref().and_then(|mac| mac.parse().ok());
        let word = |text: &Option<String>| text.clone().unwrap_or_default();
        let identity = Identity::new(mac, &word(&machine.serial), &word(&machine.uuid));
        let selected = select(text, &identity).map_err(|errors| in_the_lists_words(&errors, members))?;
        let own = parse(role).map_err(|errors| told(&errors, ""))?;
        if selected.metadata != own {
            bail!("{}: would read something else in {NAME} than in its own file", machine.name);
        }
    }
    Ok(())
}

/// `machines[1].serial` is the serial of the second node that is told by something.
fn in_the_lists_words(errors: &Errors, members: &[(&Machine, &str)]) -> anyhow::Error {
    let lines = errors.problems().iter().map(|problem| {
        let entry = problem.field.strip_prefix("machines[").and_then(|rest| rest.split_once(']'));
        let member = entry.and_then(|(index, rest)| Some((members.get(index.parse::<usize>().ok()?)?.0, rest)));
        let (name, field) =
            member.map_or(("", problem.field.as_str()), |(machine, rest)| (machine.name.as_str(), rest));
        let field = field.rsplit('.').next().unwrap_or_default();
        let mut what = problem.what.clone();
        for (index, (machine, _)) in members.iter().enumerate() {
            what = what.replace(&format!("machines[{index}] ({})", machine.name), &machine.name);
        }
        format!("{name}: {field}: {what}; {}", problem.fix)
    });
    anyhow!(lines.collect::<Vec<_>>().join("\n"))
}
