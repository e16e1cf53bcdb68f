//! Plans what has to be done before addresses are known: which links are made and come up, and how each gets its addresses and routes.
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net};
use kscratch_metadata::{Bond, Interface, Link as Spec, Mac, RoleMetadata, Route, Vlan};

use super::{Phase, Plan, PlanError, Step, identity};
use crate::facts::{Facts, Link};

/// Metric of the first link's routes that DHCP brings, where several links are named or there are several cards; each further one has one more.
const DHCP_METRIC: u32 = 100;

/// A link that init makes, by the names that the kernel has for its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// Several cards as one.
    Bond(Bond),
    /// One network of several on another link.
    Vlan(Vlan),
    /// A switch.
    Bridge {
        /// Its ports.
        members: Vec<String>,
        /// Whether it speaks the spanning tree protocol.
        stp: bool,
    },
}

/// A link as it is to be on this machine.
pub(super) struct Wanted<'a> {
    /// As the metadata call it.
    id: String,
    /// As the kernel calls it; `None` where it is not there, and a card's hardware address alone is known.
    pub name: Option<String>,
    /// Whether it is there, or can be made.
    pub there: bool,
    /// What it is to be.
    pub spec: Cow<'a, Spec>,
    /// Whether it is a member of another one, and whether that is a bond.
    member_of: Option<bool>,
    /// Metric of the routes that DHCP brings.
    metric: Option<u32>,
}

/// Plans the network: loopback, then each link that is there below those that it carries.
///
/// # Errors
/// Where the metadata gives an address without saying to which of several links, or makes a link that has a card's name.
pub fn network(metadata: &RoleMetadata, facts: &Facts) -> Result<Plan, PlanError> {
    let mut steps = vec![Step::LinkUp { link: "lo".to_owned(), mtu: None }];
    let links = wanted(metadata, facts)?;
    if links.is_empty() {
        let text = "no network card found: this machine will be reachable by nobody";
        steps.push(Step::Note(text.to_owned()));
    }
    let names: BTreeMap<&str, &str> = links
        .iter()
        .filter(|link| link.there)
        .filter_map(|link| Some((link.id.as_str(), link.name.as_deref()?)))
        .collect();
    for link in &links {
        match &link.name {
            Some(name) if link.there => one(link, name, &names, &mut steps),
            _ => steps.push(Step::Note(absent(link, facts))),
        }
    }
    for link in links.iter().filter(|link| link.there) {
        steps.extend(link.spec.routes.iter().filter_map(|route| way(link.name.clone(), route)));
    }
    if metadata.cluster.is_some() && has_optional_leases_alone(&links) {
        steps.push(Step::AnyLease);
    }
    Ok(Plan { phases: vec![Phase { name: "network", steps }] })
}

