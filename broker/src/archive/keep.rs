//! Sees to it that each execution gets into the archive, by whichever replica, or at least the word that it did not.
//!
//! While the store cannot be used nothing is read for it: the lines stay with the kubelet, and the pod with the cluster, up to
//! `patience`. What is deleted after that leaves its outcome here, in memory, until the store is back: then a notice and a gap
//! for each log say that lines are missing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::index::{Claim, Generation, MAX_GENERATION, generations, json, text};
use super::store::{Made, StoreError};
use super::trouble::{Pause, Waiting};
use super::writer::{Ending, Writer};
use super::{Archive, marker};
use crate::backend::{Backend, View};
use crate::execution::{Address, Execution};

/// How long another writer that may still have the lines is left alone before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_mins(2);

/// The pause after a claim that another one may have made.
const CONFLICT: Duration = Duration::from_millis(250);

/// What `keep` has to do with.
pub(super) struct Case {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) address: Address,
    /// Its deletion has waited for long.
    pub(super) urge: Arc<Notify>,
    /// The backend has it no longer.
    pub(super) gone: CancellationToken,
    pub(super) stop: CancellationToken,
}

impl Case {
    /// How it ended, as long as the backend knows.
    async fn ended(&self) -> Option<Execution> {
        let got = self.backend.get(&self.address.tenant, &self.address.id, View::Basic).await;
        got.ok().filter(|execution| execution.state.is_final())
    }
}

impl Archive {
    /// Sees to it that one execution gets into the archive, whoever writes it.
    pub(super) async fn keep(self: Arc<Self>, case: Case) {
        let Case { address, urge, gone, stop, .. } = &case;
        let mut pause = Pause::default();
        let mut waiting: Option<Waiting> = None;
        let mut last = None;
        while !gone.is_cancelled() {
            let claimed = tokio::select! {
                claimed = self.claim(address, urge) => claimed,
                () = gone.cancelled() => break,
                () = stop.cancelled() => return,
            };
            match claimed {
                Ok(writer) => {
                    if let Some(waiting) = waiting {
                        waiting.done();
                    }
                    return match writer {
                        Some(writer) => self.write(writer, &case).await,
                        None => self.is_durable(address),
                    };
                }
                Err(error) => {
                    debug!(execution = %address.name(), error = &error as &dyn std::error::Error, "cannot be claimed yet");
                    waiting.get_or_insert_with(|| self.trouble.wait());
                    self.trouble.failed(&error);
                }
            }
            let mut over = std::pin::pin!(pause.wait_for(&self.store, stop));
            loop {
                tokio::select! {
                    goes_on = &mut over => if goes_on { break } else { return },
                    () = urge.notified() => last = case.ended().await.or(last),
                    () = gone.cancelled() => break,
                }
            }
        }
        drop(waiting);
        match last {
            Some(execution) => self.leave_word(&case, execution).await,
            None if self.condition().is_some() => self.lose(address),
            // It came and went within moments.
            None => {}
        }
    }

    /// Has a writer write to the end of its watch, also when the execution goes meanwhile.
    async fn write(self: &Arc<Self>, writer: Writer, case: &Case) {
        let Case { address, urge, gone, stop, .. } = case;
        let mut writing = std::pin::pin!(writer.run(&*case.backend, stop));
        let (mut last, mut left, mut has_gone) = (None, None, false);
        let ending = loop {
            tokio::select! {
                ending = &mut writing => break ending,
                () = urge.notified() => last = case.ended().await.or(last),
                () = gone.cancelled(), if !has_gone => {
                    has_gone = true;
                    left = Arc::clone(&self.leftovers).try_acquire_owned().ok();
                    if left.is_none() && self.condition().is_some() {
                        return self.lose(address);
                    }
                }
            }
        };
        drop(left);
        match (ending, last) {
            (Ending::Durable, _) => {
                self.is_durable(address);
                self.counters.executions.inc();
            }
            (Ending::Gone, _) if stop.is_cancelled() => {}
            (Ending::Gone, Some(execution)) => self.leave_word(case, execution).await,
            (Ending::Gone, None) => self.lose(address),
        }
    }

    /// Writes, as soon as it can, how an execution ended whose lines are not all here, and that they are not.
    async fn leave_word(self: &Arc<Self>, case: &Case, execution: Execution) {
        let Case { address, stop, .. } = case;
        let Ok(_left) = self.leftovers.try_acquire() else { return self.lose(address) };
        let waiting = self.trouble.wait();
        let mut pause = Pause::default();
        // Another writer may have had more of it: then it is that one's to write.
        let nobody = Notify::new();
        loop {
            let claiming = tokio::time::timeout(LOOK_AGAIN, self.claim(address, &nobody));
            match stop.run_until_cancelled(claiming).await {
                None => return,
                Some(Ok(Ok(Some(mut writer)))) => {
                    waiting.done();
                    warn!(execution = %address.name(), "its lines are not all in the archive, which says so");
                    for event in marker::events(&execution, writer.cursor(), self.settings.patience) {
                        writer.take(event);
                    }
                    writer.end(execution, stop).await;
                    return;
                }
                Some(Ok(Ok(None))) => return waiting.done(),
                Some(Ok(Err(error))) => {
                    self.trouble.failed(&error);
                    if !pause.wait_for(&self.store, stop).await {
                        return;
                    }
                }
                Some(Err(_)) => {}
            }
        }
    }

    /// So many executions have gone while the store could not be used that this one is not remembered.
    fn lose(&self, address: &Address) {
        self.counters.lost.inc();
        debug!(execution = %address.name(), "gone, and the archive will not know of it");
    }

    /// A writer for the next generation; `None` when the outcome is there. Waits while another writer is at it, until that
    /// one is dead or it is urgent: then it may have finished, or be stuck.
    pub(super) async fn claim(
        self: &Arc<Self>,
        address: &Address,
        urge: &Notify,
    ) -> Result<Option<Writer>, StoreError> {
        let hash = address.hash();
        loop {
            if self.outcome(&self.store, address).await?.is_some() {
                return Ok(None);
            }
            let mut known = generations(&self.store, &hash).await?;
            if let Some(last) = known.last()
                && last.claim.writer != self.life.me()
            {
                let number = last.number;
                tokio::select! {
                    () = self.life.until_dead(&self.store, &last.claim.writer) => {}
                    () = urge.notified() => {}
                }
                if self.outcome(&self.store, address).await?.is_some() {
                    return Ok(None);
                }
                // It has come further meanwhile, and another one may have been faster than we are.
                known = generations(&self.store, &hash).await?;
                if known.last().is_none_or(|last| last.number != number) {
                    continue;
                }
            }
            let number = known.last().map_or(0, |last| last.number) + 1;
            if number > MAX_GENERATION {
                return Err(StoreError::Full { path: self.store.execution(&hash) });
            }
            let cursor = known.iter().rev().find_map(Generation::cursor).unwrap_or_default();
            // The day first: what no day knows of would never expire.
            self.store.put(&self.store.day(&self.today(), &hash), "").await?;
            let claim = Claim { writer: self.life.me().to_owned(), cursor: text(&cursor) };
            let path = self.store.generation(&hash, number, "claim.json");
            if self.store.create(&path, json(&claim)).await? == Made::Now {
                debug!(execution = %address.name(), generation = number, "archiving");
                return Ok(Some(Writer::new(Arc::clone(self), address.clone(), number, cursor)));
            }
            // Somebody was faster, or S3 wants it to be tried again.
            tokio::time::sleep(CONFLICT.mul_f64(rand::random_range(0.5..1.0))).await;
        }
    }
}
