//! A built root becomes the folder that machines boot from over the network: kernel and initramfs for iPXE with its script, a UKI for UEFI, and the root.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv6Addr;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use sha2::{Digest as _, Sha256};

use super::{Built, Clock, Request, Root, Unpackeds, Workshop, boot_parts, write_image};
use crate::console::Hint;
use crate::filesystem::{self, Filesystem};
use crate::spec::ImageSpec;
use crate::store::{Digest, sync_folder};
use crate::tree::Tree;
use crate::uki::{self, Place};
use crate::write::{self, Format, Readers};
use crate::{manifest, overlay, sbom};

/// The script that iPXE runs.
const SCRIPT: &str = "boot.ipxe";
/// The UKI that UEFI starts.
const UKI: &str = "kscratch.efi";
const KERNEL: &str = "vmlinuz";
const INITRAMFS: &str = "initramfs";
/// The root filesystem in zstd frames, with the table by which they are found.
const ROOT: &str = "root.ext4.zst";

/// What iPXE puts in the place of the folder's URL (see [`script`]).
const BASE: &str = "${base}";

/// A file of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of it.
    pub sha256: Digest,
    /// Its length in bytes.
    pub len: u64,
}

/// The folder's files by name.
pub type Files = BTreeMap<&'static str, Written>;

/// Writes the folder; `spec` is the request's, fitted for this ([`ImageSpec::for_netboot`]). A machine that boots meanwhile finds the old files or the new ones, each whole; those that name the root come last.
///
/// # Errors
/// Role metadata, for which there is no place; what writing says.
pub fn folder(
    request: &Request<'_>,
    spec: &ImageSpec,
    (root, unpacked): (&Root, &Unpackeds),
    workshop: &Workshop,
    mut clock: Clock,
    time: i64,
) -> Result<Built> {
    if !request.esp_files.is_empty() {
        let error = anyhow!("a network boot has no EFI system partition, which role metadata stands on");
        let hint = "leave out --metadata: machines find theirs by kscratch.metadata=URL on the kernel command line, a volume labelled KSCRATCH, or firmware";
        return Err(error.context(Hint(hint.into())));
    }
    let out = &request.output;
    let base = request.root_url.as_deref().map(base_url).transpose()?;
    let filesystem = filesystem::root(&root.tree, spec.disk.root.0, time)?;
    let parts = boot_parts(spec, root, &unpacked.packages(request.lock)?, release(&root.tree)?, &workshop.store, time)?;
    clock.done("filesystems");

    // All of it first, names then: a script names its root by the digest, and machines that ask meanwhile get what goes together.
    let making = || format!("making a folder in {}", out.display());
    std::fs::create_dir_all(out).with_context(making)?;
    let unnamed = tempfile::Builder::new().prefix(".kscratch-").tempdir_in(out).with_context(making)?;
    let mut files = Files::new();
    let file = unnamed.path().join(ROOT);
    write_image(&filesystem.image, Format::RawZst, (&file, Readers::All), "writing the root", workshop)?;
    let root_file = written(&file)?;
    files.insert(ROOT, root_file);
    let line = |base: &str| {
        let place =
            Place::Fetched { url: &format!("{base}{ROOT}"), sha256: &root_file.sha256, bytes: bytes(&filesystem) };
        uki::command_line(place, &spec.kernel.console, &spec.kernel.cmdline)
    };
    let mut put = |name: &'static str, bytes: &[u8]| -> Result<()> {
        let file = unnamed.path().join(name);
        write::whole(&file, Readers::All, |mut to: &File| Ok(to.write_all(bytes)?))
            .with_context(|| format!("writing {}", file.display()))?;
        files.insert(name, Written { sha256: Digest::of(bytes), len: bytes.len() as u64 });
        Ok(())
    };
    put(KERNEL, &parts.kernel)?;
    put(INITRAMFS, &parts.initramfs)?;
    put(SCRIPT, script(base.as_deref(), &line(BASE)?).as_bytes())?;
    match &base {
        Some(base) => put(UKI, &parts.uki(&root.versions.kernel, &line(base)?)?)?,
        None => {
            no_uki(&out.join(UKI))?;
            workshop.console.say(format_args!(
                "no {UKI} for UEFI HTTP boot: it has to know where the folder is served (--root-url http://SERVER/FOLDER/)"
            ));
        }
    }
    for name in [ROOT, KERNEL, INITRAMFS, SCRIPT, UKI].into_iter().filter(|name| files.contains_key(name)) {
        let file = out.join(name);
        std::fs::rename(unnamed.path().join(name), &file)
            .with_context(|| format!("giving {} its name", file.display()))?;
    }
    sync_folder(&out.join(SCRIPT))?;
    clock.done("write");
    let manifest = manifest::write(request, root, manifest::Product::Folder(&files))?;
    let sbom = sbom::write(request, root, time)?;
    clock.done("manifest");
    let len = files.values().map(|file| file.len).sum();
    let digest = root_file.sha256;
    Ok(Built { digest, len, allocated: len, map: None, manifest, sbom, files: root.files(), steps: clock.steps })
}

