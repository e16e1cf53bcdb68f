//! Reads and changes the rows of the kernel's tables that are the agent's own, and its overlay device.
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;
use kscratch_netlink::Netlink;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, CacheInfo};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::tables::{Change, Hop, Mac, Tables};

/// Who set a route (`RTPROT_*`): a number that nobody has in iproute2's rt_protos.
const PROTOCOL: u8 = 107;

/// The overlay's network identifier.
const VNI: u32 = 1;

/// The overlay's UDP port, IANA's for VXLAN.
const PORT: u16 = 4789;

/// What the overlay's device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The address that its packets come from.
    pub local: Ipv4Addr,
    /// Its hardware address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// The tables of the network namespace that it was opened in.
pub struct Kernel {
    netlink: Netlink,
}

impl Kernel {
    /// Opens a socket to rtnetlink.
    ///
    /// # Errors
    /// The kernel has none.
    pub fn open() -> Result<Self> {
        Ok(Self { netlink: Netlink::open()? })
    }

    /// The number of a link.
    ///
    /// # Errors
    /// There is no such link.
    pub fn link(&mut self, name: &str) -> Result<u32> {
        match self.find(name)? {
            Some(found) => Ok(found.header.index),
            None => bail!("there is no link {name}"),
        }
    }

    fn find(&mut self, name: &str) -> Result<Option<LinkMessage>> {
        let answers =
            self.netlink.list(RouteNetlinkMessage::GetLink(LinkMessage::default())).context("listing links")?;
        let named = LinkAttribute::IfName(name.to_owned());
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => link.attributes.contains(&named).then_some(link),
            _ => None,
        }))
    }

    /// The IPv4 addresses of a link, with the networks they are of.
    ///
    /// # Errors
    /// rtnetlink does not answer.
    pub fn addresses(&mut self, link: u32) -> Result<Vec<Ipv4Net>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = self.netlink.list(RouteNetlinkMessage::GetAddress(message)).context("listing addresses")?;
        Ok(answers.iter().filter_map(|answer| read_address(answer, link)).collect())
    }

    /// Makes an address, with no network around it, the only IPv4 address of a link.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_only_address(&mut self, link: u32, address: Ipv4Addr) -> Result<()> {
        let wanted = Ipv4Net::from(address);
        let mut missing = true;
        for other in self.addresses(link)? {
            if other == wanted {
                missing = false;
                continue;
            }
            let message = RouteNetlinkMessage::DelAddress(address_message(link, other));
            self.netlink.change(message, 0).with_context(|| format!("taking {other} from the overlay's device"))?;
        }
        if missing {
            let message = RouteNetlinkMessage::NewAddress(address_message(link, wanted));
            self.netlink
                .change(message, NLM_F_CREATE | NLM_F_REPLACE)
                .with_context(|| format!("giving the overlay's device the address {address}"))?;
        }
        Ok(())
    }

    /// Gives a link an address, with no network around it, beside its others; or gives that one more time. After `lasting`, in whole seconds, the
    /// kernel takes it away by itself (`valid_lft` of ip-address(8)).
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn lend_address(&mut self, link: u32, address: Ipv4Addr, lasting: Duration) -> Result<()> {
        let mut message = address_message(link, Ipv4Net::from(address));
        let mut time = CacheInfo::default();
        // A life of no time is refused.
        time.ifa_valid = u32::try_from(lasting.as_secs()).unwrap_or(u32::MAX).max(1);
        time.ifa_preferred = time.ifa_valid;
        message.attributes.push(AddressAttribute::CacheInfo(time));
        self.netlink
            .change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
            .with_context(|| format!("adding the address {address}"))
    }

    /// Takes an address with no network around it from a link.
    ///
    /// # Errors
    /// The link does not have it, or the kernel refuses.
    pub fn remove_address(&mut self, link: u32, address: Ipv4Addr) -> Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(link, Ipv4Net::from(address)));
        self.netlink.change(message, 0).with_context(|| format!("removing the address {address}"))
    }

    /// Removes a device where it is there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_device(&mut self, name: &str) -> Result<()> {
        let Some(found) = self.find(name)? else { return Ok(()) };
        let mut message = LinkMessage::default();
        message.header.index = found.header.index;
        self.netlink
            .change(RouteNetlinkMessage::DelLink(message), 0)
            .with_context(|| format!("removing the device {name}"))
    }

    /// Makes the overlay's device where there is none or another one, brings it up, and gives its number.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn ensure_device(&mut self, name: &str, wanted: Device) -> Result<u32> {
        let found = match self.find(name)? {
            Some(found) if is_overlay(&found, wanted) => found,
            found => {
                if found.is_some() {
                    self.remove_device(name)?;
                }
                self.netlink
                    .change(RouteNetlinkMessage::NewLink(device_message(name, wanted)), NLM_F_CREATE | NLM_F_EXCL)
                    .with_context(|| format!("making the device {name}"))?;
                self.find(name)?.with_context(|| format!("the device {name} is not there though it was made"))?
            }
        };
        let right = [LinkAttribute::Mtu(wanted.mtu), LinkAttribute::Address(wanted.mac.to_vec())];
        let wrong: Vec<_> = right.into_iter().filter(|want| !found.attributes.contains(want)).collect();
        if !wrong.is_empty() || !found.header.flags.contains(LinkFlags::Up) {
            let mut message = LinkMessage::default();
            message.header.index = found.header.index;
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
            message.attributes = wrong;
            self.netlink
                .change(RouteNetlinkMessage::SetLink(message), 0)
                .with_context(|| format!("bringing up the device {name}"))?;
        }
        Ok(found.header.index)
    }

    /// The agent's own rows; those of neighbours and machines are on the overlay's device.
    ///
    /// # Errors
    /// rtnetlink does not answer.
    pub fn tables(&mut self, device: Option<u32>) -> Result<Tables> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self.netlink.list(RouteNetlinkMessage::GetRoute(message)).context("listing routes")?;
        let mut tables = Tables { routes: answers.iter().filter_map(read_route).collect(), ..Tables::default() };
        if let Some(device) = device {
            for answer in self.neighbours(AddressFamily::Inet).context("listing neighbours")? {
                if let Some((Some(address), mac, _)) = read_neighbour(&answer, device, NeighbourState::Permanent) {
                    tables.neighbours.insert(address, mac);
                }
            }
            for answer in self.neighbours(AddressFamily::Bridge).context("listing the overlay's machines")? {
                if let Some((_, mac, Some(address))) = read_neighbour(&answer, device, NeighbourState::Permanent) {
                    tables.forwarding.insert((mac, address));
                }
            }
        }
        Ok(tables)
    }

    fn neighbours(&mut self, family: AddressFamily) -> Result<Vec<RouteNetlinkMessage>> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        self.netlink.list(RouteNetlinkMessage::GetNeighbour(message))
    }

    /// Changes one row. Neighbours and machines are on the overlay's device.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn change(&mut self, change: Change, device: Option<u32>) -> Result<()> {
        let device = || device.context("there is no device for the overlay");
        let replace = NLM_F_CREATE | NLM_F_REPLACE;
        let (message, flags) = match change {
            Change::SetRoute(range, hop) => (RouteNetlinkMessage::NewRoute(route_message(range, hop)), replace),
            Change::DropRoute(range, hop) => (RouteNetlinkMessage::DelRoute(route_message(range, hop)), 0),
            Change::SetNeighbour(address, mac) => {
                (RouteNetlinkMessage::NewNeighbour(neighbour_message(device()?, address, mac)), replace)
            }
            Change::DropNeighbour(address, mac) => {
                (RouteNetlinkMessage::DelNeighbour(neighbour_message(device()?, address, mac)), 0)
            }
            Change::SetForwarding(mac, address) => {
                (RouteNetlinkMessage::NewNeighbour(forwarding_message(device()?, mac, address)), replace)
            }
            Change::DropForwarding(mac, address) => {
                (RouteNetlinkMessage::DelNeighbour(forwarding_message(device()?, mac, address)), 0)
            }
        };
        self.netlink.change(message, flags)
    }
}

