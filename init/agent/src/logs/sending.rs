//! Sends what waits for a server to it, for ever: a connection after the other, with words about those that fail.
use std::cell::RefCell;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::sync::Notify;

use super::queue::Queue;
use super::tls;
use super::wanted::{Identity, Protocol, Server};
use crate::outage::Outage;
use crate::say;

/// For a name, a connection and a handshake together.
const CONNECT: Duration = Duration::from_secs(20);
/// A connection that has lasted so long is one.
const STEADY: Duration = Duration::from_secs(3);
/// A server that takes nothing for so long is told of ...
const STALL: Duration = Duration::from_secs(30);
/// ... and each time that this was so often, it is asked whether its machine is still there. Not so `TCP_USER_TIMEOUT`, which counts a server that is there and
/// does not read as well (tcp(7)): such a one may take hours, and with the connection what its buffers hold would be lost.
const ASKED: u32 = 4;
/// Silence of a machine is no longer in question then: the kernel has given up the connection itself (`tcp_retries2`, a quarter of an hour).
const SURE: u32 = 40;
/// What is sent in one go, in bytes.
const BATCH: usize = 32 << 10;
/// So many datagrams are sent in one go, with a pause after them: whoever takes them has a buffer, and no way to say that it is full.
const DATAGRAMS: usize = 64;
const PAUSE: Duration = Duration::from_millis(10);
/// How long a refusal of a datagram may take.
const REFUSAL: Duration = Duration::from_millis(500);

/// What waits for a server, shared by who reads and who sends.
#[derive(Debug)]
pub struct Line {
    /// What waits.
    pub queue: RefCell<Queue>,
    /// Rung when something does.
    pub more: Notify,
}

/// Who sends to one server.
pub struct Sender<'a> {
    /// The server.
    pub server: &'a Server,
    /// PEM file of the authorities that it may prove itself by.
    pub authorities: &'a Path,
    /// What this machine proves itself by.
    pub identity: Option<&'a Identity>,
    /// What waits for it.
    pub line: &'a Line,
    /// Turns the number of lines that were left out into the line that says so.
    pub left_out: &'a dyn Fn(u64) -> String,
}

/// How it goes.
struct Fare {
    outage: Outage,
    start: Instant,
    /// From when on a connection that holds is good news; never where nothing says that it holds.
    steady: Option<Instant>,
}

impl Fare {
    fn failed(&mut self, why: &str) -> Duration {
        let failed = self.outage.failed(self.start.elapsed(), why);
        failed.line.into_iter().for_each(say::line);
        failed.pause
    }

    fn well(&mut self) {
        self.outage.well(self.start.elapsed()).into_iter().for_each(say::line);
    }

    /// Tells that it goes on, if that is certain by now.
    fn look(&mut self) {
        if self.outage.lasts() && self.steady.is_some_and(|steady| Instant::now() >= steady) {
            self.well();
        }
    }
}

