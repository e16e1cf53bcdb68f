//! Keyrings with keys of every kind of fault meet signatures, and only sound ones are believed.
use super::Keyring;
use crate::debian::testarchive::{KeyOptions, NOW, TestKey};
use pgp::composed::KeyType;
use pgp::crypto::hash::HashAlgorithm;

const TEXT: &str = "Suite: trixie\n- dashes, which are escaped\n";
const DAY: u64 = 86_400;
const YEAR: u64 = 365 * DAY;

#[track_caller]
fn check(keyring: &Keyring, message: &str, want: Result<(), &str>) {
    let got = keyring.verify(message.as_bytes(), NOW).map_err(|error| format!("{error:#}"));
    match want {
        Ok(()) => assert_eq!(got.unwrap(), TEXT),
        Err(part) => assert!(got.as_ref().is_err_and(|error| error.contains(part)), "wanted `{part}`, got {got:?}"),
    }
}

#[track_caller]
fn check_key(options: &KeyOptions, want: Result<(), &str>) {
    let key = TestKey::new(options);
    check(&key.keyring(), &key.sign(TEXT, NOW - DAY), want);
}

#[test]
fn a_good_signature_by_either_key() {
    let key = TestKey::new(&KeyOptions::default());
    check(&key.keyring(), &key.sign(TEXT, NOW - DAY), Ok(()));
    check(&key.keyring(), &key.sign_by_primary(TEXT, NOW - DAY), Ok(()));
}

#[test]
fn what_stands_around_the_signed_text_has_no_say() {
    let key = TestKey::new(&KeyOptions::default());
    let message = format!("{}\nSuite: forged\n", key.sign(TEXT, NOW - DAY));
    if let Ok(text) = key.keyring().verify(message.as_bytes(), NOW) {
        assert!(!text.contains("forged"));
    }
}

#[test]
fn changed_cut_and_unsigned_texts() {
    let key = TestKey::new(&KeyOptions::default());
    let good = key.sign(TEXT, NOW - DAY);
    check(&key.keyring(), &good.replace("trixie", "trixia"), Err("is wrong: the text was changed"));
    check(&key.keyring(), &good[..good.len() - 60], Err("it is not a whole clear-signed message"));
    check(&key.keyring(), &good[..80], Err("it is not a whole clear-signed message"));
    check(&key.keyring(), TEXT, Err("it is not a whole clear-signed message"));
}

#[test]
fn an_unknown_key_is_named() {
    let key = TestKey::new(&KeyOptions::default());
    let other = TestKey::new(&KeyOptions { seed: 2, ..KeyOptions::default() });
    let error = format!("{:#}", other.keyring().verify(key.sign(TEXT, NOW - DAY).as_bytes(), NOW).unwrap_err());
    let print = pgp::types::KeyDetails::fingerprint(&key.public.public_subkeys[0].key);
    assert!(error.contains(&format!("the key {print:X} is not known")), "{error}");
    assert!(error.contains("no signature counts with the test's keyring") && error.contains("hint: "), "{error}");
}

#[test]
fn keys_that_do_not_count() {
    let good = KeyOptions::default();
    check_key(&KeyOptions { primary_life: YEAR + DAY, subkey_life: YEAR + DAY, ..good.clone() }, Ok(()));
    check_key(&KeyOptions { primary_life: YEAR - DAY, ..good.clone() }, Err("it expired on 2026-11-21 20:00 UTC"));
    check_key(&KeyOptions { subkey_life: YEAR - DAY, ..good.clone() }, Err("it expired on 2026-11-21 20:00 UTC"));
    check_key(&KeyOptions { primary_revoked: true, ..good.clone() }, Err("it was revoked"));
    check_key(&KeyOptions { subkey_revoked: true, ..good.clone() }, Err("it was revoked"));
    check_key(&KeyOptions { subkey_signs: false, ..good.clone() }, Err("it is not one for signing data"));
    check_key(&KeyOptions { back_signature: false, ..good.clone() }, Err("it has not signed for its primary key"));
    check_key(
        &KeyOptions { hash: HashAlgorithm::Sha1, kind: KeyType::Rsa(2048), ..good.clone() },
        Err("it has no sound signature of its own"),
    );
    let certifier = TestKey::new(&KeyOptions { primary_signs: false, ..good });
    check(&certifier.keyring(), &certifier.sign_by_primary(TEXT, NOW - DAY), Err("is not one for signing data"));
    check(&certifier.keyring(), &certifier.sign(TEXT, NOW - DAY), Ok(()));
}

#[test]
fn signatures_that_do_not_count() {
    let key = TestKey::new(&KeyOptions::default());
    let rsa = TestKey::new(&KeyOptions { kind: KeyType::Rsa(2048), ..KeyOptions::default() });
    check(&rsa.keyring(), &rsa.sign(TEXT, NOW - DAY), Ok(()));
    check(&rsa.keyring(), &rsa.sign_weakly(TEXT, NOW - DAY), Err("SHA1, which is too weak"));
    check(&key.keyring(), &key.sign(TEXT, NOW + 2 * DAY), Err("is from the future (2026-11-24 20:00 UTC)"));
    check(&key.keyring(), &key.sign_for(TEXT, NOW - DAY, 3600), Err("has expired"));
    check(&key.keyring(), &key.sign_for(TEXT, NOW - DAY, 2 * DAY), Ok(()));
}

#[test]
fn the_keys_in_the_program_are_good_now_and_not_for_ever() {
    let keyring = Keyring::embedded().unwrap();
    assert_eq!(keyring.keys.len(), 3);
    for key in &keyring.keys {
        super::primary(key, NOW).unwrap();
        // 2035-04-01: Debian gives its archive's keys ten years at most.
        assert!(super::primary(key, 2_058_998_400).is_err());
        for subkey in &key.public_subkeys {
            super::binding(key, subkey, NOW).unwrap();
        }
    }
}

#[test]
fn an_empty_keyring_is_refused() {
    assert!(format!("{:#}", Keyring::parse(&[b""], "x.gpg").unwrap_err()).contains("reading the keyring x.gpg"));
    assert!(format!("{:#}", Keyring::read("/nonexistent.gpg".as_ref()).unwrap_err()).contains("/nonexistent.gpg"));
}
