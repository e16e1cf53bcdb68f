//! Whole clusters in QEMU: machines on a private virtual link, held by one process of ours, the keeper.
//!
//! ```text
//! NAME/machines/               readable by its owner alone
//!   machines.json              the plan: which machines there are, with addresses, images and sizes
//!   admin.kubeconfig           the way through the gateway: https://127.0.0.1:PORT
//!   keeper.socket, .lock, .log the keeper: it owns switch, gateway and machines, and they end with it
//!   MACHINE/disk.qcow2         what differs from the image
//!   MACHINE/role.toml          its role metadata, handed over by firmware (fw_cfg)
//!   MACHINE/console.log        everything it said on its serial line, of every start
//! ```
pub mod api;
pub mod client;
pub mod fleet;
pub mod identity;
pub mod keeper;
pub mod logs;
pub mod order;
pub mod panics;
pub mod phase;
pub mod place;
pub mod plan;
pub mod power;
pub mod protocol;
pub mod rows;
pub mod unnamed;
pub mod up;
pub mod view;

#[cfg(test)]
mod tests;
