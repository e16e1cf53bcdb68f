//! Joins real QEMU processes and plain sockets by a virtual link and holds it to what it promises.
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use kscratch_qemu::gateway::MachineForward;
use kscratch_qemu::link::frame;
use kscratch_qemu::{Condition, Error, Gateway, Link, Toolset};

const BOUND: Duration = Duration::from_secs(20);
const N1: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x14];
const N2: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x15];
const N3: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x16];
const ALL: [u8; 6] = [0xff; 6];
/// What a good cable needs far less than, and one that waits for a bad one far more.
const SOON: Duration = Duration::from_millis(1500);

/// A card that a test plays.
struct Card(UnixStream);

impl Card {
    fn plugged(plug: &Path) -> Card {
        let stream = UnixStream::connect(plug).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        Card(stream)
    }

    fn send(&mut self, to: [u8; 6], from: [u8; 6], rest: &[u8]) {
        let mut frame = [&to[..], &from, rest].concat();
        frame.resize(frame.len().max(60), 0);
        frame::write(&mut self.0, &frame).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        frame::read(&mut self.0).unwrap().unwrap()
    }

    /// The next frame that is none of those of [`Card::settle`].
    fn hear(&mut self) -> Vec<u8> {
        loop {
            let frame = self.receive();
            if frame[12..14] != [0x88, 0xb5] {
                return frame;
            }
        }
    }

    /// Waits until the link has taken this card in: a card that is told of a broadcast of `other` hears it.
    fn settle(&mut self, other: &mut Card, link: &Link, names: [&str; 2]) {
        let deadline = Instant::now() + BOUND;
        for (card, name) in [(&mut *self, names[0]), (other, names[1])] {
            let before = link.traffic(name).unwrap().sent;
            card.send(ALL, [2, 0, 0, 0, 0, 9], &[0x88, 0xb5]);
            while link.traffic(name).unwrap().sent == before {
                assert!(Instant::now() < deadline, "the link does not take {name} in");
                std::thread::yield_now();
            }
        }
    }
}

/// Waits until the link has taken in so many frames of a port: what becomes of them is decided then.
#[track_caller]
fn wait_for_sent(link: &Link, name: &str, sent: u64) {
    let deadline = Instant::now() + BOUND;
    while link.traffic(name).unwrap().sent < sent {
        assert!(Instant::now() < deadline, "{name}: {:?}", link.traffic(name));
        std::thread::yield_now();
    }
}

/// RFC 826: an ARP packet behind its type.
fn arp(operation: u8, from: ([u8; 6], Ipv4Addr), to: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &from.0, &from.1.octets(), &to.0, &to.1.octets()].concat()
}

#[test]
fn machines_hear_each_other_and_a_pulled_cable_is_pulled() {
    let folder = tempfile::tempdir().unwrap();
    let mut link = Link::new(folder.path());
    let (mut a, mut b) = (Card::plugged(&link.plug("n1").unwrap()), Card::plugged(&link.plug("n2").unwrap()));
    a.settle(&mut b, &link, ["n1", "n2"]);
    assert_eq!(a.receive()[12..14], [0x88, 0xb5], "the second card's broadcast");
    // Whatever the first one's start left.
    b.send(ALL, N2, &[0x88, 0xb6]);
    assert_eq!(a.receive()[..14], [&ALL[..], &N2, &[0x88, 0xb6]].concat());
    a.send(N2, N1, &[0x88, 0xb7]);
    let heard = b.receive();
    let heard = if heard[12..14] == [0x88, 0xb5] { b.receive() } else { heard };
    assert_eq!(heard[..14], [&N2[..], &N1, &[0x88, 0xb7]].concat());

    let down = Condition { up: false, ..Condition::default() };
    assert!(link.set_condition("n1", down) && !link.set_condition("n9", down));
    assert_eq!((link.condition("n1"), link.condition("n9")), (Some(down), None));
    let lost = link.traffic("n1").unwrap().lost;
    b.send(N1, N2, &[0x88, 0xb8]);
    a.send(N2, N1, &[0x88, 0xb9]);
    let deadline = Instant::now() + BOUND;
    while link.traffic("n1").unwrap().lost < lost + 2 {
        assert!(Instant::now() < deadline, "{:?}", link.traffic("n1"));
        std::thread::yield_now();
    }
    let slow = Condition { delay: Duration::from_millis(80), ..Condition::default() };
    assert!(link.set_condition("n1", slow));
    let sent = Instant::now();
    b.send(N1, N2, &[0x88, 0xba]);
    assert_eq!(a.receive()[12..14], [0x88, 0xba], "nothing of what was sent while it was down");
    assert!(sent.elapsed() >= slow.delay);
    // Eight kilobits are a byte a millisecond.
    assert!(link.set_condition("n1", Condition { rate: 8, ..Condition::default() }));
    let sent = Instant::now();
    for _ in 0..10 {
        b.send(N1, N2, &[0x88, 0xbb]);
    }
    let bytes: usize = (0..10).map(|_| a.receive().len()).sum();
    assert!(sent.elapsed() >= Duration::from_millis(bytes as u64), "{bytes} bytes in {:?}", sent.elapsed());
}

