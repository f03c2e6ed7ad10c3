//! The one long-lived thing of a target: a labelled watch on its pods, and what it has seen.
//!
//! However many executions are followed, the API server is asked once. The hub lists, then watches from there; an end of
//! the watch is ordinary and is resumed, and only an answer that the version is gone (410) makes it list again. What it keeps
//! of a pod is a `View`, and of an execution its `Attempts`. Followers get each new one through a channel that holds the latest.

use std::collections::{HashMap, HashSet};
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
use super::attempts::Attempts;
use super::describe;
use super::names::{INSTANCE_LABEL, TARGET_LABEL};
use super::roster::Roster;
use super::view::{Presence, View};
use crate::backend::Health;

/// The pause after a failure, doubled up to the maximum while failures follow each other.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A watch that says nothing for longer than the server keeps it open is dead, however alive the connection looks.
const WATCH_IDLE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);

/// What the hub knows. Shared by the watch, the calls and the reconciler.
pub(super) struct Hub {
    settings: Arc<PodSettings>,
    /// Selects what belongs to the target.
    pub(super) labels: String,
    state: Mutex<State>,
    /// Something changed that may give the reconciler work.
    changed: Notify,
}

struct State {
    health: Health,
    /// By the execution's hash.
    executions: HashMap<String, Arc<Attempts>>,
    followers: HashMap<String, watch::Sender<Arc<Attempts>>>,
    /// By the pod's name.
    pod_followers: HashMap<String, watch::Sender<Arc<View>>>,
    /// Executions that have changed since the reconciler has asked.
    changed: HashSet<String>,
    groups: Roster,
    /// The version up to which the watch has told everything; 0 before the first list.
    seen: u64,
}

impl Hub {
    pub(super) fn new(settings: Arc<PodSettings>) -> Self {
        let labels = format!("{INSTANCE_LABEL}={},{TARGET_LABEL}={}", settings.instance, settings.target);
        let state = State {
            health: Health::Starting,
            executions: HashMap::new(),
            followers: HashMap::new(),
            pod_followers: HashMap::new(),
            changed: HashSet::new(),
            groups: Roster::default(),
            seen: 0,
        };
        Self { settings, labels, state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and a half-written index heals with the next list.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the target is.
    pub(super) fn settings(&self) -> &PodSettings {
        &self.settings
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

    /// What is known of an execution, by its hash.
    pub(super) fn get(&self, hash: &str) -> Option<Arc<Attempts>> {
        self.state().executions.get(hash).cloned()
    }

    /// All executions.
    pub(super) fn all(&self) -> Vec<Arc<Attempts>> {
        self.state().executions.values().cloned().collect()
    }

    /// All members of a group. `None` if some were learnt ahead of the watch, so that others may be older than they are.
    pub(super) fn group(&self, hash: &str) -> Option<Vec<Arc<Attempts>>> {
        let state = self.state();
        let members: Vec<_> = state.groups.of(hash).filter_map(|it| state.executions.get(it).cloned()).collect();
        let is_told = |member: &Arc<Attempts>| member.iter().all(|view| view.version <= state.seen);
        members.iter().all(is_told).then_some(members)
    }

    /// Whether the pod's group is known to have a later member.
    pub(super) fn has_later(&self, view: &View) -> bool {
        let Some(membership) = &view.membership else { return false };
        let state = self.state();
        let mut members = state.groups.of(&membership.group).filter_map(|it| state.executions.get(it));
        members.any(|member| member.oldest().is_later(membership))
    }

    /// Follows an execution that is in the index.
    pub(super) fn follow(self: &Arc<Self>, hash: &str) -> Option<Following> {
        let mut state = self.state();
        let attempts = state.executions.get(hash)?.clone();
        let sender = state.followers.entry(hash.to_owned()).or_insert_with(|| watch::Sender::new(attempts));
        let leaving = Leaving { hub: Arc::clone(self), hash: hash.to_owned() };
        Some(Following { attempts: sender.subscribe(), _leaving: leaving })
    }

    /// Whether somebody follows an execution at this replica.
    pub(super) fn is_followed(&self, hash: &str) -> Followed {
        match self.state().followers.get(hash) {
            Some(sender) if sender.receiver_count() > 0 => Followed::Here,
            _ => Followed::NotHere,
        }
    }

    /// The hashes of the executions that have changed since this was asked last.
    pub(super) fn take_changed(&self) -> HashSet<String> {
        std::mem::take(&mut self.state().changed)
    }

    /// Follows one pod of an execution. The channel of a pod that is no more is closed.
    pub(super) fn follow_pod(&self, view: &Arc<View>) -> watch::Receiver<Arc<View>> {
        let hash = self.hash(view);
        let mut state = self.state();
        let known = state.executions.get(&hash).and_then(|attempts| attempts.number(view.attempt)).cloned();
        match known {
            Some(known) if known.presence == Presence::Present => {
                let name = known.pod_name.clone();
                state.pod_followers.entry(name).or_insert_with(|| watch::Sender::new(known)).subscribe()
            }
            _ => watch::Sender::new(Arc::clone(view)).subscribe(),
        }
    }

    /// The hash of the execution that a pod belongs to. Labels can be changed by anybody, so that of the pod is not believed.
    fn hash(&self, view: &View) -> String {
        describe::address(&self.settings, view).hash()
    }

    /// Takes in a pod that an answer brought, so that a caller reads what it wrote before the watch tells it. Returns the
    /// execution with it.
    pub(super) fn learn(&self, pod: &Pod) -> Result<Arc<Attempts>, &'static str> {
        let view = Arc::new(View::of(pod)?);
        let hash = self.hash(&view);
        let mut state = self.state();
        let known = state.executions.get(&hash).cloned();
        let version = known.as_ref().and_then(|known| known.number(view.attempt)).map(|known| known.version);
        // The watch has told everything up to `seen`. What is not in the index by then was deleted, and an answer that is
        // older than that must not bring it back.
        let attempts = if version.is_some_and(|version| version < view.version)
            || (version.is_none() && view.version > state.seen)
        {
            state.put(&hash, view)
        } else {
            known.unwrap_or_else(|| Arc::new(Attempts::of(view)))
        };
        drop(state);
        self.changed.notify_one();
        Ok(attempts)
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
                let known =
                    state.executions.iter().flat_map(|(hash, known)| known.iter().map(move |view| (hash, view)));
                let vanished: Vec<_> = known
                    .filter(|(_, view)| view.presence == Presence::Present)
                    .filter(|(_, view)| !names.contains(&view.pod_name) && view.version <= listed)
                    .map(|(hash, view)| (hash.clone(), View::clone(view)))
                    .collect();
                for (hash, view) in vanished {
                    state.remove(&hash, view);
                }
                state.seen = state.seen.max(listed).max(1);
                state.health = Health::Serving;
                info!(executions = state.executions.len(), "in step with the target");
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
                        let hash = self.hash(&view);
                        self.state().remove(&hash, view);
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
                let hash = self.hash(&view);
                let mut state = self.state();
                let known = state.executions.get(&hash).and_then(|attempts| attempts.number(view.attempt));
                if known.is_none_or(|known| known.version <= view.version) {
                    state.put(&hash, Arc::new(view));
                }
            }
            // Somebody tampered with it. It is not ours to judge any more, and saying so once per version is enough.
            Err(problem) => {
                warn!(pod = pod.metadata.name.as_deref().unwrap_or_default(), problem, "passing over a pod");
            }
        }
    }
}

