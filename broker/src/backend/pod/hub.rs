//! The one long-lived thing of a target: a labelled watch on its pods and one on their events, and what they have told.
//!
//! However many executions are followed, the API server is asked once; `feed` keeps in step with it. What the hub keeps of a
//! pod is a `View`, and of an execution its `Attempts`. Followers get each new one through a channel that holds the latest.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::api::PodApi;
use super::attempts::Attempts;
use super::carrier::Carrier;
use super::clock::ServerClock;
use super::events::{self, Access, Early};
use super::feed;
use super::intake::{EventIntake, PodIntake};
use super::orphans::Orphans;
use super::record::Ledger;
use super::roster::Roster;
use super::selection::Selection;
use super::view::{Nature, Presence, View};
use super::{PodSettings, describe};
use crate::backend::job::Jobs;
use crate::backend::{Census, Health, Presence as Told};
use crate::execution::Address;

/// What the hub knows. Shared by the watch, the calls and the reconciler.
pub(super) struct Hub {
    settings: Arc<PodSettings>,
    /// Selects what belongs to the target.
    pub(super) pods: Selection,
    state: Mutex<State>,
    /// Something changed that may give the reconciler work.
    pub(super) changed: Notify,
    /// Who was followed, and when.
    pub(super) orphans: Orphans,
    /// Whether the first list was read.
    stepped: watch::Sender<bool>,
    pub(super) clock: ServerClock,
}

pub(super) struct State {
    health: Health,
    /// By the execution's hash.
    pub(super) executions: HashMap<String, Arc<Attempts>>,
    pub(super) followers: HashMap<String, watch::Sender<Arc<Attempts>>>,
    /// The same for those who keep copies.
    pub(super) copies: HashMap<String, watch::Sender<Arc<Attempts>>>,
    /// By the pod's name.
    pod_followers: HashMap<String, watch::Sender<Arc<View>>>,
    /// Executions that have changed since the reconciler has asked.
    pub(super) changed: HashSet<String>,
    groups: Roster,
    /// The version up to which the watch has told everything; 0 before the first list.
    seen: u64,
    /// Pods that have not run, by name: the execution's hash and the attempt's number.
    pub(super) waiting: HashMap<String, (String, u32)>,
    /// Whether events can be read.
    pub(super) access: Access,
    pub(super) early: Early,
    /// Brings jobs and their pods together with the records; a target that runs no jobs has none.
    pub(super) ledger: Option<Ledger>,
    /// Why the pods of jobs are not in step; their first list was not read yet, or they cannot be watched.
    pub(super) parts: Health,
    settings: Arc<PodSettings>,
    census: Arc<Census>,
}

