//! The one long-lived thing of a target: a labelled watch on its pods, and what it has seen.
//!
//! However many executions are followed, the API server is asked once. The hub lists, then watches from there; an end of
//! the watch is ordinary and is resumed, and only an answer that the version is gone (410) makes it list again. What it keeps
//! of a pod is a `View`. Followers of an execution get each new view through a channel that holds the latest one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::core::WatchEvent;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::PodSettings;
use super::api::{ApiError, PodApi, WATCH_SECONDS};
use super::names::{INSTANCE_LABEL, TARGET_LABEL};
use super::view::{Presence, View};
use crate::backend::Health;

/// The pause after a failure, doubled up to the maximum while failures follow each other.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A watch that says nothing for longer than the server keeps it open is dead, however alive the connection looks.
const WATCH_IDLE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);

/// What the hub knows. Shared by the watch, the calls and the reconciler.
pub(super) struct Hub {
    labels: String,
    state: Mutex<State>,
    /// Something changed that may give the reconciler work.
    changed: Notify,
}

struct State {
    health: Health,
    /// By pod name. A `BTreeMap`, so that a list is in order without sorting.
    index: BTreeMap<String, Arc<View>>,
    followers: HashMap<String, watch::Sender<Arc<View>>>,
    /// The version up to which the watch has told everything; 0 before the first list.
    seen: u64,
}

impl Hub {
    pub(super) fn new(settings: &PodSettings) -> Self {
        let labels = format!("{INSTANCE_LABEL}={},{TARGET_LABEL}={}", settings.instance, settings.target);
        let state = State { health: Health::Starting, index: BTreeMap::new(), followers: HashMap::new(), seen: 0 };
        Self { labels, state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and a half-written index heals with the next list.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the watch is in step.
    pub(super) fn health(&self) -> Health {
        self.state().health.clone()
    }

    /// Whether the first list was read, so that what is not in the index is not in the cluster.
    pub(super) fn is_in_step(&self) -> bool {
        self.state().seen > 0
    }

    /// Waits for a change that the reconciler may have to act on.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The latest view of a pod.
    pub(super) fn get(&self, pod_name: &str) -> Option<Arc<View>> {
        self.state().index.get(pod_name).cloned()
    }

    /// All views.
    pub(super) fn all(&self) -> Vec<Arc<View>> {
        self.state().index.values().cloned().collect()
    }

    /// Follows a pod that is in the index.
    pub(super) fn follow(&self, pod_name: &str) -> Option<watch::Receiver<Arc<View>>> {
        let mut state = self.state();
        let view = state.index.get(pod_name)?.clone();
        let sender = state.followers.entry(pod_name.to_owned()).or_insert_with(|| watch::Sender::new(view));
        Some(sender.subscribe())
    }

    /// Takes in a pod that an answer brought, so that a caller reads what it wrote before the watch tells it.
    pub(super) fn learn(&self, pod: &Pod) -> Result<Arc<View>, &'static str> {
        let view = Arc::new(View::of(pod)?);
        let mut state = self.state();
        let known = state.index.get(&view.pod_name).map(|known| known.version);
        // The watch has told everything up to `seen`. What is not in the index by then was deleted, and an answer that is
        // older than that must not bring it back.
        if known.is_some_and(|known| known < view.version) || (known.is_none() && view.version > state.seen) {
            state.put(Arc::clone(&view));
        }
        drop(state);
        self.changed.notify_one();
        Ok(view)
    }

    /// Watches until it is told to stop.
    pub(super) async fn run(&self, api: &PodApi, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        let mut version = None;
        while !stop.is_cancelled() {
            let began = tokio::time::Instant::now();
            let turn = async {
                let from = match version.take() {
                    Some(version) => version,
                    None => self.list(api).await?,
                };
                self.watch(api, from).await
            };
            let ended = tokio::select! {
                ended = turn => ended,
                () = stop.cancelled() => return,
            };
            match ended {
                Ok(Ended::At(next)) => version = Some(next),
                Ok(Ended::Expired) => debug!("the watch's version is gone; listing again"),
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "the target's pods cannot be watched");
                    self.state().health = match error.code() {
                        Some(403) => Health::Refused(error.to_string()),
                        _ => Health::Unreachable(error.to_string()),
                    };
                }
            }
            // A turn that lasted is no failure, whatever ended it. One that did not must not become a busy loop.
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            } else {
                let jitter = pause.mul_f64(rand::random_range(0.5..1.0));
                tokio::select! {
                    () = tokio::time::sleep(jitter) => {}
                    () = stop.cancelled() => return,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Reads all pods, page by page, and notices which are no more. Returns the version to watch from.
    async fn list(&self, api: &PodApi) -> Result<String, ApiError> {
        let mut names = HashSet::new();
        let mut token: Option<String> = None;
        loop {
            let page = api.list(&self.labels, token.as_deref()).await?;
            for pod in &page.items {
                names.extend(pod.metadata.name.clone());
                self.apply(pod);
            }
            let version = page.metadata.resource_version.unwrap_or_default();
            token = page.metadata.continue_.filter(|token| !token.is_empty());
            if token.is_none() {
                let mut state = self.state();
                let listed: u64 = version.parse().unwrap_or(0);
                let vanished: Vec<_> = state
                    .index
                    .values()
                    .filter(|v| !names.contains(&v.pod_name) && v.version <= listed)
                    .cloned()
                    .collect();
                for view in vanished {
                    state.remove(&View { presence: Presence::Gone, ..View::clone(&view) });
                }
                state.seen = state.seen.max(listed).max(1);
                state.health = Health::Serving;
                info!(executions = state.index.len(), "in step with the target");
                drop(state);
                self.changed.notify_one();
                return Ok(version);
            }
        }
    }

    async fn watch(&self, api: &PodApi, mut version: String) -> Result<Ended, ApiError> {
        let events = match api.watch(&self.labels, &version).await {
            Err(error) if error.code() == Some(410) => return Ok(Ended::Expired),
            events => events?,
        };
        self.state().health = Health::Serving;
        let mut events = std::pin::pin!(events);
        loop {
            let event = match tokio::time::timeout(WATCH_IDLE, events.next()).await {
                Ok(Some(Ok(event))) => event,
                // The server cuts watches when it likes, also in the middle of an event; nothing is lost by going on from
                // the last version. An unreachable server shows itself when the watch is opened again.
                Ok(Some(Err(error))) => {
                    debug!(error = &error as &dyn std::error::Error, "the watch broke off; resuming");
                    return Ok(Ended::At(version));
                }
                Ok(None) | Err(_) => return Ok(Ended::At(version)),
            };
            match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    self.apply(&pod);
                    version = pod.metadata.resource_version.unwrap_or(version);
                }
                WatchEvent::Deleted(pod) => {
                    if let Ok(view) = View::of(&pod) {
                        self.state().remove(&View { presence: Presence::Gone, ..view });
                    }
                    version = pod.metadata.resource_version.unwrap_or(version);
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) if status.code == 410 => return Ok(Ended::Expired),
                WatchEvent::Error(status) => return Err(ApiError::Refused(status)),
            }
            let mut state = self.state();
            state.seen = state.seen.max(version.parse().unwrap_or(0));
            drop(state);
            self.changed.notify_one();
        }
    }

