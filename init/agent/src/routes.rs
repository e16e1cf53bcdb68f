//! Keeps the kernel's routes to other machines' pods as the cluster's Node objects say, from the last known ones on.
mod keeper;
mod kernel;
mod memory;
mod tables;
mod wanted;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};

use crate::connection::{Connection, WATCH_SECONDS};
use crate::contract;
use crate::node::Node;
use crate::outage::Outage;
use crate::say;
use keeper::Keeper;
use wanted::Peer;

pub use kernel::{Device, Kernel};
pub use tables::{Change, Hop, Mac, Tables, difference};

/// How often the kernel's tables are held against what they should be (a link that goes down takes its routes with it), and the certificate's files
/// against what they were.
const LOOK: Duration = Duration::from_secs(15);

/// How often it is looked whether the certificate's files are there now.
const FILES: Duration = Duration::from_secs(2);

/// Runs for ever.
///
/// # Errors
/// What was asked for cannot be done at all.
pub async fn run(wanted: contract::Routes) -> Result<()> {
    let mut connection = Connection::new(&wanted.server, &wanted.authority, &wanted.certificate, &wanted.key)?;
    let start = Instant::now();
    let mut outage = Outage::new(format!("watching the nodes of {}", wanted.server), u32::from(wanted.address));
    let mut keeper = Keeper::new(wanted);
    keeper.remember();
    keeper.look(start.elapsed());
    loop {
        let (error, longest) = match connection.client() {
            Ok(client) => (watch(client, &connection, &mut keeper, &mut outage, start).await, Duration::MAX),
            Err(error) => (Some(format!("{error:#}")), FILES),
        };
        if let Some(error) = error {
            let failed = outage.failed(start.elapsed(), &error);
            failed.line.into_iter().for_each(say::line);
            tokio::time::sleep(failed.pause.min(longest)).await;
            keeper.look(start.elapsed());
        }
    }
}

/// Watches until something is wrong, which it says, or until the certificate's files change or the list is out of date.
async fn watch(
    client: Client,
    connection: &Connection,
    keeper: &mut Keeper,
    outage: &mut Outage,
    start: Instant,
) -> Option<String> {
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut events = pin!(watcher(Api::<Node>::all(client), config));
    let mut fresh = BTreeMap::new();
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick.reset();
    loop {
        tokio::select! {
            event = events.next() => {
                match event {
                    Some(Ok(Event::Init)) => fresh.clear(),
                    Some(Ok(Event::InitApply(node))) => { fresh.insert(node.name().to_owned(), Peer::of(&node)); }
                    Some(Ok(Event::InitDone)) => {
                        outage.well(start.elapsed()).into_iter().for_each(say::line);
                        keeper.replace(std::mem::take(&mut fresh), start.elapsed());
                    }
                    Some(Ok(Event::Apply(node))) => keeper.put(node.name(), Peer::of(&node), start.elapsed()),
                    Some(Ok(Event::Delete(node))) => keeper.drop(node.name(), start.elapsed()),
                    Some(Err(watcher::Error::WatchError(status))) if status.code == 410 => return None,
                    Some(Err(error)) => return Some(say::words(&error)),
                    None => return Some("the watch ended".to_owned()),
                }
            }
            _ = tick.tick() => {
                keeper.look(start.elapsed());
                if connection.renewed() {
                    return None;
                }
            }
        }
    }
}
