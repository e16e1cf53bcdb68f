//! What is made here is held against openssl, and what openssl makes is read here.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use kscratch_pki::{Authority, Certificate, Duration, Error, Key, OffsetDateTime, Pending, Request, Usage, Wanted};

fn openssl(folder: &Path, args: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(args).current_dir(folder).stdin(Stdio::null());
    let output = command.output().expect("this test needs `openssl`: apt-get install openssl");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[track_caller]
fn ok(folder: &Path, args: &[&str]) -> String {
    let (good, said) = openssl(folder, args);
    assert!(good, "openssl {}: {said}", args.join(" "));
    said
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn server() -> Wanted {
    Wanted {
        organizations: vec!["system:nodes".to_owned()],
        dns_names: vec!["kubernetes.default.svc".to_owned(), "m1".to_owned()],
        addresses: vec![IpAddr::from([10, 96, 0, 1]), "fd00::1".parse().unwrap()],
        usages: [Usage::Server, Usage::Client].into(),
        ..Wanted::client("kube-apiserver", None)
    }
}

#[test]
fn openssl_believes_what_an_authority_issues() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, own) = Authority::new_with_pair("kubernetes", now(), 10).unwrap();
    let pair = authority.issue(&server(), now() + Duration::days(30)).unwrap();
    fs::write(folder.path().join("ca.crt"), &own.certificate_pem).unwrap();
    fs::write(folder.path().join("leaf.crt"), &pair.certificate_pem).unwrap();
    fs::write(folder.path().join("leaf.key"), &pair.key_pem).unwrap();
    let verify = |more: &[&str]| {
        let args = ["verify", "-x509_strict", "-check_ss_sig", "-CAfile", "ca.crt", "-attime"];
        openssl(folder.path(), &[&args[..], more, &["leaf.crt"]].concat())
    };
    // First and last second, and those beside them; to openssl the last one is over already.
    let last = 1_800_000_000 + 395 * 86_400;
    for (time, want) in [(1_799_999_999, false), (1_800_000_000, true), (last - 1, true), (last + 1, false)] {
        assert_eq!(verify(&[&time.to_string(), "-purpose", "sslserver"]).0, want, "{time}");
    }
    let at = ["1800000000", "-purpose"];
    for (more, want) in [
        (["sslclient", "-verify_hostname", "m1"], true),
        (["sslserver", "-verify_hostname", "kubernetes.default.svc"], true),
        (["sslserver", "-verify_ip", "10.96.0.1"], true),
        (["sslserver", "-verify_ip", "fd00::1"], true),
        (["sslserver", "-verify_hostname", "m2"], false),
        (["smimesign", "-verify_ip", "10.96.0.1"], false),
    ] {
        let (good, said) = verify(&[&at[..], &more].concat());
        assert_eq!(good, want, "{more:?}: {said}");
    }
    let public = |args: &[&str]| ok(folder.path(), args);
    assert_eq!(
        public(&["x509", "-in", "leaf.crt", "-noout", "-pubkey"]),
        public(&["pkey", "-in", "leaf.key", "-pubout"])
    );
}

#[test]
fn the_longest_name_of_a_node_is_read_by_openssl() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, own) = Authority::new_with_pair("kubernetes", now(), 10).unwrap();
    let name = format!("system:node:{}", "n".repeat(63));
    let pair = authority.issue(&Wanted::client(name.clone(), Some("system:nodes")), now()).unwrap();
    fs::write(folder.path().join("ca.crt"), &own.certificate_pem).unwrap();
    fs::write(folder.path().join("leaf.crt"), &pair.certificate_pem).unwrap();
    let verify = ["verify", "-x509_strict", "-CAfile", "ca.crt", "-attime", "1800000000", "-purpose", "sslclient"];
    ok(folder.path(), &[&verify[..], &["leaf.crt"]].concat());
    let subject = ok(folder.path(), &["x509", "-in", "leaf.crt", "-noout", "-subject"]);
    assert_eq!(subject.trim_end(), format!("subject=O = system:nodes, CN = {name}"));
}

