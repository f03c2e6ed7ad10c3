//! Where logs are read: the API server, or a model of it in a test.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use super::super::api::{ApiError, LogRequest, PodApi};

/// Why an answer broke off.
pub(super) type BrokeOff = Box<dyn std::error::Error + Send + Sync>;

/// The bytes of an answer.
pub(super) type Body = BoxStream<'static, Result<Bytes, BrokeOff>>;

/// Gives logs.
pub(super) trait LogSource: Send + Sync {
    /// A container's log, as the bytes come.
    fn log<'a>(&'a self, pod_name: &'a str, log: &'a LogRequest<'a>) -> BoxFuture<'a, Result<Body, ApiError>>;

    /// The cluster's time, in nanoseconds since 1970.
    fn now(&self) -> i64;
}

impl LogSource for PodApi {
    fn log<'a>(&'a self, pod_name: &'a str, log: &'a LogRequest<'a>) -> BoxFuture<'a, Result<Body, ApiError>> {
        async move { Ok(PodApi::log(self, pod_name, log).await?.map_err(BrokeOff::from).boxed()) }.boxed()
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock().now().as_nanosecond()).unwrap_or(i64::MAX)
    }
}
