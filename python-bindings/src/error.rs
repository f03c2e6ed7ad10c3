//! The exceptions: one class of `podbroker.exceptions` for each reaction, chosen here and nowhere else.

use podbroker_client::{Code, Error};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyTuple};

const MODULE: &str = "podbroker.exceptions";

/// The one class that says since when.
const UNAVAILABLE: &str = "UnavailableError";

/// The exception for a failed call.
pub(crate) fn to_exception(py: Python<'_>, error: Error) -> PyErr {
    let class = class_of(&error);
    make(py, class, error).unwrap_or_else(|failure| failure)
}

/// The exception for an answer that breaks the contract.
pub(crate) fn broken_answer(py: Python<'_>, message: &str) -> PyErr {
    let made = py.import(MODULE).and_then(|module| module.getattr("BrokerError")?.call1((message,)));
    made.map_or_else(|failure| failure, PyErr::from_value)
}

/// The exception for this module's own fault, which a caller cannot mend.
pub(crate) fn defect(message: &str) -> PyErr {
    PyRuntimeError::new_err(message.to_owned())
}

fn class_of(error: &Error) -> &'static str {
    match error.reason.as_str() {
        "INVALID_REQUEST" => "InvalidRequestError",
        "INVALID_SPEC" => "InvalidSpecError",
        "INVALID_CURSOR" => "InvalidCursorError",
        "UNAUTHENTICATED" => "NotAuthenticatedError",
        "TARGET_NOT_ALLOWED" => "NotAllowedError",
        "NO_SUCH_TARGET" | "NO_SUCH_EXECUTION" => "NotFoundError",
        "EXPIRED" => "ExpiredError",
        "EXECUTION_ID_REUSED" => "ConflictError",
        "SUBMIT_WINDOW_CLOSED"
        | "FORBIDDEN_BY_CLUSTER"
        | "NAMESPACE_NOT_FOUND"
        | "ADMISSION_DENIED"
        | "CLAIM_SUPERSEDED" => "RefusedError",
        "CREDENTIALS_REFUSED" => "CredentialsError",
        "QUOTA" => "QuotaError",
        "UNSUPPORTED_FEATURE" => "UnsupportedError",
        "OVERLOADED"
        | "BACKEND_UNAVAILABLE"
        | "CREDENTIALS_UNAVAILABLE"
        | "GROUP_BUSY"
        | "ARCHIVE_UNAVAILABLE"
        | "DRAINING" => UNAVAILABLE,
        "INTERNAL" => "BrokerError",
        // No reason, or one that this client is too old to know: the code says which reaction fits.
        _ => class_of_code(error.code),
    }
}

fn class_of_code(code: Code) -> &'static str {
    match code {
        // Without a reason the last two are the transport's, which refused a message that is too large.
        Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted => "InvalidRequestError",
        Code::Unauthenticated => "NotAuthenticatedError",
        Code::PermissionDenied => "NotAllowedError",
        Code::NotFound => "NotFoundError",
        Code::AlreadyExists => "ConflictError",
        Code::FailedPrecondition => "RefusedError",
        Code::Unimplemented => "UnsupportedError",
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => "BrokerError",
    }
}

fn make(py: Python<'_>, class: &str, error: Error) -> PyResult<PyErr> {
    let module = py.import(MODULE)?;
    let violation_class = module.getattr("FieldViolation")?;
    let violations = error.field_violations.into_iter().map(|violation| {
        let fields = [("field", violation.field), ("description", violation.description)].into_py_dict(py)?;
        violation_class.call((), Some(&fields))
    });
    let violations = PyTuple::new(py, violations.collect::<PyResult<Vec<_>>>()?)?;
    let attributes = pyo3::types::PyDict::new(py);
    attributes.set_item("code", error.code.as_str())?;
    attributes.set_item("reason", error.reason)?;
    attributes.set_item("retryable", error.retryable)?;
    attributes.set_item("field_violations", violations)?;
    attributes.set_item("request_id", &*error.request_id)?;
    if class == UNAVAILABLE {
        attributes.set_item("since", error.since)?;
    }
    Ok(PyErr::from_value(module.getattr(class)?.call((error.message,), Some(&attributes))?))
}
