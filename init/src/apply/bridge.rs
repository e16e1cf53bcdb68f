//! Turns the bridge step into a bridge with exactly one address and MTU, whatever was there before (R13).
use std::net::Ipv4Addr;

use anyhow::Result;
use ipnet::Ipv4Net;
use netlink_packet_route::link::{InfoKind, LinkAttribute};

use super::network;
use kscratch_netlink::Netlink;

/// Makes the bridge or corrects the one that is there, and brings it up. Ports of a bridge that is there stay.
///
/// # Errors
/// The kernel refuses; the chain says which of the steps.
pub fn ensure(netlink: &mut Netlink, name: &str, address: Ipv4Net, mtu: u32) -> Result<()> {
    let mac = mac(address.addr());
    match network::link(netlink, name)? {
        Some(link) if link.bridge => {
            let mut wrong = Vec::new();
            if link.mac != mac {
                wrong.push(LinkAttribute::Address(mac.to_vec()));
            }
            if link.mtu != mtu {
                wrong.push(LinkAttribute::Mtu(mtu));
            }
            if !wrong.is_empty() {
                network::set_link(netlink, link.index, wrong, false)?;
            }
        }
        other => {
            if other.is_some() {
                network::remove_link(netlink, name)?;
            }
            network::make_link(netlink, name, InfoKind::Bridge, mac, mtu)?;
        }
    }
    network::set_only_address(netlink, name, address)?;
    network::link_up(netlink, name, None)?;
    Ok(())
}

/// A bridge without a hardware address of its own takes that of its lowest port, and changes it when pods come and go: the
/// pods' neighbour tables would point nowhere. Locally administered, from the address, as CNI's bridge plugin did.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}
