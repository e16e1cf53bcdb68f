//! `kscratch-image cluster`: arguments become calls of `cluster`, and their answers text.
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use kscratch_pki::{OffsetDateTime, moment};

use super::print;
use crate::cli::cluster::{
    ClusterArgs, ClusterCommand, KubectlArgs, MetadataArgs, NewArgs, RenewArgs, TokenCommand, TokenCreateArgs,
};
use crate::cluster::folder::{ADMIN, Folder, SUPER_ADMIN, write_open, write_private};
use crate::cluster::merge::Addition;
use crate::cluster::metadata::{Machine, Members, Rendered, render};
use crate::cluster::settings::{Settings, VERSION};
use crate::cluster::token::{self, Lapse};
use crate::cluster::{check, kubeconfigs, kubectl, machines, new, userconfig};
use crate::console::{Console, Hint};
use crate::lock::Lock;
use crate::vmcluster::identity;
use crate::vmcluster::place::{KUBECONFIG, PLAN, Place};
use crate::vmcluster::plan::Plan;

/// The lock that a build in this folder writes.
const LOCK: &str = "kscratch.lock";

/// Does what the arguments say.
pub(super) fn execute(command: &ClusterCommand, console: &Console) -> Result<ExitCode> {
    // Asked once, at the edge of the program.
    let now = OffsetDateTime::now_utc();
    match command {
        ClusterCommand::New(args) => make(args, now, console)?,
        ClusterCommand::Metadata(args) => metadata(args, now, console)?,
        ClusterCommand::Token(TokenCommand::Create(args)) => token_create(args, now, console)?,
        ClusterCommand::Token(TokenCommand::List(args)) => print(&token::table(&token::read(&open(args)?)?, now))?,
        ClusterCommand::Kubeconfig(args) => renew(args, now, console)?,
        ClusterCommand::Kubectl(args) => kubectl(args, console)?,
        ClusterCommand::Machines(command) => return super::machines::execute(command, now, console),
        ClusterCommand::Check(args) => {
            let report = check::cluster(&open(&args.cluster)?, &args.image, now);
            print(&report.table)?;
            return Ok(report.exit_code().into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn kubectl(args: &KubectlArgs, console: &Console) -> Result<()> {
    name(&args.cluster.name)?;
    let kubeconfig = kubectl::kubeconfig(&args.cluster.folder, &args.cluster.name)?;
    let store = super::store(args.cache.as_deref())?;
    let program = kubectl::find(&args.lock, std::env::var_os("PATH"), &store, console)?;
    match kubectl::become_it(&program, &kubeconfig, &args.arguments)? {}
}

fn renew(args: &RenewArgs, now: OffsetDateTime, console: &Console) -> Result<()> {
    let folder = open(&args.cluster)?;
    let ClusterArgs { name, folder: parent } = &args.cluster;
    let users = args.merge.then(super::machines::users_kubeconfig).transpose()?;
    let marked = userconfig::folder(folder.path())?;
    let addition = Addition { name: args.context.as_ref().unwrap_or(name), folder: &marked };
    if let Some(users) = &users {
        userconfig::check(users, addition)?;
    }
    kubeconfigs::renew(&folder, now)?;
    let mut written = vec![folder.file(ADMIN), folder.file(SUPER_ADMIN)];
    let place = Place::of(parent, name);
    // People come to machines in QEMU by another address, with the same certificate.
    if let Some(port) = Plan::read(&place.file(PLAN))?.and_then(|plan| plan.api_port()) {
        write_private(&place.file(KUBECONFIG), &identity::kubeconfig(&folder, port)?)?;
        written.push(place.file(KUBECONFIG));
    }
    for file in written {
        console.say(format_args!("{} is good for a year", file.display()));
    }
    if let Some(users) = &users {
        userconfig::add(users, addition, &super::read_text(&kubectl::kubeconfig(parent, name)?)?)?;
        console.say(format_args!("{} has the context {}", users.file.display(), addition.name));
    }
    Ok(())
}

fn open(args: &ClusterArgs) -> Result<Folder> {
    name(&args.name)?;
    Folder::open(&args.folder, &args.name)
}

/// A cluster's name is its folder's too.
pub(super) fn name(name: &str) -> Result<()> {
    if kscratch_metadata::is_node_name(name) {
        return Ok(());
    }
    let hint = "use lower case letters, digits, `-` and `.`; --folder DIR names the folder that holds the cluster's";
    Err(anyhow!("{name:?} is no name of a cluster").context(Hint(hint.into())))
}

fn lapse(text: &str, option: &str) -> Result<Lapse> {
    text.parse().map_err(|error: String| anyhow!("{option}: {error}"))
}

fn make(args: &NewArgs, now: OffsetDateTime, console: &Console) -> Result<()> {
    name(&args.cluster.name)?;
    let lapse = lapse(&args.token_expires, "--token-expires")?;
    let settings = Settings {
        version: VERSION,
        name: args.cluster.name.clone(),
        endpoint: args.endpoint.clone(),
        virtual_endpoint: args.virtual_endpoint,
        pod_range: args.pod_range.clone(),
        service_range: args.service_range.clone(),
        dns_domain: args.dns_domain.clone(),
        mode: args.mode.word().to_owned(),
        proxy_mode: args.proxy_mode.word().to_owned(),
        time_servers: args.time_server.clone(),
        kubernetes: kubernetes(args)?,
    };
    let settings = settings.checked("--")?;
    let folder = new::new(&args.cluster.folder, &settings, lapse, now)?;
    let (name, path) = (&settings.name, folder.path().display());
    console.say(format_args!("made the cluster {name} in {path}: {}", settings.summary()));
    console.say(format_args!("keep {path}/secrets to yourself: who reads it owns the cluster"));
    console.say("next:");
    console.say(format_args!("  kscratch-image cluster metadata {name} --node m1 --role master --output m1.toml"));
    console.say(format_args!("  kscratch-image cluster metadata {name} --node n1 --role node --output n1.toml"));
    console.say(format_args!("  {} get nodes", kubectl::command(&args.cluster.folder, name)));
    Ok(())
}

/// The version that the cluster's images will have, as far as that is known.
fn kubernetes(args: &NewArgs) -> Result<Option<String>> {
    let lock = Path::new(LOCK);
    match &args.kubernetes {
        Some(version) => Ok(Some(version.trim_start_matches('v').to_owned())),
        None if lock.exists() => {
            let lock = Lock::read(lock)?;
            Ok(lock.get("kubernetes").map(|artifact| artifact.version.trim_start_matches('v').to_owned()))
        }
        None => Ok(None),
    }
}

fn metadata(args: &MetadataArgs, now: OffsetDateTime, console: &Console) -> Result<()> {
    let folder = open(&args.cluster)?;
    if let (Some(list), Some(output)) = (&args.all, &args.output) {
        let written = machines::write_all(&folder, list, output, now)?;
        for (path, rendered) in &written.files {
            console.say(format_args!("{}{}", path.display(), joins(rendered)));
        }
        console.say(written.rack.summary(&written.rack_file));
        return Ok(());
    }
    // One of the two is required by the command line.
    let (Some(node), Some(role)) = (&args.node, args.role) else {
        return Err(anyhow!("--node and --role are missing"));
    };
    let machine = Machine {
        name: node.clone(),
        role: role.as_str().to_owned(),
        interface: args.interface.clone(),
        address: args.address.clone(),
        gateway: args.gateway.clone(),
        dns_servers: args.dns_server.clone(),
        time_servers: args.time_server.clone(),
        mtu: args.mtu,
        masquerade: args.no_masquerade.then_some(false),
        docker_mirrors: args.docker_mirror.clone(),
        insecure_registries: args.insecure_registry.clone(),
        disks: args.disk.iter().map(|text| disk(text)).collect::<Result<_>>()?,
        pod_range: args.pod_range.clone(),
        labels: assignments(&args.label, "--label", "KEY=VALUE")?,
        taints: args.taint.clone(),
        schedule_pods: args.schedule_pods,
        api_names: args.api_name.clone(),
        join_control_plane: args.join_control_plane,
        ..Machine::default()
    };
    let members: Members = assignments(&args.etcd_member, "--etcd-member", "NODE=IP")?;
    let rendered = render(&folder, &machine, &members, args.secrets.is_some(), "--", now)?;
    let Some(output) = &args.output else { return print(&rendered.role) };
    // Secrets first: metadata without them is refused by init, secrets without metadata are not looked at.
    match (&args.secrets, &rendered.secrets) {
        (Some(path), Some(secrets)) => {
            write_private(path, secrets)?;
            write_open(output, &rendered.role)?;
        }
        _ => write_private(output, &rendered.role)?,
    }
    console.say(format_args!("{}{}", output.display(), joins(&rendered)));
    Ok(())
}

/// What is to be known of a metadata file besides its name.
fn joins(rendered: &Rendered) -> String {
    rendered.joins_until.map_or(String::new(), |end| format!(": the machine can join until {}", moment(end)))
}

/// A disk of its own; what of it makes sense is the metadata's business.
fn disk(text: &str) -> Result<toml::Table> {
    let shape = || anyhow!("--disk: `{text}` is not FOR:KEY=VALUE[,...], e.g. docker:serial=S3Z8NB0K");
    let (purpose, words) = text.split_once(':').ok_or_else(shape)?;
    let mut disk = toml::Table::from_iter([("for".to_owned(), purpose.into())]);
    for word in words.split(',') {
        let (key, value) = word.split_once('=').ok_or_else(shape)?;
        disk.insert(key.to_owned(), value.into());
    }
    Ok(disk)
}

fn assignments<T: FromIterator<(String, String)>>(texts: &[String], option: &str, shape: &str) -> Result<T> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').ok_or_else(|| anyhow!("{option}: `{text}` is not {shape}"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}

fn token_create(args: &TokenCreateArgs, now: OffsetDateTime, console: &Console) -> Result<()> {
    let lapse = lapse(&args.expires, "--expires")?;
    let folder = open(&args.cluster)?;
    let kept = token::create(&folder, lapse, now)?;
    if args.manifest {
        return print(&token::secret(&kept)?);
    }
    print(&format!("{}\n", kept.token.expose()))?;
    let ClusterArgs { name, folder: parent } = &args.cluster;
    let folder = if parent == Path::new(".") { String::new() } else { format!(" --folder {}", parent.display()) };
    // By `cluster kubectl`: it knows the way to bare machines and to those in QEMU, and has a kubectl where none is installed.
    console.say("masters know it with their next metadata; one for a cluster that runs:");
    console.say(format_args!(
        "  kscratch-image cluster token create{folder} {name} --manifest | {} apply -f -",
        kubectl::command(parent, name)
    ));
    Ok(())
}
