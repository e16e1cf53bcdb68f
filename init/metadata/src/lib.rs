//! Turns the text of a role metadata file into a checked [`RoleMetadata`](crate), or into errors a person can act on.
