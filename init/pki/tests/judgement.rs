//! A table of certificates that are kept, and of those that are made anew, with the reason.
use std::net::IpAddr;

use kscratch_pki::{Authority, Certificate, Duration, Error, Key, OffsetDateTime, Pair, Usage, Verdict, Wanted, judge};

fn begin() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn day(day: i64) -> OffsetDateTime {
    begin() + Duration::days(day)
}

fn wanted() -> Wanted {
    Wanted {
        dns_names: vec!["a".to_owned(), "b".to_owned()],
        addresses: vec![IpAddr::from([10, 0, 0, 1])],
        usages: [Usage::Server].into(),
        ..Wanted::client("etcd", None)
    }
}

fn made_on(authority: &Authority, made: i64) -> Pair {
    authority.issue(&wanted(), day(made)).unwrap()
}

fn says(authority: &Authority, pair: &Pair, wanted: &Wanted, now: OffsetDateTime) -> String {
    match judge(&pair.certificate_pem, &pair.key_pem, wanted, authority.certificate(), now) {
        Verdict::Keep { until } => format!("kept until day {}", (until - begin()).whole_days()),
        Verdict::Remake { why } => why,
    }
}

#[test]
fn time_decides() {
    let authority = Authority::new("etcd-ca", begin(), 10).unwrap();
    for (made, now, want) in [
        (0, 0, "kept until day 365"),
        (0, 243, "kept until day 365"),
        (0, 244, "only 121 of its 365 days are left"),
        (0, 364, "only 1 of its 365 days are left"),
        (0, 366, "it has ended on 2028-01-15T08:00:00Z, and the clock says 2028-01-16T08:00:00Z"),
        // Years after the authority began, a certificate has its own year.
        (2000, 2000, "kept until day 2365"),
        (2000, 2243, "kept until day 2365"),
        (2000, 2244, "only 121 of its 365 days are left"),
        // A clock that is years behind.
        (-4000, -4000, "kept until day 365"),
        (0, -4000, "kept until day 365"),
        // A clock that was ahead once.
        (2000, 0, "kept until day 2365"),
        // What ends with the authority is kept to the end.
        (3640, 3649, "kept until day 3650"),
        (3640, 3651, "it has ended on 2037-01-12T08:00:00Z, and the clock says 2037-01-13T08:00:00Z"),
    ] {
        let pair = made_on(&authority, made);
        assert_eq!(says(&authority, &pair, &wanted(), day(now)), want, "made on day {made}, now day {now}");
    }
    let ended = authority.issue(&wanted(), day(3650)).unwrap_err();
    assert!(matches!(ended, Error::Ended { .. }), "{ended}");
}

#[test]
fn words_decide() {
    let authority = Authority::new("etcd-ca", begin(), 10).unwrap();
    let pair = made_on(&authority, 0);
    let other = Authority::new("etcd-ca", begin(), 10).unwrap();
    assert_eq!(says(&other, &pair, &wanted(), day(1)), "it is not signed by etcd-ca");
    let row = |change: &dyn Fn(&mut Wanted), want: &str| {
        let mut wanted = wanted();
        change(&mut wanted);
        assert_eq!(says(&authority, &pair, &wanted, day(1)), want);
    };
    row(&|wanted| wanted.dns_names.reverse(), "kept until day 365");
    row(&|wanted| wanted.common_name = "m1".to_owned(), "it is for \"etcd\", not for \"m1\"");
    row(&|wanted| wanted.organizations = vec!["o".to_owned()], "its organizations changed: o is missing");
    row(
        &|wanted| wanted.dns_names = vec!["c".to_owned(), "b".to_owned()],
        "its DNS names changed: c is missing, a is too many",
    );
    row(
        &|wanted| wanted.addresses = vec![IpAddr::from([10, 0, 0, 2])],
        "its addresses changed: 10.0.0.2 is missing, 10.0.0.1 is too many",
    );
    row(&|wanted| wanted.usages = [Usage::Client].into(), "it is good for something else");
    row(&|wanted| wanted.usages = [Usage::Client, Usage::Server].into(), "it is good for something else");
}

