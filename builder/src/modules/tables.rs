//! Chosen modules become the text files that module loading reads: `modules.dep`, `modules.alias`, `modules.softdep` (depmod(8)).
use std::collections::BTreeMap;
use std::fmt::Write;

use super::Module;

/// `modules.dep`: a line a module, with all that it needs, each before what it needs itself (loading goes from right to left).
pub fn dep(modules: &BTreeMap<String, Module>) -> String {
    let mut out = String::new();
    for (name, module) in modules {
        let mut order = Vec::new();
        visit(modules, name, &mut order);
        let needed: String = order.iter().rev().skip(1).map(|name| format!(" {}", modules[*name].path)).collect();
        let _ = writeln!(out, "{}:{needed}", module.path);
    }
    out
}

/// Depth first, what is needed before what needs it.
fn visit<'a>(modules: &'a BTreeMap<String, Module>, name: &str, order: &mut Vec<&'a str>) {
    let Some((name, module)) = modules.get_key_value(name) else { return };
    if order.contains(&name.as_str()) {
        return;
    }
    // The kernel refuses modules that need each other, so this ends.
    for needed in &module.info.depends {
        visit(modules, needed, order);
    }
    order.push(name);
}

/// `modules.alias`: in the order of the kernel's own `modules.order`, as the first match is taken.
pub fn alias(modules: &BTreeMap<String, Module>) -> String {
    let mut sorted: Vec<_> = modules.iter().collect();
    sorted.sort_by_key(|(name, module)| (module.order, *name));
    let mut out = String::from("# Aliases extracted from modules themselves.\n");
    for (name, module) in sorted {
        for pattern in &module.info.aliases {
            let _ = writeln!(out, "alias {pattern} {name}");
        }
    }
    out
}

/// `modules.softdep`.
pub fn softdep(modules: &BTreeMap<String, Module>) -> String {
    let mut out = String::from("# Soft dependencies extracted from modules themselves.\n");
    for (name, module) in modules {
        for line in &module.info.softdeps {
            let _ = writeln!(out, "softdep {name} {line}");
        }
    }
    out
}
