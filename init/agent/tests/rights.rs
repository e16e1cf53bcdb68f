//! Turns what PID 1 leaves to root's agents of root's capabilities into certificates for other users, made and kept with no more than that.
//!
//! Needs root, who alone gives files away, and `setpriv` of util-linux. That `routes` does its work is shown in `kernel.rs`.
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use kscratch_pki::{Authority, OffsetDateTime};

/// As in init/src/plan/services.rs.
const STEWARD: &str = "-all,+chown,+dac_override,+fowner";
const IDENTITIES: &str = "-all,+chown,+dac_read_search";

/// An authority, and a file that wants a certificate for a user in a directory of an owner.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new(user: u32, owner: u32, mode: u32) -> Self {
        assert!(rustix::process::geteuid().is_root(), "giving files away needs root: run the tests as root");
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        let (_, pair) = Authority::new_with_pair("kubernetes", OffsetDateTime::now_utc(), 10).unwrap();
        fs::write(machine.at("ca.crt"), pair.certificate_pem).unwrap();
        fs::write(machine.at("ca.key"), pair.key_pem).unwrap();
        let directory = machine.at("own");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        chown(&directory, Some(owner), Some(owner)).unwrap();
        let wanted = format!(
            r#"{{"authorities": {{"cluster": {{"certificate": "{}", "key": "{}"}}}}, "certificates": [{{"certificate": "{}", "key": "{}",
            "authority": "cluster", "common_name": "x", "usages": ["client"], "days": 365, "owner": {user}}}]}}"#,
            machine.at("ca.crt").display(),
            machine.at("ca.key").display(),
            machine.at("own/client.crt").display(),
            machine.at("own/client.key").display(),
        );
        fs::write(machine.at("certificates.json"), wanted).unwrap();
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the agent says who has these capabilities.
    fn agent(&self, capabilities: &str) -> String {
        let output = Command::new("setpriv")
            .args(["--bounding-set", capabilities, "--inh-caps", "-all", "--no-new-privs"])
            .args([env!("CARGO_BIN_EXE_kscratch-agent"), "certificates"])
            .arg(self.at("certificates.json"))
            .output()
            .expect("running setpriv (apt-get install util-linux)");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    #[track_caller]
    fn says(&self, capabilities: &str, text: &str) {
        let said = self.agent(capabilities);
        assert!(said.contains(text), "{capabilities} does not lead to {text:?}: {said}");
    }
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let is = fs::metadata(path).unwrap();
    (is.uid(), is.gid(), is.mode() & 0o7777)
}

#[test]
fn the_steward_keeps_certificates_of_the_control_plane() {
    let machine = Machine::new(901, 901, 0o700);
    machine.says(IDENTITIES, "Permission denied");
    machine.says(STEWARD, "made certificate");
    let (certificate, key) = (machine.at("own/client.crt"), machine.at("own/client.key"));
    assert_eq!((owner_and_mode(&certificate), owner_and_mode(&key)), ((901, 901, 0o644), (901, 901, 0o600)));
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    machine.says(STEWARD, "kept certificate");
    assert_eq!(owner_and_mode(&key), (901, 901, 0o600));
}

#[test]
fn identities_gives_routes_its_key() {
    let machine = Machine::new(905, 0, 0o711);
    machine.says("-all", "Operation not permitted");
    machine.says(IDENTITIES, "made certificate");
    let (certificate, key) = (machine.at("own/client.crt"), machine.at("own/client.key"));
    assert_eq!((owner_and_mode(&certificate), owner_and_mode(&key)), ((905, 905, 0o644), (905, 905, 0o600)));
    machine.says(IDENTITIES, "kept certificate");
    // An earlier version had the key belong to root.
    chown(&key, Some(0), Some(0)).unwrap();
    machine.says(IDENTITIES, "kept certificate");
    assert_eq!(owner_and_mode(&key), (905, 905, 0o600));
}
