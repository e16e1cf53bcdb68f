//! A Kubernetes version, tarball or folder becomes a [`Release`]: the programs of one version, and what goes with them.
//!
//! Official tarballs hold what is compiled here from the same sources; either way the image has the same paths.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::console::{Console, Hint};
use crate::lock::{Artifact, Lock, Origin};
use crate::resolve::Source;
use crate::spec::{CriDockerdSource, ImageSpec, KubernetesSource, Role};
use crate::store::{Digest, Store, Stored};

mod cridockerd;
mod gobuild;
pub(crate) mod part;
mod patched;
mod pinned;
mod tarball;
mod toolchain;
pub(crate) mod version;

pub use version::Version;

/// How long the official server is given to answer before the programs are compiled instead.
const PATIENCE: Duration = Duration::from_secs(4);

/// The programs of an official server tarball (`kubernetes/server/bin`) that a machine of a role needs, and what goes with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Version of Kubernetes, without `v`.
    pub version: String,
    /// Version of cri-dockerd, without `v`.
    pub cri_dockerd: String,
    /// Programs of the machine itself by name: `kubelet`, `kube-proxy`, `cri-dockerd`.
    pub programs: BTreeMap<String, Program>,
    /// Names of the image archives that the tarball brought; none where the programs were compiled.
    pub images: BTreeSet<String>,
    /// What a master runs in containers; none for a node.
    pub control_plane: Option<ControlPlane>,
}

/// The programs of a cluster's control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Version of etcd, without `v`.
    pub etcd: String,
    /// Version of CoreDNS, without `v`.
    pub coredns: String,
    /// Programs by name: `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `etcd`, `coredns`.
    pub programs: BTreeMap<String, Program>,
}

/// One program of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is in the store.
    pub file: Stored,
    /// How origins name where it came from: `kubernetes 1.37.2 (compiled with go 1.26.8)`.
    pub artifact: String,
}

/// Chooses the artifacts of Kubernetes and cri-dockerd, and for masters those of the control plane.
///
/// # Errors
/// A version that is too old or cannot be had, a file that is no release, no Go where one is needed.
pub fn resolve(spec: &ImageSpec, role: Role, source: &Source<'_>, console: &Console) -> Result<Vec<Artifact>> {
    resolve_from(spec, role, tarball::OFFICIAL, Path::new("go"), source, console)
}

/// [`resolve`] with the place of official tarballs and the Go to compile with.
fn resolve_from(
    spec: &ImageSpec,
    role: Role,
    base: &str,
    go: &Path,
    source: &Source<'_>,
    console: &Console,
) -> Result<Vec<Artifact>> {
    let version = Version::parse(&spec.kubernetes.version)?;
    let url = tarball::url(base, &version);
    let compiled = || -> Result<Artifact> {
        let module = pinned::find(part::NODE.artifact, &version.to_string())?;
        Ok(gobuild::artifact(&module, &toolchain::ready(go, &module, spec, source, console)?))
    };
    let kubernetes = match &spec.kubernetes.source {
        KubernetesSource::Path(path) => {
            tarball::local_artifact(&spec.folder, path, part::NODE, &version, source.store)?
        }
        KubernetesSource::Tarball => tarball::artifact(&url, &version, source.http)?,
        KubernetesSource::Compile => compiled()?,
        KubernetesSource::Auto if source.http.answers(&url, PATIENCE) => {
            tarball::artifact(&url, &version, source.http)?
        }
        KubernetesSource::Auto => {
            console.say(format_args!(
                "the official tarball of Kubernetes {version} cannot be reached: compiling from its Go modules"
            ));
            compiled()
                .with_context(|| format!("compiling, as {url} does not answer within {} s", PATIENCE.as_secs()))?
        }
    };
    let cri_dockerd = match &spec.cri_dockerd.source {
        CriDockerdSource::Path(path) => {
            cridockerd::local_artifact(&spec.folder, path, &spec.cri_dockerd.version, source.store)?
        }
        CriDockerdSource::Compile => {
            let module = pinned::find(cridockerd::NAME, &spec.cri_dockerd.version)?;
            gobuild::artifact(&module, &fitting(&module, &kubernetes, go, spec, source, console)?)
        }
    };
    let mut artifacts = vec![cri_dockerd, kubernetes.clone()];
    if role == Role::Master {
        artifacts.extend(control_plane_from(spec, &kubernetes, go, source, console)?);
    }
    Ok(artifacts)
}

