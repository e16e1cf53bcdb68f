//! A spec and its lock become a disk image: `build` is the table of contents, every verb stands in the module of its name.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kscratch_formats::image::Image;

use crate::console::{Console, Hint};
use crate::debian::keyring::Keyring;
use crate::debian::mirror::Mirrors;
use crate::http::Http;
use crate::kubernetes::{self, Release};
use crate::lock::Lock;
use crate::modules::{self, KernelModules};
use crate::overlay::{self, Versions};
use crate::reach::{self, Package};
use crate::spec::{ImageSpec, Role};
use crate::store::{Digest, Store};
use crate::tree::{Content, Kind, Node, Origin, Tree};
use crate::unpack::{self, Unpacked};
use crate::write::Readers;
use crate::{
    blockmap, check, controlplane, dockerstore, fetch, filesystem, firmware, initramfs, manifest, microcode, plan,
    resolve, rootarchive, sbom, uki, write,
};

mod form;
mod medium;
mod netboot;

pub use form::Form;
pub use netboot::{Files as NetbootFiles, Written as NetbootFile};

/// Where artifacts come from and go to.
#[derive(Debug)]
pub struct Workshop {
    /// The store of verified files.
    pub store: Store,
    /// Whether the network may be used.
    pub offline: bool,
    /// What is told.
    pub console: Console,
}

/// What is built, and where it goes.
#[derive(Debug)]
pub struct Request<'a> {
    /// The settings.
    pub spec: &'a ImageSpec,
    /// Exactly which artifacts.
    pub lock: &'a Lock,
    /// The role.
    pub role: Role,
    /// Files for the ESP by absolute path: role metadata, secrets.
    pub esp_files: BTreeMap<String, Vec<u8>>,
    /// The file to write, or the folder.
    pub output: PathBuf,
    /// Its form.
    pub form: Form,
    /// Where a folder for network boot will be served.
    pub root_url: Option<String>,
}

