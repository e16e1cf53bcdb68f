//! Turns a server's messages and the passing of time into what a client owes for them: a table, and random bytes.
use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::v6::{DhcpOption, DhcpOptions, IAAddr, IANA, Message, MessageType, OptionCode, Status, StatusCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use proptest::prelude::{any, prop, prop_assert, proptest};

use super::{Action, Client, Event, Identity};

mod answers;

const SERVER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const SERVER_ID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

fn identity() -> Identity {
    Identity { duid: vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 7], iaid: 9 }
}

fn client() -> Client {
    Client::new(identity(), Some("n1".to_owned()), 0x01ff_ffff, 42)
}

fn address(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Addresses of a link as a server gives them: 1000 s each, preferred for 800 of them.
fn association(status: Status, addresses: &[Ipv6Addr]) -> DhcpOption {
    let mut opts = DhcpOptions::new();
    for addr in addresses {
        let none = DhcpOptions::new();
        opts.insert(DhcpOption::IAAddr(IAAddr { addr: *addr, preferred_life: 800, valid_life: 1000, opts: none }));
    }
    if status != Status::Success {
        opts.insert(DhcpOption::StatusCode(StatusCode { status, msg: "why".into() }));
    }
    DhcpOption::IANA(IANA { id: identity().iaid, t1: 0, t2: 0, opts })
}

/// A server's answer to a message of the client.
fn answer(xid: [u8; 3], kind: MessageType, options: impl IntoIterator<Item = DhcpOption>) -> Vec<u8> {
    let mut message = Message::new_with_id(kind, xid);
    message.opts_mut().insert(DhcpOption::ClientId(identity().duid));
    message.opts_mut().insert(DhcpOption::ServerId(SERVER_ID.to_vec()));
    options.into_iter().for_each(|option| message.opts_mut().insert(option));
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

/// What a test says of one action.
fn show(action: &Action) -> String {
    match action {
        Action::Send(bytes) => {
            let message = Message::decode(&mut Decoder::new(bytes)).unwrap();
            let mut words = format!("{:?}", message.msg_type());
            if let Some(DhcpOption::IANA(IANA { opts, .. })) = message.opts().get(OptionCode::IANA)
                && let Some(DhcpOption::IAAddr(given)) = opts.get(OptionCode::IAAddr)
            {
                words += &format!(" for {}", given.addr);
            }
            if message.opts().get(OptionCode::ServerId).is_some() {
                words += " of the server";
            }
            words
        }
        Action::Hold(lease) => format!("hold {lease}"),
        Action::Lose(lease, why) => format!("lose {}: {why}", lease.address),
    }
}

/// A client, the number of its exchange, and everything that it did.
struct Scene {
    client: Client,
    xid: [u8; 3],
    seen: Vec<String>,
}

impl Scene {
    fn new() -> Self {
        Self { client: client(), xid: [0; 3], seen: Vec::new() }
    }

    fn event(&mut self, at: f64, event: Event<'_>) -> &mut Self {
        for action in self.client.handle(event, seconds(at)) {
            if let Action::Send(bytes) = &action {
                self.xid = bytes[1..4].try_into().unwrap();
            }
            self.seen.push(format!("{at}: {}", show(&action)));
        }
        self
    }

    fn says(&mut self, at: f64, kind: MessageType, options: impl IntoIterator<Item = DhcpOption>) -> &mut Self {
        let bytes = answer(self.xid, kind, options);
        self.event(at, Event::Received { bytes: &bytes, from: SERVER })
    }

    fn gives(&mut self, at: f64, kind: MessageType, last: u16) -> &mut Self {
        self.says(at, kind, [association(Status::Success, &[address(last)])])
    }

    /// The next thing that is due, and when it was.
    fn due(&mut self) -> f64 {
        let at = self.client.next_deadline().unwrap().as_secs_f64() + 0.000_001;
        self.event(at, Event::Timer);
        at
    }

    /// From nothing to a lease of 1000 s, asked for at 0 s.
    fn bound(&mut self) -> &mut Self {
        self.event(0.0, Event::Start).says(
            0.5,
            MessageType::Reply,
            [DhcpOption::RapidCommit, association(Status::Success, &[address(0x50)])],
        );
        assert!(self.client.lease().is_some());
        self.seen.clear();
        self
    }

    #[track_caller]
    fn check(&self, want: &[&str]) {
        assert_eq!(self.seen, want);
    }
}

#[test]
fn the_best_offer_of_the_first_second_is_asked_for() {
    let mut scene = Scene::new();
    scene.event(0.0, Event::Start).gives(0.1, MessageType::Advertise, 0x50);
    let preferred =
        |preference, last| [DhcpOption::Preference(preference), association(Status::Success, &[address(last)])];
    scene.says(0.2, MessageType::Advertise, preferred(7, 0x51)).says(0.3, MessageType::Advertise, preferred(7, 0x52));
    scene.check(&["0: Solicit"]);
    let at = scene.client.next_deadline().unwrap();
    assert!(at > seconds(1.0) && at <= seconds(1.1), "{at:?}");
    scene.event(1.2, Event::Timer).gives(1.3, MessageType::Reply, 0x51);
    scene.check(&[
        "0: Solicit",
        "1.2: Request for 2001:db8::51 of the server",
        "1.3: hold 2001:db8::51 from fe80::1 for 1000 s",
    ]);
    assert_eq!(scene.client.next_deadline(), Some(seconds(401.2)), "T1 counts from the request");
}

#[test]
fn an_offer_of_the_highest_preference_or_one_that_comes_late_is_asked_for_at_once() {
    let mut scene = Scene::new();
    let best = [DhcpOption::Preference(255), association(Status::Success, &[address(0x50)])];
    scene.event(0.0, Event::Start).says(0.1, MessageType::Advertise, best);
    scene.check(&["0: Solicit", "0.1: Request for 2001:db8::50 of the server"]);

    let mut scene = Scene::new();
    scene.event(0.0, Event::Start).event(1.2, Event::Timer).gives(2.0, MessageType::Advertise, 0x50);
    scene.check(&["0: Solicit", "1.2: Solicit", "2: Request for 2001:db8::50 of the server"]);
}

#[test]
fn a_server_may_give_at_once() {
    let mut scene = Scene::new();
    scene.event(0.0, Event::Start).gives(0.1, MessageType::Reply, 0x49);
    scene.check(&["0: Solicit"]);
    scene.says(0.2, MessageType::Reply, [DhcpOption::RapidCommit, association(Status::Success, &[address(0x50)])]);
    assert_eq!(scene.seen[1..], ["0.2: hold 2001:db8::50 from fe80::1 for 1000 s"]);
}

#[test]
fn solicitations_are_repeated_ever_more_rarely_and_as_a_server_says() {
    let longest =
        |scene: &mut Scene| (0..16).map(|_| scene.due()).fold((0.0, 0.0), |(at, _), next| (next, next - at)).1;
    let mut scene = Scene::new();
    assert!(longest(scene.event(0.0, Event::Start)) > 3200.0);
    scene.seen.iter().for_each(|line| assert!(line.ends_with(": Solicit"), "{line}"));
    // SOL_MAX_RT, which is no reason to take the offer.
    let mut scene = Scene::new();
    scene.event(0.0, Event::Start);
    let mut bytes = answer(scene.xid, MessageType::Advertise, [association(Status::NoAddrsAvail, &[])]);
    bytes.extend([0, 82, 0, 4, 0, 0, 0, 60]);
    scene.event(0.1, Event::Received { bytes: &bytes, from: SERVER });
    assert_eq!(scene.client.refused_by(), Some(SERVER));
    // It counts from the next exchange on.
    scene.event(0.2, Event::LinkBack);
    assert!((50.0..70.0).contains(&longest(&mut scene)));
}

#[test]
fn a_server_that_offers_and_does_not_give_is_left() {
    let mut scene = Scene::new();
    scene.event(0.0, Event::Start).gives(0.1, MessageType::Advertise, 0x50);
    let at = (0..11).fold(0.0, |_, _| scene.due());
    let words: Vec<&str> = scene.seen.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!((words[0], &words[1..11], words[11]), ("Solicit", &["Request"; 10][..], "Solicit"));
    assert!((130.0..230.0).contains(&at), "{at} s");

    let mut scene = Scene::new();
    scene.event(0.0, Event::Start).gives(0.1, MessageType::Advertise, 0x50).event(1.2, Event::Timer);
    scene.says(1.3, MessageType::Reply, [association(Status::NoAddrsAvail, &[])]);
    assert_eq!(scene.client.refused_by(), Some(SERVER));
    scene.event(6.2, Event::Timer).event(6.4, Event::Timer);
    assert_eq!(scene.seen[2..], ["6.4: Solicit"], "but not at once");
    scene.gives(6.5, MessageType::Advertise, 0x50).event(8.0, Event::Timer).gives(8.1, MessageType::Reply, 0x50);
    assert_eq!(scene.client.refused_by(), None, "there is a lease");
}

#[test]
fn a_lease_is_renewed_with_its_server() {
    let mut scene = Scene::new();
    scene.bound().event(399.0, Event::Timer).event(400.0, Event::Timer).gives(400.5, MessageType::Reply, 0x50);
    scene.check(&["400: Renew for 2001:db8::50 of the server", "400.5: hold 2001:db8::50 from fe80::1 for 1000 s"]);
    assert_eq!(scene.client.next_deadline(), Some(seconds(800.0)));
}

#[test]
fn a_server_that_is_gone_is_followed_by_any_and_then_by_the_end() {
    let mut scene = Scene::new();
    scene.bound();
    let (mut at, mut kinds) = (0.0, Vec::new());
    while scene.client.lease().is_some() {
        at = scene.due();
        assert!(at < 1001.0, "the lease is held too long");
    }
    for line in &scene.seen {
        let words = line.split_once(": ").unwrap().1.to_owned();
        if kinds.last() != Some(&words) {
            kinds.push(words);
        }
    }
    assert_eq!(
        kinds,
        [
            "Renew for 2001:db8::50 of the server",
            "Rebind for 2001:db8::50",
            "lose 2001:db8::50: no DHCPv6 server renewed it",
            "Solicit",
        ]
    );
    assert!(at > 999.9, "the lease is given up too early, at {at} s");
    assert!(scene.seen.len() < 20, "{} messages for one lease", scene.seen.len());
}

#[test]
fn what_a_server_says_to_a_renewal() {
    let withdrawn = || {
        let DhcpOption::IANA(mut one) = association(Status::Success, &[address(0x50)]) else { unreachable!() };
        let Some(DhcpOption::IAAddr(given)) = one.opts.get_mut(OptionCode::IAAddr) else { unreachable!() };
        (given.preferred_life, given.valid_life) = (0, 0);
        DhcpOption::IANA(one)
    };
    let lost = "401: lose 2001:db8::50: the DHCPv6 server fe80::1 refuses it";
    let again = "401: Request for 2001:db8::50 of the server";
    let check = |options: Vec<DhcpOption>, want: &[&str]| {
        let mut scene = Scene::new();
        scene.bound().event(400.0, Event::Timer).says(401.0, MessageType::Reply, options);
        assert_eq!(scene.seen[1..], *want);
    };
    check(vec![association(Status::NoBinding, &[])], &[lost, again]);
    check(vec![withdrawn()], &[lost, "401: Solicit"]);
    // Nothing of ours: it is asked again.
    check(vec![], &[]);
    check(vec![association(Status::UnspecFail, &[])], &[]);
    let other = "401: lose 2001:db8::50: the DHCPv6 server gives another one";
    let new = "401: hold 2001:db8::51 from fe80::1 for 1000 s";
    check(vec![association(Status::Success, &[address(0x51)])], &[other, new]);
    // Ours is kept among several.
    let kept = "401: hold 2001:db8::50 from fe80::1 for 1000 s";
    check(vec![association(Status::Success, &[address(0x51), address(0x50)])], &[kept]);
}

#[test]
fn a_link_that_is_back_asks_whether_its_address_belongs_there() {
    let confirm = "100: Confirm for 2001:db8::50";
    let status = |status| DhcpOption::StatusCode(StatusCode { status, msg: String::new() });
    let mut scene = Scene::new();
    scene.bound().event(100.0, Event::LinkBack).says(100.5, MessageType::Reply, [status(Status::Success)]);
    scene.check(&[confirm]);
    assert_eq!(scene.client.next_deadline(), Some(seconds(400.0)), "T1 as it was");

    let mut scene = Scene::new();
    scene.bound().event(100.0, Event::LinkBack).says(100.5, MessageType::Reply, [status(Status::NotOnLink)]);
    scene.check(&[confirm, "100.5: lose 2001:db8::50: the DHCPv6 server fe80::1 refuses it", "100.5: Solicit"]);

    // Nobody answers.
    for (back, want, until) in [(100.0, "Renew", 400.0), (395.0, "Renew", 405.0), (995.0, "lose", 1000.0)] {
        let mut scene = Scene::new();
        scene.bound().event(back, Event::LinkBack);
        let end = loop {
            let (before, at) = (scene.seen.len(), scene.due());
            let new = scene.seen.get(before).map(|line| line.split_once(": ").unwrap().1);
            if new.is_some_and(|words| !words.starts_with("Confirm")) {
                assert!(new.unwrap().starts_with(want), "{:?}", scene.seen);
                break at;
            }
        };
        assert!((end - until).abs() < 0.01, "{end}: {:?}", scene.seen);
    }
}

#[test]
fn a_link_that_comes_back_while_searching_searches_at_once() {
    let mut scene = Scene::new();
    scene.event(0.0, Event::LinkBack).event(0.1, Event::Start).event(0.5, Event::LinkBack);
    scene.check(&["0.1: Solicit", "0.5: Solicit"]);
}

#[test]
fn an_address_that_another_machine_has_is_declined() {
    let declined = "3: Decline for 2001:db8::50 of the server";
    let mut scene = Scene::new();
    scene.bound().event(3.0, Event::Duplicate).says(3.1, MessageType::Reply, []).event(9.0, Event::Timer);
    scene.check(&["3: lose 2001:db8::50: another machine on the link has it", declined, "9: Solicit"]);
    // A server that does not answer is told four times.
    let mut scene = Scene::new();
    scene.bound().event(3.0, Event::Duplicate);
    (0..4).for_each(|_| _ = scene.due());
    let words: Vec<&str> = scene.seen.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(words, ["lose", "Decline", "Decline", "Decline", "Decline", "Solicit"]);
    scene.event(20.0, Event::Duplicate);
    assert_eq!(scene.seen.len(), 6, "there is no lease");
}

/// A client that got these packets, each as an answer to its exchange, with the passing of time between them.
fn fed(packets: &[(u16, Vec<u8>)]) -> Client {
    let (mut client, mut now, mut xid) = (client(), Duration::ZERO, [0_u8; 3]);
    let mut take = |actions: Vec<Action>| {
        for action in actions {
            if let Action::Send(bytes) = action {
                xid = bytes[1..4].try_into().unwrap();
            }
        }
        xid
    };
    take(client.handle(Event::Start, now));
    for (wait, packet) in packets {
        now += Duration::from_secs(u64::from(*wait));
        let xid = take(client.handle(Event::Timer, now));
        let mut bytes = packet.clone();
        if let Some(place) = bytes.get_mut(1..4) {
            place.copy_from_slice(&xid);
        }
        take(client.handle(Event::Received { bytes: &bytes, from: SERVER }, now));
    }
    client
}

proptest! {
    #[test]
    fn no_sequence_of_events_keeps_a_lease_beyond_its_time(script in prop::collection::vec((0..400_u32, 0..7_u8), 0..100)) {
        let (mut scene, mut now, mut asked) = (Scene::new(), 0.0_f64, 0.0);
        let asks = |line: &String| !line.contains(": hold") && !line.contains(": lose");
        for (wait, what) in script {
            let next = now + f64::from(wait);
            // As the loop does: timers are kept on the way.
            let mut steps = 0;
            while scene.client.next_deadline().is_some_and(|deadline| deadline.as_secs_f64() <= next) {
                steps += 1;
                prop_assert!(steps < 500, "it spins");
                let before = scene.seen.len();
                now = scene.due();
                if scene.seen[before..].iter().any(asks) {
                    asked = now;
                }
            }
            now = next.max(now);
            let before = scene.seen.len();
            match what {
                0 => scene.gives(now, MessageType::Advertise, 0x50),
                1 => scene.gives(now, MessageType::Reply, 0x50),
                2 => scene.says(now, MessageType::Reply, [association(Status::NoBinding, &[])]),
                3 => scene.event(now, Event::LinkBack),
                4 => scene.event(now, Event::Duplicate),
                5 => scene.says(now, MessageType::Reply, [DhcpOption::RapidCommit, association(Status::Success, &[address(0x51)])]),
                _ => scene.event(now, Event::Start),
            };
            if scene.seen[before..].iter().any(asks) {
                asked = now;
            }
            if scene.client.lease().is_some() {
                let deadline = scene.client.next_deadline().map(|deadline| deadline.as_secs_f64());
                prop_assert!(deadline.is_some_and(|deadline| deadline <= asked + 1001.0), "{deadline:?} of {asked}");
            }
        }
    }

    #[test]
    fn arbitrary_packets_never_panic(packets in prop::collection::vec((0..2000_u16, prop::collection::vec(any::<u8>(), 0..300)), 0..8)) {
        fed(&packets);
    }

    #[test]
    fn packets_like_a_servers_never_panic(kinds in prop::collection::vec((0..2000_u16, any::<bool>()), 1..6), place in 0..200_usize, with in any::<u8>(), cut in 0..200_usize) {
        let options = || [
            DhcpOption::RapidCommit,
            DhcpOption::StatusCode(StatusCode { status: Status::Success, msg: "well".into() }),
            DhcpOption::DomainNameServers(vec![address(0x53)]),
            association(Status::Success, &[address(0x50), address(0x51)]),
        ];
        let packets: Vec<(u16, Vec<u8>)> = kinds
            .into_iter()
            .map(|(wait, advertised)| {
                let kind = if advertised { MessageType::Advertise } else { MessageType::Reply };
                let mut bytes = answer([0; 3], kind, options());
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = with;
                }
                bytes.truncate(bytes.len().saturating_sub(cut / 2));
                (wait, bytes)
            })
            .collect();
        fed(&packets);
    }
}
