//! Checks that a text holds X.509 certificates, or a key, in PEM and nothing that has no business beside them.
use crate::read::{Fault, fault};
use crate::secret::Secret;

const FIX: &str = "paste the cluster's CA certificate (`/etc/kubernetes/pki/ca.crt` of a master) between ''' and '''";

/// The certificates of the cluster's CA.
pub(crate) fn bundle(text: &str) -> Result<String, Fault> {
    certificates(text, FIX)
}

/// The text again, if every PEM block in it (RFC 7468) is a certificate and there is one; else what is wrong, mostly with `fix`. No fault shows the
/// text: it may hold a key.
pub(crate) fn certificates(text: &str, fix: &str) -> Result<String, Fault> {
    let blocks = pem::parse_many(text).map_err(|_| fault("is no well-formed PEM", fix))?;
    if blocks.is_empty() {
        return Err(fault("holds no PEM certificate", fix));
    }
    for block in &blocks {
        if block.tag().contains("PRIVATE KEY") {
            return Err(fault("holds a private key", "take the key out: machines get only the certificate"));
        }
        if block.tag() != "CERTIFICATE" {
            return Err(fault(format!("holds a PEM block of another kind, {:?}", block.tag()), fix));
        }
        if !is_der_sequence(block.contents()) {
            return Err(fault("holds a CERTIFICATE block that is no DER", fix));
        }
    }
    Ok(text.to_owned())
}

/// The text again, if it is a public key: SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) in PEM.
pub(crate) fn public_key(text: &str) -> Result<String, Fault> {
    let fix = "give the public key: openssl pkey -in service-account.key -pubout";
    let block = pem::parse(text).map_err(|_| fault("is no well-formed PEM", fix))?;
    if block.tag() != "PUBLIC KEY" || !is_der_sequence(block.contents()) {
        // The tag alone: the text may hold a private key.
        return Err(fault(format!("holds a PEM block of another kind, {:?}", block.tag()), fix));
    }
    Ok(text.to_owned())
}

/// A PKCS#8 private key. Its value is never shown.
pub(crate) fn private_key(text: &str) -> Result<Secret, Fault> {
    let block =
        pem::parse(text).map_err(|_| fault("is no PEM", "give a private key: -----BEGIN PRIVATE KEY----- …"))?;
    if block.tag() != "PRIVATE KEY" {
        let what = format!("holds a PEM block of another kind, {:?}", block.tag());
        return Err(fault(what, "give an unencrypted PKCS#8 key: openssl pkcs8 -topk8 -nocrypt"));
    }
    Ok(Secret::new(text))
}

/// Whether bytes are exactly one DER SEQUENCE (X.690, 8.1), the outer shape of a certificate (RFC 5280, 4.1).
fn is_der_sequence(bytes: &[u8]) -> bool {
    let Some((&[0x30, first], rest)) = bytes.split_first_chunk::<2>() else {
        return false;
    };
    if first < 0x80 {
        return rest.len() == usize::from(first);
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 || rest.len() < count {
        return false;
    }
    let (length, content) = rest.split_at(count);
    let length = length.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    u64::try_from(content.len()) == Ok(length) && !content.is_empty()
}
