//! A path and a [`Tree`] become the answer to "why is this in the image": every step from the file to the declaration.
use std::fmt::Write;

use anyhow::{Result, anyhow};

use crate::tree::{Content, Kind, Node, Tree};

/// Tells what stands at `path`, what brought it in, and from which artifact; then the same of what needed it.
///
/// # Errors
/// Nothing is there; names that come close are told.
pub fn why(tree: &Tree, path: &str) -> Result<String> {
    let mut out = String::new();
    let mut next = Some(find(tree, path)?);
    let mut told: Vec<String> = Vec::new();
    while let Some(at) = next.take() {
        let Some(node) = tree.nodes.get(&at) else { break };
        let indent = "  ".repeat(told.len());
        let _ = writeln!(out, "{indent}{at}: {}", describe(node));
        let _ = writeln!(out, "{indent}  {}, from {}", node.origin.declaration, node.origin.artifact);
        told.push(at);
        next = needed_by(tree, &node.origin.declaration).filter(|above| !told.contains(above));
    }
    Ok(out)
}

/// The path as the tree has it: links among its folders are followed, a link at its end is not.
fn find(tree: &Tree, path: &str) -> Result<String> {
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder =
        if folder.is_empty() { "/".to_owned() } else { tree.resolve(folder).unwrap_or_else(|| folder.to_owned()) };
    let real = if name.is_empty() { "/".to_owned() } else { format!("{}/{name}", folder.trim_end_matches('/')) };
    if tree.nodes.contains_key(&real) {
        return Ok(real);
    }
    let ending = format!("/{name}");
    let close: Vec<&str> =
        tree.nodes.keys().filter(|other| other.ends_with(&ending)).map(String::as_str).take(5).collect();
    let close = if close.is_empty() { String::new() } else { format!("; there is {}", close.join(", ")) };
    Err(anyhow!("nothing in the image has the path {path}{close}"))
}

fn describe(node: &Node) -> String {
    match &node.kind {
        Kind::Directory => format!("folder {:04o}", node.mode),
        Kind::File(content) => {
            format!("file {:04o}, {} bytes, sha256 {}", node.mode, Content::len(content), content.sha256())
        }
        Kind::Symlink(target) => format!("link to {target}"),
        Kind::CharDevice { major, minor } => format!("character device {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
    }
}

/// The node that a declaration says needed this one.
fn needed_by(tree: &Tree, declaration: &str) -> Option<String> {
    for prefix in ["library of ", "dynamic linker of ", "parent of "] {
        if let Some(path) = declaration.strip_prefix(prefix) {
            return Some(path.to_owned());
        }
    }
    if let Some((_, program)) = declaration.strip_prefix("link ").and_then(|rest| rest.split_once(" of program ")) {
        return tree.resolve(program);
    }
    let module = declaration.strip_prefix("needed by module ")?;
    let is = |path: &&String| {
        path.rsplit('/')
            .next()
            .and_then(|file| file.strip_suffix(".ko"))
            .is_some_and(|name| name.replace('-', "_") == module)
    };
    tree.nodes.keys().find(is).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Origin;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        let mut put = |path: &str, declaration: &str, artifact: &str| {
            let origin = Origin { declaration: declaration.into(), artifact: artifact.into() };
            tree.insert(path, Node::file(b"x".to_vec(), 0o755, origin)).unwrap();
        };
        put("/usr/sbin/nft", "program /usr/sbin/nft", "nftables 1.1 (debian)");
        put("/usr/lib/libnft.so.1", "library of /usr/sbin/nft", "libnft1 1.1 (debian)");
        put("/usr/lib/libm.so.6", "library of /usr/lib/libnft.so.1", "libc6 2.41 (debian)");
        put("/usr/lib/modules/6/kernel/net-a.ko", "module net_a", "linux 6 (debian)");
        put("/usr/lib/modules/6/kernel/b.ko", "needed by module net_a", "linux 6 (debian)");
        let origin = Origin {
            declaration: "link /usr/bin/nft of program /usr/sbin/nft".into(),
            artifact: "nftables 1.1 (debian)".into(),
        };
        tree.insert("/usr/bin/nft", Node::symlink("../sbin/nft", origin)).unwrap();
        tree.complete().unwrap()
    }

    #[test]
    fn every_step_to_the_declaration_is_told() {
        let digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        let want = format!(
            "/usr/lib/libm.so.6: file 0755, 1 bytes, sha256 {digest}\n  library of /usr/lib/libnft.so.1, from libc6 2.41 (debian)\n  \
             /usr/lib/libnft.so.1: file 0755, 1 bytes, sha256 {digest}\n    library of /usr/sbin/nft, from libnft1 1.1 (debian)\n    \
             /usr/sbin/nft: file 0755, 1 bytes, sha256 {digest}\n      program /usr/sbin/nft, from nftables 1.1 (debian)\n"
        );
        assert_eq!(why(&tree(), "/lib/libm.so.6").unwrap(), want);
    }

    #[test]
    fn links_and_modules_lead_on_too() {
        assert!(
            why(&tree(), "/bin/nft")
                .unwrap()
                .ends_with("      program /usr/sbin/nft, from nftables 1.1 (debian)\n".trim_start_matches("  "))
        );
        assert!(
            why(&tree(), "/usr/lib/modules/6/kernel/b.ko").unwrap().contains("module net_a, from linux 6 (debian)")
        );
        assert!(why(&tree(), "/").unwrap().starts_with("/: folder 0755"));
    }

    #[test]
    fn what_is_not_there_is_said_with_what_comes_close() {
        let error = why(&tree(), "/usr/local/bin/nft").unwrap_err().to_string();
        assert_eq!(error, "nothing in the image has the path /usr/local/bin/nft; there is /usr/bin/nft, /usr/sbin/nft");
    }
}
