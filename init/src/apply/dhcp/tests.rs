//! Turns a server's messages and the passing of time into what a client owes for them: a table, and random bytes.
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use proptest::prelude::{prop, prop_assert, proptest};

use super::{Action, Client, Event};

mod answers;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

fn client() -> Client {
    Client::new(MAC, Some(String::from("node-1")), 100, 42)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A server's answer to a message of the client.
fn answer(request: &Message, kind: MessageType, address: [u8; 4], change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(request.xid(), none, address.into(), none, none, &MAC);
    message.set_opcode(Opcode::BootReply);
    for option in [
        DhcpOption::MessageType(kind),
        DhcpOption::ServerIdentifier(SERVER),
        DhcpOption::SubnetMask([255, 255, 255, 0].into()),
        DhcpOption::AddressLeaseTime(1000),
        DhcpOption::Router(vec![SERVER]),
    ] {
        message.opts_mut().insert(option);
    }
    change(&mut message);
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

/// What a test says of one action.
fn show(action: &Action) -> String {
    match action {
        Action::Send { bytes, to } => {
            let message = Message::decode(&mut Decoder::new(bytes)).unwrap();
            let kind = message.opts().msg_type().unwrap();
            let mut words = format!("{kind:?} to {to}");
            if !message.ciaddr().is_unspecified() {
                words += &format!(" from {}", message.ciaddr());
            }
            if let Some(DhcpOption::RequestedIpAddress(wanted)) = message.opts().get(OptionCode::RequestedIpAddress) {
                words += &format!(" for {wanted}");
            }
            if let Some(DhcpOption::ServerIdentifier(server)) = message.opts().get(OptionCode::ServerIdentifier) {
                words += &format!(" of {server}");
            }
            words
        }
        Action::Hold(lease) => format!("hold {lease}"),
        Action::Lose(lease, why) => format!("lose {lease}: {why}"),
    }
}

/// A client, the last message that it sent, and everything that it did.
struct Scene {
    client: Client,
    last: Option<Message>,
    seen: Vec<String>,
}

impl Scene {
    fn new() -> Self {
        Self { client: client(), last: None, seen: Vec::new() }
    }

    fn event(&mut self, at: f64, event: Event<'_>) -> &mut Self {
        for action in self.client.handle(event, seconds(at)) {
            if let Action::Send { bytes, .. } = &action {
                self.last = Some(Message::decode(&mut Decoder::new(bytes)).unwrap());
            }
            self.seen.push(format!("{at}: {}", show(&action)));
        }
        self
    }

    fn server(&mut self, at: f64, kind: MessageType, address: [u8; 4]) -> &mut Self {
        let bytes = answer(self.last.as_ref().unwrap(), kind, address, |_| {});
        self.event(at, Event::Received(&bytes))
    }

    /// From nothing to a lease of 1000 s, asked for at 1 s.
    fn bound(&mut self) -> &mut Self {
        self.event(0.0, Event::Start).server(1.0, MessageType::Offer, [10, 9, 0, 50]).server(
            1.5,
            MessageType::Ack,
            [10, 9, 0, 50],
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
fn a_lease_is_found_asked_for_and_held() {
    let mut scene = Scene::new();
    scene.event(0.0, Event::Start).server(0.1, MessageType::Offer, [10, 9, 0, 50]).server(
        0.2,
        MessageType::Ack,
        [10, 9, 0, 50],
    );
    scene.check(&[
        "0: Discover to 255.255.255.255",
        "0.1: Request to 255.255.255.255 for 10.9.0.50 of 10.9.0.1",
        "0.2: hold 10.9.0.50/24 from 10.9.0.1 for 1000 s",
    ]);
    let deadline = scene.client.next_deadline().unwrap();
    assert_eq!(deadline, seconds(500.1), "T1 counts from the request");
}

#[test]
fn the_second_offer_is_not_taken() {
    let mut scene = Scene::new();
    scene.event(0.0, Event::Start).server(0.1, MessageType::Offer, [10, 9, 0, 50]).server(
        0.2,
        MessageType::Offer,
        [10, 9, 0, 51],
    );
    assert_eq!(scene.seen.len(), 2);
}

#[test]
fn discovery_is_repeated_ever_more_rarely() {
    let mut client = client();
    client.handle(Event::Start, Duration::ZERO);
    let mut now = Duration::ZERO;
    for want in [1.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0] {
        let next = client.next_deadline().unwrap();
        let wait = (next - now).as_secs_f64();
        assert!((wait - want).abs() <= 1.0, "waits {wait} s where about {want} s are wanted");
        assert!(client.handle(Event::Timer, next - Duration::from_millis(1)).is_empty());
        now = next;
        assert_eq!(show(&client.handle(Event::Timer, now)[0]), "Discover to 255.255.255.255");
    }
}

#[test]
fn a_server_that_offers_and_does_not_acknowledge_is_left() {
    let mut scene = Scene::new();
    scene.event(0.0, Event::Start).server(0.1, MessageType::Offer, [10, 9, 0, 50]);
    for _ in 0..4 {
        let at = scene.client.next_deadline().unwrap().as_secs_f64() + 0.000_001;
        scene.event(at, Event::Timer);
    }
    let words: Vec<&str> = scene.seen.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(words, ["Discover", "Request", "Request", "Request", "Request", "Discover"]);
}

#[test]
fn a_refusal_of_the_request_begins_anew_but_not_at_once() {
    let mut scene = Scene::new();
    scene.event(0.0, Event::Start).server(0.1, MessageType::Offer, [10, 9, 0, 50]).server(
        0.2,
        MessageType::Nak,
        [0, 0, 0, 0],
    );
    assert_eq!(scene.seen.len(), 2);
    scene.event(0.3, Event::Timer).event(6.0, Event::Timer);
    assert_eq!(scene.seen[2..], ["6: Discover to 255.255.255.255"]);
    assert_eq!(scene.client.refused_by(), Some(SERVER));
    scene.server(6.1, MessageType::Offer, [10, 9, 0, 50]).server(6.2, MessageType::Ack, [10, 9, 0, 50]);
    assert_eq!(scene.client.refused_by(), None, "there is a lease");
}

#[test]
fn a_lease_is_renewed_with_its_server() {
    let mut scene = Scene::new();
    scene.bound().event(500.0, Event::Timer).event(501.0, Event::Timer).server(501.5, MessageType::Ack, [10, 9, 0, 50]);
    scene.check(&["501: Request to 10.9.0.1 from 10.9.0.50", "501.5: hold 10.9.0.50/24 from 10.9.0.1 for 1000 s"]);
    assert_eq!(scene.client.next_deadline(), Some(seconds(1001.0)));
}

#[test]
fn a_server_that_is_gone_is_followed_by_any_and_then_by_the_end() {
    let mut scene = Scene::new();
    scene.bound();
    let mut at = 0.0;
    let mut kinds = Vec::new();
    while scene.client.lease().is_some() {
        at = scene.client.next_deadline().unwrap().as_secs_f64() + 0.000_001;
        assert!(at < 1002.0, "the lease is held too long");
        scene.event(at, Event::Timer);
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
            "Request to 10.9.0.1 from 10.9.0.50",
            "Request to 255.255.255.255 from 10.9.0.50",
            "lose 10.9.0.50/24 from 10.9.0.1 for 1000 s: no DHCP server renewed it",
            "Discover to 255.255.255.255",
        ]
    );
    assert!(at > 1000.9, "the lease is given up too early, at {at} s");
    assert!(scene.seen.len() < 30, "{} messages for one lease", scene.seen.len());
}

#[test]
fn a_refused_renewal_loses_the_lease_at_once() {
    let mut scene = Scene::new();
    scene.bound().event(501.0, Event::Timer).server(501.5, MessageType::Nak, [0, 0, 0, 0]);
    assert_eq!(
        scene.seen[1..],
        [
            "501.5: lose 10.9.0.50/24 from 10.9.0.1 for 1000 s: the DHCP server 10.9.0.1 refuses it",
            "501.5: Discover to 255.255.255.255"
        ]
    );
}

#[test]
fn another_address_replaces_the_old_one() {
    let mut scene = Scene::new();
    scene.bound().event(501.0, Event::Timer).server(501.5, MessageType::Ack, [10, 9, 0, 51]);
    assert_eq!(
        scene.seen[1..],
        [
            "501.5: lose 10.9.0.50/24 from 10.9.0.1 for 1000 s: the DHCP server gives another one",
            "501.5: hold 10.9.0.51/24 from 10.9.0.1 for 1000 s"
        ]
    );
}

#[test]
fn a_link_that_is_back_asks_whether_the_lease_still_holds() {
    let mut scene = Scene::new();
    scene.bound().event(100.0, Event::LinkBack).server(100.5, MessageType::Ack, [10, 9, 0, 50]);
    scene
        .check(&["100: Request to 255.255.255.255 for 10.9.0.50", "100.5: hold 10.9.0.50/24 from 10.9.0.1 for 1000 s"]);
}

#[test]
fn on_another_network_the_lease_is_lost_at_once() {
    let mut scene = Scene::new();
    scene.bound().event(100.0, Event::LinkBack).server(100.5, MessageType::Nak, [0, 0, 0, 0]);
    scene.check(&[
        "100: Request to 255.255.255.255 for 10.9.0.50",
        "100.5: lose 10.9.0.50/24 from 10.9.0.1 for 1000 s: the DHCP server 10.9.0.1 refuses it",
        "100.5: Discover to 255.255.255.255",
    ]);
}

/// As libslirp does, which QEMU's user network is.
#[test]
fn a_refusal_may_name_its_server_in_the_header_alone() {
    for (siaddr, lost) in [(SERVER, true), (Ipv4Addr::UNSPECIFIED, false)] {
        let mut scene = Scene::new();
        scene.bound().event(100.0, Event::LinkBack);
        let refusal = answer(scene.last.as_ref().unwrap(), MessageType::Nak, [255; 4], |message| {
            message.opts_mut().remove(OptionCode::ServerIdentifier);
            message.set_siaddr(siaddr);
        });
        scene.event(100.5, Event::Received(&refusal));
        assert_eq!(scene.client.lease().is_none(), lost, "{siaddr}");
    }
}

/// A server that knows nothing of it has to be silent (RFC 2131 4.3.2), and a switch may swallow the first packets.
#[test]
fn where_nobody_answers_a_link_that_is_back_the_lease_goes_on() {
    for back in [100.0, 495.0, 990.0] {
        let mut scene = Scene::new();
        scene.bound().event(back, Event::LinkBack);
        let mut asked = 1;
        let end = loop {
            let at = scene.client.next_deadline().unwrap().as_secs_f64() + 0.000_001;
            let before = scene.seen.len();
            scene.event(at, Event::Timer);
            if scene.seen[before..].iter().any(|line| !line.ends_with("Request to 255.255.255.255 for 10.9.0.50")) {
                break at;
            }
            asked += scene.seen.len() - before;
        };
        let said = scene.seen.last().unwrap().split_once(": ").unwrap().1;
        match back {
            // T1 as it was.
            100.0 => assert_eq!((asked, said, end.round()), (4, "Request to 10.9.0.1 from 10.9.0.50", 501.0)),
            // T1 went by meanwhile.
            495.0 => assert_eq!((asked, said), (4, "Request to 10.9.0.1 from 10.9.0.50")),
            _ => assert_eq!((said, end.round()), ("Discover to 255.255.255.255", 1001.0), "it has ended"),
        }
    }
}

#[test]
fn a_link_that_comes_back_while_searching_searches_at_once() {
    let mut scene = Scene::new();
    scene.event(0.0, Event::Start).event(0.5, Event::LinkBack);
    scene.check(&["0: Discover to 255.255.255.255", "0.5: Discover to 255.255.255.255"]);
}

#[test]
fn a_message_has_the_form_that_relays_want() {
    let actions = client().handle(Event::Start, Duration::ZERO);
    let [Action::Send { bytes, .. }] = actions.as_slice() else { panic!("one message") };
    assert!(bytes.len() >= 300);
    let message = Message::decode(&mut Decoder::new(bytes)).unwrap();
    assert_eq!(message.opcode(), Opcode::BootRequest);
    assert_eq!(message.chaddr(), MAC);
    assert!(message.flags().broadcast());
    assert_eq!(
        message.opts().get(OptionCode::ClientIdentifier),
        Some(&DhcpOption::ClientIdentifier(vec![1, 2, 0, 0, 0, 0, 7]))
    );
    assert_eq!(message.opts().get(OptionCode::Hostname), Some(&DhcpOption::Hostname("node-1".into())));
}

proptest! {
    #[test]
    fn no_sequence_of_events_keeps_a_lease_beyond_its_time(script in prop::collection::vec((0..400_u64, 0..6_u8), 0..100)) {
        let mut client = client();
        let mut now = Duration::ZERO;
        let mut last: Option<Message> = None;
        let mut asked = Duration::ZERO;
        for (wait, what) in script {
            let next = now + Duration::from_secs(wait);
            // As the loop does: timers are kept on the way.
            let mut steps = 0;
            while let Some(deadline) = client.next_deadline().filter(|deadline| *deadline <= next) {
                steps += 1;
                prop_assert!(steps < 500, "it spins");
                now = now.max(deadline);
                for action in client.handle(Event::Timer, now) {
                    if let Action::Send { bytes, .. } = action {
                        last = Message::decode(&mut Decoder::new(&bytes)).ok();
                        asked = now;
                    }
                }
            }
            now = next;
            let kind = [MessageType::Offer, MessageType::Ack, MessageType::Nak].get(usize::from(what)).copied();
            let bytes = match (&last, kind) {
                (Some(request), Some(kind)) => answer(request, kind, [10, 9, 0, 50], |_| {}),
                _ => Vec::new(),
            };
            let event = match what {
                0..=2 => Event::Received(&bytes),
                3 => Event::LinkBack,
                _ => Event::Start,
            };
            for action in client.handle(event, now) {
                if let Action::Send { bytes, .. } = action {
                    last = Message::decode(&mut Decoder::new(&bytes)).ok();
                    asked = now;
                }
            }
            if client.lease().is_some() {
                prop_assert!(client.next_deadline().is_some_and(|deadline| deadline <= asked + Duration::from_secs(1000)));
            }
        }
    }
}
