//! Views of one flow record.

use std::net::IpAddr;
use std::sync::Arc;

use fzgw_core::flow::Tally;
use fzgw_core::flow::record::{self, Activity, ConnState, Counts, FlowRecord, PeerInfo, Record, TcpRecord};
use fzgw_core::io::handover;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

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
    #[pyo3(get)]
    attempts: u64,
    #[pyo3(get)]
    attempted_bytes: u64,
}

/// What is told of a TCP flow alone.
#[pyclass(frozen, eq, module = "fzgw._core")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tcp {
    record: TcpRecord,
    state: ConnState,
}

#[pymethods]
impl Tcp {
    #[getter]
    fn history(&self) -> &str {
        self.record.history.as_str()
    }

    #[getter]
    fn conn_state(&self) -> &'static str {
        self.state.as_str()
    }

    #[getter]
    fn flags_out(&self) -> u8 {
        self.record.flags_out
    }

    #[getter]
    fn flags_in(&self) -> u8 {
        self.record.flags_in
    }

    #[getter]
    fn syn_to_syn_ack(&self) -> Option<f64> {
        self.record.syn_to_syn_ack.map(seconds)
    }

    #[getter]
    fn syn_ack_to_ack(&self) -> Option<f64> {
        self.record.syn_ack_to_ack.map(seconds)
    }

    #[getter]
    fn retransmits_out(&self) -> u32 {
        self.record.retransmits_out
    }

    #[getter]
    fn retransmits_in(&self) -> u32 {
        self.record.retransmits_in
    }

    fn __repr__(&self) -> String {
        format!("Tcp(history={:?}, conn_state={:?})", self.history(), self.conn_state())
    }
}

/// ICMP errors of one type and code about a flow.
#[pyclass(frozen, eq, module = "fzgw._core")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IcmpErrors {
    #[pyo3(get, name = "type")]
    kind: u8,
    #[pyo3(get)]
    code: u8,
    #[pyo3(get)]
    packets: u64,
    #[pyo3(get)]
    bytes: u64,
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

/// Where a flow's record stands in its batch.
#[derive(Debug, Clone, Copy)]
enum Place {
    Record(u32),
    Opening(u32),
}

/// A frozen view of one flow record. Nothing is converted before it is asked for, and nothing is copied: the record
/// stays in its batch, which lives as long as any of its flows.
#[pyclass(frozen, module = "fzgw._core")]
pub(crate) struct Flow {
    batch: Arc<handover::Batch>,
    place: Place,
}

impl Flow {
    /// The flow record that stands at `index` of the batch's records; none where that is a gap or a note.
    pub(crate) fn of_record(batch: &Arc<handover::Batch>, index: usize) -> Option<Self> {
        let Record::Flow(_) = batch.records.get(index)? else {
            return None;
        };
        let place = Place::Record(u32::try_from(index).ok()?);
        Some(Self {
            batch: batch.clone(),
            place,
        })
    }

    /// The flow that stands at `index` of the batch's openings.
    pub(crate) fn of_opening(batch: &Arc<handover::Batch>, index: usize) -> Option<Self> {
        batch.openings.get(index)?;
        let place = Place::Opening(u32::try_from(index).ok()?);
        Some(Self {
            batch: batch.clone(),
            place,
        })
    }

    #[inline]
    fn record(&self) -> &FlowRecord {
        match self.place {
            Place::Opening(index) => &self.batch.openings[index as usize],
            Place::Record(index) => match &self.batch.records[index as usize] {
                Record::Flow(flow) => flow,
                Record::Gap(_) | Record::Note(_) => unreachable!("a Flow is made of a flow record"),
            },
        }
    }
}

/// Getters that only read a field of the record.
#[pymethods]
impl Flow {
    #[getter]
    fn uid(&self) -> String {
        self.batch.directory.flow_uid(self.record().serial)
    }

