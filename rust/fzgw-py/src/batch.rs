//! A batch of records as a lazy sequence: a record that nobody looks at is never converted.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use fzgw_core::flow::record::{self, Record};
use fzgw_core::io::handover;
use fzgw_core::render::{self, Annotation, Format};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::flow::{Flow, seconds};

/// A buffer that grew beyond this is not kept.
const KEPT_BYTES: usize = 4 << 20;

thread_local! {
    /// Where lines are rendered, kept from batch to batch: a new one of this size would be given back to the system and
    /// faulted in again page by page each time.
    static LINES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Records that are missing, and what was in them.
#[pyclass(frozen, eq, module = "fzgw._core")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gap {
    #[pyo3(get)]
    records: u64,
    #[pyo3(get)]
    packets: u64,
    #[pyo3(get)]
    bytes: u64,
    #[pyo3(get)]
    start: f64,
    #[pyo3(get)]
    end: f64,
}

/// Something that a reader of the records must know.
#[pyclass(frozen, eq, module = "fzgw._core")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Note {
    #[pyo3(get)]
    kind: &'static str,
    #[pyo3(get)]
    at: f64,
    #[pyo3(get)]
    by: f64,
}

impl From<&record::Gap> for Gap {
    fn from(gap: &record::Gap) -> Self {
        let record::Gap {
            records,
            packets,
            bytes,
            from,
            until,
        } = *gap;
        Self {
            records,
            packets,
            bytes,
            start: seconds(from),
            end: seconds(until),
        }
    }
}

impl From<&record::Note> for Note {
    fn from(note: &record::Note) -> Self {
        match note {
            record::Note::ClockStep { at, by } => Self {
                kind: "clock_step",
                at: seconds(*at),
                by: *by as f64 / 1e9,
            },
        }
    }
}

/// What handlers said of a record: attributes of whatever object says it.
#[derive(FromPyObject)]
struct Remarks {
    handler_error: Option<String>,
    #[pyo3(from_py_with = annotations)]
    annotations: Vec<(String, Annotation)>,
    omit: bool,
}

impl Remarks {
    fn as_core(&self) -> render::Remarks<'_> {
        render::Remarks {
            handler_error: self.handler_error.as_deref(),
            annotations: &self.annotations,
        }
    }
}

/// Pairs of name and value, in their order.
fn annotations(given: &Bound<'_, PyAny>) -> PyResult<Vec<(String, Annotation)>> {
    let pairs: Vec<(String, Value)> = given.extract()?;
    Ok(pairs.into_iter().map(|(name, value)| (name, value.into())).collect())
}

/// In the order in which Python tells the kinds apart: a bool is an int there.
#[derive(FromPyObject)]
enum Value {
    Flag(bool),
    Integer(i64),
    Real(f64),
    Text(String),
}

impl From<Value> for Annotation {
    fn from(value: Value) -> Self {
        match value {
            Value::Flag(flag) => Annotation::Flag(flag),
            Value::Integer(integer) => Annotation::Integer(integer),
            Value::Real(real) => Annotation::Real(real),
            Value::Text(text) => Annotation::Text(text),
        }
    }
}

/// Records in order: `Flow`, `Gap` and `Note`.
#[pyclass(frozen, sequence, module = "fzgw._core")]
pub(crate) struct Batch {
    batch: Arc<handover::Batch>,
    openings: Py<Openings>,
}

/// Flows that opened, in order: events for handlers, not records.
#[pyclass(frozen, sequence, module = "fzgw._core")]
pub(crate) struct Openings {
    batch: Arc<handover::Batch>,
}

/// Goes through the records of a batch once.
#[pyclass(module = "fzgw._core")]
struct BatchIterator {
    batch: Arc<handover::Batch>,
    next: usize,
}

