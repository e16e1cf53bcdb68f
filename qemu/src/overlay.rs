//! An [`Overlay`] is a copy-on-write file over an image, so that a machine can write and the image stays as it was.
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::machine::DiskFormat;
use crate::toolset::Toolset;

/// A qcow2 file that holds what differs from its image.
#[derive(Debug)]
pub struct Overlay {
    path: PathBuf,
    // Removes the folder when the overlay goes; `None` where the user keeps the file.
    folder: Option<tempfile::TempDir>,
}

impl Overlay {
    /// Makes one in a folder of its own that goes with it. `size` in bytes grows the disk; the image's own size where `None`.
    ///
    /// # Errors
    /// The image cannot be read, or `qemu-img` refuses (a size below the image's, for one).
    pub fn create(tools: &Toolset, image: &Path, size: Option<u64>) -> Result<Overlay, Error> {
        let folder = tempfile::Builder::new().prefix("kscratch-overlay-").tempdir().map_err(|source| Error::File {
            doing: "making a folder for the overlay in",
            path: std::env::temp_dir(),
            source,
        })?;
        let path = folder.path().join("overlay.qcow2");
        make(tools, image, size, &path)?;
        Ok(Overlay { path, folder: Some(folder) })
    }

    /// Makes one at `path` that stays, or takes the one that is there already, as it is: whether that one lies over this very image is for the caller to know.
    ///
    /// # Errors
    /// As for [`Overlay::create`].
    pub fn kept(tools: &Toolset, image: &Path, size: Option<u64>, path: &Path) -> Result<Overlay, Error> {
        if !path.exists() {
            make(tools, image, size, path)?;
        }
        Ok(Overlay { path: path.to_owned(), folder: None })
    }

    /// The qcow2 file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file outlives this value.
    pub fn is_kept(&self) -> bool {
        self.folder.is_none()
    }

    /// Writes what the machine sees as its disk, byte for byte and sparse, to `to`. The machine must have ended.
    ///
    /// # Errors
    /// `qemu-img` refuses, e.g. because a machine still holds the overlay.
    pub fn to_raw(&self, tools: &Toolset, to: &Path) -> Result<(), Error> {
        let doing = || format!("converting {} to a raw disk", self.path.display());
        run(tools, doing, |command| {
            command.args(["convert", "-f", "qcow2", "-O", "raw"]).arg(&self.path).arg(to);
        })
    }
}

fn make(tools: &Toolset, image: &Path, size: Option<u64>, path: &Path) -> Result<(), Error> {
    let reading = |source| Error::File { doing: "reading the image", path: image.to_owned(), source };
    let format = DiskFormat::of(image).map_err(reading)?;
    // The overlay names its image by path: an absolute one holds from every working directory.
    let image = image.canonicalize().map_err(reading)?;
    let actual = virtual_size(tools, &image, format)?;
    if let Some(size) = size.filter(|size| *size < actual) {
        return Err(Error::Image {
            doing: format!("making an overlay over {}", image.display()),
            stderr: format!("a disk of {size} bytes cannot hold the image's {actual}"),
        });
    }
    run(
        tools,
        || format!("making an overlay over {}", image.display()),
        |command| {
            command.args(["create", "-q", "-f", "qcow2", "-F", format.name(), "-b"]).arg(&image).arg(path);
            if let Some(size) = size {
                command.arg(size.to_string());
            }
        },
    )
}

/// The size of the disk that the file stands for, in bytes.
fn virtual_size(tools: &Toolset, image: &Path, format: DiskFormat) -> Result<u64, Error> {
    let mut command = tools.qemu_img.command();
    command.args(["info", "--output=json", "-f", format.name()]).arg(image);
    let output = output(&mut command)?;
    let doing = || format!("asking for the size of {}", image.display());
    if !output.status.success() {
        return Err(Error::Image { doing: doing(), stderr: said(&output.stderr) });
    }
    serde_json::from_slice::<serde_json::Value>(&output.stdout)
        .ok()
        .and_then(|info| info.get("virtual-size")?.as_u64())
        .ok_or_else(|| Error::Image { doing: doing(), stderr: said(&output.stdout) })
}

fn run(
    tools: &Toolset,
    doing: impl Fn() -> String,
    arguments: impl FnOnce(&mut std::process::Command),
) -> Result<(), Error> {
    let mut command = tools.qemu_img.command();
    arguments(&mut command);
    let output = output(&mut command)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Image { doing: doing(), stderr: said(&output.stderr) })
}

fn output(command: &mut std::process::Command) -> Result<std::process::Output, Error> {
    command
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|source| Error::Spawn { program: command.get_program().to_string_lossy().into_owned(), source })
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_overlay_grows_the_disk_and_leaves_the_image_alone() {
        let tools = Toolset::find().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("a,b.img");
        fs::write(&image, vec![7; 1 << 20]).unwrap();
        let overlay = Overlay::create(&tools, &image, Some(4 << 20)).unwrap();
        let raw = folder.path().join("raw");
        overlay.to_raw(&tools, &raw).unwrap();
        let bytes = fs::read(&raw).unwrap();
        assert_eq!(bytes.len(), 4 << 20);
        assert!(bytes[..1 << 20].iter().all(|byte| *byte == 7) && bytes[1 << 20..].iter().all(|byte| *byte == 0));
        let path = overlay.path().to_owned();
        drop(overlay);
        assert!(!path.exists(), "an overlay that nobody keeps goes");
        assert_eq!(fs::metadata(&image).unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_kept_overlay_is_taken_again_and_a_smaller_disk_is_refused() {
        let tools = Toolset::find().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::write(&image, vec![7; 1 << 20]).unwrap();
        let kept = folder.path().join("kept.qcow2");
        drop(Overlay::kept(&tools, &image, None, &kept).unwrap());
        let before = fs::metadata(&kept).unwrap().modified().unwrap();
        assert!(Overlay::kept(&tools, &image, None, &kept).unwrap().is_kept());
        assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), before);
        // An overlay over an overlay: the format is read from the file.
        Overlay::create(&tools, &kept, None).unwrap();
        let error = Overlay::create(&tools, &image, Some(4096)).unwrap_err().to_string();
        assert!(error.contains("a disk of 4096 bytes cannot hold the image's 1048576"), "{error}");
        let error = Overlay::create(&tools, &folder.path().join("none"), None).unwrap_err().to_string();
        assert!(error.starts_with("reading the image "), "{error}");
    }
}
