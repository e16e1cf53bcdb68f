//! An [`ImageSpec`] becomes a [`Lock`]: packages are looked up in Debian's verified indices, libraries follow from their dependencies.
//!
//! Only library packages are followed (sections `libs` and `oldlibs`): programs are declared, and what an image needs of a library is
//! found later from its ELF files. So no general dependency solver is needed; the newest version of a package is taken, which Debian
//! keeps consistent within a release, its updates and its security fixes.
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};

use crate::console::{Console, Hint};
use crate::debian::keyring::Keyring;
use crate::debian::mirror::Mirrors;
use crate::debian::packages::{Package, Packages};
use crate::debian::release::Release;
use crate::http::Http;
use crate::kubernetes::{self, part::of_masters};
use crate::lock::{Archive, Artifact, DebianRelease, Inputs, Lock, Origin, is_kernel};
use crate::spec::{ImageSpec, Role};
use crate::store::{Digest, Store};

/// InRelease files of large archives have some 150 kB.
const RELEASE_LIMIT: u64 = 16 << 20;
/// Packages.xz of Debian's main has some 10 MB.
const INDEX_LIMIT: u64 = 256 << 20;

/// Where resolving looks, and with what.
#[derive(Debug)]
pub struct Source<'a> {
    /// Debian's archives.
    pub mirrors: &'a Mirrors,
    /// Keys that they must be signed with.
    pub keyring: &'a Keyring,
    /// The client.
    pub http: &'a Http,
    /// Where verified indices are kept.
    pub store: &'a Store,
    /// The time, seconds since 1970.
    pub now: u64,
}

/// Seconds since 1970 by this machine's clock: asked once, at the edge of the program.
pub fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("this machine's clock is before 1970")?.as_secs())
}

/// Chooses every artifact. Those of Kubernetes for this role are resolved elsewhere and come along in `kubernetes`.
pub fn lock(
    spec: &ImageSpec,
    role: Role,
    source: &Source,
    kubernetes: Vec<Artifact>,
    console: &Console,
) -> Result<Lock> {
    let names = spec.packages();
    let (releases, packages) = debian(&names, spec, source, console)?;
    let mut artifacts = choose(&names, spec, &packages)?;
    artifacts.extend(kubernetes);
    artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Lock { version: 1, inputs: Inputs::of(spec, role), releases, artifacts })
}

/// A node's lock with what masters need besides, and nothing else changed: both images are of one set of packages.
pub fn with_control_plane(spec: &ImageSpec, lock: Lock, control_plane: Vec<Artifact>) -> Lock {
    let kept = lock.artifacts.into_iter().filter(|artifact| !of_masters(&artifact.name));
    let mut artifacts: Vec<Artifact> = kept.chain(control_plane).collect();
    artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    Lock { inputs: Inputs::of(spec, Role::Master), artifacts, ..lock }
}

/// Chooses these packages and the libraries that they depend on: for programs that the builder itself starts.
pub fn packages(names: &[String], spec: &ImageSpec, source: &Source, console: &Console) -> Result<Lock> {
    let (releases, packages) = debian(names, spec, source, console)?;
    let artifacts = choose(names, spec, &packages)?;
    Ok(Lock { version: 1, inputs: Inputs::of(spec, Role::Node), releases, artifacts })
}

