//! Declared programs and files become a [`Tree`] of them and of everything they need: links followed, libraries found.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail};
use globset::GlobBuilder;

use crate::spec::{Bundle, DataFile, ImageSpec, Program, Role};
use crate::tree::{Content, Contents, Kind, Node, Origin, Tree, link_target, parent, usr_merged};
use crate::unpack::{Entry, EntryKind, Unpacked};

pub mod elf;

use elf::Format;

/// An unpacked Debian package.
#[derive(Debug, Clone, Copy)]
pub struct Package<'a> {
    /// Its name, e.g. `docker.io`.
    pub name: &'a str,
    /// Its version, as Debian writes it.
    pub version: &'a str,
    /// What it holds.
    pub unpacked: &'a Unpacked,
}

impl Package<'_> {
    /// How origins name it: `docker.io 26.1.5+dfsg1-9 (debian)`.
    pub fn artifact(&self) -> String {
        format!("{} {} (debian)", self.name, self.version)
    }
}

/// Takes what `spec` declares for `role` out of `packages`, and what that needs.
///
/// # Errors
/// A declaration that nothing matches, a script among the programs, a library that no package holds, a conflict between packages.
pub fn reach(spec: &ImageSpec, role: Role, packages: &[Package<'_>], contents: &dyn Contents) -> Result<Tree> {
    let mut reach = Reach { packages: Union::of(packages), contents, tree: Tree::default(), seen: BTreeSet::new() };
    let wanted = |roles: &[Role]| roles.is_empty() || roles.contains(&role);
    for program in spec.programs.iter().filter(|program| wanted(&program.roles)) {
        reach.program(program).with_context(|| format!("taking program {} of {}", program.path, program.package))?;
    }
    for file in spec.files.iter().filter(|file| wanted(&file.roles)) {
        reach.files(file).with_context(|| format!("taking file {} of {}", file.path, file.package))?;
    }
    for bundle in spec.bundles.iter().filter(|bundle| wanted(&bundle.roles)) {
        reach.bundle(bundle).with_context(|| format!("joining {} of {}", bundle.path, bundle.package))?;
    }
    Ok(reach.tree)
}

/// All packages laid over each other.
struct Union {
    tree: Tree,
    /// Paths that two packages fill differently, with both packages.
    disputed: BTreeMap<String, (String, String)>,
    /// Files whose contents were not kept.
    skipped: BTreeSet<String>,
    /// What each package holds itself, by its name.
    own: BTreeMap<String, BTreeSet<String>>,
}

impl Union {
    fn of(packages: &[Package<'_>]) -> Union {
        let mut union =
            Union { tree: Tree::default(), disputed: BTreeMap::new(), skipped: BTreeSet::new(), own: BTreeMap::new() };
        for package in packages {
            let own = union.own.entry(package.name.to_owned()).or_default();
            for (path, entry) in &package.unpacked.entries {
                let path = usr_merged(path);
                let Some(node) = node(entry, package.artifact()) else {
                    union.skipped.insert(path);
                    continue;
                };
                // `/lib` and its kin are directories in older packages and links in the image: the tree has the links already.
                if matches!(path.as_str(), "/bin" | "/lib" | "/lib64" | "/sbin") {
                    continue;
                }
                own.insert(path.clone());
                match union.tree.nodes.get(&path) {
                    Some(there)
                        if matches!((&there.kind, &node.kind), (Kind::Directory, Kind::Directory))
                            || there.same_as(&node) => {}
                    Some(there) => {
                        union.disputed.insert(path, (there.origin.artifact.clone(), node.origin.artifact));
                    }
                    None => {
                        union.tree.nodes.insert(path, node);
                    }
                }
            }
        }
        let artifact = Origin { declaration: String::new(), artifact: String::new() };
        for path in union.tree.nodes.keys().cloned().collect::<Vec<_>>() {
            let mut child = path.as_str();
            while let Some(above) = parent(child) {
                union.tree.nodes.entry(above.to_owned()).or_insert_with(|| Node::directory(0o755, artifact.clone()));
                child = above;
            }
        }
        union
    }
}

fn node(entry: &Entry, artifact: String) -> Option<Node> {
    let kind = match &entry.kind {
        EntryKind::Directory => Kind::Directory,
        EntryKind::File(range) => Kind::File(Content::Stored(range.clone())),
        EntryKind::Skipped { .. } => return None,
        EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
        EntryKind::CharDevice { major, minor } => Kind::CharDevice { major: *major, minor: *minor },
        EntryKind::BlockDevice { major, minor } => Kind::BlockDevice { major: *major, minor: *minor },
    };
    let mode = match kind {
        Kind::Symlink(_) => 0o777,
        // No user but root logs in to a node: nothing may lend root's rights, and nothing needs to be writable by others.
        Kind::File(_) => entry.mode & 0o755,
        _ => entry.mode,
    };
    let origin = Origin { declaration: String::new(), artifact };
    Some(Node { kind, mode, uid: entry.uid, gid: entry.gid, xattrs: entry.xattrs.clone(), origin })
}

struct Reach<'a> {
    packages: Union,
    contents: &'a dyn Contents,
    tree: Tree,
    /// Objects whose libraries were reached.
    seen: BTreeSet<String>,
}

impl Reach<'_> {
    fn program(&mut self, program: &Program) -> Result<()> {
        let declaration = format!("program {}", program.destination());
        let path = self.own(&program.package, &program.path)?;
        let file = self.take(&path, program.target.as_deref(), &declaration)?;
        match self.format(&file)? {
            Format::Elf(_) => {}
            Format::Script(interpreter) => {
                bail!("{file} is a script for {interpreter}, and the image has no such interpreter")
            }
            Format::Data => bail!("{file} is no program: it has neither an ELF header nor a #! line"),
        }
        for link in &program.links {
            let artifact =
                self.tree.nodes.get(&file).map_or_else(|| program.package.clone(), |node| node.origin.artifact.clone());
            let origin = Origin { declaration: format!("link {link} of {declaration}"), artifact };
            self.tree.insert(link, Node::symlink(relative(&usr_merged(link), &file), origin))?;
        }
        self.libraries(&file, &[])
    }

    fn files(&mut self, file: &DataFile) -> Result<()> {
        let declaration = format!("file {}", file.target.as_deref().unwrap_or(&file.path));
        let glob = is_glob(&file.path);
        for path in self.matches(&file.package, &file.path)? {
            let target = match (&file.target, glob) {
                (Some(folder), true) => path.rsplit('/').next().map(|name| format!("{folder}/{name}")),
                (target, _) => target.clone(),
            };
            let taken = self.take(&path, target.as_deref(), &declaration)?;
            self.libraries(&taken, &[])?;
        }
        Ok(())
    }

    fn bundle(&mut self, bundle: &Bundle) -> Result<()> {
        let mut bytes = Vec::new();
        let mut artifact = None;
        for path in self.matches(&bundle.package, &bundle.path)? {
            let Some(Node { kind: Kind::File(content), origin, .. }) = self.packages.tree.find(&path) else {
                bail!("{path} is no regular file");
            };
            bytes.extend(self.contents.read(content).with_context(|| format!("reading {path}"))?);
            if bytes.last().is_some_and(|last| *last != b'\n') {
                bytes.push(b'\n');
            }
            artifact = Some(origin.artifact.clone());
        }
        let origin =
            Origin { declaration: format!("bundle {}", bundle.target), artifact: artifact.unwrap_or_default() };
        self.tree.insert(&bundle.target, Node::file(bytes, 0o644, origin))?;
        Ok(())
    }

    /// The path as the package holds it.
    fn own(&self, package: &str, path: &str) -> Result<String> {
        let path = usr_merged(path);
        let own = self.packages.own.get(package).ok_or_else(|| anyhow!("package {package} was not fetched"))?;
        if own.contains(&path) {
            return Ok(path);
        }
        if self.packages.skipped.contains(&path) {
            bail!("the contents of {path} were not kept when {package} was unpacked: it is documentation");
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let elsewhere = own.iter().find(|other| other.ends_with(&format!("/{name}")));
        let hint = elsewhere.map(|other| format!(" (it holds {other})")).unwrap_or_default();
        bail!("package {package} holds no {path}{hint}")
    }

    /// Paths of the package that fit a path or a glob, sorted; never none.
    fn matches(&self, package: &str, pattern: &str) -> Result<Vec<String>> {
        if !is_glob(pattern) {
            return Ok(vec![self.own(package, pattern)?]);
        }
        let own = self.packages.own.get(package).ok_or_else(|| anyhow!("package {package} was not fetched"))?;
        let glob = GlobBuilder::new(&usr_merged(pattern)).literal_separator(true).build()?.compile_matcher();
        let directory =
            |path: &String| matches!(self.packages.tree.nodes.get(path), Some(Node { kind: Kind::Directory, .. }));
        let paths: Vec<String> =
            own.iter().filter(|path| glob.is_match(path.as_str()) && !directory(path)).cloned().collect();
        if paths.is_empty() {
            bail!("package {package} holds nothing that fits {pattern}");
        }
        Ok(paths)
    }

    /// Takes what stands at `path` with every link on the way, and tells where it ends in the image. With a `target`, the end alone is
    /// taken, under that name.
    fn take(&mut self, path: &str, target: Option<&str>, declaration: &str) -> Result<String> {
        let mut at = path.to_owned();
        // 40 is the kernel's own bound (path_resolution(7), ELOOP).
        'again: for _ in 0..40 {
            for end in at.match_indices('/').map(|(index, _)| index).skip(1).chain([at.len()]) {
                let step = &at[..end];
                let Some(node) = self.packages.tree.nodes.get(step) else {
                    bail!("{}", missing(path, &at, &self.packages));
                };
                if let Kind::Symlink(to) = &node.kind {
                    let next = usr_merged(&link_target("/", &format!("{}{}", link_target(step, to), &at[end..])));
                    if target.is_none() {
                        let step = step.to_owned();
                        self.put(&step, &step, declaration)?;
                    }
                    at = next;
                    continue 'again;
                }
            }
            let end = target.map_or_else(|| at.clone(), usr_merged);
            self.put(&at, &end, declaration)?;
            return Ok(end);
        }
        bail!("the links of {path} go in a circle")
    }

    /// Copies one node of the packages to `to` in the tree.
    fn put(&mut self, from: &str, to: &str, declaration: &str) -> Result<()> {
        if let Some((first, second)) = self.packages.disputed.get(from) {
            bail!("{from} is in {first} and, different, in {second}");
        }
        // A node keeps the first declaration that reached it: that is the one `why` tells.
        if self.tree.nodes.contains_key(to) && from == to {
            return Ok(());
        }
        let mut node = self.packages.tree.nodes.get(from).with_context(|| format!("looking up {from}"))?.clone();
        node.origin.declaration = declaration.to_owned();
        self.tree.insert(to, node)?;
        Ok(())
    }

    fn format(&self, path: &str) -> Result<Format> {
        match self.tree.nodes.get(path).map(|node| &node.kind) {
            Some(Kind::File(content)) => {
                elf::format(self.contents.open(content).with_context(|| format!("opening {path}"))?)
                    .with_context(|| format!("reading {path}"))
            }
            Some(_) => Ok(Format::Data),
            None => bail!("{path} was not taken"),
        }
    }

    /// Takes the libraries of the object at `path`, and theirs.
    fn libraries(&mut self, path: &str, inherited: &[String]) -> Result<()> {
        if !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        let Format::Elf(linkage) = self.format(path)? else { return Ok(()) };
        if let Some(interpreter) = &linkage.interpreter {
            let linker = self.take(&usr_merged(interpreter), None, &format!("dynamic linker of {path}"))?;
            self.libraries(&linker, &[])?;
        }
        let search = elf::search_paths(path, &linkage, inherited);
        let inherited = elf::inherited_paths(path, &linkage, inherited);
        for name in &linkage.needed {
            let candidates = search.iter().map(|folder| usr_merged(&format!("{folder}/{name}")));
            let Some(found) = candidates.into_iter().find(|candidate| self.packages.tree.nodes.contains_key(candidate))
            else {
                bail!(
                    "{path} needs the library {name}, and no fetched package holds it in {}; by Debian's naming it is in {}",
                    search.join(", "),
                    library_package(name)
                );
            };
            let library = self.take(&found, None, &format!("library of {path}"))?;
            self.libraries(&library, &inherited)?;
        }
        Ok(())
    }
}

