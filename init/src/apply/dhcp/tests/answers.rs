//! What a server says: what is taken, what is passed over, what is put right.
use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use proptest::prelude::{any, prop, prop_assert, proptest};

use super::super::message::{Kind, Reply};
use super::{MAC, SERVER, answer};

/// Reads an acknowledgement that a test changed.
fn read(change: impl FnOnce(&mut Message)) -> Option<Reply> {
    let request = Message::new_with_id(7, SERVER, SERVER, SERVER, SERVER, &MAC);
    Reply::parse(&answer(&request, MessageType::Ack, [10, 9, 0, 50], change), 7, MAC)
}

#[test]
fn what_is_no_answer_to_us_is_passed_over() {
    assert!(read(|_| {}).is_some());
    assert!(read(|message| _ = message.set_xid(8)).is_none(), "another exchange");
    assert!(read(|message| _ = message.set_chaddr(&[2, 0, 0, 0, 0, 8])).is_none(), "another machine");
    assert!(read(|message| _ = message.set_chaddr(&[2, 0])).is_none(), "a short address");
    assert!(read(|message| _ = message.set_opcode(Opcode::BootRequest)).is_none(), "a client");
    assert!(read(|message| _ = message.set_yiaddr([255, 255, 255, 255])).is_none(), "no address of a host");
    assert!(read(|message| _ = message.set_yiaddr([127, 0, 0, 1])).is_none(), "the loopback");
    assert!(read(|message| _ = message.opts_mut().remove(OptionCode::AddressLeaseTime)).is_none(), "no lease time");
    assert!(read(|message| _ = message.opts_mut().remove(OptionCode::ServerIdentifier)).is_none(), "no server");
    assert!(read(|message| _ = message.opts_mut().remove(OptionCode::MessageType)).is_none(), "BOOTP");
}

#[test]
fn what_a_server_says_is_checked_before_it_is_used() {
    let lease = read(|message| {
        for option in [
            DhcpOption::DomainNameServer(vec![[10, 9, 0, 2].into(), [0, 0, 0, 0].into(), [10, 9, 0, 3].into()]),
            DhcpOption::DomainName(String::from("Corp.Example evil\nnameserver second.example.")),
            DhcpOption::Hostname(String::from("-bad-")),
            DhcpOption::InterfaceMtu(68),
            DhcpOption::NtpServers(vec![[10, 9, 0, 4].into()]),
        ] {
            message.opts_mut().insert(option);
        }
    })
    .unwrap()
    .lease;
    assert_eq!(lease.dns_servers, [Ipv4Addr::new(10, 9, 0, 2), Ipv4Addr::new(10, 9, 0, 3)]);
    assert_eq!(lease.search, ["corp.example", "evil", "nameserver", "second.example"]);
    assert_eq!(lease.host_name, None);
    assert_eq!(lease.mtu, None);
    assert_eq!(lease.time_servers, [Ipv4Addr::new(10, 9, 0, 4)]);
}

#[test]
fn classless_routes_stand_in_for_the_router() {
    let routes = |list: Vec<(&str, [u8; 4])>| {
        let list = list.into_iter().map(|(to, gateway)| (to.parse().unwrap(), gateway.into())).collect();
        let lease =
            read(|message| _ = message.opts_mut().insert(DhcpOption::ClasslessStaticRoute(list))).unwrap().lease;
        lease.routes.iter().map(|route| format!("{} {:?}", route.destination, route.gateway)).collect::<Vec<_>>()
    };
    assert_eq!(
        routes(vec![("0.0.0.0/0", [10, 9, 0, 9]), ("169.254.169.254/32", [0, 0, 0, 0])]),
        ["0.0.0.0/0 Some(10.9.0.9)", "169.254.169.254/32 None"]
    );
}

#[test]
fn times_out_of_order_are_the_standard_ones() {
    let times = |valid: u32, t1: u32, t2: u32| {
        let lease = read(|message| {
            message.opts_mut().insert(DhcpOption::AddressLeaseTime(valid));
            message.opts_mut().insert(DhcpOption::Renewal(t1));
            message.opts_mut().insert(DhcpOption::Rebinding(t2));
        })
        .unwrap()
        .lease;
        (lease.renew_after.as_secs(), lease.rebind_after.as_secs(), lease.valid_for.as_secs())
    };
    assert_eq!(times(800, 100, 600), (100, 600, 800));
    assert_eq!(times(800, 700, 600), (342, 600, 800));
    assert_eq!(times(800, 0, 900), (400, 700, 800));
    assert_eq!(times(0, 0, 0), (5, 8, 10));
    assert_eq!(times(u32::MAX, 0, 0).2, 3_153_600_000);
}

proptest! {
    #[test]
    fn no_packet_breaks_the_client(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        Reply::parse(&bytes, 7, MAC);
    }

    /// Every option that is read, of any length and contents, in a packet that is sound otherwise.
    #[test]
    fn no_option_breaks_the_client(options in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12)) {
        let request = Message::new_with_id(7, SERVER, SERVER, SERVER, SERVER, &MAC);
        let mut bytes = answer(&request, MessageType::Ack, [10, 9, 0, 50], |_| {});
        let end = bytes.iter().rposition(|byte| *byte == 255).unwrap();
        bytes.truncate(end);
        for (code, value) in options {
            let asked_for = [1, 3, 6, 12, 15, 26, 42, 51, 53, 54, 58, 59, 119, 121];
            let code = if code < 200 { asked_for[usize::from(code) % asked_for.len()] } else { code };
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        }
        bytes.push(255);
        Reply::parse(&bytes, 7, MAC);
    }

    #[test]
    fn no_damaged_answer_breaks_the_client(damage in prop::collection::vec((0..400_usize, any::<u8>()), 0..8), cut in 0..400_usize) {
        let request = Message::new_with_id(7, SERVER, SERVER, SERVER, SERVER, &MAC);
        let mut bytes = answer(&request, MessageType::Ack, [10, 9, 0, 50], |message| {
            message.opts_mut().insert(DhcpOption::DomainName("corp.example".into()));
            message.opts_mut().insert(DhcpOption::ClasslessStaticRoute(vec![("0.0.0.0/0".parse().unwrap(), SERVER)]));
        });
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.max(200));
        if let Some(reply) = Reply::parse(&bytes, 7, MAC) && reply.kind != Kind::Nak {
            prop_assert!(!reply.lease.address.addr().is_unspecified());
            prop_assert!(reply.lease.renew_after <= reply.lease.rebind_after && reply.lease.rebind_after <= reply.lease.valid_for);
        }
    }
}
