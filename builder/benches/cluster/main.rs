//! Prints when a master and a node get how far, from QEMU's start, on new disks and on the same disks again, and what needs memory then.
//!
//! The images are built first, which takes a minute or two where the cache has everything, and else up to 50 minutes each. The machines are
//! looked at for no longer than [`BOOT`] each time, are switched off within four minutes, left alone for [`CALM`] and asked for their memory,
//! which takes no more than five minutes each. They end with this program, however it ends.
#![allow(clippy::print_stdout)]
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kscratch_image::vmcluster::api::{Access, Api};

use crate::machines::{Boot, Machines, NAMES};
use crate::marks::{MARKS, Mark, State};
use crate::measure::node::Node;
use crate::measure::timeline::Timeline;

mod images;
mod machines;
mod marks;
#[path = "../measure/mod.rs"]
mod measure;
mod memory;

/// From `cluster up`, or from power on, to everything running, under emulation and with nothing beside it.
const BOOT: Duration = Duration::from_secs(25 * 60);
/// Between two questions: rare enough not to be what is measured.
const PAUSE: Duration = Duration::from_secs(1);
/// How long `cluster up` may be late with seeing that all are Ready; until then it takes a machine's end for a failure.
const SETTLE: Duration = Duration::from_secs(30);
/// How long the machines are left alone before their memory is looked at.
const CALM: Duration = Duration::from_secs(90);

fn main() -> Result<()> {
    measure::title("cluster: one master and one node, 2 processors, 2 GiB and a disk of 8 GiB each; one round");
    let node = Node::built()?;
    let [master, image] = &images::built(&node)?;
    let folder = tempfile::tempdir_in(&node.folder)?;
    // Before the folder in which they are, whatever happens, they end.
    let machines = Machines::up(folder.path(), [master, image], BOOT)?;
    let (boots, accelerated) = machines.started()?;
    println!("processors: {}, both machines at once", if accelerated { "KVM" } else { "software emulation" });
    println!(
        "times are since the start of a machine's own QEMU, by this machine's clock; the API server is asked once a second;"
    );
    println!("~ is what the API says of a time: whole seconds of the guest's clock");
    let api = Api::of(&Access::parse(&fs::read_to_string(machines.kubeconfig())?)?)?;
    boot(&machines, &boots, &api, "first boot: disks are new, and there is no cluster yet")?;
    thread::sleep(SETTLE);
    measure::time("from both power buttons to the end of both machines", machines.off()?);
    let boots = machines.on()?;
    boot(&machines, &boots, &api, "second boot, of the same disks")?;
    thread::sleep(CALM);
    machines.go_on()?;
    memory::tell(&api)
}

/// Tells when each mark is reached, and where the time went meanwhile.
fn boot(machines: &Machines, boots: &[Boot; 2], api: &Api, what: &str) -> Result<()> {
    let begun = Instant::now();
    let (mut left, mut reached) = (MARKS.to_vec(), Vec::<(Mark, Duration)>::new());
    let state = loop {
        let state = State::of(api);
        left.retain(|mark| {
            let there = mark.2(&state, boots);
            if there {
                reached.push((*mark, boots[mark.0].start.elapsed()));
            }
            !there
        });
        if left.is_empty() {
            break state;
        }
        machines.go_on()?;
        let names: Vec<_> = left.iter().map(|mark| mark.1).collect();
        let tails = || NAMES.map(|name| format!("\n{name}:{}", machines.tail(name))).concat();
        ensure!(begun.elapsed() < BOOT, "after {} s it is not so that {}{}", BOOT.as_secs(), names.join(", "), tails());
        thread::sleep(PAUSE);
    };
    println!("--- {what}");
    for (index, boot) in boots.iter().enumerate() {
        let own = || reached.iter().filter(|(mark, _)| mark.0 == index);
        own().for_each(|(mark, after)| measure::time(&format!("{}: {}", boot.name, mark.1), *after));
        let seen = own().map(|(mark, after)| (*after, mark.1.to_owned()));
        let besides = seen.chain(state.happened(boot)).collect();
        println!("{}, where the time goes:", boot.name);
        print!("{}", Timeline::of(&machines.lines(boot), besides));
    }
    Ok(())
}
