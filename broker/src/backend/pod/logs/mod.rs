//! The logs of a target's containers: each instance is followed once, for everybody who watches it.
//!
//! The first watcher of an instance opens its stream, and it is closed when all have had its end, or have been away for a while. `stream` reads from
//! the API and never waits for a watcher, so the kubelet is read as fast as it gives: what it holds back, it may lose.
//! `shared` keeps what was read until everybody had it, in memory and on disk within the limits of `spool`. `watcher` is the
//! way of one watcher. What the cluster has no longer comes from where it was shipped to, by `shipped`. Each line comes once and in order, or a gap says that lines are missing.

mod continuity;
mod reader;
mod search;
mod settle;
mod shared;
mod shipped;
mod source;
mod spool;
mod status;
mod stream;
mod watcher;

#[cfg(test)]
mod kubelet;
#[cfg(test)]
mod kubelet_properties;
#[cfg(test)]
mod kubelet_tests;
#[cfg(test)]
mod play;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use self::shared::{Appender, Shared, Subscription, Watchers};
use self::shipped::Wanted;
use self::source::LogSource;
use self::status::Status;
use super::api::PodApi;
use super::chunk::LogItem;
use super::place::{LogStart, ReadMode};
use super::view::View;
use crate::backend::log_group::{LogGroup, ShippedContainer};
use crate::execution::{Gap, Instance, InstancePosition, Position};

pub use self::spool::{Spool, SpoolLimits, SpoolUse};

/// How long an instance is read on for a watcher that went before the end, and what it has not had is kept: the time in which a
/// client whose connection broke is back, also from a machine that is too busy to notice at once.
const LINGER: Duration = Duration::from_mins(1);

/// The pod's uid, the container and the restart.
type Key = (String, String, u32);

/// What a watch reads from.
pub(super) struct Sources {
    pub(super) api: PodApi,
    pub(super) logs: Arc<Logs>,
}

/// The logs of one target.
pub(super) struct Logs {
    source: Arc<dyn LogSource>,
    /// Where lines are shipped to.
    group: Option<Arc<dyn LogGroup>>,
    spool: Arc<Spool>,
    tasks: TaskTracker,
    stop: CancellationToken,
    streams: Mutex<HashMap<Key, Arc<Shared>>>,
}

impl Logs {
    /// Reads from the target; what is read ends with `stop`.
    pub(super) fn new(
        api: PodApi,
        group: Option<Arc<dyn LogGroup>>,
        spool: Arc<Spool>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        Self::from_source(Arc::new(api), group, spool, tasks, stop)
    }

    fn from_source(
        source: Arc<dyn LogSource>,
        group: Option<Arc<dyn LogGroup>>,
        spool: Arc<Spool>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let (tasks, stop) = (tasks.clone(), stop.clone());
        Arc::new(Self { source, group, spool, tasks, stop, streams: Mutex::default() })
    }

    /// The lines of an instance for one watcher. Once `stop` is cancelled they end, behind what was read of them by then.
    pub(super) fn read(
        self: &Arc<Self>,
        view: watch::Receiver<Arc<View>>,
        instance: Instance,
        start: LogStart,
        stop: CancellationToken,
    ) -> impl Stream<Item = LogItem> + Send + use<> {
        watcher::watch(Arc::clone(self), Status::new(view, instance), start, stop)
    }

    /// The lines of an instance whose pod nobody has seen, if they may have been shipped; `gap` is told if they were not.
    pub(super) fn read_shipped(
        &self,
        of: ShippedContainer,
        position: InstancePosition,
        ended: Option<Timestamp>,
        gap: Gap,
    ) -> Option<BoxStream<'static, LogItem>> {
        let group = self.group.clone()?;
        let nanos = |time: Timestamp| i64::try_from(time.as_nanosecond()).ok();
        let (ended, now) = (ended.and_then(nanos), self.source.now());
        let wanted = Wanted { of, position, since: None, mode: ReadMode::Follow, ended, now, gap };
        Some(shipped::read(group, wanted).boxed())
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<Key, Arc<Shared>>> {
        // Nothing panics while it holds the lock.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shared stream of an instance. If there is none, it begins at the position.
    fn join(self: &Arc<Self>, status: &Status, position: Position) -> Subscription {
        let key = (status.pod_uid(), status.instance.container.clone(), status.instance.restart);
        let mut streams = self.streams();
        if let Some(shared) = streams.get(&key) {
            return shared.join();
        }
        let (shared, appender) = Shared::new(Arc::clone(&self.spool), position);
        let subscription = shared.join();
        streams.insert(key.clone(), Arc::clone(&shared));
        let start = LogStart {
            position: InstancePosition { position, skip: 0 },
            tail_lines: None,
            since: None,
            mode: ReadMode::Follow,
        };
        let items = stream::read(Arc::clone(&self.source), self.group.clone(), status.clone(), start);
        let open = Open { logs: Arc::clone(self), key, shared };
        self.tasks.spawn(open.fill(appender, items).instrument(Span::current()));
        subscription
    }
}

/// A stream in the list of those that can be joined.
struct Open {
    logs: Arc<Logs>,
    key: Key,
    shared: Arc<Shared>,
}

impl Open {
    /// Reads until the end, and keeps what was read until nobody watches any more.
    async fn fill(self, mut appender: Appender, items: impl Stream<Item = LogItem> + Send) {
        let mut items = std::pin::pin!(items);
        let mut shortage = self.logs.spool.shortage();
        let mut deserted = std::pin::pin!(deserted(self.shared.watchers()));
        let mut has_ended = false;
        loop {
            tokio::select! {
                item = items.next(), if !has_ended => {
                    let Some(item) = item else { return };
                    has_ended = matches!(item, LogItem::End(_));
                    appender.append(item).await;
                }
                () = &mut deserted => {
                    let mut streams = self.logs.streams();
                    if self.shared.watchers().borrow().here == 0 {
                        streams.remove(&self.key);
                        return;
                    }
                    drop(streams);
                    deserted.set(self::deserted(self.shared.watchers()));
                }
                Ok(()) = shortage.changed() => self.shared.trim(),
                () = self.logs.stop.cancelled() => return,
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut streams = self.logs.streams();
        if streams.get(&self.key).is_some_and(|shared| Arc::ptr_eq(shared, &self.shared)) {
            streams.remove(&self.key);
        }
    }
}

/// Waits until there is no watcher and none is expected back.
async fn deserted(mut watchers: watch::Receiver<Watchers>) {
    loop {
        let alone = watchers.wait_for(|watchers| watchers.here == 0).await;
        let expected = alone.ok().and_then(|watchers| watchers.expected);
        let Some(until) = expected.filter(|until| *until > Instant::now()) else { return };
        // One may have come and gone again meanwhile.
        let _ = tokio::time::timeout_at(until, watchers.wait_for(|watchers| watchers.here > 0)).await;
    }
}
