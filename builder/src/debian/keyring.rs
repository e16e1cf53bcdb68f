//! A clear-signed text and a [`Keyring`] become the text that was signed, or the reason why no signature on it counts.
//!
//! `pgp` does the mathematics of RFC 9580; which keys count when (expiry, revocation, key flags, back signatures) is decided here.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Timestamp};

use crate::console::Hint;

/// Where Debian machines keep the keys of Debian's archive (package debian-archive-keyring).
pub const MACHINE_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The archive's keys of Debian 13 (trixie), for machines without Debian's keyring: `keys/README.md` says where they come from.
const EMBEDDED: [&[u8]; 3] = [
    include_bytes!("../../keys/debian-archive-trixie-automatic.gpg"),
    include_bytes!("../../keys/debian-archive-trixie-security-automatic.gpg"),
    include_bytes!("../../keys/debian-archive-trixie-stable.gpg"),
];

/// How far another clock may be ahead of this one.
const CLOCK_SLACK: u64 = 24 * 3600;

/// Public keys that a release may be signed with.
#[derive(Debug, Clone)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
    /// For errors: where the keys are from.
    origin: String,
}

/// The key that made a signature.
enum Signer<'a> {
    Primary(&'a SignedPublicKey),
    Subkey(&'a SignedPublicKey, &'a SignedPublicSubKey),
}

impl Keyring {
    /// The keys to use: those of `configured`, or of the machine, or those in this program.
    pub fn find(configured: Option<&Path>) -> Result<Keyring> {
        let machine = PathBuf::from(MACHINE_KEYRING);
        match configured {
            Some(path) => Keyring::read(path),
            None if machine.exists() => Keyring::read(&machine),
            None => Keyring::embedded(),
        }
    }

    /// The keys of a file, binary or armoured.
    pub fn read(path: &Path) -> Result<Keyring> {
        let bytes = std::fs::read(path).with_context(|| format!("reading the keyring {}", path.display()))?;
        Keyring::parse(&[&bytes], &path.display().to_string())
    }

    /// The keys in this program.
    pub fn embedded() -> Result<Keyring> {
        Keyring::parse(&EMBEDDED, "the keys in this program")
    }

    /// Keys from bytes. Keys of a form that is too old to be read (version 3) are passed over.
    pub fn parse(parts: &[&[u8]], origin: &str) -> Result<Keyring> {
        let mut keys = Vec::new();
        for part in parts {
            let (found, _) =
                SignedPublicKey::from_reader_many(*part).with_context(|| format!("reading the keyring {origin}"))?;
            keys.extend(found.flatten());
        }
        if keys.is_empty() {
            bail!("reading the keyring {origin}: there is no key in it");
        }
        Ok(Keyring { keys, origin: origin.to_owned() })
    }

    /// The text of a clear-signed message, with `\n` line ends, if one signature on it is good at `now` (seconds since 1970).
    pub fn verify(&self, message: &[u8], now: u64) -> Result<String> {
        let text = std::str::from_utf8(message).context("it is not UTF-8 text")?;
        let (message, _) =
            CleartextSignedMessage::from_string(text).context("it is not a whole clear-signed message")?;
        // Only what was signed is read on: text around the signed block has no say.
        let signed = message.signed_text();
        let mut refusals = Vec::new();
        for signature in message.signatures() {
            match self.check(signature, signed.as_bytes(), now) {
                Ok(()) => return Ok(signed.replace("\r\n", "\n")),
                Err(refusal) => refusals.push(format!("{refusal:#}")),
            }
        }
        if refusals.is_empty() {
            refusals.push("it carries no signature".to_owned());
        }
        Err(anyhow!("{}", refusals.join("; "))
            .context(Hint("if the archive has newer keys, get its keyring and name it with `keyring` under [debian] in image.toml".into()))
            .context(format!("no signature counts with {}", self.origin)))
    }

    fn check(&self, signature: &Signature, data: &[u8], now: u64) -> Result<()> {
        let (signer, id) = self.signer(signature)?;
        if !matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary)) {
            bail!("the signature by {id} is not one on a text");
        }
        strong(signature).with_context(|| format!("the signature by {id}"))?;
        let made = seconds(signature.created()).with_context(|| format!("the signature by {id} bears no time"))?;
        if made > now + CLOCK_SLACK {
            bail!("the signature by {id} is from the future ({})", super::release::date(made));
        }
        if signature
            .signature_expiration_time()
            .is_some_and(|life| life.as_secs() != 0 && made + u64::from(life.as_secs()) <= now)
        {
            bail!("the signature by {id} has expired");
        }
        match signer {
            Signer::Primary(key) => {
                let flags = primary(key, now).with_context(|| format!("the key {id}"))?;
                if !flags.key_flags().sign() {
                    bail!("the key {id} is not one for signing data");
                }
                signature
                    .verify(&key.primary_key, data)
                    .map_err(|_| anyhow!("the signature by {id} is wrong: the text was changed"))
            }
            Signer::Subkey(key, subkey) => {
                primary(key, now).with_context(|| format!("the primary key of {id}"))?;
                binding(key, subkey, now).with_context(|| format!("the subkey {id}"))?;
                signature
                    .verify(&subkey.key, data)
                    .map_err(|_| anyhow!("the signature by {id} is wrong: the text was changed"))
            }
        }
    }

    /// The key that a signature says it is by, and its name for errors.
    fn signer(&self, signature: &Signature) -> Result<(Signer<'_>, String)> {
        let fingerprints = signature.issuer_fingerprint();
        let ids = signature.issuer_key_id();
        let matches = |key: &dyn KeyDetails| match fingerprints.is_empty() {
            false => fingerprints.contains(&&key.fingerprint()),
            true => ids.contains(&&key.legacy_key_id()),
        };
        let name = |key: &dyn KeyDetails| format!("{:X}", key.fingerprint());
        for key in &self.keys {
            if matches(&key.primary_key) {
                return Ok((Signer::Primary(key), name(&key.primary_key)));
            }
            if let Some(subkey) = key.public_subkeys.iter().find(|subkey| matches(&subkey.key)) {
                return Ok((Signer::Subkey(key, subkey), name(&subkey.key)));
            }
        }
        let by = fingerprints.first().map(|print| format!("{print:X}")).or(ids.first().map(|id| format!("{id}")));
        bail!("the key {} is not known", by.unwrap_or_else(|| "of a signature that names none".to_owned()))
    }
}

