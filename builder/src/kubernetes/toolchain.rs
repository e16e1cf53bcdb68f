//! A pinned module becomes the Go that compiles it: the machine's own, or Debian's, unpacked in the cache without being installed.
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};

use super::gobuild::{fitting_go, go_version};
use super::pinned::Module;
use super::version;
use crate::console::{Console, Hint};
use crate::lock::{Artifact, Inputs, Lock};
use crate::resolve::{self, Source};
use crate::spec::{Debian, ImageSpec, Role};
use crate::store::{Digest, Store, sync_filesystem, sync_folder};
use crate::unpack::{self, EntryKind};

/// How many minor versions of Go newer than a module's own are tried.
const NEWER: u32 = 3;

/// The version of the Go that will compile a module, made ready: the machine's where it fits, otherwise Debian's.
///
/// # Errors
/// Neither the machine nor Debian has one that is new enough.
pub fn ready(
    machine: &Path,
    module: &Module,
    spec: &ImageSpec,
    source: &Source<'_>,
    console: &Console,
) -> Result<String> {
    let unfit = match fitting_go(machine, module) {
        Ok(version) => return Ok(version),
        Err(unfit) => unfit,
    };
    let own = &spec.debian.suite;
    let suites = [own.clone(), format!("{own}-backports")];
    for suite in &suites {
        match debian(module, suite, spec, source, console) {
            Ok(Some(version)) => return Ok(version),
            Ok(None) => console.detail(format_args!("{suite} has no Go {} or later", module.go())),
            Err(error) => console.warn(format_args!("looking for Go in {suite}: {error:#}")),
        }
    }
    Err(unfit.context(format!(
        "neither this machine nor Debian's {} has Go {} or later",
        suites.join(" or "),
        module.go()
    )))
}

/// The program of exactly this version of Go.
///
/// # Errors
/// Neither is it the machine's, nor was it unpacked in the cache.
pub fn of_version(machine: &Path, module: &Module, locked: &str, store: &Store) -> Result<PathBuf> {
    let unpacked = program(store, locked);
    if let Some(program) = unpacked.filter(|program| program.is_file()) {
        // It is started in the module's folder.
        return std::path::absolute(&program).with_context(|| format!("finding {}", program.display()));
    }
    let found = go_version(machine);
    if found.as_ref().is_ok_and(|found| found == locked) {
        return Ok(machine.to_owned());
    }
    let found =
        found.map_or_else(|_| "there is none on this machine".into(), |found| format!("this machine's is {found}"));
    Err(anyhow!("the lock says Go {locked}, and {found}")
        .context(Hint(format!("take what there is: kscratch-image lock --update {}", module.name))))
}

/// Where a version of Go is in the cache: `go/1.26.8/usr/lib/go-1.26/bin/go`.
fn program(store: &Store, version: &str) -> Option<PathBuf> {
    let (major, minor, _) = version::go(version).ok()?;
    Some(store.root().join(format!("go/{version}/usr/lib/go-{major}.{minor}/bin/go")))
}

/// The oldest Go of a suite that compiles the module, fetched and unpacked.
fn debian(
    module: &Module,
    suite: &str,
    spec: &ImageSpec,
    source: &Source<'_>,
    console: &Console,
) -> Result<Option<String>> {
    let debian = Debian { suite: suite.into(), updates: false, security: false, ..spec.debian.clone() };
    let spec = ImageSpec { debian, ..spec.clone() };
    let (releases, packages) = resolve::debian(&[], &spec, source, console)?;
    let (major, oldest, _) = version::go(module.go())?;
    for minor in oldest..=oldest + NEWER {
        let (Some(go), Some(src)) =
            (packages.get(&format!("golang-{major}.{minor}-go")), packages.get(&format!("golang-{major}.{minor}-src")))
        else {
            continue;
        };
        // What stands before Debian's revision is Go's own version.
        let version = go.version.split(['-', '+', '~']).next().unwrap_or_default().to_owned();
        if version::go(&version)? < version::go(module.go())? {
            continue;
        }
        let artifacts = vec![resolve::artifact(go), resolve::artifact(src)];
        let lock = Lock { version: 1, inputs: Inputs::of(&spec, Role::Node), releases, artifacts };
        if !program(source.store, &version).is_some_and(|program| program.is_file()) {
            console.say(format_args!("taking Go {version} from Debian's {suite}"));
            crate::fetch::just_resolved(&lock, source.store, source.mirrors, source.http, console)?;
            install(&lock.artifacts, &version, source.store).with_context(|| format!("unpacking Go {version}"))?;
        }
        return Ok(Some(version));
    }
    Ok(None)
}

