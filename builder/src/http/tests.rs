//! Downloads from a server that drops, stalls, lies and comes back.
use super::Http;
use super::testserver::{Fault, Server};
use crate::store::Digest;

fn bytes() -> Vec<u8> {
    (0..300_000_u32).flat_map(|number| number.to_le_bytes()).collect()
}

struct Case {
    server: Server,
    folder: tempfile::TempDir,
}

impl Case {
    fn new(faults: &[Fault]) -> Case {
        let server = Server::start();
        server.put("/file", bytes());
        server.fail(faults);
        Case { server, folder: tempfile::tempdir().unwrap() }
    }

    fn download(&self, size: u64, digest: &Digest) -> anyhow::Result<u64> {
        let mut told = 0;
        let part = self.folder.path().join("part");
        Http::new()?.download(&format!("{}/file", self.server.url), &part, size, digest, &mut |bytes| told += bytes)?;
        assert_eq!(Digest::of(&std::fs::read(&part)?), *digest);
        Ok(told)
    }
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let case = Case::new(&[Fault::BreakAfter(500_000), Fault::Busy, Fault::BreakAfter(200_000)]);
    assert_eq!(case.download(1_200_000, &Digest::of(&bytes())).unwrap(), 1_200_000);
    assert_eq!(case.server.requests(), ["/file all", "/file 500000", "/file 500000", "/file 700000"]);
}

#[test]
fn the_part_of_an_earlier_run_is_used() {
    let case = Case::new(&[]);
    std::fs::write(case.folder.path().join("part"), &bytes()[..1_000_000]).unwrap();
    case.download(1_200_000, &Digest::of(&bytes())).unwrap();
    assert_eq!(case.server.requests(), ["/file 1000000"]);
}

#[test]
fn a_part_of_another_file_costs_a_second_download() {
    let case = Case::new(&[]);
    std::fs::write(case.folder.path().join("part"), vec![7; 1_000_000]).unwrap();
    case.download(1_200_000, &Digest::of(&bytes())).unwrap();
    assert_eq!(case.server.requests(), ["/file 1000000", "/file all"]);
}

#[test]
fn a_server_without_ranges_is_no_obstacle() {
    let case = Case::new(&[Fault::BreakAfter(500_000), Fault::NoRanges]);
    case.download(1_200_000, &Digest::of(&bytes())).unwrap();
    assert_eq!(case.server.requests(), ["/file all", "/file 500000"]);
}

#[test]
fn wrong_digest_wrong_size_and_absence_are_told() {
    let case = Case::new(&[]);
    let text = |result: anyhow::Result<u64>| format!("{:#}", result.unwrap_err());
    let digest = Digest::of(&bytes());
    let wrong = text(case.download(1_200_000, &Digest::of(b"")));
    assert!(wrong.ends_with(&format!("its digest is {digest}, expected {}", Digest::of(b""))), "{wrong}");
    assert!(!case.folder.path().join("part").exists());
    let wrong = text(case.download(1_100_000, &digest));
    assert!(wrong.ends_with("the server's file has 1200000 bytes, expected 1100000"), "{wrong}");
    case.server.state.lock().unwrap().files.clear();
    assert!(text(case.download(1_200_000, &digest)).ends_with("the server answered with status 404"));
}

#[test]
fn small_things_are_bounded() {
    let case = Case::new(&[Fault::BreakAfter(10)]);
    let http = Http::new().unwrap();
    let url = format!("{}/file", case.server.url);
    assert_eq!(http.get(&url, 2_000_000).unwrap(), bytes());
    let error = format!("{:#}", http.get(&url, 1_000_000).unwrap_err());
    assert!(error.contains("it is longer than 1000000 bytes"), "{error}");
    assert_eq!(http.get_if_any(&format!("{}/none", case.server.url), 10).unwrap(), None);
    case.server.fail(&[Fault::Busy; 3]);
    let error = format!("{:#}", http.attempts(2).get(&url, 10).unwrap_err());
    assert!(error.ends_with("tried 2 times: the server answered with status 503"), "{error}");
}
