//! Decides whether the kubelet's certificates are this cluster's, by the CA that lies beside them: those of another cluster are put aside, and taken back with its CA.
use kscratch_metadata::{Role, RoleMetadata, share_a_key};

use crate::facts::Facts;

/// All of the kubelet's certificates with what is remembered of them, and where they are put aside when they are another cluster's.
pub const PKI: (&str, &str) = ("/var/lib/kubelet/pki", "/var/lib/kubelet/pki-of-another-cluster");
/// The CA of the cluster that the certificates of a folder are of, in that folder: it goes where they go.
pub const CLUSTER_CA: &str = "kscratch-cluster-ca.crt";

/// What becomes of the kubelet's certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing: they are this cluster's, or there are none.
    None,
    /// They are another cluster's, and are put aside.
    Leave,
    /// They are another cluster's, or none, and this cluster's, which were put aside, take their place.
    Return,
}

/// What is to be done on this machine; nothing on masters, which make their certificates themselves.
pub(super) fn change(metadata: &RoleMetadata, facts: &Facts) -> Change {
    let ca = metadata.cluster.as_ref().and_then(|cluster| cluster.ca.as_deref());
    match (metadata.role, ca) {
        (Role::Node, Some(ca)) => by_ca(facts, ca),
        _ => Change::None,
    }
}

/// By their keys: a CA that was renewed may have another certificate. One with another key stands beside the old one in the metadata for as long as
/// there are certificates of that. A CA that cannot be read says nothing.
fn by_ca(facts: &Facts, ca: &str) -> Change {
    let is_of = |other: &Option<String>| share_a_key(other.as_ref()?, ca);
    if is_of(&facts.cluster_ca).unwrap_or(true) {
        Change::None
    } else if is_of(&facts.aside.cluster_ca) == Some(true) {
        Change::Return
    } else if facts.joined || !facts.put_aside.is_empty() {
        Change::Leave
    } else {
        Change::None
    }
}

/// The same facts, as they are once that is done.
pub(super) fn changed(facts: &Facts, change: Change) -> Facts {
    let mut facts = facts.clone();
    match change {
        Change::None => return facts,
        Change::Leave => (facts.joined, facts.put_aside) = (false, Default::default()),
        Change::Return => {
            facts.joined = facts.aside.joined;
            facts.put_aside = std::mem::take(&mut facts.aside.put_aside);
        }
    }
    // The other cluster's.
    (facts.node_name, facts.pod_range) = (None, None);
    facts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Change, change, changed};
    use crate::facts::{Aside, Facts};
    use crate::plan::tests::{CA, OTHER, cluster, facts};

    fn machine(joined: bool, ca: Option<&str>, aside: Option<&str>) -> Facts {
        let of = |ca: Option<&str>| ca.map(str::to_owned);
        let aside = Aside { cluster_ca: of(aside), joined: aside.is_some(), put_aside: BTreeSet::new() };
        Facts { joined, cluster_ca: of(ca), aside, ..facts() }
    }

    #[test]
    fn whose_certificates_are_there_and_aside() {
        let both = format!("{OTHER}{CA}");
        let same = format!("a comment\r\n{}", CA.replace('\n', "\r\n"));
        for (joined, ca, aside, want) in [
            (false, None, None, Change::None),
            // An earlier version remembered none.
            (true, None, None, Change::None),
            (true, Some(CA), None, Change::None),
            (true, Some(same.as_str()), None, Change::None),
            (true, Some(both.as_str()), None, Change::None),
            (true, Some(CA), Some(OTHER), Change::None),
            (true, Some(OTHER), None, Change::Leave),
            (true, Some(OTHER), Some(OTHER), Change::Leave),
            (true, Some("damaged"), Some(CA), Change::None),
            // It only ever tried to join that one.
            (false, Some(OTHER), None, Change::None),
            (false, Some(OTHER), Some(CA), Change::Return),
            (true, Some(OTHER), Some(CA), Change::Return),
        ] {
            let facts = machine(joined, ca, aside);
            assert_eq!(change(&cluster(""), &facts), want, "{joined} {ca:?} {aside:?}");
            let mut master = cluster("");
            master.role = kscratch_metadata::Role::Master;
            assert_eq!(change(&master, &facts), Change::None);
        }
        let once = Facts { put_aside: ["n0".to_owned()].into(), ..machine(false, Some(OTHER), None) };
        assert_eq!(change(&cluster(""), &once), Change::Leave);
    }

    #[test]
    fn what_a_change_leaves() {
        let before = Facts {
            node_name: Some("n1".to_owned()),
            put_aside: ["n0".to_owned()].into(),
            aside: Aside { cluster_ca: None, joined: true, put_aside: ["n9".to_owned()].into() },
            ..machine(true, None, None)
        };
        let after = |change| {
            let facts = changed(&before, change);
            (facts.joined, facts.node_name, facts.put_aside.into_iter().collect::<String>())
        };
        assert_eq!(after(Change::None), (true, Some("n1".to_owned()), "n0".to_owned()));
        assert_eq!(after(Change::Leave), (false, None, String::new()));
        assert_eq!(after(Change::Return), (true, None, "n9".to_owned()));
    }
}
