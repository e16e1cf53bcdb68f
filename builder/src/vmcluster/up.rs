//! Brings a cluster's machines up: plan, identity, metadata, keeper, power, and a wait until all of them are Ready.
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use kscratch_pki::OffsetDateTime;

use super::api::{Access, Api};
use super::client::{self, Started};
use super::order::Order;
use super::panics::Panics;
use super::place::{KUBECONFIG, PLAN, Place, ROLE, write_private};
use super::plan::{API_PORT, Image, Make, Plan, PlannedForward};
use super::protocol::{Request, Status};
use super::rows::{Row, rows};
use super::view::{View, Watch};
use super::{identity, logs};
use crate::cluster::kubectl;
use crate::cluster::merge::Addition;
use crate::cluster::userconfig::{self, Users};
use crate::console::{Console, Hint, counted};
use crate::run::tools::Qemu;
use crate::spec::Role;

/// How often the machines are looked at.
const EVERY: Duration = Duration::from_millis(500);
/// How many of a console's last lines are told of a machine that did not come up.
const TAIL: usize = 12;

/// What `up` is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds the cluster's.
    pub parent: PathBuf,
    /// The cluster's name.
    pub name: String,
    /// How many masters and nodes there will be.
    pub counts: (u8, u8),
    /// Those of an identity that is there, otherwise the defaults, where nothing is said.
    pub modes: identity::Modes,
    /// How new machines are made.
    pub make: Make,
    /// Ports of this host that lead to machines, besides those to API servers.
    pub forwards: Vec<PlannedForward>,
    /// Port of this host for the first master's API server; 0 for any.
    pub api_port: u16,
    /// Whether machines reach what this host reaches; counts when the cluster is made.
    pub outside: bool,
    /// Whether nodes are switched on without waiting for masters that are emulated.
    pub at_once: bool,
    /// How long all of it may take.
    pub timeout: Duration,
    /// Whether the machines end with this program.
    pub foreground: bool,
    /// The cache that has QEMU where it is unpacked.
    pub cache: Option<PathBuf>,
    /// Which QEMU.
    pub qemu: Option<Qemu>,
    /// The user's own kubeconfig and the name that the cluster gets there, if it is wanted there.
    pub merge: Option<(Users, String)>,
    /// Whether the user has a kubectl.
    pub kubectl: bool,
}

/// How many masters and nodes there will be, and which roles are new, so that images are needed for them.
///
/// # Errors
/// The plan cannot be read.
pub fn counts(place: &Place, masters: Option<u8>, nodes: Option<u8>) -> Result<((u8, u8), Vec<Role>)> {
    let plan = Plan::read(&place.file(PLAN))?;
    let had = plan.as_ref().map(|plan| (plan.count(true), plan.count(false)));
    let (default_masters, default_nodes) = had.unwrap_or((1, 2));
    let wanted = (masters.unwrap_or(default_masters), nodes.unwrap_or(default_nodes));
    let (had_masters, had_nodes) = had.unwrap_or((0, 0));
    let mut new = Vec::new();
    if wanted.0 > had_masters {
        new.push(Role::Master);
    }
    if wanted.1 > had_nodes {
        new.push(Role::Node);
    }
    Ok((wanted, new))
}

/// Refuses an image for machines of a role of which none is made, where those that there are have another one.
///
/// # Errors
/// They have; or the image is not there.
pub fn keeps_image(place: &Place, role: Role, file: &Path) -> Result<()> {
    let Some(plan) = Plan::read(&place.file(PLAN))? else { return Ok(()) };
    let mut of_the_role = plan.machines.iter().filter(|machine| machine.master == (role == Role::Master)).peekable();
    if of_the_role.peek().is_none() {
        return Ok(());
    }
    let named = Image::now(file)?.path;
    let Some(machine) = of_the_role.find(|machine| machine.image.path != named) else { return Ok(()) };
    let (name, has, file) = (&machine.name, machine.image.path.display(), file.display());
    let hint = format!("kscratch-image cluster down {} --delete, then up, makes all machines anew", place.argument());
    Err(anyhow!("{name} is there already, and its disk lies over {has}, not over {file}").context(Hint(hint)))
}

/// Brings the machines up and waits for them.
///
/// # Errors
/// Something stands in the way, a machine fails, or time is up: told with where every machine stands.
pub fn up(options: &Options, now: OffsetDateTime, console: &Console) -> Result<()> {
    let deadline = Instant::now() + options.timeout;
    let place = Place::of(&options.parent, &options.name);
    let plan = prepare(options, &place, now, console)?;
    merge(options, &place, userconfig::check)?;
    let started = keep(options, &place, console)?;
    let order = Order::of(&client::status(&place)?, options.at_once);
    switch_on(&place, &order.first)?;
    let watch = watch(&place, &plan)?;
    let waited = wait(&place, order, watch.as_ref(), (deadline, options.timeout), console);
    if let Some(started) = started {
        if options.foreground {
            waited?;
            finish(options, &place, &plan, console)?;
            return stay(&place, watch.as_ref(), console, &started);
        }
        // What failed goes on too: its consoles are to be read.
        started.detach(&place)?;
    }
    waited?;
    finish(options, &place, &plan, console)
}

