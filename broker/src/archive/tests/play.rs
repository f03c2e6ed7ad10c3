//! A story, a backend that tells it, and replicas with one store.

use super::*;

pub(super) const EVERYTHING: WatchOptions = WatchOptions {
    logs: LogMode::Lines,
    containers: Vec::new(),
    tail_lines: None,
    since: None,
    follow: Follow::UntilTheEnd,
    max_log_bytes: None,
};

pub(super) fn address() -> Address {
    Address {
        instance: "main".parse().unwrap(),
        tenant: "default".parse().unwrap(),
        target: "prod".parse().unwrap(),
        id: "a".parse().unwrap(),
    }
}

pub(super) fn execution(state: State) -> Execution {
    let outcome = Outcome {
        state,
        class: None,
        reason: String::new(),
        message: String::new(),
        containers: Vec::new(),
        exit_code: Some(0),
    };
    Execution {
        address: address(),
        labels: BTreeMap::new(),
        state,
        state_reason: String::new(),
        outcome: state.is_final().then_some(outcome),
        attempts: vec![attempt(state)],
        policies: Policies {
            start_deadline: None,
            run_deadline: None,
            finish: FinishAction::Delete,
            ttl: Duration::from_hours(24),
            result: ResultSource::Sidecar,
            result_max_bytes: 1,
            deciding_containers: Vec::new(),
            drain_deadline: Duration::from_secs(30),
            infra_retry: None,
            orphan_after: None,
        },
        created: Some(Timestamp::UNIX_EPOCH),
        started: None,
        ended: Some(Timestamp::now()).filter(|_| state.is_final()),
        digest: "d".repeat(64),
        cancel: None,
        released: None,
        pod_json: None,
        job_json: None,
    }
}

pub(super) fn attempt(state: State) -> Attempt {
    Attempt {
        number: 1,
        state,
        pod_name: "a-1".to_owned(),
        pod_namespace: "pods".to_owned(),
        pod_uid: "uid".to_owned(),
        node_name: "node".to_owned(),
        job_id: String::new(),
        job_name: String::new(),
    }
}

pub(super) fn instance(container: &str) -> Instance {
    Instance { attempt: 1, container: container.to_owned(), restart: 0, role: ContainerRole::Deciding }
}

pub(super) fn stream_key(container: &str) -> StreamKey {
    StreamKey { attempt: 1, container: container.to_owned(), restart: 0 }
}

/// Tells a story as a backend does: each event with the cursor after it.
pub(super) struct Teller {
    pub(super) cursor: Cursor,
    pub(super) marks: BTreeMap<String, Mark>,
    pub(super) events: Vec<Event>,
}

impl Teller {
    pub(super) fn new() -> Self {
        let cursor = Cursor::start(address().hash());
        let mut teller = Self { cursor, marks: BTreeMap::new(), events: Vec::new() };
        teller.say(EventKind::StateChanged(Box::new(execution(State::Running))));
        teller.cursor.attempts_started = 1;
        teller.say(EventKind::AttemptStarted(attempt(State::Running)));
        teller
    }

    pub(super) fn say(&mut self, kind: EventKind) {
        self.events.push(Event { cursor: self.cursor.clone(), kind });
    }

    pub(super) fn lines(&mut self, container: &str, lines: &[(i64, String)]) {
        let key = stream_key(container);
        let mark = self.marks.entry(container.to_owned()).or_insert(Mark::START);
        let mut position = self.cursor.stream(&key);
        self.cursor.set_stream(&key, position);
        let before = self.cursor.clone();
        let lines: Vec<_> = lines.iter().map(|(nanos, content)| line(*nanos, content)).collect();
        for line in &lines {
            *mark = mark.after(line.nanos);
            position = mark.position(&line.content);
        }
        self.cursor.set_stream(&key, position);
        self.say(EventKind::LogChunk(LogChunk { instance: instance(container), lines, before }));
    }

    pub(super) fn gap(&mut self, container: &str) {
        self.say(EventKind::LogGap(rotated(container)));
    }