/// The extensions as openssl prints them, without key identifiers.
fn extensions(folder: &Path, file: &str) -> String {
    let text = ok(folder, &["x509", "-in", file, "-noout", "-text", "-certopt", "no_sigdump"]);
    let (_, text) = text.split_once("X509v3 extensions:\n").unwrap();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| if line.matches(':').count() > 15 { "<id>\n".to_owned() } else { format!("{line}\n") }).collect()
}

#[test]
fn extensions_are_those_of_kubeadm() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, own) = Authority::new_with_pair("kubernetes", now(), 10).unwrap();
    let pair = authority.issue(&server(), now()).unwrap();
    fs::write(folder.path().join("ca.crt"), &own.certificate_pem).unwrap();
    fs::write(folder.path().join("leaf.crt"), &pair.certificate_pem).unwrap();
    expect_test::expect![[r#"
        X509v3 Subject Alternative Name:
        DNS:kubernetes
        X509v3 Key Usage: critical
        Digital Signature, Key Encipherment, Certificate Sign
        X509v3 Subject Key Identifier:
        <id>
        X509v3 Basic Constraints: critical
        CA:TRUE
    "#]]
    .assert_eq(&extensions(folder.path(), "ca.crt"));
    expect_test::expect![[r#"
        X509v3 Authority Key Identifier:
        <id>
        X509v3 Subject Alternative Name:
        DNS:kubernetes.default.svc, DNS:m1, IP Address:10.96.0.1, IP Address:FD00:0:0:0:0:0:0:1
        X509v3 Key Usage: critical
        Digital Signature, Key Encipherment
        X509v3 Extended Key Usage:
        TLS Web Server Authentication, TLS Web Client Authentication
        X509v3 Subject Key Identifier:
        <id>
        X509v3 Basic Constraints: critical
        CA:FALSE
    "#]]
    .assert_eq(&extensions(folder.path(), "leaf.crt"));
    let subject = ok(folder.path(), &["x509", "-in", "leaf.crt", "-noout", "-subject", "-issuer", "-dates"]);
    expect_test::expect![[r#"
        subject=O = system:nodes, CN = kube-apiserver
        issuer=CN = kubernetes
        notBefore=Jan 15 08:00:00 2027 GMT
        notAfter=Jan 15 08:00:00 2028 GMT
    "#]]
    .assert_eq(&subject);
    let ca = Certificate::parse(&own.certificate_pem).unwrap();
    assert_eq!(ca.facts().not_after, now() + Duration::days(3650));
}

const EC: [&str; 6] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout"];

#[test]
fn authorities_that_openssl_made_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let make = |args: &[&str]| ok(folder.path(), &[&["req", "-x509", "-out", "ca.crt"], &EC[..], args].concat());
    make(&["ca.key", "-subj", "/C=DE/O=Example Ltd/OU=a/CN=ca of \u{e4}", "-utf8", "-days", "20"]);
    let authority = Authority::parse(&read("ca.crt"), &read("ca.key")).unwrap();
    let time = authority.certificate().facts().not_before;
    let pair = authority.issue(&server(), time).unwrap();
    fs::write(folder.path().join("leaf.crt"), &pair.certificate_pem).unwrap();
    ok(folder.path(), &["verify", "-CAfile", "ca.crt", "leaf.crt"]);
    // It ends with its authority.
    let leaf = Certificate::parse(&pair.certificate_pem).unwrap();
    assert_eq!(leaf.facts().not_after, authority.certificate().facts().not_after);

    // A name that cannot be written again is told, not signed wrongly.
    make(&["two.key", "-subj", "/O=a/O=b/CN=two"]);
    let two = Authority::parse(&read("ca.crt"), &read("two.key")).unwrap();
    let refused = two.issue(&server(), two.certificate().facts().not_before).unwrap_err();
    assert!(refused.to_string().contains("two cannot be written again"), "{refused}");

    // Not an authority, and a key of another.
    make(&["leaf.key", "-subj", "/CN=leaf", "-addext", "basicConstraints=critical,CA:FALSE"]);
    let name = || "leaf".to_owned();
    assert_eq!(Authority::parse(&read("ca.crt"), &read("leaf.key")).unwrap_err(), Error::NoAuthority { name: name() });
    assert_eq!(Authority::parse(&read("ca.crt"), &read("two.key")).unwrap_err(), Error::Apart { name: name() });
}

#[test]
fn keys_are_pkcs8_and_p256() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let key = Key::generate().unwrap();
    fs::write(folder.path().join("sa.key"), key.pem()).unwrap();
    assert_eq!(ok(folder.path(), &["pkey", "-in", "sa.key", "-pubout"]), key.public_pem());
    assert_eq!(ok(folder.path(), &["pkey", "-in", "sa.key"]), key.pem());
    assert_eq!(Key::parse(&key.pem()).unwrap().public(), key.public());

    let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
    ok(folder.path(), &[&["genpkey", "-out", "p384.key"], &curve[..]].concat());
    ok(folder.path(), &["genpkey", "-out", "rsa.key", "-algorithm", "RSA"]);
    ok(folder.path(), &["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", "sec1.key"]);
    for file in ["p384.key", "rsa.key", "sec1.key"] {
        let error = Key::parse(&read(file)).unwrap_err();
        assert!(matches!(error, Error::Key { .. }), "{file}: {error}");
    }
    // The way out that the error names works.
    ok(folder.path(), &["pkcs8", "-topk8", "-nocrypt", "-in", "sec1.key", "-out", "pkcs8.key"]);
    Key::parse(&read("pkcs8.key")).unwrap();
}

#[test]
fn requests_go_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let pending = Pending::new("kscratch:routes", &["kscratch:routes".to_owned()]).unwrap();
    fs::write(folder.path().join("own.csr"), &pending.request_pem).unwrap();
    let said = ok(folder.path(), &["req", "-in", "own.csr", "-verify", "-noout", "-subject"]);
    assert!(said.contains("O = kscratch:routes, CN = kscratch:routes"), "{said}");
    let own = Request::parse(&pending.request_pem).unwrap();
    assert_eq!(own.names.common_name, "kscratch:routes");
    assert_eq!(own.names.organizations, ["kscratch:routes"]);
    assert_eq!(own.public, Key::parse(&pending.key_pem).unwrap().public());

    let make = |key: &[&str], subject: &str, more: &[&str]| {
        let args = [&["req", "-new", "-out", "a.csr", "-subj", subject], key, more].concat();
        ok(folder.path(), &args);
        fs::read_to_string(folder.path().join("a.csr")).unwrap()
    };
    let ec = [&EC[..], &["a.key"]].concat();
    let names = "subjectAltName=DNS:n1,IP:192.168.7.11,email:a@b,URI:spiffe://a,RID:1.2.3,IP:fd00::1";
    let request = make(&ec, "/O=system:nodes/OU=x/CN=system:node:n1", &["-addext", names]);
    let names = Request::parse(&request).unwrap().names;
    assert_eq!(names.common_name, "system:node:n1");
    assert_eq!(names.organizations, ["system:nodes"]);
    assert_eq!(names.other_subject, ["2.5.4.11=x"]);
    assert_eq!(names.dns_names, ["n1"]);
    assert_eq!(names.addresses, [IpAddr::from([192, 168, 7, 11]), "fd00::1".parse().unwrap()]);
    assert_eq!(names.other_names, ["RFC822Name(a@b)", "URI(spiffe://a)", "RegisteredID(1.2.3)"]);

    // Go takes the last common name, others the first.
    let two = Request::parse(&make(&ec, "/CN=system:node:n1/CN=admin", &[])).unwrap_err();
    assert!(two.to_string().contains("more than one common name"), "{two}");
    let one_set = Request::parse(&make(&ec, "/CN=system:node:n1+CN=admin", &[])).unwrap_err();
    assert!(one_set.to_string().contains("more than one common name"), "{one_set}");
    let rsa = make(&["-newkey", "rsa:2048", "-noenc", "-keyout", "r.key"], "/CN=r", &[]);
    assert_eq!(Request::parse(&rsa).unwrap().names.common_name, "r");
    // Text around it, and two of them.
    for text in [format!("a: b\n{rsa}"), format!("{rsa}{request}"), format!("{rsa}x")] {
        assert!(matches!(Request::parse(&text), Err(Error::NotAlone { .. })), "{text}");
    }
    let foreign = request.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    assert!(matches!(Request::parse(&foreign), Err(Error::NoBlock { .. })));
}
