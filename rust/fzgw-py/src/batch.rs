//! A batch of records as a lazy sequence: a record that nobody looks at is never converted.

use std::collections::HashMap;
use std::sync::Arc;

use fzgw_core::flow::record::{self, Directory, FlowRecord, Record};
use fzgw_core::io::handover;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::flow::{Flow, seconds};

/// About the size of a rendered record: the buffer seldom grows.
const LINE_BYTES: usize = 1600;

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

/// Records in order: `Flow`, `Gap` and `Note`.
#[pyclass(frozen, sequence, module = "fzgw._core")]
pub(crate) struct Batch {
    directory: Arc<Directory>,
    records: Vec<Record>,
    openings: Py<Openings>,
}

/// Flows that opened, in order: events for handlers, not records.
#[pyclass(frozen, sequence, module = "fzgw._core")]
pub(crate) struct Openings {
    directory: Arc<Directory>,
    flows: Vec<FlowRecord>,
}

impl Batch {
    pub(crate) fn new(py: Python<'_>, batch: handover::Batch) -> PyResult<Self> {
        let handover::Batch {
            directory,
            records,
            openings,
        } = batch;
        let openings = Py::new(
            py,
            Openings {
                directory: directory.clone(),
                flows: openings,
            },
        )?;
        Ok(Self {
            directory,
            records,
            openings,
        })
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.records.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: isize) -> PyResult<Bound<'py, PyAny>> {
        match at(&self.records, index)? {
            Record::Flow(flow) => Ok(Bound::new(py, Flow::new(flow, &self.directory))?.into_any()),
            Record::Gap(gap) => {
                let record::Gap {
                    records,
                    packets,
                    bytes,
                    from,
                    until,
                } = *gap;
                let gap = Gap {
                    records,
                    packets,
                    bytes,
                    start: seconds(from),
                    end: seconds(until),
                };
                Ok(Bound::new(py, gap)?.into_any())
            }
            Record::Note(record::Note::ClockStep { at, by }) => {
                let note = Note {
                    kind: "clock_step",
                    at: seconds(*at),
                    by: *by as f64 / 1e9,
                };
                Ok(Bound::new(py, note)?.into_any())
            }
        }
    }

    #[getter]
    fn opened<'py>(&self, py: Python<'py>) -> Bound<'py, Openings> {
        self.openings.bind(py).clone()
    }

    #[pyo3(signature = (sequence, handler_errors=None))]
    fn ocsf<'py>(
        &self,
        py: Python<'py>,
        sequence: u64,
        handler_errors: Option<HashMap<usize, String>>,
    ) -> Bound<'py, PyBytes> {
        let lines = py.detach(|| {
            let mut lines = Vec::with_capacity(self.records.len() * LINE_BYTES);
            for (index, (record, sequence)) in self.records.iter().zip(sequence..).enumerate() {
                let error = handler_errors
                    .as_ref()
                    .and_then(|errors| errors.get(&index))
                    .map(String::as_str);
                fzgw_core::render::ocsf::record(&mut lines, record, &self.directory, sequence, None, error);
            }
            lines
        });
        PyBytes::new(py, &lines)
    }

    fn __repr__(&self) -> String {
        format!("<Batch of {} records>", self.records.len())
    }
}

#[pymethods]
impl Openings {
    fn __len__(&self) -> usize {
        self.flows.len()
    }

    fn __getitem__(&self, index: isize) -> PyResult<Flow> {
        at(&self.flows, index).map(|flow| Flow::new(flow, &self.directory))
    }
}

fn at<T>(items: &[T], index: isize) -> PyResult<&T> {
    let place = if index < 0 { index + items.len() as isize } else { index };
    let item = usize::try_from(place).ok().and_then(|place| items.get(place));
    item.ok_or_else(|| PyIndexError::new_err("no record at this index"))
}
