//! Performs the steps of a plan; decides nothing.
pub mod bridge;
pub mod firewall;
pub mod netlink;
pub mod network;
