//! Turns what an API server does wrong into what `agent routes` says and does: a small server that speaks HTTP over TLS stands in for it.
//!
//! Each test runs itself again below `unshare --net`, which needs root. Needs iproute2 and util-linux.
mod agentprocess;
mod apiserver;
mod namespace;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use agentprocess::Agent;
use apiserver::{Stream, status};
use kscratch_pki::{Authority, OffsetDateTime, Pair, Wanted};
use namespace::run;

/// What the server does with the next request.
enum Answer {
    /// Answers with a status and a JSON text.
    Whole(u16, String),
    /// Sends these events of a watch, then goes on with what comes.
    Events(Vec<String>),
    /// Lets go of the connection.
    Drop,
}

/// A request line, and where its answers go.
struct Asked {
    line: String,
    answers: Sender<Answer>,
}

/// The server's side.
struct Server {
    port: u16,
    requests: Receiver<Asked>,
}

impl Server {
    fn start(authority: &Authority) -> Self {
        let (request, requests) = channel();
        let port = apiserver::listen(authority, Ipv4Addr::LOCALHOST, move |stream| serve(stream, &request));
        Self { port, requests }
    }

    /// Waits for a list or a watch, and answers it. More answers may follow.
    #[track_caller]
    fn answer(&self, watch: bool, answer: Answer) -> Sender<Answer> {
        let asked = self.requests.recv_timeout(Duration::from_secs(60)).expect("the agent asks nothing more");
        assert!(asked.line.starts_with("GET /api/v1/nodes?"), "{}", asked.line);
        assert_eq!(asked.line.contains("watch=true"), watch, "{}", asked.line);
        asked.answers.send(answer).unwrap();
        asked.answers
    }
}

