//! Turns the `[kubelet]` table into the JSON fields that are merged into the KubeletConfiguration.
use serde_json::{Map, Number, Value};
use toml::de::DeValue;

use crate::read::{Field, Reader, Table, fault};

/// Fields of the KubeletConfiguration (kubelet.config.k8s.io/v1beta1) that kscratch sets itself, with the metadata field to use
/// instead where there is one. `None`: the field follows from how the image is built and may not be changed.
const OWNED: [(&str, Option<&str>); 32] = [
    ("apiVersion", None),
    ("kind", None),
    ("authentication", None),
    ("authorization", None),
    ("address", None),
    ("readOnlyPort", None),
    ("healthzBindAddress", None),
    ("healthzPort", None),
    ("staticPodPath", Some("[[manifests]]")),
    ("staticPodURL", Some("[[manifests]]")),
    ("cgroupDriver", None),
    ("cgroupRoot", None),
    ("cgroupsPerQOS", None),
    ("clusterDNS", Some("cluster.dns_address")),
    ("clusterDomain", Some("cluster.dns_domain")),
    ("containerRuntimeEndpoint", None),
    ("imageServiceEndpoint", None),
    // docker rotates the logs; kubelet cannot ask it to reopen one.
    ("containerLogMaxFiles", None),
    ("containerLogMaxSize", None),
    ("enableServer", None),
    ("failSwapOn", None),
    ("podCIDR", Some("node.pod_range")),
    ("protectKernelDefaults", None),
    ("registerNode", None),
    ("registerWithTaints", Some("node.taints")),
    ("resolvConf", Some("network.dns_servers")),
    ("rotateCertificates", None),
    ("serverTLSBootstrap", None),
    ("shutdownGracePeriod", Some("shutdown.grace_seconds")),
    ("shutdownGracePeriodByPodPriority", Some("shutdown.grace_seconds")),
    ("shutdownGracePeriodCriticalPods", Some("shutdown.critical_grace_seconds")),
    ("volumePluginDir", None),
];

/// Reads the table's entries.
pub(crate) fn extras(reader: &mut Reader<'_>, table: &Table<'_>) -> Map<String, Value> {
    let mut extras = Map::new();
    for (key, field) in table.all() {
        reader.place(&field.path, field.value.span().start);
        if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| *owned == key) {
            let fix = match instead {
                Some(instead) => format!("use {instead}"),
                None => "remove it: it follows from how the image is built".to_owned(),
            };
            reader.field_fault(&field, fault("is set by kscratch", fix));
            continue;
        }
        // kubelet reads its fields without regard to case (encoding/json), so a near miss would still overrule ours.
        if let Some((owned, _)) = OWNED.iter().find(|(owned, _)| owned.eq_ignore_ascii_case(key)) {
            let what = format!("is {owned} in another spelling, which is set by kscratch");
            reader.field_fault(&field, fault(what, "remove it"));
            continue;
        }
        if let Some(value) = json(reader, &field) {
            extras.insert(key.to_owned(), value);
        }
    }
    extras
}

/// A TOML value as JSON. The nesting is bounded by the TOML parser.
fn json(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Value> {
    match field.value.get_ref() {
        DeValue::String(text) => Some(Value::String(text.to_string())),
        DeValue::Boolean(value) => Some(Value::Bool(*value)),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) => Some(Value::from(value)),
            Err(_) => {
                let what = "the number has too many digits";
                reader.field_fault(field, fault(what, "give a number of at most 64 bits"));
                None
            }
        },
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(Number::from_f64);
            if number.is_none() {
                let what = "is a number that JSON does not know";
                reader.field_fault(field, fault(what, "give a finite number"));
            }
            number.map(Value::Number)
        }
        DeValue::Datetime(_) => {
            reader.wrong_type(field, "a string in quotes");
            None
        }
        DeValue::Array(_) => {
            let items = reader.array(field);
            Some(Value::Array(items.iter().filter_map(|item| json(reader, item)).collect()))
        }
        DeValue::Table(_) => {
            let table = reader.table(field)?;
            let mut object = Map::new();
            for (key, item) in table.all() {
                if let Some(value) = json(reader, &item) {
                    object.insert(key.to_owned(), value);
                }
            }
            Some(Value::Object(object))
        }
    }
}
