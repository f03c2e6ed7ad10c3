//! A store that breaks on command.

use std::collections::BTreeMap;
use std::fmt;

use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// 503, or a connection that is refused.
    Unavailable,
    /// 403.
    Refused,
    /// 404 to everything: there is no such bucket.
    Missing,
    /// A disk without room: what is there can be read and deleted.
    Full,
    /// No answer at all.
    Silent,
    /// An answer after so long.
    Slow(Duration),
    /// What is written is there, and the answer to it is lost.
    AnswersLost,
    /// 409 to what is made once, though nobody has made it.
    Conflict,
}

#[derive(Debug, Default)]
struct Inside {
    objects: InMemory,
    /// What is wrong, and with paths that contain what.
    fault: Mutex<Option<(Fault, &'static str)>>,
    requests: Mutex<BTreeMap<&'static str, u64>>,
    running: AtomicUsize,
    most: AtomicUsize,
    /// Seconds that its clock is behind.
    behind: AtomicI64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Faulty(Arc<Inside>);

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

fn away() -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: "503 Service Unavailable: SlowDown".into() }
}

/// A request, until it is dropped.
struct Running(Arc<Inside>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Faulty {
    /// From now on this is wrong with requests whose path contains that.
    pub(super) fn breaks(&self, fault: Fault, paths: &'static str) {
        *self.0.fault.lock().unwrap() = Some((fault, paths));
    }

    pub(super) fn heals(&self) {
        *self.0.fault.lock().unwrap() = None;
    }

    /// From now on its clock is so many seconds behind that of this machine.
    pub(super) fn lags(&self, seconds: i64) {
        self.0.behind.store(seconds, Ordering::Relaxed);
    }

    /// How many requests of each kind there were; counts anew from here.
    pub(super) fn taken(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.0.requests.lock().unwrap())
    }

    /// How many requests ran at once at most.
    pub(super) fn most(&self) -> usize {
        self.0.most.load(Ordering::Relaxed)
    }

    async fn meet(&self, operation: &'static str, path: &Path) -> object_store::Result<(Running, Option<Fault>)> {
        *self.0.requests.lock().unwrap().entry(operation).or_default() += 1;
        let now = self.0.running.fetch_add(1, Ordering::Relaxed) + 1;
        let running = Running(Arc::clone(&self.0));
        self.0.most.fetch_max(now, Ordering::Relaxed);
        let fault = *self.0.fault.lock().unwrap();
        let fault = fault.filter(|(_, paths)| path.as_ref().contains(paths)).map(|(fault, _)| fault);
        let writes = matches!(operation, "put" | "create");
        let path = path.to_string();
        match fault {
            Some(Fault::Unavailable) => Err(away()),
            Some(Fault::Refused) => {
                Err(object_store::Error::PermissionDenied { path, source: "403 Forbidden: AccessDenied".into() })
            }
            Some(Fault::Missing) => {
                Err(object_store::Error::NotFound { path, source: "404 Not Found: NoSuchBucket".into() })
            }
            Some(Fault::Full) if writes => {
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
                Err(object_store::Error::Generic { store: "LocalFileSystem", source: source.into() })
            }
            Some(Fault::Conflict) if operation == "create" => {
                Err(object_store::Error::AlreadyExists { path, source: "409 ConditionalRequestConflict".into() })
            }
            Some(Fault::Silent) => std::future::pending().await,
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                Ok((running, fault))
            }
            fault => Ok((running, fault)),
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let operation = if options.mode == object_store::PutMode::Create { "create" } else { "put" };
        let (_running, fault) = self.meet(operation, path).await?;
        let done = self.0.objects.put_opts(path, payload, options).await;
        if fault == Some(Fault::AnswersLost) { Err(away()) } else { done }
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        unreachable!("our objects are small")
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let _running = self.meet("get", path).await?;
        self.0.objects.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let this = self.clone();
        let delete = move |path: object_store::Result<Path>| {
            let this = this.clone();
            async move {
                let path = path?;
                let _running = this.meet("delete", &path).await?;
                this.0.objects.delete(&path).await?;
                Ok(path)
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let listing = async move {
            let path = prefix.clone().unwrap_or_default();
            match this.meet("list", &path).await {
                Ok(_running) => {
                    let behind = Duration::from_secs(this.0.behind.load(Ordering::Relaxed).unsigned_abs());
                    let told = move |object: ObjectMeta| {
                        let time = std::time::SystemTime::from(object.last_modified) - behind;
                        ObjectMeta { last_modified: time.into(), ..object }
                    };
                    this.0.objects.list(prefix.as_ref()).map_ok(told).boxed()
                }
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        stream::once(listing).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let _running = self.meet("list", prefix.unwrap_or(&Path::default())).await?;
        self.0.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> object_store::Result<()> {
        unreachable!("nothing is copied")
    }
}
