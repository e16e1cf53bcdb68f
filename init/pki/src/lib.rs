//! Turns names and a time into what proves a cluster's members to one another: authorities, certificates, requests, kubeconfigs, tokens, keys.
//!
//! Everything is P-256 with SHA-256. The clock comes in as an argument; randomness is the operating system's. No files are touched.
mod authority;
mod certificate;
mod error;
mod judge;
mod key;
mod kubeconfig;
mod names;
mod pem_blocks;
mod random;
mod request;
mod wanted;

pub use authority::{Authority, Pair};
pub use certificate::{Certificate, Facts};
pub use error::Error;
pub use judge::{Verdict, judge};
pub use key::Key;
pub use kubeconfig::{Credentials, Kubeconfig, Trust};
pub use names::Names;
pub use random::{Token, encryption_key};
pub use request::{Pending, Request};
pub use time::{Duration, OffsetDateTime};
pub use wanted::{Usage, Wanted};
