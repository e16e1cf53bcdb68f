//! Checks the rules that hold for a rack as a whole: no two machines alike, and nothing in it that only masters may know.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::rack::{Member, Rack};
use crate::read::{Reader, fault, quoted};
use crate::selector;

/// Reports every rule that is broken.
pub(crate) fn check(reader: &mut Reader<'_>, rack: &Rack<'_>, text: &str) {
    for key in selector::KEYS {
        if let Some(value) = rack.common.get(key) {
            reader.place(key, value.span().start);
            reader.fault_at(
                key,
                fault("tells one machine, and stands before all of them", "move it into a [[machines]]"),
            );
        }
    }
    no_masters_secrets(reader, rack, text);
    unlike(reader, rack);
    ranges_apart(reader, rack);
}

const SECRETS: [&str; 2] = ["control_plane", "secrets"];

/// R7: whoever gets hold of the file would own the cluster.
fn no_masters_secrets(reader: &mut Reader<'_>, rack: &Rack<'_>, text: &str) {
    let all = || {
        fault(
            "is for every machine of the rack to read",
            "give the master a role.toml of its own (kscratch-image cluster metadata), or put the table into the secrets.toml on its own ESP",
        )
    };
    let tables = rack.members.iter().map(|member| (format!("{}.", member.path), member.own));
    let tables = std::iter::once((String::new(), &rack.common)).chain(tables);
    let mut found = false;
    for (path, table) in tables {
        if let Some(value) = value_at(table, &SECRETS) {
            let path = format!("{path}{}", SECRETS.join("."));
            reader.place(&path, value.span().start);
            reader.fault_at(&path, all());
            found = true;
        }
    }
    // Even in a comment, and whatever the field.
    if let (false, Some(at)) = (found, text.find("PRIVATE KEY-----")) {
        let fix = "take the key out: secrets of one machine go into a file that it alone reads";
        reader.report(at, "", fault("a private key is for every machine of the rack to read", fix));
    }
}

/// No two machines have the same name, address, or thing to tell them by.
fn unlike(reader: &mut Reader<'_>, rack: &Rack<'_>) {
    let mut seen: BTreeMap<(&str, String), &Member<'_>> = BTreeMap::new();
    for member in &rack.members {
        let mut marks: Vec<(&str, Vec<&str>, String)> = Vec::new();
        for (key, value) in member.selector.given() {
            marks.push((key, vec![key], value));
        }
        if let Some(name) = text_at(rack, member, &NAME) {
            marks.push(("name", NAME.to_vec(), name.to_owned()));
        }
        marks.extend(addresses(rack, member).into_iter().map(|(path, address)| ("address", path, address.to_string())));
        for (what, path, value) in marks {
            match seen.get(&(what, value.clone())) {
                // One machine's own links are its own reading's to hold against each other.
                Some(other) if std::ptr::eq(*other, member) => {}
                Some(other) => {
                    let said = format!("{} is the {what} of {} too", value.escape_debug(), rack.called(other));
                    report(reader, member, &path, &said, "give each machine its own");
                }
                None => drop(seen.insert((what, value), member)),
            }
        }
    }
}

const NAME: [&str; 2] = ["node", "name"];
const ADDRESS: [&str; 3] = ["network", "static", "address"];
const LINKS: [&str; 2] = ["network", "links"];
const RANGE: [&str; 2] = ["node", "pod_range"];

/// The pods of one cluster's machines have addresses of their own. Machines that stand alone may have the same.
fn ranges_apart(reader: &mut Reader<'_>, rack: &Rack<'_>) {
    let mut ranges: Vec<(Ipv4Net, usize, &Member<'_>)> = Vec::new();
    for (index, member) in rack.members.iter().enumerate() {
        let range = text_at(rack, member, &RANGE).and_then(|text| text.parse().ok());
        let in_cluster = [member.own, &rack.common].iter().any(|table| table.contains_key("cluster"));
        ranges.extend(range.filter(|_| in_cluster).map(|range: Ipv4Net| (range.trunc(), index, member)));
    }
    // Ranges overlap only where one holds the other: in this order, some range overlaps the next one if any two do.
    ranges.sort_by_key(|(range, index, _)| (range.network(), range.prefix_len(), *index));
    for pair in ranges.windows(2) {
        let [(one, at, first), (other, later, second)] = pair else { continue };
        if one.contains(other) {
            let (mine, theirs, member, with) =
                if at < later { (other, one, second, first) } else { (one, other, first, second) };
            let said = format!("{mine} overlaps that of {}, {theirs}", rack.called(with));
            report(reader, member, &RANGE, &said, "give each machine its own");
        }
    }
}

/// Reports at an entry's own field, or at the entry where the field is the common part's.
fn report(reader: &mut Reader<'_>, member: &Member<'_>, path: &[&str], what: &str, fix: &str) {
    let keys: Vec<String> = path.iter().map(|key| quoted(key)).collect();
    let field = format!("{}.{}", member.path, keys.join("."));
    match value_at(member.own, path) {
        Some(value) => reader.place(&field, value.span().start),
        None => reader.place(&field, reader.start_of(&member.path)),
    }
    reader.fault_at(&field, fault(what, fix));
}

/// A machine's fixed addresses, with their places; what is none is for its own reading to tell.
fn addresses<'r>(rack: &'r Rack<'_>, member: &'r Member<'_>) -> Vec<(Vec<&'r str>, IpAddr)> {
    let read = |text: &str| text.parse::<IpNet>().ok().map(|net| net.addr());
    let mut found: Vec<(Vec<&str>, IpAddr)> =
        text_at(rack, member, &ADDRESS).and_then(read).map(|address| (ADDRESS.to_vec(), address)).into_iter().collect();
    let names: BTreeSet<&str> = [member.own, &rack.common]
        .into_iter()
        .filter_map(|table| value_at(table, &LINKS)?.get_ref().as_table())
        .flat_map(|links| links.keys().map(|name| name.get_ref().as_ref()))
        .collect();
    for name in names {
        let path = [LINKS[0], LINKS[1], name, "addresses"];
        let listed = value_at(member.own, &path).or_else(|| value_at(&rack.common, &path));
        let listed = listed.and_then(|value| value.get_ref().as_array()).into_iter().flat_map(|array| array.iter());
        let listed = listed.filter_map(|value| read(value.get_ref().as_str()?));
        found.extend(listed.map(|address| (path.to_vec(), address)));
    }
    found
}

/// A machine's string at a path: its own, else the common one.
pub(crate) fn text_at<'r>(rack: &'r Rack<'_>, member: &'r Member<'_>, path: &[&str]) -> Option<&'r str> {
    value_at(member.own, path).or_else(|| value_at(&rack.common, path))?.get_ref().as_str()
}

fn value_at<'r, 't>(table: &'r DeTable<'t>, path: &[&str]) -> Option<&'r Spanned<DeValue<'t>>> {
    let (last, tables) = path.split_last()?;
    let table = tables.iter().try_fold(table, |table, key| table.get(*key)?.get_ref().as_table())?;
    table.get(*last)
}
