//! Starts the part of kscratch-init that the kernel, a service's start or a `modprobe` call asks for.
use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kscratch_init::run::{recorder, spawn, watchdog};
use kscratch_init::source::{Text, entry};
use kscratch_init::stage::{gather, initramfs, modprobe, root};
use kscratch_init::sys::{Linux, Power, Sys};
use kscratch_init::{facts, inhibitor, log, plan};

/// How long the console shows a fatal error before the machine starts anew.
const BEFORE_REBOOT: Duration = Duration::from_secs(60);
/// How long the console may take to be told all.
const CONSOLE_WITHIN: Duration = Duration::from_secs(1);

static LINUX: Linux = Linux;

const USAGE: &str = "\
kscratch-init is PID 1 of a kscratch machine. Elsewhere it can
  kscratch-init --version
  kscratch-init --print-plan ROLE.TOML   print what this machine would do with that metadata
and, called as `modprobe`, load kernel modules.
";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    let words: Vec<String> = args.iter().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if name == "modprobe" {
        return modprobe(&words);
    }
    if words.first().is_some_and(|word| word == spawn::EXEC_SERVICE) {
        return spawn::exec_service(args.into_iter().skip(2));
    }
    if let Some((verb, rest)) = words.split_first()
        && verb == inhibitor::VERB
    {
        return inhibitor::main(rest);
    }
    if std::process::id() == 1 {
        pid1();
    }
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--version"] => say(format_args!("kscratch-init {}\n", env!("CARGO_PKG_VERSION"))),
        ["--print-plan", file] => match print_plan(Path::new(file)) {
            Ok(text) => say(text),
            Err(error) => fail(format_args!("error: {error:#}")),
        },
        ["--help" | "-h"] => say(USAGE),
        _ => fail(USAGE.trim_end()),
    }
}

fn say(text: impl Display) -> ExitCode {
    match write!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(text: impl Display) -> ExitCode {
    // There is nobody to tell where standard error is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}

fn modprobe(words: &[String]) -> ExitCode {
    match modprobe::modprobe(&LINUX, Path::new("/"), words) {
        Ok(()) => ExitCode::SUCCESS,
        // The kernel asks with -q for things that need not be there, e.g. `net-pf-10`.
        Err(_) if words.iter().any(|word| word == "-q" || word == "--quiet") => ExitCode::FAILURE,
        Err(error) => fail(format_args!("modprobe: {error:#}")),
    }
}

/// The boot. Whatever happens in it ends here: PID 1 must not exit, for the kernel panics then.
fn pid1() -> ! {
    std::panic::set_hook(Box::new(|info| log::line(format_args!("internal error: {info}"))));
    let in_initramfs = Path::new("/etc/initrd-release").exists();
    let stage = || {
        let early = if in_initramfs { Some(initramfs::boot(&LINUX)?) } else { None };
        root::boot(&LINUX, early)
    };
    let error = match catch_unwind(AssertUnwindSafe(stage)) {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => error,
        Err(_) => anyhow!("kscratch-init has a fault; the line above says where"),
    };
    log::line(format_args!("boot failed: {error:#}"));
    log::hint(format_args!("read the lines above; the machine starts anew in {} s", BEFORE_REBOOT.as_secs()));
    loop {
        std::thread::sleep(BEFORE_REBOOT);
        recorder::end("reboot after a boot that failed");
        LINUX.sync();
        log::flush(CONSOLE_WITHIN);
        watchdog::disarm();
        if let Err(error) = LINUX.power(Power::Restart) {
            log::line(format_args!("reboot: {error}"));
        }
    }
}

/// What this machine would do with a metadata file. Where it is no kscratch machine, the versions of the image are unknown.
fn print_plan(file: &Path) -> Result<String> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let here = Path::new("/");
    let links = kscratch_init::apply::network::hardware_links(&mut kscratch_netlink::Netlink::open()?)?;
    let text = Text { place: file.display().to_string(), role: read(file)?, secrets: None };
    let metadata = entry::read(&text, &entry::identity(here, &links))?.metadata;
    let unknown = || "unknown".to_owned();
    let facts = gather::facts(here, &"0".repeat(32), &[], true).or_else(|_| {
        anyhow::Ok(facts::Facts {
            links,
            made: std::collections::BTreeMap::new(),
            release: facts::Release {
                kubernetes: unknown(),
                cri_dockerd: unknown(),
                docker: unknown(),
                kernel: unknown(),
                kscratch: env!("CARGO_PKG_VERSION").to_owned(),
                role: match metadata.role {
                    kscratch_metadata::Role::Node => "node".to_owned(),
                    kscratch_metadata::Role::Master => "master".to_owned(),
                },
                pause_image: unknown(),
                images: plan::control_plane_images().map(|component| (component.to_owned(), unknown())).collect(),
            },
            manifests: std::collections::BTreeMap::new(),
            machine_id: "0".repeat(32),
            leased: std::collections::BTreeMap::new(),
            leased6: std::collections::BTreeMap::new(),
            dns_servers: Vec::new(),
            dns_search: Vec::new(),
            dhcp_hostname: None,
            memory: 0,
            lasting: true,
            joined: false,
            etcd_ca: None,
            etcd_disk: None,
            cluster_ca: None,
            node_name: None,
            put_aside: std::collections::BTreeSet::new(),
            aside: Default::default(),
            pod_range: None,
        })
    })?;
    let network = plan::network(&metadata, &facts).map_err(|error| anyhow!("{error}; {}", error.hint()))?;
    let node = plan::node(&metadata, &facts).map_err(|error| anyhow!("{error}; {}", error.hint()))?;
    Ok(format!("{}{network}{node}", plan::runtime(&metadata)))
}
