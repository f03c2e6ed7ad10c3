//! The retention: what ended long ago is deleted.
//!
//! What was begun on a day is listed below that day, so only days that are old enough are looked at. What ended later than it
//! began, or has not ended, moves to a later day. The outcome goes first: from then on the execution is not in the archive,
//! whatever is still there of it. The day goes last, so that a broker that dies meanwhile leaves nothing that nobody finds.
//! Two replicas that do the same at once do no harm. What cannot be read or deleted is left for the next time and keeps
//! nothing else.
//!
//! The time that counts is the store's, as the signs of life tell it: a broker whose clock runs a year ahead must not delete
//! everything. When something ended was told by its cluster, and when it was written by the store.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Archive;
use super::index::{Ended, generations};
use super::store::StoreError;

/// A day is the smallest retention; looking more often than this finds little.
const EVERY: Duration = Duration::from_hours(6);
/// Soon after the start, since a broker may not run for six hours, but not while everything else starts.
const FIRST: Duration = Duration::from_secs(30);
/// So many executions of a day are looked for at once, which is one page of a listing.
const BATCH: usize = 1000;
/// So many objects of an execution are looked for at once; each segment is one.
const OBJECTS: usize = 10_000;

fn day(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// What to do with an execution of a day that is old enough.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judgement {
    Delete,
    /// It is younger than its day.
    MoveTo(Date),
}

/// `latest` is when it ended or, if it has not, when something was last written of it, or now, if it is still being written.
fn judge(latest: Option<Timestamp>, limit: Timestamp) -> Judgement {
    match latest {
        Some(latest) if latest >= limit => Judgement::MoveTo(day(latest)),
        _ => Judgement::Delete,
    }
}

impl Archive {
    /// The name of the day that it is.
    pub(super) fn today(&self) -> String {
        // A wrong day harms nothing: what is young moves to another one.
        day(self.life.now().unwrap_or_else(Timestamp::now)).to_string()
    }

    /// Looks for what has expired until it is told to stop.
    pub(super) async fn expire(self: Arc<Self>, stop: CancellationToken) {
        let mut wait = FIRST;
        loop {
            let jitter = wait.mul_f64(rand::random_range(0.8..1.2));
            if stop.run_until_cancelled(tokio::time::sleep(jitter)).await.is_none() {
                return;
            }
            // A store that has not taken a sign yet is not asked for more.
            let Some(now) = self.life.now() else { continue };
            wait = EVERY;
            match stop.run_until_cancelled(self.sweep(now)).await {
                Some(Ok(0)) => {}
                Some(Ok(expired)) => info!(expired, "executions have left the archive"),
                Some(Err(error)) => {
                    self.trouble.failed(&error);
                    warn!("the archive's retention could not be applied; it is tried again in some hours");
                }
                None => return,
            }
        }
    }

    /// Deletes what has expired at that time; returns how many executions.
    pub(super) async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let retention = SignedDuration::try_from(self.settings.retention).unwrap_or(SignedDuration::MAX);
        let limit = now.saturating_sub(retention).unwrap_or(Timestamp::MIN);
        let mut days: Vec<Date> =
            self.store.folders(&self.store.at(&["days"])).await?.iter().filter_map(|name| name.parse().ok()).collect();
        days.retain(|one| *one < day(limit));
        days.sort_unstable();
        let (mut expired, mut all_left) = (0, 0_u64);
        for one in days {
            let date = one.to_string();
            loop {
                let markers = self.store.list(&self.store.at(&["days", &date]), BATCH).await?;
                let mut left = 0;
                for marker in &markers {
                    let Some(hash) = marker.location.filename() else { continue };
                    let swept = async {
                        let judgement = self.sweep_one(hash, limit, now).await?;
                        self.store.delete(&marker.location).await?;
                        Ok::<_, StoreError>(judgement)
                    };
                    match swept.await {
                        Ok(Judgement::Delete) => expired += 1,
                        Ok(Judgement::MoveTo(_)) => {}
                        Err(error) => {
                            left += 1;
                            self.trouble.failed(&error);
                            debug!(hash, error = &error as &dyn std::error::Error, "left for the next time");
                        }
                    }
                }
                all_left += left;
                if markers.len() < BATCH || left > 0 {
                    break;
                }
            }
        }
        if all_left > 0 {
            warn!(left = all_left, "executions could not be deleted from the archive; it is tried again in some hours");
        }
        self.counters.expired.inc_by(expired);
        Ok(expired)
    }

    async fn sweep_one(&self, hash: &str, limit: Timestamp, now: Timestamp) -> Result<Judgement, StoreError> {
        let mut found = self.store.list(&self.store.execution(hash), OBJECTS).await?;
        let written = |found: &[object_store::ObjectMeta]| {
            found.iter().filter_map(|object| Timestamp::from_second(object.last_modified.timestamp()).ok()).max()
        };
        let latest = match self.store.json::<Ended>(&self.store.outcome(hash)).await {
            Ok(Some(ended)) => ended.execution.ended.or_else(|| written(&found)),
            Ok(None) if self.is_being_written(hash).await? => Some(now),
            // It can be deleted although it cannot be read.
            Ok(None) | Err(StoreError::Damaged { .. }) => written(&found),
            Err(error) => return Err(error),
        };
        let judgement = judge(latest, limit);
        match judgement {
            Judgement::MoveTo(date) => self.store.put(&self.store.day(&date.to_string(), hash), "").await?,
            Judgement::Delete => {
                self.store.delete(&self.store.outcome(hash)).await?;
                while !found.is_empty() {
                    for object in &found {
                        self.store.delete(&object.location).await?;
                    }
                    let is_all = found.len() < OBJECTS;
                    found =
                        if is_all { Vec::new() } else { self.store.list(&self.store.execution(hash), OBJECTS).await? };
                }
            }
        }
        Ok(judgement)
    }

    /// It has no outcome and a writer that is alive, which may have nothing to write for days.
    async fn is_being_written(&self, hash: &str) -> Result<bool, StoreError> {
        let known = generations(&self.store, hash).await?;
        Ok(known.last().is_some_and(|last| self.life.is_alive(&last.claim.writer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_ended_before_the_limit_is_deleted_and_what_did_not_moves() {
        let limit = at("2026-11-01T00:00:00Z");
        assert_eq!(judge(Some(at("2026-10-31T23:59:59Z")), limit), Judgement::Delete);
        assert_eq!(judge(None, limit), Judgement::Delete);
        let moved = Judgement::MoveTo("2026-11-02".parse().unwrap());
        assert_eq!(judge(Some(at("2026-11-02T10:00:00Z")), limit), moved);
    }
}
