//! The durable copy of logs and outcomes, outside of the cluster.
//!
//! While it is on, the broker follows every execution as one more watcher (`follow`, `writer`), writes what it hears as
//! compressed segments with an index and, last of all, how it ended. `Archived` serves from it what the cluster has no longer.
//! The reconciler asks it before it deletes a pod. Replicas share the work without a leader: whoever creates a generation's
//! claim first writes it; another one takes over when the writer gives no sign of life (`life`). Two that write at once do
//! no harm: each has a folder of its own, and a reader merges them by position (`read`). `expire` applies the retention.
//!
//! It remembers nothing that it cannot read again: a broker that starts finds in the store how far it had come.

mod archived;
mod check;
mod expire;
mod follow;
mod index;
mod keep;
mod life;
mod mark;
mod marker;
mod read;
mod record;
mod seat;
mod segment;
mod store;
#[cfg(test)]
mod tests;
mod trouble;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::path::Path;
use thiserror::Error;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

pub use self::archived::Archived;
use self::index::Ended;
use self::life::Life;
use self::segment::Budget;
use self::store::{Made, Store};
pub use self::store::{Reason, StoreError};
pub use self::trouble::Condition;
use self::trouble::Trouble;
use crate::backend::{Keeper, Parting};
use crate::execution::{Address, Execution, InstanceId};
use crate::telemetry::ArchiveCounters;

/// So many executions are read from the archive at once; each holds a compressed segment in memory, 1 MiB if all is well.
const READERS: usize = 128;

/// A pod whose deletion has waited for so long is not left to another replica any more, which may have archived it, or be
/// stuck.
const URGENT: Duration = Duration::from_secs(30);

/// So many executions that have gone before the store took all of them are remembered until it does.
const LEFTOVERS: usize = 1000;

/// A start does not wait longer for a store that is away.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// How the archive is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The installation; several may share a store.
    pub instance: InstanceId,
    /// How long an execution is kept after its end.
    pub retention: Duration,
    /// A segment is written when so many bytes are together, before compression.
    pub segment_bytes: usize,
    /// Or when its first line is so old.
    pub flush: Duration,
    /// How much all segments that are not written yet may hold.
    pub memory: usize,
    /// A pod whose deletion is due is kept for so long if the archive cannot be written.
    pub patience: Duration,
    /// Where the store is, which decides what a failure at the start means.
    pub place: Place,
}

/// Where a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On a file system of ours: if it cannot be used, somebody has to put it right.
    Here,
    /// Behind a network: it may be away for a while, or refuse for a while, and what does not need it goes on.
    Elsewhere,
}

/// Why the archive cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The store says no, or nothing.
    #[error("the archive cannot be written: check its URL, its rights and its credentials")]
    Store(#[from] StoreError),
    /// The store does not answer at all.
    #[error("the archive did not answer within {} s", PROBE_LIMIT.as_secs())]
    Slow,
    /// The store overwrites what is made once.
    #[error(
        "the archive's store does not support conditional writes (If-None-Match: *), by which replicas keep out of each other's \
         way; use one that does, such as Amazon S3"
    )]
    Unconditional,
}

/// One archive, for all targets.
pub struct Archive {
    settings: Settings,
    store: Arc<Store>,
    /// The same, for what a caller waits for.
    reading: Store,
    life: Arc<Life>,
    budget: Arc<Budget>,
    counters: ArchiveCounters,
    readers: Arc<Semaphore>,
    leftovers: Arc<Semaphore>,
    trouble: Arc<Trouble>,
    /// How far the executions are that the backends have, by their hashes.
    standings: Mutex<HashMap<String, Standing>>,
}

/// How far an execution is on its way into the archive.
#[derive(Debug, Default)]
struct Standing {
    /// All of it is in the store.
    durable: bool,
    /// When it was first asked whether it may be deleted.
    asked: Option<Instant>,
    /// Wakes the one that waits for another replica.
    urge: Arc<Notify>,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("settings", &self.settings).field("store", &self.store).finish_non_exhaustive()
    }
}

impl Archive {
    /// The folder of an installation, below which all of its objects are.
    pub fn root(prefix: &str, instance: &InstanceId) -> String {
        Path::from(prefix).join(instance.as_str()).to_string()
    }