#[test]
fn a_slow_cable_delays_no_frames_but_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut link = Link::new(folder.path());
    let [mut a, mut b, mut c] = ["n1", "n2", "n3"].map(|name| Card::plugged(&link.plug(name).unwrap()));
    a.settle(&mut b, &link, ["n1", "n2"]);
    b.settle(&mut c, &link, ["n2", "n3"]);
    let slow = Condition { delay: Duration::from_secs(3), ..Condition::default() };
    assert!(link.set_condition("n1", slow));
    let sent = link.traffic("n1").unwrap().sent;
    let began = Instant::now();
    a.send(ALL, N1, &[0x88, 0xc0]);
    wait_for_sent(&link, "n1", sent + 1);

    let others = Instant::now();
    b.send(N3, N2, &[0x88, 0xc1]);
    assert_eq!(c.hear()[12..14], [0x88, 0xc1]);
    c.send(N2, N3, &[0x88, 0xc2]);
    assert_eq!(b.hear()[12..14], [0x88, 0xc2]);
    assert!(others.elapsed() < SOON, "{:?}", others.elapsed());

    for card in [&mut b, &mut c] {
        assert_eq!(card.hear()[12..14], [0x88, 0xc0], "late, but not lost");
    }
    assert!(began.elapsed() >= slow.delay);
}

#[test]
fn a_flooded_cable_works_at_once_when_it_is_made_good() {
    const FLOOD: u64 = 2000;
    let folder = tempfile::tempdir().unwrap();
    let mut link = Link::new(folder.path());
    let (mut a, mut b) = (Card::plugged(&link.plug("n1").unwrap()), Card::plugged(&link.plug("n2").unwrap()));
    a.settle(&mut b, &link, ["n1", "n2"]);
    let mut long = vec![0x88, 0xc3];
    long.resize(60_000, 0);
    for good in [Condition { rate: 1_000_000, ..Condition::default() }, Condition::default()] {
        // A byte a millisecond: the long frame keeps the cable busy for a minute, and what comes behind it finds no room.
        assert!(link.set_condition("n1", Condition { rate: 8, ..Condition::default() }));
        let lost = link.traffic("n1").unwrap().lost;
        for (card, to, from, name) in [(&mut a, N2, N1, "n1"), (&mut b, N1, N2, "n2")] {
            let sent = link.traffic(name).unwrap().sent;
            card.send(to, from, &long);
            for _ in 0..FLOOD {
                card.send(to, from, &[0x88, 0xc4]);
            }
            wait_for_sent(&link, name, sent + 1 + FLOOD);
        }
        assert_eq!(link.traffic("n1").unwrap().lost, lost + 2 * FLOOD);

        assert!(link.set_condition("n1", good));
        let again = Instant::now();
        a.send(N2, N1, &[0x88, 0xc5]);
        assert_eq!(b.hear()[12..14], [0x88, 0xc5], "{good:?}");
        b.send(N1, N2, &[0x88, 0xc6]);
        assert_eq!(a.hear()[12..14], [0x88, 0xc6], "{good:?}");
        assert!(again.elapsed() < SOON, "{:?} with {good:?}", again.elapsed());
    }
}

#[test]
fn no_end_waits_for_frames_that_are_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut link = Link::new(folder.path());
    let first = link.plug("n1").unwrap();
    let (mut a, mut b) = (Card::plugged(&first), Card::plugged(&link.plug("n2").unwrap()));
    a.settle(&mut b, &link, ["n1", "n2"]);
    assert!(link.set_condition("n1", Condition { delay: 10 * BOUND, ..Condition::default() }));
    for (card, to, from, name) in [(&mut a, N2, N1, "n1"), (&mut b, N1, N2, "n2")] {
        let sent = link.traffic(name).unwrap().sent;
        card.send(to, from, &[0x88, 0xc7]);
        wait_for_sent(&link, name, sent + 1);
    }
    drop(a);
    let mut again = Card::plugged(&first);
    again.settle(&mut b, &link, ["n1", "n2"]);
    let end = Instant::now();
    drop(link);
    assert!(end.elapsed() < BOUND, "{:?}", end.elapsed());
}

