//! Machines that swallow what is sent to them, refuse, or are there and take nothing.
use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use tokio::sync::Notify;

use super::{Fare, Line, Queue, Sender, answers, connect};
use crate::logs::places::Places;
use crate::logs::wanted::{Protocol, Server};
use crate::outage::Outage;

const SOON: Duration = Duration::from_millis(300);

/// An address of which the kernel swallows every further connection: nobody takes those that wait already.
fn silent() -> (SocketAddr, impl Sized) {
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 0).unwrap();
    let address: SocketAddr = getsockname(&listener).unwrap().try_into().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, SOON) {
        waiting.push(stream);
    }
    (address, (listener, waiting))
}

fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn an_address_that_is_silent_keeps_nobody_from_the_next_one() {
    let (silent, _kept) = silent();
    let well = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = well.local_addr().unwrap();
    let within = |time: Duration| Instant::now() + time;
    let stream = connect(&[silent, refusing(), own], within(Duration::from_secs(3))).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), own);
    for (addresses, want) in [
        (&[refusing(), silent][..], "there is no answer within 20 s"),
        (&[silent, refusing()][..], "Connection refused"),
        (&[][..], "the name has no address"),
    ] {
        let error = connect(addresses, within(SOON)).await.unwrap_err();
        assert!(format!("{error:#}").contains(want), "{error:#}");
    }
}

#[tokio::test]
async fn a_machine_that_refuses_is_there() {
    let (silent, _kept) = silent();
    let well = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(answers(well.local_addr().unwrap(), SOON).await);
    assert!(answers(refusing(), SOON).await);
    assert!(!answers(silent, SOON).await);
}

/// Ends if the connection is given up.
async fn stalled(is_there: bool) -> Option<String> {
    let server = Server { protocol: Protocol::Tcp, host: "logs.lab".into(), port: 5170 };
    let line = Line { queue: RefCell::new(Queue::new(1 << 20, Places::default())), more: Notify::new() };
    line.queue.borrow_mut().push(&"x".repeat(1000).into(), None, Duration::ZERO);
    let sender = Sender {
        server: &server,
        authorities: Path::new(""),
        identity: None,
        line: &line,
        left_out: &|_| String::new(),
    };
    let outage = Outage::new("sending", 1);
    let mut fare = Fare { outage, start: Instant::now(), steady: None };
    // Nobody reads at the other end.
    let (to, _end) = tokio::io::duplex(16);
    let feeding = sender.feed(to, async || is_there, Duration::from_millis(5), &mut fare);
    let ended = tokio::time::timeout(SOON, feeding).await.ok()?;
    assert!(!line.queue.borrow().is_empty(), "nothing counts as sent");
    ended.err().map(|error| error.to_string())
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_left_when_its_machine_is_gone() {
    assert_eq!(stalled(false).await.as_deref(), Some("it takes nothing, and its machine does not answer any more"));
    assert_eq!(stalled(true).await, None);
}
