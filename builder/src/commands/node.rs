//! `kscratch-image node`: a machine of a running cluster is asked, or told something.
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::print;
use crate::cli::node::{EndArgs, LogsArgs, NodeArgs, NodeCommand, StatusArgs};
use crate::console::Console;
use crate::node::{self, Order};
use crate::vmcluster::api::{Access, Api};

/// Does what the arguments say.
pub(super) fn execute(command: &NodeCommand, console: &Console) -> Result<ExitCode> {
    match command {
        NodeCommand::Status(args) => status(args),
        NodeCommand::Logs(args) => logs(args, console),
        NodeCommand::Reboot(args) => end(args, Order::Reboot, console),
        NodeCommand::Shutdown(args) => end(args, Order::Shutdown, console),
        NodeCommand::Reset(args) => end(&args.end, Order::Reset { keep_identity: args.keep_identity }, console),
    }
}

/// The way to the machine's API server, and who asks.
fn open(args: &NodeArgs) -> Result<(Api, String)> {
    if !kscratch_metadata::is_node_name(&args.name) {
        return Err(anyhow!("{:?} is no name of a node", args.name));
    }
    let action = || format!("taking the way to the cluster from {}", args.kubeconfig.display());
    let access = Access::parse(&super::read_text(&args.kubeconfig)?).with_context(action)?;
    Ok((Api::of(&access).with_context(action)?, access.user))
}

fn status(args: &StatusArgs) -> Result<ExitCode> {
    let (api, _) = open(&args.node)?;
    let status = node::status(&api, &args.node.name)?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&status.json)?))?;
    } else {
        print(&status.text)?;
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn logs(args: &LogsArgs, console: &Console) -> Result<ExitCode> {
    let (api, _) = open(&args.node)?;
    let name = &args.node.name;
    let Some(log) = &args.log else {
        let names = node::list(&api, name)?;
        print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    };
    let (text, length) = node::tail(&api, name, log, args.tail)?;
    print(&text)?;
    if args.follow {
        node::follow(&api, name, log, length, &mut io::stdout(), &|line| console.warn(line))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn end(args: &EndArgs, order: Order, console: &Console) -> Result<ExitCode> {
    let (api, user) = open(&args.node)?;
    let name = &args.node.name;
    if args.wait && order == Order::Shutdown {
        node::outlived(&api, name)?;
    }
    let boot = node::give(&api, name, order, &user, console)?;
    let word = match order {
        Order::Reboot => "start anew",
        Order::Shutdown => "power off",
        Order::Reset { .. } => "start anew with its state wiped",
    };
    console.say(format_args!("{name} is told to {word}; its pods are ended first"));
    if args.wait {
        node::wait(&api, name, order, &boot, Duration::from_secs(args.timeout), console)?;
    }
    Ok(ExitCode::SUCCESS)
}
