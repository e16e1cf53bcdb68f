//! A [`Queue`] is the lines that wait for a server: it has bounded room, whoever fills it waits for a bounded time, and what does not fit is counted.
//!
//! The rule: **a full queue is waited for until half of it is free, five seconds at the most; then its lines are left out, and counted, until that is so.** A
//! server that is slow for a moment costs no line, and one that is dead, or takes less than half of its queue in that time, keeps nobody from the others. One that is
//! faster than this and slower than what is said slows the others to its rate. What is behind is on the disk meanwhile, so that a long log is sent as fast as its
//! servers take it.
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::places::{Place, Places};

/// How long a full queue is waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a line takes besides its text, about.
const HEAD: usize = 128;

/// Something that waits. Cheap to keep for several servers.
#[derive(Debug, Clone)]
enum Waiting {
    Line(Rc<str>, Option<Place>),
    /// So many lines that were left out, and how far they went.
    LeftOut(u64, Places),
}

impl Waiting {
    fn size(&self) -> usize {
        match self {
            Self::Line(text, _) => text.len() + HEAD,
            Self::LeftOut(..) => HEAD,
        }
    }
}

/// The lines that wait for one server.
#[derive(Debug)]
pub struct Queue {
    room: usize,
    waiting: VecDeque<Waiting>,
    size: usize,
    /// Since when it is full.
    full: Option<Duration>,
    left_out: u64,
    left_out_to: Places,
    sent: Places,
}

impl Queue {
    /// For a server that has been sent that much. `room` is in bytes.
    pub fn new(room: usize, sent: Places) -> Self {
        Self { room, waiting: VecDeque::new(), size: 0, full: None, left_out: 0, left_out_to: Places::default(), sent }
    }

    /// Takes a line, or leaves it out.
    pub fn push(&mut self, line: &Rc<str>, place: Option<&Place>, now: Duration) {
        // Once one is left out, all are until that is told: they keep their order.
        let late = self.left_out > 0 || self.full.is_some() && !self.is_waited_for(now);
        // Whoever reads waits from the next piece on.
        if late || self.size >= self.room.saturating_mul(2) {
            self.left_out += 1;
            place.into_iter().for_each(|place| self.left_out_to.note(place));
            return;
        }
        self.put(Waiting::Line(line.clone(), place.cloned()));
        if self.size >= self.room {
            self.full.get_or_insert(now);
        }
    }

    /// Counts a line as sent that is not for this server, and stands before all that are.
    pub fn pass(&mut self, place: &Place) {
        self.sent.note(place);
    }

    /// Whether nothing more is to be read for now.
    pub fn is_waited_for(&self, now: Duration) -> bool {
        self.full.is_some_and(|since| now < since + PATIENCE)
    }

    /// Whether all is sent.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What is to be sent next, some `bytes` of it, and how many entries that is; `told` says how many lines were left out.
    pub fn next(&self, bytes: usize, told: impl Fn(u64) -> String) -> (usize, String) {
        let (mut count, mut text) = (0, String::new());
        for waiting in &self.waiting {
            match waiting {
                Waiting::Line(line, _) => text.push_str(line),
                Waiting::LeftOut(lines, _) => text.push_str(&told(*lines)),
            }
            count += 1;
            if text.len() >= bytes {
                break;
            }
        }
        (count, text)
    }

    /// So many entries were sent.
    pub fn sent(&mut self, count: usize) {
        for waiting in self.waiting.drain(..count.min(self.waiting.len())) {
            self.size = self.size.saturating_sub(waiting.size());
            match waiting {
                Waiting::Line(_, place) => place.iter().for_each(|place| self.sent.note(place)),
                Waiting::LeftOut(_, places) => self.sent.note_all(places),
            }
        }
        if self.size <= self.room / 2 {
            self.full = None;
            let lines = std::mem::take(&mut self.left_out);
            if lines > 0 {
                let places = std::mem::take(&mut self.left_out_to);
                self.put(Waiting::LeftOut(lines, places));
            }
        }
    }

    /// How far the server has been sent what there is.
    pub fn places(&self) -> &Places {
        &self.sent
    }

