//! A [`Tree`] is the root filesystem to be: paths to nodes, one rule for merging, every node knowing where it came from.
use std::collections::BTreeMap;
use std::fmt;

mod content;
mod path;

pub use content::{Content, Contents, ReadSeek};
pub use path::{USR_MERGED, link_target, parent, usr_merged};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Where a node came from: told in conflicts and by `kscratch-image why`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The declaration that brought it in, e.g. `program /usr/sbin/dockerd` or `library of /usr/sbin/dockerd`.
    pub declaration: String,
    /// The artifact that holds it, e.g. `docker.io 26.1.5+dfsg1-9 (debian)`, `overlays/common`, `kscratch-image`.
    pub artifact: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.declaration, self.artifact)
    }
}

/// One entry of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 0o7777 at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes by full name (`security.capability`).
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Where it came from.
    pub origin: Origin,
}

impl Node {
    /// A directory of root's with these permission bits.
    pub fn directory(mode: u16, origin: Origin) -> Self {
        Self::root(Kind::Directory, mode, origin)
    }

    /// A regular file of root's with these permission bits.
    pub fn file(content: impl Into<Content>, mode: u16, origin: Origin) -> Self {
        Self::root(Kind::File(content.into()), mode, origin)
    }

    /// A symbolic link to `target`.
    pub fn symlink(target: impl Into<String>, origin: Origin) -> Self {
        Self::root(Kind::Symlink(target.into()), 0o777, origin)
    }

    fn root(kind: Kind, mode: u16, origin: Origin) -> Self {
        Node { kind, mode, uid: 0, gid: 0, xattrs: BTreeMap::new(), origin }
    }

    /// Whether both are the same thing on disk, wherever they came from and wherever their bytes stand now.
    pub fn same_as(&self, other: &Node) -> bool {
        let kind = match (&self.kind, &other.kind) {
            (Kind::File(a), Kind::File(b)) => a.len() == b.len() && a.sha256() == b.sha256(),
            (a, b) => a == b,
        };
        kind && (self.mode, self.uid, self.gid, &self.xattrs) == (other.mode, other.uid, other.gid, &other.xattrs)
    }

    /// A few words for conflicts: `file 0755, 12 bytes`.
    fn describe(&self) -> String {
        match &self.kind {
            Kind::Directory => format!("directory {:04o} of {}:{}", self.mode, self.uid, self.gid),
            Kind::File(content) => {
                format!("file {:04o} of {}:{}, {} bytes", self.mode, self.uid, self.gid, content.len())
            }
            Kind::Symlink(target) => format!("link to {target}"),
            Kind::CharDevice { major, minor } => format!("character device {major}:{minor}"),
            Kind::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
        }
    }
}

/// Two declarations that want different things at one path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} is wanted twice: {first}, and {second}")]
pub struct Conflict {
    /// The path.
    pub path: String,
    /// What was there, and its origin.
    pub first: String,
    /// What came second, and its origin.
    pub second: String,
}

