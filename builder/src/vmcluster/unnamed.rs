//! Finds the one cluster that is meant where none is named: the only one in a folder that has machines.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use super::place::{PLAN, Place};
use crate::console::Hint;

/// Names of all clusters with machines whose folders are in `parent`, in their order.
///
/// # Errors
/// The folder cannot be read.
pub fn all(parent: &Path) -> Result<Vec<String>> {
    let action = || format!("looking for clusters in {}", parent.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(parent).with_context(action)? {
        // What is no name of a cluster was made by somebody else.
        let Ok(name) = entry.with_context(action)?.file_name().into_string() else { continue };
        if kscratch_metadata::is_node_name(&name) && Place::of(parent, &name).file(PLAN).exists() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The only one. `usage` is how the command is written with a name, e.g. `logs NAME n1`.
///
/// # Errors
/// There is none, or there are several.
pub fn only(parent: &Path, usage: &str) -> Result<String> {
    let mut names = all(parent)?;
    match names.len() {
        0 => Err(anyhow!("no cluster in {} has machines", place(parent)).context(Hint(
            "kscratch-image cluster up makes one; --folder DIR names the folder that holds the cluster's".to_owned(),
        ))),
        1 => Ok(names.remove(0)),
        _ => {
            let hint = format!("name one: kscratch-image cluster {}", usage.replace("NAME", &names[0]));
            Err(anyhow!("several clusters in {} have machines: {}", place(parent), names.join(", "))
                .context(Hint(hint)))
        }
    }
}

/// The folder in a sentence.
fn place(parent: &Path) -> String {
    if parent == Path::new(".") { "this folder".to_owned() } else { parent.display().to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{all, only};
    use crate::console::error_lines;
    use crate::vmcluster::place::{PLAN, Place};

    fn machines(parent: &Path, name: &str) {
        let place = Place::of(parent, name);
        place.make("n1").unwrap();
        fs::write(place.file(PLAN), "{}").unwrap();
    }

    #[test]
    fn the_only_one_with_machines_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path();
        let said = |usage: &str| {
            let lines = error_lines(&only(parent, usage).unwrap_err()).into_iter();
            lines.map(|line| line.replace(&parent.display().to_string(), "DIR")).collect::<Vec<_>>()
        };
        let none = [
            "error: no cluster in DIR has machines",
            "hint: kscratch-image cluster up makes one; --folder DIR names the folder that holds the cluster's",
        ];
        assert_eq!(said("status NAME"), none);
        // An identity without machines, machines without a plan, a file, and what is no name.
        fs::create_dir_all(parent.join("bare/secrets")).unwrap();
        Place::of(parent, "half").make("n1").unwrap();
        fs::write(parent.join("file"), "").unwrap();
        machines(parent, "Not_A_Name");
        assert_eq!(said("status NAME"), none);
        machines(parent, "lab");
        assert_eq!(only(parent, "status NAME").unwrap(), "lab");
        machines(parent, "blue");
        assert_eq!(all(parent).unwrap(), ["blue", "lab"]);
        assert_eq!(
            said("logs NAME n1"),
            [
                "error: several clusters in DIR have machines: blue, lab",
                "hint: name one: kscratch-image cluster logs blue n1"
            ]
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = format!("{:#}", only(Path::new("/nowhere"), "status NAME").unwrap_err());
        assert!(error.starts_with("looking for clusters in /nowhere: "), "{error}");
    }
}
