//! Turns the winning source's text into this machine's metadata: of a rack's text, the entry that the machine's hardware tells.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use kscratch_metadata::{Identity, Mac, Selected, select, select_with_secrets};

use super::Text;
use crate::facts::Link;

/// Where firmware's word is in sysfs (Linux, Documentation/ABI/testing/sysfs-firmware-dmi-tables; drivers/firmware/dmi-id.c).
const DMI: &str = "sys/class/dmi/id";

/// Who the machine is. Firmware that says nothing, or cannot be asked, leaves the cards' addresses.
#[must_use]
pub fn identity(root: &Path, links: &BTreeMap<String, Link>) -> Identity {
    let said = |name: &str| fs::read(root.join(DMI).join(name)).unwrap_or_default();
    let said = |name: &str| String::from_utf8_lossy(&said(name)).into_owned();
    let macs = links.values().map(|link| Mac(link.mac));
    Identity::new(macs, &said("product_serial"), &said("product_uuid"))
}

/// Reads the text as this machine.
///
/// # Errors
/// What is wrong with it; a rack of which not exactly one entry is this machine.
pub fn read(text: &Text, identity: &Identity) -> Result<Selected> {
    let selected = match &text.secrets {
        Some(secrets) => select_with_secrets(&text.role, secrets, identity),
        None => select(&text.role, identity),
    };
    Ok(selected.map_err(|errors| errors.named(text.place.clone(), text.place.replace("role", "secrets")))?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::{Text, identity, read};
    use crate::facts::Link;

    const RACK: &str = "version = 1\nrole = \"node\"\n[[machines]]\nmac = \"52:54:00:00:00:11\"\nnode.name = \"n1\"\n\
                        [[machines]]\nserial = \"ABC 123\"\nuuid = \"4C4C4544-0051-3010-8048-B4C04F4A3132\"\nnode.name = \"n2\"\n";

    fn links(last: u8) -> BTreeMap<String, Link> {
        let link = Link { mac: [0x52, 0x54, 0, 0, 0, last], mtu: 1500, addresses: Vec::new(), default_route: false };
        BTreeMap::from([("eth0".to_owned(), link)])
    }

    fn text(secrets: Option<&str>) -> Text {
        let place = "/role.toml on /dev/sdb".to_owned();
        Text { place, role: RACK.to_owned(), secrets: secrets.map(str::to_owned) }
    }

    #[test]
    fn firmware_and_links_tell_the_machine() {
        let root = tempfile::tempdir().unwrap();
        let nobody = identity(root.path(), &BTreeMap::new());
        assert_eq!(nobody.to_string(), "mac none, serial none, uuid none");
        let dmi = root.path().join("sys/class/dmi/id");
        fs::create_dir_all(&dmi).unwrap();
        fs::write(dmi.join("product_serial"), "ABC 123  \n").unwrap();
        fs::write(dmi.join("product_uuid"), "4c4c4544-0051-3010-8048-b4c04f4a3132\n").unwrap();
        let second = read(&text(None), &identity(root.path(), &links(0x99))).unwrap();
        let entry = "machines[1] of 2, n2, by serial ABC 123 and uuid 4c4c4544-0051-3010-8048-b4c04f4a3132";
        assert_eq!((second.entry.as_deref(), second.metadata.node.name.as_deref()), (Some(entry), Some("n2")));
        fs::write(dmi.join("product_serial"), b"\xFF\n").unwrap();
        let first = read(&text(Some("[join]\n")), &identity(root.path(), &links(0x11))).unwrap();
        assert_eq!(first.entry.as_deref(), Some("machines[0] of 2, n1, by mac 52:54:00:00:00:11"));
    }

    #[test]
    fn errors_name_the_place() {
        let root = tempfile::tempdir().unwrap();
        let error = format!("{:#}", read(&text(None), &identity(root.path(), &links(0x99))).unwrap_err());
        let told =
            "/role.toml on /dev/sdb:3:1: machines: none of the 2 entries is this machine (mac 52:54:00:00:00:99,";
        assert!(error.starts_with(told), "{error}");
        let secrets = text(Some("[node]\nname = \"x\"\n"));
        let error = format!("{:#}", read(&secrets, &identity(root.path(), &links(0x11))).unwrap_err());
        assert!(error.starts_with("/secrets.toml on /dev/sdb:1:1: node: is no secret"), "{error}");
    }
}
