//! Reads a role file that may be a rack's (a common part and `[[machines]]`), and picks the one entry that is this machine's.
use toml::de::DeTable;

use crate::error::{Errors, Problem, Source};
use crate::identity::Identity;
use crate::overlay::{laid_over, places};
use crate::parse::machine;
use crate::rackrules;
use crate::read::{Fault, Own, Reader, Table, fault};
use crate::role::RoleMetadata;
use crate::selector::Selector;

/// What a role file is, wholly checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// The metadata of one machine.
    Machine(Box<RoleMetadata>),
    /// The entries of a rack, in their order.
    Rack(Vec<Entry>),
}

/// A machine of a rack.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// How the machine is told.
    pub selector: Selector,
    /// What it is, the rack's common part included.
    pub metadata: RoleMetadata,
}

/// What a role file is to one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// What the machine is.
    pub metadata: RoleMetadata,
    /// Which entry of a rack it is and by what, e.g. `machines[1] of 3, n2, by mac 52:54:00:00:00:12`. `None` where the file is no rack's.
    pub entry: Option<String>,
}

/// Reads role metadata, of a rack the entry of the machine that `identity` is. The other entries are read as far as it takes to know that
/// none is mistaken for another.
///
/// # Errors
/// What is wrong with the text, each with its place; a rack of which not exactly one entry is this machine.
pub fn select(text: &str, identity: &Identity) -> Result<Selected, Errors> {
    pick(text, None, identity)
}

/// [`select`] with secrets in a second text, which belongs to this machine.
///
/// # Errors
/// As [`select`] and [`parse_with_secrets`](crate::parse_with_secrets).
pub fn select_with_secrets(text: &str, secrets: &str, identity: &Identity) -> Result<Selected, Errors> {
    pick(text, Some(secrets), identity)
}

/// Reads all of a role file, every entry of a rack included. A rack's secrets are one machine's: it is enough that one entry takes them, where
/// the others are sound without.
///
/// # Errors
/// All that is wrong with the texts, each with its place.
pub fn read(text: &str, secrets: Option<&str>) -> Result<Document, Errors> {
    let mut reader = Reader::new();
    let document = reader.document(Source::Role, text);
    let Some(rack) = document.as_ref().and_then(|document| Rack::read(&mut reader, document, text)) else {
        let metadata = machine(reader, document.as_ref(), secrets).map_err(Errors::new)?;
        return Ok(Document::Machine(Box::new(metadata)));
    };
    sound(&mut reader)?;
    rack.entries(text, secrets).map(Document::Rack)
}

fn pick(text: &str, secrets: Option<&str>, identity: &Identity) -> Result<Selected, Errors> {
    let mut reader = Reader::new();
    let document = reader.document(Source::Role, text);
    let Some(rack) = document.as_ref().and_then(|document| Rack::read(&mut reader, document, text)) else {
        let metadata = machine(reader, document.as_ref(), secrets).map_err(Errors::new)?;
        return Ok(Selected { metadata, entry: None });
    };
    // Where two entries are alike, which of them is this machine says nothing.
    sound(&mut reader)?;
    let member = rack.find(identity).map_err(|(path, fault)| {
        reader.fault_at(&path, fault);
        Errors::new(reader.take_problems())
    })?;
    let metadata = rack.metadata(member, text, secrets).map_err(Errors::new)?;
    let name = metadata.node.name.as_ref().map_or_else(String::new, |name| format!(", {name}"));
    let entry = format!("{} of {}{name}, by {}", member.path, rack.members.len(), member.selector);
    Ok(Selected { metadata, entry: Some(entry) })
}

fn sound(reader: &mut Reader<'_>) -> Result<(), Errors> {
    let problems = reader.take_problems();
    if problems.is_empty() { Ok(()) } else { Err(Errors::new(problems)) }
}

/// A rack's document, taken apart.
pub(crate) struct Rack<'t> {
    /// Everything but the machines.
    pub common: DeTable<'t>,
    /// The machines, in their order.
    pub members: Vec<Member<'t>>,
}

/// An entry of a rack.
pub(crate) struct Member<'t> {
    /// `machines[0]`
    pub path: String,
    /// How the machine is told.
    pub selector: Selector,
    /// What is its own, the selector included.
    pub own: &'t DeTable<'t>,
}

