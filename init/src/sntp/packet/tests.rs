//! Packets, field by field and at random.
use std::time::Duration;

use proptest::prelude::{any, prop, proptest};

use super::{LEN, Refused, Sample, nanos, question, read};

const COOKIE: u64 = 0x0123_4567_89ab_cdef;
/// 2026-11-18, in seconds since 1970.
const NOW: i64 = 1_795_000_000;

fn wire(seconds: i64, fraction: f64) -> u64 {
    let seconds = u64::try_from(seconds + 2_208_988_800).unwrap() & 0xffff_ffff;
    seconds << 32 | (fraction * 4_294_967_296.0) as u64
}

/// A sound answer of a server that got the question at `received` and answered at `sent`.
fn answer(received: u64, sent: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..4].copy_from_slice(&[0x24, 2, 6, 0xec]);
    // 15.625 ms of delay, and as much dispersion.
    bytes[4..8].copy_from_slice(&0x0400_u32.to_be_bytes());
    bytes[8..12].copy_from_slice(&0x0400_u32.to_be_bytes());
    bytes[24..32].copy_from_slice(&COOKIE.to_be_bytes());
    bytes[32..40].copy_from_slice(&received.to_be_bytes());
    bytes[40..48].copy_from_slice(&sent.to_be_bytes());
    bytes
}

fn sound() -> [u8; LEN] {
    answer(wire(NOW, 0.25), wire(NOW, 0.5))
}

#[test]
fn a_question_tells_nothing_but_its_cookie() {
    let bytes = question(COOKIE);
    assert_eq!(bytes[0], 0b00_100_011);
    assert!(bytes[1..40].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[40..], COOKIE.to_be_bytes());
}

#[track_caller]
fn refused(change: impl FnOnce(&mut [u8; LEN]), want: &str) {
    let mut bytes = sound();
    change(&mut bytes);
    assert_eq!(format!("{:?}", read(&bytes, COOKIE).unwrap_err()), want);
}

#[test]
fn what_is_no_answer_to_the_question_is_waited_past() {
    for len in [0, 1, 47] {
        assert_eq!(read(&sound()[..len], COOKIE), Err(Refused::Stray));
    }
    refused(|bytes| bytes[31] ^= 1, "Stray");
    // A client's, a broadcast, and versions 2 and 5.
    for flags in [0x23, 0x25, 0x14, 0x2c] {
        refused(|bytes| bytes[0] = flags, "Stray");
    }
    // Who has not seen the question cannot keep this machine from asking a server.
    let mut kiss = sound();
    kiss[1] = 0;
    kiss[12..16].copy_from_slice(b"DENY");
    assert_eq!(read(&kiss, COOKIE + 1), Err(Refused::Stray));
}

#[test]
fn who_has_no_time_says_so() {
    let kiss = |code: &'static [u8; 4]| {
        move |bytes: &mut [u8; LEN]| {
            bytes[1] = 0;
            bytes[12..16].copy_from_slice(code);
        }
    };
    refused(kiss(b"DENY"), "Denied(\"DENY\")");
    refused(kiss(b"RSTR"), "Denied(\"RSTR\")");
    refused(kiss(b"RATE"), "TooOften");
    refused(kiss(b"INIT"), "Unsound(\"it has no time (INIT)\")");
    refused(kiss(b"\n\0\xffx"), "Unsound(\"it has no time (...x)\")");
    refused(|bytes| bytes[1] = 16, "Unsound(\"it has no time itself\")");
    refused(|bytes| bytes[0] |= 0xc0, "Unsound(\"it has no time itself\")");
    refused(|bytes| bytes[40..].fill(0), "Unsound(\"its answer has no time in it\")");
}

