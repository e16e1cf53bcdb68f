//! Networks of tests' own, and a DHCP server in them.
pub use kscratch_namespace::{of_its_own as in_namespace, run};

pub mod server;

/// IPv4 addresses of a link, as iproute2 says them.
pub fn addresses(link: &str) -> Vec<String> {
    let text = run(&format!("ip -4 -o addr show dev {link}"));
    text.lines().map(|line| line.split_whitespace().nth(3).unwrap().to_owned()).collect()
}
