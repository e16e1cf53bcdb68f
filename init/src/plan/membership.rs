//! Decides with which certificate a node's kubelet goes to its cluster: that of the name that it has now, wherever that lies, or one that it joins for.
use std::collections::BTreeSet;

use kscratch_metadata::{Role, RoleMetadata};

use super::clusterca::{self, Change};
use super::{PlanError, Step};
use crate::facts::Facts;

/// Certificate and key of the kubelet as a client, which it keeps and renews itself (client-go `certificate_store.go`).
pub const CLIENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// The name that the kubelet was started with last, and so that of its certificate. On state.
pub const REMEMBERED_NAME: &str = "/var/lib/kscratch/node-name";
/// What the certificates that are put aside are called, in the same folder: the kubelet's is a link, which is good there alone. The name stands
/// between the two.
pub const PUT_ASIDE: (&str, &str) = ("/var/lib/kubelet/pki/put-aside-", ".pem");

/// Where the certificate of a name is put aside.
#[must_use]
pub fn put_aside(name: &str) -> String {
    let (before, after) = PUT_ASIDE;
    format!("{before}{name}{after}")
}

/// What there is to be done for the kubelet to have the right certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    /// The cluster's CA.
    ca: String,
    /// What becomes of the certificates of another cluster, before all else.
    change: Change,
    /// The name that it joined under, where that is another one: its certificate is put aside.
    left: Option<String>,
    /// It had this name before, and gets that certificate back.
    returns: bool,
    /// It has a certificate of its name then; else it joins.
    pub joined: bool,
}

impl Membership {
    /// Of a node called `name`; nothing is to be done on masters, which make their certificates themselves, and on machines that stand alone.
    ///
    /// # Errors
    /// It has no certificate of that name, and no token to get one with.
    pub fn of(metadata: &RoleMetadata, facts: &Facts, name: &str) -> Result<Option<Self>, PlanError> {
        let Some(ca) = metadata.cluster.as_ref().and_then(|cluster| cluster.ca.clone()) else {
            return Ok(None);
        };
        if metadata.role != Role::Node {
            return Ok(None);
        }
        let change = clusterca::change(metadata, facts);
        let facts = &clusterca::changed(facts, change);
        let left = facts.node_name.as_ref().filter(|last| facts.joined && *last != name).cloned();
        let stays = facts.joined && left.is_none();
        let returns = !stays && facts.put_aside.contains(name);
        if !stays && !returns && metadata.join.token.is_none() {
            return Err(match left {
                Some(joined) => PlanError::Renamed { joined, name: name.to_owned() },
                None if change == Change::Leave => PlanError::OfAnotherCluster,
                None => PlanError::NoToken,
            });
        }
        Ok(Some(Self { ca, change, left, returns, joined: stays || returns }))
    }

    /// Does it, and tells it where there is something to tell.
    pub fn steps(&self, name: &str) -> Vec<Step> {
        let mut steps: Vec<Step> = self.words(name).map(Step::Note).into_iter().collect();
        steps.push(Step::ClusterCa { ca: self.ca.clone(), change: self.change });
        let (name, left) = (name.to_owned(), self.left.clone());
        steps.push(Step::NodeName { name, left, returns: self.returns });
        steps
    }

    fn words(&self, name: &str) -> Option<String> {
        let another = match self.change {
            Change::None => None,
            Change::Leave => Some(
                "this machine joined another cluster (its CA is not in cluster.ca): its certificates of that are put aside, and it joins this cluster with its token",
            ),
            Change::Return => {
                Some("this machine is back from another cluster: it takes up the certificates that it had in this one")
            }
        };
        if let Some(words) = another {
            return Some(words.to_owned());
        }
        let left = match &self.left {
            Some(left) => format!("this machine joined its cluster as {left} and is called {name} now: "),
            None if self.returns => format!("this machine is called {name} again: "),
            None => return None,
        };
        let next = if self.returns {
            format!("it takes up the certificate that it had as {name}")
        } else {
            format!("it joins again, as {name}, with its token")
        };
        let rest = self.left.as_ref().map_or_else(String::new, |left| {
            format!("; the certificate of {left} is put aside, and the Node {left} stays until somebody deletes it (kubectl delete node {left})")
        });
        Some(format!("{left}{next}{rest}"))
    }
}