/// A finished image.
#[derive(Debug)]
pub struct Built {
    /// The disk's digest, or the SHA-256 of an archive, or of a root for network boot.
    pub digest: Digest,
    /// The file's length in bytes.
    pub len: u64,
    /// Bytes that the file takes where it lies.
    pub allocated: u64,
    /// The block map's file, where there is a disk.
    pub map: Option<PathBuf>,
    /// The manifest's file.
    pub manifest: PathBuf,
    /// The SBOM's file.
    pub sbom: PathBuf,
    /// Regular files in the root.
    pub files: usize,
    /// How long each step took.
    pub steps: Vec<(&'static str, Duration)>,
}

/// The root tree with what is needed around it.
#[derive(Debug)]
pub struct Root {
    /// The tree.
    pub tree: Tree,
    /// Versions of what is in it.
    pub versions: Versions,
    /// The kernel's modules, those of the initramfs among them.
    modules: KernelModules,
}

/// Chooses every artifact anew. What is for masters is enough for nodes too.
///
/// # Errors
/// No network where one is needed; a mirror, signature, index or version that is not right.
pub fn lock(spec: &ImageSpec, role: Role, workshop: &Workshop) -> Result<Lock> {
    let console = &workshop.console;
    choosing(spec, workshop, |source| {
        resolve::lock(spec, role, source, kubernetes::resolve(spec, role, source, console)?, console)
    })
}

/// Adds to a node's lock what masters need besides; everything else stays as it was chosen.
///
/// # Errors
/// As [`lock`]; a lock without Kubernetes.
pub fn lock_for_masters(spec: &ImageSpec, lock: Lock, workshop: &Workshop) -> Result<Lock> {
    let control_plane = choosing(spec, workshop, |source| {
        let kubernetes = lock.get("kubernetes").context("the lock names no kubernetes")?;
        kubernetes::control_plane(spec, kubernetes, source, &workshop.console)
    })?;
    Ok(resolve::with_control_plane(spec, lock, control_plane))
}

/// Does what asks the network which artifacts there are.
fn choosing<T>(
    spec: &ImageSpec,
    workshop: &Workshop,
    choose: impl FnOnce(&resolve::Source<'_>) -> Result<T>,
) -> Result<T> {
    if workshop.offline {
        return Err(anyhow!("choosing artifacts asks the Debian mirror, and the network may not be used").context(
            Hint("run `kscratch-image lock` with a network once, then build with --locked --offline".into()),
        ));
    }
    let mirrors = Mirrors::find(&spec.debian, Path::new("/etc/apt"))?;
    let keyring = Keyring::find(spec.debian.keyring.as_deref())?;
    let http = Http::new()?;
    let source = resolve::Source {
        mirrors: &mirrors,
        keyring: &keyring,
        http: &http,
        store: &workshop.store,
        now: resolve::now()?,
    };
    choose(&source)
}

/// Makes the root tree of a role, checked.
///
/// # Errors
/// Whatever a step says: an artifact that is missing, a library that nothing has, a check that fails.
pub fn root(
    spec: &ImageSpec,
    lock: &Lock,
    role: Role,
    workshop: &Workshop,
    clock: &mut Clock,
) -> Result<(Root, Unpackeds)> {
    obtain(spec, lock, workshop)?;
    clock.done("fetch");
    let release = kubernetes::obtain(lock, role, &spec.folder, &workshop.store, workshop.offline, &workshop.console)?;
    clock.done("kubernetes");
    let unpacked = Unpackeds { by_name: unpack::all(&workshop.store, lock, &workshop.console)? };
    let packages = unpacked.packages(lock)?;
    clock.done("unpack");
    let modules = modules::kernel(&spec.kernel_with_hardware(), &packages, &workshop.store)?;
    clock.done("modules");
    let versions = Versions {
        kubernetes: release.version.clone(),
        cri_dockerd: release.cri_dockerd.clone(),
        docker: lock.get("docker.io").map(|artifact| artifact.version.clone()).unwrap_or_default(),
        kernel: modules.version.clone(),
        images: controlplane::references(&release),
    };
    let reached = reach::reach(spec, role, &packages, &workshop.store)?;
    let images = images(spec, &release, &reached, &workshop.store)?;
    let tree = overlay::base(role, &versions)?
        .merge(overlay::manifests(&spec.manifests.files)?)?
        .merge(overlay::folders(&spec.overlays.folders)?)?
        .merge(reached)?
        .merge(programs(&release)?)?
        .merge(modules.root.clone())?
        .merge(firmware::tree(&modules.root_firmware, spec.firmware_packages(), &packages)?)?
        .merge(dockerstore::seed(&images)?)?
        .complete()?;
    clock.done("tree");
    check::tree(&tree, &workshop.store)?;
    clock.done("check");
    Ok((Root { tree, versions, modules }, unpacked))
}

/// Builds the image.
///
/// # Errors
/// Whatever a step says; nothing is left half-written.
pub fn build(request: &Request<'_>, workshop: &Workshop) -> Result<Built> {
    let mut clock = Clock::start();
    let (spec, store) = (request.spec, &workshop.store);
    let time = i64::try_from(source_date(request.lock)?).context("taking SOURCE_DATE_EPOCH as a time")?;
    request.form.wants(request.root_url.as_deref())?;
    if request.form == Form::Pxe {
        let spec = spec.for_netboot();
        let (root, unpacked) = root(&spec, request.lock, request.role, workshop, &mut clock)?;
        return netboot::folder(request, &spec, (&root, &unpacked), workshop, clock, time);
    }
    let sector = spec.disk.sector_size.bytes();
    request.form.bears(sector)?;
    let (root, unpacked) = root(spec, request.lock, request.role, workshop, &mut clock)?;
    let Some(format) = request.form.of_disk(time) else {
        return archive(request, &root, workshop, clock, time);
    };
    let packages = unpacked.packages(request.lock)?;
    let root_filesystem = filesystem::root(&root.tree, spec.disk.root.0, time)?;
    let state = spec.disk.state.bytes();
    let state = state.map(|bytes| filesystem::state(bytes, time, &root_filesystem.digest)).transpose()?;
    let place = uki::Place::Partition(plan::root_guid(&root_filesystem.digest));
    let words = spec.disk.state.word();
    let cmdline = uki::command_line(place, &spec.kernel.console, words.iter().chain(&spec.kernel.cmdline))?;
    let boot =
        boot_parts(spec, &root, &packages, Tree::default(), store, time)?.uki(&root.versions.kernel, &cmdline)?;
    // An installer has the metadata itself, and puts them onto the disk with the rest.
    let (installer, none) = (request.form == Form::Iso, BTreeMap::new());
    let esp_files = if installer { &none } else { &request.esp_files };
    let esp = filesystem::esp(boot, esp_files, spec.disk.esp.0, sector, time)?;
    let plan = plan::disk(esp, root_filesystem, state, sector)?;
    clock.done("filesystems");
    if installer {
        return medium::installer(request, &root, &packages, &plan, workshop, clock);
    }
    let out = (request.output.as_path(), Readers::of(esp_files));
    let written = write_image(&plan.image, format, out, "writing the disk", workshop)?;
    clock.done("write");
    let map = blockmap::write(&request.output, &written)?;
    clock.done("block map");
    let manifest = manifest::write(request, &root, manifest::Product::Disk(&plan, &written))?;
    let sbom = sbom::write(request, &root, time)?;
    clock.done("manifest");
    let write::Written { digest, len, allocated, .. } = written;
    Ok(Built { digest, len, allocated, map: Some(map), manifest, sbom, files: root.files(), steps: clock.steps })
}

/// The root alone, without a disk around it.
fn archive(request: &Request<'_>, root: &Root, workshop: &Workshop, mut clock: Clock, time: i64) -> Result<Built> {
    if !request.esp_files.is_empty() {
        let error = anyhow!("a tar has no EFI system partition, which role metadata stands on");
        return Err(error.context(Hint("leave out --metadata, or take a form that is a disk".into())));
    }
    let mut bar = workshop.console.bytes("writing the archive", rootarchive::work(&root.tree));
    let told = &mut |bytes| bar.add(bytes);
    let archive = rootarchive::write(&root.tree, &workshop.store, time, &request.output, told)?;
    clock.done("write");
    let manifest = manifest::write(request, root, manifest::Product::Archive(&archive))?;
    let sbom = sbom::write(request, root, time)?;
    clock.done("manifest");
    let rootarchive::Archive { sha256: digest, len } = archive;
    Ok(Built { digest, len, allocated: len, map: None, manifest, sbom, files: root.files(), steps: clock.steps })
}

impl Root {
    /// How many regular files it has.
    fn files(&self) -> usize {
        self.tree.nodes.values().filter(|node| matches!(node.kind, Kind::File(_))).count()
    }
}

/// The packages of a lock as they were unpacked, by name.
#[derive(Debug)]
pub struct Unpackeds {
    by_name: BTreeMap<String, Unpacked>,
}

impl Unpackeds {
    /// With their versions.
    fn packages<'a>(&'a self, lock: &'a Lock) -> Result<Vec<Package<'a>>> {
        let with_version = |(name, unpacked): (&'a String, &'a Unpacked)| {
            let artifact = lock.get(name).with_context(|| format!("the lock does not name the package {name}"))?;
            Ok(Package { name, version: &artifact.version, unpacked })
        };
        self.by_name.iter().map(with_version).collect()
    }
}

/// Steps and how long they took.
#[derive(Debug)]
pub struct Clock {
    last: Instant,
    steps: Vec<(&'static str, Duration)>,
}

impl Clock {
    /// From now on.
    pub fn start() -> Clock {
        Clock { last: Instant::now(), steps: Vec::new() }
    }

    fn done(&mut self, step: &'static str) {
        self.steps.push((step, self.last.elapsed()));
        self.last = Instant::now();
    }
}

/// Fetches what the store lacks, or says what is missing.
fn obtain(spec: &ImageSpec, lock: &Lock, workshop: &Workshop) -> Result<()> {
    if workshop.offline {
        return fetch::offline(lock, &workshop.store);
    }
    if fetch::missing(lock, &workshop.store).is_empty() {
        return Ok(());
    }
    let mirrors = Mirrors::find(&spec.debian, Path::new("/etc/apt"))?;
    fetch::all(lock, &workshop.store, &mirrors, &Http::new()?, &workshop.console)?;
    Ok(())
}

/// Kubernetes' programs and cri-dockerd, in `/usr/bin`.
fn programs(release: &Release) -> Result<Tree> {
    let mut tree = Tree::default();
    for (name, program) in &release.programs {
        let path = format!("/usr/bin/{name}");
        let origin = Origin { declaration: format!("program {path}"), artifact: program.artifact.clone() };
        tree.insert(&path, Node::file(Content::Stored(program.file.clone()), 0o755, origin))?;
    }
    Ok(tree)
}

/// Images in docker's store at first boot: our own, a master's control plane, and those that the spec names. What is in `tree`
/// goes into them too: the certificates of the public authorities.
fn images(spec: &ImageSpec, release: &Release, tree: &Tree, store: &Store) -> Result<Vec<dockerstore::Image>> {
    let mut images = controlplane::images(release, tree, store)?;
    images.extend([
        dockerstore::compose(dockerstore::PAUSE, "pause", overlay::programs::PAUSE, None)?,
        dockerstore::compose(dockerstore::HELLO, "hello", overlay::programs::HELLO, Some(8080))?,
    ]);
    for archive in &spec.images.load {
        let name = archive.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        images.extend(dockerstore::load(archive, &name, store)?);
    }
    Ok(images)
}

/// What a machine starts with.
struct BootParts {
    kernel: Vec<u8>,
    initramfs: Vec<u8>,
    stub: Vec<u8>,
}

impl BootParts {
    /// All in one EFI program.
    fn uki(&self, version: &str, cmdline: &str) -> Result<std::sync::Arc<[u8]>> {
        let BootParts { kernel, initramfs, stub } = self;
        uki::build(&uki::Boot { stub, kernel, version, initramfs, cmdline, os_release: &overlay::os_release() })
    }
}

/// These parts; `more` is in the initramfs besides.
fn boot_parts(
    spec: &ImageSpec,
    root: &Root,
    packages: &[Package<'_>],
    more: Tree,
    store: &Store,
    time: i64,
) -> Result<BootParts> {
    let firmware = firmware::tree(&root.modules.initramfs_firmware, spec.firmware_packages(), packages)?;
    let early = root.modules.initramfs.clone().merge(firmware)?.merge(more)?;
    let early = initramfs::tree(&early, overlay::programs::INIT)?;
    // The kernel looks for microcode at the very beginning, and unpacks one archive after the other.
    let mut initramfs = microcode::archive(spec.microcode_packages(), packages, store, time)?;
    initramfs.extend(initramfs::archive(&early, store.root(), time)?);
    Ok(BootParts {
        stub: package_file(packages, &spec.boot.stub, store)?,
        kernel: package_file(packages, &format!("/boot/vmlinuz-{}", root.versions.kernel), store)?,
        initramfs,
    })
}

/// A file that the builder itself needs from a package.
fn package_file(packages: &[Package<'_>], path: &str, store: &Store) -> Result<Vec<u8>> {
    let found = packages.iter().find_map(|package| match &package.unpacked.get(path)?.kind {
        unpack::EntryKind::File(stored) => Some(stored),
        _ => None,
    });
    let stored = found.with_context(|| format!("none of the fetched packages holds {path}"))?;
    store.read(stored).with_context(|| format!("reading {path}"))
}

fn write_image(
    image: &Image<Content>,
    format: write::Format,
    (output, readers): (&Path, Readers),
    what: &'static str,
    workshop: &Workshop,
) -> Result<write::Written> {
    let bar = std::sync::Mutex::new(workshop.console.bytes(what, write::work(image)));
    let progress = |bytes: u64| {
        if let Ok(mut bar) = bar.lock() {
            bar.add(bytes);
        }
    };
    write::image_for(readers, image, workshop.store.root(), format, output, &progress)
}

/// `SOURCE_DATE_EPOCH`, or the newest date of the Debian releases in the lock; seconds since 1970.
fn source_date(lock: &Lock) -> Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => {
            text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is `{text}`, not a number of seconds since 1970"))
        }
        Err(_) => Ok(lock.source_date()),
    }
}

#[cfg(test)]
mod tests;
