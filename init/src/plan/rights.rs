//! A [`Rights`] says as which user a service runs and what is left to it of root's capabilities, as text and back.
use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error};
use rustix::thread::CapabilitySet;

/// What a service may do. Whatever it starts may do no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Number of its user, and of its only group.
    pub user: u32,
    /// What it may do besides what any program of that user may (capabilities(7)).
    pub capabilities: CapabilitySet,
}

/// `USER:CAPABILITY,...`, such as `905:NET_ADMIN`.
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.capabilities.iter_names().map(|(name, _)| name).collect();
        write!(f, "{}:{}", self.user, names.join(","))
    }
}

impl FromStr for Rights {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (user, names) = text.split_once(':').with_context(|| format!("{text:?} is not USER:CAPABILITY,..."))?;
        let user = user.parse().with_context(|| format!("{user:?} is no number of a user"))?;
        let mut capabilities = CapabilitySet::empty();
        for name in names.split(',').filter(|name| !name.is_empty()) {
            capabilities |= CapabilitySet::from_name(name).with_context(|| format!("{name:?} is no capability"))?;
        }
        Ok(Self { user, capabilities })
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::Rights;

    #[test]
    fn rights_survive_their_text() {
        for (text, user, capabilities) in [
            ("905:NET_ADMIN", 905, CapabilitySet::NET_ADMIN),
            ("0:CHOWN,FOWNER", 0, CapabilitySet::CHOWN | CapabilitySet::FOWNER),
            ("1:", 1, CapabilitySet::empty()),
        ] {
            let rights = Rights { user, capabilities };
            assert_eq!(rights.to_string(), text);
            assert_eq!(text.parse::<Rights>().unwrap(), rights);
        }
    }

    #[test]
    fn what_is_not_understood_gives_no_rights() {
        for (text, why) in [
            ("905", r#""905" is not USER:CAPABILITY,..."#),
            ("root:CHOWN", r#""root" is no number of a user"#),
            (":CHOWN", r#""" is no number of a user"#),
            ("-1:CHOWN", r#""-1" is no number of a user"#),
            ("0:CHOWN,ALL", r#""ALL" is no capability"#),
            ("0:chown", r#""chown" is no capability"#),
        ] {
            assert_eq!(text.parse::<Rights>().unwrap_err().to_string(), why, "{text}");
        }
    }
}
