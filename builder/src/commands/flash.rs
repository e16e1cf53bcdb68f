//! `flash` and `devices`: a person sees what would be overwritten, and says that this is meant.
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use crate::cli::{DevicesArgs, FlashArgs};
use crate::console::{Console, Hint, human_bytes};
use crate::flash::{self, Interrupt, Interrupted, Request};
use crate::inspect::Opened;
use crate::running::is_in_use;
use crate::{resolve, stamp};
use kscratch_install::blockdevice::{BlockDevice, Kernel};
use kscratch_install::refuse::{Needs, Override, Refusal, Victim, refusals};

use super::{print, read_text};

/// Bytes of the smallest image: what a disk is measured by where no image is named.
const SMALLEST: u64 = 1 << 30;

/// Looks, asks, writes.
///
/// # Errors
/// Every reason not to write; a device that fails. A signal is told here, and is the exit code.
pub(super) fn execute(args: &FlashArgs, console: &Console) -> Result<ExitCode> {
    let interrupt = Interrupt::watch(console)?;
    let overrides: Vec<Override> = args
        .overrides
        .iter()
        .map(|text| text.parse().map_err(|error: String| anyhow!("--override {text}: {error}")))
        .collect::<Result<_>>()?;
    let role = args.metadata.as_deref().map(read_text).transpose()?;
    let secrets = args.secrets.as_deref().map(read_text).transpose()?;
    let name =
        |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let names = (name(&args.metadata), name(&args.secrets));
    let texts =
        role.as_deref().map(|role| stamp::Texts { role, secrets: secrets.as_deref(), names: (&names.0, &names.1) });
    let request = Request {
        image: &args.image,
        map: args.map.as_deref(),
        to: &args.to,
        texts,
        overrides: &overrides,
        time: i64::try_from(resolve::now()?).context("taking this machine's clock as a time")?,
    };
    let prepared = flash::prepare(&request, &Kernel::default(), console)?;
    for line in facts(&prepared.victim) {
        console.say(line);
    }
    if args.dry_run {
        console.say("nothing was written (--dry-run)");
        return Ok(ExitCode::SUCCESS);
    }
    // A file that is there was named once more, to be overridden.
    if prepared.victim.device.is_some() || args.serial.is_some() {
        let wanted = prepared.victim.name_to_type();
        confirm(args.serial.as_deref(), &prepared.victim, "Everything", &format!("--serial {wanted}"), console)?;
    }
    let done = match flash::write(&prepared, &interrupt, console) {
        Ok(done) => done,
        Err(error) => {
            let Some(interrupted) = Interrupted::of(&error) else { return Err(error) };
            console.error(&error);
            return Ok(ExitCode::from(interrupted.status()));
        }
    };
    let rate = |time: Duration| human_bytes((done.bytes as f64 / time.as_secs_f64().max(0.001)) as u64);
    console.say(format_args!(
        "written    {} in {:.1} s ({}/s), read back in {:.1} s ({}/s): {} is ready",
        human_bytes(done.bytes),
        done.took.writing.as_secs_f64(),
        rate(done.took.writing),
        done.took.reading.as_secs_f64(),
        rate(done.took.reading),
        args.to.display(),
    ));
    Ok(ExitCode::SUCCESS)
}

/// What is going to be overwritten.
pub(super) fn facts(victim: &Victim) -> Vec<String> {
    let mut lines = Vec::new();
    let device = victim.device.as_ref();
    let mut what = Vec::new();
    if let Some(device) = device {
        what.extend(device.model.clone());
        what.push(human_bytes(device.bytes));
        what.extend(device.transport.map(str::to_owned));
        what.extend(device.removable.then(|| "removable".to_owned()));
    } else {
        what.push(if victim.contents.is_some() { "a file".to_owned() } else { "a new file".to_owned() });
    }
    lines.push(format!("device     {}: {}", victim.path.display(), what.join(", ")));
    if let Some(device) = device {
        lines.push(format!("serial     {}", device.serial.as_deref().unwrap_or("none")));
        lines.extend(device.wwn.as_ref().map(|wwn| format!("wwn        {wwn}")));
    }
    lines.extend(victim.contents.as_ref().map(|contents| format!("holds      {contents}")));
    lines
}

/// Wants the device's serial number, or a file's path, as an option or from the terminal. `lost`: what goes; `option`: what says so without one.
pub(super) fn confirm(
    serial: Option<&str>,
    victim: &Victim,
    lost: &str,
    option: &str,
    console: &Console,
) -> Result<()> {
    let (path, wanted) = (victim.path.display(), victim.name_to_type());
    if let Some(given) = serial {
        let known = victim.device.as_ref().and_then(|device| device.serial.as_deref());
        return match known {
            _ if given == wanted => Ok(()),
            Some(known) => {
                Err(anyhow!("{path} is another device than you mean: its serial number is {known}, not {given}"))
            }
            None => Err(anyhow!("{path} has no serial number that could be {given}; `--serial {wanted}` means it")),
        };
    }
    let question = format!("{lost} on {path} will be lost. To go on, type {wanted}:");
    match console.ask(question).context("asking whether this device is meant")? {
        Some(answer) if answer == wanted => Ok(()),
        Some(_) => Err(anyhow!("that was not {wanted}: nothing was written")),
        None => {
            let what = if victim.device.is_some() { "device" } else { "file" };
            let way = format!("say so with `{option}`, or on a terminal when asked");
            Err(anyhow!("nobody said that {path} is the {what} to overwrite").context(Hint(way)))
        }
    }
}

/// Lists the machine's disks, and why each is or is not to be flashed.
///
/// # Errors
/// The kernel does not tell of them.
pub(super) fn devices(args: &DevicesArgs) -> Result<()> {
    let image = args
        .image
        .as_deref()
        .map(|file| Opened::alone(file).map(|disk| Needs::of(&disk, disk.disk_len())))
        .transpose()?;
    let needs = image.unwrap_or(Needs { bytes: SMALLEST, sector: None });
    let all = BlockDevice::all(&Kernel::default())?;
    let seen: Vec<(Victim, Vec<Refusal>)> = all
        .into_iter()
        // Loop devices without a file, and memory, are no candidates that anybody looks for.
        .filter(|device| args.all || device.bytes > 0 && !device.path.starts_with("/dev/ram"))
        .map(|device| {
            let path = device.path.clone();
            let victim = Victim::of(&path, Some(device), is_in_use(&path));
            let refusals = refusals(&victim, &needs, &[]);
            (victim, refusals)
        })
        .collect();
    if args.json {
        let list = seen.iter().map(|(victim, refusals)| {
            let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
            json!({ "device": victim.device, "contents": victim.contents, "flashable": reasons.is_empty(), "reasons": reasons })
        });
        return print(&format!("{}\n", serde_json::to_string_pretty(&list.collect::<Vec<_>>())?));
    }
    let mut text = String::new();
    for (victim, refusals) in &seen {
        for line in facts(victim) {
            // Writing into a String does not fail.
            let _ = writeln!(text, "{line}");
        }
        let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        let verdict = if reasons.is_empty() {
            format!(
                "yes: `kscratch-image flash FILE --to {} --serial {}`",
                victim.path.display(),
                victim.name_to_type()
            )
        } else {
            format!("no: {}", reasons.join("; "))
        };
        let _ = writeln!(text, "flashable  {verdict}\n");
    }
    if seen.is_empty() {
        text.push_str("this machine has no disk\n");
    }
    print(&text)
}
