//! Turns what the flight recorder of a machine's disk holds (`kscratch-recorder`) into what became of each of its boots.
mod json;
mod partition;
#[cfg(test)]
mod tests;
mod text;

use anyhow::{Result, anyhow};
use kscratch_recorder::story::{self, Story};
use kscratch_recorder::{Boot, Ring};

pub use partition::{Kept, read};

use crate::console::Hint;

/// All boots of a disk that something is left of, the oldest first.
#[derive(Debug)]
pub struct Autopsy {
    boots: Vec<Told>,
}

/// Which of the boots are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The last one.
    Last,
    /// Every one.
    All,
    /// The one of this number: 1 is the last, 2 the one before it.
    One(u32),
}

/// A boot, and what is known of it.
#[derive(Debug)]
struct Told {
    /// 1 is the last boot, 2 the one before it.
    number: usize,
    /// Whether nothing older is left.
    oldest: bool,
    boot: Boot,
    story: Story,
    /// What the next boot found of this one.
    found: Option<Finding>,
    /// What this one found of a boot that nothing else is left of.
    found_before: Option<Finding>,
}

/// What a boot finds of the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// The kernel's last words (pstore).
    left: Vec<String>,
    /// Why the machine was reset.
    reset: Option<String>,
}

impl Finding {
    fn of(story: &Story) -> Option<Finding> {
        let finding = Finding { left: story.left.clone(), reset: story.reset.clone() };
        (!finding.left.is_empty() || finding.reset.is_some()).then_some(finding)
    }
}

impl Autopsy {
    /// Tells the boots of a ring.
    pub fn of(ring: Ring) -> Autopsy {
        let stories: Vec<Story> = ring.boots.iter().map(story::tell).collect();
        // What a boot found tells of the one before it.
        let mut found: Vec<Option<Finding>> = stories.iter().map(Finding::of).collect();
        found.push(None);
        let mut found = found.into_iter();
        let mut found_before = found.next().flatten();
        let count = stories.len();
        let boots = ring.boots.into_iter().zip(stories).zip(found).enumerate();
        let told = boots.map(|(index, ((boot, story), found))| Told {
            number: count - index,
            oldest: index == 0,
            boot,
            story,
            found,
            found_before: found_before.take(),
        });
        Autopsy { boots: told.collect() }
    }

    /// The boots in words, for a person: those that are meant in full, with `log` every entry of theirs too; before the last one alone, a
    /// line for each earlier one. No character of it but the ends of its lines is one that a terminal obeys.
    ///
    /// # Errors
    /// There is no such boot.
    pub fn text(&self, which: Which, log: bool) -> Result<String> {
        if self.boots.is_empty() {
            return Ok("this disk has recorded no boot yet\n".to_owned());
        }
        let chosen = self.chosen(which)?;
        let earlier = if which == Which::Last { &self.boots[..self.boots.len() - 1] } else { &[] };
        Ok(text::of(earlier, chosen, log))
    }

    /// The boots as a JSON array, the oldest first: all of them, unless one is meant; with `log` every entry of theirs too.
    ///
    /// # Errors
    /// There is no such boot.
    pub fn json(&self, which: Which, log: bool) -> Result<String> {
        let all = self.boots.is_empty() || which == Which::Last;
        json::of(self.chosen(if all { Which::All } else { which })?, log)
    }

    fn chosen(&self, which: Which) -> Result<&[Told]> {
        let Which::One(number) = which else {
            let first = if which == Which::All { 0 } else { self.boots.len().saturating_sub(1) };
            return Ok(&self.boots[first..]);
        };
        let place = self.boots.iter().position(|told| told.number == number as usize);
        place.map(|place| &self.boots[place..=place]).ok_or_else(|| {
            anyhow!("there is no boot {number}: {} are left on the disk", self.boots.len())
                .context(Hint("--boot 1 is the last one; --all tells every one".into()))
        })
    }
}
