//! The live view of machines that come up: moving lines on a terminal, otherwise a line for every change.
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::api::{Api, NodeState};
use super::rows::Row;
use crate::console::{Console, Progress};

/// How often the API server is asked.
const EVERY: Duration = Duration::from_secs(2);

/// Lines for machines.
#[derive(Debug)]
pub struct View<'a> {
    console: &'a Console,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    name: String,
    said: String,
    moving: Option<Progress>,
}

impl<'a> View<'a> {
    /// An empty view.
    pub fn new(console: &'a Console) -> View<'a> {
        View { console, lines: Vec::new() }
    }

    /// Shows how the machines are now.
    pub fn show(&mut self, rows: &[Row]) {
        for row in rows {
            let index = self.lines.iter().position(|line| line.name == row.name).unwrap_or_else(|| {
                let moving = self.console.moves().then(|| self.console.spinner(&row.name));
                self.lines.push(Line { name: row.name.clone(), said: String::new(), moving });
                self.lines.len() - 1
            });
            let line = &mut self.lines[index];
            let summary = row.summary();
            match &line.moving {
                Some(moving) => moving.message(format_args!("{:>4} s  {summary}", row.seconds)),
                None if line.said != summary => {
                    self.console.say(format_args!("{}: {:>4} s  {summary}", row.name, row.seconds));
                }
                None => {}
            }
            line.said = summary;
        }
    }
}

/// Asks an API server again and again, so that nobody waits for it; ends with the program, or soon after it is dropped.
#[derive(Debug)]
pub struct Watch(Arc<Mutex<Result<Vec<NodeState>, String>>>);

impl Watch {
    /// Begins to ask.
    pub fn start(api: Api) -> std::io::Result<Watch> {
        let latest = Arc::new(Mutex::new(Err("it was not asked yet".to_owned())));
        let watched = Arc::downgrade(&latest);
        thread::Builder::new().name("api".to_owned()).spawn(move || {
            while watched.strong_count() > 0 {
                let answer = api.nodes().map_err(|error| format!("{error:#}"));
                let Some(latest) = watched.upgrade() else { return };
                *latest.lock().unwrap_or_else(PoisonError::into_inner) = answer;
                drop(latest);
                thread::sleep(EVERY);
            }
        })?;
        Ok(Watch(latest))
    }

    /// The latest answer.
    pub fn latest(&self) -> Result<Vec<NodeState>, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