    /// Tries the store and starts to give signs of life and to apply the retention.
    pub async fn open(
        settings: Settings,
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        counters: ArchiveCounters,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>, OpenError> {
        let root = Self::root(prefix, &settings.instance);
        let store = Arc::new(Store::new(objects, Path::from(root), counters.clone()));
        let (life, trouble) = (Arc::new(Life::new()), Trouble::new(counters.clone()));
        let probed = tokio::time::timeout(PROBE_LIMIT, probe(&store, &life)).await;
        match probed {
            Ok(Ok(())) => {}
            Ok(Err(OpenError::Store(error))) if settings.place == Place::Elsewhere && !error.is_misplaced() => {
                store.set_away(true);
                trouble.signed(Err(&error));
            }
            Ok(Err(error)) => return Err(error),
            Err(_) if settings.place == Place::Elsewhere => {
                store.set_away(true);
                let (operation, path) = ("probe", store.at(&["probe"]));
                trouble.signed(Err(&StoreError::Late { operation, path, limit: PROBE_LIMIT }));
            }
            Err(_) => return Err(OpenError::Slow),
        }
        // Signs wait neither for writers nor for callers, or this replica would be taken for dead while it has much to write.
        tasks.spawn(Arc::clone(&life).run(store.aside(), Arc::clone(&trouble), stop.clone()));
        let archive = Arc::new(Self::new(settings, store, life, trouble, counters));
        tasks.spawn(Arc::clone(&archive).expire(stop.clone()));
        Ok(archive)
    }

    fn new(
        settings: Settings,
        store: Arc<Store>,
        life: Arc<Life>,
        trouble: Arc<Trouble>,
        counters: ArchiveCounters,
    ) -> Self {
        let budget = Budget::new(settings.memory, counters.held.clone());
        let (readers, leftovers) = (Arc::new(Semaphore::new(READERS)), Arc::new(Semaphore::new(LEFTOVERS)));
        let (reading, standings) = (store.aside(), Mutex::default());
        Self { settings, store, reading, life, budget, counters, readers, leftovers, trouble, standings }
    }

    /// How an execution ended, if all of it is here.
    async fn outcome(&self, store: &Store, address: &Address) -> Result<Option<Execution>, StoreError> {
        let ended: Option<Ended> = store.json(&store.outcome(&address.hash())).await?;
        // 80 bits of hash are the way to it; the address itself is the proof.
        Ok(ended.map(|ended| ended.execution).filter(|execution| execution.address == *address))
    }

    fn standings(&self) -> MutexGuard<'_, HashMap<String, Standing>> {
        // Nothing panics while it holds the lock.
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A backend has this one. What is returned is notified when its deletion has waited for long.
    fn enter(&self, address: &Address) -> Arc<Notify> {
        Arc::clone(&self.standings().entry(address.hash()).or_default().urge)
    }

    fn is_durable(&self, address: &Address) {
        // Nobody asks about one that has left.
        if let Some(standing) = self.standings().get_mut(&address.hash()) {
            standing.durable = true;
        }
    }
}

/// Tries what the archive needs, and gives the first sign of life.
async fn probe(store: &Store, life: &Life) -> Result<(), OpenError> {
    let path = store.at(&["probe", &format!("{:016x}", rand::random::<u64>())]);
    store.create(&path, "probe\n").await?;
    let again = store.create(&path, "probe\n").await?;
    store.delete(&path).await?;
    if again == Made::Now {
        return Err(OpenError::Unconditional);
    }
    Ok(life.sign(store).await?)
}

impl Keeper for Archive {
    fn may_go(&self, address: &Address) -> Parting {
        let mut standings = self.standings();
        // One that the census has not told yet is not archived yet.
        let Some(standing) = standings.get_mut(&address.hash()) else { return Parting::Stay };
        if standing.durable {
            return Parting::Go;
        }
        // It counts from here on, and not from when it was due: no broker may have run since then.
        let waited = standing.asked.get_or_insert_with(Instant::now).elapsed();
        if waited < self.settings.patience {
            if waited >= URGENT.min(self.settings.patience / 2) {
                standing.urge.notify_one();
            }
            return Parting::Stay;
        }
        drop(standings);
        self.counters.given_up.inc();
        warn!(execution = %address.name(), ?waited, "deleted although not all of it is in the archive");
        Parting::Go
    }
}
