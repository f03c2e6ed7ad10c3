//! A backend that does what the test says and remembers what it was asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;
use podbroker::backend::{
    Backend, Cancel, Check, EventStream, Filter, Health, Origin, Presence, Submitted, Verdict, View,
};
use podbroker::error::Error;
use podbroker::execution::{
    Address, Attempt, ContainerRole, Cursor, Event, EventKind, Execution, ExecutionId, FinishAction, Instance,
    LogChunk, LogLine, Policies, ResultSource, State, Submit, TargetName, Tenant, WatchOptions,
};
use tokio::sync::{Notify, mpsc};

/// What the backend was asked.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    Submit(Tenant, Box<Submit>),
    Get(Tenant, ExecutionId, View),
    List(Tenant, Filter),
    Watch(Tenant, ExecutionId, Vec<u8>, WatchOptions),
    Cancel(Tenant, ExecutionId, Cancel),
    Release(Tenant, ExecutionId, Option<String>),
}

/// What the next verb does instead of its work.
pub(crate) enum Surprise {
    Fail(Error),
    Panic,
    /// Waits for `Scripted::go_on` first.
    Wait,
}

pub(crate) struct Scripted {
    target: TargetName,
    seen: Mutex<Vec<Seen>>,
    surprises: Mutex<VecDeque<Surprise>>,
    streams: Mutex<HashMap<String, VecDeque<EventStream>>>,
    executions: Mutex<Vec<Execution>>,
    pub(crate) health: Mutex<Health>,
    pub(crate) waiting: Notify,
    pub(crate) go_on: Notify,
}

/// Where a test puts the events of one watch; dropping it ends the watch.
pub(crate) type Events = mpsc::Sender<Result<Event, Error>>;

impl Scripted {
    pub(crate) fn new(target: &str) -> Self {
        Self {
            target: target.parse().unwrap(),
            seen: Mutex::default(),
            surprises: Mutex::default(),
            streams: Mutex::default(),
            executions: Mutex::default(),
            health: Mutex::new(Health::Serving),
            waiting: Notify::new(),
            go_on: Notify::new(),
        }
    }

    pub(crate) fn surprise(&self, surprise: Surprise) {
        self.surprises.lock().unwrap().push_back(surprise);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The next watch of the execution is told what is put into the sender, which holds one event.
    pub(crate) fn expect_watch(&self, id: &str) -> Events {
        let (sender, mut receiver) = mpsc::channel(1);
        self.expect_stream(id, futures::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed());
        sender
    }

    pub(crate) fn expect_stream(&self, id: &str, stream: EventStream) {
        self.streams.lock().unwrap().entry(id.to_owned()).or_default().push_back(stream);
    }

    pub(crate) fn has(&self, ids: &[&str]) {
        self.executions.lock().unwrap().extend(ids.iter().map(|id| execution(self.target.as_str(), "default", id)));
    }

    async fn saw(&self, seen: Seen) -> Result<(), Error> {
        self.seen.lock().unwrap().push(seen);
        let surprise = self.surprises.lock().unwrap().pop_front();
        match surprise {
            None => Ok(()),
            Some(Surprise::Fail(error)) => Err(error),
            Some(Surprise::Panic) => panic!("as the test said"),
            Some(Surprise::Wait) => {
                self.waiting.notify_one();
                self.go_on.notified().await;
                Ok(())
            }
        }
    }

    fn make(&self, tenant: &Tenant, id: &ExecutionId) -> Execution {
        execution(self.target.as_str(), tenant.as_str(), id.as_str())
    }
}

#[async_trait]
impl Backend for Scripted {
    async fn submit(&self, tenant: &Tenant, request: Submit) -> Result<Submitted, Error> {
        self.saw(Seen::Submit(tenant.clone(), Box::new(request.clone()))).await?;
        let mut execution = self.make(tenant, &request.id);
        execution.labels = request.labels;
        Ok(Submitted { execution, claim: "claim-1".to_owned(), origin: Origin::Created })
    }

    async fn get(&self, tenant: &Tenant, id: &ExecutionId, view: View) -> Result<Execution, Error> {
        self.saw(Seen::Get(tenant.clone(), id.clone(), view)).await?;
        Ok(self.make(tenant, id))
    }

