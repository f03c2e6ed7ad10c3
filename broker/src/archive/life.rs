//! Signs of life: which writers may be trusted to go on writing.
//!
//! Each replica writes one small object again and again, however many executions it archives, and looks at those of the
//! others. Ages are differences of the store's own times, so no clock of ours counts; the retention goes by that time, too. A
//! writer that is taken for dead and is not does no harm: what both write is merged by position.

use std::collections::HashSet;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use object_store::ObjectMeta;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::store::{Store, StoreError};
use super::trouble::{Pause, Trouble};

/// How often a writer gives a sign.
const EVERY: Duration = Duration::from_secs(20);
/// A writer that missed three of them is taken for dead.
const DEAD_AFTER: SignedDuration = SignedDuration::from_secs(70);
/// Signs of writers that have been dead for so long are swept away.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// A look at the others that is so young is as good as a new one: thousands of claims may be asked about at once.
const STILL_NEW: Duration = Duration::from_secs(2);
/// Replicas that are alive, and those that died within the hour.
const MAX_WRITERS: usize = 10_000;
/// A stopping broker does not wait longer for its last word.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The writers that are alive, this one among them.
#[derive(Debug)]
pub(super) struct Life {
    me: String,
    alive: watch::Sender<HashSet<String>>,
    /// The store's time of our last sign, and when that was given.
    clock: StdMutex<Option<(Timestamp, Instant)>>,
    /// When the signs of the others were looked at last.
    looked: Mutex<Option<Instant>>,
}

impl Life {
    pub(super) fn new() -> Self {
        let me = format!("{:016x}", rand::random::<u64>());
        let alive = watch::Sender::new(HashSet::from([me.clone()]));
        Self { me, alive, clock: StdMutex::default(), looked: Mutex::default() }
    }

    /// This replica's name.
    pub(super) fn me(&self) -> &str {
        &self.me
    }

    /// Whether a writer was alive when the signs were looked at last.
    pub(super) fn is_alive(&self, writer: &str) -> bool {
        self.alive.borrow().contains(writer)
    }

    /// The store's time now, by its time of our last sign; nothing before the first one. Between two signs it goes on by the
    /// machine's monotonic clock.
    pub(super) fn now(&self) -> Option<Timestamp> {
        // Nothing panics while it holds the lock.
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.and_then(|(time, at)| time.checked_add(SignedDuration::try_from(at.elapsed()).ok()?).ok())
    }

    /// Waits until a writer is dead.
    pub(super) async fn until_dead(&self, store: &Store, writer: &str) {
        if !self.alive.borrow().contains(writer) {
            // It may be younger than our last look.
            let mut looked = self.looked.lock().await;
            if looked.is_none_or(|looked| looked.elapsed() > STILL_NEW) {
                if let Err(error) = self.look(store).await {
                    debug!(error = &error as &dyn std::error::Error, "the writers of the archive cannot be listed");
                }
                *looked = Some(Instant::now());
            }
        }
        // The sender lives as long as we do.
        let _ = self.alive.subscribe().wait_for(|alive| !alive.contains(writer)).await;
    }

    /// Gives one sign and looks around.
    pub(super) async fn sign(&self, store: &Store) -> Result<(), StoreError> {
        store.put(&store.at(&["writers", &self.me]), "alive\n").await?;
        let signed = Instant::now();
        let look = self.look(store).await?;
        if let Some(time) = look.signed {
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((time, signed));
        }
        for path in look.forgotten {
            store.delete(&path).await?;
        }
        Ok(())
    }

    /// Looks who is alive.
    async fn look(&self, store: &Store) -> Result<Look, StoreError> {
        let signs = store.list(&store.at(&["writers"]), MAX_WRITERS).await?;
        let look = judge(&signs, &self.me);
        self.alive.send_if_modified(|known| {
            let changed = *known != look.alive;
            if changed {
                info!(writers = look.alive.len(), "the writers of the archive have changed");
                known.clone_from(&look.alive);
            }
            changed
        });
        Ok(look)
    }

    /// Gives signs until it is told to stop. While the store is away they come sooner, and find out for everybody when it is
    /// back: `store` is one that writers do not queue for.
    pub(super) async fn run(self: Arc<Self>, store: Store, trouble: Arc<Trouble>, stop: CancellationToken) {
        let mut pause = Pause::default();
        loop {
            if !store.is_away() {
                tokio::select! {
                    () = tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.8..1.0))) => {}
                    () = store.until(true) => {}
                    () = stop.cancelled() => break,
                }
            }
            if store.is_away() && !pause.wait(&stop).await {
                break;
            }
            let Some(sign) = stop.run_until_cancelled(self.sign(&store)).await else { break };
            if sign.is_ok() {
                pause = Pause::default();
            }
            // A store that refuses so small a thing need not be asked for more.
            store.set_away(sign.is_err());
            trouble.signed(sign.as_ref().map(|&()| ()));
        }
        // The others need not wait for the silence.
        let path = store.at(&["writers", &self.me]);
        let _ = tokio::time::timeout(LAST_WORD, store.delete(&path)).await;
    }
}

/// What a look at the signs has shown.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    alive: HashSet<String>,
    /// Signs that are so old that nobody needs them.
    forgotten: Vec<object_store::path::Path>,
    /// The store's time of our own.
    signed: Option<Timestamp>,
}

fn judge(signs: &[ObjectMeta], me: &str) -> Look {
    let name = |sign: &ObjectMeta| sign.location.filename().unwrap_or_default().to_owned();
    let time = |sign: &ObjectMeta| Timestamp::from_second(sign.last_modified.timestamp()).unwrap_or(Timestamp::MIN);
    // Ours was written just now.
    let signed = signs.iter().find(|sign| name(sign) == me).map(time);
    let now = signed.unwrap_or(Timestamp::MAX);
    let age = |sign: &ObjectMeta| now.duration_since(time(sign));
    let mut alive: HashSet<_> = signs.iter().filter(|sign| age(sign) <= DEAD_AFTER).map(name).collect();
    alive.insert(me.to_owned());
    let forgotten = signs.iter().filter(|sign| age(sign) > FORGOTTEN_AFTER && name(sign) != me);
    Look { alive, forgotten: forgotten.map(|sign| sign.location.clone()).collect(), signed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(name: &str, seconds: i64) -> ObjectMeta {
        let last_modified = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let last_modified = (last_modified - Duration::from_secs(seconds.unsigned_abs())).into();
        ObjectMeta { location: format!("writers/{name}").into(), last_modified, size: 0, e_tag: None, version: None }
    }

    #[test]
    fn silence_is_death_and_is_measured_from_our_own_sign() {
        let signs = [sign("me", 0), sign("young", 60), sign("silent", 80), sign("long-gone", 4000)];
        let look = judge(&signs, "me");
        assert_eq!(look.alive, ["me", "young"].map(str::to_owned).into());
        assert_eq!(look.forgotten, [signs[3].location.clone()]);
        assert_eq!(look.signed, Timestamp::from_second(1_700_000_000).ok());
    }
}
