//! Made-up rings, and what is told of them.
mod every;
mod hostile;

use std::time::Duration;

use expect_test::{Expect, expect};
use kscratch_recorder::{BLOCK, Begin, BootId, Entry, Ring, What};

use super::{Autopsy, Which};
use crate::console::error_lines;

/// 2026-11-18 11:06:40 UTC.
const CLOCK: i64 = 1_795_000_000;

fn begin(day: i64) -> (u64, What) {
    let begin = Begin { clock: CLOCK + day * 86_400, kscratch: "0.1.0".into(), kernel: "6.12.1".into() };
    (900, What::Begin(begin))
}

fn said(at: u64, text: &str) -> (u64, What) {
    (at, What::Said(text.into()))
}

fn end(at: u64, how: &str) -> (u64, What) {
    (at, What::End(how.into()))
}

/// Adds a boot: times in milliseconds, a block for each entry where it says so.
fn write(partition: &mut [u8], boot: u8, apart: bool, entries: &[(u64, What)]) {
    let mut writer = Ring::read(partition).writer(BootId([boot; 16])).unwrap();
    let mut put = |placed: Option<kscratch_recorder::Placed>| {
        if let Some((place, block)) = placed {
            partition[place as usize..][..BLOCK].copy_from_slice(&block[..]);
        }
    };
    for (at, what) in entries {
        put(writer.push(&Entry { at: Duration::from_millis(*at), what: what.clone() }));
        put(apart.then(|| writer.flush()).flatten());
    }
    put(writer.flush());
}

fn ring(boots: &[&[(u64, What)]]) -> Vec<u8> {
    let mut partition = vec![0; 64 * BLOCK];
    for (boot, number) in boots.iter().zip(1..) {
        write(&mut partition, number, false, boot);
    }
    partition
}

fn told(partition: &[u8]) -> Autopsy {
    Autopsy::of(Ring::read(partition))
}

#[track_caller]
fn check(partition: &[u8], which: Which, want: Expect) {
    want.assert_eq(&told(partition).text(which, false).unwrap());
}

/// A boot that goes well, one whose network fails and whose kubelet does not stay, and one that says nothing more at its third phase.
fn three() -> Vec<u8> {
    let well = [
        begin(0),
        said(1000, "phase 01 mounts: start"),
        said(1400, "phase 01 mounts: ok (0.400 s)"),
        said(1500, "phase 02 network: start"),
        said(4250, "phase 02 network: ok (2.750 s)"),
        said(4300, "service dockerd: started pid 7"),
        said(5100, "service dockerd: ready (0.8 s)"),
        (600_000, What::Alive),
        said(601_000, "service dockerd: stopped (0.2 s)"),
        end(601_500, "power off"),
    ];
    let bad = [
        begin(1),
        (600, What::Kernel(6, "Linux version 6.12.1".into())),
        (700, What::Kernel(3, "ata1: failed command: READ".into())),
        said(1000, "phase 01 mounts: start"),
        said(1100, "phase 01 mounts: ok (0.100 s)"),
        said(1200, "phase 02 network: start"),
        said(31_200, "phase 02 network: failed: no lease on eth0: nobody answers"),
        said(31_300, "service kubelet: started pid 9"),
        said(33_000, "service kubelet: exit status 1 after 1.7 s; starting it again in 1 s"),
        said(34_000, "service kubelet: started pid 12"),
        said(94_000, "service kubelet: not ready after 60 s: connection refused"),
        end(100_000, "reboot"),
    ];
    let silent = [begin(2), said(1000, "phase 01 mounts: start"), said(1100, "phase 01 mounts: ok (0.100 s)")];
    let silent = [&silent[..], &[said(1200, "phase 02 network: start"), (602_500, What::Alive)]].concat();
    ring(&[&well, &bad, &silent])
}

