//! How much of the logs that are read is held for those who watch them.

use std::path::PathBuf;

use serde::Deserialize;

use super::error::Problem;

/// How much is held, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// In memory, for one container's log.
    pub memory_per_stream: u64,
    /// In memory, for all logs.
    pub memory: u64,
    /// On disk, for all logs; 0 for none.
    pub disk: u64,
    /// Where; the system's folder for temporary files without.
    pub folder: Option<PathBuf>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { memory_per_stream: 1 << 20, memory: 64 << 20, disk: 1 << 30, folder: None }
    }
}

impl Logs {
    pub(super) fn check(&self) -> Result<(), Problem> {
        // A message and the one after it: with less, every line would go to disk.
        if self.memory_per_stream < 256 << 10 {
            return Err(Problem::new("logs.memory_per_stream", "must be at least 262144"));
        }
        if self.memory < self.memory_per_stream {
            return Err(Problem::new("logs.memory", "must not be less than memory_per_stream"));
        }
        Ok(())
    }
}