/// Lays the packages' files out as they would be installed, below `go/VERSION` in the cache.
fn install(artifacts: &[Artifact], version: &str, store: &Store) -> Result<()> {
    let work = store.scratch()?;
    let root = work.path().join("root");
    for artifact in artifacts {
        let digest = artifact.sha256.context("the package has no digest")?;
        lay_out(&digest, &root, store).with_context(|| format!("unpacking {} {}", artifact.name, artifact.version))?;
    }
    let place = store.root().join("go").join(version);
    let program = program(store, version).context("its version is no version of Go")?;
    let inside = program.strip_prefix(&place).context("its program is elsewhere")?;
    let found = go_version(&root.join(inside))?;
    ensure!(found == version, "the package says it is Go {version}, and its program says {found}");
    fs::create_dir_all(store.root().join("go"))?;
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    // A folder of that name is always a whole one, after a power cut too.
    sync_filesystem(&root)?;
    fs::rename(&root, &place).with_context(|| format!("naming {}", place.display()))?;
    sync_folder(&place)
}

fn lay_out(package: &Digest, root: &Path, store: &Store) -> Result<()> {
    for (path, entry) in unpack::one(store, package)?.entries {
        let below = path.trim_start_matches('/');
        if !(below.starts_with("usr/lib/go-") || below.starts_with("usr/share/go-"))
            || below.split('/').any(|part| part == "..")
        {
            continue;
        }
        let place = root.join(below);
        let context = || format!("writing {}", place.display());
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).with_context(context)?;
        }
        match entry.kind {
            EntryKind::Directory => fs::create_dir_all(&place).with_context(context)?,
            EntryKind::File(stored) => {
                fs::write(&place, store.read(&stored)?).with_context(context)?;
                fs::set_permissions(&place, fs::Permissions::from_mode(u32::from(entry.mode & 0o755)))
                    .with_context(context)?;
            }
            EntryKind::Symlink(target) => symlink(target, &place).with_context(context)?,
            EntryKind::Skipped { .. } | EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::testarchive::{NOW, TestArchive, deb};
    use crate::http::Http;
    use crate::kubernetes::pinned;

    /// A package's program; packages of tests have no permission bits of their own, so the shell runs it.
    const GO: &[u8] = b"#!/bin/sh\necho go1.26.11\n";

    fn archive(version: &str) -> TestArchive {
        let mut archive = TestArchive::new();
        let files: [(&str, &[u8]); 2] = [("./usr/lib/go-1.26/bin/go", GO), ("./etc/other", b"not laid out")];
        archive.package("golang-1.26-go", version, "Section: golang\n", deb(&files));
        archive.package(
            "golang-1.26-src",
            version,
            "Section: golang\n",
            deb(&[("./usr/share/go-1.26/src/x.go", b"package x")]),
        );
        archive.publish();
        archive
    }

    fn run(archive: &TestArchive, store: &Store) -> Result<String> {
        let (mirrors, keyring, http) = (archive.mirrors(), archive.key.keyring(), Http::new()?.attempts(1));
        let source = Source { mirrors: &mirrors, keyring: &keyring, http: &http, store, now: NOW };
        let module = pinned::find("kubernetes", "1.37.2")?;
        ready(Path::new("/nonexistent/go"), &module, &ImageSpec::defaults()?, &source, &Console::silent())
    }

    #[test]
    fn debians_go_is_unpacked_where_the_machine_has_none() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path()).unwrap();
        assert_eq!(run(&archive("1.26.11-1~bpo13+1"), &store).unwrap(), "1.26.11");
        let module = pinned::find("kubernetes", "1.37.2").unwrap();
        let program = of_version(Path::new("/nonexistent/go"), &module, "1.26.11", &store).unwrap();
        assert_eq!(go_version(&program).unwrap(), "1.26.11");
        assert!(store.root().join("go/1.26.11/usr/share/go-1.26/src/x.go").is_file());
        assert!(!store.root().join("go/1.26.11/etc").exists());
        // A version that leads to another program, and to this one by another way.
        for elsewhere in ["1.26.11/../1.26.11", "1.26.11/../../../x"] {
            assert!(of_version(Path::new("/nonexistent/go"), &module, elsewhere, &store).is_err(), "{elsewhere}");
        }
        let error = of_version(Path::new("/nonexistent/go"), &module, "1.26.12", &store).unwrap_err();
        assert!(
            format!("{error:#}").contains("the lock says Go 1.26.12, and there is none on this machine"),
            "{error:#}"
        );
    }

    #[test]
    fn a_package_that_is_not_what_it_says_is_not_kept() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path()).unwrap();
        let error = format!("{:#}", run(&archive("1.26.12-1"), &store).unwrap_err());
        assert!(
            error.contains("neither this machine nor Debian's trixie or trixie-backports has Go 1.26.0 or later"),
            "{error}"
        );
        assert!(!store.root().join("go").exists());
        assert!(run(&archive("1.19.2-1"), &store).is_err(), "too old");
    }
}
