//! Ends executions that nobody follows, for callers that want it so.
//!
//! Each replica tells the others whom it follows, with one Lease object per target: written at most so often that nobody is
//! taken for left alone between two of them, never once per execution, and not at all while it follows none with that policy.
//! Before a replica ends an execution, it reads what the others have said. What a replica cannot know (what was before it
//! began, or while the cluster did not answer) only lengthens the time; all times are the API server's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::PodBackend;
use super::api::ApiError;
use super::clock::add;
use super::following::Followed;
use super::names::{FOLLOWED, INSTANCE_LABEL, TARGET_LABEL};
use super::selection::Selection;
use crate::execution::LONGEST_ORPHAN;

/// Leases are written and read at most so often.
const AT_MOST_EVERY: Duration = Duration::from_secs(5);

/// An execution is ended so much later than it was asked for: a Lease with a new follower may be on its way so long, and what
/// was read of the Leases may be as old.
pub(super) const SETTLE: SignedDuration = SignedDuration::from_secs(15);

/// A Lease is written so many times in the shortest time after which an execution counts as left alone.
const RENEWALS: u32 = 3;

/// The characters of a hash that a Lease holds, 60 bits, and how many of them: annotations have 256 KiB in all.
const PREFIX: usize = 12;
const MOST: usize = 20_000;

/// Stands for every execution.
const EVERYONE: &str = "*";

/// A Lease that was not renewed for so long says nothing any more about anybody who could still be waited for.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_secs(LONGEST_ORPHAN.as_secs().cast_signed() + 86_400);

/// What a replica knows of who follows whom. All of it may be forgotten.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    known: Mutex<Known>,
    /// The next Lease is to be written earlier than planned.
    hurry: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// When the cluster has answered for the first time, and for the first time after its latest silence.
    began: Option<Timestamp>,
    recovered: Option<Timestamp>,
    /// Until when an execution may have been followed, by its hash.
    last: HashMap<String, Timestamp>,
    /// When the next Lease is written; `None` while there is none to be.
    next: Option<Timestamp>,
}

impl Orphans {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it holds the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster answers, and did not before.
    pub(super) fn recovered(&self, now: Timestamp) {
        let mut known = self.known();
        known.began.get_or_insert(now);
        known.recovered = Some(now);
    }

    /// An execution may have been followed until then.
    pub(super) fn saw(&self, hash: &str, until: Timestamp) {
        let mut known = self.known();
        let last = known.last.entry(hash.to_owned()).or_insert(until);
        *last = until.max(*last);
    }

    /// The execution is no more.
    pub(super) fn forget(&self, hash: &str) {
        self.known().last.remove(hash);
    }

    /// Until when an execution may have been followed, as far as is known here.
    fn last(&self, hash: &str) -> Timestamp {
        let known = self.known();
        known.last.get(hash).copied().max(known.began).unwrap_or(Timestamp::MIN)
    }

    /// From when on an execution counts as left alone.
    pub(super) fn due(&self, hash: &str, created: Option<Timestamp>, after: Duration) -> Timestamp {
        let recovered = self.known().recovered.unwrap_or(Timestamp::MIN);
        due(self.last(hash).max(created.unwrap_or(Timestamp::MIN)), recovered, after)
    }

    /// Somebody begins to follow an execution here. Others must hear it before they take it for left alone.
    pub(super) fn join(&self, hash: &str, created: Option<Timestamp>, after: Duration, now: Timestamp) {
        let last = self.last(hash).max(created.unwrap_or(now)).min(now);
        // A third of the time is left to write it, and to write it again if that fails.
        let latest = add(last, signed(after * 2 / 3));
        if self.known().next.is_none_or(|next| next > latest) {
            self.hurry.notify_one();
        }
    }
}

fn due(last: Timestamp, recovered: Timestamp, after: Duration) -> Timestamp {
    // After a silence the other replicas need a turn to say whom they follow.
    let told = add(recovered, signed(after / RENEWALS));
    add(add(last, signed(after)).max(told), SETTLE)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// What a replica has said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    /// The Lease's name.
    lease: String,
    /// Until when it holds.
    until: Timestamp,
    /// Prefixes of hashes one after another, or everyone.
    followed: String,
}

impl Word {
    /// `None` for what no replica has written.
    fn of(lease: Lease) -> Option<Self> {
        let spec = lease.spec?;
        let renewed = spec.renew_time?.0;
        let length = SignedDuration::from_secs(spec.lease_duration_seconds?.into());
        let followed = lease.metadata.annotations.and_then(|mut all| all.remove(FOLLOWED)).unwrap_or_default();
        Some(Self { lease: lease.metadata.name?, until: add(renewed, length), followed })
    }

    fn names(&self, hash: &str) -> bool {
        let Some(prefix) = hash.get(..PREFIX) else { return true };
        self.followed == EVERYONE
            || self.followed.as_bytes().chunks_exact(PREFIX).any(|chunk| chunk == prefix.as_bytes())
    }
}

