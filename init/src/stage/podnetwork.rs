//! Gives pods their network once the cluster has said which addresses they have, which is long after the boot's phases.
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use kscratch_metadata::RoleMetadata;
use rustix::fs::OFlags;

use super::beside;
use crate::apply::files;
use crate::apply::steps::Machine;
use crate::facts::Facts;
use crate::log;
use crate::plan::{self, Plan, cluster};
use crate::run::inbox::{Message, Sender};
use crate::supervise::Reason;
use crate::sys::Sys;

/// The service that finds the range out.
const SERVICE: &str = "routes";
/// How long a failure is left alone at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A range with its line's end has at most so many bytes.
const LONGEST: u64 = "255.255.255.255/32\n".len() as u64;

/// What is needed to make the pods' network, and the range that it has now.
struct PodNetwork {
    sys: &'static dyn Sys,
    root: &'static Path,
    metadata: RoleMetadata,
    facts: Facts,
    sender: Sender,
    range: Option<Ipv4Net>,
    /// How often the service has told a range.
    told: u64,
}

/// Has the event loop tell each time that there is a range. `known` is the one that cbr0 has already.
pub fn watch(
    sys: &'static dyn Sys,
    root: &'static Path,
    metadata: &RoleMetadata,
    facts: &Facts,
    known: Option<Ipv4Net>,
    sender: &Sender,
) {
    let network = PodNetwork {
        sys,
        root,
        metadata: metadata.clone(),
        facts: facts.clone(),
        sender: sender.clone(),
        range: known,
        told: 0,
    };
    sender.send(Message::Watch { name: SERVICE, told: Box::new(taker(network, pause)) });
}

/// What takes the range, each time that it is told. `pause` is what lies between two tries.
fn taker(network: PodNetwork, pause: fn(u32) -> Duration) -> impl FnMut() + Send {
    let network = Arc::new(Mutex::new(network));
    move || {
        let network = Arc::clone(&network);
        // The loop must not wait for nft.
        if let Err(error) = beside::start("pod-network", move || keep_taking(&network, pause)) {
            log::line(format_args!("pod network: {error:#}"));
        }
    }
}

/// Takes the range until that has succeeded: the service is ready once, and says nothing again. One that it tells meanwhile is another thread's.
fn keep_taking(network: &Mutex<PodNetwork>, pause: fn(u32) -> Duration) {
    let lock = || -> MutexGuard<'_, PodNetwork> { network.lock().unwrap_or_else(PoisonError::into_inner) };
    let own = {
        let mut network = lock();
        network.told += 1;
        network.told
    };
    keep_trying(pause, || {
        let mut network = lock();
        if network.told == own { network.take() } else { Ok(()) }
    });
}

/// Makes the network of a range that was known at boot, where the boot's phases have failed to, until that has succeeded: no service tells of it.
pub fn make(sys: &'static dyn Sys, root: &'static Path, machine_id: String, plan: Plan) {
    let work = move || keep_trying(pause, || Machine::new(sys, root, &machine_id).plan(&plan));
    if let Err(error) = beside::start("pod-network", work) {
        log::line(format_args!("pod network: {error:#}"));
    }
}

/// Tries until that has succeeded.
fn keep_trying(pause: fn(u32) -> Duration, mut attempt: impl FnMut() -> Result<()>) {
    let mut said = String::new();
    for failures in 1.. {
        let Err(error) = attempt() else { return };
        let words = format!("{error:#}");
        // It may be so for as long as the machine runs.
        if words != said {
            log::line(format_args!("pod network: {words}"));
            log::hint("pods get no network until this is put right; it is tried again until then");
            said = words;
        }
        thread::sleep(pause(failures));
    }
}

/// How long the next try is put off, after so many failures in a row.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

/// What a range that the cluster gives means for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It has that one.
    None,
    /// It has none yet.
    First,
    /// Its pods have addresses of another one, which the cluster gave before: they must all be made anew.
    Other(Ipv4Net),
    /// The metadata says another one, and the cluster routes to the Node object's.
    AgainstMetadata(Ipv4Net),
}