/// Whether a link is the overlay's device in what cannot be changed later.
fn is_overlay(link: &LinkMessage, wanted: Device) -> bool {
    let wanted =
        [InfoVxlan::Id(VNI), InfoVxlan::Local(wanted.local), InfoVxlan::Port(PORT), InfoVxlan::Learning(false)];
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(is)) => wanted.iter().all(|want| is.contains(want)),
            _ => false,
        }),
        _ => false,
    })
}

fn device_message(name: &str, wanted: Device) -> LinkMessage {
    let data = vec![
        InfoVxlan::Id(VNI),
        InfoVxlan::Local(wanted.local),
        InfoVxlan::Port(PORT),
        // Who is behind which hardware address is said by the cluster, never learned from packets.
        InfoVxlan::Learning(false),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(wanted.mac.to_vec()),
        LinkAttribute::Mtu(wanted.mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))]),
    ];
    message
}

fn read_address(message: &RouteNetlinkMessage, link: u32) -> Option<Ipv4Net> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    (message.header.index == link).then(|| Ipv4Net::new(own, message.header.prefix_len).ok())?
}

fn address_message(link: u32, address: Ipv4Net) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = address.prefix_len();
    message.header.index = link;
    let ip = IpAddr::V4(address.addr());
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

fn read_route(message: &RouteNetlinkMessage) -> Option<(Ipv4Net, Hop)> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.protocol != RouteProtocol::Other(PROTOCOL) {
        return None;
    }
    let (mut range, mut hop) = (Ipv4Net::default(), Hop { via: Ipv4Addr::UNSPECIFIED, link: 0 });
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                range = Ipv4Net::new(*ip, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => hop.via = *ip,
            RouteAttribute::Oif(index) => hop.link = *index,
            _ => {}
        }
    }
    Some((range, hop))
}

fn route_message(range: Ipv4Net, hop: Hop) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = range.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Universe;
    // The overlay's neighbours are in no network of its device; the others were found to be on the link.
    message.header.flags = RouteFlags::Onlink;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(range.network())),
        RouteAttribute::Gateway(RouteAddress::Inet(hop.via)),
        RouteAttribute::Oif(hop.link),
    ];
    message
}

/// Address, hardware address and machine, as far as a row has them.
fn read_neighbour(
    message: &RouteNetlinkMessage,
    device: u32,
    state: NeighbourState,
) -> Option<(Option<Ipv4Addr>, Mac, Option<Ipv4Addr>)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.ifindex != device || u16::from(message.header.state) & u16::from(state) == 0 {
        return None;
    }
    let (mut address, mut mac, mut machine) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(*ip),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                machine = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from);
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    Some((address, mac?, machine))
}

fn neighbour_message(device: u32, address: Ipv4Addr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

fn forwarding_message(device: u32, mac: Mac, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = neighbour_message(device, address, mac);
    message.header.family = AddressFamily::Bridge;
    // On the device itself, not on a bridge that it might be a port of.
    message.header.flags = NeighbourFlags::Own;
    message
}
