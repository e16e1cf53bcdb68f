//! In which [`Order`] machines are switched on.
use super::protocol::Status;
use super::rows::Row;

/// Machines by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Those that are switched on at once.
    pub first: Vec<String>,
    /// Those that wait until every master is Ready.
    pub held: Vec<String>,
}

impl Order {
    /// The order for those that are off; nobody is held where all begin `at_once`. Emulated machines share the processors of this host: nodes that boot, and then ask and ask for an API server,
    /// keep it from being there for so long that it gives up what it waits for itself, and begins again.
    pub fn of(status: &Status, at_once: bool) -> Order {
        let off = || status.machines.iter().filter(|machine| machine.pid.is_none());
        let held = !at_once && !status.accelerated && off().any(|machine| machine.master);
        let (first, held): (Vec<_>, Vec<_>) = off().partition(|machine| machine.master || !held);
        let names = |machines: Vec<&super::protocol::MachineStatus>| {
            machines.into_iter().map(|machine| machine.name.clone()).collect()
        };
        Order { first: names(first), held: names(held) }
    }

    /// Has the rows say what those wait for that are held; gives their names once it has come, and holds nobody any more then.
    pub fn released(&mut self, rows: &mut [Row]) -> Vec<String> {
        if rows.iter().filter(|row| row.role == "master").all(|row| row.ready) {
            return std::mem::take(&mut self.held);
        }
        for row in rows.iter_mut().filter(|row| self.held.contains(&row.name)) {
            row.phase = "waits until the masters are Ready".to_owned();
            row.why.clear();
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmcluster::protocol::{Cable, MachineStatus};
    use crate::vmcluster::rows::rows;

    /// Machines of these names; those with a `+` are on.
    fn status(machines: &str, accelerated: bool) -> Status {
        let machine = |word: &str| MachineStatus {
            name: word.trim_end_matches('+').to_owned(),
            master: word.starts_with('m'),
            address: [192, 168, 76, 10].into(),
            pid: word.ends_with('+').then_some(7),
            seconds: 0,
            phase: "off".to_owned(),
            kubelet: word.ends_with('+'),
            cable: Cable { up: true, loss: 0, delay: 0, rate: 0 },
            frames: (0, 0, 0),
        };
        Status {
            keeper: 1,
            gateway: Some(2),
            accelerated,
            machines: machines.split_whitespace().map(machine).collect(),
        }
    }

    #[test]
    fn nodes_wait_for_masters_that_are_emulated_and_begin_too() {
        for (machines, accelerated, first, held) in [
            ("m1 n1 n2", false, "m1", "n1 n2"),
            ("m1 m2 m3 n1", false, "m1 m2 m3", "n1"),
            ("m1 n1+ n2", false, "m1", "n2"),
            ("m1+ m2 m3+ n1", false, "m2", "n1"),
            // Processors of their own.
            ("m1 n1 n2", true, "m1 n1 n2", ""),
            // Nobody to wait for.
            ("m1+ n1+ n2", false, "n2", ""),
            ("n1 n2", false, "n1 n2", ""),
            ("m1+ n1+", false, "", ""),
        ] {
            let names = |text: &str| text.split_whitespace().map(str::to_owned).collect();
            let want = Order { first: names(first), held: names(held) };
            assert_eq!(Order::of(&status(machines, accelerated), false), want, "{machines}");
            assert_eq!(Order::of(&status(machines, accelerated), true).held, [""; 0], "{machines}");
        }
    }

    #[test]
    fn they_are_released_once_by_the_last_master_and_say_so_until_then() {
        let mut order = Order::of(&status("m1 m2 n1", false), false);
        let mut shown = rows(&status("m1+ m2 n1", false), None);
        assert!(order.released(&mut shown).is_empty());
        assert_eq!(
            shown.iter().map(Row::summary).collect::<Vec<_>>(),
            ["off, Ready", "off", "waits until the masters are Ready"]
        );
        let mut shown = rows(&status("m1+ m2+ n1", false), None);
        assert_eq!(order.released(&mut shown), ["n1"]);
        assert_eq!(shown[2].summary(), "off");
        assert!(order.released(&mut shown).is_empty());
    }
}