/// Whether an execution is followed at this replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    Here,
    NotHere,
}

/// One who follows an execution. What was kept for the reading may be due once it is dropped.
pub(super) struct Following {
    /// Dropped first, so that it does not count any more when the other one is.
    pub(super) attempts: watch::Receiver<Arc<Attempts>>,
    _leaving: Leaving,
}

struct Leaving {
    hub: Arc<Hub>,
    hash: String,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.hub.state().changed.insert(std::mem::take(&mut self.hash));
        self.hub.changed.notify_one();
    }
}

impl State {
    /// Takes in a pod; returns its execution.
    fn put(&mut self, hash: &str, view: Arc<View>) -> Arc<Attempts> {
        self.changed.insert(hash.to_owned());
        tell(&mut self.pod_followers, &view.pod_name, &view);
        self.groups.add(hash, &view);
        let attempts = Arc::new(match self.executions.get(hash) {
            Some(known) => known.with(view),
            None => Attempts::of(view),
        });
        tell(&mut self.followers, hash, &attempts);
        self.executions.insert(hash.to_owned(), Arc::clone(&attempts));
        attempts
    }

    /// A pod is no more; this is the last that was seen of it.
    fn remove(&mut self, hash: &str, last: View) {
        let Some(known) = self.executions.get(hash) else { return };
        if known.number(last.attempt).is_none_or(|known| known.version > last.version) {
            return;
        }
        let pod_name = last.pod_name.clone();
        let attempts = self.put(hash, Arc::new(View { presence: Presence::Gone, ..last }));
        self.pod_followers.remove(&pod_name);
        if attempts.is_gone() {
            self.executions.remove(hash);
            self.followers.remove(hash);
            self.changed.extend(self.groups.remove(hash, attempts.oldest()));
        }
    }
}

/// Hands a value to those who follow it, and forgets a channel that nobody listens to.
fn tell<T>(followers: &mut HashMap<String, watch::Sender<Arc<T>>>, key: &str, value: &Arc<T>) {
    if let Some(sender) = followers.get(key) {
        if sender.receiver_count() == 0 {
            followers.remove(key);
        } else {
            sender.send_replace(Arc::clone(value));
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
