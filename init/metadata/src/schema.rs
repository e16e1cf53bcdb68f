//! Turns [`RoleMetadata`] back into text: its JSON Schema, for editors, and its TOML, with every default written out.
use serde_json::{Map, Value, json};

use crate::role::RoleMetadata;

/// The JSON Schema (draft 2020-12) of a `role.toml`, a machine's or a rack's.
pub fn json_schema() -> Value {
    let mut machine = schemars::schema_for!(RoleMetadata).to_value();
    let dialect = take(&mut machine, "$schema");
    let mut definitions = match take(&mut machine, "$defs") {
        Value::Object(definitions) => definitions,
        _ => Map::new(),
    };
    let parts: Vec<_> = definitions.iter().map(|(name, part)| (format!("{name}{PART}"), partly(part))).collect();
    definitions.extend(parts);
    let mut rack = partly(&machine);
    let mut entry = rack.clone();
    let text = |about: &str, pattern: &str| json!({"description": about, "type": "string", "pattern": pattern});
    let selectors = [
        ("mac", text("Hardware address of one of its network cards", "^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$")),
        ("serial", text("Serial number, /sys/class/dmi/id/product_serial", "[^ ]")),
        ("uuid", text("UUID, /sys/class/dmi/id/product_uuid", "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$")),
    ];
    let told = selectors.each_ref().map(|(key, _)| json!({"required": [key]}));
    for (key, selector) in selectors {
        entry["properties"][key] = selector;
    }
    entry["description"] = json!("One machine of a rack: how it is told, and what is its own of the metadata.");
    entry["anyOf"] = json!(told);
    rack["description"] = json!("What the machines of a rack have in common, and each of them.");
    rack["required"] = json!(["version", "machines"]);
    rack["properties"]["machines"] = json!({"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/RackMachine"}});
    definitions.insert("RoleMetadata".to_owned(), machine);
    definitions.insert("Rack".to_owned(), rack);
    definitions.insert("RackMachine".to_owned(), entry);
    json!({
        "$schema": dialect,
        "title": "role.toml",
        "anyOf": [{"$ref": "#/$defs/RoleMetadata"}, {"$ref": "#/$defs/Rack"}],
        "$defs": definitions,
    })
}

/// Ending of the names of definitions of which a part may stand in a rack's common part and the rest in an entry.
const PART: &str = "Part";

fn take(value: &mut Value, key: &str) -> Value {
    value.as_object_mut().and_then(|fields| fields.remove(key)).unwrap_or_default()
}

/// The same schema for a part of the value: nothing is required, at any depth.
fn partly(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let part = |(key, value): (&String, &Value)| match (key.as_str(), value) {
                // A list of names is the keyword; a schema would be a field of that name.
                ("required", Value::Array(_)) => None,
                ("$ref", Value::String(target)) => Some((key.clone(), Value::String(format!("{target}{PART}")))),
                _ => Some((key.clone(), partly(value))),
            };
            Value::Object(fields.iter().filter_map(part).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(partly).collect()),
        other => other.clone(),
    }
}

/// The metadata as a `role.toml` that [`parse`](crate::parse) reads back to the same. Secrets stand in it.
///
/// # Errors
/// Where a kubelet field holds what TOML cannot say (`null`); nothing that [`parse`](crate::parse) returns does.
pub fn to_toml(metadata: &RoleMetadata) -> Result<String, toml::ser::Error> {
    toml::to_string_pretty(metadata)
}
