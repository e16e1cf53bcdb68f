//! What a certificate shall say, as a type that stands in JSON.
use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Days of a leaf certificate where nothing else is asked for; kubeadm's number.
const LEAF_DAYS: u32 = 365;

/// More days than any certificate is asked for: a hundred years.
const MOST_DAYS: u32 = 36_500;

/// Most characters of a common name: those of a kubelet whose node has the longest name that a node may have. RFC 5280, A.1, ends at 64
/// (`ub-common-name`), to which OpenSSL holds only where it writes names itself. Go does not, in which all of Kubernetes is written, nor does kubeadm.
const LONGEST_NAME: usize = "system:node:".len() + 63;

/// What a certificate shall say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Common name of the subject: to an API server, the user's name.
    pub common_name: String,
    /// Organization of the subject, at most one: to an API server, the user's group.
    #[serde(default)]
    pub organizations: Vec<String>,
    /// DNS names under which a server is called.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Addresses under which a server is called.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// What it is good for, at least one.
    pub usages: BTreeSet<Usage>,
    /// Days that it is valid, 1 to 36500.
    #[serde(default = "leaf_days")]
    pub days: u32,
}

fn leaf_days() -> u32 {
    LEAF_DAYS
}

/// What a certificate is good for (extended key usage, RFC 5280, 4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Usage {
    /// A server proves itself to its clients.
    Server,
    /// A client proves itself to a server.
    Client,
}

impl Wanted {
    /// A client's certificate for a year.
    pub fn client(common_name: impl Into<String>, organization: Option<&str>) -> Self {
        Self {
            common_name: common_name.into(),
            organizations: organization.map(str::to_owned).into_iter().collect(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usages: BTreeSet::from([Usage::Client]),
            days: LEAF_DAYS,
        }
    }

    /// Whether such a certificate can be made.
    ///
    /// # Errors
    /// Says what cannot be.
    pub fn check(&self) -> Result<(), Error> {
        let why = if self.common_name.is_empty() {
            "it has no common name"
        } else if self.common_name.chars().count() > LONGEST_NAME {
            "its common name is longer than 75 characters"
        } else if self.organizations.len() > 1 {
            "it has more than one organization"
        } else if self.organizations.iter().any(String::is_empty) {
            "its organization is empty"
        } else if self.usages.is_empty() {
            "it is good for nothing: usages are \"server\" and \"client\""
        } else if self.days == 0 || self.days > MOST_DAYS {
            "its days are not between 1 and 36500"
        } else {
            return Ok(());
        };
        Err(Error::Wanted { name: self.common_name.clone(), why: why.to_owned() })
    }
}
