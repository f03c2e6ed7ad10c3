//! Many executions over one stream, for one event loop.
//!
//! Events are gathered by a task of our runtime while the loop waits in `ready`, and taken by the loop in batches: one
//! hand-over to the loop's thread for each batch and not for each event. What is gathered is bounded, and nothing is read
//! while nobody waits, so a loop that does not keep up holds the broker back. A child of the process follows nothing of what
//! its parent followed: those who wait for it live in the parent's loop.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use podbroker_client::{Error, Followed, Follower, proto};
use proto::event::Event as Kind;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use tokio::sync::Notify;

use crate::asyncio::{self, converting};
use crate::client::Client;
use crate::convert;
use crate::error::to_exception;
use crate::process::{Owned, Process};

/// Events gathered for one batch. With chunks of 64 KiB at most, they and what the transport holds stay under 20 MiB.
const GATHERED: usize = 256;

/// Lines converted in one batch, so that the loop is not held up: about 2 ms of work.
const LINES_AT_ONCE: usize = 1000;

/// The events of many executions.
#[pyclass(frozen, module = "podbroker._core")]
pub(crate) struct WatchMany {
    client: Py<Client>,
    retry_for: Option<Duration>,
    state: Mutex<State>,
}

struct State {
    closed: bool,
    session: Option<Owned<Arc<Session>>>,
}

/// The stream of one process.
struct Session {
    stream: tokio::sync::Mutex<podbroker_client::WatchMany>,
    /// Keeps the stream from being over while nothing is followed.
    _follower: Follower,
    wishes: Mutex<Vec<Wish>>,
    wished: Notify,
    gathered: Mutex<Gathered>,
    closing: Notify,
    closed: AtomicBool,
}

enum Wish {
    Add(Box<proto::WatchExecutionRequest>),
    Remove(String),
}

#[derive(Default)]
struct Gathered {
    events: VecDeque<Followed>,
    /// Why nothing more comes.
    over: Option<Error>,
}

impl Session {
    /// Completes when there is something to take, or nothing more to wait for. Safe to drop.
    async fn look(&self) {
        let closing = self.closing.notified();
        tokio::pin!(closing);
        closing.as_mut().enable();
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        tokio::select! {
            () = closing => {}
            () = self.gather() => {}
        }
    }

    async fn gather(&self) {
        let mut stream = self.stream.lock().await;
        loop {
            self.grant(&mut stream);
            if !self.gathered().is_empty() {
                return;
            }
            tokio::select! {
                next = stream.next() => {
                    self.keep(next);
                    break;
                }
                // Left behind when it comes while nobody waits.
                () = self.wished.notified() => {}
            }
        }
        // What has come together is handed over together.
        while self.gathered().has_room() {
            let Some(next) = stream.next().now_or_never() else { return };
            self.keep(next);
        }
    }

    fn grant(&self, stream: &mut podbroker_client::WatchMany) {
        let wishes = std::mem::take(&mut *lock(&self.wishes));
        for wish in wishes {
            match wish {
                Wish::Add(request) => stream.add(*request),
                Wish::Remove(name) => stream.remove(name),
            }
        }
    }

    fn keep(&self, next: Option<Result<Followed, Error>>) {
        let mut gathered = self.gathered();
        match next {
            Some(Ok(followed)) => gathered.events.push_back(followed),
            Some(Err(error)) => gathered.over = Some(error),
            // Only after an error, which is kept.
            None => {}
        }
    }

    fn wish(&self, wish: Wish) {
        lock(&self.wishes).push(wish);
        self.wished.notify_one();
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        lock(&self.gathered)
    }
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.over.is_none()
    }

    fn has_room(&self) -> bool {
        self.events.len() < GATHERED && self.over.is_none()
    }

    /// The next batch: at least one event, if there is any, and not many more lines than may be converted at once.
    fn batch(&mut self) -> Vec<Followed> {
        let mut lines = 0;
        let count = self.events.iter().take_while(|followed| {
            let fits = lines < LINES_AT_ONCE;
            lines += lines_of(followed);
            fits
        });
        let count = count.count();
        self.events.drain(..count).collect()
    }
}