impl Hub {
    pub(super) fn new(settings: Arc<PodSettings>, clock: ServerClock, jobs: Option<Arc<dyn Jobs>>) -> Self {
        let pods = Selection::of_carriers(&settings);
        let state = State {
            health: Health::Starting,
            executions: HashMap::new(),
            followers: HashMap::new(),
            copies: HashMap::new(),
            pod_followers: HashMap::new(),
            changed: HashSet::new(),
            groups: Roster::default(),
            seen: 0,
            waiting: HashMap::new(),
            access: Access::Open,
            early: Early::default(),
            parts: if jobs.is_some() { Health::Starting } else { Health::Serving },
            ledger: jobs.map(Ledger::new),
            settings: Arc::clone(&settings),
            census: Arc::default(),
        };
        Self {
            settings,
            pods,
            state: Mutex::new(state),
            changed: Notify::new(),
            orphans: Orphans::default(),
            stepped: watch::Sender::new(false),
            clock,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and a half-written index heals with the next list.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the target is.
    pub(super) fn settings(&self) -> &Arc<PodSettings> {
        &self.settings
    }

    /// Whether all that the target is watched for is in step; the first that is not.
    pub(super) fn health(&self) -> Health {
        let state = self.state();
        let of_jobs = state.ledger.as_ref().map_or(Health::Serving, Ledger::health);
        let all = [&state.health, &state.parts, &of_jobs];
        all.into_iter().find(|health| **health != Health::Serving).unwrap_or(&Health::Serving).clone()
    }

    /// Whether the first list was read, so that what is not in the index is not in the cluster.
    pub(super) fn is_in_step(&self) -> bool {
        let state = self.state();
        state.seen > 0 && state.parts != Health::Starting
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

    /// Tells which executions there are, and which come and go.
    pub(super) fn census(self: &Arc<Self>) -> BoxStream<'static, Told> {
        let census = Arc::clone(&self.state().census);
        let hub = Arc::downgrade(self);
        census.listen(move || hub.upgrade().map(|hub| hub.addresses()).unwrap_or_default())
    }

    fn addresses(&self) -> Vec<Address> {
        self.all().iter().map(|one| describe::address(&self.settings, one.oldest())).collect()
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
            // Logs are those of the pods behind a record.
            Some(known) if view.nature == Nature::Part => {
                let part = known.record().and_then(|record| record.part(&view.uid)).unwrap_or_else(|| Arc::clone(view));
                state.follow_pod(part)
            }
            Some(known) => state.follow_pod(known),
            None => watch::Sender::new(Arc::clone(view)).subscribe(),
        }
    }

    /// The hash of the execution that a pod belongs to. Labels can be changed by anybody, so that of the pod is not believed.
    fn hash(&self, view: &View) -> String {
        describe::address(&self.settings, view).hash()
    }

    /// Takes in a pod that an answer brought, so that a caller reads what it wrote before the watch tells it. Returns the
    /// execution with it.
    pub(super) fn learn(&self, pod: &Carrier) -> Result<Arc<Attempts>, &'static str> {
        let view = View::of(pod)?;
        let hash = self.hash(&view);
        let mut state = self.state();
        let known = state.executions.get(&hash).cloned();
        let version = known.as_ref().and_then(|known| known.number(view.attempt)).map(|known| known.version);
        // The watch has told everything up to `seen`. What is not in the index by then was deleted, and an answer that is
        // older than that must not bring it back.
        let attempts = if version.is_some_and(|version| version < view.version)
            || (version.is_none() && view.version > state.seen)
        {
            state.take(&hash, view, self.clock.now())
        } else {
            known.unwrap_or_else(|| Arc::new(Attempts::of(Arc::new(view))))
        };
        drop(state);
        self.changed.notify_one();
        Ok(attempts)
    }

    /// Watches until it is told to stop.
    pub(super) async fn run(&self, api: &PodApi, stop: &CancellationToken) {
        let mut pods = PodIntake::new(self);
        let events = async {
            // Which events matter is known by the pods that are there.
            let mut stepped = self.stepped.subscribe();
            if stepped.wait_for(|stepped| *stepped).await.is_ok() {
                feed::run(api, &events::selection(), &mut EventIntake::new(self)).await;
            }
        };
        let parts = self.watch_parts(api);
        let all = futures::future::join3(feed::run(api, &self.pods, &mut pods), events, parts);
        stop.run_until_cancelled(all).await;
    }

    /// Notes how the target is.
    pub(super) fn set_health(&self, health: Health) {
        let mut state = self.state();
        if health == Health::Serving && state.health != Health::Serving {
            self.orphans.recovered(self.clock.now());
        }
        state.health = health;
    }

    /// Everything up to this version was told.
    pub(super) fn reach(&self, version: u64) {
        let mut state = self.state();
        state.seen = state.seen.max(version);
        drop(state);
        self.changed.notify_one();
    }

    /// Takes in a version of a pod.
    pub(super) fn apply(&self, pod: &Carrier) {
        match View::of(pod) {
            Ok(view) => {
                let hash = self.hash(&view);
                let mut state = self.state();
                let known = state.executions.get(&hash).and_then(|attempts| attempts.number(view.attempt));
                if known.is_none_or(|known| known.version <= view.version) {
                    state.take(&hash, view, self.clock.now());
                }
            }
            // Somebody tampered with it. It is not ours to judge any more, and saying so once per version is enough.
            Err(problem) => {
                warn!(pod = pod.metadata.name.as_deref().unwrap_or_default(), problem, "passing over a pod");
            }
        }
    }

