//! The commands of `kscratch-image cluster` for machines in QEMU: arguments become calls of `vmcluster`, and their answers text.
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kscratch_pki::OffsetDateTime;

use super::{build, default_output, print, store};
use crate::cli::cluster::{Mode, ProxyMode};
use crate::cli::machines::{
    CableArgs, DhcpArgs, DownArgs, HereArgs, KeepArgs, LogsArgs, MachinesCommand, PowerAction, PowerArgs, StatusArgs,
    UpArgs,
};
use crate::cli::{BuildArgs, Format, Role};
use crate::cluster::kubectl;
use crate::cluster::userconfig::{self, Users};
use crate::console::{Console, Hint};
use crate::run::{refuse_compressed, tools};
use crate::spec;
use crate::vmcluster::identity::Modes;
use crate::vmcluster::place::Place;
use crate::vmcluster::plan::{Image, Make, PlannedForward};
use crate::vmcluster::protocol::{Cable, Request};
use crate::vmcluster::{client, keeper, logs, power, rows, unnamed, up};

/// Does what the arguments say.
pub(super) fn execute(command: &MachinesCommand, now: OffsetDateTime, console: &Console) -> Result<ExitCode> {
    match command {
        MachinesCommand::Up(args) => bring_up(args, now, console)?,
        MachinesCommand::Status(args) => status(args, console)?,
        MachinesCommand::Logs(args) => tell(args)?,
        MachinesCommand::Power(args) => switch(args, console)?,
        MachinesCommand::Cable(args) => cable(args)?,
        MachinesCommand::Dhcp(args) => dhcp(args)?,
        MachinesCommand::Down(args) => down(args, console)?,
        MachinesCommand::Keep(args) => keep(args, console)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn place(folder: &Path, name: &str) -> Result<Place> {
    super::cluster::name(name)?;
    Ok(Place::of(folder, name))
}

/// The machines of the cluster that is named, or of the only one. `usage` as of [`unnamed::only`].
fn here(args: &HereArgs, usage: &str) -> Result<Place> {
    match &args.name {
        Some(name) => place(&args.folder, name),
        None => place(&args.folder, &unnamed::only(&args.folder, usage)?),
    }
}

fn bring_up(args: &UpArgs, now: OffsetDateTime, console: &Console) -> Result<()> {
    let place = place(&args.folder, &args.name)?;
    let (counts, new) = up::counts(&place, args.masters, args.nodes)?;
    let forwards = args.forward.iter().map(|text| forward(text)).collect::<Result<_>>()?;
    let disk_size = size(&args.disk_size, "--disk-size")?;
    let further = |text: &Option<String>, option| text.as_ref().map(|text| further_size(text, option)).transpose();
    let docker_disk = further(&args.docker_disk, "--docker-disk")?;
    let etcd_disk = further(&args.etcd_disk, "--etcd-disk")?;
    if args.merge_kubeconfig && counts.0 == 0 {
        return Err(anyhow!("--merge-kubeconfig: nodes that stand alone have no API server"));
    }
    let context = args.context.as_ref().unwrap_or(&args.name);
    let users = args.merge_kubeconfig.then(users_kubeconfig).transpose()?;
    let image = |role: Role, given: Option<&PathBuf>| match (new.contains(&super::role(role)), given) {
        (true, given) => image(role, given.map(PathBuf::as_path), args, console),
        (false, None) => Ok(Image::default()),
        (false, Some(file)) => {
            up::keeps_image(&place, super::role(role), file)?;
            Ok(Image::default())
        }
    };
    let options = up::Options {
        make: Make {
            master_image: image(Role::Master, args.image_master.as_ref())?,
            node_image: image(Role::Node, args.image_node.as_ref())?,
            disk_size,
            docker_disk,
            etcd_disk,
            memory: args.memory,
            cpus: args.cpus,
            host_time: args.host_time,
        },
        parent: args.folder.clone(),
        name: args.name.clone(),
        counts,
        modes: Modes { network: args.mode.map(Mode::word), proxy: args.proxy_mode.map(ProxyMode::word) },
        forwards,
        api_port: args.api_port,
        outside: args.outside,
        at_once: args.at_once,
        timeout: Duration::from_secs(args.timeout),
        foreground: args.foreground,
        cache: args.cache.clone(),
        qemu: args.qemu,
        merge: users.map(|users| (users, context.clone())),
        kubectl: kubectl::installed(std::env::var_os("PATH")).is_some(),
    };
    // Fetched here, where a person sees it, if it has to be; the keeper finds it then.
    tools::find_or_unpack(args.qemu, &store(args.cache.as_deref())?, console)?;
    up::up(&options, now, console)
}

fn size(text: &str, option: &str) -> Result<u64> {
    let size: spec::ByteSize =
        text.parse().map_err(|error: String| anyhow!(error)).with_context(|| format!("reading {option}"))?;
    Ok(size.0)
}

/// Size of a further disk. On one of a few MiB init makes no filesystem, and on one of some more nothing fits: etcd alone begins two pieces of 64 MB of its log
/// at once.
fn further_size(text: &str, option: &str) -> Result<u64> {
    const LEAST: u64 = 256 << 20;
    let size = size(text, option)?;
    if size < LEAST {
        return Err(anyhow!("a disk of {text} is too small to keep anything on: give it {} MiB or more", LEAST >> 20))
            .with_context(|| format!("reading {option}"));
    }
    Ok(size)
}

/// The user's own kubeconfig, as the environment names it.
pub(super) fn users_kubeconfig() -> Result<Users> {
    userconfig::find(std::env::var_os("KUBECONFIG"), std::env::var_os("HOME"))
}

/// The image of a role, built where there is none.
fn image(role: Role, given: Option<&Path>, args: &UpArgs, console: &Console) -> Result<Image> {
    let path = given.map_or_else(|| default_output(role, Format::Raw), Path::to_owned);
    if given.is_none() && !path.exists() {
        console.say(format_args!("there is no {} here yet: building it", path.display()));
        build(&BuildArgs { role, ..BuildArgs::node(args.cache.clone()) }, console)?;
    }
    refuse_compressed(&path)?;
    Image::now(&path)
}

/// `HOST:MACHINE:PORT`.
fn forward(text: &str) -> Result<PlannedForward> {
    let form = || anyhow!("the forward `{text}` is not HOST:MACHINE:PORT, such as `8080:n1:80`");
    let mut parts = text.split(':');
    let (Some(host), Some(machine), Some(port), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(form());
    };
    let forward = PlannedForward {
        host: host.parse().map_err(|_| form())?,
        machine: machine.to_owned(),
        port: port.parse().map_err(|_| form())?,
    };
    if forward.port == 0 {
        return Err(anyhow!("the forward `{text}` leads to port 0, which no program can listen on"));
    }
    Ok(forward)
}

fn status(args: &StatusArgs, console: &Console) -> Result<()> {
    let (rows, silent) = power::status(&here(&args.cluster, "status NAME")?)?;
    if let Some(why) = silent {
        console.warn(format_args!("the API server does not answer: {why}"));
    }
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&rows)?)),
        false => print(&rows::table(&rows)),
    }
}

