//! Turns what a client says, line by line and then call by call, into what logind and the bus in front of it would answer.
//!
//! `org.freedesktop.login1(5)`, and the D-Bus Specification's chapters "Authentication Protocol" and "Message Bus Messages".
use super::wire::Call;

/// Where logind's manager is.
pub const PATH: &str = "/org/freedesktop/login1";
/// What it is.
pub const INTERFACE: &str = "org.freedesktop.login1.Manager";
/// Says that the machine is about to stop.
pub const SIGNAL: &str = "PrepareForShutdown";
/// Who answers, where it is not the bus.
pub const NAME: &str = "org.freedesktop.login1";
/// The bus.
pub const BUS: &str = "org.freedesktop.DBus";
/// Every client's name: no client hears of another one.
pub const CLIENT: &str = ":1.1";

/// What is said to a line of the handshake. That the client is root is known from the kernel already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// A line.
    Say(&'static str),
    /// It is this client's turn; messages follow.
    Messages,
    /// It breaks the protocol.
    End,
}

/// Answers a line without its end. `known` says whether the client was told OK.
pub fn greet(line: &str, known: &mut bool) -> Greeting {
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["AUTH", "EXTERNAL", ..] => {
            *known = true;
            // The bus' own number, which nobody compares with anything.
            Greeting::Say("OK 6b736372617463680000000000000001")
        }
        ["AUTH", ..] => Greeting::Say("REJECTED EXTERNAL"),
        ["NEGOTIATE_UNIX_FD"] if *known => Greeting::Say("AGREE_UNIX_FD"),
        ["BEGIN"] if *known => Greeting::Messages,
        ["BEGIN"] => Greeting::End,
        _ => Greeting::Say("ERROR"),
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The client is told its name.
    Name,
    /// It hears signals from now on.
    Listens,
    /// It is told how long it may hold up the machine's end.
    Delay,
    /// It gets a lock: the machine's end waits until it lets it go.
    Lock,
    /// It is done, whatever it was.
    Done,
    /// There is no such lock here.
    NoSuchLock,
    /// There is no such method here.
    Unknown,
}

/// Answers a call.
pub fn answer(call: &Call) -> Answer {
    let words: Vec<&str> = call.words.iter().map(String::as_str).collect();
    match (call.interface.as_str(), call.member.as_str()) {
        (BUS, "Hello") => Answer::Name,
        (BUS, "AddMatch") => Answer::Listens,
        (BUS, "RemoveMatch") | ("org.freedesktop.DBus.Peer", "Ping") => Answer::Done,
        ("org.freedesktop.DBus.Properties", "Get") if words[..] == [INTERFACE, "InhibitDelayMaxUSec"] => Answer::Delay,
        (INTERFACE, "Inhibit") => match words[..] {
            [what, _, _, "delay"] if what.split(':').any(|one| one == "shutdown") => Answer::Lock,
            _ => Answer::NoSuchLock,
        },
        _ => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Greeting, INTERFACE, answer, greet};
    use crate::inhibitor::wire::Call;

    #[test]
    fn nobody_begins_who_was_not_let_in() {
        let mut known = false;
        for (line, want) in [
            ("BEGIN", Greeting::End),
            ("NEGOTIATE_UNIX_FD", Greeting::Say("ERROR")),
            ("AUTH", Greeting::Say("REJECTED EXTERNAL")),
            ("AUTH ANONYMOUS 00", Greeting::Say("REJECTED EXTERNAL")),
            ("AUTH EXTERNAL 30", Greeting::Say("OK 6b736372617463680000000000000001")),
            ("NEGOTIATE_UNIX_FD", Greeting::Say("AGREE_UNIX_FD")),
            ("", Greeting::Say("ERROR")),
            ("BEGIN", Greeting::Messages),
        ] {
            assert_eq!(greet(line, &mut known), want, "{line:?}");
        }
    }

    #[test]
    fn calls_and_what_becomes_of_them() {
        const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
        for (interface, member, words, want) in [
            ("org.freedesktop.DBus", "Hello", &[] as &[&str], Answer::Name),
            ("org.freedesktop.DBus", "AddMatch", &["type='signal'"], Answer::Listens),
            ("org.freedesktop.DBus", "RemoveMatch", &["type='signal'"], Answer::Done),
            ("org.freedesktop.DBus", "RequestName", &["a.b"], Answer::Unknown),
            (PROPERTIES, "Get", &[INTERFACE, "InhibitDelayMaxUSec"], Answer::Delay),
            (PROPERTIES, "Get", &[INTERFACE, "IdleHint"], Answer::Unknown),
            (PROPERTIES, "Get", &[], Answer::Unknown),
            (INTERFACE, "Inhibit", &["shutdown", "kubelet", "why", "delay"], Answer::Lock),
            (INTERFACE, "Inhibit", &["sleep:shutdown", "x", "y", "delay"], Answer::Lock),
            (INTERFACE, "Inhibit", &["sleep", "x", "y", "delay"], Answer::NoSuchLock),
            (INTERFACE, "Inhibit", &["shutdown", "x", "y", "block"], Answer::NoSuchLock),
            (INTERFACE, "Inhibit", &["shutdown"], Answer::NoSuchLock),
            (INTERFACE, "PowerOff", &[], Answer::Unknown),
            ("", "Inhibit", &["shutdown", "x", "y", "delay"], Answer::Unknown),
        ] {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            let call = Call { interface: interface.into(), member: member.into(), words, ..Call::default() };
            assert_eq!(answer(&call), want, "{call:?}");
        }
    }
}
