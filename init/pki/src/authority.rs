//! A certificate authority: made new or read from its PEM texts, and the leaf certificates that it issues.
use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::{Certificate, Duration, Error, Key, OffsetDateTime, Usage, Wanted};

/// A certificate authority with its private key.
#[derive(Debug)]
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM. `Debug` shows nothing of the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key, PKCS#8.
    pub key_pem: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new self-signed authority as kubeadm makes one (its `NewSelfSignedCACert`), valid for `years` of 365 days.
    ///
    /// # Errors
    /// The name is empty, the time cannot be said, or there is no randomness.
    pub fn new(name: &str, not_before: OffsetDateTime, years: u32) -> Result<Self, Error> {
        Ok(Self::new_with_pair(name, not_before, years)?.0)
    }

    /// The same, with the two texts that [`Authority::parse`] reads back.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn new_with_pair(name: &str, not_before: OffsetDateTime, years: u32) -> Result<(Self, Pair), Error> {
        if name.is_empty() {
            return Err(Error::Wanted { name: name.to_owned(), why: "it has no common name".to_owned() });
        }
        let not_before = whole_seconds(not_before)?;
        let life = Duration::days(i64::from(years) * 365);
        let mut params = params(name, &[]);
        params.not_before = not_before;
        params.not_after = not_before.checked_add(life).ok_or(Error::Time)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![dns_name(name, name)?];
        let key = Key::generate()?;
        let made = params.self_signed(key.pair()).map_err(signing("signing an authority's own certificate"))?;
        let pair = Pair { certificate_pem: made.pem(), key_pem: key.pem() };
        Ok((Self::parse(&pair.certificate_pem, &pair.key_pem)?, pair))
    }

    /// Reads an authority from its certificate and key, both PEM. Of several certificates, the one that fits the key is taken.
    ///
    /// # Errors
    /// One of the two is not sound, they do not belong together, or the certificate is no authority's.
    pub fn parse(certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let certificates = Certificate::parse_all(certificate_pem)?;
        let key = Key::parse(key_pem)?;
        let name = certificates[0].facts().names.common_name.clone();
        let certificate =
            certificates.into_iter().find(|certificate| certificate.fits(&key)).ok_or(Error::Apart { name })?;
        if !certificate.facts().is_authority {
            return Err(Error::NoAuthority { name: certificate.facts().names.common_name.clone() });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der().into(), key.into_pair())
            .map_err(signing("reading an authority's certificate"))?;
        Ok(Self { certificate, issuer })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Makes a key and its certificate. It is valid from the authority's own first second on, so that a clock that is behind does not make it
    /// invalid, and ends `days` after `now` or with the authority.
    ///
    /// # Errors
    /// It cannot be made ([`Wanted::check`]), or the authority has ended.
    pub fn issue(&self, wanted: &Wanted, now: OffsetDateTime) -> Result<Pair, Error> {
        wanted.check()?;
        let facts = self.certificate.facts();
        let mut params = params(&wanted.common_name, &wanted.organizations);
        params.not_before = facts.not_before;
        params.not_after = self.certificate.until(wanted.days, now)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = wanted.usages.iter().map(|usage| purpose(*usage)).collect();
        params.use_authority_key_identifier_extension = true;
        for name in &wanted.dns_names {
            params.subject_alt_names.push(dns_name(&wanted.common_name, name)?);
        }
        params.subject_alt_names.extend(wanted.addresses.iter().map(|address| SanType::IpAddress(*address)));
        let key = Key::generate()?;
        let made = params.signed_by(key.pair(), &self.issuer).map_err(signing("signing a certificate"))?;
        let pair = Pair { certificate_pem: made.pem(), key_pem: key.pem() };
        // The issuer's name is written anew by the library: where it cannot say it as the authority's certificate does, nobody would believe this one.
        if Certificate::parse(&pair.certificate_pem)?.signed_by(&self.certificate) {
            Ok(pair)
        } else {
            let why = format!("the name of the authority {} cannot be written again", facts.names.common_name);
            Err(Error::Signing { doing: "signing a certificate", why })
        }
    }
}

fn params(common_name: &str, organizations: &[String]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(common_name, organizations);
    params
}

/// A subject: organization before common name, as Go writes it.
pub(crate) fn distinguished_name(common_name: &str, organizations: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organizations.first() {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn dns_name(of: &str, name: &str) -> Result<SanType, Error> {
    let name = name.try_into().map_err(|_| Error::Wanted {
        name: of.to_owned(),
        why: format!("its DNS name {name:?} is not made of ASCII characters"),
    })?;
    Ok(SanType::DnsName(name))
}

fn purpose(usage: Usage) -> ExtendedKeyUsagePurpose {
    match usage {
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }
}

/// Certificates know no fractions (RFC 5280, 4.1.2.5).
pub(crate) fn whole_seconds(time: OffsetDateTime) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp(time.unix_timestamp()).map_err(|_| Error::Time)
}

pub(crate) fn signing(doing: &'static str) -> impl Fn(rcgen::Error) -> Error {
    move |error| Error::Signing { doing, why: error.to_string() }
}
