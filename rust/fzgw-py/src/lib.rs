//! `fzgw._core`: the engine for Python. A thin edge: conversions and waits, no decisions.

use pyo3::prelude::*;

mod batch;
mod convert;
mod error;
mod flow;
mod gateway;
mod keys;
mod ledgers;
mod receiver;
mod replay;
mod toml_lines;

/// The Rust engine of fzgw.
#[pymodule(gil_used = true)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::batch::{Batch, Gap, Note, Openings};
    #[pymodule_export]
    use crate::error::StartError;
    #[pymodule_export]
    use crate::flow::{Delta, Flow, IcmpErrors, Path, Peer, Tcp};
    #[pymodule_export]
    use crate::gateway::Gateway;
    #[pymodule_export]
    use crate::keys::{generate_private_key, public_key};
    #[pymodule_export]
    use crate::replay::Replay;
    #[pymodule_export]
    use crate::toml_lines::toml_lines;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // What an instance that names no kind has.
        module.py().get_type::<StartError>().setattr("kind", "other")
    }
}
