//! Errors of the engine as Python exceptions, in one place.

use fzgw_core::io::StartError as CoreError;
use pyo3::prelude::*;

pyo3::create_exception!(
    fzgw._core,
    StartError,
    pyo3::exceptions::PyException,
    "Why a gateway cannot start."
);

/// The exception for an error of the engine's start, its kind beside its text.
pub(crate) fn start_error(py: Python<'_>, error: &CoreError) -> PyErr {
    let kind = match error {
        CoreError::PortInUse { .. } => "port_in_use",
        CoreError::InterfaceTaken { .. } => "interface_taken",
        CoreError::NoTun => "no_tun",
        CoreError::Privilege { .. } => "privilege",
        CoreError::System { .. } => "other",
    };
    let exception = StartError::new_err(error.to_string());
    match exception.value(py).setattr("kind", kind) {
        Ok(()) => exception,
        Err(error) => error,
    }
}
