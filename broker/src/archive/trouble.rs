//! What is wrong with the store, for people: told once in the log and not by each execution that waits, and shown by the
//! metrics, by `check` and by `/readyz`.
//!
//! A trouble begins with the first request that fails for good. It ends when a sign of life was given and nobody waits any
//! more: a store that takes the small signs and not the segments is not well.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::store::{Reason, Store, StoreError};
use crate::error::Error;
use crate::telemetry::ArchiveCounters;

/// A trouble that lasts is told again after so long, and so is a new one of the same kind.
const TOLD_AGAIN: Duration = Duration::from_mins(5);

/// The pause after a failure, doubled up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Those who waited for the store do not all come at once when it is back.
const SPREAD: Duration = Duration::from_secs(2);

/// How the store is.
#[derive(Debug)]
pub(super) struct Trouble {
    counters: ArchiveCounters,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Executions that cannot go on without the store.
    waiting: usize,
    /// The last sign of life could not be given.
    is_mute: bool,
    episode: Option<Episode>,
    /// What was told last, and when.
    told: Option<(Reason, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Episode {
    reason: Reason,
    since: Instant,
    failures: u64,
    /// People know of it.
    is_told: bool,
}

/// A trouble as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// What kind it is.
    pub reason: Reason,
    /// How long it has lasted.
    pub lasts: Duration,
    /// Executions that wait for its end.
    pub waiting: usize,
}

impl Trouble {
    pub(super) fn new(counters: ArchiveCounters) -> Arc<Self> {
        Arc::new(Self { counters, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong, if anything is.
    pub(super) fn condition(&self) -> Option<Condition> {
        let state = self.state();
        let waiting = state.waiting;
        state.episode.map(|Episode { reason, since, .. }| Condition { reason, lasts: since.elapsed(), waiting })
    }

    /// A request of the archive's own failed for good.
    pub(super) fn failed(&self, error: &StoreError) {
        self.note(error.reason(), error);
    }

    /// The same for what a caller has waited for. What is no failure of the store's is passed over.
    pub(super) fn failed_for_caller(&self, error: &Error) {
        if !matches!(error, Error::Archive { .. }) {
            return debug!(error = error as &dyn StdError, "not read from the archive");
        }
        let cause = error.source().and_then(|cause| cause.downcast_ref());
        match cause.map_or(Reason::Away, StoreError::reason) {
            // The store is well.
            Reason::Damaged => warn!(error = error as &dyn StdError, "a part of the archive cannot be read"),
            reason => self.note(reason, error),
        }
    }

    fn note(&self, reason: Reason, error: &(dyn StdError + 'static)) {
        self.counters.failures.inc();
        let mut state = self.state();
        let now = Instant::now();
        let told = state.told;
        let waiting = state.waiting;
        let episode = state.episode.get_or_insert(Episode { reason, since: now, failures: 0, is_told: false });
        episode.failures += 1;
        // Not every refusal can be told from a silence: a listing's cannot. What is known of this trouble stays.
        let reason = if reason == Reason::Away { episode.reason } else { reason };
        episode.reason = reason;
        let is_news = told.is_none_or(|(before, at)| before != reason || now.duration_since(at) >= TOLD_AGAIN);
        let (failures, lasts) = (episode.failures, episode.since.elapsed());
        episode.is_told |= is_news;
        if is_news {
            state.told = Some((reason, now));
        }
        drop(state);
        self.counters.trouble.set(1);
        if is_news {
            warn!(
                error,
                ?reason,
                ?lasts,
                failures,
                waiting,
                fix = reason.fix(),
                "the archive cannot be used; executions run on, and their pods wait for it up to archive.patience"
            );
        } else {
            debug!(error, "a request to the archive failed");
        }
    }

    /// One more execution that cannot go on until the store takes what it has.
    pub(super) fn wait(self: &Arc<Self>) -> Waiting {
        let mut state = self.state();
        state.waiting += 1;
        self.counters.waiting.inc();
        drop(state);
        Waiting(Arc::clone(self))
    }

    /// A sign of life was given, or could not be.
    pub(super) fn signed(&self, sign: Result<(), &StoreError>) {
        match sign {
            Ok(()) => {
                self.state().is_mute = false;
                self.settle();
            }
            Err(error) => {
                self.state().is_mute = true;
                self.failed(error);
            }
        }
    }

    /// Ends the trouble if there is nothing left of it.
    fn settle(&self) {
        let mut state = self.state();
        if state.is_mute || state.waiting > 0 {
            return;
        }
        let Some(Episode { since, failures, is_told, .. }) = state.episode.take() else { return };
        drop(state);
        self.counters.trouble.set(0);
        if is_told {
            info!(lasted = ?since.elapsed(), failures, "the archive can be used again");
        }
    }
}

/// An execution that waits for the store, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Trouble>);

impl Waiting {
    /// The store has taken what it had.
    pub(super) fn done(self) {
        let trouble = Arc::clone(&self.0);
        drop(self);
        trouble.settle();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
        self.0.counters.waiting.dec();
    }
}

/// Pauses that grow. While the store is away, they last until it is back: the signs of life try it for everybody.
#[derive(Debug, Default)]
pub(super) struct Pause(u32);

impl Pause {
    /// The next pause, without what the store's absence adds.
    fn next(&mut self) -> Duration {
        let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(self.0.min(10)));
        self.0 += 1;
        pause.mul_f64(rand::random_range(0.5..1.0))
    }

    /// Waits; false when it is time to stop.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> bool {
        stop.run_until_cancelled(tokio::time::sleep(self.next())).await.is_some()
    }

    /// Waits until it may be of use to ask the store again; false when it is time to stop.
    pub(super) async fn wait_for(&mut self, store: &Store, stop: &CancellationToken) -> bool {
        let wait = async {
            tokio::time::sleep(self.next()).await;
            if store.is_away() {
                store.until(false).await;
                tokio::time::sleep(SPREAD.mul_f64(rand::random_range(0.0..1.0))).await;
            }
        };
        stop.run_until_cancelled(wait).await.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late() -> StoreError {
        StoreError::Late { operation: "write", path: "x".into(), limit: Duration::from_secs(1) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_lasts_until_a_sign_is_given_and_nobody_waits() {
        let counters = ArchiveCounters::default();
        let trouble = Trouble::new(counters.clone());
        assert_eq!(trouble.condition(), None);
        trouble.failed(&late());
        let (first, second) = (trouble.wait(), trouble.wait());
        tokio::time::advance(Duration::from_secs(7)).await;
        let condition = Condition { reason: Reason::Away, lasts: Duration::from_secs(7), waiting: 2 };
        assert_eq!(trouble.condition(), Some(condition));
        assert_eq!((counters.trouble.get(), counters.waiting.get(), counters.failures.get()), (1, 2, 1));
        trouble.signed(Ok(()));
        assert!(trouble.condition().is_some(), "two wait");
        trouble.signed(Err(&late()));
        first.done();
        second.done();
        assert!(trouble.condition().is_some(), "no sign can be given");
        trouble.signed(Ok(()));
        assert_eq!(trouble.condition(), None);
        assert_eq!((counters.trouble.get(), counters.waiting.get()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_once_in_a_while_and_when_it_becomes_another() {
        let trouble = Trouble::new(ArchiveCounters::default());
        let told = || trouble.state().told;
        trouble.failed(&late());
        let first = told();
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(2)).await;
            trouble.failed(&late());
        }
        assert_eq!(told(), first);
        trouble.note(Reason::Refused, &late());
        assert_ne!(told(), first);
        let second = told();
        trouble.failed(&late());
        assert_eq!(told(), second, "the kind that is known is not taken back");
        tokio::time::advance(TOLD_AGAIN).await;
        trouble.note(Reason::Refused, &late());
        assert_ne!(told(), second);
    }
}
