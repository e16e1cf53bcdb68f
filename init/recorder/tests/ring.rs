//! Writes boots into rings of all sizes, cuts and damages them at every byte, and holds what is read against what was written.
use std::time::Duration;

use kscratch_recorder::{BLOCK, Begin, Block, Boot, BootId, Entry, Ring, What};
use proptest::prelude::*;

fn id(number: u8) -> BootId {
    BootId([number; 16])
}

fn entry(seconds: u64, what: What) -> Entry {
    Entry { at: Duration::from_secs(seconds), what }
}

fn begin(clock: i64) -> Entry {
    entry(1, What::Begin(Begin { clock, kscratch: "0.1.0".into(), kernel: "6.12.1".into() }))
}

fn said(seconds: u64, text: &str) -> Entry {
    entry(seconds, What::Said(text.into()))
}

/// Adds a boot, with each entry flushed where `each` says so.
fn write(partition: &mut [u8], boot: BootId, entries: &[Entry], each: impl Fn(usize) -> bool) {
    let mut writer = Ring::read(partition).writer(boot).unwrap();
    for (number, entry) in entries.iter().enumerate() {
        let flushed = |writer: &mut kscratch_recorder::Writer| each(number).then(|| writer.flush()).flatten();
        for (place, block) in [writer.push(entry), flushed(&mut writer)].into_iter().flatten() {
            partition[place as usize..][..BLOCK].copy_from_slice(&block[..]);
        }
    }
    if let Some((place, block)) = writer.flush() {
        partition[place as usize..][..BLOCK].copy_from_slice(&block[..]);
    }
}

fn boots(partition: &[u8]) -> Vec<Boot> {
    Ring::read(partition).boots
}

#[test]
fn every_kind_of_entry_comes_back() {
    let entries = [
        begin(1_795_000_000),
        said(2, "phase 01 mounts: start"),
        entry(3, What::Kernel(3, "ata1: failed".into())),
        entry(3, What::Kernel(7, "\u{1f980}".into())),
        entry(4, What::Left("Kernel panic".into())),
        entry(4, What::Reset("watchdog".into())),
        entry(600, What::Alive),
        entry(601, What::End("power off".into())),
    ];
    let mut partition = vec![0; 4 * BLOCK];
    write(&mut partition, id(1), &entries, |number| number == 4);
    assert_eq!(boots(&partition), [Boot { id: id(1), entries: entries.to_vec(), cut: false, lost: 0, lost_after: 0 }]);
}

#[test]
fn a_long_text_is_cut_at_a_character_and_a_later_kind_is_passed_over() {
    let mut partition = vec![0; 2 * BLOCK];
    write(&mut partition, id(1), &[begin(0), said(2, &"ä".repeat(5000)), said(3, "after")], |_| false);
    let read = boots(&partition).remove(0).entries;
    assert_eq!(read[1], said(2, &"ä".repeat(500)));
    assert_eq!(read[2], said(3, "after"));
    // The kind of the second entry, behind the head and the first one.
    let first = 11
        + serde_json::to_string(&Begin { clock: 0, kscratch: "0.1.0".into(), kernel: "6.12.1".into() }).unwrap().len();
    partition[40 + first] = 200;
    partition[36..40].fill(0);
    let sum = crc32fast::hash(&partition[..BLOCK]);
    partition[36..40].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(boots(&partition).remove(0).entries, [begin(0), said(3, "after")]);
}

#[test]
fn old_boots_go_when_the_ring_comes_round() {
    let mut partition = vec![0xA5; 5 * BLOCK + 17];
    for boot in 1..=7 {
        write(&mut partition, id(boot), &[begin(boot.into()), said(2, "one"), said(3, "two")], |number| number > 0);
        let all = boots(&partition);
        let last = all.last().unwrap();
        assert_eq!((last.id, last.cut, last.lost, last.entries.len()), (id(boot), false, 0, 3));
        assert!(all.iter().rev().skip(1).all(|boot| boot.lost == 0));
    }
    // Two blocks a boot, five in all: of the fifth boot there is half.
    let all = boots(&partition);
    assert_eq!(
        all.iter().map(|boot| (boot.id.0[0], boot.cut)).collect::<Vec<_>>(),
        [(5, true), (6, false), (7, false)]
    );
}

#[test]
fn nothing_is_where_nothing_was_written_and_a_partition_without_room_takes_nothing() {
    assert!(boots(&[]).is_empty() && boots(&[0; 100]).is_empty() && boots(&vec![0; 3 * BLOCK]).is_empty());
    assert!(Ring::read(&[0; BLOCK - 1]).writer(id(1)).is_none());
    // A block that stands in another place than its own is not believed.
    let mut partition = vec![0; 3 * BLOCK];
    write(&mut partition, id(1), &[begin(0)], |_| false);
    let (one, rest) = partition.split_at_mut(BLOCK);
    rest[..BLOCK].copy_from_slice(one);
    one.fill(0);
    assert!(boots(&partition).is_empty());
}