/// Everything on the disk that is needed before the first machine is started.
fn prepare(options: &Options, place: &Place, now: OffsetDateTime, console: &Console) -> Result<Plan> {
    let action = || format!("planning the machines of {}", options.name);
    let before = Plan::read(&place.file(PLAN))?;
    let mut plan = before.clone().unwrap_or_else(|| Plan::empty(&options.name, options.outside));
    if before.is_some() && options.outside && !plan.outside {
        return Err(anyhow!("its machines were made without a way outside")
            .context(Hint(format!("kscratch-image cluster down {} --delete", options.name)))
            .context(action()));
    }
    plan.grow(options.counts.0, options.counts.1, &options.make).with_context(action)?;
    for forward in forwards(options, &plan) {
        plan.forward(forward, free_port).with_context(action)?;
    }
    let running = client::answers(place);
    if running && before.as_ref().is_some_and(|before| before.forwards != plan.forwards) {
        return Err(anyhow!("forwards cannot change while machines run")
            .context(Hint(format!("kscratch-image cluster down {}", options.name)))
            .context(action()));
    }
    let identity = identity::open(&options.parent, &plan, options.modes, now)?;
    plan.shared = identity.as_ref().and_then(|identity| identity.settings.shared());
    for machine in &plan.machines {
        place.make(&machine.name)?;
        let role = place.machine_file(&machine.name, ROLE);
        // One that is there was changed on purpose, or is as it would be made.
        if !role.exists() {
            write_private(&role, &identity::role(identity.as_ref(), &plan, machine, now)?)?;
        }
    }
    if let (Some(identity), Some(port)) = (&identity, plan.api_port()) {
        write_private(&place.file(KUBECONFIG), &identity::kubeconfig(identity, port)?)?;
    }
    write_private(&place.file(PLAN), &plan.text()?)?;
    let what = if before.is_some() { "going on with" } else { "made" };
    let (masters, nodes) = (counted(plan.count(true).into(), "master"), counted(plan.count(false).into(), "node"));
    console.say(format_args!(
        "{what} the machines of {}: {masters}, {nodes}, in {}",
        plan.name,
        place.path().display()
    ));
    Ok(plan)
}

/// What the user wants, and the way to every master's API server.
fn forwards(options: &Options, plan: &Plan) -> Vec<PlannedForward> {
    let masters = plan.machines.iter().filter(|machine| machine.master).enumerate();
    let api = masters.map(|(index, machine)| PlannedForward {
        host: if index == 0 { options.api_port } else { 0 },
        machine: machine.name.clone(),
        port: API_PORT,
    });
    api.chain(options.forwards.iter().cloned()).collect()
}

