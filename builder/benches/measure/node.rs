//! The node images that benchmarks look at: built by the released program from the defaults, out of the user's cache.
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use kscratch_image::commands;

use super::{folder, program, timed};

/// A first build fetches some 200 MB and may compile Kubernetes.
const FIRST: Duration = Duration::from_secs(50 * 60);

/// An image that is there, and what it was built from.
#[derive(Debug)]
pub struct Node {
    /// A folder for more files, on the disk that has the image.
    pub folder: PathBuf,
    /// The image, raw.
    pub image: PathBuf,
    /// Its lock.
    pub lock: PathBuf,
    /// The user's cache.
    pub cache: PathBuf,
    /// The hardware it is for.
    pub flavour: &'static str,
}

impl Node {
    /// Builds that of virtual machines. Whatever it needs is in the cache afterwards.
    ///
    /// # Errors
    /// What the build says.
    pub fn built() -> Result<Node> {
        Self::of("cloud", "kscratch")
    }

    /// The same for real machines, of a lock of its own.
    ///
    /// # Errors
    /// What the build says.
    pub fn metal() -> Result<Node> {
        Self::of("metal", "kscratch-metal")
    }

    #[allow(clippy::print_stdout)] // A benchmark tells what it is waiting for.
    fn of(flavour: &'static str, name: &str) -> Result<Node> {
        let cache = match env::var_os("KSCRATCH_CACHE") {
            Some(folder) => folder.into(),
            None => commands::default_cache()?,
        };
        let folder = folder()?;
        let (image, lock) = (folder.join(format!("{name}-node.img")), folder.join(format!("{name}.lock")));
        let node = Node { folder, image, lock, cache, flavour };
        let mut command = Command::new(kscratch_image());
        command.args(node.build(&node.cache, &node.image, &[]));
        let took = timed(|| program::run(command, FIRST)).context("building the image that is measured")?;
        println!(
            "the {flavour} image was built, and whatever the cache lacked was fetched, in {:.1} s",
            took.as_secs_f64()
        );
        Ok(node)
    }

    /// A master's image from the same lock, which gets the control plane besides.
    ///
    /// # Errors
    /// What the build says.
    pub fn master(&self) -> Result<PathBuf> {
        let image = self.folder.join("kscratch-master.img");
        self.build_role("master", &image, &[])?;
        Ok(image)
    }

    /// Builds an image of a role from the same lock.
    ///
    /// # Errors
    /// What the build says.
    pub fn build_role(&self, role: &str, image: &Path, more: &[&str]) -> Result<()> {
        let mut command = Command::new(kscratch_image());
        command.args(self.role(role, &self.cache, image, more));
        program::run(command, FIRST).with_context(|| format!("building {}", image.display()))
    }

    /// The arguments of a build from this image's lock.
    pub fn build(&self, cache: &Path, output: &Path, more: &[&str]) -> Vec<OsString> {
        self.role("node", cache, output, more)
    }

    /// The same of an image of any role.
    pub fn role(&self, role: &str, cache: &Path, output: &Path, more: &[&str]) -> Vec<OsString> {
        let mut args: Vec<OsString> =
            ["build", "--quiet", "--role", role, "--flavour", self.flavour, "--cache"].map(OsString::from).into();
        args.extend([cache.into(), "--lock".into(), self.lock.clone().into(), "--output".into(), output.into()]);
        args.extend(more.iter().map(OsString::from));
        args
    }
}

/// The released program.
pub fn kscratch_image() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_kscratch-image"))
}
