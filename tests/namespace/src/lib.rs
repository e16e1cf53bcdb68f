//! Runs a test's body in a network of its own, where it may do what it likes to links, addresses and routes. For tests alone.
use std::env;
use std::process::{Command, Output};

/// Tells the test that it is below `unshare`, by its own name.
const INSIDE: &str = "KSCRATCH_TEST_NAMESPACE";

/// Runs the test of that name again below `unshare --net --mount`, and its body there. Needs root and util-linux.
///
/// # Panics
/// The body does, or it did not run.
#[track_caller]
pub fn of_its_own(name: &str, body: impl FnOnce()) {
    if env::var(INSIDE).is_ok_and(|value| value == name) {
        return body();
    }
    assert!(rustix::process::geteuid().is_root(), "network namespaces need root: run the tests as root");
    let own = env::current_exe().expect("finding the test's own program");
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--"]).arg(own).args(["--exact", name, "--nocapture"]).env(INSIDE, name);
    let output = command.output().expect("running unshare (apt-get install util-linux)");
    let text = text(&output);
    assert!(output.status.success(), "in the namespace:\n{text}");
    assert!(text.contains("1 passed"), "the test did not run in the namespace:\n{text}");
}

/// Runs a command whose words have no spaces, and gives what it says.
///
/// # Panics
/// It fails, or is not there.
#[track_caller]
pub fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    let output = command.args(words).output();
    let output =
        output.unwrap_or_else(|error| panic!("running {line}: {error} (apt-get install iproute2 nftables util-linux)"));
    let text = text(&output);
    assert!(output.status.success(), "{line}: {text}");
    text
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
