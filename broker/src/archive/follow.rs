//! Follows every execution of a backend, so that each gets into the archive.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::Archive;
use super::keep::Case;
use crate::backend::{Backend, Presence};
use crate::execution::Address;

/// The executions that are there, each with the token that says when it is not there any more.
type Known = HashMap<Address, CancellationToken>;

impl Archive {
    /// Follows what a backend has until it is told to stop.
    pub fn follow(
        self: &Arc<Self>,
        backend: Arc<dyn Backend>,
        target: &str,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let span = tracing::info_span!("archive", target);
        let archive = Arc::clone(self);
        let (stop, inner) = (stop.clone(), tasks.clone());
        tasks.spawn(async move { archive.listen(&backend, &inner, &stop).await }.instrument(span));
    }

    async fn listen(self: Arc<Self>, backend: &Arc<dyn Backend>, tasks: &TaskTracker, stop: &CancellationToken) {
        let mut census = backend.census();
        let mut known = Known::new();
        while let Some(Some(presence)) = stop.run_until_cancelled(census.next()).await {
            match presence {
                Presence::All(all) => {
                    let all: HashSet<_> = all.into_iter().collect();
                    let left: Vec<_> = known.keys().filter(|one| !all.contains(one)).cloned().collect();
                    for one in &left {
                        self.left(&mut known, one);
                    }
                    for one in all {
                        self.arrived(&mut known, one, backend, tasks, stop);
                    }
                }
                Presence::Arrived(one) => self.arrived(&mut known, one, backend, tasks, stop),
                Presence::Left(one) => self.left(&mut known, &one),
            }
        }
    }

    fn arrived(
        self: &Arc<Self>,
        known: &mut Known,
        address: Address,
        backend: &Arc<dyn Backend>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        if known.contains_key(&address) {
            return;
        }
        let gone = CancellationToken::new();
        known.insert(address.clone(), gone.clone());
        let urge = self.enter(&address);
        let work =
            Arc::clone(self).keep(Case { backend: Arc::clone(backend), address, urge, gone, stop: stop.clone() });
        tasks.spawn(work.instrument(tracing::Span::current()));
    }

    /// Nothing asks about it any more. A writer goes on until its watch has ended: the last lines may be on their way.
    fn left(&self, known: &mut Known, address: &Address) {
        if let Some(gone) = known.remove(address) {
            gone.cancel();
        }
        self.standings().remove(&address.hash());
    }
}
