//! The Python end of a queue of batches: one call takes as many as it asks for. Its wait releases the interpreter.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use fzgw_core::io::handover;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::batch::Batch;

/// A batch of so many records is worth a call: no other is joined to it.
const ENOUGH: usize = 256;

/// Takes batches out of a channel.
pub(crate) struct Receiver {
    batches: crossbeam_channel::Receiver<handover::Batch>,
    /// The gateway's queue wants to know what was taken of it.
    queue: Option<Arc<handover::Queue>>,
    /// Taken but too much for one call: the next one's.
    rest: Mutex<Option<handover::Batch>>,
}

impl Receiver {
    pub(crate) fn new(
        batches: crossbeam_channel::Receiver<handover::Batch>,
        queue: Option<Arc<handover::Queue>>,
    ) -> Self {
        Self {
            batches,
            queue,
            rest: Mutex::new(None),
        }
    }

    /// What `recv` of `Gateway` and `Replay` does: the next records, at most `max`; an empty batch after `timeout`
    /// seconds; none at the end.
    pub(crate) fn recv(&self, py: Python<'_>, max: usize, timeout: f64) -> PyResult<Option<Batch>> {
        let timeout = duration(timeout)?;
        let received = py.detach(|| self.receive(max.max(1), timeout));
        received.map(|batch| Batch::new(py, batch)).transpose()
    }

    /// Small batches are joined, and one that is too large is cut. Records are large and each move of one is a copy, so
    /// a batch that would have to be cut to fill up the one before it is left for the next call.
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
        while batch.records.len() < max.min(ENOUGH) && !batch.records.is_empty() {
            let Ok(next) = self.batches.try_recv() else { break };
            let next = self.taken(next);
            if !Arc::ptr_eq(&next.directory, &batch.directory) || batch.records.len() + next.records.len() > max {
                *rest = Some(next);
                return Some(batch);
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
        if let Some(queue) = &self.queue {
            queue.taken(&batch);
        }
        batch
    }
}

/// Seconds from Python.
pub(crate) fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| PyValueError::new_err("timeout must be seconds, from 0"))
}
