//! What `cluster check` finds: in the folder, and at an endpoint that has to prove itself.
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use expect_test::{Expect, expect};
use kscratch_image::cluster::folder::{CLUSTER_CA, Folder};
use kscratch_image::cluster::{check, kubeconfigs, token};
use kscratch_pki::{Authority, Duration, Key, OffsetDateTime, Usage, Wanted};

use crate::{lab, now};

#[track_caller]
fn table(folder: &Folder, at: OffsetDateTime, want: Expect) -> usize {
    let report = check::cluster(folder, &[], at);
    let parent = folder.path().parent().unwrap().display().to_string();
    let mut table = report.table.replace(&parent, "DIR");
    for kept in token::read(folder).unwrap() {
        table = table.replace(kept.token.id(), "abcdef");
    }
    // The network's own words differ from machine to machine.
    let lines = table.lines().map(|line| if line.contains("asking https") { "                   …" } else { line });
    want.assert_eq(&lines.map(|line| format!("{line}\n")).collect::<String>());
    report.failed
}

#[test]
fn a_check_finds_what_is_wrong() {
    let parent = tempfile::tempdir().unwrap();
    let mut folder = lab(parent.path());
    // Nothing listens there.
    folder.settings.endpoint = "127.0.0.1:9".to_owned();
    kubeconfigs::renew(&folder, now()).unwrap();
    let failed = table(
        &folder,
        now(),
        expect![[r#"
            ok               settings are sound, ranges apart   endpoint 127.0.0.1:9, pods 10.244.0.0/16, services 10.96.0.0/16, cluster.local, routed, nftables
            ok               secrets are their owner's alone
            ok               keys fit their certificates
            ok               authorities last                   kubernetes 3649 days, etcd-ca 3649 days, front-proxy-ca 3649 days
            ok               service account keys are sound
            ok               kubeconfigs are good               admin.kubeconfig 365 days, super-admin.kubeconfig 365 days
            ok               a token is good                    abcdef until 2027-02-14T08:00:00Z
            could not check  the endpoint proves itself
                               …
            could not check  the endpoint's clock is right
                               …
            could not check  versions fit the API server
                               …
        "#]],
    );
    assert_eq!(failed, 0);
    assert_eq!(check::cluster(&folder, &[], now()).exit_code(), 3);

    fs::set_permissions(folder.file("secrets/ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::copy(folder.file("secrets/etcd-ca.key"), folder.file("secrets/front-proxy-ca.key")).unwrap();
    fs::write(folder.file("secrets/service-account.pub"), Key::generate().unwrap().public_pem()).unwrap();
    fs::write(folder.file("secrets/encryption.key"), "c2hvcnQ=\n").unwrap();
    folder.settings.endpoint = "127.0.0.1:1".to_owned();
    let failed = table(
        &folder,
        now() + Duration::days(3400),
        expect![[r#"
            ok               settings are sound, ranges apart   endpoint 127.0.0.1:1, pods 10.244.0.0/16, services 10.96.0.0/16, cluster.local, routed, nftables
            failed           secrets are their owner's alone    who reads them owns the cluster
                               DIR/lab/secrets/ca.key has mode 640: chmod go= DIR/lab/secrets/ca.key
            failed           keys fit their certificates        masters could not make certificates that anyone believes
                               secrets/front-proxy-ca.crt, secrets/front-proxy-ca.key: the key does not belong to the certificate of front-proxy-ca
            failed           authorities last                   every certificate of the cluster ends with its authority
                               kubernetes ends in 249 days, on 2037-01-11T08:00:00Z
                               etcd-ca ends in 249 days, on 2037-01-11T08:00:00Z
                               front-proxy-ca ends in 249 days, on 2037-01-11T08:00:00Z
            failed           service account keys are sound     pods would be nobody to the API server, and stored secrets unreadable
                               secrets/service-account.pub is not the public part of secrets/service-account.key
                               secrets/encryption.key is not 32 bytes in base64
            failed           kubeconfigs are good               people would be refused
                               admin.kubeconfig: it names https://127.0.0.1:9, not https://127.0.0.1:1; `kscratch-image cluster kubeconfig lab` makes it anew
                               super-admin.kubeconfig: it names https://127.0.0.1:9, not https://127.0.0.1:1; `kscratch-image cluster kubeconfig lab` makes it anew
            failed           a token is good                    no new machine could join
                               of 1 tokens none is good any more: `kscratch-image cluster token create lab` makes one
            could not check  the endpoint proves itself
                               …
            could not check  the endpoint's clock is right
                               …
            could not check  versions fit the API server
                               …
        "#]],
    );
    assert_eq!(failed, 6);
    assert_eq!(check::cluster(&folder, &[], now()).exit_code(), 1);
}

/// `openssl s_server` with this certificate, and its address. It answers everyone with `answer`.
pub(crate) fn server(folder: &Path, certificate: &str, key: &str, answer: &str) -> (Child, String) {
    fs::write(folder.join("server.crt"), certificate).unwrap();
    fs::write(folder.join("server.key"), key).unwrap();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-cert", "server.crt", "-key", "server.key", "-naccept", "2"]);
    command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("this test needs `openssl`: apt-get install openssl");
    child.stdin.as_mut().unwrap().write_all(answer.as_bytes()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned));
    // What it says further is read to the end, so that it never waits.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address.expect("openssl names its port"))
}

#[test]
fn an_endpoint_has_to_prove_itself() {
    let parent = tempfile::tempdir().unwrap();
    let mut folder = lab(parent.path());
    let read = |name| folder.text(name).unwrap();
    let authority = Authority::parse(&read(CLUSTER_CA.certificate), &read(CLUSTER_CA.key)).unwrap();
    let stranger = Authority::new("kubernetes", now() - Duration::days(1), 10).unwrap();
    // TLS is checked by this machine's clock; the certificate is good by both.
    let real = OffsetDateTime::now_utc();
    let begin = real - Duration::days(1);
    let authority_now = Authority::new_with_pair("kubernetes", begin, 10).unwrap();
    drop(authority);
    fs::write(folder.file(CLUSTER_CA.certificate), &authority_now.1.certificate_pem).unwrap();
    fs::write(folder.file(CLUSTER_CA.key), &authority_now.1.key_pem).unwrap();
    let wanted = |address: [u8; 4]| Wanted {
        addresses: vec![address.into()],
        usages: [Usage::Server].into(),
        ..Wanted::client("kube-apiserver", None)
    };
    let administrator = folder.file("admin.kubeconfig");
    let mut row = |authority: &Authority, address: [u8; 4], date: &str, want: [&str; 2]| {
        let pair = authority.issue(&wanted(address), real).unwrap();
        let answer = format!("HTTP/1.1 401 Unauthorized\r\n{date}Content-Length: 0\r\n\r\n");
        let (mut child, endpoint) = server(parent.path(), &pair.certificate_pem, &pair.key_pem, &answer);
        folder.settings.endpoint = endpoint.clone();
        let report = check::cluster(&folder, &[], real);
        child.kill().unwrap();
        child.wait().unwrap();
        let from = report.table.find("the endpoint proves itself").unwrap();
        let from = report.table[..from].rfind('\n').unwrap() + 1;
        let said = report.table[from..].replace(&endpoint, "HOST:PORT");
        for want in want {
            assert!(said.contains(want), "{want:?} is not in\n{said}");
        }
    };
    let date = |time: OffsetDateTime| {
        let text = time.format(&time::format_description::well_known::Rfc2822).unwrap();
        format!("Date: {}\r\n", text.replace("+0000", "GMT"))
    };
    let here = [127, 0, 0, 1];
    let proven = "ok               the endpoint proves itself         https://HOST:PORT, its certificate 364 days";
    row(&authority_now.0, here, &date(real), [proven, "ok               the endpoint's clock is right      0 s"]);
    row(&authority_now.0, here, &date(real - Duration::days(1)), [proven, "it is 86400 s behind of this machine's"]);
    row(
        &authority_now.0,
        here,
        "",
        [proven, "could not check  the endpoint's clock is right\n                   it does not tell the time"],
    );
    let failed = "failed           the endpoint proves itself";
    row(&authority_now.0, [127, 0, 0, 2], "", [failed, "not valid for"]);
    row(&stranger, here, "", [failed, "https://HOST:PORT: "]);
    // What is wrong with the administrator's key is no fault of the endpoint's.
    let text = fs::read_to_string(&administrator).unwrap();
    let (head, rest) = text.split_once("client-key-data: ").unwrap();
    let rest = rest.split_once('\n').unwrap().1;
    let damaged = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCkFBQUEKLS0tLS1FTkQgUFJJVkFURSBLRVktLS0tLQo=";
    fs::write(&administrator, format!("{head}client-key-data: {damaged}\n{rest}")).unwrap();
    row(&authority_now.0, here, &date(real), [proven, "ok               the endpoint's clock is right      0 s"]);
}
