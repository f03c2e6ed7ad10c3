//! Waiting in a coroutine: a task of our runtime completes a future of the running event loop.
//!
//! The event loop's thread never waits for ours: results are handed over with `call_soon_threadsafe`, and converted there.
//! A future that is cancelled takes its task with it. Made by hand, since the ready-made bridge has one runtime per
//! process for ever, and a forked child would wait for it in vain.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::task::AbortHandle;

use crate::process::{Owned, Process};

/// Makes the Python value of an outcome, or the exception.
pub(crate) type Convert = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>> + Send>;

/// Says the type of a closure, which it cannot infer by itself.
pub(crate) fn converting(
    convert: impl for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>> + Send + 'static,
) -> Convert {
    Box::new(convert)
}

/// An `asyncio.Future` of the running loop that becomes what the work's outcome is converted to.
pub(crate) fn future<'py>(
    py: Python<'py>,
    process: &'static Process,
    work: impl Future<Output = Convert> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    static RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    leave_at_exit(py)?;
    let event_loop = RUNNING_LOOP.import(py, "asyncio", "get_running_loop")?.call0()?;
    let future = event_loop.call_method0("create_future")?;
    let (event_loop, handed) = (event_loop.unbind(), future.clone().unbind());
    let task = process.runtime(py)?.spawn(async move {
        let convert = work.await;
        // Nobody waits any more if the interpreter is going down, or if the loop is closed.
        let _ = process.attach(|py| -> PyResult<()> {
            let delivery = Bound::new(py, Delivery { future: handed, convert: Mutex::new(Some(convert)) })?;
            event_loop.bind(py).call_method1("call_soon_threadsafe", (delivery,))?;
            Ok(())
        });
    });
    let ending = Ending { task: process.own(task.abort_handle()) };
    future.call_method1("add_done_callback", (ending,))?;
    Ok(future)
}

/// Has the way down of the interpreter wait for those who hand something over; once, also for forked children.
fn leave_at_exit(py: Python<'_>) -> PyResult<()> {
    static REGISTERED: PyOnceLock<()> = PyOnceLock::new();
    REGISTERED.get_or_try_init(py, || py.import("atexit")?.call_method1("register", (Leaving,)).map(|_| ()))?;
    Ok(())
}

/// Called when the interpreter begins to go down.
#[pyclass(frozen)]
struct Leaving;

#[pymethods]
impl Leaving {
    #[expect(clippy::unused_self, reason = "what Python calls is an object")]
    fn __call__(&self, py: Python<'_>) {
        Process::current(py).leave_interpreter(py);
    }
}

/// Called in the loop's thread: sets the result.
#[pyclass(frozen)]
struct Delivery {
    future: Py<PyAny>,
    convert: Mutex<Option<Convert>>,
}

#[pymethods]
impl Delivery {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let convert = self.convert.lock().unwrap_or_else(PoisonError::into_inner).take();
        let future = self.future.bind(py);
        let Some(convert) = convert else { return Ok(()) };
        // Cancelled while this was on its way.
        if future.call_method0("done")?.is_truthy()? {
            return Ok(());
        }
        match convert(py) {
            Ok(value) => future.call_method1("set_result", (value,))?,
            Err(error) => future.call_method1("set_exception", (error,))?,
        };
        Ok(())
    }
}

/// Called when the future is done: the owner of the task. Only a cancelled future still has one that runs.
#[pyclass(frozen)]
struct Ending {
    task: Owned<AbortHandle>,
}

#[pymethods]
impl Ending {
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}
