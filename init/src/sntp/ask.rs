//! Asks one server for its time over UDP, within bounds.
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};

use super::keeper::{Failure, Said};
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

/// Asks a server, by name or address, but for those of its addresses that rest: they have refused, with these codes. `near` as in
/// [`packet::Answer::against`].
#[must_use]
pub fn ask(server: &str, port: u16, near: i64, resting: &BTreeMap<IpAddr, &'static str>) -> Said {
    let (time, refused) = match (server, port).to_socket_addrs() {
        Ok(found) => ask_any(&found.collect::<Vec<_>>(), near, resting),
        Err(error) => (Err(Failure::Other(format!("looking up its name: {error}"))), Vec::new()),
    };
    Said { server: server.to_owned(), time, refused }
}

/// Asks the addresses of one name, one after the other. Gives those that have refused, too: behind a name may be servers that have nothing to do with
/// each other, and each of them refuses for itself.
fn ask_any(
    found: &[SocketAddr],
    near: i64,
    resting: &BTreeMap<IpAddr, &'static str>,
) -> (Result<Sample, Failure>, Vec<(IpAddr, &'static str)>) {
    let mut refused = Vec::new();
    let known = found.iter().find_map(|address| resting.get(&address.ip()).copied());
    let mut last = known.map_or_else(|| Failure::Other("its name has no address".to_owned()), Failure::Denied);
    for address in found.iter().filter(|address| !resting.contains_key(&address.ip())).take(ADDRESSES) {
        for _ in 0..TRIES {
            match ask_address(*address, near) {
                Ok(sample) => return (Ok(sample), refused),
                Err(Missed::Says(Failure::Denied(code))) => {
                    refused.push((address.ip(), code));
                    last = Failure::Denied(code);
                    break;
                }
                Err(Missed::Says(failure)) => return (Err(failure), refused),
                Err(Missed::Unreachable(why)) => {
                    last = Failure::Other(why);
                    break;
                }
                Err(Missed::Silent) => last = Failure::Other("no answer".to_owned()),
            }
        }
    }
    (Err(last), refused)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, SocketAddr, UdpSocket};
    use std::sync::mpsc::{self, Receiver};
    use std::thread;

    use super::{ask_any, clock};
    use crate::sntp::keeper::Failure;

    /// A server on an address of the loopback link that has the time, or refuses; it tells of each question.
    fn serve(address: &str, code: Option<&'static [u8; 4]>) -> (SocketAddr, Receiver<()>) {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        let place = socket.local_addr().unwrap();
        let (asked, questions) = mpsc::channel();
        thread::spawn(move || {
            let mut question = [0; 48];
            while let Ok((_, from)) = socket.recv_from(&mut question) {
                let seconds = u64::try_from(clock() / 1_000_000_000).unwrap() + 2_208_988_800;
                let mut answer = [0; 48];
                answer[..2].copy_from_slice(&[0x24, u8::from(code.is_none())]);
                answer[12..16].copy_from_slice(code.unwrap_or(b"GPS\0"));
                answer[24..32].copy_from_slice(&question[40..48]);
                answer[32..40].copy_from_slice(&(seconds << 32).to_be_bytes());
                answer[40..48].copy_from_slice(&(seconds << 32).to_be_bytes());
                let _ = asked.send(());
                socket.send_to(&answer, from).unwrap();
            }
        });
        (place, questions)
    }

    #[test]
    fn who_refuses_refuses_for_its_own_address_alone_and_is_left_in_peace() {
        let near = i64::try_from(clock() / 1_000_000_000).unwrap();
        let ((denies, asked), (serves, _)) = (serve("127.0.0.2", Some(b"DENY")), serve("127.0.0.3", None));
        let (time, refused) = ask_any(&[denies, serves], near, &BTreeMap::new());
        assert!(time.is_ok(), "{time:?}");
        assert_eq!(refused, [(denies.ip(), "DENY")]);
        assert_eq!(asked.try_iter().count(), 1);

        let resting: BTreeMap<IpAddr, &'static str> = refused.into_iter().collect();
        let (time, refused) = ask_any(&[denies, serves], near, &resting);
        assert!(time.is_ok() && refused.is_empty());
        // Where nobody else is left, that is why there is no time.
        assert_eq!(ask_any(&[denies], near, &resting), (Err(Failure::Denied("DENY")), vec![]));
        assert_eq!(asked.try_iter().count(), 0);
    }
}
