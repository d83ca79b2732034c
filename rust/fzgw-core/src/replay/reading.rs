//! Files read and parsed on one thread, counted on another, and their records put in a bounded queue.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::legs::Mark;
use super::{Parsed, ReplayLedger, ReplayOptions, ReplayState};
use crate::capture::{CaptureReader, Frame};
use crate::flow::{LOOKAHEAD, Record};
use crate::io::handover::Batch;

/// A batch is handed over at this many records.
const BATCH: usize = 256;
/// How long records wait for others, in nanoseconds of the packets' clock.
const LINGER: u64 = 1_000_000_000;
/// Batches that may wait, about 6 MB: the reader waits for the next place.
const QUEUED: usize = 8;
/// Frames go from one thread to the other by so many: what they take stays in a core's own cache.
const CHUNK: usize = 512;
/// Chunks on their way.
const CHUNKS: usize = 8;
/// Flows that the end of the capture ends at once.
const CLOSE_STEP: usize = BATCH;

/// How far a replay has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read from the files as they are, compressed or not.
    pub bytes: u64,
    /// Bytes of the files in all; 0 where that is not known.
    pub bytes_total: u64,
    /// Frames.
    pub packets: u64,
    /// Live flows.
    pub flows: u64,
}

/// What a replay came to.
#[derive(Debug, Clone)]
pub struct ReplayResult {
    /// Its books.
    pub ledger: ReplayLedger,
    /// Why reading stopped early: names the file and, within it, the offset.
    pub error: Option<String>,
}

/// A replay that runs. It ends when its files do, when it is stopped, or when nobody takes its batches any more.
pub struct Replay {
    batches: Receiver<Batch>,
    shared: Arc<Shared>,
    /// Set until the thread has been waited for.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    bytes: AtomicU64,
    bytes_total: u64,
    packets: AtomicU64,
    flows: AtomicU64,
    stopped: AtomicBool,
    result: Mutex<Option<ReplayResult>>,
}

impl Replay {
    /// Begins to read these files in order; `-` is standard input. What is wrong with a file is told by the result.
    ///
    /// Errors: there is no randomness or no thread to be had.
    pub fn start(paths: Vec<PathBuf>, options: ReplayOptions) -> io::Result<Self> {
        let state = ReplayState::new(&options)?;
        let shared = Arc::new(Shared {
            bytes_total: total_size(&paths).unwrap_or(0),
            ..Shared::default()
        });
        let (sender, batches) = bounded(QUEUED);
        let (chunk_sender, chunks) = bounded(CHUNKS);
        let (spent_sender, spent) = bounded(CHUNKS + 2);
        let reader = Reader {
            shared: shared.clone(),
            chunks: chunk_sender,
            spent,
            chunk: Frames::default(),
            wants_marks: state.wants_marks(),
        };
        let counter = Counter {
            state,
            shared: shared.clone(),
            sender,
            chunks,
            spent: spent_sender,
            handed_over: 0,
        };
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        // It ends with its files, or when the other one has gone; a source that says nothing may hold it for ever.
        named("fzgw-replay-in").spawn(move || reader.run(&paths))?;
        let thread = named("fzgw-replay").spawn(move || counter.run())?;
        Ok(Self {
            batches,
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Where the batches come out; it is disconnected at the end.
    pub fn batches(&self) -> &Receiver<Batch> {
        &self.batches
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            bytes_total: self.shared.bytes_total,
            packets: self.shared.packets.load(Ordering::Relaxed),
            flows: self.shared.flows.load(Ordering::Relaxed),
        }
    }

    /// Ends the reading early. Batches that were made already can still be taken.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }

    /// What it came to, once its batches are disconnected.
    pub fn result(&self) -> Option<ReplayResult> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            if !thread.is_finished() && !self.ended() {
                *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
                return None;
            }
            // A thread that panicked has left no result, which says it.
            let _ = thread.join();
        }
        self.shared
            .result
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the thread has put its result down.
    fn ended(&self) -> bool {
        self.shared
            .result
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }
}

/// The size of all files together; `None` where one is a pipe or cannot be looked at.
fn total_size(paths: &[PathBuf]) -> Option<u64> {
    let sizes = paths.iter().map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        (metadata.is_file() && !is_stdin(path)).then_some(metadata.len())
    });
    sizes.sum()
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Frames in order.
#[derive(Default)]
struct Frames {
    parsed: Vec<Parsed>,
    /// One each, or none at all where nobody asks for them.
    marks: Vec<Mark>,
}

impl Frames {
    fn push(&mut self, frame: &Frame<'_>, wants_mark: bool) {
        let (parsed, mark) = Parsed::of(frame, wants_mark);
        self.parsed.push(parsed);
        if wants_mark {
            self.marks.push(mark.unwrap_or_default());
        }
    }

    fn clear(&mut self) {
        self.parsed.clear();
        self.marks.clear();
    }
}

/// Frames, or why there are no more.
type Chunk = Result<Frames, String>;

