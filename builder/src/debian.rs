//! The machine's apt configuration and Debian's signed indices become packages to choose from, every byte verified down from the archive's keys.
//!
//! ```text
//! apt configuration -> mirror::Mirrors
//! keyring::Keyring + InRelease -> release::Release      (signature, dates, suite)
//! Release + Packages.xz -> packages::Packages           (SHA-256)
//! Packages + .deb                                       (SHA-256; fetch.rs)
//! ```
pub mod deb;
pub mod keyring;
pub mod mirror;
pub mod packages;
pub mod release;
pub mod version;

#[cfg(test)]
pub(crate) mod testarchive;
