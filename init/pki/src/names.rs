//! Reads whom a certificate or a request names: its subject and its alternative names, without passing anything over.
use std::net::IpAddr;

use x509_parser::extensions::{GeneralName, SubjectAlternativeName};
use x509_parser::x509::X509Name;

use crate::Error;

/// Whom a certificate or a request names. Lists are in the order of the document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The subject's common name, empty where it has none. A subject with two is refused: readers differ in which of them counts.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// Everything else in the subject, as `OID=value`.
    pub other_subject: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Alternative names of all other kinds, e.g. `RFC822Name(a@b)`, `URI(spiffe://a)`.
    pub other_names: Vec<String>,
}

impl Names {
    /// Reads a subject.
    pub(crate) fn of_subject(what: &'static str, subject: &X509Name<'_>) -> Result<Self, Error> {
        let malformed = |why: &str| Error::Malformed { what, why: why.to_owned() };
        let mut names = Self::default();
        let mut common_names = 0;
        for attribute in subject.iter_attributes() {
            let kind = attribute.attr_type().to_id_string();
            let value = attribute.as_str();
            let text = || value.clone().map_err(|_| malformed("its subject is written in an unusual encoding"));
            match kind.as_str() {
                // id-at-commonName, id-at-organizationName (X.520).
                "2.5.4.3" => {
                    common_names += 1;
                    names.common_name = text()?.to_owned();
                }
                "2.5.4.10" => names.organizations.push(text()?.to_owned()),
                _ => names.other_subject.push(format!("{kind}={}", value.unwrap_or("…"))),
            }
        }
        if common_names > 1 {
            return Err(malformed("its subject has more than one common name"));
        }
        Ok(names)
    }

    /// Adds alternative names.
    pub(crate) fn add(&mut self, alternative: &SubjectAlternativeName<'_>) {
        for name in &alternative.general_names {
            match name {
                // RFC 5280, 4.2.1.6: an IA5String. What is not, is no DNS name to anybody else.
                GeneralName::DNSName(text) if text.is_ascii() => self.dns_names.push((*text).to_owned()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(address) => self.addresses.push(address),
                    None => self.other_names.push(name.to_string()),
                },
                other => self.other_names.push(other.to_string()),
            }
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
