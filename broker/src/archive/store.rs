//! Objects: where each is kept, and how one is written, read, listed and deleted.
//!
//! ```text
//! writers/{writer}                         a sign of life of a replica, written again and again
//! days/{date}/{execution}                  what was begun on that day, for the retention
//! executions/{execution}/outcome.json      how it ended; made once, last of all
//! executions/{execution}/{generation}/claim.json          who writes it, and from where on; made once
//! executions/{execution}/{generation}/index-{page}.json   what stands in which segment
//! executions/{execution}/{generation}/{number}.gz         a segment
//! ```
//!
//! All of it is below `{prefix}/{instance}`. `{execution}` is the execution's hash, which its tenant and its target are part
//! of. Every request has a deadline, only so many run at once, and nothing is read that is larger than what we write.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};

use crate::error::Error;
use crate::telemetry::ArchiveCounters;

/// One request of a writer, with the store's own second and third try.
const LIMIT: Duration = Duration::from_secs(30);
/// The same while a caller waits for the answer.
const CALLERS_LIMIT: Duration = Duration::from_secs(10);
/// More at once make none of them faster, and each holds an object in memory.
const AT_ONCE: usize = 32;
/// In bytes. The largest of ours is a segment of at most 8 MiB and one event more, before compression.
const MAX_OBJECT: u64 = 16 << 20;

/// Why an object cannot be had or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The store says no, or nothing.
    #[error("the archive cannot {operation} {path}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: Path,
        /// What the store said.
        source: object_store::Error,
    },
    /// The store did not answer in time.
    #[error("the archive did not answer within {} s: {operation} {path}", .limit.as_secs())]
    Late {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: Path,
        /// How long it was waited for.
        limit: Duration,
    },
    /// It was changed, or a newer broker wrote it, or it is none of ours.
    #[error("the archive's {path} cannot be understood")]
    Damaged {
        /// Which object.
        path: Path,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// So many writers have taken over from each other that there is no name for one more.
    #[error("the archive has no place for another writer in {path}")]
    Full {
        /// The execution's folder.
        path: Path,
    },
}

/// What kind of trouble it is: each is for other people to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It does not answer, or asks for patience.
    Away,
    /// It was understood and says no.
    Refused,
    /// It has no room.
    Full,
    /// What is in it cannot be read.
    Damaged,
}

impl Reason {
    /// What to do about it.
    pub fn fix(self) -> &'static str {
        match self {
            Self::Away => {
                "check that the store answers and that the broker may reach it (network, endpoint, AWS_ENDPOINT_URL_S3); it is \
                 tried again and again"
            }
            Self::Refused => {
                "check that the bucket exists, the credentials ([aws] credentials, or the role of archive.credentials_of), the \
                 policy of their role (k8s/aws/archive-policy.json), the bucket's own policy and its encryption key's"
            }
            Self::Full => "make room in the store, or shorten archive.retention",
            Self::Damaged => "look at the object that the log names: it was changed, or a newer broker wrote it",
        }
    }
}

impl StoreError {
    /// What kind of trouble it is.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Damaged { .. } => Reason::Damaged,
            Self::Full { .. } => Reason::Full,
            Self::Failed { source, .. } if is_full(source) => Reason::Full,
            Self::Failed { .. } if self.is_refusal() => Reason::Refused,
            Self::Failed { .. } | Self::Late { .. } => Reason::Away,
        }
    }

    /// The store was understood and does not want this, so asking again is of no use.
    pub(super) fn is_refusal(&self) -> bool {
        use object_store::Error::{NotFound, NotImplemented, NotSupported, PermissionDenied, Unauthenticated};
        matches!(
            self,
            Self::Failed {
                source: NotFound { .. }
                    | NotImplemented { .. }
                    | NotSupported { .. }
                    | PermissionDenied { .. }
                    | Unauthenticated { .. },
                ..
            }
        )
    }

    /// Neither time nor a right mends this: there is no such bucket, or the store cannot do what is asked of it.
    pub(super) fn is_misplaced(&self) -> bool {
        use object_store::Error::{NotFound, NotImplemented, NotSupported};
        matches!(self, Self::Failed { source: NotFound { .. } | NotImplemented { .. } | NotSupported { .. }, .. })
    }
}

/// A file system without room says so somewhere in the causes.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let here =
        error.downcast_ref::<std::io::Error>().is_some_and(|io| matches!(io.kind(), StorageFull | QuotaExceeded));
    here || error.source().is_some_and(is_full)
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::archive(error)
    }
}

/// Whether an object that is made once was made by this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Now,
    Before,
}

