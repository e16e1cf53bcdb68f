//! The board on which the parts of init leave what the console shows: whoever has news writes it and goes on; the console's thread reads.
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use kscratch_metadata::{Keys, Role, RoleMetadata, validity};

use super::keys::Allowed;
use super::status::{Known, Sample, Services};
use crate::run::inbox::{Message, Sender};

static BOARD: Mutex<Option<Board>> = Mutex::new(None);

/// What was left, and what wakes the thread.
#[derive(Debug, Clone, Default)]
pub struct Board {
    /// What the metadata say.
    pub known: Known,
    /// Services, as the event loop has them.
    pub services: Services,
    /// What was looked up last.
    pub sample: Sample,
    /// A service's last lines, as they were asked for: its name, and the lines.
    pub log: Option<(String, Vec<String>)>,
    /// Where the event loop takes messages, once there is one.
    pub sender: Option<Sender>,
    /// Rung when something changed.
    bell: Option<Arc<OwnedFd>>,
}

/// Changes what is on the board, and wakes whoever shows it.
pub fn change(change: impl FnOnce(&mut Board)) {
    let mut board = BOARD.lock().unwrap_or_else(PoisonError::into_inner);
    let board = board.get_or_insert_default();
    change(board);
    if let Some(bell) = &board.bell {
        // It fails only where it rings already.
        let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
    }
}

/// Says which bell is to be rung.
pub fn ring(bell: Arc<OwnedFd>) {
    change(|board| board.bell = Some(bell));
}

/// What is on the board. The lines of a log are taken off.
#[must_use]
pub fn read() -> Board {
    let mut board = BOARD.lock().unwrap_or_else(PoisonError::into_inner);
    let board = board.get_or_insert_default();
    Board { log: board.log.take(), ..board.clone() }
}

/// Whether the machine stops.
#[must_use]
pub fn is_stopping() -> bool {
    BOARD.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|board| board.services.stopping.is_some())
}

/// What keys may do now.
#[must_use]
pub fn allowed() -> Allowed {
    BOARD
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .map_or(Allowed::default(), |board| board.known.allowed)
}

/// Whether ctrl-alt-del ends the machine's run: it is a key as others are. Until the metadata are read it does.
#[must_use]
pub fn keys_end() -> bool {
    !matches!(allowed(), Allowed::Nothing | Allowed::Look)
}

/// Leaves what the metadata say, and where the event loop hears. Without metadata nobody has forbidden anything.
pub fn metadata(metadata: Option<&RoleMetadata>, sender: &Sender) {
    let known = known(metadata);
    change(|board| {
        board.known = known;
        board.sender = Some(sender.clone());
    });
}

fn known(metadata: Option<&RoleMetadata>) -> Known {
    let Some(metadata) = metadata else { return Known { allowed: Allowed::All, ..Known::default() } };
    let cluster = metadata.cluster.as_ref();
    Known {
        role: Some(match metadata.role {
            Role::Node => "node",
            Role::Master => "master",
        }),
        cluster: cluster
            .map(|cluster| (cluster.name.clone(), cluster.endpoint.as_ref().map(|endpoint| endpoint.to_string()))),
        ca_until: cluster.and_then(|cluster| validity(cluster.ca.as_deref()?)).map(|valid| valid.until),
        allowed: match metadata.console.keys {
            Keys::All => Allowed::All,
            Keys::Look => Allowed::Look,
            Keys::None => Allowed::Nothing,
        },
    }
}

/// Sends the event loop a message, if there is one that hears.
#[must_use]
pub fn send(board: &Board, message: Message) -> bool {
    board.sender.as_ref().map(|sender| sender.send(message)).is_some()
}

#[cfg(test)]
mod tests {
    use kscratch_metadata::parse;

    use super::known;
    use crate::console::keys::Allowed;

    #[test]
    fn metadata_say_who_it_is_and_what_keys_may() {
        assert_eq!(known(None).allowed, Allowed::All);
        let read = |console: &str| parse(&format!("version = 1\nrole = \"node\"\n{console}")).unwrap();
        for (console, want) in [
            ("", Allowed::All),
            ("[console]\nkeys = \"look\"\n", Allowed::Look),
            ("[console]\nkeys = \"none\"\n", Allowed::Nothing),
        ] {
            let known = known(Some(&read(console)));
            assert_eq!((known.role, known.cluster, known.allowed), (Some("node"), None, want));
        }
    }
}
