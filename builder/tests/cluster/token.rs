//! Join tokens: how long they are good, how they are listed, and what the API server is told of them.
use std::fs;

use expect_test::expect;
use kscratch_image::cluster::metadata::{Machine, Members, render};
use kscratch_image::cluster::token::{self, Lapse};
use kscratch_metadata::BootstrapToken;
use kscratch_pki::Duration;

use crate::{lab, now, words};

#[test]
fn tokens_end() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    for (text, want) in [
        ("90m", Ok(Lapse::After(Duration::minutes(90)))),
        ("24h", Ok(Lapse::After(Duration::hours(24)))),
        ("never", Ok(Lapse::Never)),
        ("0h", Err("`0h` is over at once")),
        ("9999d", Err("`9999d` is longer than ten years; say `never`")),
        ("+1h", Ok(Lapse::After(Duration::hours(1)))),
        ("1", Err("`1` is no time such as `90m`, `24h` or `30d`, nor `never`")),
        ("", Err("`` is no time such as `90m`, `24h` or `30d`, nor `never`")),
        ("1\u{e4}", Err("`1\u{e4}` is no time such as `90m`, `24h` or `30d`, nor `never`")),
    ] {
        assert_eq!(text.parse::<Lapse>(), want.map_err(str::to_owned), "{text}");
    }
    let day = token::create(&folder, Lapse::After(Duration::hours(24)), now()).unwrap();
    let tokens = token::read(&folder).unwrap();
    assert_eq!(tokens[1], day);
    assert!(day.good(now() + Duration::hours(23)) && !day.good(now() + Duration::hours(24)));
    let table = token::table(&tokens, now() + Duration::days(2));
    let table = tokens.iter().fold(table, |table, kept| table.replace(kept.token.expose(), "abcdef.0123456789abcdef"));
    expect![[r#"
        TOKEN                    CREATED               EXPIRES               STATE
        abcdef.0123456789abcdef  2027-01-15T08:00:00Z  2027-02-14T08:00:00Z  good
        abcdef.0123456789abcdef  2027-01-15T08:00:00Z  2027-01-16T08:00:00Z  ended
    "#]]
    .assert_eq(&table);
    let secret: serde_json::Value = serde_json::from_str(&token::secret(&day).unwrap()).unwrap();
    assert_eq!(secret["metadata"]["name"], format!("bootstrap-token-{}", day.token.id()));
    assert_eq!(secret["stringData"]["expiration"], "2027-01-16T08:00:00Z");
    assert_eq!(secret["stringData"]["auth-extra-groups"], kscratch_metadata::JOINERS);
    // A master makes the same Secret of it.
    let master = Machine { name: "m1".to_owned(), role: "master".to_owned(), ..Machine::default() };
    let role = render(&folder, &master, &Members::new(), false, "--", now()).unwrap().role;
    let known = kscratch_metadata::parse(&role).unwrap().control_plane.unwrap().secrets.unwrap().tokens;
    assert_eq!(known.iter().map(BootstrapToken::object).nth(1), Some(secret));

    // A fault in the file shows its line, not what stands there.
    let text = folder.text("secrets/tokens.toml").unwrap();
    fs::write(folder.file("secrets/tokens.toml"), text.replace("created", "credit")).unwrap();
    let said = words(&token::read(&folder).unwrap_err());
    assert!(said.contains("line 3: unknown field `credit`") && !said.contains(day.token.secret()), "{said}");
}
