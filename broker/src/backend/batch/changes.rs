//! What descriptions have brought, for the engine to take: the latest of each job. A slow taker misses steps in between and never
//! the last one, and what waits is bounded by how many jobs are followed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::Notify;

use crate::backend::job::Job;

/// Jobs that have changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    jobs: Mutex<BTreeMap<String, Job>>,
    news: Notify,
}

impl Changes {
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, job: Job) {
        self.jobs().insert(job.id.clone(), job);
        self.news.notify_one();
    }

    /// All that changes; does not end.
    pub(super) fn stream(self: Arc<Self>) -> BoxStream<'static, Job> {
        stream::unfold(self, |changes| async {
            loop {
                let next = changes.jobs().pop_first();
                match next {
                    Some((_, job)) => return Some((job, changes)),
                    None => changes.news.notified().await,
                }
            }
        })
        .boxed()
    }
}
