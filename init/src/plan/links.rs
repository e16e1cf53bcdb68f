//! Plans what has to be done before addresses are known: which links come up, and how each gets its address.
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kscratch_metadata::{Interface, RoleMetadata};

use super::{Phase, Plan, PlanError, Step};
use crate::facts::{Facts, Link};

const DEFAULT_ROUTE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

/// Plans the network: loopback, then the named link (or all of them) with DHCP or the fixed address.
///
/// # Errors
/// Where the metadata names a link that is not there, or gives an address without saying to which of several links.
pub fn network(metadata: &RoleMetadata, facts: &Facts) -> Result<Plan, PlanError> {
    let network = &metadata.network;
    let mut steps = vec![Step::LinkUp { link: "lo".to_owned(), mtu: None }];
    let links = chosen(metadata, facts)?;
    if links.is_empty() {
        let text = "no network card found: this machine will be reachable by nobody";
        steps.push(Step::Note(text.to_owned()));
    }
    for link in links {
        steps.push(Step::LinkUp { link: link.clone(), mtu: network.mtu });
        let Some(fixed) = &network.fixed else {
            steps.push(Step::Dhcp { link });
            continue;
        };
        steps.push(Step::Address { link, address: fixed.address });
        steps.extend(fixed.gateway.map(|gateway| Step::Route { destination: DEFAULT_ROUTE, gateway }));
    }
    Ok(Plan { phases: vec![Phase { name: "network", steps }] })
}

/// Names of the links to use.
pub(super) fn chosen(metadata: &RoleMetadata, facts: &Facts) -> Result<Vec<String>, PlanError> {
    let known = || facts.links.iter().map(describe).collect();
    if let Some(interface) = &metadata.network.interface {
        let found = facts.links.iter().find(|(name, link)| match interface {
            Interface::Name(wanted) => *name == wanted,
            Interface::Mac(wanted) => link.mac == wanted.0,
        });
        return match found {
            Some((name, _)) => Ok(vec![name.clone()]),
            None => Err(PlanError::NoSuchLink { wanted: interface.to_string(), known: known() }),
        };
    }
    match &metadata.network.fixed {
        Some(fixed) if facts.links.len() > 1 => Err(PlanError::WhichLink { address: fixed.address, known: known() }),
        _ => Ok(facts.links.keys().cloned().collect()),
    }
}

fn describe((name, link): (&String, &Link)) -> String {
    format!("{name} ({})", kscratch_metadata::Mac(link.mac))
}