/// Paths (absolute, no trailing slash, `/` the root itself) to nodes, in the order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries.
    pub nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Puts `node` at `path` (moved below `/usr` where Debian's merge has it). The one rule: the same thing twice is once, anything
    /// else at a taken path is a conflict. Parents are made by [`Tree::complete`].
    ///
    /// # Errors
    /// [`Conflict`], naming both origins.
    pub fn insert(&mut self, path: &str, node: Node) -> Result<(), Conflict> {
        let path = usr_merged(path);
        match self.nodes.get(&path) {
            None => {
                self.nodes.insert(path, node);
                Ok(())
            }
            Some(there) if there.same_as(&node) => Ok(()),
            Some(there) => Err(Conflict {
                first: format!("{} ({})", there.describe(), there.origin),
                second: format!("{} ({})", node.describe(), node.origin),
                path,
            }),
        }
    }

    /// This tree and `other` in one, by the rule of [`Tree::insert`].
    ///
    /// # Errors
    /// [`Conflict`], naming both origins.
    pub fn merge(mut self, other: Tree) -> Result<Tree, Conflict> {
        for (path, node) in other.nodes {
            self.insert(&path, node)?;
        }
        Ok(self)
    }

    /// Adds what every tree has: the links of the `/usr` merge, the root, and a directory 0755 of root's above every node that has none.
    ///
    /// # Errors
    /// [`Conflict`] where a node stands below something that is no directory.
    pub fn complete(mut self) -> Result<Tree, Conflict> {
        let origin = Origin { declaration: "the /usr merge".into(), artifact: "kscratch-image".into() };
        for (link, target) in USR_MERGED {
            self.insert(link, Node::symlink(target, origin.clone()))?;
            self.nodes.entry(format!("/{target}")).or_insert_with(|| Node::directory(0o755, origin.clone()));
        }
        for path in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let mut child = path.as_str();
            while let Some(above) = parent(child) {
                match self.nodes.get(above) {
                    None => {
                        let origin = Origin {
                            declaration: format!("parent of {path}"),
                            artifact: self.nodes[&path].origin.artifact.clone(),
                        };
                        self.nodes.insert(above.to_owned(), Node::directory(0o755, origin));
                    }
                    Some(Node { kind: Kind::Directory, .. }) => {}
                    Some(blocking) => {
                        return Err(Conflict {
                            path: above.to_owned(),
                            first: format!("{} ({})", blocking.describe(), blocking.origin),
                            second: format!("directory for {path} ({})", self.nodes[&path].origin),
                        });
                    }
                }
                child = above;
            }
        }
        Ok(self)
    }

    /// Where `path` ends after all symbolic links on the way, or `None` where something is missing or turns in a circle.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut path = link_target("/", path);
        // 40 is the kernel's own bound (path_resolution(7), ELOOP).
        'again: for _ in 0..40 {
            for end in path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]) {
                match self.nodes.get(&path[..end])?.kind {
                    Kind::Symlink(ref target) => {
                        path = link_target("/", &format!("{}{}", link_target(&path[..end], target), &path[end..]));
                        continue 'again;
                    }
                    Kind::Directory => {}
                    _ if end == path.len() => {}
                    _ => return None,
                }
            }
            return Some(path);
        }
        None
    }

    /// The node at the end of `path`'s links.
    pub fn find(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&self.resolve(path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stored;

    fn origin(name: &str) -> Origin {
        Origin { declaration: format!("file {name}"), artifact: name.to_owned() }
    }

    fn file(bytes: &str, name: &str) -> Node {
        Node::file(bytes.as_bytes().to_vec(), 0o644, origin(name))
    }

    #[test]
    fn the_same_twice_is_once_and_the_first_origin_stays() {
        let mut tree = Tree::default();
        tree.insert("/etc/x", file("1", "a")).unwrap();
        tree.insert("/etc/x", file("1", "b")).unwrap();
        assert_eq!(tree.nodes["/etc/x"].origin, origin("a"));
    }

    #[test]
    fn a_conflict_names_both_origins() {
        let mut tree = Tree::default();
        tree.insert("/etc/x", file("1", "a")).unwrap();
        let error = tree.insert("/etc/x", file("22", "b")).unwrap_err().to_string();
        assert_eq!(
            error,
            "/etc/x is wanted twice: file 0644 of 0:0, 1 bytes (file a from a), and file 0644 of 0:0, 2 bytes (file b from b)"
        );
    }

    #[test]
    fn a_stored_file_equals_a_literal_one_with_its_bytes() {
        let mut tree = Tree::default();
        let literal = file("1", "a");
        let Kind::File(content) = &literal.kind else { unreachable!() };
        let stored = Stored { file: "unpacked/x/data".into(), offset: 7, len: 1, sha256: content.sha256() };
        tree.insert("/x", Node::file(Content::Stored(stored), 0o644, origin("b"))).unwrap();
        tree.insert("/x", literal).unwrap();
    }

    #[test]
    fn parents_and_the_usr_merge_are_completed() {
        let mut tree = Tree::default();
        tree.insert("/lib64/ld.so", file("1", "a")).unwrap();
        tree.insert("/var/lib/x", file("1", "a")).unwrap();
        let tree = tree.complete().unwrap();
        let paths: Vec<_> = tree.nodes.keys().map(String::as_str).collect();
        let want = "/ /bin /lib /lib64 /sbin /usr /usr/bin /usr/lib /usr/lib64 /usr/lib64/ld.so /usr/sbin /var /var/lib /var/lib/x";
        assert_eq!(paths, want.split(' ').collect::<Vec<_>>());
        assert_eq!(tree.resolve("/lib64/ld.so").as_deref(), Some("/usr/lib64/ld.so"));
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_a_conflict() {
        let mut tree = Tree::default();
        tree.insert("/var", file("1", "a")).unwrap();
        tree.insert("/var/lib/x", file("1", "b")).unwrap();
        assert!(tree.complete().unwrap_err().to_string().contains("directory for /var/lib/x (file b from b)"));
    }

    #[test]
    fn circles_and_gaps_resolve_to_nothing() {
        let mut tree = Tree::default();
        tree.insert("/a", Node::symlink("b", origin("a"))).unwrap();
        tree.insert("/b", Node::symlink("a", origin("a"))).unwrap();
        tree.insert("/c", Node::symlink("gone", origin("a"))).unwrap();
        let tree = tree.complete().unwrap();
        assert_eq!((tree.resolve("/a"), tree.resolve("/c"), tree.resolve("/")), (None, None, Some("/".into())));
    }
}
