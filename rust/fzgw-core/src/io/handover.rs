//! Records on their way to Python: batches in a bounded queue that the data path never waits for.
//!
//! When the queue is full, flow records are lost: they are counted, and the next batch that fits begins with a gap
//! record that says how many there were and what was in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::flow::record::{Directory, FlowRecord, Gap, Record};
use crate::stats::RecordStats;

/// Records and openings that may wait for Python: about 25 MB.
pub const MAX_QUEUED: usize = 65_536;
/// Batches that may wait. With [`BATCH`] records each they hold more than [`MAX_QUEUED`]: that is the bound.
const MAX_BATCHES: usize = 4096;
/// A batch is handed over at this size, or when its first record has waited for [`LINGER`].
pub(super) const BATCH: usize = 256;
/// How long a record waits for others, in nanoseconds.
pub(super) const LINGER: u64 = 20_000_000;

/// Records with the names behind their ids.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The names.
    pub directory: Arc<Directory>,
    /// Records, in order.
    pub records: Vec<Record>,
    /// Flows that opened, in order: events, not records.
    pub openings: Vec<FlowRecord>,
}

impl Batch {
    fn len(&self) -> usize {
        self.records.len() + self.openings.len()
    }
}

/// What both ends know of the queue.
#[derive(Debug, Default)]
pub struct Queue {
    queued: AtomicUsize,
    abandoned: AtomicBool,
}

impl Queue {
    /// A batch was taken.
    pub fn taken(&self, batch: &Batch) {
        self.queued.fetch_sub(batch.len(), Ordering::Relaxed);
    }

    /// Nobody will take any more: the worker does not wait at its end.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// The worker's end.
pub(super) struct Handover {
    sender: Sender<Batch>,
    queue: Arc<Queue>,
    stats: RecordStats,
    gap: Option<Gap>,
}

impl Handover {
    pub(super) fn new() -> (Self, Arc<Queue>, Receiver<Batch>) {
        let (sender, receiver) = bounded(MAX_BATCHES);
        let queue = Arc::new(Queue::default());
        let handover = Self {
            sender,
            queue: queue.clone(),
            stats: RecordStats::default(),
            gap: None,
        };
        (handover, queue, receiver)
    }

    pub(super) fn stats(&self) -> RecordStats {
        self.stats
    }

    /// Whether a gap waits to be told.
    pub(super) fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// Hands a batch over, or counts it as lost. Never waits.
    pub(super) fn offer(&mut self, batch: Batch, wall: u64) {
        let batch = self.with_gap(batch);
        let (flows, openings) = (flow_records(&batch), batch.openings.len() as u64);
        self.stats.made += flows;
        if self.queue.queued.load(Ordering::Relaxed) + batch.len() > MAX_QUEUED {
            return self.lose(&batch, wall);
        }
        self.queue.queued.fetch_add(batch.len(), Ordering::Relaxed);
        match self.sender.try_send(batch) {
            Ok(()) => self.stats.handed += flows,
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                self.queue.taken(&batch);
                debug_assert_eq!(openings, batch.openings.len() as u64);
                self.lose(&batch, wall);
            }
        }
    }

    /// Hands a batch over at the end, when there is time: waits until Python takes one, or nobody will.
    pub(super) fn deliver(&mut self, batch: Batch, wall: u64) {
        let mut batch = self.with_gap(batch);
        let flows = flow_records(&batch);
        self.stats.made += flows;
        let patience = std::time::Duration::from_millis(50);
        while !self.queue.abandoned.load(Ordering::Relaxed) {
            let len = batch.len();
            self.queue.queued.fetch_add(len, Ordering::Relaxed);
            match self.sender.send_timeout(batch, patience) {
                Ok(()) => {
                    self.stats.handed += flows;
                    return;
                }
                Err(error) => {
                    self.queue.queued.fetch_sub(len, Ordering::Relaxed);
                    let disconnected = error.is_disconnected();
                    batch = error.into_inner();
                    if disconnected {
                        break;
                    }
                }
            }
        }
        self.lose(&batch, wall);
    }

    fn with_gap(&mut self, mut batch: Batch) -> Batch {
        if let Some(gap) = self.gap.take() {
            batch.records.insert(0, Record::Gap(gap));
        }
        batch
    }

    fn lose(&mut self, batch: &Batch, wall: u64) {
        let mut gap = self.gap.take().unwrap_or(Gap {
            from: wall,
            ..Gap::default()
        });
        gap.until = wall;
        for record in &batch.records {
            match record {
                Record::Flow(flow) => {
                    gap.records += 1;
                    gap.packets += flow.delta.out.packets + flow.delta.r#in.packets;
                    gap.bytes += flow.delta.out.bytes + flow.delta.r#in.bytes;
                    self.stats.lost += 1;
                }
                // The gap of before goes on in this one.
                Record::Gap(before) => {
                    gap.records += before.records;
                    gap.packets += before.packets;
                    gap.bytes += before.bytes;
                    gap.from = gap.from.min(before.from);
                }
                Record::Note(_) => gap.records += 1,
            }
        }
        self.stats.openings_lost += batch.openings.len() as u64;
        self.gap = (gap.records > 0).then_some(gap);
    }
}

fn flow_records(batch: &Batch) -> u64 {
    batch
        .records
        .iter()
        .filter(|record| matches!(record, Record::Flow(_)))
        .count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::record::Note;

    fn batch(records: usize) -> Batch {
        let note = Record::Note(Note::ClockStep { at: 0, by: 0 });
        Batch {
            directory: Arc::default(),
            records: vec![note; records],
            openings: vec![],
        }
    }

    /// Scenario 37: a full queue loses records, counts them, and says so in the next batch that fits.
    #[test]
    fn scenario_37_a_full_queue_becomes_a_gap_record() {
        let (mut handover, queue, receiver) = Handover::new();
        handover.offer(batch(MAX_QUEUED), 1);
        handover.offer(batch(3), 2);
        handover.offer(batch(4), 3);
        let taken = receiver.try_recv().unwrap();
        queue.taken(&taken);
        assert!(receiver.try_recv().is_err(), "the others are lost");
        handover.offer(batch(1), 4);
        let next = receiver.try_recv().unwrap();
        assert_eq!(next.records.len(), 2);
        assert_eq!(
            next.records[0],
            Record::Gap(Gap {
                records: 7,
                packets: 0,
                bytes: 0,
                from: 2,
                until: 3
            })
        );
    }
}