/// The store, from one folder on.
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    limit: Duration,
    permits: Semaphore,
    /// The last request got no answer.
    away: Arc<watch::Sender<bool>>,
    counters: ArchiveCounters,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Store {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, root: Path, counters: ArchiveCounters) -> Self {
        let away = Arc::new(watch::Sender::new(false));
        Self { objects, root, limit: LIMIT, permits: Semaphore::new(AT_ONCE), away, counters }
    }

    /// The same store for requests that somebody waits for: they do not queue behind those of the writers.
    pub(super) fn aside(&self) -> Self {
        Self {
            objects: Arc::clone(&self.objects),
            root: self.root.clone(),
            limit: CALLERS_LIMIT,
            permits: Semaphore::new(AT_ONCE),
            away: Arc::clone(&self.away),
            counters: self.counters.clone(),
        }
    }

    /// Whether the last request got no answer. The signs of life try it again and again.
    pub(super) fn is_away(&self) -> bool {
        *self.away.borrow()
    }

    /// Notes whether there is an answer.
    pub(super) fn set_away(&self, is_away: bool) {
        self.away.send_if_modified(|was| std::mem::replace(was, is_away) != is_away);
    }

    /// Waits until the store is away, or is not.
    pub(super) async fn until(&self, is_away: bool) {
        // The sender lives as long as we do.
        let _ = self.away.subscribe().wait_for(|now| *now == is_away).await;
    }

    /// A path below the root.
    pub(super) fn at(&self, parts: &[&str]) -> Path {
        parts.iter().fold(self.root.clone(), |path, part| path.join(*part))
    }

    /// Everything of an execution.
    pub(super) fn execution(&self, hash: &str) -> Path {
        self.at(&["executions", hash])
    }

    pub(super) fn outcome(&self, hash: &str) -> Path {
        self.at(&["executions", hash, "outcome.json"])
    }

    /// An object of a generation.
    pub(super) fn generation(&self, hash: &str, generation: u32, name: &str) -> Path {
        self.at(&["executions", hash, &format!("{generation:04}"), name])
    }

    pub(super) fn day(&self, date: &str, hash: &str) -> Path {
        self.at(&["days", date, hash])
    }

    async fn run<T>(
        &self,
        operation: &'static str,
        path: &Path,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        self.counters.request(operation);
        let limit = self.limit;
        let done = match tokio::time::timeout(limit, work).await {
            Ok(done) => done.map_err(|source| StoreError::Failed { operation, path: path.clone(), source }),
            Err(_) => Err(StoreError::Late { operation, path: path.clone(), limit }),
        };
        let is_away = matches!(
            done,
            Err(StoreError::Late { .. } | StoreError::Failed { source: object_store::Error::Generic { .. }, .. })
        );
        self.set_away(is_away);
        done
    }

    /// Makes an object that nobody has made yet.
    pub(super) async fn create(&self, path: &Path, content: impl Into<Bytes>) -> Result<Made, StoreError> {
        let payload = PutPayload::from(content.into());
        let put = self.objects.put_opts(path, payload, PutMode::Create.into());
        match self.run("create", path, put).await {
            Ok(_) => Ok(Made::Now),
            Err(StoreError::Failed { source: object_store::Error::AlreadyExists { .. }, .. }) => Ok(Made::Before),
            Err(error) => Err(error),
        }
    }

    /// Writes an object, whether there is one or not.
    pub(super) async fn put(&self, path: &Path, content: impl Into<Bytes>) -> Result<(), StoreError> {
        let payload = PutPayload::from(content.into());
        self.run("write", path, self.objects.put(path, payload)).await.map(drop)
    }

    /// Reads an object, if there is one.
    pub(super) async fn get(&self, path: &Path) -> Result<Option<Bytes>, StoreError> {
        let read = async {
            let found = self.objects.get(path).await?;
            if found.meta.size > MAX_OBJECT {
                return Ok(None);
            }
            found.bytes().await.map(Some)
        };
        match self.run("read", path, read).await {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => Err(damaged(path, "it is larger than any object of ours")),
            Err(StoreError::Failed { source: object_store::Error::NotFound { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads an object of ours, if there is one. One that is not JSON of that kind is damaged, or newer than we are.
    pub(super) async fn json<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, StoreError> {
        let Some(bytes) = self.get(path).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(path, error))
    }

    /// What is below a path, at most so many, in the order of the names.
    pub(super) async fn list(&self, path: &Path, at_most: usize) -> Result<Vec<ObjectMeta>, StoreError> {
        let listing = self.objects.list(Some(path)).take(at_most).try_collect();
        let mut found: Vec<_> = self.run("list", path, listing).await?;
        found.sort_unstable_by(|a: &ObjectMeta, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// The names of the folders right below a path.
    pub(super) async fn folders(&self, path: &Path) -> Result<Vec<String>, StoreError> {
        let found = self.run("list", path, self.objects.list_with_delimiter(Some(path))).await?;
        Ok(found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    /// Deletes an object; one that is gone is fine.
    pub(super) async fn delete(&self, path: &Path) -> Result<(), StoreError> {
        match self.run("delete", path, self.objects.delete(path)).await {
            Err(StoreError::Failed { source: object_store::Error::NotFound { .. }, .. }) => Ok(()),
            done => done,
        }
    }
}

fn damaged(path: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Damaged { path: path.clone(), source: why.into() }
}