/// Whether the node's address can come of a lease alone that the boot does not wait for. A machine of a cluster that is planned without one starts anew
/// for it when it comes, and would so after each boot.
fn has_optional_leases_alone(links: &[Wanted<'_>]) -> bool {
    let fixed = links.iter().any(|link| link.name.is_some() && identity::fixed(&link.spec).is_some());
    let mut asking = links.iter().filter(|link| link.there && link.spec.dhcp4).peekable();
    !fixed && asking.peek().is_some() && asking.all(|link| link.spec.optional)
}

/// The steps of one link that is there.
fn one(link: &Wanted<'_>, name: &str, names: &BTreeMap<&str, &str>, steps: &mut Vec<Step>) {
    let (spec, link_name) = (&link.spec, || name.to_owned());
    steps.extend(made(spec, names).map(|made| Step::MakeLink { link: link_name(), made }));
    if let Some(accept) = spec.announced() {
        // 2: even where packets are forwarded, as they are for pods (the kernel's ip-sysctl.rst).
        for (key, on) in [("accept_ra", "2"), ("autoconf", "1")] {
            let value = if accept { on } else { "0" }.to_owned();
            steps.push(Step::Sysctl { key: format!("net/ipv6/conf/{name}/{key}"), value });
        }
    }
    // A bond brings up its members itself, and takes none that is up.
    if link.member_of != Some(true) {
        steps.push(Step::LinkUp { link: link_name(), mtu: spec.mtu });
    }
    if !spec.addresses.is_empty() {
        steps.push(Step::Addresses { link: link_name(), addresses: spec.addresses.clone(), alone: !spec.dhcp4 });
    }
    if spec.dhcp4 {
        steps.push(Step::Dhcp { link: link_name(), metric: link.metric, optional: spec.optional });
    }
    if spec.dhcp6 {
        steps.push(Step::Dhcp6 { link: link_name(), optional: spec.optional });
    }
}

fn made(spec: &Spec, names: &BTreeMap<&str, &str>) -> Option<Made> {
    let name = |id: &String| names.get(id.as_str()).map(|name| (*name).to_owned());
    let there = |members: &[String]| members.iter().filter_map(name).collect::<Vec<_>>();
    match (&spec.bond, &spec.vlan, &spec.bridge) {
        (Some(bond), _, _) => {
            let primary = bond.primary.as_ref().and_then(name);
            Some(Made::Bond(Bond { members: there(&bond.members), primary, ..bond.clone() }))
        }
        (_, Some(vlan), _) => Some(Made::Vlan(Vlan { over: name(&vlan.over)?, ..vlan.clone() })),
        (_, _, Some(bridge)) => Some(Made::Bridge { members: there(&bridge.members), stp: bridge.stp }),
        _ => None,
    }
}

fn way(link: Option<String>, route: &Route) -> Option<Step> {
    let Route { gateway, metric, .. } = *route;
    Some(Step::Route { destination: route.leads_to()?, gateway, link, metric })
}

/// What is said of a link that is not there.
fn absent(link: &Wanted<'_>, facts: &Facts) -> String {
    let (id, optional) = (&link.id, if link.spec.optional { ", which is optional," } else { "" });
    if let Some(vlan) = &link.spec.vlan {
        return format!("link {id}{optional} is not made: {}, which carries it, is not there", vlan.over);
    }
    let mac = link.spec.mac.filter(|mac| mac.to_string() != *id).map_or_else(String::new, |mac| format!(" ({mac})"));
    let known: Vec<String> = facts.links.iter().map(describe).collect();
    let known = if known.is_empty() { "no network card".to_owned() } else { known.join(", ") };
    format!("link {id}{mac}{optional} is not there; it is taken up when it comes (the machine has {known})")
}

/// The links that are wanted, each behind those that carry it.
pub(super) fn wanted<'a>(metadata: &'a RoleMetadata, facts: &Facts) -> Result<Vec<Wanted<'a>>, PlanError> {
    let network = &metadata.network;
    if network.links.is_empty() {
        return short_form(metadata, facts);
    }
    let specs = &network.links;
    let mut order = Vec::new();
    specs.keys().for_each(|id| below_first(specs, id, &mut order));
    let mut found: Vec<Wanted<'a>> = Vec::new();
    for id in order {
        let Some(spec) = specs.get(id) else { continue };
        if spec.is_made() && facts.links.contains_key(id) {
            return Err(PlanError::NameOfCard { link: id.clone() });
        }
        let (name, there) = match (spec.is_made(), &spec.vlan) {
            (true, Some(vlan)) => (Some(id.clone()), found.iter().any(|link| link.id == vlan.over && link.there)),
            (true, None) => (Some(id.clone()), true),
            (false, _) => {
                let name = card(id, spec.mac, facts);
                let there = name.as_ref().is_some_and(|name| facts.links.contains_key(name));
                (name, there)
            }
        };
        let member_of = specs.values().find(|other| other.members().contains(id)).map(|other| other.bond.is_some());
        found.push(Wanted { id: id.clone(), name, there, spec: Cow::Borrowed(spec), member_of, metric: spec.metric });
    }
    let mut asking: Vec<&mut Wanted<'_>> = found.iter_mut().filter(|link| link.spec.dhcp4).collect();
    asking.sort_by(|one, other| (!one.spec.primary, &one.id).cmp(&(!other.spec.primary, &other.id)));
    for (metric, link) in (DHCP_METRIC..).zip(asking) {
        link.metric = link.metric.or(Some(metric));
    }
    Ok(found)
}

/// The kernel's name of a card: the one that has the hardware address, else the table's own.
fn card(id: &str, mac: Option<Mac>, facts: &Facts) -> Option<String> {
    match mac {
        Some(mac) => facts.links.iter().find(|(_, link)| link.mac == mac.0).map(|(name, _)| name.clone()),
        None => Some(id.to_owned()),
    }
}

fn below_first<'s>(specs: &'s BTreeMap<String, Spec>, id: &'s str, order: &mut Vec<&'s String>) {
    let Some((id, spec)) = specs.get_key_value(id) else { return };
    if order.contains(&id) {
        return;
    }
    spec.below().for_each(|below| below_first(specs, below, order));
    order.push(id);
}

