//! A [`Switch`] decides where a frame goes: it learns behind which port an address is, and floods what it does not know.
//!
//! IEEE 802.1D-2004, 7.7 to 7.9 (forwarding, learning, the filtering database), without ageing: a port that loses its machine is forgotten.
use std::collections::BTreeMap;

/// Length of destination, source and type (IEEE 802.3, 3.1.1); what is shorter is no frame.
const HEADER: usize = 14;
/// How many addresses are known at once. A guest that invents more makes the switch flood, not grow.
const MOST: usize = 4096;

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To nobody: it is no frame, or its destination is behind the port that it came from.
    Nowhere,
    /// Through one port.
    Port(usize),
    /// Through every port but the one that it came from.
    Flood,
}

/// The addresses that were seen, and the port of each.
#[derive(Debug, Default)]
pub struct Switch {
    ports: BTreeMap<[u8; 6], usize>,
}

impl Switch {
    /// Learns from a frame that came in through port `from` and says where it goes.
    pub fn forward(&mut self, from: usize, frame: &[u8]) -> Way {
        if frame.len() < HEADER {
            return Way::Nowhere;
        }
        let address = |at: usize| -> [u8; 6] { std::array::from_fn(|index| frame[at + index]) };
        let (to, source) = (address(0), address(6));
        if !group(source) {
            if self.ports.len() >= MOST && !self.ports.contains_key(&source) {
                self.ports.clear();
            }
            // The newest place wins: an address may move, as that of a machine that was started anew.
            self.ports.insert(source, from);
        }
        match self.ports.get(&to) {
            Some(port) if !group(to) && *port == from => Way::Nowhere,
            Some(port) if !group(to) => Way::Port(*port),
            _ => Way::Flood,
        }
    }

    /// Forgets what is behind a port.
    pub fn forget(&mut self, port: usize) {
        self.ports.retain(|_, known| *known != port);
    }
}

/// Whether an address is a group's: the first bit on the wire (IEEE 802-2014, 8.2).
fn group(address: [u8; 6]) -> bool {
    address[0] & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const ALL: [u8; 6] = [0xff; 6];

    fn frame(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
        [&to[..], &from, &[8, 0]].concat()
    }

    #[test]
    fn unknown_and_group_addresses_are_flooded_known_ones_are_not() {
        let mut switch = Switch::default();
        let steps = [
            (0, frame(B, A), Way::Flood),
            (1, frame(A, B), Way::Port(0)),
            (0, frame(B, A), Way::Port(1)),
            (0, frame(ALL, A), Way::Flood),
            (2, frame(A, B), Way::Port(0)),
            (0, frame(B, A), Way::Port(2)),
            (0, frame(A, A), Way::Nowhere),
            (0, frame(B, A)[..13].to_vec(), Way::Nowhere),
            (1, frame(ALL, ALL), Way::Flood),
            (1, vec![], Way::Nowhere),
        ];
        for (step, (from, frame, want)) in steps.into_iter().enumerate() {
            assert_eq!(switch.forward(from, &frame), want, "step {step}");
        }
        switch.forget(2);
        assert_eq!(switch.forward(0, &frame(B, A)), Way::Flood);
    }

    #[test]
    fn invented_addresses_do_not_make_it_grow() {
        let mut switch = Switch::default();
        for number in 0..3 * u32::try_from(MOST).unwrap() {
            let [a, b, c, d] = number.to_be_bytes();
            switch.forward(0, &frame(B, [2, 0, a, b, c, d]));
        }
        assert!(switch.ports.len() <= MOST);
    }

    proptest! {
        #[test]
        fn a_frame_never_goes_back(frames in vec((0_usize..4, vec(0_u8..4, 0..20)), 0..200), odd in vec(any::<u8>(), 0..64)) {
            let mut switch = Switch::default();
            switch.forward(0, &odd);
            for (from, frame) in frames {
                assert!(switch.forward(from, &frame) != Way::Port(from));
            }
        }
    }
}
