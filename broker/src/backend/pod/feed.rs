//! Keeps in step with one kind of object of a target's namespace: a list, page by page, then a watch from there.
//!
//! An end of the watch is ordinary and is resumed where it was; only an answer that the version is gone (410) makes a new list
//! necessary. A connection that says nothing for longer than a living one would is given up. Failures are repeated ever more
//! slowly, and not by all replicas at the same moment. What is brought goes to an `Intake`, which says what it means.

use std::time::Duration;

use futures::StreamExt as _;
use kube::core::WatchEvent;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::debug;

use super::api::{ApiError, PodApi, WATCH_SECONDS};
use super::selection::Selection;
use crate::backend::Health;

/// The pause after a failure, doubled up to the maximum while failures follow each other.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A watch that was open for so long has served, whatever ended it.
const SERVED: Duration = Duration::from_secs(1);

/// A watch that says nothing for longer than the server keeps it open is dead, however alive the connection looks.
const WATCH_SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);

/// A server that sends bookmarks sends one about every minute, also when nothing happens. When three are missing, nobody is
/// there.
const BOOKMARK_SILENCE: Duration = Duration::from_secs(190);

/// Takes in what a feed brings.
pub(super) trait Intake {
    /// What is listed and watched.
    type Object: DeserializeOwned + Clone + Send + 'static;

    /// The version of an object.
    fn version(object: &Self::Object) -> Option<String>;

    /// A list begins.
    fn begin_list(&mut self);

    /// A list has it.
    fn list(&mut self, object: Self::Object);

    /// The list was whole at this version: what it did not have is no more.
    fn end_list(&mut self, version: u64);

    /// The watch is open.
    fn open(&mut self);

    /// It is new, or has changed.
    fn put(&mut self, object: Self::Object);

    /// It is no more.
    fn remove(&mut self, object: Self::Object);

    /// Everything up to this version was told.
    fn reach(&mut self, version: u64);

    /// It cannot be listed or watched now; returns how long it is left alone at least.
    fn fail(&mut self, error: &ApiError) -> Duration;
}

/// What a target is of which something cannot be listed or watched.
pub(super) fn health_after(error: &ApiError) -> Health {
    match error.code() {
        Some(403) => Health::Refused(error.to_string()),
        _ => Health::Unreachable(error.to_string()),
    }
}

/// How a turn of listing and watching ended.
enum Ended {
    /// It can be resumed from this version.
    At(String),
    /// Its version is gone.
    Expired,
}

/// Lists and watches until it is dropped.
pub(super) async fn run<I: Intake>(api: &PodApi, selection: &Selection, intake: &mut I) {
    let mut pause = FIRST_PAUSE;
    let mut version = None;
    loop {
        let mut opened = None;
        let ended = turn(api, selection, intake, version.take(), &mut opened).await;
        let served = opened.is_some_and(|opened: Instant| opened.elapsed() >= SERVED);
        let mut least = Duration::ZERO;
        match ended {
            Ok(Ended::At(next)) => version = Some(next),
            Ok(Ended::Expired) => debug!(resource = selection.resource, "the watch's version is gone; listing again"),
            Err(error) => least = intake.fail(&error).max(error.retry_after().unwrap_or_default()),
        }
        if served {
            pause = FIRST_PAUSE;
        }
        // Also after an ordinary end, so that a server that ends every watch at once makes no busy loop.
        tokio::time::sleep(least.max(pause).mul_f64(rand::random_range(1.0..1.5))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn turn<I: Intake>(
    api: &PodApi,
    selection: &Selection,
    intake: &mut I,
    from: Option<String>,
    opened: &mut Option<Instant>,
) -> Result<Ended, ApiError> {
    let from = match from {
        Some(from) => from,
        None => match list(api, selection, intake).await {
            // The list took so long that its version was thrown away between two pages.
            Err(error) if error.code() == Some(410) => return Ok(Ended::Expired),
            listed => listed?,
        },
    };
    watch(api, selection, intake, from, opened).await
}

/// Reads all objects, page by page. Returns the version to watch from.
async fn list<I: Intake>(api: &PodApi, selection: &Selection, intake: &mut I) -> Result<String, ApiError> {
    intake.begin_list();
    let version = api.list(selection, |object| intake.list(object)).await?;
    intake.end_list(number(&version));
    Ok(version)
}

async fn watch<I: Intake>(
    api: &PodApi,
    selection: &Selection,
    intake: &mut I,
    mut version: String,
    opened: &mut Option<Instant>,
) -> Result<Ended, ApiError> {
    let events = match api.watch(selection, &version).await {
        Err(error) if error.code() == Some(410) => return Ok(Ended::Expired),
        events => events?,
    };
    *opened = Some(Instant::now());
    intake.open();
    let mut events = std::pin::pin!(events);
    let mut silence = WATCH_SILENCE;
    loop {
        let event = match tokio::time::timeout(silence, events.next()).await {
            Ok(Some(Ok(event))) => event,
            // The server cuts watches when it likes, also in the middle of an event; nothing is lost by going on from the last
            // version. An unreachable server shows itself when the watch is opened again.
            Ok(Some(Err(error))) => {
                debug!(error = &error as &dyn std::error::Error, "the watch broke off; resuming");
                return Ok(Ended::At(version));
            }
            Ok(None) => return Ok(Ended::At(version)),
            Err(_) => {
                debug!(resource = selection.resource, "the watch is silent for too long; resuming");
                return Ok(Ended::At(version));
            }
        };
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                version = I::version(&object).unwrap_or(version);
                intake.put(object);
            }
            WatchEvent::Deleted(object) => {
                version = I::version(&object).unwrap_or(version);
                intake.remove(object);
            }
            WatchEvent::Bookmark(bookmark) => {
                version = bookmark.metadata.resource_version;
                silence = BOOKMARK_SILENCE;
            }
            WatchEvent::Error(status) if status.code == 410 => return Ok(Ended::Expired),
            WatchEvent::Error(status) => return Err(ApiError::Refused(status)),
        }
        intake.reach(number(&version));
    }
}

/// A version as a number; the API server orders them so.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
