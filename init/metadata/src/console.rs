//! Reads `[console]`: what whoever stands at the machine's own console may do there.
use schemars::JsonSchema;
use serde::Serialize;

use crate::read::{Reader, Table, fault};

/// The machine's own console: serial line and screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Console {
    /// What keys do there: `all` shows the machine's state and, after a typed word, restarts it or switches it off; `look` only shows; `none` does nothing.
    /// Default `all`: who stands there has the power button.
    pub keys: Keys,
}

/// What keys do at the console.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// Show the machine's state, restart it, switch it off.
    #[default]
    All,
    /// Show the machine's state.
    Look,
    /// Nothing.
    None,
}

pub(crate) fn console(reader: &mut Reader<'_>, mut table: Table<'_>) -> Console {
    let keys = reader.take_string(&mut table, "keys", |text| match text {
        "all" => Ok(Keys::All),
        "look" => Ok(Keys::Look),
        "none" => Ok(Keys::None),
        other => Err(fault(format!("{other:?} is none of them"), "use \"all\", \"look\" or \"none\"")),
    });
    reader.finish(&table);
    Console { keys: keys.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::Keys;
    use crate::parse;

    #[track_caller]
    fn check(console: &str, want: Keys) {
        let read = parse(&format!("version = 1\nrole = \"node\"\n{console}\n")).unwrap();
        assert_eq!(read.console.keys, want);
    }

    #[test]
    fn keys_are_on_unless_they_are_turned_off() {
        check("", Keys::All);
        check("[console]", Keys::All);
        check("[console]\nkeys = \"all\"", Keys::All);
        check("[console]\nkeys = \"look\"", Keys::Look);
        check("[console]\nkeys = \"none\"", Keys::None);
        let error = parse("version = 1\nrole = \"node\"\n[console]\nkeys = \"some\"\n").unwrap_err().to_string();
        assert!(error.contains("console.keys: \"some\" is none of them; use \"all\", \"look\" or \"none\""), "{error}");
    }
}
