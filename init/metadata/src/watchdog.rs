//! The `[watchdog]` table: whether a watchdog resets a machine that hangs, and after how long.
use schemars::JsonSchema;
use serde::Serialize;

use crate::read::{Reader, Table};

/// What resets a machine that hangs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Watchdog {
    /// Whether the machine's watchdog is armed, or the kernel's own where it has none. Default true.
    pub enabled: bool,
    /// Seconds that the watchdog waits before it resets a machine that does not feed it any more, 10 to 600. Default 60.
    #[schemars(extend("minimum" = 10, "maximum" = 600))]
    pub timeout: u32,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { enabled: true, timeout: 60 }
    }
}

/// Reads the table.
pub(crate) fn watchdog(reader: &mut Reader<'_>, mut table: Table<'_>) -> Watchdog {
    let default = Watchdog::default();
    let enabled = reader.take_bool(&mut table, "enabled").unwrap_or(default.enabled);
    let timeout = reader.take_integer(&mut table, "timeout", 10, 600);
    reader.finish(&table);
    Watchdog { enabled, timeout: timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(default.timeout) }
}

#[cfg(test)]
mod tests {
    use super::Watchdog;
    use crate::parse;

    #[test]
    fn it_is_armed_unless_somebody_says_otherwise() {
        let read = |text: &str| parse(&format!("version = 1\nrole = \"node\"\n[watchdog]\n{text}\n"));
        for (text, enabled, timeout) in [("", true, 60), ("enabled = false", false, 60), ("timeout = 10", true, 10)] {
            assert_eq!(read(text).unwrap().watchdog, Watchdog { enabled, timeout }, "{text}");
        }
        for (text, want) in [
            ("timeout = 9", "watchdog.timeout: 9 is smaller than 10; give a value between 10 and 600"),
            ("enabled = 1", "watchdog.enabled: is an integer; give true or false"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
