//! What goes wrong in a run on purpose: a cable that is bad, power that goes.
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use kscratch_qemu::gateway::MachineForward;
use kscratch_qemu::{Condition, Forward, Gateway, Link, Machine, RunningGateway, Toolset};

/// What QEMU's own user-mode network gives to its only machine.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// When the power goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// After so long.
    After(Duration),
    /// When the machine says a line with this on its serial line.
    At(String),
}

/// A cable of the machine's own, which is as bad as wanted; it ends when dropped.
#[derive(Debug)]
pub(super) struct Cable {
    // The gateway is a port of the link: it goes first.
    gateway: RunningGateway,
    _link: Link,
}

impl Cable {
    /// Puts a link, of which the machine has one end and a gateway the other, in the place of the user-mode network. Addresses stay as they were.
    pub(super) fn lay(
        machine: Machine,
        condition: Condition,
        tools: &Toolset,
        folder: &Path,
    ) -> Result<(Machine, Cable)> {
        let mut link = Link::new(folder);
        let (inside, outside) = (link.plug("machine")?, link.plug("gateway")?);
        link.set_condition("machine", condition);
        let forward = |forward: &Forward| MachineForward { host: forward.host, address: ADDRESS, port: forward.guest };
        let gateway = Gateway {
            first_lease: ADDRESS,
            outside: true,
            forwards: machine.forwards.iter().map(forward).collect(),
            ..Gateway::of([10, 0, 2])
        };
        let gateway = gateway.start(tools, &outside, folder).context("starting what is behind the machine's cable")?;
        let mac = machine.mac;
        let mut machine = machine.on_link(inside, mac);
        machine.forwards.clear();
        Ok((machine, Cable { gateway, _link: link }))
    }

    /// The ports that lead to the machine.
    pub(super) fn forwards(&self) -> Vec<Forward> {
        let forward = |forward: &MachineForward| Forward { host: forward.host, guest: forward.port };
        self.gateway.forwards().iter().map(forward).collect()
    }
}

/// What a machine has said on its serial line, read from the file that keeps it.
#[derive(Debug)]
pub(super) struct Heard {
    file: BufReader<File>,
    line: Vec<u8>,
}

impl Heard {
    /// From the file's end on: what an earlier run said there does not count.
    pub(super) fn from_now(file: &Path) -> Result<Heard> {
        let open = || -> std::io::Result<File> {
            use std::io::Seek;
            let mut opened = File::options().create(true).append(true).read(true).open(file)?;
            opened.seek(std::io::SeekFrom::End(0))?;
            Ok(opened)
        };
        let file = open().with_context(|| format!("opening the record {}", file.display()))?;
        Ok(Heard { file: BufReader::new(file), line: Vec::new() })
    }

    /// Whether one of the lines since the last call has `text` in it; the last line counts before it has ended.
    pub(super) fn says(&mut self, text: &str) -> Result<bool> {
        loop {
            let read = self.file.read_until(b'\n', &mut self.line).context("reading what the machine says")?;
            let found = self.line.windows(text.len()).any(|part| part == text.as_bytes());
            if found || self.line.ends_with(b"\n") {
                self.line.clear();
            }
            if found || read == 0 {
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::Heard;

    #[test]
    fn a_line_is_heard_once_it_is_said_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("record");
        std::fs::write(&place, "service kubelet: ready\n").unwrap();
        let mut heard = Heard::from_now(&place).unwrap();
        let mut file = std::fs::File::options().append(true).open(&place).unwrap();
        assert!(!heard.says("kubelet: ready").unwrap());
        file.write_all(b"one\n\xff service kube").unwrap();
        assert!(!heard.says("kubelet: ready").unwrap());
        file.write_all(b"let: rea").unwrap();
        assert!(!heard.says("kubelet: ready").unwrap());
        file.write_all(b"dy (3 s)").unwrap();
        assert!(heard.says("kubelet: ready").unwrap());
        file.write_all(b"\nthree\n").unwrap();
        assert!(!heard.says("kubelet: ready").unwrap());
    }
}