    fn apply(&self, pod: &Pod) {
        match View::of(pod) {
            Ok(view) => {
                let mut state = self.state();
                let newer = state.index.get(&view.pod_name).is_none_or(|known| known.version <= view.version);
                if newer {
                    state.put(Arc::new(view));
                }
            }
            // Somebody tampered with it. It is not ours to judge any more, and saying so once per version is enough.
            Err(problem) => {
                warn!(pod = pod.metadata.name.as_deref().unwrap_or_default(), problem, "passing over a pod");
            }
        }
    }
}

impl State {
    fn put(&mut self, view: Arc<View>) {
        self.tell(&view);
        self.index.insert(view.pod_name.clone(), view);
    }

    fn remove(&mut self, last: &View) {
        self.tell(&Arc::new(last.clone()));
        self.index.remove(&last.pod_name);
        self.followers.remove(&last.pod_name);
    }

    /// Hands a view to those who follow it, and forgets a channel that nobody listens to.
    fn tell(&mut self, view: &Arc<View>) {
        if let Some(sender) = self.followers.get(&view.pod_name) {
            if sender.receiver_count() == 0 {
                self.followers.remove(&view.pod_name);
            } else {
                sender.send_replace(Arc::clone(view));
            }
        }
    }
}

/// How a watch ended.
enum Ended {
    /// It can be resumed from this version.
    At(String),
    /// Its version is gone.
    Expired,
}
