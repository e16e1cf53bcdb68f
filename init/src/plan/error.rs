//! Says why no plan can be made of a machine's metadata and facts, and what would help.
use ipnet::Ipv4Net;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A bond, VLAN or bridge that is to have the name of a card.
    #[error("network.links.{link} is a link to be made, and the machine has a network card of that name")]
    NameOfCard {
        /// The name.
        link: String,
    },
    /// A fixed address, but the machine has several links and none is named.
    #[error("network.static does not say which link gets {address}; the machine has {}", list(.known))]
    WhichLink {
        /// The fixed address.
        address: Ipv4Net,
        /// `name (mac)` of each link.
        known: Vec<String>,
    },
    /// A range of the metadata overlaps the network that the machine is on.
    #[error("{name} {range} overlaps {address}, the network of {link}")]
    Overlap {
        /// Field of the metadata.
        name: &'static str,
        /// Its value.
        range: Ipv4Net,
        /// The machine's address there.
        address: Ipv4Net,
        /// The link.
        link: String,
    },
    /// The image was built for another role than the metadata gives the machine.
    #[error("the metadata says role {metadata}, this image was built for role {image}")]
    WrongRole {
        /// Role in the metadata.
        metadata: &'static str,
        /// Role in the image's release file.
        image: String,
    },
    /// The image lacks a part of the control plane.
    #[error("this image brings no image of {component}")]
    NoImage {
        /// Name of the component.
        component: &'static str,
    },
    /// A master whose `/var` is memory: etcd would begin another cluster there, or take the place of the member whose data are on the disk.
    #[error("the control plane is not started: the cluster's data are on the state partition, which cannot be used")]
    NoState,
    /// A master of one cluster with the data of another: it would serve the one's objects under the other's keys.
    #[error(
        "the control plane is not started: etcd on this machine has the data of another cluster (its CA is not in etcd_ca of control_plane.secrets)"
    )]
    EtcdOfAnotherCluster,
    /// A master whose etcd's data are on a disk that is not named any more: etcd would begin anew on state.
    #[error(
        "the control plane is not started: etcd's data are on a disk of their own (partition {partition}), and the metadata names none"
    )]
    EtcdElsewhere {
        /// GUID of the partition.
        partition: String,
    },
    /// A master without the secrets of a cluster; the boot makes them before it plans.
    #[error("this master has no cluster: the metadata lacks cluster.ca or control_plane.secrets")]
    NoIdentity,
    /// The metadata gives this master another address than it gives etcd's member of the same name.
    #[error("control_plane.etcd.members gives {name} the address {listed}, but this machine has {own}")]
    OtherMember {
        /// Name of the node.
        name: String,
        /// Address in the list.
        listed: std::net::Ipv4Addr,
        /// The machine's own.
        own: std::net::Ipv4Addr,
    },
    /// A cluster to join for the first time, and nothing to prove that the machine may.
    #[error("there is no join.token, and this machine has not joined the cluster before")]
    NoToken,
    /// The machine is a node of another cluster, and there is nothing to join this one with.
    #[error(
        "this machine joined another cluster (its CA is not in cluster.ca), and there is no join.token to join this one with"
    )]
    OfAnotherCluster,
    /// The machine joined under another name, and there is nothing to prove that it may be a node of this one.
    #[error(
        "this machine joined its cluster as {joined} and is called {name} now, and there is no join.token to join again with"
    )]
    Renamed {
        /// The name that its certificate is for.
        joined: String,
        /// The name that it has now.
        name: String,
    },
    /// A manifest of the metadata has the name of one of the image.
    #[error("the manifest {name:?} stands in the metadata and in the image")]
    TwoManifests {
        /// Name of the file.
        name: String,
    },
}

impl PlanError {
    /// What to do about it, for the `hint:` line.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NameOfCard { .. } => "give the table, and those that name it, another name",
            Self::WhichLink { .. } => "set network.interface to one of these, by name or hardware address",
            Self::Overlap { .. } => "choose other ranges for the cluster, or another network for its machines",
            Self::WrongRole { .. } => "correct `role` in the metadata, or build an image for that role",
            Self::NoImage { .. } => "build the image again: kscratch-image build --role master",
            Self::NoState => "the phase `state` says what is wrong with it",
            Self::EtcdOfAnotherCluster => {
                "give it the metadata of the cluster that it was a master of, or write its image anew to its disk, and wipe etcd's own where it has one: what that cluster's etcd has here is lost then"
            }
            Self::EtcdElsewhere { .. } => {
                "name that disk again: [[disks]] with for = \"etcd\"; or write the machine's image anew to its disk, and etcd has no data then"
            }
            Self::NoIdentity => "let `kscratch-image cluster metadata` write the metadata of this machine",
            Self::OtherMember { .. } => "correct the list, or give the machine that address with network.static",
            Self::NoToken | Self::OfAnotherCluster => {
                "make a token with `kscratch-image cluster token create` and put it into secrets.toml as join.token"
            }
            Self::Renamed { .. } => {
                "give it its old name again (node.name), or make a token with `kscratch-image cluster token create` and put it into secrets.toml as join.token"
            }
            Self::TwoManifests { .. } => "give the manifest in the metadata another name",
        }
    }

    /// The error with what helps against it, in one text.
    #[must_use]
    pub fn with_hint(self) -> anyhow::Error {
        anyhow::anyhow!("{self}; {}", self.hint())
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
