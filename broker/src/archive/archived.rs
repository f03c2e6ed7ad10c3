//! A backend with a memory: what it does not have any more is answered from the archive, with the same cursors.
//!
//! Executions of another tenant do not exist here either: the tenant is part of the way to an object. A live execution is
//! served by the backend, and its lines from the archive where the cluster has them no longer. While the cluster does not
//! answer, what has ended can be read all the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::Archive;
use super::mark::Mark;
use super::read::Replay;
use super::segment::key;
use crate::backend::{Backend, Cancel, Check, EventStream, Filter, Health, Origin, Presence, Submitted, View};
use crate::error::Error;
use crate::execution::{
    Address, Cursor, Event, EventKind, Execution, ExecutionId, Follow, GapReason, InstanceId, LogMode, State,
    StreamKey, Submit, SubmitMode, TargetName, Tenant, WatchOptions, spec_digest,
};

/// A live answer is not kept waiting for the archive longer than this.
const WHILE_LIVE: Duration = Duration::from_secs(3);

/// A backend and the archive of its executions.
#[derive(Clone)]
pub struct Archived {
    backend: Arc<dyn Backend>,
    archive: Arc<Archive>,
    instance: InstanceId,
    target: TargetName,
}

impl Archived {
    /// Puts the archive beside a target's backend.
    pub fn new(backend: Arc<dyn Backend>, archive: Arc<Archive>, target: TargetName) -> Self {
        let instance = archive.settings.instance.clone();
        Self { backend, archive, instance, target }
    }

    fn address(&self, tenant: &Tenant, id: &ExecutionId) -> Address {
        let (instance, target) = (self.instance.clone(), self.target.clone());
        Address { instance, tenant: tenant.clone(), target, id: id.clone() }
    }

    async fn outcome(&self, address: &Address) -> Result<Option<Execution>, Error> {
        Ok(self.archive.outcome(&self.archive.reading, address).await?)
    }

    /// What the archive knows of an execution that the backend does not know, or cannot be asked about.
    async fn instead(&self, address: &Address, error: Error) -> Result<Execution, Error> {
        match error {
            Error::NoSuchExecution { .. } => self.outcome(address).await?.ok_or(error),
            Error::Backend { .. }
            | Error::NotInStep { .. }
            | Error::CredentialsUnavailable { .. }
            | Error::CredentialsRefused { .. }
            | Error::Refused { .. } => match self.outcome(address).await {
                Ok(Some(execution)) => Ok(execution),
                // The first trouble is the one to tell.
                Ok(None) | Err(_) => Err(error),
            },
            error => Err(error),
        }
    }

    /// Waits for the archive for so long. One that has no answer by then is away, and the next one need not wait for it.
    async fn within<T>(&self, limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let done = tokio::time::timeout(limit, work).await.unwrap_or_else(|late| {
            self.archive.reading.set_away(true);
            Err(Error::archive(late))
        });
        if let Err(error) = &done {
            self.archive.trouble.failed_for_caller(error);
        }
        done
    }

    /// The answer to a submit that was made and has ended, from the archive. The id stands for that request for ever.
    async fn submitted(&self, address: &Address, digest: &str) -> Result<Option<Submitted>, Error> {
        if self.archive.store.is_away() {
            return Err(Error::archive("the archive did not answer just now"));
        }
        let Some(execution) = self.within(WHILE_LIVE, self.outcome(address)).await? else { return Ok(None) };
        if execution.digest != digest {
            return Err(Error::IdReused { id: address.id.to_string() });
        }
        Ok(Some(Submitted { execution, claim: String::new(), origin: Origin::Found }))
    }