/// `network.interface`, `static` and `mtu`: one link, or DHCP on every card.
fn short_form<'a>(metadata: &'a RoleMetadata, facts: &Facts) -> Result<Vec<Wanted<'a>>, PlanError> {
    let network = &metadata.network;
    let mut spec = Spec { dhcp4: network.fixed.is_none(), mtu: network.mtu, ..Spec::default() };
    if let Some(fixed) = &network.fixed {
        spec.addresses = vec![IpNet::V4(fixed.address)];
        let route =
            |gateway: std::net::Ipv4Addr| Route { destination: None, gateway: Some(gateway.into()), metric: None };
        spec.routes = fixed.gateway.map(route).into_iter().collect();
    }
    let one = |id: String, spec: Spec| {
        let name = card(&id, spec.mac, facts);
        let there = name.as_ref().is_some_and(|name| facts.links.contains_key(name));
        Wanted { id, name, there, spec: Cow::Owned(spec), member_of: None, metric: None }
    };
    match (&network.interface, &network.fixed) {
        (Some(Interface::Name(name)), _) => Ok(vec![one(name.clone(), spec)]),
        (Some(Interface::Mac(mac)), _) => Ok(vec![one(mac.to_string(), Spec { mac: Some(*mac), ..spec })]),
        (None, Some(fixed)) if facts.links.len() > 1 => {
            Err(PlanError::WhichLink { address: fixed.address, known: facts.links.iter().map(describe).collect() })
        }
        (None, _) => {
            let mut links: Vec<Wanted<'a>> = facts.links.keys().map(|name| one(name.clone(), spec.clone())).collect();
            // With one metric each lease, and each renewal, would move the default route to its own card.
            if links.len() > 1 {
                for (metric, link) in (DHCP_METRIC..).zip(&mut links) {
                    link.metric = Some(metric);
                }
            }
            Ok(links)
        }
    }
}

/// Metric of a link's own default route, by IPv4.
pub(super) fn default_metric(spec: &Spec) -> Option<u32> {
    let all = IpNet::V4(Ipv4Net::default());
    let routes = spec.routes.iter().filter(|route| route.leads_to() == Some(all));
    routes.map(|route| route.metric.unwrap_or(0)).min()
}

/// Names of the links that are there and may have addresses.
pub(super) fn chosen(metadata: &RoleMetadata, facts: &Facts) -> Vec<String> {
    let links = wanted(metadata, facts).unwrap_or_default();
    links.into_iter().filter(|link| link.there && !link.is_member()).filter_map(|link| link.name).collect()
}

impl Wanted<'_> {
    /// Whether its packets are another one's.
    pub fn is_member(&self) -> bool {
        self.member_of.is_some()
    }
}

/// Names of the links that a plan brings up: those whose carriers matter.
pub fn links_of(plan: &Plan) -> BTreeSet<String> {
    let names = |step: &Step| match step {
        Step::LinkUp { link, .. } if link != "lo" => vec![link.clone()],
        Step::MakeLink { made: Made::Bond(Bond { members, .. }) | Made::Bridge { members, .. }, .. } => members.clone(),
        _ => Vec::new(),
    };
    steps_of(plan).flat_map(names).collect()
}

/// What an earlier plan made of the network that the next one does not want: the kernel command line's, where the metadata say another.
#[must_use]
pub fn superseded(before: &Plan, after: &Plan) -> Vec<Step> {
    let wanted: Vec<&Step> = steps_of(after).collect();
    let mut steps = Vec::new();
    for step in steps_of(before).filter(|step| !wanted.contains(step)) {
        match step {
            Step::Route { destination, gateway, link, metric } => steps.push(Step::RemoveRoute {
                destination: *destination,
                gateway: *gateway,
                link: link.clone(),
                metric: *metric,
            }),
            Step::Addresses { link, addresses, .. } => {
                let kept = |address: &IpNet| {
                    wanted.iter().any(|step| matches!(step, Step::Addresses { link: on, addresses, .. } if on == link && addresses.contains(address)))
                };
                let gone = addresses.iter().filter(|address| !kept(address));
                steps.extend(gone.map(|address| Step::RemoveAddress { link: link.clone(), address: *address }));
            }
            Step::MakeLink { link, .. }
                if !wanted.iter().any(|step| matches!(step, Step::MakeLink { link: made, .. } if made == link)) =>
            {
                steps.push(Step::RemoveLink { link: link.clone() });
            }
            _ => {}
        }
    }
    // What is carried goes before what carries it.
    steps.reverse();
    steps
}

fn steps_of(plan: &Plan) -> impl Iterator<Item = &Step> {
    plan.phases.iter().flat_map(|phase| &phase.steps)
}

fn describe((name, link): (&String, &Link)) -> String {
    format!("{name} ({})", Mac(link.mac))
}
