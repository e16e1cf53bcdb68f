//! Turns what a machine's firmware and network cards say into an [`Identity`] that no other machine has.
use std::fmt;
use std::str::FromStr;

use crate::address::Mac;

/// What firmware says where the vendor wrote nothing of its own. In lower case.
const PLACEHOLDERS: [&str; 17] = [
    "to be filled by o.e.m.",
    "to be filled by oem",
    "not specified",
    "not applicable",
    "not available",
    "default string",
    "system serial number",
    "chassis serial number",
    "serial number",
    "unknown",
    "none",
    "n/a",
    "oem",
    "invalid",
    "0123456789",
    "123456789",
    "1234567890",
];

/// UUIDs that many machines have: none, not set (SMBIOS 3.6, 7.2.1), and the one in the sources of a widespread firmware.
const SHARED: [&str; 3] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
];

/// A UUID as Linux prints that of the SMBIOS tables (`/sys/class/dmi/id/product_uuid`), in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uuid(String);

impl Uuid {
    /// Whether many machines have it.
    pub(crate) fn is_shared(&self) -> bool {
        [self, &self.turned()].iter().any(|uuid| SHARED.contains(&uuid.0.as_str()))
    }

    /// The same bytes in the other order in which the first three groups are written: SMBIOS 2.6 turned them around, and not every
    /// program went along.
    pub(crate) fn turned(&self) -> Uuid {
        let mut bytes: Vec<char> = self.0.chars().collect();
        for (start, end) in [(0, 8), (9, 13), (14, 18)] {
            if let Some(group) = bytes.get_mut(start..end) {
                group.reverse();
                group.chunks_mut(2).for_each(<[char]>::reverse);
            }
        }
        Uuid(bytes.into_iter().collect())
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Uuid {
    type Err = ();

    /// 8, 4, 4, 4 and 12 hex digits with dashes between, in either case.
    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = |part: &str| part.bytes().all(|c| c.is_ascii_hexdigit());
        let lengths = text.split('-').map(str::len);
        if lengths.eq([8, 4, 4, 4, 12]) && text.split('-').all(hex) {
            return Ok(Uuid(text.to_ascii_lowercase()));
        }
        Err(())
    }
}

/// Whether a serial number is one that vendors leave in: empty, a phrase, or one digit over and over.
pub(crate) fn is_placeholder(serial: &str) -> bool {
    let lower = serial.trim().to_ascii_lowercase();
    let mut letters = lower.chars().filter(char::is_ascii_alphanumeric);
    let first = letters.next();
    let same = letters.all(|letter| Some(letter) == first);
    first.is_none() || (same && (first == Some('0') || first == Some('x'))) || PLACEHOLDERS.contains(&lower.as_str())
}

/// Whether a hardware address can be that of one machine's card: not all zeros, and no group's address (IEEE 802, bit I/G).
pub(crate) fn is_of_a_card(mac: Mac) -> bool {
    mac.0 != [0; 6] && mac.0[0] & 1 == 0
}

/// Who a machine is, by its hardware.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Hardware addresses of its network cards.
    pub macs: Vec<Mac>,
    /// Serial number of its SMBIOS tables.
    pub serial: Option<String>,
    /// UUID of its SMBIOS tables.
    pub uuid: Option<Uuid>,
}

impl Identity {
    /// Takes what sysfs says; what vendors leave in, and what is no UUID, counts as nothing.
    pub fn new(macs: impl IntoIterator<Item = Mac>, serial: &str, uuid: &str) -> Self {
        let serial = serial.trim();
        Self {
            macs: macs.into_iter().filter(|mac| is_of_a_card(*mac)).collect(),
            serial: (!is_placeholder(serial)).then(|| serial.to_owned()),
            uuid: uuid.trim().parse().ok().filter(|uuid: &Uuid| !uuid.is_shared()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let macs: Vec<String> = self.macs.iter().map(ToString::to_string).collect();
        let macs = if macs.is_empty() { "none".to_owned() } else { macs.join(" ") };
        let serial = self.serial.as_ref().map_or_else(|| "none".to_owned(), |serial| format!("{serial:?}"));
        let uuid = self.uuid.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        write!(f, "mac {macs}, serial {serial}, uuid {uuid}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Identity, SHARED, Uuid, is_placeholder};
    use crate::address::Mac;

    #[test]
    fn what_vendors_leave_in_is_nobodys() {
        for text in [
            "",
            " \n",
            "0",
            "000-000",
            "0123",
            "Default string",
            "To Be Filled By O.E.M.",
            "Not Specified",
            "xxxx",
            "None",
        ] {
            assert_eq!(is_placeholder(text), text != "0123", "{text:?}");
        }
        assert!(!is_placeholder("CZ1234ABCD") && !is_placeholder("11111"));
    }

    #[test]
    fn an_identity_holds_only_what_is_its_own() {
        let macs = || [[0; 6], [1, 0, 0x5e, 0, 0, 1], [0x52, 0x54, 0, 0, 0, 1]].map(Mac);
        let identity = Identity::new(macs(), " Default String\n", "00000000-0000-0000-0000-000000000000\n");
        assert_eq!(identity.to_string(), "mac 52:54:00:00:00:01, serial none, uuid none");
        let identity = Identity::new([], "AB 1\n", "4C4C4544-0051-3010-8048-B4C04F4A3132\n");
        assert_eq!(identity.to_string(), "mac none, serial \"AB 1\", uuid 4c4c4544-0051-3010-8048-b4c04f4a3132");
        for text in [SHARED[1], SHARED[2], "00020003-0004-0005-0006-000700080009"] {
            assert_eq!(Identity::new([], "", text), Identity::default(), "{text}");
        }
        for text in ["", "4c4c4544", "4c4c4544-0051-3010-8048-b4c04f4a313g", "4c4c4544-0051-3010-8048-b4c04f4a3132-"] {
            assert_eq!(text.parse::<Uuid>(), Err(()), "{text}");
        }
    }

    #[test]
    fn the_other_byte_order_is_known() {
        let uuid: Uuid = "00112233-4455-6677-8899-AABBCCDDEEFF".parse().unwrap();
        assert_eq!(uuid.turned().to_string(), "33221100-5544-7766-8899-aabbccddeeff");
        assert_eq!(uuid.turned().turned(), uuid);
    }
}
