//! Hands the hub what it is told of jobs: the pods that are made for them, and their descriptions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tracing::{debug, warn};

use super::super::api::{ApiError, PodApi};
use super::super::attempts::Attempts;
use super::super::carrier::Carrier;
use super::super::feed::{self, Intake};
use super::super::hub::{Hub, State};
use super::super::selection::Selection;
use super::super::view::{Presence, View};
use super::ledger::{Ledger, News};
use crate::backend::Health;
use crate::backend::job::{Job, Jobs};

impl Hub {
    /// Watches the pods of jobs, on a target that runs jobs.
    pub(in crate::backend::pod) async fn watch_parts(&self, api: &PodApi) {
        if self.settings().records.is_some() {
            let mut parts = PartIntake { hub: self, listed: HashSet::new() };
            feed::run(api, &Selection::of_parts(self.settings()), &mut parts).await;
        }
    }

    /// Takes in what jobs are described as, for as long as somebody describes them. Whose record went is ended.
    pub(in crate::backend::pod) async fn watch_jobs(&self, jobs: &dyn Jobs) {
        let mut changes = jobs.changes();
        while let Some(job) = changes.next().await {
            self.describe_job(job);
        }
    }

    /// Takes in a description.
    pub(in crate::backend::pod) fn describe_job(&self, job: Job) {
        let now = self.clock.now();
        self.take_in(|state| {
            let ledger = state.ledger.as_mut();
            ledger.map(|ledger| ledger.describe(job, now)).unwrap_or_default()
        });
    }

    /// Takes in a version of a job's pod.
    pub(in crate::backend::pod) fn apply_part(&self, pod: &Carrier) {
        self.take_in(|state| {
            let State { ledger, early, access, .. } = state;
            ledger.as_mut().map(|ledger| ledger.take_pod(pod, early, *access)).unwrap_or_default()
        });
    }

    /// A job's pod is no more.
    pub(in crate::backend::pod) fn forget_part(&self, name: &str, last: Option<&Carrier>) {
        self.take_in(|state| state.ledger.as_mut().map(|ledger| ledger.remove_pod(name, last)).unwrap_or_default());
    }

    fn keep_listed_parts(&self, listed: &HashSet<String>) {
        let gone = self.state().ledger.as_ref().map(|ledger| ledger.pods_but(listed)).unwrap_or_default();
        for name in gone {
            self.forget_part(&name, None);
        }
    }

    /// Jobs whose records went before they had ended, since this was asked last.
    pub(super) fn take_abandoned(&self) -> Vec<String> {
        self.state().ledger.as_mut().map(Ledger::take_abandoned).unwrap_or_default()
    }

    fn set_parts_health(&self, health: Health) {
        self.state().parts = health;
        self.changed.notify_one();
    }

    fn take_in(&self, what: impl FnOnce(&mut State) -> News) {
        let mut state = self.state();
        let news = what(&mut state);
        state.take_news(news);
        drop(state);
        self.changed.notify_one();
    }
}

impl State {
    /// Tells those who follow what is new.
    pub(in crate::backend::pod) fn take_news(&mut self, news: News) {
        if let Some(part) = &news.part {
            self.tell_pod(part);
        }
        for (hash, view) in
            news.views.into_iter().flat_map(|(hash, views)| views.into_iter().map(move |view| (hash.clone(), view)))
        {
            // A record that went has nothing new.
            let known = self.executions.get(&hash).and_then(|attempts| attempts.number(view.attempt));
            if known.is_none_or(|known| known.presence == Presence::Present && known.uid == view.uid) {
                self.put(&hash, Arc::new(view));
            }
        }
    }

    /// Takes in a version of a record; returns its execution.
    pub(in crate::backend::pod) fn take_record(&mut self, hash: &str, view: View) -> Arc<Attempts> {
        let mut views = match &mut self.ledger {
            Some(ledger) => ledger.take_record(hash, view.clone(), &mut self.early, self.access),
            None => Vec::new(),
        };
        let latest = views.pop().unwrap_or(view);
        for view in views {
            self.put(hash, Arc::new(view));
        }
        self.put(hash, Arc::new(latest))
    }

    /// A record is no more, and with it all its attempts.
    pub(in crate::backend::pod) fn remove_record(&mut self, hash: &str, last: &View) -> Arc<Attempts> {
        if let Some(ledger) = &mut self.ledger {
            ledger.remove_record(hash, last.attempt);
        }
        let known = self.executions.get(hash);
        let mut of_it: Vec<_> =
            known.into_iter().flat_map(|known| known.iter()).filter(|view| view.uid == last.uid).cloned().collect();
        let latest = of_it.pop();
        for view in of_it {
            self.put(hash, Arc::new(View { presence: Presence::Gone, version: last.version, ..View::clone(&view) }));
        }
        let latest = latest.map_or_else(|| last.clone(), |view| View::clone(&view));
        self.put(hash, Arc::new(View { presence: Presence::Gone, version: last.version, ..latest }))
    }
}

/// Takes the pods of jobs in.
struct PartIntake<'a> {
    hub: &'a Hub,
    /// The names that the list under way has brought.
    listed: HashSet<String>,
}

impl Intake for PartIntake<'_> {
    type Object = Carrier;

    fn version(pod: &Carrier) -> Option<String> {
        pod.metadata.resource_version.clone()
    }

    fn begin_list(&mut self) {
        self.listed.clear();
    }

    fn list(&mut self, pod: Carrier) {
        self.hub.apply_part(&pod);
        self.listed.extend(pod.metadata.name);
    }

    fn end_list(&mut self, _: u64) {
        self.hub.keep_listed_parts(&std::mem::take(&mut self.listed));
        debug!("in step with the pods of the target's jobs");
        self.hub.set_parts_health(Health::Serving);
    }

    fn open(&mut self) {
        self.hub.set_parts_health(Health::Serving);
    }

    fn put(&mut self, pod: Carrier) {
        self.hub.apply_part(&pod);
    }

    fn remove(&mut self, pod: Carrier) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        self.hub.forget_part(&name, Some(&pod));
    }

    fn reach(&mut self, _: u64) {}

    fn fail(&mut self, error: &ApiError) -> Duration {
        warn!(error = error as &dyn std::error::Error, "the pods of the target's jobs cannot be watched");
        match feed::health_after(error) {
            // Until they were listed nothing is decided without them.
            Health::Unreachable(_) if self.hub.state().parts == Health::Starting => {}
            health => self.hub.set_parts_health(health),
        }
        Duration::ZERO
    }
}
