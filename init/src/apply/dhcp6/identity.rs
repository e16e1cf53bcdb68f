//! Turns what firmware and a link say of the machine into the numbers that DHCPv6 servers know it by (RFC 8415, 11 and 12).

/// DUID-LL, of a hardware address (RFC 8415, 11.4), and DUID-UUID (RFC 6355).
const LINK_LAYER: [u8; 2] = [0, 3];
const UUID: [u8; 2] = [0, 4];
/// Hardware type of Ethernet (RFC 8415, 11.4; IANA's ARP parameters).
const ETHERNET: [u8; 2] = [0, 1];

/// Who asks: the machine, and which of its links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// DHCP unique identifier: of the machine.
    pub duid: Vec<u8>,
    /// Identity association identifier: of the link.
    pub iaid: u32,
}

impl Identity {
    /// Of a link with a hardware address. `firmware` is the text of `/sys/class/dmi/id/product_uuid`.
    ///
    /// The machine is its UUID: that is the same at every boot, before there is a disk, with another card, and in the network boot that
    /// iPXE does. What is kept on state would not be, and the kinds with a time in them want a clock. Without a UUID it is the link's
    /// Ethernet address, as with DHCPv4; `None` where there is neither.
    #[must_use]
    pub fn new(firmware: &str, mac: &[u8], link: &str) -> Option<Self> {
        let ethernet = (mac.len() == 6).then(|| [&LINK_LAYER[..], &ETHERNET, mac].concat());
        let duid = uuid(firmware).map(|uuid| [&UUID[..], &uuid].concat()).or(ethernet)?;
        // Both: VLANs of a card have its address, and machines of one make may have one UUID.
        let mut iaid = crc32fast::Hasher::new();
        iaid.update(mac);
        iaid.update(link.as_bytes());
        Some(Self { duid, iaid: iaid.finalize() })
    }
}

/// A UUID's bytes in its text's order (RFC 9562, 4). `None` for text that is none, and for those that firmware has where nobody set one (DSP0134,
/// 7.2.1).
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|one| *one != '-').collect();
    let sound = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = sound.then(|| u128::from_str_radix(&digits, 16).ok())??;
    (number != 0 && number != u128::MAX).then(|| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::Identity;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 7];

    fn duid(firmware: &str, mac: &[u8]) -> Option<String> {
        let identity = Identity::new(firmware, mac, "eth0")?;
        Some(identity.duid.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    #[test]
    fn the_machine_is_its_uuid_or_its_card() {
        let uuid = Some("00044c4c4544005130108048b4c04f4a3132".to_owned());
        assert_eq!(duid("4c4c4544-0051-3010-8048-b4c04f4a3132\n", &MAC), uuid);
        assert_eq!(duid("4C4C4544-0051-3010-8048-B4C04F4A3132", &[]), uuid);
        let card = Some("00030001525400000007".to_owned());
        for none in [
            "",
            "Not Settable",
            "00000000-0000-0000-0000-000000000000",
            &"f".repeat(32),
            &format!("+{}", "4".repeat(31)),
            "é",
        ] {
            assert_eq!(duid(none, &MAC), card, "{none}");
            assert_eq!(duid(none, &[]), None, "{none}");
        }
    }

    #[test]
    fn links_are_told_apart() {
        let iaid = |mac: &[u8], link| Identity::new("4c4c4544-0051-3010-8048-b4c04f4a3132", mac, link).unwrap().iaid;
        assert_eq!(iaid(&MAC, "eth0"), iaid(&MAC, "eth0"));
        assert_ne!(iaid(&MAC, "eth0.5"), iaid(&MAC, "eth0.6"));
        assert_ne!(iaid(&MAC, "eth0"), iaid(&[0x52, 0x54, 0, 0, 0, 8], "eth0"));
    }
}
