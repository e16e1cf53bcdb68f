//! `[docker]` and `[kubelet]`: settings that a daemon does not take, and those that are kscratch's own.
use expect_test::expect;

use crate::{CA, check};

#[test]
fn docker() {
    check(
        "[docker]\ninsecure_registries = [\"http://r:5000\", \"10.0.0.0/33\", \"r:x\"]\n",
        expect![[r#"
            role.toml:4:24: docker.insecure_registries[0]: "http://r:5000" has a scheme; leave out "http://" and write "r:5000"
            role.toml:4:41: docker.insecure_registries[1]: "10.0.0.0/33" is no ADDRESS/PREFIX; write it like 10.244.0.0/16
            role.toml:4:56: docker.insecure_registries[2]: "x" is no port; give a port between 1 and 65535"#]],
    );
    check(
        "[docker]\nmirrors = [\"mirror\", \"https://u:hunter2@m\", \"https://m/path\"]\n",
        expect![[r#"
            role.toml:4:12: docker.mirrors[0]: is no http or https URL; write it like https://mirror.example.org
            role.toml:4:22: docker.mirrors[1]: holds a user name; leave it out: dockerd does not take credentials here
            role.toml:4:45: docker.mirrors[2]: "https://m/path" has a path; give scheme, host and port only: dockerd takes nothing more"#]],
    );
}

#[test]
fn shutdown() {
    check(
        "[shutdown]\ngrace_seconds = 3601\ncritical_grace_seconds = -1\n",
        expect![[r#"
            role.toml:4:17: shutdown.grace_seconds: 3601 is larger than 3600; give a value between 0 and 3600
            role.toml:5:26: shutdown.critical_grace_seconds: -1 is smaller than 0; give a value between 0 and 3600"#]],
    );
    check(
        "[shutdown]\ngrace_seconds = 5\ncritical_grace_seconds = 6\n[kubelet]\nshutdownGracePeriod = \"1m\"\n",
        expect![[r#"
            role.toml:5:26: shutdown.critical_grace_seconds: 6 is more than all pods have, shutdown.grace_seconds = 5; give a part of that
            role.toml:7:23: kubelet.shutdownGracePeriod: is set by kscratch; use shutdown.grace_seconds"#]],
    );
}

#[test]
fn logs() {
    check(
        "[logs]\nto = [\"10.0.0.5:5170\", \"syslog://h:1\", \"tcp://u:hunter2@h:1\", \"tcp://h:1/x\", \"tls://h\", \"udp://10.1.2:3\", \"tcp://h:0\"]\n",
        expect![[r#"
            role.toml:4:7: logs.to[0]: "10.0.0.5:5170" names no protocol; write it like tcp://10.0.0.5:5170, tls://logs.example.org:6514 or udp://10.0.0.5:5170
            role.toml:4:24: logs.to[1]: "syslog" is no protocol of logs; write it like tcp://10.0.0.5:5170, tls://logs.example.org:6514 or udp://10.0.0.5:5170
            role.toml:4:40: logs.to[2]: holds a user name; leave it out: a server of logs takes none
            role.toml:4:63: logs.to[3]: "tcp://h:1/x" has a path; write it like tcp://10.0.0.5:5170, tls://logs.example.org:6514 or udp://10.0.0.5:5170
            role.toml:4:78: logs.to[4]: "tls://h" names no port; write it like tcp://10.0.0.5:5170, tls://logs.example.org:6514 or udp://10.0.0.5:5170
            role.toml:4:89: logs.to[5]: "10.1.2" is neither an IPv4 address nor a DNS name; write it like 192.168.7.10 or server.example.org
            role.toml:4:107: logs.to[6]: "0" is no port; give a port between 1 and 65535"#]],
    );
    check(
        "[logs]\nto = [\"tcp://h:1\", \"udp://h:1\", \"tcp://H:1\", \"tcp://h:2\", \"tcp://h:3\", \"tcp://h:4\"]\nca = \"x\"\nform = 1\n",
        expect![[r#"
            role.toml:4:6: logs.to: 5 servers, and every line goes to each of them; name at most 4
            role.toml:4:33: logs.to[2]: is the same as logs.to[0]; remove one of the two
            role.toml:5:6: logs.ca: holds no PEM certificate; paste the certificate of the authority that signs the servers' between ''' and '''
            role.toml:6:1: logs.form: there is no such field; known here: ca, certificate, key, to"#]],
    );
    check(
        &format!("[logs]\nto = [\"tcp://h:1\"]\nca = '''{CA}'''\n"),
        expect![
            "role.toml:5:6: logs.ca: no server of logs.to speaks TLS; write tls:// before a server that is to prove itself by it, or remove it"
        ],
    );
    check(
        "[logs]\nto = [\"tls://h:1\"]\nca = '''-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----'''\n",
        expect!["role.toml:5:6: logs.ca: holds a private key; take the key out: machines get only the certificate"],
    );
}

#[test]
fn certificate_of_logs() {
    let key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    check(
        &format!("[logs]\nto = [\"tls://h:1\"]\ncertificate = '''{CA}'''\n"),
        expect![
            "role.toml:5:15: logs.certificate: has no key; add its `key`, here or as `logs.key` of the secrets file"
        ],
    );
    check(
        &format!("[logs]\nto = [\"tls://h:1\"]\nkey = '''{key}'''\n"),
        expect![
            "role.toml:5:7: logs.key: is the key of no certificate; add its `certificate` to [logs] of the role file, or remove it"
        ],
    );
    check(
        &format!("[logs]\nto = [\"tcp://h:1\"]\nkey = '''{key}'''\ncertificate = '''{CA}'''\n"),
        expect![
            "role.toml:9:15: logs.certificate: no server of logs.to speaks TLS; write tls:// before a server that is to know this machine by it, or remove it and its key"
        ],
    );
    check(
        &format!(
            "[logs]\nto = [\"tls://h:1\"]\nkey = '''{}'''\ncertificate = '''{key}'''\n",
            key.replace("PRIVATE", "EC PRIVATE")
        ),
        expect![[r#"
            role.toml:5:7: logs.key: holds a PEM block of another kind, "EC PRIVATE KEY"; give an unencrypted PKCS#8 key: openssl pkcs8 -topk8 -nocrypt
            role.toml:9:15: logs.certificate: holds a private key; move it to `key`, which is never shown"#]],
    );
    check(
        "[logs]\nto = [\"tls://h:1\"]\ncertificate = \"/etc/ssl/logs.crt\"\nkey = \"hunter2\"\n",
        expect![[r#"
            role.toml:5:15: logs.certificate: holds no PEM certificate; paste the certificate that servers know this machine by between ''' and ''', and below it those that lead to its authority
            role.toml:6:7: logs.key: is no PEM; give a private key: -----BEGIN PRIVATE KEY----- …"#]],
    );
}

#[test]
fn kubelet() {
    check(
        "[kubelet]\nstaticPodPath = \"/x\"\ncgroupDriver = \"systemd\"\nCLUSTERDNS = []\n",
        expect![[r#"
            role.toml:4:17: kubelet.staticPodPath: is set by kscratch; use [[manifests]]
            role.toml:5:16: kubelet.cgroupDriver: is set by kscratch; remove it: it follows from how the image is built
            role.toml:6:14: kubelet.CLUSTERDNS: is clusterDNS in another spelling, which is set by kscratch; remove it"#]],
    );
    check(
        "[kubelet]\nmaxPods = 1979-05-27\nx = { y = [nan, 99999999999999999999] }\n",
        expect![[r#"
            role.toml:4:11: kubelet.maxPods: is a datetime; give a string in quotes
            role.toml:5:12: kubelet.x.y[0]: is a number that JSON does not know; give a finite number
            role.toml:5:17: kubelet.x.y[1]: the number has too many digits; give a number of at most 64 bits"#]],
    );
}
