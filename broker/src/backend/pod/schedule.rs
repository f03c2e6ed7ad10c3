//! When something is due, by the name of what it is due for: one entry each, the earliest first.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

/// A queue of moments.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    moments: HashMap<String, Timestamp>,
    queue: BTreeSet<(Timestamp, String)>,
}

impl Schedule {
    /// Something is due for it at that moment, and not at the one that was said before.
    pub(super) fn set(&mut self, name: &str, moment: Timestamp) {
        self.clear(name);
        self.moments.insert(name.to_owned(), moment);
        self.queue.insert((moment, name.to_owned()));
    }

    /// Nothing is due for it.
    pub(super) fn clear(&mut self, name: &str) {
        if let Some((name, moment)) = self.moments.remove_entry(name) {
            self.queue.remove(&(moment, name));
        }
    }

    /// The earliest moment.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(moment, _)| *moment)
    }

    /// Takes out what is due by now, at most so much of it.
    pub(super) fn take(&mut self, now: Timestamp, at_most: usize) -> Vec<String> {
        let mut due = Vec::new();
        while due.len() < at_most && self.next().is_some_and(|moment| moment <= now) {
            let Some((_, name)) = self.queue.pop_first() else { break };
            self.moments.remove(&name);
            due.push(name);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_due_comes_in_order_and_once() {
        let mut schedule = Schedule::default();
        schedule.set("b", at(2));
        schedule.set("a", at(3));
        schedule.set("c", at(9));
        assert_eq!(schedule.next(), Some(at(2)));
        assert_eq!(schedule.take(at(1), 10), Vec::<String>::new());
        assert_eq!(schedule.take(at(3), 10), ["b", "a"]);
        assert_eq!(schedule.take(at(3), 10), Vec::<String>::new());
        assert_eq!(schedule.next(), Some(at(9)));
    }

    #[test]
    fn what_is_said_later_counts() {
        let mut schedule = Schedule::default();
        schedule.set("a", at(2));
        schedule.set("a", at(5));
        schedule.set("b", at(2));
        schedule.clear("b");
        schedule.clear("never heard of");
        assert_eq!(schedule.take(at(4), 10), Vec::<String>::new());
        assert_eq!(schedule.take(at(5), 10), ["a"]);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn much_at_once_comes_in_parts() {
        let mut schedule = Schedule::default();
        for (second, name) in ["a", "b", "c"].into_iter().enumerate() {
            schedule.set(name, at(i64::try_from(second).unwrap()));
        }
        assert_eq!(schedule.take(at(5), 2), ["a", "b"]);
        assert_eq!(schedule.take(at(5), 2), ["c"]);
    }
}
