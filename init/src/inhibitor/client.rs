//! One client's connection: its bytes become calls, and the answers bytes and locks.
use std::io::{ErrorKind, IoSlice, PipeReader, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::logind::{self, Answer, BUS, CLIENT, Greeting, INTERFACE, NAME, PATH, SIGNAL};
use super::wire::{self, Body, Call};

/// A line of the handshake is shorter than this many bytes.
const LONGEST_LINE: usize = 1024;
/// A kubelet has one lock, and for a moment two.
const MOST_LOCKS: usize = 16;

/// A connection.
pub struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    stage: Stage,
    /// Number of the last message to it.
    serial: u32,
    listens: bool,
    told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A byte that is zero comes first.
    Zero,
    Lines {
        known: bool,
    },
    Messages,
}

impl Client {
    /// Takes a connection, if it is root's.
    ///
    /// # Errors
    /// It is not, or the kernel does not say whose it is.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(&stream).context("asking who it is")?;
        if !peer.uid.is_root() {
            bail!("it is user {} and not root", peer.uid.as_raw());
        }
        stream.set_nonblocking(true).context("making its connection non-blocking")?;
        Ok(Self { stream, input: Vec::new(), stage: Stage::Zero, serial: 0, listens: false, told: false })
    }

    /// Reads what there is and answers it. New locks are put to the others.
    ///
    /// # Errors
    /// It has gone, or breaks the protocol.
    pub fn attend(&mut self, grace: Duration, stopping: bool, locks: &mut Vec<PipeReader>) -> Result<()> {
        let mut buffer = [0; 4096];
        let mut gone = false;
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    gone = true;
                    break;
                }
                Ok(count) => self.input.extend(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("reading from it"),
            }
            self.take(grace, stopping, locks)?;
        }
        if gone { bail!("it has gone") } else { Ok(()) }
    }

    /// Takes whole lines and messages off what was read.
    fn take(&mut self, grace: Duration, stopping: bool, locks: &mut Vec<PipeReader>) -> Result<()> {
        loop {
            match self.stage {
                Stage::Zero => match self.input.first() {
                    None => return Ok(()),
                    Some(0) => {
                        self.input.remove(0);
                        self.stage = Stage::Lines { known: false };
                    }
                    Some(_) => bail!("it does not begin with a zero"),
                },
                Stage::Lines { known } => {
                    let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
                        if self.input.len() > LONGEST_LINE {
                            bail!("its line is too long");
                        }
                        return Ok(());
                    };
                    let line: Vec<u8> = self.input.drain(..=end).collect();
                    self.greet(&String::from_utf8_lossy(&line), known)?;
                }
                Stage::Messages => {
                    let Some(length) = wire::length(&self.input)?.filter(|length| *length <= self.input.len()) else {
                        return Ok(());
                    };
                    let message: Vec<u8> = self.input.drain(..length).collect();
                    if let Some(call) = wire::call(&message)? {
                        self.answer(&call, grace, stopping, locks)?;
                    }
                }
            }
        }
    }

    fn greet(&mut self, line: &str, mut known: bool) -> Result<()> {
        let greeting = logind::greet(line.trim_end(), &mut known);
        self.stage = Stage::Lines { known };
        match greeting {
            Greeting::Say(line) => self.write(format!("{line}\r\n").as_bytes()),
            Greeting::Messages => {
                self.stage = Stage::Messages;
                Ok(())
            }
            Greeting::End => bail!("it did not say who it is"),
        }
    }

    fn answer(&mut self, call: &Call, grace: Duration, stopping: bool, locks: &mut Vec<PipeReader>) -> Result<()> {
        let answer = logind::answer(call);
        let serial = self.next();
        let delay = u64::try_from(grace.as_micros()).unwrap_or(u64::MAX);
        match answer {
            Answer::Lock if locks.len() < MOST_LOCKS => {
                let (reader, writer) = std::io::pipe().context("making a lock")?;
                self.hand(&wire::reply(serial, call, NAME, Body::Descriptor), writer.as_fd())?;
                locks.push(reader);
                return Ok(());
            }
            Answer::Lock | Answer::NoSuchLock => {
                let why = "only shutdown can be delayed here, by a few at once";
                return self.write(&wire::error(serial, call, "org.freedesktop.DBus.Error.NotSupported", why));
            }
            Answer::Unknown => {
                let why = format!("{}.{} is not there: this is no systemd-logind", call.interface, call.member);
                return self.write(&wire::error(serial, call, "org.freedesktop.DBus.Error.UnknownMethod", &why));
            }
            Answer::Listens => self.listens = true,
            Answer::Name | Answer::Delay | Answer::Done => {}
        }
        let (sender, body) = match answer {
            Answer::Name => (BUS, Body::Text(CLIENT)),
            Answer::Delay => (NAME, Body::Property(delay)),
            _ => (BUS, Body::Empty),
        };
        if call.answered {
            self.write(&wire::reply(serial, call, sender, body))?;
        }
        if stopping { self.tell() } else { Ok(()) }
    }

    /// Tells it once that the machine is about to stop, if it listens.
    ///
    /// # Errors
    /// It has gone.
    pub fn tell(&mut self) -> Result<()> {
        if !self.listens || std::mem::replace(&mut self.told, true) {
            return Ok(());
        }
        let serial = self.next();
        self.write(&wire::signal(serial, PATH, INTERFACE, SIGNAL, NAME, Body::Truth(true)))
    }

    fn next(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1).max(1);
        self.serial
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        // What is written here fits into any socket's buffer, unless the client does not read at all.
        self.stream.write_all(bytes).context("writing to it")
    }

    /// Sends a message with a descriptor beside it.
    fn hand(&mut self, bytes: &[u8], lock: BorrowedFd<'_>) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let locks = [lock];
        beside.push(SendAncillaryMessage::ScmRights(&locks));
        let sent = rustix::net::sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)
            .context("handing it a lock")?;
        if sent != bytes.len() {
            bail!("it does not read what it is told");
        }
        Ok(())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
