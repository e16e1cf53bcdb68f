//! What the keeper is asked and answers: one line of JSON each, one question per connection.
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest line that is read; a status of a hundred machines has some 40 KB.
const LONGEST: u64 = 1 << 20;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How is everything?
    Status,
    /// Start a machine that is off.
    On {
        /// The machine.
        machine: String,
        /// What its clock says then (`2026-11-22T08:00:00`, UTC); this host's time where `None`.
        clock: Option<String>,
    },
    /// Press a machine's power button.
    Off {
        /// The machine.
        machine: String,
    },
    /// Cut a machine's power.
    Cut {
        /// The machine.
        machine: String,
    },
    /// Press a machine's reset button.
    Reset {
        /// The machine.
        machine: String,
    },
    /// Change how well a machine's cable works.
    Cable {
        /// The machine.
        machine: String,
        /// How well.
        cable: Cable,
    },
    /// Let DHCP give other addresses from now on.
    Leases {
        /// The first of them; the fifteen behind it too.
        first: Ipv4Addr,
    },
    /// Take in the machines that were added to the plan.
    Reload,
    /// Go on when the one that started the keeper has ended.
    Detach,
    /// The one that started the keeper has ended: end too, unless detached.
    Abandoned,
    /// Cut every machine's power and end.
    End,
}

/// How well a cable works: `kscratch_qemu::Condition` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cable {
    /// Whether anything comes through.
    pub up: bool,
    /// Lost frames of a thousand.
    pub loss: u16,
    /// Delay in milliseconds.
    pub delay: u64,
    /// Kilobits a second; 0 for as many as there can be.
    pub rate: u32,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// How everything is.
    Status(Status),
    /// It is not done.
    Refused {
        /// Why, from the outside in.
        because: Vec<String>,
    },
}

/// How everything is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The keeper's process number.
    pub keeper: u32,
    /// The gateway's process number; `None` where it has ended.
    pub gateway: Option<u32>,
    /// Whether KVM executes the guests.
    pub accelerated: bool,
    /// The machines, in the plan's order.
    pub machines: Vec<MachineStatus>,
}

/// How a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Its name.
    pub name: String,
    /// Whether it runs the control plane.
    pub master: bool,
    /// Its address.
    pub address: Ipv4Addr,
    /// QEMU's process number; `None` where the machine is off.
    pub pid: Option<u32>,
    /// Seconds since it was switched on or went off.
    pub seconds: u64,
    /// What its console says that it is at; how it ended where it is off.
    pub phase: String,
    /// Whether its kubelet is ready, by its console.
    pub kubelet: bool,
    /// Its cable.
    pub cable: Cable,
    /// Frames: sent, received, lost.
    pub frames: (u64, u64, u64),
}

/// Reads one line.
///
/// # Errors
/// It is too long, breaks off, is not what is expected, or the other end is silent for longer than the stream's bound.
pub fn read<T: DeserializeOwned>(stream: impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(LONGEST)).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the line breaks off, or is longer than any should be",
        ));
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Writes one line.
///
/// # Errors
/// The other end is gone.
pub fn write(mut stream: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    #[track_caller]
    fn check(line: &str, want: Option<&Request>) {
        assert_eq!(read::<Request>(line.as_bytes()).ok().as_ref(), want);
    }

    #[test]
    fn questions_are_read_or_refused() {
        check("{\"do\":\"status\"}\n", Some(&Request::Status));
        let on = Request::On { machine: "n1".into(), clock: None };
        check("{\"do\":\"on\",\"machine\":\"n1\"}\n", Some(&on));
        check("{\"do\":\"on\",\"machine\":\"n1\"}", None);
        check("{\"do\":\"on\"}\n", None);
        check("{\"do\":\"explode\"}\n", None);
        check("{\"do\":\"cut\",\"machine\":\"n1\",\"hard\":true}\n", None);
        check("", None);
        check(&format!("{{\"do\":\"cut\",\"machine\":\"{}\"}}\n", "n".repeat(1 << 20)), None);
    }

    #[test]
    fn messages_come_back_as_they_went() {
        let cable = Cable { up: false, loss: 10, delay: 5, rate: 64 };
        for request in [
            Request::Cable { machine: "m1".into(), cable },
            Request::On { machine: "m1".into(), clock: Some("2030-01-01T00:00:00".into()) },
            Request::Leases { first: Ipv4Addr::new(192, 168, 76, 120) },
            Request::End,
        ] {
            let mut line = Vec::new();
            write(&mut line, &request).unwrap();
            assert_eq!(read::<Request>(&line[..]).unwrap(), request);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..200)) {
            let _ = read::<Request>(&bytes[..]);
            let _ = read::<Answer>(&bytes[..]);
        }
    }
}
