//! The supervisor's words: what it is told ([`Event`]) and what it wants done ([`Action`]).
use std::fmt;

use crate::plan::Service;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A [`Action::Spawn`] gave a process.
    Started {
        /// The service.
        name: &'static str,
        /// Its main process.
        pid: u32,
    },
    /// A [`Action::Spawn`] gave none.
    NotStarted {
        /// The service.
        name: &'static str,
        /// Why, for the console.
        reason: String,
    },
    /// The main process of a service ended.
    Exited {
        /// The service.
        name: &'static str,
        /// How it ended.
        ended: Ended,
    },
    /// A [`Action::Probe`] found the service ready.
    Ready {
        /// The service.
        name: &'static str,
    },
    /// A [`Action::Probe`] did not.
    ProbeFailed {
        /// The service.
        name: &'static str,
        /// Why, for the console.
        reason: String,
    },
    /// No process of a container is left, after [`Action::SignalContainers`].
    ContainersGone,
    /// [`Supervisor::next_deadline`] has come (or any other time: it does no harm).
    Timer,
    /// One more service is wanted.
    AddService(Box<Service>),
    /// The machine is to stop.
    StopAll(Reason),
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the service's process and answer with [`Event::Started`] or [`Event::NotStarted`].
    Spawn(&'static str),
    /// Send a signal to the service's main process.
    Signal {
        /// The service.
        name: &'static str,
        /// Which signal.
        signal: Signal,
    },
    /// Kill whatever lives in the service's cgroup.
    KillCgroup(&'static str),
    /// Ask once whether the service is ready, and answer with [`Event::Ready`] or [`Event::ProbeFailed`].
    Probe(&'static str),
    /// Send a signal to every process of every container; answer with [`Event::ContainersGone`] when none is left.
    SignalContainers(Signal),
    /// Tell a line on the console.
    Log(String),
    /// Show the last lines of the service's output on the console.
    ShowTail(&'static str),
    /// All is stopped: leave the loop.
    End(Ending),
}

/// Signals that a service may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM
    Terminate,
    /// SIGKILL
    Kill,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With an exit status.
    Status(i32),
    /// By a signal of this number.
    Signal(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// Why the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The ACPI power button.
    PowerButton,
    /// Ctrl-alt-del (SIGINT to PID 1).
    CtrlAltDel,
    /// SIGTERM.
    Terminate,
    /// SIGPWR: a power supply on its battery.
    PowerFailure,
    /// The cluster asked for it.
    Cluster(Ending),
    /// The cluster gave the node another pod range than its pods have addresses of.
    PodRange,
    /// The machine's address is another one than it booted with.
    Address,
    /// Somebody at the console typed the word for it.
    Console(Ending),
    /// An image was installed onto the machine's disk.
    Installed(Ending),
    /// The boot's phases have ended by a fault of init's own.
    Fault,
}

impl Reason {
    /// What becomes of the machine.
    #[must_use]
    pub fn ending(self) -> Ending {
        match self {
            Self::CtrlAltDel | Self::PodRange | Self::Address | Self::Fault => Ending::Reboot,
            Self::PowerButton | Self::Terminate | Self::PowerFailure => Ending::PowerOff,
            Self::Cluster(ending) => ending,
            Self::Console(ending) => ending,
            Self::Installed(ending) => ending,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerButton => "power button",
            Self::CtrlAltDel => "ctrl-alt-del",
            Self::Terminate => "SIGTERM",
            Self::PowerFailure => "power failure",
            Self::Cluster(_) => "asked for by the cluster",
            Self::PodRange => "the node has another pod range now",
            Self::Address => "the machine has another address now",
            Self::Console(_) => "asked for at the console",
            Self::Installed(_) => "the image is installed",
            Self::Fault => "the boot failed",
        })
    }
}

/// What becomes of the machine once all is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Power off.
    PowerOff,
    /// Reboot.
    Reboot,
}
