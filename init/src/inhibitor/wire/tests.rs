//! Bytes that a real client sent (godbus 5.2, kubelet's), what is answered, and arbitrary bytes.
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{Body, Call, Reader, call, error, length, reply, signal};

/// A call as a client writes it.
pub fn written(serial: u32, interface: &str, member: &str, words: &[&str]) -> Vec<u8> {
    let mut fields = super::Writer::default();
    fields.field(1, "o", |writer| writer.text("/org/freedesktop/login1"));
    fields.field(2, "s", |writer| writer.text(interface));
    fields.field(3, "s", |writer| writer.text(member));
    fields.field(6, "s", |writer| writer.text("org.freedesktop.login1"));
    if !words.is_empty() {
        fields.field(8, "g", |writer| writer.signature(&"s".repeat(words.len())));
    }
    let mut content = super::Writer::default();
    words.iter().for_each(|word| content.text(word));
    let mut whole = super::Writer(vec![b'l', 1, 0, 1]);
    whole.number(content.0.len() as u32);
    whole.number(serial);
    whole.number(fields.0.len() as u32);
    whole.0.extend(fields.0);
    whole.align(8);
    whole.0.extend(content.0);
    whole.0
}

#[test]
fn a_call_is_read() {
    let message = written(7, "a.b", "Do", &["one", "", "three"]);
    assert_eq!(length(&message).unwrap(), Some(message.len()));
    assert_eq!(length(&message[..15]).unwrap(), None);
    let want = Call {
        serial: 7,
        answered: true,
        interface: "a.b".into(),
        member: "Do".into(),
        words: ["one", "", "three"].map(str::to_owned).into(),
    };
    assert_eq!(call(&message).unwrap(), Some(want));
}

/// `org.freedesktop.DBus.Hello`, byte by byte as godbus 5.2.2 sent it.
#[test]
fn a_real_clients_first_call_is_read() {
    let message = HELLO;
    assert_eq!(length(message).unwrap(), Some(message.len()));
    let call = call(message).unwrap().unwrap();
    assert_eq!((call.interface.as_str(), call.member.as_str()), ("org.freedesktop.DBus", "Hello"));
    assert!(call.answered && call.words.is_empty());
}

const HELLO: &[u8] = b"l\x01\0\x01\0\0\0\0\x01\0\0\0m\0\0\0\
    \x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0\
    \x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\
    \x03\x01s\0\x05\0\0\0Hello\0\0\0\
    \x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0";

#[test]
fn answers_are_laid_out_as_the_protocol_wants_them() {
    let to = Call { serial: 0x0102, ..Call::default() };
    let bytes = reply(3, &to, "me", Body::Property(30_000_000));
    let want = b"l\x02\0\x01\x10\0\0\0\x03\0\0\0\x1f\0\0\0\
        \x05\x01u\0\x02\x01\0\0\
        \x07\x01s\0\x02\0\0\0me\0\0\0\0\0\0\
        \x08\x01g\0\x01v\0\0\
        \x01t\0\0\0\0\0\0\x80\xc3\xc9\x01\0\0\0\0";
    assert_eq!(bytes, want);
    for (message, kind, body) in [
        (reply(1, &to, "me", Body::Empty), 2, 0),
        (reply(1, &to, "me", Body::Descriptor), 2, 4),
        (error(1, &to, "x.y", "no"), 3, 7),
        (signal(1, "/p", "i.f", "M", "me", Body::Truth(true)), 4, 4),
    ] {
        assert_eq!(length(&message).unwrap(), Some(message.len()), "{message:?}");
        assert_eq!((message[1], message[4]), (kind, body), "{message:?}");
        assert_eq!(call(&message).unwrap(), None, "it is no call");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = (length(&bytes), call(&bytes));
    }

    /// A message of which a byte is wrong is refused or another message; what it says of its length is bounded.
    #[test]
    fn a_damaged_call_never_panics(at in any::<proptest::sample::Index>(), with: u8) {
        let mut bytes = written(1, "org.freedesktop.login1.Manager", "Inhibit", &["shutdown", "kubelet", "why", "delay"]);
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = call(&bytes);
        if let Ok(Some(length)) = length(&bytes) {
            prop_assert!(length <= 200 << 10);
        }
    }

    #[test]
    fn strings_survive(words in proptest::collection::vec("\\PC{0,12}", 0..5)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let message = written(9, "a.b", "M", &words);
        prop_assert_eq!(call(&message).unwrap().unwrap().words, words);
    }
}

#[test]
fn a_reader_ends_at_the_end() {
    let mut reader = Reader { bytes: &[1, 2, 3], at: usize::MAX - 1 };
    assert!(reader.take(5).is_err() && reader.byte().is_err());
}
