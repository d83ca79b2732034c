//! A running gateway. Every wait of a call releases the interpreter.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fzgw_core::io::notices::Notices;
use fzgw_core::io::tun::MemoryTunPeer;
use fzgw_core::io::{Device, Engine};
use fzgw_core::stats::{DatagramDrop, Originated, Snapshot};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::batch::Batch;
use crate::receiver::{Receiver, duration};
use crate::{convert, error, ledgers};

/// The engine, running. See the stub file for its documentation.
#[pyclass(frozen, module = "fzgw._core")]
pub(crate) struct Gateway {
    engine: Mutex<Engine>,
    #[pyo3(get)]
    interface: String,
    #[pyo3(get)]
    tun_offload: &'static str,
    #[pyo3(get)]
    port: u16,
    #[pyo3(get)]
    boot_id: String,
    receiver: Receiver,
    notices: Notices,
    memory: Option<Arc<MemoryTunPeer>>,
}

#[pymethods]
impl Gateway {
    #[staticmethod]
    #[pyo3(signature = (config, *, flow_logs, open_events=false, memory=false))]
    fn start(
        py: Python<'_>,
        config: &Bound<'_, PyAny>,
        flow_logs: bool,
        open_events: bool,
        memory: bool,
    ) -> PyResult<Self> {
        let config = convert::config(config, flow_logs, open_events)?;
        let device = if memory { Device::Memory } else { Device::Tun };
        let engine = Engine::start(&config, device).map_err(|error| error::start_error(py, &error))?;
        Ok(Self {
            interface: engine.interface().to_owned(),
            tun_offload: engine.offload().as_str(),
            port: engine.port(),
            boot_id: engine.boot_id().to_owned(),
            receiver: Receiver::new(engine.batches().clone(), Some(engine.queue().clone())),
            notices: engine.notices().clone(),
            memory: engine.memory().cloned(),
            engine: Mutex::new(engine),
        })
    }

    #[pyo3(signature = (max=1000, timeout=1.0))]
    fn recv(&self, py: Python<'_>, max: usize, timeout: f64) -> PyResult<Option<Batch>> {
        self.receiver.recv(py, max, timeout)
    }

    #[pyo3(signature = (config, *, flow_logs, open_events=false))]
    fn reload(&self, py: Python<'_>, config: &Bound<'_, PyAny>, flow_logs: bool, open_events: bool) -> PyResult<()> {
        let config = convert::config(config, flow_logs, open_events)?;
        py.detach(|| self.engine().reconfigure(config));
        Ok(())
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let snapshot = py.detach(|| self.engine().snapshot());
        let snapshot = snapshot.ok_or_else(|| PyRuntimeError::new_err("the gateway's worker has died"))?;
        let all = stats(py, &snapshot)?;
        all.set_item("tun_offload", self.tun_offload)?;
        Ok(all)
    }

    /// Lines for the operator since the last call.
    fn notices(&self) -> Vec<String> {
        self.notices.take()
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.engine().stop());
    }

    fn memory_send(&self, py: Python<'_>, packet: &[u8]) -> PyResult<()> {
        let memory = self.memory.as_ref().ok_or_else(no_memory)?;
        Ok(py.detach(|| memory.send(packet))?)
    }

    #[pyo3(signature = (timeout=1.0))]
    fn memory_recv<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let timeout = duration(timeout)?;
        let memory = self.memory.as_ref().ok_or_else(no_memory)?;
        let packet = py.detach(|| memory.receive(timeout))?;
        Ok(packet.map(|packet| PyBytes::new(py, &packet)))
    }
}

impl Gateway {
    fn engine(&self) -> MutexGuard<'_, Engine> {
        // A panic elsewhere leaves the engine whole: it is only a handle.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_memory() -> PyErr {
    PyOSError::new_err("this gateway has a TUN device, not an in-memory one: start it with memory=True")
}

fn stats<'py>(py: Python<'py>, snapshot: &Snapshot) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    all.set_item("packets", ledgers::packets(py, &snapshot.stats)?)?;
    all.set_item("bytes", ledgers::bytes(py, &snapshot.stats)?)?;
    all.set_item("flows", ledgers::flows(py, &snapshot.flows)?)?;
    all.set_item("denied", ledgers::denied(py, &snapshot.stats, &snapshot.flows)?)?;
    let originated = PyDict::new(py);
    for kind in Originated::ALL {
        originated.set_item(kind.as_str(), snapshot.stats.originated[*kind as usize])?;
    }
    all.set_item("originated", originated)?;
    all.set_item("datagrams", datagrams(py, snapshot)?)?;
    let records = PyDict::new(py);
    records.set_item("made", snapshot.records.made)?;
    records.set_item("handed", snapshot.records.handed)?;
    records.set_item("lost", snapshot.records.lost)?;
    records.set_item("handler_missed", snapshot.records.openings_lost)?;
    all.set_item("records", records)?;
    all.set_item("balanced", snapshot.balanced())?;
    let mut peers = Vec::new();
    for peer in &snapshot.peers {
        let of_peer = PyDict::new(py);
        of_peer.set_item("name", &peer.name)?;
        of_peer.set_item("public_key", &peer.public_key)?;
        of_peer.set_item("endpoint", peer.endpoint.map(|endpoint| endpoint.to_string()))?;
        of_peer.set_item("last_handshake_s", peer.last_handshake_age.map(crate::flow::seconds))?;
        of_peer.set_item("rx_bytes", peer.rx_bytes)?;
        of_peer.set_item("tx_bytes", peer.tx_bytes)?;
        peers.push(of_peer);
    }
    all.set_item("peers", peers)?;
    if let Some(failure) = &snapshot.failure {
        all.set_item("error", failure)?;
    }
    Ok(all)
}

fn datagrams<'py>(py: Python<'py>, snapshot: &Snapshot) -> PyResult<Bound<'py, PyDict>> {
    let datagrams = &snapshot.stats.datagrams;
    let all = PyDict::new(py);
    all.set_item("received", datagrams.received)?;
    all.set_item("sent", datagrams.sent)?;
    let dropped = PyDict::new(py);
    for reason in DatagramDrop::ALL {
        dropped.set_item(reason.as_str(), datagrams.dropped[*reason as usize])?;
    }
    all.set_item("dropped", dropped)?;
    Ok(all)
}