/// What goes into a Lease for these executions.
fn followed(hashes: &[String]) -> String {
    if hashes.len() > MOST {
        return EVERYONE.to_owned();
    }
    hashes.iter().filter_map(|hash| hash.get(..PREFIX)).collect()
}

/// What was read of the Leases, and when.
#[derive(Debug, Default)]
pub(super) struct Words(tokio::sync::Mutex<Option<(Instant, Arc<Vec<Word>>)>>);

impl PodBackend {
    /// Tells the other replicas whom this one follows, until it is told to stop.
    pub(super) async fn tell_followed(&self, stop: &CancellationToken) {
        let turns = async {
            loop {
                let wait = self.tell_once().await;
                // A hurry is no haste: what joins while it is waited for goes with the same Lease.
                let soon = async {
                    self.hub.orphans.hurry.notified().await;
                    tokio::time::sleep(AT_MOST_EVERY).await;
                };
                match wait {
                    Some(wait) => drop(tokio::time::timeout(wait, soon).await),
                    // The first one is told at once.
                    None => self.hub.orphans.hurry.notified().await,
                }
            }
        };
        stop.run_until_cancelled(turns).await;
    }

    /// Returns when to do it again; `None` if there is nothing to be told.
    async fn tell_once(&self) -> Option<Duration> {
        let now = self.hub.clock.now();
        // Whoever joins from here on calls for a hurry, and who has joined before is seen.
        self.hub.orphans.known().next = None;
        let (hashes, shortest) = self.hub.cared_for()?;
        let every = (shortest / RENEWALS).max(Duration::from_secs(1));
        let path = format!("{}?fieldManager=podbroker&force=true", self.lease_path(&self.replica));
        let done = self.api.call(Method::PATCH, &path, Some(&self.lease(&hashes, every, now))).await;
        let wait = match done {
            Ok(_) => {
                debug!(executions = hashes.len(), "told the other replicas whom this one follows");
                every
            }
            Err(error) => {
                let refused = error.code() == Some(403);
                warn!(
                    error = &error as &dyn std::error::Error,
                    refused, "the other replicas cannot be told whom this one follows"
                );
                if refused { every } else { AT_MOST_EVERY.min(every) }
            }
        };
        self.hub.orphans.known().next = Some(add(now, signed(wait)));
        Some(wait)
    }

    fn lease(&self, hashes: &[String], every: Duration, now: Timestamp) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.replica,
                "labels": { INSTANCE_LABEL: self.settings.instance, TARGET_LABEL: self.settings.target },
                "annotations": { FOLLOWED: followed(hashes) },
            },
            "spec": {
                "holderIdentity": self.replica,
                "leaseDurationSeconds": every.as_secs() + u64::from(every.subsec_nanos() > 0),
                "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            },
        })
    }

    fn lease_path(&self, name: &str) -> String {
        format!("{}/{name}", self.api.all("leases"))
    }

    /// Whether nobody follows an execution by the word of all replicas. If somebody may, that is known from now on.
    pub(super) async fn is_left_alone(&self, hash: &str) -> Result<bool, ApiError> {
        let words = self.words(self.hub.clock.now()).await?;
        // The answer has set the clock.
        let now = self.hub.clock.now();
        let others = words.iter().filter(|word| word.names(hash)).map(|word| word.until).max();
        if let Some(until) = others {
            debug!(hash, %until, "a replica follows it, or did");
            self.hub.orphans.saw(hash, until);
        }
        // Who has come in the meantime counts too.
        Ok(matches!(self.hub.is_followed(hash), Followed::NotHere { alone: Some(from) } if from <= now))
    }

    /// What all replicas have said, read a few seconds ago at most.
    async fn words(&self, now: Timestamp) -> Result<Arc<Vec<Word>>, ApiError> {
        let mut read = self.words.0.lock().await;
        if let Some((_, words)) = read.as_ref().filter(|(at, _)| at.elapsed() < AT_MOST_EVERY) {
            return Ok(Arc::clone(words));
        }
        let selection = Selection { resource: "leases", ..Selection::of_carriers(&self.settings) };
        let mut words = Vec::new();
        self.api.list(&selection, |lease: Lease| words.extend(Word::of(lease))).await?;
        let (old, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| add(word.until, FORGOTTEN_AFTER) < now);
        for word in old {
            debug!(lease = word.lease, "removing the Lease of a replica that is no more");
            let deleted = self.api.call(Method::DELETE, &self.lease_path(&word.lease), None).await;
            if let Err(error) = deleted.map(drop).or_else(|error| error.unless(404)) {
                warn!(lease = word.lease, error = &error as &dyn std::error::Error, "an old Lease stays");
            }
        }
        let words = Arc::new(words);
        *read = Some((Instant::now(), Arc::clone(&words)));
        Ok(words)
    }
}

impl ApiError {
    fn unless(self, code: u16) -> Result<(), Self> {
        if self.code() == Some(code) { Ok(()) } else { Err(self) }
    }
}

#[cfg(test)]
#[path = "orphans_tests.rs"]
mod tests;
