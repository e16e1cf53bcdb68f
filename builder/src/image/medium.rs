//! A planned disk becomes the ISO image that installs it, see [`crate::installer`].
use std::path::Path;

use anyhow::{Context, Result};
use kscratch_formats::guid::Guid;

use super::{Built, Clock, Request, Root, Workshop, boot_parts, source_date, write_image};
use crate::installer::{self, Installer, Medium, Source};
use crate::plan::DiskPlan;
use crate::reach::Package;
use crate::tree::Tree;
use crate::uki::{self, Place};
use crate::write::{Format, Readers};
use crate::{manifest, modules, sbom};

/// What an installer's initramfs has besides that of a disk: what reads a virtual machine's metadata, and hears keys and the power button.
const MODULES: [&str; 3] = ["qemu_fw_cfg", "button", "evdev"];

/// Writes the disk for a while beside the image, and packs it into that.
///
/// # Errors
/// What writing and packing say.
pub fn installer(
    request: &Request<'_>,
    root: &Root,
    packages: &[Package<'_>],
    plan: &DiskPlan,
    workshop: &Workshop,
    mut clock: Clock,
) -> Result<Built> {
    let (spec, store) = (request.spec, &workshop.store);
    let time = i64::try_from(source_date(request.lock)?).context("taking SOURCE_DATE_EPOCH as a time")?;
    let folder = request.output.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let making = || format!("making a folder in {}", folder.display());
    std::fs::create_dir_all(folder).with_context(making)?;
    let beside = tempfile::Builder::new().prefix(".kscratch-").tempdir_in(folder).with_context(making)?;
    let disk = beside.path().join("disk.img");
    let written = write_image(&plan.image, Format::Raw, (&disk, Readers::Owner), "writing the disk", workshop)?;
    clock.done("write");
    let mut kernel = spec.kernel_with_hardware();
    kernel.initramfs.extend(MODULES.map(str::to_owned));
    kernel.initramfs.extend(spec.hardware.console.iter().cloned());
    let modules = modules::kernel(&kernel, packages, store)?;
    let early = Root { tree: Tree::default(), versions: root.versions.clone(), modules };
    let boot = |packed: Guid| {
        let cmdline = uki::command_line(Place::Packed(packed), &spec.kernel.console, &spec.kernel.cmdline)?;
        boot_parts(spec, &early, packages, Tree::default(), store, time)?.uki(&root.versions.kernel, &cmdline)
    };
    let source = Source { disk: &disk, written: &written, sector: spec.disk.sector_size.bytes() };
    let medium = Medium { boot: &boot, files: &request.esp_files, time };
    let mut bar = workshop.console.bytes("packing the disk", installer::work(&written));
    let made = installer::write(&source, &medium, store.root(), &request.output, &mut |bytes| bar.add(bytes))?;
    drop(bar);
    clock.done("pack");
    let manifest = manifest::write(request, root, manifest::Product::Installer(plan, &written, &made))?;
    let sbom = sbom::write(request, root, time)?;
    clock.done("manifest");
    let Installer { len, allocated, .. } = made;
    let (digest, files) = (written.digest, root.files());
    Ok(Built { digest, len, allocated, map: None, manifest, sbom, files, steps: clock.steps })
}