fn lines_of(followed: &Followed) -> usize {
    match &followed.event {
        Ok(proto::Event { event: Some(Kind::LogChunk(chunk)), .. }) => chunk.lines.len(),
        _ => 1,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WatchMany {
    pub(crate) fn new(client: Py<Client>, retry_for: Option<Duration>) -> Self {
        Self { client, retry_for, state: Mutex::new(State { closed: false, session: None }) }
    }

    /// What is under way in this process, begun now if there is nothing; None once it is closed.
    fn session(&self, py: Python<'_>) -> PyResult<Option<(&'static Process, Arc<Session>)>> {
        let mut state = lock(&self.state);
        if state.closed {
            return Ok(None);
        }
        if let Some(session) = state.session.as_ref().and_then(Owned::get) {
            return Ok(Some((Process::current(py), Arc::clone(session))));
        }
        let (process, client) = self.client.get().connected(py)?;
        let (follower, mut stream) = client.watch_many();
        if let Some(limit) = self.retry_for {
            stream = stream.retry_for(limit);
        }
        let session = Arc::new(Session {
            stream: tokio::sync::Mutex::new(stream),
            _follower: follower,
            wishes: Mutex::default(),
            wished: Notify::new(),
            gathered: Mutex::default(),
            closing: Notify::new(),
            closed: AtomicBool::new(false),
        });
        state.session = Some(process.own(Arc::clone(&session)));
        Ok(Some((process, session)))
    }

    fn end(&self) {
        let session = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.session.take()
        };
        if let Some(session) = session.as_ref().and_then(Owned::get) {
            session.closed.store(true, Ordering::Release);
            session.closing.notify_waiters();
        }
    }
}

#[pymethods]
impl WatchMany {
    #[pyo3(signature = (*, name, cursor, logs, containers))]
    fn add(&self, py: Python<'_>, name: String, cursor: Vec<u8>, logs: bool, containers: Vec<String>) -> PyResult<()> {
        let mode = if logs { proto::LogMode::Lines } else { proto::LogMode::None };
        let options = proto::WatchOptions { logs: mode.into(), containers, ..Default::default() };
        let request = proto::WatchExecutionRequest { name, cursor, options: Some(options) };
        if let Some((_, session)) = self.session(py)? {
            session.wish(Wish::Add(Box::new(request)));
        }
        Ok(())
    }

    #[pyo3(signature = (*, name))]
    fn remove(&self, py: Python<'_>, name: String) -> PyResult<()> {
        if let Some((_, session)) = self.session(py)? {
            session.wish(Wish::Remove(name));
        }
        Ok(())
    }

    /// An `asyncio.Future` that is done when `take` is worth calling.
    fn ready<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let session = self.session(py)?;
        let process = session.as_ref().map_or_else(|| Process::current(py), |(process, _)| process);
        asyncio::future(py, process, async move {
            if let Some((_, session)) = session {
                session.look().await;
            }
            converting(|py| Ok(py.None().into_bound(py)))
        })
    }

    /// The next batch: names with what happened to them.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let taken = PyList::empty(py);
        let Some((_, session)) = self.session(py)? else { return Ok(taken) };
        let batch = session.gathered().batch();
        if batch.is_empty() {
            let over = session.gathered().over.take();
            if let Some(error) = over {
                self.end();
                return Err(to_exception(py, error));
            }
        }
        for followed in batch {
            let made = match followed.event {
                Ok(event) => convert::event(py, event),
                Err(error) => Err(to_exception(py, error)),
            };
            let name = PyString::new(py, &followed.name);
            match made {
                Ok(Some(event)) => taken.append((name, event))?,
                // Nothing that Python sees.
                Ok(None) => {}
                Err(error) => {
                    // An answer that cannot be converted would come again and again.
                    session.wish(Wish::Remove(followed.name));
                    taken.append((name, error.into_value(py)))?;
                }
            }
        }
        Ok(taken)
    }

    fn close(&self) {
        self.end();
    }
}
