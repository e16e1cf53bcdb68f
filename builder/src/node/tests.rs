//! What is told of machines, by tables, and what is asked of an API server that stands in for a real one.
use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use expect_test::expect;
use serde_json::{Value, json};

use super::follow::Following;
use super::logs::{last, names, place};
use super::order::{annotations, progress};
use super::status::lines;
use super::{Order, Wait, give, list, object, outlived, tail};
use crate::console::Console;
use crate::vmcluster::api::Api;

fn node(boot: &str, ready: &str, message: &str) -> Value {
    json!({
        "metadata": {"name": "n1"},
        "spec": {"podCIDRs": ["10.244.1.0/24"]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.168.76.20"}, {"type": "Hostname", "address": "n1"}],
            "nodeInfo": {"bootID": boot, "kubeletVersion": "v1.37.2", "kernelVersion": "6.12.48", "machineID": "0123"},
            "conditions": [
                {"type": "DiskPressure", "status": "False", "message": "fine"},
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": ready, "reason": "KubeletNotReady", "message": message,
                    "lastTransitionTime": "2026-11-29T05:00:00Z"},
            ],
        },
    })
}

fn node_of(name: &str, ready: &str) -> Value {
    let mut node = node("b1", ready, "");
    node["metadata"]["name"] = name.into();
    node
}

