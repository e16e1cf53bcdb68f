//! Any bytes as what DHCPv6 servers send, each packet as an answer to the exchange under way: a lease has an end.
#![no_main]
use std::net::Ipv6Addr;
use std::time::Duration;

use kscratch_init::apply::dhcp6::{Action, Client, Event, Identity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mac = [2, 0, 0, 0, 0, 7];
    let Some(identity) = Identity::new("", &mac, "eth0") else { return };
    let known = [&[0, 1, 0, 10][..], &identity.duid].concat();
    let association = identity.iaid.to_be_bytes();
    let (mut client, mut now) = (Client::new(identity, None, 7, 7), Duration::ZERO);
    let mut xid = [0_u8; 3];
    let mut event = |client: &mut Client, event: Event<'_>, now| {
        for action in client.handle(event, now) {
            if let Action::Send(bytes) = action {
                xid.copy_from_slice(&bytes[1..4]);
            }
        }
        xid
    };
    event(&mut client, Event::Start, now);
    // The kind of message, and how many seconds and bytes the packet takes; who is meant is put there.
    let mut rest = bytes;
    while let Some((&[kind, wait, length], behind)) = rest.split_first_chunk::<3>() {
        let (options, behind) = behind.split_at(behind.len().min(usize::from(length)));
        rest = behind;
        now += Duration::from_secs(u64::from(wait));
        let xid = event(&mut client, Event::Timer, now);
        let mut packet = [&[kind][..], &xid, &known, options].concat();
        // Fuzzers find no checksum by chance.
        if let Some(place) = packet.windows(2).position(|pair| pair == [0xab, 0xcd])
            && let Some(place) = packet.get_mut(place..place + 4)
        {
            place.copy_from_slice(&association);
        }
        event(&mut client, Event::Received { bytes: &packet, from: Ipv6Addr::LOCALHOST }, now);
        if client.lease().is_some() {
            assert!(client.next_deadline().is_some());
        }
    }
});
