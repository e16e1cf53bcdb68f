//! Turns the text of a role metadata file into checked [`RoleMetadata`], or into errors that a person can act on.
mod address;
mod certificate;
mod commandline;
mod console;
mod controlplane;
mod disks;
mod error;
mod identity;
mod install;
mod kubelet;
mod linkrules;
mod links;
mod linksyntax;
mod logs;
mod overlay;
mod parse;
mod rack;
mod rackrules;
mod read;
mod readcontrolplane;
mod readlinks;
mod role;
mod rules;
mod schema;
mod secret;
mod selector;
mod shutdown;
mod syntax;
mod validity;
mod watchdog;

pub use address::{Endpoint, Interface, Mac};
pub use commandline::without_role;
pub use console::{Console, Keys};
pub use controlplane::{BootstrapToken, ControlPlane, ControlPlaneSecrets, Etcd, JOINERS};
pub use disks::{Disk, DiskWords, Purpose, normal_serial, normal_wwn};
pub use error::{Errors, Problem, Source};
pub use identity::{Identity, Uuid};
pub use install::{Install, Then};
pub use linkrules::link_problems;
pub use links::{Bond, BondMode, Bridge, DEFAULT_MIIMON, HashPolicy, LacpRate, Link, Route, Vlan};
pub use logs::{LogProtocol, LogServer, Logs};
pub use parse::{parse, parse_with_secrets};
pub use rack::{Document, Entry, Selected, read, select, select_with_secrets};
pub use role::{
    Cluster, DEFAULT_DNS_DOMAIN, DEFAULT_OPEN_FILES, DEFAULT_POD_RANGE, DEFAULT_SERVICE_RANGE, Docker, Effect, Join,
    Manifest, Mode, Network, Node, ProxyMode, Role, RoleMetadata, Static, Taint, Time,
};
pub use schema::{json_schema, to_toml};
pub use secret::Secret;
pub use selector::Selector;
pub use shutdown::Shutdown;
pub use validity::{Validity, share_a_key, validity};
pub use watchdog::Watchdog;

/// Whether a text can be the name of a link that is made: what the kernel takes, and nothing that kscratch makes itself.
pub fn is_link_name(text: &str) -> bool {
    linksyntax::link_name(text).is_ok()
}

/// Whether a text can be the name of a node: an RFC 1123 subdomain of at most 63 characters.
pub fn is_node_name(text: &str) -> bool {
    syntax::node_name(text).is_ok()
}
