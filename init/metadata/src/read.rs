//! Walks a parsed TOML document field by field, noting where each field stands and everything that is wrong with it.
use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Problem, Source};

/// What is wrong with one value, and what to do about it.
#[derive(Debug)]
pub(crate) struct Fault {
    /// What is wrong, e.g. `99999 is larger than 65535`.
    pub what: String,
    /// What to do, e.g. `give a value between 576 and 65535`.
    pub fix: String,
}

/// Makes a [`Fault`].
pub(crate) fn fault(what: impl Into<String>, fix: impl Into<String>) -> Fault {
    Fault { what: what.into(), fix: fix.into() }
}

/// A value that was asked for, with its place.
pub(crate) struct Field<'t> {
    pub path: String,
    pub value: &'t Spanned<DeValue<'t>>,
}

/// A table of which some keys were asked for; those that were not are unknown.
pub(crate) struct Table<'t> {
    path: String,
    entries: &'t DeTable<'t>,
    known: BTreeSet<&'static str>,
}

impl<'t> Table<'t> {
    /// The outermost table.
    pub fn root(entries: &'t DeTable<'t>) -> Self {
        Self { path: String::new(), entries, known: BTreeSet::new() }
    }

    /// The same table with further keys known.
    pub fn knowing(&self, keys: &[&'static str]) -> Self {
        let mut known = self.known.clone();
        known.extend(keys);
        Self { path: self.path.clone(), entries: self.entries, known }
    }

    /// The entries themselves, with their places.
    pub fn entries(&self) -> &'t DeTable<'t> {
        self.entries
    }

    /// Path of the table.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Path of a key of this table.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { quoted(key) } else { format!("{}.{}", self.path, quoted(key)) }
    }

    /// Every entry, in the order of the keys, for tables whose keys are the user's own.
    pub fn all(&self) -> impl Iterator<Item = (&'t str, Field<'t>)> {
        self.entries.iter().map(|(key, value)| {
            let field = Field { path: self.path_of(key.get_ref()), value };
            (key.get_ref().as_ref(), field)
        })
    }
}

/// Writes a key as it would stand in TOML, so that a path reads as one.
pub(crate) fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") }
}

/// Collects the places of fields and the problems of one or two texts.
pub(crate) struct Reader<'s> {
    texts: BTreeMap<Source, &'s str>,
    source: Source,
    places: BTreeMap<String, (Source, usize)>,
    /// Each with the byte at which it is.
    problems: Vec<(usize, Problem)>,
    own: Option<Own>,
}

/// What of a role file is one machine's own, where the file is a rack's.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// Path of the machine's entry.
    pub path: String,
    /// Bytes at which the entry's keys and values begin.
    pub places: BTreeSet<usize>,
}

impl<'s> Reader<'s> {
    pub fn new() -> Self {
        Self { texts: BTreeMap::new(), source: Source::Role, places: BTreeMap::new(), problems: Vec::new(), own: None }
    }

    /// Reads what was made of a rack's text for one machine, whose entry is `own`.
    pub fn of_rack(text: &'s str, own: Own) -> Self {
        Self { texts: BTreeMap::from([(Source::Role, text)]), own: Some(own), ..Self::new() }
    }

    /// Whether the role file is a rack's, which every machine of it reads.
    pub fn in_rack(&self) -> bool {
        self.own.is_some()
    }

