//! Turns an address and who has it into the frame that tells neighbours so: an ARP announcement.
use std::net::Ipv4Addr;

/// Length of the frame: Ethernet's header, and ARP's packet for Ethernet and IPv4.
pub const LENGTH: usize = 14 + 28;

/// An announcement (RFC 5227, section 2.3): a request whose sender and target address are both the one announced. Neighbours that know the address
/// from somebody else learn it anew by any ARP packet about it (RFC 826, "Packet Reception"); requests are what all of them heed.
pub fn announcement(mac: [u8; 6], address: Ipv4Addr) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    let fields = [
        // Ethernet: to all, from this card, ETHERTYPE 0x0806.
        [0xff; 6].as_slice(),
        &mac,
        &[0x08, 0x06],
        // ar$hrd Ethernet, ar$pro IPv4, ar$hln, ar$pln, ar$op REQUEST.
        &[0, 1],
        &[0x08, 0x00],
        &[6],
        &[4],
        &[0, 1],
        // ar$sha, ar$spa, ar$tha (which a request does not know: zeros), ar$tpa.
        &mac,
        &address.octets(),
        &[0; 6],
        &address.octets(),
    ];
    for (place, byte) in frame.iter_mut().zip(fields.into_iter().flatten()) {
        *place = *byte;
    }
    frame
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::announcement;

    #[test]
    fn every_field_is_where_rfc_826_has_it() {
        let mac = [0x52, 0x54, 0, 0x6b, 0x73, 0x0a];
        let frame = announcement(mac, Ipv4Addr::new(192, 168, 7, 5));
        let fields: [(&str, std::ops::Range<usize>, &[u8]); 11] = [
            ("to", 0..6, &[0xff; 6]),
            ("from", 6..12, &mac),
            ("type", 12..14, &[0x08, 0x06]),
            ("ar$hrd", 14..16, &[0, 1]),
            ("ar$pro", 16..18, &[0x08, 0]),
            ("ar$hln, ar$pln", 18..20, &[6, 4]),
            ("ar$op", 20..22, &[0, 1]),
            ("ar$sha", 22..28, &mac),
            ("ar$spa", 28..32, &[192, 168, 7, 5]),
            ("ar$tha", 32..38, &[0; 6]),
            ("ar$tpa", 38..42, &[192, 168, 7, 5]),
        ];
        for (name, place, want) in fields {
            assert_eq!(&frame[place], want, "{name}");
        }
    }
}
