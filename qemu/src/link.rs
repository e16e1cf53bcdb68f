//! A [`Link`] is an Ethernet segment between virtual machines, in this process: every machine plugs its card into a socket of it.
//!
//! QEMU 7.2 connects once (`-netdev stream` has no `reconnect` there): a link is there before its machines and outlives them.
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::net::{Shutdown, shutdown};

use crate::error::Error;
use cable::{Cable, Next};
use switch::{Switch, Way};

pub use cable::{Condition, Traffic};

mod cable;
pub mod frame;
mod lane;
mod queue;
pub mod switch;

/// Frames that are written at once.
const BUFFER: usize = 128 << 10;

/// A running link. Dropped, it is unplugged from everything and its sockets go.
#[derive(Debug)]
pub struct Link {
    folder: PathBuf,
    shared: Arc<Shared>,
    plugs: Vec<Plug>,
}

#[derive(Debug)]
struct Plug {
    name: String,
    path: PathBuf,
    listener: Arc<UnixListener>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    switch: Switch,
    ports: Vec<Port>,
    closed: bool,
}

#[derive(Debug)]
struct Port {
    cable: Cable,
    machine: Option<Connected>,
}

/// A machine that is there. Dropped, its socket is shut, so that the reading side ends, and the writing side wakes to find it gone.
#[derive(Debug)]
struct Connected {
    stream: UnixStream,
    wake: Arc<Condvar>,
}

impl Link {
    /// A link without ports, whose sockets will be in `folder`. A socket's path may have no more than 107 bytes (unix(7)).
    pub fn new(folder: &Path) -> Link {
        Link { folder: folder.to_owned(), shared: Arc::default(), plugs: Vec::new() }
    }

    /// Makes a port and gives the socket's path for [`crate::machine::Card::plug`]. A machine may leave and come back.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn plug(&mut self, name: &str) -> Result<PathBuf, Error> {
        let path = self.folder.join(format!("{name}.plug"));
        let failed = |source| Error::File { doing: "making a port of the virtual link at", path: path.clone(), source };
        // One that an earlier run left behind.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = Arc::new(UnixListener::bind(&path).map_err(failed)?);
        let port = {
            let mut state = self.shared.state();
            // Any number but 0; far apart, so that no two ports lose the same frames.
            let dice = (state.ports.len() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            state.ports.push(Port { cable: Cable::new(dice), machine: None });
            state.ports.len() - 1
        };
        let accepting = thread::Builder::new()
            .name(format!("link-{name}"))
            .spawn({
                let (shared, listener) = (Arc::clone(&self.shared), Arc::clone(&listener));
                move || shared.accept(port, &listener)
            })
            .map_err(failed)?;
        self.plugs.push(Plug { name: name.to_owned(), path: path.clone(), listener, accepting: Some(accepting) });
        Ok(path)
    }

    /// Sets the condition of a port's cable for the frames from now on; `false` where there is no port of this name. What is on the way
    /// comes out when it would have, so that later frames may overtake it.
    pub fn set_condition(&self, name: &str, condition: Condition) -> bool {
        self.port(name).map(|port| self.shared.state().ports[port].cable.set(condition)).is_some()
    }

    /// The condition of a port's cable.
    pub fn condition(&self, name: &str) -> Option<Condition> {
        self.port(name).map(|port| self.shared.state().ports[port].cable.condition())
    }

    /// What went through a port so far.
    pub fn traffic(&self, name: &str) -> Option<Traffic> {
        self.port(name).map(|port| self.shared.state().ports[port].cable.traffic())
    }

    fn port(&self, name: &str) -> Option<usize> {
        self.plugs.iter().position(|plug| plug.name == name)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        for port in &mut state.ports {
            port.machine = None;
        }
        drop(state);
        for plug in &mut self.plugs {
            // Wakes `accept`, which fails from then on.
            let _ = shutdown(&plug.listener, Shutdown::Both);
            if let Some(accepting) = plug.accepting.take() {
                let _ = accepting.join();
            }
            let _ = std::fs::remove_file(&plug.path);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        // It may be gone already, which is what is wanted.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.wake.notify_one();
    }
}

impl Shared {
    fn accept(&self, port: usize, listener: &UnixListener) {
        while let Ok((stream, _)) = listener.accept() {
            // A machine that cannot be served (no more descriptors or threads) sees its cable pulled.
            let _ = self.serve(port, &stream);
            if self.state().closed {
                return;
            }
        }
    }

    /// Carries frames until the machine leaves.
    fn serve(&self, port: usize, stream: &UnixStream) -> io::Result<()> {
        let wake = Arc::new(Condvar::new());
        let connected = Connected { stream: stream.try_clone()?, wake: Arc::clone(&wake) };
        {
            let mut state = self.state();
            if state.closed {
                return Ok(());
            }
            state.ports[port].machine = Some(connected);
        }
        thread::scope(|scope| {
            let writing = thread::Builder::new().name("link-out".to_owned()).spawn_scoped(scope, || {
                // The reading side learns of the end by itself.
                let _ = self.write_out(port, stream, &wake);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            });
            let ended = writing.and_then(|_| self.read_in(port, stream));
            self.state().leave(port);
            ended
        })
    }

    /// Carries what the machine sends.
    fn read_in(&self, port: usize, stream: &UnixStream) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(BUFFER, stream);
        while let Some(frame) = frame::read(&mut reader)? {
            let mut state = self.state();
            // The clock is read under the lock: times then go up from frame to frame, whichever port they are of.
            state.carry(port, Instant::now(), &frame.into());
        }
        Ok(())
    }

    /// Writes what comes out of the cable, each frame when it is due, until the machine is gone.
    fn write_out(&self, port: usize, stream: &UnixStream, wake: &Condvar) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER, stream);
        let mut state = self.state();
        while state.ports[port].machine.is_some() {
            let now = Instant::now();
            match state.ports[port].cable.next(now) {
                Next::Frame(frame) => {
                    drop(state);
                    frame::write(&mut out, &frame)?;
                    state = self.state();
                }
                Next::Wait(_) if !out.buffer().is_empty() => {
                    drop(state);
                    out.flush()?;
                    state = self.state();
                }
                Next::Wait(None) => state = wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Next::Wait(Some(due)) => {
                    let early = due.saturating_duration_since(now);
                    (state, _) = wake.wait_timeout(state, early).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        drop(state);
        out.flush()
    }

    // Nothing is left half done where a thread panics.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn carry(&mut self, from: usize, now: Instant, frame: &Arc<[u8]>) {
        let Some(ready) = self.ports[from].cable.send(now, frame.len()) else { return };
        match self.switch.forward(from, frame) {
            Way::Nowhere => {}
            Way::Port(to) => self.ports[to].take(now, ready, frame),
            Way::Flood => {
                for (_, port) in self.ports.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                    port.take(now, ready, frame);
                }
            }
        }
    }

    fn leave(&mut self, port: usize) {
        self.ports[port].machine = None;
        self.ports[port].cable.clear();
        self.switch.forget(port);
    }
}

impl Port {
    fn take(&mut self, now: Instant, ready: Instant, frame: &Arc<[u8]>) {
        let Some(machine) = &self.machine else { return };
        let before = self.cable.due();
        self.cable.take(now, ready, frame);
        // The writing side waits for the first one that is due; others are no news to it.
        if self.cable.due() != before {
            machine.wake.notify_one();
        }
    }
}
