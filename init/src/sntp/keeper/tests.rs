//! Rounds of answers, and what comes of them.
use std::net::IpAddr;
use std::time::Duration;

use super::super::packet::Sample;
use super::{Failure, Floor, Keeper, LONGEST, NANOS, Outcome, REFUSED, SHORTEST, Said};

/// 2026-11-18T11:06:40Z.
const NOW: i128 = 1_795_000_000 * NANOS;
const MS: i128 = 1_000_000;

struct Scene {
    keeper: Keeper,
    now: Duration,
}

impl Scene {
    fn of(servers: &[&str]) -> Self {
        let mut keeper = Keeper::new(Floor { seconds: 1_790_000_000, what: "the image's date" });
        let now = Duration::from_secs(10);
        keeper.serve(servers.iter().map(|name| (*name).to_owned()).collect(), now);
        Self { keeper, now }
    }

    fn round(&mut self, said: &[(&str, Result<i128, Failure>)]) -> Outcome {
        self.round_with(said, &[])
    }

    /// The same, in which addresses refuse.
    fn round_with(&mut self, said: &[(&str, Result<i128, Failure>)], refused: &[(&str, &str)]) -> Outcome {
        let refused = |server: &str| {
            let own = refused.iter().filter(|(of, _)| *of == server);
            own.map(|(_, address)| (address.parse().unwrap(), "DENY")).collect()
        };
        let said: Vec<Said> = said
            .iter()
            .map(|(server, time)| Said {
                server: (*server).to_owned(),
                time: time.clone().map(|offset| Sample { offset, distance: 20 * MS }),
                refused: refused(server),
            })
            .collect();
        self.keeper.take(&said, NOW, self.now)
    }

    /// A round in which everybody says the same; gives whether the clock is set (or led, or left alone), and the pause.
    fn agreed(&mut self, offset: i128) -> (Option<bool>, u64, Vec<String>) {
        let Outcome { adjust, lines, next } = self.round(&[("a", Ok(offset))]);
        if let Some(adjust) = adjust {
            assert_eq!((adjust.offset, adjust.error, adjust.next), (offset, Duration::from_millis(20), next));
        }
        self.now += next;
        (adjust.map(|adjust| adjust.at_once), next.as_secs(), lines)
    }
}

fn silent() -> Result<i128, Failure> {
    Err(Failure::Other("no answer".to_owned()))
}

#[test]
fn a_clock_that_is_off_is_set_at_first_and_led_later() {
    let mut scene = Scene::of(&["a"]);
    let (set, pause, lines) = scene.agreed(7_384_000 * MS);
    assert_eq!((set, pause), (Some(true), 64));
    assert_eq!(
        lines,
        [
            "the clock is synchronised with a: it said 2026-11-18T11:06:40Z, 2 h 3 min behind, and was set to 2026-11-18T13:09:44Z"
        ]
    );
    assert_eq!(scene.agreed(300 * MS), (Some(false), 64, vec![]));
    let mut scene = Scene::of(&["a"]);
    let first = "the clock is synchronised with a: it was 127.9 ms ahead".to_owned();
    assert_eq!(scene.agreed(-127_900_000), (Some(false), 64, vec![first]));
}

#[test]
fn the_pause_grows_while_the_clock_goes_well() {
    let mut scene = Scene::of(&["a"]);
    scene.agreed(0);
    for want in [128, 256, 512, 1024, 1024] {
        assert_eq!(scene.agreed(10 * MS), (Some(false), want, vec![]));
    }
    assert_eq!(scene.agreed(11 * MS), (Some(false), 64, vec![]));
    assert_eq!(scene.agreed(-MS), (Some(false), 128, vec![]));
}

#[test]
fn a_clock_that_was_right_is_set_only_by_two_rounds() {
    let mut scene = Scene::of(&["a"]);
    scene.agreed(0);
    // An answer that was held up: the next one knows nothing of it.
    assert_eq!(scene.agreed(501 * MS), (None, 8, vec![]));
    assert_eq!(scene.agreed(0), (Some(false), 128, vec![]));
    // The machine was asleep.
    assert_eq!(scene.agreed(3_600_000 * MS), (None, 8, vec![]));
    let (set, pause, lines) = scene.agreed(3_600_000 * MS);
    assert_eq!((set, pause), (Some(true), 64));
    assert_eq!(
        lines,
        ["the clock was off by a: it said 2026-11-18T11:06:40Z, 1 h 0 min behind, and was set to 2026-11-18T12:06:40Z"]
    );
}