#[test]
fn a_machine_leaves_and_comes_back_and_the_end_takes_the_sockets_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut link = Link::new(folder.path());
    let (first, second) = (link.plug("n1").unwrap(), link.plug("n2").unwrap());
    let (mut a, mut b) = (Card::plugged(&first), Card::plugged(&second));
    a.settle(&mut b, &link, ["n1", "n2"]);
    drop(a);
    let mut broken = Card::plugged(&first);
    broken.0.write_all(&[0xff; 8]).unwrap();
    let mut rest = Vec::new();
    broken.0.read_to_end(&mut rest).unwrap();
    let mut again = Card::plugged(&first);
    again.settle(&mut b, &link, ["n1", "n2"]);
    b.send(ALL, N2, &[0x88, 0xbb]);
    while again.receive()[12..14] != [0x88, 0xbb] {}
    drop(link);
    assert!(!first.exists() && !second.exists());
    assert_eq!(again.0.read(&mut [0; 64]).unwrap(), 0, "the cable is pulled");
}

#[test]
fn loss_takes_about_its_share() {
    let folder = tempfile::tempdir().unwrap();
    let mut link = Link::new(folder.path());
    let (mut a, mut b) = (Card::plugged(&link.plug("n1").unwrap()), Card::plugged(&link.plug("n2").unwrap()));
    a.settle(&mut b, &link, ["n1", "n2"]);
    link.set_condition("n1", Condition { loss: 250, ..Condition::default() });
    let before = link.traffic("n1").unwrap();
    for _ in 0..2000 {
        a.send(N2, N1, &[0x88, 0xb5]);
    }
    let deadline = Instant::now() + BOUND;
    while link.traffic("n1").unwrap().sent < before.sent + 2000 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let lost = link.traffic("n1").unwrap().lost - before.lost;
    assert!((350..650).contains(&lost), "{lost} of 2000");
}

#[test]
fn the_gateway_leads_from_a_port_of_this_host_to_a_machine() {
    let (tools, folder) = (Toolset::find().unwrap(), tempfile::tempdir().unwrap());
    let mut link = Link::new(folder.path());
    let (outside, n1) = (link.plug("gateway").unwrap(), link.plug("n1").unwrap());
    let mut gateway = Gateway::of([192, 168, 76]);
    let machine = Ipv4Addr::new(192, 168, 76, 20);
    gateway.forwards.push(MachineForward { host: 0, address: machine, port: 8080 });
    let running = gateway.start(&tools, &outside, folder.path()).unwrap();
    let [forward] = running.forwards() else { panic!("{:?}", running.forwards()) };
    assert_eq!((forward.address, forward.port), (machine, 8080));

    let mut card = Card::plugged(&n1);
    // A request for the gateway's hardware address: it answers as soon as both ends are on the link.
    let asked = arp(1, (N1, machine), ([0; 6], gateway.address));
    card.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let deadline = Instant::now() + BOUND;
    let answer = loop {
        card.send(ALL, N1, &asked);
        match frame::read(&mut card.0) {
            Ok(frame) => break frame.unwrap(),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!((&answer[..6], &answer[12..14], answer[21]), (&N1[..], &[8, 6][..], 2), "{answer:?}");
    let hardware: [u8; 6] = answer[6..12].try_into().unwrap();

    card.0.set_read_timeout(Some(BOUND)).unwrap();
    let _connecting = TcpStream::connect((Ipv4Addr::LOCALHOST, forward.host)).unwrap();
    let syn = loop {
        let frame = card.receive();
        if frame[12..14] == [8, 6] && frame[21] == 1 {
            card.send(hardware, N1, &arp(2, (N1, machine), (hardware, gateway.address)));
        } else if frame[12..14] == [8, 0] {
            break frame;
        }
    };
    // RFC 791 and 9293: protocol 6, source and destination, port 8080, SYN.
    assert_eq!((syn[23], &syn[26..30], &syn[30..34]), (6, &gateway.address.octets()[..], &machine.octets()[..]));
    assert_eq!((u16::from_be_bytes([syn[36], syn[37]]), syn[47] & 0x12), (8080, 2));

    let pid = running.pid();
    assert!(running.status().is_none());
    drop(running);
    assert!(!folder.path().join("gateway.qmp").exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_port_that_is_taken_is_told() {
    let (tools, folder) = (Toolset::find().unwrap(), tempfile::tempdir().unwrap());
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut link = Link::new(folder.path());
    let plug = link.plug("gateway").unwrap();
    let mut gateway = Gateway::of([192, 168, 76]);
    let host = taken.local_addr().unwrap().port();
    gateway.forwards.push(MachineForward { host, address: Ipv4Addr::new(192, 168, 76, 10), port: 6443 });
    let error = gateway.start(&tools, &plug, folder.path()).unwrap_err();
    assert!(matches!(error, Error::Ended { .. }) && error.to_string().contains("host forwarding rule"), "{error}");
}
