//! What a server says: what is taken, what is passed over, what is put right; and what it is asked.
use std::net::Ipv6Addr;

use dhcproto::v6::{DhcpOption, DhcpOptions, IAAddr, IANA, Message, MessageType, OptionCode, Status, StatusCode};
use dhcproto::{Decodable as _, Decoder};
use proptest::prelude::{any, prop, prop_assert, proptest};

use super::super::message::{Kind, Lease, Reply, Request};
use super::super::sound::sound;
use super::{SERVER, SERVER_ID, address, answer, association, identity};

const XID: u32 = 0x01_02_03;

fn read(bytes: &[u8]) -> Option<Reply> {
    Reply::parse(bytes, SERVER, XID, &identity())
}

/// Reads a reply that gives an address, with these options besides.
fn reply(options: impl IntoIterator<Item = DhcpOption>) -> Option<Reply> {
    let given = association(Status::Success, &[address(0x50)]);
    read(&answer([1, 2, 3], MessageType::Reply, options.into_iter().chain([given])))
}

/// The lease of an address with these times.
fn lease(t1: u32, t2: u32, preferred_life: u32, valid_life: u32) -> Option<Lease> {
    let mut opts = DhcpOptions::new();
    let none = DhcpOptions::new();
    opts.insert(DhcpOption::IAAddr(IAAddr { addr: address(0x50), preferred_life, valid_life, opts: none }));
    let given = DhcpOption::IANA(IANA { id: identity().iaid, t1, t2, opts });
    read(&answer([1, 2, 3], MessageType::Reply, [given])).unwrap().lease(None).cloned()
}

#[test]
fn what_is_no_answer_to_us_is_passed_over() {
    let good = answer([1, 2, 3], MessageType::Reply, [association(Status::Success, &[address(0x50)])]);
    assert!(read(&good).is_some_and(|reply| reply.lease(None).is_some()));
    assert_eq!(Reply::parse(&good, SERVER, XID + 1, &identity()), None, "another exchange");
    let mut other = identity();
    other.duid[9] = 8;
    assert_eq!(Reply::parse(&good, SERVER, XID, &other), None, "another machine");
    let other = super::Identity { iaid: 8, ..identity() };
    assert!(Reply::parse(&good, SERVER, XID, &other).unwrap().lease(None).is_none(), "another link of ours");
    for kind in [MessageType::Solicit, MessageType::Reconfigure, MessageType::RelayRepl] {
        assert_eq!(read(&answer([1, 2, 3], kind, [])), None, "{kind:?}");
    }
    for missing in [OptionCode::ClientId, OptionCode::ServerId] {
        let mut message = Message::decode(&mut Decoder::new(&good)).unwrap();
        message.opts_mut().remove(missing);
        let bytes = dhcproto::Encodable::to_vec(&message).unwrap();
        assert_eq!(read(&bytes), None, "{missing:?}");
    }
    for length in 0..good.len() {
        assert!(read(&good[..length]).is_none_or(|reply| reply.lease(None).is_none()), "cut at {length}");
    }
}

#[test]
fn names_are_taken_where_they_are_sound() {
    let global: Ipv6Addr = "2001:db8::53".parse().unwrap();
    let servers =
        [global, Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, "fe80::53".parse().unwrap(), "ff02::1".parse().unwrap()];
    let mut message = answer([1, 2, 3], MessageType::Reply, [association(Status::Success, &[address(0x50)])]);
    message.extend([0, 23, 0, 80]);
    servers.iter().for_each(|server| message.extend(server.octets()));
    let names = b"\x05Sound\x07example\0\x0cline\nbreak x\0\x01b\0";
    message.extend([0, 24, 0, u8::try_from(names.len()).unwrap()]);
    message.extend(names);
    // The second name ends in the middle of a label, the third is no name of a machine; an address calls a group.
    let group: Ipv6Addr = "ff05::101".parse().unwrap();
    let parts: [(u8, &[u8]); 7] = [
        (3, b"\x04time\x07example\0"),
        (3, b"\x09time\0"),
        (3, b"\x03a b\0"),
        (2, &group.octets()),
        (1, &Ipv6Addr::LOCALHOST.octets()),
        (9, b"what comes later"),
        (1, &global.octets()),
    ];
    let parts = parts.map(|(kind, value)| [&[0, kind, 0, u8::try_from(value.len()).unwrap()], value].concat()).concat();
    message.extend([0, 56, 0, u8::try_from(parts.len()).unwrap()]);
    message.extend(parts);
    let reply = read(&message).unwrap();
    let lease = reply.lease(None).unwrap();
    assert_eq!(lease.time_servers, ["time.example", "2001:db8::53"]);
    assert_eq!(lease.dns_servers, [global]);
    assert_eq!(lease.search, ["sound.example", "b"]);
    assert_eq!((lease.server, lease.server_id.as_slice()), (SERVER, &SERVER_ID[..]));
}

