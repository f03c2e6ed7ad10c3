//! What is due for a record next: a pure function of the record, its job and its pods.
//!
//! A record goes through three stages. Without a job it belongs to the replica that took on to submit one, and after the settling
//! delay to whoever looks first whether one was made; a pod of the job that is seen before tells it sooner. With a job it waits for the job's end, and asks for that again and again
//! where somebody wants it. With an outcome it is like any other carrier, but for one last look for jobs that should not be.

use jiff::{SignedDuration, Timestamp};

use super::super::clock::add;
use super::super::view::View;
use super::status::{Queue, have_said_all, queue};
use super::{Record, RecordSettings, Turn};

/// So long after the job's end its pods' last words are waited for.
const LAST_WORDS: SignedDuration = SignedDuration::from_secs(5);

/// What is to be done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::pod) enum Step {
    /// Its submit was not answered, and a pod tells which job was made.
    Adopt,
    /// Its submit was not answered in time, or not settled: find out whether there is a job.
    Settle,
    /// Somebody deleted it while its job lives.
    Renounce,
    /// The job is to end.
    End,
    /// The job has waited in its queue for too long.
    EndQueued,
    /// The job has ended: write down how.
    Conclude,
    /// Look for jobs beside the known one.
    Sweep,
}

/// What is due for the latest attempt of a record, and from when on.
pub(super) fn next(view: &View, record: &Record, settings: &RecordSettings) -> Option<(Timestamp, Step)> {
    let settle = SignedDuration::try_from(settings.settle).unwrap_or(SignedDuration::MAX);
    if record.turn != Turn::Latest {
        return None;
    }
    let sweep = sweep(record, settle).map(|at| (at, Step::Sweep));
    if record.written.is_some() {
        return sweep;
    }
    if record.made.is_none() {
        // One request was sent, so there is one job. After that there may be several, and a pod does not tell which is the oldest.
        let is_alone = record.submitting.number == 1 && record.doubt.is_none();
        if record.heard.is_some() && is_alone {
            return Some((record.submitting.at, Step::Adopt));
        }
        return Some((add(record.submitting.at, settle), Step::Settle));
    }
    if record.has_ended() {
        let heard = record.ended.unwrap_or(Timestamp::MIN);
        let at = if have_said_all(record) { heard } else { add(heard, LAST_WORDS) };
        return Some((at, Step::Conclude));
    }
    let wanted = match (&view.cancel, view.delete_requested) {
        (Some(intent), _) => Some((intent.at, Step::End)),
        (None, Some(at)) => Some((at, Step::Renounce)),
        (None, None) => None,
    };
    // Before the job was described nobody knows that it waits, or why.
    let waits = || record.job.is_some() && matches!(queue(view), Some(Queue::Waits(_)));
    let queued = settings.queue_deadline.filter(|_| wanted.is_none() && waits());
    let queued = queued.and_then(|limit| {
        let limit = SignedDuration::try_from(limit).ok()?;
        Some((add(view.created?, limit), Step::EndQueued))
    });
    wanted.into_iter().chain(queued).chain(sweep).min_by_key(|(at, _)| *at)
}

/// When others than the known job are looked for: a settling delay after the last doubt, when lists have everything, and once
/// more after the end.
fn sweep(record: &Record, settle: SignedDuration) -> Option<Timestamp> {
    let doubt = record.doubt.as_ref()?;
    let known = record.made.as_ref().map(|made| made.at).or(record.written.as_ref().map(|written| written.at))?;
    match (doubt.swept, &record.written) {
        (0, _) => Some(add(doubt.since.max(known), settle)),
        (1, Some(written)) => Some(written.at),
        _ => None,
    }
}

#[cfg(test)]
#[path = "next_tests.rs"]
mod tests;
