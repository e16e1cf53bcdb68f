//! A cluster's identity: a folder with its settings and secrets, and what machines and people are given out of it.
//!
//! ```text
//! NAME/
//!   cluster.toml               settings; no secret
//!   admin.kubeconfig           for people: the group kubeadm:cluster-admins, which RBAC binds
//!   super-admin.kubeconfig     the group system:masters, which no RBAC can bind or refuse
//!   secrets/                   everything that a master is given, and tokens.toml
//! ```
pub mod check;
pub mod folder;
pub mod kubeconfigs;
pub mod kubectl;
pub mod machines;
pub mod merge;
pub mod metadata;
pub mod new;
pub mod ondisk;
pub mod rack;
pub mod settings;
pub mod token;
pub mod userconfig;
