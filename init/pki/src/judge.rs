//! Decides whether a certificate that lies on a machine is kept or made anew.
use std::collections::BTreeSet;
use std::fmt::Display;

use crate::certificate::Facts;
use crate::{Certificate, Duration, Key, OffsetDateTime, Wanted, moment};

/// What becomes of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is as wanted.
    Keep {
        /// Its last second.
        until: OffsetDateTime,
    },
    /// It is to be made anew.
    Remake {
        /// What is wrong with it, in words for a log line.
        why: String,
    },
}

/// Holds a certificate and its key against what is wanted and against its authority. It is kept if it parses, its key fits, the authority signed it,
/// it says what is wanted, is valid and has more than a third of its life left.
///
/// Its life is `wanted.days`, or less where it was made for less: it may begin with its authority, long before it was made. A clock that is before
/// the authority's first second is taken for that second, as [`Authority::issue`](crate::Authority::issue) does; and what ends with its authority
/// is kept to its end, because a new one would end no later.
pub fn judge(
    certificate_pem: &str,
    key_pem: &str,
    wanted: &Wanted,
    authority: &Certificate,
    now: OffsetDateTime,
) -> Verdict {
    match fault(certificate_pem, key_pem, wanted, authority, now) {
        Ok(until) => Verdict::Keep { until },
        Err(why) => Verdict::Remake { why },
    }
}

fn fault(
    certificate_pem: &str,
    key_pem: &str,
    wanted: &Wanted,
    authority: &Certificate,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, String> {
    let words = |error: &dyn Display| error.to_string();
    let certificate = Certificate::parse(certificate_pem).map_err(|error| words(&error))?;
    let key = Key::parse(key_pem).map_err(|error| words(&error))?;
    if !certificate.fits(&key) {
        return Err("the key is another certificate's".to_owned());
    }
    if !certificate.signed_by(authority) {
        return Err(format!("it is not signed by {}", authority.facts().names.common_name));
    }
    let facts = certificate.facts();
    says(facts, wanted)?;
    let clock = moment(now);
    let now = authority.counted_from(now);
    if now < facts.not_before {
        return Err(format!("it is valid only from {} on, and the clock says {clock}", moment(facts.not_before)));
    }
    if now > facts.not_after {
        return Err(format!("it has ended on {}, and the clock says {clock}", moment(facts.not_after)));
    }
    let life = Duration::days(wanted.days.into()).min(facts.not_after - facts.not_before);
    let left = facts.not_after - now;
    if left > life / 3 || facts.not_after >= authority.facts().not_after {
        return Ok(facts.not_after);
    }
    Err(format!("only {} of its {} days are left", left.whole_days(), life.whole_days()))
}

/// Whether it says what is wanted, in any order.
fn says(facts: &Facts, wanted: &Wanted) -> Result<(), String> {
    let names = &facts.names;
    if names.common_name != wanted.common_name {
        return Err(format!("it is for {:?}, not for {:?}", names.common_name, wanted.common_name));
    }
    same("organizations", &names.organizations, &wanted.organizations)?;
    same("DNS names", &names.dns_names, &wanted.dns_names)?;
    same("addresses", &names.addresses, &wanted.addresses)?;
    if let Some(other) = names.other_subject.first().or(names.other_names.first()) {
        return Err(format!("it names {other} too"));
    }
    if facts.usages != wanted.usages || facts.other_usages || facts.is_authority {
        return Err("it is good for something else".to_owned());
    }
    Ok(())
}

fn same<T: Ord + Display>(what: &str, is: &[T], wanted: &[T]) -> Result<(), String> {
    let (is, wanted) = (BTreeSet::from_iter(is), BTreeSet::from_iter(wanted));
    let missing: Vec<_> = wanted.difference(&is).map(|item| format!("{item} is missing")).collect();
    let extra: Vec<_> = is.difference(&wanted).map(|item| format!("{item} is too many")).collect();
    if missing.is_empty() && extra.is_empty() {
        return Ok(());
    }
    Err(format!("its {what} changed: {}", [missing, extra].concat().join(", ")))
}