#[test]
fn a_domain_that_is_no_name_ends_the_list_alone() {
    let good = answer([1, 2, 3], MessageType::Reply, [association(Status::Success, &[address(0x50)])]);
    let too_long = [b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4);
    for (list, want) in [
        (b"\x01a\0\x01b\0".as_slice(), &["a", "b"][..]),
        (b"\x01a\0\x09b\0", &["a"]),
        (b"\x01a\0\x01b", &["a"]),
        (b"\x01a\0\xc0\0", &["a"]),
        (b"\x40a\0", &[]),
        (&[&too_long[..], b"\0"].concat(), &[]),
        (b"", &[]),
    ] {
        let option = [&[0, 24], &u16::try_from(list.len()).unwrap().to_be_bytes()[..], list].concat();
        let bytes = [&good[..4], &option, &good[4..]].concat();
        let reply = read(&bytes).unwrap_or_else(|| panic!("{list:?} hides who is answered"));
        assert_eq!(reply.lease(None).unwrap().search, want, "{list:?}");
    }
}

#[test]
fn times_are_put_in_order() {
    let times = |lease: Option<Lease>| {
        lease.map(|lease| {
            [lease.preferred_for, lease.valid_for, lease.renew_after, lease.rebind_after].map(|it| it.as_secs())
        })
    };
    for (t1, t2, preferred, valid, want) in [
        (60, 105, 120, 120, Some([120, 120, 60, 105])),
        (0, 0, 800, 1000, Some([800, 1000, 400, 640])),
        (0, 0, 0, 1000, Some([0, 1000, 500, 800])),
        (100, 0, 800, 1000, Some([800, 1000, 100, 640])),
        (0, 100, 800, 1000, Some([800, 1000, 100, 100])),
        (5000, 0, 800, 1000, Some([800, 1000, 640, 640])),
        (500, 2000, 800, 1000, Some([800, 1000, 500, 1000])),
        (0, 0, 1, 1, Some([1, 10, 5, 8])),
        (1, 2, 3600, 7200, Some([3600, 7200, 5, 8])),
        // Out of order (RFC 8415, 21.4 and 21.6), or over.
        (200, 100, 800, 1000, None),
        (0, 0, 1001, 1000, None),
        (0, 0, 0, 0, None),
    ] {
        assert_eq!(times(lease(t1, t2, preferred, valid)), want, "{t1} {t2} {preferred} {valid}");
    }
    let forever = lease(u32::MAX, u32::MAX, u32::MAX, u32::MAX).unwrap();
    assert_eq!(forever.lifetimes(), (u32::MAX, u32::MAX));
    assert!(forever.renew_after.as_secs() > 90 * 365 * 86_400);
    assert_eq!(lease(0, 0, 120, 300).unwrap().lifetimes(), (120, 300));
}

#[test]
fn addresses_that_cannot_be_ours_are_not() {
    for text in ["::", "::1", "ff02::1", "fe80::9", "::ffff:10.0.0.1"] {
        let given = association(Status::Success, &[text.parse().unwrap()]);
        let reply = read(&answer([1, 2, 3], MessageType::Reply, [given])).unwrap();
        assert!(reply.lease(None).is_none(), "{text}");
    }
    // One with a fault of its own.
    let DhcpOption::IANA(mut one) = association(Status::Success, &[address(0x50)]) else { unreachable!() };
    if let Some(DhcpOption::IAAddr(given)) = one.opts.get_mut(OptionCode::IAAddr) {
        given.opts.insert(DhcpOption::StatusCode(StatusCode { status: Status::NotOnLink, msg: String::new() }));
    }
    let reply = read(&answer([1, 2, 3], MessageType::Reply, [DhcpOption::IANA(one)])).unwrap();
    assert!(reply.lease(None).is_none() && reply.withdraws(address(0x50)));
}

