//! The second stage: turns a mounted root into a running node, phase by phase, and hands it to the event loop.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kscratch_metadata::RoleMetadata;

use super::block::Devices;
use super::gather;
use super::hardware::{self, Loader};
use super::mounts;
use super::phases::Phases;
use crate::apply::dhcp::Change;
use crate::apply::disk::{self, State};
use crate::apply::files;
use crate::apply::steps::Machine;
use crate::cmdline::CommandLine;
use crate::facts::Facts;
use crate::log;
use crate::plan::{self, Plan, PlanError, Service, Step};
use crate::run::eventloop::{self, Options};
use crate::run::power;
use crate::source::{self, Kind, Surroundings, Text};
use crate::sys::Sys;

const RESOLV_CONF: &str = "/run/kscratch/resolv.conf";

/// Folders that programs expect on an empty `/var`; what each service needs besides is the plan's business.
const VAR: [&str; 6] = ["/var/cache", "/var/lib", "/var/lib/kscratch", "/var/log", "/var/log/kscratch", "/var/tmp"];

/// Runs the stage: the boot in order. Returns only on failure.
///
/// # Errors
/// Something without which there is no machine: the early mounts, the event loop.
pub fn boot(sys: &'static dyn Sys) -> Result<std::convert::Infallible> {
    let root = Path::new("/");
    mounts::early(sys, root)?;
    log::open();
    let text = fs::read_to_string("/proc/cmdline").context("reading the kernel command line")?;
    let cmdline = CommandLine::parse(&text);
    log::set_debug(cmdline.debug);
    log::line(format_args!("kscratch {} on the root", env!("CARGO_PKG_VERSION")));
    wake_random_numbers();
    if let Err(error) = sys.catch_ctrl_alt_del() {
        log::line(format_args!("ctrl-alt-del resets at once: {error}"));
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut phases = Phases::new(boot.trim().to_owned());
    let devices = Devices::of_machine();

    phases.run("mounts", "report this: the image and its kernel do not fit together", || mounts::late(sys, root));
    phases.run("modules", "build the image again: it lacks the modules of its kernel", || modules(sys, root));
    phases.run("state", STATE_HINT, || state(sys, root, &devices, &cmdline));
    phases.attach(root);
    let id = phases
        .run("identity", "look at the state partition: it cannot be written", || identity(root))
        .unwrap_or_default();

    let mut machine = Machine::new(sys, root, &id);
    let metadata = find_metadata(
        &mut phases,
        &mut machine,
        &Surroundings { sys, root, devices: &devices, cmdline: &cmdline },
        &id,
    );
    let options = match metadata {
        Some(metadata) => node(&mut phases, &mut machine, root, &id, metadata),
        None => {
            log::line(
                "nothing is configured and no service is started; the machine waits for the power button or a reboot",
            );
            Options::machine()
        }
    };
    // The boot record is a file on state: held open, it would keep state from being unmounted at the end.
    drop(phases);
    let services = std::mem::take(&mut machine.services);
    let options = Options { leases: std::mem::take(&mut machine.leases), ..options };
    tell(&services);
    let ending = eventloop::run(services, options).context("running the event loop")?;
    power::finish(sys, ending)?;
    bail!("the kernel did not end the machine's run")
}

const STATE_HINT: &str = "state is in memory and is lost at the next boot; put the partition right (e2fsck), or wipe its first MiB to have it made anew";

fn tell(services: &[Service]) {
    if !services.is_empty() {
        let names: Vec<&str> = services.iter().map(|service| service.name).collect();
        log::line(format_args!("boot is done; services: {}", names.join(", ")));
    }
}

/// On a machine without a hardware source the kernel begins to collect randomness only when somebody asks and waits for it
/// (drivers/char/random.c, `try_to_generate_entropy`); whoever merely polls `/dev/random` would wait for minutes. So ask now, beside
/// the rest of the boot: DHCP, dockerd and kubelet all need it.
fn wake_random_numbers() {
    let work = || {
        // As in the thread for hardware: signals belong to the event loop.
        let _ = nix::sys::signal::SigSet::all().thread_block();
        let begun = log::monotonic();
        let got = rustix::rand::getrandom(&mut [0_u8; 1], rustix::rand::GetRandomFlags::empty());
        let took = log::monotonic().saturating_sub(begun).as_secs_f64();
        log::debug(format_args!("random numbers are ready after {took:.3} s ({got:?})"));
    };
    if let Err(error) = std::thread::Builder::new().name("random".to_owned()).spawn(work) {
        log::line(format_args!("starting the thread that wakes the random numbers: {error}"));
    }
}

fn modules(sys: &'static dyn Sys, root: &Path) -> Result<()> {
    // Open before the first driver is loaded: what a driver brings up is heard.
    let listener = hardware::Listener::open().context("listening to the kernel's uevents")?;
    let mut loader = Loader::open(sys, root)?;
    loader.load_list();
    loader.coldplug();
    hardware::keep_plugging(listener, loader)
}

fn state(sys: &dyn Sys, root: &Path, devices: &Devices, cmdline: &CommandLine) -> Result<()> {
    let guid = cmdline.root.as_ref().and_then(|guid| guid.as_ref().ok()).copied();
    let state = disk::mount_state(sys, root, devices, guid)?;
    for folder in VAR {
        files::directory(root, folder, if folder == "/var/tmp" { 0o1777 } else { 0o755 })?;
    }
    match state {
        State::Partition { device, made } => {
            log::line(format_args!("state is {}{}", device.display(), if made { ", made anew" } else { "" }));
            Ok(())
        }
        State::Memory { reason } => bail!(reason),
    }
}

/// Also writes what `/etc` links to before the plan knows better: programs must never find these dangling.
fn identity(root: &Path) -> Result<String> {
    let id = gather::machine_id(root)?;
    files::file(root, "/run/kscratch/machine-id", format!("{id}\n").as_bytes(), 0o444)?;
    files::file(root, RESOLV_CONF, b"", 0o644)?;
    files::file(root, "/run/kscratch/hosts", b"127.0.0.1 localhost\n::1 localhost\n", 0o644)?;
    log::line(format_args!("machine {id}"));
    Ok(id)
}

const METADATA_HINT: &str = "correct the role metadata (kscratch-image stamp FILE --metadata role.toml checks it and puts it on the ESP) and boot again";

/// Finds and checks the metadata. `None` where there is some and it is wrong: then nothing may be configured.
fn find_metadata(
    phases: &mut Phases,
    machine: &mut Machine<'_>,
    around: &Surroundings<'_>,
    id: &str,
) -> Option<RoleMetadata> {
    let mut local = None;
    if let Some(url) = &around.cmdline.metadata_url {
        // A URL costs a network; a source of the machine itself comes before it anyway.
        local = Some(source::choose(source::ask_all(around)));
        if matches!(&local, Some(Ok(choice)) if choice.winner.is_none()) {
            phases.run(
                "metadata-network",
                "the metadata URL needs a DHCP server; or stamp the metadata on the ESP",
                || {
                    let facts = gather::facts(around.root, id, &machine.leases)?;
                    apply(machine, &plan::network(&RoleMetadata::standalone(), &facts)?)?;
                    // The URL may have a name in it.
                    let servers = gather::facts(around.root, id, &machine.leases)?.dns_servers;
                    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
                    files::file(around.root, RESOLV_CONF, text.as_bytes(), 0o644)
                },
            );
        } else {
            log::line(format_args!("role metadata: {url} is not asked, the machine itself has some"));
        }
    }
    phases.run("metadata", METADATA_HINT, || {
        let choice = local.unwrap_or_else(|| source::choose(source::ask_all(around)))?;
        for line in &choice.lines {
            log::line(line);
        }
        let text = match (choice.winner, &around.cmdline.metadata_url) {
            (Some((_, text)), _) => Some(text),
            (None, Some(url)) => {
                let text = source::http::fetch(url)?;
                log::line(format_args!("role metadata: {} ({url})", Kind::Url));
                Some(text)
            }
            (None, None) => None,
        };
        let facts = gather::facts(around.root, id, &machine.leases)?;
        check(text, &facts)
    })
}

/// Parses metadata and makes the whole plan once without applying it: what does not fit shows before anything is changed.
fn check(text: Option<Text>, facts: &Facts) -> Result<RoleMetadata> {
    let Some(text) = text else {
        log::line("role metadata: none; this machine runs docker and kubelet on its own, with the image's pods");
        log::hint(
            "to give it a cluster: kscratch-image stamp FILE --metadata role.toml, or /kscratch/role.toml on its ESP, or a volume labelled KSCRATCH with role.toml",
        );
        return Ok(RoleMetadata::standalone());
    };
    let parsed = match &text.secrets {
        Some(secrets) => kscratch_metadata::parse_with_secrets(&text.role, secrets),
        None => kscratch_metadata::parse(&text.role),
    };
    let metadata = parsed.map_err(|errors| errors.named(text.place.clone(), text.place.replace("role", "secrets")))?;
    plan::network(&metadata, facts).and_then(|_| plan::node(&metadata, facts)).map_err(with_hint)?;
    Ok(metadata)
}

/// A plan's error with what helps against it, in one text.
fn with_hint(error: PlanError) -> anyhow::Error {
    anyhow::anyhow!("{error}; {}", error.hint())
}

fn apply(machine: &mut Machine<'_>, plan: &Plan) -> Result<()> {
    plan.phases.iter().try_for_each(|phase| machine.phase(phase))
}

/// Applies the plan of a node. A phase that fails does not keep back those that can do without it.
fn node(phases: &mut Phases, machine: &mut Machine<'_>, root: &Path, id: &str, metadata: RoleMetadata) -> Options {
    machine.host_name = metadata.node.name.clone();
    phases.run("network", hint("network"), || {
        let facts = gather::facts(root, id, &machine.leases)?;
        let plan = plan::network(&metadata, &facts).map_err(with_hint)?;
        machine.keep_leases_of(&plan)?;
        apply(machine, &plan)
    });
    let facts_and_plan = phases.run("plan", METADATA_HINT, || {
        let facts = gather::facts(root, id, &machine.leases)?;
        let plan = plan::node(&metadata, &facts).map_err(with_hint)?;
        Ok((facts, plan))
    });
    let Some((facts, plan)) = facts_and_plan else { return Options::machine() };
    let mut configured = true;
    for phase in &plan.phases {
        // Services without their files would run as something else than was meant.
        if phase.name == "services" && !configured {
            log::line("services are not started: their configuration could not be written");
            continue;
        }
        let done = phases.run(phase.name, hint(phase.name), || machine.phase(phase)).is_some();
        configured &= done || phase.name != "config";
    }
    let root = root.to_owned();
    Options {
        lease_changed: Box::new(move |link, change| lease_changed(&root, &metadata, &facts, link, change)),
        ..Options::machine()
    }
}

fn hint(phase: &str) -> &'static str {
    match phase {
        "network" => "look at the cable and the DHCP server, or set network.static in role.toml",
        "system" => "the image's kernel lacks something; build the image again",
        "bridge" => "look at the lines above; docker and pods have no network until this works",
        "images" => "kubelet will try to pull what the image should have brought; build the image again",
        _ => "look at the lines above and at the state partition",
    }
}

/// A renewed lease may bring other name servers: `resolv.conf` is planned and written again, as at boot.
fn lease_changed(root: &Path, metadata: &RoleMetadata, facts: &Facts, link: &str, change: &Change) {
    let Change::Bound(lease) = change else { return };
    let facts = Facts { dns_servers: lease.dns_servers.clone(), dns_search: lease.search.clone(), ..facts.clone() };
    let Ok(plan) = plan::node(metadata, &facts) else { return };
    let steps = plan.phases.iter().flat_map(|phase| &phase.steps);
    let file = steps.filter_map(|step| match step {
        Step::File { path, contents, mode } if path == RESOLV_CONF => Some((contents, *mode)),
        _ => None,
    });
    for (contents, mode) in file {
        if let Err(error) = files::file(root, RESOLV_CONF, contents, mode) {
            log::line(format_args!("after a new lease on {link}: {error:#}"));
        }
    }
}