/// The thread that reads files and parses frames.
struct Reader {
    shared: Arc<Shared>,
    chunks: Sender<Chunk>,
    /// Chunks that come back empty.
    spent: Receiver<Frames>,
    chunk: Frames,
    wants_marks: bool,
}

/// Nobody takes what is read any more, or it was stopped.
struct Stopped;

/// Why reading ends before the files do.
enum Ending {
    Stopped,
    /// A file is at fault.
    Fault(String),
}

impl From<Stopped> for Ending {
    fn from(Stopped: Stopped) -> Self {
        Ending::Stopped
    }
}

impl Reader {
    fn run(mut self, paths: &[PathBuf]) {
        for path in paths {
            let read = self.read(path);
            let sent = self.send();
            match (read, sent) {
                (Ok(()), Ok(())) => {}
                (Err(Ending::Fault(fault)), Ok(())) => {
                    // If nobody takes it, nobody wants to know.
                    let _ = self.chunks.send(Err(fault));
                    return;
                }
                (Err(Ending::Stopped), _) | (_, Err(Stopped)) => return,
            }
        }
    }

    fn read(&mut self, path: &Path) -> Result<(), Ending> {
        let fault = |error: &dyn std::fmt::Display| {
            let name = if is_stdin(path) {
                "standard input".into()
            } else {
                path.display().to_string()
            };
            Ending::Fault(format!("{name}: {error}"))
        };
        let source: Box<dyn Read + Send> = if is_stdin(path) {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).map_err(|error| fault(&error))?)
        };
        let source = Box::new(Counting {
            source,
            shared: self.shared.clone(),
        });
        let mut reader = CaptureReader::open(source).map_err(|error| fault(&error))?;
        while let Some(frame) = reader.next_frame().map_err(|error| fault(&error))? {
            self.chunk.push(&frame, self.wants_marks);
            // What is there is not kept waiting while a slow source is asked for more.
            if self.chunk.parsed.len() == CHUNK || reader.is_drained() {
                self.send()?;
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Stopped> {
        if self.shared.stopped.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        if self.chunk.parsed.is_empty() {
            return Ok(());
        }
        let next = self.spent.try_recv().unwrap_or_default();
        let chunk = std::mem::replace(&mut self.chunk, next);
        self.chunks.send(Ok(chunk)).map_err(|_| Stopped)
    }
}

/// The thread that counts frames in flows.
struct Counter {
    state: ReplayState,
    shared: Arc<Shared>,
    sender: Sender<Batch>,
    chunks: Receiver<Chunk>,
    spent: Sender<Frames>,
    /// The packets' time at the last handover.
    handed_over: u64,
}

impl Counter {
    fn run(mut self) {
        let mut error = None;
        while let Ok(chunk) = self.chunks.recv() {
            match chunk {
                Ok(frames) => {
                    if self.count(frames).is_err() {
                        break;
                    }
                }
                Err(fault) => error = Some(fault),
            }
        }
        while self.state.close_some(CLOSE_STEP) {
            if self.hand_over().is_err() {
                break;
            }
        }
        // Nobody may be there to take the rest.
        let _ = self.hand_over();
        self.tell_progress();
        let result = ReplayResult {
            ledger: self.state.ledger(),
            error,
        };
        *self.shared.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }

    fn count(&mut self, mut frames: Frames) -> Result<(), Stopped> {
        let mut marks = frames.marks.iter();
        for group in frames.parsed.chunks(LOOKAHEAD) {
            self.state.look_ahead(group);
            for frame in group {
                while self.state.handle_timers(frame.time) {
                    self.hand_over_batches(frame.time)?;
                }
                self.state.handle_parsed(frame, marks.next());
                self.hand_over_batches(frame.time)?;
            }
        }
        self.tell_progress();
        frames.clear();
        // The reader has gone, or has enough of them.
        let _ = self.spent.try_send(frames);
        if self.shared.stopped.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        Ok(())
    }

    fn tell_progress(&self) {
        self.shared.packets.store(self.state.frames(), Ordering::Relaxed);
        self.shared.flows.store(self.state.live_flows(), Ordering::Relaxed);
    }

    /// Hands over what is enough for a batch, or has waited long enough: somebody may be looking at a live capture.
    fn hand_over_batches(&mut self, now: u64) -> Result<(), Stopped> {
        let enough = self.state.records_waiting() >= BATCH;
        if !enough && now.abs_diff(self.handed_over) < LINGER {
            return Ok(());
        }
        self.handed_over = now;
        self.hand_over()
    }

    fn hand_over(&mut self) -> Result<(), Stopped> {
        let mut records: Vec<Record> = Vec::with_capacity(self.state.records_waiting());
        let mut openings = Vec::new();
        self.state.drain_records(&mut records, &mut openings);
        if records.is_empty() && openings.is_empty() {
            return Ok(());
        }
        let batch = Batch {
            directory: self.state.directory(),
            records,
            openings,
        };
        self.sender.send(batch).map_err(|_| Stopped)
    }
}

/// Counts what is read.
struct Counting {
    source: Box<dyn Read + Send>,
    shared: Arc<Shared>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.shared.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