/// Chooses what masters need besides: Kubernetes' other parts, from where this one of the lock is, and etcd and CoreDNS.
///
/// # Errors
/// As [`resolve`]; a release of this machine that holds no control plane.
pub fn control_plane(
    spec: &ImageSpec,
    kubernetes: &Artifact,
    source: &Source<'_>,
    console: &Console,
) -> Result<Vec<Artifact>> {
    control_plane_from(spec, kubernetes, Path::new("go"), source, console)
}

fn control_plane_from(
    spec: &ImageSpec,
    kubernetes: &Artifact,
    go: &Path,
    source: &Source<'_>,
    console: &Console,
) -> Result<Vec<Artifact>> {
    let version = Version::parse(&kubernetes.version)?;
    let mut artifacts = Vec::new();
    for part in [part::CONTROL_PLANE, part::KUBECTL] {
        artifacts.push(match &kubernetes.origin {
            Origin::GoBuild { go, .. } => gobuild::artifact(&pinned::find(part.artifact, &kubernetes.version)?, go),
            Origin::LocalFile { path } => {
                tarball::local_artifact(&spec.folder, Path::new(path), part, &version, source.store)?
            }
            _ => Artifact { name: part.artifact.into(), ..kubernetes.clone() },
        });
    }
    let etcd = spec.etcd.version.as_deref().unwrap_or(version.etcd());
    for (name, version) in [(part::ETCD, etcd), (part::COREDNS, spec.coredns.version.as_str())] {
        let module = pinned::find(name, version)?;
        artifacts.push(gobuild::artifact(&module, &fitting(&module, kubernetes, go, spec, source, console)?));
    }
    Ok(artifacts)
}

/// The Go for a module: Kubernetes' own where it fits both, as another one is another 60 MB to fetch.
fn fitting(
    module: &pinned::Module,
    kubernetes: &Artifact,
    go: &Path,
    spec: &ImageSpec,
    source: &Source<'_>,
    console: &Console,
) -> Result<String> {
    match &kubernetes.origin {
        Origin::GoBuild { go: chosen, .. } if version::go(chosen)? >= version::go(module.go())? => Ok(chosen.clone()),
        _ => toolchain::ready(go, module, spec, source, console),
    }
}

/// Gets what the lock names for a role: out of tarballs in the store, or compiled now where it has not been. With a master's comes
/// kubectl, though no image holds it: [`kubectl`] gives its path, without a network too. Relative paths of the lock are taken from
/// `folder`, that of image.toml.
///
/// # Errors
/// A lock without these artifacts; a file that has changed; a compile that fails, or would need the network when it may not be used.
pub fn obtain(
    lock: &Lock,
    role: Role,
    folder: &Path,
    store: &Store,
    offline: bool,
    console: &Console,
) -> Result<Release> {
    obtain_with(lock, role, folder, Path::new("go"), store, offline, console)
}

fn obtain_with(
    lock: &Lock,
    role: Role,
    folder: &Path,
    go: &Path,
    store: &Store,
    offline: bool,
    console: &Console,
) -> Result<Release> {
    let (kubernetes, cri_dockerd) = (find(lock, part::NODE.artifact)?, find(lock, cridockerd::NAME)?);
    let mut images = BTreeSet::new();
    let mut take = |artifact: &Artifact| -> Result<BTreeMap<String, Program>> {
        let (programs, archives) = one(artifact, folder, go, store, offline, console)
            .with_context(|| format!("getting {} {}", artifact.name, artifact.version))?;
        images.extend(archives);
        Ok(programs)
    };
    let mut programs = take(kubernetes)?;
    programs.extend(take(cri_dockerd)?);
    let control_plane = if role == Role::Master {
        let (etcd, coredns) = (find(lock, part::ETCD)?, find(lock, part::COREDNS)?);
        let mut programs = take(find(lock, part::CONTROL_PLANE.artifact)?)?;
        programs.extend(take(etcd)?);
        programs.extend(take(coredns)?);
        take(find(lock, part::KUBECTL.artifact)?)?;
        Some(ControlPlane { etcd: etcd.version.clone(), coredns: coredns.version.clone(), programs })
    } else {
        None
    };
    Ok(Release {
        version: kubernetes.version.clone(),
        cri_dockerd: cri_dockerd.version.clone(),
        programs,
        images,
        control_plane,
    })
}