    #[getter]
    fn activity<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        // Interned: whoever runs handlers asks every record.
        match self.record().activity {
            Activity::Open => intern!(py, "open"),
            Activity::Update => intern!(py, "update"),
            Activity::Close => intern!(py, "close"),
        }
    }

    #[getter]
    fn number(&self) -> u32 {
        self.record().number
    }

    #[getter]
    fn peer(&self) -> Peer {
        Peer::of(self.batch.directory.peer(self.record().peer))
    }

    #[getter]
    fn protocol(&self) -> u8 {
        self.record().protocol
    }

    #[getter]
    fn src_ip<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        address(py, self.record().src_ip)
    }

    #[getter]
    fn src_port(&self) -> u16 {
        self.record().src_port
    }

    #[getter]
    fn dst_ip<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        address(py, self.record().dst_ip)
    }

    #[getter]
    fn dst_port(&self) -> u16 {
        self.record().dst_port
    }

    #[getter]
    fn icmp(&self) -> Option<(u8, u8)> {
        self.record().icmp
    }

    #[getter]
    fn community_id(&self) -> Option<String> {
        self.record().community_id()
    }

    #[getter]
    fn initiator_known(&self) -> bool {
        self.record().initiator_known
    }

    #[getter]
    fn direction(&self) -> &'static str {
        self.record().direction.as_str()
    }

    #[getter]
    fn domain(&self) -> Option<&str> {
        self.record().domain.map(|name| self.batch.directory.name(name))
    }

    #[getter]
    fn domain_source(&self) -> Option<&'static str> {
        self.record().domain.map(|_| "config")
    }

    #[getter]
    fn resource(&self) -> Option<&str> {
        self.record().resource.map(|name| self.batch.directory.name(name))
    }

    #[getter]
    fn rule(&self) -> Option<&str> {
        self.record().rule.map(|name| self.batch.directory.name(name))
    }

    #[getter]
    fn verdict(&self) -> &'static str {
        self.record().verdict.as_str()
    }

    #[getter]
    fn start(&self) -> f64 {
        seconds(self.record().start)
    }

    #[getter]
    fn end(&self) -> f64 {
        seconds(self.record().end)
    }

    #[getter]
    fn start_ns(&self) -> u64 {
        self.record().start
    }

    #[getter]
    fn end_ns(&self) -> u64 {
        self.record().end
    }

    #[getter]
    fn duration(&self) -> f64 {
        seconds(self.record().duration())
    }

    #[getter]
    fn bytes_out(&self) -> u64 {
        self.record().total.out.bytes
    }

    #[getter]
    fn bytes_in(&self) -> u64 {
        self.record().total.r#in.bytes
    }

    #[getter]
    fn packets_out(&self) -> u64 {
        self.record().total.out.packets
    }

    #[getter]
    fn packets_in(&self) -> u64 {
        self.record().total.r#in.packets
    }

    #[getter]
    fn payload_out(&self) -> u64 {
        self.record().total.out.payload
    }

    #[getter]
    fn payload_in(&self) -> u64 {
        self.record().total.r#in.payload
    }

    #[getter]
    fn delta(&self) -> Delta {
        let Counts {
            packets: packets_out,
            bytes: bytes_out,
            ..
        } = self.record().delta.out;
        let Counts {
            packets: packets_in,
            bytes: bytes_in,
            ..
        } = self.record().delta.r#in;
        let Tally { packets, bytes } = self.record().attempts_delta;
        Delta {
            bytes_out,
            bytes_in,
            packets_out,
            packets_in,
            attempts: packets,
            attempted_bytes: bytes,
        }
    }

    #[getter]
    fn attempts(&self) -> u64 {
        self.record().attempts.packets
    }

    #[getter]
    fn attempted_bytes(&self) -> u64 {
        self.record().attempts.bytes
    }

    #[getter]
    fn conn_state(&self) -> &'static str {
        self.record().conn_state.as_str()
    }

    #[getter]
    fn tcp(&self) -> Option<Tcp> {
        let FlowRecord { tcp, conn_state, .. } = self.record();
        tcp.map(|record| Tcp {
            record,
            state: *conn_state,
        })
    }

    #[getter]
    fn icmp_errors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let errors = self.record().icmp_errors.iter().map(|errors| {
            let record::IcmpErrors {
                kind,
                code,
                packets,
                bytes,
            } = *errors;
            IcmpErrors {
                kind,
                code,
                packets,
                bytes,
            }
        });
        PyTuple::new(py, errors.collect::<Vec<_>>())
    }

    #[getter]
    fn paths<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let paths = self.record().paths.iter().map(|seen| Path {
            remote: seen.path.remote.to_string(),
            local: seen.path.local.to_string(),
            since: seconds(seen.since),
        });
        PyTuple::new(py, paths.collect::<Vec<_>>())
    }

    #[getter]
    fn paths_total(&self) -> u32 {
        self.record().paths_total
    }

    #[getter]
    fn end_reason(&self) -> Option<&'static str> {
        self.record().end_reason.map(|reason| reason.as_str())
    }

    fn __repr__(&self) -> String {
        let FlowRecord {
            src_ip,
            src_port,
            dst_ip,
            dst_port,
            protocol,
            ..
        } = self.record();
        format!(
            "Flow(uid={:?}, activity={:?}, peer={:?}, protocol={protocol}, {src_ip}:{src_port} -> {dst_ip}:{dst_port})",
            self.uid(),
            self.record().activity.as_str(),
            self.peer().name,
        )
    }
}

/// An address as text. Handlers read two of them a flow: IPv4 goes without the formatting machinery.
fn address(py: Python<'_>, ip: IpAddr) -> Bound<'_, PyString> {
    let IpAddr::V4(ip) = ip else {
        return PyString::new(py, &ip.to_string());
    };
    let (mut text, mut end) = ([b'.'; "255.255.255.255".len()], 0);
    for octet in ip.octets() {
        // The dot between two octets is there already.
        end += usize::from(end > 0);
        for (unit, shown) in [(100, octet > 99), (10, octet > 9), (1, true)] {
            if shown {
                text[end] = b'0' + octet / unit % 10;
                end += 1;
            }
        }
    }
    // Digits and dots are UTF-8.
    PyString::new(py, std::str::from_utf8(&text[..end]).unwrap_or_default())
}

pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
