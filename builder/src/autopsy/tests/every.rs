//! All that a boot left, entry by entry and as JSON.
use expect_test::expect;
use kscratch_recorder::What;

use super::{begin, end, ring, said, three, told};
use crate::autopsy::Which;

#[test]
fn the_log_has_every_entry() {
    let boot = [
        begin(0),
        (600, What::Kernel(6, "Linux version 6.12.1".into())),
        (950, What::Left("<0>Kernel panic\n<0>second line".into())),
        (960, What::Reset("power on".into())),
        said(1000, "phase 01 mounts: start"),
        (3_600_000, What::Alive),
        end(12_345_678, "power off"),
    ];
    expect![[r#"
        boot 1 (the last): begun 2026-11-18 11:06:40 UTC by its clock
          version    kscratch 0.1.0, Linux 6.12.1
          before it  found at its start, of a boot that nothing else is left of:
                       why the machine was reset: power on
                       what the kernel left behind:
                         <0>Kernel panic
                         <0>second line
          phases     0 ended well
                     [   1.000] 01 mounts began and did not end
          end        ended in order, 3 h 25 min after its start: power off
          log
          [   0.900] begin: kscratch 0.1.0, Linux 6.12.1, 2026-11-18 11:06:40 UTC by its clock
          [   0.600] kernel 6: Linux version 6.12.1
          [   0.950] left by the boot before: <0>Kernel panic
          [   0.950] <0>second line
          [   0.960] reset before this boot: power on
          [   1.000] phase 01 mounts: start
          [3600.000] it runs
          [12345.678] end: power off
    "#]]
    .assert_eq(&told(&ring(&[&boot])).text(Which::Last, true).unwrap());
    expect![[r#"
        [
          {
            "number": 1,
            "id": "01010101010101010101010101010101",
            "begun": "2026-11-18T11:06:40Z",
            "kscratch": "0.1.0",
            "kernel": "6.12.1",
            "begin_lost": false,
            "lost_blocks": 0,
            "phases": [
              {
                "number": 1,
                "name": "mounts",
                "begun": 1.0,
                "outcome": "open",
                "ended": null,
                "reason": null
              }
            ],
            "services": [],
            "kernel_errors": [],
            "troubles": [],
            "last_said": {
              "at": 1.0,
              "text": "phase 01 mounts: start"
            },
            "ran": 12345.678,
            "ended": "power off",
            "found_by_next": null,
            "found_before": {
              "kernel_left": [
                "<0>Kernel panic\n<0>second line"
              ],
              "reset": "power on"
            },
            "log": [
              {
                "at": 0.9,
                "kind": "begin"
              },
              {
                "at": 0.6,
                "kind": "kernel",
                "level": 6,
                "text": "Linux version 6.12.1"
              },
              {
                "at": 0.95,
                "kind": "kernel_left",
                "text": "<0>Kernel panic\n<0>second line"
              },
              {
                "at": 0.96,
                "kind": "reset",
                "text": "power on"
              },
              {
                "at": 1.0,
                "kind": "said",
                "text": "phase 01 mounts: start"
              },
              {
                "at": 3600.0,
                "kind": "alive"
              },
              {
                "at": 12345.678,
                "kind": "end",
                "text": "power off"
              }
            ]
          }
        ]
    "#]]
    .assert_eq(&told(&ring(&[&boot])).json(Which::Last, true).unwrap());
}

#[test]
fn json_has_all_boots_or_the_one_that_is_meant() {
    expect![[r#"
        [
          {
            "number": 2,
            "id": "02020202020202020202020202020202",
            "begun": "2026-11-19T11:06:40Z",
            "kscratch": "0.1.0",
            "kernel": "6.12.1",
            "begin_lost": false,
            "lost_blocks": 0,
            "phases": [
              {
                "number": 1,
                "name": "mounts",
                "begun": 1.0,
                "outcome": "ok",
                "ended": 1.1,
                "reason": null
              },
              {
                "number": 2,
                "name": "network",
                "begun": 1.2,
                "outcome": "failed",
                "ended": null,
                "reason": "no lease on eth0: nobody answers"
              }
            ],
            "services": [
              {
                "name": "kubelet",
                "starts": 2,
                "ready": null,
                "troubles": [
                  {
                    "at": 33.0,
                    "text": "exit status 1 after 1.7 s; starting it again in 1 s"
                  },
                  {
                    "at": 94.0,
                    "text": "not ready after 60 s: connection refused"
                  }
                ]
              }
            ],
            "kernel_errors": [
              {
                "at": 0.7,
                "text": "ata1: failed command: READ"
              }
            ],
            "troubles": [
              "phase 02 network failed: no lease on eth0: nobody answers",
              "service kubelet: not ready after 60 s: connection refused (the last of 2)"
            ],
            "last_said": {
              "at": 94.0,
              "text": "service kubelet: not ready after 60 s: connection refused"
            },
            "ran": 100.0,
            "ended": "reboot",
            "found_by_next": null,
            "found_before": null
          }
        ]
    "#]]
    .assert_eq(&told(&three()).json(Which::One(2), false).unwrap());
    let numbers = |which| {
        let boots: Vec<serde_json::Value> = serde_json::from_str(&told(&three()).json(which, false).unwrap()).unwrap();
        boots.iter().map(|boot| boot["number"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((numbers(Which::Last), numbers(Which::All)), (vec![3, 2, 1], vec![3, 2, 1]));
    assert!(told(&three()).json(Which::One(4), false).is_err());
}