fn seconds(time: Option<Timestamp>) -> Option<u64> {
    time.map(|time| u64::from(time.as_secs()))
}

/// SHA-1 and MD5 can be collided: what they sign is not what was meant.
fn strong(signature: &Signature) -> Result<()> {
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => Ok(()),
        Some(other) => bail!("it uses {other}, which is too weak"),
        None => bail!("it is of an unknown form"),
    }
}

/// The newest of `signatures` that is sound and was made by `now`.
fn newest<'a>(
    signatures: impl Iterator<Item = &'a Signature>,
    now: u64,
    sound: impl Fn(&Signature) -> bool,
) -> Option<&'a Signature> {
    signatures
        .filter(|signature| strong(signature).is_ok() && sound(signature))
        .filter(|signature| seconds(signature.created()).is_some_and(|made| made <= now + CLOCK_SLACK))
        .filter(|signature| {
            let life = signature.signature_expiration_time().map_or(0, |life| u64::from(life.as_secs()));
            life == 0 || seconds(signature.created()).is_some_and(|made| made + life > now)
        })
        .max_by_key(|signature| seconds(signature.created()))
}

/// Refuses a key whose life is over, as its self-signature tells it (RFC 9580 section 5.2.3.13: counted from the key's creation).
fn alive(created: Timestamp, own: &Signature, now: u64) -> Result<()> {
    let created = u64::from(created.as_secs());
    if created > now + CLOCK_SLACK {
        bail!("it is from the future ({})", super::release::date(created));
    }
    match own.key_expiration_time().map_or(0, |life| u64::from(life.as_secs())) {
        0 => Ok(()),
        life if created + life > now => Ok(()),
        life => bail!("it expired on {}", super::release::date(created + life)),
    }
}

/// The self-signature that says what a primary key may do, if the key is alive and not revoked.
fn primary(key: &SignedPublicKey, now: u64) -> Result<&Signature> {
    let public = &key.primary_key;
    // A revocation counts whenever it was made: a thief can set a clock back.
    if key.details.revocation_signatures.iter().any(|revocation| revocation.verify_key(public).is_ok()) {
        bail!("it was revoked");
    }
    let direct = newest(key.details.direct_signatures.iter(), now, |signature| signature.verify_key(public).is_ok());
    let certified = key.details.users.iter().filter_map(|user| {
        let by_itself =
            |signature: &Signature| signature.verify_certification(public, pgp::types::Tag::UserId, &user.id).is_ok();
        let revoked = user
            .signatures
            .iter()
            .any(|signature| signature.typ() == Some(SignatureType::CertRevocation) && by_itself(signature));
        if revoked {
            return None;
        }
        newest(user.signatures.iter().filter(|signature| signature.is_certification()), now, by_itself)
    });
    // A direct signature often only names who may revoke the key (Debian's do): it does not outrank what the certification of the
    // user says about flags, and a key has to be alive by both. A revocation by such another key is not looked for: a keyring does
    // not hold those keys.
    let own = certified
        .max_by_key(|signature| seconds(signature.created()))
        .or(direct)
        .context("it has no sound signature of its own")?;
    for signature in [own].into_iter().chain(direct) {
        alive(public.created_at(), signature, now)?;
    }
    Ok(own)
}

/// Refuses a subkey that is revoked, expired, not for signing, or not bound to its primary key in both directions.
fn binding(key: &SignedPublicKey, subkey: &SignedPublicSubKey, now: u64) -> Result<()> {
    let bound = |signature: &Signature| signature.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok();
    let of_type = |typ| subkey.signatures.iter().filter(move |signature| signature.typ() == Some(typ));
    if of_type(SignatureType::SubkeyRevocation).any(bound) {
        bail!("it was revoked");
    }
    let own =
        newest(of_type(SignatureType::SubkeyBinding), now, bound).context("its primary key has not signed for it")?;
    alive(subkey.key.created_at(), own, now)?;
    if !own.key_flags().sign() {
        bail!("it is not one for signing data");
    }
    // Without its back signature, anybody could claim somebody else's signing key as his own (RFC 9580 section 5.2.1.8).
    let back = own.embedded_signature().context("it has not signed for its primary key")?;
    strong(back)?;
    back.verify_primary_key_binding(&subkey.key, &key.primary_key)
        .map_err(|_| anyhow!("its signature for its primary key is wrong"))
}

#[cfg(test)]
mod tests;
