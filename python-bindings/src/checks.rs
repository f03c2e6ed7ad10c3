//! The checks of one target, one after another.

use std::sync::Arc;

use podbroker_client::{Error, proto};
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::call::Call;
use crate::client::Client;
use crate::convert;
use crate::process::{Owned, Process};

/// The checks of one target. A child continues none of its parent's: it begins anew.
#[pyclass(frozen, module = "podbroker._core")]
pub(crate) struct Checks {
    client: Py<Client>,
    target: proto::TargetSelector,
    walk: std::sync::Mutex<Option<Owned<Arc<Mutex<Walk>>>>>,
}

enum Walk {
    NotBegun(proto::TargetSelector),
    On(Box<podbroker_client::Checks>),
    Over,
}

impl Checks {
    pub(crate) fn new(client: Py<Client>, target: proto::TargetSelector) -> Self {
        Self { client, target, walk: std::sync::Mutex::default() }
    }

    fn walk(&self, py: Python<'_>) -> Arc<Mutex<Walk>> {
        let mut walk = self.walk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(walk) = walk.as_ref().and_then(Owned::get) {
            return Arc::clone(walk);
        }
        let new = Arc::new(Mutex::new(Walk::NotBegun(self.target.clone())));
        *walk = Some(Process::current(py).own(Arc::clone(&new)));
        new
    }
}

#[pymethods]
impl Checks {
    fn next(&self, py: Python<'_>) -> Call {
        let walk = self.walk(py);
        let step = |client| async move { walk.lock().await.step(client).await };
        Call::new(self.client.clone_ref(py), step, convert::check)
    }
}

impl Walk {
    async fn step(&mut self, client: podbroker_client::Client) -> Result<Option<proto::Check>, Error> {
        if let Self::NotBegun(target) = self {
            *self = Self::On(Box::new(client.check_target(target.clone()).await?));
        }
        let Self::On(checks) = self else { return Ok(None) };
        let next = checks.next().await.transpose();
        if !matches!(next, Ok(Some(_))) {
            *self = Self::Over;
        }
        next
    }
}
