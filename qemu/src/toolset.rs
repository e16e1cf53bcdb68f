//! A [`Toolset`] says where QEMU, its image tool and OVMF are: on this machine, or below a folder of unpacked packages.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// A program and how it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// The dynamic loader and the folders with libraries, for a program that is not at home on this machine: its libc may be newer
    /// than the machine's, so that setting a library path alone would not start it.
    pub loader: Option<(PathBuf, Vec<PathBuf>)>,
}

impl Program {
    /// The one of that name in `PATH`, or where distributions put programs.
    pub fn installed(name: &str) -> Option<Program> {
        on_path(name).map(|path| Program { path, loader: None })
    }

    /// The one at that place below a folder into which its Debian `package` and all that this depends on (libc too) were unpacked. `libraries` are
    /// folders of its own, which the loader does not look into by itself.
    ///
    /// # Errors
    /// [`Error::Missing`] names what the folder lacks.
    pub fn below(root: &Path, relative: &str, package: &'static str, libraries: &[&str]) -> Result<Program, Error> {
        let path = part(root, relative, package)?;
        let loader = part(root, "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "libc6")
            .or_else(|_| part(root, "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "libc6"))?;
        let usual = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        let libraries = usual.iter().chain(libraries).map(|folder| root.join(folder)).collect();
        Ok(Program { path, loader: Some((loader, libraries)) })
    }

    /// The start of a command line, to be given the program's own arguments.
    pub fn command_line(&self) -> Vec<OsString> {
        let Some((loader, libraries)) = &self.loader else {
            return vec![self.path.clone().into()];
        };
        let mut path = OsString::new();
        for (index, folder) in libraries.iter().enumerate() {
            if index > 0 {
                path.push(":");
            }
            path.push(folder);
        }
        vec![loader.into(), "--library-path".into(), path, self.path.clone().into()]
    }

    /// The command that starts it without arguments.
    pub fn command(&self) -> Command {
        let line = self.command_line();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        command
    }

    /// The same; by `setpriv`, where there is one, the kernel kills it when this program ends, however that happens. No other signal would
    /// do: a program that waits for signals has them blocked, and what it starts has them blocked with it.
    pub fn command_that_ends_with_us(&self, setpriv: Option<&Path>) -> Command {
        let Some(setpriv) = setpriv else { return self.command() };
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL"]).args(self.command_line());
        command
    }
}

/// Where the programs and firmware files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolset {
    /// `qemu-system-x86_64`.
    pub qemu: Program,
    /// `qemu-img`.
    pub qemu_img: Program,
    /// OVMF's code and its pristine variables, where there are any.
    pub ovmf: Option<(PathBuf, PathBuf)>,
    /// Folders with QEMU's own data (BIOS, option ROMs), where they are not those that QEMU was built for.
    pub data: Vec<PathBuf>,
    /// util-linux's `setpriv`, which has the kernel end QEMU when this program ends without saying goodbye.
    pub setpriv: Option<PathBuf>,
}

/// Code and variables of OVMF as distributions lay them out: Debian and Ubuntu, Fedora, Arch. The builds with Secure Boot are left
/// out: they need SMM and refuse an unsigned image.
const OVMF: &[(&str, &str)] = &[
    ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
    ("usr/share/edk2/ovmf/OVMF_CODE.fd", "usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("usr/share/edk2/x64/OVMF_CODE.4m.fd", "usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("usr/share/qemu/edk2-x86_64-code.fd", "usr/share/qemu/edk2-i386-vars.fd"),
];

/// Where programs may stand besides `PATH`.
const PROGRAMS: &[&str] = &["/usr/bin", "/usr/local/bin", "/usr/libexec"];

impl Toolset {
    /// Looks in `PATH` and in the places where distributions put things.
    ///
    /// # Errors
    /// [`Error::Missing`] for `qemu-system-x86_64` or `qemu-img`. Missing firmware is told when a machine wants it.
    pub fn find() -> Result<Toolset, Error> {
        let program = |name: &str, package| -> Result<Program, Error> {
            Program::installed(name).ok_or_else(|| Error::Missing {
                what: name.to_owned(),
                places: format!("PATH, {}", PROGRAMS.join(", ")),
                package,
            })
        };
        Ok(Toolset {
            qemu: program("qemu-system-x86_64", "qemu-system-x86")?,
            qemu_img: program("qemu-img", "qemu-utils")?,
            ovmf: ovmf_below(Path::new("/")),
            data: Vec::new(),
            setpriv: on_path("setpriv"),
        })
    }

    /// Looks below the folder into which Debian's `qemu-system-x86`, `qemu-utils`, `ovmf`, `seabios` and what they depend on (libc too)
    /// were unpacked: nothing of them needs to be installed.
    ///
    /// # Errors
    /// [`Error::Missing`] names what the folder lacks.
    pub fn below(root: &Path) -> Result<Toolset, Error> {
        Ok(Toolset {
            qemu: Program::below(root, "usr/bin/qemu-system-x86_64", "qemu-system-x86", &[])?,
            qemu_img: Program::below(root, "usr/bin/qemu-img", "qemu-utils", &[])?,
            ovmf: ovmf_below(root),
            data: vec![part(root, "usr/share/qemu", "qemu-system-data")?, part(root, "usr/share/seabios", "seabios")?],
            setpriv: on_path("setpriv"),
        })
    }

    /// The release of QEMU, as (major, minor); `None` where it does not say.
    pub fn release(&self) -> Option<(u32, u32)> {
        let said = self.qemu.command().arg("--version").output().ok()?;
        release(&String::from_utf8_lossy(&said.stdout))
    }

    /// The start of a command line of QEMU; the kernel kills it when this program ends, however that happens.
    pub fn qemu_that_ends_with_us(&self) -> Command {
        self.qemu.command_that_ends_with_us(self.setpriv.as_deref())
    }

    /// OVMF's code and variables.
    ///
    /// # Errors
    /// [`Error::Missing`] where there are none.
    pub fn firmware(&self) -> Result<&(PathBuf, PathBuf), Error> {
        self.ovmf.as_ref().ok_or_else(|| Error::Missing {
            what: "OVMF (UEFI firmware for QEMU)".to_owned(),
            places: OVMF.iter().map(|(code, _)| format!("/{code}")).collect::<Vec<_>>().join(", "),
            package: "ovmf",
        })
    }
}

/// `QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)`.
fn release(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_once("version ")?.1.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn ovmf_below(root: &Path) -> Option<(PathBuf, PathBuf)> {
    OVMF.iter()
        .map(|(code, vars)| (root.join(code), root.join(vars)))
        .find(|(code, vars)| code.exists() && vars.exists())
}

/// What a package brings, below a folder.
fn part(root: &Path, relative: &str, package: &'static str) -> Result<PathBuf, Error> {
    let path = root.join(relative);
    let missing = || Error::Missing { what: relative.to_owned(), places: root.display().to_string(), package };
    if path.exists() { Ok(path) } else { Err(missing()) }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(PROGRAMS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpacked_program_starts_through_its_own_loader() {
        let program = Program {
            path: "/r/usr/bin/qemu".into(),
            loader: Some(("/r/ld.so".into(), vec!["/r/a".into(), "/r/b".into()])),
        };
        assert_eq!(program.command_line(), ["/r/ld.so", "--library-path", "/r/a:/r/b", "/r/usr/bin/qemu"]);
        assert_eq!(Program { path: "/q".into(), loader: None }.command_line(), ["/q"]);
    }

    #[test]
    fn a_release_is_read() {
        assert_eq!(release("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"), Some((7, 2)));
        assert_eq!(release("QEMU emulator version 10.0-rc1"), Some((10, 0)));
        for text in ["", "version ", "version x.1", "QEMU emulator version 10"] {
            assert_eq!(release(text), None, "{text}");
        }
    }

    #[test]
    fn a_folder_without_qemu_says_which_package_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let error = Toolset::below(root.path()).unwrap_err().to_string();
        assert!(error.contains("package qemu-system-x86"), "{error}");
        for (file, package) in [("usr/bin/swtpm", "swtpm"), ("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "libc6")]
        {
            let error = Program::below(root.path(), "usr/bin/swtpm", "swtpm", &[]).unwrap_err().to_string();
            assert!(error.contains(&format!("package {package})")), "{error}");
            std::fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            std::fs::write(root.path().join(file), "").unwrap();
        }
        let (_, libraries) = Program::below(root.path(), "usr/bin/swtpm", "swtpm", &["own"]).unwrap().loader.unwrap();
        assert_eq!((libraries.len(), libraries.last().unwrap()), (3, &root.path().join("own")));
    }
}
