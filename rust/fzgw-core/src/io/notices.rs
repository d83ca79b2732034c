//! What an operator should hear of, in a line each: things that happen once, never one a packet.

use std::sync::{Arc, Mutex, PoisonError};

/// Lines that wait for somebody to ask for them, at most; what comes on top is not kept.
const MAX: usize = 32;

/// Lines from the worker to whoever owns the engine.
#[derive(Debug, Clone, Default)]
pub struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    /// The lines since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < MAX {
            lines.push(line);
        }
    }
}
