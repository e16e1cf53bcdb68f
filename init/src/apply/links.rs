//! Turns the bonds, VLANs and bridges of a plan into links of the kernel, with their members, whatever was there before.
use anyhow::{Context as _, Result, bail};
use kscratch_metadata::{Bond, BondMode as Mode};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BondLacpRate, BondMode, BondXmitHashPolicy, BridgeStpState, InfoBond, InfoBridge, InfoData, InfoKind, InfoVlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::network;
use crate::plan::Made;
use kscratch_netlink::Netlink;

/// Makes the link, or leaves the one that is as it should be, and has its members be these, beside those that others gave it (pods'). Says whether
/// it was made.
///
/// # Errors
/// The kernel refuses; the chain says what.
pub fn ensure(netlink: &mut Netlink, name: &str, made: &Made) -> Result<bool> {
    let new = make(netlink, name, made)?;
    let (members, bond) = match made {
        Made::Bond(bond) => (bond.members.as_slice(), Some(bond)),
        Made::Bridge { members, .. } => (members.as_slice(), None),
        Made::Vlan(_) => return Ok(new),
    };
    let own = network::existing_link(netlink, name)?.index;
    let mut faults: Vec<String> = Vec::new();
    for link in network::links(netlink)? {
        let wanted = members.contains(&link.name);
        let changed = match (wanted, link.controller == Some(own)) {
            (true, false) => join(netlink, &link, own, bond.is_some()),
            (false, true) if link.hardware || link.made => set_controller(netlink, link.index, 0),
            _ => Ok(()),
        };
        if let Err(error) = changed {
            let what = if wanted { "making" } else { "no longer having" };
            faults.push(format!("{what} {} a member of {name}: {error:#}", link.name));
        }
    }
    if let Some(primary) = bond.and_then(|bond| bond.primary.as_ref())
        && let Err(error) = prefer(netlink, own, primary)
    {
        faults.push(format!("preferring {primary} in {name}: {error:#}"));
    }
    if faults.is_empty() { Ok(new) } else { bail!(faults.join("\n")) }
}

/// Twice: the module of bonds, loaded by the first try, may bring a `bond0` of its own.
fn make(netlink: &mut Netlink, name: &str, made: &Made) -> Result<bool> {
    for last in [false, true] {
        if let Some(there) = find(netlink, name)? {
            if is_so(netlink, &there, made)? {
                return Ok(false);
            }
            network::remove_link(netlink, name)?;
        }
        match create(netlink, name, made) {
            Err(error) if !last && network::errno(&error) == Some(rustix::io::Errno::EXIST) => {}
            created => return created.map(|()| true),
        }
    }
    Ok(true)
}

fn create(netlink: &mut Netlink, name: &str, made: &Made) -> Result<()> {
    let (kind, data) = info(made);
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]),
    ];
    if let Made::Vlan(vlan) = made {
        let over = network::existing_link(netlink, &vlan.over)?;
        message.attributes.push(LinkAttribute::Link(over.index));
    }
    netlink
        .change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
        .with_context(|| format!("making the link {name}, {made}"))
}

fn info(made: &Made) -> (InfoKind, InfoData) {
    match made {
        Made::Bond(bond) => (InfoKind::Bond, InfoData::Bond(options(bond))),
        Made::Vlan(vlan) => (InfoKind::Vlan, InfoData::Vlan(vec![InfoVlan::Id(vlan.id)])),
        Made::Bridge { stp, .. } => {
            let state = if *stp { BridgeStpState::KernelStp } else { BridgeStpState::Disabled };
            (InfoKind::Bridge, InfoData::Bridge(vec![InfoBridge::StpState(state)]))
        }
    }
}

/// What is set when a bond is made; most of it cannot be changed once it has members.
fn options(bond: &Bond) -> Vec<InfoBond> {
    let mut options = vec![InfoBond::Mode(BondMode::from(bond.mode.number()))];
    // One monitor or the other: with both, the kernel refuses the link (bond_changelink of its bond_netlink.c).
    options.extend(bond.miimon.map(InfoBond::MiiMon));
    options.extend(bond.arp_interval.map(InfoBond::ArpInterval));
    if !bond.arp_targets.is_empty() {
        options.push(InfoBond::ArpIpTarget(bond.arp_targets.clone()));
    }
    if bond.mode == Mode::Lacp {
        options.extend(bond.lacp_rate.map(|rate| InfoBond::AdLacpRate(BondLacpRate::from(rate.number()))));
    }
    let policy = bond.hash_policy.map(|policy| InfoBond::XmitHashPolicy(BondXmitHashPolicy::from(policy.number())));
    options.extend(policy);
    options
}

fn find(netlink: &mut Netlink, name: &str) -> Result<Option<LinkMessage>> {
    let answers = netlink.list(RouteNetlinkMessage::GetLink(LinkMessage::default())).context("listing links")?;
    let named = |message: &LinkMessage| message.attributes.contains(&LinkAttribute::IfName(name.to_owned()));
    Ok(answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) if named(&message) => Some(message),
        _ => None,
    }))
}

/// Whether a link is of the kind, on the link, and has the options, that it should.
fn is_so(netlink: &mut Netlink, there: &LinkMessage, made: &Made) -> Result<bool> {
    let infos = there.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos.as_slice()),
        _ => None,
    });
    let (kind, wanted) = info(made);
    let infos = infos.unwrap_or_default();
    if !infos.contains(&LinkInfo::Kind(kind)) {
        return Ok(false);
    }
    if let Made::Vlan(vlan) = made {
        let over = network::existing_link(netlink, &vlan.over)?.index;
        if !there.attributes.contains(&LinkAttribute::Link(over)) {
            return Ok(false);
        }
    }
    Ok(infos.iter().any(|info| match (info, &wanted) {
        (LinkInfo::Data(InfoData::Bond(has)), InfoData::Bond(wanted)) => wanted.iter().all(|one| has.contains(one)),
        (LinkInfo::Data(InfoData::Vlan(has)), InfoData::Vlan(wanted)) => wanted.iter().all(|one| has.contains(one)),
        (LinkInfo::Data(InfoData::Bridge(has)), InfoData::Bridge(wanted)) => wanted.iter().all(|one| has.contains(one)),
        _ => false,
    }))
}

fn join(netlink: &mut Netlink, link: &network::Link, to: u32, bond: bool) -> Result<()> {
    if bond && link.up {
        // A bond takes no member that is up (bond_enslave of the kernel's bond_main.c).
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.header.change_mask = LinkFlags::Up;
        netlink.change(RouteNetlinkMessage::SetLink(message), 0).context("taking it down")?;
    }
    set_controller(netlink, link.index, to)
}

fn set_controller(netlink: &mut Netlink, index: u32, to: u32) -> Result<()> {
    network::set_link(netlink, index, vec![LinkAttribute::Controller(to)], false)
}

/// The member that is used while it can be; one that is no member yet is none of the kernel's either.
fn prefer(netlink: &mut Netlink, bond: u32, primary: &str) -> Result<()> {
    let index = network::existing_link(netlink, primary)?.index;
    let mut message = LinkMessage::default();
    message.header.index = bond;
    let data = LinkInfo::Data(InfoData::Bond(vec![InfoBond::Primary(index)]));
    message.attributes = vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bond), data])];
    netlink.change(RouteNetlinkMessage::NewLink(message), 0)
}
