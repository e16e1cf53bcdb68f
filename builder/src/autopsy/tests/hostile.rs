//! Nothing that a disk holds moves a terminal, or ends the telling.
use expect_test::expect;
use kscratch_recorder::{BLOCK, Begin, What};
use proptest::prelude::{any, prop, prop_assert, proptest};

use super::{CLOCK, check, end, ring, said, told};
use crate::autopsy::Which;
use crate::console::is_obeyed;

/// A boot in which everything that has a text has this one.
fn everywhere(text: &str) -> Vec<u8> {
    let versions = Begin { clock: CLOCK, kscratch: text.into(), kernel: text.into() };
    let entries = [
        (1, What::Begin(versions)),
        (2, What::Left(text.into())),
        (3, What::Reset(text.into())),
        (4, What::Kernel(0, text.into())),
        said(5, &format!("phase 01 {text}: start")),
        said(6, &format!("phase 02 {text}: start")),
        said(7, &format!("phase 02 {text}: failed: {text}")),
        said(8, &format!("service {text}: started pid 7")),
        said(9, &format!("service {text}: {text}")),
        said(10, text),
    ];
    ring(&[&entries, &[&entries[..], &[end(11, text)]].concat(), &entries])
}

#[test]
fn nothing_that_a_terminal_obeys_is_printed() {
    check(
        &everywhere("\x1b[2Jx\r\u{9b}1m\u{202e}y"),
        Which::Last,
        expect![[r#"
        boot 3  begun 2026-11-18 11:06:40 UTC  ran 0 s or more             without a word  3 troubles, last words of the kernel
        boot 2  begun 2026-11-18 11:06:40 UTC  ran 0 s                     ?[2Jx??1m?y     2 troubles, last words of the kernel

        boot 1 (the last): begun 2026-11-18 11:06:40 UTC by its clock
          version    kscratch ?[2Jx??1m?y, Linux ?[2Jx??1m?y
          phases     0 ended well
                     [   0.005] 01 ?[2Jx??1m?y began and did not end
                     [   0.006] 02 ?[2Jx??1m?y failed: ?[2Jx??1m?y
          services   ?[2Jx??1m?y: started once, never told to be ready
                       [   0.009] ?[2Jx??1m?y
          kernel     [   0.004] ?[2Jx??1m?y
          end        ended without a word 0 s or more after its start: its power was cut, or it hung, or it runs still
                     the last that init said, at 0.010 s: ?[2Jx??1m?y
    "#]],
    );
    let json = told(&everywhere("\x1b[2J\u{9b}")).json(Which::One(1), false).unwrap();
    let boots: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(boots[0]["last_said"]["text"], "\x1b[2J\u{9b}");
}

proptest! {
    #[test]
    fn whatever_is_said_moves_no_terminal(text in any::<String>()) {
        let autopsy = told(&everywhere(&text));
        for which in [Which::Last, Which::All] {
            for told in [autopsy.text(which, true).unwrap(), autopsy.json(which, true).unwrap()] {
                prop_assert!(!told.contains(|char| is_obeyed(char) && char != '\n'), "{told:?}");
            }
        }
    }

    #[test]
    fn whatever_a_block_holds_is_told(content in prop::collection::vec(any::<u8>(), 1..400), kind in 0u8..30) {
        let mut block = vec![0; BLOCK];
        block[..8].copy_from_slice(b"KSFLIGH\x01");
        block[32..36].copy_from_slice(&(11 + content.len() as u32).to_le_bytes());
        block[40] = kind;
        block[41..49].fill(0xFF);
        block[49..51].copy_from_slice(&(content.len() as u16).to_le_bytes());
        block[51..51 + content.len()].copy_from_slice(&content);
        let sum = crc32(&block);
        block[36..40].copy_from_slice(&sum.to_le_bytes());
        let autopsy = told(&block);
        prop_assert!(!autopsy.boots.is_empty());
        let _ = (autopsy.text(Which::All, true).unwrap(), autopsy.json(Which::All, true).unwrap());
    }
}

/// CRC-32 as gzip has it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}
