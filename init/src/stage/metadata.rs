//! Finds the role metadata in the machine's surroundings or by its URL, and holds a whole plan against it before anything is configured.
mod asking;
mod patience;

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use kscratch_metadata::{Role, RoleMetadata};

use super::carriers::Teller;
use super::commandnetwork;
use super::gather;
use super::newlease::RESOLV_CONF;
use super::owncluster;
use super::phases::Phases;
use crate::apply::files;
use crate::apply::steps::Machine;
use crate::facts::Facts;
use crate::log;
use crate::plan::{self, Plan, PlanError, Step};
use crate::source::{self, Kind, Surroundings, Text};

/// What helps against metadata that are wrong.
pub const HINT: &str = "correct the role metadata (kscratch-image stamp FILE --metadata role.toml checks it and puts it on the ESP) and boot again";

/// What helps where nobody has given them before the machine was to stop.
const ASKED_HINT: &str =
    "look at the metadata's server, and at the way to it; the machine asks again when it is switched on";

/// Finds and checks the metadata. `None` where there is some and it is wrong: then nothing may be configured; and where the machine stops (`stop`) before a
/// server has given them. `lasting` says whether state is on the disk.
pub fn find(
    phases: &mut Phases,
    machine: &mut Machine<'_>,
    around: &Surroundings<'_>,
    id: &str,
    lasting: bool,
    teller: &Teller,
    stop: &AtomicBool,
) -> Option<RoleMetadata> {
    let mut local = None;
    let mut network = Network { around, id, lasting, teller, whole: false };
    around.cmdline.network.faults.iter().for_each(log::line);
    if let Some(url) = &around.cmdline.metadata_url {
        // A URL costs a network; a source of the machine itself comes before it anyway.
        local = Some(source::choose(source::ask_all(around)));
        if matches!(&local, Some(Ok(choice)) if choice.winner.is_none()) {
            phases.run(
                "metadata-network",
                "the metadata URL needs a DHCP server; or stamp the metadata on the ESP",
                || network.up(machine),
            );
        } else {
            log::line(format_args!("role metadata: {url} is not asked, the machine itself has some"));
        }
    }
    let hint = |_: &anyhow::Error| if stop.load(Ordering::Relaxed) { ASKED_HINT } else { HINT };
    let mut open = false;
    phases.run_hinting("metadata", hint, || {
        let choice = local.unwrap_or_else(|| source::choose(source::ask_all(around)))?;
        for line in &choice.lines {
            log::line(line);
        }
        let text = match (choice.winner, &around.cmdline.metadata_url) {
            (Some((kind, text)), _) => {
                open = kind == Kind::CommandLine;
                Some(text)
            }
            (None, Some(url)) => {
                if url.starts_with("http://") {
                    log::line(format_args!(
                        "role metadata: {url} is in clear: who is on the way can read its secrets, and change it"
                    ));
                }
                let asked = asking::ask((around.sys, url), machine, stop, |machine| network.again(machine))?;
                let text = asked.context("the machine stops, and their server has not given them yet")?;
                log::line(format_args!("role metadata: {} ({url})", Kind::Url));
                Some(text)
            }
            (None, None) => None,
        };
        let facts = gather::facts(around.root, id, &machine.leases, lasting)?;
        let metadata = check(around, text, &facts)?;
        if open && has_secrets(&metadata) {
            log::line("role metadata: every pod can read the kernel command line, and the secrets in it");
            log::hint("put secrets where pods do not see them: on the ESP (kscratch-image stamp), or on a volume labelled KSCRATCH");
        }
        Ok(metadata)
    })
}

/// Whether there is something in them that not everybody is to know.
fn has_secrets(metadata: &RoleMetadata) -> bool {
    metadata.join.token.is_some()
        || metadata.control_plane.as_ref().is_some_and(|control_plane| control_plane.secrets.is_some())
}

/// The network that a URL is asked over.
struct Network<'a> {
    around: &'a Surroundings<'a>,
    id: &'a str,
    lasting: bool,
    teller: &'a Teller,
    /// All of it is as it was planned.
    whole: bool,
}

