//! Turns the `mac`, `serial` and `uuid` of a rack's entry into a [`Selector`] that says which machine is meant.
use std::fmt;

use crate::address::Mac;
use crate::identity::{Identity, Uuid, is_of_a_card, is_placeholder};
use crate::read::{Fault, Reader, Table, fault};

/// The keys by which an entry tells its machine.
pub(crate) const KEYS: [&str; 3] = ["mac", "serial", "uuid"];

/// How a machine is told: by all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// Hardware address of one of its network cards.
    pub mac: Option<Mac>,
    /// Serial number of its SMBIOS tables.
    pub serial: Option<String>,
    /// UUID of its SMBIOS tables.
    pub uuid: Option<Uuid>,
}

impl Selector {
    /// Takes the keys of an entry.
    pub(crate) fn read(reader: &mut Reader<'_>, entry: &mut Table<'_>) -> Self {
        let [mac_key, serial_key, uuid_key] = KEYS;
        let selector = Self {
            mac: reader.take_string(entry, mac_key, mac),
            serial: reader.take_string(entry, serial_key, serial),
            uuid: reader.take_string(entry, uuid_key, uuid),
        };
        if !KEYS.iter().any(|key| reader.given(&entry.path_of(key))) {
            let fix = "give it a mac, serial or uuid";
            reader.fault_at(entry.path(), fault("nothing says which machine this is", fix));
        }
        selector
    }

    /// What is given, as key and value.
    pub fn given(&self) -> Vec<(&'static str, String)> {
        let [mac, serial, uuid] = KEYS;
        [
            (mac, self.mac.map(|mac| mac.to_string())),
            (serial, self.serial.clone()),
            (uuid, self.uuid.as_ref().map(ToString::to_string)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    /// What is given, each with whether it is so of this machine.
    pub(crate) fn held_against(&self, identity: &Identity) -> Vec<(&'static str, bool)> {
        let so = |key: &str| match key {
            "mac" => self.mac.is_some_and(|mac| identity.macs.contains(&mac)),
            "serial" => self.serial == identity.serial,
            _ => self.uuid == identity.uuid,
        };
        self.given().into_iter().map(|(key, _)| (key, so(key))).collect()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given: Vec<String> = self.given().iter().map(|(key, value)| format!("{key} {value}")).collect();
        f.write_str(&given.join(" and "))
    }
}

pub(crate) fn mac(text: &str) -> Result<Mac, Fault> {
    let fix = "write it like 52:54:00:12:34:56";
    let mac = text.parse().map_err(|()| fault(format!("{text:?} is no hardware address"), fix))?;
    if !is_of_a_card(mac) {
        return Err(fault(format!("{mac} is no network card's address"), "give that of one of the machine's cards"));
    }
    Ok(mac)
}

fn serial(text: &str) -> Result<String, Fault> {
    let text = text.trim();
    if is_placeholder(text) {
        let what = format!("{text:?} is what vendors leave in, and other machines have it too");
        return Err(fault(what, "tell the machine by its mac"));
    }
    Ok(text.to_owned())
}

fn uuid(text: &str) -> Result<Uuid, Fault> {
    let fix = "write what /sys/class/dmi/id/product_uuid of the machine says";
    let uuid: Uuid = text.trim().parse().map_err(|()| fault(format!("{text:?} is no UUID"), fix))?;
    if uuid.is_shared() {
        let what = format!("{uuid} is what vendors leave in, and other machines have it too");
        return Err(fault(what, "tell the machine by its mac"));
    }
    Ok(uuid)
}
