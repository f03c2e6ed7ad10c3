//! One call that is not made yet: waited for, or awaited.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::asyncio::{self, Convert, converting};
use crate::client::Client;
use crate::error::to_exception;
use crate::process::Process;
use crate::wait::wait;

type Reply = Pin<Box<dyn Future<Output = Result<Convert, podbroker_client::Error>> + Send>>;
type Start = Box<dyn FnOnce(podbroker_client::Client) -> Reply + Send>;

/// A call of a client, made once by whichever way of waiting comes first.
#[pyclass(frozen, module = "podbroker._core")]
pub(crate) struct Call {
    client: Py<Client>,
    start: Mutex<Option<Start>>,
}

impl Call {
    /// Prepares a call: how it is made, and what Python sees of the answer.
    pub(crate) fn new<T, F>(
        client: Py<Client>,
        make: impl FnOnce(podbroker_client::Client) -> F + Send + 'static,
        convert: impl for<'py> FnOnce(Python<'py>, T) -> PyResult<Bound<'py, PyAny>> + Send + 'static,
    ) -> Self
    where
        T: Send + 'static,
        F: Future<Output = Result<T, podbroker_client::Error>> + Send + 'static,
    {
        let start: Start = Box::new(move |client| {
            let call = make(client);
            Box::pin(async move {
                let answer = call.await?;
                Ok(converting(move |py| convert(py, answer)))
            })
        });
        Self { client, start: Mutex::new(Some(start)) }
    }

    fn start(&self, py: Python<'_>) -> PyResult<(&'static Process, Reply)> {
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner).take();
        let start = start.ok_or_else(|| PyRuntimeError::new_err("the call was made already"))?;
        let (process, client) = self.client.get().connected(py)?;
        Ok((process, start(client)))
    }
}

#[pymethods]
impl Call {
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (process, reply) = self.start(py)?;
        let convert = wait(py, process, reply)?.map_err(|error| to_exception(py, error))?;
        convert(py)
    }

    fn __await__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (process, reply) = self.start(py)?;
        let work =
            async move { reply.await.unwrap_or_else(|error| converting(move |py| Err(to_exception(py, error)))) };
        asyncio::future(py, process, work)?.call_method0("__await__")
    }
}
