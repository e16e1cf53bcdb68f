//! Kubeconfigs as they are written, and tokens and strangers' texts as they come.
use kscratch_pki::{Certificate, Credentials, Key, Kubeconfig, Request, Token, Trust, encryption_key};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

#[test]
fn a_kubeconfig_is_one_cluster_one_user_one_context() {
    let files = Kubeconfig {
        cluster: "no",
        server: "https://192.168.7.10:6443",
        user: "system:kube-proxy",
        trust: Trust::File("/run/kscratch/ca.crt"),
        credentials: Credentials::Files { certificate: "/a.crt", key: "/a.key" },
    };
    // What YAML could take for something else is in quotes.
    expect_test::expect![[r#"
        apiVersion: v1
        kind: Config
        clusters:
        - name: "no"
          cluster:
            server: https://192.168.7.10:6443
            certificate-authority: /run/kscratch/ca.crt
        users:
        - name: system:kube-proxy
          user:
            client-certificate: /a.crt
            client-key: /a.key
        contexts:
        - name: system:kube-proxy@no
          context:
            cluster: "no"
            user: system:kube-proxy
        current-context: system:kube-proxy@no
    "#]]
    .assert_eq(&files.to_yaml());
    let token = Kubeconfig {
        trust: Trust::Embedded("PEM"),
        credentials: Credentials::Token("abcdef.0123456789abcdef"),
        ..files
    };
    let value = token.to_value();
    assert_eq!(value["users"][0]["user"]["token"], "abcdef.0123456789abcdef");
    assert_eq!(value["clusters"][0]["cluster"]["certificate-authority-data"], "UEVN");
    let embedded = Credentials::Embedded { certificate: "PEM", key: "KEY" };
    let value = Kubeconfig { credentials: embedded, ..files }.to_value();
    // However long it is, a certificate is one line.
    let long = "a".repeat(2000);
    let yaml = Kubeconfig { trust: Trust::Embedded(&long), ..files }.to_yaml();
    assert!(yaml.contains("    certificate-authority-data: YWFh"), "{yaml}");
    assert_eq!(value["users"][0]["user"]["client-key-data"], "S0VZ");
    assert_eq!(format!("{embedded:?} {:?}", token.credentials), "Embedded(…) Token(…)");
}

#[test]
fn tokens_use_every_symbol_alike() {
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..2000 {
        let token = Token::generate().unwrap();
        assert_eq!(token.expose().parse::<Token>().unwrap(), token);
        assert_eq!(format!("{}.{}", token.id(), token.secret()), token.expose());
        token.id().chars().chain(token.secret().chars()).for_each(|symbol| *counts.entry(symbol).or_insert(0) += 1);
    }
    // 44,000 symbols, 1222 of each; eight standard deviations are 276. Bytes modulo 36 alone would favour four symbols by 14 percent.
    assert_eq!(counts.len(), 36);
    assert!(counts.values().all(|count| (946..1499).contains(count)), "{counts:?}");
    assert_eq!(encryption_key().unwrap().len(), 44);
    assert_ne!(encryption_key().unwrap(), encryption_key().unwrap());
}

#[test]
fn secrets_are_not_shown() {
    let key = Key::generate().unwrap();
    assert_eq!(format!("{key:?}"), "Key(…)");
    let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
    assert_eq!(format!("{token:?}"), "Token(abcdef.…)");
    for wrong in ["", "abcdef", "abcdef.0123456789abcde", "abcdeF.0123456789abcdef", "abcdef.0123456789abcdef "] {
        let error = wrong.parse::<Token>().unwrap_err().to_string();
        assert!(!error.contains("abcdeF") && !error.contains("012345"), "{error}");
    }
    // A key's text never comes back in an error.
    let pem = key.pem();
    let half = &pem[..pem.len() - 60];
    for error in [Key::parse(half).unwrap_err(), Certificate::parse(&pem).unwrap_err()] {
        assert!(!error.to_string().contains(&pem[40..60]), "{error}");
    }
}

fn flipped(pem: &str, at: usize, to: u8) -> String {
    let block = pem::parse(pem).unwrap();
    let mut bytes = block.contents().to_vec();
    let at = at % bytes.len();
    bytes[at] ^= to.max(1);
    pem::encode(&pem::Pem::new(block.tag(), bytes))
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>(), bytes in any::<Vec<u8>>()) {
        let _ = (Certificate::parse(&text), Request::parse(&text), Key::parse(&text), text.parse::<Token>());
        for label in ["CERTIFICATE", "CERTIFICATE REQUEST", "PRIVATE KEY"] {
            let text = pem::encode(&pem::Pem::new(label, bytes.clone()));
            prop_assert!(Certificate::parse(&text).is_err() && Request::parse(&text).is_err() && Key::parse(&text).is_err());
        }
    }

    /// One changed byte anywhere: the signature no longer holds, the text cannot be read, or the byte stands outside of what is signed.
    #[test]
    fn no_changed_request_is_believed(at in any::<usize>(), to in any::<u8>()) {
        let pending = kscratch_pki::Pending::new("system:node:n1", &["system:nodes".to_owned()]).unwrap();
        if let Ok(changed) = Request::parse(&flipped(&pending.request_pem, at, to)) {
            prop_assert_eq!(changed, Request::parse(&pending.request_pem).unwrap());
        }
    }

    #[test]
    fn no_changed_certificate_is_believed(at in any::<usize>(), to in any::<u8>()) {
        let begin = kscratch_pki::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let authority = kscratch_pki::Authority::new("ca", begin, 1).unwrap();
        let pair = authority.issue(&kscratch_pki::Wanted::client("a", Some("b")), begin).unwrap();
        let sound = Certificate::parse(&pair.certificate_pem).unwrap();
        prop_assert!(sound.signed_by(authority.certificate()));
        prop_assert_eq!(sound.pem().parse::<String>().unwrap(), pair.certificate_pem.clone());
        if let Ok(changed) = Certificate::parse(&flipped(&pair.certificate_pem, at, to)) {
            let same = changed.facts() == sound.facts();
            prop_assert!(same || !changed.signed_by(authority.certificate()));
        }
    }
}
