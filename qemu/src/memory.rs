//! Turns the answer of a balloon device into [`Memory`]: what the guest's kernel says of its own.
use serde_json::Value;

/// Memory of a guest in bytes, by its kernel's own count (virtio 1.2, 5.5.6.3, "Memory Statistics Tags").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All that the kernel has to give: `MemTotal` of `/proc/meminfo`.
    pub total: u64,
    /// What new programs could get without anything being swapped: `MemAvailable`.
    pub available: u64,
}

impl Memory {
    /// What is in use and could not be had: caches do not count.
    pub fn used(self) -> u64 {
        self.total.saturating_sub(self.available)
    }

    /// Reads `guest-stats`; none where the guest has not told both (QEMU says -1 then).
    pub(crate) fn told(answer: &Value) -> Option<Memory> {
        let number = |key: &str| answer.get("stats")?.get(key)?.as_u64().filter(|bytes| *bytes != u64::MAX);
        Some(Memory { total: number("stat-total-memory")?, available: number("stat-available-memory")? })
    }
}

/// When the guest told it last, in seconds of the host's clock; 0 or none before the first time.
pub(crate) fn told_at(answer: &Value) -> Option<u64> {
    answer.get("last-update")?.as_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(answer: &Value, used: Option<u64>) {
        assert_eq!(Memory::told(answer).map(Memory::used), used);
    }

    #[test]
    fn memory_is_what_the_guest_told_and_nothing_before() {
        let answer = |total: Value, available: Value| json!({ "last-update": 7, "stats": { "stat-total-memory": total, "stat-available-memory": available, "stat-swap-in": 0 } });
        check(&answer(json!(2_000_u64), json!(1_500_u64)), Some(500));
        check(&answer(json!(2_000_u64), json!(u64::MAX)), None);
        check(&answer(json!(-1), json!(-1)), None);
        check(&answer(json!(1_000_u64), json!(1_500_u64)), Some(0));
        check(&json!({ "last-update": 0, "stats": {} }), None);
        check(&json!({}), None);
        assert_eq!(told_at(&answer(json!(1), json!(1))), Some(7));
        assert_eq!(told_at(&json!({})), None);
    }
}
