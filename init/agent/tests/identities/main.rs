//! What a node's agent makes of what the cluster says of its machine: orders, and certificates that are not taken.
#[path = "../agentprocess/mod.rs"]
mod agentprocess;
#[path = "../apiserver/mod.rs"]
mod apiserver;
mod early;
mod orders;