#[test]
fn a_machine_that_is_well() {
    let stats = json!({"node": {"cpu": {"usageNanoCores": 1_250_000_000_u64}, "memory": {"workingSetBytes": 157_286_400, "availableBytes": 1_073_741_824},
        "fs": {"availableBytes": 4_294_967_296_u64, "capacityBytes": 8_589_934_592_u64}}, "pods": [{}, {}]});
    expect![[r#"
        n1: Ready
          since      2026-11-29T05:00:00Z
          address    192.168.76.20
          pods       10.244.1.0/24
          versions   kubelet v1.37.2, Linux 6.12.48
          machine    0123
          boot       b1
          processor  1.25 in use
          memory     150.0 MiB in use, 1.0 GiB left
          state      4.0 GiB left of 8.0 GiB
          running    2 pods
    "#]]
    .assert_eq(&lines(&node("b1", "True", "kubelet is posting ready status"), Ok(&stats)));
}

#[test]
fn a_machine_that_goes_down_or_is_away() {
    let mut cordoned = node("b1", "False", "node is shutting\u{1b}[2Jdown");
    cordoned["spec"]["unschedulable"] = json!(true);
    cordoned["status"]["conditions"][0] = json!({"type": "DiskPressure", "status": "True", "message": "full"});
    expect![[r#"
        n1: not Ready, cordoned
          since      2026-11-29T05:00:00Z
          why        KubeletNotReady: node is shutting?[2Jdown
          address    192.168.76.20
          pods       10.244.1.0/24
          versions   kubelet v1.37.2, Linux 6.12.48
          machine    0123
          boot       b1
          trouble    the disk runs full: full
          kubelet    does not answer
    "#]]
    .assert_eq(&lines(&cordoned, Err("does not answer")));
    assert!(lines(&node("b1", "Unknown", ""), Err("x")).starts_with("n1: not heard of\n"));
    // Whatever an API server says is told somehow.
    assert!(lines(&json!({}), Ok(&json!([]))).starts_with(": not Ready\n"));
}

#[test]
fn how_far_an_order_is() {
    use Order::{Reboot, Shutdown};
    const RESET: Order = Order::Reset { keep_identity: false };
    let going = || Wait::Ends("node is shutting down".to_owned());
    for (order, boot, ready, answers, want) in [
        (Reboot, "old", "True", true, Wait::Unmoved),
        (Reboot, "old", "False", true, going()),
        (Reboot, "old", "False", false, Wait::Away),
        (Reboot, "old", "Unknown", false, Wait::Away),
        (Reboot, "old", "True", false, Wait::Away),
        (Reboot, "new", "False", true, Wait::Starts),
        (Reboot, "new", "True", true, Wait::Done),
        (RESET, "old", "False", false, Wait::Away),
        (RESET, "new", "True", true, Wait::Done),
        (Shutdown, "old", "True", true, Wait::Unmoved),
        (Shutdown, "old", "False", true, going()),
        (Shutdown, "old", "True", false, Wait::Away),
        // Its kubelet has ended, and the rest of it may be at it still.
        (Shutdown, "old", "False", false, Wait::Away),
        (Shutdown, "old", "Unknown", false, Wait::Done),
        (Shutdown, "old", "Unknown", true, going()),
        (Shutdown, "new", "Unknown", false, Wait::Starts),
        // Somebody has switched it on again.
        (Shutdown, "new", "True", true, Wait::Starts),
    ] {
        let node = node(boot, ready, "node is shutting down");
        let got = progress(order, "old", Some(&node), answers, true);
        assert_eq!(got, want, "{order:?} {boot} {ready} {answers}");
        // One that nobody has seen since may be anywhere.
        let unseen = if (order, boot) == (Shutdown, "old") && want == Wait::Done { Wait::Away } else { want };
        assert_eq!(progress(order, "old", Some(&node), answers, false), unseen, "{order:?} {boot} {ready} {answers}");
    }
    assert_eq!(progress(Reboot, "old", None, false, true), Wait::Away);
}

#[test]
fn nobody_waits_for_a_master_whose_end_nobody_could_tell() {
    let told = |node: &str, label: bool, masters: &[(&str, &str)]| {
        let of = |name: &str, ready: &str, label: bool| {
            let mut node = node_of(name, ready);
            if label {
                node["metadata"]["labels"] = json!({"node-role.kubernetes.io/control-plane": ""});
            }
            node
        };
        let items: Vec<Value> = masters.iter().map(|(name, ready)| of(name, ready, true)).collect();
        let list = json!({"kind": "NodeList", "items": items}).to_string();
        let (api, asked) = server(vec![(200, "", of(node, "True", label).to_string()), (200, "", list)]);
        let told = outlived(&api, node).err().map(|error| crate::console::error_lines(&error).join("\n"));
        (told, asked.try_iter().map(|(line, ..)| line).last())
    };
    let (well, down) = ("True", "Unknown");
    assert_eq!(told("n1", false, &[]), (None, Some("GET /api/v1/nodes/n1 HTTP/1.1".to_owned())));
    assert_eq!(told("m1", true, &[("m1", well), ("m2", well), ("m3", well)]).0, None);
    for masters in [
        &[("m1", well)][..],
        &[("m1", well), ("m2", down)],
        &[("m1", well), ("m2", well)],
        &[("m1", well), ("m2", well), ("m3", down)],
    ] {
        let (told, asked) = told("m1", true, masters);
        let list = "GET /api/v1/nodes?labelSelector=node-role.kubernetes.io/control-plane HTTP/1.1";
        assert_eq!(asked.as_deref(), Some(list));
        expect![[r#"
            error: m1 is a master, and without it no API server is left that could tell that it is off
            hint: kscratch-image node shutdown m1, without --wait: its console says when it is off"#]]
        .assert_eq(&told.unwrap());
    }
}

#[test]
fn a_master_that_the_kubeconfig_leads_to_is_not_waited_for() {
    let mut master = node("b1", "True", "");
    master["metadata"]["labels"] = json!({"node-role.kubernetes.io/control-plane": ""});
    master["status"]["addresses"][0]["address"] = "127.0.0.1".into();
    let (api, _asked) = server(vec![(200, "", master.to_string())]);
    expect![[r#"
        error: n1 is the very master that the kubeconfig leads to, and cannot tell that it is off
        hint: a kubeconfig with another master's address, or the one that they share; or kscratch-image node shutdown n1, without --wait: its console says when it is off"#]]
    .assert_eq(&crate::console::error_lines(&outlived(&api, "n1").unwrap_err()).join("\n"));
}

#[test]
fn the_last_order_takes_back_the_others() {
    let others = |reboot: Value, shutdown: Value, reset: Value| {
        json!({
            "kscratch/requested-by": "me",
            "kscratch/reboot-requested": reboot,
            "kscratch/shutdown-requested": shutdown,
            "kscratch/reset-requested": reset,
        })
    };
    for (order, want) in [
        (Order::Reboot, others("b".into(), Value::Null, Value::Null)),
        (Order::Shutdown, others(Value::Null, "b".into(), Value::Null)),
        (Order::Reset { keep_identity: true }, others(Value::Null, Value::Null, "b keep-identity".into())),
        (Order::Reset { keep_identity: false }, others(Value::Null, Value::Null, "b".into())),
    ] {
        assert_eq!(annotations(order, "b", "me"), want);
    }
}

#[test]
fn logs_and_where_they_are() {
    for (file, want) in [
        ("kubelet", Some("kscratch/kubelet.log")),
        ("kubelet.log.1", Some("kscratch/kubelet.log.1")),
        ("kube-apiserver/audit.log", Some("kube-apiserver/audit.log")),
        ("../secret", None),
        ("a/../../b", None),
        ("/etc/passwd", None),
        ("a b", None),
        ("a%2e", None),
        ("", None),
    ] {
        let got = place("n1", file).ok();
        assert_eq!(got, want.map(|want| format!("/api/v1/nodes/n1/proxy/logs/{want}")), "{file}");
    }
    let page = "<!doctype html>\n<pre>\n<a href=\"dockerd.log\">dockerd.log</a>\n<a href=\"old/\">old/</a>\n<a href=\"kubelet.log\">kubelet.log</a>\n</pre>\n";
    assert_eq!(names(page), ["dockerd.log", "kubelet.log"]);
    for (lines, want) in
        [(None, "a\nb\nc\n"), (Some(2), "b\nc\n"), (Some(3), "a\nb\nc\n"), (Some(9), "a\nb\nc\n"), (Some(0), "")]
    {
        assert_eq!(last("a\nb\nc\n", lines), want, "{lines:?}");
    }
    assert_eq!((last("a\nb", Some(1)), last("", Some(3))), ("b", ""));
}

/// Answers requests in turn, and gives their first line, their range and their body.
fn server(answers: Vec<(u16, &'static str, String)>) -> (Api, Receiver<(String, String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = Api::in_clear(format!("http://{}", listener.local_addr().unwrap()));
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        for (status, header, body) in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream);
            let (mut first, mut range, mut length) = (String::new(), String::new(), 0);
            lines.read_line(&mut first).unwrap();
            let mut line = String::new();
            while lines.read_line(&mut line).unwrap() > 2 {
                let (name, value) = line.trim().split_once(": ").unwrap();
                match name.to_ascii_lowercase().as_str() {
                    "range" => range = value.to_owned(),
                    "content-length" => length = value.parse().unwrap(),
                    _ => {}
                }
                line.clear();
            }
            let mut content = vec![0; length];
            lines.read_exact(&mut content).unwrap();
            sender.send((first.trim().to_owned(), range, String::from_utf8(content).unwrap())).unwrap();
            let length = body.len();
            write!(
                &stream,
                "HTTP/1.1 {status} X\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .unwrap();
        }
    });
    (api, asked)
}

#[test]
fn an_order_is_an_annotation_for_this_boot() {
    let known = node("b1", "True", "").to_string();
    let (api, asked) = server(vec![(200, "", known), (200, "", "{}".to_owned())]);
    assert_eq!(give(&api, "n1", Order::Reboot, "kubernetes-admin", &Console::silent()).unwrap(), "b1");
    assert_eq!(asked.recv().unwrap().0, "GET /api/v1/nodes/n1 HTTP/1.1");
    let (line, _, body) = asked.recv().unwrap();
    assert_eq!(line, "PATCH /api/v1/nodes/n1 HTTP/1.1");
    let annotations = annotations(Order::Reboot, "b1", "kubernetes-admin");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, json!({"metadata": {"annotations": annotations}}));
}

#[test]
fn a_reset_says_what_it_keeps_and_is_not_for_masters() {
    let mut master = node("b1", "True", "");
    master["metadata"]["labels"] = json!({"node-role.kubernetes.io/control-plane": ""});
    let (api, asked) = server(vec![
        (200, "", node("b1", "True", "").to_string()),
        (200, "", "{}".to_owned()),
        (200, "", master.to_string()),
    ]);
    let console = Console::silent();
    give(&api, "n1", Order::Reset { keep_identity: true }, "x", &console).unwrap();
    let body = asked.iter().nth(1).unwrap().2;
    assert!(body.contains(r#""kscratch/reset-requested":"b1 keep-identity""#), "{body}");
    let error = give(&api, "n1", Order::Reset { keep_identity: false }, "x", &console).unwrap_err();
    assert!(format!("{error:#}").contains("n1 is a master: its state is its share of etcd's data"), "{error:#}");
}

#[test]
fn refusals_say_what_to_do() {
    let message = json!({"kind": "Status", "message": "nodes \"n1\" is forbidden", "code": 403}).to_string();
    let (api, _asked) = server(vec![
        (404, "", String::new()),
        (403, "", message),
        (200, "", node("", "True", "").to_string()),
        (404, "", String::new()),
    ]);
    let told = |error: anyhow::Error| crate::console::error_lines(&error).join("\n");
    let console = Console::silent();
    expect![[r#"
        error: the cluster has no node n1
        hint: kubectl get nodes"#]]
    .assert_eq(&told(object(&api, "n1").unwrap_err()));
    expect![[r#"
        error: asking for the node n1
          because: the server answers 403: nodes "n1" is forbidden"#]]
    .assert_eq(&told(give(&api, "n1", Order::Shutdown, "x", &console).unwrap_err()));
    expect![[r#"
        error: n1 has not told of its boot yet, for which an order would be
        hint: kscratch-image node status n1"#]]
    .assert_eq(&told(give(&api, "n1", Order::Shutdown, "x", &console).unwrap_err()));
    expect![[r#"
        error: n1 has no log kubele
        hint: kscratch-image node logs n1 lists them"#]]
    .assert_eq(&told(tail(&api, "n1", "kubele", None).unwrap_err()));
}

#[test]
fn the_end_of_a_log_is_fetched_and_no_more() {
    let long = "x".repeat(2 << 10);
    let (api, asked) = server(vec![
        (200, "", "<pre>\n<a href=\"kubelet.log\">kubelet.log</a>\n</pre>\n".to_owned()),
        (206, "Content-Range: bytes 5000-5014/5015\r\n", "rest\none\nthree\n".to_owned()),
        (200, "", "short\n".to_owned()),
        (416, "Content-Range: bytes */0\r\n", String::new()),
        (206, "Content-Range: bytes 34465-99999/100000\r\n", format!("{long}\ntwo\n")),
        (200, "", format!("zero\none{long}\ntwo\n")),
        (206, "Content-Range: bytes 1-8388608/90000000\r\n", format!("{long}\ntwo\n")),
    ]);
    assert_eq!(list(&api, "n1").unwrap(), ["kubelet.log"]);
    // What the range cut in two is no line.
    assert_eq!(tail(&api, "n1", "kubelet", Some(2)).unwrap(), ("one\nthree\n".to_owned(), 5015));
    assert_eq!(tail(&api, "n1", "kubelet", None).unwrap(), ("short\n".to_owned(), 6));
    assert_eq!(tail(&api, "n1", "kubelet", None).unwrap(), (String::new(), 0), "an empty log");
    // As many as there are to have, however long they are.
    let (text, length) = tail(&api, "n1", "kubelet", Some(2)).unwrap();
    assert_eq!((text, length), (format!("one{long}\ntwo\n"), 2 * 1024 + 13));
    assert_eq!(tail(&api, "n1", "kubelet", Some(1 << 40)).unwrap().0, "two\n");
    let asked: Vec<_> = asked.try_iter().map(|(line, range, _)| format!("{line} {range}")).collect();
    let log = "GET /api/v1/nodes/n1/proxy/logs/kscratch/kubelet.log HTTP/1.1";
    let ranges: Vec<_> = asked[1..].iter().map(|asked| asked.strip_prefix(log).unwrap()).collect();
    let want = [65536, 65536, 65536, 65536, 262_144, 8 << 20].map(|bytes| format!(" bytes=-{bytes}"));
    assert_eq!(ranges, want);
}

/// How a log goes on: each answer by its name, range and bytes, and what is given of it.
#[test]
fn a_log_is_followed_over_rotations() {
    const NEW: &str = "a line of the next file\n";
    let text: String = (0..200).map(|number| format!("line {number}\n")).collect();
    let range = |first, last, all| -> &'static str { format!("Content-Range: bytes {first}-{last}/{all}\r\n").leak() };
    let other = "a file of before, ".repeat(20);
    let (api, asked) = server(vec![
        (206, range(744, 1099, 1100), text[744..1100].to_owned()),
        (206, range(844, 1099, 1100), text[844..1100].to_owned()),
        // A file is put aside, and the next one is short.
        (416, "Content-Range: bytes */24\r\n", String::new()),
        (206, range(844, text.len() - 1, text.len()), text[844..].to_owned()),
        (206, range(0, 23, 24), NEW.to_owned()),
        // One that is empty is given whole, and the machine goes down in the middle of this.
        (200, "", String::new()),
        (503, "", "shutting down".to_owned()),
        (502, "", String::new()),
        (200, "", "-- boot x --\n".to_owned()),
        (206, range(0, 29, 30), format!("{NEW}more\n.")),
        // What was put aside is another one, or not to be had.
        (206, range(0, 3, 4), "abcd".to_owned()),
        (200, "", "ab".to_owned()),
        (206, range(0, 359, 360), other.clone()),
        (200, "", "efgh".to_owned()),
        (200, "", "ij".to_owned()),
        (404, "", String::new()),
        (200, "", "klmn".to_owned()),
        (401, "", "Unauthorized".to_owned()),
    ]);
    let warned = RefCell::new(Vec::new());
    let warn = |line: String| warned.borrow_mut().push(line);
    let mut log = Following::new(&api, "n1", "kubelet", 1000, &warn);
    let mut look = || log.look().map(|fresh| String::from_utf8(fresh).unwrap());
    let want = [&text[1000..1100], "", &text[1100..], NEW, "", "", "more\n.", "abcd", "", "efgh", "", "klmn"];
    for (number, want) in want.iter().enumerate() {
        assert_eq!(look().unwrap(), *want, "{number}");
    }
    assert!(format!("{:#}", look().unwrap_err()).contains("the server answers 401: Unauthorized"));
    expect![[r#"
        asking n1 for the log kubelet.log.1: the server answers 503: shutting down; it is asked again until it answers
        kubelet was begun anew, and lines before that may be missing here: the file that was put aside is another one
        kubelet was begun anew, and lines before that may be missing here: n1 has no log kubelet.log.1"#]]
    .assert_eq(&warned.borrow().join("\n"));
    let of = |line: &str| line.split(' ').nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
    let asked: Vec<_> = asked.try_iter().map(|(line, range, _)| format!("{} {range}", of(&line))).collect();
    assert_eq!(
        asked[..5],
        [
            "kubelet.log bytes=744-",
            "kubelet.log bytes=844-",
            "kubelet.log bytes=844-",
            "kubelet.log.1 bytes=844-",
            "kubelet.log bytes=0-"
        ]
    );
}
