//! Turns a kernel uevent datagram into its fields ([`Uevent`]).

/// A device that came, went or changed, as the kernel tells it on its netlink socket (lib/kobject_uevent.c).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uevent {
    /// `add`, `remove`, `change`, …
    pub action: String,
    /// Path below `/sys`.
    pub devpath: String,
    /// `block`, `net`, `pci`, …
    pub subsystem: String,
    /// The alias to load a driver by.
    pub modalias: Option<String>,
    /// Name below `/dev`.
    pub devname: Option<String>,
}

impl Uevent {
    /// Reads a datagram: `add@/devices/…` and then `KEY=value` fields, each ended by a zero byte. `None` for what is not from the
    /// kernel (udev's own messages start with `libudev`) or has no action.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let mut fields = datagram.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        fields.next().filter(|first| first.contains('@'))?;
        let mut event = Self::default();
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                continue;
            };
            match key {
                "ACTION" => event.action = value.to_owned(),
                "DEVPATH" => event.devpath = value.to_owned(),
                "SUBSYSTEM" => event.subsystem = value.to_owned(),
                "MODALIAS" => event.modalias = Some(value.to_owned()),
                "DEVNAME" => event.devname = Some(value.to_owned()),
                _ => {}
            }
        }
        (!event.action.is_empty()).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::Uevent;

    #[test]
    fn a_disk_that_comes() {
        let datagram = b"add@/devices/pci0000:00/0000:00:03.0/virtio1/block/vda\0ACTION=add\0DEVPATH=/devices/pci0000:00/0000:00:03.0/virtio1/block/vda\0SUBSYSTEM=block\0MAJOR=254\0DEVNAME=vda\0SEQNUM=1201\0";
        let event = Uevent::parse(datagram).unwrap();
        assert_eq!((event.action.as_str(), event.subsystem.as_str()), ("add", "block"));
        assert_eq!(event.devname.as_deref(), Some("vda"));
        assert_eq!(event.modalias, None);
    }

    #[test]
    fn a_device_that_wants_a_driver() {
        let datagram = b"add@/devices/x\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d00000002v00001AF4\0";
        assert_eq!(Uevent::parse(datagram).unwrap().modalias.as_deref(), Some("virtio:d00000002v00001AF4"));
    }

    #[test]
    fn what_is_not_the_kernels_is_passed_over() {
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(Uevent::parse(b""), None);
        assert_eq!(Uevent::parse(b"add@/devices/x\0SUBSYSTEM=block\0"), None);
    }

    proptest! {
        #[test]
        fn no_datagram_breaks_it(datagram: Vec<u8>, cut in any::<u8>()) {
            let _ = Uevent::parse(&datagram);
            let mut framed = b"add@/devices/x\0ACTION=".to_vec();
            framed.extend(datagram);
            framed.truncate(usize::from(cut));
            let _ = Uevent::parse(&framed);
        }
    }
}
