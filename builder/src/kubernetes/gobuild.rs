//! A pinned Go [`Module`] becomes programs in the store: compiled once for its checksums, flags and Go version.
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use super::pinned::Module;
use super::{patched, version};
use crate::console::{Console, Hint};
use crate::derived;
use crate::lock::{Artifact, Origin};
use crate::store::{Digest, Store};

/// The environment that decides what comes out. To Go an empty variable is one that is not set, and then the user's own file counts (`go env -w`):
/// that file is left out.
const ENVIRONMENT: [(&str, &str); 11] = [
    ("CGO_ENABLED", "0"),
    ("GO111MODULE", "on"),
    ("GOAMD64", "v1"),
    ("GOARCH", "amd64"),
    ("GOENV", "off"),
    ("GOEXPERIMENT", ""),
    ("GOFIPS140", "off"),
    ("GOFLAGS", ""),
    ("GOOS", "linux"),
    ("GOTOOLCHAIN", "local"),
    ("GOWORK", "off"),
];

/// Variables that stay as the machine has them, in its environment or in the user's file: where modules come from, as go.sum holds their checksums,
/// and where Go keeps what it has.
const OF_MACHINE: [&str; 13] = [
    "GOAUTH",
    "GOCACHE",
    "GOCACHEPROG",
    "GOINSECURE",
    "GOMODCACHE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPATH",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "GOTMPDIR",
    "GOVCS",
];

/// Lines of the compiler's output that an error shows.
const SHOWN: usize = 20;

/// How long a log may stay silent during a compile.
const SILENCE: Duration = Duration::from_secs(20);

/// What was compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// Digests of programs, by name.
    pub programs: BTreeMap<String, Digest>,
}

/// The version of a Go, e.g. `1.26.8`.
///
/// # Errors
/// It is not there or does not answer as Go does.
pub fn go_version(go: &Path) -> Result<String> {
    let output = Command::new(go)
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local")
        .env_remove("GOROOT")
        .output()
        .with_context(|| format!("running {}", go.display()))?;
    ensure!(output.status.success(), "{} env GOVERSION ended with {}", go.display(), output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text
        .trim()
        .strip_prefix("go")
        .with_context(|| format!("{} says its version is `{}`", go.display(), text.trim()))?;
    // Distributions add words behind the number.
    let version = version.split_whitespace().next().unwrap_or_default();
    version::go(version).with_context(|| format!("asking {} for its version", go.display()))?;
    Ok(version.to_owned())
}

/// The machine's values of [`OF_MACHINE`], by Go's own word for them.
fn of_machine(go: &Path, work: &Path) -> Result<BTreeMap<String, String>> {
    let output = Command::new(go)
        .current_dir(work)
        .args(["env", "-json"])
        .args(OF_MACHINE)
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        .env_remove("GOROOT")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", go.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} env ended with {}: {}", go.display(), output.status, said.trim());
    serde_json::from_slice(&output.stdout).with_context(|| format!("reading what {} env says", go.display()))
}

/// Go in a folder of work, in the environment of a compile.
fn in_environment(go: &Path, verb: &str, work: &Path, kept: &BTreeMap<String, String>, offline: bool) -> Command {
    let mut command = Command::new(go);
    // Each Go finds its own library; a variable would give it another one's.
    command.current_dir(work).envs(kept).envs(ENVIRONMENT).env_remove("GOROOT").arg(verb).stdin(Stdio::null());
    if offline {
        command.env("GOPROXY", "off");
    }
    command
}

/// The version of this Go, if it can compile the module.
///
/// # Errors
/// No Go, or one too old; with what helps.
pub fn fitting_go(go: &Path, module: &Module) -> Result<String> {
    let hint = || {
        Hint(format!(
            "install Go {} or later and have it in PATH, or take an official server tarball: --kubernetes FILE",
            module.go()
        ))
    };
    let found = go_version(go)
        .with_context(|| format!("compiling {} {} needs Go", module.name, module.version()))
        .with_context(hint)?;
    if version::go(&found)? < version::go(module.go())? {
        return Err(anyhow!(
            "compiling {} {} needs Go {} or later, and this machine's is {found}",
            module.name,
            module.version(),
            module.go()
        )
        .context(hint()));
    }
    Ok(found)
}