impl Sender<'_> {
    /// Sends, and never ends.
    pub async fn run(self, seed: u32) -> Infallible {
        let outage = Outage::new(format!("sending logs to {}", self.server), seed);
        let mut fare = Fare { outage, start: Instant::now(), steady: None };
        loop {
            let Err(error) = self.connection(&mut fare).await;
            let pause = fare.failed(&self.words(&error));
            tokio::time::sleep(pause).await;
        }
    }

    /// One connection, until it fails.
    async fn connection(&self, fare: &mut Fare) -> Result<Infallible> {
        let Server { protocol, host, port } = self.server;
        let within = Instant::now() + CONNECT;
        let addresses = in_time(within, async {
            let found = lookup_host((host.as_str(), *port)).await;
            found.map(Vec::from_iter).with_context(|| format!("looking up {host}"))
        });
        let addresses: Vec<SocketAddr> = addresses.await?;
        if *protocol == Protocol::Udp {
            return self.datagrams(&addresses, fare).await;
        }
        let tls =
            (*protocol == Protocol::Tls).then(|| tls::Client::read(self.authorities, self.identity)).transpose()?;
        let stream = connect(&addresses, within).await?;
        keep_alive(&stream)?;
        let peer = stream.peer_addr().context("asking for the server's address")?;
        let Some(tls) = tls else { return self.stream(stream, peer, fare).await };
        let stream = in_time(within, tls.connect(host, stream)).await?;
        self.stream(stream, peer, fare).await
    }

    /// Why a connection failed.
    fn words(&self, error: &Error) -> String {
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match inside.and_then(|inside| inside.downcast_ref::<rustls::Error>()) {
            Some(fault) => tls::words(fault, self.identity.is_some()),
            None => say::words(error.as_ref()),
        }
    }

    async fn stream<S: AsyncRead + AsyncWrite>(
        &self,
        stream: S,
        peer: SocketAddr,
        fare: &mut Fare,
    ) -> Result<Infallible> {
        fare.steady = Some(Instant::now() + STEADY);
        let (from, to) = tokio::io::split(stream);
        // A server has nothing to say; that it goes is heard before lines are sent into nowhere.
        tokio::select! {
            biased;
            ended = ended(from) => ended,
            failed = self.feed(to, async || answers(peer, CONNECT).await, STALL, fare) => failed,
        }
    }

    /// Writes what waits, for ever; a server that takes nothing is asked `is_there` now and then, and left where it is not.
    async fn feed(
        &self,
        to: impl AsyncWrite,
        is_there: impl AsyncFn() -> bool,
        stall: Duration,
        fare: &mut Fare,
    ) -> Result<Infallible> {
        let mut to = pin!(to);
        loop {
            let (count, text) = self.next(BATCH, fare).await;
            let mut writing = pin!(async {
                to.write_all(text.as_bytes()).await?;
                to.flush().await
            });
            let mut stalls = 0_u32;
            loop {
                tokio::select! {
                    written = &mut writing => break written?,
                    () = tokio::time::sleep(stall) => stalls += 1,
                }
                if stalls.is_multiple_of(ASKED) && stalls < SURE && !is_there().await {
                    bail!("it takes nothing, and its machine does not answer any more");
                }
                let _ = fare.failed(&format!("its connection stands and it takes nothing for {} s", stall.as_secs()));
            }
            self.line.queue.borrow_mut().sent(count);
            if stalls > 0 {
                fare.well();
            }
            fare.look();
        }
    }

    /// Waits for something to send.
    async fn next(&self, bytes: usize, fare: &mut Fare) -> (usize, String) {
        loop {
            let next = self.line.queue.borrow().next(bytes, self.left_out);
            if next.0 > 0 {
                return next;
            }
            match fare.steady.filter(|_| fare.outage.lasts()) {
                None => self.line.more.notified().await,
                Some(steady) => tokio::select! {
                    () = self.line.more.notified() => {}
                    () = tokio::time::sleep_until(steady.into()) => fare.look(),
                },
            }
        }
    }

    async fn datagrams(&self, addresses: &[SocketAddr], fare: &mut Fare) -> Result<Infallible> {
        let address = addresses.first().context("the name has no address")?;
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await.context("opening a socket")?;
        socket.connect(address).await?;
        // Nothing says that a datagram has come, only, sometimes, that it has not.
        fare.steady = None;
        let mut number = 0_usize;
        loop {
            number = number.wrapping_add(1);
            let (count, text) = self.next(1, fare).await;
            socket.send(text.as_bytes()).await?;
            self.line.queue.borrow_mut().sent(count);
            if fare.outage.lasts() {
                tokio::time::sleep(REFUSAL).await;
                if let Some(error) = socket.take_error()? {
                    return Err(error.into());
                }
                fare.well();
            } else if number.is_multiple_of(DATAGRAMS) {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn in_time<T>(within: Instant, done: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout_at(within.into(), done).await {
        Ok(done) => done,
        Err(_) => bail!("there is no answer within {} s", CONNECT.as_secs()),
    }
}

/// A connection to the first of the addresses that gives one. One that is silent has its share of the time, and leaves the others theirs.
async fn connect(addresses: &[SocketAddr], within: Instant) -> Result<TcpStream> {
    let mut last = anyhow!("the name has no address");
    for (number, address) in addresses.iter().enumerate() {
        let left = within.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - number).unwrap_or(u32::MAX);
        last = match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.into(),
            Err(_) => anyhow!("there is no answer within {} s", CONNECT.as_secs()),
        };
    }
    Err(last)
}

/// Whether a machine is there; one that refuses a connection is.
async fn answers(address: SocketAddr, within: Duration) -> bool {
    match tokio::time::timeout(within, TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

/// Waits for the end of a connection.
async fn ended(from: impl AsyncRead) -> Result<Infallible> {
    let (mut from, mut bytes) = (pin!(from), [0; 512]);
    while from.read(&mut bytes).await? > 0 {}
    bail!("the server has closed the connection")
}

/// Has a server that vanished while there was nothing to send missed after two minutes.
fn keep_alive(stream: &TcpStream) -> Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, Duration::from_secs(60)))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, Duration::from_secs(20)))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, 3))
        .context("having the connection watched")
}

#[cfg(test)]
mod tests;