    pub(super) fn end(mut self) -> Vec<Event> {
        for container in self.marks.keys().cloned().collect::<Vec<_>>() {
            let complete = InstancePosition { position: Position::Complete, skip: 0 };
            self.cursor.set_stream(&stream_key(&container), complete);
            self.say(EventKind::LogStreamEnd(instance(&container), Completeness::Complete));
        }
        self.cursor.result_sent = true;
        self.say(EventKind::Result(ResultSource::Sidecar, Ok(Bytes::from_static(b"{\"rows\": 42}"))));
        self.cursor.end_attempt(1);
        let last = execution(State::Succeeded);
        self.say(EventKind::AttemptEnded(attempt(State::Succeeded), last.outcome.clone().unwrap()));
        self.say(EventKind::End(Box::new(last)));
        self.events
    }
}

pub(super) fn line(nanos: i64, content: &str) -> LogLine {
    LogLine { nanos, content: Bytes::from(content.to_owned()), continues: false, partial: false }
}

pub(super) fn rotated(container: &str) -> Gap {
    Gap {
        instance: instance(container),
        reason: GapReason::Rotated,
        after: None,
        before: None,
        lines_at_least: 0,
        message: "rotated".to_owned(),
    }
}

/// A backend with at most one execution.
pub(super) struct Fake {
    pub(super) events: Mutex<Option<Vec<Event>>>,
    /// A watch breaks off after so many events; the first event is told again by each.
    pub(super) breaks_after: usize,
    pub(super) watches: AtomicUsize,
}

impl Fake {
    pub(super) fn new(events: Option<Vec<Event>>) -> Arc<Self> {
        Arc::new(Self { events: Mutex::new(events), breaks_after: usize::MAX, watches: AtomicUsize::new(0) })
    }

    pub(super) fn missing() -> Error {
        Error::NoSuchExecution { name: address().name().to_string() }
    }

    pub(super) fn execution(&self) -> Option<Execution> {
        let events = self.events.lock().unwrap();
        let last = events.as_ref()?.last().map(|event| event.kind.clone());
        Some(match last {
            Some(EventKind::End(last)) => *last,
            _ => execution(State::Running),
        })
    }
}

#[async_trait]
impl Backend for Fake {
    async fn submit(&self, _: &Tenant, _: Submit) -> Result<Submitted, Error> {
        let execution = self.execution().ok_or_else(Self::missing)?;
        Ok(Submitted { execution, claim: "claim".to_owned(), origin: Origin::Found })
    }

    async fn get(&self, _: &Tenant, id: &ExecutionId, _: View) -> Result<Execution, Error> {
        self.execution().filter(|execution| execution.address.id == *id).ok_or_else(Self::missing)
    }

    async fn list(&self, _: &Tenant, _: &Filter) -> Result<Vec<Execution>, Error> {
        Ok(Vec::new())
    }

    async fn watch(&self, _: &Tenant, _: &ExecutionId, cursor: &[u8], _: WatchOptions) -> Result<EventStream, Error> {
        self.watches.fetch_add(1, Ordering::Relaxed);
        let events = self.events.lock().unwrap().clone().ok_or_else(Self::missing)?;
        let had = if cursor.is_empty() {
            0
        } else {
            let stands = place(&Cursor::decode(cursor, &address().hash())?);
            events.iter().position(|event| place(&event.cursor) == stands).map_or(events.len(), |at| at + 1)
        };
        let first = events.first().cloned().filter(|_| had > 0);
        let rest: Vec<_> = first.into_iter().chain(events[had..].to_vec()).take(self.breaks_after).collect();
        Ok(stream::iter(rest).map(Ok).boxed())
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

    async fn cancel(&self, _: &Tenant, _: &ExecutionId, _: Cancel) -> Result<Execution, Error> {
        self.execution().ok_or_else(Self::missing)
    }

    async fn release(&self, _: &Tenant, _: &ExecutionId, _: Option<&str>) -> Result<Execution, Error> {
        self.execution().ok_or_else(Self::missing)
    }

    fn census(&self) -> BoxStream<'static, Presence> {
        let all = self.execution().map(|execution| execution.address).into_iter().collect();
        stream::iter([Presence::All(all)]).chain(stream::pending()).boxed()
    }

    fn health(&self) -> Health {
        Health::Serving
    }

    fn check(&self) -> BoxStream<'static, Check> {
        stream::empty().boxed()
    }
}

/// What tells one place in a story from another.
pub(super) fn place(cursor: &Cursor) -> (u32, u32, bool, Vec<u32>, BTreeMap<StreamKey, Position>) {
    let streams = cursor.streams.iter().map(|(key, position)| (key.clone(), position.position));
    let Cursor { attempts_started, attempts_ended, result_sent, .. } = *cursor;
    (attempts_started, attempts_ended, result_sent, cursor.notices.clone(), streams.collect())
}

