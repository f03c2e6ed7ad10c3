//! A job of AWS Batch, on the command line.

use std::path::PathBuf;

use clap::Args;
use podbroker_client::proto;

use super::Failure;
use super::parse::pair;

/// What says what a pod is; beside one of these an option of a job means nothing.
const OF_A_POD: [&str; 6] = ["file", "image", "env", "command", "name", "entrypoint"];

/// A job from a job definition, at a target with AWS Batch.
#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "the names of the options")]
pub(crate) struct BatchArgs {
    /// Run a job of AWS Batch from this definition instead of a pod: name, name:revision or ARN
    #[arg(long, value_name = "DEFINITION", conflicts_with_all = OF_A_POD)]
    batch_definition: Option<String>,
    /// The job's queue [default: the target's]
    #[arg(long, value_name = "QUEUE", requires = "batch_definition", conflicts_with_all = OF_A_POD)]
    batch_queue: Option<String>,
    /// A value for a placeholder of the definition; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, requires = "batch_definition", conflicts_with_all = OF_A_POD)]
    batch_parameter: Vec<(String, String)>,
    /// Run it as an array of so many children
    #[arg(long, value_name = "SIZE", value_parser = clap::value_parser!(i32).range(2..=10_000), requires = "batch_definition", conflicts_with_all = OF_A_POD)]
    batch_array: Option<i32>,
    /// Let AWS Batch make up to so many attempts; excludes --retry-infra
    #[arg(long, value_name = "ATTEMPTS", value_parser = clap::value_parser!(i32).range(1..=10), requires = "batch_definition", conflicts_with_all = OF_A_POD)]
    batch_attempts: Option<i32>,
    /// A file with `eksPropertiesOverride` as JSON
    #[arg(long, value_name = "FILE", requires = "batch_definition", conflicts_with_all = OF_A_POD)]
    batch_override: Option<PathBuf>,
}

impl BatchArgs {
    /// As the contract has it; none for a pod.
    pub(crate) fn workload(&self) -> Result<Option<proto::BatchWorkload>, Failure> {
        let Some(job_definition) = self.batch_definition.clone() else { return Ok(None) };
        let overrides = self
            .batch_override
            .as_ref()
            .map(|path| std::fs::read(path).map_err(|cause| Failure::Usage(format!("{}: {cause}", path.display()))));
        Ok(Some(proto::BatchWorkload {
            job_definition,
            job_queue: self.batch_queue.clone().unwrap_or_default(),
            parameters: self.batch_parameter.iter().cloned().collect(),
            array_size: self.batch_array.unwrap_or_default(),
            attempts: self.batch_attempts.unwrap_or_default(),
            eks_properties_override_json: overrides.transpose()?.unwrap_or_default(),
            ..Default::default()
        }))
    }
}
