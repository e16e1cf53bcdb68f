//! Arbitrary racks: an entry is what the merged file would be, and nothing that is read ends the program.
use kscratch_metadata::{parse, read, select, select_with_secrets};
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

use crate::{COMMON, MACHINES, UUID, identity, with_mac};

/// The rule of the merge, written a second time over plain values.
fn merged(common: toml::Table, own: toml::Table) -> toml::Table {
    let mut all = common;
    for (key, value) in own {
        let value = match (all.remove(&key), value) {
            (Some(toml::Value::Table(common)), toml::Value::Table(own)) => toml::Value::Table(merged(common, own)),
            (_, value) => value,
        };
        all.insert(key, value);
    }
    all
}

/// Lines that may stand in a common part, in an entry, in both or in neither.
const LINES: [&str; 12] = [
    "role = \"node\"",
    "role = \"master\"",
    "node.name = \"n1\"",
    "node.labels.a = \"1\"",
    "node.labels.b = \"2\"",
    "node.taints = [\"a:NoExecute\"]",
    "network.mtu = 1400",
    "network.static.address = \"10.1.0.2/16\"",
    "network.static.gateway = \"10.1.0.1\"",
    "docker.mirrors = [\"https://a.example\"]",
    "kubelet.evictionHard.\"memory.available\" = \"1\"",
    "kubelet.evictionHard.\"nodefs.available\" = \"2\"",
];

fn part() -> impl Strategy<Value = String> {
    let chosen = any::<[Option<bool>; 12]>();
    chosen.prop_map(|chosen| {
        let mut seen = Vec::new();
        let mut text = String::new();
        for (line, chosen) in LINES.iter().zip(chosen) {
            let key = line.split(" = ").next().unwrap();
            // Half of the second values differ from those of the common part.
            if let (Some(other), false) = (chosen, seen.contains(&key)) {
                seen.push(key);
                text += &if other { line.replace('1', "3") } else { (*line).to_owned() };
                text += "\n";
            }
        }
        text
    })
}

proptest! {
    #[test]
    fn an_entry_is_what_the_merged_file_is(common in part(), own in part(), other in part()) {
        let rack = format!("version = 1\n{common}[[machines]]\nserial = \"A\"\n{own}[[machines]]\nserial = \"B\"\n{other}");
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let by_hand = merged(table(&format!("version = 1\n{common}")), table(&own));
        let by_hand = parse(&toml::to_string(&by_hand).unwrap());
        match select(&rack, &identity("A", "")) {
            Ok(selected) => prop_assert_eq!(Some(selected.metadata), by_hand.ok()),
            Err(errors) => {
                let alike = errors.problems().iter().any(|problem| problem.fix == "give each machine its own");
                assert!(alike || by_hand.is_err(), "{errors}\n{rack}");
            }
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), secrets in any::<String>(), serial in any::<String>()) {
        let who = identity(&serial, UUID);
        let _ = select_with_secrets(&text, &secrets, &who);
        let _ = read(&text, Some(&secrets));
    }

    #[test]
    fn a_damaged_rack_never_panics(at in any::<proptest::sample::Index>(), with in any::<char>(), cut in any::<bool>()) {
        let mut chars: Vec<char> = format!("{COMMON}{MACHINES}").chars().collect();
        let at = at.index(chars.len());
        if cut { chars.truncate(at) } else { chars[at] = with }
        let text: String = chars.into_iter().collect();
        let _ = select(&text, &with_mac(0x11));
        let _ = read(&text, None);
    }

    #[test]
    fn arbitrary_selectors_never_panic(value in "\\PC{0,20}") {
        let quoted = toml::Value::String(value.clone()).to_string();
        let text = format!("version = 1\nrole = \"node\"\n[[machines]]\nmac = {quoted}\n[[machines]]\nserial = {quoted}\n[machines.node]\n\
            name = {quoted}\npod_range = {quoted}\n[[machines]]\nuuid = {quoted}\nnetwork.static.address = {quoted}\n{quoted} = {quoted}\n");
        let _ = select(&text, &identity(&value, &value));
        let alone = format!("version = 1\nrole = \"node\"\n[[machines]]\nserial = {quoted}\n");
        // A serial number is either refused in the file, or tells its machine.
        let who = identity(&value, "");
        prop_assert_eq!(select(&alone, &who).is_ok(), who.serial.is_some());
    }
}