#[test]
fn the_messages_fault_comes_before_the_addresses() {
    let status = |status| DhcpOption::StatusCode(StatusCode { status, msg: "no words of it are read".into() });
    let whole = reply([status(Status::UseMulticast)]).unwrap();
    assert_eq!(whole.status, Status::UseMulticast);
    let inner = association(Status::NoBinding, &[]);
    let bytes = answer([1, 2, 3], MessageType::Reply, [status(Status::Success), inner]);
    assert_eq!(read(&bytes).unwrap().status, Status::NoBinding);
}

/// Each of these makes dhcproto alone panic, or pass over the address behind it.
#[test]
fn options_of_wrong_lengths_hide_nothing() {
    for option in [
        &[0, 13, 0, 0][..],
        &[0, 13, 0, 1, 0],
        &[0, 13, 0, 3, 0, 0, 0xff],
        &[0, 16, 0, 2, 1, 2],
        &[0, 17, 0, 0],
        &[0, 11, 0, 3, 1, 2, 3],
        &[0, 7, 0, 0],
        &[0, 7, 0, 2, 1, 2],
        &[0, 23, 0, 3, 1, 2, 3],
        &[0, 3, 0, 1, 9],
    ] {
        let good = answer([1, 2, 3], MessageType::Reply, [association(Status::Success, &[address(0x50)])]);
        let bytes = [&good[..4], option, &good[4..]].concat();
        assert!(read(&bytes).is_some_and(|reply| reply.lease(None).is_some()), "{option:?}");
    }
}

#[test]
fn a_message_has_what_its_kind_wants() {
    let identity = identity();
    let codes = |kind, server_id: Option<&[u8]>, address| {
        let elapsed = std::time::Duration::from_millis(1234);
        let (identity, host_name) = (&identity, Some("n1"));
        let request = Request { kind, xid: XID, identity, host_name, elapsed, server_id, address };
        let bytes = request.encode();
        assert_eq!(bytes[1..4], [1, 2, 3]);
        let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
        assert_eq!(message.opts().get(OptionCode::ElapsedTime), Some(&DhcpOption::ElapsedTime(123)));
        message.opts().iter().map(|option| u16::from(OptionCode::from(option))).collect::<Vec<_>>()
    };
    // The numbers are those of RFC 8415, 21, and 39 of RFC 4704; what belongs where, of the former's appendix B and the latter's 5.
    assert_eq!(codes(Kind::Solicit, None, None), [1, 3, 6, 8, 14, 39]);
    assert_eq!(codes(Kind::Request, Some(&SERVER_ID), Some(address(1))), [1, 2, 3, 6, 8, 39]);
    assert_eq!(codes(Kind::Renew, Some(&SERVER_ID), Some(address(1))), [1, 2, 3, 6, 8, 39]);
    assert_eq!(codes(Kind::Rebind, None, Some(address(1))), [1, 3, 6, 8, 39]);
    assert_eq!(codes(Kind::Confirm, None, Some(address(1))), [1, 3, 8]);
    assert_eq!(codes(Kind::Decline, Some(&SERVER_ID), Some(address(1))), [1, 2, 3, 8]);
}

#[test]
fn a_machine_tells_its_name() {
    let identity = identity();
    let told = |host_name| {
        let (kind, elapsed) = (Kind::Solicit, std::time::Duration::ZERO);
        let request =
            Request { kind, xid: XID, identity: &identity, host_name, elapsed, server_id: None, address: None };
        let message = Message::decode(&mut Decoder::new(&request.encode())).unwrap();
        match message.opts().get(OptionCode::ClientFqdn) {
            Some(DhcpOption::Unknown(option)) => Some(option.data().to_vec()),
            _ => None,
        }
    };
    // A label alone is a part of a name, and has no end.
    assert_eq!(told(Some("n1")).as_deref(), Some(&b"\x01\x02n1"[..]));
    assert_eq!(told(Some("n1.lab")).as_deref(), Some(&b"\x01\x02n1\x03lab\0"[..]));
    assert_eq!((told(None), told(Some("no name")), told(Some(""))), (None, None, None));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
        if let Some(sound) = sound(&bytes) {
            prop_assert!(sound.len() <= bytes.len());
        }
    }

    #[test]
    fn arbitrary_options_never_panic(options in prop::collection::vec((prop::sample::select(vec![1_u16, 2, 3, 5, 7, 9, 11, 13, 16, 17, 23, 24, 25, 56, 82]), prop::collection::vec(any::<u8>(), 0..60)), 0..20)) {
        let mut bytes = vec![7, 1, 2, 3];
        for (code, value) in options {
            bytes.extend(code.to_be_bytes());
            bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            bytes.extend(value);
        }
        let _ = read(&bytes);
    }
}
