//! The pods of one execution, one for each attempt.

use std::sync::Arc;

use super::view::{Presence, View};

/// The attempts of one execution, oldest first; never empty. Pods that are no more stay among them as long as one is left, so
/// that what is known of the execution does not change while it is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempts {
    oldest: Arc<View>,
    later: Vec<Arc<View>>,
}

impl Attempts {
    /// An execution with this pod only.
    pub(super) fn of(view: Arc<View>) -> Self {
        Self { oldest: view, later: Vec::new() }
    }

    /// The first attempt that is known. It carries what later ones are made from.
    pub(super) fn oldest(&self) -> &Arc<View> {
        &self.oldest
    }

    /// The attempt that stands for the execution.
    pub(super) fn latest(&self) -> &Arc<View> {
        self.later.last().unwrap_or(&self.oldest)
    }

    /// All, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<View>> {
        std::iter::once(&self.oldest).chain(&self.later)
    }

    /// The attempt with that number.
    pub(super) fn number(&self, attempt: u32) -> Option<&Arc<View>> {
        self.iter().find(|view| view.attempt == attempt)
    }

    /// With this pod instead of the one with its number, or beside the others.
    pub(super) fn with(&self, view: Arc<View>) -> Self {
        let others = self.iter().filter(|other| other.attempt != view.attempt).cloned();
        let mut views: Vec<_> = others.chain([Arc::clone(&view)]).collect();
        views.sort_by_key(|view| view.attempt);
        let mut views = views.into_iter();
        Self { oldest: views.next().unwrap_or(view), later: views.collect() }
    }

    /// None of its pods exists any more.
    pub(super) fn is_gone(&self) -> bool {
        self.iter().all(|view| view.presence == Presence::Gone)
    }
}
