//! Racks: which entry a machine picks out of one file, and the exact words with which a rack, or a machine of it, is refused.
mod merge;
mod schema;

use expect_test::{Expect, expect};
use kscratch_metadata::{Document, Identity, Mac, RoleMetadata, Selected, parse, read, select, select_with_secrets};

const CA: &str = include_str!("../ca.pem");
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
const UUID: &str = "4c4c4544-0051-3010-8048-b4c04f4a3132";

/// Line 1 to 14; what a row adds begins on line 15.
const COMMON: &str = r#"version = 1
role = "node"

[network]
mtu = 1400
dns_servers = ["9.9.9.9"]

[network.static]
address = "192.168.7.9/24"
gateway = "192.168.7.1"

[node]
labels = { "example.com/rack" = "r1", "example.com/row" = "2" }

"#;

const MACHINES: &str = r#"[[machines]]
mac = "52-54-00-00-00-11"
node.name = "n1"
network.static.address = "192.168.7.11/24"

[[machines]]
serial = " ABC 123 "
uuid = "4C4C4544-0051-3010-8048-B4C04F4A3132"

[machines.node]
name = "n2"
labels = { "example.com/rack" = "r2" }

[machines.network]
mtu = 9000
dns_servers = ["192.168.7.1"]
static = { address = "192.168.7.12/24" }

[machines.kubelet]
maxPods = 20
"#;

fn with_mac(last: u8) -> Identity {
    Identity::new([Mac([2, 0, 0, 0, 0, 1]), Mac([0x52, 0x54, 0, 0, 0, last])], "", "")
}

fn identity(serial: &str, uuid: &str) -> Identity {
    Identity::new([], serial, uuid)
}

#[track_caller]
fn refused(body: &str, who: &Identity, want: Expect) {
    match select(&format!("{COMMON}{body}"), who) {
        Ok(selected) => want.assert_eq(&format!("accepted: {selected:?}")),
        Err(errors) => want.assert_eq(&errors.to_string()),
    }
}

/// A whole role file for a single machine.
#[track_caller]
fn alone(text: &str) -> RoleMetadata {
    parse(text).unwrap()
}

#[test]
fn a_machine_is_what_its_entry_makes_of_the_common_part() {
    let rack = format!("{COMMON}{MACHINES}");
    let first = select(&rack, &with_mac(0x11)).unwrap();
    assert_eq!(first.entry.as_deref(), Some("machines[0] of 2, n1, by mac 52:54:00:00:00:11"));
    let own = COMMON.replace("192.168.7.9", "192.168.7.11").replace("[node]\n", "[node]\nname = \"n1\"\n");
    assert_eq!(first.metadata, alone(&own));

    let second = select(&rack, &identity("ABC 123\n", UUID)).unwrap();
    let entry = format!("machines[1] of 2, n2, by serial ABC 123 and uuid {UUID}");
    assert_eq!(second.entry.as_deref(), Some(entry.as_str()));
    // Tables are merged at every depth; arrays and values are the entry's.
    let own = r#"
version = 1
role = "node"
node = { name = "n2", labels = { "example.com/rack" = "r2", "example.com/row" = "2" } }
kubelet = { maxPods = 20 }
[network]
mtu = 9000
dns_servers = ["192.168.7.1"]
static = { address = "192.168.7.12/24", gateway = "192.168.7.1" }
"#;
    assert_eq!(second.metadata, alone(own));
}

#[test]
fn a_file_without_machines_is_one_machines() {
    let selected = select(COMMON, &identity("", "")).unwrap();
    assert_eq!(selected, Selected { metadata: alone(COMMON), entry: None });
    assert_eq!(read(COMMON, None).unwrap(), Document::Machine(Box::new(alone(COMMON))));
}

#[test]
fn a_machine_that_is_in_no_entry_is_told_who_it_is() {
    refused(
        MACHINES,
        &with_mac(0x13),
        expect![
            "role.toml:15:1: machines: none of the 2 entries is this machine (mac 02:00:00:00:00:01 52:54:00:00:00:13, serial none, uuid none); write a [[machines]] that has its mac, serial or uuid"
        ],
    );
    // Everything that an entry gives has to agree.
    refused(
        MACHINES,
        &identity("ABC 124", UUID),
        expect![[
            r#"role.toml:15:1: machines: none of the 2 entries is this machine (mac none, serial "ABC 124", uuid 4c4c4544-0051-3010-8048-b4c04f4a3132); machines[1] has its uuid, but another serial; write a [[machines]] that has its mac, serial or uuid"#
        ]],
    );
    refused(
        "[[machines]]\nuuid = \"44454c4c-5100-1030-8048-b4c04f4a3132\"\n",
        &identity("", UUID),
        expect![
            "role.toml:15:1: machines: none of the 1 entry is this machine (mac none, serial none, uuid 4c4c4544-0051-3010-8048-b4c04f4a3132); the uuid of machines[0] is this machine's with its bytes in the other order; write a [[machines]] that has its mac, serial or uuid"
        ],
    );
}