    /// Tells an execution that is in the archive only.
    async fn tell_ended(
        &self,
        address: &Address,
        cursor: Cursor,
        options: WatchOptions,
        execution: Execution,
    ) -> Result<EventStream, Error> {
        let mut replay = self.archive.replay(address, cursor.clone(), options.clone()).await?;
        if let Some(lines) = options.tail_lines {
            replay.keep_last(lines).await?;
        }
        let shown = execution.clone().before_the_end(cursor.attempts_ended);
        let first = Event { cursor: cursor.clone(), kind: EventKind::StateChanged(Box::new(shown)) };
        let stream = async_stream::stream! {
            let mut cursor = cursor;
            yield Ok(first);
            let mut events = std::pin::pin!(replay.events());
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        cursor.clone_from(&event.cursor);
                        yield Ok(event);
                    }
                    Err(error) => {
                        yield Err(error);
                        return;
                    }
                }
            }
            if options.follow == Follow::UntilTheEnd {
                yield Ok(Event { cursor, kind: EventKind::End(Box::new(execution)) });
            }
        };
        Ok(stream.boxed())
    }

    /// What the archive has of a live execution behind a cursor, if it has anything.
    async fn early_lines(&self, address: &Address, cursor: &Cursor, options: &WatchOptions) -> Option<Replay> {
        if self.archive.store.is_away() {
            return None;
        }
        let replay = self.archive.replay(address, cursor.clone(), options.clone());
        match self.within(WHILE_LIVE, replay).await {
            Ok(replay) => Some(replay).filter(|replay| !replay.is_empty()),
            // The cluster has what it has; a gap says what is missing.
            Err(_) => None,
        }
    }

    /// Tells a live execution: from the archive first if that has lines, and again where the cluster has a gap.
    fn tell_live(
        self,
        address: Address,
        now: Execution,
        mut cursor: Cursor,
        options: WatchOptions,
        mut early: Option<Replay>,
        mut opened: Option<EventStream>,
    ) -> EventStream {
        async_stream::stream! {
            let mut told = None;
            // Where the archive was asked for the lines of a gap; a gap before that is beyond help.
            let mut asked: HashMap<StreamKey, Mark> = HashMap::new();
            'meeting: loop {
                if let Some(replay) = early.take() {
                    if told.is_none() {
                        let shown = now.clone().before_the_end(cursor.attempts_ended);
                        told = Some(shown.clone());
                        yield Ok(Event { cursor: cursor.clone(), kind: EventKind::StateChanged(Box::new(shown)) });
                    }
                    // Who reads here follows it as well as who reads its lines live.
                    let states = WatchOptions { logs: LogMode::None, ..options.clone() };
                    let _following = self.backend.watch(&address.tenant, &address.id, &cursor.encode(), states).await;
                    let mut events = std::pin::pin!(replay.events());
                    loop {
                        let event = self.within(WHILE_LIVE, async { events.next().await.transpose() }).await;
                        match event {
                            Ok(Some(event)) => {
                                cursor.clone_from(&event.cursor);
                                yield Ok(event);
                            }
                            Ok(None) | Err(_) => break,
                        }
                    }
                }
                let encoded = cursor.encode();
                let events = match opened.take() {
                    Some(events) => Ok(events),
                    None => self.backend.watch(&address.tenant, &address.id, &encoded, options.clone()).await,
                };
                let mut events = match events {
                    Ok(events) => events,
                    Err(Error::NoSuchExecution { .. } | Error::Expired { .. }) => {
                        // It went in between.
                        match self.watch(&address.tenant, &address.id, &encoded, options.clone()).await {
                            Ok(events) => events,
                            Err(error) => {
                                yield Err(error);
                                return;
                            }
                        }
                    }
                    Err(error) => {
                        yield Err(error);
                        return;
                    }
                };
                while let Some(event) = events.next().await {
                    match &event {
                        Ok(Event { kind: EventKind::StateChanged(state), .. }) => {
                            if told.as_ref() == Some(&**state) {
                                continue;
                            }
                            told = Some(Execution::clone(state));
                        }
                        Ok(Event { kind: EventKind::LogGap(gap), cursor: at }) if is_archived(gap.reason) => {
                            let key = key(&gap.instance);
                            let mark = Mark::of(at.stream(&key));
                            let is_new = asked.insert(key.clone(), mark).is_none_or(|asked| asked < mark);
                            let replay = if is_new { self.early_lines(&address, at, &options).await } else { None };
                            if let Some(replay) = replay.filter(|replay| replay.has_beyond(&key, at)) {
                                cursor.clone_from(at);
                                early = Some(replay);
                                continue 'meeting;
                            }
                        }
                        Ok(_) | Err(_) => {}
                    }
                    if let Ok(event) = &event {
                        cursor.clone_from(&event.cursor);
                    }
                    yield event;
                }
                return;
            }
        }
        .boxed()
    }
}

/// Lines that are missing for this reason may be in the archive.
fn is_archived(reason: GapReason) -> bool {
    match reason {
        GapReason::Rotated
        | GapReason::PodDeleted
        | GapReason::ResumeAmbiguous
        | GapReason::Refused
        | GapReason::SlowReader => true,
        GapReason::BudgetExceeded | GapReason::DrainDeadline => false,
    }
}

