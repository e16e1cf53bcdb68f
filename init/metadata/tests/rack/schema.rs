//! The JSON schema of role metadata, held against racks and single machines.
use kscratch_metadata::json_schema;

use crate::{COMMON, MACHINES};

/// What a schema says of a value, as far as this schema goes.
fn fits(schema: &serde_json::Value, root: &serde_json::Value, value: &serde_json::Value) -> bool {
    let target = schema["$ref"].as_str().map(|target| &root["$defs"][target.trim_start_matches("#/$defs/")]);
    let required =
        schema["required"].as_array().into_iter().flatten().all(|key| value.get(key.as_str().unwrap()).is_some());
    let any = schema["anyOf"].as_array().is_none_or(|all| all.iter().any(|one| fits(one, root, value)));
    let fields = value.as_object().into_iter().flatten().all(|(key, value)| match schema["properties"].get(key) {
        Some(schema) => fits(schema, root, value),
        None => schema["additionalProperties"] != false,
    });
    let items = value.as_array().into_iter().flatten().all(|value| fits(&schema["items"], root, value));
    let null = schema["type"] != "null" || value.is_null();
    null && target.is_none_or(|target| fits(target, root, value)) && required && any && fields && items
}

#[test]
fn the_schema_knows_racks() {
    let schema = json_schema();
    let fits = |text: &str| fits(&schema, &schema, &toml::from_str(text).unwrap());
    assert!(fits(COMMON) && fits(&format!("{COMMON}{MACHINES}")));
    assert!(fits("version = 1\nnetwork.static.gateway = \"10.0.0.1\"\n[[machines]]\nmac = \"x\"\nrole = \"node\"\n"));
    for wrong in [
        "version = 1\n",
        "version = 1\nrole = \"node\"\n[[machines]]\n",
        "version = 1\nrole = \"node\"\n[[machines]]\nmac = \"x\"\nseriel = 1\n",
        "version = 1\nrole = \"node\"\nmac = \"x\"\n[[machines]]\nmac = \"x\"\n",
        "role = \"node\"\n[[machines]]\nmac = \"x\"\n",
        "version = 1\nrole = \"node\"\nnetwork.static.gateway = \"10.0.0.1\"\n",
    ] {
        assert!(!fits(wrong), "{wrong}");
    }
    for part in schema["$defs"].as_object().unwrap().values() {
        for target in references(part) {
            assert!(schema["$defs"].get(&target).is_some(), "{target} is nowhere");
        }
    }
}

fn references(value: &serde_json::Value) -> Vec<String> {
    let own = value["$ref"].as_str().map(|target| target.trim_start_matches("#/$defs/").to_owned());
    let fields = value.as_object().into_iter().flatten().flat_map(|(_, value)| references(value));
    let items = value.as_array().into_iter().flatten().flat_map(references);
    own.into_iter().chain(fields).chain(items).collect()
}