impl Batch {
    pub(crate) fn new(py: Python<'_>, batch: handover::Batch) -> PyResult<Self> {
        let batch = Arc::new(batch);
        let openings = Py::new(py, Openings { batch: batch.clone() })?;
        Ok(Self { batch, openings })
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.batch.records.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: isize) -> PyResult<Bound<'py, PyAny>> {
        let index = place(index, self.batch.records.len())?;
        record_at(py, &self.batch, index)?.ok_or_else(no_record)
    }

    fn __iter__(&self) -> BatchIterator {
        BatchIterator {
            batch: self.batch.clone(),
            next: 0,
        }
    }

    #[getter]
    fn opened<'py>(&self, py: Python<'py>) -> Bound<'py, Openings> {
        self.openings.bind(py).clone()
    }

    #[getter]
    fn flow_records(&self) -> usize {
        let flows = self.batch.records.iter();
        flows.filter(|record| matches!(record, Record::Flow(_))).count()
    }

    #[pyo3(signature = (format, sequence, remarks=None))]
    fn render<'py>(
        &self,
        py: Python<'py>,
        format: &str,
        sequence: u64,
        remarks: Option<HashMap<usize, Remarks>>,
    ) -> PyResult<(Bound<'py, PyBytes>, u64)> {
        let format = Format::parse(format)
            .ok_or_else(|| PyValueError::new_err(format!("{format:?} is no format of records")))?;
        let mut lines = LINES.take();
        lines.clear();
        let count = py.detach(|| self.lines(&mut lines, format, sequence, remarks.as_ref()));
        let bytes = PyBytes::new(py, &lines);
        if lines.capacity() <= KEPT_BYTES {
            LINES.set(lines);
        }
        Ok((bytes, count))
    }

    fn __repr__(&self) -> String {
        format!("<Batch of {} records>", self.batch.records.len())
    }
}

impl Batch {
    /// Appends the lines and says how many they are. Only these take a number (L4).
    fn lines(
        &self,
        lines: &mut Vec<u8>,
        format: Format,
        sequence: u64,
        remarks: Option<&HashMap<usize, Remarks>>,
    ) -> u64 {
        let handover::Batch { directory, records, .. } = &*self.batch;
        let mut count = 0;
        for (index, record) in records.iter().enumerate() {
            let remarks = match remarks.and_then(|remarks| remarks.get(&index)) {
                Some(remarks) if remarks.omit => continue,
                Some(remarks) => remarks.as_core(),
                None => render::Remarks::default(),
            };
            let written = format.record(lines, record, directory, sequence + count, None, remarks);
            count += u64::from(written);
        }
        count
    }
}

#[pymethods]
impl BatchIterator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let record = record_at(py, &self.batch, self.next)?;
        self.next += 1;
        Ok(record)
    }
}

#[pymethods]
impl Openings {
    fn __len__(&self) -> usize {
        self.batch.openings.len()
    }

    fn __getitem__(&self, index: isize) -> PyResult<Flow> {
        let index = place(index, self.batch.openings.len())?;
        Flow::of_opening(&self.batch, index).ok_or_else(no_record)
    }
}

/// The record at `index` as Python's; none behind the last.
#[inline]
fn record_at<'py>(py: Python<'py>, batch: &Arc<handover::Batch>, index: usize) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(record) = batch.records.get(index) else {
        return Ok(None);
    };
    Ok(match record {
        Record::Flow(_) => match Flow::of_record(batch, index) {
            Some(flow) => Some(Bound::new(py, flow)?.into_any()),
            None => None,
        },
        Record::Gap(gap) => Some(Bound::new(py, Gap::from(gap))?.into_any()),
        Record::Note(note) => Some(Bound::new(py, Note::from(note))?.into_any()),
    })
}

/// An index as Python counts, from either end.
fn place(index: isize, len: usize) -> PyResult<usize> {
    let place = if index < 0 { index + len as isize } else { index };
    usize::try_from(place)
        .ok()
        .filter(|place| *place < len)
        .ok_or_else(no_record)
}

fn no_record() -> PyErr {
    PyIndexError::new_err("no record at this index")
}
