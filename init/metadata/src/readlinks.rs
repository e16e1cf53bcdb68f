//! Reads `[network.links]` into [`Link`]s by their names, collecting every problem on the way.
use std::collections::BTreeMap;

use crate::links::{Bond, BondMode, Bridge, DEFAULT_MIIMON, HashPolicy, LacpRate, Link, Route, Vlan};
use crate::linksyntax;
use crate::read::{Fault, Field, Reader, Table, fault};
use crate::selector;
use crate::syntax;

pub(crate) fn links(reader: &mut Reader<'_>, table: &Table<'_>) -> BTreeMap<String, Link> {
    let mut links = BTreeMap::new();
    for (name, field) in table.all() {
        reader.place(&field.path, field.value.span().start);
        if let Err(fault) = linksyntax::link_name(name) {
            reader.field_fault(&field, fault);
            continue;
        }
        if let Some(table) = reader.table(&field) {
            links.insert(name.to_owned(), link(reader, table));
        }
    }
    links
}

fn link(reader: &mut Reader<'_>, mut table: Table<'_>) -> Link {
    let t = &mut table;
    let mac = reader.take_string(t, "mac", selector::mac);
    let bond = reader.take_table(t, "bond").and_then(|table| bond(reader, table));
    let vlan = reader.take_table(t, "vlan").and_then(|table| vlan(reader, table));
    let bridge = reader.take_table(t, "bridge").and_then(|table| bridge(reader, table));
    let link = Link {
        mac,
        bond,
        vlan,
        bridge,
        dhcp4: reader.take_bool(t, "dhcp4").unwrap_or(false),
        dhcp6: reader.take_bool(t, "dhcp6").unwrap_or(false),
        accept_ra: reader.take_bool(t, "accept_ra"),
        addresses: reader.take_strings(t, "addresses", linksyntax::address),
        routes: routes(reader, t),
        // 576: what every IPv4 host must take (RFC 791).
        mtu: number(reader, t, "mtu", 576, 65535),
        metric: number(reader, t, "metric", 0, u32::MAX),
        primary: reader.take_bool(t, "primary").unwrap_or(false),
        optional: reader.take_bool(t, "optional").unwrap_or(false),
    };
    reader.finish(&table);
    link
}

fn number(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &'static str, min: u32, max: u32) -> Option<u32> {
    reader.take_integer(table, key, min.into(), max.into()).and_then(|number| number.try_into().ok())
}

fn routes(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    let Some(field) = reader.take(table, "routes") else { return routes };
    for item in reader.array(&field) {
        let Some(mut table) = reader.table(&item) else { continue };
        let route = Route {
            destination: reader.take_string(&mut table, "destination", linksyntax::destination),
            gateway: reader.take_string(&mut table, "gateway", linksyntax::gateway),
            metric: number(reader, &mut table, "metric", 0, u32::MAX),
        };
        let given = ["destination", "gateway"].iter().any(|key| reader.given(&table.path_of(key)));
        reader.finish(&table);
        if given {
            routes.push(route);
        } else {
            let fix = "write `gateway = \"192.168.7.1\"` for a default route, and `destination` for another";
            reader.field_fault(&item, fault("leads nowhere", fix));
        }
    }
    routes
}

fn bond(reader: &mut Reader<'_>, mut table: Table<'_>) -> Option<Bond> {
    let t = &mut table;
    let members = members(reader, t);
    let (miimon, arp_interval) = (number(reader, t, "miimon", 1, 10_000), number(reader, t, "arp_interval", 1, 10_000));
    let asks = reader.given(&t.path_of("arp_interval"));
    let bond = Bond {
        mode: word(reader, t, "mode", BondMode::ALL, BondMode::word).unwrap_or_default(),
        miimon: miimon.or((!asks).then_some(DEFAULT_MIIMON)),
        arp_interval,
        arp_targets: reader.take_strings(t, "arp_targets", syntax::host_address),
        lacp_rate: word(reader, t, "lacp_rate", LacpRate::ALL, LacpRate::word),
        hash_policy: word(reader, t, "hash_policy", HashPolicy::ALL, HashPolicy::word),
        primary: reader.take_string(t, "primary", |text| Ok(text.to_owned())),
        members: members.unwrap_or_default(),
    };
    reader.finish(&table);
    Some(bond)
}

fn bridge(reader: &mut Reader<'_>, mut table: Table<'_>) -> Option<Bridge> {
    let members = members(reader, &mut table);
    let stp = reader.take_bool(&mut table, "stp").unwrap_or(false);
    reader.finish(&table);
    Some(Bridge { members: members.unwrap_or_default(), stp })
}

fn vlan(reader: &mut Reader<'_>, mut table: Table<'_>) -> Option<Vlan> {
    let over = reader.take_string(&mut table, "over", |text| Ok(text.to_owned()));
    // 0 is no network, 4095 is kept (IEEE 802.1Q, 9.6).
    let id = reader.take_integer(&mut table, "id", 1, 4094).and_then(|id| id.try_into().ok());
    missing(reader, &table, "over", "write `over = \"eth0\"`, the link that carries it");
    missing(reader, &table, "id", "write `id = 42`, its number");
    reader.finish(&table);
    Some(Vlan { over: over?, id: id? })
}

fn members(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Option<Vec<String>> {
    let members = reader.take_strings(table, "members", |text| Ok::<_, Fault>(text.to_owned()));
    missing(reader, table, "members", "write `members = [\"eth0\", \"eth1\"]`");
    if let Some(field) = reader.take(table, "members")
        && is_empty(&field)
    {
        reader.field_fault(&field, fault("names no link", "name at least one"));
    }
    Some(members)
}

fn is_empty(field: &Field<'_>) -> bool {
    field.value.get_ref().as_array().is_some_and(|array| array.is_empty())
}

fn missing(reader: &mut Reader<'_>, table: &Table<'_>, key: &str, fix: &str) {
    let path = table.path_of(key);
    if !reader.given(&path) {
        reader.fault_at(&path, fault("is missing", fix));
    }
}

fn word<T: Copy>(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    key: &'static str,
    all: &[T],
    of: fn(T) -> &'static str,
) -> Option<T> {
    reader.take_string(table, key, |text| {
        all.iter().copied().find(|one| of(*one) == text).ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(|one| of(*one)).collect();
            fault(format!("{text:?} is not known"), format!("use one of {}", known.join(", ")))
        })
    })
}
