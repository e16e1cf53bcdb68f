//! Two TOML documents, the defaults and the user's, become one [`ImageSpec`]; every complaint names the user's line.
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::{DEFAULT, ImageSpec, keys};

/// Lists whose entries are added to those of the defaults.
const ADDED: [&str; 3] = ["program", "file", "bundle"];

/// What is wrong in an image.toml, and where.
#[derive(Debug, thiserror::Error)]
pub struct SpecError {
    file: PathBuf,
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
    message: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The user's document, to say where things are in it.
struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, span: Option<Range<usize>>, message: impl Into<String>) -> SpecError {
        let place = span.and_then(|span| self.text.get(..span.start)).map(|before| {
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
        });
        SpecError { file: self.file.to_owned(), place, message: message.into() }
    }

    fn toml_error(&self, error: &toml::de::Error) -> SpecError {
        self.error(error.span(), error.message())
    }
}

pub(super) fn parse(text: &str, file: &Path) -> Result<ImageSpec> {
    let source = Source { file, text };
    let user = DeTable::parse(text).map_err(|error| source.toml_error(&error))?;
    check_keys(&source, user.get_ref())?;
    check_entries(&source, user.get_ref())?;
    let span = user.span();
    let mut merged = DeTable::parse(DEFAULT).context("reading the built-in default.toml")?.into_inner();
    drop_entries(&source, &mut merged, user.get_ref())?;
    let mut merged: DeTable<'_> = merged;
    merge(&mut merged, user.into_inner(), "");
    let spec = ImageSpec::deserialize(toml::de::Deserializer::from(Spanned::new(span, merged)))
        .map_err(|error| source.toml_error(&error))?;
    if spec.version != 1 {
        bail!(source.error(None, format!("version {} is not known; this program reads version 1", spec.version)));
    }
    Ok(spec)
}

/// Refuses keys that nothing reads.
fn check_keys(source: &Source, user: &DeTable) -> Result<(), SpecError> {
    check_table(source, user, "")?;
    for (name, value) in user {
        let section = name.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Table(table) => check_table(source, table, section)?,
            DeValue::Array(items) if ADDED.contains(&section) => {
                for item in items.iter() {
                    if let DeValue::Table(table) = item.get_ref() {
                        check_table(source, table, section)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_table(source: &Source, table: &DeTable, section: &str) -> Result<(), SpecError> {
    let known = keys::of(section);
    for key in table.keys() {
        let typed = key.get_ref().as_ref();
        if known.contains(&typed) {
            continue;
        }
        let place = if section.is_empty() { "at the top level".to_owned() } else { format!("in [{section}]") };
        let help = match keys::nearest(typed, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known are {}", known.join(", ")),
        };
        return Err(source.error(Some(key.span()), format!("unknown key `{typed}` {place}; {help}")));
    }
    Ok(())
}

/// Paths in packages and images are absolute and plain; a package's name is one.
fn check_entries(source: &Source, user: &DeTable) -> Result<(), SpecError> {
    for section in ADDED {
        for item in entries(user, section) {
            let DeValue::Table(table) = item.get_ref() else {
                continue;
            };
            for (key, value) in table {
                let texts: Vec<&Spanned<DeValue>> = match value.get_ref() {
                    DeValue::Array(items) => items.iter().collect(),
                    _ => vec![value],
                };
                for text in texts {
                    let Some(word) = text.get_ref().as_str() else {
                        continue;
                    };
                    let wrong = match key.get_ref().as_ref() {
                        "path" | "as" | "links" => wrong_path(word),
                        "package" => wrong_package(word),
                        _ => None,
                    };
                    if let Some(message) = wrong {
                        return Err(source.error(Some(text.span()), message));
                    }
                }
            }
        }
    }
    Ok(())
}

fn wrong_path(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some(format!("the path `{path}` is not absolute: write it with a leading `/`"));
    }
    let plain = path[1..].split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    (!plain).then(|| format!("the path `{path}` has an empty, `.` or `..` part, or a trailing slash"))
}

fn wrong_package(name: &str) -> Option<String> {
    // Debian Policy 5.6.7: lower case letters, digits, plus, minus and period.
    let plain = name.len() > 1
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    (!plain).then(|| format!("`{name}` is not the name of a Debian package"))
}

fn entries<'a, 'i>(document: &'a DeTable<'i>, section: &str) -> &'a [Spanned<DeValue<'i>>] {
    match document.get(section).map(|value| value.get_ref()) {
        Some(DeValue::Array(items)) => items,
        _ => &[],
    }
}

fn text_of<'a>(item: &'a Spanned<DeValue<'_>>, key: &str) -> Option<&'a str> {
    let DeValue::Table(table) = item.get_ref() else {
        return None;
    };
    table.get(key)?.get_ref().as_str()
}

/// Takes out of the defaults what `drop` names.
fn drop_entries(source: &Source, defaults: &mut DeTable<'static>, user: &DeTable) -> Result<(), SpecError> {
    let Some(DeValue::Array(dropped)) = user.get("drop").map(|value| value.get_ref()) else {
        return Ok(());
    };
    for item in dropped.iter() {
        let Some(path) = item.get_ref().as_str() else {
            continue;
        };
        let mut found = false;
        for section in ADDED {
            if let Some(value) = defaults.get_mut(section)
                && let DeValue::Array(items) = value.get_mut()
            {
                let before = items.len();
                *items = std::mem::take(items)
                    .into_iter()
                    .filter(|entry| text_of(entry, "path") != Some(path) && text_of(entry, "as") != Some(path))
                    .collect();
                found |= items.len() != before;
            }
        }
        if !found {
            return Err(source.error(Some(item.span()), format!("nothing in the defaults has the path `{path}`")));
        }
    }
    Ok(())
}

/// Lays `over` on `base`: tables key by key, entries added, everything else replaced.
fn merge<'i>(base: &mut DeTable<'i>, over: DeTable<'i>, section: &str) {
    for (key, value) in over {
        let span = value.span();
        let added = section.is_empty() && ADDED.contains(&key.get_ref().as_ref());
        match (base.get_mut(key.get_ref().as_ref()).map(|value| value.get_mut()), value.into_inner()) {
            (Some(DeValue::Table(below)), DeValue::Table(above)) => merge(below, above, key.get_ref()),
            (Some(DeValue::Array(below)), DeValue::Array(above)) if added => {
                for entry in above {
                    let path = text_of(&entry, "path").map(str::to_owned);
                    match below.iter_mut().find(|known| path.is_some() && text_of(known, "path") == path.as_deref()) {
                        Some(known) => *known = entry,
                        None => below.push(entry),
                    }
                }
            }
            (_, value) => {
                // Removed first: a map keeps the old key, and with it the place of the default's line.
                base.remove(key.get_ref().as_ref());
                base.insert(Spanned::new(key.span(), DeString::from(key.into_inner())), Spanned::new(span, value));
            }
        }
    }
}
