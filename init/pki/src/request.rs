//! Certificate requests (PKCS#10, RFC 2986): made for a name, and read from strangers so that nothing in them is passed over.
use std::collections::BTreeSet;
use std::fmt;

use rcgen::CertificateParams;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use crate::authority::{distinguished_name, signing};
use crate::{Error, Key, Names, Wanted, pem_blocks};

const WHAT: &str = "the certificate request";

/// A request that was made here, and the key whose certificate it asks for. `Debug` shows nothing of the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pending {
    /// The request, PEM.
    pub request_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("request_pem", &self.request_pem).finish_non_exhaustive()
    }
}

impl Pending {
    /// Makes a key and asks for a certificate for it: common name and at most one organization.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate, or no randomness.
    pub fn new(common_name: &str, organizations: &[String]) -> Result<Self, Error> {
        Wanted { organizations: organizations.to_vec(), ..Wanted::client(common_name, None) }.check()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(common_name, organizations);
        let key = Key::generate()?;
        let refused = signing("signing a certificate request");
        let request = params.serialize_request(key.pair()).map_err(&refused)?;
        Ok(Self { request_pem: request.pem().map_err(&refused)?, key_pem: key.pem() })
    }
}

/// A request of someone else's, whose signature shows that he has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whom the certificate shall name.
    pub names: Names,
    /// The public key, SubjectPublicKeyInfo in DER.
    pub public: Vec<u8>,
}

impl Request {
    /// Reads a request's PEM text, which must be that one block alone, and holds its signature against its key.
    ///
    /// Refused is what two readers could understand in two ways: more than one common name, an extension that stands twice, text around the block.
    ///
    /// # Errors
    /// It is not sound, or not signed with its own key.
    pub fn parse(pem: &str) -> Result<Self, Error> {
        let der = pem_blocks::only(pem, WHAT, "CERTIFICATE REQUEST")?;
        let malformed = |why: String| Error::Malformed { what: WHAT, why };
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow its end".to_owned()));
        }
        request.verify_signature().map_err(|_| Error::Unsigned)?;
        let info = &request.certification_request_info;
        let mut names = Names::of_subject(WHAT, &info.subject)?;
        let mut seen = BTreeSet::new();
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(wanted) = attribute.parsed_attribute() else { continue };
            for extension in &wanted.extensions {
                if !seen.insert(extension.oid.to_id_string()) {
                    return Err(malformed(format!("extension {} stands twice", extension.oid)));
                }
                match extension.parsed_extension() {
                    ParsedExtension::SubjectAlternativeName(alternative) => names.add(alternative),
                    ParsedExtension::ParseError { error } => {
                        return Err(malformed(format!("extension {}: {error}", extension.oid)));
                    }
                    _ => {}
                }
            }
        }
        Ok(Self { names, public: info.subject_pki.raw.to_vec() })
    }
}
