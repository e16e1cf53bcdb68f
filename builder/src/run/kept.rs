//! Goes on from the overlay that an earlier run kept, where it lies over the very image that is named, or makes a new one.
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use kscratch_formats::qcow2;
use kscratch_qemu::{Overlay, Toolset};

use super::direct::RawDisk;
use crate::console::Hint;
use crate::spec::ByteSize;
use crate::vmcluster::plan::Image;

/// How large a disk is where nobody said it.
pub(super) const DISK: ByteSize = ByteSize(8 << 30);

/// What an overlay says of itself, and what is known of the image that it was made over.
#[derive(Debug)]
struct Found {
    /// The file that it lies over.
    below: PathBuf,
    /// Length of its disk in bytes.
    size: u64,
    /// The image at that time; none where that was not written down.
    image: Option<Image>,
}

/// Refuses an overlay that is there already, but not over this image as it is now, or with another disk.
///
/// # Errors
/// It says which of these it is; the overlay cannot be read.
pub(super) fn check(overlay: &Path, image: &Path, size: Option<ByteSize>) -> Result<()> {
    if !overlay.exists() {
        return Ok(());
    }
    let action = || format!("going on from the overlay {}", overlay.display());
    let found = Found::read(overlay).with_context(action)?;
    match found.misfit(&Image::now(image)?, size, overlay) {
        Some((why, help)) => Err(anyhow!(why).context(Hint(help)).context(action())),
        None => Ok(()),
    }
}

/// Makes the overlay, or takes the [`check`]ed one that is there already.
///
/// # Errors
/// As for [`Overlay::kept`]; it cannot be written down what it was made over.
pub(super) fn lay(tools: &Toolset, overlay: &Path, image: &Path, size: Option<ByteSize>) -> Result<Overlay> {
    // When a block device was written to is told by no file's time.
    let anew = !overlay.exists() && image.is_file();
    let before = anew.then(|| Image::now(image)).transpose()?;
    let made = Overlay::kept(tools, image, Some(size.unwrap_or(DISK).0), overlay)?;
    if let Some(before) = before {
        let place = beside(overlay);
        let action = || format!("writing down in {} what the overlay lies over", place.display());
        let text = serde_json::to_string(&before).with_context(action)?;
        fs::write(&place, text + "\n").with_context(action)?;
    }
    Ok(made)
}

/// `m.qcow2.base`, the file beside `m.qcow2` that tells what the image was when that was made.
fn beside(overlay: &Path) -> PathBuf {
    let mut name = overlay.as_os_str().to_owned();
    name.push(".base");
    name.into()
}

impl Found {
    fn read(overlay: &Path) -> Result<Found> {
        let file = RawDisk(File::open(overlay).context("opening it")?);
        let backing = qcow2::backing(&file).context("reading what it lies over")?.ok_or_else(|| {
            anyhow!("it lies over no image").context(Hint(format!(
                "`kscratch-image run {}` boots it as an image; or name another --overlay",
                overlay.display()
            )))
        })?;
        let below = overlay.parent().unwrap_or(Path::new("")).join(backing.name);
        // One that is gone is told by the name that it had.
        let below = below.canonicalize().unwrap_or(below);
        let nothing: &[u8] = &[];
        let size = qcow2::Overlay::open(file, nothing, 0).context("reading the size of its disk")?.disk_len();
        Ok(Found { below, size, image: read_image(&beside(overlay))? })
    }

    /// Why no machine with this image and disk goes on from it, and what helps.
    fn misfit(&self, image: &Image, size: Option<ByteSize>, overlay: &Path) -> Option<(String, String)> {
        let (below, named, overlay) = (self.below.display(), image.path.display(), overlay.display());
        if self.below != image.path {
            return Some((
                format!("it lies over {below}, not over {named}"),
                format!("`kscratch-image run {below} --overlay {overlay}` goes on from it; or name another --overlay"),
            ));
        }
        let written = |image: &Image| (image.length, image.written);
        if self.image.as_ref().is_some_and(|before| written(before) != written(image)) {
            return Some((
                format!("{named} was written to after the overlay was laid over it"),
                format!(
                    "`build` or `stamp` made the image anew; remove {overlay} to begin anew, or name another --overlay"
                ),
            ));
        }
        let has = ByteSize(self.size);
        size.filter(|size| has != *size).map(|size| {
            (
                format!("its disk has {has}, not {size}"),
                "without --disk-size the machine goes on from it; or name another --overlay".to_owned(),
            )
        })
    }
}

/// What was written down of an image; none of an overlay that was made before that was done, or elsewhere.
fn read_image(place: &Path) -> Result<Option<Image>> {
    let action = || format!("reading what its image was from {}", place.display());
    match fs::read(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => {
            let help = || Hint(format!("remove {} to take the overlay as it is", place.display()));
            let text = text.with_context(help).with_context(action)?;
            serde_json::from_slice(&text).map(Some).with_context(help).with_context(action)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::console::error_lines;

    const SIZE: Option<ByteSize> = Some(ByteSize(8 << 20));

    #[track_caller]
    fn refused(overlay: &Path, image: &Path, size: Option<ByteSize>, want: &[&str]) {
        let lines = error_lines(&check(overlay, image, size).unwrap_err()).join("\n");
        assert!(lines.starts_with("error: going on from the overlay "), "{lines}");
        for want in want {
            assert!(lines.contains(want), "`{want}` is not in: {lines}");
        }
    }

    #[test]
    fn an_overlay_is_gone_on_from_over_the_same_image_alone() {
        let tools = Toolset::find().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [image, other, link, overlay] =
            ["node.img", "other.img", "link.img", "m.qcow2"].map(|name| folder.path().join(name));
        for image in [&image, &other] {
            fs::write(image, vec![7; 1 << 20]).unwrap();
        }
        check(&overlay, &image, SIZE).unwrap();
        lay(&tools, &overlay, &image, SIZE).unwrap();
        check(&overlay, &image, SIZE).unwrap();
        std::os::unix::fs::symlink(&image, &link).unwrap();
        check(&overlay, &link, SIZE).unwrap();
        lay(&tools, &overlay, &image, SIZE).unwrap();

        refused(&overlay, &other, SIZE, &["node.img, not over ", "node.img --overlay "]);
        refused(&overlay, &image, Some(ByteSize(16 << 20)), &["has 8MiB, not 16MiB", "hint: without --disk-size "]);
        check(&overlay, &image, None).unwrap();
        let written = File::options().write(true).open(&image).unwrap();
        let time = written.metadata().unwrap().modified().unwrap();
        written.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        refused(&overlay, &image, SIZE, &["node.img was written to after", "m.qcow2 to begin anew"]);
        written.set_modified(time).unwrap();
        check(&overlay, &image, SIZE).unwrap();
        written.set_len(2 << 20).unwrap();
        written.set_modified(time).unwrap();
        refused(&overlay, &image, SIZE, &["node.img was written to after"]);

        fs::write(beside(&overlay), "x").unwrap();
        refused(&overlay, &image, SIZE, &["m.qcow2.base to take the overlay as it is"]);
        // One of a version that wrote nothing down.
        fs::remove_file(beside(&overlay)).unwrap();
        check(&overlay, &image, SIZE).unwrap();
        refused(&image, &image, SIZE, &["it is not a qcow2 file"]);
        fs::remove_file(&image).unwrap();
        refused(&overlay, &other, SIZE, &["node.img, not over "]);
    }
}