/// What init plans a network by besides: it has to know the image before it has the root.
fn release(root: &Tree) -> Result<Tree> {
    let mut release = Tree::default();
    let node = root.nodes.get(overlay::RELEASE).with_context(|| format!("the root has no {}", overlay::RELEASE))?;
    release.insert(overlay::RELEASE, node.clone())?;
    Ok(release)
}

/// A UKI of an earlier build would name another root than the one that is here now.
fn no_uki(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}, which is of an earlier build", file.display()))
        }
        _ => Ok(()),
    }
}

/// What the root takes in memory at the most: every page that something of it stands on.
fn bytes(filesystem: &Filesystem) -> u64 {
    const PAGE: u64 = 4096;
    let pages = |start: u64, end: u64| end.next_multiple_of(PAGE) - start / PAGE * PAGE;
    filesystem.image.extents.iter().map(|extent| pages(extent.offset, extent.offset + extent.data.len())).sum()
}

/// The folder's URL with a slash at its end.
fn base_url(url: &str) -> Result<String> {
    let hint =
        || Hint("write --root-url http://SERVER/FOLDER/; the digest proves the root, so that it needs no https".into());
    let form = url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    let odd = url.contains(|one: char| one.is_whitespace() || one.is_control() || "\"?#".contains(one));
    let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    ensure!(
        form && !odd && is_authority(authority),
        anyhow!("{url:?} is no URL of a folder that is served by http").context(hint())
    );
    Ok(format!("{}/", url.trim_end_matches('/')))
}

/// Whether init finds a server by it: `HOST[:PORT]`, an IPv6 address in brackets, no user.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        Some((host, rest)) => (host.parse::<Ipv6Addr>().is_ok(), rest),
        None => {
            let (host, _) = text.split_at(text.find(':').unwrap_or(text.len()));
            (!host.is_empty() && !host.contains(['@', '[', ']']), &text[host.len()..])
        }
    };
    host && (port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| !port.starts_with('+') && port.parse::<u16>().is_ok()))
}

/// The script. Words that a site adds (`set words kscratch.metadata=http://...` before it chains this one) come last, and so count before others.
fn script(base: Option<&str>, line: &str) -> String {
    // Where iPXE had the script from; releases before 2024 do not tell.
    let base = base.unwrap_or("${cwduri}");
    format!(
        "#!ipxe\n\
         # kscratch: kernel and initramfs are fetched from where this file is, the root from ${{base}}. A script that chains this one may set\n\
         # that before, to http://SERVER/FOLDER/, and `words` to further words of the kernel's command line.\n\
         isset ${{base}} || set base {base}\n\
         isset ${{base}} || goto nowhere\n\
         kernel {KERNEL} initrd={INITRAMFS} {line} ${{words}}\n\
         initrd {INITRAMFS}\n\
         boot\n\
         :nowhere\n\
         echo This iPXE does not tell where it had this script from: build with --root-url http://SERVER/FOLDER/\n\
         exit 1\n"
    )
}

fn written(path: &Path) -> Result<Written> {
    let reading = || format!("reading {} again", path.display());
    let mut file = File::open(path).with_context(reading)?;
    let (mut hash, mut len, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer).with_context(reading)?;
        if count == 0 {
            return Ok(Written { sha256: Digest(hash.finalize().into()), len });
        }
        hash.update(&buffer[..count]);
        len += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::{base_url, script};

    #[test]
    fn a_folders_url_ends_with_a_slash() {
        for url in ["http://h:8080/a", "http://h:8080/a/"] {
            assert_eq!(base_url(url).unwrap(), "http://h:8080/a/");
        }
        assert_eq!(base_url("http://[2001:db8::1]").unwrap(), "http://[2001:db8::1]/");
        assert_eq!(base_url("http://[2001:db8::1]:80/a").unwrap(), "http://[2001:db8::1]:80/a/");
        for wrong in [
            "http://me:pw@h/a",
            "http://me@h/",
            "http://h:/",
            "http://h:99999/",
            "http://h:+80/x",
            "http://2001:db8::1/",
            "http://[h]/",
            "http://[::1]80/",
        ] {
            assert!(base_url(wrong).is_err(), "{wrong}");
        }
        for wrong in
            ["https://h/", "h/a", "http://", "http:///a", "http://h/a b", "http://h/?a", "http://h/\"", "http://h/\n"]
        {
            let error = base_url(wrong).unwrap_err();
            assert!(
                error.chain().any(|cause| cause.to_string().contains("is no URL of a folder")),
                "{wrong}: {error:#}"
            );
        }
    }

    #[test]
    fn the_script_has_the_roots_folder_from_whoever_knows_it() {
        let line = "kscratch.root=${base}root.ext4.zst panic=10";
        for (base, want) in [(None, "${cwduri}"), (Some("http://h/a/"), "http://h/a/")] {
            let text = script(base, line);
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(lines[0], format!("isset ${{base}} || set base {want}"));
            let kernel = "kernel vmlinuz initrd=initramfs kscratch.root=${base}root.ext4.zst panic=10 ${words}";
            assert_eq!(lines[1..6], ["isset ${base} || goto nowhere", kernel, "initrd initramfs", "boot", ":nowhere"]);
            assert!(text.starts_with("#!ipxe\n") && text.ends_with("\nexit 1\n"));
        }
    }
}
