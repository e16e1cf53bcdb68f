//! Switches machines on and off, changes their cables, and ends a cluster.
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::client;
use super::place::{PLAN, Place};
use super::plan::Plan;
use super::protocol::{MachineStatus, Request, Status};
use super::rows::{Row, rows};
use super::up::api;
use crate::console::Console;

/// How long machines may take to end after their power button was pressed: their pods have half a minute, by a clock that goes several times slower than
/// this one's where an emulated machine has time of its own and others are busy beside it.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How often they are looked at meanwhile.
const EVERY: Duration = Duration::from_millis(200);
/// How often the button is pressed again, as a person would: a machine hears nothing before its kernel has the driver.
const AGAIN: Duration = Duration::from_secs(20);

/// Presses the power buttons of these machines and waits until they are off; what is still on after `patience` stays on.
///
/// # Errors
/// There is no such machine, or it does not end in time.
pub fn off(place: &Place, machines: &[String], patience: Duration) -> Result<()> {
    for machine in machines {
        client::ask(place, &Request::Off { machine: machine.clone() })?;
    }
    let late = wait_off(place, machines, patience)?;
    if late.is_empty() {
        return Ok(());
    }
    anyhow::bail!("{} did not end within {} s after the power button", late.join(", "), patience.as_secs())
}

/// The machines of these, whose buttons were pressed, that are still on after `patience`.
fn wait_off(place: &Place, machines: &[String], patience: Duration) -> Result<Vec<String>> {
    let deadline = Instant::now() + patience;
    let mut press = Instant::now() + AGAIN;
    loop {
        let status = client::status(place)?;
        let on = |machine: &&MachineStatus| machine.pid.is_some() && machines.contains(&machine.name);
        let late: Vec<String> = status.machines.iter().filter(on).map(|machine| machine.name.clone()).collect();
        if late.is_empty() || Instant::now() > deadline {
            return Ok(late);
        }
        if Instant::now() >= press {
            press = Instant::now() + AGAIN;
            for machine in late {
                // One that has just ended is what is wanted.
                let _ = client::ask(place, &Request::Off { machine });
            }
        }
        thread::sleep(EVERY);
    }
}

/// Ends all machines and their keeper: by the power button, unless `cut`; whoever is late has its power cut. With `delete`, their
/// folder goes too.
///
/// # Errors
/// The keeper does not answer, or a file cannot be removed.
pub fn down(place: &Place, cut: bool, delete: bool, console: &Console) -> Result<()> {
    if client::answers(place) {
        end(place, cut, console)?;
        console.say(format_args!("the machines of {} are down", place.name));
    } else if !delete {
        return Err(client::down(place));
    }
    if delete {
        let folder = place.path();
        // Nothing is removed that is not what `up` made.
        Plan::read(&place.file(PLAN))?.with_context(|| format!("there are no machines in {}", folder.display()))?;
        std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
        console.say(format_args!("removed {}", folder.display()));
    }
    Ok(())
}

fn end(place: &Place, cut: bool, console: &Console) -> Result<()> {
    let running = |status: Status| -> Vec<String> {
        status.machines.into_iter().filter(|machine| machine.pid.is_some()).map(|machine| machine.name).collect()
    };
    let machines = running(client::status(place)?);
    if !cut {
        for machine in &machines {
            // One that ended by itself a moment ago is what is wanted.
            let _ = client::ask(place, &Request::Off { machine: machine.clone() });
        }
        for late in wait_off(place, &machines, PATIENCE)? {
            console.warn(format_args!("{late} did not end by itself: its power is cut"));
        }
    }
    client::end(place)
}

/// How all machines are, with what the API server says, asked once; and why it says nothing, where it does not.
///
/// # Errors
/// The machines are not up.
pub fn status(place: &Place) -> Result<(Vec<Row>, Option<String>)> {
    let status = client::status(place)?;
    let plan = Plan::read(&place.file(PLAN))?.with_context(|| format!("there is no {PLAN}"))?;
    let nodes = match plan.api_port() {
        None => None,
        Some(_) => Some(api(&place.file(super::place::KUBECONFIG))?.nodes().map_err(|error| format!("{error:#}"))),
    };
    let silent = nodes.as_ref().and_then(|nodes| nodes.as_ref().err().cloned());
    Ok((rows(&status, nodes.as_ref()), silent))
}
