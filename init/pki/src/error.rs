//! What can be wrong with certificates, keys, requests and tokens, in words that show no secret.
use crate::OffsetDateTime;

/// Why something could not be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no PEM (RFC 7468).
    #[error("{what} is no well-formed PEM")]
    NotPem {
        /// What was being read.
        what: &'static str,
    },
    /// The PEM text holds no block of the kind that is needed.
    #[error("{what} holds no PEM block {wanted:?}{}", if .found.is_empty() { String::new() } else { format!(", only {}", .found.join(", ")) })]
    NoBlock {
        /// What was being read.
        what: &'static str,
        /// The block's label.
        wanted: &'static str,
        /// The labels that are there.
        found: Vec<String>,
    },
    /// A request's text holds more than the one block that a request is.
    #[error("{what} holds more than one PEM block {wanted:?} and nothing else")]
    NotAlone {
        /// What was being read.
        what: &'static str,
        /// The block's label.
        wanted: &'static str,
    },
    /// The bytes in the PEM block are not what the block's label says.
    #[error("{what} is not sound: {why}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// The parser's words.
        why: String,
    },
    /// A private key of another kind than this crate makes and uses.
    #[error("the key is no P-256 key in PKCS#8 form (`openssl pkcs8 -topk8 -nocrypt` writes that form): {why}")]
    Key {
        /// The parser's words.
        why: String,
    },
    /// A certificate that may not sign others.
    #[error("the certificate of {name} is no authority's: it may not sign others")]
    NoAuthority {
        /// Common name of its subject.
        name: String,
    },
    /// Key and certificate are of different pairs.
    #[error("the key does not belong to the certificate of {name}")]
    Apart {
        /// Common name of its subject.
        name: String,
    },
    /// A wanted certificate that cannot be made.
    #[error("a certificate for {name:?} cannot be made: {why}")]
    Wanted {
        /// Common name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The authority is no longer valid.
    #[error("the authority {name} has ended on {ended}")]
    Ended {
        /// Common name of the authority.
        name: String,
        /// Its last second.
        ended: OffsetDateTime,
    },
    /// A time outside of what certificates can say (to the year 9999).
    #[error("the time is beyond what a certificate can hold")]
    Time,
    /// A request whose signature was not made with the key that it holds.
    #[error("the request is not signed with its own key")]
    Unsigned,
    /// A text that is no bootstrap token; it is not shown.
    #[error("this is no bootstrap token ([a-z0-9]{{6}}.[a-z0-9]{{16}})")]
    Token,
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes: {why}")]
    Random {
        /// Its words.
        why: String,
    },
    /// The library that signs refused.
    #[error("{doing}: {why}")]
    Signing {
        /// What was being done.
        doing: &'static str,
        /// Its words.
        why: String,
    },
}
