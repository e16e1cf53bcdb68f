//! Parsed arguments become calls of the library, and their answers text on standard output.
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::CommandFactory;

use crate::cli::{
    BuildArgs, Cli, ColorChoice, Command, InspectArgs, LockArgs, OutputOptions, Role, SpecArgs, StampArgs, WhyArgs,
};
use crate::console::{Console, Hint, Verbosity, human_bytes};
use crate::image::{self, Built, Workshop};
use crate::lock::Lock;
use crate::spec::{self, ImageSpec};
use crate::store::Store;
use crate::{blockmap, inspect, kubernetes, resolve, stamp, why};

mod autopsy;
mod cluster;
mod flash;
mod kubeconfig;
mod machines;
mod node;
mod reset;
mod run;

/// Does what the arguments say.
///
/// # Errors
/// Whatever the command says.
pub fn execute(cli: Cli, console: &Console) -> Result<ExitCode> {
    match cli.command {
        Command::Build(args) => build(&args, console)?,
        Command::Lock(args) => lock(&args, console)?,
        Command::Config(args) => config(&args)?,
        Command::Inspect(args) => inspect(&args)?,
        Command::Stamp(args) => stamp(&args, console)?,
        Command::Flash(args) => return flash::execute(&args, console),
        Command::Devices(args) => flash::devices(&args)?,
        Command::Autopsy(args) => autopsy::execute(&args, console)?,
        Command::Reset(args) => reset::execute(&args, console)?,
        Command::Run(args) => return run::execute(&args, console),
        Command::Cluster(command) => return cluster::execute(&command, console),
        Command::Node(command) => return node::execute(&command, console),
        Command::Kubeconfig(args) => kubeconfig::execute(&args, console)?,
        Command::Why(args) => why(&args, console)?,
        Command::Schema => print(&format!("{}\n", serde_json::to_string_pretty(&kscratch_metadata::json_schema())?))?,
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kscratch-image", &mut text);
            print(&String::from_utf8(text)?)?;
        }
        Command::Man { directory } => {
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("making the folder {}", directory.display()))?;
            clap_mangen::generate_to(Cli::command(), &directory)
                .with_context(|| format!("writing man pages into {}", directory.display()))?;
            console.say(format_args!("man pages written into {}", directory.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The console that the options ask for.
pub fn console(options: &OutputOptions) -> Console {
    let verbosity = match (options.quiet, options.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, 1) => Verbosity::Verbose,
        (false, _) => Verbosity::Debug,
    };
    let colour = match options.color {
        ColorChoice::Auto => None,
        ColorChoice::Always => Some(true),
        ColorChoice::Never => Some(false),
    };
    Console::stderr(verbosity, colour)
}

fn build(args: &BuildArgs, console: &Console) -> Result<()> {
    let mut spec = settings(&args.spec, console)?;
    spec.disk.sector_size = args.sector_size.unwrap_or(spec.disk.sector_size);
    let esp_files = metadata(args.metadata.as_deref())?;
    let output = args.output.clone().unwrap_or_else(|| default_output(args.role, args.format));
    let workshop = workshop(&args.spec, console)?;
    let _alone = workshop.store.lock(console)?;
    let lock = choose(&spec, args, &workshop)?;
    let (role, form, root_url) = (role(args.role), args.format, args.root_url.clone());
    let request = image::Request { spec: &spec, lock: &lock, role, esp_files, output, form, root_url };
    let built = image::build(&request, &workshop)?;
    summary(&request.output, &built, console);
    if !request.esp_files.is_empty() {
        console.say(ITS_OWNERS);
    }
    Ok(())
}

/// Of an image with role metadata.
const ITS_OWNERS: &str = "only its owner can read it: it holds the machine's secrets";

fn default_output(role: Role, format: crate::cli::Format) -> PathBuf {
    PathBuf::from(format!("kscratch-{}{}", role.as_str(), format.ending()))
}

/// The lock to build from: the one there is if it fits, or with the control plane that it lacks, otherwise a new one.
fn choose(spec: &ImageSpec, args: &BuildArgs, workshop: &Workshop) -> Result<Lock> {
    let (path, role) = (lock_path(&args.spec), role(args.role));
    if args.locked {
        if !path.exists() {
            return Err(anyhow!("there is no {}", path.display())
                .context(Hint("run `kscratch-image lock` first, or build without --locked".into())));
        }
        let lock = Lock::read(&path)?;
        lock.matches(spec, role).with_context(|| format!("building from {}", path.display()))?;
        return Ok(lock);
    }
    let mut wanted = role;
    if path.exists() {
        let lock = Lock::read(&path)?;
        if lock.matches(spec, role).is_ok() {
            workshop.console.say(format_args!("building what {} says", path.display()));
            return Ok(lock);
        }
        if lock.matches(spec, spec::Role::Node).is_ok() {
            workshop.console.say(format_args!("{} fits but for the control plane: adding it", path.display()));
            let lock = image::lock_for_masters(spec, lock, workshop)?;
            lock.write(&path)?;
            told(&lock, &path, &workshop.console);
            return Ok(lock);
        }
        workshop.console.say(format_args!("{} was made for other settings: choosing anew", path.display()));
        wanted = wanted.max(served(&lock));
    }
    let lock = image::lock(spec, wanted, workshop)?;
    lock.write(&path)?;
    told(&lock, &path, &workshop.console);
    Ok(lock)
}

/// The most that a lock was made for.
fn served(lock: &Lock) -> spec::Role {
    if lock.inputs.control_plane.is_some() { spec::Role::Master } else { spec::Role::Node }
}

fn told(lock: &Lock, path: &Path, console: &Console) {
    let bytes = lock.artifacts.iter().filter_map(|artifact| artifact.size).sum();
    console.say(format_args!("{}: {} artifacts, {}", path.display(), lock.artifacts.len(), human_bytes(bytes)));
    for artifact in &lock.artifacts {
        console.detail(format_args!("  {} {}", artifact.name, artifact.version));
    }
}

fn summary(output: &Path, built: &Built, console: &Console) {
    console.say(format_args!("image      {}", output.display()));
    console.say(format_args!(
        "size       {} ({} allocated), {} files in the root",
        human_bytes(built.len),
        human_bytes(built.allocated),
        built.files
    ));
    console.say(format_args!("digest     {}", built.digest));
    let map = built.map.as_ref().map(|map| format!(", block map {}", map.display())).unwrap_or_default();
    console.say(format_args!("manifest   {}, SBOM {}{map}", built.manifest.display(), built.sbom.display()));
    let total: Duration = built.steps.iter().map(|(_, time)| *time).sum();
    // What takes no time is no news.
    let steps = built.steps.iter().filter(|(_, time)| time.as_millis() >= 50);
    let steps: Vec<String> = steps.map(|(name, time)| format!("{name} {:.1} s", time.as_secs_f64())).collect();
    console.say(format_args!("time       {:.1} s: {}", total.as_secs_f64(), steps.join(", ")));
}

fn lock(args: &LockArgs, console: &Console) -> Result<()> {
    let spec = settings(&args.spec, console)?;
    let workshop = workshop(&args.spec, console)?;
    let _alone = workshop.store.lock(console)?;
    let path = lock_path(&args.spec);
    let old = if path.exists() || !args.update.is_empty() { Some(Lock::read(&path)?) } else { None };
    let wanted = args.role.map(role).or(old.as_ref().map(served)).unwrap_or(spec::Role::Node);
    let fresh = image::lock(&spec, wanted, &workshop)?;
    let lock = match old {
        Some(old) if !args.update.is_empty() => resolve::update(&spec, &old, fresh, &args.update)?,
        _ => fresh,
    };
    lock.write(&path)?;
    told(&lock, &path, console);
    Ok(())
}

fn config(args: &SpecArgs) -> Result<()> {
    let options = args.flavour.is_some() || args.kubernetes.is_some() || args.debian_mirror.is_some();
    let plain = args.config.is_none() && !options;
    if plain {
        return print(spec::DEFAULT);
    }
    let mut spec = read_spec(args, args.config.as_deref())?;
    spec.anchor_sources();
    print(&toml::to_string_pretty(&spec).context("printing the settings")?)
}

fn inspect(args: &InspectArgs) -> Result<()> {
    let report = inspect::report(&args.image, args.files)?;
    if args.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    print(&report.to_string())
}

fn stamp(args: &StampArgs, console: &Console) -> Result<()> {
    let role = read_text(&args.metadata)?;
    let secrets = args.secrets.as_deref().map(read_text).transpose()?;
    let role_name = args.metadata.display().to_string();
    let secrets_name =
        args.secrets.as_ref().map_or_else(|| "secrets.toml".to_owned(), |path| path.display().to_string());
    let texts = stamp::Texts { role: &role, secrets: secrets.as_deref(), names: (&role_name, &secrets_name) };
    let time = i64::try_from(resolve::now()?).context("taking this machine's clock as a time")?;
    let closed = stamp::stamp(&args.image, &texts, time)?;
    blockmap::renew(&args.image)?;
    console.say(format_args!("{} has the role metadata of {role_name}", args.image.display()));
    if closed {
        console.say(ITS_OWNERS);
    }
    Ok(())
}

fn why(args: &WhyArgs, console: &Console) -> Result<()> {
    let spec = settings(&args.spec, console)?;
    let workshop = workshop(&args.spec, console)?;
    let _alone = workshop.store.lock(console)?;
    let path = lock_path(&args.spec);
    let role = role(args.role);
    let lock = if path.exists() { Lock::read(&path)? } else { image::lock(&spec, role, &workshop)? };
    lock.matches(&spec, role)?;
    let (root, _unpacked) = image::root(&spec, &lock, role, &workshop, &mut image::Clock::start())?;
    print(&why::why(&root.tree, &args.path)?)
}

fn role(role: Role) -> spec::Role {
    match role {
        Role::Node => spec::Role::Node,
        Role::Master => spec::Role::Master,
    }
}

/// The config file that nobody needs to name.
const SETTINGS: &str = "image.toml";

/// The settings by the config file that is named, else by the one that lies in this folder, as the lock does. One that nobody named is told.
fn settings(args: &SpecArgs, console: &Console) -> Result<ImageSpec> {
    let found = || {
        let file = Path::new(SETTINGS);
        file.exists().then(|| console.say(format_args!("taking the settings of {SETTINGS}")))?;
        Some(file.to_owned())
    };
    read_spec(args, args.config.clone().or_else(found).as_deref())
}

/// The settings: the defaults, the config file over them, the options over that.
fn read_spec(args: &SpecArgs, config: Option<&Path>) -> Result<ImageSpec> {
    let mut spec = match config {
        Some(file) => ImageSpec::read(file)?,
        None => ImageSpec::defaults()?,
    };
    if let Some(flavour) = args.flavour {
        spec.kernel.flavour = flavour;
    }
    if let Some(kubernetes) = &args.kubernetes {
        if Path::new(kubernetes).exists() {
            let path = std::fs::canonicalize(kubernetes).with_context(|| format!("looking for {kubernetes}"))?;
            spec.kubernetes.source = spec::KubernetesSource::Path(path);
        } else {
            spec.kubernetes.version = kubernetes.trim_start_matches('v').to_owned();
        }
    }
    // Known without a network, so it is told before one is asked for.
    kubernetes::Version::parse(&spec.kubernetes.version)?;
    if let Some(mirror) = &args.debian_mirror {
        spec.debian.mirror = Some(mirror.clone());
    }
    Ok(spec)
}

fn workshop(args: &SpecArgs, console: &Console) -> Result<Workshop> {
    Ok(Workshop { store: store(args.cache.as_deref())?, offline: args.offline, console: console.clone() })
}

/// The store of the cache that `--cache` names, or of the user's own.
fn store(cache: Option<&Path>) -> Result<Store> {
    match cache {
        Some(folder) => Store::open(folder),
        None => Store::open(&default_cache()?),
    }
}

/// The user's cache folder (XDG Base Directory Specification).
///
/// # Errors
/// The environment names no folder of the user's.
pub fn default_cache() -> Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let base = base.context("finding a cache folder: neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("kscratch"))
}

fn lock_path(args: &SpecArgs) -> PathBuf {
    let beside = |config: &PathBuf| config.parent().unwrap_or(Path::new("")).join("kscratch.lock");
    args.lock.clone().unwrap_or_else(|| args.config.as_ref().map_or_else(|| PathBuf::from("kscratch.lock"), beside))
}

/// Role metadata for the ESP, refused if init would refuse it.
fn metadata(file: Option<&Path>) -> Result<BTreeMap<String, Vec<u8>>> {
    let Some(file) = file else { return Ok(BTreeMap::new()) };
    let text = read_text(file)?;
    let name = file.display().to_string();
    kscratch_metadata::read(&text, None)
        .map_err(|errors| anyhow!(errors.named(&name, "secrets.toml")))
        .with_context(|| format!("reading role metadata from {name}"))?;
    Ok(BTreeMap::from([("/kscratch/role.toml".to_owned(), text.into_bytes())]))
}

fn read_text(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}
