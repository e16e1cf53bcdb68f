//! What keeper and API server say about machines, as the rows that people read.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::api::NodeState;
use super::protocol::{MachineStatus, Status};

/// What a person is told of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// `master` or `node`.
    pub role: &'static str,
    /// Its address.
    pub address: String,
    /// Whether it is switched on.
    pub on: bool,
    /// Seconds since it was switched on or off.
    pub seconds: u64,
    /// What it is at, by its console; how it ended.
    pub phase: String,
    /// Whether the cluster says that it is Ready; of a node that stands alone, whether its kubelet is.
    pub ready: bool,
    /// Why it is not Ready, by the cluster; empty where that says nothing.
    pub why: String,
    /// What is wrong with its cable; empty where nothing is.
    pub cable: String,
    /// QEMU's process number.
    pub pid: Option<u32>,
}

/// One row per machine. `nodes` is what the API server says; `None` where there is none to be asked, `Some(Err)` where it does not answer.
pub fn rows(status: &Status, nodes: Option<&Result<Vec<NodeState>, String>>) -> Vec<Row> {
    let known: BTreeMap<_, _> = match nodes {
        Some(Ok(nodes)) => nodes.iter().map(|node| (node.name.as_str(), node)).collect(),
        _ => BTreeMap::new(),
    };
    let row = |machine: &MachineStatus| {
        let on = machine.pid.is_some();
        let node = known.get(machine.name.as_str());
        let (ready, why) = match (nodes, node) {
            (None, _) => (machine.kubelet, String::new()),
            (Some(_), Some(node)) => (node.ready, node.why.clone()),
            (Some(Ok(_)), None) => (false, "not joined yet".to_owned()),
            // Told once, not for every machine.
            (Some(Err(_)), None) => (false, String::new()),
        };
        Row {
            name: machine.name.clone(),
            role: if machine.master { "master" } else { "node" },
            address: machine.address.to_string(),
            on,
            seconds: machine.seconds,
            phase: machine.phase.clone(),
            // A machine that was switched off, and perhaps on again, stays Ready in the cluster's eyes for a while.
            ready: ready && on && machine.kubelet,
            why: if ready { String::new() } else { why },
            cable: cable(machine),
            pid: machine.pid,
        }
    };
    status.machines.iter().map(row).collect()
}

fn cable(machine: &MachineStatus) -> String {
    let mut text = String::new();
    let cable = machine.cable;
    if !cable.up {
        text.push_str("cable down");
    }
    for (number, what) in
        [(u64::from(cable.loss), "of 1000 frames lost"), (cable.delay, "ms later"), (u64::from(cable.rate), "kbit/s")]
    {
        if number > 0 {
            let comma = if text.is_empty() { "" } else { ", " };
            // A String takes everything.
            let _ = write!(text, "{comma}{number} {what}");
        }
    }
    text
}

impl Row {
    /// What the machine is at, in one line.
    pub fn summary(&self) -> String {
        let ready = match (self.ready, self.why.is_empty()) {
            (true, _) => ", Ready".to_owned(),
            (false, true) => String::new(),
            (false, false) => format!(", not Ready: {}", self.why),
        };
        let cable = if self.cable.is_empty() { String::new() } else { format!(", {}", self.cable) };
        format!("{}{ready}{cable}", self.phase)
    }
}

/// The rows as a table.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from("MACHINE   ROLE     ADDRESS          POWER  SECONDS  STATE\n");
    for row in rows {
        let power = if row.on { "on" } else { "off" };
        let _ = writeln!(
            text,
            "{:<9} {:<8} {:<16} {power:<6} {:>7}  {}",
            row.name,
            row.role,
            row.address,
            row.seconds,
            row.summary()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmcluster::protocol::Cable;
    use expect_test::expect;

    fn machine(name: &str, last: u8, pid: Option<u32>, phase: &str, cable: Cable) -> MachineStatus {
        MachineStatus {
            name: name.to_owned(),
            master: name.starts_with('m'),
            address: [192, 168, 76, last].into(),
            pid,
            seconds: 42,
            phase: phase.to_owned(),
            kubelet: phase == "kubelet ready",
            cable,
            frames: (0, 0, 0),
        }
    }

    #[test]
    fn rows_join_what_two_say() {
        let good = Cable { up: true, loss: 0, delay: 0, rate: 0 };
        let bad = Cable { up: false, loss: 5, delay: 20, rate: 64 };
        let status = Status {
            keeper: 1,
            gateway: Some(2),
            accelerated: false,
            machines: vec![
                machine("m1", 10, Some(3), "kubelet ready", good),
                machine("n1", 20, Some(4), "phase 07 network", bad),
                machine("n2", 21, None, "off: its power was cut", good),
                machine("n3", 22, Some(5), "dockerd starting", good),
            ],
        };
        let node = |name: &str, ready, why: &str| NodeState { name: name.to_owned(), ready, why: why.to_owned() };
        let nodes = Ok(["m1", "n2", "n3"].map(|name| node(name, true, "")).to_vec());
        expect![[r#"
            MACHINE   ROLE     ADDRESS          POWER  SECONDS  STATE
            m1        master   192.168.76.10    on          42  kubelet ready, Ready
            n1        node     192.168.76.20    on          42  phase 07 network, not Ready: not joined yet, cable down, 5 of 1000 frames lost, 20 ms later, 64 kbit/s
            n2        node     192.168.76.21    off         42  off: its power was cut
            n3        node     192.168.76.22    on          42  dockerd starting
        "#]]
        .assert_eq(&table(&rows(&status, Some(&nodes))));
        let ready = |nodes: Option<&Result<Vec<NodeState>, String>>| -> Vec<bool> {
            rows(&status, nodes).iter().map(|row| row.ready).collect()
        };
        // What the cluster says of the last one is from before this boot.
        assert_eq!(ready(Some(&nodes)), [true, false, false, false]);
        assert_eq!(ready(None), [true, false, false, false]);
        assert_eq!(ready(Some(&Err("refused".to_owned()))), [false, false, false, false]);
    }
}
