//! Runs programs, `kscratch-image` above all, with a bound in time, and keeps what they said.
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use kscratch_qemu::child::Child;

/// Enough for anything that neither downloads nor compiles.
pub const SHORT: Duration = Duration::from_secs(120);

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Said {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Ends the test unless the program succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Said {
        assert_eq!(self.code, 0, "it said:\n{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace")
}

/// A folder for what tests make, kept between runs.
pub fn scratch() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let folder = target.join("kscratch-tests");
    fs::create_dir_all(&folder).expect("making the tests' folder");
    folder
}

/// `kscratch-image` as this workspace builds it, or the one that `KSCRATCH_IMAGE` names.
///
/// Cargo builds no other package's programs for a test, so cargo is asked for it: that is over at once where it is built already.
pub fn kscratch_image() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| std::env::var_os("KSCRATCH_IMAGE").map_or_else(built_here, PathBuf::from))
}

fn built_here() -> PathBuf {
    let mut cargo = cargo();
    cargo.args(["build", "--package", "kscratch-image", "--bin", "kscratch-image"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let said = run(cargo, Duration::from_secs(30 * 60));
    assert_eq!(said.code, 0, "building kscratch-image:\n{}", said.stderr);
    let executable = said.stdout.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    executable.expect("cargo names the program that it built")
}

/// The cargo that runs this test.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

/// Runs `kscratch-image` in a folder.
pub fn kscratch<A: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = A>, bound: Duration) -> Said {
    let mut command = Command::new(kscratch_image());
    command.args(args).current_dir(folder).env("NO_COLOR", "1").env("COLUMNS", "100");
    // Whoever runs the tests may have a cluster, which no test is to touch, and no help text is to name.
    command.env_remove("KUBECONFIG");
    run(command, bound)
}

/// Runs a tool of the system and gives its output; the test fails with the way to get the tool where it is missing.
#[track_caller]
pub fn tool<A: AsRef<OsStr>>(name: &str, package: &str, args: impl IntoIterator<Item = A>) -> Said {
    let places = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    // Checkers of filesystems stand in sbin, which is not on every user's PATH.
    let path = std::env::var("PATH").map_or_else(|_| places.to_owned(), |path| format!("{path}:{places}"));
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    let program = found.unwrap_or_else(|| panic!("this test needs `{name}`: apt-get install {package}"));
    let mut command = Command::new(program);
    command.args(args);
    run(command, SHORT)
}

/// Runs a command to its end; kills it and ends the test where it takes longer than `bound`.
#[track_caller]
pub fn run(command: Command, bound: Duration) -> Said {
    let line = format!("{command:?}");
    match attempt(command, bound) {
        (true, said) => said,
        (false, Said { stdout, stderr, .. }) => {
            panic!("{line} had not ended after {bound:?}; it said:\n{stdout}\n{stderr}")
        }
    }
}

/// The same, but what takes too long is killed and no more: whether it ended by itself, and what it said.
#[track_caller]
pub fn attempt(mut command: Command, bound: Duration) -> (bool, Said) {
    let folder = tempfile::tempdir().expect("making a folder for a program's output");
    // Files, not pipes: a program that says much must not wait for anyone to read it.
    let (stdout, stderr) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let line = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(File::create(&stdout).expect("making a file for output"));
    let errors = File::create(&stderr).expect("making a file for errors");
    let (mut child, _, _) =
        Child::start_with_stderr(command, errors.into()).unwrap_or_else(|error| panic!("starting {line}: {error}"));
    let ended = child.wait(bound);
    child.kill();
    let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let code = ended.and_then(|status| status.code()).unwrap_or(-1);
    (ended.is_some(), Said { code, stdout: read(stdout), stderr: read(stderr) })
}
