//! Turns the words of a call of `modprobe` into loaded modules.
use std::path::Path;

use anyhow::{Result, bail};

use super::hardware::Loader;
use crate::kmod::Modules;
use crate::sys::Sys;

/// `modprobe` as the kernel (`/sbin/modprobe -q -- ALIAS`), kubelet and dockerd call it: flags and one or more names.
///
/// # Errors
/// A module is unknown or refused.
pub fn modprobe(sys: &dyn Sys, root: &Path, args: &[String]) -> Result<()> {
    let (mut all, mut names, mut flags_end) = (false, Vec::new(), false);
    for arg in args.iter().flat_map(|arg| single_flags(arg)) {
        match arg.as_str() {
            "--" if !flags_end => flags_end = true,
            "-a" | "--all" if !flags_end => all = true,
            "-q" | "--quiet" | "-v" | "--verbose" | "-b" | "--use-blacklist" | "-s" | "--syslog" if !flags_end => {}
            flag if flag.starts_with('-') && !flags_end => {
                bail!("the flag {flag} is not supported by kscratch-init")
            }
            _ => names.push(arg),
        }
    }
    // Without --all, what stands behind the first name are parameters of the module (modprobe(8)).
    let (names, parameters) = if all { (names.as_slice(), None) } else { (&names[..names.len().min(1)], names.get(1)) };
    if let Some(parameter) = parameters {
        bail!("module parameters ({parameter}) are not supported by kscratch-init");
    }
    let folder = Modules::folder(root);
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    let loader = Loader::with(sys, root, &folder, Modules::read_for(&folder, &wanted))?;
    for name in names {
        let known = loader.load(name)?;
        if !known {
            bail!("module {name} not found in {}", folder.display());
        }
    }
    Ok(())
}

/// `-va` as `-v -a`: dockerd calls it so.
fn single_flags(arg: &str) -> Vec<String> {
    match arg.strip_prefix('-') {
        Some(letters) if letters.len() > 1 && !letters.starts_with('-') => {
            letters.chars().map(|letter| format!("-{letter}")).collect()
        }
        _ => vec![arg.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::modprobe;
    use crate::kmod::Modules;
    use crate::stage::hardware::tests::root;
    use crate::sys::Recording;

    #[track_caller]
    fn probe(args: &[&str]) -> Result<Vec<String>, String> {
        let root = root();
        let folder = Modules::folder(root.path());
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        fs::rename(root.path().join("m"), &folder).unwrap();
        let sys = Recording::new();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let prefix = format!("load {}/", folder.display());
        let loaded = |sys: &Recording| sys.calls().iter().map(|line| line.replace(&prefix, "")).collect();
        modprobe(&sys, root.path(), &args).map(|()| loaded(&sys)).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn modprobe_as_its_callers_call_it() {
        assert_eq!(
            probe(&["-q", "--", "virtio:d00000002v00001AF4"]).unwrap(),
            ["kernel/virtio_ring.ko", "kernel/virtio_blk.ko"]
        );
        assert_eq!(probe(&["br_netfilter"]).unwrap(), ["kernel/br-netfilter.ko"]);
        assert_eq!(probe(&["-r", "overlay"]).unwrap_err(), "the flag -r is not supported by kscratch-init");
        assert_eq!(
            probe(&["-va", "br_netfilter", "overlay"]).unwrap(),
            ["kernel/br-netfilter.ko", "kernel/overlay.ko"]
        );
        assert!(probe(&["--", "ip_vs"]).unwrap_err().starts_with("module ip_vs not found in "));
        assert_eq!(
            probe(&["overlay", "index=on"]).unwrap_err(),
            "module parameters (index=on) are not supported by kscratch-init"
        );
    }
}