    /// A pod is no more. Of one that was tampered with, the last that could be read stands.
    pub(super) fn forget(&self, pod: &Carrier) {
        match View::of(pod) {
            Ok(view) => {
                let hash = self.hash(&view);
                self.state().remove(&hash, view);
            }
            Err(_) => self.remove_where(|view| Some(&view.pod_name) == pod.metadata.name.as_ref()),
        }
    }

    /// A whole list was read at this version. What it did not have is no more.
    pub(super) fn keep_listed(&self, listed: &HashSet<String>, version: u64) {
        // What was learned after the list was made is not in it.
        self.remove_where(|view| !listed.contains(&view.pod_name) && view.version <= version);
        let mut state = self.state();
        state.seen = state.seen.max(version).max(1);
        info!(executions = state.executions.len(), "in step with the target");
        drop(state);
        self.set_health(Health::Serving);
        self.changed.notify_one();
        self.stepped.send_replace(true);
    }

    fn remove_where(&self, is_gone: impl Fn(&View) -> bool) {
        let mut state = self.state();
        let known = state.executions.iter().flat_map(|(hash, known)| known.iter().map(move |view| (hash, view)));
        let gone: Vec<_> = known
            .filter(|(_, view)| view.presence == Presence::Present && is_gone(view))
            .map(|(hash, view)| (hash.clone(), View::clone(view)))
            .collect();
        for (hash, view) in gone {
            state.remove(&hash, view);
        }
    }
}

impl State {
    /// Takes in a version of a pod, with what is known of it besides; returns its execution.
    fn take(&mut self, hash: &str, mut view: View, now: Timestamp) -> Arc<Attempts> {
        view.access = self.access;
        if view.record().is_some() {
            return self.take_record(hash, view);
        }
        match self.executions.get(hash).and_then(|attempts| attempts.number(view.attempt)) {
            Some(known) => view.inherit(known, now),
            None => self.early.take(&view.uid, &mut view.events),
        }
        if events::matter(&view) {
            self.waiting.insert(view.pod_name.clone(), (hash.to_owned(), view.attempt));
        } else {
            self.waiting.remove(&view.pod_name);
        }
        self.put(hash, Arc::new(view))
    }

    /// Follows a pod. The channel of one that is no more is closed.
    fn follow_pod(&mut self, known: Arc<View>) -> watch::Receiver<Arc<View>> {
        if known.presence == Presence::Gone {
            return watch::Sender::new(known).subscribe();
        }
        let name = known.pod_name.clone();
        self.pod_followers.entry(name).or_insert_with(|| watch::Sender::new(known)).subscribe()
    }

    /// Tells those who follow a pod.
    pub(super) fn tell_pod(&mut self, view: &Arc<View>) {
        tell(&mut self.pod_followers, &view.pod_name, view);
        if view.presence == Presence::Gone {
            self.pod_followers.remove(&view.pod_name);
        }
    }

    /// Takes in a view; returns its execution.
    pub(super) fn put(&mut self, hash: &str, view: Arc<View>) -> Arc<Attempts> {
        self.changed.insert(hash.to_owned());
        tell(&mut self.pod_followers, &view.pod_name, &view);
        self.groups.add(hash, &view);
        let attempts = Arc::new(if let Some(known) = self.executions.get(hash) {
            known.with(view)
        } else {
            self.census.tell(|| Told::Arrived(describe::address(&self.settings, &view)));
            Attempts::of(view)
        });
        tell(&mut self.followers, hash, &attempts);
        tell(&mut self.copies, hash, &attempts);
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
        let attempts = if last.record().is_some() {
            self.remove_record(hash, &last)
        } else {
            self.put(hash, Arc::new(View { presence: Presence::Gone, ..last }))
        };
        self.pod_followers.remove(&pod_name);
        self.waiting.remove(&pod_name);
        if attempts.is_gone() {
            self.census.tell(|| Told::Left(describe::address(&self.settings, attempts.oldest())));
            self.executions.remove(hash);
            self.followers.remove(hash);
            self.copies.remove(hash);
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

#[cfg(test)]
#[path = "hub_tests.rs"]
pub(super) mod tests;
