//! A [`Gateway`] is the way between a virtual link and this host: DHCP and DNS for the machines, ports of 127.0.0.1 that lead to them.
//!
//! It is a QEMU of its own, without a machine, so that it ends with none of them: its user-mode network and its port on the link
//! are joined by a hub.
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Instant;

use crate::arguments;
use crate::child::Child;
use crate::error::Error;
use crate::opening::{self, Taken};
use crate::qmp::Qmp;
use crate::toolset::Toolset;

/// A gateway to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The network's first address.
    pub network: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// The gateway's own address: the source of what comes through forwards, and the machines' default route.
    pub address: Ipv4Addr,
    /// Where it serves DNS, by this host's resolver.
    pub dns: Ipv4Addr,
    /// The first address that DHCP gives away; the fifteen behind it too.
    pub first_lease: Ipv4Addr,
    /// Whether machines reach this host and what is behind it; otherwise forwards are all that comes through.
    pub outside: bool,
    /// Ports of 127.0.0.1 that lead to machines.
    pub forwards: Vec<MachineForward>,
}

/// A TCP port of 127.0.0.1 that leads to a machine of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineForward {
    /// Port on the host; with 0 the kernel chooses a free one.
    pub host: u16,
    /// The machine's address.
    pub address: Ipv4Addr,
    /// The machine's port.
    pub port: u16,
}

/// A gateway that runs; it ends when dropped.
#[derive(Debug)]
pub struct RunningGateway {
    forwards: Vec<MachineForward>,
    socket: PathBuf,
    // The conversation ends before the process, which `child` kills when dropped.
    _qmp: Qmp,
    child: Child,
}

impl Gateway {
    /// A gateway of `network`/24 with itself at .2, DNS at .3 and leases from .100 on, that keeps the machines from the outside.
    pub fn of(network: [u8; 3]) -> Gateway {
        let [a, b, c] = network;
        let host = |last| Ipv4Addr::new(a, b, c, last);
        Gateway {
            network: host(0),
            prefix: 24,
            address: host(2),
            dns: host(3),
            first_lease: host(100),
            outside: false,
            forwards: Vec::new(),
        }
    }

    /// Starts it on a link's `plug`, with its QMP socket in `folder`.
    ///
    /// # Errors
    /// QEMU cannot be started, or refuses (a port that is taken, for one).
    pub fn start(&self, tools: &Toolset, plug: &Path, folder: &Path) -> Result<RunningGateway, Error> {
        let socket = folder.join("gateway.qmp");
        let mut command = tools.qemu_that_ends_with_us();
        command.args(self.arguments(plug, &socket, &tools.data)).stdin(std::process::Stdio::null());
        let program = tools.qemu.path.display().to_string();
        let (child, _, _) = Child::start(command).map_err(|source| Error::Spawn { program, source })?;
        let mut qmp = opening::talk("gateway", &socket, &child, Instant::now())?;
        let taken = opening::forwards(&mut qmp).map_err(|error| opening::refusal("gateway", &child, error))?;
        let forwards = taken.into_iter().map(|Taken { host, address, port }| MachineForward { host, address, port });
        Ok(RunningGateway { forwards: forwards.collect(), socket, _qmp: qmp, child })
    }

    fn arguments(&self, plug: &Path, socket: &Path, data: &[PathBuf]) -> Vec<OsString> {
        let mut args: Vec<OsString> = ["-no-user-config", "-nodefaults"].map(OsString::from).to_vec();
        let mut option = |flag: &str, value: OsString| args.extend([flag.into(), value]);
        for data in data {
            option("-L", data.clone().into());
        }
        option("-name", "gateway,process=kscratch-gateway".into());
        option("-machine", "none".into());
        option("-display", "none".into());
        option("-qmp", arguments::joined("unix:", socket, ",server=on,wait=off"));
        option("-netdev", self.user_network().into());
        option("-netdev", arguments::stream("link", plug));
        // A hub without a card is what QEMU warns of and what is wanted: frames go from one of its ports to the other.
        option("-netdev", "hubport,id=hub-outside,hubid=0,netdev=outside".into());
        option("-netdev", "hubport,id=hub-link,hubid=0,netdev=link".into());
        args
    }

    fn user_network(&self) -> String {
        let Gateway { network, prefix, address, dns, first_lease, .. } = self;
        let mut options =
            format!("user,id=outside,net={network}/{prefix},host={address},dns={dns},dhcpstart={first_lease}");
        if !self.outside {
            options.push_str(",restrict=on");
        }
        for MachineForward { host, address, port } in &self.forwards {
            options.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-{address}:{port}"));
        }
        options
    }
}

impl RunningGateway {
    /// Every forward with the host port that is really taken.
    pub fn forwards(&self) -> &[MachineForward] {
        &self.forwards
    }

    /// Its status, if it has ended, which it does not do by itself.
    pub fn status(&self) -> Option<ExitStatus> {
        self.child.status()
    }

    /// What QEMU complained about.
    pub fn stderr(&self) -> String {
        self.child.stderr()
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        // Killed, it does not tidy up itself.
        self.child.kill();
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_becomes_arguments() {
        let mut gateway = Gateway::of([192, 168, 76]);
        let line = |gateway: &Gateway| {
            let args = gateway.arguments(Path::new("/l,k/gateway.plug"), Path::new("/run/qmp"), &["/data".into()]);
            args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        for part in [
            "-no-user-config -nodefaults -L /data ",
            "-machine none -display none -qmp unix:/run/qmp,server=on,wait=off",
            "user,id=outside,net=192.168.76.0/24,host=192.168.76.2,dns=192.168.76.3,dhcpstart=192.168.76.100,restrict=on ",
            "stream,id=link,server=off,addr.type=unix,addr.path=/l,,k/gateway.plug",
            "hubport,id=hub-outside,hubid=0,netdev=outside -netdev hubport,id=hub-link,hubid=0,netdev=link",
        ] {
            assert!(line(&gateway).contains(part), "`{part}` is not in: {}", line(&gateway));
        }
        gateway.outside = true;
        gateway.forwards.push(MachineForward { host: 0, address: Ipv4Addr::new(192, 168, 76, 10), port: 6443 });
        let open = line(&gateway);
        assert!(open.contains("dhcpstart=192.168.76.100,hostfwd=tcp:127.0.0.1:0-192.168.76.10:6443 "), "{open}");
        assert!(!open.contains("restrict"), "{open}");
    }
}
