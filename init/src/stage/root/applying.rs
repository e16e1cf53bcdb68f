//! Applies the phases of a plan one after the other, but for those that cannot do without one that has failed.
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::apply::steps::Machine;
use crate::log;
use crate::plan::{Plan, Service};
use crate::stage::phases::Phases;

/// Applies them until the machine is to stop, and hands over the services that each brings. Gives the phases that are not done.
pub(super) fn apply(
    phases: &mut Phases,
    machine: &mut Machine<'_>,
    plan: &Plan,
    stop: &AtomicBool,
    mut hand_over: impl FnMut(Service),
) -> BTreeSet<&'static str> {
    let mut undone = BTreeSet::new();
    for phase in &plan.phases {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if let Some(why) = left_out(phase.name, &undone) {
            log::line(why);
            undone.insert(phase.name);
            continue;
        }
        if phases.run(phase.name, hint(phase.name), || machine.phase(phase)).is_none() {
            undone.insert(phase.name);
        }
        machine.services.drain(..).for_each(&mut hand_over);
    }
    undone
}

/// Why a phase is left out, where it is, by those that are not done.
fn left_out(phase: &str, undone: &BTreeSet<&str>) -> Option<&'static str> {
    match phase {
        // kubelet starts pods with it, which would send with their own addresses where nothing masquerades.
        "pods" if undone.contains("bridge") => {
            Some("pods get no network yet: bridge and rules could not be made; that is tried again")
        }
        // Services without their files would run as something else than was meant.
        "services" if ["config", "certificates"].iter().any(|needed| undone.contains(needed)) => {
            Some("services are not started: their configuration could not be written")
        }
        _ => None,
    }
}

/// What helps against a phase's failure.
pub(super) fn hint(phase: &str) -> &'static str {
    match phase {
        "network" => "look at the cable and the DHCP server, or set network.static in role.toml",
        "runtime" => "nothing runs on this machine without containerd; look at the state partition",
        "system" => "the image's kernel lacks something; build the image again",
        "bridge" => "look at the lines above; docker and pods have no network until this works",
        "certificates" => "look at the keys in the metadata (kscratch-image cluster check), and at the state partition",
        "images" => "kubelet will try to pull what the image should have brought; build the image again",
        _ => "look at the lines above and at the state partition",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::ErrorKind;
    use std::sync::atomic::AtomicBool;

    use kscratch_metadata::RoleMetadata;

    use super::{apply, left_out};
    use crate::apply::steps::Machine;
    use crate::plan::tests::facts;
    use crate::plan::{self, Step};
    use crate::stage::phases::Phases;
    use crate::sys::Recording;

    #[test]
    fn what_a_phase_cannot_do_without() {
        for (phase, undone, want) in [
            ("pods", &[][..], false),
            ("pods", &["system", "images", "config"], false),
            ("pods", &["bridge"], true),
            // They start without pods' network, which comes later.
            ("services", &["bridge", "images", "pods"], false),
            ("services", &["config"], true),
            ("services", &["certificates"], true),
            ("config", &["bridge"], false),
        ] {
            let undone = BTreeSet::from_iter(undone.iter().copied());
            assert_eq!(left_out(phase, &undone).is_some(), want, "{phase} after {undone:?}");
        }
    }

    #[test]
    fn kubelet_finds_no_network_for_pods_whose_rules_failed() {
        for (sys, want) in
            [(Recording::new(), vec![]), (Recording::new().failing("run ", ErrorKind::Other), vec!["bridge", "pods"])]
        {
            let root = tempfile::tempdir().unwrap();
            let mut machine = Machine::new(&sys, root.path(), "0123456789abcdef0123456789abcdef");
            let mut plan = plan::node(&RoleMetadata::standalone(), &facts()).unwrap();
            // Links would be this host's; of files that of the network is enough.
            plan.phases.iter_mut().for_each(|phase| {
                phase.steps.retain(|step| match step {
                    Step::File { path, .. } => path.ends_with(".conflist"),
                    step => matches!(step, Step::Firewall { .. } | Step::Service(_)),
                });
            });
            let mut services = 0;
            let undone = apply(&mut Phases::default(), &mut machine, &plan, &AtomicBool::default(), |_| services += 1);
            assert_eq!(Vec::from_iter(undone), want);
            assert!(services > 0);
            let network = root.path().join("run/kscratch/cni/net.d/10-kscratch.conflist");
            assert_eq!(network.exists(), want.is_empty());
        }
    }

    #[test]
    fn a_machine_that_stops_begins_no_phase() {
        let root = tempfile::tempdir().unwrap();
        let sys = Recording::new();
        let mut machine = Machine::new(&sys, root.path(), "0123456789abcdef0123456789abcdef");
        let plan = plan::node(&RoleMetadata::standalone(), &facts()).unwrap();
        apply(&mut Phases::default(), &mut machine, &plan, &AtomicBool::new(true), |_| {});
        assert!(sys.calls().is_empty());
    }
}
