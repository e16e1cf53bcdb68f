//! A finished [`Tree`] is held against a table of rules: what an image must have, and what must not be in it.
use std::fmt::Write;

use anyhow::{Result, anyhow, bail};

use crate::dockerstore::SEED;
use crate::tree::{Contents, Node, Tree};

pub(crate) mod images;
mod rules;

/// A tree and the way to its bytes.
struct Subject<'a> {
    tree: &'a Tree,
    contents: &'a dyn Contents,
}

impl<'a> Subject<'a> {
    /// The nodes that belong to the machine itself; those of container images are their makers' business.
    fn own(&self) -> impl Iterator<Item = (&'a String, &'a Node)> {
        self.tree.nodes.iter().filter(|(path, _)| !path.starts_with(SEED))
    }
}

/// One rule.
struct Check {
    /// What holds in a good tree.
    name: &'static str,
    /// What goes wrong where it does not hold.
    why: &'static str,
    /// What breaks the rule, a line each. An error means that it could not be found out.
    run: fn(&Subject<'_>) -> Result<Vec<String>>,
}

const CHECKS: [Check; 13] = [
    Check {
        name: "init is there and static",
        why: "the kernel starts nothing else, and starts it before any library is in place",
        run: rules::init,
    },
    Check {
        name: "the programs that init starts are there",
        why: "the node would boot and then not work",
        run: rules::programs,
    },
    Check {
        name: "mount points are there",
        why: "the root is read-only: they cannot be made at boot",
        run: rules::mount_points,
    },
    Check {
        name: "every ELF file's libraries are there",
        why: "a program without one does not start",
        run: rules::libraries,
    },
    Check { name: "every module's needs are there", why: "a module without one does not load", run: rules::modules },
    Check { name: "no link leads nowhere", why: "what opens it fails on the machine", run: rules::links },
    Check {
        name: "every image that the image names is in it",
        why: "its pods would wait for a registry that may not be there",
        run: images::inside,
    },
    Check {
        name: "nothing lends root's rights",
        why: "no user but root exists, so it only helps who broke in",
        run: rules::setuid,
    },
    Check {
        name: "nothing is writable by all",
        why: "a pod that reaches it could change the machine",
        run: rules::world_writable,
    },
    Check { name: "everything belongs to root", why: "the machine knows no other owner", run: rules::owners },
    Check {
        name: "no shell",
        why: "a node is run by its API; who breaks in shall find nothing to work with",
        run: rules::shells,
    },
    Check { name: "no package manager", why: "images are replaced, never changed", run: rules::package_managers },
    Check { name: "every script has its interpreter", why: "it would not start", run: rules::scripts },
];

/// Lines of one broken rule that an error shows.
const SHOWN: usize = 8;

/// Runs every check.
///
/// # Errors
/// All rules that are broken, and apart from them those that could not be checked.
pub fn tree(tree: &Tree, contents: &dyn Contents) -> Result<()> {
    let subject = Subject { tree, contents };
    let (mut failed, mut unknown) = (String::new(), String::new());
    for check in &CHECKS {
        match (check.run)(&subject) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                let _ = writeln!(failed, "failed: {} ({})", check.name, check.why);
                for line in found.iter().take(SHOWN) {
                    let _ = writeln!(failed, "  {line}");
                }
                if found.len() > SHOWN {
                    let _ = writeln!(failed, "  and {} more", found.len() - SHOWN);
                }
            }
            Err(error) => {
                let _ = writeln!(unknown, "could not check: {}: {error:#}", check.name);
            }
        }
    }
    match (failed.trim_end(), unknown.trim_end()) {
        ("", "") => Ok(()),
        ("", unknown) => bail!("{unknown}"),
        (failed, "") => Err(anyhow!("{failed}").context("checking the root tree")),
        (failed, unknown) => Err(anyhow!("{failed}\n{unknown}").context("checking the root tree")),
    }
}

#[cfg(test)]
mod tests;
