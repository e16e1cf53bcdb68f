//! Decides which objects a master leaves to one of a newer release: two that disagree would write them anew in turns.
use super::kinds::Kind;
use crate::node::Node;

/// Whether an object is the same whoever of the masters writes it, and not about a machine or a token.
pub fn is_shared(kind: Kind) -> bool {
    !["Node", "Secret"].contains(&kind.name)
}

/// A master that is alive and newer than this one, of the Nodes of masters, and by what it is: Kubernetes' release (`own`), or kscratch's where that is
/// the same, as what a steward writes is of both. Whose release cannot be read is not newer.
pub fn newer<'a>(own: &str, masters: &'a [Node]) -> Option<(&'a Node, &'a str)> {
    let (kubernetes, kscratch) = (release(own)?, release(OWN)?);
    masters.iter().filter(|node| node.alive()).find_map(|node| {
        let other = release(node.version())?;
        let image = || node.image().strip_prefix("kscratch ").and_then(release).is_some_and(|image| image > kscratch);
        if other > kubernetes {
            Some((node, node.version()))
        } else {
            (other == kubernetes && image()).then(|| (node, node.image()))
        }
    })
}

/// kscratch's own release, as os-release has it too.
const OWN: &str = env!("CARGO_PKG_VERSION");

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

    use super::{OWN, is_shared, newer};
    use crate::node::Node;
    use crate::steward::objects::kinds::Kind;

    fn master(name: &str, version: &str, image: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "status": {
                "conditions": [{ "type": "Ready", "status": ready }], "nodeInfo": { "kubeletVersion": version, "osImage": image },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_newer_master_that_is_alive_has_the_word() {
        let check = |own: &str, version: &str, ready: &str, want: bool| {
            let image = format!("kscratch {OWN}");
            let masters = [master("m1", own, &image, "True"), master("m2", version, &image, ready)];
            assert_eq!(
                newer(own, &masters).map(|(node, _)| node.name()),
                want.then_some("m2"),
                "{own} {version} {ready}"
            );
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

    /// An older Kubernetes on a newer kscratch is older: its API server is the one that knows less.
    #[test]
    fn of_one_release_of_kubernetes_the_newer_kscratch_has_the_word() {
        for (version, image, want) in [
            ("v1.37.2", "kscratch 9999.0.0", Some("kscratch 9999.0.0")),
            ("v1.37.3", "kscratch 0.0.1", Some("v1.37.3")),
            ("v1.37.2", "kscratch 0.0.1", None),
            ("v1.37.1", "kscratch 9999.0.0", None),
            ("v1.37.2", "Debian GNU/Linux 13 (trixie)", None),
            ("v1.37.2", "", None),
        ] {
            let masters = [master("m2", version, image, "True")];
            assert_eq!(newer("1.37.2", &masters).map(|(_, by)| by), want, "{version} {image}");
        }
    }

    #[test]
    fn what_is_about_a_machine_or_a_token_is_everybodys_own() {
        let shared = |version: &str, kind: &str| is_shared(Kind::find(version, kind).unwrap());
        assert!(shared("apps/v1", "Deployment") && shared("v1", "ConfigMap"));
        assert!(!shared("v1", "Node") && !shared("v1", "Secret"));
    }
}