/// A lock that differs from `old` only in the artifacts named, in those whose settings have changed, and in what is new or no longer
/// asked for.
pub fn update(spec: &ImageSpec, old: &Lock, mut fresh: Lock, names: &[String]) -> Result<Lock> {
    let kernel = spec.kernel.flavour.package();
    // The kernel's package has its version in its name; its flavour's package stands for it.
    let kernel_named = names.iter().any(|name| name == kernel || name == "kernel" || is_kernel(name));
    for name in names {
        if fresh.get(name).is_none() && old.get(name).is_none() && name != kernel && name != "kernel" {
            return Err(
                anyhow!("there is no artifact `{name}`").context(Hint("kscratch.lock lists their names".into()))
            );
        }
    }
    // The parts of a Kubernetes release are of one version.
    let kubernetes_named = names.iter().any(|name| kubernetes::part::of(name).is_some());
    let keeps = |name: &str| match kubernetes::part::of(name) {
        Some(_) => !kubernetes_named,
        None if is_kernel(name) => !kernel_named,
        None => !names.iter().any(|named| named == name),
    };
    let stays = |name: &str| keeps(name) && old.inputs.same_settings(&fresh.inputs, name);
    let declared = |name: &str| old.inputs.packages.iter().any(|package| package == name);
    let mut artifacts: Vec<Artifact> = Vec::new();
    for artifact in std::mem::take(&mut fresh.artifacts) {
        let locked = if is_kernel(&artifact.name) {
            // One of another flavour is not what the settings ask for.
            old.kernel().ok().filter(|_| declared(kernel))
        } else {
            old.get(&artifact.name)
        };
        artifacts.push(match locked {
            Some(locked) if stays(&artifact.name) => locked.clone(),
            _ => artifact,
        });
    }
    // What stays may need libraries that nothing new does; which, its ELF files alone say. One too many is in no image: only what is reached is.
    let libraries: Vec<Artifact> = old
        .artifacts
        .iter()
        .filter(|artifact| matches!(artifact.origin, Origin::DebianPackage { .. }))
        .filter(|Artifact { name, .. }| !is_kernel(name) && !declared(name) && stays(name))
        .filter(|library| !artifacts.iter().any(|artifact| artifact.name == library.name))
        .cloned()
        .collect();
    artifacts.extend(libraries);
    artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Lock { artifacts, ..fresh })
}

/// Fetches and verifies the indices of every suite: of the first component, and of the others where it lacks one of `names`.
pub(crate) fn debian(
    names: &[String],
    spec: &ImageSpec,
    source: &Source,
    console: &Console,
) -> Result<(Vec<DebianRelease>, Packages)> {
    let mut suites = Vec::new();
    // From the most to the least urgent: of equal versions, the first archive's stays, whose mirror is the fresher one.
    for suite in Inputs::of(spec, Role::Node).suites.into_iter().rev() {
        let archive = if suite.ends_with("-security") { Archive::Security } else { Archive::Main };
        let base = format!("{}/dists/{suite}", source.mirrors.base(archive)?);
        let bytes = source.http.get(&format!("{base}/InRelease"), RELEASE_LIMIT)?;
        let release = Release::verify(&bytes, &suite, source.keyring, source.now)
            .with_context(|| format!("verifying {base}/InRelease"))?;
        console.detail(format_args!("{suite}: of {}", crate::debian::release::date(release.date)));
        suites.push((suite, archive, base, release));
    }
    let mut packages = Packages::default();
    for (at, component) in spec.debian.components.iter().enumerate() {
        if at > 0 && names.iter().all(|name| packages.get(name).is_some()) {
            break;
        }
        for (suite, archive, base, release) in &suites {
            let Some(index) = index(base, component, release, source)? else {
                // Small archives of one's own have no more than they need.
                ensure!(at > 0, "the InRelease file of {base} names no {component}/binary-amd64/Packages");
                continue;
            };
            packages
                .add(BufReader::with_capacity(1 << 20, index), *archive)
                .with_context(|| format!("reading the package index of {suite}, {component}"))?;
        }
    }
    let locked = |(suite, archive, _, release): (String, Archive, String, Release)| DebianRelease {
        archive,
        suite,
        date: release.date,
        sha256: release.sha256,
    };
    Ok((suites.into_iter().rev().map(locked).collect(), packages))
}

/// The package index that a release names for a component, if it does: from the store, or fetched and verified into it.
fn index(base: &str, component: &str, release: &Release, source: &Source) -> Result<Option<Box<dyn Read>>> {
    // Every Debian mirror has .xz; small archives of one's own may have another form.
    for (ending, unpack) in [(".xz", unpack_xz as fn(std::fs::File) -> Box<dyn Read>), (".gz", unpack_gz), ("", plain)]
    {
        let path = format!("{component}/binary-amd64/Packages{ending}");
        let Some((size, digest)) = release.files.get(&path) else { continue };
        if !source.store.has(digest) {
            fetch_index(base, &path, release.by_hash, *size, digest, source)?;
        }
        return Ok(Some(unpack(source.store.get(digest)?)));
    }
    Ok(None)
}

