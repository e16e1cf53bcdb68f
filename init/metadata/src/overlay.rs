//! Lays a machine's own entry over what its rack has in common, and notes which places of the text are the machine's own.
use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The common part with the entry over it: tables merged key by key, everything else replaced.
pub(crate) fn laid_over<'t>(common: &DeTable<'t>, entry: &DeTable<'t>) -> DeTable<'t> {
    let mut merged = common.clone();
    for (key, value) in entry {
        let below = merged.remove_entry(key.get_ref().as_ref());
        let value = match (below, value.get_ref()) {
            (Some((_, below)), DeValue::Table(own)) if below.get_ref().is_table() => {
                let both = below.get_ref().as_table().map(|below| laid_over(below, own)).unwrap_or_default();
                Spanned::new(value.span(), DeValue::Table(both))
            }
            _ => value.clone(),
        };
        merged.insert(key.clone(), value);
    }
    merged
}

/// Bytes of the text at which a table's keys and values begin, at any depth.
pub(crate) fn places(table: &DeTable<'_>) -> BTreeSet<usize> {
    let mut places = BTreeSet::new();
    collect(table, &mut places);
    places
}

fn collect(table: &DeTable<'_>, places: &mut BTreeSet<usize>) {
    for (key, value) in table {
        places.insert(key.span().start);
        collect_value(value, places);
    }
}

fn collect_value(value: &Spanned<DeValue<'_>>, places: &mut BTreeSet<usize>) {
    places.insert(value.span().start);
    match value.get_ref() {
        DeValue::Table(table) => collect(table, places),
        DeValue::Array(items) => items.iter().for_each(|item| collect_value(item, places)),
        _ => {}
    }
}