#[test]
fn a_liar_is_told_once_and_again_only_after_it_was_right() {
    let mut scene = Scene::of(&["a", "b", "c"]);
    let lie = [("a", Ok(0)), ("b", Ok(MS)), ("c", Ok(-3_600_000 * MS))];
    let told = "the time server c says a time 1 h 0 min earlier than most others: it is not believed";
    let first = "the clock is synchronised with a (2 of 3 servers agree): it was 0.0 ms behind";
    assert_eq!(scene.round(&lie).lines, [told, first]);
    assert!(scene.round(&lie).lines.is_empty());
    // It is not followed where the others fall silent.
    let alone = [("a", silent()), ("b", silent()), ("c", Ok(-3_600_000 * MS))];
    for _ in 0..3 {
        assert_eq!(scene.round(&alone).adjust, None);
    }
    // Once it agrees with one of them it is as good as any.
    assert!(scene.round(&[("a", Ok(0)), ("b", silent()), ("c", Ok(0))]).adjust.is_some());
    assert!(scene.round(&[("a", silent()), ("b", silent()), ("c", Ok(0))]).adjust.is_some());
    assert_eq!(scene.round(&lie).lines, [told]);
}

#[test]
fn servers_that_disagree_leave_the_clock_alone() {
    let mut scene = Scene::of(&["a", "b"]);
    let both = [("a", Ok(3 * MS)), ("b", Ok(-3_600_000 * MS))];
    let outcome = scene.round(&both);
    assert_eq!(
        outcome.lines,
        [
            "the time servers do not agree how far this clock is off, and none has a majority: it is left alone (a: 3.0 ms behind, b: 1 h 0 min ahead)"
        ]
    );
    assert_eq!((outcome.adjust, outcome.next), (None, Duration::from_secs(2)));
    assert!(scene.round(&both).lines.is_empty());
}

#[test]
fn a_time_before_the_floor_is_nobodys() {
    let mut scene = Scene::of(&["a", "b"]);
    let early = Ok(-6_000_000 * NANOS);
    let outcome = scene.round(&[("a", early.clone()), ("b", early.clone())]);
    assert_eq!(outcome.adjust, None);
    assert_eq!(
        outcome.lines[0],
        "the time server a says 2026-09-10T00:26:40Z, which is before the image's date, 2026-09-21T14:13:20Z: it is not believed"
    );
    assert_eq!(outcome.lines.len(), 2);
    assert!(scene.round(&[("a", early.clone()), ("b", early.clone())]).lines.is_empty(), "it is told once");
    let outcome = scene.round(&[("a", early), ("b", Ok(0))]);
    let line = "the clock is synchronised with b (1 of 2 servers agree): it was 0.0 ms behind";
    assert!(outcome.adjust.is_some(), "b has the time now, and has contradicted nobody");
    assert_eq!(outcome.lines, [line]);
}

#[test]
fn the_only_server_is_followed_once_its_time_can_be() {
    let mut scene = Scene::of(&["a"]);
    let early = [("a", Ok(-6_000_000 * NANOS))];
    assert_eq!(scene.round(&early).lines.len(), 1);
    assert!(scene.round(&[("a", Ok(0))]).adjust.is_some());
    assert_eq!(scene.round(&early).lines.len(), 1, "it is told anew");
}

#[test]
fn silence_is_borne_and_told_when_it_lasts() {
    let mut scene = Scene::of(&["a", "b"]);
    let nobody = [("a", silent()), ("b", Err(Failure::Other("it has no time (INIT)".to_owned())))];
    let mut pauses = Vec::new();
    let mut told = Vec::new();
    while scene.now < Duration::from_secs(4000) {
        let outcome = scene.round(&nobody);
        pauses.push(outcome.next.as_secs());
        told.extend(outcome.lines.into_iter().map(|line| (scene.now.as_secs(), line)));
        scene.now += outcome.next;
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]);
    let line = "no server has given a time for 8 min, and the clock goes on by itself (a: no answer, b: it has no time (INIT))";
    assert_eq!(told, [(520, line.to_owned())]);

    let mut scene = Scene::of(&["a"]);
    scene.agreed(0);
    let lost = scene.now;
    let mut told = Vec::new();
    while scene.now < lost + Duration::from_secs(9000) {
        let outcome = scene.round(&[("a", silent())]);
        told.extend(outcome.lines);
        assert!((SHORTEST..=LONGEST).contains(&outcome.next));
        scene.now += outcome.next;
    }
    let line = "no server has given a time for 68 min, and the clock goes on by itself (a: no answer)";
    assert_eq!(told, [line]);
    assert_eq!(scene.agreed(MS).2, ["the clock is synchronised again with a: it was 1.0 ms behind"]);
}