/// The artifact of a module compiled by a Go.
pub fn artifact(module: &Module, go: &str) -> Artifact {
    Artifact {
        name: module.name.into(),
        version: module.version().into(),
        size: None,
        sha256: None,
        origin: Origin::GoBuild {
            module: module.path.into(),
            module_version: format!("v{}", module.version()),
            programs: module.programs.iter().map(|main| main.package.to_owned()).collect(),
            go_sum: module.digest(),
            go: go.into(),
            flags: module.flags(),
        },
    }
}

/// The name that the store remembers a compile by: everything that decides its result.
fn key(module: &Module, go: &str) -> Digest {
    let flags = module.flags();
    let environment = ENVIRONMENT.map(|(name, value)| format!("{name}={value}"));
    let digest = module.digest();
    let parts = [digest.0.as_slice(), go.as_bytes()];
    let words = module.programs.iter().map(|main| main.package.as_bytes());
    derived::key(
        "go build 2",
        parts
            .into_iter()
            .chain(words)
            .chain(flags.iter().map(String::as_bytes))
            .chain(environment.iter().map(String::as_bytes)),
    )
}

/// What was compiled earlier, if the store still has it.
pub fn remembered(module: &Module, go: &str, store: &Store) -> Option<Compiled> {
    derived::get::<Compiled>(store, &key(module, go))
        .filter(|compiled| compiled.programs.values().all(|digest| store.has(digest)))
}

/// Compiles the module and puts its programs into the store.
///
/// # Errors
/// What the Go compiler says, its last lines; offline, a module that Go's own cache lacks.
pub fn compile(
    module: &Module,
    go: &Path,
    version: &str,
    offline: bool,
    store: &Store,
    console: &Console,
) -> Result<Compiled> {
    let work = store.scratch()?;
    let write = |name: &str, text: &str| {
        fs::write(work.path().join(name), text).with_context(|| format!("writing {name} of {}", module.name))
    };
    write("go.mod", module.go_mod)?;
    write("go.sum", module.go_sum)?;
    if let Some(main_go) = module.main_go {
        write("main.go", main_go)?;
    }
    let packages: Vec<&str> = module.programs.iter().map(|main| main.package).collect();
    let kept = of_machine(go, work.path()).context("asking Go where modules come from")?;
    let command = |verb: &str| in_environment(go, verb, work.path(), &kept, offline);
    let what = format!("{} {}", module.name, module.version());
    let spinner = console.spinner(&format!("compiling {what}"));
    spinner.message("downloading modules");
    if !module.patches.is_empty() {
        // Checked against go.sum on the way.
        let asked = format!("{}@v{}", module.path, module.version());
        let told = run(command("mod").args(["download", "-json", &asked]), &mut |_| {})
            .map_err(|error| explain(error, &what, offline))?;
        patched::place(work.path(), &told.concat(), module.patches).with_context(|| format!("patching {what}"))?;
        write("go.mod", &format!("{}\nreplace {} => ./{}\n", module.go_mod, module.path, patched::FOLDER))?;
    }
    let imported = run(command("list").args(["-mod=readonly", "-deps"]).args(&packages), &mut |_| {})
        .map_err(|error| explain(error, &what, offline))?;
    let (total, mut done) = (imported.len(), 0);
    let out = work.path().join("out");
    fs::create_dir(&out).with_context(|| format!("making {}", out.display()))?;
    let mut spoke = Instant::now();
    let mut told = |line: &str| {
        // With -v, go names each package it compiles; those that it has compiled before it leaves out.
        if !line.contains(' ') {
            done += 1;
            spinner.message(format_args!("{done} of at most {total} packages"));
            // A log has no spinner, and minutes of silence look like a hang.
            if !std::io::stderr().is_terminal() && spoke.elapsed() > SILENCE {
                console.say(format_args!("compiling {what}: {done} of at most {total} packages"));
                spoke = Instant::now();
            }
        }
    };
    run(command("build").args(module.flags()).arg("-v").arg("-o").arg(&out).args(&packages), &mut told)
        .map_err(|error| explain(error, &what, offline))?;
    let mut compiled = Compiled { programs: BTreeMap::new() };
    for main in module.programs {
        let file = File::open(out.join(main.built_as()))
            .with_context(|| format!("opening the program {} that was compiled", main.program))?;
        compiled.programs.insert(main.program.to_owned(), store.add(&mut &file)?.0);
    }
    derived::put(store, &key(module, version), &compiled)?;
    Ok(compiled)
}

