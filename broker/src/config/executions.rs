//! What a target's executions are.

use serde::Deserialize;

use super::Target;
use super::error::Problem;

/// What the executions of a target are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Executions {
    /// Pods, or jobs of AWS Batch at a target with a queue.
    #[default]
    Pods,
    /// Jobs of the cluster (`batch/v1`).
    Jobs,
}

impl Target {
    pub(super) fn check_executions(&self) -> Result<(), Problem> {
        if self.executions == Executions::Jobs && self.batch.is_some() {
            let why = "\"jobs\" and a table `batch` exclude each other: its executions are Jobs of the cluster, or of AWS Batch";
            return Err(Problem::new("executions", why));
        }
        Ok(())
    }
}