#[test]
fn who_is_asked_too_often_rests() {
    let mut scene = Scene::of(&["b", "c"]);
    assert_eq!(scene.keeper.due(scene.now), ["b", "c"]);
    assert!(scene.round(&[("b", Err(Failure::TooOften)), ("c", Ok(0))]).adjust.is_some());
    assert_eq!(scene.keeper.due(scene.now), ["c"]);
    assert_eq!(scene.keeper.due(scene.now + LONGEST), ["b", "c"]);
    // A list that names it no more and then again gives it another chance.
    scene.keeper.serve(vec!["d".into()], scene.now);
    scene.keeper.serve(vec!["b".into()], scene.now);
    assert_eq!(scene.keeper.due(scene.now), ["b"]);
    // Of one that is not in the list any more an answer may still come.
    assert_eq!(scene.round(&[("c", Ok(0))]).adjust, None);
}

#[test]
fn an_address_that_refuses_rests_for_a_day_whatever_its_name_is() {
    let mut scene = Scene::of(&["10.0.0.1", "pool"]);
    let denied = || Err(Failure::Denied("DENY"));
    let both = [("10.0.0.1", "10.0.0.1"), ("pool", "10.0.0.2"), ("pool", "10.0.0.3")];
    // Another member of the pool has given a time.
    let outcome = scene.round_with(&[("10.0.0.1", denied()), ("pool", Ok(0))], &both);
    assert!(outcome.adjust.is_some());
    assert_eq!(
        outcome.lines[..2],
        [
            "the time server 10.0.0.1 refuses to serve this machine (DENY): it is not asked for 24 h",
            "the time server pool refuses to serve this machine at 10.0.0.2 (DENY): that address is not asked for 24 h",
        ]
    );
    // Names are looked up again each time: a pool has other members by then.
    assert_eq!(scene.keeper.due(scene.now), ["10.0.0.1", "pool"]);
    let resting = |scene: &Scene| scene.keeper.resting(scene.now).into_keys().collect::<Vec<IpAddr>>();
    let all: [IpAddr; 3] = [1, 2, 3].map(|last| [10, 0, 0, last].into());
    assert_eq!(resting(&scene), all);
    // Another list does not make a refusal void, and that a name refuses is told once.
    scene.keeper.serve(vec!["pool".into()], scene.now);
    scene.now += Duration::from_secs(1);
    assert!(scene.round_with(&[("pool", Ok(0))], &[("pool", "10.0.0.4")]).lines.is_empty());
    assert_eq!(resting(&scene).len(), 4);
    scene.now += REFUSED - Duration::from_secs(1);
    let last: [IpAddr; 1] = [[10, 0, 0, 4].into()];
    assert_eq!(resting(&scene), last);
    let again = scene.round_with(&[("pool", denied())], &[("pool", "10.0.0.2")]).lines;
    assert!(again[0].ends_with("at 10.0.0.2 (DENY): that address is not asked for 24 h"), "{again:?}");
    assert_eq!(resting(&scene).len(), 2);
}

#[test]
fn that_all_refuse_or_rest_is_told_as_silence_is() {
    let mut scene = Scene::of(&["a"]);
    let mut told = Vec::new();
    while scene.now < Duration::from_secs(900) {
        let outcome = scene.round(&[("a", Err(Failure::Denied("RSTR")))]);
        told.extend(outcome.lines);
        scene.now += outcome.next;
    }
    let line =
        |words: &str| format!("no server has given a time for 8 min, and the clock goes on by itself (a: {words})");
    assert_eq!(told, [line("it refuses (RSTR)")]);

    let mut scene = Scene::of(&["a"]);
    assert!(scene.round(&[("a", Err(Failure::TooOften))]).lines.is_empty());
    scene.now += Duration::from_secs(490);
    assert!(scene.keeper.due(scene.now).is_empty());
    assert_eq!(scene.keeper.idle(scene.now), Some(line("it is asked too often")));
    assert_eq!(scene.keeper.idle(scene.now), None);
}

#[test]
fn nobody_to_ask_is_no_trouble() {
    let mut scene = Scene::of(&[]);
    scene.now = Duration::from_secs(100_000);
    assert!(scene.round(&[]).lines.is_empty() && scene.keeper.due(scene.now).is_empty());
    assert_eq!(scene.keeper.idle(scene.now), None);
    // The time without servers does not count as silence.
    scene.keeper.serve(vec!["a".into()], scene.now);
    assert!(scene.round(&[("a", silent())]).lines.is_empty());
}
