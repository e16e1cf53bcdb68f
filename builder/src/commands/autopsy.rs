//! `kscratch-image autopsy`: the flight recorder of a machine's disk becomes the story of its boots.
use anyhow::{Context, Result};

use super::print;
use crate::autopsy::{self, Autopsy, Which};
use crate::cli::AutopsyArgs;
use crate::console::Console;
use crate::inspect::Opened;
use crate::running;

/// Does what the arguments say.
pub(super) fn execute(args: &AutopsyArgs, console: &Console) -> Result<()> {
    let disk = args.disk.display();
    if running::is_in_use(&args.disk) {
        console.warn(format_args!("{disk} is in use: what its machine has not written yet is not seen"));
    }
    let kept = Opened::open(&args.disk)
        .and_then(|opened| autopsy::read(&opened))
        .with_context(|| format!("reading the flight recorder on {disk}"))?;
    if kept.unreadable > 0 {
        console.warn(format_args!("{} blocks of the flight recorder cannot be read: the disk fails", kept.unreadable));
    }
    let autopsy = Autopsy::of(kept.ring);
    let which = match args.boot {
        Some(number) => Which::One(number),
        None if args.all => Which::All,
        None => Which::Last,
    };
    print(&if args.json { autopsy.json(which, args.log)? } else { autopsy.text(which, args.log)? })
}
