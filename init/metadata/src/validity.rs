//! Reads from when until when a certificate is valid, and whose key it is for, and nothing else of it (RFC 5280, 4.1).
use std::collections::BTreeSet;

use time::{Date, Month, OffsetDateTime, Time as Clock};

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version` of a TBSCertificate.
const VERSION: u8 = 0xa0;

/// From when certificates are valid, and until when one of them is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second of the youngest, in seconds since 1970.
    pub from: i64,
    /// The last second of the one that ends last, in seconds since 1970.
    pub until: i64,
}

/// When certificates of a PEM text are valid; `None` where one cannot be read, or there is none.
///
/// Of a CA that is rotated several stand there. Whoever wrote them down lived after the first second of the youngest; but one that has ended takes
/// nothing from those beside it, and is often left there.
#[must_use]
pub fn validity(pem: &str) -> Option<Validity> {
    let blocks = pem::parse_many(pem).ok()?;
    let mut all = blocks.iter().map(|block| of_der(block.contents()));
    let first = all.next()??;
    all.try_fold(first, |sum, one| {
        let one = one?;
        Some(Validity { from: sum.from.max(one.from), until: sum.until.max(one.until) })
    })
}

/// The public keys of all certificates of a PEM text, as they stand there (`SubjectPublicKeyInfo`): a CA that was renewed has the same one. A
/// certificate that cannot be read has none.
fn public_keys(pem: &str) -> BTreeSet<Vec<u8>> {
    let blocks = pem::parse_many(pem).unwrap_or_default();
    blocks.iter().filter_map(|block| public_key(block.contents())).collect()
}

/// Whether two PEM texts have the key of a certificate in common. Nothing where one of them has none that can be read.
#[must_use]
pub fn share_a_key(one: &str, other: &str) -> Option<bool> {
    let (one, other) = (public_keys(one), public_keys(other));
    (!one.is_empty() && !other.is_empty()).then(|| !one.is_disjoint(&other))
}

fn of_der(certificate: &[u8]) -> Option<Validity> {
    let (validity, _) = element(from_validity_on(certificate)?, SEQUENCE)?;
    let (from, rest) = moment(validity)?;
    let (until, _) = moment(rest)?;
    Some(Validity { from, until })
}

fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, subject) = element(from_validity_on(certificate)?, SEQUENCE)?;
    let (_, key) = element(subject, SEQUENCE)?;
    Some(element(key, SEQUENCE)?.0.to_vec())
}

/// A certificate's fields behind serial number, signature algorithm and issuer.
fn from_validity_on(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut tbs, _) = element(certificate, SEQUENCE)?;
    if let Some((_, rest)) = element(tbs, VERSION) {
        tbs = rest;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        tbs = element(tbs, tag)?.1;
    }
    Some(tbs)
}

/// The contents of an element with this tag (X.690, 8.1), and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    if first < 0x80 {
        return rest.split_at_checked(first.into());
    }
    let (length, rest) = rest.split_at_checked((first & 0x7f).into())?;
    if length.is_empty() || length.len() > 4 {
        return None;
    }
    let length = length.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    rest.split_at_checked(length.try_into().ok()?)
}

/// `YYMMDDHHMMSSZ` before 2050, `YYYYMMDDHHMMSSZ` from then on (RFC 5280, 4.1.2.5).
fn moment(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (digits, rest, century) = match element(bytes, UTC_TIME) {
        Some((digits, rest)) => (digits, rest, true),
        None => {
            let (digits, rest) = element(bytes, GENERALIZED_TIME)?;
            (digits, rest, false)
        }
    };
    let text = std::str::from_utf8(digits).ok()?.strip_suffix('Z')?;
    let (year, rest_of_text) = text.split_at_checked(if century { 2 } else { 4 })?;
    if rest_of_text.len() != 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let two = |index: usize| rest_of_text.get(2 * index..2 * index + 2)?.parse::<u8>().ok();
    let year = match (century, year.parse::<i32>().ok()?) {
        (true, year) if year < 50 => 2000 + year,
        (true, year) => 1900 + year,
        (false, year) => year,
    };
    let date = Date::from_calendar_date(year, Month::try_from(two(0)?).ok()?, two(1)?).ok()?;
    let time = Clock::from_hms(two(2)?, two(3)?, two(4)?).ok()?;
    Some((OffsetDateTime::new_utc(date, time).unix_timestamp(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{Validity, moment, of_der, public_key, public_keys, share_a_key, validity};

    const CA: &str = include_str!("../tests/ca.pem");
    /// Two certificates of one key.
    const OTHER: [&str; 2] = [include_str!("../tests/other-ca.pem"), include_str!("../tests/other-ca-renewed.pem")];

    #[test]
    fn a_ca_that_is_renewed_keeps_its_key() {
        let [before, after] = OTHER.map(public_keys);
        assert_eq!((before.len(), &before), (1, &after));
        assert!(before.is_disjoint(&public_keys(CA)));
        assert_eq!(public_keys(&format!("{CA}{}", OTHER[0])).len(), 2);
        assert!(
            public_keys("").is_empty()
                && public_keys("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").is_empty()
        );
        assert_eq!(share_a_key(OTHER[0], OTHER[1]), Some(true));
        assert_eq!(share_a_key(&format!("{CA}{}", OTHER[0]), OTHER[1]), Some(true));
        assert_eq!(share_a_key(CA, OTHER[0]), Some(false));
        assert_eq!((share_a_key("", CA), share_a_key(CA, "damaged")), (None, None));
        // An algorithm and a point of P-256.
        let key = before.first().unwrap();
        assert_eq!((key.len(), key[0]), (89, 0x30));
    }

    #[test]
    fn a_certificate_says_when_it_is_valid() {
        let once = validity(CA).unwrap();
        assert_eq!((once.from, once.until), (1_795_379_255, 4_948_979_255));
        assert_eq!(validity(&format!("{CA}{CA}")), Some(once));
        // Of several there is one until the last of them ends, in whatever order they stand.
        let other = validity(OTHER[1]).unwrap();
        let both = Validity { from: other.from, until: once.until };
        assert!(once.from < other.from && once.until > other.until, "{once:?} {other:?}");
        assert_eq!(validity(&format!("{CA}{}", OTHER[1])), Some(both));
        assert_eq!(validity(&format!("{}{CA}", OTHER[1])), Some(both));
        assert_eq!(validity(""), None);
        assert_eq!(validity("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), None);
    }

    #[track_caller]
    fn check(tag: u8, text: &str, want: Option<i64>) {
        let mut bytes = vec![tag, u8::try_from(text.len()).unwrap()];
        bytes.extend(text.bytes());
        assert_eq!(moment(&bytes).map(|(moment, _)| moment), want, "{text}");
    }

    #[test]
    fn both_forms_of_a_moment() {
        check(0x17, "700101000000Z", Some(0));
        check(0x17, "261124123456Z", Some(1_795_523_696));
        check(0x18, "20500101000000Z", Some(2_524_608_000));
        check(0x17, "261124123456", None);
        check(0x17, "2611241234Z", None);
        check(0x17, "261324123456Z", None);
        check(0x17, "260230123456Z", None);
        check(0x17, "26112412345+Z", None);
        check(0x18, "261124123456Z", None);
        check(0x02, "261124123456Z", None);
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (of_der(&bytes), public_key(&bytes));
        }

        #[test]
        fn a_damaged_certificate_is_read_or_refused(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut der = pem::parse(CA).unwrap().into_contents();
            *at.get_mut(&mut der) = byte;
            let _ = (of_der(&der), public_key(&der));
        }
    }
}