fn serve(mut stream: Stream, requests: &Sender<Asked>) -> std::io::Result<()> {
    while let Some(request) = apiserver::request(&mut stream)? {
        assert!(request.body.is_empty(), "who asks for nodes has nothing to say: {}", request.line);
        let (answers, answer) = channel();
        let _ = requests.send(Asked { line: request.line, answers });
        // A test that says nothing more lets go.
        let next = || answer.recv().unwrap_or(Answer::Drop);
        match next() {
            Answer::Drop => return Ok(()),
            Answer::Whole(status, body) => apiserver::answer(&mut stream, status, &body)?,
            Answer::Events(events) => {
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
                )?;
                send(&mut stream, &events)?;
                while let Answer::Events(events) = next() {
                    send(&mut stream, &events)?;
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

fn send(stream: &mut Stream, events: &[String]) -> std::io::Result<()> {
    for event in events {
        write!(stream, "{:x}\r\n{event}\n\r\n", event.len() + 1)?;
    }
    stream.flush()
}

fn node(name: &str, address: &str, range: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Node","metadata":{{"name":"{name}","resourceVersion":"5","creationTimestamp":"2026-01-01T00:00:00Z"}},
        "spec":{{"podCIDR":"{range}","podCIDRs":["{range}"]}},
        "status":{{"addresses":[{{"type":"InternalIP","address":"{address}"}}],"images":[{{"names":["x"]}}]}}}}"#
    )
    .replace('\n', " ")
}

fn list(nodes: &[String]) -> Answer {
    let items = nodes.join(",");
    let text =
        format!(r#"{{"apiVersion":"v1","kind":"NodeList","metadata":{{"resourceVersion":"7"}},"items":[{items}]}}"#);
    Answer::Whole(200, text)
}

fn event(kind: &str, object: &str) -> String {
    format!(r#"{{"type":"{kind}","object":{object}}}"#)
}

/// The agent that keeps routes to what the server at a port says.
fn routes(folder: &Path, port: u16) -> Agent {
    let at = |name: &str| folder.join(name).display().to_string();
    let contract = format!(
        r#"{{"server":"https://127.0.0.1:{port}","authority":"{}","certificate":"{}","key":"{}","node":"n1","mode":"routed",
        "cluster_pod_range":"10.244.0.0/16","link":"eth0","address":"192.168.7.11","pod_range_file":"{}","state":"{}","mtu":1450}}"#,
        at("ca.crt"),
        at("client.crt"),
        at("client.key"),
        at("pod-range"),
        at("state/nodes.json"),
    );
    Agent::start(folder, "routes", &contract)
}

fn put_client(folder: &Path, pair: &Pair) {
    std::fs::write(folder.join("client.key"), &pair.key_pem).unwrap();
    std::fs::write(folder.join("client.crt"), &pair.certificate_pem).unwrap();
}

fn client(authority: &Authority) -> Pair {
    authority.issue(&Wanted::client("kscratch:routes", Some("kscratch:routes")), OffsetDateTime::now_utc()).unwrap()
}

/// Runs the test's body in a network namespace of its own, where eth0 is 192.168.7.11, with an authority and a client's certificate of it.
fn with_a_server(name: &str, body: fn(&Path, &Authority, &Server)) {
    namespace::of_its_own(name, || {
        let folder = tempfile::tempdir().unwrap();
        run("ip link add eth0 type veth peer name other");
        run("ip addr add 192.168.7.11/24 dev eth0");
        run("ip link set eth0 up");
        run("ip link set other up");
        let (authority, pair) = Authority::new_with_pair("kubernetes", OffsetDateTime::now_utc(), 1).unwrap();
        std::fs::write(folder.path().join("ca.crt"), pair.certificate_pem).unwrap();
        put_client(folder.path(), &client(&authority));
        body(folder.path(), &authority, &Server::start(&authority));
    });
}

#[test]
fn nodes_come_and_go() {
    with_a_server("nodes_come_and_go", |folder, _, server| {
        let agent = routes(folder, server.port);
        let own = node("n1", "192.168.7.11", "10.244.1.0/24");
        server.answer(false, list(&[own, node("n2", "192.168.7.12", "10.244.2.0/24")]));
        agent.says("setting the route to 10.244.2.0/24 through 192.168.7.12");
        agent.says("the range of this node is 10.244.1.0/24");
        assert_eq!(std::fs::read_to_string(folder.join("pod-range")).unwrap(), "10.244.1.0/24\n");
        let watch =
            server.answer(true, Answer::Events(vec![event("ADDED", &node("n3", "192.168.7.13", "10.244.3.0/24"))]));
        agent.says("setting the route to 10.244.3.0/24 through 192.168.7.13");
        // That is written down after the route is set.
        let end = Instant::now() + Duration::from_secs(30);
        let state = || std::fs::read_to_string(folder.join("state/nodes.json")).unwrap();
        while !state().contains("\"n3\"") {
            assert!(Instant::now() < end, "{}", state());
            std::thread::sleep(Duration::from_millis(20));
        }
        watch.send(Answer::Events(vec![event("DELETED", &node("n2", "192.168.7.12", "10.244.2.0/24"))])).unwrap();
        agent.says("removing the route to 10.244.2.0/24");
        watch.send(Answer::Events(vec!["{ this is no event".to_owned()])).unwrap();
        server.answer(false, list(&[node("n2", "192.168.7.22", "10.244.2.0/24")]));
        agent.says("setting the route to 10.244.2.0/24 through 192.168.7.22");
        agent.says("removing the route to 10.244.3.0/24");
    });
}

#[test]
fn a_watch_that_is_too_old_is_begun_anew_without_a_word() {
    with_a_server("a_watch_that_is_too_old_is_begun_anew_without_a_word", |folder, _, server| {
        let agent = routes(folder, server.port);
        server.answer(false, list(&[]));
        server.answer(true, Answer::Events(vec![event("ERROR", &status(410, "too old resource version"))]));
        server.answer(false, list(&[node("n2", "192.168.7.12", "10.244.2.0/24")]));
        agent.says("setting the route to 10.244.2.0/24");
        assert!(!agent.log().contains("failed"), "{}", agent.log());
    });
}

#[test]
fn a_server_that_goes_away_takes_no_route_with_it_and_is_told_once() {
    with_a_server("a_server_that_goes_away_takes_no_route_with_it_and_is_told_once", |folder, _, server| {
        let agent = routes(folder, server.port);
        server.answer(false, list(&[node("n2", "192.168.7.12", "10.244.2.0/24")]));
        agent.says("setting the route to 10.244.2.0/24");
        server.answer(true, Answer::Drop);
        for _ in 0..3 {
            server.answer(false, Answer::Drop);
        }
        server.answer(false, Answer::Whole(503, status(503, "the server is starting")));
        assert_eq!(agent.log().matches("watching the nodes of").count(), 1, "{}", agent.log());
        server.answer(false, list(&[node("n2", "192.168.7.12", "10.244.2.0/24")]));
        agent.says("goes on after");
        assert!(!agent.log().contains("removing"), "{}", agent.log());
    });
}

#[test]
fn a_certificate_that_is_renewed_on_the_disk_is_used() {
    with_a_server("a_certificate_that_is_renewed_on_the_disk_is_used", |folder, authority, server| {
        // One that this server does not take: another authority's.
        let (stranger, _) = Authority::new_with_pair("stranger", OffsetDateTime::now_utc(), 1).unwrap();
        put_client(folder, &client(&stranger));
        let agent = routes(folder, server.port);
        agent.says("failed: listing failed: ");
        put_client(folder, &client(authority));
        server.answer(false, Answer::Whole(401, status(401, "Unauthorized")));
        server.answer(false, list(&[node("n2", "192.168.7.12", "10.244.2.0/24")]));
        agent.says("goes on after");
        agent.says("setting the route to 10.244.2.0/24");
        let _watch = server.answer(true, Answer::Events(Vec::new()));
        // While a watch is held, too.
        put_client(folder, &client(authority));
        server.answer(false, list(&[]));
        agent.says("removing the route to 10.244.2.0/24");
    });
}
