//! From the configuration's archive to one that is open.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::targets::{credentials_mode, role_settings};
use crate::archive::{Archive, OpenError, Place, Settings};
use crate::config::{ArchiveUrl, Config};
use crate::identity::s3::{self, BucketError, BucketRole, BucketSettings};
use crate::telemetry::ArchiveCounters;

/// Why the archive cannot be used.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The folder cannot be made.
    #[error("the archive's folder {} cannot be used", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: object_store::Error,
    },
    /// The folder cannot be made.
    #[error("the archive's folder {} cannot be made", .folder.display())]
    NoFolder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bucket cannot be opened.
    #[error("the archive cannot be opened")]
    Bucket(#[from] BucketError),
    /// It can be opened and not used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Opens the archive, if there is to be one, and tries it: what is configured wrong is told by not starting. A bucket that
/// is away, or refuses, keeps no broker from its other work, no more than when that begins later: who may reach a bucket is
/// changed by others, and a restart must not turn their mistake into an outage of everything.
pub(super) async fn open(
    config: &Config,
    counters: &ArchiveCounters,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Option<Arc<Archive>>, ArchiveError> {
    let Some(archive) = &config.archive else { return Ok(None) };
    let (objects, prefix, place): (Arc<dyn ObjectStore>, &str, Place) = match &archive.url {
        ArchiveUrl::File(folder) => {
            let failed = |source| ArchiveError::NoFolder { folder: folder.clone(), source };
            std::fs::create_dir_all(folder).map_err(failed)?;
            let failed = |source| ArchiveError::Folder { folder: folder.clone(), source };
            // What is said to be durable is on the disk.
            (
                Arc::new(
                    LocalFileSystem::new_with_prefix(folder)
                        .map_err(failed)?
                        .with_fsync(true)
                        .with_automatic_cleanup(true),
                ),
                "",
                Place::Here,
            )
        }
        ArchiveUrl::S3 { bucket, prefix } => {
            let role = archive.credentials_of.as_ref().and_then(|name| {
                let target = config.targets.iter().find(|target| target.name == *name)?;
                let settings = role_settings(config, target)?;
                Some(BucketRole { settings, region: target.region.clone() })
            });
            let settings = BucketSettings {
                bucket: bucket.clone(),
                root: Archive::root(prefix, &config.instance),
                region: archive.region.clone(),
                mode: credentials_mode(config.aws.credentials),
                role,
            };
            (s3::bucket(settings).await?, prefix, Place::Elsewhere)
        }
    };
    let settings = Settings {
        instance: config.instance.clone(),
        retention: archive.retention,
        segment_bytes: archive.segment_bytes,
        flush: archive.flush,
        memory: archive.memory_bytes,
        patience: archive.patience,
        place,
    };
    let opened = Archive::open(settings, objects, prefix, counters.clone(), tasks, stop).await?;
    let credentials_of = archive.credentials_of.as_ref().map(ToString::to_string);
    info!(url = %archive.url, retention = ?archive.retention, credentials_of, "an archive");
    Ok(Some(opened))
}
