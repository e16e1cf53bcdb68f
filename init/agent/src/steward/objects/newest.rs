//! Decides which objects a master leaves to one of a newer release: two that disagree would write them anew in turns.
use super::kinds::Kind;
use crate::node::Node;

/// Whether an object is the same whoever of the masters writes it, and not about a machine or a token.
pub fn is_shared(kind: Kind) -> bool {
    !["Node", "Secret"].contains(&kind.name)
}

/// A master that is alive and newer than this one, of the Nodes of masters. Whose release cannot be read is not newer.
pub fn newer<'a>(own: &str, masters: &'a [Node]) -> Option<&'a Node> {
    let own = release(own)?;
    masters.iter().filter(|node| node.alive()).find(|node| release(node.version()).is_some_and(|other| other > own))
}

/// `v1.37.2` and `1.37.2-rc.1` as numbers.
fn release(version: &str) -> Option<[u32; 3]> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Option<Vec<u32>> = plain.split('.').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{is_shared, newer};
    use crate::node::Node;
    use crate::steward::objects::kinds::Kind;

    fn master(name: &str, version: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "status": { "conditions": [{ "type": "Ready", "status": ready }], "nodeInfo": { "kubeletVersion": version } },
        }))
        .unwrap()
    }

    #[test]
    fn a_newer_master_that_is_alive_has_the_word() {
        let check = |own: &str, version: &str, ready: &str, want: bool| {
            let masters = [master("m1", own, "True"), master("m2", version, ready)];
            assert_eq!(newer(own, &masters).map(Node::name), want.then_some("m2"), "{own} {version} {ready}");
        };
        check("1.37.2", "v1.37.2", "True", false);
        check("1.37.2", "v1.37.10", "True", true);
        check("v1.37.2", "v1.38.0", "False", true);
        check("1.37.2", "v1.38.0", "Unknown", false);
        check("1.37.2", "v1.36.9", "True", false);
        check("1.37.2", "", "True", false);
        check("1.37.2", "v1.x.2", "True", false);
        check("unknown", "v1.38.0", "True", false);
        check("1.37.2-rc.1", "v1.37.2+kscratch", "True", false);
    }

    #[test]
    fn what_is_about_a_machine_or_a_token_is_everybodys_own() {
        let shared = |version: &str, kind: &str| is_shared(Kind::find(version, kind).unwrap());
        assert!(shared("apps/v1", "Deployment") && shared("v1", "ConfigMap"));
        assert!(!shared("v1", "Node") && !shared("v1", "Secret"));
    }
}
