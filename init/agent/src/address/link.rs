//! Puts the shared address on this machine's link, takes it away, and tells the neighbours who has it.
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::arp;
use crate::routes::Kernel;

/// The link that the address comes and goes on.
#[derive(Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The address, which it has with no network around it.
    pub address: Ipv4Addr,
}

impl Link {
    /// Puts the address on the link, or gives it more time there. The kernel takes it away when that is over, whatever has become of this process.
    ///
    /// # Errors
    /// There is no such link, or the kernel refuses.
    pub fn put(&self, lasting: Duration) -> Result<()> {
        let mut kernel = Kernel::open()?;
        let link = kernel.link(&self.name)?;
        kernel.lend_address(link, self.address, lasting)
    }

    /// Takes the address from the link; says whether it was there.
    ///
    /// # Errors
    /// There is no such link, or the kernel refuses.
    pub fn remove(&self) -> Result<bool> {
        let mut kernel = Kernel::open()?;
        let link = kernel.link(&self.name)?;
        let there = kernel.addresses(link)?.contains(&Ipv4Net::from(self.address));
        if there {
            kernel.remove_address(link, self.address)?;
        }
        Ok(there)
    }

    /// Tells all neighbours that the address is this machine's.
    ///
    /// A packet socket's address (`sockaddr_ll`) cannot be made up without `unsafe`, but the kernel's list of links has one of each, with its hardware address.
    ///
    /// # Errors
    /// There is no such link, it is no Ethernet, or the kernel refuses.
    pub fn announce(&self) -> Result<()> {
        let action = || format!("telling the neighbours on {} of {}", self.name, self.address);
        let (place, mac) = self.hardware().with_context(action)?;
        let frame = arp::announcement(mac, self.address);
        // Of protocol 0: it receives nothing.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).with_context(action)?;
        sendto(socket.as_raw_fd(), &frame, &place, MsgFlags::empty()).with_context(action)?;
        Ok(())
    }

    fn hardware(&self) -> Result<(LinkAddr, [u8; 6])> {
        let links = getifaddrs().context("listing links")?.filter(|link| link.interface_name == self.name);
        let place = links.filter_map(|link| link.address?.as_link_addr().copied()).next();
        let place = place.with_context(|| format!("there is no link {}", self.name))?;
        let mac = place.addr().with_context(|| format!("{} has no hardware address", self.name))?;
        Ok((place, mac))
    }
}
