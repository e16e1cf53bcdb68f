//! A Kubernetes version, tarball or folder becomes a [`Release`]: the programs of one version, and the cri-dockerd that goes with it.
//!
//! Official tarballs hold what is compiled here from the same sources; either way the image has the same paths.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::console::{Console, Hint};
use crate::lock::{Artifact, Lock, Origin};
use crate::resolve::Source;
use crate::spec::{CriDockerdSource, ImageSpec, KubernetesSource};
use crate::store::{Digest, Store, Stored};

mod cridockerd;
mod gobuild;
mod pinned;
mod tarball;
mod toolchain;
mod version;

pub use version::Version;

/// How long the official server is given to answer before the programs are compiled instead.
const PATIENCE: Duration = Duration::from_secs(4);

/// The layout of an official server tarball (`kubernetes/server/bin`), as far as a machine needs it, and cri-dockerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Version of Kubernetes, without `v`.
    pub version: String,
    /// Version of cri-dockerd, without `v`.
    pub cri_dockerd: String,
    /// Programs by name: `kubelet`, `kube-proxy`, `cri-dockerd`.
    pub programs: BTreeMap<String, Program>,
    /// Names of the image archives that the tarball brought; none where the programs were compiled.
    pub images: BTreeSet<String>,
}

/// One program of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is in the store.
    pub file: Stored,
    /// How origins name where it came from: `kubernetes 1.37.2 (compiled with go 1.26.8)`.
    pub artifact: String,
}

/// Chooses the artifacts of Kubernetes and cri-dockerd.
///
/// # Errors
/// A version that is too old or cannot be had, a file that is no release, no Go where one is needed.
pub fn resolve(spec: &ImageSpec, source: &Source<'_>, console: &Console) -> Result<Vec<Artifact>> {
    resolve_from(spec, tarball::OFFICIAL, Path::new("go"), source, console)
}

/// [`resolve`] with the place of official tarballs and the Go to compile with.
fn resolve_from(
    spec: &ImageSpec,
    base: &str,
    go: &Path,
    source: &Source<'_>,
    console: &Console,
) -> Result<Vec<Artifact>> {
    let version = Version::parse(&spec.kubernetes.version)?;
    let url = tarball::url(base, &version);
    let compiled = || -> Result<Artifact> {
        let module = pinned::kubernetes(&version)?;
        Ok(gobuild::artifact(&module, &toolchain::ready(go, &module, spec, source, console)?))
    };
    let kubernetes = match &spec.kubernetes.source {
        KubernetesSource::Path(path) => tarball::local_artifact(path, &version, source.store)?,
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
        CriDockerdSource::Path(path) => cridockerd::local_artifact(path, &spec.cri_dockerd.version, source.store)?,
        CriDockerdSource::Compile => {
            let module = pinned::cri_dockerd(&spec.cri_dockerd.version)?;
            // One Go for both where it fits both: another one is another 60 MB to fetch.
            let go = match &kubernetes.origin {
                Origin::GoBuild { go: chosen, .. } if version::go(chosen)? >= version::go(module.go())? => {
                    chosen.clone()
                }
                _ => toolchain::ready(go, &module, spec, source, console)?,
            };
            gobuild::artifact(&module, &go)
        }
    };
    Ok(vec![cri_dockerd, kubernetes])
}

/// Gets what the lock names: out of tarballs in the store, or compiled now where it has not been.
///
/// # Errors
/// A lock without these artifacts; a file that has changed; a compile that fails, or would need the network when it may not be used.
pub fn obtain(lock: &Lock, store: &Store, offline: bool, console: &Console) -> Result<Release> {
    obtain_with(lock, Path::new("go"), store, offline, console)
}

fn obtain_with(lock: &Lock, go: &Path, store: &Store, offline: bool, console: &Console) -> Result<Release> {
    let find = |name: &str| {
        lock.get(name).with_context(|| format!("the lock names no {name}; make it anew: kscratch-image lock"))
    };
    let (kubernetes, cri_dockerd) = (find("kubernetes")?, find("cri-dockerd")?);
    let mut release = Release {
        version: kubernetes.version.clone(),
        cri_dockerd: cri_dockerd.version.clone(),
        programs: BTreeMap::new(),
        images: BTreeSet::new(),
    };
    for artifact in [kubernetes, cri_dockerd] {
        let (label, contents) = one(artifact, go, store, offline, console)
            .with_context(|| format!("getting {} {}", artifact.name, artifact.version))?;
        release.images.extend(contents.images);
        for (name, digest) in contents.programs {
            // A cri-dockerd beside a release's programs is not the one that the lock names.
            if (name == "cri-dockerd") == (artifact.name == "cri-dockerd") {
                release.programs.insert(name, Program { file: store.whole(&digest)?, artifact: label.clone() });
            }
        }
    }
    Ok(release)
}

fn one(
    artifact: &Artifact,
    go: &Path,
    store: &Store,
    offline: bool,
    console: &Console,
) -> Result<(String, tarball::Contents)> {
    let label = |how: String| format!("{} {} ({how})", artifact.name, artifact.version);
    let digest = || -> Result<Digest> { artifact.sha256.context("the lock has no digest of it") };
    match &artifact.origin {
        Origin::Tarball { sha512, .. } => {
            Ok((label("official tarball".into()), tarball::official(&digest()?, sha512, store)?))
        }
        Origin::LocalFile { path } => {
            let local = if artifact.name == cridockerd::NAME { cridockerd::local } else { tarball::local };
            Ok((label("local release".into()), local(Path::new(path), &digest()?, store)?))
        }
        Origin::GoBuild { module_version, go_sum, go: locked, flags, .. } => {
            let version = module_version.trim_start_matches('v');
            let module = match artifact.name.as_str() {
                "kubernetes" => pinned::kubernetes(&Version::parse(version)?)?,
                _ => pinned::cri_dockerd(version)?,
            };
            if module.digest() != *go_sum || module.flags() != *flags {
                return Err(anyhow!(
                    "the lock was made by another version of this program, which pins other modules or flags"
                )
                .context(Hint(format!("kscratch-image lock --update {}", artifact.name))));
            }
            let compiled = match gobuild::remembered(&module, locked, store) {
                Some(compiled) => compiled,
                None => {
                    let go = toolchain::of_version(go, &module, locked, store)?;
                    gobuild::compile(&module, &go, locked, offline, store, console)?
                }
            };
            let contents = tarball::Contents { programs: compiled.programs, ..tarball::Contents::default() };
            Ok((label(format!("compiled with go {locked}")), contents))
        }
        Origin::DebianPackage { .. } => bail!("the lock says it is a Debian package"),
    }
}

#[cfg(test)]
mod tests;
