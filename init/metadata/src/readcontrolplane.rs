//! Reads `[control_plane]`, and its `secrets` from either text, into [`ControlPlane`].
use std::collections::BTreeMap;

use crate::certificate;
use crate::controlplane::{BootstrapToken, ControlPlane, ControlPlaneSecrets, Etcd};
use crate::read::{Fault, Reader, Table, fault};
use crate::secret::Secret;
use crate::syntax;

/// The whole table, as it stands in the role file.
pub(crate) fn control_plane(reader: &mut Reader<'_>, mut table: Table<'_>) -> ControlPlane {
    let t = &mut table;
    let schedule_pods = reader.take_bool(t, "schedule_pods");
    let names = reader.take_strings(t, "names", syntax::host);
    let virtual_address = reader.take_string(t, "virtual_address", syntax::host_address);
    let etcd = reader.take_table(t, "etcd").map(|table| etcd(reader, table)).unwrap_or_default();
    let secrets = reader.take_table(t, "secrets").and_then(|table| secrets(reader, table));
    reader.finish(&table);
    ControlPlane { schedule_pods, names, virtual_address, etcd, secrets }
}

fn etcd(reader: &mut Reader<'_>, mut table: Table<'_>) -> Etcd {
    let mut members = BTreeMap::new();
    if let Some(table) = reader.take_table(&mut table, "members") {
        for (key, field) in table.all() {
            match syntax::node_name(key) {
                Ok(name) => {
                    if let Some(address) = reader.string(&field, syntax::address) {
                        members.insert(name, address);
                    }
                }
                Err(fault) => reader.field_fault(&field, fault),
            }
        }
    }
    let join = reader.take_bool(&mut table, "join").unwrap_or_default();
    let count = members.len();
    if join && count < 2 && !reader.faulty("control_plane.etcd.members") {
        let fix = "name two members or more: this master, and those that live";
        reader.fault_at("control_plane.etcd.join", fault("there is no other member to ask", fix));
    }
    // An even number bears no more losses than the odd one below it, and a larger one makes every write slower. Those that live grow one by one.
    if !join && !reader.faulty("control_plane.etcd.join") && ![0, 1, 3, 5].contains(&count) {
        let fix = "name 1, 3 or 5 masters, or have this one join those that live";
        reader.fault_at("control_plane.etcd.members", fault(format!("names {count} members"), fix));
    }
    reader.finish(&table);
    Etcd { members, join }
}

/// The secrets; all of them, or each missing one is reported.
pub(crate) fn secrets(reader: &mut Reader<'_>, mut table: Table<'_>) -> Option<ControlPlaneSecrets> {
    let t = &mut table;
    let ca_key = required(reader, t, "ca_key", certificate::private_key);
    let etcd_ca = required(reader, t, "etcd_ca", certificate::bundle);
    let etcd_ca_key = required(reader, t, "etcd_ca_key", certificate::private_key);
    let front_proxy_ca = required(reader, t, "front_proxy_ca", certificate::bundle);
    let front_proxy_ca_key = required(reader, t, "front_proxy_ca_key", certificate::private_key);
    let service_account_key = required(reader, t, "service_account_key", certificate::private_key);
    let service_account_public_key = required(reader, t, "service_account_public_key", certificate::public_key);
    let encryption_key = required(reader, t, "encryption_key", encryption_key);
    let tokens = tokens(reader, t);
    reader.finish(&table);
    Some(ControlPlaneSecrets {
        ca_key: ca_key?,
        etcd_ca: etcd_ca?,
        etcd_ca_key: etcd_ca_key?,
        front_proxy_ca: front_proxy_ca?,
        front_proxy_ca_key: front_proxy_ca_key?,
        service_account_key: service_account_key?,
        service_account_public_key: service_account_public_key?,
        encryption_key: encryption_key?,
        tokens,
    })
}

fn required<T>(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, Fault>,
) -> Option<T> {
    let value = reader.take_string(table, key, parse);
    let path = table.path_of(key);
    if value.is_none() && !reader.given(&path) {
        let fix = "let `kscratch-image cluster metadata` write this table: a master needs all of it";
        reader.fault_at(&path, fault("is missing", fix));
    }
    value
}

fn tokens(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Vec<BootstrapToken> {
    let Some(field) = reader.take(table, "tokens") else {
        return Vec::new();
    };
    let mut tokens: Vec<BootstrapToken> = Vec::new();
    for item in reader.array(&field) {
        let Some(mut table) = reader.table(&item) else { continue };
        let token = required(reader, &mut table, "token", syntax::token);
        let expires = reader.take_string(&mut table, "expires", syntax::utc_time);
        reader.finish(&table);
        let Some(token) = token else { continue };
        // The first part names the token's Secret; the same twice would leave only one of the two valid. Never shown whole.
        let id = token.expose().split('.').next().unwrap_or_default().to_owned();
        if tokens.iter().any(|other| other.token.expose().starts_with(&id)) {
            let what = format!("another token here begins with {id:?} too");
            reader.fault_at(&table.path_of("token"), fault(what, "make another one"));
        }
        tokens.push(BootstrapToken { token, expires });
    }
    tokens
}

/// 32 bytes in base64 (RFC 4648, section 4): the key of the provider `secretbox`, and of `aescbc` with AES-256. Its value is never shown.
fn encryption_key(text: &str) -> Result<Secret, Fault> {
    let digit = |c: u8| c.is_ascii_alphanumeric() || c == b'+' || c == b'/';
    let bytes = text.as_bytes();
    // 32 bytes are 43 digits and one `=`; the last digit's two lowest bits are beyond the last byte.
    let last = |c: u8| b"AEIMQUYcgkosw048".contains(&c);
    if bytes.len() == 44 && bytes[..43].iter().all(|c| digit(*c)) && last(bytes[42]) && bytes[43] == b'=' {
        return Ok(Secret::new(text));
    }
    Err(fault("is not 32 bytes in base64", "make one: head -c 32 /dev/urandom | base64"))
}
