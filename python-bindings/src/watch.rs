//! The watch: events as they come, for a thread that waits, polls or is woken, and for a coroutine.
//!
//! What is under way belongs to one process and is a [`Session`]; a child continues with one of its own after the last
//! event that was handed out. An event first becomes ready and is then taken, attached to the interpreter and without a
//! pause between the two, so whoever stops waiting leaves it to the next one to ask.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use podbroker_client::{Error, proto};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::Notify;

use crate::asyncio::{self, converting};
use crate::client::Client;
use crate::convert;
use crate::error::to_exception;
use crate::process::{Owned, Process};
use crate::request;
use crate::wait::wait_slice;

/// The events of one execution.
#[pyclass(frozen, module = "podbroker._core")]
pub(crate) struct Watch {
    client: Py<Client>,
    request: proto::WatchExecutionRequest,
    retry_for: Option<Duration>,
    /// `wake` was called and no `poll` has returned because of it yet.
    woken: Arc<AtomicBool>,
    state: Mutex<State>,
}

struct State {
    cursor: Vec<u8>,
    ended: bool,
    session: Option<Owned<Arc<Session>>>,
}

/// The stream of one process.
struct Session {
    stream: tokio::sync::Mutex<podbroker_client::Watch>,
    ready: Mutex<Option<Item>>,
    /// Something else than an event happened: `wake` or `close`.
    signal: Notify,
    closed: AtomicBool,
    woken: Arc<AtomicBool>,
}

enum Item {
    Event(Box<proto::Event>),
    Failed(Error),
    Finished,
}

/// Whether a wait is over once `wake` was called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    Heard,
    Ignored,
}

impl Session {
    /// Completes when an item is ready, or early when there may be another reason to look. Safe to drop.
    async fn look(&self, wake: Wake) {
        let signal = self.signal.notified();
        tokio::pin!(signal);
        // From here on no signal is missed, and one from before has left its mark.
        signal.as_mut().enable();
        if self.closed.load(Ordering::Acquire) || (wake == Wake::Heard && self.woken.load(Ordering::Acquire)) {
            return;
        }
        tokio::select! {
            () = signal => {}
            () = self.fill() => {}
        }
    }

    async fn fill(&self) {
        let mut stream = self.stream.lock().await;
        if self.ready().is_some() {
            return;
        }
        let item = match stream.next().await {
            Some(Ok(event)) => Item::Event(Box::new(event)),
            Some(Err(error)) => Item::Failed(error),
            None => Item::Finished,
        };
        *self.ready() = Some(item);
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, Option<Item>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.signal.notify_waiters();
    }
}

impl Watch {
    pub(crate) fn new(client: Py<Client>, request: proto::WatchExecutionRequest, retry_for: Option<Duration>) -> Self {
        let state = State { cursor: request.cursor.clone(), ended: false, session: None };
        Self { client, request, retry_for, woken: Arc::default(), state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is under way in this process, begun now if there is nothing; None when the watch has ended.
    fn session(&self, py: Python<'_>) -> PyResult<Option<(&'static Process, Arc<Session>)>> {
        let mut state = self.state();
        if state.ended {
            return Ok(None);
        }
        let process = Process::current(py);
        if let Some(session) = state.session.as_ref().and_then(Owned::get) {
            return Ok(Some((process, Arc::clone(session))));
        }
        let (process, client) = self.client.get().connected(py)?;
        let mut request = self.request.clone();
        request.cursor.clone_from(&state.cursor);
        let mut stream = client.watch(request);
        if let Some(limit) = self.retry_for {
            stream = stream.retry_for(limit);
        }
        let session = Arc::new(Session {
            stream: tokio::sync::Mutex::new(stream),
            ready: Mutex::default(),
            signal: Notify::new(),
            closed: AtomicBool::new(false),
            woken: Arc::clone(&self.woken),
        });
        state.session = Some(process.own(Arc::clone(&session)));
        Ok(Some((process, session)))
    }

    /// Hands out what is ready. None for nothing, and for what Python does not see.
    fn hand_out<'py>(&self, py: Python<'py>, session: &Session) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(item) = session.ready().take() else { return Ok(None) };
        match item {
            Item::Event(event) => {
                let cursor = event.cursor.to_vec();
                let is_last = matches!(event.event, Some(proto::event::Event::End(_)));
                let made = convert::event(py, *event).inspect_err(|_| self.end())?;
                if !cursor.is_empty() {
                    self.state().cursor = cursor;
                }
                if is_last {
                    self.end();
                }
                Ok(made)
            }
            Item::Failed(error) => {
                self.end();
                Err(to_exception(py, error))
            }
            Item::Finished => {
                self.end();
                Ok(None)
            }
        }
    }

    fn end(&self) {
        let session = {
            let mut state = self.state();
            state.ended = true;
            state.session.take()
        };
        if let Some(session) = session.as_ref().and_then(Owned::get) {
            session.close();
        }
    }

    /// Waits for the next event until `until`, or for ever. None: the time is over, the watch has ended, or it was woken.
    fn wait<'py>(&self, py: Python<'py>, until: Option<Instant>, wake: Wake) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut last_look = false;
        loop {
            py.check_signals()?;
            let Some((process, session)) = self.session(py)? else { return Ok(None) };
            if wake == Wake::Heard && self.woken.swap(false, Ordering::AcqRel) {
                return Ok(None);
            }
            if let Some(event) = self.hand_out(py, &session)? {
                return Ok(Some(event));
            }
            if last_look || self.state().ended {
                return Ok(None);
            }
            // A timeout of zero, too, looks at what has come.
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            last_look = left.is_zero();
            wait_slice(py, process, left, session.look(wake))?;
        }
    }
}

#[pymethods]
impl Watch {
    #[getter]
    fn ended(&self) -> bool {
        self.state().ended
    }

    #[getter]
    fn cursor<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.state().cursor)
    }

    #[pyo3(signature = (*, timeout))]
    fn poll<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let timeout = timeout.map(|timeout| request::seconds("timeout", timeout)).transpose()?;
        // A time too far away to be told is for ever.
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.wait(py, until, Wake::Heard)
    }

    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.wait(py, None, Wake::Ignored)
    }

    /// An `asyncio.Future` that is done when `take` is worth calling.
    fn ready<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let session = self.session(py)?;
        let process = session.as_ref().map_or_else(|| Process::current(py), |(process, _)| process);
        asyncio::future(py, process, async move {
            if let Some((_, session)) = session {
                session.look(Wake::Ignored).await;
            }
            converting(|py| Ok(py.None().into_bound(py)))
        })
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.session(py)? {
            Some((_, session)) => self.hand_out(py, &session),
            None => Ok(None),
        }
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        if let Some(session) = self.state().session.as_ref().and_then(Owned::get) {
            session.signal.notify_waiters();
        }
    }

    fn close(&self) {
        self.end();
    }
}
