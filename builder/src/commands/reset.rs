//! `reset`: a person sees whose state would be wiped, and says that this is meant.
use anyhow::{Result, anyhow};
use kscratch_install::blockdevice::Kernel;

use crate::cli::ResetArgs;
use crate::console::{Console, Hint};
use crate::reset::{self, Override, Prepared, Request, State};

use super::flash::{confirm, facts};

/// Looks, asks, wipes.
///
/// # Errors
/// Every reason not to wipe; a disk that fails.
pub(super) fn execute(args: &ResetArgs, console: &Console) -> Result<()> {
    if args.keep_identity {
        return Err(identity_goes());
    }
    let overrides: Vec<Override> = args
        .overrides
        .iter()
        .map(|text| text.parse().map_err(|error: String| anyhow!("--override {text}: {error}")))
        .collect::<Result<_>>()?;
    let request = Request { disk: &args.disk, overrides: &overrides };
    let prepared = reset::prepare(&request, &Kernel::default())?;
    let disk = args.disk.display();
    match prepared.victim.device {
        Some(_) => facts(&prepared.victim).into_iter().for_each(|line| console.say(line)),
        None => console.say(format_args!("file       {disk}: {}", prepared.form)),
    }
    prepared.facts().into_iter().for_each(|line| console.say(line));
    if prepared.machine.state == State::Blank {
        console.say(format_args!("nothing is to be wiped: the next boot of {disk} makes its state anew in any case"));
        return Ok(());
    }
    if args.dry_run {
        console.say("nothing was written (--dry-run)");
        return Ok(());
    }
    meant(args, &prepared, console)?;
    reset::wipe(&prepared)?;
    console.say(format_args!("wiped      the next boot of {disk} makes its state anew, and is that of a new machine"));
    for purpose in &prepared.machine.disks {
        console.warn(format_args!(
            "its disk for {} stays as it is; `blkdiscard --zeroout` makes one blank",
            purpose.word()
        ));
    }
    Ok(())
}

/// A node's certificate stands in the very filesystem that is wiped.
fn identity_goes() -> anyhow::Error {
    let way = "`kscratch-image node reset NODE --keep-identity` has a running machine do it; for one that nobody reaches, leave --keep-identity out: it joins anew by the token of its metadata";
    anyhow!("who a machine is cannot be kept on a disk that is off: it stands in the filesystem that is wiped, which nothing is written into while its journal may hold newer blocks")
        .context(Hint(way.to_owned()))
}

fn meant(args: &ResetArgs, prepared: &Prepared<'_>, console: &Console) -> Result<()> {
    let wanted = prepared.victim.name_to_type();
    let option = match &prepared.victim.device {
        Some(_) if args.yes => {
            let error = anyhow!("--yes is for files, and {} is a device", args.disk.display());
            return Err(error.context(Hint(format!("`--serial {wanted}` says that this one is meant"))));
        }
        Some(_) => format!("--serial {wanted}"),
        None if args.yes => return Ok(()),
        None => "--yes".to_owned(),
    };
    confirm(args.serial.as_deref(), &prepared.victim, "All state", &option, console)
}