fn tell(args: &LogsArgs) -> Result<()> {
    let place = here(&args.cluster, &format!("logs NAME {}", args.machine))?;
    match args.tail {
        None => logs::print(&place, &args.machine, args.follow, std::io::stdout().lock()),
        Some(lines) => {
            let lines = logs::tail(&place, &args.machine, lines)?;
            print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
        }
    }
}

fn switch(args: &PowerArgs, console: &Console) -> Result<()> {
    let place = place(&args.cluster.folder, &args.cluster.name)?;
    if args.clock.is_some() && args.action != PowerAction::On {
        return Err(anyhow!("--clock is for machines that are switched on")
            .context(Hint("kscratch-image cluster power on NAME MACHINE --clock TIME".into())));
    }
    let done = match args.action {
        PowerAction::Off => {
            power::off(&place, &args.machines, power::PATIENCE)?;
            "off"
        }
        PowerAction::Cut => each(&place, args, |machine| Request::Cut { machine })?,
        PowerAction::Reset => each(&place, args, |machine| Request::Reset { machine })?,
        PowerAction::On => each(&place, args, |machine| Request::On { machine, clock: args.clock.clone() })?,
    };
    console.say(format_args!("{}: {done}", args.machines.join(", ")));
    Ok(())
}

fn each(place: &Place, args: &PowerArgs, request: impl Fn(String) -> Request) -> Result<&'static str> {
    for machine in &args.machines {
        client::ask(place, &request(machine.clone()))?;
    }
    Ok(match args.action {
        PowerAction::Off => "off",
        PowerAction::Cut => "power cut",
        PowerAction::Reset => "reset",
        PowerAction::On => "switched on",
    })
}

fn cable(args: &CableArgs) -> Result<()> {
    let cable = Cable { up: !args.down, loss: args.loss, delay: args.delay, rate: args.rate };
    let place = here(&args.cluster, &format!("cable NAME {}", args.machine))?;
    client::ask(&place, &Request::Cable { machine: args.machine.clone(), cable }).map(drop)
}

fn dhcp(args: &DhcpArgs) -> Result<()> {
    let place = here(&args.cluster, &format!("dhcp NAME --first {}", args.first))?;
    client::ask(&place, &Request::Leases { first: args.first }).map(drop)
}

fn down(args: &DownArgs, console: &Console) -> Result<()> {
    let place = here(&args.cluster, "down NAME")?;
    power::down(&place, args.cut, args.delete, console)?;
    if args.delete
        && let Some(cluster) = place.path().parent()
    {
        // The machines are gone by now: a kubeconfig that cannot be changed is no reason to fail.
        match users_kubeconfig().and_then(|users| userconfig::remove(&users, &userconfig::folder(cluster)?)) {
            Ok(removed) => removed.iter().for_each(|(file, names)| {
                console.say(format_args!("took {} out of {}", names.join(", "), file.display()));
            }),
            Err(error) => console.warn(format_args!("your kubeconfig stays as it is: {error:#}")),
        }
    }
    Ok(())
}

fn keep(args: &KeepArgs, console: &Console) -> Result<()> {
    let tools = tools::find_or_unpack(args.qemu, &store(args.cache.as_deref())?, console)?;
    keeper::keep(&args.folder, tools)
}

#[cfg(test)]
mod tests {
    use super::further_size;

    #[test]
    fn a_further_disk_has_room_for_something() {
        let read = |text| further_size(text, "--etcd-disk").map_err(|error| format!("{error:#}"));
        assert_eq!((read("256MiB"), read("4GiB")), (Ok(256 << 20), Ok(4 << 30)));
        for text in ["1MiB", "64MiB", "255MiB"] {
            let want = format!(
                "reading --etcd-disk: a disk of {text} is too small to keep anything on: give it 256 MiB or more"
            );
            assert_eq!(read(text), Err(want));
        }
        assert!(read("4").unwrap_err().starts_with("reading --etcd-disk: the size `4` is not a number"));
    }
}
