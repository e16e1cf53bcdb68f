//! Starts the verb that the command line names.
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use kscratch_agent::certificates::{self, Kept};
use kscratch_agent::connection::Connection;
use kscratch_agent::{address, contract, fetch, identities, logs, newcluster, orders, routes, say, steward};
use kscratch_pki::OffsetDateTime;

const USAGE: &str = "\
kscratch-agent keeps a machine in its cluster. PID 1 starts it with one of
  address FILE        keep the address that masters share on one that is alive
  certificates FILE   make this machine's certificates from its authorities, once
  fetch URL           write to the standard output what an https URL names, once
  identities FILE     keep client certificates that the cluster signs for this node
  logs FILE           send what services, kernel and init say to the servers of the metadata; the kernel's log is its standard input
  new-cluster FOLDER  make the identity of a cluster, once
  routes FILE         keep the routes to the other machines' pods
  steward FILE        keep the cluster's own objects, its nodes' requests and this master's certificates
and with FILE, the JSON text that says how.
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["address", file] => contract::read(Path::new(file)).and_then(|wanted| run(address::run(wanted))),
        ["certificates", file] => contract::read(Path::new(file))
            .and_then(|wanted| certificates::keep(&wanted, OffsetDateTime::now_utc(), Kept::Told)),
        ["fetch", url] => run(fetch::text(url, Path::new(fetch::AUTHORITIES)))
            .and_then(|text| std::io::stdout().write_all(&text).context("writing what was fetched")),
        ["identities", file] => contract::read(Path::new(file)).and_then(|wanted: contract::Identities| {
            let orders = wanted.orders.clone();
            let connection = Connection::new(&wanted.server, &wanted.authority, &wanted.kubelet, &wanted.kubelet);
            run(orders::beside(orders, connection, identities::run(wanted)))
        }),
        ["logs", file] => contract::read(Path::new(file)).and_then(|wanted| run(logs::run(wanted))),
        ["new-cluster", folder] => newcluster::make(Path::new(folder)),
        ["steward", file] => contract::read(Path::new(file)).and_then(|wanted: contract::Steward| {
            let orders = wanted.orders.clone();
            let connection = Connection::new(&wanted.server, &wanted.authority, &wanted.certificate, &wanted.key);
            run(orders::beside(orders, connection, steward::run(wanted)))
        }),
        ["routes", file] => contract::read(Path::new(file)).and_then(|wanted| run(routes::run(wanted))),
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

/// Runs a verb that waits for others; most end only in an error.
fn run<T>(verb: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the loop that waits for sockets and timers")?;
    let done = runtime.block_on(verb);
    // A name that is looked up has a thread to itself, which nobody can end, and the C library may wait there for many seconds.
    runtime.shutdown_background();
    done
}
