//! Places a copy of a Go module with [`Patch`]es in it beside the go.mod that is compiled.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::pinned::Patch;

/// The copy's folder.
pub const FOLDER: &str = "patched";

/// What `go mod download -json` says (`go help mod download`).
#[derive(Deserialize)]
struct Downloaded {
    #[serde(rename = "Dir")]
    folder: String,
}

/// Copies what was downloaded into `work` and patches it.
///
/// # Errors
/// Go says something else, a file cannot be copied, or a patch does not fit: upstream has changed that place.
pub fn place(work: &Path, downloaded: &str, patches: &[Patch]) -> Result<()> {
    let Downloaded { folder } = serde_json::from_str(downloaded).context("reading what `go mod download` says")?;
    let copy = work.join(FOLDER);
    copy_folder(Path::new(&folder), &copy)?;
    patches.iter().try_for_each(|patch| apply(&copy, patch))
}

fn apply(copy: &Path, patch: &Patch) -> Result<()> {
    let file = copy.join(patch.file);
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", patch.file))?;
    let found = text.matches(patch.from).count();
    ensure!(found == 1, "{} has `{}` {found} times, not once", patch.file, patch.from);
    fs::write(&file, text.replace(patch.from, patch.to)).with_context(|| format!("writing {}", patch.file))
}

/// Files and folders alone, which is all that a module has; Go's cache is read-only, the copy is not.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.with_context(|| format!("reading {}", from.display()))?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).with_context(|| format!("reading {}", entry.path().display()))?;
            fs::write(&target, bytes).with_context(|| format!("writing {}", target.display()))?;
        } else {
            bail!("{} is neither a file nor a folder", entry.path().display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_that_does_not_fit_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (upstream, work) = (folder.path().join("upstream"), folder.path().join("work"));
        fs::create_dir_all(upstream.join("cmd")).unwrap();
        fs::create_dir(&work).unwrap();
        fs::write(upstream.join("cmd/a.go"), "one one").unwrap();
        let said = serde_json::json!({ "Dir": upstream }).to_string();
        let error = place(&work, &said, &[Patch { file: "cmd/a.go", from: "one", to: "two" }]).unwrap_err();
        assert_eq!(error.to_string(), "cmd/a.go has `one` 2 times, not once");
        let error = place(&work, "{}", &[Patch { file: "cmd/a.go", from: "one", to: "two" }]).unwrap_err();
        assert_eq!(error.to_string(), "reading what `go mod download` says");
    }
}