/// A port that nobody has now. It is written down, so that a kubeconfig stays good; should another program take it between two
/// starts, that is told.
fn free_port() -> Result<u16> {
    let listener =
        std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

/// Starts a keeper, or tells the one that is there of new machines.
fn keep(options: &Options, place: &Place, console: &Console) -> Result<Option<Started>> {
    if client::answers(place) {
        match client::ask(place, &Request::Reload) {
            Err(error) if client::answers(place) => return Err(error),
            // It was about to end.
            Err(_) => {}
            Ok(_) => {
                if options.foreground {
                    console.warn("the machines were started before: they go on when this program ends");
                }
                return Ok(None);
            }
        }
    }
    client::start(place, options.cache.as_deref(), options.qemu).map(Some).map_err(|error| {
        let taken = error.chain().any(|cause| cause.to_string().contains("host forwarding rule"));
        if !taken {
            return error;
        }
        let plan = place.file(PLAN);
        error.context(Hint(format!(
            "another program has one of the ports in {}: end it, or change the port",
            plan.display()
        )))
    })
}

fn switch_on(place: &Place, machines: &[String]) -> Result<()> {
    for machine in machines {
        client::ask(place, &Request::On { machine: machine.clone(), clock: None })?;
    }
    Ok(())
}

fn watch(place: &Place, plan: &Plan) -> Result<Option<Watch>> {
    if plan.api_port().is_none() {
        return Ok(None);
    }
    Ok(Some(Watch::start(api(&place.file(KUBECONFIG))?).context("starting a thread")?))
}

/// The API server that a kubeconfig leads to.
pub(super) fn api(kubeconfig: &Path) -> Result<Api> {
    let action = || format!("reading {}", kubeconfig.display());
    let text = std::fs::read_to_string(kubeconfig).with_context(action)?;
    Api::of(&Access::parse(&text).with_context(action)?).with_context(action)
}

/// Waits until all machines are Ready, for so long at most, and switches on meanwhile those that are held.
fn wait(
    place: &Place,
    mut order: Order,
    watch: Option<&Watch>,
    (deadline, bound): (Instant, Duration),
    console: &Console,
) -> Result<()> {
    let mut view = View::new(console);
    let (begun, mut panics) = (Instant::now(), Panics::default());
    loop {
        let status = client::status(place)?;
        let nodes = watch.map(Watch::latest);
        let mut rows = rows(&status, nodes.as_ref());
        let released = order.released(&mut rows);
        if !released.is_empty() {
            switch_on(place, &released)?;
            continue;
        }
        view.show(&rows);
        if rows.iter().all(|row| row.ready) {
            return Ok(());
        }
        let panicked: Vec<String> =
            rows.iter().filter_map(|row| panics.note(&row.name, &row.phase, begun.elapsed())).collect();
        let failed = failure(&status, &rows, &order.held).or_else(|| panicked.into_iter().next());
        if failed.is_some() || Instant::now() > deadline {
            drop(view);
            let why = failed.unwrap_or_else(|| format!("not all machines are Ready within {} s", bound.as_secs()));
            let why = match nodes {
                Some(Err(api)) => format!("{why}; the API server: {api}"),
                _ => why,
            };
            return Err(stands(place, &rows, why));
        }
        thread::sleep(EVERY);
    }
}

/// What no waiting heals. `held` are off for now.
fn failure(status: &Status, rows: &[Row], held: &[String]) -> Option<String> {
    if status.gateway.is_none() {
        return Some("the gateway has ended".to_owned());
    }
    let went_off = |row: &&Row| !row.on && !held.contains(&row.name);
    let off = rows.iter().find(went_off);
    let off = off.map(|row| format!("{} went off while it came up: {}", row.name, row.phase));
    // Without metadata init waits for the power button.
    let hopeless = |row: &&Row| row.phase.contains(" metadata: failed: ");
    off.or_else(|| rows.iter().find(hopeless).map(|row| format!("{} did not come up: {}", row.name, row.phase)))
}

/// The error with where every machine stands, and the last words of those that are not Ready.
fn stands(place: &Place, rows: &[Row], why: String) -> anyhow::Error {
    let mut text = why;
    for row in rows.iter().filter(|row| !row.ready) {
        text.push_str(&format!("\n{}: {}", row.name, row.summary()));
        match logs::tail(place, &row.name, TAIL) {
            Ok(lines) => lines.iter().for_each(|line| text.push_str(&format!("\n    {line}"))),
            Err(error) => text.push_str(&format!("\n    {error:#}")),
        }
    }
    let cluster = place.argument();
    anyhow!(text)
        .context(Hint(format!(
            "kscratch-image cluster logs {cluster} MACHINE shows more; cluster down {cluster} ends the machines"
        )))
        .context(format!("bringing {} up", place.name))
}

/// Puts the cluster into the user's kubeconfig where that is wanted, and tells how to go on.
fn finish(options: &Options, place: &Place, plan: &Plan, console: &Console) -> Result<()> {
    let added = merge(options, place, |users, addition| {
        let own = place.file(KUBECONFIG);
        let own = std::fs::read_to_string(&own).with_context(|| format!("reading {}", own.display()))?;
        userconfig::add(users, addition, &own)
    });
    tell(options, place, plan, console);
    if let (Some((users, name)), Ok(())) = (&options.merge, &added) {
        console.say(format_args!("  {} has the context {name}", users.file.display()));
    }
    added
}

/// Does something with the user's kubeconfig, if it is wanted there.
fn merge(options: &Options, place: &Place, with: impl FnOnce(&Users, Addition<'_>) -> Result<()>) -> Result<()> {
    let Some((users, name)) = &options.merge else { return Ok(()) };
    let folder = userconfig::folder(place.path().parent().unwrap_or(Path::new("")))?;
    with(users, Addition { name, folder: &folder })
}

fn tell(options: &Options, place: &Place, plan: &Plan, console: &Console) {
    console.say(format_args!("all machines of {} are ready", plan.name));
    for forward in plan.forwards.iter().filter(|forward| forward.port != API_PORT) {
        console.say(format_args!("127.0.0.1:{} leads to port {} of {}", forward.host, forward.port, forward.machine));
    }
    if plan.api_port().is_some() {
        let line = kubectl::nodes(&options.parent, &plan.name, &place.file(KUBECONFIG), options.kubectl);
        console.say(format_args!("  {line}"));
    }
    let cluster = place.argument();
    console.say(format_args!("  kscratch-image cluster status {cluster}; kscratch-image cluster down {cluster}"));
}

/// Shows the machines until their keeper ends; they end with this program.
fn stay(place: &Place, watch: Option<&Watch>, console: &Console, _started: &Started) -> Result<()> {
    console.say("the machines end with this program (Ctrl-C)");
    let mut view = View::new(console);
    while client::answers(place) {
        let Ok(status) = client::status(place) else { break };
        if status.gateway.is_none() {
            bail!("the gateway of {} has ended", place.name);
        }
        view.show(&rows(&status, watch.map(Watch::latest).as_ref()));
        thread::sleep(EVERY);
    }
    Ok(())
}
