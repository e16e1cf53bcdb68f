//! The rules: each gives the lines that break it.
use anyhow::{Context, Result};

use super::Subject;
use crate::overlay::INIT;
use crate::reach::elf::{self, Format};
use crate::tree::{Content, Kind, Node, link_target};

/// What init and its services execute: ARCHITECTURE, "Image contract". Each is in `/usr/sbin` or `/usr/bin`.
const PROGRAMS: [&str; 21] = [
    "kubelet",
    "kube-proxy",
    "cri-dockerd",
    "containerd",
    "containerd-shim-runc-v2",
    "docker-init",
    "dockerd",
    "runc",
    "mount",
    "umount",
    "nsenter",
    "iptables",
    "ip6tables",
    "iptables-save",
    "iptables-restore",
    "nft",
    "conntrack",
    "ip",
    "mkfs.ext4",
    "e2fsck",
    "resize2fs",
];

/// CNI plugins that init's CNI configuration names.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// Places that are filled at boot: links may lead there.
const AT_BOOT: [&str; 3] = ["/proc/", "/run/", "/var/"];

const SHELLS: [&str; 11] = ["ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "rbash", "sh", "tcsh", "zsh"];

const PACKAGE_MANAGERS: [&str; 9] = ["apk", "apt", "apt-get", "dnf", "dpkg", "pacman", "pip3", "rpm", "snap"];

pub(super) type Found = Result<Vec<String>>;

fn format(subject: &Subject<'_>, path: &str, content: &Content) -> Result<Format> {
    let reader = subject.contents.open(content).with_context(|| format!("opening {path}"))?;
    elf::format(reader).with_context(|| format!("reading {path}"))
}

pub(super) fn literal(subject: &Subject<'_>, path: &str) -> Result<Option<String>> {
    match subject.tree.nodes.get(path).map(|node| &node.kind) {
        Some(Kind::File(content)) => {
            let bytes = subject.contents.read(content).with_context(|| format!("reading {path}"))?;
            Ok(Some(String::from_utf8(bytes).with_context(|| format!("reading {path} as text"))?))
        }
        _ => Ok(None),
    }
}

pub(super) fn line(path: &str, node: &Node, what: &str) -> String {
    format!("{path} {what} ({})", node.origin)
}

pub(super) fn init(subject: &Subject<'_>) -> Found {
    let mut found = Vec::new();
    for path in ["/sbin/init", "/sbin/modprobe", INIT] {
        match subject.tree.find(path) {
            Some(Node { kind: Kind::File(content), mode, .. }) => match format(subject, path, content)? {
                Format::Elf(linkage) if linkage.is_static() && mode & 0o111 == 0o111 => {}
                Format::Elf(linkage) if linkage.is_static() => found.push(format!("{path} is not executable")),
                Format::Elf(_) => found.push(format!("{path} is linked dynamically")),
                _ => found.push(format!("{path} is no ELF program")),
            },
            _ => found.push(format!("{path} is missing")),
        }
    }
    Ok(found)
}

pub(super) fn programs(subject: &Subject<'_>) -> Found {
    let executable = |path: &str| matches!(subject.tree.find(path), Some(Node { kind: Kind::File(_), mode, .. }) if mode & 0o111 != 0);
    let missing = PROGRAMS
        .iter()
        .filter(|name| !["/usr/sbin", "/usr/bin"].iter().any(|folder| executable(&format!("{folder}/{name}"))));
    let plugins = PLUGINS.iter().map(|name| format!("/opt/cni/bin/{name}")).filter(|path| !executable(path));
    Ok(missing
        .map(|name| format!("{name} is neither in /usr/sbin nor in /usr/bin"))
        .chain(plugins.map(|path| format!("{path} is missing")))
        .collect())
}

pub(super) fn mount_points(subject: &Subject<'_>) -> Found {
    let there = |path: &str| matches!(subject.tree.nodes.get(path), Some(Node { kind: Kind::Directory, .. }));
    let points = ["/dev", "/mnt", "/proc", "/run", "/sys", "/tmp", "/var"];
    Ok(points.iter().filter(|path| !there(path)).map(|path| format!("{path} is missing")).collect())
}

pub(super) fn libraries(subject: &Subject<'_>) -> Found {
    let mut found = Vec::new();
    for (path, node) in subject.own() {
        let Kind::File(content) = &node.kind else { continue };
        // Relocatable objects have no libraries.
        if path.ends_with(".ko") {
            continue;
        }
        let Format::Elf(linkage) = format(subject, path, content)? else { continue };
        let there = |path: &str| matches!(subject.tree.find(path), Some(Node { kind: Kind::File(_), .. }));
        let search = elf::search_paths(path, &linkage, &[]);
        for name in linkage.needed.iter().filter(|name| !search.iter().any(|folder| there(&format!("{folder}/{name}"))))
        {
            found.push(line(path, node, &format!("needs {name}, which is in none of {}", search.join(", "))));
        }
        if let Some(interpreter) = linkage.interpreter.filter(|interpreter| !there(interpreter)) {
            found.push(line(path, node, &format!("needs the dynamic linker {interpreter}")));
        }
    }
    Ok(found)
}

pub(super) fn modules(subject: &Subject<'_>) -> Found {
    let mut found = Vec::new();
    for path in subject.tree.nodes.keys().filter(|path| path.ends_with("/modules.dep")) {
        let Some(text) = literal(subject, path)? else { continue };
        let base = path.trim_end_matches("modules.dep");
        for module in text.lines().flat_map(|line| line.split([':', ' ']).filter(|module| !module.is_empty())) {
            if !subject.tree.nodes.contains_key(&format!("{base}{module}")) {
                found.push(format!("{path} names {module}, which is missing"));
            }
        }
    }
    if !subject.tree.nodes.keys().any(|path| path.ends_with("/modules.dep")) {
        found.push("there is no modules.dep".into());
    }
    Ok(found)
}

pub(super) fn links(subject: &Subject<'_>) -> Found {
    let mut found = Vec::new();
    for (path, node) in subject.own() {
        let Kind::Symlink(target) = &node.kind else { continue };
        let end = link_target(path, target);
        if subject.tree.resolve(path).is_none() && !AT_BOOT.iter().any(|folder| end.starts_with(folder)) {
            found.push(line(path, node, &format!("leads to {end}, which is missing")));
        }
    }
    Ok(found)
}

pub(super) fn setuid(subject: &Subject<'_>) -> Found {
    let lends = |node: &Node| node.mode & 0o6000 != 0 || node.xattrs.contains_key("security.capability");
    Ok(subject
        .own()
        .filter(|(_, node)| lends(node))
        .map(|(path, node)| line(path, node, "has setuid, setgid or a capability"))
        .collect())
}

pub(super) fn world_writable(subject: &Subject<'_>) -> Found {
    let writable = |node: &Node| match node.kind {
        Kind::Symlink(_) => false,
        // With the sticky bit, only a file's owner may take it away.
        Kind::Directory => node.mode & 0o1002 == 0o0002,
        _ => node.mode & 0o002 != 0,
    };
    Ok(subject
        .own()
        .filter(|(_, node)| writable(node))
        .map(|(path, node)| line(path, node, &format!("has mode {:04o}", node.mode)))
        .collect())
}

pub(super) fn owners(subject: &Subject<'_>) -> Found {
    let foreign = subject.own().filter(|(_, node)| (node.uid, node.gid) != (0, 0));
    Ok(foreign.map(|(path, node)| line(path, node, &format!("belongs to {}:{}", node.uid, node.gid))).collect())
}

/// Programs by these names, links to them included.
fn named(subject: &Subject<'_>, names: &[&str]) -> Vec<String> {
    let bad = |path: &str, node: &Node| {
        let name = path.rsplit('/').next().unwrap_or_default();
        names.contains(&name) && !matches!(node.kind, Kind::Directory)
    };
    subject
        .own()
        .filter(|(path, node)| path.contains("bin/") && bad(path, node))
        .map(|(path, node)| line(path, node, "is there"))
        .collect()
}

pub(super) fn shells(subject: &Subject<'_>) -> Found {
    Ok(named(subject, &SHELLS))
}

pub(super) fn package_managers(subject: &Subject<'_>) -> Found {
    Ok(named(subject, &PACKAGE_MANAGERS))
}

pub(super) fn scripts(subject: &Subject<'_>) -> Found {
    let mut found = Vec::new();
    for (path, node) in subject.own().filter(|(_, node)| node.mode & 0o111 != 0) {
        let Kind::File(content) = &node.kind else { continue };
        if let Format::Script(interpreter) = format(subject, path, content)?
            && subject.tree.find(&interpreter).is_none()
        {
            found.push(line(path, node, &format!("is a script for {interpreter}, which is missing")));
        }
    }
    Ok(found)
}
