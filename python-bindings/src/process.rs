//! What this process has: one runtime and the clients that share connections.
//!
//! Both are made at first use. Threads do not survive a fork, so a child makes its own, and whatever belonged to the
//! parent's is leaked there: dropping it would wait for threads that do not exist. [`Owned`] sees to that.
//!
//! The runtime's threads block all signals, so that the system hands each signal to a thread of Python.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::SystemTime;

use nix::sys::signal::{SigSet, SigmaskHow};
use podbroker_client::Settings;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

/// Enough for a task process, which follows one execution, and for a triggerer, whose work is Python's.
const WORKERS: usize = 2;

/// Name resolution is all that blocks.
const BLOCKING_THREADS: usize = 4;

/// This process, as opposed to the ones that it was forked from.
pub(crate) struct Process {
    id: u32,
    runtime: OnceLock<Runtime>,
    clients: Mutex<HashMap<(Settings, Files), Weak<podbroker_client::Client>>>,
    /// Held to read while a thread of the runtime is attached to the interpreter.
    interpreter: RwLock<Interpreter>,
}

/// What the files of TLS look like: when each was changed, and how long it is. A client reads them once, so the one that is
/// made after a certificate was renewed is another one.
type Files = Vec<Option<(Option<SystemTime>, u64)>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Interpreter {
    Running,
    GoingDown,
}

impl Process {
    /// The one that runs this. Never freed, like its runtime: a thread may use either until the very end.
    pub(crate) fn current(_py: Python<'_>) -> &'static Self {
        static CURRENT: Mutex<Option<&'static Process>> = Mutex::new(None);
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        match *current {
            Some(process) if process.is_current() => process,
            _ => {
                let process: &'static Self = Box::leak(Box::new(Self {
                    id: std::process::id(),
                    runtime: OnceLock::new(),
                    clients: Mutex::default(),
                    interpreter: RwLock::new(Interpreter::Running),
                }));
                *current = Some(process);
                process
            }
        }
    }

    /// Whether no fork lies between.
    pub(crate) fn is_current(&self) -> bool {
        self.id == std::process::id()
    }

    /// The runtime, made now if there is none yet.
    pub(crate) fn runtime(&self, _py: Python<'_>) -> PyResult<&Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        // Attached to the interpreter, so no other thread makes one at the same time.
        let runtime = with_signals_blocked(|| {
            Builder::new_multi_thread()
                .worker_threads(WORKERS)
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name("podbroker")
                // For those that are started later, by whichever thread needs one.
                .on_thread_start(block_signals)
                .enable_all()
                .build()
        })
        .map_err(|cause| PyRuntimeError::new_err(format!("no threads for the connections: {cause}")))?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    /// Runs in a thread of the runtime, attached to the interpreter. None: the interpreter goes down.
    ///
    /// A thread that waits for the interpreter when it is taken down never gets it, and Python 3.11 ends the process
    /// because of that; so the way down waits for those that are inside, and lets nobody in after.
    pub(crate) fn attach<T>(&self, work: impl for<'py> FnOnce(Python<'py>) -> T) -> Option<T> {
        let interpreter = self.interpreter.read().unwrap_or_else(PoisonError::into_inner);
        if *interpreter == Interpreter::GoingDown {
            return None;
        }
        Python::try_attach(work)
    }

    /// Waits for the threads of the runtime that are attached; none is afterwards.
    pub(crate) fn leave_interpreter(&self, py: Python<'_>) {
        py.detach(|| {
            *self.interpreter.write().unwrap_or_else(PoisonError::into_inner) = Interpreter::GoingDown;
        });
    }

    /// A client with these settings; all that have the same ones, and found the same files, share its connections.
    pub(crate) fn client(
        &'static self,
        settings: &Settings,
    ) -> Result<Owned<Arc<podbroker_client::Client>>, podbroker_client::Error> {
        let key = (settings.clone(), files_of(settings));
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key).and_then(Weak::upgrade) {
            return Ok(self.own(client));
        }
        let client = Arc::new(podbroker_client::Client::new(settings.clone())?);
        clients.retain(|_, client| client.strong_count() > 0);
        clients.insert(key, Arc::downgrade(&client));
        Ok(self.own(client))
    }

    /// Ties a value to this process.
    pub(crate) fn own<T>(&'static self, value: T) -> Owned<T> {
        Owned { value: Some(value), process: self }
    }
}

/// A value that is of no use in a child of the process that made it, and that a child leaks.
pub(crate) struct Owned<T> {
    value: Option<T>,
    process: &'static Process,
}

impl<T> Owned<T> {
    /// The value, unless a fork lies between.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.process.is_current())
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.process.is_current() {
            std::mem::forget(self.value.take());
        }
    }
}

fn files_of(settings: &Settings) -> Files {
    let look = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.modified().ok(), found.len()));
    let certificate = settings.client_certificate.iter().flat_map(|each| [&each.certificate_file, &each.key_file]);
    settings.ca_file.iter().chain(certificate).map(|path| look(path)).collect()
}

fn block_signals() {
    // Fails for an invalid argument only.
    let _ = SigSet::all().thread_block();
}

fn with_signals_blocked<T>(work: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let done = work();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    done
}