#[test]
fn the_offset_is_what_is_left_of_both_ways() {
    // Asked at .0 and answered at .4 of our clock; there at .25 and away at .5 of the server's: 75 ms each way, so that its clock is 175 ms ahead.
    let asked = i128::from(NOW) * 1_000_000_000;
    let sample = read(&sound(), COOKIE).unwrap().against(asked, Duration::from_millis(400), NOW).unwrap();
    // Half of 150 ms on the way, half of the delay and the dispersion at the root, 1 ms.
    assert_eq!(sample, Sample { offset: 175_000_000, distance: 75_000_000 + 7_812_500 + 15_625_000 + 1_000_000 });
    // Version 3 is as good.
    let mut old = sound();
    old[0] = 0x1c;
    assert!(read(&old, COOKIE).is_ok());
}

#[test]
fn times_that_cannot_be_are_refused() {
    let asked = i128::from(NOW) * 1_000_000_000;
    let against = |bytes: [u8; LEN], took: u64| {
        read(&bytes, COOKIE).unwrap().against(asked, Duration::from_millis(took), NOW).map_err(|why| format!("{why:?}"))
    };
    let together = Err("Unsound(\"its answer's two times do not go together\")".to_owned());
    assert_eq!(against(answer(wire(NOW, 0.5), wire(NOW, 0.25)), 400), together);
    assert_eq!(against(sound(), 200), together, "it worked longer on it than there was time");
    assert!(against(sound(), 245).is_ok(), "a clock that is slewed may do that");
    assert_eq!(against(sound(), 4000), Err("Unsound(\"its time may be off by 1899 ms\")".to_owned()));
    let mut far = sound();
    far[8] = 0xff;
    assert!(against(far, 400).unwrap_err().contains("may be off by"));
}

#[test]
fn eras_go_on() {
    let at = |seconds: i64, near: i64| nanos(wire(seconds, 0.5), near) - 500_000_000;
    // 2036-02-07T06:28:16Z begins the next era.
    for seconds in [NOW, 2_085_978_495, 2_085_978_496, 3_000_000_000, 978_307_200] {
        assert_eq!(at(seconds, NOW), i128::from(seconds) * 1_000_000_000, "{seconds}");
    }
    assert_eq!(at(NOW + (1 << 33), NOW + (1 << 33)), i128::from(NOW + (1 << 33)) * 1_000_000_000);
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..100), asked in any::<i64>(), took in any::<u64>(), near in any::<i64>()) {
        if let Ok(answer) = read(&bytes, COOKIE) {
            let _ = answer.against(asked.into(), Duration::from_millis(took), near);
        }
    }

    #[test]
    fn no_sound_head_breaks_it(mut bytes in prop::collection::vec(any::<u8>(), 48..60), asked in any::<i64>(), took in any::<u64>(), near in any::<i64>()) {
        bytes[0] = 0x24;
        bytes[24..32].copy_from_slice(&COOKIE.to_be_bytes());
        if let Ok(answer) = read(&bytes, COOKIE)
            && let Ok(sample) = answer.against(asked.into(), Duration::from_millis(took), near)
        {
            assert!(sample.distance >= 1_000_000 && sample.distance <= 1_500_000_000);
        }
    }

    #[test]
    fn the_true_offset_is_within_the_distance(off in -100_000_000_000_i64..100_000_000_000, there in 0_u64..400_000_000, worked in 0_u64..400_000_000, back in 0_u64..400_000_000) {
        let asked = i128::from(NOW) * 1_000_000_000;
        let time = |nanos: i128| {
            let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
            (u64::try_from(seconds + 2_208_988_800).unwrap() & 0xffff_ffff) << 32 | u64::try_from((rest << 32) / 1_000_000_000).unwrap()
        };
        let received = asked + i128::from(off) + i128::from(there);
        let bytes = answer(time(received), time(received + i128::from(worked)));
        let sample = read(&bytes, COOKIE).unwrap().against(asked, Duration::from_nanos(there + worked + back), NOW).unwrap();
        assert!((sample.offset - i128::from(off)).abs() <= sample.distance, "{sample:?}");
    }
}