fn fetch_index(base: &str, path: &str, by_hash: bool, size: u64, digest: &Digest, source: &Source) -> Result<()> {
    if size > INDEX_LIMIT {
        return Err(anyhow!("{base}/{path} has {size} bytes, which is more than an index should have"));
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let url = if by_hash { format!("{base}/{folder}/by-hash/SHA256/{digest}") } else { format!("{base}/{path}") };
    let part = source.store.part(digest);
    source.http.download(&url, &part, size, digest, &mut |_| {}).with_context(|| {
        Hint("a mirror that is being updated, or is broken: try again, or another one with --debian-mirror URL".into())
    })?;
    source.store.publish(&part, digest)
}

fn unpack_xz(file: std::fs::File) -> Box<dyn Read> {
    Box::new(liblzma::read::XzDecoder::new_multi_decoder(file))
}

fn unpack_gz(file: std::fs::File) -> Box<dyn Read> {
    Box::new(flate2::read::MultiGzDecoder::new(file))
}

fn plain(file: std::fs::File) -> Box<dyn Read> {
    Box::new(file)
}

/// The declared packages and the libraries that they depend on.
fn choose(names: &[String], spec: &ImageSpec, packages: &Packages) -> Result<Vec<Artifact>> {
    let mut chosen: BTreeMap<&str, &Package> = BTreeMap::new();
    let mut open: Vec<&Package> = Vec::new();
    for name in names {
        let package = packages.get(name).ok_or_else(|| unknown(name, spec, packages))?;
        // The flavour's package is empty and depends on the kernel of the day.
        open.push(if name == spec.kernel.flavour.package() { kernel(package, packages)? } else { package });
    }
    while let Some(package) = open.pop() {
        if chosen.insert(&package.name, package).is_some() {
            continue;
        }
        for alternatives in &package.depends {
            let library =
                alternatives.iter().filter_map(|name| packages.get(name)).find(|package| package.is_library());
            open.extend(library.filter(|library| !chosen.contains_key(library.name.as_str())));
        }
    }
    Ok(chosen.into_values().map(artifact).collect())
}

fn kernel<'a>(flavour: &Package, packages: &'a Packages) -> Result<&'a Package> {
    let image = flavour.depends.iter().flatten().find(|name| is_kernel(name));
    let image =
        image.with_context(|| format!("the package {} {} depends on no kernel", flavour.name, flavour.version))?;
    packages.get(image).with_context(|| {
        format!("the package {image}, which {} {} depends on, is not in the indices", flavour.name, flavour.version)
    })
}

fn unknown(name: &str, spec: &ImageSpec, packages: &Packages) -> anyhow::Error {
    let suites = Inputs::of(spec, Role::Node).suites.join(", ");
    let components = spec.debian.components.join(", ");
    let error = anyhow!("no package `{name}` among the {} of {suites} ({components}, amd64)", packages.len());
    let for_metal = |list: &[String]| list.iter().any(|package| package == name);
    let error = match packages.similar(name) {
        _ if for_metal(spec.microcode_packages()) => error.context(Hint(
            "another mirror may have it; without microcode: `microcode = []` under [hardware] in image.toml".into(),
        )),
        _ if for_metal(spec.firmware_packages()) => error.context(Hint(
            "another mirror may have it; or name others: `firmware = [...]` under [hardware] in image.toml".into(),
        )),
        Some(similar) => error.context(Hint(format!("there is a package `{similar}`"))),
        None => error.context(Hint("look at `package` and [debian] in image.toml".into())),
    };
    error.context(format!("looking for the package {name}"))
}

pub(crate) fn artifact(package: &Package) -> Artifact {
    Artifact {
        name: package.name.clone(),
        version: package.version.clone(),
        size: Some(package.size),
        sha256: Some(package.sha256),
        origin: Origin::DebianPackage { archive: package.archive, path: package.path.clone() },
    }
}

#[cfg(test)]
mod tests;
