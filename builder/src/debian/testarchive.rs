//! A small signed archive on the loopback address, with keys of its own, as broken as a test wants it.
use std::collections::BTreeMap;

use pgp::composed::{
    CleartextSignedMessage, EncryptionCaps, KeyType, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, Signature, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::types::{Duration, Password, SignedUser, SigningKey, Tag, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::keyring::Keyring;
use super::mirror::Mirrors;
use crate::http::testserver::Server;
use crate::store::Digest;

/// The time of all tests: 2026-11-22 20:00 UTC.
pub(crate) const NOW: u64 = 1_795_377_600;
const DAY: u64 = 86_400;

/// How a key is made. The default is as Debian's are: a primary key that certifies and signs, and a subkey that signs.
#[derive(Debug, Clone)]
pub(crate) struct KeyOptions {
    pub(crate) seed: u64,
    /// Seconds after its creation (a year before [`NOW`]), 0 for ever.
    pub(crate) primary_life: u64,
    pub(crate) primary_signs: bool,
    pub(crate) primary_revoked: bool,
    pub(crate) subkey_life: u64,
    pub(crate) subkey_signs: bool,
    pub(crate) subkey_revoked: bool,
    pub(crate) back_signature: bool,
    /// What the primary key signs its own parts with.
    pub(crate) hash: HashAlgorithm,
    /// Ed25519 keys refuse weak digests by themselves, RSA keys do not.
    pub(crate) kind: KeyType,
}

impl Default for KeyOptions {
    fn default() -> KeyOptions {
        KeyOptions {
            seed: 1,
            primary_life: 0,
            primary_signs: true,
            primary_revoked: false,
            subkey_life: 0,
            subkey_signs: true,
            subkey_revoked: false,
            back_signature: true,
            hash: HashAlgorithm::Sha256,
            kind: KeyType::Ed25519Legacy,
        }
    }
}

/// A secret key, and the public key as [`KeyOptions`] want it.
pub(crate) struct TestKey {
    secret: SignedSecretKey,
    pub(crate) public: SignedPublicKey,
}

const CREATED: u64 = NOW - 365 * DAY;

fn stamp(time: u64) -> Timestamp {
    Timestamp::from_secs(u32::try_from(time).unwrap())
}

fn config(
    key: &impl SigningKey,
    typ: SignatureType,
    hash: HashAlgorithm,
    made: u64,
    more: Vec<SubpacketData>,
) -> SignatureConfig {
    let mut config = SignatureConfig::v4(typ, key.algorithm(), hash);
    let own = [SubpacketData::SignatureCreationTime(stamp(made)), SubpacketData::IssuerFingerprint(key.fingerprint())];
    config.hashed_subpackets = own.into_iter().chain(more).map(|data| Subpacket::regular(data).unwrap()).collect();
    config
}

fn flags(sign: bool, certify: bool) -> SubpacketData {
    let mut flags = KeyFlags::default();
    flags.set_sign(sign);
    flags.set_certify(certify);
    SubpacketData::KeyFlags(flags)
}

fn life(seconds: u64) -> SubpacketData {
    SubpacketData::KeyExpirationTime(Duration::from_secs(u32::try_from(seconds).unwrap()))
}

impl TestKey {
    pub(crate) fn new(options: &KeyOptions) -> TestKey {
        let mut subkey = SubkeyParamsBuilder::default();
        subkey
            .key_type(options.kind.clone())
            .can_sign(true)
            .can_encrypt(EncryptionCaps::None)
            .created_at(stamp(CREATED));
        let mut params = SecretKeyParamsBuilder::default();
        params
            .key_type(options.kind.clone())
            .can_certify(true)
            .created_at(stamp(CREATED))
            .primary_user_id("Test <t@example>".into());
        params.subkeys(vec![subkey.build().unwrap()]);
        let secret = params.build().unwrap().generate(StdRng::seed_from_u64(options.seed)).unwrap();
        let public = dress(&secret, options);
        TestKey { secret, public }
    }

    pub(crate) fn keyring(&self) -> Keyring {
        let bytes = pgp::ser::Serialize::to_bytes(&self.public).unwrap();
        Keyring::parse(&[&bytes], "the test's keyring").unwrap()
    }

    /// The text, clear-signed by the subkey at `made`.
    pub(crate) fn sign(&self, text: &str, made: u64) -> String {
        self.sign_with(&self.secret.secret_subkeys[0].key, text, made, HashAlgorithm::Sha256, Vec::new())
    }

    pub(crate) fn sign_by_primary(&self, text: &str, made: u64) -> String {
        self.sign_with(&self.secret.primary_key, text, made, HashAlgorithm::Sha256, Vec::new())
    }

    pub(crate) fn sign_weakly(&self, text: &str, made: u64) -> String {
        self.sign_with(&self.secret.secret_subkeys[0].key, text, made, HashAlgorithm::Sha1, Vec::new())
    }

    pub(crate) fn sign_for(&self, text: &str, made: u64, seconds: u64) -> String {
        let expiration = SubpacketData::SignatureExpirationTime(Duration::from_secs(u32::try_from(seconds).unwrap()));
        self.sign_with(&self.secret.secret_subkeys[0].key, text, made, HashAlgorithm::Sha256, vec![expiration])
    }

    fn sign_with(
        &self,
        key: &impl SigningKey,
        text: &str,
        made: u64,
        hash: HashAlgorithm,
        more: Vec<SubpacketData>,
    ) -> String {
        let config = config(key, SignatureType::Text, hash, made, more);
        CleartextSignedMessage::new(text, config, key, &Password::empty())
            .unwrap()
            .to_armored_string(Default::default())
            .unwrap()
    }
}

/// The public key with signatures of its own as the options want them.
fn dress(secret: &SignedSecretKey, options: &KeyOptions) -> SignedPublicKey {
    let mut public = SignedPublicKey::from(secret.clone());
    let (primary, password) = (&secret.primary_key, Password::empty());
    let own = |typ, more| config(primary, typ, options.hash, CREATED, more);
    let user = public.details.users[0].id.clone();
    let certification =
        own(SignatureType::CertPositive, vec![flags(options.primary_signs, true), life(options.primary_life)]);
    let certification =
        certification.sign_certification(primary, primary.public_key(), &password, Tag::UserId, &user).unwrap();
    public.details.users = vec![SignedUser::new(user, vec![certification])];
    public.details.direct_signatures.clear();
    if options.primary_revoked {
        let revocation =
            own(SignatureType::KeyRevocation, Vec::new()).sign_key(primary, &password, primary.public_key()).unwrap();
        public.details.revocation_signatures.push(revocation);
    }

    let subkey = &secret.secret_subkeys[0].key;
    let mut more = vec![flags(options.subkey_signs, false), life(options.subkey_life)];
    if options.back_signature {
        let back = config(subkey, SignatureType::KeyBinding, HashAlgorithm::Sha256, CREATED, Vec::new());
        let back = back.sign_primary_key_binding(subkey, subkey.public_key(), &password, primary.public_key()).unwrap();
        more.push(SubpacketData::EmbeddedSignature(Box::new(back)));
    }
    let bind = |config: SignatureConfig| -> Signature {
        config.sign_subkey_binding(primary, primary.public_key(), &password, subkey.public_key()).unwrap()
    };
    let mut signatures = vec![bind(own(SignatureType::SubkeyBinding, more))];
    if options.subkey_revoked {
        signatures.push(bind(own(SignatureType::SubkeyRevocation, Vec::new())));
    }
    public.public_subkeys = vec![SignedPublicSubKey::new(subkey.public_key().clone(), signatures)];
    public
}

/// An archive of one suite, `trixie`, for amd64.
pub(crate) struct TestArchive {
    pub(crate) server: Server,
    pub(crate) key: TestKey,
    /// Paths and contents of packages; names are their file stems up to `_`.
    packages: BTreeMap<String, (String, Vec<u8>)>,
    pub(crate) suite: &'static str,
    pub(crate) date: &'static str,
    pub(crate) valid_until: &'static str,
}

impl TestArchive {
    pub(crate) fn new() -> TestArchive {
        TestArchive {
            server: Server::start(),
            key: TestKey::new(&KeyOptions::default()),
            packages: BTreeMap::new(),
            suite: "trixie",
            date: "Sat, 21 Nov 2026 02:10:46 UTC",
            valid_until: "Sat, 28 Nov 2026 02:10:46 UTC",
        }
    }

    pub(crate) fn mirrors(&self) -> Mirrors {
        Mirrors { main: format!("{}/debian", self.server.url), security: None }
    }

    /// Adds a package; `fields` are further lines of its stanza.
    pub(crate) fn package(&mut self, name: &str, version: &str, fields: &str, deb: Vec<u8>) {
        self.package_of("main", name, version, fields, deb);
    }

    /// Adds a package of a component.
    pub(crate) fn package_of(&mut self, component: &str, name: &str, version: &str, fields: &str, deb: Vec<u8>) {
        let path = format!("pool/{component}/{name}_{version}_amd64.deb");
        let stanza = format!(
            "Package: {name}\nVersion: {version}\n{fields}Filename: {path}\nSize: {}\nSHA256: {}\n",
            deb.len(),
            Digest::of(&deb)
        );
        self.packages.insert(path, (stanza, deb));
    }

    pub(crate) fn index(&self) -> Vec<u8> {
        self.index_of("main")
    }

    fn index_of(&self, component: &str) -> Vec<u8> {
        let inside = self.packages.iter().filter(|(path, _)| path.starts_with(&format!("pool/{component}/")));
        let text: String = inside.map(|(_, (stanza, _))| format!("{stanza}\n")).collect();
        let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 1);
        std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    pub(crate) fn release(&self) -> String {
        let mut text = format!(
            "Origin: Test\nSuite: stable\nCodename: {}\nDate: {}\nValid-Until: {}\nArchitectures: amd64\nComponents: main non-free-firmware\nSHA256:\n",
            self.suite, self.date, self.valid_until,
        );
        for component in self.components() {
            let index = self.index_of(component);
            text += &format!(" {} {} {component}/binary-amd64/Packages.xz\n", Digest::of(&index), index.len());
        }
        text
    }

    /// Those that have packages.
    fn components(&self) -> impl Iterator<Item = &'static str> {
        let has = |component: &&str| {
            *component == "main" || self.packages.keys().any(|path| path.starts_with(&format!("pool/{component}/")))
        };
        ["main", "non-free-firmware"].into_iter().filter(has)
    }

    /// Puts everything on the server, signed.
    pub(crate) fn publish(&self) {
        self.server.put("/debian/dists/trixie/InRelease", self.key.sign(&self.release(), NOW - 2 * DAY));
        for component in self.components() {
            let path = format!("/debian/dists/trixie/{component}/binary-amd64/Packages.xz");
            self.server.put(&path, self.index_of(component));
        }
        for (path, (_, deb)) in &self.packages {
            self.server.put(&format!("/debian/{path}"), deb.clone());
        }
    }
}

/// A `.deb` with these files.
pub(crate) fn deb(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = tar::Builder::new(liblzma::write::XzEncoder::new(Vec::new(), 1));
    for (path, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        data.append_data(&mut header, path, *contents).unwrap();
    }
    package(&data.into_inner().unwrap().finish().unwrap())
}

/// A `.deb` around a `data.tar.xz`.
pub(crate) fn package(data: &[u8]) -> Vec<u8> {
    let mut archive = ar::Builder::new(Vec::new());
    for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("control.tar.xz", b"-"), ("data.tar.xz", data)] {
        archive.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes).unwrap();
    }
    archive.into_inner().unwrap()
}
