//! A service gets the surroundings and the rights that its definition names, and no others.
use std::process::Command;

use crate::scene::{Scene, shell, wait_until, with};

pub fn a_service_gets_what_its_definition_says() {
    let mut scene = Scene::new();
    let script = "cat; cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn; pwd; env | grep -v ^_= | grep -v ^PWD | sort; \
                  read pid comm state ppid group session rest < /proc/self/stat; [ $$ = $session ] && echo own session; \
                  grep ^SigBlk /proc/self/status; echo end; exec sleep 1000";
    scene.start(vec![shell("a", script)]);
    scene.started("a");
    wait_until("the end of the output", || scene.log("a.log").ends_with("end\n"));
    let want = "123\n77\n77\n/\nGREETING=hello\nPATH=/usr/bin:/bin\nown session\nSigBlk:\t0000000000000000\nend\n";
    assert_eq!(scene.log("a.log"), want);
}

/// Changing user and capabilities needs root.
pub fn a_service_has_no_more_rights_than_it_is_given() {
    assert!(rustix::process::geteuid().is_root(), "giving up rights needs root: run the tests as root");
    let script = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/self/status; echo end; exec sleep 1000";
    let capabilities =
        |bits: &str| ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:\t{bits}\n")).concat();
    for (rights, user, bits) in [
        ("905:NET_ADMIN", "905", "0000000000001000"),
        ("0:CHOWN,DAC_READ_SEARCH", "0", "0000000000000005"),
        ("906:", "906", "0000000000000000"),
    ] {
        let mut scene = Scene::new();
        scene.start(vec![with(shell("a", script), serde_json::json!({ "rights": rights }))]);
        scene.started("a");
        wait_until("the end of the output", || scene.log("a.log").ends_with("end\n"));
        let all = format!("{user}\t{user}\t{user}\t{user}");
        let want = format!("Uid:\t{all}\nGid:\t{all}\nGroups:\t \n{}NoNewPrivs:\t1\nend\n", capabilities(bits));
        assert_eq!(scene.log("a.log"), want, "{rights}");
        scene.signal(rustix::process::Signal::TERM);
        assert_eq!(scene.end().0, 0, "{rights}: it is stopped all the same");
    }
}

/// Whether he may open it or not: PID 1 has opened it.
pub fn a_service_reads_what_it_is_given() {
    let mut scene = Scene::new();
    let script = "readlink /proc/self/fd/0; dd bs=8192 count=1 2>/dev/null | wc -l; echo end; exec sleep 1000";
    scene.start(vec![with(shell("a", script), serde_json::json!({"rights": "905:", "reads": "kernel log"}))]);
    scene.started("a");
    wait_until("the end of the output", || scene.log("a.log").ends_with("end\n"));
    let said = scene.log("a.log");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0] == "/dev/kmsg" && lines[1] != "0", "{said}");
}

pub fn without_its_rights_a_service_is_not_started() {
    let tried = |rights: &str| {
        // Root without the capability to take others away.
        let output = Command::new("setpriv")
            .args(["--bounding-set", "-setpcap", env!("CARGO_BIN_EXE_kscratch-init"), "exec-service", "", "500", "77"])
            .args([rights, "/bin/echo", "started"])
            .output()
            .expect("running setpriv (apt-get install util-linux)");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    };
    assert_eq!(tried("root"), (Some(0), "started\n".to_owned()));
    let words = "kscratch-init: giving up rights; the service is not started with more than it should have: dropping the capabilities that it \
                 shall not have: Operation not permitted (os error 1)\n";
    assert_eq!(tried("905:NET_ADMIN"), (Some(127), words.to_owned()));
    let words = "kscratch-init: reading its rights: \"ALL\" is no capability\n";
    assert_eq!(tried("0:ALL"), (Some(127), words.to_owned()));
}
