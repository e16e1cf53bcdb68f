//! The shape of `[network.links]`: each card, bond, VLAN and bridge of a machine, and which addresses and routes it has.
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::address::Mac;

/// One link. Without `bond`, `vlan` and `bridge` it is a network card: the one of the table's name, or the one that has `mac`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Link {
    /// Hardware address of the card. Without it, the card is the one that the kernel calls as the table is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub mac: Option<Mac>,
    /// Makes the link: several cards as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bond: Option<Bond>,
    /// Makes the link: one network of several on another link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// Makes the link: a switch between its members and this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
    /// Whether it asks for an IPv4 address by DHCP. Default false.
    pub dhcp4: bool,
    /// Whether it asks for an IPv6 address by DHCPv6, which gives no routes: `accept_ra` takes those. Default false.
    // Left out where it is false: images from before it would refuse the metadata.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dhcp6: bool,
    /// Whether it makes itself IPv6 addresses and routes of what routers announce (SLAAC). Default: true with `dhcp6`, else what the kernel does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_ra: Option<bool>,
    /// Its fixed addresses with the prefix lengths of their networks, IPv4 and IPv6. The first IPv4 address comes first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// Its routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// MTU in bytes, 576 to 65535. Default: what the link has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 576, "maximum" = 65535))]
    pub mtu: Option<u32>,
    /// Metric of the routes that DHCP brings: of two, the smaller is preferred. Default: 100 on the first link with DHCP, 101 on the second, and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 4_294_967_295_u32))]
    pub metric: Option<u32>,
    /// Whether the node's address is of this link. Default: the link with the default route.
    pub primary: bool,
    /// Whether the machine boots without waiting for this link's lease, unless it is a cluster's machine and has no other address. Default false.
    pub optional: bool,
}

impl Link {
    /// Links whose packets this one carries, or is carried by.
    pub fn below(&self) -> impl Iterator<Item = &str> {
        let members =
            self.bond.iter().map(|bond| &bond.members).chain(self.bridge.iter().map(|bridge| &bridge.members));
        let over = self.vlan.iter().map(|vlan| vlan.over.as_str());
        members.flatten().map(String::as_str).chain(over)
    }

    /// Links that are members of this one: they have no addresses of their own.
    pub fn members(&self) -> &[String] {
        let bond = self.bond.as_ref().map(|bond| bond.members.as_slice());
        bond.or(self.bridge.as_ref().map(|bridge| bridge.members.as_slice())).unwrap_or_default()
    }

    /// Whether it takes what routers announce; `None` where that is left to the kernel.
    pub fn announced(&self) -> Option<bool> {
        self.accept_ra.or(self.dhcp6.then_some(true))
    }

    /// Whether init makes it, as opposed to a card, which is there or not.
    pub fn is_made(&self) -> bool {
        self.bond.is_some() || self.vlan.is_some() || self.bridge.is_some()
    }
}

/// A route of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Route {
    /// Which addresses. Default: all of the gateway's family, which makes it a default route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub destination: Option<IpNet>,
    /// Through which neighbour. Without it, the destination is on the link itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub gateway: Option<IpAddr>,
    /// Of two routes to the same destination, the one with the smaller metric is preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 4_294_967_295_u32))]
    pub metric: Option<u32>,
}

impl Route {
    /// Which addresses it leads to, the default filled in. `None` where it names neither destination nor gateway, which the parser refuses.
    pub fn leads_to(&self) -> Option<IpNet> {
        let all = |gateway: IpAddr| match gateway {
            IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
        };
        self.destination.or(self.gateway.map(all))
    }
}

/// Several cards as one link (the kernel's bonding.rst).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Bond {
    /// Its cards, by the names of their tables.
    #[schemars(length(min = 1))]
    pub members: Vec<String>,
    /// How they share the work. Default `balance-rr`.
    #[schemars(default)]
    pub mode: BondMode,
    /// Milliseconds between two looks whether the members have their carriers, 1 to 10000. Default 100, where there is no `arp_interval`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default = "default_miimon", extend("minimum" = 1, "maximum" = 10_000))]
    pub miimon: Option<u32>,
    /// Milliseconds between two questions (ARP) whether the members lead to `arp_targets`, 1 to 10000, in the place of `miimon`; with `balance-rr`,
    /// `active-backup`, `balance-xor` and `broadcast`. A member that hears nothing is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 10_000))]
    pub arp_interval: Option<u32>,
    /// IPv4 addresses that are asked for, at most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Vec<String>", extend("maxItems" = MOST_ARP_TARGETS))]
    pub arp_targets: Vec<Ipv4Addr>,
    /// How often the switch is to send its messages; with `802.3ad` alone. Default `slow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacp_rate: Option<LacpRate>,
    /// What tells which member sends a packet; with `balance-xor`, `802.3ad` and `balance-tlb`. Default `layer2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_policy: Option<HashPolicy>,
    /// The member that is used while it can be; with `active-backup`, `balance-tlb` and `balance-alb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
}