fn judge(metadata: &RoleMetadata, current: Option<Ipv4Net>, given: Ipv4Net) -> Change {
    match (current, metadata.node.pod_range) {
        (Some(current), _) if current == given => Change::None,
        (Some(current), Some(_)) => Change::AgainstMetadata(current),
        (Some(current), None) => Change::Other(current),
        (None, _) => Change::First,
    }
}

/// What helps against [`Change::AgainstMetadata`]. Where masters share etcd, or may one day, a deleted Node is a master removed for good.
fn advice(metadata: &RoleMetadata, given: Ipv4Net) -> String {
    let shares = metadata.control_plane.as_ref().is_some_and(|control_plane| !control_plane.etcd.members.is_empty());
    if shares {
        format!(
            "set node.pod_range to {given} in this machine's metadata, or remove it there, and restart the machine; do not delete its Node object: that removes this master from etcd"
        )
    } else {
        "delete the Node object (`kubectl delete node NAME`) and restart the machine, or remove node.pod_range"
            .to_owned()
    }
}

/// What the service wrote. The folder is its own, and it has fewer rights than who reads here: no link in there is followed, no pipe waited
/// for, and no more read than a range.
fn written(path: &Path) -> Result<String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        bail!("it is no file");
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

impl PodNetwork {
    fn take(&mut self) -> Result<()> {
        let path = cluster::POD_RANGE;
        let text = written(&files::below(self.root, path)).with_context(|| format!("reading {path}"))?;
        let Some(cluster) = &self.metadata.cluster else { return Ok(()) };
        let given = cluster::read_pod_range(&text, cluster).map_err(anyhow::Error::msg)?;
        match judge(&self.metadata, self.range, given) {
            Change::None => {}
            Change::First => {
                let mut machine = Machine::new(self.sys, self.root, &self.facts.machine_id);
                machine.plan(&plan::pod_network(&self.metadata, &self.facts, given))?;
                log::line(format_args!("pods of this node: {given}"));
                self.range = Some(given);
            }
            Change::Other(current) => {
                log::line(format_args!(
                    "the cluster gives this node {given} for its pods, which have addresses of {current}; the machine starts anew with it"
                ));
                let text = plan::range_to_remember(&self.metadata, &self.facts, given);
                files::file(self.root, plan::REMEMBERED_POD_RANGE, text.as_bytes(), 0o644)?;
                self.sender.send(Message::Stop(Reason::PodRange));
            }
            Change::AgainstMetadata(current) => {
                log::line(format_args!(
                    "node.pod_range is {current}, but the cluster routes {given} to this node: its pods are not reached from other nodes"
                ));
                log::hint(advice(&self.metadata, given));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use ipnet::Ipv4Net;
    use kscratch_metadata::{ControlPlane, RoleMetadata};

    use super::{Change, PodNetwork, advice, judge, keep_trying, pause, taker, written};
    use crate::apply::steps::Machine;
    use crate::plan::tests::{cluster, facts};
    use crate::plan::{self, Step};
    use crate::run::inbox::{self, Message};
    use crate::supervise::Reason;
    use crate::sys::Recording;

    #[test]
    fn only_a_file_of_the_services_own_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let [range, secret, link, pipe] = ["pod-range", "secret", "link", "pipe"].map(|name| folder.path().join(name));
        std::fs::write(&range, "10.244.1.0/24\n").unwrap();
        assert_eq!(written(&range).unwrap(), "10.244.1.0/24\n");
        std::fs::write(&secret, "a".repeat(1000)).unwrap();
        assert_eq!(written(&secret).unwrap().len(), 19);
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        assert!(written(&link).unwrap_err().to_string().contains("symbolic link"));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(written(&pipe).unwrap_err().to_string(), "it is no file");
        assert_eq!(written(folder.path()).unwrap_err().to_string(), "it is no file");
    }

    #[test]
    fn what_a_range_means() {
        let range = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let (one, two) = (range("10.244.1.0/24"), range("10.244.2.0/24"));
        let automatic = RoleMetadata::standalone();
        let mut manual = RoleMetadata::standalone();
        manual.node.pod_range = Some(one);
        for (metadata, current, given, want) in [
            (&automatic, None, one, Change::First),
            (&automatic, Some(one), one, Change::None),
            (&automatic, Some(one), two, Change::Other(one)),
            (&manual, Some(one), one, Change::None),
            (&manual, Some(one), two, Change::AgainstMetadata(one)),
        ] {
            assert_eq!(judge(metadata, current, given), want);
        }
    }

    #[test]
    fn kubelet_is_given_no_network_without_its_rules() {
        let root = tempfile::tempdir().unwrap();
        let sys = Recording::new().failing("run ", std::io::ErrorKind::Other);
        let mut machine = Machine::new(&sys, root.path(), "0123456789abcdef0123456789abcdef");
        let mut plan = plan::pod_network(&cluster(""), &facts(), "10.244.1.0/24".parse().unwrap());
        let mut without = |unwanted: fn(&Step) -> bool| {
            plan.phases.iter_mut().for_each(|phase| phase.steps.retain(|step| !unwanted(step)));
            let done = machine.plan(&plan).is_ok();
            (done, root.path().join("run/kscratch/cni/net.d/10-kscratch.conflist").exists())
        };
        // The bridge would be this host's.
        assert_eq!(without(|step| matches!(step, Step::Bridge { .. })), (false, false));
        assert_eq!(without(|step| matches!(step, Step::Firewall { .. })), (true, true));
    }

    #[test]
    fn what_failed_is_tried_again_until_it_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let root: &'static Path = Box::leak(folder.path().to_owned().into_boxed_path());
        let (sender, inbox) = inbox::pair().unwrap();
        let range = Some("10.244.1.0/24".parse().unwrap());
        let sys = Box::leak(Box::new(Recording::new()));
        let network = PodNetwork { sys, root, metadata: cluster(""), facts: facts(), sender, range, told: 0 };
        let mut told = taker(network, |_| Duration::from_millis(5));
        // Twice, before there is anything: one of them goes on alone.
        told();
        told();
        thread::sleep(Duration::from_millis(50));
        assert!(inbox.take().is_empty());
        let file = root.join("run/kscratch/routes/pod-range");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "10.244.2.0/24\n").unwrap();
        let (begun, mut messages) = (Instant::now(), Vec::new());
        while messages.is_empty() && begun.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(5));
            messages = inbox.take();
        }
        assert!(matches!(messages.as_slice(), [Message::Stop(Reason::PodRange)]));
        thread::sleep(Duration::from_millis(50));
        assert!(inbox.take().is_empty(), "what succeeded is not done again");
    }

    #[test]
    fn what_the_boot_could_not_make_is_tried_again() {
        let mut tries = 0;
        keep_trying(
            |_| Duration::ZERO,
            || {
                tries += 1;
                anyhow::ensure!(tries == 3, "nft is not there yet");
                Ok(())
            },
        );
        assert_eq!(tries, 3);
        // All of it but what is remembered: the machine knows that range already.
        let range = "10.244.7.0/24".parse().unwrap();
        let words = |plan: plan::Plan| plan.to_string();
        let (first, again) =
            (plan::pod_network(&cluster(""), &facts(), range), plan::known_pods(&cluster(""), &facts(), range));
        assert_eq!(
            words(first)
                .replace("  file /var/lib/kscratch/pod-range 0644\n    | 10.244.7.0/24 kscratch-01234567\n", ""),
            words(again)
        );
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        let seconds: Vec<u64> = (1..9).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(u32::MAX), pause(9));
    }

    #[test]
    fn no_master_among_several_is_told_to_delete_its_node() {
        let given = "10.244.2.0/24".parse::<Ipv4Net>().unwrap();
        let mut metadata = RoleMetadata::standalone();
        assert!(advice(&metadata, given).starts_with("delete the Node object"));
        let master = metadata.control_plane.insert(ControlPlane::default());
        master.etcd.members = [("m1", 1), ("m2", 2), ("m3", 3)]
            .map(|(name, last)| (name.to_owned(), Ipv4Addr::new(192, 168, 7, last)))
            .into();
        assert!(advice(&metadata, given).starts_with("set node.pod_range to 10.244.2.0/24"));
    }
}