/// The kubectl of a master's lock, as a program that can be started. What building the image has got is not got again. Relative paths
/// of the lock are taken from `folder`.
///
/// # Errors
/// As [`obtain`].
pub fn kubectl(lock: &Lock, folder: &Path, store: &Store, offline: bool, console: &Console) -> Result<PathBuf> {
    let artifact = find(lock, part::KUBECTL.artifact)?;
    let (programs, _) = one(artifact, folder, Path::new("go"), store, offline, console)
        .with_context(|| format!("getting {} {}", artifact.name, artifact.version))?;
    let program = programs.get("kubectl").context("what was got holds no kubectl")?;
    store.executable(&program.file.sha256, "kubectl")
}

fn find<'a>(lock: &'a Lock, name: &str) -> Result<&'a Artifact> {
    let role = if part::of_masters(name) { " --role master" } else { "" };
    lock.get(name).with_context(|| format!("the lock names no {name}; make it anew: kscratch-image lock{role}"))
}

/// The programs that an artifact stands for, and the names of the image archives that were beside them.
fn one(
    artifact: &Artifact,
    folder: &Path,
    go: &Path,
    store: &Store,
    offline: bool,
    console: &Console,
) -> Result<(BTreeMap<String, Program>, BTreeSet<String>)> {
    let digest = || -> Result<Digest> { artifact.sha256.context("the lock has no digest of it") };
    let part = part::of(&artifact.name);
    let (how, contents) = match (&artifact.origin, part) {
        (Origin::Tarball { sha512, .. }, Some(part)) => {
            ("official tarball".into(), tarball::official(&digest()?, part, sha512, store)?)
        }
        (Origin::LocalFile { path }, Some(part)) => {
            ("local release".into(), tarball::local(&folder.join(path), part, &digest()?, store)?)
        }
        (Origin::LocalFile { path }, None) if artifact.name == cridockerd::NAME => {
            ("local release".into(), cridockerd::local(&folder.join(path), &digest()?, store)?)
        }
        (Origin::GoBuild { go: locked, .. }, _) => {
            let programs = compiled(artifact, go, store, offline, console)?.programs;
            (format!("compiled with go {locked}"), tarball::Contents { programs, ..tarball::Contents::default() })
        }
        _ => bail!("the lock says that it comes from where it cannot come from"),
    };
    let label = format!("{} {} ({how})", artifact.name, artifact.version);
    // Of a tarball, this part alone: a cri-dockerd beside a release's programs is not the one that the lock names.
    let wanted = |name: &String| part.is_none_or(|part| part.programs.contains(&name.as_str()));
    let programs = contents.programs.into_iter().filter(|(name, _)| wanted(name));
    let programs =
        programs.map(|(name, digest)| Ok((name, Program { file: store.whole(&digest)?, artifact: label.clone() })));
    Ok((programs.collect::<Result<_>>()?, contents.images))
}

/// What an artifact compiles to: remembered, or compiled now.
fn compiled(
    artifact: &Artifact,
    go: &Path,
    store: &Store,
    offline: bool,
    console: &Console,
) -> Result<gobuild::Compiled> {
    let Origin::GoBuild { module_version, go_sum, go: locked, flags, .. } = &artifact.origin else {
        bail!("the lock does not say that it is compiled");
    };
    let module = pinned::find(&artifact.name, module_version.trim_start_matches('v'))?;
    if module.digest() != *go_sum || module.flags() != *flags {
        return Err(anyhow!("the lock was made by another version of this program, which pins other modules or flags")
            .context(Hint(format!("kscratch-image lock --update {}", artifact.name))));
    }
    match gobuild::remembered(&module, locked, store) {
        Some(compiled) => Ok(compiled),
        None => {
            let go = toolchain::of_version(go, &module, locked, store)?;
            gobuild::compile(&module, &go, locked, offline, store, console)
        }
    }
}

#[cfg(test)]
mod tests;
