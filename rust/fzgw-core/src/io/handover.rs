//! Records on their way to Python: batches in a bounded queue that the data path never waits for.
//!
//! When the queue is full, flow records are lost: they are counted, and the next batch that fits begins with a gap
//! record that says how many there were and what was in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::flow::record::{Directory, FlowRecord, Gap, Record};
use crate::stats::RecordStats;

/// Records and openings that may wait for Python: about 25 MB.
pub const MAX_QUEUED: usize = 65_536;
/// A batch is handed over at this size, or when its first record has waited for [`LINGER`].
pub(super) const BATCH: usize = 256;
/// The largest batch: where thousands of flows end in one turn, the queue takes what it can of them.
pub(super) const MAX_BATCH: usize = 4096;
/// How long a record waits for others, in nanoseconds.
pub(super) const LINGER: u64 = 100_000_000;

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
        // Bounded by what is in it, not by how it came: a batch has one record at least.
        let (sender, receiver) = unbounded();
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
        if let Err(batch) = self.send(batch) {
            self.lose(&batch, wall);
        }
    }

    /// Hands a batch over at the end, when there is time: gives it back while the queue is full. Where nobody will take
    /// any more, it is lost.
    pub(super) fn try_deliver(&mut self, batch: Batch, wall: u64) -> Result<(), Batch> {
        let batch = self.with_gap(batch);
        if self.queue.abandoned.load(Ordering::Relaxed) {
            self.lose(&batch, wall);
            return Ok(());
        }
        self.send(batch)
    }

    fn send(&mut self, batch: Batch) -> Result<(), Batch> {
        let (len, flows) = (batch.len(), flow_records(&batch));
        let queued = self.queue.queued.load(Ordering::Relaxed);
        if queued > 0 && queued + len > MAX_QUEUED {
            return Err(batch);
        }
        self.queue.queued.fetch_add(len, Ordering::Relaxed);
        match self.sender.send(batch) {
            Ok(()) => {
                self.stats.made += flows;
                self.stats.handed += flows;
                Ok(())
            }
            Err(error) => {
                self.queue.queued.fetch_sub(len, Ordering::Relaxed);
                self.queue.abandon();
                Err(error.into_inner())
            }
        }
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
        // The wall clock may have been stepped back meanwhile.
        gap.until = gap.until.max(wall);
        for record in &batch.records {
            match record {
                Record::Flow(flow) => {
                    gap.records += 1;
                    gap.packets += flow.delta.out.packets + flow.delta.r#in.packets;
                    gap.bytes += flow.delta.out.bytes + flow.delta.r#in.bytes;
                    self.stats.made += 1;
                    self.stats.lost += 1;
                }
                // The gap of before goes on in this one.
                Record::Gap(before) => {
                    gap.records += before.records;
                    gap.packets += before.packets;
                    gap.bytes += before.bytes;
                    gap.from = gap.from.min(before.from);
                    gap.until = gap.until.max(before.until);
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
