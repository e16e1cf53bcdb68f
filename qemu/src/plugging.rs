//! Puts parts into a running machine and pulls them out of it.
use serde_json::json;

use crate::arguments;
use crate::error::Error;
use crate::hardware::CardModel;
use crate::machine::Card;
use crate::vm::Vm;

impl Vm {
    /// Plugs a card into the running machine's slot ([`crate::Machine::card_slot`]), under a name that no card had before.
    ///
    /// # Errors
    /// There is no slot, it is taken, or the machine has ended.
    pub fn plug_card(&mut self, name: &str, card: &Card) -> Result<(), Error> {
        let addr = json!({ "type": "unix", "path": card.plug.to_string_lossy() });
        let netdev = format!("{name}-link");
        self.execute("netdev_add", json!({ "type": "stream", "id": netdev, "server": false, "addr": addr }))?;
        let (driver, mac) = (CardModel::Virtio.device(), arguments::colons(card.mac));
        let slot = arguments::CARD_SLOT;
        // Without `romfile` QEMU would look for a network boot ROM.
        let card = json!({ "driver": driver, "id": name, "bus": slot, "netdev": netdev, "mac": mac, "romfile": "" });
        self.execute("device_add", card).map(drop)
    }

    /// Pulls that card out again; the slot is free at the event `DEVICE_DELETED`.
    ///
    /// # Errors
    /// There is no such card, or the machine has ended.
    pub fn pull_card(&mut self, name: &str) -> Result<(), Error> {
        self.execute("device_del", json!({ "id": name })).map(drop)
    }

    /// Pulls a USB or SCSI disk, counted from 0, out of the running machine.
    ///
    /// # Errors
    /// There is no such disk, it cannot be pulled, or the machine has ended.
    pub fn pull_disk(&mut self, index: usize) -> Result<(), Error> {
        self.execute("device_del", json!({ "id": arguments::disk_device(index) })).map(drop)
    }
}
