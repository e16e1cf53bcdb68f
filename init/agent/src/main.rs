//! Starts the verb that the command line names.
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use kscratch_agent::{certificates, contract, identities, newcluster, routes, say, steward};

const USAGE: &str = "\
kscratch-agent keeps a machine in its cluster. PID 1 starts it with one of
  certificates FILE   make the certificates of a master, and end
  identities FILE     get certificates for this node's programs from the cluster, and renew them
  new-cluster FOLDER  make the identity of a cluster, and end
  routes FILE         keep the routes to the other machines' pods
  steward FILE        keep a cluster's own objects, approve what its nodes ask, renew certificates
and with FILE, the JSON text that says how.
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["certificates", file] => contract::read(Path::new(file)).and_then(|wanted| certificates::make_all(&wanted)),
        ["identities", file] => contract::read(Path::new(file)).and_then(|wanted| forever(identities::run(wanted))),
        ["new-cluster", folder] => newcluster::make(Path::new(folder)),
        ["routes", file] => contract::read(Path::new(file)).and_then(|wanted| forever(routes::run(wanted))),
        ["steward", file] => contract::read(Path::new(file)).and_then(|wanted| forever(steward::run(wanted))),
        ["--version"] => {
            say::line(format_args!("kscratch-agent {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        _ => Err(anyhow::anyhow!("{}", USAGE.trim_end())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::fault(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs a verb that ends only in an error.
fn forever(verb: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the loop that waits for sockets and timers")?;
    runtime.block_on(verb)
}