#[test]
fn a_boot_whose_last_block_is_damaged_is_said_to_have_lost_its_end() {
    let mut partition = vec![0; 8 * BLOCK];
    write(&mut partition, id(1), &[begin(1), said(2, "on"), entry(3, What::End("power off".into()))], |_| true);
    write(&mut partition, id(2), &[begin(2)], |_| true);
    assert_eq!(boots(&partition).iter().map(|boot| boot.lost_after).collect::<Vec<_>>(), [0, 0]);
    partition[2 * BLOCK + 50] ^= 1;
    let all = boots(&partition);
    assert_eq!(all.iter().map(|boot| (boot.entries.len(), boot.lost_after)).collect::<Vec<_>>(), [(2, 1), (1, 0)]);
    assert!(kscratch_recorder::story::tell(&all[0]).end_lost);
}

/// Three blocks of two boots, in a ring of four.
fn three_blocks() -> Vec<u8> {
    let mut partition = vec![0; 4 * BLOCK];
    write(&mut partition, id(1), &[begin(7), said(2, "phase 01 mounts: start")], |_| false);
    write(&mut partition, id(2), &[begin(8), said(2, "first"), said(3, "second")], |number| number == 1);
    partition
}

#[test]
fn a_cut_at_every_byte_of_a_block_loses_that_block_alone() {
    let whole = three_blocks();
    let before = boots(&whole);
    let mut after = whole.clone();
    write(&mut after, id(3), &[begin(9), said(2, "new")], |_| false);
    let block = 3 * BLOCK..4 * BLOCK;
    for end in 0..=BLOCK {
        // Whatever stood there before, zeros or a block of an earlier round.
        for mut partition in [whole.clone(), {
            let mut old = whole.clone();
            old.copy_within(0..BLOCK, 3 * BLOCK);
            old
        }] {
            partition[block.start..][..end].copy_from_slice(&after[block.start..][..end]);
            let read = boots(&partition);
            // Zeros fill the rest of a block: from the last entry's end on it is whole.
            match partition[block.clone()] == after[block.clone()] {
                true => assert_eq!(read.len(), 3),
                false => assert_eq!(read, before, "cut at {end}"),
            }
        }
    }
}

#[test]
fn a_partition_that_ends_at_any_byte_is_read_up_to_there() {
    let whole = three_blocks();
    for len in (0..whole.len()).step_by(97) {
        let read = boots(&whole[..len]);
        // A shorter ring has other places: what is believed is what was written.
        for boot in &read {
            for entry in &boot.entries {
                assert!(boots(&whole).iter().any(|all| all.id == boot.id && all.entries.contains(entry)));
            }
        }
    }
}

#[test]
fn one_wrong_byte_anywhere_loses_its_block_alone_and_makes_up_nothing() {
    let whole = three_blocks();
    let all = boots(&whole);
    for at in 0..3 * BLOCK {
        let mut partition = whole.clone();
        partition[at] ^= 0x41;
        let read: Vec<Entry> = boots(&partition).into_iter().flat_map(|boot| boot.entries).collect();
        let lost = Block::parse(&whole[at / BLOCK * BLOCK..][..BLOCK]).unwrap().entries;
        let left: Vec<Entry> =
            all.iter().flat_map(|boot| boot.entries.clone()).filter(|entry| !lost.contains(entry)).collect();
        assert_eq!(read, left, "byte {at}");
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(mut partition in prop::collection::vec(any::<u8>(), 0..3 * BLOCK), magic in 0usize..2 * BLOCK) {
        if let Some(place) = partition.get_mut(magic..magic + 8) {
            place.copy_from_slice(b"KSFLIGH\x01");
        }
        let _ = Ring::read(&partition);
    }

    #[test]
    fn what_is_written_is_read_whatever_is_flushed(
        texts in prop::collection::vec(".{0,300}", 1..60),
        flushed in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut entries = vec![begin(1)];
        entries.extend(texts.iter().zip(2..).map(|(text, at)| said(at, text)));
        let mut partition = vec![0; 64 * BLOCK];
        write(&mut partition, id(9), &entries, |number| flushed.get(number).is_some_and(|flushed| *flushed));
        // Texts of 300 characters may have more bytes than are kept of one.
        let kept = |entry: &Entry| match &entry.what {
            What::Said(text) => {
                let end = (0..=text.len().min(1000)).rev().find(|end| text.is_char_boundary(*end)).unwrap();
                said(entry.at.as_secs(), &text[..end])
            }
            _ => entry.clone(),
        };
        let want: Vec<Entry> = entries.iter().map(kept).collect();
        prop_assert_eq!(&boots(&partition)[0].entries, &want);
    }
}
