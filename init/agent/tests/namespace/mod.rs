//! Runs a test's body in a network namespace of its own, where it may do what it likes to links, addresses and routes.
use std::process::Command;

/// Runs the test again below `unshare`, with an empty `/run`, and its body there. Needs root and util-linux.
pub fn of_its_own(name: &str, body: impl FnOnce()) {
    if std::env::var("KSCRATCH_TEST_NAMESPACE").is_ok_and(|value| value == name) {
        run("mount -t tmpfs tmpfs /run");
        run("ip link set lo up");
        return body();
    }
    assert!(rustix::process::geteuid().is_root(), "network namespaces need root: run the tests as root");
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("KSCRATCH_TEST_NAMESPACE", name)
        .output()
        .expect("running unshare (apt-get install util-linux)");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "in the namespace:\n{text}");
    assert!(text.contains("1 passed"), "the test did not run in the namespace:\n{text}");
}

/// Runs a command whose words have no spaces, and gives what it says.
#[track_caller]
pub fn run(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .unwrap_or_else(|error| panic!("running {line}: {error} (apt-get install iproute2 util-linux)"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {text}");
    text
}
