//! A P-256 private key, from the operating system's randomness or from PKCS#8 PEM, and the two texts that it is written as.
use std::fmt;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};

use crate::{Error, pem_blocks};

/// A private key. Its `Debug` shows nothing of it.
pub struct Key(KeyPair);

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|error| Error::Signing { doing: "making a key", why: error.to_string() })
    }

    /// Reads the first `PRIVATE KEY` block (PKCS#8) of a PEM text.
    ///
    /// # Errors
    /// There is none, or it is no P-256 key.
    pub fn parse(pem: &str) -> Result<Self, Error> {
        let blocks = pem_blocks::find(pem, "the key", "PRIVATE KEY").map_err(|error| match error {
            Error::NoBlock { found, .. } if found.iter().any(|label| label.contains("PRIVATE KEY")) => {
                Error::Key { why: format!("it is {}", found.join(", ")) }
            }
            other => other,
        })?;
        let refused = |why: &dyn fmt::Display| Error::Key { why: why.to_string() };
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&blocks[0].as_slice().into(), &PKCS_ECDSA_P256_SHA256)
            .map_err(|error| refused(&error))?;
        Ok(Self(pair))
    }

    /// The private key, PKCS#8 in PEM.
    pub fn pem(&self) -> String {
        pem_blocks::write("PRIVATE KEY", self.0.serialized_der())
    }

    /// The public key, SubjectPublicKeyInfo in PEM.
    pub fn public_pem(&self) -> String {
        pem_blocks::write("PUBLIC KEY", &self.public())
    }

    /// The public key, SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) in DER.
    pub fn public(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    pub(crate) fn into_pair(self) -> KeyPair {
        self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}
