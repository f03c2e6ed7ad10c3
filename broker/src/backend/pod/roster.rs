//! Which executions of the index are in which group.

use std::collections::{HashMap, HashSet};

use super::view::View;

/// The members of each group; groups and executions by their hashes.
#[derive(Debug, Default)]
pub(super) struct Roster(HashMap<String, HashSet<String>>);

impl Roster {
    /// The members of a group.
    pub(super) fn of(&self, group: &str) -> impl Iterator<Item = &String> {
        self.0.get(group).into_iter().flatten()
    }

    /// Notes that an execution is in the group of its pod, if that is in one.
    pub(super) fn add(&mut self, execution: &str, pod: &View) {
        if let Some(membership) = &pod.membership {
            self.0.entry(membership.group.clone()).or_default().insert(execution.to_owned());
        }
    }

    /// Forgets an execution that is no more. Returns those that it leaves behind in its group: they may go too now.
    pub(super) fn remove(&mut self, execution: &str, pod: &View) -> Vec<String> {
        let Some(membership) = &pod.membership else { return Vec::new() };
        let Some(members) = self.0.get_mut(&membership.group) else { return Vec::new() };
        members.remove(execution);
        let left = members.iter().cloned().collect();
        if members.is_empty() {
            self.0.remove(&membership.group);
        }
        left
    }
}