#[test]
fn broken_files_are_made_anew() {
    let authority = Authority::new("etcd-ca", begin(), 10).unwrap();
    let pair = made_on(&authority, 0);
    let row = |certificate: &str, key: &str, want: &str| {
        let pair = Pair { certificate_pem: certificate.to_owned(), key_pem: key.to_owned() };
        assert_eq!(says(&authority, &pair, &wanted(), day(1)), want);
    };
    row("", &pair.key_pem, "the certificate holds no PEM block \"CERTIFICATE\"");
    row(&pair.key_pem, &pair.key_pem, "the certificate holds no PEM block \"CERTIFICATE\", only \"PRIVATE KEY\"");
    row(&pair.certificate_pem[..200], &pair.key_pem, "the certificate holds no PEM block \"CERTIFICATE\"");
    row(&pair.certificate_pem.replace('M', "*"), &pair.key_pem, "the certificate is no well-formed PEM");
    row(&pair.certificate_pem, "", "the key holds no PEM block \"PRIVATE KEY\"");
    row(&pair.certificate_pem, &Key::generate().unwrap().pem(), "the key is another certificate's");
    let own = authority.certificate().pem();
    row(&own, &pair.key_pem, "the key is another certificate's");
    // Zeros, as a power cut leaves them.
    row(&"\0".repeat(800), &pair.key_pem, "the certificate holds no PEM block \"CERTIFICATE\"");
}

#[test]
fn what_cannot_be_made_is_refused() {
    let authority = Authority::new("etcd-ca", begin(), 10).unwrap();
    let row = |change: &dyn Fn(&mut Wanted), want: &str| {
        let mut wanted = wanted();
        change(&mut wanted);
        let error = authority.issue(&wanted, day(1)).unwrap_err().to_string();
        assert!(error.ends_with(want), "{error}");
    };
    row(&|wanted| wanted.common_name.clear(), "it has no common name");
    row(&|wanted| wanted.common_name = format!("system:node:{}", "n".repeat(64)), "is longer than 75 characters");
    row(&|wanted| wanted.organizations = vec!["a".to_owned(), "b".to_owned()], "it has more than one organization");
    row(&|wanted| wanted.usages.clear(), "usages are \"server\" and \"client\"");
    row(&|wanted| wanted.days = 0, "not between 1 and 36500");
    row(&|wanted| wanted.dns_names.push("\u{e4}".to_owned()), "is not made of ASCII characters");
    let json = r#"{"common_name": "a", "usages": ["server"], "dns_names": ["b"]}"#;
    let read: Wanted = serde_json::from_str(json).unwrap();
    assert_eq!((read.days, read.addresses.len()), (365, 0));
    let unknown = serde_json::from_str::<Wanted>(r#"{"common_name": "a", "usages": [], "sans": []}"#).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `sans`"), "{unknown}");
}

#[test]
fn a_bundle_is_searched_for_the_certificate_of_the_key() {
    let (_, first) = Authority::new_with_pair("old", begin(), 10).unwrap();
    let (_, second) = Authority::new_with_pair("new", begin(), 10).unwrap();
    let bundle = format!("{}{}", first.certificate_pem, second.certificate_pem);
    let authority = Authority::parse(&bundle, &second.key_pem).unwrap();
    assert_eq!(authority.certificate().facts().names.common_name, "new");
    assert_eq!(Certificate::parse_all(&bundle).unwrap().len(), 2);
    // A key beside a certificate, as the kubelet keeps them.
    let kubelet = format!("{}{}", second.key_pem, second.certificate_pem);
    assert!(Certificate::parse(&kubelet).unwrap().fits(&Key::parse(&kubelet).unwrap()));
}