    async fn list(&self, tenant: &Tenant, filter: &Filter) -> Result<Vec<Execution>, Error> {
        self.saw(Seen::List(tenant.clone(), filter.clone())).await?;
        let executions = self.executions.lock().unwrap();
        let after = executions.iter().filter(|one| filter.after.as_ref().is_none_or(|after| one.address.id > *after));
        Ok(after.take(filter.limit).cloned().collect())
    }

    async fn watch(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
    ) -> Result<EventStream, Error> {
        self.saw(Seen::Watch(tenant.clone(), id.clone(), cursor.to_vec(), options)).await?;
        let stream = self.streams.lock().unwrap().get_mut(id.as_str()).and_then(VecDeque::pop_front);
        stream.ok_or_else(|| Error::NoSuchExecution { name: id.to_string() })
    }

    async fn copy(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
    ) -> Result<EventStream, Error> {
        self.watch(tenant, id, cursor, options).await
    }

    async fn cancel(&self, tenant: &Tenant, id: &ExecutionId, request: Cancel) -> Result<Execution, Error> {
        self.saw(Seen::Cancel(tenant.clone(), id.clone(), request)).await?;
        Ok(self.make(tenant, id))
    }

    async fn release(&self, tenant: &Tenant, id: &ExecutionId, claim: Option<&str>) -> Result<Execution, Error> {
        self.saw(Seen::Release(tenant.clone(), id.clone(), claim.map(str::to_owned))).await?;
        Ok(self.make(tenant, id))
    }

    fn census(&self) -> BoxStream<'static, Presence> {
        futures::stream::pending().boxed()
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }

    fn check(&self) -> BoxStream<'static, Check> {
        let check = |link, verdict| Check { link, subject: String::new(), verdict, detail: "found".to_owned() };
        let fix = "mend it".to_owned();
        futures::stream::iter([check("connect", Verdict::Passed), check("identity", Verdict::Failed { fix })]).boxed()
    }
}

/// An execution that runs.
pub(crate) fn execution(target: &str, tenant: &str, id: &str) -> Execution {
    let address = Address {
        instance: "test".parse().unwrap(),
        tenant: tenant.parse().unwrap(),
        target: target.parse().unwrap(),
        id: id.parse().unwrap(),
    };
    let attempt = Attempt {
        number: 1,
        state: State::Running,
        pod_name: address.pod_name(1),
        pod_namespace: "pods".to_owned(),
        pod_uid: "uid".to_owned(),
        node_name: "node".to_owned(),
        job_id: String::new(),
        job_name: "job".to_owned(),
    };
    Execution {
        address,
        labels: BTreeMap::new(),
        state: State::Running,
        state_reason: String::new(),
        outcome: None,
        attempts: vec![attempt],
        policies: Policies {
            start_deadline: None,
            run_deadline: None,
            finish: FinishAction::Delete,
            ttl: Duration::from_hours(24),
            result: ResultSource::None,
            result_max_bytes: 1,
            deciding_containers: Vec::new(),
            drain_deadline: Duration::from_secs(30),
            infra_retry: None,
            orphan_after: None,
        },
        created: Some(Timestamp::UNIX_EPOCH),
        started: None,
        ended: None,
        digest: "d".repeat(64),
        cancel: None,
        released: None,
        pod_json: None,
        job_json: None,
    }
}

fn cursor(target: &str, id: &str) -> Cursor {
    Cursor::start(execution(target, "default", id).address.hash())
}

/// The first event of every watch.
pub(crate) fn state_changed(target: &str, id: &str) -> Event {
    let now = Box::new(execution(target, "default", id));
    Event { cursor: cursor(target, id), kind: EventKind::StateChanged(now) }
}

/// The last event of every watch.
pub(crate) fn end(target: &str, id: &str) -> Event {
    let last = Box::new(execution(target, "default", id));
    Event { cursor: cursor(target, id), kind: EventKind::End(last) }
}

/// Some lines of the container `base`.
pub(crate) fn lines(target: &str, id: &str, texts: &[&[u8]]) -> Event {
    let instance = Instance { attempt: 1, container: "base".to_owned(), restart: 0, role: ContainerRole::Deciding };
    let line = |text: &&[u8]| LogLine {
        nanos: 1_700_000_000_000_000_001,
        content: Bytes::copy_from_slice(text),
        continues: false,
        partial: false,
    };
    let before = cursor(target, id);
    let chunk = LogChunk { instance, lines: texts.iter().map(line).collect(), before: before.clone() };
    Event { cursor: before, kind: EventKind::LogChunk(chunk) }
}
