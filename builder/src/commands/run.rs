//! `run`: the machine that the arguments describe, and the image that it boots.
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kscratch_qemu::{Condition, DiskModel};

use crate::cli::{BuildArgs, Format, Role, RunArgs};
use crate::console::Console;
use crate::run;

use super::{build, default_output, store};

/// Boots an image, built where there is none.
///
/// # Errors
/// Arguments that are none; whatever the machine says.
pub(super) fn execute(args: &RunArgs, console: &Console) -> Result<ExitCode> {
    let image = args.image.clone().unwrap_or_else(|| default_output(Role::Node, Format::Raw));
    let disk = disk(args, &image)?;
    let options = run::Options {
        image,
        direct: args.direct,
        memory: args.memory,
        cpus: args.cpus,
        forwards: words(&args.forward)?,
        metadata: args.metadata.clone(),
        disk_size: args.disk_size.parse().map_err(|error: String| anyhow!(error)).context("reading --disk-size")?,
        timeout: args.timeout.map(Duration::from_secs),
        overlay: args.overlay.clone(),
        disk,
        disks: words(&args.disk).context("reading --disk")?,
        cards: args.nics,
        card: args.nic.parse().map_err(|error: String| anyhow!(error)).context("reading --nic")?,
        watchdog: args.watchdog,
        clock: args.clock.clone(),
        cable: Condition {
            up: !args.unplugged,
            loss: args.loss,
            delay: Duration::from_millis(args.delay),
            rate: args.rate,
        },
        cut: cut(args)?,
        record: args.record.clone(),
    };
    if args.image.is_none() && !options.image.exists() {
        console.say(format_args!("there is no {} here yet: building it", options.image.display()));
        build(&BuildArgs::node(args.cache.clone()), console)?;
    }
    run::check(&options)?;
    let store = store(args.cache.as_deref())?;
    let tools = run::tools::find_or_unpack(args.qemu, &store, console)?;
    let swtpm = args.tpm.then(|| run::tools::swtpm(args.qemu, &store, console)).transpose()?;
    Ok(run::run(&options, &tools, swtpm.as_ref(), console)?.exit_code().into())
}

/// The image's model and sectors: those that are asked for, or that it is made for.
fn disk(args: &RunArgs, image: &Path) -> Result<(DiskModel, u32)> {
    let error = |error: String| anyhow!(error);
    let model = args.disk_model.parse().map_err(error).context("reading --disk-model")?;
    let sector = match &args.sector_size {
        Some(text) => run::hardware::sector(text).map_err(error).context("reading --sector-size")?,
        None => run::hardware::sector_of(image),
    };
    run::hardware::fits(model, sector).map_err(error).context("reading --sector-size")?;
    Ok((model, sector))
}

fn cut(args: &RunArgs) -> Result<Option<run::Cut>> {
    match (args.cut_after, args.cut_at.as_deref()) {
        (Some(seconds), _) => Ok(Some(run::Cut::After(Duration::from_secs(seconds)))),
        (None, Some("")) => Err(anyhow!("--cut-at: every line has nothing in it; name some of its words")),
        (None, text) => Ok(text.map(|text| run::Cut::At(text.to_owned()))),
    }
}

/// Every word as what it stands for.
fn words<T: FromStr<Err = String>>(all: &[String]) -> Result<Vec<T>> {
    all.iter().map(|text| text.parse().map_err(|error: String| anyhow!(error))).collect()
}
