//! The archive.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::error::Problem;
use super::{Target, TargetKind, duration};
use crate::execution::TargetName;

/// Where logs and outcomes are kept beyond their pods.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// A folder or a bucket.
    pub url: ArchiveUrl,
    /// The bucket's region; `AWS_REGION` without.
    pub region: Option<String>,
    /// The EKS target whose role reaches the bucket; the broker's own credentials without.
    pub credentials_of: Option<TargetName>,
    /// How long an execution is kept after its end.
    #[serde(default = "default_retention", with = "duration")]
    pub retention: Duration,
    /// A segment is written when so many bytes are together.
    #[serde(default = "default_segment_bytes")]
    pub segment_bytes: usize,
    /// Or when its first line is so old.
    #[serde(default = "default_flush", with = "duration")]
    pub flush: Duration,
    /// How much all segments that are not written yet may hold.
    #[serde(default = "default_memory_bytes")]
    pub memory_bytes: usize,
    /// How long a pod whose deletion is due waits for the archive.
    #[serde(default = "default_patience", with = "duration")]
    pub patience: Duration,
}

fn default_retention() -> Duration {
    Duration::from_hours(30 * 24)
}

fn default_segment_bytes() -> usize {
    1 << 20
}

fn default_flush() -> Duration {
    Duration::from_mins(5)
}

fn default_memory_bytes() -> usize {
    64 << 20
}

fn default_patience() -> Duration {
    Duration::from_mins(10)
}

/// Where the archive is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ArchiveUrl {
    /// A folder; all replicas must see the same one.
    File(PathBuf),
    /// A bucket of S3, or of a store that speaks like it.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// A folder in it; may be empty.
        prefix: String,
    },
}

impl TryFrom<String> for ArchiveUrl {
    type Error = &'static str;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        if let Some(path) = url.strip_prefix("file://") {
            return if path.starts_with('/') { Ok(Self::File(path.into())) } else { Err(NO_URL) };
        }
        let rest = url.strip_prefix("s3://").ok_or(NO_URL)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'.' || c == b'-';
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_name) {
            return Err(NO_URL);
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

const NO_URL: &str = "must be \"file:///folder\" or \"s3://bucket/prefix\"";

impl fmt::Display for ArchiveUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(folder) => write!(f, "file://{}", folder.display()),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Archive {
    pub(super) fn check(&self, targets: &[Target]) -> Result<(), Problem> {
        let day = Duration::from_hours(24);
        if !(day..=3650 * day).contains(&self.retention) {
            return Err(Problem::new("archive.retention", "must be \"1d\" to \"3650d\""));
        }
        if !(16 << 10..=8 << 20).contains(&self.segment_bytes) {
            return Err(Problem::new("archive.segment_bytes", "must be 16384 to 8388608"));
        }
        if !(Duration::from_secs(1)..=Duration::from_hours(1)).contains(&self.flush) {
            return Err(Problem::new("archive.flush", "must be \"1s\" to \"1h\""));
        }
        if self.memory_bytes < self.segment_bytes {
            return Err(Problem::new("archive.memory_bytes", "must be at least archive.segment_bytes"));
        }
        if self.patience > day {
            return Err(Problem::new("archive.patience", "must be at most \"24h\""));
        }
        if self.region.is_some() && matches!(self.url, ArchiveUrl::File(_)) {
            return Err(Problem::new("archive.region", "only applies to a bucket"));
        }
        self.check_credentials(targets)
    }

    /// Only a role of a target is worth naming; everything else is the broker's own.
    fn check_credentials(&self, targets: &[Target]) -> Result<(), Problem> {
        let Some(name) = &self.credentials_of else { return Ok(()) };
        let problem = |reason: String| Err(Problem::new("archive.credentials_of", reason));
        if matches!(self.url, ArchiveUrl::File(_)) {
            return problem("only applies to a bucket".to_owned());
        }
        let has_role = |target: &&Target| target.kind == TargetKind::Eks && !target.role_arn.is_empty();
        let Some(target) = targets.iter().find(|target| target.name == *name) else {
            let names: Vec<_> = targets.iter().filter(has_role).map(|target| target.name.as_str()).collect();
            let hint = match &names[..] {
                [] => "and none has a role: leave it out to use the broker's own credentials".to_owned(),
                names => format!("those with a role are: {}", names.join(", ")),
            };
            return problem(format!("no target has the name {name}; {hint}"));
        };
        if target.kind != TargetKind::Eks {
            return problem(format!(
                "the target {name} is not of the kind \"eks\" and has no AWS role; leave it out to use the broker's own \
                 credentials"
            ));
        }
        if target.role_arn.is_empty() {
            return problem(format!(
                "the target {name} has no role_arn: its credentials are the broker's own, which are used without this key"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_folder_or_a_bucket() {
        let url = |text: &str| ArchiveUrl::try_from(text.to_owned());
        assert_eq!(url("file:///var/lib/x"), Ok(ArchiveUrl::File("/var/lib/x".into())));
        let s3 = |bucket: &str, prefix: &str| ArchiveUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        assert_eq!(url("s3://logs"), Ok(s3("logs", "")));
        assert_eq!(url("s3://logs/a/b/"), Ok(s3("logs", "a/b")));
        for bad in ["", "logs", "file://relative", "s3://", "s3://A", "http://x", "gs://logs"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
