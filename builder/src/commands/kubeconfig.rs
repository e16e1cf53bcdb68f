//! `kscratch-image kubeconfig`: a machine's disk becomes the kubeconfig of the cluster that it began.
use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use kscratch_metadata::Endpoint;
use kscratch_pki::OffsetDateTime;

use crate::cli::KubeconfigArgs;
use crate::cluster::folder::{write_private, write_private_new};
use crate::cluster::kubeconfigs::{PEOPLE, issue};
use crate::cluster::ondisk::{self, OnDisk};
use crate::console::{Console, Hint};
use crate::inspect::Opened;
use crate::running;

/// Does what the arguments say.
pub(super) fn execute(args: &KubeconfigArgs, console: &Console) -> Result<()> {
    let now = OffsetDateTime::now_utc();
    let (disk, output) = (args.disk.display(), args.output.display());
    let named = args.server.as_deref().map(server).transpose()?;
    if !args.force && args.output.symlink_metadata().is_ok() {
        return Err(is_there(&args.output));
    }
    let in_use = running::is_in_use(&args.disk);
    if in_use {
        console.warn(format_args!("{disk} is in use: what its machine has not written yet is not seen"));
    }
    let found = Opened::open(&args.disk)
        .and_then(|opened| ondisk::read(&opened))
        .with_context(|| format!("reading the cluster on {disk}"))
        .map_err(|error| if in_use { changing(error) } else { error })?;
    if found.replayed > 0 {
        console.detail(format_args!("read with {} transactions of the journal of its state", found.replayed));
    }
    let endpoint = match named {
        Some(endpoint) => endpoint,
        None => found.endpoint.clone().ok_or_else(|| no_server(&found))?,
    };
    if !found.served.is_empty() && !found.served.contains(&endpoint.host) {
        let names = found.served.join(", ");
        console
            .warn(format_args!("the API server proves itself as {names}; as {} kubectl will refuse it", endpoint.host));
    }
    let (_, user, group) = PEOPLE[0];
    let config = issue(&found.name, &format!("https://{endpoint}"), (user, group), &found.authority, now)?;
    if args.force {
        write_private(&args.output, &config)?;
    } else {
        write_private_new(&args.output, &config).map_err(|error| {
            let cause = error.root_cause().downcast_ref::<io::Error>().map(io::Error::kind);
            if cause == Some(io::ErrorKind::AlreadyExists) { is_there(&args.output) } else { error }
        })?;
    }
    console.say(format_args!("{output} is good for a year: {user} of the cluster {} at {endpoint}", found.name));
    console.warn(format_args!("{disk} holds the key of the cluster's authority: who reads it owns the cluster"));
    console.say("next:");
    console.say(format_args!("  kubectl --kubeconfig {output} get nodes"));
    Ok(())
}

/// Reads `--server` by the rules of role metadata.
fn server(text: &str) -> Result<Endpoint> {
    let text =
        format!("version = 1\nrole = \"master\"\n[cluster]\nendpoint = {}\n", toml::Value::String(text.to_owned()));
    let metadata = kscratch_metadata::parse(&text).map_err(|errors| {
        let said: Vec<&str> = errors.problems().iter().map(|problem| problem.what.as_str()).collect();
        anyhow!("--server: {}", said.join("; "))
            .context(Hint("write HOST or HOST:PORT, such as 192.168.7.10:6443".into()))
    })?;
    metadata.cluster.and_then(|cluster| cluster.endpoint).context("--server is empty")
}

fn is_there(path: &Path) -> anyhow::Error {
    anyhow!("{} is there already", path.display())
        .context(Hint("--force replaces it, --output FILE names another".into()))
}

/// Adds what may help, unless the error knows better.
fn changing(error: anyhow::Error) -> anyhow::Error {
    if error.chain().any(|cause| cause.to_string().starts_with("hint: ")) {
        return error;
    }
    error.context(Hint("the disk is in use and may have changed meanwhile: power the machine off and try again".into()))
}

fn no_server(found: &OnDisk) -> anyhow::Error {
    let what = if found.served.is_empty() {
        "the disk does not tell where its API server is reached: that has no certificate yet".to_owned()
    } else {
        format!("the disk does not tell one place where its API server is reached: {}", found.served.join(", "))
    };
    anyhow!(what).context(Hint("--server HOST[:PORT] names it".into()))
}