/// One network of several that share a link (IEEE 802.1Q).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Vlan {
    /// The link that carries it, by the name of its table.
    pub over: String,
    /// Its number, 1 to 4094.
    #[schemars(extend("minimum" = 1, "maximum" = 4094))]
    pub id: u16,
}

/// A switch between its members and this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Bridge {
    /// Its links, by the names of their tables.
    #[schemars(length(min = 1))]
    pub members: Vec<String>,
    /// Whether it speaks the spanning tree protocol, which keeps a new port silent for half a minute. Default false.
    #[schemars(default)]
    pub stp: bool,
}

/// A word of role metadata that the kernel has a number for.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal, $word:literal;)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
        pub enum $name {
            $($(#[$doc])* #[schemars(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them, in the kernel's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that role metadata, and the kernel, have for it.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The kernel's number (linux/if_bonding.h).
            #[must_use]
            pub fn number(self) -> u8 {
                match self { $(Self::$variant => $number),+ }
            }

            /// By its word, or by its number as module parameters take it.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.word() == word || one.number().to_string() == word)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}

words! {
    /// How a bond's members share the work.
    #[derive(Default)]
    BondMode {
        /// One packet after the other.
        #[default]
        BalanceRr = 0, "balance-rr";
        /// One works, the others wait.
        ActiveBackup = 1, "active-backup";
        /// By a packet's addresses.
        BalanceXor = 2, "balance-xor";
        /// All send everything.
        Broadcast = 3, "broadcast";
        /// As agreed with the switch (LACP).
        Lacp = 4, "802.3ad";
        /// By how busy they are, when sending.
        BalanceTlb = 5, "balance-tlb";
        /// By how busy they are, in both directions.
        BalanceAlb = 6, "balance-alb";
    }
}

words! {
    /// How often a bond's switch is to send its messages.
    LacpRate {
        /// Every 30 seconds.
        Slow = 0, "slow";
        /// Every second.
        Fast = 1, "fast";
    }
}

words! {
    /// What tells which member of a bond sends a packet.
    HashPolicy {
        /// Hardware addresses.
        Layer2 = 0, "layer2";
        /// IP addresses and ports.
        Layer3And4 = 1, "layer3+4";
        /// Hardware and IP addresses.
        Layer2And3 = 2, "layer2+3";
        /// Hardware and IP addresses, inside of tunnels too.
        Encap2And3 = 3, "encap2+3";
        /// IP addresses and ports, inside of tunnels too.
        Encap3And4 = 4, "encap3+4";
        /// VLAN and the sender's hardware address.
        VlanAndSource = 5, "vlan+srcmac";
    }
}

impl BondMode {
    /// Whether members choose by a hash.
    #[must_use]
    pub fn hashes(self) -> bool {
        matches!(self, Self::BalanceXor | Self::Lacp | Self::BalanceTlb)
    }

    /// Whether members can be watched by ARP (bonding.rst, `arp_interval`).
    #[must_use]
    pub fn asks(self) -> bool {
        matches!(self, Self::BalanceRr | Self::ActiveBackup | Self::BalanceXor | Self::Broadcast)
    }

    /// Whether one member can be preferred.
    #[must_use]
    pub fn has_primary(self) -> bool {
        matches!(self, Self::ActiveBackup | Self::BalanceTlb | Self::BalanceAlb)
    }
}

/// Milliseconds between two looks at the members' carriers, where the metadata names none.
pub const DEFAULT_MIIMON: u32 = 100;

/// Whom a bond asks for by ARP, at most (`BOND_MAX_ARP_TARGETS` of net/bonding.h).
pub(crate) const MOST_ARP_TARGETS: usize = 16;

fn default_miimon() -> Option<u32> {
    Some(DEFAULT_MIIMON)
}
