//! Views of one flow record.

use std::sync::Arc;

use fzgw_core::flow::record::{Counts, Directory, FlowRecord, PeerInfo};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The peer of a flow: who.
#[pyclass(frozen, eq, hash, module = "fzgw._core")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    user: Option<String>,
    groups: Vec<String>,
    #[pyo3(get)]
    public_key: String,
}

#[pymethods]
impl Peer {
    #[getter]
    fn groups<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.groups)
    }

    fn __repr__(&self) -> String {
        format!(
            "Peer(name={:?}, user={:?}, public_key={:?})",
            self.name, self.user, self.public_key
        )
    }
}

impl Peer {
    fn of(info: Option<&PeerInfo>) -> Self {
        let PeerInfo {
            name,
            user,
            groups,
            public_key,
        } = info.cloned().unwrap_or_default();
        Self {
            name,
            user,
            groups,
            public_key,
        }
    }
}

/// Counts since the flow's record before.
#[pyclass(frozen, eq, module = "fzgw._core")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delta {
    #[pyo3(get)]
    bytes_out: u64,
    #[pyo3(get)]
    bytes_in: u64,
    #[pyo3(get)]
    packets_out: u64,
    #[pyo3(get)]
    packets_in: u64,
}

/// One outer path of the tunnel.
#[pyclass(frozen, eq, module = "fzgw._core")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path {
    #[pyo3(get)]
    remote: String,
    #[pyo3(get)]
    local: String,
    #[pyo3(get)]
    since: f64,
}

/// A frozen view of one flow record. Nothing is converted before it is asked for.
#[pyclass(frozen, module = "fzgw._core")]
pub(crate) struct Flow {
    record: FlowRecord,
    directory: Arc<Directory>,
}

impl Flow {
    pub(crate) fn new(record: &FlowRecord, directory: &Arc<Directory>) -> Self {
        Self {
            record: record.clone(),
            directory: directory.clone(),
        }
    }
}

/// Getters that only read a field of the record.
#[pymethods]
impl Flow {
    #[getter]
    fn uid(&self) -> String {
        self.directory.flow_uid(self.record.serial)
    }

    #[getter]
    fn activity(&self) -> &'static str {
        self.record.activity.as_str()
    }

    #[getter]
    fn number(&self) -> u32 {
        self.record.number
    }

    #[getter]
    fn peer(&self) -> Peer {
        Peer::of(self.directory.peer(self.record.peer))
    }

    #[getter]
    fn protocol(&self) -> u8 {
        self.record.protocol
    }

    #[getter]
    fn src_ip(&self) -> String {
        self.record.src_ip.to_string()
    }

    #[getter]
    fn src_port(&self) -> u16 {
        self.record.src_port
    }

    #[getter]
    fn dst_ip(&self) -> String {
        self.record.dst_ip.to_string()
    }

    #[getter]
    fn dst_port(&self) -> u16 {
        self.record.dst_port
    }

    #[getter]
    fn icmp(&self) -> Option<(u8, u8)> {
        self.record.icmp
    }

    #[getter]
    fn community_id(&self) -> Option<String> {
        self.record.community_id()
    }

    #[getter]
    fn initiator_known(&self) -> bool {
        self.record.initiator_known
    }

    #[getter]
    fn direction(&self) -> &'static str {
        self.record.direction.as_str()
    }

    #[getter]
    fn domain(&self) -> Option<&str> {
        self.record.domain.map(|name| self.directory.name(name))
    }

    #[getter]
    fn domain_source(&self) -> Option<&'static str> {
        self.record.domain.map(|_| "config")
    }

    #[getter]
    fn resource(&self) -> Option<&str> {
        self.record.resource.map(|name| self.directory.name(name))
    }

    #[getter]
    fn rule(&self) -> Option<&str> {
        self.record.rule.map(|name| self.directory.name(name))
    }

    #[getter]
    fn verdict(&self) -> &'static str {
        self.record.verdict.as_str()
    }

    #[getter]
    fn start(&self) -> f64 {
        seconds(self.record.start)
    }

    #[getter]
    fn end(&self) -> f64 {
        seconds(self.record.end)
    }

    #[getter]
    fn start_ns(&self) -> u64 {
        self.record.start
    }

    #[getter]
    fn end_ns(&self) -> u64 {
        self.record.end
    }

    #[getter]
    fn duration(&self) -> f64 {
        seconds(self.record.duration())
    }

    #[getter]
    fn bytes_out(&self) -> u64 {
        self.record.total.out.bytes
    }

    #[getter]
    fn bytes_in(&self) -> u64 {
        self.record.total.r#in.bytes
    }

    #[getter]
    fn packets_out(&self) -> u64 {
        self.record.total.out.packets
    }

    #[getter]
    fn packets_in(&self) -> u64 {
        self.record.total.r#in.packets
    }

    #[getter]
    fn payload_out(&self) -> u64 {
        self.record.total.out.payload
    }

    #[getter]
    fn payload_in(&self) -> u64 {
        self.record.total.r#in.payload
    }

    #[getter]
    fn delta(&self) -> Delta {
        let Counts {
            packets: packets_out,
            bytes: bytes_out,
            ..
        } = self.record.delta.out;
        let Counts {
            packets: packets_in,
            bytes: bytes_in,
            ..
        } = self.record.delta.r#in;
        Delta {
            bytes_out,
            bytes_in,
            packets_out,
            packets_in,
        }
    }

    #[getter]
    fn attempts(&self) -> u64 {
        self.record.attempts
    }

    #[getter]
    fn attempted_bytes(&self) -> u64 {
        self.record.attempted_bytes
    }

    #[getter]
    fn tcp_flags(&self) -> Option<(u8, u8)> {
        self.record.tcp_flags
    }

    #[getter]
    fn paths<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let paths = self.record.paths.iter().map(|seen| Path {
            remote: seen.path.remote.to_string(),
            local: seen.path.local.to_string(),
            since: seconds(seen.since),
        });
        PyTuple::new(py, paths.collect::<Vec<_>>())
    }

    #[getter]
    fn paths_total(&self) -> u32 {
        self.record.paths_total
    }

    #[getter]
    fn end_reason(&self) -> Option<&'static str> {
        self.record.end_reason.map(|reason| reason.as_str())
    }

    fn __repr__(&self) -> String {
        let FlowRecord {
            src_ip,
            src_port,
            dst_ip,
            dst_port,
            protocol,
            ..
        } = self.record;
        format!(
            "Flow(uid={:?}, activity={:?}, peer={:?}, protocol={protocol}, {src_ip}:{src_port} -> {dst_ip}:{dst_port})",
            self.uid(),
            self.activity(),
            self.peer().name,
        )
    }
}

pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
