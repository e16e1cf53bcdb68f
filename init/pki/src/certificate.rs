//! A certificate's PEM text becomes facts, and answers whose signature it bears and whose key it fits.
use std::collections::BTreeSet;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use crate::authority::whole_seconds;
use crate::{Duration, Error, Key, Names, OffsetDateTime, Usage, pem_blocks};

const WHAT: &str = "the certificate";

/// A certificate that could be read. It is believed by nobody until [`Certificate::signed_by`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    public: Vec<u8>,
    facts: Facts,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whom it names.
    pub names: Names,
    /// What it is good for.
    pub usages: BTreeSet<Usage>,
    /// Whether it is good for anything that [`Usage`] does not know.
    pub other_usages: bool,
    /// First second.
    pub not_before: OffsetDateTime,
    /// Last second.
    pub not_after: OffsetDateTime,
    /// Whether it may sign others (basic constraints, RFC 5280, 4.2.1.9).
    pub is_authority: bool,
}

impl Certificate {
    /// Reads the first certificate of a PEM text; other blocks, such as a key, may stand beside it.
    ///
    /// # Errors
    /// There is none, or it is not sound.
    pub fn parse(pem: &str) -> Result<Self, Error> {
        let blocks = pem_blocks::find(pem, WHAT, "CERTIFICATE")?;
        Self::from_der(blocks[0].clone())
    }

    /// Reads all certificates of a PEM text, at least one.
    ///
    /// # Errors
    /// There is none, or one is not sound.
    pub fn parse_all(pem: &str) -> Result<Vec<Self>, Error> {
        pem_blocks::find(pem, WHAT, "CERTIFICATE")?.into_iter().map(Self::from_der).collect()
    }

    /// Reads one certificate's bytes.
    ///
    /// # Errors
    /// It is not sound.
    pub fn from_der(der: Vec<u8>) -> Result<Self, Error> {
        let parsed = read(&der)?;
        let facts = Facts::of(&parsed)?;
        let public = parsed.public_key().raw.to_vec();
        Ok(Self { public, facts, der })
    }

    /// What it says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// As PEM, one block.
    pub fn pem(&self) -> String {
        pem_blocks::write("CERTIFICATE", &self.der)
    }

    /// The bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether an authority has signed it: `authority` may sign others, is the named issuer, and its key made the signature. Times are not looked at.
    pub fn signed_by(&self, authority: &Certificate) -> bool {
        // Both could be read before.
        let (Ok(own), Ok(issuer)) = (read(&self.der), read(&authority.der)) else { return false };
        authority.facts.is_authority
            && own.issuer().as_raw() == issuer.subject().as_raw()
            && own.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// From when on an authority counts days: now, or its own first second where the clock is behind that.
    pub(crate) fn counted_from(&self, now: OffsetDateTime) -> OffsetDateTime {
        now.max(self.facts.not_before)
    }

    /// The last second of a certificate of so many days that this authority signs now: never after its own.
    pub(crate) fn until(&self, days: u32, now: OffsetDateTime) -> Result<OffsetDateTime, Error> {
        let from = self.counted_from(now);
        if from >= self.facts.not_after {
            return Err(Error::Ended { name: self.facts.names.common_name.clone(), ended: self.facts.not_after });
        }
        let until = from.checked_add(Duration::days(days.into())).ok_or(Error::Time)?;
        whole_seconds(until.min(self.facts.not_after))
    }

    /// Whether a private key is the one of this certificate.
    pub fn fits(&self, key: &Key) -> bool {
        self.public == key.public()
    }
}

fn read(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    let (rest, parsed) =
        X509Certificate::from_der(der).map_err(|error| Error::Malformed { what: WHAT, why: error.to_string() })?;
    if rest.is_empty() {
        Ok(parsed)
    } else {
        Err(Error::Malformed { what: WHAT, why: "bytes follow its end".to_owned() })
    }
}

impl Facts {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, Error> {
        let mut facts = Self {
            names: Names::of_subject(WHAT, certificate.subject())?,
            usages: BTreeSet::new(),
            other_usages: false,
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            is_authority: false,
        };
        let mut seen = BTreeSet::new();
        for extension in certificate.extensions() {
            // RFC 5280, 4.2: no extension stands twice.
            if !seen.insert(extension.oid.to_id_string()) {
                return Err(Error::Malformed { what: WHAT, why: format!("extension {} stands twice", extension.oid) });
            }
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => facts.names.add(names),
                ParsedExtension::BasicConstraints(constraints) => facts.is_authority = constraints.ca,
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    let ours = [(usage.server_auth, Usage::Server), (usage.client_auth, Usage::Client)];
                    facts.usages.extend(ours.iter().filter(|(given, _)| *given).map(|(_, usage)| *usage));
                    facts.other_usages = usage.any
                        || usage.code_signing
                        || usage.email_protection
                        || usage.time_stamping
                        || usage.ocsp_signing
                        || !usage.other.is_empty();
                }
                ParsedExtension::ParseError { error } => {
                    let why = format!("extension {}: {error}", extension.oid);
                    return Err(Error::Malformed { what: WHAT, why });
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    /// Whether it is valid at a time.
    pub fn valid_at(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}
