//! Turns the two kinds of leases, DHCP's and DHCPv6's, into one that the boot waits for and the event loop keeps.
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ipnet::IpNet;

use super::network::{Link, lent};
use super::{dhcp, dhcp6};

/// Keeps the lease of one family on one link.
#[expect(clippy::large_enum_variant, reason = "a machine has a few of them, and they are seldom moved")]
pub enum Keeper {
    /// Of an IPv4 address.
    V4(dhcp::Keeper),
    /// Of an IPv6 address.
    V6(dhcp6::Keeper),
}

/// What became of a link's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of that of an IPv4 address.
    V4(dhcp::Change),
    /// Of that of an IPv6 address.
    V6(dhcp6::Change),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(change) => change.fmt(f),
            Self::V6(change) => change.fmt(f),
        }
    }
}

impl Keeper {
    /// The one of DHCP.
    #[must_use]
    pub fn v4(&self) -> Option<&dhcp::Keeper> {
        if let Self::V4(keeper) = self { Some(keeper) } else { None }
    }

    /// The one of DHCPv6.
    #[must_use]
    pub fn v6(&self) -> Option<&dhcp6::Keeper> {
        if let Self::V6(keeper) = self { Some(keeper) } else { None }
    }

    /// Whether it keeps what another one does.
    #[must_use]
    pub fn is_for_same(&self, other: &Self) -> bool {
        self.link() == other.link() && self.v4().is_some() == other.v4().is_some()
    }

    /// Name of the link.
    #[must_use]
    pub fn link(&self) -> &str {
        match self {
            Self::V4(keeper) => keeper.link(),
            Self::V6(keeper) => keeper.link(),
        }
    }

    /// The address that the link has by it.
    #[must_use]
    pub fn address(&self) -> Option<IpNet> {
        match self {
            Self::V4(keeper) => keeper.lease().map(|lease| lease.address.into()),
            Self::V6(keeper) => keeper.lease().map(|lease| lent::whole(lease.address)),
        }
    }

    /// Whether the link could carry packets when it was looked at last.
    #[must_use]
    pub fn has_carrier(&self) -> bool {
        match self {
            Self::V4(keeper) => keeper.has_carrier(),
            Self::V6(keeper) => keeper.has_carrier(),
        }
    }

    /// When [`Keeper::timer`] is wanted at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        match self {
            Self::V4(keeper) => keeper.next_deadline(),
            Self::V6(keeper) => keeper.next_deadline(),
        }
    }

    /// Does what is due.
    pub fn timer(&mut self, now: Duration) -> Vec<Change> {
        match self {
            Self::V4(keeper) => of(keeper.timer(now), Change::V4),
            Self::V6(keeper) => of(keeper.timer(now), Change::V6),
        }
    }

    /// Reads what came.
    pub fn readable(&mut self, now: Duration) -> Vec<Change> {
        match self {
            Self::V4(keeper) => of(keeper.readable(now), Change::V4),
            Self::V6(keeper) => of(keeper.readable(now), Change::V6),
        }
    }

    /// Told of every change of a link: one that comes back may be on another network.
    pub fn link_changed(&mut self, link: &Link, now: Duration) -> Vec<Change> {
        match self {
            Self::V4(keeper) => of(keeper.link_changed(link, now), Change::V4),
            Self::V6(keeper) => of(keeper.link_changed(link, now), Change::V6),
        }
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::V4(keeper) => keeper.as_fd(),
            Self::V6(keeper) => keeper.as_fd(),
        }
    }
}

fn of<C>(changes: Vec<C>, family: fn(C) -> Change) -> Vec<Change> {
    changes.into_iter().map(family).collect()
}

/// Why links have no lease yet.
#[must_use]
pub fn why_none(without: &[&Keeper]) -> String {
    let four: Vec<&dhcp::Keeper> = without.iter().filter_map(|keeper| keeper.v4()).collect();
    let (refused, silent): (Vec<&dhcp::Keeper>, Vec<&dhcp::Keeper>) =
        four.into_iter().partition(|keeper| keeper.refused_by().is_some());
    let mut words: Vec<String> = refused.iter().map(|keeper| keeper.why_none()).collect();
    if !silent.is_empty() {
        let dead = |keeper: &dhcp::Keeper| if keeper.has_carrier() { "" } else { " (it has no carrier)" };
        let links: Vec<String> = silent.iter().map(|keeper| format!("{}{}", keeper.link(), dead(keeper))).collect();
        words.push(format!("no DHCP server answered on {}", links.join(", ")));
    }
    words.extend(without.iter().filter_map(|keeper| keeper.v6()).map(dhcp6::Keeper::why_none));
    words.join("; ")
}
