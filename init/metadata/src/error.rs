//! Turns everything that is wrong with a metadata file into lines that name place, field, fault and fix.
use std::fmt;

/// Which of the two texts a problem stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The role metadata itself.
    Role,
    /// The file that holds only secret fields.
    Secrets,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which text.
    pub source: Source,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// Path of the field, e.g. `network.mtu`; empty where the text is no TOML at all.
    pub field: String,
    /// What is wrong. Never holds the value of a secret.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// All that is wrong with a file, in the order of its lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Errors {
    problems: Vec<Problem>,
    role_name: String,
    secrets_name: String,
}

impl Errors {
    /// Sorts problems by place. The files are called `role.toml` and `secrets.toml` until [`Errors::named`] says otherwise.
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.source, problem.line, problem.column));
        Self { problems, role_name: "role.toml".to_owned(), secrets_name: "secrets.toml".to_owned() }
    }

    /// Calls the two files by the names under which the user knows them.
    #[must_use]
    pub fn named(mut self, role: impl Into<String>, secrets: impl Into<String>) -> Self {
        self.role_name = role.into();
        self.secrets_name = secrets.into();
        self
    }

    /// The problems, one by one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let file = match problem.source {
                Source::Role => &self.role_name,
                Source::Secrets => &self.secrets_name,
            };
            write!(f, "{file}:{}:{}: ", problem.line, problem.column)?;
            if !problem.field.is_empty() {
                write!(f, "{}: ", problem.field)?;
            }
            write!(f, "{}; {}", problem.what, problem.fix)?;
        }
        Ok(())
    }
}
