//! Asks one server for its time over UDP, within bounds.
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};

use super::keeper::Failure;
use super::packet::{self, Refused, Sample};

/// NTP's port.
pub const PORT: u16 = 123;
/// How often a server is asked that does not answer, and how long it has each time. A datagram gets lost now and then.
const TRIES: u32 = 2;
const WITHIN: Duration = Duration::from_secs(2);
/// Of a name with many addresses so many are tried; the name is one server all the same.
const ADDRESSES: usize = 4;
/// Other datagrams that are read past while the answer is waited for.
const STRAYS: u32 = 64;

/// Nanoseconds since 1970, as this machine's clock says.
#[must_use]
pub fn clock() -> i128 {
    let now = clock_gettime(ClockId::Realtime);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// Asks a server, by name or address. `near` as in [`packet::Answer::against`].
///
/// # Errors
/// Why it has given no time.
pub fn ask(server: &str, port: u16, near: i64) -> Result<Sample, Failure> {
    let found = (server, port).to_socket_addrs();
    let found = found.map_err(|error| Failure::Other(format!("looking up its name: {error}")))?;
    let mut last = Failure::Other("its name has no address".to_owned());
    for address in found.take(ADDRESSES) {
        for _ in 0..TRIES {
            match ask_address(address, near) {
                Ok(sample) => return Ok(sample),
                Err(Missed::Says(failure)) => return Err(failure),
                Err(Missed::Unreachable(why)) => {
                    last = Failure::Other(why);
                    break;
                }
                Err(Missed::Silent) => last = Failure::Other("no answer".to_owned()),
            }
        }
    }
    Err(last)
}

/// Why one question brought no time.
enum Missed {
    /// The server has spoken.
    Says(Failure),
    /// Nothing can get there now.
    Unreachable(String),
    /// Nothing came.
    Silent,
}

fn ask_address(address: SocketAddr, near: i64) -> Result<Sample, Missed> {
    let unreachable = |error: std::io::Error| Missed::Unreachable(error.to_string());
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A port of its own for each question, and datagrams of this address alone.
    let socket = UdpSocket::bind((any, 0)).map_err(unreachable)?;
    socket.connect(address).map_err(unreachable)?;
    let cookie = cookie().map_err(unreachable)?;
    let (asked, start) = (clock(), Instant::now());
    socket.send(&packet::question(cookie)).map_err(unreachable)?;
    let mut bytes = [0; 512];
    for _ in 0..STRAYS {
        let left = WITHIN.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left)).map_err(unreachable)?;
        let len = match socket.recv(&mut bytes) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            // ICMP says that nobody listens there, or that there is no way.
            Err(error) => return Err(unreachable(error)),
        };
        let took = start.elapsed();
        let answer = packet::read(bytes.get(..len).unwrap_or_default(), cookie);
        match answer.and_then(|answer| answer.against(asked, took, near)) {
            Ok(sample) => return Ok(sample),
            Err(Refused::Stray) => {}
            Err(Refused::Denied(code)) => return Err(Missed::Says(Failure::Denied(code))),
            Err(Refused::TooOften) => return Err(Missed::Says(Failure::TooOften)),
            Err(Refused::Unsound(why)) => return Err(Missed::Says(Failure::Other(why))),
        }
    }
    Err(Missed::Silent)
}

/// Eight bytes of chance.
fn cookie() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::empty())? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}
