//! The contract's messages, as the dataclasses of `podbroker`.
//!
//! The classes are looked up once and called with keywords, so a field that the two sides do not share is an error at its
//! first use and not a shift. An enum number that this client is too old to know becomes `UNKNOWN`. A message without a
//! part that the contract promises is an exception: the broker is broken.

mod event;
mod execution;
mod target;

pub(crate) use event::event;
pub(crate) use execution::{execution, page, submission};
pub(crate) use target::{check, server_info, targets};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDelta, PyDict, PyTuple, PyType};

use crate::error::broken_answer;

/// A class of the Python package, imported at its first use.
struct Class {
    module: &'static str,
    name: &'static str,
    cell: PyOnceLock<Py<PyType>>,
}

impl Class {
    const fn new(module: &'static str, name: &'static str) -> Self {
        Self { module, name, cell: PyOnceLock::new() }
    }

    fn get<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<&'a Bound<'py, PyType>> {
        self.cell.import(py, self.module, self.name)
    }

    fn make<'py>(&self, fields: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
        self.get(fields.py())?.call((), Some(fields))
    }

    /// The member for a name of the contract, which has the enum's own name as a prefix.
    fn member<'py>(&self, py: Python<'py>, name: Option<&str>, prefix: &str) -> PyResult<Bound<'py, PyAny>> {
        let name = name.and_then(|name| name.strip_prefix(prefix)).filter(|name| *name != "UNSPECIFIED");
        self.get(py)?.getattr(name.unwrap_or("UNKNOWN"))
    }
}

/// The keyword arguments of a class.
macro_rules! fields {
    ($py:expr, $($name:ident: $value:expr),+ $(,)?) => {{
        let fields = pyo3::types::PyDict::new($py);
        $(fields.set_item(pyo3::intern!($py, stringify!($name)), $value)?;)+
        fields
    }};
}
use fields;

/// A part that the contract promises.
fn promised<T>(py: Python<'_>, part: Option<T>, what: &str) -> PyResult<T> {
    part.ok_or_else(|| broken_answer(py, &format!("the broker's answer lacks {what}")))
}

/// Each item converted.
fn tuple<'py, T>(
    py: Python<'py>,
    items: Vec<T>,
    convert: impl Fn(Python<'py>, T) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, items.into_iter().map(|item| convert(py, item)).collect::<PyResult<Vec<_>>>()?)
}

/// A `datetime` in UTC, to the microsecond.
fn time(py: Python<'_>, timestamp: Option<prost_types::Timestamp>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static EPOCH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    const SECONDS_PER_DAY: i64 = 86_400;
    let Some(timestamp) = timestamp else { return Ok(None) };
    let epoch = EPOCH.get_or_try_init(py, || {
        let utc = pyo3::types::PyTzInfo::utc(py)?;
        pyo3::types::PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&utc)).map(|epoch| epoch.into_any().unbind())
    })?;
    let days = i32::try_from(timestamp.seconds.div_euclid(SECONDS_PER_DAY))?;
    let seconds = i32::try_from(timestamp.seconds.rem_euclid(SECONDS_PER_DAY))?;
    let since = PyDelta::new(py, days, seconds, timestamp.nanos / 1000, true)?;
    epoch.bind(py).add(since).map(Some)
}