#[test]
fn a_machine_that_is_in_two_entries_is_told_both() {
    let who = Identity::new([Mac([0x52, 0x54, 0, 0, 0, 0x11])], "ABC 123", UUID);
    refused(
        MACHINES,
        &who,
        expect![
            "role.toml:20:1: machines[1]: both machines[0] (n1), by mac 52:54:00:00:00:11, and machines[1] (n2), by serial ABC 123 and uuid 4c4c4544-0051-3010-8048-b4c04f4a3132, are this machine; remove one of the two"
        ],
    );
}

#[test]
fn selectors_have_to_tell_a_machine() {
    check_whole(
        "version = 1\nrole = \"node\"\n[[machines]]\nmac = \"52:54\"\n[[machines]]\nmac = \"00:00:00:00:00:00\"\n[[machines]]\nserial = \"Default string\"\n\
         [[machines]]\nuuid = \"03000200-0400-0500-0006-000700080009\"\n[[machines]]\nuuid = \"1\"\n[[machines]]\nserial = 7\n[[machines]]\n",
        expect![[r#"
            role.toml:4:7: machines[0].mac: "52:54" is no hardware address; write it like 52:54:00:12:34:56
            role.toml:6:7: machines[1].mac: 00:00:00:00:00:00 is no network card's address; give that of one of the machine's cards
            role.toml:8:10: machines[2].serial: "Default string" is what vendors leave in, and other machines have it too; tell the machine by its mac
            role.toml:10:8: machines[3].uuid: 03000200-0400-0500-0006-000700080009 is what vendors leave in, and other machines have it too; tell the machine by its mac
            role.toml:12:8: machines[4].uuid: "1" is no UUID; write what /sys/class/dmi/id/product_uuid of the machine says
            role.toml:14:10: machines[5].serial: is an integer; give a string in quotes
            role.toml:15:1: machines[6]: nothing says which machine this is; give it a mac, serial or uuid"#]],
    );
    check_whole(
        "version = 1\nrole = \"node\"\nmac = \"52:54:00:00:00:11\"\nmachines = []\n",
        expect![[r#"
            role.toml:3:7: mac: tells one machine, and stands before all of them; move it into a [[machines]]
            role.toml:4:12: machines: lists no machine; write a [[machines]] with mac, serial or uuid"#]],
    );
    check_whole(
        "version = 1\nrole = \"node\"\nmachines = 1\n",
        expect!["role.toml:3:12: machines: is an integer; give an array"],
    );
}

#[track_caller]
fn check_whole(text: &str, want: Expect) {
    want.assert_eq(&select(text, &with_mac(0x11)).unwrap_err().to_string());
    want.assert_eq(&read(text, None).unwrap_err().to_string());
}

#[test]
fn machines_that_are_alike_are_refused_by_all() {
    let body = format!(
        "{MACHINES}\n[[machines]]\nmac = \"52:54:00:00:00:11\"\nnode.name = \"n2\"\nnetwork.static.address = \"192.168.7.11/16\"\n\
         [[machines]]\nuuid = \"{UUID}\"\n[[machines]]\nserial = \"ABC 123\"\n"
    );
    refused(
        &body,
        &with_mac(0x99),
        expect![[r#"
            role.toml:37:7: machines[2].mac: 52:54:00:00:00:11 is the mac of machines[0] (n1) too; give each machine its own
            role.toml:38:13: machines[2].node.name: n2 is the name of machines[1] (n2) too; give each machine its own
            role.toml:39:26: machines[2].network.static.address: 192.168.7.11 is the address of machines[0] (n1) too; give each machine its own
            role.toml:41:8: machines[3].uuid: 4c4c4544-0051-3010-8048-b4c04f4a3132 is the uuid of machines[1] (n2) too; give each machine its own
            role.toml:42:1: machines[4].network.static.address: 192.168.7.9 is the address of machines[3] too; give each machine its own
            role.toml:43:10: machines[4].serial: ABC 123 is the serial of machines[1] (n2) too; give each machine its own"#]],
    );
}

#[test]
fn pod_ranges_of_one_cluster_lie_apart() {
    let machines = "[[machines]]\nserial = \"A\"\nnode.pod_range = \"10.244.8.0/22\"\n[[machines]]\nserial = \"B\"\nnode.pod_range = \"10.244.3.0/24\"\n\
                    [[machines]]\nserial = \"C\"\nnode.pod_range = \"10.244.9.0/24\"\n";
    let cluster = format!("version = 1\nrole = \"node\"\n[cluster]\nendpoint = \"10.0.0.1\"\nca = '''{CA}'''\n");
    let lines = cluster.lines().count();
    let said = select(&format!("{cluster}{machines}"), &identity("A", "")).unwrap_err().to_string();
    let said = said.replace(&format!("role.toml:{}:", lines + 9), "role.toml:+9:");
    expect!["role.toml:+9:18: machines[2].node.pod_range: 10.244.9.0/24 overlaps that of machines[0], 10.244.8.0/22; give each machine its own"]
        .assert_eq(&said);
    // Machines that stand alone never meet.
    select(&format!("version = 1\nrole = \"node\"\n{machines}"), &identity("A", "")).unwrap();
}

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    let body = MACHINES
        .replace("192.168.7.12/24", "10.0.0.12/24")
        .replace("maxPods = 20", "clusterDNS = 1\n[machines.docker]\nmirors = []")
        + "seriel = 1\n[machines.time]\nservers = [\"10.0.0\"]\n";
    refused(
        &body,
        &identity("ABC 123", UUID),
        expect![[r#"
            role.toml:10:11: network.static.gateway: 192.168.7.1 lies outside 10.0.0.0/24, the network of network.static.address; give the address of a router inside 10.0.0.0/24
            role.toml:34:14: machines[1].kubelet.clusterDNS: is set by kscratch; use cluster.dns_address
            role.toml:36:1: machines[1].docker.mirors: there is no such field; did you mean "mirrors"?
            role.toml:37:1: machines[1].docker.seriel: there is no such field; known here: insecure_registries, mirrors, open_files
            role.toml:39:12: machines[1].time.servers[0]: "10.0.0" is neither an IPv4 address nor a DNS name; write it like 192.168.7.10 or server.example.org"#]],
    );
    // Of another machine's entry only what could mistake it for this one.
    select(&format!("{COMMON}{body}"), &with_mac(0x11)).unwrap();
    let typo = "[[machines]]\nmac = \"52:54:00:00:00:11\"\nseriel = \"A\"\nmachines = 1\n";
    refused(
        typo,
        &with_mac(0x11),
        expect![[r#"
            role.toml:17:1: machines[0].seriel: there is no such field; did you mean "serial"?
            role.toml:18:12: machines[0].machines: lists the machines of a rack, and this is to be one machine; give one machine's metadata, or hand the file to the machines of the rack as it is"#]],
    );
    // The builder reads them all, and says once what is wrong for all.
    let whole =
        format!("{COMMON}{MACHINES}").replace("mtu = 1400", "mtu = 1400\nmode = \"x\"").replace("maxPods", "podCIDR");
    expect![[r#"
        role.toml:6:8: network.mode: "x" is no mode; use "routed" or "overlay"
        role.toml:35:11: machines[1].kubelet.podCIDR: is set by kscratch; use node.pod_range"#]]
    .assert_eq(&read(&whole, None).unwrap_err().to_string());
}

#[test]
fn a_role_may_be_the_entries_own() {
    let text =
        "version = 1\n[[machines]]\nserial = \"A\"\nrole = \"master\"\n[[machines]]\nserial = \"B\"\nrole = \"node\"\n";
    assert_eq!(select(text, &identity("A", "")).unwrap().metadata, alone("version = 1\nrole = \"master\"\n"));
    let Document::Rack(entries) = read(text, None).unwrap() else { panic!("no rack") };
    assert_eq!(entries[1].metadata, RoleMetadata::standalone());
    assert_eq!(entries[1].selector.to_string(), "serial B");
}

fn secrets() -> String {
    let mut text =
        String::from("[control_plane.secrets]\nencryption_key = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n");
    for name in ["ca_key", "etcd_ca_key", "front_proxy_ca_key", "service_account_key"] {
        text.push_str(&format!("{name} = '''\n{KEY}'''\n"));
    }
    for name in ["etcd_ca", "front_proxy_ca"] {
        text.push_str(&format!("{name} = '''\n{CA}'''\n"));
    }
    text + "service_account_public_key = '''\n-----BEGIN PUBLIC KEY-----\nMAMCAQA=\n-----END PUBLIC KEY-----\n'''\n"
}

#[test]
fn a_rack_holds_no_masters_secrets() {
    refused(
        &format!(
            "{MACHINES}\n[[machines]]\nserial = \"M\"\nrole = \"master\"\n{}",
            secrets().replace("[", "[machines.")
        ),
        &with_mac(0x11),
        expect![
            "role.toml:39:1: machines[2].control_plane.secrets: is for every machine of the rack to read; give the master a role.toml of its own (kscratch-image cluster metadata), or put the table into the secrets.toml on its own ESP"
        ],
    );
    refused(
        &format!("[control_plane]\nsecrets = 1\n{MACHINES}"),
        &with_mac(0x11),
        expect![
            "role.toml:16:11: control_plane.secrets: is for every machine of the rack to read; give the master a role.toml of its own (kscratch-image cluster metadata), or put the table into the secrets.toml on its own ESP"
        ],
    );
    refused(
        &format!("{MACHINES}\n# {}", KEY.lines().next().unwrap()),
        &with_mac(0x11),
        expect![
            "role.toml:36:14: a private key is for every machine of the rack to read; take the key out: secrets of one machine go into a file that it alone reads"
        ],
    );
}

#[test]
fn a_master_may_have_its_role_of_the_rack_and_its_secrets_of_its_own() {
    let rack = format!(
        "version = 1\nrole = \"node\"\n[cluster]\nendpoint = \"10.0.0.1\"\nca = '''{CA}'''\n[[machines]]\nserial = \"M\"\nrole = \"master\"\n\
         [[machines]]\nserial = \"N\"\n"
    );
    let (master, node) = (identity("M", ""), identity("N", ""));
    let selected = select_with_secrets(&rack, &secrets(), &master).unwrap();
    assert!(selected.metadata.control_plane.unwrap().secrets.is_some());
    select(&rack, &node).unwrap();
    // A node that is given a cluster's keys says so.
    let error = select_with_secrets(&rack, &secrets(), &node).unwrap_err().to_string();
    assert!(error.contains("control_plane: is for masters only"), "{error}");
    let error = select(&rack, &master).unwrap_err().to_string();
    let fix =
        "give this master a role.toml of its own, or put [control_plane.secrets] into the secrets.toml on its own ESP";
    assert!(error.starts_with("role.toml:5:6: cluster.ca: is given, but not") && error.ends_with(fix), "{error}");
    // Its disk is stamped with both; one entry takes the secrets, and the other does without.
    let Document::Rack(entries) = read(&rack, Some(&secrets())).unwrap() else { panic!("no rack") };
    assert!(entries[0].metadata.control_plane.as_ref().unwrap().secrets.is_some());
    assert!(entries[1].metadata.control_plane.is_none());
    assert_eq!(read(&rack, None).unwrap_err().to_string(), error);
    let nodes = rack.replace("role = \"master\"\n", "");
    let error = read(&nodes, Some(&secrets())).unwrap_err().to_string();
    assert!(error.contains("control_plane: is for masters only"), "secrets that no machine takes: {error}");
    let token = "[join]\ntoken = \"abcdef.0123456789abcdef\"\n";
    let selected = select_with_secrets(&nodes, token, &node).unwrap();
    assert!(selected.metadata.join.token.is_some());
}

#[test]
fn links_are_laid_over_name_by_name() {
    let rack = "version = 1\nrole = \"node\"\n[network.links.eth0]\n[network.links.eth1]\n[network.links.bond0]\nbond = { members = [\"eth0\", \"eth1\"], mode = \"active-backup\" }\n\
        [[machines]]\nserial = \"A\"\nnetwork.links.bond0.addresses = [\"192.168.7.21/24\"]\n\
        [[machines]]\nserial = \"B\"\nnetwork.links.bond0.dhcp4 = true\nnetwork.links.eth1.mac = \"52:54:00:00:00:02\"\n";
    let links = |serial| select(rack, &identity(serial, "")).unwrap().metadata.network.links;
    let (first, second) = (links("A"), links("B"));
    assert_eq!(first["bond0"].bond, second["bond0"].bond);
    assert_eq!((first["bond0"].addresses.len(), first["bond0"].dhcp4), (1, false));
    assert!(second["bond0"].dhcp4 && second["eth1"].mac.is_some() && second["bond0"].addresses.is_empty());
    let twice = rack.replace("bond0.dhcp4 = true", "bond0.addresses = [\"192.168.7.21/24\"]");
    let error = select(&twice, &identity("A", "")).unwrap_err().to_string();
    assert!(
        error.contains("machines[1].network.links.bond0.addresses: 192.168.7.21 is the address of machines[0] too"),
        "{error}"
    );
}