impl Network<'_> {
    /// Has the cards that are there do what the command line says, or ask by DHCP, and waits for leases as every boot does.
    fn up(&mut self, machine: &mut Machine<'_>) -> Result<()> {
        let (plan, lines) = self.plan(machine)?;
        lines.iter().for_each(log::line);
        self.teller.watch(&plan);
        let applied = machine.plan(&plan);
        self.whole = applied.is_ok();
        // What the metadata do not want is taken back.
        machine.network = Some(without_notes(plan));
        self.name_servers(machine)?;
        applied
    }

    /// Takes up cards that have come, and tries again what failed. Leases are not waited for here, and what was told is not told again.
    fn again(&mut self, machine: &mut Machine<'_>) -> Result<()> {
        let plan = without_notes(self.plan(machine)?.0);
        let mut applied = Ok(());
        if !self.whole || machine.network.as_ref() != Some(&plan) {
            self.teller.watch(&plan);
            applied = machine.steps_of(&plan);
            self.whole = applied.is_ok();
            machine.network = Some(plan);
        }
        self.name_servers(machine)?;
        applied
    }

    /// The plan for what is there now, and what is to be told of it.
    fn plan(&self, machine: &Machine<'_>) -> Result<(Plan, Vec<String>)> {
        let facts = gather::facts(self.around.root, self.id, &machine.leases, self.lasting)?;
        let mut metadata = RoleMetadata::standalone();
        let lines = commandnetwork::lay_under(&self.around.cmdline.network, &mut metadata, &facts);
        Ok((plan::network(&metadata, &facts).map_err(PlanError::with_hint)?, lines))
    }

    /// The URL may have a name in it.
    fn name_servers(&self, machine: &Machine<'_>) -> Result<()> {
        let facts = gather::facts(self.around.root, self.id, &machine.leases, self.lasting)?;
        let text = facts.name_server_lines(&self.around.cmdline.network.dns_servers);
        files::file(self.around.root, RESOLV_CONF, text.as_bytes(), 0o644)
    }
}

fn without_notes(mut plan: Plan) -> Plan {
    plan.phases.iter_mut().for_each(|phase| phase.steps.retain(|step| !matches!(step, Step::Note(_))));
    plan
}

/// Parses metadata and makes the whole plan once without applying it: what does not fit shows before anything is changed.
fn check(around: &Surroundings<'_>, text: Option<Text>, facts: &Facts) -> Result<RoleMetadata> {
    let mut metadata = match text {
        Some(text) => read(around, &text, facts)?,
        None => without_metadata(facts),
    };
    commandnetwork::lay_under(&around.cmdline.network, &mut metadata, facts).iter().for_each(log::line);
    let metadata = owncluster::complete(around.sys, around.root, metadata, facts.lasting)?;
    match plan::network(&metadata, facts).and_then(|_| plan::node(&metadata, facts)) {
        // Nothing is wrong with the metadata: the machine keeps its place in the network, and says then what it cannot do. Where they came by
        // network, there is an address already, and the next lease may be of the right one.
        Ok(_) | Err(PlanError::NoState | PlanError::OtherMember { .. }) => Ok(metadata),
        Err(error) => Err(error.with_hint()),
    }
}

/// The metadata in a text, of a rack's text this machine's.
fn read(around: &Surroundings<'_>, text: &Text, facts: &Facts) -> Result<RoleMetadata> {
    let identity = source::entry::identity(around.root, &facts.links);
    let selected = source::entry::read(text, &identity)?;
    if let Some(entry) = selected.entry {
        log::line(format_args!("role metadata: this machine is {entry}"));
    }
    Ok(selected.metadata)
}

/// What a machine is that nobody told anything: what its image was built for.
fn without_metadata(facts: &Facts) -> RoleMetadata {
    let mut metadata = RoleMetadata::standalone();
    if facts.release.role == "master" {
        log::line("role metadata: none; this machine is the master of a cluster of its own");
        metadata.role = Role::Master;
    } else {
        log::line("role metadata: none; this machine runs docker and kubelet on its own, with the image's pods");
    }
    log::hint(
        "to give it a cluster: kscratch-image stamp FILE --metadata role.toml, or /kscratch/role.toml on its ESP, or a volume labelled KSCRATCH with role.toml",
    );
    metadata
}
