//! Takes in what the watch on Jobs brings.

use std::collections::HashSet;
use std::time::Duration;

use tracing::{debug, warn};

use super::super::api::ApiError;
use super::super::feed::{Intake, health_after};
use super::index::Index;
use super::object::JobObject;
use crate::backend::Health;

/// Keeps an index in step.
pub(super) struct JobIntake<'a> {
    index: &'a Index,
    /// The ids that the list under way has brought.
    listed: HashSet<String>,
}

impl<'a> JobIntake<'a> {
    pub(super) fn new(index: &'a Index) -> Self {
        Self { index, listed: HashSet::new() }
    }
}

impl Intake for JobIntake<'_> {
    type Object = JobObject;

    fn version(job: &JobObject) -> Option<String> {
        job.metadata.resource_version.clone()
    }

    fn begin_list(&mut self) {
        self.listed.clear();
    }

    fn list(&mut self, job: JobObject) {
        self.index.put(&job);
        self.listed.insert(job.id());
    }

    fn end_list(&mut self, version: u64) {
        self.index.keep(&std::mem::take(&mut self.listed), version);
        self.index.set_health(Health::Serving);
        debug!("in step with the target's Jobs");
    }

    fn open(&mut self) {
        self.index.set_health(Health::Serving);
    }

    fn put(&mut self, job: JobObject) {
        self.index.put(&job);
    }

    fn remove(&mut self, job: JobObject) {
        self.index.remove(&job);
    }

    fn reach(&mut self, _: u64) {}

    fn fail(&mut self, error: &ApiError) -> Duration {
        warn!(error = error as &dyn std::error::Error, "the target's Jobs cannot be watched");
        self.index.set_health(health_after(error));
        Duration::ZERO
    }
}