    fn put(&mut self, waiting: Waiting) {
        self.size += waiting.size();
        self.waiting.push_back(waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::{HEAD, PATIENCE, Queue};
    use crate::logs::places::{Place, Places};

    fn line(number: u64) -> Rc<str> {
        format!("{number}\n").into()
    }

    fn told(lines: u64) -> String {
        format!("-{lines}\n")
    }

    fn push(queue: &mut Queue, number: u64, second: u64) {
        queue.push(&line(number), Some(&Place::Kernel(number)), Duration::from_secs(second));
    }

    #[test]
    fn lines_leave_as_they_came() {
        let mut queue = Queue::new(1 << 20, Places::default());
        (0..5).for_each(|number| push(&mut queue, number, 0));
        assert_eq!(queue.next(4, told), (2, "0\n1\n".into()));
        assert_eq!(queue.places().kernel, None);
        queue.sent(2);
        assert_eq!(queue.places().kernel, Some(1));
        assert_eq!(queue.next(1000, told), (3, "2\n3\n4\n".into()));
        queue.sent(3);
        assert!(queue.is_empty() && queue.next(1, told) == (0, String::new()));
    }

    #[test]
    fn a_full_queue_is_waited_for_then_left_out_and_counted() {
        // Room for ten.
        let mut queue = Queue::new(10 * (HEAD + 2), Places::default());
        (0..10).for_each(|number| push(&mut queue, number, 0));
        let at = Duration::from_secs;
        assert!(queue.is_waited_for(at(4)) && !queue.is_waited_for(PATIENCE));
        // What was read already is kept.
        push(&mut queue, 10, 1);
        (11..20).for_each(|number| push(&mut queue, number, 5));
        queue.sent(4);
        push(&mut queue, 20, 6);
        assert_eq!(queue.next(1000, told).1, "4\n5\n6\n7\n8\n9\n10\n");
        queue.sent(3);
        push(&mut queue, 21, 7);
        assert!(!queue.is_waited_for(at(7)));
        assert_eq!(queue.next(1000, told).1, "7\n8\n9\n10\n-10\n21\n");
        queue.sent(4);
        assert_eq!(queue.places().kernel, Some(10));
        queue.sent(1);
        // They are not sent after a restart either: their count was.
        assert_eq!(queue.places().kernel, Some(20));
    }

    #[test]
    fn nobody_is_waited_for_twice_before_he_has_taken_half() {
        let mut queue = Queue::new(10 * (HEAD + 2), Places::default());
        (0..10).for_each(|number| push(&mut queue, number, 0));
        queue.sent(1);
        push(&mut queue, 10, 8);
        assert!(!queue.is_waited_for(Duration::from_secs(8)));
        assert_eq!(queue.next(1000, told).0, 9);
    }

    proptest! {
        /// Whatever happens, every line is sent once and in order, or counted where it would have been; and the room is kept.
        #[test]
        fn every_line_is_sent_or_counted(steps in prop::collection::vec(prop_oneof![
            3 => (0..3_u64).prop_map(Some),
            1 => Just(None),
        ], 0..300), takes in 1..20_usize) {
            let room = 20 * (HEAD + 4);
            let mut queue = Queue::new(room, Places::default());
            let (mut now, mut pushed, mut got) = (0, 0, String::new());
            for step in steps {
                match step {
                    Some(wait) => {
                        now += wait;
                        push(&mut queue, pushed, now);
                        pushed += 1;
                    }
                    None => {
                        for _ in 0..takes {
                            let (count, text) = queue.next(1, told);
                            got += &text;
                            queue.sent(count);
                        }
                    }
                }
                prop_assert!(queue.size <= 2 * room + HEAD + 10);
            }
            while !queue.is_empty() {
                let (count, text) = queue.next(50, told);
                got += &text;
                queue.sent(count);
            }
            let mut next = 0;
            for line in got.lines() {
                match line.strip_prefix('-') {
                    Some(lines) => next += lines.parse::<u64>().unwrap(),
                    None => {
                        prop_assert_eq!(line, next.to_string());
                        next += 1;
                    }
                }
            }
            prop_assert_eq!(next, pushed);
            prop_assert_eq!(queue.places().kernel, pushed.checked_sub(1));
        }
    }
}