#[async_trait]
impl Backend for Archived {
    async fn submit(&self, tenant: &Tenant, request: Submit) -> Result<Submitted, Error> {
        if request.mode == SubmitMode::ValidateOnly {
            return self.backend.submit(tenant, request).await;
        }
        let address = self.address(tenant, &request.id);
        let digest = spec_digest(
            &request.workload,
            &request.labels,
            &request.policies,
            request.group.as_ref().map(|group| &group.id),
        );
        let known = self.submitted(&address, &digest).await;
        match (known, request.mode) {
            // Its pod may still be there, and then it is the better witness: it has the claim.
            (Ok(Some(archived)), _) => {
                match self.backend.submit(tenant, Submit { mode: SubmitMode::MustExist, ..request }).await {
                    Err(Error::NoSuchExecution { .. }) => Ok(archived),
                    answer => answer,
                }
            }
            (Err(error @ Error::IdReused { .. }), _) => Err(error),
            // Exactly-once does not hang on the archive: until `submit_before` the name decides, and no id is used again after it.
            (Ok(None), _) | (Err(_), SubmitMode::Create | SubmitMode::ValidateOnly) => {
                self.backend.submit(tenant, request).await
            }
            (Err(error), SubmitMode::MustExist) => match self.backend.submit(tenant, request).await {
                Err(Error::NoSuchExecution { .. }) => Err(error),
                answer => answer,
            },
        }
    }

    async fn get(&self, tenant: &Tenant, id: &ExecutionId, view: View) -> Result<Execution, Error> {
        match self.backend.get(tenant, id, view).await {
            Ok(execution) => Ok(execution),
            Err(error) => self.instead(&self.address(tenant, id), error).await,
        }
    }

    async fn list(&self, tenant: &Tenant, filter: &Filter) -> Result<Vec<Execution>, Error> {
        self.backend.list(tenant, filter).await
    }

    async fn watch(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
    ) -> Result<EventStream, Error> {
        let address = self.address(tenant, id);
        let hash = address.hash();
        let start = if cursor.is_empty() { Cursor::start(hash) } else { Cursor::decode(cursor, &hash)? };
        let now = match self.backend.get(tenant, id, View::Basic).await {
            Ok(now) => now,
            Err(error) => {
                let ended = self.instead(&address, error).await.map_err(|error| match error {
                    Error::NoSuchExecution { name } if !cursor.is_empty() => Error::Expired { name },
                    error => error,
                })?;
                return self.tell_ended(&address, start, options, ended).await;
            }
        };
        // A watcher that comes late may have missed what the cluster has no longer. One that goes on is told so by a gap.
        let is_late = cursor.is_empty()
            && options.logs == LogMode::Lines
            && options.tail_lines.is_none()
            && !matches!(now.state, State::Queued | State::Pending);
        if is_late && let Some(early) = self.early_lines(&address, &start, &options).await {
            return Ok(self.clone().tell_live(address, now, start, options, Some(early), None));
        }
        let opened = self.backend.watch(tenant, id, cursor, options.clone()).await?;
        Ok(self.clone().tell_live(address, now, start, options, None, Some(opened)))
    }

    async fn copy(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
    ) -> Result<EventStream, Error> {
        self.backend.copy(tenant, id, cursor, options).await
    }

    async fn cancel(&self, tenant: &Tenant, id: &ExecutionId, request: Cancel) -> Result<Execution, Error> {
        match self.backend.cancel(tenant, id, request).await {
            // What has ended keeps its own outcome.
            Err(Error::NoSuchExecution { name }) => {
                self.instead(&self.address(tenant, id), Error::NoSuchExecution { name }).await
            }
            answer => answer,
        }
    }

    async fn release(&self, tenant: &Tenant, id: &ExecutionId, claim: Option<&str>) -> Result<Execution, Error> {
        match self.backend.release(tenant, id, claim).await {
            // It was released, or its time had come.
            Err(Error::NoSuchExecution { name }) => {
                self.instead(&self.address(tenant, id), Error::NoSuchExecution { name }).await
            }
            answer => answer,
        }
    }

    fn census(&self) -> BoxStream<'static, Presence> {
        self.backend.census()
    }

    fn health(&self) -> Health {
        self.backend.health()
    }

    fn check(&self) -> BoxStream<'static, Check> {
        let archive = Arc::clone(&self.archive);
        self.backend.check().chain(stream::once(async move { archive.check().await })).boxed()
    }
}
