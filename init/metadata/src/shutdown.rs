//! The `[shutdown]` table: how much time a machine's pods have when it stops or starts anew.
use schemars::JsonSchema;
use serde::Serialize;

use crate::read::{Reader, Table, fault};

/// Seconds that pods have, where the metadata gives no number.
const DEFAULT: u32 = 30;

/// How a machine's pods end with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Shutdown {
    /// Seconds that all pods together have at most, each no more than its own grace period. Default 30; with 0 they are ended like any process.
    #[schemars(extend("maximum" = 3600))]
    pub grace_seconds: u32,
    /// How many of these are kept for critical pods, which end last: the control plane, DNS. Default 10, or a third where that is less.
    #[schemars(extend("maximum" = 3600))]
    pub critical_grace_seconds: u32,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace_seconds: DEFAULT, critical_grace_seconds: critical(DEFAULT) }
    }
}

/// What critical pods have of so many seconds where nobody says otherwise.
fn critical(grace_seconds: u32) -> u32 {
    (grace_seconds / 3).min(10)
}

/// Reads the table.
pub(crate) fn shutdown(reader: &mut Reader<'_>, mut table: Table<'_>) -> Shutdown {
    let mut seconds = |key| {
        let given = reader.take_integer(&mut table, key, 0, 3600);
        given.and_then(|seconds| u32::try_from(seconds).ok())
    };
    let grace_seconds = seconds("grace_seconds").unwrap_or(DEFAULT);
    let critical_grace_seconds = seconds("critical_grace_seconds").unwrap_or_else(|| critical(grace_seconds));
    if critical_grace_seconds > grace_seconds && !reader.faulty(&table.path_of("grace_seconds")) {
        let what =
            format!("{critical_grace_seconds} is more than all pods have, shutdown.grace_seconds = {grace_seconds}");
        reader.fault_at(&table.path_of("critical_grace_seconds"), fault(what, "give a part of that"));
    }
    reader.finish(&table);
    Shutdown { grace_seconds, critical_grace_seconds }
}
