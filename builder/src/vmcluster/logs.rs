//! What a machine said on its serial line, of every start, as readable text.
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use kscratch_qemu::console::readable;

use super::client;
use super::place::{CONSOLE, PLAN, Place};
use super::plan::Plan;

/// How much of a console's end is read for its last lines.
const END: u64 = 64 << 10;
/// How often a console that is followed is looked at.
const EVERY: Duration = Duration::from_millis(200);

/// The last lines of a machine's console.
///
/// # Errors
/// There is no such machine, or its console cannot be read.
pub fn tail(place: &Place, machine: &str, lines: usize) -> Result<Vec<String>> {
    let mut file = open(place, machine)?;
    let action = || format!("reading the console of {machine}");
    let length = file.metadata().with_context(action)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END))).with_context(action)?;
    let mut bytes = Vec::new();
    file.take(END).read_to_end(&mut bytes).with_context(action)?;
    let mut all: Vec<String> = bytes.split(|byte| *byte == b'\n').map(readable).collect();
    // What stands behind the last line's end is a line only if it says something.
    all.pop_if(|last| last.is_empty());
    Ok(all.split_off(all.len().saturating_sub(lines)))
}

/// Writes a machine's whole console, and with `follow` goes on until the cluster goes down or nobody reads any more.
///
/// # Errors
/// There is no such machine, or its console cannot be read.
pub fn print(place: &Place, machine: &str, follow: bool, mut out: impl Write) -> Result<()> {
    let action = || format!("reading the console of {machine}");
    let mut reader = BufReader::new(open(place, machine)?);
    let mut line = Vec::new();
    loop {
        let read = reader.read_until(b'\n', &mut line).with_context(action)?;
        // A line that is not ended yet is waited for, unless nobody will end it.
        let whole = line.last() == Some(&b'\n');
        if whole || (read == 0 && !follow && !line.is_empty()) {
            let told = writeln!(out, "{}", readable(&line));
            line.clear();
            match told {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                told => told.context("writing to standard output")?,
            }
        } else if read == 0 {
            if !follow || !client::answers(place) {
                return Ok(());
            }
            out.flush().context("writing to standard output")?;
            thread::sleep(EVERY);
        }
    }
}

fn open(place: &Place, machine: &str) -> Result<File> {
    let plan = Plan::read(&place.file(PLAN))?.ok_or_else(|| client::down(place))?;
    plan.machine(machine)?;
    let path = place.machine_file(machine, CONSOLE);
    File::open(&path).with_context(|| format!("opening {}", path.display()))
}
