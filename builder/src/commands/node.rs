//! `kscratch-image node`: a machine of a running cluster is asked, or told something.
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::print;
use crate::cli::node::{EndArgs, LogsArgs, NodeArgs, NodeCommand, StatusArgs};
use crate::console::{Console, Hint};
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
    let file = alone(&args.kubeconfig)?;
    let action = || format!("taking the way to the cluster from {}", file.display());
    let access = Access::parse(&super::read_text(&file)?).with_context(action)?;
    Ok((Api::of(&access).with_context(action)?, access.user))
}

/// The one file that is meant. `KUBECONFIG` may be a list, whose files kubectl reads as one and which may be there or not.
fn alone(named: &Path) -> Result<PathBuf> {
    let mut there: Vec<PathBuf> = std::env::split_paths(named).filter(|file| file.exists()).collect();
    match (named.exists(), there.len()) {
        (false, 1) => Ok(there.remove(0)),
        (false, 2..) => {
            let hint = "kubectl config view --flatten --minify > FILE makes one of its current context; --kubeconfig FILE takes that";
            Err(anyhow!("{} are several kubeconfigs", named.display()).context(Hint(hint.to_owned())))
        }
        _ => Ok(named.to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::alone;
    use crate::console::error_lines;

    #[test]
    fn of_a_list_the_one_that_is_there_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other, none] = ["one", "other", "none"].map(|name| folder.path().join(name));
        [&one, &other].into_iter().for_each(|file| fs::write(file, "").unwrap());
        let list = |files: &[&Path]| std::env::join_paths(files).unwrap();
        assert_eq!(alone(&one).unwrap(), one);
        assert_eq!(alone(Path::new(&list(&[&none, &other]))).unwrap(), other);
        assert_eq!(alone(&none).unwrap(), none, "reading it says what is wrong");
        let both = list(&[&one, &other]);
        let told = error_lines(&alone(Path::new(&both)).unwrap_err());
        assert!(
            told[0].ends_with("are several kubeconfigs") && told[1].starts_with("hint: kubectl config view"),
            "{told:?}"
        );
    }
}