fn is_glob(path: &str) -> bool {
    path.contains(['*', '?', '{', '['])
}

fn missing(path: &str, at: &str, packages: &Union) -> String {
    if at == path {
        return format!("no fetched package holds {path}");
    }
    let from = packages.tree.nodes.get(path).map_or("a package", |node| node.origin.artifact.as_str());
    let alternative = if at.starts_with("/etc/alternatives/") {
        "; update-alternatives would choose it at installation, so declare the program itself with this path among its `links`"
    } else {
        ""
    };
    format!("{path} of {from} leads to {at}, which no fetched package holds{alternative}")
}

/// `to` as a link at `from` writes it, both absolute.
fn relative(from: &str, to: &str) -> String {
    let folder = parent(from).unwrap_or("/");
    match to.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) {
        Some(rest) => rest.to_owned(),
        None => to.to_owned(),
    }
}

/// The package that holds a library, by Debian Policy 8.1: `libNAME.so.V` is in `libNAMEV`, or `libNAME-V` after a digit.
fn library_package(soname: &str) -> String {
    let (name, version) = soname.split_once(".so").unwrap_or((soname, ""));
    let dash = if name.ends_with(|c: char| c.is_ascii_digit()) { "-" } else { "" };
    format!("{name}{dash}{}", version.trim_start_matches('.')).to_lowercase().replace('_', "-")
}

#[cfg(test)]
pub(crate) mod tests;
