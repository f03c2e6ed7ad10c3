//! What a watcher was told last.
//!
//! Tens of thousands of watches may be open, and each has to know what it said. It keeps no words, which it would have for
//! itself alone, but what they are made of, which all watches of an execution share with the hub, and makes them again when
//! there is something to compare them with.

use std::sync::Arc;

use super::super::attempts::Attempts;
use super::super::{PodSettings, describe};
use crate::execution::{Execution, Policies};

/// An execution as a watcher was told of it.
pub(super) struct Told {
    pub(super) attempts: Arc<Attempts>,
    /// How many attempts it had seen ending.
    pub(super) attempts_ended: u32,
}

impl Told {
    /// In words.
    pub(super) fn shown(&self, settings: &PodSettings) -> Execution {
        describe::execution(settings, &self.attempts).before_the_end(self.attempts_ended)
    }

    pub(super) fn policies(&self) -> &Policies {
        &self.attempts.oldest().policies
    }
}