    /// Parses a text; what is read next stands in it. `None` where it is no TOML.
    pub fn document<'d>(&mut self, source: Source, text: &'s str) -> Option<DeTable<'d>>
    where
        's: 'd,
    {
        self.source = source;
        self.texts.insert(source, text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut last_line = 0;
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            // One broken string makes errors for the rest of its line: only the first says something.
            let (line, _) = line_and_column(text, at);
            if line != last_line {
                self.report(at, "", syntax_fault(text, at, error.message()));
            }
            last_line = line;
        }
        errors.is_empty().then(|| table.into_inner())
    }

    /// The value of a key, which is known from now on.
    pub fn take<'t>(&mut self, table: &mut Table<'t>, key: &'static str) -> Option<Field<'t>> {
        table.known.insert(key);
        let value = table.entries.get(key)?;
        let path = table.path_of(key);
        self.place(&path, value.span().start);
        Some(Field { path, value })
    }

    /// The table under a key.
    pub fn take_table<'t>(&mut self, table: &mut Table<'t>, key: &'static str) -> Option<Table<'t>> {
        let field = self.take(table, key)?;
        self.table(&field)
    }

    /// The string under a key, read by `parse`.
    pub fn take_string<T>(
        &mut self,
        table: &mut Table<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let field = self.take(table, key)?;
        self.string(&field, parse)
    }

    /// The array of strings under a key, each read by `parse`; the same twice is refused.
    pub fn take_strings<T: PartialEq>(
        &mut self,
        table: &mut Table<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Vec<T> {
        let Some(field) = self.take(table, key) else {
            return Vec::new();
        };
        let mut values: Vec<T> = Vec::new();
        for item in self.array(&field) {
            let Some(value) = self.string(&item, &parse) else {
                continue;
            };
            if let Some(first) = values.iter().position(|other| *other == value) {
                let what = format!("is the same as {}[{first}]", field.path);
                self.field_fault(&item, fault(what, "remove one of the two"));
            } else {
                values.push(value);
            }
        }
        values
    }

    /// The whole number under a key, between two bounds.
    pub fn take_integer(&mut self, table: &mut Table<'_>, key: &'static str, min: i64, max: i64) -> Option<i64> {
        let field = self.take(table, key)?;
        let Some(integer) = field.value.get_ref().as_integer() else {
            self.wrong_type(&field, "a whole number");
            return None;
        };
        let fix = format!("give a value between {min} and {max}");
        let what = match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) if value < min => format!("{value} is smaller than {min}"),
            Ok(value) if value > max => format!("{value} is larger than {max}"),
            Ok(value) => return Some(value),
            Err(_) => "the number has too many digits".to_owned(),
        };
        self.field_fault(&field, fault(what, fix));
        None
    }

    /// The version under a key, which has to be `wanted`.
    pub fn take_version(&mut self, table: &mut Table<'_>, wanted: i64) {
        let Some(field) = self.take(table, "version") else {
            return;
        };
        let fix = format!("write `version = {wanted}`");
        let Some(integer) = field.value.get_ref().as_integer() else {
            return self.wrong_type(&field, &format!("the number {wanted}"));
        };
        if i64::from_str_radix(integer.as_str(), integer.radix()) != Ok(wanted) {
            let what = "is a version of the format that this program does not know";
            self.field_fault(&field, fault(what, fix));
        }
    }

    /// The truth value under a key.
    pub fn take_bool(&mut self, table: &mut Table<'_>, key: &'static str) -> Option<bool> {
        let field = self.take(table, key)?;
        let value = field.value.get_ref().as_bool();
        if value.is_none() {
            self.wrong_type(&field, "true or false");
        }
        value
    }

    /// The items of an array, each with its index in the path.
    pub fn array<'t>(&mut self, field: &Field<'t>) -> Vec<Field<'t>> {
        let Some(items) = field.value.get_ref().as_array() else {
            self.wrong_type(field, "an array");
            return Vec::new();
        };
        let items: Vec<Field<'t>> = items
            .iter()
            .enumerate()
            .map(|(index, value)| Field { path: format!("{}[{index}]", field.path), value })
            .collect();
        for item in &items {
            self.place(&item.path, item.value.span().start);
        }
        items
    }

    /// A field as a table.
    pub fn table<'t>(&mut self, field: &Field<'t>) -> Option<Table<'t>> {
        let entries = field.value.get_ref().as_table();
        if entries.is_none() {
            self.wrong_type(field, "a table");
        }
        Some(Table { path: field.path.clone(), entries: entries?, known: BTreeSet::new() })
    }

    /// A field as a string read by `parse`.
    pub fn string<T>(&mut self, field: &Field<'_>, parse: impl Fn(&str) -> Result<T, Fault>) -> Option<T> {
        let Some(text) = field.value.get_ref().as_str() else {
            self.wrong_type(field, "a string in quotes");
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.field_fault(field, fault);
                None
            }
        }
    }

    /// Refuses every key of a table that nobody asked for.
    pub fn finish(&mut self, table: &Table<'_>) {
        for (key, _) in table.entries {
            let name = key.get_ref().as_ref();
            if table.known.contains(name) {
                continue;
            }
            let fix = match nearest(name, &table.known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => {
                    let known: Vec<&str> = table.known.iter().copied().collect();
                    format!("known here: {}", known.join(", "))
                }
            };
            self.report(key.span().start, &table.path_of(name), fault("there is no such field", fix));
        }
    }

    /// Notes where a field stands.
    pub fn place(&mut self, path: &str, at: usize) {
        self.places.insert(path.to_owned(), (self.source, at));
    }

    /// Whether a field was given at all.
    pub fn given(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// Byte at which a field stands.
    pub fn start_of(&self, path: &str) -> usize {
        self.places.get(path).map_or(0, |(_, at)| *at)
    }

    /// Line on which a field stands.
    pub fn line_of(&self, path: &str) -> usize {
        self.places
            .get(path)
            .map_or(1, |(source, at)| line_and_column(self.texts.get(source).copied().unwrap_or(""), *at).0)
    }

    /// Whether a field, or anything in it, has been found wrong already.
    pub fn faulty(&self, path: &str) -> bool {
        self.problems.iter().any(|(_, problem)| problem.field == path || problem.field.is_empty())
    }

    /// Whether anything of a table has been found wrong already.
    pub fn faulty_below(&self, path: &str) -> bool {
        let below =
            |field: &str| field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        self.problems.iter().any(|(_, problem)| below(&problem.field) || problem.field.is_empty())
    }

    /// Reports that a value has another type than `wanted`. The value is not shown: it may be secret.
    pub fn wrong_type(&mut self, field: &Field<'_>, wanted: &str) {
        let found = field.value.get_ref().type_str();
        let article = if found.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        self.field_fault(field, fault(format!("is {article} {found}"), format!("give {wanted}")));
    }

    /// Reports a fault of a field that is at hand.
    pub fn field_fault(&mut self, field: &Field<'_>, fault: Fault) {
        self.report(field.value.span().start, &field.path, fault);
    }

    /// Reports a fault of a field by its path; of one that is not in the text, at the nearest table around it.
    pub fn fault_at(&mut self, path: &str, fault: Fault) {
        let mut around = path;
        let (source, at) = loop {
            if let Some(place) = self.places.get(around) {
                break *place;
            }
            match around.rsplit_once('.') {
                Some((parent, _)) => around = parent,
                None => break (Source::Role, 0),
            }
        };
        let current = std::mem::replace(&mut self.source, source);
        self.report(at, path, fault);
        self.source = current;
    }

    /// Reports a fault at a byte of the text.
    pub fn report(&mut self, at: usize, field: &str, fault: Fault) {
        let text = self.texts.get(&self.source).copied().unwrap_or("");
        let (line, column) = line_and_column(text, at);
        let problem =
            Problem { source: self.source, line, column, field: field.to_owned(), what: fault.what, fix: fault.fix };
        self.problems.push((at, problem));
    }

    /// All that was found wrong; what stands in a machine's entry of a rack has the entry's path before its own.
    pub fn take_problems(&mut self) -> Vec<Problem> {
        let own = self.own.as_ref();
        let whole = |(at, mut problem): (usize, Problem)| {
            let entry = own.filter(|own| problem.source == Source::Role && own.places.contains(&at));
            if let Some(own) = entry {
                problem.field = format!("{}.{}", own.path, problem.field);
            }
            problem
        };
        std::mem::take(&mut self.problems).into_iter().map(whole).collect()
    }
}

