//! The parts of the agent: what it decides (pure) and how it acts on the kernel, on files and on the API server.
pub mod address;
pub mod certificates;
pub mod connection;
pub mod contract;
pub mod fetch;
pub mod identities;
pub mod logs;
pub mod newcluster;
pub mod node;
pub mod orders;
pub mod outage;
pub mod place;
pub mod registration;
pub mod routes;
pub mod say;
pub mod steward;
