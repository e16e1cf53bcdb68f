//! Holds the reading of journals that were not emptied against e2fsck's replay: debugfs writes the transactions.
mod reference;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kscratch_formats::ext4::{FoundKind, Reader, Replayed};
use proptest::prelude::*;
use reference::{Disk, run};

/// `h_magic` of the log's blocks.
const MAGIC: [u8; 4] = [0xC0, 0x3B, 0x39, 0x98];
const ALL_SUMS: [&str; 4] = ["", "-c -v 1", "-c -v 2", "-c -v 3"];

/// A filesystem in a file, and what shall be in its journal.
struct Journaled {
    folder: tempfile::TempDir,
    disk: PathBuf,
    block: usize,
    /// Requests to debugfs.
    requests: Vec<String>,
}

#[allow(clippy::disallowed_methods)]
fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
}

#[allow(clippy::disallowed_methods)]
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[allow(clippy::disallowed_methods)]
fn save(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

/// Has debugfs do these requests; it ends well whatever they come to, so none may have printed a complaint.
fn debugfs(disk: &Path, requests: &[String]) -> String {
    let list = tempfile::NamedTempFile::new().unwrap();
    save(list.path(), (requests.join("\n") + "\n").as_bytes());
    run("debugfs", "e2fsprogs", &["-w", "-f", list.path().to_str().unwrap(), disk.to_str().unwrap()])
}

type Content = BTreeMap<String, (FoundKind, u16, Vec<u8>)>;

fn tree(disk: &Path) -> (Content, Replayed) {
    let reader = Reader::open(Disk::open(disk)).unwrap();
    let one = |found| (reader.read(&found, 1 << 24).unwrap(), found);
    let all = reader.walk().unwrap().into_iter().filter(|(_, found)| found.kind != FoundKind::Other);
    let all = all
        .map(|(path, found)| (path, one(found)))
        .map(|(path, (bytes, found))| (path, (found.kind, found.mode, bytes)));
    (all.collect(), reader.replayed())
}

fn refusal(disk: &Path) -> String {
    Reader::open(Disk::open(disk)).map(|_| ()).unwrap_err().to_string()
}

/// What e2fsck makes of a copy. It exits with 1 where it had to put right more than the journal, which it must not.
fn replayed_by_e2fsck(disk: &Path) -> Content {
    let copied = tempfile::NamedTempFile::new().unwrap();
    copy(disk, copied.path());
    let said = run("e2fsck", "e2fsprogs", &["-fy", copied.path().to_str().unwrap()]);
    assert!(said.contains("recovering journal"), "{said}");
    let (content, replayed) = tree(copied.path());
    assert_eq!(replayed, Replayed::default());
    content
}

impl Journaled {
    /// Makes one of 16 MiB with a journal of 1024 blocks; `sums` are options of debugfs's `journal_open`.
    fn new(block: usize, features: &str, sums: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        let (size, journal) = (block.to_string(), format!("size={}", (1024 * block) >> 20));
        let of = ["-q", "-F", "-t", "ext4", "-b", &size, "-O", features, "-J", &journal, disk.to_str().unwrap(), "16M"];
        run("mke2fs", "e2fsprogs", &of);
        let mut new = Journaled { folder, disk, block, requests: vec![format!("jo {sums}")] };
        let before = new.folder.path().join("before");
        save(&before, b"it was there before");
        debugfs(&new.disk, &["mkdir /old".into(), format!("write {} /old/before", before.display())]);
        copy(&new.disk, &new.state());
        new.block = block;
        new
    }

    /// The filesystem as it is after all transactions.
    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Changes the filesystem by debugfs's requests, through a transaction. Gives the blocks that it is of.
    fn transaction(&mut self, changes: &[String], committed: bool, revoked: &[u64]) -> Vec<u64> {
        let (before, after) = (read(&self.state()), self.folder.path().join("after"));
        copy(&self.state(), &after);
        debugfs(&after, changes);
        let (mut numbers, mut bytes) = (Vec::new(), Vec::new());
        for (number, (old, new)) in before.chunks(self.block).zip(read(&after).chunks(self.block)).enumerate() {
            if old != new {
                numbers.push(number as u64);
                bytes.extend_from_slice(new);
            }
        }
        if committed {
            copy(&after, &self.state());
        }
        self.write(&numbers, &bytes, committed, revoked);
        numbers
    }

    fn write(&mut self, numbers: &[u64], bytes: &[u8], committed: bool, revoked: &[u64]) {
        let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let file = self.folder.path().join(format!("blocks-{}", self.requests.len()));
        save(&file, bytes);
        let mut request = "jw".to_owned();
        for (option, numbers) in [("-b", numbers), ("-r", revoked)] {
            if !numbers.is_empty() {
                request += &format!(" {option} {}", list(numbers));
            }
        }
        let uncommitted = if committed { "" } else { " -c" };
        self.requests.push(format!("{request}{uncommitted} {}", file.display()));
    }

    /// A file with these bytes, as a change.
    fn file(&self, path: &str, bytes: &[u8]) -> String {
        let source = self.folder.path().join(path.replace('/', "-"));
        save(&source, bytes);
        format!("write {} {path}", source.display())
    }

    /// Writes the journal.
    fn finish(&self) -> &Path {
        let mut requests = self.requests.clone();
        requests.push("jc".into());
        let said = debugfs(&self.disk, &requests);
        assert!(!said.contains("journal_write:") && !said.contains("journal_open:"), "{said}");
        &self.disk
    }

    /// Our replay, e2fsck's and the state that was wanted are one.
    #[track_caller]
    fn check(&self, transactions: u64) {
        let (content, replayed) = tree(self.finish());
        assert_eq!(replayed.transactions, transactions);
        assert!(content == tree(&self.state()).0, "{:?}: {:?}", content.keys(), self.requests);
        assert!(content == replayed_by_e2fsck(&self.disk), "{:?}: {:?}", content.keys(), self.requests);
    }

    /// Where on the disk the blocks of the journal's file are, in blocks.
    fn log(&self) -> Vec<u64> {
        let said = run("debugfs", "e2fsprogs", &["-R", "blocks <8>", self.disk.to_str().unwrap()]);
        said.lines().next().unwrap().split_whitespace().map(|number| number.parse().unwrap()).collect()
    }
}

/// Changes bytes of the disk.
fn patch(disk: &Path, at: u64, bytes: &[u8]) {
    #[allow(clippy::disallowed_types, clippy::disallowed_methods)]
    let file = std::fs::File::options().write(true).open(disk).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// Three transactions, the last one unfinished.
fn three(block: usize, features: &str, sums: &str) -> Journaled {
    let mut made = Journaled::new(block, features, sums);
    // Data that begins as the log's own blocks do, to be escaped.
    let mut escaped = vec![7; 3 * block];
    escaped[..4].copy_from_slice(&MAGIC);
    escaped[block..block + 4].copy_from_slice(&MAGIC);
    made.transaction(&["mkdir /new".into(), made.file("/new/escaped", &escaped)], true, &[]);
    made.transaction(&["rm /old/before".into(), made.file("/old/after", &vec![9; 50_000])], true, &[]);
    made.transaction(&["rm /old/after".into(), "mkdir /never".into()], false, &[]);
    made
}

#[test]
fn what_is_only_in_the_journal_is_read() {
    for sums in ALL_SUMS {
        for (block, features) in [(4096, "metadata_csum,64bit"), (1024, "^metadata_csum,^64bit"), (4096, "^64bit")] {
            let made = three(block, features, sums);
            made.check(2);
            let names: Vec<String> = tree(&made.disk).0.into_keys().collect();
            assert_eq!(names, ["/lost+found", "/new", "/new/escaped", "/old", "/old/after"], "{sums} {features}");
        }
    }
}

#[test]
fn a_block_that_is_revoked_stays_as_it_is_until_it_is_written_again() {
    let all = [("", "^metadata_csum,^64bit"), ("-c -v 2", "64bit"), ("-c -v 3", "64bit")];
    for ((sums, features), again) in all.into_iter().flat_map(|one| [(one, false), (one, true)]) {
        let mut made = Journaled::new(4096, features, sums);
        let blocks = made.transaction(&[made.file("/file", &[1; 9000])], true, &[]);
        // The file's own blocks are the last ones. One is written again, in its place, and not through the journal.
        let data = *blocks.last().unwrap();
        made.transaction(&["mkdir /other".into()], true, &[data]);
        patch(&made.disk, data * 4096, &[3; 808]);
        let last = if again { 4 } else { 3 };
        let bytes = [[last; 808].as_slice(), &[0; 4096 - 808]].concat();
        patch(&made.state(), data * 4096, &bytes);
        if again {
            // Without this, debugfs writes the next transaction over the commit block of one with revokes and copies.
            made.requests.extend(["jc".into(), format!("jo {sums}")]);
            made.write(&[data], &bytes, true, &[]);
        }
        made.check(2 + u64::from(again));
        assert_eq!(tree(&made.disk).0["/file"].2[8191..8194], [1, last, last], "{sums}");
    }
}

/// Moves the log's blocks on by `by`, so that it goes over the journal's end, and lets the sequence numbers begin with `first`. Without
/// checksums, which all of this would change.
fn turn(made: &Journaled, by: usize, first: u32) {
    let (log, mut bytes) = (made.log(), read(&made.disk));
    let len = log.len() - 1;
    let place = |number: usize| log[number] as usize * 4096;
    let old: Vec<Vec<u8>> = (1..=len).map(|number| bytes[place(number)..][..4096].to_vec()).collect();
    for (index, mut block) in old.into_iter().enumerate() {
        if block[..4] == MAGIC {
            let sequence = u32::from_be_bytes(block[8..12].try_into().unwrap());
            block[8..12].copy_from_slice(&first.wrapping_add(sequence - 1).to_be_bytes());
        }
        bytes[place(1 + (index + by) % len)..][..4096].copy_from_slice(&block);
    }
    let superblock = place(0);
    bytes[superblock + 0x18..][..4].copy_from_slice(&first.to_be_bytes());
    bytes[superblock + 0x1C..][..4].copy_from_slice(&(1 + by as u32).to_be_bytes());
    save(&made.disk, &bytes);
}

#[test]
fn a_log_goes_on_with_its_first_block_and_numbers_with_zero() {
    let made = three(4096, "metadata_csum,64bit", "");
    made.finish();
    let (plain, want) = (read(&made.disk), tree(&made.state()).0);
    for by in (1..50).map(|back| 1023 - back) {
        save(&made.disk, &plain);
        turn(&made, by, u32::MAX);
        let (content, replayed) = tree(&made.disk);
        assert!(replayed.transactions == 2 && content == want, "turned by {by}: {replayed:?}");
        if by % 10 == 0 {
            assert!(replayed_by_e2fsck(&made.disk) == want, "turned by {by}");
        }
    }
}

#[test]
fn damage_is_told_from_an_end() {
    let made = three(4096, "metadata_csum,64bit", "-c -v 3");
    let log = made.log();
    let plain = read(made.finish());
    let said = run("debugfs", "e2fsprogs", &["-R", "logdump -a", made.disk.to_str().unwrap()]);
    let number = |line: &str| line.trim_end_matches(':').rsplit(' ').next().unwrap().parse::<usize>().unwrap();
    let commits: Vec<usize> = said.lines().filter(|line| line.contains("(commit block)")).map(number).collect();
    assert_eq!(commits.len(), 2, "{said}");
    let spoilt = |number: usize, at: u64| {
        save(&made.disk, &plain);
        let at = log[number] * 4096 + at;
        patch(&made.disk, at, &[!plain[at as usize]]);
        made.disk.as_path()
    };
    // `h_chksum` and `h_commit_sec` of a commit block. Its time is the clock's: which way one bit of it goes would be up to the hour.
    let (sum, time) = (16, 48);
    let wrong = |number: u32| format!("the checksum of transaction {number} in its journal is wrong");
    assert!(refusal(spoilt(commits[0], sum)).ends_with(&wrong(1)));
    // Of the last one a power cut may have left a part, but not where the next transaction begins behind it.
    assert!(refusal(spoilt(commits[1], sum)).ends_with(&wrong(2)));
    spoilt(commits[1], sum);
    patch(&made.disk, log[commits[1] + 1] * 4096, &[0; 4]);
    assert_eq!(tree(&made.disk).1.transactions, 1);
    // One that is older than the one before it is of an earlier filesystem.
    save(&made.disk, &plain);
    patch(&made.disk, log[commits[1]] * 4096 + time, &[0; 8]);
    assert_eq!(tree(&made.disk).1.transactions, 1);
    // Of a commit block all but the first sector may be old.
    assert_eq!(tree(spoilt(commits[1], 3000)).1.transactions, 2);
    assert!(refusal(spoilt(1, 100)).ends_with(&wrong(1)));
    assert!(refusal(spoilt(2, 100)).contains("the checksum of block "), "{}", refusal(&made.disk));
    assert!(refusal(spoilt(0, 0x1B)).ends_with("the checksum of its journal's superblock is wrong"));
    assert!(refusal(spoilt(0, 0)).ends_with("its journal has no superblock"));
    // The unfinished transaction is not looked at.
    assert_eq!(tree(spoilt(commits[1] + 1, 100)).1.transactions, 2);
    save(&made.disk, &plain);
    patch(&made.disk, log[0] * 4096 + 0x2B, &[0x32]);
    assert!(refusal(&made.disk).contains("fast commits, which are not read here"));
}

#[test]
fn a_filesystem_of_ours_is_replayed_too() {
    use kscratch_formats::ext4::{Options, plan};
    let mut made = Journaled::new(4096, "64bit", "-c -v 3");
    let options = Options {
        size: 16 << 20,
        label: "kscratch-state".to_owned(),
        uuid: *b"0123456789abcdef",
        hash_seed: *b"fedcba9876543210",
        inodes: None,
        journal_blocks: Some(1024),
        time: 1_750_000_000,
        grow_to: Some(1 << 40),
    };
    reference::write(&plan::<u64>([], &options).unwrap(), &made.disk, |_| Vec::new());
    copy(&made.disk, &made.state());
    for index in 0..8 {
        let file = made.file(&format!("/{index}/file"), &vec![index; 5000 * usize::from(index)]);
        made.transaction(&[format!("mkdir /{index}"), file], true, &[]);
    }
    made.check(8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_history_is_read_as_e2fsck_replays_it(
        steps in prop::collection::vec((0u8..8, 0u8..4, 0usize..30_000), 1..10), sums in 0..ALL_SUMS.len(), small in any::<bool>(),
    ) {
        let mut made = Journaled::new(if small { 1024 } else { 4096 }, "64bit", ALL_SUMS[sums]);
        let (mut there, mut transactions) = (BTreeMap::new(), 0);
        for (name, kind, len) in steps {
            let path = format!("/old/{name}");
            let change = match (there.contains_key(&name), kind) {
                (true, _) => { there.remove(&name); format!("rm {path}") }
                (false, 0) => { there.insert(name, ()); format!("symlink {path} {}", "t".repeat(1 + len % 200)) }
                (false, _) => { there.insert(name, ()); made.file(&path, &vec![kind; len]) }
            };
            made.transaction(&[change], true, &[]);
            transactions += 1;
        }
        made.check(transactions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_damaged_journal_never_panics(
        changes in prop::collection::vec((0usize..40, 0usize..1024, any::<u8>(), 1usize..9), 0..20),
        anywhere in prop::collection::vec((2048usize..(16 << 20), any::<u8>()), 0..4), sums in 0..2usize,
        cut in prop::option::of(0usize..(16 << 20)),
    ) {
        static IMAGES: std::sync::OnceLock<[(Vec<u8>, Vec<u64>); 2]> = std::sync::OnceLock::new();
        let images = IMAGES.get_or_init(|| [("", "^metadata_csum"), ("-c -v 3", "64bit")].map(|(sums, features)| {
            let made = three(1024, features, sums);
            (read(made.finish()), made.log())
        }));
        let (mut bytes, log) = images[sums].clone();
        for (number, at, byte, count) in changes {
            let at = log[number] as usize * 1024 + at;
            bytes[at..at + count].fill(byte);
        }
        for (at, byte) in anywhere {
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX).max(4096));
        if let Ok(reader) = Reader::open(bytes.as_slice()) {
            for found in reader.walk().unwrap_or_default().values() {
                let _ = reader.read(found, 1 << 20);
            }
        }
    }
}