fn explain(error: anyhow::Error, what: &str, offline: bool) -> anyhow::Error {
    let error = error.context(format!("compiling {what}"));
    if offline {
        error
            .context(format!("{what} was not compiled before, and the network may not be used"))
            .context(Hint("the same command without --offline compiles it".into()))
    } else {
        error
    }
}

/// Runs Go, telling each line of its standard error as it comes; gives the lines of its standard output.
fn run(command: &mut Command, told: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("starting go")?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        bail!("go was started without pipes")
    };
    let mut last: VecDeque<String> = VecDeque::new();
    let lines = std::thread::scope(|scope| -> Result<Vec<String>> {
        let output = scope.spawn(move || BufReader::new(stdout).lines().collect::<Result<Vec<String>, _>>());
        for line in BufReader::new(stderr).lines() {
            let line = line.context("reading what go says")?;
            told(&line);
            if last.len() == SHOWN {
                last.pop_front();
            }
            last.push_back(line);
        }
        let lines = output.join().map_err(|_| anyhow!("the thread that reads go's output panicked"))?;
        lines.context("reading go's output")
    })?;
    let status = child.wait().context("waiting for go")?;
    ensure!(status.success(), "go ended with {status}:\n{}", Vec::from(last).join("\n"));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::super::pinned::{Main, Patch};
    use super::*;

    const MODULE: Module = Module {
        name: "kubernetes",
        path: "example.test/thing",
        programs: &[
            Main { package: "example.test/thing/cmd/a/v3", program: "first" },
            Main { package: ".", program: "b" },
        ],
        go_mod: "module x\n\ngo 1.26.0\n\nrequire example.test/thing v1.40.3\n",
        go_sum: "",
        main_go: Some("package main"),
        patches: &[],
    };

    /// What the machine says of where modules come from.
    const SAID: &str = r#"{"GOPROXY": "https://proxy.example.test", "GOPRIVATE": "example.test", "GONOSUMDB": ""}"#;

    /// A Go that is a script: what it was asked is kept beside it.
    fn go(folder: &Path, version: &str, build: &str) -> PathBuf {
        let path = folder.join("go");
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {0}/asked; echo \"proxy=$GOPROXY cgo=$CGO_ENABLED\" >> {0}/asked\n\
             case $1$2 in env-json) echo '{SAID}';; env*) echo go{version};; list*) printf 'x\\ny\\n';; build*) {build};; esac\n",
            folder.display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    const BUILDS: &str =
        "echo x >&2; cat main.go > ../../main.go; while [ \"$1\" != -o ]; do shift; done; echo A > $2/a; echo B > $2/b";

    #[test]
    fn a_compile_is_done_once_for_its_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let go = go(folder.path(), "1.26.8", BUILDS);
        assert_eq!(fitting_go(&go, &MODULE).unwrap(), "1.26.8");
        assert_eq!(remembered(&MODULE, "1.26.8", &store), None);
        let compiled = compile(&MODULE, &go, "1.26.8", true, &store, &Console::silent()).unwrap();
        assert_eq!(compiled.programs.keys().collect::<Vec<_>>(), ["b", "first"]);
        assert_eq!(compiled.programs["first"], Digest::of(b"A\n"));
        assert_eq!(fs::read_to_string(store.root().join("main.go")).unwrap(), "package main");
        assert_eq!(remembered(&MODULE, "1.26.8", &store), Some(compiled));
        assert_eq!(remembered(&MODULE, "1.26.9", &store), None);
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        assert!(
            asked.contains("build -trimpath -buildvcs=false -mod=readonly -ldflags=-s -w -buildid= -v -o"),
            "{asked}"
        );
        assert!(asked.contains("proxy=off cgo=0"), "{asked}");
    }

    #[test]
    fn a_patched_module_is_compiled_from_its_copy() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let upstream = folder.path().join("upstream");
        fs::create_dir_all(&upstream).unwrap();
        fs::write(upstream.join("a.go"), "one two").unwrap();
        let build = "cat go.mod patched/a.go > ../../seen; while [ \"$1\" != -o ]; do shift; done; echo A > $2/a; echo B > $2/b";
        let go = go(folder.path(), "1.26.8", build);
        let script = fs::read_to_string(&go).unwrap();
        let download = format!("mod*) echo '{{'; echo '\"Dir\": \"{}\"}}';; env*)", upstream.display());
        fs::write(&go, script.replacen("env*)", &download, 1)).unwrap();
        let patches = &[Patch { file: "a.go", from: "two", to: "three" }];
        compile(&Module { patches, ..MODULE }, &go, "1.26.8", true, &store, &Console::silent()).unwrap();
        let seen = fs::read_to_string(store.root().join("seen")).unwrap();
        assert!(seen.ends_with("\nreplace example.test/thing => ./patched\none three"), "{seen}");
        assert_eq!(fs::read_to_string(upstream.join("a.go")).unwrap(), "one two");
    }

    #[test]
    fn the_machine_says_where_modules_come_from_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let go = go(folder.path(), "1.26.8", "");
        let kept = of_machine(&go, folder.path()).unwrap();
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        assert!(asked.starts_with(&format!("env -json {}\n", OF_MACHINE.join(" "))), "{asked}");
        for (offline, name, want) in [
            (false, "GOPROXY", Some("https://proxy.example.test")),
            (true, "GOPROXY", Some("off")),
            (false, "GOPRIVATE", Some("example.test")),
            (false, "GOENV", Some("off")),
            (false, "GOFLAGS", Some("")),
            (false, "GOWORK", Some("off")),
            (false, "GO111MODULE", Some("on")),
            (false, "GOTOOLCHAIN", Some("local")),
            (false, "GOROOT", None),
        ] {
            let command = in_environment(&go, "build", folder.path(), &kept, offline);
            let set = command.get_envs().find(|(key, _)| *key == OsStr::new(name)).map(|(_, value)| value);
            // Of what is not set, the machine's would be inherited: it has to be taken away.
            assert_eq!(set, Some(want.map(OsStr::new)), "{name}");
        }
        for (what, want) in [("exit 3", "env ended with exit status: 3"), ("echo no", "reading what ")] {
            fs::write(&go, format!("#!/bin/sh\n{what}\n")).unwrap();
            let error = format!("{:#}", of_machine(&go, folder.path()).unwrap_err());
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn a_go_of_an_unknown_version_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", fitting_go(&go(folder.path(), "1.26.8-own", ""), &MODULE).unwrap_err());
        for part in ["install Go 1.26.0", "the Go version `1.26.8-own` is not of the form"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_old_or_missing_go_is_named_with_what_helps() {
        let folder = tempfile::tempdir().unwrap();
        let missing = format!("{:#}", fitting_go(&folder.path().join("go"), &MODULE).unwrap_err());
        assert!(
            missing.contains("compiling kubernetes 1.40.3 needs Go") && missing.contains("install Go 1.26.0"),
            "{missing}"
        );
        let old = format!("{:#}", fitting_go(&go(folder.path(), "1.19.2", ""), &MODULE).unwrap_err());
        assert!(old.contains("needs Go 1.26.0 or later, and this machine's is 1.19.2"), "{old}");
    }

    #[test]
    fn a_failed_compile_shows_what_go_said() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let go = go(folder.path(), "1.26.8", "echo 'no module' >&2; exit 1");
        let error = format!("{:#}", compile(&MODULE, &go, "1.26.8", true, &store, &Console::silent()).unwrap_err());
        for part in [
            "kubernetes 1.40.3 was not compiled before, and the network may not be used",
            "no module",
            "exit status: 1",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
