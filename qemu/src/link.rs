//! A [`Link`] is an Ethernet segment between virtual machines, in this process: every machine plugs its card into a socket of it.
//!
//! QEMU 7.2 connects once (`-netdev stream` has no `reconnect` there): a link is there before its machines and outlives them.
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use crate::error::Error;
use switch::{Switch, Way};

pub mod frame;
pub mod switch;

/// How many frames wait for a machine that takes none; what comes then is lost, as in any switch.
const QUEUE: usize = 1024;
/// Frames that are written at once.
const BUFFER: usize = 128 << 10;

/// A running link. Dropped, it is unplugged from everything and its sockets go.
#[derive(Debug)]
pub struct Link {
    folder: PathBuf,
    shared: Arc<Shared>,
    plugs: Vec<Plug>,
}

/// How well the cable of one port works; it counts for both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Whether anything comes through. The guest's card keeps its carrier: only the frames are gone.
    pub up: bool,
    /// How many of a thousand frames are lost, drawn the same way in every run.
    pub loss: u16,
    /// How much later a frame comes out than it went in.
    pub delay: Duration,
    /// How many kilobits come through a second, each way; 0 for as many as this host can. What does not fit into the queue is lost.
    pub rate: u32,
}

impl Default for Condition {
    fn default() -> Self {
        Condition { up: true, loss: 0, delay: Duration::ZERO, rate: 0 }
    }
}

/// What went through a port, in frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From its machine into the link.
    pub sent: u64,
    /// From the link towards its machine.
    pub received: u64,
    /// Lost: the cable is down or lossy, or the machine took none.
    pub lost: u64,
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

#[derive(Debug, Default)]
struct Port {
    condition: Condition,
    traffic: Traffic,
    dice: u64,
    machine: Option<Connected>,
    /// Until when frames that came before are on the cable: those of the machine, and those for it.
    busy: [Option<Instant>; 2],
}

#[derive(Debug)]
struct Connected {
    stream: UnixStream,
    queue: SyncSender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    frame: Arc<[u8]>,
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
            state.ports.push(Port { dice, ..Port::default() });
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

    /// Sets the condition of a port's cable; `false` where there is no port of this name.
    pub fn set_condition(&self, name: &str, condition: Condition) -> bool {
        self.port(name).map(|port| self.shared.state().ports[port].condition = condition).is_some()
    }

    /// The condition of a port's cable.
    pub fn condition(&self, name: &str) -> Option<Condition> {
        self.port(name).map(|port| self.shared.state().ports[port].condition)
    }

    /// What went through a port so far.
    pub fn traffic(&self, name: &str) -> Option<Traffic> {
        self.port(name).map(|port| self.shared.state().ports[port].traffic)
    }

    fn port(&self, name: &str) -> Option<usize> {
        self.plugs.iter().position(|plug| plug.name == name)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        for connected in state.ports.iter_mut().filter_map(|port| port.machine.take()) {
            // It may be gone already, which is what is wanted.
            let _ = connected.stream.shutdown(std::net::Shutdown::Both);
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

impl Shared {
    fn accept(self: &Arc<Self>, port: usize, listener: &UnixListener) {
        while let Ok((stream, _)) = listener.accept() {
            // A machine that cannot be served (no more descriptors or threads) sees its cable pulled.
            let _ = self.serve(port, stream);
            if self.state().closed {
                return;
            }
        }
    }

    /// Carries frames until the machine leaves.
    fn serve(&self, port: usize, stream: UnixStream) -> io::Result<()> {
        let (queue, waiting) = sync_channel(QUEUE);
        let out = stream.try_clone()?;
        let writing = thread::Builder::new().name("link-out".to_owned()).spawn(move || {
            // The reading side learns of the end by itself.
            let _ = write_out(&out, &waiting);
            let _ = out.shutdown(std::net::Shutdown::Both);
        })?;
        {
            let mut state = self.state();
            if state.closed {
                return Ok(());
            }
            state.ports[port].machine = Some(Connected { stream: stream.try_clone()?, queue });
        }
        let mut reader = BufReader::with_capacity(BUFFER, stream);
        let ended = loop {
            match frame::read(&mut reader) {
                Ok(Some(frame)) => self.state().carry(port, frame.into()),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let mut state = self.state();
        state.ports[port].machine = None;
        state.switch.forget(port);
        drop(state);
        let _ = reader.into_inner().shutdown(std::net::Shutdown::Both);
        let _ = writing.join();
        ended
    }

    // Nothing is left half done where a thread panics.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn carry(&mut self, from: usize, frame: Arc<[u8]>) {
        let port = &mut self.ports[from];
        port.traffic.sent += 1;
        if !port.passes() {
            return;
        }
        let due = port.through(0, Instant::now(), frame.len()) + port.condition.delay;
        match self.switch.forward(from, &frame) {
            Way::Nowhere => {}
            Way::Port(to) => self.ports[to].take(due, &frame),
            Way::Flood => {
                for (_, port) in self.ports.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                    port.take(due, &frame);
                }
            }
        }
    }
}

impl Port {
    /// Whether one frame comes through the cable.
    fn passes(&mut self) -> bool {
        let condition = self.condition;
        let passes = condition.up && (condition.loss == 0 || self.roll() >= u64::from(condition.loss));
        self.traffic.lost += u64::from(!passes);
        passes
    }

    /// When the last bit of a frame is through, that stands at the cable's end from `ready` on.
    fn through(&mut self, way: usize, ready: Instant, bytes: usize) -> Instant {
        let rate = u64::from(self.condition.rate);
        // Bits by kilobits a second are milliseconds.
        let Some(micros) = (bytes as u64 * 8 * 1000).checked_div(rate) else { return ready };
        let begins = self.busy[way].map_or(ready, |busy| busy.max(ready));
        let through = begins + Duration::from_micros(micros);
        self.busy[way] = Some(through);
        through
    }

    /// The next of a fixed row of numbers below 1000 (Marsaglia, "Xorshift RNGs", 2003).
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % 1000
    }

    fn take(&mut self, due: Instant, frame: &Arc<[u8]>) {
        if self.machine.is_none() || !self.passes() {
            return;
        }
        let due = self.through(1, due, frame.len()) + self.condition.delay;
        let waiting = Waiting { due, frame: Arc::clone(frame) };
        match self.machine.as_ref().map(|machine| machine.queue.try_send(waiting)) {
            Some(Ok(())) => self.traffic.received += 1,
            _ => self.traffic.lost += 1,
        }
    }
}

fn write_out(stream: &UnixStream, waiting: &Receiver<Waiting>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, stream);
    let mut next = waiting.recv().ok();
    while let Some(Waiting { due, frame }) = next {
        let early = due.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            out.flush()?;
            thread::sleep(early);
        }
        frame::write(&mut out, &frame)?;
        next = match waiting.try_recv() {
            Ok(next) => Some(next),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                out.flush()?;
                waiting.recv().ok()
            }
        };
    }
    out.flush()
}
