//! Turns [`RoleMetadata`] back into text: its JSON Schema, for editors, and its TOML, with every default written out.
use crate::role::RoleMetadata;

/// The JSON Schema (draft 2020-12) of a `role.toml`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(RoleMetadata).to_value()
}

/// The metadata as a `role.toml` that [`parse`](crate::parse) reads back to the same. Secrets stand in it.
///
/// # Errors
/// Where a kubelet field holds what TOML cannot say (`null`); nothing that [`parse`](crate::parse) returns does.
pub fn to_toml(metadata: &RoleMetadata) -> Result<String, toml::ser::Error> {
    toml::to_string_pretty(metadata)
}