#[test]
fn a_disk_that_recorded_nothing_says_so() {
    for which in [Which::Last, Which::All, Which::One(3)] {
        check(
            &[0; 8 * BLOCK],
            which,
            expect![[r#"
            this disk has recorded no boot yet
        "#]],
        );
    }
    assert_eq!(told(&[]).json(Which::Last, true).unwrap(), "[]\n");
}

#[test]
fn the_last_boot_is_told_in_full_and_those_before_in_a_line() {
    check(
        &three(),
        Which::Last,
        expect![[r#"
        boot 3  begun 2026-11-18 11:06:40 UTC  ran 10 min 1 s              power off       no troubles
        boot 2  begun 2026-11-19 11:06:40 UTC  ran 100 s                   reboot          2 troubles

        boot 1 (the last): begun 2026-11-20 11:06:40 UTC by its clock
          version    kscratch 0.1.0, Linux 6.12.1
          phases     1 ended well in 0.100 s, the longest is 01 mounts in 0.100 s
                     [   1.200] 02 network began and did not end
          end        ended without a word 10 min 2 s or more after its start: its power was cut, or it hung, or it runs still
                     the last that init said, at 1.200 s: phase 02 network: start
    "#]],
    );
}

#[test]
fn one_boot_may_be_chosen() {
    check(
        &three(),
        Which::One(2),
        expect![[r#"
        boot 2: begun 2026-11-19 11:06:40 UTC by its clock
          version    kscratch 0.1.0, Linux 6.12.1
          phases     1 ended well in 0.100 s, the longest is 01 mounts in 0.100 s
                     [   1.200] 02 network failed: no lease on eth0: nobody answers
          services   kubelet: started 2 times, never told to be ready
                       [  33.000] exit status 1 after 1.7 s; starting it again in 1 s
                       [  94.000] not ready after 60 s: connection refused
          kernel     [   0.700] ata1: failed command: READ
          end        ended in order, 100 s after its start: reboot
    "#]],
    );
    check(
        &three(),
        Which::One(3),
        expect![[r#"
        boot 3: begun 2026-11-18 11:06:40 UTC by its clock
          version    kscratch 0.1.0, Linux 6.12.1
          phases     2 ended well in 3.250 s, the longest is 02 network in 2.750 s
          services   dockerd: started once, first ready at 5.100 s
          end        ended in order, 10 min 1 s after its start: power off
    "#]],
    );
    let error = told(&three()).text(Which::One(4), false).unwrap_err();
    assert_eq!(
        error_lines(&error),
        ["error: there is no boot 4: 3 are left on the disk", "hint: --boot 1 is the last one; --all tells every one"]
    );
}

#[test]
fn what_a_boot_found_stands_with_the_one_that_it_is_about() {
    let left = |text: &str| (950, What::Left(text.into()));
    let first = [left("Panic#1 Part1"), left("<0>[  7.1] Kernel panic - not syncing: older")];
    let first = [&[begin(0)], &first[..], &[said(1000, "phase 01 mounts: start")]].concat();
    let second = [
        begin(1),
        left("Panic#1 Part1"),
        left("<4>[ 12.3]  dump_stack+0x7"),
        left("<0>[ 12.3] Kernel panic - not syncing: x"),
    ];
    let third = [begin(2), (960, What::Reset("the watchdog (iTCO_wdt)".into())), end(5000, "power off")];
    check(
        &ring(&[&first, &second, &third]),
        Which::All,
        expect![[r#"
        boot 3: begun 2026-11-18 11:06:40 UTC by its clock
          version    kscratch 0.1.0, Linux 6.12.1
          before it  found at its start, of a boot that nothing else is left of:
                       what the kernel left behind:
                         Panic#1 Part1
                         <0>[  7.1] Kernel panic - not syncing: older
          phases     0 ended well
                     [   1.000] 01 mounts began and did not end
          end        ended without a word 1 s or more after its start: the last words of its kernel stand below
                     the last that init said, at 1.000 s: phase 01 mounts: start
          after it   found by the next boot, boot 2:
                       what the kernel left behind:
                         Panic#1 Part1
                         <4>[ 12.3]  dump_stack+0x7
                         <0>[ 12.3] Kernel panic - not syncing: x

        boot 2: begun 2026-11-19 11:06:40 UTC by its clock
          version    kscratch 0.1.0, Linux 6.12.1
          phases     none is told
          end        ended without a word 0 s or more after its start: its power was cut, or it hung
                     nothing that init said is left
          after it   found by the next boot, boot 1:
                       why the machine was reset: the watchdog (iTCO_wdt)

        boot 1 (the last): begun 2026-11-20 11:06:40 UTC by its clock
          version    kscratch 0.1.0, Linux 6.12.1
          phases     none is told
          end        ended in order, 5 s after its start: power off
    "#]],
    );
    check(
        &ring(&[&first, &second, &third]),
        Which::Last,
        expect![[r#"
        boot 3  begun 2026-11-18 11:06:40 UTC  ran 1 s or more             without a word  1 trouble, last words of the kernel
        boot 2  begun 2026-11-19 11:06:40 UTC  ran 0 s or more             without a word  no troubles

        boot 1 (the last): begun 2026-11-20 11:06:40 UTC by its clock
          version    kscratch 0.1.0, Linux 6.12.1
          phases     none is told
          end        ended in order, 5 s after its start: power off
    "#]],
    );
}

#[test]
fn what_is_lost_is_told() {
    let boot = |day| {
        [begin(day), said(1000, "phase 01 mounts: start"), said(2000, "one"), said(3000, "two"), end(4000, "reboot")]
    };
    let mut partition = vec![0; 12 * BLOCK];
    for number in 1..=3 {
        write(&mut partition, number, true, &boot(number.into()));
    }
    // Five blocks each: of the first boot two are left, the second lacks its begin, the third two in the middle.
    for lost in [5, 11, 0] {
        partition[lost * BLOCK..][..BLOCK].fill(0x5A);
    }
    check(
        &partition,
        Which::All,
        expect![[r#"
        boot 3: begun at an unknown time
          record     its begin is overwritten by later boots, or damaged: what is told here is the rest
          phases     none is told
          end        ended in order, 4 s after its start: reboot

        boot 2: begun at an unknown time
          record     its begin is damaged: what is told here is the rest
          phases     0 ended well
                     [   1.000] 01 mounts began and did not end
          end        ended in order, 4 s after its start: reboot

        boot 1 (the last): begun 2026-11-21 11:06:40 UTC by its clock
          version    kscratch 0.1.0, Linux 6.12.1
          record     2 blocks are lost in between: something that it said is missing here
          phases     none is told
          end        ended in order, 4 s after its start: reboot
    "#]],
    );
}

#[test]
fn a_boot_that_left_next_to_nothing_is_told() {
    let mut clockless = begin(0);
    clockless.1 = What::Begin(Begin { clock: i64::MAX, ..Begin::default() });
    check(
        &ring(&[&[clockless], &[(200_000_000, What::Alive)]]),
        Which::All,
        expect![[r#"
        boot 2: begun at an unknown time
          version    kscratch (unknown), Linux (unknown)
          phases     none is told
          end        ended without a word 0 s or more after its start: its power was cut, or it hung
                     nothing that init said is left

        boot 1 (the last): begun at an unknown time
          record     its begin is damaged: what is told here is the rest
          phases     none is told
          end        ended without a word 2 d 7 h or more after its start: its power was cut, or it hung, or it runs still
                     nothing that init said is left
    "#]],
    );
}

#[test]
fn of_a_long_list_the_middle_is_left_out() {
    let errors: Vec<(u64, What)> = (1..=22).map(|at| (at * 1000, What::Kernel(3, format!("error {at}")))).collect();
    check(
        &ring(&[&errors]),
        Which::Last,
        expect![[r#"
        boot 1 (the last): begun at an unknown time
          record     its begin is overwritten by later boots, or damaged: what is told here is the rest
          phases     none is told
          kernel     [   1.000] error 1
                     [   2.000] error 2
                     [   3.000] error 3
                     [   4.000] error 4
                     [   5.000] error 5
                     [   6.000] error 6
                     [   7.000] error 7
                     [   8.000] error 8
                     [   9.000] error 9
                     [  10.000] error 10
                     (and 2 more, which --log tells)
                     [  13.000] error 13
                     [  14.000] error 14
                     [  15.000] error 15
                     [  16.000] error 16
                     [  17.000] error 17
                     [  18.000] error 18
                     [  19.000] error 19
                     [  20.000] error 20
                     [  21.000] error 21
                     [  22.000] error 22
          end        ended without a word 22 s or more after its start: its power was cut, or it hung, or it runs still
                     nothing that init said is left
    "#]],
    );
    let text = told(&ring(&[&errors[..21]])).text(Which::Last, false).unwrap();
    assert!(text.contains("error 11") && !text.contains("more, which"), "{text}");
}
