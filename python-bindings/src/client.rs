//! The client: its settings, and one method for each call of the contract.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podbroker_client::{Settings, proto};
use pyo3::prelude::*;

use crate::call::Call;
use crate::checks::Checks;
use crate::convert;
use crate::error::to_exception;
use crate::process::{Owned, Process};
use crate::request::{self, Arguments, BatchWorkload, Group, Policies, Target};
use crate::watch::Watch;
use crate::watch_many::WatchMany;

/// A client of one broker. Its connections are made, and after a fork made anew, when they are needed.
#[pyclass(frozen, module = "podbroker._core")]
pub(crate) struct Client {
    settings: Settings,
    shared: Mutex<Option<Owned<Arc<podbroker_client::Client>>>>,
}

impl Client {
    /// The client of this process.
    pub(crate) fn connected(&self, py: Python<'_>) -> PyResult<(&'static Process, podbroker_client::Client)> {
        let process = Process::current(py);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = shared.as_ref().and_then(Owned::get) {
            return Ok((process, podbroker_client::Client::clone(client)));
        }
        let client = process.client(&self.settings).map_err(|error| to_exception(py, error))?;
        let given = client.get().map(|client| podbroker_client::Client::clone(client));
        *shared = Some(client);
        given.map(|client| (process, client)).ok_or_else(|| crate::error::defect("the process changed in between"))
    }
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (*, address, token, token_file, ca_file, client_certificate_file, client_key_file, server_name,
        connect_timeout, call_timeout, retry_for))]
    #[expect(clippy::too_many_arguments, reason = "the keyword arguments of Python")]
    fn new(
        py: Python<'_>,
        address: String,
        token: Option<String>,
        token_file: Option<PathBuf>,
        ca_file: Option<PathBuf>,
        client_certificate_file: Option<PathBuf>,
        client_key_file: Option<PathBuf>,
        server_name: Option<String>,
        connect_timeout: f64,
        call_timeout: f64,
        retry_for: f64,
    ) -> PyResult<Self> {
        let settings = Settings::try_from(Arguments {
            address,
            token,
            token_file,
            ca_file,
            client_certificate_file,
            client_key_file,
            server_name,
            connect_timeout,
            call_timeout,
            retry_for,
        })?;
        let client = Self { settings, shared: Mutex::default() };
        // Says now what is wrong with the settings; connects to nothing.
        client.connected(py)?;
        Ok(client)
    }

    fn close(&self) {
        drop(self.shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    #[pyo3(signature = (*, target, execution_id, pod, batch, job, submit_before, labels, policies, group, required_features,
        validate_only, must_exist))]
    #[expect(clippy::too_many_arguments, reason = "the keyword arguments of Python")]
    fn submit(
        slf: Py<Self>,
        target: Target,
        execution_id: String,
        pod: Option<Vec<u8>>,
        batch: Option<BatchWorkload>,
        job: Option<Vec<u8>>,
        submit_before: Option<Bound<'_, PyAny>>,
        labels: HashMap<String, String>,
        policies: Option<Policies>,
        group: Option<Group<'_>>,
        required_features: Vec<String>,
        validate_only: bool,
        must_exist: bool,
    ) -> PyResult<Call> {
        let request = proto::SubmitExecutionRequest {
            target: Some(target.into()),
            execution_id,
            submit_before: submit_before.map(|time| request::timestamp("submit_before", &time)).transpose()?,
            workload: Some(request::workload(pod, batch, job)?),
            labels: labels.into_iter().collect(),
            policies: policies.map(TryInto::try_into).transpose()?,
            group: group.map(TryInto::try_into).transpose()?,
            required_features,
            validate_only,
            must_exist,
        };
        Ok(Call::new(slf, |client| async move { client.submit(request).await }, convert::submission))
    }

    #[pyo3(signature = (*, name, full))]
    fn get(slf: Py<Self>, name: String, full: bool) -> Call {
        let view = if full { proto::ExecutionView::Full } else { proto::ExecutionView::Basic };
        let request = proto::GetExecutionRequest { name, view: view.into() };
        Call::new(slf, |client| async move { client.get(request).await }, convert::execution)
    }

    #[pyo3(signature = (*, target, labels, states, page_size, page_token))]
    fn page(
        slf: Py<Self>,
        target: Target,
        labels: HashMap<String, String>,
        states: Vec<String>,
        page_size: i32,
        page_token: String,
    ) -> PyResult<Call> {
        let request = proto::ListExecutionsRequest {
            target: Some(target.into()),
            labels: labels.into_iter().collect(),
            states: request::states(states)?,
            page_size,
            page_token,
        };
        Ok(Call::new(slf, |client| async move { client.list(request).await }, convert::page))
    }

    #[pyo3(signature = (*, name, claim, reason, grace))]
    fn cancel(slf: Py<Self>, name: String, claim: String, reason: String, grace: Option<Duration>) -> PyResult<Call> {
        let grace = grace.map(request::duration).transpose()?;
        let request = proto::CancelExecutionRequest { name, claim, reason, grace };
        Ok(Call::new(slf, |client| async move { client.cancel(request).await }, convert::execution))
    }

    #[pyo3(signature = (*, name, claim))]
    fn release(slf: Py<Self>, name: String, claim: String) -> Call {
        let request = proto::ReleaseExecutionRequest { name, claim };
        Call::new(slf, |client| async move { client.release(request).await }, convert::execution)
    }

    fn targets(slf: Py<Self>) -> Call {
        Call::new(slf, |client| async move { client.list_targets().await }, convert::targets)
    }

    fn server_info(slf: Py<Self>) -> Call {
        Call::new(slf, |client| async move { client.server_info().await }, convert::server_info)
    }

    #[pyo3(signature = (*, target))]
    fn check(slf: Py<Self>, target: Target) -> Checks {
        Checks::new(slf, target.into())
    }

    #[pyo3(signature = (*, name, cursor, logs, containers, tail_lines, since, follow, retry_for))]
    #[expect(clippy::too_many_arguments, reason = "the keyword arguments of Python")]
    fn watch(
        slf: Py<Self>,
        name: String,
        cursor: Vec<u8>,
        logs: bool,
        containers: Vec<String>,
        tail_lines: i64,
        since: Option<Bound<'_, PyAny>>,
        follow: bool,
        retry_for: Option<f64>,
    ) -> PyResult<Watch> {
        let mode = if logs { proto::LogMode::Lines } else { proto::LogMode::None };
        let options = proto::WatchOptions {
            logs: mode.into(),
            containers,
            tail_lines,
            since: since.map(|time| request::timestamp("since", &time)).transpose()?,
            no_follow: !follow,
            max_log_bytes: 0,
        };
        let request = proto::WatchExecutionRequest { name, cursor, options: Some(options) };
        let retry_for = retry_for.map(|limit| request::seconds("retry_for", limit)).transpose()?;
        Ok(Watch::new(slf, request, retry_for))
    }

    #[pyo3(signature = (*, retry_for))]
    fn watch_many(slf: Py<Self>, retry_for: Option<f64>) -> PyResult<WatchMany> {
        let retry_for = retry_for.map(|limit| request::seconds("retry_for", limit)).transpose()?;
        Ok(WatchMany::new(slf, retry_for))
    }
}