/// Names that the machine has joined this cluster under and does not have now.
pub(super) fn earlier(metadata: &RoleMetadata, facts: &Facts, name: &str) -> BTreeSet<String> {
    let facts = clusterca::changed(facts, clusterca::change(metadata, facts));
    let last = facts.node_name.filter(|_| facts.joined);
    facts.put_aside.into_iter().chain(last).filter(|earlier| earlier != name).collect()
}

#[cfg(test)]
mod tests {
    use kscratch_metadata::RoleMetadata;

    use super::{Membership, earlier};
    use crate::facts::{Aside, Facts};
    use crate::plan::tests::{CA, OTHER, cluster, facts};

    type Words<'a> = &'a [&'a str];
    /// Whether it joined, names that are put aside, the CA beside the certificates and beside those put aside; then what it comes to with a token and without.
    type Row<'a> = (bool, Words<'a>, [Option<&'a str>; 2], Words<'a>, Words<'a>);

    /// A machine that joined as `joined` (or did not), ran last as `last`, and put certificates of other names aside.
    fn machine(joined: bool, last: Option<&str>, put_aside: &[&str]) -> Facts {
        let put_aside = put_aside.iter().map(|name| (*name).to_owned()).collect();
        Facts { joined, node_name: last.map(str::to_owned), put_aside, ..facts() }
    }

    fn tokenless() -> RoleMetadata {
        let mut metadata = cluster("");
        metadata.join.token = None;
        metadata
    }

    #[test]
    fn which_certificate_the_node_n2_has() {
        let renamed = "this machine joined its cluster as n1 and is called n2 now";
        let tail = "; the certificate of n1 is put aside, and the Node n1 stays until somebody deletes it (kubectl delete node n1)";
        let joins = format!("note {renamed}: it joins again, as n2, with its token{tail}");
        let swaps = format!("note {renamed}: it takes up the certificate that it had as n2{tail}");
        let again = "note this machine is called n2 again: it takes up the certificate that it had as n2";
        let none = "there is no join.token, and this machine has not joined the cluster before";
        let stranded = format!("{renamed}, and there is no join.token to join again with");
        let [named, left, back, both] = [
            "node name n2",
            "node name n2, the certificate of n1 put aside",
            "node name n2, its own certificate taken back",
            "node name n2, the certificate of n1 put aside, its own certificate taken back",
        ];
        // (joined, last name, put aside), then what it comes to with a token and without.
        let rows: [(bool, Option<&str>, Words<'_>, Words<'_>, Words<'_>); 10] = [
            (false, None, &[], &[named], &[none]),
            (false, Some("n1"), &[], &[named], &[none]),
            (false, Some("n2"), &["n1"], &[named], &[none]),
            (false, Some("n1"), &["n2"], &[again, back], &[again, back]),
            (false, Some("n2"), &["n1", "n2"], &[again, back], &[again, back]),
            // An earlier version remembered no name.
            (true, None, &[], &[named], &[named]),
            (true, Some("n2"), &[], &[named], &[named]),
            (true, Some("n2"), &["n1", "n2"], &[named], &[named]),
            (true, Some("n1"), &["n0"], &[&joins, left], &[&stranded]),
            (true, Some("n1"), &["n2"], &[&swaps, both], &[&swaps, both]),
        ];
        for (joined, last, put_aside, with_token, without) in rows {
            let facts = machine(joined, last, put_aside);
            for (metadata, want) in [(cluster(""), with_token), (tokenless(), without)] {
                let mut lines = outcome(&metadata, &facts);
                lines.retain(|line| line != "cluster's CA remembered");
                assert_eq!(lines, want, "{joined} {last:?} {put_aside:?}");
            }
        }
    }

    /// The same with certificates of a cluster whose CA is another.
    fn of_another(facts: Facts) -> Facts {
        Facts { cluster_ca: Some(OTHER.to_owned()), ..facts }
    }

    #[test]
    fn certificates_of_another_cluster_are_none() {
        let note = "note this machine joined another cluster (its CA is not in cluster.ca): its certificates of that are put aside, and it joins this cluster with its token";
        let puts_aside = "cluster's CA remembered, certificates of another cluster put aside";
        let returns =
            "note this machine is back from another cluster: it takes up the certificates that it had in this one";
        let takes_back = "cluster's CA remembered, certificates of this cluster taken back";
        let (remembers, named) = ("cluster's CA remembered", "node name n2");
        let none = "there is no join.token, and this machine has not joined the cluster before";
        let stranded = "this machine joined another cluster (its CA is not in cluster.ca), and there is no join.token to join this one with";
        let rows: [Row<'_>; 6] = [
            (true, &[], [Some(CA), None], &[remembers, named], &[remembers, named]),
            (true, &[], [Some(OTHER), None], &[note, puts_aside, named], &[stranded]),
            (false, &["n2"], [Some(OTHER), None], &[note, puts_aside, named], &[stranded]),
            (false, &[], [Some(OTHER), None], &[remembers, named], &[none]),
            (true, &[], [Some(OTHER), Some(CA)], &[returns, takes_back, named], &[returns, takes_back, named]),
            (false, &[], [Some(OTHER), Some(CA)], &[returns, takes_back, named], &[returns, takes_back, named]),
        ];
        for (joined, put_aside, [ca, aside], with_token, without) in rows {
            let of = |ca: Option<&str>| ca.map(str::to_owned);
            let aside = Aside { cluster_ca: of(aside), joined: true, ..Aside::default() };
            let facts = Facts { cluster_ca: of(ca), aside, ..machine(joined, Some("n2"), put_aside) };
            for (metadata, want) in [(cluster(""), with_token), (tokenless(), without)] {
                assert_eq!(outcome(&metadata, &facts), want, "{joined} {put_aside:?} {ca:?}");
            }
        }
        let moved = of_another(machine(true, Some("n1"), &["n2"]));
        let membership = Membership::of(&cluster(""), &moved, "n2").unwrap().unwrap();
        assert!(!membership.joined && !membership.returns && membership.left.is_none(), "{membership:?}");
    }

    /// What is done for n2's certificate, or why nothing is.
    fn outcome(metadata: &RoleMetadata, facts: &Facts) -> Vec<String> {
        match Membership::of(metadata, facts, "n2") {
            Ok(membership) => membership.unwrap().steps("n2").iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn it_has_a_certificate_or_joins() {
        for (joined, last, put_aside, want) in [
            (false, None, &[][..], false),
            (true, Some("n2"), &[], true),
            (true, Some("n1"), &[], false),
            (true, Some("n1"), &["n2"], true),
            (false, Some("n2"), &["n2"], true),
        ] {
            let membership = Membership::of(&cluster(""), &machine(joined, last, put_aside), "n2").unwrap().unwrap();
            assert_eq!(membership.joined, want, "{joined} {last:?} {put_aside:?}");
        }
    }

    #[test]
    fn only_a_node_of_a_cluster_has_a_certificate_to_care_for() {
        assert_eq!(Membership::of(&RoleMetadata::standalone(), &facts(), "n2"), Ok(None));
        let mut master = cluster("");
        master.role = kscratch_metadata::Role::Master;
        assert_eq!(Membership::of(&master, &machine(true, Some("n1"), &[]), "n2"), Ok(None));
    }

    #[test]
    fn earlier_names() {
        let all = |facts: &Facts| earlier(&cluster(""), facts, "n2").into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(all(&machine(true, Some("n1"), &["n0", "n2"])), "n0 n1");
        assert_eq!(all(&machine(false, Some("n1"), &["n0", "n2"])), "n0", "it has never joined as n1");
        assert_eq!(all(&machine(true, Some("n2"), &[])), "");
        assert_eq!(all(&of_another(machine(true, Some("n1"), &["n0"]))), "", "those are another cluster's");
    }
}
