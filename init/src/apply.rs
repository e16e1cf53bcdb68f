//! Performs the steps of a plan; decides nothing.
pub mod bridge;
pub mod certificates;
pub mod clusterca;
pub mod dhcp;
pub mod dhcp6;
pub mod disk;
pub mod files;
pub mod firewall;
pub mod imageseed;
pub mod lease;
pub mod links;
pub mod network;
pub mod nodename;
pub mod steps;
mod waiting;