pub(super) struct World {
    pub(super) store: Faulty,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl World {
    pub(super) fn new() -> Self {
        Self { store: Faulty::default(), tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// One more replica's archive on the same store.
    pub(super) async fn archive(&self) -> Arc<Archive> {
        self.open(Place::Here, 200, 1 << 20).await.unwrap()
    }

    pub(super) async fn open(
        &self,
        place: Place,
        segment_bytes: usize,
        memory: usize,
    ) -> Result<Arc<Archive>, OpenError> {
        let settings = Settings {
            instance: "main".parse().unwrap(),
            retention: Duration::from_hours(24),
            segment_bytes,
            flush: Duration::from_mins(1),
            memory,
            patience: Duration::from_mins(10),
            place,
        };
        let (objects, counters) = (Arc::new(self.store.clone()), ArchiveCounters::default());
        Archive::open(settings, objects, "some/prefix", counters, &self.tasks, &self.stop).await
    }

    /// Sees to it that what a backend has gets into the archive; the token says that the backend has it no longer.
    pub(super) fn keeps(&self, archive: &Arc<Archive>, backend: &Arc<Fake>) -> (JoinHandle<()>, CancellationToken) {
        let gone = CancellationToken::new();
        let case = Case {
            backend: Arc::<Fake>::clone(backend),
            address: address(),
            urge: archive.enter(&address()),
            gone: gone.clone(),
            stop: self.stop.clone(),
        };
        (self.tasks.spawn(Arc::clone(archive).keep(case)), gone)
    }

    /// Archives what a backend has, to its end.
    pub(super) async fn archived(&self, backend: &Arc<Fake>) -> Arc<Archive> {
        let archive = self.archive().await;
        self.keeps(&archive, backend).0.await.unwrap();
        archive
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) fn served(backend: &Arc<Fake>, archive: &Arc<Archive>) -> Archived {
    Archived::new(Arc::<Fake>::clone(backend), Arc::clone(archive), "prod".parse().unwrap())
}

pub(super) async fn watch(backend: &Archived, cursor: &[u8], options: WatchOptions) -> Vec<Event> {
    let address = address();
    let events = backend.watch(&address.tenant, &address.id, cursor, options).await.unwrap();
    events.map(Result::unwrap).collect().await
}

pub(super) fn texts(events: &[Event], container: &str) -> Vec<String> {
    let chunks = events.iter().filter_map(|event| match &event.kind {
        EventKind::LogChunk(chunk) if chunk.instance.container == container => Some(&chunk.lines),
        _ => None,
    });
    chunks.flatten().map(|line| String::from_utf8(line.content.to_vec()).unwrap()).collect()
}

pub(super) fn gaps(events: &[Event]) -> Vec<GapReason> {
    let gap = |event: &Event| match &event.kind {
        EventKind::LogGap(gap) => Some(gap.reason),
        _ => None,
    };
    events.iter().filter_map(gap).collect()
}

pub(super) fn numbered(range: std::ops::Range<i64>) -> Vec<(i64, String)> {
    range.map(|n| (n, format!("line {n}"))).collect()
}

pub(super) fn words(range: std::ops::Range<i64>) -> Vec<String> {
    numbered(range).into_iter().map(|(_, text)| text).collect()
}

pub(super) fn story() -> Vec<Event> {
    let mut teller = Teller::new();
    for ten in 0..10 {
        teller.lines("base", &numbered(ten * 10..ten * 10 + 10));
        teller.lines("side", &numbered(ten * 3..ten * 3 + 3));
    }
    let notice = Notice { code: "CONTAINER_RESTARTED", message: "again".to_owned(), severity: Severity::Info };
    teller.cursor.add_notice(7);
    teller.say(EventKind::Notice(notice));
    teller.end()
}

pub(super) fn request() -> Submit {
    Submit {
        id: address().id,
        submit_before: Timestamp::now(),
        workload: crate::execution::Workload::Pod(serde_json::Map::new()),
        labels: BTreeMap::new(),
        policies: crate::execution::PolicyRequest::default(),
        group: None,
        mode: crate::execution::SubmitMode::Create,
        subject: "me".to_owned(),
    }
}
