//! When a job is described next: a pure function of what is known of it.

use std::time::Duration;

use crate::backend::job::{Job, JobState};

/// A job that waits for room or for its pod: only AWS Batch tells of it.
const WAITING: Duration = Duration::from_secs(30);
/// A job whose pod is watched: AWS Batch is asked only in case that the watch misses something.
const WATCHED: Duration = Duration::from_mins(1);

/// Those that were hastened within so long are described together.
const GATHER: Duration = Duration::from_millis(50);

const fn milliseconds<const N: usize>(steps: [u64; N]) -> [Duration; N] {
    let mut durations = [Duration::ZERO; N];
    let mut index = 0;
    while index < N {
        durations[index] = Duration::from_millis(steps[index]);
        index += 1;
    }
    durations
}

/// After the submit: what is wrong with a job shows in its first seconds.
const NEW: [Duration; 4] = milliseconds([2_000, 4_000, 8_000, 16_000]);
/// After something has happened to it: mostly its end, which AWS Batch notices within seconds.
const HASTENED: [Duration; 14] =
    milliseconds([250, 500, 1_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 4_000, 8_000, 16_000]);

/// After somebody has said that it has ended: a description may lag behind, and what was said may be untrue.
const TOLD: [Duration; 3] = milliseconds([1_000, 4_000, 16_000]);

/// Why a job is described when it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It was just made; so many descriptions since.
    New(usize),
    /// Something has happened to it; so many descriptions since.
    Hastened(usize),
    /// Somebody has said that it has ended; so many descriptions since.
    Told(usize),
    /// Nothing is expected.
    Resting,
}

impl Pace {
    /// The pace after a description, and how long it is until the next one.
    pub(super) fn next(self, job: Option<&Job>) -> (Self, Duration) {
        match self {
            Self::New(step) if step < NEW.len() => (Self::New(step + 1), NEW[step]),
            Self::Hastened(step) if step < HASTENED.len() => (Self::Hastened(step + 1), HASTENED[step]),
            Self::Told(step) if step < TOLD.len() => (Self::Told(step + 1), TOLD[step]),
            Self::New(_) | Self::Hastened(_) | Self::Told(_) | Self::Resting => (Self::Resting, rest(job)),
        }
    }

    /// The pace of a job to which something has happened, and how long it is until its description.
    pub(super) fn hastened() -> (Self, Duration) {
        (Self::Hastened(0), GATHER)
    }

    /// The pace of a job after somebody has said that it has ended. Something that we know of goes before what we hear of.
    pub(super) fn told(self) -> Self {
        match self {
            Self::Hastened(step) => Self::Hastened(step),
            Self::New(_) | Self::Told(_) | Self::Resting => Self::Told(0),
        }
    }

    /// The pace of a job that was made, and how long it is until its first description.
    pub(super) fn made() -> (Self, Duration) {
        (Self::New(1), NEW[0])
    }

    /// Whether it matters when exactly; if not, descriptions are brought together.
    pub(super) fn is_urgent(self) -> bool {
        matches!(self, Self::Hastened(_))
    }
}

fn rest(job: Option<&Job>) -> Duration {
    let has_pod = |job: &Job| {
        matches!(job.state, JobState::Starting | JobState::Running)
            && job.attempts.last().is_some_and(|attempt| attempt.stopped.is_none())
    };
    if job.is_some_and(has_pod) { WATCHED } else { WAITING }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_ends_is_looked_at_within_a_second_and_then_less_and_less() {
        let (mut pace, first) = Pace::hastened();
        assert!(first <= Duration::from_millis(100));
        let mut waits = Vec::new();
        while pace != Pace::Resting {
            let (next, wait) = pace.next(None);
            waits.push(wait);
            pace = next;
        }
        assert_eq!(waits[..4].iter().map(Duration::as_millis).collect::<Vec<_>>(), [250, 500, 1_000, 2_000]);
        assert!(waits.is_sorted() && waits.last() == Some(&WAITING));
    }
}
