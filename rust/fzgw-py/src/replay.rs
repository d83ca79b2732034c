//! Captures being read. Every wait of a call releases the interpreter.

use std::path::PathBuf;

use fzgw_core::flow::{Limits, Purpose};
use fzgw_core::replay::{self, ReplayLedger, ReplayOptions};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::batch::Batch;
use crate::receiver::Receiver;
use crate::{convert, ledgers};

/// Capture files through the flow engine. See the stub file for its documentation.
#[pyclass(frozen, module = "fzgw._core")]
pub(crate) struct Replay {
    replay: replay::Replay,
    receiver: Receiver,
}

#[pymethods]
impl Replay {
    #[staticmethod]
    #[pyo3(signature = (paths, *, config=None, flow_logs=None, updates=true, open_events=false))]
    fn start(
        py: Python<'_>,
        paths: Vec<PathBuf>,
        config: Option<&Bound<'_, PyAny>>,
        flow_logs: Option<&Bound<'_, PyAny>>,
        updates: bool,
        open_events: bool,
    ) -> PyResult<Self> {
        let gateway = config
            .map(|config| convert::config(config, true, open_events))
            .transpose()?;
        let limits = match (flow_logs, &gateway) {
            (Some(flow_logs), _) => convert::limits(flow_logs)?,
            (None, Some(gateway)) => gateway.limits,
            (None, None) => Limits::default(),
        };
        let options = ReplayOptions {
            gateway,
            limits,
            purpose: Purpose {
                records: true,
                updates,
                openings: open_events,
                rules: false,
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let replay = py.detach(|| replay::Replay::start(paths, options))?;
        let receiver = Receiver::new(replay.batches().clone(), None);
        Ok(Self { replay, receiver })
    }

    #[pyo3(signature = (max=1000, timeout=1.0))]
    fn recv(&self, py: Python<'_>, max: usize, timeout: f64) -> PyResult<Option<Batch>> {
        self.receiver.recv(py, max, timeout)
    }

    fn progress<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let progress = self.replay.progress();
        let all = PyDict::new(py);
        all.set_item("bytes", progress.bytes)?;
        all.set_item("bytes_total", progress.bytes_total)?;
        all.set_item("packets", progress.packets)?;
        all.set_item("flows", progress.flows)?;
        Ok(all)
    }

    fn ledger<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let result = self.replay.result();
        let result = result.ok_or_else(|| PyRuntimeError::new_err("the books are open until recv has given None"))?;
        ledger(py, &result.ledger)
    }

    #[getter]
    fn error(&self) -> Option<String> {
        self.replay.result().and_then(|result| result.error)
    }

    fn stop(&self) {
        self.replay.stop();
    }
}

/// The reading ends with whoever asked for it.
impl Drop for Replay {
    fn drop(&mut self) {
        self.replay.stop();
    }
}

fn ledger<'py>(py: Python<'py>, ledger: &ReplayLedger) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    let (packets, not_ip) = (PyDict::new(py), PyDict::new(py));
    for (reason, frames) in &ledger.not_ip {
        not_ip.set_item(reason, frames)?;
    }
    packets.set_item("frames", ledger.frames)?;
    packets.set_item("not_ip", not_ip)?;
    packets.update(ledgers::packets(py, &ledger.stats)?.as_mapping())?;
    all.set_item("packets", packets)?;
    all.set_item("bytes", ledgers::bytes(py, &ledger.stats)?)?;
    all.set_item("flows", ledgers::flows(py, &ledger.flows)?)?;
    all.set_item("denied", ledgers::denied(py, &ledger.stats, &ledger.flows)?)?;
    let records = PyDict::new(py);
    records.set_item("made", ledger.made)?;
    all.set_item("records", records)?;
    all.set_item("balanced", ledger.balanced())?;
    Ok(all)
}
