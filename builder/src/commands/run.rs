//! `run`: the machine that the arguments describe, and the image that it boots.
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kscratch_qemu::{Condition, DiskModel};

use crate::cli::{BuildArgs, Format, Role, RunArgs};
use crate::console::Console;
use crate::run;
use crate::spec::ByteSize;

use super::{build, default_output, store};

/// Boots an image, built where there is none.
///
/// # Errors
/// Arguments that are none; whatever the machine says.
pub(super) fn execute(args: &RunArgs, console: &Console) -> Result<ExitCode> {
    let image_is_there = args.image.is_some() || default_output(Role::Node, Format::Raw).exists();
    // Who compiles for a build would have the signals blocked too, and go on to its end behind this program's.
    let interrupt = if image_is_there { run::Interrupt::watch()? } else { run::Interrupt::default() };
    let options = run::Options {
        image: args.image.clone().unwrap_or_else(|| default_output(Role::Node, Format::Raw)),
        direct: args.direct,
        memory: args.memory,
        cpus: args.cpus,
        forwards: words(&args.forward)?,
        metadata: args.metadata.clone(),
        disk_size: args.disk_size.as_deref().map(size).transpose().context("reading --disk-size")?,
        timeout: args.timeout.map(Duration::from_secs),
        overlay: args.overlay.clone(),
        disk: disk(args)?,
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
    if !image_is_there {
        console.say(format_args!("there is no {} here yet: building it", options.image.display()));
        build(&BuildArgs::node(args.cache.clone()), console)?;
    }
    run::check(&options)?;
    let store = store(args.cache.as_deref())?;
    let tools = run::tools::find_or_unpack(args.qemu, &store, console)?;
    let swtpm = args.tpm.then(|| run::tools::swtpm(args.qemu, &store, console)).transpose()?;
    Ok(run::run(&options, &tools, swtpm.as_ref(), &interrupt, console)?.exit_code().into())
}

fn size(text: &str) -> Result<ByteSize> {
    text.parse().map_err(|error: String| anyhow!(error))
}

/// The image's model and sectors as they are asked for. There may be no image yet, which would say what it is made for.
fn disk(args: &RunArgs) -> Result<(DiskModel, Option<u32>)> {
    let error = |error: String| anyhow!(error);
    let model = args.disk_model.parse().map_err(error).context("reading --disk-model")?;
    let read = |text: &String| {
        let sector = run::hardware::sector(text)?;
        run::hardware::fits(model, sector).map(|()| sector)
    };
    Ok((model, args.sector_size.as_ref().map(read).transpose().map_err(error).context("reading --sector-size")?))
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
