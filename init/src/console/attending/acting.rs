//! Turns what keys ask for into messages to the event loop, answers on the serial line, and what the screen shows.
use std::time::Duration;

use super::{Attending, KEY_EVERY, PAGE_EVERY, View, Which};
use crate::console::answers;
use crate::console::board;
use crate::console::keys::{Action, chosen};
use crate::console::page;
use crate::console::screen;
use crate::console::status::Status;
use crate::log::{self, monotonic};
use crate::run::inbox::Message;
use crate::supervise::Reason;

impl Attending {
    pub(super) fn act(&mut self, which: Which, action: Action) {
        if action == Action::Nothing {
            return;
        }
        let status = self.status();
        let failed = match &action {
            Action::Log(typed) => self.ask_log(which, typed),
            // Told in the log, too: `stopping: ...`.
            Action::End(ending) if !board::send(&self.board, Message::Stop(Reason::Console(*ending))) => {
                Some("not now: the machine is not that far".to_owned())
            }
            _ => None,
        };
        match (which, failed) {
            (Which::Screen, failed) => {
                self.pressed = true;
                self.view(&action, &status);
                self.question = failed.or(self.question.take());
            }
            (Which::Serial, Some(failed)) => log::show(&answers::one(&failed, answers::COLUMNS)),
            (Which::Serial, None) => log::show(&answers::lines(&action, &status)),
        }
    }

    fn view(&mut self, action: &Action, status: &Status) {
        self.question = match action {
            Action::Status => {
                self.view = View::Status;
                // Whoever asks for the page gets all of it, whatever somebody else has written there.
                self.shown.torn();
                None
            }
            Action::Help => {
                self.view = View::Help;
                None
            }
            other => answers::words(other, status),
        };
    }

    /// Asks the event loop for a service's last lines. Gives the words for whoever named none.
    fn ask_log(&mut self, which: Which, typed: &str) -> Option<String> {
        let names: Vec<&'static str> = self.board.services.standings.iter().map(|standing| standing.name).collect();
        let Some(name) = chosen(typed, &names) else { return Some(format!("there is no service {typed}")) };
        self.asked = Some(which);
        let told = move |lines| board::change(|board| board.log = Some((name.to_owned(), lines)));
        let asked = board::send(&self.board, Message::Recent { name, told: Box::new(told) });
        (!asked).then(|| "not now: no service runs yet".to_owned())
    }

    fn status(&self) -> Status {
        Status {
            now: monotonic(),
            told: self.told.clone(),
            known: self.board.known.clone(),
            services: self.board.services.clone(),
            sample: self.board.sample.clone(),
        }
    }

    pub(super) fn pace(&self) -> Duration {
        if self.pressed { KEY_EVERY } else { PAGE_EVERY }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        (self.changed || self.pressed) && now.saturating_sub(self.drawn) >= self.pace()
    }

    pub(super) fn draw(&mut self, now: Duration) {
        (self.changed, self.pressed, self.drawn) = (false, false, now);
        let Some(side) = &self.screen else { return };
        let (status, size) = (self.status(), side.terminal.size());
        let typed = side.keys.typed().filter(|_| self.question.is_some());
        let mut question = self.question.as_deref().map(|words| answers::one(words, size.columns)).unwrap_or_default();
        question.extend(typed.map(|typed| format!("         > {typed}")));
        let lines = match &self.view {
            View::Status => page::fitting(&status, size.columns, screen::room(size, question.len())),
            View::Help => answers::help(status.known.allowed, size.columns),
            View::Log(name, lines) => answers::log(name, lines, size.columns),
        };
        let heading = answers::heading(status.known.allowed);
        let page = screen::compose(lines, &status.told.tail, heading, &question, size);
        if !side.terminal.send(&self.shown.draw(page, size)) {
            self.shown.torn();
            self.changed = true;
        }
    }
}