/// What the TOML parser found, in words for the two most common slips. Its message names tokens and never quotes the text: secrets
/// stay secret.
fn syntax_fault(text: &str, at: usize, message: &str) -> Fault {
    let before = text.get(..at).unwrap_or("").trim_end_matches([' ', '\t']);
    let word = text.get(at..).unwrap_or("");
    if before.ends_with(['=', '[', ',']) && word.starts_with(|c: char| c.is_alphabetic()) {
        return fault("a value without quotes", "put strings in quotes, e.g. name = \"value\"");
    }
    let fix = match message {
        "duplicate key" => "remove one of the two",
        _ => "correct the TOML syntax",
    };
    fault(message, fix)
}

/// Line and column (in characters) of a byte offset, both counted from 1.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let mut before = at.min(text.len());
    while !text.is_char_boundary(before) {
        before -= 1;
    }
    let head = &text[..before];
    let line_start = head.rfind('\n').map_or(0, |newline| newline + 1);
    let line = head.matches('\n').count() + 1;
    (line, head[line_start..].chars().count() + 1)
}

/// The known word that somebody who wrote `word` most likely meant.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k &'k str>) -> Option<&'k str> {
    // Long keys are not worth the quadratic comparison: nobody mistypes into them.
    if word.len() > 64 {
        return None;
    }
    let folded = word.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&folded, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 3))
        .min()
        .map(|(_, candidate)| candidate)
}
