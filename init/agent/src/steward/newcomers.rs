//! Remembers which machine was given a node's first certificate, for the time in which it becomes that node.
use std::collections::BTreeMap;
use std::time::Duration;

/// Approved requests by their name.
pub struct Newcomers {
    patience: Duration,
    approved: BTreeMap<String, Newcomer>,
}

struct Newcomer {
    /// Whom the certificate names.
    user: String,
    /// The machine's public key.
    key: Vec<u8>,
    /// When it was first seen here that it is approved, by the clock that nobody sets.
    since: Duration,
}

impl Newcomers {
    /// None are known. A machine has `patience` to become its node.
    pub fn new(patience: Duration) -> Self {
        Self { patience, approved: BTreeMap::new() }
    }

    /// A request was approved, here or by another master. It may be told again.
    pub fn approved(&mut self, request: &str, user: &str, key: &[u8], now: Duration) {
        self.approved.entry(request.to_owned()).or_insert_with(|| Newcomer {
            user: user.to_owned(),
            key: key.to_vec(),
            since: now,
        });
    }

    /// The request is not in the cluster any more.
    pub fn forget(&mut self, request: &str) {
        self.approved.remove(request);
    }

    /// Whether another machine, one with another key, is about to become that node.
    pub fn rival(&self, user: &str, key: &[u8], now: Duration) -> bool {
        self.approved
            .values()
            .any(|one| one.user == user && one.key != key && now.saturating_sub(one.since) < self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Newcomers};

    #[test]
    fn a_name_is_the_first_machines_for_a_while() {
        let at = Duration::from_secs;
        let mut newcomers = Newcomers::new(at(300));
        newcomers.approved("csr-1", "system:node:n1", b"its key", at(100));
        let check = |newcomers: &Newcomers, user: &str, key: &[u8], now: u64, want: bool| {
            assert_eq!(newcomers.rival(user, key, at(now)), want, "{user} at {now}");
        };
        check(&newcomers, "system:node:n1", b"another", 101, true);
        check(&newcomers, "system:node:n1", b"its key", 101, false);
        check(&newcomers, "system:node:n2", b"another", 101, false);
        check(&newcomers, "system:node:n1", b"another", 399, true);
        check(&newcomers, "system:node:n1", b"another", 400, false);
        // A watch that begins anew tells of it again, and that makes it no younger.
        newcomers.approved("csr-1", "system:node:n1", b"its key", at(399));
        check(&newcomers, "system:node:n1", b"another", 400, false);
        newcomers.approved("csr-2", "system:node:n1", b"a third", at(400));
        check(&newcomers, "system:node:n1", b"another", 401, true);
        newcomers.forget("csr-2");
        check(&newcomers, "system:node:n1", b"another", 401, false);
    }
}
