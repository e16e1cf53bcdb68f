//! Turns what stands in logs into lines at real servers: TCP, UDP and TLS, those that go and come back, take nothing, or are somebody else.
//!
//! Needs root, for namespaces, other users and `/dev/kmsg`, and util-linux. Else the kernel's log is a socket that keeps records apart, as that device does.
mod collector;
mod namespace;

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use collector::{Machine, Tcp, Udp, boot, mark, mutual, tls};
use kscratch_pki::{Authority, OffsetDateTime, Pair, Wanted};
use namespace::run;

fn authority(name: &str) -> (Authority, String) {
    let (authority, pair) = Authority::new_with_pair(name, OffsetDateTime::now_utc(), 1).unwrap();
    (authority, pair.certificate_pem)
}

#[test]
fn lines_of_services_kernel_and_init_arrive_in_order() {
    let server = Tcp::listen(0);
    let machine = Machine::new(&[server.url()]);
    machine.kernel("6,0,1000000,-;Linux version 6.12\n");
    machine.write("kubelet", &format!("an older boot's\n{}one\ntwo\n", mark(&boot())));
    let agent = machine.start();
    machine.kernel("15,1,2000000,-;kscratch: phase 01 mounts: start \\xe2\\x80\\xa6\n");
    let first = server.accept();
    let (kernel, mut services): (Vec<_>, Vec<_>) =
        first.take(4).into_iter().partition(|line| line["source"] != "kubelet");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for line in kernel.iter().chain(&services) {
        assert_eq!((line["host"].as_str(), line["boot"].as_str()), (Some(host.as_str()), Some(boot().as_str())));
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
    assert_eq!(kernel[0]["message"], "Linux version 6.12");
    assert_eq!((&kernel[0]["severity"], &kernel[0]["source"]), (&"info".into(), &"kernel".into()));
    assert_eq!(kernel[1]["message"], "phase 01 mounts: start …");
    assert_eq!((kernel[1].get("severity"), &kernel[1]["source"]), (None, &"init".into()));
    // Rotated again and again, with lines that are cut by it.
    for number in 0..60 {
        machine.write("kubelet", &format!("line {number}\nline"));
        if number % 3 == 2 {
            machine.rotate("kubelet");
            machine.write("kubelet", &mark(&boot()));
        }
        machine.write("kubelet", &format!(" {number} again\n"));
        if number % 6 == 5 {
            services.extend(first.take(12));
        }
    }
    let said: Vec<&str> = services.iter().map(|line| line["message"].as_str().unwrap()).collect();
    let want: Vec<String> =
        (0..60).flat_map(|number| [format!("line {number}"), format!("line {number} again")]).collect();
    assert_eq!(said[..2], ["one", "two"]);
    assert_eq!(said[2..], want);
    agent.says(&format!("sending logs to {}", server.url()));
    assert!(machine.folder.path().join("ready").exists());
}

#[test]
fn a_server_that_goes_and_comes_back_gets_the_rest() {
    let server = Tcp::listen(0);
    let machine = Machine::new(&[server.url()]);
    let agent = machine.start();
    machine.write("a", &format!("{}one\n", mark(&boot())));
    let connection = server.accept();
    assert_eq!(connection.messages(1), ["one"]);
    drop(connection);
    let port = server.port;
    drop(server);
    agent.says("failed: the server has closed the connection");
    machine.write("a", "two\n");
    machine.kernel("4,0,1,-;three\n");
    std::thread::sleep(Duration::from_secs(2));
    let server = Tcp::listen(port);
    let connection = server.accept();
    let mut messages = connection.messages(2);
    messages.sort();
    assert_eq!(messages, ["three", "two"]);
    agent.says("goes on after");
    assert_eq!(agent.log().lines().count(), 3, "{}", agent.log());
}

#[test]
fn nobody_waits_for_a_server_that_takes_nothing() {
    let (deaf, well) = (Tcp::listen(0), Tcp::listen(0));
    let machine = Machine::new(&[deaf.url(), well.url()]);
    machine.write("a", &mark(&boot()));
    let _agent = machine.start();
    let (silent, connection) = (deaf.accept(), well.accept());
    // More than sockets and the queue hold, in lines of a kilobyte.
    let pad = "x".repeat(1000);
    let (mut written, mut got) = (0, 0);
    for _ in 0..12 {
        let lines: String = (written..written + 2000).map(|number| format!("{number} {pad}\n")).collect();
        machine.write("a", &lines);
        written += 2000;
        for line in connection.take(2000) {
            let message = line["message"].as_str().unwrap().to_owned();
            assert!(message.starts_with(&format!("{got} x")), "{got}: {message}");
            got += 1;
        }
        machine.turn("a");
    }
    let memory: u64 = machine.status("RssAnon").trim_end_matches(" kB").parse().unwrap();
    assert!(memory < 8 << 10, "{memory} kB");
    // It hears again, and is told how many it has missed.
    let mut next = 0;
    let told = loop {
        let line = silent.take(1).remove(0);
        let message = line["message"].as_str().unwrap();
        if line["source"] == "logs" {
            break message.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
        assert!(message.starts_with(&format!("{next} x")), "{next}: {message}");
        next += 1;
    };
    assert_eq!(next + told, written, "{next} came and {told} are left out");
    machine.write("a", "after\n");
    assert_eq!(silent.messages(1), ["after"]);
}

#[test]
fn what_was_sent_is_not_sent_again() {
    let server = Tcp::listen(0);
    let machine = Machine::new(&[server.url()]);
    machine.write("a", &format!("{}one\n", mark(&boot())));
    machine.kernel("6,2,1,-;first\n");
    let agent = machine.start();
    let connection = server.accept();
    let mut messages = connection.messages(3);
    messages.sort();
    // Records were overwritten before anybody read.
    let gap = "2 lines of the kernel's log are missing here: they were gone before they were sent";
    assert_eq!(messages, [gap, "first", "one"]);
    agent.ends();
    machine.write("a", "two\nhalf");
    machine.rotate("a");
    machine.write("a", &format!("{} a line\n", mark(&boot())));
    // The kernel's log begins anew for who opens it.
    machine.kernel("6,2,1,-;first\n");
    machine.kernel("6,6,1,-;fifth\n");
    let agent = machine.start();
    let connection = server.accept();
    let mut messages = connection.messages(4);
    messages.sort();
    let gap = "3 lines of the kernel's log are missing here: they were gone before they were sent";
    assert_eq!(messages, [gap, "fifth", "half a line", "two"]);
    // As after a power cut: nothing is lost, something may come twice.
    drop(agent);
    machine.write("a", "three\n");
    let _agent = machine.start();
    let connection = server.accept();
    while connection.messages(1) != ["three"] {}
    machine.write("a", "four\n");
    assert_eq!(connection.messages(1), ["four"]);
}

/// The end comes while there is more to send than a queue holds, and than is sent in the time that is left.
#[test]
fn what_is_not_sent_at_the_end_is_sent_after_the_next_start() {
    const LINES: usize = 60_000;
    let server = Tcp::listen(0);
    let machine = Machine::new(&[server.url()]);
    machine.write("a", &mark(&boot()));
    let agent = machine.start();
    let connection = server.accept();
    machine.write("a", "first\n");
    assert_eq!(connection.messages(1), ["first"]);
    let pad = "x".repeat(1000);
    machine.write("a", &(0..LINES).map(|number| format!("{number} {pad}\n")).collect::<String>());
    let number = |message: &str| message.split(' ').next().unwrap().parse::<usize>().expect(message);
    let sent = std::thread::scope(|scope| {
        let rest = scope.spawn(move || connection.rest());
        agent.ends();
        rest.join().unwrap()
    });
    let sent: Vec<usize> = sent.iter().map(|message| number(message)).collect();
    assert_eq!(sent, (0..sent.len()).collect::<Vec<_>>());
    assert!(!sent.is_empty(), "it has sent nothing at its end");
    let _agent = machine.start();
    let connection = server.accept();
    // What was on its way may come twice.
    let mut next = sent.len();
    while next < LINES {
        let got = number(&connection.messages(1)[0]);
        assert!(got <= next, "{next} is missing");
        next = next.max(got + 1);
    }
}

#[test]
fn datagrams_are_lines() {
    let server = Udp::listen(0);
    let machine = Machine::new(&[server.url()]);
    machine.write("a", &format!("{}one\n{}\n", mark(&boot()), "é\u{1}".repeat(5000)));
    let agent = machine.start();
    assert_eq!(server.next()["message"], "one");
    let long = server.next()["message"].as_str().unwrap().to_owned();
    assert!(long.len() <= 4096 && long.starts_with("é\u{1}é") && long.ends_with('…'), "{}", long.len());
    let port = server.port;
    drop(server);
    // The first one is refused, which the second one hears of.
    machine.write("a", "two\n");
    std::thread::sleep(Duration::from_secs(1));
    machine.write("a", "three\n");
    agent.says("failed: Connection refused");
    let server = Udp::listen(port);
    machine.write("a", "four\n");
    while server.next()["message"] != "four" {}
    agent.says("goes on after");
}

#[test]
fn a_server_with_tls_proves_itself() {
    let ((own, own_pem), (_, other_pem)) = (authority("own"), authority("other"));
    let server = Tcp::listen(0);
    let machine = Machine::new(&[server.url().replace("tcp:", "tls:")]);
    machine.trust(&other_pem);
    machine.write("a", &format!("{}one\n", mark(&boot())));
    let agent = machine.start();
    // Somebody else, who has no certificate of an authority that is trusted.
    assert!(tls(&server, &own).is_none());
    agent.says("failed: its certificate is of no authority that it is trusted by (logs.ca of the metadata, else the public ones)");
    // What speaks no TLS at all.
    server.accept().answer(b"220 mail.example ready\r\n");
    machine.trust(&own_pem);
    let mut stream = tls(&server, &own).expect("it proves itself");
    assert_eq!(collector::line(&mut stream)["message"], "one");
    machine.write("a", "two\n");
    assert_eq!(collector::line(&mut stream)["message"], "two");
    agent.says("goes on after");
}

/// A client's certificate.
fn client(authority: &Authority) -> Pair {
    authority.issue(&Wanted::client("edge-1", None), OffsetDateTime::now_utc()).unwrap()
}

/// With TLS 1.3 a server refuses after the client's handshake is over: what was sent by then would be lost.
#[test]
fn a_machine_proves_itself_to_a_server_that_asks() {
    let ((servers, servers_pem), (clients, clients_pem)) = (authority("servers"), authority("clients"));
    let (own, stranger) = (client(&clients), client(&authority("other").0));
    let server = Tcp::listen(0);
    let machine = Machine::new(&[server.url().replace("tcp:", "tls:")]);
    machine.trust(&servers_pem);
    machine.write("a", &format!("{}one\n", mark(&boot())));
    let refused = |says: &str| {
        let agent = machine.start();
        // One that has ended may have left a connection behind.
        while !agent.log().contains(&format!("failed: {says}")) {
            assert!(mutual(&server, &servers, &clients_pem).is_none(), "it was taken:\n{}", agent.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        agent.ends();
    };
    refused("it wants a certificate of this machine (logs.certificate and logs.key of the metadata)");
    machine.prove(&stranger, &stranger);
    refused("it refuses this machine's certificate (logs.certificate of the metadata): UnknownCA");
    machine.prove(&own, &stranger);
    let agent = machine.start();
    agent.says("failed: logs.key of the metadata is not the key of logs.certificate: give both of one pair");
    agent.ends();

    machine.prove(&own, &own);
    let agent = machine.start();
    let mut stream = loop {
        if let Some(stream) = mutual(&server, &servers, &clients_pem) {
            break stream;
        }
    };
    assert_eq!(collector::line(&mut stream)["message"], "one");
    machine.write("a", "two\n");
    assert_eq!(collector::line(&mut stream)["message"], "two");
    drop(stream);
    agent.says("failed: ");
    // Nobody asks: nothing is shown, and nothing waited for.
    machine.write("a", "three\n");
    let mut stream = tls(&server, &servers).expect("it proves itself");
    assert_eq!(collector::line(&mut stream)["message"], "three");
    agent.says("goes on after");
}

/// Has the namespace another resolv.conf.
fn resolv_conf(text: &str) {
    let link = fs::read_link("/etc/resolv.conf").unwrap_or_default();
    let place = Path::new("/etc/resolv.conf").parent().unwrap().join(link);
    let place = if place.is_dir() { "/etc/resolv.conf".into() } else { place };
    if place.exists() {
        fs::write("/run/resolv.conf", text).unwrap();
        run(&format!("mount --bind /run/resolv.conf {}", place.display()));
    } else {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, text).unwrap();
    }
}

/// The one that answers is where resolv.conf says.
#[test]
fn names_are_looked_up_where_resolv_conf_says() {
    namespace::of_its_own("names_are_looked_up_where_resolv_conf_says", || {
        resolv_conf("nameserver 127.0.0.1\n");
        let server = Tcp::listen(0);
        let machine = Machine::new(&[server.url().replace("127.0.0.1", "collector.lab")]);
        machine.write("a", &format!("{}one\n", mark(&boot())));
        let agent = machine.start();
        agent.says(&format!("sending logs to tcp://collector.lab:{} failed: looking up collector.lab: ", server.port));
        collector::answer_names("127.0.0.1:53");
        assert_eq!(server.accept().messages(1), ["one"]);
    });
}

/// The C library asks it for half a minute, in a thread that nobody can end.
#[test]
fn a_name_server_that_is_silent_does_not_hold_up_the_end() {
    namespace::of_its_own("a_name_server_that_is_silent_does_not_hold_up_the_end", || {
        resolv_conf("nameserver 127.0.0.1\noptions timeout:15 attempts:2\n");
        let silent = UdpSocket::bind("127.0.0.1:53").unwrap();
        let machine = Machine::new(&["tcp://collector.lab:5170".to_owned()]);
        machine.write("a", &format!("{}one\n", mark(&boot())));
        let agent = machine.start();
        silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        silent.recv(&mut [0; 512]).unwrap();
        let told = Instant::now();
        agent.ends();
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    });
}

/// As PID 1 starts it: a user of its own, no capability, the kernel's log opened by root.
#[test]
fn it_needs_no_rights() {
    let server = Tcp::listen(0);
    let machine = Machine::new(&[server.url()]);
    machine.write("a", &format!("{}one\n", mark(&boot())));
    let agent = machine.start_confined(908);
    let connection = server.accept();
    let (mut service, mut kernel) = (false, false);
    while !service || !kernel {
        let line = connection.take(1).remove(0);
        match line["source"].as_str().unwrap() {
            "a" => service = true,
            "kernel" | "init" | "kmsg" => kernel = true,
            other => assert_eq!(other, "logs", "{line}"),
        }
    }
    assert_eq!(machine.status("Uid"), "908\t908\t908\t908");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(machine.status(set), "0000000000000000", "{set}");
    }
    agent.ends();
}
