//! A running gateway. Every wait of a call releases the interpreter.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use fzgw_core::flow::{Side, Tally, Untracked};
use fzgw_core::io::tun::MemoryTunPeer;
use fzgw_core::io::{Device, Engine, handover};
use fzgw_core::stats::{DatagramDrop, Drop, Originated, Snapshot};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::batch::Batch;
use crate::{convert, error};

/// The engine, running. See the stub file for its documentation.
#[pyclass(frozen, module = "fzgw._core")]
pub(crate) struct Gateway {
    engine: Mutex<Engine>,
    #[pyo3(get)]
    interface: String,
    #[pyo3(get)]
    port: u16,
    #[pyo3(get)]
    boot_id: String,
    batches: crossbeam_channel::Receiver<handover::Batch>,
    queue: Arc<handover::Queue>,
    /// Received but too much for one call: the next one's.
    rest: Mutex<Option<handover::Batch>>,
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
            port: engine.port(),
            boot_id: engine.boot_id().to_owned(),
            batches: engine.batches().clone(),
            queue: engine.queue().clone(),
            memory: engine.memory().cloned(),
            rest: Mutex::new(None),
            engine: Mutex::new(engine),
        })
    }

    #[pyo3(signature = (max=1000, timeout=1.0))]
    fn recv(&self, py: Python<'_>, max: usize, timeout: f64) -> PyResult<Option<Batch>> {
        let timeout = duration(timeout)?;
        let received = py.detach(|| self.receive(max.max(1), timeout));
        received.map(|batch| Batch::new(py, batch)).transpose()
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
        stats(py, &snapshot)
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

    /// Batches joined up to `max` records; an empty one on timeout; `None` at the end.
    fn receive(&self, max: usize, timeout: Duration) -> Option<handover::Batch> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = match rest.take() {
            Some(batch) => batch,
            None => match self.batches.recv_timeout(timeout) {
                Ok(batch) => self.taken(batch),
                Err(RecvTimeoutError::Timeout) => handover::Batch::default(),
                Err(RecvTimeoutError::Disconnected) => return None,
            },
        };
        while batch.records.len() < max && !batch.records.is_empty() {
            let Ok(next) = self.batches.try_recv() else { break };
            let next = self.taken(next);
            if !Arc::ptr_eq(&next.directory, &batch.directory) {
                *rest = Some(next);
                break;
            }
            batch.records.extend(next.records);
            batch.openings.extend(next.openings);
        }
        if batch.records.len() > max {
            let records = batch.records.split_off(max);
            let directory = batch.directory.clone();
            debug_assert!(rest.is_none());
            *rest = Some(handover::Batch {
                directory,
                records,
                openings: Vec::new(),
            });
        }
        Some(batch)
    }

    fn taken(&self, batch: handover::Batch) -> handover::Batch {
        self.queue.taken(&batch);
        batch
    }
}

fn no_memory() -> PyErr {
    PyOSError::new_err("this gateway has a TUN device, not an in-memory one: start it with memory=True")
}

fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| PyValueError::new_err("timeout must be seconds, from 0"))
}

fn stats<'py>(py: Python<'py>, snapshot: &Snapshot) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    let (packets, bytes, flows) = (PyDict::new(py), PyDict::new(py), PyDict::new(py));
    for side in Side::BOTH {
        let counted = &snapshot.stats.sides[side as usize];
        packets.set_item(side.as_str(), side_stats(py, counted, |tally| tally.packets)?)?;
        bytes.set_item(side.as_str(), side_stats(py, counted, |tally| tally.bytes)?)?;
        let ledger = &snapshot.flows.sides[side as usize];
        let of_side = PyDict::new(py);
        let both = |tally: Tally| (tally.packets, tally.bytes);
        of_side.set_item("forwarded", both(ledger.forwarded))?;
        of_side.set_item("ended", both(ledger.ended))?;
        of_side.set_item("live", both(ledger.live))?;
        of_side.set_item("icmp_errors", both(ledger.icmp_errors))?;
        let untracked = PyDict::new(py);
        for reason in Untracked::ALL {
            untracked.set_item(reason.as_str(), both(ledger.untracked[reason as usize]))?;
        }
        of_side.set_item("untracked", untracked)?;
        flows.set_item(side.as_str(), of_side)?;
    }
    flows.set_item("live", snapshot.flows.live_flows)?;
    flows.set_item("opened", snapshot.flows.opened_flows)?;
    all.set_item("packets", packets)?;
    all.set_item("bytes", bytes)?;
    all.set_item("flows", flows)?;
    let denied = PyDict::new(py);
    let dropped = snapshot
        .stats
        .sides
        .iter()
        .map(|side| side.dropped[Drop::Denied as usize].packets);
    denied.set_item("dropped", dropped.sum::<u64>())?;
    denied.set_item("attempts", snapshot.flows.attempts.packets)?;
    denied.set_item("without_flow", snapshot.stats.denied_untracked)?;
    all.set_item("denied", denied)?;
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

fn side_stats<'py>(
    py: Python<'py>,
    side: &fzgw_core::stats::SideStats,
    of: impl Fn(&Tally) -> u64,
) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    all.set_item("received", of(&side.received))?;
    all.set_item("forwarded", of(&side.forwarded))?;
    all.set_item("waiting", of(&side.waiting))?;
    let dropped = PyDict::new(py);
    for reason in Drop::ALL {
        dropped.set_item(reason.as_str(), of(&side.dropped[*reason as usize]))?;
    }
    all.set_item("dropped", dropped)?;
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