impl<'t> Rack<'t> {
    /// `None` where the document is no rack's. What is wrong is the reader's to know.
    fn read(reader: &mut Reader<'_>, document: &'t DeTable<'t>, text: &str) -> Option<Self> {
        let field = reader.take(&mut Table::root(document), "machines")?;
        let mut members = Vec::new();
        let items = reader.array(&field);
        if items.is_empty() && field.value.get_ref().is_array() {
            reader.field_fault(&field, fault("lists no machine", "write a [[machines]] with mac, serial or uuid"));
        }
        for item in items {
            let Some(mut table) = reader.table(&item) else { continue };
            let selector = Selector::read(reader, &mut table);
            members.push(Member { path: item.path, selector, own: table.entries() });
        }
        let mut common = document.clone();
        common.remove("machines");
        let rack = Self { common, members };
        rackrules::check(reader, &rack, text);
        Some(rack)
    }

    /// The one entry that is this machine's, or which field tells that there is none, or are several.
    fn find(&self, identity: &Identity) -> Result<&Member<'t>, (String, Fault)> {
        let is_this = |member: &&Member<'_>| {
            let held = member.selector.held_against(identity);
            !held.is_empty() && held.iter().all(|(_, so)| *so)
        };
        let found: Vec<&Member<'_>> = self.members.iter().filter(is_this).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => {
                let is = if self.members.len() == 1 { "entry is" } else { "entries is" };
                let near: String = self.members.iter().filter_map(|member| near(member, identity)).take(3).collect();
                let what = format!("none of the {} {is} this machine ({identity}){near}", self.members.len());
                Err(("machines".to_owned(), fault(what, "write a [[machines]] that has its mac, serial or uuid")))
            }
            [first, second, ..] => {
                let (one, other) = (self.called(first), self.called(second));
                let (by, other_by) = (&first.selector, &second.selector);
                let what = format!("both {one}, by {by}, and {other}, by {other_by}, are this machine");
                Err((second.path.clone(), fault(what, "remove one of the two")))
            }
        }
    }

    /// `machines[1] (n2)`
    pub fn called(&self, member: &Member<'_>) -> String {
        match rackrules::text_at(self, member, &["node", "name"]) {
            Some(name) => format!("{} ({})", member.path, name.escape_debug()),
            None => member.path.clone(),
        }
    }

    fn metadata(&self, member: &Member<'_>, text: &str, secrets: Option<&str>) -> Result<RoleMetadata, Vec<Problem>> {
        let own = Own { path: member.path.clone(), places: places(member.own) };
        let merged = laid_over(&self.common, member.own);
        machine(Reader::of_rack(text, own), Some(&merged), secrets)
    }

    fn entries(&self, text: &str, secrets: Option<&str>) -> Result<Vec<Entry>, Errors> {
        let mut entries = Vec::new();
        let (mut problems, mut refusals, mut taken) = (Vec::new(), Vec::new(), secrets.is_none());
        let note = |into: &mut Vec<Problem>, found: Vec<Problem>| {
            for problem in found {
                // What is wrong with the common part is so for every entry.
                if !into.contains(&problem) {
                    into.push(problem);
                }
            }
        };
        for member in &self.members {
            let bare = self.metadata(member, text, None);
            let metadata = match secrets.map(|secrets| self.metadata(member, text, Some(secrets))) {
                None => bare,
                Some(Ok(whole)) => {
                    taken = true;
                    Ok(whole)
                }
                Some(Err(refusal)) => {
                    note(&mut refusals, refusal);
                    bare
                }
            };
            match metadata {
                Ok(metadata) => entries.push(Entry { selector: member.selector.clone(), metadata }),
                Err(found) => note(&mut problems, found),
            }
        }
        if problems.is_empty() && !taken {
            problems = refusals;
        }
        if problems.is_empty() { Ok(entries) } else { Err(Errors::new(problems)) }
    }
}

/// What an entry has of this machine where it is not this machine's.
fn near(member: &Member<'_>, identity: &Identity) -> Option<String> {
    let (selector, path) = (&member.selector, &member.path);
    if let (Some(told), Some(uuid)) = (&selector.uuid, &identity.uuid)
        && told.turned() == *uuid
    {
        return Some(format!("; the uuid of {path} is this machine's with its bytes in the other order"));
    }
    let held = selector.held_against(identity);
    let key = |wanted: bool| held.iter().find_map(|(key, so)| (*so == wanted).then_some(*key));
    let (so, not) = (key(true)?, key(false)?);
    Some(format!("; {path} has its {so}, but another {not}"))
}
