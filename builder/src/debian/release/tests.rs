//! Release files of every kind of fault are refused with the right words.
use super::{Release, date, parse_date};
use crate::debian::testarchive::{NOW, TestArchive};
use proptest::prelude::proptest;

#[track_caller]
fn check(change: impl Fn(&mut TestArchive), edit: impl Fn(String) -> String, want: Result<(), &str>) {
    let mut archive = TestArchive::new();
    change(&mut archive);
    let signed = archive.key.sign(&edit(archive.release()), NOW - 86_400);
    let got =
        Release::verify(signed.as_bytes(), "trixie", &archive.key.keyring(), NOW).map_err(|error| format!("{error:#}"));
    match want {
        Ok(()) => assert_eq!(got.unwrap().files.len(), 1),
        Err(part) => assert!(got.as_ref().is_err_and(|error| error.contains(part)), "wanted `{part}`, got {got:?}"),
    }
}

fn same(text: String) -> String {
    text
}

#[test]
fn names_and_dates_are_checked() {
    check(|_| {}, same, Ok(()));
    check(|_| {}, |text| text.replace("Valid-Until: Sat, 28 Nov 2026 02:10:46 UTC\n", ""), Ok(()));
    check(|archive| archive.suite = "bookworm", same, Err("it is of stable / bookworm, expected trixie"));
    check(
        |archive| archive.valid_until = "Sun, 22 Nov 2026 19:59:59 UTC",
        same,
        Err("it was valid until 2026-11-22 19:59 UTC, and it is 2026-11-22 20:00 UTC now: the mirror is out of date"),
    );
    check(|archive| archive.date = "Tue, 24 Nov 2026 02:10:46 UTC", same, Err("set this machine's clock"));
    check(|archive| archive.date = "yesterday", same, Err("its Date `yesterday` is not a date"));
}

#[test]
fn fields_that_must_be_there() {
    check(|_| {}, |text| text.replace("Date: Sat", "Dated: Sat"), Err("it has no Date"));
    check(|_| {}, |text| text.replace("SHA256:", "SHA512:"), Err("it has no SHA256 digests"));
    check(
        |_| {},
        |text| text.replace(" main/binary-amd64/Packages.xz", ""),
        Err("is not a digest, a length and a path"),
    );
}

#[test]
fn dates_as_debian_writes_them() {
    for (text, want) in [
        ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
        ("Sat, 12 Sep 2026 07:55:41 UTC", Some(1_789_199_741)),
        ("Thu, 29 Feb 2024 23:59:59 UTC", Some(1_709_251_199)),
        ("Fri, 01 Mar 2024 00:00:00 +0000", Some(1_709_251_200)),
        ("Fri, 01 Mar 2024 00:00:00 CET", None),
        ("Fri, 01 Mar 2024 24:00:00 UTC", None),
        ("01 Mar 2024 00:00:00 UTC", None),
        ("", None),
    ] {
        assert_eq!(parse_date(text), want, "{text}");
    }
    assert_eq!(date(1_789_199_741), "2026-09-12 07:55 UTC");
    assert_eq!(date(1_709_251_199), "2024-02-29 23:59 UTC");
}

proptest! {
    #[test]
    fn any_words_are_a_date_or_not(text in ".{0,40}", number in 0..4_000_000_000_u64) {
        let _ = parse_date(&text);
        let shown = date(number);
        let (day, clock) = shown.split_once(' ').unwrap();
        let mut parts = day.split('-').map(|part| part.parse::<usize>().unwrap());
        let (year, month, day) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let written = format!("Mon, {day:02} {} {year} {}:00 UTC", super::MONTHS[month - 1], clock.trim_end_matches(" UTC"));
        assert_eq!(parse_date(&written), Some(number - number % 60));
    }
}
