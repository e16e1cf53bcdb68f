//! Finds the role metadata in the machine's surroundings or by its URL, and holds a whole plan against it before anything is configured.
use anyhow::Result;
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
use crate::plan::{self, PlanError};
use crate::source::{self, Kind, Surroundings, Text};

/// What helps against metadata that are wrong.
pub const HINT: &str = "correct the role metadata (kscratch-image stamp FILE --metadata role.toml checks it and puts it on the ESP) and boot again";

/// Finds and checks the metadata. `None` where there is some and it is wrong: then nothing may be configured. `lasting` says whether state is on the disk.
pub fn find(
    phases: &mut Phases,
    machine: &mut Machine<'_>,
    around: &Surroundings<'_>,
    id: &str,
    lasting: bool,
    teller: &Teller,
) -> Option<RoleMetadata> {
    let mut local = None;
    around.cmdline.network.faults.iter().for_each(log::line);
    if let Some(url) = &around.cmdline.metadata_url {
        // A URL costs a network; a source of the machine itself comes before it anyway.
        local = Some(source::choose(source::ask_all(around)));
        if matches!(&local, Some(Ok(choice)) if choice.winner.is_none()) {
            phases.run(
                "metadata-network",
                "the metadata URL needs a DHCP server; or stamp the metadata on the ESP",
                || {
                    let facts = gather::facts(around.root, id, &machine.leases, lasting)?;
                    let mut metadata = RoleMetadata::standalone();
                    commandnetwork::lay_under(&around.cmdline.network, &mut metadata, &facts)
                        .iter()
                        .for_each(log::line);
                    let plan = plan::network(&metadata, &facts).map_err(PlanError::with_hint)?;
                    teller.watch(&plan);
                    let applied = machine.plan(&plan);
                    // What the metadata do not want is taken back.
                    machine.network = Some(plan);
                    // The URL may have a name in it.
                    let facts = gather::facts(around.root, id, &machine.leases, lasting)?;
                    let text = facts.name_server_lines(&around.cmdline.network.dns_servers);
                    files::file(around.root, RESOLV_CONF, text.as_bytes(), 0o644)?;
                    applied
                },
            );
        } else {
            log::line(format_args!("role metadata: {url} is not asked, the machine itself has some"));
        }
    }
    phases.run("metadata", HINT, || {
        let choice = local.unwrap_or_else(|| source::choose(source::ask_all(around)))?;
        for line in &choice.lines {
            log::line(line);
        }
        let text = match (choice.winner, &around.cmdline.metadata_url) {
            (Some((_, text)), _) => Some(text),
            (None, Some(url)) => {
                if url.starts_with("http://") {
                    log::line(format_args!(
                        "role metadata: {url} is in clear: who is on the way can read its secrets, and change it"
                    ));
                }
                let text = source::http::fetch(around.sys, url)?;
                log::line(format_args!("role metadata: {} ({url})", Kind::Url));
                Some(text)
            }
            (None, None) => None,
        };
        let facts = gather::facts(around.root, id, &machine.leases, lasting)?;
        check(around, text, &facts)
    })
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
