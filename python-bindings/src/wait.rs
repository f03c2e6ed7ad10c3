//! Waiting in a thread of Python: detached from the interpreter, in slices between which signal handlers run.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::process::Process;

/// A signal handler runs at most so long after its signal.
const SLICE: Duration = Duration::from_millis(100);

/// Waits for the future to complete. An exception of a signal handler, such as `KeyboardInterrupt`, ends the wait and
/// drops the future.
pub(crate) fn wait<F>(py: Python<'_>, process: &'static Process, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let mut future = pin!(future);
    loop {
        py.check_signals()?;
        if !process.is_current() {
            return Err(PyRuntimeError::new_err("a signal handler forked; the call goes on in the parent only"));
        }
        if let Some(output) = wait_slice(py, process, SLICE, future.as_mut())? {
            return Ok(output);
        }
    }
}

/// Waits until the future completes, but at most for one slice and not past `limit`. The future must be safe to drop.
pub(crate) fn wait_slice<F>(
    py: Python<'_>,
    process: &'static Process,
    limit: Duration,
    future: F,
) -> PyResult<Option<F::Output>>
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = process.runtime(py)?;
    let limit = limit.min(SLICE);
    Ok(py.detach(|| runtime.block_on(async { tokio::time::timeout(limit, future).await.ok() })))
}
