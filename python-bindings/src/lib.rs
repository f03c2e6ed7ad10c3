//! The native module `podbroker._core`: the client crate, as Python sees it.
//!
//! It converts and waits, and decides nothing: trying again, resuming and TLS are the client crate's, and what a user
//! reads is Python's. Loading it starts nothing. Blocking calls release the interpreter and let signal handlers run; the
//! awaitable ones never block the event loop. All of it works on in a forked child.
//!
//! A rule holds throughout: a lock that more than one thread of Python may want is taken only while attached to the
//! interpreter and given back before detaching. A fork happens while its thread is attached, so no such lock is ever
//! held by a thread that the child does not have.

mod asyncio;
mod call;
mod checks;
mod client;
mod convert;
mod error;
mod process;
mod request;
mod wait;
mod watch;
mod watch_many;

/// The native module.
#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use crate::call::Call;
    #[pymodule_export]
    use crate::checks::Checks;
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::watch::Watch;
    #[pymodule_export]
    use crate::watch_many::WatchMany;

    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        use pyo3::types::PyModuleMethods;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
