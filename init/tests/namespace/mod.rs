//! Network namespaces for tests: a test runs itself again in one of its own, below `unshare --net`, which needs root.
use std::process::Command;

pub mod server;

/// Runs the test's body in a network namespace of its own.
pub fn in_namespace(name: &str, body: fn()) {
    if std::env::var("KSCRATCH_TEST_NAMESPACE").is_ok_and(|value| value == name) {
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

/// Runs `ip`, or another program, and gives what it prints.
pub fn run(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .unwrap_or_else(|error| panic!("running {line}: {error} (apt-get install iproute2 nftables util-linux)"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {text}");
    text
}

/// IPv4 addresses of a link, as iproute2 says them.
pub fn addresses(link: &str) -> Vec<String> {
    let text = run(&format!("ip -4 -o addr show dev {link}"));
    text.lines().map(|line| line.split_whitespace().nth(3).unwrap().to_owned()).collect()
}
