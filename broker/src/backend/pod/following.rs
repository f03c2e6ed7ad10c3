//! Who follows which execution at this replica.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::PodBackend;
use super::attempts::Attempts;
use super::hub::Hub;
use crate::backend::EventStream;
use crate::error::Error;
use crate::execution::{Cursor, ExecutionId, Tenant, WatchOptions};

/// Whether an execution is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// At this replica.
    Here,
    /// Not at this one.
    NotHere {
        /// From when on it counts as left alone by everybody, as far as is known here; `None` if that changes nothing.
        alone: Option<Timestamp>,
    },
}

/// Why somebody follows an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// Somebody waits for it.
    Caller,
    /// A copy is kept. That keeps nothing: it does not count as being followed.
    Copy,
}

/// One who follows an execution. What was kept for the reading may be due once it is dropped.
pub(super) struct Following {
    /// Dropped first, so that it does not count any more when the other one is.
    pub(super) attempts: watch::Receiver<Arc<Attempts>>,
    _leaving: Leaving,
}

struct Leaving {
    hub: Arc<Hub>,
    hash: String,
    has_policy: bool,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let hash = std::mem::take(&mut self.hash);
        if self.has_policy {
            self.hub.orphans.saw(&hash, self.hub.clock.now());
        }
        self.hub.touch(&hash);
    }
}

impl Hub {
    /// Follows an execution that is in the index.
    pub(super) fn follow(self: &Arc<Self>, hash: &str, interest: Interest) -> Option<Following> {
        let mut state = self.state();
        let attempts = state.executions.get(hash)?.clone();
        let created = attempts.oldest().created;
        let after = attempts.latest().policies.orphan_after.filter(|_| interest == Interest::Caller);
        let followers = match interest {
            Interest::Caller => &mut state.followers,
            Interest::Copy => &mut state.copies,
        };
        let sender = followers.entry(hash.to_owned()).or_insert_with(|| watch::Sender::new(attempts));
        let attempts = sender.subscribe();
        drop(state);
        if let Some(after) = after {
            self.orphans.join(hash, created, after, self.clock.now());
        }
        let leaving = Leaving { hub: Arc::clone(self), hash: hash.to_owned(), has_policy: after.is_some() };
        Some(Following { attempts, _leaving: leaving })
    }

    /// Whether somebody follows an execution.
    pub(super) fn is_followed(&self, hash: &str) -> Followed {
        let state = self.state();
        if state.followers.get(hash).is_some_and(|sender| sender.receiver_count() > 0) {
            return Followed::Here;
        }
        let alone = state.executions.get(hash).and_then(|attempts| {
            let after = attempts.latest().policies.orphan_after?;
            Some(self.orphans.due(hash, attempts.oldest().created, after))
        });
        Followed::NotHere { alone }
    }

    /// The hashes of the executions that are followed here and must not be left alone, with the shortest time after which one
    /// of them counts as that; `None` if there is none.
    pub(super) fn cared_for(&self) -> Option<(Vec<String>, std::time::Duration)> {
        let state = self.state();
        let (mut hashes, mut shortest) = (Vec::new(), None);
        for (hash, _) in state.followers.iter().filter(|(_, sender)| sender.receiver_count() > 0) {
            let Some(attempts) = state.executions.get(hash) else { continue };
            let Some(after) = attempts.latest().policies.orphan_after else { continue };
            if attempts.standing().status.outcome.is_none() {
                hashes.push(hash.clone());
                shortest = Some(shortest.map_or(after, |shortest| after.min(shortest)));
            }
        }
        shortest.map(|shortest| (hashes, shortest))
    }

    /// Something else may be due for it now.
    pub(super) fn touch(&self, hash: &str) {
        self.state().changed.insert(hash.to_owned());
        self.changed.notify_one();
    }
}

impl PodBackend {
    /// Watches an execution; see [`Backend::watch`](crate::backend::Backend::watch).
    pub(super) async fn tell(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
        interest: Interest,
    ) -> Result<EventStream, Error> {
        let address = self.address(tenant, id);
        let hash = address.hash();
        let resumed = !cursor.is_empty();
        let cursor = if resumed { Cursor::decode(cursor, &hash)? } else { Cursor::start(hash.clone()) };
        if !self.hub.is_in_step() {
            return Err(self.not_in_step());
        }
        match self.find(&address).await {
            Err(Error::NoSuchExecution { name }) if resumed => return Err(Error::Expired { name }),
            found => found?,
        };
        let following = self.hub.follow(&hash, interest).ok_or_else(|| self.not_in_step())?;
        Ok(super::watch::watch(Arc::clone(&self.hub), Arc::clone(&self.sources), following, cursor, options))
    }
}
